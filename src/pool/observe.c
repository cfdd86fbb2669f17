/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A worker says nothing about itself, so we look where the kernel shows it: a thread asleep in accept
 * names the listener as its first argument, one asleep in epoll_wait has it in the epoll's fdinfo, one
 * asleep in poll or select has it in an array that process_vm_readv(2) reads. Not recognised are a
 * 32-bit worker under a 64-bit helper, a listener behind a nested epoll, and io_uring; their connections
 * are, and else a timer must do.
 *
 * Waiting alone is not enough: a worker started into a queue that is never empty never sleeps in accept.
 * It does own a socket whose local address is the listener's, which only accept(2) gives: connect(2)
 * skips ports bound by others and names no AF_UNIX client. Such a socket is asked through
 * pidfd_getfd(2); /proc/net and sock_diag(7) take up to milliseconds and are blind in another network
 * namespace. The duplicate lives for microseconds. A sandbox must forbid pidfd_getfd(2) with an error,
 * not with a signal.
 *
 * After SIGSTOP and SIGCONT, poll(2) goes on as restart_syscall(2) with its arguments still in the
 * registers, as do futex(2) and nanosleep(2) (signal(7)). Only poll is of interest: what a futex
 * operation can be is not taken for a number of descriptors.
 *
 * Order is cost: a single-threaded worker in accept takes one read and one readlink, nothing is
 * allocated, and connections are looked at only when no thread of the whole tree waits. Reading syscall,
 * process_vm_readv(2) and pidfd_getfd(2) need PTRACE_MODE_ATTACH (ptrace(2)): same user, dumpable, and
 * where Yama's scope is 1 our descendant. Everything has a bound. */

#include "observe.h"

#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>

#define PROCESSES_MAX 64
#define THREADS_MAX 4096
#define DESCRIPTORS_MAX 16384
#define POLL_MAX 1024                 /* entries of a poll array, bits of an fd_set */
#define EPOLL_READS_MAX 256           /* of a buffer's size each, about 12000 registered descriptors */

typedef struct SocketAddress {
        union {
                struct sockaddr any;
                struct sockaddr_in in;
                struct sockaddr_in6 in6;
                struct sockaddr_storage storage;
        };
        socklen_t size;
} SocketAddress;

typedef struct Look {
        uint64_t inode;
        char link[sizeof("socket:[]") + 20];
        size_t link_length;
        SocketAddress address;        /* filled in when connections are looked at */
} Look;

typedef struct Thread {
        pid_t pid;
        pid_t tid;
        uint64_t arguments[6];
} Thread;

typedef struct Process {
        pid_t pid;
        int error;                    /* why its threads could not be looked at, or 0 */
} Process;

/* Iterates over the entries of a directory of /proc whose names are numbers. */
typedef struct NumberDir {
        int fd;
        size_t position;
        size_t size;
        _Alignas(struct dirent64) char buffer[4096];
} NumberDir;

static const char *const observation_names[] = {
        [OBSERVE_NOT_WAITING] = "not-waiting",
        [OBSERVE_WAITING] = "waiting",
        [OBSERVE_CONNECTED] = "connected",
        [OBSERVE_UNKNOWN] = "unknown",
        [OBSERVE_GONE] = "gone",
};
static_assert(ELEMENTSOF(observation_names) == OBSERVE_GONE + 1, "every observation has a name");

const char *observation_to_string(Observation observation) {
        assert((size_t) observation < ELEMENTSOF(observation_names));

        return observation_names[observation];
}

static void number_dir_done(NumberDir *dir) {
        dir->fd = safe_close(dir->fd);
}

static int number_dir_open(NumberDir *dir, const char *path) {
        dir->position = dir->size = 0;
        dir->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        return dir->fd < 0 ? -errno : 0;
}

/* 1 and the next number, 0 at the end, or negative errno. */
static int number_dir_next(NumberDir *dir, int *ret) {
        for (;;) {
                const struct dirent64 *entry;

                if (dir->position >= dir->size) {
                        ssize_t n = getdents64(dir->fd, dir->buffer, sizeof(dir->buffer));

                        if (n <= 0)
                                return n < 0 ? -errno : 0;
                        dir->position = 0;
                        dir->size = (size_t) n;
                }

                entry = (const struct dirent64 *) (const void *) (dir->buffer + dir->position);
                dir->position += entry->d_reclen;
                if (entry->d_name[0] >= '0' && entry->d_name[0] <= '9') {
                        *ret = (int) strtol(entry->d_name, NULL, 10);
                        return 1;
                }
        }
}

