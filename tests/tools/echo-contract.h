/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SPDX-FileCopyrightText: fcgi-pool contributors */
#pragma once

/* The echo contract: what every echo program in this directory (fcgi-echo, misbehave, go-echo, gin-echo,
 * echo.pl, echo.php, echo.cgi) answers, and what fcgi-load checks byte by byte.
 *
 *   Status: 200 OK                              (or the code asked for)
 *   Content-Type: text/plain
 *
 *   pid=N                                       the worker's own pid; for CGI that of its FastCGI server
 *   slot=S generation=G                         FCGI_POOL_SLOT and FCGI_POOL_GENERATION, "-" if unset
 *   body-length=L body-crc=C                    received request body; CRC-32 as 8 lower-case hex digits
 *   env-NAME=VALUE                              only with env=NAME; environment of the process
 *   ...                                         'size' bytes of wire_pattern(start)
 *
 * Query parameters, in the order they act after the body has been read:
 *   sleep=MS    sleep, in full whatever signals arrive     burn=MS     use this much CPU time
 *   stderr=TEXT write a line to stderr                     exit=CODE   leave without an answer
 *   hold=MB     keep so much more memory, all of it touched (fcgi-echo and misbehave only)
 *   status=CODE  env=NAME  size=BYTES  start=LINE          shape of the answer, see above */

#include <stddef.h>
#include <stdint.h>

typedef struct EchoRequest {
        uint64_t sleep_msec;
        uint64_t burn_msec;
        uint64_t hold_mb;
        uint64_t size;
        uint64_t start;
        int exit_code;  /* -1: none */
        int status;
        char env[512];  /* "" : none */
        char text[512]; /* for stderr; "" : none */
} EchoRequest;

/* Reads a query string (NULL is empty), decoding %XX and '+'. Ignores what it does not know. */
void echo_parse(const char *query, EchoRequest *ret);

/* Does the sleep and the CPU burn, takes the memory, then leaves the process if that was asked for. */
void echo_act(const EchoRequest *e);

/* Memory of the process that nothing gives back. */
void echo_hold(uint64_t mb);

/* The answer up to where the pattern starts: CGI header and text lines, terminated. Returns its length,
 * which may be cut at n - 1. */
size_t echo_head(const EchoRequest *e, uint64_t body_length, uint32_t body_crc, char *ret, size_t n);
