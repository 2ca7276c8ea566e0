/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "stager.h"

#include <stdlib.h>
#include <string.h>

#include "err.h"

/*
 * The way of a page: ranked among the candidates (ranking.h, pagetab.h),
 * coldest first; handed to the worker in a job of up to FC_JOB_PAGES; there
 * copied, found absent, zero, unchanged or worth sending, and compressed; sent
 * as one PUT; staged when the destination has acknowledged it.
 *
 * At most JOBS jobs are with the worker, and none is given to it while one
 * waits for the uplink, which bounds memory. The token bucket is charged for
 * bytes sent, and a little for each page read, so that searching for something
 * to send is bounded too.
 *
 * Ranking looks at SLICE_PAGES at a time, so that the event loop is not held up
 * by a large guest; slices take turns when one is used up.
 *
 * Where the ranked list holds its risk, the pages that are within the chance
 * that it takes in go first, through all slices, and only then the others up to
 * the limit that was set: which of the likelier ones is staged in vain costs
 * nothing but the rate, and one that turns out to stay is one less to send. So
 * the list decides what comes first and not what is left out.
 *
 * When the destination's store is full it drops the pages least recently put,
 * which are no worse than the ones that pushed them out. So from the first
 * refusal or eviction on no new pages are staged, except as many as were
 * dropped because they went stale: these are looked for now and then.
 */
#define JOBS 2u
#define SLICE_PAGES (1u << 19)
#define RANK_LIMIT 65536u
#define RANK_AGAIN_MS 1000u /* at the earliest */
#define RANK_STALE_MS 5000u
#define OTHERS_MS 30000u /* then it is seen whether the list has more */
#define HORIZON_MS 10000u
#define RETRY_MS 1000u
#define DROP_EACH_MS 5000u
#define READ_COST_BYTES 64u
#define MIN_BURST_BYTES 65536u

void fc_stager_init(struct fc_stager *s, const struct fc_stager_args *args,
                    uint64_t now_ms)
{
    memset(s, 0, sizeof(*s));
    s->args = *args;
    fc_bucket_init(&s->bucket, 0, MIN_BURST_BYTES, now_ms);
}

/* The job that has waited longest, or NULL. */
static struct fc_job *take_waiting(struct fc_stager *s)
{
    struct fc_job *job = s->waiting;
    if (job)
        s->waiting = job->next;
    return job;
}

void fc_stager_dispose(struct fc_stager *s)
{
    struct fc_job *job;
    while ((job = take_waiting(s)))
        fc_job_free(job);
    fc_ranking_dispose(&s->ranking);
    memset(s, 0, sizeof(*s));
}

struct filter {
    const struct fc_stager *s;
    uint64_t now_ms;
};

static bool is_candidate(void *user, uint64_t page)
{
    const struct filter *f = user;
    return fc_pagetab_candidate(f->s->args.pages, page, f->now_ms,
                                f->s->limits.quiet_ms,
                                f->s->full && !f->s->room);
}

static void begin_round(struct fc_stager *s, bool by_list, uint64_t now_ms)
{
    s->by_list = by_list;
    s->round_ms = now_ms;
    s->idle_pages = 0;
}

/* Goes on to another round when nothing more is found in this one. False: it is
 * not time for one. */
static bool next_round(struct fc_stager *s, uint64_t now_ms)
{
    /* in a single slice the order of the chances says it all */
    bool listed = s->limits.list_p >= 0 && s->limits.list_p < s->limits.risk &&
                  s->args.pages->pfns > SLICE_PAGES;
    if (s->by_list) {
        if (s->idle_pages >= s->args.pages->pfns || !listed)
            begin_round(s, false, now_ms);
    } else if (s->idle_pages >= s->args.pages->pfns) {
        if (now_ms - s->ranked_ms < RANK_AGAIN_MS)
            return false;
        s->settled = true;
        begin_round(s, listed, now_ms);
    } else if (listed && !s->idle_pages && now_ms - s->round_ms >= OTHERS_MS) {
        begin_round(s, true, now_ms);
    }
    return true;
}

/* Ranks the next slice when it is time. */
static void rank(struct fc_stager *s, uint64_t now_ms)
{
    uint64_t pfns = s->args.pages->pfns;
    if (!next_round(s, now_ms))
        return;
    double most_p = s->by_list ? s->limits.list_p : s->limits.risk;
    struct filter filter = { s, now_ms };
    uint64_t first = s->slice < pfns ? s->slice : 0;
    uint64_t end = pfns - first > SLICE_PAGES ? first + SLICE_PAGES : pfns;
    s->ranked_ms = now_ms;
    if (fc_ranking_build(&s->ranking, s->args.scorer, first, end, is_candidate,
                         &filter, HORIZON_MS, (float)most_p, RANK_LIMIT))
        s->retry_ms = now_ms + RETRY_MS;
    if (s->ranking.count) {
        s->idle_pages = 0;
        s->settled = false;
        return;
    }
    s->idle_pages += end - first;
    s->slice = end < pfns ? end : 0;
}

