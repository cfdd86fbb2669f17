# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""A restart brings new settings to every worker without a lost request, and one that cannot succeed changes nothing."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest

import lib
from survival import MESSAGE

PROGRAMS = pathlib.Path('/usr/local/lib/fcgi-pool-tests/restart')
GOOD = PROGRAMS / 'application'
# Ends on SIGTERM between two requests and never in one, as libfcgi does not always manage to: accept() either gives a
# connection, which is served, or is interrupted, if not by the signal then by the timer that the signal starts.
GRACEFUL = r'''#!/usr/bin/perl
use strict;
use Socket;
use Time::HiRes qw(setitimer ITIMER_REAL);
my $over = 0;
$SIG{ALRM} = sub { };
$SIG{PIPE} = 'IGNORE';
$SIG{TERM} = sub { $over = 1; setitimer(ITIMER_REAL, 0.01, 0.01) };
sub take {
        my ($socket, $n) = @_;
        my $data = '';
        while (length $data < $n) {
                my $k = sysread($socket, $data, $n - length $data, length $data);
                next if !defined $k && $!{EINTR};
                return undef unless $k;
        }
        return $data;
}
sub record { return pack('CCnnCC', 1, $_[0], 1, length $_[1], 0, 0) . $_[1] }
open(my $listener, '<&=', 0) or die;
until ($over) {
        accept(my $socket, $listener) or next;
        my ($type, $n, $padding, $query) = (0, 0, 0, '');
        until ($type == 5 && $n == 0) {
                my $header = take($socket, 8) // last;
                ($type, $n, $padding) = (unpack('CCnnCC', $header))[1, 3, 4];
                my $content = $n + $padding ? take($socket, $n + $padding) // last : '';
                $query .= $content if $type == 4;
        }
        if ($query =~ /sleep=(\d+)/) {
                my $end = Time::HiRes::time() + $1 / 1000;
                while ((my $left = $end - Time::HiRes::time()) > 0) { select(undef, undef, undef, $left) }
        }
        my $answer = record(6, "Content-Type: text/plain\r\n\r\nhello\n") . record(6, '') . record(3, "\0" x 8);
        while (length $answer) {
                my $k = syswrite($socket, $answer);
                next if !defined $k && $!{EINTR};
                last unless defined $k;
                substr($answer, 0, $k) = '';
        }
        close($socket);
}
'''
N_WORKERS = 4
TCP = '127.0.0.1:9177'


@pytest.fixture(autouse=True)
def programs():
    """Test programs where the sandbox of the template does not hide them; GOOD is the one that tests may break."""
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    shutil.copy(lib.tool('misbehave'), PROGRAMS / 'misbehave')
    (PROGRAMS / 'graceful').write_text(GRACEFUL)
    (PROGRAMS / 'graceful').chmod(0o755)
    install_application()
    yield
    shutil.rmtree(PROGRAMS)


def install_application(script=f'exec {PROGRAMS}/graceful'):
    """As a deployment does it: beside the old one, then over it."""
    new = GOOD.with_name('application.new')
    new.write_text(f'#!/bin/sh\n{script}\n')
    new.chmod(0o755)
    os.rename(new, GOOD)


@contextlib.contextmanager
def make_pool(*options, service=(), socket=(), **others):
    with lib.TemplatePool('restart', [GOOD], [f'--workers={N_WORKERS}', '--stop-timeout=5s', *options],
                          service=['LimitCORE=0', 'RestartSec=200ms', *service], socket=socket, **others) as pool:
        pool.wait_workers(N_WORKERS)
        yield pool


@contextlib.contextmanager
def load(pool, **options):
    """Requests one after the other, on which nothing may go wrong."""
    options = {'clients': 8, 'duration': 100, 'any_body': True, 'query': lib.BUSY, **options}
    with lib.BackgroundLoad(pool, **options) as running:
        yield running
        result = running.stop()
    assert result['ok'] > 0 and result['failed'] == 0, result


def expect_whole(pool, n=N_WORKERS, without=()):
    """The pool is at rest and complete: n workers, a slot each, one generation."""
    pool.wait_workers(n, without=without)
    pool.wait_show('StatusText', lambda text: lib.is_complete(text, n))
    assert sorted(pool.slots()) == list(range(n))
    assert len({lib.environment(pid)['FCGI_POOL_GENERATION'] for pid in pool.workers()}) == 1
    pool.wait_show('NFileDescriptorStore', str(n + 3))


