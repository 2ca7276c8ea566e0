/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "keeper_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "err.h"
#include "log.h"
#include "wire.h"

/*
 * One channel. A header is read, then its body into a buffer that grows to
 * what the header says (only after HELLO to more than a little), then the
 * frame is acted on; so a channel holds one frame at most. Answers go to a
 * fixed output buffer; while it is more than half full, or too many evictions
 * wait to be told, nothing more is read, and the sender feels it.
 *
 * Anything malformed ends this channel with an ERROR frame that says what; the
 * store and the other channels do not notice.
 */
#define SMALL_BODY                                                             \
    1024u /* every frame but PUT and DROP, and all before HELLO */
#define PUT_HEADER 8u
#define HELLO_MS 30000u
#define CLOSING_MS 5000u
#define RELEASE_MS 2000u /* of silence, then a long frame's memory goes */
#define EVICTED_HIGH 65536u

static void reset_frame(struct fc_keeper_chan *c)
{
    c->head_have = 0;
    c->body_have = 0;
}

static void free_body(struct fc_keeper_chan *c)
{
    free(c->body);
    c->body = NULL;
    c->body_cap = 0;
}

int fc_keeper_chan_open(struct fc_keeper *k, struct fc_keeper_chan *c,
                        uint64_t id, int in, int out)
{
    *c = (struct fc_keeper_chan){ .state = FC_CHAN_HELLO,
                                  .id = id,
                                  .in = in,
                                  .out = out,
                                  .heard_ms = k->now_ms,
                                  .flowing_ms = k->now_ms };
    c->output = malloc(FC_KEEPER_OUT_BYTES);
    if (c->output && !fc_set_nonblock(in, 1) && !fc_set_nonblock(out, 1))
        return 0;
    fc_keeper_chan_close(k, c);
    return FC_ENOMEM;
}

void fc_keeper_chan_close(struct fc_keeper *k, struct fc_keeper_chan *c)
{
    if (c->state == FC_CHAN_UNUSED)
        return;
    fc_close(&c->in);
    fc_close(&c->out);
    free_body(c);
    free(c->output);
    c->output = NULL;
    c->state = FC_CHAN_UNUSED;
    fc_keeper_closed(k, c->id);
}

size_t fc_keeper_chan_room(const struct fc_keeper_chan *c)
{
    return FC_KEEPER_OUT_BYTES - c->out_len;
}

void fc_keeper_chan_queue(struct fc_keeper_chan *c, enum fc_channel_type type,
                          const void *body, size_t len)
{
    if (FC_CHANNEL_HEADER + len > fc_keeper_chan_room(c))
        return;
    memmove(c->output, c->output + c->out_at, c->out_len);
    c->out_at = 0;
    uint8_t *to = c->output + c->out_len;
    fc_channel_head_make(to, type, body, (uint32_t)len);
    if (len)
        memcpy(to + FC_CHANNEL_HEADER, body, len);
    c->out_len += FC_CHANNEL_HEADER + len;
}

static void start_closing(struct fc_keeper *k, struct fc_keeper_chan *c)
{
    c->state = FC_CHAN_CLOSING;
    c->close_by_ms = k->now_ms + CLOSING_MS;
}

void fc_keeper_chan_bye(struct fc_keeper *k, struct fc_keeper_chan *c,
                        enum fc_channel_bye reason, const char *text)
{
    uint8_t body[2 + FC_CHANNEL_MAX_TEXT];
    ssize_t len = fc_channel_text_make(FC_CHANNEL_BYE, (uint16_t)reason, text,
                                       body, sizeof(body));
    if (c->state == FC_CHAN_HELLO || c->state == FC_CHAN_OPEN) {
        fc_keeper_chan_queue(c, FC_CHANNEL_BYE, body, (size_t)len);
        start_closing(k, c);
    }
}

/* Tells both sides what is wrong with this channel, and ends it. */
static void fail(struct fc_keeper *k, struct fc_keeper_chan *c, int rc,
                 const char *why)
{
    uint8_t body[FC_CHANNEL_MAX_TEXT];
    ssize_t len =
        fc_channel_text_make(FC_CHANNEL_ERROR, 0, why, body, sizeof(body));
    k->last_error = rc;
    fc_keeper_log(k, FC_LOG_WARN, "channel %u closed: %s", (unsigned)c->number,
                  why);
    fc_keeper_chan_queue(c, FC_CHANNEL_ERROR, body, (size_t)len);
    start_closing(k, c);
}

