/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The command line becomes a Config here, or one line that says why not.
 *
 * OPTION_TABLE is the only list of options. The parser's rows and the text of --help are both made from it,
 * so an option cannot exist without its help. A setter gets one value, checks and stores it, and returns
 * -EINVAL, -ERANGE or -ENOMEM; the words for that are put together in one place, from what the row says was
 * expected.
 *
 * Parsed by hand and not with getopt_long(3): that writes messages of its own, keeps its position in
 * globals and takes any unambiguous abbreviation, which a later version with one more option would break in
 * units that already exist. Options end at "--" or at the first argument that is none; everything behind is
 * the command's. A value may be given as "--opt=value" or as the next argument, which is never "--": a
 * forgotten value must not swallow the mark that the unit's ExecStart= relies on.
 *
 * The command is looked up here as execvp(3) would, so that a typing error is known before anything has
 * been started, and so that a changed PATH cannot give two workers of one pool different programs. Whether
 * the file can be executed is only known for sure after execve(2); what is found here are the plain
 * mistakes.
 *
 * Values come from an environment file that people edit: control characters are escaped in messages, long
 * values cut. */

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "config.h"
#include "privileges.h"

#define NAME_LENGTH_MAX 64U
#define CRASH_BUDGET_MAX 1000U
#define OPTION_LENGTH_MAX 32U

#define EXPECTED_USAGE "expected fcgi-pool [OPTIONS...] -- COMMAND [ARGUMENTS...]"
#define EXPECTED_EXECUTABLE "expected an executable file"

static_assert(WORKERS_MAX == 16384U && CRASH_BUDGET_MAX == 1000U && NAME_LENGTH_MAX == 64U,
              "the option table has these numbers in its texts");

typedef struct Parser {
        Config *config;
        unsigned n_cpus;
        int argc;
        char **argv;
        int next;               /* the argument to look at next */
        bool terminated;        /* "--" was seen */
        const char *bad_part;   /* set by a setter that knows which part of its value is wrong */
} Parser;

/* The decimal number that s begins with, at most max. Returns what is behind it, or NULL: no such number. */
static const char *scan_unsigned(const char *s, unsigned max, unsigned *ret) {
        uint64_t n = 0;
        size_t l = strspn(s, "0123456789");

        if (l == 0)
                return NULL;

        for (size_t i = 0; i < l; i++) {
                n = n * 10 + (uint64_t) (s[i] - '0');
                if (n > max)
                        return NULL;
        }

        *ret = (unsigned) n;
        return s + l;
}

/* A whole string that is a number from min to max. */
static bool parse_unsigned(const char *s, unsigned min, unsigned max, unsigned *ret) {
        const char *end;
        unsigned n;

        end = scan_unsigned(s, max, &n);
        if (!end || *end != '\0' || n < min)
                return false;

        *ret = n;
        return true;
}

static int parse_span_above_zero(const char *s, uint64_t *ret_usec) {
        uint64_t usec;
        int r;

        r = clock_parse_span(s, &usec);
        if (r < 0)
                return r;
        if (usec == 0)
                return -EINVAL;

        *ret_usec = usec;
        return 0;
}

/* Signals */

static const struct {
        const char *name;
        int signo;
} signal_aliases[] = {
        /* Second names, which sigabbrev_np(3) does not give. */
        { "IO", SIGIO },
        { "IOT", SIGIOT },
        { "POLL", SIGPOLL },
};

/* True for signals that end a process which does nothing about them: "Standard signals" in signal(7). The
 * first real-time signals belong to the C library. */
static bool signal_ends_process(int signo) {
        if (signo < 1 || signo > SIGRTMAX || (signo >= __SIGRTMIN && signo < SIGRTMIN))
                return false;

        switch (signo) {
        case SIGCHLD:
        case SIGCONT:
        case SIGSTOP:
        case SIGTSTP:
        case SIGTTIN:
        case SIGTTOU:
        case SIGURG:
        case SIGWINCH:
                return false;
        default:
                return true;
        }
}

