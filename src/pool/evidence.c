/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A hang is explained by where its threads are, and that must be looked at before the signal that ends
 * them. All of it is a hint for people: names of kernel functions change, nothing here is decided by them.
 *
 * Only such files are read as do not wait for the process: cmdline, environ and maps take the lock of its
 * address space, which a thread in a page fault on a dead disk holds.
 *
 * Neither the C library nor libsystemd tells the name of a system call. The table has those in which
 * programs hang, since what their first argument is must be known anyway; the others have a number. That of
 * a 32-bit program under a 64-bit kernel means something else here, and gets the wrong name.
 *
 * Wrappers wait for their children and idle threads for work; the one to look at is the one that does
 * neither. */

#include "evidence.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/syscall.h>

#include <systemd/sd-id128.h>
#include <systemd/sd-journal.h>

#include "clock.h"
#include "proc.h"
#include "text.h"
#include "waits.h"

#define LINE_MAX_SIZE 256U            /* more than add_line() ever adds */

/* How well a thread without work explains itself by that call. */
typedef enum Idleness {
        IDLENESS_NONE,
        IDLENESS_POSSIBLE,
        IDLENESS_LIKELY,
} Idleness;

typedef struct Call {
        long number;
        const char *name;
        unsigned n_arguments;
        bool has_fd; /* the first argument is a descriptor */
        Idleness idleness;
} Call;

typedef struct Thread {
        Wait wait;
        char name[16];                /* TASK_COMM_LEN */
        char state;                   /* as in ps(1) */
        uint64_t cpu_usec;
        unsigned n_threads;           /* of its process */
        const Call *call;             /* NULL: not in the table */
        char link[64];                /* what the descriptor of the call is */
        char wchan[64];
} Thread;

/* A string that grows in a buffer and is cut at its end. */
typedef struct Text {
        char *buffer;
        size_t size, length;
} Text;

/* Not every architecture has every call. */
static const Call calls[] = {
#define CALL(name, ...) { __NR_##name, #name, __VA_ARGS__ }
        CALL(read, 3, true),
        CALL(write, 3, true),
        CALL(readv, 3, true),
        CALL(writev, 3, true),
        CALL(pread64, 4, true),
        CALL(pwrite64, 4, true),
        CALL(recvfrom, 6, true),
        CALL(recvmsg, 3, true),
        CALL(sendto, 6, true),
        CALL(sendmsg, 3, true),
        CALL(connect, 3, true),
        CALL(accept, 3, true, IDLENESS_LIKELY),
        CALL(accept4, 4, true, IDLENESS_LIKELY),
        CALL(fsync, 1, true),
        CALL(fdatasync, 1, true),
        CALL(flock, 2, true),
        CALL(fcntl, 3, true),
        CALL(ioctl, 3, true),
        CALL(close, 1, true),
        CALL(openat, 4),
#ifdef __NR_nanosleep
        CALL(nanosleep, 2),
#endif
        CALL(clock_nanosleep, 4),
#ifdef __NR_pause
        CALL(pause, 0),
#endif
        CALL(rt_sigsuspend, 2),
        CALL(restart_syscall, 0, false, IDLENESS_POSSIBLE),
        CALL(futex, 6, false, IDLENESS_POSSIBLE),
#ifdef __NR_poll
        CALL(poll, 3, false, IDLENESS_POSSIBLE),
#endif
        CALL(ppoll, 5, false, IDLENESS_POSSIBLE),
#ifdef __NR_select
        CALL(select, 5, false, IDLENESS_POSSIBLE),
#endif
        CALL(pselect6, 6, false, IDLENESS_POSSIBLE),
#ifdef __NR_epoll_wait
        CALL(epoll_wait, 4, true, IDLENESS_POSSIBLE),
#endif
        CALL(epoll_pwait, 6, true, IDLENESS_POSSIBLE),
        CALL(wait4, 4, false, IDLENESS_LIKELY),
        CALL(waitid, 5, false, IDLENESS_LIKELY),
#undef CALL
};

static void _printf_(2, 3) text_add(Text *text, const char *format, ...) {
        va_list ap;
        int n;

        va_start(ap, format);
        n = vsnprintf(text->buffer + text->length, text->size - text->length, format, ap);
        va_end(ap);
        text->length = MIN_OF(text->length + (size_t) MAX_OF(n, 0), text->size - 1);
}

