/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The plan, exhaustively: every state x every combination of facts x every option that matters x the
 * clock just before, at and just after each edge, against the rules said once more in other words. And
 * small pools, driven through all counts. */

#include "plan.h"
#include "test.h"

#define T0 (1000 * USEC_PER_SEC)

static const ReadyMode modes[] = { READY_AUTO, READY_EXEC, READY_NOTIFY, READY_DELAY };
static const uint64_t timeouts[] = { 1, 500 * USEC_PER_MSEC, 30 * USEC_PER_SEC, USEC_INFINITY };

static Config make_config(ReadyMode mode, uint64_t start_timeout_usec, uint64_t stop_timeout_usec) {
        return (Config) {
                .n_workers = 1,
                .ready = mode,
                .ready_delay_usec = 2 * USEC_PER_SEC,
                .start_timeout_usec = start_timeout_usec,
                .stop_timeout_usec = stop_timeout_usec,
                .max_lifetime_usec = USEC_INFINITY,
                .max_memory = UINT64_MAX,
                .request_timeout_usec = USEC_INFINITY,
                .crash_budget = 2,
                .crash_budget_usec = 10 * USEC_PER_SEC,
        };
}

/* All combinations of the seven facts, as bits. */
static PlanWorker make_worker(WorkerState state, unsigned facts, uint64_t now_usec, uint64_t age_usec,
                              uint64_t look_age_usec) {
        return (PlanWorker) {
                .state = state,
                .wanted = facts & 1,
                .executed = facts & 2,
                .announced = facts & 4,
                .seen = facts & 8,
                .unobservable = facts & 16,
                .spawned_usec = now_usec - age_usec,
                .state_since_usec = now_usec - age_usec,
                .looked_usec = facts & 32 ? now_usec - look_age_usec : 0,
                .adopted = facts & 64,
        };
}

/* What it says may have been said to another helper already. */
static bool by_observation(const Config *c, const PlanWorker *w) {
        return c->ready == READY_AUTO || (c->ready == READY_NOTIFY && w->adopted);
}

static bool ready_by_rule(const Config *c, const PlanWorker *w, uint64_t age) {
        return (by_observation(c, w) && (w->announced || w->seen)) ||
                (c->ready == READY_EXEC && w->executed) ||
                (c->ready == READY_NOTIFY && w->announced) ||
                (c->ready == READY_DELAY && w->executed && age >= c->ready_delay_usec);
}

static void check_starting(const Config *c, const PlanWorker *w, PlanStep s, uint64_t now, uint64_t age) {
        bool looks = by_observation(c, w) && w->executed;
        bool assumed = looks && w->unobservable && age >= PLAN_ASSUME_READY_USEC;

        if (!w->wanted)
                EXPECT_EQ(s.verb, PLAN_RETIRE);
        else if (ready_by_rule(c, w, age))
                EXPECT_EQ(s.verb, PLAN_READY);
        else if (assumed)
                EXPECT_EQ(s.verb, PLAN_ASSUME_READY);
        else if (age >= c->start_timeout_usec) {
                /* Not without a look, if one is due. */
                EXPECT(s.verb == PLAN_FAIL || (s.verb == PLAN_LOOK && looks && w->looked_usec < now));
                if (looks && w->looked_usec == 0 && age >= PLAN_LOOK_MIN_USEC)
                        EXPECT_EQ(s.verb, PLAN_LOOK);
        } else {
                EXPECT(s.verb == PLAN_NOTHING || s.verb == PLAN_LOOK);
                /* Nobody looks at what has not been executed, nor when the mode is another. */
                if (s.verb == PLAN_LOOK)
                        EXPECT(looks);
                /* The first moments are the worker's own; then there is a look. */
                if (looks && w->looked_usec == 0)
                        EXPECT_EQ(s.verb, age >= PLAN_LOOK_MIN_USEC ? PLAN_LOOK : PLAN_NOTHING);
                /* It is never forgotten: somebody asks again at the start timeout at the latest, and not
                 * in the past. */
                EXPECT(s.again_usec > now);
                if (c->start_timeout_usec != USEC_INFINITY)
                        EXPECT(s.again_usec <= w->spawned_usec + c->start_timeout_usec);
                if (c->ready == READY_DELAY && w->executed)
                        EXPECT(s.again_usec <= w->spawned_usec + c->ready_delay_usec);
                if (c->ready == READY_AUTO && w->executed)
                        EXPECT(s.again_usec <= now + PLAN_LOOK_MAX_USEC);
        }
}