/* Reads the beginning of a file of /proc as a string; size must be enough for what the caller wants to
 * know. */
static int read_file(const char *path, char *buffer, size_t size) {
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n;

        if (fd < 0)
                return -errno;
        n = read(fd, buffer, size - 1);
        if (n < 0)
                return -errno;
        buffer[n] = '\0';
        return 0;
}

static int fd_is_listener(const Look *look, const Thread *thread, int fd) {
        char path[80], link[sizeof(look->link)];
        ssize_t n;

        (void) snprintf(path, sizeof(path), "/proc/%d/task/%d/fd/%d", thread->pid, thread->tid, fd);
        n = readlink(path, link, sizeof(link));
        if (n < 0)
                return -errno;
        return (size_t) n == look->link_length && memcmp(link, look->link, look->link_length) == 0;
}

static int waits_in_accept(const Look *look, const Thread *thread) {
        return fd_is_listener(look, thread, (int) thread->arguments[0]);
}

/* "tfd: 5 events: 19 data: 5 pos:0 ino:5ca sdev:8", see proc(5). A one-shot registration that has fired
 * has no EPOLLIN left. */
static bool epoll_line_names_listener(const Look *look, const char *line) {
        const char *events, *inode;

        if (!startswith(line, "tfd:"))
                return false;
        events = strstr(line, " events:");
        inode = strstr(line, " ino:");
        return events && inode &&
                (strtoull(events + strlen(" events:"), NULL, 16) & (POLLIN | POLLRDNORM)) != 0 &&
                strtoull(inode + strlen(" ino:"), NULL, 16) == look->inode;
}

/* Looks at all complete lines; returns how many bytes they were, or -1 if one of them names the
 * listener. */
static ssize_t epoll_lines_consume(const Look *look, char *lines) {
        char *line = lines;

        for (char *end = strchr(line, '\n'); end; line = end + 1, end = strchr(line, '\n')) {
                *end = '\0';
                if (epoll_line_names_listener(look, line))
                        return -1;
        }
        return line - lines;
}

static int waits_in_epoll(const Look *look, const Thread *thread) {
        char path[80], buffer[4096];
        size_t used = 0;
        _cleanup_close_ int fd = -EBADF;

        (void) snprintf(path, sizeof(path), "/proc/%d/task/%d/fdinfo/%d", thread->pid, thread->tid,
                        (int) thread->arguments[0]);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;

        for (unsigned i = 0; i < EPOLL_READS_MAX; i++) {
                ssize_t n = read(fd, buffer + used, sizeof(buffer) - 1 - used);

                if (n <= 0)
                        return n < 0 ? -errno : 0;
                used += (size_t) n;
                buffer[used] = '\0';

                n = epoll_lines_consume(look, buffer);
                if (n < 0)
                        return 1;
                used -= (size_t) n;
                memmove(buffer, buffer + n, used);
        }
        return -E2BIG;
}

/* Reads up to size bytes of the thread's memory; returns how many there were, or negative errno. */
static ssize_t read_memory(const Thread *thread, uint64_t address, void *buffer, size_t size) {
        struct iovec local = { .iov_base = buffer, .iov_len = size };
        struct iovec remote = { .iov_base = (void *) (uintptr_t) address, .iov_len = size };
        ssize_t n = process_vm_readv(thread->tid, &local, 1, &remote, 1, 0);

        return n < 0 ? -errno : n;
}

static int waits_in_poll(const Look *look, const Thread *thread) {
        struct pollfd fds[POLL_MAX];
        ssize_t n = read_memory(thread, thread->arguments[0], fds,
                                MIN_OF(thread->arguments[1], (uint64_t) POLL_MAX) * sizeof(struct pollfd));

        if (n < 0)
                return (int) n;
        for (size_t i = 0; i < (size_t) n / sizeof(struct pollfd); i++) {
                if (fds[i].fd < 0 || !(fds[i].events & (POLLIN | POLLRDNORM)))
                        continue;
                if (fd_is_listener(look, thread, fds[i].fd) > 0)
                        return 1;
        }
        return 0;
}

