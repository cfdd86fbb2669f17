# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""A thousand workers, ten thousand deaths, and nothing left over."""

import collections
import os
import pathlib
import resource
import signal

import pytest

import lib
from test_supervision import IDS, misbehave, wait_grown_up

N_WORKERS, N_RESPAWNS = 1000, 10_000


@pytest.fixture(autouse=True)
def room():
    """Limits of the machine that no unit can raise."""
    needed = N_WORKERS + 200
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    processes = int(pathlib.Path('/proc/sys/kernel/pid_max').read_text())
    memory = int(pathlib.Path('/proc/meminfo').read_text().split('MemAvailable:')[1].split()[0])
    if files < needed:
        pytest.skip(f'the limit on files is {files}, {needed} are needed')
    if processes < 3 * N_WORKERS:
        pytest.skip(f'pid_max is {processes}, {3 * N_WORKERS} are needed')
    if memory < 600 * 1024:
        pytest.skip(f'{memory} kB of memory are available, 600 MB are needed')


def children(pid):
    """{pid: state} of the children of a helper, zombies included, the guardian not."""
    result = {}
    for task in os.listdir(f'/proc/{pid}/task'):
        for child in pathlib.Path(f'/proc/{pid}/task/{task}/children').read_text().split():
            result[int(child)] = lib.stat(child) or lib.Stat('', 'gone', 0, 0)
    return {child: process.state for child, process in result.items() if process.name != lib.GUARDIAN}


def shape_of_fds(pid):
    """How many descriptors of each kind a process has."""
    return collections.Counter(target.split(':')[0] for target in lib.fds(pid).values())


def pool(n, **options):
    return lib.Pool('scale', misbehave('serve'), [f'--workers={n}', '--start-timeout=100s', '--stop-timeout=100s'],
                    service=['LogRateLimitIntervalSec=0', 'LimitNOFILE=10000'], **options)


def all_ready(p, n, timeout=60):
    p.wait_show('StatusText', f'{n}/{n} workers ready', timeout)


@pytest.mark.limit(200)
def test_a_thousand_workers():
    """A thousand workers start, serve, and stop in order; nothing of them is left."""
    with pool(N_WORKERS) as p:
        assert p.status_text == f'{N_WORKERS}/{N_WORKERS} workers ready'
        workers = p.workers()
        assert len(workers) == N_WORKERS
        assert sorted(p.slots()) == list(range(N_WORKERS))
        assert set(children(p.main_pid)) == set(workers)
        result = lib.load(p, clients=100, requests=5000)
        assert (result['ok'], result['failed']) == (5000, 0), result
        assert {int(pid) for pid in result['pids']} <= set(workers)
        assert p.journal(MESSAGE_ID=IDS['MESSAGE_WORKER_DIED']) == []

        p.stop()
        assert lib.show_all(p.service, 'Result', 'ExecMainStatus') == {'Result': 'success', 'ExecMainStatus': '0'}
        assert p.processes() == []
        assert not any(os.path.exists(f'/proc/{pid}') for pid in workers)
        assert 'Pool scale has stopped, 0 workers had to be killed' in p.messages()


@pytest.mark.limit(400)
def test_ten_thousand_respawns():
    """After ten thousand deaths there is no zombie, no lost descriptor, no worker too many and none too few."""
    with pool(N_WORKERS) as p:
        main_pid = p.main_pid
        before = shape_of_fds(main_pid)
        for _ in range(N_RESPAWNS // N_WORKERS):
            workers = p.workers()
            assert len(workers) == N_WORKERS
            # None of them so young that its slot would pause.
            wait_grown_up(workers)
            since = lib.journal_cursor()
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
            p.wait_journal('starting -> ready', since=since, count=N_WORKERS, timeout=100)
            all_ready(p, N_WORKERS)
            assert not set(workers) & set(p.workers())

        assert p.main_pid == main_pid and p.active_state == 'active'
        workers = p.workers()
        assert len(workers) == N_WORKERS and sorted(p.slots()) == list(range(N_WORKERS))
        # The only children are the workers, and each is alive.
        states = children(main_pid)
        assert set(states) == set(workers)
        assert not set(states.values()) & set('ZX')
        assert shape_of_fds(main_pid) == before
        assert [sorted(lib.fds(pid)) for pid in (workers[0], workers[-1])] == [[0, 1, 2]] * 2

        obituaries = p.journal(MESSAGE_ID=IDS['MESSAGE_WORKER_DIED'])
        assert len(obituaries) == len({entry['WORKER_PID'] for entry in obituaries}) == N_RESPAWNS
        assert p.journal(MESSAGE_ID=IDS['MESSAGE_WORKER_BACKOFF']) == []
        assert lib.load(p, clients=100, requests=2000)['failed'] == 0

        everything = p.processes()
        p.stop()
        assert p.processes() == []
        assert not any(os.path.exists(f'/proc/{pid}') for pid in everything)
        assert p.show('Result') == 'success'
