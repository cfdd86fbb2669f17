/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Long output on a terminal goes through a pager, as with systemctl(1). */

#include <sys/types.h>

/* Puts $SYSTEMD_PAGER, else $PAGER, else less(1) between standard output and the terminal; none if the first
 * of them that is set is "" or "cat". Returns its pid for pager_close(), 0: there is none. */
pid_t pager_open(void);

/* Ends the output and waits until the person has seen enough. */
void pager_close(pid_t pid);
