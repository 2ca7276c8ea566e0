/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The feed's writer: what goes to the shadow next. First what is overdue
 * (PONG, PING), then what the shadow waits for, then the hand-over, then
 * blocks: those it named, those of the order, the rest.
 */
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "feed_int.h"
#include "log.h"

#define PING_MS 10000u
#define IDLE_MS 20u /* how soon a write of the guest is noticed */
#define WAIT_MS 1000u
#define PASS_MS 500u  /* a block written all the time is sent so often */
#define CHECK_MS 500u /* between two questions of what is missing */
#define BAD_READ_MS                                                            \
    1000u /* before blocks that cannot be read are tried anew                  \
           */
#define RUN_MAX (256u << 10)
#define DEMAND_MS 500u /* after a WANT, the next one is likely to come */
#define DEMAND_WINDOW (64u << 10)

struct copier {
    struct fc_feed *f;
    uint8_t *plain; /* FC_FRAME_MAX_PLAIN */
    uint8_t *frame; /* a header, a DATA's head, FC_FRAME_MAX_PLAIN */
};

static int say_hello(struct fc_feed *f)
{
    struct fc_frame_hello h = { .highest = FC_FRAME_VERSION,
                                .lowest = FC_FRAME_VERSION,
                                .block_bytes = f->config.block_bytes,
                                .size = f->config.size };
    uint8_t frame[FC_FRAME_HEADER + 256];
    memcpy(h.uuid, f->config.uuid, sizeof(h.uuid));
    memcpy(h.name, f->config.name, sizeof(h.name));
    pthread_mutex_lock(&f->lock);
    h.epoch = f->epoch;
    memcpy(h.migration, f->migration, sizeof(h.migration));
    pthread_mutex_unlock(&f->lock);
    ssize_t len = fc_frame_hello_make(&h, frame + FC_FRAME_HEADER, 256);
    return fc_link_send(&f->link, FC_FRAME_HELLO, frame, (size_t)len);
}

/*
 * Sends what is in c->plain (or zeros), as DATA that covers `count` blocks from
 * `first` on (0: it is only an answer). The marks were cleared before reading.
 */
static int send_data(struct copier *c, struct fc_frame_data *d, bool zeros,
                     uint32_t first, uint32_t count)
{
    struct fc_feed *f = c->f;
    uint8_t *body = c->frame + FC_FRAME_HEADER;
    if (zeros)
        d->encoding = FC_FRAME_ZEROS;
    else if (d->encoding != FC_FRAME_UNREADABLE)
        fc_frame_data_encode(d, c->plain, body + FC_FRAME_DATA_HEAD);
    d->keep = count > 0;
    uint32_t bytes = FC_FRAME_HEADER + FC_FRAME_DATA_HEAD + d->coded;

    pthread_mutex_lock(&f->lock);
    if (f->broken) {
        pthread_mutex_unlock(&f->lock);
        fc_source_mark(f->source, first, count);
        return FC_ECANCEL;
    }
    d->seq = ++f->seq;
    f->flying[d->seq % FC_FEED_FLYING] =
        (struct fc_flying){ first, count, bytes, fc_now_ns() };
    f->flying_bytes += bytes;
    f->data_bytes += d->length;
    if (d->encoding == FC_FRAME_ZEROS)
        f->zero_bytes += d->length;
    f->answered += d->answer != 0;
    fc_bucket_take(&f->bucket, bytes, fc_now_ms());
    pthread_mutex_unlock(&f->lock);

    fc_frame_data_make(d, body, FC_FRAME_DATA_HEAD);
    return fc_link_send(&f->link, FC_FRAME_DATA, c->frame,
                        FC_FRAME_DATA_HEAD + d->coded);
}

/* Bytes of `count` blocks from `first` on; the disk's end may cut the last. */
static uint64_t run_bytes(const struct fc_feed *f, uint32_t first,
                          uint32_t count)
{
    uint64_t from = (uint64_t)first * f->config.block_bytes;
    uint64_t len = (uint64_t)count * f->config.block_bytes;
    return len < f->config.size - from ? len : f->config.size - from;
}

