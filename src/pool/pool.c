/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The set of workers.
 *
 * A slot is a place that wants a worker; a worker is a process. Handlers record one fact and ask for
 * reconcile(), which runs once when no other event is pending, compares want (plan.c) with is (worker.c) and
 * acts; it may run at any time and any number of times. A thousand deaths at once therefore cost one pass,
 * not a thousand.
 *
 * There is one timer, set to the earliest time at which the plan may change its mind by itself. In a pool at
 * rest there is no such time, the timer is off, and the helper sleeps until something happens.
 *
 * Dead workers are buried in reconcile(), never in the handler that heard of the death, so that no handler
 * frees what its caller still holds; and not before their successor is up or takes its time: what journald
 * and PID 1 are told at the wrong moment takes CPU time from the start of that successor. Until then the
 * record and the cgroup are enough to adopt it.
 *
 * A roll gives each slot a successor of the newest generation, and lets the predecessor go only once the
 * successor is ready; and not before --surge leaves no room for both, or the roll is through: should it
 * fail, elders that are still there take their slots back. */

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <systemd/sd-event.h>

#include "clock.h"
#include "inbox.h"
#include "log.h"
#include "message-ids.h"
#include "observe.h"
#include "pool-internal.h"
#include "runtime-directory.h"
#include "spawn.h"

#define STATUS_DELAY_USEC (50 * USEC_PER_MSEC)
#define LOAD_DELAY_USEC (1 * USEC_PER_SEC)

/* --- small questions --- */

uint64_t pool_now(const Pool *pool) {
        uint64_t usec;

        /* Cannot fail: the clock is supported and the loop belongs to this process. */
        (void) sd_event_now(pool->event, CLOCK_MONOTONIC, &usec);
        return usec;
}

Slot *pool_slot_of(const Pool *pool, const Worker *w) {
        return w->stranger || w->slot >= pool->n_slots ? NULL : pool->slots + w->slot;
}

unsigned pool_n_active(const Pool *pool) {
        return pool->held ? 0 : pool->n_wanted;
}

Listener *pool_listener_of(const Pool *pool, unsigned slot) {
        return pool->p.listeners->listeners + slot % pool->p.listeners->n_listeners;
}

bool pool_is_outdated(const Pool *pool, const Worker *w) {
        if (pool->rolling && w->generation < pool->generation)
                return true;
        return w->cookie != 0 && w->cookie != pool_listener_of(pool, w->slot)->cookie;
}

/* Outdated, or to be replaced all the same. */
static bool needs_successor(const Pool *pool, const Worker *w) {
        return w->worn || pool_is_outdated(pool, w);
}

/* A slot has it, or is to have it. */
static bool is_member(const Pool *pool, const Worker *w) {
        const Slot *slot = pool_slot_of(pool, w);

        return slot && (slot->current == w || slot->successor == w);
}

static bool is_elder_of_slot(const Pool *pool, const Worker *w) {
        const Slot *slot = pool_slot_of(pool, w);

        return slot && slot->elder == w;
}

static bool is_wanted(const Pool *pool, const Worker *w) {
        if (pool->phase >= POOL_STOPPING || w->dismissed)
                return false;
        if (is_member(pool, w))
                return w->slot < pool_n_active(pool);
        if (is_elder_of_slot(pool, w))
                return pool->rolling;
        /* Found beside what the slots need: it may serve on until the pool is complete. */
        return pool->phase == POOL_STARTING || pool->rolling;
}

Counts pool_count(const Pool *pool) {
        Counts c = {};

        for (const Worker *w = pool->workers; w; w = w->next) {
                if (w->on_trial && w->state == WORKER_READY)
                        continue; /* it serves nobody */
                c.per_state[w->state]++;
                c.n_executing += w->exec_fd >= 0;
        }
        for (unsigned i = 0; i < pool_n_active(pool); i++) {
                const Slot *slot = pool->slots + i;

                c.n_replacing += slot->successor != NULL;
                c.n_elders += slot->elder != NULL;
                c.n_settled += slot->current && slot->current->state == WORKER_READY &&
                        !pool_is_outdated(pool, slot->current);
        }
        return c;
}

static bool budget_is_spent(const Pool *pool, uint64_t now_usec) {
        return plan_budget_is_spent(pool->p.config, pool->early_deaths[pool->next_early_death], now_usec);
}

bool pool_has_workers(const Pool *pool) {
        return pool->workers;
}

bool pool_is_starting(const Pool *pool) {
        return pool->phase == POOL_STARTING;
}

bool pool_is_rolling(const Pool *pool) {
        return pool->rolling;
}

bool pool_is_draining(const Pool *pool) {
        return pool->roll.draining;
}

unsigned pool_n_killed(const Pool *pool) {
        return pool->n_killed;
}

/* --- facts --- */

void pool_request_reconcile(Pool *pool) {
        (void) sd_event_source_set_enabled(pool->reconcile_source, SD_EVENT_ONESHOT);
}

/* Not at once: what lasts a millisecond is not worth PID 1's time, which new workers need for their
 * start. */
void pool_request_status(Pool *pool, bool later) {
        uint64_t delay_usec = later ? LOAD_DELAY_USEC : STATUS_DELAY_USEC, due_usec;
        uint64_t usec = usec_add(pool_now(pool), delay_usec);

        if (sd_event_source_get_enabled(pool->status_source, NULL) > 0 &&
            sd_event_source_get_time(pool->status_source, &due_usec) >= 0 && due_usec <= usec)
                return;
        (void) sd_event_source_set_time(pool->status_source, usec);
        (void) sd_event_source_set_enabled(pool->status_source, SD_EVENT_ONESHOT);
}

void pool_on_worker_fact(Worker *w, void *userdata) {
        pool_request_reconcile(userdata);
}

