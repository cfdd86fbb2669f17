/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a .socket unit may pass, right and wrong, as systemd would pass it: real descriptors from 3 on in a
 * process of its own, announced in the environment. */

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "sockets.h"
#include "test.h"

#define FIRST 3
#define HINT "expected at least one listening stream socket (start it through a .socket unit, see fcgi-pool(8))"
#define SPARE_FD 200 /* descriptors are made here, out of the way of those to be passed */

static void run_forked(void (*test)(void)) {
        int status;
        pid_t pid;

        fflush(NULL);
        EXPECT((pid = fork()) >= 0);
        if (pid == 0) {
                test();
                _exit(EXIT_SUCCESS);
        }
        EXPECT_EQ(waitpid(pid, &status, 0), pid);
        EXPECT(WIFEXITED(status));
        EXPECT_EQ(WEXITSTATUS(status), EXIT_SUCCESS);
}

/* Moves fd to target without close-on-exec, as after an exec by systemd. */
static void pass(int fd, int target) {
        int spare_fd;

        EXPECT(fd >= 0);
        EXPECT((spare_fd = fcntl(fd, F_DUPFD, SPARE_FD)) >= 0);
        (void) close(fd);
        EXPECT_EQ(dup2(spare_fd, target), target);
        (void) close(spare_fd);
}

static void announce_to(pid_t pid, int n, const char *names) {
        char s[16];

        snprintf(s, sizeof(s), "%d", (int) pid);
        EXPECT_EQ(setenv("LISTEN_PID", s, 1), 0);
        snprintf(s, sizeof(s), "%d", n);
        EXPECT_EQ(setenv("LISTEN_FDS", s, 1), 0);
        EXPECT_EQ(setenv("LISTEN_PIDFDID", "4711", 1), 0);
        if (names)
                EXPECT_EQ(setenv("LISTEN_FDNAMES", names, 1), 0);
        else
                EXPECT_EQ(unsetenv("LISTEN_FDNAMES"), 0);
}

static void announce(int n, const char *names) {
        announce_to(getpid(), n, names);
}

static int new_inet(int type, const char *host, bool listening) {
        struct sockaddr_in address = { .sin_family = AF_INET };
        int fd;

        EXPECT_EQ(inet_pton(AF_INET, host, &address.sin_addr), 1);
        EXPECT((fd = socket(AF_INET, type, 0)) >= 0);
        EXPECT_EQ(bind(fd, (struct sockaddr *) &address, sizeof(address)), 0);
        if (listening)
                EXPECT_EQ(listen(fd, 8), 0);
        return fd;
}

/* -EADDRNOTAVAIL or the like if there is no IPv6 here. */
static int new_inet6(const char *host) {
        struct sockaddr_in6 address = { .sin6_family = AF_INET6 };
        int fd;

        EXPECT_EQ(inet_pton(AF_INET6, host, &address.sin6_addr), 1);
        fd = socket(AF_INET6, SOCK_STREAM, 0);
        if (fd < 0)
                return -errno;
        if (bind(fd, (struct sockaddr *) &address, sizeof(address)) < 0 || listen(fd, 8) < 0) {
                fd = safe_close(fd);
                return -errno;
        }
        return fd;
}

static int new_unix(int type, const char *name, size_t n, bool listening) {
        struct {
                struct sockaddr_un un;
                char more[8];
        } address = { .un.sun_family = AF_UNIX };
        int fd;

        memcpy(address.un.sun_path, name, MIN_OF(n, sizeof(address.un.sun_path)));
        EXPECT((fd = socket(AF_UNIX, type, 0)) >= 0);
        EXPECT_EQ(bind(fd, (struct sockaddr *) &address, (socklen_t) (offsetof(struct sockaddr_un, sun_path) + n)), 0);
        if (listening)
                EXPECT_EQ(listen(fd, 8), 0);
        return fd;
}

static unsigned port_of(int fd) {
        struct sockaddr_storage address;
        socklen_t length = sizeof(address);

        EXPECT_EQ(getsockname(fd, (struct sockaddr *) &address, &length), 0);
        return ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *) &address)->sin6_port :
                                                     ((struct sockaddr_in *) &address)->sin_port);
}

