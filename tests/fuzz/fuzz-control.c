/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Whatever a caller sends to the control socket, the pool goes on and the next caller is answered. The first byte
 * says whether the rest comes behind a valid authentication, and in how many pieces. */

#include <poll.h>

#include "house.h"

#define INPUT_MAX 65536U
#define TURNS_MAX 64U
#define AUTHENTICATION "\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char directory[] = "/tmp/fcgi-pool-fuzz-XXXXXX";
static House house;

static void clean_up(void) {
        char path[sizeof(directory) + 16];

        house_close(&house);
        (void) snprintf(path, sizeof(path), "%s/control", directory);
        (void) unlink(path);
        (void) rmdir(directory);
}

/* Until there is nothing more to do. */
static void run(void) {
        for (unsigned i = 0; i < TURNS_MAX; i++) {
                int r = sd_event_run(house.event, 0);

                EXPECT(r >= 0);
                if (r == 0)
                        return;
        }
}

/* Never waits: the other end is in this process. */
static void say(int fd, const void *data, size_t size) {
        (void) send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        run();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        char answer[4096];
        size_t step;
        int fd;

        if (!house.pool) {
                EXPECT(mkdtemp(directory));
                house_open(&house, directory);
                EXPECT_EQ(atexit(clean_up), 0);
                run();
        }
        if (size < 1 || size > INPUT_MAX)
                return 0;

        fd = dial_at(directory);
        if (data[0] & 1)
                say(fd, AUTHENTICATION, sizeof(AUTHENTICATION) - 1);
        step = data[0] & 2 ? MAX_OF((size - 1) / (1 + (data[0] >> 2)), (size_t) 1) : size;
        for (size_t i = 1; i < size; i += step)
                say(fd, data + i, MIN_OF(step, size - i));
        (void) recv(fd, answer, sizeof(answer), MSG_DONTWAIT);
        EXPECT(pool_is_starting(house.pool) || !pool_has_workers(house.pool));
        (void) close(fd);
        run();

        /* The next one authenticates and hears so. */
        fd = dial_at(directory);
        say(fd, AUTHENTICATION, sizeof(AUTHENTICATION) - 1);
        EXPECT(recv(fd, answer, sizeof(answer), MSG_DONTWAIT) > 0);
        (void) close(fd);
        run();
        return 0;
}
