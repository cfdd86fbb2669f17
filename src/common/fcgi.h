/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The web server's side of FastCGI (FastCGI Specification 1.0, 29 April 1996; the sections named here
 * are its own): one request of role FCGI_RESPONDER, or one FCGI_GET_VALUES, and what is answered. On
 * memory alone: no I/O, no clock, no logging.
 *
 * What is decoded may come from any program. A Problem says in one line what was wrong and what was
 * expected; nothing of the input is in it but numbers. */

#include "problem.h"

/* What a request's parameters may take in the FCGI_PARAMS stream, lengths included. */
#define FCGI_PARAMS_SIZE_MAX (1024U * 1024)

/* What the pairs of FCGI_GET_VALUES_RESULT may take, lengths included, and how many there may be. The
 * specification has three. */
#define FCGI_VALUES_SIZE_MAX 1024U
#define FCGI_VALUES_MAX 16U

/* Section 5.5, with these numbers on the wire. */
typedef enum FcgiProtocolStatus {
        FCGI_REQUEST_COMPLETE,
        FCGI_CANT_MPX_CONN,
        FCGI_OVERLOADED,
        FCGI_UNKNOWN_ROLE,
        _FCGI_PROTOCOL_STATUS_MAX,
} FcgiProtocolStatus;

/* "FCGI_REQUEST_COMPLETE" ... */
const char *fcgi_protocol_status_to_string(FcgiProtocolStatus status);

/* Both are never NULL. */
typedef struct FcgiPair {
        const char *name;
        const char *value;
} FcgiPair;

/* --- encoding --- */

typedef struct FcgiRequest {
        const FcgiPair *params; /* in this order; a name may come twice */
        size_t n_params;
        const void *input;      /* FCGI_STDIN; CONTENT_LENGTH is the caller's to set */
        size_t input_size;
        bool keep_connection;   /* FCGI_KEEP_CONN: the application does not close it after its answer */
} FcgiRequest;

/* The whole of request 1 as it is sent: FCGI_BEGIN_REQUEST, FCGI_PARAMS and FCGI_STDIN with their ends, in
 * records that begin at multiples of 8 bytes (section 3.3). *ret_data is to be freed. -E2BIG: more than
 * FCGI_PARAMS_SIZE_MAX; -ENOMEM. */
int fcgi_encode_request(const FcgiRequest *request, uint8_t **ret_data, size_t *ret_size);

/* One record FCGI_GET_VALUES that asks for names, such as "FCGI_MAX_CONNS", "FCGI_MAX_REQS" and
 * "FCGI_MPXS_CONNS" (section 4.1). *ret_data is to be freed. -E2BIG: they do not fit into one record;
 * -ENOMEM. */
int fcgi_encode_get_values(const char *const *names, size_t n_names, uint8_t **ret_data, size_t *ret_size);

/* --- decoding --- */

/* What has been sent, and so what ends the answer. */
typedef enum FcgiAwait {
        FCGI_AWAIT_END,      /* a request: FCGI_END_REQUEST, and nothing may follow */
        FCGI_AWAIT_END_KEPT, /* a request with FCGI_KEEP_CONN: what follows belongs to the next one */
        FCGI_AWAIT_VALUES,   /* FCGI_GET_VALUES and no request: FCGI_GET_VALUES_RESULT, or
                              * FCGI_UNKNOWN_TYPE; what follows belongs to a request */
        _FCGI_AWAIT_MAX,
} FcgiAwait;

/* The first max bytes of a stream; data is NULL if there is none, and not terminated. */
typedef struct FcgiStream {
        char *data;       /* owned by the decoder */
        size_t size;
        size_t allocated;
        size_t max;
        bool truncated;   /* there was more, which has been dropped */
} FcgiStream;

typedef struct FcgiAnswer {
        FcgiStream output, errors; /* FCGI_STDOUT and FCGI_STDERR */
        /* Of FCGI_END_REQUEST; the application's status is what it would exit with as a CGI program. */
        uint32_t app_status;
        FcgiProtocolStatus protocol_status;
        FcgiPair values[FCGI_VALUES_MAX]; /* in the order received; any bytes but NUL */
        size_t n_values;
        unsigned unknown_type; /* of FCGI_UNKNOWN_TYPE: the type that it does not understand; 0: none */
} FcgiAnswer;

/* The decoder of one answer. */
typedef struct FcgiDecoder FcgiDecoder;

/* Of the two streams the first output_max and errors_max bytes are kept; memory is taken for what has been
 * received, up to twice as much, never for what a header announces. *ret_decoder is to be freed with
 * fcgi_decoder_free(). -ENOMEM. */
int fcgi_decoder_new(FcgiAwait await, size_t output_max, size_t errors_max, FcgiDecoder **ret_decoder);

/* Accepts NULL, returns NULL. */
FcgiDecoder *fcgi_decoder_free(FcgiDecoder *decoder);
DEFINE_TRIVIAL_CLEANUP_FUNC(FcgiDecoder *, fcgi_decoder_free);

/* Takes the next size bytes of the connection, cut anywhere: the same bytes in other pieces come to the
 * same. Returns
 *   1: the answer is complete, with the padding of its last record. *ret_taken (may be NULL) of the bytes
 *      belonged to it, which is fewer than size only where something may follow (FcgiAwait);
 *   0: all were taken, more are wanted;
 *   -EBADMSG: what the specification forbids: a version other than 1, a type that it does not know or
 *      that only a web server sends (section 8), a record of another request (3.3), one of the wrong size
 *      (4.2, 5.5), an unknown protocol status (5.5), pairs cut short (3.4), something behind the end
 *      (5.1). Or the answer to a request that has not been sent; a value with a NUL; more values than
 *      FCGI_VALUES_SIZE_MAX and FCGI_VALUES_MAX allow;
 *   -ENOMEM.
 * On failure *ret_problem (may be NULL) says it in a line, the decoder must not be fed any more, and what
 * it has got so far may be looked at. After 1 it may be fed, to see whether something is behind the end.
 *
 * Tolerated: streams that do not end with an empty record, or go on behind one, as nginx has it; management
 * records that nobody asked for, since Go ends FCGI_GET_VALUES_RESULT like a stream, with an empty one. */
int fcgi_decoder_feed(FcgiDecoder *decoder, const void *data, size_t size, size_t *ret_taken,
                      Problem *ret_problem);

/* What has been received so far. Borrowed: valid, with all that it points to, until the decoder is fed or
 * freed. */
const FcgiAnswer *fcgi_decoder_get_answer(const FcgiDecoder *decoder);

/* Where in the answer the decoder is, to stand behind words such as "connection closed": "after
 * nothing", "in the header of a record", "in a record of type FCGI_STDOUT, after 12 of 100 bytes", "in
 * the padding of a record of type FCGI_STDOUT", "after a record of type FCGI_STDOUT", "after the end".
 * Written into buffer, cut short if it does not fit; 96 bytes always suffice. Returns buffer. Not after
 * an error. */
char *fcgi_decoder_describe(const FcgiDecoder *decoder, char *buffer, size_t size);
