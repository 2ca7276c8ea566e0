/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * When to stop the rounds.
 *
 * What stopping now would cost is estimated from the pages that are dirty now
 * and what such a page cost on the wire of late, at the rate of the link or of
 * the whole path, whichever is slower; plus a fixed part for suspend and
 * resume. Nothing is queued when this is asked for good: the caller has synced.
 *
 * In order:
 *  - asked to abort: abort.
 *  - next to nothing dirty, or the estimate is within the limit and a further
 *    round would not lower it by much, or would last longer than it could
 *    save: stop.
 *  - the deadline has passed: stop or abort, as told.
 *  - no rounds left: stop.
 *  - the dirty set is as small as this guest was expected to let it become,
 *    and the last round did not make it much smaller; or nearly as small, and
 *    the last round hardly made it smaller: stop.
 *  - the dirty set still shrinks: another round. While it does so quickly,
 *    rounds go on even below the limit, because each is shorter than the one
 *    before and the guest's downtime is what counts.
 *  - twice in a row it was not smaller than ever before: more rounds only
 *    cost bytes. But guests write in bursts. The log is watched, which costs
 *    nothing, for a moment when it grows much more slowly than it has on
 *    average: then one round, begun in the lull, finds few pages dirty at its
 *    end. When it does not, that was no lull: the guest had written to all of
 *    its working set, and the log had no more to show. The hunt for a lull is
 *    bounded in time; after it, one last round takes what has gathered, if
 *    that is much, and then it stops.
 *
 * A dirty log only grows between two cleanings, so a low is seen in its growth
 * and not in its size.
 */
#include "policy.h"

#include <stddef.h>

#include "page.h"

#define FEW_PAGES 50u /* stock libxc's own bound */
#define STOCK_ROUNDS 5u
#define SHRINKS_PERCENT 90u /* of the last: worth another round */
#define GREW_PERCENT 110u   /* of the last: watching let it grow */
#define WORTH_PERCENT 20u   /* of the fixed cost: not worth a round */
#define LOOK_MS 10u
#define FLOOR_PERCENT 115u /* of the floor expected: that is it */
#define STEEP_PERCENT 60u  /* of the last: the floor was set too high */
#define NEAR_PERCENT 140u  /* of the floor expected: it was set too low */
#define FLAT_PERCENT 80u   /* of the last: hardly smaller */
#define HUNT_MS 3000u      /* watching, and the rounds that it led to */
#define LOOKS_FOR_MEAN 5u
#define LULL_PERCENT 25u /* of the mean growth */

uint64_t fc_policy_estimate_ms(const struct fc_policy_limits *limits,
                               const struct fc_policy_input *in, uint64_t dirty)
{
    double link = 0, path = 0;
    uint32_t bytes = in->page_bytes ? in->page_bytes : FC_PAGE_SIZE;
    if (in->link_bps)
        link = (double)dirty * bytes * 1000.0 / (double)in->link_bps;
    if (in->pages_ps)
        path = (double)dirty * 1000.0 / (double)in->pages_ps;
    return limits->fixed_ms + (uint64_t)(link > path ? link : path);
}

enum fc_policy_action fc_policy_stock(unsigned iteration, long dirty_count)
{
    if (dirty_count >= 0 && dirty_count < (long)FEW_PAGES)
        return FC_POLICY_STOP;
    return iteration >= STOCK_ROUNDS ? FC_POLICY_STOP : FC_POLICY_CONTINUE;
}

static bool at_most_percent(uint64_t value, uint64_t of, unsigned percent)
{
    return (double)value * 100.0 <= (double)of * percent;
}

/*
 * Whether another round can gain too little: the part of the estimate that
 * rounds can lower is small, or the round would last longer than all of it.
 */
static bool rest_is_small(const struct fc_policy_limits *limits,
                          const struct fc_policy_input *in,
                          uint64_t estimate_ms)
{
    uint64_t rest_ms = estimate_ms - limits->fixed_ms;
    return rest_ms <= in->round_ms ||
           at_most_percent(rest_ms, limits->fixed_ms, WORTH_PERCENT);
}

static bool shrinks(const struct fc_policy *p, uint64_t dirty)
{
    return p->decisions == 0 ||
           at_most_percent(dirty, p->least, SHRINKS_PERCENT);
}

/* A round begun in a lull, or two in a row, that did not find fewer pages than
 * any before. */
static bool is_stuck(const struct fc_policy *p, uint64_t dirty)
{
    return (p->no_gain || p->lulled) && !shrinks(p, dirty);
}

/* More rounds would bring what they brought so far. */
static bool is_at_floor(const struct fc_policy *p,
                        const struct fc_policy_limits *limits,
                        const struct fc_policy_input *in)
{
    if (!limits->floor_pages || !p->decisions)
        return false;
    bool flat = !at_most_percent(in->dirty_pages, p->last, FLAT_PERCENT);
    return at_most_percent(in->dirty_pages, limits->floor_pages,
                           flat ? NEAR_PERCENT : FLOOR_PERCENT) &&
           !at_most_percent(in->dirty_pages, p->last, STEEP_PERCENT);
}

