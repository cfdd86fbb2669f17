/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* FastCGI as a web server speaks it, one request at a time.
 *
 * The encoder knows the size of everything before it allocates. The content of a record ends at 65528
 * bytes, the largest multiple of 8 that fits, so only the last record of a stream is padded.
 *
 * The decoder is in one of three places of a record: its header, its content, its padding. What a header can
 * be wrong about is checked as soon as it is complete, so content is only ever stored where it has room:
 * streams in memory that grows with them, the rest in place. A record is acted upon behind its last byte,
 * padding included; else the padding of the last one would be found in front of the next answer. */

#include <sys/types.h>

#include "fcgi.h"

#define VERSION 1U
#define REQUEST_ID 1U
#define HEADER_SIZE 8U
#define CONTENT_MAX 65528U /* what we put into a record; others may use 65535 */
#define BODY_SIZE 8U       /* of FCGI_BEGIN_REQUEST, FCGI_END_REQUEST and FCGI_UNKNOWN_TYPE */

#define ROLE_RESPONDER 1U
#define FLAG_KEEP_CONN 1U

/* Section 8. */
enum {
        TYPE_BEGIN_REQUEST = 1,
        TYPE_ABORT_REQUEST,
        TYPE_END_REQUEST,
        TYPE_PARAMS,
        TYPE_STDIN,
        TYPE_STDOUT,
        TYPE_STDERR,
        TYPE_DATA,
        TYPE_GET_VALUES,
        TYPE_GET_VALUES_RESULT,
        TYPE_UNKNOWN_TYPE,
        _TYPE_MAX,
};

typedef struct TypeRule {
        const char *name;
        bool is_answer;     /* sent by applications; the rest is only about those */
        bool is_management; /* belongs to no request */
        size_t min_size, max_size;
} TypeRule;

static const TypeRule types[] = {
        [TYPE_BEGIN_REQUEST] = { "FCGI_BEGIN_REQUEST" },
        [TYPE_ABORT_REQUEST] = { "FCGI_ABORT_REQUEST" },
        [TYPE_END_REQUEST] = { "FCGI_END_REQUEST", true, false, BODY_SIZE, BODY_SIZE },
        [TYPE_PARAMS] = { "FCGI_PARAMS" },
        [TYPE_STDIN] = { "FCGI_STDIN" },
        [TYPE_STDOUT] = { "FCGI_STDOUT", true, false, 0, UINT16_MAX },
        [TYPE_STDERR] = { "FCGI_STDERR", true, false, 0, UINT16_MAX },
        [TYPE_DATA] = { "FCGI_DATA" },
        [TYPE_GET_VALUES] = { "FCGI_GET_VALUES" },
        [TYPE_GET_VALUES_RESULT] = { "FCGI_GET_VALUES_RESULT", true, true, 0, FCGI_VALUES_SIZE_MAX },
        [TYPE_UNKNOWN_TYPE] = { "FCGI_UNKNOWN_TYPE", true, true, BODY_SIZE, BODY_SIZE },
};

static_assert(ELEMENTSOF(types) == _TYPE_MAX, "every type has a rule");

static const char *const protocol_status_names[] = {
        [FCGI_REQUEST_COMPLETE] = "FCGI_REQUEST_COMPLETE",
        [FCGI_CANT_MPX_CONN] = "FCGI_CANT_MPX_CONN",
        [FCGI_OVERLOADED] = "FCGI_OVERLOADED",
        [FCGI_UNKNOWN_ROLE] = "FCGI_UNKNOWN_ROLE",
};

static_assert(ELEMENTSOF(protocol_status_names) == _FCGI_PROTOCOL_STATUS_MAX, "every status has a name");

const char *fcgi_protocol_status_to_string(FcgiProtocolStatus status) {
        assert(status < _FCGI_PROTOCOL_STATUS_MAX);
        return protocol_status_names[status];
}

/* What the application sent is wrong: -EBADMSG. */
#define refuse(ret_problem, ...) \
        problem_set(ret_problem, EXIT_STATUS_UNAVAILABLE, -EBADMSG, __VA_ARGS__)

