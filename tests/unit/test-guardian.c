/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* No worker outlives the leash, and none is touched before. The guardian is this program, called as fcgi-pool
 * calls itself; workers are shells and forks in a real cgroup. */

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#include "guardian.h"
#include "refuse-call.h"
#include "spawn.h"
#include "test-cgroup.h"

#define LONG_USEC (600 * USEC_PER_SEC)
#define SHORT_USEC (200 * USEC_PER_MSEC)

int run_tests(int argc, char **argv);

typedef struct Fixture {
        Cgroup *cgroup;
        int leash_fd, pidfd;
        int log_fd; /* what the guardian writes */
        uint64_t begin_usec;
} Fixture;

static uint64_t now_usec(void) {
        struct timespec ts;

        EXPECT_EQ(clock_gettime(CLOCK_MONOTONIC, &ts), 0);
        return (uint64_t) ts.tv_sec * USEC_PER_SEC + (uint64_t) ts.tv_nsec / 1000;
}

/* A guardian whose stderr is ours to read. */
static void guard(Fixture *f, int stop_signal, uint64_t stop_timeout_usec) {
        const GuardianSettings settings = { .stop_signal = stop_signal, .stop_timeout_usec = stop_timeout_usec };
        int saved_fd;

        EXPECT((f->log_fd = memfd_create("log", MFD_CLOEXEC)) >= 0);
        EXPECT((saved_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3)) >= 0);
        EXPECT_EQ(dup2(f->log_fd, STDERR_FILENO), STDERR_FILENO);
        f->leash_fd = f->pidfd = -EBADF;
        EXPECT_EQ(guardian_start(f->cgroup, "blog", &settings, &f->leash_fd, &f->pidfd), 0);
        EXPECT_EQ(dup2(saved_fd, STDERR_FILENO), STDERR_FILENO);
        (void) close(saved_fd);

        EXPECT(fcntl(f->leash_fd, F_GETFD) & FD_CLOEXEC);
        EXPECT(fcntl(f->leash_fd, F_GETFL) & O_NONBLOCK);
        EXPECT(fcntl(f->pidfd, F_GETFD) & FD_CLOEXEC);
        EXPECT_EQ(guardian_is_alive(f->leash_fd), 1);
}

static void begin(Fixture *f, int stop_signal, uint64_t stop_timeout_usec) {
        *f = (Fixture) {};
        (void) signal(SIGPIPE, SIG_IGN);
        EXPECT_EQ(cgroup_open(&f->cgroup), 0);
        guard(f, stop_signal, stop_timeout_usec);
}

static void let_go(Fixture *f) {
        f->begin_usec = now_usec();
        (void) close(f->leash_fd);
}

/* Waits for the guardian's end; it must be the expected one. */
static void expect_end(Fixture *f, int code, int status) {
        struct pollfd p = { .fd = f->pidfd, .events = POLLIN };
        siginfo_t si = {};

        EXPECT_EQ(poll(&p, 1, 60000), 1);
        EXPECT_EQ(waitid(P_PIDFD, (id_t) f->pidfd, &si, WEXITED), 0);
        EXPECT_EQ(si.si_code, code);
        EXPECT_EQ(si.si_status, status);
        EXPECT_EQ(cgroup_is_populated(f->cgroup->guardian_fd), 0);
}

static char *read_log(const Fixture *f) {
        char *text;

        EXPECT(text = calloc(1, 65536));
        EXPECT(pread(f->log_fd, text, 65535, 0) >= 0);
        return text;
}

/* The guardian's lines, in order; the last one is the last. */
static void expect_log(const Fixture *f, const char *first, const char *second) {
        _cleanup_free_ char *text = read_log(f);
        const char *p = text;

        if (first && !(p = strstr(p, first)))
                fprintf(stderr, "expected \"%s\" in:\n%s", first, text);
        EXPECT(p);
        if (second && !(p = strstr(p, second)))
                fprintf(stderr, "expected \"%s\" in:\n%s", second, text);
        EXPECT(p);
        if (!first && !second)
                EXPECT_STREQ(text, "");
}

