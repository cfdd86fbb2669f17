/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SPDX-FileCopyrightText: fcgi-pool contributors */

/* Closed-loop FastCGI load client: each of N clients has one request in flight, checks every byte of the
 * response, and starts the next. One thread, one epoll instance, edge-triggered.
 *
 * What it believes: a request is started when its connect() is first tried; its latency and its time limit
 * run from there, so waiting for room in the listener's backlog counts. Nothing is ever tried again: a
 * request that fails is counted by the first thing that went wrong. The two exceptions are conditions on
 * our side of the socket, where no connection exists yet: a full AF_UNIX backlog (EAGAIN) and no free local
 * TCP port (EADDRNOTAVAIL). Both are waited for and counted apart.
 *
 * A worker may answer before it has read the whole body and close: then our write fails with EPIPE or
 * ECONNRESET while a good response waits to be read. So a write error only ends the writing; what is read
 * next decides. */

#include <assert.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "fcgi-wire.h"
#include "load-check.h"
#include "load-stats.h"
#include "tool.h"

#define REQUEST_ID 1
#define TARGETS_MAX 16
#define PARAMS_MAX 64
#define BODY_CHUNK 16384
#define READ_CHUNK (256 * 1024)
#define RETRY_NSEC (1 * NSEC_PER_MSEC)
/* After a refused connection the client rests this long, so that a missing listener is not a busy loop. */
#define REST_NSEC (10 * NSEC_PER_MSEC)
/* With --rate: how far behind the schedule may be made up for. */
#define RATE_DEBT_NSEC (100 * NSEC_PER_MSEC)

typedef struct Target {
        struct sockaddr_storage address;
        socklen_t n_address;
} Target;

typedef struct Options {
        Target targets[TARGETS_MAX];
        size_t n_targets;
        uint64_t n_clients;
        uint64_t n_requests; /* UINT64_MAX: no limit */
        uint64_t duration_nsec;
        uint64_t interval_nsec;
        uint64_t timeout_nsec;
        const char *method;
        uint64_t n_body;
        const char *query;
        const char *script;
        const char *params[PARAMS_MAX]; /* NAME=VALUE */
        size_t n_params;
        uint64_t split; /* 0: none */
        bool keep_conn;
        bool print;
        Expectation expect;
} Options;

typedef enum ClientState {
        CLIENT_IDLE,       /* on the idle queue; fd may be a kept connection */
        CLIENT_RESTING,    /* on the rest queue */
        CLIENT_RETRYING,   /* in a request, on the retry queue: cannot connect yet */
        CLIENT_CONNECTING, /* in a request, TCP handshake under way */
        CLIENT_ACTIVE,     /* in a request, connected */
} ClientState;

typedef struct Client {
        ClientState state;
        int fd;
        const Target *target;

        uint64_t serial;
        uint64_t started_nsec;
        uint64_t wake_nsec;
        bool reused;

        /* Sending. */
        WireBuffer out;
        size_t n_sent;
        uint64_t body_offset;
        uint32_t body_crc;
        bool stdin_ended;
        int write_error;

        /* Receiving. */
        WireDecoder decoder;
        Check check;
        bool stdout_ended;
        uint8_t end_body[8];
        size_t n_end_body;

        TAILQ_ENTRY(Client) queue;  /* idle, rest or retry */
        TAILQ_ENTRY(Client) flight; /* in flight, oldest first */
} Client;

TAILQ_HEAD(ClientQueue, Client);

typedef struct Load {
        const Options *options;
        int epoll_fd;
        int signal_fd;
        Client *clients;
        WireBuffer params; /* the pairs that are the same for all requests */
        uint8_t *chunk;

        struct ClientQueue idle, rest, retry, flight;
        uint64_t next_serial;
        uint64_t next_slot_nsec;
        uint64_t stop_nsec;
        bool stopping;

        Stats stats;
} Load;

/* ---- one request ------------------------------------------------------------------------------------- */

static void client_close(Client *c) {
        close_fdp(&c->fd);
}

static void client_become_idle(Load *l, Client *c) {
        c->state = CLIENT_IDLE;
        TAILQ_INSERT_TAIL(&l->idle, c, queue);
}

static void request_leave(Load *l, Client *c) {
        TAILQ_REMOVE(&l->flight, c, flight);
        if (c->state == CLIENT_RETRYING)
                TAILQ_REMOVE(&l->retry, c, queue);
}

