/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One FastCGI request over one connection, for somebody who waits for other things as well: nothing blocks,
 * nothing logs, and when to give up is the caller's affair. */

#include "cgi.h"
#include "fcgi.h"
#include "fd-util.h"

typedef struct Exchange Exchange;

/* A GET of a path with an optional query. There is no web server that could know where the script is, so
 * SCRIPT_FILENAME is the path, too, as PHP needs it. Takes fd, a connected stream socket with O_NONBLOCK,
 * also on failure. The first so many bytes of the output and of FCGI_STDERR are kept. *ret_exchange is to be
 * freed. -E2BIG; -ENOMEM. */
int exchange_new_get(int fd, const char *path, size_t output_max, size_t errors_max,
                     Exchange **ret_exchange);

/* Hangs up. Accepts NULL, returns NULL. */
Exchange *exchange_free(Exchange *exchange);
DEFINE_TRIVIAL_CLEANUP_FUNC(Exchange *, exchange_free);

/* What poll(2) is to wait for. */
int exchange_get_fd(const Exchange *exchange);
short exchange_get_events(const Exchange *exchange);

/* Sends and receives what can be without waiting. 1: the answer is complete; 0: wait; negative errno with
 * *ret_problem: -ECONNRESET, closed before the end; -EBADMSG, no FastCGI; what recv(2) fails with. */
int exchange_drive(Exchange *exchange, Problem *ret_problem);

/* What has been received so far, borrowed. */
const FcgiAnswer *exchange_get_answer(const Exchange *exchange);

/* What there is so far, in words, for one who has lost patience: "after nothing". See
 * fcgi_decoder_describe(). */
char *exchange_describe(const Exchange *exchange, char *buffer, size_t size);
