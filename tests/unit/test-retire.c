/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Small servers that know no signal, and clients that notice when one dies with their request. A request is
 * one byte: 'a' is answered and the connection closed, 'k' is answered and the connection kept, 's' is never
 * answered. */

#include "retire.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "clock.h"
#include "observe.h"
#include "test.h"

#define KEPT_USEC (100 * USEC_PER_MSEC)
#define NOBODY 65534
#define MAYFLY_SIZE (8U << 20)
#define N_SERVERS 3
#define N_CLIENTS 2
#define N_ENDS 60
#define LIMIT_USEC (20 * USEC_PER_SEC)

static struct sockaddr_un address;
static socklen_t address_size;
static int listener_fd = -EBADF;
static uint64_t listener_inode;

static void listen_somewhere(void) {
        struct stat st;

        address = (struct sockaddr_un) { .sun_family = AF_UNIX };
        address_size = sizeof(sa_family_t);
        listener_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        EXPECT(listener_fd >= 0);
        EXPECT(bind(listener_fd, (struct sockaddr *) &address, address_size) == 0); /* an abstract name */
        address_size = sizeof(address);
        EXPECT(getsockname(listener_fd, (struct sockaddr *) &address, &address_size) == 0);
        EXPECT(listen(listener_fd, 64) == 0);
        EXPECT(fstat(listener_fd, &st) == 0);
        listener_inode = st.st_ino;
}

/* ---- servers ---- */

static void serve_connection(int fd) {
        char request;

        while (read(fd, &request, 1) == 1) {
                while (request == 's')
                        (void) pause();
                if (write(fd, "x", 1) != 1 || request == 'a')
                        break;
        }
        (void) close(fd);
}

static _noreturn_ void serve(void) {
        for (;;) {
                int fd = accept(listener_fd, NULL, NULL);

                EXPECT(fd >= 0);
                serve_connection(fd);
        }
}

static _noreturn_ void idle_for_ever(void) {
        for (;;)
                (void) pause();
}

/* A parent that only waits, and two children that serve, and would go on doing so without it. */
static _noreturn_ void prefork(void) {
        for (unsigned i = 0; i < 2; i++)
                if (fork() == 0) {
                        (void) prctl(PR_SET_PDEATHSIG, 0);
                        (void) alarm(60);
                        serve();
                }
        idle_for_ever();
}

/* A server with a child that has children who live for a moment. */
static _noreturn_ void serve_beside_mayflies(void) {
        pid_t pid = fork();

        EXPECT(pid >= 0);
        if (pid > 0)
                serve();
        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) {
                if (fork() == 0) {
                        memset(malloc(MAYFLY_SIZE), 1, MAYFLY_SIZE); /* takes the kernel time to free */
                        _exit(EXIT_SUCCESS);
                }
                (void) wait(NULL);
                (void) poll(NULL, 0, 10); /* most looks meet none that is about to end */
        }
}

typedef struct Server {
        pid_t pid;
        int pidfd;
        Retirement retirement;
} Server;

static Server start(void (*body)(void)) {
        Server s = {};

        if (listener_fd < 0)
                listen_somewhere();
        s.pid = fork();
        EXPECT(s.pid >= 0);
        if (s.pid == 0) {
                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                body();
        }
        s.pidfd = pidfd_open(s.pid, 0);
        EXPECT(s.pidfd >= 0);
        return s;
}

static RetireResult try(Server *s, bool unconnected) {
        return retire_try(&s->retirement, &(RetireRequest) {
                .pid = s->pid,
                .pidfd = s->pidfd,
                .listener_fd = listener_fd,
                .listener_inode = listener_inode,
                .unconnected = unconnected,
                .answered_usec = USEC_INFINITY, /* not with AF_UNIX */
                .kept_usec = KEPT_USEC,
        });
}

static void rest(void) {
        (void) nanosleep(&(struct timespec) { .tv_nsec = 500000 }, NULL);
}

static void expect_killed(Server *s) {
        int status;

        EXPECT_EQ(waitpid(s->pid, &status, 0), s->pid);
        EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        (void) safe_close(s->pidfd);
}

