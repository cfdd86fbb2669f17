/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The state file.
 *
 * A memfd is sparse, so the second area simply begins where the first can never reach; not further away
 * than that, for RLIMIT_FSIZE counts holes. An area is one header line of fixed width - magic, sequence,
 * length, checksum - and lines of KEY=VALUE. The checksum covers sequence, length and text, so a write
 * that was cut short does not add up; the other area is then the newest. Which one is next to be written
 * is remembered by its place: a write that failed is repeated there.
 *
 * The text is for people too: /proc/PID/fd/N of the helper can be read with "tr -d '\0'".
 *
 * The reader believes nothing. It is fed by whoever ran as this user before us, it may be a later
 * version, and a helper that refuses to start over its state would turn a small loss into an outage; so
 * everything that is wrong ends in an error that the caller survives. Numbers out of range are errors,
 * unknown keys and further words on a line are not. */

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "state.h"

/* Linux 6.3; without it vm.memfd_noexec=2 refuses the memfd. */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
/* Linux 5.1 */
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define TEXT_MAX (STATE_AREA_SIZE - STATE_HEADER_SIZE)

#define MAGIC "fcgi-pool-state "
#define HEADER_FORMAT MAGIC "%016" PRIx64 " %08x %016" PRIx64 "\n"

/* No text is longer than its bounds, so it is formatted without looking at every byte. */
#define NUMBER_MAX "18446744073709551615 "
#define STATE_NAME_MAX 12U
#define POOL_TEXT_MAX 256U
#define WORKER_LINE_MAX \
        (sizeof("worker=4294967295 2147483647 \n") - 1 + 4 * (sizeof(NUMBER_MAX) - 1) + STATE_NAME_MAX)

static_assert(STATE_HEADER_SIZE == sizeof(MAGIC) - 1 + 16 + 1 + 8 + 1 + 16 + 1, "the header is that wide");
static_assert(POOL_TEXT_MAX + STATE_WORKERS_MAX * WORKER_LINE_MAX <= TEXT_MAX, "as many workers fit");

struct StateFile {
        int fd;            /* owned */
        uint64_t sequence; /* of the newest area */
        unsigned next;     /* the area that does not hold it */
        char *buffer;      /* owned; kept, so that most writes allocate nothing */
        size_t allocated;
};

static const char *const life_names[] = {
        [STATE_LIFE_RUNNING] = "running",
        [STATE_LIFE_RESTARTED] = "restarted",
        [STATE_LIFE_REEXECUTED] = "reexecuted",
};

static_assert(ELEMENTSOF(life_names) == _STATE_LIFE_MAX, "every life has a name");

const char *state_life_to_string(StateLife life) {
        assert(life < _STATE_LIFE_MAX);
        return life_names[life];
}

State *state_free(State *state) {
        if (!state)
                return NULL;

        free(state->workers);
        free(state);
        return NULL;
}

/* It has to tell torn from whole, not friend from foe. FNV-1a by words of the machine that both writes
 * and reads it, and with the high half folded into the low one: each step can be undone, so that one
 * changed word always changes the sum. */
static uint64_t checksum(uint64_t sequence, uint32_t length, const char *text) {
        const uint64_t prime = UINT64_C(0x100000001b3);
        uint64_t word = 0, sum = UINT64_C(0xcbf29ce484222325);
        size_t i;

        sum = (sum ^ sequence) * prime;
        sum ^= sum >> 32;
        sum = (sum ^ length) * prime;
        sum ^= sum >> 32;
        for (i = 0; length - i >= sizeof(word); i += sizeof(word)) {
                memcpy(&word, text + i, sizeof(word));
                sum = (sum ^ word) * prime;
                sum ^= sum >> 32;
        }
        word = 0;
        memcpy(&word, text + i, length - i);
        sum = (sum ^ word) * prime;
        return sum ^ (sum >> 32);
}

/* --- writing --- */

