# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""Listeners of every kind, alone and together, and the O_NONBLOCK that all workers of one share."""

import os
import pathlib
import re
import signal

import pytest

import lib
from test_bad_input import Companion
from test_supervision import IDS, echo, misbehave, wait_grown_up

UNIX, TCP4, TCP6 = '/run/listen.sock', '127.0.0.1:9151', '[::1]:9151'
KINDS = {'unix': UNIX, 'abstract': '@fcgi-pool-test-listen', 'tcp4': TCP4, 'tcp6': TCP6}
RUNTIMES = {'libfcgi': (echo, 'NonBlocking=no'), 'go': (lambda: [lib.tool('go-echo')], 'NonBlocking=yes'),
            'go on a blocking socket': (lambda: [lib.tool('go-echo')], 'NonBlocking=no')}


def is_nonblocking(pool, fd=3):
    """The flag of the listener, which helper and workers share; some workers have theirs no more as fd 0."""
    flags = re.search(r'^flags:\s*([0-7]+)$', pathlib.Path(f'/proc/{pool.main_pid}/fdinfo/{fd}').read_text(), re.MULTILINE).group(1)
    return bool(int(flags, 8) & os.O_NONBLOCK)


def warnings(pool, cursor=None):
    return [entry['MESSAGE'] for entry in pool.journal(cursor) if int(entry['PRIORITY']) <= 4]


# --- addresses ---

@pytest.mark.parametrize('kind', KINDS)
def test_kind(kind):
    """A pool serves TCP over IPv4 and IPv6, and UNIX sockets with and without a path."""
    with lib.Pool('listen', echo(), ['--workers=3'], listen=KINDS[kind]) as pool:
        address = 'unix:@fcgi-pool-test-listen' if kind == 'abstract' else KINDS[kind]
        result = lib.load(address, clients=6, requests=60, query='sleep=20')
        assert (result['ok'], result['failed']) == (60, 0), result
        assert {int(pid) for pid in result['pids']} == set(pool.workers())
        started, = pool.messages(MESSAGE_ID=IDS['MESSAGE_POOL_STARTED'])
        assert started == f'Pool listen is ready: 3 workers on {KINDS[kind]}'


@pytest.mark.parametrize('n', range(3, 8))
def test_slot_modulo(n):
    """With three listeners in one .socket unit, worker slot i serves listener i modulo 3, and each listener is served."""
    addresses = [UNIX, TCP4, TCP6]
    with lib.Pool('listen', echo(), [f'--workers={n}'], listen=addresses) as pool:
        slots = {pid: slot for slot, pid in pool.slots().items()}
        assert sorted(slots.values()) == list(range(n))
        remainders = []
        for address in addresses:
            # As many as there are workers at a time: each of those on this listener gets some.
            result = lib.load(address, clients=n, requests=20 * n, query='sleep=10')
            assert result['failed'] == 0, result
            seen = {slots[int(pid)] for pid in result['pids']}
            remainder = min(seen) % 3
            assert seen == set(range(remainder, n, 3))
            remainders.append(remainder)
        assert sorted(remainders) == [0, 1, 2]


def test_replacement_serves_the_same_listener():
    """A worker's replacement serves the listener of its slot."""
    with lib.Pool('listen', echo(), ['--workers=3'], listen=[UNIX, TCP4, TCP6]) as pool:
        before = pool.slots()
        wait_grown_up(before.values())
        listeners = {slot: lib.fds(pid)[0] for slot, pid in before.items()}
        assert len(set(listeners.values())) == 3
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        pool.wait_workers(3, without=before.values())
        pool.wait_show('StatusText', '3/3 workers ready')
        assert {slot: lib.fds(pid)[0] for slot, pid in pool.slots().items()} == listeners


# --- O_NONBLOCK ---

@pytest.mark.parametrize('runtime', RUNTIMES)
def test_restart_and_death(runtime):
    """A restart of the service and the death of a sibling harm no worker, and lose no request but the dead one's."""
    program, service = RUNTIMES[runtime]
    with lib.Pool('listen', program(), ['--workers=3'], service=service) as pool:
        wait_grown_up(pool.workers())
        cursor = lib.journal_cursor()
        victim, *others = pool.workers()
        with lib.BackgroundLoad(pool, clients=6, duration=100, query='sleep=20') as load:
            os.kill(victim, signal.SIGKILL)
            new, = set(pool.wait_workers(3, without=[victim])) - set(others)
            pool.wait_journal(since=cursor, WORKER_PID=new, WORKER_STATE='ready')
            result = load.stop()
        # A Go worker takes many requests at a time.
        assert result['failed'] <= (6 if 'go' in runtime else 1), result
        # The siblings are alive: nobody has left because of what the dead one or the new one did to the socket.
        assert set(others) < set(pool.workers())
        assert [entry['WORKER_PID'] for entry in pool.journal(cursor, WORKER_STATE='dead')] == [str(victim)]

        before = pool.workers()
        pool.restart()
        after = pool.wait_workers(3, without=before)
        assert is_nonblocking(pool) == ('go' in runtime)
        wait_grown_up(after)
        cursor = lib.journal_cursor()
        result = lib.load(pool, clients=6, requests=60, query='sleep=5')
        assert (result['ok'], result['failed']) == (60, 0), result
        assert pool.workers() == after
        assert pool.journal(cursor, WORKER_STATE='dead') == []


