# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""systemctl stop means stop: what runs may finish, then nothing is left, at whatever moment it comes."""

import os
import re
import shutil

import pytest

import lib
from test_readiness import Gate, Start
from test_seed import holds_connection, unix_sockets
from test_supervision import IDS, Switch, echo, kill_all, misbehave, wait_grown_up

PATH = '/run/stop.sock'
RUNTIMES = {'libfcgi': (echo, 'NonBlocking=no'), 'go': (lambda: [lib.tool('go-echo')], 'NonBlocking=yes'),
            'php': (lambda: ['/usr/bin/php-cgi'], ['NonBlocking=no', 'Environment=PHP_FCGI_MAX_REQUESTS=0'])}


def stopped_in_order(pool):
    assert lib.show_all(pool.service, 'ActiveState', 'Result', 'ExecMainStatus', 'ExecMainCode') == {
        'ActiveState': 'inactive', 'Result': 'success', 'ExecMainStatus': '0', 'ExecMainCode': '1'}
    assert pool.processes() == []
    # The socket is another unit.
    assert lib.show(pool.socket, 'ActiveState') == 'active'


def n_accepted(pids):
    """How many connections of the listener processes hold: a Go worker may hold several."""
    inodes = {f'socket:[{inode}]' for inode in unix_sockets(PATH)}
    return sum(len(inodes & set(lib.fds(pid).values())) for pid in pids)


@pytest.fixture
def script():
    """echo.php where PHP finds it."""
    if not shutil.which('php-cgi'):
        pytest.skip('no php-cgi')
    return lib.tool('echo.php')


# --- requests that run ---

@pytest.mark.parametrize('runtime', RUNTIMES)
def test_requests_finish(runtime, request):
    """Requests that run when the pool is stopped are answered; after that no process of the unit is left."""
    program, service = RUNTIMES[runtime]
    options = {'param': f'SCRIPT_FILENAME={request.getfixturevalue("script")}'} if runtime == 'php' else {}
    with lib.Pool('stop', program(), ['--workers=4'], service=service) as pool:
        workers = pool.workers()
        with lib.BackgroundLoad(pool, clients=4, requests=4, query='sleep=1500', **options) as load:
            # Not before all four are with a worker: one that waits in the queue would start the service again.
            lib.wait_until(lambda: n_accepted(workers) == 4, what='four requests that run')
            pool.stop()
            stopped_in_order(pool)
            result = load.finish()
        assert (result['ok'], result['failed']) == (4, 0), result
        assert {int(pid) for pid in result['pids']} <= set(workers)
        assert not any(os.path.exists(f'/proc/{pid}') for pid in workers)
        assert pool.messages()[-1:] and 'Pool stop has stopped, 0 workers had to be killed' in pool.messages()


def test_deadline_of_requests():
    """A request that takes longer than --stop-timeout= is ended, and the client's is the only loss."""
    with lib.Pool('stop', misbehave('ignore-term'), ['--retire=signal', '--workers=2', '--stop-timeout=500ms']) as pool:
        workers = pool.workers()
        with lib.BackgroundLoad(pool, clients=1, requests=1, query='sleep=60000', timeout=100) as load:
            lib.wait_until(lambda: n_accepted(workers) == 1, what='a request that runs')
            pool.stop()
            stopped_in_order(pool)
            result = load.finish()
        assert (result['ok'], result['failed']) == (0, 1), result


def test_longer_than_the_unit_allows():
    """--stop-timeout= is the only number to set: a shorter TimeoutStopSec= does not end what runs."""
    with lib.Pool('stop', echo(), ['--workers=2', '--stop-timeout=60s'], service='TimeoutStopSec=1') as pool:
        workers = pool.workers()
        with lib.BackgroundLoad(pool, clients=2, requests=2, query='sleep=3500') as load:
            lib.wait_until(lambda: n_accepted(workers) == 2, what='two requests that run')
            pool.stop()
            stopped_in_order(pool)
            result = load.finish()
        assert (result['ok'], result['failed']) == (2, 0), result


def test_descendants():
    """Processes that workers have started are gone after the stop, too."""
    with lib.Pool('stop', misbehave('fork', 3), ['--workers=2']) as pool:
        lib.wait_until(lambda: len(pool.processes()) == 10, what='two workers with three children each, and two more')
        everything = pool.processes()
        pool.stop()
        stopped_in_order(pool)
        assert not any(os.path.exists(f'/proc/{pid}') for pid in everything)


# --- at odd moments ---

def test_stop_during_start():
    """A stop while workers are still starting ends them and the start; that is no failure."""
    with Gate('stop', *misbehave('serve')) as gate, lib.Pool('stop', gate.command, ['--workers=3'], start='socket') as pool, \
            Start(pool) as start:
        gate.open(0)
        pool.wait_show('StatusText', '1/3 workers ready, 2 starting')
        workers = pool.workers()
        assert len(workers) == 3
        pool.stop()
        assert start.finish() != 0
        # The helper leaves everything before it was ready; the guardian ends it after the unit has stopped.
        lib.wait_until(lambda: not pool.processes() and not any(os.path.exists(f'/proc/{pid}') for pid in workers),
                       what='the workers to be gone')
        stopped_in_order(pool)
        assert pool.journal(MESSAGE_ID=IDS['MESSAGE_POOL_STARTED']) == []


