/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What was written is read, by this version and by others; whatever happens to the file in between - a
 * helper killed in the middle of a write, a flipped bit, a cut, somebody else's file - the answer is one of
 * the two states last written or an error, never a third one. */

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "state.h"
#include "test.h"

/* --- tools --- */

static bool same_worker(const StateWorker *a, const StateWorker *b) {
        return a->slot == b->slot && a->generation == b->generation && a->pid == b->pid &&
                a->start_time == b->start_time && a->spawned_usec == b->spawned_usec && a->cookie == b->cookie &&
                a->state == b->state;
}

static bool same(const State *a, const State *b) {
        if (a->life != b->life || a->generation != b->generation || a->rolling != b->rolling ||
            a->started != b->started || a->held != b->held || a->n_workers_set != b->n_workers_set ||
            a->n_workers != b->n_workers)
                return false;
        for (size_t i = 0; i < a->n_workers; i++)
                if (!same_worker(a->workers + i, b->workers + i))
                        return false;
        return true;
}

/* A state that differs from another seed's in everything that can differ. */
static State *make_state(size_t n_workers, unsigned seed) {
        State *s = calloc(1, sizeof(*s));

        EXPECT(s);
        s->life = (StateLife) (seed % _STATE_LIFE_MAX);
        s->generation = seed + 10;
        s->rolling = seed % 2;
        s->started = seed % 4 < 2;
        s->held = seed % 8 < 4;
        s->n_workers_set = seed % 3 == 0 ? seed : 0;
        s->n_workers = n_workers;
        s->workers = calloc(n_workers + 1, sizeof(*s->workers));
        EXPECT(s->workers);
        for (size_t i = 0; i < n_workers; i++)
                s->workers[i] = (StateWorker) {
                        .slot = (unsigned) i,
                        .generation = seed + i % 2,
                        .pid = (pid_t) (1000 * (i + 1) + seed),
                        .start_time = 123456789 + i * 7 + seed,
                        .spawned_usec = UINT64_C(987654321000) + i * 1000003 + seed,
                        .cookie = 4242 + seed,
                        .state = (WorkerState) ((i + seed) % _WORKER_STATE_MAX),
                };
        return s;
}

static StateFile *new_file(void) {
        StateFile *file = NULL;

        EXPECT_EQ(state_file_open(&file), 0);
        EXPECT(file);
        return file;
}

/* An area around any text, as another version might have written it. */
static char *forge(const char *text, size_t length, uint64_t sequence, size_t *ret_size) {
        char *area = malloc(STATE_HEADER_SIZE + length);

        EXPECT(area);
        memcpy(area + STATE_HEADER_SIZE, text, length);
        state_seal(area, STATE_HEADER_SIZE + length, sequence);
        *ret_size = STATE_HEADER_SIZE + length;
        return area;
}

static void put_area(int fd, unsigned i, const char *text, uint64_t sequence) {
        _cleanup_free_ char *area = NULL;
        size_t size;

        area = forge(text, strlen(text), sequence, &size);
        EXPECT(pwrite(fd, area, size, (off_t) i * STATE_AREA_SIZE) == (ssize_t) size);
}

/* On failure an error has one line of text and nothing else is touched. */
static int read_file(int fd, State **ret_state) {
        State nobody, *state = &nobody;
        Problem problem = {};
        int r;

        r = state_read(fd, &state, &problem);
        EXPECT(r <= 0);
        EXPECT_EQ(r < 0, state == &nobody);
        EXPECT_EQ(r < 0, problem.text[0] != '\0');
        EXPECT_EQ(r < 0, problem.exit_status != 0);
        EXPECT(!strchr(problem.text, '\n'));
        *ret_state = r < 0 ? NULL : state;
        return r;
}

static void expect_read(int fd, const State *expected) {
        _cleanup_(state_freep) State *state = NULL;

        EXPECT_EQ(read_file(fd, &state), 0);
        EXPECT(same(state, expected));
}

static void expect_error(int fd, int error) {
        _cleanup_(state_freep) State *state = NULL;

        EXPECT_EQ(read_file(fd, &state), error);
}

/* Reads text as an area; the caller frees. NULL: refused with error and, if it is not NULL, what it says. */
static State *parse_text(const char *text, size_t length, int error, const char *says) {
        _cleanup_free_ char *area = NULL;
        State *state = NULL;
        Problem problem = {};
        uint64_t sequence = 7;
        size_t size;
        int r;

        area = forge(text, length, 99, &size);
        r = state_parse(area, size, &sequence, &state, &problem);
        if (r != error)
                fprintf(stderr, "%.*s-> %s\n", (int) length, text, problem.text);
        EXPECT_EQ(r, error);
        EXPECT_EQ(sequence, r < 0 ? 7 : 99);
        if (r < 0 && says)
                EXPECT_STREQ(problem.text, says);
        return state;
}

/* --- what was written is read --- */

static void expect_round_trip(const State *s) {
        _cleanup_(state_file_freep) StateFile *file = NULL;
        _cleanup_(state_freep) State *again = NULL;
        _cleanup_free_ char *data = NULL;
        uint64_t sequence;
        size_t size;

        EXPECT_EQ(state_format(s, 77, &data, &size), 0);
        EXPECT_EQ(state_parse(data, size, &sequence, &again, NULL), 0);
        EXPECT_EQ(sequence, 77);
        EXPECT(same(again, s));

        file = new_file();
        EXPECT_EQ(state_file_write(file, s), 0);
        expect_read(state_file_get_fd(file), s);
}

