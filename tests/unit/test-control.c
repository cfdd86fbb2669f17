/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Callers of all kinds, and a pool of the size 0:1 that serves without a worker, in one process: the pool in
 * the event loop, the caller in a thread. What a caller wants to know before it goes on is what it is answered. */

#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/wait.h>

#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#include "control-protocol.h"
#include "house.h"

#define NOBODY 65534
#define CROWD 300                       /* more than the control keeps, fewer than the queue takes */
#define LIMIT_USEC (20 * USEC_PER_SEC)
#define LIMIT_MSEC ((int) (LIMIT_USEC / USEC_PER_MSEC))

static char directory[] = "/tmp/fcgi-pool-control-XXXXXX";

typedef struct Visit {
        House house;
        int done_fd;
        void (*caller)(void);
} Visit;

static int on_done(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        return sd_event_exit(((Visit *) userdata)->house.event, 0);
}

static void *run_caller(void *userdata) {
        Visit *visit = userdata;

        visit->caller();
        EXPECT_EQ(eventfd_write(visit->done_fd, 1), 0);
        return NULL;
}

/* Runs the caller against a house of its own. */
static void with_house(void (*caller)(void)) {
        Visit visit = { .caller = caller, .done_fd = eventfd(0, EFD_CLOEXEC) };
        pthread_t thread;

        house_open(&visit.house, directory);
        EXPECT(sd_event_add_io(visit.house.event, NULL, visit.done_fd, POLLIN, on_done, &visit) >= 0);
        EXPECT_EQ(pthread_create(&thread, NULL, run_caller, &visit), 0);
        EXPECT(sd_event_loop(visit.house.event) >= 0);
        EXPECT_EQ(pthread_join(thread, NULL), 0);
        house_close(&visit.house);
        (void) close(visit.done_fd);
}

/* --- callers --- */

static int dial(void) {
        return dial_at(directory);
}

static sd_bus *open_bus(void) {
        int fd = dial();
        sd_bus *bus;

        EXPECT(sd_bus_new(&bus) >= 0);
        EXPECT(sd_bus_set_fd(bus, fd, fd) >= 0);
        EXPECT(sd_bus_start(bus) >= 0);
        EXPECT(sd_bus_set_method_call_timeout(bus, LIMIT_USEC) >= 0);
        return bus;
}

static char *get_status(sd_bus *bus) {
        char *status;

        EXPECT(sd_bus_get_property_string(bus, NULL, CONTROL_PATH, CONTROL_INTERFACE, "Status", NULL,
                                          &status) >= 0);
        return status;
}

static void expect_error(sd_bus *bus, const char *name, const char *method, const char *types, uint64_t argument) {
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;

        EXPECT(sd_bus_call_method(bus, NULL, CONTROL_PATH, CONTROL_INTERFACE, method, &error, NULL, types,
                                  argument) < 0);
        EXPECT_STREQ(error.name, name);
        EXPECT(error.message && error.message[0] != '\0');
}

static void expect_answer(void) {
        _cleanup_(sd_bus_close_unrefp) sd_bus *bus = open_bus();
        _cleanup_free_ char *status = get_status(bus);

        EXPECT(strstr(status, "workers ready"));
}

/* The other side has hung up. */
static void expect_hang_up(int fd) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        char buffer[4096];
        ssize_t n;

        do {
                EXPECT_EQ(poll(&p, 1, LIMIT_MSEC), 1);
                n = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
        } while (n > 0);
        EXPECT(n == 0 || errno == ECONNRESET);
        (void) close(fd);
}

