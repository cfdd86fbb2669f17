# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""Workers die, hang and misbehave; the pool replaces them, says so, and the others do not notice."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import time

import pytest

import lib

SOURCE = pathlib.Path(__file__).resolve().parents[2]
IDS = dict(re.findall(r'#define (MESSAGE_\w+)\s+"([0-9a-f]{32})"', (SOURCE / 'src/common/message-ids.h').read_text()))
EARLY_SECONDS = 1.0
BACKOFF_MIN_USEC, BACKOFF_MAX_USEC = 100_000, 30_000_000


# --- what other scenarios use as well ---

def age(pid):
    """Seconds since a process was made."""
    return float(pathlib.Path('/proc/uptime').read_text().split()[0]) - lib.stat(pid).started


def wait_grown_up(pids, timeout=lib.PATIENCE):
    """Waits until processes are so old that their death is no early one."""
    lib.wait_until(lambda: all(age(pid) > EARLY_SECONDS + 0.1 for pid in pids), timeout, f'{len(pids)} processes older than 1 s')


class Switch:
    """A program that other things than its own code break and repair, for the length of a with block.

    command runs `program` as long as the switch is on, and `broken` (shell) in its place while it is off; slots
    says for which workers, default all.
    """

    def __init__(self, name, program=None, broken='exit 1'):
        self.directory = pathlib.Path(f'/run/fcgi-pool-test-{name}')
        self.path = self.directory / 'application'
        words = ' '.join(program or [lib.tool('fcgi-echo')])
        self.text = (f'#!/bin/sh\n[ ! -e {self.directory}/off-all ] && [ ! -e {self.directory}/off-$FCGI_POOL_SLOT ] || '
                     f'{{ {broken}; }}\nexec {words}\n')

    def __enter__(self):
        self.directory.mkdir(mode=0o755)
        self.path.write_text(self.text)
        self.path.chmod(0o755)
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.directory)

    @property
    def command(self):
        return [str(self.path)]

    def off(self, slot='all'):
        (self.directory / f'off-{slot}').touch()

    def on(self, slot='all'):
        (self.directory / f'off-{slot}').unlink()


def kill_all(pids):
    """Kills processes, and waits until none of them can take a connection any more."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        lib.wait_exit(pid)


def echo():
    return [lib.tool('fcgi-echo')]


def misbehave(*args):
    return [lib.tool('misbehave'), *map(str, args)]


def backoffs(pool, cursor, **fields):
    return pool.journal(cursor, MESSAGE_ID=IDS['MESSAGE_WORKER_BACKOFF'], **fields)


# --- one worker dies ---

def test_obituary():
    """A worker's death is one journal line with all its fields; the worker is replaced at once, the others stay."""
    with lib.Pool('sup', echo(), ['--workers=4']) as pool:
        before = pool.slots()
        victim = before[2]
        wait_grown_up([victim])
        cursor = lib.journal_cursor()
        os.kill(victim, signal.SIGKILL)

        obituary = pool.wait_journal(since=cursor, MESSAGE_ID=IDS['MESSAGE_WORKER_DIED'])
        expected = {'FCGI_POOL': 'sup', 'WORKER_SLOT': '2', 'WORKER_PID': str(victim), 'GENERATION': '1',
                    'WORKER_STATE': 'dead', 'WORKER_STATE_OLD': 'ready', 'EXIT_CODE': 'killed', 'EXIT_STATUS': '9',
                    'PRIORITY': '4', 'SYSLOG_IDENTIFIER': 'fcgi-pool', '_PID': str(pool.main_pid)}
        assert {name: obituary.get(name) for name in expected} == expected
        assert int(obituary['UPTIME_USEC']) > EARLY_SECONDS * 1e6
        assert re.match(rf'worker 2: pid {victim} was killed by SIGKILL after ', obituary['MESSAGE'])

        pool.wait_workers(4, without=[victim])
        after = pool.slots()
        assert {slot: pid for slot, pid in after.items() if slot != 2} == {slot: pid for slot, pid in before.items() if slot != 2}
        pool.wait_journal(since=cursor, WORKER_SLOT=2, WORKER_PID=after[2], WORKER_STATE='ready')
        # At once: it has not even slept for the shortest pause.
        assert backoffs(pool, cursor) == []
        # That, its replacement's start, and that one's readiness, told in this order: nothing else happened.
        lines = [(entry['WORKER_SLOT'], entry['WORKER_STATE']) for entry in pool.journal(cursor) if 'WORKER_STATE' in entry]
        assert lines == [('2', 'dead'), ('2', 'starting'), ('2', 'ready')]