static int waits_in_restarted_poll(const Look *look, const Thread *thread) {
        uint64_t n_fds = thread->arguments[1];
        uint64_t futex_operation = n_fds & ~UINT64_C(0x180);

        /* FUTEX_WAIT and FUTEX_WAIT_BITSET, with FUTEX_PRIVATE_FLAG and FUTEX_CLOCK_REALTIME or without;
         * nanosleep() has a pointer or 0 here. */
        if (n_fds > POLL_MAX || futex_operation == 0 || futex_operation == 9)
                return 0;
        return waits_in_poll(look, thread);
}

static int waits_in_select(const Look *look, const Thread *thread) {
        const int bits = 8 * sizeof(unsigned long);
        unsigned long set[POLL_MAX / (8 * sizeof(unsigned long))];
        int n_fds = (int) thread->arguments[0];
        ssize_t n;

        if (n_fds <= 0 || thread->arguments[1] == 0)
                return 0;
        n_fds = MIN_OF(n_fds, POLL_MAX);
        n = read_memory(thread, thread->arguments[1], set,
                        (size_t) ((n_fds + bits - 1) / bits) * sizeof(set[0]));
        if (n < 0)
                return (int) n;
        n_fds = MIN_OF(n_fds, 8 * (int) n);

        for (int fd = 0; fd < n_fds; fd++)
                if ((set[fd / bits] >> (fd % bits) & 1) && fd_is_listener(look, thread, fd) > 0)
                        return 1;
        return 0;
}

/* Not every architecture has every call: the newer ones have none without "p". __NR_select is something
 * else where there is __NR__newselect. */
static const struct {
        long number;
        int (*waits)(const Look *look, const Thread *thread);
} waiting_calls[] = {
#ifdef __NR_accept
        { __NR_accept, waits_in_accept },
#endif
#ifdef __NR_accept4
        { __NR_accept4, waits_in_accept },
#endif
#ifdef __NR_epoll_wait
        { __NR_epoll_wait, waits_in_epoll },
#endif
        { __NR_epoll_pwait, waits_in_epoll },
#ifdef __NR_epoll_pwait2
        { __NR_epoll_pwait2, waits_in_epoll },
#endif
#ifdef __NR_poll
        { __NR_poll, waits_in_poll },
        { __NR_restart_syscall, waits_in_restarted_poll },
#endif
#ifdef __NR_ppoll
        { __NR_ppoll, waits_in_poll },
#endif
#ifdef __NR_ppoll_time64
        { __NR_ppoll_time64, waits_in_poll },
#endif
#if defined(__NR__newselect)
        { __NR__newselect, waits_in_select },
#elif defined(__NR_select)
        { __NR_select, waits_in_select },
#endif
#ifdef __NR_pselect6
        { __NR_pselect6, waits_in_select },
#endif
#ifdef __NR_pselect6_time64
        { __NR_pselect6_time64, waits_in_select },
#endif
};

/* Fills in the arguments and the number of the call a thread is asleep in; -1 is no call, which is also
 * what a thread that runs ("running") or is dead ("-1 0x0 0x0") gets. */
static int thread_read_call(Thread *thread, long *ret_number) {
        char path[64], line[256], *p;
        long number;
        int r;

        (void) snprintf(path, sizeof(path), "/proc/%d/task/%d/syscall", thread->pid, thread->tid);
        r = read_file(path, line, sizeof(line));
        if (r < 0)
                return r;

        number = strtol(line, &p, 10);
        if (p == line)
                number = -1;
        for (size_t i = 0; i < ELEMENTSOF(thread->arguments); i++)
                thread->arguments[i] = strtoull(p, &p, 16);
        *ret_number = number;
        return 0;
}

/* 1 if it is asleep waiting for the listener, 0 if not, or negative errno; -ENOENT and -ESRCH: no such
 * thread. */
static int thread_waits(const Look *look, pid_t pid, pid_t tid) {
        Thread thread = { .pid = pid, .tid = tid };
        long number = -1;
        int r = thread_read_call(&thread, &number);

        if (r < 0)
                return r;
        for (size_t i = 0; number >= 0 && i < ELEMENTSOF(waiting_calls); i++) {
                if (waiting_calls[i].number != number)
                        continue;
                r = waiting_calls[i].waits(look, &thread);
                /* Woken up since, and the descriptor, the memory or the thread is not what it was. */
                return r == -ENOENT || r == -ESRCH || r == -EFAULT ? 0 : r;
        }
        return 0;
}

