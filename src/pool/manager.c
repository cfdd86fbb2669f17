/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The life of the helper.
 *
 * It begins by taking over whatever an earlier one has left, and it may end in three ways. SIGTERM
 * (KillSignal=): the pool is drained. SIGUSR1 (RestartKillSignal=): the workers are left to the next helper,
 * unless the listening socket goes down in the same transaction. SIGUSR2: another image of the program takes
 * over in place.
 *
 * Before READY=1 a termination signal may as well be PID 1's start timeout: then the helper ends at once and
 * touches nothing. What is to become of the workers is decided by what PID 1 does with the FD store: kept,
 * the next helper adopts them; released, the guardian ends them. Without a guardian there is nobody else,
 * and the pool is drained.
 *
 * PID 1's start and stop timeouts are stretched to what the options ask for, so that --start-timeout and
 * --stop-timeout are the only two numbers to set. */

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>

#include "adopt.h"
#include "cgroup.h"
#include "control-socket.h"
#include "control.h"
#include "fd-limits.h"
#include "guardian.h"
#include "jobs.h"
#include "log.h"
#include "manager.h"
#include "message-ids.h"
#include "notify.h"
#include "pool.h"
#include "reexec.h"
#include "runtime-directory.h"
#include "state.h"

/* On top of what the options allow for: time to notice, kill and reap. */
#define SLACK_USEC (10 * USEC_PER_SEC)
#define FLUSH_USEC (2 * USEC_PER_SEC)
#define DISMISSAL_MSEC 1000
#define GUARDIAN_PAUSE_USEC (1 * USEC_PER_SEC)
#define JOB_QUESTION_USEC (5 * USEC_PER_SEC) /* the workers serve meanwhile */

struct Manager {
        const Config *config;
        const char *name;
        ListenSet *listeners;
        sd_event *event;
        Notify *notify;
        StateFile *state_file;
        Cgroup *cgroup;                      /* NULL: not delegated */
        Reexec *reexec;
        Pool *pool;
        int leash_fd;                        /* -EBADF: no guardian */
        int control_fd;                      /* -EBADF: nobody can talk to us */
        Control *control;                    /* NULL: likewise */
        sd_event_source *reexec_source;      /* after the answer to a caller */
        int guardian_pidfd;
        sd_event_source *guardian_source;
        sd_event_source *guardian_timer;     /* until another is tried */
        uint64_t guardian_since_usec;        /* when it was started */
        bool guardian_missed;                /* it has been said that there is none */
        bool stopping;
        uint64_t watchdog_usec;              /* WatchdogSec= */
        int exit_status;
        char status[POOL_STATUS_SIZE];            /* the last one sent */
};

static void _printf_(4, 5) say(const Manager *m, int priority, const char *message_id, const char *format,
                               ...) {
        char field[128];
        va_list ap;

        (void) snprintf(field, sizeof(field), "FCGI_POOL=%s", m->name);
        va_start(ap, format);
        log_writev(priority, message_id, (const char *const[]) { field, NULL }, format, ap);
        va_end(ap);
}

/* --- the pool's news --- */

/* Until the last worker has had SIGKILL: an idle moment is waited for as long as for the end after the stop
 * signal. */
static uint64_t stop_usec(const Config *config) {
        uint64_t usec = config->stop_timeout_usec;

        return config->retire == RETIRE_IDLE ? usec_add(usec, usec) : usec;
}

/* A start in many steps may take longer than each of them, and so may the reload that somebody waits for: at
 * its end it waits for the last requests of older workers. */
static void extend_timeout(Manager *m) {
        uint64_t usec = m->config->start_timeout_usec;

        if (m->pool && pool_is_draining(m->pool))
                usec = MAX_OF(usec, stop_usec(m->config));
        notify_extend_timeout(m->notify, usec_add(usec, SLACK_USEC));
        /* PID 1 extends the time of the watchdog, too, until it hears of us. */
        if (m->watchdog_usec > 0)
                notify_watchdog(m->notify);
}

