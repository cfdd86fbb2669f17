/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* How many descriptors a pool needs, for the helper that refuses or warns and for fcgi-poolctl check, which
 * foretells it. Header only. */

#include "util.h"

/* Open files of the helper, RLIMIT_NOFILE: a pidfd, a journal stream and an exec pipe per worker; beside
 * them listeners, epoll, timers, callers, and what is open between fork and exec. */
static inline uint64_t fd_limits_open_files(unsigned n_workers) {
        return (uint64_t) n_workers * 3 + 240;
}

/* The FD store: a pidfd per worker and one for its successor; beside them state, leash, control, and some
 * room. */
static inline uint64_t fd_limits_stored(unsigned n_workers) {
        return (uint64_t) n_workers * 2 + 16;
}