/* "RTMIN", "RTMIN+n", "RTMAX", "RTMAX-n". Returns 0, which is no signal, for anything else. */
static int realtime_signal_from_string(const char *name) {
        unsigned n_realtime = (unsigned) (SIGRTMAX - SIGRTMIN), n = 0;
        const char *rest;

        rest = startswith(name, "RTMIN");
        if (rest && (*rest == '\0' || (*rest == '+' && parse_unsigned(rest + 1, 0, n_realtime, &n))))
                return SIGRTMIN + (int) n;

        rest = startswith(name, "RTMAX");
        if (rest && (*rest == '\0' || (*rest == '-' && parse_unsigned(rest + 1, 0, n_realtime, &n))))
                return SIGRTMAX - (int) n;

        return 0;
}

/* Returns 0, which is no signal, for what names none. */
static int signal_from_string(const char *s) {
        const char *name = startswith(s, "SIG") ?: s;
        unsigned n;

        if (parse_unsigned(s, 1, (unsigned) SIGRTMAX, &n))
                return (int) n;

        for (int signo = 1; signo < __SIGRTMIN; signo++) {
                const char *known = sigabbrev_np(signo);

                if (known && streq(known, name))
                        return signo;
        }

        for (size_t i = 0; i < ELEMENTSOF(signal_aliases); i++)
                if (streq(signal_aliases[i].name, name))
                        return signal_aliases[i].signo;

        return realtime_signal_from_string(name);
}

const char *config_signal_name(int signo, char buffer[static 16]) {
        const char *known = sigabbrev_np(signo);

        if (known)
                (void) snprintf(buffer, 16, "SIG%s", known);
        else if (signo == SIGRTMIN)
                (void) snprintf(buffer, 16, "SIGRTMIN");
        else if (signo > SIGRTMIN && signo <= SIGRTMAX)
                (void) snprintf(buffer, 16, "SIGRTMIN+%d", signo - SIGRTMIN);
        else
                (void) snprintf(buffer, 16, "signal %d", signo);

        return buffer;
}

/* One setter per option */

static int set_workers(Parser *p, const char *value) {
        unsigned min, max;
        const char *end;

        if (streq(value, "auto")) {
                p->config->n_workers = p->config->n_workers_min = MIN_OF(p->n_cpus, WORKERS_MAX);
                return 0;
        }

        end = scan_unsigned(value, WORKERS_MAX, &min);
        if (!end)
                return -EINVAL;

        max = min;
        if (*end == ':' ? !parse_unsigned(end + 1, MAX_OF(min, 1U), WORKERS_MAX, &max) :
            *end != '\0' || min == 0)
                return -EINVAL;

        p->config->n_workers = max;
        p->config->n_workers_min = min;
        return 0;
}

