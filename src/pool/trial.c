/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* One worker of a new generation, on a listener of its own, is asked --probe= before any worker of the old
 * one is replaced.
 *
 * The listener is ours alone: we connect to it, and then take its name away, before there is anybody to
 * accept. The request waits in its queue, so when the worker is ready need not be known. A process cannot
 * change its listener, so the one that was on trial ends whatever it has answered, and the first successor
 * starts after it.
 *
 * To the pool it is a worker that belongs to no slot. It is not in the records: should we die, the next
 * helper finds a stranger, retires it, and begins the trial anew. */

#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <systemd/sd-event.h>

#include "clock.h"
#include "exchange.h"
#include "pool-internal.h"
#include "runtime-directory.h"
#include "text.h"

#define OUTPUT_MAX (64U * 1024)
#define ERRORS_MAX (4U * 1024)
#define DEATH_USEC (100 * USEC_PER_MSEC) /* within which a process is dead that has closed all it had */

struct Trial {
        Worker *worker;            /* borrowed; NULL: it has ended */
        Exchange *exchange;
        sd_event_source *source;   /* on the connection */
        uint64_t end_usec;
        bool done, passed;
        char text[256];            /* what is wrong with it */
};

static Trial *trial_free(Trial *trial) {
        if (!trial)
                return NULL;
        sd_event_source_disable_unref(trial->source);
        exchange_free(trial->exchange);
        free(trial);
        return NULL;
}

DEFINE_TRIVIAL_CLEANUP_FUNC(Trial *, trial_free);

/* --- the verdict --- */

/* The last line that it wrote to FCGI_STDERR, for the one line that people get. */
static void append_last_line(Trial *trial, const FcgiStream *errors) {
        size_t end = errors->size, begin, n = strlen(trial->text);

        while (end > 0 && (errors->data[end - 1] == '\n' || errors->data[end - 1] == '\r'))
                end--;
        for (begin = end; begin > 0 && errors->data[begin - 1] != '\n';)
                begin--;
        if (begin == end)
                return;
        (void) snprintf(trial->text + n, sizeof(trial->text) - n, ": %.*s",
                        (int) MIN_OF(end - begin, (size_t) 120), errors->data + begin);
        text_make_ascii(trial->text + n);
}

static void judge_answer(Trial *trial, const char *path) {
        const FcgiAnswer *answer = exchange_get_answer(trial->exchange);
        CgiResponse response;
        Problem problem;

        if (answer->protocol_status != FCGI_REQUEST_COMPLETE)
                (void) snprintf(trial->text, sizeof(trial->text), "--probe=%s was refused with %s", path,
                                fcgi_protocol_status_to_string(answer->protocol_status));
        else if (cgi_parse_response(answer->output.data, answer->output.size, &response, &problem) < 0)
                (void) snprintf(trial->text, sizeof(trial->text),
                                "--probe=%.80s was answered with no response: %.120s", path, problem.text);
        else if (response.status >= 400)
                (void) snprintf(trial->text, sizeof(trial->text),
                                "--probe=%s was answered with status %u, expected one below 400", path,
                                response.status);
        else {
                trial->passed = true;
                return;
        }
        append_last_line(trial, &answer->errors);
}

static int on_answer(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        Pool *pool = userdata;
        Trial *trial = pool->trial;
        Problem problem;
        int r;

        r = exchange_drive(trial->exchange, &problem);
        if (r == 0) {
                revents = (uint32_t) exchange_get_events(trial->exchange);
                return sd_event_source_set_io_events(source, revents);
        }
        if (r > 0)
                judge_answer(trial, pool->p.config->probe);
        else {
                (void) snprintf(trial->text, sizeof(trial->text), "--probe=%.80s: %.120s",
                                pool->p.config->probe, problem.text);
                append_last_line(trial, &exchange_get_answer(trial->exchange)->errors);
                trial->end_usec = MIN_OF(trial->end_usec, usec_add(pool_now(pool), DEATH_USEC));
        }
        trial->done = r > 0;
        trial->source = sd_event_source_disable_unref(trial->source);
        pool_request_reconcile(pool);
        return 0;
}

/* --- the process --- */

/* A listener that has one client, *ret_client_fd, and nobody else can find. */
static int open_listener(bool nonblocking, int *ret_client_fd) {
        _cleanup_close_ int fd = -EBADF, client_fd = -EBADF;
        char buffer[PATH_MAX];
        const char *directory = runtime_directory(buffer);
        struct sockaddr_un sa = { .sun_family = AF_UNIX };
        socklen_t size = sizeof(sa);
        int r = 0;

        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (nonblocking ? SOCK_NONBLOCK : 0), 0);
        client_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0 || client_fd < 0)
                return -errno;
        if (directory && (size_t) snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/trial", directory) >=
            sizeof(sa.sun_path))
                return -ENAMETOOLONG;
        if (directory && unlink(sa.sun_path) < 0 && errno != ENOENT)
                return -errno;
        if (bind(fd, (struct sockaddr *) &sa, directory ? sizeof(sa) : sizeof(sa_family_t)) < 0 ||
            listen(fd, 16) < 0 || getsockname(fd, (struct sockaddr *) &sa, &size) < 0 ||
            connect(client_fd, (struct sockaddr *) &sa, size) < 0)
                r = -errno;
        if (directory)
                (void) unlink(sa.sun_path);
        if (r < 0)
                return r;
        *ret_client_fd = TAKE_FD(client_fd);
        return TAKE_FD(fd);
}

