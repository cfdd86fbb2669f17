/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Small things every file needs: cleanup attributes, ownership hand-over, array sizes. Header only. */

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef NDEBUG
#error "assert() states our own mistakes and is always compiled in: do not define NDEBUG"
#endif

#define _cleanup_(f) __attribute__((cleanup(f)))
#define _cleanup_free_ _cleanup_(free_ptr)
#define _cleanup_strv_free_ _cleanup_(strv_freep)
#define _printf_(a, b) __attribute__((format(printf, a, b)))
#define _noreturn_ __attribute__((noreturn))

#define ELEMENTSOF(x) (sizeof(x) / sizeof((x)[0]))
#define MIN_OF(a, b) ((a) < (b) ? (a) : (b))
#define MAX_OF(a, b) ((a) > (b) ? (a) : (b))

#define USEC_INFINITY UINT64_MAX
#define USEC_PER_MSEC UINT64_C(1000)
#define USEC_PER_SEC UINT64_C(1000000)

/* Give an owned value away: what is left behind is the "nothing" that destructors accept. */
#define TAKE_GENERIC(var, nothing)              \
        ({                                      \
                __typeof__(var) *_p = &(var);   \
                __typeof__(var) _v = *_p;       \
                *_p = (nothing);                \
                _v;                             \
        })
#define TAKE_PTR(ptr) TAKE_GENERIC(ptr, NULL)

/* Makes "type *func(type *)" usable as _cleanup_(funcp). */
#define DEFINE_TRIVIAL_CLEANUP_FUNC(type, func) \
        static inline void func##p(type *p) {   \
                if (*p)                         \
                        *p = func(*p);          \
        }

static inline void free_ptr(void *p) {
        free(*(void **) p);
}

/* Puts a copy of s in the place of *p. -ENOMEM. */
static inline int free_and_strdup(char **p, const char *s) {
        char *copy = strdup(s);

        if (!copy)
                return -ENOMEM;
        free(*p);
        *p = copy;
        return 0;
}

static inline bool streq(const char *a, const char *b) {
        return strcmp(a, b) == 0;
}

/* The part of s behind prefix, or NULL if s does not begin with it. */
static inline const char *startswith(const char *s, const char *prefix) {
        size_t l = strlen(prefix);

        return strncmp(s, prefix, l) == 0 ? s + l : NULL;
}

/* Frees a NULL-terminated array of strings and the strings; returns NULL. */
static inline char **strv_free(char **strv) {
        if (strv)
                for (char **s = strv; *s; s++)
                        free(*s);
        free(strv);
        return NULL;
}

DEFINE_TRIVIAL_CLEANUP_FUNC(char **, strv_free);

/* Appends s, which is freed on failure and may be NULL, to a NULL-terminated array, which may be NULL too.
 * -ENOMEM, also for no s. */
static inline int strv_consume(char ***strv, char *s) {
        size_t n = 0;
        char **bigger;

        while (*strv && (*strv)[n])
                n++;
        bigger = s ? reallocarray(*strv, n + 2, sizeof(char *)) : NULL;
        if (!bigger) {
                free(s);
                return -ENOMEM;
        }
        bigger[n] = s;
        bigger[n + 1] = NULL;
        *strv = bigger;
        return 0;
}

/* Appends a copy of s. */
static inline int strv_extend(char ***strv, const char *s) {
        return strv_consume(strv, strdup(s));
}

static inline bool strv_contains(char *const *strv, const char *s) {
        for (; strv && *strv; strv++)
                if (streq(*strv, s))
                        return true;
        return false;
}

static inline uint64_t usec_add(uint64_t a, uint64_t b) {
        return a > USEC_INFINITY - b ? USEC_INFINITY : a + b;
}

static inline uint64_t usec_sub(uint64_t a, uint64_t b) {
        return a == USEC_INFINITY ? USEC_INFINITY : a > b ? a - b : 0;
}
