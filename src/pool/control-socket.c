/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Whoever finds the file may connect, and waits in the backlog while there is no helper. So the socket
 * outlives the helper in PID 1's store, and its file in the runtime directory
 * (RuntimeDirectoryPreserve=restart). If the file has gone, the stored one is of no use. */

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "control-protocol.h"
#include "control-socket.h"

static int address_at(const char *runtime_directory, struct sockaddr_un *ret) {
        struct sockaddr_un sa = { .sun_family = AF_UNIX };
        int n;

        n = snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/" CONTROL_SOCKET, runtime_directory);
        if (n < 0 || (size_t) n >= sizeof(sa.sun_path))
                return -ENAMETOOLONG;
        *ret = sa;
        return 0;
}

int control_socket_is_ours(int fd) {
        socklen_t size = sizeof(struct ucred);
        struct ucred ucred;
        int r, domain, listens;

        assert(fd >= 0);

        r = socket_get_int(fd, SO_DOMAIN, &domain);
        if (r >= 0)
                r = socket_get_int(fd, SO_ACCEPTCONN, &listens);
        if (r < 0)
                return r;
        if (domain != AF_UNIX || !listens)
                return 0;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &ucred, &size) < 0)
                return -errno;
        return ucred.pid != 1;
}

int control_socket_is_at(int fd, const char *runtime_directory) {
        struct sockaddr_un wanted, sa = {};
        socklen_t size = sizeof(sa);
        struct stat st;
        int r;

        assert(fd >= 0);
        assert(runtime_directory);

        r = address_at(runtime_directory, &wanted);
        if (r < 0)
                return r;
        if (getsockname(fd, (struct sockaddr *) &sa, &size) < 0)
                return -errno;
        if (strncmp(sa.sun_path, wanted.sun_path, sizeof(sa.sun_path)) != 0)
                return 0;
        return lstat(wanted.sun_path, &st) >= 0 && S_ISSOCK(st.st_mode);
}

int control_socket_open(const char *runtime_directory) {
        _cleanup_close_ int fd = -EBADF;
        struct sockaddr_un sa;
        int r;

        assert(runtime_directory);

        r = address_at(runtime_directory, &sa);
        if (r < 0)
                return r;
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        if (unlink(sa.sun_path) < 0 && errno != ENOENT)
                return -errno;
        /* The mode of the socket before bind(2) becomes that of the file. */
        if (fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *) &sa, sizeof(sa)) < 0 ||
            listen(fd, SOMAXCONN) < 0)
                return -errno;
        return TAKE_FD(fd);
}
