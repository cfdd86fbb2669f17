/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* How results are printed: for people, or as JSON (RFC 8259). */

#include <stdio.h>

#include "util.h"

typedef enum JsonMode {
        JSON_OFF,
        JSON_SHORT,  /* one line */
        JSON_PRETTY, /* indented */
} JsonMode;

typedef struct Output {
        JsonMode json;
        bool legend; /* column headers, sums and hints, for people */
        bool colours; /* standard output is a terminal that has them */
} Output;

typedef struct Json {
        FILE *file;
        bool pretty;
        unsigned depth;
        bool continued; /* the innermost array or object has a member already */
} Json;

/* One JSON text on file, which is borrowed. name is that of a member, NULL in an array and for the outermost
 * value; bracket is '[' or '{', for json_close() the one that json_open() was given. Write errors are the
 * file's. */
Json json_begin(FILE *file, JsonMode mode);
void json_open(Json *json, const char *name, char bracket);
void json_close(Json *json, char bracket);
/* s is valid UTF-8. */
void json_string(Json *json, const char *name, const char *s);
/* Any bytes: what is not UTF-8 becomes U+FFFD. */
void json_bytes(Json *json, const char *name, const char *data, size_t size);
void json_bool(Json *json, const char *name, bool b);
void json_unsigned(Json *json, const char *name, uint64_t n);
void json_null(Json *json, const char *name);
