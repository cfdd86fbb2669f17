/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What people are told about a pool: the line for STATUS=, a row for each worker, and what has become of a
 * reload.
 *
 * A reload is over when nobody can get an answer from an older worker any more. So the verdict on a
 * generation that serves waits until those that it replaces have ended, which takes as long as their last
 * requests, and twice --stop-timeout at most. A failure is a verdict at once: the old ones serve.
 *
 * A helper that was not there when a roll failed can still tell: it finds workers of an older generation
 * that are not on their way out, and no roll. */

#include <inttypes.h>
#include <stdio.h>
#include <sys/socket.h>

#include "clock.h"
#include "log.h"
#include "message-ids.h"
#include "pool-internal.h"

static void _printf_(4, 5) append(char *buffer, size_t size, size_t *n, const char *format, ...) {
        va_list ap;
        int k;

        va_start(ap, format);
        k = vsnprintf(buffer + *n, size - *n, format, ap);
        va_end(ap);
        if (k > 0)
                *n = MIN_OF(*n + (size_t) k, size - 1);
}

char *pool_format_status(const Pool *pool, char *buffer, size_t size) {
        unsigned n_backing_off = 0, n_retiring;
        Counts c = pool_count(pool);
        char span[64];
        size_t n = 0;

        for (unsigned i = 0; pool->phase < POOL_STOPPING && i < pool_n_active(pool); i++)
                n_backing_off += !pool->slots[i].current && pool->slots[i].n_early_deaths > 0;
        n_retiring = c.per_state[WORKER_RETIRING] + c.per_state[WORKER_KILLING];

        append(buffer, size, &n, "%u/%u workers ready", c.per_state[WORKER_READY] - c.n_elders,
               pool_n_active(pool));
        if (c.per_state[WORKER_STARTING] > 0)
                append(buffer, size, &n, ", %u starting", c.per_state[WORKER_STARTING]);
        if (n_backing_off > 0)
                append(buffer, size, &n, ", %u backing off", n_backing_off);
        if (n_retiring > 0)
                append(buffer, size, &n, ", %u retiring", n_retiring);
        if (pool->phase == POOL_SERVING && pool->load.n_busy + pool->load.n_queued > 0)
                append(buffer, size, &n, ", %u busy, queue %u", pool->load.n_busy, pool->load.n_queued);
        if (pool->phase == POOL_SERVING && pool->load.oldest_usec >= USEC_PER_SEC)
                append(buffer, size, &n, ", oldest request %s",
                       clock_format_span(span, sizeof(span),
                                         pool->load.oldest_usec - pool->load.oldest_usec % USEC_PER_SEC));
        if (pool->generation > 1)
                append(buffer, size, &n, ", generation %" PRIu64, pool->generation);
        if (pool->rolling)
                append(buffer, size, &n, ", rolling: %u/%u", c.n_settled, pool_n_active(pool));
        if (c.n_elders > 0)
                append(buffer, size, &n, ", %u replaced ones in reserve", c.n_elders);
        if (pool->held && pool->phase < POOL_STOPPING)
                append(buffer, size, &n, ", held: clients wait");
        if (pool->failed)
                append(buffer, size, &n, "; %s", pool->failure.text);
        return buffer;
}

/* --- a roll --- */

/* Connections that the listeners have refused since they were made, for want of room in the queue: TCP drops
 * them, an AF_UNIX client waits instead. SO_MEMINFO is of Linux 4.12; the last of its nine numbers counts
 * drops. */
static uint64_t count_overflows(const Pool *pool) {
        uint64_t n = 0;

        for (size_t i = 0; i < pool->p.listeners->n_listeners; i++) {
                uint32_t meminfo[9] = {};
                socklen_t size = sizeof(meminfo);

                int fd = pool->p.listeners->listeners[i].fd;

                if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, meminfo, &size) >= 0)
                        n += meminfo[8];
        }
        return n;
}

void report_roll_begins(Pool *pool, uint64_t now_usec) {
        pool->roll = (Roll) { .begun_usec = now_usec, .n_overflows = count_overflows(pool) };
}

static bool any_older(const Pool *pool) {
        for (const Worker *w = pool->workers; w; w = w->next)
                if (!w->stranger && w->generation < pool->generation)
                        return true;
        return false;
}

