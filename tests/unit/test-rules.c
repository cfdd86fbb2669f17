/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The settings of the template units are no finding; each rule finds what it is for, and nothing else. */

#include <signal.h>
#include <stdio.h>

#include "clock.h"
#include "fd-limits.h"
#include "rules.h"
#include "test.h"

#define N_WORKERS 6U

/* Fields are not const by custom only: nothing writes to them, and nobody frees these. */
#define WORD(s) ((char *) (s))
#define WORDS(...) ((char **) (const char *[]) { __VA_ARGS__, NULL })

/* As the template has them. Macros, so that the arrays live as long as what has them. */
#define GOOD_SERVICE {                                                                          \
        .id = WORD("x.service"),                                                                \
        .load_state = WORD("loaded"),                                                           \
        .triggered_by = WORDS("x.socket"),                                                      \
        .requires = WORDS("sysinit.target", "x.socket"),                                        \
        .start_limit_burst = 5,                                                                 \
        .command = { .known = true, .n_workers = N_WORKERS, .n_surge = 1 },                      \
        .type = WORD("notify"),                                                                 \
        .exit_type = WORD("main"),                                                              \
        .notify_access = WORD("main"),                                                          \
        .restart = WORD("always"),                                                              \
        .oom_policy = WORD("continue"),                                                         \
        .non_blocking = WORD("no"),                                                             \
        .timeout_start_failure_mode = WORD("kill"),                                             \
        .restart_usec = USEC_PER_SEC,                                                           \
        .runtime_max_usec = USEC_INFINITY,                                                      \
        .success_exit_status.signals[SIGUSR1] = true,                                           \
        .fd_store_max = 1040,                                                                   \
        .fd_store_preserve = WORD("restart"),                                                   \
        .kill_mode = WORD("process"),                                                           \
        .kill_signal = WORD("SIGTERM"),                                                         \
        .restart_kill_signal = WORD("SIGUSR1"),                                                 \
        .send_sigkill = WORD("yes"),                                                            \
        .delegate = WORD("yes"),                                                                \
        .tasks_max = 16384,                                                                     \
        .n_files_max = 16384,                                                                   \
        .user = WORD("fcgi-pool"),                                                              \
        .dynamic_user = WORD("no"),                                                             \
        .remove_ipc = WORD("no"),                                                               \
        .exec_reload = WORDS("/usr/bin/fcgi-poolctl", "reload"),                                \
        .runtime_directories = WORDS("x"),                                                      \
        .runtime_directory_preserve = WORD("restart"),                                          \
        .private_tmp = WORD("no"),                                                              \
        .private_users = WORD("no"),                                                            \
        .private_pids = WORD("no"),                                                             \
        .private_network = WORD("no"),                                                          \
        .private_ipc = WORD("no"),                                                              \
        .protect_control_groups = WORD("no"),                                                   \
        .system_calls = { .allow = true, .names = WORDS("accept4", "pidfd_getfd", "read") },    \
        .address_families = { .allow = true, .names = WORDS("AF_NETLINK", "AF_UNIX") },         \
}

#define GOOD_SOCKET {                                                                   \
        .id = WORD("x.socket"),                                                         \
        .load_state = WORD("loaded"),                                                   \
        .triggers = WORDS("x.service"),                                                 \
        .start_limit_burst = 5,                                                         \
        .listens = { .types = WORDS("Stream"), .addresses = WORDS("/run/x.sock") },     \
        .accept = WORD("no"),                                                           \
        .flush_pending = WORD("no"),                                                    \
        .remove_on_stop = WORD("yes"),                                                  \
        .trigger_limit_burst = 20,                                                      \
}

typedef struct Fixture {
        Service service;
        Socket socket;
} Fixture;

#define FIXTURE(f) Fixture f = { GOOD_SERVICE, GOOD_SOCKET }

