/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Every option is taken as documented or refused in exactly one line that says what was expected; the
 * command is the file execvp(3) would run; --help names every option and no other. */

#include <ctype.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "config.h"
#include "privileges.h"
#include "test.h"

#define N_CPUS 3U
#define EXAMPLE_COMMAND "/bin/sh"

#define NO_COMMAND "no command given: expected fcgi-pool [OPTIONS...] -- COMMAND [ARGUMENTS...]"
#define HINT " (is FCGI_POOL_COMMAND empty in the unit's environment file?)"
#define WORKERS_EXPECTED "expected a number from 1 to 16384, MIN:MAX or auto"
#define NAME_EXPECTED "expected 1 to 64 of the characters A-Z a-z 0-9 : _ . @ \\ -"
#define READY_EXPECTED "expected auto, exec, notify or a time span above 0, such as 2s"
#define SIGNAL_EXPECTED "expected a signal that ends a process, such as SIGTERM, QUIT, RTMIN+3 or 15"
#define STOP_TIMEOUT_EXPECTED "expected a time span, such as 30s or 1min 30s, 0 or infinity"
#define SPAN_EXPECTED "expected a time span above 0, such as 30s or 1min 30s, or infinity"
#define SURGE_EXPECTED "expected a number from 1 to 16384 or a percentage from 1% to 100%"
#define PROBE_EXPECTED "expected a path that begins with / and has no blanks"
#define SIZE_EXPECTED "expected a size above 0, such as 128M or 1.5G, or infinity"
#define BUDGET_EXPECTED "expected N/SPAN, N from 0 to 1000 and SPAN above 0, such as 10/10s"
#define LISTENER_EXPECTED "expected blocking or nonblocking"
#define CAPABILITIES_EXPECTED "expected names of capabilities(7), separated by commas"

/* config_new() for arguments that end in NULL. */
static int parse_strv(char **argv, const char *path, Config **ret_config, Problem *ret_problem) {
        int argc = 0;

        while (argv[argc])
                argc++;

        return config_new(argc, argv, N_CPUS, path, ret_config, ret_problem);
}

/* argv is not const by custom only: nothing writes to it. */
#define ARGUMENTS(...) ((char **) (const char *[]) { "fcgi-pool", __VA_ARGS__ __VA_OPT__(,) NULL })

/* Arguments that are right. */
#define ACCEPT(...) accept_strv(ARGUMENTS(__VA_ARGS__))

static Config *accept_strv(char **argv) {
        Config *config = NULL;
        Problem problem = {};
        int r;

        r = parse_strv(argv, "/usr/bin:/bin", &config, &problem);
        if (r < 0)
                fprintf(stderr, "%s: %s\n", argv[1], problem.text);
        EXPECT_EQ(r, 0);
        EXPECT(config);
        EXPECT_EQ(problem.exit_status, 0);
        return config;
}

/* One option that is right, in front of a command. */
static Config *accept_option(const char *option) {
        return ACCEPT(option, "--", EXAMPLE_COMMAND);
}

/* Arguments that are wrong, and how. */
#define REFUSE(error, exit_status, text, ...) \
        refuse_strv(ARGUMENTS(__VA_ARGS__), error, exit_status, text)

static void refuse_strv(char **argv, int error, int exit_status, const char *text) {
        Config *untouched = (Config *) &untouched, *config = untouched;
        Problem problem = {};
        int r;

        r = parse_strv(argv, "/usr/bin:/bin", &config, &problem);
        EXPECT_STREQ(problem.text, text);
        EXPECT_EQ(r, error);
        EXPECT_EQ(problem.exit_status, exit_status);
        EXPECT(config == untouched);
        EXPECT(!strchr(problem.text, '\n'));
        /* Nobody asks why: the same verdict. */
        EXPECT_EQ(parse_strv(argv, "/usr/bin:/bin", &config, NULL), error);
}

/* The option is refused with "OPTION: EXPECTED". */
static void refuse_option(const char *option, int error, const char *why) {
        char text[512];

        snprintf(text, sizeof(text), "%s: %s", option, why);
        REFUSE(error, 2, text, option, "--", EXAMPLE_COMMAND);
}

/* Each of the options, of which NULL ends the list, is refused with the same words. */
#define REFUSE_VALUES(expected, ...) refuse_values((const char *const[]) { __VA_ARGS__, NULL }, expected)

static void refuse_values(const char *const *bad, const char *expected) {
        for (; *bad; bad++)
                refuse_option(*bad, -EINVAL, expected);
}

