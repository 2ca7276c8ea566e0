/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "stream_codec.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "decoder.h"
#include "encoder.h"
#include "err.h"

struct memory {
    const struct stream_input *in;
    size_t at;
    uint8_t *out;
    size_t len, cap;
    uint64_t emitted;
    bool refs;
    struct fc_store_view *view;
};

static int mem_read(void *user, void *buf, size_t len)
{
    struct memory *m = user;
    if (m->in->len - m->at < len)
        return FC_EEOF;
    memcpy(buf, m->in->bytes + m->at, len);
    m->at += len;
    return 0;
}

static uint8_t *mem_room(void *user, size_t len)
{
    struct memory *m = user;
    return m->cap - m->len < len ? NULL : m->out + m->len;
}

static int mem_put(void *user, size_t len)
{
    ((struct memory *)user)->len += len;
    return 0;
}

static int mem_welcome(void *user, enum fc_stream_mode *mode_r, bool *refs_r)
{
    *mode_r = FC_STREAM_PREDICTIVE;
    *refs_r = ((struct memory *)user)->refs;
    return 0;
}

/* Into a buffer that is used again, as libxc's pipe is. */
static int mem_emit(void *user, struct iovec *iov, int count)
{
    struct memory *m = user;
    for (int i = 0; i < count; i++) {
        const uint8_t *p = iov[i].iov_base;
        for (size_t left = iov[i].iov_len; left;) {
            size_t n = left < m->cap - m->len ? left : m->cap - m->len;
            memcpy(m->out + m->len, p, n);
            m->len = m->len + n == m->cap ? 0 : m->len + n;
            p += n;
            left -= n;
        }
        m->emitted += iov[i].iov_len;
    }
    return 0;
}

static int mem_frame(void *user, const struct fc_back_frame *frame)
{
    (void)user;
    (void)frame;
    return 0;
}

static void mem_hello(void *user, const struct fc_hello *hello,
                      struct fc_page_source *source, uint64_t *held_r)
{
    struct memory *m = user;
    (void)hello;
    (void)held_r;
    if (m->view)
        *source = (struct fc_page_source){ stream_staged_get, m->view };
}

static double cpu_seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static const struct fc_encoder_ops mem_encoder = {
    .read = mem_read, .room = mem_room, .put = mem_put, .welcome = mem_welcome
};
static const struct fc_decoder_ops mem_decoder = {
    .read = mem_read, .emit = mem_emit, .frame = mem_frame, .hello = mem_hello
};

void stream_codec_run(const struct stream_input *in,
                      const struct stream_staged *st, uint8_t *scratch,
                      size_t scratch_len, double *encode_r, double *decode_r)
{
    static const struct fc_hello hello = { .highest = 1, .lowest = 1 };
    static uint8_t ring[4u << 20];
    struct fc_encoder_config c = { .hello = &hello,
                                   .staged = st ? &st->set : NULL };
    struct memory m = {
        .in = in, .out = scratch, .cap = scratch_len, .refs = st
    };
    struct fc_encoder *e = fc_encoder_new(&mem_encoder, &m, &c);
    double start = cpu_seconds();
    int rc;
    do
        rc = fc_encoder_step(e);
    while (rc > 0);
    *encode_r = (double)in->len / (cpu_seconds() - start);
    if (rc < 0)
        stream_die(fc_encoder_why(e));
    fc_encoder_free(e);

    struct fc_store_view view;
    struct stream_input encoded = { .bytes = scratch, .len = m.len };
    struct memory d = { .in = &encoded, .out = ring, .cap = sizeof(ring) };
    if (st && fc_store_view_open(st->store_fd, &view) < 0)
        stream_die("store");
    d.view = st ? &view : NULL;
    struct fc_decoder *dec = fc_decoder_new(&mem_decoder, &d);
    start = cpu_seconds();
    do
        rc = fc_decoder_step(dec);
    while (rc > 0);
    *decode_r = (double)in->len / (cpu_seconds() - start);
    if (rc < 0 || d.emitted != in->len)
        stream_die(fc_decoder_why(dec));
    fc_decoder_free(dec);
    if (st)
        fc_store_view_dispose(&view);
}
