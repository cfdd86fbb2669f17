/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The inside of a pool, for the files that work on it: pool.c runs it, load.c sees how busy it is,
 * handover.c passes it on from one helper to the next, report.c tells people about it. */

#include "pool.h"
#include "watch.h"
#include "worker.h"

typedef struct sd_event_source sd_event_source;

typedef struct Slot {
        Worker *current;          /* starting or ready; borrowed from the pool's list, like the next one */
        Worker *successor;        /* starting, will replace current */
        Worker *elder;            /* replaced by current; serves on while the roll may still fail */
        bool intended;            /* a worker is about to be spawned */
        int output_fd;            /* its workers' journal stream; -EBADF: none yet, or ours is inherited */
        unsigned n_early_deaths;  /* in a row */
        uint64_t not_before_usec;
        bool used;                /* it had a worker */
        unsigned n_restarts;      /* how many it has had since */
        char last_death[128];     /* of a worker that nobody had told to end; "": none */
} Slot;

typedef struct Trial Trial;

/* A generation on its way, until the last worker that it replaces has ended. */
typedef struct Roll {
        bool draining;             /* the new one serves, and older workers have not ended yet */
        bool failed;
        bool tried;                /* a worker of it has answered --probe= */
        uint64_t begun_usec;
        unsigned n_replaced, n_killed;
        uint64_t drain_usec;       /* the longest, from the decision to the end of the process */
        unsigned n_queued;         /* most clients that were seen waiting */
        uint64_t n_overflows;      /* connections that the listeners had refused when it began */
        char text[512];            /* the verdict */
} Roll;

/* How busy the pool is, as of the last look. */
typedef struct Load {
        Watch *watch;
        sd_event_source *source;   /* on it: the next client, once */
        int diag_fd;               /* queue.h */
        bool watching;             /* the source is on */
        bool awake;                /* clients are about, there will be looks */
        bool woken;                /* by a client, and not by the begin of service */
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
        Roll roll;                         /* the last one */
        Trial *trial;                      /* NULL: none under way */
        Config size;                       /* as given, but for the number of workers if that was set */
        bool size_is_set;
        Slot *slots;                       /* size.n_workers of them, or more */
        unsigned n_slots;
        unsigned n_wanted;                 /* the first so many of them want a worker, unless ... */
        bool held;                         /* ... clients are to wait */
        Load load;
        Worker *workers;
        Worker *dead;                      /* ended, obituary not yet written */
        uint64_t generation;               /* the newest */
        bool unsaved;                      /* the state file lags behind */

        uint64_t *early_deaths;            /* ring of config->crash_budget + 1 times, 0: none yet */
        size_t next_early_death;
        bool missed_start_timeout;
        bool could_not_execute;
        bool successor_died;
        unsigned n_killed;
        char last_failure[256];            /* of any worker, for the verdict */
        Problem failure;
        bool failed;
};

typedef struct Counts {
        unsigned per_state[_WORKER_STATE_MAX];
        unsigned n_executing, n_replacing, n_settled;
        unsigned n_elders;           /* that serve on beside their successors */
} Counts;

/* pool.c */

Counts pool_count(const Pool *pool);

/* CLOCK_MONOTONIC, at the beginning of this turn of the event loop. */
uint64_t pool_now(const Pool *pool);

/* NULL: none, or one that the pool does not have any more. */
Slot *pool_slot_of(const Pool *pool, const Worker *w);
Listener *pool_listener_of(const Pool *pool, unsigned slot);

/* How many slots want a worker now. */
unsigned pool_n_active(const Pool *pool);

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

/* Looks at a worker for a person: its requests, the age of the oldest and its memory. */
void load_describe(Pool *pool, Worker *w, PoolRow *row);

/* The most clients that wait at any of the listeners, now. */
unsigned load_n_queued(const Pool *pool);

/* Logs what is known of a worker that is inside one request for too long or, if silent, has not said
 * WATCHDOG=1. */
void load_report_stuck(Pool *pool, Worker *w, bool silent);

/* No attempt counts that was made before. */
void pool_forget_attempts(Pool *pool);

/* Makes room for n slots. -ENOMEM. */
int pool_reserve_slots(Pool *pool, unsigned n);

/* Starts the process of a worker: environment and output are those of the slot. As spawn_worker(). */
int pool_spawn_process(Pool *pool, unsigned slot, int listener_fd, pid_t *ret_pid, int *ret_pidfd,
                       int *ret_exec_fd);

/* trial.c */

/* No worker may be replaced yet: one of the new generation has to answer --probe= first. */
bool trial_is_due(const Pool *pool);

/* Begins, ends and judges the trial; *ret_next_usec says when to come again. False: the new generation is no
 * good, and pool->last_failure says why. */
bool trial_drive(Pool *pool, uint64_t now_usec, uint64_t *ret_next_usec);

/* A worker has ended, maybe the one on trial. */
void trial_on_death(Pool *pool, const Worker *w);

/* Forgets the trial; its worker is the pool's. */
void trial_discard(Pool *pool);

/* report.c: what happens to the roll under way. */
void report_roll_begins(Pool *pool, uint64_t now_usec);
void report_roll_goes_on(Pool *pool, uint64_t now_usec);
void report_roll_succeeds(Pool *pool, uint64_t now_usec);
void report_roll_is_overtaken(Pool *pool, uint64_t now_usec);
void report_roll_fails(Pool *pool, const char *text);
void report_adopted(Pool *pool, uint64_t now_usec);

/* A worker has ended; counts it if the roll is why. */
void report_replaced(Pool *pool, const Worker *w);

/* handover.c */

/* The pidfd of the worker into PID 1's store, or out of it; nothing if it is as wanted. */
void pool_store_worker(Pool *pool, Worker *w);
void pool_unstore_worker(Pool *pool, Worker *w);

/* pool_save() of a pool that goes on. Logs what goes wrong. */
void pool_save_or_warn(Pool *pool);
