# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""What a worker finds around it: descriptors, signals, privileges, environment. What the unit says, and nothing more."""

import os
import re

import pytest

import lib
from test_supervision import misbehave

CAPABILITY_SETS = ('CapInh', 'CapPrm', 'CapEff', 'CapAmb')
NET_BIND_SERVICE = f'{1 << 10:016x}'
NONE = '0' * 16


class Surroundings:
    """The answer of `misbehave fds`, taken apart."""

    def __init__(self, pool):
        self.text, _ = pool.request()
        self.pid = int(re.search(r'^pid=(\d+)$', self.text, re.MULTILINE).group(1))
        self.fds = {int(fd): rest for fd, rest in re.findall(r'^fd (\d+) (.*)$', self.text, re.MULTILINE)}
        self.status = dict(re.findall(r'^(\w+):\t(.*)$', self.text, re.MULTILINE))
        self.environment = dict(line.split('=', 1) for line in re.findall(r'^env (.*)$', self.text, re.MULTILINE))


def fds_pool(*options, **others):
    return lib.Pool('env', misbehave('fds'), ['--workers=2', *options], **others)


def capabilities(pid):
    return {name: lib.proc_status(pid, name) for name in CAPABILITY_SETS}


# --- descriptors and signals ---

def test_descriptors():
    """A worker has the listener as fd 0 and its journal stream as fd 1 and 2; besides a connection it has no other."""
    with fds_pool() as pool:
        for pid in pool.workers():
            fds = lib.fds(pid)
            assert sorted(fds) == [0, 1, 2]
            assert fds[0] == lib.fds(pool.main_pid)[3]
            assert fds[1] == fds[2] and fds[1].startswith('socket:')
            # A stream of its slot, not that of the helper.
            assert fds[1] not in [lib.fds(pool.main_pid)[fd] for fd in (1, 2)]
        one, other = (lib.fds(pid)[1] for pid in pool.workers())
        assert one != other
        inside = Surroundings(pool).fds
        assert [fd for fd, rest in inside.items() if ' connection' not in rest] == [0, 1, 2]
        assert len(inside) == 4


def test_descriptors_of_a_replacement():
    """Later workers have no more than the first ones: nothing that the helper has opened meanwhile reaches them."""
    with fds_pool() as pool:
        for _ in range(3):
            victim, since = pool.workers()[0], lib.journal_cursor()
            os.kill(victim, 9)
            pool.wait_workers(2, without=[victim])
            pool.wait_journal(since=since, WORKER_STATE='ready')
        assert [sorted(lib.fds(pid)) for pid in pool.workers()] == [[0, 1, 2]] * 2


def test_descriptors_from_the_unit():
    """What else the unit passes to the helper, such as a terminal or a file as standard input, does not reach workers."""
    with fds_pool(service=['StandardInput=file:/etc/passwd', 'FileDescriptorStoreMax=5']) as pool:
        fds = lib.fds(pool.workers()[0])
        assert sorted(fds) == [0, 1, 2] and '/etc/passwd' not in fds.values()


def test_signals():
    """No signal is blocked, pending or ignored in a worker, even if the unit starts the helper like that."""
    with fds_pool(service='IgnoreSIGPIPE=yes') as pool:
        # Something to be reset: systemd ignores SIGPIPE for the helper, which blocks signals of its own.
        assert int(lib.proc_status(pool.main_pid, 'SigIgn'), 16) & 1 << 12
        assert int(lib.proc_status(pool.main_pid, 'SigBlk'), 16) != 0
        status = Surroundings(pool).status
        assert {name: status[name] for name in ('SigPnd', 'SigBlk', 'SigIgn', 'SigCgt')} == \
            {'SigPnd': NONE, 'SigBlk': NONE, 'SigIgn': NONE, 'SigCgt': NONE}


# --- privileges ---

def test_no_privileges():
    """Neither helper nor worker has a capability or a way to get one, without a word about that in the unit."""
    with fds_pool() as pool:
        for pid in (pool.main_pid, *pool.workers()):
            assert capabilities(pid) == dict.fromkeys(CAPABILITY_SETS, NONE)
            assert lib.proc_status(pid, 'NoNewPrivs') == '1'
            assert '0' not in lib.proc_status(pid, 'Uid').split()


def test_what_the_unit_gives_is_dropped():
    """Capabilities that the unit gives and no option asks for are dropped."""
    with fds_pool(service='AmbientCapabilities=CAP_NET_BIND_SERVICE CAP_SYS_NICE') as pool:
        for pid in (pool.main_pid, *pool.workers()):
            assert capabilities(pid) == dict.fromkeys(CAPABILITY_SETS, NONE)


def test_worker_capabilities():
    """--worker-capabilities= gives workers exactly these; the helper has none that is effective."""
    with fds_pool('--worker-capabilities=CAP_NET_BIND_SERVICE', service='AmbientCapabilities=CAP_NET_BIND_SERVICE CAP_SYS_NICE') as pool:
        for pid in pool.workers():
            assert capabilities(pid) == dict.fromkeys(CAPABILITY_SETS, NET_BIND_SERVICE)
            assert lib.proc_status(pid, 'NoNewPrivs') == '1'
        helper = capabilities(pool.main_pid)
        assert (helper['CapEff'], helper['CapAmb'], helper['CapPrm']) == (NONE, NONE, NET_BIND_SERVICE)


