/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Processes that others reap.
 *
 * waitid(P_PIDFD) of a process that is not our child is ECHILD, but since Linux 6.15 the kernel keeps the
 * exit status with the pidfd and tells it after the process has been reaped, as long as the pidfd was open
 * by then. The ioctl is as old as 6.13; it ignores bits it does not know and says in the mask what it has
 * filled in, so a missing bit means "not yet" on a new kernel and "never" on an older one, where the end of
 * the process is then ESRCH. The structure grows, its first 64 bytes are for ever, and they are all we ask
 * for.
 *
 * Files in /proc are read with as few system calls as possible, since a thousand workers may be asked
 * about at once. A process can vanish between open(2) and read(2): ENOENT and ESRCH are the same. */

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include "pidfd.h"
#include "proc.h"

/* linux/pidfd.h of 6.15. Our own names, since the header may be older, newer or of another opinion. */
typedef struct PidfdInfo {
        uint64_t mask;
        uint64_t cgroup_id;
        uint32_t pid, tgid, ppid;
        uint32_t credentials[8];
        int32_t exit_code; /* as wait(2) gives it */
} PidfdInfo;

static_assert(sizeof(PidfdInfo) == 64, "PIDFD_INFO_SIZE_VER0");

#define GET_INFO _IOWR(0xFF, 11, PidfdInfo)
#define INFO_EXIT (UINT64_C(1) << 3)

#define STAT_MAX 2048U
#define ENVIRON_MAX ((size_t) 1024 * 1024)

int pidfd_get_death(int pidfd, Death *ret_death) {
        PidfdInfo info = { .mask = INFO_EXIT };
        int status;

        assert(pidfd >= 0);
        assert(ret_death);

        if (ioctl(pidfd, GET_INFO, &info) < 0)
                switch (errno) {
                case ENOTTY:
                case EINVAL:
                case ENOSYS:
                case EPERM:
                case EACCES:
                case ESRCH:
                case EREMOTE:
                        return -EOPNOTSUPP;
                default:
                        return -errno;
                }
        if ((info.mask & INFO_EXIT) == 0)
                return -EAGAIN;

        status = info.exit_code;
        if (WIFEXITED(status))
                *ret_death = (Death) { .known = true, .code = CLD_EXITED, .status = WEXITSTATUS(status) };
        else if (WIFSIGNALED(status))
                *ret_death = (Death) {
                        .known = true,
                        .code = WCOREDUMP(status) ? CLD_DUMPED : CLD_KILLED,
                        .status = WTERMSIG(status),
                };
        else
                return -EOPNOTSUPP;
        return 0;
}

/* Reads at most size bytes, in one call where the file allows. Returns their number. */
static ssize_t read_up_to(int fd, char *buffer, size_t size) {
        ssize_t n;

        do
                n = read(fd, buffer, size);
        while (n < 0 && errno == EINTR);
        return n < 0 ? -errno : n;
}

/* Reads the beginning of a file in /proc as a string. Returns its length. */
static ssize_t read_proc(const char *path, char *buffer, size_t size) {
        _cleanup_close_ int fd = -EBADF;
        ssize_t n;

        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
        if (fd < 0)
                return errno == ENOENT ? -ESRCH : -errno;
        n = read_up_to(fd, buffer, size - 1);
        if (n >= 0)
                buffer[n] = '\0';
        return n;
}

int pidfd_get_pid(int pidfd, pid_t *ret_pid) {
        char path[64], text[STAT_MAX], *p, *end;
        ssize_t n;
        long pid;

        assert(pidfd >= 0);
        assert(ret_pid);

        (void) snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
        n = read_proc(path, text, sizeof(text));
        if (n < 0)
                return n == -ESRCH ? -EBADF : (int) n;

        p = strstr(text, "\nPid:");
        if (!p)
                return -EBADF;
        p += strlen("\nPid:");
        errno = 0;
        pid = strtol(p, &end, 10);
        if (end == p || *end != '\n' || errno != 0 || pid < -1 || pid > INT32_MAX)
                return -EBADF;
        if (pid <= 0)
                return pid < 0 ? -ESRCH : -EREMOTE;
        *ret_pid = (pid_t) pid;
        return 0;
}