void state_seal(char *area, size_t size, uint64_t sequence) {
        char header[STATE_HEADER_SIZE + 1];
        uint32_t length;

        assert(area);
        assert(size >= STATE_HEADER_SIZE && size <= STATE_AREA_SIZE);

        length = (uint32_t) (size - STATE_HEADER_SIZE);
        (void) snprintf(header, sizeof(header), HEADER_FORMAT, sequence, length,
                        checksum(sequence, length, area + STATE_HEADER_SIZE));
        memcpy(area, header, STATE_HEADER_SIZE);
}

/* Appends n, two digits at a time, and the character that ends it. */
static char *put_number(char *p, uint64_t n, char end) {
        char digits[20], *d = digits + sizeof(digits);
        size_t l;

        for (; n >= 100; n /= 100) {
                unsigned two = (unsigned) (n % 100);

                *--d = (char) ('0' + two % 10);
                *--d = (char) ('0' + two / 10);
        }
        *--d = (char) ('0' + n % 10);
        if (n >= 10)
                *--d = (char) ('0' + n / 10);

        l = (size_t) (digits + sizeof(digits) - d);
        memcpy(p, d, l);
        p[l] = end;
        return p + l + 1;
}

static char *put_worker(char *p, const StateWorker *w) {
        const char *name = worker_state_to_string(w->state);
        size_t l = strlen(name);

        assert(w->pid >= 0);
        assert(l <= STATE_NAME_MAX);

        p = mempcpy(p, "worker=", strlen("worker="));
        p = put_number(p, w->slot, ' ');
        p = put_number(p, w->generation, ' ');
        p = put_number(p, (uint64_t) w->pid, ' ');
        p = put_number(p, w->start_time, ' ');
        p = put_number(p, w->spawned_usec, ' ');
        p = put_number(p, w->cookie, ' ');
        p = mempcpy(p, name, l);
        *p++ = '\n';
        return p;
}

/* Formats into a buffer that grows and stays the caller's, on failure too. */
static int format_area(const State *state, uint64_t sequence, char **buffer, size_t *allocated,
                       size_t *ret_size) {
        size_t needed;
        char *p;
        int n;

        if (state->n_workers > STATE_WORKERS_MAX)
                return -EFBIG;

        needed = STATE_HEADER_SIZE + POOL_TEXT_MAX + state->n_workers * WORKER_LINE_MAX;
        if (needed > *allocated) {
                p = realloc(*buffer, needed);
                if (!p)
                        return -ENOMEM;
                *buffer = p;
                *allocated = needed;
        }

        p = *buffer + STATE_HEADER_SIZE;
        n = snprintf(p, POOL_TEXT_MAX,
                     "version=%u\nmin-reader=%u\nlife=%s\ngeneration=%" PRIu64 "\nrolling=%d\n"
                     "started=%d\nheld=%d\nworkers-set=%u\n",
                     STATE_VERSION, STATE_MIN_READER, state_life_to_string(state->life), state->generation,
                     state->rolling, state->started, state->held, state->n_workers_set);
        assert(n > 0 && (unsigned) n < POOL_TEXT_MAX);
        p += n;
        for (size_t i = 0; i < state->n_workers; i++)
                p = put_worker(p, state->workers + i);

        *ret_size = (size_t) (p - *buffer);
        state_seal(*buffer, *ret_size, sequence);
        return 0;
}

int state_format(const State *state, uint64_t sequence, char **ret_data, size_t *ret_size) {
        _cleanup_free_ char *data = NULL;
        size_t allocated = 0, size;
        int r;

        assert(state);
        assert(ret_data);
        assert(ret_size);

        r = format_area(state, sequence, &data, &allocated, &size);
        if (r < 0)
                return r;

        *ret_data = TAKE_PTR(data);
        *ret_size = size;
        return 0;
}

static int write_all(int fd, const char *data, size_t size, off_t offset) {
        while (size > 0) {
                ssize_t n = pwrite(fd, data, size, offset);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : -EIO;
                data += n;
                size -= (size_t) n;
                offset += n;
        }
        return 0;
}

