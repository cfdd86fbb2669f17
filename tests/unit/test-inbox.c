/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Workers' notifications: the sender is who the kernel says, READY=1 is a line of its own, and nothing
 * that comes along does harm. Sent with sd_notify(3), as real workers do. */

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <systemd/sd-daemon.h>

#include "inbox.h"
#include "test.h"

static void send_from_child(const char *address, const char *text, pid_t *ret_pid) {
        int status;

        *ret_pid = fork();
        EXPECT(*ret_pid >= 0);
        if (*ret_pid == 0) {
                (void) setenv("NOTIFY_SOCKET", address, 1);
                _exit(sd_notify(false, text) > 0 ? 0 : 1);
        }
        EXPECT(waitpid(*ret_pid, &status, 0) == *ret_pid);
        EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void expect_ready(int fd, const char *address, const char *text, bool expected) {
        InboxMessage message = { .ready = !expected };
        pid_t sender;

        send_from_child(address, text, &sender);
        EXPECT_EQ(inbox_receive(fd, &message), 1);
        EXPECT_EQ(message.pid, sender);
        EXPECT_EQ(message.ready, expected);
        EXPECT_EQ(message.watchdog, strstr(text, "WATCHDOG=1") != NULL);
        EXPECT_EQ(inbox_receive(fd, &message), 0);
}

static void check_inbox(int fd, const char *address) {
        static char long_text[8000];

        expect_ready(fd, address, "READY=1", true);
        expect_ready(fd, address, "READY=1\n", true);
        expect_ready(fd, address, "STATUS=warm\nREADY=1\nMAINPID=1", true);
        expect_ready(fd, address, "READY=0", false);
        expect_ready(fd, address, "READY=10", false);
        expect_ready(fd, address, "STATUS=READY=1", false);
        expect_ready(fd, address, "STOPPING=1", false);

        memset(long_text, 'x', sizeof(long_text) - 1);
        memcpy(long_text, "READY=1\n", 8);
        expect_ready(fd, address, long_text, true);
        memcpy(long_text, "xxxxxxxx", 8);
        memcpy(long_text + 7000, "\nREADY=1", 8);
        expect_ready(fd, address, long_text, false); /* beyond what is read */
}

static void abstract(void) {
        _cleanup_free_ char *address = NULL;
        _cleanup_close_ int fd = -EBADF;

        EXPECT_EQ(inbox_open(NULL, &fd, &address), 0);
        EXPECT_EQ(address[0], '@');
        check_inbox(fd, address);
}

static void path(void) {
        _cleanup_free_ char *address = NULL, *again = NULL;
        _cleanup_close_ int fd = -EBADF, fd2 = -EBADF;
        char directory[] = "/tmp/test-inbox.XXXXXX", long_directory[200];
        struct stat st;

        EXPECT(mkdtemp(directory));
        EXPECT_EQ(inbox_open(directory, &fd, &address), 0);
        EXPECT(stat(address, &st) == 0 && S_ISSOCK(st.st_mode) && (st.st_mode & 0777) == 0600);
        check_inbox(fd, address);

        /* What an earlier run has left is taken over. */
        EXPECT_EQ(inbox_open(directory, &fd2, &again), 0);
        EXPECT_STREQ(again, address);
        check_inbox(fd2, again);

        memset(long_directory, 'd', sizeof(long_directory) - 1);
        long_directory[sizeof(long_directory) - 1] = '\0';
        EXPECT_EQ(inbox_open(long_directory, &fd, &address), -ENAMETOOLONG);

        EXPECT_EQ(unlink(again), 0);
        EXPECT_EQ(rmdir(directory), 0);
}

/* sd_notify_barrier(3) passes a pipe along and waits until we have let go of it. */
static void barrier(void) {
        _cleanup_free_ char *address = NULL;
        _cleanup_close_ int fd = -EBADF;
        struct pollfd pfd = { .events = POLLIN };
        InboxMessage message = { .ready = true };
        pid_t sender;
        int status;

        EXPECT_EQ(inbox_open(NULL, &fd, &address), 0);
        sender = fork();
        EXPECT(sender >= 0);
        if (sender == 0) {
                (void) setenv("NOTIFY_SOCKET", address, 1);
                _exit(sd_notify_barrier(false, 10 * USEC_PER_SEC) > 0 ? 0 : 1);
        }

        pfd.fd = fd;
        EXPECT(poll(&pfd, 1, 10000) == 1);
        EXPECT_EQ(inbox_receive(fd, &message), 1);
        EXPECT_EQ(message.pid, sender);
        EXPECT(!message.ready);
        EXPECT(waitpid(sender, &status, 0) == sender);
        EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST_MAIN(TEST(abstract), TEST(path), TEST(barrier))