static int thread_read_stat(Thread *thread) {
        uint64_t user_ticks, kernel_ticks;
        char path[64], text[1024], *name, *end;
        int r;

        (void) snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", thread->wait.pid, thread->wait.tid);
        r = proc_read_file(path, text, sizeof(text));
        if (r < 0)
                return r;

        /* The name may contain anything, but nothing behind it contains a parenthesis. */
        name = strchr(text, '(');
        end = strrchr(text, ')');
        if (!name || !end)
                return -EBADMSG;
        *end = '\0';
        /* Fields 3, 14, 15 and 20. */
        if (sscanf(end + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64
                            " %*d %*d %*d %*d %u",
                   &thread->state, &user_ticks, &kernel_ticks, &thread->n_threads) != 4)
                return -EBADMSG;
        thread->cpu_usec = (user_ticks + kernel_ticks) * USEC_PER_SEC / (uint64_t) sysconf(_SC_CLK_TCK);
        (void) snprintf(thread->name, sizeof(thread->name), "%s", name + 1);
        text_make_ascii(thread->name); /* any bytes, which the journal would show as "blob data" */
        return 0;
}

static void thread_read_link(Thread *thread) {
        char path[80];
        ssize_t n;

        (void) snprintf(path, sizeof(path), "/proc/%d/task/%d/fd/%d", thread->wait.pid, thread->wait.tid,
                        (int) thread->wait.arguments[0]);
        n = readlink(path, thread->link, sizeof(thread->link) - 1);
        thread->link[MAX_OF(n, 0)] = '\0';
        text_make_ascii(thread->link);
}

static void thread_read_call(Thread *thread) {
        if (wait_read(thread->wait.pid, thread->wait.tid, &thread->wait) < 0)
                return;
        for (size_t i = 0; i < ELEMENTSOF(calls) && !thread->call; i++)
                if (calls[i].number == thread->wait.call)
                        thread->call = calls + i;
        if (thread->call && thread->call->has_fd)
                thread_read_link(thread);
}

/* Looks once; negative errno if there is no such thread or it is hidden from us. */
static int thread_look(pid_t pid, pid_t tid, Thread *ret) {
        Thread thread = { .wait = { .pid = pid, .tid = tid, .call = -1 } };
        char path[64];
        int r;

        r = thread_read_stat(&thread);
        if (r < 0)
                return r;
        thread_read_call(&thread);

        (void) snprintf(path, sizeof(path), "/proc/%d/task/%d/wchan", pid, tid);
        /* "0" is none, and what we get where we may not ask. */
        if (proc_read_file(path, thread.wchan, sizeof(thread.wchan)) < 0 || streq(thread.wchan, "0"))
                thread.wchan[0] = '\0';
        text_make_ascii(thread.wchan);
        *ret = thread;
        return 0;
}

static Idleness thread_idleness(const Thread *thread) {
        return thread->call ? thread->call->idleness : IDLENESS_NONE;
}

static void add_state(Text *text, const Thread *thread) {
        switch (thread->state) {
        case 'R':
                text_add(text, "running");
                break;
        case 'S':
                text_add(text, "asleep");
                break;
        case 'D':
                text_add(text, "asleep uninterruptibly");
                break;
        case 'T':
                text_add(text, "stopped");
                break;
        case 't':
                text_add(text, "traced");
                break;
        case 'Z':
        case 'X':
                text_add(text, "ended");
                break;
        default:
                text_add(text, "in state %c", thread->state);
        }
}

static void add_phrase(Text *text, const Thread *thread) {
        char span[64];

        add_state(text, thread);
        if (thread->call)
                text_add(text, " in %s", thread->call->name);
        else if (thread->wait.call >= 0)
                text_add(text, " in system call %ld", thread->wait.call);
        if (thread->link[0] != '\0')
                text_add(text, " on fd %d (%s)", (int) thread->wait.arguments[0], thread->link);
        if (thread->wchan[0] != '\0')
                text_add(text, ", wchan %s", thread->wchan);
        text_add(text, ", CPU time %s", clock_format_span(span, sizeof(span), thread->cpu_usec));
}

