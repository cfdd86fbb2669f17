/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* PID 1 is asked for one thing only, where the runtime directory of a service is; whether the service runs
 * is seen at the socket. That is in PID 1's store while there is no helper, so a call in the middle of a
 * restart waits for its answer instead of failing. */

#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "client.h"
#include "command.h"
#include "control-protocol.h"
#include "fd-util.h"
#include "runtime-directory.h"
#include "text.h"

#define SYSTEMD_NAME "org.freedesktop.systemd1"
#define SYSTEMD_PATH "/org/freedesktop/systemd1"
#define TEMPLATE "fcgi-pool@"

static bool has_suffix(const char *s, const char *suffix) {
        size_t l = strlen(s), n = strlen(suffix);

        return l > n && streq(s + l - n, suffix);
}

/* Neither a suffix nor an instance was given: it may be the name of an instance of the template. */
static bool is_bare(const char *unit) {
        return !has_suffix(unit, ".service") && !has_suffix(unit, ".socket") && !strchr(unit, '@');
}

/* "app", "app.service" or "app.socket" as a service; template: "app" is an instance. */
static int service_name(const char *unit, bool template, char **ret) {
        size_t l = strlen(unit);

        if (has_suffix(unit, ".socket"))
                l -= strlen(".socket");
        else if (has_suffix(unit, ".service"))
                l -= strlen(".service");
        return asprintf(ret, "%s%.*s.service", template ? TEMPLATE : "", (int) l, unit) < 0 ? -ENOMEM : 0;
}

/* Whether the first ExecStart= of a service is the helper: 1 or 0, or negative errno. */
static int runs_helper(sd_bus *bus, const char *path) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *answer = NULL;
        _cleanup_strv_free_ char **argv = NULL;
        int r;

        r = sd_bus_get_property(bus, SYSTEMD_NAME, path, SYSTEMD_NAME ".Service", "ExecStart", NULL, &answer,
                                "a(sasbttttuii)");
        if (r >= 0)
                r = sd_bus_message_enter_container(answer, SD_BUS_TYPE_ARRAY, "(sasbttttuii)");
        if (r >= 0)
                r = sd_bus_message_enter_container(answer, SD_BUS_TYPE_STRUCT, "sasbttttuii");
        if (r <= 0)
                return r;
        r = sd_bus_message_skip(answer, "s");
        if (r >= 0)
                r = sd_bus_message_read_strv(answer, &argv);
        return r < 0 ? r : argv && command_is_helper(argv);
}

/* The first RuntimeDirectory= of a service: 1; 0 if it has none. */
static int get_runtime_directory(sd_bus *bus, const char *path, char **ret_directory) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *answer = NULL;
        const char *directory;
        int r;

        r = sd_bus_get_property(bus, SYSTEMD_NAME, path, SYSTEMD_NAME ".Service", "RuntimeDirectory", NULL,
                                &answer, "as");
        if (r >= 0)
                r = sd_bus_message_enter_container(answer, SD_BUS_TYPE_ARRAY, "s");
        if (r >= 0)
                r = sd_bus_message_read(answer, "s", &directory);
        if (r <= 0)
                return r;
        *ret_directory = strdup(directory);
        return *ret_directory ? 1 : -ENOMEM;
}

/* Whether there is such a service and it is a pool: 1 with *ret_path, 0 or negative errno. *state is what
 * systemd says of it. */
static int find_pool(sd_bus *bus, const char *service, char **ret_path, char **state) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *answer = NULL;
        const char *path;
        int r;

        free(TAKE_PTR(*state));
        r = sd_bus_call_method(bus, SYSTEMD_NAME, SYSTEMD_PATH, SYSTEMD_NAME ".Manager", "LoadUnit", NULL,
                               &answer, "s", service);
        if (r >= 0)
                r = sd_bus_message_read(answer, "o", &path);
        if (r >= 0)
                r = sd_bus_get_property_string(bus, SYSTEMD_NAME, path, SYSTEMD_NAME ".Unit", "LoadState",
                                               NULL, state);
        if (r >= 0)
                r = runs_helper(bus, path);
        if (r <= 0)
                return r;
        *ret_path = strdup(path);
        return *ret_path ? 1 : -ENOMEM;
}

