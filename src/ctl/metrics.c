/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* OpenMetrics 1.0: the samples of a family stand together behind its TYPE and HELP, so all pools are asked
 * before anything is printed. Names of families have a unit at their end where they have one. What is
 * counted since the helper began is no counter, as helpers come and go under a pool: "restarts" is a
 * gauge. */

#include <inttypes.h>

#include "metrics.h"
#include "rows.h"

typedef struct PoolMetrics {
        char *path;               /* of its socket, which is what makes it another pool */
        char *name;
        uint64_t generation;
        uint32_t n_wanted, n_ready, n_queued;
        int reloading, held;
        Rows rows;
} PoolMetrics;

typedef struct Family {
        const char *name, *help;
        void (*print)(const struct Family *family, const PoolMetrics *pool);
} Family;

static void metrics_done(PoolMetrics *m) {
        free(m->path);
        free(m->name);
        rows_done(&m->rows);
}

/* A label's value: a backslash, a quote and a line feed are escaped. */
static void print_label(const char *value) {
        for (; *value != '\0'; value++)
                if (*value == '\n')
                        fputs("\\n", stdout);
                else {
                        if (*value == '"' || *value == '\\')
                                putchar('\\');
                        putchar(*value);
                }
}

static void print_begin(const Family *family, const PoolMetrics *pool) {
        printf("fcgi_pool_%s{pool=\"", family->name);
        print_label(pool->name);
        putchar('"');
}

static void print_pool_value(const Family *family, const PoolMetrics *pool, uint64_t value) {
        print_begin(family, pool);
        printf("} %" PRIu64 "\n", value);
}

static void print_seconds(uint64_t usec) {
        printf("} %" PRIu64 ".%06" PRIu64 "\n", usec / USEC_PER_SEC, usec % USEC_PER_SEC);
}

static void print_generation(const Family *family, const PoolMetrics *pool) {
        print_pool_value(family, pool, pool->generation);
}

static void print_wanted(const Family *family, const PoolMetrics *pool) {
        print_pool_value(family, pool, pool->n_wanted);
}

static void print_queued(const Family *family, const PoolMetrics *pool) {
        print_pool_value(family, pool, pool->n_queued);
}

static void print_reloading(const Family *family, const PoolMetrics *pool) {
        print_pool_value(family, pool, (uint64_t) pool->reloading);
}

static void print_held(const Family *family, const PoolMetrics *pool) {
        print_pool_value(family, pool, (uint64_t) pool->held);
}

static void print_states(const Family *family, const PoolMetrics *pool) {
        static const char *const states[] = {
                "starting", "ready", "retiring", "killing", "backing-off", "empty",
        };

        for (size_t i = 0; i < ELEMENTSOF(states); i++) {
                unsigned n = 0;

                for (size_t k = 0; k < pool->rows.n; k++)
                        n += streq(pool->rows.list[k].state, states[i]);
                print_begin(family, pool);
                printf(",state=\"%s\"} %u\n", states[i], n);
        }
}

static void print_busy(const Family *family, const PoolMetrics *pool) {
        unsigned n = 0;

        for (size_t i = 0; i < pool->rows.n; i++)
                n += pool->rows.list[i].requests > 0;
        print_pool_value(family, pool, n);
}

static void print_oldest(const Family *family, const PoolMetrics *pool) {
        uint64_t usec = 0;

        for (size_t i = 0; i < pool->rows.n; i++)
                usec = MAX_OF(usec, pool->rows.list[i].has_request ? pool->rows.list[i].request_usec : 0);
        print_begin(family, pool);
        print_seconds(usec);
}

static void print_memory(const Family *family, const PoolMetrics *pool) {
        uint64_t bytes = 0;

        for (size_t i = 0; i < pool->rows.n; i++)
                bytes += pool->rows.list[i].memory;
        print_pool_value(family, pool, bytes);
}

static void print_restarts(const Family *family, const PoolMetrics *pool) {
        for (size_t i = 0; i < pool->rows.n; i++) {
                const WorkerRow *row = pool->rows.list + i;

                /* Of two rows for a slot the newer one comes last. */
                if (!row->has_slot || (i + 1 < pool->rows.n && row[1].has_slot && row[1].slot == row->slot))
                        continue;
                print_begin(family, pool);
                printf(",slot=\"%" PRIu64 "\"} %" PRIu64 "\n", row->slot, row->restarts);
        }
}