static int process_waits(const Look *look, pid_t pid) {
        _cleanup_(number_dir_done) NumberDir dir = { .fd = -EBADF };
        char path[32];
        int r, tid;

        r = thread_waits(look, pid, pid);
        if (r != 0)
                return r;
        (void) snprintf(path, sizeof(path), "/proc/%d/task", pid);
        r = number_dir_open(&dir, path);

        for (unsigned n = 0; r >= 0; n++) {
                r = number_dir_next(&dir, &tid);
                if (r <= 0)
                        return r;
                if (n >= THREADS_MAX)
                        return -E2BIG;
                if (tid == pid)
                        continue;
                r = thread_waits(look, pid, tid);
                if (r > 0)
                        return r;
                if (r == -ENOENT || r == -ESRCH)
                        r = 0;
        }
        return r;
}

static void thread_add_children(pid_t pid, pid_t tid, Process *processes, size_t *n_processes) {
        char path[64], list[1024], *p = list, *end;

        (void) snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, tid);
        if (read_file(path, list, sizeof(list)) < 0)
                return;
        while (*n_processes < PROCESSES_MAX) {
                long child = strtol(p, &end, 10);

                /* Each number is followed by a space; without it the list was cut in the middle of one. */
                if (end == p || *end != ' ')
                        return;
                processes[(*n_processes)++] = (Process) { .pid = (pid_t) child };
                p = end;
        }
}

/* Appends the children of all threads. They are best effort: a kernel without CONFIG_PROC_CHILDREN does
 * not tell. */
static void process_add_children(pid_t pid, Process *processes, size_t *n_processes) {
        _cleanup_(number_dir_done) NumberDir dir = { .fd = -EBADF };
        char path[32];
        int tid;

        (void) snprintf(path, sizeof(path), "/proc/%d/task", pid);
        if (number_dir_open(&dir, path) < 0)
                return;
        for (unsigned n = 0; n < THREADS_MAX && *n_processes < PROCESSES_MAX; n++) {
                if (number_dir_next(&dir, &tid) <= 0)
                        return;
                thread_add_children(pid, tid, processes, n_processes);
        }
}

static int socket_address(int fd, SocketAddress *ret) {
        SocketAddress address = { .size = sizeof(address.storage) };

        if (getsockname(fd, &address.any, &address.size) < 0)
                return -errno;
        *ret = address;
        return 0;
}

/* IPv4 as the IPv6 that stands for it, so that a dual-stack listener's connections compare whatever
 * their family is. */
static bool address_get_inet(const SocketAddress *address, struct in6_addr *ret_host, in_port_t *ret_port) {
        if (address->any.sa_family == AF_INET6) {
                *ret_host = address->in6.sin6_addr;
                *ret_port = address->in6.sin6_port;
                return true;
        }
        if (address->any.sa_family == AF_INET) {
                *ret_host = (struct in6_addr) { .s6_addr = { [10] = 0xff, [11] = 0xff } };
                memcpy(ret_host->s6_addr + 12, &address->in.sin_addr, sizeof(address->in.sin_addr));
                *ret_port = address->in.sin_port;
                return true;
        }
        return false;
}

static bool address_is_from_listener(const SocketAddress *listener, const SocketAddress *connection) {
        static const struct in6_addr any4 = { .s6_addr = { [10] = 0xff, [11] = 0xff } };
        struct in6_addr listener_host, host;
        in_port_t listener_port, port;

        if (listener->any.sa_family == AF_UNIX)
                return connection->size == listener->size &&
                        memcmp(&connection->storage, &listener->storage, listener->size) == 0;
        if (!address_get_inet(listener, &listener_host, &listener_port) ||
            !address_get_inet(connection, &host, &port) || port != listener_port)
                return false;
        if (IN6_IS_ADDR_UNSPECIFIED(&listener_host))
                return true;
        if (IN6_ARE_ADDR_EQUAL(&listener_host, &any4))
                return IN6_IS_ADDR_V4MAPPED(&host);
        return IN6_ARE_ADDR_EQUAL(&listener_host, &host);
}

static int socket_has_option(int fd, int option, int value) {
        int actual;
        socklen_t size = sizeof(actual);

        if (getsockopt(fd, SOL_SOCKET, option, &actual, &size) < 0)
                return -errno;
        return actual == value;
}