/* One finding and no other; NULL for setting: none at all. */
static void expect_of(const Service *service, const Socket *sockets, size_t n_sockets, Severity severity,
                      const char *unit, const char *section, const char *setting, const char *value,
                      const char *remedy) {
        _cleanup_(findings_done) Findings findings = {};
        const Finding *f;

        EXPECT_EQ(rules_judge(service, sockets, n_sockets, &findings), 0);
        for (size_t i = 0; i < findings.n_items; i++)
                if (!setting || i > 0)
                        fprintf(stderr, "unexpected: %s=%s\n", findings.items[i].setting,
                                findings.items[i].value);
        EXPECT_EQ(findings.n_items, setting ? 1 : 0);
        if (!setting)
                return;
        f = &findings.items[0];
        EXPECT_EQ(f->severity, severity);
        EXPECT_STREQ(f->unit, unit);
        EXPECT_STREQ(f->section, section);
        EXPECT_STREQ(f->setting, setting);
        EXPECT_STREQ(f->value, value);
        EXPECT_STREQ(f->remedy, remedy);
        /* One sentence. */
        EXPECT(strlen(f->consequence) > 0 && strchr(f->consequence, '.') == strrchr(f->consequence, '.'));
        EXPECT(f->consequence[strlen(f->consequence) - 1] == '.');
}

static void expect(const Fixture *f, Severity severity, const char *setting, const char *value, const char *remedy) {
        expect_of(&f->service, &f->socket, 1, severity, "x.service", "Service", setting, value, remedy);
}

static void expect_socket(const Fixture *f, Severity severity, const char *setting, const char *value,
                          const char *remedy) {
        expect_of(&f->service, &f->socket, 1, severity, "x.socket", "Socket", setting, value, remedy);
}

static void expect_nothing(const Fixture *f) {
        expect(f, SEVERITY_FAULT, NULL, NULL, NULL);
}

static void template_is_clean(void) {
        FIXTURE(f);

        expect_nothing(&f);
}

/* What a systemd does not know is no finding. */
static void unknown_settings(void) {
        FIXTURE(f);

        f.service.exit_type = f.service.fd_store_preserve = f.service.private_pids = NULL;
        f.service.timeout_start_failure_mode = f.service.private_ipc = f.service.oom_policy = NULL;
        expect_nothing(&f);
}

/* --- words --- */

#define NONE ((Severity) -1)

typedef struct WordCase {
        const char *setting;
        size_t offset;
        const char *value;
        Severity severity;
        const char *remedy;
} WordCase;

#define CASE(setting_, field_, value_, severity_, remedy_) \
        { (setting_), offsetof(Fixture, field_), (value_), (severity_), (remedy_) }
#define SERVICE_FAULT(setting_, field_, value_, wanted_) \
        CASE(setting_, service.field_, value_, SEVERITY_FAULT, setting_ "=" wanted_)
#define SERVICE_REMARK(setting_, field_, value_, wanted_) \
        CASE(setting_, service.field_, value_, SEVERITY_REMARK, setting_ "=" wanted_)
#define SERVICE_FINE(setting_, field_, value_) CASE(setting_, service.field_, value_, NONE, NULL)

