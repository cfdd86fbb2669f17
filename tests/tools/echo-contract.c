/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SPDX-FileCopyrightText: fcgi-pool contributors */

/* The C side of the echo contract, shared by fcgi-echo (libfcgi) and misbehave (no library). */

#include <ctype.h>
#include <inttypes.h>
#include <sys/mman.h>

#include "echo-contract.h"
#include "tool.h"

static int unhex(char c) {
        if (c >= '0' && c <= '9')
                return c - '0';
        c = (char) tolower((unsigned char) c);
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void url_decode(const char *text, size_t n, char *ret, size_t n_ret) {
        size_t k = 0;

        for (size_t i = 0; i < n && k + 1 < n_ret; i++) {
                if (text[i] == '%' && i + 2 < n && unhex(text[i + 1]) >= 0 && unhex(text[i + 2]) >= 0) {
                        ret[k++] = (char) (unhex(text[i + 1]) << 4 | unhex(text[i + 2]));
                        i += 2;
                } else
                        ret[k++] = text[i] == '+' ? ' ' : text[i];
        }
        ret[k] = '\0';
}

static void take_parameter(EchoRequest *e, const char *name, const char *value) {
        uint64_t number = strtoull(value, NULL, 10);

        if (strcmp(name, "sleep") == 0)
                e->sleep_msec = number;
        else if (strcmp(name, "burn") == 0)
                e->burn_msec = number;
        else if (strcmp(name, "hold") == 0)
                e->hold_mb = number;
        else if (strcmp(name, "size") == 0)
                e->size = number;
        else if (strcmp(name, "start") == 0)
                e->start = number;
        else if (strcmp(name, "exit") == 0)
                e->exit_code = (int) (number & 0xff);
        else if (strcmp(name, "status") == 0 && number >= 100 && number <= 999)
                e->status = (int) number;
        else if (strcmp(name, "env") == 0)
                snprintf(e->env, sizeof(e->env), "%s", value);
        else if (strcmp(name, "stderr") == 0)
                snprintf(e->text, sizeof(e->text), "%s", value);
}

void echo_parse(const char *query, EchoRequest *ret) {
        EchoRequest e = { .exit_code = -1, .status = 200 };
        const char *p = query ? query : "";

        while (*p) {
                size_t n = strcspn(p, "&");
                const char *equals = memchr(p, '=', n);
                char name[32], value[512];

                if (equals) {
                        url_decode(p, (size_t) (equals - p), name, sizeof(name));
                        url_decode(equals + 1, n - (size_t) (equals - p) - 1, value, sizeof(value));
                        take_parameter(&e, name, value);
                }
                p += n;
                p += *p == '&';
        }

        *ret = e;
}

static uint64_t cpu_nsec(void) {
        struct timespec ts;

        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
        return (uint64_t) ts.tv_sec * NSEC_PER_SEC + (uint64_t) ts.tv_nsec;
}

void echo_hold(uint64_t mb) {
        size_t n = (size_t) mb << 20;
        void *p;

        if (n == 0)
                return;
        p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
                fail(EXIT_FAILURE, "mmap: %s", strerror(errno));
        memset(p, 1, n); /* a page that was never written to takes nothing */
}

void echo_act(const EchoRequest *e) {
        if (e->sleep_msec > 0)
                sleep_msec(e->sleep_msec);

        if (e->burn_msec > 0) {
                uint64_t until = cpu_nsec() + e->burn_msec * NSEC_PER_MSEC;

                while (cpu_nsec() < until)
                        continue;
        }

        echo_hold(e->hold_mb);
        if (e->exit_code >= 0)
                _exit(e->exit_code);
}

static const char *env_or_dash(const char *name) {
        const char *value = getenv(name);

        return value && *value ? value : "-";
}

size_t echo_head(const EchoRequest *e, uint64_t body_length, uint32_t body_crc, char *ret, size_t n) {
        int k;

        k = snprintf(ret, n,
                     "Status: %d %s\r\nContent-Type: text/plain\r\n\r\n"
                     "pid=%d\nslot=%s generation=%s\nbody-length=%" PRIu64 " body-crc=%08" PRIx32 "\n",
                     e->status, e->status == 200 ? "OK" : "Asked for", (int) getpid(),
                     env_or_dash("FCGI_POOL_SLOT"), env_or_dash("FCGI_POOL_GENERATION"),
                     body_length, body_crc);
        if (e->env[0] && (size_t) k < n) {
                const char *value = getenv(e->env);

                k += snprintf(ret + k, n - (size_t) k, "env-%s=%s\n", e->env, value ? value : "");
        }
        return (size_t) k < n ? (size_t) k : n - 1;
}
