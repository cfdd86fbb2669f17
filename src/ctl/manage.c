/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* One call each: the pool has taken the request when it answers, and goes about it by itself. */

#include <inttypes.h>
#include <stdio.h>

#include "client.h"
#include "control-protocol.h"
#include "manage.h"

static int call(const char *unit, const char *method, bool has_number, uint32_t number) {
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *message = NULL;
        _cleanup_(sd_bus_close_unrefp) sd_bus *bus = NULL;
        Problem problem = {};
        int r;

        r = client_open(unit, NULL, &bus, &problem);
        if (r >= 0) {
                r = sd_bus_message_new_method_call(bus, &message, NULL, CONTROL_PATH, CONTROL_INTERFACE,
                                                   method);
                if (r >= 0 && has_number)
                        r = sd_bus_message_append(message, "u", number);
                if (r >= 0)
                        r = sd_bus_call(bus, message, 0, &error, NULL);
                if (r < 0)
                        (void) client_problem(r, &error, &problem);
        }
        if (r >= 0)
                return EXIT_SUCCESS;
        fprintf(stderr, "%s\n", problem.text);
        return problem.exit_status ?: EXIT_STATUS_UNAVAILABLE;
}

static bool parse_number(const char *s, uint32_t *ret) {
        unsigned long long n;
        char *end;

        if (s[0] < '0' || s[0] > '9')
                return false;
        errno = 0;
        n = strtoull(s, &end, 10);
        if (errno != 0 || *end != '\0' || n > UINT32_MAX)
                return false;
        *ret = (uint32_t) n;
        return true;
}

int set_workers(const Output *output, char *const *arguments) {
        uint32_t n;

        if (!parse_number(arguments[1], &n) || n == 0) {
                fprintf(stderr, "set-workers: %s: expected a number above 0\n", arguments[1]);
                return EXIT_STATUS_INVALID_ARGUMENT;
        }
        return call(arguments[0], "SetWorkers", true, n);
}

int recycle(const Output *output, char *const *arguments) {
        uint32_t slot = 0;

        if (streq(arguments[1], "all"))
                return call(arguments[0], "RecycleAll", false, 0);
        if (!parse_number(arguments[1], &slot)) {
                fprintf(stderr, "recycle: %s: expected the number of a slot, or all\n", arguments[1]);
                return EXIT_STATUS_INVALID_ARGUMENT;
        }
        return call(arguments[0], "Recycle", true, slot);
}

int hold(const Output *output, char *const *arguments) {
        return call(arguments[0], "Hold", false, 0);
}

int resume(const Output *output, char *const *arguments) {
        return call(arguments[0], "Resume", false, 0);
}