/* All that was written has been read, and all but the last command obeyed. */
static void settle(int leash_fd) {
        int n = 1;

        while (n > 0) {
                EXPECT_EQ(guardian_is_alive(leash_fd), 1);
                EXPECT_EQ(ioctl(leash_fd, FIONREAD, &n), 0);
        }
}

/* Runs script as a worker and waits until it has said a word. */
static pid_t shell(const Fixture *f, const char *script) {
        char *argv[] = { (char *) "sh", (char *) "-c", (char *) script, NULL };
        int fds[2], pidfd, exec_fd;
        struct pollfd p;
        pid_t pid;

        EXPECT_EQ(pipe2(fds, O_CLOEXEC), 0);
        EXPECT_EQ(spawn_worker(&(SpawnRequest) {
                .executable = "/bin/sh",
                .argv = argv,
                .environment = environ,
                .listener_fd = STDIN_FILENO,
                .output_fd = fds[1],
                .cgroup_fd = f->cgroup->workers_fd,
        }, &pid, &pidfd, &exec_fd), 0);
        (void) close(fds[1]);
        p = (struct pollfd) { .fd = fds[0], .events = POLLIN };
        EXPECT_EQ(poll(&p, 1, 30000), 1);
        EXPECT(p.revents & POLLIN);
        (void) close(fds[0]);
        (void) close(exec_fd);
        (void) close(pidfd);
        return pid;
}

#define OBEYS "echo; exec sleep 1000"
#define IGNORES "trap '' TERM USR1; echo; while :; do sleep 1000; done"

static void expect_signal(pid_t pid, int signo) {
        int status;

        EXPECT_EQ(waitpid(pid, &status, 0), pid);
        EXPECT(WIFSIGNALED(status));
        EXPECT_EQ(WTERMSIG(status), signo);
}

static size_t count_workers(const Fixture *f) {
        _cleanup_free_ pid_t *pids = NULL;
        size_t n;

        EXPECT_EQ(cgroup_list(f->cgroup->workers_fd, &pids, &n), 0);
        return n;
}

static void check_obedient(const char *path, const void *argument) {
        pid_t pids[50];
        Fixture f;

        begin(&f, SIGUSR1, LONG_USEC);
        for (size_t i = 0; i < ELEMENTSOF(pids); i++)
                pids[i] = shell(&f, OBEYS);
        let_go(&f);
        expect_end(&f, CLD_EXITED, EXIT_SUCCESS);
        EXPECT_EQ(count_workers(&f), 0);
        for (size_t i = 0; i < ELEMENTSOF(pids); i++)
                expect_signal(pids[i], SIGUSR1);
        expect_log(&f, "50 processes of its pool are left: stopping them with signal 10, SIGKILL after 10min\n",
                   "the pool's processes have ended\n");
}

static void obedient(void) {
        run_in_service("blog.service", check_obedient, NULL);
}

static volatile sig_atomic_t n_signals;

static void on_signal(int signo) {
        n_signals++;
}

/* After the first signal it takes 400 ms to end, and its status is how many there were. */
static _noreturn_ void take_time(int cgroup_fd, int ready_fd) {
        uint64_t end_usec;
        sigset_t none, term;
        int fd;

        EXPECT_EQ(sigemptyset(&none), 0);
        EXPECT_EQ(sigemptyset(&term), 0);
        EXPECT_EQ(sigaddset(&term, SIGTERM), 0);
        EXPECT_EQ(sigprocmask(SIG_BLOCK, &term, NULL), 0);
        EXPECT(signal(SIGTERM, on_signal) != SIG_ERR);
        EXPECT((fd = openat(cgroup_fd, "cgroup.procs", O_WRONLY | O_CLOEXEC)) >= 0);
        EXPECT_EQ(write(fd, "0", 1), 1);
        EXPECT_EQ(write(ready_fd, "", 1), 1);

        (void) ppoll(NULL, 0, NULL, &none);
        EXPECT_EQ(sigprocmask(SIG_SETMASK, &none, NULL), 0);
        end_usec = now_usec() + 400 * USEC_PER_MSEC;
        while (now_usec() < end_usec)
                (void) poll(NULL, 0, 10);
        _exit((int) n_signals);
}