int state_file_write(StateFile *file, const State *state) {
        size_t size;
        int r;

        assert(file);
        assert(state);

        r = format_area(state, file->sequence + 1, &file->buffer, &file->allocated, &size);
        if (r >= 0)
                r = write_all(file->fd, file->buffer, size, (off_t) file->next * STATE_AREA_SIZE);
        if (r < 0)
                return r;

        file->sequence++;
        file->next = !file->next;
        return 0;
}

/* --- the text --- */

typedef struct Reader {
        State *state;
        size_t allocated;
        unsigned version, min_reader;
        const char *complaint;
} Reader;

typedef int (*ReadLine)(Reader *r, const char *line);

/* Lines end in a newline that the reader has made sure of; nothing below looks beyond it. */
static bool at_end_of_word(const char *p) {
        return *p == ' ' || *p == '\n';
}

/* startswith() for what is no string: stops at the first difference, at the latest at the newline. */
static const char *behind(const char *p, const char *word) {
        for (; *word; p++, word++)
                if (*p != *word)
                        return NULL;
        return p;
}

/* Reads a decimal number of at most max and the blank behind it. */
static bool read_number(const char **p, uint64_t max, uint64_t *ret) {
        const char *q = *p;
        uint64_t n = 0;

        for (; *q >= '0' && *q <= '9'; q++)
                if (__builtin_mul_overflow(n, 10U, &n) ||
                    __builtin_add_overflow(n, (unsigned) (*q - '0'), &n))
                        return false;
        if (q == *p || n > max || !at_end_of_word(q))
                return false;

        *p = q + (*q == ' ');
        *ret = n;
        return true;
}

static bool read_word(const char *p, const char *word) {
        const char *end = behind(p, word);

        return end && at_end_of_word(end);
}

static bool read_unsigned(const char *p, unsigned *ret) {
        uint64_t n;

        if (!read_number(&p, UINT32_MAX, &n))
                return false;
        *ret = (unsigned) n;
        return true;
}

static bool read_life(const char *p, StateLife *ret) {
        for (unsigned i = 0; i < _STATE_LIFE_MAX; i++)
                if (read_word(p, life_names[i])) {
                        *ret = (StateLife) i;
                        return true;
                }
        return false;
}

static bool read_worker_state(const char *p, WorkerState *ret) {
        for (unsigned i = 0; i < _WORKER_STATE_MAX; i++)
                if (read_word(p, worker_state_to_string((WorkerState) i))) {
                        *ret = (WorkerState) i;
                        return true;
                }
        return false;
}

static bool read_worker(const char *p, StateWorker *ret) {
        uint64_t slot, pid;
        StateWorker w;

        if (!read_number(&p, UINT32_MAX, &slot) || !read_number(&p, UINT64_MAX, &w.generation) ||
            !read_number(&p, INT32_MAX, &pid) || !read_number(&p, UINT64_MAX, &w.start_time) ||
            !read_number(&p, UINT64_MAX, &w.spawned_usec) || !read_number(&p, UINT64_MAX, &w.cookie) ||
            !read_worker_state(p, &w.state))
                return false;

        w.slot = (unsigned) slot;
        w.pid = (pid_t) pid;
        *ret = w;
        return true;
}

static int append_worker(Reader *r, const StateWorker *w) {
        State *s = r->state;

        if (s->n_workers >= STATE_WORKERS_MAX)
                return -EPROTO;
        if (s->n_workers >= r->allocated) {
                size_t n = MAX_OF(r->allocated * 2, (size_t) 16);
                StateWorker *grown = realloc(s->workers, n * sizeof(*grown));

                if (!grown)
                        return -ENOMEM;
                s->workers = grown;
                r->allocated = n;
        }

        s->workers[s->n_workers++] = *w;
        s->generation = MAX_OF(s->generation, w->generation);
        return 0;
}