static void request_failed(Load *l, Client *c, Failure kind, const char *detail) {
        uint64_t now = now_nsec();
        char text[200];

        snprintf(text, sizeof(text), "request %" PRIu64 "%s: %s",
                 c->serial, c->reused ? " on a kept connection" : "", detail);
        stats_failed(&l->stats, now, kind, text);
        if (l->options->print)
                fprintf(stderr, "fcgi-load: %s: %s\n", failure_to_string(kind), text);

        request_leave(l, c);
        client_close(c);
        if (kind == FAILURE_REFUSED || kind == FAILURE_OTHER) {
                c->state = CLIENT_RESTING;
                c->wake_nsec = now + REST_NSEC;
                TAILQ_INSERT_TAIL(&l->rest, c, queue);
        } else
                client_become_idle(l, c);
}

static void request_failed_errno(Load *l, Client *c, Failure kind, const char *what, int error) {
        char text[128];

        snprintf(text, sizeof(text), "%s: %s", what, strerror(error));
        request_failed(l, c, kind, text);
}

static void request_ended(Load *l, Client *c, bool more_data) {
        const uint8_t *e = c->end_body;
        uint32_t app_status = (uint32_t) e[0] << 24 | (uint32_t) e[1] << 16 | (uint32_t) e[2] << 8 | e[3];
        uint64_t now = now_nsec();
        Failure kind = check_end(&c->check, app_status, e[4]);

        if (more_data) {
                request_failed(l, c, FAILURE_PROTOCOL, "data after END_REQUEST");
                return;
        }
        if (kind != FAILURE_NONE) {
                char text[160];

                snprintf(text, sizeof(text), "pid %" PRId64 " status %d app_status %" PRIu32
                         " protocol_status %u, %u lines and %" PRIu64 " of %" PRIu64 " pad bytes%s",
                         c->check.pid, c->check.status, app_status, e[4], c->check.line_number,
                         c->check.n_pad, l->options->expect.n_pad,
                         c->check.wrong_body ? ", wrong from there" : "");
                request_failed(l, c, kind, text);
                return;
        }

        stats_ok(&l->stats, now, now - c->started_nsec, c->check.pid, c->check.generation);
        request_leave(l, c);
        if (!l->options->keep_conn || !c->stdin_ended || c->n_sent < c->out.n || c->write_error != 0)
                client_close(c);
        client_become_idle(l, c);
}

static void request_prepare(Load *l, Client *c) {
        const Options *o = l->options;
        WireBuffer *out = &c->out;
        char query[2048], uri[4096];
        size_t n_before, n_pairs;
        uint8_t *header;

        snprintf(query, sizeof(query), "%s%s", o->query, o->query[0] && !o->expect.any_body ? "&" : "");
        if (!o->expect.any_body)
                snprintf(query + strlen(query), sizeof(query) - strlen(query),
                         "size=%" PRIu64 "&start=%" PRIu64, o->expect.n_pad, c->serial);
        snprintf(uri, sizeof(uri), "%s?%s", o->script, query);

        wire_buffer_reset(out);
        c->n_sent = 0;
        wire_put_begin(out, REQUEST_ID, o->keep_conn);

        /* One PARAMS record, header filled in when the length is known; options are checked to fit. */
        n_before = out->n;
        wire_buffer_extend(out, WIRE_HEADER_SIZE);
        wire_buffer_append(out, l->params.data, l->params.n);
        wire_put_pair(out, "QUERY_STRING", query);
        wire_put_pair(out, "REQUEST_URI", uri);
        n_pairs = out->n - n_before - WIRE_HEADER_SIZE;
        assert(n_pairs <= WIRE_CONTENT_MAX);
        header = out->data + n_before;
        memcpy(header, (uint8_t[WIRE_HEADER_SIZE]) { WIRE_VERSION, WIRE_PARAMS, 0, REQUEST_ID,
               (uint8_t) (n_pairs >> 8), (uint8_t) n_pairs }, WIRE_HEADER_SIZE);
        wire_put_record(out, WIRE_PARAMS, REQUEST_ID, NULL, 0, 0);

        c->body_offset = 0;
        c->body_crc = 0;
        c->stdin_ended = false;
        c->write_error = 0;
        c->decoder = (WireDecoder) {};
        c->stdout_ended = false;
        c->n_end_body = 0;
        check_begin(&c->check, &o->expect, c->serial);
}