static void end_roll(Pool *pool, uint64_t now_usec) {
        Roll *roll = &pool->roll;
        char field[128], fields[7][64], took[64], drain[64];
        uint64_t n_overflows = count_overflows(pool) - roll->n_overflows;
        uint64_t usec = usec_sub(now_usec, roll->begun_usec);
        const char *all[ELEMENTSOF(fields) + 2] = { field };

        roll->draining = false;
        pool_request_status(pool, false);
        (void) clock_format_span(took, sizeof(took), usec - usec % USEC_PER_MSEC);
        (void) clock_format_span(drain, sizeof(drain), roll->drain_usec - roll->drain_usec % USEC_PER_MSEC);
        (void) snprintf(roll->text, sizeof(roll->text),
                        "generation %" PRIu64 " has replaced %u workers in %s, %u killed, longest drain %s, "
                        "queue at most %u, %" PRIu64 " connections refused",
                        pool->generation, roll->n_replaced, took, roll->n_killed, drain, roll->n_queued,
                        n_overflows);
        (void) snprintf(field, sizeof(field), "FCGI_POOL=%s", pool->p.name);
        (void) snprintf(fields[0], sizeof(fields[0]), "GENERATION=%" PRIu64, pool->generation);
        (void) snprintf(fields[1], sizeof(fields[1]), "N_REPLACED=%u", roll->n_replaced);
        (void) snprintf(fields[2], sizeof(fields[2]), "N_KILLED=%u", roll->n_killed);
        (void) snprintf(fields[3], sizeof(fields[3]), "ROLL_USEC=%" PRIu64, usec);
        (void) snprintf(fields[4], sizeof(fields[4]), "DRAIN_USEC=%" PRIu64, roll->drain_usec);
        (void) snprintf(fields[5], sizeof(fields[5]), "N_QUEUED=%u", roll->n_queued);
        (void) snprintf(fields[6], sizeof(fields[6]), "N_OVERFLOWS=%" PRIu64, n_overflows);
        for (size_t i = 0; i < ELEMENTSOF(fields); i++)
                all[i + 1] = fields[i];
        log_write(LOG_INFO, MESSAGE_REPLACED, all, "Pool %s: %s", pool->p.name, roll->text);
}

void report_roll_succeeds(Pool *pool, uint64_t now_usec) {
        pool->roll.draining = true;
        report_roll_goes_on(pool, now_usec);
}

void report_roll_goes_on(Pool *pool, uint64_t now_usec) {
        Roll *roll = &pool->roll;

        if (pool->rolling || roll->draining)
                roll->n_queued = MAX_OF(roll->n_queued, load_n_queued(pool));
        if (roll->draining && !any_older(pool))
                end_roll(pool, now_usec);
}

void report_roll_is_overtaken(Pool *pool, uint64_t now_usec) {
        if (pool->roll.draining)
                end_roll(pool, now_usec);
}

void report_roll_fails(Pool *pool, const char *text) {
        pool->roll.failed = true;
        pool->roll.draining = false;
        (void) snprintf(pool->roll.text, sizeof(pool->roll.text), "%s", text);
}

void report_replaced(Pool *pool, const Worker *w) {
        Roll *roll = &pool->roll;

        if (w->stranger || w->generation >= pool->generation ||
            (w->state != WORKER_RETIRING && w->state != WORKER_KILLING))
                return;
        roll->n_replaced++;
        roll->drain_usec = MAX_OF(roll->drain_usec, usec_sub(w->ended_usec, w->retired_usec));
}

/* What was under way when the helper before us died: a roll, or the end of those that one has replaced. If
 * any of them serves on, that roll has failed. */
void report_adopted(Pool *pool, uint64_t now_usec) {
        bool draining = false, failed = false;

        for (const Worker *w = pool->workers; w; w = w->next)
                if (!w->stranger && w->generation < pool->generation) {
                        draining = draining || !worker_is_current(w);
                        failed = failed || worker_is_current(w);
                }
        if (!pool->rolling && (!draining || failed))
                return;
        report_roll_begins(pool, now_usec);
        pool->roll.draining = !pool->rolling;
}

