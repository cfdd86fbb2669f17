/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What workers say about themselves.
 *
 * One socket serves all workers; who speaks is what the kernel says in SCM_CREDENTIALS, so no worker can
 * speak for another and no other process for any. Only READY=1 and WATCHDOG=1 are listened to. A worker's
 * STOPPING=1, STATUS= or MAINPID= ends here: passed on to PID 1 they would be taken for the service's. */

#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "inbox.h"

#define DATAGRAM_MAX 4096U

static int bind_path(int fd, const char *runtime_directory, char **ret_address) {
        struct sockaddr_un sa = { .sun_family = AF_UNIX };
        int n;

        n = snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/notify", runtime_directory);
        if (n < 0 || (size_t) n >= sizeof(sa.sun_path))
                return -ENAMETOOLONG;

        if (unlink(sa.sun_path) < 0 && errno != ENOENT)
                return -errno;
        if (bind(fd, (struct sockaddr *) &sa, sizeof(sa)) < 0)
                return -errno;
        if (chmod(sa.sun_path, 0600) < 0)
                return -errno;

        *ret_address = strdup(sa.sun_path);
        return *ret_address ? 0 : -ENOMEM;
}

static int bind_abstract(int fd, char **ret_address) {
        struct sockaddr_un sa = { .sun_family = AF_UNIX };
        socklen_t length = sizeof(sa);
        size_t l;
        char *s;

        /* unix(7), autobind: the kernel picks five hexadecimal digits. */
        if (bind(fd, (struct sockaddr *) &sa, sizeof(sa_family_t)) < 0)
                return -errno;
        if (getsockname(fd, (struct sockaddr *) &sa, &length) < 0)
                return -errno;

        l = length - offsetof(struct sockaddr_un, sun_path);
        s = strndup(sa.sun_path + 1, l - 1);
        if (!s)
                return -ENOMEM;
        if (asprintf(ret_address, "@%s", s) < 0) {
                free(s);
                return -ENOMEM;
        }
        free(s);
        return 0;
}

int inbox_open(const char *runtime_directory, int *ret_fd, char **ret_address) {
        _cleanup_close_ int fd = -EBADF;
        int r;

        assert(ret_fd);
        assert(ret_address);

        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &(int) { 1 }, sizeof(int)) < 0)
                return -errno;

        r = runtime_directory ? bind_path(fd, runtime_directory, ret_address) :
                bind_abstract(fd, ret_address);
        if (r < 0)
                return r;

        *ret_fd = TAKE_FD(fd);
        return 0;
}

static void close_passed_fds(const struct cmsghdr *c) {
        const int *fds = (const int *) (const void *) CMSG_DATA(c);
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        for (size_t i = 0; i < n; i++)
                (void) safe_close(fds[i]);
}

static bool has_line(const char *text, const char *line) {
        size_t l = strlen(line);

        for (const char *p = text; p; p = strchr(p, '\n'), p = p ? p + 1 : NULL)
                if (strncmp(p, line, l) == 0 && (p[l] == '\0' || p[l] == '\n'))
                        return true;
        return false;
}

int inbox_receive(int fd, InboxMessage *ret) {
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(sizeof(int) * 16)];
        } control;
        char text[DATAGRAM_MAX + 1];
        struct iovec iov = { .iov_base = text, .iov_len = DATAGRAM_MAX };
        struct msghdr mh = {
                .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control),
        };
        struct ucred ucred = {};
        ssize_t n;

        n = recvmsg(fd, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0)
                return errno == EAGAIN || errno == EINTR ? 0 : -errno;
        text[n] = '\0';

        for (struct cmsghdr *c = CMSG_FIRSTHDR(&mh); c; c = CMSG_NXTHDR(&mh, c)) {
                if (c->cmsg_level != SOL_SOCKET)
                        continue;
                if (c->cmsg_type == SCM_RIGHTS)
                        close_passed_fds(c);
                else if (c->cmsg_type == SCM_CREDENTIALS && c->cmsg_len == CMSG_LEN(sizeof(ucred)))
                        memcpy(&ucred, CMSG_DATA(c), sizeof(ucred));
        }

        *ret = (InboxMessage) {
                .pid = ucred.pid,
                .ready = has_line(text, "READY=1"),
                .watchdog = has_line(text, "WATCHDOG=1"),
        };
        return 1;
}