/* The service that a socket starts: 1; 0 if there is no such socket. */
static int find_service(sd_bus *bus, const char *socket, char **ret_service) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *answer = NULL, *triggers = NULL;
        const char *path, *service;
        int r;

        r = sd_bus_call_method(bus, SYSTEMD_NAME, SYSTEMD_PATH, SYSTEMD_NAME ".Manager", "LoadUnit", NULL,
                               &answer, "s", socket);
        if (r >= 0)
                r = sd_bus_message_read(answer, "o", &path);
        if (r >= 0)
                r = sd_bus_get_property(bus, SYSTEMD_NAME, path, SYSTEMD_NAME ".Unit", "Triggers", NULL,
                                        &triggers, "as");
        if (r >= 0)
                r = sd_bus_message_enter_container(triggers, SD_BUS_TYPE_ARRAY, "s");
        if (r >= 0)
                r = sd_bus_message_read(triggers, "s", &service);
        if (r <= 0)
                return r;
        *ret_service = strdup(service);
        return *ret_service ? 1 : -ENOMEM;
}

static int no_such_pool(const char *unit, const char *state, Problem *ret_problem) {
        bool missing = !state || streq(state, "not-found");

        if (!missing && !streq(state, "loaded"))
                return problem_set(ret_problem, EXIT_STATUS_NOT_CONFIGURED, -ENOEXEC,
                                   "%s is %s, expected a service that systemd has loaded", unit, state);
        return problem_set(ret_problem, missing ? EXIT_STATUS_NOT_INSTALLED : EXIT_STATUS_INVALID_ARGUMENT,
                           -ENXIO, "%s: no such pool, expected a service that runs fcgi-pool or an "
                           "instance of " TEMPLATE ".service", unit);
}

static int find_directory(const char *unit, char **ret_directory, Problem *ret_problem) {
        _cleanup_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
        _cleanup_free_ char *path = NULL, *state = NULL, *triggered = NULL;
        const char *name = unit;
        int r;

        r = sd_bus_open_system(&bus);
        if (r >= 0 && has_suffix(unit, ".socket")) {
                r = find_service(bus, unit, &triggered);
                name = triggered ?: unit;
        }
        for (unsigned template = 0; template < (is_bare(name) ? 2U : 1U) && r >= 0 && !path; template++) {
                _cleanup_free_ char *service = NULL;

                r = service_name(name, template, &service);
                if (r >= 0)
                        r = find_pool(bus, service, &path, &state);
        }
        if (r == -EINVAL)
                return problem_set(ret_problem, EXIT_STATUS_INVALID_ARGUMENT, r,
                                   "%s: not the name of a unit, expected a service, its socket, or an "
                                   "instance of " TEMPLATE ".service", unit);
        if (r >= 0 && !path)
                return no_such_pool(unit, state, ret_problem);
        if (r >= 0)
                r = get_runtime_directory(bus, path, ret_directory);
        if (r == 0)
                return problem_set(ret_problem, EXIT_STATUS_NOT_CONFIGURED, -ENXIO,
                                   "%s has no RuntimeDirectory=, expected one for the control socket", unit);
        if (r < 0)
                return problem_set(ret_problem, EXIT_STATUS_UNAVAILABLE, r,
                                   "Could not ask the service manager about %s: %s", unit, strerror(-r));
        return 0;
}

static int add_running_pools(sd_bus *bus, sd_bus_message *answer, char ***units) {
        const char *name, *active, *path;
        int r;

        r = sd_bus_message_enter_container(answer, SD_BUS_TYPE_ARRAY, "(ssssssouso)");
        while (r >= 0) {
                r = sd_bus_message_read(answer, "(ssssssouso)", &name, NULL, NULL, &active, NULL, NULL,
                                        &path, NULL, NULL, NULL);
                if (r <= 0)
                        return r;
                if (has_suffix(name, ".service") && !streq(active, "inactive") && !streq(active, "failed") &&
                    runs_helper(bus, path) > 0)
                        r = strv_extend(units, name);
        }
        return r;
}

int client_list_units(char ***ret_units, Problem *ret_problem) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *answer = NULL;
        _cleanup_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
        _cleanup_strv_free_ char **units = NULL;
        int r;

        assert(ret_units);

        r = sd_bus_open_system(&bus);
        if (r >= 0)
                r = sd_bus_call_method(bus, SYSTEMD_NAME, SYSTEMD_PATH, SYSTEMD_NAME ".Manager", "ListUnits",
                                       NULL, &answer, NULL);
        if (r >= 0)
                r = add_running_pools(bus, answer, &units);
        if (r < 0)
                return problem_set(ret_problem, EXIT_STATUS_UNAVAILABLE, r,
                                   "Could not ask the service manager for its services: %s", strerror(-r));
        *ret_units = TAKE_PTR(units);
        return 0;
}

