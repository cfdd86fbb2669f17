/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Real processes in every state a worker can be in, looked at from here. What must become visible is
 * waited for by looking again, with a limit; what must not be seen is looked for after the child has
 * said that it is in place. */

#include "observe.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "pidfd.h"
#include "test.h"
#include "waits.h"

#define NOBODY 65534
#define LOOKS_MAX 20000
#define N_THREADS 12
#define TICK_USEC 12000     /* longer than one of the kernel's */

typedef struct Bench {
        int listener_fd;
        int other_fd;      /* another listener */
        int ready_fd;      /* the child closes it when it is in place */
} Bench;

typedef void (*Body)(const Bench *bench);

/* ---- listeners and clients ---- */

static uint64_t inode_of(int fd) {
        struct stat st;

        EXPECT(fstat(fd, &st) == 0);
        return st.st_ino;
}

static int listen_at(const struct sockaddr *address, socklen_t size) {
        int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

        EXPECT(fd >= 0);
        if (bind(fd, address, size) < 0) {
                close(fd);
                return -errno;
        }
        EXPECT(listen(fd, 16) == 0);
        return fd;
}

static struct sockaddr_un unix_address(bool abstract, const char *name) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        (void) snprintf(address.sun_path + abstract, sizeof(address.sun_path) - abstract,
                        "%s/test-observe-%d-%s", abstract ? "" : "/tmp", getpid(), name);
        return address;
}

static int listen_unix(const char *name) {
        struct sockaddr_un address = unix_address(false, name);
        int fd;

        (void) unlink(address.sun_path);
        fd = listen_at((struct sockaddr *) &address, sizeof(address));
        EXPECT(fd >= 0);
        return fd;
}

static int listen_abstract(const char *name) {
        struct sockaddr_un address = unix_address(true, name);
        size_t size = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(address.sun_path + 1);
        int fd = listen_at((struct sockaddr *) &address, (socklen_t) size);

        EXPECT(fd >= 0);
        return fd;
}

static int listen_inet(const char *host) {
        struct sockaddr_in address = { .sin_family = AF_INET };
        int fd;

        EXPECT_EQ(inet_pton(AF_INET, host, &address.sin_addr), 1);
        fd = listen_at((struct sockaddr *) &address, sizeof(address));
        EXPECT(fd >= 0);
        return fd;
}

/* Negative errno where there is no IPv6. */
static int listen_inet6(const char *host) {
        struct sockaddr_in6 address = { .sin6_family = AF_INET6 };
        int fd = socket(AF_INET6, SOCK_STREAM, 0);

        if (fd < 0)
                return -errno;
        close(fd);
        EXPECT_EQ(inet_pton(AF_INET6, host, &address.sin6_addr), 1);
        return listen_at((struct sockaddr *) &address, sizeof(address));
}

static void close_listener(int fd) {
        struct sockaddr_un address = { .sun_family = AF_UNSPEC };
        socklen_t size = sizeof(address);

        EXPECT(getsockname(fd, (struct sockaddr *) &address, &size) == 0);
        if (address.sun_family == AF_UNIX && address.sun_path[0] != '\0')
                (void) unlink(address.sun_path);
        close(fd);
}

static int connect_at(const struct sockaddr *address, socklen_t size) {
        int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

        EXPECT(fd >= 0);
        EXPECT(connect(fd, address, size) == 0);
        return fd;
}

static int connect_to(int listener_fd) {
        struct sockaddr_storage address;
        socklen_t size = sizeof(address);

        EXPECT(getsockname(listener_fd, (struct sockaddr *) &address, &size) == 0);
        return connect_at((struct sockaddr *) &address, size);
}

/* ---- children ---- */

static pid_t start(Body body, Bench *bench) {
        int pipe_fds[2];
        char c;
        pid_t pid;

        EXPECT(pipe2(pipe_fds, O_CLOEXEC) == 0);
        pid = fork();
        EXPECT(pid >= 0);
        if (pid == 0) {
                EXPECT(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
                close(pipe_fds[0]);
                bench->ready_fd = pipe_fds[1];
                body(bench);
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

static Observation look(pid_t pid, int listener_fd, int *ret_error) {
        return observe_worker(pid, listener_fd, inode_of(listener_fd), ret_error);
}

static void expect_becomes(pid_t pid, int listener_fd, Observation expected) {
        Observation o = OBSERVE_UNKNOWN;

        for (unsigned i = 0; i < LOOKS_MAX; i++) {
                int error = 0;

                o = look(pid, listener_fd, &error);
                if (o == expected)
                        return;
                (void) usleep(500);
        }
        fprintf(stderr, "still %s, expected %s\n", observation_to_string(o),
                observation_to_string(expected));
        abort();
}

static void expect_stays(pid_t pid, int listener_fd, Observation expected) {
        for (unsigned i = 0; i < 20; i++)
                EXPECT_STREQ(observation_to_string(look(pid, listener_fd, NULL)),
                             observation_to_string(expected));
}

/* valgrind 3.19 has neither pidfd_open() nor pidfd_getfd(): all that does not wait is unknown then. */
static bool has_pidfds(void) {
        int pidfd = (int) syscall(SYS_pidfd_open, getpid(), 0);
        int fd = pidfd < 0 ? -1 : (int) syscall(SYS_pidfd_getfd, pidfd, 2, 0);

        if (fd < 0)
                fprintf(stderr, "skipped part: no pidfd_open() or pidfd_getfd() here: %s\n",
                        strerror(errno));
        (void) safe_close(fd);
        (void) safe_close(pidfd);
        return fd >= 0;
}

static void sleep_for_ever(const Bench *bench) {
        close(bench->ready_fd);
        while (pause() < 0)
                ;
}

static void exit_at_once(const Bench *bench) {
        close(bench->ready_fd);
}

static void expect_body_becomes(Body body, Observation expected) {
        Bench bench = { .listener_fd = listen_unix("a"), .other_fd = listen_unix("b") };
        pid_t pid = start(body, &bench);

        expect_becomes(pid, bench.listener_fd, expected);
        stop(pid);
        close_listener(bench.listener_fd);
        close_listener(bench.other_fd);
}

/* ---- (a) accept ---- */

static void accept_on_stdin(const Bench *bench) {
        EXPECT(dup2(bench->listener_fd, 0) == 0);
        close(bench->listener_fd);
        close(bench->ready_fd);
        (void) accept(0, NULL, NULL);
}

static void accept_on_duplicate(const Bench *bench) {
        close(bench->ready_fd);
        (void) accept(fcntl(bench->listener_fd, F_DUPFD, 100), NULL, NULL);
}

static void accept4_on_listener(const Bench *bench) {
        close(bench->ready_fd);
        (void) accept4(bench->listener_fd, NULL, NULL, SOCK_CLOEXEC);
}

static void test_accept(void) {
        expect_body_becomes(accept_on_stdin, OBSERVE_WAITING);
        expect_body_becomes(accept_on_duplicate, OBSERVE_WAITING);
        expect_body_becomes(accept4_on_listener, OBSERVE_WAITING);
}

/* ---- (b) epoll ---- */

static void epoll_with(const Bench *bench, uint32_t events, unsigned n_fillers) {
        int epoll_fd = epoll_create1(0), listener_fd = dup(bench->listener_fd);
        struct epoll_event event = { .events = EPOLLIN };

        for (unsigned i = 0; i < n_fillers; i++) {
                int pair[2];

                EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
                EXPECT(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, pair[0], &event) == 0);
                if (i == n_fillers / 2)
                        EXPECT(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener_fd,
                                         &(struct epoll_event) { .events = events }) == 0);
        }
        if (n_fillers == 0)
                EXPECT(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener_fd,
                                 &(struct epoll_event) { .events = events }) == 0);
        close(bench->ready_fd);
        while (epoll_wait(epoll_fd, &event, 1, -1) <= 0)
                ;
}

static void epoll_level(const Bench *bench) {
        epoll_with(bench, EPOLLIN, 0);
}

static void epoll_edge(const Bench *bench) {
        epoll_with(bench, EPOLLIN | EPOLLET, 0);
}

/* More lines in fdinfo than one read takes. */
static void epoll_crowded(const Bench *bench) {
        epoll_with(bench, EPOLLIN | EPOLLEXCLUSIVE, 200);
}

/* Registered, but not for connections: a one-shot that has fired looks the same. */
static void epoll_not_in(const Bench *bench) {
        epoll_with(bench, EPOLLONESHOT, 0);
}

static void test_epoll(void) {
        expect_body_becomes(epoll_level, OBSERVE_WAITING);
        expect_body_becomes(epoll_edge, OBSERVE_WAITING);
        expect_body_becomes(epoll_crowded, OBSERVE_WAITING);
}

