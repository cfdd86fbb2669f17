/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* One worker.
 *
 * What a state may own is written in one table, and the one function that changes the state applies it, so
 * that no handler has to remember what to clean up. Deadlines are not kept here: they follow from the time
 * at which the state was entered, and plan.c knows them; the pool has the one timer.
 *
 * A worker is watched through its pidfd as a plain descriptor and reaped with waitid(P_PIDFD), not with
 * sd-event's child sources: those insist on being the parent, and a helper that has taken over from another
 * one is not.
 *
 * Handlers record what they have learnt and tell the pool, which decides. */

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

#include <systemd/sd-event.h>

#include "clock.h"
#include "fd-util.h"
#include "log.h"
#include "message-ids.h"
#include "spawn.h"
#include "worker.h"

#define BIT(state) (1U << (state))

typedef struct StateRule {
        const char *name;
        unsigned next;      /* states that may follow */
        bool owns_exec_fd;
        bool owns_pidfd;
        bool current;
} StateRule;

static const StateRule rules[] = {
        [WORKER_STARTING] = {
                .name = "starting",
                .next = BIT(WORKER_READY) | BIT(WORKER_RETIRING) | BIT(WORKER_KILLING) | BIT(WORKER_DEAD),
                .owns_exec_fd = true,
                .owns_pidfd = true,
                .current = true,
        },
        [WORKER_READY] = {
                .name = "ready",
                .next = BIT(WORKER_RETIRING) | BIT(WORKER_KILLING) | BIT(WORKER_DEAD),
                .owns_pidfd = true,
                .current = true,
        },
        [WORKER_RETIRING] = {
                .name = "retiring",
                .next = BIT(WORKER_KILLING) | BIT(WORKER_DEAD),
                .owns_pidfd = true,
        },
        [WORKER_KILLING] = {
                .name = "killing",
                .next = BIT(WORKER_DEAD),
                .owns_pidfd = true,
        },
        [WORKER_DEAD] = {
                .name = "dead",
        },
};

static_assert(ELEMENTSOF(rules) == _WORKER_STATE_MAX, "every state has a rule");

const char *worker_state_to_string(WorkerState state) {
        assert(state < _WORKER_STATE_MAX);
        return rules[state].name;
}

bool worker_is_current(const Worker *w) {
        return rules[w->state].current;
}

PlanWorker worker_to_plan(const Worker *w, bool wanted) {
        return (PlanWorker) {
                .state = w->state,
                .wanted = wanted,
                .adopted = w->adopted,
                .executed = w->executed,
                .announced = w->announced,
                .seen = w->seen,
                .unobservable = w->unobservable,
                .stranger = w->stranger,
                .on_trial = w->on_trial,
                .served = w->served,
                .worn = w->worn != WORN_NOT,
                /* Any number that an heir of this helper arrives at, too; those of a pool are far apart. */
                .random = (uint32_t) ((w->cookie + w->generation + w->slot) * UINT64_C(2654435761)),
                .large = w->large,
                .stuck = w->stuck,
                .aborted = w->aborted,
                .pinged_usec = w->pinged_usec,
                .request_usec = w->request_usec,
                .signalled_usec = w->signalled_usec,
                .spawned_usec = w->spawned_usec,
                .state_since_usec = w->state_since_usec,
                .looked_usec = w->looked_usec,
        };
}

static const char *death_code(const Death *death) {
        return death->code == CLD_EXITED ? "exited" : death->code == CLD_KILLED ? "killed" : "dumped";
}

bool worker_death_is_clean(const Worker *w) {
        return w->death.known && w->death.code == CLD_EXITED && w->death.status == EXIT_SUCCESS;
}

char *worker_format_death(const Worker *w, char *buffer, size_t size) {
        const char *core = w->death.code == CLD_DUMPED ? " (core dumped)" : "";
        const char *name;

        if (w->exec_error < 0)
                (void) snprintf(buffer, size, "could not execute: %s", strerror(-w->exec_error));
        else if (!w->death.known)
                (void) snprintf(buffer, size, "has ended, exit status unknown");
        else if (w->death.code == CLD_EXITED)
                (void) snprintf(buffer, size, "exited with status %d", w->death.status);
        else if ((name = sigabbrev_np(w->death.status)))
                (void) snprintf(buffer, size, "was killed by SIG%s%s", name, core);
        else
                (void) snprintf(buffer, size, "was killed by signal %d%s", w->death.status, core);
        return buffer;
}

/* Microseconds are for the young only. */
static char *format_age(char *buffer, size_t size, uint64_t usec) {
        if (usec >= 10 * USEC_PER_MSEC)
                usec -= usec % USEC_PER_MSEC;
        return clock_format_span(buffer, size, usec);
}

/* The fields that every line about a worker has, and room for those that only some have. */
typedef struct Fields {
        char pool[128], slot[32], pid[32], generation[48], state[32], label[32];
        const char *list[12];
        size_t n;
} Fields;

