/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Look, stop, look again, kill.
 *
 * A process that runs may accept a connection between the look and the signal, so only the look at a
 * stopped one counts; the first one is there to stop nobody in vain. It is SIGKILL that follows: any other
 * signal would need the worker to run once more, and then another thread of it may accept before the
 * signal's handler has run. All threads of all processes must have stopped, and the tree, listed again
 * afterwards, must be the same: who forks is not idle.
 *
 * Beliefs. A worker that waits on the listener and has no connection loses nothing. One that has none but
 * does not wait either is between two requests, or works on after the response, and only the caller knows
 * how long to be considerate of that. A connection kept for later requests is in use or not, which nobody
 * can see from outside at one moment: the request may just be on its way, or half of it be there. It counts
 * as unused if the worker waits for the client and has done nothing, and read nothing, for some time. Where
 * pidfd_getfd(2) is forbidden, a worker with one thread that was in accept and still is, and has no other
 * sockets than before, has no connection either.
 *
 * Order matters should we die in the middle. Descendants are killed first and continued first: what is then
 * left stopped is either a worker, which the next helper knows, or has a parent that is known. */

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/pidfd.h>

#include "clock.h"
#include "fd-util.h"
#include "observe.h"
#include "retire.h"

#define STOP_USEC (5 * USEC_PER_MSEC)   /* for all processes to stop */

typedef struct Stopped {
        int pidfds[OBSERVE_PROCESSES_MAX]; /* owned, but for the first */
        size_t n;
        bool paused;            /* it was stopped in vain, or may have been */
} Stopped;

/* Descendants first. */
static void stopped_signal(const Stopped *s, int signo) {
        for (size_t i = s->n; i > 0; i--)
                (void) pidfd_send_signal(s->pidfds[i - 1], signo, NULL, 0);
}

static void stopped_done(Stopped *s) {
        for (size_t i = 1; i < s->n; i++)
                (void) safe_close(s->pidfds[i]);
}

/* Whether all threads of a process stand still, for zombies do, in time. */
static bool wait_until_stopped(pid_t pid, uint64_t end_usec) {
        for (;;) {
                int r = observe_is_stopped(pid);

                if (r != 0)
                        return r > 0 || r == -ESRCH;
                if (clock_now_usec() >= end_usec)
                        return false;
                (void) sched_yield(); /* it may need our CPU for that */
        }
}

/* Sends SIGSTOP to all before anybody is waited for: the pause lasts until the last one has stopped. */
static bool signal_all(Stopped *s, const View *view, int worker_pidfd) {
        for (size_t i = 0; i < view->n_processes; i++) {
                int pidfd = i == 0 ? worker_pidfd : pidfd_open(view->processes[i], 0);

                if (pidfd < 0)
                        return false;
                s->pidfds[s->n++] = pidfd;
                if (pidfd_send_signal(pidfd, SIGSTOP, NULL, 0) < 0)
                        return false;
        }
        return true;
}

static bool wait_until_all_stopped(Stopped *s, const View *view) {
        uint64_t end_usec = usec_add(clock_now_usec(), STOP_USEC);

        for (size_t i = 0; i < view->n_processes; i++) {
                if (!wait_until_stopped(view->processes[i], end_usec))
                        return false;
                s->paused = true;
        }
        return true;
}

/* Whoever has come since is work begun, and a pid that was another's before we had a hold of it is not in
 * the tree any more. */
static bool has_same_processes(const View *view, const View *before) {
        return view->n_processes == before->n_processes &&
                memcmp(view->processes, before->processes, view->n_processes * sizeof(pid_t)) == 0;
}

/* Nothing has happened on the kept connections, as far as the last view of them goes. */
static bool kept_are_as_before(const Retirement *t, const View *view) {
        return t->kept_since_usec > 0 && t->kept_run_nsec == view->run_nsec &&
                t->kept_read_chars == view->read_chars;
}