static const WordCase word_cases[] = {
        SERVICE_FINE("Type", type, "notify"),
        SERVICE_FAULT("Type", type, "simple", "notify"),
        SERVICE_FAULT("Type", type, "exec", "notify"),
        SERVICE_FAULT("Type", type, "forking", "notify"),
        SERVICE_FAULT("Type", type, "notify-reload", "notify"),
        SERVICE_FAULT("ExitType", exit_type, "cgroup", "main"),
        SERVICE_REMARK("NotifyAccess", notify_access, "all", "main"),
        SERVICE_FINE("NotifyAccess", notify_access, "exec"),

        SERVICE_FAULT("KillMode", kill_mode, "control-group", "process"),
        SERVICE_FAULT("KillMode", kill_mode, "mixed", "process"),
        SERVICE_FAULT("KillMode", kill_mode, "none", "process"),
        SERVICE_FINE("KillSignal", kill_signal, "SIGINT"),
        SERVICE_FAULT("KillSignal", kill_signal, "SIGUSR1", "SIGTERM"),
        SERVICE_FAULT("KillSignal", kill_signal, "SIGQUIT", "SIGTERM"),
        SERVICE_FAULT("KillSignal", kill_signal, "37", "SIGTERM"),
        SERVICE_FAULT("SendSIGKILL", send_sigkill, "no", "yes"),

        SERVICE_FAULT("Restart", restart, "no", "always"),
        SERVICE_FAULT("Restart", restart, "on-success", "always"),
        SERVICE_FAULT("Restart", restart, "on-watchdog", "always"),
        SERVICE_FAULT("Restart", restart, "on-abnormal", "always"),
        SERVICE_FAULT("Restart", restart, "on-abort", "always"),
        SERVICE_REMARK("Restart", restart, "on-failure", "always"),
        SERVICE_REMARK("TimeoutStartFailureMode", timeout_start_failure_mode, "terminate", "kill"),
        SERVICE_FINE("TimeoutStartFailureMode", timeout_start_failure_mode, "abort"),
        SERVICE_FAULT("OOMPolicy", oom_policy, "stop", "continue"),
        SERVICE_FAULT("OOMPolicy", oom_policy, "kill", "continue"),

        SERVICE_FAULT("Delegate", delegate, "no", "yes"),
        SERVICE_FAULT("ProtectControlGroups", protect_control_groups, "yes", "no"),
        SERVICE_FAULT("ProtectControlGroups", protect_control_groups, "private", "no"),
        SERVICE_FAULT("ProtectControlGroups", protect_control_groups, "strict", "no"),
        SERVICE_FAULT("FileDescriptorStorePreserve", fd_store_preserve, "no", "restart"),
        SERVICE_REMARK("FileDescriptorStorePreserve", fd_store_preserve, "yes", "restart"),
        SERVICE_REMARK("FileDescriptorStorePreserve", fd_store_preserve, "on-success", "restart"),

        SERVICE_FAULT("PrivateUsers", private_users, "yes", "no"),
        SERVICE_FAULT("PrivateUsers", private_users, "self", "no"),
        SERVICE_FAULT("PrivateUsers", private_users, "identity", "no"),
        SERVICE_FAULT("PrivatePIDs", private_pids, "yes", "no"),
        SERVICE_REMARK("PrivateNetwork", private_network, "yes", "no"),
        SERVICE_REMARK("PrivateIPC", private_ipc, "yes", "no"),

        SERVICE_FAULT("RemoveIPC", remove_ipc, "yes", "no"),
        SERVICE_FAULT("RuntimeDirectoryPreserve", runtime_directory_preserve, "no", "restart"),
        SERVICE_FINE("RuntimeDirectoryPreserve", runtime_directory_preserve, "yes"),
        CASE("DynamicUser", service.dynamic_user, "yes", SEVERITY_FAULT, "DynamicUser=no\nUser=fcgi-pool"),
        CASE("PrivateTmp", service.private_tmp, "yes", SEVERITY_FAULT,
             "PrivateTmp=no\nTemporaryFileSystem=/tmp:mode=1777 /var/tmp:mode=1777"),
        SERVICE_FINE("PrivateTmp", private_tmp, "disconnected"),
        SERVICE_FAULT("User", user, "", "fcgi-pool"),
        SERVICE_FAULT("User", user, "root", "fcgi-pool"),
        SERVICE_FAULT("User", user, "0", "fcgi-pool"),
        SERVICE_FINE("User", user, "www-data"),

        CASE("FlushPending", socket.flush_pending, "yes", SEVERITY_FAULT, "FlushPending=no"),
        CASE("Accept", socket.accept, "yes", SEVERITY_FAULT, "Accept=no"),
        CASE("RemoveOnStop", socket.remove_on_stop, "no", SEVERITY_REMARK, "RemoveOnStop=yes"),
};

