/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Runs a fuzz target over the files of a directory, with any compiler: what fuzzing has found once stays
 * tested.
 *
 * Linked with one fuzz target. Every regular file of every directory named on the command line is one input;
 * an empty corpus is a failure, for it would test nothing. */

#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>

#include "util.h"

#define INPUT_MAX (1U << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static FILE *file_close(FILE *f) {
        if (f)
                (void) fclose(f);
        return NULL;
}

static DIR *directory_close(DIR *d) {
        if (d)
                (void) closedir(d);
        return NULL;
}

DEFINE_TRIVIAL_CLEANUP_FUNC(FILE *, file_close);
DEFINE_TRIVIAL_CLEANUP_FUNC(DIR *, directory_close);

/* Returns 1 if path was an input, 0 if it is no regular file. */
static int replay_file(const char *path) {
        _cleanup_(file_closep) FILE *f = NULL;
        _cleanup_free_ uint8_t *data = NULL;
        struct stat st;
        size_t n;

        if (stat(path, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode))
                return 0;

        f = fopen(path, "re");
        if (!f)
                return -errno;

        data = malloc(INPUT_MAX);
        if (!data)
                return -ENOMEM;

        n = fread(data, 1, INPUT_MAX, f);
        if (ferror(f))
                return -EIO;

        fprintf(stderr, "%s\n", path); /* the last line names the culprit */
        (void) LLVMFuzzerTestOneInput(data, n);
        return 1;
}

/* Returns the number of inputs. */
static int replay_directory(const char *path) {
        _cleanup_(directory_closep) DIR *d = NULL;
        int n = 0;

        d = opendir(path);
        if (!d)
                return -errno;

        for (struct dirent *entry = readdir(d); entry; entry = readdir(d)) {
                char file[4096];
                int r;

                (void) snprintf(file, sizeof(file), "%s/%s", path, entry->d_name);
                r = replay_file(file);
                if (r < 0)
                        return r;
                n += r;
        }

        return n;
}

int main(int argc, char **argv) {
        int n_inputs = 0;

        for (int i = 1; i < argc; i++) {
                int r = replay_directory(argv[i]);

                if (r < 0) {
                        fprintf(stderr, "%s: %s\n", argv[i], strerror(-r));
                        return EXIT_FAILURE;
                }
                n_inputs += r;
        }

        fprintf(stderr, "%d inputs\n", n_inputs);
        return n_inputs > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
