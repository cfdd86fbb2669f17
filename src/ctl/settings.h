/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What systemd has made of the unit files of a pool, as far as it matters. Names, words and signals are as
 * unit files write them ("yes", "SIGTERM"); NULL is what this systemd does not know. */

#include "command.h"
#include "util.h"

/* SystemCallFilter=, RestrictAddressFamilies=. No names and no allow: everything is allowed. */
typedef struct Filter {
        bool allow;    /* names are what is allowed; else what is forbidden */
        char **names;
} Filter;

/* SuccessExitStatus= and the like. */
typedef struct ExitSet {
        bool statuses[256];
        bool signals[65];
} ExitSet;

/* ListenStream= and the like; both of the same length: "Stream", "/run/x.sock". */
typedef struct Listens {
        char **types, **addresses;
} Listens;

typedef struct Service {
        char *id;
        char *load_state;
        bool need_daemon_reload;
        char **triggered_by, **requires, **binds_to;
        uint64_t start_limit_interval_usec, start_limit_burst;

        char **exec_start;                     /* argv of the first one */
        char **environment;
        char **environment_files;              /* patterns of glob(7) */
        bool cpus_restricted;                  /* CPUAffinity= or AllowedCPUs= */
        Command command;                       /* made of these */
        char *type, *exit_type, *notify_access, *restart, *oom_policy, *non_blocking;
        char *timeout_start_failure_mode;
        uint64_t restart_usec, runtime_max_usec;
        ExitSet success_exit_status, restart_prevent_exit_status;
        uint64_t fd_store_max;
        char *fd_store_preserve;

        char *kill_mode, *kill_signal, *restart_kill_signal, *send_sigkill;
        char *delegate;
        uint64_t tasks_max, n_files_max;       /* TasksMax=, the soft LimitNOFILE= */

        char *user, *dynamic_user, *remove_ipc;
        char **exec_reload;
        char **runtime_directories;
        char *runtime_directory_preserve;
        char *private_tmp, *private_users, *private_pids, *private_network, *private_ipc;
        char *protect_control_groups;
        Filter system_calls, address_families;
} Service;

typedef struct Socket {
        char *id;
        char *load_state;
        char **triggers;
        uint64_t start_limit_interval_usec, start_limit_burst;

        Listens listens;
        char *accept, *flush_pending, *remove_on_stop;
        uint64_t trigger_limit_interval_usec, trigger_limit_burst;
} Socket;