/* Appends the next part of the request body, or its end. */
static void request_extend(Load *l, Client *c) {
        uint64_t left = l->options->n_body - c->body_offset;
        size_t n = left < BODY_CHUNK ? (size_t) left : BODY_CHUNK;

        if (n > 0) {
                wire_pattern(c->serial, c->body_offset, l->chunk, n);
                c->body_crc = wire_crc32(c->body_crc, l->chunk, n);
                c->body_offset += n;
                wire_put_stream(&c->out, WIRE_STDIN, REQUEST_ID, l->chunk, n);
        }
        if (c->body_offset == l->options->n_body) {
                wire_put_record(&c->out, WIRE_STDIN, REQUEST_ID, NULL, 0, 0);
                c->stdin_ended = true;
        }
}

static void request_write(Load *l, Client *c) {
        while (c->write_error == 0) {
                size_t n = c->out.n - c->n_sent;
                ssize_t k;

                if (n < BODY_CHUNK && !c->stdin_ended) {
                        if (n == 0) {
                                wire_buffer_reset(&c->out);
                                c->n_sent = 0;
                        }
                        request_extend(l, c);
                        continue;
                }
                if (n == 0)
                        return;

                if (l->options->split > 0 && n > l->options->split)
                        n = (size_t) l->options->split;
                k = send(c->fd, c->out.data + c->n_sent, n, MSG_NOSIGNAL | MSG_DONTWAIT);
                if (k < 0 && errno == EINTR)
                        continue;
                if (k < 0 && errno == EAGAIN)
                        return;
                if (k < 0)
                        c->write_error = errno;
                else
                        c->n_sent += (size_t) k;
        }
}

/* Returns NULL, or what is wrong with the piece. */
static const char *request_take_piece(Load *l, Client *c, const WirePiece *p) {
        if (p->type == WIRE_GET_VALUES_RESULT || p->type == WIRE_UNKNOWN_TYPE)
                return "management record that nobody asked for";
        if (p->id != REQUEST_ID)
                return "record with a foreign request id";

        switch (p->type) {
        case WIRE_STDOUT:
                if (c->stdout_ended)
                        return "STDOUT after its end";
                c->stdout_ended = p->n_record == 0;
                if (check_feed(&c->check, p->data, p->n, c->body_crc) < 0)
                        return "malformed CGI header";
                return NULL;
        case WIRE_STDERR:
                l->stats.n_stderr_bytes += p->n;
                if (l->options->print)
                        fwrite(p->data, 1, p->n, stderr);
                return NULL;
        case WIRE_END_REQUEST:
                if (p->n_record != sizeof(c->end_body))
                        return "END_REQUEST that is not 8 bytes long";
                memcpy(c->end_body + c->n_end_body, p->data, p->n);
                c->n_end_body += p->n;
                return NULL;
        default:
                return "record type that only a web server may send";
        }
}

/* Returns false when the request is over. */
static bool request_take(Load *l, Client *c, const uint8_t *data, size_t n) {
        WirePiece piece;
        int r;

        while ((r = wire_decode(&c->decoder, &data, &n, &piece)) > 0) {
                const char *wrong = request_take_piece(l, c, &piece);

                if (wrong) {
                        request_failed(l, c, FAILURE_PROTOCOL, wrong);
                        return false;
                }
                if (piece.type == WIRE_END_REQUEST && piece.last) {
                        n -= c->decoder.padding_left < n ? c->decoder.padding_left : n;
                        request_ended(l, c, n > 0);
                        return false;
                }
        }
        if (r < 0) {
                request_failed(l, c, FAILURE_PROTOCOL, "not a FastCGI record");
                return false;
        }
        return true;
}

static void request_read(Load *l, Client *c) {
        for (;;) {
                ssize_t k = recv(c->fd, l->chunk, READ_CHUNK, MSG_DONTWAIT);

                if (k < 0 && errno == EINTR)
                        continue;
                if (k < 0 && errno == EAGAIN)
                        return;
                if (k < 0) {
                        Failure kind = errno == ECONNRESET ? FAILURE_RESET : FAILURE_OTHER;

                        request_failed_errno(l, c, kind, "read", errno);
                        return;
                }
                if (k == 0 && c->write_error != 0) {
                        request_failed_errno(l, c, FAILURE_RESET, "write, then end of file", c->write_error);
                        return;
                }
                if (k == 0) {
                        char text[96];

                        snprintf(text, sizeof(text), "closed before END_REQUEST, after %s",
                                 c->check.header_done             ? "part of the body"
                                 : c->decoder.n_header || c->check.n_header ? "part of the header"
                                                                  : "nothing");
                        request_failed(l, c, FAILURE_EOF, text);
                        return;
                }
                if (!request_take(l, c, l->chunk, (size_t) k))
                        return;
        }
}

