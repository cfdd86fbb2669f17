/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SPDX-FileCopyrightText: fcgi-pool contributors */

/* spawn-bare N PROGRAM [ARGUMENTS...]: forks and executes N workers in a row on the listener that is fd 0,
 * says READY=1 when each has been seen waiting in accept() on it, and from then on does the same for each
 * that dies. What is left of a process manager when everything is left out. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <systemd/sd-daemon.h>

static bool is_accepting(pid_t pid) {
        char path[64], text[256] = "", *end;
        long number;
        FILE *f;

        snprintf(path, sizeof(path), "/proc/%d/syscall", (int) pid);
        f = fopen(path, "re");
        if (!f)
                return false;
        if (!fgets(text, sizeof(text), f))
                text[0] = '\0';
        fclose(f);
        number = strtol(text, &end, 10);
        return end != text && (number == SYS_accept || number == SYS_accept4) && strncmp(end, " 0x0 ", 5) == 0;
}

static pid_t spawn(char *argv[]) {
        pid_t pid = fork();

        if (pid < 0) {
                perror("fork");
                exit(1);
        }
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                execv(argv[0], argv);
                _exit(127);
        }
        return pid;
}

int main(int argc, char *argv[]) {
        int n = argc > 2 ? atoi(argv[1]) : 0;
        pid_t *pids = calloc((size_t) (n > 0 ? n : 1), sizeof(pid_t));

        if (n <= 0 || !pids) {
                fputs("Usage: spawn-bare N PROGRAM [ARGUMENTS...]\n", stderr);
                return 2;
        }
        for (int i = 0; i < n; i++)
                pids[i] = spawn(argv + 2);
        for (int i = 0; i < n; i++)
                while (!is_accepting(pids[i]))
                        nanosleep(&(struct timespec) { .tv_nsec = 1000000 }, NULL);
        sd_notify(0, "READY=1");
        while (wait(NULL) > 0)
                spawn(argv + 2);
        return 1;
}
