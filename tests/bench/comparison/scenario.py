# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""What a scenario consists of, and what several of them do: an event under load.

A scenario is a module in scenarios/ with

    TITLE, QUESTION, METHOD   for the report
    FIGURES                   what is measured, a list of Figure
    ROUNDS                    how often, in a whole run
    entries()                 who takes part, a list of Entry
    measure(entry, quick)     one measurement of one of them: a dict with a value for each figure, and more under 'raw';
                              or measure_round(entries, quick), of all at once: a dict of such dicts
"""

import dataclasses
import time
import typing

import contenders

# Of all scenarios with load: so many workers, so many clients, each with one request at a time, that sleeps.
N_WORKERS = 8
N_CLIENTS = 6
HANDLER_MSEC = 20
LEAD, TAIL = 0.5, 0.7


@dataclasses.dataclass(frozen=True)
class Figure:
    key: str
    title: str
    unit: str = ''
    best: str = 'least'  # 'most', or None: there is no better or worse
    plot: bool = False
    total: bool = False  # counts, to be added up over the rounds


@dataclasses.dataclass(frozen=True)
class Entry:
    """A contender with the arguments that it has in a scenario."""
    contender: type
    suffix: str = ''  # of key and title, where one contender takes part more than once
    arguments: dict = dataclasses.field(default_factory=dict)
    extra: typing.Any = None  # the scenario's own

    @property
    def key(self):
        return self.contender.key + (f'@{self.suffix}' if self.suffix else '')

    def about(self):
        title = self.contender.title
        return {'key': self.key, 'title': f'{title}, {self.suffix}' if self.suffix else title,
                'verb': self.contender.verb}

    def make(self, **more):
        return self.contender(**{'n_workers': N_WORKERS, **self.arguments, **more})


def entries(*keys, suffix='', **arguments):
    return [Entry(contenders.ALL[key], suffix, arguments) for key in keys]


# Those that run a program of the user's, and those that run only their own kind.
PROGRAM_KEYS = ('fcgi-pool', 'systemd', 'supervisor', 'supervisor-tuned', 'multiwatch', 'spawn-fcgi', 's6',
                'start-server')
OWN_KEYS = ('fcgi-pool-php', 'php-fpm', 'php-fpm-30s', 'uwsgi', 'uwsgi-hup')


def load(contender, **options):
    return contender.load(**{'clients': N_CLIENTS, 'query': f'sleep={HANDLER_MSEC}', **options})


def under_load(contender, event, lead=LEAD, tail=TAIL, **options):
    """Runs event() under load; (what it returns, what the load says, seconds that the event took)."""
    with load(contender, **options) as running:
        time.sleep(lead)
        begin = time.monotonic()
        result = event()
        seconds = time.monotonic() - begin
        time.sleep(tail)
        return result, running.stop(), seconds


def failures(result):
    """In words, what went wrong for the clients."""
    return ', '.join(f'{n} {kind.replace("_", " ")}' for kind, n in result['failures'].items() if n)


LOST = (Figure('failed', 'requests lost', total=True, plot=True), Figure('events', 'events', best=None, total=True),
        Figure('requests', 'requests', best=None, total=True))


def lost(result, n_events=1):
    """Values of the figures LOST."""
    return {'failed': result['failed'], 'events': n_events, 'requests': result['started']}