static void client_watch(Load *l, Client *c) {
        struct epoll_event e = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c };

        if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, c->fd, &e) < 0)
                fail(EXIT_FAILURE, "epoll_ctl: %s", strerror(errno));
}

static void client_connected(Load *l, Client *c) {
        c->state = CLIENT_ACTIVE;
        request_write(l, c);
}

/* Whether the kept connection is still there. Its end may have come in the same event as the last response,
 * and an edge-triggered event does not come twice. */
static bool client_is_kept(const Client *c) {
        uint8_t byte;

        return c->fd >= 0 && recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

static void client_retry_later(Load *l, Client *c, uint64_t *counter) {
        (*counter)++;
        client_close(c);
        c->state = CLIENT_RETRYING;
        c->wake_nsec = now_nsec() + RETRY_NSEC;
        TAILQ_INSERT_TAIL(&l->retry, c, queue);
}

static void client_connect_failed(Load *l, Client *c, int error) {
        Failure kind = error == ECONNREFUSED || error == ENOENT ? FAILURE_REFUSED
                       : error == ECONNRESET                    ? FAILURE_RESET
                                                                : FAILURE_OTHER;

        request_failed_errno(l, c, kind, "connect", error);
}

static void client_connect(Load *l, Client *c) {
        int family = c->target->address.ss_family;

        c->fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (c->fd < 0) {
                request_failed_errno(l, c, FAILURE_OTHER, "socket", errno);
                return;
        }
        if (family != AF_UNIX)
                setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &(int) { 1 }, sizeof(int));

        if (connect(c->fd, (const struct sockaddr *) &c->target->address, c->target->n_address) >= 0) {
                client_connected(l, c);
                client_watch(l, c);
        } else if (errno == EINPROGRESS) {
                c->state = CLIENT_CONNECTING;
                client_watch(l, c);
        } else if (errno == EAGAIN && family == AF_UNIX)
                client_retry_later(l, c, &l->stats.n_backlog_waits);
        else if (errno == EADDRNOTAVAIL && family != AF_UNIX)
                client_retry_later(l, c, &l->stats.n_port_waits);
        else
                client_connect_failed(l, c, errno);
}

static void request_start(Load *l, Client *c, uint64_t now) {
        c->serial = l->next_serial++;
        c->started_nsec = now;
        c->reused = client_is_kept(c);
        if (!c->reused)
                client_close(c);
        l->stats.n_started++;
        request_prepare(l, c);
        TAILQ_INSERT_TAIL(&l->flight, c, flight);

        if (!c->reused) {
                client_connect(l, c);
                return;
        }
        client_connected(l, c);
        if (c->write_error != 0)
                request_read(l, c);
}

/* ---- the loop ---------------------------------------------------------------------------------------- */

static void on_client_event(Load *l, Client *c, uint32_t events) {
        int error = 0;

        if (c->fd < 0)
                return;

        if (c->state == CLIENT_IDLE) {
                uint8_t byte;

                /* A kept connection between two requests: the worker may close it, and nothing else. */
                if (recv(c->fd, &byte, 1, MSG_DONTWAIT) > 0)
                        stats_failed(&l->stats, now_nsec(), FAILURE_PROTOCOL, "data on an idle connection");
                else if (errno == EAGAIN && !(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
                        return;
                client_close(c);
                return;
        }

        if (c->state == CLIENT_CONNECTING) {
                if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
                        return;
                getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &(socklen_t) { sizeof(error) });
                if (error == EADDRNOTAVAIL) {
                        client_retry_later(l, c, &l->stats.n_port_waits);
                        return;
                }
                if (error != 0) {
                        client_connect_failed(l, c, error);
                        return;
                }
                client_connected(l, c);
        }

        if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
                request_write(l, c);
        if (events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP))
                request_read(l, c);
}