static void check_worker(const Config *c, WorkerState state, unsigned facts, uint64_t age, uint64_t look_age) {
        PlanWorker w = make_worker(state, facts, T0, age, look_age);
        PlanStep s = plan_worker(c, &w, T0), again = plan_worker(c, &w, T0);

        EXPECT(s.verb == again.verb && s.again_usec == again.again_usec);

        switch (state) {

        case WORKER_STARTING:
                check_starting(c, &w, s, T0, age);
                break;

        case WORKER_READY:
                EXPECT_EQ(s.verb, w.wanted ? PLAN_NOTHING : PLAN_RETIRE);
                EXPECT(s.again_usec == USEC_INFINITY); /* idle is idle */
                break;

        case WORKER_RETIRING:
                EXPECT_EQ(s.verb, PLAN_SIGNAL); /* --retire=signal; for the rest see below */
                break;

        case WORKER_KILLING:
        case WORKER_DEAD:
                EXPECT_EQ(s.verb, PLAN_NOTHING);
                EXPECT(s.again_usec == USEC_INFINITY);
                break;

        case _WORKER_STATE_MAX:
        default:
                EXPECT(false);
        }
}

static void worker_exhaustively(void) {
        size_t n = 0;

        for (size_t m = 0; m < ELEMENTSOF(modes); m++)
                for (size_t t = 0; t < ELEMENTSOF(timeouts); t++) {
                        Config c = make_config(modes[m], timeouts[t], timeouts[ELEMENTSOF(timeouts) - 1 - t]);
                        const uint64_t edges[] = { 0, timeouts[t], c.stop_timeout_usec, c.ready_delay_usec,
                                                   PLAN_ASSUME_READY_USEC, PLAN_LOOK_MIN_USEC, PLAN_LOOK_MAX_USEC };

                        for (size_t e = 0; e < ELEMENTSOF(edges); e++)
                                for (int d = -1; d <= 1; d++) {
                                        uint64_t age = edges[e] == USEC_INFINITY ? 900 * USEC_PER_SEC :
                                                edges[e] + (uint64_t) d;

                                        if (age > 900 * USEC_PER_SEC)
                                                age = 0;
                                        for (unsigned state = 0; state < _WORKER_STATE_MAX; state++)
                                                for (unsigned facts = 0; facts < 128; facts++)
                                                        for (uint64_t look = 0; look <= age; look += age / 3 + 1, n++)
                                                                check_worker(&c, state, facts, age, look);
                                }
                }
        EXPECT(n > 50000);
}

/* The pause between looks grows with age, so that detection is late by a quarter (and 1 ms) at most, and
 * looks are few. */
static void looks_are_few_and_soon_enough(void) {
        Config c = make_config(READY_AUTO, 30 * USEC_PER_SEC, USEC_INFINITY);
        PlanWorker w = make_worker(WORKER_STARTING, 3, T0, 0, 0);
        uint64_t now = T0;
        unsigned n = 0;

        for (PlanStep s = plan_worker(&c, &w, now); s.verb != PLAN_FAIL; s = plan_worker(&c, &w, now)) {
                if (s.verb == PLAN_LOOK) {
                        w.looked_usec = now;
                        n++;
                        continue;
                }
                EXPECT(s.again_usec > now);
                EXPECT(s.again_usec - now <= MAX_OF((now - T0) / 3 + 2, PLAN_LOOK_MIN_USEC));
                now = s.again_usec;
        }
        EXPECT_EQ(now, T0 + 30 * USEC_PER_SEC);
        EXPECT(n > 100 && n < 200);
}

