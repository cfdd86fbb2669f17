/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Questions to pidfds and to /proc about processes that are not our children. pidfd_open(2), proc(5).
 * None logs. */

#include "fd-util.h"

/* How a process ended. */
typedef struct Death {
        bool known;       /* false: there is no way to tell */
        int code;         /* CLD_EXITED, CLD_KILLED or CLD_DUMPED */
        int status;       /* exit status, or number of the signal */
} Death;

/* How the process of pidfd ended, from PIDFD_GET_INFO, whoever has reaped it; the pidfd, or one of the same
 * process that PID 1 holds, must have been open by then. Only a reaped process has an answer: of children
 * ask waitid(P_PIDFD) first. -EAGAIN: it has not been reaped yet. -EOPNOTSUPP: the kernel cannot say (before
 * Linux 6.15; not a pidfd). */
int pidfd_get_death(int pidfd, Death *ret_death);

/* The pid a pidfd refers to, from its fdinfo, also of a zombie. -ESRCH: it has been reaped; -EREMOTE: it
 * has no pid in our namespace; -EBADF: not a pidfd. */
int pidfd_get_pid(int pidfd, pid_t *ret_pid);

/* Field 22 of /proc/PID/stat, in clock ticks since boot: with the pid it names a process until the next
 * boot. Also the parent's pid (field 4; 0 if it is outside our namespace), if ret_parent is not NULL, and
 * whether the process has ended but not been reaped, if ret_zombie is not NULL. -ESRCH: there is no such
 * process, or we may not see it; -EBADMSG: not understood. */
int process_get_start_time(pid_t pid, uint64_t *ret_start_time, pid_t *ret_parent, bool *ret_zombie);

/* Proportional set size in bytes, from /proc/PID/smaps_rollup. -ESRCH: no such process, or no such file
 * (CONFIG_PROC_PAGE_MONITOR); -EACCES: not dumpable. */
int process_get_memory(pid_t pid, uint64_t *ret_bytes);

/* A decimal number from the environment a process was started with (/proc/PID/environ), e.g. of
 * FCGI_POOL_SLOT; the first of that name counts, as for getenv(3). -ENXIO: the variable is not there
 * (behind the first MiB we do not look, zombies have none), or not a number up to max; -EACCES: not our
 * business; -ESRCH: no such process. */
int process_get_environment_number(pid_t pid, const char *name, uint64_t max, uint64_t *ret_value);
