/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Two calls of GetAll() per unit, and a table that says where each property goes. What has another type than
 * the table says is left out like what is not in it: a later systemd adds properties and, if it has to
 * change one, gives it another name ("PrivateTmpEx").
 *
 * Properties come in no order. A word "yes" or "no" made of a boolean is therefore only kept if there is
 * nothing better, and "PrivateTmpEx" is better than "PrivateTmp".
 *
 * LoadUnit() needs no privilege, and a unit that systemd forgets between two calls is loaded anew by the
 * second. */

#include <signal.h>
#include <stdio.h>

#include <systemd/sd-bus.h>

#include "unit.h"

#define SYSTEMD_NAME "org.freedesktop.systemd1"
#define SYSTEMD_PATH "/org/freedesktop/systemd1"

/* How a property is read into a field of the settings. */
typedef struct FieldType {
        const char *signature;
        int (*read)(sd_bus_message *message, void *field);
        void (*done)(void *field); /* NULL: nothing is owned */
} FieldType;

typedef enum FieldTypeId {
        TYPE_STRING,
        TYPE_BOOL,
        TYPE_WORD, /* a boolean as "yes" or "no" */
        TYPE_SIGNAL,
        TYPE_U32,
        TYPE_U64,
        TYPE_STRV,
        TYPE_FILTER,
        TYPE_EXIT_SET,
        TYPE_CPUS,
        TYPE_COMMAND,
        TYPE_FILES,
        TYPE_LISTENS,
} FieldTypeId;

typedef struct Property {
        const char *name;
        FieldTypeId type;
        size_t offset;
} Property;

/* --- the types of fields --- */

static void done_string(void *field) {
        char **s = field;

        free(*s);
        *s = NULL;
}

static void done_strv(void *field) {
        char ***strv = field;

        *strv = strv_free(*strv);
}

static int replace(char **field, char *consumed) {
        if (!consumed)
                return -ENOMEM;
        free(*field);
        *field = consumed;
        return 0;
}

static int read_string(sd_bus_message *message, void *field) {
        const char *s;
        int r;

        r = sd_bus_message_read_basic(message, 's', &s);
        return r < 0 ? r : replace(field, strdup(s));
}

static int read_bool(sd_bus_message *message, void *field) {
        int value, r;

        r = sd_bus_message_read_basic(message, 'b', &value);
        if (r >= 0)
                *(bool *) field = value;
        return r;
}

static int read_bool_as_word(sd_bus_message *message, void *field) {
        char **word = field;
        bool value;
        int r;

        r = read_bool(message, &value);
        return r < 0 || *word ? r : replace(word, strdup(value ? "yes" : "no"));
}

static int read_signal(sd_bus_message *message, void *field) {
        const char *known;
        char *name;
        int32_t signo;
        int r;

        r = sd_bus_message_read_basic(message, 'i', &signo);
        if (r < 0)
                return r;
        known = sigabbrev_np(signo);
        if ((known ? asprintf(&name, "SIG%s", known) : asprintf(&name, "%d", signo)) < 0)
                return -ENOMEM;
        return replace(field, name);
}

static int read_u32(sd_bus_message *message, void *field) {
        uint32_t value;
        int r;

        r = sd_bus_message_read_basic(message, 'u', &value);
        if (r >= 0)
                *(uint64_t *) field = value;
        return r;
}

static int read_u64(sd_bus_message *message, void *field) {
        return sd_bus_message_read_basic(message, 't', field);
}

static int read_strv(sd_bus_message *message, void *field) {
        char ***strv = field;

        *strv = strv_free(*strv);
        return sd_bus_message_read_strv(message, strv);
}

static int read_filter(sd_bus_message *message, void *field) {
        Filter *filter = field;
        int r;

        r = sd_bus_message_enter_container(message, 'r', "bas");
        if (r >= 0)
                r = read_bool(message, &filter->allow);
        if (r >= 0)
                r = read_strv(message, &filter->names);
        return r < 0 ? r : sd_bus_message_exit_container(message);
}

static int read_numbers(sd_bus_message *message, bool *set, size_t n) {
        const int32_t *numbers;
        size_t size;
        int r;

        r = sd_bus_message_read_array(message, 'i', (const void **) &numbers, &size);
        for (size_t i = 0; r >= 0 && i < size / sizeof(*numbers); i++)
                if (numbers[i] >= 0 && (size_t) numbers[i] < n)
                        set[numbers[i]] = true;
        return r;
}

