/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SPDX-FileCopyrightText: fcgi-pool contributors */

/* Measures how fast a dead worker is replaced: from SIGKILL to the moment the kernel shows the replacement
 * blocked in accept() or accept4() on fd 0. The detector is the same whoever does the replacing:
 *
 *   fork-exec-bench [OPTIONS] -- PROGRAM ...     itself, by bare fork and exec: the floor
 *   fork-exec-bench [OPTIONS] --watch=PID        a running manager, its workers being its descendants
 *
 * The moment is read from /proc/PID/syscall every 20 us, at real-time priority (SCHED_FIFO). A busy loop
 * would hold its CPU for a whole time slice (3 to 5 ms) whenever manager or worker are woken on the same
 * one, and the figures would show that slice and little else; SCHED_IDLE does not help, since the
 * scheduler compares processes of different sessions by their autogroups (sched(7)), which have no such
 * policy. A look takes up to 50 us, and whoever shares a CPU with the detector gets what is left, at the
 * price of two context switches a look: so of several CPUs the last is the detector's, and the manager,
 * with what it starts meanwhile, is kept off it. Still, measure on a machine that is otherwise idle, and
 * compare figures from one machine only. Workers that wait by epoll, poll or select are not seen. The clock
 * starts before the signal is sent.
 */

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "tool.h"

#define PIDS_MAX 65536
#define LOOK_NSEC (20 * 1000)

typedef struct Bench {
        const char *listen;
        pid_t watch;
        bool recursive;
        uint64_t n_rounds;
        uint64_t settle_msec;
        uint64_t timeout_nsec;
        char **command;
        uint64_t *samples; /* nanoseconds, n_rounds */
        size_t n_samples;
} Bench;

typedef struct PidSet {
        pid_t *pids;
        size_t n;
} PidSet;

/* ---- the detector ------------------------------------------------------------------------------------ */

/* Whether the system call file shows accept() or accept4() on fd 0. While the process runs it says so. -ESRCH
 * if there is no such process any more. */
static int is_accepting(int syscall_fd) {
        char text[256], *end = NULL;
        ssize_t n = pread(syscall_fd, text, sizeof(text) - 1, 0);
        long number;

        if (n < 0 && errno == ESRCH)
                return -ESRCH;
        if (n <= 0)
                return false;
        text[n] = '\0';
        number = strtol(text, &end, 10);
        return end != text && (number == SYS_accept || number == SYS_accept4) &&
               strncmp(end, " 0x0 ", 5) == 0;
}

static int open_syscall(pid_t pid) {
        char path[64];

        snprintf(path, sizeof(path), "/proc/%d/syscall", (int) pid);
        return open(path, O_RDONLY | O_CLOEXEC);
}

static bool pid_is_accepting(pid_t pid) {
        _cleanup_close_ int fd = open_syscall(pid);

        return fd >= 0 && is_accepting(fd) > 0;
}

/* Where it is refused (no privilege, no real-time share for this cgroup) the figures are coarser, no
 * more. What is spawned is an ordinary process again. */
static void raise_priority(void) {
        if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &(struct sched_param) { .sched_priority = 1 }) < 0)
                fprintf(stderr, "fork-exec-bench: no real-time priority: %s\n", strerror(errno));
        /* Priority or not, pauses shall be no longer than asked for. */
        prctl(PR_SET_TIMERSLACK, 1UL);
}

static void pause_between_looks(void) {
        nanosleep(&(struct timespec) { .tv_nsec = LOOK_NSEC }, NULL);
}

/* False if it has gone, or does not in time. */
static bool wait_accepting(pid_t pid, uint64_t deadline) {
        _cleanup_close_ int fd = open_syscall(pid);
        int r = fd >= 0 ? is_accepting(fd) : -ESRCH;

        while (r == 0 && now_nsec() <= deadline) {
                pause_between_looks();
                r = is_accepting(fd);
        }
        return r > 0;
}

/* ---- bare fork and exec ------------------------------------------------------------------------------ */

static pid_t spawn(const Bench *b) {
        pid_t pid = fork();

        if (pid < 0)
                fail(EXIT_FAILURE, "fork: %s", strerror(errno));
        if (pid == 0) {
                execvp(b->command[0], b->command);
                _exit(127);
        }
        return pid;
}

