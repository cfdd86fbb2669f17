/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SPDX-FileCopyrightText: fcgi-pool contributors */

/* Stand-in for systemd's socket passing: makes sockets (or things that are none) and executes a program with
 * them as fds 3 and up, LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES set as in sd_listen_fds(3). With --inherit
 * the first one becomes fd 0 instead and no variable is set, as a FastCGI worker expects it. */

#include <arpa/inet.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "tool.h"

#define FDS_MAX 64
#define FIRST_FD 3

typedef struct Passed {
        int fd;
        const char *name;
        char address[128]; /* as fcgi-load --connect= takes it, "-" if it cannot */
} Passed;

typedef struct Launch {
        Passed passed[FDS_MAX];
        size_t n_passed;
        int backlog;
        bool nonblock;
        bool inherit;
        const char *listen_pid;
        const char *report;
} Launch;

static int checked(int fd, const char *what) {
        if (fd < 0)
                fail(EXIT_FAILURE, "%s: %s", what, strerror(errno));
        return fd;
}

static int make_unix(const char *path, int type, int backlog) {
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        socklen_t n = (socklen_t) (offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1);
        int fd;

        if (strlen(path) >= sizeof(a.sun_path))
                fail(EXIT_USAGE, "%s: the path is too long for a socket", path);
        memcpy(a.sun_path, path, strlen(path) + 1);
        if (path[0] == '@') { /* abstract */
                a.sun_path[0] = '\0';
                n--;
        } else
                unlink(path);

        fd = checked(socket(AF_UNIX, type | SOCK_CLOEXEC, 0), "socket");
        checked(bind(fd, (struct sockaddr *) &a, n), path);
        if (type == SOCK_STREAM)
                checked(listen(fd, backlog), "listen");
        return fd;
}

static int make_tcp(int family, uint16_t port, int backlog, char *ret_address, size_t n_address) {
        struct sockaddr_in a4 = { .sin_family = AF_INET, .sin_port = htons(port) };
        struct sockaddr_in6 a6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
        struct sockaddr *a = family == AF_INET ? (struct sockaddr *) &a4 : (struct sockaddr *) &a6;
        socklen_t n = family == AF_INET ? sizeof(a4) : sizeof(a6);
        int fd;

        a4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        a6.sin6_addr = in6addr_loopback;
        fd = checked(socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int) { 1 }, sizeof(int));
        checked(bind(fd, a, n), "bind to the loopback address");
        checked(listen(fd, backlog), "listen");
        checked(getsockname(fd, a, &n), "getsockname");
        if (family == AF_INET)
                snprintf(ret_address, n_address, "127.0.0.1:%d", ntohs(a4.sin_port));
        else
                snprintf(ret_address, n_address, "[::1]:%d", ntohs(a6.sin6_port));
        return fd;
}

/* One end of a pair or pipe; the other end is closed at once. */
static int make_pair(bool is_pipe) {
        int fds[2];

        if (is_pipe)
                checked(pipe2(fds, O_CLOEXEC), "pipe2");
        else
                checked(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), "socketpair");
        close(fds[1]);
        return fds[0];
}

static Passed *launch_add(Launch *l) {
        if (l->n_passed == FDS_MAX)
                fail(EXIT_USAGE, "at most %d file descriptors", FDS_MAX);
        l->passed[l->n_passed] = (Passed) { .fd = -EBADF, .name = "unknown", .address = "-" };
        return l->passed + l->n_passed++;
}

static void launch_add_fd(Launch *l, int option, const char *value) {
        Passed *p = launch_add(l);

        switch (option) {
        case 'u':
                p->fd = make_unix(value, SOCK_STREAM, l->backlog);
                snprintf(p->address, sizeof(p->address), "unix:%s", value);
                break;
        case 'D':
                p->fd = make_unix(value, SOCK_DGRAM, 0);
                break;
        case '4':
        case '6':
                p->fd = make_tcp(option == '4' ? AF_INET : AF_INET6,
                                 (uint16_t) parse_number("port", value, 65535), l->backlog,
                                 p->address, sizeof(p->address));
                break;
        case 'C':
        case 'P':
                p->fd = make_pair(option == 'P');
                break;
        case 'F':
                p->fd = checked(open(value, O_RDONLY | O_CLOEXEC), value);
                break;
        }

        if (l->nonblock)
                checked(fcntl(p->fd, F_SETFL, fcntl(p->fd, F_GETFL) | O_NONBLOCK), "fcntl");
}

static void launch_report(const Launch *l) {
        FILE *f = fopen(l->report, "we");

        if (!f)
                fail(EXIT_FAILURE, "%s: %s", l->report, strerror(errno));
        for (size_t i = 0; i < l->n_passed; i++)
                fprintf(f, "%s\n", l->passed[i].address);
        if (fclose(f) != 0)
                fail(EXIT_FAILURE, "%s: %s", l->report, strerror(errno));
}