static void add_line(Text *text, const Thread *thread) {
        text_add(text, "%s", text->length > 0 ? "\n" : "");
        if (thread->wait.tid == thread->wait.pid)
                text_add(text, "pid %d", thread->wait.pid);
        else
                text_add(text, "  tid %d", thread->wait.tid);
        text_add(text, " %s %c: ", thread->name, thread->state);
        add_phrase(text, thread);
}

static void add_call(Text *text, const Thread *thread) {
        size_t n = thread->call ? thread->call->n_arguments : ELEMENTSOF(thread->wait.arguments), i = 0;

        if (thread->wait.call < 0)
                return;
        if (thread->call)
                text_add(text, "%s(", thread->call->name);
        else
                text_add(text, "system call %ld(", thread->wait.call);
        if (thread->link[0] != '\0') {
                text_add(text, "%d<%s>", (int) thread->wait.arguments[0], thread->link);
                i++;
        }
        for (; i < n; i++)
                text_add(text, "%s0x%" PRIx64, i > 0 ? ", " : "", thread->wait.arguments[i]);
        text_add(text, ")");
}

/* Ends behind the last complete frame. */
static void read_stack(const Thread *thread, char *buffer, size_t size) {
        char path[64], *end;

        (void) snprintf(path, sizeof(path), "/proc/%d/task/%d/stack", thread->wait.pid, thread->wait.tid);
        if (proc_read_file(path, buffer, size) < 0)
                buffer[0] = '\0';
        end = strrchr(buffer, '\n');
        *(end ?: buffer) = '\0';
}

typedef struct Look {
        Text lines;
        size_t n_threads, n_left_out; /* listed, and not */
        Thread suspect;               /* pid 0: none yet */
} Look;

static void look_add(Look *look, const Thread *thread) {
        if (look->suspect.wait.pid == 0 || thread_idleness(thread) < thread_idleness(&look->suspect))
                look->suspect = *thread;
        add_line(&look->lines, thread);
        look->n_threads++;
}

static bool look_has_room(const Look *look) {
        return look->n_threads < EVIDENCE_THREADS_MAX &&
                look->lines.size - look->lines.length > LINE_MAX_SIZE;
}

static void look_at_process(Look *look, pid_t pid) {
        _cleanup_(number_dir_done) NumberDir dir = { .fd = -EBADF };
        size_t n_before = look->n_threads, n_listed;
        Thread thread = {};
        char path[32];
        int tid;

        (void) snprintf(path, sizeof(path), "/proc/%d/task", pid);
        if (thread_look(pid, pid, &thread) < 0 || number_dir_open(&dir, path) < 0)
                return;
        while (look_has_room(look) && number_dir_next(&dir, &tid) > 0)
                if (thread_look(pid, tid, &thread) >= 0)
                        look_add(look, &thread);
        n_listed = look->n_threads - n_before;
        look->n_left_out += MAX_OF(thread.n_threads, n_listed) - n_listed;
}

void evidence_collect(const pid_t *pids, size_t n_pids, Evidence *ret) {
        Evidence evidence = {};
        Look look = { .lines = { .buffer = evidence.threads, .size = sizeof(evidence.threads) } };
        Text summary = { .buffer = evidence.summary, .size = sizeof(evidence.summary) };
        Text call = { .buffer = evidence.syscall, .size = sizeof(evidence.syscall) };

        assert(pids || n_pids == 0);
        assert(ret);

        for (size_t i = 0; i < n_pids && i < EVIDENCE_PROCESSES_MAX; i++)
                look_at_process(&look, pids[i]);
        if (look.n_left_out > 0)
                text_add(&look.lines, "\nand %zu more threads", look.n_left_out);
        if (n_pids > EVIDENCE_PROCESSES_MAX)
                text_add(&look.lines, "\nand %zu more processes", n_pids - EVIDENCE_PROCESSES_MAX);

        if (look.suspect.wait.pid == 0)
                text_add(&summary, "gone, or hidden from us");
        else {
                add_phrase(&summary, &look.suspect);
                add_call(&call, &look.suspect);
                (void) snprintf(evidence.wchan, sizeof(evidence.wchan), "%s", look.suspect.wchan);
                read_stack(&look.suspect, evidence.stack, sizeof(evidence.stack));
        }
        *ret = evidence;
}

