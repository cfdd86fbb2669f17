# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""What the helper goes through while its workers serve: the events, and what must hold after each.

An event strikes two pools at the same moment, one on a UNIX socket and one on TCP; both are instances of the installed
template, with nothing but their addresses changed. Each event has a window of its own: the load begins, some requests
later the event strikes, and the load goes on until the event is over and a little longer. Nothing is ever tried again
by the load, so a request that fails is counted.

tests/bench/survival prints the table, test_survival.py is its short form, test_chaos.py has the events overlap.
"""

import collections
import contextlib
import dataclasses
import os
import pathlib
import random
import re
import shutil
import signal
import statistics
import time

import lib

SOURCE = pathlib.Path(__file__).resolve().parents[2]
MESSAGE = dict(re.findall(r'#define MESSAGE_(\w+)\s+"([0-9a-f]{32})"',
                          (SOURCE / 'src/common/message-ids.h').read_text()))
BINARY = pathlib.Path('/usr/bin/fcgi-pool')
UNITS = next(path for path in map(pathlib.Path, ('/usr/lib/systemd/system', '/lib/systemd/system'))
             if (path / 'fcgi-pool@.service').exists())
PROGRAMS = pathlib.Path('/usr/local/lib/fcgi-pool-tests')

N_WORKERS = 4
N_CLIENTS = 16
N_STORED_BESIDE = 3  # state, leash and control
LEAD, TAIL = 0.25, 0.35  # seconds of load before the event and after its end
QUIET = 1.6  # length of an undisturbed window: that of most others
RESTART_TIMEOUT = 60
LOG_ERR = 3  # PRIORITY=, worse ones below


def install_echo():
    """The echo program where the sandbox of the template does not hide it; returns its path."""
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    return shutil.copy(lib.tool('fcgi-echo'), PROGRAMS / 'survival-echo')


class Survivor(lib.TemplatePool):
    """An instance of the template, on its own UNIX socket or on a TCP address."""

    def __init__(self, name, echo, *, tcp=None, n_workers=N_WORKERS, service=None):
        super().__init__(name, [echo, '--graceful'], [f'--workers={n_workers}'], service=service,
                         socket=['ListenStream=', f'ListenStream={tcp}'] if tcp else None)
        self.n_workers = n_workers
        self.n_processes = n_workers + 2
        if tcp:
            self.listen = [tcp]

    @property
    def n_stored(self):
        return int(self.show('NFileDescriptorStore'))

    def guardians(self):
        return lib.cgroup_pids(self.cgroup / 'guardian')

    def wait_ready(self, since):
        """Waits until a helper says that the pool is ready, or is ready again."""
        self.wait_journal(since=since, timeout=RESTART_TIMEOUT, MESSAGE_ID=MESSAGE['POOL_STARTED'])

    def problems(self):
        """What is wrong with a pool at rest; waits a moment for what may be on its way."""
        found = []

        def expect(what, question, good):
            last = None

            def answer():
                nonlocal last
                last = question()
                return good(last)
            try:
                lib.wait_until(answer)
            except AssertionError:
                found.append(f'{self.name}: {what}: {last}')

        expect('state', lambda: lib.show_all(self.service, 'ActiveState', 'SubState'),
               lambda s: s == {'ActiveState': 'active', 'SubState': 'running'})
        expect(f'number of workers, not {self.n_workers}', lambda: self.workers(), lambda w: len(w) == self.n_workers)
        expect('slots', lambda: sorted(self.slots()), lambda s: s == list(range(self.n_workers)))
        expect('number of guardians', self.guardians, lambda g: len(g) == 1)
        expect(f'descriptors stored, not {self.n_workers + N_STORED_BESIDE}', lambda: self.n_stored,
               lambda n: n == self.n_workers + N_STORED_BESIDE)
        expect('processes, zombies included', lambda: lib.cgroup_pids(self.cgroup, zombies=True),
               lambda p: len(p) == self.n_processes)
        expect('status', lambda: self.status_text,
               lambda s: lib.is_complete(s, self.n_workers))
        return found


# --- events ---

def restart(pools):
    lib.systemctl('restart', *(pool.service for pool in pools))


def try_restart(pools):
    lib.systemctl('try-restart', *(pool.service for pool in pools))


def _signal_helpers(pools, signo):
    for pid in [pool.main_pid for pool in pools]:
        os.kill(pid, signo)


def _crash(signo):
    def strike(pools):
        since = lib.journal_cursor()
        _signal_helpers(pools, signo)
        for pool in pools:
            pool.wait_ready(since)
    return strike


def watchdog(pools):
    """Nobody answers until PID 1 loses patience: SIGABRT."""
    _crash(signal.SIGSTOP)(pools)


def roll(pools):
    since = lib.journal_cursor()
    _signal_helpers(pools, signal.SIGHUP)
    for pool in pools:
        pool.wait_journal(since=since, timeout=RESTART_TIMEOUT, MESSAGE_ID=MESSAGE['ROLLED'])


def daemon_reload(_pools):
    lib.daemon_reload()


def daemon_reexec(_pools):
    lib.systemctl('daemon-reexec', check=False)  # its connection may end before the answer
    # The old image answers nothing any more.
    lib.wait_until(lambda: lib.systemctl('show', '--property=Version', check=False).returncode == 0, 30)


class MissedWindow(Exception):
    """systemd was faster than the test: nothing went wrong, and nothing was shown."""


def daemon_reexec_between(pools):
    """PID 1 executes itself anew after the helper's death and before its next start."""
    since = lib.journal_cursor()
    _signal_helpers(pools, signal.SIGKILL)
    try:
        for pool in pools:
            lib.wait_until(lambda: pool.show('SubState') == 'auto-restart', 5, f'{pool.service} to wait for its restart',
                           interval=0.002)
    except AssertionError as error:
        for pool in pools:
            pool.wait_ready(since)
        raise MissedWindow(error) from None
    daemon_reexec(pools)
    for pool in pools:
        pool.wait_ready(since)
    order = [text for text in lib.messages(since_cursor=since, _PID='1')
             if re.search('^Reexecuting|Scheduled restart job', text)]
    if not order or not order[0].startswith('Reexecuting'):
        raise MissedWindow(order)


