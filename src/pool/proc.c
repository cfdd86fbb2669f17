/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A worker is looked at often and by the microsecond: one read(2) a file, one getdents64(2) a directory,
 * and no FILE or DIR that would be allocated for each. */

#include "proc.h"

#include <fcntl.h>

int proc_read_file(const char *path, char *buffer, size_t size) {
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n;

        assert(size > 0);

        if (fd < 0)
                return -errno;
        n = read(fd, buffer, size - 1);
        if (n < 0)
                return -errno;
        buffer[n] = '\0';
        return 0;
}

void number_dir_done(NumberDir *dir) {
        dir->fd = safe_close(dir->fd);
}

int number_dir_open(NumberDir *dir, const char *path) {
        dir->position = dir->size = 0;
        dir->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        return dir->fd < 0 ? -errno : 0;
}

int number_dir_next(NumberDir *dir, int *ret) {
        for (;;) {
                const struct dirent64 *entry;

                if (dir->position >= dir->size) {
                        ssize_t n = getdents64(dir->fd, dir->buffer, sizeof(dir->buffer));

                        if (n <= 0)
                                return n < 0 ? -errno : 0;
                        dir->position = 0;
                        dir->size = (size_t) n;
                }

                entry = (const struct dirent64 *) (const void *) (dir->buffer + dir->position);
                dir->position += entry->d_reclen;
                if (entry->d_name[0] >= '0' && entry->d_name[0] <= '9') {
                        *ret = (int) strtol(entry->d_name, NULL, 10);
                        return 1;
                }
        }
}
