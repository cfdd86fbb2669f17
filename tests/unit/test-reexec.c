/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* This program executes itself: with argv[1] "image" it is the next image, and its exit status is the
 * verdict. */

#include <fcntl.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "reexec.h"
#include "test.h"

#define VARIABLE "FCGI_POOL_REEXEC"
#define FD_A 40
#define FD_B 77
#define FD_C 123

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

/* A memfd with that in it, as that number, FD_CLOEXEC set. */
static void put_fd(int target, const char *text) {
        int fd;

        EXPECT((fd = memfd_create("test", MFD_CLOEXEC)) >= 0);
        EXPECT_EQ(write(fd, text, strlen(text)), (ssize_t) strlen(text));
        EXPECT_EQ(dup3(fd, target, O_CLOEXEC), target);
        (void) close(fd);
}

static void expect_text(int fd, const char *text) {
        char buffer[64] = "";

        EXPECT(pread(fd, buffer, sizeof(buffer) - 1, 0) >= 0);
        EXPECT_STREQ(buffer, text);
}

static bool is_open(int fd) {
        return fcntl(fd, F_GETFD) >= 0;
}

/* What the next image finds. The old one has left its pid in the environment. */
static int next_image(void) {
        _cleanup_strv_free_ char **names = NULL;
        _cleanup_free_ int *fds = NULL;

        EXPECT_EQ(atoi(getenv("TEST_PID")), getpid());
        EXPECT_STREQ(getenv("TEST_GREETING"), "hello");
        EXPECT_EQ(reexec_take_fds(&fds, &names), 2);
        EXPECT_EQ(fds[0], FD_B);
        EXPECT_STREQ(names[0], "a name = of [its] own");
        EXPECT_EQ(fds[1], FD_A);
        EXPECT_STREQ(names[1], "");
        EXPECT(!names[2]);
        expect_text(FD_B, "b");
        expect_text(FD_A, "a");
        EXPECT_EQ(fcntl(FD_A, F_GETFD), FD_CLOEXEC);
        EXPECT_EQ(fcntl(FD_B, F_GETFD), FD_CLOEXEC);
        EXPECT(!is_open(FD_C));
        EXPECT(!getenv(VARIABLE));

        /* Only once. */
        EXPECT_EQ(reexec_take_fds(&fds, &names), 0);
        return EXIT_SUCCESS;
}

static _noreturn_ void check_execute(void) {
        static char *argv[] = { (char *) "test", (char *) "image", NULL };
        Reexec *reexec;
        char pid[16];

        snprintf(pid, sizeof(pid), "%d", (int) getpid());
        EXPECT_EQ(setenv("TEST_PID", pid, 1), 0);
        EXPECT_EQ(setenv("TEST_GREETING", "hello", 1), 0);
        put_fd(FD_A, "a");
        put_fd(FD_B, "b");
        put_fd(FD_C, "not passed");
        EXPECT_EQ(reexec_new(argv, &reexec), 0);
        (void) reexec_execute(reexec, (const PassedFd[]) { { FD_B, "a name = of [its] own" }, { FD_A, "" } }, 2);
        abort();
}

static void execute(void) {
        run_forked(check_execute);
}

/* A copy of this program that is run in place of it, so that its file can be spoilt. */
static char copy_path[PATH_MAX];

static void make_copy(void) {
        char buffer[65536];
        int from, to;
        ssize_t n;

        snprintf(copy_path, sizeof(copy_path), "/tmp/test-reexec-%d", (int) getpid());
        EXPECT((from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC)) >= 0);
        EXPECT((to = open(copy_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755)) >= 0);
        while ((n = read(from, buffer, sizeof(buffer))) > 0)
                EXPECT_EQ(write(to, buffer, (size_t) n), n);
        (void) close(from);
        (void) close(to);
}

static int run_copy(const char *what) {
        int status;
        pid_t pid;

        fflush(NULL);
        make_copy();
        EXPECT((pid = fork()) >= 0);
        if (pid == 0) {
                execl(copy_path, copy_path, what, NULL);
                _exit(99);
        }
        EXPECT_EQ(waitpid(pid, &status, 0), pid);
        (void) unlink(copy_path);
        return status;
}

