/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The life of the helper: event loop, signals, watchdog, and what PID 1 is told. */

#include "config.h"
#include "problem.h"
#include "sockets.h"

typedef struct Manager Manager;

/* Blocks the signals it handles and prepares everything; nothing runs yet. config, name and listeners are
 * borrowed and must outlive the manager. Negative errno with *ret_problem. Does not log. */
int manager_new(const Config *config, const char *name, ListenSet *listeners, char **argv,
                Manager **ret_manager, Problem *ret_problem);
Manager *manager_free(Manager *manager);
DEFINE_TRIVIAL_CLEANUP_FUNC(Manager *, manager_free);

/* Runs the pool until it has stopped. Returns the exit status of the program. Logs. */
int manager_run(Manager *manager);
