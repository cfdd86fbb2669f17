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
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "test.h"

#define NOBODY 65534
#define LOOKS_MAX 20000
#define N_THREADS 12

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

static void print_cost(const char *name, Body body, Observation expected) {
        Bench bench = { .listener_fd = listen_unix("a") };
        int client_fd = body == own_connection ? connect_to(bench.listener_fd) : -EBADF;
        pid_t pid = start(body, &bench);
        uint64_t inode = inode_of(bench.listener_fd), best = UINT64_MAX, all;
        const unsigned n = 1000;

        expect_becomes(pid, bench.listener_fd, expected);
        all = now_nsec();
        for (unsigned i = 0; i < n; i++) {
                uint64_t begin = now_nsec();

                (void) observe_worker(pid, bench.listener_fd, inode, NULL);
                best = MIN_OF(best, now_nsec() - begin);
        }
        all = now_nsec() - all;
        fprintf(stderr, "%-24s %6.1f us mean, %6.1f us best\n", name, (double) all / n / 1000,
                (double) best / 1000);
        stop(pid);
        (void) safe_close(client_fd);
        close_listener(bench.listener_fd);
}

static void test_cost(void) {
        print_cost("accept", accept_on_stdin, OBSERVE_WAITING);
        print_cost("epoll", epoll_level, OBSERVE_WAITING);
        print_cost("poll", poll_with_timeout, OBSERVE_WAITING);
        print_cost("pselect", pselect_listener, OBSERVE_WAITING);
        print_cost("last of 13 threads", many_threads, OBSERVE_WAITING);
        if (has_pidfds()) {
                print_cost("asleep", sleep_for_ever, OBSERVE_NOT_WAITING);
                print_cost("connected", own_connection, OBSERVE_CONNECTED);
        }
        if (has_children())
                print_cost("prefork, second child", prefork, OBSERVE_WAITING);
}

TEST_MAIN(TEST(test_accept), TEST(test_epoll), TEST(test_poll), TEST(test_stopped_and_continued),
          TEST(test_futex_is_not_poll), TEST(test_threads), TEST(test_descendants), TEST(test_not_waiting),
          TEST(test_waiting_on_another), TEST(test_connected_unix), TEST(test_connected_inet),
          TEST(test_connected_inet6), TEST(test_unrelated), TEST(test_namesakes), TEST(test_waiting_wins),
          TEST(test_not_permitted),
          TEST(test_descendant_not_permitted), TEST(test_no_pidfd_getfd), TEST(test_gone),
          TEST(test_dies_while_observed), TEST(test_names), TEST(test_cost))
