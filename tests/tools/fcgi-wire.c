/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SPDX-FileCopyrightText: fcgi-pool contributors */

/* The codec believes only what the specification says: records of 8 bytes header, up to 65535 bytes of
 * content and up to 255 of padding, in any cut the transport chose. The decoder therefore keeps no data,
 * only its place inside the current record, and hands out pieces of content as they come. */

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fcgi-wire.h"

#define PATTERN_LINE 16

void wire_buffer_done(WireBuffer *b) {
        free(b->data);
        *b = (WireBuffer) {};
}

uint8_t *wire_buffer_extend(WireBuffer *b, size_t n) {
        size_t want = b->n + n;

        if (want > b->n_allocated || !b->data) {
                size_t n_new = want * 2 + 256;
                uint8_t *p = realloc(b->data, n_new);

                if (!p) {
                        fputs("Out of memory.\n", stderr);
                        abort();
                }
                b->data = p;
                b->n_allocated = n_new;
        }

        b->n = want;
        return b->data + want - n;
}

void wire_buffer_append(WireBuffer *b, const void *data, size_t n) {
        if (n > 0)
                memcpy(wire_buffer_extend(b, n), data, n);
}

void wire_put_record(
                WireBuffer *b, unsigned type, unsigned id, const void *data, size_t n, unsigned padding) {

        uint8_t *p;

        assert(n <= WIRE_CONTENT_MAX);
        assert(padding <= 255);

        p = wire_buffer_extend(b, WIRE_HEADER_SIZE + n + padding);
        p[0] = WIRE_VERSION;
        p[1] = (uint8_t) type;
        p[2] = (uint8_t) (id >> 8);
        p[3] = (uint8_t) id;
        p[4] = (uint8_t) (n >> 8);
        p[5] = (uint8_t) n;
        p[6] = (uint8_t) padding;
        p[7] = 0;
        if (n > 0)
                memcpy(p + WIRE_HEADER_SIZE, data, n);
        memset(p + WIRE_HEADER_SIZE + n, 0, padding);
}

void wire_put_stream(WireBuffer *b, unsigned type, unsigned id, const void *data, size_t n) {
        const uint8_t *p = data;

        while (n > 0) {
                size_t m = n < 65528 ? n : 65528;

                wire_put_record(b, type, id, p, m, (unsigned) (-m & 7));
                p += m;
                n -= m;
        }
}

void wire_put_begin(WireBuffer *b, unsigned id, bool keep_conn) {
        const uint8_t body[8] = { 0, WIRE_RESPONDER, keep_conn ? WIRE_KEEP_CONN : 0 };

        wire_put_record(b, WIRE_BEGIN_REQUEST, id, body, sizeof(body), 0);
}

void wire_put_end(WireBuffer *b, unsigned id, uint32_t app_status, unsigned protocol_status) {
        const uint8_t body[8] = {
                (uint8_t) (app_status >> 24),
                (uint8_t) (app_status >> 16),
                (uint8_t) (app_status >> 8),
                (uint8_t) app_status,
                (uint8_t) protocol_status,
        };

        wire_put_record(b, WIRE_END_REQUEST, id, body, sizeof(body), 0);
}

static void put_length(WireBuffer *b, size_t n) {
        if (n < 128)
                *wire_buffer_extend(b, 1) = (uint8_t) n;
        else {
                uint8_t *p = wire_buffer_extend(b, 4);

                p[0] = (uint8_t) (n >> 24 | 0x80);
                p[1] = (uint8_t) (n >> 16);
                p[2] = (uint8_t) (n >> 8);
                p[3] = (uint8_t) n;
        }
}

void wire_put_pair(WireBuffer *b, const char *name, const char *value) {
        size_t n_name = strlen(name), n_value = strlen(value);

        put_length(b, n_name);
        put_length(b, n_value);
        wire_buffer_append(b, name, n_name);
        wire_buffer_append(b, value, n_value);
}

static int get_length(const uint8_t **data, size_t *n, size_t *ret) {
        const uint8_t *p = *data;

        if (*n < 1)
                return -EBADMSG;
        if (p[0] < 128) {
                *ret = p[0];
                *data += 1;
                *n -= 1;
                return 0;
        }
        if (*n < 4)
                return -EBADMSG;
        *ret = (size_t) (p[0] & 0x7f) << 24 | (size_t) p[1] << 16 | (size_t) p[2] << 8 | p[3];
        *data += 4;
        *n -= 4;
        return 0;
}

