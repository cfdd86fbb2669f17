# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""A worker is retired when it is idle: it need not handle a signal, and no request is lost."""

import contextlib
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import struct

import pytest

import lib
import retirement
from survival import MESSAGE, PROGRAMS
from test_seed import unix_sockets
from test_supervision import echo, misbehave

PATH = '/run/retire.sock'
FOREVER = '--stop-timeout=100s'  # longer than any of these tests may take
TERM, KILL = str(int(signal.SIGTERM)), str(int(signal.SIGKILL))
NAIVE = {'C': (lambda: misbehave('serve'), 'NonBlocking=no'),
         'go': (lambda: [lib.tool('go-echo'), '-naive'], 'NonBlocking=yes')}
N_FAULTS = 20  # of each kind of worker


def make_pool(command, *options, n=1, retire='idle', **others):
    return lib.Pool('retire', command, [f'--workers={n}', f'--retire={retire}', *options], **others)


def begin_roll(pool):
    """Returns the cursor from before it."""
    since = lib.journal_cursor()
    os.kill(pool.main_pid, signal.SIGHUP)
    return since


def roll(pool):
    since = begin_roll(pool)
    pool.wait_journal(since=since, timeout=30, MESSAGE_ID=MESSAGE['ROLLED'])
    return since


def wait_end(pool, pid, since, timeout=lib.PATIENCE):
    """The obituary of a worker that was told to end."""
    return pool.wait_journal(since=since, timeout=timeout, MESSAGE_ID=MESSAGE['WORKER_EXITED'], WORKER_PID=pid)


def wait_retiring(pool, pid, since):
    return pool.wait_journal(since=since, WORKER_PID=pid, WORKER_STATE='retiring')


def found_idle(pool, since):
    return retirement.found_idle(pool.journal(since))


def n_accepted(pid):
    inodes = {f'socket:[{inode}]' for inode in unix_sockets(PATH)}
    with contextlib.suppress(FileNotFoundError):
        return len(inodes & set(lib.fds(pid).values()))
    return 0


def usec_between(first, second):
    return (lib.written(second) - lib.written(first)) * 1e6


