/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A web server's part, played once, to see what an application says without one: the body goes to standard
 * output as it is, everything else to standard error, so that the body can be piped. For a terminal control
 * characters of everything else are made harmless; the body is the user's own. */

#include <ctype.h>
#include <inttypes.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "clock.h"
#include "exchange.h"
#include "probe.h"
#include "text.h"

#define TIMEOUT_USEC (30 * USEC_PER_SEC)
#define OUTPUT_MAX (16U * 1024 * 1024)
#define ERRORS_MAX (1U * 1024 * 1024)
#define EXPECTED_ADDRESS "expected /PATH, @ABSTRACT, HOST:PORT or [ADDRESS]:PORT"

typedef struct Times {
        uint64_t connected_usec, first_usec, end_usec; /* since the beginning; first: of the answer */
} Times;

/* --- the connection --- */

static int wait_for(int fd, short events, uint64_t end_usec) {
        uint64_t left = usec_sub(end_usec, clock_now_usec());
        struct pollfd p = { .fd = fd, .events = events };
        int r;

        if (left == 0) /* however much there still is to come */
                return -ETIMEDOUT;
        r = poll(&p, 1, (int) MIN_OF((left + 999) / USEC_PER_MSEC, (uint64_t) INT32_MAX));
        if (r < 0)
                return errno == EINTR ? 0 : -errno;
        return r == 0 ? -ETIMEDOUT : 0;
}

static int dial(const struct sockaddr *sa, socklen_t size, uint64_t end_usec) {
        _cleanup_close_ int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        int r, error = 0;

        if (fd < 0)
                return -errno;
        while (connect(fd, sa, size) < 0) {
                if (errno == EINPROGRESS) {
                        r = wait_for(fd, POLLOUT, end_usec);
                        if (r >= 0)
                                r = socket_get_int(fd, SO_ERROR, &error);
                        if (r >= 0)
                                r = -error;
                        if (r < 0)
                                return r;
                        break;
                }
                /* AF_UNIX: the queue is full, and there is nothing to wait for. */
                if (errno != EAGAIN)
                        return -errno;
                if (clock_now_usec() >= end_usec)
                        return -ETIMEDOUT;
                (void) poll(NULL, 0, 1);
        }
        return TAKE_FD(fd);
}

static int dial_unix(const char *address, uint64_t end_usec, Problem *ret_problem) {
        struct sockaddr_un sa = { .sun_family = AF_UNIX };
        size_t l = strlen(address), size = offsetof(struct sockaddr_un, sun_path) + l;
        int r;

        if (l >= sizeof(sa.sun_path))
                return problem_set(ret_problem, EXIT_STATUS_INVALID_ARGUMENT, -ENAMETOOLONG,
                                   "too long for a socket, expected less than %zu characters",
                                   sizeof(sa.sun_path));
        memcpy(sa.sun_path, address, l);
        if (address[0] == '@')
                sa.sun_path[0] = '\0';
        else
                size++;
        r = dial((struct sockaddr *) &sa, (socklen_t) size, end_usec);
        if (r < 0)
                return problem_set(ret_problem, EXIT_STATUS_UNAVAILABLE, r, "%s", strerror(-r));
        return r;
}

static int dial_inet(const char *address, uint64_t end_usec, Problem *ret_problem) {
        const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
        const char *colon = strrchr(address, ':');
        _cleanup_free_ char *host = NULL;
        struct addrinfo *found;
        int r = -ECONNREFUSED, q;

        if (!colon || colon == address || colon[1] == '\0')
                return problem_set(ret_problem, EXIT_STATUS_INVALID_ARGUMENT, -EINVAL, EXPECTED_ADDRESS);
        host = address[0] == '[' && colon[-1] == ']' ? strndup(address + 1, (size_t) (colon - address) - 2) :
                strndup(address, (size_t) (colon - address));
        if (!host)
                return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, -ENOMEM, "Out of memory");
        q = getaddrinfo(host, colon + 1, &hints, &found);
        if (q != 0)
                return problem_set(ret_problem, EXIT_STATUS_UNAVAILABLE, -EHOSTUNREACH, "%s",
                                   gai_strerror(q));
        for (const struct addrinfo *a = found; a; a = a->ai_next) {
                r = dial(a->ai_addr, a->ai_addrlen, end_usec);
                if (r >= 0)
                        break;
        }
        freeaddrinfo(found);
        if (r < 0)
                return problem_set(ret_problem, EXIT_STATUS_UNAVAILABLE, r, "%s", strerror(-r));
        return r;
}

/* --- the request --- */

static int drive(Exchange *exchange, uint64_t begin_usec, Times *times, Problem *ret_problem) {
        uint64_t end_usec = usec_add(begin_usec, TIMEOUT_USEC);
        char where[96];
        int r;

        while ((r = exchange_drive(exchange, ret_problem)) == 0) {
                const FcgiAnswer *answer = exchange_get_answer(exchange);

                if (times->first_usec == 0 && answer->output.size + answer->errors.size > 0)
                        times->first_usec = clock_now_usec() - begin_usec;
                r = wait_for(exchange_get_fd(exchange), exchange_get_events(exchange), end_usec);
                if (r < 0)
                        return problem_set(ret_problem, EXIT_STATUS_UNAVAILABLE, r,
                                           "no answer within 30s, %s",
                                           exchange_describe(exchange, where, sizeof(where)));
        }
        times->end_usec = clock_now_usec() - begin_usec;
        if (times->first_usec == 0)
                times->first_usec = times->end_usec;
        return r < 0 ? r : 0;
}