/* ---- (c) poll, select ---- */

static void poll_listener(const Bench *bench) {
        struct pollfd fds[] = {
                { .fd = -1, .events = POLLIN },
                { .fd = bench->other_fd, .events = POLLIN },
                { .fd = fcntl(bench->listener_fd, F_DUPFD, 50), .events = POLLIN | POLLPRI },
        };

        close(bench->ready_fd);
        (void) poll(fds, ELEMENTSOF(fds), -1);
}

static void poll_with_timeout(const Bench *bench) {
        struct pollfd fd = { .fd = bench->listener_fd, .events = POLLIN };

        close(bench->ready_fd);
        (void) poll(&fd, 1, 3600 * 1000);
}

static void poll_not_in(const Bench *bench) {
        struct pollfd fds[] = {
                { .fd = bench->listener_fd, .events = POLLPRI },
                { .fd = bench->other_fd, .events = POLLIN },
        };

        close(bench->ready_fd);
        (void) poll(fds, ELEMENTSOF(fds), -1);
}

static void ppoll_listener(const Bench *bench) {
        struct pollfd fd = { .fd = bench->listener_fd, .events = POLLIN };
        sigset_t mask;

        (void) sigemptyset(&mask);
        close(bench->ready_fd);
        (void) ppoll(&fd, 1, NULL, &mask);
}

static void select_listener(const Bench *bench) {
        fd_set set;
        int fd = fcntl(bench->listener_fd, F_DUPFD, 130);

        FD_ZERO(&set);
        FD_SET(fd, &set);
        FD_SET(bench->other_fd, &set);
        close(bench->ready_fd);
        (void) select(fd + 1, &set, NULL, NULL, NULL);
}

static void pselect_listener(const Bench *bench) {
        fd_set set;
        sigset_t mask;

        (void) sigemptyset(&mask);
        FD_ZERO(&set);
        FD_SET(bench->listener_fd, &set);
        close(bench->ready_fd);
        (void) pselect(bench->listener_fd + 1, &set, NULL, NULL, &(struct timespec) { .tv_sec = 3600 },
                       &mask);
}

/* Only the set of the ones to be written to. */
static void select_not_in(const Bench *bench) {
        fd_set in, out;

        FD_ZERO(&in);
        FD_ZERO(&out);
        FD_SET(bench->other_fd, &in);
        FD_SET(bench->listener_fd, &out);
        close(bench->ready_fd);
        (void) select(MAX_OF(bench->listener_fd, bench->other_fd) + 1, &in, &out, NULL, NULL);
}

static void test_poll(void) {
        expect_body_becomes(poll_listener, OBSERVE_WAITING);
        expect_body_becomes(poll_with_timeout, OBSERVE_WAITING);
        expect_body_becomes(ppoll_listener, OBSERVE_WAITING);
        expect_body_becomes(select_listener, OBSERVE_WAITING);
        expect_body_becomes(pselect_listener, OBSERVE_WAITING);
}

/* A look may come while the worker is stopped, and after: poll() then goes on as restart_syscall(). */
static void test_stopped_and_continued(void) {
        static const Body bodies[] = { accept_on_stdin, epoll_level, poll_listener, poll_with_timeout,
                                       ppoll_listener, select_listener, pselect_listener };

        for (size_t i = 0; i < ELEMENTSOF(bodies); i++) {
                Bench bench = { .listener_fd = listen_unix("a"), .other_fd = listen_unix("b") };
                pid_t pid = start(bodies[i], &bench);
                siginfo_t info;

                expect_becomes(pid, bench.listener_fd, OBSERVE_WAITING);
                for (unsigned n = 0; n < 2; n++) {
                        EXPECT(kill(pid, SIGSTOP) == 0);
                        EXPECT(waitid(P_PID, (id_t) pid, &info, WSTOPPED) == 0);
                        expect_stays(pid, bench.listener_fd, OBSERVE_WAITING);
                        EXPECT(kill(pid, SIGCONT) == 0);
                        EXPECT(waitid(P_PID, (id_t) pid, &info, WCONTINUED) == 0);
                        expect_becomes(pid, bench.listener_fd, OBSERVE_WAITING);
                }
                stop(pid);
                close_listener(bench.listener_fd);
                close_listener(bench.other_fd);
        }
}

/* FUTEX_WAIT_PRIVATE after SIGCONT: restart_syscall with a pointer, 128 and a value, where the memory
 * looks like a pollfd. */
static void sleep_on_futex(const Bench *bench) {
        static struct pollfd words[200];

        for (size_t i = 0; i < ELEMENTSOF(words); i++)
                words[i] = (struct pollfd) { .fd = bench->listener_fd, .events = POLLIN };
        close(bench->ready_fd);
        (void) syscall(SYS_futex, words, 128, bench->listener_fd, &(struct timespec) { .tv_sec = 3600 },
                       NULL, 0);
}

static void test_futex_is_not_poll(void) {
        Bench bench;
        siginfo_t info;
        pid_t pid;

        if (!has_pidfds())
                return;
        bench.listener_fd = listen_unix("a");
        pid = start(sleep_on_futex, &bench);
        for (unsigned n = 0; n < 3; n++) {
                EXPECT(kill(pid, SIGSTOP) == 0);
                EXPECT(waitid(P_PID, (id_t) pid, &info, WSTOPPED) == 0);
                EXPECT(kill(pid, SIGCONT) == 0);
                EXPECT(waitid(P_PID, (id_t) pid, &info, WCONTINUED) == 0);
                expect_stays(pid, bench.listener_fd, OBSERVE_NOT_WAITING);
        }
        stop(pid);
        close_listener(bench.listener_fd);
}

/* ---- threads and descendants ---- */

static void *thread_sleep(void *data) {
        while (pause() < 0)
                ;
        return NULL;
}

static void *thread_accept(void *data) {
        return (void *) (intptr_t) accept(*(int *) data, NULL, NULL);
}

/* Only the last of them waits for connections. */
static void many_threads(const Bench *bench) {
        int listener_fd = bench->listener_fd;
        pthread_t thread;

        for (unsigned i = 0; i < N_THREADS; i++)
                EXPECT_EQ(pthread_create(&thread, NULL, i + 1 < N_THREADS ? thread_sleep : thread_accept,
                                         &listener_fd), 0);
        sleep_for_ever(bench);
}

static void many_threads_none_waits(const Bench *bench) {
        pthread_t thread;

        for (unsigned i = 0; i < N_THREADS; i++)
                EXPECT_EQ(pthread_create(&thread, NULL, thread_sleep, NULL), 0);
        sleep_for_ever(bench);
}

_noreturn_ static void exit_main_thread(const Bench *bench) {
        static int listener_fd;
        pthread_t thread;

        listener_fd = bench->listener_fd;
        EXPECT_EQ(pthread_create(&thread, NULL, thread_accept, &listener_fd), 0);
        close(bench->ready_fd);
        pthread_exit(NULL);
}

static void test_threads(void) {
        expect_body_becomes(many_threads, OBSERVE_WAITING);
        expect_body_becomes(exit_main_thread, OBSERVE_WAITING);
}

