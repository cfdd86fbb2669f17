/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The set of workers: what is wanted of each slot, and the one function that makes it so. */

#include "config.h"
#include "plan.h"
#include "problem.h"
#include "sockets.h"

typedef struct sd_event sd_event;
typedef struct Pool Pool;

typedef struct PoolParameters {
        const Config *config;    /* these three must outlive the pool */
        const char *name;
        ListenSet *listeners;
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

/* No slot wants a worker any more: all are retired at once under one deadline. Idempotent. */
void pool_stop(Pool *pool);

/* "5/6 workers ready, 1 starting", for STATUS=; written to buffer; returns buffer. */
char *pool_format_status(const Pool *pool, char *buffer, size_t size);

/* Workers that had to be sent SIGKILL since the pool began to stop. */
unsigned pool_n_killed(const Pool *pool);
