/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Spans and sizes mean what systemd.time(7) and systemd.exec(5) say, what systemd refuses is refused,
 * nothing overflows silently, and what is written can be read back. */

#include "clock.h"
#include "test.h"

#define UNTOUCHED UINT64_C(0xdeadbeef)

#define MINUTE (60 * USEC_PER_SEC)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)
#define MONTH (2629800 * USEC_PER_SEC)
#define YEAR (31557600 * USEC_PER_SEC)

typedef struct Good {
        const char *text;
        uint64_t value;
} Good;

typedef struct Bad {
        const char *text;
        int error;
} Bad;

typedef int (*Parse)(const char *s, uint64_t *ret);

static void expect_good(Parse parse, const Good *good, size_t n) {
        for (size_t i = 0; i < n; i++) {
                uint64_t v = UNTOUCHED;
                int r = parse(good[i].text, &v);

                if (r != 0 || v != good[i].value)
                        fprintf(stderr, "\"%s\" -> %d, %llu\n", good[i].text, r, (unsigned long long) v);
                EXPECT_EQ(r, 0);
                EXPECT(v == good[i].value);
        }
}

static void expect_bad(Parse parse, const Bad *bad, size_t n) {
        for (size_t i = 0; i < n; i++) {
                uint64_t v = UNTOUCHED;
                int r = parse(bad[i].text, &v);

                if (r != bad[i].error)
                        fprintf(stderr, "\"%s\" -> %d, %llu\n", bad[i].text, r, (unsigned long long) v);
                EXPECT_EQ(r, bad[i].error);
                EXPECT_EQ(v, UNTOUCHED);
        }
}

static void span_units(void) {
        static const Good good[] = {
                { "7us", 7 }, { "7usec", 7 }, { "7\xc2\xb5s", 7 }, { "7\xce\xbcs", 7 },
                { "7ms", 7 * USEC_PER_MSEC }, { "7msec", 7 * USEC_PER_MSEC },
                { "7", 7 * USEC_PER_SEC }, { "7s", 7 * USEC_PER_SEC }, { "7sec", 7 * USEC_PER_SEC },
                { "7second", 7 * USEC_PER_SEC }, { "7seconds", 7 * USEC_PER_SEC },
                { "7m", 7 * MINUTE }, { "7min", 7 * MINUTE }, { "7minute", 7 * MINUTE },
                { "7minutes", 7 * MINUTE },
                { "7h", 7 * HOUR }, { "7hr", 7 * HOUR }, { "7hour", 7 * HOUR }, { "7hours", 7 * HOUR },
                { "7d", 7 * DAY }, { "7day", 7 * DAY }, { "7days", 7 * DAY },
                { "7w", 49 * DAY }, { "7week", 49 * DAY }, { "7weeks", 49 * DAY },
                { "7M", 7 * MONTH }, { "7month", 7 * MONTH }, { "7months", 7 * MONTH },
                { "1y", YEAR }, { "7year", 7 * YEAR }, { "7years", 7 * YEAR },
        };

        expect_good(clock_parse_span, good, ELEMENTSOF(good));
}

static void span_good(void) {
        static const Good good[] = {
                { "0", 0 }, { "0s", 0 }, { "00", 0 }, { "007", 7 * USEC_PER_SEC },
                { "30s", 30 * USEC_PER_SEC },
                { "5min 20s", 5 * MINUTE + 20 * USEC_PER_SEC },
                { "5min20s", 5 * MINUTE + 20 * USEC_PER_SEC },
                { " 5\tmin   20 s\n", 5 * MINUTE + 20 * USEC_PER_SEC },
                { "20s 5min 1s", 5 * MINUTE + 21 * USEC_PER_SEC },
                { "1min 30", 90 * USEC_PER_SEC },
                { "1 2", 3 * USEC_PER_SEC },
                { "1y 12month", 2 * YEAR },
                { "1.5h", 90 * MINUTE },
                { ".5", 500 * USEC_PER_MSEC },
                { "0.5s", 500 * USEC_PER_MSEC },
                { "1.000001s", USEC_PER_SEC + 1 },
                { "0.0000019s", 1 }, /* rounded down */
                { "0.9us", 0 },
                { "12.34 .56", 12900 * USEC_PER_MSEC },
                { "12.34s.56s", 12900 * USEC_PER_MSEC },
                { "0.33333333333333333333333333333333333333333333333333min", 19999999 },
                { "infinity", USEC_INFINITY }, { " infinity ", USEC_INFINITY },
                { "18446744073709551614us", UINT64_MAX - 1 },
                { "18446744073709551613us 1us", UINT64_MAX - 1 },
                { "584542y", 584542 * YEAR },
        };

        expect_good(clock_parse_span, good, ELEMENTSOF(good));
}

