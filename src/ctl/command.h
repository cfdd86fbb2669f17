/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The command line of the helper as the unit has it, with the variables that systemd puts in: the options
 * that settings of the unit have to fit. Pure. */

#include "util.h"

typedef struct Command {
        unsigned n_workers;   /* at most; 0: not known */
        unsigned n_surge;     /* of them at a time, --surge= */
        char *listener;       /* --listener=, or NULL; as are the next two */
        char *retire;
        bool allow_root;
        bool known;           /* false: the rest says nothing */
} Command;

/* Reads the text of an EnvironmentFile= as systemd.exec(5) has it and appends its assignments, "NAME=value",
 * to *strv; lines that are none are left out. -ENOMEM. */
int environment_parse(const char *text, char ***strv);

/* The value of the last assignment to the first n characters of name, or NULL. */
const char *environment_get(char *const *environment, const char *name, size_t n);

/* Whether argv has the helper in it: a word that ends in "/fcgi-pool" or is that alone, before any "--". It
 * may follow a wrapper. */
bool command_is_helper(char *const *argv);

/* Expands the variables in argv as systemd.service(5), "Command Lines", has it, and reads the options of the
 * helper. Wrong values are the helper's to refuse: they count as absent. n_cpus is what "auto" stands for.
 * Sets *ret_command, to be freed with command_done(). -EINVAL: not the helper; -ENOMEM. */
int command_parse(char *const *argv, char *const *environment, unsigned n_cpus, Command *ret_command);
void command_done(Command *command);
