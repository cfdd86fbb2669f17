/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a pool says of itself, as a person likes to read it. Times are ages, rounded to what matters at that
 * age; JSON has all of them in microseconds and bytes. */

#include <inttypes.h>

#include "client.h"
#include "rows.h"
#include "status.h"
#include "table.h"

static const Column worker_columns[] = {
        { "SLOT", "slot", true },
        { "PID", "pid", true },
        { "GEN", "generation", true },
        { "STATE", "state", false },
        { "SINCE", "state_usec", true },
        { "REQUESTS", "requests", true },
        { "OLDEST", "request_usec", true },
        { "MEMORY", "memory", true },
        { "UPTIME", "age_usec", true },
        { "RESTARTS", "restarts", true },
        { "LAST DEATH", "last_death", false },
};

/* "12s", "3min 5s", "2h 7min", "5d 3h". */
static char *format_age(char *buffer, size_t size, uint64_t usec) {
        uint64_t s = usec / USEC_PER_SEC;

        if (usec < USEC_PER_SEC)
                (void) snprintf(buffer, size, "%" PRIu64 "ms", usec / USEC_PER_MSEC);
        else if (s < 60)
                (void) snprintf(buffer, size, "%" PRIu64 "s", s);
        else if (s < 3600)
                (void) snprintf(buffer, size, "%" PRIu64 "min %" PRIu64 "s", s / 60, s % 60);
        else if (s < 86400)
                (void) snprintf(buffer, size, "%" PRIu64 "h %" PRIu64 "min", s / 3600, s / 60 % 60);
        else
                (void) snprintf(buffer, size, "%" PRIu64 "d %" PRIu64 "h", s / 86400, s / 3600 % 24);
        return buffer;
}

static char *format_size(char *buffer, size_t size, uint64_t bytes) {
        static const char units[] = "KMGT";
        double value = (double) bytes / 1024;
        size_t i = 0;

        while (value >= 1024 && i + 2 < sizeof(units)) {
                value /= 1024;
                i++;
        }
        (void) snprintf(buffer, size, "%.1f%c", value, units[i]);
        return buffer;
}

/* --- to the table --- */

static Colour colour_of(const char *state) {
        if (streq(state, "ready"))
                return COLOUR_GOOD;
        if (streq(state, "backing-off") || streq(state, "killing"))
                return COLOUR_BAD;
        return COLOUR_WARN;
}

static int add_optional(Table *table, bool has, uint64_t number, char *(*format)(char *, size_t, uint64_t)) {
        char text[32];

        if (!has)
                return table_add_text(table, NULL, COLOUR_DIM);
        if (format)
                return table_add_number(table, number, format(text, sizeof(text), number), COLOUR_NONE);
        (void) snprintf(text, sizeof(text), "%" PRIu64, number);
        return table_add_number(table, number, text, COLOUR_NONE);
}

static int add_row(Table *table, const WorkerRow *row) {
        int r;

        r = add_optional(table, row->has_slot, row->slot, NULL);
        if (r >= 0)
                r = add_optional(table, row->has_process, row->pid, NULL);
        if (r >= 0)
                r = add_optional(table, row->has_process, row->generation, NULL);
        if (r >= 0)
                r = table_add_text(table, row->state, colour_of(row->state));
        if (r >= 0)
                r = add_optional(table, row->has_process, row->state_usec, format_age);
        if (r >= 0)
                r = add_optional(table, row->has_process, row->requests, NULL);
        if (r >= 0)
                r = add_optional(table, row->has_request, row->request_usec, format_age);
        if (r >= 0)
                r = add_optional(table, row->has_memory, row->memory, format_size);
        if (r >= 0)
                r = add_optional(table, row->has_process, row->age_usec, format_age);
        if (r >= 0)
                r = add_optional(table, row->has_slot, row->restarts, NULL);
        if (r < 0)
                return r;
        return table_add_text(table, row->last_death, row->last_death ? COLOUR_WARN : COLOUR_DIM);
}

static int add_rows(sd_bus *bus, Table *table, Problem *ret_problem) {
        _cleanup_(rows_done) Rows rows = {};
        int r;

        r = rows_get(bus, &rows, ret_problem);
        for (size_t i = 0; i < rows.n && r >= 0; i++)
                if (add_row(table, rows.list + i) < 0)
                        r = problem_set(ret_problem, EXIT_STATUS_OS_ERROR, -ENOMEM, "Out of memory");
        return r;
}

