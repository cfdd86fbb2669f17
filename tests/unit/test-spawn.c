/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a worker finds when it starts. The worker is this program itself: called with REPORT and a file it
 * writes there what it was given. Each layout of low descriptors is tried in a forked test process of its
 * own, since it rearranges its own. Every group of tests runs a second time under a filter that refuses
 * clone3(2), for the fork(2) path. */

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "refuse-call.h"
#include "spawn.h"
#include "test.h"
#include "test-cgroup.h"

#define REPORT "--report"
#define N_LOW_FDS 6 /* descriptors 0 to 5 are laid out anew */

int run_tests(int argc, char **argv);

/* The worker: one fact per line. */
static int report(const char *path) {
        sigset_t mask;
        struct dirent *de;
        FILE *f;
        DIR *d;

        EXPECT(d = opendir("/proc/self/fd"));
        EXPECT(f = fopen(path, "we"));

        while ((de = readdir(d))) {
                char link[32], target[PATH_MAX] = "";
                int fd = atoi(de->d_name);

                if (de->d_name[0] == '.' || fd == dirfd(d) || fd == fileno(f))
                        continue;
                snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
                EXPECT(readlink(link, target, sizeof(target) - 1) > 0);
                fprintf(f, "fd %d %s\n", fd, target);
        }

        EXPECT_EQ(sigprocmask(SIG_SETMASK, NULL, &mask), 0);
        for (int signo = 1; signo < NSIG; signo++) {
                struct sigaction action;

                if (sigismember(&mask, signo) == 1)
                        fprintf(f, "blocked %d\n", signo);
                if (sigaction(signo, NULL, &action) >= 0 && action.sa_handler == SIG_IGN)
                        fprintf(f, "ignored %d\n", signo);
        }

        fprintf(f, "pid %d\n", (int) getpid());
        fprintf(f, "nice %d\n", nice(0));
        for (char **e = environ; *e; e++)
                if (startswith(*e, "LISTEN_") || startswith(*e, "FCGI_POOL_"))
                        fprintf(f, "env %s\n", *e);
        fprintf(f, "end\n");

        (void) closedir(d);
        return fclose(f) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int new_listener(void) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd;

        EXPECT((fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0);
        EXPECT_EQ(bind(fd, (struct sockaddr *) &address, sizeof(sa_family_t)), 0); /* autobind */
        EXPECT_EQ(listen(fd, 8), 0);
        return fd;
}

static void close_pidfd_child(int pidfd, int expected_code, int expected_status) {
        struct pollfd p = { .fd = pidfd, .events = POLLIN };
        siginfo_t si = {};

        EXPECT_EQ(poll(&p, 1, 30000), 1);
        EXPECT_EQ(waitid(P_PIDFD, (id_t) pidfd, &si, WEXITED), 0);
        EXPECT_EQ(si.si_code, expected_code);
        EXPECT_EQ(si.si_status, expected_status);
        (void) close(pidfd);
}

/* Waits for what exec_fd has to say, and closes it. */
static int take_exec_result(int exec_fd) {
        struct pollfd p = { .fd = exec_fd, .events = POLLIN };
        int r;

        EXPECT_EQ(poll(&p, 1, 30000), 1);
        r = spawn_read_exec_fd(exec_fd);
        (void) close(exec_fd);
        return r;
}

/* Runs test in a child; it must end with success. */
static void run_forked(void (*test)(const void *), const void *argument, const char *what) {
        int status;
        pid_t pid;

        fflush(NULL);
        EXPECT((pid = fork()) >= 0);
        if (pid == 0) {
                test(argument);
                _exit(EXIT_SUCCESS);
        }

        EXPECT_EQ(waitpid(pid, &status, 0), pid);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != EXIT_SUCCESS) {
                fprintf(stderr, "failed in a child (status 0x%x): %s\n", (unsigned) status, what);
                abort();
        }
}

typedef struct Refusal {
        void (*test)(void);
        int error;
} Refusal;

static void run_refused(const void *argument) {
        const Refusal *refusal = argument;

        refuse_call(SYS_clone3, refusal->error);
        EXPECT(syscall(SYS_clone3, NULL, 0) < 0 && errno == refusal->error);
        refusal->test();
}

/* Once as the system is, once for each reason not to have clone3(2). */
static void run_both_ways(void (*test)(void)) {
        static const int errors[] = { ENOSYS, EPERM, EINVAL };

        test();
        for (size_t i = 0; i < ELEMENTSOF(errors); i++) {
                const Refusal refusal = { .test = test, .error = errors[i] };

                run_forked(run_refused, &refusal, strerror(errors[i]));
        }
}