/* A program that takes its time gets it, and no second signal. */
static void check_graceful(const char *path, const void *argument) {
        int ready_fds[2], status;
        pid_t pid;
        Fixture f;
        char c;

        begin(&f, SIGTERM, LONG_USEC);
        EXPECT_EQ(pipe2(ready_fds, O_CLOEXEC), 0);
        EXPECT((pid = fork()) >= 0);
        if (pid == 0) {
                (void) close(f.leash_fd);
                take_time(f.cgroup->workers_fd, ready_fds[1]);
        }
        EXPECT_EQ(read(ready_fds[0], &c, 1), 1);
        let_go(&f);
        expect_end(&f, CLD_EXITED, EXIT_SUCCESS);
        EXPECT(now_usec() - f.begin_usec >= 400 * USEC_PER_MSEC);
        EXPECT_EQ(waitpid(pid, &status, 0), pid);
        EXPECT(WIFEXITED(status));
        EXPECT_EQ(WEXITSTATUS(status), 1);
}

static void graceful(void) {
        run_in_service("blog.service", check_graceful, NULL);
}

static void check_stubborn(const char *path, const void *argument) {
        pid_t stubborn, obedient_one;
        Fixture f;

        begin(&f, SIGTERM, SHORT_USEC);
        stubborn = shell(&f, IGNORES); /* and its sleep */
        obedient_one = shell(&f, OBEYS);
        let_go(&f);
        expect_end(&f, CLD_EXITED, EXIT_SUCCESS);
        EXPECT(now_usec() - f.begin_usec >= SHORT_USEC);
        EXPECT_EQ(count_workers(&f), 0);
        expect_signal(stubborn, SIGKILL);
        expect_signal(obedient_one, SIGTERM);
        expect_log(&f, "processes of its pool are left: stopping them with signal 15, SIGKILL after 200ms\n",
                   "of them by SIGKILL\n");
}

static void stubborn(void) {
        run_in_service("blog.service", check_stubborn, NULL);
}

static void stop_and_wait(pid_t pid) {
        int status;

        EXPECT_EQ(kill(pid, SIGSTOP), 0);
        EXPECT_EQ(waitpid(pid, &status, WUNTRACED), pid);
        EXPECT(WIFSTOPPED(status));
}

static void check_stopped(const char *path, const void *argument) {
        pid_t pid;
        Fixture f;

        begin(&f, SIGTERM, LONG_USEC);
        pid = shell(&f, OBEYS);
        stop_and_wait(pid);
        let_go(&f);
        expect_end(&f, CLD_EXITED, EXIT_SUCCESS);
        expect_signal(pid, SIGTERM);
}

static void stopped(void) {
        run_in_service("blog.service", check_stopped, NULL);
}

static void check_frozen(const char *path, const void *argument) {
        char name[PATH_MAX];
        pid_t pid;
        Fixture f;

        begin(&f, SIGTERM, SHORT_USEC);
        pid = shell(&f, IGNORES);
        snprintf(name, sizeof(name), "%s/workers", path);
        service_write(name, "cgroup.freeze", "1");
        let_go(&f);
        expect_end(&f, CLD_EXITED, EXIT_SUCCESS);
        expect_signal(pid, SIGKILL);
}

static void frozen(void) {
        run_in_service("blog.service", check_frozen, NULL);
}

/* Forks and ends, forks and ends: always alive, never the same pid, deaf to signals, a session of its own. */
static _noreturn_ void comet(void) {
        for (;;) {
                pid_t pid = fork();

                if (pid > 0)
                        _exit(EXIT_SUCCESS);
                (void) setsid();
        }
}