/* since: age of the state, of the stop signal (USEC_INFINITY: none yet) and of the last look. */
static void check_retiring(const Config *c, unsigned facts, const uint64_t since[static 3], unsigned n_retiring) {
        bool signalled = since[1] != USEC_INFINITY;
        PlanWorker w = {
                .state = WORKER_RETIRING,
                .wanted = facts & 1,
                .stranger = facts & 2,
                .unobservable = facts & 4,
                .served = facts & 8,
                .on_trial = facts & 16,
                .state_since_usec = T0 - since[0],
                .signalled_usec = signalled ? T0 - since[1] : 0,
                .looked_usec = T0 - since[2],
                .n_retiring = n_retiring,
        };
        bool idle = c->retire == RETIRE_IDLE && (!w.stranger || w.on_trial) && !w.unobservable;
        bool late = (signalled ? since[1] : since[0]) >= c->stop_timeout_usec, tried = since[2] < since[0];
        PlanStep s = plan_worker(c, &w, T0);

        if (signalled && late)
                EXPECT_EQ(s.verb, PLAN_KILL);
        else if (!signalled && ((late && tried) || !idle))
                EXPECT_EQ(s.verb, PLAN_SIGNAL);
        else if (!idle || s.verb == PLAN_NOTHING) {
                EXPECT_EQ(s.verb, PLAN_NOTHING);
                /* Never in the past, never behind the deadline. */
                EXPECT(s.again_usec > T0);
                EXPECT(idle || s.again_usec == usec_add(signalled ? w.signalled_usec : w.state_since_usec,
                                                        c->stop_timeout_usec));
                EXPECT(late || s.again_usec <= usec_add(signalled ? w.signalled_usec : w.state_since_usec,
                                                        c->stop_timeout_usec));
        } else {
                /* A program that has its signal may take its time for the rest, one that has served a second. */
                bool harder = !signalled && (!w.served || w.on_trial || since[0] >= PLAN_PATIENCE_USEC);

                EXPECT_EQ(s.verb, harder ? PLAN_TRY_HARDER : PLAN_TRY);
        }

        /* Each try is made after a pause. */
        if (idle && !late) {
                uint64_t pause = since[0] / 50, age = MIN_OF(since[0], since[2]);

                pause = pause < PLAN_TRY_MIN_USEC ? PLAN_TRY_MIN_USEC :
                        pause < PLAN_TRY_DENSE_USEC ? pause :
                        since[0] < 10 * USEC_PER_SEC ? PLAN_TRY_DENSE_USEC :
                        since[0] < 250 * USEC_PER_SEC ? since[0] / 5000 : PLAN_TRY_MAX_USEC;
                if (n_retiring >= 1000)
                        pause = n_retiring * PLAN_TRY_COST_USEC * PLAN_TRY_SHARE;
                EXPECT_EQ(s.verb != PLAN_NOTHING, age >= pause);
        }
}

static void retiring(void) {
        static const uint64_t ages[] = { 0, 1, PLAN_TRY_MIN_USEC - 1, PLAN_TRY_MIN_USEC, PLAN_TRY_MAX_USEC,
                                         500 * USEC_PER_MSEC - 1, 500 * USEC_PER_MSEC, PLAN_PATIENCE_USEC - 1,
                                         PLAN_PATIENCE_USEC, 30 * USEC_PER_SEC - 1, 30 * USEC_PER_SEC,
                                         60 * USEC_PER_SEC };
        const size_t n = ELEMENTSOF(ages);

        for (size_t i = 0; i < 2 * ELEMENTSOF(timeouts) * n * (n + 1) * n; i++) {
                Config c = make_config(READY_AUTO, USEC_INFINITY, timeouts[i / 2 % ELEMENTSOF(timeouts)]);
                size_t k = i / (2 * ELEMENTSOF(timeouts));
                uint64_t since[] = { ages[k % n], k / n % (n + 1) == n ? USEC_INFINITY : ages[k / n % (n + 1)],
                                     ages[k / n / (n + 1)] };

                c.retire = i % 2 ? RETIRE_IDLE : RETIRE_SIGNAL;
                if (since[1] != USEC_INFINITY && since[1] > since[0])
                        continue;
                for (unsigned facts = 0; facts < 32; facts++) {
                        check_retiring(&c, facts, since, 1);
                        check_retiring(&c, facts, since, 1000);
                }
        }
}

/* Tries are dense at first and thin out, and a thousand workers at once take no more than a share of the
 * CPU. */
static void tries_are_bounded(void) {
        static const unsigned crowds[] = { 1, 1000 };

        for (size_t i = 0; i < ELEMENTSOF(crowds); i++) {
                Config c = make_config(READY_AUTO, USEC_INFINITY, 10 * USEC_PER_SEC);
                PlanWorker w = { .state = WORKER_RETIRING, .served = true, .state_since_usec = T0,
                                 .n_retiring = crowds[i] };
                uint64_t now = T0, n_early = 0, n = 0;

                c.retire = RETIRE_IDLE;
                for (PlanStep s = plan_worker(&c, &w, now); s.verb != PLAN_SIGNAL; s = plan_worker(&c, &w, now)) {
                        if (s.verb == PLAN_NOTHING) {
                                EXPECT(s.again_usec > now);
                                now = s.again_usec;
                                continue;
                        }
                        w.looked_usec = now;
                        n++;
                        n_early += now - T0 < 50 * USEC_PER_MSEC;
                }
                EXPECT_EQ(now, T0 + 10 * USEC_PER_SEC);
                EXPECT(crowds[i] > 1 || (n_early > 50 && n > 900));
                EXPECT(n * crowds[i] * PLAN_TRY_COST_USEC <= 10 * USEC_PER_SEC / PLAN_TRY_SHARE + 1000 * PLAN_TRY_COST_USEC);
        }
}

