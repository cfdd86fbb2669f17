# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""The first client of a pool that has no worker."""

import time

import contenders
import costs
from scenario import Entry, Figure

TITLE = 'Cold start from zero'
QUESTION = 'Nothing runs but the socket, or a manager without workers. How long does the first client wait?'
METHOD = '''One request, from connect to the end of its answer. fcgi-pool stands there with --workers=0:4, and not
started at all, so that systemd starts it for the client; plain systemd starts one unit, the program itself. php-fpm:
ondemand. fcgiwrap: started by its socket. "memory" is private memory of what runs meanwhile, workers and manager.'''
FIGURES = [Figure('first', 'first answer', 'ms', plot=True), Figure('memory', 'memory at rest', 'kB')]
ROUNDS = 5
SETTLE = 1.5


def entries():
    def entry(key, suffix='', **arguments):
        return Entry(contenders.ALL[key], suffix, arguments)
    return [entry('fcgi-pool', '0:4', n_workers=0, size='0:4'),
            entry('fcgi-pool', 'by its socket', n_workers=4, start='socket'),
            entry('systemd', 'by its socket', n_workers=4, start='socket'),
            entry('fcgi-pool-php', '0:4', n_workers=0, size='0:4'), entry('php-fpm-ondemand', n_workers=0),
            entry('fcgiwrap', 'by its socket', n_workers=4, start='socket')]


def measure(entry, quick):
    with entry.make() as contender:
        time.sleep(SETTLE)
        memory = costs.private_kb(contender.processes())
        result = contender.load_now(requests=1)
        assert result['failed'] == 0, result['first_failure']
    return {'first': result['latency_usec']['max'] / 1000, 'memory': memory, 'raw': result}