int pool_get_verdict(Pool *pool, uint64_t generation, const char **ret_text) {
        const Roll *roll = &pool->roll;

        assert(ret_text);

        if (generation != pool->generation) {
                *ret_text = generation > pool->generation ? "there is no such generation" :
                        "another one has been begun since";
                return -ESRCH;
        }
        if (!roll->failed && pool->phase >= POOL_STOPPING) {
                *ret_text = "The pool stops";
                return -ECANCELED;
        }
        if (pool->rolling || roll->draining)
                return 0;
        if (roll->text[0] != '\0') {
                *ret_text = roll->text;
                return roll->failed ? -ECANCELED : 1;
        }
        if (any_older(pool)) {
                *ret_text = "The helper that knew why has died since, see the journal";
                return -ECANCELED;
        }
        *ret_text = "all workers are of this generation";
        return 1;
}

/* --- a summary, and rows --- */

static const char *const phase_names[] = {
        [POOL_STARTING] = "starting",
        [POOL_SERVING] = "serving",
        [POOL_STOPPING] = "stopping",
        [POOL_STOPPED] = "stopped",
};
static_assert(ELEMENTSOF(phase_names) == _POOL_PHASE_MAX, "every phase has a name");

void pool_summarize(const Pool *pool, PoolSummary *ret) {
        assert(ret);

        *ret = (PoolSummary) {
                .name = pool->p.name,
                .phase = phase_names[pool->phase],
                .generation = pool->generation,
                .held = pool->held,
                .reloading = pool->rolling || pool->roll.draining,
                .n_wanted = pool->phase < POOL_STOPPING ? pool_n_active(pool) : 0,
                .n_queued = load_n_queued(pool),
                .n_ready = pool_count(pool).per_state[WORKER_READY],
        };
        (void) pool_format_status(pool, ret->status, sizeof(ret->status));
}

static void describe_slot(const Pool *pool, unsigned i, uint64_t now_usec, PoolRow *row) {
        const Slot *slot = pool->slots + i;
        bool waits = slot->not_before_usec > now_usec;

        *row = (PoolRow) {
                .slot = i,
                .state = waits ? "backing-off" : "empty",
                .n_restarts = slot->n_restarts,
                .last_death = slot->last_death[0] != '\0' ? slot->last_death : NULL,
        };
}

static void describe_worker(Pool *pool, Worker *w, uint64_t now_usec, PoolRow *row) {
        const Slot *slot = pool_slot_of(pool, w);

        *row = (PoolRow) {
                .slot = w->stranger ? -1 : (int64_t) w->slot,
                .state = worker_state_to_string(w->state),
                .pid = w->pid,
                .generation = w->generation,
                .state_usec = usec_sub(now_usec, w->state_since_usec),
                .age_usec = usec_sub(now_usec, w->spawned_usec),
                .n_restarts = slot ? slot->n_restarts : 0,
                .last_death = slot && slot->last_death[0] != '\0' ? slot->last_death : NULL,
        };
        load_describe(pool, w, row);
}

static int compare_rows(const void *a, const void *b) {
        const PoolRow *x = a, *y = b;

        if (x->slot != y->slot)
                return (uint64_t) x->slot < (uint64_t) y->slot ? -1 : 1; /* those without a slot last */
        return x->generation < y->generation ? -1 : x->generation > y->generation;
}

int pool_list(Pool *pool, PoolRow **ret_rows, size_t *ret_n_rows) {
        uint64_t now_usec = pool_now(pool);
        size_t n_max = pool_n_active(pool), n = 0;
        PoolRow *rows;

        assert(ret_rows);
        assert(ret_n_rows);

        for (const Worker *w = pool->workers; w; w = w->next)
                n_max++;
        rows = calloc(MAX_OF(n_max, (size_t) 1), sizeof(*rows));
        if (!rows)
                return -ENOMEM;
        for (unsigned i = 0; pool->phase < POOL_STOPPING && i < pool_n_active(pool); i++)
                if (!pool->slots[i].current)
                        describe_slot(pool, i, now_usec, rows + n++);
        for (Worker *w = pool->workers; w; w = w->next)
                if (!w->ended)
                        describe_worker(pool, w, now_usec, rows + n++);
        qsort(rows, n, sizeof(*rows), compare_rows);

        *ret_rows = rows;
        *ret_n_rows = n;
        return 0;
}
