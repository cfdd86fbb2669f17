/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a worker is doing, seen from outside: /proc/PID/task/TID/syscall, fdinfo and pidfd_getfd(2). No
 * ptrace, no capability, same user. The rules and what they cost were measured per runtime; see the .c
 * file. */

#include "fd-util.h"

typedef enum Observation {
        OBSERVE_NOT_WAITING, /* looked, and it neither waits on the listener nor owns a connection from it */
        OBSERVE_WAITING,     /* a thread is blocked in accept, poll, select or epoll on the listener */
        OBSERVE_CONNECTED,   /* it owns a connection that was accepted from the listener */
        OBSERVE_UNKNOWN,     /* cannot be told: not dumpable, /proc hidden, a call the sandbox forbids */
        OBSERVE_GONE,        /* there is no such process any more */
} Observation;

/* Looks once at the process pid and its descendants (at most 64). listener_fd is our descriptor of the
 * listening socket, listener_inode its inode. The first of these that is true is the result:
 * OBSERVE_WAITING anywhere in the tree (also with connections open beside it), OBSERVE_CONNECTED
 * anywhere, OBSERVE_GONE (pid itself, zombies included), OBSERVE_UNKNOWN anywhere. If only
 * pidfd_getfd(2) is forbidden, a process that does not wait and has a socket other than the listener
 * makes the result OBSERVE_UNKNOWN, since a connection cannot be excluded. pid must be guarded against
 * reuse by the caller (a child not yet waited for, or a pidfd checked afterwards). *ret_error (may be
 * NULL) is the negative errno behind OBSERVE_UNKNOWN. Never fails, does not log. */
Observation observe_worker(pid_t pid, int listener_fd, uint64_t listener_inode, int *ret_error);

const char *observation_to_string(Observation observation);

#define OBSERVE_PROCESSES_MAX 64
#define OBSERVE_CONNECTIONS_MAX 32

/* A connection accepted from the listener. */
typedef struct ObservedConnection {
        uint64_t inode; /* of the socket: names the connection for as long as it lives */
        bool kept;      /* the worker waits for the client: nothing is unread, and a thread is asleep
                         * reading from it or polling it alone; over TCP the worker also had the last word */
        bool answered;  /* nothing is unread, and the worker is known to have had the last word (TCP only) */
} ObservedConnection;

/* All that can be told of a worker at one moment. */
typedef struct View {
        bool gone;      /* there is no such process any more; nothing else is filled in */
        bool waiting;   /* a thread is asleep waiting for the listener */
        bool accepting; /* ... in accept, and there is no other thread and no other process; with error,
                         * still so after the sockets were looked at */
        int error;      /* negative errno: connections beside the ones listed cannot be excluded; or 0 */
        uint64_t unknown_sockets; /* with error: a number that changes with the set of sockets that could
                                   * not be looked into */
        /* All of them, also those beyond OBSERVE_CONNECTIONS_MAX; n_answered: of those that are kept. */
        size_t n_connections, n_kept, n_answered;
        ObservedConnection connections[OBSERVE_CONNECTIONS_MAX];
        uint64_t run_nsec;   /* CPU time of all threads; 0 unless all connections are kept */
        uint64_t read_chars; /* bytes all processes have got by read(2); likewise */
        size_t n_processes;
        pid_t processes[OBSERVE_PROCESSES_MAX]; /* the worker, then its descendants, parents first */
        bool complete;       /* these are all of them, and all threads could be looked at */
} View;

/* Looks at everything once: the process pid and its descendants, all threads and all connections; at two
 * points if all connections are kept, since the counters must be older than what they go with. Arguments and
 * the guard against reuse of pid are those of observe_worker(). Sound for a worker that runs, as far as that
 * goes, and for one all of whose processes are stopped; pids of descendants are safe from reuse while their
 * parents are stopped.
 *
 * A stopped thread shows the call it was stopped in, which may have returned already. If that is accept,
 * there is a connection; poll, something is unread; read, read_chars has grown since the view before, which
 * the caller compares. recvfrom(2) and recvmsg(2) would leave no trace, so who sleeps there keeps no
 * connection, nor does epoll, where there may be anything beside. Kept, and not answered, does not mean
 * between two requests: the client may owe the rest of one.
 *
 * A connection found more than once, as a duplicate or in a child, counts once if it is among the listed
 * ones. If pidfd_getfd(2) is forbidden, error is set, no connection is found and unknown_sockets stands for
 * all sockets but the listener. If threads, children or descriptors of a process cannot be read, or a bound
 * was hit (processes, 4096 threads and 16384 descriptors of each), error is set and complete is false. What
 * has vanished while we looked, zombies included, is not in the view. If the counters cannot be read, no
 * connection counts as kept. Never fails, does not log. */
void observe_view(pid_t pid, int listener_fd, uint64_t listener_inode, View *ret);

/* A glance: whether one of the processes of a view now holds a connection accepted from the listener. 1 if
 * so, 0 if none was found, negative errno if that cannot be told. Does not log. */
int observe_is_connected(const View *view, int listener_fd, uint64_t listener_inode);

/* What the processes of a view have used. */
typedef struct Usage {
        uint64_t run_nsec;      /* CPU time of all threads that there are */
        uint64_t read_chars;    /* bytes got by read(2) and the like */
        uint64_t written_chars; /* bytes given to write(2) and the like */
} Usage;

/* Negative errno: one of the processes cannot be asked. Does not log. */
int observe_get_usage(const View *view, Usage *ret);

/* Whether SIGSTOP has arrived: 1 if all threads of the process are stopped by job control (state T), 0 if
 * not yet; -ESRCH: the process is gone, zombies included; or another negative errno. Does not log. */
int observe_is_stopped(pid_t pid);
