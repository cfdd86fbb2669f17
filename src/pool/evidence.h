/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a worker that is stuck was doing, for the person who asks next morning: /proc/PID/task/TID/ stat,
 * syscall, wchan and stack, proc(5). No ptrace, no capability, same user. */

#include <sys/types.h>

#include "util.h"

#define EVIDENCE_PROCESSES_MAX 8U
#define EVIDENCE_THREADS_MAX 16U
#define EVIDENCE_LINES_MAX 5U

/* Strings of printable ASCII; "" is what cannot be told. All but threads is about one thread, the suspect:
 * the first that is not asleep where threads without work are (accept, wait, then epoll, poll, select,
 * futex), or, if there is no such, the one that comes closest to it. */
typedef struct Evidence {
        char summary[256];  /* "asleep in read on fd 5 (pipe:[123]), wchan pipe_read, CPU time 0"; not "" */
        char threads[1800]; /* a line per thread, "pid 1234 php-cgi S: " or "  tid 1235 ..." and as above,
                             * with newlines between them; the last may be "and 3 more threads" */
        char wchan[64];     /* the kernel's function it is asleep in */
        char syscall[256];  /* "read(5<pipe:[123]>, 0x7ffe8000, 0x1000)", or "system call 230(...)" */
        char stack[1024];   /* the kernel's, one frame per line; only for root with all capabilities */
} Evidence;

/* Looks once at the threads of processes, parents first: at most EVIDENCE_PROCESSES_MAX and in total
 * EVIDENCE_THREADS_MAX. Works on running, sleeping and stopped ones. What is gone, or may not be read
 * (not dumpable, /proc hidden), is left out. The pids must be guarded against reuse by the caller. Never
 * fails, does not allocate, does not log. */
void evidence_collect(const pid_t *pids, size_t n_pids, Evidence *ret);

/* The last lines that the process itself, not its children, has written to stdout, stderr or the journal
 * since since_usec (CLOCK_MONOTONIC; when it was started, since pids are reused): at most
 * EVIDENCE_LINES_MAX, oldest first, with newlines between them, control characters replaced, each cut at its
 * share of size bytes.
 *
 * Looks into the file that the journal is written to now and into no older one. That takes 0.1 to 0.3 ms;
 * if nothing of the file is in memory it waits for the disk, 30 to 40 ms for a fast one. To open all of a
 * journal of 280 MB took ten times that.
 *
 * Returns how many lines, or -EACCES: only root and the group systemd-journal may; -ENODATA: there are none,
 * or they are in an older file or in a journal namespace; -ENOENT: there is no journal; or another negative
 * errno. Does not log. */
int evidence_read_output(pid_t pid, uint64_t since_usec, char *buffer, size_t size);
