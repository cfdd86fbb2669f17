/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A worker says nothing about itself, so we look where the kernel shows it: what each thread waits for
 * (waits.c), and what the process owns.
 *
 * Waiting alone is not enough: a worker started into a queue that is never empty never sleeps in accept.
 * It does own a socket whose local address is the listener's, which only accept(2) gives: connect(2)
 * skips ports bound by others and names no AF_UNIX client. Such a socket is asked through
 * pidfd_getfd(2); /proc/net and sock_diag(7) take up to milliseconds and are blind in another network
 * namespace. The duplicate lives for microseconds. A sandbox must forbid pidfd_getfd(2) with an error,
 * not with a signal. Connections that io_uring has accepted into its own table are not seen.
 *
 * Order is cost: for a single-threaded worker in accept observe_worker() takes one read and one readlink,
 * nothing is allocated, and connections are looked at only when no thread of the whole tree waits.
 *
 * Order is truth in observe_view(): what the counters say must be older than the look they go with. Else a
 * worker that has read a request in between, and has not come back from read(2) yet, looks as if nothing
 * had happened, now and once it is stopped. Everything has a bound. */

#include "observe.h"

#include <fcntl.h>
#include <linux/tcp.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "proc.h"
#include "waits.h"

#define THREADS_MAX 4096
#define DESCRIPTORS_MAX 16384

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
        SocketName listener;
        SocketAddress address;        /* filled in when connections are looked at */
} Look;

/* Iterates over the threads of a process, the main one first: most workers have no other one, and then who
 * has seen enough does not open the directory. */
typedef struct ThreadDir {
        pid_t pid;
        unsigned n;
        NumberDir numbers;
} ThreadDir;

/* Iterates over the descriptors of a process that are sockets, but for the listener. */
typedef struct SocketDir {
        const SocketName *listener;
        unsigned n;                   /* descriptors of any kind */
        NumberDir numbers;
} SocketDir;

/* What the threads of one process do. */
typedef struct Activity {
        unsigned n_threads;
        bool waits;
        bool accepts;
        size_t n_readers;
        int readers[OBSERVE_CONNECTIONS_MAX]; /* descriptors that a thread waits for alone */
} Activity;

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

static void thread_dir_done(ThreadDir *dir) {
        number_dir_done(&dir->numbers);
}

/* 1 and the next thread, 0 at the end, or negative errno. */
static int thread_dir_next(ThreadDir *dir, pid_t *ret) {
        char path[32];
        int r, tid;

        if (dir->n++ == 0) {
                *ret = dir->pid;
                return 1;
        }
        if (dir->n == 2) {
                (void) snprintf(path, sizeof(path), "/proc/%d/task", dir->pid);
                r = number_dir_open(&dir->numbers, path);
                if (r < 0)
                        return r;
        }
        do {
                r = number_dir_next(&dir->numbers, &tid);
                if (r <= 0)
                        return r;
        } while (tid == dir->pid);
        if (dir->n > THREADS_MAX)
                return -E2BIG;
        *ret = tid;
        return 1;
}

/* Threads come and go, but the main one is there as long as the process is, if only as a zombie. */
static bool thread_has_ended(pid_t pid, pid_t tid, int error) {
        return tid != pid && (error == -ENOENT || error == -ESRCH);
}

static int process_waits(const Look *look, pid_t pid) {
        _cleanup_(thread_dir_done) ThreadDir threads = { .pid = pid, .numbers.fd = -EBADF };
        Wait wait;
        pid_t tid;
        int r;

        while ((r = thread_dir_next(&threads, &tid)) > 0) {
                r = wait_read(pid, tid, &wait);
                if (r >= 0)
                        r = wait_is_for_listener(&wait, &look->listener);
                if (r > 0 || (r < 0 && !thread_has_ended(pid, tid, r)))
                        return r;
        }
        return r;
}

/* Appends the children of a thread. -E2BIG: there are more. -ENOENT is also what a kernel without
 * CONFIG_PROC_CHILDREN says. */
static int thread_add_children(pid_t pid, pid_t tid, pid_t *processes, size_t *n_processes) {
        char path[64], list[1024], *p = list, *end;
        int r;

        (void) snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, tid);
        r = proc_read_file(path, list, sizeof(list));
        if (r < 0)
                return r;
        for (;;) {
                long child = strtol(p, &end, 10);

                if (end == p)
                        return 0;
                /* Each number is followed by a space; without it the list was cut in the middle of one,
                 * far behind the bound. */
                if (*end != ' ' || *n_processes >= OBSERVE_PROCESSES_MAX)
                        return -E2BIG;
                processes[(*n_processes)++] = (pid_t) child;
                p = end;
        }
}

