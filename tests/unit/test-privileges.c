/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What /proc/self/status says of the helper after the drop, and of a worker after execve(), as root and as
 * nobody. Each case runs in a process of its own, which can never have its capabilities back. */

#include <fcntl.h>
#include <inttypes.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "privileges.h"
#include "test.h"

#define NOBODY 65534
#define BIT(capability) (UINT64_C(1) << (capability))

typedef struct Sets {
        uint64_t inheritable, permitted, effective, bounding, ambient, no_new_privs;
} Sets;

static void run_forked(void (*test)(void)) {
        int status;
        pid_t pid;

        fflush(NULL);
        EXPECT((pid = fork()) >= 0);
        if (pid == 0) {
                test();
                _exit(EXIT_SUCCESS);
        }
        EXPECT_EQ(waitpid(pid, &status, 0), pid);
        EXPECT(WIFEXITED(status));
        EXPECT_EQ(WEXITSTATUS(status), EXIT_SUCCESS);
}

static uint64_t field(const char *text, const char *name, int base) {
        const char *p;

        EXPECT(p = strstr(text, name));
        return strtoull(p + strlen(name), NULL, base);
}

static Sets read_sets(int fd) {
        _cleanup_free_ char *text = NULL;
        size_t size = 0;
        ssize_t n;

        EXPECT(text = calloc(1, 16384));
        while ((n = read(fd, text + size, 16383 - size)) > 0)
                size += (size_t) n;
        (void) close(fd);
        return (Sets) {
                .inheritable = field(text, "\nCapInh:", 16),
                .permitted = field(text, "\nCapPrm:", 16),
                .effective = field(text, "\nCapEff:", 16),
                .bounding = field(text, "\nCapBnd:", 16),
                .ambient = field(text, "\nCapAmb:", 16),
                .no_new_privs = field(text, "\nNoNewPrivs:", 10),
        };
}

static Sets sets_of_self(void) {
        int fd;

        EXPECT((fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC)) >= 0);
        return read_sets(fd);
}

/* Those of a program started as a worker is. */
static Sets sets_of_worker(uint64_t mask) {
        const char *const argv[] = { "cat", "/proc/self/status", NULL };
        int fds[2], status;
        pid_t pid;
        Sets sets;

        EXPECT_EQ(pipe2(fds, O_CLOEXEC), 0);
        EXPECT((pid = fork()) >= 0);
        if (pid == 0) {
                if (privileges_raise_ambient(mask) < 0 || dup2(fds[1], STDOUT_FILENO) < 0)
                        _exit(EXIT_FAILURE);
                (void) execv("/bin/cat", (char **) argv);
                _exit(EXIT_FAILURE);
        }
        (void) close(fds[1]);
        sets = read_sets(fds[0]);
        EXPECT_EQ(waitpid(pid, &status, 0), pid);
        EXPECT_EQ(status, 0);
        return sets;
}

static void expect_sets(const Sets *sets, const Sets *expected) {
        EXPECT_EQ(sets->inheritable, expected->inheritable);
        EXPECT_EQ(sets->permitted, expected->permitted);
        EXPECT_EQ(sets->effective, expected->effective);
        EXPECT_EQ(sets->bounding, expected->bounding);
        EXPECT_EQ(sets->ambient, expected->ambient);
        EXPECT_EQ(sets->no_new_privs, expected->no_new_privs);
}

/* Drops, then compares us and a worker; a bounding set that could not be reduced is bounding. */
static void expect_drop(uint64_t mask, bool allow_root, uint64_t bounding) {
        const Sets helper = { .inheritable = mask, .permitted = mask, .bounding = bounding, .no_new_privs = 1 };
        const Sets worker = { .inheritable = mask, .permitted = mask, .effective = mask, .bounding = bounding,
                              .ambient = mask, .no_new_privs = 1 };
        Problem problem = {};
        Sets sets;
        int r;

        r = privileges_drop(mask, allow_root, &problem);
        if (r < 0)
                fprintf(stderr, "%s\n", problem.text);
        EXPECT_EQ(r, 0);

        sets = sets_of_self();
        expect_sets(&sets, &helper);
        sets = sets_of_worker(mask);
        expect_sets(&sets, &worker);
        sets = sets_of_self(); /* the worker's ambient set is the worker's */
        expect_sets(&sets, &helper);

        /* Again, as a helper that re-executes itself does. */
        EXPECT_EQ(privileges_drop(mask, allow_root, NULL), 0);
        sets = sets_of_self();
        expect_sets(&sets, &helper);
}

