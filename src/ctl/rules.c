/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the template units say and why is in fcgi-pool(7), "What the unit settings are for"; this is the same
 * from the other side. A rule is here only if what it says was seen to happen or is in systemd's manual, for
 * a wrong finding is worse than none; a setting that is merely unlike the template's is no finding.
 *
 * Most rules are of the kind "one of these words, or else", and stand in a table. What depends on two
 * settings, on the command line or on a number is a function below it. A remedy must work as a drop-in,
 * which is read after the unit: lists that add up are emptied first.
 *
 * systemd 252 does not know all settings; NULL is what it does not know, and no finding. */

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>

#include "clock.h"
#include "fd-limits.h"
#include "rules.h"

#define RESTART_LONG_USEC (10 * USEC_PER_SEC)
#define STORED_AT_LEAST 2U /* the records and the leash; without them all is lost at the first restart */

typedef struct Report {
        const char *unit;
        Findings *findings;
        int error; /* the first one */
} Report;

static void finding_done(Finding *f) {
        free(f->unit);
        free(f->value);
        free(f->remedy);
}

void findings_done(Findings *findings) {
        for (size_t i = 0; i < findings->n_items; i++)
                finding_done(&findings->items[i]);
        free(findings->items);
        *findings = (Findings) {};
}

const char *severity_to_string(Severity severity) {
        return severity == SEVERITY_FAULT ? "fault" : "remark";
}

/* The remedy is a format: the line or lines of the drop-in. */
static void _printf_(7, 8) report(Report *r, Severity severity, const char *section, const char *setting,
                                  const char *value, const char *consequence, const char *remedy, ...) {
        Finding f = { .severity = severity, .section = section, .setting = setting,
                      .consequence = consequence };
        Finding *bigger;
        va_list ap;

        if (r->error < 0)
                return;
        f.unit = strdup(r->unit);
        f.value = strdup(value);
        va_start(ap, remedy);
        if (vasprintf(&f.remedy, remedy, ap) < 0)
                f.remedy = NULL;
        va_end(ap);
        bigger = reallocarray(r->findings->items, r->findings->n_items + 1, sizeof(Finding));
        if (bigger)
                r->findings->items = bigger;
        if (!bigger || !f.unit || !f.value || !f.remedy) {
                finding_done(&f);
                r->error = -ENOMEM;
                return;
        }
        bigger[r->findings->n_items++] = f;
}

#define report_fault(r, ...) report(r, SEVERITY_FAULT, __VA_ARGS__)
#define report_remark(r, ...) report(r, SEVERITY_REMARK, __VA_ARGS__)

static bool is(const char *value, const char *word) {
        return value && streq(value, word);
}

/* How long the name of a unit is without its suffix. */
static int stem_length(const char *unit) {
        const char *dot = strrchr(unit, '.');

        return (int) (dot ? (size_t) (dot - unit) : strlen(unit));
}

/* --- one word --- */

typedef struct WordRule {
        const char *section, *setting;
        size_t offset;           /* of a char * in Service or Socket */
        const char *words;       /* separated by blanks */
        bool good;               /* the words are right, all others wrong; else the other way round */
        Severity severity;
        const char *wanted;
        const char *consequence;
} WordRule;

#define SERVICE(setting_, field) \
        .section = "Service", .setting = (setting_), .offset = offsetof(Service, field)
#define SOCKET(setting_, field) .section = "Socket", .setting = (setting_), .offset = offsetof(Socket, field)
#define ONLY(words_) .words = (words_), .good = true
#define NEVER(words_) .words = (words_)
#define FAULT(wanted_, consequence_) \
        .severity = SEVERITY_FAULT, .wanted = (wanted_), .consequence = (consequence_)
#define REMARK(wanted_, consequence_) \
        .severity = SEVERITY_REMARK, .wanted = (wanted_), .consequence = (consequence_)

