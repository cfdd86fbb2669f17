/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SPDX-FileCopyrightText: fcgi-pool contributors */

/* The smallest daemon on sd-event that is of any use: says READY=1, ends on SIGTERM. Its memory is what the
 * library alone costs. */

#include <signal.h>
#include <stddef.h>

#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>

int main(void) {
        sd_event *event = NULL;
        sigset_t mask;

        sigemptyset(&mask);
        sigaddset(&mask, SIGTERM);
        if (sigprocmask(SIG_BLOCK, &mask, NULL) < 0 || sd_event_new(&event) < 0 ||
            sd_event_add_signal(event, NULL, SIGTERM, NULL, NULL) < 0 || sd_notify(0, "READY=1") < 0)
                return 1;
        return sd_event_loop(event) < 0;
}
