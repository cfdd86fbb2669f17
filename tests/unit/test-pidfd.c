/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Real processes, children and others: how they ended is known whoever has reaped them, and /proc is understood
 * whatever a process calls itself. What an old kernel says is said by a seccomp filter. */

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "pidfd.h"
#include "refuse-call.h"
#include "test.h"

/* valgrind 3.19 does not know pidfd_open(2). */
static void need_pidfds(void) {
        _cleanup_close_ int fd = pidfd_open(getpid(), 0);

        if (fd < 0)
                SKIP("no pidfd_open(2) here (%s): everything about pidfds", strerror(errno));
}

/* What becomes of a process when it is told to go on. */
typedef void (*Fate)(int argument);

static _noreturn_ void fate_exit(int status) {
        _exit(status);
}

static _noreturn_ void fate_signal(int signo) {
        (void) signal(signo, SIG_DFL);
        (void) raise(signo);
        _exit(99);
}

typedef struct Process {
        pid_t pid;
        int pidfd;
        int go; /* closed: it meets its fate */
} Process;

static pid_t fork_to_fate(const int go[static 2], Fate fate, int argument) {
        pid_t pid;
        char byte;

        EXPECT((pid = fork()) >= 0);
        if (pid == 0) {
                (void) close(go[1]);
                while (read(go[0], &byte, 1) > 0)
                        ;
                fate(argument);
                _exit(98);
        }
        return pid;
}

static Process start(Fate fate, int argument) {
        Process p;
        int go[2];

        EXPECT_EQ(pipe2(go, O_CLOEXEC), 0);
        p = (Process) { .pid = fork_to_fate(go, fate, argument), .go = go[1] };
        EXPECT_EQ(close(go[0]), 0);
        EXPECT((p.pidfd = pidfd_open(p.pid, 0)) >= 0 || errno == ENOSYS);
        return p;
}

/* A process that is somebody else's: its parent has ended, and the reaper, whose child it is now, ends when it has
 * reaped all it has. */
static Process start_orphan(Fate fate, int argument, pid_t *ret_reaper) {
        int go[2], pids[2];
        Process p = {};
        siginfo_t si;
        pid_t pid;

        EXPECT_EQ(pipe2(go, O_CLOEXEC), 0);
        EXPECT_EQ(pipe2(pids, O_CLOEXEC), 0);
        EXPECT((*ret_reaper = fork()) >= 0);
        if (*ret_reaper == 0) {
                EXPECT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1UL, 0UL, 0UL, 0UL), 0);
                EXPECT((pid = fork()) >= 0);
                if (pid == 0) {
                        pid = fork_to_fate(go, fate, argument);
                        EXPECT_EQ(write(pids[1], &pid, sizeof(pid)), sizeof(pid));
                        _exit(0);
                }
                EXPECT_EQ(close(go[1]), 0);
                EXPECT_EQ(waitid(P_PID, (id_t) pid, &si, WEXITED), 0);
                EXPECT_EQ(write(pids[1], "", 1), 1);
                while (waitid(P_ALL, 0, &si, WEXITED) >= 0)
                        ;
                _exit(0);
        }
        EXPECT_EQ(read(pids[0], &p.pid, sizeof(p.pid)), sizeof(p.pid));
        EXPECT_EQ(read(pids[0], &(char) { 0 }, 1), 1); /* the parent has gone */
        p.go = go[1];
        EXPECT_EQ(close(go[0]), 0);
        EXPECT_EQ(close(pids[0]), 0);
        EXPECT_EQ(close(pids[1]), 0);
        EXPECT((p.pidfd = pidfd_open(p.pid, 0)) >= 0);
        return p;
}

static void release(Process *p) {
        p->go = safe_close(p->go);
}

static void wait_for_end(int pidfd) {
        struct pollfd pollfd = { .fd = pidfd, .events = POLLIN };

        EXPECT_EQ(poll(&pollfd, 1, 10000), 1);
}