/* Whether the volume is known to have no data there. */
static bool is_hole(struct fc_feed *f, uint64_t offset, uint64_t len)
{
    uint64_t from, to;
    return !fc_source_data(f->source, offset, offset + len, &from, &to) &&
           from == offset + len;
}

/*
 * A run that lies in a hole is made longer, as far as hole and marks go. The
 * marks are cleared before the volume is asked for good: it may be written.
 */
static uint32_t longer_hole(struct fc_feed *f, uint32_t first, uint32_t count)
{
    uint32_t block = f->config.block_bytes, most = FC_FRAME_MAX_ZEROS / block;
    uint64_t offset = (uint64_t)first * block, from, to;
    if (most > f->blocks - first)
        most = f->blocks - first;
    if (fc_source_data(f->source, offset, offset + run_bytes(f, first, most),
                       &from, &to))
        return 0;
    uint32_t end = (uint32_t)((from - offset) / block);
    if (from == f->config.size)
        end = f->blocks - first;
    uint32_t n = count;
    while (n < end && n < most && fc_source_is_marked(f->source, first + n))
        n++;
    fc_source_clear(f->source, first + count, n - count);
    if (is_hole(f, offset, run_bytes(f, first, n)))
        return n;
    fc_source_mark(f->source, first + count, n - count);
    return 0;
}

static int send_run(struct copier *c, uint32_t first, uint32_t count)
{
    struct fc_feed *f = c->f;
    struct fc_frame_data d = { .offset =
                                   (uint64_t)first * f->config.block_bytes };
    fc_source_clear(f->source, first, count);
    uint32_t hole = is_hole(f, d.offset, run_bytes(f, first, count))
                        ? longer_hole(f, first, count)
                        : 0;
    if (hole)
        count = hole;
    d.length = (uint32_t)run_bytes(f, first, count);
    if (hole || !fc_source_peek(f->source, c->plain, d.length, d.offset))
        return send_data(c, &d, hole, first, count);
    fc_source_mark(f->source, first, count);
    fc_error("%s: block %u cannot be read: %m", f->config.name, first);
    pthread_mutex_lock(&f->lock);
    strcpy(f->error, "the volume cannot be read");
    if (!f->broken)
        fc_feed_wait(f, BAD_READ_MS);
    pthread_mutex_unlock(&f->lock);
    return 0;
}

/* An answer of whole blocks counts as their copy. */
static int send_answer(struct copier *c, const struct fc_frame_want *w,
                       bool may_keep)
{
    struct fc_feed *f = c->f;
    uint32_t block = f->config.block_bytes, first = 0, count = 0;
    struct fc_frame_data d = { .answer = w->number,
                               .offset = w->offset,
                               .length = w->length };
    uint64_t end = w->offset + w->length;
    if (may_keep && w->offset % block == 0 &&
        (end % block == 0 || end == f->config.size)) {
        first = (uint32_t)(w->offset / block);
        count = (uint32_t)((w->length + block - 1) / block);
    }
    fc_source_clear(f->source, first, count);
    if (fc_source_peek(f->source, c->plain, d.length, d.offset)) {
        fc_error("%s: the shadow asks for what cannot be read: %m",
                 f->config.name);
        fc_source_mark(f->source, first, count);
        d.encoding = FC_FRAME_UNREADABLE;
        count = 0;
    }
    return send_data(c, &d, false, first, count);
}

static int send_ask(struct fc_feed *f, const struct fc_ask *a)
{
    int rc = 0;
    if (a->type == FC_FRAME_FENCE) {
        struct fc_blockset todo;
        rc = fc_blockset_init(&todo, f->blocks, false);
        if (rc)
            return rc;
        fc_source_todo(f->source, &todo);
        rc = fc_link_send_set(&f->link, FC_FRAME_MISSING, &todo);
        fc_blockset_dispose(&todo);
    }
    return rc ? rc : fc_link_send_flip(&f->link, a->type, &a->flip);
}

