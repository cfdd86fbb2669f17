/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* argv -> Config -> Manager -> loop -> exit status. */

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>

#include "cgroup.h"
#include "clock.h"
#include "config.h"
#include "guardian.h"
#include "log.h"
#include "manager.h"
#include "message-ids.h"
#include "privileges.h"
#include "sockets.h"

/* To stderr even if that is the journal: we end at once, and of a process that has ended before journald
 * has looked at its datagram nobody knows to which unit it belonged. A stream is known from its
 * beginning. */
static int fail(const Problem *problem) {
        fprintf(stderr, "%s%s\n", log_goes_to_journal() ? "<3>" : "", problem->text);
        return problem->exit_status;
}

static unsigned count_cpus(void) {
        cpu_set_t set;
        int n;

        /* The CPUs we may run on (CPUAffinity=), not those that exist. */
        n = sched_getaffinity(0, sizeof(set), &set) < 0 ? 1 : CPU_COUNT(&set);
        return n > 0 ? (unsigned) n : 1;
}

static void close_file(FILE **f) {
        if (*f)
                (void) fclose(*f);
}

/* The service whose cgroup we are in, without its suffix; NULL if there is none. Not sd_pid_get_unit(3):
 * that needs /proc/1/cgroup, which ProtectProc=invisible hides. */
static char *unit_name(void) {
        _cleanup_(close_file) FILE *f = NULL;
        _cleanup_free_ char *line = NULL;
        size_t size = 0, length;
        char *path;

        f = fopen("/proc/self/cgroup", "re");
        while (f && getline(&line, &size, f) > 0) {
                if (!startswith(line, "0::"))
                        continue;
                line[strcspn(line, "\n")] = '\0';
                path = line + strlen("0::");
                length = cgroup_service_length(path);
                if (length < strlen("/.service"))
                        return NULL;
                path[length - strlen(".service")] = '\0';
                return strdup(strrchr(path, '/') + 1);
        }
        return NULL;
}

/* --name=, else the unit's, else the program's. */
static int choose_name(const Config *config, char **ret_name) {
        char *name;

        name = config->name ? strdup(config->name) : unit_name() ?: strdup("fcgi-pool");
        if (!name)
                return -ENOMEM;
        *ret_name = name;
        return 0;
}

static int check_slots(const Config *config, const ListenSet *set, Problem *ret_problem) {
        if (config->n_workers < set->n_listeners)
                return problem_set(ret_problem, EXIT_STATUS_INVALID_ARGUMENT, -EINVAL,
                                   "--workers=%u: expected at least one worker for each of the %zu "
                                   "listeners passed",
                                   config->n_workers, set->n_listeners);
        return 0;
}

static void print_plan(const Config *config, const char *name, const ListenSet *set) {
        char span[64], signal_name[16];

        printf("pool:          %s\n", name);
        printf("command:       %s", config->executable);
        for (char **a = config->command + 1; *a; a++)
                printf(" %s", *a);
        printf("\nworkers:       %u", config->n_workers_min);
        if (config->n_workers > config->n_workers_min)
                printf(" to %u", config->n_workers);
        putchar('\n');
        if (config->ready == READY_DELAY)
                printf("ready:         alive for %s\n",
                       clock_format_span(span, sizeof(span), config->ready_delay_usec));
        else
                printf("ready:         %s\n", ready_mode_to_string(config->ready));
        printf("start timeout: %s\n", clock_format_span(span, sizeof(span), config->start_timeout_usec));
        printf("retire:        %s\n", retire_mode_to_string(config->retire));
        printf("stop:          %s", config_signal_name(config->stop_signal, signal_name));
        printf(", SIGKILL after %s\n", clock_format_span(span, sizeof(span), config->stop_timeout_usec));
        printf("surge:         %u%s\n", config->surge, config->surge_is_percentage ? "%" : "");
        if (config->probe)
                printf("probe:         %s\n", config->probe);
        if (config->max_lifetime_usec != USEC_INFINITY)
                printf("max lifetime:  %s\n",
                       clock_format_span(span, sizeof(span), config->max_lifetime_usec));
        if (config->max_memory != UINT64_MAX)
                printf("max memory:    %llu bytes\n", (unsigned long long) config->max_memory);
        if (config->request_timeout_usec != USEC_INFINITY)
                printf("request:       %s at most\n",
                       clock_format_span(span, sizeof(span), config->request_timeout_usec));
        printf("crash budget:  %u in %s\n", config->crash_budget,
               clock_format_span(span, sizeof(span), config->crash_budget_usec));
        for (size_t i = 0; set && i < set->n_listeners; i++)
                printf("listener:      %s (%s, %s)\n", set->listeners[i].address, set->listeners[i].fd_name,
                       set->listeners[i].nonblocking ? "non-blocking" : "blocking");
        if (!set)
                printf("listener:      none passed; the unit's .socket passes it\n");
}

