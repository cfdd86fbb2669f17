# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""The helper replaces itself in place: nobody notices, nothing is lost, and builds of other versions may follow."""

import collections
import contextlib
import os
import pathlib
import shutil
import signal

import pytest

import lib
from survival import BINARY, MESSAGE
from test_restart import GRACEFUL

PROGRAMS = pathlib.Path('/usr/local/lib/fcgi-pool-tests/reexec')
HELPER = PROGRAMS / 'fcgi-pool'
N_WORKERS = 4


@pytest.fixture(scope='module', autouse=True)
def programs():
    """The application where the sandbox of the template does not hide it."""
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    (PROGRAMS / 'graceful').write_text(GRACEFUL)
    (PROGRAMS / 'graceful').chmod(0o755)
    yield
    shutil.rmtree(PROGRAMS)


@pytest.fixture(scope='module')
def builds():
    """{name: path} of helpers: the installed one, one that writes a newer state, one whose state we cannot read."""
    return {'installed': BINARY, **{name: pathlib.Path(lib.tool(f'fcgi-pool-{name}')) for name in ('newer', 'foreign')}}


def install(path):
    """As dpkg does it: the new file beside the old one, then over it."""
    new = HELPER.with_name('fcgi-pool.dpkg-new')
    shutil.copy2(path, new)
    os.rename(new, HELPER)


@contextlib.contextmanager
def make_pool(build=BINARY, service=()):
    """A pool with a helper of its own, which may be replaced while others run."""
    install(build)
    with lib.TemplatePool('reexec', [PROGRAMS / 'graceful'], [f'--workers={N_WORKERS}', '--stop-timeout=5s'],
                          service=['ExecStart=', f'ExecStart={HELPER} $FCGI_POOL_OPTIONS -- $FCGI_POOL_COMMAND',
                                   'RestartSec=100ms', *service]) as pool:
        pool.wait_workers(N_WORKERS)
        pool.wait_show('NFileDescriptorStore', str(N_WORKERS + 3))
        yield pool


@contextlib.contextmanager
def load(pool):
    """Requests, short and long, on which nothing may go wrong."""
    with lib.BackgroundLoad(pool, clients=6, duration=100, any_body=True, query=lib.BUSY) as short, \
            lib.BackgroundLoad(pool, clients=1, duration=100, any_body=True, query='sleep=300') as long:
        yield
        for running in (short, long):
            result = running.stop()
            assert result['ok'] > 0 and result['failed'] == 0, result


def reexec(pool, signo=signal.SIGUSR2):
    """Sends the signal and waits until the next image has taken over."""
    since = lib.journal_cursor()
    os.kill(pool.main_pid, signo)
    return pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['ADOPTED'])


def kinds_of_fds(pid):
    """What is open, without the numbers that differ from one moment to the next."""
    return collections.Counter(target if '/' in target else target.split(':')[0] for target in lib.fds(pid).values())


def expect_whole(pool, workers=None):
    """The pool is at rest and complete, with these workers."""
    pool.wait_show('StatusText', lambda text: lib.is_complete(text, N_WORKERS))
    pool.wait_show('NFileDescriptorStore', str(N_WORKERS + 3))
    assert workers is None or pool.workers() == workers
    assert sorted(pool.slots()) == list(range(N_WORKERS))
    assert len(lib.cgroup_pids(pool.cgroup / 'guardian')) == 1


# --- in place ---

def test_reexec():
    """Same process, same workers, still its children; what systemd knows of the service does not change."""
    with make_pool() as pool, load(pool):
        workers = pool.workers()
        before = lib.show_all(pool.service, 'MainPID', 'NRestarts', 'ActiveEnterTimestamp', 'InvocationID')
        assert reexec(pool)['_PID'] == before['MainPID']
        expect_whole(pool, workers)
        assert lib.show_all(pool.service, *before) == before
        assert {lib.parent(pid) for pid in workers} == {pool.main_pid}


def test_fifty_times():
    """Fifty times in a row add no descriptor, lose none, and leave no process."""
    with make_pool() as pool, load(pool):
        workers = pool.workers()
        reexec(pool)
        expect_whole(pool, workers)
        kinds, number = kinds_of_fds(pool.main_pid), len(lib.fds(pool.main_pid))
        for _ in range(50):
            reexec(pool)
        expect_whole(pool, workers)
        assert kinds_of_fds(pool.main_pid) == kinds
        assert len(lib.fds(pool.main_pid)) == number
        assert len(lib.cgroup_pids(pool.cgroup, zombies=True)) == N_WORKERS + 2


