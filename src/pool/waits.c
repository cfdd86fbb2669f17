/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A thread asleep in accept names the listener as its first argument, one asleep in epoll_wait has it in
 * the epoll's fdinfo, one asleep in poll or select has it in an array that process_vm_readv(2) reads. Not
 * recognised are a 32-bit worker under a 64-bit helper, a listener behind a nested epoll, and io_uring.
 *
 * Who reads from one descriptor and waits for nothing else has nothing to do until the other side speaks.
 * epoll says nothing of that kind: an event loop has its timers and its database in there as well. Nor do
 * recvfrom(2) and recvmsg(2): a stopped thread may have returned from them with a request, and while
 * read(2) is counted in /proc/PID/io, they leave no trace.
 *
 * After SIGSTOP and SIGCONT, poll(2) goes on as restart_syscall(2) with its arguments still in the
 * registers, as do futex(2) and nanosleep(2) (signal(7)). Only poll is of interest: what a futex
 * operation can be is not taken for a number of descriptors. */

#include "waits.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "proc.h"

#define POLL_MAX 1024                 /* entries of a poll array, bits of an fd_set */
#define EPOLL_READS_MAX 256           /* of a buffer's size each, about 12000 registered descriptors */
#define SET_BITS ((int) (8 * sizeof(unsigned long)))

SocketName socket_name(uint64_t inode) {
        SocketName name = { .inode = inode };

        name.length = (size_t) snprintf(name.link, sizeof(name.link), "socket:[%llu]",
                                        (unsigned long long) inode);
        return name;
}

static int fd_is_socket(const Wait *wait, int fd, const SocketName *name) {
        char path[80], link[sizeof(name->link)];
        ssize_t n;

        (void) snprintf(path, sizeof(path), "/proc/%d/task/%d/fd/%d", wait->pid, wait->tid, fd);
        n = readlink(path, link, sizeof(link));
        if (n < 0)
                return -errno;
        return (size_t) n == name->length && memcmp(link, name->link, name->length) == 0;
}

static int listens_in_accept(const Wait *wait, const SocketName *listener) {
        return fd_is_socket(wait, (int) wait->arguments[0], listener);
}

/* "tfd: 5 events: 19 data: 5 pos:0 ino:5ca sdev:8", see proc(5). A one-shot registration that has fired
 * has no EPOLLIN left. */
static bool epoll_line_names_socket(const char *line, const SocketName *name) {
        const char *events, *inode;

        if (!startswith(line, "tfd:"))
                return false;
        events = strstr(line, " events:");
        inode = strstr(line, " ino:");
        return events && inode &&
                (strtoull(events + strlen(" events:"), NULL, 16) & (POLLIN | POLLRDNORM)) != 0 &&
                strtoull(inode + strlen(" ino:"), NULL, 16) == name->inode;
}

/* Looks at all complete lines; returns how many bytes they were, or -1 if one of them names the socket. */
static ssize_t epoll_lines_consume(char *lines, const SocketName *name) {
        char *line = lines;

        for (char *end = strchr(line, '\n'); end; line = end + 1, end = strchr(line, '\n')) {
                *end = '\0';
                if (epoll_line_names_socket(line, name))
                        return -1;
        }
        return line - lines;
}

static int listens_in_epoll(const Wait *wait, const SocketName *listener) {
        char path[80], buffer[4096];
        size_t used = 0;
        _cleanup_close_ int fd = -EBADF;

        (void) snprintf(path, sizeof(path), "/proc/%d/task/%d/fdinfo/%d", wait->pid, wait->tid,
                        (int) wait->arguments[0]);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;

        for (unsigned i = 0; i < EPOLL_READS_MAX; i++) {
                ssize_t n = read(fd, buffer + used, sizeof(buffer) - 1 - used);

                if (n <= 0)
                        return n < 0 ? -errno : 0;
                used += (size_t) n;
                buffer[used] = '\0';

                n = epoll_lines_consume(buffer, listener);
                if (n < 0)
                        return 1;
                used -= (size_t) n;
                memmove(buffer, buffer + n, used);
        }
        return -E2BIG;
}

/* What the kernel has read, we can read, unless it has been unmapped since: -EFAULT. */
static int read_memory(const Wait *wait, uint64_t address, void *buffer, size_t size) {
        struct iovec local = { .iov_base = buffer, .iov_len = size };
        struct iovec remote = { .iov_base = (void *) (uintptr_t) address, .iov_len = size };
        ssize_t n = process_vm_readv(wait->tid, &local, 1, &remote, 1, 0);

        if (n < 0)
                return -errno;
        return (size_t) n == size ? 0 : -EFAULT;
}