static void check_comets(const char *path, const void *argument) {
        int fd, ready_fds[2];
        char c = 0;
        Fixture f;

        begin(&f, SIGTERM, SHORT_USEC);
        EXPECT_EQ(pipe2(ready_fds, O_CLOEXEC), 0);
        for (int i = 0; i < 8; i++) {
                pid_t pid;

                EXPECT((pid = fork()) >= 0);
                if (pid > 0)
                        continue;
                for (int signo = 1; signo < NSIG; signo++)
                        (void) signal(signo, SIG_IGN);
                EXPECT((fd = openat(f.cgroup->workers_fd, "cgroup.procs", O_WRONLY | O_CLOEXEC)) >= 0);
                EXPECT_EQ(write(fd, "0", 1), 1);
                (void) close(fd);
                (void) close(f.leash_fd);
                EXPECT_EQ(write(ready_fds[1], &c, 1), 1);
                comet();
        }
        for (int i = 0; i < 8; i++)
                EXPECT_EQ(read(ready_fds[0], &c, 1), 1);

        let_go(&f);
        expect_end(&f, CLD_EXITED, EXIT_SUCCESS);
        EXPECT_EQ(cgroup_is_populated(f.cgroup->workers_fd), 0);
        expect_log(&f, "are left", "SIGKILL\n");
}

static void comets(void) {
        run_in_service("blog.service", check_comets, NULL);
}

/* Orphaned grandchildren in sessions of their own that would obey are asked like all others. */
static void check_grandchildren(const char *path, const void *argument) {
        Fixture f;

        begin(&f, SIGTERM, LONG_USEC);
        (void) shell(&f, "for i in 1 2 3 4 5 6 7 8; do setsid sleep 1000 & done; echo; exec sleep 1000");
        EXPECT(count_workers(&f) >= 9);
        let_go(&f);
        expect_end(&f, CLD_EXITED, EXIT_SUCCESS);
        EXPECT_EQ(cgroup_is_populated(f.cgroup->workers_fd), 0);
        expect_log(&f, "are left", "have ended\n");
}

static void grandchildren(void) {
        run_in_service("blog.service", check_grandchildren, NULL);
}

static void check_nobody(const char *path, const void *argument) {
        Fixture f;

        begin(&f, SIGTERM, LONG_USEC);
        let_go(&f);
        expect_end(&f, CLD_EXITED, EXIT_SUCCESS);
        expect_log(&f, NULL, NULL);
}

static void nobody(void) {
        run_in_service("blog.service", check_nobody, NULL);
}

static void check_vanished(const char *path, const void *argument) {
        char name[PATH_MAX];
        Fixture f;

        begin(&f, SIGTERM, LONG_USEC);
        snprintf(name, sizeof(name), "%s/workers", path);
        EXPECT_EQ(rmdir(name), 0);
        let_go(&f);
        expect_end(&f, CLD_EXITED, EXIT_SUCCESS);
        expect_log(&f, NULL, NULL);
}

static void vanished(void) {
        run_in_service("blog.service", check_vanished, NULL);
}

static void check_dismissed(const char *path, const void *argument) {
        pid_t pid;
        Fixture f;

        begin(&f, SIGTERM, 0);
        pid = shell(&f, OBEYS);
        EXPECT_EQ(guardian_dismiss(f.leash_fd), 0);
        let_go(&f);
        expect_end(&f, CLD_EXITED, EXIT_SUCCESS);
        EXPECT_EQ(waitpid(pid, NULL, WNOHANG), 0);
        EXPECT_EQ(count_workers(&f), 1);
        expect_log(&f, NULL, NULL);
}

static void dismissed(void) {
        run_in_service("blog.service", check_dismissed, NULL);
}

