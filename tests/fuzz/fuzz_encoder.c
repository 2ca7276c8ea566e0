/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A libxc stream into the encoder, what comes of it into the decoder: out of
 * that must come the stream that went in, but for pages dropped as dirty. The
 * first byte chooses: bit 0, predictive; bit 1, pages are dropped.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "decoder.h"
#include "encoder.h"
#include "err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct buffer {
    uint8_t *p;
    size_t len, cap, at;
};

struct fuzz {
    const uint8_t *in;
    size_t in_len, in_at;
    int choice;
    struct buffer coded, out; /* kept from run to run */
};

static void need(struct buffer *b, size_t n)
{
    if (b->cap - b->len >= n)
        return;
    b->cap = 2 * (b->len + n);
    b->p = realloc(b->p, b->cap);
    if (!b->p)
        abort();
}

static int in_read(void *user, void *buf, size_t len)
{
    struct fuzz *f = user;
    if (f->in_len - f->in_at < len)
        return FC_EEOF;
    memcpy(buf, f->in + f->in_at, len);
    f->in_at += len;
    return 0;
}

static uint8_t *coded_room(void *user, size_t len)
{
    struct fuzz *f = user;
    if (len > FC_ENCODER_ROOM)
        abort();
    need(&f->coded, len);
    return f->coded.p + f->coded.len;
}

static int coded_put(void *user, size_t len)
{
    ((struct fuzz *)user)->coded.len += len;
    return 0;
}

static int welcome(void *user, enum fc_stream_mode *mode_r, bool *refs_r)
{
    (void)user;
    *mode_r = FC_STREAM_PREDICTIVE;
    *refs_r = false;
    return 0;
}

static uint64_t dirty(void *user, const uint64_t **bitmap_r)
{
    static const uint64_t bitmap[2] = { 0x5555555555555555ull, 1 };
    *bitmap_r = bitmap;
    return ((struct fuzz *)user)->choice & 2 ? 100 : 0;
}

static int coded_read(void *user, void *buf, size_t len)
{
    struct fuzz *f = user;
    if (f->coded.len - f->coded.at < len)
        return FC_EEOF;
    memcpy(buf, f->coded.p + f->coded.at, len);
    f->coded.at += len;
    return 0;
}

static int out_emit(void *user, struct iovec *iov, int count)
{
    struct fuzz *f = user;
    for (int i = 0; i < count; i++) {
        need(&f->out, iov[i].iov_len);
        memcpy(f->out.p + f->out.len, iov[i].iov_base, iov[i].iov_len);
        f->out.len += iov[i].iov_len;
    }
    return 0;
}

static int no_frame(void *user, const struct fc_back_frame *frame)
{
    (void)user;
    if (frame->type == FC_BACK_MISSING || frame->type == FC_BACK_FAILED)
        abort();
    return 0;
}

static const struct fc_encoder_ops encoder_ops = { .read = in_read,
                                                   .room = coded_room,
                                                   .put = coded_put,
                                                   .welcome = welcome,
                                                   .dirty_again = dirty };
static const struct fc_decoder_ops decoder_ops = { .read = coded_read,
                                                   .emit = out_emit,
                                                   .frame = no_frame };

/* Ours in the input would be taken for ours by the decoder; libxc never
 * writes any. */
static bool has_ours(const struct fuzz *f)
{
    for (size_t i = 0; i + 4 <= f->in_len; i++)
        if (f->in[i] >= 1 && f->in[i] <= 4 && f->in[i + 1] == 0x43 &&
            f->in[i + 2] == 0x46)
            return true;
    return false;
}

static void decode(struct fuzz *f, bool ended)
{
    struct fc_decoder *d = fc_decoder_new(&decoder_ops, f);
    int rc;
    do
        rc = fc_decoder_step(d);
    while (rc > 0);
    if (ended && (rc < 0 || f->coded.at != f->coded.len))
        abort();
    if (ended && !(f->choice & 2) &&
        (f->out.len != f->in_at || memcmp(f->out.p, f->in, f->out.len)))
        abort();
    fc_decoder_free(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fc_hello hello = { .highest = 1, .lowest = 1 };
    if (!size)
        return 0;
    static struct fuzz f;
    f.in = data + 1;
    f.in_len = size - 1;
    f.choice = data[0];
    f.in_at = f.coded.at = f.coded.len = f.out.len = 0;
    if (has_ours(&f))
        return 0;
    struct fc_encoder_config c = { .hello = f.choice & 1 ? &hello : NULL };
    struct fc_encoder *e = fc_encoder_new(&encoder_ops, &f, &c);
    int rc;
    do
        rc = fc_encoder_step(e);
    while (rc > 0);
    if (rc < 0 && !*fc_encoder_why(e))
        abort();
    fc_encoder_free(e);
    decode(&f, rc == 0);
    return 0;
}
