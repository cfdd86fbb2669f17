/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Clients that wait, and clients that are accepted before anybody looks. */

#include <linux/aio_abi.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test.h"
#include "watch.h"

enum { N_LISTENERS = 20 }; /* more answers than are taken at a time */

static bool allowed;

static int listen_on(int family) {
        struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        struct sockaddr_un un = { .sun_family = AF_UNIX };
        int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

        EXPECT(fd >= 0);
        if (family == AF_UNIX) /* any abstract name */
                EXPECT_EQ(bind(fd, (struct sockaddr *) &un, sizeof(un.sun_family)), 0);
        else
                EXPECT_EQ(bind(fd, (struct sockaddr *) &in, sizeof(in)), 0);
        EXPECT_EQ(listen(fd, 8), 0);
        return fd;
}

static int connect_to(int listener_fd) {
        struct sockaddr_storage address;
        socklen_t n = sizeof(address);
        int fd;

        EXPECT_EQ(getsockname(listener_fd, (struct sockaddr *) &address, &n), 0);
        EXPECT((fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0);
        EXPECT_EQ(connect(fd, (struct sockaddr *) &address, n), 0);
        return fd;
}

/* A whole visit, over before anybody has looked. */
static void visit(int listener_fd) {
        _cleanup_close_ int fd = connect_to(listener_fd), other_fd = accept(listener_fd, NULL, NULL);

        EXPECT(fd >= 0 && other_fd >= 0);
}

static bool has_come(const Watch *w) {
        struct pollfd pollfd = { .fd = watch_get_fd(w), .events = POLLIN };
        int r = poll(&pollfd, 1, 0);

        EXPECT(r >= 0);
        return r > 0;
}

/* What holds with AIO and without. */
static void expect_watch(const int *fds, size_t n, bool every) {
        _cleanup_(watch_freep) Watch *w = NULL;

        EXPECT_EQ(watch_new(fds, n, every, &w), 0);
        watch_arm(w);
        EXPECT(!has_come(w));
        for (size_t i = 0; i < n; i++) {
                _cleanup_close_ int fd = connect_to(fds[i]), other_fd = -EBADF;

                EXPECT(fd >= 0 && has_come(w));
                watch_arm(w); /* it still waits */
                EXPECT(has_come(w));
                EXPECT((other_fd = accept(fds[i], NULL, NULL)) >= 0);
                watch_arm(w);
                EXPECT(!has_come(w));
        }

        for (size_t i = 0; i < n; i++)
                visit(fds[i]);
        EXPECT_EQ(has_come(w), every && allowed);
        watch_arm(w);
        EXPECT(!has_come(w));
        visit(fds[n - 1]);
        EXPECT_EQ(has_come(w), every && allowed);
}

static void all_kinds(void) {
        int fds[N_LISTENERS];

        for (size_t i = 0; i < N_LISTENERS; i++)
                fds[i] = listen_on(i % 2 ? AF_UNIX : AF_INET);
        for (size_t n = 1; n <= N_LISTENERS; n += N_LISTENERS - 1) {
                expect_watch(fds, n, true);
                expect_watch(fds, n, false);
        }
        for (size_t i = 0; i < N_LISTENERS; i++)
                (void) close(fds[i]);
}

static void test_watch(void) {
        aio_context_t context = 0;

        allowed = syscall(SYS_io_setup, 1U, &context) >= 0;
        if (!allowed)
                fprintf(stderr, "skipped part: no AIO: %s\n", strerror(errno));
        else
                EXPECT_EQ(syscall(SYS_io_destroy, context), 0);
        all_kinds();
}

/* As a sandbox, or a kernel, without one call of AIO or the other. */
static void without(long call) {
        struct sock_filter code[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned) call, 0, 1),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = { .len = ELEMENTSOF(code), .filter = code };
        pid_t pid = fork();
        int status;

        EXPECT(pid >= 0);
        if (pid == 0) {
                EXPECT_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1UL, 0UL, 0UL, 0UL), 0);
                EXPECT_EQ(prctl(PR_SET_SECCOMP, (unsigned long) SECCOMP_MODE_FILTER, &program, 0UL, 0UL), 0);
                allowed = false;
                all_kinds();
                _exit(EXIT_SUCCESS);
        }
        EXPECT_EQ(waitpid(pid, &status, 0), pid);
        EXPECT_EQ(status, 0);
}

static void test_refused(void) {
        without(SYS_io_setup);
        without(SYS_io_submit);
}

TEST_MAIN(TEST(test_watch), TEST(test_refused))
