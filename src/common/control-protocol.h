/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the helper and fcgi-poolctl agree on: D-Bus between two ends, without a bus, over a socket in
 * $RUNTIME_DIRECTORY. The interface describes itself (org.freedesktop.DBus.Introspectable). */

#define CONTROL_SOCKET "control"
#define CONTROL_PATH "/org/fcgi_pool/Pool"
#define CONTROL_INTERFACE "org.fcgi_pool.Pool1"

#define CONTROL_ERROR(name) "org.fcgi_pool.Error." name
#define CONTROL_ERROR_NOT_SERVING CONTROL_ERROR("NotServing")               /* not yet, or not any more */
#define CONTROL_ERROR_RELOAD_IN_PROGRESS CONTROL_ERROR("ReloadInProgress")
#define CONTROL_ERROR_TOO_MANY_GENERATIONS CONTROL_ERROR("TooManyGenerations")
#define CONTROL_ERROR_NO_SUCH_GENERATION CONTROL_ERROR("NoSuchGeneration")
#define CONTROL_ERROR_HELD CONTROL_ERROR("Held")                            /* clients are to wait */
#define CONTROL_ERROR_NO_SUCH_WORKER CONTROL_ERROR("NoSuchWorker")
#define CONTROL_ERROR_BAD_NUMBER CONTROL_ERROR("BadNumber")
#define CONTROL_ERROR_RELOAD_FAILED CONTROL_ERROR("ReloadFailed")
#define CONTROL_ERROR_REEXEC_FAILED CONTROL_ERROR("ReexecFailed")
