# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""What is left of a manager when everything is left out, and a proxy before it."""

from contender import ON_SOCKET, OwnUnits, install

PROXY = '/usr/lib/systemd/systemd-socket-proxyd'


class Bare(OwnUnits):
    key, title = 'bare', 'bare fork and exec'
    verb = 'systemctl restart'
    lines = f'Type=notify\n{ON_SOCKET}KillMode=mixed'
    arguments = ''

    def command_text(self):
        return f'{install("spawn-bare")} {self.arguments} {self.n_workers} {self.app}'

    def replace_workers(self):
        """It has no reload."""
        return self.restart(check=False)


class BareStreams(Bare):
    """Each worker has a journal stream of its own, as with fcgi-pool."""
    key, title = 'bare-streams', 'bare, a journal stream each'
    arguments = '--streams'


class SocketProxyd(OwnUnits):
    """systemd-socket-proxyd, and a bare one behind it."""
    key, title = 'socket-proxyd', 'systemd-socket-proxyd'
    verb = None
    lines = 'Type=exec\nUser=www-data'

    def __init__(self, n_workers=4, **options):
        self.behind = Bare(n_workers, instance='-behind')
        super().__init__(n_workers, **options)

    def command_text(self):
        return f'{PROXY} --connections-max=4096 {self.behind.listen[0]}'

    def __enter__(self):
        self.behind.__enter__()
        return super().__enter__()

    def clean_up(self):
        left = super().clean_up()
        return {**left, **self.behind.clean_up()}

    def workers(self):
        return self.behind.workers()
