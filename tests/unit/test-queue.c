/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Real listeners with real clients in their queues; what no kernel says is said by a datagram socket in its place. */

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/seccomp.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "queue.h"
#include "test.h"

enum { BACKLOG = 3, CLIENTS_MAX = 8 };

/* In place of the C library's: time stands still, so that answers can be written before they are asked for. */
static const struct timespec frozen = { .tv_sec = 1234567, .tv_nsec = 890 };

int clock_gettime(clockid_t clock, struct timespec *ret) {
        EXPECT_EQ(clock, CLOCK_MONOTONIC);
        *ret = frozen;
        return 0;
}

/* A listener and its clients; room for one more than BACKLOG. */
typedef struct Bench {
        int fd;
        uint64_t inode;
        struct sockaddr_storage address;
        socklen_t n_address;
        int clients[CLIENTS_MAX];
        size_t n_clients;
} Bench;

static uint64_t get_inode(int fd) {
        struct stat st;

        EXPECT_EQ(fstat(fd, &st), 0);
        return st.st_ino;
}

static Bench bench_start(const struct sockaddr *address, socklen_t n_address) {
        Bench b = { .n_address = sizeof(b.address) };

        EXPECT((b.fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0);
        EXPECT_EQ(bind(b.fd, address, n_address), 0);
        EXPECT_EQ(listen(b.fd, BACKLOG), 0);
        EXPECT_EQ(getsockname(b.fd, (struct sockaddr *) &b.address, &b.n_address), 0);
        b.inode = get_inode(b.fd);
        return b;
}

static Bench bench_start_unix(void) {
        const struct sockaddr_un address = { .sun_family = AF_UNIX };

        return bench_start((const struct sockaddr *) &address, sizeof(sa_family_t)); /* a name is found for it */
}

static void bench_end(Bench *b) {
        while (b->n_clients > 0)
                (void) safe_close(b->clients[--b->n_clients]);
        b->fd = safe_close(b->fd);
}

static int try_connect(const Bench *b, int flags) {
        _cleanup_close_ int fd = -EBADF;

        EXPECT((fd = socket(b->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | flags, 0)) >= 0);
        if (connect(fd, (const struct sockaddr *) &b->address, b->n_address) < 0 && errno != EINPROGRESS)
                return -errno;
        return TAKE_FD(fd);
}

static void bench_connect(Bench *b, int flags) {
        EXPECT(b->n_clients < CLIENTS_MAX);
        EXPECT((b->clients[b->n_clients] = try_connect(b, flags)) >= 0);
        b->n_clients++;
}

static void bench_accept(const Bench *b) {
        _cleanup_close_ int fd = -EBADF;

        EXPECT((fd = accept4(b->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0);
}

static void expect(int diag_fd, const Bench *b, int result, unsigned depth, unsigned max) {
        unsigned seen_depth = 4711, seen_max = 4711;

        EXPECT_EQ(queue_get_depth(diag_fd, b->fd, b->inode, &seen_depth, &seen_max), result);
        EXPECT_EQ(seen_depth, result < 0 ? 4711 : depth);
        EXPECT_EQ(seen_max, result < 0 ? 4711 : max);
}

/* The third packet of a TCP handshake, which fills the queue, may come after connect(2) has returned. */
static void wait_for(const Bench *b, unsigned depth) {
        unsigned seen, max;

        for (int i = 0; i < 10000; i++) {
                EXPECT_EQ(queue_get_depth(-EBADF, b->fd, b->inode, &seen, &max), 1);
                if (seen == depth)
                        return;
                (void) poll(NULL, 0, 1);
        }
        EXPECT_EQ(seen, depth);
}

static int must_open(void) {
        int fd = queue_open();

        if (fd < 0)
                SKIP("no NETLINK_SOCK_DIAG here (%s): exact depths of UNIX queues", strerror(-fd));
        EXPECT_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
        return fd;
}

static void test_unix(void) {
        _cleanup_close_ int diag_fd = must_open();
        Bench b = bench_start_unix();

        expect(diag_fd, &b, 1, 0, BACKLOG);
        for (unsigned i = 1; i <= BACKLOG + 1; i++) {
                bench_connect(&b, 0);
                expect(diag_fd, &b, 1, i, BACKLOG);
        }
        EXPECT_EQ(try_connect(&b, SOCK_NONBLOCK), -EAGAIN);
        expect(diag_fd, &b, 1, BACKLOG + 1, BACKLOG);
        bench_accept(&b);
        expect(diag_fd, &b, 1, BACKLOG, BACKLOG);

        /* Who has gone still counts. */
        while (b.n_clients > 0)
                (void) safe_close(b.clients[--b.n_clients]);
        expect(diag_fd, &b, 1, BACKLOG, BACKLOG);

        EXPECT_EQ(listen(b.fd, 100), 0);
        expect(diag_fd, &b, 1, BACKLOG, 100);
        for (unsigned i = BACKLOG; i > 0; i--)
                bench_accept(&b);
        expect(diag_fd, &b, 1, 0, 100);
        bench_end(&b);
}

static void expect_exact_tcp(const struct sockaddr *address, socklen_t n_address) {
        Bench b = bench_start(address, n_address);

        expect(-EBADF, &b, 1, 0, BACKLOG);
        for (unsigned i = 1; i <= BACKLOG + 1; i++) {
                bench_connect(&b, 0);
                wait_for(&b, i);
                expect(-EBADF, &b, 1, i, BACKLOG);
        }
        bench_connect(&b, SOCK_NONBLOCK);
        expect(-EBADF, &b, 1, BACKLOG + 1, BACKLOG);
        bench_accept(&b);
        wait_for(&b, BACKLOG);

        EXPECT_EQ(shutdown(b.fd, SHUT_RDWR), 0);
        expect(-EBADF, &b, -EINVAL, 0, 0);
        bench_end(&b);
}

static void test_tcp(void) {
        const struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        const struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
        _cleanup_close_ int fd = -EBADF;

        expect_exact_tcp((const struct sockaddr *) &in, sizeof(in));

        fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || bind(fd, (const struct sockaddr *) &in6, sizeof(in6)) < 0)
                fprintf(stderr, "skipped part: cannot listen on ::1: %s\n", strerror(errno));
        else
                expect_exact_tcp((const struct sockaddr *) &in6, sizeof(in6));
}

static void expect_estimate(int diag_fd) {
        Bench b = bench_start_unix();

        expect(diag_fd, &b, 0, 0, 0);
        bench_connect(&b, 0);
        expect(diag_fd, &b, 0, 1, 0);
        bench_connect(&b, 0);
        expect(diag_fd, &b, 0, 1, 0);
        bench_accept(&b);
        expect(diag_fd, &b, 0, 1, 0);
        bench_accept(&b);
        expect(diag_fd, &b, 0, 0, 0);
        bench_end(&b);
}

static void test_without_netlink(void) {
        expect_estimate(-EBADF);
        expect_estimate(-EAFNOSUPPORT); /* what queue_open() has returned */
}

static void run_forked(void (*test)(const Bench *b), const Bench *b) {
        int status;
        pid_t pid;

        fflush(NULL);
        EXPECT((pid = fork()) >= 0);
        if (pid == 0) {
                test(b);
                _exit(EXIT_SUCCESS);
        }
        EXPECT_EQ(waitpid(pid, &status, 0), pid);
        EXPECT_EQ(status, 0);
}

/* As RestrictAddressFamilies=AF_UNIX. */
static void refused(const Bench *unused) {
        struct sock_filter code[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 3),
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_UNIX, 1, 0),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAFNOSUPPORT),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = { .len = ELEMENTSOF(code), .filter = code };

        EXPECT_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1UL, 0UL, 0UL, 0UL), 0);
        EXPECT_EQ(prctl(PR_SET_SECCOMP, (unsigned long) SECCOMP_MODE_FILTER, &program, 0UL, 0UL), 0);
        EXPECT_EQ(queue_open(), -EAFNOSUPPORT);
        expect_estimate(queue_open());
}

