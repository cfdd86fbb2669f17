/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What we send is what the specification says, and what is answered is understood, however it is cut; or it is
 * refused with a line that says why. The other side is the codec of the test tools, which shares no code with
 * ours. */

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../tools/fcgi-wire.h"
#include "fcgi.h"
#include "test.h"

#define _cleanup_wire_ _cleanup_(wire_buffer_done)

/* --- tools --- */

static FcgiDecoder *new_decoder(FcgiAwait await, size_t max) {
        FcgiDecoder *d = NULL;

        EXPECT_EQ(fcgi_decoder_new(await, max, max, &d), 0);
        EXPECT(d);
        return d;
}

/* In memory of its own, where a read beyond the end is seen by valgrind and sanitizers. On failure there is a
 * line of text and *ret_taken is untouched; else all is taken, or what is behind the end. */
static int feed(FcgiDecoder *d, const void *data, size_t size, size_t *ret_taken, Problem *ret_problem) {
        _cleanup_free_ char *copy = malloc(size + (size == 0));
        Problem problem = {};
        size_t taken = 12345;
        int r;

        EXPECT(copy);
        if (size > 0)
                memcpy(copy, data, size);
        r = fcgi_decoder_feed(d, copy, size, &taken, &problem);
        EXPECT_EQ(r < 0, problem.text[0] != '\0');
        EXPECT_EQ(r < 0, problem.exit_status != 0);
        EXPECT(!strchr(problem.text, '\n'));
        if (r < 0)
                EXPECT_EQ(taken, 12345);
        else
                EXPECT(taken == size || (r == 1 && taken < size));
        if (ret_taken)
                *ret_taken = taken;
        if (ret_problem)
                *ret_problem = problem;
        return r;
}

static void expect_stream(const FcgiStream *s, const void *data, size_t size) {
        EXPECT_EQ(s->size, size);
        EXPECT(size == 0 || memcmp(s->data, data, size) == 0);
        EXPECT(s->allocated <= 2 * size); /* what was received, never what was announced */
}

static void expect_described(const FcgiDecoder *d, const char *expected) {
        char text[96];

        EXPECT_STREQ(fcgi_decoder_describe(d, text, sizeof(text)), expected);
}

/* One record as an answer; says NULL: it is taken and r returned. */
static void expect_record(FcgiAwait await, const uint8_t *header, const void *content, const char *says) {
        _cleanup_(fcgi_decoder_freep) FcgiDecoder *d = new_decoder(await, 100);
        size_t size = (size_t) header[4] << 8 | header[5];
        Problem problem = {};

        if (says && !content) {
                /* The header alone is enough. */
                EXPECT_EQ(feed(d, header, 7, NULL, NULL), 0);
                EXPECT_EQ(feed(d, header + 7, 1, NULL, &problem), -EBADMSG);
        } else {
                EXPECT_EQ(feed(d, header, 8, NULL, NULL), 0);
                EXPECT_EQ(feed(d, content, size, NULL, &problem), says ? -EBADMSG : 1);
        }
        EXPECT_STREQ(problem.text, says ?: "");
}

/* --- what we send --- */

typedef struct Sent {
        bool keep_connection;
        WireBuffer params, input;
        bool params_ended, input_ended;
        size_t n_records;
} Sent;

static void sent_done(Sent *s) {
        wire_buffer_done(&s->params);
        wire_buffer_done(&s->input);
}

static void take_sent(Sent *s, const WirePiece *piece) {
        static const uint8_t begin[] = { 0, 1, 0, 0, 0, 0, 0, 0 }, begin_kept[] = { 0, 1, 1, 0, 0, 0, 0, 0 };
        WireBuffer *stream = piece->type == WIRE_PARAMS ? &s->params : &s->input;
        bool *ended = piece->type == WIRE_PARAMS ? &s->params_ended : &s->input_ended;

        EXPECT_EQ(piece->id, 1);
        EXPECT(piece->first && piece->last);
        EXPECT(piece->n_record <= 65528);
        if (s->n_records++ == 0) {
                EXPECT_EQ(piece->type, WIRE_BEGIN_REQUEST);
                EXPECT_EQ(piece->n, 8);
                s->keep_connection = memcmp(piece->data, begin_kept, 8) == 0;
                EXPECT(s->keep_connection || memcmp(piece->data, begin, 8) == 0);
                return;
        }
        /* One stream behind the other, each with one end. */
        EXPECT_EQ(piece->type, s->params_ended ? WIRE_STDIN : WIRE_PARAMS);
        EXPECT(!*ended);
        *ended = piece->n == 0;
        wire_buffer_append(stream, piece->data, piece->n);
}

