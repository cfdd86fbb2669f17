/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The guardian.
 *
 * End-of-file on the leash is the sure sign that the unit is down. It may be missing: systemd 257 was seen
 * to keep the FD store of a unit whose restart was overtaken by a stop. So while there is no helper, and
 * only then, PID 1 is asked as well, at growing intervals.
 *
 * It is there for the day on which nobody else is: it has no state but two numbers, no event loop, no timer,
 * no allocation before end-of-file, and it looks at the cgroup only then. Signals mean nothing to it;
 * "systemctl kill" of the whole unit reaches it like everybody.
 *
 * The pipe is in packet mode (O_DIRECT, pipe(2)): a read returns one command, cut to what this build knows
 * of it, and what is too short or has another tag is none. So a command may grow at its end, and may never
 * change its meaning.
 *
 * What is left in the cgroup is signalled process by process, for there may be grandchildren whose
 * parents are gone. Each gets the signal once: many programs take a second SIGTERM for impatience. Rounds
 * end when one has found nobody new, or are cut off: what keeps forking ahead of us has cgroup.kill to
 * expect. */

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "clock.h"
#include "guardian.h"
#include "jobs.h"
#include "log.h"
#include "message-ids.h"
#include "problem.h"
#include "spawn.h"

#define COMMAND_TAG UINT32_C(0x66677031) /* "fgp1" */
#define KILL_TIMEOUT_SEC 10U
#define ROUNDS_MAX 16U
#define QUESTION_USEC (2 * USEC_PER_SEC)
#define PAUSE_MIN_MSEC 250
#define PAUSE_MAX_MSEC 30000

enum {
        VERB_SET = 1,
        VERB_DISMISS = 2,
};

typedef struct Command {
        uint32_t tag;
        uint32_t verb;
        int32_t stop_signal;        /* VERB_SET */
        int32_t helper_pid;         /* VERB_SET: whoever says so */
        uint64_t stop_timeout_usec; /* VERB_SET */
} Command;

static_assert(sizeof(Command) == 24, "a command is the same in all builds");
static_assert(sizeof(Command) <= PIPE_BUF, "a command is written whole or not at all");

int guardian_start(const Cgroup *cgroup, const char *pool_name, const GuardianSettings *settings,
                   int *ret_leash_fd, int *ret_pidfd) {
        _cleanup_close_ int read_fd = -EBADF, leash_fd = -EBADF, exec_fd = -EBADF;
        char signal_text[16], timeout_text[32], pid_text[16];
        int fds[2], r;
        pid_t pid;

        assert(cgroup);
        assert(pool_name);
        assert(settings);
        assert(ret_leash_fd);
        assert(ret_pidfd);

        r = cgroup_kill(cgroup->guardian_fd);
        if (r < 0)
                return r;

        if (pipe2(fds, O_CLOEXEC | O_NONBLOCK | O_DIRECT) < 0)
                return -errno;
        read_fd = fds[0];
        leash_fd = fds[1];

        (void) snprintf(signal_text, sizeof(signal_text), "%d", settings->stop_signal);
        (void) snprintf(timeout_text, sizeof(timeout_text), "%" PRIu64, settings->stop_timeout_usec);
        (void) snprintf(pid_text, sizeof(pid_text), "%d", (int) getpid());

        r = spawn_worker(&(SpawnRequest) {
                .executable = "/proc/self/exe",
                .argv = (char *[]) { (char *) GUARDIAN_NAME, cgroup->workers_path, signal_text, timeout_text,
                                     (char *) pool_name, pid_text, NULL },
                .environment = environ,
                .listener_fd = read_fd,
                .output_fd = -EBADF,
                .cgroup_fd = cgroup->guardian_fd,
                .cgroup_move = cgroup->must_move,
                .block_signals = true,
        }, &pid, ret_pidfd, &exec_fd);
        if (r < 0)
                return r;

        *ret_leash_fd = TAKE_FD(leash_fd);
        return 0;
}

int guardian_is_alive(int leash_fd) {
        struct pollfd p = { .fd = leash_fd };

        assert(leash_fd >= 0);

        if (poll(&p, 1, 0) < 0)
                return -errno;
        if (p.revents & POLLNVAL)
                return -EBADF;
        return !(p.revents & POLLERR);
}

static int send_command(int leash_fd, const Command *command) {
        ssize_t n;

        assert(leash_fd >= 0);

        n = write(leash_fd, command, sizeof(*command));
        if (n < 0)
                return -errno;
        return n == sizeof(*command) ? 0 : -EIO;
}

int guardian_configure(int leash_fd, const GuardianSettings *settings) {
        assert(settings);

        return send_command(leash_fd, &(Command) {
                .tag = COMMAND_TAG,
                .verb = VERB_SET,
                .stop_signal = settings->stop_signal,
                .helper_pid = (int32_t) getpid(),
                .stop_timeout_usec = settings->stop_timeout_usec,
        });
}

int guardian_dismiss(int leash_fd) {
        return send_command(leash_fd, &(Command) { .tag = COMMAND_TAG, .verb = VERB_DISMISS });
}

