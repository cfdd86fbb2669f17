# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""The number of workers follows the number of requests, between its bounds, and no client notices."""

import contextlib
import os
import re
import signal
import threading
import time

import lib
from retirement import Strace
from survival import MESSAGE, install_echo
from test_retirement import Client
from test_supervision import Switch, echo, misbehave, wait_rest

UNIX, TCP4, TCP6 = '/run/size.sock', '127.0.0.1:9161', '[::1]:9161'
SHRINK_TIMEOUT = 25  # three spans of 5 s, and some
REST_SECONDS = 5.5  # longer than one of these spans


def make_pool(command, bounds, *options, name='size', **others):
    return lib.Pool(name, command, [f'--workers={bounds}', *options], **others)


def sizes(pool, since=None):
    return [int(entry['N_WORKERS']) for entry in pool.journal(since, MESSAGE_ID=MESSAGE['POOL_RESIZED'])]


def wait_size(pool, n, since=None, timeout=SHRINK_TIMEOUT):
    """Waits until the pool wants n workers, and has them."""
    entry = pool.wait_journal(since=since, timeout=timeout, MESSAGE_ID=MESSAGE['POOL_RESIZED'], N_WORKERS=n)
    pool.wait_workers(n)
    return entry


def wait_complete(pool, n, timeout=lib.PATIENCE):
    pool.wait_show('StatusText', lambda text: lib.is_complete(text, n), timeout)


def grow(pool, n, **options):
    """Keeps n clients busy until there are n workers; returns what the load has counted."""
    with lib.BackgroundLoad(pool, clients=n, duration=100, query='sleep=50', **options) as load:
        pool.wait_workers(n)
        return load.stop()


class Census:
    """Counts the processes of the workers again and again, for the length of a with block."""

    def __init__(self, pool):
        self.path, self.most, self.over = pool.cgroup / 'workers', 0, threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.over.wait(0.01):
            self.most = max(self.most, len(lib.cgroup_pids(self.path)))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


# --- the first ---

def test_starts_with_none():
    """A pool of 0:MAX is ready without a worker, and the first connection is answered by the first one."""
    with make_pool(echo(), '0:4') as pool:
        assert pool.active_state == 'active' and pool.workers() == []
        assert pool.status_text == '0/0 workers ready'
        pool.wait_journal(MESSAGE_ID=MESSAGE['POOL_STARTED'])
        assert pool.messages(MESSAGE_ID=MESSAGE['POOL_STARTED']) == [f'Pool size is ready: 0 to 4 workers on {UNIX}']
        result = lib.load(pool, clients=1, requests=1)
        assert (result['ok'], [int(pid) for pid in result['pids']]) == (1, pool.workers()), result
        entry, = pool.journal(MESSAGE_ID=MESSAGE['POOL_RESIZED'])
        expected = {'FCGI_POOL': 'size', 'N_WORKERS': '1', 'N_BUSY': '0', 'N_QUEUED': '1', 'REQUEST_USEC': '0',
                    'MESSAGE': 'Pool size: 0 -> 1 workers, 0 busy, 1 clients wait', 'PRIORITY': '6'}
        assert {name: entry.get(name) for name in expected} == expected


def test_starts_with_the_minimum():
    """A pool of MIN:MAX is ready with MIN workers; with fewer than listeners, each of those gets one."""
    with make_pool(echo(), '2:5') as pool:
        assert pool.status_text == '2/2 workers ready' and len(pool.workers()) == 2
    with make_pool(echo(), '1:5', listen=[UNIX, TCP4, TCP6]) as pool:
        assert pool.status_text == '3/3 workers ready' and len(pool.workers()) == 3


# --- up and down ---

