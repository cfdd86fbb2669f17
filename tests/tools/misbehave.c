/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SPDX-FileCopyrightText: fcgi-pool contributors */

/* Workers that do one thing unusual each, to test how they are observed and supervised. Where a mode serves,
 * it is a FastCGI responder of its own (no libfcgi) that keeps the echo contract, one request per
 * connection, blocking; FCGI_KEEP_CONN is not honoured. Signals have their default action unless the mode
 * says otherwise. */

#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "echo-contract.h"
#include "fcgi-wire.h"
#include "tool.h"

#define LISTENER STDIN_FILENO

/* How a connection is answered, besides correctly. */
typedef enum Answer {
        ANSWER_ECHO,
        ANSWER_FDS,          /* the worker's surroundings instead of the echo lines */
        ANSWER_DRIBBLE,      /* correct, in odd records written byte by byte */
        ANSWER_WRONG_BODY,   /* one byte of the pattern is wrong */
        ANSWER_SHORT_BODY,   /* the last byte of the body is missing */
        ANSWER_EOF,          /* closes before END_REQUEST */
        ANSWER_WRONG_ID,     /* another request's id */
        ANSWER_WRONG_RECORD, /* version 9 */
        ANSWER_WRONG_END,    /* protocol status: overloaded */
        ANSWER_WRONG_STATUS, /* 500, and a long line on FCGI_STDERR that says so in UTF-8 and Latin-1 */
        ANSWER_NOTHING,      /* never */
        ANSWER_PIPE,         /* correct, but a long sleep is a read from a pipe that nobody writes to */
} Answer;

typedef struct Worker {
        Answer answer;
        int listen_fd;
        uint64_t n_requests_max; /* 0: no limit */
        uint64_t n_requests;
} Worker;

/* One request, read completely. */
typedef struct Request {
        unsigned id;
        WireBuffer params;
        bool params_ended;
        bool stdin_ended;
        uint64_t n_body;
        uint32_t body_crc;
} Request;

static void write_all(int fd, const void *data, size_t n, size_t step) {
        const uint8_t *p = data;

        while (n > 0) {
                ssize_t k = send(fd, p, n < step ? n : step, MSG_NOSIGNAL);

                if (k < 0 && errno == EINTR)
                        continue;
                if (k < 0)
                        return;
                p += k;
                n -= (size_t) k;
        }
}

/* ---- reading a request ------------------------------------------------------------------------------- */

static void request_take(Request *q, const WirePiece *p) {
        switch (p->type) {
        case WIRE_BEGIN_REQUEST:
                q->id = p->id;
                break;
        case WIRE_PARAMS:
                wire_buffer_append(&q->params, p->data, p->n);
                q->params_ended = p->n_record == 0;
                break;
        case WIRE_STDIN:
                q->body_crc = wire_crc32(q->body_crc, p->data, p->n);
                q->n_body += p->n;
                q->stdin_ended = p->n_record == 0;
                break;
        }
}

static bool request_read(Request *q, int fd) {
        WireDecoder decoder = {};
        uint8_t buffer[32768];

        while (!q->params_ended || !q->stdin_ended) {
                ssize_t k = read(fd, buffer, sizeof(buffer));
                const uint8_t *p = buffer;
                size_t n = k > 0 ? (size_t) k : 0;
                WirePiece piece;
                int r;

                if (k < 0 && errno == EINTR)
                        continue;
                if (k <= 0)
                        return false;
                while ((r = wire_decode(&decoder, &p, &n, &piece)) > 0)
                        request_take(q, &piece);
                if (r < 0)
                        return false;
        }
        return true;
}

static void request_query(const Request *q, EchoRequest *ret) {
        const uint8_t *p = q->params.data;
        size_t n = q->params.n, n_name, n_value;
        const char *name, *value;

        echo_parse(NULL, ret);
        while (wire_next_pair(&p, &n, &name, &n_name, &value, &n_value) > 0)
                if (n_name == 12 && memcmp(name, "QUERY_STRING", 12) == 0) {
                        _cleanup_free_ char *query = calloc(n_value + 1, 1);

                        if (query)
                                memcpy(query, value, n_value); /* no string: nothing ends it */
                        echo_parse(query, ret);
                }
}

/* ---- writing an answer ------------------------------------------------------------------------------- */

static void put_text(WireBuffer *b, const char *text) {
        wire_buffer_append(b, text, strlen(text));
}

