/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Time spans and sizes as unit files write them.
 *
 * What an administrator may write in TimeoutStopSec= or MemoryMax= must mean the same on our command line,
 * so the units, their lengths (a month is a twelfth of 365.25 days) and the rules for blanks and fractions
 * are those of systemd.time(7): ".5", "1min30s" and "1min 30" are fine, "5.", "1.5.2" and "infinity 7" are
 * not. Signs are always refused.
 *
 * All arithmetic is in 64-bit integers. A fraction is worked off from its last digit, v = (digit * unit +
 * v) / 10: rounding down at every step then gives the same as rounding down once at the end, however many
 * digits there are, and nothing can overflow as long as ten units fit into 64 bits.
 *
 * UINT64_MAX means "infinity" to all callers. A number that comes out as exactly that is out of range.
 *
 * Spans are written in days and below only: weeks, months and years would be shorter, but nobody can add
 * them up. */

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "clock.h"

#define BLANKS " \t\n\r"
#define DIGITS "0123456789"

#define USEC_PER_MINUTE (60 * USEC_PER_SEC)
#define USEC_PER_HOUR (60 * USEC_PER_MINUTE)
#define USEC_PER_DAY (24 * USEC_PER_HOUR)
#define USEC_PER_WEEK (7 * USEC_PER_DAY)
#define USEC_PER_MONTH (2629800 * USEC_PER_SEC)
#define USEC_PER_YEAR (31557600 * USEC_PER_SEC)

uint64_t clock_now_usec(void) {
        struct timespec ts;
        int r = clock_gettime(CLOCK_MONOTONIC, &ts);

        assert(r >= 0);
        return (uint64_t) ts.tv_sec * USEC_PER_SEC + (uint64_t) ts.tv_nsec / 1000;
}

typedef struct Unit {
        const char *name;
        uint64_t factor;
} Unit;

static const Unit span_units[] = {
        { "us", 1 },
        { "usec", 1 },
        { "\xc2\xb5s", 1 }, /* U+00B5, micro sign */
        { "\xce\xbcs", 1 }, /* U+03BC, Greek mu */
        { "ms", USEC_PER_MSEC },
        { "msec", USEC_PER_MSEC },
        { "s", USEC_PER_SEC },
        { "sec", USEC_PER_SEC },
        { "second", USEC_PER_SEC },
        { "seconds", USEC_PER_SEC },
        { "m", USEC_PER_MINUTE },
        { "min", USEC_PER_MINUTE },
        { "minute", USEC_PER_MINUTE },
        { "minutes", USEC_PER_MINUTE },
        { "h", USEC_PER_HOUR },
        { "hr", USEC_PER_HOUR },
        { "hour", USEC_PER_HOUR },
        { "hours", USEC_PER_HOUR },
        { "d", USEC_PER_DAY },
        { "day", USEC_PER_DAY },
        { "days", USEC_PER_DAY },
        { "w", USEC_PER_WEEK },
        { "week", USEC_PER_WEEK },
        { "weeks", USEC_PER_WEEK },
        { "M", USEC_PER_MONTH },
        { "month", USEC_PER_MONTH },
        { "months", USEC_PER_MONTH },
        { "y", USEC_PER_YEAR },
        { "year", USEC_PER_YEAR },
        { "years", USEC_PER_YEAR },
};

static const Unit size_units[] = {
        { "B", UINT64_C(1) },
        { "K", UINT64_C(1) << 10 },
        { "M", UINT64_C(1) << 20 },
        { "G", UINT64_C(1) << 30 },
        { "T", UINT64_C(1) << 40 },
        { "P", UINT64_C(1) << 50 },
        { "E", UINT64_C(1) << 60 },
};

/* What clock_format_span() writes, longest first. */
static const Unit written_units[] = {
        { "d", USEC_PER_DAY },
        { "h", USEC_PER_HOUR },
        { "min", USEC_PER_MINUTE },
        { "s", USEC_PER_SEC },
        { "ms", USEC_PER_MSEC },
        { "us", 1 },
};

typedef struct Number {
        uint64_t whole;
        const char *fraction; /* points into the text */
        size_t n_fraction;
} Number;

static const char *skip_blanks(const char *s) {
        return s + strspn(s, BLANKS);
}

/* True if s is word with nothing but blanks around it. */
static bool is_only_word(const char *s, const char *word) {
        const char *rest = startswith(skip_blanks(s), word);

        return rest && *skip_blanks(rest) == '\0';
}

