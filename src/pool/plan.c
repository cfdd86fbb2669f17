/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Policy without hands.
 *
 * The module is asked about one worker, one slot or the pool and answers with a verb and the time at which
 * the answer may change by itself. It remembers nothing, so the caller may ask as often as it likes: after
 * every event, and once more when the earliest such time has come. That makes lost timers and double events
 * harmless.
 *
 * Beliefs. Exit status 0 shortly after the start is a failure like any other: blocking FastCGI libraries
 * end that way when the listener has O_NONBLOCK set (EAGAIN is fatal to them). A look at a starting
 * worker costs some 20 us and may take the CPU from it, so the first one waits, and the pause between
 * looks grows with the worker's age: what is detected late is late by a quarter at most, and a thousand
 * workers that start at once are not looked at a thousand times each. While a pool starts somebody is
 * waiting for a verdict, so it is given early; once it serves, nothing but an empty pool is worth giving
 * up for. */

#include "plan.h"

static uint64_t look_interval(const PlanWorker *w, uint64_t now_usec) {
        uint64_t quarter = usec_sub(now_usec, w->spawned_usec) / 4;

        return MIN_OF(MAX_OF(quarter, PLAN_LOOK_MIN_USEC), PLAN_LOOK_MAX_USEC);
}

/* Readiness by notification or observation. */
static PlanStep plan_auto(const PlanWorker *w, uint64_t now_usec) {
        uint64_t look_usec, assume_usec;

        if (w->announced || w->seen)
                return (PlanStep) { PLAN_READY, USEC_INFINITY };
        if (!w->executed)
                return (PlanStep) { PLAN_NOTHING, USEC_INFINITY };

        assume_usec = usec_add(w->spawned_usec, PLAN_ASSUME_READY_USEC);
        if (w->unobservable && now_usec >= assume_usec)
                return (PlanStep) { PLAN_ASSUME_READY, USEC_INFINITY };

        look_usec = usec_add(MAX_OF(w->looked_usec, w->spawned_usec), look_interval(w, now_usec));
        if (now_usec >= look_usec)
                return (PlanStep) { PLAN_LOOK, usec_add(now_usec, look_interval(w, now_usec)) };

        return (PlanStep) { PLAN_NOTHING, w->unobservable ? MIN_OF(look_usec, assume_usec) : look_usec };
}

static PlanStep plan_readiness(const Config *config, const PlanWorker *w, uint64_t now_usec) {
        uint64_t ready_usec;

        switch (config->ready) {

        case READY_AUTO:
                return plan_auto(w, now_usec);

        case READY_EXEC:
                return (PlanStep) { w->executed ? PLAN_READY : PLAN_NOTHING, USEC_INFINITY };

        case READY_NOTIFY:
                if (w->adopted)
                        return plan_auto(w, now_usec);
                return (PlanStep) { w->announced ? PLAN_READY : PLAN_NOTHING, USEC_INFINITY };

        case READY_DELAY:
                if (!w->executed)
                        return (PlanStep) { PLAN_NOTHING, USEC_INFINITY };
                ready_usec = usec_add(w->spawned_usec, config->ready_delay_usec);
                return (PlanStep) { now_usec >= ready_usec ? PLAN_READY : PLAN_NOTHING, ready_usec };

        default:
                assert(false);
                return (PlanStep) { PLAN_NOTHING, USEC_INFINITY };
        }
}

static PlanStep plan_starting(const Config *config, const PlanWorker *w, uint64_t now_usec) {
        uint64_t timeout_usec;
        PlanStep step;

        if (!w->wanted)
                return (PlanStep) { PLAN_RETIRE, USEC_INFINITY };

        step = plan_readiness(config, w, now_usec);
        if (step.verb == PLAN_READY || step.verb == PLAN_ASSUME_READY)
                return step;

        timeout_usec = usec_add(w->spawned_usec, config->start_timeout_usec);
        /* A look first: a helper may find a worker that has been ready for long. */
        if (now_usec >= timeout_usec && step.verb != PLAN_LOOK)
                return (PlanStep) { PLAN_FAIL, USEC_INFINITY };

        step.again_usec = MIN_OF(step.again_usec, timeout_usec);
        return step;
}

/* A short request is over soon, and with more clients than workers the moment between two is short. A long
 * one is not so soon. All tries together cost no more than a share of our time. */
