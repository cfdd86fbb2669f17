/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Settings of units as systemd has merged them, over D-Bus. org.freedesktop.systemd1(5). */

#include "problem.h"
#include "settings.h"

typedef struct sd_bus sd_bus;

/* Has systemd load the unit and reads its settings into *ret, to be freed with service_done() or
 * socket_done(). A unit that does not exist is no failure: load_state is "not-found" then, and "bad-setting"
 * and others as in systemctl(1). What systemd does not know stays NULL, empty or 0. All but the command of a
 * service. On failure negative errno and *ret_problem. */
int service_read(sd_bus *bus, const char *name, Service *ret, Problem *ret_problem);
int socket_read(sd_bus *bus, const char *name, Socket *ret, Problem *ret_problem);

void service_done(Service *service);
void socket_done(Socket *socket);