static const Family families[] = {
        { "workers_wanted", "Workers that the pool is to have.", print_wanted },
        { "workers", "Workers and empty slots by state.", print_states },
        { "workers_busy", "Workers inside a request.", print_busy },
        { "queue", "Clients that wait to be accepted.", print_queued },
        { "oldest_request_seconds", "Age of the oldest request, 0 if there is none.", print_oldest },
        { "memory_bytes", "Proportional set size of all workers.", print_memory },
        { "restarts", "Workers that a slot has had after the first, since this helper began.",
          print_restarts },
        { "generation", "Number of the newest generation.", print_generation },
        { "reloading", "1 while workers are being replaced.", print_reloading },
        { "held", "1 while clients are to wait.", print_held },
};

static int ask(const char *unit, PoolMetrics *ret, Problem *ret_problem) {
        _cleanup_(sd_bus_close_unrefp) sd_bus *bus = NULL;
        _cleanup_(metrics_done) PoolMetrics m = {};
        int r;

        r = client_open(unit, &m.path, &bus, ret_problem);
        if (r >= 0)
                r = client_get_string(bus, "Name", &m.name, ret_problem);
        if (r >= 0)
                r = client_get_number(bus, "Generation", 't', &m.generation, ret_problem);
        if (r >= 0)
                r = client_get_number(bus, "Workers", 'u', &m.n_wanted, ret_problem);
        if (r >= 0)
                r = client_get_number(bus, "Queued", 'u', &m.n_queued, ret_problem);
        if (r >= 0)
                r = client_get_number(bus, "Reloading", 'b', &m.reloading, ret_problem);
        if (r >= 0)
                r = client_get_number(bus, "Held", 'b', &m.held, ret_problem);
        if (r >= 0)
                r = rows_get(bus, &m.rows, ret_problem);
        if (r < 0)
                return r;
        *ret = m;
        m = (PoolMetrics) {};
        return 0;
}

static bool is_known(const PoolMetrics *pools, size_t n, const char *path) {
        for (size_t i = 0; i < n; i++)
                if (streq(pools[i].path, path))
                        return true;
        return false;
}

static void print_all(const PoolMetrics *pools, size_t n_pools) {
        for (size_t i = 0; i < ELEMENTSOF(families); i++) {
                const Family *f = families + i;
                const char *unit = strrchr(f->name, '_');

                printf("# TYPE fcgi_pool_%s gauge\n", f->name);
                if (unit && (streq(unit, "_seconds") || streq(unit, "_bytes")))
                        printf("# UNIT fcgi_pool_%s %s\n", f->name, unit + 1);
                printf("# HELP fcgi_pool_%s %s\n", f->name, f->help);
                for (size_t k = 0; k < n_pools; k++)
                        f->print(f, pools + k);
        }
        puts("# EOF");
}

int metrics(const Output *output, char *const *units) {
        _cleanup_strv_free_ char **all = NULL;
        int exit_status = EXIT_SUCCESS;
        PoolMetrics *pools = NULL;
        Problem problem = {};
        size_t n = 0;
        int r;

        if (!units[0] && client_list_units(&all, &problem) < 0) {
                fprintf(stderr, "%s\n", problem.text);
                return problem.exit_status;
        }
        for (char *const *unit = units[0] ? units : all; unit && *unit; unit++) {
                PoolMetrics *bigger = reallocarray(pools, n + 1, sizeof(*pools));

                if (!bigger) {
                        exit_status = EXIT_STATUS_OS_ERROR;
                        break;
                }
                pools = bigger;
                problem = (Problem) {};
                r = ask(*unit, pools + n, &problem);
                if (r >= 0 && is_known(pools, n, pools[n].path)) /* no sample may stand there twice */
                        metrics_done(pools + n);
                else if (r >= 0)
                        n++;
                else if (units[0] || !client_has_ended(r)) {
                        fprintf(stderr, "%s\n", problem.text);
                        exit_status = exit_status == EXIT_SUCCESS ? problem.exit_status : exit_status;
                }
        }
        print_all(pools, n);
        for (size_t i = 0; i < n; i++)
                metrics_done(pools + i);
        free(pools);
        return exit_status;
}
