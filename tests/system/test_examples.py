# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""The examples do what they show, when they are installed by the commands in their own comments and nothing else."""

import concurrent.futures
import http.client
import itertools
import os
import pathlib
import re
import shutil
import signal
import socket
import threading

import pytest

import lib
from test_seed import Nginx
from test_supervision import IDS

EXAMPLES = pathlib.Path('/usr/share/doc/fcgi-pool/examples')
INSTALLED = pathlib.Path('/usr/local/lib/hello')
UNITS = pathlib.Path('/etc/systemd/system')
NAMES = ['hello-c', 'hello-go', 'hello-gin', 'hello-perl', 'hello-php', 'hello-cgi']
SOURCES = {'hello-c': 'hello.c', 'hello-go': 'hello.go', 'hello-gin': 'hello-gin.go'}
NEEDS = {'hello-c': 'cc', 'hello-go': 'go', 'hello-gin': 'go', 'hello-perl': 'perl', 'hello-php': 'php-cgi',
         'hello-cgi': 'fcgiwrap'}
SCRIPTS = {'hello-php': 'hello.php', 'hello-cgi': 'hello.cgi'}
# Workers that serve many connections at a time; the number of the others is what the unit says.
CONCURRENT = {'hello-go', 'hello-gin'}
# What fcgi-pool(7) says they may lose when they are told to stop: FCGI.pm a connection that has just been accepted and
# has sent nothing yet, which hits hardly ever one worker, and never two.
MAY_LOSE = {'hello-perl': 1}


class UnixHTTPConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__('localhost', timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Example(lib.Pool):
    """One of the examples, installed as it says, on the socket it comes with or on the TCP port it names."""

    def __init__(self, name, kind):
        socket_text = (EXAMPLES / f'{name}.socket').read_text()
        self.unix_address = re.search(r'^ListenStream=(/\S+)$', socket_text, re.MULTILINE).group(1)
        self.tcp_address = re.search(r'^#.*\bListenStream=(127\.0\.0\.1:\d+)$', socket_text, re.MULTILINE).group(1)
        self.kind = kind
        super().__init__(name, None, listen=self.unix_address if kind == 'unix' else self.tcp_address, start=None)
        self.is_http = '--socket-activation' in (EXAMPLES / f'{name}.service').read_text()

    def commands(self):
        """What the comments tell a user to type: first in the source, then in the service unit."""
        result = []
        if self.name in SOURCES:
            source = (EXAMPLES / SOURCES[self.name]).read_text()
            result += re.findall(r'^(?: \*     |//\t)(\S.*)$', source, re.MULTILINE)
        result += re.findall(r'^#     (\S.*)$', (EXAMPLES / f'{self.name}.service').read_text(), re.MULTILINE)
        assert result[-1] == f'systemctl enable --now {self.socket} {self.service}', result
        return result

    def write_units(self):
        if self.kind == 'tcp':
            self.write(UNITS / f'{self.socket}.d/tcp.conf',
                       f'[Socket]\nListenStream=\nListenStream={self.tcp_address}\n')
        self.files += [UNITS / self.socket, UNITS / self.service]
        directory = pathlib.Path('/run/fcgi-pool-test-examples')
        shutil.copytree(EXAMPLES, directory)
        try:
            for command in self.commands():
                lib.run(command, cwd=directory)
        finally:
            shutil.rmtree(directory)

    def clean_up(self):
        lib.systemctl('disable', self.socket, self.service, check=False)
        left = super().clean_up()
        shutil.rmtree(INSTALLED, ignore_errors=True)
        return left

    # --- requests ---

    @property
    def n_workers(self):
        return len(os.sched_getaffinity(0)) if self.name in CONCURRENT else 6

    @property
    def load_options(self):
        """Of fcgi-load."""
        script = INSTALLED / SCRIPTS.get(self.name, self.name)
        return {'any_body': True, 'param': f'SCRIPT_FILENAME={script}'}

    def http_request(self, query):
        if self.kind == 'unix':
            connection = UnixHTTPConnection(self.unix_address, timeout=60)
        else:
            connection = http.client.HTTPConnection(*self.tcp_address.split(':'), timeout=60)
        try:
            connection.request('GET', f'/{self.name}?{query}')
            response = connection.getresponse()
            text = response.read().decode()
            assert response.status == 200, (response.status, text)
            return text
        finally:
            connection.close()

    def ask(self, query=''):
        """The pid that has answered a request to the socket itself."""
        text = self.http_request(query) if self.is_http else self.request(query, **self.load_options)[0]
        return int(re.search(r'^hello from pid (\d+)$', text, re.MULTILINE).group(1))

    def ask_many(self, n, query, ask=None):
        """The pids that have answered n requests side by side."""
        with concurrent.futures.ThreadPoolExecutor(n) as executor:
            return list(executor.map(lambda _: (ask or self.ask)(query), range(n)))

    def load(self):
        """Two clients more than twice as many as there are workers: some always wait in the queue. Not so where the
        workers are retired in an idle moment, which a worker with one connection at a time would never have."""
        n = self.n_workers - 2 if self.name == 'hello-cgi' else 2 * self.n_workers + 2
        if self.is_http:
            return HttpLoad(self, n)
        return lib.BackgroundLoad(self, clients=n, duration=100, timeout=60, query='sleep=10', **self.load_options)


class HttpLoad:
    """BackgroundLoad for HTTP."""

    def __init__(self, pool, n_clients):
        self.pool, self.ending = pool, threading.Event()
        self.counts = [0] * n_clients
        self.errors = []
        self.threads = [threading.Thread(target=self.client, args=(i,), daemon=True) for i in range(n_clients)]

    def client(self, i):
        while not self.ending.is_set():
            try:
                self.pool.ask('sleep=10')
                self.counts[i] += 1
            except (OSError, http.client.HTTPException, AssertionError) as error:
                self.errors.append(repr(error))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def stop(self):
        self.ending.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()
        return {'ok': sum(self.counts), 'failed': len(self.errors), 'first_failure': self.errors[:1]}

    def __exit__(self, *_):
        self.ending.set()


@pytest.fixture(scope='module', params=[f'{name}-{kind}' for name, kind in itertools.product(NAMES, ['unix', 'tcp'])])
def installed(request):
    name, _, kind = request.param.rpartition('-')
    if not shutil.which(NEEDS[name]):
        pytest.skip(f'no {NEEDS[name]}')
    with Example(name, kind) as pool:
        yield pool


@pytest.fixture
def example(installed):
    """The example, serving; one installation for all tests of it."""
    lib.UNITS_OF_TEST.extend([installed.service, installed.socket])
    lib.systemctl('start', installed.socket, installed.service)
    installed.wait_workers(installed.n_workers)
    return installed


@pytest.fixture
def nginx(example):
    """nginx with the snippet that comes with the example."""
    snippet = (EXAMPLES / f'{example.name}.nginx.conf').read_text()
    assert f'unix:{example.unix_address}' in snippet
    if example.kind == 'tcp':
        snippet = snippet.replace(f'unix:{example.unix_address}', example.tcp_address)
    with Nginx(snippet) as nginx:
        yield nginx


def ask_until_all(example, ask):
    """Asks until every worker has answered; workers that take many requests at a time share them as they like."""
    seen = set()

    def all_seen():
        seen.update(example.ask_many(example.n_workers, 'sleep=200', ask))
        return seen >= set(example.workers())

    if example.name in CONCURRENT:
        lib.wait_until(all_seen, 60, 'an answer from every worker')
    else:
        # Each takes one at a time.
        all_seen()
    assert seen == set(example.workers())


def test_enabled(example):
    """What the comments say makes a pool that runs now and after the next boot, without a warning."""
    for unit in (example.service, example.socket):
        assert lib.systemctl('is-enabled', unit).stdout.strip() == 'enabled'
        assert lib.show(unit, 'ActiveState') == 'active'
    assert f'{example.n_workers}/{example.n_workers} workers ready' == example.status_text
    assert lib.show(example.socket, 'Listen') == f'{example.listen[0]} (Stream)'
    assert [text for text in example.messages() if 'O_NONBLOCK' in text or 'cannot be observed' in text] == []
    assert [entry['MESSAGE'] for entry in example.journal() if int(entry['PRIORITY']) <= 4] == []


def test_answers(example):
    """Every worker answers requests to the socket itself."""
    ask_until_all(example, example.ask)


def test_nginx(example, nginx):
    """Every worker answers requests through nginx with the snippet of the example."""
    def ask(query):
        status, body = nginx.get(f'/{example.name}?{query}')
        assert status == 200, (status, body)
        return int(re.fullmatch(r'hello from pid (\d+)\n', body).group(1))

    ask_until_all(example, ask)


def test_replaced(example):
    """A worker that is killed is replaced, and the others go on."""
    victim, *others = example.workers()
    cursor = lib.journal_cursor()
    os.kill(victim, signal.SIGKILL)
    example.wait_journal(f'pid {victim} was killed by SIGKILL', cursor, WORKER_PID=victim)
    workers = example.wait_workers(example.n_workers, without=[victim])
    assert set(others) < set(workers)
    new, = set(workers) - set(others)
    example.wait_journal(since=cursor, WORKER_PID=new, WORKER_STATE='ready')
    ask_until_all(example, example.ask)


def test_restart(example):
    """systemctl restart under load, with clients in the queue, loses nothing but what the manual page says."""
    before = example.workers()
    cursor = lib.journal_cursor()
    with example.load() as load:
        # The load has begun, and not only just.
        lib.wait_until(lambda: all(has_worked(pid) for pid in before), what='every worker to have worked')
        example.restart()
        after = example.wait_workers(example.n_workers, without=before)
        lib.wait_until(lambda: all(has_worked(pid) for pid in after), 30, 'every new worker to have worked')
        result = load.stop()
    assert result['ok'] > 0
    assert result['failed'] <= MAY_LOSE.get(example.name, 0), result
    if example.name not in MAY_LOSE:
        assert example.journal(cursor, MESSAGE_ID=IDS['MESSAGE_WORKER_KILLED']) == []


def has_worked(pid):
    """Whether a process has given up the CPU by itself more often than a start takes (workers wait in each request)."""
    tasks = os.listdir(f'/proc/{pid}/task')
    return sum(int(lib.proc_status(f'{pid}/task/{task}', 'voluntary_ctxt_switches') or 0) for task in tasks) > 40


def test_stop(example):
    """Stopping socket and service leaves no process, no socket and no runtime directory."""
    workers = example.workers()
    lib.systemctl('stop', example.socket, example.service)
    assert example.processes() == []
    assert not any(os.path.exists(f'/proc/{pid}') for pid in workers)
    assert example.show('Result') == 'success'
    for path in (example.unix_address, f'/run/{example.name}'):
        assert not os.path.exists(path)
    if example.kind == 'tcp':
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(example.tcp_address.split(':')).close()
