# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""Replacing all workers while one of them has a long request."""

import time

import scenario
from scenario import Figure, LOST

TITLE = 'Reload with a long request in flight'
QUESTION = 'All workers are replaced while one works on a request of 10 s. What becomes of it, and of the others?'
METHOD = '''As in the reload under load, with one client more, whose only request sleeps for 10 s, whatever signals
arrive. "long request" is what that client got; "longest silence", the longest time in which no client at all got an
answer; "told after", when the verb came back.'''
FIGURES = [Figure('long', 'long request', best=None), *LOST, Figure('gap', 'longest silence', 'ms', plot=True),
           Figure('told', 'told after', 's', best=None)]
ROUNDS = 1
SECONDS, QUICK_SECONDS = 10, 2


def entries():
    keys = [key for key in (*scenario.PROGRAM_KEYS, *scenario.OWN_KEYS) if key != 'supervisor-tuned']
    return scenario.entries(*keys)


def measure(entry, quick):
    seconds = QUICK_SECONDS if quick else SECONDS
    with entry.make() as contender:
        with contender.load(clients=1, duration=None, requests=1, query=f'sleep={seconds * 1000}') as long:
            def event():
                old = contender.workers()
                begin = time.monotonic()
                contender.replace_workers()
                told = time.monotonic() - begin
                contender.wait_replaced(old, seconds + 30)
                return told
            time.sleep(0.2)
            told, result, _ = scenario.under_load(contender, event)
            answer = long.finish()
    return {'long': scenario.failures(answer) or 'answered', **scenario.lost(result),
            'gap': result['longest_gap_usec'] / 1000, 'told': told, 'raw': {'long': answer, 'others': result}}
