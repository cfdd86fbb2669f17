/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* PID 1 and the bus are a process of this program here, with as many socket units and as much silence as a case wants:
 * the answer is right, and it or the failure comes in time. */

#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include <systemd/sd-bus.h>
#include <systemd/sd-id128.h>

#include "fd-util.h"
#include "jobs.h"
#include "test.h"

#define PATIENCE_USEC (20 * USEC_PER_SEC)

typedef struct Unit {
        const char *name;
        uint32_t job;
} Unit;

/* The world as one case wants it. */
typedef struct Case {
        const char *triggered_by[6]; /* ends with NULL */
        Unit units[4];          /* what GetUnit() knows */
        const char *silent_on;  /* the member that is never answered */
        const char *fails_on;   /* the member that is answered with an error */
        int result;
} Case;

static bool is(const char *a, const char *b) {
        return b && streq(a, b);
}

static int answer_get(sd_bus_message *m, const Case *c) {
        const char *interface, *property, *path = sd_bus_message_get_path(m);
        uint32_t job = 0;

        EXPECT(sd_bus_message_read(m, "ss", &interface, &property) > 0);
        EXPECT_STREQ(interface, "org.freedesktop.systemd1.Unit");
        if (is(property, c->silent_on))
                return 1;
        if (is(property, c->fails_on))
                return sd_bus_reply_method_errorf(m, SD_BUS_ERROR_ACCESS_DENIED, "no");
        if (streq(property, "TriggeredBy")) {
                _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;

                EXPECT_STREQ(path, "/unit/own");
                EXPECT(sd_bus_message_new_method_return(m, &reply) >= 0);
                EXPECT(sd_bus_message_open_container(reply, 'v', "as") >= 0);
                EXPECT(sd_bus_message_append_strv(reply, (char **) c->triggered_by) >= 0);
                EXPECT(sd_bus_message_close_container(reply) >= 0);
                return sd_bus_send(NULL, reply, NULL);
        }
        EXPECT_STREQ(property, "Job");
        EXPECT(startswith(path, "/unit/"));
        job = c->units[atoi(path + strlen("/unit/"))].job;
        return sd_bus_reply_method_return(m, "v", "(uo)", job, job == 0 ? "/" : "/job");
}

static int answer_get_unit(sd_bus_message *m, const Case *c) {
        const char *name;
        char path[32];

        EXPECT(sd_bus_message_read(m, "s", &name) > 0);
        for (size_t i = 0; i < ELEMENTSOF(c->units); i++)
                if (is(name, c->units[i].name)) {
                        (void) snprintf(path, sizeof(path), "/unit/%zu", i);
                        return sd_bus_reply_method_return(m, "o", path);
                }
        return sd_bus_reply_method_errorf(m, "org.freedesktop.systemd1.NoSuchUnit", "unexpected: %s", name);
}

static int answer(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        const char *member = sd_bus_message_get_member(m);
        const Case *c = userdata;
        uint32_t pid;

        if (sd_bus_message_is_method_call(m, NULL, NULL) <= 0)
                return 0; /* the end of the connection */
        if (is(member, c->silent_on))
                return 1;
        if (is(member, c->fails_on))
                return sd_bus_reply_method_errorf(m, "org.freedesktop.systemd1.NoUnitForPID", "no");
        if (streq(member, "Hello"))
                return sd_bus_reply_method_return(m, "s", ":1.1");

        EXPECT_STREQ(sd_bus_message_get_destination(m), "org.freedesktop.systemd1");
        EXPECT_EQ(sd_bus_message_get_auto_start(m), 0);
        if (streq(member, "GetUnitByPID")) {
                EXPECT(sd_bus_message_read(m, "u", &pid) > 0);
                EXPECT_EQ(pid, getppid());
                return sd_bus_reply_method_return(m, "o", "/unit/own");
        }
        if (streq(member, "GetUnit"))
                return answer_get_unit(m, c);
        EXPECT_STREQ(member, "Get");
        return answer_get(m, c);
}