/* --- encoding --- */

static size_t padded_size(size_t n) {
        return (n + 7) & ~(size_t) 7;
}

static size_t stream_size(size_t n) {
        size_t n_full = n / CONTENT_MAX, rest = n % CONTENT_MAX;

        return n_full * (HEADER_SIZE + CONTENT_MAX) + (rest > 0 ? HEADER_SIZE + padded_size(rest) : 0) +
                HEADER_SIZE;
}

static size_t length_size(size_t n) {
        return n < 128 ? 1 : 4;
}

static size_t pair_size(const FcgiPair *pair) {
        size_t n_name, n_value;

        assert(pair->name && pair->value);

        n_name = strlen(pair->name);
        n_value = strlen(pair->value);
        return length_size(n_name) + length_size(n_value) + n_name + n_value;
}

static uint8_t *put_bytes(uint8_t *p, const void *data, size_t n) {
        if (n > 0)
                memcpy(p, data, n);
        return p + n;
}

static uint8_t *put_length(uint8_t *p, size_t n) {
        if (length_size(n) > 1) {
                *p++ = (uint8_t) (n >> 24 | 0x80);
                *p++ = (uint8_t) (n >> 16);
                *p++ = (uint8_t) (n >> 8);
        }
        *p++ = (uint8_t) n;
        return p;
}

static uint8_t *put_pair(uint8_t *p, const FcgiPair *pair) {
        size_t n_name = strlen(pair->name), n_value = strlen(pair->value);

        p = put_length(p, n_name);
        p = put_length(p, n_value);
        p = put_bytes(p, pair->name, n_name);
        return put_bytes(p, pair->value, n_value);
}

static uint8_t *put_record(uint8_t *p, unsigned type, unsigned id, const void *data, size_t n) {
        size_t n_padding = padded_size(n) - n;
        const uint8_t header[HEADER_SIZE] = {
                VERSION, (uint8_t) type, (uint8_t) (id >> 8), (uint8_t) id,
                (uint8_t) (n >> 8), (uint8_t) n, (uint8_t) n_padding,
        };

        assert(n <= CONTENT_MAX);

        p = put_bytes(p, header, sizeof(header));
        p = put_bytes(p, data, n);
        memset(p, 0, n_padding);
        return p + n_padding;
}

static uint8_t *put_stream(uint8_t *p, unsigned type, const uint8_t *data, size_t n) {
        for (size_t k; n > 0; data += k, n -= k) {
                k = MIN_OF(n, (size_t) CONTENT_MAX);
                p = put_record(p, type, REQUEST_ID, data, k);
        }
        return put_record(p, type, REQUEST_ID, NULL, 0);
}

/* The pairs one behind the other; *ret_data is to be freed, -E2BIG if they take more than max. */
static int encode_pairs(const FcgiPair *pairs, size_t n_pairs, size_t max, uint8_t **ret_data,
                        size_t *ret_size) {
        uint8_t *data, *p;
        size_t size = 0;

        for (size_t i = 0; i < n_pairs; i++) {
                size_t n = pair_size(pairs + i);

                if (n > max - size)
                        return -E2BIG;
                size += n;
        }

        data = p = malloc(MAX_OF(size, (size_t) 1));
        if (!data)
                return -ENOMEM;
        for (size_t i = 0; i < n_pairs; i++)
                p = put_pair(p, pairs + i);
        assert(p == data + size);

        *ret_data = data;
        *ret_size = size;
        return 0;
}