/* Reads "12", "12.5" or ".5" at *s and moves *s behind it. */
static int scan_number(const char **s, Number *ret_number) {
        size_t n_whole = strspn(*s, DIGITS);
        Number number = {};

        for (size_t i = 0; i < n_whole; i++)
                if (__builtin_mul_overflow(number.whole, 10U, &number.whole) ||
                    __builtin_add_overflow(number.whole, (uint64_t) ((*s)[i] - '0'), &number.whole))
                        return -ERANGE;

        if ((*s)[n_whole] == '.') {
                number.fraction = *s + n_whole + 1;
                number.n_fraction = strspn(number.fraction, DIGITS);
                if (number.n_fraction == 0)
                        return -EINVAL;
                *s = number.fraction + number.n_fraction;
        } else {
                if (n_whole == 0)
                        return -EINVAL;
                *s += n_whole;
        }

        *ret_number = number;
        return 0;
}

/* number * factor, rounded down. */
static int number_scale(const Number *number, uint64_t factor, uint64_t *ret) {
        uint64_t v = 0, whole;

        assert(factor <= UINT64_MAX / 10);

        for (size_t i = number->n_fraction; i > 0; i--)
                v = ((uint64_t) (number->fraction[i - 1] - '0') * factor + v) / 10;

        if (__builtin_mul_overflow(number->whole, factor, &whole) || __builtin_add_overflow(whole, v, &v) ||
            v == UINT64_MAX)
                return -ERANGE;

        *ret = v;
        return 0;
}

/* Reads the unit at *s, which ends before a blank, a number or the end of the text, and moves *s behind it.
 * No unit: *factor is left alone. */
static int scan_unit(const char **s, const Unit *units, size_t n_units, uint64_t *factor) {
        size_t l = strcspn(*s, BLANKS DIGITS ".");

        if (l == 0)
                return 0;

        for (size_t i = 0; i < n_units; i++)
                if (strlen(units[i].name) == l && memcmp(units[i].name, *s, l) == 0) {
                        *s += l;
                        *factor = units[i].factor;
                        return 0;
                }

        return -EINVAL;
}

/* Reads a number and its unit at *s and moves *s to what follows them and the blanks behind them. */
static int scan_quantity(const char **s, const Unit *units, size_t n_units, uint64_t factor, uint64_t *ret) {
        const char *end_of_number, *end;
        Number number;
        int r;

        r = scan_number(s, &number);
        if (r < 0)
                return r;

        end_of_number = *s;
        end = skip_blanks(end_of_number);
        r = scan_unit(&end, units, n_units, &factor);
        if (r < 0)
                return r;
        if (end == end_of_number && *end != '\0')
                return -EINVAL; /* "1.5.2": two numbers with nothing between them */

        *s = skip_blanks(end);
        return number_scale(&number, factor, ret);
}

int clock_parse_span(const char *s, uint64_t *ret_usec) {
        uint64_t sum = 0;

        if (is_only_word(s, "infinity")) {
                *ret_usec = USEC_INFINITY;
                return 0;
        }

        s = skip_blanks(s);
        do {
                uint64_t usec;
                int r;

                r = scan_quantity(&s, span_units, ELEMENTSOF(span_units), USEC_PER_SEC, &usec);
                if (r < 0)
                        return r;
                if (__builtin_add_overflow(sum, usec, &sum) || sum == USEC_INFINITY)
                        return -ERANGE;
        } while (*s != '\0');

        *ret_usec = sum;
        return 0;
}

int clock_parse_size(const char *s, uint64_t *ret_bytes) {
        uint64_t bytes;
        int r;

        if (is_only_word(s, "infinity")) {
                *ret_bytes = UINT64_MAX;
                return 0;
        }

        s = skip_blanks(s);
        r = scan_quantity(&s, size_units, ELEMENTSOF(size_units), 1, &bytes);
        if (r < 0)
                return r;
        if (*s != '\0')
                return -EINVAL;

        *ret_bytes = bytes;
        return 0;
}

char *clock_format_span(char *buffer, size_t size, uint64_t usec) {
        size_t length = 0;
        unsigned n_written = 0;

        assert(size > 0);

        if (usec == USEC_INFINITY || usec == 0) {
                (void) snprintf(buffer, size, "%s", usec == 0 ? "0" : "infinity");
                return buffer;
        }

        for (size_t i = 0; i < ELEMENTSOF(written_units) && n_written < 3 && length < size; i++) {
                uint64_t n = usec / written_units[i].factor;

                if (n == 0)
                        continue;

                length += (size_t) snprintf(buffer + length, size - length, "%s%" PRIu64 "%s",
                                            n_written > 0 ? " " : "", n, written_units[i].name);
                usec %= written_units[i].factor;
                n_written++;
        }

        return buffer;
}