/* Serves one connection. */
static _noreturn_ void serve(int listener, const Case *c) {
        sd_id128_t id;
        sd_bus *bus;
        int fd, r;

        EXPECT((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0);
        EXPECT(sd_id128_randomize(&id) >= 0);
        EXPECT(sd_bus_new(&bus) >= 0);
        EXPECT(sd_bus_set_fd(bus, fd, fd) >= 0);
        EXPECT(sd_bus_set_server(bus, true, id) >= 0);
        EXPECT(sd_bus_set_trusted(bus, true) >= 0);
        EXPECT(sd_bus_add_filter(bus, NULL, answer, (void *) c) >= 0);
        EXPECT(sd_bus_start(bus) >= 0);
        while ((r = sd_bus_process(bus, NULL)) >= 0)
                if (r == 0 && sd_bus_wait(bus, UINT64_MAX) < 0)
                        break;
        sd_bus_unref(bus);
        _exit(0);
}

static int new_listener(int backlog) {
        struct sockaddr_un sa = { .sun_family = AF_UNIX };
        socklen_t length = sizeof(sa);
        char address[128];
        int fd;

        EXPECT((fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0);
        EXPECT_EQ(bind(fd, (struct sockaddr *) &sa, sizeof(sa_family_t)), 0); /* autobind */
        EXPECT_EQ(listen(fd, backlog), 0);
        EXPECT_EQ(getsockname(fd, (struct sockaddr *) &sa, &length), 0);
        (void) snprintf(address, sizeof(address), "unix:abstract=%.*s",
                        (int) (length - offsetof(struct sockaddr_un, sun_path) - 1), sa.sun_path + 1);
        EXPECT_EQ(setenv("DBUS_SYSTEM_BUS_ADDRESS", address, 1), 0);
        return fd;
}

static uint64_t now_usec(void) {
        struct timespec ts;

        EXPECT_EQ(clock_gettime(CLOCK_MONOTONIC, &ts), 0);
        return (uint64_t) ts.tv_sec * USEC_PER_SEC + (uint64_t) ts.tv_nsec / 1000;
}

static uint64_t asked_usec; /* how long jobs_socket_has_job() took, without the server's start and end */

static int ask(const Case *c, uint64_t timeout_usec) {
        int listener = new_listener(10), result;
        siginfo_t si = {};
        pid_t pid;

        EXPECT((pid = fork()) >= 0);
        if (pid == 0) {
                EXPECT_EQ(prctl(PR_SET_PDEATHSIG, (unsigned long) SIGKILL, 0UL, 0UL, 0UL), 0);
                serve(listener, c);
        }
        asked_usec = now_usec();
        result = jobs_socket_has_job(timeout_usec);
        asked_usec = now_usec() - asked_usec;
        /* It ends when we have hung up, and by abort() if it was asked something wrong. */
        EXPECT_EQ(waitid(P_PID, (id_t) pid, &si, WEXITED), 0);
        EXPECT_EQ(si.si_code, CLD_EXITED);
        EXPECT_EQ(si.si_status, 0);
        (void) safe_close(listener);
        return result;
}

static void test_answers(void) {
        static const Case cases[] = {
                { .result = 0 },
                { .triggered_by = { "app.socket" }, .units = { { "app.socket", 0 } }, .result = 0 },
                { .triggered_by = { "app.socket" }, .units = { { "app.socket", 77 } }, .result = 1 },
                { .triggered_by = { "a.socket", "b.socket", "c.socket" },
                  .units = { { "a.socket", 0 }, { "b.socket", 0 }, { "c.socket", UINT32_MAX } }, .result = 1 },
                { .triggered_by = { "a.socket", "b.socket" },
                  .units = { { "b.socket", 0 }, { "a.socket", 0 } }, .result = 0 },
                /* Timers and paths have no listener: they are not even looked at. */
                { .triggered_by = { "x.timer", "x.path", "socket", ".socket", "a.socket" },
                  .units = { { "x.timer", 5 }, { "x.path", 5 }, { "a.socket", 0 }, { ".socket", 5 } }, .result = 0 },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                EXPECT_EQ(ask(&cases[i], PATIENCE_USEC), cases[i].result);
}

static void test_errors(void) {
        static const char *const members[] = { "Hello", "GetUnitByPID", "TriggeredBy", "GetUnit", "Job" };
        Case c = { .triggered_by = { "app.socket" }, .units = { { "app.socket", 77 } } };

        for (size_t i = 0; i < ELEMENTSOF(members); i++) {
                c.fails_on = members[i];
                EXPECT(ask(&c, PATIENCE_USEC) < 0);
        }
}

/* Whoever does not answer, and whenever: the time is the time. */
static void test_silence(void) {
        static const char *const members[] = { "Hello", "GetUnitByPID", "TriggeredBy", "GetUnit", "Job" };
        Case c = { .triggered_by = { "app.socket" }, .units = { { "app.socket", 77 } } };

        for (size_t i = 0; i < ELEMENTSOF(members); i++) {
                c.silent_on = members[i];
                EXPECT_EQ(ask(&c, 50 * USEC_PER_MSEC), -ETIMEDOUT);
                EXPECT(asked_usec >= 50 * USEC_PER_MSEC);
                EXPECT(asked_usec < 5 * USEC_PER_SEC);
        }
}

static void test_nobody_accepts(void) {
        int listener = new_listener(10);
        uint64_t before = now_usec();

        EXPECT_EQ(jobs_socket_has_job(50 * USEC_PER_MSEC), -ETIMEDOUT);
        EXPECT_EQ(jobs_socket_has_job(0), -ETIMEDOUT);
        EXPECT(now_usec() - before < 5 * USEC_PER_SEC);
        (void) safe_close(listener);
}

/* unix(7): connect(2) on a full backlog is EAGAIN for those who do not want to block. */
static void test_backlog_is_full(void) {
        int listener = new_listener(0), fds[4];
        struct sockaddr_un sa;
        socklen_t length = sizeof(sa);
        uint64_t before;

        EXPECT_EQ(getsockname(listener, (struct sockaddr *) &sa, &length), 0);
        for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
                EXPECT((fds[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) >= 0);
                (void) connect(fds[i], (struct sockaddr *) &sa, length);
        }
        before = now_usec();
        EXPECT(jobs_socket_has_job(50 * USEC_PER_MSEC) < 0);
        EXPECT(now_usec() - before < 5 * USEC_PER_SEC);
        for (size_t i = 0; i < ELEMENTSOF(fds); i++)
                (void) safe_close(fds[i]);
        (void) safe_close(listener);
}

static void test_hangs_up(void) {
        int listener = new_listener(10);
        siginfo_t si;
        pid_t pid;

        EXPECT((pid = fork()) >= 0);
        if (pid == 0) {
                (void) safe_close(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
                _exit(0);
        }
        EXPECT(jobs_socket_has_job(PATIENCE_USEC) < 0);
        EXPECT_EQ(waitid(P_PID, (id_t) pid, &si, WEXITED), 0);
        (void) safe_close(listener);
}

static void test_no_bus(void) {
        EXPECT_EQ(setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus", 1), 0);
        EXPECT_EQ(jobs_socket_has_job(PATIENCE_USEC), -ENOENT);
        EXPECT_EQ(setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:abstract=nobody-listens-on-this-one", 1), 0);
        EXPECT_EQ(jobs_socket_has_job(PATIENCE_USEC), -ECONNREFUSED);
        EXPECT_EQ(setenv("DBUS_SYSTEM_BUS_ADDRESS", "nonsense", 1), 0);
        EXPECT(jobs_socket_has_job(PATIENCE_USEC) < 0);
}

TEST_MAIN(
        TEST(test_answers),
        TEST(test_errors),
        TEST(test_silence),
        TEST(test_nobody_accepts),
        TEST(test_backlog_is_full),
        TEST(test_hangs_up),
        TEST(test_no_bus),
)