class Client:
    """One connection of a web server that keeps it, byte by byte as a test wants it."""

    def __init__(self, path=PATH):
        unix = path.startswith('/')
        self.socket = socket.socket(socket.AF_UNIX if unix else socket.AF_INET, socket.SOCK_STREAM)
        self.socket.settimeout(30)
        host, _, port = path.rpartition(':')
        self.socket.connect(path if unix else (host, int(port)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, kind, content=b''):
        self.socket.sendall(struct.pack('>BBHHBB', 1, kind, 1, len(content), 0, 0) + content)

    def begin(self, query='', n_body=0):
        """A request but for its body."""
        self.send(1, struct.pack('>HB5x', 1, 1))  # responder, FCGI_KEEP_CONN
        pairs = {'REQUEST_METHOD': 'POST' if n_body else 'GET', 'CONTENT_LENGTH': str(n_body), 'QUERY_STRING': query,
                 'SERVER_PROTOCOL': 'HTTP/1.1'}
        self.send(4, b''.join(bytes([len(name), len(value)]) + name.encode() + value.encode()
                              for name, value in pairs.items()))
        self.send(4)

    def ask(self, query=''):
        """The pid that has answered."""
        self.begin(query)
        self.send(5)
        return self.answer()

    def answer(self, n_body=0):
        text = b''
        while True:
            kind, n, padding = struct.unpack('>xB2xHBx', self.read(8))
            content = self.read(n + padding)[:n]
            if kind == 3:
                break
            text += content if kind == 6 else b''
        match = re.search(rb'\npid=(\d+)\n.*\nbody-length=(\d+) ', text)
        assert match and int(match.group(2)) == n_body, text
        return int(match.group(1))

    def read(self, n):
        data = self.socket.recv(n, socket.MSG_WAITALL) if n else b''
        assert len(data) == n, f'the connection ends after {len(data)} bytes of {n}'
        return data

    def wait_closed(self):
        with contextlib.suppress(ConnectionResetError):
            assert self.socket.recv(1) == b''


# --- nothing is lost ---

@pytest.mark.parametrize('runtime, address', [('C', PATH), ('C', '127.0.0.1:9178'), ('go', PATH), ('go', '[::1]:9178')])
def test_roll(runtime, address):
    """Workers that die of any signal are replaced, all of them and more than once, and no request under load fails."""
    command, service = NAIVE[runtime]
    with make_pool(command(), FOREVER, n=4, service=service, listen=address) as pool, \
            lib.BackgroundLoad(pool, clients=3, duration=100, query='sleep=2') as load:
        for _ in range(3):
            before = pool.wait_workers(4)
            since = roll(pool)
            pool.wait_workers(4, without=before)
            for pid in before:
                assert wait_end(pool, pid, since)['EXIT_STATUS'] == KILL
            assert set(found_idle(pool, since)) == set(before)
        result = load.stop()
    assert result['ok'] > 0 and result['failed'] == 0, result


def test_scale():
    """A restart with fewer workers, and one with more, lose nothing of naive workers."""
    with make_pool(misbehave('serve'), FOREVER, n=5) as pool, \
            lib.BackgroundLoad(pool, clients=3, duration=100, query='sleep=2') as load:
        for n in (2, 6):
            before = pool.workers()
            pool.options[0] = f'--workers={n}'
            pool.write_units()
            pool.restart()
            pool.wait_workers(n, without=before)
        result = load.stop()
    assert result['ok'] > 0 and result['failed'] == 0, result


@pytest.mark.parametrize('runtime', NAIVE)
def test_request_in_progress(runtime):
    """A request that takes four seconds delays the retirement of its worker for so long, and is answered."""
    command, service = NAIVE[runtime]
    with make_pool(command(), FOREVER, service=service) as pool:
        worker, = pool.workers()
        with lib.BackgroundLoad(pool, clients=1, requests=1, query='sleep=4000') as load:
            lib.wait_until(lambda: n_accepted(worker) == 1, what='a request that runs')
            since = begin_roll(pool)
            wait_retiring(pool, worker, since)
            assert n_accepted(worker) == 1
            result = load.finish()
        assert (result['ok'], list(result['pids'])) == (1, [str(worker)]), result
        assert wait_end(pool, worker, since)['EXIT_STATUS'] == KILL
        assert worker in found_idle(pool, since)


def test_body_that_takes_its_time():
    """A request whose body has come in part only, and goes on within --stop-timeout=/4, is no idle connection."""
    with make_pool(echo(), '--stop-timeout=20s') as pool, Client() as client:
        worker, = pool.workers()
        client.ask()
        client.begin(n_body=20)
        client.send(5, b'b' * 10)
        since = begin_roll(pool)
        entry = wait_retiring(pool, worker, since)
        # A second: long enough for many looks. The successor serves meanwhile.
        lib.load(pool, clients=1, requests=100, query='sleep=10')
        client.send(5, b'b' * 10)
        client.send(5)
        assert client.answer(20) == worker
        assert usec_between(entry, wait_end(pool, worker, since)) > 1_000_000


def test_max_lifetime():
    """Workers older than --max-lifetime= are replaced one after the other, each by one that is ready before."""
    with make_pool(misbehave('serve'), FOREVER, '--max-lifetime=1s', n=3) as pool, \
            lib.BackgroundLoad(pool, clients=2, duration=100, query='sleep=2') as load:
        pool.wait_journal(MESSAGE_ID=MESSAGE['WORKER_EXITED'], count=6)
        result = load.stop()
        ready, seen = set(), []
        for entry in pool.journal(MESSAGE_ID=MESSAGE['WORKER_STATE']):
            if entry['WORKER_STATE'] == 'ready':
                ready.add(entry['WORKER_PID'])
            elif entry['WORKER_STATE'] == 'retiring':
                ready.remove(entry['WORKER_PID'])
            seen.append(len(ready))
        assert set(seen[seen.index(3):]) <= {3, 4}
    assert result['ok'] > 0 and result['failed'] == 0, result


# --- trees ---

def tree(name):
    """(command, environment, options of the load) of workers that have children."""
    if name == 'wrapper':
        return ['/bin/sh', '-c', f'{lib.tool("fcgi-echo")}; true'], {}, {}
    if name == 'fork':
        return misbehave('fork', 2), {}, {}
    runtime = retirement.RUNTIMES[name]
    if not runtime.present:
        pytest.skip(f'no {runtime.program}')
    retirement.install_scripts()
    load = {'param': f'SCRIPT_FILENAME={PROGRAMS / runtime.script}'}
    if name == 'php-cgi':
        return [lib.tool('php-cgi')], {**runtime.env, 'PHP_FCGI_CHILDREN': '2'}, load
    return [lib.tool('fcgiwrap'), '-c', '2'], {}, load


@pytest.mark.parametrize('name', ['php-cgi', 'fcgiwrap', 'wrapper', 'fork'])
def test_tree(name):
    """A worker with children is retired with all of them: no orphan is left, and nothing is lost."""
    command, env, options = tree(name)
    with make_pool(command, FOREVER, n=2, env=env) as pool:
        lib.wait_until(lambda: len(pool.processes()) >= 6, what='the children of the workers')
        workers, processes = pool.workers(), set(lib.cgroup_pids(pool.cgroup / 'workers'))
        assert len(processes) > len(workers) == 2
        with lib.BackgroundLoad(pool, clients=2, duration=100, query='sleep=2', **options) as load:
            since = roll(pool)
            lib.wait_until(lambda: not processes & set(pool.processes()), what='the trees to be gone')
            result = load.stop()
        assert set(workers) == set(found_idle(pool, since))
    assert result['ok'] > 0 and result['failed'] == 0, result


# --- kept connections ---

def test_kept_connection():
    """A connection that is kept and idle does not hold a worker until the deadline, but for a quarter of the time."""
    with make_pool(echo(), '--stop-timeout=4s') as pool, Client() as client:
        worker, = pool.workers()
        assert client.ask() == client.ask() == worker
        since = begin_roll(pool)
        assert wait_end(pool, worker, since)['EXIT_STATUS'] == KILL
        assert worker in found_idle(pool, since)
        client.wait_closed()


def test_kept_connection_in_use():
    """A request on a kept connection holds its worker, whether it has been read or not, and is answered."""
    with make_pool(echo(), '--stop-timeout=12s') as pool, Client() as client:
        worker, = pool.workers()
        assert client.ask() == worker
        # Longer than an idle one would.
        client.begin('sleep=4000')
        client.send(5)
        since = begin_roll(pool)
        assert client.answer() == worker
        assert wait_end(pool, worker, since)['EXIT_STATUS'] == KILL
        assert worker in found_idle(pool, since)


# --- stop ---

def test_stop():
    """A pool that is idle stops within a moment; one that is not, when the last request is answered."""
    with make_pool(misbehave('serve'), FOREVER, n=3) as pool:
        workers = pool.workers()
        pool.systemctl('stop', timeout=30)
        assert set(workers) == set(found_idle(pool, pool.cursor))
        pool.start()
        workers = pool.wait_workers(3)
        with lib.BackgroundLoad(pool, clients=2, requests=2, query='sleep=1500') as load:
            lib.wait_until(lambda: sum(map(n_accepted, workers)) == 2, what='two requests that run')
            pool.systemctl('stop', timeout=30)
            result = load.finish()
        assert (result['ok'], result['failed']) == (2, 0), result
        assert pool.processes() == [] and pool.show('Result') == 'success'


# --- no idle moment ---

@pytest.mark.parametrize('mode, status, n_timeouts', [('serve', TERM, 1), ('ignore-term', KILL, 2)])
def test_deadline(mode, status, n_timeouts):
    """A worker that is not idle before --stop-timeout= gets the stop signal, and SIGKILL after as long again."""
    with make_pool(misbehave(mode), '--stop-timeout=1s') as pool:
        worker, = pool.workers()
        with lib.BackgroundLoad(pool, clients=1, requests=1, query='sleep=60000') as load:
            lib.wait_until(lambda: n_accepted(worker) == 1, what='a request that runs')
            since = begin_roll(pool)
            # What says so of the worker is written a little after the decision; this is some milliseconds before it.
            rolling = pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['ROLLING'])
            end = wait_end(pool, worker, since)
            assert load.finish()['failed'] == 1
        assert end['EXIT_STATUS'] == status
        assert usec_between(rolling, end) > n_timeouts * 1_000_000
        assert len(pool.journal(since, MESSAGE_ID=MESSAGE['WORKER_KILLED'])) == n_timeouts - 1
        assert found_idle(pool, since) == {}