static void put_fds(WireBuffer *b, int connection_fd) {
        DIR *d = opendir("/proc/self/fd");
        struct dirent *entry;

        while (d && (entry = readdir(d))) {
                char path[300], target[PATH_MAX], line[PATH_MAX + 64];
                int fd = atoi(entry->d_name);
                ssize_t n;

                if (entry->d_name[0] == '.' || fd == dirfd(d))
                        continue;
                snprintf(path, sizeof(path), "/proc/self/fd/%s", entry->d_name);
                n = readlink(path, target, sizeof(target) - 1);
                target[n > 0 ? n : 0] = '\0';
                snprintf(line, sizeof(line), "fd %d %s%s%s\n", fd, target,
                         fd == connection_fd ? " connection" : "",
                         fcntl(fd, F_GETFL) & O_NONBLOCK ? " nonblock" : "");
                put_text(b, line);
        }
        if (d)
                closedir(d);
}

static void put_status_lines(WireBuffer *b) {
        static const char *const wanted[] = {
                "PPid:", "Uid:", "Gid:", "Groups:", "SigPnd:", "SigBlk:", "SigIgn:", "SigCgt:", "CapInh:",
                "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:", "Seccomp:",
        };
        FILE *f = fopen("/proc/self/status", "re");
        char line[1024];

        while (f && fgets(line, sizeof(line), f))
                for (size_t i = 0; i < ELEMENTSOF(wanted); i++)
                        if (strncmp(line, wanted[i], strlen(wanted[i])) == 0)
                                put_text(b, line);
        if (f)
                fclose(f);
}

static void put_surroundings(WireBuffer *b, int connection_fd) {
        struct rlimit limit = {};
        char line[256];

        snprintf(line, sizeof(line), "Content-Type: text/plain\r\n\r\npid=%d\n", (int) getpid());
        put_text(b, line);
        put_fds(b, connection_fd);
        put_status_lines(b);
        getrlimit(RLIMIT_NOFILE, &limit);
        snprintf(line, sizeof(line), "nofile %llu %llu\nsid %d\npgid %d\n",
                 (unsigned long long) limit.rlim_cur, (unsigned long long) limit.rlim_max,
                 (int) getsid(0), (int) getpgid(0));
        put_text(b, line);
        for (char **e = environ; *e; e++) {
                put_text(b, "env ");
                put_text(b, *e);
                put_text(b, "\n");
        }
}

static void put_echo(WireBuffer *b, const EchoRequest *e, const Request *q) {
        char head[2048];

        wire_buffer_append(b, head, echo_head(e, q->n_body, q->body_crc, head, sizeof(head)));
        wire_pattern(e->start, 0, wire_buffer_extend(b, e->size), e->size);
}

/* Records of 1 to 300 bytes with 0 to 255 bytes of padding, STDERR in between. */
static void put_odd_records(WireBuffer *out, unsigned id, const WireBuffer *body) {
        size_t offset = 0;

        for (unsigned i = 0; offset < body->n; i++) {
                size_t n = 1 + i * 37 % 300;

                n = n < body->n - offset ? n : body->n - offset;
                wire_put_record(out, WIRE_STDOUT, id, body->data + offset, n, i * 11 % 256);
                if (i % 4 == 0)
                        wire_put_record(out, WIRE_STDERR, id, "odd\n", 4, i % 8);
                offset += n;
        }
        wire_put_record(out, WIRE_STDERR, id, NULL, 0, 3);
}

static void put_answer(WireBuffer *out, Answer answer, unsigned id, WireBuffer *body) {
        if (answer == ANSWER_WRONG_BODY)
                body->data[body->n - 1] ^= 1;
        if (answer == ANSWER_SHORT_BODY)
                body->n--;
        if (answer == ANSWER_WRONG_ID)
                id++;

        if (answer == ANSWER_DRIBBLE)
                put_odd_records(out, id, body);
        else
                wire_put_stream(out, WIRE_STDOUT, id, body->data, body->n);
        if (answer == ANSWER_EOF)
                return;
        wire_put_record(out, WIRE_STDOUT, id, NULL, 0, 0);
        wire_put_end(out, id, 0, answer == ANSWER_WRONG_END ? WIRE_OVERLOADED : WIRE_REQUEST_COMPLETE);
        if (answer == ANSWER_WRONG_RECORD)
                out->data[0] = 9;
}

static _Noreturn void read_empty_pipe(void) {
        int fds[2];
        char c;

        if (pipe2(fds, O_CLOEXEC) < 0)
                fail(EXIT_FAILURE, "pipe: %s", strerror(errno));
        while (read(fds[0], &c, 1) < 0 && errno == EINTR)
                continue;
        fail(EXIT_FAILURE, "somebody has written to the pipe");
}