/* What is no command of ours is passed over, whatever its length; nonsense in one changes nothing. */
static void check_configured(const char *path, const void *argument) {
        const GuardianSettings usr1 = { .stop_signal = SIGUSR1, .stop_timeout_usec = SHORT_USEC };
        const GuardianSettings nonsense = { .stop_signal = 0, .stop_timeout_usec = LONG_USEC };
        const char rubbish[200] = "rubbish";
        pid_t pid, deaf;
        Fixture f;

        begin(&f, SIGTERM, LONG_USEC);
        pid = shell(&f, "trap '' TERM; " OBEYS);
        deaf = shell(&f, IGNORES);
        EXPECT_EQ(write(f.leash_fd, rubbish, 5), 5);
        EXPECT_EQ(guardian_configure(f.leash_fd, &usr1), 0);
        EXPECT_EQ(write(f.leash_fd, rubbish, sizeof(rubbish)), sizeof(rubbish));
        EXPECT_EQ(guardian_configure(f.leash_fd, &nonsense), 0);
        let_go(&f);
        expect_end(&f, CLD_EXITED, EXIT_SUCCESS);
        EXPECT(now_usec() - f.begin_usec < LONG_USEC);
        expect_signal(pid, SIGUSR1);
        expect_signal(deaf, SIGKILL);
        expect_log(&f, "with signal 10, SIGKILL after 200ms\n", "by SIGKILL\n");
}

static void configured(void) {
        run_in_service("blog.service", check_configured, NULL);
}

/* Any number of commands over time; a guardian that cannot read does not block us. */
static void check_never_full(const char *path, const void *argument) {
        const GuardianSettings settings = { .stop_signal = SIGTERM, .stop_timeout_usec = SHORT_USEC };
        unsigned n = 0;
        Fixture f;
        int r;

        begin(&f, SIGTERM, LONG_USEC);
        for (unsigned i = 0; i < 1000; i++) {
                EXPECT_EQ(guardian_configure(f.leash_fd, &settings), 0);
                settle(f.leash_fd);
        }
        EXPECT_EQ(syscall(SYS_pidfd_send_signal, f.pidfd, SIGSTOP, NULL, 0), 0);
        do
                r = guardian_configure(f.leash_fd, &settings);
        while (r == 0 && n++ < 100000);
        EXPECT_EQ(r, -EAGAIN);
        EXPECT(n >= 16);
        EXPECT_EQ(syscall(SYS_pidfd_send_signal, f.pidfd, SIGCONT, NULL, 0), 0);
        settle(f.leash_fd);
        EXPECT_EQ(guardian_configure(f.leash_fd, &settings), 0);
        EXPECT_EQ(guardian_dismiss(f.leash_fd), 0);
        expect_end(&f, CLD_EXITED, EXIT_SUCCESS);
}

static void never_full(void) {
        run_in_service("blog.service", check_never_full, NULL);
}

/* The helper and PID 1: one of them is enough. */
static void check_two_holders(const char *path, const void *argument) {
        const GuardianSettings settings = { .stop_signal = SIGTERM, .stop_timeout_usec = LONG_USEC };
        int second_fd, sync_fds[2];
        pid_t holder, worker;
        Fixture f;
        char c;

        begin(&f, SIGTERM, LONG_USEC);
        worker = shell(&f, OBEYS);
        EXPECT_EQ(pipe2(sync_fds, O_CLOEXEC), 0);
        EXPECT((holder = fork()) >= 0);
        if (holder == 0) {
                (void) close(sync_fds[1]);
                EXPECT_EQ(read(sync_fds[0], &c, 1), 0);
                _exit(EXIT_SUCCESS);
        }
        EXPECT((second_fd = fcntl(f.leash_fd, F_DUPFD_CLOEXEC, 3)) >= 0);
        (void) close(f.leash_fd);
        EXPECT_EQ(guardian_configure(second_fd, &settings), 0);
        settle(second_fd);

        (void) close(sync_fds[1]); /* the other process goes */
        EXPECT_EQ(waitpid(holder, NULL, 0), holder);
        EXPECT_EQ(guardian_configure(second_fd, &settings), 0);
        settle(second_fd);
        EXPECT_EQ(waitpid(worker, NULL, WNOHANG), 0);

        (void) close(second_fd);
        expect_end(&f, CLD_EXITED, EXIT_SUCCESS);
        expect_signal(worker, SIGTERM);
}

static void two_holders(void) {
        run_in_service("blog.service", check_two_holders, NULL);
}