static void wait_for_zombie(pid_t pid) {
        siginfo_t si;

        EXPECT_EQ(waitid(P_PID, (id_t) pid, &si, WEXITED | WNOWAIT), 0);
}

static void reap(pid_t pid) {
        siginfo_t si;

        EXPECT_EQ(waitid(P_PID, (id_t) pid, &si, WEXITED), 0);
}

/* Needs Linux 6.15. */
static bool kernel_tells(void) {
        Process p = start(fate_exit, 0);
        Death death;
        int r;

        release(&p);
        reap(p.pid);
        r = pidfd_get_death(p.pidfd, &death);
        EXPECT(r == 0 || r == -EOPNOTSUPP);
        (void) safe_close(p.pidfd);
        if (r < 0)
                fprintf(stderr, "(this kernel does not tell, only the refusal is tested)\n");
        return r == 0;
}

static void expect_death(Fate fate, int argument, int code, int status) {
        Process p = start(fate, argument);
        bool tells = kernel_tells();
        Death death;

        if (tells)
                EXPECT_EQ(pidfd_get_death(p.pidfd, &death), -EAGAIN);
        release(&p);
        wait_for_end(p.pidfd);
        if (tells)
                EXPECT_EQ(pidfd_get_death(p.pidfd, &death), -EAGAIN); /* a zombie */
        reap(p.pid);
        for (int i = 0; i < 2; i++) {
                death = (Death) {};
                EXPECT_EQ(pidfd_get_death(p.pidfd, &death), tells ? 0 : -EOPNOTSUPP);
                EXPECT_EQ(death.known, tells);
                if (tells) {
                        EXPECT_EQ(death.code, code);
                        EXPECT_EQ(death.status, status);
                }
        }
        (void) safe_close(p.pidfd);
}

static void test_own_children(void) {
        struct rlimit limit;

        need_pidfds();
        EXPECT_EQ(getrlimit(RLIMIT_CORE, &limit), 0);
        limit.rlim_cur = 0;
        EXPECT_EQ(setrlimit(RLIMIT_CORE, &limit), 0);
        for (int status = 0; status < 256; status += 51)
                expect_death(fate_exit, status, CLD_EXITED, status);
        expect_death(fate_signal, SIGKILL, CLD_KILLED, SIGKILL);
        expect_death(fate_signal, SIGTERM, CLD_KILLED, SIGTERM);
        expect_death(fate_signal, SIGRTMIN + 1, CLD_KILLED, SIGRTMIN + 1);
}

/* Whether a core is written is up to the machine: it is the same answer as waitid(2)'s. */
static void test_core(void) {
        char directory[] = "/tmp/test-pidfd.XXXXXX";
        struct rlimit limit, own;
        siginfo_t si = {};
        struct dirent *de;
        Death death;
        Process p;
        DIR *d;

        if (!kernel_tells())
                return;
        EXPECT(mkdtemp(directory));
        EXPECT_EQ(chdir(directory), 0);
        EXPECT_EQ(getrlimit(RLIMIT_CORE, &limit), 0);
        for (int with = 0; with < 2; with++) {
                own = (struct rlimit) { .rlim_cur = with ? limit.rlim_max : 0, .rlim_max = limit.rlim_max };
                EXPECT_EQ(setrlimit(RLIMIT_CORE, &own), 0);
                p = start(fate_signal, SIGSEGV);
                release(&p);
                EXPECT_EQ(waitid(P_PIDFD, (id_t) p.pidfd, &si, WEXITED), 0);
                EXPECT_EQ(pidfd_get_death(p.pidfd, &death), 0);
                EXPECT_EQ(death.code, si.si_code);
                EXPECT_EQ(death.status, SIGSEGV);
                fprintf(stderr, "(core limit %s: %s)\n", with ? "as high as may be" : "0",
                        si.si_code == CLD_DUMPED ? "dumped" : "killed");
                (void) safe_close(p.pidfd);
        }
        EXPECT(d = opendir("."));
        while ((de = readdir(d)))
                (void) unlink(de->d_name);
        (void) closedir(d);
        EXPECT_EQ(chdir("/"), 0);
        EXPECT_EQ(rmdir(directory), 0);
}