static void on_pool_status(void *userdata) {
        char status[POOL_STATUS_SIZE];
        Manager *m = userdata;
        unsigned n_lost;
        int error = 0;

        n_lost = notify_take_lost(m->notify, &error);
        if (n_lost > 0)
                say(m, LOG_WARNING, MESSAGE_DEGRADED,
                    "%u messages to the service manager were lost, ignoring: %s",
                    n_lost, strerror(-error));

        control_publish(m->control);
        pool_format_status(m->pool, status, sizeof(status));
        if (pool_is_starting(m->pool) || pool_is_rolling(m->pool) || pool_is_draining(m->pool))
                extend_timeout(m);
        if (streq(status, m->status))
                return;
        memcpy(m->status, status, sizeof(status));
        notify_status(m->notify, status);
}

/* Ends what the workers have left behind, and the guardian with it. */
static void clean_up(Manager *m) {
        int r;

        if (!m->cgroup)
                return;
        r = cgroup_leave(m->cgroup);
        if (r < 0) {
                _cleanup_(pid_set_clear) PidSet done = {};

                say(m, LOG_WARNING, NULL,
                    "Could not leave the workers' cgroup, killing what is left in it: %s", strerror(-r));
                (void) cgroup_signal(m->cgroup->workers_fd, SIGKILL, &done); /* but us */
                return; /* what has escaped is the guardian's */
        }
        if (cgroup_is_populated(m->cgroup->workers_fd) > 0) {
                say(m, LOG_NOTICE, MESSAGE_LEFTOVERS_KILLED,
                    "Workers have left processes behind, killing them");
                r = cgroup_kill(m->cgroup->workers_fd);
                if (r < 0)
                        say(m, LOG_WARNING, NULL, "Could not kill them, ignoring: %s", strerror(-r));
        }
        if (m->leash_fd >= 0 && guardian_dismiss(m->leash_fd) >= 0) {
                struct pollfd p = { .fd = m->guardian_pidfd, .events = POLLIN };

                /* What is left in the cgroup when we exit PID 1 calls a left-over process. */
                (void) poll(&p, 1, DISMISSAL_MSEC);
        }
}

static void on_pool_stopped(Manager *m, const Problem *failure) {
        m->exit_status = failure ? failure->exit_status : EXIT_SUCCESS;
        notify_status(m->notify, failure ? failure->text : "stopped");
        if (pool_has_workers(m->pool))
                say(m, LOG_NOTICE, MESSAGE_POOL_STOPPED, "Pool %s: the workers there were serve on",
                    m->name);
        else {
                clean_up(m);
                say(m, LOG_INFO, MESSAGE_POOL_STOPPED, "Pool %s has stopped, %u workers had to be killed",
                    m->name,
                    pool_n_killed(m->pool));
        }
        (void) sd_event_exit(m->event, 0);
}

static const char *format_workers(const Config *config, char *buffer, size_t size) {
        if (config->n_workers_min == config->n_workers)
                (void) snprintf(buffer, size, "%u workers", config->n_workers);
        else
                (void) snprintf(buffer, size, "%u to %u workers", config->n_workers_min, config->n_workers);
        return buffer;
}

static void on_pool_phase(PoolPhase phase, const Problem *failure, void *userdata) {
        Manager *m = userdata;
        char workers[48];

        pool_format_status(m->pool, m->status, sizeof(m->status));

        switch (phase) {

        case POOL_STARTING:
                break;

        case POOL_SERVING:
                notify_ready(m->notify, m->status);
                say(m, LOG_INFO, MESSAGE_POOL_STARTED, "Pool %s is ready: %s on %s%s", m->name,
                    format_workers(m->config, workers, sizeof(workers)), m->listeners->listeners[0].address,
                    m->listeners->n_listeners > 1 ? " and others" : "");
                break;

        case POOL_STOPPING:
                m->stopping = true;
                notify_stopping(m->notify, m->status, usec_add(stop_usec(m->config), SLACK_USEC));
                if (!failure)
                        say(m, LOG_INFO, MESSAGE_POOL_STOPPING, "Pool %s stops: %s", m->name, m->status);
                break;

        case POOL_STOPPED:
                on_pool_stopped(m, failure);
                break;

        case _POOL_PHASE_MAX:
        default:
                assert(false);
        }
}

