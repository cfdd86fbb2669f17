# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""What an idle manager does."""

import contextlib
import time

import costs
import scenario
from scenario import Figure

TITLE = 'Idle wakeups'
QUESTION = 'What does a manager do while nobody asks for anything?'
METHOD = '''All contenders stand side by side with four workers each and no load. Wakeups are the voluntary context
switches of all processes that are no workers, per minute; CPU time is theirs, too. fcgi-pool stands there twice: with
WatchdogSec=0, and as installed, where it answers systemd's watchdog and does nothing else. Plain systemd units have no
process of their own.'''
FIGURES = [Figure('wakeups', 'wakeups', 'per minute', plot=True), Figure('cpu', 'CPU time', 'ms per minute')]
ROUNDS = 1
KEYS = ('supervisor', 'multiwatch', 's6', 'start-server', 'php-fpm', 'uwsgi', 'fcgiwrap')
SETTLE = 3


def entries():
    pool, = scenario.entries('fcgi-pool', service=('WatchdogSec=0',))
    watched, = scenario.entries('fcgi-pool', suffix='watchdog', instance='-watchdog')
    return [pool, watched, *scenario.entries(*KEYS)]


def measure_round(entries, quick):
    with contextlib.ExitStack() as stack:
        standing = {entry.key: stack.enter_context(entry.make(n_workers=4)) for entry in entries}
        # Nothing tells when what the starts have left to do is over.
        time.sleep(SETTLE)
        pids = {key: contender.managers() for key, contender in standing.items()}
        begin = time.monotonic()
        before = {key: (costs.wakeups(pids[key]), costs.cpu_msec(pids[key])) for key in standing}
        time.sleep(5 if quick else 60)
        minutes = (time.monotonic() - begin) / 60
        return {key: {'wakeups': (costs.wakeups(pids[key]) - before[key][0]) / minutes,
                      'cpu': (costs.cpu_msec(pids[key]) - before[key][1]) / minutes} for key in standing}