def test_up_and_down():
    """A pool grows to as many as are needed, never above MAX, shrinks to MIN or none when it is quiet, and then rests.

    Nothing is lost meanwhile: neither of more clients than workers, nor of those that come while it shrinks.
    """
    listeners = [TCP4, TCP6]
    with make_pool(misbehave('serve'), '2:6') as bounded, make_pool(misbehave('serve'), '0:6', name='size-0') as empty, \
            make_pool(misbehave('serve'), '0:5', name='size-tcp', listen=listeners) as tcp, contextlib.ExitStack() as stack:
        pools = bounded, empty, tcp
        censuses = [stack.enter_context(Census(pool)) for pool in pools]
        loads = [stack.enter_context(lib.BackgroundLoad(pool, clients=12, duration=100, query='sleep=50')) for pool in pools]
        for pool, load, n in zip(pools, loads, (6, 6, 5)):
            pool.wait_workers(n)
            result = load.stop()
            assert result['ok'] > 0 and result['failed'] == 0, result
        # By twos, for two listeners, up to MAX.
        assert [size % 2 for size in sizes(tcp) if size < 5] == [0] * (len(sizes(tcp)) - 1)

        since = lib.journal_cursor()
        load = stack.enter_context(lib.BackgroundLoad(bounded, clients=1, rate=20, duration=100, query='sleep=5'))
        for pool, n in (bounded, 2), (empty, 0), (tcp, 0):
            wait_size(pool, n, since)
        result = load.stop()
        assert result['ok'] > 0 and result['failed'] == 0, result
        assert [census.most for census in censuses] == [6, 6, 5]
        # The journal says of each why it went, and all of them were found idle.
        for pool, n in (bounded, 4), (empty, 6), (tcp, 5):
            assert len([text for text in pool.messages(since, WORKER_STATE='retiring') if 'not needed' in text]) == n
            assert pool.journal(since, MESSAGE_ID=MESSAGE['WORKER_NOT_IDLE']) == []

        for pool, n in (bounded, 2), (empty, 0), (tcp, 0):
            wait_complete(pool, n)
        # What is left to say of the load is said a second late.
        wait_rest([pool.main_pid for pool in pools], REST_SECONDS)
        # Whoever comes next is answered, on each listener.
        for address in (bounded, empty, *listeners):
            assert lib.load(address, requests=1)['ok'] == 1


def test_as_many_as_needed():
    """A few clients more than workers bring a few workers more, and a queue is emptied by those."""
    with make_pool(misbehave('serve'), '1:50') as pool, \
            lib.BackgroundLoad(pool, clients=5, duration=100, query='sleep=200') as load:
        # A client between the queue and a worker may look like one more for a moment.
        pool.wait_show('StatusText', lambda text: re.fullmatch(r'([5-7])/\1 workers ready, 5 busy, queue 0', text))
        result = load.stop()
    assert result['failed'] == 0 and 5 <= len(result['pids']) <= 7, result


def test_one_of_several_listeners():
    """Clients of one listener bring workers for it, however idle those of the others are."""
    with make_pool(misbehave('serve'), '0:9', listen=[UNIX, TCP4, TCP6]) as pool:
        with lib.BackgroundLoad(TCP4, clients=6, duration=100, query='sleep=50') as load:
            wait_complete(pool, 9)
            result = load.stop()
        assert result['failed'] == 0, result
        assert len(lib.load(TCP4, clients=6, requests=60, query='sleep=50')['pids']) == 3


def test_kept_connections():
    """Workers that wait for the next request of a kept connection are no free ones: the next client gets one more."""
    with make_pool(echo(), '1:3') as pool, contextlib.ExitStack() as stack:
        clients, workers = [], []
        for _ in range(3):
            clients.append(stack.enter_context(Client(UNIX)))
            workers.append(clients[-1].ask())
        assert len(set(workers)) == 3 and sizes(pool) == [2, 3]
        # There are no more than MAX: who comes now waits until one of them is free.
        with lib.BackgroundLoad(pool, requests=1) as load:
            pool.wait_show('StatusText', lambda text: 'queue 1' in text)
            clients[2].socket.close()
            assert load.finish()['pids'] == {str(workers[2]): 1}