bool fc_keeper_chan_reads(const struct fc_keeper *k,
                          const struct fc_keeper_chan *c)
{
    return (c->state == FC_CHAN_HELLO || c->state == FC_CHAN_OPEN) &&
           fc_keeper_chan_room(c) >= FC_KEEPER_OUT_RESERVE &&
           k->evicted_count < EVICTED_HIGH;
}

bool fc_keeper_chan_writes(const struct fc_keeper_chan *c)
{
    return c->state != FC_CHAN_UNUSED && c->out_len;
}

static void on_hello(struct fc_keeper *k, struct fc_keeper_chan *c)
{
    struct fc_channel_hello hello;
    struct fc_channel_welcome welcome = { .version = FC_CHANNEL_VERSION };
    struct fc_store_stats st;
    uint8_t body[64];
    if (c->state != FC_CHAN_HELLO) {
        fail(k, c, FC_EFORMAT, "a second HELLO");
        return;
    }
    if (fc_channel_hello_parse(c->body, c->head.length, &hello)) {
        fail(k, c, FC_EFORMAT, "malformed HELLO");
        return;
    }
    if (hello.lowest > FC_CHANNEL_VERSION ||
        hello.highest < FC_CHANNEL_VERSION) {
        fail(k, c, FC_EVERSION, "no protocol version in common");
        return;
    }
    if (memcmp(hello.uuid, k->args.uuid, FC_UUID_BYTES)) {
        fail(k, c, FC_EPERM, "the keeper serves another guest");
        return;
    }
    for (unsigned i = 0; i < FC_KEEPER_CHANNELS; i++)
        if (k->chan[i].state == FC_CHAN_OPEN &&
            k->chan[i].number == hello.channel)
            fc_keeper_chan_close(k, &k->chan[i]);
    fc_store_stats_get(k->store, &st);
    welcome.epoch = fc_store_epoch(k->store);
    memcpy(welcome.token, k->args.token, FC_TOKEN_BYTES);
    welcome.pages_held = st.pfns;
    welcome.budget_bytes = st.budget_bytes;
    ssize_t len = fc_channel_welcome_make(&welcome, body, sizeof(body));
    c->number = hello.channel;
    c->state = FC_CHAN_OPEN;
    fc_keeper_chan_queue(c, FC_CHANNEL_WELCOME, body, (size_t)len);
    fc_keeper_log(k, FC_LOG_INFO, "channel %u open for %s", (unsigned)c->number,
                  hello.name);
}

void fc_keeper_chan_evicted(void *user, uint64_t pfn)
{
    struct fc_keeper *k = user;
    if (k->evicted_count == k->evicted_cap) {
        size_t cap = k->evicted_cap ? 2 * k->evicted_cap : 4096;
        uint32_t *more = realloc(k->evicted, cap * sizeof(*more));
        if (!more) {
            k->failed = true;
            return;
        }
        k->evicted = more;
        k->evicted_cap = cap;
    }
    k->evicted[k->evicted_count++] = (uint32_t)pfn;
}

/* Whether the page is held now. */
static bool put_page(struct fc_keeper *k, const struct fc_batch_step *step)
{
    uint64_t pfn = step->entry & FC_PFN_MASK;
    int rc = FC_ECHECK;
    if (k->good[step->data_index])
        rc = fc_store_put(k->store, pfn, step->hash,
                          k->pages + (size_t)step->data_index * FC_PAGE_SIZE,
                          fc_keeper_chan_evicted, k);
    else
        fc_store_drop(k->store, pfn);
    if (rc)
        k->last_error = rc;
    return !rc;
}

static void on_put(struct fc_keeper *k, struct fc_keeper_chan *c)
{
    static uint64_t refused[FC_BATCH_PAGES];
    static uint8_t body[16 + sizeof(refused)];
    struct fc_batch batch;
    struct fc_batch_iter it;
    struct fc_batch_step step;
    const char *why = "malformed PUT";
    uint32_t nrefused = 0;
    if (c->head.length < PUT_HEADER ||
        fc_batch_parse(c->body + PUT_HEADER, c->head.length - PUT_HEADER,
                       &batch, &why)) {
        fail(k, c, FC_EFORMAT, why);
        return;
    }
    if (batch.data_pages != batch.pages) {
        fail(k, c, FC_EFORMAT, "PUT with pages that are not data");
        return;
    }
    if (fc_batch_unpack(&batch, k->pages, k->good) < batch.data_pages)
        fc_keeper_log(k, FC_LOG_WARN, "channel %u: pages with a wrong hash",
                      (unsigned)c->number);
    fc_batch_iter_init(&it, &batch);
    while (fc_batch_next(&it, &step))
        if (!put_page(k, &step))
            refused[nrefused++] = step.entry & FC_PFN_MASK;
    ssize_t len = fc_channel_stored_make(fc_le_load(c->body, 8), batch.pages,
                                         refused, nrefused, body, sizeof(body));
    fc_keeper_chan_queue(c, FC_CHANNEL_STORED, body, (size_t)len);
}