int fcgi_encode_request(const FcgiRequest *request, uint8_t **ret_data, size_t *ret_size) {
        const uint8_t begin[BODY_SIZE] = {
                0, ROLE_RESPONDER, request->keep_connection ? FLAG_KEEP_CONN : 0,
        };
        _cleanup_free_ uint8_t *params = NULL;
        size_t params_size, size;
        uint8_t *data, *p;
        int r;

        assert(request->params || request->n_params == 0);
        assert(request->input || request->input_size == 0);
        assert(ret_data);
        assert(ret_size);

        r = encode_pairs(request->params, request->n_params, FCGI_PARAMS_SIZE_MAX, &params, &params_size);
        if (r < 0)
                return r;

        size = HEADER_SIZE + sizeof(begin) + stream_size(params_size) + stream_size(request->input_size);
        data = malloc(size);
        if (!data)
                return -ENOMEM;
        p = put_record(data, TYPE_BEGIN_REQUEST, REQUEST_ID, begin, sizeof(begin));
        p = put_stream(p, TYPE_PARAMS, params, params_size);
        p = put_stream(p, TYPE_STDIN, request->input, request->input_size);
        assert(p == data + size);

        *ret_data = data;
        *ret_size = size;
        return 0;
}

int fcgi_encode_get_values(const char *const *names, size_t n_names, uint8_t **ret_data, size_t *ret_size) {
        _cleanup_free_ FcgiPair *pairs = NULL;
        _cleanup_free_ uint8_t *content = NULL;
        size_t content_size;
        uint8_t *data;
        int r;

        assert(names || n_names == 0);
        assert(ret_data);
        assert(ret_size);

        pairs = calloc(MAX_OF(n_names, (size_t) 1), sizeof(*pairs));
        if (!pairs)
                return -ENOMEM;
        for (size_t i = 0; i < n_names; i++)
                pairs[i] = (FcgiPair) { .name = names[i], .value = "" };

        r = encode_pairs(pairs, n_names, CONTENT_MAX, &content, &content_size);
        if (r < 0)
                return r;

        data = malloc(HEADER_SIZE + padded_size(content_size));
        if (!data)
                return -ENOMEM;
        *ret_size = (size_t) (put_record(data, TYPE_GET_VALUES, 0, content, content_size) - data);
        *ret_data = data;
        return 0;
}

/* --- decoding --- */

struct FcgiDecoder {
        FcgiAwait await;
        bool ended;
        bool failed;
        bool begun;                  /* there has been a record */
        uint8_t header[HEADER_SIZE]; /* of this record; until the first byte of the next, of the last one */
        size_t n_header;
        size_t content_left, padding_left;
        uint8_t body[BODY_SIZE];
        char values[FCGI_VALUES_SIZE_MAX]; /* what answer.values points into */
        size_t values_size;
        FcgiAnswer answer;
};

int fcgi_decoder_new(FcgiAwait await, size_t output_max, size_t errors_max, FcgiDecoder **ret_decoder) {
        FcgiDecoder *d;

        assert(await < _FCGI_AWAIT_MAX);
        assert(ret_decoder);

        d = calloc(1, sizeof(*d));
        if (!d)
                return -ENOMEM;
        d->await = await;
        d->answer.output.max = output_max;
        d->answer.errors.max = errors_max;
        *ret_decoder = d;
        return 0;
}

FcgiDecoder *fcgi_decoder_free(FcgiDecoder *d) {
        if (!d)
                return NULL;

        free(d->answer.output.data);
        free(d->answer.errors.data);
        free(d);
        return NULL;
}

const FcgiAnswer *fcgi_decoder_get_answer(const FcgiDecoder *d) {
        assert(d);
        return &d->answer;
}

static unsigned record_type(const FcgiDecoder *d) {
        return d->header[1];
}

static const char *record_name(const FcgiDecoder *d) {
        return types[record_type(d)].name;
}

static size_t record_size(const FcgiDecoder *d) {
        return (size_t) d->header[4] << 8 | d->header[5];
}

char *fcgi_decoder_describe(const FcgiDecoder *d, char *buffer, size_t size) {
        assert(d);
        assert(!d->failed);
        assert(buffer);

        if (d->ended)
                (void) snprintf(buffer, size, "after the end");
        else if (d->n_header == 0 && !d->begun)
                (void) snprintf(buffer, size, "after nothing");
        else if (d->n_header == 0)
                (void) snprintf(buffer, size, "after a record of type %s", record_name(d));
        else if (d->n_header < HEADER_SIZE)
                (void) snprintf(buffer, size, "in the header of a record");
        else if (d->content_left > 0)
                (void) snprintf(buffer, size, "in a record of type %s, after %zu of %zu bytes",
                                record_name(d), record_size(d) - d->content_left, record_size(d));
        else
                (void) snprintf(buffer, size, "in the padding of a record of type %s", record_name(d));
        return buffer;
}

