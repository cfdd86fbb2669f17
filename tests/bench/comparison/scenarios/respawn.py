# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""How soon a worker that has died is replaced."""

import json
import os
import signal
import sys
import time

import lib
import scenario
from contender import current_syscall
from scenario import Figure

TITLE = 'Respawn latency'
QUESTION = 'A worker dies. How soon does the next one wait for requests?'
METHOD = '''SIGKILL to one worker of four, the longest-serving one, at an arbitrary moment of the manager's own cycle,
again and again with a pause in between; the time until its successor is asleep in accept(), looked for every 20 us
(fork-exec-bench), from a CPU that manager and workers do not use. The workers of php-fpm and uWSGI wait on another
descriptor or by epoll: they are looked for every millisecond. "bare" is a loop of wait, fork and exec. A worker that
dies within a second of its start counts as a failed start for some, so the pause is such that each has lived longer. s6
starts a service at most once a second.'''
FIGURES = [Figure('p50', 'p50', 'ms', plot=True), Figure('p90', 'p90', 'ms'), Figure('max', 'max', 'ms')]
ROUNDS = 4
KEYS = ('fcgi-pool', 'bare', 'multiwatch', 'systemd', 'supervisor', 's6', 'start-server', 'fcgiwrap', 'php-fpm',
        'uwsgi')
N_WORKERS = 4
PAUSE_MS = 300
TIMEOUT = 4


def entries():
    return scenario.entries(*KEYS, n_workers=N_WORKERS)


def by_watching(contender, n):
    """By the detector that is the same for all who have their workers wait in accept() on descriptor 0."""
    command = [lib.tool('fork-exec-bench'), f'--rounds={n}', f'--settle={PAUSE_MS}', f'--timeout={TIMEOUT}',
               f'--watch={contender.descendants_of()}', *(['--recursive'] if contender.nested else [])]
    result = lib.run(command, check=False, timeout=300)
    if result.returncode != 0:
        print(result.stderr, file=sys.stderr)
        return None
    return {name: usec / 1000 for name, usec in json.loads(result.stdout)['usec'].items()}


def by_looking(contender, n):
    samples = []
    for _ in range(n):
        time.sleep(PAUSE_MS / 1000)
        old = contender.workers()
        begin = time.monotonic()
        os.kill(old[0], signal.SIGKILL)
        try:
            lib.wait_until(lambda: [pid for pid in contender.workers()
                                    if pid not in old and current_syscall(pid) in contender.waits_in],
                           TIMEOUT, 'a new worker', interval=0.001)
        except AssertionError as error:
            print(error, file=sys.stderr)
            return None
        samples.append((time.monotonic() - begin) * 1000)
    samples.sort()
    return {'p50': samples[len(samples) // 2], 'p90': samples[len(samples) * 9 // 10], 'max': samples[-1]}


def measure(entry, quick):
    with entry.make() as contender:
        # The first deaths shall not count as early ones.
        time.sleep(1)
        look = by_watching if contender.accepts_on_stdin else by_looking
        latencies = look(contender, 3 if quick else 12)
    if latencies is None:
        return {figure.key: 'never' for figure in FIGURES}
    return {figure.key: latencies[figure.key] for figure in FIGURES}
