/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What is printed as JSON is JSON, whatever the strings are. */

#include <stdio.h>

#include "output.h"
#include "test.h"

typedef struct Memory {
        FILE *file;
        char *text;
        size_t size;
} Memory;

static void memory_done(Memory *m) {
        if (m->file)
                (void) fclose(m->file);
        free(m->text);
}

static void expect_text(Memory *m, const char *expected) {
        fputc('\0', m->file);
        EXPECT_EQ(fflush(m->file), 0);
        EXPECT_STREQ(m->text, expected);
}

#define MEMORY(m)                                               \
        _cleanup_(memory_done) Memory m = {};                   \
        m.file = open_memstream(&m.text, &m.size);              \
        EXPECT(m.file)

static void print_two(FILE *file, JsonMode mode) {
        Json json = json_begin(file, mode);

        json_open(&json, NULL, '[');
        json_open(&json, NULL, '{');
        json_string(&json, "a", "1");
        json_string(&json, "b", "");
        json_close(&json, '{');
        json_open(&json, NULL, '{');
        json_close(&json, '{');
        json_close(&json, '[');
}

static void short_is_one_line(void) {
        MEMORY(m);

        print_two(m.file, JSON_SHORT);
        expect_text(&m, "[{\"a\":\"1\",\"b\":\"\"},{}]\n");
}

static void pretty_is_indented(void) {
        MEMORY(m);

        print_two(m.file, JSON_PRETTY);
        expect_text(&m, "[\n"
                        "        {\n"
                        "                \"a\": \"1\",\n"
                        "                \"b\": \"\"\n"
                        "        },\n"
                        "        {}\n"
                        "]\n");
}

static void nothing(void) {
        MEMORY(m);
        Json json = json_begin(m.file, JSON_PRETTY);

        json_open(&json, NULL, '[');
        json_close(&json, '[');
        expect_text(&m, "[]\n");
}

static void nested(void) {
        MEMORY(m);
        Json json = json_begin(m.file, JSON_SHORT);

        json_open(&json, NULL, '{');
        json_open(&json, "list", '[');
        json_string(&json, NULL, "x");
        json_string(&json, NULL, "y");
        json_close(&json, '[');
        json_string(&json, "z", "1");
        json_close(&json, '{');
        expect_text(&m, "{\"list\":[\"x\",\"y\"],\"z\":\"1\"}\n");
}

static void escapes(void) {
        MEMORY(m);
        Json json = json_begin(m.file, JSON_SHORT);

        json_open(&json, NULL, '[');
        json_string(&json, NULL, "\"\\/\n\t\x01\x7f\xc3\xa4");
        json_close(&json, '[');
        expect_text(&m, "[\"\\\"\\\\/\\n\\u0009\\u0001\\u007f\xc3\xa4\"]\n");
}

TEST_MAIN(TEST(short_is_one_line), TEST(pretty_is_indented), TEST(nothing), TEST(nested), TEST(escapes))