static int fd_is_connection(const Look *look, int pidfd, int fd) {
        _cleanup_close_ int copy = (int) syscall(SYS_pidfd_getfd, pidfd, fd, 0);
        SocketAddress address;
        int r;

        if (copy < 0)
                return errno == EBADF ? 0 : -errno; /* EBADF: closed since it was listed */
        r = socket_address(copy, &address);
        if (r < 0)
                return r;
        if (!address_is_from_listener(&look->address, &address))
                return 0;
        r = socket_has_option(copy, SO_TYPE, SOCK_STREAM);
        if (r <= 0)
                return r;
        return socket_has_option(copy, SO_ACCEPTCONN, 0);
}

/* 1 if one of its descriptors is a connection, 0 if none is, or negative errno if that cannot be told. */
static int process_is_connected(const Look *look, pid_t pid, int pidfd) {
        _cleanup_(number_dir_done) NumberDir dir = { .fd = -EBADF };
        char path[32], link[sizeof(look->link)];
        int r, fd, error = 0;

        (void) snprintf(path, sizeof(path), "/proc/%d/fd", pid);
        r = number_dir_open(&dir, path);
        if (r < 0)
                return r;

        for (unsigned n = 0; n < DESCRIPTORS_MAX; n++) {
                ssize_t length;

                r = number_dir_next(&dir, &fd);
                if (r <= 0)
                        return r < 0 ? r : error;

                (void) snprintf(path, sizeof(path), "%d", fd);
                length = readlinkat(dir.fd, path, link, sizeof(link) - 1);
                if (length < 0) {
                        if (errno != ENOENT)
                                error = -errno;
                        continue;
                }
                link[length] = '\0';
                if (!startswith(link, "socket:[") || streq(link, look->link))
                        continue;
                r = fd_is_connection(look, pidfd, fd);
                if (r > 0)
                        return r;
                if (r < 0)
                        error = r;
        }
        return -E2BIG;
}

/* Says everything about a process but whether it waits. A pidfd is readable once the last thread has
 * exited, which also tells a zombie from a process that is merely hidden from us. */
static Observation process_observe_connections(const Look *look, Process *process) {
        _cleanup_close_ int pidfd = (int) syscall(SYS_pidfd_open, process->pid, 0);
        struct pollfd exited = { .fd = pidfd, .events = POLLIN };
        int r;

        if (pidfd < 0) {
                if (errno == ESRCH)
                        return OBSERVE_GONE;
                if (process->error == 0)
                        process->error = -errno;
                return OBSERVE_UNKNOWN;
        }
        r = process_is_connected(look, process->pid, pidfd);
        if (r > 0)
                return OBSERVE_CONNECTED;
        if (poll(&exited, 1, 0) > 0)
                return OBSERVE_GONE;
        if (process->error == 0)
                process->error = r;
        return process->error < 0 ? OBSERVE_UNKNOWN : OBSERVE_NOT_WAITING;
}

/* Nobody waits. The worker itself decides whether it is gone; a descendant that is gone means nothing. */
static Observation tree_observe_connections(const Look *look, Process *processes, size_t n_processes,
                                            int *ret_error) {
        Observation result = OBSERVE_NOT_WAITING;

        for (size_t i = 0; i < n_processes; i++) {
                Observation observation = process_observe_connections(look, processes + i);

                if (observation == OBSERVE_CONNECTED)
                        return observation;
                if (observation == OBSERVE_GONE && i > 0)
                        continue;
                if (observation != OBSERVE_NOT_WAITING && result == OBSERVE_NOT_WAITING) {
                        result = observation;
                        *ret_error = processes[i].error;
                }
        }
        return result;
}

Observation observe_worker(pid_t pid, int listener_fd, uint64_t listener_inode, int *ret_error) {
        Look look = { .inode = listener_inode };
        Process processes[PROCESSES_MAX] = { { .pid = pid } };
        size_t n_processes = 1;
        Observation observation;
        int r, error = 0;

        assert(pid > 0);
        assert(listener_fd >= 0);

        look.link_length = (size_t) snprintf(look.link, sizeof(look.link), "socket:[%llu]",
                                             (unsigned long long) listener_inode);
        for (size_t i = 0; i < n_processes; i++) {
                r = process_waits(&look, processes[i].pid);
                if (r > 0)
                        return OBSERVE_WAITING;
                processes[i].error = r;
                process_add_children(processes[i].pid, processes, &n_processes);
        }

        r = socket_address(listener_fd, &look.address);
        if (r < 0) {
                observation = OBSERVE_UNKNOWN;
                error = r;
        } else
                observation = tree_observe_connections(&look, processes, n_processes, &error);
        if (observation == OBSERVE_UNKNOWN && ret_error)
                *ret_error = error;
        return observation;
}
