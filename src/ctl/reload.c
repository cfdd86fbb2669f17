/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A reload, and a wait for its verdict.
 *
 * The helper may be replaced in the middle: it executes a newer image of itself before a reload, it may be
 * restarted, and it may die. So the verdict is asked for by generation, of whichever helper there is; a
 * connection that ends is made anew. A helper that has been told to restart rolls to a generation of its
 * own, and then nobody can say what would have become of ours: that is an error, too. */

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "client.h"
#include "clock.h"
#include "control-protocol.h"
#include "reload.h"
#include "text.h"

#define ATTEMPTS_MAX 20U        /* connections that may end while we wait */

typedef struct Wait {
        bool done;
        int error;              /* negative errno, with problem */
        char *summary;          /* owned */
        char *status;           /* owned: what was printed last */
        bool terminal;
        Problem *problem;
} Wait;

static void wait_done(Wait *wait) {
        free(wait->summary);
        free(wait->status);
}

/* One line that is written over, for a person who waits. */
static void print_progress(Wait *wait, sd_bus *bus) {
        _cleanup_free_ char *status = NULL;

        if (!wait->terminal)
                return;
        if (client_get_string(bus, "Status", &status, NULL) < 0)
                return;
        if (wait->status && streq(wait->status, status))
                return;
        fprintf(stderr, "\r\033[K%s", status);
        free(wait->status);
        wait->status = TAKE_PTR(status);
}

static void clear_progress(const Wait *wait) {
        if (wait->status)
                fprintf(stderr, "\r\033[K");
}

static int on_verdict(sd_bus_message *answer, void *userdata, sd_bus_error *ret_error) {
        const sd_bus_error *error = sd_bus_message_get_error(answer);
        Wait *wait = userdata;
        const char *summary;
        int r;

        if (sd_bus_error_has_name(error, SD_BUS_ERROR_NO_REPLY))
                return 0; /* the connection has ended, which the loop hears as well */
        wait->done = true;
        if (error) {
                wait->error = -sd_bus_error_get_errno(error);
                (void) client_problem(wait->error, error, wait->problem);
                if (sd_bus_error_has_name(error, CONTROL_ERROR_RELOAD_FAILED))
                        wait->problem->exit_status = EXIT_FAILURE;
                return 0;
        }
        r = sd_bus_message_read(answer, "s", &summary);
        if (r >= 0)
                wait->summary = strdup(summary);
        if (wait->summary)
                text_make_harmless(wait->summary);
        return r < 0 ? r : 0;
}

/* Until the verdict is there (0) or the connection has ended (negative errno). */
static int wait_here(sd_bus *bus, uint64_t generation, Wait *wait) {
        int r;

        r = sd_bus_call_method_async(bus, NULL, NULL, CONTROL_PATH, CONTROL_INTERFACE, "WaitReload",
                                     on_verdict, wait, "t", generation);
        while (r >= 0 && !wait->done) {
                r = sd_bus_process(bus, NULL);
                if (r > 0 || wait->done)
                        continue;
                if (r == 0) {
                        print_progress(wait, bus);
                        r = sd_bus_wait(bus, UINT64_MAX);
                }
                if (r == -EINTR)
                        r = 0;
        }
        return r < 0 ? r : 0;
}

/* *generation is 0 until a helper has said which one is on its way. */
static int begin_here(sd_bus *bus, bool again, uint64_t *generation, Problem *ret_problem) {
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *answer = NULL;
        int r;

        r = sd_bus_call_method(bus, NULL, CONTROL_PATH, CONTROL_INTERFACE, "Reload", &error, &answer, NULL);
        if (r >= 0)
                r = sd_bus_message_read(answer, "t", generation);
        /* The helper before may have begun it, and gone before we had its answer. */
        else if (again && sd_bus_error_has_name(&error, CONTROL_ERROR_RELOAD_IN_PROGRESS))
                r = sd_bus_get_property_trivial(bus, NULL, CONTROL_PATH, CONTROL_INTERFACE, "Generation",
                                                NULL, 't', generation);
        if (r < 0 && !client_is_gone(r))
                (void) client_problem(r, &error, ret_problem);
        return r < 0 ? r : 0;
}

/* One connection. Negative errno that client_is_gone(): another one may do. */
static int reload_here(const char *path, unsigned attempt, uint64_t *generation, Wait *wait) {
        _cleanup_(sd_bus_close_unrefp) sd_bus *bus = NULL;
        int r;

        r = client_connect(path, &bus, wait->problem);
        if (r < 0)
                return r;
        r = sd_bus_set_method_call_timeout(bus, UINT64_MAX);
        if (r >= 0 && *generation == 0)
                r = begin_here(bus, attempt > 0, generation, wait->problem);
        if (r >= 0) {
                r = wait_here(bus, *generation, wait);
                if (r < 0 && !client_is_gone(r))
                        (void) client_problem(r, NULL, wait->problem);
        }
        return r;
}

static int reload_pool(const char *path, bool terminal, char **ret_summary, Problem *ret_problem) {
        _cleanup_(wait_done) Wait wait = { .terminal = terminal, .problem = ret_problem };
        uint64_t generation = 0;
        int r = -ENOTCONN;

        for (unsigned i = 0; i < ATTEMPTS_MAX && client_is_gone(r); i++)
                r = reload_here(path, i, &generation, &wait);
        clear_progress(&wait);
        if (client_is_gone(r))
                return problem_set(ret_problem, EXIT_STATUS_UNAVAILABLE, r,
                                   "%s: connections end one after the other, expected a helper that stays",
                                   path);
        if (r >= 0)
                r = wait.error;
        if (r < 0)
                return r;
        *ret_summary = TAKE_PTR(wait.summary);
        return 0;
}

static int reexec_helper(const char *path, Problem *ret_problem) {
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        _cleanup_(sd_bus_close_unrefp) sd_bus *bus = NULL, *next = NULL;
        _cleanup_free_ char *version = NULL;
        int r;

        r = client_connect(path, &bus, ret_problem);
        if (r < 0)
                return r;
        /* No answer is the good one: the connection ends with the image. */
        r = sd_bus_call_method(bus, NULL, CONTROL_PATH, CONTROL_INTERFACE, "Reexec", &error, NULL, NULL);
        if (!client_is_gone(r))
                return client_problem(r < 0 ? r : -EBADMSG, &error, ret_problem);
        r = client_connect(path, &next, ret_problem);
        if (r < 0)
                return r;
        return client_get_string(next, "Version", &version, ret_problem);
}

static int find(char *const *arguments, char **ret_path, Problem *ret_problem) {
        return client_find_socket(arguments[0], ret_path, ret_problem);
}

static int complain(const Problem *problem) {
        fprintf(stderr, "%s\n", problem->text);
        return problem->exit_status ?: EXIT_STATUS_UNAVAILABLE;
}

int reload(const Output *output, char *const *arguments) {
        _cleanup_free_ char *path = NULL, *summary = NULL;
        Problem problem = {};
        int r;

        r = find(arguments, &path, &problem);
        if (r >= 0)
                r = reload_pool(path, isatty(STDERR_FILENO), &summary, &problem);
        if (r < 0)
                return complain(&problem);
        if (output->legend && summary)
                puts(summary);
        return EXIT_SUCCESS;
}

int reexec(const Output *output, char *const *arguments) {
        _cleanup_free_ char *path = NULL;
        Problem problem = {};
        int r;

        r = find(arguments, &path, &problem);
        if (r >= 0)
                r = reexec_helper(path, &problem);
        return r < 0 ? complain(&problem) : EXIT_SUCCESS;
}
