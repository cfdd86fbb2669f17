# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""Ten thousand workers replaced, one after the other, while clients go on."""

import contextlib
import os
import random
import signal
import time

import contenders
from scenario import Entry, Figure

TITLE = 'Recycling'
QUESTION = 'Workers are replaced because of their age or number of requests. How many requests does that cost?'
METHOD = '''64 workers under a closed loop of 48 clients, 2 ms each, until 10,000 workers have been replaced or 160 s
are over; all by the means of the manager, set so that it has to do it all the time: --max-lifetime=200ms of fcgi-pool,
RuntimeMaxSec=1s of systemd units, pm.max_requests=20 of php-fpm, --max-requests 20 of uWSGI. "SIGTERM by hand" is what
people do otherwise: one worker after the other gets SIGTERM, and multiwatch replaces it. Recycled workers are counted
by the pids that have answered requests. "per 1,000" is lost requests for each thousand of them.'''
FIGURES = [Figure('failed', 'requests lost', total=True), Figure('events', 'workers recycled', best='most', total=True),
           Figure('requests', 'requests', best=None, total=True),
           Figure('per_thousand', 'lost per 1,000 recycled', plot=True), Figure('max', 'slowest', 'ms')]
ROUNDS = 1
N_WORKERS, N_CLIENTS = 64, 48
N_RECYCLED, SECONDS = 10000, 160


def entries():
    own = {
        'fcgi-pool': {'pool': ['--max-lifetime=200ms']},
        'systemd': {'service': ['RuntimeMaxSec=1s', 'RuntimeRandomizedExtraSec=1s']},
        'php-fpm': {'more': 'pm.max_requests = 20'},
        'uwsgi': {'more': '--max-requests 20'},
    }
    by_hand = Entry(contenders.Multiwatch, 'SIGTERM by hand', extra=True)
    return [Entry(contenders.ALL[key], arguments=arguments) for key, arguments in own.items()] + [by_hand]


def terminate_one(contender):
    pids = contender.workers()
    if not pids:
        return  # all successors are late
    with contextlib.suppress(ProcessLookupError):
        os.kill(random.choice(pids), signal.SIGTERM)


def measure(entry, quick):
    n_workers, n_clients = (N_WORKERS // 4, N_CLIENTS // 4) if quick else (N_WORKERS, N_CLIENTS)
    with entry.make(n_workers=n_workers) as contender:
        seen = set(contender.workers())
        end = time.monotonic() + (4 if quick else SECONDS)
        with contender.load(clients=n_clients, query='sleep=2') as load:
            while time.monotonic() < end and len(seen) < n_workers + N_RECYCLED:
                if entry.extra:
                    terminate_one(contender)
                time.sleep(0.01)
                seen |= set(contender.workers())
            result = load.stop()
        n = len((seen | {int(pid) for pid in result['pids']}) - set(contender.workers()))
    return {'failed': result['failed'], 'events': n, 'requests': result['started'],
            'per_thousand': 1000 * result['failed'] / n if n else None,
            'max': result['latency_usec']['max'] / 1000, 'raw': {**result, 'pids': len(result['pids'])}}