static uint64_t try_interval(const PlanWorker *w, uint64_t now_usec) {
        uint64_t age_usec = usec_sub(now_usec, w->state_since_usec), usec;

        usec = MIN_OF(MAX_OF(age_usec / 50, PLAN_TRY_MIN_USEC), PLAN_TRY_DENSE_USEC);
        usec = MIN_OF(MAX_OF(age_usec / 5000, usec), PLAN_TRY_MAX_USEC);
        return MAX_OF(usec, (uint64_t) w->n_retiring * PLAN_TRY_COST_USEC * PLAN_TRY_SHARE);
}

/* Who never served has nothing to do after a response. Who has its stop signal may do what it likes before
 * it exits. */
static PlanVerb try_verb(const PlanWorker *w, uint64_t now_usec) {
        if (w->signalled_usec > 0)
                return PLAN_TRY;
        if (!w->served || w->on_trial || usec_sub(now_usec, w->state_since_usec) >= PLAN_PATIENCE_USEC)
                return PLAN_TRY_HARDER;
        return PLAN_TRY;
}

/* A good part of the deadline, for behind it the worker is worse off. */
uint64_t plan_kept_usec(const Config *config, const PlanWorker *w) {
        assert(config);
        assert(w);

        if (w->signalled_usec > 0)
                return PLAN_ANSWERED_USEC;
        return MAX_OF(MIN_OF(config->stop_timeout_usec / 4, PLAN_KEPT_USEC), PLAN_ANSWERED_USEC);
}

static PlanStep plan_retiring(const Config *config, const PlanWorker *w, uint64_t now_usec) {
        bool known = !w->stranger || w->on_trial;
        bool idle = config->retire == RETIRE_IDLE && known && !w->stuck && !w->unobservable;
        uint64_t deadline_usec, abort_usec, try_usec;

        deadline_usec = usec_add(w->signalled_usec ?: w->state_since_usec, config->stop_timeout_usec);
        if (w->signalled_usec > 0 && now_usec >= deadline_usec)
                return (PlanStep) { PLAN_KILL, USEC_INFINITY };
        /* Even with --stop-timeout=0 it is tried once. */
        if (w->signalled_usec == 0 &&
            (!idle || (now_usec >= deadline_usec && w->looked_usec > w->state_since_usec)))
                return (PlanStep) { PLAN_SIGNAL, USEC_INFINITY };
        if (w->stuck && !w->aborted) {
                abort_usec = usec_add(w->signalled_usec, config->stop_timeout_usec / 2);
                return (PlanStep) { now_usec >= abort_usec ? PLAN_ABORT : PLAN_NOTHING, abort_usec };
        }
        if (!idle)
                return (PlanStep) { PLAN_NOTHING, deadline_usec };

        /* Not at once: the state is to be written first, for a helper that has to tell how it ended. */
        try_usec = usec_add(MAX_OF(w->looked_usec, w->state_since_usec), try_interval(w, now_usec));
        if (now_usec >= try_usec)
                return (PlanStep) { try_verb(w, now_usec), USEC_INFINITY };
        if (now_usec < deadline_usec)
                try_usec = MIN_OF(try_usec, deadline_usec);
        return (PlanStep) { PLAN_NOTHING, try_usec };
}

/* Up to a tenth earlier, so that workers that were started together are not replaced together. */
static uint64_t worn_usec(const Config *config, const PlanWorker *w) {
        uint64_t usec = config->max_lifetime_usec;

        if (usec == USEC_INFINITY)
                return USEC_INFINITY;
        return usec_add(w->spawned_usec, usec - usec / 10240 * (w->random % 1024));
}

static PlanStep plan_ready(const Config *config, const PlanWorker *w, uint64_t now_usec) {
        uint64_t usec = worn_usec(config, w), silent_usec = USEC_INFINITY;

        if (w->stuck || !w->wanted)
                return (PlanStep) { PLAN_RETIRE, USEC_INFINITY };
        if (w->request_usec >= config->request_timeout_usec)
                return (PlanStep) { PLAN_STUCK, USEC_INFINITY };
        if (w->pinged_usec > 0)
                silent_usec = usec_add(w->pinged_usec, config->request_timeout_usec);
        if (now_usec >= silent_usec)
                return (PlanStep) { PLAN_SILENT, USEC_INFINITY };
        if (w->worn)
                return (PlanStep) { PLAN_NOTHING, silent_usec };
        if (w->large)
                return (PlanStep) { PLAN_WEAR_MEMORY, USEC_INFINITY };
        if (now_usec >= usec)
                return (PlanStep) { PLAN_WEAR_AGE, USEC_INFINITY };
        return (PlanStep) { PLAN_NOTHING, MIN_OF(usec, silent_usec) };
}

