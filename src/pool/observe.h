/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a worker is doing, seen from outside: /proc/PID/task/TID/syscall, fdinfo and pidfd_getfd(2). No
 * ptrace, no capability, same user. The rules and what they cost were measured per runtime; see the .c
 * file. */

#include "fd-util.h"

#define OBSERVE_PROCESSES_MAX 64

typedef enum Observation {
        OBSERVE_NOT_WAITING, /* looked, and it neither waits on the listener nor owns a connection from it */
        OBSERVE_WAITING,     /* a thread is blocked in accept, poll, select or epoll on the listener */
        OBSERVE_CONNECTED,   /* it owns a connection that was accepted from the listener */
        OBSERVE_UNKNOWN,     /* cannot be told: not dumpable, /proc hidden, a call the sandbox forbids */
        OBSERVE_GONE,        /* there is no such process any more */
} Observation;

/* Looks once at the process pid and its descendants (at most 64). listener_fd is our descriptor of the
 * listening socket, listener_inode its inode. The first of these that is true is the result:
 * OBSERVE_WAITING anywhere in the tree (also with connections open beside it), OBSERVE_CONNECTED
 * anywhere, OBSERVE_GONE (pid itself, zombies included), OBSERVE_UNKNOWN anywhere. If only
 * pidfd_getfd(2) is forbidden, a process that does not wait and has a socket other than the listener
 * makes the result OBSERVE_UNKNOWN, since a connection cannot be excluded. pid must be guarded against
 * reuse by the caller (a child not yet waited for, or a pidfd checked afterwards). *ret_error (may be
 * NULL) is the negative errno behind OBSERVE_UNKNOWN. Never fails, does not log. */
Observation observe_worker(pid_t pid, int listener_fd, uint64_t listener_inode, int *ret_error);

const char *observation_to_string(Observation observation);