def test_blocking_is_left_alone():
    """A pool of libfcgi workers on the blocking socket of the unit has it blocking, with nothing in the journal."""
    with lib.Pool('listen', echo(), ['--workers=2']) as pool:
        assert not is_nonblocking(pool)
        assert lib.load(pool, clients=2, requests=20)['failed'] == 0
        assert warnings(pool) == []


def test_flipped():
    """A worker that sets O_NONBLOCK is noticed once, with one line that says which NonBlocking= the unit should have."""
    with lib.Pool('listen', misbehave('nonblock'), ['--workers=3']) as pool:
        wait_grown_up(pool.workers())
        line, = pool.journal(MESSAGE_ID=IDS['MESSAGE_LISTENER_FLIPPED'])
        assert 'NonBlocking=yes' in line['MESSAGE'] and UNIX in line['MESSAGE']
        assert (line['LISTENER'], line['FCGI_POOL'], line['PRIORITY']) == (UNIX, 'listen', '4')
        # Once, however often it happens.
        before = pool.workers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        pool.wait_workers(3, without=before)
        pool.wait_show('StatusText', '3/3 workers ready')
        assert lib.load(pool, clients=3, requests=30)['failed'] == 0
        assert len(pool.journal(MESSAGE_ID=IDS['MESSAGE_LISTENER_FLIPPED'])) == 1


def test_not_flipped():
    """With NonBlocking=yes the same worker is as it should be."""
    with lib.Pool('listen', misbehave('nonblock'), ['--workers=2'], service='NonBlocking=yes') as pool:
        assert is_nonblocking(pool)
        assert lib.load(pool, clients=2, requests=20)['failed'] == 0
        assert warnings(pool) == []


def test_cleared():
    """A worker that clears O_NONBLOCK is noticed as well: NonBlocking=no."""
    with lib.Pool('listen', misbehave('block'), ['--workers=2'], service='NonBlocking=yes') as pool:
        line, = pool.messages(MESSAGE_ID=IDS['MESSAGE_LISTENER_FLIPPED'])
        assert 'NonBlocking=no' in line
        assert lib.load(pool, clients=2, requests=20)['failed'] == 0


def test_each_listener_is_noticed():
    """Of several listeners each has its line."""
    with lib.Pool('listen', misbehave('nonblock'), ['--workers=4'], listen=[UNIX, TCP4]) as pool:
        lines = pool.journal(MESSAGE_ID=IDS['MESSAGE_LISTENER_FLIPPED'])
        assert sorted(entry['LISTENER'] for entry in lines) == [UNIX, TCP4]


@pytest.mark.parametrize('runtime', ['libfcgi', 'php'])
def test_wrong_mode_fails(runtime):
    """A blocking FastCGI library on a non-blocking socket exits with 0 at once; that is a failure, not a success."""
    program = echo() if runtime == 'libfcgi' else ['/usr/bin/php-cgi']
    with lib.Pool('listen', program, ['--workers=1'], service='NonBlocking=yes', start='socket') as pool:
        assert pool.start(check=False).returncode != 0
        assert pool.show('ExecMainStatus') == '69'
        assert pool.wait_journal('Start failed', PRIORITY=3)['MESSAGE'].count('exited with status 0') == 1


@pytest.mark.parametrize('unit, option, nonblocking', [('yes', 'blocking', False), ('no', 'nonblocking', True)])
def test_listener_option(unit, option, nonblocking):
    """--listener= wins over what NonBlocking= passed, at the start and at every replacement."""
    program = misbehave('poll') if nonblocking else echo()
    with lib.Pool('listen', program, ['--workers=2', f'--listener={option}'], service=f'NonBlocking={unit}') as pool:
        wait_grown_up(pool.workers())
        assert is_nonblocking(pool) == nonblocking
        victim = pool.workers()[0]
        os.kill(victim, signal.SIGKILL)
        pool.wait_workers(2, without=[victim])
        pool.wait_show('StatusText', '2/2 workers ready')
        assert is_nonblocking(pool) == nonblocking
        assert lib.load(pool, clients=2, requests=20)['failed'] == 0
        assert pool.journal(MESSAGE_ID=IDS['MESSAGE_LISTENER_FLIPPED']) == []