/* From here on: the guardian process. */

typedef struct Guardian {
        const char *workers_path;
        const char *pool_name;
        GuardianSettings settings;
        int helper_pidfd;           /* -EBADF: there is no helper */
} Guardian;

static bool signal_is_valid(long signo) {
        return signo > 0 && signo < NSIG;
}

static int parse_number(const char *s, uint64_t *ret_number) {
        char *end;

        errno = 0;
        *ret_number = strtoull(s, &end, 10);
        return errno != 0 || end == s || *end ? -EINVAL : 0;
}

static int guardian_parse(int argc, char **argv, Guardian *ret_guardian) {
        uint64_t signo, timeout_usec, pid;
        struct stat st;

        if (argc != 6 || parse_number(argv[2], &signo) < 0 || parse_number(argv[3], &timeout_usec) < 0 ||
            parse_number(argv[5], &pid) < 0 || pid == 0 || pid > INT32_MAX || signo >= NSIG ||
            !signal_is_valid((long) signo))
                return -EINVAL;
        if (fstat(STDIN_FILENO, &st) < 0 || !S_ISFIFO(st.st_mode))
                return -EINVAL;

        *ret_guardian = (Guardian) {
                .workers_path = argv[1],
                .pool_name = argv[4],
                .settings = { .stop_signal = (int) signo, .stop_timeout_usec = timeout_usec },
                .helper_pidfd = getppid() == (pid_t) pid ? pidfd_open((pid_t) pid, 0) : -EBADF,
        };
        return 0;
}

static void guardian_apply(Guardian *g, const Command *command) {
        if (!signal_is_valid(command->stop_signal))
                return;

        g->settings = (GuardianSettings) {
                .stop_signal = command->stop_signal,
                .stop_timeout_usec = command->stop_timeout_usec,
        };
        (void) safe_close(g->helper_pidfd);
        g->helper_pidfd = command->helper_pid > 0 ? pidfd_open(command->helper_pid, 0) : -EBADF;
}

/* Reads one command: 1 to go on, 0 if dismissed (or if the leash cannot be read, which says nothing about
 * the unit), -ESRCH at end-of-file. */
static int guardian_read(Guardian *g) {
        Command command;
        ssize_t n;

        n = read(STDIN_FILENO, &command, sizeof(command));
        if (n == 0)
                return -ESRCH;
        if (n < 0)
                return errno == EAGAIN || errno == EINTR;
        if (n != sizeof(command) || command.tag != COMMAND_TAG)
                return 1;

        if (command.verb == VERB_DISMISS)
                return 0;
        if (command.verb == VERB_SET)
                guardian_apply(g, &command);
        return 1;
}

/* Without a helper: whether the unit is down, whatever the leash says. The leash is let go first, so that
 * a helper that starts now sees that nobody holds it, and finds another guardian; then PID 1 is asked
 * once more. */
static bool guardian_gives_up(void) {
        if (jobs_unit_is_down(QUESTION_USEC) <= 0)
                return false;
        (void) close(STDIN_FILENO);
        if (jobs_unit_is_down(QUESTION_USEC) <= 0)
                _exit(EXIT_SUCCESS);
        return true;
}

/* Sleeps until there is something to do. True if the unit is down, false if dismissed. */
static bool guardian_wait(Guardian *g) {
        int pause_msec = PAUSE_MIN_MSEC;

        for (;;) {
                struct pollfd p[] = {
                        { .fd = STDIN_FILENO, .events = POLLIN },
                        { .fd = g->helper_pidfd, .events = POLLIN },
                };
                int r;

                r = poll(p, ELEMENTSOF(p), g->helper_pidfd >= 0 ? -1 : pause_msec);
                if (r < 0 && errno != EINTR)
                        return false;
                if (r == 0) {
                        if (guardian_gives_up())
                                return true;
                        pause_msec = MIN_OF(pause_msec * 2, PAUSE_MAX_MSEC);
                }
                if (r > 0 && p[1].revents != 0) {
                        g->helper_pidfd = safe_close(g->helper_pidfd);
                        pause_msec = PAUSE_MIN_MSEC;
                }
                if (r > 0 && p[0].revents != 0) {
                        r = guardian_read(g);
                        if (r <= 0)
                                return r < 0;
                }
        }
}

/* One line about n processes. */
static void _printf_(5, 6) guardian_log(const Guardian *g, int priority, const char *message_id, size_t n,
                                        const char *format, ...) {
        char pool_field[256], n_field[64];
        const char *const fields[] = { pool_field, n_field, NULL };
        va_list ap;

        (void) snprintf(pool_field, sizeof(pool_field), "FCGI_POOL=%s", g->pool_name);
        (void) snprintf(n_field, sizeof(n_field), "N_PROCESSES=%zu", n);
        va_start(ap, format);
        log_writev(priority, message_id, fields, format, ap);
        va_end(ap);
}

/* Waits until no process is left in the cgroup: 1, or 0 when deadline_usec has come first, or negative
 * errno. kernfs: a change of cgroup.events since the last read is POLLPRI. */
