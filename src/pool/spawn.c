/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The child runs on a copy of our memory, made without the C library's knowledge: between fork and exec it
 * makes only async-signal-safe calls, and everything it needs is built before. Its one way to complain is
 * the exec pipe.
 *
 * Signals: all are blocked around the fork, so that none of our handlers runs in the child; what is sent to
 * the child meanwhile stays pending, even if we ignore that signal (a blocked signal is never discarded),
 * and acts once the dispositions are default and the mask is empty. CLONE_CLEAR_SIGHAND (clone(2), Linux
 * 5.5) resets handlers but leaves ignored signals ignored, and execve(2) does so too, so we reset all by
 * hand.
 *
 * Descriptors: every source is first moved above the numbers that a worker uses, so no dup2(2) can
 * overwrite what is still needed, whatever the overlap. close_range(2) with CLOSE_RANGE_CLOEXEC (Linux
 * 5.11) lets execve() close the rest; the exec pipe thus lives exactly as long as it must. A worker without
 * fd 1 or 2 would get a client's connection there and print into the protocol, so what is closed becomes
 * /dev/null. So does a close-on-exec one: it was not given to us, it is something of ours that landed on a
 * free number (the exec pipe, for one).
 *
 * clone3(2) is tried at each spawn: where it is refused (seccomp, emulation) the attempt costs far less
 * than a fork, and nothing needs to be remembered. After a plain fork(2) the child waits at a gate until we
 * hold its pidfd and have moved it into its cgroup, so that no worker gets loose that nobody watches or in
 * the wrong place, and so that both ways fail with the same result of spawn_worker(). */

#include <fcntl.h>
#include <inttypes.h>
#include <linux/close_range.h>
#include <linux/magic.h>
#include <linux/sched.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include "privileges.h"
#include "spawn.h"

enum {
        ACTIVATION_FD = 3,   /* SD_LISTEN_FDS_START of sd_listen_fds(3) */
        FIRST_UNUSED_FD = 4, /* no worker is given this one or any above */
        EXIT_EXEC = 203,     /* systemd.exec(5), "Process Exit Codes" */
};

#define LISTEN_PID "LISTEN_PID="
#define LISTEN_PID_ROOM "0000000000" /* as many digits as a pid_t can have */

static_assert(sizeof(pid_t) <= 4, "LISTEN_PID_ROOM is too short");

/* Where the value of LISTEN_PID is to be written; NULL if the environment has no room for one. */
static char *environment_listen_pid(char **environment) {
        for (char **e = environment; *e; e++)
                if (startswith(*e, LISTEN_PID)) {
                        char *value = *e + strlen(LISTEN_PID);

                        return strlen(value) >= strlen(LISTEN_PID_ROOM) ? value : NULL;
                }

        return NULL;
}

/* Writes pid over the room at value. */
static void child_write_pid(char *value, pid_t pid) {
        char digits[sizeof(LISTEN_PID_ROOM)];
        size_t n = 0;

        do {
                digits[n++] = (char) ('0' + pid % 10);
                pid /= 10;
        } while (pid > 0);

        while (n > 0)
                *value++ = digits[--n];
        *value = '\0';
}

/* A number for fd above those that a worker uses, fd itself if it is there already. */
static int child_lift_fd(int fd) {
        int lifted_fd;

        if (fd >= FIRST_UNUSED_FD)
                return fd;

        lifted_fd = fcntl(fd, F_DUPFD_CLOEXEC, FIRST_UNUSED_FD);
        return lifted_fd < 0 ? -errno : lifted_fd;
}

/* Leaves target as we inherited it, or opens /dev/null there. */
static int child_inherit_output(int target, int listener_fd) {
        int flags, null_fd;

        flags = fcntl(target, F_GETFD);
        if (flags >= 0 && !(flags & FD_CLOEXEC) && target != listener_fd)
                return 0;

        null_fd = open("/dev/null", O_RDWR | O_NOCTTY);
        if (null_fd < 0)
                return -errno;
        if (null_fd != target && dup2(null_fd, target) < 0)
                return -errno;

        return 0; /* a null_fd of neither 1 nor 2 is closed with the rest */
}

