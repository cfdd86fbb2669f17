/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "text.h"

size_t text_character_size(const char *data, size_t size) {
        static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };
        const unsigned char *p = (const unsigned char *) data;
        size_t n = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 :
                p[0] < 0xf5 ? 4 : 0;
        uint32_t c = n < 2 ? p[0] : p[0] & (0x7f >> n);

        if (n > size)
                return 0;
        for (size_t i = 1; i < n; i++) {
                if ((p[i] & 0xc0) != 0x80)
                        return 0;
                c = c << 6 | (p[i] & 0x3f);
        }
        return c < smallest[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : n;
}

size_t text_next(const char *data, size_t size, bool *ret_harmless) {
        const unsigned char *p = (const unsigned char *) data;
        size_t n = text_character_size(data, size);

        *ret_harmless = n > 2 || (n == 2 && (p[0] != 0xc2 || p[1] >= 0xa0)) ||
                (n == 1 && p[0] >= ' ' && p[0] != 0x7f);
        return MAX_OF(n, (size_t) 1);
}

void text_make_harmless(char *s) {
        size_t size = strlen(s), n;
        bool harmless;

        for (; size > 0; s += n, size -= n) {
                n = text_next(s, size, &harmless);
                if (!harmless)
                        memset(s, '?', n);
        }
}

void text_make_ascii(char *s) {
        for (; *s != '\0'; s++)
                if (*s < ' ' || *s > '~')
                        *s = '?';
}