static int start(Pool *pool, Trial *trial, uint64_t now_usec) {
        _cleanup_close_ int listener_fd = -EBADF;
        WorkerParameters parameters = {
                .slot = 0,
                .generation = pool->generation,
                .pool_name = pool->p.name,
                .state = WORKER_READY,
                .stranger = true,
                .spawned_usec = now_usec,
                .now_usec = now_usec,
                .on_fact = pool_on_worker_fact,
                .userdata = pool,
        };
        Worker *w;
        int r, client_fd = -EBADF;

        listener_fd = open_listener(pool_listener_of(pool, 0)->nonblocking, &client_fd);
        if (listener_fd < 0)
                return listener_fd;
        r = exchange_new_get(client_fd, pool->p.config->probe, OUTPUT_MAX, ERRORS_MAX, &trial->exchange);
        if (r >= 0)
                r = sd_event_add_io(pool->event, &trial->source, exchange_get_fd(trial->exchange),
                                    EPOLLIN | EPOLLOUT, on_answer, pool);
        if (r >= 0)
                r = pool_spawn_process(pool, 0, listener_fd, &parameters.pid, &parameters.pidfd,
                                       &parameters.exec_fd);
        if (r >= 0)
                r = worker_new(pool->event, &parameters, &w);
        if (r < 0)
                return r;
        w->on_trial = true;
        pool_add_worker(pool, w);
        trial->worker = w;
        return 0;
}

static void begin(Pool *pool, uint64_t now_usec) {
        _cleanup_(trial_freep) Trial *trial = calloc(1, sizeof(*trial));
        int r;

        r = trial ? start(pool, trial, now_usec) : -ENOMEM;
        if (!trial)
                return; /* there will be another pass */
        trial->end_usec = usec_add(now_usec, pool->p.config->start_timeout_usec);
        if (r < 0) {
                (void) snprintf(trial->text, sizeof(trial->text), "no worker could be tried: %s",
                                strerror(-r));
                trial->done = true;
                pool_request_reconcile(pool);
        }
        pool->trial = TAKE_PTR(trial);
}

/* --- what the pool asks --- */

bool trial_is_due(const Pool *pool) {
        return pool->rolling && pool->p.config->probe && !pool->roll.tried;
}

void trial_on_death(Pool *pool, const Worker *w) {
        char death[160];

        if (!pool->trial || pool->trial->worker != w)
                return;
        pool->trial->worker = NULL;
        if (pool->trial->done)
                return;
        (void) snprintf(pool->trial->text, sizeof(pool->trial->text),
                        "the worker on trial %s before it had answered --probe=%.80s",
                        worker_format_death(w, death, sizeof(death)), pool->p.config->probe);
        if (pool->trial->exchange)
                append_last_line(pool->trial, &exchange_get_answer(pool->trial->exchange)->errors);
        pool->trial->done = true;
}

void trial_discard(Pool *pool) {
        pool->trial = trial_free(pool->trial);
}

/* Its worker may go. */
static void end(Pool *pool) {
        if (pool->trial->worker)
                pool->trial->worker->dismissed = true;
        trial_discard(pool);
        pool_request_reconcile(pool);
}

static void lose_patience(Pool *pool, Trial *trial) {
        char span[64], where[96];

        trial->done = true;
        if (trial->text[0] != '\0') /* the connection has ended, and its worker lives */
                return;
        (void) snprintf(trial->text, sizeof(trial->text),
                        "--probe=%s was not answered within --start-timeout=%s, connection still open %s",
                        pool->p.config->probe,
                        clock_format_span(span, sizeof(span), pool->p.config->start_timeout_usec),
                        exchange_describe(trial->exchange, where, sizeof(where)));
}

bool trial_drive(Pool *pool, uint64_t now_usec, uint64_t *ret_next_usec) {
        bool passed;

        *ret_next_usec = USEC_INFINITY;
        if (!trial_is_due(pool)) {
                if (pool->trial)
                        end(pool);
                return true;
        }
        if (!pool->trial)
                begin(pool, now_usec);
        if (!pool->trial)
                return true;
        if (!pool->trial->done && now_usec >= pool->trial->end_usec)
                lose_patience(pool, pool->trial);
        if (!pool->trial->done) {
                *ret_next_usec = pool->trial->end_usec;
                return true;
        }
        passed = pool->trial->passed;
        if (!passed)
                (void) snprintf(pool->last_failure, sizeof(pool->last_failure), "%s", pool->trial->text);
        pool->roll.tried = passed;
        end(pool);
        return passed;
}