/* Appends the children of all threads, best effort. */
static void process_add_children(pid_t pid, pid_t *processes, size_t *n_processes) {
        _cleanup_(thread_dir_done) ThreadDir threads = { .pid = pid, .numbers.fd = -EBADF };
        pid_t tid;

        while (*n_processes < OBSERVE_PROCESSES_MAX && thread_dir_next(&threads, &tid) > 0)
                (void) thread_add_children(pid, tid, processes, n_processes);
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
        int actual, r;

        r = socket_get_int(fd, option, &actual);
        return r < 0 ? r : actual == value;
}

static void socket_dir_done(SocketDir *dir) {
        number_dir_done(&dir->numbers);
}

static int socket_dir_open(SocketDir *dir, pid_t pid) {
        char path[32];

        (void) snprintf(path, sizeof(path), "/proc/%d/fd", pid);
        return number_dir_open(&dir->numbers, path);
}

/* 1 with the next descriptor and the inode of its socket, 0 at the end, or negative errno. */
static int socket_dir_next(SocketDir *dir, int *ret_fd, uint64_t *ret_inode) {
        char path[16], link[sizeof(dir->listener->link)];
        const char *number;
        ssize_t length;
        int r, fd;

        for (;;) {
                r = number_dir_next(&dir->numbers, &fd);
                if (r <= 0)
                        return r;
                if (dir->n++ >= DESCRIPTORS_MAX)
                        return -E2BIG;

                (void) snprintf(path, sizeof(path), "%d", fd);
                length = readlinkat(dir->numbers.fd, path, link, sizeof(link) - 1);
                if (length < 0) {
                        if (errno == ENOENT)
                                continue;
                        return -errno;
                }
                link[length] = '\0';
                number = startswith(link, "socket:[");
                if (!number || streq(link, dir->listener->link))
                        continue;
                *ret_fd = fd;
                *ret_inode = strtoull(number, NULL, 10);
                return 1;
        }
}

/* 1 and a duplicate of the descriptor, which the caller owns, if it is a connection accepted from the
 * listener; 0 if it is not, or has been closed since; or negative errno. */
static int connection_dup(const Look *look, int pidfd, int fd, int *ret_copy) {
        _cleanup_close_ int copy = (int) syscall(SYS_pidfd_getfd, pidfd, fd, 0);
        SocketAddress address;
        int r;

        if (copy < 0)
                return errno == EBADF ? 0 : -errno;
        r = socket_address(copy, &address);
        if (r < 0)
                return r;
        if (!address_is_from_listener(&look->address, &address))
                return 0;
        r = socket_has_option(copy, SO_TYPE, SOCK_STREAM);
        if (r <= 0)
                return r;
        r = socket_has_option(copy, SO_ACCEPTCONN, 0);
        if (r > 0)
                *ret_copy = TAKE_FD(copy);
        return r;
}

/* 1 if one of its descriptors is a connection, 0 if none is, or negative errno if that cannot be told. */
static int process_is_connected(const Look *look, pid_t pid, int pidfd) {
        _cleanup_(socket_dir_done) SocketDir sockets = { .listener = &look->listener, .numbers.fd = -EBADF };
        uint64_t inode;
        int r, fd, error = 0;

        r = socket_dir_open(&sockets, pid);
        if (r < 0)
                return r;
        while ((r = socket_dir_next(&sockets, &fd, &inode)) > 0) {
                _cleanup_close_ int copy = -EBADF;

                r = connection_dup(look, pidfd, fd, &copy);
                if (r > 0)
                        return r;
                if (r < 0)
                        error = r;
        }
        return r < 0 ? r : error;
}

/* A pidfd is readable once the last thread has exited, which also tells a zombie from a process that is
 * merely hidden from us. */
static bool pidfd_has_exited(int pidfd) {
        struct pollfd exited = { .fd = pidfd, .events = POLLIN };

        return poll(&exited, 1, 0) > 0;
}

/* Says everything about a process but whether it waits. *error is why its threads could not be looked at,
 * or 0. */
static Observation process_observe_connections(const Look *look, pid_t pid, int *error) {
        _cleanup_close_ int pidfd = (int) syscall(SYS_pidfd_open, pid, 0);
        int r;

        if (pidfd < 0) {
                if (errno == ESRCH)
                        return OBSERVE_GONE;
                if (*error == 0)
                        *error = -errno;
                return OBSERVE_UNKNOWN;
        }
        r = process_is_connected(look, pid, pidfd);
        if (r > 0)
                return OBSERVE_CONNECTED;
        if (pidfd_has_exited(pidfd))
                return OBSERVE_GONE;
        if (*error == 0)
                *error = r;
        return *error < 0 ? OBSERVE_UNKNOWN : OBSERVE_NOT_WAITING;
}