/* A helper that executes itself anew and takes the leash along, as in re-exec. */
static void check_reexecuted(const char *path, const void *argument) {
        const GuardianSettings settings = { .stop_signal = SIGTERM, .stop_timeout_usec = LONG_USEC };
        int out_fds[2], pidfd;
        pid_t helper, worker;
        Fixture f;
        char c;

        begin(&f, SIGTERM, LONG_USEC);
        worker = shell(&f, OBEYS);
        EXPECT_EQ(pipe2(out_fds, O_CLOEXEC), 0);
        EXPECT((helper = fork()) >= 0);
        if (helper == 0) {
                EXPECT_EQ(fcntl(f.leash_fd, F_SETFD, 0), 0);
                EXPECT_EQ(dup2(out_fds[1], STDOUT_FILENO), STDOUT_FILENO);
                (void) execl("/bin/sh", "sh", "-c", "echo; exec sleep 1000", NULL);
                _exit(EXIT_FAILURE);
        }
        EXPECT_EQ(read(out_fds[0], &c, 1), 1);
        EXPECT_EQ(guardian_configure(f.leash_fd, &settings), 0);
        settle(f.leash_fd);
        (void) close(f.leash_fd); /* only the helper has it now */
        EXPECT((pidfd = (int) syscall(SYS_pidfd_open, helper, 0)) >= 0);
        EXPECT_EQ(poll(&(struct pollfd) { .fd = f.pidfd, .events = POLLIN }, 1, 100), 0);
        EXPECT_EQ(waitpid(worker, NULL, WNOHANG), 0);

        EXPECT_EQ(syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0), 0);
        expect_end(&f, CLD_EXITED, EXIT_SUCCESS);
        expect_signal(worker, SIGTERM);
}

static void reexecuted(void) {
        run_in_service("blog.service", check_reexecuted, NULL);
}

/* From the first moment on: signals are sent while it is still being executed. */
static void check_signals_ignored(const char *path, const void *argument) {
        const GuardianSettings settings = { .stop_signal = SIGTERM, .stop_timeout_usec = LONG_USEC };
        pid_t worker;
        Fixture f;

        for (int i = 0; i < 20; i++) {
                begin(&f, SIGTERM, LONG_USEC);
                for (int signo = 1; signo < NSIG; signo++)
                        if (signo != SIGKILL && signo != SIGSTOP && signo != 32 && signo != 33) /* the C library's */
                                (void) syscall(SYS_pidfd_send_signal, f.pidfd, signo, NULL, 0);
                EXPECT_EQ(guardian_configure(f.leash_fd, &settings), 0);
                settle(f.leash_fd);
                EXPECT_EQ(guardian_is_alive(f.leash_fd), 1);
                worker = shell(&f, OBEYS);
                let_go(&f);
                expect_end(&f, CLD_EXITED, EXIT_SUCCESS);
                expect_signal(worker, SIGTERM);
                cgroup_free(f.cgroup);
        }
}

static void signals_ignored(void) {
        run_in_service("blog.service", check_signals_ignored, NULL);
}

static void check_killed(const char *path, const void *argument) {
        const GuardianSettings settings = { .stop_signal = SIGTERM, .stop_timeout_usec = LONG_USEC };
        struct pollfd p = {};
        pid_t worker;
        Fixture f;

        begin(&f, SIGTERM, LONG_USEC);
        worker = shell(&f, OBEYS);
        EXPECT_EQ(syscall(SYS_pidfd_send_signal, f.pidfd, SIGKILL, NULL, 0), 0);
        p.fd = f.leash_fd;
        EXPECT_EQ(poll(&p, 1, 30000), 1);
        EXPECT_EQ(p.revents, POLLERR);
        EXPECT_EQ(guardian_is_alive(f.leash_fd), 0);
        EXPECT_EQ(guardian_configure(f.leash_fd, &settings), -EPIPE);
        EXPECT_EQ(guardian_dismiss(f.leash_fd), -EPIPE);
        expect_end(&f, CLD_KILLED, SIGKILL);
        let_go(&f);
        EXPECT_EQ(guardian_is_alive(f.leash_fd), -EBADF);

        guard(&f, SIGTERM, LONG_USEC); /* the next one */
        EXPECT_EQ(waitpid(worker, NULL, WNOHANG), 0);
        let_go(&f);
        expect_end(&f, CLD_EXITED, EXIT_SUCCESS);
        expect_signal(worker, SIGTERM);
}