static void expect_refused(uint64_t mask, bool allow_root, const char *text) {
        Problem problem = {};
        Sets before, after;

        before = sets_of_self();
        EXPECT_EQ(privileges_drop(mask, allow_root, &problem), -EPERM);
        EXPECT_EQ(problem.exit_status, EXIT_STATUS_NO_PERMISSION);
        if (text)
                EXPECT_STREQ(problem.text, text);
        EXPECT_EQ(privileges_drop(mask, allow_root, NULL), -EPERM);
        after = sets_of_self();
        expect_sets(&after, &before);
}

/* Becomes nobody as systemd does it: with AmbientCapabilities= of mask. */
static void become_nobody(uint64_t mask) {
        cap_t set;

        EXPECT_EQ(prctl(PR_SET_KEEPCAPS, 1UL, 0UL, 0UL, 0UL), 0);
        EXPECT_EQ(setresgid(NOBODY, NOBODY, NOBODY), 0);
        EXPECT_EQ(setresuid(NOBODY, NOBODY, NOBODY), 0);
        EXPECT(set = cap_init());
        for (cap_value_t i = 0; i < 64; i++)
                if (mask & BIT(i)) {
                        EXPECT_EQ(cap_set_flag(set, CAP_PERMITTED, 1, &i, CAP_SET), 0);
                        EXPECT_EQ(cap_set_flag(set, CAP_INHERITABLE, 1, &i, CAP_SET), 0);
                        EXPECT_EQ(cap_set_flag(set, CAP_EFFECTIVE, 1, &i, CAP_SET), 0);
                }
        EXPECT_EQ(cap_set_proc(set), 0);
        (void) cap_free(set);
        EXPECT_EQ(privileges_raise_ambient(mask), 0);
        EXPECT_EQ(sets_of_self().ambient, mask);
}

static void parse(void) {
        const char *bad = NULL, *s;
        uint64_t mask = 4711;

        EXPECT_EQ(capabilities_parse("CAP_NET_RAW,CAP_SYS_NICE", &mask, NULL), 0);
        EXPECT_EQ(mask, BIT(CAP_NET_RAW) | BIT(CAP_SYS_NICE));
        EXPECT_EQ(capabilities_parse(" cap_net_raw  Sys_Nice,,\tCHOWN ", &mask, &bad), 0);
        EXPECT_EQ(mask, BIT(CAP_NET_RAW) | BIT(CAP_SYS_NICE) | BIT(CAP_CHOWN));
        EXPECT(!bad);
        EXPECT_EQ(capabilities_parse("CAP_CHECKPOINT_RESTORE", &mask, NULL), 0);
        EXPECT_EQ(mask, BIT(40));
        EXPECT_EQ(capabilities_parse("", &mask, NULL), 0);
        EXPECT_EQ(mask, 0);

        mask = 4711;
        s = "CAP_NET_RAW, CAP_FLY CHOWN";
        EXPECT_EQ(capabilities_parse(s, &mask, &bad), -EINVAL);
        EXPECT(bad == s + strlen("CAP_NET_RAW, "));
        EXPECT_EQ(capabilities_parse("13", &mask, NULL), -EINVAL);
        EXPECT_EQ(capabilities_parse("CAP_13", &mask, NULL), -EINVAL);
        EXPECT_EQ(capabilities_parse("CAP_", &mask, NULL), -EINVAL);
        EXPECT_EQ(capabilities_parse("CAP_CAP_CHOWN", &mask, NULL), -EINVAL);
        EXPECT_EQ(capabilities_parse("CAP_CHOWN;CAP_FOWNER", &mask, NULL), -EINVAL);
        EXPECT_EQ(capabilities_parse("CAP_CHOWN=eip", &mask, NULL), -EINVAL);
        EXPECT_EQ(capabilities_parse("CHOWNCHOWNCHOWNCHOWNCHOWNCHOWNCHOWNCHOWNCHOWNCHOWNCHOWNCHOWNCHOWNCHOWNCHOWN",
                                     &mask, NULL), -EINVAL);
        EXPECT_EQ(mask, 4711);
}

#define REFUSED_ROOT "refusing to run as root: use User= in the unit, or --allow-root to run workers as root"

static void need_root(void) {
        if (geteuid() != 0 || (sets_of_self().effective & (BIT(CAP_SETPCAP) | BIT(CAP_SETUID) | BIT(CAP_SETGID))) !=
                                      (BIT(CAP_SETPCAP) | BIT(CAP_SETUID) | BIT(CAP_SETGID)))
                SKIP("needs root with CAP_SETPCAP, CAP_SETUID and CAP_SETGID: capabilities after drop and exec");
}

static void check_root_refused(void) {
        expect_refused(0, false, REFUSED_ROOT);
        EXPECT_EQ(setresuid(NOBODY, NOBODY, 0), 0); /* could be root again */
        expect_refused(0, false, REFUSED_ROOT);
}

