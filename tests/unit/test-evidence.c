/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Real processes that hang in every way, looked at from here. A child says when it is about to hang; that it
 * does is waited for by looking again, with a limit. */

#include "evidence.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#include "clock.h"
#include "fd-util.h"
#include "test.h"

#define NOBODY 65534
#define LOOKS_MAX 20000

typedef struct Bench {
        int fd;       /* what the child hangs on */
        int ready_fd; /* the child closes it when it is about to hang */
} Bench;

typedef void (*Body)(const Bench *bench);

/* ---- children ---- */

static pid_t start(Body body, int fd) {
        int pipe_fds[2];
        char c;
        pid_t pid;

        EXPECT(pipe2(pipe_fds, O_CLOEXEC) == 0);
        pid = fork();
        EXPECT(pid >= 0);
        if (pid == 0) {
                EXPECT(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
                EXPECT(prctl(PR_SET_NAME, "stuck") == 0);
                close(pipe_fds[0]);
                body(&(Bench) { .fd = fd, .ready_fd = pipe_fds[1] });
                _exit(EXIT_SUCCESS);
        }
        close(pipe_fds[1]);
        EXPECT_EQ(read(pipe_fds[0], &c, 1), 0);
        close(pipe_fds[0]);
        return pid;
}

static void stop(pid_t pid) {
        EXPECT(kill(pid, SIGKILL) == 0);
        EXPECT(waitpid(pid, NULL, 0) == pid);
}

/* Looks until the summary begins with that. */
static void expect_becomes(const pid_t *pids, size_t n_pids, const char *summary, Evidence *ret) {
        for (unsigned i = 0; i < LOOKS_MAX; i++) {
                evidence_collect(pids, n_pids, ret);
                if (startswith(ret->summary, summary))
                        return;
                (void) usleep(500);
        }
        fprintf(stderr, "still \"%s\", expected \"%s\"\n", ret->summary, summary);
        abort();
}

/* ... and that is the only thread. */
static void expect_body(Body body, int fd, const char *summary, Evidence *ret) {
        pid_t pid = start(body, fd);
        char line[sizeof(ret->summary) + 64];

        expect_becomes(&pid, 1, summary, ret);
        (void) snprintf(line, sizeof(line), "pid %d stuck %c: %s", (int) pid,
                        startswith(summary, "asleep") ? 'S' : 'R', ret->summary);
        EXPECT_STREQ(ret->threads, line);
        stop(pid);
}

static uint64_t inode_of(int fd) {
        struct stat st;

        EXPECT(fstat(fd, &st) == 0);
        return st.st_ino;
}

static size_t count_lines(const char *text) {
        size_t n = 1;

        for (; *text; text++)
                n += *text == '\n';
        return n;
}

static uint64_t cpu_usec(const Evidence *evidence) {
        const char *span = strstr(evidence->summary, "CPU time ");
        uint64_t usec;

        EXPECT(span);
        EXPECT_EQ(clock_parse_span(span + strlen("CPU time "), &usec), 0);
        return usec;
}

/* ---- one thread ---- */

static void sleep_for_an_hour(const Bench *bench) {
        const struct timespec hour = { .tv_sec = 3600 };

        close(bench->ready_fd);
        (void) clock_nanosleep(CLOCK_MONOTONIC, 0, &hour, NULL);
}

static void test_asleep(void) {
        Evidence evidence;

        expect_body(sleep_for_an_hour, -EBADF, "asleep in clock_nanosleep, ", &evidence);
        EXPECT(startswith(evidence.syscall, "clock_nanosleep(0x1, 0x0, 0x"));
        EXPECT(strstr(evidence.wchan, "nanosleep"));
        EXPECT(strstr(evidence.summary, evidence.wchan));
        EXPECT(cpu_usec(&evidence) < USEC_PER_SEC);
}

static void burn(const Bench *bench) {
        close(bench->ready_fd);
        for (volatile unsigned i = 1; i != 0; i += 2)
                ;
}

static uint64_t clock_usec(clockid_t clock) {
        struct timespec ts;

        EXPECT(clock_gettime(clock, &ts) == 0);
        return (uint64_t) ts.tv_sec * USEC_PER_SEC + (uint64_t) ts.tv_nsec / 1000;
}

/* User and kernel time are cut to whole ticks each. */
static void test_busy(void) {
        const uint64_t tick_usec = USEC_PER_SEC / (uint64_t) sysconf(_SC_CLK_TCK);
        pid_t pid = start(burn, -EBADF);
        uint64_t before, after;
        Evidence evidence;
        clockid_t clock;

        EXPECT_EQ(clock_getcpuclockid(pid, &clock), 0);
        do {
                (void) usleep(500);
                before = clock_usec(clock);
                expect_becomes(&pid, 1, "running, CPU time ", &evidence);
                after = clock_usec(clock);
                EXPECT(cpu_usec(&evidence) + 2 * tick_usec >= before);
                EXPECT(cpu_usec(&evidence) <= after);
        } while (before < 10 * tick_usec);
        EXPECT(strstr(evidence.threads, "stuck R: running"));
        EXPECT_STREQ(evidence.syscall, "");
        EXPECT_STREQ(evidence.wchan, "");
        stop(pid);
}

static void read_pipe(const Bench *bench) {
        static char buffer[77];

        close(bench->ready_fd);
        EXPECT_EQ(read(bench->fd, buffer, sizeof(buffer)), 0);
}

static void fill_pipe(const Bench *bench) {
        static char buffer[1 << 20];

        close(bench->ready_fd);
        EXPECT_EQ(write(bench->fd, buffer, sizeof(buffer)), sizeof(buffer));
}

static void test_pipe(void) {
        char summary[128], call[128];
        Evidence evidence;
        int fds[2];

        EXPECT(pipe2(fds, O_CLOEXEC) == 0);
        (void) snprintf(summary, sizeof(summary), "asleep in read on fd %d (pipe:[%llu]), ", fds[0],
                        (unsigned long long) inode_of(fds[0]));
        (void) snprintf(call, sizeof(call), "read(%d<pipe:[%llu]>, 0x", fds[0],
                        (unsigned long long) inode_of(fds[0]));
        expect_body(read_pipe, fds[0], summary, &evidence);
        EXPECT(startswith(evidence.syscall, call));
        EXPECT(strstr(evidence.syscall, ", 0x4d)"));
        EXPECT(strstr(evidence.wchan, "pipe"));

        (void) snprintf(summary, sizeof(summary), "asleep in write on fd %d (pipe:[%llu]), ", fds[1],
                        (unsigned long long) inode_of(fds[1]));
        expect_body(fill_pipe, fds[1], summary, &evidence);
        close(fds[0]);
        close(fds[1]);
}

static void receive(const Bench *bench) {
        char c;

        close(bench->ready_fd);
        (void) recv(bench->fd, &c, 1, 0);
}

static void test_socket(void) {
        char summary[128];
        Evidence evidence;
        int fds[2];

        EXPECT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
        (void) snprintf(summary, sizeof(summary), "asleep in recvfrom on fd %d (socket:[%llu]), ", fds[0],
                        (unsigned long long) inode_of(fds[0]));
        expect_body(receive, fds[0], summary, &evidence);
        close(fds[0]);
        close(fds[1]);
}

/* Through a descriptor of its own: locks belong to the open file. */
static void lock_file(const Bench *bench) {
        char path[64];

        (void) snprintf(path, sizeof(path), "/proc/self/fd/%d", bench->fd);
        EXPECT(dup2(open(path, O_RDWR), bench->fd) == bench->fd);
        close(bench->ready_fd);
        (void) flock(bench->fd, LOCK_EX);
}

/* The path has what no text may have. */
static void test_file(void) {
        char path[] = "/tmp/test-evidence.\n\xc3\xa4.XXXXXX", summary[128], shown[sizeof(path)];
        int fd = mkostemp(path, O_CLOEXEC);
        Evidence evidence;

        EXPECT(fd >= 0);
        EXPECT(flock(fd, LOCK_EX) == 0);
        (void) snprintf(shown, sizeof(shown), "%s", path);
        memcpy(strchr(shown, '\n'), "???", 3);
        (void) snprintf(summary, sizeof(summary), "asleep in flock on fd %d (%s), ", fd, shown);
        expect_body(lock_file, fd, summary, &evidence);
        EXPECT_EQ(unlink(path), 0);
        close(fd);
}

static void wait_for_signal(const Bench *bench) {
        sigset_t set;

        (void) sigemptyset(&set);
        (void) sigaddset(&set, SIGUSR1);
        close(bench->ready_fd);
        (void) syscall(SYS_rt_sigtimedwait, &set, NULL, NULL, _NSIG / 8);
}

static void test_call_without_name(void) {
        char summary[64], call[64];
        Evidence evidence;

        (void) snprintf(summary, sizeof(summary), "asleep in system call %d, ", (int) SYS_rt_sigtimedwait);
        (void) snprintf(call, sizeof(call), "system call %d(0x", (int) SYS_rt_sigtimedwait);
        expect_body(wait_for_signal, -EBADF, summary, &evidence);
        EXPECT(startswith(evidence.syscall, call));
        EXPECT_EQ(evidence.syscall[strlen(evidence.syscall) - 1], ')');
}

/* In the name, what would end it for a careless reader, and half a character. */
static void sleep_with_odd_name(const Bench *bench) {
        EXPECT(prctl(PR_SET_NAME, ") R (\n\x7f\xc3") == 0);
        sleep_for_an_hour(bench);
}

static void test_odd_name(void) {
        pid_t pid = start(sleep_with_odd_name, -EBADF);
        char line[64];
        Evidence evidence;

        expect_becomes(&pid, 1, "asleep in clock_nanosleep, ", &evidence);
        (void) snprintf(line, sizeof(line), "pid %d ) R (??? S: asleep in", (int) pid);
        EXPECT(startswith(evidence.threads, line));
        stop(pid);
}

static void test_stopped(void) {
        char summary[64];
        siginfo_t info;
        Evidence evidence;
        int fds[2];
        pid_t pid;

        EXPECT(pipe2(fds, O_CLOEXEC) == 0);
        pid = start(read_pipe, fds[0]);
        expect_becomes(&pid, 1, "asleep in read", &evidence);
        EXPECT(kill(pid, SIGSTOP) == 0);
        EXPECT(waitid(P_PID, (id_t) pid, &info, WSTOPPED) == 0);
        (void) snprintf(summary, sizeof(summary), "stopped in read on fd %d (pipe:[%llu])", fds[0],
                        (unsigned long long) inode_of(fds[0]));
        expect_becomes(&pid, 1, summary, &evidence);
        EXPECT(strstr(evidence.threads, "stuck T: stopped in read"));
        stop(pid);
        close(fds[0]);
        close(fds[1]);
}

static void exit_at_once(const Bench *bench) {
        close(bench->ready_fd);
}

static void test_gone(void) {
        pid_t pid = start(exit_at_once, -EBADF);
        siginfo_t info;
        Evidence evidence;

        EXPECT(waitid(P_PID, (id_t) pid, &info, WEXITED | WNOWAIT) == 0);
        expect_becomes(&pid, 1, "ended, CPU time ", &evidence);
        EXPECT(waitpid(pid, NULL, 0) == pid);
        evidence_collect(&pid, 1, &evidence);
        EXPECT_STREQ(evidence.summary, "gone, or hidden from us");
        EXPECT_STREQ(evidence.threads, "");
        EXPECT_STREQ(evidence.syscall, "");
        evidence_collect(NULL, 0, &evidence);
        EXPECT_STREQ(evidence.summary, "gone, or hidden from us");
}

/* ---- threads and children ---- */

static void *thread_sleep(void *data) {
        EXPECT(prctl(PR_SET_NAME, "sleeper") == 0);
        sleep_for_an_hour(&(Bench) { .ready_fd = -EBADF });
        return data;
}

static void *thread_epoll(void *data) {
        struct epoll_event event;

        (void) epoll_wait(epoll_create1(0), &event, 1, -1);
        return data;
}

static void *thread_accept(void *data) {
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);

        EXPECT(bind(fd, &(struct sockaddr) { .sa_family = AF_UNIX }, sizeof(sa_family_t)) == 0);
        EXPECT(listen(fd, 1) == 0);
        (void) accept(fd, NULL, NULL);
        return data;
}

