/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Who is in the cgroup, and nobody else. On the real cgroup file system. */

#include <sys/resource.h>

#include "refuse-call.h"
#include "spawn.h"
#include "test-cgroup.h"

static void service_of_path(void) {
        static const struct {
                const char *path;
                const char *service; /* NULL: none */
        } cases[] = {
                { "/system.slice/blog.service", "/system.slice/blog.service" },
                { "/blog.service", "/blog.service" },
                { "/blog.service/", "/blog.service" },
                { "//a.slice//blog.service", "//a.slice//blog.service" },
                { "/system.slice/system-fcgi\\x2dpool.slice/fcgi-pool@blog.service",
                  "/system.slice/system-fcgi\\x2dpool.slice/fcgi-pool@blog.service" },
                { "/system.slice/a.b@x.service.service", "/system.slice/a.b@x.service.service" },
                { "/system.slice/blog.service/workers", "/system.slice/blog.service" },
                { "/system.slice/blog.service/.control", "/system.slice/blog.service" },
                { "/system.slice/blog.service/main/deeper", "/system.slice/blog.service" },
                { "/system.slice/_memory.service", "/system.slice/_memory.service" },
                { "/user.slice/user-1000.slice/user@1000.service/app.slice/blog.service",
                  "/user.slice/user-1000.slice/user@1000.service/app.slice/blog.service" },
                { "/user.slice/user-1000.slice/user@1000.service/app.slice/app-fcgi\\x2dpool.slice/f@b.service/x",
                  "/user.slice/user-1000.slice/user@1000.service/app.slice/app-fcgi\\x2dpool.slice/f@b.service" },
                { "/machine.slice/systemd-nspawn@m.service/payload/system.slice/blog.service",
                  "/machine.slice/systemd-nspawn@m.service/payload/system.slice/blog.service" },
                { "/machine.slice/machine-m.scope/payload/system.slice/blog.service",
                  "/machine.slice/machine-m.scope/payload/system.slice/blog.service" },
                { "/user.slice/user-1000.slice/user@1000.service/app.slice/run-u5.scope", NULL },
                { "/user.slice/user-1000.slice/user@1000.service/init.scope", NULL },
                { "/user.slice/user-1000.slice/session-2.scope", NULL },
                { "/system.slice/blog.socket", NULL },
                { "/system.slice/blog.service.d", NULL },
                { "/system.slice/blog.services/x", NULL },
                { "/.service", NULL },
                { "/", NULL },
                { "", NULL },
                { "/../blog.service", NULL },
                { "/../../system.slice/blog.service", NULL },
                { "/system.slice/blog.service (deleted)", NULL },
                { "/user.slice/user@1000.service/app.slice/blog.service (deleted)", NULL },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                size_t n = cgroup_service_length(cases[i].path);
                _cleanup_free_ char *found = strndup(cases[i].path, n);

                EXPECT_STREQ(found, cases[i].service ?: "");
        }
}

static void check_open(const char *path, const void *argument) {
        _cleanup_(cgroup_freep) Cgroup *cgroup = NULL, *again = NULL;
        char expected[PATH_MAX], link[64], target[PATH_MAX] = "";

        if (argument) { /* deeper, as DelegateSubgroup= would have it */
                snprintf(expected, sizeof(expected), "%s/%s", path, (const char *) argument);
                EXPECT_EQ(mkdir(expected, 0755), 0);
                service_write(expected, "cgroup.procs", "0");
        }
        EXPECT_EQ(cgroup_open(&cgroup), 0);
        snprintf(expected, sizeof(expected), "%s/workers", path);
        EXPECT_STREQ(cgroup->workers_path, expected);
        snprintf(link, sizeof(link), "/proc/self/fd/%d", cgroup->workers_fd);
        EXPECT(readlink(link, target, sizeof(target) - 1) > 0);
        EXPECT_STREQ(target, expected);
        snprintf(expected, sizeof(expected), "%s/guardian", path);
        snprintf(link, sizeof(link), "/proc/self/fd/%d", cgroup->guardian_fd);
        memset(target, 0, sizeof(target));
        EXPECT(readlink(link, target, sizeof(target) - 1) > 0);
        EXPECT_STREQ(target, expected);
        EXPECT(fcntl(cgroup->workers_fd, F_GETFD) & FD_CLOEXEC);
        EXPECT(fcntl(cgroup->guardian_fd, F_GETFD) & FD_CLOEXEC);

        EXPECT_EQ(cgroup_open(&again), 0); /* they exist now */
        EXPECT_STREQ(again->workers_path, cgroup->workers_path);
}