def test_stop_while_backing_off():
    """A stop while slots wait for their next attempt starts no worker any more."""
    with Switch('stop') as switch, lib.Pool('stop', switch.command, ['--workers=3', '--crash-budget=1000/1s']) as pool:
        wait_grown_up(pool.workers())
        cursor = lib.journal_cursor()
        switch.off()
        kill_all(pool.workers())
        pool.wait_show('StatusText', '0/3 workers ready, 3 backing off')
        pool.wait_journal(since=cursor, count=2, MESSAGE_ID=IDS['MESSAGE_WORKER_BACKOFF'], WORKER_SLOT=0)
        pool.stop()
        stopped_in_order(pool)
        lines = pool.journal(cursor, SYSLOG_IDENTIFIER='fcgi-pool')
        stopping = next(n for n, entry in enumerate(lines) if entry.get('MESSAGE_ID') == IDS['MESSAGE_POOL_STOPPING'])
        # Of those that had just started nobody has heard by then.
        started = re.search(r', (\d+) starting', lines[stopping]['MESSAGE'])
        late = [entry['MESSAGE'] for entry in lines[stopping:] if entry.get('WORKER_STATE') == 'starting']
        assert len(late) <= int(started.group(1) if started else 0), late


def test_death_while_stopping():
    """A worker that dies while the pool stops is not replaced and fails nothing."""
    with lib.Pool('stop', misbehave('ignore-term'), ['--retire=signal', '--workers=2', '--stop-timeout=60s']) as pool:
        workers = pool.workers()
        lib.systemctl('stop', '--no-block', pool.service)
        pool.wait_journal(WORKER_STATE='retiring', count=2)
        kill_all(workers)
        pool.wait_show('ActiveState', 'inactive')
        stopped_in_order(pool)
        assert len(pool.journal(WORKER_STATE='starting')) == 2


def test_second_stop_signal():
    """Further signals while the pool stops change nothing."""
    with lib.Pool('stop', misbehave('ignore-term'), ['--retire=signal', '--workers=2', '--stop-timeout=1s']) as pool:
        lib.systemctl('stop', '--no-block', pool.service)
        pool.wait_journal(WORKER_STATE='retiring', count=2)
        for _ in range(3):
            lib.systemctl('kill', '--kill-whom=main', '--signal=TERM', pool.service)
        pool.wait_show('ActiveState', 'inactive')
        stopped_in_order(pool)
        assert len(pool.journal(MESSAGE_ID=IDS['MESSAGE_POOL_STOPPING'])) == 1
        assert len(pool.journal(MESSAGE_ID=IDS['MESSAGE_WORKER_KILLED'])) == 2


def test_stop_and_start():
    """A stopped pool starts again, on the same socket, by itself when a client comes."""
    with lib.Pool('stop', echo(), ['--workers=2']) as pool:
        before = pool.workers()
        pool.stop()
        stopped_in_order(pool)
        result = lib.load(pool, clients=2, requests=4)
        assert (result['ok'], result['failed']) == (4, 0), result
        pool.wait_show('ActiveState', 'active')
        assert len(pool.wait_workers(2, without=before)) == 2


# --- many at a time ---

def test_in_parallel():
    """Fifty workers that ignore the stop signal share one deadline: all are asked together, and killed together."""
    deadline = 2
    with lib.Pool('stop', misbehave('ignore-term'), ['--retire=signal', '--workers=50', f'--stop-timeout={deadline}s']) as pool:
        pool.stop()
        stopped_in_order(pool)
        asked = [lib.written(entry) for entry in pool.journal(WORKER_STATE='retiring', MESSAGE_ID=IDS['MESSAGE_WORKER_STATE'])]
        killed = [lib.written(entry) for entry in pool.journal(MESSAGE_ID=IDS['MESSAGE_WORKER_KILLED'])]
        assert len(asked) == len(killed) == 50
        assert max(asked) < min(killed)
        assert max(killed) - min(killed) < deadline
        assert 'Pool stop has stopped, 50 workers had to be killed' in pool.messages()


def test_holds_connection():
    """The look at connections that these tests rely on sees one that a worker holds, and none when there is none."""
    with lib.Pool('stop', echo(), ['--workers=1']) as pool:
        worker, = pool.workers()
        assert not holds_connection(worker, PATH) and n_accepted([worker]) == 0
        with lib.BackgroundLoad(pool, clients=1, requests=1, query='sleep=1000') as load:
            lib.wait_until(lambda: holds_connection(worker, PATH), what='a request that runs')
            assert n_accepted([worker]) == 1
            assert load.finish()['failed'] == 0
