# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""Cgroup, state and stored descriptors may each be missing or wrong: the pool serves, and knows its workers again."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess

import pytest

import lib
from survival import MESSAGE
from test_restart import GRACEFUL
from test_supervision import wait_grown_up

PROGRAMS = pathlib.Path('/usr/local/lib/fcgi-pool-tests/degraded')
N_WORKERS = 3
# Pushes a descriptor into the store of the unit it is in: NAME, and what to push.
PUSH = '''
import os, socket, sys
name, kind = sys.argv[1:]
fd = {'memfd': lambda: os.memfd_create('stranger'), 'pipe': lambda: os.pipe()[0],
      'pidfd': lambda: os.pidfd_open(os.getppid())}[kind]()
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sender.connect(os.environ['NOTIFY_SOCKET'])
socket.send_fds(sender, [f'FDSTORE=1\\nFDNAME={name}\\nFDPOLL=0'.encode()], [fd])
done, theirs = os.pipe()
socket.send_fds(sender, [b'BARRIER=1'], [theirs])
os.close(theirs)
os.read(done, 1)
'''


@pytest.fixture(scope='module', autouse=True)
def programs():
    """The application where the sandbox of the template does not hide it."""
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    (PROGRAMS / 'graceful').write_text(GRACEFUL)
    (PROGRAMS / 'graceful').chmod(0o755)
    (PROGRAMS / 'push.py').write_text(PUSH)
    yield
    shutil.rmtree(PROGRAMS)


@contextlib.contextmanager
def make_pool(service=(), socket=(), options=(), n_stored=N_WORKERS + 3, **others):
    with lib.TemplatePool('degraded', [PROGRAMS / 'graceful'],
                          [f'--workers={N_WORKERS}', '--stop-timeout=5s', *options],
                          service=['RestartSec=100ms', *service], socket=socket, **others) as pool:
        pool.wait_workers(N_WORKERS)
        if n_stored is not None:
            pool.wait_show('NFileDescriptorStore', str(n_stored))
        yield pool


@contextlib.contextmanager
def load(pool):
    with lib.BackgroundLoad(pool, clients=4, duration=100, any_body=True, query=lib.BUSY) as running:
        yield
        result = running.stop()
    assert result['ok'] > 0 and result['failed'] == 0, result


def crash(pool):
    """Kills the helper and waits for the next one to be ready; returns the cursor from before."""
    since = lib.journal_cursor()
    os.kill(pool.main_pid, signal.SIGKILL)
    pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['POOL_STARTED'])
    pool.wait_show('ActiveState', 'active')
    return since


def adopted(pool, since):
    return pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['ADOPTED'])['MESSAGE']


def expect_whole(pool, workers=None, n_stored=N_WORKERS + 3):
    """The pool is at rest and complete, with these workers."""
    pool.wait_show('StatusText', lambda text: lib.is_complete(text, N_WORKERS))
    pool.wait_show('NFileDescriptorStore', str(n_stored))
    assert workers is None or pool.workers() == workers
    assert sorted(pool.slots()) == list(range(N_WORKERS))


def find_fd(pid, part):
    """Number of the one descriptor of a process whose target has that in it."""
    [number] = [number for number, target in lib.fds(pid).items() if part in target]
    return number


def state_path(pool):
    return pathlib.Path(f'/proc/{pool.main_pid}/fd/{find_fd(pool.main_pid, "memfd:")}')


# --- no cgroup of its own ---

NO_CGROUP = {'Delegate=no': ['Delegate=no'], 'ProtectControlGroups=yes': ['ProtectControlGroups=yes']}


@pytest.mark.parametrize('how', NO_CGROUP)
def test_no_cgroup(how):
    """Without a cgroup of its own: said once, and restart and crash adopt by the records all the same."""
    with make_pool(NO_CGROUP[how], n_stored=N_WORKERS + 2) as pool:
        assert len(pool.journal(MESSAGE_ID=MESSAGE['DEGRADED'])) == 1
        assert 'Delegate=yes' in pool.messages(MESSAGE_ID=MESSAGE['DEGRADED'])[0]
        workers = pool.workers()
        with load(pool):
            since = crash(pool)
            assert f'{N_WORKERS} workers adopted, 0 gone meanwhile, 0 strangers' in adopted(pool, since)
            expect_whole(pool, workers, N_WORKERS + 2)
        with load(pool):
            since = lib.journal_cursor()
            pool.restart()
            assert f'{N_WORKERS} workers adopted' in adopted(pool, since)
            pool.wait_workers(N_WORKERS, without=workers)
            expect_whole(pool, n_stored=N_WORKERS + 2)
        pool.stop()
        assert not pool.processes()