PlanStep plan_worker(const Config *config, const PlanWorker *w, uint64_t now_usec) {
        assert(config);
        assert(w);

        switch (w->state) {

        case WORKER_STARTING:
                return plan_starting(config, w, now_usec);

        case WORKER_READY:
                return plan_ready(config, w, now_usec);

        case WORKER_RETIRING:
                return plan_retiring(config, w, now_usec);

        case WORKER_KILLING: /* The kernel has the word now. */
        case WORKER_DEAD:
                return (PlanStep) { PLAN_NOTHING, USEC_INFINITY };

        case _WORKER_STATE_MAX:
        default:
                assert(false);
                return (PlanStep) { PLAN_NOTHING, USEC_INFINITY };
        }
}

bool plan_is_quiet(const PlanWorker *w, uint64_t now_usec, uint64_t *ret_until_usec) {
        uint64_t until_usec;

        assert(w);
        assert(ret_until_usec);

        until_usec = usec_add(w->spawned_usec, PLAN_QUIET_USEC);
        if (w->state != WORKER_STARTING || now_usec >= until_usec)
                until_usec = USEC_INFINITY;
        *ret_until_usec = until_usec;
        return until_usec < USEC_INFINITY;
}

bool plan_death_is_early(WorkerState last, uint64_t spawned_usec, uint64_t now_usec) {
        if (last == WORKER_STARTING)
                return true;
        return last == WORKER_READY && usec_sub(now_usec, spawned_usec) < PLAN_EARLY_DEATH_USEC;
}

bool plan_death_fails_roll(WorkerState last, bool clean) {
        return last == WORKER_STARTING || (last == WORKER_READY && !clean);
}

uint64_t plan_backoff_usec(unsigned n_early_deaths, uint32_t random) {
        uint64_t usec = PLAN_BACKOFF_MIN_USEC;

        if (n_early_deaths == 0)
                return 0;

        for (unsigned i = 1; i < n_early_deaths && usec < PLAN_BACKOFF_MAX_USEC; i++)
                usec *= 2;
        usec = MIN_OF(usec, PLAN_BACKOFF_MAX_USEC);

        /* Slots that die together must not come back together. */
        return usec - (usec / 4 * random >> 32);
}

bool plan_budget_is_spent(const Config *config, uint64_t early_death_usec, uint64_t now_usec) {
        return early_death_usec > 0 && usec_sub(now_usec, early_death_usec) < config->crash_budget_usec;
}

unsigned plan_surge(const Config *config, unsigned n_slots) {
        uint64_t n = config->surge;

        if (config->surge_is_percentage)
                n = (uint64_t) n_slots * n / 100;
        return (unsigned) MAX_OF(n, UINT64_C(1));
}

bool plan_slot_spawns(const PlanSlot *slot, const PlanCrowd *crowd, uint64_t now_usec,
                      uint64_t *ret_again_usec) {
        unsigned surge = crowd->proven ? crowd->surge : 1;

        assert(slot);
        assert(crowd);
        assert(ret_again_usec);

        *ret_again_usec = USEC_INFINITY; /* whatever is in the way, its end is an event */
        if (!slot->wanted || crowd->n_executing >= PLAN_EXECUTING_MAX)
                return false;
        if (slot->filled && (!slot->outdated || slot->replacing || crowd->n_replacing >= surge))
                return false;
        if (slot->filled && slot->worn && crowd->n_replacing + crowd->n_retiring > 0)
                return false;

        *ret_again_usec = slot->not_before_usec;
        return now_usec >= slot->not_before_usec;
}

unsigned plan_workers(const Config *config, unsigned n, unsigned n_step) {
        assert(config);
        assert(n_step > 0);

        n = MIN_OF(MAX_OF(n, config->n_workers_min), config->n_workers);
        return MIN_OF((n + n_step - 1) / n_step * n_step, config->n_workers);
}

