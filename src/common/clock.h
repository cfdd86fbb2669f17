/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Time spans and sizes as people write them in unit files, and the one clock that is read. */

#include "util.h"

/* CLOCK_MONOTONIC in microseconds. */
uint64_t clock_now_usec(void);

/* Parses a time span as systemd.time(7) writes it: numbers with units, added up ("30s", "1min 30s",
 * "1.5h", "500ms"), a bare number in seconds, or "infinity" (USEC_INFINITY). Result in microseconds.
 * -EINVAL: not a time span (empty, negative, unknown unit); -ERANGE: more than 64 bits of microseconds. */
int clock_parse_span(const char *s, uint64_t *ret_usec);

/* Parses a size as systemd.exec(5) writes it: a number with the suffix B, K, M, G, T, P or E to the base
 * of 1024, or none for bytes ("128M", "1.5G"), or "infinity" (UINT64_MAX). Errors as above. */
int clock_parse_size(const char *s, uint64_t *ret_bytes);

/* Writes span as clock_parse_span() reads it, in at most three units and none below the third ("2d 3h",
 * "1min 30s", "312ms", "0"), into buffer; returns buffer. Cut short if it does not fit; 64 bytes always
 * suffice. */
char *clock_format_span(char *buffer, size_t size, uint64_t usec);
