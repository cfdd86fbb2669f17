/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* All cells are there before the first is printed, for the widths. What is printed comes from the pool and
 * from programs that it runs: control characters become "?", lest a terminal obeys them. Characters are
 * counted as if each were one column wide, and UTF-8. */

#include <inttypes.h>

#include "table.h"
#include "text.h"

typedef struct Cell {
        char *text;      /* owned; NULL: none */
        bool is_number;
        uint64_t number;
        Colour colour;
} Cell;

struct Table {
        const Column *columns;
        size_t n_columns;
        Cell *cells;
        size_t n_cells, n_allocated;
};

static const char *const colour_codes[] = {
        [COLOUR_NONE] = "",
        [COLOUR_GOOD] = "\033[32m",
        [COLOUR_WARN] = "\033[33m",
        [COLOUR_BAD] = "\033[31m",
        [COLOUR_DIM] = "\033[90m",
};

Table *table_new(const Column *columns, size_t n_columns) {
        Table *table;

        assert(columns && n_columns > 0);

        table = calloc(1, sizeof(*table));
        if (!table)
                return NULL;
        table->columns = columns;
        table->n_columns = n_columns;
        return table;
}

Table *table_free(Table *table) {
        if (!table)
                return NULL;
        for (size_t i = 0; i < table->n_cells; i++)
                free(table->cells[i].text);
        free(table->cells);
        free(table);
        return NULL;
}

static int add(Table *table, const Cell *cell, const char *text) {
        char *copy = NULL;

        if (table->n_cells == table->n_allocated) {
                size_t n = MAX_OF(table->n_allocated * 2, (size_t) 64);
                Cell *cells = reallocarray(table->cells, n, sizeof(*cells));

                if (!cells)
                        return -ENOMEM;
                table->cells = cells;
                table->n_allocated = n;
        }
        if (text) {
                copy = strdup(text);
                if (!copy)
                        return -ENOMEM;
                text_make_harmless(copy);
        }
        table->cells[table->n_cells] = *cell;
        table->cells[table->n_cells++].text = copy;
        return 0;
}

int table_add_text(Table *table, const char *text, Colour colour) {
        return add(table, &(Cell) { .colour = colour }, text);
}

int table_add_number(Table *table, uint64_t number, const char *text, Colour colour) {
        return add(table, &(Cell) { .colour = colour, .is_number = true, .number = number }, text);
}

static size_t width_of(const char *s) {
        size_t n = 0;

        for (; *s; s++)
                n += ((unsigned char) *s & 0xc0) != 0x80; /* the first byte of a character */
        return n;
}

static const char *text_of(const Cell *cell) {
        return cell->text ?: "-";
}

static size_t column_width(const Table *table, size_t column, size_t n_rows, bool legend) {
        size_t width = legend ? width_of(table->columns[column].header) : 0;

        for (size_t i = 0; i < n_rows; i++)
                width = MAX_OF(width, width_of(text_of(table->cells + i * table->n_columns + column)));
        return width;
}

static void print_cell(const char *text, size_t width, bool right, bool last, const char *colour) {
        size_t l = width_of(text), n = width > l ? width - l : 0;

        printf("%*s%s%s%s", right ? (int) n : 0, "", colour, text, colour[0] != '\0' ? "\033[0m" : "");
        if (last)
                putchar('\n');
        else
                printf("%*s", (int) (right ? 0 : n) + 1, "");
}

static void print_rows(const Table *table, bool legend, bool colours) {
        size_t n_rows = table->n_cells / table->n_columns, widths[table->n_columns];

        for (size_t i = 0; i < table->n_columns; i++)
                widths[i] = column_width(table, i, n_rows, legend);
        for (size_t i = 0; legend && i < table->n_columns; i++)
                print_cell(table->columns[i].header, widths[i], table->columns[i].right,
                           i + 1 == table->n_columns, "");
        for (size_t i = 0; i < n_rows * table->n_columns; i++) {
                size_t column = i % table->n_columns;
                const Cell *cell = table->cells + i;

                print_cell(text_of(cell), widths[column], table->columns[column].right,
                           column + 1 == table->n_columns, colours ? colour_codes[cell->colour] : "");
        }
}

void table_print_json(const Table *table, Json *json, const char *name) {
        size_t n_rows = table->n_cells / table->n_columns;

        json_open(json, name, '[');
        for (size_t i = 0; i < n_rows * table->n_columns; i++) {
                const Cell *cell = table->cells + i;
                size_t column = i % table->n_columns;

                if (column == 0)
                        json_open(json, NULL, '{');
                if (cell->is_number)
                        json_unsigned(json, table->columns[column].name, cell->number);
                else if (cell->text)
                        json_string(json, table->columns[column].name, cell->text);
                else
                        json_null(json, table->columns[column].name);
                if (column + 1 == table->n_columns)
                        json_close(json, '{');
        }
        json_close(json, '[');
}

void table_print(const Table *table, const Output *output, bool colours) {
        Json json;

        assert(table);
        assert(output);

        if (output->json == JSON_OFF) {
                if (table->n_cells > 0)
                        print_rows(table, output->legend, colours);
                return;
        }
        json = json_begin(stdout, output->json);
        table_print_json(table, &json, NULL);
}
