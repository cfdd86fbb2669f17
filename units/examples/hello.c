/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SPDX-FileCopyrightText: fcgi-pool contributors */

/* A FastCGI worker with libfcgi: one request at a time, from the listener on fd 0.
 *
 *     cc -O2 -Wall -o hello-c hello.c -lfcgi
 *
 * libfcgi catches SIGTERM so that it interrupts whatever is going on: the rest of a request body that is just being
 * read is lost, the rest of a response too, and a connection without a request yet can leave the process spinning.
 * The handler below replaces it. It exchanges the listener for /dev/null and lets every call go on: the request in
 * hand is finished, the next accept() fails, the loop ends. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcgiapp.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int null_fd;

static void on_sigterm(int signo) {
        int saved_errno = errno;

        (void) signo;
        (void) dup2(null_fd, 0);
        errno = saved_errno;
}

/* The number behind "sleep=" in the query, at most a minute. */
static long query_sleep_msec(const char *query) {
        for (const char *p = query; p && *p; p = strchr(p, '&') ? strchr(p, '&') + 1 : NULL)
                if (strncmp(p, "sleep=", 6) == 0) {
                        long msec = strtol(p + 6, NULL, 10);

                        return msec < 0 ? 0 : msec > 60000 ? 60000 : msec;
                }
        return 0;
}

static void sleep_msec(long msec) {
        struct timespec left = { .tv_sec = msec / 1000, .tv_nsec = msec % 1000 * 1000000 };

        while (nanosleep(&left, &left) < 0 && errno == EINTR)
                ;
}

int main(void) {
        struct sigaction action = { .sa_handler = on_sigterm, .sa_flags = SA_RESTART };
        FCGX_Request request;

        null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null_fd < 0 || FCGX_Init() != 0 || FCGX_InitRequest(&request, 0, 0) != 0)
                return EXIT_FAILURE;
        if (sigaction(SIGTERM, &action, NULL) < 0) /* after FCGX_Init(), which sets its own */
                return EXIT_FAILURE;

        while (FCGX_Accept_r(&request) == 0) {
                sleep_msec(query_sleep_msec(FCGX_GetParam("QUERY_STRING", request.envp)));
                FCGX_FPrintF(request.out, "Content-Type: text/plain\r\n\r\nhello from pid %d\n", (int) getpid());
                FCGX_Finish_r(&request);
        }
        return EXIT_SUCCESS;
}
