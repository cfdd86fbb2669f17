/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* From one helper to the next.
 *
 * What the next helper must know is written down before and after it becomes true, since nobody knows
 * when that helper will be needed: the intent to spawn before the spawn, the pid after it. At its start
 * it makes of that, and of what adopt.c has found, a pool that is as the last one was. */

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

#include "adopt.h"
#include "log.h"
#include "message-ids.h"
#include "pool-internal.h"

/* --- what is left --- */

static char *stored_name(unsigned slot, uint64_t generation, char buffer[static STORED_WORKER_SIZE]) {
        (void) snprintf(buffer, STORED_WORKER_SIZE, STORED_WORKER_FORMAT, slot, generation);
        return buffer;
}

void pool_store_worker(Pool *pool, Worker *w) {
        char name[STORED_WORKER_SIZE];

        if (w->stored || w->stranger || w->pidfd < 0)
                return;
        (void) stored_name(w->slot, w->generation, name);
        w->stored = notify_store_fd(pool->p.notify, name, w->pidfd) >= 0;
}

/* Names are not unique: a successor of the same generation may start before its predecessor, who missed the
 * start timeout, has ended. What else had the name is stored anew. */
static void remove_stored(Pool *pool, unsigned slot, uint64_t generation) {
        char name[STORED_WORKER_SIZE];

        notify_remove_fd(pool->p.notify, stored_name(slot, generation, name));
        for (Worker *w = pool->workers; w; w = w->next)
                if (w->stored && w->slot == slot && w->generation == generation) {
                        w->stored = false;
                        pool_store_worker(pool, w);
                }
}

void pool_unstore_worker(Pool *pool, Worker *w) {
        if (!w->stored)
                return;
        w->stored = false;
        remove_stored(pool, w->slot, w->generation);
}

static StateWorker record_of(const Worker *w) {
        return (StateWorker) {
                .slot = w->slot,
                .generation = w->generation,
                .pid = w->pid,
                .start_time = w->start_time,
                .spawned_usec = w->spawned_usec,
                .cookie = w->cookie,
                .state = w->state,
        };
}

/* Beside the record, for a helper that cannot read it: one of another version, say. */
static void mark_restart(Pool *pool) {
        _cleanup_close_ int fd = -EBADF, other_fd = -EBADF;
        int fds[2];

        if (pipe2(fds, O_CLOEXEC) < 0)
                return;
        fd = fds[0];
        other_fd = fds[1];
        (void) notify_store_fd(pool->p.notify, STORED_RESTARTED, fd);
}

int pool_save(Pool *pool, StateLife life) {
        _cleanup_free_ StateWorker *records = NULL;
        size_t n_max = pool->n_slots;
        State state = {
                .life = life,
                .generation = pool->generation,
                .rolling = pool->rolling,
                .started = pool->phase == POOL_SERVING,
                .held = pool->held,
                .n_workers_set = pool->size_is_set ? pool->size.n_workers : 0,
        };

        if (!pool->p.state_file)
                return 0;
        if (life == STATE_LIFE_RESTARTED)
                mark_restart(pool);
        for (const Worker *w = pool->workers; w; w = w->next)
                n_max++;
        for (const Worker *w = pool->dead; w; w = w->next)
                n_max++;
        state.workers = records = calloc(n_max, sizeof(*records));
        if (!records)
                return -ENOMEM;

        for (const Worker *w = pool->workers; w; w = w->next)
                if (!w->stranger)
                        records[state.n_workers++] = record_of(w);
        /* Should we die before their obituary is written, the next helper writes it. */
        for (const Worker *w = pool->dead; w; w = w->next)
                if (!w->stranger && w->state != WORKER_DEAD)
                        records[state.n_workers++] = record_of(w);
        for (unsigned i = 0; i < pool->n_slots; i++)
                if (pool->slots[i].intended)
                        records[state.n_workers++] = (StateWorker) {
                                .slot = i,
                                .generation = pool->generation,
                                .cookie = pool_listener_of(pool, i)->cookie,
                                .state = WORKER_STARTING,
                        };
        pool->unsaved = false;
        return state_file_write(pool->p.state_file, &state);
}

void pool_save_or_warn(Pool *pool) {
        int r;

        r = pool_save(pool, STATE_LIFE_RUNNING);
        if (r < 0)
                log_warning("Could not write the state for the next helper, ignoring: %s", strerror(-r));
}

/* --- what is found --- */