/* ---- what is next; all with the lock held ---------------------------------
 */

/*
 * What may be under way. While reads wait at the other end, all that is pushed
 * stands in their way: then it is little at a time.
 */
static uint64_t window(const struct fc_feed *f)
{
    bool demand =
        f->state == FC_FEED_LEASED && fc_now_ms() - f->wanted_ms < DEMAND_MS;
    return demand && f->window > DEMAND_WINDOW ? DEMAND_WINDOW : f->window;
}

static uint32_t run_max(const struct fc_feed *f)
{
    uint64_t most = window(f) / 4;
    uint64_t bytes = most < RUN_MAX ? most : RUN_MAX;
    uint64_t blocks = bytes / f->config.block_bytes;
    return blocks ? (uint32_t)blocks : 1;
}

static bool next_hint(struct fc_feed *f, uint32_t *first_r)
{
    while (f->nhints) {
        struct fc_frame_want *h = &f->hints[0];
        uint32_t block = (uint32_t)(h->offset / f->config.block_bytes);
        uint64_t end = h->offset + h->length;
        uint32_t at = fc_source_next(f->source, block);
        if ((uint64_t)at * f->config.block_bytes < end && at < f->blocks) {
            *first_r = at;
            return true;
        }
        memmove(h, h + 1, --f->nhints * sizeof(*h));
    }
    return false;
}

static bool next_in_order(struct fc_feed *f, uint32_t *first_r,
                          uint32_t *count_r)
{
    uint32_t n = 0, max = run_max(f);
    while (f->order_at < f->order_len) {
        uint32_t b = f->order[f->order_at];
        if (b >= f->blocks || !fc_source_is_marked(f->source, b)) {
            if (n)
                break;
        } else if (!n) {
            *first_r = b;
            n = 1;
        } else if (n < max && b == *first_r + n) {
            n++;
        } else {
            break;
        }
        f->order_at++;
    }
    *count_r = n;
    return n > 0;
}

static bool next_by_address(struct fc_feed *f, uint32_t *first_r,
                            uint32_t *count_r)
{
    uint32_t at = fc_source_next(f->source, f->cursor), n = 1;
    if (at == f->blocks) {
        uint64_t now = fc_now_ms();
        bool hurry = f->urgent || f->state != FC_FEED_RUNNING;
        if (!hurry && now - f->pass_ms < PASS_MS)
            return false;
        f->pass_ms = now;
        at = fc_source_next(f->source, 0);
    }
    if (at == f->blocks)
        return false;
    uint32_t max = run_max(f);
    while (n < max && at + n < f->blocks &&
           fc_source_is_marked(f->source, at + n))
        n++;
    f->cursor = at + n;
    *first_r = at;
    *count_r = n;
    return true;
}

/* Whether a block may be sent now; otherwise waits a little. */
static bool may_copy(struct fc_feed *f)
{
    bool full = f->flying_bytes && f->flying_bytes >= window(f);
    if (!f->up || f->healing || full || f->seq - f->acked >= FC_FEED_FLYING) {
        fc_feed_wait(f, WAIT_MS);
        return false;
    }
    uint64_t ms = fc_bucket_wait_ms(&f->bucket, fc_now_ms());
    if (ms)
        fc_feed_wait(f, ms < WAIT_MS ? ms : WAIT_MS);
    return !ms;
}

static bool should_check(struct fc_feed *f)
{
    return f->state == FC_FEED_LEASED && !f->complete && !f->returned &&
           !f->checking && f->acked == f->seq &&
           !fc_source_remaining(f->source) &&
           fc_now_ms() - f->checked_ms >= CHECK_MS;
}

/* ---- the thread -----------------------------------------------------------
 */

