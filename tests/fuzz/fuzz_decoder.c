/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A stream from another host. What comes out must be records whose PAGE_DATA
 * is as libxc demands; memory stays bounded; an END is passed only when no
 * page is missing. The first byte chooses: bit 0, a HELLO is put in front;
 * bit 1, references are found.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "decoder.h"
#include "err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_OUTPUT (256u << 20)

struct fuzz {
    struct {
        const uint8_t *p;
        size_t len;
    } part[2]; /* one after the other */
    int choice;
    uint64_t out;
    uint8_t head[FC_RECORD_HEADER + FC_PAGE_DATA_HEADER];
    int over; /* DONE or FAILED was said */
};

static int fuzz_read(void *user, void *buf, size_t len)
{
    struct fuzz *f = user;
    uint8_t *to = buf;
    for (int i = 0; i < 2; i++) {
        size_t n = len < f->part[i].len ? len : f->part[i].len;
        if (n)
            memcpy(to, f->part[i].p, n);
        f->part[i].p += n;
        f->part[i].len -= n;
        to += n;
        len -= n;
    }
    return len ? FC_EEOF : 0;
}

/* A PAGE_DATA made by the decoder comes in one piece, head and entries first:
 * entries and pages must be as many as its length says. */
static void check_page_data(const struct iovec *iov, int count, uint64_t len)
{
    const uint8_t *head = iov[0].iov_base;
    uint64_t pages = 0;
    if (count == 1 && iov[0].iov_len < FC_RECORD_HEADER + FC_PAGE_DATA_HEADER)
        return;
    struct fc_record r = fc_record_head_parse(head);
    uint64_t entries =
        (iov[0].iov_len - FC_RECORD_HEADER - FC_PAGE_DATA_HEADER) / 8;
    if (r.type != FC_REC_PAGE_DATA || r.length + FC_RECORD_HEADER != len)
        abort();
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t entry;
        memcpy(&entry, head + FC_RECORD_HEADER + FC_PAGE_DATA_HEADER + 8 * i,
               8);
        pages += fc_pfn_has_data(entry);
    }
    if (entries > FC_PAGE_DATA_ENTRIES ||
        len != iov[0].iov_len + pages * FC_PAGE_SIZE)
        abort();
}

static int fuzz_emit(void *user, struct iovec *iov, int count)
{
    struct fuzz *f = user;
    uint64_t len = 0;
    if (count < 1 || count > FC_DECODER_IOV)
        abort();
    for (int i = 0; i < count; i++) {
        volatile uint8_t byte = 0;
        const uint8_t *p = iov[i].iov_base;
        for (size_t at = 0; at < iov[i].iov_len; at += 64)
            byte ^= p[at]; /* for the sanitizer */
        (void)byte;
        len += iov[i].iov_len;
    }
    if (count > 1)
        check_page_data(iov, count, len);
    f->out += len;
    return f->out > MAX_OUTPUT ? FC_ELIMIT : 0;
}

static int fuzz_frame(void *user, const struct fc_back_frame *frame)
{
    struct fuzz *f = user;
    uint8_t raw[FC_BACK_HEADER + FC_BACK_MAX_BODY];
    if (f->over || fc_back_encode(frame, raw, sizeof(raw)) < 0)
        abort();
    f->over = frame->type == FC_BACK_DONE || frame->type == FC_BACK_FAILED;
    return 0;
}

static int fuzz_get(void *user, struct fc_hash hash, void *page)
{
    (void)user;
    memset(page, 0x55, FC_PAGE_SIZE);
    return hash.lo % 3 ? 0 : FC_ENOENT;
}

static void fuzz_hello(void *user, const struct fc_hello *hello,
                       struct fc_page_source *source, uint64_t *held_r)
{
    struct fuzz *f = user;
    (void)hello;
    *held_r = 1;
    if (f->choice & 2)
        source->get = fuzz_get;
}

static const struct fc_decoder_ops ops = { .read = fuzz_read,
                                           .emit = fuzz_emit,
                                           .frame = fuzz_frame,
                                           .hello = fuzz_hello };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fc_hello hello = { .highest = 1, .lowest = 1 };
    uint8_t front[FC_STREAM_HEADERS + FC_RECORD_HEADER + FC_HELLO_BYTES];
    struct fuzz f = { .choice = size ? data[0] : 0 };
    if (!size)
        return 0;
    fc_stream_headers_make(front, FC_DOMAIN_HVM);
    fc_record_head_make(front + FC_STREAM_HEADERS, FC_REC_HELLO,
                        FC_HELLO_BYTES);
    fc_hello_make(front + FC_STREAM_HEADERS + FC_RECORD_HEADER, &hello);
    f.part[0].p = front;
    f.part[0].len = f.choice & 1 ? sizeof(front) : 0;
    f.part[1].p = data + 1;
    f.part[1].len = size - 1;
    struct fc_decoder *d = fc_decoder_new(&ops, &f);
    int rc;
    do
        rc = fc_decoder_step(d);
    while (rc > 0);
    if (rc < 0 && !*fc_decoder_why(d))
        abort();
    fc_decoder_free(d);
    return 0;
}