static void expect_unset(void) {
        EXPECT(!getenv("LISTEN_FDS"));
        EXPECT(!getenv("LISTEN_PID"));
        EXPECT(!getenv("LISTEN_FDNAMES"));
        EXPECT(!getenv("LISTEN_PIDFDID"));
}

static ListenSet *take(ListenerMode mode) {
        ListenSet *set = NULL;
        Problem problem = {};
        int r;

        r = listen_set_take(mode, &set, &problem);
        if (r < 0)
                fprintf(stderr, "%s\n", problem.text);
        EXPECT_EQ(r, 0);
        expect_unset();
        return set;
}

static void expect_refused(int error, const char *text) {
        ListenSet *untouched = (ListenSet *) &untouched, *set = untouched;
        Problem problem = {};

        EXPECT_EQ(listen_set_take(LISTENER_AS_PASSED, &set, &problem), error);
        EXPECT(set == untouched);
        EXPECT_EQ(problem.exit_status, EXIT_STATUS_NOT_CONFIGURED);
        EXPECT_STREQ(problem.text, text);
        expect_unset();
}

static void check_kinds(void) {
        const char abstract[] = "\0fcgi-pool-test\0\x01\\x";
        char directory[] = "/tmp/test-sockets-XXXXXX", path[108], expected[512];
        _cleanup_(listen_set_freep) ListenSet *set = NULL;
        struct stat st;
        int fd6;

        EXPECT(mkdtemp(directory));
        snprintf(path, sizeof(path), "%s/a b", directory);

        pass(new_inet(SOCK_STREAM, "127.0.0.1", true), 3);
        pass(new_unix(SOCK_STREAM, path, strlen(path) + 1, true), 4);
        pass(new_unix(SOCK_STREAM, abstract, sizeof(abstract) - 1, true), 5);
        fd6 = new_inet6("::1");
        if (fd6 < 0)
                fprintf(stderr, "skipped: a listener on [::1]: %s\n", strerror(-fd6));
        else
                pass(fd6, 6);

        announce(fd6 < 0 ? 3 : 4, fd6 < 0 ? "a:b:a" : "a:b:a:six");
        set = take(LISTENER_AS_PASSED);
        EXPECT_EQ(set->n_listeners, fd6 < 0 ? 3 : 4);
        EXPECT(!set->strangers[0]);
        EXPECT_EQ(set->state_fd, -EBADF);
        EXPECT_EQ(set->leash_fd, -EBADF);
        EXPECT_EQ(set->n_workers, 0);

        for (size_t i = 0; i < set->n_listeners; i++) {
                EXPECT_EQ(set->listeners[i].fd, FIRST + i);
                EXPECT_EQ(fcntl(set->listeners[i].fd, F_GETFD), FD_CLOEXEC);
                EXPECT_EQ(fstat(set->listeners[i].fd, &st), 0);
                EXPECT_EQ(set->listeners[i].inode, st.st_ino);
                EXPECT(set->listeners[i].cookie != 0);
                EXPECT(!set->listeners[i].nonblocking);
                EXPECT(!set->listeners[i].flip_reported);
                for (size_t j = 0; j < i; j++)
                        EXPECT(set->listeners[i].cookie != set->listeners[j].cookie);
        }

        EXPECT_EQ(set->listeners[0].family, AF_INET);
        EXPECT_STREQ(set->listeners[0].fd_name, "a");
        snprintf(expected, sizeof(expected), "127.0.0.1:%u", port_of(3));
        EXPECT_STREQ(set->listeners[0].address, expected);

        EXPECT_EQ(set->listeners[1].family, AF_UNIX);
        EXPECT_STREQ(set->listeners[1].fd_name, "b");
        snprintf(expected, sizeof(expected), "%s/a\\x20b", directory);
        EXPECT_STREQ(set->listeners[1].address, expected);

        EXPECT_STREQ(set->listeners[2].address, "@fcgi-pool-test\\x00\\x01\\x5cx");

        if (fd6 >= 0) {
                EXPECT_EQ(set->listeners[3].family, AF_INET6);
                snprintf(expected, sizeof(expected), "[::1]:%u", port_of(6));
                EXPECT_STREQ(set->listeners[3].address, expected);
        }
        EXPECT_EQ(unlink(path), 0);
        EXPECT_EQ(rmdir(directory), 0);
}

