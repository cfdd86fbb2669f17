/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What an application has answered is told as a web server would tell it; what is no response is refused with a
 * line that says why. */

#include "cgi.h"
#include "test.h"

/* --- tools --- */

static void expect_slice(CgiSlice s, const char *expected) {
        EXPECT_EQ(s.size, strlen(expected));
        EXPECT(memcmp(s.data, expected, s.size) == 0);
}

/* In memory of its own, where a read beyond the end is seen by valgrind and sanitizers; the caller frees. */
static char *copy_of(const void *data, size_t size) {
        char *copy = malloc(size + (size == 0));

        EXPECT(copy);
        memcpy(copy, data, size);
        return copy;
}

static void expect_response(const char *text, unsigned status, const char *reason, const char *body) {
        size_t size = strlen(text), body_size = strlen(body);
        _cleanup_free_ char *data = copy_of(text, size);
        CgiResponse response;
        Problem problem = {};

        EXPECT_EQ(cgi_parse_response(data, size, &response, &problem), 0);
        EXPECT_STREQ(problem.text, "");
        EXPECT_EQ(response.status, status);
        expect_slice(response.reason, reason);
        expect_slice(response.body, body);
        EXPECT(response.header.data == data);
        EXPECT(response.header.size > 0 && data[response.header.size - 1] == '\n');
        /* Between them is one blank line. */
        EXPECT(response.body.data + body_size == data + size);
        EXPECT(response.header.data + response.header.size < response.body.data);
        EXPECT(response.body.data - (response.header.data + response.header.size) <= 2);
}

static void expect_refused_bytes(const void *text, size_t size, const char *says) {
        _cleanup_free_ char *data = copy_of(text, size);
        CgiResponse response = { .status = 42 };
        Problem problem = {};

        EXPECT_EQ(cgi_parse_response(data, size, &response, &problem), -EBADMSG);
        EXPECT_STREQ(problem.text, says);
        EXPECT(problem.exit_status != 0);
        EXPECT_EQ(response.status, 42);
        EXPECT_EQ(cgi_parse_response(data, size, &response, NULL), -EBADMSG);
}

static void expect_refused(const char *text, const char *says) {
        expect_refused_bytes(text, strlen(text), says);
}

/* --- responses --- */

static void statuses(void) {
        expect_response("Content-Type: text/plain\n\nbody", 200, "OK", "body");
        expect_response("Status: 404 Not Found\n\n", 404, "Not Found", "");
        expect_response("Status: 404\n\n", 404, "", "");
        expect_response("Status:100 \n\n", 100, "", "");
        expect_response("sTATUS:\t999  a  b \t\r\n\r\n", 999, "a  b", "");
        expect_response("Content-Type: a\nStatus: 500 \xc3\xa4\nX: y\n\n", 500, "\xc3\xa4", "");
        expect_response("Status: 201 x\nLocation: http://localhost/\n\n", 201, "x", "");
        expect_response("Status:\nStatus: 204 a\nStatus: \n\n", 204, "a", ""); /* empty is as good as none */
        expect_response("Status-Code: 404\nXStatus: 404\nStatu: 404\n\n", 200, "OK", "");
}

static void locations(void) {
        static const char *const absolute[] = { "http://localhost/", "a:", "Z+-.9:x", "mailto:x" };
        static const char *const others[] = { "/path", "/a:b", "path", "//host/", "", ":", "1a:", "+a:", "a/b:c", "a b:c",
                "?a:b" };
        char text[100];

        for (size_t i = 0; i < ELEMENTSOF(absolute); i++) {
                (void) snprintf(text, sizeof(text), "LOCATION: %s\r\n\r\n", absolute[i]);
                expect_response(text, 302, "Found", "");
        }
        for (size_t i = 0; i < ELEMENTSOF(others); i++) {
                (void) snprintf(text, sizeof(text), "Location: %s\n\n", others[i]);
                expect_response(text, 200, "OK", "");
        }
}