def test_fds():
    """Afterwards all of the listeners, the state and the leash are there once, and closed in children."""
    with make_pool() as pool:
        main_pid = pool.main_pid
        before = kinds_of_fds(main_pid)
        reexec(pool)
        expect_whole(pool)
        assert kinds_of_fds(main_pid)['/memfd:fcgi-pool-state (deleted)'] <= 1
        assert abs(sum(kinds_of_fds(main_pid).values()) - sum(before.values())) <= N_WORKERS  # journal streams
        for number in lib.fds(main_pid):
            flags = pathlib.Path(f'/proc/{main_pid}/fdinfo/{number}').read_text()
            assert number <= 2 or int(flags.split('flags:')[1].split()[0], 8) & os.O_CLOEXEC, lib.fds(main_pid)[number]
        assert 'FCGI_POOL_REEXEC' not in lib.environment(pool.workers()[0])


def test_death_of_workers_afterwards():
    """The exit status of workers is known after it, and they are replaced."""
    with make_pool() as pool:
        workers = pool.workers()
        reexec(pool)
        expect_whole(pool, workers)
        since = lib.journal_cursor()
        os.kill(workers[0], signal.SIGSEGV)
        died = pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['WORKER_DIED'])
        assert (died['WORKER_PID'], died['EXIT_STATUS']) == (str(workers[0]), str(int(signal.SIGSEGV)))
        pool.wait_workers(N_WORKERS, without=workers[:1])
        expect_whole(pool)
        assert set(workers[1:]) < set(pool.workers())


def test_worker_that_dies_meanwhile():
    """A worker that dies in the moment of the execve() is found, told of and replaced."""
    with make_pool() as pool:
        for _ in range(10):
            workers = pool.wait_workers(N_WORKERS)
            expect_whole(pool)
            since = lib.journal_cursor()
            os.kill(pool.main_pid, signal.SIGSTOP)
            os.kill(workers[0], signal.SIGKILL)
            os.kill(pool.main_pid, signal.SIGUSR2)
            os.kill(pool.main_pid, signal.SIGCONT)
            died = pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['WORKER_DIED'])
            assert (died['WORKER_PID'], died['EXIT_STATUS']) == (str(workers[0]), str(int(signal.SIGKILL)))
            pool.wait_workers(N_WORKERS, without=workers[:1])
            expect_whole(pool)
            assert len(lib.cgroup_pids(pool.cgroup, zombies=True)) == N_WORKERS + 2


def test_stop_afterwards():
    """A helper that has replaced itself stops, restarts and is killed like any other."""
    with make_pool() as pool:
        workers = pool.workers()
        reexec(pool)
        since = lib.journal_cursor()
        os.kill(pool.main_pid, signal.SIGKILL)
        # Not the one line later, that the pool is ready: the image before may just have said so.
        pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['ADOPTED'])
        expect_whole(pool, workers)
        reexec(pool)
        pool.restart()
        expect_whole(pool)
        assert not set(workers) & set(pool.workers())
        reexec(pool)
        pool.stop()
        assert not pool.processes()


# --- what cannot be executed ---

def break_missing():
    HELPER.unlink()


def break_not_executable():
    HELPER.chmod(0o644)


def break_not_a_program():
    new = HELPER.with_name('fcgi-pool.dpkg-new')
    new.write_text('this is no program\n')
    new.chmod(0o755)
    os.rename(new, HELPER)


@pytest.mark.parametrize('breakage', [break_missing, break_not_executable, break_not_a_program])
def test_cannot_be_executed(breakage):
    """A program that is not there or is none: said, and everything goes on; repaired, it works."""
    with make_pool() as pool:
        workers, main_pid = pool.workers(), pool.main_pid
        number = len(lib.fds(main_pid))
        with load(pool):
            breakage()
            for _ in range(3):
                since = lib.journal_cursor()
                os.kill(main_pid, signal.SIGUSR2)
                pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['REEXEC_FAILED'])
        assert len(lib.fds(main_pid)) == number
        expect_whole(pool, workers)

        # It is as alive as before: it replaces a worker, and none of the descriptors has become one of the worker's.
        os.kill(workers[0], signal.SIGKILL)
        [new] = set(pool.wait_workers(N_WORKERS, without=workers[:1])) - set(workers)
        lib.wait_until(lambda: kinds_of_fds(new) == kinds_of_fds(workers[1]), what='a worker that has been executed')
        assert 'FCGI_POOL_REEXEC' not in lib.environment(new)
        with load(pool):
            install(BINARY)
            assert reexec(pool)['_PID'] == str(main_pid)
            expect_whole(pool)