static int check_header(const FcgiDecoder *d, Problem *ret_problem) {
        const char *wanted = d->await == FCGI_AWAIT_VALUES ? "FCGI_GET_VALUES_RESULT" :
                "FCGI_STDOUT, FCGI_STDERR or FCGI_END_REQUEST";
        unsigned type = record_type(d), id = (unsigned) d->header[2] << 8 | d->header[3], expected_id;
        const TypeRule *t;
        size_t max_size;

        if (d->header[0] != VERSION)
                return refuse(ret_problem, "record of FastCGI version %u, expected %u", d->header[0],
                              VERSION);
        if (type == 0 || type >= _TYPE_MAX)
                return refuse(ret_problem, "record of type %u, expected %s", type, wanted);

        t = types + type;
        if (!t->is_answer || (d->await == FCGI_AWAIT_VALUES && !t->is_management))
                return refuse(ret_problem, "%s from the application, expected %s", t->name, wanted);
        expected_id = t->is_management ? 0 : REQUEST_ID;
        if (id != expected_id)
                return refuse(ret_problem, "%s for request %u, expected %u", t->name, id, expected_id);

        max_size = type == TYPE_GET_VALUES_RESULT ? t->max_size - d->values_size : t->max_size;
        if (record_size(d) < t->min_size || record_size(d) > max_size)
                return refuse(ret_problem, "%s of %zu bytes, expected %s%zu", t->name, record_size(d),
                              t->min_size < t->max_size ? "at most " : "", max_size);
        return 0;
}

static int append(FcgiStream *s, const void *data, size_t n) {
        size_t keep = MIN_OF(n, s->max - s->size);

        if (keep < n)
                s->truncated = true;
        if (keep == 0)
                return 0;

        if (keep > s->allocated - s->size) {
                size_t twice = s->allocated > s->max / 2 ? s->max : s->allocated * 2;
                size_t allocated = MAX_OF(s->size + keep, twice);
                char *grown = realloc(s->data, allocated);

                if (!grown)
                        return -ENOMEM;
                s->data = grown;
                s->allocated = allocated;
        }
        memcpy(s->data + s->size, data, keep);
        s->size += keep;
        return 0;
}

static int take_content(FcgiDecoder *d, const void *data, size_t n) {
        size_t offset = record_size(d) - d->content_left;

        d->content_left -= n;
        switch (record_type(d)) {
        case TYPE_STDOUT:
                return append(&d->answer.output, data, n);
        case TYPE_STDERR:
                return append(&d->answer.errors, data, n);
        case TYPE_GET_VALUES_RESULT:
                memcpy(d->values + d->values_size + offset, data, n);
                return 0;
        default:
                memcpy(d->body + offset, data, n);
                return 0;
        }
}

static bool take_length(const char **p, const char *end, size_t *ret_length) {
        const uint8_t *b = (const uint8_t *) *p;
        size_t n = end - *p > 0 && b[0] < 128 ? 1 : 4;

        if ((size_t) (end - *p) < n)
                return false;
        *ret_length = n == 1 ? b[0] :
                (size_t) (b[0] & 0x7f) << 24 | (size_t) b[1] << 16 | (size_t) b[2] << 8 | b[3];
        *p += n;
        return true;
}