/* Encodes, and reads it as an application would. */
static void expect_sent(const FcgiRequest *request) {
        _cleanup_(sent_done) Sent s = {};
        _cleanup_free_ uint8_t *data = NULL;
        const char *name, *value;
        size_t size, left, n_name, n_value;
        WireDecoder decoder = {};
        WirePiece piece;
        const uint8_t *p;

        EXPECT_EQ(fcgi_encode_request(request, &data, &size), 0);
        EXPECT_EQ(size % 8, 0);
        for (p = data, left = size; left > 0;) {
                EXPECT_EQ((p - data) % 8, 0);
                EXPECT_EQ(wire_decode(&decoder, &p, &left, &piece), 1);
                take_sent(&s, &piece);
                for (; decoder.padding_left > 0; decoder.padding_left--, left--)
                        EXPECT_EQ(*p++, 0);
        }
        EXPECT(wire_decoder_between(&decoder));
        EXPECT(s.params_ended && s.input_ended);
        EXPECT_EQ(s.keep_connection, request->keep_connection);
        EXPECT_EQ(s.input.n, request->input_size);
        EXPECT(s.input.n == 0 || memcmp(s.input.data, request->input, s.input.n) == 0);

        p = s.params.data;
        left = s.params.n;
        for (size_t i = 0; i < request->n_params; i++) {
                EXPECT_EQ(wire_next_pair(&p, &left, &name, &n_name, &value, &n_value), 1);
                EXPECT_EQ(n_name, strlen(request->params[i].name));
                EXPECT_EQ(n_value, strlen(request->params[i].value));
                EXPECT(memcmp(name, request->params[i].name, n_name) == 0);
                EXPECT(memcmp(value, request->params[i].value, n_value) == 0);
        }
        EXPECT_EQ(left, 0);
}

static char *make_text(size_t n) {
        char *s = malloc(n + 1);

        EXPECT(s);
        for (size_t i = 0; i < n; i++)
                s[i] = (char) ('!' + i % 90);
        s[n] = '\0';
        return s;
}

static void request(void) {
        static const size_t sizes[] = { 0, 1, 2, 126, 127, 128, 129, 255, 256, 65519, 65520, 65521, 65527, 65528,
                65529, 65535, 65536, 131055, 131056, 131057, 500000 };
        static const FcgiPair usual[] = {
                { "SCRIPT_FILENAME", "/srv/app" }, { "QUERY_STRING", "" }, { "", "" }, { "A", "1" }, { "A", "2" },
        };

        expect_sent(&(FcgiRequest) {});
        expect_sent(&(FcgiRequest) { .params = usual, .n_params = ELEMENTSOF(usual), .keep_connection = true });
        for (size_t i = 0; i < ELEMENTSOF(sizes); i++) {
                _cleanup_free_ char *text = make_text(sizes[i]);
                const FcgiPair pairs[] = { { text, "x" }, { "y", text } };

                expect_sent(&(FcgiRequest) { .params = pairs, .n_params = 1 });
                expect_sent(&(FcgiRequest) { .params = pairs + 1, .n_params = 1, .keep_connection = true });
                expect_sent(&(FcgiRequest) { .params = pairs, .n_params = 2, .input = text, .input_size = sizes[i] });
                expect_sent(&(FcgiRequest) { .params = usual, .n_params = 2, .input = text, .input_size = sizes[i] });
        }
}

/* The bytes themselves, once: two codecs may have read the specification in the same wrong way. */
static void request_bytes(void) {
        static const uint8_t expected[] = {
                1, 1, 0, 1, 0, 8, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0,
                1, 4, 0, 1, 0, 5, 3, 0, 1, 2, 'N', 'v', 'w', 0, 0, 0,
                1, 4, 0, 1, 0, 0, 0, 0,
                1, 5, 0, 1, 0, 1, 7, 0, 'i', 0, 0, 0, 0, 0, 0, 0,
                1, 5, 0, 1, 0, 0, 0, 0,
        };
        static const FcgiPair pair = { "N", "vw" };
        _cleanup_free_ uint8_t *data = NULL;
        size_t size;

        EXPECT_EQ(fcgi_encode_request(&(FcgiRequest) { .params = &pair, .n_params = 1, .input = "i", .input_size = 1,
                                                       .keep_connection = true }, &data, &size), 0);
        EXPECT_EQ(size, sizeof(expected));
        EXPECT(memcmp(data, expected, size) == 0);
}

/* One byte up to 127, else four. */
static void request_lengths(void) {
        static const uint8_t shorter[] = { 1, 4, 0, 1, 0, 129, 7, 0, 0, 127, '!' };
        static const uint8_t longer[] = { 1, 4, 0, 1, 0, 133, 3, 0, 0, 128, 0, 0, 128, '!' };
        _cleanup_free_ uint8_t *data = NULL, *more = NULL;
        _cleanup_free_ char *text = make_text(128);
        FcgiPair pair = { "", text + 1 };
        size_t size;

        text[1] = '!';
        EXPECT_EQ(fcgi_encode_request(&(FcgiRequest) { .params = &pair, .n_params = 1 }, &data, &size), 0);
        EXPECT(memcmp(data + 16, shorter, sizeof(shorter)) == 0);
        pair.value = text;
        EXPECT_EQ(fcgi_encode_request(&(FcgiRequest) { .params = &pair, .n_params = 1 }, &more, &size), 0);
        EXPECT(memcmp(more + 16, longer, sizeof(longer)) == 0);
}