static int on_inbox_io(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        Pool *pool = userdata;
        InboxMessage message;
        int r;

        r = inbox_receive(fd, &message);
        if (r < 0)
                log_warning("Could not receive a worker's notification, ignoring: %s", strerror(-r));
        if (r <= 0)
                return 0;

        for (Worker *w = pool->workers; w; w = w->next) {
                if (w->pid != message.pid)
                        continue;
                /* Later pings only put off a time that comes by itself. */
                if ((message.ready && w->state == WORKER_STARTING) || (message.watchdog && !w->pinged_usec))
                        pool_request_reconcile(pool);
                w->announced = w->announced || message.ready;
                if (message.watchdog)
                        w->pinged_usec = pool_now(pool);
        }
        return 0;
}

/* --- failures --- */

/* Logs a verdict and remembers it as the failure of the pool. */
static void record_failure(Pool *pool, int exit_status, const char *message_id, const char *text) {
        char field[128];

        (void) snprintf(field, sizeof(field), "FCGI_POOL=%s", pool->p.name);
        log_write(LOG_ERR, message_id, (const char *const[]) { field, NULL }, "%s", text);
        (void) problem_set(&pool->failure, exit_status, -EIO, "%s", text);
        pool->failed = true;
}

void pool_forget_attempts(Pool *pool) {
        pool->missed_start_timeout = pool->could_not_execute = pool->successor_died = pool->proven = false;
        for (unsigned i = 0; i < pool->n_slots; i++) {
                pool->slots[i].n_early_deaths = 0;
                pool->slots[i].not_before_usec = 0;
        }
}

/* One line about a slot, with up to two fields more. */
static void _printf_(7, 8) slot_log(const Pool *pool, unsigned i, int priority, const char *message_id,
                                    const char *field1, const char *field2, const char *format, ...) {
        char pool_field[128], slot_field[32], text[512];
        va_list ap;

        (void) snprintf(pool_field, sizeof(pool_field), "FCGI_POOL=%s", pool->p.name);
        (void) snprintf(slot_field, sizeof(slot_field), "WORKER_SLOT=%u", i);
        va_start(ap, format);
        (void) vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        log_write(priority, message_id,
                  (const char *const[]) { pool_field, slot_field, field1, field2, NULL },
                  "worker %u: %s", i, text);
}

/* A slot's attempt has failed: its next one waits. */
static void slot_failed(Pool *pool, unsigned i, const char *what, uint64_t now_usec) {
        char backoff_field[64], deaths_field[64], span[64];
        Slot *slot = pool->slots + i;
        uint64_t backoff_usec;
        uint32_t random;

        if (getrandom(&random, sizeof(random), GRND_INSECURE) != sizeof(random))
                random = (uint32_t) now_usec; /* Any spread will do. */
        backoff_usec = plan_backoff_usec(++slot->n_early_deaths, random);
        slot->not_before_usec = usec_add(now_usec, backoff_usec);

        pool->early_deaths[pool->next_early_death] = now_usec;
        pool->next_early_death = (pool->next_early_death + 1) % (pool->p.config->crash_budget + 1);
        (void) snprintf(pool->last_failure, sizeof(pool->last_failure), "worker %u %s", i, what);

        if (pool->phase >= POOL_STOPPING)
                return;

        (void) snprintf(backoff_field, sizeof(backoff_field), "BACKOFF_USEC=%" PRIu64, backoff_usec);
        (void) snprintf(deaths_field, sizeof(deaths_field), "N_EARLY_DEATHS=%u", slot->n_early_deaths);
        slot_log(pool, i, LOG_WARNING, MESSAGE_WORKER_BACKOFF, backoff_field, deaths_field,
                 "next attempt in %s, failure %u in a row",
                 clock_format_span(span, sizeof(span), backoff_usec / USEC_PER_MSEC * USEC_PER_MSEC),
                 slot->n_early_deaths);
}

/* --- spawning --- */

static void check_listener(Pool *pool, Listener *l, int flipped) {
        char pool_field[128], field[256];
        const char *now_is = l->nonblocking ? "cleared" : "set";

        if (flipped <= 0 || l->flip_reported)
                return;
        l->flip_reported = true;

        (void) snprintf(pool_field, sizeof(pool_field), "FCGI_POOL=%s", pool->p.name);
        (void) snprintf(field, sizeof(field), "LISTENER=%s", l->address);
        log_write(LOG_WARNING, MESSAGE_LISTENER_FLIPPED, (const char *const[]) { pool_field, field, NULL },
                  "A worker has %s O_NONBLOCK on the listener %s, which all workers share: "
                  "set NonBlocking=%s in the unit",
                  now_is, l->address, l->nonblocking ? "no" : "yes");
}

/* The workers of a slot share a stream, since opening one costs journald more than a process costs the
 * kernel. It outlives a restart of journald; if it has broken all the same, another one is opened. */
static int output_of(Pool *pool, unsigned i) {
        Slot *slot = pool->slots + i;
        struct pollfd pfd = { .fd = slot->output_fd };
        char identifier[128];

        if (slot->output_fd >= 0 && poll(&pfd, 1, 0) == 0)
                return slot->output_fd;

        slot->output_fd = safe_close(slot->output_fd);
        (void) snprintf(identifier, sizeof(identifier), "%s[%u]", pool->p.name, i);
        slot->output_fd = log_open_stream(identifier);
        if (slot->output_fd < 0)
                slot->output_fd = -EBADF;
        return slot->output_fd;
}