def test_no_cgroup_signals_before_ready():
    """Without a guardian a helper told to stop before it was ready takes the workers with it: nobody else would."""
    with make_pool(['Delegate=no', 'Restart=no'], n_stored=N_WORKERS + 2) as pool:
        command = pool.command
        pool.command = ['/bin/sleep', '1000']
        pool.write_env()
        since = lib.journal_cursor()
        lib.systemctl('--no-block', 'restart', pool.service)
        pool.wait_journal('starting, pid', since=since)
        pool.stop()
        pool.command = command
        assert not pool.processes()


# --- a store that keeps nothing, or not enough ---

def test_no_store():
    """FileDescriptorStoreMax=0: each helper makes the pool whole again, whoever is left of the workers."""
    # Where nothing is stored the guardian sees the end of each helper, and begins its work.
    with make_pool(['FileDescriptorStoreMax=0'], n_stored=0) as pool:
        with load(pool):
            pass
        crash(pool)
        expect_whole(pool, n_stored=0)
        assert lib.load(pool, clients=3, requests=30, any_body=True)['failed'] == 0
        pool.restart()
        expect_whole(pool, n_stored=0)
        pool.stop()
        assert not pool.processes()


def test_store_too_small():
    """A store with room for state and leash only: said, and nothing else is lost by it."""
    with make_pool(['FileDescriptorStoreMax=2'], n_stored=2) as pool, load(pool):
        workers = pool.workers()
        if lib.systemd_version() >= 254:
            pool.wait_journal('FileDescriptorStoreMax=2 is too small', since=pool.cursor)
        since = crash(pool)
        assert f'{N_WORKERS} workers adopted, 0 gone meanwhile, 0 strangers' in adopted(pool, since)
        expect_whole(pool, workers, 2)
        pool.restart()
        pool.wait_workers(N_WORKERS, without=workers)
        expect_whole(pool, n_stored=2)


# --- a state that is missing, damaged or a lie ---

def damage_everything(path):
    with open(path, 'r+b', buffering=0) as f:
        f.write(os.urandom(1 << 16))
        f.seek(8 << 20)
        f.write(os.urandom(1 << 16))


def damage_truncate(path):
    os.truncate(path, 0)


def damage_lies(path):
    """Well-formed at first sight: zeros in place of the text."""
    for offset in (59, (8 << 20) + 59):
        with open(path, 'r+b', buffering=0) as f:
            f.seek(offset)
            f.write(bytes(200))


@pytest.mark.parametrize('damage', [damage_everything, damage_truncate, damage_lies])
@pytest.mark.parametrize('then', ['crash', 'reexec', 'restart'])
def test_damaged_state(damage, then):
    """A damaged state is reported, workers are known by what they were started with, and it is written anew."""
    with make_pool() as pool, load(pool):
        workers, slots = pool.workers(), pool.slots()
        path = state_path(pool)
        since = lib.journal_cursor()
        if then == 'restart':
            # It is written at the very end: only a helper that cannot write any more leaves a damaged one.
            os.kill(pool.main_pid, signal.SIGSTOP)
            damage(path)
            os.kill(pool.main_pid, signal.SIGKILL)
            pool.restart()
        else:
            damage(path)
            os.kill(pool.main_pid, signal.SIGKILL if then == 'crash' else signal.SIGUSR2)
        if then == 'reexec':
            # The helper knew better, and wrote it down.
            assert f'{N_WORKERS} workers adopted' in adopted(pool, since)
            expect_whole(pool, workers)
            return
        assert f'{N_WORKERS} workers adopted, 0 gone meanwhile, 0 strangers' in adopted(pool, since)
        assert pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['STATE_LOST'])
        pool.wait_show('ActiveState', 'active')
        if then == 'crash':
            expect_whole(pool, workers)
            assert pool.slots() == slots
        # The next helper reads what this one has written.
        since = crash(pool)
        expect_whole(pool)
        assert not pool.journal(since, MESSAGE_ID=MESSAGE['STATE_LOST'])


