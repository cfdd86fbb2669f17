/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The listening socket that control.c accepts from: made once, and recognised by the helpers to come. */

#include "fd-util.h"

/* Whether a listening AF_UNIX socket was made by control_socket_open() of this or an earlier helper, and not
 * by PID 1 for a .socket unit: it says who has called listen(2) (SO_PEERCRED, unix(7)). 1, 0 or negative
 * errno. */
int control_socket_is_ours(int fd);

/* Whether clients find it at $RUNTIME_DIRECTORY/control: 1, 0 or negative errno. */
int control_socket_is_at(int fd, const char *runtime_directory);

/* Opens one there, mode 0600; what is at that path is replaced. Returns the descriptor, non-blocking, which
 * the caller owns, or negative errno: -ENAMETOOLONG, what bind(2) and listen(2) fail with. */
int control_socket_open(const char *runtime_directory);