static void defaults(void) {
        _cleanup_(config_freep) Config *c = ACCEPT("--", "sh", "-c", "exit 1");

        EXPECT(!c->name);
        EXPECT_EQ(c->n_workers, N_CPUS);
        EXPECT_EQ(c->n_workers_min, N_CPUS);
        EXPECT(c->max_lifetime_usec == USEC_INFINITY);
        EXPECT(c->max_memory == UINT64_MAX);
        EXPECT(c->request_timeout_usec == USEC_INFINITY);
        EXPECT_EQ(c->ready, READY_AUTO);
        EXPECT_EQ(c->stop_signal, SIGTERM);
        EXPECT_EQ(c->stop_timeout_usec, 30 * USEC_PER_SEC);
        EXPECT_EQ(c->start_timeout_usec, 30 * USEC_PER_SEC);
        EXPECT_EQ(c->retire, RETIRE_IDLE);
        EXPECT_EQ(c->listener, LISTENER_AS_PASSED);
        EXPECT_EQ(c->crash_budget, 10);
        EXPECT_EQ(c->surge, 25);
        EXPECT(c->surge_is_percentage);
        EXPECT_EQ(c->crash_budget_usec, 10 * USEC_PER_SEC);
        EXPECT_EQ(c->worker_capabilities, 0);
        EXPECT(!c->socket_activation && !c->allow_root && !c->check && !c->help && !c->version);
        EXPECT_STREQ(c->command[0], "sh");
        EXPECT_STREQ(c->command[1], "-c");
        EXPECT_STREQ(c->command[2], "exit 1");
        EXPECT(!c->command[3]);
        EXPECT_STREQ(c->executable, "/usr/bin/sh");
}

static void expect_bounds(const char *option, unsigned min, unsigned max) {
        _cleanup_(config_freep) Config *c = accept_option(option);

        EXPECT_EQ(c->n_workers_min, min);
        EXPECT_EQ(c->n_workers, max);
}

static void expect_workers(const char *option, unsigned expected) {
        expect_bounds(option, expected, expected);
}

static void workers(void) {
        _cleanup_(config_freep) Config *c = NULL;

        expect_workers("--workers=1", 1);
        expect_workers("--workers=16384", WORKERS_MAX);
        expect_workers("--workers=007", 7);
        expect_workers("--workers=auto", N_CPUS);
        expect_workers("-w4", 4);
        expect_workers("-wauto", N_CPUS);

        EXPECT_EQ(config_new(2, ARGUMENTS(EXAMPLE_COMMAND), 100000, NULL, &c, NULL), 0);
        EXPECT_EQ(c->n_workers, WORKERS_MAX);

        REFUSE_VALUES(WORKERS_EXPECTED, "--workers=", "--workers=0", "--workers=16385", "--workers=abc",
                      "--workers=-1",
                      "--workers=+1", "--workers= 1", "--workers=1 ", "--workers=1.5", "--workers=4x",
                      "--workers=Auto",
                      "--workers=0x10", "--workers=4294967297", "--workers=99999999999999999999999",
                      "--workers=:", "--workers=1:", "--workers=:4", "--workers=4:1", "--workers=0:0",
                      "--workers=1:16385", "--workers=1:4:8", "--workers=1:auto", "--workers=auto:4");
        expect_bounds("--workers=0:4", 0, 4);
        expect_bounds("--workers=2:8", 2, 8);
        expect_bounds("--workers=4:4", 4, 4);
        expect_bounds("--workers=0:16384", 0, WORKERS_MAX);
        REFUSE(-EINVAL, 2, "--workers=abc: " WORKERS_EXPECTED, "-wabc");
        REFUSE(-EINVAL, 2, "--workers=abc: " WORKERS_EXPECTED, "-w", "abc");
}

static void expect_name(const char *option, const char *expected) {
        _cleanup_(config_freep) Config *c = accept_option(option);

        EXPECT_STREQ(c->name, expected);
}

static void name(void) {
        char longest[7 + 64 + 1] = "--name=", too_long[7 + 65 + 1] = "--name=";

        memset(longest + 7, 'n', 64);
        memset(too_long + 7, 'n', 65);

        expect_name("--name=shop", "shop");
        expect_name("--name=A-Za-z0-9:_.@\\x2d", "A-Za-z0-9:_.@\\x2d");
        expect_name(longest, longest + 7);
        REFUSE_VALUES(NAME_EXPECTED, "--name=", "--name=a b", "--name=a/b", "--name=a%b", "--name=\xc3\xa4",
                      "--name=a=b",
                      too_long);
        REFUSE(-EINVAL, 2, "--name=a\\nb\\033\\177: " NAME_EXPECTED, "--name=a\nb\033\x7f");
}

static void expect_ready(const char *option, ReadyMode mode, uint64_t delay_usec) {
        _cleanup_(config_freep) Config *c = accept_option(option);

        EXPECT_EQ(c->ready, mode);
        EXPECT_EQ(c->ready_delay_usec, delay_usec);
}

static void ready(void) {
        _cleanup_(config_freep) Config *c = NULL;

        expect_ready("--ready=auto", READY_AUTO, 0);
        expect_ready("--ready=exec", READY_EXEC, 0);
        expect_ready("--ready=notify", READY_NOTIFY, 0);
        expect_ready("--ready=5", READY_DELAY, 5 * USEC_PER_SEC);
        expect_ready("--ready=500ms", READY_DELAY, 500 * USEC_PER_MSEC);
        expect_ready("--ready=29.999999s", READY_DELAY, 30 * USEC_PER_SEC - 1);

        REFUSE_VALUES(READY_EXPECTED, "--ready=", "--ready=yes", "--ready=delay", "--ready=Auto",
                      "--ready=-1",
                      "--ready=0", "--ready=infinity");
        refuse_option("--ready=18446744073710", -EINVAL, "too large, " READY_EXPECTED);

        refuse_option("--ready=30s", -EINVAL, "expected a time span shorter than --start-timeout=30s");
        REFUSE(-EINVAL, 2, "--ready=2s: expected a time span shorter than --start-timeout=1s 500ms",
               "--ready=2", "--start-timeout=1.5", EXAMPLE_COMMAND);
        c = ACCEPT("--ready=1h", "--start-timeout=infinity", EXAMPLE_COMMAND);

        EXPECT_STREQ(ready_mode_to_string(READY_AUTO), "auto");
        EXPECT_STREQ(ready_mode_to_string(READY_EXEC), "exec");
        EXPECT_STREQ(ready_mode_to_string(READY_NOTIFY), "notify");
        EXPECT_STREQ(ready_mode_to_string(READY_DELAY), "delay");
}

