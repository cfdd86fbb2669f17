# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""The ground that the other tests stand on: a booted systemd, a journal that loses nothing, truthful helpers."""

import os
import pathlib
import resource
import sys

import pytest

import lib

# In place of fcgi-pool: as many children as it is told, no FastCGI. Shows that Pool itself sees what there
# is.
STAND_IN = '''
import os, signal, socket, subprocess, sys
children = [subprocess.Popen(["sleep", "infinity"]) for _ in range(int(sys.argv[1]))]
print("the stand-in has started", flush=True)
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
def end(*_):
    for child in children:
        child.terminate()
        child.wait()
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
notify.sendto(f"READY=1\\nSTATUS={len(children)} children".encode(), os.environ["NOTIFY_SOCKET"])
while True:
    signal.pause()
'''


@pytest.fixture
def stand_in():
    script = pathlib.Path('/run/fcgi-pool-stand-in.py')
    script.write_text(STAND_IN)
    yield lambda name, n, **options: lib.Pool(name, None, exec_start=f'{sys.executable} {script} {n}', **options)
    script.unlink()


def test_booted(systemd_version):
    """PID 1 is a systemd that the product supports, and nothing failed while it booted."""
    assert systemd_version >= 252
    state = lib.systemctl('is-system-running', check=False).stdout.strip()
    assert state == 'running', lib.systemctl('--failed').stdout


def test_unified_cgroups():
    """cgroup v2 only, and this test is not in the cgroup of a unit."""
    assert (lib.CGROUP / 'cgroup.controllers').exists()
    assert '0::/fcgi-pool-tests' in pathlib.Path('/proc/self/cgroup').read_text().splitlines()


def test_loopback():
    """IPv4 and IPv6 on the loopback device, and no other network."""
    assert lib.run("ip -brief -oneline link").stdout.split()[0] == 'lo'
    addresses = lib.run('ip -brief address').stdout
    assert '127.0.0.1/8' in addresses and '::1/128' in addresses


def test_room_for_a_thousand_workers():
    """Limits of the container let a pool of 1,000 workers be tested."""
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 4096
    script = 'for (1..1100) { $pid = fork // die; $pid or sleep 60, exit; push @pids, $pid } print @pids + 0; kill 9, @pids'
    assert lib.run(['systemd-run', '--quiet', '--pipe', '--wait', '--property=LimitNOFILE=65536',
                    '--property=TasksMax=infinity', 'perl', '-e', script]).stdout.strip() == '1100'


def test_journal_follows(cursor):
    """wait_journal() sees what is logged after the cursor, with its fields, and nothing older."""
    message = 'MESSAGE=hello from a test\nFCGI_POOL=smoke\nWORKER_SLOT=3\n'
    lib.run(['logger', '--journald'], input=message)
    entry = lib.wait_journal('^hello', since=cursor, WORKER_SLOT='3')
    assert entry['FCGI_POOL'] == 'smoke'
    assert [e['MESSAGE'] for e in lib.journal(since_cursor=cursor, FCGI_POOL='smoke')] == ['hello from a test']
    with pytest.raises(AssertionError, match='0 of 1 within'):
        lib.wait_journal('^hello', since=lib.journal_cursor(), timeout=0.2)


def test_journal_loses_nothing(cursor):
    """Ten thousand lines in one go all arrive: no rate limit is on."""
    lib.run(['systemd-run', '--quiet', '--wait', '--unit=flood.service', 'seq', '10000'])
    assert sum(text.isdigit() for text in lib.messages('flood.service', cursor)) == 10000


@pytest.mark.parametrize('listen', ['/run/smoke.sock', '127.0.0.1:9123', ['[::1]:9123', '/run/smoke2.sock']])
def test_pool_tells_the_truth(stand_in, listen):
    """Pool starts the units, sees main process and workers, and leaves nothing behind."""
    with stand_in('smoke', 5, listen=listen, env={'GREETING': 'a "b" $c %d \\e'}) as pool:
        assert pool.active_state == 'active'
        assert pool.status_text == '5 children'
        workers = pool.wait_workers(5)
        assert {lib.parent(pid) for pid in workers} == {pool.main_pid}
        assert lib.environment(workers[0])['GREETING'] == 'a "b" $c %d \\e'
        assert pool.wait_journal('the stand-in has started')['_PID'] == str(pool.main_pid)
        assert lib.show(pool.socket, 'SubState') == 'running'
    for path in (f'/proc/{workers[0]}', '/run/smoke.sock', '/run/systemd/system/smoke.service'):
        assert not os.path.exists(path)
    assert lib.show('smoke.service', 'LoadState') == 'not-found'


def test_pool_finds_leftovers(stand_in):
    """A unit that leaves processes behind makes the with block fail."""
    with pytest.raises(AssertionError, match='left after its stop'):
        with stand_in('smoke', 1, service=['KillMode=process', 'ExecStop=/bin/kill -KILL $MAINPID']) as pool:
            pool.wait_workers(1)


def test_failed_start_says_why():
    """A service that does not start raises with systemctl's words, and is cleaned up."""
    with pytest.raises(AssertionError, match='smoke.service'):
        with lib.Pool('smoke', None, exec_start='/bin/false'):
            pass
    assert lib.show('smoke.service', 'LoadState') == 'not-found'


def test_sandbox_works():
    """The container lets systemd sandbox a unit as the template asks for; else security tests would prove nothing."""
    properties = ['DynamicUser=yes', 'ProtectSystem=strict', 'ProtectProc=invisible', 'ProcSubset=pid',
                  'PrivateTmp=yes', 'PrivateDevices=yes', 'ProtectKernelTunables=yes', 'ProtectControlGroups=yes', 'NoNewPrivileges=yes',
                  'CapabilityBoundingSet=', 'SystemCallFilter=@system-service', 'RestrictNamespaces=yes']
    status = lib.run(['systemd-run', '--quiet', '--pipe', '--wait', *(f'--property={item}' for item in properties),
                      'cat', '/proc/self/status']).stdout
    assert 'Seccomp:\t2' in status and 'CapBnd:\t0000000000000000' in status and 'NoNewPrivs:\t1' in status
