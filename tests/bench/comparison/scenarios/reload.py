# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""Replacing all workers under load, the way each manager has for it."""

import statistics
import time

import scenario
from scenario import Figure, LOST

TITLE = 'Reload under load'
QUESTION = 'A new version is deployed and all workers are replaced while clients go on. What do they notice?'
METHOD = '''Eight workers, six clients that send FastCGI requests directly, one at a time each, and never try anything
again; a request sleeps for 20 ms. First nothing happens, for the latency to compare with; then the workers are
replaced by the verb that users have for it, again every 1.5 s, or when it is through if it takes longer. multiwatch,
alone and with spawn-fcgi, has no reload: its service is restarted. Plain systemd instances are restarted one by one by
a script. Each worker that runs a program gets the signal that lets libfcgi end its request; php-fpm is there with its
default, process_control_timeout=0, and with 30 s; uWSGI with its chain reload and with SIGHUP. p99.9 is a ratio to
undisturbed in the same round. "seconds" is the time until no old worker is left.'''
FIGURES = [*LOST, Figure('p999_ratio', 'p99.9 / undisturbed', plot=True), Figure('p999', 'p99.9', 'ms'),
           Figure('max', 'slowest', 'ms'), Figure('gap', 'longest silence', 'ms', plot=True),
           Figure('seconds', 'all replaced after', 's')]
ROUNDS = 3
PERIOD = 1.5
N_RELOADS = 4


def entries():
    return scenario.entries(*scenario.PROGRAM_KEYS, *scenario.OWN_KEYS)


def reloads(contender, n):
    seconds = []
    end = time.monotonic() + PERIOD * N_RELOADS
    while len(seconds) < n and time.monotonic() < end:
        contender.application.deploy_good()
        begin = time.monotonic()
        old = contender.workers()
        contender.replace_workers()
        contender.wait_replaced(old)
        seconds.append(time.monotonic() - begin)
        time.sleep(max(begin + PERIOD - time.monotonic(), 0))
    return seconds


def measure(entry, quick):
    n = 1 if quick else N_RELOADS
    with entry.make() as contender:
        _, quiet, _ = scenario.under_load(contender, lambda: time.sleep(PERIOD * n))
        seconds, result, _ = scenario.under_load(contender, lambda: reloads(contender, n))
    p999, quiet_p999 = (each['latency_usec']['p999'] / 1000 for each in (result, quiet))
    return {**scenario.lost(result, len(seconds)), 'p999_ratio': p999 / quiet_p999, 'p999': p999,
            'max': result['latency_usec']['max'] / 1000, 'gap': result['longest_gap_usec'] / 1000,
            'seconds': statistics.median(seconds), 'raw': {'quiet': quiet, 'reloads': result, 'seconds': seconds}}