/* --- signals --- */

static void leave_workers(Manager *m, StateLife life) {
        int r;

        r = pool_leave(m->pool, life);
        if (r < 0)
                say(m, LOG_WARNING, NULL, "Could not write the state for the next helper, ignoring: %s",
                    strerror(-r));
        (void) sd_event_exit(m->event, 0);
}

static int on_stop_signal(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata) {
        Manager *m = userdata;

        if (pool_is_starting(m->pool) && m->leash_fd >= 0) {
                say(m, LOG_INFO, MESSAGE_WORKERS_LEFT,
                    "Told to end before the pool was ready, leaving everything as it is");
                (void) sd_event_exit(m->event, 0);
        } else
                pool_stop(m->pool);
        return 0;
}

static int on_restart_signal(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata) {
        Manager *m = userdata;

        if (m->stopping)
                return 0;
        /* A listener that is closed and bound anew must not be kept by old workers. */
        if (jobs_socket_has_job(JOB_QUESTION_USEC) > 0) {
                say(m, LOG_INFO, MESSAGE_POOL_STOPPING, "The socket restarts as well, draining the pool");
                pool_stop(m->pool);
                return 0;
        }
        say(m, LOG_INFO, MESSAGE_WORKERS_LEFT, "Pool %s is restarted, its workers serve on: %s", m->name,
            m->status);
        leave_workers(m, STATE_LIFE_RESTARTED);
        return 0;
}

/* Not where a guardian may be left that takes us for a worker: one on the leash waits for our end. */
static void enter_cgroup(Manager *m) {
        int r;

        if (!m->cgroup || m->leash_fd < 0)
                return;
        r = cgroup_enter(m->cgroup);
        if (r < 0)
                say(m, LOG_WARNING, NULL,
                    "Could not enter the workers' cgroup, starting them takes longer: %s", strerror(-r));
}

/* Returns only if it fails. */
static int reexecute(Manager *m) {
        const ListenSet *l = m->listeners;
        _cleanup_free_ PassedFd *fds = NULL;
        _cleanup_close_ int mark_fd = -EBADF;
        size_t n = 0;
        int r;

        fds = calloc(l->n_listeners + 4, sizeof(*fds));
        r = fds ? pool_leave(m->pool, STATE_LIFE_REEXECUTED) : -ENOMEM;
        if (r >= 0) {
                for (size_t i = 0; i < l->n_listeners; i++)
                        fds[n++] = (PassedFd) { l->listeners[i].fd, l->listeners[i].fd_name };
                fds[n++] = (PassedFd) { state_file_get_fd(m->state_file), STORED_STATE };
                if (m->leash_fd >= 0)
                        fds[n++] = (PassedFd) { m->leash_fd, STORED_LEASH };
                if (m->control_fd >= 0)
                        fds[n++] = (PassedFd) { m->control_fd, STORED_CONTROL };
                /* For an image that cannot read the state. Any FIFO will do. */
                if (pool_is_rolling(m->pool) && m->leash_fd >= 0)
                        mark_fd = fcntl(m->leash_fd, F_DUPFD_CLOEXEC, 3);
                if (mark_fd >= 0)
                        fds[n++] = (PassedFd) { mark_fd, STORED_RESTARTED };
                /* The new image takes the mode that it finds for the wanted one. */
                for (size_t i = 0; i < l->n_listeners; i++)
                        (void) listener_enforce_mode(l->listeners + i);
                (void) notify_flush(m->notify, FLUSH_USEC);
                /* Other images need not know of it. */
                if (m->cgroup)
                        (void) cgroup_leave(m->cgroup);
                r = reexec_execute(m->reexec, fds, n);
                enter_cgroup(m);
        }

        say(m, LOG_ERR, MESSAGE_REEXEC_FAILED, "Could not execute the program anew, going on as before: %s",
            strerror(-r));
        (void) pool_save(m->pool, STATE_LIFE_RUNNING);
        return r;
}

