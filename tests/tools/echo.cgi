#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# SPDX-FileCopyrightText: fcgi-pool contributors

# The echo contract (echo-contract.h) as a CGI script for fcgiwrap. The worker is the parent process: its pid
# and its environment are reported (fcgiwrap gives a script only the parameters of the request), and exit=
# kills it by SIGKILL, whatever the code. Needs /proc, gzip and od. stderr= text is not URL-decoded.

set -u

parameter() {
        printf '%s' "${QUERY_STRING:-}" | tr '&' '\n' | sed -n "s/^$1=//p" | head -n 1
}

worker_env() {
        tr '\0' '\n' <"/proc/$PPID/environ" 2>/dev/null | sed -n "s/^$1=//p" | head -n 1
}

length=${CONTENT_LENGTH:-0}
length=${length:-0}
crc=00000000
if [ "$length" -gt 0 ]; then
        # The last 8 bytes of a gzip stream: CRC-32 and length, both little-endian.
        # shellcheck disable=SC2046
        set -- $(head -c "$length" | gzip -1 -c | tail -c 8 | od -An -v -tx1)
        crc=$4$3$2$1
        length=$((0x$8$7$6$5))
fi

ms=$(parameter sleep)
[ -z "$ms" ] || sleep "$((ms / 1000)).$(printf '%03d' $((ms % 1000)))"
ms=$(parameter burn)
[ -z "$ms" ] || timeout "$((ms / 1000)).$(printf '%03d' $((ms % 1000)))" sh -c 'while :; do :; done'
text=$(parameter stderr)
[ -z "$text" ] || printf '%s\n' "$text" >&2
[ -z "$(parameter exit)" ] || kill -KILL "$PPID"

status=$(parameter status)
slot=$(worker_env FCGI_POOL_SLOT)
generation=$(worker_env FCGI_POOL_GENERATION)
printf 'Status: %s\r\nContent-Type: text/plain\r\n\r\n' "${status:-200} ${status:+Asked for}"
printf 'pid=%d\nslot=%s generation=%s\nbody-length=%d body-crc=%s\n' \
        "$PPID" "${slot:--}" "${generation:--}" "$length" "$crc"
name=$(parameter env)
[ -z "$name" ] || printf 'env-%s=%s\n' "$name" "$(worker_env "$name")"

size=$(parameter size)
if [ "${size:-0}" -gt 0 ]; then
        start=$(parameter start)
        awk -v k="${start:-0}" -v n="$size" 'BEGIN {
                for (i = 0; i < n; i += 16)
                        printf "%015d\n", k++
        }' | head -c "$size"
fi