/* Small frames that are due. 1 when one was sent, with the lock given up. */
static int small_step(struct fc_feed *f)
{
    int rc;
    if (f->bye) {
        pthread_mutex_unlock(&f->lock);
        rc = fc_link_send_text(&f->link, FC_FRAME_BYE, FC_FRAME_FINISHED, "");
        return rc ? rc : FC_ECANCEL;
    }
    if (f->pong) {
        uint64_t value = f->pong_value;
        f->pong = false;
        pthread_mutex_unlock(&f->lock);
        rc = fc_link_send_value(&f->link, FC_FRAME_PONG, value);
        return rc ? rc : 1;
    }
    if (fc_now_ms() - f->link.sent_ms >= PING_MS) {
        pthread_mutex_unlock(&f->lock);
        rc = fc_link_send_value(&f->link, FC_FRAME_PING, fc_now_ms());
        return rc ? rc : 1;
    }
    return 0;
}

static int ask_step(struct fc_feed *f)
{
    struct fc_ask *a = &f->heal;
    if (a->stage != FC_ASK_QUEUED && !f->healing)
        a = &f->ask;
    if (!f->up || a->stage != FC_ASK_QUEUED)
        return 0;
    a->stage = FC_ASK_SENT;
    struct fc_ask copy = *a;
    pthread_mutex_unlock(&f->lock);
    int rc = send_ask(f, &copy);
    return rc ? rc : 1;
}

static int copy_step(struct copier *c)
{
    struct fc_feed *f = c->f;
    uint32_t first = 0, count = 1;
    if (!may_copy(f)) {
        pthread_mutex_unlock(&f->lock);
        return 0;
    }
    if (!next_hint(f, &first) && !next_in_order(f, &first, &count) &&
        !next_by_address(f, &first, &count)) {
        bool check = should_check(f);
        if (check) {
            f->checking = true;
            f->checked_ms = fc_now_ms();
        } else {
            fc_feed_wait(f, IDLE_MS);
        }
        pthread_mutex_unlock(&f->lock);
        return check ? fc_link_send(&f->link, FC_FRAME_CHECK, c->frame, 0) : 0;
    }
    pthread_mutex_unlock(&f->lock);
    return send_run(c, first, count);
}

static int step(struct copier *c)
{
    struct fc_feed *f = c->f;
    pthread_mutex_lock(&f->lock);
    if (f->broken || f->closing) {
        pthread_mutex_unlock(&f->lock);
        return FC_ECANCEL;
    }
    int rc = small_step(f);
    if (rc)
        return rc < 0 ? rc : 0;
    if (f->up && f->nwants && f->seq - f->acked < FC_FEED_FLYING) {
        struct fc_frame_want w = f->wants[0];
        bool may_keep = !f->healing;
        memmove(f->wants, f->wants + 1, --f->nwants * sizeof(w));
        pthread_mutex_unlock(&f->lock);
        return send_answer(c, &w, may_keep);
    }
    rc = ask_step(f);
    if (rc)
        return rc < 0 ? rc : 0;
    return copy_step(c);
}

void *fc_feed_writer(void *feed)
{
    struct fc_feed *f = feed;
    struct copier c = { .f = f };
    pthread_t reader;
    bool started = false;
    c.plain = malloc(FC_FRAME_MAX_PLAIN);
    c.frame = malloc(FC_FRAME_HEADER + FC_FRAME_DATA_HEAD + FC_FRAME_MAX_PLAIN);
    int rc = c.plain && c.frame ? 0 : FC_ENOMEM;
    if (!rc)
        rc = say_hello(f);
    if (!rc && pthread_create(&reader, NULL, fc_feed_reader, f))
        rc = FC_ESYS;
    else if (!rc)
        started = true;
    while (!rc)
        rc = step(&c);
    fc_feed_fail(f, rc, "sending");
    if (started)
        pthread_join(reader, NULL);
    pthread_mutex_lock(&f->lock);
    f->linked = false;
    f->old_sent += f->link.sent_bytes;
    f->old_received += f->link.received_bytes;
    pthread_mutex_unlock(&f->lock);
    fc_link_dispose(&f->link);
    free(c.plain);
    free(c.frame);
    return NULL;
}
