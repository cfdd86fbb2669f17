# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""What all contenders have in common.

A contender is a manager with its workers, in units of its own, for the length of a with block: the verbs that users
have for it, and what can be asked of any of them. Where they may, all run the same program on sockets alike; those
that run only their own kind of worker have one that answers the same. What is particular is in contenders/, a file
each.
"""

import contextlib
import glob
import os
import pathlib
import platform
import signal

import lib
import retirement
from application import Application
from survival import PROGRAMS

ROOT = pathlib.Path('/run/fcgi-pool-compare')
PACKAGES = pathlib.Path('/var/cache/fcgi-pool-tests')
# All contenders are in it, so that what a unit has cost can be asked when it has gone.
SLICE = 'compare.slice'
BACKLOG = 4096
# In [Service], for programs that expect their listener there.
ON_SOCKET = 'User=www-data\nStandardInput=socket\nStandardOutput=journal\nStandardError=journal\n'
START_SECONDS = 60
REPLACE_SECONDS = 60

# What a worker that waits for a request is asleep in: accept, accept4; epoll_wait, epoll_pwait, futex, select.
ACCEPTING = {'x86_64': {43, 288}, 'aarch64': {202, 242}}[platform.machine()]
WAITING = {'x86_64': {232, 281, 202, 23, 270}, 'aarch64': {22, 98, 72}}[platform.machine()] | ACCEPTING


def install(name):
    """The path of a test program outside of what sandboxes hide; copied once, since others may be executing it."""
    path = PROGRAMS / name
    return path if path.exists() else pathlib.Path(retirement.install(name))


def executable(pid):
    """What a process executes, or None when it has gone."""
    with contextlib.suppress(OSError):
        return os.readlink(f'/proc/{pid}/exe')
    return None


def current_syscall(pid):
    """The number of the system call that a process is asleep in; None while it runs."""
    with contextlib.suppress(OSError, ValueError):
        return int(pathlib.Path(f'/proc/{pid}/syscall').read_text().split()[0])
    return None


class Contender:
    """To be mixed with lib.Pool or one of its kind.

    key      in options and file names
    title    in tables
    verb     what people do to replace the workers, in words, when it is not `systemctl reload`
    """
    key = title = ''
    verb = 'systemctl reload'
    program = str(PROGRAMS / 'fcgi-echo')  # what a worker executes
    waits_in = ACCEPTING
    package = None  # Debian's
    accepts_on_stdin = True  # workers wait in accept() on descriptor 0
    nested = False  # workers are no children of the main process, but of its children

    def __init__(self, n_workers=4, *, instance='', **options):
        self.n_workers, self.instance = n_workers, instance
        self.application = Application(ROOT / self.unit_name(), self.files_of_application())
        super().__init__(self.unit_name(), **{**self.pool_options(), **options})

    def unit_name(self):
        return f'compare-{self.key}{self.instance}'

    def files_of_application(self):
        return {'app': install('fcgi-echo')}

    def pool_options(self):
        """Arguments of the class that this one is mixed with."""
        raise NotImplementedError

    @property
    def app(self):
        """The program to run, of whatever version."""
        return self.application.current / 'app'

    def request(self):
        """Options of fcgi-load for this contender's application."""
        return {}

    # --- life ---

    def __enter__(self):
        # Managers that are no root bind their sockets there.
        ROOT.mkdir(exist_ok=True)
        ROOT.chmod(0o1777)
        lib.systemctl('start', SLICE)
        self.application.create()
        super().__enter__()
        if self.start_what == 'service':
            try:
                self.wait_serving()
            except BaseException:
                self.clean_up()
                raise
        return self

    def __exit__(self, *_):
        # What a contender leaves behind is its affair, and killed.
        self.clean_up()

    def clean_up(self):
        left = super().clean_up()
        self.application.remove()
        return left

    def is_serving(self):
        pids = self.workers()
        return len(pids) == self.n_workers and all(current_syscall(pid) in self.waits_in for pid in pids)

    def wait_serving(self, seconds=START_SECONDS):
        """Waits until all workers wait for requests."""
        lib.wait_until(self.is_serving, seconds, f'{self.n_workers} workers of {self.title} to wait', interval=0.005)

    # --- verbs ---

    def replace_workers(self):
        """What people do to have a new version of the application run; the result of a command, at whose end it is
        over as far as they are told."""
        return self.reload(check=False)

    def wait_replaced(self, old, seconds=REPLACE_SECONDS):
        """Waits until none of the old workers is left and all new ones are there."""
        lib.wait_until(lambda: not set(old) & set(self.workers()) and len(self.workers()) >= self.n_workers, seconds,
                       f'the workers of {self.title} to be replaced', interval=0.01)

    def restart_manager(self):
        return self.restart(check=False)

    def kill_manager(self):
        os.kill(self.main_pid, signal.SIGKILL)

    def stop_manager(self):
        return self.stop(check=False)

    # --- questions ---

    def workers(self):
        """Pids of the processes that execute the application."""
        return sorted(pid for pid in self.processes() if executable(pid) == self.program)

    def managers(self):
        """Pids of what is there besides workers."""
        workers = set(self.workers())
        return sorted(pid for pid in self.processes() if pid not in workers and lib.parent(pid) not in workers)

    def descendants_of(self):
        """The process whose children, or theirs, the workers are."""
        return self.main_pid

    def reinstall(self):
        """What an upgrade of the package does."""
        packages = glob.glob(f'{PACKAGES}/{self.package}_*.deb')
        assert len(packages) == 1, f'expected one package {self.package} in {PACKAGES}, not {packages}'
        lib.run(['dpkg', '--install', packages[0]])
        self.restart_manager()

    def load(self, **options):
        """A closed loop of clients in the background, who never try anything again."""
        options = {'duration': 600, **self.request(), **options}
        return lib.BackgroundLoad(self, **{name: value for name, value in options.items() if value is not None})

    def load_now(self, **options):
        return lib.load(self, **{**self.request(), **options})

    def answers(self, seconds=2):
        """Whether one request is answered."""
        return self.load_now(requests=1, timeout=seconds)['ok'] == 1


class OwnUnits(Contender, lib.Pool):
    """With hand-written units, named as the contender.

    command_text    ExecStart=
    lines           what else there is in [Service], text
    binds           the manager binds the socket itself, so there is no socket unit
    configuration   {name: text} of files in the application's directory
    """
    lines = ''
    binds = False

    def command_text(self):
        raise NotImplementedError

    def configuration(self):
        return {}

    def pool_options(self):
        return {'command': None, 'listen': str(ROOT / f'{self.unit_name()}.sock'), 'socket': [f'Backlog={BACKLOG}']}

    def path(self, name):
        """Of one of the files of configuration()."""
        return self.application.directory / name

    def units(self):
        return [self.service] if self.binds else [self.socket, self.service]

    def service_text(self):
        socket = '' if self.binds else f'Requires={self.socket}\nAfter={self.socket}\n'
        return (f'[Unit]\nStartLimitIntervalSec=0\n{socket}\n[Service]\nExecStart={self.command_text()}\n'
                f'Slice={SLICE}\nLimitNOFILE=65536\nTasksMax=infinity\n{self.lines}\n'
                + lib.as_lines(self.extra_service))

    def write_units(self):
        for name, text in self.configuration().items():
            path = self.path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            if path.name == 'run':
                path.chmod(0o755)
        self.write(lib.SYSTEMD_UNITS / self.service, self.service_text())
        if not self.binds:
            self.write(lib.SYSTEMD_UNITS / self.socket, self.socket_text())
        lib.daemon_reload()
