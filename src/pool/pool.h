/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The set of workers: what is wanted of each slot, and the one function that makes it so. */

#include "adopt.h"
#include "cgroup.h"
#include "config.h"
#include "notify.h"
#include "plan.h"
#include "problem.h"
#include "sockets.h"
#include "state.h"

typedef struct sd_event sd_event;
typedef struct Pool Pool;

typedef struct PoolParameters {
        const Config *config;    /* all that are pointed to must outlive the pool */
        const char *name;
        ListenSet *listeners;
        Notify *notify;
        StateFile *state_file;   /* NULL: nothing is written for the next helper */
        const Cgroup *cgroup;    /* where workers live; NULL: in our own */
        /* The phase has changed. In POOL_STOPPING and POOL_STOPPED failure says why the pool gave up, or
         * is NULL if it was asked to stop. May not free the pool. */
        void (*on_phase)(PoolPhase phase, const Problem *failure, void *userdata);
        /* pool_format_status() may have a new answer; called once all pending events have been dealt
         * with. */
        void (*on_status)(void *userdata);
        void *userdata;
} PoolParameters;

/* Makes a pool with no workers; nothing runs before the event loop does. -ENOMEM, and what the socket for
 * the workers' notifications fails with. Does not log. */
int pool_new(sd_event *event, const PoolParameters *parameters, Pool **ret_pool);

/* Forgets the workers; their processes are not touched. Returns NULL. */
Pool *pool_free(Pool *pool);
DEFINE_TRIVIAL_CLEANUP_FUNC(Pool *, pool_free);

/* Takes over what an earlier helper has left, before the event loop runs. state may be NULL. Decides by
 * it whether workers are kept as they are (the helper has died: the pool serves at once) or are rolled to
 * a new generation (it was told to restart). Logs. */
int pool_adopt(Pool *pool, const State *state, Adoption *adoption);

/* requests.c */

/* Begins to replace all workers by a new generation, each once its successor is ready. The end is logged;
 * a failure leaves the elders in place. -EBUSY: the pool does not serve yet or any more; -EHOSTDOWN: it is
 * held; -EALREADY: a roll is under way; -EMLINK: workers of two older generations have not ended yet. */
int pool_roll(Pool *pool);

/* Another number of workers: the slots above it go, those below are not touched. Negative errno with
 * *ret_problem (may be NULL): -EOPNOTSUPP, the pool sizes itself; -ERANGE; -EMFILE, RLIMIT_NOFILE is too
 * small; -ENOMEM. */
int pool_set_workers(Pool *pool, unsigned n, Problem *ret_problem);

/* The worker of a slot gets a successor and ends, as one that has reached --max-lifetime. -ESRCH: there is
 * no such slot, or its worker is not ready. */
int pool_recycle(Pool *pool, unsigned slot);

/* All of them, one after the other. Returns how many. */
unsigned pool_recycle_all(Pool *pool);

/* Held: all workers end between their requests, and clients wait in the queue. Not held: as before. -EBUSY:
 * the pool does not serve yet or any more; -EALREADY: a roll is under way. */
int pool_hold(Pool *pool, bool held);

/* Whether RLIMIT_NOFILE lets us have so many workers. -EMFILE with *ret_problem (may be NULL). */
int pool_check_size(unsigned n_workers, Problem *ret_problem);

/* Buries the dead and writes the state for the next helper, who is to take over now. Negative errno. */
int pool_leave(Pool *pool, StateLife life);

/* Writes the state for the next helper, as it is. Negative errno. */
int pool_save(Pool *pool, StateLife life);

/* No slot wants a worker any more: all are retired at once under one deadline. Idempotent. */
void pool_stop(Pool *pool);

/* report.c */

/* "5/6 workers ready, 1 starting", for STATUS=; written to buffer; returns buffer. */
char *pool_format_status(const Pool *pool, char *buffer, size_t size);

/* What has become of the roll to a generation: 1, it serves and whoever it replaces has ended; 0, that is
 * not known yet; -ECANCELED, it has failed; -ESRCH, there is or was no such roll, or a later one has begun.
 * *ret_text (borrowed, valid until the next call) says it in words, but for 0. */
int pool_get_verdict(Pool *pool, uint64_t generation, const char **ret_text);

#define POOL_STATUS_SIZE 768U

typedef struct PoolSummary {
        const char *name;        /* borrowed, as is the next one */
        const char *phase;
        char status[POOL_STATUS_SIZE];
        uint64_t generation;
        bool reloading, held;
        unsigned n_wanted, n_ready;
        unsigned n_queued;       /* most clients that wait at a listener, now */
} PoolSummary;

void pool_summarize(const Pool *pool, PoolSummary *ret);

/* A worker, or a slot without one. */
typedef struct PoolRow {
        int64_t slot;            /* -1: the worker belongs to none */
        const char *state;       /* static; of an empty slot: "empty" or "backing-off" */
        pid_t pid;               /* 0: none, and then the next ones are, too */
        uint64_t generation;
        uint64_t state_usec;     /* for how long it has been in that state */
        uint64_t age_usec;
        unsigned n_requests;
        uint64_t request_usec;   /* age of the oldest one, as far as it is known */
        uint64_t memory;         /* PSS in bytes; 0: not known */
        unsigned n_restarts;     /* of the slot, since this helper began */
        const char *last_death;  /* likewise, in words, borrowed from the pool; NULL: none */
} PoolRow;

/* All workers by slot, and empty slots, after a look at each. *ret_rows is to be freed. -ENOMEM. */
int pool_list(Pool *pool, PoolRow **ret_rows, size_t *ret_n_rows);

/* Whether a process of the pool is left, in whatever state. */
bool pool_has_workers(const Pool *pool);

/* POOL_STARTING: READY=1 has not been said. */
bool pool_is_starting(const Pool *pool);

/* A newer generation replaces the workers. */
bool pool_is_rolling(const Pool *pool);

/* It has, but not all of those have ended. */
bool pool_is_draining(const Pool *pool);

/* Workers that had to be sent SIGKILL since the pool began to stop. */
unsigned pool_n_killed(const Pool *pool);