static void start_grandchild(const Bench *bench, Body body) {
        pid_t pid = fork();

        EXPECT(pid >= 0);
        if (pid == 0) {
                EXPECT(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
                body(bench);
                _exit(EXIT_SUCCESS);
        }
}

static void *thread_prefork(void *data) {
        start_grandchild(data, accept_on_stdin);
        return thread_sleep(NULL);
}

static void prefork(const Bench *bench) {
        start_grandchild(bench, sleep_for_ever);
        start_grandchild(bench, accept_on_stdin);
        sleep_for_ever(bench);
}

/* Two levels down, from a thread that is not the main one. */
static void prefork_in_thread(const Bench *bench) {
        pthread_t thread;

        EXPECT_EQ(pthread_create(&thread, NULL, thread_prefork, (void *) (uintptr_t) bench), 0);
        sleep_for_ever(bench);
}

static void prefork_deep(const Bench *bench) {
        start_grandchild(bench, prefork_in_thread);
        sleep_for_ever(bench);
}

static void own_connection(const Bench *bench) {
        EXPECT(accept(bench->listener_fd, NULL, NULL) >= 0);
        sleep_for_ever(bench);
}

static void connection_in_grandchild(const Bench *bench) {
        start_grandchild(bench, own_connection);
        sleep_for_ever(bench);
}

/* More than are looked at. */
static void prefork_crowd(const Bench *bench) {
        for (unsigned i = 0; i < 100; i++)
                start_grandchild(bench, sleep_for_ever);
        sleep_for_ever(bench);
}

static void zombie_child(const Bench *bench) {
        siginfo_t info;

        start_grandchild(bench, exit_at_once);
        EXPECT(waitid(P_ALL, 0, &info, WEXITED | WNOWAIT) == 0);
        sleep_for_ever(bench);
}

static bool has_children(void) {
        if (access("/proc/thread-self/children", F_OK) == 0)
                return true;
        fprintf(stderr, "skipped part: this kernel does not list children in /proc: %s\n", strerror(errno));
        return false;
}

static void test_descendants(void) {
        Bench bench;
        int client_fd;
        pid_t pid;

        if (!has_children())
                return;
        expect_body_becomes(prefork, OBSERVE_WAITING);
        expect_body_becomes(prefork_deep, OBSERVE_WAITING);
        if (!has_pidfds())
                return;
        expect_body_becomes(prefork_crowd, OBSERVE_NOT_WAITING);
        expect_body_becomes(zombie_child, OBSERVE_NOT_WAITING);

        bench.listener_fd = listen_unix("c");
        client_fd = connect_to(bench.listener_fd);
        pid = start(connection_in_grandchild, &bench);
        expect_becomes(pid, bench.listener_fd, OBSERVE_CONNECTED);
        stop(pid);
        close(client_fd);
        close_listener(bench.listener_fd);
}

/* ---- not waiting ---- */

static void busy(const Bench *bench) {
        close(bench->ready_fd);
        for (volatile unsigned i = 1; i != 0; i += 2)
                ;
}

static void accept_on_other(const Bench *bench) {
        close(bench->ready_fd);
        (void) accept(bench->other_fd, NULL, NULL);
}

static void epoll_other(const Bench *bench) {
        epoll_with(&(Bench) { .listener_fd = bench->other_fd, .ready_fd = bench->ready_fd }, EPOLLIN, 0);
}

static void poll_other(const Bench *bench) {
        poll_with_timeout(&(Bench) { .listener_fd = bench->other_fd, .ready_fd = bench->ready_fd });
}

static void select_other(const Bench *bench) {
        pselect_listener(&(Bench) { .listener_fd = bench->other_fd, .ready_fd = bench->ready_fd });
}

static void test_not_waiting(void) {
        static const Body bodies[] = { sleep_for_ever, busy, many_threads_none_waits, epoll_not_in };

        if (!has_pidfds())
                return;
        for (size_t i = 0; i < ELEMENTSOF(bodies); i++) {
                Bench bench = { .listener_fd = listen_unix("a") };
                pid_t pid = start(bodies[i], &bench);

                expect_stays(pid, bench.listener_fd, OBSERVE_NOT_WAITING);
                stop(pid);
                close_listener(bench.listener_fd);
        }
}

/* The other listener shows that the child is where it should be before this one is looked for. */
static void test_waiting_on_another(void) {
        static const Body bodies[] = { accept_on_other, epoll_other, poll_other, select_other, poll_not_in,
                                       select_not_in };

        for (size_t i = 0; i < ELEMENTSOF(bodies); i++) {
                Bench bench = { .listener_fd = listen_unix("a"), .other_fd = listen_unix("b") };
                pid_t pid = start(bodies[i], &bench);

                expect_becomes(pid, bench.other_fd, OBSERVE_WAITING);
                if (has_pidfds())
                        expect_stays(pid, bench.listener_fd, OBSERVE_NOT_WAITING);
                stop(pid);
                close_listener(bench.listener_fd);
                close_listener(bench.other_fd);
        }
}

/* ---- (d) connections ---- */

static void expect_connected(int listener_fd, int client_fd) {
        Bench bench = { .listener_fd = listener_fd };
        pid_t pid = start(own_connection, &bench);

        expect_stays(pid, listener_fd, OBSERVE_CONNECTED);
        stop(pid);
        close(client_fd);
        close_listener(listener_fd);
}

static void test_connected_unix(void) {
        int fd;

        if (!has_pidfds())
                return;
        fd = listen_unix("a");
        expect_connected(fd, connect_to(fd));
        fd = listen_abstract("a");
        expect_connected(fd, connect_to(fd));
}

static void test_connected_inet(void) {
        struct sockaddr_in address = { .sin_family = AF_INET,
                                       .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 7) };
        struct sockaddr_storage any;
        socklen_t size = sizeof(any);
        int fd;

        if (!has_pidfds())
                return;
        fd = listen_inet("127.0.0.1");
        expect_connected(fd, connect_to(fd));

        fd = listen_inet("0.0.0.0");
        EXPECT(getsockname(fd, (struct sockaddr *) &any, &size) == 0);
        address.sin_port = ((struct sockaddr_in *) &any)->sin_port;
        expect_connected(fd, connect_at((struct sockaddr *) &address, sizeof(address)));
}

static void test_connected_inet6(void) {
        static const char *const hosts[] = { "::1", "::", "::ffff:127.0.0.1" };
        struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        struct sockaddr_storage any;
        socklen_t size = sizeof(any);
        int fd;

        if (!has_pidfds())
                return;
        for (size_t i = 0; i < ELEMENTSOF(hosts); i++) {
                fd = listen_inet6(hosts[i]);
                if (fd < 0) {
                        fprintf(stderr, "skipped part: cannot listen on %s: %s\n", hosts[i], strerror(-fd));
                        continue;
                }
                expect_connected(fd, connect_to(fd));
        }

        /* An IPv4 client of the dual-stack wildcard. */
        fd = listen_inet6("::");
        if (fd < 0)
                return;
        EXPECT(getsockname(fd, (struct sockaddr *) &any, &size) == 0);
        address.sin_port = ((struct sockaddr_in6 *) &any)->sin6_port;
        expect_connected(fd, connect_at((struct sockaddr *) &address, sizeof(address)));
}

/* Everything a worker may have that is a socket but no connection of this listener: the listener itself,
 * another one, a connection accepted from that, one made to it, one made to this listener, a pair,
 * datagrams. */
static void own_unrelated(const Bench *bench) {
        int pair[2];

        EXPECT(dup(bench->listener_fd) >= 0);
        EXPECT(accept(bench->other_fd, NULL, NULL) >= 0);
        (void) connect_to(bench->other_fd);
        (void) connect_to(bench->listener_fd);
        EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
        EXPECT(socket(AF_INET, SOCK_DGRAM, 0) >= 0);
        EXPECT(socket(AF_INET, SOCK_STREAM, 0) >= 0);
        EXPECT(socket(AF_UNIX, SOCK_SEQPACKET, 0) >= 0);
        EXPECT(socket(AF_NETLINK, SOCK_RAW, 0) >= 0);
        EXPECT(epoll_create1(0) >= 0);
        sleep_for_ever(bench);
}

static void expect_unrelated(int listener_fd, int other_fd) {
        Bench bench = { .listener_fd = listener_fd, .other_fd = other_fd };
        int client_fd = connect_to(other_fd);
        pid_t pid = start(own_unrelated, &bench);

        expect_stays(pid, listener_fd, OBSERVE_NOT_WAITING);
        stop(pid);
        close(client_fd);
        close_listener(listener_fd);
        close_listener(other_fd);
}

/* The other address with the same port. */
static int listen_inet_beside(int fd) {
        struct sockaddr_in address;
        socklen_t size = sizeof(address);

        EXPECT(getsockname(fd, (struct sockaddr *) &address, &size) == 0);
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);
        fd = listen_at((struct sockaddr *) &address, sizeof(address));
        EXPECT(fd >= 0);
        return fd;
}

static void test_unrelated(void) {
        int fd;

        if (!has_pidfds())
                return;
        expect_unrelated(listen_unix("a"), listen_unix("b"));
        expect_unrelated(listen_unix("a"), listen_unix("aa"));
        expect_unrelated(listen_abstract("aa"), listen_abstract("a"));
        expect_unrelated(listen_abstract("a"), listen_abstract("aa"));
        expect_unrelated(listen_abstract("a"), listen_unix("a"));
        expect_unrelated(listen_inet("127.0.0.1"), listen_inet("127.0.0.1"));
        expect_unrelated(listen_inet("0.0.0.0"), listen_inet("127.0.0.1"));
        fd = listen_inet("127.0.0.1");
        expect_unrelated(fd, listen_inet_beside(fd));
}

/* Same address and port as the listener, and a stream, but no connection: a second listener
 * (SO_REUSEPORT) is none, datagrams are none. */
static void own_namesakes(const Bench *bench) {
        struct sockaddr_in address;
        socklen_t size = sizeof(address);
        int fd;

        EXPECT(getsockname(bench->listener_fd, (struct sockaddr *) &address, &size) == 0);
        fd = socket(AF_INET, SOCK_DGRAM, 0);
        EXPECT(bind(fd, (struct sockaddr *) &address, size) == 0);
        fd = socket(AF_INET, SOCK_STREAM, 0);
        EXPECT(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &(int) { 1 }, sizeof(int)) == 0);
        EXPECT(bind(fd, (struct sockaddr *) &address, size) == 0);
        EXPECT(listen(fd, 1) == 0);
        sleep_for_ever(bench);
}

