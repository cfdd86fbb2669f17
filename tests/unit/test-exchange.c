/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* One end of a socket pair is the exchange, the other one an application that is the test. */

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "exchange.h"
#include "test.h"

static const uint8_t answer[] =
        "\1\6\0\1\0\x1e\2\0Content-Type: text/plain\r\n\r\nhi##" /* FCGI_STDOUT, padded by 2 */
        "\1\7\0\1\0\3\0\0oh\n"                                   /* FCGI_STDERR */
        "\1\3\0\1\0\x8\0\0\0\0\0\7\0\0\0\0";                     /* FCGI_END_REQUEST, status 7 */
#define ANSWER_SIZE (sizeof(answer) - 1)

static Exchange *begin(const char *path, int *ret_fd) {
        Exchange *exchange;
        int fds[2];

        EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
        EXPECT_EQ(exchange_new_get(fds[0], path, 1024, 1024, &exchange), 0);
        EXPECT_EQ(exchange_get_events(exchange), POLLIN | POLLOUT);
        EXPECT_EQ(exchange_drive(exchange, NULL), 0);
        EXPECT_EQ(exchange_get_events(exchange), POLLIN);
        *ret_fd = fds[1];
        return exchange;
}

static void expect_answer(const Exchange *exchange) {
        const FcgiAnswer *a = exchange_get_answer(exchange);
        CgiResponse response;

        EXPECT_EQ(cgi_parse_response(a->output.data, a->output.size, &response, NULL), 0);
        EXPECT_EQ(response.status, 200);
        EXPECT_EQ(response.body.size, 2);
        EXPECT(memcmp(response.body.data, "hi", 2) == 0);
        EXPECT_EQ(a->errors.size, 3);
        EXPECT_EQ(a->app_status, 7);
}

/* Cut anywhere. */
static void pieces(void) {
        for (size_t cut = 0; cut <= ANSWER_SIZE; cut++) {
                int fd;
                Exchange *exchange = begin("/", &fd);

                EXPECT_EQ(send(fd, answer, cut, 0), cut);
                EXPECT_EQ(exchange_drive(exchange, NULL), cut == ANSWER_SIZE);
                if (cut < ANSWER_SIZE) {
                        EXPECT_EQ(send(fd, answer + cut, ANSWER_SIZE - cut, 0), ANSWER_SIZE - cut);
                        EXPECT_EQ(exchange_drive(exchange, NULL), 1);
                }
                expect_answer(exchange);
                exchange_free(exchange);
                (void) close(fd);
        }
}

/* The application has answered and gone without reading the request. */
static void answered_and_gone(void) {
        Exchange *exchange;
        int fds[2];

        EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
        EXPECT_EQ(exchange_new_get(fds[0], "/", 1024, 1024, &exchange), 0);
        EXPECT_EQ(send(fds[1], answer, ANSWER_SIZE, 0), ANSWER_SIZE);
        (void) close(fds[1]);
        EXPECT_EQ(exchange_drive(exchange, NULL), 1);
        expect_answer(exchange);
        exchange_free(exchange);
}

static void expect_problem(size_t n, const void *data, size_t size, int error, const char *words) {
        Problem problem = {};
        int fd;
        Exchange *exchange = begin("/", &fd);

        EXPECT_EQ(send(fd, answer, n, 0), n);
        EXPECT_EQ(send(fd, data, size, 0), size);
        (void) shutdown(fd, SHUT_WR);
        EXPECT_EQ(exchange_drive(exchange, &problem), error);
        if (!strstr(problem.text, words))
                EXPECT_STREQ(problem.text, words);
        exchange_free(exchange);
        (void) close(fd);
}

static void problems(void) {
        expect_problem(0, "", 0, -ECONNRESET, "connection closed after nothing, expected FCGI_END_REQUEST");
        expect_problem(20, "", 0, -ECONNRESET, "connection closed in a record of type FCGI_STDOUT");
        expect_problem(0, "HTTP/1.1 400 Bad Request\r\n", 26, -EBADMSG, "version");
        expect_problem(ANSWER_SIZE, "x", 1, -EBADMSG, "bytes behind FCGI_END_REQUEST");
}

/* What is on the wire of a path with a query. */
static void parameters(void) {
        char request[4096];
        ssize_t n;
        int fd;
        Exchange *exchange = begin("/srv/app.php?a=b&c", &fd);

        EXPECT((n = recv(fd, request, sizeof(request), 0)) > 0);
        EXPECT(memmem(request, (size_t) n, "SCRIPT_FILENAME/srv/app.php", 27));
        EXPECT(memmem(request, (size_t) n, "QUERY_STRINGa=b&c", 17));
        EXPECT(memmem(request, (size_t) n, "REQUEST_URI/srv/app.php?a=b&c", 29));
        exchange_free(exchange);
        (void) close(fd);
}

TEST_MAIN(TEST(pieces), TEST(answered_and_gone), TEST(problems), TEST(parameters))
