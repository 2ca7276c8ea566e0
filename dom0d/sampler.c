/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sampler.h"

#include <stdlib.h>
#include <string.h>

#include "err.h"

/*
 * CLEAN and PEEK
 *
 * A PEEK costs the guest nothing; after a CLEAN its first write to each page
 * takes a fault. The faults of a window are the pages it shows, so a window of
 * length T may end when T * log_share >= pages * fault_cost: the guest then
 * spends at most log_share of one vcpu's time on our account. A guest that
 * writes much thus gets long windows by itself.
 *
 * Within that, windows are planned with the lengths below: most are short, for
 * the scorer, and some long, so that every age of the working-set curve is
 * measured now and then.
 *
 * A look costs us a scan of all processes (dirtylog.c). In the first second of
 * a window one is made each interval_ms, later each LATE_LOOK_MS.
 *
 * The scorer is fed every SCORE_MS with what is set at that time, and told when
 * that continues what it saw before. One that does not care for that
 * takes a page once written for written all the time in a long window: a
 * window alone would say "once in 16 s" of the hottest page, and it is better
 * to take a page for hotter than it is than to copy it in vain.
 *
 * A recording wants windows of one length. Those are not looked into between
 * two CLEANs; what one of them shows beyond the budget makes the next longer.
 */
const uint32_t fc_curve_age_ms[FC_CURVE_POINTS] = { 250,  500,  1000, 2000,
                                                    4000, 8000, 16000 };
static const uint32_t window_ms[] = { 1000, 1000, 2000, 1000, 1000, 4000,
                                      1000, 1000, 8000, 1000, 1000, 16000 };
#define WINDOWS (sizeof(window_ms) / sizeof(window_ms[0]))

#define CURVE_WEIGHT 0.2 /* of a new sample */
#define RATE_WEIGHT 0.2
#define RETRY_MS 1000u
#define SCORE_MS 1000u
#define LATE_LOOK_MS 1000u

int fc_sampler_init(struct fc_sampler *s, struct fc_dirtylog *log,
                    struct fc_pagetab *pages, struct fc_scorer *scorer)
{
    memset(s, 0, sizeof(*s));
    s->log = log;
    s->pages = pages;
    s->scorer = scorer;
    s->bits = calloc(log->pfns / 64 + 1, sizeof(*s->bits));
    return s->bits ? 0 : FC_ENOMEM;
}

void fc_sampler_dispose(struct fc_sampler *s)
{
    free(s->bits);
    memset(s, 0, sizeof(*s));
}

static void start_window(struct fc_sampler *s, uint64_t now_ms)
{
    s->window_start_ms = s->looked_ms = s->scored_ms = now_ms;
    s->window = (s->window + 1) % WINDOWS;
    s->curve_next = 0;
    s->written = 0;
    s->scored = false;
}

/* Writes went unseen. */
static void lose(struct fc_sampler *s)
{
    if (s->pages)
        fc_pagetab_blind(s->pages);
    if (s->watcher)
        s->watcher->lost(s->watcher_user);
}

static void go_blind(struct fc_sampler *s, uint64_t now_ms)
{
    lose(s);
    start_window(s, now_ms);
}

void fc_sampler_resume(struct fc_sampler *s, uint64_t now_ms)
{
    go_blind(s, now_ms);
    s->retry_ms = 0;
}

static void average(double *mean, uint32_t *samples, double value)
{
    double weight = *samples ? CURVE_WEIGHT : 1.0;
    *mean += weight * (value - *mean);
    if (*samples < UINT32_MAX)
        ++*samples;
}

static uint64_t count_bits(const uint64_t *bits, uint64_t pfns)
{
    uint64_t n = 0, words = pfns / 64;
    for (uint64_t w = 0; w < words; w++)
        n += (unsigned)__builtin_popcountll(bits[w]);
    if (pfns % 64)
        n += (unsigned)__builtin_popcountll(bits[words] &
                                            ((1ull << pfns % 64) - 1));
    return n;
}

/* Every age reached since the last look gets its share of what is seen. */
static void feed_curve(struct fc_sampler *s, uint64_t age_ms)
{
    while (s->curve_next < FC_CURVE_POINTS &&
           age_ms >= fc_curve_age_ms[s->curve_next]) {
        unsigned i = s->curve_next++;
        /* A late look sees more than there was at the age itself. */
        double share = (double)fc_curve_age_ms[i] / (double)age_ms;
        average(&s->curve.pages[i], &s->curve.samples[i],
                (double)s->written * share);
    }
}

static bool may_clean(const struct fc_sampler *s,
                      const struct fc_sampler_limits *limits, uint64_t now_ms)
{
    double age_ms = (double)(now_ms - s->window_start_ms);
    double cost_ms = (double)s->written * limits->fault_cost_ns / 1e6;
    if (s->fixed_ms)
        return true; /* is_time() said so */
    return age_ms >= window_ms[s->window] && age_ms >= limits->interval_ms &&
           age_ms * limits->log_share >= cost_ms;
}