/* Nobody waits. The worker itself decides whether it is gone; a descendant that is gone means nothing. */
static Observation tree_observe_connections(const Look *look, const pid_t *processes, int *errors,
                                            size_t n_processes, int *ret_error) {
        Observation result = OBSERVE_NOT_WAITING;

        for (size_t i = 0; i < n_processes; i++) {
                Observation observation = process_observe_connections(look, processes[i], errors + i);

                if (observation == OBSERVE_CONNECTED)
                        return observation;
                if (observation == OBSERVE_GONE && i > 0)
                        continue;
                if (observation != OBSERVE_NOT_WAITING && result == OBSERVE_NOT_WAITING) {
                        result = observation;
                        *ret_error = errors[i];
                }
        }
        return result;
}

Observation observe_worker(pid_t pid, int listener_fd, uint64_t listener_inode, int *ret_error) {
        Look look = { .listener = socket_name(listener_inode) };
        pid_t processes[OBSERVE_PROCESSES_MAX] = { pid };
        int errors[OBSERVE_PROCESSES_MAX];
        size_t n_processes = 1;
        Observation observation;
        int r, error = 0;

        assert(pid > 0);
        assert(listener_fd >= 0);

        for (size_t i = 0; i < n_processes; i++) {
                errors[i] = process_waits(&look, processes[i]);
                if (errors[i] > 0)
                        return OBSERVE_WAITING;
                process_add_children(processes[i], processes, &n_processes);
        }

        r = socket_address(listener_fd, &look.address);
        if (r < 0) {
                observation = OBSERVE_UNKNOWN;
                error = r;
        } else
                observation = tree_observe_connections(&look, processes, errors, n_processes, &error);
        if (observation == OBSERVE_UNKNOWN && ret_error)
                *ret_error = error;
        return observation;
}

/* Something was not looked at, and what it is doing cannot be told. */
static void view_set_incomplete(View *view, int error) {
        view->complete = false;
        if (view->error == 0)
                view->error = error;
}

/* A sum does not depend on the order. The inodes themselves would make the same sum of other sockets, so
 * their bits are spread first (the finalizer of splitmix64). */
static void view_add_unknown_socket(View *view, uint64_t inode, int error) {
        inode = (inode ^ (inode >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        inode = (inode ^ (inode >> 27)) * UINT64_C(0x94d049bb133111eb);
        view->unknown_sockets += inode ^ (inode >> 31);
        if (view->error == 0)
                view->error = error;
}

/* The same socket may come by again, as a duplicate or in a child, and there somebody may wait for it. */
static void view_add_connection(View *view, uint64_t inode, bool kept, bool answered) {
        size_t n_listed = MIN_OF(view->n_connections, (size_t) OBSERVE_CONNECTIONS_MAX);

        for (size_t i = 0; i < n_listed; i++)
                if (view->connections[i].inode == inode) {
                        view->n_kept += kept && !view->connections[i].kept;
                        view->n_answered += kept && answered && !view->connections[i].kept;
                        view->connections[i].kept |= kept;
                        return;
                }
        if (n_listed < OBSERVE_CONNECTIONS_MAX)
                view->connections[n_listed] = (ObservedConnection) { inode, kept, answered };
        view->n_connections++;
        view->n_kept += kept;
        view->n_answered += kept && answered;
}

static void view_forget_kept(View *view) {
        view->n_kept = view->n_answered = 0;
        for (size_t i = 0; i < ELEMENTSOF(view->connections); i++)
                view->connections[i].kept = false;
}

static int view_look_at_thread(const Look *look, pid_t pid, pid_t tid, Activity *activity) {
        Wait wait;
        int r, fd;

        r = wait_read(pid, tid, &wait);
        if (r < 0)
                return r;
        activity->n_threads++;
        r = wait_is_for_listener(&wait, &look->listener);
        if (r < 0)
                return r;
        if (r > 0) {
                activity->waits = true;
                activity->accepts |= wait_is_accept(&wait);
        }
        r = wait_get_reader(&wait, &fd);
        if (r > 0 && activity->n_readers < ELEMENTSOF(activity->readers))
                activity->readers[activity->n_readers++] = fd;
        return r;
}

/* One that cannot be looked at does not keep us from the others. */
static int view_look_at_threads(View *view, const Look *look, pid_t pid, Activity *activity) {
        _cleanup_(thread_dir_done) ThreadDir threads = { .pid = pid, .numbers.fd = -EBADF };
        int r, error = 0;
        pid_t tid;

        while ((r = thread_dir_next(&threads, &tid)) > 0) {
                int q = thread_add_children(pid, tid, view->processes, &view->n_processes);

                r = view_look_at_thread(look, pid, tid, activity);
                if (r >= 0)
                        r = q;
                if (r < 0 && !thread_has_ended(pid, tid, r) && error == 0)
                        error = r;
        }
        return r < 0 ? r : error;
}

static bool nothing_is_unread(int fd) {
        int n;

        return ioctl(fd, SIOCINQ, &n) >= 0 && n == 0;
}

static bool activity_has_reader(const Activity *activity, int fd) {
        for (size_t i = 0; i < activity->n_readers; i++)
                if (activity->readers[i] == fd)
                        return true;
        return false;
}

/* TCP remembers how long ago something was sent and received last, to a tick of some milliseconds: 1 if the
 * worker had the last word, 0 if the client had it or the worker never spoke, -1 if that cannot be told, as
 * of AF_UNIX. In the same tick it was an answer: a client that sends more at once does not stop there. */
static int had_last_word(int fd) {
        struct tcp_info info = {};
        socklen_t size = sizeof(info);

        if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) < 0)
                return -1;
        if (info.tcpi_data_segs_out == 0)
                return 0;
        return info.tcpi_last_data_sent <= info.tcpi_last_data_recv;
}