static void kinds(void) {
        run_forked(check_kinds);
}

/* A path that fills sun_path to its last byte has no NUL behind it. */
static void check_longest_path(void) {
        char directory[] = "/tmp/test-sockets-XXXXXX", path[109];
        _cleanup_(listen_set_freep) ListenSet *set = NULL;

        EXPECT(mkdtemp(directory));
        memset(path, 'x', sizeof(path));
        memcpy(path, directory, strlen(directory));
        path[strlen(directory)] = '/';
        path[108] = '\0';

        pass(new_unix(SOCK_STREAM, path, 108, true), 3);
        announce(1, NULL);
        set = take(LISTENER_AS_PASSED);
        EXPECT_STREQ(set->listeners[0].address, path);
        EXPECT_STREQ(set->listeners[0].fd_name, "unknown");
        EXPECT_EQ(unlink(path), 0);
        EXPECT_EQ(rmdir(directory), 0);
}

static void longest_path(void) {
        run_forked(check_longest_path);
}

static void check_mapped(void) {
        _cleanup_(listen_set_freep) ListenSet *set = NULL;
        char expected[64];
        int fd;

        fd = new_inet6("::ffff:127.0.0.1");
        if (fd < 0) {
                fprintf(stderr, "skipped: a listener on [::ffff:127.0.0.1]: %s\n", strerror(-fd));
                return;
        }
        pass(fd, 3);
        announce(1, "x");
        set = take(LISTENER_AS_PASSED);
        snprintf(expected, sizeof(expected), "[::ffff:127.0.0.1]:%u", port_of(3));
        EXPECT_STREQ(set->listeners[0].address, expected);
}

static void mapped(void) {
        run_forked(check_mapped);
}

/* What is no socket and not ours is closed and named; the listeners around it are taken in order. */
static void check_strangers(void) {
        _cleanup_(listen_set_freep) ListenSet *set = NULL;
        int fds[2];

        EXPECT_EQ(pipe(fds), 0);
        pass(fds[0], 3);
        pass(new_inet(SOCK_STREAM, "127.0.0.1", true), 4);
        pass(memfd_create("other", 0), 5);
        pass(new_inet(SOCK_STREAM, "127.0.0.1", true), 6);
        announce(4, "fifo:a.socket:other:b.socket");

        set = take(LISTENER_AS_PASSED);
        EXPECT_EQ(set->n_listeners, 2);
        EXPECT_EQ(set->listeners[0].fd, 4);
        EXPECT_EQ(set->listeners[1].fd, 6);
        EXPECT_STREQ(set->listeners[1].fd_name, "b.socket");
        EXPECT_STREQ(set->strangers[0], "fifo");
        EXPECT_STREQ(set->strangers[1], "other");
        EXPECT(!set->strangers[2]);
        EXPECT(fcntl(3, F_GETFD) < 0 && errno == EBADF);
        EXPECT(fcntl(5, F_GETFD) < 0 && errno == EBADF);
}

static void strangers(void) {
        run_forked(check_strangers);
}

static int new_state(void) {
        int fd;

        EXPECT((fd = memfd_create("state", 0)) >= 0);
        return fd;
}

static int new_pipe(void) {
        int fds[2];

        EXPECT_EQ(pipe(fds), 0);
        EXPECT(fcntl(fds[0], F_DUPFD, SPARE_FD) >= 0);
        (void) close(fds[0]);
        return fds[1];
}

static int new_pidfd(void) {
        int fd;

        EXPECT((fd = pidfd_open(getpid(), 0)) >= 0);
        return fd;
}

/* A listener as fd 3, and what is made and named by the table behind it. */
typedef struct Stored {
        int (*make)(void);
        const char *name;
} Stored;

static ListenSet *take_stored(const Stored *stored, size_t n) {
        char names[1024] = "web";

        for (size_t i = 0; i < n; i++) {
                pass(stored[i].make(), FIRST + 1 + (int) i);
                strcat(strcat(names, ":"), stored[i].name);
        }
        pass(new_inet(SOCK_STREAM, "127.0.0.1", true), FIRST);
        announce(1 + (int) n, names);
        return take(LISTENER_AS_PASSED);
}

