/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Policy: what ought to be done, said about plain numbers. No I/O, no clock, no allocation, no state: the
 * same question gets the same answer. All times are microseconds of CLOCK_MONOTONIC; USEC_INFINITY is
 * "never". */

#include "config.h"
#include "util.h"
#include "worker-state.h"

#define PLAN_EARLY_DEATH_USEC (1 * USEC_PER_SEC)
#define PLAN_BACKOFF_MIN_USEC (100 * USEC_PER_MSEC)
#define PLAN_BACKOFF_MAX_USEC (30 * USEC_PER_SEC)
#define PLAN_START_ATTEMPTS 3U       /* early deaths in a row that a slot is granted while the pool starts */
#define PLAN_EXECUTING_MAX 32U       /* processes that may be between fork and exec at a time */
#define PLAN_ASSUME_READY_USEC (1 * USEC_PER_SEC)
#define PLAN_LOOK_MIN_USEC (1 * USEC_PER_MSEC)
#define PLAN_LOOK_MAX_USEC (250 * USEC_PER_MSEC)
#define PLAN_QUIET_USEC (20 * USEC_PER_MSEC)
#define PLAN_TRY_MIN_USEC (500 * UINT64_C(1))
#define PLAN_TRY_DENSE_USEC (2 * USEC_PER_MSEC)
#define PLAN_TRY_MAX_USEC (50 * USEC_PER_MSEC)
#define PLAN_TRY_COST_USEC (100 * UINT64_C(1)) /* what a try may take, ... */
#define PLAN_TRY_SHARE 4U                      /* ... and one in how much of our time it may be */
#define PLAN_PATIENCE_USEC (1 * USEC_PER_SEC)
#define PLAN_ANSWERED_USEC (100 * USEC_PER_MSEC)
#define PLAN_KEPT_USEC (5 * USEC_PER_SEC)
#define PLAN_WATCH_MIN_USEC (1 * USEC_PER_MSEC)
#define PLAN_WATCH_MAX_USEC (250 * USEC_PER_MSEC)
#define PLAN_WATCH_SLOW_USEC (5 * USEC_PER_SEC)
#define PLAN_WATCH_COST_USEC (30 * UINT64_C(1)) /* what a look at a worker may take, ... */
#define PLAN_WATCH_SHARE 20U                    /* ... and one in how much of our time all looks may be */
#define PLAN_AWAKE_USEC (1 * USEC_PER_SEC)
#define PLAN_MEMORY_USEC (10 * USEC_PER_SEC)
#define PLAN_SHRINK_USEC (5 * USEC_PER_SEC)

/* What is known of one worker. */
typedef struct PlanWorker {
        WorkerState state;
        bool wanted;                /* its slot wants it to serve */
        bool adopted;               /* from an earlier helper, who may have heard its READY=1 */
        bool executed;              /* execve() has succeeded */
        bool announced;             /* READY=1 has come */
        bool seen;                  /* it was seen waiting on the listener or owning a connection from it */
        bool unobservable;          /* the last look could not tell */
        bool stranger;              /* belongs to no slot */
        bool on_trial;              /* ... but we know it, and it serves nobody */
        bool stuck;                 /* PLAN_STUCK or PLAN_SILENT was said of it */
        bool aborted;               /* PLAN_ABORT was */
        bool served;                /* it was ready once */
        bool worn;                  /* PLAN_WEAR_* was said of it */
        uint32_t random;            /* any number, the same for the life of the worker */
        bool large;                 /* above --max-memory, when it was last asked for */
        uint64_t request_usec;      /* how old its oldest request was, seen at the last look; 0: none */
        uint64_t pinged_usec;       /* its last WATCHDOG=1; 0: none yet */
        uint64_t signalled_usec;    /* the stop signal was sent; 0: not yet */
        unsigned n_retiring;        /* workers in that state */
        uint64_t spawned_usec;
        uint64_t state_since_usec;
        uint64_t looked_usec;       /* the last look or try; 0: none yet */
} PlanWorker;

