/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A test is a function; a program is a table of them. A failed expectation prints both sides and aborts,
 * so that a core and a sanitizer's stack point at it. Exit status 77 is "skipped" to meson, with the
 * reason on stderr. */

#include <stdio.h>
#include <stdlib.h>

#include "util.h"

#define EXPECT(condition)                                                                               \
        do {                                                                                            \
                if (!(condition)) {                                                                     \
                        fprintf(stderr, "%s:%d: %s: not true: %s\n", __FILE__, __LINE__, __func__, #condition); \
                        abort();                                                                        \
                }                                                                                       \
        } while (0)

#define EXPECT_EQ(a, b)                                                                                 \
        do {                                                                                            \
                long long _a = (long long) (a), _b = (long long) (b);                                   \
                if (_a != _b) {                                                                         \
                        fprintf(stderr, "%s:%d: %s: %s = %lld, expected %s = %lld\n", __FILE__, __LINE__, __func__, \
                                #a, _a, #b, _b);                                                        \
                        abort();                                                                        \
                }                                                                                       \
        } while (0)

#define EXPECT_STREQ(a, b)                                                                              \
        do {                                                                                            \
                const char *_a = (a), *_b = (b);                                                        \
                if (!_a || !_b || strcmp(_a, _b) != 0) {                                                \
                        fprintf(stderr, "%s:%d: %s: %s = \"%s\", expected \"%s\"\n", __FILE__, __LINE__, __func__, \
                                #a, _a ?: "(null)", _b ?: "(null)");                                    \
                        abort();                                                                        \
                }                                                                                       \
        } while (0)

#define SKIP(...)                               \
        do {                                    \
                fprintf(stderr, "skipped: ");   \
                fprintf(stderr, __VA_ARGS__);   \
                fputc('\n', stderr);            \
                exit(77);                       \
        } while (0)

static inline bool is_under_valgrind(void) {
        const char *preload = getenv("LD_PRELOAD");

        return preload && strstr(preload, "vgpreload");
}

#ifndef __has_feature /* clang's; gcc defines a macro instead */
#define __has_feature(feature) 0
#endif

/* By the address sanitizer. */
static inline bool is_sanitized(void) {
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
        return true;
#else
        return false;
#endif
}

/* The rest of the program cannot be run under valgrind: an execve() that fails kills it ("I can't recover"), it does
 * not know pidfd_send_signal(2), and it is itself what /proc/self/exe is. */
static inline void not_under_valgrind(void) {
        if (is_under_valgrind())
                SKIP("the rest asks for what valgrind has not: an execve() that fails, pidfds, /proc/self/exe");
}

typedef struct Test {
        const char *name;
        void (*run)(void);
} Test;

/* Runs all tests of the table, or the one named by argv[1]. */
#define TEST_MAIN(...)                                                                  \
        int main(int argc, char **argv) {                                               \
                static const Test tests[] = { __VA_ARGS__ };                            \
                size_t n_run = 0;                                                       \
                                                                                        \
                for (size_t i = 0; i < ELEMENTSOF(tests); i++) {                        \
                        if (argc > 1 && strcmp(argv[1], tests[i].name) != 0)            \
                                continue;                                               \
                        fprintf(stderr, "/* %s */\n", tests[i].name);                   \
                        tests[i].run();                                                 \
                        n_run++;                                                        \
                }                                                                       \
                return n_run > 0 ? EXIT_SUCCESS : EXIT_FAILURE;                         \
        }

#define TEST(function) { .name = #function, .run = function }
