/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What we tell PID 1.
 *
 * Only the main process speaks (NotifyAccess=main), so that PID 1 attributes every datagram even if we
 * die right after it, and no barrier is needed. */

#include <inttypes.h>

#include <systemd/sd-daemon.h>

#include "notify.h"

#define A_YEAR_USEC (365 * 24 * 3600 * USEC_PER_SEC)

void notify_ready(const char *status) {
        (void) sd_notifyf(false, "READY=1\nSTATUS=%s", status);
}

void notify_status(const char *status) {
        (void) sd_notifyf(false, "STATUS=%s", status);
}

void notify_stopping(const char *status, uint64_t timeout_usec) {
        (void) sd_notifyf(false, "STOPPING=1\nSTATUS=%s\nEXTEND_TIMEOUT_USEC=%" PRIu64, status,
                          MIN_OF(timeout_usec, A_YEAR_USEC));
}

void notify_extend_timeout(uint64_t timeout_usec) {
        (void) sd_notifyf(false, "EXTEND_TIMEOUT_USEC=%" PRIu64, MIN_OF(timeout_usec, A_YEAR_USEC));
}