static int set_name(Parser *p, const char *value) {
        size_t l = strspn(value, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:_.@\\-");

        if (value[l] != '\0' || l > NAME_LENGTH_MAX)
                return -EINVAL;
        return free_and_strdup(&p->config->name, value);
}

static const char *const ready_modes[] = {
        [READY_AUTO] = "auto",
        [READY_EXEC] = "exec",
        [READY_NOTIFY] = "notify",
        [READY_DELAY] = "delay",
};
static_assert(ELEMENTSOF(ready_modes) == READY_DELAY + 1, "a mode has no name");

const char *ready_mode_to_string(ReadyMode mode) {
        assert((size_t) mode < ELEMENTSOF(ready_modes));
        return ready_modes[mode];
}

static int set_ready(Parser *p, const char *value) {
        uint64_t usec;
        int r;

        /* READY_DELAY is written as the span itself. */
        for (ReadyMode mode = READY_AUTO; mode < READY_DELAY; mode++)
                if (streq(value, ready_modes[mode])) {
                        p->config->ready = mode;
                        p->config->ready_delay_usec = 0;
                        return 0;
                }

        r = parse_span_above_zero(value, &usec);
        if (r < 0)
                return r;
        if (usec == USEC_INFINITY)
                return -EINVAL;

        p->config->ready = READY_DELAY;
        p->config->ready_delay_usec = usec;
        return 0;
}

static int set_stop_signal(Parser *p, const char *value) {
        int signo = signal_from_string(value);

        if (!signal_ends_process(signo))
                return -EINVAL;

        p->config->stop_signal = signo;
        return 0;
}

static int set_stop_timeout(Parser *p, const char *value) {
        return clock_parse_span(value, &p->config->stop_timeout_usec);
}

static const char *const retire_modes[] = {
        [RETIRE_SIGNAL] = "signal",
        [RETIRE_IDLE] = "idle",
};
static_assert(ELEMENTSOF(retire_modes) == RETIRE_IDLE + 1, "a mode has no name");

const char *retire_mode_to_string(RetireMode mode) {
        assert((size_t) mode < ELEMENTSOF(retire_modes));
        return retire_modes[mode];
}

static int set_retire(Parser *p, const char *value) {
        for (RetireMode mode = RETIRE_SIGNAL; mode <= RETIRE_IDLE; mode++)
                if (streq(value, retire_modes[mode])) {
                        p->config->retire = mode;
                        return 0;
                }

        return -EINVAL;
}

static int set_start_timeout(Parser *p, const char *value) {
        return parse_span_above_zero(value, &p->config->start_timeout_usec);
}

static int set_surge(Parser *p, const char *value) {
        const char *end;
        unsigned n;

        end = scan_unsigned(value, WORKERS_MAX, &n);
        if (!end || n == 0)
                return -EINVAL;
        if (*end != '\0' && (n > 100 || !streq(end, "%")))
                return -EINVAL;

        p->config->surge = n;
        p->config->surge_is_percentage = *end == '%';
        return 0;
}

static int set_probe(Parser *p, const char *value) {
        if (value[0] != '/')
                return -EINVAL;

        /* It goes into a request line: visible ASCII only. */
        for (const char *c = value; *c != '\0'; c++)
                if (*c <= ' ' || *c > '~')
                        return -EINVAL;

        return free_and_strdup(&p->config->probe, value);
}

static int set_max_lifetime(Parser *p, const char *value) {
        return parse_span_above_zero(value, &p->config->max_lifetime_usec);
}

static int set_request_timeout(Parser *p, const char *value) {
        return parse_span_above_zero(value, &p->config->request_timeout_usec);
}

static int set_max_memory(Parser *p, const char *value) {
        uint64_t bytes;
        int r;

        r = clock_parse_size(value, &bytes);
        if (r < 0)
                return r;

        if (bytes == 0)
                return -EINVAL;

        p->config->max_memory = bytes;
        return 0;
}

static int set_crash_budget(Parser *p, const char *value) {
        const char *end;
        unsigned n;
        int r;

        end = scan_unsigned(value, CRASH_BUDGET_MAX, &n);
        if (!end || *end != '/')
                return -EINVAL;

        r = parse_span_above_zero(end + 1, &p->config->crash_budget_usec);
        if (r < 0)
                return r;

        p->config->crash_budget = n;
        return 0;
}

static const char *const listener_modes[] = {
        [LISTENER_AS_PASSED] = "as passed",
        [LISTENER_BLOCKING] = "blocking",
        [LISTENER_NONBLOCKING] = "nonblocking",
};
static_assert(ELEMENTSOF(listener_modes) == LISTENER_NONBLOCKING + 1, "a mode has no name");

const char *listener_mode_to_string(ListenerMode mode) {
        assert((size_t) mode < ELEMENTSOF(listener_modes));
        return listener_modes[mode];
}

static int set_listener(Parser *p, const char *value) {
        /* LISTENER_AS_PASSED is the option's absence. */
        for (ListenerMode mode = LISTENER_BLOCKING; mode <= LISTENER_NONBLOCKING; mode++)
                if (streq(value, listener_modes[mode])) {
                        p->config->listener = mode;
                        return 0;
                }

        return -EINVAL;
}

static int set_worker_capabilities(Parser *p, const char *value) {
        uint64_t mask;
        int r;

        r = capabilities_parse(value, &mask, &p->bad_part);
        if (r < 0)
                return r;
        if (mask == 0)
                return -EINVAL; /* nothing but commas */

        p->config->worker_capabilities = mask;
        return 0;
}

static int set_socket_activation(Parser *p, const char *value) {
        p->config->socket_activation = true;
        return 0;
}

static int set_allow_root(Parser *p, const char *value) {
        p->config->allow_root = true;
        return 0;
}

static int set_check(Parser *p, const char *value) {
        p->config->check = true;
        return 0;
}

static int set_help(Parser *p, const char *value) {
        p->config->help = true;
        return 0;
}

static int set_version(Parser *p, const char *value) {
        p->config->version = true;
        return 0;
}

/* The table */

#define SPAN_EXAMPLES "30s or 1min 30s"
#define SPAN_OR_INFINITY "a time span above 0, such as " SPAN_EXAMPLES ", or infinity"

/* Long name; letter or 0; what is expected as its value, NULL for a flag; setter; lines of --help. */
#define OPTION_TABLE(OPTION)                                                                            \
        OPTION("help", 'h', NULL, set_help,                                                             \
               "  -h --help                 Show this help\n")                                          \
        OPTION("version", 0, NULL, set_version,                                                         \
               "     --version              Show the version\n")                                        \
        OPTION("check", 0, NULL, set_check,                                                             \
               "     --check                Validate options and environment, print what would\n"       \
               "                            run, and exit\n")                                           \
        OPTION("workers", 'w', "a number from 1 to 16384, MIN:MAX or auto", set_workers,                \
               "  -w --workers=N|auto       Number of workers; auto: one per CPU (default)\n"           \
               "     --workers=MIN:MAX      Bounds; as many as the requests need; MIN may be 0\n")      \
        OPTION("name", 0, "1 to 64 of the characters A-Z a-z 0-9 : _ . @ \\ -", set_name,               \
               "     --name=NAME            Name of the pool in logs and status (default: the\n"        \
               "                            unit's name without suffix)\n")                             \
        OPTION("ready", 0, "auto, exec, notify or a time span above 0, such as 2s", set_ready,          \
               "     --ready=auto|exec|notify|SPAN\n"                                                   \
               "                            When a new worker counts as ready (default: auto)\n")       \
        OPTION("stop-signal", 0, "a signal that ends a process, such as SIGTERM, QUIT, RTMIN+3 or 15",  \
               set_stop_signal,                                                                         \
               "     --stop-signal=SIGNAL   First signal to a worker that must end (default:\n"         \
               "                            SIGTERM)\n")                                                \
        OPTION("stop-timeout", 0, "a time span, such as " SPAN_EXAMPLES ", 0 or infinity",              \
               set_stop_timeout,                                                                        \
               "     --stop-timeout=SPAN    From the first signal to SIGKILL (default: 30s)\n")         \
        OPTION("retire", 0, "idle or signal", set_retire,                                               \
               "     --retire=idle|signal   End a worker when it holds no request (default), or\n"      \
               "                            send it the stop signal at once\n")                         \
        OPTION("start-timeout", 0, SPAN_OR_INFINITY, set_start_timeout,                                 \
               "     --start-timeout=SPAN   A worker is to be ready by then (default: 30s)\n")          \
        OPTION("crash-budget", 0, "N/SPAN, N from 0 to 1000 and SPAN above 0, such as 10/10s",          \
               set_crash_budget,                                                                        \
               "     --crash-budget=N/SPAN  Exit after more early deaths than that while no\n"          \
               "                            worker serves (default: 10/10s)\n")                         \
        OPTION("listener", 0, "blocking or nonblocking", set_listener,                                  \
               "     --listener=blocking|nonblocking\n"                                                 \
               "                            O_NONBLOCK on the listener (default: as passed)\n")         \
        OPTION("socket-activation", 0, NULL, set_socket_activation,                                     \
               "     --socket-activation    Also pass the listener as in sd_listen_fds(3)\n")           \
        OPTION("worker-capabilities", 0, "names of capabilities(7), separated by commas",               \
               set_worker_capabilities,                                                                 \
               "     --worker-capabilities=CAPS\n"                                                      \
               "                            Keep these for workers (default: none)\n")                  \
        OPTION("allow-root", 0, NULL, set_allow_root,                                                   \
               "     --allow-root           Run workers as root; refused otherwise\n")                  \
        OPTION("surge", 0, "a number from 1 to 16384 or a percentage from 1% to 100%", set_surge,       \
               "     --surge=N|N%           Replace so many workers at a time (default: 25%)\n")        \
        OPTION("probe", 0, "a path that begins with / and has no blanks", set_probe,                    \
               "     --probe=PATH           Replace no worker before a new one has answered GET\n"      \
               "                            PATH\n")                                                    \
        OPTION("max-lifetime", 0, SPAN_OR_INFINITY, set_max_lifetime,                                   \
               "     --max-lifetime=SPAN    Replace a worker of this age\n")                            \
        OPTION("max-memory", 0, "a size above 0, such as 128M or 1.5G, or infinity", set_max_memory,    \
               "     --max-memory=SIZE      Replace a worker that has grown above this size\n")         \
        OPTION("request-timeout", 0, SPAN_OR_INFINITY, set_request_timeout,                             \
               "     --request-timeout=SPAN End a worker that is inside one request for longer,\n"      \
               "                            and log what it was doing\n")

typedef struct Option {
        const char *name;
        char letter;
        const char *expected;
        int (*set)(Parser *p, const char *value);
} Option;

#define OPTION_AS_ROW(name_, letter_, expected_, set_, help_) \
        { .name = (name_), .letter = (letter_), .expected = (expected_), .set = (set_) },
#define OPTION_AS_HELP(name_, letter_, expected_, set_, help_) help_

static const Option options[] = { OPTION_TABLE(OPTION_AS_ROW) };

const char *config_help_text(void) {
        return "fcgi-pool [OPTIONS...] -- COMMAND [ARGUMENTS...]\n"
               "\n"
               "Run COMMAND as a pool of FastCGI workers on the socket that systemd passes.\n"
               "\n"
               OPTION_TABLE(OPTION_AS_HELP)
               "\n"
               "See the fcgi-pool(8) man page for details.\n";
}

/* Messages */

/* Copies s to buffer, control characters escaped as in C and cut with "..." if need be; returns buffer. */
static const char *printable(const char *s, char *buffer, size_t size) {
        static const char letters[] = "abtnvfr"; /* from 7 on */
        size_t n = 0;

        for (; *s != '\0' && n + sizeof("\\000...") <= size; s++) {
                unsigned char c = (unsigned char) *s;

                if (c >= '\a' && c <= '\r')
                        n += (size_t) snprintf(buffer + n, size - n, "\\%c", letters[c - '\a']);
                else if (c < ' ' || c == 0x7f)
                        n += (size_t) snprintf(buffer + n, size - n, "\\%03o", c);
                else
                        buffer[n++] = (char) c;
        }

        (void) snprintf(buffer + n, size - n, "%s", *s != '\0' ? "..." : "");
        return buffer;
}

static int refuse_no_memory(Problem *ret_problem) {
        return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, -ENOMEM, "out of memory");
}