static void expect_signal(const char *option, int signo, const char *signal_name) {
        _cleanup_(config_freep) Config *c = accept_option(option);
        char buffer[16];

        EXPECT_EQ(c->stop_signal, signo);
        EXPECT_STREQ(config_signal_name(signo, buffer), signal_name);
}

static void stop_signal(void) {
        static const int harmless[] = { SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG,
        SIGWINCH };

        expect_signal("--stop-signal=SIGTERM", SIGTERM, "SIGTERM");
        expect_signal("--stop-signal=TERM", SIGTERM, "SIGTERM");
        expect_signal("--stop-signal=15", SIGTERM, "SIGTERM");
        expect_signal("--stop-signal=SIGQUIT", SIGQUIT, "SIGQUIT");
        expect_signal("--stop-signal=INT", SIGINT, "SIGINT");
        expect_signal("--stop-signal=USR1", SIGUSR1, "SIGUSR1");
        expect_signal("--stop-signal=SIGKILL", SIGKILL, "SIGKILL");
        expect_signal("--stop-signal=SIGIOT", SIGABRT, "SIGABRT");
        expect_signal("--stop-signal=IO", SIGIO, "SIGPOLL");
        expect_signal("--stop-signal=SIGPOLL", SIGIO, "SIGPOLL");
        expect_signal("--stop-signal=SIGSTKFLT", SIGSTKFLT, "SIGSTKFLT");
        expect_signal("--stop-signal=RTMIN", SIGRTMIN, "SIGRTMIN");
        expect_signal("--stop-signal=SIGRTMIN+3", SIGRTMIN + 3, "SIGRTMIN+3");
        expect_signal("--stop-signal=RTMIN+30", SIGRTMAX, "SIGRTMIN+30");
        expect_signal("--stop-signal=RTMAX-30", SIGRTMIN, "SIGRTMIN");
        expect_signal("--stop-signal=SIGRTMAX", SIGRTMAX, "SIGRTMIN+30");
        expect_signal("--stop-signal=64", 64, "SIGRTMIN+30");

        REFUSE_VALUES(SIGNAL_EXPECTED, "--stop-signal=", "--stop-signal=0", "--stop-signal=-15",
                      "--stop-signal=65",
                      "--stop-signal=32", "--stop-signal=33", "--stop-signal=SIG", "--stop-signal=SIG15",
                      "--stop-signal=sigterm", "--stop-signal=SIGSIGTERM", "--stop-signal=FOO",
                      "--stop-signal=RTMIN+31",
                      "--stop-signal=RTMIN+", "--stop-signal=RTMIN-1", "--stop-signal=RTMAX+1",
                      "--stop-signal=RTMAX-31",
                      "--stop-signal=15 ", "--stop-signal=99999999999999999999");

        for (size_t i = 0; i < ELEMENTSOF(harmless); i++) {
                char option[64], signal_name[16];

                snprintf(option, sizeof(option), "--stop-signal=%d", harmless[i]);
                refuse_option(option, -EINVAL, SIGNAL_EXPECTED);
                snprintf(option, sizeof(option), "--stop-signal=%s", config_signal_name(harmless[i],
                                                                                        signal_name));
                refuse_option(option, -EINVAL, SIGNAL_EXPECTED);
        }
}

static void signal_names(void) {
        char buffer[16];

        EXPECT_STREQ(config_signal_name(0, buffer), "signal 0");
        EXPECT_STREQ(config_signal_name(32, buffer), "signal 32");
        EXPECT_STREQ(config_signal_name(-1, buffer), "signal -1");
        EXPECT_STREQ(config_signal_name(65, buffer), "signal 65");
        EXPECT_STREQ(config_signal_name(SIGSEGV, buffer), "SIGSEGV");

        /* What is printed can be typed. */
        for (int signo = 1; signo <= SIGRTMAX; signo++) {
                _cleanup_(config_freep) Config *c = NULL;
                char option[64];

                snprintf(option, sizeof(option), "--stop-signal=%s", config_signal_name(signo, buffer));
                if (parse_strv(ARGUMENTS(option, EXAMPLE_COMMAND), NULL, &c, NULL) >= 0)
                        EXPECT_EQ(c->stop_signal, signo);
        }
}

