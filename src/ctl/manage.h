/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Verbs that ask a pool for one thing. All return the exit status of the program. */

#include "output.h"

int set_workers(const Output *output, char *const *arguments); /* UNIT N */
int recycle(const Output *output, char *const *arguments);     /* UNIT SLOT|all */
int hold(const Output *output, char *const *arguments);        /* [UNIT] */
int resume(const Output *output, char *const *arguments);      /* [UNIT] */
