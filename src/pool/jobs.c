/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Is our restart part of the restart of our socket? And, for the guardian: is the unit down?
 *
 * "systemctl restart app.socket" reaches us as an ordinary restart, by Requires=, but the socket is closed
 * and bound anew in the middle of it, and workers left on the old one would be in its way. At the moment we
 * get the signal the socket's own job waits for ours, and the bus policy of systemd lets everybody see that:
 * Properties.Get and the look-ups of org.freedesktop.systemd1.Manager are open to all.
 *
 * The connection is made for this one question, and must not cost more than it is worth. sd-bus connects
 * in the background but would wait for authentication as long as it likes in the first call, so we see to
 * that ourselves, and give each call only what is left of the time. Nothing is started on our behalf (no
 * auto-start flag). */

#include <unistd.h>

#include <systemd/sd-bus.h>

#include "clock.h"
#include "jobs.h"

#define SYSTEMD_NAME "org.freedesktop.systemd1"
#define SYSTEMD_PATH "/org/freedesktop/systemd1"

typedef struct Question {
        sd_bus *bus;
        uint64_t end_usec;
} Question;

static uint64_t time_left(const Question *q) {
        return usec_sub(q->end_usec, clock_now_usec());
}

/* Authentication and Hello(). Afterwards sd_bus_call() has nothing to wait for but the answer. */
static int wait_until_connected(const Question *q) {
        uint64_t left;
        int r;

        while ((r = sd_bus_is_ready(q->bus)) == 0) {
                left = time_left(q);
                if (left == 0)
                        return -ETIMEDOUT;
                r = sd_bus_process(q->bus, NULL);
                if (r == 0)
                        r = sd_bus_wait(q->bus, left);
                if (r < 0 && r != -EINTR)
                        return r;
        }
        return r;
}

static int call(const Question *q, sd_bus_message *message, sd_bus_message **ret_answer) {
        uint64_t left = time_left(q);
        int r;

        if (left == 0)
                return -ETIMEDOUT;
        r = sd_bus_message_set_auto_start(message, false);
        if (r < 0)
                return r;
        return sd_bus_call(q->bus, message, left, NULL, ret_answer);
}

/* A method of the manager that takes one argument and finds a unit; *ret_path is to be freed. */
static int find_unit(const Question *q, const char *method, char type, const void *argument,
                     char **ret_path) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *message = NULL, *answer = NULL;
        const char *path;
        int r;

        r = sd_bus_message_new_method_call(q->bus, &message, SYSTEMD_NAME, SYSTEMD_PATH,
                                           SYSTEMD_NAME ".Manager", method);
        if (r >= 0)
                r = sd_bus_message_append_basic(message, type, argument);
        if (r >= 0)
                r = call(q, message, &answer);
        if (r >= 0)
                r = sd_bus_message_read_basic(answer, SD_BUS_TYPE_OBJECT_PATH, &path);
        if (r < 0)
                return r;

        *ret_path = strdup(path);
        return *ret_path ? 0 : -ENOMEM;
}

/* A property of a unit; *ret_answer is left inside of the variant. */
static int get_property(const Question *q, const char *path, const char *name, const char *type,
                        sd_bus_message **ret_answer) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *message = NULL, *answer = NULL;
        int r;

        r = sd_bus_message_new_method_call(q->bus, &message, SYSTEMD_NAME, path,
                                           "org.freedesktop.DBus.Properties", "Get");
        if (r >= 0)
                r = sd_bus_message_append(message, "ss", SYSTEMD_NAME ".Unit", name);
        if (r >= 0)
                r = call(q, message, &answer);
        if (r >= 0)
                r = sd_bus_message_enter_container(answer, SD_BUS_TYPE_VARIANT, type);
        if (r < 0)
                return r;

        *ret_answer = TAKE_PTR(answer);
        return 0;
}

static int unit_has_job(const Question *q, const char *name) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *answer = NULL;
        _cleanup_free_ char *path = NULL;
        uint32_t job;
        int r;

        r = find_unit(q, "GetUnit", SD_BUS_TYPE_STRING, name, &path);
        if (r >= 0)
                r = get_property(q, path, "Job", "(uo)", &answer);
        if (r >= 0)
                r = sd_bus_message_read(answer, "(uo)", &job, NULL);
        return r < 0 ? r : job != 0;
}

static bool is_socket(const char *name) {
        size_t l = strlen(name), suffix = strlen(".socket");

        return l > suffix && streq(name + l - suffix, ".socket");
}

static int find_own_unit(const Question *q, char **ret_path) {
        uint32_t pid = (uint32_t) getpid();

        return find_unit(q, "GetUnitByPID", SD_BUS_TYPE_UINT32, &pid, ret_path);
}

static int any_socket_has_job(const Question *q) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *answer = NULL;
        _cleanup_free_ char *own_path = NULL;
        const char *name;
        int r;

        r = find_own_unit(q, &own_path);
        if (r >= 0)
                r = get_property(q, own_path, "TriggeredBy", "as", &answer);
        if (r >= 0)
                r = sd_bus_message_enter_container(answer, SD_BUS_TYPE_ARRAY, "s");
        if (r < 0)
                return r;

        while ((r = sd_bus_message_read_basic(answer, SD_BUS_TYPE_STRING, &name)) > 0) {
                if (!is_socket(name))
                        continue;
                r = unit_has_job(q, name);
                if (r != 0)
                        return r;
        }
        return r;
}

static int own_unit_is_down(const Question *q) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *job_answer = NULL, *state_answer = NULL;
        _cleanup_free_ char *path = NULL;
        const char *state;
        uint32_t job;
        int r;

        r = find_own_unit(q, &path);
        if (r >= 0)
                r = get_property(q, path, "Job", "(uo)", &job_answer);
        if (r >= 0)
                r = sd_bus_message_read(job_answer, "(uo)", &job, NULL);
        if (r >= 0)
                r = get_property(q, path, "ActiveState", "s", &state_answer);
        if (r >= 0)
                r = sd_bus_message_read_basic(state_answer, SD_BUS_TYPE_STRING, &state);
        if (r < 0)
                return r;
        return job == 0 && (streq(state, "inactive") || streq(state, "failed"));
}

static int ask(int (*question)(const Question *q), uint64_t timeout_usec) {
        _cleanup_(sd_bus_close_unrefp) sd_bus *bus = NULL;
        Question q = { .end_usec = usec_add(clock_now_usec(), timeout_usec) };
        int r;

        r = sd_bus_open_system(&bus);
        if (r < 0)
                return r;
        q.bus = bus;
        r = wait_until_connected(&q);
        if (r < 0)
                return r;
        return question(&q);
}

int jobs_socket_has_job(uint64_t timeout_usec) {
        return ask(any_socket_has_job, timeout_usec);
}

int jobs_unit_is_down(uint64_t timeout_usec) {
        return ask(own_unit_is_down, timeout_usec);
}
