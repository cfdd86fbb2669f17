# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""No request is lost over restarts, crashes and upgrades: the short form of tests/bench/survival."""

import random

import pytest

import survival

# How many of each kind; twenty is what tests/bench/survival does.
COUNT = 2


@pytest.mark.limit(400)
def test_survival():
    """Every event of the life of a helper strikes under load: nothing lost, nobody changed who should not have."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f'seed {seed}')
    events = [name for name in survival.EVENTS if name != 'watchdog']
    campaign = survival.Campaign(COUNT, seed, events, say=print).run()
    print(survival.markdown(campaign.rows()))
    assert not campaign.violations
    assert len(campaign.windows) == len(campaign.plan)


@pytest.mark.limit(150)
def test_watchdog():
    """A helper that hangs is ended by PID 1 after WatchdogSec=, and its workers serve on."""
    echo = survival.install_echo()
    with survival.Survivor('survive-unix', echo, service=['WatchdogSec=4s']) as unix, \
            survival.Survivor('survive-tcp', echo, tcp='127.0.0.1:9301', service=['WatchdogSec=4s']) as tcp:
        window = survival.strike_under_load(survival.EVENTS['watchdog'], [unix, tcp])
        assert not window.violations
        for pool in (unix, tcp):
            assert any("Failed with result 'watchdog'" in text for text in pool.messages(_PID='1'))
