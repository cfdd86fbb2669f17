# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""What scenario tests say to systemd, and what they ask it.

Runs as root on a machine whose PID 1 is systemd and where fcgi-pool is installed: a throw-away container of tests/run.
No function sleeps to let something happen; each waits for the thing itself, at most for its timeout, and says what it
waited for when it does not come.
"""

import collections
import contextlib
import json
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import time

import ask

CGROUP = pathlib.Path('/sys/fs/cgroup')
SYSTEMD_UNITS = pathlib.Path('/run/systemd/system')
ENV_DIRECTORY = pathlib.Path('/etc/fcgi-pool')
BUILD = pathlib.Path(os.environ.get('FCGI_POOL_BUILD', '/var/tmp/fcgi-pool/build'))
TOOLS = pathlib.Path(os.environ.get('FCGI_POOL_TEST_BIN', BUILD / 'tests/tools'))

# Units that the running test has made; a failed test shows their journal. conftest.py empties it.
UNITS_OF_TEST = []


# --- commands ---

def run(cmd, check=True, timeout=60, **options):
    """Runs a list, or a string in a shell; the result has .stdout, .stderr and .returncode."""
    result = subprocess.run(cmd, shell=isinstance(cmd, str), text=True, errors='replace', timeout=timeout,
                            stdin=options.pop('stdin', None if 'input' in options else subprocess.DEVNULL),
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    if check and result.returncode != 0:
        raise AssertionError(f'{cmd if isinstance(cmd, str) else " ".join(map(str, cmd))}\n'
                             f'exit status {result.returncode}\n{result.stdout}{result.stderr}')
    return result


def tool(name):
    """Path of a test program that the build made."""
    for path in (TOOLS / name, BUILD / 'tests/tools' / name):
        if path.exists():
            return str(path)
    found = shutil.which(name)
    assert found, f'no test program {name} in {TOOLS}'
    return found


def systemd_version():
    return int(re.search(r'systemd (\d+)', run(['systemctl', '--version']).stdout).group(1))


def machine():
    """What figures depend on."""
    model = [line.split(':')[1].strip() for line in open('/proc/cpuinfo') if line.startswith('model name')]
    return {'systemd': systemd_version(), 'kernel': os.uname().release, 'cpus': len(os.sched_getaffinity(0)),
            'cpu': model[0] if model else os.uname().machine}


# --- systemd ---

def systemctl(*args, check=True, timeout=120):
    return run(['systemctl', '--no-pager', '--no-ask-password', *args], check=check, timeout=timeout)


_reload_is_put_off = False


@contextlib.contextmanager
def one_reload():
    """Units written and removed inside are read at the end, all at once."""
    global _reload_is_put_off
    _reload_is_put_off = True
    try:
        yield
    finally:
        _reload_is_put_off = False
        daemon_reload()


def daemon_reload():
    if _reload_is_put_off:
        return
    systemctl('daemon-reload')


def reload_for(units):
    """What makes files of units count that were just written: nothing, where PID 1 has not read any before."""
    if any(map(ask.is_loaded, units)):
        daemon_reload()


def show(unit, prop):
    """One property, as a string."""
    if prop in ask.PLAIN:
        with contextlib.suppress(ask.Unanswered):
            return ask.properties(unit, [prop])[prop]
    return run(['systemctl', 'show', '--value', f'--property={prop}', unit]).stdout.rstrip('\n')


def show_all(unit, *props):
    """Several properties of one moment, as a dict."""
    if ask.PLAIN.issuperset(props):
        with contextlib.suppress(ask.Unanswered):
            return ask.properties(unit, props)
    lines = run(['systemctl', 'show', f'--property={",".join(props)}', unit]).stdout.splitlines()
    return dict(line.split('=', 1) for line in lines)


def journal_cursor():
    """The end of the journal, to be given as since= or since_cursor= later."""
    ask.sync_journal()
    with ask.open_journal() as reader:
        reader.seek_tail()
        entry = reader.get_previous()
    assert entry, 'the journal is empty'
    return entry['__CURSOR']


def _is_of(entry, unit):
    """What journalctl --unit= selects by."""
    return unit is None or unit in [entry.get(name) for name in ('_SYSTEMD_UNIT', 'UNIT', 'OBJECT_SYSTEMD_UNIT')]


def _matches(entry, unit, fields):
    """What journalctl --unit= and FIELD=VALUE do."""
    return _is_of(entry, unit) and all(entry.get(name) == str(value) for name, value in fields.items())


def _entries(reader, since):
    """Those that are there from here on, without the one of the cursor itself."""
    while entry := reader.get_next():
        if entry['__CURSOR'] != since:
            yield entry


def journal(unit=None, since_cursor=None, **fields):
    """Entries, oldest first, each a dict of fields: journal('x.service', WORKER_SLOT=3)."""
    ask.sync_journal()
    with ask.open_journal() as reader:
        for name, value in fields.items():
            reader.add_match(f'{name}={value}')
        if since_cursor:
            reader.seek_cursor(since_cursor)
        else:
            reader.seek_head()
        return [entry for entry in _entries(reader, since_cursor) if _is_of(entry, unit)]


def messages(unit=None, since_cursor=None, **fields):
    return [entry.get('MESSAGE') or '' for entry in journal(unit, since_cursor, **fields)]


def written(entry):
    """Seconds of CLOCK_MONOTONIC at which it was written; journald may come to read it later."""
    late = int(entry['__REALTIME_TIMESTAMP']) - int(entry['_SOURCE_REALTIME_TIMESTAMP'])
    return (int(entry['__MONOTONIC_TIMESTAMP']) - late) / 1e6


# --- waiting ---

PATIENCE = 30  # seconds: enough for a slow machine that does other things as well, and no promise of anybody's


def wait_until(predicate, timeout=PATIENCE, what='the condition', interval=0.02):
    """Asks until the answer is true, and returns it. For what sends no event; wait_journal() is better."""
    deadline = time.monotonic() + timeout
    while True:
        begin = time.monotonic()
        answer = predicate()
        if answer:
            return answer
        now = time.monotonic()
        if now >= deadline:
            raise AssertionError(f'{what}: not within {timeout} s; last seen: {answer!r}')
        # To ask must not keep those busy whose answer it is.
        time.sleep(max(interval, 2 * (now - begin)))


def wait_journal(message=None, since=None, timeout=PATIENCE, unit=None, count=1, where=None, **fields):
    """Follows the journal after the cursor `since` until `count` entries match, and returns the last of them.

    message is a regular expression searched in MESSAGE, where a predicate on the whole entry, the rest are fields
    with exact values. With count > 1 the result is the list of all.
    """
    assert since, 'wait_journal() needs the cursor from before the cause, else it may match the past'
    found, seen = [], []
    deadline = time.monotonic() + timeout
    with ask.open_journal() as reader:
        # Matched here, for a message that does not come is explained by those that did.
        reader.seek_cursor(since)
        while (left := deadline - time.monotonic()) > 0:
            for entry in _entries(reader, since):
                text = entry.get('MESSAGE') or ''
                if not _matches(entry, unit, fields):
                    continue
                seen.append(text)
                if (message is None or re.search(message, text)) and (where is None or where(entry)):
                    found.append(entry)
                    if len(found) == count:
                        return found if count > 1 else entry
            reader.wait(min(left, 1))
    what = ' '.join(filter(None, [repr(message) if message else '', f'of {unit}' if unit else '',
                                  *(f'{name}={value}' for name, value in fields.items())]))
    raise AssertionError(f'journal entry {what}: {len(found)} of {count} within {timeout} s; entries seen:\n  ' +
                         '\n  '.join(seen[-30:]))


def wait_show(unit, prop, value, timeout=PATIENCE):
    """Waits until a property has a value (or one for which a function says true)."""
    test = value if callable(value) else lambda current: current == value
    last = None

    def reached():
        nonlocal last
        last = show(unit, prop)
        return test(last)

    try:
        wait_until(reached, timeout, f'{prop} of {unit}')
    except AssertionError:
        raise AssertionError(f'{prop} of {unit}: not {value!r} within {timeout} s, but {last!r}') from None
    return last


def wait_exit(pid, timeout=PATIENCE):
    """Waits for the end of any process."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        assert poll.poll(timeout * 1000), f'process {pid} has not ended within {timeout} s: {command_line(pid)}'
    finally:
        os.close(fd)