def _replace(path):
    """As dpkg does it: the new file beside the old one, then over it."""
    new = path.with_name(path.name + '.dpkg-new')
    shutil.copy2(path, new)
    os.rename(new, path)


def reinstall_files():
    for path in (BINARY, UNITS / 'fcgi-pool@.service', UNITS / 'fcgi-pool@.socket'):
        _replace(path)


def reinstall(pools):
    """What a package upgrade does: files, daemon-reload, restart."""
    reinstall_files()
    lib.daemon_reload()
    restart(pools)


def reinstall_roll(pools):
    """An upgrade that is followed by SIGHUP instead of a restart: the new program takes over in place, then rolls."""
    reinstall_files()
    lib.daemon_reload()
    roll(pools)


def socket_restart(pools):
    since = lib.journal_cursor()
    lib.systemctl('restart', *(pool.socket for pool in pools))
    for pool in pools:
        pool.wait_ready(since)


def nothing(_pools):
    """What all others are compared with."""
    time.sleep(QUIET - LEAD - TAIL)


@dataclasses.dataclass(frozen=True)
class Event:
    name: str
    strike: collections.abc.Callable
    same_workers: bool = True
    same_helper: bool = False
    may_refuse: bool = False  # connections that no worker has accepted
    share: float = 1  # of the number of repetitions