/* What has to be known before anything else is believed, wherever it stands. */
static int read_version_line(Reader *r, const char *line) {
        const char *value;
        unsigned n;

        if ((value = behind(line, "version="))) {
                r->complaint = "version";
                if (!read_unsigned(value, &r->version))
                        return -EPROTO;
        } else if ((value = behind(line, "min-reader="))) {
                r->complaint = "min-reader";
                if (!read_unsigned(value, &n))
                        return -EPROTO;
                r->min_reader = MAX_OF(r->min_reader, n);
        }
        return 0;
}

static int read_line(Reader *r, const char *line) {
        const char *value;
        StateWorker w;
        uint64_t n;

        if ((value = behind(line, "worker="))) {
                r->complaint = "worker";
                return read_worker(value, &w) ? append_worker(r, &w) : -EPROTO;
        }
        if ((value = behind(line, "generation="))) {
                r->complaint = "generation";
                if (!read_number(&value, UINT64_MAX, &n))
                        return -EPROTO;
                r->state->generation = MAX_OF(r->state->generation, n);
        } else if ((value = behind(line, "rolling="))) {
                r->complaint = "rolling";
                if (!read_number(&value, 1, &n))
                        return -EPROTO;
                r->state->rolling = n == 1;
        } else if ((value = behind(line, "started="))) {
                r->complaint = "started";
                if (!read_number(&value, 1, &n))
                        return -EPROTO;
                r->state->started = n == 1;
        } else if ((value = behind(line, "held="))) {
                r->complaint = "held";
                if (!read_number(&value, 1, &n))
                        return -EPROTO;
                r->state->held = n == 1;
        } else if ((value = behind(line, "workers-set="))) {
                r->complaint = "workers-set";
                if (!read_unsigned(value, &r->state->n_workers_set))
                        return -EPROTO;
        } else if ((value = behind(line, "life="))) {
                r->complaint = "life";
                if (!read_life(value, &r->state->life))
                        return -EPROTO;
        }
        return 0; /* A later version may know more. */
}

static int for_each_line(const char *text, size_t length, ReadLine read, Reader *reader) {
        for (const char *line = text, *end = text + length; line < end;) {
                const char *newline = memchr(line, '\n', (size_t) (end - line));
                int r;

                assert(newline);
                r = read(reader, line);
                if (r < 0)
                        return r;
                line = newline + 1;
        }
        return 0;
}

static int text_problem(Problem *ret_problem, int error, const Reader *reader) {
        if (error == -ENOMEM)
                return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, error, "stored state: out of memory");
        if (error == -EPROTONOSUPPORT)
                return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, error,
                                   "stored state: version %u, which needs a reader of version %u; we are %u",
                                   reader->version, reader->min_reader, STATE_VERSION);
        return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, error, "stored state: bad value of \"%s\"",
                           reader->complaint);
}

static int read_text(const char *text, size_t length, State **ret_state, Problem *ret_problem) {
        _cleanup_(state_freep) State *state = NULL;
        Reader reader = { .complaint = "version" };
        int r;

        if (length > 0 && (text[length - 1] != '\n' || memchr(text, '\0', length)))
                return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, -EPROTO,
                                   "stored state: not lines of text");

        reader.state = state = calloc(1, sizeof(*state));
        if (!state)
                return text_problem(ret_problem, -ENOMEM, &reader);

        r = for_each_line(text, length, read_version_line, &reader);
        if (r >= 0 && reader.min_reader > STATE_VERSION)
                r = -EPROTONOSUPPORT;
        if (r >= 0 && reader.version == 0) {
                reader.complaint = "version";
                r = -EPROTO;
        }
        if (r >= 0)
                r = for_each_line(text, length, read_line, &reader);
        if (r < 0)
                return text_problem(ret_problem, r, &reader);

        *ret_state = TAKE_PTR(state);
        return 0;
}

/* --- the areas --- */

typedef struct Header {
        bool valid; /* in itself: it has not been compared with the text */
        uint64_t sequence;
        uint32_t length;
        uint64_t sum;
} Header;

typedef struct Area {
        unsigned index;
        Header header;
        char *text; /* owned */
} Area;

static void area_done(Area *a) {
        free(a->text);
}