/* A stuck worker is not waited for: signal, SIGABRT at half time, SIGKILL. */
static void stuck(void) {
        Config c = make_config(READY_AUTO, USEC_INFINITY, 10 * USEC_PER_SEC);
        PlanWorker w = { .state = WORKER_READY, .wanted = true, .spawned_usec = T0 };
        PlanStep s;

        c.retire = RETIRE_IDLE;
        for (int d = -1; d <= 1; d++) {
                c.request_timeout_usec = 5 * USEC_PER_SEC;
                w.request_usec = c.request_timeout_usec + (uint64_t) d;
                EXPECT_EQ(plan_worker(&c, &w, T0).verb, d < 0 ? PLAN_NOTHING : PLAN_STUCK);
                c.request_timeout_usec = USEC_INFINITY;
                EXPECT_EQ(plan_worker(&c, &w, T0).verb, PLAN_NOTHING);
        }
        w.request_usec = 0;

        /* Who has never pinged need not go on with it; who has, must. */
        c.request_timeout_usec = 5 * USEC_PER_SEC;
        EXPECT(plan_worker(&c, &w, T0).again_usec == USEC_INFINITY);
        w.pinged_usec = T0;
        EXPECT_EQ(plan_worker(&c, &w, T0).again_usec, T0 + c.request_timeout_usec);
        EXPECT_EQ(plan_worker(&c, &w, T0 + c.request_timeout_usec - 1).verb, PLAN_NOTHING);
        EXPECT_EQ(plan_worker(&c, &w, T0 + c.request_timeout_usec).verb, PLAN_SILENT);

        w.stuck = true;
        EXPECT_EQ(plan_worker(&c, &w, T0).verb, PLAN_RETIRE);
        w.state = WORKER_RETIRING;
        w.state_since_usec = T0;
        EXPECT_EQ(plan_worker(&c, &w, T0).verb, PLAN_SIGNAL);
        w.signalled_usec = T0;
        s = plan_worker(&c, &w, T0);
        EXPECT(s.verb == PLAN_NOTHING && s.again_usec == T0 + 5 * USEC_PER_SEC);
        EXPECT_EQ(plan_worker(&c, &w, T0 + 5 * USEC_PER_SEC).verb, PLAN_ABORT);
        w.aborted = true;
        s = plan_worker(&c, &w, T0 + 5 * USEC_PER_SEC);
        EXPECT(s.verb == PLAN_NOTHING && s.again_usec == T0 + 10 * USEC_PER_SEC);
        EXPECT_EQ(plan_worker(&c, &w, T0 + 10 * USEC_PER_SEC).verb, PLAN_KILL);
}

/* Age up to a tenth early, never late, and not all at once; size at any time; once. */
static void worn(void) {
        Config c = make_config(READY_AUTO, USEC_INFINITY, USEC_INFINITY);
        uint64_t first = USEC_INFINITY, last = 0;

        c.max_lifetime_usec = 100 * USEC_PER_SEC;
        for (uint32_t random = 0; random < 5000; random += 7) {
                PlanWorker w = { .state = WORKER_READY, .wanted = true, .spawned_usec = T0, .random = random };
                PlanStep s = plan_worker(&c, &w, T0);

                EXPECT_EQ(s.verb, PLAN_NOTHING);
                first = MIN_OF(first, s.again_usec);
                last = MAX_OF(last, s.again_usec);
                EXPECT_EQ(plan_worker(&c, &w, s.again_usec - 1).verb, PLAN_NOTHING);
                EXPECT_EQ(plan_worker(&c, &w, s.again_usec).verb, PLAN_WEAR_AGE);
                w.large = true;
                EXPECT_EQ(plan_worker(&c, &w, T0).verb, PLAN_WEAR_MEMORY);
                w.worn = true;
                EXPECT_EQ(plan_worker(&c, &w, s.again_usec).verb, PLAN_NOTHING);
        }
        EXPECT(first >= T0 + 90 * USEC_PER_SEC && first < T0 + 91 * USEC_PER_SEC);
        EXPECT(last <= T0 + 100 * USEC_PER_SEC && last > T0 + 99 * USEC_PER_SEC);
        c.max_lifetime_usec = 1;
        EXPECT_EQ(plan_worker(&c, &(PlanWorker) { .state = WORKER_READY, .wanted = true, .spawned_usec = T0 }, T0 + 1).verb,
                  PLAN_WEAR_AGE);
}

