/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Every datagram to PID 1, sd_notify(3), through a queue: while PID 1 is busy (daemon-reload) its socket is
 * full, and we go on.
 *
 * Messages are delivered in the order they were given. A message that waits and has been overtaken by events
 * is never sent: a status or an extension of a timeout is replaced by the next one (not across READY=1 or
 * STOPPING=1), a stored descriptor that is to be removed again is not stored. Beyond that nothing is dropped
 * while PID 1 listens, up to 65536 waiting messages; what is lost nevertheless is counted, see
 * notify_take_lost().
 *
 * Without $NOTIFY_SOCKET all of these do nothing. None logs, none blocks but notify_flush(). status is
 * UTF-8; a line break in it becomes a space, and it is cut where PID 1 would refuse the message (some
 * 4000 bytes). */

#include "fd-util.h"

typedef struct sd_event sd_event;
typedef struct Notify Notify;

/* Connects to $NOTIFY_SOCKET (a path, or abstract with "@"); the variable stays set. Negative errno:
 * -EAFNOSUPPORT (an address that is neither), -ENAMETOOLONG, -ENOMEM, what socket(2), connect(2),
 * sd_event_add_io(3) and sd_event_add_time(3) fail with. */
int notify_new(sd_event *event, Notify **ret_notify);

/* Drops what has not been sent. Returns NULL. */
Notify *notify_free(Notify *notify);
DEFINE_TRIVIAL_CLEANUP_FUNC(Notify *, notify_free);

/* READY=1 with STATUS=. */
void notify_ready(Notify *notify, const char *status);

/* STATUS= alone. */
void notify_status(Notify *notify, const char *status);

/* STOPPING=1 with STATUS=, and at least timeout_usec more before PID 1 loses patience. */
void notify_stopping(Notify *notify, const char *status, uint64_t timeout_usec);

/* EXTEND_TIMEOUT_USEC=: at least timeout_usec more for the start or stop under way. USEC_INFINITY is
 * taken for a year, since PID 1 ignores infinity. */
void notify_extend_timeout(Notify *notify, uint64_t timeout_usec);

/* WATCHDOG=1. sd_event_set_watchdog(3) sends it with sd_notify(3), which blocks while PID 1's socket is
 * full; use a timer and this. */
void notify_watchdog(Notify *notify);

/* FDSTORE=1 with FDNAME=name and FDPOLL=0: PID 1 keeps a duplicate of fd until notify_remove_fd(). One
 * message each. fd stays the caller's; it is duplicated if the message has to wait. name: 1 to 255
 * printable ASCII characters but ":" (sd_pid_notify_with_fds(3)), else an assertion fails. Returns 0 if
 * it was sent or queued, or the negative errno it was lost with: -EMFILE, -ENOMEM, -ENOBUFS (the queue is
 * full), -ECONNREFUSED and -ENOENT (nobody listens, also after connecting again), and others of
 * sendmsg(2). That PID 1 has room for it (FileDescriptorStoreMax=) is not known. */
int notify_store_fd(Notify *notify, const char *name, int fd);

/* FDSTOREREMOVE=1: removes all stored descriptors of that name. Returns like notify_store_fd(). */
int notify_remove_fd(Notify *notify, const char *name);

/* How many messages of any kind have been lost since the last call, now or while they waited; if there
 * are any, *ret_error (may be NULL) is the negative errno of the last. */
unsigned notify_take_lost(Notify *notify, int *ret_error);

/* How many messages wait. */
size_t notify_n_queued(const Notify *notify);

/* Waits until everything is sent, timeout_usec at most (0: tries once). For the moments before exit and
 * execve() only. Returns 0, -ETIMEDOUT (the rest still waits), or the negative errno with which a message
 * was lost in here. */
int notify_flush(Notify *notify, uint64_t timeout_usec);