EVENTS = {event.name: event for event in (
    # As many requests as the longest of the others see, for the slowest of more requests is slower.
    Event('undisturbed', nothing, same_helper=True, share=2),
    Event('restart', restart, same_workers=False),
    Event('try-restart', try_restart, same_workers=False),
    Event('SIGKILL', _crash(signal.SIGKILL)),
    Event('SIGSEGV', _crash(signal.SIGSEGV)),
    Event('SIGABRT', _crash(signal.SIGABRT)),
    Event('watchdog', watchdog, share=0.1),
    Event('re-exec', _crash(signal.SIGUSR2), same_helper=True),
    Event('roll', roll, same_workers=False, same_helper=True),
    Event('daemon-reload', daemon_reload, same_helper=True),
    Event('daemon-reexec', daemon_reexec, same_helper=True),
    Event('SIGKILL, daemon-reexec', daemon_reexec_between),
    Event('reinstall, restart', reinstall, same_workers=False),
    Event('reinstall, roll', reinstall_roll, same_workers=False, same_helper=True),
    Event('socket restart', socket_restart, same_workers=False, may_refuse=True),
)}


# --- windows ---

@dataclasses.dataclass
class Window:
    """One event, what the load saw of it and what is wrong."""
    event: str
    seconds: float = 0
    n_requests: int = 0
    failures: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    p999_ms: float = 0
    max_ms: float = 0
    gap_ms: float = 0
    port_waits: int = 0
    missed: bool = False
    violations: list = dataclasses.field(default_factory=list)

    def add_load(self, name, result, may_refuse, struck_at):
        failures = {kind: n for kind, n in result['failures'].items() if n}
        self.n_requests += result['started']
        self.failures.update(failures)
        latency = result['latency_usec']
        self.p999_ms = max(self.p999_ms, latency['p999'] / 1000)
        self.max_ms = max(self.max_ms, latency['max'] / 1000)
        self.gap_ms = max(self.gap_ms, result['longest_gap_usec'] / 1000)
        self.port_waits += result['port_waits']
        # A listener that is closed resets those who wait in its backlog; each client has one connection.
        queued = failures.get('reset', 0) + failures.get('eof', 0)
        bad = [kind for kind in failures if not may_refuse or kind not in ('refused', 'reset', 'eof')]
        if bad or queued > N_CLIENTS or failures and result['first_failure_at'] < struck_at:
            self.violations.append(f'{name}: {failures}, the first {result["first_failure_at"] - struck_at:.3f} s after '
                                   f'the event: {result["first_failure"]}')


def strike_under_load(event, pools):
    """Runs one event under load on each pool, and looks at what is left afterwards."""
    window = Window(event.name)
    workers = {pool: set(pool.workers()) for pool in pools}
    helpers = {pool: pool.main_pid for pool in pools}
    cursor = lib.journal_cursor()

    with contextlib.ExitStack() as stack:
        begin = time.monotonic()
        loads = {pool: stack.enter_context(lib.BackgroundLoad(pool, clients=N_CLIENTS, duration=300))
                 for pool in pools}
        time.sleep(LEAD)
        struck_at = time.monotonic() - begin
        try:
            event.strike(pools)
        except MissedWindow:
            window.missed = True
        except AssertionError as error:
            window.violations.append(f'{event.name}: {error}')
        time.sleep(TAIL)
        results = {pool: load.stop() for pool, load in loads.items()}
        window.seconds = time.monotonic() - begin

    for pool, result in results.items():
        # Its clock has started a little later than ours.
        window.add_load(pool.name, result, event.may_refuse, struck_at - LEAD)
        window.violations += pool.problems()
        now = set(pool.workers())
        if event.same_workers and now != workers[pool]:
            window.violations.append(f'{pool.name}: workers {sorted(workers[pool])} have become {sorted(now)}')
        if not event.same_workers and now & workers[pool]:
            window.violations.append(f'{pool.name}: workers {sorted(now & workers[pool])} were not replaced')
        strangers = {int(pid) for pid in result['pids']} - workers[pool] - now
        if strangers:
            window.violations.append(f'{pool.name}: requests answered by {sorted(strangers)}, who are no workers of '
                                     'before or after')
        helper = pool.find_main_pid()
        if (helper == helpers[pool]) != event.same_helper:
            window.violations.append(f'{pool.name}: main process {helpers[pool]} has become {helper}')
        window.violations += [f'{pool.name}: logged: {entry["MESSAGE"]}' for entry in pool.journal(cursor)
                              if int(entry.get('PRIORITY', 6)) <= LOG_ERR
                              and entry.get('_PID') != '1']
    return window


