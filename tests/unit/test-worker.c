/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* One worker over a real process: each state owns what it may and nothing else, a death is heard once
 * with its true status, and transitions that the rules do not allow abort. */

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#include <systemd/sd-event.h>

#include "fd-util.h"
#include "spawn.h"
#include "test.h"
#include "worker.h"

typedef struct Fixture {
        sd_event *event;
        Worker *worker;
        unsigned n_facts;
} Fixture;

static void on_fact(Worker *w, void *userdata) {
        Fixture *f = userdata;

        EXPECT(w == f->worker);
        f->n_facts++;
}

static void start(Fixture *f, const char *script) {
        char *argv[] = { (char *) "sh", (char *) "-c", (char *) script, NULL };
        char *no_environment[] = { NULL };
        WorkerParameters p = { .slot = 3, .generation = 7, .pool_name = "test", .now_usec = 1000, .on_fact = on_fact };
        SpawnRequest request = {
                .executable = script ? "/bin/sh" : "/nonexistent/program",
                .argv = argv,
                .environment = no_environment,
                .listener_fd = STDIN_FILENO,
                .output_fd = -EBADF,
                .cgroup_fd = -EBADF,
        };

        *f = (Fixture) {};
        p.userdata = f;
        EXPECT(sd_event_new(&f->event) >= 0);
        EXPECT_EQ(spawn_worker(&request, &p.pid, &p.pidfd, &p.exec_fd), 0);
        EXPECT_EQ(worker_new(f->event, &p, &f->worker), 0);
        EXPECT_EQ(f->worker->state, WORKER_STARTING);
}

static void run_until(Fixture *f, bool (*done)(const Worker *)) {
        for (unsigned i = 0; i < 1000 && !done(f->worker); i++)
                EXPECT(sd_event_run(f->event, 10 * USEC_PER_SEC) >= 0);
        EXPECT(done(f->worker));
}

static bool is_executed(const Worker *w) {
        return w->executed;
}

static bool has_ended(const Worker *w) {
        return w->ended;
}

static void finish(Fixture *f) {
        f->worker = worker_free(f->worker);
        f->event = sd_event_unref(f->event);
}

static void expect_ownership(const Worker *w, bool exec_fd, bool pidfd) {
        EXPECT_EQ(w->exec_fd >= 0, exec_fd);
        EXPECT_EQ(w->exec_source != NULL, exec_fd);
        EXPECT_EQ(w->pidfd >= 0, pidfd);
        EXPECT_EQ(w->death_source != NULL, pidfd);
}

static void life(void) {
        Fixture f;

        start(&f, "exec sleep 1000");
        expect_ownership(f.worker, true, true);
        EXPECT(worker_is_current(f.worker));
        run_until(&f, is_executed);
        expect_ownership(f.worker, false, true);
        EXPECT_EQ(f.n_facts, 1);

        worker_set_state(f.worker, WORKER_READY, 2000, "because");
        expect_ownership(f.worker, false, true);
        EXPECT(worker_is_current(f.worker));
        EXPECT_EQ(f.worker->state_since_usec, 2000);

        worker_set_state(f.worker, WORKER_RETIRING, 3000, NULL);
        EXPECT(!worker_is_current(f.worker));
        EXPECT_EQ(worker_signal(f.worker, SIGCONT), 0);

        worker_set_state(f.worker, WORKER_KILLING, 4000, NULL);
        EXPECT_EQ(worker_signal(f.worker, SIGKILL), 0);
        run_until(&f, has_ended);
        worker_set_state(f.worker, WORKER_DEAD, 5000, NULL);

        expect_ownership(f.worker, false, false);
        EXPECT(f.worker->death.known);
        EXPECT_EQ(f.worker->death.code, CLD_KILLED);
        EXPECT_EQ(f.worker->death.status, SIGKILL);
        EXPECT_EQ(f.n_facts, 2);
        EXPECT_EQ(worker_signal(f.worker, SIGTERM), 0); /* nobody is hit */
        finish(&f);
}

