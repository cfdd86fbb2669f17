/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SPDX-FileCopyrightText: fcgi-pool contributors */
#pragma once

/* Checks one response of an echo program (echo-contract.h) as its bytes arrive. Never keeps the body. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef enum Failure {
        FAILURE_REFUSED,
        FAILURE_RESET,
        FAILURE_EOF,
        FAILURE_TIMEOUT,
        FAILURE_PROTOCOL,
        FAILURE_WRONG_STATUS,
        FAILURE_WRONG_BODY,
        FAILURE_OTHER,
        N_FAILURES,
        FAILURE_NONE = -1,
} Failure;

/* What every response must look like; the same for all requests. */
typedef struct Expectation {
        int status;
        uint64_t n_pad;
        uint64_t n_body;
        bool any_body; /* check protocol and status only */
        bool env_line; /* one "env-" line comes after the fixed three */
        FILE *print;   /* copy header and body here, or NULL */
} Expectation;

typedef struct Check {
        const Expectation *expect;
        uint64_t start; /* first line of the pattern of this response */

        char header[8192];
        size_t n_header;
        bool header_done;
        int status;

        char line[512];
        size_t n_line;
        unsigned line_number;
        uint64_t n_pad;
        bool wrong_body;

        /* Results, -1 while unknown. */
        int64_t pid;
        int64_t generation;
} Check;

void check_begin(Check *c, const Expectation *expect, uint64_t start);

/* Takes bytes of the STDOUT stream; body_crc is that of the request body sent so far. Returns 0, or
 * -EBADMSG if the CGI header is malformed. A wrong body is remembered and reported by check_end(). */
int check_feed(Check *c, const uint8_t *data, size_t n, uint32_t body_crc);

/* After END_REQUEST: FAILURE_NONE, or what was wrong. */
Failure check_end(const Check *c, uint32_t app_status, unsigned protocol_status);
