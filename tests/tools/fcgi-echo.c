/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SPDX-FileCopyrightText: fcgi-pool contributors */

/* Echo program on libfcgi, one thread, FCGX_Accept_r(): the most common kind of worker there is, signal
 * handlers of the library included. See echo-contract.h for what it answers. */

#include <fcgiapp.h>

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

int main(int argc, char *argv[]) {
        FCGX_Request request;

        if (argc > 1)
                fail(EXIT_USAGE, "unexpected argument '%s'; expects a listening socket on fd 0", argv[1]);

        if (FCGX_Init() != 0 || FCGX_InitRequest(&request, 0, 0) != 0)
                fail(EXIT_FAILURE, "cannot initialise libfcgi");

        while (FCGX_Accept_r(&request) == 0) {
                answer(&request);
                FCGX_Finish_r(&request);
        }
        return EXIT_SUCCESS;
}
