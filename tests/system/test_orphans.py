# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""However a unit goes down, no process of it is left a second after its deadline, and requests in flight finish."""

import contextlib
import os
import pathlib
import shutil
import signal
import time

import pytest

import lib
from survival import MESSAGE

PROGRAMS = pathlib.Path('/usr/local/lib/fcgi-pool-tests/orphans')
GATE = pathlib.Path('/run/fcgi-pool-test-gate')
STOP_TIMEOUT = 3
MARGIN = 10  # who is not ended stays for ever
N_WORKERS = 3
# It stays between two starts for as long as the test likes.
WAITING = 'RestartSec=1h'


@pytest.fixture(scope='module', autouse=True)
def programs():
    """Test programs where the sandbox of the template does not hide them."""
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    for name in ('fcgi-echo', 'misbehave'):
        shutil.copy(lib.tool(name), PROGRAMS / name)
    script = PROGRAMS / 'with-grandchildren'
    script.write_text(f'#!/bin/sh\nsetsid sh -c "trap \'\' TERM HUP; sleep 1000" &\nexec {PROGRAMS}/fcgi-echo\n')
    script.chmod(0o755)
    yield
    shutil.rmtree(PROGRAMS)


def make_pool(*command, service=(), unit=(), options=(), stop_timeout=STOP_TIMEOUT):
    return lib.TemplatePool('orphans', [PROGRAMS / command[0], *command[1:]],
                            [f'--workers={N_WORKERS}', *options, f'--stop-timeout={stop_timeout}s'],
                            service=[*service, 'LimitCORE=0'], unit=unit)


def guardians(pool):
    return lib.cgroup_pids(pool.cgroup / 'guardian')


def wait_gone(pool, since):
    """Waits until no process of the unit is left, zombies aside; since is when it went down."""
    deadline = since + STOP_TIMEOUT + MARGIN
    lib.wait_until(lambda: not pool.processes(), max(deadline - time.monotonic(), 0),
                   f'the processes of {pool.service} to be gone')


@contextlib.contextmanager
def in_flight(pool, seconds=2.5):
    """Two requests that workers are busy with; afterwards they must have got their answers."""
    with lib.BackgroundLoad(pool, clients=2, requests=2, query=f'sleep={int(seconds * 1000)}') as load:
        lib.wait_until(lambda: sum(holds_connection(pid) for pid in pool.workers()) == 2, what='two busy workers')
        yield
        result = load.finish()
    assert (result['ok'], result['failed']) == (2, 0), result['failures']


def holds_connection(pid):
    """Has a socket beside the listener and the journal's: fd 3 and above belong to nobody else in the echo program."""
    with contextlib.suppress(FileNotFoundError):
        return any(number > 2 and target.startswith('socket:') for number, target in lib.fds(pid).items())
    return False


# --- ways down: each is called with a pool that serves, and returns once systemd has been told or shown ---

def kill_helper(pool, signo=signal.SIGKILL):
    os.kill(pool.main_pid, signo)


def stop_overtakes_restart(pool):
    """The helper has left its workers to the next one, and there will be none."""
    os.mkfifo(GATE)
    try:
        lib.systemctl('--no-block', 'restart', pool.service)
        pool.wait_show('SubState', 'stop-post')
        lib.systemctl('--no-block', 'stop', pool.service)
        lib.wait_until(lambda: ' stop ' in lib.run(['systemctl', 'list-jobs', '--no-legend']).stdout,
                       what='the stop job to be there')
        GATE.write_text('go\n')
    finally:
        GATE.unlink()
    pool.wait_show('ActiveState', 'inactive')


def stop_races_restart(pool):
    """As above, without a gate: wherever in the restart the stop may strike."""
    for pause in (0, 0, 0, 0, 0, 0, 0.002, 0.005, 0.01, 0.02):
        lib.systemctl('--no-block', 'restart', pool.service)
        time.sleep(pause)  # not for something to happen: a point in time like any other
        pool.stop()
        lib.wait_until(lambda: not pool.processes(), STOP_TIMEOUT + MARGIN, f'all to be gone, pause {pause}')
        pool.start()
    lib.systemctl('--no-block', 'restart', pool.service)
    pool.stop()


def stop_in_auto_restart(pool):
    kill_helper(pool)
    pool.wait_show('SubState', 'auto-restart')
    lib.systemctl('stop', pool.service)