static const WordRule service_rules[] = {
        { SERVICE("Type", type), ONLY("notify notify-reload"),
          FAULT("notify", "systemd does not learn when the workers serve, nor that a restart has failed.") },
        { SERVICE("Type", type), NEVER("notify-reload"),
          FAULT("notify", "systemctl reload waits for an answer that does not come, and fails.") },
        { SERVICE("ExitType", exit_type), NEVER("cgroup"),
          FAULT("main", "A fcgi-pool that dies is not followed by another while a worker lives.") },
        { SERVICE("NotifyAccess", notify_access), NEVER("all"),
          REMARK("main", "A worker may tell systemd that the service stops, or has another main process.") },

        { SERVICE("KillMode", kill_mode), ONLY("process none"),
          FAULT("process", "systemd kills the workers whenever fcgi-pool ends: at a restart, at a crash.") },
        { SERVICE("KillMode", kill_mode), NEVER("none"),
          FAULT("process", "Nobody tells fcgi-pool to stop: it outlives the service, with its workers.") },
        { SERVICE("KillSignal", kill_signal), ONLY("SIGTERM SIGINT"),
          FAULT("SIGTERM", "fcgi-pool does not take it for a stop, and the guardian ends the workers, "
                           "by signal.") },
        { SERVICE("RestartKillSignal", restart_kill_signal), NEVER("SIGTERM SIGINT"),
          FAULT("SIGUSR1", "A restart ends the workers before it starts others: clients wait, "
                           "and if it fails nobody serves.") },
        { SERVICE("RestartKillSignal", restart_kill_signal), ONLY("SIGUSR1 SIGTERM SIGINT"),
          FAULT("SIGUSR1", "fcgi-pool does not take it for a restart: the workers keep the old settings.") },
        { SERVICE("SendSIGKILL", send_sigkill), NEVER("no"),
          FAULT("yes", "A fcgi-pool that hangs is not killed, and outlives the service.") },

        { SERVICE("Restart", restart), NEVER("no on-success on-watchdog"),
          FAULT("always", "A crash of fcgi-pool takes the service down, and the workers with it.") },
        { SERVICE("Restart", restart), NEVER("on-abnormal on-abort"),
          FAULT("always", "A restart that fails takes the service down, and the old workers with it.") },
        { SERVICE("Restart", restart), NEVER("on-failure"),
          REMARK("always", "After systemctl kill the service stays down.") },
        { SERVICE("TimeoutStartFailureMode", timeout_start_failure_mode), NEVER("terminate"),
          REMARK("kill", "A start that takes too long ends with the signal of a stop.") },
        { SERVICE("OOMPolicy", oom_policy), ONLY("continue"),
          FAULT("continue", "One worker killed for lack of memory ends the whole pool.") },

        { SERVICE("Delegate", delegate), NEVER("no"),
          FAULT("yes", "There is no guardian: workers may outlive the service.") },
        { SERVICE("ProtectControlGroups", protect_control_groups), ONLY("no"),
          FAULT("no", "There is no guardian, for lack of a cgroup: workers may outlive the service.") },
        { SERVICE("FileDescriptorStorePreserve", fd_store_preserve), NEVER("no"),
          FAULT("restart", "Every restart and every crash ends the workers.") },
        { SERVICE("FileDescriptorStorePreserve", fd_store_preserve), ONLY("restart no"),
          REMARK("restart", "The guardian learns over D-Bus alone, and late, that the service is down.") },

        { SERVICE("PrivateUsers", private_users), ONLY("no"),
          FAULT("no", "The next fcgi-pool cannot look into the workers it finds: it ends them by signal.") },
        { SERVICE("PrivatePIDs", private_pids), ONLY("no"),
          FAULT("no", "fcgi-pool is the first process of its namespace: when it ends, all workers die.") },
        { SERVICE("PrivateIPC", private_ipc), NEVER("yes"),
          REMARK("no", "Workers do not share System V IPC with those of an earlier fcgi-pool.") },
};

static const WordRule socket_rules[] = {
        { SOCKET("Accept", accept), NEVER("yes"),
          FAULT("no", "fcgi-pool is passed a connection, no listener, and exits with status 6.") },
        { SOCKET("FlushPending", flush_pending), NEVER("yes"),
          FAULT("no", "Clients that wait are dropped whenever the service ends.") },
};

static bool has_word(const char *words, const char *word) {
        size_t l = strlen(word), n;

        for (; *words; words += n + (words[n] == ' ')) {
                n = strcspn(words, " ");
                if (n == l && strncmp(words, word, n) == 0)
                        return true;
        }
        return false;
}

