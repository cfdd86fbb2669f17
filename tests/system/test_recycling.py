# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""Workers that are old or large are replaced, one at a time, by ones that are ready before, and no request is lost."""

import os
import signal

import lib
from survival import MESSAGE
from test_sizing import Census
from test_supervision import Switch, age, backoffs, echo, misbehave

MEMORY_TIMEOUT = 20  # the last request was asked about within ten seconds; the rest is for the machine
AGE, SIZE = 'has reached --max-lifetime', 'exceeds --max-memory'


def transitions(pool, since=None):
    """(seconds, slot, pid, state, text) of each step of a worker, in their order."""
    return [(lib.written(entry), int(entry['WORKER_SLOT']), int(entry['WORKER_PID']),
             entry['WORKER_STATE'], entry['MESSAGE']) for entry in pool.journal(since) if 'WORKER_STATE' in entry]


def births(pids):
    """{pid: seconds after boot}"""
    return {pid: lib.stat(pid).started for pid in pids}


def lifetimes(steps, born):
    """{pid: seconds} from a worker's birth to the start of its successor, of those who have one."""
    last, result = {}, {}
    for at, slot, pid, state, _ in steps:
        if state == 'starting':
            if slot in last:
                result[last[slot]] = at - born[last[slot]]
            last[slot] = pid
    return result


def retirements(steps, reason):
    return [pid for _, _, pid, state, text in steps if state == 'retiring' and text.endswith(reason)]


# --- age ---

def test_max_lifetime():
    """Each worker is replaced at 90 to 100 % of --max-lifetime=, not all together, and nothing is lost."""
    with lib.Pool('recycle', misbehave('serve'), ['--workers=6', '--max-lifetime=4s']) as pool, \
            lib.BackgroundLoad(pool, clients=3, duration=100, query='sleep=5') as load:
        before = pool.slots()
        born = births(before.values())
        pool.wait_journal(MESSAGE_ID=MESSAGE['WORKER_EXITED'], count=6)
        result = load.stop()
        steps = transitions(pool)
    assert result['ok'] > 0 and result['failed'] == 0, result
    assert sorted(retirements(steps, AGE)) == sorted(before.values())

    ages = lifetimes(steps, born)
    assert set(ages) == set(before.values())
    # A birth is known to some hundredths of a second. One may have to wait for others.
    assert all(3.55 <= seconds <= 5 for seconds in ages.values()), ages
    assert min(ages.values()) < 3.9 and max(ages.values()) - min(ages.values()) > 0.2, ages

    # The successor is ready before, and the next one begins when the predecessor has gone.
    recycled = [(slot, state) for _, slot, _, state, _ in steps if state != 'killing']
    slots = [slot for slot, state in recycled[12:] if state == 'starting']
    assert recycled[12:] == [(slot, state) for slot in slots for state in ('starting', 'ready', 'retiring', 'dead')]


def test_one_at_a_time():
    """However long a request delays the end of a worker, the pool has one process too many at most."""
    with lib.Pool('recycle', misbehave('serve'), ['--workers=3', '--max-lifetime=1s']) as pool, \
            Census(pool) as census, \
            lib.BackgroundLoad(pool, clients=3, duration=100, query='sleep=400') as load:
        pool.wait_journal(AGE, count=3)
        result = load.stop()
    assert census.most == 4
    assert result['ok'] > 0 and result['failed'] == 0, result


def test_successor_that_fails():
    """A worker whose successor does not start serves on, the slot backs off, and all goes on when the program is repaired."""
    with Switch('recycle', misbehave('serve')) as switch, \
            lib.Pool('recycle', switch.command, ['--workers=2', '--max-lifetime=2s']) as pool:
        before = pool.workers()
        switch.off()
        pool.wait_journal(MESSAGE_ID=MESSAGE['WORKER_BACKOFF'], count=4)
        # Those who are tried die at once: these are the same as before.
        assert set(before) <= set(pool.workers())
        assert retirements(transitions(pool), AGE) == []
        assert max(int(entry['N_EARLY_DEATHS']) for entry in backoffs(pool, pool.cursor)) > 1
        assert lib.load(pool, clients=2, requests=20)['failed'] == 0
        switch.on()
        for pid in before:
            pool.wait_journal(AGE, WORKER_PID=pid)
        pool.wait_workers(2, without=before)


def test_age_outlives_the_helper():
    """A new helper knows how old the workers are that it takes over, after a crash and after a re-execution."""
    with lib.Pool('recycle', misbehave('serve'), ['--workers=2', '--max-lifetime=12s'], restart='always',
                  service='RestartSec=100ms') as pool:
        before = pool.workers()
        born = births(before)
        lib.wait_until(lambda: age(before[0]) > 5, what='the workers to be five seconds old')
        for signo in signal.SIGKILL, signal.SIGUSR2:
            since = lib.journal_cursor()
            os.kill(pool.main_pid, signo)
            pool.wait_journal('2 workers adopted', since)
            assert pool.workers() == before
        for pid in before:
            pool.wait_journal(AGE, WORKER_PID=pid)
        ages = lifetimes(transitions(pool), born)
        # Were their age counted from the crash, it would take 15.8 s.
        assert all(10.75 <= ages[pid] <= 15.7 for pid in before), ages


# --- size ---

def test_max_memory():
    """A worker above --max-memory= is replaced though no request comes any more; a smaller one is left alone.

    What counts is the memory of all processes of a worker, what they share once.
    """
    options = ['--max-memory=80M', '--workers=2']
    with lib.Pool('recycle', echo(), options) as single, \
            lib.Pool('recycle-sizes', echo(), ['--workers=1:3', '--max-memory=80M']) as dynamic, \
            lib.Pool('recycle-tree', misbehave('fork', 1), options) as tree, \
            lib.Pool('recycle-shared', misbehave('fork', 3, 60), options) as shared:
        before = {pool: pool.slots() for pool in (single, dynamic, tree, shared)}
        large = {}
        for pool in single, dynamic:
            result = lib.load(pool, requests=1, query='hold=100')
            large[pool], = map(int, result['pids'])
        assert lib.load(single, clients=2, requests=20, query='sleep=10')['failed'] == 0
        # Each of the two processes of each worker gets one of them.
        with lib.BackgroundLoad(tree, clients=4, requests=4, query='hold=60&sleep=500') as load:
            assert load.finish()['ok'] == 4
        assert lib.load(shared, clients=8, requests=8, query='sleep=100')['ok'] == 8

        for pool in single, dynamic:
            entry = pool.wait_journal(SIZE, timeout=MEMORY_TIMEOUT, WORKER_STATE='retiring')
            assert int(entry['WORKER_PID']) == large[pool]
            steps = [(pid, state) for _, slot, pid, state, _ in transitions(pool) if slot == int(entry['WORKER_SLOT'])]
            assert [state for _, state in steps[:5]] == ['starting', 'ready', 'starting', 'ready', 'retiring']
            assert steps[4][0] == steps[0][0] == large[pool]
        tree.wait_journal(SIZE, timeout=MEMORY_TIMEOUT, count=2, WORKER_STATE='retiring')
        tree.wait_workers(2, without=before[tree].values())
        # Looked at by now, as the others were.
        assert set(before[single].values()) - {large[single]} < set(single.workers())
        assert shared.slots() == before[shared]
        assert retirements(transitions(shared), SIZE) == []


