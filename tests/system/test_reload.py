# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""systemctl reload: new code for every worker without a lost request, and a verdict."""

import contextlib
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import stat
import threading
import time

import pytest

import lib
from survival import MESSAGE

N_WORKERS = 6
N_CLIENTS = 4  # so few that each worker is idle now and then: when all are busy, it takes luck to end one in time
ROOT = pathlib.Path('/run/fcgi-pool-test-reload')
PROBE = '/echo'


class Application:
    """An application that is deployed by replacing a symbolic link: versions/NAME/app, and current, the one that counts.

    A version is the shell script that starts it.
    """

    def __init__(self):
        self.n = 0
        self.command = [str(ROOT / 'current' / 'app')]

    def __enter__(self):
        ROOT.mkdir(mode=0o755)
        self.deploy_good()
        return self

    def __exit__(self, *_):
        shutil.rmtree(ROOT)

    def deploy(self, script, files=()):
        """Atomically, as a careful administrator does it."""
        self.n += 1
        directory = ROOT / f'version-{self.n}'
        directory.mkdir(mode=0o755)
        if script is not None:
            app = directory / 'app'
            app.write_text(f'#!/bin/sh\nexport VERSION={self.n}\n{script}\n')
            app.chmod(0o755)
        for name, text in dict(files).items():
            (directory / name).write_text(text)
        link = ROOT / 'next'
        link.symlink_to(directory)
        os.rename(link, ROOT / 'current')

    def deploy_good(self):
        self.deploy(f'exec {lib.tool("fcgi-echo")}')
        return self.n


MISBEHAVE = lib.tool('misbehave')
# What is deployed, and what the reason must say.
BAD = {
    'missing': (None, 'could not execute: No such file'),
    'exits at once': ('exit 3', 'exited with status 3'),
    'exits after a while': ('sleep 1; exit 4', 'exited with status 4'),
    'never ready': (f'exec {MISBEHAVE} never-ready', '--start-timeout=3s'),
    'probe: 500': (f'exec {MISBEHAVE} wrong status', 
                   f'--probe={PROBE} was answered with status 500, expected one below 400: no database: ?'),
    'probe: overloaded': (f'exec {MISBEHAVE} wrong end', f'--probe={PROBE} was refused with FCGI_OVERLOADED'),
    'probe: cut short': (f'exec {MISBEHAVE} wrong eof', f'--probe={PROBE}: connection closed'),
    'probe: exits': ('exit 3', 'the worker on trial exited with status 3'),
    'probe: hangs': (f'exec {MISBEHAVE} wrong nothing', f'--probe={PROBE} was not answered within --start-timeout=3s'),
}


@pytest.fixture
def application():
    with Application() as application:
        yield application


def make_pool(application, *options, **others):
    return lib.Pool('reload', application.command, [f'--workers={N_WORKERS}', *options], **others)


def poolctl(*arguments, check=True):
    return lib.run(['fcgi-poolctl', *map(str, arguments)], check=check)


def versions(pool):
    """Which version each worker runs, of all workers there are."""
    return {int(lib.environment(pid)['VERSION']) for pid in pool.workers()}


def verdict(pool, since):
    return pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['REPLACED'])


@pytest.mark.parametrize('listen', ['/run/reload.sock', '127.0.0.1:9123'])
def test_good(application, listen):
    """A reload replaces all workers, loses nothing, and all are new when it returns; one journal line proves it."""
    with make_pool(application, listen=listen) as pool, lib.BackgroundLoad(pool, clients=4, duration=300) as load:
        for _ in range(5):
            since, old = lib.journal_cursor(), pool.workers()
            version = application.deploy_good()
            pool.reload()
            assert versions(pool) == {version} and not set(pool.workers()) & set(old)
            entry = verdict(pool, since)
            assert (entry['N_REPLACED'], entry['N_KILLED']) == (str(N_WORKERS), '0')
            assert pool.main_pid == int(entry['_PID'])
        result = load.stop()
    assert result['ok'] > 0 and result['failed'] == 0, result