static void expect_death(const char *script, int code, int status, const char *text) {
        char buffer[160];
        Fixture f;

        start(&f, script);
        run_until(&f, has_ended);
        EXPECT(f.worker->death.known);
        EXPECT_EQ(f.worker->death.code, code);
        EXPECT_EQ(f.worker->death.status, status);
        EXPECT_STREQ(worker_format_death(f.worker, buffer, sizeof(buffer)), text);
        EXPECT_EQ(f.worker->state, WORKER_STARTING);
        worker_set_state(f.worker, WORKER_DEAD, 2000, NULL);
        EXPECT_EQ(waitpid(f.worker->pid, NULL, WNOHANG), -1); /* reaped */
        finish(&f);
}

static void deaths(void) {
        expect_death("exit 0", CLD_EXITED, 0, "exited with status 0");
        expect_death("exit 3", CLD_EXITED, 3, "exited with status 3");
        expect_death("kill -KILL $$", CLD_KILLED, SIGKILL, "was killed by SIGKILL");
        expect_death("kill -40 $$", CLD_KILLED, 40, "was killed by signal 40");
        expect_death(NULL, CLD_EXITED, 203, "could not execute: No such file or directory");
}

static void failed_execution(void) {
        Fixture f;

        start(&f, NULL);
        run_until(&f, has_ended);
        EXPECT_EQ(f.worker->exec_error, -ENOENT);
        EXPECT(!f.worker->executed);
        finish(&f);
}

/* In a child, because it aborts. */
static bool transition_aborts(WorkerState from, WorkerState to) {
        pid_t pid = fork();
        int status;

        EXPECT(pid >= 0);
        if (pid == 0) {
                Worker w = { .pool_name = "test", .pidfd = -EBADF, .exec_fd = -EBADF, .state = from };

                if (!freopen("/dev/null", "w", stderr))
                        _exit(1);
                worker_set_state(&w, to, 1, NULL);
                _exit(w.state == to ? 0 : 1);
        }
        EXPECT(waitpid(pid, &status, 0) == pid);
        EXPECT(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
        return WIFSIGNALED(status);
}

static void transitions(void) {
        /* A row for each state, a column for each successor. */
        static const bool allowed[_WORKER_STATE_MAX][_WORKER_STATE_MAX] = {
                [WORKER_STARTING] = { [WORKER_READY] = true, [WORKER_RETIRING] = true, [WORKER_KILLING] = true,
                                      [WORKER_DEAD] = true },
                [WORKER_READY] = { [WORKER_RETIRING] = true, [WORKER_KILLING] = true, [WORKER_DEAD] = true },
                [WORKER_RETIRING] = { [WORKER_KILLING] = true, [WORKER_DEAD] = true },
                [WORKER_KILLING] = { [WORKER_DEAD] = true },
        };

        for (unsigned from = 0; from < _WORKER_STATE_MAX; from++)
                for (unsigned to = 0; to < _WORKER_STATE_MAX; to++)
                        EXPECT_EQ(transition_aborts(from, to), !allowed[from][to]);
}

static void names(void) {
        EXPECT_STREQ(worker_state_to_string(WORKER_STARTING), "starting");
        EXPECT_STREQ(worker_state_to_string(WORKER_READY), "ready");
        EXPECT_STREQ(worker_state_to_string(WORKER_RETIRING), "retiring");
        EXPECT_STREQ(worker_state_to_string(WORKER_KILLING), "killing");
        EXPECT_STREQ(worker_state_to_string(WORKER_DEAD), "dead");
}

/* What keeps workers of the same age from being replaced together does not hang on when each was spawned. */
static void spread(void) {
        uint32_t numbers[6], distance;

        for (unsigned i = 0; i < ELEMENTSOF(numbers); i++) {
                Worker w = { .slot = i, .generation = 2, .cookie = 4711, .spawned_usec = UINT64_C(4137) * i };

                numbers[i] = worker_to_plan(&w, true).random % 1024;
                for (unsigned j = 0; j < i; j++) {
                        distance = (numbers[i] - numbers[j]) % 1024;
                        EXPECT(MIN_OF(distance, 1024 - distance) > 100);
                }
        }
}

TEST_MAIN(TEST(names), TEST(spread), TEST(not_under_valgrind), TEST(transitions), TEST(life), TEST(deaths),
          TEST(failed_execution))
