# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""supervisord with an fcgi-program, whose socket it binds itself."""

import lib
from contender import BACKLOG, OwnUnits

CONFIGURATION = '''[unix_http_server]
file={directory}/control.sock
[supervisord]
logfile={directory}/log
pidfile={directory}/pid
user=root
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{directory}/control.sock
[fcgi-program:app]
command={app}
socket=unix://{socket}
socket_mode=0666
socket_backlog={backlog}
process_name=%(program_name)s_%(process_num)s
numprocs={n}
user=www-data
autorestart=true
startsecs={startsecs}
startretries=1000000
stopsignal=USR1
stopwaitsecs=30
stdout_logfile=NONE
stderr_logfile=NONE
'''


class Supervisor(OwnUnits):
    """The unit is Debian's."""
    key, title = 'supervisor', 'supervisor'
    verb = 'supervisorctl restart GROUP:*'
    package = 'supervisor'
    binds = True
    startsecs = 0
    lines = '''ExecStop=/usr/bin/supervisorctl -c {configuration} shutdown
KillMode=process
Restart=on-failure
RestartSec=50s'''

    def configuration(self):
        return {'supervisord.conf': CONFIGURATION.format(
            directory=self.application.directory, app=self.app, socket=self.listen[0], backlog=BACKLOG,
            n=self.n_workers, startsecs=self.startsecs)}

    def command_text(self):
        return f'/usr/bin/supervisord -n -c {self.path("supervisord.conf")}'

    def service_text(self):
        return super().service_text().format(configuration=self.path('supervisord.conf'))

    def ctl(self, *words):
        return lib.run(['/usr/bin/supervisorctl', '-c', str(self.path('supervisord.conf')), *words], check=False,
                       timeout=120)

    def replace_workers(self):
        result = self.ctl('restart', 'app:*')
        # It says in words what did not start.
        if 'ERROR' in result.stdout and result.returncode == 0:
            result.returncode = -1
        return result


class SupervisorTuned(Supervisor):
    """As well as a unit can do for it, and with a start that has to last a second to be one."""
    key, title = 'supervisor-tuned', 'supervisor, better unit'
    startsecs = 1
    lines = '''ExecStop=/usr/bin/supervisorctl -c {configuration} shutdown
KillMode=mixed
Restart=on-failure
RestartSec=100ms'''
