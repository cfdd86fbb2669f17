# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""fcgiwrap -c, which runs a CGI program for each request; its cost has to be kept out of what is compared."""

import lib
from contender import OwnUnits, install


class Fcgiwrap(OwnUnits):
    key, title = 'fcgiwrap', 'fcgiwrap -c'
    verb = 'systemctl restart'
    package = 'fcgiwrap'
    lines = 'Type=exec\nUser=www-data\nGroup=www-data'

    def files_of_application(self):
        return {'app': install('echo.cgi')}

    def command_text(self):
        return f'/usr/sbin/fcgiwrap -f -c {self.n_workers}'

    def workers(self):
        main = self.find_main_pid()
        return sorted(pid for pid in self.processes() if lib.parent(pid) == main)

    def request(self):
        return {'param': f'SCRIPT_FILENAME={self.app}'}

    def replace_workers(self):
        """It has no reload."""
        return self.restart(check=False)
