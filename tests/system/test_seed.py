# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""The demonstration that the project began with: nginx, six Go workers that sleep a second, requests side by side."""

import concurrent.futures
import contextlib
import http.client
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

import lib

PORT = 8085

# One request at a time, as most FastCGI programs: net/http/fcgi alone would let one process take all ten.
WORKER = '''
package main

import ("flag"; "fmt"; "net"; "net/http"; "net/http/fcgi"; "os"; "os/signal"; "sync"; "syscall"; "time")

type oneAtATime struct { net.Listener; turn chan bool }
type taken struct { net.Conn; once sync.Once; turn chan bool }

func (l oneAtATime) Accept() (net.Conn, error) {
	l.turn <- true
	c, err := l.Listener.Accept()
	if err != nil { <-l.turn; return nil, err }
	return &taken{Conn: c, turn: l.turn}, nil
}

func (c *taken) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { <-c.turn })
	return err
}

func main() {
	sleep := flag.Duration("sleep", time.Second, "in each request")
	flag.Parse()
	inner, err := net.FileListener(os.Stdin)
	if err != nil { panic(err) }
	l := oneAtATime{inner, make(chan bool, 1)}

	stop, stopping := make(chan os.Signal, 1), make(chan bool)
	signal.Notify(stop, syscall.SIGTERM)
	go func() { <-stop; close(stopping); inner.Close() }()

	err = fcgi.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(*sleep)
		fmt.Fprintf(w, "pid %d\\n", os.Getpid())
	}))
	select {
	case <-stopping:
		l.turn <- true // the last connection is closed
	default:
		panic(err)
	}
}
'''


class Nginx:
    """nginx with a configuration of its own on the loopback device, for the length of a with block."""

    def __init__(self, locations, port=PORT):
        self.port, self.locations, self.process = port, locations, None
        self.directory = pathlib.Path('/run/fcgi-pool-test-nginx')

    def configuration(self):
        return (f'daemon off;\nuser www-data;\nworker_processes 1;\npid {self.directory}/pid;\n'
                f'error_log {self.directory}/error.log info;\nevents {{ worker_connections 1024; }}\n'
                f'http {{\naccess_log off;\nfastcgi_read_timeout 30s;\n'
                f'server {{\nlisten 127.0.0.1:{self.port} backlog=1024;\n{self.locations}\n}}\n}}\n')

    def __enter__(self):
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir()
        # Snippets say "include fastcgi_params", which is looked for beside the main file.
        (self.directory / 'fastcgi_params').symlink_to('/etc/nginx/fastcgi_params')
        path = self.directory / 'nginx.conf'
        path.write_text(self.configuration())
        lib.run(['nginx', '-q', '-t', '-c', path])
        self.process = subprocess.Popen(['nginx', '-c', path], stdin=subprocess.DEVNULL)
        try:
            lib.wait_until(self.accepts, what=f'nginx on port {self.port}')
        except BaseException:
            self.stop()
            raise
        return self

    def accepts(self):
        assert self.process.poll() is None, (self.directory / 'error.log').read_text()
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(('127.0.0.1', self.port)):
            return True
        return False

    def stop(self):
        self.process.terminate()
        self.process.wait(10)
        shutil.rmtree(self.directory)

    def __exit__(self, *_):
        self.stop()

    def get(self, path, timeout=30):
        """(status, body) of one request."""
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=timeout)
        try:
            connection.request('GET', path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    @contextlib.contextmanager
    def requests(self, path, n):
        """n requests side by side; gives a list of futures of get()."""
        with concurrent.futures.ThreadPoolExecutor(n) as executor:
            yield [executor.submit(self.get, path) for _ in range(n)]


def answers(futures):
    """The pids that have answered; everything else than "pid N" with status 200 is a failure."""
    results = [future.result() for future in futures]
    assert {status for status, _ in results} == {200}, results
    return [int(re.fullmatch(r'pid (\d+)\n', body).group(1)) for _, body in results]


def unix_sockets(path):
    """Inodes of the connections of a UNIX listener that are open or wait in its queue."""
    lines = [line.split() for line in pathlib.Path('/proc/net/unix').read_text().splitlines()]
    # Flags 0x10000 are SO_ACCEPTCON: the listener itself.
    return [line[6] for line in lines if line[-1] == path and not int(line[3], 16) & 0x10000]


def holds_connection(pid, path):
    """Whether a process has accepted one of them."""
    inodes = {f'socket:[{inode}]' for inode in unix_sockets(path)}
    return not inodes.isdisjoint(lib.fds(pid).values())


@pytest.fixture(scope='module')
def worker(tmp_path_factory):
    """The Go program, built."""
    if not shutil.which('go'):
        pytest.skip('no Go compiler')
    directory = tmp_path_factory.mktemp('seed')
    (directory / 'main.go').write_text(WORKER)
    target = pathlib.Path('/usr/local/lib/fcgi-pool-tests/seed')
    target.parent.mkdir(parents=True, exist_ok=True)
    lib.run(['go', 'build', '-o', target, directory / 'main.go'],
            env={'GOCACHE': '/var/cache/go-build', 'HOME': '/root', 'GO111MODULE': 'off', **os.environ})
    target.chmod(0o755)
    yield target
    target.unlink()


@pytest.fixture
def pool(worker):
    with lib.Pool('seed', [worker], ['--workers=6'], service='NonBlocking=yes') as pool:
        yield pool


@pytest.fixture
def nginx(pool):
    with Nginx('location / { include fastcgi_params; fastcgi_pass unix:/run/seed.sock; }') as nginx:
        yield nginx


def test_side_by_side(pool, nginx):
    """Ten requests of a second each, through nginx, end within 2.5 s and come from at least five of six workers."""
    begin = time.monotonic()
    with nginx.requests('/', 10) as futures:
        pids = answers(futures)
    seconds = time.monotonic() - begin
    assert seconds <= 2.5
    assert len(set(pids)) >= 5
    assert set(pids) <= set(pool.workers())
    assert len(pool.workers()) == 6


def test_replaced(pool, nginx):
    """A worker that is killed is replaced, the new one answers, and the others do not notice."""
    victim, *others = pool.wait_workers(6)
    os.kill(victim, signal.SIGKILL)
    workers = pool.wait_workers(6, without=[victim])
    assert set(others) < set(workers)
    pool.wait_journal(f'pid {victim} was killed by SIGKILL')
    new, = set(workers) - set(others)
    pool.wait_journal(WORKER_PID=new, WORKER_STATE='ready')

    # As many as there are workers, each of which takes one at a time: every one of them answers.
    with nginx.requests('/', 6) as futures:
        assert set(answers(futures)) == set(workers)


def test_stop_lets_requests_finish(pool, nginx):
    """systemctl stop ends the pool without a process left, and the requests that run are all answered."""
    workers = pool.wait_workers(6)
    with nginx.requests('/', 6) as futures:
        # Not before: one that waits in the queue would start the service again.
        lib.wait_until(lambda: all(holds_connection(pid, '/run/seed.sock') for pid in workers), what='six busy workers')
        pool.stop()
        assert set(answers(futures)) == set(workers)
    assert pool.processes() == []
    assert pool.show('Result') == 'success'
    assert pool.show('ExecMainStatus') == '0'