@pytest.mark.parametrize('arguments, code, status, message', [
    (['exit', 3, 1500], 'exited', '3', 'MESSAGE_WORKER_DIED'),
    (['crash', 'segv', 1500], 'dumped|killed', str(int(signal.SIGSEGV)), 'MESSAGE_WORKER_DIED'),
    (['crash', 'abort', 1500], 'dumped|killed', str(int(signal.SIGABRT)), 'MESSAGE_WORKER_DIED'),
    (['exit', 0, 1500], 'exited', '0', 'MESSAGE_WORKER_EXITED'),
])
def test_kinds_of_death(arguments, code, status, message):
    """The obituary has exit code and status of every kind of end; an exit with 0 after service is no failure."""
    with lib.Pool('sup', misbehave(*arguments), ['--workers=1', '--ready=exec']) as pool:
        obituary = pool.wait_journal(MESSAGE_ID=IDS[message])
        assert re.fullmatch(code, obituary['EXIT_CODE']) and obituary['EXIT_STATUS'] == status
        assert obituary['PRIORITY'] == ('6' if message == 'MESSAGE_WORKER_EXITED' else '4')
        pool.wait_journal(WORKER_STATE='ready', count=2)
        assert backoffs(pool, pool.cursor) == []


def test_only_the_request_of_the_dead_is_lost():
    """Under load, the death of a worker loses the one request that it was serving, and nothing else."""
    with lib.Pool('sup', echo(), ['--workers=4']) as pool:
        before = pool.slots()
        wait_grown_up(before.values())
        with lib.BackgroundLoad(pool, clients=8, duration=100, query='sleep=50') as load:
            for slot, pid in before.items():
                cursor = lib.journal_cursor()
                os.kill(pid, signal.SIGKILL)
                pool.wait_journal(since=cursor, WORKER_SLOT=slot, WORKER_STATE='ready')
            # Each of the new ones has served.
            after = pool.wait_workers(4, without=before.values())
            lib.wait_until(lambda: all(voluntary_switches(pid) > 20 for pid in after), what='every new worker to have served')
            result = load.stop()
    # With twice as many clients as workers each one was busy, or had just ended a request.
    assert result['failed'] <= 4, result
    assert result['failed'] == result['failures']['reset'] + result['failures']['eof'], result
    assert result['ok'] > 0 and {int(pid) for pid in result['pids']} >= set(after), result


def voluntary_switches(pid):
    return int(lib.proc_status(pid, 'voluntary_ctxt_switches') or 0)


def wait_rest(pids, seconds):
    """Waits for so many seconds in which none of them wakes up."""
    def rest():
        before = [voluntary_switches(pid) for pid in pids]
        time.sleep(seconds)
        return [voluntary_switches(pid) for pid in pids] == before
    lib.wait_until(rest, timeout=20, what=f'{seconds} s without a wakeup')


def test_exit_after_honest_service():
    """A worker that ends with status 0 after its share of requests is replaced without a pause and without a warning."""
    with lib.Pool('sup', misbehave('serve', 5), ['--workers=2']) as pool:
        wait_grown_up(pool.workers())
        before = pool.workers()
        cursor = lib.journal_cursor()
        result = lib.load(pool, clients=1, requests=10)
        assert (result['ok'], result['failed']) == (10, 0), result
        # At least one of the two has done its five.
        obituary = pool.wait_journal(since=cursor, MESSAGE_ID=IDS['MESSAGE_WORKER_EXITED'])
        assert (obituary['EXIT_CODE'], obituary['EXIT_STATUS'], obituary['PRIORITY']) == ('exited', '0', '6')
        pool.wait_workers(2, without=[int(obituary['WORKER_PID'])])
        assert int(obituary['WORKER_PID']) in before
        assert backoffs(pool, cursor, WORKER_SLOT=obituary['WORKER_SLOT']) == []


