/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* execve() of the helper in place: same process, so its children stay its children and PID 1 notices
 * nothing. A failed execve() leaves everything as it was. */

#include <sys/stat.h>

#include "fd-util.h"

typedef struct Reexec Reexec;

/* Remembers which file this program was started from, and its arguments (borrowed: those of main()).
 * -ENOMEM, and what readlink(2) of /proc/self/exe fails with. */
int reexec_new(char **argv, Reexec **ret_reexec);
Reexec *reexec_free(Reexec *reexec);
DEFINE_TRIVIAL_CLEANUP_FUNC(Reexec *, reexec_free);

/* Whether another file is at the path by now (an upgrade): 1 or 0; negative errno if it cannot be told. */
int reexec_is_due(const Reexec *reexec);

/* A descriptor that the next image shall have, under this name (borrowed). */
typedef struct PassedFd {
        int fd;
        const char *name;
} PassedFd;

/* Replaces this program by the file that is at its path now, with the same arguments, environment and
 * descriptors fds. Does not return if it succeeds. Negative errno of what failed; everything is then as
 * before. */
int reexec_execute(const Reexec *reexec, const PassedFd *fds, size_t n_fds);

/* In the next image: the descriptors that reexec_execute() passed, FD_CLOEXEC set, with their names.
 * Unsets the variable they came in. Returns their number; 0: we are no such image. *ret_fds (to be freed)
 * and *ret_names (strv) only if there are any. -EBADMSG: not what reexec_execute() writes. */
int reexec_take_fds(int **ret_fds, char ***ret_names);