typedef struct Layout {
        int listener_fd;   /* 0 to N_LOW_FDS */
        int output_fd;     /* -EBADF or 0 to N_LOW_FDS */
        bool activation;
        unsigned closed;   /* mask of low descriptors that are not open at all */
        unsigned cloexec;  /* mask of low descriptors that are close-on-exec, as our own are */
} Layout;

static char *read_report(const char *path) {
        char *s;
        ssize_t n;
        int fd;

        EXPECT(s = calloc(1, 65536));
        EXPECT((fd = open(path, O_RDONLY | O_CLOEXEC)) >= 0);
        EXPECT((n = read(fd, s, 65535)) > 0);
        (void) close(fd);
        EXPECT(strstr(s, "\nend\n"));
        return s;
}

static void expect_fd(const char *text, int fd, const char *target) {
        char line[PATH_MAX + 32];

        snprintf(line, sizeof(line), "fd %d %s\n", fd, target);
        if (!strstr(text, line)) {
                fprintf(stderr, "expected %sin:\n%s", line, text);
                abort();
        }
}

static size_t count_lines(const char *text, const char *prefix) {
        size_t n = 0;

        for (const char *p = text; p; p = strchr(p, '\n')) {
                p += *p == '\n';
                if (startswith(p, prefix))
                        n++;
        }
        return n;
}

