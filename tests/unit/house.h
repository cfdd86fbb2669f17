/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A pool of the size 0:1, which serves without a worker, with its control socket, in the process of the test: what
 * callers can talk to. */

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <systemd/sd-event.h>

#include "control-socket.h"
#include "control.h"
#include "pool.h"
#include "test.h"

typedef struct House {
        sd_event *event;
        Config *config;
        Notify *notify;
        Listener listener;
        ListenSet listeners;
        Pool *pool;
        Control *control;
        int control_fd;
} House;

static void on_phase(PoolPhase phase, const Problem *failure, void *userdata) {
}

static void on_status(void *userdata) {
        control_publish(((House *) userdata)->control);
}

static int on_reload(uint64_t *ret_generation, void *userdata) {
        House *house = userdata;
        PoolSummary summary;
        int r;

        r = pool_roll(house->pool);
        if (r < 0)
                return r;
        pool_summarize(house->pool, &summary);
        *ret_generation = summary.generation;
        return 0;
}

static void on_reloading(void *userdata) {
}

static int on_reexec(void *userdata) {
        return -ENOEXEC;
}

static int listen_somewhere(void) {
        struct sockaddr_un sa = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        EXPECT(fd >= 0);
        EXPECT_EQ(bind(fd, (struct sockaddr *) &sa, sizeof(sa_family_t)), 0);
        EXPECT_EQ(listen(fd, 1), 0);
        return fd;
}

/* The control socket is in the directory. *house must stay where it is. */
static void house_open(House *house, const char *directory) {
        static char *argv[] = { (char *) "fcgi-pool", (char *) "--workers=0:1", (char *) "--allow-root",
                                (char *) "--", (char *) "/bin/false", NULL };
        struct stat st;

        *house = (House) { .listener = { .fd = listen_somewhere(), .family = AF_UNIX } };
        EXPECT_EQ(fstat(house->listener.fd, &st), 0);
        house->listener.inode = st.st_ino;
        house->listeners = (ListenSet) { .listeners = &house->listener, .n_listeners = 1 };
        EXPECT_EQ(config_new(5, argv, 1, NULL, &house->config, NULL), 0);
        EXPECT(sd_event_new(&house->event) >= 0);
        EXPECT(notify_new(house->event, &house->notify) >= 0);
        EXPECT_EQ(pool_new(house->event, &(PoolParameters) {
                .config = house->config,
                .name = "test",
                .listeners = &house->listeners,
                .notify = house->notify,
                .on_phase = on_phase,
                .on_status = on_status,
                .userdata = house,
        }, &house->pool), 0);
        EXPECT((house->control_fd = control_socket_open(directory)) >= 0);
        EXPECT_EQ(control_new(house->event, &(ControlParameters) {
                .pool = house->pool,
                .listener_fd = house->control_fd,
                .on_reload = on_reload,
                .on_reloading = on_reloading,
                .on_reexec = on_reexec,
                .userdata = house,
        }, &house->control), 0);
}

static void house_close(House *house) {
        control_free(house->control);
        pool_free(house->pool);
        notify_free(house->notify);
        config_free(house->config);
        sd_event_unref(house->event);
        (void) close(house->control_fd);
        (void) close(house->listener.fd);
}

static int dial_at(const char *directory) {
        struct sockaddr_un sa = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        EXPECT(fd >= 0);
        (void) snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/control", directory);
        EXPECT_EQ(connect(fd, (struct sockaddr *) &sa, sizeof(sa)), 0);
        return fd;
}