/* A job of the coldest candidates, or NULL. */
static struct fc_job *gather(struct fc_stager *s, uint64_t now_ms)
{
    struct filter filter = { s, now_ms };
    struct fc_job *job = NULL;
    uint64_t pfn;
    while ((!job || job->count < FC_JOB_PAGES) &&
           fc_ranking_next(&s->ranking, &pfn)) {
        if (!is_candidate(&filter, pfn))
            continue;
        if (!job && !(job = calloc(1, sizeof(*job))))
            return NULL;
        struct fc_job_page *p = &job->page[job->count++];
        p->pfn = pfn;
        p->known = fc_pagetab_begin(s->args.pages, pfn);
        if (s->room && fc_hash_is_none(p->known))
            s->room--;
    }
    return job;
}

/* Stale pages that are likely to be written again make room. */
static void drop_stale(struct fc_stager *s, uint64_t now_ms)
{
    uint64_t pfns[FC_CHANNEL_MAX_PFNS];
    uint32_t count = 0;
    const struct fc_scorer *scorer = s->args.scorer;
    if (!s->full || s->room || now_ms - s->dropped_ms < DROP_EACH_MS)
        return;
    s->dropped_ms = now_ms;
    uint64_t first = s->slice, end = s->args.pages->pfns;
    if (end - first > SLICE_PAGES)
        end = first + SLICE_PAGES;
    for (uint64_t pfn = first; pfn < end && count < FC_CHANNEL_MAX_PFNS;
         pfn++) {
        if (!fc_pagetab_is_stale(s->args.pages, pfn) ||
            scorer->ops->p_dirty(scorer->state, pfn, HORIZON_MS) <=
                (float)s->limits.risk)
            continue;
        fc_pagetab_evicted(s->args.pages, pfn);
        pfns[count++] = pfn;
    }
    fc_uplink_drop(s->uplink, pfns, count);
    s->room = count;
}

static void send(struct fc_stager *s, struct fc_job *job, uint64_t now_ms)
{
    uint8_t *memory = job->batch;
    size_t bytes = job->batch_bytes;
    unsigned pages = job->data_pages;
    job->batch = NULL; /* the uplink's, whatever happens */
    if (fc_uplink_put(s->uplink, memory, memory + FC_JOB_HEADROOM, bytes,
                      job)) {
        fc_stager_lost(s, job);
        return;
    }
    fc_bucket_take(&s->bucket, bytes, now_ms);
    s->pages_sent += pages;
}

static void send_waiting(struct fc_stager *s, uint64_t now_ms)
{
    while (s->waiting && fc_uplink_may_put(s->uplink))
        send(s, take_waiting(s), now_ms);
}

static void take_limits(struct fc_stager *s,
                        const struct fc_stager_limits *limits, uint64_t now_ms)
{
    if (limits->rate_bps != s->limits.rate_bps) {
        uint64_t burst = limits->rate_bps / 8;
        fc_bucket_set_rate(&s->bucket, limits->rate_bps, now_ms);
        s->bucket.burst_bytes =
            burst > MIN_BURST_BYTES ? burst : MIN_BURST_BYTES;
    }
    s->limits = *limits;
}

void fc_stager_run(struct fc_stager *s, const struct fc_stager_limits *limits,
                   bool sampling, uint64_t now_ms)
{
    take_limits(s, limits, now_ms);
    if (s->held || !s->uplink)
        return;
    send_waiting(s, now_ms);
    if (!sampling || now_ms < s->retry_ms)
        return;
    drop_stale(s, now_ms);
    while (s->jobs < JOBS && !s->waiting && fc_uplink_may_put(s->uplink) &&
           !fc_bucket_wait_ms(&s->bucket, now_ms)) {
        if (s->ranking.next >= s->ranking.count ||
            now_ms - s->ranked_ms > RANK_STALE_MS)
            rank(s, now_ms);
        struct fc_job *job = gather(s, now_ms);
        if (!job)
            return;
        job->owner = s->args.owner;
        job->domid = s->args.domid;
        s->jobs++;
        fc_worker_submit(s->args.worker, job);
    }
}

