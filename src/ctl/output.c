/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A writer, no tree: what is printed is known at the time. The outermost value ends with a newline, so that
 * "short" is one line per call of the program. */

#include <inttypes.h>

#include "output.h"
#include "text.h"

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
        begin_value(json, name);
        fputc('"', json->file);
        for (size_t i = 0; i < size;) {
                size_t n = text_character_size(data + i, size - i);

                if (n == 0)
                        fputs("\\ufffd", json->file);
                if (n == 2 && (unsigned char) data[i] == 0xc2 && (unsigned char) data[i + 1] < 0xa0)
                        fprintf(json->file, "\\u%04x", (unsigned char) data[i + 1]); /* CSI, OSC ... */
                else
                        for (size_t k = 0; k < n; k++)
                                put_character(json, (unsigned char) data[i + k]);
                i += MAX_OF(n, (size_t) 1);
        }
        fputc('"', json->file);
}

void json_bool(Json *json, const char *name, bool b) {
        begin_value(json, name);
        fputs(b ? "true" : "false", json->file);
}

void json_unsigned(Json *json, const char *name, uint64_t n) {
        begin_value(json, name);
        fprintf(json->file, "%" PRIu64, n);
}

void json_null(Json *json, const char *name) {
        begin_value(json, name);
        fputs("null", json->file);
}