static void expect_orphans_death(Fate fate, int argument, int code, int status) {
        bool tells = kernel_tells();
        uint64_t start_time;
        Death death = {};
        pid_t reaper, parent;
        siginfo_t si;
        Process p;

        p = start_orphan(fate, argument, &reaper);
        EXPECT_EQ(process_get_start_time(p.pid, &start_time, &parent, NULL), 0);
        EXPECT_EQ(parent, reaper);
        EXPECT_EQ(waitid(P_PIDFD, (id_t) p.pidfd, &si, WEXITED | WNOHANG), -1);
        EXPECT_EQ(errno, ECHILD);
        if (tells)
                EXPECT_EQ(pidfd_get_death(p.pidfd, &death), -EAGAIN);

        release(&p);
        reap(reaper);
        EXPECT_EQ(pidfd_get_death(p.pidfd, &death), tells ? 0 : -EOPNOTSUPP);
        EXPECT_EQ(death.known, tells);
        if (tells) {
                EXPECT_EQ(death.code, code);
                EXPECT_EQ(death.status, status);
        }
        EXPECT_EQ(pidfd_get_pid(p.pidfd, &p.pid), -ESRCH);
        (void) safe_close(p.pidfd);
}

static void test_orphans(void) {
        expect_orphans_death(fate_exit, 0, CLD_EXITED, 0);
        expect_orphans_death(fate_exit, 42, CLD_EXITED, 42);
        expect_orphans_death(fate_signal, SIGKILL, CLD_KILLED, SIGKILL);
        expect_orphans_death(fate_signal, SIGTERM, CLD_KILLED, SIGTERM);
}

/* ENOTTY: before 6.13. ESRCH: 6.13 and 6.14 when the process has been reaped. */
static void test_old_kernel(void) {
        static const int errors[] = { ENOTTY, EINVAL, ESRCH, ENOSYS, EPERM };

        for (size_t i = 0; i < ELEMENTSOF(errors); i++) {
                siginfo_t si = {};
                pid_t pid;

                EXPECT((pid = fork()) >= 0);
                if (pid == 0) {
                        Process p = start(fate_exit, 0);
                        Death death = { .status = 77 };
                        pid_t found;

                        refuse_call(SYS_ioctl, errors[i]);
                        EXPECT_EQ(pidfd_get_death(p.pidfd, &death), -EOPNOTSUPP);
                        EXPECT_EQ(death.status, 77);
                        EXPECT_EQ(pidfd_get_pid(p.pidfd, &found), 0);
                        EXPECT_EQ(found, p.pid);
                        release(&p);
                        reap(p.pid);
                        EXPECT_EQ(pidfd_get_death(p.pidfd, &death), -EOPNOTSUPP);
                        _exit(0);
                }
                EXPECT_EQ(waitid(P_PID, (id_t) pid, &si, WEXITED), 0);
                EXPECT_EQ(si.si_code, CLD_EXITED);
                EXPECT_EQ(si.si_status, 0);
        }
}

static void test_not_a_pidfd(void) {
        Death death;
        int fds[2];
        pid_t pid;

        EXPECT_EQ(pipe2(fds, O_CLOEXEC), 0);
        EXPECT_EQ(pidfd_get_death(fds[0], &death), -EOPNOTSUPP);
        EXPECT_EQ(pidfd_get_pid(fds[0], &pid), -EBADF);
        EXPECT_EQ(close(fds[0]), 0);
        EXPECT_EQ(close(fds[1]), 0);
        EXPECT_EQ(pidfd_get_death(fds[0], &death), -EBADF);
        EXPECT_EQ(pidfd_get_pid(fds[0], &pid), -EBADF);
}