static void words(void) {
        for (const WordCase *c = word_cases; c < word_cases + ELEMENTSOF(word_cases); c++) {
                FIXTURE(f);

                memcpy((char *) &f + c->offset, &c->value, sizeof(c->value));
                if (c->severity == NONE)
                        expect_nothing(&f);
                else if (c->offset < offsetof(Fixture, socket))
                        expect(&f, c->severity, c->setting, c->value, c->remedy);
                else
                        expect_socket(&f, c->severity, c->setting, c->value, c->remedy);
        }
}

static void private_tmp_of_newer_systemd(void) {
        FIXTURE(f);

        f.service.private_tmp = WORD("connected");
        expect(&f, SEVERITY_FAULT, "PrivateTmp", "yes",
               "PrivateTmp=no\nTemporaryFileSystem=/tmp:mode=1777 /var/tmp:mode=1777");
}

static void restart_kill_signal(void) {
        static const char *const bad[] = { "SIGTERM", "SIGINT", "SIGHUP", "SIGUSR2", "SIGKILL" };

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                FIXTURE(f);

                f.service.restart_kill_signal = WORD(bad[i]);
                expect(&f, SEVERITY_FAULT, "RestartKillSignal", bad[i], "RestartKillSignal=SIGUSR1");
        }
}

/* --- restarts --- */

static void start_limits(void) {
        FIXTURE(f);

        f.service.start_limit_interval_usec = 10 * USEC_PER_SEC;
        expect_of(&f.service, &f.socket, 1, SEVERITY_FAULT, "x.service", "Unit", "StartLimitIntervalSec", "10s",
                  "StartLimitIntervalSec=0");
        f.service.start_limit_burst = 0;
        expect_nothing(&f);

        f.socket.start_limit_interval_usec = 10 * USEC_PER_SEC;
        expect_of(&f.service, &f.socket, 1, SEVERITY_REMARK, "x.socket", "Unit", "StartLimitIntervalSec", "10s",
                  "StartLimitIntervalSec=0");
        f.socket.start_limit_burst = 0;
        expect_nothing(&f);

        f.socket.trigger_limit_interval_usec = 2 * USEC_PER_SEC;
        expect_socket(&f, SEVERITY_FAULT, "TriggerLimitIntervalSec", "2s", "TriggerLimitIntervalSec=0");
        f.socket.trigger_limit_burst = 0;
        expect_nothing(&f);
}

static void restart_prevention(void) {
        static const unsigned bad[] = { 2, 3, 4, 5, 6, 69, 71, 200, 203, 243 }, fine[] = { 0, 1, 7, 68, 70, 199, 244, 255 };

        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                char value[16];
                FIXTURE(f);

                snprintf(value, sizeof(value), "%u", bad[i]);
                f.service.restart_prevent_exit_status.statuses[bad[i]] = true;
                expect(&f, SEVERITY_FAULT, "RestartPreventExitStatus", value, "RestartPreventExitStatus=");
                /* One line for all of them. */
                f.service.restart_prevent_exit_status.signals[SIGKILL] = true;
                expect(&f, SEVERITY_FAULT, "RestartPreventExitStatus", "SIGKILL", "RestartPreventExitStatus=");
        }
        for (size_t i = 0; i < ELEMENTSOF(fine); i++) {
                FIXTURE(f);

                f.service.restart_prevent_exit_status.statuses[fine[i]] = true;
                expect_nothing(&f);
        }
}