typedef enum PlanVerb {
        PLAN_NOTHING,
        PLAN_LOOK,         /* observe it */
        PLAN_READY,        /* it is ready */
        PLAN_ASSUME_READY, /* it cannot be observed and is counted as ready */
        PLAN_FAIL,         /* it missed --start-timeout: retire it and count a failure */
        PLAN_WEAR_AGE,     /* it is to have a successor: --max-lifetime */
        PLAN_WEAR_MEMORY,  /* it is to have a successor: --max-memory */
        PLAN_STUCK,        /* it is inside one request for longer than --request-timeout */
        PLAN_SILENT,       /* there was no WATCHDOG=1 for longer than that */
        PLAN_RETIRE,       /* it is to end: WORKER_RETIRING */
        PLAN_TRY,          /* kill it if it waits and holds no request */
        PLAN_TRY_HARDER,   /* kill it if it holds no request */
        PLAN_SIGNAL,       /* send the stop signal */
        PLAN_ABORT,        /* send SIGABRT, for a core */
        PLAN_KILL,         /* send SIGKILL */
        _PLAN_VERB_MAX,
} PlanVerb;

typedef struct PlanStep {
        PlanVerb verb;
        uint64_t again_usec; /* ask again then at the latest, if nothing happens before */
} PlanStep;

/* What to do with a worker now. */
PlanStep plan_worker(const Config *config, const PlanWorker *worker, uint64_t now_usec);

/* For how long nothing may have happened on a connection that a retiring worker keeps, and on which the
 * client may owe half a request, before it counts as unused. */
uint64_t plan_kept_usec(const Config *config, const PlanWorker *worker);

/* Whether journald and PID 1 are to hear nothing about a worker's slot yet, *ret_until_usec being the end of
 * that (else USEC_INFINITY): what they do with it takes CPU time from the start of the worker. */
bool plan_is_quiet(const PlanWorker *worker, uint64_t now_usec, uint64_t *ret_until_usec);

/* Whether the death of a worker is one that backs off: before it was ready, or within
 * PLAN_EARLY_DEATH_USEC, whatever its exit status. A worker that we told to end never counts. last is the
 * state it died in. */
bool plan_death_is_early(WorkerState last, uint64_t spawned_usec, uint64_t now_usec);

/* Whether the death of a worker of the newest generation ends a roll of a pool that serves: any that we did
 * not ask for, but that of a ready one that exits with status 0, as programs do that take so many requests
 * and no more. last is the state it died in. */
bool plan_death_fails_roll(WorkerState last, bool clean);

/* How long a slot waits after its n-th early death in a row (0: not at all): PLAN_BACKOFF_MIN_USEC,
 * doubled each time up to PLAN_BACKOFF_MAX_USEC, less up to a quarter by random, which is any 32-bit
 * number. */
uint64_t plan_backoff_usec(unsigned n_early_deaths, uint32_t random);

/* Whether more than n early deaths fell into the last span, if the (n + 1)-th last of them was at that
 * time (0: there were not that many). */
bool plan_budget_is_spent(const Config *config, uint64_t early_death_usec, uint64_t now_usec);

/* What is known of one slot. */
typedef struct PlanSlot {
        bool wanted;
        bool filled;              /* it has a worker, starting or ready */
        bool outdated;            /* that worker is to be replaced */
        bool worn;                /* for no better reason than its age or size */
        bool replacing;           /* a successor is starting */
        uint64_t not_before_usec; /* end of its back-off */
} PlanSlot;

/* What is known of all slots. */
typedef struct PlanCrowd {
        unsigned n_executing;     /* workers whose execve() has not been confirmed yet */
        unsigned n_replacing;     /* successors that are starting */
        unsigned n_retiring;      /* workers that are to end */
        bool proven;              /* a worker of the newest generation has become ready */
        unsigned surge;           /* plan_surge() */
} PlanCrowd;

/* How many successors may start at a time in a pool of n_slots: --surge, at least 1. */
unsigned plan_surge(const Config *config, unsigned n_slots);

