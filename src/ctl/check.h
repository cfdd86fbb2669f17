/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* fcgi-poolctl check UNIT... */

#include "output.h"

/* Reads the pools that units, a NULL-terminated array of at least one, name and prints what is wrong with
 * their settings on standard output; what cannot be read gets a line on standard error, and the others are
 * checked all the same. Returns the exit status of the program: 0, EXIT_STATUS_FINDINGS or another of
 * problem.h. */
int check(const Output *output, char *const *units);