static void test_namesakes(void) {
        struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        Bench bench;
        pid_t pid;

        if (!has_pidfds())
                return;
        bench.listener_fd = socket(AF_INET, SOCK_STREAM, 0);
        EXPECT(setsockopt(bench.listener_fd, SOL_SOCKET, SO_REUSEPORT, &(int) { 1 }, sizeof(int)) == 0);
        EXPECT(bind(bench.listener_fd, (struct sockaddr *) &address, sizeof(address)) == 0);
        EXPECT(listen(bench.listener_fd, 1) == 0);
        pid = start(own_namesakes, &bench);
        expect_stays(pid, bench.listener_fd, OBSERVE_NOT_WAITING);
        stop(pid);
        close_listener(bench.listener_fd);
}

/* Waits and serves at the same time, as Go and Node do: waiting wins. */
static void epoll_with_connection(const Bench *bench) {
        EXPECT(accept(bench->listener_fd, NULL, NULL) >= 0);
        epoll_with(bench, EPOLLIN, 0);
}

static void test_waiting_wins(void) {
        Bench bench = { .listener_fd = listen_unix("a") };
        int client_fd = connect_to(bench.listener_fd);
        pid_t pid = start(epoll_with_connection, &bench);

        expect_becomes(pid, bench.listener_fd, OBSERVE_WAITING);
        stop(pid);
        close(client_fd);
        close_listener(bench.listener_fd);
}

/* ---- what may not be looked at ---- */

/* Looks as another user, or behind a filter, in a process of its own. */
static void expect_from(void (*become)(void), pid_t pid, int listener_fd, Observation expected) {
        int status;
        pid_t observer = fork();

        EXPECT(observer >= 0);
        if (observer == 0) {
                int error = 0;

                become();
                expect_becomes(pid, listener_fd, expected);
                (void) look(pid, listener_fd, &error);
                if (expected == OBSERVE_UNKNOWN)
                        EXPECT(error == -EACCES || error == -EPERM || error == -ENOENT);
                else
                        EXPECT_EQ(error, 0);
                _exit(EXIT_SUCCESS);
        }
        EXPECT(waitpid(observer, &status, 0) == observer);
        EXPECT_EQ(status, 0);
}

static void become_nobody(void) {
        EXPECT(setresgid(NOBODY, NOBODY, NOBODY) == 0);
        EXPECT(setresuid(NOBODY, NOBODY, NOBODY) == 0);
        EXPECT(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0); /* forgotten with a change of user */
}

/* ProtectProc=invisible: /proc says that there is no such process. */
static void become_nobody_without_proc(void) {
        if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", "", MS_REC | MS_PRIVATE, "") < 0 ||
            mount("proc", "/proc", "proc", 0, "hidepid=2") < 0)
                fprintf(stderr, "skipped part: cannot mount /proc with hidepid=2: %s\n", strerror(errno));
        become_nobody();
}

static void become_self(void) {
}

static void accept_as_nobody(const Bench *bench) {
        become_nobody();
        EXPECT(prctl(PR_SET_DUMPABLE, 1) == 0);
        accept_on_stdin(bench);
}

static void accept_not_dumpable(const Bench *bench) {
        if (getuid() == 0)
                become_nobody();
        EXPECT(prctl(PR_SET_DUMPABLE, 0) == 0);
        accept_on_stdin(bench);
}

static void expect_body_from(Body body, void (*become)(void), Observation expected) {
        Bench bench = { .listener_fd = listen_unix("a") };
        pid_t pid = start(body, &bench);

        expect_from(become, pid, bench.listener_fd, expected);
        stop(pid);
        close_listener(bench.listener_fd);
}

static void test_not_permitted(void) {
        bool root = getuid() == 0;

        expect_body_from(accept_not_dumpable, root ? become_nobody : become_self, OBSERVE_UNKNOWN);
        if (!root) {
                fprintf(stderr, "skipped part: another user's process can be made by root only\n");
                return;
        }
        expect_body_from(accept_on_stdin, become_nobody_without_proc, OBSERVE_UNKNOWN);
        expect_body_from(accept_on_stdin, become_nobody, OBSERVE_UNKNOWN);
        expect_body_from(accept_as_nobody, become_nobody, OBSERVE_WAITING);
}

/* No word of a descendant that cannot be looked at, as long as the worker itself can be. */
static void unknown_grandchild(const Bench *bench) {
        start_grandchild(bench, accept_not_dumpable);
        sleep_for_ever(bench);
}

static void unknown_grandchild_and_accept(const Bench *bench) {
        start_grandchild(bench, accept_not_dumpable);
        accept_on_stdin(bench);
}

static void as_nobody_unknown_grandchild(const Bench *bench) {
        become_nobody();
        EXPECT(prctl(PR_SET_DUMPABLE, 1) == 0);
        unknown_grandchild(bench);
}

static void as_nobody_unknown_grandchild_and_accept(const Bench *bench) {
        become_nobody();
        EXPECT(prctl(PR_SET_DUMPABLE, 1) == 0);
        unknown_grandchild_and_accept(bench);
}

static void test_descendant_not_permitted(void) {
        bool root = getuid() == 0;

        if (!has_children() || !has_pidfds())
                return;
        expect_body_from(root ? as_nobody_unknown_grandchild : unknown_grandchild,
                         root ? become_nobody : become_self, OBSERVE_UNKNOWN);
        expect_body_from(root ? as_nobody_unknown_grandchild_and_accept : unknown_grandchild_and_accept,
                         root ? become_nobody : become_self, OBSERVE_WAITING);
}