static void reap(int pidfd) {
        struct pollfd p = { .fd = pidfd, .events = POLLIN };
        siginfo_t info;

        while (poll(&p, 1, -1) < 0 && errno == EINTR)
                continue;
        if (waitid(P_PIDFD, (id_t) pidfd, &info, WEXITED) < 0)
                fail(EXIT_FAILURE, "waitid: %s", strerror(errno));
}

static void bench_bare(Bench *b) {
        pid_t pid = spawn(b);

        if (!wait_accepting(pid, now_nsec() + b->timeout_nsec))
                fail(EXIT_FAILURE, "%s never waited in accept on fd 0", b->command[0]);

        for (uint64_t i = 0; i <= b->n_rounds; i++) {
                _cleanup_close_ int pidfd = pidfd_open(pid, 0);
                uint64_t begin;

                if (pidfd < 0)
                        fail(EXIT_FAILURE, "pidfd_open: %s", strerror(errno));
                if (b->settle_msec > 0)
                        sleep_msec(b->settle_msec);
                begin = now_nsec();
                pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
                reap(pidfd);
                if (i == b->n_rounds)
                        return;

                pid = spawn(b);
                if (!wait_accepting(pid, begin + b->timeout_nsec))
                        fail(EXIT_FAILURE, "round %" PRIu64 ": no replacement in time", i);
                b->samples[b->n_samples++] = now_nsec() - begin;
        }
}

/* ---- a running manager ------------------------------------------------------------------------------- */

static void pid_set_add_children(PidSet *set, pid_t parent, bool recursive);

static void pid_set_add_task(PidSet *set, const char *path, bool recursive) {
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
        char text[65536], *p = text;
        ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : 0;

        text[n > 0 ? n : 0] = '\0';
        for (;;) {
                char *end = NULL;
                long pid = strtol(p, &end, 10);

                if (end == p || set->n == PIDS_MAX)
                        return;
                p = end;
                set->pids[set->n++] = (pid_t) pid;
                if (recursive)
                        pid_set_add_children(set, (pid_t) pid, true);
        }
}

static void pid_set_add_children(PidSet *set, pid_t parent, bool recursive) {
        char path[64 + 256];
        struct dirent *entry;
        DIR *d;

        snprintf(path, sizeof(path), "/proc/%d/task", (int) parent);
        d = opendir(path);
        if (!d)
                return;
        while ((entry = readdir(d)))
                if (entry->d_name[0] != '.') {
                        snprintf(path, sizeof(path), "/proc/%d/task/%s/children",
                                 (int) parent, entry->d_name);
                        pid_set_add_task(set, path, recursive);
                }
        closedir(d);
}

static void pid_set_read(PidSet *set, const Bench *b) {
        set->n = 0;
        pid_set_add_children(set, b->watch, b->recursive);
}

static bool pid_set_has(const PidSet *set, pid_t pid) {
        for (size_t i = 0; i < set->n; i++)
                if (set->pids[i] == pid)
                        return true;
        return false;
}

/* The oldest child that waits in accept now, so that each in its turn has a rest from its start; ends the
 * program if there is none for too long. */
static pid_t choose_worker(const Bench *b, PidSet *set) {
        uint64_t deadline = now_nsec() + b->timeout_nsec;

        for (;;) {
                pid_set_read(set, b);
                for (size_t i = 0; i < set->n; i++)
                        if (pid_is_accepting(set->pids[i]))
                                return set->pids[i];
                if (now_nsec() > deadline)
                        fail(EXIT_FAILURE, "process %d: no child of it waits in accept on fd 0",
                             (int) b->watch);
                sleep_msec(1);
        }
}

/* Waits for a child that is not in the set. Returns its pid, 0 if none came in time. */
static pid_t wait_new_child(const Bench *b, const PidSet *before, PidSet *scratch, uint64_t deadline) {
        while (now_nsec() < deadline) {
                pid_set_read(scratch, b);
                for (size_t i = 0; i < scratch->n; i++)
                        if (!pid_set_has(before, scratch->pids[i]))
                                return scratch->pids[i];
                pause_between_looks();
        }
        return 0;
}

/* What keep_off_our_cpu() has changed, for atexit(3). */
static struct {
        cpu_set_t cpus;
        PidSet set;
} kept_off;

static void let_go(void) {
        for (size_t i = 0; i < kept_off.set.n; i++)
                (void) sched_setaffinity(kept_off.set.pids[i], sizeof(cpu_set_t), &kept_off.cpus);
        free(kept_off.set.pids);
}

