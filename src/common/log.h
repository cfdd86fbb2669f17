/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One line at a time: to the journal with its fields if our stderr goes there, else to stderr as plain
 * text. */

#include <stdarg.h>
#include <syslog.h>

#include "util.h"

/* Lines of a lower priority (a higher number) are dropped. Initially LOG_INFO. The only mutable global of
 * the program. */
void log_set_max_level(int level);

/* Writes one line. message_id: 32 hex digits, or NULL. fields: an array of "KEY=value" closed by NULL, or
 * NULL; borrowed. format has no newline; %m is errno as it was at the call. Keeps errno. Truncates at 2
 * KiB. */
void _printf_(4, 5) log_write(int priority, const char *message_id, const char *const *fields,
                              const char *format, ...);

void _printf_(4, 0) log_writev(int priority, const char *message_id, const char *const *fields,
                               const char *format, va_list ap);

#define log_debug(...) log_write(LOG_DEBUG, NULL, NULL, __VA_ARGS__)
#define log_info(...) log_write(LOG_INFO, NULL, NULL, __VA_ARGS__)
#define log_notice(...) log_write(LOG_NOTICE, NULL, NULL, __VA_ARGS__)
#define log_warning(...) log_write(LOG_WARNING, NULL, NULL, __VA_ARGS__)
#define log_error(...) log_write(LOG_ERR, NULL, NULL, __VA_ARGS__)

/* Whether our stderr is a journal stream, as $JOURNAL_STREAM says (systemd.exec(5)). */
bool log_goes_to_journal(void);

/* Waits until journald has looked at what we have written, half a second at most: of a process that has
 * ended before that it cannot tell the unit. For the moment before an exit that somebody will ask about. */
void log_settle(void);

/* Opens a journal stream of its own for a child's stdout and stderr, sd_journal_stream_fd(3): lines at
 * LOG_INFO unless they begin with "<N>". FD_CLOEXEC is set. Returns the descriptor, -ENOTCONN if our
 * stderr does not go to the journal, or another negative errno. */
int log_open_stream(const char *identifier);