static void expect_is_killed(Server *s, bool unconnected) {
        uint64_t end_usec = clock_now_usec() + LIMIT_USEC;
        RetireResult result;

        while ((result = try(s, unconnected)) == RETIRE_BUSY && clock_now_usec() < end_usec)
                rest();
        EXPECT_EQ(result, RETIRE_KILLED);
        expect_killed(s);
}

static void expect_stays(Server *s, bool unconnected, uint64_t usec) {
        uint64_t end_usec = clock_now_usec() + usec;

        do {
                EXPECT_EQ(try(s, unconnected), RETIRE_BUSY);
                EXPECT_EQ(observe_is_stopped(s->pid), 0);
                rest();
        } while (clock_now_usec() < end_usec);
        EXPECT_EQ(waitpid(s->pid, NULL, WNOHANG | WUNTRACED), 0);
}

static void end(Server *s) {
        EXPECT(kill(s->pid, SIGKILL) == 0);
        expect_killed(s);
}

static void end_child(pid_t pid) {
        struct pollfd p = { .fd = pidfd_open(pid, 0), .events = POLLIN };

        EXPECT(p.fd >= 0);
        EXPECT(pidfd_send_signal(p.fd, SIGKILL, NULL, 0) == 0);
        EXPECT_EQ(poll(&p, 1, (int) (LIMIT_USEC / USEC_PER_MSEC)), 1);
        (void) close(p.fd);
}

/* Who is stopped forks no more, and nobody is left who could take the next test's clients: not even on the way
 * to its end, where one that has been waiting in accept may still get a connection. */
static void end_tree(Server *s) {
        View view;

        EXPECT(kill(s->pid, SIGSTOP) == 0);
        while (observe_is_stopped(s->pid) == 0)
                rest();
        observe_view(s->pid, listener_fd, listener_inode, &view);
        for (size_t i = 1; i < view.n_processes; i++)
                end_child(view.processes[i]);
        end(s);
}

/* ---- clients ---- */

static int dial(void) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        EXPECT(fd >= 0);
        EXPECT(connect(fd, (struct sockaddr *) &address, address_size) == 0);
        return fd;
}

static bool ask(int fd, char request) {
        char answer;

        return send(fd, &request, 1, MSG_NOSIGNAL) == 1 && read(fd, &answer, 1) == 1 && answer == 'x';
}

static void wait_until_in_use(pid_t pid) {
        uint64_t end_usec = clock_now_usec() + LIMIT_USEC;
        View view;

        do {
                EXPECT(clock_now_usec() < end_usec);
                observe_view(pid, listener_fd, listener_inode, &view);
        } while (view.n_connections == 0 || view.n_kept > 0);
}

/* ---- tests ---- */

static void waiting_is_killed(void) {
        Server s = start(serve);

        expect_is_killed(&s, false);
        s = start(serve);
        rest();
        expect_is_killed(&s, true);
}

static void in_use_goes_on(void) {
        Server s = start(serve);
        int fd = dial();

        EXPECT_EQ(send(fd, "s", 1, 0), 1);
        wait_until_in_use(s.pid);
        expect_stays(&s, false, 3 * KEPT_USEC);
        expect_stays(&s, true, KEPT_USEC);
        EXPECT_EQ(s.retirement.n_pauses, 0); /* seen from outside, no need to stop it */
        end(&s);
        (void) close(fd);
}

/* Without a connection, but not waiting: between two requests, or working on. */
static void not_waiting(void) {
        Server s = start(idle_for_ever);

        expect_stays(&s, false, KEPT_USEC);
        expect_is_killed(&s, true);
}

static void kept(void) {
        Server s = start(serve);
        uint64_t begin_usec;
        int fd = dial();
        char c;

        EXPECT(ask(fd, 'k'));
        begin_usec = clock_now_usec();
        for (unsigned i = 0; i < 30; i++) {
                EXPECT_EQ(try(&s, true), RETIRE_BUSY);
                EXPECT(ask(fd, 'k'));
                begin_usec = clock_now_usec();
                for (unsigned k = 0; k < 20; k++) /* less than the time it takes to be unused */
                        rest();
        }
        expect_is_killed(&s, false);
        EXPECT(clock_now_usec() - begin_usec >= KEPT_USEC);
        EXPECT_EQ(read(fd, &c, 1), 0); /* no byte was lost */
        (void) close(fd);
}