static void judge_words(Report *r, const void *settings, const WordRule *rules, size_t n_rules) {
        for (const WordRule *rule = rules; rule < rules + n_rules; rule++) {
                const char *value;

                memcpy(&value, (const char *) settings + rule->offset, sizeof(value));
                if (value && has_word(rule->words, value) != rule->good)
                        report(r, rule->severity, rule->section, rule->setting, value, rule->consequence,
                               "%s=%s", rule->setting, rule->wanted);
        }
}

/* --- the life of the service --- */

static void judge_start_limit(Report *r, Severity severity, uint64_t interval_usec, uint64_t burst,
                              const char *consequence) {
        char span[64];

        if (interval_usec > 0 && burst > 0)
                report(r, severity, "Unit", "StartLimitIntervalSec",
                       clock_format_span(span, sizeof(span), interval_usec), consequence,
                       "StartLimitIntervalSec=0");
}

/* Statuses of fcgi-pool, fcgi-pool(8), and those of systemd when it cannot execute it, systemd.exec(5). */
static bool is_failure_of_start(size_t status) {
        return (status >= 2 && status <= 6) || status == 69 || status == 71 ||
               (status >= 200 && status <= 243);
}

static void judge_restart_prevention(Report *r, const ExitSet *set) {
        char value[16] = "";

        for (size_t i = 1; i < ELEMENTSOF(set->signals) && !*value; i++)
                if (set->signals[i])
                        (void) snprintf(value, sizeof(value), "SIG%s", sigabbrev_np((int) i) ?: "RT");
        for (size_t i = 0; i < ELEMENTSOF(set->statuses) && !*value; i++)
                if (set->statuses[i] && is_failure_of_start(i))
                        (void) snprintf(value, sizeof(value), "%zu", i);
        if (*value)
                report_fault(r, "Service", "RestartPreventExitStatus", value,
                             "A crash or a restart that fails takes the service down, "
                             "and the workers with it.",
                             "RestartPreventExitStatus=");
}

static void judge_restarts(Report *r, const Service *s) {
        char span[64];

        judge_start_limit(r, SEVERITY_FAULT, s->start_limit_interval_usec, s->start_limit_burst,
                          "A few restarts in a row reach the limit, and systemd closes the socket.");
        judge_restart_prevention(r, &s->restart_prevent_exit_status);
        (void) clock_format_span(span, sizeof(span), s->restart_usec);
        if (s->restart_usec == 0)
                report_fault(r, "Service", "RestartSec", span,
                             "A pool that cannot start is tried again without a pause, and burns a CPU.",
                             "RestartSec=1s");
        else if (s->restart_usec > RESTART_LONG_USEC)
                report_remark(r, "Service", "RestartSec", span,
                              "For so long after a crash nobody replaces a worker that dies.",
                              "RestartSec=1s");
        if (s->runtime_max_usec != USEC_INFINITY)
                report_fault(r, "Service", "RuntimeMaxSec",
                             clock_format_span(span, sizeof(span), s->runtime_max_usec),
                             "systemd stops all workers of the pool at that age.", "RuntimeMaxSec=infinity");
        if (!s->success_exit_status.signals[SIGUSR1] && is(s->restart_kill_signal, "SIGUSR1"))
                report_remark(r, "Service", "SuccessExitStatus", "",
                              "A restart in the first moment of fcgi-pool counts as its failure.",
                              "SuccessExitStatus=SIGUSR1");
}

/* --- what fcgi-pool needs --- */

