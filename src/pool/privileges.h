/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Capabilities and user: the helper keeps nothing, workers get what --worker-capabilities names.
 * capabilities(7). */

#include <sys/capability.h>

#include "fd-util.h"
#include "problem.h"

/* Parses "CAP_NET_RAW,CAP_SYS_NICE" (separated by commas or spaces, case ignored, the CAP_ prefix may be
 * left out) to a bit mask. -EINVAL: a name libcap does not know; *ret_bad, if not NULL, then points into
 * s at the start of that name. */
int capabilities_parse(const char *s, uint64_t *ret_mask, const char **ret_bad);

/* Drops every capability of the calling process from the effective, permitted, inheritable and ambient
 * sets and, where CAP_SETPCAP is held, from the bounding set; capabilities in worker_mask stay in
 * permitted, inheritable and bounding, not in effective. Sets no_new_privs. Refuses uid 0 without
 * allow_root and a worker_mask that exceeds the permitted set. -EPERM with *ret_problem for both; other
 * negative errno: the kernel refused. Does not log. */
int privileges_drop(uint64_t worker_mask, bool allow_root, Problem *ret_problem);

/* In the child between fork and exec: raises worker_mask in the ambient set, so that it survives
 * execve(). Only async-signal-safe calls. Returns 0 or negative errno. */
int privileges_raise_ambient(uint64_t worker_mask);