static void request_limits(void) {
        /* A pair of an empty name and a value of n bytes takes 5 + n. */
        _cleanup_free_ char *text = make_text(FCGI_PARAMS_SIZE_MAX);
        FcgiPair pairs[] = { { "", text }, { "", "" } };
        uint8_t untouched, *data = &untouched;
        size_t size = 42;

        text[FCGI_PARAMS_SIZE_MAX - 5] = '\0';
        expect_sent(&(FcgiRequest) { .params = pairs, .n_params = 1 });
        EXPECT_EQ(fcgi_encode_request(&(FcgiRequest) { .params = pairs, .n_params = 2 }, &data, &size), -E2BIG);
        text[FCGI_PARAMS_SIZE_MAX - 7] = '\0';
        expect_sent(&(FcgiRequest) { .params = pairs, .n_params = 2 });
        text[FCGI_PARAMS_SIZE_MAX - 7] = 'x';
        text[FCGI_PARAMS_SIZE_MAX - 5] = 'x';
        text[FCGI_PARAMS_SIZE_MAX - 4] = '\0';
        EXPECT_EQ(fcgi_encode_request(&(FcgiRequest) { .params = pairs, .n_params = 1 }, &data, &size), -E2BIG);
        EXPECT(data == &untouched);
        EXPECT_EQ(size, 42);
}

static void get_values(void) {
        static const char *const names[] = { "FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS" };
        static const uint8_t nothing[] = { 1, 9, 0, 0, 0, 0, 0, 0 };
        _cleanup_free_ uint8_t *data = NULL, *empty = NULL, *large = NULL;
        _cleanup_free_ char *text = make_text(65523);
        const char *name, *value, *long_names[] = { text, "" };
        size_t size, n_name, n_value;
        WireDecoder decoder = {};
        WirePiece piece;
        const uint8_t *p;

        EXPECT_EQ(fcgi_encode_get_values(names, ELEMENTSOF(names), &data, &size), 0);
        EXPECT_EQ(size % 8, 0);
        p = data;
        EXPECT_EQ(wire_decode(&decoder, &p, &size, &piece), 1);
        EXPECT(piece.type == WIRE_GET_VALUES && piece.id == 0 && piece.last);
        EXPECT_EQ(size, decoder.padding_left);
        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                EXPECT_EQ(wire_next_pair(&piece.data, &piece.n, &name, &n_name, &value, &n_value), 1);
                EXPECT(n_name == strlen(names[i]) && memcmp(name, names[i], n_name) == 0);
                EXPECT_EQ(n_value, 0);
        }
        EXPECT_EQ(piece.n, 0);

        EXPECT_EQ(fcgi_encode_get_values(NULL, 0, &empty, &size), 0);
        EXPECT_EQ(size, sizeof(nothing));
        EXPECT(memcmp(empty, nothing, size) == 0);

        EXPECT_EQ(fcgi_encode_get_values(long_names, 1, &large, &size), 0);
        EXPECT_EQ(size, 8 + 65528);
        EXPECT_EQ(fcgi_encode_get_values(long_names, 2, &empty, &size), -E2BIG);
}

/* --- what is answered --- */

/* A response with both streams mixed, odd padding, empty records, values and the end: 255 bytes at most. */
static void put_response(WireBuffer *b, WireBuffer *output, WireBuffer *errors) {
        static const char pairs[] = "\1\1A1";

        wire_put_record(b, WIRE_STDERR, 1, "oh", 2, 0);
        wire_put_record(b, WIRE_STDOUT, 1, "Status: 200\r\n", 13, 3);
        wire_put_record(b, WIRE_GET_VALUES_RESULT, 0, pairs, 4, 1);
        wire_put_record(b, WIRE_STDOUT, 1, "", 0, 2);
        wire_put_record(b, WIRE_STDERR, 1, " dear", 5, 11);
        wire_put_record(b, WIRE_STDOUT, 1, "\r\nbody", 6, 0);
        wire_put_record(b, WIRE_STDERR, 1, "", 0, 0);
        wire_put_record(b, WIRE_STDOUT, 1, "", 0, 0);
        wire_put_record(b, WIRE_END_REQUEST, 1, "\1\2\3\4\0xyz", 8, 5);
        wire_buffer_append(output, "Status: 200\r\n\r\nbody", 19);
        wire_buffer_append(errors, "oh dear", 7);
}

