/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Columns for people and the same rows as JSON. */

#include "output.h"

typedef struct Column {
        const char *header;  /* of the table */
        const char *name;    /* of the JSON member */
        bool right;          /* numbers are aligned to the right */
} Column;

typedef struct Table Table;

/* columns must outlive the table. NULL: no memory. */
Table *table_new(const Column *columns, size_t n_columns);
Table *table_free(Table *table);
DEFINE_TRIVIAL_CLEANUP_FUNC(Table *, table_free);

typedef enum Colour {
        COLOUR_NONE,
        COLOUR_GOOD,
        COLOUR_WARN,
        COLOUR_BAD,
        COLOUR_DIM,
} Colour;

/* Appends cells from left to right, row by row. text is what people see and is copied; NULL is shown as "-"
 * and is null in JSON. -ENOMEM. */
int table_add_text(Table *table, const char *text, Colour colour);

/* The number is what JSON has, text what people see. */
int table_add_number(Table *table, uint64_t number, const char *text, Colour colour);

/* Prints what is complete of it: with a line of headers if the output wants a legend, in colours if colours
 * is true. Nothing for an empty table but "[]". */
void table_print(const Table *table, const Output *output, bool colours);

/* The rows as an array of objects within a text that has been begun. */
void table_print_json(const Table *table, Json *json, const char *name);