static void opens(void) {
        run_in_service("blog.service", check_open, NULL);
        run_in_service("fcgi\\x2dpool@blog.service", check_open, NULL);
        run_in_service("blog.service", check_open, "main");
        EXPECT(!cgroup_free(NULL));
}

static void check_open_error(const char *path, const void *argument) {
        Cgroup *cgroup = (Cgroup *) 1;

        EXPECT_EQ(cgroup_open(&cgroup), *(const int *) argument);
        EXPECT(cgroup == (Cgroup *) 1);
}

static void not_a_service(void) {
        const int expected = -ENOENT;

        run_in_service("session.scope", check_open_error, &expected);
}

typedef struct Delegation {
        bool unit, unit_procs, workers;
        int result;
} Delegation;

/* As a user of no importance: what was delegated decides. */
static void check_delegation(const char *path, const void *argument) {
        const Delegation *d = argument;
        const uid_t nobody = 65534;
        char name[PATH_MAX];

        snprintf(name, sizeof(name), "%s/workers", path);
        if (d->workers)
                EXPECT_EQ(mkdir(name, 0755), 0); /* root's */
        snprintf(name, sizeof(name), "%s/cgroup.procs", path);
        if (d->unit)
                EXPECT_EQ(chown(path, nobody, (gid_t) -1), 0);
        if (d->unit_procs)
                EXPECT_EQ(chown(name, nobody, (gid_t) -1), 0);
        EXPECT_EQ(setuid(nobody), 0);
        if (d->result < 0)
                check_open_error(path, &d->result);
        else
                check_open(path, NULL);
}

static void delegation(void) {
        static const Delegation cases[] = {
                { .unit = true, .unit_procs = true, .result = 0 },
                { .unit = true, .unit_procs = false, .result = -EACCES },
                { .unit = false, .unit_procs = true, .result = -EACCES },
                { .unit = true, .unit_procs = true, .workers = true, .result = -EACCES },
        };

        if (geteuid() != 0)
                SKIP("not root: what another user may do");
        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                run_in_service("blog.service", check_delegation, &cases[i]);
}

static void expect_list(int fd, const pid_t *expected, size_t n_expected) {
        _cleanup_free_ pid_t *pids = NULL;
        size_t n = 4711;

        EXPECT_EQ(cgroup_list(fd, &pids, &n), 0);
        EXPECT_EQ(n, n_expected);
        EXPECT_EQ(pids[n], 0);
        for (size_t i = 0; i < n; i++) {
                bool found = false;

                EXPECT(i == 0 || pids[i] > pids[i - 1]);
                for (size_t k = 0; k < n_expected; k++)
                        found |= expected[k] == pids[i];
                EXPECT(found);
        }
}