static void wake_sleepers(Load *l, uint64_t now) {
        Client *c;

        while ((c = TAILQ_FIRST(&l->rest)) && c->wake_nsec <= now) {
                TAILQ_REMOVE(&l->rest, c, queue);
                client_become_idle(l, c);
        }
        while ((c = TAILQ_FIRST(&l->retry)) && c->wake_nsec <= now) {
                TAILQ_REMOVE(&l->retry, c, queue);
                c->state = CLIENT_CONNECTING;
                client_connect(l, c);
        }
}

static void expire_requests(Load *l, uint64_t now) {
        Client *c;

        while ((c = TAILQ_FIRST(&l->flight)) && c->started_nsec + l->options->timeout_nsec <= now)
                request_failed(l, c, FAILURE_TIMEOUT,
                               c->state != CLIENT_ACTIVE ? "not connected"
                               : c->check.header_done    ? "response not complete"
                                                         : "no response");
}

static void start_requests(Load *l, uint64_t now) {
        const Options *o = l->options;
        Client *c;

        l->stopping = l->stopping || now >= l->stop_nsec;
        while (!l->stopping && l->next_serial < o->n_requests && (c = TAILQ_FIRST(&l->idle))) {
                if (o->interval_nsec > 0) {
                        if (l->next_slot_nsec + RATE_DEBT_NSEC < now)
                                l->next_slot_nsec = now - RATE_DEBT_NSEC;
                        if (l->next_slot_nsec > now)
                                return;
                        l->next_slot_nsec += o->interval_nsec;
                }
                TAILQ_REMOVE(&l->idle, c, queue);
                request_start(l, c, now);
        }
}

static uint64_t next_wake(const Load *l) {
        const Options *o = l->options;
        const Client *c;
        uint64_t t = UINT64_MAX;

#define EARLIER(when) ((when) < t ? (when) : t)
        if ((c = TAILQ_FIRST(&l->rest)))
                t = EARLIER(c->wake_nsec);
        if ((c = TAILQ_FIRST(&l->retry)))
                t = EARLIER(c->wake_nsec);
        if ((c = TAILQ_FIRST(&l->flight)))
                t = EARLIER(c->started_nsec + o->timeout_nsec);
        if (!l->stopping)
                t = EARLIER(l->stop_nsec);
        if (!l->stopping && o->interval_nsec > 0 && l->next_serial < o->n_requests && !TAILQ_EMPTY(&l->idle))
                t = EARLIER(l->next_slot_nsec);
#undef EARLIER
        return t;
}

static void wait_events(Load *l) {
        struct epoll_event events[256];
        uint64_t now = now_nsec(), wake = next_wake(l);
        uint64_t left = wake > now ? wake - now : 0;
        struct timespec ts = {
                .tv_sec = (time_t) (left / NSEC_PER_SEC),
                .tv_nsec = (long) (left % NSEC_PER_SEC),
        };
        int n;

        n = epoll_pwait2(l->epoll_fd, events, ELEMENTSOF(events), wake == UINT64_MAX ? NULL : &ts, NULL);
        if (n < 0 && errno != EINTR)
                fail(EXIT_FAILURE, "epoll_pwait2: %s", strerror(errno));

        for (int i = 0; i < n; i++) {
                if (events[i].data.ptr)
                        on_client_event(l, events[i].data.ptr, events[i].events);
                else {
                        struct signalfd_siginfo info;

                        /* Keep the signal fd readable: the first signal is enough. */
                        l->stopping = read(l->signal_fd, &info, sizeof(info)) > 0 || l->stopping;
                }
        }
}

static bool load_finished(const Load *l) {
        return TAILQ_EMPTY(&l->flight) && (l->stopping || l->next_serial >= l->options->n_requests);
}

static void load_run(Load *l) {
        l->stats.begin_nsec = l->next_slot_nsec = now_nsec();
        l->stop_nsec = UINT64_MAX;
        if (l->options->duration_nsec > 0)
                l->stop_nsec = l->stats.begin_nsec + l->options->duration_nsec;

        for (;;) {
                uint64_t now = now_nsec();

                wake_sleepers(l, now);
                expire_requests(l, now);
                start_requests(l, now);
                if (load_finished(l))
                        break;
                wait_events(l);
        }
        l->stats.end_nsec = now_nsec();
}

/* ---- set-up ------------------------------------------------------------------------------------------ */

/* Adds a pair unless --param gives the same name. */
static void put_default(WireBuffer *b, const Options *o, const char *name, const char *value) {
        size_t n = strlen(name);

        for (size_t i = 0; i < o->n_params; i++)
                if (strncmp(o->params[i], name, n) == 0 && o->params[i][n] == '=')
                        return;
        wire_put_pair(b, name, value);
}