/* --- what is printed --- */

/* Lines, each behind a prefix. */
static void print_harmless(FILE *file, const char *prefix, const char *data, size_t size) {
        bool begins = true, harmless;
        size_t n;

        for (size_t i = 0; i < size; i += n) {
                n = text_next(data + i, size - i, &harmless);
                if (data[i] == '\r' && i + 1 < size && data[i + 1] == '\n')
                        continue;
                if (begins)
                        fputs(prefix, file);
                begins = data[i] == '\n';
                if (harmless || begins || data[i] == '\t')
                        (void) fwrite(data + i, 1, n, file);
                else
                        fputc('?', file);
        }
        if (!begins)
                fputc('\n', file);
}

static void print_usec(FILE *file, const char *name, uint64_t usec) {
        fprintf(file, "%s %" PRIu64 ".%03" PRIu64 "ms", name, usec / 1000, usec % 1000);
}

static void print_answer(const FcgiAnswer *answer, const CgiResponse *response, const Times *times,
                         bool legend) {
        if (legend) {
                fprintf(stderr, "%u ", response->status);
                print_harmless(stderr, "", response->reason.data, response->reason.size);
                if (response->reason.size == 0)
                        fputc('\n', stderr);
                print_harmless(stderr, "", response->header.data, response->header.size);
                fputc('\n', stderr);
                (void) fflush(stderr);
        }
        (void) fwrite(response->body.data, 1, response->body.size, stdout);
        (void) fflush(stdout);
        print_harmless(stderr, "stderr: ", answer->errors.data, answer->errors.size);
        if (answer->output.truncated || answer->errors.truncated)
                fprintf(stderr, "There was more, which is left out\n");
        if (!legend)
                return;
        print_usec(stderr, "\nconnected after", times->connected_usec);
        print_usec(stderr, ", first bytes after", times->first_usec);
        print_usec(stderr, ", end after", times->end_usec);
        fprintf(stderr, "; %s, application status %" PRIu32 "\n",
                fcgi_protocol_status_to_string(answer->protocol_status), answer->app_status);
}

static void print_json(const FcgiAnswer *answer, const CgiResponse *response, const Times *times,
                       JsonMode mode) {
        Json json = json_begin(stdout, mode);

        json_open(&json, NULL, '{');
        json_unsigned(&json, "status", response->status);
        json_bytes(&json, "reason", response->reason.data, response->reason.size);
        json_bytes(&json, "header", response->header.data, response->header.size);
        json_bytes(&json, "body", response->body.data, response->body.size);
        json_bytes(&json, "stderr", answer->errors.data, answer->errors.size);
        json_bool(&json, "truncated", answer->output.truncated || answer->errors.truncated);
        json_string(&json, "protocol_status", fcgi_protocol_status_to_string(answer->protocol_status));
        json_unsigned(&json, "app_status", answer->app_status);
        json_unsigned(&json, "connected_usec", times->connected_usec);
        json_unsigned(&json, "first_usec", times->first_usec);
        json_unsigned(&json, "end_usec", times->end_usec);
        json_close(&json, '{');
}

static int probe_address(const Output *output, const char *address, const char *path, unsigned *ret_status,
                         Problem *ret_problem) {
        _cleanup_(exchange_freep) Exchange *exchange = NULL;
        uint64_t begin_usec = clock_now_usec();
        const FcgiAnswer *answer;
        CgiResponse response;
        Times times = {};
        int r, fd;

        fd = address[0] == '/' || address[0] == '@' ?
                dial_unix(address, usec_add(begin_usec, TIMEOUT_USEC), ret_problem) :
                dial_inet(address, usec_add(begin_usec, TIMEOUT_USEC), ret_problem);
        if (fd < 0)
                return fd;
        times.connected_usec = clock_now_usec() - begin_usec;
        r = exchange_new_get(fd, path, OUTPUT_MAX, ERRORS_MAX, &exchange);
        if (r < 0)
                return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, r, "%s: %s", path, strerror(-r));
        r = drive(exchange, begin_usec, &times, ret_problem);
        answer = exchange_get_answer(exchange);
        if (r >= 0 && answer->protocol_status != FCGI_REQUEST_COMPLETE)
                r = problem_set(ret_problem, EXIT_STATUS_UNAVAILABLE, -EPROTO, "refused with %s",
                                fcgi_protocol_status_to_string(answer->protocol_status));
        if (r >= 0)
                r = cgi_parse_response(answer->output.data, answer->output.size, &response, ret_problem);
        if (r < 0) {
                print_harmless(stderr, "stderr: ", answer->errors.data, answer->errors.size);
                return r;
        }
        if (output->json != JSON_OFF)
                print_json(answer, &response, &times, output->json);
        else
                print_answer(answer, &response, &times, output->legend);
        *ret_status = response.status;
        return 0;
}

int probe(const Output *output, char *const *arguments) {
        const char *path = arguments[1] ?: "/";
        Problem problem = {};
        unsigned status = 0;

        for (const char *c = path; *c != '\0' || c == path; c++)
                if (path[0] != '/' || *c <= ' ' || *c > '~') {
                        fprintf(stderr, "probe: expected a path that begins with / and has no blanks\n");
                        return EXIT_STATUS_INVALID_ARGUMENT;
                }
        if (probe_address(output, arguments[0], path, &status, &problem) < 0) {
                fprintf(stderr, "%s: %s\n", arguments[0], problem.text);
                return problem.exit_status ?: EXIT_STATUS_UNAVAILABLE;
        }
        return status >= 400 ? EXIT_FAILURE : EXIT_SUCCESS;
}
