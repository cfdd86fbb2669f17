/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Adoption.
 *
 * The cgroup has the last word on who is there: it cannot be forged, forgotten or torn. A process there is
 * the one of a record if pid and start time agree; pids alone come back. What no record explains but has our
 * variables in the environment it was started with is a worker whose helper died before it could write it
 * down. Children of what is in the cgroup belong to their parents. The rest are strangers.
 *
 * Without a cgroup of its own the records are all there is, checked in the same way.
 *
 * A stored pidfd is used if it refers to the same pid. Else a new one is opened, and the start time
 * read once more: if it is still the same, the pidfd refers to that process.
 *
 * After an execve() in place workers may be our zombies; they are adopted like the living, and their
 * death is then heard at once. */

#include <stdio.h>
#include <sys/pidfd.h>

#include "adopt.h"
#include "cgroup.h"

#define SLOT_MAX UINT32_MAX

typedef struct Process {
        pid_t pid, parent;
        uint64_t start_time;
        const StateWorker *record;
} Process;

typedef struct Finder {
        const State *state;
        const StateWorker **records;   /* by pid */
        size_t n_records;
        ListenSet *stored;
        Process *processes;            /* by pid */
        size_t n_processes;
        Adoption *adoption;
} Finder;

static void finder_done(Finder *f) {
        free(f->records);
        free(f->processes);
        adoption_free(f->adoption);
}

Adoption *adoption_free(Adoption *adoption) {
        if (!adoption)
                return NULL;

        for (size_t i = 0; i < adoption->n_adoptees; i++)
                (void) safe_close(adoption->adoptees[i].pidfd);
        free(adoption->adoptees);
        free(adoption);
        return NULL;
}

static int compare_pids(pid_t a, pid_t b) {
        return a < b ? -1 : a > b;
}

static int compare_records(const void *a, const void *b) {
        return compare_pids((*(const StateWorker *const *) a)->pid, (*(const StateWorker *const *) b)->pid);
}

static int compare_processes(const void *a, const void *b) {
        return compare_pids(((const Process *) a)->pid, ((const Process *) b)->pid);
}

static int index_records(Finder *f) {
        size_t n = f->state ? f->state->n_workers : 0;

        f->records = calloc(n + 1, sizeof(*f->records));
        if (!f->records)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++)
                if (f->state->workers[i].pid > 0 && f->state->workers[i].state != WORKER_DEAD)
                        f->records[f->n_records++] = f->state->workers + i;
        qsort(f->records, f->n_records, sizeof(*f->records), compare_records);
        return 0;
}

static const StateWorker *find_record(const Finder *f, const Process *p) {
        const StateWorker key = { .pid = p->pid }, *key_p = &key, **found;

        found = bsearch(&key_p, f->records, f->n_records, sizeof(*f->records), compare_records);
        return found && (*found)->start_time == p->start_time ? *found : NULL;
}

static const Process *find_process(const Finder *f, pid_t pid) {
        const Process key = { .pid = pid };

        return bsearch(&key, f->processes, f->n_processes, sizeof(*f->processes), compare_processes);
}

/* Adds the process if it is there: alive, or a zombie of ours that a record knows. */
static void add_process(Finder *f, pid_t pid) {
        Process p = { .pid = pid };
        bool zombie;

        if (pid == getpid() || process_get_start_time(pid, &p.start_time, &p.parent, &zombie) < 0)
                return;
        p.record = find_record(f, &p);
        if (zombie && !(p.record && p.parent == getpid()))
                return;
        f->processes[f->n_processes++] = p;
}

static int list_processes(Finder *f, int cgroup_fd) {
        _cleanup_free_ pid_t *pids = NULL;
        size_t n_pids = 0, n_listed;
        int r;

        if (cgroup_fd >= 0) {
                r = cgroup_list(cgroup_fd, &pids, &n_pids);
                if (r < 0)
                        return r;
        }

        f->processes = calloc(n_pids + f->n_records + 1, sizeof(*f->processes));
        if (!f->processes)
                return -ENOMEM;
        for (size_t i = 0; i < n_pids; i++)
                add_process(f, pids[i]);
        qsort(f->processes, f->n_processes, sizeof(*f->processes), compare_processes);

        /* The cgroup does not list zombies; and maybe there is none. */
        n_listed = f->n_processes;
        for (size_t i = 0; i < f->n_records; i++) {
                const Process key = { .pid = f->records[i]->pid };
                size_t before = f->n_processes;

                if (bsearch(&key, f->processes, n_listed, sizeof(*f->processes), compare_processes))
                        continue;
                add_process(f, f->records[i]->pid);
                if (f->n_processes > before && !f->processes[before].record)
                        f->n_processes = before; /* its pid has come back as something else */
        }
        qsort(f->processes, f->n_processes, sizeof(*f->processes), compare_processes);
        return 0;
}