/* All pages of the job that were to be sent, or all, come to nothing. */
static void fail_pages(struct fc_stager *s, const struct fc_job *job,
                       bool only_data)
{
    for (unsigned i = 0; i < job->count; i++)
        if (!only_data || job->page[i].found == FC_PAGE_DATA)
            fc_pagetab_failed(s->args.pages, job->page[i].pfn);
}

/* Notes what was found; the destination need not keep what is zero now. */
static void take_results(struct fc_stager *s, const struct fc_job *job,
                         uint64_t now_ms)
{
    uint64_t gone[FC_JOB_PAGES], last_absent = UINT64_MAX;
    uint32_t ngone = 0, read = 0;
    struct fc_pagetab *t = s->args.pages;

    for (unsigned i = 0; i < job->count; i++) {
        const struct fc_job_page *p = &job->page[i];
        (void)fc_pagetab_read(t, p->pfn, p->found, now_ms);
        s->pages_same += p->found == FC_PAGE_SAME;
        read += p->found != FC_PAGE_ABSENT;
        if (p->found == FC_PAGE_ABSENT) {
            if (last_absent != UINT64_MAX)
                fc_pagetab_trim(t, last_absent);
            last_absent = p->pfn;
        }
        if ((p->found == FC_PAGE_ABSENT || p->found == FC_PAGE_ZERO) &&
            !fc_hash_is_none(p->known))
            gone[ngone++] = p->pfn;
    }
    if (last_absent != UINT64_MAX)
        fc_pagetab_trim(t, last_absent);
    if (ngone && s->uplink)
        fc_uplink_drop(s->uplink, gone, ngone);
    fc_bucket_take(&s->bucket, (uint64_t)read * READ_COST_BYTES, now_ms);
}

int fc_stager_job_done(struct fc_stager *s, struct fc_job *job, uint64_t now_ms)
{
    int rc = job->rc;
    s->jobs--;
    if (rc) {
        fail_pages(s, job, false);
        fc_job_free(job);
        s->retry_ms = now_ms + RETRY_MS;
        return rc;
    }
    take_results(s, job, now_ms);
    if (!job->data_pages) {
        fc_job_free(job);
        return 0;
    }
    double mean = (double)job->batch_bytes / job->data_pages;
    double us = (double)job->took_ns / 1000.0 / job->count;
    s->page_bytes += (s->page_bytes > 0 ? 0.05 : 1.0) * (mean - s->page_bytes);
    s->page_us += (s->page_us > 0 ? 0.05 : 1.0) * (us - s->page_us);
    if (s->held || !s->uplink) {
        fc_stager_lost(s, job);
        return 0;
    }
    struct fc_job **last = &s->waiting;
    while (*last)
        last = &(*last)->next;
    job->next = NULL;
    *last = job;
    send_waiting(s, now_ms);
    return 0;
}

void fc_stager_up(struct fc_stager *s, bool new_epoch)
{
    if (!new_epoch)
        return;
    fc_pagetab_unstage_all(s->args.pages);
    s->full = false;
    s->room = 0;
    s->idle_pages = 0;
    s->settled = false;
}

static bool is_among(uint64_t pfn, const uint64_t *pfns, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (pfns[i] == pfn)
            return true;
    return false;
}

void fc_stager_stored(struct fc_stager *s, struct fc_job *job,
                      const uint64_t *refused, uint32_t count)
{
    for (unsigned i = 0; i < job->count; i++) {
        const struct fc_job_page *p = &job->page[i];
        if (p->found != FC_PAGE_DATA)
            continue;
        if (is_among(p->pfn, refused, count)) {
            fc_pagetab_failed(s->args.pages, p->pfn);
            s->pages_refused++;
            s->full = true;
        } else {
            fc_pagetab_staged(s->args.pages, p->pfn, p->hash);
        }
    }
    fc_job_free(job);
}

void fc_stager_lost(struct fc_stager *s, struct fc_job *job)
{
    fail_pages(s, job, true);
    fc_job_free(job);
}

void fc_stager_evicted(struct fc_stager *s, const uint64_t *pfns,
                       uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        fc_pagetab_evicted(s->args.pages, pfns[i]);
    s->pages_evicted += count;
    s->full = true;
    s->room = 0;
}

void fc_stager_hold(struct fc_stager *s)
{
    struct fc_job *job;
    s->held = true;
    while ((job = take_waiting(s)))
        fc_stager_lost(s, job);
}

void fc_stager_release(struct fc_stager *s)
{
    s->held = false;
    s->idle_pages = 0;
    s->settled = false;
}

bool fc_stager_is_steady(const struct fc_stager *s)
{
    bool looked = !s->by_list && s->idle_pages >= s->args.pages->pfns;
    return !s->jobs && !s->waiting && s->ranking.next >= s->ranking.count &&
           (looked || s->settled);
}