static void timeouts(void) {
        _cleanup_(config_freep) Config *a = ACCEPT("--stop-timeout=1min 30s",
                                                   "--start-timeout=infinity", EXAMPLE_COMMAND);
        _cleanup_(config_freep) Config *b = ACCEPT("--stop-timeout=0", "--start-timeout=250ms",
                                                   EXAMPLE_COMMAND);
        _cleanup_(config_freep) Config *c = accept_option("--stop-timeout=infinity");

        EXPECT_EQ(a->stop_timeout_usec, 90 * USEC_PER_SEC);
        EXPECT(a->start_timeout_usec == USEC_INFINITY);
        EXPECT_EQ(b->stop_timeout_usec, 0);
        EXPECT_EQ(b->start_timeout_usec, 250 * USEC_PER_MSEC);
        EXPECT(c->stop_timeout_usec == USEC_INFINITY);

        REFUSE_VALUES(STOP_TIMEOUT_EXPECTED, "--stop-timeout=", "--stop-timeout=-1", "--stop-timeout=1.5.2",
                      "--stop-timeout=soon", "--stop-timeout=1 fortnight");
        REFUSE_VALUES(SPAN_EXPECTED, "--start-timeout=", "--start-timeout=0", "--start-timeout=0s",
                      "--start-timeout=0.0000001", "--start-timeout=-1", "--start-timeout=soon");
        refuse_option("--stop-timeout=584543y", -EINVAL, "too large, " STOP_TIMEOUT_EXPECTED);
        refuse_option("--start-timeout=584543y", -EINVAL, "too large, " SPAN_EXPECTED);
}

static void retire(void) {
        _cleanup_(config_freep) Config *signal = accept_option("--retire=signal");
        _cleanup_(config_freep) Config *idle = accept_option("--retire=idle");

        EXPECT_EQ(signal->retire, RETIRE_SIGNAL);
        EXPECT_EQ(idle->retire, RETIRE_IDLE);
        REFUSE_VALUES("expected idle or signal", "--retire=", "--retire=Idle", "--retire=never");
}

static void expect_surge(const char *option, unsigned n, bool percentage) {
        _cleanup_(config_freep) Config *c = accept_option(option);

        EXPECT_EQ(c->surge, n);
        EXPECT_EQ(c->surge_is_percentage, percentage);
}

static void surge(void) {
        expect_surge("--surge=1", 1, false);
        expect_surge("--surge=16384", 16384, false);
        expect_surge("--surge=1%", 1, true);
        expect_surge("--surge=25%", 25, true);
        expect_surge("--surge=100%", 100, true);
        REFUSE_VALUES(SURGE_EXPECTED, "--surge=", "--surge=0", "--surge=0%", "--surge=101%", "--surge=16385",
                      "--surge=%", "--surge=-1", "--surge=25%%", "--surge=25 %", "--surge=2x",
                      "--surge=1.5");
}

static void expect_probe(const char *option, const char *path) {
        _cleanup_(config_freep) Config *c = accept_option(option);

        EXPECT_STREQ(c->probe, path);
}

static void probe(void) {
        expect_probe("--probe=/", "/");
        expect_probe("--probe=/health?full=1", "/health?full=1");
        REFUSE_VALUES(PROBE_EXPECTED, "--probe=", "--probe=health", "--probe=http://x/", "--probe=/a b",
                      "--probe=/\xc3\xa4");
        REFUSE(-EINVAL, 2, "--probe=/\\r\\nX: " PROBE_EXPECTED, "--probe=/\r\nX");
        REFUSE(-EINVAL, 2, "--probe=/a: expected no --socket-activation, the probe speaks FastCGI", "--probe=/a",
               "--socket-activation", "--", EXAMPLE_COMMAND);
}

static void worn_and_stuck(void) {
        _cleanup_(config_freep) Config *c = ACCEPT("--max-lifetime=1d", "--max-memory=1.5G",
                                                   "--request-timeout=1min 30s", "--", "/bin/true");
        _cleanup_(config_freep) Config *none = ACCEPT("--max-lifetime=infinity", "--max-memory=infinity",
                                                      "--request-timeout=infinity", "--", "/bin/true");

        EXPECT_EQ(c->max_lifetime_usec, 24 * 3600 * USEC_PER_SEC);
        EXPECT_EQ(c->max_memory, UINT64_C(3) << 29);
        EXPECT_EQ(c->request_timeout_usec, 90 * USEC_PER_SEC);
        EXPECT(none->max_lifetime_usec == USEC_INFINITY);
        EXPECT(none->max_memory == UINT64_MAX);
        EXPECT(none->request_timeout_usec == USEC_INFINITY);

        REFUSE_VALUES(SPAN_EXPECTED, "--max-lifetime=", "--max-lifetime=0", "--max-lifetime=1x",
                      "--request-timeout=",
                      "--request-timeout=0", "--request-timeout=-5s");
        REFUSE_VALUES(SIZE_EXPECTED, "--max-memory=", "--max-memory=0", "--max-memory=128MB",
                      "--max-memory=-1",
                      "--max-memory=10%", "--max-memory=1G 1M");
        refuse_option("--max-lifetime=584543y", -EINVAL, "too large, " SPAN_EXPECTED);
        refuse_option("--request-timeout=584543y", -EINVAL, "too large, " SPAN_EXPECTED);
        refuse_option("--max-memory=16E", -EINVAL, "too large, " SIZE_EXPECTED);
}

static void expect_budget(const char *option, unsigned n, uint64_t usec) {
        _cleanup_(config_freep) Config *c = accept_option(option);

        EXPECT_EQ(c->crash_budget, n);
        EXPECT(c->crash_budget_usec == usec);
}