static int on_reexec_signal(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata) {
        Manager *m = userdata;

        if (!m->stopping)
                (void) reexecute(m);
        return 0;
}

static int on_roll_signal(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata) {
        Manager *m = userdata;
        int r;

        r = pool_roll(m->pool);
        if (r < 0) {
                say(m, LOG_WARNING, MESSAGE_SIGNAL_IGNORED, "SIGHUP: %s, ignoring",
                    r == -EALREADY ? "the workers are being replaced already" :
                    r == -EHOSTDOWN ? "the pool is held" :
                    r == -EMLINK ? "workers of two older generations have not ended yet" :
                    "the pool does not serve");
                return 0;
        }
        say(m, LOG_INFO, MESSAGE_ROLLING, "Replacing the workers: %s", m->status);
        if (reexec_is_due(m->reexec) > 0)
                (void) reexecute(m); /* the new image goes on with it */
        return 0;
}

/* --- calls --- */

static int on_reload_call(uint64_t *ret_generation, void *userdata) {
        Manager *m = userdata;
        PoolSummary summary;
        int r;

        r = pool_roll(m->pool);
        if (r < 0)
                return r;
        say(m, LOG_INFO, MESSAGE_ROLLING, "Replacing the workers: %s", m->status);
        extend_timeout(m);
        pool_summarize(m->pool, &summary);
        *ret_generation = summary.generation;
        return 0;
}

static int on_reexec_time(sd_event_source *source, void *userdata) {
        Manager *m = userdata;

        if (!m->stopping)
                (void) reexecute(m);
        return 0;
}

/* The caller has its answer: the new image goes on with the reload. */
static void on_reloading(void *userdata) {
        Manager *m = userdata;

        if (reexec_is_due(m->reexec) > 0)
                (void) sd_event_source_set_enabled(m->reexec_source, SD_EVENT_ONESHOT);
}

static int on_reexec_call(void *userdata) {
        Manager *m = userdata;

        return m->stopping ? -EBUSY : reexecute(m);
}

/* Without it the pool is as good as ever, but nobody can ask it anything. */
static void open_control(Manager *m) {
        char buffer[PATH_MAX];
        const char *directory = runtime_directory(buffer);
        int r;

        m->control_fd = TAKE_FD(m->listeners->control_fd);
        if (m->control_fd >= 0 && (!directory || control_socket_is_at(m->control_fd, directory) <= 0)) {
                notify_remove_fd(m->notify, STORED_CONTROL);
                m->control_fd = safe_close(m->control_fd);
        }
        if (m->control_fd < 0 && directory) {
                m->control_fd = control_socket_open(directory);
                if (m->control_fd >= 0)
                        notify_store_fd(m->notify, STORED_CONTROL, m->control_fd);
        }
        r = !directory ? -ENOENT : m->control_fd;
        if (r >= 0)
                r = sd_event_add_defer(m->event, &m->reexec_source, on_reexec_time, m);
        if (r >= 0)
                r = sd_event_source_set_enabled(m->reexec_source, SD_EVENT_OFF);
        if (r >= 0)
                r = control_new(m->event, &(ControlParameters) {
                        .pool = m->pool,
                        .listener_fd = m->control_fd,
                        .on_reload = on_reload_call,
                        .on_reloading = on_reloading,
                        .on_reexec = on_reexec_call,
                        .userdata = m,
                }, &m->control);
        if (r < 0)
                say(m, LOG_NOTICE, MESSAGE_DEGRADED, "fcgi-poolctl cannot talk to the pool, %s: %s",
                    directory ? "ignoring" : "set RuntimeDirectory= in the unit", strerror(-r));
}