static void spans(void) {
        FIXTURE(f);

        f.service.restart_usec = 0;
        expect(&f, SEVERITY_FAULT, "RestartSec", "0", "RestartSec=1s");
        f.service.restart_usec = 100 * USEC_PER_MSEC;
        expect_nothing(&f);
        f.service.restart_usec = 10 * USEC_PER_SEC;
        expect_nothing(&f);
        f.service.restart_usec++;
        expect(&f, SEVERITY_REMARK, "RestartSec", "10s 1us", "RestartSec=1s");
        f.service.restart_usec = USEC_PER_SEC;
        f.service.runtime_max_usec = 3600 * USEC_PER_SEC;
        expect(&f, SEVERITY_FAULT, "RuntimeMaxSec", "1h", "RuntimeMaxSec=infinity");
}

static void success_of_the_restart_signal(void) {
        FIXTURE(f);

        f.service.success_exit_status.signals[SIGUSR1] = false;
        expect(&f, SEVERITY_REMARK, "SuccessExitStatus", "", "SuccessExitStatus=SIGUSR1");
        /* With another signal it is that which is wrong. */
        f.service.restart_kill_signal = WORD("SIGTERM");
        expect(&f, SEVERITY_FAULT, "RestartKillSignal", "SIGTERM", "RestartKillSignal=SIGUSR1");
}

/* --- resources --- */

static void fd_store(void) {
        FIXTURE(f);

        f.service.fd_store_max = 0;
        expect(&f, SEVERITY_FAULT, "FileDescriptorStoreMax", "0", "FileDescriptorStoreMax=1040");
        f.service.fd_store_max = 1;
        expect(&f, SEVERITY_FAULT, "FileDescriptorStoreMax", "1", "FileDescriptorStoreMax=1040");
        f.service.fd_store_max = 2;
        expect(&f, SEVERITY_REMARK, "FileDescriptorStoreMax", "2", "FileDescriptorStoreMax=28");
        f.service.fd_store_max = fd_limits_stored(N_WORKERS) - 1;
        expect(&f, SEVERITY_REMARK, "FileDescriptorStoreMax", "27", "FileDescriptorStoreMax=28");
        f.service.fd_store_max = fd_limits_stored(N_WORKERS);
        expect_nothing(&f);
        f.service.fd_store_max = 2;
        f.service.command.n_workers = 0;
        expect_nothing(&f);
        f.service.fd_store_max = 0;
        f.service.command = (Command) { .n_workers = 9999 };
        expect(&f, SEVERITY_FAULT, "FileDescriptorStoreMax", "0", "FileDescriptorStoreMax=1040");
}

static void large_store(void) {
        FIXTURE(f);

        f.service.command.n_workers = 1000;
        f.service.fd_store_max = 0;
        expect(&f, SEVERITY_FAULT, "FileDescriptorStoreMax", "0", "FileDescriptorStoreMax=2016");
}

static void open_files(void) {
        FIXTURE(f);

        f.service.n_files_max = fd_limits_open_files(N_WORKERS);
        expect_nothing(&f);
        f.service.n_files_max--;
        expect(&f, SEVERITY_FAULT, "LimitNOFILE", "257", "LimitNOFILE=258");
        f.service.command.n_workers = 0;
        expect_nothing(&f);
}

static void tasks(void) {
        FIXTURE(f);

        f.service.tasks_max = N_WORKERS + 1 + 2;
        expect_nothing(&f);
        f.service.tasks_max--;
        expect(&f, SEVERITY_FAULT, "TasksMax", "8", "TasksMax=9");
        f.service.tasks_max = UINT64_MAX;
        expect_nothing(&f);
        f.service.command.n_workers = 16;
        f.service.command.n_surge = 4;
        f.service.tasks_max = 21;
        expect(&f, SEVERITY_FAULT, "TasksMax", "21", "TasksMax=22");
        f.service.command.known = false;
        expect_nothing(&f);
}

/* --- sandbox --- */