/* One worn worker at a time, its predecessor gone before the next one; the empty slot goes first. */
static void worn_slots(void) {
        PlanSlot s = { .wanted = true, .filled = true, .outdated = true, .worn = true };
        uint64_t again;

        for (unsigned n_replacing = 0; n_replacing < 2; n_replacing++)
                for (unsigned n_retiring = 0; n_retiring < 2; n_retiring++) {
                        PlanCrowd c = { .surge = 25, .n_replacing = n_replacing, .n_retiring = n_retiring,
                                        .proven = true };

                        EXPECT_EQ(plan_slot_spawns(&s, &c, T0, &again), n_replacing + n_retiring == 0);
                        s.filled = false;
                        EXPECT(plan_slot_spawns(&s, &c, T0, &again));
                        s.filled = true;
                }
}

static Config make_bounds(unsigned min, unsigned max) {
        Config c = make_config(READY_AUTO, USEC_INFINITY, USEC_INFINITY);

        c.n_workers_min = min;
        c.n_workers = max;
        return c;
}

static void load_exhaustively(void) {
        static const unsigned numbers[] = { 0, 1, 2, 3, 7, 8, 9, 64, 65, 1000 };
        const size_t n = ELEMENTSOF(numbers);
        Config c = make_bounds(2, 64);
        size_t n_grown = 0, n_shrunk = 0;

        for (size_t code = 0; code < n * n * n * n * 3 * 3 * 2; code++) {
                PlanLoad l = { .awake_usec = T0 - PLAN_AWAKE_USEC };
                size_t k = code;
                PlanLoadStep s;
                bool quiet;

                l.n_step = (unsigned) (k % 3) + 1, k /= 3;
                quiet = k % 3 == 0, l.peak_since_usec = quiet ? T0 - PLAN_SHRINK_USEC : T0, k /= 3;
                l.pressed = k % 2, k /= 2;
                l.n_wanted = MIN_OF(MAX_OF(numbers[k % n], plan_workers(&c, 0, l.n_step)), 64U), k /= n;
                l.n_ready = MIN_OF(numbers[k % n], l.n_wanted), k /= n;
                l.n_queued = numbers[k % n], k /= n;
                l.n_taken = l.n_busy = l.n_connected = MIN_OF(numbers[k % n], l.n_ready);
                l.n_peak = l.n_taken;
                s = plan_load(&c, &l, T0);

                /* Within the bounds, and by whole steps. */
                EXPECT(s.n_wanted <= 64 && s.n_wanted >= 2);
                if (s.n_wanted != l.n_wanted && s.n_wanted < 64)
                        EXPECT(s.n_wanted % l.n_step == 0 || s.n_wanted == l.n_wanted);
                /* It grows only if nobody is free, somebody waits, and more wait than are on the way already. */
                EXPECT_EQ(s.pressed, l.n_queued > 0 && l.n_taken >= l.n_ready);
                if (s.n_wanted > l.n_wanted) {
                        n_grown++;
                        EXPECT(s.pressed && l.n_queued > l.n_wanted - l.n_ready);
                        EXPECT(l.n_ready > 0 && (l.pressed || l.n_queued >= l.n_ready));
                        EXPECT(s.n_wanted < l.n_wanted + l.n_queued - (l.n_wanted - l.n_ready) + l.n_step);
                } else if (s.pressed && l.pressed && l.n_wanted < 64)
                        EXPECT(l.n_queued <= l.n_wanted - l.n_ready || l.n_wanted == s.n_wanted);
                /* It shrinks only at the end of a span, never below what is taken. */
                if (s.n_wanted < l.n_wanted) {
                        n_shrunk++;
                        EXPECT(quiet && s.n_wanted >= l.n_taken);
                }
                /* At rest only the next client counts, or the next chance to shrink. */
                EXPECT_EQ(s.rest, l.n_queued == 0 && l.n_taken == 0);
                EXPECT(s.again_usec > T0);
                if (s.rest && s.n_wanted <= plan_workers(&c, 0, l.n_step))
                        EXPECT(s.again_usec == USEC_INFINITY);
                else
                        EXPECT(s.again_usec < T0 + 2 * PLAN_SHRINK_USEC);
        }
        EXPECT(n_grown > 100 && n_shrunk > 100);
}

