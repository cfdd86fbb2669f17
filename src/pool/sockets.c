/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A .socket unit can pass anything: a datagram socket, a connection (Accept=yes), a FIFO, a device. A
 * worker would find out at its first accept(2), each in its own way and most of them silently, so
 * everything is looked at before the first spawn.
 *
 * A wrong socket is a mistake in the unit and refuses the start: clients are waiting at it. What is no
 * socket at all cannot have clients; it is closed, named to the caller and otherwise does no harm. The
 * order in which PID 1 passes the listeners is kept, but it means nothing across starts; what identifies a
 * listener is SO_COOKIE (socket(7), Linux 4.12), which two sockets never share while the system is up.
 *
 * O_NONBLOCK belongs to the open file description, hence to all workers and to PID 1 at once; any worker
 * can flip it for all. Here it is only compared and set; when, is up to the caller.
 *
 * sd_listen_fds(3) says 0 both when nothing was passed and when LISTEN_PID is another process, as behind a
 * wrapper that forks in ExecStart=; the second is worth its own words. */

#include <arpa/inet.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <systemd/sd-daemon.h>

#include "control-socket.h"
#include "reexec.h"
#include "sockets.h"

typedef union SocketAddress {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
        struct sockaddr_storage storage; /* a sun_path without NUL is longer than sockaddr_un */
} SocketAddress;

#define EXPECTED_LISTENER \
        "expected at least one listening stream socket (start it through a .socket unit, see fcgi-pool(8))"
#define EXPECTED_STREAM "expected a listening stream socket (ListenStream= in the .socket unit)"

ListenSet *listen_set_free(ListenSet *set) {
        if (!set)
                return NULL;

        for (size_t i = 0; i < set->n_listeners; i++) {
                (void) safe_close(set->listeners[i].fd);
                free(set->listeners[i].fd_name);
                free(set->listeners[i].address);
        }
        free(set->listeners);
        for (size_t i = 0; i < set->n_workers; i++)
                (void) safe_close(set->workers[i].pidfd);
        free(set->workers);
        (void) safe_close(set->state_fd);
        (void) safe_close(set->leash_fd);
        (void) safe_close(set->control_fd);
        (void) strv_free(set->strangers);
        free(set);
        return NULL;
}

/* Copies n bytes for people to read, what is not printable ASCII as \xNN. NULL: no memory. */
static char *escape_bytes(const char *bytes, size_t n, const char *prefix) {
        static const char hex[] = "0123456789abcdef";
        char *s, *p;

        s = malloc(strlen(prefix) + n * strlen("\\xNN") + 1);
        if (!s)
                return NULL;

        p = stpcpy(s, prefix);
        for (size_t i = 0; i < n; i++) {
                unsigned char c = (unsigned char) bytes[i];

                if (c > ' ' && c < 127 && c != '\\') {
                        *p++ = (char) c;
                        continue;
                }
                p = stpcpy(p, "\\x");
                *p++ = hex[c >> 4];
                *p++ = hex[c & 15];
        }
        *p = '\0';
        return s;
}

static int format_unix(const struct sockaddr_un *un, socklen_t length, char **ret_text) {
        size_t offset = offsetof(struct sockaddr_un, sun_path), n = length > offset ? length - offset : 0;
        const char *path = (const char *) un + offset; /* may be longer than the array sun_path */
        char *text;

        if (n == 0)
                text = strdup("unnamed");
        else if (path[0] == '\0')
                text = escape_bytes(path + 1, n - 1, "@");
        else
                text = escape_bytes(path, strnlen(path, n), "");
        if (!text)
                return -ENOMEM;

        *ret_text = text;
        return 0;
}