static void crash_budget(void) {
        expect_budget("--crash-budget=0/1s", 0, USEC_PER_SEC);
        expect_budget("--crash-budget=1000/1min 30s", 1000, 90 * USEC_PER_SEC);
        expect_budget("--crash-budget=3/500ms", 3, 500 * USEC_PER_MSEC);
        expect_budget("--crash-budget=3/infinity", 3, USEC_INFINITY);
        REFUSE_VALUES(BUDGET_EXPECTED, "--crash-budget=", "--crash-budget=10", "--crash-budget=10/",
                      "--crash-budget=/10s",
                      "--crash-budget=10/0", "--crash-budget=1001/10s", "--crash-budget=-1/10s",
                      "--crash-budget=10/10/10", "--crash-budget=10 / 10s", "--crash-budget=x/10s",
                      "--crash-budget=10/x");
        refuse_option("--crash-budget=10/584543y", -EINVAL, "too large, " BUDGET_EXPECTED);
}

static void listener(void) {
        _cleanup_(config_freep) Config *blocking = accept_option("--listener=blocking");
        _cleanup_(config_freep) Config *nonblocking = accept_option("--listener=nonblocking");

        EXPECT_EQ(blocking->listener, LISTENER_BLOCKING);
        EXPECT_EQ(nonblocking->listener, LISTENER_NONBLOCKING);
        REFUSE_VALUES(LISTENER_EXPECTED, "--listener=", "--listener=yes", "--listener=non-blocking",
                      "--listener=as passed");
        EXPECT_STREQ(listener_mode_to_string(LISTENER_AS_PASSED), "as passed");
        EXPECT_STREQ(listener_mode_to_string(LISTENER_BLOCKING), "blocking");
        EXPECT_STREQ(listener_mode_to_string(LISTENER_NONBLOCKING), "nonblocking");
}

static void worker_capabilities(void) {
        _cleanup_(config_freep) Config *c = accept_option("--worker-capabilities=CAP_NET_RAW,sys_nice");

        EXPECT_EQ(c->worker_capabilities, UINT64_C(1) << CAP_NET_RAW | UINT64_C(1) << CAP_SYS_NICE);
        REFUSE_VALUES(CAPABILITIES_EXPECTED, "--worker-capabilities=", "--worker-capabilities=,");
        refuse_option("--worker-capabilities=CAP_FOO", -EINVAL, CAPABILITIES_EXPECTED ", not \"CAP_FOO\"");
        refuse_option("--worker-capabilities=CAP_NET_RAW,fly,CAP_SYS_NICE", -EINVAL,
                      CAPABILITIES_EXPECTED ", not \"fly\"");
}

static void flags(void) {
        _cleanup_(config_freep) Config *c = ACCEPT("--socket-activation", "--allow-root",
                                                   "--check", EXAMPLE_COMMAND);

        EXPECT(c->socket_activation && c->allow_root && c->check && !c->help && !c->version);

        REFUSE(-EINVAL, 2, "--check: takes no value", "--check=yes", EXAMPLE_COMMAND);
        REFUSE(-EINVAL, 2, "--check: takes no value", "--check=", EXAMPLE_COMMAND);
        REFUSE(-EINVAL, 2, "--socket-activation: takes no value", "--socket-activation=1");
        REFUSE(-EINVAL, 2, "--allow-root: takes no value", "--allow-root=no");
        REFUSE(-EINVAL, 2, "--help: takes no value", "--help=workers");
        REFUSE(-EINVAL, 2, "--version: takes no value", "--version=2");
        /* The next argument is none either: it is the command. */
        REFUSE(-ENOENT, 5, "command ./yes: no such file, expected an executable file", "--check", "./yes");
}

static void help_and_version(void) {
        _cleanup_(config_freep) Config *a = ACCEPT("--help", "--workers=abc", "--nonsense");
        _cleanup_(config_freep) Config *b = ACCEPT("-w4", "-h");
        _cleanup_(config_freep) Config *c = ACCEPT("--version", "--", "/nonexistent");
        _cleanup_(config_freep) Config *d = ACCEPT("--ready=1h", "--help");

        EXPECT(a->help && !a->version && !a->command && !a->executable);
        EXPECT(b->help && !b->command);
        EXPECT(c->version && !c->help && !c->command);
        EXPECT(d->help);
        REFUSE(-EINVAL, 2, "--workers=abc: " WORKERS_EXPECTED, "--workers=abc", "--help");
}

