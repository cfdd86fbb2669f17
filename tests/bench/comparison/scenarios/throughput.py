# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""What the manager costs each request."""

import contextlib

import costs
import scenario
from scenario import Entry, Figure

TITLE = 'Throughput'
QUESTION = 'How many requests can be answered, beside workers that somebody has just started on the socket?'
METHOD = '''Four workers that run the same program, four clients in a closed loop without sleep. All contenders stand
side by side and take turns, a tenth of a second at a time; all are started anew in each round, since some layouts of a
process in memory are faster than others for as long as it lives. "bare" is a loop of fork and exec, "bare, again" a
second one: what lies between the two is the machine's. fcgi-pool stands there in its template, whose system call
filter costs each system call of a worker something, and without sandbox as all others. systemd-socket-proxyd, before a
bare one, is not a manager of workers: it shows what it costs to be in the way. CPU time is what workers took for a
request.'''
FIGURES = [Figure('rate', 'requests', 'per second', best='most', plot=True), Figure('p99', 'p99', 'ms'),
           Figure('cpu', 'CPU per request', 'us')]
ROUNDS = 16
KEYS = ('systemd', 'supervisor', 'multiwatch', 's6', 'socket-proxyd')
N_WORKERS = 4
N_TURNS, SECONDS = 12, 0.1
NO_SANDBOX = (
    'SystemCallFilter=', 'SystemCallArchitectures=', 'RestrictAddressFamilies=', 'TemporaryFileSystem=',
    'ProtectSystem=no', 'ProtectProc=default', 'ProcSubset=all', 'IPAddressDeny=', 'IPAddressAllow=',
    *(f'{name}=no' for name in ('RestrictNamespaces', 'RestrictRealtime', 'RestrictSUIDSGID', 'LockPersonality',
                                'ProtectKernelModules', 'ProtectKernelLogs', 'ProtectKernelTunables', 'ProtectClock',
                                'ProtectHostname', 'ProtectHome', 'PrivateDevices', 'PrivateMounts')))


def entries():
    pool, bare = scenario.entries('fcgi-pool', 'bare')
    return [pool, Entry(pool.contender, 'no sandbox', {'service': NO_SANDBOX, 'instance': '-free'}), bare,
            Entry(bare.contender, 'again', {'instance': '-again'}), *scenario.entries(*KEYS)]


def measure_round(entries, quick):
    n_turns = 1 if quick else N_TURNS
    with contextlib.ExitStack() as stack:
        standing = {entry.key: stack.enter_context(entry.make(n_workers=N_WORKERS)) for entry in entries}
        results, cpu = {key: [] for key in standing}, dict.fromkeys(standing, 0)
        for contender in standing.values():
            contender.load_now(clients=N_WORKERS, duration=0.2)
        for i in range(n_turns):
            # There and back, so that who comes later in one turn comes earlier in the next.
            for key in list(standing)[::-1 if i % 2 else 1]:
                before = costs.cpu_msec(standing[key].workers())
                results[key].append(standing[key].load_now(clients=N_WORKERS, duration=SECONDS))
                cpu[key] += costs.cpu_msec(standing[key].workers()) - before
    return {key: summary(results[key], cpu[key]) for key in standing}


def summary(results, cpu):
    n = sum(result['ok'] for result in results)
    assert not any(result['failed'] for result in results), [result['first_failure'] for result in results]
    return {'rate': n / sum(result['duration'] for result in results),
            'p99': max(result['latency_usec']['p99'] for result in results) / 1000, 'cpu': 1000 * cpu / n,
            'raw': results}