static unsigned plan_size(const Config *config, const PlanLoad *load, bool pressed, uint64_t now_usec) {
        unsigned n_coming = load->n_wanted - MIN_OF(load->n_ready, load->n_wanted), n;

        /* What does not come up is not asked for by the dozen. */
        if (pressed && load->n_ready == 0)
                return MAX_OF(load->n_wanted, plan_workers(config, 1, load->n_step));
        if (pressed && load->n_queued > n_coming && (load->pressed || load->n_queued >= load->n_ready)) {
                n = MIN_OF(load->n_queued - n_coming, config->n_workers);
                return plan_workers(config, load->n_wanted + n, load->n_step);
        }
        /* Who waits may wait for workers that take long to start, and were never seen taken. */
        if (pressed || usec_sub(now_usec, load->peak_since_usec) < PLAN_SHRINK_USEC)
                return load->n_wanted;
        n = load->n_peak + (load->n_peak + 3) / 4;
        return MIN_OF(plan_workers(config, n, load->n_step), load->n_wanted);
}

/* Dense at first, when a burst may have begun, and soon thinner. */
static uint64_t watch_interval(const Config *config, const PlanLoad *load, uint64_t now_usec) {
        uint64_t usec = PLAN_WATCH_SLOW_USEC;

        if (config->request_timeout_usec != USEC_INFINITY)
                usec = MIN_OF(MAX_OF(config->request_timeout_usec / 4, PLAN_WATCH_MIN_USEC),
                              PLAN_WATCH_MAX_USEC);
        if (config->n_workers_min < config->n_workers)
                usec = MIN_OF(MAX_OF(usec_sub(now_usec, load->awake_usec) * 3, PLAN_WATCH_MIN_USEC),
                              PLAN_WATCH_MAX_USEC);
        return MAX_OF(usec, (uint64_t) load->n_ready * PLAN_WATCH_COST_USEC * PLAN_WATCH_SHARE);
}

PlanLoadStep plan_load(const Config *config, const PlanLoad *load, uint64_t now_usec) {
        PlanLoadStep step;

        assert(config);
        assert(load && load->n_step > 0);

        step.pressed = load->n_queued > 0 && load->n_taken >= load->n_ready;
        step.n_wanted = plan_size(config, load, step.pressed, now_usec);
        /* Not at once: between short requests there is rest again and again, and the next client would wake
         * us. He shall if there is no worker yet, for nobody else would notice him; but a listener that was
         * shut down wakes us again and again. A request on a kept connection wakes nobody up. */
        step.rest = load->n_queued == 0 && load->n_busy == 0 &&
                (usec_sub(now_usec, load->awake_usec) >= PLAN_AWAKE_USEC ||
                 (step.n_wanted == 0 && !load->woken)) &&
                (load->n_connected == 0 || config->request_timeout_usec == USEC_INFINITY);
        if (!step.rest)
                step.again_usec = usec_add(now_usec, watch_interval(config, load, now_usec));
        else if (step.n_wanted > plan_workers(config, 0, load->n_step))
                step.again_usec = MAX_OF(usec_add(load->peak_since_usec, PLAN_SHRINK_USEC),
                                         usec_add(now_usec, PLAN_WATCH_MIN_USEC));
        else
                step.again_usec = USEC_INFINITY;
        return step;
}

/* Of a start, or of a roll: both are verdicts that somebody waits for. A start has nothing to fall back on
 * and tries again, a roll has those that serve. */
static PlanVerdict plan_generation(const PlanPool *p, PlanVerdict success) {
        if (p->could_not_execute)
                return PLAN_NOT_EXECUTED;
        if (p->missed_start_timeout)
                return PLAN_TIMED_OUT;
        if (p->most_early_deaths >= PLAN_START_ATTEMPTS || (success == PLAN_ROLLED && p->successor_died))
                return PLAN_CRASHED;
        return p->n_settled >= p->n_slots && !p->trial_is_due ? success : PLAN_GO_ON;
}

PlanVerdict plan_pool(const PlanPool *p) {
        PlanVerdict verdict = PLAN_GO_ON;

        assert(p);

        switch (p->phase) {

        case POOL_STARTING:
                verdict = plan_generation(p, PLAN_STARTED);
                break;

        case POOL_SERVING:
                if (p->rolling)
                        verdict = plan_generation(p, PLAN_ROLLED);
                break;

        case POOL_STOPPING:
                return p->n_processes == 0 ? PLAN_DRAINED : PLAN_GO_ON;

        case POOL_STOPPED:
                return PLAN_GO_ON;

        case _POOL_PHASE_MAX:
        default:
                assert(false);
        }

        if (verdict == PLAN_GO_ON && p->budget_spent && p->n_ready == 0 && p->n_slots > 0)
                return PLAN_BUDGET_SPENT;
        return verdict;
}