static void separate_values(void) {
        _cleanup_(config_freep) Config *c = ACCEPT(
                        "--workers", "2", "--name", "-x-", "--stop-timeout",
                        "1min 30s", "--stop-signal", "INT", EXAMPLE_COMMAND,
                        "--workers=9", "--", "-h");
        _cleanup_(config_freep) Config *d = ACCEPT("-w", "5", EXAMPLE_COMMAND);
        _cleanup_(config_freep) Config *e = ACCEPT("--name=--", EXAMPLE_COMMAND);

        EXPECT_EQ(c->n_workers, 2);
        EXPECT_STREQ(c->name, "-x-");
        EXPECT_EQ(c->stop_timeout_usec, 90 * USEC_PER_SEC);
        EXPECT_EQ(c->stop_signal, SIGINT);
        EXPECT_STREQ(c->command[0], EXAMPLE_COMMAND);
        EXPECT_STREQ(c->command[1], "--workers=9");
        EXPECT_STREQ(c->command[2], "--");
        EXPECT_STREQ(c->command[3], "-h");
        EXPECT(!c->command[4]);
        EXPECT_EQ(d->n_workers, 5);
        EXPECT_STREQ(e->name, "--");

        REFUSE(-EINVAL, 2, "--workers: value missing, " WORKERS_EXPECTED, "--workers");
        REFUSE(-EINVAL, 2, "--workers: value missing, " WORKERS_EXPECTED, "-w");
        REFUSE(-EINVAL, 2, "--name: value missing, " NAME_EXPECTED, "--name", "--",
               EXAMPLE_COMMAND);
        REFUSE(-EINVAL, 2, "--workers=--check: " WORKERS_EXPECTED, "--workers", "--check");
        REFUSE(-EINVAL, 2, "--workers=: " WORKERS_EXPECTED, "--workers", "");
}

static void last_one_wins(void) {
        _cleanup_(config_freep) Config *c = ACCEPT(
                        "--workers=2", "--name=a", "--ready=5s",
                        "--worker-capabilities=net_raw", "--listener=blocking", "--workers=3",
                        "--name=b", "--ready=auto", "--worker-capabilities=sys_nice",
                        "--listener=nonblocking", "--check", "--check",
                        EXAMPLE_COMMAND);

        EXPECT_EQ(c->n_workers, 3);
        EXPECT_STREQ(c->name, "b");
        EXPECT_EQ(c->ready, READY_AUTO);
        EXPECT_EQ(c->ready_delay_usec, 0);
        EXPECT_EQ(c->worker_capabilities, UINT64_C(1) << CAP_SYS_NICE);
        EXPECT_EQ(c->listener, LISTENER_NONBLOCKING);

        /* A wrong one is wrong all the same. */
        REFUSE(-EINVAL, 2, "--workers=x: " WORKERS_EXPECTED, "--workers=x", "--workers=2");
}

static void unknown_options(void) {
        static const struct {
                const char *option, *guess;
        } unknown[] = {
                { "--nonsense", NULL }, { "--x", NULL }, { "--=4", NULL }, { "---", NULL },
                { "-x", NULL }, { "-hw", NULL },
                { "--a-very-long-option-that-is-much-longer-than-any", NULL },
                { "--max", "max-memory" }, { "--s", NULL }, { "--hl", NULL },
                { "--work", "workers" }, { "--wor=4", "workers" }, { "--stop-t=4", "stop-timeout" },
                { "--vers", "version" },
                { "--wrokers=4", "workers" }, { "--worker", "workers" }, { "--workerss", "workers" },
                { "--Workers=4", "workers" }, { "--allow_root", "allow-root" },
                { "--stoptimeout=3", "stop-timeout" },
                { "--max-live-time=3", "max-lifetime" }, { "--nmae=x", "name" }, { "--redy=x", "ready" },
                { "-check", "check" }, { "-help", "help" }, { "---check", "check" },
        };

        for (size_t i = 0; i < ELEMENTSOF(unknown); i++) {
                char text[256];

                if (unknown[i].guess)
                        snprintf(text, sizeof(text), "%s: unknown option, did you mean --%s?",
                                 unknown[i].option,
                                 unknown[i].guess);
                else
                        snprintf(text, sizeof(text), "%s: unknown option, see --help", unknown[i].option);
                REFUSE(-EINVAL, 2, text, unknown[i].option, EXAMPLE_COMMAND);
        }

        REFUSE(-EINVAL, 2, "--a\\tb: unknown option, see --help", "--a\tb");
}

static void long_values_are_cut(void) {
        static char option[100000], command[100000];
        Config *c = NULL;
        Problem problem = {};

        memset(option, '\001', sizeof(option) - 1);
        memcpy(option, "--workers=", strlen("--workers="));
        EXPECT_EQ(parse_strv(ARGUMENTS(option), NULL, &c, &problem), -EINVAL);
        EXPECT(strstr(problem.text, "\\001...: " WORKERS_EXPECTED));

        memcpy(option, "--unknown=", strlen("--unknown="));
        EXPECT_EQ(parse_strv(ARGUMENTS(option), NULL, &c, &problem), -EINVAL);
        EXPECT(strstr(problem.text, "\\001...: unknown option, see --help"));

        memset(command, 'x', sizeof(command) - 1);
        EXPECT_EQ(parse_strv(ARGUMENTS(command), command, &c, &problem), -ENOENT);
        EXPECT(strstr(problem.text, "xxx...), expected an executable file"));

        command[0] = '/';
        EXPECT_EQ(parse_strv(ARGUMENTS(command), NULL, &c, &problem), -ENOENT);
        EXPECT(strstr(problem.text, "xxx...: no such file, expected an executable file"));
        EXPECT(!c);
}

static void no_command(void) {
        char *none[] = { NULL };
        Problem problem = {};
        Config *c = NULL;

        REFUSE(-EINVAL, 2, NO_COMMAND);
        REFUSE(-EINVAL, 2, NO_COMMAND, "--workers=4");
        REFUSE(-EINVAL, 2, NO_COMMAND, "");
        REFUSE(-EINVAL, 2, NO_COMMAND HINT, "--");
        REFUSE(-EINVAL, 2, NO_COMMAND HINT, "--workers=4", "--");
        REFUSE(-EINVAL, 2, NO_COMMAND HINT, "--", "");

        /* Not even a program's name. */
        EXPECT_EQ(config_new(0, none, 1, NULL, &c, &problem), -EINVAL);
        EXPECT_STREQ(problem.text, NO_COMMAND);
}