# --- processes ---

def proc_status(pid, field):
    """A field of /proc/PID/status, or None when there is no such process."""
    try:
        text = pathlib.Path(f'/proc/{pid}/status').read_text(errors='replace')
    except (FileNotFoundError, ProcessLookupError):
        return None
    match = re.search(rf'^{field}:\s*(.*)$', text, re.MULTILINE)
    return match.group(1) if match else None


# started: seconds after boot
Stat = collections.namedtuple('Stat', 'name state parent started')


def stat(pid):
    """What is in /proc/PID/stat, or None when there is no such process. Costs less than proc_status()."""
    try:
        text = pathlib.Path(f'/proc/{pid}/stat').read_text(errors='replace')
    except (FileNotFoundError, ProcessLookupError):
        return None
    head, _, tail = text.rpartition(')')
    fields = tail.split()
    return Stat(head.partition('(')[2], fields[0], int(fields[1]), int(fields[19]) / os.sysconf('SC_CLK_TCK'))


def parent(pid):
    found = stat(pid)
    return found.parent if found else None


def command_line(pid):
    try:
        data = pathlib.Path(f'/proc/{pid}/cmdline').read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return ''
    return data.replace(b'\0', b' ').decode(errors='replace').strip()


def environment(pid):
    """The environment a process was started with."""
    path = pathlib.Path(f'/proc/{pid}/environ')

    def known():
        # It has none for a moment while it executes a program.
        data = path.read_bytes()
        return [data] if data or not alive([pid]) else None
    data, = wait_until(known, what=f'the environment of {pid}', interval=0.001)
    return dict(item.split('=', 1) for item in data.decode(errors='replace').split('\0') if '=' in item)


