# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""Retirement under load: workers of all kinds that do nothing for it, and a helper that dies in the middle of it.

tests/bench/retirement prints the tables, test_retirement.py is its short form. Programs are naive: none of them handles
a signal, but for what libfcgi and PHP do by themselves. Nothing is ever tried again by the load (nginx excepted, which
has rules of its own), so a request that fails is counted.
"""

import collections
import contextlib
import dataclasses
import math
import os
import pathlib
import random
import re
import select
import shutil
import signal
import subprocess
import time

import lib
from survival import MESSAGE, PROGRAMS, Survivor
from test_seed import Nginx

N_WORKERS = 6
N_CLIENTS = 4
HANDLER_MSEC = 2
# So short that a worker is always due: one retirement follows the other.
ALWAYS_DUE = '--max-lifetime=200ms'
WAYS = {
    'idle': ['--retire=idle'],
    'SIGTERM': ['--retire=signal', '--stop-signal=SIGTERM', '--stop-timeout=2s'],
    'SIGKILL': ['--retire=signal', '--stop-signal=SIGKILL'],
}
# Each pause of a busy worker is a line.
DEBUG = {'SYSTEMD_LOG_LEVEL': 'debug'}

# CGI scripts take a process for each line they work on; this one takes none.
CGI = '''#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\npid=%d\\nslot=- generation=-\\nbody-length=0 body-crc=00000000\\n' "$PPID"
'''


# --- workers ---

@dataclasses.dataclass(frozen=True)
class Runtime:
    name: str
    program: str  # on the PATH, or a test program
    arguments: tuple = ()
    script: str = ''  # SCRIPT_FILENAME= of requests
    listener: str = 'blocking'
    env: dict = dataclasses.field(default_factory=dict)
    options: tuple = ()
    http: bool = False
    n_processes: int = 1

    @property
    def present(self):
        with contextlib.suppress(AssertionError):
            return bool(lib.tool(self.program))
        return False

    def command(self):
        """What can be executed in the sandbox of the template, which hides the build."""
        return [install(self.program), *(str(PROGRAMS / word) if (PROGRAMS / word).exists() else word
                                         for word in self.arguments)]

    def load(self, pool, n_clients=N_CLIENTS):
        query = f'sleep={HANDLER_MSEC}'
        if self.http:
            return HttpLoad(f'unix:{pool.listen[0]}', clients=n_clients, query=query)
        options = {'param': f'SCRIPT_FILENAME={PROGRAMS / self.script}'} if self.script else {}
        return lib.BackgroundLoad(pool, clients=n_clients, duration=3600, query=query, **options)


RUNTIMES = {runtime.name: runtime for runtime in (
    Runtime('libfcgi', 'fcgi-echo'),
    Runtime('php-cgi', 'php-cgi', script='echo.php', env={'PHP_FCGI_MAX_REQUESTS': '0'}),
    Runtime('Perl FCGI', 'perl', ('echo.pl',)),
    Runtime('Go net/http/fcgi', 'go-echo', ('-naive',), listener='nonblocking'),
    Runtime('fcgiwrap', 'fcgiwrap', script='small.cgi'),
    Runtime('Gin', 'gin-echo', ('-naive',), listener='nonblocking', options=('--socket-activation',), http=True),
)}


TREE = Runtime('C with a child', 'misbehave', ('fork', '1'), n_processes=2)


def install(program):
    """The path of a program outside of what the sandbox hides."""
    path = pathlib.Path(lib.tool(program))
    if lib.BUILD not in path.parents and lib.TOOLS not in path.parents:
        return str(path)
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    return shutil.copy(path, PROGRAMS / program)


def install_scripts():
    for name in ('echo.pl', 'echo.php'):
        install(name)
    (PROGRAMS / 'small.cgi').write_text(CGI)
    (PROGRAMS / 'small.cgi').chmod(0o755)


def make_pool(runtime, *options, n_workers=N_WORKERS, name='retirement', **others):
    """An instance of the template, whose sandbox is the one that retirement must do with."""
    return lib.TemplatePool(name, runtime.command(), [f'--workers={n_workers}', f'--listener={runtime.listener}',
                                                      *runtime.options, *options],
                            env={**runtime.env, **DEBUG}, **others)


# --- load ---

class HttpLoad(lib.BackgroundLoad):
    """with HttpLoad('127.0.0.1:80', clients=4, think=0.25) as load: ...; load.stop()"""

    def __init__(self, connect, **options):
        self.command = [lib.tool('http-load'), f'--connect={connect}',
                        *(f'--{name}={value}' for name, value in options.items())]
        self.process = self.result = None


class Noise(lib.BackgroundLoad):
    """How late others are woken meanwhile; no load to speak of."""

    def __init__(self):
        self.command = [lib.tool('timer-noise')]
        self.process = self.result = None


class KeepaliveNginx(Nginx):
    """nginx that keeps connections to a pool."""

    def __init__(self, pool, next_upstream=''):
        super().__init__('location / { include fastcgi_params; fastcgi_pass pool; fastcgi_keep_conn on; '
                         + (f'fastcgi_next_upstream {next_upstream}; ' if next_upstream else '') + '}')
        self.upstream = f'upstream pool {{ server unix:{pool.listen[0]}; keepalive 16; }}\n'

    def configuration(self):
        return super().configuration().replace('server {', self.upstream + 'server {', 1)


# --- retirements ---

def recycle(pool, n, since, seconds=None):
    """Waits until n workers have been replaced, as they always are due, or for so long."""
    end = time.monotonic() + (seconds or math.inf)
    lib.wait_until(lambda: len(pool.journal(since, MESSAGE_ID=MESSAGE['WORKER_EXITED'])) >= n or time.monotonic() >= end,
                   60 + n, f'{n} workers to be replaced', interval=1)


def percentile(values, share):
    """The smallest value that is at least as large as this share of all; None of none."""
    return sorted(values)[max(math.ceil(share * len(values)), 1) - 1] if values else None


def found_idle(entries):
    """{pid: the line that says that it was found idle}"""
    return {int(entry['WORKER_PID']): entry for entry in entries
            if entry.get('WORKER_STATE') == 'killing' and entry.get('MESSAGE', '').endswith(': idle')}


@dataclasses.dataclass
class Row:
    """What came of one kind of retirement."""
    runtime: str
    way: str
    n_clients: int
    seconds: float = 0
    n_recycles: int = 0
    n_requests: int = 0
    failures: dict = dataclasses.field(default_factory=dict)
    first_failure: str = ''
    find_usec: list = dataclasses.field(default_factory=list)
    pause_usec: list = dataclasses.field(default_factory=list)
    noise_usec: dict = dataclasses.field(default_factory=dict)
    n_by_signal: int = 0  # of those that should have been found idle
    problems: list = dataclasses.field(default_factory=list)

    @property
    def n_failed(self):
        return sum(self.failures.values())

    def add_load(self, result):
        self.n_requests = result['started']
        self.failures = {kind: n for kind, n in result['failures'].items() if n}
        self.first_failure = result['first_failure'] or ''

    def add_journal(self, entries):
        ended = [entry for entry in entries if entry.get('MESSAGE_ID') == MESSAGE['WORKER_EXITED']]
        found = found_idle(entries)
        self.n_recycles = len(ended)
        if self.way == 'idle':
            self.n_by_signal = sum(entry.get('MESSAGE_ID') == MESSAGE['WORKER_NOT_IDLE'] for entry in entries)
        self.find_usec = [int(entry['RETIRE_USEC']) for entry in found.values()]
        self.pause_usec = [int(entry['PAUSE_USEC']) for entry in entries if 'PAUSE_USEC' in entry]
        self.problems = [entry['MESSAGE'] for entry in entries if entry.get('MESSAGE_ID') == MESSAGE['WORKER_DIED']]

    def to_dict(self):
        return {**vars(self), 'n_failed': self.n_failed,
                'find': summary(self.find_usec), 'pause': summary(self.pause_usec),
                'find_usec': None, 'pause_usec': None}


def summary(values):
    return {'n': len(values), 'p50': percentile(values, .5), 'p99': percentile(values, .99),
            'max': max(values, default=None)}


def measure(runtime, way, n, n_clients=N_CLIENTS, seconds=None):
    """Retires n workers of a runtime under load, or as many as it takes so many seconds."""
    row = Row(runtime.name, way, n_clients)
    with make_pool(runtime, ALWAYS_DUE, *WAYS[way]) as pool:
        pool.wait_workers(N_WORKERS)
        with runtime.load(pool, n_clients) as load, Noise() as noise:
            measure_window(row, pool, load, noise, n, seconds)
    return row


def measure_nginx(next_upstream, method, way, n, n_clients=6):
    """The same behind nginx that keeps connections, with clients that think."""
    runtime = RUNTIMES['libfcgi']
    row = Row(f'nginx, {method}, next_upstream {next_upstream or "default"}', way, n_clients)
    # nginx uses the connection that it has used last, so one is hardly ever unused, and holds its worker so long.
    with make_pool(runtime, ALWAYS_DUE, *WAYS[way], '--stop-timeout=1s') as pool, \
            KeepaliveNginx(pool, next_upstream) as nginx:
        pool.wait_workers(N_WORKERS)
        with HttpLoad(f'127.0.0.1:{nginx.port}', clients=n_clients, think=0.25, method=method,
                      body=0 if method == 'GET' else 100) as load, Noise() as noise:
            measure_window(row, pool, load, noise, n)
    return row


def measure_window(row, pool, load, noise, n, seconds=None):
    begin, since = time.monotonic(), lib.journal_cursor()
    recycle(pool, n, since, seconds)
    row.add_load(load.stop())
    row.seconds = time.monotonic() - begin
    row.noise_usec = noise.stop()['latency_usec']
    row.add_journal(pool.journal(since))


# --- the helper dies in the middle ---

STEPS_BEFORE = 15  # the first look at a worker comes before the first signal to it
AFTER_SIGSTOP = 'pidfd_send_signal', 2  # the first signal of a roll is SIGSTOP


class Faults:
    """Kills the helper at one system call after the other of a roll, under light load; systemd starts the next one.

    strace(1) has the signal sent at the entry of the call, which is then not made. It counts the calls of each name by
    themselves, so a step is a name and a number.
    """

    def __init__(self, seed=None):
        self.random = random.Random(seed)
        self.n_killed = self.n_missed = self.n_stopped = 0
        self.steps = []
        self.calls = collections.Counter()  # that were not made
        self.problems = []
        self.load_result = None

    def run(self, runtime, n):
        with FaultyPool(runtime) as pool:
            pool.wait_workers(pool.n_workers)
            with lib.BackgroundLoad(pool, clients=2, rate=200, duration=3600, query='sleep=1') as load:
                self.learn_steps(pool)
                # Where it hurts most, whatever the seed: a worker has just been stopped.
                self.kill(pool, *AFTER_SIGSTOP)
                for i in range(n):
                    if not self.kill(pool, *self.steps[int((i + self.random.random()) * len(self.steps) / n)]):
                        self.kill(pool, *self.random.choice(self.steps[:len(self.steps) // 2]))
                self.load_result = load.stop()
            if self.load_result['failed']:
                self.problems.append(f'{self.load_result["failures"]}: {self.load_result["first_failure"]}')
        return self

    def learn_steps(self, pool):
        since = lib.journal_cursor()
        with Strace(pool.main_pid) as strace:
            os.kill(strace.pid, signal.SIGHUP)
            pool.wait_journal(since=since, MESSAGE_ID=MESSAGE['REPLACED'])
        pool.wait_rest()
        self.steps = roll_steps(strace.calls())

    def kill(self, pool, name, number):
        """Whether the helper got as far."""
        since = lib.journal_cursor()
        with Strace(pool.main_pid, f'--inject={name}:signal=KILL:when={number}') as strace:
            os.kill(strace.pid, signal.SIGHUP)
            # There may be fewer of them this time.
            strace.wait_death(since, pool)
        dead, calls = strace.dead, strace.calls()
        if dead:
            # The next helper ends the roll; what it says must not be taken for the end of the next one.
            pool.wait_ready(since)
            self.n_killed += 1
            self.calls[name] += 1
            self.n_stopped += leaves_stopped(calls)
        else:
            self.n_missed += 1
            # A busy worker takes some more looks each time; those of the shortest roll are in all of them.
            self.steps = min(self.steps, roll_steps(calls), key=len)
        self.problems += [f'{name} number {number}, {"killed" if dead else "missed"}: {text}'
                          for text in pool.problems() + pool.surprises(since)]
        return dead


class FaultyPool(Survivor):
    """An instance of the template that PID 1 starts again soon."""

    def __init__(self, runtime):
        super().__init__('retirement-faults', install(runtime.program), n_workers=2, service=['RestartSec=50ms'])
        self.command = runtime.command()
        self.n_processes = self.n_workers * runtime.n_processes + 2
        self.options += WAYS['idle']

    def wait_rest(self):
        lib.wait_until(lambda: lib.is_complete(self.status_text, self.n_workers), 20, f'{self.name} to be at rest')

    def problems(self):
        with contextlib.suppress(AssertionError):
            self.wait_rest()
        found = super().problems()
        stopped = [pid for pid in self.processes() if (lib.proc_status(pid, 'State') or '').startswith('T')]
        if stopped:
            found.append(f'{self.name}: stopped: {stopped}')
        generations = {lib.environment(pid)['FCGI_POOL_GENERATION'] for pid in self.workers()}
        if len(generations) != 1:
            found.append(f'{self.name}: generations {generations}')
        return found

    def surprises(self, since):
        """What the helpers did not expect, though all of it is their own work."""
        found = []
        for entry in self.journal(since):
            strangers = re.search(r'([1-9]\d*) strangers', entry['MESSAGE'])
            if strangers or entry.get('MESSAGE_ID') == MESSAGE['WORKER_DIED']:
                found.append(f'{self.name}: logged: {entry["MESSAGE"]}')
        return found


def roll_steps(calls):
    """The system calls of a roll from right before the first retirement to the end: (name, number) of each."""
    names = [call.partition('(')[0] for call in calls]
    steps = [(name, names[:i].count(name) + 1) for i, name in enumerate(names)]
    return steps[max(0, names.index('pidfd_send_signal') - STEPS_BEFORE):]


def leaves_stopped(calls):
    """Whether a worker was stopped when the helper died at the last of these calls."""
    stopped = False
    for call in calls[:-1]:
        match = re.match(r'pidfd_send_signal\(\d+, (SIG\w+)', call)
        if match and match.group(1) in ('SIGSTOP', 'SIGCONT', 'SIGKILL'):
            stopped = match.group(1) == 'SIGSTOP'
    return stopped


class Strace:
    """strace of a process, attached for the length of a with block; then `dead` tells whether the process is."""

    def __init__(self, pid, *options):
        self.pid, self.dead, self.path = pid, False, pathlib.Path(f'/run/fcgi-pool-test-strace.{pid}')
        self.pidfd = os.pidfd_open(pid)
        self.command = ['strace', '-qq', '-o', self.path, '-p', str(pid), *options]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT)
        lib.wait_until(lambda: self.process.poll() is not None or
                       lib.proc_status(self.pid, 'TracerPid') == str(self.process.pid), what='strace to be attached')
        assert self.process.poll() is None, self.process.stdout.read()
        return self

    def is_dead(self):
        return bool(select.select([self.pidfd], [], [], 0)[0])

    def wait_death(self, since, pool):
        """Waits until the process is dead, or has replaced all and seen the end of those that were before."""
        lib.wait_until(lambda: self.is_dead() or pool.journal(since, MESSAGE_ID=MESSAGE['REPLACED']), 20,
                       'the helper to end a roll or to die')

    def __exit__(self, *_):
        # It lets go of the process; if it has just sent it the signal, it sees it die before.
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()
        self.dead = self.is_dead()
        os.close(self.pidfd)

    def calls(self):
        lines = self.path.read_text(errors='replace').splitlines()
        self.path.unlink()
        return [line for line in lines if re.match(r'\w+\(', line)]


# --- tables ---

def milliseconds(usec, digits=2):
    return '' if usec is None else f'{usec / 1000:.{digits}f}'


def markdown(rows):
    head = ['', 'way', 'clients', 'recycles', 'by signal', 'requests', 'failed', 'idle found after ms p50', 'p99',
            'max', 'busy pauses', 'ms p50', 'p99', 'max', 'timer late ms p50', 'p99']
    lines = [head, ['---', '---'] + ['---:'] * (len(head) - 2)]
    for row in rows:
        find, pause = summary(row.find_usec), summary(row.pause_usec)
        failed = ', '.join(f'{n} {kind}' for kind, n in sorted(row.failures.items())) or '0'
        lines.append([row.runtime, row.way, row.n_clients, row.n_recycles, row.n_by_signal, row.n_requests, failed,
                      *(milliseconds(find[name], 1) for name in ('p50', 'p99', 'max')), pause['n'],
                      *(milliseconds(pause[name]) for name in ('p50', 'p99', 'max')),
                      *(milliseconds(row.noise_usec[name]) for name in ('p50', 'p99'))])
    return '\n'.join('| ' + ' | '.join(map(str, line)) + ' |' for line in lines)