static void round_trip(void) {
        static const size_t sizes[] = { 0, 1, 2, 15, 16, 17, 1000, STATE_WORKERS_MAX };

        for (size_t i = 0; i < ELEMENTSOF(sizes); i++)
                for (unsigned seed = 0; seed < 6; seed++) {
                        _cleanup_(state_freep) State *s = make_state(sizes[i], seed);

                        expect_round_trip(s);
                }
}

static void extremes(void) {
        static const uint64_t numbers[] = { 0, 1, 9, 10, 99, 100, 101, 999, 1000, 12345, 1234567, UINT32_MAX,
                UINT64_C(4294967296), UINT64_C(9999999999999999999), UINT64_C(10000000000000000000), UINT64_MAX };
        _cleanup_(state_freep) State *s = make_state(STATE_WORKERS_MAX, 1), *small = make_state(3, 0);

        for (size_t i = 0; i < ELEMENTSOF(numbers); i++) {
                small->workers[0].start_time = small->workers[1].cookie = small->workers[2].spawned_usec = numbers[i];
                small->generation = small->workers[1].generation = numbers[i] + (numbers[i] < 2 ? 2 : 0);
                expect_round_trip(small);
        }

        /* As long as it can be. */
        s->generation = UINT64_MAX;
        s->life = STATE_LIFE_REEXECUTED;
        for (size_t i = 0; i < s->n_workers; i++)
                s->workers[i] = (StateWorker) {
                        .slot = UINT32_MAX,
                        .generation = UINT64_MAX,
                        .pid = INT32_MAX,
                        .start_time = UINT64_MAX,
                        .spawned_usec = UINT64_MAX,
                        .cookie = UINT64_MAX,
                        .state = WORKER_RETIRING,
                };
        expect_round_trip(s);
}

/* Other versions rely on every byte of it. */
static void text(void) {
        StateWorker workers[] = {
                { .slot = 3, .generation = 4, .cookie = 6, .state = WORKER_STARTING },
                { .slot = UINT32_MAX, .generation = 12, .pid = INT32_MAX, .start_time = 100, .spawned_usec = 1000000,
                  .cookie = 99, .state = WORKER_KILLING },
        };
        State s = { .life = STATE_LIFE_RESTARTED, .generation = UINT64_MAX, .rolling = true, .started = true,
                .held = true, .n_workers_set = UINT32_MAX, .workers = workers, .n_workers = ELEMENTSOF(workers) };
        _cleanup_free_ char *data = NULL;
        char expected[500];
        size_t size;

        (void) snprintf(expected, sizeof(expected),
                        "version=%u\nmin-reader=%u\nlife=restarted\ngeneration=18446744073709551615\nrolling=1\n"
                        "started=1\nheld=1\nworkers-set=4294967295\nworker=3 4 0 0 0 6 starting\n"
                        "worker=4294967295 12 2147483647 100 1000000 99 killing\n", STATE_VERSION, STATE_MIN_READER);

        EXPECT_EQ(state_format(&s, UINT64_C(0x123456789abcdef0), &data, &size), 0);
        EXPECT_EQ(size, STATE_HEADER_SIZE + strlen(expected));
        EXPECT(memcmp(data + STATE_HEADER_SIZE, expected, strlen(expected)) == 0);
        EXPECT(memcmp(data, "fcgi-pool-state 123456789abcdef0 ", 33) == 0);
        EXPECT(data[41] == ' ' && data[58] == '\n');
        EXPECT_EQ(strtoul(data + 33, NULL, 16), strlen(expected));
}

static void names(void) {
        EXPECT_STREQ(state_life_to_string(STATE_LIFE_RUNNING), "running");
        EXPECT_STREQ(state_life_to_string(STATE_LIFE_RESTARTED), "restarted");
        EXPECT_STREQ(state_life_to_string(STATE_LIFE_REEXECUTED), "reexecuted");
}

static void too_many(void) {
        _cleanup_(state_freep) State *s = make_state(STATE_WORKERS_MAX + 1, 0), *before = make_state(3, 1);
        _cleanup_(state_file_freep) StateFile *file = new_file();
        _cleanup_free_ char *text = NULL;
        char *data = NULL, *p;
        static const char line[] = "worker=1 1 1 1 1 1 ready\n", head[] = "version=1\n";
        State *state;
        size_t size;

        EXPECT_EQ(state_file_write(file, before), 0);
        EXPECT_EQ(state_file_write(file, s), -EFBIG);
        EXPECT_EQ(state_format(s, 1, &data, &size), -EFBIG);
        EXPECT(!data);
        expect_read(state_file_get_fd(file), before);

        /* Somebody else may write what we do not. */
        text = p = malloc(sizeof(head) + (STATE_WORKERS_MAX + 1) * sizeof(line));
        EXPECT(text);
        p = mempcpy(p, head, sizeof(head) - 1);
        for (size_t i = 0; i < STATE_WORKERS_MAX; i++)
                p = mempcpy(p, line, sizeof(line) - 1);
        state = parse_text(text, (size_t) (p - text), 0, NULL);
        EXPECT_EQ(state->n_workers, STATE_WORKERS_MAX);
        state_free(state);
        p = mempcpy(p, line, sizeof(line) - 1);
        parse_text(text, (size_t) (p - text), -EPROTO, "stored state: bad value of \"worker\"");
}

