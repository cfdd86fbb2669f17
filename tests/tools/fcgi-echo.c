/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SPDX-FileCopyrightText: fcgi-pool contributors */

/* Echo program on libfcgi, one thread, FCGX_Accept_r(): the most common kind of worker there is, signal
 * handlers of the library included. With --graceful it accepts by itself and loses no connection at SIGTERM.
 * See echo-contract.h for what it answers. */

#include <fcgiapp.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "echo-contract.h"
#include "fcgi-wire.h"
#include "tool.h"

static void put_pattern(FCGX_Stream *out, const EchoRequest *e) {
        char chunk[16384];

        for (uint64_t offset = 0; offset < e->size;) {
                uint64_t left = e->size - offset;
                size_t n = left < sizeof(chunk) ? (size_t) left : sizeof(chunk);

                wire_pattern(e->start, offset, chunk, n);
                if (FCGX_PutStr(chunk, (int) n, out) < 0)
                        return;
                offset += n;
        }
}

static void answer(FCGX_Request *request) {
        char buffer[16384];
        uint64_t n_body = 0;
        uint32_t crc = 0;
        EchoRequest e;
        size_t n_head;
        int n;

        while ((n = FCGX_GetStr(buffer, sizeof(buffer), request->in)) > 0) {
                crc = wire_crc32(crc, buffer, (size_t) n);
                n_body += (uint64_t) n;
        }

        echo_parse(FCGX_GetParam("QUERY_STRING", request->envp), &e);
        if (e.text[0])
                FCGX_FPrintF(request->err, "%s\n", e.text);
        echo_act(&e);
        n_head = echo_head(&e, n_body, crc, buffer, sizeof(buffer));
        FCGX_PutStr(buffer, (int) n_head, request->out);
        put_pattern(request->out, &e);
}

static void serve(FCGX_Request *request) {
        while (FCGX_Accept_r(request) == 0) {
                answer(request);
                FCGX_Finish_r(request);
        }
}

static volatile sig_atomic_t told_to_end;

static void on_term(int signo) {
        /* A signal between the question and accept() would be heard at the next connection only: repeat it. */
        const struct itimerval soon = { .it_interval.tv_usec = 20000, .it_value.tv_usec = 20000 };

        told_to_end = 1;
        (void) setitimer(ITIMER_REAL, &soon, NULL);
}

static void on_alarm(int signo) {}

/* The library's own way to end on SIGTERM closes a connection that has just been accepted on a UNIX socket
 * (its select() for the first byte is interrupted and counts as "not ours"). Here it only gets connections
 * that are accepted already. */
static void serve_gracefully(FCGX_Request *request) {
        /* No SA_RESTART: accept() shall return. */
        if (sigaction(SIGTERM, &(struct sigaction) { .sa_handler = on_term }, NULL) < 0 ||
            sigaction(SIGALRM, &(struct sigaction) { .sa_handler = on_alarm }, NULL) < 0)
                fail(EXIT_FAILURE, "sigaction: %s", strerror(errno));

        while (!told_to_end) {
                request->ipcFd = accept(0, NULL, NULL);
                if (request->ipcFd < 0)
                        continue;
                request->keepConnection = 1; /* else the library begins by closing it */
                serve(request); /* until it is closed: the library has no listener to go on with */
        }
}

int main(int argc, char *argv[]) {
        bool graceful = argc == 2 && strcmp(argv[1], "--graceful") == 0;
        FCGX_Request request;

        if (argc > 1 && !graceful)
                fail(EXIT_USAGE, "unexpected argument '%s'; expects a listening socket on fd 0, and "
                     "--graceful or nothing", argv[1]);

        if (FCGX_Init() != 0 || FCGX_InitRequest(&request, graceful ? -1 : 0, 0) != 0)
                fail(EXIT_FAILURE, "cannot initialise libfcgi");

        if (graceful)
                serve_gracefully(&request);
        else
                serve(&request);
        return EXIT_SUCCESS;
}
