# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors
"""What is measured, a file each."""

# In the order of the report.
KEYS = ('reload', 'reload_long', 'reload_broken', 'nginx', 'manager_restart', 'manager_kill', 'package_reinstall',
        'recycle', 'respawn', 'crash_storm', 'crash_loop', 'orphans', 'start', 'cold_start', 'burst', 'throughput',
        'balance', 'memory', 'wakeups')
