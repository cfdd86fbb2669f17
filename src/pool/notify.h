/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Every datagram to PID 1, sd_notify(3). Without $NOTIFY_SOCKET all of these do nothing. None logs: PID 1
 * not answering is nothing we could mend. status is one line of UTF-8. */

#include "util.h"

/* READY=1 with STATUS=. */
void notify_ready(const char *status);

/* STATUS= alone. */
void notify_status(const char *status);

/* STOPPING=1 with STATUS=, and at least timeout_usec more before PID 1 loses patience. */
void notify_stopping(const char *status, uint64_t timeout_usec);

/* EXTEND_TIMEOUT_USEC=: at least timeout_usec more for the start or stop under way. USEC_INFINITY is
 * taken for a year, since PID 1 ignores infinity. */
void notify_extend_timeout(uint64_t timeout_usec);
