# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""When a worker counts as ready, and when systemd is told that the pool is."""

import os
import pathlib
import re
import shutil
import socket
import subprocess

import pytest

import lib
from test_supervision import IDS, echo, misbehave


class Gate:
    """A program that waits, slot by slot, until the test lets it go on, for the length of a with block."""

    def __init__(self, name, *program):
        self.directory = pathlib.Path(f'/run/fcgi-pool-test-{name}')
        self.command = ['/bin/sh', '-c', f'read line <{self.directory}/$FCGI_POOL_SLOT; exec {" ".join(map(str, program))}']

    def __enter__(self):
        self.directory.mkdir(mode=0o755)
        for slot in range(4):
            os.mkfifo(self.directory / str(slot), 0o644)
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.directory)

    def open(self, slot):
        """Waits for the worker to be at the gate, and lets it in."""
        # Blocks until there is a reader.
        (self.directory / str(slot)).write_text('\n')


class Start:
    """systemctl start in the background, for the length of a with block."""

    def __init__(self, pool):
        self.pool = pool

    def __enter__(self):
        self.process = subprocess.Popen(['systemctl', 'start', self.pool.service], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return self

    @property
    def blocks(self):
        return self.process.poll() is None

    def finish(self, timeout=30):
        return self.process.wait(timeout)

    def __exit__(self, *_):
        if self.blocks:
            self.process.kill()
        self.process.wait()


def seconds_until_ready(pool, slot=0):
    """From the kernel's word on the start, which may be 10 ms too early, to the helper's."""
    ready, = pool.journal(WORKER_SLOT=slot, WORKER_STATE='ready', MESSAGE_ID=IDS['MESSAGE_WORKER_STATE'])
    return lib.written(ready) - lib.stat(ready['WORKER_PID']).started


def ready_lines(pool, **fields):
    return pool.messages(WORKER_STATE='ready', MESSAGE_ID=IDS['MESSAGE_WORKER_STATE'], **fields)


# --- systemd is told ---

def test_start_waits_for_all():
    """systemctl start returns when the last worker is ready, not before; STATUS= counts along."""
    with Gate('ready', *misbehave('serve')) as gate, lib.Pool('ready', gate.command, ['--workers=3'], start='socket') as pool, \
            Start(pool) as start:
        for n, slot in enumerate([1, 0, 2]):
            pool.wait_show('StatusText', f'{n}/3 workers ready, {3 - n} starting')
            assert start.blocks
            assert (pool.active_state, pool.show('SubState')) == ('activating', 'start')
            assert pool.journal(MESSAGE_ID=IDS['MESSAGE_POOL_STARTED']) == []
            gate.open(slot)
            pool.wait_journal(WORKER_SLOT=slot, WORKER_STATE='ready')
        assert start.finish() == 0
        assert pool.active_state == 'active'
        assert pool.status_text == '3/3 workers ready'
        pool.wait_journal(MESSAGE_ID=IDS['MESSAGE_POOL_STARTED'])
        assert len(pool.journal(MESSAGE_ID=IDS['MESSAGE_POOL_STARTED'])) == 1


def test_start_timeout_of_systemd_is_stretched():
    """--start-timeout= is the only number to set: a shorter TimeoutStartSec= does not end the start."""
    with lib.Pool('ready', misbehave('late', 2500), ['--workers=1', '--start-timeout=60s'], service='TimeoutStartSec=1') as pool:
        assert pool.active_state == 'active'
        assert seconds_until_ready(pool) >= 2.4


# --- --ready=exec and --ready=SECONDS ---

def test_exec():
    """With --ready=exec a worker is ready when its program runs, whatever it does."""
    with lib.Pool('ready', misbehave('never-ready'), ['--workers=2', '--ready=exec']) as pool:
        assert pool.status_text == '2/2 workers ready'
        assert len(ready_lines(pool)) == 2


def test_span():
    """With --ready=SPAN a worker is ready when it has lived that long, not before, however many are spawned with it."""
    with lib.Pool('ready', misbehave('never-ready'), ['--workers=32', '--ready=1500ms']) as pool:
        assert pool.status_text == '32/32 workers ready'
        assert min(seconds_until_ready(pool, slot) for slot in range(32)) >= 1.48


def test_span_and_death():
    """With --ready=SPAN a worker that dies before has failed."""
    with lib.Pool('ready', misbehave('exit', 0, 300), ['--workers=1', '--ready=1500ms'], start='socket') as pool:
        assert pool.start(check=False).returncode != 0
        assert pool.show('ExecMainStatus') == '69'
        assert ready_lines(pool) == []


# --- --ready=notify ---

def test_notify():
    """With --ready=notify a worker is ready when it says READY=1 on a socket of the pool's own."""
    with lib.Pool('ready', misbehave('notify', 300), ['--workers=2', '--ready=notify']) as pool:
        assert pool.status_text == '2/2 workers ready'
        assert all(text.endswith(': notified') for text in ready_lines(pool))
        for slot, pid in pool.slots().items():
            assert seconds_until_ready(pool, slot) >= 0.28
            address = lib.environment(pid)['NOTIFY_SOCKET']
            assert address == '/run/ready/notify'
            assert address != lib.environment(pool.main_pid)['NOTIFY_SOCKET']
        # For the workers and nobody else.
        assert os.stat(address).st_mode & 0o777 == 0o600


def test_notify_without_runtime_directory():
    """Without RuntimeDirectory= the pool's socket has an abstract name, and works as well."""
    with lib.Pool('ready', misbehave('notify', 0), ['--workers=2', '--ready=notify'], service='RuntimeDirectory=') as pool:
        assert pool.status_text == '2/2 workers ready'
        assert lib.environment(pool.workers()[0])['NOTIFY_SOCKET'].startswith('@')


def test_notify_never_sent():
    """With --ready=notify a worker that waits for connections and says nothing is not ready."""
    with lib.Pool('ready', misbehave('serve'), ['--workers=1', '--ready=notify', '--start-timeout=500ms'], start='socket') as pool:
        assert pool.start(check=False).returncode != 0
        assert pool.show('ExecMainStatus') == '69'


def test_notify_of_another_process():
    """READY=1 from any other process, another worker included, does not make a worker ready."""
    command = ['/bin/sh', '-c', f'[ $FCGI_POOL_SLOT = 0 ] && exec {" ".join(misbehave("never-ready"))}; '
               f'read line <{{}}; exec {" ".join(misbehave("notify", 0))}']
    with Gate('ready') as gate:
        command[2] = command[2].replace('{}', f'{gate.directory}/1')
        with lib.Pool('ready', command, ['--workers=2', '--ready=notify'], start='socket') as pool, Start(pool) as start:
            pool.wait_show('StatusText', '0/2 workers ready, 2 starting')
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto(b'READY=1', '/run/ready/notify')
            # Behind it in the same queue: when this has been read, that has been, too.
            gate.open(1)
            pool.wait_journal(WORKER_SLOT=1, WORKER_STATE='ready')
            pool.wait_show('StatusText', '1/2 workers ready, 1 starting')
            assert ready_lines(pool, WORKER_SLOT=0) == []
            assert start.blocks and pool.active_state == 'activating'


def test_notifications_stay_in_the_pool():
    """What else a worker says in the sd_notify(3) protocol does not reach systemd."""
    text = 'STOPPING=1\nSTATUS=not true\nMAINPID=1\nERRNO=5\nWATCHDOG=trigger\nEXTEND_TIMEOUT_USEC=1\nREADY=1'
    with lib.Pool('ready', misbehave('notify', 0, text), ['--workers=2', '--ready=notify'], service='WatchdogSec=30') as pool:
        main_pid = pool.main_pid
        assert lib.show_all(pool.service, 'ActiveState', 'SubState', 'StatusText', 'StatusErrno', 'Result') == {
            'ActiveState': 'active', 'SubState': 'running', 'StatusText': '2/2 workers ready', 'StatusErrno': '0',
            'Result': 'success'}
        assert lib.parent(pool.workers()[0]) == main_pid
        assert lib.load(pool, clients=2, requests=10)['failed'] == 0


# --- --ready=auto ---

PROGRAMS = {
    'accept': lambda: misbehave('serve'), 'poll': lambda: misbehave('poll'), 'select': lambda: misbehave('select'),
    'epoll': lambda: misbehave('epoll'), 'threads': lambda: misbehave('threads', 4), 'fork': lambda: misbehave('fork', 2),
    'late': lambda: misbehave('late', 1500), 'libfcgi': echo, 'go': lambda: [lib.tool('go-echo')],
    'php': lambda: ['/usr/bin/php-cgi'], 'perl': lambda: ['/usr/bin/perl', lib.tool('echo.pl')], 'fcgiwrap': lambda: ['/usr/sbin/fcgiwrap'],
}


@pytest.mark.parametrize('program', PROGRAMS)
def test_auto(program):
    """With --ready=auto a worker is ready when it is seen waiting on the listener, in whatever way it does."""
    with lib.Pool('ready', PROGRAMS[program](), ['--workers=2'], service='UnsetEnvironment=PHP_FCGI_CHILDREN') as pool:
        lines = ready_lines(pool)
        assert len(lines) == 2 and all(text.endswith(': serves the listener') for text in lines), lines
        assert pool.journal(MESSAGE_ID=IDS['MESSAGE_WORKER_ASSUMED_READY']) == []
        if program == 'late':
            assert min(seconds_until_ready(pool, slot) for slot in range(2)) >= 1.48


@pytest.mark.parametrize('listen', ['127.0.0.1:9141', '[::1]:9141'])
def test_auto_on_tcp(listen):
    """With --ready=auto it does not matter what kind of socket it is."""
    with lib.Pool('ready', echo(), ['--workers=2'], listen=listen) as pool:
        assert all(text.endswith(': serves the listener') for text in ready_lines(pool))


def test_auto_and_notify():
    """With --ready=auto a worker that says READY=1 is ready, even if it never waits."""
    with lib.Pool('ready', ['/bin/sh', '-c', 'exec ' + ' '.join(misbehave('notify', 200)) + ' "$@"'], ['--workers=2']) as pool:
        assert all(text.endswith((': notified', ': serves the listener')) for text in ready_lines(pool))
        assert any(text.endswith(': notified') for text in ready_lines(pool))


def test_auto_never():
    """With --ready=auto a worker that never looks at the listener is not ready, and not assumed to be."""
    with lib.Pool('ready', misbehave('never-ready'), ['--workers=1', '--start-timeout=1500ms'], start='socket') as pool:
        assert pool.start(check=False).returncode != 0
        assert pool.show('ExecMainStatus') == '69'
        assert ready_lines(pool) == []


@pytest.mark.parametrize('program', ['accept', 'epoll', 'libfcgi', 'go'])
@pytest.mark.parametrize('listen', ['/run/ready.sock', '127.0.0.1:9142'], ids=['unix', 'tcp'])
def test_auto_under_load(program, listen):
    """With --ready=auto a worker that starts into a queue that is never empty is ready although it never waits."""
    with lib.Pool('ready', PROGRAMS[program](), ['--workers=3'], listen=listen, start='socket') as pool:
        # More clients than the pool can ever serve at a time; the first of them starts it.
        with lib.BackgroundLoad(pool, clients=60, duration=100, timeout=90, query='sleep=100') as load:
            pool.wait_show('ActiveState', 'active', 30)
            lines = ready_lines(pool)
            assert len(lines) == 3 and all(text.endswith(': serves the listener') for text in lines), lines
            result = load.stop()
        assert result['failed'] == 0 and result['ok'] > 0, result


@pytest.fixture
def unreadable():
    """A program that its user may run but not read: the kernel lets nobody but root look at the process."""
    path = pathlib.Path('/usr/local/lib/fcgi-pool-test-readiness')
    shutil.copy(lib.tool('misbehave'), path)
    path.chmod(0o711)
    yield str(path)
    path.unlink()


def test_not_observable(unreadable):
    """With --ready=auto a worker that may not be looked at counts as ready after a second, and the journal says what to do."""
    with lib.Pool('ready', [unreadable, 'serve'], ['--workers=2']) as pool:
        for slot, pid in pool.slots().items():
            line, = pool.journal(MESSAGE_ID=IDS['MESSAGE_WORKER_ASSUMED_READY'], WORKER_SLOT=slot)
            assert (line['WORKER_PID'], line['PRIORITY']) == (str(pid), '5')
            assert re.search('cannot be observed', line['MESSAGE'])
            assert seconds_until_ready(pool, slot) >= 0.98
        assert lib.load(pool, clients=2, requests=10)['failed'] == 0