static int score(struct fc_sampler *s, uint64_t now_ms)
{
    const struct fc_scorer *scorer = s->scorer;
    uint32_t elapsed_ms = (uint32_t)(now_ms - s->scored_ms);
    if (s->scored && scorer->ops->continues)
        scorer->ops->continues(scorer->state);
    s->scored = true;
    s->scored_ms = now_ms;
    s->scores++;
    return scorer->ops->update(scorer->state, s->bits, elapsed_ms);
}

static int look(struct fc_sampler *s, const struct fc_sampler_limits *limits,
                uint64_t now_ms)
{
    bool clean = may_clean(s, limits, now_ms);
    int rc = clean ? fc_dirtylog_clean(s->log, s->bits)
                   : fc_dirtylog_peek(s->log, s->bits);
    if (rc)
        return rc;
    uint64_t age_ms = now_ms - s->window_start_ms;
    s->looked_ms = now_ms;
    s->written = count_bits(s->bits, s->log->pfns);
    *(clean ? &s->cleans : &s->peeks) += 1;
    feed_curve(s, age_ms);
    if (clean && s->watcher)
        s->watcher->taken(s->watcher_user, s->bits, age_ms);
    rc = s->pages ? fc_pagetab_seen(s->pages, s->bits, clean, now_ms) : 0;
    if (!rc && s->scorer && (clean || now_ms - s->scored_ms >= SCORE_MS))
        rc = score(s, now_ms);
    if (!clean)
        return rc;

    double cost_ms = (double)s->written * limits->fault_cost_ns / 1e6;
    s->owed_ms += cost_ms / limits->log_share - (double)age_ms;
    if (s->owed_ms < 0)
        s->owed_ms = 0;
    s->written_per_s +=
        RATE_WEIGHT *
        ((double)s->written * 1000.0 / (double)age_ms - s->written_per_s);
    s->log_share += RATE_WEIGHT * (cost_ms / (double)age_ms - s->log_share);
    start_window(s, now_ms);
    return rc;
}

/* Gets the log back after somebody else had it. */
static int take_over(struct fc_sampler *s, uint64_t now_ms)
{
    if (now_ms < s->retry_ms)
        return FC_EBUSY;
    s->retry_ms = now_ms + RETRY_MS;
    int rc = fc_dirtylog_enable(s->log);
    if (rc)
        return rc;
    s->paused = false;
    go_blind(s, now_ms);
    return 0;
}

static bool is_time(const struct fc_sampler *s,
                    const struct fc_sampler_limits *limits, uint64_t now_ms)
{
    uint64_t wait_ms = limits->interval_ms;
    if (s->fixed_ms)
        return (double)(now_ms - s->window_start_ms) >=
               (s->owed_ms > s->fixed_ms ? s->owed_ms : s->fixed_ms);
    if (s->looked_ms - s->window_start_ms >= LATE_LOOK_MS &&
        wait_ms < LATE_LOOK_MS)
        wait_ms = LATE_LOOK_MS;
    return now_ms - s->looked_ms >= wait_ms;
}

int fc_sampler_tick(struct fc_sampler *s,
                    const struct fc_sampler_limits *limits, uint64_t now_ms)
{
    int rc;
    if (s->log->held)
        return FC_EBUSY;
    if (!s->log->on) {
        rc = take_over(s, now_ms);
    } else if (!is_time(s, limits, now_ms)) {
        return 0;
    } else {
        rc = look(s, limits, now_ms);
        if (rc == FC_ETIMEOUT)
            return 0; /* at the next tick, then */
        if (rc == FC_EINVAL && s->log->on) {
            go_blind(s, now_ms);
            return 0;
        }
        if (rc == FC_EINVAL)
            rc = FC_EBUSY;
    }
    if (rc == FC_ESYS || rc == FC_ENOMEM) {
        /* Xen may have failed to note writes: start the log anew, later. */
        s->log->on = false;
        s->retry_ms = now_ms + RETRY_MS;
    }
    if (rc == FC_EBUSY && !s->log->on && !s->paused) {
        s->paused = true;
        s->pauses++;
        lose(s);
    }
    return rc;
}

double fc_curve_at(const struct fc_curve *curve, double ms, double pages)
{
    double x0 = 0, y0 = 0, slope = 0;
    for (unsigned i = 0; i < FC_CURVE_POINTS; i++) {
        if (!curve->samples[i])
            continue;
        double x = fc_curve_age_ms[i];
        /* Averages of different windows: keep the curve from falling. */
        double y = curve->pages[i] > y0 ? curve->pages[i] : y0;
        slope = (y - y0) / (x - x0);
        if (ms <= x)
            break;
        x0 = x;
        y0 = y;
    }
    double at = y0 + slope * (ms - x0);
    return at < pages ? at : pages;
}