# --- other builds ---

def by_signal(pool):
    reexec(pool)


def by_crash(pool):
    since = lib.journal_cursor()
    os.kill(pool.main_pid, signal.SIGKILL)
    pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['POOL_STARTED'])


def by_restart(pool):
    pool.restart()


@pytest.mark.parametrize('change', [by_signal, by_crash, by_restart])
@pytest.mark.parametrize('other', ['newer', 'foreign'])
def test_other_version(builds, other, change):
    """Up and down between builds with different states: workers are adopted, and what cannot be read is said."""
    with make_pool() as pool, load(pool):
        for build in (other, 'installed', other):
            workers = pool.workers()
            since = lib.journal_cursor()
            install(builds[build])
            change(pool)
            adopted = pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['ADOPTED'])
            assert f'{N_WORKERS} workers adopted, 0 gone meanwhile, 0 strangers' in adopted['MESSAGE']
            lost = pool.journal(since, MESSAGE_ID=MESSAGE['STATE_LOST'])
            assert len(lost) == (other == 'foreign' and build == 'installed')
            assert all('needs a reader of version 2' in entry['MESSAGE'] for entry in lost)
            if change is by_restart:
                pool.wait_workers(N_WORKERS, without=workers)
            expect_whole(pool, None if change is by_restart else workers)
            assert os.path.samefile(f'/proc/{pool.main_pid}/exe', HELPER)


def test_downgrade_to_a_broken_deployment(builds):
    """What the next helper cannot read, and the new application cannot do, leaves the old workers where they are."""
    good, broken = PROGRAMS / 'graceful', PROGRAMS / 'graceful.new'
    with make_pool(builds['foreign']) as pool, load(pool):
        workers = pool.workers()
        since = lib.journal_cursor()
        install(builds['installed'])
        # The old ones are not yet proven to be ready when the new ones fail.
        pool.options.append('--ready=1s')
        pool.write_env()
        broken.write_text('#!/bin/sh\nexit 3\n')
        broken.chmod(0o755)
        os.rename(broken, good)
        try:
            assert pool.restart(check=False).returncode != 0
            pool.wait_journal('Start failed: .*exited with status 3', since=since)
            pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['ADOPTED'], count=3)  # systemd tries again and again
            assert set(workers) <= set(pool.workers())
        finally:
            broken.write_text(GRACEFUL)
            broken.chmod(0o755)
            os.rename(broken, good)
        pool.wait_show('ActiveState', 'active', 20)
        pool.wait_workers(N_WORKERS, without=workers)


@pytest.mark.parametrize('other', ['newer', 'foreign'])
def test_reload_executes_what_has_changed(builds, other):
    """SIGHUP with another program installed: it takes over in place first, then replaces the workers."""
    with make_pool() as pool, load(pool):
        for build in (other, 'installed'):
            workers, main_pid = pool.workers(), pool.main_pid
            since = lib.journal_cursor()
            install(builds[build])
            os.kill(main_pid, signal.SIGHUP)
            pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['ROLLED'])
            assert pool.main_pid == main_pid
            assert os.path.samefile(f'/proc/{main_pid}/exe', HELPER)
            pool.wait_workers(N_WORKERS, without=workers)
            expect_whole(pool)
            ids = [entry.get('MESSAGE_ID') for entry in pool.journal(since)]
            assert ids.index(MESSAGE['ROLLING']) < ids.index(MESSAGE['ADOPTED']) < ids.index(MESSAGE['ROLLED'])


def test_reload_without_a_change():
    """SIGHUP with the same program installed does not execute it anew."""
    with make_pool() as pool:
        since = lib.journal_cursor()
        os.kill(pool.main_pid, signal.SIGHUP)
        pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['ROLLED'])
        assert not pool.journal(since, MESSAGE_ID=MESSAGE['ADOPTED'])
