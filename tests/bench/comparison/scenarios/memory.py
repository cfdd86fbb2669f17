# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""How much memory a manager takes, by the number of its workers."""

import time

import costs
import scenario
from scenario import Entry, Figure

TITLE = 'Memory of the manager'
QUESTION = 'How much memory do the processes take that are there besides the workers?'
METHOD = '''Private memory is what would be free without these processes: pages that nobody else has, of files as well
(smaps_rollup, Private_Clean and Private_Dirty), the dirty part of it, and the proportional share (Pss) of all pages.
All processes of the unit that are no workers count: of fcgi-pool the helper and its guardian, of s6 each s6-supervise,
the scanner and s6-fdholderd. A pool of plain systemd units has no process of its own; what PID 1 grows by from before
its start is given instead.'''
FIGURES = [Figure('private', 'private', 'kB', plot=True), Figure('dirty', 'of it dirty', 'kB'),
           Figure('pss', 'proportional', 'kB'), Figure('processes', 'processes', best='least')]
ROUNDS = 2
KEYS = ('fcgi-pool', 'systemd', 'supervisor', 'multiwatch', 's6', 'start-server', 'php-fpm', 'uwsgi', 'fcgiwrap')
SETTLE = 0.3


def entries():
    return [Entry(each.contender, str(n), {'n_workers': n}) for n in (4, 32, 128)
            for each in scenario.entries(*KEYS)]


def measure(entry, quick):
    contender = entry.make()
    before = costs.private_kb([1]), costs.private_dirty_kb([1]), costs.proportional_kb([1])
    with contender:
        # Nothing tells when what a start has left to do is over.
        time.sleep(SETTLE)
        pids = contender.managers()
        if not pids:
            now = costs.private_kb([1]), costs.private_dirty_kb([1]), costs.proportional_kb([1])
            private, dirty, pss = (b - a for a, b in zip(before, now))
            return {'private': private, 'dirty': dirty, 'pss': pss, 'processes': 0}
        return {'private': costs.private_kb(pids), 'dirty': costs.private_dirty_kb(pids),
                'pss': costs.proportional_kb(pids), 'processes': len(pids)}
