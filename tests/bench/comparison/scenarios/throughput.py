# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""What the manager costs each request."""

import costs
import scenario
from scenario import Entry, Figure

TITLE = 'Throughput'
QUESTION = 'How many requests can be answered, beside workers that somebody has just started on the socket?'
METHOD = '''Four workers that run the same program, four clients in a closed loop without sleep, half a second at a
time; all are started anew in each round, since some layouts of a process in memory are faster than others for as long
as it lives. "bare" is a loop of fork and exec, "bare, again" a second one, which shows what the machine adds by
itself. systemd-socket-proxyd, before a bare one, is not a manager of workers: it shows what it costs to be in the way.
CPU time is what workers took for a request.'''
FIGURES = [Figure('rate', 'requests', 'per second', best='most', plot=True), Figure('p99', 'p99', 'ms'),
           Figure('cpu', 'CPU per request', 'us')]
ROUNDS = 8
KEYS = ('fcgi-pool', 'systemd', 'supervisor', 'multiwatch', 's6', 'socket-proxyd')


def entries():
    bare, = scenario.entries('bare')
    return [*scenario.entries(*KEYS, n_workers=4), Entry(bare.contender, arguments={'n_workers': 4}),
            Entry(bare.contender, 'again', {'n_workers': 4})]


def measure(entry, quick):
    with entry.make() as contender:
        contender.load_now(clients=4, duration=0.2)
        results, cpu = [], 0
        for _ in range(1 if quick else 2):
            before = costs.cpu_msec(contender.workers())
            results.append(contender.load_now(clients=4, duration=0.5))
            cpu += costs.cpu_msec(contender.workers()) - before
    n = sum(result['ok'] for result in results)
    assert not any(result['failed'] for result in results), [result['first_failure'] for result in results]
    return {'rate': n / sum(result['duration'] for result in results),
            'p99': max(result['latency_usec']['p99'] for result in results) / 1000, 'cpu': 1000 * cpu / n,
            'raw': results}
