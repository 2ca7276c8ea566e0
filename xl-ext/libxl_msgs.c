/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A message is a u16 length and a body of that length: u16 number, then the
 * arguments in the machine's own layout without padding; a string is a u32
 * size that counts the NUL, then its bytes. A reply is one int.
 *
 * Log and progress come from any thread and have no reply; they may stand
 * between another message and its reply. The lock keeps messages whole.
 */
#include "libxl_msgs.h"

#include <string.h>

#include "err.h"
#include "io.h"

#define MAX_BODY 4096u /* libxl takes up to 65535; ours are short */
#define MAX_STRING 1024u

struct message {
    uint16_t length; /* of what is in body */
    uint8_t body[MAX_BODY];
};

void fc_libxl_init(struct fc_libxl *l, int out_fd, int in_fd)
{
    *l = (struct fc_libxl){ .out_fd = out_fd, .in_fd = in_fd };
    pthread_mutex_init(&l->lock, NULL);
}

void fc_libxl_dispose(struct fc_libxl *l)
{
    pthread_mutex_destroy(&l->lock);
}

/* Two strings and some numbers always fit. */
static void add(struct message *m, const void *value, size_t len)
{
    memcpy(m->body + m->length, value, len);
    m->length = (uint16_t)(m->length + len);
}

static void begin(struct message *m, enum fc_libxl_message number)
{
    uint16_t n = (uint16_t)number;
    m->length = 0;
    add(m, &n, sizeof(n));
}

static void add_string(struct message *m, const char *text)
{
    size_t len = text ? strnlen(text, MAX_STRING - 1) : 0;
    uint32_t size = (uint32_t)len + 1;
    add(m, &size, sizeof(size));
    if (len)
        add(m, text, len);
    add(m, "", 1);
}

static int transmit(struct fc_libxl *l, struct message *m)
{
    struct iovec iov[2] = {
        { .iov_base = &m->length, .iov_len = sizeof(m->length) },
        { .iov_base = m->body, .iov_len = m->length },
    };
    pthread_mutex_lock(&l->lock);
    if (!l->broken && fc_writev_all(l->out_fd, iov, 2) < 0)
        l->broken = true;
    int rc = l->broken ? FC_EIO : 0;
    pthread_mutex_unlock(&l->lock);
    return rc;
}

static int call(struct fc_libxl *l, struct message *m, int when_broken)
{
    int reply;
    if (transmit(l, m) < 0)
        return when_broken;
    if (fc_read_exact(l->in_fd, &reply, sizeof(reply)) == 0)
        return reply;
    pthread_mutex_lock(&l->lock);
    l->broken = true;
    pthread_mutex_unlock(&l->lock);
    return when_broken;
}

void fc_libxl_log(struct fc_libxl *l, uint32_t level, int errnoval,
                  const char *context, const char *text)
{
    struct message m;
    begin(&m, FC_LIBXL_LOG);
    add(&m, &level, sizeof(level));
    add(&m, &errnoval, sizeof(errnoval));
    add_string(&m, context);
    add_string(&m, text);
    transmit(l, &m);
}

void fc_libxl_progress(struct fc_libxl *l, const char *context,
                       const char *doing, unsigned long done,
                       unsigned long total)
{
    struct message m;
    begin(&m, FC_LIBXL_PROGRESS);
    add_string(&m, context);
    add_string(&m, doing);
    add(&m, &done, sizeof(done));
    add(&m, &total, sizeof(total));
    transmit(l, &m);
}

void fc_libxl_restore_results(struct fc_libxl *l, uint64_t store_gfn,
                              uint64_t console_gfn)
{
    struct message m;
    begin(&m, FC_LIBXL_RESTORE_RESULTS);
    add(&m, &store_gfn, sizeof(store_gfn));
    add(&m, &console_gfn, sizeof(console_gfn));
    transmit(l, &m);
}

int fc_libxl_call(struct fc_libxl *l, enum fc_libxl_message number)
{
    struct message m;
    begin(&m, number);
    return call(l, &m, 0);
}

int fc_libxl_switch_qemu_logdirty(struct fc_libxl *l, uint32_t domid,
                                  unsigned enable)
{
    struct message m;
    begin(&m, FC_LIBXL_SWITCH_QEMU_LOGDIRTY);
    add(&m, &domid, sizeof(domid));
    add(&m, &enable, sizeof(enable));
    return call(l, &m, -1);
}

int fc_libxl_static_data_done(struct fc_libxl *l, unsigned missing)
{
    struct message m;
    begin(&m, FC_LIBXL_STATIC_DATA_DONE);
    add(&m, &missing, sizeof(missing));
    return call(l, &m, -1);
}

int fc_libxl_complete(struct fc_libxl *l, int retval, int errnoval)
{
    struct message m;
    begin(&m, FC_LIBXL_COMPLETE);
    add(&m, &retval, sizeof(retval));
    add(&m, &errnoval, sizeof(errnoval));
    call(l, &m, 0);
    pthread_mutex_lock(&l->lock);
    int rc = l->broken ? FC_EIO : 0;
    pthread_mutex_unlock(&l->lock);
    return rc;
}
