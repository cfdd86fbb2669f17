/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The options that fcgi-poolctl reads from a unit are those that the helper would see: the same arguments
 * give the same as config_new(), and variables and files are expanded as systemd does it. */

#include <stdio.h>

#include "command.h"
#include "config.h"
#include "plan.h"
#include "test.h"

#define N_CPUS 3U

#define ARGUMENTS(...) ((char **) (const char *[]) { __VA_ARGS__, NULL })

static void expect_command(char *const *argv, char *const *environment, unsigned n_workers,
                           const char *listener, const char *retire, bool allow_root) {
        _cleanup_(command_done) Command c = {};

        EXPECT_EQ(command_parse(argv, environment, N_CPUS, &c), 0);
        EXPECT(c.known);
        EXPECT_EQ(c.n_workers, n_workers);
        EXPECT_STREQ(c.listener ?: "", listener);
        EXPECT_STREQ(c.retire ?: "", retire);
        EXPECT_EQ(c.allow_root, allow_root);
}

static void options(void) {
        static const struct {
                const char *argument[6];
                unsigned n_workers;
                const char *listener, *retire;
                bool allow_root;
        } table[] = {
                { { "--", "/bin/true" }, N_CPUS, "", "", false },
                { { "/bin/true", "--allow-root" }, N_CPUS, "", "", false },
                { { "--workers=7", "--", "/bin/true", "--workers=8" }, 7, "", "", false },
                { { "--workers", "7", "/bin/true" }, 7, "", "", false },
                { { "-w7", "/bin/true" }, 7, "", "", false },
                { { "-w", "7", "/bin/true" }, 7, "", "", false },
                { { "--workers=2:9", "/bin/true" }, 9, "", "", false },
                { { "--workers=0:9", "/bin/true" }, 9, "", "", false },
                { { "--workers=auto", "/bin/true" }, N_CPUS, "", "", false },
                { { "--workers=4", "--workers=5", "/bin/true" }, 5, "", "", false },
                { { "--workers=16384", "/bin/true" }, 16384, "", "", false },
                { { "--allow-root", "--", "/bin/true" }, N_CPUS, "", "", true },
                { { "--name", "--allow-root", "--", "/bin/true" }, N_CPUS, "", "", false },
                { { "--socket-activation", "--allow-root", "/bin/true" }, N_CPUS, "", "", true },
                { { "--listener=blocking", "/bin/true" }, N_CPUS, "blocking", "", false },
                { { "--listener", "nonblocking", "/bin/true" }, N_CPUS, "nonblocking", "", false },
                { { "--retire=signal", "-w2", "/bin/true" }, 2, "", "signal", false },
                { { "--retire=signal", "--retire=idle", "/bin/true" }, N_CPUS, "", "idle", false },
                { { "--worker-capabilities=CAP_KILL", "-w2", "/bin/true" }, 2, "", "", false },
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                char *argv[8] = { (char *) "/usr/bin/fcgi-pool" };

                for (size_t j = 0; j < ELEMENTSOF(table[i].argument); j++)
                        argv[j + 1] = (char *) table[i].argument[j];
                expect_command(argv, NULL, table[i].n_workers, table[i].listener, table[i].retire,
                               table[i].allow_root);
        }
}

/* Every option that the helper has, with a value if it takes one, does not hide the one behind it. */
static void agrees_with_the_helper(void) {
        static const char *const before[][3] = {
                { "--name", "x" }, { "--ready", "auto" }, { "--stop-signal", "TERM" }, { "--stop-timeout", "1s" },
                { "--retire", "signal" }, { "--start-timeout", "1s" }, { "--crash-budget", "1/1s" },
                { "--listener", "blocking" }, { "--socket-activation" }, { "--worker-capabilities", "CAP_KILL" },
                { "--allow-root" }, { "--max-lifetime", "1h" }, { "--max-memory", "1G" }, { "--request-timeout", "9s" },
                { "--surge", "2" }, { "--surge", "9" }, { "--surge=50%" }, { "--surge", "1%" }, { "--probe", "/x" },
                { "--check" }, { "-w", "4" }, { "-w4" }, { "--workers", "auto" }, { "--name=--allow-root" },
        };

        for (size_t i = 0; i < ELEMENTSOF(before); i++) {
                _cleanup_(config_freep) Config *config = NULL;
                _cleanup_(command_done) Command c = {};
                char *argv[8] = { (char *) "fcgi-pool" };
                int n = 1;

                for (size_t j = 0; before[i][j]; j++)
                        argv[n++] = (char *) before[i][j];
                argv[n++] = (char *) "--workers=2:5";
                argv[n++] = (char *) "--";
                argv[n++] = (char *) "/bin/sh";
                EXPECT_EQ(config_new(n, argv, N_CPUS, "/bin", &config, NULL), 0);
                EXPECT_EQ(command_parse(argv, NULL, N_CPUS, &c), 0);
                EXPECT_EQ(c.n_workers, 5);
                EXPECT_EQ(c.n_workers, config->n_workers);
                EXPECT_EQ(c.n_surge, MIN_OF(plan_surge(config, 5), 5U));
                EXPECT_EQ(c.allow_root, config->allow_root);
                EXPECT_STREQ(c.retire ?: "idle", retire_mode_to_string(config->retire));
                EXPECT_STREQ(c.listener ?: "as passed", listener_mode_to_string(config->listener));
        }
}

/* What the helper refuses says nothing about the number of workers. */
static void bad_numbers(void) {
        static const char *const bad[] = { "--workers=0", "--workers=", "--workers=x", "--workers=5:3", "--workers=1:",
                                           "--workers=16385", "--workers=-1", "--workers=4x", "--workers=:3", "-w0" };

        for (size_t i = 0; i < ELEMENTSOF(bad); i++)
                expect_command(ARGUMENTS("fcgi-pool", bad[i], "--", "/bin/sh"), NULL, 0, "", "", false);
}

