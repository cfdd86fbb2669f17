# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""s6: a supervised service per worker, with the socket kept by s6-fdholder, which is one of its services as well."""

import lib
from contender import BACKLOG, OwnUnits

FDHOLDER = '''#!/usr/bin/execlineb -P
s6-fdholder-daemon -1 -i {directory}/rules {directory}/fdholder.sock
'''
RUN = '''#!/usr/bin/execlineb -P
s6-fdholder-retrieve {directory}/fdholder.sock unix:app
s6-setuidgid www-data
{app}
'''
PERMISSIONS = {'S6_FDHOLDER_STORE_REGEX': '.*', 'S6_FDHOLDER_RETRIEVE_REGEX': '.*'}


class S6(OwnUnits):
    key, title = 's6', 's6, fdholder'
    verb = 's6-svc -wr -r, one by one'
    package = 's6'
    nested = True
    binds = True

    @property
    def lines(self):
        directory = self.application.directory
        store = (f'/usr/bin/s6-ipcserver-socketbinder -B -a 0666 -b {BACKLOG} {self.listen[0]} '
                 f'/usr/bin/s6-fdholder-store {directory}/fdholder.sock unix:app')
        # The services start when the socket is in its place, and not by what an earlier life has left.
        script = (f'until [ -S {directory}/fdholder.sock ]; do sleep 0.01; done; {store}; '
                  f'exec /usr/bin/s6-svscanctl -an {directory}/scan')
        return (f"Type=exec\nExecStartPre=/bin/rm -f {directory}/fdholder.sock\nExecStartPost=/bin/sh -c '{script}'\n"
                f'ExecStop=/usr/bin/s6-svscanctl -t {directory}/scan\nKillMode=mixed\nRestart=always\nRestartSec=0')

    def configuration(self):
        directory = self.application.directory
        files = {'scan/fdholder/run': FDHOLDER.format(directory=directory), 'scan/fdholder/notification-fd': '1\n',
                 'rules/uid/0/allow': ''}
        for name, value in PERMISSIONS.items():
            files[f'rules/uid/0/env/{name}'] = f'{value}\n'
        for i in range(self.n_workers):
            files[f'scan/app-{i}/run'] = RUN.format(directory=directory, app=self.app)
            files[f'scan/app-{i}/down-signal'] = 'SIGUSR1\n'
        return files

    def command_text(self):
        return f'/usr/bin/s6-svscan -c {max(500, self.n_workers * 2)} {self.application.directory}/scan'

    def replace_workers(self):
        for i in range(self.n_workers):
            result = lib.run(['/usr/bin/s6-svc', '-wr', '-T', '40000', '-r', str(self.path(f'scan/app-{i}'))],
                             check=False, timeout=60)
            if result.returncode != 0:
                break
        return result