static void expect_response(const FcgiDecoder *d, const WireBuffer *output, const WireBuffer *errors) {
        const FcgiAnswer *a = fcgi_decoder_get_answer(d);

        expect_stream(&a->output, output->data, output->n);
        expect_stream(&a->errors, errors->data, errors->n);
        EXPECT(!a->output.truncated && !a->errors.truncated);
        EXPECT_EQ(a->app_status, 0x01020304);
        EXPECT_EQ(a->protocol_status, FCGI_REQUEST_COMPLETE);
        EXPECT_EQ(a->n_values, 1);
        EXPECT_STREQ(a->values[0].name, "A");
        EXPECT_STREQ(a->values[0].value, "1");
        EXPECT_EQ(a->unknown_type, 0);
        expect_described(d, "after the end");
}

/* Cut in every two places, and everywhere. */
static void cut(void) {
        _cleanup_wire_ WireBuffer b = {}, output = {}, errors = {};
        _cleanup_(fcgi_decoder_freep) FcgiDecoder *slow = new_decoder(FCGI_AWAIT_END, SIZE_MAX);

        put_response(&b, &output, &errors);
        for (size_t i = 0; i <= b.n; i++)
                for (size_t j = i; j <= b.n; j++) {
                        _cleanup_(fcgi_decoder_freep) FcgiDecoder *d = new_decoder(FCGI_AWAIT_END, 1000);

                        EXPECT_EQ(feed(d, b.data, i, NULL, NULL), i == b.n);
                        EXPECT_EQ(feed(d, b.data + i, j - i, NULL, NULL), j == b.n);
                        EXPECT_EQ(feed(d, b.data + j, b.n - j, NULL, NULL), 1);
                        expect_response(d, &output, &errors);
                }

        for (size_t i = 0; i < b.n; i++)
                EXPECT_EQ(feed(slow, b.data + i, 1, NULL, NULL), i == b.n - 1);
        expect_response(slow, &output, &errors);
}

static void padding(void) {
        for (unsigned n = 0; n <= 255; n++) {
                _cleanup_(fcgi_decoder_freep) FcgiDecoder *d = new_decoder(FCGI_AWAIT_END, 100);
                _cleanup_wire_ WireBuffer b = {};

                wire_put_record(&b, WIRE_STDOUT, 1, "a", 1, n);
                wire_put_record(&b, WIRE_STDOUT, 1, "b", 1, 255 - n);
                wire_put_record(&b, WIRE_END_REQUEST, 1, "\0\0\0\0\0\0\0\0", 8, n);
                memset(b.data + 9, 1, n); /* ignored, whatever it is (section 3.3) */
                EXPECT_EQ(feed(d, b.data, b.n - 1, NULL, NULL), 0);
                EXPECT_EQ(feed(d, b.data + b.n - 1, 1, NULL, NULL), 1);
                expect_stream(&fcgi_decoder_get_answer(d)->output, "ab", 2);
        }
}

/* Random streams in random records through the other codec, in random pieces through ours. */
static void random_streams(void) {
        unsigned seed = 1;

        for (unsigned round = 0; round < 200; round++) {
                _cleanup_(fcgi_decoder_freep) FcgiDecoder *d = new_decoder(FCGI_AWAIT_END_KEPT, SIZE_MAX);
                _cleanup_wire_ WireBuffer b = {}, output = {}, errors = {};
                size_t taken = 0;
                int r = 0;

                for (unsigned k = 0; k < 8; k++) {
                        size_t n = (size_t) rand_r(&seed) % (round % 20 == 0 ? 65536 : 300);
                        bool is_error = rand_r(&seed) % 2;
                        uint8_t *p = wire_buffer_extend(is_error ? &errors : &output, n);

                        for (size_t i = 0; i < n; i++)
                                p[i] = (uint8_t) rand_r(&seed);
                        wire_put_record(&b, is_error ? WIRE_STDERR : WIRE_STDOUT, 1, p, n, (unsigned) rand_r(&seed) % 256);
                }
                wire_put_end(&b, 1, round, round % 4);

                for (size_t n; taken < b.n; taken += n) {
                        n = (size_t) rand_r(&seed) % (round % 20 == 0 ? 20000 : 100);
                        n = MIN_OF(n, b.n - taken);
                        EXPECT_EQ(r, 0);
                        r = feed(d, b.data + taken, n, NULL, NULL);
                }
                EXPECT_EQ(r, 1);
                expect_stream(&fcgi_decoder_get_answer(d)->output, output.data, output.n);
                expect_stream(&fcgi_decoder_get_answer(d)->errors, errors.data, errors.n);
                EXPECT_EQ(fcgi_decoder_get_answer(d)->app_status, round);
                EXPECT_EQ(fcgi_decoder_get_answer(d)->protocol_status, round % 4);
        }
}

