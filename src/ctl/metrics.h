/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* fcgi-poolctl metrics [UNIT...] */

#include "output.h"

/* Prints what monitoring wants to know of the pools of units, of all that run if there are none, as
 * OpenMetrics text. Returns the exit status of the program. */
int metrics(const Output *output, char *const *units);