static int add_signals(Manager *m) {
        static const struct {
                int signo;
                sd_event_signal_handler_t handler;
        } table[] = {
                { SIGTERM, on_stop_signal },
                { SIGINT, on_stop_signal },
                { SIGUSR1, on_restart_signal },
                { SIGUSR2, on_reexec_signal },
                { SIGHUP, on_roll_signal },
        };
        sigset_t mask;
        int r;

        (void) sigemptyset(&mask);
        for (size_t i = 0; i < ELEMENTSOF(table); i++)
                (void) sigaddset(&mask, table[i].signo);
        /* SIGXFSZ: LimitFSIZE= holds for the state, too, and is an errno then. */
        if (sigprocmask(SIG_BLOCK, &mask, NULL) < 0 || signal(SIGPIPE, SIG_IGN) == SIG_ERR ||
            signal(SIGXFSZ, SIG_IGN) == SIG_ERR)
                return -errno;

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                r = sd_event_add_signal(m->event, NULL, table[i].signo, table[i].handler, m);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* --- the watchdog --- */

static int on_watchdog(sd_event_source *source, uint64_t usec, void *userdata) {
        Manager *m = userdata;

        notify_watchdog(m->notify);
        (void) sd_event_source_set_time(source, usec_add(usec, m->watchdog_usec / 2));
        return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

/* Not sd_event_set_watchdog(3): its datagram would wait for a PID 1 that is busy. */
static int add_watchdog(Manager *m) {
        uint64_t now_usec;
        int r;

        r = sd_watchdog_enabled(false, &m->watchdog_usec);
        if (r <= 0)
                return r;
        r = sd_event_now(m->event, CLOCK_MONOTONIC, &now_usec);
        if (r < 0)
                return r;
        return sd_event_add_time(m->event, NULL, CLOCK_MONOTONIC, now_usec, m->watchdog_usec / 4,
                                 on_watchdog, m);
}

/* --- the guardian --- */

static int start_guardian(Manager *m);

static uint64_t now(const Manager *m) {
        uint64_t usec;

        /* Cannot fail: the clock is supported and the loop belongs to this process. */
        (void) sd_event_now(m->event, CLOCK_MONOTONIC, &usec);
        return usec;
}

static int on_guardian_timer(sd_event_source *source, uint64_t usec, void *userdata) {
        Manager *m = userdata;

        return m->stopping ? 0 : start_guardian(m);
}

static int start_guardian_later(Manager *m) {
        uint64_t when_usec = usec_add(now(m), GUARDIAN_PAUSE_USEC);
        int r;

        if (!m->guardian_timer)
                return sd_event_add_time(m->event, &m->guardian_timer, CLOCK_MONOTONIC, when_usec, 0,
                                         on_guardian_timer, m);
        r = sd_event_source_set_time(m->guardian_timer, when_usec);
        return r < 0 ? r : sd_event_source_set_enabled(m->guardian_timer, SD_EVENT_ONESHOT);
}

static int on_guardian_death(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        siginfo_t si = {};
        Manager *m = userdata;

        (void) waitid(P_PIDFD, (id_t) fd, &si, WEXITED | WNOHANG); /* not ours, if adopted */
        m->guardian_source = sd_event_source_disable_unref(m->guardian_source);
        m->guardian_pidfd = safe_close(m->guardian_pidfd);
        m->leash_fd = safe_close(m->leash_fd);
        notify_remove_fd(m->notify, STORED_LEASH);
        if (m->stopping)
                return 0;

        say(m, LOG_WARNING, MESSAGE_GUARDIAN_DIED, "The guardian has died, starting another");
        if (usec_sub(now(m), m->guardian_since_usec) < GUARDIAN_PAUSE_USEC)
                return start_guardian_later(m);
        return start_guardian(m);
}

/* The one that an earlier helper has started is found in its cgroup. */
static int find_guardian(const Cgroup *cgroup) {
        _cleanup_free_ pid_t *pids = NULL;
        size_t n_pids = 0;
        int r, fd;

        r = cgroup_list(cgroup->guardian_fd, &pids, &n_pids);
        if (r < 0 || n_pids == 0)
                return r < 0 ? r : -ESRCH;
        fd = pidfd_open(pids[0], 0);
        return fd < 0 ? -errno : fd;
}

static int start_guardian(Manager *m) {
        GuardianSettings settings = {
                .stop_signal = m->config->stop_signal,
                .stop_timeout_usec = m->config->stop_timeout_usec,
        };
        int r = -ESRCH;

        m->guardian_pidfd = safe_close(m->guardian_pidfd);
        if (m->leash_fd >= 0 && guardian_is_alive(m->leash_fd) > 0 &&
            guardian_configure(m->leash_fd, &settings) >= 0)
                m->guardian_pidfd = r = find_guardian(m->cgroup);
        if (r < 0) {
                if (m->leash_fd >= 0) {
                        (void) guardian_dismiss(m->leash_fd);
                        notify_remove_fd(m->notify, STORED_LEASH);
                        m->leash_fd = safe_close(m->leash_fd);
                }
                m->guardian_since_usec = now(m);
                r = guardian_start(m->cgroup, m->name, &settings, &m->leash_fd, &m->guardian_pidfd);
                if (r >= 0)
                        notify_store_fd(m->notify, STORED_LEASH, m->leash_fd);
        }
        if (r >= 0)
                r = sd_event_add_io(m->event, &m->guardian_source, m->guardian_pidfd, EPOLLIN,
                                    on_guardian_death, m);
        if (r < 0 && !m->guardian_missed)
                say(m, LOG_WARNING, MESSAGE_DEGRADED, "No guardian, workers may outlive the unit: %s",
                    strerror(-r));
        m->guardian_missed = r < 0;
        return r < 0 ? start_guardian_later(m) : 0;
}

/* --- taking over --- */

/* $FDSTORE is what systemd 254 and later say of the store; before, one has to hope. */
static void check_store_size(const Manager *m) {
        const char *e = getenv("FDSTORE");
        unsigned long size = e ? strtoul(e, NULL, 10) : UINT32_MAX;
        uint64_t needed = fd_limits_stored(m->config->n_workers);

        if (size < needed)
                say(m, LOG_WARNING, MESSAGE_DEGRADED,
                    "FileDescriptorStoreMax=%lu is too small for %u workers, expected at least %" PRIu64,
                    size, m->config->n_workers, needed);
}

/* Reads what the helper before us has written. What cannot be read is told, and written over. */
static int take_state(Manager *m, State **ret_state) {
        Problem problem = {};
        int r;

        if (m->listeners->state_fd >= 0) {
                r = state_read(m->listeners->state_fd, ret_state, &problem);
                if (r < 0)
                        say(m, LOG_WARNING, MESSAGE_STATE_LOST, "%s; going by what is found", problem.text);
                r = state_file_attach(m->listeners->state_fd, &m->state_file);
                if (r >= 0) {
                        m->listeners->state_fd = -EBADF;
                        return 0;
                }
                notify_remove_fd(m->notify, STORED_STATE);
        }

        r = state_file_open(&m->state_file);
        if (r >= 0)
                notify_store_fd(m->notify, STORED_STATE, state_file_get_fd(m->state_file));
        return r;
}

static void log_strangers(Manager *m) {
        for (char **s = m->listeners->strangers; *s; s++) {
                say(m, LOG_NOTICE, MESSAGE_STRANGER_CLOSED,
                    "descriptor \"%s\": neither a listening stream socket nor one of ours, closing it", *s);
                if (!**s)
                        continue;
                /* By name, and it may have taken one of ours. */
                notify_remove_fd(m->notify, *s);
                if (streq(*s, STORED_STATE) && m->listeners->state_fd >= 0)
                        notify_store_fd(m->notify, STORED_STATE, m->listeners->state_fd);
                if (streq(*s, STORED_LEASH) && m->listeners->leash_fd >= 0)
                        notify_store_fd(m->notify, STORED_LEASH, m->listeners->leash_fd);
                if (streq(*s, STORED_CONTROL) && m->listeners->control_fd >= 0)
                        notify_store_fd(m->notify, STORED_CONTROL, m->listeners->control_fd);
        }
}

/* The helper before us may have died while it had stopped a worker to look at it. */
static void continue_workers(Manager *m) {
        _cleanup_(pid_set_clear) PidSet done = {};
        int r;

        r = cgroup_signal(m->cgroup->workers_fd, SIGCONT, &done);
        if (r < 0)
                say(m, LOG_WARNING, NULL, "Could not send SIGCONT to the workers, ignoring: %s",
                    strerror(-r));
}

static int take_over(Manager *m) {
        _cleanup_(adoption_freep) Adoption *adoption = NULL;
        _cleanup_(state_freep) State *state = NULL;
        int r;

        r = cgroup_open(&m->cgroup);
        if (r < 0)
                say(m, LOG_NOTICE, MESSAGE_DEGRADED,
                    "No cgroup of our own (%s): workers may outlive the unit, set Delegate=yes in it",
                    strerror(-r));
        else
                continue_workers(m);

        r = take_state(m, &state);
        if (r >= 0)
                r = adopt_find(state, m->listeners, m->cgroup ? m->cgroup->workers_fd : -EBADF, &adoption);
        if (r >= 0)
                r = pool_new(m->event, &(PoolParameters) {
                        .config = m->config,
                        .name = m->name,
                        .listeners = m->listeners,
                        .notify = m->notify,
                        .state_file = m->state_file,
                        .cgroup = m->cgroup,
                        .on_phase = on_pool_phase,
                        .on_status = on_pool_status,
                        .userdata = m,
                }, &m->pool);
        if (r >= 0 && m->cgroup) {
                m->leash_fd = TAKE_FD(m->listeners->leash_fd);
                r = start_guardian(m);
                if (r >= 0)
                        enter_cgroup(m);
        }
        if (r >= 0)
                r = pool_adopt(m->pool, state, adoption);
        if (r >= 0)
                open_control(m);
        return r;
}

int manager_new(const Config *config, const char *name, ListenSet *listeners, char **argv,
                Manager **ret_manager, Problem *ret_problem) {
        _cleanup_(manager_freep) Manager *m = NULL;
        int r;

        assert(config);
        assert(ret_manager);

        r = pool_check_size(config->n_workers, ret_problem);
        if (r < 0)
                return r;

        m = calloc(1, sizeof(*m));
        if (!m)
                return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, -ENOMEM, "Out of memory");
        m->config = config;
        m->name = name;
        m->listeners = listeners;
        m->leash_fd = m->guardian_pidfd = m->control_fd = -EBADF;

        r = sd_event_new(&m->event);
        if (r >= 0)
                r = add_signals(m);
        if (r >= 0)
                r = reexec_new(argv, &m->reexec);
        if (r >= 0)
                r = notify_new(m->event, &m->notify);
        if (r >= 0)
                r = add_watchdog(m);
        if (r < 0)
                return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, r,
                                   "Could not set up the event loop: %s", strerror(-r));

        *ret_manager = TAKE_PTR(m);
        return 0;
}

Manager *manager_free(Manager *m) {
        if (!m)
                return NULL;

        control_free(m->control);
        pool_free(m->pool);
        sd_event_source_disable_unref(m->reexec_source);
        sd_event_source_disable_unref(m->guardian_source);
        sd_event_source_disable_unref(m->guardian_timer);
        (void) safe_close(m->guardian_pidfd);
        (void) safe_close(m->leash_fd);
        (void) safe_close(m->control_fd);
        cgroup_free(m->cgroup);
        state_file_free(m->state_file);
        reexec_free(m->reexec);
        notify_free(m->notify);
        sd_event_unref(m->event);
        free(m);
        return NULL;
}

int manager_run(Manager *m) {
        int r;

        extend_timeout(m);
        check_store_size(m);
        log_strangers(m);

        r = take_over(m);
        if (r >= 0)
                r = sd_event_loop(m->event);
        if (r < 0) {
                say(m, LOG_ERR, NULL, "The helper cannot go on: %s", strerror(-r));
                return EXIT_STATUS_OS_ERROR;
        }
        (void) notify_flush(m->notify, FLUSH_USEC);
        return m->exit_status;
}
