/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A writer, no tree: what is printed is known at the time. The outermost value ends with a newline, so that
 * "short" is one line per call of the program. */

#include <inttypes.h>

#include "output.h"

Json json_begin(FILE *file, JsonMode mode) {
        return (Json) { .file = file, .pretty = mode == JSON_PRETTY };
}

static void put_character(Json *json, unsigned char c) {
        if (c == '"' || c == '\\')
                fprintf(json->file, "\\%c", c);
        else if (c == '\n')
                fputs("\\n", json->file);
        else if (c < ' ' || c == 0x7f)
                fprintf(json->file, "\\u%04x", c);
        else
                fputc(c, json->file);
}

static void put_string(Json *json, const char *s) {
        fputc('"', json->file);
        for (; *s; s++)
                put_character(json, (unsigned char) *s);
        fputc('"', json->file);
}

/* How many bytes the UTF-8 character at data takes, 0 if it is none (RFC 3629). */
static size_t character_size(const unsigned char *data, size_t size) {
        static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };
        size_t n = data[0] < 0x80 ? 1 : data[0] < 0xc2 ? 0 : data[0] < 0xe0 ? 2 : data[0] < 0xf0 ? 3 :
                data[0] < 0xf5 ? 4 : 0;
        uint32_t c = n < 2 ? data[0] : data[0] & (0x7f >> n);

        if (n > size)
                return 0;
        for (size_t i = 1; i < n; i++) {
                if ((data[i] & 0xc0) != 0x80)
                        return 0;
                c = c << 6 | (data[i] & 0x3f);
        }
        return c < smallest[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : n;
}

static void new_line(Json *json) {
        if (json->pretty)
                fprintf(json->file, "\n%*s", (int) json->depth * 8, "");
}

/* What stands before each value. */
static void begin_value(Json *json, const char *name) {
        if (json->continued)
                fputc(',', json->file);
        if (json->depth > 0)
                new_line(json);
        json->continued = true;
        if (!name)
                return;
        put_string(json, name);
        fputs(json->pretty ? ": " : ":", json->file);
}

void json_open(Json *json, const char *name, char bracket) {
        begin_value(json, name);
        fputc(bracket, json->file);
        json->depth++;
        json->continued = false;
}

void json_close(Json *json, char bracket) {
        assert(json->depth > 0);

        json->depth--;
        if (json->continued)
                new_line(json);
        fputc(bracket == '[' ? ']' : '}', json->file);
        if (json->depth == 0)
                fputc('\n', json->file);
        json->continued = true;
}

void json_string(Json *json, const char *name, const char *s) {
        begin_value(json, name);
        put_string(json, s);
}

void json_bytes(Json *json, const char *name, const char *data, size_t size) {
        const unsigned char *p = (const unsigned char *) data;

        begin_value(json, name);
        fputc('"', json->file);
        for (size_t i = 0; i < size;) {
                size_t n = character_size(p + i, size - i);

                if (n == 0)
                        fputs("\\ufffd", json->file);
                for (size_t k = 0; k < n; k++)
                        put_character(json, p[i + k]);
                i += MAX_OF(n, (size_t) 1);
        }
        fputc('"', json->file);
}

void json_unsigned(Json *json, const char *name, uint64_t n) {
        begin_value(json, name);
        fprintf(json->file, "%" PRIu64, n);
}

void json_null(Json *json, const char *name) {
        begin_value(json, name);
        fputs("null", json->file);
}
