/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A pool is a service and the sockets that activate it, whichever of them was named.
 *
 * TriggeredBy= of a service has the sockets that systemd has loaded, which need not be all: one that nobody
 * has started or required is not there before somebody asks for it. So the socket of the same name is always
 * asked for. It belongs to the service if it says so itself, or if it should: with Accept=yes it has another
 * service per connection.
 *
 * A name without a suffix is an instance of the template, or a service: which of them runs fcgi-pool is
 * looked up, for an instance of the template "exists" under any name. */

#include <fcntl.h>
#include <glob.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#include <systemd/sd-bus.h>

#include "check.h"
#include "problem.h"
#include "rules.h"
#include "unit.h"

#define TEMPLATE "fcgi-pool@"
#define ENVIRONMENT_FILE_MAX (1024U * 1024U)

typedef struct Pool {
        Service service; /* no id: a socket without a service */
        Socket *sockets;
        size_t n_sockets;
} Pool;

static void pool_done(Pool *pool) {
        service_done(&pool->service);
        for (size_t i = 0; i < pool->n_sockets; i++)
                socket_done(&pool->sockets[i]);
        free(pool->sockets);
}

static int no_memory(Problem *ret_problem) {
        return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, -ENOMEM, "out of memory");
}

/* --- the command line --- */

static void close_file(FILE **f) {
        if (*f)
                (void) fclose(*f);
}

static int read_environment_file(const char *path, char ***environment) {
        _cleanup_(close_file) FILE *f = NULL;
        _cleanup_free_ char *text = NULL;
        size_t n;

        f = fopen(path, "re");
        if (!f)
                return -errno;
        text = malloc(ENVIRONMENT_FILE_MAX);
        if (!text)
                return -ENOMEM;
        n = fread(text, 1, ENVIRONMENT_FILE_MAX - 1, f);
        if (ferror(f))
                return -EIO;
        text[n] = '\0';
        return environment_parse(text, environment);
}