@pytest.mark.parametrize('kind', BAD)
def test_bad(application, kind):
    """A version that is no good is refused with the reason and status 1, and the old workers serve on."""
    script, reason = BAD[kind]
    options = [f'--probe={PROBE}'] if kind.startswith('probe') else []
    with make_pool(application, '--start-timeout=3s', *options) as pool, \
            lib.BackgroundLoad(pool, clients=N_CLIENTS, duration=300, query=lib.BUSY) as load:
        old, n_processes = pool.workers(), len(pool.processes())
        application.deploy(script)
        result = poolctl('reload', pool.service, check=False)
        assert result.returncode == 1 and reason in result.stderr and len(result.stderr.splitlines()) == 1, result
        lib.wait_until(lambda: len(pool.processes()) == n_processes, what='the worker on trial to have gone')
        assert pool.wait_workers(N_WORKERS) == old
        poolctl('status', pool.service)
        pool.wait_show('StatusText', lambda text: 'Roll failed' in text and reason in text)
        application.deploy_good()
        pool.reload()
        result = load.stop()
    assert result['ok'] > 0 and result['failed'] == 0, result


def test_late_failure(application):
    """With --surge=100% a reload that fails late is undone: the old workers take all their slots back."""
    with make_pool(application, '--surge=100%', '--start-timeout=2s') as pool, \
            lib.BackgroundLoad(pool, clients=N_CLIENTS, duration=300, query=lib.BUSY) as load:
        old = pool.slots()
        # The last slot never becomes ready; the others do.
        application.deploy(f'[ "$FCGI_POOL_SLOT" = {N_WORKERS - 1} ] && exec {MISBEHAVE} never-ready\n'
                           f'exec {lib.tool("fcgi-echo")}')
        result = poolctl('reload', pool.service, check=False)
        assert result.returncode == 1 and '--start-timeout=2s' in result.stderr
        pool.wait_show('StatusText', lambda text: f'{N_WORKERS}/{N_WORKERS} workers ready' in text)
        lib.wait_until(lambda: pool.workers() == sorted(old.values()), what='the old workers, and nobody else')
        assert pool.slots() == old
        result = load.stop()
    assert result['ok'] > 0 and result['failed'] == 0, result


def test_crash_of_a_successor(application):
    """A new worker that crashes when it has become ready fails the reload at once."""
    with make_pool(application, '--ready=3s') as pool:
        since, old = lib.journal_cursor(), pool.slots()
        application.deploy_good()
        with lib.Background(['fcgi-poolctl', 'reload', pool.service]) as reload:
            entry = pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['WORKER_STATE'], WORKER_STATE='ready')
            os.kill(int(entry['WORKER_PID']), signal.SIGSEGV)
            _, errors = reload.finish()
        assert reload.returncode == 1 and 'was killed by SIGSEGV' in errors, errors
        # It was ready, so that its predecessor may have gone.
        slot = int(entry['WORKER_SLOT'])
        pool.wait_show('StatusText', lambda text: text.startswith(f'{N_WORKERS}/{N_WORKERS} workers ready'))
        lib.wait_until(lambda: {i: pid for i, pid in pool.slots().items() if i != slot} ==
                       {i: pid for i, pid in old.items() if i != slot}, what='the others to be the old ones')


def test_bad_by_systemctl(application):
    """systemctl reload exits with status 1, the reason is in the unit's journal, and the unit stays active."""
    with make_pool(application) as pool:
        old, since = pool.workers(), lib.journal_cursor()
        application.deploy(BAD['exits at once'][0])
        assert pool.reload(check=False).returncode == 1
        lib.wait_journal(BAD['exits at once'][1], since=since, SYSLOG_IDENTIFIER='fcgi-poolctl')
        assert pool.workers() == old and pool.active_state == 'active'


def test_probe_is_not_served_to_clients(application):
    """The worker on trial is on a socket of its own: a version that answers wrongly is never seen by a client."""
    with make_pool(application, f'--probe={PROBE}') as pool, \
            lib.BackgroundLoad(pool, clients=N_CLIENTS, duration=300, query=lib.BUSY) as load:
        application.deploy(f'exec {MISBEHAVE} wrong status')
        for _ in range(5):
            assert poolctl('reload', pool.service, check=False).returncode == 1
        version = application.deploy_good()
        pool.reload()
        assert versions(pool) == {version}
        result = load.stop()
    assert result['ok'] > 0 and result['failed'] == 0, result