def generation(pool):
    return max(int(lib.environment(pid)['FCGI_POOL_GENERATION']) for pid in pool.workers())


# --- restarts that succeed ---

def test_new_settings():
    """Environment, limits, umask and arguments of the changed unit are those of every worker when restart returns."""
    with make_pool() as pool, load(pool):
        before = pool.workers()
        pool.env['GREETING'] = 'hello'
        pool.write_env()
        pool.drop_in(['[Service]', 'LimitNOFILE=4321', 'UMask=0027', 'Nice=7', 'LimitCORE=0'])
        install_application(f'exec {PROGRAMS}/graceful --argument')
        old_generation = generation(pool)
        pool.restart()

        workers = pool.wait_workers(N_WORKERS, without=before)
        for pid in workers:
            assert lib.environment(pid)['GREETING'] == 'hello'
            assert lib.proc_status(pid, 'Umask') == '0027'
            assert os.getpriority(os.PRIO_PROCESS, pid) == 7
            assert 'Max open files            4321 ' in pathlib.Path(f'/proc/{pid}/limits').read_text()
            assert lib.command_line(pid).endswith(f'{PROGRAMS}/graceful --argument')
        expect_whole(pool)
        assert generation(pool) == old_generation + 1


@pytest.mark.parametrize('verb', ['restart', 'try-restart', 'reload-or-restart'])
def test_every_kind_of_restart(verb):
    """Whatever verb leads to a restart: all workers are new, and no request is lost."""
    with make_pool() as pool, load(pool):
        for _ in range(3):
            before, main_pid = pool.workers(), pool.main_pid
            pool.systemctl(verb)
            if pool.main_pid != main_pid:
                expect_whole(pool, without=before)
            else:
                pool.wait_journal(since=pool.cursor, MESSAGE_ID=MESSAGE['ROLLED'])


@pytest.mark.parametrize('numbers', [(1, 3), (4, 9), (9, 2), (3, 1)])
def test_number_of_workers(numbers):
    """A restart can change the number of workers, up and down."""
    old, new = numbers
    with lib.TemplatePool('restart', [GOOD], [f'--workers={old}']) as pool:
        before = pool.wait_workers(old)
        with load(pool):
            pool.options[0] = f'--workers={new}'
            pool.write_env()
            pool.restart()
            expect_whole(pool, new, without=before)


def test_many_restarts_in_a_row():
    """Restarts as fast as systemd makes them lose nothing and add up to nothing."""
    with make_pool() as pool, load(pool, query=''):
        for _ in range(10):
            pool.restart()
        expect_whole(pool)
        assert len(pool.processes()) == N_WORKERS + 2


def test_restart_while_restarting():
    """Restarts that strike in the middle of the roll of the one before: the last settings win."""
    with make_pool(service=['TimeoutStartSec=60']) as pool, load(pool):
        install_application(f'sleep 0.2; exec {PROGRAMS}/graceful')
        for number in range(4):
            pool.env['NUMBER'] = str(number)
            pool.write_env()
            since = lib.journal_cursor()
            lib.systemctl('--no-block', 'restart', pool.service)
            pool.wait_journal('starting, pid', since=since)
        lib.wait_until(lambda: pool.active_state == 'active', 30, 'the last restart to be done')
        expect_whole(pool)
        assert {lib.environment(pid)['NUMBER'] for pid in pool.workers()} == {'3'}


# --- restarts that fail ---

BROKEN = {  # what: (deployment, what the journal says)
    'not executable': (lambda: GOOD.chmod(0o644), 'ermission denied|not executable'),
    'missing': (GOOD.unlink, 'o such file|not found'),
    'interpreter missing': (lambda: (GOOD.write_text('#!/nonexistent\n'), GOOD.chmod(0o755)), 'o such file'),
    'crashes': (lambda: install_application(f'exec {PROGRAMS}/misbehave crash abort'), 'Start failed: .*SIGABRT'),
    'exits': (lambda: install_application('exit 3'), 'Start failed: .*exited with status 3'),
    'never ready': (lambda: install_application('exec sleep 1000'), 'Start failed: .*not ready within'),
}


