/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What ListWorkers() answers. */

#include "client.h"

/* A worker, or a slot without one. Times in microseconds, ages all of them; memory in bytes. */
typedef struct WorkerRow {
        bool has_slot, has_process, has_request, has_memory;
        uint64_t slot, pid, generation, state_usec, requests, request_usec, memory, age_usec, restarts;
        const char *state, *last_death; /* borrowed from the rows; last_death may be NULL */
} WorkerRow;

typedef struct Rows {
        WorkerRow *list;
        size_t n;
        sd_bus_message *message;
} Rows;

/* Asks for the workers of a pool. *ret_rows is to be freed with rows_done(). Negative errno with
 * *ret_problem. */
int rows_get(sd_bus *bus, Rows *ret_rows, Problem *ret_problem);
void rows_done(Rows *rows);