/* As systemd 252's @system-service with SystemCallErrorNumber=EPERM. */
static void forbid_pidfd_getfd(void) {
        struct sock_filter filter[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pidfd_getfd, 0, 1),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = { .len = ELEMENTSOF(filter), .filter = filter };

        EXPECT(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
        EXPECT(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

static void own_pair(const Bench *bench) {
        int pair[2];

        EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
        sleep_for_ever(bench);
}

/* Without any other socket there is no connection either, whatever may be asked. */
static void own_nothing(const Bench *bench) {
        EXPECT(dup2(bench->listener_fd, 0) == 0);
        EXPECT(dup2(bench->ready_fd, 1) == 1);
        EXPECT(close_range(3, ~0U, 0) == 0);
        EXPECT(dup2(0, 2) == 2);
        sleep_for_ever(&(Bench) { .ready_fd = 1 });
}

static void test_no_pidfd_getfd(void) {
        Bench bench;
        int client_fd;
        pid_t pid;

        if (!has_pidfds())
                return;
        bench.listener_fd = listen_unix("c");
        client_fd = connect_to(bench.listener_fd);
        expect_body_from(accept_on_stdin, forbid_pidfd_getfd, OBSERVE_WAITING);
        expect_body_from(epoll_level, forbid_pidfd_getfd, OBSERVE_WAITING);
        expect_body_from(own_pair, forbid_pidfd_getfd, OBSERVE_UNKNOWN);
        expect_body_from(own_nothing, forbid_pidfd_getfd, OBSERVE_NOT_WAITING);

        pid = start(own_connection, &bench);
        expect_stays(pid, bench.listener_fd, OBSERVE_CONNECTED);
        expect_from(forbid_pidfd_getfd, pid, bench.listener_fd, OBSERVE_UNKNOWN);
        stop(pid);
        close(client_fd);
        close_listener(bench.listener_fd);
}

/* ---- gone ---- */

static void test_gone(void) {
        Bench bench;
        siginfo_t info;
        pid_t pid;

        if (!has_pidfds())
                return;
        bench.listener_fd = listen_unix("a");
        pid = start(exit_at_once, &bench);
        EXPECT(waitid(P_PID, (id_t) pid, &info, WEXITED | WNOWAIT) == 0);
        expect_stays(pid, bench.listener_fd, OBSERVE_GONE);
        if (getuid() == 0) {
                expect_from(become_nobody, pid, bench.listener_fd, OBSERVE_GONE);
                expect_from(become_nobody_without_proc, pid, bench.listener_fd, OBSERVE_GONE);
        }
        expect_from(forbid_pidfd_getfd, pid, bench.listener_fd, OBSERVE_GONE);

        EXPECT(waitpid(pid, NULL, 0) == pid);
        expect_stays(pid, bench.listener_fd, OBSERVE_GONE);
        expect_from(forbid_pidfd_getfd, pid, bench.listener_fd, OBSERVE_GONE);
        close_listener(bench.listener_fd);
}

/* Looked at all the while it dies: never anything odd, and nothing left open here. */
static void test_dies_while_observed(void) {
        Bench bench;
        int before, after;

        if (!has_pidfds())
                return;
        bench.listener_fd = listen_unix("a");
        before = dup(2);
        close(before);
        for (unsigned i = 0; i < 50; i++) {
                pid_t pid = start(many_threads, &bench);
                Observation o;

                EXPECT(kill(pid, SIGKILL) == 0);
                do {
                        o = look(pid, bench.listener_fd, NULL);
                        EXPECT(o != OBSERVE_CONNECTED);
                } while (o != OBSERVE_GONE);
                EXPECT(waitpid(pid, NULL, 0) == pid);
        }
        after = dup(2);
        close(after);
        EXPECT_EQ(after, before);
        close_listener(bench.listener_fd);
}

/* ---- the view ---- */

static View view_of(pid_t pid, int listener_fd) {
        View view;

        observe_view(pid, listener_fd, inode_of(listener_fd), &view);
        return view;
}

/* A child that has said it is in place sleeps in no other call than the one it is there for. */
static void await_asleep(pid_t pid) {
        Wait wait = { .call = -1 };

        for (unsigned i = 0; i < LOOKS_MAX; i++) {
                EXPECT_EQ(wait_read(pid, pid, &wait), 0);
                if (wait.call >= 0)
                        return;
                (void) usleep(500);
        }
        EXPECT(!"asleep");
}

static void suspend(const View *view) {
        for (size_t i = 0; i < view->n_processes; i++) {
                int r = 0;

                EXPECT(kill(view->processes[i], SIGSTOP) == 0);
                for (unsigned n = 0; n < LOOKS_MAX && r == 0; n++) {
                        r = observe_is_stopped(view->processes[i]);
                        (void) usleep(500);
                }
                EXPECT_EQ(r, 1);
        }
}

static int is_connected(const View *view, int listener_fd) {
        return observe_is_connected(view, listener_fd, inode_of(listener_fd));
}

static void resume(const View *view) {
        for (size_t i = 0; i < view->n_processes; i++)
                EXPECT(kill(view->processes[i], SIGCONT) == 0);
}

static void expect_connections(const View *view, size_t n_connections, size_t n_kept) {
        size_t n = 0;

        EXPECT(!view->gone);
        EXPECT_EQ(view->error, 0);
        EXPECT(view->complete);
        EXPECT_EQ(view->n_connections, n_connections);
        EXPECT_EQ(view->n_kept, n_kept);
        for (size_t i = 0; i < MIN_OF(n_connections, (size_t) OBSERVE_CONNECTIONS_MAX); i++) {
                EXPECT(view->connections[i].inode > 0);
                n += view->connections[i].kept;
        }
        EXPECT_EQ(n, n_kept);
        EXPECT_EQ(view->run_nsec > 0, n_connections > 0 && n_kept == n_connections);
        if (view->run_nsec == 0)
                EXPECT_EQ(view->read_chars, 0);
}

static void expect_view_becomes(pid_t pid, int listener_fd, size_t n_connections, size_t n_kept) {
        View view = {};

        for (unsigned i = 0; i < LOOKS_MAX; i++) {
                view = view_of(pid, listener_fd);
                if (view.n_connections == n_connections && view.n_kept == n_kept)
                        break;
                (void) usleep(500);
        }
        expect_connections(&view, n_connections, n_kept);
}

/* Over TCP a worker that has not said anything owes an answer. */
static int accept_and_answer(int listener_fd) {
        int fd = accept(listener_fd, NULL, NULL);

        EXPECT(fd >= 0);
        (void) usleep(TICK_USEC);
        EXPECT_EQ(write(fd, "x", 1), 1);
        return fd;
}

/* What a worker does with the connection it has accepted, and whether that keeps it. */
typedef struct Scene {
        Body body;
        bool kept;
} Scene;

static void read_connection(const Bench *bench) {
        char buffer[16];
        int fd = accept_and_answer(bench->listener_fd);

        EXPECT(fd >= 0);
        close(bench->ready_fd);
        while (read(fd, buffer, sizeof(buffer)) > 0)
                ;
}

static void readv_duplicate(const Bench *bench) {
        char buffer[16];
        int fd = fcntl(accept_and_answer(bench->listener_fd), F_DUPFD, 100);

        EXPECT(fd >= 0);
        close(bench->ready_fd);
        EXPECT(readv(fd, &(struct iovec) { .iov_base = buffer, .iov_len = sizeof(buffer) }, 1) >= 0);
}

static void recv_connection(const Bench *bench) {
        char buffer[16];
        int fd = accept_and_answer(bench->listener_fd);

        EXPECT(fd >= 0);
        close(bench->ready_fd);
        (void) recv(fd, buffer, sizeof(buffer), 0);
}

static void recvmsg_connection(const Bench *bench) {
        char buffer[16];
        struct iovec iov = { .iov_base = buffer, .iov_len = sizeof(buffer) };
        int fd = accept_and_answer(bench->listener_fd);

        EXPECT(fd >= 0);
        close(bench->ready_fd);
        (void) recvmsg(fd, &(struct msghdr) { .msg_iov = &iov, .msg_iovlen = 1 }, 0);
}

static void read_pipe(const Bench *bench) {
        int pipe_fds[2];
        char c;

        EXPECT(accept_and_answer(bench->listener_fd) >= 0);
        EXPECT(pipe(pipe_fds) == 0);
        close(bench->ready_fd);
        EXPECT(read(pipe_fds[0], &c, 1) >= 0);
}

static void poll_connection_beside(const Bench *bench, short events, struct pollfd beside) {
        struct pollfd fds[] = {
                beside,
                { .fd = accept_and_answer(bench->listener_fd), .events = events },
        };

        EXPECT(fds[1].fd >= 0);
        if (events & POLLOUT)
                while (send(fds[1].fd, fds, sizeof(fds), MSG_DONTWAIT) > 0)
                        ;
        close(bench->ready_fd);
        (void) poll(fds, ELEMENTSOF(fds), 3600 * 1000);
}

static void poll_alone(const Bench *bench) {
        poll_connection_beside(bench, POLLIN | POLLPRI, (struct pollfd) { .fd = -1, .events = POLLIN });
}

static void ppoll_alone(const Bench *bench) {
        struct pollfd fd = { .fd = accept_and_answer(bench->listener_fd), .events = POLLRDNORM };

        EXPECT(fd.fd >= 0);
        close(bench->ready_fd);
        (void) ppoll(&fd, 1, NULL, NULL);
}

static void poll_with_other(const Bench *bench) {
        poll_connection_beside(bench, POLLIN, (struct pollfd) { .fd = bench->other_fd, .events = POLLIN });
}

static void poll_with_listener(const Bench *bench) {
        poll_connection_beside(bench, POLLIN,
                               (struct pollfd) { .fd = bench->listener_fd, .events = POLLIN });
}

static void poll_with_other_hangup(const Bench *bench) {
        poll_connection_beside(bench, POLLIN, (struct pollfd) { .fd = bench->other_fd });
}

/* In the middle of a response that the client does not take. */
static void poll_to_write(const Bench *bench) {
        poll_connection_beside(bench, POLLIN | POLLOUT, (struct pollfd) { .fd = -1 });
}

static void poll_urgent(const Bench *bench) {
        poll_connection_beside(bench, POLLPRI, (struct pollfd) { .fd = -1 });
}

static void select_connection_beside(const Bench *bench, int in_fd, bool writes) {
        int fd = accept_and_answer(bench->listener_fd);
        fd_set in, out;

        EXPECT(fd >= 0);
        FD_ZERO(&in);
        FD_ZERO(&out);
        FD_SET(fd, &in);
        if (in_fd >= 0)
                FD_SET(in_fd, &in);
        if (writes) {
                FD_SET(fd, &out);
                while (send(fd, &out, sizeof(out), MSG_DONTWAIT) > 0)
                        ;
        }
        close(bench->ready_fd);
        (void) select(MAX_OF(fd, in_fd) + 1, &in, &out, NULL, NULL);
}

static void select_alone(const Bench *bench) {
        select_connection_beside(bench, -EBADF, false);
}

static void select_with_other(const Bench *bench) {
        select_connection_beside(bench, bench->other_fd, false);
}

static void select_to_write(const Bench *bench) {
        select_connection_beside(bench, -EBADF, true);
}

static void epoll_connection(const Bench *bench) {
        int fd = accept_and_answer(bench->listener_fd);

        EXPECT(fd >= 0);
        epoll_with(&(Bench) { .listener_fd = fd, .ready_fd = bench->ready_fd }, EPOLLIN, 0);
}

/* As a shell does with a command that is not its last. */
static void wrap(const Bench *bench, Body body) {
        start_grandchild(bench, body);
        close(bench->ready_fd);
        (void) wait(NULL);
}

static void wrapper_reads(const Bench *bench) {
        wrap(bench, read_connection);
}

static void wrapper_polls_two(const Bench *bench) {
        wrap(bench, poll_with_other);
}

/* The same connection in two processes is one, whoever waits for it. */
static void child_inherits(const Bench *bench) {
        char c;
        int fd = accept_and_answer(bench->listener_fd);

        EXPECT(fd >= 0);
        start_grandchild(bench, sleep_for_ever);
        close(bench->ready_fd);
        EXPECT(read(fd, &c, 1) >= 0);
}

static void child_reads_inherited(const Bench *bench) {
        char c;
        int fd = accept_and_answer(bench->listener_fd);
        pid_t pid;

        EXPECT(fd >= 0);
        pid = fork();
        EXPECT(pid >= 0);
        if (pid == 0) {
                EXPECT(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
                close(bench->ready_fd);
                _exit((int) read(fd, &c, 1));
        }
        sleep_for_ever(bench);
}

static void child_inherits_and_sleeps(const Bench *bench) {
        EXPECT(accept_and_answer(bench->listener_fd) >= 0);
        start_grandchild(bench, sleep_for_ever);
        sleep_for_ever(bench);
}

static void *thread_read_connection(void *data) {
        char c;

        return (void *) (intptr_t) read(*(int *) data, &c, 1);
}

static void thread_reads(const Bench *bench) {
        int fd = accept_and_answer(bench->listener_fd);
        pthread_t thread;

        EXPECT(fd >= 0);
        EXPECT_EQ(pthread_create(&thread, NULL, thread_read_connection, &fd), 0);
        sleep_for_ever(bench);
}

static const Scene scenes[] = {
        { read_connection, true },        { readv_duplicate, true },
        { poll_alone, true },             { ppoll_alone, true },
        { select_alone, true },           { child_inherits, true },
        { child_reads_inherited, true },  { thread_reads, true },
        { wrapper_reads, true },          { own_connection, false },
        { recv_connection, false },       { recvmsg_connection, false },
        { read_pipe, false },             { poll_with_other, false },
        { poll_with_listener, false },    { poll_with_other_hangup, false },
        { poll_to_write, false },         { poll_urgent, false },
        { select_with_other, false },     { select_to_write, false },
        { epoll_connection, false },      { child_inherits_and_sleeps, false },
        { wrapper_polls_two, false },
};

static bool is_unix(int fd) {
        int domain;
        socklen_t size = sizeof(domain);

        EXPECT(getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0);
        return domain == AF_UNIX;
}

/* Running, stopped, stopped with a request that has come meanwhile, and, if it reads, running again. */
static void expect_scene(const Scene *scene, int listener_fd) {
        Bench bench = { .listener_fd = listener_fd, .other_fd = listen_unix("b") };
        int client_fd = connect_to(listener_fd);
        pid_t pid = start(scene->body, &bench);
        View view;

        await_asleep(pid);
        expect_view_becomes(pid, listener_fd, 1, scene->kept);
        for (unsigned i = 0; i < 5; i++) {
                view = view_of(pid, listener_fd);
                expect_connections(&view, 1, scene->kept);
                EXPECT_EQ(view.n_answered, scene->kept && !is_unix(listener_fd));
                if (scene->kept)
                        EXPECT_EQ(view.connections[0].answered, !is_unix(listener_fd));
        }
        EXPECT_EQ(view.processes[0], pid);

        suspend(&view);
        EXPECT_EQ(is_connected(&view, listener_fd), 1);
        EXPECT_EQ(is_connected(&view, bench.other_fd), 0);
        view = view_of(pid, listener_fd);
        expect_connections(&view, 1, scene->kept);
        (void) usleep(TICK_USEC);
        EXPECT_EQ(send(client_fd, "x", 1, 0), 1);
        view = view_of(pid, listener_fd);
        expect_connections(&view, 1, 0);

        if (scene->body == read_connection) {
                resume(&view);
                /* It has read and not answered, which only TCP tells. */
                if (!is_unix(listener_fd))
                        await_asleep(pid);
                expect_view_becomes(pid, listener_fd, 1, is_unix(listener_fd));
        }
        stop(pid);
        close(client_fd);
        close_listener(bench.other_fd);
}

static void test_view_scenes(void) {
        int fds[] = { -EBADF, -EBADF, -EBADF };

        if (!has_pidfds() || !has_children())
                return;
        fds[0] = listen_unix("a");
        fds[1] = listen_inet("127.0.0.1");
        fds[2] = listen_inet6("::");
        for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
                if (fds[i] < 0) {
                        fprintf(stderr, "skipped part: cannot listen on ::: %s\n", strerror(-fds[i]));
                        continue;
                }
                for (size_t k = 0; k < ELEMENTSOF(scenes); k++)
                        expect_scene(scenes + k, fds[i]);
                close_listener(fds[i]);
        }
}

/* ---- the view: who waits ---- */

static void accept_in_thread(const Bench *bench) {
        static int listener_fd;
        pthread_t thread;

        listener_fd = bench->listener_fd;
        EXPECT_EQ(pthread_create(&thread, NULL, thread_accept, &listener_fd), 0);
        sleep_for_ever(bench);
}

static void accept_beside_zombie(const Bench *bench) {
        siginfo_t info;

        start_grandchild(bench, exit_at_once);
        EXPECT(waitid(P_ALL, 0, &info, WEXITED | WNOWAIT) == 0);
        start_grandchild(bench, accept_on_stdin);
        sleep_for_ever(bench);
}

static void wrapper_accepts(const Bench *bench) {
        wrap(bench, accept_on_stdin);
}

static void expect_waits(Body body, bool waiting, bool accepting, size_t n_processes) {
        Bench bench = { .listener_fd = listen_unix("a"), .other_fd = listen_unix("b") };
        pid_t pid = start(body, &bench);
        int client_fd;
        View view;

        await_asleep(pid);
        if (waiting)
                expect_becomes(pid, bench.listener_fd, OBSERVE_WAITING);
        for (unsigned stopped = 0; stopped < 2; stopped++) {
                view = view_of(pid, bench.listener_fd);
                expect_connections(&view, 0, 0);
                EXPECT_EQ(view.waiting, waiting);
                EXPECT_EQ(view.accepting, accepting);
                EXPECT_EQ(view.n_processes, n_processes);
                suspend(&view);
        }

        /* In the queue it is nobody's yet. */
        client_fd = connect_to(bench.listener_fd);
        view = view_of(pid, bench.listener_fd);
        expect_connections(&view, 0, 0);
        EXPECT_EQ(view.accepting, accepting);
        EXPECT_EQ(is_connected(&view, bench.listener_fd), 0);
        if (accepting) {
                resume(&view);
                expect_becomes(pid, bench.listener_fd, OBSERVE_GONE);
        }
        stop(pid);
        close(client_fd);
        close_listener(bench.listener_fd);
        close_listener(bench.other_fd);
}

static void test_view_waiting(void) {
        if (!has_pidfds() || !has_children())
                return;
        expect_waits(accept_on_stdin, true, true, 1);
        expect_waits(accept4_on_listener, true, true, 1);
        expect_waits(zombie_child, false, false, 1);
        expect_waits(accept_on_other, false, false, 1);
        expect_waits(epoll_level, true, false, 1);
        expect_waits(poll_listener, true, false, 1);
        expect_waits(accept_in_thread, true, false, 1);
        expect_waits(many_threads, true, false, 1);
        expect_waits(wrapper_accepts, true, false, 2);
        expect_waits(accept_beside_zombie, true, false, 2);
        expect_waits(prefork, true, false, 3);
}

/* ---- the view: processes ---- */

static void test_view_parents_first(void) {
        Bench bench;
        View view = {};
        pid_t pid;

        if (!has_pidfds() || !has_children())
                return;
        bench.listener_fd = listen_unix("a");
        pid = start(prefork_deep, &bench);
        expect_becomes(pid, bench.listener_fd, OBSERVE_WAITING);
        view = view_of(pid, bench.listener_fd);
        EXPECT_EQ(view.n_processes, 3);
        EXPECT_EQ(view.processes[0], pid);
        for (size_t i = 1; i < 3; i++) {
                uint64_t start_time;
                pid_t parent;

                EXPECT_EQ(process_get_start_time(view.processes[i], &start_time, &parent, NULL), 0);
                EXPECT_EQ(parent, view.processes[i - 1]);
        }
        stop(pid);
        close_listener(bench.listener_fd);
}

static void prefork_full(const Bench *bench) {
        for (unsigned i = 1; i < OBSERVE_PROCESSES_MAX; i++)
                start_grandchild(bench, sleep_for_ever);
        sleep_for_ever(bench);
}

static void test_view_bounds(void) {
        Bench bench;
        View view;
        pid_t pid;

        if (!has_pidfds() || !has_children())
                return;
        bench.listener_fd = listen_unix("a");
        pid = start(prefork_full, &bench);
        view = view_of(pid, bench.listener_fd);
        expect_connections(&view, 0, 0);
        EXPECT_EQ(view.n_processes, OBSERVE_PROCESSES_MAX);
        stop(pid);

        pid = start(prefork_crowd, &bench);
        view = view_of(pid, bench.listener_fd);
        EXPECT_EQ(view.n_processes, OBSERVE_PROCESSES_MAX);
        EXPECT(!view.complete);
        EXPECT_EQ(view.error, -E2BIG);
        stop(pid);
        close_listener(bench.listener_fd);
}

/* ---- the view: connections ---- */

static void own_many(const Bench *bench) {
        for (unsigned i = 0; i < OBSERVE_CONNECTIONS_MAX + 8; i++) {
                (void) connect_to(bench->listener_fd);
                EXPECT(accept_and_answer(bench->listener_fd) >= 0);
        }
        sleep_for_ever(bench);
}

/* Of two connections each has its reader. */
static void thread_and_main_read(const Bench *bench) {
        int fd = accept_and_answer(bench->listener_fd);
        pthread_t thread;

        EXPECT(fd >= 0);
        EXPECT_EQ(pthread_create(&thread, NULL, thread_read_connection, &fd), 0);
        read_connection(bench);
}

static void only_main_reads(const Bench *bench) {
        EXPECT(accept_and_answer(bench->listener_fd) >= 0);
        read_connection(bench);
}

static void expect_two(Body body, size_t n_kept) {
        Bench bench = { .listener_fd = listen_unix("a") };
        int client_fds[] = { connect_to(bench.listener_fd), connect_to(bench.listener_fd) };
        pid_t pid = start(body, &bench);
        View view;

        await_asleep(pid);
        expect_view_becomes(pid, bench.listener_fd, 2, n_kept);
        view = view_of(pid, bench.listener_fd);
        EXPECT(view.connections[0].inode != view.connections[1].inode);
        stop(pid);
        close(client_fds[0]);
        close(client_fds[1]);
        close_listener(bench.listener_fd);
}

static void test_view_connections(void) {
        Bench bench;
        View view;
        pid_t pid;

        if (!has_pidfds())
                return;
        expect_two(thread_and_main_read, 2);
        expect_two(only_main_reads, 1);

        bench.listener_fd = listen_unix("a");
        pid = start(own_many, &bench);
        view = view_of(pid, bench.listener_fd);
        expect_connections(&view, OBSERVE_CONNECTIONS_MAX + 8, 0);
        stop(pid);
        close_listener(bench.listener_fd);
}

/* Nothing that a worker has done on a kept connection goes unnoticed. */
static void test_view_counters(void) {
        View before = {}, after;
        int client_fd;
        Bench bench;
        pid_t pid;

        if (!has_pidfds())
                return;
        bench.listener_fd = listen_unix("a");
        client_fd = connect_to(bench.listener_fd);
        pid = start(read_connection, &bench);
        await_asleep(pid);
        before = view_of(pid, bench.listener_fd);
        expect_connections(&before, 1, 1);
        after = view_of(pid, bench.listener_fd);
        EXPECT_EQ(after.run_nsec, before.run_nsec);
        EXPECT_EQ(after.read_chars, before.read_chars);

        EXPECT_EQ(send(client_fd, "four", 4, 0), 4);
        for (unsigned i = 0; i < LOOKS_MAX; i++) {
                after = view_of(pid, bench.listener_fd);
                if (after.n_kept == 1 && after.read_chars != before.read_chars)
                        break;
                (void) usleep(500);
        }
        expect_connections(&after, 1, 1);
        if (is_under_valgrind()) /* which reads for itself */
                EXPECT(after.read_chars >= before.read_chars + 4);
        else
                EXPECT_EQ(after.read_chars, before.read_chars + 4);
        EXPECT(after.run_nsec > before.run_nsec);
        EXPECT_EQ(after.connections[0].inode, before.connections[0].inode);
        stop(pid);
        close(client_fd);
        close_listener(bench.listener_fd);
}

/* ---- the view: what may not be looked at ---- */

typedef void (*Check)(const Bench *bench, pid_t pid);

static void expect_view_from(void (*become)(void), Body body, Check check) {
        Bench bench = { .listener_fd = listen_unix("a") };
        pid_t pid = start(body, &bench), observer = fork();
        int status;

        EXPECT(observer >= 0);
        if (observer == 0) {
                become();
                check(&bench, pid);
                _exit(EXIT_SUCCESS);
        }
        EXPECT(waitpid(observer, &status, 0) == observer);
        EXPECT_EQ(status, 0);
        stop(pid);
        close_listener(bench.listener_fd);
}

static void check_not_permitted(const Bench *bench, pid_t pid) {
        View view = view_of(pid, bench->listener_fd);

        EXPECT(!view.gone);
        EXPECT(view.error == -EACCES || view.error == -EPERM);
        EXPECT(!view.complete);
        EXPECT(!view.accepting);
        EXPECT_EQ(view.processes[0], pid);
}

/* Accepting, then with a connection: there is a socket more, which is all that can be told. */
static void check_unknown_sockets(const Bench *bench, pid_t pid) {
        View before, again, after = {};
        int client_fd;

        expect_becomes(pid, bench->listener_fd, OBSERVE_WAITING);
        before = view_of(pid, bench->listener_fd);
        again = view_of(pid, bench->listener_fd);
        EXPECT_EQ(before.error, -EPERM);
        EXPECT(before.complete && before.waiting && before.accepting);
        EXPECT(before.unknown_sockets != 0);
        EXPECT_EQ(again.unknown_sockets, before.unknown_sockets);
        EXPECT_EQ(is_connected(&before, bench->listener_fd), -EPERM);

        client_fd = connect_to(bench->listener_fd);
        for (unsigned i = 0; i < LOOKS_MAX; i++) {
                after = view_of(pid, bench->listener_fd);
                EXPECT(after.unknown_sockets == before.unknown_sockets || !after.accepting);
                if (after.unknown_sockets != before.unknown_sockets && !after.waiting)
                        break;
        }
        EXPECT_EQ(after.error, -EPERM);
        EXPECT(after.complete && !after.waiting && !after.accepting);
        EXPECT_EQ(after.n_connections, 0);
        EXPECT(after.unknown_sockets != before.unknown_sockets);
        close(client_fd);
}

static void accept_beside_pair(const Bench *bench) {
        int pair[2];

        EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
        close(bench->ready_fd);
        EXPECT(accept_and_answer(bench->listener_fd) >= 0);
        while (pause() < 0)
                ;
}

static void check_no_other_sockets(const Bench *bench, pid_t pid) {
        View view = view_of(pid, bench->listener_fd);

        expect_connections(&view, 0, 0);
        EXPECT_EQ(view.unknown_sockets, 0);
}

static void check_unknown_child(const Bench *bench, pid_t pid) {
        View view;

        expect_becomes(pid, bench->listener_fd, OBSERVE_WAITING);
        view = view_of(pid, bench->listener_fd);
        EXPECT(view.waiting && !view.complete && !view.accepting);
        EXPECT(view.error == -EACCES || view.error == -EPERM);
        EXPECT_EQ(view.n_processes, 2);
}

static void test_view_not_permitted(void) {
        bool root = getuid() == 0;

        if (!has_pidfds() || !has_children())
                return;
        expect_view_from(root ? become_nobody : become_self, accept_not_dumpable, check_not_permitted);
        expect_view_from(root ? become_nobody : become_self,
                         root ? as_nobody_unknown_grandchild_and_accept : unknown_grandchild_and_accept,
                         check_unknown_child);
        expect_view_from(forbid_pidfd_getfd, accept_beside_pair, check_unknown_sockets);
        expect_view_from(forbid_pidfd_getfd, own_nothing, check_no_other_sockets);
}

/* In the place of a file of /proc there is nothing to read. */
static void hide_and_check(const Bench *bench, pid_t pid, const char *path) {
        int client_fd = connect_to(bench->listener_fd);
        View view;

        expect_view_becomes(pid, bench->listener_fd, 1, 1);
        if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", "", MS_REC | MS_PRIVATE, "") < 0 ||
            mount("/dev/null", path, "", MS_BIND, "") < 0)
                fprintf(stderr, "skipped part: cannot hide %s: %s\n", path, strerror(errno));
        else {
                view = view_of(pid, bench->listener_fd);
                expect_connections(&view, 1, 0);
        }
        close(client_fd);
}

static void check_without_io(const Bench *bench, pid_t pid) {
        char path[64];

        (void) snprintf(path, sizeof(path), "/proc/%d/io", pid);
        hide_and_check(bench, pid, path);
}

static void check_without_schedstat(const Bench *bench, pid_t pid) {
        char path[64];

        (void) snprintf(path, sizeof(path), "/proc/%d/task/%d/schedstat", pid, pid);
        hide_and_check(bench, pid, path);
}

static void read_later_connection(const Bench *bench) {
        char c;

        close(bench->ready_fd);
        EXPECT(read(accept_and_answer(bench->listener_fd), &c, 1) >= 0);
}

/* Without the counters nobody could tell whether anything has happened, so nothing is kept. */
static void test_view_no_counters(void) {
        if (!has_pidfds())
                return;
        expect_view_from(become_self, read_later_connection, check_without_io);
        expect_view_from(become_self, read_later_connection, check_without_schedstat);
}

/* The descriptors of a process whose main thread has ended cannot be listed. */
static void test_view_main_thread_ended(void) {
        Bench bench;
        pid_t pid;
        View view;

        if (!has_pidfds())
                return;
        bench.listener_fd = listen_unix("a");
        pid = start(exit_main_thread, &bench);
        expect_becomes(pid, bench.listener_fd, OBSERVE_WAITING);
        do
                view = view_of(pid, bench.listener_fd);
        while (view.complete);
        EXPECT_EQ(view.error, -ENODATA);
        EXPECT(view.waiting && !view.accepting && !view.gone);
        stop(pid);
        close_listener(bench.listener_fd);
}

/* ---- the view: gone ---- */

static void test_view_gone(void) {
        int client_fd, before, after;
        siginfo_t info;
        Bench bench;
        pid_t pid;

        if (!has_pidfds())
                return;
        bench.listener_fd = listen_unix("a");
        pid = start(exit_at_once, &bench);
        EXPECT(waitid(P_PID, (id_t) pid, &info, WEXITED | WNOWAIT) == 0);
        EXPECT(view_of(pid, bench.listener_fd).gone);
        EXPECT_EQ(observe_is_stopped(pid), -ESRCH);
        EXPECT(waitpid(pid, NULL, 0) == pid);
        EXPECT(view_of(pid, bench.listener_fd).gone);
        EXPECT_EQ(observe_is_stopped(pid), -ESRCH);

        before = dup(2);
        close(before);
        for (unsigned i = 0; i < 50; i++) {
                View view;

                client_fd = connect_to(bench.listener_fd);
                pid = start(i % 2 == 0 ? child_inherits : thread_reads, &bench);
                EXPECT(kill(pid, SIGKILL) == 0);
                do {
                        view = view_of(pid, bench.listener_fd);
                        EXPECT(view.gone || view.processes[0] == pid);
                } while (!view.gone);
                EXPECT_EQ(view.n_processes, 0);
                EXPECT(waitpid(pid, NULL, 0) == pid);
                close(client_fd);
        }
        after = dup(2);
        close(after);
        EXPECT_EQ(after, before);
        close_listener(bench.listener_fd);
}

/* ---- stopped ---- */

static void sleep_under_odd_name(const Bench *bench) {
        EXPECT(prctl(PR_SET_NAME, "a) T (b) T 1") == 0);
        sleep_for_ever(bench);
}

static void test_is_stopped(void) {
        static const Body bodies[] = { sleep_for_ever, sleep_under_odd_name, busy, many_threads,
                                       exit_main_thread };

        for (size_t i = 0; i < ELEMENTSOF(bodies); i++) {
                Bench bench = { .listener_fd = listen_unix("a") };
                pid_t pid = start(bodies[i], &bench);
                View view = { .n_processes = 1, .processes = { pid } };
                siginfo_t info;

                for (unsigned n = 0; n < 2; n++) {
                        EXPECT_EQ(observe_is_stopped(pid), 0);
                        suspend(&view);
                        EXPECT_EQ(observe_is_stopped(pid), 1);
                        EXPECT(waitid(P_PID, (id_t) pid, &info, WSTOPPED) == 0);
                        resume(&view);
                        EXPECT(waitid(P_PID, (id_t) pid, &info, WCONTINUED) == 0);
                }
                stop(pid);
                EXPECT_EQ(observe_is_stopped(pid), -ESRCH);
                close_listener(bench.listener_fd);
        }
}

/* ---- names and cost ---- */

static void test_names(void) {
        EXPECT_STREQ(observation_to_string(OBSERVE_NOT_WAITING), "not-waiting");
        EXPECT_STREQ(observation_to_string(OBSERVE_WAITING), "waiting");
        EXPECT_STREQ(observation_to_string(OBSERVE_CONNECTED), "connected");
        EXPECT_STREQ(observation_to_string(OBSERVE_UNKNOWN), "unknown");
        EXPECT_STREQ(observation_to_string(OBSERVE_GONE), "gone");
}

static uint64_t now_nsec(void) {
        struct timespec ts;

        EXPECT(clock_gettime(CLOCK_MONOTONIC, &ts) == 0);
        return (uint64_t) ts.tv_sec * 1000000000 + (uint64_t) ts.tv_nsec;
}

static void observe_worker_once(pid_t pid, int listener_fd, uint64_t inode) {
        (void) observe_worker(pid, listener_fd, inode, NULL);
}

static void observe_view_once(pid_t pid, int listener_fd, uint64_t inode) {
        View view;

        observe_view(pid, listener_fd, inode, &view);
}

/* There is a client for whoever accepts before he is in place. */
static void print_cost(const char *name, Body body, void (*once)(pid_t, int, uint64_t), bool client) {
        Bench bench = { .listener_fd = listen_unix("a"), .other_fd = listen_unix("b") };
        int client_fd = client ? connect_to(bench.listener_fd) : -EBADF;
        pid_t pid = start(body, &bench);
        uint64_t inode = inode_of(bench.listener_fd), best = UINT64_MAX, all;
        const unsigned n = 1000;

        if (body != busy)
                await_asleep(pid);
        all = now_nsec();
        for (unsigned i = 0; i < n; i++) {
                uint64_t begin = now_nsec();

                once(pid, bench.listener_fd, inode);
                best = MIN_OF(best, now_nsec() - begin);
        }
        all = now_nsec() - all;
        fprintf(stderr, "%-24s %6.1f us mean, %6.1f us best\n", name, (double) all / n / 1000,
                (double) best / 1000);
        stop(pid);
        (void) safe_close(client_fd);
        close_listener(bench.listener_fd);
        close_listener(bench.other_fd);
}

static void test_cost(void) {
        print_cost("accept", accept_on_stdin, observe_worker_once, false);
        print_cost("epoll", epoll_level, observe_worker_once, false);
        print_cost("poll", poll_with_timeout, observe_worker_once, false);
        print_cost("pselect", pselect_listener, observe_worker_once, false);
        print_cost("last of 13 threads", many_threads, observe_worker_once, false);
        if (has_pidfds()) {
                print_cost("asleep", sleep_for_ever, observe_worker_once, false);
                print_cost("connected", own_connection, observe_worker_once, true);
        }
        if (has_children())
                print_cost("prefork, second child", prefork, observe_worker_once, false);
        if (!has_pidfds() || !has_children())
                return;
        print_cost("view: accept", accept_on_stdin, observe_view_once, false);
        print_cost("view: epoll", epoll_level, observe_view_once, false);
        print_cost("view: runs", busy, observe_view_once, false);
        print_cost("view: connected", own_connection, observe_view_once, true);
        print_cost("view: kept", read_connection, observe_view_once, true);
        print_cost("view: 13 threads", many_threads, observe_view_once, false);
        print_cost("view: prefork, 2 children", prefork, observe_view_once, false);
}

TEST_MAIN(TEST(test_accept), TEST(test_epoll), TEST(test_poll), TEST(test_stopped_and_continued),
          TEST(test_futex_is_not_poll), TEST(test_threads), TEST(test_descendants), TEST(test_not_waiting),
          TEST(test_waiting_on_another), TEST(test_connected_unix), TEST(test_connected_inet),
          TEST(test_connected_inet6), TEST(test_unrelated), TEST(test_namesakes), TEST(test_waiting_wins),
          TEST(test_not_permitted),
          TEST(test_descendant_not_permitted), TEST(test_no_pidfd_getfd), TEST(test_gone),
          TEST(test_dies_while_observed), TEST(test_view_scenes), TEST(test_view_waiting),
          TEST(test_view_parents_first), TEST(test_view_bounds), TEST(test_view_connections),
          TEST(test_view_counters), TEST(test_view_no_counters), TEST(test_view_not_permitted),
          TEST(test_view_main_thread_ended), TEST(test_view_gone), TEST(test_is_stopped), TEST(test_names),
          TEST(test_cost))
