/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A service to be in: a cgroup of our own, real, whose name ends in .service. Each test runs in a child that
 * was moved there; afterwards everything in it is killed and it is removed. */

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include "cgroup.h"
#include "test.h"

static inline void service_write(const char *path, const char *file, const char *text) {
        char name[PATH_MAX];
        int fd;

        EXPECT(snprintf(name, sizeof(name), "%s/%s", path, file) < (int) sizeof(name));
        EXPECT((fd = open(name, O_WRONLY | O_CLOEXEC)) >= 0);
        EXPECT_EQ(write(fd, text, strlen(text)), (ssize_t) strlen(text));
        (void) close(fd);
}

/* Removes the cgroup and all below. */
static inline void service_remove(const char *path) {
        char name[PATH_MAX];
        struct dirent *de;
        DIR *d;

        EXPECT(d = opendir(path));
        while ((de = readdir(d)))
                if (de->d_type == DT_DIR && de->d_name[0] != '.') {
                        EXPECT(snprintf(name, sizeof(name), "%s/%s", path, de->d_name) < (int) sizeof(name));
                        service_remove(name);
                }
        (void) closedir(d);
        if (rmdir(path) < 0)
                EXPECT_EQ(errno, ENOENT);
}

/* Waits until the cgroup of fd is empty, for at most 30 s. */
static inline void service_wait_empty(int fd) {
        int events_fd;

        EXPECT((events_fd = openat(fd, "cgroup.events", O_RDONLY | O_CLOEXEC)) >= 0);
        for (;;) {
                struct pollfd p = { .fd = events_fd, .events = POLLPRI };
                char text[256] = "";

                EXPECT(pread(events_fd, text, sizeof(text) - 1, 0) > 0);
                if (strstr(text, "populated 0"))
                        break;
                EXPECT_EQ(poll(&p, 1, 30000), 1);
        }
        (void) close(events_fd);
}

/* Makes a cgroup with that name below where cgroup2 is mounted, or skips the program. */
static inline void service_make(const char *name, char *ret_path, size_t size) {
        static const char *const mounts[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified" };
        struct statfs sfs;

        for (size_t i = 0; i < ELEMENTSOF(mounts); i++) {
                if (statfs(mounts[i], &sfs) < 0 || sfs.f_type != CGROUP2_SUPER_MAGIC)
                        continue;
                EXPECT(snprintf(ret_path, size, "%s/test-%d-%s", mounts[i], (int) getpid(), name) < (int) size);
                if (mkdir(ret_path, 0755) < 0)
                        SKIP("no cgroup can be made here (%s: %s): everything that needs one", ret_path, strerror(errno));
                if (access(ret_path, W_OK) < 0)
                        SKIP("%s: %s", ret_path, strerror(errno));
                return;
        }
        SKIP("no cgroup2 is mounted: everything that needs one");
}

/* Runs test in a child that is in a service of that name; argument is passed on. */
static inline void run_in_service(const char *name, void (*test)(const char *path, const void *argument),
                                  const void *argument) {
        char path[PATH_MAX / 2];
        int fd, status;
        pid_t pid;

        service_make(name, path, sizeof(path));
        fflush(NULL);
        EXPECT((pid = fork()) >= 0);
        if (pid == 0) {
                service_write(path, "cgroup.procs", "0");
                test(path, argument);
                _exit(EXIT_SUCCESS);
        }
        EXPECT_EQ(waitpid(pid, &status, 0), pid);

        EXPECT((fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0);
        service_write(path, "cgroup.kill", "1");
        service_wait_empty(fd);
        (void) close(fd);
        service_remove(path);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != EXIT_SUCCESS) {
                fprintf(stderr, "failed in a child (status 0x%x)\n", (unsigned) status);
                abort();
        }
}

/* The cgroup2 path of a process as /proc says it, to be freed. */
static inline char *service_path_of(pid_t pid) {
        char name[64], line[PATH_MAX];
        char *path = NULL;
        FILE *f;

        snprintf(name, sizeof(name), "/proc/%d/cgroup", (int) pid);
        EXPECT(f = fopen(name, "re"));
        while (fgets(line, sizeof(line), f))
                if (startswith(line, "0::")) {
                        line[strcspn(line, "\n")] = '\0';
                        EXPECT(path = strdup(line + 3));
                }
        (void) fclose(f);
        EXPECT(path);
        return path;
}

/* A process that does nothing, in the cgroup of cgroup_fd. */
static inline pid_t service_sleeper(int cgroup_fd) {
        int fd;
        pid_t pid;

        EXPECT((pid = fork()) >= 0);
        if (pid == 0)
                for (;;)
                        (void) pause();

        if (cgroup_fd >= 0) {
                char text[16];

                snprintf(text, sizeof(text), "%d", (int) pid);
                EXPECT((fd = openat(cgroup_fd, "cgroup.procs", O_WRONLY | O_CLOEXEC)) >= 0);
                EXPECT_EQ(write(fd, text, strlen(text)), (ssize_t) strlen(text));
                (void) close(fd);
        }
        return pid;
}
