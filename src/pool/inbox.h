/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The NOTIFY_SOCKET that workers get: their side of sd_notify(3), kept apart from the unit's own, so that
 * a worker can never tell PID 1 that the service is stopping. */

#include <sys/types.h>

#include "fd-util.h"

/* Makes the datagram socket: "notify" in runtime_directory (the path is taken over if it exists), or with
 * NULL an abstract address that the kernel chooses. *ret_fd is non-blocking and FD_CLOEXEC. *ret_address
 * is what NOTIFY_SOCKET shall say, to be freed. Negative errno. Does not log. */
int inbox_open(const char *runtime_directory, int *ret_fd, char **ret_address);

typedef struct InboxMessage {
        pid_t pid;     /* the sender, as the kernel says */
        bool ready;    /* there is a line READY=1 */
        bool watchdog; /* WATCHDOG=1 */
} InboxMessage;

/* Receives one datagram. Returns 1 and what it says; 0 if there is none to be read; negative errno.
 * Descriptors that came along are closed, too long datagrams are read as far as they go. */
int inbox_receive(int fd, InboxMessage *ret);