static void load_init_params(Load *l) {
        const Options *o = l->options;
        WireBuffer *b = &l->params;
        char length[24] = "";

        if (o->n_body > 0)
                snprintf(length, sizeof(length), "%" PRIu64, o->n_body);
        put_default(b, o, "GATEWAY_INTERFACE", "CGI/1.1");
        put_default(b, o, "SERVER_SOFTWARE", "fcgi-load");
        put_default(b, o, "SERVER_PROTOCOL", "HTTP/1.1");
        put_default(b, o, "SERVER_NAME", "localhost");
        put_default(b, o, "SERVER_ADDR", "127.0.0.1");
        put_default(b, o, "SERVER_PORT", "80");
        put_default(b, o, "REMOTE_ADDR", "127.0.0.1");
        put_default(b, o, "REMOTE_PORT", "1");
        put_default(b, o, "REQUEST_METHOD", o->method);
        put_default(b, o, "REQUEST_SCHEME", "http");
        put_default(b, o, "HTTP_HOST", "localhost");
        put_default(b, o, "SCRIPT_NAME", o->script);
        put_default(b, o, "SCRIPT_FILENAME", o->script);
        put_default(b, o, "DOCUMENT_URI", o->script);
        put_default(b, o, "CONTENT_TYPE", o->n_body > 0 ? "application/octet-stream" : "");
        put_default(b, o, "CONTENT_LENGTH", length);
        put_default(b, o, "REDIRECT_STATUS", "200"); /* php-cgi wants it */

        for (size_t i = 0; i < o->n_params; i++) {
                _cleanup_free_ char *name = strdup(o->params[i]);
                char *equals = name ? strchr(name, '=') : NULL;

                assert(equals);
                *equals = '\0';
                wire_put_pair(b, name, equals + 1);
        }
        if (b->n > WIRE_CONTENT_MAX - 8192)
                fail(EXIT_USAGE, "the parameters are too long for one PARAMS record");
}

static void load_init(Load *l, const Options *o) {
        struct epoll_event event = { .events = EPOLLIN }; /* no data pointer: the signal fd */
        sigset_t mask;

        *l = (Load) { .options = o, .epoll_fd = -EBADF, .signal_fd = -EBADF };
        TAILQ_INIT(&l->idle);
        TAILQ_INIT(&l->rest);
        TAILQ_INIT(&l->retry);
        TAILQ_INIT(&l->flight);
        load_init_params(l);

        l->chunk = malloc(READ_CHUNK);
        l->clients = calloc((size_t) o->n_clients, sizeof(Client));
        if (!l->clients || !l->chunk)
                fail(EXIT_FAILURE, "out of memory");
        for (uint64_t i = 0; i < o->n_clients; i++) {
                l->clients[i].fd = -EBADF;
                l->clients[i].target = o->targets + i % o->n_targets;
                client_become_idle(l, l->clients + i);
        }

        sigemptyset(&mask);
        sigaddset(&mask, SIGINT);
        sigaddset(&mask, SIGTERM);
        sigprocmask(SIG_BLOCK, &mask, NULL);
        l->signal_fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
        l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        if (l->signal_fd < 0 || l->epoll_fd < 0 ||
            epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->signal_fd, &event) < 0)
                fail(EXIT_FAILURE, "cannot set up the event loop: %s", strerror(errno));
}

static void load_done(Load *l) {
        for (uint64_t i = 0; i < l->options->n_clients; i++) {
                client_close(l->clients + i);
                wire_buffer_done(&l->clients[i].out);
        }
        free(l->clients);
        free(l->chunk);
        wire_buffer_done(&l->params);
        close_fdp(&l->epoll_fd);
        close_fdp(&l->signal_fd);
        stats_done(&l->stats);
}

/* ---- options ----------------------------------------------------------------------------------------- */

static void parse_unix(Target *t, const char *path) {
        struct sockaddr_un *a = (struct sockaddr_un *) &t->address;
        size_t n = strlen(path);

        if (n == 0 || n >= sizeof(a->sun_path))
                fail(EXIT_USAGE, "--connect=unix:%s: expected a path of 1 to %zu bytes",
                     path, sizeof(a->sun_path) - 1);
        a->sun_family = AF_UNIX;
        memcpy(a->sun_path, path, n + 1);
        t->n_address = (socklen_t) (offsetof(struct sockaddr_un, sun_path) + n + 1);
        if (path[0] == '@') { /* abstract */
                a->sun_path[0] = '\0';
                t->n_address--;
        }
}