static void judge_resources(Report *r, const Service *s) {
        unsigned n_workers = s->command.known ? s->command.n_workers : 0;
        /* Beside the workers helper and guardian, and the successors of a roll. */
        uint64_t n_tasks = (uint64_t) n_workers + (s->command.known ? s->command.n_surge : 1) + 2;
        uint64_t n_files = fd_limits_open_files(n_workers), n_stored = fd_limits_stored(n_workers);
        char value[32];

        (void) snprintf(value, sizeof(value), "%" PRIu64, s->fd_store_max);
        if (s->fd_store_max < STORED_AT_LEAST)
                report_fault(r, "Service", "FileDescriptorStoreMax", value,
                             "Every restart and every crash ends the workers.",
                             "FileDescriptorStoreMax=%" PRIu64, MAX_OF(n_stored, 1040U));
        else if (n_workers > 0 && s->fd_store_max < n_stored)
                report_remark(r, "Service", "FileDescriptorStoreMax", value,
                              "Too few for the workers: how one ended while no fcgi-pool was there is not "
                              "known.",
                              "FileDescriptorStoreMax=%" PRIu64, n_stored);

        (void) snprintf(value, sizeof(value), "%" PRIu64, s->n_files_max);
        if (n_workers > 0 && s->n_files_max < n_files)
                report_fault(r, "Service", "LimitNOFILE", value,
                             "Too few for the workers: fcgi-pool exits with status 6.",
                             "LimitNOFILE=%" PRIu64, n_files);

        (void) snprintf(value, sizeof(value), "%" PRIu64, s->tasks_max);
        if (n_workers > 0 && s->tasks_max < n_tasks)
                report_fault(r, "Service", "TasksMax", value,
                             "Too few for the workers and their successors: they cannot be started.",
                             "TasksMax=%" PRIu64, n_tasks);
}

static bool runs_poolctl(char *const *argv) {
        for (; argv && *argv; argv++) {
                const char *slash = strrchr(*argv, '/');

                if (streq(slash ? slash + 1 : *argv, "fcgi-poolctl"))
                        return true;
        }
        return false;
}

static void judge_control(Report *r, const Service *s) {
        if (!s->runtime_directories || !*s->runtime_directories)
                report_fault(r, "Service", "RuntimeDirectory", "",
                             "fcgi-poolctl, and with it systemctl reload, cannot talk to the pool.",
                             "RuntimeDirectory=%%N\nRuntimeDirectoryPreserve=restart");
        if (!runs_poolctl(s->exec_reload))
                report_remark(r, "Service", "ExecReload", "",
                              "systemctl reload does not replace the workers, or does not say how it went.",
                              "ExecReload=\nExecReload=fcgi-poolctl reload");
}

static bool filter_allows(const Filter *filter, const char *name) {
        bool found = false;

        if (!filter->allow && (!filter->names || !*filter->names))
                return true;
        for (char *const *n = filter->names; n && *n; n++) {
                /* "name:errno" */
                const char *rest = startswith(*n, name);

                found = found || (rest && (*rest == '\0' || *rest == ':'));
        }
        return found == filter->allow;
}

static bool has_unix_listener(const Socket *sockets, size_t n_sockets) {
        for (size_t i = 0; i < n_sockets; i++)
                for (char *const *a = sockets[i].listens.addresses; a && *a; a++)
                        if (**a == '/' || **a == '@')
                                return true;
        return false;
}

/* The ways not to see the queue of a UNIX socket, sock_diag(7). */
static void judge_queue(Report *r, const Service *s) {
        static const char consequence[] =
                "How many clients wait at a UNIX socket is not seen, only whether any do.";

        if (!filter_allows(&s->address_families, "AF_NETLINK"))
                report_remark(r, "Service", "RestrictAddressFamilies", "~AF_NETLINK", consequence,
                              "RestrictAddressFamilies=AF_NETLINK");
        if (is(s->private_network, "yes"))
                report_remark(r, "Service", "PrivateNetwork", s->private_network, consequence,
                              "PrivateNetwork=no");
}

static void judge_sandbox(Report *r, const Service *s) {
        bool by_signal = s->command.known && is(s->command.retire, "signal");

        if (!filter_allows(&s->system_calls, "pidfd_getfd"))
                report(r, by_signal ? SEVERITY_REMARK : SEVERITY_FAULT, "Service", "SystemCallFilter",
                       "~pidfd_getfd",
                       by_signal ? "Only workers with a single thread are seen to be idle." :
                                   "Only workers with a single thread are seen to be idle, "
                                   "others are ended by signal.",
                       "SystemCallFilter=pidfd_getfd");
        if (!filter_allows(&s->address_families, "AF_UNIX"))
                report_fault(r, "Service", "RestrictAddressFamilies", "~AF_UNIX",
                             "fcgi-pool cannot talk to systemd, and exits with status 71.",
                             "RestrictAddressFamilies=AF_UNIX");
}

