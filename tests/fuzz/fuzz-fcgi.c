/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Whatever an application sends, in whatever pieces, the verdict is the same as for all of it at once: an answer
 * that keeps its promises, or one line of text. What we send is read by the other codec as what it was. The first
 * character says what the rest is:
 *   d  an answer: what is awaited, the limits of both streams, four sizes of pieces, then the bytes
 *   e  a request: one parameter NAME=VALUE per line, then a form feed and the input
 *   v  the names of values, one per line
 *   c  a CGI response */

#include <stdio.h>

#include "../tools/fcgi-wire.h"
#include "cgi.h"
#include "fcgi.h"

#define INPUT_MAX (1U << 20)
#define PAIRS_MAX 64U
#define _cleanup_wire_ _cleanup_(wire_buffer_done)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Unlike assert() not about the fuzzer's own mistakes: says what the product got wrong. */
static void promise(bool kept, const char *what) {
        if (kept)
                return;

        fprintf(stderr, "broken promise: %s\n", what);
        abort();
}

static void check_text(const char *text) {
        promise(text[0] != '\0', "a text");
        for (const char *c = text; *c; c++)
                promise(*c >= ' ' && *c <= '~', "one line without control characters");
}

static void check_problem(int error, const Problem *problem) {
        promise(error == -EBADMSG, "error");
        promise(problem->exit_status == EXIT_STATUS_UNAVAILABLE, "exit status");
        promise(strlen(problem->text) < sizeof(problem->text) - 1, "a text that is not cut off");
        check_text(problem->text);
}

/* --- decoding --- */

static void check_stream(const FcgiStream *s, size_t size) {
        promise(s->size <= s->max && s->size <= size, "no more than wanted, and than received");
        promise(s->allocated <= 2 * s->size && s->allocated <= s->max, "memory for what was received");
        promise(!s->truncated || s->size == s->max, "cut at the limit");
}

static void check_answer(const FcgiAnswer *a, size_t size) {
        check_stream(&a->output, size);
        check_stream(&a->errors, size);
        promise(a->protocol_status < _FCGI_PROTOCOL_STATUS_MAX, "protocol status");
        promise(a->n_values <= FCGI_VALUES_MAX, "number of values");
        promise(a->unknown_type <= UINT8_MAX, "unknown type");
}

static bool same_stream(const FcgiStream *a, const FcgiStream *b) {
        return a->size == b->size && a->truncated == b->truncated &&
                (a->size == 0 || memcmp(a->data, b->data, a->size) == 0);
}

static void check_same(const FcgiAnswer *a, const FcgiAnswer *b) {
        promise(same_stream(&a->output, &b->output) && same_stream(&a->errors, &b->errors), "the same streams");
        promise(a->app_status == b->app_status && a->protocol_status == b->protocol_status &&
                a->unknown_type == b->unknown_type, "the same end");
        promise(a->n_values == b->n_values, "as many values");
        for (size_t i = 0; i < a->n_values; i++)
                promise(streq(a->values[i].name, b->values[i].name) && streq(a->values[i].value, b->values[i].value),
                        "the same values");
}

/* Pieces of the four sizes in turn, 0 included. Returns what one call for all of it should. */
static int feed_pieces(FcgiDecoder *d, const uint8_t pieces[static 4], const uint8_t *data, size_t size,
                       size_t *ret_taken, Problem *ret_problem) {
        bool stuck = pieces[0] == 0 && pieces[1] == 0 && pieces[2] == 0 && pieces[3] == 0;
        size_t taken = 0, n, k;
        char text[96];
        int r = 0;

        for (size_t i = 0; taken < size; i++) {
                n = MIN_OF((size_t) pieces[i % 4] + stuck, size - taken);
                r = fcgi_decoder_feed(d, data + taken, n, &k, ret_problem);
                if (r < 0)
                        return r;
                check_text(fcgi_decoder_describe(d, text, sizeof(text)));
                promise(strlen(text) < sizeof(text) - 1, "96 bytes suffice");
                promise(k == n || r == 1, "all is taken until the end");
                if (n > 0 && k == 0)
                        break;
                taken += k;
        }
        *ret_taken = taken;
        return r;
}