def fds(pid):
    """{number: target} of the open files of a process."""
    result = {}
    for entry in os.listdir(f'/proc/{pid}/fd'):
        with contextlib.suppress(FileNotFoundError):
            result[int(entry)] = os.readlink(f'/proc/{pid}/fd/{entry}')
    return result


def cgroup_pids(path, zombies=False):
    """Processes in a cgroup and below."""
    pids = []
    for directory, _, _ in os.walk(path):
        with contextlib.suppress(OSError):
            pids += map(int, (pathlib.Path(directory) / 'cgroup.procs').read_text().split())
    return sorted(pids if zombies else alive(pids))


def alive(pids):
    """{pid: Stat} of those that have not ended."""
    found = {pid: stat(pid) for pid in pids}
    return {pid: process for pid, process in found.items() if process and process.state not in 'ZX'}


def cgroup_processes(path):
    """{pid: Stat} of those in a cgroup and below that have not ended."""
    return alive(cgroup_pids(path, zombies=True))


GUARDIAN = 'fcgi-pool-guard'  # as much of its name as the kernel keeps


# --- load ---

# With more clients than workers, none of these is ever without a request, and the CPU is left to what is tested.
BUSY = 'sleep=3'


def _load_command(listen, args, options):
    addresses = [listen] if isinstance(listen, (str, Pool)) else list(listen)
    command = [tool('fcgi-load')]
    for item in addresses:
        for address in (item.listen if isinstance(item, Pool) else [item]):
            command.append(f'--connect={"unix:" if address.startswith("/") else ""}{address}')
    for name, value in options.items():
        name = name.replace('_', '-')
        command.append(f'--{name}' if value is True else f'--{name}={value}')
    return command + list(args)


def load(listen, *args, limit=120, **options):
    """Runs fcgi-load against an address, several, or a Pool, to its end; returns what it prints, as a dict.

    load(pool, clients=10, requests=100, query='sleep=10'). Its exit status 1 (a request failed) is no error here:
    the caller asserts on the counts.
    """
    result = run(_load_command(listen, args, options), check=False, timeout=limit)
    assert result.returncode in (0, 1), f'fcgi-load: exit status {result.returncode}\n{result.stderr}'
    return json.loads(result.stdout)


def _takes_signal(pid, number):
    masks = [int(proc_status(pid, field) or '0', 16) for field in ('SigBlk', 'SigCgt')]
    return any(mask >> (number - 1) & 1 for mask in masks)


class BackgroundLoad:
    """with BackgroundLoad(pool, clients=4, duration=30) as l: ...; l.stop() ends it early and returns the counts."""

    def __init__(self, listen, *args, **options):
        self.command = _load_command(listen, args, options)
        self.process = self.result = None

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        # From here on stop() gets counts, not a dead process: SIGTERM is the program's own business.
        wait_until(lambda: self.process.poll() is not None or _takes_signal(self.process.pid, signal.SIGTERM),
                   what='fcgi-load to be ready')
        return self

    def finish(self, timeout=120):
        if self.result is None:
            output, errors = self.process.communicate(timeout=timeout)
            assert self.process.returncode in (0, 1), f'fcgi-load: {self.process.returncode}\n{errors}'
            self.result = json.loads(output)
        return self.result

    def stop(self, timeout=60):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.finish(timeout)

    def __exit__(self, *exception):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