static void check_stored(void) {
        static const Stored stored[] = {
                { new_pidfd, "worker-7-12" },
                { new_state, "state" },
                { new_pidfd, "worker-0-1" },
                { new_pipe, "leash" },
                { new_pidfd, "worker-4294967295-18446744073709551615" },
                { new_pidfd, "worker-7-12" }, /* twice: which one is right is for others to find out */
        };
        static const Stored mark[] = { { new_pipe, "restarted" } };
        _cleanup_(listen_set_freep) ListenSet *set = NULL;

        set = take_stored(stored, ELEMENTSOF(stored));
        EXPECT_EQ(set->n_listeners, 1);
        EXPECT_EQ(set->state_fd, 5);
        EXPECT_EQ(set->leash_fd, 7);
        EXPECT_EQ(set->n_workers, 4);
        EXPECT_EQ(set->workers[0].slot, 7);
        EXPECT_EQ(set->workers[0].generation, 12);
        EXPECT_EQ(set->workers[0].pidfd, 4);
        EXPECT_EQ(set->workers[1].slot, 0);
        EXPECT_EQ(set->workers[1].generation, 1);
        EXPECT_EQ(set->workers[2].slot, UINT32_MAX);
        EXPECT(set->workers[2].generation == UINT64_MAX);
        EXPECT_EQ(set->workers[3].pidfd, 9);
        EXPECT(!set->strangers[0]);
        EXPECT(!set->restarted && !set->reexecuted);
        for (int fd = FIRST; fd < FIRST + 1 + (int) ELEMENTSOF(stored); fd++)
                EXPECT_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);

        set = listen_set_free(set);
        for (int fd = FIRST; fd < FIRST + 1 + (int) ELEMENTSOF(stored); fd++)
                EXPECT(fcntl(fd, F_GETFD) < 0 && errno == EBADF);

        set = take_stored(mark, ELEMENTSOF(mark));
        EXPECT(set->restarted && !set->strangers[0]);
        EXPECT(fcntl(FIRST + 1, F_GETFD) < 0 && errno == EBADF); /* it has said all */
}

/* The right name for the wrong thing, a second one, and names that are only almost right. */
static void check_impostors(void) {
        static const Stored stored[] = {
                { new_pipe, "state" },
                { new_state, "leash" },
                { new_state, "state" },
                { new_state, "state" },
                { new_pipe, "leash" },
                { new_pipe, "leash" },
                { new_pidfd, "worker-1" },
                { new_pidfd, "worker-1-" },
                { new_pidfd, "worker-01-1" },
                { new_pidfd, "worker-1-+1" },
                { new_pidfd, "worker-1-1-1" },
                { new_pidfd, "worker--1-1" },
                { new_pidfd, "worker-4294967296-1" },
                { new_pidfd, "Worker-1-1" },
                { new_state, "restarted" },
                { new_state, "" },
        };
        _cleanup_(listen_set_freep) ListenSet *set = NULL;
        size_t n = 0;

        set = take_stored(stored, ELEMENTSOF(stored));
        EXPECT_EQ(set->n_listeners, 1);
        EXPECT_EQ(set->state_fd, FIRST + 1 + 2);
        EXPECT_EQ(set->leash_fd, FIRST + 1 + 4);
        EXPECT_EQ(set->n_workers, 0);
        for (size_t i = 0; i < ELEMENTSOF(stored); i++) {
                int fd = FIRST + 1 + (int) i;

                if (fd == set->state_fd || fd == set->leash_fd)
                        continue;
                EXPECT_STREQ(set->strangers[n++], stored[i].name);
                EXPECT(fcntl(fd, F_GETFD) < 0 && errno == EBADF);
        }
        EXPECT(!set->strangers[n]);
}

static void stored_fds(void) {
        run_forked(check_stored);
        run_forked(check_impostors);
}

static void check_only_strangers(void) {
        pass(memfd_create("other", 0), 3);
        announce(1, "other");
        expect_refused(-ENOTCONN, "no listener was passed in LISTEN_FDS (other is not a socket): " HINT);
}