/* How many letters to change to get from a to the first l of b, l being at most OPTION_LENGTH_MAX. */
static unsigned edit_distance(const char *a, const char *b, size_t l) {
        unsigned row[OPTION_LENGTH_MAX + 1];

        for (size_t j = 0; j <= l; j++)
                row[j] = (unsigned) j;

        for (size_t i = 0; a[i] != '\0'; i++) {
                unsigned diagonal = row[0];

                row[0] = (unsigned) i + 1;
                for (size_t j = 0; j < l; j++) {
                        unsigned replace = diagonal + (a[i] != b[j]);

                        diagonal = row[j + 1];
                        row[j + 1] = MIN_OF(replace, MIN_OF(row[j], row[j + 1]) + 1);
                }
        }

        return row[l];
}

/* The option that is nearest to the first l letters of name, if these abbreviate it or differ in at most two
 * letters, or else NULL. */
static const Option *option_guess(const char *name, size_t l) {
        const Option *nearest = NULL;
        unsigned best = UINT_MAX;

        if (l < 2 || l > OPTION_LENGTH_MAX)
                return NULL;

        for (size_t i = 0; i < ELEMENTSOF(options); i++) {
                unsigned distance = edit_distance(options[i].name, name, l);
                bool abbreviated = strncmp(options[i].name, name, l) == 0;

                if (distance < best && (abbreviated || (distance <= 2 && distance < l))) {
                        nearest = &options[i];
                        best = distance;
                }
        }

        return nearest;
}