/* The main thread joins the others, one has no work, one is an event loop, and one hangs. */
static void hang_in_third_thread(const Bench *bench) {
        static void *(*const bodies[])(void *) = { thread_accept, thread_epoll, thread_sleep };
        pthread_t threads[ELEMENTSOF(bodies)];

        for (size_t i = 0; i < ELEMENTSOF(bodies); i++)
                EXPECT_EQ(pthread_create(threads + i, NULL, bodies[i], NULL), 0);
        close(bench->ready_fd);
        (void) pthread_join(threads[0], NULL);
}

static bool is_complete(const Evidence *evidence) {
        return strstr(evidence->threads, "in accept on fd ") && strstr(evidence->threads, "in futex") &&
                strstr(evidence->threads, "in epoll_");
}

static void test_threads(void) {
        pid_t pid = start(hang_in_third_thread, -EBADF);
        Evidence evidence;

        for (unsigned i = 0; i < LOOKS_MAX; i++) {
                expect_becomes(&pid, 1, "asleep in clock_nanosleep, ", &evidence);
                if (is_complete(&evidence))
                        break;
                (void) usleep(500);
        }
        EXPECT(is_complete(&evidence));
        EXPECT_EQ(count_lines(evidence.threads), 4);
        EXPECT(startswith(evidence.threads, "pid "));
        EXPECT(strstr(evidence.threads, "\n  tid "));
        EXPECT(strstr(evidence.threads, " sleeper S: asleep in clock_nanosleep, "));
        EXPECT(startswith(evidence.syscall, "clock_nanosleep("));
        stop(pid);
}