static void killed(void) {
        run_in_service("blog.service", check_killed, NULL);
}

/* The unit is started again while the guardian of its last life is still at work: the new one's workers live. */
static void check_replaced(const char *path, const void *argument) {
        pid_t old_worker, worker;
        Fixture f, old;
        char text[16];

        begin(&f, SIGTERM, 2 * USEC_PER_SEC);
        old_worker = shell(&f, IGNORES);
        old = f;
        let_go(&old);
        do /* its first line is written: it waits for the deadline */
                EXPECT(pread(old.log_fd, text, sizeof(text), 0) >= 0);
        while (lseek(old.log_fd, 0, SEEK_END) == 0);

        guard(&f, SIGTERM, LONG_USEC);
        worker = shell(&f, OBEYS);
        (void) close(old.pidfd);
        EXPECT_EQ(poll(NULL, 0, 3000), 0); /* nothing happens, which only time can show */
        EXPECT_EQ(waitpid(worker, NULL, WNOHANG), 0);
        EXPECT_EQ(waitpid(old_worker, NULL, WNOHANG), 0);
        EXPECT_EQ(guardian_is_alive(f.leash_fd), 1);
}

static void replaced(void) {
        run_in_service("blog.service", check_replaced, NULL);
}

/* execve(2) fails: the leash says so, later. */
static void check_not_executed(const char *path, const void *argument) {
        const GuardianSettings settings = { .stop_signal = SIGTERM, .stop_timeout_usec = LONG_USEC };
        struct pollfd p = {};
        Fixture f = {};

        EXPECT_EQ(cgroup_open(&f.cgroup), 0);
        refuse_call(SYS_execve, EACCES);
        EXPECT_EQ(guardian_start(f.cgroup, "blog", &settings, &f.leash_fd, &f.pidfd), 0);
        p.fd = f.leash_fd;
        EXPECT_EQ(poll(&p, 1, 30000), 1);
        EXPECT_EQ(p.revents, POLLERR);
        EXPECT_EQ(guardian_is_alive(f.leash_fd), 0);
        expect_end(&f, CLD_EXITED, 203);
}

static void not_executed(void) {
        run_in_service("blog.service", check_not_executed, NULL);
}

/* It has four descriptors, all signals blocked, a name, no thread, and it does not run while nothing happens. */
static void check_footprint(const char *path, const void *argument) {
        static const int signals[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGTSTP, SIGPIPE, SIGALRM };
        char name[64], text[4096], line[256], *p;
        _cleanup_free_ char *cgroup_path = NULL;
        unsigned n_fds = 0;
        struct dirent *de;
        Fixture f;
        pid_t *pids;
        ssize_t length;
        size_t n;
        FILE *file;
        DIR *d;
        int fd;

        EXPECT((fd = open("/dev/null", O_RDONLY)) >= 0); /* not close-on-exec */
        begin(&f, SIGTERM, LONG_USEC);
        EXPECT_EQ(guardian_configure(f.leash_fd, &(GuardianSettings) { .stop_signal = SIGTERM }), 0);
        settle(f.leash_fd);
        EXPECT_EQ(cgroup_list(f.cgroup->guardian_fd, &pids, &n), 0);
        EXPECT_EQ(n, 1);

        snprintf(name, sizeof(name), "/proc/%d/status", (int) pids[0]);
        do { /* until it sleeps: what has been read may not be obeyed yet */
                EXPECT((fd = open(name, O_RDONLY | O_CLOEXEC)) >= 0);
                EXPECT((length = read(fd, text, sizeof(text) - 1)) > 0);
                text[length] = '\0';
                (void) close(fd);
        } while (!strstr(text, "\nState:\tS"));

        snprintf(name, sizeof(name), "/proc/%d/fd", (int) pids[0]);
        EXPECT(d = opendir(name));
        while ((de = readdir(d)))
                n_fds += de->d_name[0] != '.';
        (void) closedir(d);
        EXPECT_EQ(n_fds, 4);

        EXPECT(startswith(text, "Name:\tfcgi-pool-guard\n"));
        EXPECT(strstr(text, "\nThreads:\t1\n"));
        EXPECT(p = strstr(text, "\nSigBlk:\t"));
        for (size_t i = 0; i < ELEMENTSOF(signals); i++)
                EXPECT(strtoull(p + strlen("\nSigBlk:\t"), NULL, 16) & UINT64_C(1) << (signals[i] - 1));
        cgroup_path = service_path_of(pids[0]);
        EXPECT_STREQ(strrchr(cgroup_path, '/'), "/guardian");

        snprintf(name, sizeof(name), "/proc/%d/smaps_rollup", (int) pids[0]);
        EXPECT(file = fopen(name, "re"));
        while (fgets(line, sizeof(line), file))
                if (startswith(line, "Rss:") || startswith(line, "Private_Dirty:"))
                        fputs(line, stderr);
        (void) fclose(file);
        free(pids);
}

