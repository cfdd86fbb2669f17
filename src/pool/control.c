/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The server side of a D-Bus connection without a bus, sd_bus_set_server(3), one per caller.
 *
 * The listener is in PID 1's store, so that callers wait in its backlog while there is no helper. Who may
 * connect is decided by the mode of the socket, and once more by SO_PEERCRED: root, and our own user, who
 * could send us signals as well. sd-bus itself asks for no more than that somebody authenticates as
 * anybody.
 *
 * Callers are not trusted with our time. Their sources have a lower priority than the pool's, sd-bus handles
 * one message per turn of the loop, and nothing is ever waited for. Of those that have never said anything
 * sensible the oldest goes when there are too many; who does not take its answers goes as well. sd-bus
 * itself limits the size of a message and the time for authentication.
 *
 * A reload takes long, and its caller may be cut off by the execve() that a reload may begin with, or by
 * our death. So it is two calls: Reload() says which generation is on its way, and WaitReload() what has
 * become of that, as often as it is asked, of whichever helper. */

#include <inttypes.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#include "control-protocol.h"
#include "control.h"
#include "log.h"
#include "pool.h"

#define CONNECTIONS_MAX 64U
#define ACCEPTS_MAX 16U          /* in one turn of the event loop */
#define UNREAD_MAX 32U           /* answers that the caller has not taken */
#define NOT_SERVING "The pool does not serve yet, or not any more"
#define CONTROL_PRIORITY (SD_EVENT_PRIORITY_NORMAL + 10)

typedef struct Connection Connection;

struct Connection {
        Control *control;
        sd_bus *bus;
        sd_bus_message *waiting; /* owned: a WaitReload() without an answer */
        uint64_t waiting_generation;
        bool called;             /* it has called something */
        Connection *next;        /* the control's list, youngest first */
};

struct Control {
        ControlParameters p;
        sd_event *event;
        sd_event_source *source;
        Connection *connections;
        unsigned n_connections;
};

/* --- connections --- */

static void connection_free(Connection *c) {
        Control *control = c->control;

        for (Connection **link = &control->connections; *link; link = &(*link)->next)
                if (*link == c) {
                        *link = c->next;
                        control->n_connections--;
                        break;
                }
        sd_bus_message_unref(c->waiting);
        /* Not flushed: that would wait for the caller. */
        sd_bus_close_unref(c->bus);
        free(c);
}

/* Whoever lets answers pile up wants none. */
static bool hang_up_if_deaf(Connection *c) {
        uint64_t n = 0;

        if (sd_bus_get_n_queued_write(c->bus, &n) < 0 || n < UNREAD_MAX)
                return false;
        log_debug("A caller on the control socket does not read its answers, hanging up");
        connection_free(c);
        return true;
}

static int on_disconnected(sd_bus_message *message, void *userdata, sd_bus_error *ret_error) {
        connection_free(userdata);
        return 0;
}

/* Sees all messages before the object does. */
static int on_message(sd_bus_message *message, void *userdata, sd_bus_error *ret_error) {
        Connection *c = userdata;

        c->called = true;
        return hang_up_if_deaf(c);
}

/* --- what can be asked --- */

static int reply_unless_pending(Connection *c) {
        const char *text;
        int r;

        r = pool_get_verdict(c->control->p.pool, c->waiting_generation, &text);
        if (r == 0)
                return 0;
        if (r > 0)
                r = sd_bus_reply_method_return(c->waiting, "s", text);
        else if (r == -ESRCH)
                r = sd_bus_reply_method_errorf(c->waiting, CONTROL_ERROR_NO_SUCH_GENERATION,
                                               "Generation %" PRIu64 ": %s", c->waiting_generation, text);
        else
                r = sd_bus_reply_method_errorf(c->waiting, CONTROL_ERROR_RELOAD_FAILED, "%s", text);
        if (r < 0) /* whoever waits hears of it */
                r = sd_bus_reply_method_errno(c->waiting, r, NULL);
        c->waiting = sd_bus_message_unref(c->waiting);
        return r;
}

static int method_reload(sd_bus_message *message, void *userdata, sd_bus_error *ret_error) {
        Control *control = ((Connection *) userdata)->control;
        uint64_t generation;
        int r;

        r = control->p.on_reload(&generation, control->p.userdata);
        if (r == -EBUSY)
                return sd_bus_error_set(ret_error, CONTROL_ERROR_NOT_SERVING, NOT_SERVING);
        if (r == -EHOSTDOWN)
                return sd_bus_error_set(ret_error, CONTROL_ERROR_HELD, "The pool is held, resume it first");
        if (r == -EALREADY)
                return sd_bus_error_set(ret_error, CONTROL_ERROR_RELOAD_IN_PROGRESS,
                                        "The workers are being replaced already");
        if (r == -EMLINK)
                return sd_bus_error_set(ret_error, CONTROL_ERROR_TOO_MANY_GENERATIONS,
                                        "Workers of two older generations have not ended yet");
        if (r < 0)
                return r;
        r = sd_bus_reply_method_return(message, "t", generation);
        control->p.on_reloading(control->p.userdata);
        return r;
}