static void replace_with(const char *path, const char *text, mode_t mode) {
        char new_path[PATH_MAX + 8];
        int fd;

        snprintf(new_path, sizeof(new_path), "%s.new", path);
        EXPECT((fd = open(new_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755)) >= 0);
        EXPECT_EQ(write(fd, text, strlen(text)), (ssize_t) strlen(text));
        EXPECT_EQ(fchmod(fd, mode), 0);
        (void) close(fd);
        EXPECT_EQ(rename(new_path, path), 0);
}

static void expect_failure(const Reexec *reexec, int error) {
        EXPECT_EQ(reexec_execute(reexec, (const PassedFd[]) { { FD_A, "a" }, { FD_B, "b" } }, 2), error);
        EXPECT_EQ(fcntl(FD_A, F_GETFD), FD_CLOEXEC);
        EXPECT_EQ(fcntl(FD_B, F_GETFD), FD_CLOEXEC);
        EXPECT_EQ(fcntl(FD_C, F_GETFD), FD_CLOEXEC);
        expect_text(FD_A, "a");
        EXPECT(!getenv(VARIABLE));
}

/* In the copy: every way to fail leaves everything as it was, and does not stand in the way of the next
 * attempt. */
static int failing_image(char **argv) {
        char *next_argv[] = { argv[0], (char *) "replaced", NULL };
        Reexec *reexec;

        put_fd(FD_A, "a");
        put_fd(FD_B, "b");
        put_fd(FD_C, "c");
        EXPECT_EQ(reexec_new(next_argv, &reexec), 0);
        EXPECT_EQ(reexec_is_due(reexec), 0);

        EXPECT_EQ(unlink(argv[0]), 0);
        EXPECT_EQ(reexec_is_due(reexec), -ENOENT);
        expect_failure(reexec, -ENOENT);

        replace_with(argv[0], "no program\n", 0755);
        EXPECT_EQ(reexec_is_due(reexec), 1);
        expect_failure(reexec, -ENOEXEC);

        replace_with(argv[0], "#!/bin/sh\nexit 0\n", 0644);
        expect_failure(reexec, -EACCES);

        /* One that is not open: none of the others may stay without the flag. */
        EXPECT_EQ(reexec_execute(reexec, (const PassedFd[]) { { FD_A, "a" }, { 999, "closed" } }, 2), -EBADF);
        EXPECT_EQ(fcntl(FD_A, F_GETFD), FD_CLOEXEC);
        EXPECT(!getenv(VARIABLE));

        /* Another program at the same path: that one is executed, with our arguments. */
        replace_with(argv[0], "#!/bin/sh\n[ \"$1\" = replaced ] && [ -e /proc/self/fd/40 ] && exit 42\nexit 1\n", 0755);
        EXPECT_EQ(reexec_is_due(reexec), 1);
        (void) reexec_execute(reexec, (const PassedFd[]) { { FD_A, "a" } }, 1);
        abort();
}

static void failures(void) {
        int status = run_copy("failing");

        EXPECT(WIFEXITED(status));
        EXPECT_EQ(WEXITSTATUS(status), 42);
}

/* In the copy, whose file is gone before it knows where it was. */
static int deleted_image(char **argv) {
        Reexec *reexec;

        EXPECT_EQ(unlink(argv[0]), 0);
        EXPECT_EQ(reexec_new(argv, &reexec), 0);
        EXPECT_EQ(reexec_is_due(reexec), -ENOENT);
        replace_with(argv[0], "#!/bin/sh\nexit 43\n", 0755);
        EXPECT_EQ(reexec_is_due(reexec), 1);
        (void) reexec_execute(reexec, NULL, 0);
        abort();
}

static void deleted(void) {
        int status = run_copy("deleted");

        EXPECT(WIFEXITED(status));
        EXPECT_EQ(WEXITSTATUS(status), 43);
}