static void check_nothing(void) {
        EXPECT_EQ(unsetenv("LISTEN_FDS"), 0);
        EXPECT_EQ(unsetenv("LISTEN_PID"), 0);
        expect_refused(-ENOTCONN, "no listener was passed in LISTEN_FDS: " HINT);
        EXPECT_EQ(listen_set_take(LISTENER_AS_PASSED, &(ListenSet *) { NULL }, NULL), -ENOTCONN);
}

static void check_other_pid(void) {
        char expected[512];

        pass(new_inet(SOCK_STREAM, "127.0.0.1", true), 3);
        announce_to(getppid(), 1, "a");
        snprintf(expected, sizeof(expected),
                 "no listener was passed in LISTEN_FDS (LISTEN_PID=%d is another process, we are %d): " HINT,
                 (int) getppid(), (int) getpid());
        expect_refused(-ENOTCONN, expected);
}

static void no_listener(void) {
        run_forked(check_only_strangers);
        run_forked(check_nothing);
        run_forked(check_other_pid);
}

static void check_bad_environment(void) {
        ListenSet *set = NULL;
        Problem problem = {};

        pass(new_inet(SOCK_STREAM, "127.0.0.1", true), 3);
        announce(1, "a:b"); /* more names than descriptors */
        EXPECT_EQ(listen_set_take(LISTENER_AS_PASSED, &set, &problem), -EINVAL);
        EXPECT_EQ(problem.exit_status, EXIT_STATUS_NOT_CONFIGURED);
        EXPECT(startswith(problem.text, "LISTEN_FDS=1: "));

        (void) close(4);
        announce(2, "a:b"); /* fewer descriptors than announced */
        EXPECT_EQ(listen_set_take(LISTENER_AS_PASSED, &set, &problem), -EBADF);
        EXPECT_EQ(problem.exit_status, EXIT_STATUS_NOT_CONFIGURED);
        EXPECT(startswith(problem.text, "LISTEN_FDS=2: "));

        announce(1, NULL);
        EXPECT_EQ(setenv("LISTEN_FDS", "many", 1), 0);
        EXPECT(listen_set_take(LISTENER_AS_PASSED, &set, &problem) < 0);
        EXPECT(startswith(problem.text, "LISTEN_FDS=many: "));
        EXPECT(!set);
}

static void bad_environment(void) {
        run_forked(check_bad_environment);
}

#define EXPECTED_STREAM ", expected a listening stream socket (ListenStream= in the .socket unit)"
#define EXPECTED_LISTENING ", expected a listening one (Accept=no in the .socket unit)"

/* The first one is right; the second one decides. */
static void refuse_second(int fd, int error, const char *text) {
        pass(fd, 4);
        pass(new_inet(SOCK_STREAM, "127.0.0.1", true), 3);
        announce(2, "web:app.socket");
        expect_refused(error, text);
}

static void check_datagram(void) {
        refuse_second(new_inet(SOCK_DGRAM, "127.0.0.1", false), -EPROTOTYPE,
                      "fd 4 (app.socket): a datagram socket was passed" EXPECTED_STREAM);
}

static void check_unix_datagram(void) {
        refuse_second(new_unix(SOCK_DGRAM, "", 0, false), -EPROTOTYPE,
                      "fd 4 (app.socket): a datagram socket was passed" EXPECTED_STREAM);
}

static void check_seqpacket(void) {
        refuse_second(new_unix(SOCK_SEQPACKET, "", 0, true), -EPROTOTYPE,
                      "fd 4 (app.socket): a sequential-packet socket was passed" EXPECTED_STREAM);
}

static void check_not_listening(void) {
        refuse_second(new_inet(SOCK_STREAM, "127.0.0.1", false), -EISCONN,
                      "fd 4 (app.socket): a stream socket that does not listen was passed" EXPECTED_LISTENING);
}

static void check_connected_pair(void) {
        int fds[2];

        EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
        (void) fcntl(fds[1], F_DUPFD, SPARE_FD);
        refuse_second(fds[0], -EISCONN, "fd 4 (app.socket): a connected socket was passed" EXPECTED_LISTENING);
}