static void test_get_pid(void) {
        Process p = start(fate_exit, 0);
        pid_t pid = 0;

        EXPECT_EQ(pidfd_get_pid(p.pidfd, &pid), 0);
        EXPECT_EQ(pid, p.pid);
        release(&p);
        wait_for_end(p.pidfd);
        EXPECT_EQ(pidfd_get_pid(p.pidfd, &pid), 0);
        EXPECT_EQ(pid, p.pid);
        reap(p.pid);
        EXPECT_EQ(pidfd_get_pid(p.pidfd, &pid), -ESRCH);
        (void) safe_close(p.pidfd);
}

/* From times(2)'s clock, which counts in the same ticks from boot. */
static uint64_t ticks_now(void) {
        struct timespec ts;

        EXPECT_EQ(clock_gettime(CLOCK_BOOTTIME, &ts), 0);
        return ((uint64_t) ts.tv_sec * 1000 + (uint64_t) ts.tv_nsec / 1000000) * (uint64_t) sysconf(_SC_CLK_TCK) / 1000;
}

static _noreturn_ void fate_rename(int unused) {
        static const char *const names[] = { ") Z 1 1 1 1", "a b", "((((", "))))", ") Z (", "", "\n)\n" };

        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                uint64_t start_time = 0;
                pid_t parent = 0;
                bool zombie = true;

                EXPECT_EQ(prctl(PR_SET_NAME, names[i], 0UL, 0UL, 0UL), 0);
                EXPECT_EQ(process_get_start_time(getpid(), &start_time, &parent, &zombie), 0);
                EXPECT_EQ(parent, getppid());
                EXPECT(!zombie);
                EXPECT(start_time <= ticks_now());
                EXPECT(start_time + 60 * (uint64_t) sysconf(_SC_CLK_TCK) > ticks_now());
        }
        _exit(0);
}

static void test_start_time(void) {
        uint64_t before = ticks_now(), start_time, again;
        Process p = start(fate_rename, 0);
        uint64_t after = ticks_now();
        siginfo_t si = {};
        pid_t parent;
        bool zombie;

        EXPECT_EQ(process_get_start_time(p.pid, &start_time, &parent, &zombie), 0);
        EXPECT(start_time + 1 >= before && start_time <= after + 1);
        EXPECT_EQ(parent, getpid());
        EXPECT(!zombie);
        EXPECT_EQ(process_get_start_time(p.pid, &again, NULL, NULL), 0);
        EXPECT_EQ(again, start_time);

        release(&p);
        wait_for_zombie(p.pid);
        EXPECT_EQ(process_get_start_time(p.pid, &again, &parent, &zombie), 0);
        EXPECT_EQ(again, start_time);
        EXPECT_EQ(parent, getpid());
        EXPECT(zombie);

        EXPECT_EQ(waitid(P_PID, (id_t) p.pid, &si, WEXITED), 0);
        EXPECT_EQ(si.si_status, 0);
        EXPECT_EQ(process_get_start_time(p.pid, &again, &parent, &zombie), -ESRCH);
        (void) safe_close(p.pidfd);

        EXPECT_EQ(process_get_start_time(1, &start_time, &parent, &zombie), 0);
        EXPECT_EQ(parent, 0);
        EXPECT(!zombie);
}

static void *other_thread(void *argument) {
        int *fds = argument;
        char byte;

        /* Until the main thread has become what looks like a zombie, and then until we are told. */
        EXPECT_EQ(write(fds[1], "x", 1), 1);
        while (read(fds[2], &byte, 1) > 0)
                ;
        _exit(5);
}

