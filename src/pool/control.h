/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The door for people: a listening socket in $RUNTIME_DIRECTORY that speaks D-Bus to whoever may connect,
 * see control-protocol.h. */

#include "fd-util.h"

typedef struct sd_event sd_event;
typedef struct Control Control;
typedef struct Pool Pool;

typedef struct ControlParameters {
        Pool *pool;             /* must outlive the control */
        int listener_fd;        /* stays the caller's and must outlive the control */
        /* Begins a reload; *ret_generation is the one that all workers will be of. What pool_roll()
         * returns. */
        int (*on_reload)(uint64_t *ret_generation, void *userdata);
        /* The caller of Reload() has its answer. May not return. */
        void (*on_reloading)(void *userdata);
        /* Executes the program anew. Returns only if that fails: negative errno. */
        int (*on_reexec)(void *userdata);
        void *userdata;
} ControlParameters;

/* Accepts from now on. Callers are root or our own user; others are hung up on. What they ask for comes
 * after everything else that the event loop has to do, so nobody stalls the pool by asking. -ENOMEM, what
 * sd_event_add_io(3) fails with. Logs. */
int control_new(sd_event *event, const ControlParameters *parameters, Control **ret_control);

/* Hangs up on everybody. Returns NULL. */
Control *control_free(Control *control);
DEFINE_TRIVIAL_CLEANUP_FUNC(Control *, control_free);

/* The pool has news: whoever waits for a verdict hears it, and the rest that Status has changed. Control may
 * be NULL. */
void control_publish(Control *control);
