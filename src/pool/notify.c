/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What we tell PID 1.
 *
 * Only the main process speaks (NotifyAccess=main), so that PID 1 attributes every datagram even if we die
 * right after it, and no barrier is needed. Who speaks is what the kernel says: it adds our credentials
 * because PID 1's socket has SO_PASSCRED.
 *
 * The socket is ours and connected, since that makes poll(2) tell the truth: EPOLLOUT comes when PID 1 has
 * read from its full queue (unix_dgram_poll() in the kernel), while an unconnected socket always looks
 * writable. Whatever cannot be waited for in this way (no memory; ETOOMANYREFS, too many descriptors of this
 * user under way) is tried again by a timer, else the loop would spin.
 *
 * PID 1 keeps its socket over daemon-reload and daemon-reexec. Should it have gone nevertheless, each
 * message tries to connect once more and is then lost: nobody could tell how long to keep it. */

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <systemd/sd-event.h>

#include "clock.h"
#include "notify.h"

#define A_YEAR_USEC (365 * 24 * 3600 * USEC_PER_SEC)
#define RETRY_USEC (50 * USEC_PER_MSEC)
#define QUEUE_MAX 65536U /* four per worker of the largest pool */
#define FD_NAME_MAX 255U

/* PID 1 ignores longer datagrams (NOTIFY_BUFFER_MAX). */
#define TEXT_MAX ((size_t) PIPE_BUF)

#define STORE_PREFIX "FDSTORE=1\nFDPOLL=0\nFDNAME="
#define REMOVE_PREFIX "FDSTOREREMOVE=1\nFDNAME="

typedef enum Kind {
        KIND_PHASE,      /* READY=1, STOPPING=1 */
        KIND_STATUS,
        KIND_EXTEND,
        KIND_WATCHDOG,
        KIND_STORE,
        KIND_REMOVE,
} Kind;

typedef struct Message {
        TAILQ_ENTRY(Message) link;
        Kind kind;
        int fd; /* owned, or -EBADF */
        char text[];
} Message;

struct Notify {
        int fd; /* -EBADF: nobody wants to hear us */
        struct sockaddr_un address;
        socklen_t address_length;
        sd_event_source *writable_source;
        sd_event_source *retry_source;
        TAILQ_HEAD(MessageQueue, Message) queue;
        size_t n_queued, n_stores;
        unsigned n_lost;
        int lost_error;
};

static int lose(Notify *n, int error) {
        n->n_lost++;
        n->lost_error = error;
        return error;
}

static void drop(Notify *n, Message *m) {
        TAILQ_REMOVE(&n->queue, m, link);
        n->n_queued--;
        n->n_stores -= m->kind == KIND_STORE;
        (void) safe_close(m->fd);
        free(m);
}