/* A cut after 120 bytes is in the middle of a character. */
static void put_complaint(WireBuffer *out, uint16_t id) {
        char text[219] = "no database: ";

        for (size_t i = strlen(text); i + 2 < sizeof(text) - 1; i += 2)
                memcpy(text + i, "\xc3\xa4", 2);
        text[sizeof(text) - 2] = '\xe4';
        text[sizeof(text) - 1] = '\n';
        wire_put_stream(out, WIRE_STDERR, id, text, sizeof(text));
}

static void serve_connection(Worker *w, int fd) {
        WireBuffer body = {}, out = {};
        Request q = {};
        EchoRequest e;

        if (request_read(&q, fd)) {
                request_query(&q, &e);
                if (e.text[0]) {
                        wire_put_stream(&out, WIRE_STDERR, q.id, e.text, strlen(e.text));
                        wire_put_record(&out, WIRE_STDERR, q.id, "\n", 1, 0);
                }
                if (w->answer == ANSWER_PIPE && e.sleep_msec >= 60000)
                        read_empty_pipe();
                echo_act(&e);
                if (w->answer == ANSWER_WRONG_STATUS) {
                        e.status = 500;
                        put_complaint(&out, q.id);
                }
                while (w->answer == ANSWER_NOTHING)
                        pause();
                if (w->answer == ANSWER_FDS)
                        put_surroundings(&body, fd);
                else
                        put_echo(&body, &e, &q);
                put_answer(&out, w->answer, q.id, &body);
                write_all(fd, out.data, out.n, w->answer == ANSWER_DRIBBLE ? 1 : SIZE_MAX);
        }

        wire_buffer_done(&q.params);
        wire_buffer_done(&body);
        wire_buffer_done(&out);
}

/* ---- waiting for connections ------------------------------------------------------------------------- */

/* Accepts one connection and serves it. Returns false if there was none to take just now. */
static bool serve_one(Worker *w) {
        _cleanup_close_ int fd = accept4(w->listen_fd, NULL, NULL, SOCK_CLOEXEC);

        if (fd < 0) {
                if (errno == EINTR || errno == EAGAIN || errno == ECONNABORTED)
                        return false;
                fail(EXIT_FAILURE, "accept: %s", strerror(errno));
        }

        serve_connection(w, fd);
        if (w->n_requests_max > 0 && ++w->n_requests >= w->n_requests_max)
                exit(EXIT_SUCCESS);
        return true;
}

static _Noreturn void serve_blocking(Worker *w) {
        int flags = fcntl(w->listen_fd, F_GETFL);

        /* With O_NONBLOCK this would be a busy loop; a program that does not expect it gives up. */
        if (flags >= 0 && flags & O_NONBLOCK)
                fail(EXIT_FAILURE, "the listener is non-blocking");
        for (;;)
                serve_one(w);
}

static _Noreturn void serve_poll(Worker *w) {
        for (;;) {
                struct pollfd p = { .fd = w->listen_fd, .events = POLLIN };

                if (poll(&p, 1, -1) > 0)
                        serve_one(w);
        }
}

static _Noreturn void serve_select(Worker *w) {
        for (;;) {
                fd_set set;

                FD_ZERO(&set);
                FD_SET(w->listen_fd, &set);
                if (select(w->listen_fd + 1, &set, NULL, NULL, NULL) > 0)
                        serve_one(w);
        }
}

static _Noreturn void serve_epoll(Worker *w) {
        struct epoll_event e = { .events = EPOLLIN };
        int epoll_fd = epoll_create1(EPOLL_CLOEXEC);

        w->listen_fd = fcntl(w->listen_fd, F_DUPFD_CLOEXEC, 10);
        if (epoll_fd < 0 || w->listen_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, w->listen_fd, &e) < 0)
                fail(EXIT_FAILURE, "cannot set up epoll: %s", strerror(errno));
        for (;;)
                if (epoll_wait(epoll_fd, &e, 1, -1) > 0)
                        serve_one(w);
}

static void set_nonblock(int fd, bool on) {
        int flags = fcntl(fd, F_GETFL);

        if (flags < 0 || fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) < 0)
                fail(EXIT_FAILURE, "fcntl on fd %d: %s", fd, strerror(errno));
}

/* ---- modes ------------------------------------------------------------------------------------------- */

typedef struct Args {
        int n;
        char **text;
} Args;

/* The i-th argument as a number, or the default if it was not given. */
static uint64_t arg(const Args *a, int i, uint64_t otherwise) {
        return i < a->n ? parse_number("argument", a->text[i], UINT32_MAX) : otherwise;
}