/* Those that may start a worker, until we end. What they start has their CPUs. */
static void keep_off_our_cpu(const Bench *b) {
        cpu_set_t cpus, others, ours;
        int last = CPU_SETSIZE - 1;

        if (sched_getaffinity(0, sizeof(cpus), &cpus) < 0)
                fail(EXIT_FAILURE, "sched_getaffinity: %s", strerror(errno));
        if (CPU_COUNT(&cpus) < 2)
                return;
        while (!CPU_ISSET(last, &cpus))
                last--;
        CPU_ZERO(&ours);
        CPU_SET(last, &ours);
        others = cpus;
        CPU_CLR(last, &others);

        kept_off.cpus = cpus;
        kept_off.set.pids = calloc(PIDS_MAX, sizeof(pid_t));
        if (!kept_off.set.pids)
                fail(EXIT_FAILURE, "out of memory");
        kept_off.set.pids[kept_off.set.n++] = b->watch;
        if (b->recursive)
                pid_set_add_children(&kept_off.set, b->watch, true);
        if (atexit(let_go) != 0)
                fail(EXIT_FAILURE, "atexit failed");
        for (size_t i = 0; i < kept_off.set.n; i++)
                if (sched_setaffinity(kept_off.set.pids[i], sizeof(others), &others) < 0 && errno != ESRCH)
                        fail(EXIT_FAILURE, "sched_setaffinity of %d: %s", (int) kept_off.set.pids[i],
                             strerror(errno));
        if (sched_setaffinity(0, sizeof(ours), &ours) < 0)
                fail(EXIT_FAILURE, "sched_setaffinity: %s", strerror(errno));
}

static void bench_watch(Bench *b) {
        PidSet before = { .pids = calloc(PIDS_MAX, sizeof(pid_t)) };
        PidSet after = { .pids = calloc(PIDS_MAX, sizeof(pid_t)) };

        if (!before.pids || !after.pids)
                fail(EXIT_FAILURE, "out of memory");
        keep_off_our_cpu(b);

        for (uint64_t i = 0; i < b->n_rounds; i++) {
                _cleanup_close_ int pidfd = -EBADF;
                uint64_t begin, deadline;
                pid_t victim, pid;

                sleep_msec(b->settle_msec);
                victim = choose_worker(b, &before);
                pidfd = pidfd_open(victim, 0);
                if (pidfd < 0)
                        fail(EXIT_FAILURE, "pidfd_open: %s", strerror(errno));
                begin = now_nsec();
                deadline = begin + b->timeout_nsec;
                if (pidfd_send_signal(pidfd, SIGKILL, NULL, 0) < 0)
                        fail(EXIT_FAILURE, "cannot kill %d: %s", (int) victim, strerror(errno));

                /* An intermediate child may come first, and go again. */
                do {
                        pid = wait_new_child(b, &before, &after, deadline);
                        if (pid == 0)
                                fail(EXIT_FAILURE, "round %" PRIu64 ": no replacement for %d in time",
                                     i, (int) victim);
                        before.pids[before.n < PIDS_MAX ? before.n++ : 0] = pid;
                } while (!wait_accepting(pid, deadline));
                b->samples[b->n_samples++] = now_nsec() - begin;
        }

        free(before.pids);
        free(after.pids);
}

/* ---- the rest ---------------------------------------------------------------------------------------- */

static int compare_u64(const void *a, const void *b) {
        uint64_t x = *(const uint64_t *) a, y = *(const uint64_t *) b;

        return (x > y) - (x < y);
}

static double sample_usec(const Bench *b, double share) {
        size_t i = (size_t) (share * (double) b->n_samples);

        return (double) b->samples[i < b->n_samples ? i : b->n_samples - 1] / (double) NSEC_PER_USEC;
}

static void bench_print(Bench *b) {
        qsort(b->samples, b->n_samples, sizeof(uint64_t), compare_u64);
        printf("{\"mode\":\"%s\",\"rounds\":%zu,\"usec\":{\"min\":%.1f,\"p50\":%.1f,\"p90\":%.1f,"
               "\"p99\":%.1f,\"max\":%.1f}}\n",
               b->watch ? "watch" : "fork-exec", b->n_samples, sample_usec(b, 0), sample_usec(b, 0.5),
               sample_usec(b, 0.9), sample_usec(b, 0.99), sample_usec(b, 1));
}