/* The numbers of fields 4 to 22 of stat, the text beginning with field 3. */
static int parse_stat(const char *text, uint64_t fields[static 23]) {
        const char *p = text + 1;
        char *end;

        for (unsigned i = 4; i <= 22; i++) {
                if (*p != ' ')
                        return -EBADMSG;
                errno = 0;
                /* Some are negative: of those we want none. */
                fields[i] = strtoull(p, &end, 10);
                if (end == p || errno != 0)
                        return -EBADMSG;
                p = end;
        }
        return 0;
}

int process_get_start_time(pid_t pid, uint64_t *ret_start_time, pid_t *ret_parent, bool *ret_zombie) {
        char path[64], text[STAT_MAX];
        uint64_t fields[23];
        const char *p;
        ssize_t n;
        int r;

        assert(pid > 0);
        assert(ret_start_time);

        (void) snprintf(path, sizeof(path), "/proc/%d/stat", (int) pid);
        n = read_proc(path, text, sizeof(text));
        if (n < 0)
                return (int) n;

        /* The name, field 2, may contain anything, but nothing behind it contains a parenthesis. */
        p = memrchr(text, ')', (size_t) n);
        if (!p || p[1] != ' ' || p[2] == '\0')
                return -EBADMSG;
        p += 2;
        r = parse_stat(p, fields);
        if (r < 0)
                return r;

        *ret_start_time = fields[22];
        if (ret_parent)
                *ret_parent = (pid_t) fields[4];
        /* A main thread that has ended before the others is a "Z" too: field 20 counts the threads. */
        if (ret_zombie)
                *ret_zombie = *p == 'X' || (*p == 'Z' && fields[20] <= 1);
        return 0;
}

/* Reads the environment, at most ENVIRON_MAX of it, and ends it with a zero byte; *ret_text is to be
 * freed. */
static int read_environ(pid_t pid, char **ret_text, size_t *ret_size) {
        _cleanup_close_ int fd = -EBADF;
        _cleanup_free_ char *text = NULL;
        size_t size = 0, allocated = 0;
        char path[64], *grown;
        ssize_t n;

        (void) snprintf(path, sizeof(path), "/proc/%d/environ", (int) pid);
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
        if (fd < 0)
                return errno == ENOENT ? -ESRCH : -errno;

        do {
                if (size == allocated) {
                        allocated = MAX_OF(allocated * 4, (size_t) 16 * 1024);
                        grown = realloc(text, allocated + 1);
                        if (!grown)
                                return -ENOMEM;
                        text = grown;
                }
                n = read_up_to(fd, text + size, allocated - size);
                if (n < 0)
                        return (int) n;
                size += (size_t) n;
        } while (n > 0 && size < ENVIRON_MAX);

        text[size] = '\0';
        *ret_text = TAKE_PTR(text);
        *ret_size = size;
        return 0;
}

/* Digits only; strtoull(3) would take signs and white space. */
static int parse_number(const char *s, uint64_t max, uint64_t *ret_value) {
        uint64_t value = 0;

        if (*s == '\0')
                return -ENXIO;
        for (; *s; s++) {
                uint64_t digit = (uint64_t) (*s - '0');

                if (*s < '0' || *s > '9' || digit > max || value > (max - digit) / 10)
                        return -ENXIO;
                value = value * 10 + digit;
        }
        *ret_value = value;
        return 0;
}

int process_get_environment_number(pid_t pid, const char *name, uint64_t max, uint64_t *ret_value) {
        _cleanup_free_ char *text = NULL;
        const char *value;
        size_t size = 0;
        int r;

        assert(pid > 0);
        assert(name);
        assert(ret_value);

        r = read_environ(pid, &text, &size);
        if (r < 0)
                return r;
        if (size == 0)
                return -ENXIO;

        for (const char *p = text; p < text + size; p += strlen(p) + 1) {
                value = startswith(p, name);
                if (!value || *value != '=')
                        continue;
                /* Cut off by the bound: a part of a number is another number. */
                if (p + strlen(p) == text + size)
                        return -ENXIO;
                return parse_number(value + 1, max, ret_value);
        }
        return -ENXIO;
}

int process_get_memory(pid_t pid, uint64_t *ret_bytes) {
        char path[48], text[1024];
        const char *p;
        int r;

        assert(pid > 0);
        assert(ret_bytes);

        (void) snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
        r = proc_read_file(path, text, sizeof(text));
        if (r < 0)
                return r == -ENOENT ? -ESRCH : r;
        p = strstr(text, "\nPss:");
        if (!p)
                return -ESRCH; /* a zombie has no memory */
        *ret_bytes = strtoull(p + strlen("\nPss:"), NULL, 10) * 1024;
        return 0;
}
