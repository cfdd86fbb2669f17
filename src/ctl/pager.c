/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* less(1) with the options that systemctl(1) gives it ends by itself if all fits on the screen. A pager that
 * cannot be run is none: what it would have shown is printed by cat, which the shell knows how to find.
 * LESSSECURE= keeps less(1) from running commands: it may run as root for somebody who is not. */

#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fd-util.h"
#include "pager.h"
#include "util.h"

#define FALLBACK "command -v less >/dev/null && exec less || exec cat"

static const char *find_pager(void) {
        const char *pager = getenv("SYSTEMD_PAGER") ?: getenv("PAGER");

        /* Who may only run us as somebody else must not choose what else runs. */
        if (!pager || ((getenv("SUDO_UID") || getenv("PKEXEC_UID")) && pager[0] != '\0'))
                return FALLBACK;
        return pager[0] == '\0' || streq(pager, "cat") ? NULL : pager;
}

static void _noreturn_ run_pager(const char *pager, int input_fd) {
        if (dup2(input_fd, STDIN_FILENO) >= 0 && setenv("LESSSECURE", "1", 1) == 0 &&
            setenv("LESS", getenv("SYSTEMD_LESS") ?: "FRSXMK", 1) == 0)
                (void) execl("/bin/sh", "sh", "-c", pager, NULL);
        _exit(EXIT_FAILURE);
}

pid_t pager_open(void) {
        _cleanup_close_ int read_fd = -EBADF, write_fd = -EBADF;
        const char *pager = find_pager();
        int fds[2];
        pid_t pid;

        if (!pager || !isatty(STDOUT_FILENO) || pipe2(fds, O_CLOEXEC) < 0)
                return 0;
        read_fd = fds[0];
        write_fd = fds[1];
        (void) fflush(stdout);
        pid = fork();
        if (pid == 0)
                run_pager(pager, read_fd);
        if (pid > 0 && dup2(write_fd, STDOUT_FILENO) < 0)
                return 0;
        return MAX_OF(pid, 0);
}

void pager_close(pid_t pid) {
        if (pid == 0)
                return;
        (void) fflush(stdout);
        (void) close(STDOUT_FILENO);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
                continue;
}