/* Puts a listening socket on fd 0: a new one, or the one that is there. */
static void take_listener(const Bench *b) {
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        _cleanup_close_ int fd = -EBADF;
        int listening = 0;

        if (!b->listen) {
                socklen_t n = sizeof(listening);

                getsockopt(STDIN_FILENO, SOL_SOCKET, SO_ACCEPTCONN, &listening, &n);
                if (!listening)
                        fail(EXIT_USAGE, "fd 0 is not a listening socket; give one, or --listen=PATH");
                return;
        }

        if (strlen(b->listen) >= sizeof(a.sun_path))
                fail(EXIT_USAGE, "--listen=%s: the path is too long", b->listen);
        memcpy(a.sun_path, b->listen, strlen(b->listen) + 1);
        unlink(b->listen);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || bind(fd, (struct sockaddr *) &a, sizeof(a)) < 0 || listen(fd, 4096) < 0 ||
            dup2(fd, STDIN_FILENO) < 0)
                fail(EXIT_FAILURE, "--listen=%s: %s", b->listen, strerror(errno));
}

static void usage(FILE *f) {
        fputs("Usage: fork-exec-bench [OPTIONS] -- PROGRAM [ARGUMENTS]\n"
              "       fork-exec-bench [OPTIONS] --watch=PID\n"
              "Measures the time from SIGKILL of a worker until its replacement waits in accept on fd 0;\n"
              "prints one JSON object with microseconds.\n\n"
              "      --rounds=N         default 200\n"
              "      --settle=MS        pause before each round (default 0, with --watch 20)\n"
              "      --timeout=SECONDS  for one round (default 10)\n"
              "      --listen=PATH      make an AF_UNIX listener for PROGRAM; otherwise fd 0 must be one\n"
              "      --watch=PID        this process does the replacing; its children are the workers\n"
              "      --recursive        with --watch: children of children too\n"
              "      --help\n",
              f);
}

static void bench_parse(Bench *b, int argc, char *argv[]) {
        static const struct option option_table[] = {
                { "rounds", required_argument, NULL, 'n' },
                { "settle", required_argument, NULL, 's' },
                { "timeout", required_argument, NULL, 't' },
                { "listen", required_argument, NULL, 'l' },
                { "watch", required_argument, NULL, 'w' },
                { "recursive", no_argument, NULL, 'r' },
                { "help", no_argument, NULL, 'h' },
                {},
        };
        bool settle_given = false;
        int c;

        *b = (Bench) { .n_rounds = 200, .timeout_nsec = 10 * NSEC_PER_SEC };
        while ((c = getopt_long(argc, argv, "+", option_table, NULL)) >= 0)
                switch (c) {
                case 'n':
                        b->n_rounds = parse_number("--rounds", optarg, 10000000);
                        break;
                case 's':
                        b->settle_msec = parse_number("--settle", optarg, 3600000);
                        settle_given = true;
                        break;
                case 't':
                        b->timeout_nsec = parse_seconds("--timeout", optarg);
                        break;
                case 'l':
                        b->listen = optarg;
                        break;
                case 'w':
                        b->watch = (pid_t) parse_number("--watch", optarg, INT_MAX);
                        break;
                case 'r':
                        b->recursive = true;
                        break;
                case 'h':
                        usage(stdout);
                        exit(EXIT_SUCCESS);
                default:
                        fail(EXIT_USAGE, "try --help");
                }

        b->command = argv + optind;
        if ((b->watch > 0) == (optind < argc) || b->n_rounds == 0)
                fail(EXIT_USAGE, "expected a program or --watch=PID, and at least one round; try --help");
        if (b->watch > 0 && !settle_given)
                b->settle_msec = 20;
}

int main(int argc, char *argv[]) {
        Bench b;

        bench_parse(&b, argc, argv);
        b.samples = calloc((size_t) b.n_rounds, sizeof(uint64_t));
        if (!b.samples)
                fail(EXIT_FAILURE, "out of memory");

        raise_priority();
        if (b.watch > 0)
                bench_watch(&b);
        else {
                take_listener(&b);
                bench_bare(&b);
        }
        bench_print(&b);
        free(b.samples);
        return EXIT_SUCCESS;
}
