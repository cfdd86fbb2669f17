/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What people may ask of a pool that serves. Each request changes what is wanted and leaves the rest to
 * reconcile(). What was asked for outlives the helper, in the records, until the pool is restarted or
 * stopped: then the unit has the last word again. */

#include <sys/resource.h>

#include "fd-limits.h"
#include "pool-internal.h"

#define OLDER_GENERATIONS_MAX 2U /* that may have workers when a roll begins */

int pool_check_size(unsigned n_workers, Problem *ret_problem) {
        uint64_t needed = fd_limits_open_files(n_workers);
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, -errno,
                                   "Could not read RLIMIT_NOFILE: %m");
        if (limit.rlim_cur < needed)
                return problem_set(ret_problem, EXIT_STATUS_NOT_CONFIGURED, -EMFILE,
                                   "RLIMIT_NOFILE is %llu, expected at least %llu for %u workers: "
                                   "set LimitNOFILE= in the unit", (unsigned long long) limit.rlim_cur,
                                   (unsigned long long) needed, n_workers);
        return 0;
}

static unsigned count_older_generations(const Pool *pool) {
        uint64_t found[OLDER_GENERATIONS_MAX] = {};
        unsigned n = 0;

        for (const Worker *w = pool->workers; w && n < OLDER_GENERATIONS_MAX; w = w->next) {
                /* What serves on after a roll has failed does not count: it would never end. */
                bool known = w->stranger || worker_is_current(w) || w->generation == pool->generation;

                for (unsigned i = 0; i < n; i++)
                        known |= found[i] == w->generation;
                if (!known)
                        found[n++] = w->generation;
        }
        return n;
}

int pool_roll(Pool *pool) {
        if (pool->phase != POOL_SERVING)
                return -EBUSY;
        if (pool->held)
                return -EHOSTDOWN;
        if (pool->rolling)
                return -EALREADY;
        if (count_older_generations(pool) >= OLDER_GENERATIONS_MAX)
                return -EMLINK;

        report_roll_is_overtaken(pool, pool_now(pool));
        report_roll_begins(pool, pool_now(pool));
        pool->generation++;
        pool->rolling = true;
        pool_forget_attempts(pool);
        pool_request_reconcile(pool);
        pool_request_status(pool, false);
        return 0;
}

int pool_set_workers(Pool *pool, unsigned n, Problem *ret_problem) {
        unsigned n_listeners = (unsigned) pool->p.listeners->n_listeners;
        int r;

        if (pool->size.n_workers_min != pool->size.n_workers)
                return problem_set(ret_problem, EXIT_STATUS_INVALID_ARGUMENT, -EOPNOTSUPP,
                                   "the pool sizes itself, expected one with a fixed --workers=");
        if (n < MAX_OF(n_listeners, 1U) || n > WORKERS_MAX)
                return problem_set(ret_problem, EXIT_STATUS_INVALID_ARGUMENT, -ERANGE,
                                   "%u workers: expected a number from %u to %u", n, MAX_OF(n_listeners, 1U),
                                   WORKERS_MAX);
        r = pool_check_size(n, ret_problem);
        if (r < 0)
                return r;
        r = pool_reserve_slots(pool, n);
        if (r < 0)
                return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, r, "Out of memory");

        pool->size.n_workers = pool->size.n_workers_min = n;
        pool->size_is_set = true;
        pool->n_wanted = plan_workers(&pool->size, n, n_listeners);
        pool->unsaved = true;
        pool_request_reconcile(pool);
        pool_request_status(pool, false);
        return 0;
}

int pool_recycle(Pool *pool, unsigned slot) {
        Worker *w = slot < pool->n_slots ? pool->slots[slot].current : NULL;

        if (!w || w->state != WORKER_READY)
                return -ESRCH;
        w->worn = WORN_REQUESTED;
        pool_request_reconcile(pool);
        return 0;
}

unsigned pool_recycle_all(Pool *pool) {
        unsigned n = 0;

        for (unsigned i = 0; i < pool->n_slots; i++)
                n += pool_recycle(pool, i) >= 0;
        return n;
}

int pool_hold(Pool *pool, bool held) {
        if (pool->phase != POOL_SERVING)
                return -EBUSY;
        if (held && pool->rolling)
                return -EALREADY;
        if (pool->held == held)
                return 0;
        pool->held = held;
        pool->unsaved = true;
        pool_forget_attempts(pool);
        pool_request_reconcile(pool);
        pool_request_status(pool, false);
        return 0;
}
