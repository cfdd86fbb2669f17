/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Finds the workers that an earlier helper has left, from three sources of which each may be missing or
 * wrong: the workers' cgroup (who is there), the stored state (who is who) and the stored pidfds (handles
 * that cannot be confused). */

#include "pidfd.h"
#include "sockets.h"
#include "state.h"

typedef enum AdoptKind {
        ADOPT_WORKER,     /* recorded, or known from its environment */
        ADOPT_STRANGER,   /* in the cgroup, explained by nothing */
        ADOPT_LOST,       /* recorded, and gone */
} AdoptKind;

typedef struct Adoptee {
        AdoptKind kind;
        StateWorker record;   /* of a stranger: only pid and start_time */
        int pidfd;            /* owned until taken; -EBADF if lost without a trace */
        bool stored;          /* PID 1 has its pidfd, under the name of its slot and generation */
        Death death;          /* of the lost */
} Adoptee;

typedef struct Adoption {
        Adoptee *adoptees;
        size_t n_adoptees;
} Adoption;

/* state may be NULL, cgroup_fd -EBADF. Takes the pidfds it uses from stored; those that are left refer to
 * no worker. Of two processes for one slot both are returned. Descendants of workers are left out.
 * Negative errno: -ENOMEM, -EMFILE, what reading the cgroup fails with. Does not log. */
int adopt_find(const State *state, ListenSet *stored, int cgroup_fd, Adoption **ret_adoption);
Adoption *adoption_free(Adoption *adoption);
DEFINE_TRIVIAL_CLEANUP_FUNC(Adoption *, adoption_free);
