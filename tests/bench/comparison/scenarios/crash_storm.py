# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""Workers die all the time."""

import contextlib
import os
import random
import signal
import time

import costs
import scenario
from scenario import Figure

TITLE = 'Crash storm'
QUESTION = 'A worker is killed every 50 ms. Do clients still get in, what does it cost, and is all well afterwards?'
METHOD = '''As in the reload under load; for some seconds one worker of eight gets SIGKILL every 50 ms, at random. A
request inside a worker that is killed is lost whoever manages it, and no more than one for each kill can be: what is
more than that, and every refused connection, is the manager's. "complete after" is the time from the last kill until
all workers wait again, looked at for 40 s; "CPU", what the whole unit took, workers included.'''
FIGURES = [Figure('refused', 'refused', total=True), Figure('failed', 'requests lost', total=True),
           Figure('events', 'kills', best=None, total=True), Figure('served', 'answered', best='most', plot=True),
           Figure('complete', 'complete after', 's'), Figure('cpu', 'CPU', 'ms', best=None)]
ROUNDS = 2
PERIOD = 0.05
SECONDS = 5
LIMIT = 40


def entries():
    return scenario.entries('fcgi-pool', 'systemd', 'supervisor', 'multiwatch', 's6', 'start-server', 'php-fpm',
                            'uwsgi')


def storm(contender, seconds):
    n, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        pids = contender.workers()
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(random.choice(pids), signal.SIGKILL)
                n += 1
        time.sleep(PERIOD)
    return n


def measure(entry, quick):
    with entry.make() as contender:
        before = costs.all_cpu_msec()
        n, result, _ = scenario.under_load(contender, lambda: storm(contender, 1 if quick else SECONDS), tail=0,
                                           timeout=5)
        begin = time.monotonic()
        try:
            contender.wait_serving(LIMIT)
            complete = time.monotonic() - begin
        except AssertionError:
            complete = f'not within {LIMIT} s'
        cpu = costs.all_cpu_msec() - before
    return {'refused': result['failures']['refused'], 'failed': result['failed'], 'events': n, 'served': result['ok'],
            'complete': complete, 'cpu': cpu, 'raw': result}