def test_restart_with_a_probe(application):
    """The probe holds for a restart as well: it fails, the old workers serve on, and a good version gets through."""
    with make_pool(application, f'--probe={PROBE}', restart='always', service='RestartSec=1') as pool, \
            lib.BackgroundLoad(pool, clients=N_CLIENTS, duration=300, query=lib.BUSY) as load:
        old = pool.workers()
        application.deploy(f'exec {MISBEHAVE} wrong status')
        since = lib.journal_cursor()
        assert pool.restart(check=False).returncode != 0
        pool.wait_journal('answered with status 500', since=since, MESSAGE_ID=MESSAGE['START_FAILED'])
        assert set(old) <= set(pool.workers())
        # However often it is tried, nobody is left behind.
        lib.wait_until(lambda: int(pool.show('NRestarts')) >= 4, what='more attempts')
        assert len(pool.processes()) <= N_WORKERS + 4, pool.processes()
        version = application.deploy_good()
        pool.wait_show('ActiveState', 'active', 30)
        pool.wait_workers(N_WORKERS, without=old, timeout=30)
        assert versions(pool) == {version}
        result = load.stop()
    assert result['ok'] > 0 and result['failed'] == 0, result


# A version says which it is in two files, both read when a worker begins, and leaves a mark when it has been on trial.
VERSIONED = '''
exec perl -e '
        use FCGI;
        my %p;
        my $request = FCGI::Request(\\*STDIN, \\*STDOUT, \\*STDERR, \\%p);
        open my $f, "<", "ROOT/current/version" or die;
        my $version = <$f>;
        while ($request->Accept() >= 0) {
                if ($p{SCRIPT_NAME} eq "/trial") { open my $mark, ">", "MARKS/$ENV{VERSION}" or die }
                print "Content-Type: text/plain\\r\\n\\r\\n$$ $ENV{VERSION} $version";
        }'
'''


class Visitors:
    """Some that ask again and again, and keep who answered: (begin, end, pid, version, version)."""

    def __init__(self, pool, n):
        self.pool, self.answers, self.problems, self.over = pool, [], [], threading.Event()
        self.threads = [threading.Thread(target=self.visit) for _ in range(n)]

    def visit(self):
        try:
            while not self.over.is_set():
                begin = time.time()
                body = self.pool.request(any_body=True)[0].rsplit('\n', 1)[-1]
                self.answers.append((begin, time.time(), *map(int, body.split())))
        except Exception as error:  # a thread of its own cannot fail the test
            self.problems.append(error)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()


def test_no_mixture(application):
    """No worker mixes versions, nobody sees a version before it has passed its trial, or the old one after the verdict."""
    marks, deployed, verdicts = ROOT / 'marks', [], {}
    marks.mkdir(mode=0o777)
    marks.chmod(0o777)

    def deploy():
        application.deploy(VERSIONED.replace('ROOT', str(ROOT)).replace('MARKS', str(marks)), {'version': str(application.n + 1)})
        deployed.append(application.n)

    deploy()
    with make_pool(application, '--probe=/trial') as pool, Visitors(pool, 4) as visitors:
        for _ in range(5):
            deploy()
            pool.reload()
            verdicts[application.n] = time.time()
            n_answers = len(visitors.answers)
            lib.wait_until(lambda: len(visitors.answers) > n_answers + 20 or visitors.problems, what='20 answers more')
    assert not visitors.problems
    assert all(first == second for _, _, _, first, second in visitors.answers)
    assert len({(pid, version) for _, _, pid, version, _ in visitors.answers}) == \
        len({pid for _, _, pid, *_ in visitors.answers})
    assert {version for *_, version in visitors.answers} == set(deployed)
    for version, verdict_time in verdicts.items():
        trial = (marks / str(version)).stat().st_mtime
        assert all(trial <= end for _, end, _, answered, _ in visitors.answers if answered == version)
        assert all(answered >= version for begin, _, _, answered, _ in visitors.answers if begin > verdict_time)