static int take(const char *value, int **ret_fds, char ***ret_names) {
        char text[256];

        snprintf(text, sizeof(text), "%d%s", (int) getpid(), value);
        EXPECT_EQ(setenv(VARIABLE, text, 1), 0);
        return reexec_take_fds(ret_fds, ret_names);
}

static void check_foreign(void) {
        char **names = NULL;
        int *fds = NULL;
        char text[64];

        put_fd(FD_A, "a");
        EXPECT_EQ(unsetenv(VARIABLE), 0);
        EXPECT_EQ(reexec_take_fds(&fds, &names), 0);

        /* A child of ours that has inherited it, or the wrapper before us: not meant for us. */
        snprintf(text, sizeof(text), "%d:%d=a", (int) getppid(), FD_A);
        EXPECT_EQ(setenv(VARIABLE, text, 1), 0);
        EXPECT_EQ(reexec_take_fds(&fds, &names), 0);
        EXPECT(!getenv(VARIABLE));
        EXPECT_EQ(fcntl(FD_A, F_GETFD), FD_CLOEXEC);

        EXPECT_EQ(setenv(VARIABLE, "", 1), 0);
        EXPECT_EQ(reexec_take_fds(&fds, &names), 0);
        EXPECT_EQ(setenv(VARIABLE, "nonsense", 1), 0);
        EXPECT_EQ(reexec_take_fds(&fds, &names), 0);
        EXPECT(!getenv(VARIABLE));

        EXPECT_EQ(take("", &fds, &names), 0);
        EXPECT(!fds);
        EXPECT(!names);
}

static void check_malformed(void) {
        static const char *const values[] = {
                ":", ":40", ":40:", ":=a", ":x=a", ":40=a:41", ":40=a::", ":2=a", ":-1=a", ":0=a",
                ":99999999999999999999=a", ":4294967336=a", ":999=closed", ":40=a:999=closed", "x:40=a", " :40=a",
        };
        char **names = NULL;
        int *fds = NULL;

        put_fd(FD_A, "a");
        for (size_t i = 0; i < ELEMENTSOF(values); i++) {
                int r = take(values[i], &fds, &names);

                if (r != -EBADMSG && !(streq(values[i], ":") && r == 0)) {
                        fprintf(stderr, "\"%s\": %d\n", values[i], r);
                        abort();
                }
                EXPECT(!fds);
                EXPECT(!names);
                EXPECT(!getenv(VARIABLE));
        }
}

static void check_well_formed(void) {
        _cleanup_strv_free_ char **names = NULL;
        _cleanup_free_ int *fds = NULL;

        put_fd(FD_A, "a");
        put_fd(FD_B, "b");
        EXPECT_EQ(fcntl(FD_A, F_SETFD, 0), 0);
        EXPECT_EQ(take(":40=state:77=x=y", &fds, &names), 2);
        EXPECT_STREQ(names[0], "state");
        EXPECT_STREQ(names[1], "x=y");
        EXPECT(!names[2]);
        EXPECT_EQ(fcntl(FD_A, F_GETFD), FD_CLOEXEC);
}

static void variable(void) {
        run_forked(check_foreign);
        run_forked(check_malformed);
        run_forked(check_well_formed);
}

static void free_nothing(void) {
        EXPECT(!reexec_free(NULL));
}

static const Test tests[] = { TEST(execute), TEST(failures), TEST(deleted), TEST(variable), TEST(free_nothing) };

int main(int argc, char **argv) {
        if (argc > 1 && streq(argv[1], "image"))
                return next_image();
        if (argc > 1 && streq(argv[1], "failing"))
                return failing_image(argv);
        if (argc > 1 && streq(argv[1], "deleted"))
                return deleted_image(argv);

        for (size_t i = 0; i < ELEMENTSOF(tests); i++) {
                fprintf(stderr, "/* %s */\n", tests[i].name);
                tests[i].run();
        }
        return EXIT_SUCCESS;
}