def test_mode_is_restored_before_a_spawn():
    """A flag that something has flipped is put right before the next worker starts: the new one does not die of it."""
    with lib.Pool('listen', echo(), ['--workers=2']) as pool:
        before = pool.slots()
        wait_grown_up(before.values())
        cursor = lib.journal_cursor()
        # What a stranger on the same socket would do; both workers sleep in accept(), which has seen the old flag.
        flip(pool.main_pid, True)
        os.kill(before[0], signal.SIGKILL)
        pool.wait_workers(2, without=[before[0]])
        pool.wait_show('StatusText', '2/2 workers ready')
        assert not is_nonblocking(pool)
        assert pool.slots()[1] == before[1]
        assert lib.load(pool, clients=2, requests=20)['failed'] == 0
        assert len(pool.journal(cursor, MESSAGE_ID=IDS['MESSAGE_LISTENER_FLIPPED'])) == 1
        assert [entry['WORKER_PID'] for entry in pool.journal(cursor, WORKER_STATE='dead')] == [str(before[0])]


def flip(pid, nonblocking):
    """O_NONBLOCK of a listener, by way of a process that has it as fd 3."""
    code = ('import ctypes, os, sys; pidfd = os.pidfd_open(int(sys.argv[1])); '
            'fd = ctypes.CDLL(None).syscall(438, pidfd, 3, 0); assert fd >= 0; os.set_blocking(fd, sys.argv[2] == "False")')
    lib.run(['python3', '-c', code, str(pid), str(nonblocking)])


# --- strangers ---

def stranger_is_closed(pool, cursor, name, pattern):
    line, = pool.journal(cursor, MESSAGE_ID=IDS['MESSAGE_STRANGER_CLOSED'])
    assert re.match(rf'descriptor "{name}": neither .*, closing it', line['MESSAGE'])
    assert line['PRIORITY'] == '5'
    for pid in [pool.main_pid, *pool.workers()]:
        assert not [target for target in lib.fds(pid).values() if re.search(pattern, target)]
    assert lib.load(pool, clients=2, requests=20)['failed'] == 0
    assert pool.status_text == '2/2 workers ready'


def test_fifo():
    """A FIFO from another socket unit is closed with one line; the pool serves."""
    with lib.Pool('listen', echo(), ['--workers=2'], start='socket') as pool, \
            Companion(pool, 'listen-fifo.socket', ['ListenFIFO=/run/listen.fifo', 'FileDescriptorName=tube', 'RemoveOnStop=yes']):
        cursor = lib.journal_cursor()
        pool.start()
        stranger_is_closed(pool, cursor, 'tube', r'listen\.fifo')
        pool.stop()


def test_open_file(systemd_version):
    """A file of OpenFile= is closed with one line; the pool serves."""
    if systemd_version < 253:
        pytest.skip('OpenFile= came with systemd 253')
    with lib.Pool('listen', echo(), ['--workers=2'], service='OpenFile=/etc/hostname-of-test:config:graceful',
                  start='socket') as pool:
        pool.write('/etc/hostname-of-test', 'text\n')
        cursor = lib.journal_cursor()
        pool.start()
        stranger_is_closed(pool, cursor, 'config', 'hostname-of-test')


# --- sd_listen_fds(3) ---

def test_socket_activation():
    """With --socket-activation a worker has the listener as fd 3, too, and LISTEN_* made out to its own pid."""
    with lib.Pool('listen', misbehave('fds'), ['--workers=2', '--socket-activation'], socket='FileDescriptorName=front') as pool:
        for pid in pool.workers():
            fds = lib.fds(pid)
            assert sorted(fds) == [0, 1, 2, 3]
            assert fds[3] == fds[0] == lib.fds(pool.main_pid)[3]
        text, _ = pool.request()
        environment = dict(re.findall(r'^env (LISTEN_\w+)=(.*)$', text, re.MULTILINE))
        pid, = re.findall(r'^pid=(\d+)$', text, re.MULTILINE)
        assert environment == {'LISTEN_PID': pid, 'LISTEN_FDS': '1', 'LISTEN_FDNAMES': 'front'}


def test_socket_activation_of_several_listeners():
    """With several listeners each worker gets its own, with its name, and never a second one."""
    with lib.Pool('listen', misbehave('fds'), ['--workers=4', '--socket-activation'], listen=[UNIX, TCP4]) as pool:
        seen = {}
        for slot, pid in pool.slots().items():
            fds = lib.fds(pid)
            assert sorted(fds) == [0, 1, 2, 3] and fds[0] == fds[3]
            seen.setdefault(slot % 2, set()).add(fds[0])
        assert [len(targets) for targets in seen.values()] == [1, 1] and seen[0] != seen[1]
        for address in pool.listen:
            text = lib.run([lib.tool('fcgi-load'), '--print', f'--connect={"unix:" if address[0] == "/" else ""}{address}']).stdout
            assert re.findall(r'^env (LISTEN_FDS|LISTEN_FDNAMES)=(.*)$', text, re.MULTILINE) == \
                [('LISTEN_FDS', '1'), ('LISTEN_FDNAMES', pool.socket)]
