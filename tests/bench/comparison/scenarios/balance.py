# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""Whether workers get the same share of the requests."""

import statistics

import scenario
from scenario import Figure

TITLE = 'Balance'
QUESTION = 'Do all workers get the same share when there are fewer clients than workers?'
METHOD = '''Eight workers, two clients in a closed loop without sleep, for two seconds. "variation" is the standard
deviation of the number of requests of each worker, those without any included, divided by the mean. Who waits in
accept() is served in the order of coming, whoever has started it; uWSGI's workers wait by epoll, where the last one to
come is the first.'''
FIGURES = [Figure('variation', 'variation', plot=True), Figure('least', 'fewest requests of a worker', best='most')]
ROUNDS = 3
KEYS = ('fcgi-pool', 'systemd', 'supervisor', 'multiwatch', 's6', 'php-fpm', 'uwsgi')


def entries():
    return scenario.entries(*KEYS)


def measure(entry, quick):
    with entry.make() as contender:
        result = contender.load_now(clients=2, duration=0.5 if quick else 2)
    shares = sorted(result['pids'].values(), reverse=True)
    shares += [0] * (contender.n_workers - len(shares))
    return {'variation': statistics.pstdev(shares) / statistics.mean(shares), 'least': min(shares), 'raw': result}