static int format_ip(const SocketAddress *address, char **ret_text) {
        char host[INET6_ADDRSTRLEN], scope[16] = "";
        char *text;
        int k;

        if (address->sa.sa_family == AF_INET) {
                if (!inet_ntop(AF_INET, &address->in.sin_addr, host, sizeof(host)))
                        return -errno;
                k = asprintf(&text, "%s:%u", host, ntohs(address->in.sin_port));
        } else {
                if (!inet_ntop(AF_INET6, &address->in6.sin6_addr, host, sizeof(host)))
                        return -errno;
                if (address->in6.sin6_scope_id != 0)
                        (void) snprintf(scope, sizeof(scope), "%%%u", address->in6.sin6_scope_id);
                k = asprintf(&text, "[%s%s]:%u", host, scope, ntohs(address->in6.sin6_port));
        }
        if (k < 0)
                return -ENOMEM;

        *ret_text = text;
        return 0;
}

static int socket_format_address(int fd, char **ret_text) {
        SocketAddress address = {};
        socklen_t length = sizeof(address);

        if (getsockname(fd, &address.sa, &length) < 0)
                return -errno;

        return address.sa.sa_family == AF_UNIX ? format_unix(&address.un, length, ret_text) :
                                                 format_ip(&address, ret_text);
}

static const char *socket_type_to_string(int type) {
        return type == SOCK_DGRAM     ? "a datagram socket" :
               type == SOCK_SEQPACKET ? "a sequential-packet socket" :
               type == SOCK_RAW       ? "a raw socket" :
                                        "a socket of unknown type";
}

static int problem_set_inspection(Problem *ret_problem, int error, int fd, const char *name) {
        return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, error, "fd %d (%s): cannot be inspected: %s",
                           fd, name, strerror(-error));
}

/* Checks that fd is a listening stream socket of a family that workers know, and says which family. */
static int socket_verify(int fd, const char *name, int *ret_family, Problem *ret_problem) {
        SocketAddress peer;
        socklen_t length = sizeof(peer);
        int type = 0, listening = 0, family = AF_UNSPEC, r;

        r = socket_get_int(fd, SO_TYPE, &type);
        if (r >= 0)
                r = socket_get_int(fd, SO_ACCEPTCONN, &listening);
        if (r >= 0)
                r = socket_get_int(fd, SO_DOMAIN, &family);
        if (r < 0)
                return problem_set_inspection(ret_problem, r, fd, name);

        if (type != SOCK_STREAM)
                return problem_set(ret_problem, EXIT_STATUS_NOT_CONFIGURED, -EPROTOTYPE,
                                   "fd %d (%s): %s was passed, " EXPECTED_STREAM,
                                   fd, name, socket_type_to_string(type));

        if (!listening)
                return problem_set(ret_problem, EXIT_STATUS_NOT_CONFIGURED, -EISCONN,
                                   "fd %d (%s): a %s was passed, "
                                   "expected a listening one (Accept=no in the .socket unit)",
                                   fd, name, getpeername(fd, &peer.sa, &length) >= 0 ?
                                             "connected socket" : "stream socket that does not listen");

        if (family != AF_UNIX && family != AF_INET && family != AF_INET6)
                return problem_set(ret_problem, EXIT_STATUS_NOT_CONFIGURED, -EAFNOSUPPORT,
                                   "fd %d (%s): a socket of address family %d was passed, "
                                   "expected IPv4, IPv6 or UNIX",
                                   fd, name, family);

        *ret_family = family;
        return 0;
}

/* Fills in what needs no verification; fd and family are set. On failure the caller frees it. */
static int listener_fill(Listener *listener, const char *name, ListenerMode mode, const struct stat *st) {
        socklen_t length = sizeof(listener->cookie);
        int flags;

        flags = fcntl(listener->fd, F_GETFL);
        if (flags < 0)
                return -errno;

        if (getsockopt(listener->fd, SOL_SOCKET, SO_COOKIE, &listener->cookie, &length) < 0)
                return -errno;

        listener->inode = st->st_ino;
        listener->nonblocking = mode == LISTENER_NONBLOCKING ||
                                (mode == LISTENER_AS_PASSED && (flags & O_NONBLOCK) != 0);

        listener->fd_name = strdup(name);
        if (!listener->fd_name)
                return -ENOMEM;

        return socket_format_address(listener->fd, &listener->address);
}

