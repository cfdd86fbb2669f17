/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* How busy the pool is, seen from outside.
 *
 * In a pool at rest nobody looks. The next client wakes us: each listener is watched for one event, and not
 * watched again before the pool has been seen at rest once more, so under load we cost what the looks cost
 * and no wakeup per request. What follows from a look is plan.c's business.
 *
 * A request is a connection in use. Its age is counted from the look that has seen it first, so it is
 * younger than it really is, by the time between two looks at most. On a connection that is kept one request
 * follows another, unseen if the looks fall into the requests: if it is the worker's only one and the worker
 * has read and written something since the last look, it is taken for a new request. */

#include <inttypes.h>
#include <stdio.h>
#include <sys/epoll.h>

#include <systemd/sd-event.h>

#include "clock.h"
#include "evidence.h"
#include "log.h"
#include "message-ids.h"
#include "observe.h"
#include "pool-internal.h"
#include "queue.h"

/* --- one worker --- */

static uint64_t request_begun(const Requests *old, uint64_t inode, bool progress, uint64_t now_usec) {
        for (size_t i = 0; old && !progress && i < old->n; i++)
                if (old->list[i].inode == inode)
                        return old->list[i].since_usec;
        return now_usec;
}

/* One that was answered may still be the request that a worker is stuck in, if it serves no other. */
static bool is_in_use(const View *view, const ObservedConnection *c) {
        return !c->kept && !(c->answered && view->waiting);
}

static size_t count_in_use(const View *view) {
        size_t n_listed = MIN_OF(view->n_connections, (size_t) OBSERVE_CONNECTIONS_MAX);
        size_t n = view->n_connections - n_listed;

        for (size_t i = 0; i < n_listed; i++)
                n += is_in_use(view, view->connections + i);
        return n;
}

static Requests *requests_new(const View *view, const Requests *old, uint64_t now_usec) {
        size_t n_max = MIN_OF(view->n_connections, (size_t) OBSERVE_CONNECTIONS_MAX);
        Usage usage = {};
        bool progress;
        Requests *new;

        if (count_in_use(view) == 0)
                return NULL;
        new = malloc(sizeof(*new) + n_max * sizeof(new->list[0]));
        if (!new)
                return NULL; /* the age of this request is not worth more */

        (void) observe_get_usage(view, &usage);
        progress = view->n_connections == 1 && old && old->read_chars != usage.read_chars &&
                old->written_chars != usage.written_chars;
        *new = (Requests) { .read_chars = usage.read_chars, .written_chars = usage.written_chars };
        for (size_t i = 0; i < n_max; i++)
                if (is_in_use(view, view->connections + i))
                        new->list[new->n++] = (struct Request) {
                                view->connections[i].inode,
                                request_begun(old, view->connections[i].inode, progress, now_usec),
                        };
        return new;
}

static void note_requests(Worker *w, const View *view, uint64_t now_usec) {
        Requests *old = w->requests;

        w->requests = requests_new(view, old, now_usec);
        free(old);
        w->request_usec = 0;
        for (size_t i = 0; w->requests && i < w->requests->n; i++)
                w->request_usec = MAX_OF(w->request_usec, now_usec - w->requests->list[i].since_usec);
}

/* Proportional set size: a page that n processes share counts for one in n. */
static uint64_t memory_of(const View *view) {
        uint64_t sum = 0, bytes;

        for (size_t i = 0; i < view->n_processes; i++)
                if (process_get_memory(view->processes[i], &bytes) >= 0)
                        sum += bytes;
        return sum;
}

