# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""Plain systemd: one instance of a template per worker, all on one socket unit. What is to be matched on cost."""

import itertools

import lib
from contender import BACKLOG, ON_SOCKET, ROOT, Contender

# systemd 257 may give an instance no socket if there has been one of the name before, whose units were removed.
SERIAL = itertools.count()


class Templates(Contender, lib.Pool):
    key, title = 'systemd', 'systemd template'
    verb = 'systemctl restart, one by one'

    def unit_name(self):
        if not self.instance:
            self.instance = f'-{next(SERIAL)}'
        return super().unit_name()

    def pool_options(self):
        # A socket has one service that it starts; the others have it by Sockets=.
        return {'command': None, 'listen': str(ROOT / f'{self.unit_name()}.sock'),
                'socket': [f'Backlog={BACKLOG}', f'Service={self.unit_name()}@1.service']}

    @property
    def instances(self):
        return [f'{self.name}@{i + 1}.service' for i in range(self.n_workers)]

    def units(self):
        return [self.socket, *self.instances]

    def start_units(self):
        lib.systemctl('start', self.socket)
        if self.start_what == 'service':
            lib.systemctl('start', *self.instances)

    def service_text(self):
        return (f'[Unit]\nStartLimitIntervalSec=0\n\n[Service]\nType=exec\nExecStart={self.app}\n'
                f'Sockets={self.socket}\n{ON_SOCKET}'
                f'Restart=always\nRestartSec=0\nKillSignal=SIGUSR1\nTimeoutStopSec=30\n'
                f'Slice={self.slice}\n{lib.as_lines(self.extra_service)}')

    @property
    def slice(self):
        return f'compare-{self.key}{self.instance.replace("-", "_")}.slice'  # below compare.slice

    def write_units(self):
        self.write(lib.SYSTEMD_UNITS / f'{self.name}@.service', self.service_text())
        self.write(lib.SYSTEMD_UNITS / self.socket, self.socket_text())
        lib.daemon_reload()

    @property
    def cgroup(self):
        return lib.CGROUP / lib.slice_path(self.slice).lstrip('/')

    def start(self, check=True):
        return lib.systemctl('start', *self.instances, check=check)

    def stop(self, check=True):
        return lib.systemctl('stop', *self.instances, check=check)

    def replace_workers(self):
        for unit in self.instances:
            result = lib.systemctl('restart', unit, check=False)
            if result.returncode != 0:
                break
        return result

    def restart_manager(self):
        """It is PID 1."""
        result = lib.systemctl('daemon-reexec', check=False)
        lib.wait_until(lambda: lib.systemctl('show', '--property=Version', check=False).returncode == 0, 30)
        return result

    def descendants_of(self):
        return 1