static void system_calls(void) {
        FIXTURE(f);

        f.service.system_calls.names = WORDS("accept4", "pidfd_getfd2", "pidfd_get");
        expect(&f, SEVERITY_FAULT, "SystemCallFilter", "~pidfd_getfd", "SystemCallFilter=pidfd_getfd");
        f.service.command.retire = WORD("idle");
        expect(&f, SEVERITY_FAULT, "SystemCallFilter", "~pidfd_getfd", "SystemCallFilter=pidfd_getfd");
        f.service.command.retire = WORD("signal");
        expect(&f, SEVERITY_REMARK, "SystemCallFilter", "~pidfd_getfd", "SystemCallFilter=pidfd_getfd");
        f.service.command.retire = NULL;

        f.service.system_calls.names = WORDS("pidfd_getfd:EPERM");
        expect_nothing(&f);
        f.service.system_calls.allow = false;
        expect(&f, SEVERITY_FAULT, "SystemCallFilter", "~pidfd_getfd", "SystemCallFilter=pidfd_getfd");
        f.service.system_calls.names = WORDS("mount");
        expect_nothing(&f);
        f.service.system_calls = (Filter) {};
        expect_nothing(&f);
        f.service.system_calls = (Filter) { .allow = true };
        expect(&f, SEVERITY_FAULT, "SystemCallFilter", "~pidfd_getfd", "SystemCallFilter=pidfd_getfd");
}

static void address_families(void) {
        FIXTURE(f);

        f.service.address_families.names = WORDS("AF_UNIX", "AF_INET");
        expect(&f, SEVERITY_REMARK, "RestrictAddressFamilies", "~AF_NETLINK", "RestrictAddressFamilies=AF_NETLINK");
        f.service.address_families.names = WORDS("AF_NETLINK", "AF_INET");
        expect(&f, SEVERITY_FAULT, "RestrictAddressFamilies", "~AF_UNIX", "RestrictAddressFamilies=AF_UNIX");
        f.service.address_families = (Filter) { .names = WORDS("AF_PACKET") };
        expect_nothing(&f);
        f.service.address_families = (Filter) { .names = WORDS("AF_NETLINK") };
        expect(&f, SEVERITY_REMARK, "RestrictAddressFamilies", "~AF_NETLINK", "RestrictAddressFamilies=AF_NETLINK");

        /* The queue of a TCP socket is seen anyhow. */
        f.socket.listens.addresses = WORDS("127.0.0.1:9000");
        expect_nothing(&f);
        f.socket.listens.addresses = WORDS("@abstract");
        expect(&f, SEVERITY_REMARK, "RestrictAddressFamilies", "~AF_NETLINK", "RestrictAddressFamilies=AF_NETLINK");
}

/* DynamicUser= implies others, which are then no findings of their own. */
static void dynamic_user(void) {
        FIXTURE(f);

        f.service.dynamic_user = f.service.private_tmp = f.service.remove_ipc = WORD("yes");
        f.service.user = WORD("");
        expect(&f, SEVERITY_FAULT, "DynamicUser", "yes", "DynamicUser=no\nUser=fcgi-pool");
}

static void root(void) {
        FIXTURE(f);

        f.service.user = WORD("root");
        f.service.command.allow_root = true;
        expect_nothing(&f);
        f.service.command = (Command) {};
        expect_nothing(&f);
}

static void no_runtime_directory(void) {
        FIXTURE(f);

        f.service.runtime_directories = NULL;
        f.service.runtime_directory_preserve = WORD("no");
        expect(&f, SEVERITY_FAULT, "RuntimeDirectory", "",
               "RuntimeDirectory=%N\nRuntimeDirectoryPreserve=restart");
        f.service.runtime_directories = (char *[]) { NULL };
        expect(&f, SEVERITY_FAULT, "RuntimeDirectory", "",
               "RuntimeDirectory=%N\nRuntimeDirectoryPreserve=restart");
}

