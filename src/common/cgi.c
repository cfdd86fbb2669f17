/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Only what tells whether an application has answered, and how: the shape of every line, Status and
 * Location. RFC 3875 wants more (a Content-Type with a body, Location alone), which web servers do not
 * insist on. */

#include <ctype.h>
#include <strings.h>

#include "cgi.h"

/* Separators of RFC 2616, section 2.2: names are tokens. */
#define SEPARATORS "()<>@,;:\\\"/[]?={}"

#define refuse(ret_problem, ...) \
        problem_set(ret_problem, EXIT_STATUS_UNAVAILABLE, -EBADMSG, __VA_ARGS__)

static bool is_blank(char c) {
        return c == ' ' || c == '\t';
}

static bool is_control(char c) {
        return (unsigned char) c < ' ' || c == 0x7f;
}

static CgiSlice trim(CgiSlice s) {
        while (s.size > 0 && is_blank(s.data[0])) {
                s.data++;
                s.size--;
        }
        while (s.size > 0 && is_blank(s.data[s.size - 1]))
                s.size--;
        return s;
}

static CgiSlice constant(const char *s) {
        return (CgiSlice) { s, strlen(s) };
}

static bool has_name(CgiSlice s, const char *name) {
        return s.size == strlen(name) && strncasecmp(s.data, name, s.size) == 0;
}

static bool is_token(CgiSlice s) {
        for (size_t i = 0; i < s.size; i++)
                if ((unsigned char) s.data[i] <= ' ' || (unsigned char) s.data[i] >= 0x7f ||
                    strchr(SEPARATORS, s.data[i]))
                        return false;
        return s.size > 0;
}

static bool is_text(CgiSlice s) {
        for (size_t i = 0; i < s.size; i++)
                if (is_control(s.data[i]) && s.data[i] != '\t')
                        return false;
        return true;
}

/* Text that begins with a scheme and a colon (section 6.3.2). */
static bool is_absolute_uri(CgiSlice s) {
        size_t i = 0;

        while (i < s.size && (isalnum((unsigned char) s.data[i]) || strchr("+-.", s.data[i])))
                i++;
        return i < s.size && s.data[i] == ':' && isalpha((unsigned char) s.data[0]);
}

/* Text such as "404" or "404 Not Found". */
static bool parse_status(CgiSlice s, CgiResponse *response) {
        unsigned status = 0;

        if (s.size < 3 || (s.size > 3 && !is_blank(s.data[3])))
                return false;
        for (size_t i = 0; i < 3; i++) {
                if (!isdigit((unsigned char) s.data[i]))
                        return false;
                status = status * 10 + (unsigned) (s.data[i] - '0');
        }

        response->status = status;
        response->reason = trim((CgiSlice) { s.data + 3, s.size - 3 });
        return status >= 100;
}

static int parse_line(CgiSlice line, unsigned number, CgiResponse *response, bool *redirects,
                      Problem *ret_problem) {
        const char *colon = memchr(line.data, ':', line.size);
        CgiSlice name, value;

        name = (CgiSlice) { line.data, colon ? (size_t) (colon - line.data) : 0 };
        if (!is_token(name))
                return refuse(ret_problem, "line %u of the header is no field, expected NAME: VALUE",
                              number);
        value = trim((CgiSlice) { colon + 1, line.size - name.size - 1 });
        if (!is_text(value))
                return refuse(ret_problem, "line %u of the header has a control character, expected text",
                              number);

        if (has_name(name, "Location"))
                *redirects = *redirects || is_absolute_uri(value);
        /* An empty value is as good as none (section 6.3). */
        if (!has_name(name, "Status") || value.size == 0)
                return 0;
        if (response->status > 0)
                return refuse(ret_problem, "line %u of the header is another Status, expected one", number);
        if (!parse_status(value, response))
                return refuse(ret_problem, "line %u of the header has a bad Status, expected three digits "
                              "and a reason", number);
        return 0;
}

int cgi_parse_response(const void *data, size_t size, CgiResponse *ret_response, Problem *ret_problem) {
        const char *start = data, *p = start, *newline = NULL;
        CgiResponse response = {};
        bool redirects = false;
        unsigned n_lines = 0;
        int r;

        assert(data || size == 0);
        assert(ret_response);

        if (size == 0)
                return refuse(ret_problem, "no byte, expected a header");

        while ((newline = memchr(p, '\n', size - (size_t) (p - start)))) {
                CgiSlice line = { p, (size_t) (newline - p) };

                if (line.size > 0 && line.data[line.size - 1] == '\r')
                        line.size--;
                if (line.size == 0)
                        break;
                r = parse_line(line, ++n_lines, &response, &redirects, ret_problem);
                if (r < 0)
                        return r;
                p = newline + 1;
        }
        if (!newline)
                return refuse(ret_problem, "no blank line in %zu bytes, expected one behind the header",
                              size);
        if (n_lines == 0)
                return refuse(ret_problem, "a blank line at the start, expected a header");

        if (response.status == 0) {
                response.status = redirects ? 302 : 200;
                response.reason = constant(redirects ? "Found" : "OK"); /* as in section 6.3.3 */
        }
        response.header = (CgiSlice) { start, (size_t) (p - start) };
        response.body = (CgiSlice) { newline + 1, size - (size_t) (newline + 1 - start) };
        *ret_response = response;
        return 0;
}
