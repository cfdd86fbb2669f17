# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""What processes cost, read from /proc."""

import os
import pathlib
import re

import lib
from contender import SLICE


def smaps(pid, *fields):
    """Sum of the fields of smaps_rollup, in kB."""
    text = pathlib.Path(f'/proc/{pid}/smaps_rollup').read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.partition(':')[0] in fields)


def private_kb(pids):
    """What would be free without them."""
    return sum(smaps(pid, 'Private_Clean', 'Private_Dirty') for pid in pids)


def private_dirty_kb(pids):
    """The same without what could be read again from files."""
    return sum(smaps(pid, 'Private_Dirty') for pid in pids)


def proportional_kb(pids):
    return sum(smaps(pid, 'Pss') for pid in pids)


def cpu_msec(pids):
    """CPU time that these processes have used, all threads."""
    total = 0
    for pid in pids:
        for task in os.listdir(f'/proc/{pid}/task'):
            total += int(pathlib.Path(f'/proc/{pid}/task/{task}/schedstat').read_text().split()[0])
    return total / 1e6


def all_cpu_msec():
    """CPU time that all contenders have used, of processes that are gone as well."""
    text = (lib.CGROUP / SLICE / 'cpu.stat').read_text()
    return int(re.search(r'^usage_usec (\d+)$', text, re.MULTILINE).group(1)) / 1000


def wakeups(pids):
    """How often they have gone to sleep so far."""
    return sum(int(lib.proc_status(f'{pid}/task/{task}', 'voluntary_ctxt_switches'))
               for pid in pids for task in os.listdir(f'/proc/{pid}/task'))