def stop_right_after_kill(pool):
    kill_helper(pool)
    lib.systemctl('stop', pool.service)


def start_limit_by_crashes(pool):
    kill_helper(pool)
    pool.wait_journal(since=pool.cursor, MESSAGE_ID=MESSAGE['ADOPTED'])
    pool.wait_show('ActiveState', 'active')
    kill_helper(pool)
    pool.wait_show('ActiveState', 'failed')
    assert pool.show('Result') in ('start-limit-hit', 'signal')


def start_limit_by_restarts(pool):
    pool.restart()
    result = pool.restart(check=False)
    assert result.returncode != 0
    pool.wait_show('ActiveState', 'failed')


def crash(signo):
    def go_down(pool):
        kill_helper(pool, signo)
        pool.wait_show('ActiveState', 'failed')
    return go_down


def failing_start(pool):
    pool.options.append('--nonsense')
    pool.write_env()
    assert pool.restart(check=False).returncode != 0
    pool.wait_show('ActiveState', 'failed')


GATED = [f"ExecStopPost=+/bin/sh -c 'read x <{GATE}'"]
LIMITED = ['StartLimitIntervalSec=1h', 'StartLimitBurst=2']
WAYS = {  # name: way, lines for [Service], lines for [Unit]
    'stop overtakes restart': (stop_overtakes_restart, GATED, []),
    'stop in auto-restart': (stop_in_auto_restart, [WAITING], []),
    'stop right after SIGKILL': (stop_right_after_kill, [WAITING], []),
    'start limit, crashes': (start_limit_by_crashes, [], LIMITED),
    'start limit, restarts': (start_limit_by_restarts, [], LIMITED),
    'SIGKILL, Restart=no': (crash(signal.SIGKILL), ['Restart=no'], []),
    'SIGSEGV, Restart=no': (crash(signal.SIGSEGV), ['Restart=no'], []),
    'failing start, Restart=no': (failing_start, ['Restart=no'], []),
}


@pytest.mark.parametrize('name', WAYS)
def test_way_down(name):
    """On every way down that leaves the workers to nobody they finish their requests and end; the guardian says so."""
    go_down, service, unit = WAYS[name]
    with make_pool('fcgi-echo', service=service, unit=unit) as pool:
        pool.wait_workers(N_WORKERS)
        with in_flight(pool):
            go_down(pool)
            since = time.monotonic()
        wait_gone(pool, since)
        # journald may come to read them when nothing is left to tell the unit by.
        found, ended = (lib.wait_journal(since=pool.cursor, MESSAGE_ID=MESSAGE[name], FCGI_POOL='fcgi-pool@orphans')
                        for name in ('ORPHANS_FOUND', 'ORPHANS_ENDED'))
        assert int(found['N_PROCESSES']) >= N_WORKERS - 1 and ended['N_PROCESSES'] == '0'


def test_stop():
    """An ordinary stop waits for the requests and leaves nothing, the guardian included."""
    with make_pool('fcgi-echo') as pool:
        with in_flight(pool, 1):
            lib.systemctl('stop', pool.socket, pool.service)
            assert not pool.processes()
        assert not pool.journal(MESSAGE_ID=MESSAGE['ORPHANS_FOUND'])


def test_stop_at_any_time_of_a_restart():
    """A stop that strikes anywhere in a restart leaves nothing."""
    with make_pool('fcgi-echo') as pool:
        pool.wait_workers(N_WORKERS)
        stop_races_restart(pool)
        wait_gone(pool, time.monotonic())


STUBBORN = {
    'ignores SIGTERM': ['misbehave', 'ignore-term'],
    'grandchildren': ['with-grandchildren'],
    'stopped': ['fcgi-echo'],
    'forks': ['misbehave', 'fork', '3'],
}