static void ask(void) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *answer = NULL;
        _cleanup_(sd_bus_close_unrefp) sd_bus *bus = open_bus();
        _cleanup_free_ char *status = get_status(bus), *name = NULL;
        const char *xml;
        uint64_t generation;

        EXPECT(strstr(status, "0/0 workers ready"));
        EXPECT(sd_bus_get_property_string(bus, NULL, CONTROL_PATH, CONTROL_INTERFACE, "Name", NULL,
                                          &name) >= 0);
        EXPECT_STREQ(name, "test");
        EXPECT(sd_bus_get_property_trivial(bus, NULL, CONTROL_PATH, CONTROL_INTERFACE, "Generation", NULL,
                                           't', &generation) >= 0);
        EXPECT_EQ(generation, 1);
        EXPECT(sd_bus_call_method(bus, NULL, CONTROL_PATH, "org.freedesktop.DBus.Introspectable", "Introspect",
                                  NULL, &answer, NULL) >= 0);
        EXPECT(sd_bus_message_read(answer, "s", &xml) >= 0);
        EXPECT(strstr(xml, "<interface name=\"" CONTROL_INTERFACE "\">"));
        EXPECT(strstr(xml, "<method name=\"WaitReload\">"));
        expect_error(bus, SD_BUS_ERROR_UNKNOWN_METHOD, "Explode", NULL, 0);
        expect_error(bus, SD_BUS_ERROR_INVALID_ARGS, "Reload", "t", 1);
}

static void test_ask(void) {
        with_house(ask);
}

static void reload(void) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *answer = NULL, *verdict = NULL;
        _cleanup_(sd_bus_close_unrefp) sd_bus *bus = open_bus();
        const char *text;
        uint64_t generation;

        EXPECT(sd_bus_call_method(bus, NULL, CONTROL_PATH, CONTROL_INTERFACE, "Reload", NULL, &answer, NULL) >= 0);
        EXPECT(sd_bus_message_read(answer, "t", &generation) >= 0);
        EXPECT_EQ(generation, 2);
        EXPECT(sd_bus_call_method(bus, NULL, CONTROL_PATH, CONTROL_INTERFACE, "WaitReload", NULL, &verdict,
                                  "t", generation) >= 0);
        EXPECT(sd_bus_message_read(verdict, "s", &text) >= 0);
        EXPECT(strstr(text, "generation 2"));
        expect_error(bus, CONTROL_ERROR_NO_SUCH_GENERATION, "WaitReload", "t", 1);
        expect_error(bus, CONTROL_ERROR_NO_SUCH_GENERATION, "WaitReload", "t", 3);
        expect_error(bus, CONTROL_ERROR_REEXEC_FAILED, "Reexec", NULL, 0);
}

static void call(sd_bus *bus, const char *method, const char *types, uint32_t argument) {
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;

        if (sd_bus_call_method(bus, NULL, CONTROL_PATH, CONTROL_INTERFACE, method, &error, NULL, types, argument) < 0)
                EXPECT_STREQ(error.message, "no error");
}

static bool is_held(sd_bus *bus) {
        int held;

        EXPECT(sd_bus_get_property_trivial(bus, NULL, CONTROL_PATH, CONTROL_INTERFACE, "Held", NULL, 'b', &held) >= 0);
        return held;
}

static void hold_and_resume(void) {
        _cleanup_(sd_bus_close_unrefp) sd_bus *bus = open_bus();

        EXPECT(!is_held(bus));
        call(bus, "Hold", NULL, 0);
        EXPECT(is_held(bus));
        call(bus, "Hold", NULL, 0);
        expect_error(bus, CONTROL_ERROR_HELD, "Reload", NULL, 0);
        call(bus, "Resume", NULL, 0);
        EXPECT(!is_held(bus));
        call(bus, "Reload", NULL, 0);
}

static void test_hold(void) {
        with_house(hold_and_resume);
}

static void resize_and_recycle(void) {
        _cleanup_(sd_bus_close_unrefp) sd_bus *bus = open_bus();

        expect_error(bus, CONTROL_ERROR_BAD_NUMBER, "SetWorkers", "u", 3); /* it sizes itself */
        expect_error(bus, CONTROL_ERROR_NO_SUCH_WORKER, "Recycle", "u", 0);
        expect_error(bus, CONTROL_ERROR_NO_SUCH_WORKER, "Recycle", "u", UINT32_MAX);
        call(bus, "RecycleAll", NULL, 0);
}