/* Takes the stored pidfd of a record's slot and generation that refers to its pid or, for pid 0, to a
 * process that is gone; -EBADF if there is none. A worker and its predecessor may have the same name. */
static int take_stored(ListenSet *stored, const StateWorker *record, pid_t pid) {
        for (size_t i = 0; i < stored->n_workers; i++) {
                StoredWorker *s = stored->workers + i;
                pid_t stored_pid;

                if (s->pidfd < 0 || s->slot != record->slot || s->generation != record->generation)
                        continue;
                if (pidfd_get_pid(s->pidfd, &stored_pid) < 0)
                        stored_pid = 0;
                if (stored_pid == pid)
                        return TAKE_FD(s->pidfd);
        }
        return -EBADF;
}

static int open_pidfd(Adoptee *a, ListenSet *stored) {
        _cleanup_close_ int fd = -EBADF;
        uint64_t start_time;

        if (a->kind == ADOPT_WORKER)
                a->pidfd = take_stored(stored, &a->record, a->record.pid);
        a->stored = a->pidfd >= 0;
        if (a->stored)
                return 0;

        fd = pidfd_open(a->record.pid, 0);
        if (fd < 0)
                return -errno;
        if (process_get_start_time(a->record.pid, &start_time, NULL, NULL) < 0 ||
            start_time != a->record.start_time)
                return -ESRCH;
        a->pidfd = TAKE_FD(fd);
        return 0;
}

/* Whether a process that says so in its environment may be the worker that was about to be spawned. Children
 * of workers say so, too. Without records there is nothing else to go by. */
static bool is_intended(const Finder *f, uint64_t slot, uint64_t generation) {
        if (!f->state)
                return true;
        for (size_t i = 0; i < f->state->n_workers; i++) {
                const StateWorker *w = f->state->workers + i;

                if (w->pid == 0 && w->slot == slot && w->generation == generation)
                        return true;
        }
        return false;
}

/* What a record says was there and is not. */
static void add_lost(Finder *f, const StateWorker *record) {
        Adoptee a = { .kind = ADOPT_LOST, .record = *record };

        a.pidfd = take_stored(f->stored, record, 0);
        a.stored = a.pidfd >= 0;
        if (a.pidfd < 0 || pidfd_get_death(a.pidfd, &a.death) < 0)
                a.death = (Death) {};
        f->adoption->adoptees[f->adoption->n_adoptees++] = a;
}

static int adopt(Finder *f, const Process *p) {
        Adoptee a = { .kind = ADOPT_WORKER, .pidfd = -EBADF };
        uint64_t slot = 0, generation = 0;
        int r;

        if (p->record)
                a.record = *p->record;
        else if (p->parent != getpid() && find_process(f, p->parent))
                return 0;
        else if (process_get_environment_number(p->pid, "FCGI_POOL_SLOT", SLOT_MAX, &slot) < 0 ||
                 process_get_environment_number(p->pid, "FCGI_POOL_GENERATION",
                                                UINT64_MAX, &generation) < 0 ||
                 !is_intended(f, slot, generation))
                a.kind = ADOPT_STRANGER;
        else
                a.record = (StateWorker) {
                        .slot = (unsigned) slot,
                        .generation = generation,
                        .state = WORKER_STARTING,
                };
        a.record.pid = p->pid;
        a.record.start_time = p->start_time;

        r = open_pidfd(&a, f->stored);
        if (r == -ESRCH) {
                /* Died under our eyes. */
                if (p->record)
                        add_lost(f, p->record);
                return 0;
        }
        if (r < 0)
                return r;
        f->adoption->adoptees[f->adoption->n_adoptees++] = a;
        return 0;
}

int adopt_find(const State *state, ListenSet *stored, int cgroup_fd, Adoption **ret_adoption) {
        _cleanup_(finder_done) Finder f = { .state = state, .stored = stored };
        int r;

        assert(stored);
        assert(ret_adoption);

        r = index_records(&f);
        if (r >= 0)
                r = list_processes(&f, cgroup_fd);
        if (r < 0)
                return r;

        f.adoption = calloc(1, sizeof(*f.adoption));
        if (!f.adoption)
                return -ENOMEM;
        f.adoption->adoptees = calloc(f.n_processes + f.n_records + 1, sizeof(*f.adoption->adoptees));
        if (!f.adoption->adoptees)
                return -ENOMEM;

        for (size_t i = 0; i < f.n_processes; i++) {
                r = adopt(&f, f.processes + i);
                if (r < 0)
                        return r;
        }
        for (size_t i = 0; i < f.n_records; i++) {
                const Process *p = find_process(&f, f.records[i]->pid);

                if (!p || p->record != f.records[i])
                        add_lost(&f, f.records[i]);
        }

        *ret_adoption = TAKE_PTR(f.adoption);
        return 0;
}
