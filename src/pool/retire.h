/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The end of a worker that knows nothing of it: all of its processes are stopped, and killed only if they
 * hold no request. */

#include <sys/types.h>

#include "util.h"

/* Whoever is just ending cannot be looked into, and in a crowd of children there is always one. */
#define RETIRE_UNKNOWN_USEC (1 * USEC_PER_SEC)

typedef enum RetireResult {
        RETIRE_BUSY,    /* it goes on: try again later */
        RETIRE_KILLED,  /* SIGKILL has been sent to all of its processes */
        RETIRE_UNKNOWN, /* it goes on, and for RETIRE_UNKNOWN_USEC nobody could tell whether it holds a
                         * request */
} RetireResult;

/* What the tries at one worker have to remember. Begins as {}. */
typedef struct Retirement {
        uint64_t unknown_since_usec; /* the first of the last looks that did not show all; 0: the last did */
        uint64_t kept_since_usec; /* nothing has happened on its kept connections since; 0: not known */
        uint64_t kept_run_nsec, kept_read_chars;
        int error;                /* negative errno behind RETIRE_UNKNOWN */
        unsigned n_pauses;        /* stopped, found busy and continued */
        uint64_t pause_usec;      /* the last one */
        uint64_t pause_max_usec;
} Retirement;

typedef struct RetireRequest {
        pid_t pid;
        int pidfd;                /* of pid */
        int listener_fd;
        uint64_t listener_inode;
        bool unconnected;         /* it need not wait on the listener, having no connection is enough */
        /* A kept connection (FCGI_KEEP_CONN) counts as unused after nothing has happened for so long: if the
         * worker is known to have had the last word on it, or if not. */
        uint64_t answered_usec, kept_usec;
} RetireRequest;

/* One try. Looks first, and stops nobody who is seen busy. Takes as long as a few looks, and if the worker
 * has to be stopped for one, up to 5 ms more. Whoever was stopped is dead or continued afterwards; if we are
 * killed in between, the next helper has to send SIGCONT. A process that is gone is RETIRE_BUSY: its death
 * is on its way. Does not log. */
RetireResult retire_try(Retirement *retirement, const RetireRequest *request);