static int make_sub(int fd, const char *name) {
        int sub_fd;

        EXPECT_EQ(mkdirat(fd, name, 0755), 0);
        EXPECT((sub_fd = openat(fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0);
        return sub_fd;
}

static void check_list(const char *path, const void *argument) {
        _cleanup_(cgroup_freep) Cgroup *cgroup = NULL;
        int sub_fd, deep_fd;
        siginfo_t si;
        pid_t pids[4];

        EXPECT_EQ(cgroup_open(&cgroup), 0);
        expect_list(cgroup->workers_fd, NULL, 0);
        EXPECT_EQ(cgroup_is_populated(cgroup->workers_fd), 0);

        pids[0] = service_sleeper(cgroup->workers_fd);
        (void) service_sleeper(cgroup->guardian_fd); /* not a worker */
        expect_list(cgroup->workers_fd, pids, 1);
        EXPECT_EQ(cgroup_is_populated(cgroup->workers_fd), 1);

        sub_fd = make_sub(cgroup->workers_fd, "sub");
        deep_fd = make_sub(sub_fd, "deep");
        pids[1] = service_sleeper(deep_fd);
        pids[2] = service_sleeper(sub_fd);
        pids[3] = service_sleeper(cgroup->workers_fd);
        expect_list(cgroup->workers_fd, pids, 4);
        expect_list(sub_fd, pids + 1, 2);

        EXPECT_EQ(kill(pids[3], SIGKILL), 0); /* a zombie is not listed */
        EXPECT_EQ(waitid(P_PID, (id_t) pids[3], &si, WEXITED | WNOWAIT), 0);
        expect_list(cgroup->workers_fd, pids, 3);

        EXPECT_EQ(cgroup_kill(cgroup->workers_fd), 0);
        service_wait_empty(cgroup->workers_fd);
        EXPECT_EQ(cgroup_is_populated(cgroup->workers_fd), 0);
        expect_list(cgroup->workers_fd, NULL, 0);
        EXPECT_EQ(cgroup_is_populated(cgroup->guardian_fd), 1);
}

static void lists(void) {
        run_in_service("blog.service", check_list, NULL);
}

/* A threaded sub-cgroup has no cgroup.procs to read; its processes are listed above it. */
static void check_threaded(const char *path, const void *argument) {
        _cleanup_(cgroup_freep) Cgroup *cgroup = NULL;
        _cleanup_close_ int sub_fd = -EBADF;
        char name[PATH_MAX];
        pid_t pids[2];

        EXPECT_EQ(cgroup_open(&cgroup), 0);
        pids[0] = service_sleeper(cgroup->workers_fd);
        pids[1] = service_sleeper(cgroup->workers_fd);
        sub_fd = make_sub(cgroup->workers_fd, "threads");
        snprintf(name, sizeof(name), "%s/workers/threads", path);
        service_write(name, "cgroup.type", "threaded");
        expect_list(cgroup->workers_fd, pids, 2);
}

static void threaded(void) {
        run_in_service("blog.service", check_threaded, NULL);
}

/* The whole list is longer than what one read(2) returns. */
static void check_many(const char *path, const void *argument) {
        enum { N = 1500 };
        _cleanup_(cgroup_freep) Cgroup *cgroup = NULL;
        _cleanup_(pid_set_clear) PidSet done = {};
        static pid_t pids[N];

        EXPECT_EQ(cgroup_open(&cgroup), 0);
        for (size_t i = 0; i < N; i++)
                pids[i] = service_sleeper(cgroup->workers_fd);
        expect_list(cgroup->workers_fd, pids, N);

        EXPECT_EQ(cgroup_signal(cgroup->workers_fd, SIGTERM, &done), N);
        EXPECT_EQ(done.n_pids, N);
        service_wait_empty(cgroup->workers_fd);
        for (size_t i = 0; i < N; i++) {
                int status;

                EXPECT_EQ(waitpid(pids[i], &status, 0), pids[i]);
                EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
        }
}

static void many(void) {
        run_in_service("blog.service", check_many, NULL);
}

/* A chain much deeper than we look: no error, and kill reaches the end of it. */
static void check_deep(const char *path, const void *argument) {
        _cleanup_(cgroup_freep) Cgroup *cgroup = NULL;
        pid_t pids[2];
        int fd;

        EXPECT_EQ(cgroup_open(&cgroup), 0);
        pids[0] = service_sleeper(cgroup->workers_fd);
        fd = cgroup->workers_fd;
        for (unsigned i = 0; i < 100; i++)
                fd = make_sub(fd, "s");
        (void) service_sleeper(fd);
        expect_list(cgroup->workers_fd, pids, 1);

        EXPECT_EQ(cgroup_kill(cgroup->workers_fd), 0);
        service_wait_empty(cgroup->workers_fd);
}

static void deep(void) {
        run_in_service("blog.service", check_deep, NULL);
}

/* A sub-cgroup that we may not enter hides nobody else; a shortage of our own is an error. */
static void check_shut(const char *path, const void *argument) {
        _cleanup_(cgroup_freep) Cgroup *cgroup = NULL;
        struct rlimit limit = { .rlim_max = 1024 };
        _cleanup_free_ pid_t *list = NULL;
        pid_t pids[3];
        size_t n;
        int fd;

        EXPECT_EQ(cgroup_open(&cgroup), 0);
        fd = make_sub(cgroup->workers_fd, "shut");
        pids[0] = service_sleeper(cgroup->workers_fd);
        pids[2] = service_sleeper(fd);
        fd = make_sub(cgroup->workers_fd, "zz");
        pids[1] = service_sleeper(fd);

        /* Room for the directory and one file, not for a level more. */
        EXPECT((fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0);
        (void) close(fd);
        limit.rlim_cur = (rlim_t) fd + 2;
        EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
        EXPECT_EQ(cgroup_list(cgroup->workers_fd, &list, &n), -EMFILE);
        EXPECT(!list);
        limit.rlim_cur = limit.rlim_max;
        EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);

        EXPECT_EQ(fchmodat(cgroup->workers_fd, "shut", 0, 0), 0);
        EXPECT_EQ(setuid(65534), 0);
        expect_list(cgroup->workers_fd, pids, 2);
}

static void shut(void) {
        if (geteuid() != 0)
                SKIP("not root: sub-cgroups of others");
        run_in_service("blog.service", check_shut, NULL);
}

/* A removed cgroup: nobody there, no error. */
static void check_removed(const char *path, const void *argument) {
        _cleanup_(cgroup_freep) Cgroup *cgroup = NULL;
        _cleanup_(pid_set_clear) PidSet done = {};
        char name[PATH_MAX];

        EXPECT_EQ(cgroup_open(&cgroup), 0);
        snprintf(name, sizeof(name), "%s/workers", path);
        EXPECT_EQ(rmdir(name), 0);
        expect_list(cgroup->workers_fd, NULL, 0);
        EXPECT_EQ(cgroup_is_populated(cgroup->workers_fd), 0);
        EXPECT_EQ(cgroup_signal(cgroup->workers_fd, SIGTERM, &done), 0);
        EXPECT_EQ(cgroup_kill(cgroup->workers_fd), 0);
}

static void removed(void) {
        run_in_service("blog.service", check_removed, NULL);
}

/* Each process once, those in the set not at all; nobody outside. */
static void check_signal(const char *path, const void *argument) {
        _cleanup_(cgroup_freep) Cgroup *cgroup = NULL;
        _cleanup_(pid_set_clear) PidSet done = {};
        pid_t first, second, other;
        int status;

        EXPECT_EQ(cgroup_open(&cgroup), 0);
        EXPECT_EQ(cgroup_signal(cgroup->workers_fd, SIGTERM, &done), 0);
        other = service_sleeper(-EBADF);

        first = service_sleeper(cgroup->workers_fd);
        EXPECT_EQ(cgroup_signal(cgroup->workers_fd, SIGURG, &done), 1); /* ignored by default: it lives on */
        EXPECT_EQ(done.n_pids, 1);
        EXPECT_EQ(done.pids[0], first);
        EXPECT_EQ(cgroup_signal(cgroup->workers_fd, SIGKILL, &done), 0);

        second = service_sleeper(cgroup->workers_fd);
        EXPECT_EQ(kill(second, SIGSTOP), 0);
        EXPECT_EQ(waitpid(second, &status, WUNTRACED), second);
        EXPECT_EQ(cgroup_signal(cgroup->workers_fd, SIGTERM, &done), 1);
        EXPECT_EQ(done.n_pids, 2);
        EXPECT_EQ(waitpid(second, &status, 0), second);
        EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM); /* SIGCONT was with it */

        EXPECT_EQ(waitpid(first, &status, WNOHANG), 0);
        EXPECT_EQ(waitpid(other, &status, WNOHANG), 0);
}

static void signals(void) {
        run_in_service("blog.service", check_signal, NULL);
}

static void write_kill(const char *path, const char *name) {
        char sub[PATH_MAX];

        snprintf(sub, sizeof(sub), "%s/%s", path, name);
        service_write(sub, "cgroup.kill", "1");
}

/* Spawns in workers/ and expects the child to live to its end, there. */
static void expect_spawnable(const Cgroup *cgroup) {
        const char *const argv[] = { "sh", "-c", "grep -q '^0::.*/workers$' /proc/self/cgroup", NULL };
        siginfo_t si = {};
        int pidfd, exec_fd;
        pid_t pid;

        EXPECT_EQ(spawn_worker(&(SpawnRequest) {
                .executable = "/bin/sh",
                .argv = (char *const *) argv,
                .environment = environ,
                .listener_fd = STDIN_FILENO,
                .output_fd = -EBADF,
                .cgroup_fd = cgroup->workers_fd,
                .cgroup_move = cgroup->must_move,
        }, &pid, &pidfd, &exec_fd), 0);
        EXPECT_EQ(waitid(P_PIDFD, (id_t) pidfd, &si, WEXITED), 0);
        EXPECT_EQ(si.si_code, CLD_EXITED);
        EXPECT_EQ(si.si_status, 0);
        (void) close(exec_fd);
        (void) close(pidfd);
}

/* cgroup.kill may leave a cgroup in which children die at birth. */
static void check_spoilt(const char *path, const void *argument) {
        Cgroup *cgroup = NULL;
        pid_t pid;
        bool spoils;

        EXPECT_EQ(cgroup_open(&cgroup), 0);
        EXPECT(!cgroup->must_move);
        expect_spawnable(cgroup);

        /* Ours does not, as long as it can do without. */
        pid = service_sleeper(cgroup->workers_fd);
        EXPECT_EQ(cgroup_kill(cgroup->workers_fd), 0);
        EXPECT_EQ(waitpid(pid, NULL, 0), pid);
        EXPECT_EQ(spawn_probe_cgroup(cgroup->workers_fd), SPAWN_BIRTH_FINE);

        write_kill(path, "workers");
        spoils = spawn_probe_cgroup(cgroup->workers_fd) == SPAWN_BIRTH_KILLED;
        fprintf(stderr, "cgroup.kill %s a cgroup for clone3(2) on this kernel\n", spoils ? "spoils" : "does not spoil");
        cgroup = cgroup_free(cgroup);
        EXPECT_EQ(cgroup_open(&cgroup), 0); /* empty: made anew */
        EXPECT(!cgroup->must_move);
        expect_spawnable(cgroup);

        write_kill(path, "workers");
        (void) service_sleeper(cgroup->workers_fd);
        cgroup = cgroup_free(cgroup);
        EXPECT_EQ(cgroup_open(&cgroup), 0); /* not empty */
        EXPECT_EQ(cgroup->must_move, spoils);
        expect_spawnable(cgroup);
        cgroup = cgroup_free(cgroup);
}

static void spoilt(void) {
        run_in_service("blog.service", check_spoilt, NULL);
}

static bool is_in_workers(pid_t pid) {
        _cleanup_free_ char *path = service_path_of(pid);

        return strstr(path, ".service/workers");
}

/* Without clone3(2) we go to where the workers are, and are never taken for one. */
static void check_inside(const char *path, const void *argument) {
        Cgroup *cgroup = NULL;
        _cleanup_(pid_set_clear) PidSet done = {};
        _cleanup_free_ pid_t *pids = NULL;
        pid_t pid;
        size_t n;

        refuse_call(SYS_clone3, ENOSYS);
        EXPECT_EQ(cgroup_open(&cgroup), 0);
        EXPECT(cgroup->must_move && !cgroup->inside);
        EXPECT_EQ(cgroup_leave(cgroup), 0); /* we never were there */
        EXPECT_EQ(cgroup_enter(cgroup), 0);
        EXPECT(cgroup->inside && is_in_workers(getpid()));

        /* As after execve() in place. */
        cgroup = cgroup_free(cgroup);
        EXPECT_EQ(cgroup_open(&cgroup), 0);
        EXPECT_EQ(cgroup_enter(cgroup), 0);
        EXPECT(is_in_workers(getpid()));

        EXPECT_EQ(cgroup_list(cgroup->workers_fd, &pids, &n), 0);
        EXPECT_EQ(n, 0);
        free(TAKE_PTR(pids));
        EXPECT_EQ(cgroup_signal(cgroup->workers_fd, SIGKILL, &done), 0);
        pid = service_sleeper(-EBADF);
        EXPECT(is_in_workers(pid));
        EXPECT_EQ(cgroup_list(cgroup->workers_fd, &pids, &n), 0);
        EXPECT(n == 1 && pids[0] == pid);
        EXPECT_EQ(cgroup_signal(cgroup->workers_fd, SIGKILL, &done), 1);
        EXPECT_EQ(waitpid(pid, NULL, 0), pid);

        EXPECT_EQ(cgroup_is_populated(cgroup->workers_fd), 1);
        EXPECT_EQ(cgroup_leave(cgroup), 0);
        EXPECT(!cgroup->inside && !is_in_workers(getpid()));
        EXPECT_EQ(cgroup_is_populated(cgroup->workers_fd), 0);
        cgroup = cgroup_free(cgroup);
}

static void check_outside(const char *path, const void *argument) {
        _cleanup_(cgroup_freep) Cgroup *cgroup = NULL;

        EXPECT_EQ(cgroup_open(&cgroup), 0);
        EXPECT_EQ(cgroup_enter(cgroup), 0);
        EXPECT_EQ(is_in_workers(getpid()), cgroup->must_move);
}

static void inside(void) {
        run_in_service("blog.service", check_inside, NULL);
        run_in_service("blog.service", check_outside, NULL);
}

TEST_MAIN(TEST(service_of_path), TEST(opens), TEST(not_a_service), TEST(delegation), TEST(lists), TEST(threaded),
          TEST(not_under_valgrind), TEST(many), TEST(deep), TEST(shut), TEST(removed), TEST(signals), TEST(spoilt),
          TEST(inside))
