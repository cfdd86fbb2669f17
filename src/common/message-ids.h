/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* MESSAGE_ID= of every kind of journal line, systemd.journal-fields(7): 32 hex digits each.
 * units/fcgi-pool.catalog explains them. An id never changes its meaning. All lines but those about bad
 * input have FCGI_POOL=. */

/* One worker; all have WORKER_SLOT=, WORKER_PID=, GENERATION= and WORKER_STATE=. EXITED is an end that
 * was asked for, or one with status 0 after service; DIED is any other. Both have WORKER_STATE_OLD=,
 * UPTIME_USEC=, EXIT_CODE= and EXIT_STATUS=. STUCK has REQUEST_USEC= and, as far as
 * they can be told, WORKER_SYSCALL=, WORKER_WCHAN=, WORKER_STACK=, WORKER_THREADS= and WORKER_OUTPUT=. */
#define MESSAGE_WORKER_STATE           "98cd82610be8477fac3da337a415f865" /* WORKER_STATE_OLD= */
#define MESSAGE_WORKER_EXITED          "13bf8ed075c74c348578de6293e68dd9"
#define MESSAGE_WORKER_DIED            "eb54974b70b745d9949225a9c7f2e6f1"
#define MESSAGE_WORKER_NOT_EXECUTED    "7fa20a8e48414e06aeb0f066d8629801"
#define MESSAGE_WORKER_START_TIMEOUT   "d3032a79c3764d32a0820142be0eef30"
#define MESSAGE_WORKER_ASSUMED_READY   "d0250515bb714553bf314398e474f4b6"
#define MESSAGE_WORKER_NOT_IDLE        "f77db68270604274a137f2c6cd594453"
#define MESSAGE_WORKER_STUCK           "f6ceeb9cb24f4f04a085d353b667282c"
#define MESSAGE_WORKER_KILLED          "649eab59028f4226905c0cb9add011de"

/* One slot: WORKER_SLOT=, BACKOFF_USEC=, N_EARLY_DEATHS=. */
#define MESSAGE_WORKER_BACKOFF         "3b0833c363d74c2a91fed74fb9c4ae70"

/* The pool. RESIZED has N_WORKERS=, N_BUSY=, N_QUEUED= and REQUEST_USEC=, of the oldest request. */
#define MESSAGE_POOL_STARTED           "95c6f856d80247dc816201be503f806d"
#define MESSAGE_START_FAILED           "0a382dfd7d85495d9a1f75073ee84146"
#define MESSAGE_CRASH_BUDGET_SPENT     "77fbfdede73043049bb4ba896ed604e0"
#define MESSAGE_POOL_STOPPING          "53df9a93bb064fa7acbe66e1de517283"
#define MESSAGE_POOL_STOPPED           "099fe50c014840309be8eca684f7098b"
#define MESSAGE_POOL_RESIZED           "5673aef41b5b407e8a7a56338c7a7cb3"
#define MESSAGE_LISTENER_FLIPPED       "f0b50a11816540eb9a7e947a2af0530a" /* LISTENER= */
#define MESSAGE_STRANGER_CLOSED        "64c6c7fe22be4b748cf63dbcaff3f4e4"
#define MESSAGE_SIGNAL_IGNORED         "abb4469bda4540c2a8d0fb45e777aed8"

/* Taking over from another helper, and leaving to the next one. REPLACED has GENERATION=, N_REPLACED=,
 * N_KILLED=, ROLL_USEC=, DRAIN_USEC=, N_QUEUED= and N_OVERFLOWS=. */
#define MESSAGE_ADOPTED                "c132d5fcd8dd450c8cb439ab659940ad"
#define MESSAGE_ROLLED                 "41cf58313f054389bc00eb9b889ad0b3"
#define MESSAGE_REPLACED               "70b52c97d7f448a4a2b2d495fc09b8ba"
#define MESSAGE_ROLLING                "84375774b5d64d40ba6472910e5a369a"
#define MESSAGE_WORKERS_LEFT           "9b32145ec52c4da3b34fcbcc9a93f6e9"
#define MESSAGE_LEFTOVERS_KILLED       "c577c909d1734ba293f970b1b291cdcd"
#define MESSAGE_REEXEC_FAILED          "f523750de3ea44a585f5be286308f14e"
#define MESSAGE_GUARDIAN_DIED          "fd0a5ec865fe411ba9222525127f1829"
#define MESSAGE_DEGRADED               "9f2327e9d5aa4553a35208d6cdc7d886"
#define MESSAGE_STATE_LOST             "477a82bf56d943659bb3f550baf802a3"

/* The guardian, after the unit is down: N_PROCESSES=, those found, killed and left. */
#define MESSAGE_ORPHANS_FOUND          "34648a3fefc946f6b87169b583136873"
#define MESSAGE_ORPHANS_ENDED          "fbcac8d9157049bf8abee33d6d8f0134"
#define MESSAGE_ORPHANS_LEFT           "e19d29a99ba14fc9a1eb983cfb622725"
