/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "err.h"
#include "io.h"

/*
 * A queue of records under a lock. The event loop turns bitmaps into runs and
 * adds them, unless too many bytes wait already; the thread compresses and
 * writes. Only the thread touches the descriptor and the writer. After a
 * failure it is done: what is in the queue then, or comes later, is dropped.
 *
 * A frame goes out when it is full, and after FLUSH_S at the latest: so much a
 * crash may cost.
 */
#define FLUSH_S 10

struct item {
    struct item *next;
    size_t bytes;
    struct fc_trace_record record; /* its runs are `run` */
    uint32_t requests; /* instead of a record, in the place of its runs */
    struct fc_trace_run run[];
};

struct fc_recorder {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake; /* by CLOCK_MONOTONIC; both ways */
    /* under lock */
    struct item *first, **last;
    size_t waiting; /* bytes of the items not yet written */
    bool end;
    struct fc_recorder_state state;

    /* the thread's own */
    int fd;
    struct fc_trace_head head;
    struct fc_trace_writer *writer;
};

static struct timespec after_ms(uint64_t ms)
{
    uint64_t ns = fc_now_ns() + ms * 1000000;
    return (struct timespec){ (time_t)(ns / 1000000000),
                              (long)(ns % 1000000000) };
}

/* Notes how far the file is. Returns rc. */
static int note(struct fc_recorder *r, int rc)
{
    int error = errno;
    struct stat st;
    bool known = !fstat(r->fd, &st);
    pthread_mutex_lock(&r->lock);
    r->state.rc = rc;
    r->state.error = rc == FC_EIO ? error : 0;
    if (known)
        r->state.bytes = (uint64_t)st.st_size;
    pthread_mutex_unlock(&r->lock);
    return rc;
}

/* The next item; NULL with *end_r when none will come, and without when it is
 * time to flush. */
static struct item *take(struct fc_recorder *r, uint64_t *flush_ms, bool *end_r)
{
    struct timespec limit =
        after_ms(*flush_ms > fc_now_ms() ? *flush_ms - fc_now_ms() : 0);
    int late = 0;
    pthread_mutex_lock(&r->lock);
    while (!r->first && !r->end && !late)
        late = pthread_cond_timedwait(&r->wake, &r->lock, &limit);
    struct item *item = r->first;
    if (item && !(r->first = item->next))
        r->last = &r->first;
    *end_r = !item && r->end;
    pthread_mutex_unlock(&r->lock);
    return item;
}

static void written(struct fc_recorder *r, struct item *item)
{
    pthread_mutex_lock(&r->lock);
    r->waiting -= item->bytes;
    pthread_mutex_unlock(&r->lock);
    free(item);
}

static struct fc_recorder_request *requests_of(struct item *item)
{
    return (struct fc_recorder_request *)(void *)item->run;
}

static int put_item(struct fc_recorder *r, struct item *item)
{
    int rc = item->requests ? 0 : fc_trace_put(r->writer, &item->record);
    for (uint32_t i = 0; i < item->requests && !rc; i++) {
        const struct fc_recorder_request *q = &requests_of(item)[i];
        const struct fc_trace_run run = { q->first, q->count };
        const struct fc_trace_record record = {
            .type = q->type, .time_us = q->time_us, .run_count = 1, .run = &run
        };
        rc = fc_trace_put(r->writer, &record);
    }
    return rc;
}

static int write_all_items(struct fc_recorder *r)
{
    uint64_t flush_ms = fc_now_ms() + FLUSH_S * 1000;
    bool end = false;
    int rc = note(r, fc_trace_writer_new(r->fd, &r->head, &r->writer));
    while (!rc && !end) {
        struct item *item = take(r, &flush_ms, &end);
        if (item) {
            rc = put_item(r, item);
            written(r, item);
        }
        if (!rc && fc_now_ms() >= flush_ms) {
            rc = fc_trace_flush(r->writer);
            flush_ms = fc_now_ms() + FLUSH_S * 1000;
        }
        rc = note(r, rc);
    }
    return rc ? rc : note(r, fc_trace_finish(r->writer));
}