def test_long_request(application):
    """A request of ten seconds survives a reload, and nobody else waits for it."""
    with make_pool(application) as pool, lib.BackgroundLoad(pool, clients=1, query='sleep=10000') as slow:
        lib.wait_until(lambda: sum(row['requests'] for row in rows(pool)), what='the request to be accepted')
        with lib.BackgroundLoad(pool, clients=N_CLIENTS, duration=300, query=lib.BUSY) as load:
            pool.reload()
            result = load.stop()
        assert result['failed'] == 0 and result['latency_usec']['max'] < 2_000_000, result
        assert slow.finish()['ok'] == 1


def test_once_at_a_time(application):
    """A second reload is refused with a reason while one goes on, and the first is not disturbed."""
    with make_pool(application, '--ready=3s', '--surge=100%') as pool:
        since = lib.journal_cursor()
        application.deploy_good()
        pool.systemctl('reload', '--no-block')
        pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['ROLLING'])
        result = poolctl('reload', pool.service, check=False)
        assert result.returncode != 0 and 'being replaced already' in result.stderr
        verdict_entry = pool.wait_journal(since=since, timeout=60, MESSAGE_ID=MESSAGE['REPLACED'])
        assert verdict_entry['N_REPLACED'] == str(N_WORKERS)


@pytest.mark.parametrize('event', ['SIGKILL', 'reexec'])
def test_helper_goes_meanwhile(application, event):
    """A reload goes on over a crash of the helper and over its execution in place, and its caller hears the verdict."""
    with make_pool(application, '--ready=300ms', restart='always', service='RestartSec=0') as pool, \
            lib.BackgroundLoad(pool, clients=N_CLIENTS, duration=300, query=lib.BUSY) as load:
        since, main_pid = lib.journal_cursor(), pool.main_pid
        version = application.deploy_good()
        with lib.Background(['fcgi-poolctl', 'reload', pool.service]) as reload:
            pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['WORKER_STATE'], GENERATION='2')
            if event == 'SIGKILL':
                os.kill(main_pid, signal.SIGKILL)
            else:
                os.kill(main_pid, signal.SIGUSR2)
            output, errors = reload.finish()
        assert reload.returncode == 0, errors
        assert 'generation 2' in output
        assert versions(pool) == {version}
        result = load.stop()
    assert result['ok'] > 0 and result['failed'] == 0, result


def test_hang_meanwhile(application):
    """That a reload takes its time does not keep the watchdog from a helper that hangs."""
    with make_pool(application, restart='always', service=['RestartSec=0', 'WatchdogSec=6s']) as pool, \
            lib.BackgroundLoad(pool, clients=1, query='sleep=10000') as slow:
        lib.wait_until(lambda: sum(row['requests'] for row in rows(pool)), what='the request to be accepted')
        since, main_pid = lib.journal_cursor(), pool.main_pid
        with lib.Background(['fcgi-poolctl', 'reload', pool.service]) as reload:
            pool.wait_show('StatusText', lambda text: '1 retiring' in text)
            os.kill(main_pid, signal.SIGSTOP)
            pool.wait_journal("Failed with result 'watchdog'", since=since, timeout=15)
            _, errors = reload.finish()
        assert reload.returncode == 0, errors
        assert slow.finish()['ok'] == 1


def test_stop_wins(application):
    """A stop in the middle of a reload is a stop, and the caller of the reload hears of it."""
    with make_pool(application, '--ready=2s') as pool, \
            lib.Background(['fcgi-poolctl', 'reload', pool.service]) as reload:
        pool.wait_journal(since=pool.cursor, MESSAGE_ID=MESSAGE['ROLLING'])
        pool.stop()
        _, errors = reload.finish()
        assert reload.returncode != 0 and errors
        assert pool.show('Result') == 'success' and not pool.processes()


# --- the other verbs ---

def rows(pool):
    pools = json.loads(poolctl('--json=short', 'status', pool.service).stdout)
    return pools[0]['workers']