static void test_resize(void) {
        with_house(resize_and_recycle);
}

static void test_reload(void) {
        with_house(reload);
}

static void listen_to_changes(void) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *message = NULL;
        _cleanup_(sd_bus_close_unrefp) sd_bus *bus = open_bus(), *other = open_bus();
        int r;

        free(get_status(bus));
        EXPECT(sd_bus_call_method(other, NULL, CONTROL_PATH, CONTROL_INTERFACE, "Reload", NULL, NULL, NULL) >= 0);
        for (;;) {
                r = sd_bus_process(bus, &message);
                EXPECT(r >= 0);
                if (message && sd_bus_message_is_signal(message, "org.freedesktop.DBus.Properties",
                                                        "PropertiesChanged"))
                        break;
                message = sd_bus_message_unref(message);
                if (r == 0)
                        EXPECT(sd_bus_wait(bus, LIMIT_USEC) > 0);
        }
}

static void test_changes(void) {
        with_house(listen_to_changes);
}

static void ask_in_a_crowd(void) {
        int fds[CROWD];

        for (unsigned i = 0; i < CROWD; i++)
                fds[i] = dial();
        expect_answer();
        expect_hang_up(fds[0]);
        for (unsigned i = 1; i < CROWD; i++)
                (void) close(fds[i]);
        expect_answer();
}

/* Those who say nothing are in nobody's way. */
static void test_silent(void) {
        with_house(ask_in_a_crowd);
}

static void ask_and_not_listen(void) {
        _cleanup_(sd_bus_close_unrefp) sd_bus *bus = open_bus();
        int r = 0;

        for (unsigned i = 0; i < 100000 && r >= 0; i++) {
                _cleanup_(sd_bus_message_unrefp) sd_bus_message *call = NULL;

                EXPECT(sd_bus_message_new_method_call(bus, &call, NULL, CONTROL_PATH,
                                                      "org.freedesktop.DBus.Introspectable", "Introspect") >= 0);
                r = sd_bus_send(bus, call, &(uint64_t) { 0 }); /* it wants an answer */
                if (r >= 0)
                        r = sd_bus_flush(bus);
        }
        EXPECT(r == -EPIPE || r == -ECONNRESET || r == -ENOTCONN);
        expect_answer();
}

static void test_deaf(void) {
        with_house(ask_and_not_listen);
}

static void talk_nonsense(void) {
        static const char *const texts[] = {
                "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                "\0AUTH EXTERNAL\r\nBEGIN\r\nnonsense that is long enough to be a header of a message",
                "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
                "AUTH",
        };
        static const size_t sizes[] = { 27, 80, 38, 4 };

        for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
                int fd = dial();

                EXPECT_EQ(send(fd, texts[i], MIN_OF(sizes[i], (size_t) 80), MSG_NOSIGNAL), sizes[i]);
                EXPECT_EQ(shutdown(fd, SHUT_WR), 0);
                expect_hang_up(fd);
                expect_answer();
        }
}

static void test_nonsense(void) {
        with_house(talk_nonsense);
}