static const char *arg_text(const Args *a, int i) {
        return i < a->n ? a->text[i] : "";
}

static _Noreturn void mode_serve(Worker *w, const Args *a) {
        w->n_requests_max = arg(a, 0, 0);
        serve_blocking(w);
}

static _Noreturn void mode_exit(Worker *w, const Args *a) {
        (void) w;
        sleep_msec(arg(a, 1, 0));
        exit((int) arg(a, 0, 0) & 0xff);
}

static _Noreturn void mode_crash(Worker *w, const Args *a) {
        (void) w;
        sleep_msec(arg(a, 1, 0));
        if (strcmp(arg_text(a, 0), "segv") == 0)
                raise(SIGSEGV);
        abort();
}

static _Noreturn void mode_never_ready(Worker *w, const Args *a) {
        (void) w;
        (void) a;
        for (;;)
                pause();
}

static _Noreturn void mode_ignore_term(Worker *w, const Args *a) {
        (void) a;
        signal(SIGTERM, SIG_IGN);
        serve_blocking(w);
}

static _Noreturn void mode_pipe(Worker *w, const Args *a) {
        w->answer = ANSWER_PIPE;
        mode_ignore_term(w, a);
}

static _Noreturn void mode_stop_self(Worker *w, const Args *a) {
        for (uint64_t n = arg(a, 0, 0); n > 0; n -= serve_one(w))
                continue;
        raise(SIGSTOP);
        serve_blocking(w);
}

static _Noreturn void mode_nonblock(Worker *w, const Args *a) {
        (void) a;
        set_nonblock(w->listen_fd, true);
        serve_poll(w);
}

static _Noreturn void mode_block(Worker *w, const Args *a) {
        (void) a;
        set_nonblock(w->listen_fd, false);
        serve_blocking(w);
}

static _Noreturn void mode_fds(Worker *w, const Args *a) {
        (void) a;
        w->answer = ANSWER_FDS;
        serve_poll(w);
}

static void send_notify(const char *text) {
        const char *path = getenv("NOTIFY_SOCKET");
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        _cleanup_close_ int fd = -EBADF;
        socklen_t n;

        if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof(address.sun_path))
                fail(EXIT_FAILURE, "NOTIFY_SOCKET is not set to a path or an abstract name");
        memcpy(address.sun_path, path, strlen(path) + 1);
        n = (socklen_t) (offsetof(struct sockaddr_un, sun_path) + strlen(path));
        if (path[0] == '@')
                address.sun_path[0] = '\0';
        else
                n++;

        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *) &address, n) < 0)
                fail(EXIT_FAILURE, "cannot send to %s: %s", path, strerror(errno));
}

static _Noreturn void mode_notify(Worker *w, const Args *a) {
        const char *text = a->n > 1 ? a->text[1] : "READY=1";

        sleep_msec(arg(a, 0, 0));
        send_notify(text);
        serve_blocking(w);
}

static _Noreturn void mode_late(Worker *w, const Args *a) {
        sleep_msec(arg(a, 0, 1000));
        serve_blocking(w);
}

static _Noreturn void mode_fork(Worker *w, const Args *a) {
        echo_hold(arg(a, 1, 0));
        for (uint64_t n = arg(a, 0, 2); n > 0; n--) {
                pid_t pid = fork();

                if (pid < 0)
                        fail(EXIT_FAILURE, "fork: %s", strerror(errno));
                if (pid == 0)
                        serve_blocking(w);
        }
        serve_blocking(w);
}

static _Noreturn void mode_poll(Worker *w, const Args *a) {
        (void) a;
        serve_poll(w);
}

static _Noreturn void mode_select(Worker *w, const Args *a) {
        (void) a;
        serve_select(w);
}

static _Noreturn void mode_epoll(Worker *w, const Args *a) {
        (void) a;
        serve_epoll(w);
}

static _Noreturn void *thread_main(void *p) {
        Worker w = *(const Worker *) p;

        serve_blocking(&w);
}

static _Noreturn void mode_threads(Worker *w, const Args *a) {
        for (uint64_t n = arg(a, 0, 4); n > 1; n--) {
                pthread_t thread;

                if (pthread_create(&thread, NULL, thread_main, w) != 0)
                        fail(EXIT_FAILURE, "cannot create a thread");
        }
        serve_blocking(w);
}

static void write_text(int fd, const char *text) {
        if (write(fd, text, strlen(text)) < 0)
                exit(EXIT_FAILURE);
}

