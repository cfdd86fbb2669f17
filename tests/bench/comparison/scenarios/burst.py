# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""A burst of clients on a pool at rest."""

import time

import contenders
import queue_watch
from scenario import Entry, Figure

TITLE = 'Burst'
QUESTION = '64 clients come at once to a pool that is at its floor. How soon does nobody wait any more?'
METHOD = '''All clients connect at once and go on for three seconds, one request at a time each, which sleeps for 100
ms. "queue empty" is the time from the first connect until nobody waits to be accepted and nobody does for half a
second ("no": not within the three seconds). fcgi-pool runs the C program, and php-cgi as php-fpm does; each php-cgi is
a new program with its own start, where php-fpm forks one that has started already. uWSGI's cheaper mode adds a worker
per second or so.'''
FIGURES = [Figure('empty', 'queue empty', 'ms', plot=True), Figure('p50', 'p50', 'ms'),
           Figure('p99', 'p99', 'ms', plot=True), Figure('workers', 'workers in the end', best=None),
           Figure('failed', 'requests lost', total=True)]
ROUNDS = 3
N_CLIENTS = 64
SECONDS = 3
SETTLE = 0.5


def entries():
    def entry(key, n, suffix='', **arguments):
        return Entry(contenders.ALL[key], suffix, {'n_workers': n, **arguments})
    return [entry('fcgi-pool', 0, '0:64', size='0:64'), entry('fcgi-pool', 2, '2:64', size='2:64'),
            entry('fcgi-pool-php', 2, '2:64', size='2:64'), entry('php-fpm-ondemand', 0),
            entry('php-fpm-dynamic', 2), entry('uwsgi', 2, 'cheaper', n_max=64,
                                               more='--cheaper 2 --cheaper-initial 2 --cheaper-step 8')]


def measure(entry, quick):
    with entry.make() as contender:
        # Nothing tells when what a start has left to do is over.
        time.sleep(SETTLE)
        with queue_watch.QueueWatch(contender.listen[0]) as watch:
            result = contender.load_now(clients=N_CLIENTS, duration=SECONDS, query='sleep=100')
            n_workers = len(contender.workers())
        until_empty = queue_watch.seconds_until_empty(watch.samples)
    latency = result['latency_usec']
    return {'empty': 'no' if until_empty is None else until_empty * 1000, 'p50': latency['p50'] / 1000,
            'p99': latency['p99'] / 1000, 'workers': n_workers, 'failed': result['failed'], 'raw': result}