static int refuse_unknown(const char *argument, Problem *ret_problem) {
        const char *name = argument + strspn(argument, "-");
        const Option *guess = option_guess(name, strcspn(name, "="));
        char shown[160];

        (void) printable(argument, shown, sizeof(shown));
        if (guess)
                return problem_set(ret_problem, EXIT_STATUS_INVALID_ARGUMENT, -EINVAL,
                                   "%s: unknown option, did you mean --%s?", shown, guess->name);

        return problem_set(ret_problem, EXIT_STATUS_INVALID_ARGUMENT, -EINVAL,
                           "%s: unknown option, see --help", shown);
}

/* Says what is wrong with the value of option; error is what the setter returned. */
static int refuse_value(
                const Parser *p,
                const Option *option,
                const char *value,
                int error,
                Problem *ret_problem) {

        char shown[160], part[48];

        (void) printable(value, shown, sizeof(shown));

        switch (error) {
        case -ENOMEM:
                return refuse_no_memory(ret_problem);
        case -ERANGE:
                return problem_set(ret_problem, EXIT_STATUS_INVALID_ARGUMENT, -EINVAL,
                                   "--%s=%s: too large, expected %s", option->name, shown, option->expected);
        default:
                break;
        }

        if (!p->bad_part)
                return problem_set(ret_problem, EXIT_STATUS_INVALID_ARGUMENT, -EINVAL,
                                   "--%s=%s: expected %s", option->name, shown, option->expected);

        (void) printable(p->bad_part, part, sizeof(part));
        part[strcspn(part, ", ")] = '\0';
        return problem_set(ret_problem, EXIT_STATUS_INVALID_ARGUMENT, -EINVAL,
                           "--%s=%s: expected %s, not \"%s\"", option->name, shown, option->expected, part);
}