static void footprint(void) {
        run_in_service("blog.service", check_footprint, NULL);
}

static void expect_refused(const char *const *argv) {
        int argc = 0;

        while (argv[argc])
                argc++;
        EXPECT_EQ(guardian_run(argc, (char **) argv), 2);
}

/* Called by hand or with nonsense it ends at once. In a child, because it blocks all signals. */
static void check_arguments(void) {
        int fds[2];

        expect_refused((const char *const []) { GUARDIAN_NAME, "/x", "15", "0", "blog", "1", NULL }); /* fd 0 is no pipe */
        EXPECT_EQ(pipe2(fds, O_CLOEXEC), 0);
        EXPECT_EQ(dup2(fds[0], STDIN_FILENO), STDIN_FILENO);
        expect_refused((const char *const []) { GUARDIAN_NAME, NULL });
        expect_refused((const char *const []) { GUARDIAN_NAME, "/x", "15", "0", "blog", NULL });
        expect_refused((const char *const []) { GUARDIAN_NAME, "/x", "15", "0", "blog", "0", NULL });
        expect_refused((const char *const []) { GUARDIAN_NAME, "/x", "0", "0", "blog", "1", NULL });
        expect_refused((const char *const []) { GUARDIAN_NAME, "/x", "65", "0", "blog", "1", NULL });
        expect_refused((const char *const []) { GUARDIAN_NAME, "/x", "4294967311", "0", "blog", "1", NULL });
        expect_refused((const char *const []) { GUARDIAN_NAME, "/x", "15x", "0", "blog", "1", NULL });
        expect_refused((const char *const []) { GUARDIAN_NAME, "/x", "15", "", "blog", "1", NULL });
        (void) close(fds[1]);
        EXPECT_EQ(guardian_run(6, (char **) (const char *const []) { GUARDIAN_NAME, "/nonexistent", "15",
                                                                    "18446744073709551615", "blog", "1", NULL }), 0);
}

static void arguments(void) {
        int status, null_fd;
        pid_t pid;

        EXPECT((pid = fork()) >= 0);
        if (pid == 0) {
                EXPECT((null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0);
                EXPECT_EQ(dup2(null_fd, STDIN_FILENO), STDIN_FILENO);
                check_arguments();
                _exit(EXIT_SUCCESS);
        }
        EXPECT_EQ(waitpid(pid, &status, 0), pid);
        EXPECT_EQ(status, 0);
}

#define main run_tests
TEST_MAIN(TEST(arguments), TEST(not_under_valgrind), TEST(obedient), TEST(graceful), TEST(stubborn), TEST(stopped),
          TEST(frozen), TEST(comets), TEST(grandchildren), TEST(nobody), TEST(vanished), TEST(dismissed),
          TEST(configured), TEST(never_full), TEST(two_holders), TEST(reexecuted), TEST(signals_ignored),
          TEST(killed), TEST(replaced), TEST(not_executed), TEST(footprint))
#undef main

int main(int argc, char **argv) {
        if (argc > 0 && streq(argv[0], GUARDIAN_NAME))
                return guardian_run(argc, argv);

        return run_tests(argc, argv);
}
