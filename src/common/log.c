/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Logging.
 *
 * Under systemd stderr is a stream to the journal, and then each line goes to it as one datagram with its
 * fields (sd_journal_sendv(3)). Everywhere else - a terminal, StandardError=file: - the text alone is
 * written to stderr with one write(2). Which of the two holds is asked of the kernel each time, because
 * lines are rare and a cached answer would be one more global. */

#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#include "fd-util.h"
#include "log.h"

#define LINE_SIZE 2048U
#define FIELDS_MAX 24U
#define SETTLE_MSEC 500

static int max_level = LOG_INFO;

void log_set_max_level(int level) {
        max_level = level;
}

bool log_goes_to_journal(void) {
        unsigned long long device, inode;
        const char *stream;
        struct stat st;

        stream = getenv("JOURNAL_STREAM");
        if (!stream || sscanf(stream, "%llu:%llu", &device, &inode) != 2)
                return false;
        if (fstat(STDERR_FILENO, &st) < 0)
                return false;
        return st.st_dev == (dev_t) device && st.st_ino == (ino_t) inode;
}

static struct iovec iovec_of(char *s) {
        return (struct iovec) { .iov_base = s, .iov_len = strlen(s) };
}

static void write_journal(int priority, const char *message_id, const char *const *fields, char *message) {
        char priority_field[sizeof("PRIORITY=0")], id_field[sizeof("MESSAGE_ID=") + 32];
        struct iovec iov[FIELDS_MAX + 3];
        int n = 0;

        (void) snprintf(priority_field, sizeof(priority_field), "PRIORITY=%d", priority);
        iov[n++] = iovec_of(message);
        iov[n++] = iovec_of(priority_field);
        if (message_id) {
                (void) snprintf(id_field, sizeof(id_field), "MESSAGE_ID=%.32s", message_id);
                iov[n++] = iovec_of(id_field);
        }
        for (size_t i = 0; fields && fields[i]; i++) {
                assert(i < FIELDS_MAX);
                iov[n++] = iovec_of((char *) fields[i]);
        }
        (void) sd_journal_sendv(iov, n);
}

void log_writev(int priority, const char *message_id, const char *const *fields, const char *format,
                va_list ap) {
        char line[sizeof("MESSAGE=") - 1 + LINE_SIZE + 1] = "MESSAGE=";
        char *text = line + sizeof("MESSAGE=") - 1;
        int saved_errno = errno;
        size_t length;

        if (priority > max_level)
                return;

        (void) vsnprintf(text, LINE_SIZE, format, ap);

        if (log_goes_to_journal())
                write_journal(priority, message_id, fields, line);
        else {
                length = strlen(text);
                text[length++] = '\n';
                if (write(STDERR_FILENO, text, length) < 0)
                        errno = saved_errno; /* There is nobody left to tell. */
        }
        errno = saved_errno;
}

void log_write(int priority, const char *message_id, const char *const *fields, const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        log_writev(priority, message_id, fields, format, ap);
        va_end(ap);
}

int log_open_stream(const char *identifier) {
        if (!log_goes_to_journal())
                return -ENOTCONN;
        return sd_journal_stream_fd(identifier, LOG_INFO, true);
}

void log_settle(void) {
        _cleanup_close_ int fd = -EBADF;
        struct pollfd pfd = {};

        /* A stream opened after our last line is closed by journald after it has read that line. */
        fd = log_open_stream("fcgi-pool");
        if (fd < 0 || shutdown(fd, SHUT_WR) < 0)
                return;
        pfd.fd = fd;
        (void) poll(&pfd, 1, SETTLE_MSEC);
}