static int read_exit_set(sd_bus_message *message, void *field) {
        ExitSet *set = field;
        int r;

        r = sd_bus_message_enter_container(message, 'r', "aiai");
        if (r >= 0)
                r = read_numbers(message, set->statuses, ELEMENTSOF(set->statuses));
        if (r >= 0)
                r = read_numbers(message, set->signals, ELEMENTSOF(set->signals));
        return r < 0 ? r : sd_bus_message_exit_container(message);
}

/* CPU sets: whether there are any. */
static int read_any_byte(sd_bus_message *message, void *field) {
        const void *bytes;
        size_t size;
        int r;

        r = sd_bus_message_read_array(message, 'y', &bytes, &size);
        if (r >= 0 && size > 0)
                *(bool *) field = true;
        return r;
}

/* The arguments of the first command; only Type=oneshot has more. */
static int read_command(sd_bus_message *message, void *field) {
        char ***argv = field;
        int r;

        r = sd_bus_message_enter_container(message, 'a', "(sasbttttuii)");
        while (r >= 0 && (r = sd_bus_message_enter_container(message, 'r', "sasbttttuii")) > 0) {
                r = sd_bus_message_skip(message, "s");
                if (r >= 0)
                        r = *argv ? sd_bus_message_skip(message, "as") : read_strv(message, argv);
                if (r >= 0)
                        r = sd_bus_message_skip(message, "bttttuii");
                if (r >= 0)
                        r = sd_bus_message_exit_container(message);
        }
        return r < 0 ? r : sd_bus_message_exit_container(message);
}

/* Whether an absent file is an error does not matter here. */
static int read_environment_files(sd_bus_message *message, void *field) {
        char ***files = field;
        const char *path;
        int r;

        r = sd_bus_message_enter_container(message, 'a', "(sb)");
        while (r >= 0 && (r = sd_bus_message_read(message, "(sb)", &path, NULL)) > 0)
                r = strv_extend(files, path);
        return r < 0 ? r : sd_bus_message_exit_container(message);
}

static int read_listens(sd_bus_message *message, void *field) {
        Listens *listens = field;
        const char *type, *address;
        int r;

        r = sd_bus_message_enter_container(message, 'a', "(ss)");
        while (r >= 0 && (r = sd_bus_message_read(message, "(ss)", &type, &address)) > 0) {
                r = strv_extend(&listens->types, type);
                if (r >= 0)
                        r = strv_extend(&listens->addresses, address);
        }
        return r < 0 ? r : sd_bus_message_exit_container(message);
}

static void done_filter(void *field) {
        done_strv(&((Filter *) field)->names);
}

static void done_listens(void *field) {
        done_strv(&((Listens *) field)->types);
        done_strv(&((Listens *) field)->addresses);
}

static const FieldType field_types[] = {
        [TYPE_STRING] = { "s", read_string, done_string },
        [TYPE_BOOL] = { "b", read_bool, NULL },
        [TYPE_WORD] = { "b", read_bool_as_word, done_string },
        [TYPE_SIGNAL] = { "i", read_signal, done_string },
        [TYPE_U32] = { "u", read_u32, NULL },
        [TYPE_U64] = { "t", read_u64, NULL },
        [TYPE_STRV] = { "as", read_strv, done_strv },
        [TYPE_FILTER] = { "(bas)", read_filter, done_filter },
        [TYPE_EXIT_SET] = { "(aiai)", read_exit_set, NULL },
        [TYPE_CPUS] = { "ay", read_any_byte, NULL },
        [TYPE_COMMAND] = { "a(sasbttttuii)", read_command, done_strv },
        [TYPE_FILES] = { "a(sb)", read_environment_files, done_strv },
        [TYPE_LISTENS] = { "a(ss)", read_listens, done_listens },
};

/* --- the tables --- */

#define SERVICE(name_, type_, field_) { (name_), (type_), offsetof(Service, field_) }
#define SOCKET(name_, type_, field_) { (name_), (type_), offsetof(Socket, field_) }