def test_status(application):
    """The table says who is there and what they do; JSON says the same."""
    with make_pool(application) as pool, lib.BackgroundLoad(pool, clients=2, duration=300, query='sleep=3000'):
        lib.wait_until(lambda: sum(row['requests'] for row in rows(pool)) == 2, what='two requests to be accepted')
        text = poolctl('status', pool.service).stdout.splitlines()
        assert text[0].startswith('reload: 6/6 workers ready') and text[1].split()[:4] == ['SLOT', 'PID', 'GEN', 'STATE']
        assert len(text) == 2 + N_WORKERS and '\033' not in ''.join(text)
        table = rows(pool)
        assert [row['slot'] for row in table] == list(range(N_WORKERS))
        assert sorted(row['pid'] for row in table) == pool.workers()
        assert {row['state'] for row in table} == {'ready'} and sum(row['requests'] for row in table) == 2
        assert all(row['memory'] > 100_000 and row['generation'] == 1 for row in table)
        os.kill(table[0]['pid'], signal.SIGKILL)
        lib.wait_until(lambda: rows(pool)[0]['restarts'] == 1, what='another worker')
        assert rows(pool)[0]['last_death'] == 'was killed by SIGKILL'
        assert poolctl('--no-legend', 'status', pool.service).stdout.splitlines()[0].split()[0] == '0'


def test_metrics(application):
    """OpenMetrics: each sample stands behind its family, and numbers tell what status tells."""
    with make_pool(application) as pool, lib.BackgroundLoad(pool, clients=2, duration=300, query='sleep=3000'):
        lib.wait_until(lambda: sum(row['requests'] for row in rows(pool)) == 2, what='two requests to be accepted')
        lines = poolctl('metrics', pool.service).stdout.splitlines()
        families = [line.split()[2] for line in lines if line.startswith('# TYPE')]
        assert len(set(families)) == len(families) and lines[-1] == '# EOF'
        samples, family = {}, None
        for line in lines[:-1]:
            if line.startswith('#'):
                family = line.split()[2]
                continue
            match = re.fullmatch(r'(\w+)\{(pool="reload"[^}]*)\} ([0-9.]+)', line)
            assert match and match[1] == family, line
            samples[match[1], match[2]] = float(match[3])
        assert samples['fcgi_pool_workers', 'pool="reload",state="ready"'] == N_WORKERS
        assert samples['fcgi_pool_workers_busy', 'pool="reload"'] == 2
        assert samples['fcgi_pool_generation', 'pool="reload"'] == 1
        assert 0 < samples['fcgi_pool_oldest_request_seconds', 'pool="reload"'] < 60
        assert samples['fcgi_pool_memory_bytes', 'pool="reload"'] > N_WORKERS * 100_000
        assert sum(name == 'fcgi_pool_restarts' for name, _ in samples) == N_WORKERS
        assert poolctl('metrics').stdout.splitlines()[-1] == '# EOF'


def test_list(application):
    """All pools that run, by name."""
    with make_pool(application) as pool:
        assert [line.split()[:3] for line in poolctl('list').stdout.splitlines()] == \
            [['POOL', 'UNIT', 'PHASE'], ['reload', pool.service, 'serving']]


def test_set_workers(application):
    """Another number of workers touches none of those that stay; it outlives the helper, not a restart."""
    with make_pool(application, restart='always', service='RestartSec=0') as pool:
        old = pool.slots()
        poolctl('set-workers', pool.service, 8)
        pool.wait_workers(8)
        assert {slot: pid for slot, pid in pool.slots().items() if slot < N_WORKERS} == old
        poolctl('set-workers', pool.service, 3)
        pool.wait_workers(3)
        assert pool.slots() == {slot: pid for slot, pid in old.items() if slot < 3}
        os.kill(pool.main_pid, signal.SIGKILL)
        pool.wait_show('NRestarts', '1')
        pool.wait_show('StatusText', lambda text: text.startswith('3/3'))
        assert pool.slots() == {slot: pid for slot, pid in old.items() if slot < 3}
        for bad in ('0', 'x', '-1'):
            assert poolctl('set-workers', pool.service, bad, check=False).returncode == 2
        result = poolctl('set-workers', pool.service, 30000, check=False)
        assert result.returncode != 0 and 'expected a number from 1 to 16384' in result.stderr
        pool.restart()
        pool.wait_workers(N_WORKERS)