/* Returns the number of entries, of which POLL_MAX are read at most, or negative errno. */
static int read_poll_array(const Wait *wait, struct pollfd fds[static POLL_MAX]) {
        int n = (int) MIN_OF(wait->arguments[1], (uint64_t) POLL_MAX), r;

        r = n > 0 ? read_memory(wait, wait->arguments[0], fds, (size_t) n * sizeof(fds[0])) : 0;
        return r < 0 ? r : n;
}

static int listens_in_poll(const Wait *wait, const SocketName *listener) {
        struct pollfd fds[POLL_MAX];
        int n = read_poll_array(wait, fds);

        for (int i = 0; i < n; i++)
                if (fds[i].fd >= 0 && (fds[i].events & (POLLIN | POLLRDNORM)) &&
                    fd_is_socket(wait, fds[i].fd, listener) > 0)
                        return 1;
        return n < 0 ? n : 0;
}

/* An entry without events waits for errors, so that it counts as another descriptor as well. */
static int reads_in_poll(const Wait *wait, int *ret_fd) {
        struct pollfd fds[POLL_MAX];
        bool reads = false;
        int n, fd = -EBADF;

        if (wait->arguments[1] > POLL_MAX)
                return 0;
        n = read_poll_array(wait, fds);
        for (int i = 0; i < n; i++) {
                if (fds[i].fd < 0)
                        continue;
                if ((fd >= 0 && fds[i].fd != fd) || (fds[i].events & (POLLOUT | POLLWRNORM | POLLWRBAND)))
                        return 0;
                fd = fds[i].fd;
                reads |= (fds[i].events & (POLLIN | POLLRDNORM)) != 0;
        }
        if (n < 0 || !reads)
                return n < 0 ? n : 0;
        *ret_fd = fd;
        return 1;
}

#ifdef __NR_poll
static bool restarted_may_be_poll(const Wait *wait) {
        uint64_t n_fds = wait->arguments[1];
        uint64_t futex_operation = n_fds & ~UINT64_C(0x180);

        /* FUTEX_WAIT and FUTEX_WAIT_BITSET, with FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME or without;
         * nanosleep() has a pointer or 0 here. */
        return n_fds <= POLL_MAX && futex_operation != 0 && futex_operation != 9;
}

static int listens_in_restarted_poll(const Wait *wait, const SocketName *listener) {
        return restarted_may_be_poll(wait) ? listens_in_poll(wait, listener) : 0;
}

static int reads_in_restarted_poll(const Wait *wait, int *ret_fd) {
        return restarted_may_be_poll(wait) ? reads_in_poll(wait, ret_fd) : 0;
}
#endif

/* Returns the number of bits, POLL_MAX at most and 0 if there is no such set, or negative errno. The set is
 * the argument of this number: 1 to read, 2 to write, 3 for what is exceptional. */
static int read_fd_set(const Wait *wait, unsigned argument, unsigned long set[static POLL_MAX / SET_BITS]) {
        int n = MIN_OF((int) wait->arguments[0], POLL_MAX), r;

        if (n <= 0 || wait->arguments[argument] == 0)
                return 0;
        r = read_memory(wait, wait->arguments[argument], set,
                        (size_t) ((n + SET_BITS - 1) / SET_BITS) * sizeof(set[0]));
        return r < 0 ? r : n;
}

static bool fd_set_has(const unsigned long *set, int fd) {
        return set[fd / SET_BITS] >> (fd % SET_BITS) & 1;
}

static int listens_in_select(const Wait *wait, const SocketName *listener) {
        unsigned long set[POLL_MAX / SET_BITS];
        int n = read_fd_set(wait, 1, set);

        for (int fd = 0; fd < n; fd++)
                if (fd_set_has(set, fd) && fd_is_socket(wait, fd, listener) > 0)
                        return 1;
        return n < 0 ? n : 0;
}