static void call_as_nobody(void) {
        int fd, status;
        pid_t pid;

        EXPECT_EQ(chmod(directory, 0755), 0);
        EXPECT((pid = fork()) >= 0);
        if (pid == 0) {
                struct sockaddr_un sa = { .sun_family = AF_UNIX };

                EXPECT(setresgid(NOBODY, NOBODY, NOBODY) == 0 && setresuid(NOBODY, NOBODY, NOBODY) == 0);
                (void) snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/" CONTROL_SOCKET, directory);
                EXPECT((fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0);
                EXPECT(connect(fd, (struct sockaddr *) &sa, sizeof(sa)) < 0 && errno == EACCES);
                _exit(EXIT_SUCCESS);
        }
        EXPECT_EQ(waitpid(pid, &status, 0), pid);
        EXPECT_EQ(status, 0);
}

static void call_as_nobody_through_the_door(void) {
        char path[sizeof(directory) + sizeof(CONTROL_SOCKET)];
        int status;
        pid_t pid;

        (void) snprintf(path, sizeof(path), "%s/" CONTROL_SOCKET, directory);
        EXPECT_EQ(chmod(path, 0666), 0);
        EXPECT((pid = fork()) >= 0);
        if (pid == 0) {
                EXPECT(setresgid(NOBODY, NOBODY, NOBODY) == 0 && setresuid(NOBODY, NOBODY, NOBODY) == 0);
                expect_hang_up(dial());
                _exit(EXIT_SUCCESS);
        }
        EXPECT_EQ(waitpid(pid, &status, 0), pid);
        EXPECT_EQ(status, 0);
        expect_answer();
}

/* The mode keeps others out and, should somebody have changed that, SO_PEERCRED does. */
static void test_others(void) {
        /* A child has no threads, and to valgrind what belonged to them looks lost. */
        if (getuid() != 0 || is_under_valgrind())
                return;
        with_house(call_as_nobody);
        with_house(call_as_nobody_through_the_door);
}

/* --- the socket --- */

static void test_socket(void) {
        char path[sizeof(directory) + sizeof(CONTROL_SOCKET)], long_name[200];
        int fd = control_socket_open(directory), other_fd = listen_somewhere();
        struct stat st;

        EXPECT(fd >= 0);
        (void) snprintf(path, sizeof(path), "%s/" CONTROL_SOCKET, directory);
        EXPECT_EQ(lstat(path, &st), 0);
        EXPECT_EQ(st.st_mode, S_IFSOCK | 0600);
        EXPECT_EQ(control_socket_is_ours(fd), 1);
        EXPECT_EQ(control_socket_is_at(fd, directory), 1);
        EXPECT_EQ(control_socket_is_at(fd, "/run"), 0);
        EXPECT_EQ(control_socket_is_at(other_fd, directory), 0);
        EXPECT_EQ(unlink(path), 0);
        EXPECT_EQ(control_socket_is_at(fd, directory), 0);
        (void) close(fd);
        (void) close(other_fd);

        EXPECT((fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0);
        EXPECT_EQ(control_socket_is_ours(fd), 0); /* does not listen */
        (void) close(fd);
        EXPECT((fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0);
        EXPECT_EQ(listen(fd, 1), 0);
        EXPECT_EQ(control_socket_is_ours(fd), 0);
        (void) close(fd);
        EXPECT_EQ(control_socket_is_ours(eventfd(0, EFD_CLOEXEC)), -ENOTSOCK);

        memset(long_name, 'a', sizeof(long_name) - 1);
        long_name[sizeof(long_name) - 1] = '\0';
        EXPECT_EQ(control_socket_open(long_name), -ENAMETOOLONG);
        EXPECT_EQ(control_socket_open("/nonexistent"), -ENOENT);
}

static void test_directory_made(void) {
        EXPECT(mkdtemp(directory));
}

static void test_directory_removed(void) {
        char path[sizeof(directory) + sizeof(CONTROL_SOCKET)];

        (void) snprintf(path, sizeof(path), "%s/" CONTROL_SOCKET, directory);
        (void) unlink(path);
        EXPECT_EQ(rmdir(directory), 0);
}

TEST_MAIN(TEST(test_directory_made), TEST(test_socket), TEST(test_ask), TEST(test_reload), TEST(test_hold),
          TEST(test_resize), TEST(test_changes), TEST(test_silent), TEST(test_deaf), TEST(test_nonsense), TEST(test_others),
          TEST(test_directory_removed))