static void fields_init(Fields *f, const Worker *w) {
        (void) snprintf(f->pool, sizeof(f->pool), "FCGI_POOL=%s", w->pool_name);
        (void) snprintf(f->slot, sizeof(f->slot), "WORKER_SLOT=%u", w->slot);
        (void) snprintf(f->pid, sizeof(f->pid), "WORKER_PID=%d", (int) w->pid);
        (void) snprintf(f->generation, sizeof(f->generation), "GENERATION=%" PRIu64, w->generation);
        (void) snprintf(f->state, sizeof(f->state), "WORKER_STATE=%s", rules[w->state].name);
        if (w->stranger)
                (void) snprintf(f->label, sizeof(f->label), "stranger");
        else
                (void) snprintf(f->label, sizeof(f->label), "worker %u", w->slot);
        f->n = 0;
        f->list[f->n++] = f->pool;
        f->list[f->n++] = f->slot;
        f->list[f->n++] = f->pid;
        f->list[f->n++] = f->generation;
        f->list[f->n++] = f->state;
        f->list[f->n] = NULL;
}

static void fields_add(Fields *f, const char *field) {
        assert(f->n + 1 < ELEMENTSOF(f->list));
        f->list[f->n++] = field;
        f->list[f->n] = NULL;
}

static void _printf_(5, 0) log_with_fields(const Worker *w, int priority, const char *message_id,
                                           const char *const *more, const char *format, va_list ap) {
        char text[2048];
        Fields fields;

        fields_init(&fields, w);
        for (const char *const *f = more; f && *f; f++)
                fields_add(&fields, *f);
        (void) vsnprintf(text, sizeof(text), format, ap);
        log_write(priority, message_id, fields.list, "%s: %s", fields.label, text);
}

void worker_log_fields(const Worker *w, int priority, const char *message_id, const char *const *more,
                       const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        log_with_fields(w, priority, message_id, more, format, ap);
        va_end(ap);
}

void worker_log(const Worker *w, int priority, const char *message_id, const char *field,
                const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        log_with_fields(w, priority, message_id, (const char *const[]) { field, NULL }, format, ap);
        va_end(ap);
}

/* The obituary. An exit with status 0 after honest service and an end that we asked for are no news for
 * anybody at 3 a.m. */
static void log_death(const Worker *w, WorkerState last) {
        char old[48], uptime[48], code[32], status[32], text[160], span[64];
        uint64_t uptime_usec = usec_sub(w->ended_usec, w->spawned_usec);
        bool asked = last == WORKER_RETIRING || last == WORKER_KILLING;
        bool clean = w->death.known && w->death.code == CLD_EXITED && w->death.status == 0 &&
                last == WORKER_READY;
        Fields fields;

        fields_init(&fields, w);
        (void) snprintf(old, sizeof(old), "WORKER_STATE_OLD=%s", rules[last].name);
        fields_add(&fields, old);
        (void) snprintf(uptime, sizeof(uptime), "UPTIME_USEC=%" PRIu64, uptime_usec);
        fields_add(&fields, uptime);
        if (w->death.known) {
                (void) snprintf(code, sizeof(code), "EXIT_CODE=%s", death_code(&w->death));
                fields_add(&fields, code);
                (void) snprintf(status, sizeof(status), "EXIT_STATUS=%d", w->death.status);
                fields_add(&fields, status);
        }

        log_write(asked || clean ? LOG_INFO : LOG_WARNING,
                  w->exec_error < 0 ? MESSAGE_WORKER_NOT_EXECUTED :
                  asked || clean ? MESSAGE_WORKER_EXITED : MESSAGE_WORKER_DIED,
                  fields.list, "%s: pid %d %s after %s (%s)", fields.label, (int) w->pid,
                  worker_format_death(w, text, sizeof(text)),
                  format_age(span, sizeof(span), uptime_usec), rules[last].name);
}

static void log_transition(const Worker *w, WorkerState last, uint64_t now_usec, const char *reason) {
        char old[64], age[48], pauses[32], pause_max[48], span[64];
        uint64_t age_usec = usec_sub(now_usec, w->state_since_usec);
        Fields fields;

        fields_init(&fields, w);
        (void) snprintf(old, sizeof(old), "WORKER_STATE_OLD=%s", rules[last].name);
        fields_add(&fields, old);
        if (last == WORKER_RETIRING && w->retirement) {
                (void) snprintf(age, sizeof(age), "RETIRE_USEC=%" PRIu64, age_usec);
                fields_add(&fields, age);
                (void) snprintf(pauses, sizeof(pauses), "N_PAUSES=%u", w->retirement->n_pauses);
                fields_add(&fields, pauses);
                (void) snprintf(pause_max, sizeof(pause_max), "PAUSE_MAX_USEC=%" PRIu64,
                                w->retirement->pause_max_usec);
                fields_add(&fields, pause_max);
        }
        log_write(LOG_INFO, MESSAGE_WORKER_STATE, fields.list, "%s: %s -> %s after %s%s%s", fields.label,
                  rules[last].name, rules[w->state].name, format_age(span, sizeof(span), age_usec),
                  reason ? ": " : "", reason ?: "");
}

