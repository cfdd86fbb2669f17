/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SPDX-FileCopyrightText: fcgi-pool contributors */

/* See load-stats.h. The JSON is written by hand: keys are ours, and the only text that is not a number is
 * escaped. */

#include <inttypes.h>

#include "load-stats.h"
#include "tool.h"

static const char *const failure_names[] = {
        [FAILURE_REFUSED] = "refused",
        [FAILURE_RESET] = "reset",
        [FAILURE_EOF] = "eof",
        [FAILURE_TIMEOUT] = "timeout",
        [FAILURE_PROTOCOL] = "protocol",
        [FAILURE_WRONG_STATUS] = "wrong_status",
        [FAILURE_WRONG_BODY] = "wrong_body",
        [FAILURE_OTHER] = "other",
};

_Static_assert(ELEMENTSOF(failure_names) == N_FAILURES, "one name per kind");

const char *failure_to_string(Failure kind) {
        return kind >= 0 && kind < N_FAILURES ? failure_names[kind] : "none";
}

static CountEntry *table_slot(CountEntry *entries, size_t n, int64_t key) {
        size_t i = (size_t) key * UINT64_C(0x9e3779b97f4a7c15) >> 20;

        for (i &= n - 1; entries[i].n > 0 && entries[i].key != key; i = (i + 1) & (n - 1))
                continue;
        return entries + i;
}

static void table_count(CountTable *t, int64_t key) {
        CountEntry *e;

        if (t->n_used * 2 >= t->n_allocated) {
                size_t n = t->n_allocated ? t->n_allocated * 2 : 64;
                CountEntry *entries = calloc(n, sizeof(CountEntry));

                if (!entries)
                        fail(EXIT_FAILURE, "out of memory");
                for (size_t i = 0; i < t->n_allocated; i++)
                        if (t->entries[i].n > 0)
                                *table_slot(entries, n, t->entries[i].key) = t->entries[i];
                free(t->entries);
                t->entries = entries;
                t->n_allocated = n;
        }

        e = table_slot(t->entries, t->n_allocated, key);
        t->n_used += e->n == 0;
        e->key = key;
        e->n++;
}

static size_t histogram_index(uint64_t usec) {
        unsigned shift;
        size_t i;

        if (usec < 2 * HISTOGRAM_STEPS)
                return (size_t) usec;
        shift = 63 - (unsigned) __builtin_clzll(usec) - 7;
        i = (size_t) shift * HISTOGRAM_STEPS + (size_t) (usec >> shift);
        return i < HISTOGRAM_SIZE ? i : HISTOGRAM_SIZE - 1;
}

/* The highest value that falls into the step. */
static uint64_t histogram_value(size_t i) {
        unsigned shift;

        if (i < 2 * HISTOGRAM_STEPS)
                return i;
        shift = (unsigned) (i / HISTOGRAM_STEPS) - 1;
        return (((uint64_t) (i - (size_t) shift * HISTOGRAM_STEPS) + 1) << shift) - 1;
}

static uint64_t percentile(const Stats *s, double share) {
        uint64_t wanted = (uint64_t) (share * (double) s->n_ok + 0.999999), sum = 0;

        for (size_t i = 0; i < HISTOGRAM_SIZE; i++) {
                sum += s->histogram[i];
                if (sum >= wanted && sum > 0) {
                        uint64_t value = histogram_value(i);

                        return value < s->max_usec ? value : s->max_usec;
                }
        }
        return 0;
}

void stats_ok(Stats *s, uint64_t now, uint64_t latency_nsec, int64_t pid, int64_t generation) {
        uint64_t usec = latency_nsec / NSEC_PER_USEC;
        uint64_t since = s->last_ok_nsec ? s->last_ok_nsec : s->begin_nsec;

        s->n_ok++;
        s->histogram[histogram_index(usec)]++;
        if (usec > s->max_usec)
                s->max_usec = usec;
        if (now - since > s->longest_gap_nsec)
                s->longest_gap_nsec = now - since;
        s->last_ok_nsec = now;
        if (pid >= 0)
                table_count(&s->pids, pid);
        if (generation >= 0)
                table_count(&s->generations, generation);
}

void stats_failed(Stats *s, uint64_t now, Failure kind, const char *detail) {
        if (stats_n_failures(s) == 0) {
                snprintf(s->first_failure, sizeof(s->first_failure), "%s: %s",
                         failure_to_string(kind), detail);
                s->first_failure_nsec = now;
        }
        s->n_failed[kind]++;
}

uint64_t stats_n_failures(const Stats *s) {
        uint64_t n = 0;

        for (size_t i = 0; i < N_FAILURES; i++)
                n += s->n_failed[i];
        return n;
}

static void print_table(const CountTable *t, const char *name, FILE *f) {
        const char *separator = "";

        fprintf(f, "\"%s\":{", name);
        for (size_t i = 0; i < t->n_allocated; i++)
                if (t->entries[i].n > 0) {
                        fprintf(f, "%s\"%" PRId64 "\":%" PRIu64,
                                separator, t->entries[i].key, t->entries[i].n);
                        separator = ",";
                }
        fputs("},", f);
}

static void print_string(const char *text, FILE *f) {
        fputc('"', f);
        for (const char *p = text; *p; p++) {
                if (*p == '"' || *p == '\\')
                        fputc('\\', f);
                fputc((unsigned char) *p < 0x20 ? ' ' : *p, f);
        }
        fputc('"', f);
}

void stats_print(const Stats *s, FILE *f) {
        double seconds = (double) (s->end_nsec - s->begin_nsec) / (double) NSEC_PER_SEC;

        fprintf(f, "{\"started\":%" PRIu64 ",\"ok\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"failures\":{",
                s->n_started, s->n_ok, stats_n_failures(s));
        for (size_t i = 0; i < N_FAILURES; i++)
                fprintf(f, "%s\"%s\":%" PRIu64, i > 0 ? "," : "", failure_names[i], s->n_failed[i]);
        fputs("},\"first_failure\":", f);
        if (s->first_failure[0]) {
                print_string(s->first_failure, f);
                fprintf(f, ",\"first_failure_at\":%.6f,",
                        (double) (s->first_failure_nsec - s->begin_nsec) / (double) NSEC_PER_SEC);
        } else
                fputs("null,\"first_failure_at\":null,", f);
        fprintf(f, "\"backlog_waits\":%" PRIu64 ",\"port_waits\":%" PRIu64 ",\"stderr_bytes\":%" PRIu64 ",",
                s->n_backlog_waits, s->n_port_waits, s->n_stderr_bytes);
        fprintf(f,
                "\"latency_usec\":{\"p50\":%" PRIu64 ",\"p90\":%" PRIu64 ",\"p99\":%" PRIu64
                ",\"p999\":%" PRIu64 ",\"max\":%" PRIu64 "},\"longest_gap_usec\":%" PRIu64 ",",
                percentile(s, 0.5), percentile(s, 0.9), percentile(s, 0.99), percentile(s, 0.999),
                s->max_usec, s->longest_gap_nsec / NSEC_PER_USEC);
        print_table(&s->pids, "pids", f);
        print_table(&s->generations, "generations", f);
        fprintf(f, "\"begin\":%.6f,\"duration\":%.6f,\"requests_per_second\":%.1f}\n",
                (double) s->begin_nsec / (double) NSEC_PER_SEC, seconds, seconds > 0 ? (double) s->n_ok / seconds : 0);
}

void stats_done(Stats *s) {
        free(s->pids.entries);
        free(s->generations.entries);
}
