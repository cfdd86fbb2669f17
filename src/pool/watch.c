/* SPDX-FileCopyrightText: fcgi-pool contributors */
/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A client wakes up a worker and us at the same time. epoll(7) looks at the socket once more before it
 * reports anything, and if the worker was faster, it finds nobody waiting and sleeps on: of a thousand
 * clients that came one by one, 200 to 500 were missed. That is no harm where only a queue matters, but it
 * is if the request is one that never ends.
 *
 * The poll of AIO (IOCB_CMD_POLL, io_submit(2); Linux 4.18) reports what the socket said when it woke us and
 * does not look again: none were missed. It is for one event, which suits us. An AIO context takes from a
 * limit of the whole machine, so only those get one that need it. It does not outlive execve(). */

#include <errno.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

#include "watch.h"

typedef struct Target {
        int fd;                  /* borrowed */
        bool pending;            /* the kernel has been asked and has not answered */
        struct iocb question;
} Target;

struct Watch {
        int fd;                  /* owned: eventfd(2), or epoll(7) without AIO */
        aio_context_t context;   /* 0: no AIO */
        size_t n;
        Target targets[];
};

static void release(Watch *w) {
        if (w->context != 0)
                (void) syscall(SYS_io_destroy, w->context);
        w->context = 0;
        w->fd = safe_close(w->fd);
}

Watch *watch_free(Watch *w) {
        if (!w)
                return NULL;

        release(w);
        free(w);
        return NULL;
}

int watch_get_fd(const Watch *w) {
        assert(w);

        return w->fd;
}

static int ask(Watch *w, Target *t) {
        struct iocb *question = &t->question;

        if (t->pending)
                return 0;
        t->question = (struct iocb) {
                .aio_data = (uintptr_t) t,
                .aio_lio_opcode = IOCB_CMD_POLL,
                .aio_fildes = (uint32_t) t->fd,
                .aio_buf = POLLIN,
                .aio_flags = IOCB_FLAG_RESFD,
                .aio_resfd = (uint32_t) w->fd,
        };
        if (syscall(SYS_io_submit, w->context, 1L, &question) < 0)
                return -errno;
        t->pending = true;
        return 0;
}

/* The descriptor first: an answer that comes in between makes it readable for nothing, and is not lost. */
static void take_answers(Watch *w) {
        struct io_event answers[8];
        eventfd_t count;
        long n;

        (void) eventfd_read(w->fd, &count);
        do {
                n = syscall(SYS_io_getevents, w->context, 0L, (long) ELEMENTSOF(answers), answers, NULL);
                for (long i = 0; i < n; i++)
                        ((Target *) (uintptr_t) answers[i].data)->pending = false;
        } while (n == (long) ELEMENTSOF(answers));
}

void watch_arm(Watch *w) {
        assert(w);

        if (w->context == 0)
                return;
        take_answers(w);
        for (size_t i = 0; i < w->n; i++)
                if (ask(w, w->targets + i) < 0)
                        (void) eventfd_write(w->fd, 1); /* better once too often than never */
}

static int set_up_aio(Watch *w) {
        int r = 0;

        w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (w->fd < 0)
                return -errno;
        if (syscall(SYS_io_setup, (unsigned) w->n, &w->context) < 0)
                return -errno;
        for (size_t i = 0; r >= 0 && i < w->n; i++)
                r = ask(w, w->targets + i);
        return r;
}

static int set_up_epoll(Watch *w) {
        struct epoll_event event = { .events = EPOLLIN };

        w->fd = epoll_create1(EPOLL_CLOEXEC);
        if (w->fd < 0)
                return -errno;
        for (size_t i = 0; i < w->n; i++)
                if (epoll_ctl(w->fd, EPOLL_CTL_ADD, w->targets[i].fd, &event) < 0)
                        return -errno;
        return 0;
}

int watch_new(const int *listener_fds, size_t n, bool every, Watch **ret_watch) {
        _cleanup_(watch_freep) Watch *w = NULL;
        int r = -EOPNOTSUPP;

        assert(listener_fds && n > 0);
        assert(ret_watch);

        w = calloc(1, sizeof(*w) + n * sizeof(w->targets[0]));
        if (!w)
                return -ENOMEM;
        w->fd = -EBADF;
        w->n = n;
        for (size_t i = 0; i < n; i++)
                w->targets[i].fd = listener_fds[i];

        if (every)
                r = set_up_aio(w);
        if (r < 0) {
                release(w);
                r = set_up_epoll(w);
        }
        if (r < 0)
                return r;
        *ret_watch = TAKE_PTR(w);
        return 0;
}