/* Adds what is in the files that a pattern names. One that is not there is the start's affair. */
static int read_environment_files(const char *pattern, char ***environment) {
        _cleanup_(globfree) glob_t found = {};
        int r;

        if (glob(pattern, 0, NULL, &found) != 0)
                return access(pattern, F_OK) < 0 && errno == EACCES ? -EACCES : 0;
        for (size_t i = 0; i < found.gl_pathc; i++) {
                r = read_environment_file(found.gl_pathv[i], environment);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* CPUs that a service without further settings may use, as --workers=auto counts them; 0: not known. */
static unsigned count_cpus(const Service *service) {
        cpu_set_t set;

        if (service->cpus_restricted || sched_getaffinity(1, sizeof(set), &set) < 0)
                return 0;
        return (unsigned) CPU_COUNT(&set);
}

static bool has_variables(char *const *argv) {
        for (; *argv; argv++)
                if (strchr(*argv, '$'))
                        return true;
        return false;
}

static int resolve_command(Service *service, Problem *ret_problem) {
        int r;

        for (char **f = service->environment_files; f && *f; f++) {
                r = read_environment_files(*f, &service->environment);
                if (r == -ENOMEM)
                        return no_memory(ret_problem);
                if (r < 0 && has_variables(service->exec_start)) {
                        fprintf(stderr, "%s: %s cannot be read, leaving out what depends on options: %s\n",
                                service->id, *f, strerror(-r));
                        return 0;
                }
        }
        r = command_parse(service->exec_start, service->environment, count_cpus(service), &service->command);
        return r == -ENOMEM ? no_memory(ret_problem) : 0;
}

/* --- the units --- */

static bool endswith(const char *s, const char *suffix) {
        size_t l = strlen(s), n = strlen(suffix);

        return l > n && streq(s + l - n, suffix);
}

/* Whether a unit can be judged; says why not. */
static int check_loaded(const char *id, const char *load_state, Problem *ret_problem) {
        if (streq(load_state, "loaded"))
                return 0;
        if (streq(load_state, "not-found"))
                return problem_set(ret_problem, EXIT_STATUS_NOT_INSTALLED, -ENOENT,
                                   "%s: no such unit, expected the service or the socket of a pool", id);
        return problem_set(ret_problem, EXIT_STATUS_NOT_CONFIGURED, -ENOEXEC,
                           "%s: is %s, expected a unit that systemd can load (see systemctl status %s)", id,
                           load_state, id);
}

static int check_is_pool(const Service *service, Problem *ret_problem) {
        int r;

        r = check_loaded(service->id, service->load_state, ret_problem);
        if (r < 0)
                return r;
        if (!service->exec_start || !command_is_helper(service->exec_start))
                return problem_set(ret_problem, EXIT_STATUS_INVALID_ARGUMENT, -EINVAL,
                                   "%s: ExecStart= runs %s, expected fcgi-pool", service->id,
                                   service->exec_start ? service->exec_start[0] : "nothing");
        return 0;
}

static void note_reload(const char *id) {
        fprintf(stderr, "%s: has changed on disk since systemd has read it; "
                        "\"systemctl daemon-reload\" has it read again\n", id);
}

static int add_socket(sd_bus *bus, const char *name, Pool *pool, Problem *ret_problem) {
        _cleanup_(socket_done) Socket socket = {};
        Socket *bigger;
        int r;

        for (size_t i = 0; i < pool->n_sockets; i++)
                if (streq(pool->sockets[i].id, name))
                        return 0;
        r = socket_read(bus, name, &socket, ret_problem);
        if (r < 0)
                return r;
        if (!streq(socket.load_state, "loaded") ||
            (pool->service.id && !strv_contains(socket.triggers, pool->service.id) &&
             !streq(socket.accept, "yes")))
                return 0;

        bigger = reallocarray(pool->sockets, pool->n_sockets + 1, sizeof(Socket));
        if (!bigger)
                return no_memory(ret_problem);
        pool->sockets = bigger;
        pool->sockets[pool->n_sockets++] = socket;
        socket = (Socket) {};
        return 0;
}

/* The sockets of a service that has been read. */
static int read_sockets(sd_bus *bus, Pool *pool, Problem *ret_problem) {
        _cleanup_free_ char *own = NULL;
        int r;

        if (asprintf(&own, "%.*s.socket", (int) (strlen(pool->service.id) - strlen(".service")),
                     pool->service.id) < 0)
                return no_memory(ret_problem);
        for (char **name = pool->service.triggered_by; name && *name; name++) {
                r = endswith(*name, ".socket") ? add_socket(bus, *name, pool, ret_problem) : 0;
                if (r < 0)
                        return r;
        }
        return add_socket(bus, own, pool, ret_problem);
}

static int read_by_service(sd_bus *bus, const char *name, Pool *pool, Problem *ret_problem) {
        int r;

        r = service_read(bus, name, &pool->service, ret_problem);
        if (r >= 0)
                r = check_is_pool(&pool->service, ret_problem);
        if (r < 0)
                return r;
        if (pool->service.need_daemon_reload)
                note_reload(pool->service.id);
        r = resolve_command(&pool->service, ret_problem);
        return r < 0 ? r : read_sockets(bus, pool, ret_problem);
}

static int read_by_socket(sd_bus *bus, const char *name, Pool *pool, Problem *ret_problem) {
        _cleanup_(socket_done) Socket socket = {};
        int r;

        r = socket_read(bus, name, &socket, ret_problem);
        if (r >= 0)
                r = check_loaded(socket.id, socket.load_state, ret_problem);
        if (r < 0)
                return r;
        for (char **trigger = socket.triggers; trigger && *trigger; trigger++)
                if (endswith(*trigger, ".service")) {
                        r = read_by_service(bus, *trigger, pool, ret_problem);
                        return r < 0 ? r : add_socket(bus, socket.id, pool, ret_problem);
                }
        return add_socket(bus, socket.id, pool, ret_problem);
}

/* NAME or TEMPLATE@NAME: the service of that name if it runs fcgi-pool, else the instance of our
 * template. */
static int read_by_name(sd_bus *bus, const char *name, Pool *pool, Problem *ret_problem) {
        _cleanup_(service_done) Service service = {};
        _cleanup_free_ char *plain = NULL, *instance = NULL;
        int r;

        if (asprintf(&plain, "%s.service", name) < 0 || asprintf(&instance, TEMPLATE "%s.service", name) < 0)
                return no_memory(ret_problem);
        if (strchr(name, '@'))
                return read_by_service(bus, plain, pool, ret_problem);
        r = service_read(bus, plain, &service, ret_problem);
        if (r < 0)
                return r;
        return read_by_service(bus, check_is_pool(&service, NULL) >= 0 ? plain : instance, pool,
                               ret_problem);
}

static int read_pool(sd_bus *bus, const char *unit, Pool *pool, Problem *ret_problem) {
        static const char letters[] =
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:_.@\\-";
        size_t l = strspn(unit, letters);
        char *at = strchr(unit, '@');

        if (l == 0 || unit[l] != '\0')
                return problem_set(ret_problem, EXIT_STATUS_INVALID_ARGUMENT, -EINVAL,
                                   "\"%s\": expected NAME.service, NAME.socket or the NAME of "
                                   "fcgi-pool@NAME", unit);
        if (at && (at[1] == '\0' || at[1] == '.'))
                return problem_set(ret_problem, EXIT_STATUS_INVALID_ARGUMENT, -EINVAL,
                                   "%s: is a template, expected an instance of it such as %.*sblog", unit,
                                   (int) (at + 1 - unit), unit);
        return endswith(unit, ".service") ? read_by_service(bus, unit, pool, ret_problem) :
               endswith(unit, ".socket")  ? read_by_socket(bus, unit, pool, ret_problem) :
                                            read_by_name(bus, unit, pool, ret_problem);
}

/* *seen are the pools that have been checked: by their service, or a socket without one. */
static int check_unit(sd_bus *bus, const char *unit, char ***seen, Findings *findings,
                      Problem *ret_problem) {
        _cleanup_(pool_done) Pool pool = {};
        const char *id;
        int r;

        r = read_pool(bus, unit, &pool, ret_problem);
        if (r < 0)
                return r;
        id = pool.service.id ?: unit;
        if (strv_contains(*seen, id))
                return 0;
        r = strv_extend(seen, id);
        if (r >= 0)
                r = rules_judge(pool.service.id ? &pool.service : NULL, pool.sockets, pool.n_sockets,
                                findings);
        return r < 0 ? no_memory(ret_problem) : 0;
}

/* --- what is printed --- */

static void print_json(const Findings *findings, JsonMode mode) {
        Json json = json_begin(stdout, mode);

        json_open(&json, NULL, '[');
        for (const Finding *f = findings->items; f < findings->items + findings->n_items; f++) {
                json_open(&json, NULL, '{');
                json_string(&json, "unit", f->unit);
                json_string(&json, "severity", severity_to_string(f->severity));
                json_string(&json, "section", f->section);
                json_string(&json, "setting", f->setting);
                json_string(&json, "value", f->value);
                json_string(&json, "consequence", f->consequence);
                json_string(&json, "remedy", f->remedy);
                json_close(&json, '{');
        }
        json_close(&json, '[');
}

static void print_finding(const Finding *f) {
        printf("%s: %s: %s=%s\n    %s\n        [%s]\n", f->unit, severity_to_string(f->severity), f->setting,
               f->value, f->consequence, f->section);
        for (const char *line = f->remedy, *end; *line; line = *end ? end + 1 : end) {
                end = line + strcspn(line, "\n");
                printf("        %.*s\n", (int) (end - line), line);
        }
}

static void print_text(const Findings *findings, char *const *seen, bool legend) {
        size_t n_faults = 0;

        for (const Finding *f = findings->items; f < findings->items + findings->n_items; f++) {
                print_finding(f);
                n_faults += f->severity == SEVERITY_FAULT;
        }
        if (!legend)
                return;
        if (findings->n_items > 0) {
                printf("\nFaults: %zu, remarks: %zu. The indented lines are for \"systemctl edit UNIT\".\n",
                       n_faults, findings->n_items - n_faults);
                return;
        }
        printf("No findings:");
        for (; *seen; seen++)
                printf(" %s", *seen);
        putchar('\n');
}

int check(const Output *output, char *const *units) {
        _cleanup_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
        _cleanup_(findings_done) Findings findings = {};
        _cleanup_strv_free_ char **seen = NULL;
        int status = EXIT_SUCCESS, r;

        r = sd_bus_open_system(&bus);
        if (r < 0) {
                fprintf(stderr, "cannot ask systemd, the system bus does not answer: %s\n", strerror(-r));
                return EXIT_STATUS_UNAVAILABLE;
        }
        for (; *units; units++) {
                Problem problem = {};

                if (check_unit(bus, *units, &seen, &findings, &problem) >= 0)
                        continue;
                fprintf(stderr, "%s\n", problem.text);
                status = status == EXIT_SUCCESS ? problem.exit_status : status;
        }
        if (output->json != JSON_OFF)
                print_json(&findings, output->json);
        else if (seen)
                print_text(&findings, seen, output->legend);
        return status == EXIT_SUCCESS && findings.n_items > 0 ? EXIT_STATUS_FINDINGS : status;
}
