/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One worker: a process, what is known of it, and everything we hold because of it. */

#include <sys/types.h>

#include "pidfd.h"
#include "plan.h"
#include "retire.h"
#include "util.h"
#include "worker-state.h"

typedef struct sd_event sd_event;
typedef struct sd_event_source sd_event_source;
typedef struct Worker Worker;

/* Connections in use, as of the last look. */
typedef struct Requests {
        uint64_t read_chars, written_chars; /* what the worker had read and written by then */
        size_t n;
        struct Request {
                uint64_t inode;
                uint64_t since_usec;   /* the first look at it */
        } list[];
} Requests;

typedef enum WornReason {
        WORN_NOT,
        WORN_AGE,
        WORN_MEMORY,
        WORN_REQUESTED,
} WornReason;

struct Worker {
        unsigned slot;
        uint64_t generation;
        const char *pool_name;         /* borrowed */
        pid_t pid;
        uint64_t start_time;           /* field 22 of /proc/PID/stat; 0: not known */
        uint64_t cookie;               /* of its listener; 0: not known */
        bool adopted;                  /* started by an earlier helper */
        bool stranger;                 /* found in our cgroup, belongs to no slot */
        bool dismissed;                /* no slot will want it again */
        bool on_trial;                 /* on a listener of its own; a stranger otherwise */
        bool stored;                   /* PID 1 has its pidfd */
        int pidfd;                     /* owned */
        int exec_fd;                   /* owned; -EBADF once execve() has succeeded or failed */
        sd_event_source *death_source; /* on pidfd */
        sd_event_source *exec_source;  /* on exec_fd */

        bool ended;                    /* the process has; worker_set_state(WORKER_DEAD) is due */
        uint64_t ended_usec;
        bool introduced;               /* worker_introduce(), or by an earlier helper */
        WorkerState state;             /* written by worker_set_state() only */
        uint64_t state_since_usec;
        uint64_t spawned_usec;         /* right after clone3(), not when that was decided */
        uint64_t looked_usec;
        bool executed;
        bool announced;
        bool seen;
        bool unobservable;
        bool looked_into;              /* a look could tell, once */
        uint64_t unknown_since_usec;   /* the first of the last looks that could not; 0: the last could */
        bool served;                   /* has been ready */
        bool large;                    /* above --max-memory, when last asked for */
        bool stuck, aborted;
        WornReason worn;               /* it is to have a successor though it serves */
        uint64_t pinged_usec;          /* its last WATCHDOG=1; 0: none yet */
        uint64_t request_usec;         /* age of its oldest request at the last look; 0: none */
        Requests *requests;            /* owned; NULL: none */
        uint64_t retired_usec;         /* it was told to end, or found on the way there; 0: not yet */
        uint64_t signalled_usec;       /* the stop signal was sent; 0: not by us */
        Retirement *retirement;        /* owned; NULL: not tried yet */
        int exec_error;                /* negative errno of execve(), or 0 */
        Death death;

        /* Called after a fact has been recorded: executed, exec_error, or ended and death. May not free
         * the worker. */
        void (*on_fact)(Worker *worker, void *userdata);
        void *userdata;

        Worker *next;                  /* the pool's list */
};

typedef struct WorkerParameters {
        unsigned slot;
        uint64_t generation;
        const char *pool_name;         /* must outlive the worker */
        pid_t pid;
        uint64_t start_time, cookie;
        int pidfd;
        int exec_fd;                   /* -EBADF: execve() has succeeded long ago */
        WorkerState state;             /* WORKER_STARTING, or what an earlier helper has made of it */
        bool adopted, stranger;
        uint64_t spawned_usec, now_usec;
        void (*on_fact)(Worker *worker, void *userdata);
        void *userdata;
} WorkerParameters;

/* Watches a process that spawn_worker() has made, or that was adopted. Takes both descriptors, also on
 * failure, when it kills a process that was not adopted as well.
 * -ENOMEM and what sd_event_add_io(3) returns. */
int worker_new(sd_event *event, const WorkerParameters *parameters, Worker **ret_worker);

/* Writes the line that a worker is there, once. Apart from worker_new(), so that the obituary of its
 * predecessor can stand before it. */
void worker_introduce(Worker *worker);

/* Lets go of everything held because of the worker; the process is not touched. Returns NULL. */
Worker *worker_free(Worker *worker);

/* The only writer of the state. Releases what the new state may not own, logs one line with the reason
 * (may be NULL) or, for WORKER_DEAD, the obituary. Transitions that the rule table does not allow are
 * assertion failures. */
void worker_set_state(Worker *worker, WorkerState state, uint64_t now_usec, const char *reason);

/* Sends signo through the pidfd. A process that is gone already is no error. Returns 0 or negative errno. */
int worker_signal(Worker *worker, int signo);

/* Counted as able to serve, or on the way there. */
bool worker_is_current(const Worker *worker);

/* What plan_worker() wants to know. */
PlanWorker worker_to_plan(const Worker *worker, bool wanted);

/* "exited with status 1", "was killed by SIGSEGV (core dumped)", "could not execute: No such file or
 * directory" ... written to buffer; returns buffer. */
char *worker_format_death(const Worker *worker, char *buffer, size_t size);

/* Whether it is known to have exited with status 0. */
bool worker_death_is_clean(const Worker *worker);

/* Writes one line about the worker with its fields and those of fields, an array of "KEY=value" closed by
 * NULL, or NULL. At most six. */
void _printf_(5, 6) worker_log_fields(const Worker *worker, int priority, const char *message_id,
                                      const char *const *fields, const char *format, ...);

/* Writes one line about the worker with its fields and, unless NULL, one field more ("KEY=value"). */
void _printf_(5, 6) worker_log(const Worker *worker, int priority, const char *message_id, const char *field,
                               const char *format, ...);
