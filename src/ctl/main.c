/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* argv -> options and a verb -> exit status.
 *
 * Two tables are all there is to know of both: the parser's rows and the text of --help are made from them.
 * Options may stand anywhere before "--", as with systemctl(1); a verb gets what is left. */

#include <limits.h>
#include <stdarg.h>
#include <unistd.h>

#include "check.h"
#include "manage.h"
#include "metrics.h"
#include "output.h"
#include "pager.h"
#include "probe.h"
#include "problem.h"
#include "reload.h"
#include "status.h"

#define USAGE "fcgi-poolctl [OPTIONS...] VERB [ARGUMENTS...]"

typedef struct Options {
        Output output;
        bool no_pager;
        bool help;
        bool version;
} Options;

/* --- one setter per option; false: not this value --- */

static bool set_help(Options *options, const char *value) {
        return options->help = true;
}

static bool set_version(Options *options, const char *value) {
        return options->version = true;
}

static bool set_no_legend(Options *options, const char *value) {
        options->output.legend = false;
        return true;
}

static bool set_no_pager(Options *options, const char *value) {
        options->no_pager = true;
        return true;
}

static bool set_json(Options *options, const char *value) {
        static const char *const modes[] = {
                [JSON_OFF] = "off",
                [JSON_SHORT] = "short",
                [JSON_PRETTY] = "pretty",
        };

        for (size_t i = 0; i < ELEMENTSOF(modes); i++)
                if (streq(value, modes[i])) {
                        options->output.json = (JsonMode) i;
                        return true;
                }
        return false;
}

/* --- the tables --- */

/* Long name; letter or 0; what is expected as its value, NULL for a flag; setter; lines of --help. */
#define OPTION_TABLE(OPTION)                                                                            \
        OPTION("help", 'h', NULL, set_help,                                                             \
               "  -h --help                 Show this help\n")                                          \
        OPTION("version", 0, NULL, set_version,                                                         \
               "     --version              Show the version\n")                                        \
        OPTION("no-legend", 0, NULL, set_no_legend,                                                     \
               "     --no-legend            Do not print headers and sums\n")                           \
        OPTION("no-pager", 0, NULL, set_no_pager,                                                       \
               "     --no-pager             Do not show long output in a pager\n")                \
        OPTION("json", 0, "pretty, short or off", set_json,                                             \
               "     --json=pretty|short|off\n"                                                         \
               "                            Print JSON (default: off)\n")

/* Name; arguments; how many at least and at most; function; whether what it prints may be long; lines of
 * --help. */
#define VERB_TABLE(VERB)                                                                                \
        VERB("status", "[UNIT...]", 0, UINT_MAX, status, true,                                          \
             "  status [UNIT...]          Show the workers of pools\n")                                 \
        VERB("list", "", 0, 0, list, true,                                                              \
             "  list                      Show all pools that run\n")                                   \
        VERB("reload", "[UNIT]", 0, 1, reload, false,                                                   \
             "  reload [UNIT]             Replace all workers, wait for the verdict\n")                 \
        VERB("reexec", "[UNIT]", 0, 1, reexec, false,                                                   \
             "  reexec [UNIT]             Have the helper execute its program anew\n")                  \
        VERB("set-workers", "UNIT N", 2, 2, set_workers, false,                                         \
             "  set-workers UNIT N        Have another number of workers\n")                            \
        VERB("recycle", "UNIT SLOT|all", 2, 2, recycle, false,                                          \
             "  recycle UNIT SLOT|all     Replace one worker, or one after the other\n")                \
        VERB("hold", "[UNIT]", 0, 1, hold, false,                                                       \
             "  hold [UNIT]               End all workers and let clients wait\n")                      \
        VERB("resume", "[UNIT]", 0, 1, resume, false,                                                   \
             "  resume [UNIT]             Serve again after hold\n")                                    \
        VERB("check", "UNIT...", 1, UINT_MAX, check, true,                                              \
             "  check UNIT...             Look for settings that break a promise of fcgi-pool\n")           \
        VERB("metrics", "[UNIT...]", 0, UINT_MAX, metrics, false,                                       \
             "  metrics [UNIT...]         Print what monitoring wants to know\n")                       \
        VERB("probe", "ADDRESS [PATH]", 1, 2, probe, false,                                             \
             "  probe ADDRESS [PATH]      Send a FastCGI request and print the answer\n")

typedef struct Option {
        const char *name;
        char letter;
        const char *expected;
        bool (*set)(Options *options, const char *value);
} Option;

typedef struct Verb {
        const char *name;
        const char *arguments;
        unsigned n_min, n_max;
        int (*run)(const Output *output, char *const *arguments);
        bool paged;
} Verb;

#define OPTION_AS_ROW(name_, letter_, expected_, set_, help_) { (name_), (letter_), (expected_), (set_) },
#define OPTION_AS_HELP(name_, letter_, expected_, set_, help_) help_
#define VERB_AS_ROW(name_, arguments_, n_min_, n_max_, run_, paged_, help_) \
        { (name_), (arguments_), (n_min_), (n_max_), (run_), (paged_) },