static void view_look_at_connection(View *view, uint64_t inode, int copy, bool has_reader) {
        int word = nothing_is_unread(copy) ? had_last_word(copy) : 0;

        view_add_connection(view, inode, has_reader && word != 0, word > 0);
}

/* Descriptors are those of the main thread. Once it has ended it has none, whatever the others have. */
static int view_look_at_sockets(View *view, const Look *look, pid_t pid, int pidfd,
                                const Activity *activity) {
        _cleanup_(socket_dir_done) SocketDir sockets = { .listener = &look->listener, .numbers.fd = -EBADF };
        uint64_t inode;
        int r, fd;

        r = socket_dir_open(&sockets, pid);
        if (r < 0)
                return r;
        while ((r = socket_dir_next(&sockets, &fd, &inode)) > 0) {
                _cleanup_close_ int copy = -EBADF;

                r = connection_dup(look, pidfd, fd, &copy);
                if (r > 0)
                        view_look_at_connection(view, inode, copy, activity_has_reader(activity, fd));
                if (r < 0)
                        view_add_unknown_socket(view, inode, r);
        }
        if (r == 0 && sockets.n == 0)
                return -ENODATA;
        return r;
}

/* A connection accepted between the looks at the thread and at the sockets is among these, as if it had been
 * there before. So somebody who accepts counts only if it still does. */
static bool still_accepts(const Look *look, pid_t pid) {
        Activity activity = {};

        return view_look_at_thread(look, pid, pid, &activity) >= 0 && activity.accepts;
}

/* Returns whether the process is there. */
static bool view_look_at_process(View *view, const Look *look, size_t i) {
        _cleanup_close_ int pidfd = (int) syscall(SYS_pidfd_open, view->processes[i], 0);
        Activity activity = {};
        int r, q;

        if (pidfd < 0) {
                if (errno == ESRCH)
                        return false;
                view_set_incomplete(view, -errno);
                return true;
        }
        r = view_look_at_threads(view, look, view->processes[i], &activity);
        q = view_look_at_sockets(view, look, view->processes[i], pidfd, &activity);
        if (pidfd_has_exited(pidfd))
                return false;

        if (r < 0 || q < 0)
                view_set_incomplete(view, r < 0 ? r : q);
        view->waiting |= activity.waits;
        view->accepting = activity.accepts && activity.n_threads == 1 &&
                (view->error == 0 || still_accepts(look, view->processes[i]));
        return true;
}

static void view_look_at_tree(View *view, const Look *look, pid_t pid) {
        *view = (View) { .n_processes = 1, .processes = { pid }, .complete = true };

        for (size_t i = 0; i < view->n_processes;) {
                if (view_look_at_process(view, look, i)) {
                        i++;
                        continue;
                }
                if (i == 0) {
                        *view = (View) { .gone = true };
                        return;
                }
                view->n_processes--;
                memmove(view->processes + i, view->processes + i + 1,
                        (view->n_processes - i) * sizeof(view->processes[0]));
        }
        view->accepting &= view->n_processes == 1 && view->complete;
}

