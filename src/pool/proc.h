/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Files and directories of /proc, read without allocating anything. proc(5). None logs. */

#include <dirent.h>

#include "fd-util.h"

/* Reads the beginning of a file as a string; size must be enough for what the caller wants to know. 0 or
 * negative errno; -ENOENT and -ESRCH: the process or thread is gone. */
int proc_read_file(const char *path, char *buffer, size_t size);

/* Iterates over the entries of a directory whose names are numbers. Begins with .fd = -EBADF, so that
 * number_dir_done() can be its cleanup. */
typedef struct NumberDir {
        int fd;                /* owned */
        size_t position;
        size_t size;
        _Alignas(struct dirent64) char buffer[4096];
} NumberDir;

int number_dir_open(NumberDir *dir, const char *path);
void number_dir_done(NumberDir *dir);

/* 1 and the next number, 0 at the end, or negative errno. */
int number_dir_next(NumberDir *dir, int *ret);
