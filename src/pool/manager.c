/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The life of the helper.
 *
 * SIGTERM and SIGINT stop the pool, at whatever point it is: workers are retired together and the helper
 * ends when the last one has. The other signals that administrators are used to sending to servers are kept
 * from killing the helper and say in the journal that they mean nothing yet.
 *
 * PID 1's start and stop timeouts are stretched to what the options ask for, so that --start-timeout and
 * --stop-timeout are the only two numbers to set. */

#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>

#include <systemd/sd-event.h>

#include "log.h"
#include "manager.h"
#include "message-ids.h"
#include "notify.h"
#include "pool.h"

/* On top of what the options allow for: time to notice, kill and reap. */
#define SLACK_USEC (10 * USEC_PER_SEC)
#define STATUS_SIZE 768U
/* Descriptors beside a pidfd and a journal stream per worker: listeners, epoll, timers, and those of workers
 * between fork and exec. */
#define FDS_RESERVED 160U

struct Manager {
        const Config *config;
        const char *name;
        ListenSet *listeners;
        sd_event *event;
        Pool *pool;
        int exit_status;
        char status[STATUS_SIZE]; /* the last one sent */
};

static void _printf_(4, 5) say(const Manager *m, int priority, const char *message_id,
                               const char *format, ...) {
        char field[128];
        va_list ap;

        (void) snprintf(field, sizeof(field), "FCGI_POOL=%s", m->name);
        va_start(ap, format);
        log_writev(priority, message_id, (const char *const[]) { field, NULL }, format, ap);
        va_end(ap);
}

static void on_pool_status(void *userdata) {
        char status[STATUS_SIZE];
        Manager *m = userdata;

        pool_format_status(m->pool, status, sizeof(status));
        if (streq(status, m->status))
                return;
        memcpy(m->status, status, sizeof(status));
        notify_status(status);
}

static void on_pool_phase(PoolPhase phase, const Problem *failure, void *userdata) {
        uint64_t stop_usec;
        Manager *m = userdata;

        pool_format_status(m->pool, m->status, sizeof(m->status));

        switch (phase) {

        case POOL_STARTING:
                break;

        case POOL_SERVING:
                notify_ready(m->status);
                say(m, LOG_INFO, MESSAGE_POOL_STARTED, "Pool %s is ready: %u workers on %s%s", m->name,
                    m->config->n_workers, m->listeners->listeners[0].address,
                    m->listeners->n_listeners > 1 ? " and others" : "");
                break;

        case POOL_STOPPING:
                stop_usec = usec_add(m->config->stop_timeout_usec, SLACK_USEC);
                notify_stopping(m->status, stop_usec);
                if (!failure)
                        say(m, LOG_INFO, MESSAGE_POOL_STOPPING, "Pool %s stops: %s", m->name, m->status);
                break;

        case POOL_STOPPED:
                m->exit_status = failure ? failure->exit_status : EXIT_SUCCESS;
                notify_status(failure ? failure->text : "stopped");
                say(m, LOG_INFO, MESSAGE_POOL_STOPPED, "Pool %s has stopped, %u workers had to be killed",
                    m->name, pool_n_killed(m->pool));
                (void) sd_event_exit(m->event, 0);
                break;

        case _POOL_PHASE_MAX:
        default:
                assert(false);
        }
}

static int on_stop_signal(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata) {
        Manager *m = userdata;

        pool_stop(m->pool);
        return 0;
}

static int on_reserved_signal(sd_event_source *source, const struct signalfd_siginfo *si, void *userdata) {
        Manager *m = userdata;

        say(m, LOG_NOTICE, MESSAGE_SIGNAL_IGNORED, "SIG%s is not supported yet in this version, ignoring",
            sigabbrev_np((int) si->ssi_signo));
        return 0;
}

static int add_signals(Manager *m) {
        static const struct {
                int signo;
                sd_event_signal_handler_t handler;
        } table[] = {
                { SIGTERM, on_stop_signal },
                { SIGINT, on_stop_signal },
                { SIGHUP, on_reserved_signal },
                { SIGUSR1, on_reserved_signal },
                { SIGUSR2, on_reserved_signal },
        };
        sigset_t mask;
        int r;

        (void) sigemptyset(&mask);
        for (size_t i = 0; i < ELEMENTSOF(table); i++)
                (void) sigaddset(&mask, table[i].signo);
        if (sigprocmask(SIG_BLOCK, &mask, NULL) < 0)
                return -errno;

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                r = sd_event_add_signal(m->event, NULL, table[i].signo, table[i].handler, m);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int check_fd_limit(const Config *config, Problem *ret_problem) {
        rlim_t needed = (rlim_t) config->n_workers * 2 + FDS_RESERVED;
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, -errno,
                                   "Could not read RLIMIT_NOFILE: %m");
        if (limit.rlim_cur < needed)
                return problem_set(ret_problem, EXIT_STATUS_NOT_CONFIGURED, -EMFILE,
                                   "RLIMIT_NOFILE is %llu, expected at least %llu for %u workers: "
                                   "set LimitNOFILE= in the unit", (unsigned long long) limit.rlim_cur,
                                   (unsigned long long) needed, config->n_workers);
        return 0;
}

int manager_new(const Config *config, const char *name, ListenSet *listeners, Manager **ret_manager,
                Problem *ret_problem) {
        _cleanup_(manager_freep) Manager *m = NULL;
        int r;

        assert(config);
        assert(ret_manager);

        r = check_fd_limit(config, ret_problem);
        if (r < 0)
                return r;

        m = calloc(1, sizeof(*m));
        if (!m)
                return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, -ENOMEM, "Out of memory");
        m->config = config;
        m->name = name;
        m->listeners = listeners;

        r = sd_event_new(&m->event);
        if (r >= 0)
                r = add_signals(m);
        if (r >= 0)
                r = sd_event_set_watchdog(m->event, true);
        if (r >= 0)
                r = pool_new(m->event, &(PoolParameters) {
                        .config = config,
                        .name = name,
                        .listeners = listeners,
                        .on_phase = on_pool_phase,
                        .on_status = on_pool_status,
                        .userdata = m,
                }, &m->pool);
        if (r < 0)
                return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, r,
                                   "Could not set up the event loop: %s", strerror(-r));

        *ret_manager = TAKE_PTR(m);
        return 0;
}

Manager *manager_free(Manager *m) {
        if (!m)
                return NULL;

        pool_free(m->pool);
        sd_event_unref(m->event);
        free(m);
        return NULL;
}

int manager_run(Manager *m) {
        int r;

        notify_extend_timeout(usec_add(m->config->start_timeout_usec, SLACK_USEC));

        r = sd_event_loop(m->event);
        if (r < 0) {
                say(m, LOG_ERR, NULL, "The event loop failed: %s", strerror(-r));
                return EXIT_STATUS_OS_ERROR;
        }
        return m->exit_status;
}
