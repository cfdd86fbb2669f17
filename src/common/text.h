/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What others have written, made fit for a terminal, for D-Bus and for the journal. */

#include "util.h"

/* How many bytes the UTF-8 character at data takes, of size > 0 there are; 0 if it is none (RFC 3629). */
size_t text_character_size(const char *data, size_t size);

/* How many bytes to go on by: those of a character, or 1. *ret_harmless: it is one, and no control character
 * (of C0, C1 or DEL), which a terminal might obey. */
size_t text_next(const char *data, size_t size, bool *ret_harmless);

/* Writes '?' over each byte of what is not harmless; s stays as long as it is. */
void text_make_harmless(char *s);

/* Writes '?' over all but printable ASCII, so that the text may be cut anywhere. */
void text_make_ascii(char *s);
