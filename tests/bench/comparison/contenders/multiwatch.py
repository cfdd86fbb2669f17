# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""multiwatch, on the socket of systemd and in the classic pairing with spawn-fcgi."""

from contender import BACKLOG, ON_SOCKET, OwnUnits

# Its own limit of failures is not what is compared: it would give up.
MULTIWATCH = '/usr/bin/multiwatch -f {n} -r 1000000 -t 1'
LIFE = 'Type=exec\nRestart=always\nRestartSec=0\nKillSignal=SIGUSR1\nKillMode=mixed\nTimeoutStopSec=30'


class Multiwatch(OwnUnits):
    key, title = 'multiwatch', 'multiwatch'
    verb = 'systemctl restart'
    package = 'multiwatch'
    lines = ON_SOCKET + LIFE

    def command_text(self):
        return f'{MULTIWATCH.format(n=self.n_workers)} -- {self.app}'

    def replace_workers(self):
        """It has no reload."""
        return self.restart(check=False)


class SpawnFcgi(Multiwatch):
    key, title = 'spawn-fcgi', 'spawn-fcgi, multiwatch'
    package = 'spawn-fcgi'
    binds = True
    lines = LIFE

    def command_text(self):
        return (f'/usr/bin/spawn-fcgi -n -s {self.listen[0]} -b {BACKLOG} -M 0666 -u www-data -U www-data -- '
                f'{super().command_text()}')
