/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The command line, parsed and validated once into an immutable Config. */

#include "problem.h"
#include "util.h"

#define WORKERS_MAX 16384U

typedef enum ReadyMode {
        READY_AUTO,   /* notification, or seen waiting on the listener, or a connection accepted from it */
        READY_EXEC,   /* execve() succeeded */
        READY_NOTIFY, /* READY=1 on the worker's own NOTIFY_SOCKET */
        READY_DELAY,  /* alive for ready_delay_usec */
} ReadyMode;

typedef enum RetireMode {
        RETIRE_SIGNAL, /* stop signal at once */
        RETIRE_IDLE,   /* SIGKILL when it holds no request; stop signal after --stop-timeout */
} RetireMode;

typedef enum ListenerMode {
        LISTENER_AS_PASSED, /* O_NONBLOCK as the first owner of the socket set it */
        LISTENER_BLOCKING,
        LISTENER_NONBLOCKING,
} ListenerMode;

typedef struct Config {
        char *name;                   /* --name, or NULL: the caller derives it from the unit */
        unsigned n_workers;           /* at most; 1..WORKERS_MAX */
        unsigned n_workers_min;       /* at least; the same if the number is fixed */
        ReadyMode ready;
        uint64_t ready_delay_usec;    /* with READY_DELAY */
        int stop_signal;
        uint64_t stop_timeout_usec;   /* USEC_INFINITY: never SIGKILL */
        uint64_t start_timeout_usec;  /* USEC_INFINITY: wait for ever */
        RetireMode retire;
        char *probe;                  /* --probe, or NULL */
        unsigned surge;               /* successors at a time in a roll: a number >= 1, ... */
        bool surge_is_percentage;     /* ... or that many in a hundred slots, 1..100 */
        uint64_t max_lifetime_usec;   /* USEC_INFINITY: none */
        uint64_t max_memory;          /* bytes; UINT64_MAX: none */
        uint64_t request_timeout_usec; /* USEC_INFINITY: none */
        ListenerMode listener;
        unsigned crash_budget;        /* this many early deaths ... */
        uint64_t crash_budget_usec;   /* ... within this time are borne while no worker serves */
        uint64_t worker_capabilities; /* bit mask of capability numbers */
        bool socket_activation;
        bool allow_root;
        bool check;
        bool help;
        bool version;
        char **command;               /* NULL-terminated, at least one string; command[0] as given */
        char *executable;             /* the file that command[0] names, found in PATH if it has no slash */
} Config;

/* Parses argv. With help or version set nothing else is looked at. n_cpus is what "auto" stands for (>=
 * 1), path is the value of PATH (may be NULL: the default of execvp(3)). Sets *ret_config, to be freed
 * with config_free(). On failure fills *ret_problem and returns -EINVAL (bad input), -ENOENT or -EACCES (the
 * command is missing or not an executable file) or -ENOMEM. Does not log. */
int config_new(int argc, char **argv, unsigned n_cpus, const char *path, Config **ret_config,
               Problem *ret_problem);
Config *config_free(Config *config);
DEFINE_TRIVIAL_CLEANUP_FUNC(Config *, config_free);

/* The text of --help, ended by a newline. Static. */
const char *config_help_text(void);

/* The name of an enum value as the option writes it. Static. */
const char *ready_mode_to_string(ReadyMode mode);
const char *retire_mode_to_string(RetireMode mode);
const char *listener_mode_to_string(ListenerMode mode);

/* "SIGTERM" and the like for signal numbers the kernel knows, or "signal N" written to buffer; returns
 * the name. */
const char *config_signal_name(int signo, char buffer[static 16]);