/* A process whose main thread has ended is no zombie. */
static void test_main_thread_ended(void) {
        int ready[2], go[2], fds[3];
        char path[64], text[512] = "";
        _cleanup_close_ int pidfd = -EBADF;
        uint64_t start_time;
        pthread_t thread;
        siginfo_t si;
        Death death;
        bool zombie;
        FILE *f;
        pid_t pid;

        need_pidfds();
        EXPECT_EQ(pipe2(ready, O_CLOEXEC), 0);
        EXPECT_EQ(pipe2(go, O_CLOEXEC), 0);
        EXPECT((pid = fork()) >= 0);
        if (pid == 0) {
                EXPECT_EQ(close(go[1]), 0);
                fds[1] = ready[1];
                fds[2] = go[0];
                EXPECT_EQ(pthread_create(&thread, NULL, other_thread, fds), 0);
                syscall(SYS_exit, 0);
        }
        EXPECT_EQ(close(go[0]), 0);
        EXPECT_EQ(read(ready[0], text, 1), 1);
        (void) snprintf(path, sizeof(path), "/proc/%d/stat", (int) pid);
        while (!strstr(text, ") Z ")) {
                EXPECT(f = fopen(path, "re"));
                EXPECT(fgets(text, sizeof(text), f));
                EXPECT_EQ(fclose(f), 0);
        }
        EXPECT_EQ(process_get_start_time(pid, &start_time, NULL, &zombie), 0);
        EXPECT(!zombie);

        EXPECT_EQ(close(go[1]), 0);
        wait_for_zombie(pid);
        EXPECT_EQ(process_get_start_time(pid, &start_time, NULL, &zombie), 0);
        EXPECT(zombie);
        EXPECT((pidfd = pidfd_open(pid, 0)) >= 0);
        EXPECT_EQ(waitid(P_PID, (id_t) pid, &si, WEXITED), 0);
        EXPECT_EQ(si.si_status, 5);
        if (pidfd_get_death(pidfd, &death) >= 0)
                EXPECT_EQ(death.status, 5);
        EXPECT_EQ(close(ready[0]), 0);
        EXPECT_EQ(close(ready[1]), 0);
}

/* A process with that environment, which ends when p.go is closed. It has answered: while it executes its
 * program it has no environment for a moment. */
static Process start_cat(char *const environment[]) {
        static char *const argv[] = { (char *) "cat", NULL };
        int go[2], answer[2];
        Process p = {};
        char byte = '!';

        EXPECT_EQ(pipe2(go, O_CLOEXEC), 0);
        EXPECT_EQ(pipe2(answer, O_CLOEXEC), 0);
        EXPECT((p.pid = fork()) >= 0);
        if (p.pid == 0) {
                EXPECT_EQ(dup2(go[0], STDIN_FILENO), STDIN_FILENO);
                EXPECT_EQ(dup2(answer[1], STDOUT_FILENO), STDOUT_FILENO);
                (void) execve("/bin/cat", argv, environment);
                _exit(1);
        }
        EXPECT_EQ(close(go[0]), 0);
        EXPECT_EQ(close(answer[1]), 0);
        EXPECT_EQ(write(go[1], &byte, 1), 1);
        EXPECT_EQ(read(answer[0], &byte, 1), 1);
        EXPECT_EQ(close(answer[0]), 0);
        p.pidfd = -EBADF;
        p.go = go[1];
        return p;
}

static void end(Process *p) {
        release(p);
        reap(p->pid);
        p->pidfd = safe_close(p->pidfd);
}