def test_recycle(application):
    """One worker is replaced, or all are, one after the other, and no request is lost."""
    with make_pool(application) as pool, lib.BackgroundLoad(pool, clients=N_CLIENTS, duration=300, query=lib.BUSY) as load:
        old = pool.slots()
        poolctl('recycle', pool.service, 2)
        lib.wait_until(lambda: pool.slots().get(2) not in (None, old[2]) and len(pool.slots()) == N_WORKERS,
                       what='slot 2 to be replaced')
        assert {slot for slot, pid in pool.slots().items() if old[slot] != pid} == {2}
        poolctl('recycle', pool.service, 'all')
        pool.wait_workers(N_WORKERS, without=old.values(), timeout=60)
        assert poolctl('recycle', pool.service, '77', check=False).returncode != 0
        assert poolctl('recycle', pool.service, 'some', check=False).returncode == 2
        result = load.stop()
    assert result['ok'] > 0 and result['failed'] == 0, result


def test_hold(application):
    """Held, the pool ends its workers and clients wait; a crash does not change that; resumed, they are served."""
    with make_pool(application, restart='always', service='RestartSec=0') as pool:
        poolctl('hold', pool.service)
        pool.wait_workers(0)
        pool.wait_show('StatusText', lambda text: 'held' in text)
        with lib.BackgroundLoad(pool, clients=4, requests=4) as load:
            assert 'held' in poolctl('reload', pool.service, check=False).stderr
            os.kill(pool.main_pid, signal.SIGKILL)
            pool.wait_show('NRestarts', '1')
            pool.wait_show('StatusText', lambda text: 'held' in text)
            assert pool.workers() == []
            poolctl('resume', pool.service)
            result = load.finish()
        assert (result['ok'], result['failed']) == (4, 0), result
        pool.wait_workers(N_WORKERS)


def test_reexec(application):
    """The helper executes its program anew, and the new image answers; workers are not touched."""
    with make_pool(application) as pool:
        since, main_pid, old = lib.journal_cursor(), pool.main_pid, pool.workers()
        poolctl('reexec', pool.service)
        assert pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['ADOPTED'])
        assert pool.main_pid == main_pid and pool.workers() == old


def test_probe(application):
    """The answer of an application without a web server; the exit status tells whether it is an error."""
    with make_pool(application) as pool:
        result = poolctl('probe', pool.listen[0], '/echo?stderr=hello')
        assert result.stdout.startswith('pid=') and 'stderr: hello' in result.stderr and '200' in result.stderr
        answer = json.loads(poolctl('--json=pretty', 'probe', pool.listen[0], '/echo?status=404', check=False).stdout)
        assert answer['status'] == 404 and answer['protocol_status'] == 'FCGI_REQUEST_COMPLETE'
        assert poolctl('probe', pool.listen[0], '/echo?status=404', check=False).returncode == 1


# --- the control socket ---

def test_control_socket(application):
    """The socket is for root and the pool's user, and waits for the next helper while there is none."""
    with make_pool(application, restart='always', service='RestartSec=2') as pool:
        path = pathlib.Path('/run/reload/control')
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 and path.owner() == pool.user
        assert lib.run(['setpriv', '--reuid=65534', '--clear-groups', '--regid=65534', 'fcgi-poolctl', 'status', pool.service],
                       check=False).returncode != 0
        inode = path.stat().st_ino
        os.kill(pool.main_pid, signal.SIGKILL)
        pool.wait_show('ActiveState', 'activating')
        assert 'workers ready' in poolctl('status', pool.service).stdout
        assert path.stat().st_ino == inode


def test_silent_callers(application):
    """A thousand callers that say nothing, and some that say nonsense, are in nobody's way."""
    n = 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, n + 200), hard))
    with make_pool(application) as pool, contextlib.ExitStack() as stack:
        for i in range(n):
            caller = stack.enter_context(socket.socket(socket.AF_UNIX))
            caller.connect('/run/reload/control')
            if i % 10 == 0:
                caller.sendall(b'\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n' + bytes(range(100)))
        version = application.deploy_good()
        pool.reload()
        assert versions(pool) == {version}
        assert 'workers ready' in poolctl('status', pool.service).stdout
        # Nor does a stop wait for them.
        pool.stop()
        assert pool.show('Result') == 'success'


def test_no_pool(application):
    """What is no pool, and what does not run, gets one line."""
    with make_pool(application, start=None) as pool:
        result = poolctl('status', pool.service, check=False)
        assert result.returncode == 69 and 'does not run' in result.stderr
        result = poolctl('status', 'systemd-journald.service', check=False)
        assert result.returncode == 2 and 'no such pool' in result.stderr