static void test_refused(void) {
        run_forked(refused, NULL);
}

/* As PrivateNetwork=yes: PID 1 has made the socket outside. */
static void from_elsewhere(const Bench *b) {
        _cleanup_close_ int diag_fd = -EBADF;
        Bench own;

        if (unshare(CLONE_NEWNET) < 0) {
                fprintf(stderr, "skipped part: no network namespace of our own: %s\n", strerror(errno));
                return;
        }
        diag_fd = must_open();
        expect(diag_fd, b, 0, 1, 0);
        own = bench_start_unix();
        bench_connect(&own, 0);
        bench_connect(&own, 0);
        expect(diag_fd, &own, 1, 2, BACKLOG);
        bench_end(&own);
}

static void test_other_namespace(void) {
        _cleanup_close_ int diag_fd = must_open();
        Bench b = bench_start_unix();

        bench_connect(&b, 0);
        bench_connect(&b, 0);
        expect(diag_fd, &b, 1, 2, BACKLOG);
        run_forked(from_elsewhere, &b);
        bench_end(&b);
}

/* An inode number that has come round and is another socket's too. */
static void test_wrong_inode(void) {
        _cleanup_close_ int diag_fd = must_open();
        Bench b = bench_start_unix(), other = bench_start_unix();

        bench_connect(&other, 0);
        bench_connect(&other, 0);
        b.inode = other.inode;
        expect(diag_fd, &b, 0, 0, 0);
        bench_end(&other);
        expect(diag_fd, &b, 0, 0, 0);
        bench_end(&b);
}