@pytest.mark.parametrize('what', BROKEN)
def test_broken_deployment(what):
    """Restart with a broken application fails and says why, the old workers serve on; repaired, the next succeeds."""
    breakage, reason = BROKEN[what]
    with make_pool('--start-timeout=3s') as pool, load(pool):
        before = pool.workers()
        breakage()
        since = lib.journal_cursor()
        result = pool.restart(check=False)
        assert result.returncode != 0
        assert 'failed' in result.stderr
        pool.wait_journal(reason, since=since)
        # systemd tries again, and again.
        lib.wait_until(lambda: int(pool.show('NRestarts')) >= 2, 20, 'systemd to try again')
        assert set(before) <= set(pool.workers())

        with contextlib.suppress(FileNotFoundError):
            GOOD.unlink()
        install_application()
        pool.restart()
        expect_whole(pool, without=before)
        lib.wait_until(lambda: len(pool.processes()) == N_WORKERS + 2, what='nobody else to be left')


def test_repaired_without_a_restart():
    """A repaired file is found by the next attempt of systemd's own."""
    with make_pool() as pool, load(pool):
        before = pool.workers()
        install_application('exit 3')
        assert pool.restart(check=False).returncode != 0
        assert set(before) <= set(pool.workers())
        install_application()
        pool.wait_show('ActiveState', 'active', 20)
        expect_whole(pool, without=before)


def test_bad_options():
    """Options that are refused leave the old workers serving; corrected, they are adopted and replaced."""
    with make_pool() as pool, load(pool):
        before = pool.workers()
        pool.options.append('--nonsense')
        pool.write_env()
        result = pool.restart(check=False)
        assert result.returncode != 0
        pool.wait_journal('--nonsense', since=pool.cursor)
        assert pool.workers() == before
        pool.options.pop()
        pool.write_env()
        pool.restart()
        expect_whole(pool, without=before)


def test_crash_after_failed_restart():
    """A helper killed in the middle of a roll that fails: the old workers are still those that serve."""
    with make_pool('--start-timeout=5s') as pool, load(pool):
        before = pool.workers()
        install_application('exec sleep 1000')
        since = lib.journal_cursor()
        lib.systemctl('--no-block', 'restart', pool.service)
        pool.wait_journal('starting, pid', since=since)
        os.kill(pool.main_pid, signal.SIGKILL)
        pool.wait_journal('Start failed', since=since)
        assert set(before) <= set(pool.workers())
        install_application()
        pool.restart(check=False)
        pool.wait_show('ActiveState', 'active', 20)
        expect_whole(pool, without=before)


# --- signals and timeouts before READY=1 ---

def expect_adopted(pool, since):
    """Two helpers have started since then, and the second has found all workers from before the first."""
    _, second = pool.wait_journal(since=since, count=2, timeout=20, MESSAGE_ID=MESSAGE['ADOPTED'])
    assert int(re.search(r'(\d+) workers adopted', second['MESSAGE']).group(1)) >= N_WORKERS