/* Whether a descriptor that is no socket is what its name promises. A second one of the same name is not. */
static bool listen_set_add_stored(ListenSet *set, int fd, const char *name, mode_t mode) {
        StoredWorker worker = { .pidfd = fd };
        char again[STORED_WORKER_SIZE];

        if (streq(name, STORED_STATE) && S_ISREG(mode) && set->state_fd < 0) {
                set->state_fd = fd;
                return true;
        }
        if (streq(name, STORED_LEASH) && S_ISFIFO(mode) && set->leash_fd < 0) {
                set->leash_fd = fd;
                return true;
        }
        if (streq(name, STORED_RESTARTED) && S_ISFIFO(mode) && !set->restarted) {
                set->restarted = true;
                (void) safe_close(fd);
                return true;
        }
        if (sscanf(name, "worker-%u-%" SCNu64, &worker.slot, &worker.generation) != 2)
                return false;
        (void) snprintf(again, sizeof(again), STORED_WORKER_FORMAT, worker.slot, worker.generation);
        if (!streq(name, again))
                return false;
        set->workers[set->n_workers++] = worker;
        return true;
}

static int listen_set_add_other(ListenSet *set, int fd, const char *name, mode_t mode) {
        size_t n = 0;

        if (listen_set_add_stored(set, fd, name, mode))
                return 0;

        while (set->strangers[n])
                n++;
        set->strangers[n] = strdup(name);
        if (!set->strangers[n])
                return -ENOMEM;
        (void) safe_close(fd);
        return 0;
}

static int listen_set_add(ListenSet *set, int fd, const char *name, ListenerMode mode,
                          Problem *ret_problem) {
        Listener *listener = set->listeners + set->n_listeners;
        struct stat st;
        int family = AF_UNSPEC, r;

        if (fstat(fd, &st) < 0)
                return problem_set_inspection(ret_problem, -errno, fd, name);

        if (streq(name, STORED_CONTROL) && set->control_fd < 0 && S_ISSOCK(st.st_mode) &&
            control_socket_is_ours(fd) > 0) {
                set->control_fd = fd;
                return 0;
        }
        if (!S_ISSOCK(st.st_mode)) {
                r = listen_set_add_other(set, fd, name, st.st_mode);
                return r < 0 ? problem_set(ret_problem, EXIT_STATUS_OS_ERROR, r, "out of memory") : 0;
        }

        r = socket_verify(fd, name, &family, ret_problem);
        if (r < 0)
                return r;

        *listener = (Listener) { .fd = fd, .family = family };
        set->n_listeners++;

        r = listener_fill(listener, name, mode, &st);
        if (r >= 0)
                r = listener_enforce_mode(listener);
        if (r < 0)
                return problem_set_inspection(ret_problem, r, fd, name);

        return 0;
}

/* Nothing was passed, or nothing that listens; listen_pid is the variable as it was, NULL if unset. */
static int problem_set_no_listener(Problem *ret_problem, const ListenSet *set, const char *listen_pid) {
        if (set->strangers[0])
                return problem_set(ret_problem, EXIT_STATUS_NOT_CONFIGURED, -ENOTCONN,
                                   "no listener was passed in LISTEN_FDS (%s is not a socket): "
                                   EXPECTED_LISTENER,
                                   set->strangers[0]);

        if (listen_pid && strtol(listen_pid, NULL, 10) != (long) getpid())
                return problem_set(ret_problem, EXIT_STATUS_NOT_CONFIGURED, -ENOTCONN,
                                   "no listener was passed in LISTEN_FDS "
                                   "(LISTEN_PID=%.20s is another process, we are %d): "
                                   EXPECTED_LISTENER, listen_pid, (int) getpid());

        return problem_set(ret_problem, EXIT_STATUS_NOT_CONFIGURED, -ENOTCONN,
                           "no listener was passed in LISTEN_FDS: " EXPECTED_LISTENER);
}