static void decode(const uint8_t *data, size_t size) {
        _cleanup_(fcgi_decoder_freep) FcgiDecoder *whole = NULL, *cut = NULL;
        Problem problem = {}, cut_problem = {};
        size_t taken = 0, cut_taken = 0;
        struct {
                uint8_t await, output_max, errors_max, pieces[4];
        } head;
        int r;

        if (size < sizeof(head))
                return;
        memcpy(&head, data, sizeof(head));
        data += sizeof(head);
        size -= sizeof(head);

        r = fcgi_decoder_new((FcgiAwait) (head.await % _FCGI_AWAIT_MAX), head.output_max, head.errors_max, &whole);
        assert(r == 0);
        r = fcgi_decoder_new((FcgiAwait) (head.await % _FCGI_AWAIT_MAX), head.output_max, head.errors_max, &cut);
        assert(r == 0);

        r = fcgi_decoder_feed(whole, data, size, &taken, &problem);
        check_answer(fcgi_decoder_get_answer(whole), size);
        promise(taken <= size, "taken");
        if (r < 0)
                check_problem(r, &problem);

        promise(feed_pieces(cut, head.pieces, data, size, &cut_taken, &cut_problem) == r, "the same verdict");
        promise(cut_taken == taken, "as much taken");
        promise(streq(problem.text, cut_problem.text), "the same text");
        check_answer(fcgi_decoder_get_answer(cut), size);
        check_same(fcgi_decoder_get_answer(whole), fcgi_decoder_get_answer(cut));
}

/* --- encoding --- */

static void check_pair(WireBuffer *content, size_t *offset, const FcgiPair *expected) {
        const char *name, *value;
        size_t left = content->n - *offset, n_name, n_value;
        const uint8_t *p = content->data + *offset;

        promise(wire_next_pair(&p, &left, &name, &n_name, &value, &n_value) == 1, "a pair");
        promise(n_name == strlen(expected->name) && memcmp(name, expected->name, n_name) == 0, "its name");
        promise(n_value == strlen(expected->value) && memcmp(value, expected->value, n_value) == 0, "its value");
        *offset = content->n - left;
}

/* Collects what is in the records of a type, with one empty record behind them. */
static void collect(const uint8_t *data, size_t size, unsigned type, WireBuffer *ret) {
        WireDecoder decoder = {};
        unsigned n_ends = 0;
        WirePiece piece;

        while (wire_decode(&decoder, &data, &size, &piece) == 1) {
                if (piece.type != type)
                        continue;
                promise(piece.id == 1 && n_ends == 0, "a stream of request 1 that goes on");
                n_ends += piece.n_record == 0;
                wire_buffer_append(ret, piece.data, piece.n);
        }
        promise(size == 0 && decoder.n_header == 0 && decoder.content_left == 0, "whole records");
        promise(n_ends == 1, "a stream that ends");
}