static void stream_limits(void) {
        for (size_t max = 0; max <= 7; max++)
                for (size_t piece = 1; piece <= 7; piece++) {
                        _cleanup_(fcgi_decoder_freep) FcgiDecoder *d = NULL;
                        _cleanup_wire_ WireBuffer b = {};
                        const FcgiAnswer *a;

                        EXPECT_EQ(fcgi_decoder_new(FCGI_AWAIT_END, max, 7 - max, &d), 0);
                        wire_put_record(&b, WIRE_STDOUT, 1, "abc", 3, 0);
                        wire_put_record(&b, WIRE_STDERR, 1, "uvwxyz", 6, 0);
                        wire_put_record(&b, WIRE_STDOUT, 1, "def", 3, 0);
                        wire_put_end(&b, 1, 0, 0);
                        for (size_t i = 0; i < b.n; i += piece)
                                EXPECT_EQ(feed(d, b.data + i, MIN_OF(piece, b.n - i), NULL, NULL), i + piece >= b.n);

                        a = fcgi_decoder_get_answer(d);
                        expect_stream(&a->output, "abcdef", MIN_OF(max, (size_t) 6));
                        expect_stream(&a->errors, "uvwxyz", MIN_OF(7 - max, (size_t) 6));
                        EXPECT_EQ(a->output.truncated, max < 6);
                        EXPECT_EQ(a->errors.truncated, 7 - max < 6);
                        EXPECT_EQ(a->output.data == NULL, max == 0);
                        EXPECT(a->output.allocated <= max);
                }
}

/* Every type, each for several requests, in every mode. */
static void types(void) {
        static const unsigned ids[] = { 0, 1, 2, 256, 257, 65535 };

        for (unsigned type = 0; type < 256; type++)
                for (size_t i = 0; i < ELEMENTSOF(ids); i++)
                        for (unsigned await = 0; await < _FCGI_AWAIT_MAX; await++) {
                                _cleanup_(fcgi_decoder_freep) FcgiDecoder *d = new_decoder((FcgiAwait) await, 100);
                                const uint8_t record[16] = { 1, (uint8_t) type, (uint8_t) (ids[i] >> 8), (uint8_t) ids[i],
                                        0, 8, 0, 0 };
                                bool management = type == WIRE_GET_VALUES_RESULT || type == WIRE_UNKNOWN_TYPE;
                                bool application = type == WIRE_STDOUT || type == WIRE_STDERR || type == WIRE_END_REQUEST;
                                bool fine = (management && ids[i] == 0) ||
                                        (application && ids[i] == 1 && await != FCGI_AWAIT_VALUES);
                                bool ends = await == FCGI_AWAIT_VALUES ? management : type == WIRE_END_REQUEST;

                                EXPECT_EQ(feed(d, record, sizeof(record), NULL, NULL), !fine ? -EBADMSG : ends);
                        }
}

static void refusals(void) {
        expect_record(FCGI_AWAIT_END, (uint8_t[]) { 'H', 'T', 'T', 'P', '/', '1', '.', '1' }, NULL,
                      "record of FastCGI version 72, expected 1");
        expect_record(FCGI_AWAIT_END, (uint8_t[]) { 0, 6, 0, 1, 0, 0, 0, 0 }, NULL,
                      "record of FastCGI version 0, expected 1");
        expect_record(FCGI_AWAIT_END, (uint8_t[]) { 1, 77, 0, 1, 0, 0, 0, 0 }, NULL,
                      "record of type 77, expected FCGI_STDOUT, FCGI_STDERR or FCGI_END_REQUEST");
        expect_record(FCGI_AWAIT_VALUES, (uint8_t[]) { 1, 12, 0, 0, 0, 0, 0, 0 }, NULL,
                      "record of type 12, expected FCGI_GET_VALUES_RESULT");
        expect_record(FCGI_AWAIT_END_KEPT, (uint8_t[]) { 1, 5, 0, 1, 0, 0, 0, 0 }, NULL,
                      "FCGI_STDIN from the application, expected FCGI_STDOUT, FCGI_STDERR or FCGI_END_REQUEST");
        expect_record(FCGI_AWAIT_VALUES, (uint8_t[]) { 1, 6, 0, 1, 0, 0, 0, 0 }, NULL,
                      "FCGI_STDOUT from the application, expected FCGI_GET_VALUES_RESULT");
        expect_record(FCGI_AWAIT_END, (uint8_t[]) { 1, 6, 1, 2, 0, 0, 0, 0 }, NULL,
                      "FCGI_STDOUT for request 258, expected 1");
        expect_record(FCGI_AWAIT_END, (uint8_t[]) { 1, 10, 0, 1, 0, 0, 0, 0 }, NULL,
                      "FCGI_GET_VALUES_RESULT for request 1, expected 0");
        expect_record(FCGI_AWAIT_END, (uint8_t[]) { 1, 3, 0, 1, 0, 7, 0, 0 }, NULL,
                      "FCGI_END_REQUEST of 7 bytes, expected 8");
        expect_record(FCGI_AWAIT_END, (uint8_t[]) { 1, 3, 0, 1, 1, 8, 0, 0 }, NULL,
                      "FCGI_END_REQUEST of 264 bytes, expected 8");
        expect_record(FCGI_AWAIT_VALUES, (uint8_t[]) { 1, 11, 0, 0, 0, 0, 0, 0 }, NULL,
                      "FCGI_UNKNOWN_TYPE of 0 bytes, expected 8");
        expect_record(FCGI_AWAIT_VALUES, (uint8_t[]) { 1, 10, 0, 0, 4, 1, 0, 0 }, NULL,
                      "FCGI_GET_VALUES_RESULT of 1025 bytes, expected at most 1024");
        expect_record(FCGI_AWAIT_END, (uint8_t[]) { 1, 3, 0, 1, 0, 8, 0, 0 }, "\0\0\0\0\3\0\0\0", NULL);
        expect_record(FCGI_AWAIT_END, (uint8_t[]) { 1, 3, 0, 1, 0, 8, 0, 0 }, "\0\0\0\0\4\0\0\0",
                      "FCGI_END_REQUEST with protocol status 4, expected 0 to 3");
}

