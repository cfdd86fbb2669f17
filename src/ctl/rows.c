/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A dictionary for each worker, so that helper and tool need not be of one version: what is not known is
 * left out, what is not there is absent. */

#include "control-protocol.h"
#include "rows.h"

static int read_number(sd_bus_message *m, const char *contents, uint64_t *ret) {
        uint32_t n;
        int r;

        if (streq(contents, "t"))
                return sd_bus_message_read(m, "v", "t", ret);
        r = sd_bus_message_read(m, "v", "u", &n);
        if (r >= 0)
                *ret = n;
        return r;
}

/* The variant of one key. A key that is not known is from a later helper. */
static int read_field(sd_bus_message *m, const char *key, const char *contents, WorkerRow *row) {
        const struct {
                const char *key;
                uint64_t *number;
                bool *has;
        } numbers[] = {
                { "Slot", &row->slot, &row->has_slot },
                { "PID", &row->pid, &row->has_process },
                { "Generation", &row->generation, NULL },
                { "StateUSec", &row->state_usec, NULL },
                { "AgeUSec", &row->age_usec, NULL },
                { "Requests", &row->requests, NULL },
                { "RequestUSec", &row->request_usec, &row->has_request },
                { "Memory", &row->memory, &row->has_memory },
                { "Restarts", &row->restarts, NULL },
        };

        if (streq(contents, "s") && streq(key, "State"))
                return sd_bus_message_read(m, "v", "s", &row->state);
        if (streq(contents, "s") && streq(key, "LastDeath"))
                return sd_bus_message_read(m, "v", "s", &row->last_death);
        for (size_t i = 0; i < ELEMENTSOF(numbers); i++)
                if (streq(key, numbers[i].key) && (streq(contents, "t") || streq(contents, "u"))) {
                        if (numbers[i].has)
                                *numbers[i].has = true;
                        return read_number(m, contents, numbers[i].number);
                }
        return sd_bus_message_skip(m, "v");
}

/* 1 and a row, 0 at the end, or negative errno. */
static int read_row(sd_bus_message *m, WorkerRow *ret) {
        WorkerRow row = { .state = "" };
        const char *key, *contents;
        int r;

        r = sd_bus_message_enter_container(m, SD_BUS_TYPE_ARRAY, "{sv}");
        if (r <= 0)
                return r;
        while ((r = sd_bus_message_enter_container(m, SD_BUS_TYPE_DICT_ENTRY, "sv")) > 0) {
                r = sd_bus_message_read(m, "s", &key);
                if (r >= 0)
                        r = sd_bus_message_peek_type(m, NULL, &contents);
                if (r >= 0)
                        r = read_field(m, key, contents, &row);
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
                if (r < 0)
                        return r;
        }
        if (r >= 0)
                r = sd_bus_message_exit_container(m);
        if (r < 0)
                return r;
        *ret = row;
        return 1;
}

void rows_done(Rows *rows) {
        free(rows->list);
        sd_bus_message_unref(rows->message);
        *rows = (Rows) {};
}

static int read_rows(Rows *rows) {
        size_t n_allocated = 0;
        int r;

        r = sd_bus_message_enter_container(rows->message, SD_BUS_TYPE_ARRAY, "a{sv}");
        while (r >= 0) {
                if (rows->n == n_allocated) {
                        size_t n = MAX_OF(n_allocated * 2, (size_t) 16);
                        WorkerRow *bigger = reallocarray(rows->list, n, sizeof(*bigger));

                        if (!bigger)
                                return -ENOMEM;
                        rows->list = bigger;
                        n_allocated = n;
                }
                r = read_row(rows->message, rows->list + rows->n);
                if (r == 0)
                        return 0;
                rows->n += r > 0;
        }
        return r;
}

int rows_get(sd_bus *bus, Rows *ret_rows, Problem *ret_problem) {
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        _cleanup_(rows_done) Rows rows = {};
        int r;

        r = sd_bus_call_method(bus, NULL, CONTROL_PATH, CONTROL_INTERFACE, "ListWorkers", &error,
                               &rows.message, NULL);
        if (r >= 0)
                r = read_rows(&rows);
        if (r < 0)
                return client_problem(r, &error, ret_problem);
        *ret_rows = rows;
        rows = (Rows) {};
        return 0;
}