static void test_environment(void) {
        static char *const environment[] = {
                (char *) "XSLOT=9", (char *) "SLOT2=8", (char *) "SLOT", (char *) "EMPTY=", (char *) "SLOT=17",
                (char *) "SLOT=18", (char *) "NEGATIVE=-1", (char *) "PLUS=+1", (char *) "SPACE= 1", (char *) "TRAIL=1 ",
                (char *) "BIGGEST=18446744073709551615", (char *) "TOO_BIG=18446744073709551616", (char *) "HEX=0x10",
                (char *) "ZEROS=0007", (char *) "LAST=3", NULL,
        };
        static const struct {
                const char *name;
                uint64_t max;
                int result;
                uint64_t value;
        } table[] = {
                { "SLOT", 17, 0, 17 },
                { "SLOT", 16, -ENXIO, 0 },
                { "SLOT", 5, -ENXIO, 0 },
                { "SLOT", 0, -ENXIO, 0 },
                { "LAST", UINT64_MAX, 0, 3 },
                { "BIGGEST", UINT64_MAX, 0, UINT64_MAX },
                { "BIGGEST", UINT64_MAX - 1, -ENXIO, 0 },
                { "TOO_BIG", UINT64_MAX, -ENXIO, 0 },
                { "ZEROS", 7, 0, 7 },
                { "EMPTY", 7, -ENXIO, 0 },
                { "NEGATIVE", 7, -ENXIO, 0 },
                { "PLUS", 7, -ENXIO, 0 },
                { "SPACE", 7, -ENXIO, 0 },
                { "TRAIL", 7, -ENXIO, 0 },
                { "HEX", 70, -ENXIO, 0 },
                { "LOT", 70, -ENXIO, 0 },
                { "MISSING", 7, -ENXIO, 0 },
        };
        Process p = start_cat(environment);
        uint64_t value;
        int r;

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                value = 4711;
                EXPECT_EQ(process_get_environment_number(p.pid, table[i].name, table[i].max, &value), table[i].result);
                EXPECT_EQ(value, table[i].result < 0 ? 4711 : table[i].value);
        }
        release(&p);
        wait_for_zombie(p.pid);
        r = process_get_environment_number(p.pid, "SLOT", 17, &value);
        EXPECT(r == -ENXIO || r == -ESRCH);
        end(&p);
        EXPECT_EQ(process_get_environment_number(p.pid, "SLOT", 17, &value), -ESRCH);

        p = start_cat((char *const[]) { NULL });
        EXPECT_EQ(process_get_environment_number(p.pid, "SLOT", 17, &value), -ENXIO);
        end(&p);
}

/* 120 KiB each: the last variable moves over the sizes of the buffer and behind the bound. */
static void test_big_environment(void) {
        enum { PIECE = 120 * 1024 };
        char *environment[16] = {}, *filler;
        bool within;
        uint64_t value;
        Process p;

        EXPECT(filler = malloc(PIECE));
        memset(filler, 'x', PIECE);
        filler[PIECE - 1] = '\0';
        for (size_t n = 0; n < 11; n++) {
                for (size_t i = 0; i < n; i++)
                        environment[i] = filler;
                environment[n] = (char *) "SLOT=12345";
                environment[n + 1] = NULL;
                p = start_cat(environment);
                value = 0;
                within = n * PIECE < 1024 * 1024;
                EXPECT_EQ(process_get_environment_number(p.pid, "SLOT", 99999, &value), within ? 0 : -ENXIO);
                EXPECT_EQ(value, within ? 12345 : 0);
                end(&p);
        }
        /* Cut in the middle of the number. */
        for (size_t i = 0; i < 8; i++)
                environment[i] = filler;
        EXPECT(environment[8] = strdup(filler));
        environment[8][1024 * 1024 - 8 * PIECE - 1 - strlen("SLOT=123")] = '\0';
        environment[9] = (char *) "SLOT=12345";
        environment[10] = NULL;
        p = start_cat(environment);
        EXPECT_EQ(process_get_environment_number(p.pid, "SLOT", 99999, &value), -ENXIO);
        end(&p);
        free(environment[8]);
        free(filler);
}

TEST_MAIN(
        TEST(test_start_time),
        TEST(test_environment),
        TEST(test_big_environment),
        TEST(test_own_children),
        TEST(test_core),
        TEST(test_orphans),
        TEST(test_old_kernel),
        TEST(test_not_a_pidfd),
        TEST(test_get_pid),
        TEST(not_under_valgrind),
        TEST(test_main_thread_ended),
)