def test_ready_was_heard_before():
    """With --ready=notify nobody says READY=1 twice: workers without a record are looked at instead."""
    shutil.copy(lib.tool('misbehave'), PROGRAMS / 'misbehave')
    with lib.TemplatePool('degraded', [PROGRAMS / 'misbehave', 'notify', '0'],
                          [f'--workers={N_WORKERS}', '--ready=notify', '--start-timeout=5s'],
                          service=['RestartSec=100ms']) as pool:
        workers = pool.wait_workers(N_WORKERS)
        damage_everything(state_path(pool))
        since = crash(pool)
        assert pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['STATE_LOST'])
        expect_whole(pool, workers)


def test_torn_state():
    """A write that was cut short costs one state, not the record: the one before it is read, and nothing is said."""
    with make_pool() as pool:
        workers = pool.workers()
        path = state_path(pool)
        with open(path, 'rb') as f:
            areas = [f.read(200), (f.seek(8 << 20), f.read(200))[1]]
        # The header says the sequence number in hexadecimal; the newer area gets a wrong byte in its text.
        newer = max(range(2), key=lambda n: areas[n][16:32] if areas[n].startswith(b'fcgi-pool-state') else b'')
        with open(path, 'r+b', buffering=0) as f:
            f.seek(newer * (8 << 20) + 80)
            f.write(b'#')
        since = crash(pool)
        assert f'{N_WORKERS} workers adopted' in adopted(pool, since)
        assert not pool.journal(since, MESSAGE_ID=MESSAGE['STATE_LOST'])
        pool.wait_workers(N_WORKERS)
        expect_whole(pool, workers)


# --- strangers ---

@pytest.mark.parametrize('then', ['crash', 'restart'])
def test_stranger_process(then):
    """A process in the workers' cgroup that no record explains is retired, but not before the pool is complete."""
    with make_pool() as pool:
        stranger = subprocess.Popen(['setpriv', '--reuid=fcgi-pool', '--regid=fcgi-pool', '--clear-groups',
                                     'sleep', '1000'])
        try:
            lib.wait_until(lambda: lib.command_line(stranger.pid) == 'sleep 1000', what='the stranger')
            workers = pool.workers()
            (pool.cgroup / 'workers/cgroup.procs').write_text(str(stranger.pid))
            since = lib.journal_cursor()
            if then == 'crash':
                crash(pool)
            else:
                pool.restart()
            assert '1 strangers' in adopted(pool, since)
            assert stranger.wait(10) == -signal.SIGTERM
            ids = [(entry.get('MESSAGE_ID'), entry['MESSAGE']) for entry in pool.journal(since)]
            ready = next(n for n, (message_id, _) in enumerate(ids) if message_id == MESSAGE['POOL_STARTED'])
            told = next(n for n, (_, text) in enumerate(ids) if text.startswith('stranger: ready -> retiring'))
            assert ready < told
            expect_whole(pool, workers if then == 'crash' else None)
        finally:
            stranger.kill()
            stranger.wait()


def push(pool, name, kind):
    """Stores a descriptor in the name of the unit, from a process in its cgroup."""
    notify = lib.environment(pool.main_pid)['NOTIFY_SOCKET']
    wait = 'import os, sys; sys.stdin.read(1); os.execv(sys.argv[1], sys.argv[1:])'
    process = subprocess.Popen(['python3', '-c', wait, '/usr/bin/python3', PROGRAMS / 'push.py', name, kind],
                               stdin=subprocess.PIPE, env={'NOTIFY_SOCKET': notify})
    (pool.cgroup / 'cgroup.procs').write_text(str(process.pid))
    process.communicate(b'x', timeout=10)
    assert process.returncode == 0


STRANGE = [('something', 'memfd'), ('something', 'pipe'), ('leash', 'memfd'), ('worker-x-y', 'memfd'),
           ('worker-77-1', 'memfd'), ('worker-1-99', 'pidfd'), ('control', 'pipe')]