static int send_once(int socket_fd, const char *text, int fd) {
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(sizeof(int))];
        } control = {};
        struct iovec iov = { .iov_base = (char *) text, .iov_len = strlen(text) };
        struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };

        if (fd >= 0) {
                control.header = (struct cmsghdr) {
                        .cmsg_level = SOL_SOCKET,
                        .cmsg_type = SCM_RIGHTS,
                        .cmsg_len = CMSG_LEN(sizeof(int)),
                };
                memcpy(CMSG_DATA(&control.header), &fd, sizeof(int));
                mh.msg_control = &control;
                mh.msg_controllen = sizeof(control);
        }
        return sendmsg(socket_fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static int transmit(Notify *n, const char *text, int fd) {
        int r;

        r = send_once(n->fd, text, fd);
        if (r != -ECONNREFUSED && r != -ENOTCONN && r != -EPIPE)
                return r;
        if (connect(n->fd, (const struct sockaddr *) &n->address, n->address_length) < 0)
                return -errno;
        return send_once(n->fd, text, fd);
}

/* Will EPOLLOUT tell when to go on? */
static bool is_full(int r) {
        return r == -EAGAIN || r == -EINTR;
}

/* May it work a little later, although nothing will tell? */
static bool is_short(int r) {
        return r == -ENOBUFS || r == -ENOMEM || r == -ETOOMANYREFS;
}

/* Sends what can be sent. Returns 0 when nothing waits any more, or why the first message still does. */
static int drain(Notify *n) {
        Message *m;
        int r;

        while ((m = TAILQ_FIRST(&n->queue))) {
                r = transmit(n, m->text, m->fd);
                if (is_full(r) || is_short(r))
                        return r;
                if (r < 0)
                        (void) lose(n, r);
                drop(n, m);
        }
        return 0;
}

/* Arranges for the next attempt, r being the result of the last. If the loop refuses, the next flush
 * sends. */
static void arm(Notify *n, int r) {
        if (!n->writable_source)
                return;
        if (is_short(r))
                (void) sd_event_source_set_time_relative(n->retry_source, RETRY_USEC);
        (void) sd_event_source_set_enabled(n->retry_source, is_short(r) ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
        (void) sd_event_source_set_enabled(n->writable_source, is_full(r) ? SD_EVENT_ON : SD_EVENT_OFF);
}

static int on_writable(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        arm(userdata, drain(userdata));
        return 0;
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata) {
        arm(userdata, drain(userdata));
        return 0;
}

static int enqueue(Notify *n, Kind kind, const char *text, int fd) {
        _cleanup_close_ int copy = -EBADF;
        size_t size = strlen(text) + 1;
        Message *m;

        if (n->n_queued >= QUEUE_MAX)
                return lose(n, -ENOBUFS);
        if (fd >= 0) {
                copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
                if (copy < 0)
                        return lose(n, -errno);
        }

        m = malloc(sizeof(*m) + size);
        if (!m)
                return lose(n, -ENOMEM);
        m->kind = kind;
        m->fd = TAKE_FD(copy);
        memcpy(m->text, text, size);
        TAILQ_INSERT_TAIL(&n->queue, m, link);
        n->n_queued++;
        n->n_stores += kind == KIND_STORE;
        return 0;
}

static int submit(Notify *n, Kind kind, const char *text, int fd) {
        int r;

        if (n->fd < 0)
                return 0;
        if (!TAILQ_EMPTY(&n->queue))
                return enqueue(n, kind, text, fd);

        r = transmit(n, text, fd);
        if (r >= 0)
                return 0;
        if (!is_full(r) && !is_short(r))
                return lose(n, r);
        arm(n, r);
        return enqueue(n, kind, text, fd);
}

/* Takes back a waiting message that the next one of its kind makes pointless. Before a change of phase it
 * meant something else. */
static void forget(Notify *n, Kind kind) {
        Message *m;

        TAILQ_FOREACH_REVERSE(m, &n->queue, MessageQueue, link) {
                if (m->kind == KIND_PHASE)
                        return;
                if (m->kind == kind) {
                        drop(n, m);
                        return;
                }
        }
}

static void take_back_store(Notify *n, const char *name) {
        Message *next;

        for (Message *m = TAILQ_FIRST(&n->queue); m && n->n_stores > 0; m = next) {
                next = TAILQ_NEXT(m, link);
                if (m->kind == KIND_STORE && streq(m->text + strlen(STORE_PREFIX), name))
                        drop(n, m);
        }
}

/* The last assignment of a message: no line may follow it, and no character be cut in two. */
static void add_status(char text[static TEXT_MAX], const char *status) {
        size_t at = strlen(text), room = TEXT_MAX - 1 - at, l;

        l = strnlen(status, room);
        while (l > 0 && ((unsigned char) status[l] & 0xC0) == 0x80)
                l--;
        memcpy(text + at, status, l);
        text[at + l] = '\0';
        for (char *p = text + at; (p = strchr(p, '\n'));)
                *p = ' ';
}

void notify_ready(Notify *n, const char *status) {
        char text[TEXT_MAX] = "READY=1\nSTATUS=";

        assert(n);
        assert(status);

        add_status(text, status);
        (void) submit(n, KIND_PHASE, text, -EBADF);
}

void notify_status(Notify *n, const char *status) {
        char text[TEXT_MAX] = "STATUS=";

        assert(n);
        assert(status);

        add_status(text, status);
        forget(n, KIND_STATUS);
        (void) submit(n, KIND_STATUS, text, -EBADF);
}

void notify_stopping(Notify *n, const char *status, uint64_t timeout_usec) {
        char text[TEXT_MAX];

        assert(n);
        assert(status);

        (void) snprintf(text, sizeof(text), "STOPPING=1\nEXTEND_TIMEOUT_USEC=%" PRIu64 "\nSTATUS=",
                        MIN_OF(timeout_usec, A_YEAR_USEC));
        add_status(text, status);
        (void) submit(n, KIND_PHASE, text, -EBADF);
}

void notify_extend_timeout(Notify *n, uint64_t timeout_usec) {
        char text[64];

        assert(n);

        (void) snprintf(text, sizeof(text), "EXTEND_TIMEOUT_USEC=%" PRIu64,
                        MIN_OF(timeout_usec, A_YEAR_USEC));
        forget(n, KIND_EXTEND);
        (void) submit(n, KIND_EXTEND, text, -EBADF);
}

void notify_watchdog(Notify *n) {
        assert(n);

        forget(n, KIND_WATCHDOG);
        (void) submit(n, KIND_WATCHDOG, "WATCHDOG=1", -EBADF);
}

/* What PID 1 takes, and no empty name: it would be stored as "stored". */
static bool fd_name_is_valid(const char *name) {
        size_t l = strlen(name);

        for (const char *p = name; *p; p++)
                if (*p < ' ' || *p > '~' || *p == ':')
                        return false;
        return l > 0 && l <= FD_NAME_MAX;
}

int notify_store_fd(Notify *n, const char *name, int fd) {
        char text[sizeof(STORE_PREFIX) + FD_NAME_MAX];

        assert(n);
        assert(name);
        assert(fd_name_is_valid(name));
        assert(fd >= 0);

        (void) snprintf(text, sizeof(text), STORE_PREFIX "%s", name);
        return submit(n, KIND_STORE, text, fd);
}

int notify_remove_fd(Notify *n, const char *name) {
        char text[sizeof(REMOVE_PREFIX) + FD_NAME_MAX];

        assert(n);
        assert(name);
        assert(fd_name_is_valid(name));

        take_back_store(n, name);
        (void) snprintf(text, sizeof(text), REMOVE_PREFIX "%s", name);
        return submit(n, KIND_REMOVE, text, -EBADF);
}

unsigned notify_take_lost(Notify *n, int *ret_error) {
        assert(n);

        if (n->n_lost > 0 && ret_error)
                *ret_error = n->lost_error;
        return TAKE_GENERIC(n->n_lost, 0);
}

size_t notify_n_queued(const Notify *n) {
        assert(n);

        return n->n_queued;
}

/* Until drain(), which has just returned r, is worth another call, but no longer than usec. */
static void pause_until_writable(Notify *n, int r, uint64_t usec) {
        struct pollfd p = { .fd = n->fd, .events = POLLOUT };
        struct timespec ts;

        usec = MIN_OF(usec, is_short(r) ? RETRY_USEC : A_YEAR_USEC);
        ts = (struct timespec) {
                .tv_sec = (time_t) (usec / USEC_PER_SEC),
                .tv_nsec = (long) (usec % USEC_PER_SEC * 1000),
        };
        (void) ppoll(&p, is_short(r) ? 0 : 1, &ts, NULL);
}

int notify_flush(Notify *n, uint64_t timeout_usec) {
        uint64_t end = usec_add(clock_now_usec(), timeout_usec), left;
        unsigned n_lost;
        int r;

        assert(n);

        n_lost = n->n_lost;
        while ((r = drain(n)) < 0 && (left = usec_sub(end, clock_now_usec())) > 0)
                pause_until_writable(n, r, left);

        arm(n, r);
        if (r < 0)
                return -ETIMEDOUT;
        return n->n_lost != n_lost ? n->lost_error : 0;
}

/* unix(7): an abstract name has a zero byte in front and none at the end. */
static int parse_address(const char *s, struct sockaddr_un *ret_address, socklen_t *ret_length) {
        struct sockaddr_un sa = { .sun_family = AF_UNIX };
        size_t l = strlen(s);

        if ((s[0] != '/' && s[0] != '@') || l < 2)
                return -EAFNOSUPPORT;
        if (l > sizeof(sa.sun_path) - (s[0] == '/'))
                return -ENAMETOOLONG;

        memcpy(sa.sun_path, s, l);
        if (s[0] == '@')
                sa.sun_path[0] = '\0';
        *ret_address = sa;
        *ret_length = (socklen_t) (offsetof(struct sockaddr_un, sun_path) + l + (s[0] == '/'));
        return 0;
}

static int add_sources(Notify *n, sd_event *event) {
        int r;

        r = sd_event_add_io(event, &n->writable_source, n->fd, EPOLLOUT, on_writable, n);
        if (r >= 0)
                r = sd_event_source_set_enabled(n->writable_source, SD_EVENT_OFF);
        if (r >= 0)
                r = sd_event_add_time(event, &n->retry_source, CLOCK_MONOTONIC, 0, 0, on_retry, n);
        if (r >= 0)
                r = sd_event_source_set_enabled(n->retry_source, SD_EVENT_OFF);
        return r;
}

int notify_new(sd_event *event, Notify **ret_notify) {
        const char *address = getenv("NOTIFY_SOCKET");
        _cleanup_(notify_freep) Notify *n = NULL;
        int r;

        assert(event);
        assert(ret_notify);

        n = calloc(1, sizeof(*n));
        if (!n)
                return -ENOMEM;
        n->fd = -EBADF;
        TAILQ_INIT(&n->queue);

        if (address && address[0] != '\0') {
                r = parse_address(address, &n->address, &n->address_length);
                if (r < 0)
                        return r;
                n->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
                if (n->fd < 0)
                        return -errno;
                if (connect(n->fd, (const struct sockaddr *) &n->address, n->address_length) < 0)
                        return -errno;
                r = add_sources(n, event);
                if (r < 0)
                        return r;
        }

        *ret_notify = TAKE_PTR(n);
        return 0;
}

Notify *notify_free(Notify *n) {
        if (!n)
                return NULL;

        while (!TAILQ_EMPTY(&n->queue))
                drop(n, TAILQ_FIRST(&n->queue));
        (void) sd_event_source_disable_unref(n->writable_source);
        (void) sd_event_source_disable_unref(n->retry_source);
        (void) safe_close(n->fd);
        free(n);
        return NULL;
}