static void reload(void) {
        FIXTURE(f);

        f.service.exec_reload = NULL;
        expect(&f, SEVERITY_REMARK, "ExecReload", "", "ExecReload=\nExecReload=fcgi-poolctl reload");
        f.service.exec_reload = WORDS("/bin/kill", "-HUP", "$MAINPID");
        expect(&f, SEVERITY_REMARK, "ExecReload", "", "ExecReload=\nExecReload=fcgi-poolctl reload");
        f.service.exec_reload = WORDS("fcgi-poolctl", "reload");
        expect_nothing(&f);
}

/* --- service and sockets --- */

static void non_blocking(void) {
        static const struct {
                const char *option, *setting, *remedy;
        } table[] = {
                { "blocking", "no", NULL },
                { "nonblocking", "yes", NULL },
                { "blocking", "yes", "NonBlocking=no" },
                { "nonblocking", "no", "NonBlocking=yes" },
                { NULL, "yes", NULL },
                { NULL, "no", NULL },
                { "maybe", "yes", NULL },
        };

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                FIXTURE(f);

                f.service.command.listener = WORD(table[i].option);
                f.service.non_blocking = WORD(table[i].setting);
                expect(&f, SEVERITY_FAULT, table[i].remedy ? "NonBlocking" : NULL, table[i].setting, table[i].remedy);
        }
}

static void sockets_of_the_service(void) {
        FIXTURE(f);

        expect_of(&f.service, NULL, 0, SEVERITY_FAULT, "x.service", "Service", "Sockets", "", "Sockets=x.socket");
        f.service.id = WORD("x.y.service");
        expect_of(&f.service, NULL, 0, SEVERITY_FAULT, "x.y.service", "Service", "Sockets", "", "Sockets=x.y.socket");

        f.service.id = WORD("x.service");
        f.service.requires = WORDS("other.socket");
        expect_of(&f.service, &f.socket, 1, SEVERITY_FAULT, "x.service", "Unit", "Requires", "",
                  "Requires=x.socket\nAfter=x.socket");
        f.service.binds_to = WORDS("x.socket");
        expect_nothing(&f);
}

/* A service cannot require what starts another one for each connection. */
static void accept_without_service(void) {
        FIXTURE(f);

        f.socket.accept = WORD("yes");
        expect_of(NULL, &f.socket, 1, SEVERITY_FAULT, "x.socket", "Socket", "Accept", "yes", "Accept=no");
        f.service.requires = NULL;
        expect_socket(&f, SEVERITY_FAULT, "Accept", "yes", "Accept=no");
}

static void number_of_workers(void) {
        Socket sockets[] = { GOOD_SOCKET, GOOD_SOCKET };
        Service service = GOOD_SERVICE;

        sockets[0].listens = (Listens) { WORDS("Stream", "Stream"), WORDS("/run/a.sock", "127.0.0.1:9000") };
        service.command.n_workers = 3;
        expect_of(&service, sockets, 2, SEVERITY_FAULT, NULL, NULL, NULL, NULL, NULL);
        service.command.n_workers = 2;
        expect_of(&service, sockets, 2, SEVERITY_FAULT, "x.service", "Service", "ExecStart", "--workers=2",
                  "# in ExecStart= or FCGI_POOL_OPTIONS=: --workers=3");
        service.command.n_workers = 0;
        expect_of(&service, sockets, 2, SEVERITY_FAULT, NULL, NULL, NULL, NULL, NULL);
        service.command = (Command) { .n_workers = 1 };
        expect_of(&service, sockets, 2, SEVERITY_FAULT, NULL, NULL, NULL, NULL, NULL);
}