/* What systemd takes away when the helper ends, while workers still use it. */
static void judge_surroundings(Report *r, const Service *s) {
        bool dynamic = is(s->dynamic_user, "yes");

        if (dynamic) /* which implies the next two, whatever they say */
                report_fault(r, "Service", "DynamicUser", s->dynamic_user,
                             "systemd releases the user under workers that outlive fcgi-pool, "
                             "and removes their shared memory.",
                             "DynamicUser=no\nUser=fcgi-pool");
        if (!dynamic && is(s->remove_ipc, "yes"))
                report_fault(r, "Service", "RemoveIPC", s->remove_ipc,
                             "systemd removes shared memory and semaphores under workers that outlive "
                             "fcgi-pool.",
                             "RemoveIPC=no");
        /* "disconnected" leaves each worker what it has. */
        if (!dynamic && (is(s->private_tmp, "yes") || is(s->private_tmp, "connected")))
                report_fault(r, "Service", "PrivateTmp", "yes",
                             "systemd removes /tmp and /var/tmp under workers that outlive fcgi-pool.",
                             "PrivateTmp=no\nTemporaryFileSystem=/tmp:mode=1777 /var/tmp:mode=1777");
        if (s->runtime_directories && *s->runtime_directories && is(s->runtime_directory_preserve, "no"))
                report_fault(r, "Service", "RuntimeDirectoryPreserve", s->runtime_directory_preserve,
                             "systemd removes the runtime directory under workers that outlive fcgi-pool.",
                             "RuntimeDirectoryPreserve=restart");
        if (!dynamic && s->command.known && !s->command.allow_root && s->user &&
            (streq(s->user, "") || streq(s->user, "root") || streq(s->user, "0")))
                report_fault(r, "Service", "User", s->user,
                             "fcgi-pool refuses to run as root without --allow-root, and exits with "
                             "status 4.",
                             "User=fcgi-pool");
}

/* --- service and sockets together --- */

static void judge_non_blocking(Report *r, const Service *s) {
        const char *option = s->command.known ? s->command.listener : NULL;
        const char *wanted = is(option, "nonblocking") ? "yes" : is(option, "blocking") ? "no" : NULL;

        if (wanted && s->non_blocking && !streq(s->non_blocking, wanted))
                report_fault(r, "Service", "NonBlocking", s->non_blocking,
                             "Not what --listener= says: each start changes O_NONBLOCK under the workers.",
                             "NonBlocking=%s", wanted);
}

static void judge_dependencies(Report *r, const Service *s, const Socket *sockets, size_t n_sockets) {
        if (n_sockets == 0)
                report_fault(r, "Service", "Sockets", "",
                             "No socket unit activates the service: fcgi-pool exits with status 6.",
                             "Sockets=%.*s.socket", stem_length(s->id), s->id);
        for (size_t i = 0; i < n_sockets; i++)
                if (!is(sockets[i].accept, "yes") && !strv_contains(s->requires, sockets[i].id) &&
                    !strv_contains(s->binds_to, sockets[i].id))
                        report_fault(r, "Unit", "Requires", "",
                                     "A restart of the socket fails while the service runs, "
                                     "and the service may start without it.",
                                     "Requires=%s\nAfter=%s", sockets[i].id, sockets[i].id);
}

static size_t count_streams(const Socket *socket) {
        size_t n = 0;

        for (char *const *type = socket->listens.types; type && *type; type++)
                n += streq(*type, "Stream");
        return n;
}

static void judge_number_of_workers(Report *r, const Service *s, const Socket *sockets, size_t n_sockets) {
        size_t n_streams = 0;
        char value[32];

        for (size_t i = 0; i < n_sockets; i++)
                n_streams += count_streams(&sockets[i]);
        if (!s->command.known || s->command.n_workers == 0 || s->command.n_workers >= n_streams)
                return;
        (void) snprintf(value, sizeof(value), "--workers=%u", s->command.n_workers);
        report_fault(r, "Service", "ExecStart", value,
                     "Fewer workers than listening sockets: fcgi-pool exits with status 2.",
                     "# in ExecStart= or FCGI_POOL_OPTIONS=: --workers=%zu", n_streams);
}

