/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Which settings of a unit break a promise of fcgi-pool, fcgi-pool(7). Pure: settings in, findings out. */

#include "settings.h"
#include "util.h"

typedef enum Severity {
        SEVERITY_FAULT,  /* breaks a promise */
        SEVERITY_REMARK, /* does not, but should be known */
} Severity;

typedef struct Finding {
        Severity severity;
        char *unit;              /* which the setting is of */
        const char *section;     /* "Service"; static, as are the next two */
        const char *setting;     /* "KillMode" */
        const char *consequence; /* what happens, one sentence */
        char *value;             /* as it is, "" if it is not set */
        char *remedy;            /* for the drop-in, below [section]: one line or more, joined by newlines */
} Finding;

typedef struct Findings {
        Finding *items;
        size_t n_items;
} Findings;

/* Judges a service and the sockets that activate it. service is NULL for a socket without one. Appends to
 * *findings, whose items stay valid after the settings have gone; in the order of service, then sockets.
 * -ENOMEM; then some are missing. */
int rules_judge(const Service *service, const Socket *sockets, size_t n_sockets, Findings *findings);

/* Frees the items. */
void findings_done(Findings *findings);

/* "fault" or "remark". Static. */
const char *severity_to_string(Severity severity);