static void lines(void) {
        expect_response("A: b\n\n\nbody\n\n", 200, "OK", "\nbody\n\n");
        expect_response("A: b\r\n\r\nbody", 200, "OK", "body");
        expect_response("A: b\n\r\nbody", 200, "OK", "body");
        expect_response("A: b\r\n\nC: d\r\n\r\n", 200, "OK", "C: d\r\n\r\n");
        expect_response("A:\n\n", 200, "OK", "");
        expect_response("A:b:c\td\n\n", 200, "OK", "");
        expect_response("!#$%&'*+-.^_`|~: \t\"(),/:;<=>?@[\\]{}\n\n", 200, "OK", "");
}

static void refusals(void) {
        static const char no_field[] = "line 2 of the header is no field, expected NAME: VALUE";
        static const char control[] = "line 2 of the header has a control character, expected text";
        static const char bad_status[] = "line 2 of the header has a bad Status, expected three digits and a reason";
        static const char *const names[] = { "no colon", ": nameless", " A: continued", "\tA: continued", "A : b", "A\tb: c",
                "HTTP/1.1 200 OK", "(A): b", "\xc3\xa4: b", "\x7f: b", "A\r\r", "<html>", "\001: a" };
        static const char *const controls[] = { "A: b\rc", "A: \033[1m", "A: \x7f", "Status: 200 \001", "A: b\r\r" };
        static const char *const bad_statuses[] = { "20", "099", "000", "2000", "200OK", "-20", "+200", "OK", "2 0", "20 0",
                "0x1" };
        char text[100];

        expect_refused("", "no byte, expected a header");
        expect_refused("\nbody", "a blank line at the start, expected a header");
        expect_refused("\r\nbody", "a blank line at the start, expected a header");
        expect_refused("A: b", "no blank line in 4 bytes, expected one behind the header");
        expect_refused("A: b\n", "no blank line in 5 bytes, expected one behind the header");
        expect_refused("A: b\n\r", "no blank line in 6 bytes, expected one behind the header");
        expect_refused("Hello", "no blank line in 5 bytes, expected one behind the header");
        expect_refused("<html>\n<body>\n\n", "line 1 of the header is no field, expected NAME: VALUE");
        expect_refused("A: b\n\x80: c\n\n", no_field);
        expect_refused_bytes("A: b\nA\0b: c\n\n", 13, no_field);
        expect_refused_bytes("A: b\nA: \0\n\n", 11, control);
        expect_refused("Status: 200 OK\nX: y\nstatus: 200 OK\n\n",
                       "line 3 of the header is another Status, expected one");

        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                (void) snprintf(text, sizeof(text), "A: b\n%s\n\n", names[i]);
                expect_refused(text, no_field);
        }
        for (size_t i = 0; i < ELEMENTSOF(controls); i++) {
                (void) snprintf(text, sizeof(text), "A: b\n%s\n\n", controls[i]);
                expect_refused(text, control);
        }
        for (size_t i = 0; i < ELEMENTSOF(bad_statuses); i++) {
                (void) snprintf(text, sizeof(text), "A: b\r\nStatus: %s\r\n\r\n", bad_statuses[i]);
                expect_refused(text, bad_status);
        }
}

/* Cut anywhere in front of the body it is no response, and says so without looking beyond the cut. */
static void cut(void) {
        static const char text[] = "Status: 200 OK\r\nContent-Type: text/plain\r\n\r\n";

        for (size_t n = 1; n < sizeof(text) - 1; n++) {
                char says[100];

                (void) snprintf(says, sizeof(says), "no blank line in %zu bytes, expected one behind the header", n);
                expect_refused_bytes(text, n, says);
        }
        expect_response(text, 200, "OK", "");
}

TEST_MAIN(TEST(statuses), TEST(locations), TEST(lines), TEST(refusals), TEST(cut))