# --- crash loops ---

@pytest.mark.parametrize('ready', ['exec', 'auto'])
def test_backoff(ready):
    """Workers that crash at once are retried after pauses that grow, with jitter; the socket stays open, clients wait, the pool recovers."""
    with Switch('sup') as switch, lib.Pool('sup', switch.command, ['--workers=6', '--crash-budget=1000/1s', f'--ready={ready}']) as pool:
        wait_grown_up(pool.workers())
        main_pid = pool.main_pid
        cursor = lib.journal_cursor()
        switch.off()
        kill_all(pool.workers())
        with lib.BackgroundLoad(pool, clients=5, requests=20, timeout=100) as load:
            for slot in range(6):
                pool.wait_journal(since=cursor, count=4, timeout=30, MESSAGE_ID=IDS['MESSAGE_WORKER_BACKOFF'], WORKER_SLOT=slot)
            assert lib.show(pool.socket, 'ActiveState') == 'active'
            assert pool.active_state == 'active' and pool.main_pid == main_pid
            switch.on()
            result = load.finish()
        assert (result['ok'], result['failed']) == (20, 0), result
        pool.wait_show('StatusText', '6/6 workers ready', 30)

        pauses = {}
        for entry in backoffs(pool, cursor):
            pauses.setdefault(entry['WORKER_SLOT'], []).append((int(entry['N_EARLY_DEATHS']), int(entry['BACKOFF_USEC'])))
            assert entry['PRIORITY'] == '4' and entry['FCGI_POOL'] == 'sup'
        for slot, list_of_slot in pauses.items():
            assert [n for n, _ in list_of_slot] == list(range(1, len(list_of_slot) + 1)), slot
            for n, usec in list_of_slot:
                longest = min(BACKOFF_MIN_USEC * 2 ** (n - 1), BACKOFF_MAX_USEC)
                assert longest * 3 // 4 <= usec <= longest
        # Slots that die together do not come back together.
        for n in range(4):
            assert len({list_of_slot[n] for list_of_slot in pauses.values()}) > 1

        # The pauses were kept: between an announcement and the slot's next start.
        for slot in pauses:
            lines = [entry for entry in pool.journal(cursor, WORKER_SLOT=slot)
                     if 'BACKOFF_USEC' in entry or entry.get('WORKER_STATE') == 'starting']
            for first, second in zip(lines, lines[1:]):
                if 'BACKOFF_USEC' in first:
                    assert second.get('WORKER_STATE') == 'starting'
                    passed = (lib.written(second) - lib.written(first)) * 1e6
                    # The journal's clock and the helper's are read at slightly different moments.
                    assert passed >= int(first['BACKOFF_USEC']) - 20_000


def test_backoff_is_forgotten():
    """A slot whose worker has served for a second begins again with the shortest pause."""
    with Switch('sup') as switch, lib.Pool('sup', switch.command, ['--workers=1', '--crash-budget=1000/1s']) as pool:
        for _ in range(2):
            wait_grown_up(pool.workers())
            cursor = lib.journal_cursor()
            switch.off()
            kill_all(pool.workers())
            entries = pool.wait_journal(since=cursor, count=2, MESSAGE_ID=IDS['MESSAGE_WORKER_BACKOFF'])
            assert [entry['N_EARLY_DEATHS'] for entry in entries] == ['1', '2']
            switch.on()
            pool.wait_show('StatusText', '1/1 workers ready')