/* A burst is met within some milliseconds, and in any second there are at most ten looks. */
static void looks_at_a_burst(void) {
        Config c = make_bounds(0, 64);
        PlanLoad l = { .n_step = 1, .n_queued = 1, .awake_usec = T0, .peak_since_usec = T0 };
        uint64_t now = T0;
        unsigned n = 0;

        for (PlanLoadStep s; now < T0 + USEC_PER_SEC; now = s.again_usec, n++) {
                /* They come while we look, and the first worker is ready soon. */
                l.n_queued = now > T0 ? 64 : 1;
                l.n_ready = l.n_taken = now >= T0 + 3 * USEC_PER_MSEC;
                s = plan_load(&c, &l, now);
                l.n_wanted = s.n_wanted;
                l.pressed = s.pressed;
                EXPECT_EQ(l.n_wanted, now >= T0 + 3 * USEC_PER_MSEC ? 64 : 1);
        }
        EXPECT_EQ(l.n_wanted, 64);
        EXPECT(n <= 10);

        /* Workers that do not come up are not asked for again and again. */
        l = (PlanLoad) { .n_step = 1, .n_wanted = 3, .n_queued = 2, .pressed = true, .peak_since_usec = T0 };
        EXPECT_EQ(plan_load(&c, &l, T0).n_wanted, 3);
        l.n_queued = 64;
        EXPECT_EQ(plan_load(&c, &l, T0).n_wanted, 3);
        l.n_queued = 2;
        l.n_ready = l.n_taken = 1;
        EXPECT_EQ(plan_load(&c, &l, T0).n_wanted, 3);

        /* Nor given up while somebody waits for them, however long they take. */
        EXPECT_EQ(plan_load(&c, &l, T0 + 4 * PLAN_SHRINK_USEC).n_wanted, 3);
        l.n_queued = l.n_taken = 0;
        EXPECT_EQ(plan_load(&c, &l, T0 + 4 * PLAN_SHRINK_USEC).n_wanted, 0);

        /* Who comes to a pool without workers is noticed at once, even right after its start; a listener that
         * wakes us for nobody does not so more often than otherwise. */
        l = (PlanLoad) { .n_step = 1, .awake_usec = T0, .peak_since_usec = T0 };
        EXPECT(plan_load(&c, &l, T0).rest);
        EXPECT_EQ(plan_load(&c, &l, T0).again_usec, USEC_INFINITY);
        l.woken = true;
        EXPECT(!plan_load(&c, &l, T0).rest);
        EXPECT(plan_load(&c, &l, T0 + PLAN_AWAKE_USEC).rest);
        l.woken = false;
        l.n_wanted = 1;
        EXPECT(!plan_load(&c, &l, T0).rest);

        l = (PlanLoad) { .n_step = 2, .n_queued = 64, .peak_since_usec = T0 };
        EXPECT_EQ(plan_load(&c, &l, T0).n_wanted, 2);
}

static void looks_without_bounds(void) {
        Config c = make_bounds(4, 4);
        PlanLoad l = { .n_step = 1, .n_wanted = 4, .n_ready = 4, .n_taken = 1, .n_busy = 1, .n_connected = 1,
                       .peak_since_usec = T0, .awake_usec = T0 - PLAN_AWAKE_USEC };

        EXPECT_EQ(plan_load(&c, &l, T0).again_usec, T0 + PLAN_WATCH_SLOW_USEC);
        c.request_timeout_usec = 100 * USEC_PER_SEC;
        EXPECT_EQ(plan_load(&c, &l, T0).again_usec, T0 + PLAN_WATCH_MAX_USEC);
        c.request_timeout_usec = 100 * USEC_PER_MSEC;
        EXPECT_EQ(plan_load(&c, &l, T0).again_usec, T0 + 25 * USEC_PER_MSEC);
        /* A connection that is kept: the next request on it wakes nobody. */
        l.n_busy = 0;
        EXPECT(!plan_load(&c, &l, T0).rest);
        c.request_timeout_usec = USEC_INFINITY;
        EXPECT(plan_load(&c, &l, T0).rest);
        /* Rest does not begin with every response. */
        l.awake_usec = T0;
        EXPECT(!plan_load(&c, &l, T0).rest);
        /* A thousand workers are not looked at four times a second. */
        l.n_busy = 1;
        l.n_ready = 1000;
        c.request_timeout_usec = 100 * USEC_PER_MSEC;
        EXPECT(plan_load(&c, &l, T0).again_usec >= T0 + 500 * USEC_PER_MSEC);
}

static void kept(void) {
        Config c = make_config(READY_AUTO, USEC_INFINITY, 30 * USEC_PER_SEC);
        PlanWorker w = { .state = WORKER_RETIRING };

        EXPECT_EQ(plan_kept_usec(&c, &w), PLAN_KEPT_USEC);
        c.stop_timeout_usec = 4 * USEC_PER_SEC;
        EXPECT_EQ(plan_kept_usec(&c, &w), USEC_PER_SEC);
        c.stop_timeout_usec = 0;
        EXPECT_EQ(plan_kept_usec(&c, &w), PLAN_ANSWERED_USEC);
        c.stop_timeout_usec = USEC_INFINITY;
        EXPECT_EQ(plan_kept_usec(&c, &w), PLAN_KEPT_USEC);
        w.signalled_usec = T0;
        EXPECT_EQ(plan_kept_usec(&c, &w), PLAN_ANSWERED_USEC);
}