static int reads_in_select(const Wait *wait, int *ret_fd) {
        unsigned long set[POLL_MAX / SET_BITS];
        int only_fd = -EBADF;

        if ((int) wait->arguments[0] > POLL_MAX)
                return 0;
        for (unsigned argument = 1; argument <= 3; argument++) {
                int n = read_fd_set(wait, argument, set);

                if (n < 0)
                        return n;
                for (int fd = 0; fd < n; fd++) {
                        if (!fd_set_has(set, fd))
                                continue;
                        if (argument > 1 || only_fd >= 0)
                                return 0;
                        only_fd = fd;
                }
        }
        if (only_fd < 0)
                return 0;
        *ret_fd = only_fd;
        return 1;
}

static int reads_in_read(const Wait *wait, int *ret_fd) {
        *ret_fd = (int) wait->arguments[0];
        return 1;
}

/* How a call waits for the listener, and how it waits for one descriptor alone; NULL: it does not. */
typedef struct WaitingCall {
        long number;
        int (*listens)(const Wait *wait, const SocketName *listener);
        int (*reads)(const Wait *wait, int *ret_fd);
} WaitingCall;

/* Not every architecture has every call: the newer ones have none without "p". __NR_select is something
 * else where there is __NR__newselect. */
static const WaitingCall waiting_calls[] = {
        { __NR_read, NULL, reads_in_read },
        { __NR_readv, NULL, reads_in_read },
#ifdef __NR_accept
        { __NR_accept, listens_in_accept, NULL },
#endif
#ifdef __NR_accept4
        { __NR_accept4, listens_in_accept, NULL },
#endif
#ifdef __NR_epoll_wait
        { __NR_epoll_wait, listens_in_epoll, NULL },
#endif
        { __NR_epoll_pwait, listens_in_epoll, NULL },
#ifdef __NR_epoll_pwait2
        { __NR_epoll_pwait2, listens_in_epoll, NULL },
#endif
#ifdef __NR_poll
        { __NR_poll, listens_in_poll, reads_in_poll },
        { __NR_restart_syscall, listens_in_restarted_poll, reads_in_restarted_poll },
#endif
#ifdef __NR_ppoll
        { __NR_ppoll, listens_in_poll, reads_in_poll },
#endif
#ifdef __NR_ppoll_time64
        { __NR_ppoll_time64, listens_in_poll, reads_in_poll },
#endif
#if defined(__NR__newselect)
        { __NR__newselect, listens_in_select, reads_in_select },
#elif defined(__NR_select)
        { __NR_select, listens_in_select, reads_in_select },
#endif
#ifdef __NR_pselect6
        { __NR_pselect6, listens_in_select, reads_in_select },
#endif
#ifdef __NR_pselect6_time64
        { __NR_pselect6_time64, listens_in_select, reads_in_select },
#endif
};

int wait_read(pid_t pid, pid_t tid, Wait *ret) {
        Wait wait = { .pid = pid, .tid = tid };
        char path[64], line[256], *p;
        int r;

        assert(ret);

        (void) snprintf(path, sizeof(path), "/proc/%d/task/%d/syscall", pid, tid);
        r = proc_read_file(path, line, sizeof(line));
        if (r < 0)
                return r;

        /* "running" is no number; who is dead has "-1 0x0 0x0". */
        wait.call = strtol(line, &p, 10);
        if (p == line)
                wait.call = -1;
        for (size_t i = 0; i < ELEMENTSOF(wait.arguments); i++)
                wait.arguments[i] = strtoull(p, &p, 16);
        *ret = wait;
        return 0;
}

static const WaitingCall *wait_get_call(const Wait *wait) {
        for (size_t i = 0; wait->call >= 0 && i < ELEMENTSOF(waiting_calls); i++)
                if (waiting_calls[i].number == wait->call)
                        return waiting_calls + i;
        return NULL;
}

/* It has been woken up since, and the descriptor, the memory or the thread is not what it was. */
static int ignore_woken_up(int r) {
        return r == -ENOENT || r == -ESRCH || r == -EFAULT ? 0 : r;
}

int wait_is_for_listener(const Wait *wait, const SocketName *listener) {
        const WaitingCall *call = wait_get_call(wait);

        return call && call->listens ? ignore_woken_up(call->listens(wait, listener)) : 0;
}

bool wait_is_accept(const Wait *wait) {
        const WaitingCall *call = wait_get_call(wait);

        return call && call->listens == listens_in_accept;
}

int wait_get_reader(const Wait *wait, int *ret_fd) {
        const WaitingCall *call = wait_get_call(wait);

        return call && call->reads ? ignore_woken_up(call->reads(wait, ret_fd)) : 0;
}