#define VERB_AS_HELP(name_, arguments_, n_min_, n_max_, run_, paged_, help_) help_
#define VERB_AS_WORD(name_, arguments_, n_min_, n_max_, run_, paged_, help_) " " name_

static const Option option_rows[] = { OPTION_TABLE(OPTION_AS_ROW) };
static const Verb verb_rows[] = { VERB_TABLE(VERB_AS_ROW) };

static const char help_text[] =
        USAGE "\n"
        "\n"
        "Query and control pools of FastCGI workers that fcgi-pool runs.\n"
        "\n"
        "Verbs:\n"
        VERB_TABLE(VERB_AS_HELP)
        "\n"
        "Options:\n"
        OPTION_TABLE(OPTION_AS_HELP)
        "\n"
        "See the fcgi-poolctl(1) man page for details.\n";

/* --- the command line --- */

static int _printf_(1, 2) refuse(const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        (void) vfprintf(stderr, format, ap);
        va_end(ap);
        fputc('\n', stderr);
        return -EINVAL;
}

/* The row of "--name...", "--name=...", or "-l" alone. */
static const Option *find_option(const char *argument) {
        for (const Option *o = option_rows; o < option_rows + ELEMENTSOF(option_rows); o++) {
                const char *rest = startswith(argument, "--");

                rest = rest ? startswith(rest, o->name) : NULL;
                if (rest && (*rest == '\0' || *rest == '='))
                        return o;
                if (o->letter && argument[1] == o->letter && argument[2] == '\0')
                        return o;
        }
        return NULL;
}

/* Applies the option at *argument; a value may be the next argument, and *argument is moved there then. */
static int parse_option(Options *options, char ***argument) {
        const Option *option = find_option(**argument);
        const char *equals = strchr(**argument, '='), *value = equals ? equals + 1 : NULL;

        if (!option)
                return refuse("%s: unknown option, see --help", **argument);
        if (!option->expected && value)
                return refuse("--%s: takes no value", option->name);
        if (option->expected && !value) {
                value = (*argument)[1];
                if (!value)
                        return refuse("--%s: value missing, expected %s", option->name, option->expected);
                (*argument)++;
        }
        if (!option->set(options, value))
                return refuse("--%s=%s: expected %s", option->name, value, option->expected);
        return 0;
}

/* Takes the options out of argv, which ends in NULL, and leaves the verb and its arguments there. */
static int parse_options(Options *options, char **argv) {
        char **left = argv, **a;

        for (a = argv; *a && !streq(*a, "--"); a++) {
                if ((*a)[0] != '-' || (*a)[1] == '\0') {
                        *left++ = *a;
                        continue;
                }
                if (parse_option(options, &a) < 0)
                        return -EINVAL;
                if (options->help || options->version)
                        return 0;
        }
        for (a += *a != NULL; *a; a++)
                *left++ = *a;
        *left = NULL;
        return 0;
}

static int find_verb(char *const *words, const Verb **ret_verb) {
        size_t n = 0;

        if (!words[0])
                return refuse("no verb given: expected " USAGE ", see --help");
        while (words[n + 1])
                n++;
        for (const Verb *v = verb_rows; v < verb_rows + ELEMENTSOF(verb_rows); v++) {
                if (!streq(v->name, words[0]))
                        continue;
                if (n < v->n_min || n > v->n_max)
                        return refuse("%s: too %s arguments, expected %s %s", v->name,
                                      n < v->n_min ? "few" : "many", v->name, v->arguments);
                *ret_verb = v;
                return 0;
        }
        return refuse("%s: unknown verb, expected one of:" VERB_TABLE(VERB_AS_WORD), words[0]);
}

static bool has_colours(void) {
        const char *term = getenv("TERM");

        return isatty(STDOUT_FILENO) && term && !streq(term, "dumb") && !getenv("NO_COLOR");
}

int main(int argc, char **argv) {
        Options options = { .output.legend = true, .output.colours = has_colours() };
        const Verb *verb = NULL;
        int exit_status = EXIT_SUCCESS;
        pid_t pager = 0;

        if (argc < 1 || parse_options(&options, argv + 1) < 0)
                return EXIT_STATUS_INVALID_ARGUMENT;
        if (options.help)
                fputs(help_text, stdout);
        else if (options.version)
                puts("fcgi-poolctl " PACKAGE_VERSION);
        else if (find_verb(argv + 1, &verb) < 0)
                return EXIT_STATUS_INVALID_ARGUMENT;
        else {
                pager = verb->paged && !options.no_pager ? pager_open() : 0;
                exit_status = verb->run(&options.output, argv + 2);
        }

        if (pager > 0) {
                pager_close(pager); /* who leaves it early has seen enough */
                return exit_status;
        }
        if (fflush(stdout) != 0 || ferror(stdout)) {
                fprintf(stderr, "cannot write to standard output: %s\n", strerror(errno));
                return EXIT_STATUS_OS_ERROR;
        }
        return exit_status;
}
