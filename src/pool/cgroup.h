/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The two sub-cgroups of the unit, Delegate=yes: workers/ says who is a worker, whatever our records say.
 * Controllers are never enabled below the unit: PID 1 could then not start the next helper (EBUSY).
 * cgroups(7), cgroup v2.
 *
 * A cgroup that has been removed is one without processes: none of the functions that take a descriptor
 * fails for that. Nothing here logs. */

#include "fd-util.h"

typedef struct Cgroup {
        int unit_fd;         /* directories, FD_CLOEXEC; for clone3(2), openat(2) and the functions below */
        int workers_fd;
        int guardian_fd;
        char *workers_path;
        bool must_move;      /* SpawnRequest.cgroup_move: children cannot be born here from outside */
        bool inside;         /* which is workers/: cgroup_enter() */
} Cgroup;

/* Finds the unit's cgroup and makes or opens both sub-cgroups. -EACCES, -EPERM, -EROFS: not delegated to
 * us; -ENOENT: no cgroup v2 mounted, we are not in a service, or its cgroup is not where the mount shows
 * it (a container without a cgroup namespace of its own). Other negative errno, those of
 * spawn_probe_cgroup() included, which costs two short-lived children. */
int cgroup_open(Cgroup **ret_cgroup);
Cgroup *cgroup_free(Cgroup *cgroup);
DEFINE_TRIVIAL_CLEANUP_FUNC(Cgroup *, cgroup_free);

/* Where children cannot be born in workers/ from outside (must_move), we go there ourselves: to move each
 * of them costs some ten milliseconds (the kernel waits for all CPUs), between the death of a worker and
 * the start of the next one. Does nothing elsewhere. No guardian may be about to kill what is in
 * workers/. 0 or negative errno: children will be moved. */
int cgroup_enter(Cgroup *cgroup);

/* Back to the unit's own cgroup: nobody but workers is in workers/ then. 0 or negative errno. */
int cgroup_leave(Cgroup *cgroup);

/* How much of path, as the third field of /proc/PID/cgroup, is the service's own cgroup: the length up to
 * and including its name, whatever it has below ("/a.slice/blog.service" of
 * "/a.slice/blog.service/workers"). The innermost unit counts: a service of a user manager is below
 * user@UID.service, and what is in a scope there is in no service. 0: not in a service, removed, or
 * outside of our cgroup namespace. */
size_t cgroup_service_length(const char *path);

/* Processes in the cgroup and in those below it, zombies and ourselves not included, sorted, each once,
 * ended by 0; to be freed. Those in sub-cgroups we cannot open or more than 16 levels down are left out;
 * cgroup_is_populated() and cgroup_kill() see them. Negative errno (-ENOMEM, -EMFILE, -ENFILE, -EACCES). */
int cgroup_list(int cgroup_fd, pid_t **ret_pids, size_t *ret_n_pids);

/* 1 if a process is left in the cgroup or below it, ourselves included, 0 if not, or negative errno. */
int cgroup_is_populated(int cgroup_fd);

/* Processes that have had their signal: owned pids, sorted. Begins as {}. */
typedef struct PidSet {
        pid_t *pids;
        size_t n_pids;
} PidSet;

void pid_set_clear(PidSet *set);

/* Sends signo, and SIGCONT behind it, to every process that cgroup_list() finds and that is not in *done,
 * and adds it there. No other process can be hit, not even if pids are reused meanwhile
 * (pidfd_send_signal(2)). Processes forked meanwhile are missed: call it again until it returns 0. One
 * that we may not signal is passed over. Returns how many were signalled, or negative errno; *done is
 * right in either case. */
int cgroup_signal(int cgroup_fd, int signo, PidSet *done);

/* SIGKILL for every process in it and below, of which we must be none: one by one, and where that does
 * not reach everybody (endless forks, other users, sub-cgroups we cannot open) by cgroup.kill (Linux
 * 5.14). Not always by that: it can spoil the cgroup for clone3(2), see spawn_probe_cgroup();
 * cgroup_open() finds out. They may take a moment to be gone, and without cgroup.kill some may escape:
 * repeat until it is not populated. 0 or negative errno. */
int cgroup_kill(int cgroup_fd);