def test_crash_budget_ends_the_pool():
    """When no worker serves and the budget is spent, the unit fails with status 69 and one line that says why."""
    with Switch('sup', broken='exit 7') as switch, lib.Pool('sup', switch.command, ['--workers=3', '--crash-budget=5/20s']) as pool:
        wait_grown_up(pool.workers())
        cursor = lib.journal_cursor()
        switch.off()
        kill_all(pool.workers())
        pool.wait_show('ActiveState', 'failed', 30)
        assert lib.show_all(pool.service, 'Result', 'ExecMainStatus') == {'Result': 'exit-code', 'ExecMainStatus': '69'}
        line, = [entry for entry in pool.journal(cursor, SYSLOG_IDENTIFIER='fcgi-pool') if int(entry['PRIORITY']) <= 3]
        assert line['MESSAGE_ID'] == IDS['MESSAGE_CRASH_BUDGET_SPENT']
        assert '--crash-budget=5/20s' in line['MESSAGE'] and 'exited with status 7' in line['MESSAGE']
        assert len(backoffs(pool, cursor)) >= 6
        assert lib.show(pool.socket, 'ActiveState') == 'active'
        assert pool.processes() == []
        # The socket is there, and so is its queue.
        after = lib.journal_cursor()
        with lib.BackgroundLoad(pool, clients=2, requests=4, timeout=100) as load:
            pool.wait_journal(since=after, SYSLOG_IDENTIFIER='fcgi-pool', PRIORITY=3, timeout=30)
            switch.on()
            result = load.finish()
        assert (result['ok'], result['failed']) == (4, 0), result
        pool.wait_show('ActiveState', 'active')


def test_crash_budget_and_restart():
    """With Restart=, systemd tries again until the application works, and clients that wait meanwhile are served."""
    with Switch('sup') as switch, lib.Pool('sup', switch.command, ['--workers=2', '--crash-budget=2/20s'], restart='on-failure',
                                           service='RestartSec=100ms') as pool:
        wait_grown_up(pool.workers())
        switch.off()
        kill_all(pool.workers())
        with lib.BackgroundLoad(pool, clients=3, requests=6, timeout=100) as load:
            pool.wait_show('NRestarts', lambda n: int(n) >= 3, 60)
            assert lib.show(pool.socket, 'ActiveState') == 'active'
            switch.on()
            result = load.finish()
        assert (result['ok'], result['failed']) == (6, 0), result
        pool.wait_show('ActiveState', 'active', 30)
        assert pool.status_text == '2/2 workers ready'


def test_crash_budget_with_one_that_serves():
    """As long as one worker serves, the pool lives, however often another one crashes."""
    with Switch('sup') as switch, lib.Pool('sup', switch.command, ['--workers=2', '--crash-budget=1/1h']) as pool:
        before = pool.slots()
        wait_grown_up(before.values())
        cursor = lib.journal_cursor()
        switch.off(0)
        os.kill(before[0], signal.SIGKILL)
        pool.wait_journal(since=cursor, count=5, timeout=30, MESSAGE_ID=IDS['MESSAGE_WORKER_BACKOFF'], WORKER_SLOT=0)
        assert pool.active_state == 'active'
        assert pool.slots()[1] == before[1]
        assert lib.load(pool, clients=2, requests=10)['failed'] == 0
        assert pool.journal(cursor, MESSAGE_ID=IDS['MESSAGE_CRASH_BUDGET_SPENT']) == []
        assert re.match('1/2 workers ready', pool.status_text)


# --- workers that do not stop ---

def test_stopped_worker():
    """A worker that SIGSTOP has put to sleep is woken up to stop in order, not killed."""
    with lib.Pool('sup', echo(), ['--workers=3', '--retire=signal']) as pool:
        victim = pool.slots()[1]
        os.kill(victim, signal.SIGSTOP)
        lib.wait_until(lambda: lib.proc_status(victim, 'State').startswith('T'), what='the worker to be stopped')
        pool.stop()
        assert pool.show('Result') == 'success'
        assert 'Pool sup has stopped, 0 workers had to be killed' in pool.messages()
        obituary, = pool.journal(WORKER_PID=victim, WORKER_STATE='dead')
        assert obituary['WORKER_STATE_OLD'] == 'retiring' and obituary['EXIT_STATUS'] != '9'


