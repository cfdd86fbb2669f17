/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The one question we ask PID 1 over D-Bus: does a socket unit of ours have a job, so that our restart is
 * part of the socket's? org.freedesktop.systemd1(5). */

#include "util.h"

/* Looks at all socket units that trigger the unit we run in (property TriggeredBy of our own unit, found
 * by our pid; property Job of each). Returns 1 if one has a job, 0 if none has (or there is none),
 * negative errno if it could not be learnt (-ENOENT, -ECONNREFUSED and the like: no bus; -ETIMEDOUT; the
 * error PID 1 answered, such as that we run in no unit). Blocks for timeout_usec altogether at most.
 * Needs no privilege, heeds $DBUS_SYSTEM_BUS_ADDRESS. Does not log. */
int jobs_socket_has_job(uint64_t timeout_usec);

/* Whether the unit we run in is down for good: inactive or failed, and no job that would change that.
 * Waiting for an automatic restart is not down. Returns 1, 0, or negative errno as above. */
int jobs_unit_is_down(uint64_t timeout_usec);