static void span_bad(void) {
        static const Bad bad[] = {
                { "", -EINVAL }, { " ", -EINVAL }, { "s", -EINVAL }, { "abc", -EINVAL },
                { "-1", -EINVAL }, { "-0", -EINVAL }, { "+1", -EINVAL },
                { "1min -30s", -EINVAL }, { "1min +30s", -EINVAL },
                { "1.5.2", -EINVAL }, { "12..34", -EINVAL }, { "..1", -EINVAL },
                { "1.", -EINVAL }, { ".", -EINVAL },
                { "3.s", -EINVAL }, { "3. 1s", -EINVAL }, { "3.-1s", -EINVAL }, { "1,5s", -EINVAL },
                { "1S", -EINVAL }, { "1H", -EINVAL }, { "1mins", -EINVAL }, { "1secs", -EINVAL },
                { "1x", -EINVAL },
                { "1hmin", -EINVAL }, { "5 min s", -EINVAL }, { "1ss", -EINVAL }, { "1ns", -EINVAL },
                { "infinity 7", -EINVAL }, { "7 infinity", -EINVAL }, { "infinitys", -EINVAL },
                { "Infinity", -EINVAL },
                { "0x10", -EINVAL }, { "1e3", -EINVAL }, { "30s,", -EINVAL }, { "10/10s", -EINVAL },
                { "18446744073709551615us", -ERANGE }, { "18446744073709551614us 1us", -ERANGE },
                { "18446744073709551616us", -ERANGE }, { "99999999999999999999999", -ERANGE },
                { "18446744073710", -ERANGE }, { "584543y", -ERANGE }, { "584542y 1y", -ERANGE },
                { "18446744073709551614us 0.000002s", -ERANGE },
                { "18446744073709551615.5us", -ERANGE },
        };

        expect_bad(clock_parse_span, bad, ELEMENTSOF(bad));
}

static void size_good(void) {
        static const Good good[] = {
                { "0", 0 }, { "1", 1 }, { "1B", 1 }, { "4096", 4096 },
                { "128M", UINT64_C(128) << 20 }, { "128 M", UINT64_C(128) << 20 },
                { " 128M ", UINT64_C(128) << 20 },
                { "1K", 1024 }, { "1G", UINT64_C(1) << 30 }, { "1T", UINT64_C(1) << 40 },
                { "1P", UINT64_C(1) << 50 },
                { "1E", UINT64_C(1) << 60 }, { "15E", UINT64_C(15) << 60 },
                { "1.5G", UINT64_C(3) << 29 }, { ".5K", 512 }, { "0.1K", 102 }, { "1.9B", 1 },
                { "15.5E", UINT64_C(31) << 59 },
                { "18446744073709551614", UINT64_MAX - 1 },
                { "infinity", UINT64_MAX },
        };

        expect_good(clock_parse_size, good, ELEMENTSOF(good));
}