static int wait_unpopulated(int cgroup_fd, uint64_t deadline_usec) {
        _cleanup_close_ int fd = -EBADF;

        fd = openat(cgroup_fd, "cgroup.events", O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return errno == ENOENT ? 1 : -errno;

        for (;;) {
                struct pollfd p = { .fd = fd, .events = POLLPRI };
                uint64_t left_usec;
                struct timespec ts;
                char text[256];
                ssize_t n;

                n = pread(fd, text, sizeof(text) - 1, 0);
                if (n < 0)
                        return errno == ENODEV ? 1 : -errno;
                text[n] = '\0';
                if (!strstr(text, "populated 1"))
                        return 1;

                left_usec = usec_sub(deadline_usec, clock_now_usec());
                if (left_usec == 0)
                        return 0;
                ts.tv_sec = (time_t) (left_usec / USEC_PER_SEC);
                ts.tv_nsec = (long) (left_usec % USEC_PER_SEC) * 1000;
                if (ppoll(&p, 1, left_usec == USEC_INFINITY ? NULL : &ts, NULL) < 0 && errno != EINTR)
                        return -errno;
        }
}

static size_t count_processes(int cgroup_fd) {
        _cleanup_free_ pid_t *pids = NULL;
        size_t n = 0;

        return cgroup_list(cgroup_fd, &pids, &n) < 0 ? 0 : n;
}

/* The stop signal for everybody, once each. */
static void ask_to_stop(const Guardian *g, int cgroup_fd) {
        _cleanup_(pid_set_clear) PidSet done = {};

        for (unsigned i = 0; i < ROUNDS_MAX; i++)
                if (cgroup_signal(cgroup_fd, g->settings.stop_signal, &done) <= 0)
                        return; /* on an error, too: there is still the deadline */
}

/* SIGKILL for everybody: 1 if they are gone, 0 if some are not, or negative errno. */
static int kill_all(int cgroup_fd) {
        int r = 0;

        /* More than once for kernels on which forks can escape. */
        for (unsigned i = 0; r == 0 && i < KILL_TIMEOUT_SEC; i++) {
                r = cgroup_kill(cgroup_fd);
                if (r >= 0)
                        r = wait_unpopulated(cgroup_fd, usec_add(clock_now_usec(), USEC_PER_SEC));
        }
        return r;
}

static int guardian_end(const Guardian *g) {
        uint64_t deadline_usec = usec_add(clock_now_usec(), g->settings.stop_timeout_usec);
        _cleanup_close_ int cgroup_fd = -EBADF;
        char span[64];
        size_t n;
        int r;

        cgroup_fd = open(g->workers_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        r = cgroup_fd < 0 ? -errno : cgroup_is_populated(cgroup_fd);
        if (r == 0 || r == -ENOENT)
                return EXIT_SUCCESS;

        if (r > 0) {
                n = count_processes(cgroup_fd);
                guardian_log(g, LOG_NOTICE, MESSAGE_ORPHANS_FOUND, n,
                             "the unit is down, but %zu processes of its pool are left: stopping them with "
                             "signal %d, SIGKILL after %s", n, g->settings.stop_signal,
                             clock_format_span(span, sizeof(span), g->settings.stop_timeout_usec));
                ask_to_stop(g, cgroup_fd);
                r = wait_unpopulated(cgroup_fd, deadline_usec);
        }
        if (r > 0) {
                guardian_log(g, LOG_NOTICE, MESSAGE_ORPHANS_ENDED, 0, "the pool's processes have ended");
                return EXIT_SUCCESS;
        }

        n = cgroup_fd < 0 ? 0 : count_processes(cgroup_fd);
        if (cgroup_fd >= 0)
                r = kill_all(cgroup_fd);
        if (r > 0) {
                guardian_log(g, LOG_WARNING, MESSAGE_ORPHANS_ENDED, n,
                             "the pool's processes have ended, %zu of them by SIGKILL", n);
                return EXIT_SUCCESS;
        }

        errno = r < 0 ? -r : ETIMEDOUT;
        n = cgroup_fd < 0 ? 0 : count_processes(cgroup_fd);
        guardian_log(g, LOG_ERR, MESSAGE_ORPHANS_LEFT, n,
                     "%s: processes of the pool are left, %zu known: %m", g->workers_path, n);
        return EXIT_FAILURE;
}

int guardian_run(int argc, char **argv) {
        Guardian guardian;
        sigset_t all;

        (void) sigfillset(&all);
        (void) sigprocmask(SIG_SETMASK, &all, NULL);
        (void) prctl(PR_SET_NAME, "fcgi-pool-guard"); /* it would be "exe" */

        if (guardian_parse(argc, argv, &guardian) < 0) {
                log_error("%s: not started by fcgi-pool; this is no command", GUARDIAN_NAME);
                return EXIT_STATUS_INVALID_ARGUMENT;
        }

        return guardian_wait(&guardian) ? guardian_end(&guardian) : EXIT_SUCCESS;
}
