/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The response of a CGI program, which is what a FastCGI application writes to FCGI_STDOUT (RFC 3875,
 * section 6). On memory alone. */

#include "problem.h"

/* Not terminated. */
typedef struct CgiSlice {
        const char *data;
        size_t size;
} CgiSlice;

typedef struct CgiResponse {
        unsigned status; /* 100 to 999 */
        CgiSlice reason; /* may be empty; no control characters but tabs, else any bytes */
        CgiSlice header; /* all lines with their ends, without the blank one */
        CgiSlice body;
} CgiResponse;

/* Takes a response apart: a header of at least one line, a blank line, a body; lines end in LF or CRLF.
 * The status is that of the field Status. Without one it is 302 if Location is an absolute URI, else
 * 200, also for a Location that is a path, of which the web server is to answer with what it finds
 * there (6.2.2). All slices point into data or are constants.
 *
 * -EBADMSG: no header; no blank line (so it is as well if data has been cut there); a line that is not
 * NAME: VALUE, such as a continuation, which 6.3 forbids; a control character in a value; Status twice
 * (6.3), or one that is not three digits and a reason (6.3.3). A reason may be missing, as it often is.
 * *ret_problem (may be NULL) says in one line what was wrong and what was expected; nothing of data is
 * in it. */
int cgi_parse_response(const void *data, size_t size, CgiResponse *ret_response, Problem *ret_problem);