/* On a connection that is kept the rest is left, else nothing may follow. */
static void behind_the_end(void) {
        _cleanup_wire_ WireBuffer b = {};
        size_t taken, end;

        wire_put_stream(&b, WIRE_STDOUT, 1, "x", 1);
        wire_put_record(&b, WIRE_END_REQUEST, 1, "\0\0\0\0\0\0\0\0", 8, 8);
        end = b.n;
        wire_put_end(&b, 1, 1, 1);

        for (size_t n = end; n <= b.n; n++)
                for (size_t split = 0; split <= n; split++) {
                        _cleanup_(fcgi_decoder_freep) FcgiDecoder *kept = new_decoder(FCGI_AWAIT_END_KEPT, 9);
                        _cleanup_(fcgi_decoder_freep) FcgiDecoder *closed = new_decoder(FCGI_AWAIT_END, 9);
                        Problem problem = {};
                        int r;

                        EXPECT_EQ(feed(kept, b.data, split, &taken, NULL), split >= end);
                        EXPECT_EQ(taken, MIN_OF(split, end));
                        EXPECT_EQ(feed(kept, b.data + split, n - split, &taken, NULL), 1);
                        EXPECT_EQ(taken, end - MIN_OF(split, end));
                        EXPECT_EQ(fcgi_decoder_get_answer(kept)->app_status, 0);

                        r = feed(closed, b.data, split, NULL, &problem);
                        EXPECT_EQ(r, split > end ? -EBADMSG : split == end);
                        if (r >= 0)
                                EXPECT_EQ(feed(closed, b.data + split, n - split, NULL, &problem), n > end ? -EBADMSG : 1);
                        EXPECT_STREQ(problem.text, n > end ?
                                     "bytes behind FCGI_END_REQUEST, expected the connection to end" : "");
                        EXPECT_EQ(fcgi_decoder_get_answer(closed)->output.size, 1);
                }
}

static void values(void) {
        _cleanup_(fcgi_decoder_freep) FcgiDecoder *d = new_decoder(FCGI_AWAIT_VALUES, 0), *go = NULL, *unknown = NULL;
        _cleanup_wire_ WireBuffer pairs = {}, b = {}, c = {}, u = {};
        const FcgiAnswer *a = fcgi_decoder_get_answer(d);
        _cleanup_free_ char *text = make_text(200);
        size_t taken;

        wire_put_pair(&pairs, "FCGI_MAX_CONNS", "10");
        wire_put_pair(&pairs, "", "");
        wire_put_pair(&pairs, text, "x");
        wire_put_pair(&pairs, "y", text);
        wire_put_pair(&pairs, "FCGI_MPXS_CONNS", "1");
        wire_put_record(&b, WIRE_GET_VALUES_RESULT, 0, pairs.data, pairs.n, 7);
        for (size_t i = 0; i < b.n; i++)
                EXPECT_EQ(feed(d, b.data + i, 1, NULL, NULL), i == b.n - 1);
        EXPECT_EQ(a->n_values, 5);
        EXPECT_STREQ(a->values[0].name, "FCGI_MAX_CONNS");
        EXPECT_STREQ(a->values[0].value, "10");
        EXPECT_STREQ(a->values[1].name, "");
        EXPECT_STREQ(a->values[1].value, "");
        EXPECT_STREQ(a->values[2].name, text);
        EXPECT_STREQ(a->values[2].value, "x");
        EXPECT_STREQ(a->values[3].name, "y");
        EXPECT_STREQ(a->values[3].value, text);
        EXPECT_STREQ(a->values[4].name, "FCGI_MPXS_CONNS");
        EXPECT_STREQ(a->values[4].value, "1");

        /* As Go does it. What is left is no harm to the request that comes next. */
        go = new_decoder(FCGI_AWAIT_VALUES, 0);
        wire_put_record(&c, WIRE_GET_VALUES_RESULT, 0, "\1\1A1", 4, 4);
        wire_put_record(&c, WIRE_GET_VALUES_RESULT, 0, NULL, 0, 0);
        EXPECT_EQ(feed(go, c.data, c.n, &taken, NULL), 1);
        EXPECT_EQ(taken, 16);
        EXPECT_EQ(fcgi_decoder_get_answer(go)->n_values, 1);
        go = fcgi_decoder_free(go);
        go = new_decoder(FCGI_AWAIT_END_KEPT, 0);
        EXPECT_EQ(feed(go, c.data + taken, c.n - taken, NULL, NULL), 0);
        EXPECT_EQ(fcgi_decoder_get_answer(go)->n_values, 0);

        unknown = new_decoder(FCGI_AWAIT_VALUES, 0);
        wire_put_record(&u, WIRE_UNKNOWN_TYPE, 0, "\11\1\2\3\4\5\6\7", 8, 1);
        EXPECT_EQ(feed(unknown, u.data, u.n, NULL, NULL), 1);
        EXPECT_EQ(fcgi_decoder_get_answer(unknown)->unknown_type, WIRE_GET_VALUES);
        EXPECT_EQ(fcgi_decoder_get_answer(unknown)->n_values, 0);
}

