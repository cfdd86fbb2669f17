/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* fcgi-poolctl probe ADDRESS [PATH] */

#include "output.h"

/* Sends a GET of the path, "/" by default, to a FastCGI application and prints what it answers. Returns the
 * exit status of the program: EXIT_FAILURE if that is an error of HTTP, 400 and above. */
int probe(const Output *output, char *const *arguments);