static void expect_refused(int fd, int error) {
        const Bench b = { .fd = fd, .inode = get_inode(fd) };

        expect(-EBADF, &b, error, 0, 0);
        (void) safe_close(fd);
}

static void test_no_listener(void) {
        _cleanup_close_ int diag_fd = must_open();
        Bench b = bench_start_unix();
        int pair[2];

        EXPECT_EQ(pipe2(pair, O_CLOEXEC), 0);
        expect_refused(pair[0], -ENOTSOCK);
        (void) safe_close(pair[1]);
        EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        EXPECT_EQ(write(pair[0], "x", 1), 1);
        expect_refused(pair[1], -EINVAL);
        (void) safe_close(pair[0]);
        expect_refused(socket(AF_INET, SOCK_STREAM, 0), -EINVAL);
        expect_refused(socket(AF_UNIX, SOCK_STREAM, 0), -EINVAL);

        /* Nobody can come any more, but who has come can be accepted: poll(2) cannot tell the two apart. */
        bench_connect(&b, 0);
        EXPECT_EQ(shutdown(b.fd, SHUT_RDWR), 0);
        expect(diag_fd, &b, 1, 1, BACKLOG);
        expect(-EBADF, &b, 0, 0, 0);
        EXPECT_EQ(close(b.fd), 0);
        expect(diag_fd, &b, -EBADF, 0, 0);
        b.fd = -EBADF;
        bench_end(&b);
}

/* Others cannot put words into the kernel's mouth. */
static void test_forged(void) {
        _cleanup_close_ int diag_fd = must_open(), other_fd = -EBADF;
        struct sockaddr_nl address;
        socklen_t length = sizeof(address);
        ssize_t n;

        EXPECT_EQ(getsockname(diag_fd, (struct sockaddr *) &address, &length), 0);
        EXPECT((other_fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG)) >= 0);
        n = sendto(other_fd, "x", 1, 0, (const struct sockaddr *) &address, sizeof(address));
        EXPECT(n < 0 && (errno == ECONNREFUSED || errno == EPERM));
}

/* ---- a socket in the place of the kernel's -------------------------------------------------------------- */

typedef struct Words {
        struct nlmsghdr header;
        union {
                struct nlmsgerr error;
                struct {
                        struct unix_diag_msg diag;
                        struct rtattr name;
                        char name_value[RTA_ALIGN(9)];
                        struct rtattr attribute;
                        struct unix_diag_rqlen queue;
                };
        };
        char more[2048];
} Words;

#define WORDS_SIZE offsetof(Words, more)

static Words answer(void) {
        return (Words) {
                .header = {
                        .nlmsg_len = offsetof(Words, queue) + sizeof(struct unix_diag_rqlen),
                        .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                        .nlmsg_seq = (uint32_t) (frozen.tv_sec * INT64_C(1000000000) + frozen.tv_nsec),
                },
                .name = { .rta_len = RTA_LENGTH(9), .rta_type = UNIX_DIAG_NAME },
                .attribute = { .rta_len = RTA_LENGTH(sizeof(struct unix_diag_rqlen)), .rta_type = UNIX_DIAG_RQLEN },
                .queue = { .udiag_rqueue = 5, .udiag_wqueue = 9 },
        };
}

static Words error_answer(int error) {
        Words w = answer();

        w.header.nlmsg_type = NLMSG_ERROR;
        w.header.nlmsg_len = NLMSG_LENGTH(sizeof(w.error));
        w.error = (struct nlmsgerr) { .error = error };
        return w;
}

