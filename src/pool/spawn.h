/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The only fork. */

#include <signal.h>

#include "fd-util.h"

typedef struct SpawnRequest {
        const char *executable;       /* absolute path, or relative to the working directory */
        char *const *argv;
        char **environment;           /* NULL-terminated; complete */
        int listener_fd;              /* becomes fd 0 and, with socket_activation, fd 3 too */
        int output_fd;                /* becomes fd 1 and 2; -EBADF: inherit ours */
        int cgroup_fd;                /* cgroup v2 directory to be born in; -EBADF: stay in ours; above 2 */
        bool cgroup_move;             /* not born there but moved, before it runs: spawn_probe_cgroup() */
        bool socket_activation;       /* sets LISTEN_PID in the slot that spawn_environment_new() reserved */
        bool block_signals;           /* all stay blocked over execve(2), to be met when prepared */
        uint64_t worker_capabilities; /* raised in the ambient set */
} SpawnRequest;

/* Starts a process: fd 0 (and 3) the listener without FD_CLOEXEC, fd 1 and 2 the output, nothing else
 * open; own session not created; all signals at their default and, but for block_signals, unblocked;
 * parent-death signal not set, so that it outlives us. *ret_pidfd refers to the child. *ret_exec_fd is the
 * read end of a close-on-exec pipe, non-blocking: end-of-file when execve() has succeeded, or one int, the
 * errno of what failed (the child then exits 203, systemd's EXIT_EXEC). Both are the caller's, FD_CLOEXEC
 * set. Uses clone3(2) with CLONE_PIDFD, CLONE_CLEAR_SIGHAND and CLONE_INTO_CGROUP (Linux 5.7), or where that
 * is not to be had fork(2), pidfd_open(2) and cgroup.procs. Returns 0 or negative errno (-EAGAIN: TasksMax=
 * or RLIMIT_NPROC; -EMFILE; -ENOMEM). With cgroup_fd the program runs there or not at all: -EBADF: not a
 * cgroup v2 directory; -ENODEV: it has been removed; -EACCES; -EBUSY: it has controllers enabled for its
 * children; -EOPNOTSUPP: it is threaded. Does not log. */
int spawn_worker(const SpawnRequest *request, pid_t *ret_pid, int *ret_pidfd, int *ret_exec_fd);

/* Moves a process, or ourselves if pid is 0, to the cgroup. 0 or negative errno, as for spawn_worker() with
 * cgroup_fd. */
int spawn_move(int cgroup_fd, pid_t pid);

typedef enum SpawnBirth {
        SPAWN_BIRTH_KILLED, /* a child is killed at birth there */
        SPAWN_BIRTH_FINE,
        SPAWN_NO_CLONE,     /* no clone3(2): RestrictNamespaces= forbids it, or an emulation lacks it */
} SpawnBirth;

/* Whether a child can be born in the cgroup: a SpawnBirth, or what spawn_worker() would fail with. Waits for
 * a child that does nothing.
 *
 * Linux 6.14, and stable series that have taken over its "cgroup: fix race between fork and cgroup.kill"
 * (b69bb476dee9), compare how often cgroup.kill was written in the parent's cgroup and in the child's. If
 * the two numbers differ, each child that clone3(2) puts there gets SIGKILL, for as long as the cgroup
 * lives. One that is moved there does not. */
int spawn_probe_cgroup(int cgroup_fd);

/* Reads what a spawn's exec pipe says: 1 if execve() succeeded, 0 if it is not known yet, or the negative
 * errno of what failed in the child. */
int spawn_read_exec_fd(int exec_fd);

typedef struct SpawnEnvironment {
        const char *pool_name;
        unsigned slot;
        uint64_t generation;
        const char *notify_socket;    /* NULL: none */
        int output_fd;                /* a socket: JOURNAL_STREAM is set from it; -EBADF: left as it is */
        const char *listen_fd_name;   /* LISTEN_FDNAMES; NULL: no socket activation */
        uint64_t watchdog_usec;       /* WATCHDOG_USEC; 0: none */
} SpawnEnvironment;

/* Builds a worker's environment from ours (base, as environ(7)): all of it but systemd's LISTEN_* and
 * WATCHDOG_* (an application's own LISTEN_ADDR stays), NOTIFY_SOCKET,
 * FDSTORE, SYSTEMD_EXEC_PID, MAINPID*, FCGI_POOL_OPTIONS and FCGI_POOL_COMMAND, plus
 * FCGI_POOL_NAME, FCGI_POOL_SLOT, FCGI_POOL_GENERATION and what parameters adds. For socket activation it
 * holds LISTEN_FDS=1, LISTEN_FDNAMES and room for LISTEN_PID, which the child fills in. To be freed with
 * strv_free(). -ENOMEM. */
int spawn_environment_new(char *const *base, const SpawnEnvironment *parameters, char ***ret_environment);