/* As Accept=yes passes it. */
static void check_accepted(void) {
        struct sockaddr_in address;
        socklen_t length = sizeof(address);
        int listener_fd, client_fd, fd;

        listener_fd = new_inet(SOCK_STREAM, "127.0.0.1", true);
        EXPECT_EQ(getsockname(listener_fd, (struct sockaddr *) &address, &length), 0);
        EXPECT((client_fd = socket(AF_INET, SOCK_STREAM, 0)) >= 0);
        EXPECT((client_fd = fcntl(client_fd, F_DUPFD, SPARE_FD)) >= 0);
        EXPECT_EQ(connect(client_fd, (struct sockaddr *) &address, sizeof(address)), 0);
        EXPECT((fd = accept(listener_fd, NULL, NULL)) >= 0);
        refuse_second(fd, -EISCONN, "fd 4 (app.socket): a connected socket was passed" EXPECTED_LISTENING);
}

static void wrong_sockets(void) {
        run_forked(check_datagram);
        run_forked(check_unix_datagram);
        run_forked(check_seqpacket);
        run_forked(check_not_listening);
        run_forked(check_connected_pair);
        run_forked(check_accepted);
}

static bool is_nonblocking(int fd) {
        int flags;

        EXPECT((flags = fcntl(fd, F_GETFL)) >= 0);
        return flags & O_NONBLOCK;
}

static void set_nonblocking(int fd, bool nonblocking) {
        int flags;

        EXPECT((flags = fcntl(fd, F_GETFL)) >= 0);
        EXPECT_EQ(fcntl(fd, F_SETFL, nonblocking ? flags | O_NONBLOCK : flags & ~O_NONBLOCK), 0);
}

/* The wanted mode is applied when taken, a flip through another descriptor of the same file is seen and undone. */
static void check_mode(ListenerMode mode, bool passed, bool wanted) {
        _cleanup_(listen_set_freep) ListenSet *set = NULL;
        Listener *listener;
        int worker_fd;

        pass(new_inet(SOCK_STREAM | (passed ? SOCK_NONBLOCK : 0), "127.0.0.1", true), 3);
        EXPECT((worker_fd = fcntl(3, F_DUPFD, SPARE_FD)) >= 0);
        announce(1, "x");
        set = take(mode);
        listener = set->listeners;

        EXPECT_EQ(listener->nonblocking, wanted);
        EXPECT_EQ(is_nonblocking(worker_fd), wanted);
        EXPECT_EQ(listener_is_flipped(listener), 0);
        EXPECT_EQ(listener_enforce_mode(listener), 0);

        set_nonblocking(worker_fd, !wanted);
        EXPECT_EQ(listener_is_flipped(listener), 1);
        EXPECT_EQ(is_nonblocking(worker_fd), !wanted);
        EXPECT_EQ(listener_enforce_mode(listener), 1);
        EXPECT_EQ(is_nonblocking(worker_fd), wanted);
        EXPECT_EQ(listener_is_flipped(listener), 0);
        EXPECT_EQ(listener_enforce_mode(listener), 0);

        (void) close(listener->fd);
        EXPECT_EQ(listener_is_flipped(listener), -EBADF);
        EXPECT_EQ(listener_enforce_mode(listener), -EBADF);
        listener->fd = -EBADF;
        (void) close(worker_fd);
}

static void check_modes(void) {
        check_mode(LISTENER_AS_PASSED, false, false);
        check_mode(LISTENER_AS_PASSED, true, true);
        check_mode(LISTENER_BLOCKING, false, false);
        check_mode(LISTENER_BLOCKING, true, false);
        check_mode(LISTENER_NONBLOCKING, false, true);
        check_mode(LISTENER_NONBLOCKING, true, true);
}

static void modes(void) {
        run_forked(check_modes);
}

static void free_nothing(void) {
        EXPECT(!listen_set_free(NULL));
}

TEST_MAIN(TEST(kinds), TEST(longest_path), TEST(mapped), TEST(strangers), TEST(stored_fds), TEST(no_listener),
          TEST(bad_environment), TEST(wrong_sockets), TEST(modes), TEST(free_nothing))