/* Reads exactly so many digits as we write them and the character that ends them. */
static bool read_hex(const char **p, unsigned n_digits, char end, uint64_t *ret) {
        uint64_t n = 0;

        for (unsigned i = 0; i < n_digits; i++, (*p)++) {
                if (**p >= '0' && **p <= '9')
                        n = n << 4 | (unsigned) (**p - '0');
                else if (**p >= 'a' && **p <= 'f')
                        n = n << 4 | (unsigned) (**p - 'a' + 10);
                else
                        return false;
        }
        *ret = n;
        return *(*p)++ == end;
}

/* Takes a header apart; its width is fixed, so everything has its place. */
static Header parse_header(const char *data, size_t size) {
        uint64_t length;
        const char *p;
        Header h = {};

        if (size < STATE_HEADER_SIZE || memcmp(data, MAGIC, strlen(MAGIC)) != 0)
                return h;
        p = data + strlen(MAGIC);
        if (!read_hex(&p, 16, ' ', &h.sequence) || !read_hex(&p, 8, ' ', &length) ||
            !read_hex(&p, 16, '\n', &h.sum))
                return h;

        h.length = (uint32_t) length;
        h.valid = length <= TEXT_MAX;
        return h;
}

int state_parse(const char *data, size_t size, uint64_t *ret_sequence, State **ret_state,
                Problem *ret_problem) {
        const char *text;
        Header h;
        int r;

        assert(data || size == 0);
        assert(ret_state);

        h = parse_header(data, size);
        if (!h.valid || h.length > size - STATE_HEADER_SIZE ||
            checksum(h.sequence, h.length, data + STATE_HEADER_SIZE) != h.sum)
                return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, -EBADMSG,
                                   "stored state: torn or not ours");

        text = data + STATE_HEADER_SIZE;
        r = read_text(text, h.length, ret_state, ret_problem);
        if (r < 0)
                return r;

        if (ret_sequence)
                *ret_sequence = h.sequence;
        return 0;
}

/* Returns how much there was, less than size only at the end of the file. */
static ssize_t read_at(int fd, char *data, size_t size, off_t offset) {
        size_t n = 0;

        while (n < size) {
                ssize_t k = pread(fd, data + n, size - n, offset + (off_t) n);

                if (k < 0 && errno == EINTR)
                        continue;
                if (k < 0)
                        return -errno;
                if (k == 0)
                        break;
                n += (size_t) k;
        }
        return (ssize_t) n;
}

/* Reads the text that belongs to the header of a. Returns 1 if they match, 0 if not. */
static int read_area(int fd, off_t file_size, Area *a) {
        off_t start = (off_t) a->index * STATE_AREA_SIZE + STATE_HEADER_SIZE;
        _cleanup_free_ char *text = NULL;
        ssize_t n;

        if (!a->header.valid || file_size < start || a->header.length > file_size - start)
                return 0;

        text = malloc((size_t) a->header.length + 1);
        if (!text)
                return -ENOMEM;
        n = read_at(fd, text, a->header.length, start);
        if (n < 0)
                return (int) n;
        if (n != a->header.length || checksum(a->header.sequence, a->header.length, text) != a->header.sum)
                return 0;

        a->text = TAKE_PTR(text);
        return 1;
}

/* Sequences wrap: of two, the newer one is less than half of all numbers ahead. */
static bool header_is_newer(const Header *a, const Header *b) {
        return a->valid && (!b->valid || b->sequence - a->sequence >= UINT64_C(1) << 63);
}

/* Only a memfd (or another file of tmpfs) has seals, and only of those is it known that reading does not
 * block. */
static int file_size(int fd, off_t *ret_size) {
        struct stat st;

        if (fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode) || fcntl(fd, F_GET_SEALS) < 0)
                return -EBADMSG;
        *ret_size = st.st_size;
        return 0;
}

/* Finds the newest intact area; the other one is read only if it has to be. Returns 0 or negative errno:
 * -ENODATA: empty; -EBADMSG: none; what reading fails with. */
