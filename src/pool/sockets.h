/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The descriptors that systemd passed (sd_listen_fds(3)), taken exactly once and verified one by one. */

#include "config.h"
#include "fd-util.h"
#include "problem.h"

typedef struct Listener {
        int fd;               /* owned, FD_CLOEXEC set */
        int family;           /* AF_INET, AF_INET6 or AF_UNIX */
        ino_t inode;          /* of the socket; the number in "socket:[...]" */
        uint64_t cookie;      /* SO_COOKIE (Linux 4.12): unique for as long as the system is up */
        bool nonblocking;     /* the wanted state of O_NONBLOCK */
        bool flip_reported;
        char *fd_name;        /* FileDescriptorName=; "unknown" if systemd passed none */
        char *address;        /* for people: "/run/a.sock", "127.0.0.1:9000", "[::1]:9000", "@abstract" */
} Listener;

/* A pidfd that PID 1 has kept, "worker-SLOT-GENERATION". */
typedef struct StoredWorker {
        unsigned slot;
        uint64_t generation;
        int pidfd;            /* owned; -EBADF once taken */
} StoredWorker;

/* Names of what we keep in the FD store. */
#define STORED_STATE "state"
#define STORED_LEASH "leash"
#define STORED_CONTROL "control"
#define STORED_RESTARTED "restarted" /* any FIFO; its being there says it */
#define STORED_WORKER_FORMAT "worker-%u-%" PRIu64
#define STORED_WORKER_SIZE sizeof("worker-4294967295-18446744073709551615")

typedef struct ListenSet {
        Listener *listeners;
        size_t n_listeners;
        int state_fd;         /* owned; -EBADF: none was stored */
        int leash_fd;         /* likewise */
        int control_fd;       /* likewise */
        StoredWorker *workers;
        size_t n_workers;
        bool restarted;       /* the helper before us was told to restart */
        bool reexecuted;      /* from an image of us that has replaced itself: the store is as it left it */
        char **strangers;     /* names of the descriptors that were closed; NULL-terminated, never NULL */
} ListenSet;

/* Takes the passed descriptors, from systemd or, after an execve() in place, from reexec_export(). Every
 * listening stream socket becomes a Listener, in the order passed; what is no socket is ours by its name
 * and kind, or a stranger and is closed. Unsets LISTEN_* in our environment. mode decides the wanted
 * O_NONBLOCK, which is applied at once. -ENOTCONN with *ret_problem: no listener was passed. -EPROTOTYPE:
 * a datagram or seqpacket socket was passed. -EISCONN: a stream socket that does not listen (Accept=yes,
 * connected). Other negative errno: could not be inspected. On failure everything passed stays open with
 * the socket unit and nothing is accepted from it. Does not log. */
int listen_set_take(ListenerMode mode, ListenSet **ret_set, Problem *ret_problem);
ListenSet *listen_set_free(ListenSet *set);
DEFINE_TRIVIAL_CLEANUP_FUNC(ListenSet *, listen_set_free);

/* Gives O_NONBLOCK the wanted value on the open file description, which all workers share. Returns 1 if
 * it had to be changed, so somebody flipped it; 0 if it was right; negative errno. */
int listener_enforce_mode(const Listener *listener);

/* 1 if O_NONBLOCK is not as wanted (changes nothing), 0 if it is, or negative errno. */
int listener_is_flipped(const Listener *listener);
