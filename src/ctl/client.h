/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The way to a pool: from the name of its unit to a D-Bus connection with its helper. None prints. */

#include <systemd/sd-bus.h>

#include "problem.h"

/* Where the control socket of a pool is. unit is the name of its service, with or without ".service", or of
 * an instance of fcgi-pool@.service alone; PID 1 is asked for its RuntimeDirectory=. NULL stands for
 * $RUNTIME_DIRECTORY, which commands of the service itself have. *ret_path is to be freed. Negative errno
 * with *ret_problem: -EINVAL, not the name of a unit; -ENOEXEC, systemd has not loaded it; -ENXIO, no such
 * pool, or it has no runtime directory or none is set; what sd-bus fails with. */
int client_find_socket(const char *unit, char **ret_path, Problem *ret_problem);

/* The services that run and whose ExecStart= is fcgi-pool, a NULL-terminated array to be freed, or NULL for
 * none. Negative errno with *ret_problem: what sd-bus fails with. */
int client_list_units(char ***ret_units, Problem *ret_problem);

/* Connects to a helper. If there is none because it restarts, the connection waits for the next one, in the
 * first call. Negative errno with *ret_problem: -ENOENT or -ECONNREFUSED, the pool does not run; -EACCES. */
int client_connect(const char *path, sd_bus **ret_bus, Problem *ret_problem);

/* Both, for one connection. ret_path may be NULL. */
int client_open(const char *unit, char **ret_path, sd_bus **ret_bus, Problem *ret_problem);

/* A property of the pool. *ret is to be freed, if it is a string, and has no control characters. Negative
 * errno with *ret_problem. */
int client_get_string(sd_bus *bus, const char *name, char **ret, Problem *ret_problem);
int client_get_number(sd_bus *bus, const char *name, char type, void *ret, Problem *ret_problem);

/* Whether an error of a call means that the helper went away and the next one can be asked. */
bool client_is_gone(int error);

/* Whether it means that a pool of client_list_units() does not run any more, which is no news. */
bool client_has_ended(int error);

/* Fills *ret_problem from what a call has failed with; returns error. */
int client_problem(int error, const sd_bus_error *bus_error, Problem *ret_problem);