class Background:
    """with Background(command) as b: ...; b.finish() waits and returns its output and what came on stderr."""

    def __init__(self, command):
        self.command, self.process = list(map(str, command)), None

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        return self

    @property
    def returncode(self):
        return self.process.returncode

    def finish(self, timeout=120):
        return self.process.communicate(timeout=timeout)

    def __exit__(self, *exception):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


# --- pools ---

def quote(argument):
    """One argument of ExecStart=, Environment= ..., such that systemd changes nothing in it."""
    text = str(argument).replace('\\', '\\\\').replace('"', '\\"').replace('%', '%%').replace('\n', '\\n')
    return f'"{text}"'


def quote_exec(argument):
    return quote(argument).replace('$', '$$')


def as_lines(value):
    """None, a text, a list of lines or a dict, as text that ends in a newline."""
    if not value:
        return ''
    if isinstance(value, dict):
        value = [f'{name}={item}' for name, item in value.items()]
    return (value if isinstance(value, str) else '\n'.join(value)).rstrip('\n') + '\n'


def is_complete(status, n):
    """Whether STATUS= says that all n workers are ready and that nothing but requests is going on."""
    return re.fullmatch(rf'{n}/{n} workers ready(, \d+ busy, queue \d+(, oldest request [^,;]+)?)?(, generation \d+)?',
                        status) is not None


# What a unit needs so that workers survive the helper: see fcgi-pool@.service.
PROMISES = '''KillMode=process
RestartKillSignal=SIGUSR1
SuccessExitStatus=SIGUSR1
Delegate=yes
FileDescriptorStoreMax=16400
TimeoutStartFailureMode=kill
OOMPolicy=continue
RuntimeDirectoryPreserve=restart
ExecReload=/usr/bin/fcgi-poolctl reload
'''