static void parse_inet(Target *t, const char *text) {
        const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
        struct addrinfo *found = NULL;
        char host[256];
        const char *colon = strrchr(text, ':');
        size_t n = colon ? (size_t) (colon - text) : 0;
        const char *begin = text;
        int r;

        if (n >= 2 && text[0] == '[' && text[n - 1] == ']') {
                begin++;
                n -= 2;
        }
        if (!colon || n == 0 || n >= sizeof(host))
                fail(EXIT_USAGE, "--connect=%s: expected unix:PATH, HOST:PORT or [ADDRESS]:PORT", text);
        memcpy(host, begin, n);
        host[n] = '\0';

        r = getaddrinfo(host, colon + 1, &hints, &found);
        if (r != 0)
                fail(EXIT_USAGE, "--connect=%s: %s", text, gai_strerror(r));
        memcpy(&t->address, found->ai_addr, found->ai_addrlen);
        t->n_address = found->ai_addrlen;
        freeaddrinfo(found);
}

static void add_target(Options *o, const char *text) {
        if (o->n_targets == TARGETS_MAX)
                fail(EXIT_USAGE, "--connect=%s: at most %d targets", text, TARGETS_MAX);
        if (strncmp(text, "unix:", 5) == 0)
                parse_unix(o->targets + o->n_targets, text + 5);
        else
                parse_inet(o->targets + o->n_targets, text);
        o->n_targets++;
}

static bool query_has(const char *query, const char *name) {
        size_t n = strlen(name);

        for (const char *p = query; p; p = strchr(p, '&')) {
                p += *p == '&';
                if (strncmp(p, name, n) == 0 && p[n] == '=')
                        return true;
        }
        return false;
}

static void usage(FILE *f) {
        fputs("Usage: fcgi-load --connect=ADDRESS [OPTIONS]\n"
              "Sends FastCGI requests in a closed loop, checks every byte of every response\n"
              "(echo-contract.h) and prints one JSON object. Exit status: 0 no failure, 1 at least one,\n"
              "2 wrong usage.\n\n"
              "      --connect=ADDRESS     unix:/PATH, unix:@ABSTRACT, HOST:PORT or [IPV6]:PORT; given\n"
              "                            several times, clients take turns\n"
              "      --clients=N           requests in flight at a time (default 1)\n"
              "      --requests=N          stop after N requests (default 1 without --duration)\n"
              "      --duration=SECONDS    start no request after that time\n"
              "      --rate=N              start at most N requests per second, over all clients\n"
              "      --timeout=SECONDS     limit for one request, from the first connect() on (default 30)\n"
              "      --method=METHOD       default GET, or POST with --body\n"
              "      --body=BYTES          send a request body of that size\n"
              "      --query=STRING        query string; size= and start= are added\n"
              "      --expect-body=BYTES   ask for that much pattern in the response (default 0)\n"
              "      --expect-status=CODE  default 200\n"
              "      --any-body            not an echo program: check protocol and status only\n"
              "      --script=/NAME        SCRIPT_NAME and SCRIPT_FILENAME (default /echo)\n"
              "      --param=NAME=VALUE    further or replaced FastCGI parameter, repeatable\n"
              "      --keep-conn           use connections for more than one request\n"
              "      --split=N             write at most N bytes at a time\n"
              "      --print               one request: response to stdout, stderr records to stderr, no\n"
              "                            JSON; implies --any-body\n"
              "      --help\n\n"
              "SIGINT and SIGTERM: starts no more requests, finishes those in flight, prints.\n",
              f);
}

static const struct option option_table[] = {
        { "connect", required_argument, NULL, 'c' },
        { "clients", required_argument, NULL, 'n' },
        { "requests", required_argument, NULL, 'r' },
        { "duration", required_argument, NULL, 'd' },
        { "rate", required_argument, NULL, 'R' },
        { "timeout", required_argument, NULL, 't' },
        { "method", required_argument, NULL, 'm' },
        { "body", required_argument, NULL, 'b' },
        { "query", required_argument, NULL, 'q' },
        { "expect-body", required_argument, NULL, 'e' },
        { "expect-status", required_argument, NULL, 'S' },
        { "any-body", no_argument, NULL, 'a' },
        { "script", required_argument, NULL, 's' },
        { "param", required_argument, NULL, 'p' },
        { "keep-conn", no_argument, NULL, 'k' },
        { "split", required_argument, NULL, 'x' },
        { "print", no_argument, NULL, 'P' },
        { "help", no_argument, NULL, 'h' },
        {},
};