class Campaign:
    """All events in random order, `count` times each."""

    def __init__(self, count, seed, events=None, say=lambda text: None):
        self.seed, self.say, self.windows = seed, say, []
        self.plan = [EVENTS[name] for name in events or EVENTS
                     for _ in range(max(1, round(count * EVENTS[name].share)))]
        random.Random(seed).shuffle(self.plan)

    def run(self):
        echo = install_echo()
        with Survivor('survive-unix', echo) as unix, Survivor('survive-tcp', echo, tcp='127.0.0.1:9301') as tcp:
            pools = [unix, tcp]
            for pool in pools:
                pool.wait_workers(pool.n_workers)
            strike_under_load(EVENTS['undisturbed'], pools)  # what happens only once is not measured
            for i, event in enumerate(self.plan):
                window = strike_under_load(event, pools)
                self.windows.append(window)
                self.say(f'{i + 1}/{len(self.plan)} {event.name}: {window.n_requests} requests, '
                         f'{sum(window.failures.values())} failed, longest {window.max_ms:.1f} ms'
                         + ''.join(f'\n    {text}' for text in window.violations))
                if any(pool.active_state != 'active' for pool in pools):
                    self.say('A pool is down, ending here')
                    break
        return self

    @property
    def violations(self):
        return [f'{window.event}: {text}' for window in self.windows for text in window.violations]

    def rows(self):
        quiet = [window for window in self.windows if window.event == 'undisturbed']
        quiet_max = max((window.max_ms for window in quiet), default=None)
        rows = []
        for name in EVENTS:
            windows = [window for window in self.windows if window.event == name and not window.missed]
            missed = sum(window.event == name and window.missed for window in self.windows)
            if not windows:
                continue
            failures = sum((window.failures for window in windows), collections.Counter())
            rows.append({
                'event': name, 'n': len(windows), 'missed': missed,
                'requests': sum(window.n_requests for window in windows),
                'failures': dict(failures),
                'workers': 'kept' if EVENTS[name].same_workers else 'replaced',
                'helper': 'kept' if EVENTS[name].same_helper else 'new',
                'p999_ms': statistics.median(window.p999_ms for window in windows),
                'max_median_ms': statistics.median(window.max_ms for window in windows),
                'max_ms': max(window.max_ms for window in windows),
                'longer_ms': max(window.max_ms for window in windows) - quiet_max if quiet_max else None,
                'gap_ms': max(window.gap_ms for window in windows),
                'port_waits': sum(window.port_waits for window in windows),
                'violations': sum(len(window.violations) for window in windows),
            })
        return rows


def markdown(rows):
    head = ['event', 'n', 'requests', 'failed', 'workers', 'helper', 'p99.9 ms', 'longest ms', '(median)',
            'over undisturbed', 'longest silence ms', 'wrong']
    lines = [head, ['---'] + ['---:'] * (len(head) - 1)]
    for row in rows:
        failed = ', '.join(f'{n} {kind}' for kind, n in sorted(row['failures'].items())) or '0'
        longer = '' if row['longer_ms'] is None or row['event'] == 'undisturbed' else f'{row["longer_ms"]:+.1f}'
        lines.append([row['event'], str(row['n']) + (f' (+{row["missed"]} missed)' if row['missed'] else ''),
                      row['requests'], failed, row['workers'], row['helper'], f'{row["p999_ms"]:.1f}',
                      f'{row["max_ms"]:.1f}', f'{row["max_median_ms"]:.1f}', longer, f'{row["gap_ms"]:.1f}',
                      row['violations']])
    return '\n'.join('| ' + ' | '.join(map(str, line)) + ' |' for line in lines)