# --- what it costs ---

def test_wakeups_under_load():
    """While there are clients, one after the other, now and then, or many, the helper wakes up ten times a second at most."""
    kinds = {'size-dense': {'clients': 1}, 'size-sparse': {'clients': 8, 'rate': 50, 'query': 'sleep=1'},
             'size-busy': {'clients': 4, 'query': 'sleep=20'}}
    with contextlib.ExitStack() as stack:
        pools = [stack.enter_context(make_pool(echo(), '2:8', name=name)) for name in kinds]
        loads = [stack.enter_context(lib.BackgroundLoad(pool, duration=100, **options)) for pool, options in zip(pools, kinds.values())]
        time.sleep(1)  # the first clients after a rest are looked at closely
        since, begin = lib.journal_cursor(), time.monotonic()
        with contextlib.ExitStack() as tracers:
            # A look at a worker that runs waits for it in the kernel, so context switches say nothing.
            straces = [tracers.enter_context(Strace(pool.main_pid, '--trace=epoll_wait,epoll_pwait2')) for pool in pools]
            time.sleep(6)
        wakeups = [sum(re.search(r', (-1|NULL, NULL, 8)\) += ', call) is not None for call in strace.calls())
                   for strace in straces]
        seconds = time.monotonic() - begin
        for pool, load, n in zip(pools, loads, wakeups):
            # A worker that starts or ends is looked at by itself.
            n_steps = len(pool.journal(since, MESSAGE_ID=MESSAGE['WORKER_STATE']))
            assert 0 < n <= 10 * seconds + 20 * n_steps, (pool.name, wakeups, seconds, n_steps)
            result = load.stop()
            assert result['ok'] > 100 and result['failed'] == 0, result


# --- events ---

def test_crash_of_the_helper():
    """After a crash of the helper a grown pool is as large as before, and shrinks when it is quiet."""
    with make_pool(misbehave('serve'), '1:5', restart='always', service='RestartSec=100ms') as pool:
        grow(pool, 5)
        workers, since = pool.wait_workers(5), lib.journal_cursor()
        wait_complete(pool, 5)
        os.kill(pool.main_pid, signal.SIGKILL)
        pool.wait_journal('5 workers adopted', since)
        assert pool.workers() == workers
        wait_size(pool, 1, since)
        assert set(pool.workers()) < set(workers)


def test_crash_of_the_helper_with_none():
    """After a crash of the helper an empty pool is empty, and serves the next client."""
    with make_pool(echo(), '0:2', restart='always', service='RestartSec=100ms') as pool:
        since = lib.journal_cursor()
        os.kill(pool.main_pid, signal.SIGKILL)
        pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['POOL_STARTED'])
        assert pool.workers() == []
        assert lib.load(pool, requests=1)['ok'] == 1


def test_crash_of_the_helper_and_of_a_worker():
    """After a crash of the helper no listener is left without a worker, if only that one has died meanwhile."""
    with make_pool(echo(), '0:4', listen=[UNIX, TCP4], restart='always', service='RestartSec=100ms') as pool:
        lib.load(pool, requests=2)
        pool.wait_workers(2)
        wait_complete(pool, 2)
        since, victims = lib.journal_cursor(), (pool.slots()[1], pool.main_pid)
        os.kill(pool.main_pid, signal.SIGSTOP)
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['POOL_STARTED'])
        pool.wait_workers(2, without=victims)
        for address in UNIX, TCP4:
            assert lib.load(address, requests=1)['ok'] == 1