static int child_arrange_fds(const SpawnRequest *request) {
        int first_surplus = request->socket_activation ? ACTIVATION_FD + 1 : ACTIVATION_FD;
        int listener_fd, output_fd = -EBADF, r;

        listener_fd = child_lift_fd(request->listener_fd);
        if (listener_fd < 0)
                return listener_fd;

        if (request->output_fd >= 0) {
                output_fd = child_lift_fd(request->output_fd);
                if (output_fd < 0)
                        return output_fd;
        }

        if (dup2(listener_fd, STDIN_FILENO) < 0)
                return -errno;

        for (int target = STDOUT_FILENO; target <= STDERR_FILENO; target++)
                if (output_fd >= 0) {
                        if (dup2(output_fd, target) < 0)
                                return -errno;
                } else {
                        r = child_inherit_output(target, request->listener_fd);
                        if (r < 0)
                                return r;
                }

        if (request->socket_activation && dup2(listener_fd, ACTIVATION_FD) < 0)
                return -errno;

        return close_range((unsigned) first_surplus, ~0U, CLOSE_RANGE_CLOEXEC) < 0 ? -errno : 0;
}

/* Every disposition first, the mask last: a signal that is pending must find its default action. */
static int child_reset_signals(bool block) {
        const struct sigaction action = { .sa_handler = SIG_DFL };
        sigset_t none;

        for (int signo = 1; signo < NSIG; signo++)
                if (signo != SIGKILL && signo != SIGSTOP && sigaction(signo, &action, NULL) < 0 &&
                    errno != EINVAL) /* EINVAL: kept by the C library for itself, and never ignored */
                        return -errno;

        if (block) /* as they are since before the fork */
                return 0;

        (void) sigemptyset(&none);
        return sigprocmask(SIG_SETMASK, &none, NULL) < 0 ? -errno : 0;
}

static int child_execute(const SpawnRequest *request, char *listen_pid) {
        int r;

        r = privileges_raise_ambient(request->worker_capabilities);
        if (r < 0)
                return r;

        r = child_arrange_fds(request);
        if (r < 0)
                return r;

        if (listen_pid)
                child_write_pid(listen_pid, getpid());

        r = child_reset_signals(request->block_signals);
        if (r < 0)
                return r;

        (void) execve(request->executable, request->argv, request->environment);
        return -errno;
}

static _noreturn_ void child_run(const SpawnRequest *request, char *listen_pid, int exec_fd) {
        ssize_t n;
        int error, r;

        r = child_lift_fd(exec_fd);
        if (r >= 0) {
                exec_fd = r;
                r = child_execute(request, listen_pid);
        }

        error = -r;
        n = write(exec_fd, &error, sizeof(error));
        (void) n; /* there is nobody else to tell */
        _exit(EXIT_EXEC);
}

/* Returns 0 in the child, its pid in the parent, or negative errno. */
static pid_t process_clone(int cgroup_fd, int *ret_pidfd) {
        int pidfd = -EBADF;
        struct clone_args args = {
                .flags = CLONE_PIDFD | CLONE_CLEAR_SIGHAND | (cgroup_fd >= 0 ? CLONE_INTO_CGROUP : 0),
                .pidfd = (uint64_t) (uintptr_t) &pidfd,
                .exit_signal = SIGCHLD,
                .cgroup = cgroup_fd >= 0 ? (uint64_t) cgroup_fd : 0,
        };
        pid_t pid;

        pid = (pid_t) syscall(SYS_clone3, &args, sizeof(args));
        if (pid < 0)
                return errno == ENOENT ? -ENODEV : -errno; /* the kernel says either of a removed cgroup */
        if (pid > 0)
                *ret_pidfd = pidfd;

        return pid;
}

int spawn_move(int cgroup_fd, pid_t pid) {
        _cleanup_close_ int fd = -EBADF;
        char text[16];
        struct statfs sfs;
        int n;

        /* Any directory may have a file of that name. */
        if (fstatfs(cgroup_fd, &sfs) < 0)
                return -errno;
        if (sfs.f_type != CGROUP2_SUPER_MAGIC)
                return -EBADF;

        fd = openat(cgroup_fd, "cgroup.procs", O_WRONLY | O_CLOEXEC);
        if (fd < 0)
                return errno == ENOENT ? -ENODEV : -errno;
        n = snprintf(text, sizeof(text), "%d", (int) pid);
        return write(fd, text, (size_t) n) < 0 ? -errno : 0;
}

/* What must be done before the child may pass the gate. */
static int process_prepare(pid_t pid, int cgroup_fd, int *ret_pidfd) {
        _cleanup_close_ int pidfd = -EBADF;
        int r;

        pidfd = (int) syscall(SYS_pidfd_open, pid, 0);
        if (pidfd < 0)
                return -errno;
        r = cgroup_fd >= 0 ? spawn_move(cgroup_fd, pid) : 0;
        if (r < 0)
                return r;

        *ret_pidfd = TAKE_FD(pidfd);
        return 0;
}