def test_worker_that_ignores_sigterm():
    """A worker that ignores the stop signal gets SIGKILL at --stop-timeout, and the journal says so."""
    with lib.Pool('sup', misbehave('ignore-term'), ['--retire=signal', '--workers=2', '--stop-timeout=500ms']) as pool:
        pids = pool.slots()
        pool.stop()
        assert lib.show_all(pool.service, 'Result', 'ExecMainStatus') == {'Result': 'success', 'ExecMainStatus': '0'}
        for slot, pid in pids.items():
            killing, = pool.journal(MESSAGE_ID=IDS['MESSAGE_WORKER_KILLED'], WORKER_SLOT=slot)
            assert killing['WORKER_PID'] == str(pid) and killing['PRIORITY'] == '4'
            assert '--stop-timeout=500ms' in killing['MESSAGE']
            asked, = pool.journal(WORKER_SLOT=slot, WORKER_STATE='retiring', MESSAGE_ID=IDS['MESSAGE_WORKER_STATE'])
            assert lib.written(killing) - lib.written(asked) >= 0.48
            obituary, = pool.journal(WORKER_SLOT=slot, WORKER_STATE='dead')
            assert (obituary['WORKER_STATE_OLD'], obituary['EXIT_CODE'], obituary['EXIT_STATUS']) == ('killing', 'killed', '9')
        assert 'Pool sup has stopped, 2 workers had to be killed' in pool.messages()


@pytest.mark.parametrize('option, signo', [([], signal.SIGTERM), (['--stop-signal=SIGUSR1'], signal.SIGUSR1),
                                           (['--stop-signal=INT'], signal.SIGINT), (['--stop-signal=RTMIN+3'], signal.SIGRTMIN + 3)])
def test_stop_signal(option, signo):
    """Workers are stopped by the signal that --stop-signal= names, SIGTERM by default."""
    with lib.Pool('sup', misbehave('serve'), ['--workers=2', '--retire=signal', *option]) as pool:
        pool.stop()
        obituaries = pool.journal(WORKER_STATE='dead')
        assert [(entry['EXIT_CODE'], entry['EXIT_STATUS'], entry['WORKER_STATE_OLD'], entry['PRIORITY']) for entry in obituaries] == \
            [('killed', str(int(signo)), 'retiring', '6')] * 2


# --- what the system refuses ---

LIMITS = {'nproc': ('Max processes', 'Resource temporarily unavailable'), 'nofile': ('Max open files', 'Too many open files')}


@contextlib.contextmanager
def limited(pid, user, what, soft):
    """A resource limit of a running process, for the length of a with block."""
    def set_limit(value):
        # As its own user, who needs no capability for that: containers may have none.
        lib.run(['setpriv', f'--reuid={user}', f'--regid={user}', '--clear-groups', 'prlimit', f'--pid={pid}', f'--{what}={value}:'])

    before = re.search(rf'^{LIMITS[what][0]} +(\d+|unlimited) ', pathlib.Path(f'/proc/{pid}/limits').read_text(), re.MULTILINE).group(1)
    set_limit(soft)
    yield
    set_limit(before)


@pytest.fixture
def lonely_user():
    """A user whose processes are those of the test alone: the limit on processes counts those of all containers of the machine."""
    name, uid = 'fcgi-pool-test', 52000 + int(pathlib.Path('/etc/machine-id').read_text()[:4], 16) % 8000
    lib.run(['systemd-sysusers', '--inline', f'u {name} {uid}'])
    yield name
    lib.run(['userdel', name])


@pytest.mark.parametrize('what', LIMITS)
def test_spawn_failure(what, lonely_user):
    """When the system refuses a new process or a new file, the journal says so, the slot backs off, and recovers; the others serve."""
    with lib.Pool('sup', echo(), ['--workers=3'], user=lonely_user) as pool:
        before = pool.slots()
        wait_grown_up(before.values())
        main_pid = pool.main_pid
        cursor = lib.journal_cursor()
        with limited(main_pid, lonely_user, what, 2):
            os.kill(before[1], signal.SIGKILL)
            refusals = pool.wait_journal(f'worker 1: could not be spawned: {LIMITS[what][1]}', cursor, count=2, PRIORITY=3)
            pauses = pool.wait_journal(since=cursor, count=2, MESSAGE_ID=IDS['MESSAGE_WORKER_BACKOFF'], WORKER_SLOT=1)
            assert [entry['N_EARLY_DEATHS'] for entry in pauses] == ['1', '2']
            # Without a file there is no socket to say STATUS= with.
            assert what == 'nofile' or pool.status_text == '2/3 workers ready, 1 backing off'
            assert lib.load(pool, clients=2, requests=10)['failed'] == 0
        pool.wait_journal(since=cursor, WORKER_SLOT=1, WORKER_STATE='ready', timeout=30)
        after = pool.slots()
        assert (after[0], after[2]) == (before[0], before[2])
        assert pool.main_pid == main_pid
        pool.wait_show('StatusText', '3/3 workers ready')
        # Found by whoever looks for lines of this pool or this slot.
        assert {(entry.get('FCGI_POOL'), entry.get('WORKER_SLOT')) for entry in refusals} == {('sup', '1')}