@pytest.mark.parametrize('down', ['stop', 'guardian'])
@pytest.mark.parametrize('kind', STUBBORN)
def test_stubborn_workers(kind, down):
    """Workers that will not go, or that have left others behind, are gone at the deadline."""
    with make_pool(*STUBBORN[kind], service=[WAITING], options=['--retire=signal']) as pool:
        workers = pool.wait_workers(N_WORKERS)
        if kind == 'grandchildren':
            lib.wait_until(lambda: len(pool.processes()) >= 3 * N_WORKERS + 2, what='the grandchildren')
        if kind == 'stopped':
            for pid in workers:
                os.kill(pid, signal.SIGSTOP)
        since = time.monotonic()
        if down == 'stop':
            pool.stop()
            assert not pool.processes()
        else:
            stop_in_auto_restart(pool)
        wait_gone(pool, since)
        if kind == 'ignores SIGTERM':
            assert time.monotonic() - since >= STOP_TIMEOUT
            message = MESSAGE['WORKER_KILLED' if down == 'stop' else 'ORPHANS_ENDED']
            lib.wait_journal(since=pool.cursor, MESSAGE_ID=message, FCGI_POOL='fcgi-pool@orphans')


def test_kill_whole_unit():
    """SIGKILL for all processes of the unit is survived: everything is new afterwards, and ends with the stop."""
    with make_pool('fcgi-echo', service=['RestartSec=100ms']) as pool:
        before = pool.processes()
        since = lib.journal_cursor()
        pool.systemctl('kill', '--signal=SIGKILL')
        pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['POOL_STARTED'])
        pool.wait_workers(N_WORKERS, without=before)
        assert len(lib.wait_until(lambda: guardians(pool), what='a guardian')) == 1
        assert lib.load(pool, clients=4, requests=20)['failed'] == 0
        pool.stop()
        assert not pool.processes()


def test_kill_whole_unit_for_good():
    """SIGKILL for all processes with Restart=no leaves nothing."""
    with make_pool('fcgi-echo', service=['Restart=no']) as pool:
        since = time.monotonic()
        pool.systemctl('kill', '--signal=SIGKILL')
        pool.wait_show('ActiveState', 'failed')
        wait_gone(pool, since)


def test_terminate_whole_unit():
    """SIGTERM for all processes, the guardian among them, ends the pool and starts it anew as Restart= says."""
    with make_pool('fcgi-echo', service=['RestartSec=100ms']) as pool:
        before = pool.workers()
        since = lib.journal_cursor()
        pool.systemctl('kill', '--signal=SIGTERM')
        pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['POOL_STARTED'])
        pool.wait_workers(N_WORKERS, without=before)
        pool.wait_show('ActiveState', 'active')
        stop_right_after_kill(pool)
        wait_gone(pool, time.monotonic())


@pytest.mark.parametrize('signo', [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_guardian_signalled(signo):
    """The guardian ignores what it can; killed, it is replaced, and the new one does its duty."""
    with make_pool('fcgi-echo', service=[WAITING]) as pool:
        workers = pool.wait_workers(N_WORKERS)
        [old] = guardians(pool)
        since = lib.journal_cursor()
        os.kill(old, signo)
        if signo == signal.SIGKILL:
            pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['GUARDIAN_DIED'])
            lib.wait_until(lambda: guardians(pool) and guardians(pool) != [old], what='another guardian')
        assert pool.workers() == workers
        assert len(guardians(pool)) == 1
        pool.wait_show('NFileDescriptorStore', str(N_WORKERS + 3))
        stop_in_auto_restart(pool)
        wait_gone(pool, time.monotonic())


def test_helper_and_guardian_killed():
    """Helper and guardian die at once: the next helper keeps the workers, has a guardian, and leaves nothing."""
    with make_pool('fcgi-echo', service=['RestartSec=100ms']) as pool:
        workers = pool.wait_workers(N_WORKERS)
        for _ in range(2):
            [old] = guardians(pool)
            since = lib.journal_cursor()
            for pid in (pool.main_pid, old):
                os.kill(pid, signal.SIGKILL)
            pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['POOL_STARTED'])
            lib.wait_until(lambda: guardians(pool) and guardians(pool) != [old], what='another guardian')
            assert pool.workers() == workers
        pool.drop_in(['[Service]', WAITING])
        stop_in_auto_restart(pool)
        wait_gone(pool, time.monotonic())


def test_settings_reach_the_guardian():
    """A guardian that outlives a restart goes by the stop timeout of the new options."""
    with make_pool('misbehave', 'ignore-term', service=[WAITING], stop_timeout=1000) as pool:
        [guardian] = guardians(pool)
        pool.options[-1] = '--stop-timeout=1s'
        pool.write_env()
        pool.restart()
        assert guardians(pool) == [guardian]
        pool.wait_workers(N_WORKERS)
        stop_in_auto_restart(pool)
        lib.wait_until(lambda: not pool.processes(), what='all to be gone')