/* Only while a worker starts, only for a moment, and the end of the moment is told. */
static void quiet(void) {
        uint64_t until;

        for (unsigned state = 0; state < _WORKER_STATE_MAX; state++)
                for (int d = -1; d <= 1; d++) {
                        uint64_t age = PLAN_QUIET_USEC + (uint64_t) d;
                        PlanWorker w = make_worker(state, 0, T0, age, 0);
                        bool expected = state == WORKER_STARTING && d < 0;

                        EXPECT_EQ(plan_is_quiet(&w, T0, &until), expected);
                        EXPECT_EQ(until, expected ? T0 - age + PLAN_QUIET_USEC : USEC_INFINITY);
                }
}

static void deaths(void) {
        for (unsigned state = 0; state < _WORKER_STATE_MAX; state++)
                for (int d = -1; d <= 1; d++) {
                        uint64_t now = T0 + PLAN_EARLY_DEATH_USEC + (uint64_t) d;
                        bool expected = state == WORKER_STARTING || (state == WORKER_READY && d < 0);

                        EXPECT_EQ(plan_death_is_early(state, T0, now), expected);
                }
        EXPECT(plan_death_is_early(WORKER_STARTING, T0, T0 + 3600 * USEC_PER_SEC));
        EXPECT(plan_death_is_early(WORKER_READY, T0, T0));

        /* One that has served may exit as it likes; one that we have told to end may do anything. */
        for (unsigned state = 0; state < _WORKER_STATE_MAX; state++)
                for (unsigned clean = 0; clean < 2; clean++)
                        EXPECT_EQ(plan_death_fails_roll((WorkerState) state, clean),
                                  state == WORKER_STARTING || (state == WORKER_READY && !clean));
}

static void backoff(void) {
        uint64_t base = PLAN_BACKOFF_MIN_USEC;

        EXPECT_EQ(plan_backoff_usec(0, UINT32_MAX), 0);
        for (unsigned n = 1; n < 100; n++) {
                EXPECT_EQ(plan_backoff_usec(n, 0), base);
                EXPECT(plan_backoff_usec(n, UINT32_MAX) >= base - base / 4);
                EXPECT(plan_backoff_usec(n, UINT32_MAX) < base - base / 4 + 2);
                EXPECT(plan_backoff_usec(n, UINT32_MAX / 2) < base);
                base = MIN_OF(base * 2, PLAN_BACKOFF_MAX_USEC);
        }
        EXPECT_EQ(plan_backoff_usec(UINT32_MAX, 0), PLAN_BACKOFF_MAX_USEC);
}

static void budget(void) {
        Config c = make_config(READY_AUTO, USEC_INFINITY, USEC_INFINITY);

        EXPECT(!plan_budget_is_spent(&c, 0, T0));
        EXPECT(plan_budget_is_spent(&c, T0, T0));
        EXPECT(plan_budget_is_spent(&c, T0, T0 + c.crash_budget_usec - 1));
        EXPECT(!plan_budget_is_spent(&c, T0, T0 + c.crash_budget_usec));
        c.crash_budget_usec = USEC_INFINITY;
        EXPECT(plan_budget_is_spent(&c, 1, UINT64_MAX - 1));
}

static void surge(void) {
        static const struct {
                unsigned surge;
                bool percentage;
                unsigned n_slots, expected;
        } cases[] = {
                { 25, true, 1, 1 }, { 25, true, 7, 1 }, { 25, true, 8, 2 }, { 25, true, 1000, 250 }, { 100, true, 6, 6 },
                { 1, true, 99, 1 }, { 1, true, 200, 2 }, { 100, true, WORKERS_MAX, WORKERS_MAX }, { 25, true, 0, 1 },
                { 1, false, 100, 1 }, { 3, false, 2, 3 }, { WORKERS_MAX, false, 1, WORKERS_MAX },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                Config c = { .surge = cases[i].surge, .surge_is_percentage = cases[i].percentage };

                EXPECT_EQ(plan_surge(&c, cases[i].n_slots), cases[i].expected);
        }
}