/* Options */

/* Applies option with the value that stood in the same argument (NULL: none did). */
static int option_apply(Parser *p, const Option *option, const char *value, Problem *ret_problem) {
        int r;

        if (!option->expected) {
                if (value)
                        return problem_set(ret_problem, EXIT_STATUS_INVALID_ARGUMENT, -EINVAL,
                                           "--%s: takes no value", option->name);

                return option->set(p, NULL);
        }

        if (!value && p->next < p->argc && !streq(p->argv[p->next], "--"))
                value = p->argv[p->next++];
        if (!value)
                return problem_set(ret_problem, EXIT_STATUS_INVALID_ARGUMENT, -EINVAL,
                                   "--%s: value missing, expected %s", option->name, option->expected);

        r = value[0] == '\0' ? -EINVAL : option->set(p, value);
        return r < 0 ? refuse_value(p, option, value, r, ret_problem) : 0;
}

static int parse_long(Parser *p, const char *argument, Problem *ret_problem) {
        const char *name = argument + 2;
        size_t l = strcspn(name, "=");
        const char *value = name[l] == '=' ? name + l + 1 : NULL;

        for (size_t i = 0; i < ELEMENTSOF(options); i++)
                if (strlen(options[i].name) == l && memcmp(options[i].name, name, l) == 0)
                        return option_apply(p, &options[i], value, ret_problem);

        return refuse_unknown(argument, ret_problem);
}

/* "-w4" or "-w" and "4". Letters cannot be joined: "-check" is a long option that lacks a dash. */
static int parse_short(Parser *p, const char *argument, Problem *ret_problem) {
        for (size_t i = 0; i < ELEMENTSOF(options); i++) {
                const char *value = argument[2] != '\0' ? argument + 2 : NULL;

                if (options[i].letter != argument[1])
                        continue;
                if (value && !options[i].expected)
                        break;

                return option_apply(p, &options[i], value, ret_problem);
        }

        return refuse_unknown(argument, ret_problem);
}

