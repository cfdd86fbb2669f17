# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""Restarting the service itself."""

import scenario
from scenario import Figure, LOST

TITLE = 'Restart of the manager'
QUESTION = '`systemctl restart` of the service, under load: after an upgrade, say, or for a setting of the unit.'
METHOD = '''As in the reload under load, with `systemctl restart`. The manager of plain systemd instances is PID 1,
which is told to execute itself anew (daemon-reexec). "restart took" is what the command took; the load goes on a
little longer.'''
FIGURES = [*LOST, Figure('gap', 'longest silence', 'ms', plot=True), Figure('max', 'slowest', 'ms'),
           Figure('seconds', 'restart took', 's', best=None)]
ROUNDS = 2


def entries():
    return scenario.entries(*scenario.PROGRAM_KEYS, 'fcgi-pool-php', 'php-fpm', 'php-fpm-30s', 'uwsgi')


def measure(entry, quick):
    with entry.make() as contender:
        _, result, seconds = scenario.under_load(contender, contender.restart_manager, tail=1.5)
    return {**scenario.lost(result), 'gap': result['longest_gap_usec'] / 1000,
            'max': result['latency_usec']['max'] / 1000, 'seconds': seconds, 'raw': result}