/* "rchar: 1234\nwchar: 5678\n", the first two lines. */
static int process_add_chars(pid_t pid, Usage *sum) {
        unsigned long long read_chars, written_chars;
        char path[32], text[128];
        int r;

        (void) snprintf(path, sizeof(path), "/proc/%d/io", pid);
        r = proc_read_file(path, text, sizeof(text));
        if (r < 0)
                return r;
        if (sscanf(text, "rchar: %llu wchar: %llu", &read_chars, &written_chars) != 2)
                return -ENODATA;
        sum->read_chars += read_chars;
        sum->written_chars += written_chars;
        return 0;
}

/* Adds the time that all threads have run. Nobody has run for no time at all: that is a kernel that does not
 * count. */
static int process_add_run_nsec(pid_t pid, uint64_t *sum) {
        _cleanup_(thread_dir_done) ThreadDir threads = { .pid = pid, .numbers.fd = -EBADF };
        char path[64], text[64];
        pid_t tid;
        int r;

        while ((r = thread_dir_next(&threads, &tid)) > 0) {
                uint64_t run_nsec;

                (void) snprintf(path, sizeof(path), "/proc/%d/task/%d/schedstat", pid, tid);
                r = proc_read_file(path, text, sizeof(text));
                if (thread_has_ended(pid, tid, r))
                        continue;
                if (r < 0)
                        return r;
                run_nsec = strtoull(text, NULL, 10);
                if (run_nsec == 0)
                        return -ENODATA;
                *sum += run_nsec;
        }
        return r;
}

int observe_get_usage(const View *view, Usage *ret) {
        Usage sum = {};
        int r;

        assert(view);
        assert(ret);

        for (size_t i = 0; i < view->n_processes; i++) {
                r = process_add_run_nsec(view->processes[i], &sum.run_nsec);
                if (r >= 0)
                        r = process_add_chars(view->processes[i], &sum);
                if (r < 0)
                        return r;
        }
        *ret = sum;
        return 0;
}

static bool view_is_kept(const View *view) {
        return view->n_connections > 0 && view->n_kept == view->n_connections;
}

void observe_view(pid_t pid, int listener_fd, uint64_t listener_inode, View *ret) {
        Look look = { .listener = socket_name(listener_inode) };
        Usage usage;
        int r;

        assert(pid > 0);
        assert(listener_fd >= 0);
        assert(ret);

        r = socket_address(listener_fd, &look.address);
        if (r < 0) {
                *ret = (View) { .n_processes = 1, .processes = { pid }, .error = r };
                return;
        }
        view_look_at_tree(ret, &look, pid);
        if (!view_is_kept(ret))
                return;
        if (observe_get_usage(ret, &usage) < 0) {
                view_forget_kept(ret);
                return;
        }
        view_look_at_tree(ret, &look, pid);
        if (view_is_kept(ret)) {
                ret->run_nsec = usage.run_nsec;
                ret->read_chars = usage.read_chars;
        }
}

int observe_is_connected(const View *view, int listener_fd, uint64_t listener_inode) {
        Look look = { .listener = socket_name(listener_inode) };
        int errors[OBSERVE_PROCESSES_MAX] = {}, error = 0, r;

        assert(view);
        assert(listener_fd >= 0);

        r = socket_address(listener_fd, &look.address);
        if (r < 0)
                return r;
        return tree_observe_connections(&look, view->processes, errors, view->n_processes, &error) ==
                OBSERVE_CONNECTED ? 1 : error;
}

/* The state of a thread is behind its name, which may contain anything, ") T" as well. */
static int thread_get_state(pid_t pid, pid_t tid, char *ret) {
        char path[64], text[128];
        const char *p;
        int r;

        (void) snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, tid);
        r = proc_read_file(path, text, sizeof(text));
        if (r < 0)
                return r;
        p = strrchr(text, ')');
        if (!p || p[1] != ' ')
                return -EBADMSG;
        *ret = p[2];
        return 0;
}

int observe_is_stopped(pid_t pid) {
        _cleanup_(thread_dir_done) ThreadDir threads = { .pid = pid, .numbers.fd = -EBADF };
        bool alive = false;
        char state = '\0';
        pid_t tid;
        int r;

        assert(pid > 0);

        while ((r = thread_dir_next(&threads, &tid)) > 0) {
                r = thread_get_state(pid, tid, &state);
                if (thread_has_ended(pid, tid, r))
                        continue;
                if (r < 0)
                        break;
                /* The main thread may have ended before the others. */
                if (state == 'Z' || state == 'X')
                        continue;
                if (state != 'T')
                        return 0;
                alive = true;
        }
        if (r < 0)
                return r == -ENOENT ? -ESRCH : r;
        return alive ? 1 : -ESRCH;
}