static void slots(void) {
        unsigned n_spawned = 0, n_kept = 0;

        for (unsigned facts = 0; facts < 32; facts++)
                for (unsigned surge = 1; surge <= 3; surge++)
                        for (unsigned n_replacing = 0; n_replacing <= 3; n_replacing++)
                                for (unsigned n = PLAN_EXECUTING_MAX - 1; n <= PLAN_EXECUTING_MAX + 1; n++)
                                        for (int d = -1; d <= 1; d++) {
                                                PlanSlot s = {
                                                        .wanted = facts & 1,
                                                        .filled = facts & 2,
                                                        .outdated = facts & 4,
                                                        .replacing = facts & 8,
                                                        .not_before_usec = T0,
                                                };
                                                PlanCrowd c = {
                                                        .surge = surge,
                                                        .n_executing = n,
                                                        .n_replacing = n_replacing,
                                                        .proven = facts & 16,
                                                };
                                                bool may = s.wanted && n < PLAN_EXECUTING_MAX &&
                                                        (!s.filled ||
                                                         (s.outdated && !s.replacing &&
                                                          n_replacing < (c.proven ? surge : 1)));
                                                uint64_t again = 7;
                                                bool spawns = plan_slot_spawns(&s, &c, T0 + (uint64_t) d, &again);

                                                EXPECT_EQ(spawns, may && d >= 0);
                                                EXPECT(again == (may ? T0 : USEC_INFINITY));
                                                n_spawned += spawns;
                                                n_kept += !spawns;
                                        }
        EXPECT(n_spawned > 100 && n_kept > 100);
}

static PlanVerdict verdict_by_rule(const PlanPool *p) {
        bool judged = p->phase == POOL_STARTING || (p->phase == POOL_SERVING && p->rolling);

        if (judged && p->could_not_execute)
                return PLAN_NOT_EXECUTED;
        if (judged && p->missed_start_timeout)
                return PLAN_TIMED_OUT;
        if (judged && (p->most_early_deaths >= 3 || (p->phase == POOL_SERVING && p->successor_died)))
                return PLAN_CRASHED;
        if (judged && p->n_settled == p->n_slots && !p->trial_is_due)
                return p->phase == POOL_STARTING ? PLAN_STARTED : PLAN_ROLLED;
        if (p->phase < POOL_STOPPING && p->budget_spent && p->n_ready == 0 && p->n_slots > 0)
                return PLAN_BUDGET_SPENT;
        if (p->phase == POOL_STOPPING && p->n_processes == 0)
                return PLAN_DRAINED;
        return PLAN_GO_ON;
}

/* The numbers in one number, so that no combination is forgotten. */
static PlanPool make_pool(unsigned code, unsigned facts) {
        PlanPool p = { .phase = code % _POOL_PHASE_MAX };

        code /= _POOL_PHASE_MAX;
        p.n_slots = code % 4 + 1;
        code /= 4;
        p.n_ready = code % 5;
        code /= 5;
        p.n_settled = MIN_OF(code % 5, p.n_slots);
        code /= 5;
        p.n_processes = p.n_ready + code % 3;
        code /= 3;
        p.most_early_deaths = code % 5;
        p.missed_start_timeout = facts & 1;
        p.could_not_execute = facts & 2;
        p.budget_spent = facts & 4;
        p.rolling = facts & 8;
        p.successor_died = facts & 16;
        p.trial_is_due = facts & 32;
        return p;
}

static void pool_exhaustively(void) {
        size_t per_verdict[_PLAN_VERDICT_MAX] = {};

        for (unsigned code = 0; code < _POOL_PHASE_MAX * 4 * 5 * 5 * 3 * 5; code++)
                for (unsigned facts = 0; facts < 64; facts++) {
                        PlanPool p = make_pool(code, facts);
                        PlanVerdict v = plan_pool(&p);

                        EXPECT_EQ(v, verdict_by_rule(&p));
                        per_verdict[v]++;
                }

        for (size_t i = 0; i < _PLAN_VERDICT_MAX; i++)
                EXPECT(per_verdict[i] > 0);

        /* Nor is one that is to have none. */
        EXPECT_EQ(plan_pool(&(PlanPool) { .phase = POOL_SERVING, .budget_spent = true }), PLAN_GO_ON);

        /* A pool that serves is never given up while one worker is ready. */
        for (unsigned facts = 0; facts < 16; facts++)
                EXPECT_EQ(plan_pool(&(PlanPool) { .phase = POOL_SERVING, .n_slots = 9, .n_ready = 1,
                                                  .n_processes = 1, .most_early_deaths = 99,
                                                  .missed_start_timeout = facts & 1,
                                                  .could_not_execute = facts & 2, .budget_spent = facts & 4,
                                                  .successor_died = facts & 8 }),
                          PLAN_GO_ON);
}

TEST_MAIN(TEST(worker_exhaustively), TEST(looks_are_few_and_soon_enough),
          TEST(retiring), TEST(tries_are_bounded), TEST(stuck), TEST(worn), TEST(worn_slots), TEST(kept),
          TEST(load_exhaustively), TEST(looks_at_a_burst), TEST(looks_without_bounds), TEST(quiet), TEST(deaths),
          TEST(backoff),
          TEST(budget), TEST(surge), TEST(slots), TEST(pool_exhaustively))
