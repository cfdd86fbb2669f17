# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""Everything at once: events of all kinds overlap on two pools under load, and workers are killed as well.

$FCGI_POOL_CHAOS_SECONDS is how long, by default 30; $FCGI_POOL_CHAOS_SEED repeats the choice of events, though not what
they meet.
"""

import collections
import contextlib
import os
import pathlib
import random
import re
import signal
import time

import pytest

import lib
import survival
from survival import MESSAGE

SECONDS = int(os.environ.get('FCGI_POOL_CHAOS_SECONDS', 30))
RETIRED, KILLED = ('killed', 'idle'), ('killed', '9')
OBITUARIES = [MESSAGE[name] for name in ('WORKER_DIED', 'WORKER_EXITED', 'WORKER_NOT_EXECUTED')]
SETTLED = 60  # seconds until everything that was begun must have come to its end
N_REEXECS = 10


class Load:
    """A load that can be paused, with the sum of its results.

    Half of the clients make as many requests as they can, the other half keep the workers busy for so long that one
    that is killed is most likely killed in a request.
    """

    def __init__(self, pool):
        self.pool, self.running = pool, None
        self.n_requests, self.failures, self.first_failures, self.pids = 0, collections.Counter(), [], set()

    def resume(self):
        self.running = contextlib.ExitStack()
        n, seconds = survival.N_CLIENTS // 2, SECONDS + 600
        self.parts = [self.running.enter_context(lib.BackgroundLoad(self.pool, clients=n, duration=seconds, **options))
                      for options in ({}, {'query': 'sleep=10'})]

    def pause(self):
        if not self.running:
            return
        running, self.running = self.running, None
        with running:
            for part in self.parts:
                self.add(part.stop())

    def add(self, result):
        self.n_requests += result['started']
        self.failures.update({kind: n for kind, n in result['failures'].items() if n})
        if result['first_failure']:
            self.first_failures.append(result['first_failure'])
        self.pids |= {int(pid) for pid in result['pids']}


class Chaos:
    def __init__(self, pools, loads, seed):
        self.pools, self.loads, self.random = pools, loads, random.Random(seed)
        self.counts = collections.Counter()
        self.killed = {pool: set() for pool in pools}
        self.events = {
            'restart': (3, lambda pool: lib.systemctl('restart', '--no-block', pool.service)),
            'try-restart': (1, lambda pool: lib.systemctl('try-restart', '--no-block', pool.service)),
            'SIGKILL': (3, lambda pool: self.signal_helper(pool, signal.SIGKILL)),
            'SIGSEGV': (1, lambda pool: self.signal_helper(pool, signal.SIGSEGV)),
            'SIGABRT': (1, lambda pool: self.signal_helper(pool, signal.SIGABRT)),
            'watchdog': (1, lambda pool: self.signal_helper(pool, signal.SIGSTOP)),
            're-exec': (3, lambda pool: self.signal_helper(pool, signal.SIGUSR2)),
            'roll': (3, lambda pool: self.signal_helper(pool, signal.SIGHUP)),
            'daemon-reload': (1, lambda pool: lib.daemon_reload()),
            'daemon-reexec': (1, lambda pool: survival.daemon_reexec(self.pools)),
            'reinstall': (1, self.reinstall),
            'socket restart': (0.5, self.socket_restart),
            'guardian killed': (1, self.kill_guardian),
            'worker killed': (8, self.kill_worker),
        }

    def signal_helper(self, pool, signo):
        pid = pool.find_main_pid()
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signo)

    def reinstall(self, _pool):
        survival.reinstall_files()
        lib.daemon_reload()
        lib.systemctl('restart', '--no-block', *(pool.service for pool in self.pools))

    def socket_restart(self, pool):
        """The one event that may refuse connections, so nobody makes any; and it needs a helper that clears the way."""
        self.loads[pool].pause()
        wait_settled(pool)
        lib.systemctl('restart', pool.socket)
        self.loads[pool].resume()

    def kill_guardian(self, pool):
        for pid in pool.guardians():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_worker(self, pool):
        pids = pool.workers()
        if not pids:
            return
        pid = self.random.choice(pids)
        # One that was born right before the death of its helper is known to nobody until the next helper comes.
        if not lib.journal(since_cursor=pool.cursor, WORKER_PID=pid, WORKER_STATE='ready'):
            return
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            try:
                # Not a process that has got the number meanwhile.
                if pid in pool.workers():
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                    self.killed[pool].add(pid)
            finally:
                os.close(fd)

    def run(self, seconds):
        end = time.monotonic() + seconds
        names = list(self.events)
        weights = [self.events[name][0] for name in names]
        while time.monotonic() < end:
            name, pool = self.random.choices(names, weights)[0], self.random.choice(self.pools)
            self.counts[name] += 1
            print(f'{end - time.monotonic():7.2f} s left: {name}, {pool.name}')
            self.events[name][1](pool)
            # Often into the middle of what the last one has begun, sometimes long after it.
            time.sleep(self.random.choice([0, 0.02, 0.1, 0.3, 1.5]))


def wait_settled(pool):
    """Until PID 1 and the helper have nothing more to do."""
    lib.wait_until(lambda: pool.show('Job') in ('', '0') and pool.show('SubState') == 'running' and
                   lib.is_complete(pool.status_text.partition(';')[0], pool.n_workers), SETTLED, f'{pool.name} to be at rest')


def descriptors(pid):
    """How many of each kind a helper has; what is only for the moment has gone when two counts in a row agree."""
    def look():
        return collections.Counter(re.sub(r'\d+', 'N', target) for target in lib.fds(pid).values())

    last = look()

    def steady():
        nonlocal last
        before, last = last, look()
        return last if last == before else None
    return lib.wait_until(steady, what='the descriptors of the helper to be steady', interval=0.3)


def zombies():
    found = []
    for path in pathlib.Path('/proc').glob('[0-9]*'):
        name, state = lib.proc_status(path.name, 'Name'), lib.proc_status(path.name, 'State')
        if state and state.startswith('Z') and re.match('survival-echo|fcgi-pool', name or ''):
            found.append((int(path.name), name, lib.proc_status(path.name, 'PPid')))
    return found


def obituaries(pool, cursor):
    """{pid: [EXIT_CODE and EXIT_STATUS of each obituary]}; RETIRED for those that were killed because they were idle."""
    found = collections.defaultdict(list)
    # Not by unit: journald may find none for what a helper says right before its death.
    for entry in lib.journal(since_cursor=cursor, FCGI_POOL=pool.service.removesuffix('.service')):
        # One whose helper has died right behind the signal is buried by the next one as retiring.
        if entry.get('MESSAGE_ID') in OBITUARIES:
            end = entry.get('EXIT_CODE'), entry.get('EXIT_STATUS')
            retired = end == KILLED and entry['WORKER_STATE_OLD'] in ('retiring', 'killing')
            found[int(entry['WORKER_PID'])].append(RETIRED if retired else end)
        assert entry.get('MESSAGE_ID') != MESSAGE['WORKER_KILLED'], 'it should have been idle before'
    return found


@pytest.fixture
def chaos():
    echo = survival.install_echo()
    # The patience of the template is 30 s; in half a minute of chaos it would hardly ever end.
    service = ['WatchdogSec=4s']
    seed = int(os.environ.get('FCGI_POOL_CHAOS_SEED', random.SystemRandom().randrange(1 << 32)))
    print(f'seed {seed}, {SECONDS} s')
    with survival.Survivor('chaos-unix', echo, service=service) as unix, \
            survival.Survivor('chaos-tcp', echo, tcp='127.0.0.1:9302', service=service) as tcp:
        loads = {pool: Load(pool) for pool in (unix, tcp)}
        for load in loads.values():
            load.resume()
        try:
            yield Chaos([unix, tcp], loads, seed)
        finally:
            for load in loads.values():
                load.pause()


@pytest.mark.limit(SECONDS + 240)
def test_chaos(chaos, cursor):
    """Only requests inside killed workers are lost, each with an obituary, and nothing is left over."""
    at_start = {pool: descriptors(pool.main_pid) for pool in chaos.pools}
    chaos.run(SECONDS)
    for pool in chaos.pools:
        wait_settled(pool)
    for load in chaos.loads.values():
        load.pause()
    print(dict(chaos.counts))

    for pool in chaos.pools:
        load, found = chaos.loads[pool], obituaries(pool, cursor)
        # Before Linux 6.15 nobody knows how a worker has ended that died while there was no helper.
        accounted = {pid for pid in chaos.killed[pool] if any(code in (None, 'killed') for code, _ in found[pid])}
        print(f'{pool.name}: {load.n_requests} requests, failed: {dict(load.failures)}, '
              f'{len(chaos.killed[pool])} workers killed, {len(accounted)} with an obituary that says so')
        assert {pid for pid in chaos.killed[pool] if not found[pid]} == set(), 'killed, and nobody has said so'
        assert set(load.failures) <= {'eof', 'reset'}, load.first_failures
        assert sum(load.failures.values()) <= len(accounted), load.first_failures
        # All who ever answered are either there or have been buried.
        assert not [pid for pid in load.pids - set(pool.workers()) if not found[pid]]
        # Nobody else than those we have killed has come to a bad end.
        bad = {pid: ends for pid, ends in found.items() if pid not in chaos.killed[pool] and
               any(end not in [RETIRED, ('exited', '0'), ('killed', str(int(signal.SIGTERM))), (None, None)] for end in ends)}
        assert not bad

    # What a helper leaks at each of its deaths would have died with it; not so when it executes itself anew.
    for pool in chaos.pools:
        for _ in range(N_REEXECS):
            survival.EVENTS['re-exec'].strike([pool])
        survival.roll([pool])
    for pool in chaos.pools:
        wait_settled(pool)
        assert pool.problems() == []
        assert descriptors(pool.main_pid) == at_start[pool]
    lib.wait_until(lambda: not zombies(), what='no zombies')
