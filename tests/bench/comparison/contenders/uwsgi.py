# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""uWSGI, with workers of its own kind: a Python program that answers the same. Loaded in each worker (lazy-apps), or
a reload would not load a new version."""

import os

import lib
from contender import BACKLOG, OwnUnits, WAITING, install


class Uwsgi(OwnUnits):
    key, title = 'uwsgi', 'uWSGI, chain reload'
    verb = 'touch FILE of --touch-chain-reload'
    package = 'uwsgi-core'
    binds = True
    waits_in = WAITING
    accepts_on_stdin = False
    lines = 'Type=notify\nNotifyAccess=all\nKillSignal=SIGQUIT\nExecReload=/bin/kill -HUP $MAINPID\nRestart=on-failure'

    def __init__(self, n_workers=4, *, n_max=None, more='', **options):
        self.n_max, self.more = n_workers if n_max is None else n_max, more
        super().__init__(n_workers, **options)

    def files_of_application(self):
        return {'app.py': install('echo.wsgi')}

    def configuration(self):
        return {'reload': ''}

    def command_text(self):
        return ('/usr/bin/uwsgi-core --master --plugin python3 --need-app --lazy-apps --disable-logging '
                f'--fastcgi-socket {self.listen[0]} --chmod-socket=666 --listen {BACKLOG} --uid www-data '
                f'--gid www-data --processes {self.n_max} --wsgi-file {self.application.current}/app.py '
                f'--touch-chain-reload {self.path("reload")} --worker-reload-mercy 30 {self.more}')

    def workers(self):
        main = self.find_main_pid()
        return sorted(pid for pid in self.processes() if pid != main and lib.parent(pid) == main)

    def replace_workers(self):
        """Nobody hears how it went."""
        os.utime(self.path('reload'))
        return None


class UwsgiHup(Uwsgi):
    key, title = 'uwsgi-hup', 'uWSGI, SIGHUP'
    verb = 'SIGHUP'

    def replace_workers(self):
        return self.reload(check=False)