/* --- two areas --- */

static void turns(void) {
        _cleanup_(state_file_freep) StateFile *file = new_file();
        int fd = state_file_get_fd(file);

        EXPECT_EQ(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        for (unsigned i = 0; i < 20; i++) {
                /* Shorter and longer ones, so that there are always rests. */
                _cleanup_(state_freep) State *s = make_state(i % 3 ? 50 - i : 1, i);
                char magic[16];

                EXPECT_EQ(state_file_write(file, s), 0);
                expect_read(fd, s);
                /* With the newest damaged it is the one before. */
                EXPECT_EQ(pread(fd, magic, sizeof(magic), i % 2 * STATE_AREA_SIZE), sizeof(magic));
                EXPECT_EQ(pwrite(fd, "x", 1, i % 2 * STATE_AREA_SIZE), 1);
                if (i == 0)
                        expect_error(fd, -EBADMSG);
                else {
                        _cleanup_(state_freep) State *before = make_state((i - 1) % 3 ? 51 - i : 1, i - 1);

                        expect_read(fd, before);
                }
                EXPECT_EQ(pwrite(fd, magic, sizeof(magic), i % 2 * STATE_AREA_SIZE), sizeof(magic));
        }
        EXPECT_EQ(lseek(fd, 0, SEEK_CUR), 0);
}

/* The helper is killed after it has written part of an area: from its beginning, or, since no one promises
 * the order of pages, from its end. */
static void torn(void) {
        _cleanup_(state_freep) State *oldest = make_state(5, 1), *old = make_state(4, 2), *new = make_state(6, 3);
        _cleanup_(state_file_freep) StateFile *file = new_file();
        _cleanup_free_ char *before = NULL, *after = NULL, *rest = NULL;
        size_t before_size, size;
        int fd = state_file_get_fd(file);

        EXPECT_EQ(state_format(oldest, 1, &before, &before_size), 0);
        EXPECT_EQ(state_format(new, 3, &after, &size), 0);
        EXPECT(before_size < size);
        rest = calloc(size, 1);
        EXPECT(rest);
        memcpy(rest, before, before_size);
        EXPECT_EQ(state_file_write(file, oldest), 0);
        EXPECT_EQ(state_file_write(file, old), 0);

        for (size_t n = 0; n < size; n++) {
                EXPECT_EQ(pwrite(fd, rest, size, 0), size);
                EXPECT_EQ(pwrite(fd, after, n, 0), n);
                expect_read(fd, old);

                EXPECT_EQ(pwrite(fd, rest, size, 0), size);
                EXPECT_EQ(pwrite(fd, after + size - n, n, (off_t) (size - n)), n);
                /* The headers begin alike: then nothing is missing. */
                expect_read(fd, memcmp(rest, after, size - n) == 0 ? new : old);
        }
        EXPECT_EQ(pwrite(fd, after, size, 0), size);
        expect_read(fd, new);

        /* The very first one: there is nothing before it. */
        for (size_t n = 1; n < before_size; n++) {
                EXPECT_EQ(ftruncate(fd, 0), 0);
                EXPECT_EQ(pwrite(fd, before, n, 0), n);
                expect_error(fd, -EBADMSG);
        }
        EXPECT_EQ(ftruncate(fd, 0), 0);
        expect_error(fd, -ENODATA);
}

/* Both areas of a file with first (older) and second (newer) in them. */
typedef struct Image {
        State *states[2];
        char *areas[2];
        size_t sizes[2];
        StateFile *file;
        int fd;
} Image;

static Image make_image(void) {
        Image m = { .states = { make_state(3, 3), make_state(2, 4) }, .file = new_file() };

        m.fd = state_file_get_fd(m.file);
        for (unsigned i = 0; i < 2; i++) {
                EXPECT_EQ(state_file_write(m.file, m.states[i]), 0);
                EXPECT_EQ(state_format(m.states[i], i + 1, m.areas + i, m.sizes + i), 0);
        }
        expect_read(m.fd, m.states[1]);
        return m;
}

static void image_done(Image *m) {
        for (unsigned i = 0; i < 2; i++) {
                state_free(m->states[i]);
                free(m->areas[i]);
        }
        state_file_free(m->file);
}

static void flips(void) {
        _cleanup_(image_done) Image m = make_image();

        for (unsigned i = 0; i < 2; i++)
                for (size_t n = 0; n < m.sizes[i]; n++)
                        for (unsigned value = 0; value < 256; value++) {
                                off_t offset = (off_t) (i * (size_t) STATE_AREA_SIZE + n);
                                char c = (char) value;

                                if (c == m.areas[i][n])
                                        continue;
                                EXPECT_EQ(pwrite(m.fd, &c, 1, offset), 1);
                                /* The area is known to be damaged, so it is always the other one. */
                                expect_read(m.fd, m.states[!i]);
                                EXPECT_EQ(pwrite(m.fd, m.areas[i] + n, 1, offset), 1);
                        }
        expect_read(m.fd, m.states[1]);
}

/* The same with nothing to fall back on, and in memory. */
static void flips_alone(void) {
        _cleanup_(image_done) Image m = make_image();

        for (size_t n = 0; n < m.sizes[0]; n++)
                for (unsigned bit = 0; bit < 8; bit++) {
                        State *state = NULL;
                        Problem problem = {};

                        m.areas[0][n] = (char) (m.areas[0][n] ^ 1 << bit);
                        EXPECT_EQ(state_parse(m.areas[0], m.sizes[0], NULL, &state, &problem), -EBADMSG);
                        EXPECT(!state);
                        m.areas[0][n] = (char) (m.areas[0][n] ^ 1 << bit);
                }
}

/* Two damaged words must not make up for each other: the last byte of each is where a sum by words is weak. */
static void flips_in_pairs(void) {
        _cleanup_(image_done) Image m = make_image();
        char *text = m.areas[0] + STATE_HEADER_SIZE;
        size_t length = m.sizes[0] - STATE_HEADER_SIZE;

        for (size_t a = 0; a < length; a++)
                for (size_t b = a + 1; b < length; b++)
                        for (unsigned bits = 0; bits < 64; bits++) {
                                State *state = NULL;

                                if (bits / 8 != bits % 8 && (a + b) % 7) /* all pairs of the same bit, some others */
                                        continue;
                                text[a] = (char) (text[a] ^ 1 << bits / 8);
                                text[b] = (char) (text[b] ^ 1 << bits % 8);
                                EXPECT_EQ(state_parse(m.areas[0], m.sizes[0], NULL, &state, NULL), -EBADMSG);
                                text[a] = (char) (text[a] ^ 1 << bits / 8);
                                text[b] = (char) (text[b] ^ 1 << bits % 8);
                        }
}

/* The last word is filled up with zeros for the sum; those of a hole behind the text are not part of it. */
static void longer_by_zeros(void) {
        static const char line[] = "version=1\n\0\0\0\0\0";
        _cleanup_free_ char *area = calloc(1, STATE_HEADER_SIZE + sizeof(line));
        State *state = NULL;

        EXPECT(area);
        memcpy(area + STATE_HEADER_SIZE, line, sizeof(line));
        state_seal(area, STATE_HEADER_SIZE + 10, 1);
        EXPECT_EQ(area[40], 'a');
        for (char c = 'b'; c <= 'f'; c++) {
                area[40] = c;
                EXPECT_EQ(state_parse(area, STATE_HEADER_SIZE + sizeof(line), NULL, &state, NULL), -EBADMSG);
        }
        area[40] = 'a';
        EXPECT_EQ(state_parse(area, STATE_HEADER_SIZE + sizeof(line), NULL, &state, NULL), 0);
        state_free(state);
}

static void cuts(void) {
        _cleanup_(image_done) Image m = make_image();

        /* In the second area, then in the hole, then in the first one. */
        for (size_t n = m.sizes[1]; n > 0; n--) {
                EXPECT_EQ(ftruncate(m.fd, (off_t) (STATE_AREA_SIZE + n)), 0);
                expect_read(m.fd, m.states[n == m.sizes[1]]);
        }
        for (size_t n = STATE_AREA_SIZE; n > m.sizes[0] + 2; n -= (n - m.sizes[0]) / 2) {
                EXPECT_EQ(ftruncate(m.fd, (off_t) n), 0);
                expect_read(m.fd, m.states[0]);
        }
        EXPECT_EQ(ftruncate(m.fd, (off_t) m.sizes[0]), 0);
        expect_read(m.fd, m.states[0]);
        for (size_t n = m.sizes[0] - 1; n > 0; n--) {
                EXPECT_EQ(ftruncate(m.fd, (off_t) n), 0);
                expect_error(m.fd, -EBADMSG);
        }
        EXPECT_EQ(ftruncate(m.fd, 0), 0);
        expect_error(m.fd, -ENODATA);

        /* In memory, where a read beyond the end is seen by valgrind and sanitizers. */
        for (size_t n = 0; n < m.sizes[0]; n++) {
                _cleanup_free_ char *copy = malloc(n + (n == 0));
                State *state = NULL;

                EXPECT(copy);
                memcpy(copy, m.areas[0], n);
                EXPECT_EQ(state_parse(copy, n, NULL, &state, NULL), -EBADMSG);
        }
        EXPECT_EQ(state_parse(NULL, 0, NULL, &(State *) { NULL }, NULL), -EBADMSG);
}

/* Cut, and then grown again: what is missing reads as zeros. */
static void holes(void) {
        _cleanup_(image_done) Image m = make_image();

        for (size_t n = 0; n < m.sizes[1]; n++) {
                EXPECT_EQ(ftruncate(m.fd, (off_t) (STATE_AREA_SIZE + n)), 0);
                EXPECT_EQ(ftruncate(m.fd, (off_t) (STATE_AREA_SIZE + m.sizes[1])), 0);
                expect_read(m.fd, m.states[0]);
                EXPECT_EQ(pwrite(m.fd, m.areas[1], m.sizes[1], STATE_AREA_SIZE), m.sizes[1]);
        }
        expect_read(m.fd, m.states[1]);
}

/* Which area wins, and which one is written next. */
static void sequences(void) {
        static const struct {
                uint64_t first, second;
                unsigned newest;
        } table[] = {
                { 1, 2, 1 }, { 2, 1, 0 }, { 3, 2, 0 }, { 2, 3, 1 }, { 0, 1, 1 }, { 1, 0, 0 }, { 1, 100, 1 },
                { UINT64_MAX, 0, 1 }, { 0, UINT64_MAX, 0 }, { UINT64_MAX, UINT64_MAX - 1, 0 },
                { UINT64_MAX - 1, UINT64_MAX, 1 }, { INT64_MAX, (uint64_t) INT64_MAX + 1, 1 },
                { 5, UINT64_C(5) + INT64_MAX, 1 }, { UINT64_C(0xffffffff), UINT64_C(0x100000000), 1 },
                /* What we never write. */
                { 7, 7, 0 }, { 0, 0, 0 },
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                static const char *const texts[] = { "version=1\ngeneration=100\n", "version=1\ngeneration=200\n" };
                _cleanup_(state_freep) State *state = NULL, *written = make_state(2, 1);
                _cleanup_(state_file_freep) StateFile *file = NULL, *made = new_file();
                uint64_t newest = table[i].newest ? table[i].second : table[i].first;
                _cleanup_free_ char *expected = NULL, *found = NULL;
                size_t size;
                int fd;

                fd = dup(state_file_get_fd(made));
                EXPECT(fd >= 0);
                put_area(fd, 0, texts[0], table[i].first);
                put_area(fd, 1, texts[1], table[i].second);
                EXPECT_EQ(read_file(fd, &state), 0);
                EXPECT_EQ(state->generation, table[i].newest ? 200 : 100);

                EXPECT_EQ(state_file_attach(fd, &file), 0);
                EXPECT_EQ(state_file_get_fd(file), fd);
                EXPECT_EQ(state_file_write(file, written), 0);
                expect_read(fd, written);
                EXPECT_EQ(state_format(written, newest + 1, &expected, &size), 0);
                found = malloc(size);
                EXPECT(found);
                EXPECT_EQ(pread(fd, found, size, (off_t) !table[i].newest * STATE_AREA_SIZE), size);
                EXPECT(memcmp(found, expected, size) == 0);
        }
}

static void one_area(void) {
        for (unsigned i = 0; i < 2; i++) {
                _cleanup_(state_freep) State *state = NULL, *written = make_state(1, 5);
                _cleanup_(state_file_freep) StateFile *made = new_file(), *file = NULL;
                int fd = dup(state_file_get_fd(made));

                EXPECT(fd >= 0);
                put_area(fd, i, "version=1\ngeneration=6\n", 40);
                EXPECT_EQ(read_file(fd, &state), 0);
                EXPECT_EQ(state->generation, 6);
                EXPECT_EQ(state_file_attach(fd, &file), 0);
                EXPECT_EQ(state_file_write(file, written), 0);
                expect_read(fd, written);
                /* The one found is still there. */
                EXPECT_EQ(pwrite(fd, "x", 1, (off_t) !i * STATE_AREA_SIZE), 1);
                state = state_free(state);
                EXPECT_EQ(read_file(fd, &state), 0);
                EXPECT_EQ(state->generation, 6);
        }
}

/* Helpers that come and go, each at another point of the sequence. */
static void handed_on(void) {
        _cleanup_(state_file_freep) StateFile *first = new_file();
        int fd = state_file_get_fd(first);

        for (unsigned i = 0; i < 12; i++) {
                _cleanup_(state_file_freep) StateFile *file = NULL;

                EXPECT_EQ(state_file_attach(dup(fd), &file), 0);
                for (unsigned k = 0; k < i % 4; k++) {
                        _cleanup_(state_freep) State *s = make_state(i, i + k);

                        EXPECT_EQ(state_file_write(file, s), 0);
                        expect_read(fd, s);
                }
        }
}

/* --- files that are not ours --- */

static void expect_foreign(int fd) {
        StateFile *file = NULL;

        EXPECT(fd >= 0);
        expect_error(fd, -EBADMSG);
        EXPECT_EQ(state_file_attach(fd, &file), -EBADMSG);
        EXPECT(!file);
        EXPECT(fcntl(fd, F_GETFD) >= 0); /* still the caller's */
        (void) close(fd);
}

static void foreign(void) {
        char path[] = "/proc/version"; /* valgrind has its own /proc/self/cmdline */
        int p[2];

        EXPECT_EQ(pipe2(p, O_CLOEXEC), 0);
        expect_foreign(p[0]);
        expect_foreign(p[1]);
        expect_foreign(open("/dev/zero", O_RDWR | O_CLOEXEC));
        expect_foreign(open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        expect_foreign(open(path, O_RDONLY | O_CLOEXEC));
        expect_foreign(open(path, O_PATH | O_CLOEXEC));
}

/* A memfd, but what is in it is somebody else's, or nonsense of any size: said, and written over. */
static void nonsense(void) {
        static const char *const texts[] = {
                "x", "\n", "fcgi-pool-state", "fcgi-pool-state \n",
                "fcgi-pool-state 0000000000000001 00000000 0000000000000000\n",
                "fcgi-pool-state 0000000000000001 ffffffff 0000000000000000\n",
                "fcgi-pool-state 0000000000000001 007fffc5 0000000000000000\n",
                "fcgi-pool-state 0000000000000001 00000001 0000000000000000\n",
                "fcgi-pool-state +000000000000001 0000000a 0000000000000000\nversion=1\n",
                "#!/bin/sh\nexec this-is-a-shell-script-that-is-longer-than-a-header \"$@\"\n",
        };
        static const off_t sizes[] = { 0, 1, 58, 59, 60, STATE_AREA_SIZE - 1, STATE_AREA_SIZE, STATE_AREA_SIZE + 1,
                STATE_AREA_SIZE + 59, 2 * STATE_AREA_SIZE, 3 * STATE_AREA_SIZE + 1, (off_t) 1 << 40 };
        _cleanup_(state_freep) State *s = make_state(3, 1);

        for (size_t i = 0; i < ELEMENTSOF(texts); i++)
                for (size_t k = 0; k < ELEMENTSOF(sizes); k++)
                        for (unsigned area = 0; area < 2; area++) {
                                _cleanup_(state_file_freep) StateFile *made = new_file(), *file = NULL;
                                off_t end = (off_t) (area * STATE_AREA_SIZE + strlen(texts[i]));
                                int fd = dup(state_file_get_fd(made));

                                EXPECT(fd >= 0);
                                EXPECT_EQ(pwrite(fd, texts[i], strlen(texts[i]), (off_t) area * STATE_AREA_SIZE),
                                          strlen(texts[i]));
                                EXPECT_EQ(ftruncate(fd, MAX_OF(end, sizes[k])), 0);
                                expect_error(fd, -EBADMSG);
                                EXPECT_EQ(state_file_attach(fd, &file), 0);
                                EXPECT_EQ(state_file_write(file, s), 0);
                                expect_read(fd, s);
                        }
}

/* A header cannot claim the other area for its text. */
static void overlap(void) {
        _cleanup_(state_file_freep) StateFile *file = new_file();
        size_t size = STATE_AREA_SIZE;
        _cleanup_free_ char *area = malloc(size);
        _cleanup_(state_freep) State *state = NULL;
        int fd = state_file_get_fd(file);

        EXPECT(area);
        memset(area, '\n', size);
        memcpy(area + STATE_HEADER_SIZE, "version=1\ngeneration=3", 22);
        state_seal(area, size, 5);
        EXPECT_EQ(pwrite(fd, area, size, 0), size);
        EXPECT_EQ(read_file(fd, &state), 0); /* as long as it may be */
        EXPECT_EQ(state->generation, 3);
        put_area(fd, 1, "version=1\ngeneration=4\n", 4);
        expect_read(fd, state);
        put_area(fd, 1, "version=1\ngeneration=5\n", 6);
        state = state_free(state);
        EXPECT_EQ(read_file(fd, &state), 0);
        EXPECT_EQ(state->generation, 5);
}

static void unwritable(void) {
        static const unsigned seals[] = { F_SEAL_WRITE, F_SEAL_GROW };
        _cleanup_(state_freep) State *s = make_state(2, 2);
        StateFile *none = NULL;
        char path[64];
        int fd;

        for (size_t i = 0; i < ELEMENTSOF(seals) + 2; i++) {
                _cleanup_free_ char *data = NULL;
                size_t size;

                EXPECT_EQ(state_format(s, 1, &data, &size), 0);
                fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
                EXPECT(fd >= 0);
                EXPECT_EQ(pwrite(fd, data, size, 0), size);
                if (i < ELEMENTSOF(seals))
                        EXPECT_EQ(fcntl(fd, F_ADD_SEALS, seals[i]), 0);
                else {
                        int again;

                        (void) snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
                        again = open(path, O_CLOEXEC | (i == ELEMENTSOF(seals) ? O_RDONLY : O_RDWR | O_APPEND));
                        EXPECT(again >= 0);
                        (void) close(fd);
                        fd = again;
                }
                expect_read(fd, s); /* can be read all the same */
                EXPECT_EQ(state_file_attach(fd, &none), -EBADMSG);
                EXPECT(!none);
                EXPECT_EQ(close(fd), 0);
        }
}

/* Nobody else who holds it can end our writing. */
static void no_seals(void) {
        _cleanup_(state_file_freep) StateFile *file = new_file();

        EXPECT_EQ(fcntl(state_file_get_fd(file), F_ADD_SEALS, F_SEAL_WRITE), -1);
        EXPECT_EQ(errno, EPERM);
}

/* In a process of its own, for the limit. */
static void write_within_limits(StateFile *file, const State *small, const State *smaller, const State *big) {
        struct rlimit limit = { 5000, RLIM_INFINITY };
        int fd = state_file_get_fd(file);

        (void) signal(SIGXFSZ, SIG_IGN);
        EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
        for (unsigned i = 0; i < 3; i++) {
                EXPECT_EQ(state_file_write(file, big), -EFBIG);
                expect_read(fd, smaller);
        }
        EXPECT_EQ(state_file_write(file, small), 0);
        expect_read(fd, small);
        EXPECT_EQ(state_file_write(file, smaller), -EFBIG); /* the second area is out of reach */
        expect_read(fd, small);
        limit.rlim_cur = RLIM_INFINITY;
        EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
        EXPECT_EQ(state_file_write(file, big), 0);
        expect_read(fd, big);
}

/* A write that fails costs nothing but itself: not the state before it, nor the next one. */
static void failed_write(void) {
        State *small = make_state(2, 1), *smaller = make_state(1, 2), *big = make_state(200, 3);
        StateFile *file = new_file();
        pid_t pid;
        int status;

        EXPECT_EQ(state_file_write(file, small), 0);
        EXPECT_EQ(state_file_write(file, smaller), 0); /* the next one goes to the first area */

        pid = fork();
        EXPECT(pid >= 0);
        if (pid == 0)
                write_within_limits(file, small, smaller, big);
        else {
                EXPECT(waitpid(pid, &status, 0) == pid);
                EXPECT_EQ(status, 0);
                expect_read(state_file_get_fd(file), big); /* one file, whoever wrote it */
        }

        state_file_free(file);
        state_free(small);
        state_free(smaller);
        state_free(big);
        if (pid == 0)
                _exit(0);
}

/* --- other versions --- */

#define TEXT(s) s, sizeof(s) - 1

static void later_version(void) {
        static const char later[] =
                "charset=utf-8 and more\n"
                "version=4294967295 of=mars\n"
                "min-reader=1 really\n"
                "life=reexecuted at=noon\n"
                "generation=9 8 7\n"
                "rolling=1 slowly\n"
                "started=1 1\n"
                "held=1 tight\n"
                "workers-set=12 dozen\n"
                "no equals sign\n"
                "\n"
                "=\n"
                "workers=many\n"
                "worker\n"
                "Worker=x\n"
                "worker-limit=3\n"
                "worker=1 2 3 4 5 6 retiring since=12 \xff\x01\n"
                "generations=all\n"
                "worker=7 8 9 10 11 12 ready  \n";
        StateWorker workers[] = {
                { .slot = 1, .generation = 2, .pid = 3, .start_time = 4, .spawned_usec = 5, .cookie = 6,
                  .state = WORKER_RETIRING },
                { .slot = 7, .generation = 8, .pid = 9, .start_time = 10, .spawned_usec = 11, .cookie = 12,
                  .state = WORKER_READY },
        };
        State expected = { .life = STATE_LIFE_REEXECUTED, .generation = 9, .rolling = true, .started = true,
                .held = true, .n_workers_set = 12, .workers = workers, .n_workers = 2 };
        _cleanup_(state_freep) State *state = parse_text(TEXT(later), 0, NULL);

        EXPECT(same(state, &expected));
}

static void too_late_version(void) {
        _cleanup_(state_file_freep) StateFile *file = new_file(), *older = NULL;
        _cleanup_(state_freep) State *s = make_state(1, 1);
        int fd = state_file_get_fd(file);
        char text[200], says[200];

        (void) snprintf(text, sizeof(text), "version=%u\nmin-reader=%u\nworker=0x1\n", STATE_VERSION + 5,
                        STATE_VERSION + 1);
        (void) snprintf(says, sizeof(says),
                        "stored state: version %u, which needs a reader of version %u; we are %u", STATE_VERSION + 5,
                        STATE_VERSION + 1, STATE_VERSION);
        parse_text(text, strlen(text), -EPROTONOSUPPORT, says);
        parse_text(TEXT("min-reader=4294967295\nversion=4294967295\n"), -EPROTONOSUPPORT, NULL);

        /* Wherever it stands, nothing else is looked at before. */
        (void) snprintf(text, sizeof(text), "worker={json}\nlife=42\nrolling=maybe\nversion=%u\nmin-reader=%u\n",
                        STATE_VERSION + 5, STATE_VERSION + 1);
        parse_text(text, strlen(text), -EPROTONOSUPPORT, says);
        /* Said twice, the stricter one counts. */
        (void) snprintf(text, sizeof(text), "version=%u\nmin-reader=%u\nmin-reader=1\n", STATE_VERSION + 5,
                        STATE_VERSION + 1);
        parse_text(text, strlen(text), -EPROTONOSUPPORT, says);

        /* The state before it was ours, and is out of date. */
        EXPECT_EQ(state_file_write(file, s), 0);
        put_area(fd, 1, text, 2);
        expect_error(fd, -EPROTONOSUPPORT);
        put_area(fd, 1, "version=1\nlife=lively\n", 2);
        expect_error(fd, -EPROTO);
        EXPECT_EQ(pwrite(fd, "F", 1, STATE_AREA_SIZE), 1);
        expect_read(fd, s);

        /* Written over by the older one: next to it, so that the later helper may still look. */
        put_area(fd, 1, text, 2);
        EXPECT_EQ(state_file_attach(dup(fd), &older), 0);
        EXPECT_EQ(state_file_write(older, s), 0);
        expect_read(fd, s);
        EXPECT_EQ(pwrite(fd, "F", 1, 0), 1);
        expect_error(fd, -EPROTONOSUPPORT);
}

static void earlier_version(void) {
        StateWorker worker = { .slot = 1, .generation = 7, .pid = 3, .start_time = 4, .spawned_usec = 5, .cookie = 6,
                .state = WORKER_DEAD };
        State nothing = {}, expected = { .generation = 7, .workers = &worker, .n_workers = 1 };
        State *state;

        state = parse_text(TEXT("version=1\n"), 0, NULL);
        EXPECT(same(state, &nothing));
        state_free(state);

        /* The newest generation is at least that of each worker, said or not. */
        state = parse_text(TEXT("version=1\nworker=1 7 3 4 5 6 dead\n"), 0, NULL);
        EXPECT(same(state, &expected));
        state_free(state);
        state = parse_text(TEXT("version=1\nworker=1 7 3 4 5 6 dead\ngeneration=2\n"), 0, NULL);
        EXPECT(same(state, &expected));
        state_free(state);
}

static void bad_values(void) {
        static const struct {
                const char *line, *key;
        } table[] = {
                { "version=", "version" }, { "version=x", "version" }, { "version=-1", "version" },
                { "version=4294967296", "version" }, { "version=0", "version" }, { "version= 1", "version" },
                { "version=+1", "version" }, { "version=1x", "version" }, { "version=1\t", "version" },
                { "min-reader=", "min-reader" }, { "min-reader=one", "min-reader" },
                { "min-reader=4294967296", "min-reader" },
                { "life=", "life" }, { "life=run", "life" }, { "life=runningx", "life" }, { "life= running", "life" },
                { "life=Running", "life" }, { "life=running\t", "life" },
                { "generation=", "generation" }, { "generation=-1", "generation" },
                { "generation=18446744073709551616", "generation" }, { "generation=0x10", "generation" },
                { "generation=99999999999999999999999999999999999999999999999999", "generation" },
                { "generation=36893488147419103232", "generation" }, /* 2^65: 0 if it wraps */
                { "rolling=2", "rolling" }, { "rolling=yes", "rolling" }, { "rolling=", "rolling" },
                { "started=2", "started" }, { "started=", "started" }, { "held=2", "held" }, { "held=", "held" },
                { "workers-set=4294967296", "workers-set" }, { "workers-set=-1", "workers-set" },
                { "worker=", "worker" }, { "worker=1", "worker" }, { "worker=1 ", "worker" },
                { "worker=1 2 3 4 5 6", "worker" }, { "worker=1 2 3 4 5 6 ", "worker" },
                { "worker=1 2 3 4 5 ready", "worker" }, { "worker=1 2 3 4 5 6 7 ready", "worker" },
                { "worker=1 2 3 4 5 6 reads", "worker" }, { "worker=1 2 3 4 5 6 readyready", "worker" },
                { "worker=1 2 3 4 5 6 Ready", "worker" }, { "worker= 1 2 3 4 5 6 ready", "worker" },
                { "worker=1  2 3 4 5 6 ready", "worker" }, { "worker=1 2 3 4 5 6  ready", "worker" },
                { "worker=1\t2 3 4 5 6 ready", "worker" }, { "worker=1 2 -3 4 5 6 ready", "worker" },
                { "worker=4294967296 2 3 4 5 6 ready", "worker" }, { "worker=1 2 2147483648 4 5 6 ready", "worker" },
                { "worker=1 18446744073709551616 3 4 5 6 ready", "worker" },
                { "worker=1 2 3 18446744073709551616 5 6 ready", "worker" },
                { "worker=1 2 3 4 18446744073709551616 6 ready", "worker" },
                { "worker=1 2 3 4 5 18446744073709551616 ready", "worker" },
                { "worker=a 2 3 4 5 6 ready", "worker" }, { "worker=1 2 3 4 5 6 7", "worker" },
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                char text[200], says[200];

                (void) snprintf(says, sizeof(says), "stored state: bad value of \"%s\"", table[i].key);
                (void) snprintf(text, sizeof(text), "version=1\n%s\nworker=1 2 3 4 5 6 ready\n", table[i].line);
                parse_text(text, strlen(text), -EPROTO, says);
                (void) snprintf(text, sizeof(text), "worker=1 2 3 4 5 6 ready\nversion=1\n%s\n", table[i].line);
                parse_text(text, strlen(text), -EPROTO, says);
        }
        parse_text(TEXT(""), -EPROTO, "stored state: bad value of \"version\"");
        parse_text(TEXT("\n"), -EPROTO, "stored state: bad value of \"version\"");
        parse_text(TEXT("generation=4\n"), -EPROTO, "stored state: bad value of \"version\"");
}

/* Nothing is believed that was read only in part. */
static void not_text(void) {
        static const char says[] = "stored state: not lines of text";

        parse_text(TEXT("version=1\ngeneration=4"), -EPROTO, says);
        parse_text(TEXT("x"), -EPROTO, says);
        parse_text(TEXT("version=1\n\0worker=1 2 3 4 5 6 ready\n"), -EPROTO, says);
        parse_text(TEXT("version=1\nunknown=\0\n"), -EPROTO, says);
        parse_text(TEXT("version=1\n\0"), -EPROTO, says);
        parse_text(TEXT("\0"), -EPROTO, says);
}

TEST_MAIN(TEST(round_trip), TEST(extremes), TEST(text), TEST(names), TEST(too_many), TEST(turns), TEST(torn), TEST(flips),
          TEST(flips_alone), TEST(flips_in_pairs), TEST(longer_by_zeros), TEST(cuts), TEST(holes), TEST(sequences),
          TEST(one_area), TEST(handed_on), TEST(foreign), TEST(nonsense), TEST(overlap), TEST(unwritable), TEST(no_seals),
          TEST(failed_write), TEST(later_version), TEST(too_late_version), TEST(earlier_version), TEST(bad_values),
          TEST(not_text))
