# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""Fixtures, a time limit for every test, and what a failed test shows.

A test ends after 120 s, or after the number of seconds in @pytest.mark.limit(SECONDS), as a failure that shows what the
units of the test and the journal looked like at that moment; its clean-up gets 60 s more.
"""

import pathlib
import shutil
import signal

import pytest

pytest.register_assert_rewrite('lib')

import lib  # noqa: E402 -- after the line above, so that its assertions explain themselves

LIMIT = 120
LIMIT_CLEAN_UP = 60


def pytest_configure(config):
    config.addinivalue_line('markers', 'limit(seconds): how long the test may take; default 120')
    if not pathlib.Path('/run/systemd/system').is_dir():
        pytest.exit('PID 1 is not systemd: these tests run in the containers of tests/run', returncode=2)


def snapshot(title):
    """What the machine looks like when a test hangs."""
    parts = [title]
    # What made the test hang may be systemd itself.
    for command in (['systemctl', '--no-pager', '--full', '--lines=0', 'status', *dict.fromkeys(lib.UNITS_OF_TEST)]
                    if lib.UNITS_OF_TEST else ['systemctl', '--no-pager', '--lines=0', 'status'],
                    ['systemctl', '--no-pager', 'list-jobs'],
                    ['journalctl', '--no-pager', '--no-hostname', '--output=short-precise', '--lines=50']):
        try:
            result = lib.run(command, check=False, timeout=10)
            parts.append(f'$ {" ".join(command)}\n{result.stdout}{result.stderr}')
        except Exception as error:
            parts.append(f'$ {" ".join(command)}\n{error}')
    return '\n'.join(parts)


def guarded(item, phase, seconds):
    """The time limit around one phase of a test; the hooks below share it."""
    def on_alarm(_signal, _frame):
        # The clean-up that this starts may hang as well.
        signal.alarm(LIMIT_CLEAN_UP)
        # Not an Exception in Python's sense: no handler in a test takes it for a failure it expects.
        pytest.fail(snapshot(f'{item.nodeid}: {phase} not over after {seconds} s'), pytrace=False)

    previous = signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def limit_of(item):
    marker = item.get_closest_marker('limit')
    return int(marker.args[0]) if marker else LIMIT


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_setup(item):
    lib.UNITS_OF_TEST.clear()
    item.journal_cursor = lib.journal_cursor()
    yield from guarded(item, 'set-up', limit_of(item))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    yield from guarded(item, 'test', limit_of(item))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_teardown(item):
    yield from guarded(item, 'clean-up', LIMIT_CLEAN_UP)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if not report.failed:
        return
    extracts = [(unit, [f'--unit={unit}', '--lines=100']) for unit in dict.fromkeys(lib.UNITS_OF_TEST)]
    for title, options in extracts + [('everything, the end', ['--lines=50'])]:
        try:
            text = lib.run(['journalctl', '--quiet', '--no-pager', '--no-hostname', '--output=short-precise',
                            f'--cursor={item.journal_cursor}', *options], check=False, timeout=10).stdout
        except Exception as error:
            text = str(error)
        if text:
            report.sections.append((f'journal: {title}', text))


@pytest.fixture(scope='session')
def systemd_version():
    """Number of the running systemd, for what only newer ones do."""
    return lib.systemd_version()


@pytest.fixture
def cursor():
    """The end of the journal at the start of the test."""
    return lib.journal_cursor()


@pytest.fixture
def helper():
    """Path of the installed fcgi-pool."""
    path = shutil.which('fcgi-pool')
    assert path, 'fcgi-pool is not installed'
    return path
