# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""php-fpm: static as packaged and with a time limit for running requests, dynamic, ondemand."""

import glob
import pathlib

from contender import BACKLOG, OwnUnits, install

CONFIGURATION = '''[global]
error_log = {directory}/log
daemonize = no
{limit}
[app]
user = www-data
group = www-data
listen = {socket}
listen.backlog = {backlog}
listen.mode = 0666
pm = {mode}
pm.max_children = {n}
{more}
'''


class PhpFpm(OwnUnits):
    """With the default of process_control_timeout, 0. The unit is Debian's."""
    key, title = 'php-fpm', 'php-fpm'
    binds = True
    accepts_on_stdin = False
    limit = ''
    mode = 'static'
    lines = 'Type=notify\nExecReload=/bin/kill -USR2 $MAINPID'

    def __init__(self, n_workers=4, *, n_max=None, more='', **options):
        self.n_max = n_workers if n_max is None else n_max
        self.more = more
        super().__init__(n_workers, **options)

    @property
    def package(self):
        return pathlib.Path(self.program_of_manager()).name.replace('php-fpm', 'php') + '-fpm'

    @staticmethod
    def program_of_manager():
        programs = glob.glob('/usr/sbin/php-fpm*')
        assert len(programs) == 1, f'expected one php-fpm, not {programs}'
        return programs[0]

    def files_of_application(self):
        return {'index.php': install('echo.php')}

    def configuration(self):
        return {'fpm.conf': CONFIGURATION.format(
            directory=self.application.directory, socket=self.listen[0], backlog=BACKLOG, n=self.n_max,
            limit=self.limit, mode=self.mode, more=self.more)}

    def command_text(self):
        return f'{self.program_of_manager()} --nodaemonize --fpm-config {self.path("fpm.conf")}'

    def break_configuration(self):
        self.path('fpm.conf').write_text(self.configuration()['fpm.conf'] + 'no_such_setting = 1\n')

    def mend_configuration(self):
        self.path('fpm.conf').write_text(self.configuration()['fpm.conf'])

    def workers(self):
        main = self.find_main_pid()
        return sorted(pid for pid in self.processes() if pid != main)

    def request(self):
        return {'param': f'SCRIPT_FILENAME={self.application.current}/index.php'}


class PhpFpmPatient(PhpFpm):
    key, title = 'php-fpm-30s', 'php-fpm, 30 s'
    limit = 'process_control_timeout = 30s'


class PhpFpmDynamic(PhpFpm):
    """n_workers is what it has at rest, n_max what it may have."""
    key, title = 'php-fpm-dynamic', 'php-fpm dynamic'
    mode = 'dynamic'

    def __init__(self, n_workers=2, *, n_max=64, **options):
        super().__init__(n_workers, n_max=n_max, more=f'pm.start_servers = {n_workers}\npm.min_spare_servers = 2\n'
                         'pm.max_spare_servers = 8\n', **options)


class PhpFpmOndemand(PhpFpm):
    key, title = 'php-fpm-ondemand', 'php-fpm ondemand'
    mode = 'ondemand'

    def __init__(self, n_workers=0, *, n_max=64, **options):
        super().__init__(n_workers, n_max=n_max, **options)