static int listen_set_new(size_t n_fds, ListenSet **ret_set) {
        _cleanup_(listen_set_freep) ListenSet *set = NULL;

        set = calloc(1, sizeof(*set));
        if (!set)
                return -ENOMEM;
        set->state_fd = set->leash_fd = set->control_fd = -EBADF;

        set->listeners = calloc(n_fds + 1, sizeof(*set->listeners));
        set->workers = calloc(n_fds + 1, sizeof(*set->workers));
        set->strangers = calloc(n_fds + 1, sizeof(*set->strangers));
        if (!set->listeners || !set->workers || !set->strangers)
                return -ENOMEM;

        *ret_set = TAKE_PTR(set);
        return 0;
}

/* What systemd passed, as an array of numbers beside the names. */
static int take_listen_fds(int **ret_fds, char ***ret_names, Problem *ret_problem) {
        _cleanup_free_ char *listen_fds = NULL;
        const char *e = getenv("LISTEN_FDS");
        int n_fds, *fds;

        /* For the words of a refusal only; the library unsets it. */
        listen_fds = e ? strdup(e) : NULL;

        n_fds = sd_listen_fds_with_names(true, ret_names);
        (void) unsetenv("LISTEN_PIDFDID"); /* libsystemd before v259 does not know it */
        if (n_fds < 0)
                return problem_set(ret_problem, EXIT_STATUS_NOT_CONFIGURED, n_fds,
                                   "LISTEN_FDS=%.20s: cannot be taken with its LISTEN_PID and "
                                   "LISTEN_FDNAMES, expected them as in sd_listen_fds(3): %s",
                                   listen_fds ?: "", strerror(-n_fds));

        fds = calloc((size_t) n_fds + 1, sizeof(*fds));
        if (!fds)
                return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, -ENOMEM, "out of memory");
        for (int i = 0; i < n_fds; i++)
                fds[i] = SD_LISTEN_FDS_START + i;
        *ret_fds = fds;
        return n_fds;
}

int listen_set_take(ListenerMode mode, ListenSet **ret_set, Problem *ret_problem) {
        _cleanup_(listen_set_freep) ListenSet *set = NULL;
        _cleanup_free_ char *listen_pid = NULL;
        _cleanup_strv_free_ char **names = NULL;
        _cleanup_free_ int *fds = NULL;
        const char *e = getenv("LISTEN_PID");
        bool reexecuted;
        int n_fds, r;

        assert(ret_set);

        listen_pid = e && getenv("LISTEN_FDS") ? strdup(e) : NULL;

        n_fds = reexec_take_fds(&fds, &names);
        if (n_fds < 0)
                return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, n_fds,
                                   "descriptors of the image before us: %s",
                                   strerror(-n_fds));
        reexecuted = n_fds > 0;
        if (!reexecuted) {
                n_fds = take_listen_fds(&fds, &names, ret_problem);
                if (n_fds < 0)
                        return n_fds;
        }

        r = listen_set_new((size_t) n_fds, &set);
        if (r < 0)
                return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, r, "out of memory");

        set->reexecuted = reexecuted;
        for (int i = 0; i < n_fds; i++) {
                r = listen_set_add(set, fds[i], names[i], mode, ret_problem);
                if (r < 0)
                        return r;
        }

        if (set->n_listeners == 0)
                return problem_set_no_listener(ret_problem, set, listen_pid);

        *ret_set = TAKE_PTR(set);
        return 0;
}

int listener_is_flipped(const Listener *listener) {
        int flags;

        assert(listener);

        flags = fcntl(listener->fd, F_GETFL);
        if (flags < 0)
                return -errno;

        return ((flags & O_NONBLOCK) != 0) != listener->nonblocking;
}

int listener_enforce_mode(const Listener *listener) {
        int flags;

        assert(listener);

        flags = fcntl(listener->fd, F_GETFL);
        if (flags < 0)
                return -errno;
        if (((flags & O_NONBLOCK) != 0) == listener->nonblocking)
                return 0;

        flags = listener->nonblocking ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
        return fcntl(listener->fd, F_SETFL, flags) < 0 ? -errno : 1;
}