static void journal_closep(sd_journal **journal) {
        sd_journal_close(*journal);
}

/* The one in /run is there only while it is the one written to. */
static int journal_open_current(sd_journal **ret) {
        static const char *const directories[] = { "/run/log/journal", "/var/log/journal" };
        sd_id128_t machine;
        char path[128];
        int r;

        r = sd_id128_get_machine(&machine);
        if (r < 0)
                return r;
        r = -ENOENT;
        for (size_t i = 0; i < ELEMENTSOF(directories) && r == -ENOENT; i++) {
                (void) snprintf(path, sizeof(path), "%s/" SD_ID128_FORMAT_STR "/system.journal",
                                directories[i], SD_ID128_FORMAT_VAL(machine));
                r = sd_journal_open_files(ret, (const char *[]) { path, NULL }, 0);
        }
        return r;
}

/* That of the last entry there is. ProcSubset=pid hides what sd_id128_get_boot(3) reads. */
static int journal_get_boot(sd_journal *journal, sd_id128_t *ret) {
        uint64_t usec;
        int r;

        r = sd_journal_seek_tail(journal);
        if (r >= 0)
                r = sd_journal_previous(journal);
        if (r <= 0)
                return r < 0 ? r : -ENODATA;
        return sd_journal_get_monotonic_usec(journal, &usec, ret);
}

/* Goes to the first of the last entries of a process; returns how many there are. */
static int journal_seek_last(sd_journal *journal, pid_t pid) {
        char match[32];
        int r;

        (void) snprintf(match, sizeof(match), "_PID=%d", pid);
        r = sd_journal_add_match(journal, match, 0);
        if (r >= 0)
                r = sd_journal_seek_tail(journal);
        return r < 0 ? r : sd_journal_previous_skip(journal, EVIDENCE_LINES_MAX);
}

static bool entry_is_since(sd_journal *journal, sd_id128_t boot, uint64_t since_usec) {
        sd_id128_t entry_boot;
        uint64_t usec;

        return sd_journal_get_monotonic_usec(journal, &usec, &entry_boot) >= 0 &&
                sd_id128_equal(entry_boot, boot) && usec >= since_usec;
}

/* Cuts between characters. */
static void add_output(Text *text, const char *line, size_t length, size_t max) {
        size_t begin, n = MIN_OF(length, max);

        while (n < length && n > 0 && (line[n] & 0xc0) == 0x80)
                n--;
        text_add(text, "%s", text->length > 0 ? "\n" : "");
        begin = text->length;
        text_add(text, "%.*s", (int) n, line);
        for (char *p = text->buffer + begin; *p; p++)
                if ((unsigned char) *p < ' ' || *p == '\x7f')
                        *p = ' ';
}

int evidence_read_output(pid_t pid, uint64_t since_usec, char *buffer, size_t size) {
        _cleanup_(journal_closep) sd_journal *journal = NULL;
        const size_t prefix = strlen("MESSAGE="), line_max = size / EVIDENCE_LINES_MAX - 1;
        Text text = { .buffer = buffer, .size = size };
        int r, n_entries = 0, n = 0;
        sd_id128_t boot;
        const void *data;
        size_t length;

        assert(pid > 0);
        assert(buffer);
        assert(size > EVIDENCE_LINES_MAX);

        r = journal_open_current(&journal);
        if (r >= 0)
                r = journal_get_boot(journal, &boot);
        if (r >= 0)
                r = n_entries = journal_seek_last(journal, pid);
        if (r < 0)
                return r;

        for (int i = 0; i < n_entries; i++) {
                if (i > 0 && sd_journal_next(journal) <= 0)
                        break;
                if (!entry_is_since(journal, boot, since_usec) ||
                    sd_journal_get_data(journal, "MESSAGE", &data, &length) < 0 || length < prefix)
                        continue;
                add_output(&text, (const char *) data + prefix, length - prefix, line_max);
                n++;
        }
        return n > 0 ? n : -ENODATA;
}