int pool_spawn_process(Pool *pool, unsigned slot, int listener_fd, pid_t *ret_pid, int *ret_pidfd,
                       int *ret_exec_fd) {
        _cleanup_strv_free_ char **environment = NULL;
        const Config *config = pool->p.config;
        const Cgroup *cgroup = pool->p.cgroup;
        Listener *l = pool_listener_of(pool, slot);
        int output_fd = output_of(pool, slot);
        int r;

        check_listener(pool, l, listener_enforce_mode(l));

        r = spawn_environment_new(environ, &(SpawnEnvironment) {
                .pool_name = pool->p.name,
                .slot = slot,
                .generation = pool->generation,
                .notify_socket = pool->inbox_address,
                .output_fd = output_fd,
                .listen_fd_name = config->socket_activation ? l->fd_name : NULL,
                .watchdog_usec = pool->inbox_address && config->request_timeout_usec != USEC_INFINITY ?
                        config->request_timeout_usec : 0,
        }, &environment);
        if (r < 0)
                return r;

        return spawn_worker(&(SpawnRequest) {
                .executable = config->executable,
                .argv = config->command,
                .environment = environment,
                .listener_fd = listener_fd,
                .output_fd = output_fd,
                .cgroup_fd = cgroup && !cgroup->inside ? cgroup->workers_fd : -EBADF,
                .cgroup_move = cgroup && cgroup->must_move,
                .socket_activation = config->socket_activation,
                .worker_capabilities = config->worker_capabilities,
        }, ret_pid, ret_pidfd, ret_exec_fd);
}

void pool_add_worker(Pool *pool, Worker *w) {
        w->next = pool->workers;
        pool->workers = w;
        pool->unsaved = true;
}

static int spawn_for_slot(Pool *pool, unsigned slot) {
        WorkerParameters parameters = {
                .slot = slot,
                .generation = pool->generation,
                .pool_name = pool->p.name,
                .cookie = pool_listener_of(pool, slot)->cookie,
                .state = WORKER_STARTING,
                .on_fact = pool_on_worker_fact,
                .userdata = pool,
        };
        Worker *w;
        int r;

        r = pool_spawn_process(pool, slot, pool_listener_of(pool, slot)->fd, &parameters.pid,
                               &parameters.pidfd, &parameters.exec_fd);
        if (r < 0)
                return r;
        /* Others may have been spawned since that was decided. */
        parameters.spawned_usec = parameters.now_usec = clock_now_usec();
        (void) process_get_start_time(parameters.pid, &parameters.start_time, NULL, NULL);
        r = worker_new(pool->event, &parameters, &w);
        if (r < 0)
                return r;

        pool_add_worker(pool, w);
        pool->slots[slot].n_restarts += pool->slots[slot].used;
        pool->slots[slot].used = true;
        if (pool->slots[slot].current)
                pool->slots[slot].successor = w;
        else
                pool->slots[slot].current = w;
        return 0;
}

static void spawn_intended(Pool *pool, unsigned i, uint64_t now_usec) {
        char text[160];
        int r;

        pool->slots[i].intended = false;
        r = spawn_for_slot(pool, i);
        if (r < 0) {
                (void) snprintf(text, sizeof(text), "could not be spawned: %s", strerror(-r));
                slot_log(pool, i, LOG_ERR, NULL, NULL, NULL, "%s", text);
                slot_failed(pool, i, text, now_usec);
        }
}

/* All but n of them. */
static void dismiss_elders(Pool *pool, unsigned n) {
        for (unsigned i = pool->n_slots; i > 0; i--) {
                Slot *slot = pool->slots + i - 1;

                if (!slot->elder)
                        continue;
                if (n > 0) {
                        n--;
                        continue;
                }
                slot->elder->dismissed = true;
                slot->elder = NULL;
        }
}

/* Spawns where the plan says so, after the intent has been written down; returns when to ask again. */
static uint64_t fill_slots(Pool *pool, uint64_t now_usec) {
        unsigned n_slots = pool_n_active(pool);
        uint64_t next_usec = USEC_INFINITY, again_usec;
        Counts c = pool_count(pool);
        PlanCrowd crowd = {
                .n_executing = c.n_executing,
                .n_replacing = c.n_replacing,
                .n_retiring = c.per_state[WORKER_RETIRING] + c.per_state[WORKER_KILLING],
                .proven = pool->proven,
                .surge = plan_surge(pool->p.config, n_slots),
        };
        bool any = false;

        for (unsigned i = 0; i < n_slots; i++) {
                Slot *slot = pool->slots + i;
                PlanSlot view = {
                        /* While others serve, nobody sees a new one before the trial is passed. */
                        .wanted = pool->phase < POOL_STOPPING &&
                                (slot->current || !trial_is_due(pool) || c.per_state[WORKER_READY] == 0),
                        .filled = slot->current,
                        .outdated = slot->current && needs_successor(pool, slot->current) &&
                                !trial_is_due(pool),
                        .worn = slot->current && !pool_is_outdated(pool, slot->current),
                        .replacing = slot->successor,
                        .not_before_usec = slot->not_before_usec,
                };

                if (plan_slot_spawns(&view, &crowd, now_usec, &again_usec)) {
                        slot->intended = any = true;
                        crowd.n_executing++;
                        crowd.n_replacing += view.filled;
                } else
                        next_usec = MIN_OF(next_usec, again_usec);
        }
        dismiss_elders(pool, crowd.surge - MIN_OF(crowd.n_replacing, crowd.surge));
        if (!any)
                return next_usec;

        pool_save_or_warn(pool);
        pool_request_status(pool, false);
        for (unsigned i = 0; i < n_slots; i++)
                if (pool->slots[i].intended) {
                        spawn_intended(pool, i, now_usec);
                        if (pool->slots[i].not_before_usec > now_usec) /* it has failed */
                                next_usec = MIN_OF(next_usec, pool->slots[i].not_before_usec);
                }
        return next_usec;
}

/* --- workers --- */