static void release_exec_fd(Worker *w) {
        w->exec_source = sd_event_source_disable_unref(w->exec_source);
        w->exec_fd = safe_close(w->exec_fd);
}

static void release_pidfd(Worker *w) {
        w->death_source = sd_event_source_disable_unref(w->death_source);
        w->pidfd = safe_close(w->pidfd);
}

void worker_set_state(Worker *w, WorkerState state, uint64_t now_usec, const char *reason) {
        WorkerState last;

        assert(w);
        assert(state < _WORKER_STATE_MAX);
        assert(rules[w->state].next & BIT(state));

        last = w->state;
        w->state = state;
        w->served = w->served || state == WORKER_READY;

        if (!rules[state].owns_exec_fd)
                release_exec_fd(w);
        if (!rules[state].owns_pidfd)
                release_pidfd(w);

        if (state == WORKER_DEAD)
                log_death(w, last);
        else
                log_transition(w, last, now_usec, reason);
        w->state_since_usec = now_usec;
}

int worker_signal(Worker *w, int signo) {
        assert(w);

        if (w->pidfd < 0)
                return 0;
        if (pidfd_send_signal(w->pidfd, signo, NULL, 0) < 0 && errno != ESRCH)
                return -errno;
        return 0;
}

static int on_exec_io(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        Worker *w = userdata;
        int r;

        r = spawn_read_exec_fd(fd);
        if (r == 0)
                return 0;
        if (r < 0)
                w->exec_error = r;
        else
                w->executed = true;

        release_exec_fd(w);
        w->on_fact(w, w->userdata);
        return 0;
}

static int on_death_io(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        siginfo_t si = {};
        Worker *w = userdata;
        int r;

        if (waitid(P_PIDFD, (id_t) fd, &si, WEXITED | WNOHANG) >= 0) {
                if (si.si_pid == 0)
                        return 0;
                w->death = (Death) { .known = true, .code = si.si_code, .status = si.si_status };
        } else if (errno != ECHILD)
                return -errno;
        else if (pidfd_get_death(fd, &w->death) == -EAGAIN)
                /* A child of PID 1, who has not reaped it yet; EPOLLHUP comes when that is done. */
                return sd_event_source_set_io_events(source, 0);

        /* A program that ends at once may be seen dead before its execve() is. */
        if (w->exec_fd >= 0) {
                r = spawn_read_exec_fd(w->exec_fd);
                if (r < 0)
                        w->exec_error = r;
        }

        w->ended = true;
        (void) sd_event_now(sd_event_source_get_event(source), CLOCK_MONOTONIC, &w->ended_usec);
        release_pidfd(w);
        w->on_fact(w, w->userdata);
        return 0;
}

int worker_new(sd_event *event, const WorkerParameters *p, Worker **ret_worker) {
        Worker *w;
        int r;

        assert(event);
        assert(p);
        assert(ret_worker);

        w = calloc(1, sizeof(*w));
        if (!w) {
                if (!p->adopted)
                        (void) pidfd_send_signal(p->pidfd, SIGKILL, NULL, 0);
                (void) safe_close(p->pidfd);
                (void) safe_close(p->exec_fd);
                return -ENOMEM;
        }
        *w = (Worker) {
                .slot = p->slot,
                .generation = p->generation,
                .pool_name = p->pool_name,
                .pid = p->pid,
                .start_time = p->start_time,
                .cookie = p->cookie,
                .adopted = p->adopted,
                .stranger = p->stranger,
                .pidfd = p->pidfd,
                .exec_fd = p->exec_fd,
                .introduced = p->adopted,
                .served = p->state > WORKER_STARTING,
                .executed = p->exec_fd < 0,
                .state = p->state,
                .state_since_usec = p->now_usec,
                .spawned_usec = p->spawned_usec,
                .on_fact = p->on_fact,
                .userdata = p->userdata,
        };

        r = sd_event_add_io(event, &w->death_source, w->pidfd, EPOLLIN, on_death_io, w);
        if (r >= 0 && w->exec_fd >= 0)
                r = sd_event_add_io(event, &w->exec_source, w->exec_fd, EPOLLIN, on_exec_io, w);
        if (r < 0) {
                if (!w->adopted)
                        (void) worker_signal(w, SIGKILL);
                worker_free(w);
                return r;
        }

        *ret_worker = w;
        return 0;
}

void worker_introduce(Worker *w) {
        if (w->introduced)
                return;
        w->introduced = true;
        worker_log(w, LOG_INFO, MESSAGE_WORKER_STATE, NULL, "starting, pid %d, generation %" PRIu64,
                   (int) w->pid, w->generation);
}

Worker *worker_free(Worker *w) {
        if (!w)
                return NULL;

        release_exec_fd(w);
        release_pidfd(w);
        free(w->retirement);
        free(w->requests);
        free(w);
        return NULL;
}
