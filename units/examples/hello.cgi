#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors

# A plain CGI program; fcgiwrap starts it anew for each request. The pid it names is that of its parent, the worker.

msec=$(printf '%s' "$QUERY_STRING" | sed -n 's/^\(.*&\)\{0,1\}sleep=\([0-9]\{1,5\}\).*/\2/p')
[ -z "$msec" ] || sleep "${msec}e-3"
printf 'Content-Type: text/plain\r\n\r\nhello from pid %d\n' "$PPID"
