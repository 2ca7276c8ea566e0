/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_LIBXL_MSGS_H
#define FC_LIBXL_MSGS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * The helper's side of its conversation with libxl: messages out, replies to
 * some of them in. Numbers and layout are those of Xen's libxl-save-helper,
 * the same from 4.17 on.
 */
enum fc_libxl_message {
    FC_LIBXL_LOG = 1,
    FC_LIBXL_PROGRESS = 2,
    FC_LIBXL_SUSPEND = 3,
    FC_LIBXL_POSTCOPY = 4,
    FC_LIBXL_CHECKPOINT = 5,
    FC_LIBXL_WAIT_CHECKPOINT = 6,
    FC_LIBXL_SWITCH_QEMU_LOGDIRTY = 7,
    FC_LIBXL_STATIC_DATA_DONE = 8,
    FC_LIBXL_RESTORE_RESULTS = 9,
    FC_LIBXL_COMPLETE = 10,
};

/* Levels of xentoollog. */
enum fc_libxl_level {
    FC_LIBXL_DEBUG = 1,
    FC_LIBXL_INFO = 5,
    FC_LIBXL_WARN = 7,
    FC_LIBXL_ERROR = 8,
};

struct fc_libxl {
    int out_fd, in_fd; /* the caller's; 1 and 0 in the helper */
    pthread_mutex_t lock;
    bool broken; /* libxl is gone */
};

void fc_libxl_init(struct fc_libxl *l, int out_fd, int in_fd);
void fc_libxl_dispose(struct fc_libxl *l);

/* Whether libxl wants this callback, by the argument it gave the helper. */
static inline bool fc_libxl_wants(unsigned cbflags, enum fc_libxl_message m)
{
    return cbflags >> m & 1;
}

/* Any thread. errnoval -1: none. context may be NULL. Text that is too long
 * for a message is cut. */
void fc_libxl_log(struct fc_libxl *l, uint32_t level, int errnoval,
                  const char *context, const char *text);
void fc_libxl_progress(struct fc_libxl *l, const char *context,
                       const char *doing, unsigned long done,
                       unsigned long total);
void fc_libxl_restore_results(struct fc_libxl *l, uint64_t store_gfn,
                              uint64_t console_gfn);

/*
 * One thread only. Each sends its message and returns libxl's reply. When
 * libxl is gone the reply is 0, which libxc takes as failure, or, for
 * static_data_done and switch_qemu_logdirty, where 0 means success, -1.
 */
int fc_libxl_call(struct fc_libxl *l, enum fc_libxl_message m);
int fc_libxl_switch_qemu_logdirty(struct fc_libxl *l, uint32_t domid,
                                  unsigned enable);
int fc_libxl_static_data_done(struct fc_libxl *l, unsigned missing);
/* 0, or FC_EIO when libxl is gone. */
int fc_libxl_complete(struct fc_libxl *l, int retval, int errnoval);

#endif
