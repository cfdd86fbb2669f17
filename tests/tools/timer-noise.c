/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SPDX-FileCopyrightText: fcgi-pool contributors */

/* How late a process wakes that sleeps for a millisecond, again and again until SIGTERM: what the machine and
 * its load do to anybody who has to be woken, and so what a short time measured beside it is to be read by.
 * Prints what fcgi-load does; of that only the latencies mean anything. */

#include <signal.h>
#include <sys/prctl.h>

#include "load-stats.h"
#include "tool.h"

static volatile sig_atomic_t told_to_end;

static void on_term(int signo) {
        (void) signo;
        told_to_end = 1;
}

int main(int argc, char *argv[]) {
        Stats stats = {};

        if (argc > 1)
                fail(EXIT_USAGE, "unexpected argument '%s'", argv[1]);
        /* By default the kernel may be 50 us late, to wake several at a time. */
        if (prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0) < 0 ||
            sigaction(SIGTERM, &(struct sigaction) { .sa_handler = on_term }, NULL) < 0)
                fail(EXIT_FAILURE, "cannot set up: %s", strerror(errno));

        stats.begin_nsec = stats.last_ok_nsec = now_nsec();
        while (!told_to_end) {
                uint64_t due = now_nsec() + NSEC_PER_MSEC, now;

                sleep_msec(1);
                now = now_nsec();
                stats.n_started++;
                stats_ok(&stats, now, now > due ? now - due : 0, -1, -1);
        }
        stats.end_nsec = now_nsec();

        stats_print(&stats, stdout);
        stats_done(&stats);
        return EXIT_SUCCESS;
}
