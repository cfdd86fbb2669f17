/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What is wrong with the input, in the one line the user gets, and the exit status it ends in.
 *
 * Modules below the ones that log fill a Problem and return a negative errno; main prints it. The line names
 * what was wrong (option, variable or fd) and what was expected; it has no program name and no newline. */

#include <stdarg.h>
#include <stdio.h>

#include "util.h"

/* LSB and systemd meanings (systemd.exec(5), "Process Exit Codes"), sysexits.h for the rest. */
enum {
        EXIT_STATUS_FINDINGS = 1,           /* fcgi-poolctl check has found something */
        EXIT_STATUS_INVALID_ARGUMENT = 2,   /* unknown option, bad value, no command */
        EXIT_STATUS_NO_PERMISSION = 4,      /* root without --allow-root, a capability that is not held */
        EXIT_STATUS_NOT_INSTALLED = 5,      /* the command does not exist or cannot be executed */
        EXIT_STATUS_NOT_CONFIGURED = 6,     /* no listener, or a descriptor that is not one */
        EXIT_STATUS_UNAVAILABLE = 69,       /* EX_UNAVAILABLE: no worker could be kept serving */
        EXIT_STATUS_OS_ERROR = 71,          /* EX_OSERR: the system refused something we need */
};

typedef struct Problem {
        int exit_status;
        char text[512];
} Problem;

/* Fills *ret_problem (which may be NULL: nobody asks) and returns error, a negative errno, unchanged. */
static inline int _printf_(4, 5) problem_set(Problem *ret_problem, int exit_status, int error,
                                             const char *format, ...) {
        va_list ap;

        assert(error < 0);

        if (!ret_problem)
                return error;

        ret_problem->exit_status = exit_status;
        va_start(ap, format);
        (void) vsnprintf(ret_problem->text, sizeof(ret_problem->text), format, ap);
        va_end(ap);
        return error;
}