@pytest.mark.parametrize('signo', [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_before_ready(signo):
    """A helper that is told to end before it was ready leaves everything, and the next one takes over."""
    with make_pool() as pool, load(pool):
        before = pool.workers()
        install_application('exec sleep 1000')
        since = lib.journal_cursor()
        lib.systemctl('--no-block', 'restart', pool.service)
        pool.wait_journal('starting, pid', since=since)
        main_pid = pool.main_pid
        install_application()
        os.kill(main_pid, signo)
        expect_adopted(pool, since)
        pool.wait_show('ActiveState', 'active', 20)
        expect_whole(pool, without=before)


@pytest.mark.parametrize('mode', ['kill', 'terminate'])
def test_start_timeout_of_systemd(mode):
    """TimeoutStartSec= strikes a start that hangs: the old workers serve on, and a repaired one succeeds."""
    with make_pool('--start-timeout=5s', service=[f'TimeoutStartFailureMode={mode}', 'TimeoutStartSec=2s']) as pool, \
            load(pool):
        before = pool.workers()
        install_application('exec sleep 1000')
        since = lib.journal_cursor()
        lib.systemctl('--no-block', 'restart', pool.service)
        pool.wait_journal('starting, pid', since=since)
        os.kill(pool.main_pid, signal.SIGSTOP)  # the helper, not only its worker: it has asked for 15 s
        install_application()
        pool.wait_journal('start operation timed out', since=since, timeout=40)
        expect_adopted(pool, since)
        pool.wait_show('ActiveState', 'active', 20)
        expect_whole(pool, without=before)


def test_stop_during_roll():
    """A stop in the middle of a roll is a stop."""
    with make_pool() as pool:
        install_application('exec sleep 1000')
        os.kill(pool.main_pid, signal.SIGHUP)
        pool.wait_journal('starting, pid .*generation 2', since=pool.cursor)
        started = time.monotonic()
        lib.systemctl('stop', pool.socket, pool.service)
        assert not pool.processes()
        assert time.monotonic() - started < 10


# --- SIGHUP ---

def test_reload_by_signal():
    """SIGHUP replaces all workers, by the same helper."""
    with make_pool() as pool, load(pool):
        before, main_pid = pool.workers(), pool.main_pid
        os.kill(main_pid, signal.SIGHUP)
        pool.wait_journal(since=pool.cursor, MESSAGE_ID=MESSAGE['ROLLED'])
        expect_whole(pool, without=before)
        assert pool.main_pid == main_pid


@pytest.mark.parametrize('what', BROKEN)
def test_reload_by_signal_broken(what):
    """SIGHUP with a broken application changes nothing; repaired, the next one succeeds."""
    with make_pool('--start-timeout=3s') as pool, load(pool):
        before, main_pid = pool.workers(), pool.main_pid
        BROKEN[what][0]()
        os.kill(main_pid, signal.SIGHUP)
        pool.wait_journal('Roll failed', since=pool.cursor)
        pool.wait_workers(N_WORKERS)
        assert pool.workers() == before and pool.main_pid == main_pid
        assert 'Roll failed' in pool.wait_show('StatusText', lambda text: 'failed' in text)

        with contextlib.suppress(FileNotFoundError):
            GOOD.unlink()
        install_application()
        os.kill(main_pid, signal.SIGHUP)
        pool.wait_journal(since=pool.cursor, MESSAGE_ID=MESSAGE['ROLLED'])
        expect_whole(pool, without=before)


# --- the socket unit ---

@pytest.mark.parametrize('listen', ['unix', 'tcp'])
def test_socket_restart(listen):
    """`systemctl restart` of the socket binds, finishes what is in flight, and leaves no worker on the old listener."""
    socket = ['ListenStream=', f'ListenStream={TCP}'] if listen == 'tcp' else []
    with make_pool(socket=socket) as pool:
        if listen == 'tcp':
            pool.listen = [TCP]
        for _ in range(5):
            before = pool.workers()
            [old_inode] = {lib.fds(pid)[0] for pid in before}
            with lib.BackgroundLoad(pool, clients=2, requests=2, any_body=True, query='sleep=1500') as running:
                lib.wait_until(lambda: sum(len([t for n, t in lib.fds(pid).items() if n > 2 and 'socket:' in t])
                                           for pid in pool.workers()) == 2, what='two busy workers')
                lib.systemctl('restart', pool.socket)
                assert running.finish()['failed'] == 0
            pool.wait_show('ActiveState', 'active')
            expect_whole(pool, without=before)
            assert lib.show(pool.socket, 'ActiveState') == 'active'
            [inode] = {lib.fds(pid)[0] for pid in pool.workers()}
            assert inode != old_inode
            assert lib.load(pool, clients=4, requests=40, any_body=True)['failed'] == 0


def test_socket_restart_with_slow_bus():
    """A D-Bus that takes its time to answer does not leave workers in the way of the new TCP listener."""
    with make_pool(socket=['ListenStream=', f'ListenStream={TCP}']) as pool:
        before = pool.workers()
        bus = int(lib.show('dbus.service', 'MainPID'))
        os.kill(bus, signal.SIGSTOP)
        try:
            with subprocess.Popen(['systemctl', 'restart', pool.socket]) as restart:
                # systemctl needs no bus.
                lib.wait_until(lambda: lib.systemctl('is-active', pool.service, check=False).stdout == 'deactivating\n',
                               what='the service to stop')
                time.sleep(0.7)  # the time that it takes
                os.kill(bus, signal.SIGCONT)
                assert restart.wait(60) == 0
        finally:
            os.kill(bus, signal.SIGCONT)
        pool.wait_show('ActiveState', 'active')
        expect_whole(pool, without=before)


def test_socket_restart_without_bus():
    """With no D-Bus to ask, workers of the old UNIX listener are found out by the next helper, and replaced."""
    with make_pool(service=['InaccessiblePaths=/run/dbus']) as pool:
        before = pool.workers()
        lib.systemctl('restart', pool.socket)
        pool.wait_show('ActiveState', 'active')
        expect_whole(pool, without=before)
        assert lib.load(pool, clients=4, requests=40, any_body=True)['failed'] == 0