static void *thread_main(void *arg)
{
    struct fc_recorder *r = arg;
    (void)write_all_items(r);
    fc_trace_writer_free(r->writer);
    fc_close(&r->fd);
    pthread_mutex_lock(&r->lock);
    r->state.done = true;
    pthread_cond_broadcast(&r->wake);
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

static int start_thread(struct fc_recorder *r)
{
    /* Signals are the event loop's. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    errno = pthread_create(&r->thread, NULL, thread_main, r);
    int rc = errno ? FC_ESYS : 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

static bool file_ok(int fd)
{
    struct stat st;
    int flags = fcntl(fd, F_GETFL);
    return fd >= 0 && flags >= 0 && (flags & O_ACCMODE) != O_RDONLY &&
           !fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_size == 0;
}

static void destroy(struct fc_recorder *r)
{
    while (r->first) {
        struct item *item = r->first;
        r->first = item->next;
        free(item);
    }
    fc_close(&r->fd);
    pthread_cond_destroy(&r->wake);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

int fc_recorder_new(int fd, const struct fc_trace_head *head,
                    struct fc_recorder **recorder_r)
{
    struct fc_recorder *r = file_ok(fd) ? calloc(1, sizeof(*r)) : NULL;
    if (!r) {
        int rc = file_ok(fd) ? FC_ENOMEM : FC_EINVAL;
        fc_close(&fd);
        return rc;
    }
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    r->fd = fd;
    r->head = *head;
    r->last = &r->first;
    int rc = start_thread(r);
    if (rc)
        destroy(r);
    else
        *recorder_r = r;
    return rc;
}

/* Hands the item over, or frees it. */
static int add(struct fc_recorder *r, struct item *item)
{
    pthread_mutex_lock(&r->lock);
    int rc = r->state.rc;
    if (!rc && r->waiting + item->bytes > FC_RECORDER_QUEUE)
        rc = FC_EFULL;
    if (!rc) {
        r->waiting += item->bytes;
        *r->last = item;
        r->last = &item->next;
        item = NULL;
        pthread_cond_broadcast(&r->wake);
    }
    pthread_mutex_unlock(&r->lock);
    free(item);
    return rc;
}

/* Fills in the runs of set bits (only counts them when `run` is NULL). Returns
 * their number, and that of the pages. */
static size_t runs_of(const uint64_t *bits, uint64_t pfns, uint64_t skip,
                      struct fc_trace_run *run, uint64_t *pages_r)
{
    size_t n = 0;
    uint64_t end = UINT64_MAX; /* of the run before */
    *pages_r = 0;
    for (uint64_t w = 0; w * 64 < pfns; w++)
        for (uint64_t word = bits[w]; word; word &= word - 1) {
            uint64_t pfn = w * 64 + (unsigned)__builtin_ctzll(word);
            if (pfn >= pfns || pfn == skip)
                continue;
            n += pfn != end;
            if (run && pfn != end)
                run[n - 1] = (struct fc_trace_run){ pfn, 0 };
            if (run)
                run[n - 1].count++;
            end = pfn + 1;
            ++*pages_r;
        }
    return n;
}

static struct item *new_item(enum fc_trace_type type, uint64_t time_us,
                             size_t runs)
{
    size_t bytes = sizeof(struct item) + runs * sizeof(struct fc_trace_run);
    struct item *item = malloc(bytes);
    if (!item)
        return NULL;
    *item = (struct item){
        .bytes = bytes,
        .record = { .type = type,
                    .time_us = time_us,
                    .run_count = (uint32_t)runs },
    };
    item->record.run = item->run;
    return item;
}

int fc_recorder_tick(struct fc_recorder *r, uint64_t time_us,
                     const uint64_t *bits, uint64_t pfns, uint64_t skip,
                     uint64_t *pages_r)
{
    size_t runs = runs_of(bits, pfns, skip, NULL, pages_r);
    if (runs > FC_RECORDER_QUEUE / sizeof(struct fc_trace_run))
        return FC_EFULL;
    struct item *item = new_item(FC_TRACE_TICK, time_us, runs);
    if (!item)
        return FC_ENOMEM;
    runs_of(bits, pfns, skip, item->run, pages_r);
    return add(r, item);
}

int fc_recorder_rates(struct fc_recorder *r, uint64_t time_us,
                      const struct fc_trace_rates *rates)
{
    struct item *item = new_item(FC_TRACE_RATES, time_us, 0);
    if (!item)
        return FC_ENOMEM;
    item->record.rates = *rates;
    return add(r, item);
}

int fc_recorder_requests(struct fc_recorder *r, uint32_t count,
                         const struct fc_recorder_request *request)
{
    size_t bytes = sizeof(struct item) + count * sizeof(*request);
    struct item *item = count ? malloc(bytes) : NULL;
    if (!item)
        return count ? FC_ENOMEM : 0;
    *item = (struct item){ .bytes = bytes, .requests = count };
    memcpy(requests_of(item), request, count * sizeof(*request));
    return add(r, item);
}

void fc_recorder_end(struct fc_recorder *r)
{
    pthread_mutex_lock(&r->lock);
    r->end = true;
    pthread_cond_broadcast(&r->wake);
    pthread_mutex_unlock(&r->lock);
}

void fc_recorder_state(struct fc_recorder *r, struct fc_recorder_state *state)
{
    pthread_mutex_lock(&r->lock);
    *state = r->state;
    pthread_mutex_unlock(&r->lock);
}

void fc_recorder_free(struct fc_recorder *r)
{
    int late = 0;
    if (!r)
        return;
    struct timespec limit = after_ms(FC_RECORDER_WAIT_MS);
    pthread_mutex_lock(&r->lock);
    r->end = true;
    pthread_cond_broadcast(&r->wake);
    while (!r->state.done && !late)
        late = pthread_cond_timedwait(&r->wake, &r->lock, &limit);
    bool done = r->state.done;
    pthread_mutex_unlock(&r->lock);
    if (!done) {
        pthread_detach(r->thread); /* and with it what it uses */
        return;
    }
    pthread_join(r->thread, NULL);
    destroy(r);
}
