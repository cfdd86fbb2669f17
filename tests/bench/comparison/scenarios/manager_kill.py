# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""The manager dies."""

import contextlib
import time

import lib
import scenario
from scenario import Figure, LOST

TITLE = 'SIGKILL of the manager'
QUESTION = 'The manager is killed, as the OOM killer would do it. What do clients notice, and who is in charge then?'
METHOD = '''As in the reload under load, with SIGKILL to the main process of the service. "in charge again" is the time
until there is a new main process and all workers wait, looked at for eight seconds; "old workers left" is how many of
the workers of before are there then beside those of the new manager, in nobody's hands. supervisor stands there with
Debian's unit (KillMode=process, RestartSec=50s) and with a better one. Plain systemd instances have no manager but PID
1.'''
FIGURES = [*LOST, Figure('gap', 'longest silence', 'ms', plot=True), Figure('again', 'in charge again', 's'),
           Figure('orphans', 'old workers left', total=True)]
ROUNDS = 2
LIMIT = 8


def entries():
    keys = [key for key in scenario.PROGRAM_KEYS if key != 'systemd']
    return scenario.entries(*keys, 'fcgi-pool-php', 'php-fpm', 'uwsgi')


def measure(entry, quick):
    limit = 3 if quick else LIMIT
    with entry.make() as contender:
        main, old = contender.main_pid, set(contender.workers())

        def event():
            begin = time.monotonic()
            contender.kill_manager()
            with contextlib.suppress(AssertionError):
                lib.wait_until(lambda: contender.find_main_pid() not in (0, main) and
                               len(contender.workers()) >= contender.n_workers, limit)
                return time.monotonic() - begin
            return None
        again, result, _ = scenario.under_load(contender, event, tail=1)
        left = old & set(contender.workers())
        adopted = left and not set(contender.workers()) - left
        orphans = 0 if adopted and again is not None else len(left)
    return {**scenario.lost(result), 'gap': result['longest_gap_usec'] / 1000,
            'again': f'not within {limit} s' if again is None else again, 'orphans': orphans, 'raw': result}
