# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""What is left when a service is stopped."""

import contextlib
import os
import pathlib
import signal
import time

import lib
import scenario
from scenario import Figure

TITLE = 'Orphans after stop'
QUESTION = 'Each worker has started three processes in sessions of their own. The service is stopped; what is left?'
METHOD = '''Eight workers, each with three children that have called setsid() and ignore SIGTERM and SIGUSR1, then
`systemctl stop`; "left" is how many of the 24 children and 8 workers are still there a second later. Only for managers
that run programs of the user's.'''
FIGURES = [Figure('left', 'processes left', total=True, plot=True), Figure('seconds', 'stop took', 's')]
ROUNDS = 2
APP = '''#!/bin/sh
for i in 1 2 3; do
        setsid sh -c 'trap "" TERM USR1; exec sleep 31415' </dev/null >/dev/null 2>&1 &
done
exec {program}
'''


def entries():
    return scenario.entries(*scenario.PROGRAM_KEYS)


def sleepers():
    found = []
    for entry in os.listdir('/proc'):
        if entry.isdigit() and lib.command_line(int(entry)) == 'sleep 31415':
            found.append(int(entry))
    return found


def measure(entry, quick):
    contender = entry.make()
    contender.application.files = {'app': APP.format(program=contender.program)}
    with contender:
        workers = contender.workers()
        lib.wait_until(lambda: len(sleepers()) == 3 * len(workers), what='three children of each worker')
        begin = time.monotonic()
        contender.stop_manager()
        seconds = time.monotonic() - begin
        time.sleep(1)
        left = [pid for pid in [*sleepers(), *workers] if pathlib.Path(f'/proc/{pid}').exists()]
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    return {'left': len(left), 'seconds': seconds}