/* Whether a worker is to be spawned for the slot now: into an empty slot, or as the successor of an
 * outdated worker. Successors start one at a time until one has proven the new generation good, then as many
 * as surge says; those of worn workers one at a time, and the predecessor must be gone before the next one.
 * If not, *ret_again_usec says when to ask again; USEC_INFINITY: after the next event. */
bool plan_slot_spawns(const PlanSlot *slot, const PlanCrowd *crowd, uint64_t now_usec,
                      uint64_t *ret_again_usec);

/* What is known of how busy the pool is. */
typedef struct PlanLoad {
        unsigned n_wanted;         /* slots that want a worker */
        unsigned n_step;           /* their number is a multiple of that: the listeners */
        unsigned n_ready;
        unsigned n_busy;           /* of these: in a request */
        unsigned n_taken;          /* of these: cannot take another connection, as far as can be seen */
        unsigned n_unknown;        /* of these: cannot be observed */
        unsigned n_connected;      /* of these: have a connection, in use or kept */
        unsigned n_queued;         /* clients that wait */
        bool pressed;              /* at the last look, too, all were taken and clients waited */
        unsigned n_peak;           /* most taken at a time in this span of PLAN_SHRINK_USEC and the last */
        uint64_t peak_since_usec;  /* when this span began */
        uint64_t awake_usec;       /* clients have been about since then */
        bool woken;                /* one of them was seen to come */
} PlanLoad;

typedef struct PlanLoadStep {
        unsigned n_wanted;
        bool pressed;
        bool rest;                 /* wake up with the next client only, or at ... */
        uint64_t again_usec;       /* the next look */
} PlanLoadStep;

/* What follows from a look at all workers: how many there are to be, and when to look again. The pool grows
 * when all workers are taken and clients wait, by as many as wait: at once if these are as many as the
 * workers, else if it is still so at the next look. A pool without a ready worker starts one per listener
 * and grows on when there is one. At the end of each span of PLAN_SHRINK_USEC it shrinks
 * to what was needed in that and the span before, and a quarter more. */
PlanLoadStep plan_load(const Config *config, const PlanLoad *load, uint64_t now_usec);

/* How many workers there are to be if n are wanted: within the bounds, and a multiple of n_step. */
unsigned plan_workers(const Config *config, unsigned n, unsigned n_step);

typedef enum PoolPhase {
        POOL_STARTING, /* until the worker of every wanted slot is ready for the first time */
        POOL_SERVING,
        POOL_STOPPING, /* no slot wants a worker any more */
        POOL_STOPPED,  /* no worker is left */
        _POOL_PHASE_MAX,
} PoolPhase;

/* What is known of the pool. */
typedef struct PlanPool {
        PoolPhase phase;
        bool rolling;                  /* outdated workers are being replaced while the pool serves */
        unsigned n_slots;              /* that want a worker */
        unsigned n_ready;              /* workers that serve, of any generation */
        unsigned n_settled;            /* slots whose worker is ready and not outdated */
        unsigned n_processes;          /* workers of any state but dead */
        unsigned most_early_deaths;    /* in a row, of any slot */
        bool missed_start_timeout;     /* a worker did, since the pool started or began to roll */
        bool could_not_execute;        /* a worker's execve() failed, likewise */
        bool successor_died;           /* in a way that fails a roll, likewise */
        bool trial_is_due;             /* there is no success before it has been passed */
        bool budget_spent;
} PlanPool;

typedef enum PlanVerdict {
        PLAN_GO_ON,
        PLAN_STARTED,          /* POOL_STARTING -> POOL_SERVING */
        PLAN_ROLLED,           /* all workers are of the newest generation */
        PLAN_TIMED_OUT,        /* these three: the start or the roll has failed */
        PLAN_CRASHED,
        PLAN_NOT_EXECUTED,
        PLAN_BUDGET_SPENT,     /* give up */
        PLAN_DRAINED,          /* POOL_STOPPING -> POOL_STOPPED */
        _PLAN_VERDICT_MAX,
} PlanVerdict;

/* What has become of the pool. */
PlanVerdict plan_pool(const PlanPool *pool);
