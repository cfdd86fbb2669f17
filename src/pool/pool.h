/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The set of workers: what is wanted of each slot, and the one function that makes it so. */

#include "adopt.h"
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
        int workers_cgroup_fd;   /* where workers are born; -EBADF: in our own cgroup */
        bool workers_cgroup_move; /* not born there but moved: Cgroup.must_move */
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

/* Begins to replace all workers by a new generation, each once its successor is ready. The end is logged;
 * a failure leaves the elders in place. -EBUSY: the pool does not serve yet or any more; -EALREADY: a
 * roll is under way. */
int pool_roll(Pool *pool);

/* Buries the dead and writes the state for the next helper, who is to take over now. Negative errno. */
int pool_leave(Pool *pool, StateLife life);

/* Writes the state for the next helper, as it is. Negative errno. */
int pool_save(Pool *pool, StateLife life);

/* No slot wants a worker any more: all are retired at once under one deadline. Idempotent. */
void pool_stop(Pool *pool);

/* "5/6 workers ready, 1 starting", for STATUS=; written to buffer; returns buffer. */
char *pool_format_status(const Pool *pool, char *buffer, size_t size);

/* Whether a process of the pool is left, in whatever state. */
bool pool_has_workers(const Pool *pool);

/* POOL_STARTING: READY=1 has not been said. */
bool pool_is_starting(const Pool *pool);

/* A newer generation replaces the workers. */
bool pool_is_rolling(const Pool *pool);

/* Workers that had to be sent SIGKILL since the pool began to stop. */
unsigned pool_n_killed(const Pool *pool);
