# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""A program that cannot start, for a while."""

import os
import pathlib
import re
import signal
import time

import costs
import scenario
from scenario import Figure

TITLE = 'Crash loop'
QUESTION = 'The application exits at its start, for eight seconds; then it is mended. Is the socket still there?'
METHOD = '''The program is replaced by one that exits at once with status 3, then all eight workers are killed. Two
clients go on, with a limit of 30 s for each request. "refused" are refused connections, of those who came while nobody
could answer; "starts", the processes that were started on the whole machine meanwhile, per second; "CPU", what the
unit took, per second. After eight seconds the good program is back: "first answer" is the time from then until a new
request was answered, looked at for 40 s, without anybody doing anything more.'''
FIGURES = [Figure('refused', 'refused', total=True, plot=True), Figure('starts', 'starts', 'per second', best=None),
           Figure('cpu', 'CPU', 'ms per second'), Figure('first', 'first answer', 's', plot=True)]
ROUNDS = 2
SECONDS, QUICK_SECONDS = 8, 3
LIMIT = 40
KEYS = ('fcgi-pool', 'systemd', 'supervisor', 'multiwatch', 's6', 'start-server')


def entries():
    return scenario.entries(*KEYS)


def n_started():
    return int(re.search(r'^processes (\d+)$', pathlib.Path('/proc/stat').read_text(), re.MULTILINE).group(1))


def first_answer(contender, limit):
    begin = time.monotonic()
    while time.monotonic() < begin + limit:
        # Who waits in the backlog is not asked to come again.
        if contender.answers(begin + limit - time.monotonic()):
            return time.monotonic() - begin
        time.sleep(0.02)
    return f'not within {limit} s'


def measure(entry, quick):
    seconds = QUICK_SECONDS if quick else SECONDS
    with entry.make() as contender:
        contender.application.deploy_broken('exits at once')
        before = n_started(), costs.all_cpu_msec()
        with contender.load(clients=2, timeout=30) as load:
            for pid in contender.workers():
                os.kill(pid, signal.SIGKILL)
            time.sleep(seconds)
            starts = (n_started() - before[0]) / seconds
            cpu = (costs.all_cpu_msec() - before[1]) / seconds
            contender.application.deploy_good()
            first = first_answer(contender, LIMIT)
            result = load.stop()
    return {'refused': result['failures']['refused'], 'starts': starts, 'cpu': cpu, 'first': first, 'raw': result}
