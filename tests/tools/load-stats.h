/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SPDX-FileCopyrightText: fcgi-pool contributors */
#pragma once

/* Counters of fcgi-load and the one JSON object it prints. Latencies go into a log-linear histogram
 * (128 steps per power of two: figures are at most 0.8 % too high), so memory does not grow with time. */

#include <stdint.h>

#include "load-check.h"

#define HISTOGRAM_STEPS 128
#define HISTOGRAM_SIZE (HISTOGRAM_STEPS * 40)

typedef struct CountEntry {
        int64_t key;
        uint64_t n;
} CountEntry;

/* Open hash from a non-negative number to a count; zero-initialised is empty. */
typedef struct CountTable {
        CountEntry *entries;
        size_t n_used;
        size_t n_allocated;
} CountTable;

typedef struct Stats {
        uint64_t n_started;
        uint64_t n_ok;
        uint64_t n_failed[N_FAILURES];
        uint64_t n_backlog_waits; /* AF_UNIX connect: EAGAIN, backlog full */
        uint64_t n_port_waits;    /* TCP connect: EADDRNOTAVAIL, no local port free */
        uint64_t n_stderr_bytes;
        uint64_t histogram[HISTOGRAM_SIZE]; /* of microseconds */
        uint64_t max_usec;

        uint64_t begin_nsec; /* monotonic: others may compare it with their own clock */
        uint64_t end_nsec;
        uint64_t last_ok_nsec;
        uint64_t longest_gap_nsec; /* between two good responses, or begin and the first */

        char first_failure[256];
        uint64_t first_failure_nsec;

        CountTable pids;
        CountTable generations;
} Stats;

/* The request ended well at time 'now' after 'latency_nsec'. pid and generation may be -1. */
void stats_ok(Stats *s, uint64_t now, uint64_t latency_nsec, int64_t pid, int64_t generation);

/* The request failed; 'detail' says how, for the first failure of the run. */
void stats_failed(Stats *s, uint64_t now, Failure kind, const char *detail);

uint64_t stats_n_failures(const Stats *s);
void stats_print(const Stats *s, FILE *f);
void stats_done(Stats *s);

const char *failure_to_string(Failure kind);