/* As process_clone(), from fork(2), pidfd_open(2), cgroup.procs and a gate. */
static pid_t process_fork(int cgroup_fd, int *ret_pidfd) {
        _cleanup_close_ int wait_fd = -EBADF, open_fd = -EBADF, pidfd = -EBADF;
        int gate[2], r;
        siginfo_t si;
        pid_t pid;
        char c = 0;

        if (pipe2(gate, O_CLOEXEC) < 0)
                return -errno;
        wait_fd = gate[0];
        open_fd = gate[1];

        pid = fork();
        if (pid < 0)
                return -errno;
        if (pid == 0) {
                open_fd = safe_close(open_fd);
                if (read(wait_fd, &c, 1) != 1)
                        _exit(EXIT_EXEC);
                return 0;
        }

        r = process_prepare(pid, cgroup_fd, &pidfd);
        /* We hold the reading end too: the write cannot fail, not even if the child was killed meanwhile. */
        if (r >= 0 && write(open_fd, &c, 1) == 1) {
                *ret_pidfd = TAKE_FD(pidfd);
                return pid;
        }

        /* End-of-file at the gate ends the child at once, so that waiting for it is no waiting. */
        open_fd = safe_close(open_fd);
        (void) waitid(P_PID, (id_t) pid, &si, WEXITED);
        return r < 0 ? r : -EIO;
}

/* Were one of these errors about the cgroup after all, the second way would meet it too. */
static bool is_clone_missing(int r) {
        return r == -ENOSYS || r == -EPERM || r == -EINVAL;
}

static pid_t process_new(const SpawnRequest *request, int *ret_pidfd) {
        pid_t pid;

        if (request->cgroup_fd >= 0 && request->cgroup_move)
                return process_fork(request->cgroup_fd, ret_pidfd);

        pid = process_clone(request->cgroup_fd, ret_pidfd);
        return is_clone_missing(pid) ? process_fork(request->cgroup_fd, ret_pidfd) : pid;
}

int spawn_probe_cgroup(int cgroup_fd) {
        _cleanup_close_ int pidfd = -EBADF;
        sigset_t all, saved;
        siginfo_t si = {};
        pid_t pid;

        assert(cgroup_fd > STDERR_FILENO);

        (void) sigfillset(&all);
        if (sigprocmask(SIG_SETMASK, &all, &saved) < 0)
                return -errno;
        pid = process_clone(cgroup_fd, &pidfd);
        if (pid == 0)
                _exit(0);
        (void) sigprocmask(SIG_SETMASK, &saved, NULL);

        if (pid < 0)
                return is_clone_missing(pid) ? (int) SPAWN_NO_CLONE : pid;
        while (waitid(P_PIDFD, (id_t) pidfd, &si, WEXITED) < 0)
                if (errno != EINTR)
                        return -errno;
        return si.si_code == CLD_EXITED ? SPAWN_BIRTH_FINE : SPAWN_BIRTH_KILLED;
}

int spawn_worker(const SpawnRequest *request, pid_t *ret_pid, int *ret_pidfd, int *ret_exec_fd) {
        _cleanup_close_ int read_fd = -EBADF, write_fd = -EBADF;
        int exec_pipe[2], pidfd = -EBADF;
        sigset_t all, saved;
        char *listen_pid = NULL;
        pid_t pid;

        assert(request);
        assert(request->executable);
        assert(request->argv);
        assert(request->environment);
        assert(request->listener_fd >= 0);
        assert(request->cgroup_fd < 0 || request->cgroup_fd > STDERR_FILENO); /* 0: forgotten */
        assert(ret_pid);
        assert(ret_pidfd);
        assert(ret_exec_fd);

        if (request->socket_activation) {
                listen_pid = environment_listen_pid(request->environment);
                assert(listen_pid);
        }

        /* Non-blocking at both ends is right: one int always fits. */
        if (pipe2(exec_pipe, O_CLOEXEC | O_NONBLOCK) < 0)
                return -errno;
        read_fd = exec_pipe[0];
        write_fd = exec_pipe[1];

        (void) sigfillset(&all);
        if (sigprocmask(SIG_SETMASK, &all, &saved) < 0)
                return -errno;

        pid = process_new(request, &pidfd);
        if (pid == 0)
                child_run(request, listen_pid, write_fd);

        (void) sigprocmask(SIG_SETMASK, &saved, NULL);
        if (pid < 0)
                return pid;
        (void) sched_yield(); /* The child is on our CPU as a rule, and more urgent than what we do next. */

        *ret_pid = pid;
        *ret_pidfd = pidfd;
        *ret_exec_fd = TAKE_FD(read_fd);
        return 0;
}