static void many_threads(const Bench *bench) {
        pthread_t thread;

        for (unsigned i = 0; i < EVIDENCE_THREADS_MAX + 4; i++)
                EXPECT_EQ(pthread_create(&thread, NULL, thread_sleep, NULL), 0);
        sleep_for_an_hour(bench);
}

static void test_many_threads(void) {
        pid_t pid = start(many_threads, -EBADF);
        Evidence evidence;

        expect_becomes(&pid, 1, "asleep in clock_nanosleep, ", &evidence);
        EXPECT_EQ(count_lines(evidence.threads), EVIDENCE_THREADS_MAX + 1);
        EXPECT(strstr(evidence.threads, "\nand 5 more threads"));
        stop(pid);
}

/* Lines so long that there is no room for all of them. */
static void *thread_lock(void *data) {
        (void) flock(*(int *) data, LOCK_EX);
        return NULL;
}

static void many_locks(const Bench *bench) {
        int fd = bench->fd;
        pthread_t thread;

        for (unsigned i = 1; i < EVIDENCE_THREADS_MAX; i++)
                EXPECT_EQ(pthread_create(&thread, NULL, thread_lock, &fd), 0);
        sleep_for_an_hour(bench);
}

static void test_long_lines(void) {
        char path[128] = "/tmp/test-evidence.";
        unsigned n_looks = 0;
        Evidence evidence;
        int fd, again_fd;
        pid_t pid;

        memset(path + strlen(path), 'x', sizeof(path) - strlen(path) - 1);
        memcpy(path + sizeof(path) - strlen("XXXXXX") - 1, "XXXXXX", strlen("XXXXXX"));
        EXPECT((fd = mkostemp(path, O_CLOEXEC)) >= 0);
        EXPECT(flock(fd, LOCK_EX) == 0);
        EXPECT((again_fd = open(path, O_RDWR | O_CLOEXEC)) >= 0);
        pid = start(many_locks, again_fd);
        do
                evidence_collect(&pid, 1, &evidence);
        while ((!strstr(evidence.threads, " more threads") || /* those on their way to the lock have short lines */
                count_lines(evidence.threads) >= EVIDENCE_THREADS_MAX) && n_looks++ < LOOKS_MAX);
        EXPECT(count_lines(evidence.threads) < EVIDENCE_THREADS_MAX);
        EXPECT(startswith(strrchr(evidence.threads, '\n'), "\nand "));
        stop(pid);
        EXPECT_EQ(unlink(path), 0);
        close(again_fd);
        close(fd);
}