static void check_root(void) {
        expect_drop(0, true, 0);
}

static void check_root_keeps(void) {
        uint64_t mask = BIT(CAP_NET_BIND_SERVICE) | BIT(CAP_KILL);

        expect_drop(mask, true, mask);
}

/* execve() as root grants the bounding set; nothing may come back that way, not even if nothing was raised. */
static void check_root_exec_without_ambient(void) {
        uint64_t mask = BIT(CAP_KILL);
        Sets sets;

        EXPECT_EQ(privileges_drop(mask, true, NULL), 0);
        sets = sets_of_worker(0);
        EXPECT_EQ(sets.permitted & ~mask, 0);
        EXPECT_EQ(sets.bounding, mask);
        EXPECT_EQ(sets.ambient, 0);
}

static void check_not_permitted(void) {
        expect_refused(BIT(63), true, "--worker-capabilities=63: not in our permitted set, "
                                      "add AmbientCapabilities=63 to the unit");
        become_nobody(BIT(CAP_KILL));
        expect_refused(BIT(CAP_KILL) | BIT(CAP_NET_RAW), false,
                       "--worker-capabilities=CAP_NET_RAW: not in our permitted set, "
                       "add AmbientCapabilities=CAP_NET_RAW to the unit");
        expect_refused(BIT(CAP_CHOWN) | BIT(CAP_NET_RAW), false,
                       "--worker-capabilities=CAP_CHOWN,CAP_NET_RAW: not in our permitted set, "
                       "add AmbientCapabilities=CAP_CHOWN CAP_NET_RAW to the unit");
        expect_refused(UINT64_MAX, false, NULL); /* more names than fit */
}

static void check_nobody(void) {
        uint64_t bounding = sets_of_self().bounding;

        become_nobody(0);
        expect_drop(0, false, bounding);
}

/* A unit that leaves us nothing to drop may forbid capset(2) as well (SystemCallFilter=~@privileged). */
static void check_nobody_without_capset(void) {
        struct sock_filter code[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_capset, 0, 1),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = { .len = ELEMENTSOF(code), .filter = code };
        uint64_t bounding = sets_of_self().bounding;

        become_nobody(0);
        EXPECT_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1UL, 0UL, 0UL, 0UL), 0);
        EXPECT_EQ(prctl(PR_SET_SECCOMP, (unsigned long) SECCOMP_MODE_FILTER, &program, 0UL, 0UL), 0);
        expect_drop(0, false, bounding);
}

static void check_nobody_drops_ambient(void) {
        uint64_t bounding = sets_of_self().bounding;

        become_nobody(BIT(CAP_KILL) | BIT(CAP_NET_RAW));
        expect_drop(BIT(CAP_KILL), false, bounding);
}

static void check_nobody_with_setpcap(void) {
        become_nobody(BIT(CAP_KILL) | BIT(CAP_SETPCAP));
        expect_drop(BIT(CAP_KILL), false, BIT(CAP_KILL));
}

/* Held but not in effect: raised for the moment it takes. */
static void check_nobody_with_latent_setpcap(void) {
        cap_t set;

        become_nobody(BIT(CAP_KILL) | BIT(CAP_SETPCAP));
        EXPECT(set = cap_get_proc());
        EXPECT_EQ(cap_clear_flag(set, CAP_EFFECTIVE), 0);
        EXPECT_EQ(cap_set_proc(set), 0);
        (void) cap_free(set);
        expect_drop(BIT(CAP_KILL), false, BIT(CAP_KILL));
}

static void check_ambient_not_inheritable(void) {
        become_nobody(BIT(CAP_KILL));
        EXPECT_EQ(privileges_drop(0, false, NULL), 0);
        EXPECT_EQ(privileges_raise_ambient(0), 0);
        EXPECT_EQ(privileges_raise_ambient(BIT(CAP_KILL)), -EPERM);
}

static void root(void) {
        need_root();
        run_forked(check_root_refused);
        run_forked(check_root);
        run_forked(check_root_keeps);
        run_forked(check_root_exec_without_ambient);
}

static void not_permitted(void) {
        need_root();
        run_forked(check_not_permitted);
}

static void nobody(void) {
        need_root();
        run_forked(check_nobody);
        run_forked(check_nobody_without_capset);
        run_forked(check_nobody_drops_ambient);
        run_forked(check_nobody_with_setpcap);
        run_forked(check_nobody_with_latent_setpcap);
        run_forked(check_ambient_not_inheritable);
}

TEST_MAIN(TEST(parse), TEST(root), TEST(not_permitted), TEST(nobody))