static const Property service_properties[] = {
        SERVICE("Id", TYPE_STRING, id),
        SERVICE("LoadState", TYPE_STRING, load_state),
        SERVICE("NeedDaemonReload", TYPE_BOOL, need_daemon_reload),
        SERVICE("TriggeredBy", TYPE_STRV, triggered_by),
        SERVICE("Requires", TYPE_STRV, requires),
        SERVICE("BindsTo", TYPE_STRV, binds_to),
        SERVICE("StartLimitIntervalUSec", TYPE_U64, start_limit_interval_usec),
        SERVICE("StartLimitBurst", TYPE_U32, start_limit_burst),
        SERVICE("ExecStart", TYPE_COMMAND, exec_start),
        SERVICE("ExecReload", TYPE_COMMAND, exec_reload),
        SERVICE("Environment", TYPE_STRV, environment),
        SERVICE("EnvironmentFiles", TYPE_FILES, environment_files),
        SERVICE("CPUAffinity", TYPE_CPUS, cpus_restricted),
        SERVICE("AllowedCPUs", TYPE_CPUS, cpus_restricted),
        SERVICE("Type", TYPE_STRING, type),
        SERVICE("ExitType", TYPE_STRING, exit_type),
        SERVICE("NotifyAccess", TYPE_STRING, notify_access),
        SERVICE("Restart", TYPE_STRING, restart),
        SERVICE("OOMPolicy", TYPE_STRING, oom_policy),
        SERVICE("NonBlocking", TYPE_WORD, non_blocking),
        SERVICE("TimeoutStartFailureMode", TYPE_STRING, timeout_start_failure_mode),
        SERVICE("RestartUSec", TYPE_U64, restart_usec),
        SERVICE("RuntimeMaxUSec", TYPE_U64, runtime_max_usec),
        SERVICE("SuccessExitStatus", TYPE_EXIT_SET, success_exit_status),
        SERVICE("RestartPreventExitStatus", TYPE_EXIT_SET, restart_prevent_exit_status),
        SERVICE("FileDescriptorStoreMax", TYPE_U32, fd_store_max),
        SERVICE("FileDescriptorStorePreserve", TYPE_STRING, fd_store_preserve),
        SERVICE("KillMode", TYPE_STRING, kill_mode),
        SERVICE("KillSignal", TYPE_SIGNAL, kill_signal),
        SERVICE("RestartKillSignal", TYPE_SIGNAL, restart_kill_signal),
        SERVICE("SendSIGKILL", TYPE_WORD, send_sigkill),
        SERVICE("Delegate", TYPE_WORD, delegate),
        SERVICE("TasksMax", TYPE_U64, tasks_max),
        SERVICE("LimitNOFILESoft", TYPE_U64, n_files_max),
        SERVICE("User", TYPE_STRING, user),
        SERVICE("DynamicUser", TYPE_WORD, dynamic_user),
        SERVICE("RemoveIPC", TYPE_WORD, remove_ipc),
        SERVICE("RuntimeDirectory", TYPE_STRV, runtime_directories),
        SERVICE("RuntimeDirectoryPreserve", TYPE_STRING, runtime_directory_preserve),
        SERVICE("PrivateTmp", TYPE_WORD, private_tmp),
        SERVICE("PrivateTmpEx", TYPE_STRING, private_tmp),
        SERVICE("PrivateUsers", TYPE_WORD, private_users),
        SERVICE("PrivateUsersEx", TYPE_STRING, private_users),
        SERVICE("PrivatePIDs", TYPE_STRING, private_pids),
        SERVICE("PrivateNetwork", TYPE_WORD, private_network),
        SERVICE("PrivateIPC", TYPE_WORD, private_ipc),
        SERVICE("ProtectControlGroups", TYPE_WORD, protect_control_groups),
        SERVICE("ProtectControlGroupsEx", TYPE_STRING, protect_control_groups),
        SERVICE("SystemCallFilter", TYPE_FILTER, system_calls),
        SERVICE("RestrictAddressFamilies", TYPE_FILTER, address_families),
};

static const Property socket_properties[] = {
        SOCKET("Id", TYPE_STRING, id),
        SOCKET("LoadState", TYPE_STRING, load_state),
        SOCKET("Triggers", TYPE_STRV, triggers),
        SOCKET("StartLimitIntervalUSec", TYPE_U64, start_limit_interval_usec),
        SOCKET("StartLimitBurst", TYPE_U32, start_limit_burst),
        SOCKET("Listen", TYPE_LISTENS, listens),
        SOCKET("Accept", TYPE_WORD, accept),
        SOCKET("FlushPending", TYPE_WORD, flush_pending),
        SOCKET("RemoveOnStop", TYPE_WORD, remove_on_stop),
        SOCKET("TriggerLimitIntervalUSec", TYPE_U64, trigger_limit_interval_usec),
        SOCKET("TriggerLimitBurst", TYPE_U32, trigger_limit_burst),
};

/* --- the calls --- */