static void values_refused(void) {
        static const struct {
                const char *content;
                uint8_t size;
        } cut_short[] = {
                { "\1", 1 }, { "\1\1", 2 }, { "\1\1A", 3 }, { "\1\0", 2 }, { "\200", 1 }, { "\200\0\0", 3 },
                { "\200\0\0\1", 4 }, { "\1\200\0\0", 4 }, { "\1\200\0\0\1A", 6 }, { "\0\1", 2 },
                { "\377\377\377\377\377\377\377\377", 8 },
                { "\1\377\377\377\377A", 6 }, { "\0\0\1", 3 },
        };
        _cleanup_(fcgi_decoder_freep) FcgiDecoder *full = new_decoder(FCGI_AWAIT_END_KEPT, 0), *many = NULL;
        _cleanup_wire_ WireBuffer pairs = {}, b = {}, m = {};
        _cleanup_free_ char *text = make_text(1000);
        Problem problem;

        for (size_t i = 0; i < ELEMENTSOF(cut_short); i++)
                expect_record(FCGI_AWAIT_VALUES, (uint8_t[]) { 1, 10, 0, 0, 0, cut_short[i].size, 0, 0 },
                              cut_short[i].content, "FCGI_GET_VALUES_RESULT ends inside a pair, expected whole ones");
        expect_record(FCGI_AWAIT_VALUES, (uint8_t[]) { 1, 10, 0, 0, 0, 4, 0, 0 }, "\1\1A",
                      "FCGI_GET_VALUES_RESULT with a NUL, expected text");
        expect_record(FCGI_AWAIT_VALUES, (uint8_t[]) { 1, 10, 0, 0, 0, 4, 0, 0 }, "\1\1\0A",
                      "FCGI_GET_VALUES_RESULT with a NUL, expected text");

        /* As large as they may be, in two records; then nothing but empty ones is taken. */
        wire_put_pair(&pairs, "A", text); /* 1006 bytes */
        wire_put_record(&b, WIRE_GET_VALUES_RESULT, 0, pairs.data, pairs.n, 0);
        wire_put_record(&b, WIRE_GET_VALUES_RESULT, 0, "\1\17B0123456789abcde", 18, 0);
        wire_put_record(&b, WIRE_GET_VALUES_RESULT, 0, NULL, 0, 0);
        EXPECT_EQ(feed(full, b.data, b.n, NULL, NULL), 0);
        EXPECT_EQ(fcgi_decoder_get_answer(full)->n_values, 2);
        EXPECT_STREQ(fcgi_decoder_get_answer(full)->values[0].value, text);
        EXPECT_STREQ(fcgi_decoder_get_answer(full)->values[1].value, "0123456789abcde");
        EXPECT_EQ(feed(full, "\1\12\0\0\0\2\0\0", 8, NULL, &problem), -EBADMSG);
        EXPECT_STREQ(problem.text, "FCGI_GET_VALUES_RESULT of 2 bytes, expected at most 0");

        many = new_decoder(FCGI_AWAIT_VALUES, 0);
        wire_put_record(&m, WIRE_GET_VALUES_RESULT, 0, (uint8_t[2 * (FCGI_VALUES_MAX + 1)]) {},
                        2 * (FCGI_VALUES_MAX + 1), 0);
        EXPECT_EQ(feed(many, m.data, m.n, NULL, &problem), -EBADMSG);
        EXPECT_STREQ(problem.text, "FCGI_GET_VALUES_RESULT with more than 16 pairs, expected at most that");
        EXPECT_EQ(fcgi_decoder_get_answer(many)->n_values, FCGI_VALUES_MAX);
}

