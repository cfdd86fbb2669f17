# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""Starting and stopping many workers."""

import time

import scenario
from scenario import Entry, Figure

TITLE = 'Start and stop'
QUESTION = 'How long does it take until N workers wait for requests, and until they are gone?'
METHOD = '''From `systemctl start` of the service, its socket being there, until that has returned and all workers have
been seen waiting; `systemctl stop`, until it has returned. "bare" is a loop of fork and exec that says READY=1 when
all wait; with "a journal stream each" it opens one for each worker, as fcgi-pool does, by which the journal knows who
has written a line. "no" is said where the manager does not do it within 60 s.'''
FIGURES = [Figure('start', 'start', 's', plot=True), Figure('stop', 'stop', 's')]
ROUNDS = 2
SIZES = {
    1: ('fcgi-pool', 'bare', 'systemd', 'supervisor', 'multiwatch', 's6', 'start-server', 'php-fpm', 'uwsgi'),
    100: ('fcgi-pool', 'bare', 'systemd', 'supervisor', 'multiwatch', 's6', 'start-server', 'php-fpm', 'uwsgi'),
    1000: ('fcgi-pool', 'bare', 'bare-streams', 'systemd', 'supervisor', 'multiwatch', 's6', 'php-fpm'),
}
LIMIT = 60


def entries():
    return [Entry(each.contender, str(n), {'n_workers': n}) for n, keys in SIZES.items()
            for each in scenario.entries(*keys)]


def measure(entry, quick):
    if quick and entry.arguments['n_workers'] > 100:
        return {'start': None, 'stop': None}
    with entry.make(start='socket') as contender:
        begin = time.monotonic()
        result = contender.start(check=False)
        told = time.monotonic() - begin
        try:
            assert result.returncode == 0, result.stderr
            contender.wait_serving(LIMIT)
        except AssertionError as error:
            return {'start': 'no', 'stop': None, 'raw': str(error)}
        start = time.monotonic() - begin
        begin = time.monotonic()
        contender.stop_manager()
        return {'start': start, 'stop': time.monotonic() - begin, 'raw': {'told': told}}