/* Reads options up to the command, --help or --version. */
static int parse_options(Parser *p, Problem *ret_problem) {
        while (p->next < p->argc && !p->config->help && !p->config->version) {
                const char *argument = p->argv[p->next];
                int r;

                if (argument[0] != '-' || argument[1] == '\0')
                        break;

                p->next++;
                if (streq(argument, "--")) {
                        p->terminated = true;
                        break;
                }

                if (argument[1] == '-')
                        r = parse_long(p, argument, ret_problem);
                else
                        r = parse_short(p, argument, ret_problem);
                if (r < 0)
                        return r;
        }

        return 0;
}

/* What no single option can know. */
static int check_options(const Config *c, Problem *ret_problem) {
        char delay[64], timeout[64];

        if (c->ready == READY_DELAY && c->ready_delay_usec >= c->start_timeout_usec)
                return problem_set(ret_problem, EXIT_STATUS_INVALID_ARGUMENT, -EINVAL,
                                   "--ready=%s: expected a time span shorter than --start-timeout=%s",
                                   clock_format_span(delay, sizeof(delay), c->ready_delay_usec),
                                   clock_format_span(timeout, sizeof(timeout), c->start_timeout_usec));
        if (c->probe && c->socket_activation)
                return problem_set(ret_problem, EXIT_STATUS_INVALID_ARGUMENT, -EINVAL,
                                   "--probe=%s: expected no --socket-activation, the probe speaks FastCGI",
                                   c->probe);
        return 0;
}

/* The command */

/* Is path a file that execve(2) would take? -ENOENT if it is not there, -EACCES if it is something else;
 * *ret_reason says what, static. */
static int check_executable(const char *path, const char **ret_reason) {
        struct stat st;

        if (stat(path, &st) < 0) {
                if (errno == ENOENT || errno == ENOTDIR || errno == ENAMETOOLONG || errno == ELOOP) {
                        *ret_reason = "no such file";
                        return -ENOENT;
                }

                *ret_reason = strerrordesc_np(errno) ?: "cannot be examined";
                return -EACCES;
        }

        if (S_ISDIR(st.st_mode))
                *ret_reason = "is a directory";
        else if (!S_ISREG(st.st_mode))
                *ret_reason = "not a regular file";
        else if (faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) < 0)
                *ret_reason = "not executable";
        else
                return 0;

        return -EACCES;
}

static int refuse_command(const char *file, const char *reason, int error, Problem *ret_problem) {
        char shown[256];

        return problem_set(ret_problem, EXIT_STATUS_NOT_INSTALLED, error,
                           "command %s: %s, " EXPECTED_EXECUTABLE,
                           printable(file, shown, sizeof(shown)), reason);
}

static int refuse_not_in_path(const char *name, const char *path, Problem *ret_problem) {
        char shown_name[128], shown_path[256];

        return problem_set(ret_problem, EXIT_STATUS_NOT_INSTALLED, -ENOENT,
                           "command %s: not found in PATH (%s), " EXPECTED_EXECUTABLE,
                           printable(name, shown_name, sizeof(shown_name)),
                           printable(path, shown_path, sizeof(shown_path)));
}

/* Tries the directories of path in turn; an empty one is the working directory. As execvp(3) does, goes on
 * behind a file that may not be executed, and complains about the first such if nothing better is found. */
static int search_path(const char *name, const char *path, char **ret_file, Problem *ret_problem) {
        _cleanup_free_ char *denied = NULL;
        const char *denied_reason = NULL;

        for (const char *d = path; d; d = *d == ':' ? d + 1 : NULL) {
                _cleanup_free_ char *file = NULL;
                size_t l = strcspn(d, ":");
                const char *reason;
                int r;

                if (asprintf(&file, "%.*s/%s", l > 0 ? (int) l : 1, l > 0 ? d : ".", name) < 0) {
                        file = NULL; /* asprintf(3) may leave anything there */
                        return refuse_no_memory(ret_problem);
                }
                d += l;

                r = check_executable(file, &reason);
                if (r >= 0) {
                        *ret_file = TAKE_PTR(file);
                        return 0;
                }
                if (r == -EACCES && !denied) {
                        denied = TAKE_PTR(file);
                        denied_reason = reason;
                }
        }

        if (denied)
                return refuse_command(denied, denied_reason, -EACCES, ret_problem);

        return refuse_not_in_path(name, path, ret_problem);
}

