/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The inside of a pool, for the two files that work on it: pool.c runs it, handover.c passes it on from one
 * helper to the next. */

#include "pool.h"
#include "watch.h"
#include "worker.h"

typedef struct sd_event_source sd_event_source;

typedef struct Slot {
        Worker *current;          /* starting or ready; borrowed from the pool's list, like the next one */
        Worker *successor;        /* starting, will replace current */
        bool intended;            /* a worker is about to be spawned */
        int output_fd;            /* its workers' journal stream; -EBADF: none yet, or ours is inherited */
        unsigned n_early_deaths;  /* in a row */
        uint64_t not_before_usec;
} Slot;

/* How busy the pool is, as of the last look. */
typedef struct Load {
        Watch *watch;
        sd_event_source *source;   /* on it: the next client, once */
        int diag_fd;               /* queue.h */
        bool watching;             /* the source is on */
        bool awake;                /* clients are about, there will be looks */
        uint64_t awake_usec;
        uint64_t next_usec;        /* the next look */
        uint64_t memory_usec;      /* the last one at memory; 0: none yet */
        bool pressed;              /* PlanLoad.pressed, n_peak, peak_since_usec */
        unsigned n_peak, n_peak_before; /* in this span of PLAN_SHRINK_USEC, and in the last one */
        uint64_t peak_since_usec;
        unsigned n_busy, n_queued;
        uint64_t oldest_usec;      /* age of the oldest request */
} Load;

struct Pool {
        PoolParameters p;
        sd_event *event;                   /* owned reference */
        sd_event_source *reconcile_source; /* one-shot, when no other event is pending */
        sd_event_source *status_source;    /* one-shot, STATUS_DELAY_USEC after the first change */
        sd_event_source *timer_source;
        sd_event_source *inbox_source;
        int inbox_fd;                      /* -EBADF if workers are not listened to */
        char *inbox_address;

        PoolPhase phase;
        bool rolling;                      /* workers of older generations are outdated */
        bool proven;                       /* a worker of this generation has become ready */
        Slot *slots;                       /* config->n_workers of them */
        unsigned n_wanted;                 /* the first so many of them want a worker */
        Load load;
        Worker *workers;
        Worker *dead;                      /* ended, obituary not yet written */
        uint64_t generation;               /* the newest */
        bool unsaved;                      /* the state file lags behind */

        uint64_t *early_deaths;            /* ring of config->crash_budget + 1 times, 0: none yet */
        size_t next_early_death;
        bool missed_start_timeout;
        bool could_not_execute;
        unsigned n_killed;
        char last_failure[256];            /* of any worker, for the verdict */
        Problem failure;
        bool failed;
};

/* pool.c */

/* CLOCK_MONOTONIC, at the beginning of this turn of the event loop. */
uint64_t pool_now(const Pool *pool);

/* NULL: none, or one that the pool does not have any more. */
Slot *pool_slot_of(const Pool *pool, const Worker *w);
Listener *pool_listener_of(const Pool *pool, unsigned slot);

/* To be replaced: of an older generation while we roll, or on a listener that is not its slot's any more. */
bool pool_is_outdated(const Pool *pool, const Worker *w);

/* Takes the worker. */
void pool_add_worker(Pool *pool, Worker *w);

/* on_fact of each worker; userdata is the pool. */
void pool_on_worker_fact(Worker *w, void *userdata);

/* reconcile() runs once no other event is pending. */
void pool_request_reconcile(Pool *pool);

/* on_status() is called in a moment. later: what has changed is how busy the pool is, and can wait. */
void pool_request_status(Pool *pool, bool later);

void pool_enter_phase(Pool *pool, PoolPhase phase);

/* load.c */

int load_init(Pool *pool);
void load_done(Pool *pool);

/* Looks at how busy the pool is, if it is time to, and sets n_wanted; returns when to come again. */
uint64_t load_drive(Pool *pool, uint64_t now_usec);

/* Logs what is known of a worker that is inside one request for too long or, if silent, has not said
 * WATCHDOG=1. */
void load_report_stuck(Pool *pool, Worker *w, bool silent);

/* handover.c */

/* The pidfd of the worker into PID 1's store, or out of it; nothing if it is as wanted. */
void pool_store_worker(Pool *pool, Worker *w);
void pool_unstore_worker(Pool *pool, Worker *w);

/* pool_save() of a pool that goes on. Logs what goes wrong. */
void pool_save_or_warn(Pool *pool);