static void on_drop(struct fc_keeper *k, struct fc_keeper_chan *c)
{
    static uint64_t pfns[FC_CHANNEL_MAX_PFNS];
    uint32_t count;
    if (fc_channel_pfns_parse(c->body, c->head.length, pfns, &count)) {
        fail(k, c, FC_EFORMAT, "malformed DROP");
        return;
    }
    for (uint32_t i = 0; i < count; i++)
        fc_store_drop(k->store, pfns[i]);
}

static void on_bye(struct fc_keeper *k, struct fc_keeper_chan *c)
{
    char text[FC_CHANNEL_MAX_TEXT + 1];
    uint16_t reason;
    if (fc_channel_text_parse(FC_CHANNEL_BYE, c->body, c->head.length, &reason,
                              text)) {
        fail(k, c, FC_EFORMAT, "malformed BYE");
        return;
    }
    fc_keeper_log(k, FC_LOG_INFO, "channel %u: BYE %u %s", (unsigned)c->number,
                  (unsigned)reason, text);
    if (reason == FC_BYE_MIGRATED || reason == FC_BYE_DISARMED)
        fc_keeper_end(k, reason, "freed");
    else
        fc_keeper_chan_bye(k, c, reason, "kept");
}

static void on_error(struct fc_keeper *k, struct fc_keeper_chan *c)
{
    char text[FC_CHANNEL_MAX_TEXT + 1] = "malformed ERROR";
    if (!fc_channel_text_parse(FC_CHANNEL_ERROR, c->body, c->head.length, NULL,
                               text))
        k->last_error = FC_EPEER;
    fc_keeper_log(k, FC_LOG_WARN, "channel %u: the source says: %s",
                  (unsigned)c->number, text);
    fc_keeper_chan_close(k, c);
}

static void act(struct fc_keeper *k, struct fc_keeper_chan *c)
{
    uint64_t value;
    if (fc_channel_check(&c->head, c->body)) {
        fail(k, c, FC_ECHECK, "a frame's check does not match");
        return;
    }
    switch (c->head.type) {
    case FC_CHANNEL_HELLO:
        on_hello(k, c);
        break;
    case FC_CHANNEL_PUT:
        on_put(k, c);
        break;
    case FC_CHANNEL_DROP:
        on_drop(k, c);
        break;
    case FC_CHANNEL_PING:
        if (fc_channel_value_parse(c->body, c->head.length, &value))
            fail(k, c, FC_EFORMAT, "malformed PING");
        else
            fc_keeper_chan_queue(c, FC_CHANNEL_PONG, c->body, c->head.length);
        break;
    case FC_CHANNEL_PONG:
        break;
    case FC_CHANNEL_MODEL:
        fc_keeper_model(k, c->body, c->head.length);
        break;
    case FC_CHANNEL_BYE:
        on_bye(k, c);
        break;
    case FC_CHANNEL_ERROR:
        on_error(k, c);
        break;
    case FC_CHANNEL_WELCOME:
    case FC_CHANNEL_STORED:
    case FC_CHANNEL_EVICTED:
        fail(k, c, FC_EFORMAT, "a frame of the wrong direction");
        break;
    }
}

static uint32_t longest(const struct fc_keeper_chan *c)
{
    if (c->state == FC_CHAN_OPEN && c->head.type == FC_CHANNEL_PUT)
        return PUT_HEADER + FC_BATCH_MAX_BYTES;
    if (c->state == FC_CHAN_OPEN && c->head.type == FC_CHANNEL_DROP)
        return FC_CHANNEL_MAX_PFNS * (uint32_t)sizeof(uint64_t);
    if (c->state == FC_CHAN_OPEN && c->head.type == FC_CHANNEL_MODEL)
        return FC_CHANNEL_MAX_MODEL;
    return SMALL_BODY;
}