/* What may be a worker without a request, and is worth stopping to know for sure. */
static bool looks_idle(Retirement *t, const RetireRequest *request, const View *view) {
        uint64_t now_usec, quiet_usec;

        if (view->n_connections > view->n_kept)
                return false;
        if (view->n_connections == 0)
                return view->waiting || request->unconnected;

        quiet_usec = view->n_answered == view->n_kept ? request->answered_usec : request->kept_usec;
        now_usec = clock_now_usec();
        if (!kept_are_as_before(t, view)) {
                t->kept_since_usec = now_usec;
                t->kept_run_nsec = view->run_nsec;
                t->kept_read_chars = view->read_chars;
        }
        return usec_sub(now_usec, t->kept_since_usec) >= quiet_usec;
}

/* Connections cannot be asked for, but there can be none. */
static bool is_accepting(const View *view) {
        return view->error < 0 && view->complete && view->accepting;
}

/* The worker is stopped. That costs CPU time, so what it has read has to do. */
static bool is_idle(const Retirement *t, const View *before, const View *view, bool unconnected) {
        if (view->gone || !view->complete || view->n_connections > view->n_kept)
                return false;
        if (view->error < 0)
                return is_accepting(before) && is_accepting(view) &&
                        before->unknown_sockets == view->unknown_sockets;
        if (view->n_connections > 0)
                return before->n_connections == view->n_connections &&
                        t->kept_read_chars == view->read_chars;
        return view->waiting || unconnected;
}

static bool stop_and_look(const Retirement *t, const RetireRequest *request, const View *before,
                          Stopped *stopped) {
        View view;

        if (!signal_all(stopped, before, request->pidfd))
                return false;
        /* What has just been accepted is seen sooner than all threads have stopped. */
        if (before->n_connections == 0 &&
            observe_is_connected(before, request->listener_fd, request->listener_inode) > 0) {
                stopped->paused = true;
                return false;
        }
        if (!wait_until_all_stopped(stopped, before))
                return false;
        observe_view(request->pid, request->listener_fd, request->listener_inode, &view);
        return has_same_processes(&view, before) && is_idle(t, before, &view, request->unconnected);
}

/* Whether that has been so for too long. */
static bool remains_unknown(Retirement *t) {
        uint64_t now_usec = clock_now_usec();

        if (t->unknown_since_usec == 0)
                t->unknown_since_usec = now_usec;
        return usec_sub(now_usec, t->unknown_since_usec) >= RETIRE_UNKNOWN_USEC;
}

RetireResult retire_try(Retirement *t, const RetireRequest *request) {
        _cleanup_(stopped_done) Stopped stopped = {};
        uint64_t since_usec;
        View view;

        assert(t);
        assert(request && request->pid > 0 && request->pidfd >= 0);

        observe_view(request->pid, request->listener_fd, request->listener_inode, &view);
        if (view.gone)
                return RETIRE_BUSY;
        if (!view.complete) {
                if (!remains_unknown(t))
                        return RETIRE_BUSY;
                t->error = view.error;
                return RETIRE_UNKNOWN;
        }
        t->unknown_since_usec = 0;
        if (view.error < 0 ? !is_accepting(&view) : !looks_idle(t, request, &view))
                return RETIRE_BUSY;

        since_usec = clock_now_usec();
        if (stop_and_look(t, request, &view, &stopped)) {
                stopped_signal(&stopped, SIGKILL);
                return RETIRE_KILLED;
        }

        stopped_signal(&stopped, SIGCONT); /* which also takes a SIGSTOP back that has not arrived */
        t->kept_since_usec = 0;
        if (!stopped.paused)
                return RETIRE_BUSY;
        t->pause_usec = usec_sub(clock_now_usec(), since_usec);
        t->pause_max_usec = MAX_OF(t->pause_max_usec, t->pause_usec);
        t->n_pauses++;
        return RETIRE_BUSY;
}
