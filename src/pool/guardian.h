/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The leash: no worker outlives the unit.
 *
 * The helper and PID 1's FD store hold the write end of a pipe, the guardian the read end. End-of-file means
 * that the helper is gone and PID 1 has released the store, so the unit is really down, whichever way it
 * went: then the guardian asks the remaining workers to stop, waits, kills their cgroup and exits.
 *
 * One guardian lives through any number of helpers, older and newer builds among them; commands are
 * packets, so that each side may know more or less than the other. */

#include "cgroup.h"

/* argv[0] of the guardian process; main() calls guardian_run() for it. */
#define GUARDIAN_NAME "fcgi-pool-guardian"

typedef struct GuardianSettings {
        int stop_signal;
        uint64_t stop_timeout_usec;  /* from end-of-file; USEC_INFINITY: never kill */
} GuardianSettings;

/* Starts a guardian in cgroup->guardian_fd with the read end of a new pipe as fd 0, from /proc/self/exe. It
 * has our environment, stdout and stderr, none of our capabilities, and from the first moment on all signals
 * blocked (but 32 and 33, which the C library keeps for itself).
 *
 * Whatever else is in that cgroup is killed first: a guardian that waits for another leash, or that has lost
 * it and is just about to end what it takes for orphans, must not do so to workers of ours. So this is to be
 * called before the first worker is spawned or adopted, and only if no living leash was found.
 *
 * *ret_leash_fd is the write end, FD_CLOEXEC and non-blocking, the caller's. *ret_pidfd refers to the
 * guardian, our child, to be reaped by the caller (waitid(2)). Waits for nothing: that execve(2) failed
 * shows as any other end of the guardian, a leash that is not alive. Returns 0 or negative errno (what
 * cgroup_kill(), pipe2(2) and spawn_worker() fail with). Does not log. */
int guardian_start(const Cgroup *cgroup, const char *pool_name, const GuardianSettings *settings,
                   int *ret_leash_fd, int *ret_pidfd);

/* Whether somebody still holds the read end: 1, 0, or negative errno. (A poll for POLLERR; the fd may be
 * watched for it, too: with no events asked for it wakes only for that.) */
int guardian_is_alive(int leash_fd);

/* Tells the guardian that the settings have changed. Negative errno; -EPIPE: it is gone; -EAGAIN: it is
 * stopped or frozen and has not read the last 16 or more commands. SIGPIPE must be blocked or ignored. */
int guardian_configure(int leash_fd, const GuardianSettings *settings);

/* Tells the guardian to exit quietly and leave everything alone. Errors and SIGPIPE as above. */
int guardian_dismiss(int leash_fd);

/* The guardian process itself, to its end; returns its exit status: 0, 1 if there are processes it could
 * not end, 2 if it was not called as guardian_start() does. argv: name, path of the workers' cgroup, stop
 * signal, stop timeout in microseconds, name of the pool, pid of the helper. Logs what it does when the
 * leash is let go and somebody is left. */
int guardian_run(int argc, char **argv);
