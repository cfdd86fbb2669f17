/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Ownership and options of descriptors. Header only; apart from util.h so that pure modules do not see
 * unistd.h. */

#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

#include "util.h"

#define _cleanup_close_ _cleanup_(close_fd)
#define TAKE_FD(fd) TAKE_GENERIC(fd, -EBADF)

/* Closes fd if there is one, keeps errno, returns the "nothing" to store in its place. */
static inline int safe_close(int fd) {
        if (fd >= 0) {
                int saved_errno = errno;

                (void) close(fd);
                errno = saved_errno;
        }
        return -EBADF;
}

static inline void close_fd(int *fd) {
        *fd = safe_close(*fd);
}

/* An option of SOL_SOCKET that is an int. 0 or negative errno. */
static inline int socket_get_int(int fd, int option, int *ret_value) {
        socklen_t length = sizeof(*ret_value);

        return getsockopt(fd, SOL_SOCKET, option, ret_value, &length) < 0 ? -errno : 0;
}
