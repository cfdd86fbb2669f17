/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Real processes in a real cgroup, and what an earlier helper may have left about them, right and wrong. */

#include <inttypes.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>

#include "adopt.h"
#include "test-cgroup.h"

#define N_MAX 16

/* A service with a cgroup for workers, and what is said about them. */
typedef struct Scene {
        int cgroup_fd;
        StateWorker records[N_MAX];
        State state;
        StoredWorker stored[N_MAX];
        ListenSet set;
        Adoption *adoption;
} Scene;

static void scene_begin(Scene *s, const char *path) {
        char name[PATH_MAX];

        *s = (Scene) {};
        EXPECT(snprintf(name, sizeof(name), "%s/workers", path) < (int) sizeof(name));
        EXPECT_EQ(mkdir(name, 0755), 0);
        EXPECT((s->cgroup_fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0);
        s->state.workers = s->records;
        s->set.workers = s->stored;
        s->set.state_fd = s->set.leash_fd = -EBADF;
}

static void expect_ended(pid_t pid) {
        siginfo_t si;

        EXPECT_EQ(waitid(P_PID, (id_t) pid, &si, WEXITED | WNOWAIT), 0);
}

/* A process in the cgroup; with a slot it has the environment of a worker. */
static pid_t start(const Scene *s, const char *slot, const char *generation) {
        char slot_text[64], generation_text[64], text[16];
        int in[2], out[2], fd;
        pid_t pid;

        snprintf(slot_text, sizeof(slot_text), "FCGI_POOL_SLOT=%s", slot ?: "");
        snprintf(generation_text, sizeof(generation_text), "FCGI_POOL_GENERATION=%s", generation ?: "");
        EXPECT_EQ(pipe2(in, 0), 0); /* whose other end it has, too: it does not end */
        EXPECT_EQ(pipe2(out, O_CLOEXEC), 0);
        EXPECT_EQ(write(in[1], "!", 1), 1);
        EXPECT((pid = fork()) >= 0);
        if (pid == 0) {
                (void) dup2(in[0], STDIN_FILENO);
                (void) dup2(out[1], STDOUT_FILENO);
                execle("/bin/cat", "cat", NULL,
                       (char *[]) { slot ? slot_text : NULL, generation ? generation_text : NULL, NULL });
                _exit(127);
        }
        (void) close(in[0]);
        (void) close(in[1]);
        (void) close(out[1]);
        EXPECT_EQ(read(out[0], text, 1), 1); /* while it executes its program it has no environment for a moment */
        (void) close(out[0]);
        if (s->cgroup_fd >= 0) {
                snprintf(text, sizeof(text), "%d", (int) pid);
                EXPECT((fd = openat(s->cgroup_fd, "cgroup.procs", O_WRONLY | O_CLOEXEC)) >= 0);
                EXPECT_EQ(write(fd, text, strlen(text)), (ssize_t) strlen(text));
                (void) close(fd);
        }
        return pid;
}

static void end(pid_t pid) {
        EXPECT_EQ(kill(pid, SIGKILL), 0);
        EXPECT_EQ(waitpid(pid, NULL, 0), pid);
}

static uint64_t start_time_of(pid_t pid) {
        uint64_t start_time;

        EXPECT_EQ(process_get_start_time(pid, &start_time, NULL, NULL), 0);
        return start_time;
}

static StateWorker *record(Scene *s, pid_t pid, unsigned slot, uint64_t generation) {
        StateWorker *w = s->records + s->state.n_workers++;

        *w = (StateWorker) {
                .slot = slot,
                .generation = generation,
                .pid = pid,
                .start_time = pid > 0 ? start_time_of(pid) : 0,
                .spawned_usec = 4711,
                .cookie = 42,
                .state = WORKER_READY,
        };
        return w;
}

static int keep(Scene *s, int fd, unsigned slot, uint64_t generation) {
        EXPECT(fd >= 0);
        s->stored[s->set.n_workers++] = (StoredWorker) { .slot = slot, .generation = generation, .pidfd = fd };
        return fd;
}

static void find(Scene *s) {
        EXPECT_EQ(adopt_find(&s->state, &s->set, s->cgroup_fd, &s->adoption), 0);
}

static void find_without_records(Scene *s) {
        EXPECT_EQ(adopt_find(NULL, &s->set, s->cgroup_fd, &s->adoption), 0);
}

static const Adoptee *adoptee_of(const Scene *s, pid_t pid) {
        const Adoptee *found = NULL;

        for (size_t i = 0; i < s->adoption->n_adoptees; i++)
                if (s->adoption->adoptees[i].record.pid == pid) {
                        EXPECT(!found);
                        found = s->adoption->adoptees + i;
                }
        EXPECT(found);
        return found;
}

static void expect_pidfd_of(const Adoptee *a) {
        pid_t pid;

        EXPECT_EQ(pidfd_get_pid(a->pidfd, &pid), 0);
        EXPECT_EQ(pid, a->record.pid);
}

static void scene_end(Scene *s) {
        s->adoption = adoption_free(s->adoption);
        for (size_t i = 0; i < s->set.n_workers; i++)
                (void) safe_close(s->stored[i].pidfd);
        (void) close(s->cgroup_fd);
}

#define IN_SERVICE(name)                                                        \
        static void check_##name(const char *path, const void *argument);       \
        static void name(void) {                                                \
                run_in_service("adopt.service", check_##name, NULL);            \
        }                                                                       \
        static void check_##name(const char *path, const void *argument)

/* All three agree. */
IN_SERVICE(agreement) {
        pid_t pids[3];
        int fds[3];
        Scene s;

        scene_begin(&s, path);
        for (unsigned i = 0; i < 3; i++) {
                pids[i] = start(&s, "9", "9"); /* the record counts, not the environment */
                record(&s, pids[i], i, 5 + i);
        }
        for (unsigned i = 3; i-- > 0;)
                fds[i] = keep(&s, pidfd_open(pids[i], 0), i, 5 + i);

        find(&s);
        EXPECT_EQ(s.adoption->n_adoptees, 3);
        for (unsigned i = 0; i < 3; i++) {
                const Adoptee *a = adoptee_of(&s, pids[i]);

                EXPECT_EQ(a->kind, ADOPT_WORKER);
                EXPECT_EQ(a->record.slot, i);
                EXPECT_EQ(a->record.generation, 5 + i);
                EXPECT_EQ(a->record.spawned_usec, 4711);
                EXPECT_EQ(a->record.cookie, 42);
                EXPECT_EQ(a->record.state, WORKER_READY);
                EXPECT_EQ(a->pidfd, fds[i]);
                EXPECT(a->stored);
        }
        for (size_t i = 0; i < s.set.n_workers; i++)
                EXPECT_EQ(s.stored[i].pidfd, -EBADF);
        scene_end(&s);
}

/* No pidfds, no records, no cgroup: each alone is survived, and two together. */
IN_SERVICE(missing_sources) {
        const Adoptee *a;
        pid_t pid;
        Scene s;
        int fd;

        scene_begin(&s, path);
        pid = start(&s, "3", "8");
        record(&s, pid, 1, 2);

        find(&s); /* no pidfd */
        EXPECT_EQ(s.adoption->n_adoptees, 1);
        a = adoptee_of(&s, pid);
        EXPECT_EQ(a->kind, ADOPT_WORKER);
        EXPECT_EQ(a->record.slot, 1);
        EXPECT(!a->stored);
        expect_pidfd_of(a);
        s.adoption = adoption_free(s.adoption);

        EXPECT_EQ(adopt_find(&s.state, &s.set, -EBADF, &s.adoption), 0); /* nor a cgroup */
        EXPECT_EQ(s.adoption->n_adoptees, 1);
        a = adoptee_of(&s, pid);
        EXPECT_EQ(a->kind, ADOPT_WORKER);
        EXPECT_EQ(a->record.slot, 1);
        expect_pidfd_of(a);
        s.adoption = adoption_free(s.adoption);

        fd = keep(&s, pidfd_open(pid, 0), 3, 8); /* no records: the environment knows which pidfd it is */
        EXPECT_EQ(adopt_find(NULL, &s.set, s.cgroup_fd, &s.adoption), 0);
        EXPECT_EQ(s.adoption->n_adoptees, 1);
        a = adoptee_of(&s, pid);
        EXPECT_EQ(a->kind, ADOPT_WORKER);
        EXPECT_EQ(a->record.slot, 3);
        EXPECT_EQ(a->record.generation, 8);
        EXPECT_EQ(a->record.state, WORKER_STARTING);
        EXPECT_EQ(a->record.cookie, 0);
        EXPECT_EQ(a->pidfd, fd);
        EXPECT(a->stored);
        s.adoption = adoption_free(s.adoption);

        EXPECT_EQ(adopt_find(NULL, &s.set, -EBADF, &s.adoption), 0); /* nothing at all */
        EXPECT_EQ(s.adoption->n_adoptees, 0);
        scene_end(&s);
}

/* A pid that has come back as another process is not the worker of the record. */
IN_SERVICE(reused_pid) {
        const Adoptee *lost = NULL, *found = NULL;
        pid_t pid;
        Scene s;

        scene_begin(&s, path);
        pid = start(&s, NULL, NULL);
        record(&s, pid, 1, 2)->start_time++;

        find(&s);
        EXPECT_EQ(s.adoption->n_adoptees, 2);
        for (size_t i = 0; i < 2; i++)
                *(s.adoption->adoptees[i].kind == ADOPT_LOST ? &lost : &found) = s.adoption->adoptees + i;
        EXPECT(lost && found);
        EXPECT_EQ(found->kind, ADOPT_STRANGER);
        EXPECT_EQ(found->record.pid, pid);
        EXPECT_EQ(found->record.slot, 0);
        EXPECT_EQ(lost->record.slot, 1);
        EXPECT_EQ(lost->pidfd, -EBADF);
        EXPECT(!lost->death.known);
        s.adoption = adoption_free(s.adoption);

        /* Outside of the cgroup, or without one, it is none of our business. */
        EXPECT_EQ(adopt_find(&s.state, &s.set, -EBADF, &s.adoption), 0);
        EXPECT_EQ(s.adoption->n_adoptees, 1);
        EXPECT_EQ(s.adoption->adoptees[0].kind, ADOPT_LOST);
        scene_end(&s);
}

/* Recorded workers that are gone, with and without a pidfd; intents; dead ones. */
IN_SERVICE(lost) {
        const Adoptee *a;
        pid_t pid, other;
        Scene s;
        int fd;

        scene_begin(&s, path);
        pid = start(&s, "0", "1");
        other = start(&s, "1", "1");
        record(&s, pid, 0, 1);
        record(&s, other, 1, 1);
        record(&s, 0, 2, 1);                             /* an intent: nobody was born */
        record(&s, other, 3, 1)->state = WORKER_DEAD;    /* buried already */
        fd = keep(&s, pidfd_open(pid, 0), 0, 1);
        end(pid);
        end(other);

        find(&s);
        EXPECT_EQ(s.adoption->n_adoptees, 2);
        a = adoptee_of(&s, pid);
        EXPECT_EQ(a->kind, ADOPT_LOST);
        EXPECT_EQ(a->record.slot, 0);
        EXPECT_EQ(a->pidfd, fd);
        EXPECT(a->stored);
        if (a->death.known) { /* Linux 6.15 */
                EXPECT_EQ(a->death.code, CLD_KILLED);
                EXPECT_EQ(a->death.status, SIGKILL);
        }
        a = adoptee_of(&s, other);
        EXPECT_EQ(a->kind, ADOPT_LOST);
        EXPECT_EQ(a->pidfd, -EBADF);
        EXPECT(!a->stored);
        EXPECT(!a->death.known);
        scene_end(&s);
}

/* Not recorded: the environment decides, and only a whole and sensible one; where there are records, one that
 * was expected. */
IN_SERVICE(unrecorded) {
        static const struct {
                const char *slot, *generation;
                AdoptKind kind;
        } cases[] = {
                { "7", "3", ADOPT_WORKER },
                { "4294967295", "18446744073709551615", ADOPT_WORKER },
                { "4294967296", "1", ADOPT_STRANGER },
                { "7", NULL, ADOPT_STRANGER },
                { "x", "1", ADOPT_STRANGER },
                { "1", "", ADOPT_STRANGER },
                { NULL, NULL, ADOPT_STRANGER },
        };
        pid_t pids[ELEMENTSOF(cases)];
        Scene s;

        scene_begin(&s, path);
        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                pids[i] = start(&s, cases[i].slot, cases[i].generation);
        find_without_records(&s);
        EXPECT_EQ(s.adoption->n_adoptees, ELEMENTSOF(cases));
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                const Adoptee *a = adoptee_of(&s, pids[i]);

                EXPECT_EQ(a->kind, cases[i].kind);
                EXPECT_EQ(a->record.start_time, start_time_of(pids[i]));
                EXPECT_EQ(a->record.slot, a->kind == ADOPT_STRANGER ? 0 : strtoul(cases[i].slot, NULL, 10));
                expect_pidfd_of(a);
                EXPECT(!a->stored);
        }
        s.adoption = adoption_free(s.adoption);

        record(&s, 0, 7, 3); /* an intent */
        record(&s, 0, 8, 3);
        find(&s);
        EXPECT_EQ(s.adoption->n_adoptees, ELEMENTSOF(cases));
        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                EXPECT_EQ(adoptee_of(&s, pids[i])->kind, i == 0 ? ADOPT_WORKER : ADOPT_STRANGER);
        scene_end(&s);
}

/* A stored descriptor that is somebody else's, or no pidfd at all, is not used but left to be removed. */
IN_SERVICE(wrong_pidfds) {
        const Adoptee *a;
        pid_t pids[3];
        Scene s;

        scene_begin(&s, path);
        for (unsigned i = 0; i < 3; i++) {
                pids[i] = start(&s, NULL, NULL);
                record(&s, pids[i], i, 1);
        }
        keep(&s, pidfd_open(getpid(), 0), 0, 1);
        keep(&s, memfd_create("no pidfd", MFD_CLOEXEC), 1, 1);
        keep(&s, pidfd_open(pids[2], 0), 2, 99); /* of another generation: not the name we know it by */

        find(&s);
        EXPECT_EQ(s.adoption->n_adoptees, 3);
        for (unsigned i = 0; i < 3; i++) {
                a = adoptee_of(&s, pids[i]);
                EXPECT_EQ(a->kind, ADOPT_WORKER);
                expect_pidfd_of(a);
                EXPECT(!a->stored);
                EXPECT(s.stored[i].pidfd >= 0);
        }
        scene_end(&s);
}

/* A helper that died before it could tell PID 1 of a death and of the successor: the name of both has the
 * pidfd of the dead. Or of both, in any order. */
IN_SERVICE(same_name) {
        const Adoptee *a;
        pid_t dead, pid;
        int dead_fd, fd;
        Scene s;

        scene_begin(&s, path);
        dead = start(&s, "5", "2");
        pid = start(&s, "5", "2");
        record(&s, dead, 5, 2);
        record(&s, pid, 5, 2)->state = WORKER_STARTING;
        dead_fd = keep(&s, pidfd_open(dead, 0), 5, 2);
        end(dead);

        find(&s);
        EXPECT_EQ(s.adoption->n_adoptees, 2);
        a = adoptee_of(&s, pid);
        EXPECT_EQ(a->kind, ADOPT_WORKER);
        EXPECT_EQ(a->record.state, WORKER_STARTING);
        EXPECT(!a->stored);
        expect_pidfd_of(a);
        a = adoptee_of(&s, dead);
        EXPECT_EQ(a->kind, ADOPT_LOST);
        EXPECT(a->stored);
        EXPECT_EQ(a->pidfd, dead_fd);
        dead_fd = fcntl(dead_fd, F_DUPFD_CLOEXEC, 3);
        s.adoption = adoption_free(s.adoption);

        s.set.n_workers = 0;
        keep(&s, dead_fd, 5, 2);
        fd = keep(&s, pidfd_open(pid, 0), 5, 2);
        find(&s);
        EXPECT_EQ(s.adoption->n_adoptees, 2);
        a = adoptee_of(&s, pid);
        EXPECT(a->stored);
        EXPECT_EQ(a->pidfd, fd);
        a = adoptee_of(&s, dead);
        EXPECT_EQ(a->pidfd, dead_fd);
        EXPECT(a->stored);
        end(pid);
        scene_end(&s);
}

/* Two workers say that they are the one of a slot, and have left two pidfds of that name. Both are there. */
IN_SERVICE(duplicates) {
        pid_t pids[2];
        Scene s;

        scene_begin(&s, path);
        for (unsigned i = 0; i < 2; i++) {
                pids[i] = start(&s, NULL, NULL);
                record(&s, pids[i], 4, 2);
        }
        for (unsigned i = 2; i-- > 0;)
                keep(&s, pidfd_open(pids[i], 0), 4, 2);
        find(&s);
        EXPECT_EQ(s.adoption->n_adoptees, 2);
        for (unsigned i = 0; i < 2; i++) {
                EXPECT_EQ(adoptee_of(&s, pids[i])->record.slot, 4);
                expect_pidfd_of(adoptee_of(&s, pids[i]));
        }
        s.adoption = adoption_free(s.adoption);

        /* The same process recorded twice is one worker; the other record is of nobody. */
        s.state.n_workers = 0;
        record(&s, pids[0], 4, 2);
        record(&s, pids[0], 5, 2);
        end(pids[1]);
        find(&s);
        EXPECT_EQ(s.adoption->n_adoptees, 2);
        EXPECT((s.adoption->adoptees[0].kind == ADOPT_WORKER) != (s.adoption->adoptees[1].kind == ADOPT_WORKER));
        EXPECT((s.adoption->adoptees[0].kind == ADOPT_LOST) != (s.adoption->adoptees[1].kind == ADOPT_LOST));
        scene_end(&s);
}

/* Children of a worker, which have inherited its environment, are the worker's; without it they are
 * strangers. */
IN_SERVICE(children) {
        char slot[] = "FCGI_POOL_SLOT=6", generation[] = "FCGI_POOL_GENERATION=2", text[64] = "";
        int fds[2], fd;
        pid_t pid, child;
        Scene s;

        scene_begin(&s, path);
        EXPECT_EQ(pipe(fds), 0);
        EXPECT((pid = fork()) >= 0);
        if (pid == 0) {
                service_write(path, "workers/cgroup.procs", "0");
                (void) dup2(fds[1], STDOUT_FILENO);
                execle("/bin/sh", "sh", "-c", "sleep 1000 & echo $!; wait", NULL,
                       (char *[]) { slot, generation, NULL });
                _exit(127);
        }
        EXPECT(read(fds[0], text, sizeof(text) - 1) > 0);
        child = atoi(text);
        EXPECT(child > 0);

        find_without_records(&s);
        EXPECT_EQ(s.adoption->n_adoptees, 1);
        EXPECT_EQ(adoptee_of(&s, pid)->record.slot, 6);
        s.adoption = adoption_free(s.adoption);

        record(&s, pid, 6, 2);
        find(&s);
        EXPECT_EQ(s.adoption->n_adoptees, 1);
        s.adoption = adoption_free(s.adoption);

        /* Orphaned: nobody in the cgroup is its parent. */
        EXPECT((fd = pidfd_open(child, 0)) >= 0);
        end(pid);
        find(&s);
        EXPECT_EQ(s.adoption->n_adoptees, 2);
        EXPECT_EQ(adoptee_of(&s, pid)->kind, ADOPT_LOST);
        EXPECT_EQ(adoptee_of(&s, child)->kind, ADOPT_STRANGER);
        (void) close(fd);
        scene_end(&s);
}

/* After an execve() in place workers are our children: dead ones are zombies until we wait for them. */
IN_SERVICE(zombies) {
        const Adoptee *a;
        siginfo_t si = {};
        pid_t pid, unknown;
        Scene s;

        scene_begin(&s, path);
        pid = start(&s, "1", "1");
        unknown = start(&s, "2", "1");
        record(&s, pid, 1, 1);
        EXPECT_EQ(kill(pid, SIGTERM), 0);
        EXPECT_EQ(kill(unknown, SIGTERM), 0);
        expect_ended(pid);
        expect_ended(unknown);

        find(&s);
        EXPECT_EQ(s.adoption->n_adoptees, 1);
        a = adoptee_of(&s, pid);
        EXPECT_EQ(a->kind, ADOPT_WORKER);
        EXPECT_EQ(a->record.slot, 1);
        EXPECT_EQ(waitid(P_PIDFD, (id_t) a->pidfd, &si, WEXITED | WNOHANG), 0);
        EXPECT_EQ(si.si_pid, pid);
        EXPECT_EQ(si.si_status, SIGTERM);
        scene_end(&s);
}

/* We ourselves may be in what we look at, and are no worker. */
IN_SERVICE(ourselves) {
        pid_t pid;
        Scene s;

        scene_begin(&s, path);
        service_write(path, "workers/cgroup.procs", "0");
        pid = start(&s, "0", "1");
        record(&s, getpid(), 1, 1);
        find_without_records(&s);
        EXPECT_EQ(adoptee_of(&s, pid)->kind, ADOPT_WORKER); /* our child, and still one of them */
        for (size_t i = 0; i < s.adoption->n_adoptees; i++)
                EXPECT(s.adoption->adoptees[i].record.pid != getpid() ||
                       s.adoption->adoptees[i].kind == ADOPT_LOST);
        scene_end(&s);
}

/* A cgroup that has been removed has nobody in it. */
IN_SERVICE(removed_cgroup) {
        char name[PATH_MAX];
        Scene s;

        scene_begin(&s, path);
        EXPECT(snprintf(name, sizeof(name), "%s/workers", path) < (int) sizeof(name));
        EXPECT_EQ(rmdir(name), 0);
        find(&s);
        EXPECT_EQ(s.adoption->n_adoptees, 0);
        scene_end(&s);
}

static void free_nothing(void) {
        EXPECT(!adoption_free(NULL));
}

TEST_MAIN(TEST(agreement), TEST(missing_sources), TEST(reused_pid), TEST(lost), TEST(unrecorded), TEST(wrong_pidfds),
          TEST(same_name), TEST(duplicates), TEST(children), TEST(zombies), TEST(ourselves), TEST(removed_cgroup),
          TEST(free_nothing))