class Pool:
    """A pool of hand-written units, for the length of a with block.

        with Pool('shop', [tool('fcgi-echo')], ['--workers=6']) as pool:
                assert len(pool.workers()) == 6

    listen   one or more ListenStream= values; default /run/NAME.sock
    options  of fcgi-pool; command is what follows "--" (a list; none at all with None)
    service, socket, unit   further lines of these sections of NAME.service and NAME.socket (text, list or dict);
             what they say wins over what stands here
    env      environment of the service
    start    'service' starts socket and service, 'socket' only the socket, None nothing
    restart  Restart= of the service
    At the end everything is stopped and removed, and no process of the unit may be left.
    """

    def __init__(self, name, command, options=(), *, listen=None, service=None, socket=None, unit=None, env=None,
                 start='service', user='www-data', restart='no', helper='/usr/bin/fcgi-pool', exec_start=None):
        self.name = name
        self.service, self.socket = f'{name}.service', f'{name}.socket'
        self.listen = [listen] if isinstance(listen, str) else list(listen or [self.default_listen()])
        self.start_what = start
        self.command, self.options, self.helper, self.exec_start = command, list(options), helper, exec_start
        self.user, self.restart_policy, self.env = user, restart, dict(env or {})
        self.extra_service, self.extra_socket, self.extra_unit = service, socket, unit
        self.cursor = None
        self.files = []

    def default_listen(self):
        return f'/run/{self.name}.sock'

    # --- unit files ---

    def command_text(self):
        if self.exec_start:
            return self.exec_start
        words = [self.helper, *map(quote_exec, self.options)]
        if self.command is not None:
            words += ['--', *map(quote_exec, self.command)]
        return ' '.join(words)

    def service_text(self):
        manager = PROMISES if self.command is not None else 'KillMode=mixed\n'
        return (f'[Unit]\nDescription=Test pool {self.name}\nRequires={self.socket}\nAfter={self.socket}\n'
                f'StartLimitIntervalSec=0\n{as_lines(self.extra_unit)}\n'
                f'[Service]\nType=notify\nNotifyAccess=main\nExecStart={self.command_text()}\n{manager}'
                f'User={self.user}\nRuntimeDirectory={self.name}\nLimitNOFILE=65536\n'
                f'TasksMax=infinity\nTimeoutStartSec=90\nTimeoutStopSec=90\nRestart={self.restart_policy}\n'
                + ''.join(f'Environment={quote(f"{name}={value}")}\n' for name, value in self.env.items())
                + as_lines(self.extra_service))

    def socket_text(self):
        return (f'[Unit]\nDescription=Test pool {self.name}\n\n[Socket]\n'
                + ''.join(f'ListenStream={address}\n' for address in self.listen)
                + f'SocketUser={self.user}\nTriggerLimitIntervalSec=0\n' + as_lines(self.extra_socket))

    def write(self, path, text):
        path = pathlib.Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if path not in self.files:
            self.files.append(path)

    def write_units(self):
        self.write(SYSTEMD_UNITS / self.service, self.service_text())
        self.write(SYSTEMD_UNITS / self.socket, self.socket_text())
        reload_for(self.units())

    def drop_in(self, text, unit=None):
        """Adds lines with their [Section] to the service (or another unit), as `systemctl edit` would."""
        directory = SYSTEMD_UNITS / f'{unit or self.service}.d'
        n = sum(path.parent == directory for path in self.files)
        self.write(directory / f'90-test-{n}.conf', as_lines(text))
        reload_for([unit or self.service])

    # --- life ---

    def units(self):
        """All there are, in the order in which they are started."""
        return [self.socket, self.service]

    def start_units(self):
        wanted = [unit for unit in self.units() if unit.endswith('.socket') or self.start_what == 'service']
        if wanted:
            systemctl('start', *wanted)

    def __enter__(self):
        self.cursor = journal_cursor()
        UNITS_OF_TEST.extend(reversed(self.units()))
        try:
            self.write_units()
            if self.start_what:
                self.start_units()
        except BaseException:
            self.clean_up()
            raise
        return self

    def __exit__(self, kind, *_):
        left = self.clean_up()
        if left and kind is None:
            raise AssertionError(f'processes of {self.service} left after its stop: {left}')

    def clean_up(self):
        """Stops and removes; returns the processes that outlived the stop, which it has killed."""
        systemctl('stop', *self.units(), check=False)
        # What had not become ready is left to it.
        for pid, process in cgroup_processes(self.cgroup).items():
            if process.name == GUARDIAN:
                with contextlib.suppress(AssertionError):
                    wait_exit(pid)
        left = {pid: command_line(pid) for pid in self.processes()}
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for path in reversed(self.files):
            path.unlink(missing_ok=True)
            if path.parent.name.endswith('.d'):
                with contextlib.suppress(OSError):
                    path.parent.rmdir()
        self.files.clear()
        for address in self.listen:
            if address.startswith('/'):
                pathlib.Path(address).unlink(missing_ok=True)
        # What has failed would stay in the memory of PID 1, and with it the files that are gone.
        for unit in self.units():
            ask.reset_failed(unit)
        reload_for(self.units())
        return left

    def systemctl(self, verb, *args, check=True, timeout=120):
        return systemctl(verb, *args, self.service, check=check, timeout=timeout)

    def start(self, check=True):
        return self.systemctl('start', check=check)

    def stop(self, check=True):
        return self.systemctl('stop', check=check)

    def restart(self, check=True):
        return self.systemctl('restart', check=check)

    def reload(self, check=True):
        return self.systemctl('reload', check=check)

    # --- questions ---

    def show(self, prop):
        return show(self.service, prop)

    def wait_show(self, prop, value, timeout=PATIENCE):
        return wait_show(self.service, prop, value, timeout)

    def find_main_pid(self):
        """Pid of the helper, 0 if there is none."""
        return int(self.show('MainPID'))

    @property
    def main_pid(self):
        """Pid of the helper, which is there: a signal to 0 would reach ourselves."""
        pid = self.find_main_pid()
        assert pid > 0, f'{self.service} has no main process: {self.active_state}'
        return pid

    @property
    def status_text(self):
        return self.show('StatusText')

    @property
    def active_state(self):
        return self.show('ActiveState')

    @property
    def cgroup(self):
        """Where the processes of the service are, running or not."""
        path = self.show('ControlGroup')
        if not path:
            slice_name = self.show('Slice') or 'system.slice'
            path = slice_path(slice_name) + '/' + self.service
        return CGROUP / path.lstrip('/')

    def processes(self):
        """All processes of the service, without zombies."""
        return cgroup_pids(self.cgroup)

    def workers(self):
        """Pids of the workers: what is neither helper, nor guardian, nor started by a worker."""
        if (self.cgroup / 'workers').is_dir():
            # The helper is there as well where children cannot be born in another cgroup.
            found = cgroup_processes(self.cgroup / 'workers')
            others = {pid: process.parent for pid, process in found.items() if process.name != 'fcgi-pool'}
        else:
            main = self.find_main_pid()
            others = {pid: process.parent for pid, process in cgroup_processes(self.cgroup).items() if pid != main}
        return sorted(pid for pid, parent in others.items() if parent not in others)

    def slots(self):
        """{slot: pid} of the workers, from the environment they were started with."""
        found = {}
        for pid in self.workers():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it may have ended meanwhile
                found[int(environment(pid).get('FCGI_POOL_SLOT', -1))] = pid
        return found

    def wait_workers(self, n, without=(), timeout=PATIENCE):
        """Waits for exactly n workers, none of them in `without`; returns their pids."""
        def reached():
            pids = self.workers()
            return [pids] if len(pids) == n and not set(pids) & set(without) else None
        pids, = wait_until(reached, timeout,
                           f'{n} workers of {self.name}' + (f' without {list(without)}' if without else ''))
        return pids

    def journal(self, since_cursor=None, **fields):
        return journal(self.service, since_cursor or self.cursor, **fields)

    def messages(self, since_cursor=None, **fields):
        return messages(self.service, since_cursor or self.cursor, **fields)

    def wait_journal(self, message=None, since=None, timeout=PATIENCE, **options):
        """As the function, for the entries of this service; from the start of the pool by default."""
        return wait_journal(message, since or self.cursor, timeout, unit=self.service, **options)

    def request(self, query='', **options):
        """One request through fcgi-load: (headers and body as text, what came on stderr)."""
        result = run(_load_command(self.listen[:1], ['--print'], {'query': query, **options}), timeout=60)
        return result.stdout, result.stderr


