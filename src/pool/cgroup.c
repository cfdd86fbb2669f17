/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Sub-cgroups.
 *
 * We live in the unit's own cgroup, where PID 1 starts the helper; workers are born in workers/ by
 * clone3(2), which costs nothing, while moving a process there later takes milliseconds. Where there is no
 * clone3(2), as under RestrictNamespaces=, or where it kills (spawn_probe_cgroup()), we live in workers/
 * with them instead, who are born where we are. Membership survives everything but the death of the
 * process, so it is the one list of workers that cannot be lost.
 *
 * Both kinds of hierarchy are looked for: cgroup2 on /sys/fs/cgroup, or beside version 1 in
 * /sys/fs/cgroup/unified.
 *
 * Workers run as our user and may make cgroups of their own below. What they do there, odd modes and endless
 * depth included, shall not keep us from seeing the others: the list leaves out what it cannot reach, while
 * "populated" and cgroup.kill are the kernel's own and leave out nothing.
 *
 * A removed cgroup shows as ENOENT where a file is opened and as ENODEV where an open one is read. */

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include "cgroup.h"
#include "spawn.h"

enum {
        DEPTH_MAX = 16,
        BATCH_MAX = 64, /* pidfds that cgroup_signal() holds at a time: far from any RLIMIT_NOFILE */
        READ_SIZE = 4096,
        LIST_SIZE = 64,
        ROUNDS_MAX = 16,
};

Cgroup *cgroup_free(Cgroup *cgroup) {
        if (!cgroup)
                return NULL;

        (void) safe_close(cgroup->unit_fd);
        (void) safe_close(cgroup->workers_fd);
        (void) safe_close(cgroup->guardian_fd);
        free(cgroup->workers_path);
        free(cgroup);
        return NULL;
}

static void close_file(FILE **f) {
        if (*f)
                (void) fclose(*f);
}

static void close_directory(DIR **d) {
        if (*d)
                (void) closedir(*d);
}