static void add_param(Options *o, const char *text) {
        if (o->n_params == PARAMS_MAX || !strchr(text, '=') || text[0] == '=')
                fail(EXIT_USAGE, "--param=%s: expected NAME=VALUE, at most %d times", text, PARAMS_MAX);
        o->params[o->n_params++] = text;
}

static void take_number_option(Options *o, int option, const char *value) {
        switch (option) {
        case 'n':
                o->n_clients = parse_number("--clients", value, 100000);
                break;
        case 'r':
                o->n_requests = parse_number("--requests", value, UINT64_MAX - 1);
                break;
        case 'd':
                o->duration_nsec = parse_seconds("--duration", value);
                break;
        case 'R': {
                uint64_t rate = parse_number("--rate", value, 10000000);

                o->interval_nsec = rate > 0 ? NSEC_PER_SEC / rate : 0;
                break;
        }
        case 't':
                o->timeout_nsec = parse_seconds("--timeout", value);
                break;
        case 'b':
                o->n_body = parse_number("--body", value, UINT64_C(1) << 40);
                break;
        case 'e':
                o->expect.n_pad = parse_number("--expect-body", value, UINT64_C(1) << 40);
                break;
        case 'S':
                o->expect.status = (int) parse_number("--expect-status", value, 999);
                break;
        case 'x':
                o->split = parse_number("--split", value, UINT32_MAX);
                break;
        }
}

static void take_option(Options *o, int option, const char *value) {
        switch (option) {
        case 'c':
                add_target(o, value);
                break;
        case 'm':
                o->method = value;
                break;
        case 'q':
                o->query = value;
                break;
        case 'a':
                o->expect.any_body = true;
                break;
        case 's':
                o->script = value;
                break;
        case 'p':
                add_param(o, value);
                break;
        case 'k':
                o->keep_conn = true;
                break;
        case 'P':
                o->print = o->expect.any_body = true;
                o->expect.print = stdout;
                break;
        case 'h':
                usage(stdout);
                exit(EXIT_SUCCESS);
        case '?':
                fail(EXIT_USAGE, "try --help");
        default:
                take_number_option(o, option, value);
        }
}

static void options_parse(Options *o, int argc, char *argv[]) {
        int c;

        *o = (Options) {
                .n_clients = 1,
                .n_requests = UINT64_MAX,
                .timeout_nsec = 30 * NSEC_PER_SEC,
                .query = "",
                .script = "/echo",
                .expect = { .status = 200 },
        };

        while ((c = getopt_long(argc, argv, "", option_table, NULL)) >= 0)
                take_option(o, c, optarg);

        if (optind < argc)
                fail(EXIT_USAGE, "unexpected argument '%s'", argv[optind]);
        if (o->n_targets == 0)
                fail(EXIT_USAGE, "--connect is missing; try --help");
        if (o->n_clients == 0)
                fail(EXIT_USAGE, "--clients: expected at least 1");
        if (strlen(o->query) > 1024 || strlen(o->script) > 1024)
                fail(EXIT_USAGE, "--query and --script may be 1024 bytes long");
        if (!o->expect.any_body && (query_has(o->query, "size") || query_has(o->query, "start")))
                fail(EXIT_USAGE, "--query: size= and start= are set by this program");
        if (o->print)
                o->n_requests = o->n_clients = 1;
        else if (o->n_requests == UINT64_MAX && o->duration_nsec == 0)
                o->n_requests = 1;
        if (!o->method)
                o->method = o->n_body > 0 ? "POST" : "GET";
        o->expect.n_body = o->n_body;
        o->expect.env_line = query_has(o->query, "env");
}

int main(int argc, char *argv[]) {
        static Load load;
        Options options;
        bool good;

        options_parse(&options, argc, argv);
        load_init(&load, &options);
        load_run(&load);
        good = stats_n_failures(&load.stats) == 0;
        if (options.print)
                fflush(stdout);
        else
                stats_print(&load.stats, stdout);
        load_done(&load);
        return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
