/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The states of one worker, in the order they are passed through. The rules are in worker.c. */

typedef enum WorkerState {
        WORKER_STARTING, /* a process exists; not known to serve yet */
        WORKER_READY,    /* serves */
        WORKER_RETIRING, /* told to end: stop signal sent */
        WORKER_KILLING,  /* SIGKILL sent */
        WORKER_DEAD,     /* reaped */
        _WORKER_STATE_MAX,
} WorkerState;

/* "starting", "ready", ... Static. */
const char *worker_state_to_string(WorkerState state);