def test_worker_can_use_its_capability():
    """The capability works: a worker binds a port that is reserved."""
    command = ['/usr/bin/python3', '-c', 'import os, socket; socket.create_server(("127.0.0.1", 81)); print("bound", flush=True); '
               f'os.execv({misbehave("serve")[0]!r}, ["misbehave", "serve"])']
    with lib.Pool('env', command, ['--workers=1', '--worker-capabilities=net_bind_service'],
                  service='AmbientCapabilities=CAP_NET_BIND_SERVICE') as pool:
        pool.wait_journal('^bound$')


def test_allow_root():
    """--allow-root runs workers as root, without a capability and without a way to get one."""
    with fds_pool('--allow-root', user='root') as pool:
        for pid in (pool.main_pid, *pool.workers()):
            assert lib.proc_status(pid, 'Uid').split() == ['0'] * 4
            assert capabilities(pid) == dict.fromkeys(CAPABILITY_SETS, NONE)
            assert lib.proc_status(pid, 'CapBnd') == NONE
            assert lib.proc_status(pid, 'NoNewPrivs') == '1'
        assert lib.load(pool, '--any-body', clients=2, requests=20)['failed'] == 0


def test_allow_root_with_capability():
    """Root workers get the capabilities that the option names, and no others."""
    with fds_pool('--allow-root', '--worker-capabilities=CAP_NET_BIND_SERVICE', user='root') as pool:
        for pid in pool.workers():
            assert capabilities(pid) == dict.fromkeys(CAPABILITY_SETS, NET_BIND_SERVICE)
            assert lib.proc_status(pid, 'CapBnd') == NET_BIND_SERVICE
        assert lib.proc_status(pool.main_pid, 'CapEff') == NONE


# --- environment ---

OWN = {'GREETING': 'good day, "world" $HOME %n', 'EMPTY': '', 'LISTEN_ADDR': ':8080', 'NOTIFY_SOCKET_OF_MINE': 'x', 'FCGI_POOL_OF_MINE': 'y',
       'WATCHDOG_OF_MINE': 'z'}
WITHHELD = ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES', 'LISTEN_PIDFDID', 'WATCHDOG_USEC', 'WATCHDOG_PID', 'FDSTORE',
            'FCGI_POOL_OPTIONS', 'FCGI_POOL_COMMAND', 'SYSTEMD_EXEC_PID', 'MAINPID']


@pytest.mark.parametrize('ready', ['auto', 'exec', 'notify', '100ms'])
def test_environment(ready):
    """A worker has the environment of the unit, without what is the helper's business, and with its place in the pool."""
    mode = ('notify', 0) if ready == 'notify' else ('fds',)
    env = {**OWN, 'FDSTORE': '5', 'FCGI_POOL_OPTIONS': '--none', 'FCGI_POOL_COMMAND': 'none', 'FCGI_POOL_SLOT': '77',
           'FCGI_POOL_NAME': 'other', 'FCGI_POOL_GENERATION': '77', 'MAINPID': '1'}
    with lib.Pool('env', misbehave(*mode), ['--workers=3', f'--ready={ready}', '--name=shop'], env=env, service='WatchdogSec=30') as pool:
        helper = lib.environment(pool.main_pid)
        # There is something to withhold.
        assert {'LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES', 'WATCHDOG_USEC', 'WATCHDOG_PID', 'NOTIFY_SOCKET', 'SYSTEMD_EXEC_PID',
                'FDSTORE', 'INVOCATION_ID', 'JOURNAL_STREAM'} <= set(helper)
        slots = pool.slots()
        assert sorted(slots) == [0, 1, 2]
        for slot, pid in slots.items():
            worker = lib.environment(pid)
            expected = {name: value for name, value in helper.items() if name not in WITHHELD}
            expected |= {'FCGI_POOL_NAME': 'shop', 'FCGI_POOL_SLOT': str(slot), 'FCGI_POOL_GENERATION': '1'}
            del expected['NOTIFY_SOCKET']
            if ready in ('auto', 'notify'):
                expected['NOTIFY_SOCKET'] = '/run/env/notify'
            output = os.stat(f'/proc/{pid}/fd/2')
            expected['JOURNAL_STREAM'] = f'{output.st_dev}:{output.st_ino}'
            assert worker == expected
            assert {name: worker[name] for name in OWN} == OWN


def test_name_of_the_unit():
    """Without --name= the pool has the name of its unit; an instance of the template, too."""
    with lib.Pool('env-of.unit', misbehave('fds'), ['--workers=1']) as pool:
        assert Surroundings(pool).environment['FCGI_POOL_NAME'] == 'env-of.unit'


def test_generation_and_slot_of_a_replacement():
    """A replacement has the slot and the generation of the worker it replaces."""
    with fds_pool() as pool:
        victim = pool.slots()[1]
        os.kill(victim, 9)
        pool.wait_workers(2, without=[victim])
        environment = lib.environment(pool.slots()[1])
        assert (environment['FCGI_POOL_SLOT'], environment['FCGI_POOL_GENERATION']) == ('1', '1')