static void described(void) {
        static const struct {
                size_t until; /* exclusive */
                const char *text;
        } expected[] = {
                { 1, "after nothing" },
                { 8, "in the header of a record" },
                { 9, "in a record of type FCGI_STDOUT, after 0 of 2 bytes" },
                { 10, "in a record of type FCGI_STDOUT, after 1 of 2 bytes" },
                { 12, "in the padding of a record of type FCGI_STDOUT" },
                { 13, "after a record of type FCGI_STDOUT" },
                { 20, "in the header of a record" },
                { 21, "after a record of type FCGI_STDERR" },
                { 28, "in the header of a record" },
                { 29, "in the padding of a record of type FCGI_STDERR" },
                { 30, "after a record of type FCGI_STDERR" },
                { 37, "in the header of a record" },
                { 38, "in a record of type FCGI_END_REQUEST, after 0 of 8 bytes" },
        };
        _cleanup_(fcgi_decoder_freep) FcgiDecoder *d = new_decoder(FCGI_AWAIT_END, 10);
        _cleanup_(fcgi_decoder_freep) FcgiDecoder *longest = new_decoder(FCGI_AWAIT_END, 10);
        _cleanup_wire_ WireBuffer b = {};
        size_t n = 0;
        char small[6];

        wire_put_record(&b, WIRE_STDOUT, 1, "ab", 2, 2);
        wire_put_record(&b, WIRE_STDERR, 1, NULL, 0, 0);
        wire_put_record(&b, WIRE_STDERR, 1, NULL, 0, 1);
        wire_put_end(&b, 1, 0, 0);
        for (size_t i = 0; i < ELEMENTSOF(expected); i++)
                for (; n < expected[i].until; n++) {
                        expect_described(d, expected[i].text);
                        EXPECT_EQ(feed(d, b.data + n, 1, NULL, NULL), 0);
                }
        EXPECT_EQ(feed(d, b.data + n, b.n - n, NULL, NULL), 1);
        expect_described(d, "after the end");
        EXPECT_STREQ(fcgi_decoder_describe(d, small, sizeof(small)), "after");

        /* An unknown type in half a header is not looked up. */
        d = fcgi_decoder_free(d);
        d = new_decoder(FCGI_AWAIT_END, 10);
        EXPECT_EQ(feed(d, "\1\377", 2, NULL, NULL), 0);
        expect_described(d, "in the header of a record");

        EXPECT_EQ(feed(longest, "\1\12\0\0\4\0\0\0", 8, NULL, NULL), 0);
        EXPECT_EQ(feed(longest, (char[1023]) {}, 1023, NULL, NULL), 0);
        expect_described(longest, "in a record of type FCGI_GET_VALUES_RESULT, after 1023 of 1024 bytes");
}

static void names(void) {
        EXPECT_STREQ(fcgi_protocol_status_to_string(FCGI_REQUEST_COMPLETE), "FCGI_REQUEST_COMPLETE");
        EXPECT_STREQ(fcgi_protocol_status_to_string((FcgiProtocolStatus) 1), "FCGI_CANT_MPX_CONN");
        EXPECT_STREQ(fcgi_protocol_status_to_string((FcgiProtocolStatus) 2), "FCGI_OVERLOADED");
        EXPECT_STREQ(fcgi_protocol_status_to_string((FcgiProtocolStatus) 3), "FCGI_UNKNOWN_ROLE");
}

/* --- without memory --- */

/* Feeds a stream that ends in -ENOMEM; what was there before is still there. */
static _noreturn_ void exhaust(void) {
        static const uint8_t header[] = { 1, 6, 0, 1, 255, 255, 0, 0 };
        static const char content[65535] = "first";
        FcgiDecoder *d = new_decoder(FCGI_AWAIT_END, SIZE_MAX);
        const FcgiAnswer *a = fcgi_decoder_get_answer(d);
        struct rlimit limit = { 256 << 20, 256 << 20 };
        Problem problem = {};
        size_t size = 0;
        int r = 0;

        EXPECT_EQ(setrlimit(RLIMIT_AS, &limit), 0);
        while (r == 0 && size < 512 << 20) {
                size = a->output.size;
                r = fcgi_decoder_feed(d, header, sizeof(header), NULL, &problem);
                if (r == 0)
                        r = fcgi_decoder_feed(d, content, sizeof(content), NULL, &problem);
        }
        EXPECT_EQ(r, -ENOMEM);
        EXPECT_STREQ(problem.text, "out of memory");
        EXPECT_EQ(a->output.size, size);
        EXPECT(memcmp(a->output.data, "first", 5) == 0);
        _exit(EXIT_SUCCESS);
}

static void no_memory(void) {
        int status;
        pid_t pid;

        if (is_sanitized() || is_under_valgrind())
                SKIP("the rest needs a limit of memory, which sanitizers and valgrind do not live with");

        pid = fork();
        EXPECT(pid >= 0);
        if (pid == 0)
                exhaust();
        EXPECT_EQ(waitpid(pid, &status, 0), pid);
        EXPECT_EQ(status, 0);
}

TEST_MAIN(TEST(request), TEST(request_bytes), TEST(request_lengths), TEST(request_limits), TEST(get_values), TEST(cut),
          TEST(padding), TEST(random_streams), TEST(stream_limits), TEST(types), TEST(refusals), TEST(behind_the_end),
          TEST(values), TEST(values_refused), TEST(described), TEST(names), TEST(no_memory))