/* --- sockets --- */

static bool is_below(const char *path, const char *directory) {
        const char *rest = startswith(path, "/run/");

        rest = rest ? startswith(rest, directory) : NULL;
        return rest && *rest == '/';
}

/* ListenDatagram= and the like, by what systemd calls them. */
static const char *listen_setting(const char *type) {
        static const char *const settings[] = {
                "ListenStream", "ListenDatagram", "ListenSequentialPacket", "ListenNetlink", "ListenFIFO",
                "ListenSpecial", "ListenMessageQueue", "ListenUSBFunction",
        };

        for (size_t i = 0; i < ELEMENTSOF(settings); i++)
                if (is(startswith(settings[i], "Listen"), type))
                        return settings[i];
        return "Listen";
}

static void judge_address(Report *r, const Service *s, const char *type, const char *address) {
        bool stream = streq(type, "Stream");
        const char *setting = listen_setting(type);
        int l = stem_length(r->unit);

        if ((stream && startswith(address, "vsock:")) || streq(type, "Datagram") ||
            streq(type, "SequentialPacket") || streq(type, "Netlink"))
                report_fault(r, "Socket", setting, address,
                             "Not a stream socket of UNIX, IPv4 or IPv6: fcgi-pool exits with status 6.",
                             "ListenStream=\nListenStream=/run/%.*s.sock", l, r->unit);
        else if (!stream)
                report_remark(r, "Socket", setting, address, "Not a socket: fcgi-pool closes it.",
                              "ListenStream=\nListenStream=/run/%.*s.sock", l, r->unit);
        for (char *const *d = s && stream ? s->runtime_directories : NULL; d && *d; d++)
                if (is_below(address, *d) && !is(s->runtime_directory_preserve, "yes"))
                        report_fault(r, "Socket", setting, address,
                                     "In RuntimeDirectory= of the service: systemd removes it when the "
                                     "service stops, and nobody can connect.",
                                     "ListenStream=\nListenStream=/run/%.*s.sock", l, r->unit);
}

static void judge_socket(Report *r, const Service *s, const Socket *socket) {
        bool has_path = false;
        char span[64];

        judge_words(r, socket, socket_rules, ELEMENTSOF(socket_rules));
        for (size_t i = 0; socket->listens.types && socket->listens.types[i]; i++) {
                judge_address(r, s, socket->listens.types[i], socket->listens.addresses[i]);
                has_path = has_path || socket->listens.addresses[i][0] == '/';
        }
        if (socket->trigger_limit_interval_usec > 0 && socket->trigger_limit_burst > 0)
                report_fault(r, "Socket", "TriggerLimitIntervalSec",
                             clock_format_span(span, sizeof(span), socket->trigger_limit_interval_usec),
                             "A pool that fails a few times in a row reaches the limit, and systemd closes "
                             "the socket.",
                             "TriggerLimitIntervalSec=0");
        judge_start_limit(r, SEVERITY_REMARK, socket->start_limit_interval_usec, socket->start_limit_burst,
                          "A few restarts of the socket in a row reach the limit, and it stays closed.");
        if (has_path && is(socket->remove_on_stop, "no"))
                report_remark(r, "Socket", "RemoveOnStop", socket->remove_on_stop,
                              "The path stays behind when the socket is stopped.", "RemoveOnStop=yes");
}

int rules_judge(const Service *service, const Socket *sockets, size_t n_sockets, Findings *findings) {
        Report report = { .findings = findings };

        if (service) {
                report.unit = service->id;
                judge_words(&report, service, service_rules, ELEMENTSOF(service_rules));
                judge_restarts(&report, service);
                judge_resources(&report, service);
                judge_control(&report, service);
                judge_sandbox(&report, service);
                if (has_unix_listener(sockets, n_sockets))
                        judge_queue(&report, service);
                judge_surroundings(&report, service);
                judge_non_blocking(&report, service);
                judge_dependencies(&report, service, sockets, n_sockets);
                judge_number_of_workers(&report, service, sockets, n_sockets);
        }
        for (size_t i = 0; i < n_sockets; i++) {
                report.unit = sockets[i].id;
                judge_socket(&report, service, &sockets[i]);
        }
        return report.error;
}
