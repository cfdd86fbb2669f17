# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""start_server of Server::Starter. It has one child, so that is multiwatch."""

import shutil

import lib
from contender import BACKLOG, OwnUnits
from contenders.multiwatch import MULTIWATCH

# It says in a variable which descriptor the socket is.
CHILD = '''#!/bin/sh
eval "exec {multiwatch} -- {app} <&${{SERVER_STARTER_PORT##*=}}"
'''


class StartServer(OwnUnits):
    key, title = 'start-server', 'start_server, multiwatch'
    verb = 'start_server --restart'
    package = 'libserver-starter-perl'
    nested = True
    binds = True
    lines = 'Type=exec\nUser=www-data\nKillMode=mixed\nRestart=always\nRestartSec=0\nUMask=0111'

    def pool_options(self):
        return {**super().pool_options(), 'listen': str(self.path('state/app.sock'))}

    def configuration(self):
        return {'state/empty': '', 'child': CHILD.format(multiwatch=MULTIWATCH.format(n=self.n_workers), app=self.app)}

    def write_units(self):
        super().write_units()
        shutil.chown(self.path('state'), 'www-data')

    def command_text(self):
        return (f'/usr/bin/start_server --path={self.listen[0]} --backlog={BACKLOG} --interval=1 '
                f'{" ".join(self.state_files())} -- /bin/sh {self.path("child")}')

    def state_files(self):
        return [f'--{kind}-file={self.application.directory}/state/{kind}' for kind in ('pid', 'status')]

    def replace_workers(self):
        # Written when a child has lived for --interval.
        lib.wait_until(self.path('state/status').exists, what='the status file of start_server')
        return lib.run(['/usr/bin/start_server', '--restart', *self.state_files()], check=False, timeout=60)