/* A directory with one of everything that a command can turn out to be. */
typedef struct Fixture {
        char dir[64];
        char cwd[4096];
} Fixture;

static void fixture_file(const char *path, mode_t mode) {
        int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC | O_EXCL, 0600);

        EXPECT(fd >= 0);
        EXPECT(fchmod(fd, mode) >= 0);
        EXPECT(close(fd) >= 0);
}

static void fixture_new(Fixture *f) {
        strcpy(f->dir, "/tmp/test-config-XXXXXX");
        EXPECT(mkdtemp(f->dir));
        EXPECT(getcwd(f->cwd, sizeof(f->cwd)));
        EXPECT(chdir(f->dir) >= 0);

        EXPECT(mkdir("one", 0755) >= 0 && mkdir("two", 0755) >= 0 && mkdir("one/directory", 0755) >= 0);
        fixture_file("one/good", 0755);
        fixture_file("two/good", 0755);
        fixture_file("one/text", 0644);
        fixture_file("one/both", 0644);
        fixture_file("two/both", 0755);
        fixture_file("two/directory", 0755);
        fixture_file("two/only-two", 0755);
        fixture_file("here", 0755);
        EXPECT(mkdir("one/only-directory", 0755) >= 0);
        EXPECT(symlink("good", "one/link") >= 0);
        EXPECT(symlink("gone", "one/dangling") >= 0);
        EXPECT(symlink("loop", "one/loop") >= 0);
        EXPECT(mkfifo("one/fifo", 0755) >= 0);
}

static void fixture_done(const Fixture *f) {
        static const char *const files[] = {
                "one/good", "two/good", "one/text", "one/both", "two/both", "two/directory", "two/only-two",
                "here",
                "one/link", "one/dangling", "one/loop", "one/fifo",
        };
        static const char *const directories[] = { "one/directory", "one/only-directory", "one", "two" };

        for (size_t i = 0; i < ELEMENTSOF(files); i++)
                EXPECT(unlink(files[i]) >= 0);
        for (size_t i = 0; i < ELEMENTSOF(directories); i++)
                EXPECT(rmdir(directories[i]) >= 0);
        EXPECT(chdir(f->cwd) >= 0);
        EXPECT(rmdir(f->dir) >= 0);
}

static void expect_found(const char *command, const char *path, const char *executable) {
        _cleanup_(config_freep) Config *c = NULL;
        Problem problem = {};
        int r;

        r = parse_strv(ARGUMENTS("--", command, "x"), path, &c, &problem);
        if (r < 0)
                fprintf(stderr, "%s in %s: %s\n", command, path ?: "(null)", problem.text);
        EXPECT_EQ(r, 0);
        EXPECT_STREQ(c->executable, executable);
        EXPECT_STREQ(c->command[0], command);
        EXPECT_STREQ(c->command[1], "x");
}

static void expect_not_found(const char *command, const char *path, int error, const char *why) {
        Problem problem = {};
        Config *c = NULL;
        char text[512];
        int r;

        r = parse_strv(ARGUMENTS("--", command), path, &c, &problem);
        snprintf(text, sizeof(text), "command %s, expected an executable file", why);
        EXPECT_STREQ(problem.text, text);
        EXPECT_EQ(r, error);
        EXPECT_EQ(problem.exit_status, 5);
        EXPECT(!c);
}

static void path_lookup(void) {
        Fixture f;

        fixture_new(&f);

        expect_found("good", "one:two", "one/good");
        expect_found("good", "two:one", "two/good");
        expect_found("only-two", "one:two", "two/only-two");
        expect_found("only-two", "missing:one/good:two", "two/only-two");
        expect_found("both", "one:two",
                     "two/both");           /* goes on behind a file that is not executable */
        expect_found("directory", "one:two", "two/directory"); /* ... or a directory */
        expect_found("link", "one", "one/link");
        expect_found("here", "", "./here"); /* empty elements: the working directory */
        expect_found("here", ":one", "./here");
        expect_found("here", "one:", "./here");
        expect_found("here", "one::two", "./here");
        expect_found("sh", NULL, "/bin/sh");

        expect_not_found("gone", "one:two", -ENOENT, "gone: not found in PATH (one:two)");
        expect_not_found("gone", "", -ENOENT, "gone: not found in PATH ()");
        expect_not_found("gone", NULL, -ENOENT, "gone: not found in PATH (/bin:/usr/bin)");
        expect_not_found("here", "one:two", -ENOENT, "here: not found in PATH (one:two)");
        expect_not_found("dangling", "one", -ENOENT, "dangling: not found in PATH (one)");
        expect_not_found("-", "one", -ENOENT, "-: not found in PATH (one)");
        expect_not_found("go\nod", "one", -ENOENT, "go\\nod: not found in PATH (one)");
        expect_not_found("text", "one:two", -EACCES, "one/text: not executable");
        expect_not_found("only-directory", "two:one", -EACCES, "one/only-directory: is a directory");
        expect_not_found("fifo", "two:one", -EACCES, "one/fifo: not a regular file");

        fixture_done(&f);
}