static void look_at_worker(Pool *pool, Worker *w, bool memory, PlanLoad *load, uint64_t now_usec) {
        const Listener *l = pool_listener_of(pool, w->slot);
        bool busy;
        View view;

        observe_view(w->pid, l->fd, l->inode, &view);
        if (view.gone)
                return;
        note_requests(w, &view, now_usec);
        load->n_ready++;
        if (!view.complete) {
                load->n_unknown++;
                return;
        }
        /* Where connections cannot be seen, one who does not wait is busy. */
        busy = count_in_use(&view) > 0 || (view.error < 0 && !view.waiting);
        load->n_busy += busy;
        load->n_taken += busy || !view.waiting;
        load->n_connected += view.n_connections > 0;
        pool->load.oldest_usec = MAX_OF(pool->load.oldest_usec, w->request_usec);
        if (memory)
                w->large = memory_of(&view) > pool->p.config->max_memory;
}

/* What cannot be told is left out, as is what there is no memory for. */
static void add_field(char **fields, size_t *n, const char *key, const char *value) {
        if (value[0] != '\0' && asprintf(fields + *n, "%s=%s", key, value) >= 0)
                (*n)++;
        else
                fields[*n] = NULL;
}

void load_report_stuck(Pool *pool, Worker *w, bool silent) {
        enum { N_FIELDS = 6 };
        const Listener *l = pool_listener_of(pool, w->slot);
        uint64_t usec = silent ? pool_now(pool) - w->pinged_usec : w->request_usec;
        _cleanup_strv_free_ char **fields = calloc(N_FIELDS + 1, sizeof(char *));
        char age[32], span[64], timeout_span[64], output[800] = "";
        bool threads;
        Evidence evidence;
        size_t n = 0;
        View view;

        observe_view(w->pid, l->fd, l->inode, &view);
        evidence_collect(view.processes, view.n_processes, &evidence);
        if (evidence_read_output(w->pid, w->spawned_usec, output, sizeof(output)) < 0)
                output[0] = '\0'; /* the manual page says where to look */
        threads = strchr(evidence.threads, '\n'); /* the only one is in the summary */

        if (fields) {
                (void) snprintf(age, sizeof(age), "%" PRIu64, w->request_usec);
                add_field(fields, &n, "REQUEST_USEC", age);
                add_field(fields, &n, "WORKER_WCHAN", evidence.wchan);
                add_field(fields, &n, "WORKER_SYSCALL", evidence.syscall);
                add_field(fields, &n, "WORKER_STACK", evidence.stack);
                add_field(fields, &n, "WORKER_THREADS", evidence.threads);
                add_field(fields, &n, "WORKER_OUTPUT", output);
        }
        worker_log_fields(w, LOG_WARNING, MESSAGE_WORKER_STUCK, (const char *const *) fields,
                          "pid %d %s %s (--request-timeout=%s), %zu connections open: %s%s%s%s%s",
                          (int) w->pid, silent ? "has not sent WATCHDOG=1 for" : "is inside one request for",
                          clock_format_span(span, sizeof(span), usec - usec % USEC_PER_MSEC),
                          clock_format_span(timeout_span, sizeof(timeout_span),
                                            pool->p.config->request_timeout_usec),
                          view.n_connections, evidence.summary,
                          threads ? "\n" : "", threads ? evidence.threads : "",
                          output[0] ? "\nIt wrote last:\n" : "", output);
}

void load_describe(Pool *pool, Worker *w, PoolRow *row) {
        const Listener *l = pool_listener_of(pool, w->slot);
        View view;

        observe_view(w->pid, l->fd, l->inode, &view);
        if (view.gone)
                return;
        if (w->state == WORKER_READY)
                note_requests(w, &view, pool_now(pool));
        row->n_requests = (unsigned) count_in_use(&view);
        row->request_usec = w->request_usec;
        row->memory = memory_of(&view);
}

unsigned load_n_queued(const Pool *pool) {
        unsigned n = 0, depth, max;

        for (size_t i = 0; i < pool->p.listeners->n_listeners; i++) {
                const Listener *l = pool->p.listeners->listeners + i;

                if (queue_get_depth(pool->load.diag_fd, l->fd, l->inode, &depth, &max) >= 0)
                        n = MAX_OF(n, depth);
        }
        return n;
}

/* --- all workers --- */