static int method_wait_reload(sd_bus_message *message, void *userdata, sd_bus_error *ret_error) {
        Connection *c = userdata;
        int r;

        if (c->waiting)
                return sd_bus_error_set(ret_error, SD_BUS_ERROR_LIMITS_EXCEEDED,
                                        "This connection waits for a reload already");
        r = sd_bus_message_read(message, "t", &c->waiting_generation);
        if (r < 0)
                return r;
        c->waiting = sd_bus_message_ref(message);
        r = reply_unless_pending(c);
        return r < 0 ? r : 1;
}

static int method_reexec(sd_bus_message *message, void *userdata, sd_bus_error *ret_error) {
        Control *control = ((Connection *) userdata)->control;
        int r;

        /* The connection ends with the execve(), which is the answer. */
        r = control->p.on_reexec(control->p.userdata);
        return sd_bus_error_setf(ret_error, CONTROL_ERROR_REEXEC_FAILED,
                                 "Could not execute the program anew: %s", strerror(-r));
}

static int method_set_workers(sd_bus_message *message, void *userdata, sd_bus_error *ret_error) {
        Problem problem;
        uint32_t n;
        int r;

        r = sd_bus_message_read(message, "u", &n);
        if (r < 0)
                return r;
        r = pool_set_workers(((Connection *) userdata)->control->p.pool, n, &problem);
        if (r < 0)
                return sd_bus_error_set(ret_error, CONTROL_ERROR_BAD_NUMBER, problem.text);
        return sd_bus_reply_method_return(message, NULL);
}

static int method_recycle(sd_bus_message *message, void *userdata, sd_bus_error *ret_error) {
        uint32_t slot;
        int r;

        r = sd_bus_message_read(message, "u", &slot);
        if (r < 0)
                return r;
        r = pool_recycle(((Connection *) userdata)->control->p.pool, slot);
        if (r < 0)
                return sd_bus_error_setf(ret_error, CONTROL_ERROR_NO_SUCH_WORKER,
                                         "Slot %" PRIu32 " has no worker that is ready", slot);
        return sd_bus_reply_method_return(message, NULL);
}

static int method_recycle_all(sd_bus_message *message, void *userdata, sd_bus_error *ret_error) {
        return sd_bus_reply_method_return(message, "u",
                                          pool_recycle_all(((Connection *) userdata)->control->p.pool));
}

static int hold(sd_bus_message *message, Connection *c, bool held, sd_bus_error *ret_error) {
        int r;

        r = pool_hold(c->control->p.pool, held);
        if (r == -EALREADY)
                return sd_bus_error_set(ret_error, CONTROL_ERROR_RELOAD_IN_PROGRESS,
                                        "The workers are being replaced, wait for that");
        if (r < 0)
                return sd_bus_error_set(ret_error, CONTROL_ERROR_NOT_SERVING, NOT_SERVING);
        return sd_bus_reply_method_return(message, NULL);
}

static int method_hold(sd_bus_message *message, void *userdata, sd_bus_error *ret_error) {
        return hold(message, userdata, true, ret_error);
}

static int method_resume(sd_bus_message *message, void *userdata, sd_bus_error *ret_error) {
        return hold(message, userdata, false, ret_error);
}