static void log_adoption(const Pool *pool, const Adoption *adoption) {
        unsigned n[3] = {};
        char field[128];

        for (size_t i = 0; i < adoption->n_adoptees; i++)
                n[adoption->adoptees[i].kind]++;
        (void) snprintf(field, sizeof(field), "FCGI_POOL=%s", pool->p.name);
        log_write(LOG_INFO, MESSAGE_ADOPTED, (const char *const[]) { field, NULL },
                  "Pool %s: %u workers adopted, %u gone meanwhile, %u strangers; generation %" PRIu64 "%s",
                  pool->p.name, n[ADOPT_WORKER], n[ADOPT_LOST], n[ADOPT_STRANGER], pool->generation,
                  pool->rolling ? " replaces them" : "");
}

/* What died while no helper was there gets its obituary late. */
static void bury_lost(Pool *pool, const Adoptee *a, uint64_t now_usec) {
        Worker w = {
                .slot = a->record.slot,
                .generation = a->record.generation,
                .pool_name = pool->p.name,
                .pid = a->record.pid,
                .pidfd = -EBADF,
                .exec_fd = -EBADF,
                .state = a->record.state,
                .spawned_usec = a->record.spawned_usec,
                .ended_usec = now_usec, /* or earlier */
                .death = a->death,
                .stored = a->stored || pool->p.listeners->reexecuted,
        };

        worker_set_state(&w, WORKER_DEAD, now_usec, NULL);
        pool_unstore_worker(pool, &w);
}

static int adopt_one(Pool *pool, Adoptee *a, uint64_t now_usec) {
        WorkerParameters parameters = {
                .slot = a->record.slot,
                .generation = a->record.generation,
                .pool_name = pool->p.name,
                .pid = a->record.pid,
                .start_time = a->record.start_time,
                .cookie = a->record.cookie,
                .pidfd = TAKE_FD(a->pidfd),
                .exec_fd = -EBADF,
                .state = a->kind == ADOPT_STRANGER ? WORKER_READY : a->record.state,
                .adopted = true,
                .stranger = a->kind == ADOPT_STRANGER,
                .spawned_usec = a->record.spawned_usec > 0 ? a->record.spawned_usec : now_usec,
                .now_usec = now_usec,
                .on_fact = pool_on_worker_fact,
                .userdata = pool,
        };
        Worker *w;
        int r;

        r = worker_new(pool->event, &parameters, &w);
        if (r < 0)
                return r;
        /* Over execve() in place the store is as we left it. */
        w->stored = a->stored || (pool->p.listeners->reexecuted && a->kind == ADOPT_WORKER);
        w->retired_usec = worker_is_current(w) ? 0 : now_usec;
        pool_add_worker(pool, w);
        pool_store_worker(pool, w);
        /* The helper before us may have died between the decision and the signal. A retiring worker gets
         * its stop signal, if it is to have one, once more. */
        if (w->state == WORKER_KILLING)
                (void) worker_signal(w, SIGKILL);
        /* Or while the worker was stopped: in a cgroup everybody has had his SIGCONT. */
        if (!pool->p.cgroup)
                (void) worker_signal(w, SIGCONT);
        return 0;
}

/* Of two workers for one slot: one that serves, else the newer one. */
static bool is_better(const Worker *a, const Worker *b) {
        if (!b)
                return true;
        if (a->state != b->state)
                return a->state == WORKER_READY;
        if (a->generation != b->generation)
                return a->generation > b->generation;
        return a->start_time > b->start_time;
}

/* PID 1 may pass listeners in another order than to the helper before us. Slots keep the ones they had,
 * else a listener could be left without a worker when the next one dies. */
static void arrange_listeners(Pool *pool) {
        Listener *l = pool->p.listeners->listeners;
        size_t n = pool->p.listeners->n_listeners;

        for (size_t i = 0; i < n; i++)
                for (const Worker *w = pool->workers; w; w = w->next) {
                        size_t j = i;

                        if (!pool_slot_of(pool, w) || w->slot % n != i)
                                continue;
                        while (j < n && l[j].cookie != w->cookie)
                                j++;
                        if (j == n)
                                continue;

                        Listener other = l[i];
                        l[i] = l[j];
                        l[j] = other;
                        break;
                }
}