static void watch_listeners(Pool *pool, bool on) {
        (void) sd_event_source_set_enabled(pool->load.source, on ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
        pool->load.watching = on;
}

/* Looks are for the status, and maybe for memory, and there is no hurry. */
static bool is_slow(const Config *config) {
        return config->n_workers_min == config->n_workers && config->request_timeout_usec == USEC_INFINITY;
}

static void wake_up(Pool *pool, uint64_t now_usec) {
        Load *l = &pool->load;

        watch_listeners(pool, false);
        l->awake = true;
        l->awake_usec = now_usec;
        l->next_usec = is_slow(pool->p.config) ? usec_add(now_usec, PLAN_WATCH_SLOW_USEC) : now_usec;
}

static int on_client(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        Pool *pool = userdata;

        wake_up(pool, pool_now(pool));
        pool->load.woken = true;
        pool_request_reconcile(pool);
        return 0;
}

/* Looks at the queue of one listener, and then at its workers: who goes from the one to the other meanwhile
 * is seen twice and not never. */
static PlanLoad look_at_listener(Pool *pool, size_t i, bool memory, uint64_t now_usec) {
        const Listener *l = pool->p.listeners->listeners + i;
        unsigned depth, max;
        PlanLoad load = {};

        if (queue_get_depth(pool->load.diag_fd, l->fd, l->inode, &depth, &max) >= 0)
                load.n_queued = depth;
        for (Worker *w = pool->workers; w; w = w->next)
                if (w->state == WORKER_READY && pool_slot_of(pool, w) &&
                    pool_listener_of(pool, w->slot) == l)
                        look_at_worker(pool, w, memory, &load, now_usec);
        /* Who cannot be observed is taken if somebody waits, and free if not. */
        if (load.n_queued > 0)
                load.n_taken += load.n_unknown;
        return load;
}

/* Nobody helps out at another listener, so the pool counts as if all were like the busiest one. */
static void add_listener(Load *l, PlanLoad *load, const PlanLoad *one) {
        unsigned n_taken = one->n_taken * load->n_step, n_queued = one->n_queued * load->n_step;

        l->n_busy += one->n_busy;
        l->n_queued += one->n_queued;
        l->n_peak = MAX_OF(l->n_peak, n_taken);
        load->n_busy += one->n_busy;
        load->n_connected += one->n_connected;
        if (n_queued < load->n_queued || (n_queued == load->n_queued && n_taken < load->n_taken))
                return;
        load->n_ready = one->n_ready * load->n_step;
        load->n_taken = n_taken;
        load->n_queued = n_queued;
}

static void resize(Pool *pool, unsigned n) {
        char pool_field[128], n_field[32], busy[32], queue[32], oldest[48];

        (void) snprintf(pool_field, sizeof(pool_field), "FCGI_POOL=%s", pool->p.name);
        (void) snprintf(n_field, sizeof(n_field), "N_WORKERS=%u", n);
        (void) snprintf(busy, sizeof(busy), "N_BUSY=%u", pool->load.n_busy);
        (void) snprintf(queue, sizeof(queue), "N_QUEUED=%u", pool->load.n_queued);
        (void) snprintf(oldest, sizeof(oldest), "REQUEST_USEC=%" PRIu64, pool->load.oldest_usec);
        log_write(LOG_INFO, MESSAGE_POOL_RESIZED,
                  (const char *const[]) { pool_field, n_field, busy, queue, oldest, NULL },
                  "Pool %s: %u -> %u workers, %u busy, %u clients wait", pool->p.name, pool->n_wanted, n,
                  pool->load.n_busy, pool->load.n_queued);
        pool->n_wanted = n;
        pool_request_status(pool, false);
}

static void look_at_all(Pool *pool, uint64_t now_usec) {
        Load *l = &pool->load;
        PlanLoad load = {
                .n_wanted = pool->n_wanted,
                .n_step = (unsigned) pool->p.listeners->n_listeners,
                .pressed = l->pressed,
                .peak_since_usec = l->peak_since_usec,
                .awake_usec = l->awake_usec,
                .woken = l->woken,
        };
        uint64_t memory_usec = usec_add(l->memory_usec, PLAN_MEMORY_USEC);
        bool memory = pool->p.config->max_memory != UINT64_MAX && now_usec >= memory_usec;
        unsigned n_busy = l->n_busy, n_queued = l->n_queued; /* at the last look */
        PlanLoadStep step;

        /* Before the look: who comes during it is news. */
        watch_arm(l->watch);
        l->oldest_usec = l->n_busy = l->n_queued = 0;
        if (memory)
                l->memory_usec = now_usec;
        for (size_t i = 0; i < load.n_step; i++) {
                PlanLoad one = look_at_listener(pool, i, memory, now_usec);

                add_listener(l, &load, &one);
        }
        load.n_peak = MAX_OF(l->n_peak, l->n_peak_before);

        step = plan_load(pool->p.config, &load, now_usec);
        l->pressed = step.pressed;
        if (usec_sub(now_usec, l->peak_since_usec) >= PLAN_SHRINK_USEC || step.n_wanted > pool->n_wanted) {
                l->n_peak_before = l->n_peak;
                l->n_peak = step.n_wanted > pool->n_wanted ? step.n_wanted : load.n_taken;
                l->peak_since_usec = now_usec;
        }
        if (step.n_wanted != pool->n_wanted)
                resize(pool, step.n_wanted);
        if (l->n_busy != n_busy || l->n_queued != n_queued || l->n_busy > 0)
                pool_request_status(pool, true);

        l->next_usec = step.again_usec;
        /* Memory grows while there are requests, so after the last of them it is asked for once more. */
        if (pool->p.config->max_memory != UINT64_MAX && !memory)
                l->next_usec = MIN_OF(l->next_usec, memory_usec);
        l->awake = !step.rest;
        if (step.rest) {
                l->woken = false;
                watch_listeners(pool, true);
        }
}

uint64_t load_drive(Pool *pool, uint64_t now_usec) {
        Load *l = &pool->load;

        if (pool->phase != POOL_SERVING || pool->held) {
                l->awake = false;
                if (l->watching)
                        watch_listeners(pool, false);
                return USEC_INFINITY;
        }
        if (!l->awake && !l->watching) {
                /* The pool has just begun to serve, with workers that may be busy already, or too many. */
                l->peak_since_usec = now_usec;
                l->next_usec = USEC_INFINITY;
                if (is_slow(pool->p.config)) {
                        watch_arm(l->watch);
                        watch_listeners(pool, true);
                } else
                        wake_up(pool, now_usec);
        }
        if (now_usec >= l->next_usec)
                look_at_all(pool, now_usec);
        return l->next_usec;
}

int load_init(Pool *pool) {
        const ListenSet *set = pool->p.listeners;
        const Config *config = pool->p.config;
        /* A request may be too long, or make the worker too large, though nobody has to wait for it. */
        bool every = config->request_timeout_usec != USEC_INFINITY || config->max_memory != UINT64_MAX;
        _cleanup_free_ int *fds = NULL;
        int r;

        pool->load.diag_fd = queue_open();
        if (pool->load.diag_fd < 0)
                pool->load.diag_fd = -EBADF;

        fds = calloc(set->n_listeners, sizeof(*fds));
        if (!fds)
                return -ENOMEM;
        for (size_t i = 0; i < set->n_listeners; i++)
                fds[i] = set->listeners[i].fd;
        r = watch_new(fds, set->n_listeners, every, &pool->load.watch);
        if (r >= 0)
                r = sd_event_add_io(pool->event, &pool->load.source, watch_get_fd(pool->load.watch), EPOLLIN,
                                    on_client, pool);
        if (r >= 0)
                r = sd_event_source_set_enabled(pool->load.source, SD_EVENT_OFF);
        return r;
}

void load_done(Pool *pool) {
        sd_event_source_disable_unref(pool->load.source);
        (void) watch_free(pool->load.watch);
        (void) safe_close(pool->load.diag_fd);
}