static _Noreturn void mode_lines(Worker *w, const Args *a) {
        static char longer[5000];

        memset(longer, 'x', sizeof(longer) - 2);
        longer[sizeof(longer) - 2] = '\n';
        write_text(STDOUT_FILENO, "stdout: a line\n");
        write_text(STDERR_FILENO, "stderr: a line\n<3>stderr: with a level prefix\n");
        write_text(STDOUT_FILENO, "stdout: two\nstdout: lines\n\n");
        write_text(STDOUT_FILENO, longer);
        write_text(STDOUT_FILENO, "stdout: no newline");
        write_text(STDERR_FILENO, "stderr: no newline");
        if (a->n > 0)
                exit((int) arg(a, 0, 0) & 0xff);
        serve_blocking(w);
}

static _Noreturn void mode_wrong(Worker *w, const Args *a) {
        static const struct {
                const char *name;
                Answer answer;
        } kinds[] = {
                { "body", ANSWER_WRONG_BODY },     { "short", ANSWER_SHORT_BODY },
                { "eof", ANSWER_EOF },             { "id", ANSWER_WRONG_ID },
                { "record", ANSWER_WRONG_RECORD }, { "end", ANSWER_WRONG_END },
                { "nothing", ANSWER_NOTHING },     { "dribble", ANSWER_DRIBBLE },
                { "status", ANSWER_WRONG_STATUS },
        };

        for (size_t i = 0; i < ELEMENTSOF(kinds); i++)
                if (strcmp(arg_text(a, 0), kinds[i].name) == 0) {
                        w->answer = kinds[i].answer;
                        serve_poll(w); /* on any listener */
                }
        fail(EXIT_USAGE, "wrong: expected a kind, not '%s'; try --help", arg_text(a, 0));
}

typedef struct Mode {
        const char *name;
        void (*run)(Worker *w, const Args *a);
        const char *help;
} Mode;

static const Mode modes[] = {
        { "serve", mode_serve, "[N]: nothing unusual; exits 0 after N requests" },
        { "exit", mode_exit, "CODE [AFTER-MS]: exits; never looks at fd 0" },
        { "crash", mode_crash, "[abort|segv] [AFTER-MS]: dies by SIGABRT or SIGSEGV" },
        { "never-ready", mode_never_ready, ": never looks at fd 0, never exits" },
        { "ignore-term", mode_ignore_term, ": serves, ignores SIGTERM" },
        { "pipe", mode_pipe, ": as ignore-term, but sleep= of a minute or more is a read from a pipe\n"
          "              that nobody writes to" },
        { "stop-self", mode_stop_self, "[N]: SIGSTOPs itself after N requests (0), then serves" },
        { "nonblock", mode_nonblock, ": sets O_NONBLOCK on fd 0, serves by poll" },
        { "block", mode_block, ": clears O_NONBLOCK on fd 0, serves" },
        { "fds", mode_fds, ": answers with its fds, signals, capabilities, environment" },
        { "notify", mode_notify, "MS [TEXT]: after MS sends READY=1 or TEXT to $NOTIFY_SOCKET, serves" },
        { "late", mode_late, "MS: sleeps before the first accept" },
        { "fork", mode_fork, "N [MB]: N children, all accept as well; they share MB of memory" },
        { "poll", mode_poll, ": waits by poll" },
        { "select", mode_select, ": waits by select" },
        { "epoll", mode_epoll, ": waits by epoll on a dup of fd 0" },
        { "threads", mode_threads, "N: N threads in accept" },
        { "lines", mode_lines, "[CODE]: prints on stdout and stderr, then serves, or exits" },
        { "wrong", mode_wrong, "KIND: one mistake in each answer: body, short, eof, id, record, nothing,\n"
          "              status (500), end (protocol status); or dribble: correct, in odd records, byte by byte" },
};

int main(int argc, char *argv[]) {
        Worker w = { .listen_fd = LISTENER };

        if (argc < 2)
                fail(EXIT_USAGE, "expected a mode; try --help");

        if (strcmp(argv[1], "--help") == 0) {
                puts("Usage: misbehave MODE [ARGUMENTS], with a listening socket on fd 0\n");
                for (size_t i = 0; i < ELEMENTSOF(modes); i++)
                        printf("  %-11s %s\n", modes[i].name, modes[i].help);
                return EXIT_SUCCESS;
        }

        for (size_t i = 0; i < ELEMENTSOF(modes); i++)
                if (strcmp(argv[1], modes[i].name) == 0)
                        modes[i].run(&w, &(Args) { .n = argc - 2, .text = argv + 2 });
        fail(EXIT_USAGE, "unknown mode '%s'; try --help", argv[1]);
}
