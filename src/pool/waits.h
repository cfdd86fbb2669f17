/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a thread waits for, told from the system call it is asleep in: /proc/PID/task/TID/syscall. Needs
 * PTRACE_MODE_ATTACH (ptrace(2)): same user, dumpable. None logs. */

#include "fd-util.h"

/* A socket, and how /proc/PID/fd calls it. */
typedef struct SocketName {
        uint64_t inode;
        size_t length;
        char link[sizeof("socket:[]") + 20];
} SocketName;

SocketName socket_name(uint64_t inode);

/* The call a thread was asleep in when it was looked at. A stopped thread shows the call that it was stopped
 * in, and whether that has been interrupted or has just returned cannot be told: accept may have given it a
 * connection, read may have read. */
typedef struct Wait {
        pid_t pid;
        pid_t tid;
        long call;             /* -1: none, it runs or is dead */
        uint64_t arguments[6];
} Wait;

/* 0 or negative errno; -ENOENT and -ESRCH: no such thread. */
int wait_read(pid_t pid, pid_t tid, Wait *ret);

/* 1 if the thread waits for connections: in accept on the listener, or in poll, select or epoll with it
 * among others. 0 if not, also if it has been woken up since; or negative errno. */
int wait_is_for_listener(const Wait *wait, const SocketName *listener);

/* Whether it is in accept, on whatever socket. */
bool wait_is_accept(const Wait *wait);

/* 1 and the one descriptor that the thread wants to read from and waits for alone: the one of read or readv,
 * or the only one in poll or select, with no wish to write. 0 if it waits for anything else or for something
 * beside; or negative errno. */
int wait_get_reader(const Wait *wait, int *ret_fd);