static int find_executable(const char *name, const char *path, char **ret_file, Problem *ret_problem) {
        const char *reason;
        char *file;
        int r;

        if (!strchr(name, '/'))
                return search_path(name, path ?: "/bin:/usr/bin", ret_file, ret_problem);

        r = check_executable(name, &reason);
        if (r < 0)
                return refuse_command(name, reason, r, ret_problem);

        file = strdup(name);
        if (!file)
                return refuse_no_memory(ret_problem);

        *ret_file = file;
        return 0;
}

/* Takes what is left of argv as the command. */
static int take_command(const Parser *p, const char *path, Problem *ret_problem) {
        size_t n = (size_t) (p->argc - p->next);
        char **command = p->argv + p->next;
        const char *hint = "";

        /* Of an empty variable, ExecStart= makes no argument if it is written $V, an empty one if ${V}. */
        if (p->terminated)
                hint = " (is FCGI_POOL_COMMAND empty in the unit's environment file?)";
        if (n == 0 || command[0][0] == '\0')
                return problem_set(ret_problem, EXIT_STATUS_INVALID_ARGUMENT, -EINVAL,
                                   "no command given: " EXPECTED_USAGE "%s", hint);

        p->config->command = calloc(n + 1, sizeof(char *));
        if (!p->config->command)
                return refuse_no_memory(ret_problem);

        for (size_t i = 0; i < n; i++) {
                p->config->command[i] = strdup(command[i]);
                if (!p->config->command[i])
                        return refuse_no_memory(ret_problem);
        }

        return find_executable(command[0], path, &p->config->executable, ret_problem);
}

/* The whole */

static Config *config_new_default(unsigned n_cpus) {
        Config *c;

        c = malloc(sizeof(*c));
        if (!c)
                return NULL;

        *c = (Config) {
                .n_workers = MIN_OF(n_cpus, WORKERS_MAX),
                .n_workers_min = MIN_OF(n_cpus, WORKERS_MAX),
                .ready = READY_AUTO,
                .stop_signal = SIGTERM,
                .stop_timeout_usec = 30 * USEC_PER_SEC,
                .start_timeout_usec = 30 * USEC_PER_SEC,
                .retire = RETIRE_IDLE,
                .max_lifetime_usec = USEC_INFINITY,
                .surge = 25,
                .surge_is_percentage = true,
                .max_memory = UINT64_MAX,
                .request_timeout_usec = USEC_INFINITY,
                .listener = LISTENER_AS_PASSED,
                .crash_budget = 10,
                .crash_budget_usec = 10 * USEC_PER_SEC,
        };
        return c;
}

/* Six parameters: what the outside world says, one by one, so that tests can say something else. */
int config_new(
                int argc,
                char **argv,
                unsigned n_cpus,
                const char *path,
                Config **ret_config,
                Problem *ret_problem) {

        _cleanup_(config_freep) Config *config = NULL;
        Parser parser;
        int r;

        assert(n_cpus >= 1);

        config = config_new_default(n_cpus);
        if (!config)
                return refuse_no_memory(ret_problem);

        parser = (Parser) {
                .config = config,
                .n_cpus = n_cpus,
                .argc = argc,
                .argv = argv,
                .next = MIN_OF(argc, 1),
        };
        r = parse_options(&parser, ret_problem);
        if (r < 0)
                return r;

        if (!config->help && !config->version) {
                r = check_options(config, ret_problem);
                if (r < 0)
                        return r;

                r = take_command(&parser, path, ret_problem);
                if (r < 0)
                        return r;
        }

        *ret_config = TAKE_PTR(config);
        return 0;
}

Config *config_free(Config *config) {
        if (!config)
                return NULL;

        free(config->name);
        free(config->probe);
        strv_free(config->command);
        free(config->executable);
        free(config);
        return NULL;
}