static void assign_slots(Pool *pool) {
        for (Worker *w = pool->workers; w; w = w->next) {
                Slot *slot = pool_slot_of(pool, w);

                if (slot)
                        slot->used = true;
                if (slot && worker_is_current(w) && is_better(w, slot->current))
                        slot->current = w;
        }

        /* As many as there were, and no listener without. */
        for (unsigned i = pool->n_wanted; i < pool->n_slots; i++)
                if (pool->slots[i].current)
                        pool->n_wanted = plan_workers(pool->p.config, i + 1,
                                                      (unsigned) pool->p.listeners->n_listeners);

        /* A roll that was under way goes on. */
        for (Worker *w = pool->workers; pool->rolling && w; w = w->next) {
                Slot *slot = pool_slot_of(pool, w);

                if (slot && slot->current != w && !slot->elder && w->state == WORKER_READY &&
                    w->generation < slot->current->generation)
                        slot->elder = w;
                if (slot && w->state == WORKER_STARTING && w->generation == pool->generation &&
                    slot->current != w && !slot->successor && pool_is_outdated(pool, slot->current))
                        slot->successor = w;
        }
}

/* Pidfds in the store that stand for nobody. */
static void remove_leftovers(Pool *pool, const ListenSet *stored) {
        for (size_t i = 0; i < stored->n_workers; i++)
                if (stored->workers[i].pidfd >= 0)
                        remove_stored(pool, stored->workers[i].slot, stored->workers[i].generation);
}

static bool any_serves(const Pool *pool) {
        for (const Worker *w = pool->workers; w; w = w->next)
                if (w->state == WORKER_READY && pool_slot_of(pool, w))
                        return true;
        return false;
}

static bool any_outdated(const Pool *pool) {
        for (unsigned i = 0; i < pool->n_slots; i++)
                if (pool->slots[i].current && pool_is_outdated(pool, pool->slots[i].current))
                        return true;
        return false;
}

/* Whether the workers that were found are to be replaced by a new generation, and whether the pool counts as
 * serving meanwhile. A restart is there to apply new settings. A roll whose helper has died before it served
 * is begun anew, since the settings may have changed again; one that went on while the pool served is
 * continued. */
static void decide_roll(Pool *pool, const State *state, bool *ret_serving) {
        bool restarted = state ? state->life == STATE_LIFE_RESTARTED : pool->p.listeners->restarted;
        bool held = state && state->held && !restarted;
        bool serving = (!state || state->started) && (any_serves(pool) || held);

        pool->rolling = restarted || (state && state->rolling);
        if (pool->rolling && (restarted || !serving))
                pool->generation++;
        *ret_serving = serving && !restarted;
}

/* What people have asked of the pool outlives the helper, but not a restart: that is there to apply what the
 * unit says. */
static void restore_requests(Pool *pool, const State *state) {
        if (state->n_workers_set > 0)
                (void) pool_set_workers(pool, state->n_workers_set, NULL);
        pool->held = state->held;
}

int pool_adopt(Pool *pool, const State *state, Adoption *adoption) {
        uint64_t now_usec = pool_now(pool);
        bool serving;
        int r;

        assert(pool->phase == POOL_STARTING && !pool->workers);

        if (pool->p.listeners->restarted)
                (void) notify_remove_fd(pool->p.notify, STORED_RESTARTED);
        if (!state && adoption->n_adoptees == 0) {
                remove_leftovers(pool, pool->p.listeners);
                return 0;
        }

        pool->generation = MAX_OF(state ? state->generation : 0, UINT64_C(1));
        for (size_t i = 0; i < adoption->n_adoptees; i++) {
                Adoptee *a = adoption->adoptees + i;

                pool->generation = MAX_OF(pool->generation, a->record.generation);
                if (a->kind == ADOPT_LOST)
                        bury_lost(pool, a, now_usec);
                else {
                        r = adopt_one(pool, a, now_usec);
                        if (r < 0)
                                return r;
                }
        }
        arrange_listeners(pool);
        remove_leftovers(pool, pool->p.listeners);

        decide_roll(pool, state, &serving);
        if (serving && state)
                restore_requests(pool, state);
        assign_slots(pool);
        if (!pool->rolling && any_outdated(pool)) {
                /* Their listener has gone. Names in the store are by generation, so that of the successors
                 * is another. */
                pool->generation++;
                pool->rolling = true;
                serving = false;
        }
        log_adoption(pool, adoption);
        report_adopted(pool, now_usec);

        /* After a crash nothing is to be waited for: they serve. */
        if (serving)
                pool_enter_phase(pool, POOL_SERVING);
        return 0;
}