static void where_the_helper_is(void) {
        EXPECT(command_is_helper(ARGUMENTS("/usr/bin/fcgi-pool")));
        EXPECT(command_is_helper(ARGUMENTS("/usr/bin/env", "--unset=X", "/opt/fcgi-pool", "--", "/bin/sh")));
        EXPECT(!command_is_helper(ARGUMENTS("/usr/bin/fcgi-pool-guard")));
        EXPECT(!command_is_helper(ARGUMENTS("/usr/bin/fcgi-poolctl", "check")));
        EXPECT(!command_is_helper(ARGUMENTS("/usr/bin/env", "--", "fcgi-pool")));
        EXPECT(!command_is_helper(ARGUMENTS("/bin/sh", "-c", "exec fcgi-pool -- true")));
        expect_command(ARGUMENTS("/usr/bin/env", "-i", "/opt/fcgi-pool", "-w9", "--", "/bin/sh"), NULL, 9, "", "",
                       false);
        EXPECT_EQ(command_parse(ARGUMENTS("/usr/sbin/nginx"), NULL, N_CPUS, &(Command) {}), -EINVAL);
}

static void variables(void) {
        char **environment = ARGUMENTS("N=4", "OPTIONS= --workers=7  '--retire=signal' --name=\"a b\" ", "EMPTY=",
                                       "N=6", "Q=--listener=\"non\"blocking -w\\ 2");

        expect_command(ARGUMENTS("fcgi-pool", "$OPTIONS", "--", "$N"), environment, 7, "", "signal", false);
        expect_command(ARGUMENTS("fcgi-pool", "--workers=${N}", "--", "x"), environment, 6, "", "", false);
        expect_command(ARGUMENTS("fcgi-pool", "--workers=1${EMPTY}2${NONE}", "--", "x"), environment, 12, "", "", false);
        expect_command(ARGUMENTS("fcgi-pool", "$EMPTY", "$NONE", "-w5", "--", "x"), environment, 5, "", "", false);
        /* Not split, so it is one wrong option. */
        expect_command(ARGUMENTS("fcgi-pool", "${OPTIONS}", "-w5", "--", "x"), environment, N_CPUS, "", "", false);
        expect_command(ARGUMENTS("fcgi-pool", "--listener=$$x", "--", "x"), environment, N_CPUS, "$x", "", false);
        expect_command(ARGUMENTS("fcgi-pool", "--listener=${x", "--", "x"), environment, N_CPUS, "${x", "", false);
        expect_command(ARGUMENTS("fcgi-pool", "--listener=$N", "--", "x"), environment, N_CPUS, "$N", "", false);
        /* "-w 2" is one word, and not a number. */
        expect_command(ARGUMENTS("fcgi-pool", "$Q", "--", "x"), environment, 0, "nonblocking", "", false);
        expect_command(ARGUMENTS("$PROGRAM", "-w2", "--", "x"), ARGUMENTS("PROGRAM=/usr/bin/fcgi-pool"), 2, "", "", false);
}

static void files(void) {
        static const struct {
                const char *text;
                const char *assignments[4];
        } table[] = {
                { "", {} },
                { "A=1\nB=2\n", { "A=1", "B=2" } },
                { "A=1", { "A=1" } },
                { "# A=1\n; B=2\n\n  \nC=3", { "C=3" } },
                { "# A=1\\\nB=2\nC=3\n", { "C=3" } },
                { "  A = 1 2  \t\nB=\n", { "A=1 2", "B=" } },
                { "A=\" x \"\n", { "A= x " } },
                { "A='x \"y\" \\n'\n", { "A=x \"y\" \\n" } },
                { "A=\"x\\\"y\\$\\n\"\n", { "A=x\"y$\\n" } },
                { "A=x\\\ny\nB=2", { "A=xy", "B=2" } },
                { "A=\"x\\\ny\"\n", { "A=xy" } },
                { "A=\"x\ny\"\n", { "A=x\ny" } },
                { "A=\"x\"'y' z\n", { "A=xyz" } },
                { "A=x\"y\"\n", { "A=x\"y\"" } },
                { "A=x\\ \n", { "A=x " } },
                { "A=1\r\nB=2\r\n", { "A=1", "B=2" } },
                { "nonsense\nA=1\n", { "A=1" } },
                { "a-b=1\nA=1\n", { "A=1" } },
                { "A=\"x", { "A=x" } },
                { "A=\\", { "A=\\" } },
                { "=1\nA=1", { "A=1" } },
                { "A=1\nA=2\n", { "A=1", "A=2" } },
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                _cleanup_strv_free_ char **environment = NULL;
                size_t n = 0;

                EXPECT_EQ(environment_parse(table[i].text, &environment), 0);
                for (; environment && environment[n]; n++) {
                        EXPECT(n < ELEMENTSOF(table[i].assignments));
                        EXPECT_STREQ(environment[n], table[i].assignments[n] ?: "nothing");
                }
                EXPECT(n == ELEMENTSOF(table[i].assignments) || !table[i].assignments[n]);
        }
}

static void last_assignment(void) {
        char **environment = ARGUMENTS("A=1", "AB=2", "A=3");

        EXPECT_STREQ(environment_get(environment, "A", 1), "3");
        EXPECT_STREQ(environment_get(environment, "ABC", 2), "2");
        EXPECT(!environment_get(environment, "B", 1));
        EXPECT(!environment_get(NULL, "A", 1));
}

TEST_MAIN(TEST(options), TEST(agrees_with_the_helper), TEST(bad_numbers), TEST(where_the_helper_is), TEST(variables),
          TEST(files), TEST(last_assignment))
