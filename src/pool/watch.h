/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The next client of any of several listeners. None logs. */

#include "fd-util.h"

typedef struct Watch Watch;

/* Watches n listening sockets, which must stay open. With every, a client that a worker accepts at once is
 * noticed as well, where the kernel has AIO (CONFIG_AIO) and allows it (fs.aio-max-nr, SystemCallFilter=);
 * else it may be missed. -ENOMEM, or negative errno of epoll_create1(2) or epoll_ctl(2). */
int watch_new(const int *listener_fds, size_t n, bool every, Watch **ret_watch);
Watch *watch_free(Watch *watch);
DEFINE_TRIVIAL_CLEANUP_FUNC(Watch *, watch_free);

/* What becomes readable when a client comes; owned by the watch. Meaningful from watch_arm() on. */
int watch_get_fd(const Watch *watch);

/* Forgets who has come so far, unless he still waits. Once readable, the descriptor stays so until the next
 * call. */
void watch_arm(Watch *watch);