/* --check: everything is validated, nothing is started. A shell passes no listener, and that alone is no
 * fault. */
static int check(const Config *config, const char *name) {
        _cleanup_(listen_set_freep) ListenSet *set = NULL;
        Problem problem = {};
        int r;

        if (getenv("LISTEN_FDS")) {
                r = listen_set_take(config->listener, &set, &problem);
                if (r >= 0)
                        r = check_slots(config, set, &problem);
                if (r < 0)
                        return fail(&problem);
        }
        if (geteuid() == 0 && !config->allow_root)
                fprintf(stderr, "note: as root it would refuse to start without --allow-root\n");
        print_plan(config, name, set);
        return EXIT_SUCCESS;
}

static int run(const Config *config, const char *name, char **argv) {
        _cleanup_(listen_set_freep) ListenSet *set = NULL;
        _cleanup_(manager_freep) Manager *manager = NULL;
        Problem problem = {};
        int r;

        r = listen_set_take(config->listener, &set, &problem);
        if (r >= 0)
                r = check_slots(config, set, &problem);
        if (r >= 0)
                r = privileges_drop(config->worker_capabilities, config->allow_root, &problem);
        if (r >= 0)
                r = manager_new(config, name, set, argv, &manager, &problem);
        if (r < 0)
                return fail(&problem);

        r = manager_run(manager);
        if (r != EXIT_SUCCESS)
                log_settle();
        return r;
}

/* Whoever starts us without fd 0, 1 or 2 shall not see our epoll or a listener there. */
static void occupy_stdio(void) {
        int fd;

        do
                fd = open("/dev/null", O_RDWR | O_NOCTTY);
        while (fd >= 0 && fd <= STDERR_FILENO);
        (void) safe_close(fd);
}

/* As systemd's own programs have it; the second one is set by RestartMode=debug. */
static void set_log_level(void) {
        const char *level = getenv("SYSTEMD_LOG_LEVEL"), *invocation = getenv("DEBUG_INVOCATION");

        if ((level && streq(level, "debug")) || (invocation && streq(invocation, "1")))
                log_set_max_level(LOG_DEBUG);
}

int main(int argc, char **argv) {
        _cleanup_(config_freep) Config *config = NULL;
        _cleanup_free_ char *name = NULL;
        Problem problem = {};

        if (argc > 0 && streq(argv[0], GUARDIAN_NAME))
                return guardian_run(argc, argv);

        occupy_stdio();
        set_log_level();

        if (config_new(argc, argv, count_cpus(), getenv("PATH"), &config, &problem) < 0)
                return fail(&problem);

        if (config->help) {
                fputs(config_help_text(), stdout);
                return EXIT_SUCCESS;
        }
        if (config->version) {
                puts("fcgi-pool " PACKAGE_VERSION);
                return EXIT_SUCCESS;
        }
        if (choose_name(config, &name) < 0)
                return EXIT_STATUS_OS_ERROR;

        return config->check ? check(config, name) : run(config, name, argv);
}