static void answer(struct fc_policy_output *out, enum fc_policy_action action,
                   const char *reason)
{
    out->action = action;
    out->reason = reason;
}

static void begin_watch(struct fc_policy *p, const struct fc_policy_input *in)
{
    if (!p->hunting)
        p->hunt_start_ms = in->now_ms;
    p->hunting = p->watching = true;
    p->watch_start_ms = p->seen_ms = in->now_ms;
    p->first_dirty = p->seen_dirty = in->dirty_pages;
    p->looks = 0;
}

static bool is_lull(struct fc_policy *p, const struct fc_policy_input *in)
{
    if (in->now_ms <= p->seen_ms)
        return false;
    double whole = (double)(in->dirty_pages - p->first_dirty) /
                   (double)(in->now_ms - p->watch_start_ms);
    double last = (double)(in->dirty_pages - p->seen_dirty) /
                  (double)(in->now_ms - p->seen_ms);
    p->seen_ms = in->now_ms;
    p->seen_dirty = in->dirty_pages;
    return ++p->looks >= LOOKS_FOR_MEAN && last * 100.0 <= whole * LULL_PERCENT;
}

/* The dirty set no longer shrinks. */
static void watch(struct fc_policy *p, const struct fc_policy_input *in,
                  struct fc_policy_output *out)
{
    static const char no_use[] =
        "more rounds would not lower the number of dirty pages";
    bool over = p->hunting && in->now_ms - p->hunt_start_ms >= HUNT_MS;
    if (!p->watching && (p->flushed || over)) {
        answer(out, FC_POLICY_STOP, no_use);
        return;
    }
    if (!p->watching) {
        begin_watch(p, in);
    } else if (is_lull(p, in)) {
        p->watching = false;
        p->lulled = true;
        answer(out, FC_POLICY_CONTINUE, "the guest writes little just now");
        return;
    }
    if (over) {
        p->watching = false;
        p->flushed = true;
        if (at_most_percent(in->dirty_pages, p->last, GREW_PERCENT))
            answer(out, FC_POLICY_STOP, no_use);
        else
            answer(out, FC_POLICY_CONTINUE, "a last round before the stop");
        return;
    }
    out->wait_ms = LOOK_MS;
    answer(out, FC_POLICY_WAIT, "waiting for the guest to write less");
}

static void decide(struct fc_policy *p, const struct fc_policy_limits *limits,
                   const struct fc_policy_input *in,
                   struct fc_policy_output *out)
{
    bool within = out->estimate_ms <= limits->max_downtime_ms;
    bool late = limits->deadline_ms && in->now_ms >= limits->deadline_ms;
    bool last = in->rounds >= limits->max_rounds;
    if (in->abort_wanted)
        answer(out, FC_POLICY_ABORT, "asked to abort");
    else if (in->dirty_pages < FEW_PAGES)
        answer(out, FC_POLICY_STOP, "hardly any page is dirty");
    else if (within && (late || last || in->decided_stop || p->flushed ||
                        rest_is_small(limits, in, out->estimate_ms) ||
                        !shrinks(p, in->dirty_pages)))
        answer(out, FC_POLICY_STOP, "the downtime is within the limit");
    else if (late && limits->abort_at_deadline)
        answer(out, FC_POLICY_ABORT, "the deadline has passed");
    else if (late)
        answer(out, FC_POLICY_STOP, "the deadline has passed");
    else if (last)
        answer(out, FC_POLICY_STOP, "no rounds are left");
    else if (is_at_floor(p, limits, in))
        answer(out, FC_POLICY_STOP, "no fewer pages were expected dirty");
    else if (p->watching || p->flushed || is_stuck(p, in->dirty_pages))
        watch(p, in, out);
    else
        answer(out, FC_POLICY_CONTINUE, "rounds still make it smaller");
}

void fc_policy_decide(struct fc_policy *p,
                      const struct fc_policy_limits *limits,
                      const struct fc_policy_input *in,
                      struct fc_policy_output *out_r)
{
    *out_r = (struct fc_policy_output){ 0 };
    out_r->estimate_ms = fc_policy_estimate_ms(limits, in, in->dirty_pages);
    decide(p, limits, in, out_r);
    if (out_r->action != FC_POLICY_CONTINUE)
        return;
    /* Only what stood at the end of a round is compared with other rounds. */
    if (!p->decisions || in->rounds != p->decided_rounds) {
        p->no_gain = !shrinks(p, in->dirty_pages);
        if (!p->no_gain)
            p->least = in->dirty_pages;
        p->last = in->dirty_pages;
        p->decided_rounds = in->rounds;
        p->decisions++;
    }
}