def test_spawn_failure_in_a_roll(lonely_user):
    """Where no process more is allowed a roll tries, fails and says so; the workers serve on, and a stop is no failure."""
    with lib.Pool('sup', echo(), ['--workers=3'], user=lonely_user) as pool:
        before, cursor = pool.slots(), lib.journal_cursor()
        with limited(pool.main_pid, lonely_user, 'nproc', 2):
            os.kill(pool.main_pid, signal.SIGHUP)
            pool.wait_journal('Roll failed: .*could not be spawned', since=cursor)
        assert pool.slots() == before
        assert lib.load(pool, clients=2, requests=10)['failed'] == 0
        pool.stop()
        assert lib.show_all(pool.service, 'ActiveState', 'Result') == {'ActiveState': 'inactive', 'Result': 'success'}


# --- the helper itself ---

@pytest.mark.parametrize('signo', [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2], ids=lambda signo: signo.name)
def test_signals_while_stopping(signo):
    """Once a pool stops, it stops: no signal turns that into a restart, a roll or a re-execution."""
    with lib.Pool('sup', misbehave('ignore-term'), ['--retire=signal', '--workers=2', '--stop-timeout=60s']) as pool:
        main_pid, workers = pool.main_pid, pool.workers()
        lib.systemctl('stop', '--no-block', pool.service)
        pool.wait_show('StatusText', '0/2 workers ready, 2 retiring')
        os.kill(main_pid, signo)
        # By the time that it has noticed a death, it has taken the signal.
        os.kill(workers[0], signal.SIGKILL)
        pool.wait_show('StatusText', '0/2 workers ready, 1 retiring')
        assert pool.main_pid == main_pid and pool.workers() == [workers[1]]
        os.kill(workers[1], signal.SIGKILL)
        pool.wait_show('ActiveState', 'inactive')
        assert lib.show_all(pool.service, 'Result', 'ExecMainStatus') == {'Result': 'success', 'ExecMainStatus': '0'}


def test_sigint_stops_in_order():
    """SIGINT to the helper ends the pool as systemctl stop does."""
    with lib.Pool('sup', echo(), ['--workers=2']) as pool:
        os.kill(pool.main_pid, signal.SIGINT)
        pool.wait_show('ActiveState', 'inactive')
        assert lib.show_all(pool.service, 'Result', 'ExecMainStatus') == {'Result': 'success', 'ExecMainStatus': '0'}
        assert pool.processes() == []


def test_watchdog_of_an_idle_pool():
    """A pool at rest feeds the watchdog, interval after interval."""
    with lib.Pool('sup', echo(), ['--workers=2'], service='WatchdogSec=6') as pool:
        before = pool.main_pid, pool.slots()
        for _ in range(3):
            last = pool.show('WatchdogTimestampMonotonic')
            pool.wait_show('WatchdogTimestampMonotonic', lambda value: value != last)
        assert (pool.main_pid, pool.slots()) == before
        assert pool.show('NRestarts') == '0'


def test_watchdog_of_a_stuck_helper():
    """A helper that does nothing any more is ended and started anew by systemd, and the workers do not notice."""
    with lib.Pool('sup', echo(), ['--workers=2'], restart='on-watchdog',
                  service=['WatchdogSec=4', 'TimeoutStopSec=20', 'RestartSec=100ms', 'LimitCORE=0']) as pool:
        main_pid, workers = pool.main_pid, pool.workers()
        cursor = lib.journal_cursor()
        os.kill(main_pid, signal.SIGSTOP)
        lib.wait_journal('[Ww]atchdog timeout', cursor, UNIT=pool.service, timeout=20)
        pool.wait_show('NRestarts', '1', 40)
        pool.wait_show('ActiveState', 'active', 20)
        assert pool.main_pid != main_pid
        assert pool.workers() == workers
        assert lib.load(pool, clients=2, requests=10)['failed'] == 0