/* What is made of these datagrams: the answer of answer(), or none. */
static void expect_from_words(const Words *words, const size_t *sizes, size_t n, bool good) {
        Bench b = bench_start_unix();
        struct {
                struct nlmsghdr header;
                struct unix_diag_req diag;
        } request;
        int pair[2];

        EXPECT_EQ(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
        for (size_t i = 0; i < n; i++)
                EXPECT_EQ(send(pair[1], words + i, sizes[i], MSG_DONTWAIT), sizes[i]);
        expect(pair[0], &b, good ? 1 : 0, good ? 5 : 0, good ? 9 : 0);

        EXPECT_EQ(recv(pair[1], &request, sizeof(request), MSG_DONTWAIT | MSG_TRUNC), sizeof(request));
        EXPECT_EQ(request.header.nlmsg_len, sizeof(request));
        EXPECT_EQ(request.header.nlmsg_type, SOCK_DIAG_BY_FAMILY);
        EXPECT_EQ(request.header.nlmsg_flags, NLM_F_REQUEST);
        EXPECT_EQ(request.diag.sdiag_family, AF_UNIX);
        EXPECT_EQ(request.diag.udiag_ino, b.inode);
        EXPECT_EQ(recv(pair[1], &request, sizeof(request), MSG_DONTWAIT), -1);
        (void) safe_close(pair[0]);
        (void) safe_close(pair[1]);
        bench_end(&b);
}

static void expect_none_from(Words words, size_t size) {
        expect_from_words(&words, &size, 1, false);
}

static void test_answers(void) {
        const size_t sizes[] = { WORDS_SIZE, WORDS_SIZE, WORDS_SIZE };
        Words w[3] = { answer(), answer(), answer() };

        expect_from_words(w, sizes, 1, true);
        expect_from_words(w, sizes, 0, false);

        /* Left over from others. */
        w[0].header.nlmsg_seq--;
        w[0].queue.udiag_rqueue = 17;
        expect_from_words(w, sizes, 1, false);
        w[1] = error_answer(-ENOENT);
        w[1].header.nlmsg_seq++;
        expect_from_words(w, sizes, 2, false);
        expect_from_words(w, sizes, 3, true);

        expect_none_from(error_answer(-ENOENT), WORDS_SIZE);
        expect_none_from(error_answer(0), WORDS_SIZE);
        expect_none_from(error_answer(5), WORDS_SIZE);
        w[0] = error_answer(-ENOENT);
        w[0].header.nlmsg_len = NLMSG_LENGTH(0);
        expect_none_from(w[0], NLMSG_LENGTH(0));
        w[0] = answer();
        w[0].header.nlmsg_type = NLMSG_DONE;
        expect_none_from(w[0], WORDS_SIZE);
}

static void test_wrong_lengths(void) {
        Words w;

        /* Of the datagram. */
        for (size_t size = 0; size < answer().header.nlmsg_len; size++)
                expect_none_from(answer(), size);
        expect_none_from(answer(), sizeof(Words));
        /* Of the message. */
        for (size_t length = 0; length < answer().header.nlmsg_len; length++) {
                w = answer();
                w.header.nlmsg_len = (uint32_t) length;
                expect_none_from(w, WORDS_SIZE);
        }
        w = answer();
        w.header.nlmsg_len = UINT32_MAX;
        expect_none_from(w, WORDS_SIZE);
        /* Of the attribute, and of the one before it. */
        for (unsigned length = 0; length < RTA_LENGTH(sizeof(w.queue)); length++) {
                w = answer();
                w.attribute.rta_len = (unsigned short) length;
                expect_none_from(w, WORDS_SIZE);
        }
        for (unsigned length = 0; length < sizeof(struct rtattr); length++) {
                w = answer();
                w.name.rta_len = (unsigned short) length;
                expect_none_from(w, WORDS_SIZE);
        }
        w = answer();
        w.attribute.rta_len++;
        expect_none_from(w, WORDS_SIZE);
        w = answer();
        w.name.rta_len = UINT16_MAX;
        expect_none_from(w, WORDS_SIZE);
}

/* Neither a full socket nor a silent one, though they block. */
static void test_never_blocks(void) {
        Bench b = bench_start_unix();
        int pair[2];

        EXPECT_EQ(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
        expect(pair[0], &b, 0, 0, 0);
        while (send(pair[0], "x", 1, MSG_DONTWAIT) == 1)
                ;
        EXPECT_EQ(errno, EAGAIN);
        expect(pair[0], &b, 0, 0, 0);
        (void) safe_close(pair[0]);
        (void) safe_close(pair[1]);
        bench_end(&b);
}

TEST_MAIN(
        TEST(test_tcp),
        TEST(test_without_netlink),
        TEST(test_answers),
        TEST(test_wrong_lengths),
        TEST(test_never_blocks),
        TEST(test_refused),
        TEST(test_unix),
        TEST(test_other_namespace),
        TEST(test_wrong_inode),
        TEST(test_no_listener),
        TEST(test_forged),
)
