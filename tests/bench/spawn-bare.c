/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SPDX-FileCopyrightText: fcgi-pool contributors */

/* spawn-bare [--streams] N PROGRAM [ARGUMENTS...]: forks and executes N workers in a row on the listener that is
 * fd 0, says READY=1 when each has been seen waiting in accept() on it, and from then on does the same for each
 * that dies. What is left of a process manager when everything is left out. With --streams the output of each
 * goes to a journal stream of its own, which costs journald and PID 1 as much as the rest. */

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
#include <systemd/sd-journal.h>

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

static pid_t spawn(char *argv[], int output_fd) {
        pid_t pid = fork();

        if (pid < 0) {
                perror("fork");
                exit(1);
        }
        if (pid == 0) {
                if (output_fd >= 0 && (dup2(output_fd, 1) < 0 || dup2(output_fd, 2) < 0))
                        _exit(127);
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                execv(argv[0], argv);
                _exit(127);
        }
        return pid;
}

static int open_stream(int i) {
        char identifier[32];
        int fd;

        snprintf(identifier, sizeof(identifier), "spawn-bare[%d]", i);
        fd = sd_journal_stream_fd(identifier, 6, 1);
        if (fd < 0) {
                fprintf(stderr, "sd_journal_stream_fd: %s\n", strerror(-fd));
                exit(1);
        }
        return fd;
}

int main(int argc, char *argv[]) {
        bool streams = argc > 1 && strcmp(argv[1], "--streams") == 0;

        argc -= streams;
        argv += streams;

        int n = argc > 2 ? atoi(argv[1]) : 0;
        pid_t *pids = calloc((size_t) (n > 0 ? n : 1), sizeof(pid_t));

        if (n <= 0 || !pids) {
                fputs("Usage: spawn-bare [--streams] N PROGRAM [ARGUMENTS...]\n", stderr);
                return 2;
        }
        for (int i = 0; i < n; i++)
                pids[i] = spawn(argv + 2, streams ? open_stream(i) : -1);
        for (int i = 0; i < n; i++)
                while (!is_accepting(pids[i]))
                        nanosleep(&(struct timespec) { .tv_nsec = 1000000 }, NULL);
        sd_notify(0, "READY=1");
        while (wait(NULL) > 0)
                spawn(argv + 2, -1);
        return 1;
}