/* The header is complete: may its body come? */
static bool accept_head(struct fc_keeper *k, struct fc_keeper_chan *c)
{
    int rc = fc_channel_head_parse(c->head_raw, &c->head);
    if (rc) {
        fail(k, c, rc,
             rc == FC_EVERSION  ? "a frame of an unknown version"
             : rc == FC_ETOOBIG ? "a frame that is too long"
                                : "not a frame");
        return false;
    }
    if (c->state == FC_CHAN_HELLO && c->head.type != FC_CHANNEL_HELLO &&
        c->head.type != FC_CHANNEL_ERROR) {
        fail(k, c, FC_EFORMAT, "a frame before HELLO");
        return false;
    }
    if (c->head.length > longest(c)) {
        fail(k, c, FC_ETOOBIG, "a frame that is too long for its type");
        return false;
    }
    if (c->head.length > c->body_cap || !c->body) {
        size_t cap = c->head.length > SMALL_BODY ? c->head.length : SMALL_BODY;
        uint8_t *body = realloc(c->body, cap);
        if (!body) {
            fail(k, c, FC_ENOMEM, "the destination is out of memory");
            return false;
        }
        c->body = body;
        c->body_cap = cap;
    }
    return true;
}

/* Bytes into `to`; false when there are none for now or the channel ended. */
static bool take(struct fc_keeper *k, struct fc_keeper_chan *c, uint8_t *to,
                 size_t want, size_t *have)
{
    ssize_t r = read(c->in, to + *have, want - *have);
    if (r > 0) {
        *have += (size_t)r;
        k->received_bytes += (uint64_t)r;
        if (c->state == FC_CHAN_OPEN)
            c->heard_ms = k->now_ms;
        return true;
    }
    if (r < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return false;
    fc_keeper_log(k, FC_LOG_INFO, "channel %u: cut", (unsigned)c->number);
    fc_keeper_chan_close(k, c);
    return false;
}

void fc_keeper_chan_read(struct fc_keeper *k, struct fc_keeper_chan *c)
{
    if (c->head_have < FC_CHANNEL_HEADER) {
        if (!take(k, c, c->head_raw, FC_CHANNEL_HEADER, &c->head_have) ||
            c->head_have < FC_CHANNEL_HEADER || !accept_head(k, c))
            return;
    }
    while (c->body_have < c->head.length)
        if (!take(k, c, c->body, c->head.length, &c->body_have))
            return;
    act(k, c);
    reset_frame(c);
}

void fc_keeper_chan_write(struct fc_keeper *k, struct fc_keeper_chan *c)
{
    ssize_t r = write(c->out, c->output + c->out_at, c->out_len);
    if (r < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (r < 0) {
        fc_keeper_chan_close(k, c);
        return;
    }
    c->out_at += (size_t)r;
    c->out_len -= (size_t)r;
    c->flowing_ms = k->now_ms;
    if (!c->out_len && c->state == FC_CHAN_CLOSING)
        fc_keeper_chan_close(k, c);
}

void fc_keeper_chan_timers(struct fc_keeper *k, struct fc_keeper_chan *c)
{
    if (c->state == FC_CHAN_UNUSED)
        return;
    if (!c->out_len)
        c->flowing_ms = k->now_ms;
    if (c->state == FC_CHAN_OPEN && !fc_keeper_chan_reads(k, c))
        c->heard_ms = k->now_ms; /* the silence is ours */
    uint64_t silent = k->now_ms - c->heard_ms;
    if (silent > RELEASE_MS && !c->head_have && c->body_cap > SMALL_BODY)
        free_body(c);
    if (c->state == FC_CHAN_CLOSING) {
        if (k->now_ms >= c->close_by_ms || !c->out_len)
            fc_keeper_chan_close(k, c);
    } else if (k->now_ms - c->flowing_ms > k->args.idle_ms) {
        fc_keeper_log(k, FC_LOG_WARN, "channel %u: the source reads nothing",
                      (unsigned)c->number);
        k->last_error = FC_ETIMEOUT;
        fc_keeper_chan_close(k, c);
    } else if (c->state == FC_CHAN_HELLO && silent > HELLO_MS) {
        fail(k, c, FC_ETIMEOUT, "no HELLO came");
    } else if (c->state == FC_CHAN_OPEN && silent > k->args.idle_ms) {
        fail(k, c, FC_ETIMEOUT, "silent for too long");
    }
}