int client_find_socket(const char *unit, char **ret_path, Problem *ret_problem) {
        char buffer[PATH_MAX];
        const char *own = runtime_directory(buffer);
        _cleanup_free_ char *directory = NULL;
        int r;

        assert(ret_path);

        if (!unit && !own)
                return problem_set(ret_problem, EXIT_STATUS_INVALID_ARGUMENT, -ENXIO,
                                   "RUNTIME_DIRECTORY is not set, expected the name of a unit");
        if (unit) {
                r = find_directory(unit, &directory, ret_problem);
                if (r < 0)
                        return r;
        }
        r = unit ? asprintf(ret_path, "/run/%s/" CONTROL_SOCKET, directory) :
                asprintf(ret_path, "%s/" CONTROL_SOCKET, own);
        if (r < 0)
                return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, -ENOMEM, "Out of memory");
        return 0;
}

static int dial(const char *path, Problem *ret_problem) {
        struct sockaddr_un sa = { .sun_family = AF_UNIX };
        _cleanup_close_ int fd = -EBADF;

        if (strlen(path) >= sizeof(sa.sun_path))
                return problem_set(ret_problem, EXIT_STATUS_INVALID_ARGUMENT, -ENAMETOOLONG,
                                   "%s: too long for a socket, expected less than %zu characters", path,
                                   sizeof(sa.sun_path));
        memcpy(sa.sun_path, path, strlen(path) + 1);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, -errno, "Could not open a socket: %m");
        if (connect(fd, (struct sockaddr *) &sa, sizeof(sa)) < 0)
                return problem_set(ret_problem,
                                   errno == EACCES || errno == EPERM ? EXIT_STATUS_NO_PERMISSION :
                                   EXIT_STATUS_UNAVAILABLE, -errno, "%s%s: %m",
                                   errno == ENOENT || errno == ECONNREFUSED ? "The pool does not run: " : "",
                                   path);
        return TAKE_FD(fd);
}

int client_connect(const char *path, sd_bus **ret_bus, Problem *ret_problem) {
        _cleanup_(sd_bus_close_unrefp) sd_bus *bus = NULL;
        int r, fd;

        assert(path);
        assert(ret_bus);

        fd = dial(path, ret_problem);
        if (fd < 0)
                return fd;
        r = sd_bus_new(&bus);
        if (r < 0)
                (void) safe_close(fd);
        else
                r = sd_bus_set_fd(bus, fd, fd); /* takes it */
        if (r >= 0)
                r = sd_bus_start(bus);
        if (r < 0)
                return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, r, "%s: %s", path, strerror(-r));
        *ret_bus = TAKE_PTR(bus);
        return 0;
}

int client_open(const char *unit, char **ret_path, sd_bus **ret_bus, Problem *ret_problem) {
        _cleanup_free_ char *path = NULL;
        int r;

        r = client_find_socket(unit, &path, ret_problem);
        if (r >= 0)
                r = client_connect(path, ret_bus, ret_problem);
        if (r >= 0 && ret_path)
                *ret_path = TAKE_PTR(path);
        return r;
}

bool client_is_gone(int error) {
        return error == -ECONNRESET || error == -ENOTCONN || error == -EPIPE || error == -ESHUTDOWN;
}

bool client_has_ended(int error) {
        return error == -ENOENT || error == -ECONNREFUSED || client_is_gone(error);
}

int client_problem(int error, const sd_bus_error *bus_error, Problem *ret_problem) {
        (void) problem_set(ret_problem, EXIT_STATUS_UNAVAILABLE, error, "%s",
                           bus_error && bus_error->message ? bus_error->message : strerror(-error));
        if (ret_problem)
                text_make_harmless(ret_problem->text);
        return error;
}

int client_get_string(sd_bus *bus, const char *name, char **ret, Problem *ret_problem) {
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        int r;

        r = sd_bus_get_property_string(bus, NULL, CONTROL_PATH, CONTROL_INTERFACE, name, &error, ret);
        if (r < 0)
                return client_problem(r, &error, ret_problem);
        text_make_harmless(*ret);
        return 0;
}

int client_get_number(sd_bus *bus, const char *name, char type, void *ret, Problem *ret_problem) {
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        int r;

        r = sd_bus_get_property_trivial(bus, NULL, CONTROL_PATH, CONTROL_INTERFACE, name, &error, type, ret);
        return r < 0 ? client_problem(r, &error, ret_problem) : 0;
}