/* Moves the fds to 3, 4, ...: first up and out of the way, then down. Nothing else stays open. */
static void launch_place_fds(Launch *l) {
        for (size_t i = 0; i < l->n_passed; i++)
                l->passed[i].fd = checked(
                                fcntl(l->passed[i].fd, F_DUPFD_CLOEXEC, FIRST_FD + FDS_MAX), "fcntl");
        for (int fd = FIRST_FD; fd < FIRST_FD + FDS_MAX; fd++)
                close(fd);
        for (size_t i = 0; i < l->n_passed; i++)
                checked(dup2(l->passed[i].fd, FIRST_FD + (int) i), "dup2");
        checked(close_range(FIRST_FD + (unsigned) l->n_passed, UINT_MAX, 0), "close_range");
}

static void launch_set_environment(const Launch *l) {
        char names[4096] = "", number[24];

        for (size_t i = 0; i < l->n_passed; i++) {
                size_t n = strlen(names);

                snprintf(names + n, sizeof(names) - n, "%s%s", i > 0 ? ":" : "", l->passed[i].name);
        }
        setenv("LISTEN_FDNAMES", names, 1);
        snprintf(number, sizeof(number), "%zu", l->n_passed);
        setenv("LISTEN_FDS", number, 1);
        snprintf(number, sizeof(number), "%d", (int) getpid());
        setenv("LISTEN_PID", l->listen_pid ? l->listen_pid : number, 1);
}

static void usage(FILE *f) {
        fputs("Usage: listen-exec [OPTIONS] -- PROGRAM [ARGUMENTS]\n"
              "Executes PROGRAM with file descriptors passed as by a systemd .socket unit, from fd 3\n"
              "on, in the order given:\n\n"
              "      --unix=PATH        listening stream socket (@NAME: abstract); replaces an old file\n"
              "      --tcp4=PORT        listening on 127.0.0.1; 0: any port\n"
              "      --tcp6=PORT        listening on ::1\n"
              "      --dgram-unix=PATH  datagram socket\n"
              "      --connected        connected stream socket\n"
              "      --pipe             read end of a pipe\n"
              "      --file=PATH        open file\n"
              "      --name=NAME        LISTEN_FDNAMES entry of the one before it (default unknown)\n\n"
              "      --backlog=N        for those after it (default 4096)\n"
              "      --nonblock         sets O_NONBLOCK on those after it\n"
              "      --listen-pid=TEXT  LISTEN_PID, instead of PROGRAM's own pid\n"
              "      --report=FILE      writes one address per line, as fcgi-load --connect= takes it\n"
              "      --inherit          the first one as fd 0, no LISTEN_* variables\n"
              "      --help\n",
              f);
}

static const struct option option_table[] = {
        { "unix", required_argument, NULL, 'u' },
        { "tcp4", required_argument, NULL, '4' },
        { "tcp6", required_argument, NULL, '6' },
        { "dgram-unix", required_argument, NULL, 'D' },
        { "connected", no_argument, NULL, 'C' },
        { "pipe", no_argument, NULL, 'P' },
        { "file", required_argument, NULL, 'F' },
        { "name", required_argument, NULL, 'n' },
        { "backlog", required_argument, NULL, 'b' },
        { "nonblock", no_argument, NULL, 'N' },
        { "listen-pid", required_argument, NULL, 'p' },
        { "report", required_argument, NULL, 'r' },
        { "inherit", no_argument, NULL, 'i' },
        { "help", no_argument, NULL, 'h' },
        {},
};

static void launch_take_option(Launch *l, int option, const char *value) {
        switch (option) {
        case 'n':
                if (l->n_passed == 0)
                        fail(EXIT_USAGE, "--name=%s: names the fd before it, and there is none", value);
                l->passed[l->n_passed - 1].name = value;
                break;
        case 'b':
                l->backlog = (int) parse_number("--backlog", value, INT_MAX);
                break;
        case 'N':
                l->nonblock = true;
                break;
        case 'p':
                l->listen_pid = value;
                break;
        case 'r':
                l->report = value;
                break;
        case 'i':
                l->inherit = true;
                break;
        case 'h':
                usage(stdout);
                exit(EXIT_SUCCESS);
        case '?':
                fail(EXIT_USAGE, "try --help");
        default:
                launch_add_fd(l, option, value);
        }
}

int main(int argc, char *argv[]) {
        Launch l = { .backlog = 4096 };
        int c;

        while ((c = getopt_long(argc, argv, "+", option_table, NULL)) >= 0)
                launch_take_option(&l, c, optarg);
        if (optind >= argc)
                fail(EXIT_USAGE, "no program to execute; try --help");

        if (l.report)
                launch_report(&l);
        launch_place_fds(&l);
        if (l.inherit) {
                if (l.n_passed != 1)
                        fail(EXIT_USAGE, "--inherit: expected one file descriptor, not %zu", l.n_passed);
                dup2(FIRST_FD, STDIN_FILENO);
                close(FIRST_FD);
        } else
                launch_set_environment(&l);

        execvp(argv[optind], argv + optind);
        fail(127, "%s: %s", argv[optind], strerror(errno));
}