static void size_bad(void) {
        static const Bad bad[] = {
                { "", -EINVAL }, { " ", -EINVAL }, { "M", -EINVAL }, { "-1", -EINVAL }, { "+1", -EINVAL },
                { "1k", -EINVAL }, { "1KB", -EINVAL }, { "1MiB", -EINVAL }, { "1X", -EINVAL },
                { "1 K B", -EINVAL },
                { "1G 512M", -EINVAL }, { "1 2", -EINVAL }, { "1.5.2", -EINVAL },
                { "1.", -EINVAL }, { ".", -EINVAL },
                { "1.K", -EINVAL }, { "infinity 1", -EINVAL }, { "50%", -EINVAL }, { "0x10", -EINVAL },
                { "16E", -ERANGE }, { "18446744073709551615", -ERANGE }, { "18446744073709551616", -ERANGE },
                { "99999999999999999999999", -ERANGE }, { "17592186044416M", -ERANGE },
        };

        expect_bad(clock_parse_size, bad, ELEMENTSOF(bad));
}

static void format_good(void) {
        static const Good good[] = {
                { "0", 0 }, { "1us", 1 }, { "999us", 999 }, { "1ms", 1000 },
                { "312ms", 312 * USEC_PER_MSEC },
                { "1s", USEC_PER_SEC }, { "30s", 30 * USEC_PER_SEC }, { "59s 999ms 999us", MINUTE - 1 },
                { "1min 30s", 90 * USEC_PER_SEC }, { "1min", MINUTE }, { "1h", HOUR }, { "1d", DAY },
                { "2d 3h", 51 * HOUR }, { "2d 5s", 2 * DAY + 5 * USEC_PER_SEC },
                { "2d 3h 4min", 51 * HOUR + 4 * MINUTE + 5 * USEC_PER_SEC },
                { "23h 59min 59s", DAY - 1 }, { "1h 1us", HOUR + 1 }, { "400d", 400 * DAY },
                { "213503982d 8h 1min", UINT64_MAX - 1 },
                { "infinity", USEC_INFINITY },
        };
        char buffer[64];

        for (size_t i = 0; i < ELEMENTSOF(good); i++) {
                EXPECT(clock_format_span(buffer, sizeof(buffer), good[i].value) == buffer);
                EXPECT_STREQ(buffer, good[i].text);
        }
}

static void format_cut_short(void) {
        char buffer[64];

        for (size_t size = 1; size < sizeof("2d 3h 4min"); size++) {
                memset(buffer, '#', sizeof(buffer));
                clock_format_span(buffer, size, 51 * HOUR + 4 * MINUTE);
                EXPECT_EQ(strlen(buffer), size - 1);
                EXPECT(memcmp(buffer, "2d 3h 4min", size - 1) == 0);
                for (size_t i = size; i < sizeof(buffer); i++)
                        EXPECT_EQ(buffer[i], '#');
        }
}

/* What is written reads back as the same span, but for what is below the third unit. */
static void round_trip(uint64_t usec) {
        uint64_t back, below = usec >= DAY    ? MINUTE :
                               usec >= HOUR   ? USEC_PER_SEC :
                               usec >= MINUTE ? USEC_PER_MSEC :
                                                1;
        char first[64], second[64];

        clock_format_span(first, sizeof(first), usec);
        EXPECT_EQ(clock_parse_span(first, &back), 0);
        EXPECT(back <= usec);
        EXPECT(usec - back < below);
        EXPECT_STREQ(clock_format_span(second, sizeof(second), back), first);
}

static void round_trips(void) {
        uint64_t state = 1;

        for (uint64_t usec = 0; usec < 5000; usec++)
                round_trip(usec);

        for (unsigned bit = 0; bit < 64; bit++)
                for (unsigned delta = 0; delta < 3; delta++)
                        round_trip((UINT64_C(1) << bit) - 1 + delta);
        round_trip(UINT64_MAX - 1);
        round_trip(UINT64_MAX);

        /* Pseudo-random values of every length; a fixed seed, so that a failure can be repeated. */
        for (unsigned i = 0; i < 200000; i++) {
                state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
                round_trip((state ^ (state >> 29)) >> (i % 64));
        }
}

TEST_MAIN(TEST(span_units), TEST(span_good), TEST(span_bad), TEST(size_good), TEST(size_bad),
          TEST(format_good), TEST(format_cut_short), TEST(round_trips))