static int append_field(sd_bus_message *reply, const char *key, const char *type, ...) {
        va_list ap;
        int r;

        r = sd_bus_message_open_container(reply, SD_BUS_TYPE_DICT_ENTRY, "sv");
        if (r >= 0)
                r = sd_bus_message_append(reply, "s", key);
        if (r >= 0)
                r = sd_bus_message_open_container(reply, SD_BUS_TYPE_VARIANT, type);
        va_start(ap, type);
        if (r >= 0)
                r = sd_bus_message_appendv(reply, type, ap);
        va_end(ap);
        if (r >= 0)
                r = sd_bus_message_close_container(reply);
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int append_row(sd_bus_message *reply, const PoolRow *row) {
        int r;

        r = sd_bus_message_open_container(reply, SD_BUS_TYPE_ARRAY, "{sv}");
        if (r >= 0 && row->slot >= 0)
                r = append_field(reply, "Slot", "u", (uint32_t) row->slot);
        if (r >= 0)
                r = append_field(reply, "State", "s", row->state);
        if (r >= 0 && row->pid > 0)
                r = append_field(reply, "PID", "u", (uint32_t) row->pid);
        if (r >= 0 && row->pid > 0)
                r = append_field(reply, "Generation", "t", row->generation);
        if (r >= 0)
                r = append_field(reply, "StateUSec", "t", row->state_usec);
        if (r >= 0 && row->pid > 0)
                r = append_field(reply, "AgeUSec", "t", row->age_usec);
        if (r >= 0 && row->pid > 0)
                r = append_field(reply, "Requests", "u", row->n_requests);
        if (r >= 0 && row->n_requests > 0)
                r = append_field(reply, "RequestUSec", "t", row->request_usec);
        if (r >= 0 && row->memory > 0)
                r = append_field(reply, "Memory", "t", row->memory);
        if (r >= 0 && row->slot >= 0)
                r = append_field(reply, "Restarts", "u", row->n_restarts);
        if (r >= 0 && row->last_death)
                r = append_field(reply, "LastDeath", "s", row->last_death);
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int method_list_workers(sd_bus_message *message, void *userdata, sd_bus_error *ret_error) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        Pool *pool = ((Connection *) userdata)->control->p.pool;
        _cleanup_free_ PoolRow *rows = NULL;
        size_t n_rows = 0;
        int r;

        r = pool_list(pool, &rows, &n_rows);
        if (r >= 0)
                r = sd_bus_message_new_method_return(message, &reply);
        if (r >= 0)
                r = sd_bus_message_open_container(reply, SD_BUS_TYPE_ARRAY, "a{sv}");
        for (size_t i = 0; i < n_rows && r >= 0; i++)
                r = append_row(reply, rows + i);
        if (r >= 0)
                r = sd_bus_message_close_container(reply);
        return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}

static int get_property(sd_bus *bus, const char *path, const char *interface, const char *property,
                        sd_bus_message *reply, void *userdata, sd_bus_error *ret_error) {
        Pool *pool = ((Connection *) userdata)->control->p.pool;
        PoolSummary s;

        pool_summarize(pool, &s);
        if (streq(property, "Name"))
                return sd_bus_message_append(reply, "s", s.name);
        if (streq(property, "Phase"))
                return sd_bus_message_append(reply, "s", s.phase);
        if (streq(property, "Status"))
                return sd_bus_message_append(reply, "s", s.status);
        if (streq(property, "Generation"))
                return sd_bus_message_append(reply, "t", s.generation);
        if (streq(property, "Reloading"))
                return sd_bus_message_append(reply, "b", (int) s.reloading);
        if (streq(property, "Held"))
                return sd_bus_message_append(reply, "b", (int) s.held);
        if (streq(property, "Workers"))
                return sd_bus_message_append(reply, "u", s.n_wanted);
        if (streq(property, "Queued"))
                return sd_bus_message_append(reply, "u", s.n_queued);
        if (streq(property, "WorkersReady"))
                return sd_bus_message_append(reply, "u", s.n_ready);
        assert(streq(property, "Version"));
        return sd_bus_message_append(reply, "s", PACKAGE_VERSION);
}

static const sd_bus_vtable vtable[] = {
        SD_BUS_VTABLE_START(SD_BUS_VTABLE_UNPRIVILEGED), /* SO_PEERCRED has been looked at */
        SD_BUS_PROPERTY("Version", "s", get_property, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Name", "s", get_property, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Phase", "s", get_property, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Status", "s", get_property, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Generation", "t", get_property, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Reloading", "b", get_property, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Held", "b", get_property, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Workers", "u", get_property, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Queued", "u", get_property, 0, 0),
        SD_BUS_PROPERTY("WorkersReady", "u", get_property, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_METHOD_WITH_ARGS("Reload", SD_BUS_NO_ARGS, SD_BUS_RESULT("t", generation), method_reload, 0),
        SD_BUS_METHOD_WITH_ARGS("WaitReload", SD_BUS_ARGS("t", generation), SD_BUS_RESULT("s", summary),
                                method_wait_reload, 0),
        SD_BUS_METHOD_WITH_ARGS("ListWorkers", SD_BUS_NO_ARGS, SD_BUS_RESULT("aa{sv}", workers),
                                method_list_workers, 0),
        SD_BUS_METHOD_WITH_ARGS("SetWorkers", SD_BUS_ARGS("u", number), SD_BUS_NO_RESULT, method_set_workers,
                                0),
        SD_BUS_METHOD_WITH_ARGS("Recycle", SD_BUS_ARGS("u", slot), SD_BUS_NO_RESULT, method_recycle, 0),
        SD_BUS_METHOD_WITH_ARGS("RecycleAll", SD_BUS_NO_ARGS, SD_BUS_RESULT("u", number), method_recycle_all,
                                0),
        SD_BUS_METHOD_WITH_ARGS("Hold", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, method_hold, 0),
        SD_BUS_METHOD_WITH_ARGS("Resume", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, method_resume, 0),
        SD_BUS_METHOD_WITH_ARGS("Reexec", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, method_reexec, 0),
        SD_BUS_VTABLE_END,
};

void control_publish(Control *control) {
        if (!control)
                return;
        for (Connection *c = control->connections, *next; c; c = next) {
                next = c->next;
                if (c->waiting)
                        (void) reply_unless_pending(c);
                if (c->called)
                        (void) sd_bus_emit_properties_changed(c->bus, CONTROL_PATH, CONTROL_INTERFACE,
                                                              "Phase", "Status", "Generation", "Reloading",
                                                              "Held", "Workers", "WorkersReady", NULL);
                (void) hang_up_if_deaf(c);
        }
}

/* --- the listener --- */

/* Makes room: the oldest of those who have never said anything goes, else the oldest that waits for
 * nothing. */
static void evict(Control *control) {
        Connection *victim = NULL;

        for (Connection *c = control->connections; c; c = c->next)
                if (!victim || !c->called || (victim->called && !c->waiting))
                        victim = c;
        connection_free(victim);
}

static bool may_call(int fd) {
        socklen_t size = sizeof(struct ucred);
        struct ucred ucred;

        return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &ucred, &size) >= 0 &&
                (ucred.uid == 0 || ucred.uid == geteuid());
}

static int connection_start(Connection *c) {
        sd_id128_t id;
        int r;

        r = sd_id128_randomize(&id);
        if (r >= 0)
                r = sd_bus_set_server(c->bus, true, id);
        /* An exit does not wait for whoever does not read, and nobody can park descriptors here. */
        if (r >= 0)
                r = sd_bus_set_close_on_exit(c->bus, false);
        if (r >= 0)
                r = sd_bus_negotiate_fds(c->bus, false);
        if (r >= 0)
                r = sd_bus_add_filter(c->bus, NULL, on_message, c);
        if (r >= 0)
                r = sd_bus_match_signal(c->bus, NULL, "org.freedesktop.DBus.Local",
                                        "/org/freedesktop/DBus/Local", "org.freedesktop.DBus.Local",
                                        "Disconnected", on_disconnected, c);
        if (r >= 0)
                r = sd_bus_add_object_vtable(c->bus, NULL, CONTROL_PATH, CONTROL_INTERFACE, vtable, c);
        if (r >= 0)
                r = sd_bus_start(c->bus);
        return r < 0 ? r : sd_bus_attach_event(c->bus, c->control->event, CONTROL_PRIORITY);
}

/* Takes fd. */
static int connection_new(Control *control, int fd) {
        _cleanup_close_ int own_fd = fd;
        Connection *c;
        int r;

        c = calloc(1, sizeof(*c));
        if (!c)
                return -ENOMEM;
        c->control = control;
        r = sd_bus_new(&c->bus);
        if (r >= 0)
                r = sd_bus_set_fd(c->bus, fd, fd);
        if (r < 0) {
                connection_free(c);
                return r;
        }
        (void) TAKE_FD(own_fd);
        c->next = control->connections;
        control->connections = c;
        control->n_connections++;
        r = connection_start(c);
        if (r < 0)
                connection_free(c);
        return r;
}

static int on_connection(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        Control *control = userdata;
        int r;

        for (unsigned i = 0; i < ACCEPTS_MAX; i++) {
                _cleanup_close_ int connection_fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

                if (connection_fd < 0) {
                        if ((errno == EMFILE || errno == ENFILE) && control->connections)
                                evict(control);
                        return 0;
                }
                if (!may_call(connection_fd))
                        continue;
                if (control->n_connections >= CONNECTIONS_MAX)
                        evict(control);
                r = connection_new(control, TAKE_FD(connection_fd));
                if (r < 0)
                        log_debug("Could not talk to a caller on the control socket, ignoring: %s",
                                  strerror(-r));
        }
        return 0;
}

int control_new(sd_event *event, const ControlParameters *parameters, Control **ret_control) {
        _cleanup_(control_freep) Control *control = NULL;
        int r;

        assert(event);
        assert(parameters && parameters->pool && parameters->listener_fd >= 0);
        assert(ret_control);

        control = calloc(1, sizeof(*control));
        if (!control)
                return -ENOMEM;
        control->p = *parameters;
        control->event = sd_event_ref(event);
        r = sd_event_add_io(event, &control->source, parameters->listener_fd, EPOLLIN, on_connection,
                            control);
        if (r >= 0)
                r = sd_event_source_set_priority(control->source, CONTROL_PRIORITY);
        if (r < 0)
                return r;

        *ret_control = TAKE_PTR(control);
        return 0;
}

Control *control_free(Control *control) {
        if (!control)
                return NULL;

        while (control->connections)
                connection_free(control->connections);
        sd_event_source_disable_unref(control->source);
        sd_event_unref(control->event);
        free(control);
        return NULL;
}
