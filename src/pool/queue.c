/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* TCP tells through the listener itself: in the state LISTEN, tcpi_unacked is the length of the accept
 * queue and tcpi_sacked the backlog (tcp_get_info() in the kernel; ss(8) relies on it). The others need
 * netlink, which is refused in many sandboxes and sees the sockets of its own network namespace only. What
 * poll(2) tells is enough to know that more workers are needed, not how many; so whatever goes wrong with
 * an exact answer, there is that one.
 *
 * The kernel handles a request within send(2), so the answer is there when it returns, or there is none.
 * Nobody but the kernel can write to a netlink socket that is connected to it. What a broken exchange may
 * have left behind is recognised by its sequence number: the time, which needs no memory.
 *
 * Inode numbers of sockets wrap around at 32 bits, cookies do not: if another socket has the number now,
 * the answer is ESTALE. */

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>

#include "queue.h"

typedef struct Request {
        struct nlmsghdr header;
        struct unix_diag_req diag;
} Request;

typedef union Answer {
        struct nlmsghdr header;
        struct {
                struct nlmsghdr error_header;
                struct nlmsgerr error;
        };
        struct {
                struct nlmsghdr diag_header;
                struct unix_diag_msg diag;
                char attributes[1024];
        };
} Answer;

int queue_open(void) {
        static const struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
        _cleanup_close_ int fd = -EBADF;

        fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_SOCK_DIAG);
        if (fd < 0)
                return -errno;
        if (connect(fd, (const struct sockaddr *) &kernel, sizeof(kernel)) < 0)
                return -errno;
        return TAKE_FD(fd);
}

static uint32_t sequence_number(void) {
        struct timespec ts;
        int r = clock_gettime(CLOCK_MONOTONIC, &ts);

        assert(r >= 0);
        return (uint32_t) ts.tv_sec * UINT32_C(1000000000) + (uint32_t) ts.tv_nsec;
}

/* Receives the answer with that sequence number; its length is no more than what has come. */
static int receive_answer(int diag_fd, uint32_t sequence, Answer *ret_answer) {
        ssize_t n;

        do {
                n = recv(diag_fd, ret_answer, sizeof(*ret_answer), MSG_DONTWAIT | MSG_TRUNC);
                if (n < 0)
                        return -errno;
                if ((size_t) n < sizeof(ret_answer->header) || (size_t) n > sizeof(*ret_answer) ||
                    ret_answer->header.nlmsg_len > (size_t) n)
                        return -EBADMSG;
        } while (ret_answer->header.nlmsg_seq != sequence);
        return 0;
}

static int answer_get_queue(const Answer *answer, struct unix_diag_rqlen *ret_queue) {
        const char *p = answer->attributes, *end = (const char *) answer + answer->header.nlmsg_len;
        struct rtattr attribute;

        if (answer->header.nlmsg_len < offsetof(Answer, error.msg))
                return -EBADMSG;
        if (answer->header.nlmsg_type == NLMSG_ERROR)
                return answer->error.error < 0 ? answer->error.error : -EBADMSG;
        if (answer->header.nlmsg_type != SOCK_DIAG_BY_FAMILY)
                return -EBADMSG;

        for (; end - p >= (ptrdiff_t) sizeof(attribute); p += RTA_ALIGN(attribute.rta_len)) {
                memcpy(&attribute, p, sizeof(attribute));
                if (attribute.rta_len < sizeof(attribute) || attribute.rta_len > end - p)
                        return -EBADMSG;
                if (attribute.rta_type == UNIX_DIAG_RQLEN &&
                    attribute.rta_len >= RTA_LENGTH(sizeof(*ret_queue))) {
                        memcpy(ret_queue, p + RTA_LENGTH(0), sizeof(*ret_queue));
                        return 0;
                }
        }
        return -EBADMSG;
}

static int ask_unix(int diag_fd, int listener_fd, uint64_t listener_inode, unsigned *ret_depth,
                    unsigned *ret_max) {
        Request request = {
                .header = {
                        .nlmsg_len = sizeof(request),
                        .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                        .nlmsg_flags = NLM_F_REQUEST,
                        .nlmsg_seq = sequence_number(),
                },
                .diag = {
                        .sdiag_family = AF_UNIX,
                        .udiag_ino = (uint32_t) listener_inode,
                        .udiag_show = UDIAG_SHOW_RQLEN,
                },
        };
        socklen_t length = sizeof(request.diag.udiag_cookie);
        struct unix_diag_rqlen queue;
        Answer answer;
        int r;

        if (getsockopt(listener_fd, SOL_SOCKET, SO_COOKIE, request.diag.udiag_cookie, &length) < 0)
                return -errno;
        if (send(diag_fd, &request, sizeof(request), MSG_DONTWAIT) < 0)
                return -errno;
        r = receive_answer(diag_fd, request.header.nlmsg_seq, &answer);
        if (r >= 0)
                r = answer_get_queue(&answer, &queue);
        if (r < 0)
                return r;

        *ret_depth = queue.udiag_rqueue;
        *ret_max = queue.udiag_wqueue;
        return 1;
}

static int ask_tcp(int listener_fd, unsigned *ret_depth, unsigned *ret_max) {
        struct tcp_info info;
        socklen_t length = sizeof(info);

        if (getsockopt(listener_fd, IPPROTO_TCP, TCP_INFO, &info, &length) < 0)
                return -errno;
        if (length < offsetof(struct tcp_info, tcpi_lost) || info.tcpi_state != TCP_LISTEN)
                return -EOPNOTSUPP;

        *ret_depth = info.tcpi_unacked;
        *ret_max = info.tcpi_sacked;
        return 1;
}

static int ask_poll(int listener_fd, unsigned *ret_depth, unsigned *ret_max) {
        struct pollfd pollfd = { .fd = listener_fd, .events = POLLIN | POLLRDHUP };

        if (poll(&pollfd, 1, 0) < 0)
                return -errno;

        /* One that was shut down is readable for ever. */
        *ret_depth = (pollfd.revents & (POLLIN | POLLRDHUP)) == POLLIN;
        *ret_max = 0;
        return 0;
}

int queue_get_depth(int diag_fd, int listener_fd, uint64_t listener_inode, unsigned *ret_depth,
                    unsigned *ret_max) {
        int family, listening, r;

        assert(listener_fd >= 0);
        assert(ret_depth);
        assert(ret_max);

        r = socket_get_int(listener_fd, SO_ACCEPTCONN, &listening);
        if (r >= 0)
                r = socket_get_int(listener_fd, SO_DOMAIN, &family);
        if (r < 0)
                return r;
        if (!listening)
                return -EINVAL;

        r = family == AF_UNIX ? ask_unix(diag_fd, listener_fd, listener_inode, ret_depth, ret_max) :
                                ask_tcp(listener_fd, ret_depth, ret_max);
        return r < 0 ? ask_poll(listener_fd, ret_depth, ret_max) : r;
}
