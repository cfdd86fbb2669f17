/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The request may be larger than the socket takes at once, and the application may answer before it has read
 * it all: so both directions go on side by side. An application that closes before it has read everything
 * may well have answered; what counts is what it has said. */

#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#include "exchange.h"

#define RECEIVE_AT_ONCE_MAX 16U /* of 16 KiB: others have to be heard, too */

struct Exchange {
        int fd;
        uint8_t *request;
        size_t size, sent;
        FcgiDecoder *decoder;
};

static int encode_get(const char *path, uint8_t **ret_data, size_t *ret_size) {
        const char *question = strchr(path, '?');
        size_t l = question ? (size_t) (question - path) : strlen(path);
        _cleanup_free_ char *script = strndup(path, l);
        const FcgiPair params[] = {
                { "GATEWAY_INTERFACE", "CGI/1.1" },
                { "SERVER_SOFTWARE", "fcgi-pool" },
                { "SERVER_PROTOCOL", "HTTP/1.1" },
                { "SERVER_NAME", "localhost" },
                { "SERVER_ADDR", "127.0.0.1" },
                { "SERVER_PORT", "80" },
                { "REMOTE_ADDR", "127.0.0.1" },
                { "REMOTE_PORT", "0" },
                { "REQUEST_METHOD", "GET" },
                { "REQUEST_URI", path },
                { "DOCUMENT_URI", script },
                { "SCRIPT_NAME", script },
                { "SCRIPT_FILENAME", script },
                { "QUERY_STRING", question ? question + 1 : "" },
                { "CONTENT_TYPE", "" },
                { "CONTENT_LENGTH", "" },
                { "REDIRECT_STATUS", "200" }, /* PHP refuses to run without it */
                { "HTTP_HOST", "localhost" },
                { "HTTP_USER_AGENT", "fcgi-pool" },
        };

        if (!script)
                return -ENOMEM;
        return fcgi_encode_request(&(FcgiRequest) { .params = params, .n_params = ELEMENTSOF(params) },
                                   ret_data, ret_size);
}

int exchange_new_get(int fd, const char *path, size_t output_max, size_t errors_max,
                     Exchange **ret_exchange) {
        _cleanup_(exchange_freep) Exchange *exchange = calloc(1, sizeof(*exchange));
        int r;

        assert(fd >= 0);
        assert(path && path[0] == '/');
        assert(ret_exchange);

        if (!exchange) {
                (void) safe_close(fd);
                return -ENOMEM;
        }
        exchange->fd = fd;
        r = encode_get(path, &exchange->request, &exchange->size);
        if (r >= 0)
                r = fcgi_decoder_new(FCGI_AWAIT_END, output_max, errors_max, &exchange->decoder);
        if (r < 0)
                return r;
        *ret_exchange = TAKE_PTR(exchange);
        return 0;
}

Exchange *exchange_free(Exchange *exchange) {
        if (!exchange)
                return NULL;
        (void) safe_close(exchange->fd);
        free(exchange->request);
        fcgi_decoder_free(exchange->decoder);
        free(exchange);
        return NULL;
}

int exchange_get_fd(const Exchange *exchange) {
        return exchange->fd;
}

short exchange_get_events(const Exchange *exchange) {
        return exchange->sent < exchange->size ? POLLIN | POLLOUT : POLLIN;
}

static void send_some(Exchange *exchange) {
        while (exchange->sent < exchange->size) {
                ssize_t n = send(exchange->fd, exchange->request + exchange->sent,
                                 exchange->size - exchange->sent, MSG_DONTWAIT | MSG_NOSIGNAL);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno != EAGAIN && errno != ENOTCONN)
                        exchange->sent = exchange->size; /* it wants no more; the answer tells */
                if (n < 0)
                        return;
                exchange->sent += (size_t) n;
        }
}

int exchange_drive(Exchange *exchange, Problem *ret_problem) {
        char buffer[16384], where[96];
        int r;

        assert(exchange);

        send_some(exchange);
        for (unsigned i = 0; i < RECEIVE_AT_ONCE_MAX; i++) {
                ssize_t n = recv(exchange->fd, buffer, sizeof(buffer), MSG_DONTWAIT);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && (errno == EAGAIN || errno == ENOTCONN))
                        return 0;
                if (n < 0 && errno != ECONNRESET)
                        return problem_set(ret_problem, EXIT_STATUS_UNAVAILABLE, -errno, "%m");
                if (n <= 0)
                        return problem_set(ret_problem, EXIT_STATUS_UNAVAILABLE, -ECONNRESET,
                                           "connection %s %s, expected FCGI_END_REQUEST",
                                           n == 0 ? "closed" : "reset",
                                           fcgi_decoder_describe(exchange->decoder, where, sizeof(where)));
                r = fcgi_decoder_feed(exchange->decoder, buffer, (size_t) n, NULL, ret_problem);
                if (r != 0)
                        return r;
        }
        return 0; /* there may be more, for which one wakes up again at once */
}

const FcgiAnswer *exchange_get_answer(const Exchange *exchange) {
        return fcgi_decoder_get_answer(exchange->decoder);
}

char *exchange_describe(const Exchange *exchange, char *buffer, size_t size) {
        return fcgi_decoder_describe(exchange->decoder, buffer, size);
}
