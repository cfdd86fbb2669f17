/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SPDX-FileCopyrightText: fcgi-pool contributors */
#pragma once

/* What every test program here needs: cleanup attributes, a clock, and number parsing that ends the
 * program. Test programs stop at the first mistake of their caller; product code does not work like that. */

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ELEMENTSOF(x) (sizeof(x) / sizeof((x)[0]))
#define NSEC_PER_SEC UINT64_C(1000000000)
#define NSEC_PER_MSEC UINT64_C(1000000)
#define NSEC_PER_USEC UINT64_C(1000)

/* Exit statuses shared by all tools: 0 fine, 1 the measurement or check failed, 2 wrong usage. */
#define EXIT_USAGE 2

#define fail(status, ...)                                                                               \
        do {                                                                                            \
                fprintf(stderr, "%s: ", program_invocation_short_name);                                 \
                fprintf(stderr, __VA_ARGS__);                                                           \
                fputc('\n', stderr);                                                                    \
                exit(status);                                                                           \
        } while (0)

static inline void close_fdp(int *fd) {
        if (*fd >= 0)
                close(*fd);
        *fd = -EBADF;
}

static inline void freep(void *p) {
        free(*(void **) p);
}

#define _cleanup_close_ __attribute__((cleanup(close_fdp)))
#define _cleanup_free_ __attribute__((cleanup(freep)))

/* Monotonic time in nanoseconds. */
static inline uint64_t now_nsec(void) {
        struct timespec ts;

        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (uint64_t) ts.tv_sec * NSEC_PER_SEC + (uint64_t) ts.tv_nsec;
}

/* Sleeps the full time: a signal does not shorten it. */
static inline void sleep_msec(uint64_t msec) {
        uint64_t until = now_nsec() + msec * NSEC_PER_MSEC;
        struct timespec ts = {
                .tv_sec = (time_t) (until / NSEC_PER_SEC),
                .tv_nsec = (long) (until % NSEC_PER_SEC),
        };

        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
                continue;
}

/* A decimal number from 0 to max; ends the program with EXIT_USAGE, naming 'what', for anything else. */
static inline uint64_t parse_number(const char *what, const char *text, uint64_t max) {
        char *end = NULL;
        unsigned long long value;

        errno = 0;
        value = strtoull(text, &end, 10);
        if (errno != 0 || *text < '0' || *text > '9' || *end != '\0' || value > max)
                fail(EXIT_USAGE, "%s: expected a number from 0 to %llu, not '%s'",
                     what, (unsigned long long) max, text);
        return value;
}

/* A span in seconds with an optional fraction ("2", "0.5"), in nanoseconds; else ends the program. */
static inline uint64_t parse_seconds(const char *what, const char *text) {
        char *end = NULL;
        double value;

        errno = 0;
        value = strtod(text, &end);
        if (errno != 0 || *text < '0' || *text > '9' || *end != '\0' || value > 1e6)
                fail(EXIT_USAGE, "%s: expected a number of seconds, not '%s'", what, text);
        return (uint64_t) (value * (double) NSEC_PER_SEC);
}