/* Pairs become strings in place: the two lengths took at least as much as the two NULs. */
static int decode_values(FcgiDecoder *d, Problem *ret_problem) {
        char *to = d->values + d->values_size;
        const char *p = to, *end = to + record_size(d);
        FcgiAnswer *a = &d->answer;

        d->values_size += record_size(d);
        while (p < end) {
                size_t n_name, n_value;

                if (!take_length(&p, end, &n_name) || !take_length(&p, end, &n_value) ||
                    n_name > (size_t) (end - p) || n_value > (size_t) (end - p) - n_name)
                        return refuse(ret_problem, "%s ends inside a pair, expected whole ones",
                                      record_name(d));
                if (memchr(p, '\0', n_name + n_value))
                        return refuse(ret_problem, "%s with a NUL, expected text", record_name(d));
                if (a->n_values >= FCGI_VALUES_MAX)
                        return refuse(ret_problem, "%s with more than %u pairs, expected at most that",
                                      record_name(d), FCGI_VALUES_MAX);

                a->values[a->n_values++] = (FcgiPair) { .name = to, .value = to + n_name + 1 };
                memmove(to, p, n_name);
                to[n_name] = '\0';
                memmove(to + n_name + 1, p + n_name, n_value);
                to[n_name + 1 + n_value] = '\0';
                to += n_name + 1 + n_value + 1;
                p += n_name + n_value;
        }
        return 0;
}

static int end_record(FcgiDecoder *d, Problem *ret_problem) {
        const uint8_t *b = d->body;

        d->n_header = 0;
        d->begun = true;
        switch (record_type(d)) {
        case TYPE_END_REQUEST:
                if (b[4] >= _FCGI_PROTOCOL_STATUS_MAX)
                        return refuse(ret_problem, "%s with protocol status %u, expected 0 to %d",
                                      record_name(d), b[4], _FCGI_PROTOCOL_STATUS_MAX - 1);
                d->answer.app_status = (uint32_t) b[0] << 24 | (uint32_t) b[1] << 16 |
                        (uint32_t) b[2] << 8 | b[3];
                d->answer.protocol_status = (FcgiProtocolStatus) b[4];
                d->ended = true;
                return 0;
        case TYPE_GET_VALUES_RESULT:
                d->ended = d->await == FCGI_AWAIT_VALUES;
                return decode_values(d, ret_problem);
        case TYPE_UNKNOWN_TYPE:
                d->ended = d->await == FCGI_AWAIT_VALUES;
                d->answer.unknown_type = b[0];
                return 0;
        default:
                return 0;
        }
}

/* Takes what belongs to one part of a record. Returns how many bytes, at least one, or negative errno. */
static ssize_t take_part(FcgiDecoder *d, const uint8_t *data, size_t size, Problem *ret_problem) {
        size_t n;
        int r = 0;

        if (d->n_header < HEADER_SIZE) {
                n = MIN_OF(size, HEADER_SIZE - d->n_header);
                memcpy(d->header + d->n_header, data, n);
                d->n_header += n;
                if (d->n_header == HEADER_SIZE) {
                        r = check_header(d, ret_problem);
                        d->content_left = record_size(d);
                        d->padding_left = d->header[6];
                }
        } else if (d->content_left > 0) {
                n = MIN_OF(size, d->content_left);
                r = take_content(d, data, n);
                if (r < 0)
                        (void) problem_set(ret_problem, EXIT_STATUS_OS_ERROR, r, "out of memory");
        } else {
                n = MIN_OF(size, d->padding_left);
                d->padding_left -= n;
        }

        if (r >= 0 && d->n_header == HEADER_SIZE && d->content_left == 0 && d->padding_left == 0)
                r = end_record(d, ret_problem);
        return r < 0 ? r : (ssize_t) n;
}

int fcgi_decoder_feed(FcgiDecoder *d, const void *data, size_t size, size_t *ret_taken,
                      Problem *ret_problem) {
        const uint8_t *bytes = data;
        size_t taken = 0;
        ssize_t n = 0;

        assert(d);
        assert(!d->failed);
        assert(data || size == 0);

        while (taken < size && !d->ended && n >= 0) {
                n = take_part(d, bytes + taken, size - taken, ret_problem);
                taken += (size_t) MAX_OF(n, (ssize_t) 0);
        }
        if (n >= 0 && taken < size && d->await == FCGI_AWAIT_END)
                n = refuse(ret_problem, "bytes behind FCGI_END_REQUEST, expected the connection to end");
        if (n < 0) {
                d->failed = true;
                return (int) n;
        }

        if (ret_taken)
                *ret_taken = taken;
        return d->ended;
}