static int show_pool(const Output *output, const char *unit, Json *json, Problem *ret_problem) {
        _cleanup_(table_freep) Table *table = table_new(worker_columns, ELEMENTSOF(worker_columns));
        _cleanup_free_ char *status = NULL, *name = NULL;
        _cleanup_(sd_bus_close_unrefp) sd_bus *bus = NULL;
        int r;

        if (!table)
                return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, -ENOMEM, "Out of memory");
        r = client_open(unit, NULL, &bus, ret_problem);
        if (r >= 0)
                r = client_get_string(bus, "Name", &name, ret_problem);
        if (r >= 0)
                r = client_get_string(bus, "Status", &status, ret_problem);
        if (r >= 0)
                r = add_rows(bus, table, ret_problem);
        if (r < 0)
                return r;

        if (json) {
                json_open(json, NULL, '{');
                json_string(json, "name", name);
                json_string(json, "status", status);
                table_print_json(table, json, "workers");
                json_close(json, '{');
                return 0;
        }
        if (output->legend)
                printf("%s: %s\n", name, status);
        table_print(table, output, output->colours);
        return 0;
}

int status(const Output *output, char *const *units) {
        static char *const own[] = { NULL, NULL };
        Json json = json_begin(stdout, output->json);
        int exit_status = EXIT_SUCCESS;
        bool as_json = output->json != JSON_OFF;

        if (as_json)
                json_open(&json, NULL, '[');
        for (char *const *unit = units[0] ? units : own; *unit || unit == own; unit++) {
                Problem problem = {};

                if (show_pool(output, *unit, as_json ? &json : NULL, &problem) < 0) {
                        fprintf(stderr, "%s\n", problem.text);
                        exit_status = exit_status == EXIT_SUCCESS ? problem.exit_status : exit_status;
                }
                if (*unit && unit[1] && output->legend && !as_json)
                        putchar('\n');
        }
        if (as_json)
                json_close(&json, '[');
        return exit_status;
}

/* --- all pools --- */

static const Column pool_columns[] = {
        { "POOL", "name", false },
        { "UNIT", "unit", false },
        { "PHASE", "phase", false },
        { "STATUS", "status", false },
};

/* A line for each unit that answers. */
static int add_pool(Table *table, const char *unit, Problem *ret_problem) {
        _cleanup_free_ char *name = NULL, *phase = NULL, *text = NULL;
        _cleanup_(sd_bus_close_unrefp) sd_bus *bus = NULL;
        int r;

        r = client_open(unit, NULL, &bus, ret_problem);
        if (r >= 0)
                r = client_get_string(bus, "Name", &name, ret_problem);
        if (r >= 0)
                r = client_get_string(bus, "Phase", &phase, ret_problem);
        if (r >= 0)
                r = client_get_string(bus, "Status", &text, ret_problem);
        if (r < 0)
                return r;
        r = table_add_text(table, name, COLOUR_NONE);
        if (r >= 0)
                r = table_add_text(table, unit, COLOUR_NONE);
        if (r >= 0)
                r = table_add_text(table, phase, streq(phase, "serving") ? COLOUR_GOOD : COLOUR_WARN);
        if (r >= 0)
                r = table_add_text(table, text, COLOUR_NONE);
        return r < 0 ? problem_set(ret_problem, EXIT_STATUS_OS_ERROR, -ENOMEM, "Out of memory") : 0;
}

int list(const Output *output, char *const *arguments) {
        _cleanup_(table_freep) Table *table = table_new(pool_columns, ELEMENTSOF(pool_columns));
        _cleanup_strv_free_ char **units = NULL;
        int r, exit_status = EXIT_SUCCESS;
        Problem problem = {};

        r = table ? client_list_units(&units, &problem) : -ENOMEM;
        if (r < 0) {
                fprintf(stderr, "%s\n", problem.text[0] != '\0' ? problem.text : strerror(-r));
                return problem.exit_status ?: EXIT_STATUS_OS_ERROR;
        }
        for (char **unit = units; unit && *unit; unit++) {
                problem = (Problem) {};
                r = add_pool(table, *unit, &problem);
                if (r < 0 && !client_has_ended(r)) {
                        fprintf(stderr, "%s\n", problem.text);
                        exit_status = exit_status == EXIT_SUCCESS ? problem.exit_status : exit_status;
                }
        }
        table_print(table, output, output->colours);
        return exit_status;
}