int wire_next_pair(
                const uint8_t **data,
                size_t *n,
                const char **ret_name,
                size_t *ret_n_name,
                const char **ret_value,
                size_t *ret_n_value) {

        size_t n_name, n_value;
        int r;

        if (*n == 0)
                return 0;

        r = get_length(data, n, &n_name);
        if (r < 0)
                return r;
        r = get_length(data, n, &n_value);
        if (r < 0)
                return r;
        if (n_name > *n || n_value > *n - n_name)
                return -EBADMSG;

        *ret_name = (const char *) *data;
        *ret_n_name = n_name;
        *ret_value = (const char *) *data + n_name;
        *ret_n_value = n_value;
        *data += n_name + n_value;
        *n -= n_name + n_value;
        return 1;
}

static void skip_padding(WireDecoder *d, const uint8_t **data, size_t *n) {
        size_t m = d->padding_left < *n ? d->padding_left : *n;

        *data += m;
        *n -= m;
        d->padding_left -= m;
}

/* Returns 1 when the header is complete, 0 when it needs more bytes, -EPROTO when it is none. */
static int take_header(WireDecoder *d, const uint8_t **data, size_t *n) {
        size_t m = WIRE_HEADER_SIZE - d->n_header;

        m = m < *n ? m : *n;
        memcpy(d->header + d->n_header, *data, m);
        d->n_header += m;
        *data += m;
        *n -= m;
        if (d->n_header < WIRE_HEADER_SIZE)
                return 0;

        if (d->header[0] != WIRE_VERSION || d->header[1] < 1 || d->header[1] > WIRE_TYPE_MAX)
                return -EPROTO;
        d->content_left = (size_t) d->header[4] << 8 | d->header[5];
        return 1;
}

int wire_decode(WireDecoder *d, const uint8_t **data, size_t *n, WirePiece *ret) {
        bool first = false;
        size_t m, n_record;

        skip_padding(d, data, n);
        if (*n == 0)
                return 0;

        if (d->n_header < WIRE_HEADER_SIZE) {
                int r = take_header(d, data, n);

                if (r <= 0)
                        return r;
                first = true;
        }

        n_record = (size_t) d->header[4] << 8 | d->header[5];
        first = first || d->content_left == n_record;
        if (d->content_left > 0 && *n == 0)
                return 0;

        m = d->content_left < *n ? d->content_left : *n;
        d->content_left -= m;
        *ret = (WirePiece) {
                .type = d->header[1],
                .id = (unsigned) d->header[2] << 8 | d->header[3],
                .n_record = n_record,
                .data = *data,
                .n = m,
                .first = first,
                .last = d->content_left == 0,
        };
        *data += m;
        *n -= m;

        if (d->content_left == 0) {
                d->n_header = 0;
                d->padding_left = d->header[6];
        }
        return 1;
}

static uint32_t crc_table[256];

/* Before main(): threads may use the table. */
__attribute__((constructor)) static void crc_table_init(void) {
        for (uint32_t i = 0; i < 256; i++) {
                uint32_t c = i;

                for (int k = 0; k < 8; k++)
                        c = c & 1 ? UINT32_C(0xedb88320) ^ c >> 1 : c >> 1;
                crc_table[i] = c;
        }
}

uint32_t wire_crc32(uint32_t crc, const void *data, size_t n) {
        const uint8_t *p = data;

        crc = ~crc;
        for (size_t i = 0; i < n; i++)
                crc = crc_table[(crc ^ p[i]) & 0xff] ^ crc >> 8;
        return ~crc;
}

static void pattern_line(uint64_t k, char ret[static PATTERN_LINE]) {
        for (int i = PATTERN_LINE - 2; i >= 0; i--) {
                ret[i] = (char) ('0' + k % 10);
                k /= 10;
        }
        ret[PATTERN_LINE - 1] = '\n';
}

static void pattern_increment(char line[static PATTERN_LINE]) {
        for (int i = PATTERN_LINE - 2; i >= 0; i--) {
                if (line[i] != '9') {
                        line[i]++;
                        return;
                }
                line[i] = '0';
        }
}

void wire_pattern(uint64_t start, uint64_t offset, void *ret, size_t n) {
        char line[PATTERN_LINE];
        size_t skip = offset % PATTERN_LINE;
        char *p = ret;

        pattern_line(start + offset / PATTERN_LINE, line);
        while (n > 0) {
                size_t m = PATTERN_LINE - skip < n ? PATTERN_LINE - skip : n;

                memcpy(p, line + skip, m);
                p += m;
                n -= m;
                skip = 0;
                pattern_increment(line);
        }
}