def test_retire_by_signal():
    """With --retire=signal a worker gets the signal at once, idle or not."""
    with make_pool(misbehave('serve'), FOREVER, n=2, retire='signal') as pool:
        workers = pool.workers()
        with lib.BackgroundLoad(pool, clients=1, requests=1, query='sleep=60000') as load:
            lib.wait_until(lambda: sum(map(n_accepted, workers)) == 1, what='a request that runs')
            since = roll(pool)
            for pid in workers:
                assert wait_end(pool, pid, since)['EXIT_STATUS'] == TERM
            assert load.finish()['failed'] == 1
        assert found_idle(pool, since) == {}


def test_unobservable():
    """A worker that nobody may look into is retired by signal, at once."""
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    program = pathlib.Path(shutil.copy(lib.tool('misbehave'), PROGRAMS / 'unreadable'))
    program.chmod(0o711)
    with make_pool([program, 'serve'], FOREVER) as pool:
        worker, = pool.workers()
        since = roll(pool)
        assert wait_end(pool, worker, since)['EXIT_STATUS'] == TERM
        assert found_idle(pool, since) == {}


# --- what an operator sees ---

def test_journal():
    """One line says when a worker was found idle, how long that took, and how often it was stopped in vain."""
    with make_pool(misbehave('serve'), FOREVER) as pool:
        worker, = pool.workers()
        since = roll(pool)
        end = wait_end(pool, worker, since)
        entry = found_idle(pool, since)[worker]
        expected = {'MESSAGE_ID': MESSAGE['WORKER_STATE'], 'WORKER_SLOT': '0', 'WORKER_STATE_OLD': 'retiring',
                    'WORKER_STATE': 'killing', 'PRIORITY': '6', 'N_PAUSES': '0', 'PAUSE_MAX_USEC': '0'}
        assert {name: entry.get(name) for name in expected} == expected
        assert re.match(r'worker 0: retiring -> killing after .*\bidle\b', entry['MESSAGE'])
        retiring = wait_retiring(pool, worker, since)
        assert 0 < int(entry['RETIRE_USEC']) <= usec_between(retiring, end) + 10_000
        # It was asked for: no warning.
        assert [line['MESSAGE'] for line in pool.journal(since) if int(line['PRIORITY']) <= 4] == []