/* Starts this program as the worker and returns its report. */
static char *spawn_report(SpawnRequest request, pid_t *ret_pid) {
        char path[] = "/tmp/test-spawn-XXXXXX", self[PATH_MAX] = "", *text;
        char *argv[] = { self, (char *) REPORT, path, NULL };
        int fd, pidfd, exec_fd;

        EXPECT(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
        EXPECT((fd = mkostemp(path, O_CLOEXEC)) >= 0);
        (void) close(fd);

        request.executable = request.executable ?: self;
        request.argv = argv;
        EXPECT_EQ(spawn_worker(&request, ret_pid, &pidfd, &exec_fd), 0);
        EXPECT(fcntl(pidfd, F_GETFD) & FD_CLOEXEC);
        EXPECT(fcntl(exec_fd, F_GETFD) & FD_CLOEXEC);
        EXPECT(fcntl(exec_fd, F_GETFL) & O_NONBLOCK);
        EXPECT_EQ(take_exec_result(exec_fd), 1);
        close_pidfd_child(pidfd, CLD_EXITED, EXIT_SUCCESS);

        text = read_report(path);
        (void) unlink(path);
        return text;
}

/* Puts fd at target with or without close-on-exec. */
static void place(int fd, int target, bool cloexec) {
        EXPECT_EQ(dup3(fd, target, cloexec ? O_CLOEXEC : 0), target);
}

/* Runs in a child of its own: low descriptors as the layout says, then looks at what the worker has. */
static void check_layout(const void *argument) {
        const Layout *layout = argument;
        const char *inherited = "/proc/self/status", *output = "/proc/self/stat"; /* any two files will do */
        SpawnEnvironment parameters = { .pool_name = "test", .output_fd = -EBADF,
                                        .listen_fd_name = layout->activation ? "http" : NULL };
        SpawnRequest request = { .listener_fd = layout->listener_fd, .output_fd = layout->output_fd, .cgroup_fd = -EBADF,
                                 .socket_activation = layout->activation };
        char link[64], socket_name[64], inherited_name[PATH_MAX] = "", output_name[PATH_MAX] = "";
        _cleanup_free_ char *text = NULL;
        int listener_fd, inherited_fd, output_fd;
        struct stat st;
        pid_t pid;

        EXPECT((listener_fd = fcntl(new_listener(), F_DUPFD_CLOEXEC, 100)) >= 0);
        EXPECT((inherited_fd = fcntl(open(inherited, O_RDONLY), F_DUPFD, 100)) >= 0); /* leaks unless closed */
        EXPECT((output_fd = fcntl(open(output, O_RDONLY), F_DUPFD, 100)) >= 0);
        EXPECT_EQ(fstat(listener_fd, &st), 0);
        snprintf(socket_name, sizeof(socket_name), "socket:[%llu]", (unsigned long long) st.st_ino);
        snprintf(link, sizeof(link), "/proc/self/fd/%d", inherited_fd);
        EXPECT(readlink(link, inherited_name, sizeof(inherited_name) - 1) > 0);
        snprintf(link, sizeof(link), "/proc/self/fd/%d", output_fd);
        EXPECT(readlink(link, output_name, sizeof(output_name) - 1) > 0);

        EXPECT_EQ(spawn_environment_new(environ, &parameters, &request.environment), 0);

        for (int fd = 0; fd < N_LOW_FDS; fd++)
                if (fd == layout->listener_fd)
                        place(listener_fd, fd, layout->cloexec & (1U << fd));
                else if (fd == layout->output_fd)
                        place(output_fd, fd, layout->cloexec & (1U << fd));
                else if (layout->closed & (1U << fd))
                        (void) close(fd);
                else
                        place(inherited_fd, fd, layout->cloexec & (1U << fd));
        if (layout->listener_fd == N_LOW_FDS)
                request.listener_fd = listener_fd;
        if (layout->output_fd == N_LOW_FDS)
                request.output_fd = output_fd;

        text = spawn_report(request, &pid);

        expect_fd(text, 0, socket_name);
        for (int fd = 1; fd <= 2; fd++)
                expect_fd(text, fd, layout->output_fd >= 0 ? output_name :
                                    layout->listener_fd == fd || ((layout->closed | layout->cloexec) & (1U << fd)) ?
                                    "/dev/null" : inherited_name);
        if (layout->activation)
                expect_fd(text, 3, socket_name);
        EXPECT_EQ(count_lines(text, "fd "), layout->activation ? 4 : 3);
        request.environment = strv_free(request.environment);
}

/* Every pair of numbers, with each mask both closed and close-on-exec, with and without socket activation. */
static void check_layouts(const unsigned *masks, size_t n_masks) {
        for (int listener_fd = 0; listener_fd <= N_LOW_FDS; listener_fd++)
                for (int output_fd = -1; output_fd <= N_LOW_FDS; output_fd++)
                        for (size_t i = 0; i < n_masks * 4; i++) {
                                const Layout layout = {
                                        .listener_fd = listener_fd,
                                        .output_fd = output_fd < 0 ? -EBADF : output_fd,
                                        .activation = i & 1,
                                        .closed = i & 2 ? masks[i / 4] : 0,
                                        .cloexec = i & 2 ? 0 : masks[i / 4],
                                };
                                char what[128];

                                if (output_fd == listener_fd && output_fd != N_LOW_FDS)
                                        continue;
                                if (masks[i / 4] == 0 && i & 2) /* the same once more */
                                        continue;
                                snprintf(what, sizeof(what), "listener %d output %d activation %d closed %#x cloexec %#x",
                                         layout.listener_fd, layout.output_fd, layout.activation, layout.closed,
                                         layout.cloexec);
                                run_forked(check_layout, &layout, what);
                        }
}

/* Fewer of them for the other path: what differs is only where the gate's descriptors land. */
static void check_open_layouts(void) {
        static const unsigned masks[] = { 0x3f };

        check_layouts(masks, ELEMENTSOF(masks));
}

static void layouts(void) {
        static const unsigned masks[] = { 0, 1U << 1, 1U << 2, 1U << 1 | 1U << 2, 1U << 3, 0x3f };

        /* A fork takes ten times as long then, and one of each kind shows a wrong access. */
        if (is_sanitized())
                check_open_layouts();
        else
                check_layouts(masks, ELEMENTSOF(masks));
}

static void layouts_with_fork(void) {
        const Refusal refusal = { .test = check_open_layouts, .error = ENOSYS };

        run_forked(run_refused, &refusal, "layouts without clone3");
}

static void check_listen_pid(void) {
        SpawnEnvironment parameters = { .pool_name = "web", .slot = 7, .generation = 12, .output_fd = -EBADF,
                                        .listen_fd_name = "http" };
        SpawnRequest request = { .output_fd = -EBADF, .cgroup_fd = -EBADF, .socket_activation = true };
        _cleanup_close_ int listener_fd = new_listener();
        char line[64];

        request.listener_fd = listener_fd;
        EXPECT_EQ(spawn_environment_new(environ, &parameters, &request.environment), 0);

        for (int i = 0; i < 3; i++) { /* the room is written in the child only and serves again */
                _cleanup_free_ char *text = NULL;
                pid_t pid;

                text = spawn_report(request, &pid);
                snprintf(line, sizeof(line), "\nenv LISTEN_PID=%d\n", (int) pid);
                EXPECT(strstr(text, line));
                snprintf(line, sizeof(line), "\npid %d\n", (int) pid);
                EXPECT(strstr(text, line));
                EXPECT(strstr(text, "\nenv LISTEN_FDS=1\n"));
                EXPECT(strstr(text, "\nenv LISTEN_FDNAMES=http\n"));
                EXPECT(strstr(text, "\nenv FCGI_POOL_NAME=web\n"));
                EXPECT(strstr(text, "\nenv FCGI_POOL_SLOT=7\n"));
                EXPECT(strstr(text, "\nenv FCGI_POOL_GENERATION=12\n"));
                EXPECT_EQ(count_lines(text, "env LISTEN_"), 3);
        }
        request.environment = strv_free(request.environment);
}

static void listen_pid(void) {
        run_both_ways(check_listen_pid);
}

/* Everything ignored that can be, everything blocked: the worker sees neither, and our mask is as it was. */
static void check_signals(const void *argument) {
        SpawnRequest request = { .environment = environ, .output_fd = -EBADF, .cgroup_fd = -EBADF,
                                 .listener_fd = new_listener() };
        _cleanup_free_ char *text = NULL;
        sigset_t mask, after;
        pid_t pid;

        for (int signo = 1; signo < NSIG; signo++)
                if (signo != SIGCHLD)
                        (void) signal(signo, SIG_IGN);
        EXPECT_EQ(sigfillset(&mask), 0);
        EXPECT_EQ(sigdelset(&mask, SIGUSR2), 0);
        EXPECT_EQ(sigprocmask(SIG_SETMASK, &mask, NULL), 0);

        text = spawn_report(request, &pid);
        EXPECT_EQ(count_lines(text, "blocked "), 0);
        EXPECT_EQ(count_lines(text, "ignored "), 0);

        EXPECT_EQ(sigprocmask(SIG_SETMASK, NULL, &after), 0);
        for (int signo = 1; signo < NSIG; signo++)
                if (signo != SIGKILL && signo != SIGSTOP)
                        EXPECT_EQ(sigismember(&after, signo), sigismember(&mask, signo));
        (void) close(request.listener_fd);
}

static void signals_in_child(void) {
        run_forked(check_signals, NULL, "signals");
}

static void signals(void) {
        run_both_ways(signals_in_child);
}

static volatile struct {
        pid_t parent;
        int in_parent, in_child;
} *handled;

static void on_signal(int signo) {
        if (getpid() == handled->parent)
                handled->in_parent++;
        else
                handled->in_child++;
}

static _noreturn_ void storm(pid_t group) {
        for (;;)
                (void) kill(-group, SIGUSR1);
}

/* A process next to us never stops signalling our group while we spawn: no handler runs in a child. */
static void check_handlers(const void *argument) {
        const char *const argv[] = { "true", NULL };
        SpawnRequest request = { .executable = "/bin/true", .argv = (char **) argv, .environment = environ,
                                 .output_fd = -EBADF, .cgroup_fd = -EBADF, .listener_fd = new_listener() };
        struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
        pid_t pid, group, storming;
        int pidfd, exec_fd;

        handled = mmap(NULL, sizeof(*handled), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        EXPECT(handled != MAP_FAILED);
        handled->parent = group = getpid();
        EXPECT_EQ(setpgid(0, 0), 0);
        EXPECT_EQ(sigaction(SIGUSR1, &action, NULL), 0);

        EXPECT((storming = fork()) >= 0);
        if (storming == 0) {
                (void) prctl(PR_SET_PDEATHSIG, (unsigned long) SIGKILL, 0UL, 0UL, 0UL);
                (void) setpgid(0, 0);
                storm(group);
        }

        while (handled->in_parent == 0)
                (void) sched_yield();
        for (int i = 0; i < 100; i++) {
                siginfo_t si = {};

                EXPECT_EQ(spawn_worker(&request, &pid, &pidfd, &exec_fd), 0);
                (void) close(exec_fd);
                while (waitid(P_PIDFD, (id_t) pidfd, &si, WEXITED) < 0)
                        EXPECT_EQ(errno, EINTR);
                EXPECT(si.si_code == CLD_KILLED ? si.si_status == SIGUSR1 : si.si_status == EXIT_SUCCESS);
                (void) close(pidfd);
        }

        EXPECT_EQ(kill(storming, SIGKILL), 0);
        while (waitpid(storming, NULL, 0) < 0)
                EXPECT_EQ(errno, EINTR);
        EXPECT(handled->in_parent > 0);
        EXPECT_EQ(handled->in_child, 0);
        (void) close(request.listener_fd);
}

static void handlers_in_child(void) {
        run_forked(check_handlers, NULL, "handlers");
}

static void handlers(void) {
        run_both_ways(handlers_in_child);
}

/* A signal sent at once, while the child still has what we ignore, is not lost. */
static void check_early_signal(const void *argument) {
        const char *const argv[] = { "sleep", "60", NULL };
        SpawnRequest request = { .executable = "/bin/sleep", .argv = (char **) argv, .environment = environ,
                                 .output_fd = -EBADF, .cgroup_fd = -EBADF, .listener_fd = new_listener() };
        int pidfd, exec_fd;
        pid_t pid;

        (void) signal(SIGTERM, SIG_IGN);
        for (int i = 0; i < 50; i++) {
                EXPECT_EQ(spawn_worker(&request, &pid, &pidfd, &exec_fd), 0);
                EXPECT_EQ(syscall(SYS_pidfd_send_signal, pidfd, SIGTERM, NULL, 0), 0);
                (void) close(exec_fd);
                close_pidfd_child(pidfd, CLD_KILLED, SIGTERM);
        }
        (void) close(request.listener_fd);
}

static void early_signal_in_child(void) {
        run_forked(check_early_signal, NULL, "early signal");
}

static void early_signal(void) {
        run_both_ways(early_signal_in_child);
}

static void expect_exec_error(const char *executable, int error) {
        const char *const argv[] = { "worker", NULL };
        SpawnRequest request = { .executable = executable, .argv = (char **) argv, .environment = environ,
                                 .output_fd = -EBADF, .cgroup_fd = -EBADF };
        _cleanup_close_ int listener_fd = new_listener();
        int pidfd, exec_fd;
        pid_t pid;

        request.listener_fd = listener_fd;
        EXPECT_EQ(spawn_worker(&request, &pid, &pidfd, &exec_fd), 0);
        EXPECT_EQ(take_exec_result(exec_fd), -error);
        close_pidfd_child(pidfd, CLD_EXITED, 203);
}

static void write_file(const char *path, const char *text, mode_t mode) {
        int fd;

        EXPECT((fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) >= 0);
        EXPECT_EQ(write(fd, text, strlen(text)), (ssize_t) strlen(text));
        EXPECT_EQ(fchmod(fd, mode), 0);
        (void) close(fd);
}

static void check_exec_errors(void) {
        char directory[] = "/tmp/test-spawn-XXXXXX", path[64];

        EXPECT(mkdtemp(directory));
        expect_exec_error(directory, EACCES);

        snprintf(path, sizeof(path), "%s/file", directory);
        expect_exec_error(path, ENOENT);

        write_file(path, "exit 0\n", 0600);
        expect_exec_error(path, EACCES);

        EXPECT_EQ(chmod(path, 0700), 0);
        expect_exec_error(path, ENOEXEC);
        EXPECT_EQ(unlink(path), 0);

        write_file(path, "#!/nonexistent/interpreter\n", 0700);
        expect_exec_error(path, ENOENT);
        EXPECT_EQ(unlink(path), 0);
        EXPECT_EQ(rmdir(directory), 0);
}

/* valgrind 3.19 knows neither clone3(2) nor pidfd_open(2): nothing can be spawned under it. */
static void need_pidfds(void) {
        _cleanup_close_ int fd = -EBADF;

        fd = (int) syscall(SYS_pidfd_open, getpid(), 0);
        if (fd < 0)
                SKIP("no pidfd_open(2) here (%s): everything that spawns", strerror(errno));
}

static void exec_errors(void) {
        need_pidfds();
        run_both_ways(check_exec_errors);
}

/* What fails in the child before execve() is told in the same way. */
static void check_refused_close_range(const void *argument) {
        refuse_call(SYS_close_range, ENOANO);
        expect_exec_error("/bin/true", ENOANO);
}

static void failure_before_exec(void) {
        run_forked(check_refused_close_range, NULL, "close_range refused");
}

static size_t count_fds(void) {
        size_t n = 0;
        DIR *d;

        EXPECT(d = opendir("/proc/self/fd"));
        while (readdir(d))
                n++;
        (void) closedir(d);
        return n;
}

/* Without a pidfd there is no worker: its program is never run, and no zombie stays. */
static void check_refused_pidfd(const void *argument) {
        char path[] = "/tmp/test-spawn-XXXXXX";
        const char *const argv[] = { "rm", path, NULL };
        SpawnRequest request = { .executable = "/bin/rm", .argv = (char **) argv, .environment = environ,
                                 .output_fd = -EBADF, .cgroup_fd = -EBADF, .listener_fd = new_listener() };
        pid_t pid = 4711;
        int pidfd = 4712, exec_fd = 4713;
        size_t n_fds;

        EXPECT((n_fds = (size_t) mkostemp(path, O_CLOEXEC)) > 0);
        n_fds = count_fds();
        refuse_call(SYS_clone3, ENOSYS);
        refuse_call(SYS_pidfd_open, ENOANO);
        EXPECT_EQ(spawn_worker(&request, &pid, &pidfd, &exec_fd), -ENOANO);
        EXPECT(pid == 4711 && pidfd == 4712 && exec_fd == 4713);
        EXPECT(waitpid(-1, NULL, 0) < 0 && errno == ECHILD);
        EXPECT_EQ(count_fds(), n_fds);
        EXPECT_EQ(unlink(path), 0);
}

static void no_pidfd(void) {
        run_forked(check_refused_pidfd, NULL, "pidfd_open refused");
}

static void exec_fd_unknown_yet(void) {
        int fds[2], error = 0;

        EXPECT_EQ(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
        EXPECT_EQ(spawn_read_exec_fd(fds[0]), 0);
        EXPECT_EQ(write(fds[1], &error, sizeof(error)), sizeof(error));
        EXPECT_EQ(spawn_read_exec_fd(fds[0]), -EIO);
        EXPECT_EQ(write(fds[1], &error, 1), 1);
        EXPECT_EQ(spawn_read_exec_fd(fds[0]), -EIO);
        (void) close(fds[1]);
        EXPECT_EQ(spawn_read_exec_fd(fds[0]), 1);
        (void) close(fds[0]);
}

static void check_many(void) {
        const char *const argv[] = { "true", NULL };
        SpawnRequest request = { .executable = "/bin/true", .argv = (char **) argv, .environment = environ,
                                 .output_fd = -EBADF, .cgroup_fd = -EBADF, .listener_fd = new_listener() };
        size_t n_fds = count_fds();

        for (int i = 0; i < (is_sanitized() ? 100 : 1000); i++) {
                int pidfd, exec_fd;
                pid_t pid;

                EXPECT_EQ(spawn_worker(&request, &pid, &pidfd, &exec_fd), 0);
                EXPECT_EQ(take_exec_result(exec_fd), 1);
                close_pidfd_child(pidfd, CLD_EXITED, EXIT_SUCCESS);
        }
        EXPECT_EQ(count_fds(), n_fds);
        EXPECT(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
        (void) close(request.listener_fd);
}

static void no_leak_in_many(void) {
        run_both_ways(check_many);
}

/* The signal mask stays full over execve(2) if that is wanted; dispositions are still reset. */
static void check_blocked_signals(const void *argument) {
        SpawnRequest request = { .environment = environ, .output_fd = -EBADF, .cgroup_fd = -EBADF, .block_signals = true,
                                 .listener_fd = new_listener() };
        _cleanup_free_ char *text = NULL;
        sigset_t after;
        pid_t pid;

        (void) signal(SIGHUP, SIG_IGN);
        text = spawn_report(request, &pid);
        EXPECT_EQ(count_lines(text, "blocked "), NSIG - 1 - 4); /* not KILL, STOP and the C library's two */
        EXPECT_EQ(count_lines(text, "ignored "), 0);
        EXPECT_EQ(sigprocmask(SIG_SETMASK, NULL, &after), 0);
        EXPECT_EQ(sigismember(&after, SIGTERM), 0);
        (void) close(request.listener_fd);
}

static void blocked_signals_in_child(void) {
        run_forked(check_blocked_signals, NULL, "blocked signals");
}

static void blocked_signals(void) {
        run_both_ways(blocked_signals_in_child);
}

static int cgroup_of_test = -EBADF;
static bool move_of_test;

/* "$0" is where the child was when it began. */
static void check_in_cgroup(void) {
        char file[] = "/tmp/test-spawn-XXXXXX";
        const char *const argv[] = { "sh", "-c", "grep ^0:: /proc/self/cgroup >\"$0\"", file, NULL };
        SpawnRequest request = { .executable = "/bin/sh", .argv = (char *const *) argv, .environment = environ,
                                 .output_fd = -EBADF, .cgroup_fd = cgroup_of_test, .cgroup_move = move_of_test,
                                 .listener_fd = new_listener() };
        _cleanup_free_ char *text = NULL;
        int pidfd, exec_fd, fd;
        size_t n_fds;
        pid_t pid;

        EXPECT((fd = mkostemp(file, O_CLOEXEC)) >= 0);
        (void) close(fd);
        n_fds = count_fds();
        EXPECT_EQ(spawn_worker(&request, &pid, &pidfd, &exec_fd), 0);
        EXPECT_EQ(take_exec_result(exec_fd), 1);
        close_pidfd_child(pidfd, CLD_EXITED, EXIT_SUCCESS);
        EXPECT_EQ(count_fds(), n_fds);

        EXPECT(text = calloc(1, 4096));
        EXPECT((fd = open(file, O_RDONLY | O_CLOEXEC)) >= 0);
        EXPECT(read(fd, text, 4095) > 0);
        (void) close(fd);
        EXPECT(strstr(text, ".service/workers\n"));
        (void) unlink(file);
        (void) close(request.listener_fd);
}

/* Born there or moved there, it never runs elsewhere. */
static void check_cgroup(const char *path, const void *argument) {
        _cleanup_(cgroup_freep) Cgroup *cgroup = NULL;

        EXPECT_EQ(cgroup_open(&cgroup), 0);
        cgroup_of_test = cgroup->workers_fd;
        run_both_ways(check_in_cgroup);
        move_of_test = true;
        run_both_ways(check_in_cgroup);
        EXPECT_EQ(spawn_probe_cgroup(cgroup->workers_fd), SPAWN_BIRTH_FINE);
        EXPECT(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
}

static void check_no_clone(const char *path, const void *argument) {
        _cleanup_(cgroup_freep) Cgroup *cgroup = NULL;

        refuse_call(SYS_clone3, ENOSYS);
        EXPECT_EQ(cgroup_open(&cgroup), 0);
        EXPECT_EQ(spawn_probe_cgroup(cgroup->workers_fd), SPAWN_NO_CLONE);
        EXPECT(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
}

static void in_cgroup(void) {
        run_in_service("blog.service", check_cgroup, NULL);
        run_in_service("blog.service", check_no_clone, NULL);
}

static int error_of_test;

/* An error that is about the cgroup is returned: nothing has run, nothing stays. */
static void check_cgroup_error(void) {
        char file[] = "/tmp/test-spawn-XXXXXX";
        const char *const argv[] = { "rm", file, NULL };
        SpawnRequest request = { .executable = "/bin/rm", .argv = (char *const *) argv, .environment = environ,
                                 .output_fd = -EBADF, .cgroup_fd = cgroup_of_test, .listener_fd = new_listener() };
        int pidfd = 4712, exec_fd = 4713, fd;
        pid_t pid = 4711;
        size_t n_fds;

        EXPECT((fd = mkostemp(file, O_CLOEXEC)) >= 0);
        n_fds = count_fds();
        EXPECT_EQ(spawn_worker(&request, &pid, &pidfd, &exec_fd), error_of_test);
        EXPECT(pid == 4711 && pidfd == 4712 && exec_fd == 4713);
        request.cgroup_move = true;
        EXPECT_EQ(spawn_worker(&request, &pid, &pidfd, &exec_fd), error_of_test);
        EXPECT(waitpid(-1, NULL, 0) < 0 && errno == ECHILD);
        EXPECT_EQ(count_fds(), n_fds);
        EXPECT_EQ(unlink(file), 0);
        (void) close(fd);
        (void) close(request.listener_fd);
}

static void expect_cgroup_error(int cgroup_fd, int error) {
        cgroup_of_test = cgroup_fd;
        error_of_test = error;
        run_both_ways(check_cgroup_error);
}

/* A directory that is no cgroup, however much it looks like one. */
static void check_no_cgroup(void) {
        char directory[] = "/tmp/test-spawn-XXXXXX", file[64];
        int fd;

        EXPECT(mkdtemp(directory));
        EXPECT((fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0);
        snprintf(file, sizeof(file), "%s/cgroup.procs", directory);
        write_file(file, "", 0600);
        expect_cgroup_error(fd, -EBADF);
        EXPECT_EQ(spawn_probe_cgroup(fd), -EBADF);
        EXPECT_EQ(unlink(file), 0);
        EXPECT_EQ(rmdir(directory), 0);
        (void) close(fd);
}

static void no_cgroup(void) {
        need_pidfds();
        check_no_cgroup();
}

static void check_cgroup_errors(const char *path, const void *argument) {
        _cleanup_(cgroup_freep) Cgroup *cgroup = NULL;
        char name[PATH_MAX];

        EXPECT_EQ(cgroup_open(&cgroup), 0);
        snprintf(name, sizeof(name), "%s/guardian", path);
        EXPECT_EQ(rmdir(name), 0);
        expect_cgroup_error(cgroup->guardian_fd, -ENODEV);
        EXPECT_EQ(spawn_probe_cgroup(cgroup->guardian_fd), -ENODEV);

        /* Another user's. */
        if (geteuid() == 0) {
                EXPECT_EQ(setuid(65534), 0);
                expect_cgroup_error(cgroup->workers_fd, -EACCES);
                EXPECT_EQ(spawn_probe_cgroup(cgroup->workers_fd), -EACCES);
        }
}

static void cgroup_errors(void) {
        run_in_service("blog.service", check_cgroup_errors, NULL);
}

static void expect_environment(char *const *base, const SpawnEnvironment *parameters, const char *expected) {
        char **environment, text[4096] = "";

        EXPECT_EQ(spawn_environment_new(base, parameters, &environment), 0);
        for (char **e = environment; *e; e++) {
                strcat(text, *e);
                strcat(text, "\n");
        }
        EXPECT_STREQ(text, expected);
        (void) strv_free(environment);
}

static void environment(void) {
        const char *const base[] = {
                "PATH=/bin", "LISTEN_FDS=2", "LISTEN_PID=1", "LISTEN_FDNAMES=a:b", "LISTEN_PIDFDID=5", "WATCHDOG_USEC=1",
                "WATCHDOG_PID=1", "NOTIFY_SOCKET=/run/systemd/notify", "FDSTORE=10", "SYSTEMD_EXEC_PID=1", "MAINPID=1",
                "MAINPIDFDID=2", "FCGI_POOL_OPTIONS=-w 6", "FCGI_POOL_COMMAND=/bin/app", "FCGI_POOL_NAME=old",
                "FCGI_POOL_SLOT=9", "FCGI_POOL_GENERATION=9", "JOURNAL_STREAM=1:2", "INVOCATION_ID=x",
                "LISTEN_ADDR=:80", "WATCHDOG_FILE=w", "FDSTORES=kept",
                "MAINPIDS=kept", "NOTIFY_SOCKETS=kept", "FCGI_POOL_OTHER=kept", "PHP_FCGI_MAX_REQUESTS=0", "noequals", "E=",
                NULL,
        };
        SpawnEnvironment parameters = { .pool_name = "app", .slot = 3, .generation = UINT64_MAX, .output_fd = -EBADF };
        char expected[512];
        struct stat st;
        int fd;

#define KEPT(journal) "PATH=/bin\n" journal "INVOCATION_ID=x\nLISTEN_ADDR=:80\nWATCHDOG_FILE=w\n" \
        "FDSTORES=kept\nMAINPIDS=kept\nNOTIFY_SOCKETS=kept\n" \
        "FCGI_POOL_OTHER=kept\nPHP_FCGI_MAX_REQUESTS=0\nnoequals\nE=\n"                                              \
        "FCGI_POOL_NAME=app\nFCGI_POOL_SLOT=3\nFCGI_POOL_GENERATION=18446744073709551615\n"
        expect_environment((char *const *) base, &parameters, KEPT("JOURNAL_STREAM=1:2\n"));

        parameters.notify_socket = "@notify";
        parameters.listen_fd_name = "http";
        expect_environment((char *const *) base, &parameters, KEPT("JOURNAL_STREAM=1:2\n")
                           "NOTIFY_SOCKET=@notify\nLISTEN_FDS=1\nLISTEN_FDNAMES=http\nLISTEN_PID=0000000000\n");
        parameters.notify_socket = parameters.listen_fd_name = NULL;

        EXPECT((parameters.output_fd = open("/dev/null", O_WRONLY | O_CLOEXEC)) >= 0);
        expect_environment((char *const *) base, &parameters, KEPT(""));
        (void) close(parameters.output_fd);

        fd = new_listener();
        EXPECT_EQ(fstat(fd, &st), 0);
        snprintf(expected, sizeof(expected), KEPT("") "JOURNAL_STREAM=%" PRIu64 ":%" PRIu64 "\n",
                 (uint64_t) st.st_dev, (uint64_t) st.st_ino);
        parameters.output_fd = fd;
        expect_environment((char *const *) base, &parameters, expected);
        (void) close(fd);

        parameters.output_fd = -EBADF;
        expect_environment(NULL, &parameters,
                           "FCGI_POOL_NAME=app\nFCGI_POOL_SLOT=3\nFCGI_POOL_GENERATION=18446744073709551615\n");
}

#define main run_tests
TEST_MAIN(TEST(environment), TEST(exec_fd_unknown_yet), TEST(not_under_valgrind),
          TEST(exec_errors), TEST(failure_before_exec), TEST(no_pidfd),
          TEST(listen_pid), TEST(signals), TEST(handlers), TEST(early_signal), TEST(layouts), TEST(layouts_with_fork),
          TEST(no_leak_in_many), TEST(blocked_signals),
          TEST(no_cgroup), TEST(in_cgroup), TEST(cgroup_errors))
#undef main

int main(int argc, char **argv) {
        if (argc == 3 && streq(argv[1], REPORT))
                return report(argv[2]);

        return run_tests(argc, argv);
}