static void command_with_slash(void) {
        Fixture f;

        fixture_new(&f);

        expect_found("./here", "one", "./here");
        expect_found("one/good", "two", "one/good");
        expect_found("one/link", NULL, "one/link");

        expect_not_found("./gone", "one", -ENOENT, "./gone: no such file");
        expect_not_found("one/dangling", "one", -ENOENT, "one/dangling: no such file");
        expect_not_found("one/loop", "one", -ENOENT, "one/loop: no such file");
        expect_not_found("here/below", "one", -ENOENT, "here/below: no such file");
        expect_not_found("one/only-two", "two", -ENOENT, "one/only-two: no such file");
        expect_not_found("one/text", "one", -EACCES, "one/text: not executable");
        expect_not_found("one/directory", "one", -EACCES, "one/directory: is a directory");
        expect_not_found("one/", "one", -EACCES, "one/: is a directory");
        expect_not_found("one/fifo", "one", -EACCES, "one/fifo: not a regular file");

        if (geteuid() != 0) {
                EXPECT(chmod("two", 0) >= 0);
                expect_not_found("two/good", "one", -EACCES, "two/good: Permission denied");
                expect_not_found("only-two", "one:two", -EACCES, "two/only-two: Permission denied");
                EXPECT(chmod("two", 0755) >= 0);
        }

        fixture_done(&f);
}

/* All options that there are, by name; "=" is for those that take a value. */
static const char *const all_options[] = {
        "help", "version", "check", "workers=", "name=", "ready=", "stop-signal=", "stop-timeout=",
        "retire=",
        "start-timeout=", "crash-budget=", "listener=", "socket-activation", "worker-capabilities=",
        "allow-root", "surge=",
        "probe=", "max-lifetime=", "max-memory=", "request-timeout=",
};

/* The help text names every option that the parser knows, with "=" behind those that take a value. */
static void help_lists_every_option(void) {
        const char *help = config_help_text();

        for (size_t i = 0; i < ELEMENTSOF(all_options); i++) {
                _cleanup_(config_freep) Config *c = NULL;
                char in_help[64], option[64];
                const char *listed;
                Problem problem = {};
                bool takes_value = strchr(all_options[i], '=');

                snprintf(in_help, sizeof(in_help), " --%s", all_options[i]);
                listed = strstr(help, in_help);
                EXPECT(listed);
                EXPECT(takes_value || isspace(listed[strlen(in_help)]));

                snprintf(option, sizeof(option), "--%.*s", (int) strcspn(all_options[i], "="),
                         all_options[i]);
                if (takes_value) {
                        EXPECT_EQ(parse_strv(ARGUMENTS(option), NULL, &c, &problem), -EINVAL);
                        EXPECT(strstr(problem.text, ": value missing, expected "));
                } else
                        EXPECT_EQ(parse_strv(ARGUMENTS(option, EXAMPLE_COMMAND), NULL, &c, &problem), 0);
        }
}

/* ... and no other, and fits on a terminal. */
static void help_lists_nothing_else(void) {
        unsigned n_lines = 0, n_listed = 0;
        const char *end;

        for (const char *line = config_help_text(); *line; line = end + 1, n_lines++) {
                const char *option = NULL;
                bool known = false;

                end = strchr(line, '\n');
                EXPECT(end); /* the last line ends in a newline, too */
                EXPECT(end - line < 80);
                EXPECT(end == line || !isspace(end[-1]));

                if (startswith(line, "     --"))
                        option = line + strlen("     --");
                else if (startswith(line, "  -"))
                        option = line + strlen("  -w --");
                if (!option)
                        continue;

                for (size_t i = 0; i < ELEMENTSOF(all_options); i++) {
                        const char *rest = startswith(option, all_options[i]);

                        if (rest && (rest[-1] == '=' || isspace(*rest)))
                                known = true;
                }
                EXPECT(known);
                n_listed++;
        }

        EXPECT_EQ(n_listed, ELEMENTSOF(all_options) + 1); /* --workers= has two lines */
        EXPECT(n_lines <= 50);
}

/* The texts name the numbers that are in force. */
static void help_tells_the_defaults(void) {
        const char *help = config_help_text();

        EXPECT(strstr(help, "(default: 30s)"));
        EXPECT(strstr(help, "(default: 10/10s)"));
        EXPECT(strstr(help, "fcgi-pool [OPTIONS...] -- COMMAND [ARGUMENTS...]\n") == help);
}

TEST_MAIN(TEST(defaults), TEST(workers), TEST(name), TEST(ready), TEST(stop_signal), TEST(signal_names),
          TEST(timeouts),
          TEST(retire), TEST(surge), TEST(probe), TEST(worn_and_stuck), TEST(crash_budget), TEST(listener),
          TEST(worker_capabilities),
          TEST(flags), TEST(help_and_version), TEST(separate_values), TEST(last_one_wins),
          TEST(unknown_options),
          TEST(long_values_are_cut), TEST(no_command), TEST(path_lookup), TEST(command_with_slash),
          TEST(help_lists_every_option), TEST(help_lists_nothing_else), TEST(help_tells_the_defaults))