# --- the helper dies ---

@pytest.fixture
def strace():
    if not shutil.which('strace'):
        pytest.skip('no strace')


@pytest.mark.parametrize('runtime', [retirement.RUNTIMES['libfcgi'], retirement.TREE], ids=lambda runtime: runtime.program)
def test_helper_dies(runtime, strace):
    """Wherever in a retirement the helper is killed: nobody stays stopped, all are there, nothing is lost."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f'seed {seed}')
    faults = retirement.Faults(seed=seed).run(runtime, N_FAULTS)
    print(f'{faults.n_killed} killed, {faults.n_missed} missed, {faults.n_stopped} with a stopped worker, {faults.calls}')
    assert faults.problems == []
    assert faults.n_killed > N_FAULTS // 2
    assert faults.n_stopped > 0


@pytest.mark.parametrize('command', [['serve'], ['fork', '1']], ids=' '.join)
def test_helper_dies_for_good(command, strace):
    """If the helper dies while a worker is stopped, and no other one comes, the guardian lets it go on, to its end."""
    with make_pool(misbehave(*command), FOREVER) as pool:
        guardian, = lib.cgroup_pids(pool.cgroup / 'guardian')
        name, number = retirement.AFTER_SIGSTOP
        with retirement.Strace(pool.main_pid, f'--inject={name}:signal=KILL:when={number}') as strace:
            begin_roll(pool)
            lib.wait_exit(strace.pid)
        assert retirement.leaves_stopped(strace.calls())
        lib.wait_exit(guardian)
        assert pool.processes() == []