/* As a shell that runs the worker. */
static void wait_for_child(const Bench *bench) {
        pid_t pid = fork();

        EXPECT(pid >= 0);
        if (pid == 0) {
                EXPECT(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
                sleep_for_an_hour(bench);
        }
        close(bench->ready_fd);
        (void) waitpid(pid, NULL, 0);
}

static void accept_connection(const Bench *bench) {
        close(bench->ready_fd);
        thread_accept(NULL);
}

static void poll_nothing(const Bench *bench) {
        close(bench->ready_fd);
        (void) poll(NULL, 0, -1);
}

static void stop_all(const pid_t *pids, size_t n_pids) {
        for (size_t i = 0; i < n_pids; i++)
                stop(pids[i]);
}

/* Of a tree, the one is told about that has not merely no work. */
static void test_processes(void) {
        const pid_t pids[] = { start(wait_for_child, -EBADF), start(accept_connection, -EBADF),
                               start(poll_nothing, -EBADF), start(sleep_for_an_hour, -EBADF) };
        Evidence evidence;
        char line[64];

        expect_becomes(pids, 1, "asleep in wait4, ", &evidence);
        expect_becomes(pids + 1, 1, "asleep in accept on fd ", &evidence);
        expect_becomes(pids + 3, 1, "asleep in clock_nanosleep, ", &evidence);
        expect_becomes(pids, 2, "asleep in wait4, ", &evidence);
        expect_becomes(pids, 3, "asleep in poll, ", &evidence);
        expect_becomes(pids, 4, "asleep in clock_nanosleep, ", &evidence);
        EXPECT_EQ(count_lines(evidence.threads), 4);
        for (size_t i = 0; i < ELEMENTSOF(pids); i++) {
                (void) snprintf(line, sizeof(line), "%spid %d stuck S: asleep in ", i > 0 ? "\n" : "", (int) pids[i]);
                EXPECT(strstr(evidence.threads, line));
        }
        stop_all(pids, ELEMENTSOF(pids));
}

static void test_many_processes(void) {
        pid_t pids[EVIDENCE_PROCESSES_MAX + 2];
        Evidence evidence;

        for (size_t i = 0; i < ELEMENTSOF(pids); i++)
                pids[i] = start(sleep_for_an_hour, -EBADF);
        expect_becomes(pids, ELEMENTSOF(pids), "asleep in clock_nanosleep, ", &evidence);
        EXPECT_EQ(count_lines(evidence.threads), EVIDENCE_PROCESSES_MAX + 1);
        EXPECT(strstr(evidence.threads, "\nand 2 more processes"));
        stop_all(pids, ELEMENTSOF(pids));
}

/* ---- what may not be looked at ---- */

static void become_nobody(void) {
        EXPECT(setresgid(NOBODY, NOBODY, NOBODY) == 0);
        EXPECT(setresuid(NOBODY, NOBODY, NOBODY) == 0);
        EXPECT(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0); /* forgotten with a change of user */
}

/* ProtectProc=invisible: /proc says that there is no such process. */
static void become_nobody_without_proc(void) {
        EXPECT_EQ(unshare(CLONE_NEWNS), 0);
        EXPECT_EQ(mount("none", "/", "", MS_REC | MS_PRIVATE, ""), 0);
        EXPECT_EQ(mount("proc", "/proc", "proc", 0, "hidepid=2"), 0);
        become_nobody();
}

static void become_self(void) {
}

static void sleep_as_nobody(const Bench *bench) {
        if (getuid() == 0)
                become_nobody();
        EXPECT(prctl(PR_SET_DUMPABLE, 1) == 0);
        sleep_for_an_hour(bench);
}

static void sleep_not_dumpable(const Bench *bench) {
        if (getuid() == 0)
                become_nobody();
        EXPECT(prctl(PR_SET_DUMPABLE, 0) == 0);
        sleep_for_an_hour(bench);
}

/* Looks as another user in a process of its own. */
static void collect_as(void (*become)(void), Body body, const char *summary, void (*check)(const Evidence *)) {
        pid_t pid = start(body, -EBADF), observer = fork();
        int status;

        EXPECT(observer >= 0);
        if (observer == 0) {
                Evidence evidence;

                become();
                expect_becomes(&pid, 1, summary, &evidence);
                check(&evidence);
                _exit(EXIT_SUCCESS);
        }
        EXPECT(waitpid(observer, &status, 0) == observer);
        EXPECT_EQ(status, 0);
        stop(pid);
}

static void check_stack(const Evidence *evidence) {
        fprintf(stderr, "%s\n", evidence->stack);
        EXPECT(strstr(evidence->stack, "nanosleep"));
        EXPECT(strstr(evidence->stack, evidence->wchan));
        EXPECT(evidence->stack[strlen(evidence->stack) - 1] != '\n');
}

static void check_call_without_stack(const Evidence *evidence) {
        EXPECT(startswith(evidence->syscall, "clock_nanosleep("));
        EXPECT(strstr(evidence->wchan, "nanosleep"));
        EXPECT_STREQ(evidence->stack, "");
}

static void check_state_only(const Evidence *evidence) {
        EXPECT_STREQ(evidence->syscall, "");
        EXPECT_STREQ(evidence->wchan, "");
        EXPECT_STREQ(evidence->stack, "");
        /* valgrind has taken some by then. */
        EXPECT(strstr(evidence->threads,
                      is_under_valgrind() ? "stuck S: asleep, CPU time " : "stuck S: asleep, CPU time 0"));
}

static void check_nothing(const Evidence *evidence) {
        EXPECT_STREQ(evidence->threads, "");
}

static bool may_read_stacks(void) {
        _cleanup_close_ int fd = open("/proc/thread-self/stack", O_RDONLY | O_CLOEXEC);
        char c;

        return fd >= 0 && read(fd, &c, 1) == 1;
}

static void test_permissions(void) {
        bool root = getuid() == 0;

        collect_as(root ? become_nobody : become_self, sleep_as_nobody, "asleep in clock_nanosleep",
                   check_call_without_stack);
        collect_as(root ? become_nobody : become_self, sleep_not_dumpable, "asleep, CPU time", check_state_only);
        if (root)
                collect_as(become_nobody, sleep_for_an_hour, "asleep, CPU time", check_state_only);
        else
                fprintf(stderr, "skipped part: another user's process can be made by root only\n");
        if (may_read_stacks())
                collect_as(become_self, sleep_for_an_hour, "asleep in clock_nanosleep", check_stack);
        else
                fprintf(stderr, "skipped part: kernel stacks may not be read here\n");
}

static void test_hidden_proc(void) {
        if (getuid() != 0) {
                fprintf(stderr, "skipped part: /proc can be hidden by root only\n");
                return;
        }
        collect_as(become_nobody_without_proc, sleep_not_dumpable, "gone, or hidden from us", check_nothing);
        collect_as(become_nobody_without_proc, sleep_as_nobody, "asleep in clock_nanosleep", check_call_without_stack);
}

/* ---- output ---- */

static void write_lines(const Bench *bench) {
        static const char *const lines[] = { "one", "two", "three", "a\tb\x1b[1m", "", "f\xc3\xbcnf", "0123456789\xc3\xa4" };
        int fd = sd_journal_stream_fd("test-evidence", LOG_INFO, false);

        EXPECT(fd >= 0);
        for (size_t i = 0; i < ELEMENTSOF(lines); i++)
                EXPECT(dprintf(fd, "%s\n", lines[i]) > 0);
        sleep_for_an_hour(bench);
}

static bool has_journal(void) {
        if (access("/run/systemd/journal/stdout", F_OK) == 0)
                return true;
        fprintf(stderr, "skipped part: there is no journal here: %s\n", strerror(errno));
        return false;
}

/* Until the last of the lines is there. */
static void read_output(pid_t pid, uint64_t since_usec, char *text, size_t size) {
        int r = -ENODATA;

        for (unsigned i = 0; i < LOOKS_MAX && !(r > 0 && strstr(text, "0123456789")); i++) {
                (void) usleep(500);
                r = evidence_read_output(pid, since_usec, text, size);
                EXPECT(r == -ENODATA || (r > 0 && r <= (int) EVIDENCE_LINES_MAX));
        }
        EXPECT_EQ(r, EVIDENCE_LINES_MAX);
}

static bool in_child(void (*body)(pid_t pid), pid_t pid) {
        pid_t child = fork();
        int status;

        EXPECT(child >= 0);
        if (child == 0) {
                body(pid);
                _exit(EXIT_SUCCESS);
        }
        EXPECT(waitpid(child, &status, 0) == child);
        return status == 0;
}

static void read_output_in_sandbox(pid_t pid) {
        char text[1024];

        EXPECT_EQ(unshare(CLONE_NEWNS), 0);
        EXPECT_EQ(mount("none", "/", "", MS_REC | MS_PRIVATE, ""), 0);
        EXPECT_EQ(mount("proc", "/proc", "proc", 0, "subset=pid"), 0);
        EXPECT_EQ(access("/proc/sys", F_OK), -1);
        read_output(pid, 0, text, sizeof(text));
}

/* ProcSubset=pid hides the id of the boot. Before the others, since libsystemd remembers it. */
static void test_output_in_sandbox(void) {
        pid_t pid;

        if (!has_journal())
                return;
        if (getuid() != 0) {
                fprintf(stderr, "skipped part: /proc can be hidden by root only\n");
                return;
        }
        pid = start(write_lines, -EBADF);
        EXPECT(in_child(read_output_in_sandbox, pid));
        stop(pid);
}

static void read_output_as_nobody(pid_t pid) {
        char text[1024];

        become_nobody();
        EXPECT_EQ(evidence_read_output(pid, 0, text, sizeof(text)), -EACCES);
}

/* The journal leaves out empty lines. */
static void test_output(void) {
        uint64_t begin = clock_usec(CLOCK_MONOTONIC);
        char text[1024], cut[60];
        pid_t pid;

        if (!has_journal())
                return;
        if (evidence_read_output(getpid(), begin, text, sizeof(text)) == -EACCES) {
                fprintf(stderr, "skipped part: the journal may not be read\n");
                return;
        }
        pid = start(write_lines, -EBADF);
        read_output(pid, begin, text, sizeof(text));
        EXPECT_STREQ(text, "two\nthree\na b [1m\nf\xc3\xbcnf\n0123456789\xc3\xa4");
        EXPECT_EQ(evidence_read_output(pid, begin, cut, sizeof(cut)), EVIDENCE_LINES_MAX);
        EXPECT_STREQ(cut, "two\nthree\na b [1m\nf\xc3\xbcnf\n0123456789");
        EXPECT_EQ(evidence_read_output(pid, clock_usec(CLOCK_MONOTONIC), text, sizeof(text)), -ENODATA);
        EXPECT_EQ(evidence_read_output(getpid(), begin, text, sizeof(text)), -ENODATA);
        EXPECT(getuid() != 0 || in_child(read_output_as_nobody, pid));
        stop(pid);
}

/* ---- always ---- */

/* Looked at all the while it dies: nothing odd, and nothing left open here. */
static void test_dies_while_looked_at(void) {
        Evidence evidence;
        int before, after;

        close(before = dup(2));
        for (unsigned i = 0; i < 15; i++) {
                pid_t pid = start(many_threads, -EBADF);
                siginfo_t info = {};

                EXPECT(kill(pid, SIGKILL) == 0);
                while (info.si_pid == 0) {
                        evidence_collect(&pid, 1, &evidence);
                        EXPECT(count_lines(evidence.threads) <= EVIDENCE_THREADS_MAX + 1);
                        EXPECT(waitid(P_PID, (id_t) pid, &info, WEXITED | WNOHANG) == 0);
                }
        }
        close(after = dup(2));
        EXPECT_EQ(after, before);
}

static void print_cost(const char *name, Body body) {
        pid_t pid = start(body, -EBADF);
        const unsigned n = 200;
        uint64_t begin = clock_usec(CLOCK_MONOTONIC);
        Evidence evidence;

        for (unsigned i = 0; i < n; i++)
                evidence_collect(&pid, 1, &evidence);
        fprintf(stderr, "%-12s %6.1f us\n", name, (double) (clock_usec(CLOCK_MONOTONIC) - begin) / n);
        stop(pid);
}

static void test_cost(void) {
        print_cost("asleep", sleep_for_an_hour);
        print_cost("busy", burn);
        print_cost("21 threads", many_threads);
}

TEST_MAIN(TEST(test_asleep), TEST(test_busy), TEST(test_pipe), TEST(test_socket), TEST(test_file),
          TEST(test_call_without_name), TEST(test_odd_name), TEST(test_stopped), TEST(test_gone),
          TEST(test_threads), TEST(test_many_threads), TEST(test_long_lines), TEST(test_processes),
          TEST(test_many_processes), TEST(test_permissions), TEST(test_hidden_proc), TEST(test_output_in_sandbox),
          TEST(test_output), TEST(test_dies_while_looked_at), TEST(test_cost))
