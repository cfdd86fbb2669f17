/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* How many clients wait at a listening socket: sock_diag(7) for UNIX, TCP_INFO for TCP, and where neither
 * can be asked, poll(2). No capability needed. None logs. */

#include "fd-util.h"

/* Opens what asks the kernel about AF_UNIX queues, a netlink socket; the caller closes it. Returns the
 * descriptor, close-on-exec, or negative errno. -EAFNOSUPPORT: the sandbox forbids AF_NETLINK
 * (RestrictAddressFamilies=). */
int queue_open(void);

/* How many connections wait to be accepted, and the backlog of the listener, which is one less than may
 * wait. A client that has given up still counts, one that waits in connect(2) for room in the queue does
 * not. listener_inode is the number in "socket:[...]". Never blocks. Returns
 *   1: both are exact;
 *   0: at least that many: *ret_depth is 0 or 1, *ret_max is 0. So it is for AF_UNIX if diag_fd is negative,
 *      if the socket is of another network namespace than diag_fd (PrivateNetwork=yes), or if the kernel
 *      lacks unix_diag, and for stream protocols that are not TCP;
 *   -EINVAL: the socket does not listen, or does not any more; other negative errno: cannot be asked. */
int queue_get_depth(int diag_fd, int listener_fd, uint64_t listener_inode, unsigned *ret_depth,
                    unsigned *ret_max);
