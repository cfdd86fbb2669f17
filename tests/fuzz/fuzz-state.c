/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Whatever is in the state file, the verdict is a State that can be written and read again, or one line of
 * text and a documented error; and what is written over it is what is read next. A fuzzer does not guess
 * checksums, so the first character says what the rest is:
 *   r  one area, as it is
 *   t  the text of an area, which gets a header
 *   f  a file: flags, two sequences, then the two areas with a form feed in between (see build_file()) */

#include <stdio.h>
#include <sys/mman.h>

#include "state.h"

#define INPUT_MAX (1U << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Unlike assert() not about the fuzzer's own mistakes: says what the product got wrong. */
static void promise(bool kept, const char *what) {
        if (kept)
                return;

        fprintf(stderr, "broken promise: %s\n", what);
        abort();
}

static void check_same(const State *a, const State *b) {
        promise(a->life == b->life && a->generation == b->generation && a->rolling == b->rolling &&
                a->started == b->started && a->held == b->held && a->n_workers_set == b->n_workers_set,
                "the pool is the same when it is read again");
        promise(a->n_workers == b->n_workers, "the number of workers is the same when it is read again");
        for (size_t i = 0; i < a->n_workers; i++) {
                const StateWorker *v = a->workers + i, *w = b->workers + i;

                promise(v->slot == w->slot && v->generation == w->generation && v->pid == w->pid &&
                        v->start_time == w->start_time && v->spawned_usec == w->spawned_usec &&
                        v->cookie == w->cookie && v->state == w->state,
                        "a worker is the same when it is read again");
        }
}

static void check_state(const State *s) {
        _cleanup_(state_freep) State *again = NULL;
        _cleanup_free_ char *data = NULL;
        uint64_t sequence;
        size_t size;

        promise(s->life < _STATE_LIFE_MAX, "life");
        promise(s->n_workers <= STATE_WORKERS_MAX, "number of workers");
        for (size_t i = 0; i < s->n_workers; i++) {
                promise(s->workers[i].state < _WORKER_STATE_MAX, "state of a worker");
                promise(s->workers[i].pid >= 0, "pid");
                promise(s->workers[i].generation <= s->generation, "no worker is above the newest generation");
        }

        promise(state_format(s, 42, &data, &size) == 0, "what was read can be written");
        promise(state_parse(data, size, &sequence, &again, NULL) == 0, "what was written can be read");
        promise(sequence == 42, "sequence");
        check_same(s, again);
}

static void check_problem(int error, const State *state, const Problem *problem) {
        promise(error == -EBADMSG || error == -EPROTO || error == -EPROTONOSUPPORT || error == -ENODATA, "error");
        promise(!state, "output untouched on failure");
        promise(problem->exit_status == EXIT_STATUS_OS_ERROR, "exit status");
        promise(problem->text[0] != '\0' && strlen(problem->text) < sizeof(problem->text) - 1, "a text");
        for (const char *c = problem->text; *c; c++)
                promise(*c >= ' ' && *c <= '~', "one line without control characters");
}

static void parse_area(const char *data, size_t size) {
        _cleanup_(state_freep) State *state = NULL;
        Problem problem = {};
        int r;

        r = state_parse(data, size, NULL, &state, &problem);
        if (r < 0) {
                promise(r != -ENODATA, "no error of files");
                check_problem(r, state, &problem);
        } else
                check_state(state);
}

static char *with_header(const uint8_t *text, size_t length, uint64_t sequence) {
        char *area = malloc(STATE_HEADER_SIZE + length);

        assert(area);
        if (length > 0)
                memcpy(area + STATE_HEADER_SIZE, text, length);
        state_seal(area, STATE_HEADER_SIZE + length, sequence);
        return area;
}

static void put_area(int fd, unsigned i, const uint8_t *data, size_t size, bool sealed, uint8_t sequence) {
        _cleanup_free_ char *area = NULL;
        ssize_t n;

        if (sealed) {
                /* -1, 0 and 1 are all near. */
                area = with_header(data, size, (uint64_t) (int8_t) sequence);
                data = (const uint8_t *) area;
                size += STATE_HEADER_SIZE;
        }
        n = pwrite(fd, data, size, (off_t) i * STATE_AREA_SIZE);
        assert(n == (ssize_t) size);
}

/* Flags: 1 and 2 give the areas a header, 4 and 8 leave one out; 16 cuts the last byte off. */
static void build_file(int fd, const uint8_t *data, size_t size) {
        const uint8_t *first, *second, *end = data + size;
        struct {
                uint8_t flags, sequences[2];
        } head;
        off_t length;

        if (size < sizeof(head))
                return;
        memcpy(&head, data, sizeof(head));
        first = data + sizeof(head);
        second = memchr(first, '\f', (size_t) (end - first)) ?: end;

        if (!(head.flags & 4))
                put_area(fd, 0, first, (size_t) (second - first), head.flags & 1, head.sequences[0]);
        if (second < end && !(head.flags & 8))
                put_area(fd, 1, second + 1, (size_t) (end - second - 1), head.flags & 2, head.sequences[1]);
        length = lseek(fd, 0, SEEK_END);
        if (head.flags & 16 && length > 0 && ftruncate(fd, length - 1) < 0)
                abort();
}

static void read_file(const uint8_t *data, size_t size) {
        _cleanup_(state_freep) State *state = NULL, *again = NULL;
        _cleanup_(state_file_freep) StateFile *file = NULL;
        StateWorker worker = { .slot = 1, .generation = 2, .pid = 3, .state = WORKER_READY };
        State ours = { .generation = 2, .workers = &worker, .n_workers = 1 };
        Problem problem = {};
        int r, fd;

        fd = memfd_create("fuzz-state", MFD_CLOEXEC);
        assert(fd >= 0);
        build_file(fd, data, size);

        r = state_read(fd, &state, &problem);
        if (r < 0)
                check_problem(r, state, &problem);
        else
                check_state(state);

        promise(state_file_attach(fd, &file) == 0, "a memfd can be written, whatever is in it");
        promise(state_file_write(file, state ?: &ours) == 0, "a write works");
        promise(state_read(fd, &again, NULL) == 0, "what was written is read");
        check_same(state ?: &ours, again);
        again = state_free(again);
        promise(state_file_write(file, &ours) == 0, "a second write works");
        promise(state_read(fd, &again, NULL) == 0, "the second write is read");
        check_same(&ours, again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        _cleanup_free_ char *area = NULL;

        if (size < 1 || size > INPUT_MAX)
                return 0;

        switch (data[0]) {
        case 'r':
                parse_area((const char *) data + 1, size - 1);
                break;
        case 't':
                area = with_header(data + 1, size - 1, 1);
                parse_area(area, STATE_HEADER_SIZE + size - 1);
                break;
        case 'f':
                read_file(data + 1, size - 1);
                break;
        default:
                break;
        }
        return 0;
}