def slice_path(name):
    """/a.slice/a-b.slice of a-b.slice, with the escaping of template names left as it is."""
    if name == '-.slice':
        return ''
    parts = name.removesuffix('.slice').split('-')
    return ''.join(f'/{"-".join(parts[:n])}.slice' for n in range(1, len(parts) + 1))


class TemplatePool(Pool):
    """An instance of fcgi-pool@: NAME.env and drop-ins, otherwise as Pool.

    service and socket are the lines of drop-ins of the instance; user is the owner of the listening socket.
    """

    def __init__(self, name, command, options=(), *, service=None, socket=None, unit=None, env=None, start='service',
                 user='www-data', command_line=None):
        super().__init__(name, command, options, service=service, socket=socket, unit=unit, env=env, start=start,
                         user=user)
        self.service, self.socket = f'fcgi-pool@{name}.service', f'fcgi-pool@{name}.socket'
        self.command_line_text = command_line

    def default_listen(self):
        return f'/run/fcgi-pool/{self.name}.sock'

    def env_text(self):
        command = self.command_line_text
        if command is None:
            command = ' '.join(map(str, self.command or []))
        variables = {'FCGI_POOL_OPTIONS': ' '.join(self.options), 'FCGI_POOL_COMMAND': command, **self.env}
        return ''.join(f'{name}={self.env_value(value)}\n' for name, value in variables.items())

    @staticmethod
    def env_value(value):
        """As a person would write it: bare where that is safe, else in double quotes."""
        text = str(value)
        if re.fullmatch(r'[\w./:=,+@%-]*', text):
            return text
        return '"' + re.sub(r'([\\"$`])', r'\\\1', text) + '"'

    def write_env(self):
        self.write(ENV_DIRECTORY / f'{self.name}.env', self.env_text())

    def write_units(self):
        self.write_env()
        socket = f'[Socket]\nSocketUser={self.user}\nSocketGroup={self.user}\n{as_lines(self.extra_socket)}'
        self.write(SYSTEMD_UNITS / f'{self.socket}.d/50-test.conf', socket)
        if self.extra_service or self.extra_unit:
            self.write(SYSTEMD_UNITS / f'{self.service}.d/50-test.conf',
                       f'[Unit]\n{as_lines(self.extra_unit)}[Service]\n{as_lines(self.extra_service)}')
        reload_for(self.units())

    @property
    def cgroup(self):
        # Without Slice= a template instance lives in a slice of its template's name.
        path = self.show('ControlGroup')
        return CGROUP / (path or slice_path(self.show('Slice')) + '/' + self.service).lstrip('/')