static void look(Pool *pool, Worker *w, uint64_t now_usec) {
        const Listener *l = pool_listener_of(pool, w->slot);
        Observation o;

        o = observe_worker(w->pid, l->fd, l->inode, NULL);
        w->looked_usec = now_usec;
        w->seen = o == OBSERVE_WAITING || o == OBSERVE_CONNECTED;
        if (o != OBSERVE_UNKNOWN) {
                w->looked_into = true;
                w->unknown_since_usec = 0;
        } else if (w->unknown_since_usec == 0)
                w->unknown_since_usec = now_usec;
        /* A process that is just ending cannot be looked into either. */
        w->unobservable = o == OBSERVE_UNKNOWN &&
                (!w->looked_into || usec_sub(now_usec, w->unknown_since_usec) >= PLAN_ASSUME_READY_USEC);
}

static void bury(Pool *pool, Worker *w, uint64_t now_usec) {
        const Slot *slot = pool_slot_of(pool, w);

        if (w->state != WORKER_DEAD)
                worker_set_state(w, WORKER_DEAD, now_usec, NULL);
        /* Ends the line that it may have left unfinished. journald drops empty lines. */
        if (slot && slot->output_fd >= 0)
                (void) send(slot->output_fd, "\n", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
        pool_unstore_worker(pool, w);
        pool->unsaved = true;
        worker_free(w);
}

/* Whether nothing is to be said about the slot of a dead worker yet, and until when. */
static bool is_quiet(const Pool *pool, const Worker *dead, uint64_t now_usec, uint64_t *ret_until_usec) {
        const Slot *slot = pool_slot_of(pool, dead);
        const Worker *youngest;
        PlanWorker view;

        youngest = !slot ? NULL : slot->successor ?: slot->current;
        if (!youngest)
                return false;
        view = worker_to_plan(youngest, true);
        return plan_is_quiet(&view, now_usec, ret_until_usec);
}

/* Buries the predecessors of a worker or, for NULL, the dead about whom something may be said; returns when
 * there will be more of them. */
static uint64_t bury_the_dead(Pool *pool, const Worker *successor, uint64_t now_usec) {
        uint64_t next_usec = USEC_INFINITY, until_usec = USEC_INFINITY;

        for (Worker **link = &pool->dead; *link;) {
                Worker *w = *link;

                if (successor ? w->slot != successor->slot : is_quiet(pool, w, now_usec, &until_usec)) {
                        next_usec = MIN_OF(next_usec, until_usec);
                        link = &w->next;
                        continue;
                }
                *link = w->next;
                bury(pool, w, now_usec);
        }
        return next_usec;
}

/* journald and PID 1 hear of a worker, after all they have to hear of its predecessors: the one in lines,
 * the other by pidfd, whose name may be that of a predecessor. While the pool starts, PID 1 has no time for
 * pidfds: they would stand before READY=1 in its queue, and it compares each with all it has. */
static void introduce(Pool *pool, Worker *w, uint64_t now_usec) {
        if (w->introduced)
                return;
        (void) bury_the_dead(pool, w, now_usec);
        if (pool->phase != POOL_STARTING)
                pool_store_worker(pool, w);
        worker_introduce(w);
}

static void send_stop_signal(Pool *pool, Worker *w, uint64_t now_usec) {
        const Config *config = pool->p.config;
        char name[16], span[64];
        int r;

        if (w->retirement) /* it was tried otherwise */
                worker_log(w, LOG_NOTICE, MESSAGE_WORKER_NOT_IDLE, NULL, "pid %d %s%s, sending %s",
                           (int) w->pid, w->unobservable ? "cannot be observed from outside: " :
                           "had no idle moment within --stop-timeout=",
                           w->unobservable ? strerror(-w->retirement->error) :
                           clock_format_span(span, sizeof(span), config->stop_timeout_usec),
                           config_signal_name(config->stop_signal, name));
        w->signalled_usec = now_usec;
        r = worker_signal(w, pool->p.config->stop_signal);
        if (r >= 0)
                r = worker_signal(w, SIGCONT); /* A stopped process takes its signal only when it goes on. */
        if (r < 0)
                worker_log(w, LOG_WARNING, NULL, NULL, "could not send the stop signal, ignoring: %s",
                           strerror(-r));
}

/* The slot loses the worker, if it has it: true. */
static bool vacate(Pool *pool, const Worker *w) {
        Slot *slot = pool_slot_of(pool, w);

        if (!slot)
                return false;
        if (slot->elder == w)
                slot->elder = NULL;
        if (slot->successor == w) {
                slot->successor = NULL;
                return true;
        }
        if (slot->current != w)
                return false;
        slot->current = TAKE_PTR(slot->successor);
        return true;
}

static void retire(Pool *pool, Worker *w, const char *reason, uint64_t now_usec) {
        if (vacate(pool, w))
                pool_request_reconcile(pool); /* for the slot, whose turn in this pass is over */
        worker_set_state(w, WORKER_RETIRING, now_usec, reason);
        w->retired_usec = now_usec;
        w->unobservable = false; /* when it started, maybe */
}

/* The successor is for the next pass. */
static void wear(Pool *pool, Worker *w, bool memory) {
        w->worn = memory ? WORN_MEMORY : WORN_AGE;
        pool_request_reconcile(pool);
}

static void try_to_end(Pool *pool, Worker *w, bool harder) {
        const Listener *l = pool_listener_of(pool, w->slot);
        PlanWorker view = worker_to_plan(w, false);
        RetireResult result;
        unsigned n_pauses;
        char field[48];

        if (!w->retirement)
                w->retirement = calloc(1, sizeof(*w->retirement));
        if (!w->retirement) {
                w->looked_usec = clock_now_usec();
                return; /* there will be other moments */
        }
        n_pauses = w->retirement->n_pauses;
        result = retire_try(w->retirement, &(RetireRequest) {
                .pid = w->pid,
                .pidfd = w->pidfd,
                .listener_fd = l->fd,
                .listener_inode = l->inode,
                .unconnected = harder,
                .answered_usec = PLAN_ANSWERED_USEC,
                .kept_usec = plan_kept_usec(pool->p.config, &view),
        });
        w->looked_usec = clock_now_usec();
        w->unobservable = result == RETIRE_UNKNOWN;
        if (w->retirement->n_pauses > n_pauses) {
                (void) snprintf(field, sizeof(field), "PAUSE_USEC=%" PRIu64, w->retirement->pause_usec);
                worker_log(w, LOG_DEBUG, NULL, field, "pid %d was busy after all, stopped for %" PRIu64 "us",
                           (int) w->pid, w->retirement->pause_usec);
        }
        if (result == RETIRE_KILLED) {
                worker_set_state(w, WORKER_KILLING, w->looked_usec, "idle");
                pool->unsaved = true;
        }
}

/* A successor that has become ready takes its slot over. */
static void take_over(Pool *pool, const Worker *w) {
        Slot *slot = pool_slot_of(pool, w);

        if (!slot || slot->successor != w)
                return;
        if (pool->rolling && !slot->elder && slot->current->generation < w->generation &&
            slot->current->state == WORKER_READY)
                slot->elder = slot->current;
        else
                slot->current->dismissed = true;
        slot->current = TAKE_PTR(slot->successor);
        pool_request_reconcile(pool); /* for the predecessor, whose turn in this pass may be over */
}

static void become_ready(Pool *pool, Worker *w, bool assumed, uint64_t now_usec) {
        Listener *l = pool_listener_of(pool, w->slot);

        pool->proven = pool->proven || w->generation == pool->generation;
        worker_set_state(w, WORKER_READY, now_usec,
                         w->announced ? "notified" : w->seen ? "serves the listener" :
                         assumed ? "cannot be observed, alive" : NULL);
        if (assumed)
                worker_log(w, LOG_NOTICE, MESSAGE_WORKER_ASSUMED_READY, NULL,
                           "cannot be observed from outside, counted as ready");
        check_listener(pool, l, listener_is_flipped(l));
        take_over(pool, w);
}

static void miss_start_timeout(Pool *pool, Worker *w, uint64_t now_usec) {
        char span[64], text[160];
        bool member;

        (void) snprintf(text, sizeof(text), "was not ready within --start-timeout=%s",
                        clock_format_span(span, sizeof(span), pool->p.config->start_timeout_usec));
        worker_log(w, LOG_WARNING, MESSAGE_WORKER_START_TIMEOUT, NULL, "pid %d %s", (int) w->pid, text);
        member = is_member(pool, w);
        retire(pool, w, "start timeout", now_usec);
        if (!member)
                return;
        pool->missed_start_timeout = pool->missed_start_timeout || w->generation == pool->generation;
        slot_failed(pool, w->slot, text, now_usec);
}

/* It does not heed the stop signal; a core, if there may be one, tells why. */
static void abort_worker(Worker *w) {
        struct rlimit limit;

        w->aborted = true;
        if (prlimit(w->pid, RLIMIT_CORE, NULL, &limit) < 0 || limit.rlim_cur == 0)
                return;
        worker_log(w, LOG_NOTICE, NULL, NULL, "pid %d goes on, sending SIGABRT", (int) w->pid);
        (void) worker_signal(w, SIGABRT);
}

static void kill_worker(Pool *pool, Worker *w, uint64_t now_usec) {
        char span[64];
        int r;

        worker_log(w, LOG_WARNING, MESSAGE_WORKER_KILLED, NULL,
                   "pid %d has not ended within --stop-timeout=%s, killing it", (int) w->pid,
                   clock_format_span(span, sizeof(span), pool->p.config->stop_timeout_usec));
        worker_set_state(w, WORKER_KILLING, now_usec, "stop timeout");
        pool->n_killed++;
        pool->roll.n_killed += w->generation < pool->generation;
        r = worker_signal(w, SIGKILL);
        if (r < 0)
                worker_log(w, LOG_ERR, NULL, NULL, "could not send SIGKILL: %s", strerror(-r));
}

static const char *retirement_reason(const Pool *pool, const Worker *w) {
        if (pool->phase >= POOL_STOPPING)
                return "pool stops";
        if (w->stuck)
                return "stuck";
        if (w->on_trial)
                return "its trial is over";
        if (!pool_slot_of(pool, w))
                return "belongs to no slot";
        if (!w->dismissed && pool->held)
                return "pool is held";
        if (!w->dismissed && w->slot >= pool->n_wanted)
                return "not needed";
        return w->worn == WORN_AGE ? "has reached --max-lifetime" :
                w->worn == WORN_MEMORY ? "exceeds --max-memory" :
                w->worn == WORN_REQUESTED ? "recycled" : "replaced";
}

/* Does what the plan says of one worker until it says nothing more; returns when to ask again. */
static uint64_t drive_worker(Pool *pool, Worker *w, unsigned n_retiring, uint64_t now_usec) {
        uint64_t quiet_until_usec = USEC_INFINITY;
        PlanStep step;

        for (;;) {
                PlanWorker view = worker_to_plan(w, is_wanted(pool, w));

                view.n_retiring = n_retiring;
                step = plan_worker(pool->p.config, &view, now_usec);
                if ((step.verb != PLAN_NOTHING && step.verb != PLAN_LOOK) ||
                    !plan_is_quiet(&view, now_usec, &quiet_until_usec))
                        introduce(pool, w, now_usec);
                if (step.verb == PLAN_NOTHING)
                        return MIN_OF(step.again_usec, quiet_until_usec);
                if (step.verb != PLAN_LOOK && step.verb != PLAN_TRY && step.verb != PLAN_TRY_HARDER) {
                        pool_request_status(pool, false);
                        pool->unsaved = true;
                }

                switch (step.verb) {

                case PLAN_LOOK:
                        look(pool, w, now_usec);
                        break;

                case PLAN_READY:
                case PLAN_ASSUME_READY:
                        become_ready(pool, w, step.verb == PLAN_ASSUME_READY, now_usec);
                        break;

                case PLAN_FAIL:
                        miss_start_timeout(pool, w, now_usec);
                        break;

                case PLAN_STUCK:
                case PLAN_SILENT:
                        load_report_stuck(pool, w, step.verb == PLAN_SILENT);
                        w->stuck = true;
                        break;

                case PLAN_WEAR_AGE:
                case PLAN_WEAR_MEMORY:
                        wear(pool, w, step.verb == PLAN_WEAR_MEMORY);
                        break;

                case PLAN_RETIRE:
                        retire(pool, w, retirement_reason(pool, w), now_usec);
                        break;

                case PLAN_TRY:
                case PLAN_TRY_HARDER:
                        try_to_end(pool, w, step.verb == PLAN_TRY_HARDER);
                        break;

                case PLAN_SIGNAL:
                        send_stop_signal(pool, w, now_usec);
                        break;

                case PLAN_ABORT:
                        abort_worker(w);
                        break;

                case PLAN_KILL:
                        kill_worker(pool, w, now_usec);
                        break;

                case PLAN_NOTHING:
                case _PLAN_VERB_MAX:
                default:
                        assert(false);
                }
        }
}

/* The slot is free again; whether its next worker has to wait depends on how this one has ended. */
static void notice_death(Pool *pool, Worker *w, uint64_t now_usec) {
        Slot *slot = pool_slot_of(pool, w);
        char death[160], text[sizeof(death) + 40];
        bool early;

        trial_on_death(pool, w);
        if (w->exec_error < 0 && w->generation == pool->generation && !w->on_trial)
                pool->could_not_execute = true;
        report_replaced(pool, w);
        if (!vacate(pool, w))
                return;

        (void) worker_format_death(w, slot->last_death, sizeof(slot->last_death));
        slot->not_before_usec = 0;
        early = plan_death_is_early(w->state, w->spawned_usec, w->ended_usec);
        (void) snprintf(text, sizeof(text), "%s%s", worker_format_death(w, death, sizeof(death)),
                        w->exec_error < 0 ? "" :
                        w->state == WORKER_STARTING ? " before it was ready" :
                        early ? " within a second of its start" : "");
        if (pool->rolling && w->generation == pool->generation &&
            plan_death_fails_roll(w->state, worker_death_is_clean(w))) {
                pool->successor_died = true;
                (void) snprintf(pool->last_failure, sizeof(pool->last_failure), "worker %u %s", w->slot,
                                text);
        }
        if (!early) {
                slot->n_early_deaths = 0;
                return;
        }

        introduce(pool, w, now_usec);
        worker_set_state(w, WORKER_DEAD, now_usec, NULL);
        slot_failed(pool, w->slot, text, now_usec);
}

static void notice_the_dead(Pool *pool, uint64_t now_usec) {
        for (Worker **link = &pool->workers; *link;) {
                Worker *w = *link;

                if (!w->ended) {
                        link = &w->next;
                        continue;
                }
                *link = w->next;
                notice_death(pool, w, now_usec);
                w->next = pool->dead;
                pool->dead = w;
                pool->unsaved = true;
                pool_request_status(pool, false);
        }
}

/* --- the pool --- */

static void log_roll(const Pool *pool) {
        char field[128], generation[48];

        (void) snprintf(field, sizeof(field), "FCGI_POOL=%s", pool->p.name);
        (void) snprintf(generation, sizeof(generation), "GENERATION=%" PRIu64, pool->generation);
        log_write(LOG_INFO, MESSAGE_ROLLED, (const char *const[]) { field, generation, NULL },
                  "Pool %s: all %u workers are of generation %" PRIu64, pool->p.name,
                  pool->n_wanted, pool->generation);
}

void pool_enter_phase(Pool *pool, PoolPhase phase) {
        pool->phase = phase;
        pool->p.on_phase(phase, pool->failed ? &pool->failure : NULL, pool->p.userdata);
}

static PlanPool to_plan(const Pool *pool, uint64_t now_usec) {
        Counts c = pool_count(pool);
        PlanPool view = {
                .phase = pool->phase,
                .rolling = pool->rolling,
                .n_slots = pool_n_active(pool),
                .n_ready = c.per_state[WORKER_READY],
                .n_settled = c.n_settled,
                .missed_start_timeout = pool->missed_start_timeout,
                .could_not_execute = pool->could_not_execute,
                .successor_died = pool->successor_died,
                .trial_is_due = trial_is_due(pool),
                .budget_spent = budget_is_spent(pool, now_usec),
        };

        for (size_t i = 0; i < _WORKER_STATE_MAX; i++)
                view.n_processes += c.per_state[i];
        for (unsigned i = 0; i < view.n_slots; i++)
                view.most_early_deaths = MAX_OF(view.most_early_deaths, pool->slots[i].n_early_deaths);
        return view;
}

/* There before us, and able to serve or on the way there as far as we know. */
static bool is_elder(const Pool *pool, const Worker *w) {
        return !w->stranger && worker_is_current(w) && (w->adopted || w->generation < pool->generation);
}

static void reinstate_elder(Pool *pool, Slot *slot, uint64_t now_usec) {
        Worker *w = slot->current;

        slot->current = TAKE_PTR(slot->elder);
        if (w && worker_is_current(w))
                retire(pool, w, "its generation has failed", now_usec);
}

/* The newest generation is not wanted after all: elders who are still there take their slots back, and what
 * has not become ready of it goes. Returns whether there are others, who may serve on. */
static bool undo_generation(Pool *pool, uint64_t now_usec) {
        bool elders = false;

        for (unsigned i = 0; i < pool->n_slots; i++)
                if (pool->slots[i].elder)
                        reinstate_elder(pool, pool->slots + i, now_usec);
        for (Worker *w = pool->workers; w; w = w->next)
                elders = elders || is_elder(pool, w);
        if (!elders)
                return false;
        for (Worker *w = pool->workers; w; w = w->next)
                if (w->state == WORKER_STARTING && !is_elder(pool, w))
                        retire(pool, w, "its generation has failed", now_usec);
        return true;
}

/* Nobody may be left to do it. They serve nobody, and the next helper would not know them. */
static void kill_on_trial(Pool *pool, uint64_t now_usec) {
        for (Worker *w = pool->workers; w; w = w->next) {
                if (!w->on_trial)
                        continue;
                if (w->state == WORKER_READY)
                        retire(pool, w, "its trial is over", now_usec);
                if (w->state == WORKER_RETIRING)
                        try_to_end(pool, w, true);
                (void) worker_signal(w, SIGKILL);
        }
}

/* The start or the roll has failed. The elders serve on: after a failed roll with us, after a failed
 * start with the next helper, which tries again. Without elders the pool drains. */
static void fail(Pool *pool, int exit_status, const char *what, uint64_t now_usec) {
        bool starting = pool->phase == POOL_STARTING, elders;
        char text[sizeof(pool->failure.text)];

        (void) snprintf(text, sizeof(text), "%s failed: %s", starting ? "Start" : "Roll", what);
        record_failure(pool, exit_status, MESSAGE_START_FAILED, text);
        elders = undo_generation(pool, now_usec);
        report_roll_fails(pool, text);

        if (!starting) {
                pool->rolling = false;
                pool->unsaved = true;
                pool_forget_attempts(pool);
                pool_request_status(pool, false);
                pool_request_reconcile(pool); /* this pass began with other wishes */
        } else if (elders) {
                kill_on_trial(pool, now_usec);
                (void) pool_save(pool, STATE_LIFE_RESTARTED);
                pool_enter_phase(pool, POOL_STOPPED);
        } else {
                pool_enter_phase(pool, POOL_STOPPING);
                pool_request_reconcile(pool);
        }
}

static void succeed(Pool *pool, uint64_t now_usec) {
        pool->failed = false;
        pool->unsaved = true;
        pool_request_reconcile(pool); /* what was found beside the slots may go now */
        pool_request_status(pool, false);
        if (pool->rolling) {
                log_roll(pool);
                report_roll_succeeds(pool, now_usec);
        }
        dismiss_elders(pool, 0);
        pool->rolling = false;
        if (pool->phase != POOL_STARTING)
                return;
        pool_enter_phase(pool, POOL_SERVING);
        for (Worker *w = pool->workers; w; w = w->next)
                pool_store_worker(pool, w);
}

static void judge(Pool *pool, uint64_t now_usec) {
        PlanPool view = to_plan(pool, now_usec);
        char text[sizeof(pool->failure.text)], span[64];

        switch (plan_pool(&view)) {

        case PLAN_GO_ON:
                break;

        case PLAN_STARTED:
        case PLAN_ROLLED:
                succeed(pool, now_usec);
                break;

        case PLAN_NOT_EXECUTED:
                (void) snprintf(text, sizeof(text), "%s: %s", pool->p.config->executable,
                                pool->last_failure);
                fail(pool, EXIT_STATUS_NOT_INSTALLED, text, now_usec);
                break;

        case PLAN_TIMED_OUT:
                fail(pool, EXIT_STATUS_UNAVAILABLE, pool->last_failure, now_usec);
                break;

        case PLAN_CRASHED:
                if (view.most_early_deaths > 1)
                        (void) snprintf(text, sizeof(text), "%s, %u failures in a row", pool->last_failure,
                                        view.most_early_deaths);
                else
                        (void) snprintf(text, sizeof(text), "%s", pool->last_failure);
                fail(pool, EXIT_STATUS_UNAVAILABLE, text, now_usec);
                break;

        case PLAN_BUDGET_SPENT:
                (void) snprintf(text, sizeof(text),
                                "No worker serves, with more early deaths than --crash-budget=%u/%s; "
                                "the last: %s", pool->p.config->crash_budget,
                                clock_format_span(span, sizeof(span), pool->p.config->crash_budget_usec),
                                pool->last_failure);
                record_failure(pool, EXIT_STATUS_UNAVAILABLE, MESSAGE_CRASH_BUDGET_SPENT, text);
                pool_enter_phase(pool, POOL_STOPPING);
                pool_request_reconcile(pool);
                break;

        case PLAN_DRAINED:
                pool_enter_phase(pool, POOL_STOPPED);
                break;

        case _PLAN_VERDICT_MAX:
        default:
                assert(false);
        }
}

static int reconcile(Pool *pool) {
        uint64_t now_usec = pool_now(pool), next_usec, trial_usec;
        unsigned n_retiring;

        notice_the_dead(pool, now_usec);
        next_usec = load_drive(pool, now_usec);
        next_usec = MIN_OF(next_usec, fill_slots(pool, now_usec));
        next_usec = MIN_OF(next_usec, bury_the_dead(pool, NULL, now_usec));
        n_retiring = pool_count(pool).per_state[WORKER_RETIRING];
        for (Worker *w = pool->workers; w; w = w->next)
                next_usec = MIN_OF(next_usec, drive_worker(pool, w, n_retiring, now_usec));
        if (trial_drive(pool, now_usec, &trial_usec))
                judge(pool, now_usec);
        else
                fail(pool, EXIT_STATUS_UNAVAILABLE, pool->last_failure, now_usec);
        next_usec = MIN_OF(next_usec, trial_usec);
        report_roll_goes_on(pool, now_usec);
        if (pool->unsaved)
                pool_save_or_warn(pool);

        if (next_usec == USEC_INFINITY)
                return sd_event_source_set_enabled(pool->timer_source, SD_EVENT_OFF);
        (void) sd_event_source_set_time(pool->timer_source, next_usec);
        return sd_event_source_set_enabled(pool->timer_source, SD_EVENT_ONESHOT);
}

static int on_reconcile(sd_event_source *source, void *userdata) {
        return reconcile(userdata);
}

/* What has come meanwhile is read first: a helper that was kept from running has pings to read. */
static int on_timer(sd_event_source *source, uint64_t usec, void *userdata) {
        pool_request_reconcile(userdata);
        return 0;
}

static int on_status(sd_event_source *source, uint64_t usec, void *userdata) {
        Pool *pool = userdata;

        pool->p.on_status(pool->p.userdata);
        return 0;
}

int pool_leave(Pool *pool, StateLife life) {
        /* Whom we have reaped nobody else can bury. */
        notice_the_dead(pool, pool_now(pool));
        for (Worker *w; (w = pool->dead);) {
                pool->dead = w->next;
                bury(pool, w, pool_now(pool));
        }
        for (Worker *w = pool->workers; w; w = w->next)
                pool_store_worker(pool, w);
        return pool_save(pool, life);
}

void pool_stop(Pool *pool) {
        if (pool->phase >= POOL_STOPPING)
                return;
        pool->rolling = false;
        pool->failed = false; /* a roll that failed is no reason to stop */
        pool_enter_phase(pool, POOL_STOPPING);
        pool_request_reconcile(pool);
}

int pool_reserve_slots(Pool *pool, unsigned n) {
        Slot *slots;

        if (n <= pool->n_slots)
                return 0;
        slots = realloc(pool->slots, n * sizeof(*slots));
        if (!slots)
                return -ENOMEM;
        pool->slots = slots;
        while (pool->n_slots < n)
                slots[pool->n_slots++] = (Slot) { .output_fd = -EBADF };
        return 0;
}

static int add_sources(Pool *pool) {
        int r;

        r = sd_event_add_defer(pool->event, &pool->reconcile_source, on_reconcile, pool);
        if (r >= 0)
                r = sd_event_source_set_priority(pool->reconcile_source, SD_EVENT_PRIORITY_NORMAL + 1);
        if (r >= 0)
                r = sd_event_add_time(pool->event, &pool->status_source, CLOCK_MONOTONIC, USEC_INFINITY,
                                      STATUS_DELAY_USEC, on_status, pool);
        if (r >= 0)
                r = sd_event_source_set_enabled(pool->status_source, SD_EVENT_OFF);
        if (r >= 0)
                r = sd_event_add_time(pool->event, &pool->timer_source, CLOCK_MONOTONIC, USEC_INFINITY,
                                      USEC_PER_MSEC, on_timer, pool);
        if (r >= 0 && pool->inbox_fd >= 0)
                r = sd_event_add_io(pool->event, &pool->inbox_source, pool->inbox_fd, EPOLLIN, on_inbox_io,
                                    pool);
        return r;
}

int pool_new(sd_event *event, const PoolParameters *parameters, Pool **ret_pool) {
        _cleanup_(pool_freep) Pool *pool = NULL;
        const Config *config = parameters->config;
        char directory[PATH_MAX];
        int r;

        assert(event);
        assert(ret_pool);
        assert(config->n_workers > 0);

        pool = calloc(1, sizeof(*pool));
        if (!pool)
                return -ENOMEM;
        pool->p = *parameters;
        pool->size = *config;
        pool->p.config = &pool->size;
        pool->event = sd_event_ref(event);
        pool->inbox_fd = -EBADF;
        pool->load.diag_fd = -EBADF;
        pool->phase = POOL_STARTING;
        pool->generation = 1;
        pool->n_wanted = plan_workers(config, 0, (unsigned) pool->p.listeners->n_listeners);

        pool->early_deaths = calloc((size_t) config->crash_budget + 1, sizeof(*pool->early_deaths));
        r = pool->early_deaths ? pool_reserve_slots(pool, config->n_workers) : -ENOMEM;
        if (r < 0)
                return r;

        if (config->ready == READY_AUTO || config->ready == READY_NOTIFY) {
                r = inbox_open(runtime_directory(directory), &pool->inbox_fd, &pool->inbox_address);
                if (r < 0)
                        return r;
        }

        r = add_sources(pool);
        if (r >= 0)
                r = load_init(pool);
        if (r < 0)
                return r;

        *ret_pool = TAKE_PTR(pool);
        return 0;
}

static void free_list(Worker *list) {
        for (Worker *w = list, *next; w; w = next) {
                next = w->next;
                worker_free(w);
        }
}

Pool *pool_free(Pool *pool) {
        if (!pool)
                return NULL;

        load_done(pool);
        trial_discard(pool);
        free_list(pool->workers);
        free_list(pool->dead);
        sd_event_source_disable_unref(pool->reconcile_source);
        sd_event_source_disable_unref(pool->status_source);
        sd_event_source_disable_unref(pool->timer_source);
        sd_event_source_disable_unref(pool->inbox_source);
        (void) safe_close(pool->inbox_fd);
        free(pool->inbox_address);
        for (unsigned i = 0; i < pool->n_slots; i++)
                (void) safe_close(pool->slots[i].output_fd);
        free(pool->slots);
        free(pool->early_deaths);
        sd_event_unref(pool->event);
        free(pool);
        return NULL;
}