@pytest.mark.parametrize(('name', 'kind'), STRANGE, ids=[' '.join(item) for item in STRANGE])
def test_stranger_in_store(name, kind):
    """A descriptor in the store that nobody has asked for is closed and removed; the workers do not notice."""
    with make_pool(['NotifyAccess=all']) as pool, load(pool):
        workers = pool.workers()
        push(pool, name, kind)
        pool.wait_show('NFileDescriptorStore', str(N_WORKERS + 4))
        since = crash(pool)
        assert f'{N_WORKERS} workers adopted, 0 gone meanwhile, 0 strangers' in adopted(pool, since)
        expect_whole(pool, workers)
        if not name.startswith('worker-'):
            assert name in pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['STRANGER_CLOSED'])['MESSAGE']
        # Also once more: what was removed and stored anew under the same name is still right.
        crash(pool)
        expect_whole(pool, workers)
        assert len(lib.cgroup_pids(pool.cgroup / 'guardian')) == 1


def test_stranger_named_like_the_state():
    """A second "state" is not taken for the first without a look, whichever comes first."""
    with make_pool(['NotifyAccess=all']) as pool, load(pool):
        workers = pool.workers()
        push(pool, 'state', 'memfd')
        since = crash(pool)
        assert f'{N_WORKERS} workers adopted, 0 gone meanwhile, 0 strangers' in adopted(pool, since)
        expect_whole(pool, workers)
        since = crash(pool)
        expect_whole(pool, workers)
        assert not pool.journal(since, MESSAGE_ID=MESSAGE['STATE_LOST'])


def test_wrong_pidfd():
    """A stored pidfd of another process under a worker's name does not make that process a worker."""
    with make_pool(['NotifyAccess=all']) as pool, load(pool):
        workers = pool.workers()
        push(pool, 'worker-0-1', 'pidfd')  # of this test
        crash(pool)
        expect_whole(pool, workers)
        pool.restart()
        pool.wait_workers(N_WORKERS, without=workers)
        expect_whole(pool)


def test_death_that_nobody_was_told_of():
    """A helper killed between a worker's death and the time to tell PID 1 of it leaves the dead one's pidfd under the
    name of the successor. The next helper buries the one and knows the other."""
    told_late = 0
    with make_pool() as pool:
        workers_path = pool.cgroup / 'workers'
        for _ in range(5):
            victim = pool.slots()[1]
            wait_grown_up([victim])
            others, helper, since = set(pool.workers()) - {victim}, pool.main_pid, lib.journal_cursor()
            os.kill(victim, signal.SIGKILL)
            lib.wait_until(lambda: set(lib.cgroup_pids(workers_path)) - others - {victim}, interval=0)
            os.kill(helper, signal.SIGKILL)
            died = pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['WORKER_DIED'])
            assert died['WORKER_PID'] == str(victim)
            told_late += died['_PID'] != str(helper)
            pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['POOL_STARTED'])
            expect_whole(pool)
            assert others < set(pool.workers())
            # Twice, if the helper was killed between the line and the end of its pass.
            assert {line['WORKER_PID'] for line in pool.journal(since, MESSAGE_ID=MESSAGE['WORKER_DIED'])} == {str(victim)}
    assert told_late > 0


# --- listeners ---

def test_changed_listener():
    """Workers on a listener that is not the pool's any more are replaced after a crash, too."""
    with make_pool() as pool:
        workers = pool.workers()
        [old] = {lib.fds(pid)[0] for pid in workers}
        since = lib.journal_cursor()
        # The socket is bound anew while no helper is there to be asked.
        pool.drop_in(['[Service]', 'RestartSec=1h'])
        os.kill(pool.main_pid, signal.SIGKILL)
        pool.wait_show('SubState', 'auto-restart')
        lib.systemctl('restart', pool.socket)
        pool.start()
        pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['POOL_STARTED'])
        pool.wait_workers(N_WORKERS, without=workers)
        expect_whole(pool)
        assert old not in {lib.fds(pid)[0] for pid in pool.workers()}
        assert lib.load(pool, clients=3, requests=30, any_body=True)['failed'] == 0
