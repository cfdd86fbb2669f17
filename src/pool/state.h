/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the next helper has to know, in a memfd that PID 1 keeps for us: codec and nothing else.
 *
 * The file has two areas that are written in turn, each with a sequence number and a checksum, so that a
 * helper killed in the middle of a write leaves the state before it intact. The text inside is lines of
 * KEY=VALUE; unknown keys and further words on a line are skipped, so that helpers of different versions
 * read one another. A version that adds a name (of a life or of a worker's state) raises
 * STATE_MIN_READER. */

#include <sys/types.h>

#include "fd-util.h"
#include "problem.h"
#include "worker-state.h"

/* The version that this build writes, and the oldest reader that can make sense of it. */
#ifndef STATE_VERSION
#define STATE_VERSION 1U
#endif
#ifndef STATE_MIN_READER
#define STATE_MIN_READER 1U
#endif

/* More than that are neither written nor read; four times what --workers= may ask for. */
#define STATE_WORKERS_MAX 65536U

/* Where the second area begins; the first one cannot reach it. Every version agrees on that and on the
 * header of an area, which is this long. */
#define STATE_AREA_SIZE (8U * 1024 * 1024)
#define STATE_HEADER_SIZE 59U

typedef enum StateLife {
        STATE_LIFE_RUNNING,    /* nobody said goodbye: if this is found, the helper has died */
        STATE_LIFE_RESTARTED,  /* told to restart: the next one rolls to a new generation */
        STATE_LIFE_REEXECUTED, /* execve() in place: the same generation goes on */
        _STATE_LIFE_MAX,
} StateLife;

typedef struct StateWorker {
        unsigned slot;         /* what was stored, any number: compare before it becomes an index */
        uint64_t generation;
        pid_t pid;             /* 0: it was about to be spawned */
        uint64_t start_time;   /* field 22 of /proc/PID/stat; with pid it names a process for ever */
        uint64_t spawned_usec; /* CLOCK_MONOTONIC; a memfd does not outlive the boot */
        uint64_t cookie;       /* SO_COOKIE of its listener */
        WorkerState state;
} StateWorker;

typedef struct State {
        StateLife life;
        uint64_t generation;  /* the newest one; a state that was read has no worker above it */
        bool rolling;         /* workers of older generations are still to be replaced */
        bool started;         /* READY=1 has been sent, and the pool was not told to stop since */
        bool held;            /* no worker is wanted until somebody says so */
        unsigned n_workers_set; /* how many were asked for by hand; 0: as the options say */
        StateWorker *workers; /* owned */
        size_t n_workers;
} State;

State *state_free(State *state);
DEFINE_TRIVIAL_CLEANUP_FUNC(State *, state_free);

const char *state_life_to_string(StateLife life);

/* A memfd that is written: knows which area is next, so that a write is one pwrite(2) and nothing is
 * read. */
typedef struct StateFile StateFile;

/* Makes an empty memfd, FD_CLOEXEC. *ret_file is to be freed with state_file_free(). Negative errno:
 * -ENOMEM, what memfd_create(2) fails with. */
int state_file_open(StateFile **ret_file);

/* Goes on writing where another helper stopped; what is in fd need not make sense and stays until two
 * writes later. Takes fd on success, leaves it on failure. -EBADMSG: fd is no memfd that can be written
 * (another kind of file, sealed, read-only, O_APPEND): use state_file_open(). -ENOMEM; what pread(2)
 * fails with. */
int state_file_attach(int fd, StateFile **ret_file);

/* Closes the descriptor; what PID 1 holds stays. Accepts NULL, returns NULL. */
StateFile *state_file_free(StateFile *file);
DEFINE_TRIVIAL_CLEANUP_FUNC(StateFile *, state_file_free);

/* Borrowed: for the FD store and for re-execution. */
int state_file_get_fd(const StateFile *file);

/* Writes state into the area that does not hold the newest one. What is left behind it of a longer state
 * is out of reach of the header's length. Returns 0 or negative errno, and then the state before it is
 * still the newest one: -ENOMEM; -EFBIG: more than STATE_WORKERS_MAX, or RLIMIT_FSIZE is below two areas
 * and SIGXFSZ ignored (setrlimit(2); if it is not ignored, it kills); what pwrite(2) fails with. */
int state_file_write(StateFile *file, const State *state);

/* Reads the newest intact state. *ret_state is to be freed with state_free(). Never blocks, takes a
 * bounded amount of memory (an area and the workers), whatever fd is; its file position is neither used
 * nor moved. -ENODATA: nothing has ever been written. -EBADMSG: no memfd, or there is something, but no
 * area is intact. -EPROTO: intact, but not what it should say. -EPROTONOSUPPORT: written by a version
 * that this one cannot read. The older area is the answer only to a torn one: for the last two it would
 * be stale. -ENOMEM; what pread(2) fails with. In all cases *ret_problem (may be NULL) says it in a
 * line. Does not log. */
int state_read(int fd, State **ret_state, Problem *ret_problem);

/* The same from memory, for one area: data of size bytes as they are in the file. *ret_sequence may be
 * NULL. */
int state_parse(const char *data, size_t size, uint64_t *ret_sequence, State **ret_state,
                Problem *ret_problem);

/* One area as it will be in the file; *ret_data is to be freed. -ENOMEM; -EFBIG: more than
 * STATE_WORKERS_MAX. */
int state_format(const State *state, uint64_t sequence, char **ret_data, size_t *ret_size);

/* Fills in the header of an area of size bytes, whose text begins at STATE_HEADER_SIZE. */
void state_seal(char *area, size_t size, uint64_t sequence);
