/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SPDX-FileCopyrightText: fcgi-pool contributors */

/* Three stages follow each other in one pass: CGI header up to the blank line, the text lines of the echo
 * contract, the pattern. The first wrong byte decides; what comes after it is not looked at. */

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "fcgi-wire.h"
#include "load-check.h"

#define N_FIXED_LINES 3

void check_begin(Check *c, const Expectation *expect, uint64_t start) {
        c->expect = expect;
        c->start = start;
        c->n_header = 0;
        c->header_done = false;
        c->status = 200;
        c->n_line = 0;
        c->line_number = 0;
        c->n_pad = 0;
        c->wrong_body = false;
        c->pid = -1;
        c->generation = -1;
}

/* One header line, terminated. Every line must be "Name: value". */
static int header_line(Check *c, const char *line) {
        const char *colon = strchr(line, ':');

        if (!colon || colon == line)
                return -EBADMSG;
        if (strncasecmp(line, "Status:", 7) == 0) {
                char *end = NULL;

                c->status = (int) strtol(colon + 1, &end, 10);
                if (end == colon + 1 || c->status < 100 || c->status > 999)
                        return -EBADMSG;
        }
        return 0;
}

/* Takes one byte of the header. Lines end in LF or CRLF; the blank line ends the header. */
static int header_byte(Check *c, char byte) {
        int r;

        if (byte != '\n') {
                if (c->n_header + 1 >= sizeof(c->header))
                        return -EBADMSG;
                c->header[c->n_header++] = byte;
                return 0;
        }

        if (c->n_header > 0 && c->header[c->n_header - 1] == '\r')
                c->n_header--;
        c->header[c->n_header] = '\0';
        if (c->n_header == 0) {
                c->header_done = true;
                return 0;
        }
        r = header_line(c, c->header);
        c->n_header = 0;
        return r;
}

static int64_t number_after(const char *line, const char *key) {
        const char *p = strstr(line, key);

        if (!p || !isdigit((unsigned char) p[strlen(key)]))
                return -1;
        return (int64_t) strtoll(p + strlen(key), NULL, 10);
}

static bool text_line(Check *c, uint32_t body_crc) {
        char wanted[96];

        switch (c->line_number) {
        case 0:
                if (strncmp(c->line, "pid=", 4) != 0)
                        return false;
                c->pid = number_after(c->line, "pid=");
                return c->pid > 0;
        case 1:
                if (strncmp(c->line, "slot=", 5) != 0 || !strstr(c->line, " generation="))
                        return false;
                c->generation = number_after(c->line, " generation=");
                return true;
        case 2:
                snprintf(wanted, sizeof(wanted), "body-length=%" PRIu64 " body-crc=%08" PRIx32,
                         c->expect->n_body, body_crc);
                return strcmp(c->line, wanted) == 0;
        default:
                return strncmp(c->line, "env-", 4) == 0;
        }
}

static size_t feed_lines(Check *c, const uint8_t *data, size_t n, uint32_t body_crc) {
        unsigned n_lines = N_FIXED_LINES + c->expect->env_line;
        size_t i = 0;

        while (i < n && c->line_number < n_lines && !c->wrong_body) {
                char byte = (char) data[i++];

                if (byte == '\n') {
                        c->line[c->n_line] = '\0';
                        c->wrong_body = !text_line(c, body_crc);
                        c->line_number++;
                        c->n_line = 0;
                } else if (c->n_line + 1 < sizeof(c->line))
                        c->line[c->n_line++] = byte;
                else
                        c->wrong_body = true;
        }
        return i;
}

static void feed_pad(Check *c, const uint8_t *data, size_t n) {
        uint8_t wanted[4096];

        while (n > 0 && !c->wrong_body) {
                size_t m = n < sizeof(wanted) ? n : sizeof(wanted);

                if (c->n_pad + m > c->expect->n_pad) {
                        c->wrong_body = true;
                        return;
                }
                wire_pattern(c->start, c->n_pad, wanted, m);
                c->wrong_body = memcmp(wanted, data, m) != 0;
                c->n_pad += m;
                data += m;
                n -= m;
        }
}

/* A foreign program: take the pid if the body starts with one. */
static void feed_any(Check *c, const uint8_t *data, size_t n) {
        for (size_t i = 0; i < n && c->line_number == 0; i++) {
                if (data[i] == '\n' || c->n_line + 1 >= sizeof(c->line)) {
                        c->line[c->n_line] = '\0';
                        c->pid = number_after(c->line, "pid=");
                        c->line_number = 1;
                } else
                        c->line[c->n_line++] = (char) data[i];
        }
}

int check_feed(Check *c, const uint8_t *data, size_t n, uint32_t body_crc) {
        size_t i = 0;

        if (c->expect->print)
                fwrite(data, 1, n, c->expect->print);

        while (i < n && !c->header_done) {
                int r = header_byte(c, (char) data[i++]);

                if (r < 0)
                        return r;
        }

        if (c->expect->any_body)
                feed_any(c, data + i, n - i);
        else {
                i += feed_lines(c, data + i, n - i, body_crc);
                feed_pad(c, data + i, n - i);
        }
        return 0;
}

Failure check_end(const Check *c, uint32_t app_status, unsigned protocol_status) {
        unsigned n_lines = N_FIXED_LINES + c->expect->env_line;

        if (protocol_status != WIRE_REQUEST_COMPLETE || !c->header_done)
                return FAILURE_PROTOCOL;
        if (app_status != 0 || c->status != c->expect->status)
                return FAILURE_WRONG_STATUS;
        if (c->expect->any_body)
                return FAILURE_NONE;
        if (c->wrong_body || c->line_number != n_lines || c->n_pad != c->expect->n_pad)
                return FAILURE_WRONG_BODY;
        return FAILURE_NONE;
}