static int find_newest(int fd, Area *ret_area) {
        char data[STATE_HEADER_SIZE];
        Header headers[2] = {};
        unsigned newest;
        off_t size;
        int r;

        r = file_size(fd, &size);
        if (r < 0)
                return r;
        if (size == 0)
                return -ENODATA;

        for (unsigned i = 0; i < ELEMENTSOF(headers); i++) {
                ssize_t n = read_at(fd, data, sizeof(data), (off_t) i * STATE_AREA_SIZE);

                if (n < 0)
                        return (int) n;
                headers[i] = parse_header(data, (size_t) n);
        }

        newest = header_is_newer(headers + 1, headers);
        for (unsigned i = 0; i < ELEMENTSOF(headers); i++) {
                Area a = { .index = newest ^ i, .header = headers[newest ^ i] };

                r = read_area(fd, size, &a);
                if (r > 0)
                        *ret_area = a;
                if (r != 0)
                        return MIN_OF(r, 0);
        }
        return -EBADMSG;
}

int state_read(int fd, State **ret_state, Problem *ret_problem) {
        _cleanup_(area_done) Area newest = {};
        int r;

        assert(fd >= 0);
        assert(ret_state);

        r = find_newest(fd, &newest);
        if (r == -ENODATA)
                return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, r, "stored state: empty");
        if (r == -EBADMSG)
                return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, r, "stored state: torn or not ours");
        if (r < 0)
                return problem_set(ret_problem, EXIT_STATUS_OS_ERROR, r, "stored state: cannot be read: %s",
                                   strerror(-r));
        return read_text(newest.text, newest.header.length, ret_state, ret_problem);
}

/* --- the file --- */

StateFile *state_file_free(StateFile *file) {
        if (!file)
                return NULL;

        file->fd = safe_close(file->fd);
        free(file->buffer);
        free(file);
        return NULL;
}

int state_file_get_fd(const StateFile *file) {
        assert(file);
        return file->fd;
}

static int state_file_new(int fd, StateFile **ret_file) {
        StateFile *file = malloc(sizeof(*file));

        if (!file)
                return -ENOMEM;
        *file = (StateFile) { .fd = fd };
        *ret_file = file;
        return 0;
}

int state_file_open(StateFile **ret_file) {
        _cleanup_close_ int fd = -EBADF;
        int r;

        assert(ret_file);

        fd = memfd_create("fcgi-pool-state", MFD_CLOEXEC | MFD_NOEXEC_SEAL);
        if (fd < 0 && errno == EINVAL)
                fd = memfd_create("fcgi-pool-state", MFD_CLOEXEC);
        if (fd < 0)
                return -errno;
        /* MFD_NOEXEC_SEAL lets seals be added, and one of them would end our writing. */
        (void) fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL);

        r = state_file_new(fd, ret_file);
        if (r >= 0)
                TAKE_FD(fd);
        return r;
}

static bool can_be_written(int fd) {
        int seals = fcntl(fd, F_GET_SEALS), flags = fcntl(fd, F_GETFL);

        if (seals < 0 || (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE | F_SEAL_GROW)) != 0)
                return false;
        /* O_APPEND: pwrite(2) would ignore the offset, see its BUGS. */
        return flags >= 0 && (flags & O_ACCMODE) == O_RDWR && (flags & O_APPEND) == 0;
}

int state_file_attach(int fd, StateFile **ret_file) {
        _cleanup_(area_done) Area newest = {};
        StateFile *file;
        bool found;
        off_t size;
        int r;

        assert(fd >= 0);
        assert(ret_file);

        r = file_size(fd, &size);
        if (r < 0)
                return r;
        if (!can_be_written(fd))
                return -EBADMSG;

        r = find_newest(fd, &newest);
        if (r < 0 && r != -ENODATA && r != -EBADMSG)
                return r;
        found = r >= 0;

        r = state_file_new(fd, &file);
        if (r < 0)
                return r;
        if (found) {
                file->sequence = newest.header.sequence;
                file->next = !newest.index;
        }
        *ret_file = file;
        return 0;
}
