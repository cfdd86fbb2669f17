/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The helper's own replacement.
 *
 * Descriptors keep their numbers and are named in one environment variable,
 * FCGI_POOL_REEXEC=PID:FD=NAME:FD=NAME...; a renumbering as LISTEN_FDS would need it cannot be undone when
 * execve() fails. Close-on-exec is taken off for the call and put back if it returns.
 *
 * The path is that of /proc/self/exe at the start: later that link may say "(deleted)", and argv[0] may
 * say anything. Whether an upgrade has happened is told by the file's identity, not by its time. */

#include <fcntl.h>
#include <stdio.h>

#include "reexec.h"

#define VARIABLE "FCGI_POOL_REEXEC"

struct Reexec {
        char **argv;
        char *path;
        struct stat st;
};

int reexec_new(char **argv, Reexec **ret_reexec) {
        _cleanup_(reexec_freep) Reexec *reexec = NULL;
        char path[4096];
        ssize_t n;

        assert(argv);
        assert(ret_reexec);

        reexec = calloc(1, sizeof(*reexec));
        if (!reexec)
                return -ENOMEM;
        reexec->argv = argv;

        n = readlink("/proc/self/exe", path, sizeof(path) - 1);
        if (n < 0)
                return -errno;
        path[n] = '\0';
        /* Upgraded between our execve() and now. */
        if (n > (ssize_t) strlen(" (deleted)") && streq(path + n - strlen(" (deleted)"), " (deleted)"))
                path[n - (ssize_t) strlen(" (deleted)")] = '\0';
        reexec->path = strdup(path);
        if (!reexec->path)
                return -ENOMEM;
        if (stat("/proc/self/exe", &reexec->st) < 0)
                return -errno;

        *ret_reexec = TAKE_PTR(reexec);
        return 0;
}

Reexec *reexec_free(Reexec *reexec) {
        if (!reexec)
                return NULL;

        free(reexec->path);
        free(reexec);
        return NULL;
}

int reexec_is_due(const Reexec *reexec) {
        struct stat st;

        if (stat(reexec->path, &st) < 0)
                return -errno;
        return st.st_dev != reexec->st.st_dev || st.st_ino != reexec->st.st_ino;
}

static int set_cloexec(const PassedFd *fds, size_t n_fds, bool cloexec) {
        for (size_t i = 0; i < n_fds; i++)
                if (fcntl(fds[i].fd, F_SETFD, cloexec ? FD_CLOEXEC : 0) < 0)
                        return -errno;
        return 0;
}

static int export_fds(const PassedFd *fds, size_t n_fds) {
        _cleanup_free_ char *value = NULL;
        size_t size = 0;
        FILE *f;

        f = open_memstream(&value, &size);
        if (!f)
                return -ENOMEM;
        fprintf(f, "%d", (int) getpid());
        for (size_t i = 0; i < n_fds; i++)
                fprintf(f, ":%d=%s", fds[i].fd, fds[i].name);
        if (fclose(f) != 0)
                return -ENOMEM;
        return setenv(VARIABLE, value, 1) < 0 ? -errno : 0;
}

int reexec_execute(const Reexec *reexec, const PassedFd *fds, size_t n_fds) {
        int r;

        assert(reexec);
        assert(fds || n_fds == 0);

        r = export_fds(fds, n_fds);
        if (r < 0)
                return r;

        r = set_cloexec(fds, n_fds, false);
        if (r >= 0) {
                (void) execv(reexec->path, reexec->argv);
                r = -errno;
        }

        (void) set_cloexec(fds, n_fds, true);
        (void) unsetenv(VARIABLE);
        return r;
}

/* Reads "FD=NAME" at *p up to the next ':' and sets *p behind it. */
static int parse_fd(const char **p, int *ret_fd, char **ret_name) {
        const char *end;
        char *equals;
        long fd;

        errno = 0;
        fd = strtol(*p, &equals, 10);
        if (errno != 0 || fd < 3 || fd > INT32_MAX || *equals != '=')
                return -EBADMSG;
        end = strchrnul(equals, ':');

        if (fcntl((int) fd, F_SETFD, FD_CLOEXEC) < 0)
                return -EBADMSG;
        *ret_name = strndup(equals + 1, (size_t) (end - equals - 1));
        if (!*ret_name)
                return -ENOMEM;
        *ret_fd = (int) fd;
        *p = *end == ':' ? end + 1 : end;
        return 0;
}

int reexec_take_fds(int **ret_fds, char ***ret_names) {
        _cleanup_strv_free_ char **names = NULL;
        _cleanup_free_ int *fds = NULL;
        _cleanup_free_ char *value = NULL;
        const char *e, *p;
        size_t n_max = 1;
        char *end;
        int n = 0, r;

        e = getenv(VARIABLE);
        if (!e)
                return 0;
        value = strdup(e);
        if (!value)
                return -ENOMEM;
        (void) unsetenv(VARIABLE);

        if (strtol(value, &end, 10) != (long) getpid())
                return 0; /* inherited from somebody else's: not for us */
        for (p = end; (p = strchr(p, ':')); p++)
                n_max++;
        fds = calloc(n_max, sizeof(*fds));
        names = calloc(n_max + 1, sizeof(*names));
        if (!fds || !names)
                return -ENOMEM;

        for (p = *end == ':' ? end + 1 : end; *p; n++) {
                r = parse_fd(&p, &fds[n], &names[n]);
                if (r < 0)
                        return r;
        }
        if (n == 0)
                return 0;

        *ret_fds = TAKE_PTR(fds);
        *ret_names = TAKE_PTR(names);
        return n;
}
