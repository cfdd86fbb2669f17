/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Whatever the command line, the verdict is a Config that keeps its promises, or one line of text and a
 * documented exit status. The input is one argument per line, without the program's name. Each argument is
 * also read as a span and as a size, and what is read as a span is written and read again. */

#include <signal.h>
#include <stdio.h>

#include "clock.h"
#include "config.h"

#define ARGUMENTS_MAX 64
#define INPUT_MAX 65536
#define N_CPUS 4U

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Unlike assert() not about the fuzzer's own mistakes: says what the product got wrong. */
static void promise(bool kept, const char *what) {
        if (kept)
                return;

        fprintf(stderr, "broken promise: %s\n", what);
        abort();
}

static void check_config(const Config *c) {
        promise(c->n_workers >= 1 && c->n_workers <= WORKERS_MAX, "number of workers");
        promise(!c->name || (c->name[0] != '\0' && strlen(c->name) <= 64), "length of the name");
        promise(c->stop_signal >= 1 && c->stop_signal <= SIGRTMAX && c->stop_signal != SIGSTOP &&
                c->stop_signal != SIGCHLD, "stop signal");
        promise(c->start_timeout_usec > 0, "start timeout");
        promise(c->crash_budget <= 1000 && c->crash_budget_usec > 0, "crash budget");
        promise(c->retire == RETIRE_SIGNAL || c->retire == RETIRE_IDLE, "a way to retire");
        promise(c->n_workers_min <= c->n_workers, "bounds");
        promise(c->max_lifetime_usec > 0 && c->max_memory > 0 && c->request_timeout_usec > 0, "limits above 0");

        if (c->help || c->version) {
                promise(!c->command && !c->executable, "nothing is looked at behind --help and --version");
                return;
        }

        promise(c->command && c->command[0] && c->command[0][0] != '\0', "a command");
        promise(c->executable && strchr(c->executable, '/'), "a file that needs no lookup");
        promise((c->ready == READY_DELAY) == (c->ready_delay_usec > 0), "a delay only if it is wanted");
        promise(c->ready_delay_usec < c->start_timeout_usec, "a delay that can be met");
}

static void check_problem(int error, const Problem *problem) {
        int expected = error == -EINVAL ? 2 : 5;

        promise(error == -EINVAL || error == -ENOENT || error == -EACCES, "error");
        promise(problem->exit_status == expected, "exit status");
        promise(problem->text[0] != '\0', "a text");
        promise(strlen(problem->text) < sizeof(problem->text) - 1, "a text that is not cut off");
        for (const char *c = problem->text; *c; c++)
                promise((unsigned char) *c >= ' ' && *c != 0x7f, "one line without control characters");
}

static void check_span_and_size(const char *s) {
        uint64_t v, again;
        char text[64];
        int r;

        r = clock_parse_size(s, &v);
        promise(r == 0 || r == -EINVAL || r == -ERANGE, "verdict on a size");

        r = clock_parse_span(s, &v);
        promise(r == 0 || r == -EINVAL || r == -ERANGE, "verdict on a span");
        if (r < 0)
                return;

        clock_format_span(text, sizeof(text), v);
        promise(clock_parse_span(text, &again) == 0 && again <= v, "a written span can be read");
        promise((v == 0) == (again == 0), "nothing stays nothing");
        promise((v == USEC_INFINITY) == (again == USEC_INFINITY), "infinity stays infinity");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        _cleanup_(config_freep) Config *config = NULL;
        _cleanup_free_ char *input = NULL;
        char program[] = "fcgi-pool", *argv[ARGUMENTS_MAX + 2] = { program };
        Problem problem = {};
        int r, argc = 1;

        if (size > INPUT_MAX)
                return 0;

        input = malloc(size + 1);
        assert(input);
        if (size > 0)
                memcpy(input, data, size);
        input[size] = '\0';

        for (char *line = input, *next; line && argc <= ARGUMENTS_MAX; line = next) {
                next = strchr(line, '\n');
                if (next)
                        *next++ = '\0';
                else if (line[0] == '\0')
                        break; /* behind the last newline there is no argument */
                check_span_and_size(line);
                argv[argc++] = line;
        }

        r = config_new(argc, argv, N_CPUS, "/nonexistent:/bin", &config, &problem);
        if (r < 0) {
                promise(!config, "output untouched on failure");
                check_problem(r, &problem);
        } else
                check_config(config);

        return 0;
}