def test_restart():
    """A restart replaces as many workers as there are: all of a grown pool, none of an empty one; nothing is lost."""
    with make_pool(misbehave('serve'), '0:5') as pool:
        pool.restart()
        assert pool.workers() == [] and lib.is_complete(pool.status_text, 0)
        with lib.BackgroundLoad(pool, clients=5, duration=100, query='sleep=50') as load:
            before = pool.wait_workers(5)
            pool.restart()
            pool.wait_workers(5, without=before)
            result = load.stop()
        assert result['ok'] > 0 and result['failed'] == 0, result


def test_stop():
    """A stop of a grown pool answers those who are being served, and leaves nobody."""
    with make_pool(misbehave('serve'), '1:5') as pool:
        grow(pool, 5)
        with lib.BackgroundLoad(pool, clients=5, requests=5, query='sleep=3000') as load:
            pool.wait_show('StatusText', lambda text: ' 5 busy' in text)
            lib.systemctl('stop', pool.socket, pool.service)
            result = load.finish()
        assert (result['ok'], result['failed']) == (5, 0), result
        assert pool.processes() == []
        assert pool.show('Result') == 'success'


def test_broken_command():
    """A pool of 0:MAX starts whatever its command is; workers that crash are tried again, and clients wait for them."""
    with Switch('size') as switch, make_pool(switch.command, '0:3') as pool:
        switch.off()
        with lib.BackgroundLoad(pool, clients=3, requests=3, timeout=60) as load:
            pool.wait_journal(MESSAGE_ID=MESSAGE['WORKER_BACKOFF'], count=4)
            assert pool.active_state == lib.show(pool.socket, 'ActiveState') == 'active'
            switch.on()
            result = load.finish()
        assert (result['ok'], result['failed']) == (3, 0), result


def test_broken_command_and_crash_budget():
    """When the crash budget is spent the unit fails, the socket stays, and the clients in it are served when all is well."""
    with Switch('size') as switch, make_pool(switch.command, '0:3', '--crash-budget=2/20s') as pool:
        switch.off()
        with lib.BackgroundLoad(pool, clients=3, requests=3, timeout=60) as load:
            entry = pool.wait_journal(MESSAGE_ID=MESSAGE['CRASH_BUDGET_SPENT'])
            assert '--crash-budget=2/20s' in entry['MESSAGE']
            # In the journal: the clients in the socket soon have the service started again, which sets ExecMainStatus back.
            lib.wait_journal(since=pool.cursor, UNIT=pool.service, EXIT_CODE='exited', EXIT_STATUS='69')
            assert lib.show(pool.socket, 'ActiveState') in ('active', 'running')
            switch.on()
            result = load.finish()
        assert (result['ok'], result['failed']) == (3, 0), result


# --- what it says ---

def test_status():
    """STATUS= says how many workers are busy, how many clients wait and how old the oldest request is, and nothing when idle."""
    with make_pool(misbehave('serve'), '1:2') as dynamic, make_pool(misbehave('serve'), '2', name='size-fixed') as fixed:
        with lib.BackgroundLoad(dynamic, clients=4, duration=100, query='sleep=5000'), \
                lib.BackgroundLoad(fixed, clients=4, duration=100, query='sleep=5000'):
            dynamic.wait_show('StatusText', lambda text: re.fullmatch('2/2 workers ready, 2 busy, queue 2, oldest request [1-4]s', text))
            fixed.wait_show('StatusText', lambda text: re.match('2/2 workers ready, 2 busy, queue 2', text))
        # It may have shrunk meanwhile.
        dynamic.wait_show('StatusText', lambda text: re.fullmatch(r'([12])/\1 workers ready', text))


def test_status_in_the_sandbox():
    """The sandbox of the template lets the number of waiting clients be known exactly."""
    with lib.TemplatePool('size', [install_echo()], ['--workers=1:2']) as pool:
        with lib.BackgroundLoad(pool, clients=6, duration=100, query='sleep=300') as load:
            pool.wait_show('StatusText', '2/2 workers ready, 2 busy, queue 4')
            result = load.stop()
        assert result['ok'] > 0 and result['failed'] == 0, result
