/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The first of the directories of RuntimeDirectory= is ours, wherever more are. Of the environment: there is
 * one in all processes of the service (systemd.exec(5)). */

#include <limits.h>

#include "util.h"

/* Written to buffer, and returned; NULL if there is none. */
static inline const char *runtime_directory(char buffer[static PATH_MAX]) {
        const char *s = getenv("RUNTIME_DIRECTORY");
        size_t l = s ? strcspn(s, ":") : 0;

        if (l == 0 || l >= PATH_MAX)
                return NULL;
        memcpy(buffer, s, l);
        buffer[l] = '\0';
        return buffer;
}
