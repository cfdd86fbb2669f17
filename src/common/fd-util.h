/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Ownership of descriptors. Header only; apart from util.h so that pure modules do not see unistd.h. */

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
