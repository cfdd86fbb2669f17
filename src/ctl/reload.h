/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Verbs that replace something: fcgi-poolctl reload, reexec. Each takes the name of a unit or none, and
 * returns the exit status of the program. */

#include "output.h"

/* Asks a pool to replace its workers, and waits for the verdict, for as long as that takes; progress is
 * shown on a terminal. EXIT_FAILURE: the new workers are no good, and the old ones serve; the reason is on
 * standard error. */
int reload(const Output *output, char *const *arguments);

/* Asks the helper to execute its program anew, and waits until the new image answers. */
int reexec(const Output *output, char *const *arguments);