/* Where cgroup2 is mounted. */
static const char *mount_point(void) {
        static const char *const candidates[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified" };
        struct statfs sfs;

        for (size_t i = 0; i < ELEMENTSOF(candidates); i++)
                if (statfs(candidates[i], &sfs) >= 0 && sfs.f_type == CGROUP2_SUPER_MAGIC)
                        return candidates[i];

        return NULL;
}

/* Whether the n characters at name have suffix and something before it. */
static bool has_suffix(const char *name, size_t n, const char *suffix) {
        size_t l = strlen(suffix);

        return n > l && memcmp(name + n - l, suffix, l) == 0;
}

size_t cgroup_service_length(const char *path) {
        /* The kinds of unit that have a cgroup, systemd.unit(5). */
        static const char *const others[] = { ".scope", ".slice", ".socket", ".mount", ".swap" };
        size_t length = 0, n;

        assert(path);

        if (has_suffix(path, strlen(path), " (deleted)"))
                return 0;

        for (const char *p = path + strspn(path, "/"); *p; p += n, p += strspn(p, "/")) {
                n = strcspn(p, "/");
                if (n == 2 && memcmp(p, "..", 2) == 0)
                        return 0;
                if (has_suffix(p, n, ".service"))
                        length = (size_t) (p - path) + n;
                for (size_t i = 0; i < ELEMENTSOF(others); i++)
                        if (has_suffix(p, n, others[i]))
                                length = 0;
        }

        return length;
}

/* "/sys/fs/cgroup/system.slice/blog.service" */
static int unit_path(char **ret_path) {
        _cleanup_(close_file) FILE *f = NULL;
        _cleanup_free_ char *line = NULL;
        const char *mount = mount_point();
        size_t size = 0;

        if (!mount)
                return -ENOENT;
        f = fopen("/proc/self/cgroup", "re");
        if (!f)
                return -errno;

        while (getline(&line, &size, f) > 0) {
                const char *path = startswith(line, "0::");
                size_t length;
                char *joined;

                if (!path)
                        continue;
                line[strcspn(line, "\n")] = '\0';
                length = cgroup_service_length(path);
                if (length == 0)
                        return -ENOENT;
                if (asprintf(&joined, "%s%.*s", mount, (int) length, path) < 0)
                        return -ENOMEM;
                *ret_path = joined;
                return 0;
        }

        return ferror(f) ? -EIO : -ENOENT;
}

/* May we move processes into and out of that cgroup? clone3() would tell too late. */
static int check_access(int cgroup_fd) {
        return faccessat(cgroup_fd, "cgroup.procs", W_OK, AT_EACCESS) < 0 ? -errno : 0;
}

static int make_sub(int unit_fd, const char *name, int *ret_fd) {
        _cleanup_close_ int fd = -EBADF;
        int r;

        if (mkdirat(unit_fd, name, 0755) < 0 && errno != EEXIST)
                return -errno;
        fd = openat(unit_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
                return -errno;
        r = check_access(fd);
        if (r < 0)
                return r;

        *ret_fd = TAKE_FD(fd);
        return 0;
}

/* A spoilt one that is empty is made anew. */
static int open_sub(Cgroup *cgroup, const char *name, int *ret_fd) {
        _cleanup_close_ int fd = -EBADF;
        int r;

        r = make_sub(cgroup->unit_fd, name, &fd);
        if (r >= 0)
                r = spawn_probe_cgroup(fd);
        if (r == SPAWN_BIRTH_KILLED && unlinkat(cgroup->unit_fd, name, AT_REMOVEDIR) >= 0) {
                fd = safe_close(fd);
                r = make_sub(cgroup->unit_fd, name, &fd);
                if (r >= 0)
                        r = spawn_probe_cgroup(fd);
        }
        if (r < 0)
                return r;

        cgroup->must_move |= r != SPAWN_BIRTH_FINE;
        *ret_fd = TAKE_FD(fd);
        return 0;
}

int cgroup_open(Cgroup **ret_cgroup) {
        _cleanup_(cgroup_freep) Cgroup *cgroup = NULL;
        _cleanup_free_ char *path = NULL;
        int r;

        assert(ret_cgroup);

        r = unit_path(&path);
        if (r < 0)
                return r;

        cgroup = malloc(sizeof(*cgroup));
        if (!cgroup)
                return -ENOMEM;
        *cgroup = (Cgroup) { .unit_fd = -EBADF, .workers_fd = -EBADF, .guardian_fd = -EBADF };
        cgroup->unit_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (cgroup->unit_fd < 0)
                return -errno;

        /* The unit's own is the common ancestor, which the kernel asks too. */
        r = check_access(cgroup->unit_fd);
        if (r >= 0)
                r = open_sub(cgroup, "workers", &cgroup->workers_fd);
        if (r >= 0)
                r = open_sub(cgroup, "guardian", &cgroup->guardian_fd);
        if (r < 0)
                return r;

        if (asprintf(&cgroup->workers_path, "%s/workers", path) < 0) {
                cgroup->workers_path = NULL; /* undefined otherwise */
                return -ENOMEM;
        }

        *ret_cgroup = TAKE_PTR(cgroup);
        return 0;
}

int cgroup_enter(Cgroup *cgroup) {
        int r;

        assert(cgroup);

        if (!cgroup->must_move)
                return 0;
        r = spawn_move(cgroup->workers_fd, 0);
        cgroup->inside = r >= 0;
        return r;
}

int cgroup_leave(Cgroup *cgroup) {
        int r;

        assert(cgroup);

        if (!cgroup->inside)
                return 0;
        r = spawn_move(cgroup->unit_fd, 0);
        cgroup->inside = r < 0;
        return r;
}

/* Whether r says that the cgroup has been removed. */
static bool is_gone(int r) {
        return r == -ENOENT || r == -ENODEV;
}

/* Reads a file below dir_fd as a string; *ret_text is to be freed. */
static int read_at(int dir_fd, const char *name, char **ret_text) {
        _cleanup_free_ char *text = NULL;
        _cleanup_close_ int fd = -EBADF;
        size_t n = 0, size = 0;
        ssize_t k;

        fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;

        do {
                if (n + 1 >= size) {
                        char *grown = realloc(text, size + READ_SIZE);

                        if (!grown)
                                return -ENOMEM;
                        text = grown;
                        size += READ_SIZE;
                }
                k = read(fd, text + n, size - n - 1);
                if (k < 0)
                        return -errno;
                n += (size_t) k;
        } while (k > 0);

        text[n] = '\0';
        *ret_text = TAKE_PTR(text);
        return 0;
}

static int open_directory(int fd, const char *name, DIR **ret_directory) {
        _cleanup_close_ int dir_fd = -EBADF;
        DIR *d;

        dir_fd = openat(fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (dir_fd < 0)
                return -errno;
        d = fdopendir(dir_fd);
        if (!d)
                return -errno;

        (void) TAKE_FD(dir_fd); /* d's now */
        *ret_directory = d;
        return 0;
}

typedef struct PidList {
        pid_t *pids;
        size_t n, allocated;
        bool partial; /* there may be more */
} PidList;

/* Appends pid with a 0 behind it. */
static int pid_list_add(PidList *list, pid_t pid) {
        if (list->n + 1 >= list->allocated) {
                size_t allocated = MAX_OF(list->allocated * 2, (size_t) LIST_SIZE);
                pid_t *grown = realloc(list->pids, allocated * sizeof(pid_t));

                if (!grown)
                        return -ENOMEM;
                list->pids = grown;
                list->allocated = allocated;
        }
        list->pids[list->n++] = pid;
        list->pids[list->n] = 0;
        return 0;
}

/* Adds those in cgroup.procs of dir_fd itself. */
static int list_own(int dir_fd, PidList *list) {
        _cleanup_free_ char *text = NULL;
        int r;

        r = read_at(dir_fd, "cgroup.procs", &text);
        if (r < 0)
                return r;

        for (char *p = text, *end;; p = end) {
                long pid = strtol(p, &end, 10);

                if (end == p)
                        return 0;
                if (pid <= 0 || pid == getpid()) /* not in our PID namespace; see cgroup_enter() */
                        continue;
                r = pid_list_add(list, (pid_t) pid);
                if (r < 0)
                        return r;
        }
}

/* Whether r is our own lack of something and not about one sub-cgroup. */
static bool is_shortage(int r) {
        return r == -ENOMEM || r == -EMFILE || r == -ENFILE;
}

static int list_below(int fd, const char *name, unsigned depth, PidList *list) {
        _cleanup_(close_directory) DIR *d = NULL;
        struct dirent *de;
        int r;

        r = open_directory(fd, name, &d);
        if (r >= 0)
                r = list_own(dirfd(d), list);
        if (r < 0)
                return r;

        while ((de = readdir(d))) {
                if (de->d_type != DT_DIR || de->d_name[0] == '.')
                        continue;
                r = depth < DEPTH_MAX ? list_below(dirfd(d), de->d_name, depth + 1, list) : -ELOOP;
                if (r < 0 && is_shortage(r))
                        return r;
                if (r < 0 && !is_gone(r))
                        list->partial = true;
        }
        return 0;
}

static int compare_pids(const void *a, const void *b) {
        pid_t x = *(const pid_t *) a, y = *(const pid_t *) b;

        return (x > y) - (x < y);
}

static int list_all(int cgroup_fd, pid_t **ret_pids, size_t *ret_n_pids, bool *ret_partial) {
        _cleanup_free_ pid_t *pids = NULL;
        PidList list = {};
        size_t n = 0;
        int r;

        r = list_below(cgroup_fd, ".", 0, &list);
        pids = list.pids;
        if (r < 0 && !is_gone(r))
                return r;

        if (!pids && !(pids = calloc(1, sizeof(pid_t))))
                return -ENOMEM;

        /* A process that moves while we read may be seen twice. */
        qsort(pids, list.n, sizeof(pid_t), compare_pids);
        for (size_t i = 0; i < list.n; i++)
                if (n == 0 || pids[i] != pids[n - 1])
                        pids[n++] = pids[i];
        pids[n] = 0;

        *ret_pids = TAKE_PTR(pids);
        *ret_n_pids = n;
        *ret_partial = list.partial;
        return 0;
}

int cgroup_list(int cgroup_fd, pid_t **ret_pids, size_t *ret_n_pids) {
        bool partial;

        assert(cgroup_fd >= 0);
        assert(ret_pids);
        assert(ret_n_pids);

        return list_all(cgroup_fd, ret_pids, ret_n_pids, &partial);
}

int cgroup_is_populated(int cgroup_fd) {
        _cleanup_free_ char *text = NULL;
        int r;

        assert(cgroup_fd >= 0);

        r = read_at(cgroup_fd, "cgroup.events", &text);
        if (r < 0)
                return is_gone(r) ? 0 : r;
        return strstr(text, "populated 1") != NULL;
}

void pid_set_clear(PidSet *set) {
        free(set->pids);
        *set = (PidSet) {};
}

static bool pids_contain(const pid_t *pids, size_t n_pids, pid_t pid) {
        return n_pids > 0 && bsearch(&pid, pids, n_pids, sizeof(pid_t), compare_pids);
}

/* Signals at most BATCH_MAX processes; pids of those that got it are collected at the front. A pid that
 * is in the cgroup while we hold a pidfd for it belongs either to that process or, if it has ended, to a
 * new one in the cgroup, and then the signal goes nowhere. */
static int signal_batch(int cgroup_fd, int signo, pid_t *pids, size_t n_pids) {
        _cleanup_free_ pid_t *members = NULL;
        int pidfds[BATCH_MAX], n_done = 0, r;
        size_t n_members = 0;

        assert(n_pids <= BATCH_MAX);

        for (size_t i = 0; i < n_pids; i++)
                pidfds[i] = (int) syscall(SYS_pidfd_open, pids[i], 0);

        r = cgroup_list(cgroup_fd, &members, &n_members);

        for (size_t i = 0; i < n_pids; i++) {
                _cleanup_close_ int pidfd = pidfds[i];

                if (r < 0 || pidfd < 0 || !pids_contain(members, n_members, pids[i]) ||
                    syscall(SYS_pidfd_send_signal, pidfd, signo, NULL, 0) < 0)
                        continue;
                (void) syscall(SYS_pidfd_send_signal, pidfd, SIGCONT, NULL, 0);
                pids[n_done++] = pids[i];
        }

        return r < 0 ? r : n_done;
}

/* Makes room for n_pids more: afterwards nothing can fail between a signal and its record. */
static int pid_set_reserve(PidSet *set, size_t n_pids) {
        pid_t *grown;

        grown = realloc(set->pids, (set->n_pids + n_pids + 1) * sizeof(pid_t));
        if (!grown)
                return -ENOMEM;
        set->pids = grown;
        return 0;
}

int cgroup_signal(int cgroup_fd, int signo, PidSet *done) {
        _cleanup_free_ pid_t *pids = NULL;
        size_t n_pids, n_new = 0;
        int n_signalled = 0, r;

        assert(cgroup_fd >= 0);
        assert(done);

        r = cgroup_list(cgroup_fd, &pids, &n_pids);
        if (r < 0)
                return r;
        for (size_t i = 0; i < n_pids; i++)
                if (!pids_contain(done->pids, done->n_pids, pids[i]))
                        pids[n_new++] = pids[i];

        r = pid_set_reserve(done, n_new);
        for (size_t i = 0; r >= 0 && i < n_new; i += BATCH_MAX) {
                r = signal_batch(cgroup_fd, signo, pids + i, MIN_OF(n_new - i, (size_t) BATCH_MAX));
                if (r <= 0)
                        continue;
                memcpy(done->pids + done->n_pids, pids + i, (size_t) r * sizeof(pid_t));
                done->n_pids += (size_t) r;
                n_signalled += r;
        }
        if (done->n_pids > 0)
                qsort(done->pids, done->n_pids, sizeof(pid_t), compare_pids);

        return r < 0 ? r : n_signalled;
}

/* SIGKILL one by one: 1 if everybody has had it, 0 if not. A process that has can fork no more, so a list
 * without new ones is complete. */
static int kill_each(int cgroup_fd) {
        _cleanup_(pid_set_clear) PidSet done = {};
        _cleanup_free_ pid_t *pids = NULL;
        bool partial;
        size_t n;
        int r = 1;

        for (unsigned i = 0; r > 0 && i < ROUNDS_MAX; i++)
                r = cgroup_signal(cgroup_fd, SIGKILL, &done);
        if (r >= 0)
                r = list_all(cgroup_fd, &pids, &n, &partial);
        if (r < 0)
                return r;

        for (size_t i = 0; i < n; i++)
                if (!pids_contain(done.pids, done.n_pids, pids[i]))
                        return 0;
        return !partial;
}

int cgroup_kill(int cgroup_fd) {
        _cleanup_close_ int fd = -EBADF;
        int r;

        assert(cgroup_fd >= 0);

        r = kill_each(cgroup_fd);
        if (r > 0)
                return 0;

        /* Not even a list could be made? The kernel needs none. */
        fd = openat(cgroup_fd, "cgroup.kill", O_WRONLY | O_CLOEXEC);
        if (fd >= 0)
                r = write(fd, "1", 1) < 0 ? -errno : 0;
        else if (errno != ENOENT) /* an old kernel, or it is gone */
                r = -errno;

        return is_gone(r) ? 0 : r;
}