static void encode(char *text, size_t size) {
        char *end = text + strlen(text), *feed = strchr(text, '\f');
        _cleanup_wire_ WireBuffer params = {}, input = {};
        _cleanup_free_ uint8_t *data = NULL;
        FcgiPair pairs[PAIRS_MAX];
        FcgiRequest request = { .params = pairs, .keep_connection = size % 2 };
        size_t n, offset = 0;

        if (feed) {
                *feed = '\0';
                request.input = feed + 1;
                request.input_size = (size_t) (end - feed - 1);
        }
        for (char *line = text, *next; line && request.n_params < PAIRS_MAX; line = next) {
                char *value;

                next = strchr(line, '\n');
                if (next)
                        *next++ = '\0';
                value = strchr(line, '=');
                if (value)
                        *value++ = '\0';
                pairs[request.n_params++] = (FcgiPair) { .name = line, .value = value ?: "" };
        }

        promise(fcgi_encode_request(&request, &data, &n) == 0, "a request of that size can be written");
        promise(n % 8 == 0, "a multiple of 8 bytes");
        collect(data, n, WIRE_PARAMS, &params);
        collect(data, n, WIRE_STDIN, &input);
        for (size_t i = 0; i < request.n_params; i++)
                check_pair(&params, &offset, pairs + i);
        promise(offset == params.n, "no more pairs");
        promise(input.n == request.input_size, "all input");
        promise(input.n == 0 || memcmp(input.data, request.input, input.n) == 0, "the same input");
}

/* What is asked is answered as an application would, which has only to change the type. */
static void ask(char *text) {
        _cleanup_(fcgi_decoder_freep) FcgiDecoder *d = NULL;
        _cleanup_free_ uint8_t *data = NULL;
        const char *names[PAIRS_MAX];
        const FcgiAnswer *a;
        size_t n_names = 0, n;
        int r;

        for (char *line = text, *next; line && n_names < PAIRS_MAX; line = next) {
                next = strchr(line, '\n');
                if (next)
                        *next++ = '\0';
                names[n_names++] = line;
        }

        r = fcgi_encode_get_values(names, n_names, &data, &n);
        promise(r == 0 || r == -E2BIG, "verdict");
        if (r < 0)
                return;
        promise(data[1] == WIRE_GET_VALUES, "type");
        data[1] = WIRE_GET_VALUES_RESULT;
        r = fcgi_decoder_new(FCGI_AWAIT_VALUES, 0, 0, &d);
        assert(r == 0);
        r = fcgi_decoder_feed(d, data, n, NULL, NULL);
        a = fcgi_decoder_get_answer(d);
        promise(r == 1 || a->n_values == FCGI_VALUES_MAX || n > FCGI_VALUES_SIZE_MAX, "an answer");
        for (size_t i = 0; i < a->n_values; i++)
                promise(streq(a->values[i].name, names[i]) && streq(a->values[i].value, ""), "the same names");
        promise(r < 0 || a->n_values == n_names, "as many names");
}

/* --- the response --- */

static bool is_within(CgiSlice s, const char *data, size_t size) {
        return s.data >= data && s.size <= size && s.data <= data + size - s.size;
}

static void respond(const char *data, size_t size) {
        CgiResponse response;
        Problem problem = {};
        int r;

        r = cgi_parse_response(data, size, &response, &problem);
        if (r < 0) {
                check_problem(r, &problem);
                return;
        }

        promise(response.status >= 100 && response.status <= 999, "status");
        promise(response.header.data == data && response.header.size > 0, "a header at the start");
        promise(is_within(response.body, data, size) && response.body.data + response.body.size == data + size,
                "a body up to the end");
        promise(response.header.data + response.header.size < response.body.data, "a blank line in between");
        for (size_t i = 0; i < response.reason.size; i++)
                promise((unsigned char) response.reason.data[i] >= ' ' || response.reason.data[i] == '\t', "reason");
        /* Without its blank line it is none. */
        promise(cgi_parse_response(data, response.header.size, &response, NULL) == -EBADMSG, "a cut header");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        _cleanup_free_ char *text = NULL;

        if (size < 1 || size > INPUT_MAX)
                return 0;

        text = malloc(size);
        assert(text);
        memcpy(text, data + 1, size - 1);
        text[size - 1] = '\0';

        switch (data[0]) {
        case 'd':
                decode(data + 1, size - 1);
                break;
        case 'e':
                encode(text, size);
                break;
        case 'v':
                ask(text);
                break;
        case 'c':
                respond((const char *) data + 1, size - 1);
                break;
        default:
                break;
        }
        return 0;
}