typedef struct Kind {
        const char *interface; /* beside that of all units */
        const Property *properties;
        size_t n_properties;
} Kind;

static const Property *find_property(const Kind *kind, const char *name, const char *signature) {
        for (const Property *p = kind->properties; p < kind->properties + kind->n_properties; p++)
                if (streq(p->name, name) && streq(field_types[p->type].signature, signature))
                        return p;
        return NULL;
}

/* One entry of the dictionary that GetAll() answers with. */
static int read_entry(sd_bus_message *message, const Kind *kind, void *settings) {
        const char *name, *signature;
        const Property *property;
        int r;

        r = sd_bus_message_read_basic(message, 's', &name);
        if (r >= 0)
                r = sd_bus_message_peek_type(message, NULL, &signature);
        if (r < 0)
                return r;

        property = find_property(kind, name, signature);
        if (!property)
                return sd_bus_message_skip(message, "v");
        r = sd_bus_message_enter_container(message, 'v', signature);
        if (r >= 0)
                r = field_types[property->type].read(message, (char *) settings + property->offset);
        return r < 0 ? r : sd_bus_message_exit_container(message);
}

static int read_interface(sd_bus *bus, const char *path, const char *interface, const Kind *kind,
                          void *settings, sd_bus_error *error) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *answer = NULL;
        int r;

        r = sd_bus_call_method(bus, SYSTEMD_NAME, path, "org.freedesktop.DBus.Properties", "GetAll", error,
                               &answer, "s", interface);
        if (r >= 0)
                r = sd_bus_message_enter_container(answer, 'a', "{sv}");
        while (r >= 0 && (r = sd_bus_message_enter_container(answer, 'e', "sv")) > 0) {
                r = read_entry(answer, kind, settings);
                if (r >= 0)
                        r = sd_bus_message_exit_container(answer);
        }
        return r;
}

static int unit_read(sd_bus *bus, const char *name, const Kind *kind, void *settings, Problem *ret_problem) {
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *answer = NULL;
        const char *path;
        int r;

        r = sd_bus_call_method(bus, SYSTEMD_NAME, SYSTEMD_PATH, SYSTEMD_NAME ".Manager", "LoadUnit", &error,
                               &answer, "s", name);
        if (r >= 0)
                r = sd_bus_message_read_basic(answer, 'o', &path);
        if (r >= 0)
                r = read_interface(bus, path, SYSTEMD_NAME ".Unit", kind, settings, &error);
        if (r >= 0)
                r = read_interface(bus, path, kind->interface, kind, settings, &error);
        if (r == -EINVAL)
                return problem_set(ret_problem, EXIT_STATUS_INVALID_ARGUMENT, r, "%s: %s", name,
                                   error.message ?: "systemd does not take this for the name of a unit");
        if (r < 0)
                return problem_set(ret_problem, EXIT_STATUS_UNAVAILABLE, r, "%s: systemd does not tell: %s",
                                   name, error.message ?: strerror(-r));
        return 0;
}

int service_read(sd_bus *bus, const char *name, Service *ret, Problem *ret_problem) {
        static const Kind kind = { SYSTEMD_NAME ".Service", service_properties,
                                   ELEMENTSOF(service_properties) };
        _cleanup_(service_done) Service service = { .runtime_max_usec = USEC_INFINITY };
        int r;

        r = unit_read(bus, name, &kind, &service, ret_problem);
        if (r < 0)
                return r;
        *ret = service;
        service = (Service) {};
        return 0;
}

int socket_read(sd_bus *bus, const char *name, Socket *ret, Problem *ret_problem) {
        static const Kind kind = { SYSTEMD_NAME ".Socket", socket_properties,
                                   ELEMENTSOF(socket_properties) };
        _cleanup_(socket_done) Socket socket = {};
        int r;

        r = unit_read(bus, name, &kind, &socket, ret_problem);
        if (r < 0)
                return r;
        *ret = socket;
        socket = (Socket) {};
        return 0;
}

static void settings_done(void *settings, const Property *properties, size_t n_properties) {
        for (const Property *p = properties; p < properties + n_properties; p++)
                if (field_types[p->type].done)
                        field_types[p->type].done((char *) settings + p->offset);
}

void service_done(Service *service) {
        settings_done(service, service_properties, ELEMENTSOF(service_properties));
        command_done(&service->command);
}

void socket_done(Socket *socket) {
        settings_done(socket, socket_properties, ELEMENTSOF(socket_properties));
}