static void whole_tree(void) {
        Server s;
        struct pollfd p = { .events = POLLIN };
        int fds[2];

        /* The processes hold the write end, nobody else. */
        EXPECT(pipe2(fds, O_CLOEXEC) == 0);
        s = start(prefork);
        (void) close(fds[1]);

        expect_is_killed(&s, false);
        p.fd = fds[0];
        EXPECT_EQ(poll(&p, 1, (int) (LIMIT_USEC / USEC_PER_MSEC)), 1);
        EXPECT(p.revents & POLLHUP);
        (void) close(fds[0]);
}

static void child_in_use(void) {
        Server s = start(prefork);
        int fd = dial();

        EXPECT_EQ(send(fd, "s", 1, 0), 1);
        wait_until_in_use(s.pid);
        expect_stays(&s, false, 2 * KEPT_USEC);
        (void) close(fd);
        end_tree(&s);
}

static void children_that_end_as_nobody(void) {
        Server s;
        int fd;

        /* Root may look into everybody. */
        if (getuid() == 0)
                EXPECT(setresgid(NOBODY, NOBODY, NOBODY) == 0 && setresuid(NOBODY, NOBODY, NOBODY) == 0);
        EXPECT(prctl(PR_SET_DUMPABLE, 1) == 0);
        s = start(serve_beside_mayflies);
        fd = dial();
        EXPECT(ask(fd, 'k')); /* so that it has accepted */
        EXPECT(send(fd, "s", 1, MSG_NOSIGNAL) == 1);
        expect_stays(&s, false, 2 * RETIRE_UNKNOWN_USEC);
        (void) close(fd);
        end(&s);
}

/* That one of many children cannot be looked into now and then is no reason to give up. */
static void children_that_end(void) {
        pid_t pid = fork();
        int status;

        EXPECT(pid >= 0);
        if (pid == 0) {
                children_that_end_as_nobody();
                exit(EXIT_SUCCESS);
        }
        EXPECT_EQ(waitpid(pid, &status, 0), pid);
        EXPECT_EQ(status, 0);
}

static atomic_bool done;
static atomic_uint n_answered, n_lost;

static void *client(void *data) {
        while (!done) {
                int fd = dial();

                if (ask(fd, 'a'))
                        n_answered++;
                else
                        n_lost++;
                (void) close(fd);
        }
        return NULL;
}

/* Servers that are nearly always busy end one after another, and no client notices. */
static void under_load(void) {
        pthread_t clients[N_CLIENTS];
        Server servers[N_SERVERS];
        unsigned n_pauses = 0;

        done = false;
        n_answered = n_lost = 0;
        for (size_t i = 0; i < N_SERVERS; i++)
                servers[i] = start(serve);
        for (size_t i = 0; i < N_CLIENTS; i++)
                EXPECT_EQ(pthread_create(clients + i, NULL, client, NULL), 0);
        for (size_t i = 0; i < N_ENDS; i++) {
                Server *s = servers + i % N_SERVERS;

                expect_is_killed(s, i % 2);
                n_pauses += s->retirement.n_pauses;
                *s = start(serve);
        }
        done = true;
        for (size_t i = 0; i < N_CLIENTS; i++)
                EXPECT_EQ(pthread_join(clients[i], NULL), 0);
        for (size_t i = 0; i < N_SERVERS; i++)
                end(servers + i);

        fprintf(stderr, "%u answered, %u servers stopped in vain\n", n_answered, n_pauses);
        EXPECT_EQ(n_lost, 0);
        EXPECT(n_answered > N_ENDS);
}

static void gone(void) {
        Server s = start(serve);
        int fd = s.pidfd;

        EXPECT(kill(s.pid, SIGKILL) == 0);
        EXPECT_EQ(waitpid(s.pid, NULL, 0), s.pid);
        EXPECT_EQ(try(&s, true), RETIRE_BUSY);
        (void) close(fd);
}

TEST_MAIN(TEST(not_under_valgrind), TEST(waiting_is_killed), TEST(in_use_goes_on), TEST(not_waiting),
          TEST(kept), TEST(whole_tree), TEST(child_in_use), TEST(children_that_end), TEST(under_load), TEST(gone))