static void what_is_no_stream(void) {
        static const struct {
                const char *type, *setting;
                Severity severity;
        } table[] = {
                { "Datagram", "ListenDatagram", SEVERITY_FAULT },
                { "SequentialPacket", "ListenSequentialPacket", SEVERITY_FAULT },
                { "Netlink", "ListenNetlink", SEVERITY_FAULT },
                { "FIFO", "ListenFIFO", SEVERITY_REMARK },
                { "Special", "ListenSpecial", SEVERITY_REMARK },
                { "MessageQueue", "ListenMessageQueue", SEVERITY_REMARK },
                { "USBFunction", "ListenUSBFunction", SEVERITY_REMARK },
        };
        FIXTURE(f);

        for (size_t i = 0; i < ELEMENTSOF(table); i++) {
                f.socket.listens = (Listens) { WORDS(table[i].type), WORDS("/run/other") };
                expect_socket(&f, table[i].severity, table[i].setting, "/run/other",
                              "ListenStream=\nListenStream=/run/x.sock");
        }
        f.socket.listens = (Listens) { WORDS("Stream"), WORDS("vsock:2:1234") };
        expect_socket(&f, SEVERITY_FAULT, "ListenStream", "vsock:2:1234", "ListenStream=\nListenStream=/run/x.sock");
}

static void socket_in_runtime_directory(void) {
        FIXTURE(f);

        f.service.runtime_directories = WORDS("y", "x");
        f.socket.listens.addresses = WORDS("/run/x/x.sock");
        expect_socket(&f, SEVERITY_FAULT, "ListenStream", "/run/x/x.sock", "ListenStream=\nListenStream=/run/x.sock");
        f.service.runtime_directory_preserve = WORD("yes");
        expect_nothing(&f);
        f.service.runtime_directory_preserve = WORD("restart");
        f.socket.listens.addresses = WORDS("/run/xx/x.sock");
        expect_nothing(&f);
        f.socket.listens.addresses = WORDS("/srv/run/x/x.sock");
        expect_nothing(&f);
        /* What is beside the directory stays. */
        f.service.runtime_directories = WORDS("fcgi-pool/x");
        f.socket.listens.addresses = WORDS("/run/fcgi-pool/x.sock");
        expect_nothing(&f);
}

static void path_stays(void) {
        FIXTURE(f);

        f.socket.remove_on_stop = WORD("no");
        f.socket.listens.addresses = WORDS("[::1]:9000");
        expect_nothing(&f);
        f.socket.listens.addresses = WORDS("@x");
        expect_nothing(&f);
}

/* Findings add up, in the order of the units. */
static void many(void) {
        _cleanup_(findings_done) Findings findings = {};
        FIXTURE(f);

        f.service.kill_mode = WORD("mixed");
        f.socket.flush_pending = WORD("yes");
        EXPECT_EQ(rules_judge(&f.service, &f.socket, 1, &findings), 0);
        EXPECT_EQ(rules_judge(&f.service, &f.socket, 1, &findings), 0);
        EXPECT_EQ(findings.n_items, 4);
        EXPECT_STREQ(findings.items[0].setting, "KillMode");
        EXPECT_STREQ(findings.items[1].setting, "FlushPending");
        EXPECT_STREQ(findings.items[2].setting, "KillMode");
        EXPECT_STREQ(severity_to_string(findings.items[0].severity), "fault");
        EXPECT_STREQ(severity_to_string(SEVERITY_REMARK), "remark");
}

TEST_MAIN(TEST(template_is_clean), TEST(unknown_settings), TEST(words), TEST(private_tmp_of_newer_systemd),
          TEST(restart_kill_signal), TEST(start_limits), TEST(restart_prevention), TEST(spans),
          TEST(success_of_the_restart_signal), TEST(fd_store), TEST(large_store), TEST(open_files), TEST(tasks),
          TEST(system_calls), TEST(address_families), TEST(dynamic_user), TEST(root), TEST(no_runtime_directory),
          TEST(reload),
          TEST(non_blocking), TEST(sockets_of_the_service), TEST(accept_without_service), TEST(number_of_workers),
          TEST(what_is_no_stream), TEST(socket_in_runtime_directory), TEST(path_stays), TEST(many))
