# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""Upgrading the manager."""

import scenario
from scenario import Figure, LOST

TITLE = 'Reinstallation of the package'
QUESTION = 'The package of the manager is installed anew, as an upgrade does it, and the service restarted.'
METHOD = '''As in the reload under load, with `dpkg --install` of Debian's package and then, since the units are not
the package's, `systemctl restart` of the service. fcgi-pool has no package of Debian's: its files are replaced as dpkg
does it, then daemon-reload and `systemctl restart`, which is what a package would do.'''
FIGURES = [*LOST, Figure('gap', 'longest silence', 'ms', plot=True), Figure('max', 'slowest', 'ms')]
ROUNDS = 2
KEYS = ('fcgi-pool', 'supervisor', 'supervisor-tuned', 'multiwatch', 's6', 'start-server', 'fcgi-pool-php', 'php-fpm',
        'php-fpm-30s', 'uwsgi')


def entries():
    return scenario.entries(*KEYS)


def measure(entry, quick):
    with entry.make() as contender:
        _, result, _ = scenario.under_load(contender, contender.reinstall, tail=1.5)
    return {**scenario.lost(result), 'gap': result['longest_gap_usec'] / 1000,
            'max': result['latency_usec']['max'] / 1000, 'raw': result}