int spawn_read_exec_fd(int exec_fd) {
        ssize_t n;
        int error;

        assert(exec_fd >= 0);

        do
                n = read(exec_fd, &error, sizeof(error));
        while (n < 0 && errno == EINTR);

        if (n < 0)
                return errno == EAGAIN ? 0 : -errno;
        if (n == 0)
                return 1;

        return n == sizeof(error) && error > 0 ? -error : -EIO;
}

/* True if assignment must not reach a worker: PID 1's word to us alone, or ours to replace. By full name:
 * LISTEN_ADDR and the like are the application's. */
static bool environment_is_withheld(const char *assignment, bool journal_stream) {
        static const char *const prefixes[] = {
                "LISTEN_PID=", "LISTEN_PIDFDID=", "LISTEN_FDS=", "LISTEN_FDNAMES=",
                "WATCHDOG_USEC=", "WATCHDOG_PID=",
                "NOTIFY_SOCKET=", "FDSTORE=", "SYSTEMD_EXEC_PID=", "MAINPID=", "MAINPIDFDID=",
                "FCGI_POOL_OPTIONS=", "FCGI_POOL_COMMAND=",
                "FCGI_POOL_NAME=", "FCGI_POOL_SLOT=", "FCGI_POOL_GENERATION=",
        };

        for (size_t i = 0; i < ELEMENTSOF(prefixes); i++)
                if (startswith(assignment, prefixes[i]))
                        return true;

        return journal_stream && startswith(assignment, "JOURNAL_STREAM=");
}

/* Appends one assignment, for which the caller left room. */
static int _printf_(3, 4) environment_add(char **environment, size_t *n, const char *format, ...) {
        va_list ap;
        char *s;
        int k;

        va_start(ap, format);
        k = vasprintf(&s, format, ap);
        va_end(ap);
        if (k < 0)
                return -ENOMEM;

        environment[(*n)++] = s;
        return 0;
}

static int environment_add_parameters(char **environment, size_t *n, const SpawnEnvironment *parameters) {
        struct stat st;
        int r;

        r = environment_add(environment, n, "FCGI_POOL_NAME=%s", parameters->pool_name);
        if (r >= 0)
                r = environment_add(environment, n, "FCGI_POOL_SLOT=%u", parameters->slot);
        if (r >= 0)
                r = environment_add(environment, n, "FCGI_POOL_GENERATION=%" PRIu64, parameters->generation);
        if (r >= 0 && parameters->notify_socket)
                r = environment_add(environment, n, "NOTIFY_SOCKET=%s", parameters->notify_socket);

        if (r >= 0 && parameters->watchdog_usec > 0)
                r = environment_add(environment, n, "WATCHDOG_USEC=%" PRIu64, parameters->watchdog_usec);

        /* systemd.exec(5), $JOURNAL_STREAM: device and inode of the stream that stdout or stderr is. */
        if (r >= 0 && parameters->output_fd >= 0 && fstat(parameters->output_fd, &st) >= 0 &&
            S_ISSOCK(st.st_mode))
                r = environment_add(environment, n, "JOURNAL_STREAM=%" PRIu64 ":%" PRIu64,
                                    (uint64_t) st.st_dev, (uint64_t) st.st_ino);

        if (r < 0 || !parameters->listen_fd_name)
                return r;

        r = environment_add(environment, n, "LISTEN_FDS=1");
        if (r >= 0)
                r = environment_add(environment, n, "LISTEN_FDNAMES=%s", parameters->listen_fd_name);
        if (r >= 0)
                r = environment_add(environment, n, LISTEN_PID LISTEN_PID_ROOM);
        return r;
}

int spawn_environment_new(char *const *base, const SpawnEnvironment *parameters, char ***ret_environment) {
        enum { N_PARAMETERS = 9 };
        _cleanup_strv_free_ char **environment = NULL;
        size_t n_base = 0, n = 0;
        int r;

        assert(parameters);
        assert(parameters->pool_name);
        assert(ret_environment);

        while (base && base[n_base])
                n_base++;

        environment = calloc(n_base + N_PARAMETERS + 1, sizeof(char *));
        if (!environment)
                return -ENOMEM;

        for (size_t i = 0; i < n_base; i++) {
                if (environment_is_withheld(base[i], parameters->output_fd >= 0))
                        continue;

                environment[n] = strdup(base[i]);
                if (!environment[n])
                        return -ENOMEM;
                n++;
        }

        r = environment_add_parameters(environment, &n, parameters);
        if (r < 0)
                return r;

        *ret_environment = TAKE_PTR(environment);
        return 0;
}
