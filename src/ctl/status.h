/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* fcgi-poolctl status, list. */

#include "output.h"

/* Prints the workers of the pools of units, of our own pool if there are none. A pool that does not answer
 * gets a line on standard error, and the others are shown all the same. Returns the exit status of the
 * program. */
int status(const Output *output, char *const *units);

/* Prints all pools of the host that run, one line each. */
int list(const Output *output, char *const *arguments);
