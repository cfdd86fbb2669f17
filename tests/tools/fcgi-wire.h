/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SPDX-FileCopyrightText: fcgi-pool contributors */
#pragma once

/* FastCGI on the wire, both directions (FastCGI Specification 1.0, sections 3 to 5 and 8), for test
 * programs. Independent of libfcgi and of the product's own codec, so that neither can hide a mistake of
 * the other. Memory that cannot be had ends the program. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_VERSION 1
#define WIRE_HEADER_SIZE 8
#define WIRE_CONTENT_MAX 65535

enum {
        WIRE_BEGIN_REQUEST = 1,
        WIRE_ABORT_REQUEST,
        WIRE_END_REQUEST,
        WIRE_PARAMS,
        WIRE_STDIN,
        WIRE_STDOUT,
        WIRE_STDERR,
        WIRE_DATA,
        WIRE_GET_VALUES,
        WIRE_GET_VALUES_RESULT,
        WIRE_UNKNOWN_TYPE,
        WIRE_TYPE_MAX = WIRE_UNKNOWN_TYPE,
};

enum { WIRE_RESPONDER = 1 };
enum { WIRE_KEEP_CONN = 1 };
enum { WIRE_REQUEST_COMPLETE, WIRE_CANT_MPX_CONN, WIRE_OVERLOADED, WIRE_UNKNOWN_ROLE };

/* Growing byte string; zero-initialised is empty. The owner calls wire_buffer_done(). */
typedef struct WireBuffer {
        uint8_t *data;
        size_t n;
        size_t n_allocated;
} WireBuffer;

void wire_buffer_done(WireBuffer *b);

/* Empties it and keeps the memory. */
static inline void wire_buffer_reset(WireBuffer *b) {
        b->n = 0;
}

/* Adds n uninitialised bytes at the end; the pointer is valid until the next call. */
uint8_t *wire_buffer_extend(WireBuffer *b, size_t n);
void wire_buffer_append(WireBuffer *b, const void *data, size_t n);

/* One record; n at most WIRE_CONTENT_MAX, 'padding' zero bytes after it. */
void wire_put_record(
                WireBuffer *b, unsigned type, unsigned id, const void *data, size_t n, unsigned padding);

/* As many records as the data needs, each padded to 8 bytes; no record for no data, and no end of stream. */
void wire_put_stream(WireBuffer *b, unsigned type, unsigned id, const void *data, size_t n);
void wire_put_begin(WireBuffer *b, unsigned id, bool keep_conn);
void wire_put_end(WireBuffer *b, unsigned id, uint32_t app_status, unsigned protocol_status);

/* One name-value pair, without record header: collect pairs, then wire_put_stream(WIRE_PARAMS). */
void wire_put_pair(WireBuffer *b, const char *name, const char *value);

/* Takes the next pair off *data, *n. Returns 1 and sets the outputs (pointing into the data, not
 * terminated), 0 at the end, -EBADMSG if a length points past the end. */
int wire_next_pair(
                const uint8_t **data,
                size_t *n,
                const char **ret_name,
                size_t *ret_n_name,
                const char **ret_value,
                size_t *ret_n_value);

/* Decoder of a byte stream cut anywhere. Zero-initialised is "at the start of a record". */
typedef struct WireDecoder {
        uint8_t header[WIRE_HEADER_SIZE];
        size_t n_header;
        size_t content_left;
        size_t padding_left;
} WireDecoder;

/* A piece of one record's content. 'first' and 'last' tell its place; a record without content is one
 * piece with n = 0 and both set. */
typedef struct WirePiece {
        unsigned type;
        unsigned id;
        size_t n_record; /* content length of the whole record */
        const uint8_t *data;
        size_t n;
        bool first;
        bool last;
} WirePiece;

/* Consumes input from *data, *n up to the end of one piece. Returns 1 with a piece, 0 if all input is
 * consumed and more is needed, -EPROTO for a wrong version or an unknown type. */
int wire_decode(WireDecoder *d, const uint8_t **data, size_t *n, WirePiece *ret);

/* The stream ended here: is that between two records? */
static inline bool wire_decoder_between(const WireDecoder *d) {
        return d->n_header == 0 && d->content_left == 0 && d->padding_left == 0;
}

/* CRC-32 as in zlib, gzip and PNG; start with 0, feed the result to go on. */
uint32_t wire_crc32(uint32_t crc, const void *data, size_t n);

/* The test pattern: lines of 16 bytes, line k is k as 15 decimal digits and a newline. Writes bytes
 * [offset, offset + n) of the pattern whose first line is 'start'. No two aligned lines are the same, so
 * lost, doubled, swapped or foreign data always shows. */
void wire_pattern(uint64_t start, uint64_t offset, void *ret, size_t n);
