# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""Deploying a version that is no good."""

import time

import scenario
from application import BROKEN
from scenario import Entry, Figure, LOST

TITLE = 'Reload to a broken version'
QUESTION = 'The new version is no good. Does anybody say so, do clients notice, and does it heal when it is mended?'
METHOD = '''The program is replaced by one that exits at once with status 3, or by one that never begins to accept;
then the workers are replaced by the verb that users have for it, under load. "said" is what the verb came back with;
"lost" are all requests within three seconds from then; "served afterwards", whether a request is still answered within
a second; "healed", whether one is answered within five seconds after the good version is back, without anybody doing
anything more. fcgi-pool has --start-timeout=2s, so that nobody has to wait for its default of 30 s. php-fpm and uWSGI
load programs of their own kind: what breaks a reload there is the configuration, which gets a line that is no
setting.'''
FIGURES = [Figure('said', 'said', best=None), *LOST, Figure('after', 'served afterwards', best=None),
           Figure('healed', 'healed', best=None)]
ROUNDS = 2
KEYS = ('fcgi-pool', 'systemd', 'supervisor', 'multiwatch', 's6', 'start-server')
CONFIGURED_KEYS = ('php-fpm', 'php-fpm-30s')


def entries():
    programs = [Entry(each.contender, how, each.arguments, extra=how) for how in BROKEN
                for each in scenario.entries(*KEYS)]
    programs = [Entry(each.contender, each.suffix, {'pool': ['--start-timeout=2s']}, extra=each.extra)
                if each.contender.key == 'fcgi-pool' else each for each in programs]
    return programs + [Entry(each.contender, 'bad configuration', each.arguments, extra=None)
                       for each in scenario.entries(*CONFIGURED_KEYS)]


def said(result):
    if result is None:
        return 'nothing'
    return 'success' if result.returncode == 0 else f'failure, status {result.returncode}'


def measure(entry, quick):
    with entry.make() as contender:
        def event():
            if entry.extra:
                contender.application.deploy_broken(entry.extra)
            else:
                contender.break_configuration()
            result = contender.replace_workers()
            time.sleep(1 if quick else 3)
            return result
        result, load, _ = scenario.under_load(contender, event, timeout=5)
        after = contender.answers(1)
        if entry.extra:
            contender.application.deploy_good()
        else:
            contender.mend_configuration()
        deadline = time.monotonic() + 5
        healed = contender.answers(1)
        while not healed and time.monotonic() < deadline:
            time.sleep(0.1)
            healed = contender.answers(1)
    return {'said': said(result), **scenario.lost(load), 'after': 'yes' if after else 'no',
            'healed': 'yes' if healed else 'no', 'raw': load}
