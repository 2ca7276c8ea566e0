/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "estimate.h"

#include <string.h>

/*
 * The helper's policy, played through: round 1 sends what is missing and a
 * reference for each valid page; each further round sends what was written
 * while the one before it ran. Before these it waits until the guest dirties
 * few pages more, which tells what it writes all the time; that is dropped from
 * the round, since it will come in the next. The rounds end when what is left
 * fits the downtime, when it stops shrinking (at once where that is known
 * beforehand, else after a second try and a hunt for a lull), or at their
 * limit.
 *
 * A round lasts as long as its bytes take on the link or its pages, of whatever
 * kind, take to be mapped, hashed, encoded and restored: these run beside each
 * other. On a fast link or a slow host it is the pages; what one costs, earlier
 * migrations have told, and so what starting and ending takes.
 */
#define REFERENCE_BYTES 16.0
#define ASSUMED_LINK_BPS 12.5e6 /* 100 Mbit/s, when nothing is known */
#define ASSUMED_PAGE_BYTES 2048.0
/* As the helper has them: xl-ext/policy.c and precopy.c. */
#define SHRINKS 0.9 /* less than this of the least so far */
#define STUCK_ROUNDS 2u
#define CURVE_SAMPLES 8u /* of a second: the floor is known */
#define HUNT_MS 3000.0
#define HOLD_MS 3000.0
#define HOLD_SHARE 4.0
#define HOLD_STEP_MS 50.0
#define HELPER_FIXED_MS 100.0
/* A link this busy is what the migration waited for. */
#define LINK_BOUND 0.7
#define LEARN_WEIGHT 0.4 /* of a new migration */
#define LEAST_PAGES 1000u
#define LEAST_FIXED_MS 10.0

static double at_least(double v, double least)
{
    return v > least ? v : least;
}

static uint32_t curve_samples(const struct fc_estimate_in *in)
{
    return in->curve->samples[2]; /* of one second */
}

/* How much to believe it: of the link's rate, the curve, the pages known. */
static double confidence_of(const struct fc_estimate_in *in)
{
    double link = 1.0, curve, known;
    uint32_t samples = curve_samples(in);
    if (in->link_bps <= 0)
        link = 0.2;
    else if (in->link_remembered)
        link = 0.6;
    else if (in->link_samples && in->link_samples < 16)
        link = 0.4 + 0.6 * in->link_samples / 16.0;
    curve = samples < CURVE_SAMPLES ? 0.2 + 0.8 * samples / CURVE_SAMPLES : 1;
    known = in->pages ? 0.3 + 0.7 * (double)in->known / (double)in->pages : 1;
    if (known > 1)
        known = 1;
    return link * curve * known * (in->page_us_learned ? 1.0 : 0.5);
}

static double round_ms(const struct fc_estimate_in *in, double link_bps,
                       double bytes, double pages)
{
    double link_ms = bytes / link_bps * 1000.0;
    return at_least(link_ms, pages * in->page_us / 1000.0);
}

static double first_ms(const struct fc_estimate_in *in, double link_bps,
                       double bytes)
{
    double host_ms = in->scan_ms + (double)in->pages * in->page_us / 1000.0;
    return at_least(bytes / link_bps * 1000.0, host_ms);
}

/* Pages a second that can be sent. */
static double send_rate(const struct fc_estimate_in *in, double link_bps,
                        double page_bytes)
{
    double rate = link_bps / page_bytes;
    double host = in->page_us > 0 ? 1e6 / in->page_us : rate;
    return rate < host ? rate : host;
}

/* How long a round of `send` pages is held back. */
static double hold_ms(const struct fc_estimate_in *in, double rate, double send)
{
    double pages = (double)in->pages, most = send / rate * 1000.0, ms = 0;
    if (most > HOLD_MS)
        most = HOLD_MS;
    while (ms < most) {
        double grew = fc_curve_at(in->curve, ms + HOLD_STEP_MS, pages) -
                      fc_curve_at(in->curve, ms, pages);
        ms += HOLD_STEP_MS;
        if (grew * HOLD_SHARE <= rate * HOLD_STEP_MS / 1000.0)
            break;
    }
    return ms;
}

/* The rounds until the guest is stopped; returns the pages left then. */
static double play_rounds(const struct fc_estimate_in *in, double page_bytes,
                          double *bytes, double *total_ms,
                          struct fc_estimate *out)
{
    double pages = (double)in->pages, link = out->link_bps;
    double rate = send_rate(in, link, page_bytes);
    double budget_ms =
        at_least((double)in->max_downtime_ms - HELPER_FIXED_MS, 0);
    double send = (double)out->missing_pages, least = pages;
    double extra = (double)in->valid * REFERENCE_BYTES;
    unsigned stuck = 0;
    for (out->rounds = 1;; out->rounds++) {
        bool first = out->rounds == 1;
        double hold = first ? 0 : hold_ms(in, rate, send), all, ms;
        all = send * page_bytes + extra;
        ms = first ? first_ms(in, link, all) : round_ms(in, link, all, send);
        double dropped = fc_curve_at(in->curve, first ? ms / 2 : hold, pages);
        if (dropped > send)
            dropped = send;
        double sent = (send - dropped) * page_bytes + extra;
        ms = first ? first_ms(in, link, sent)
                   : hold + round_ms(in, link, sent, send);
        *bytes += sent;
        *total_ms += ms;
        extra = 0;
        send = fc_curve_at(in->curve, ms, pages);
        if (round_ms(in, link, send * page_bytes, send) <= budget_ms) {
            out->converges = true;
            return send;
        }
        stuck = send > least * SHRINKS ? stuck + 1 : 0;
        least = send < least ? send : least;
        if (stuck && curve_samples(in) >= CURVE_SAMPLES) {
            out->floor_pages = (uint64_t)send;
            return send;
        }
        if (stuck == STUCK_ROUNDS) {
            *total_ms += HUNT_MS;
            return send;
        }
        if (out->rounds >= in->max_rounds)
            return send;
    }
}

void fc_estimate_run(const struct fc_estimate_in *in, struct fc_estimate *out)
{
    memset(out, 0, sizeof(*out));
    double page_bytes =
        in->page_bytes > 0 ? in->page_bytes : ASSUMED_PAGE_BYTES;
    out->link_bps = in->link_bps > 0 ? in->link_bps : ASSUMED_LINK_BPS;
    out->link_known = in->link_bps > 0 && !in->link_remembered;
    out->basis = in->link_bps <= 0     ? "assumed, nothing was measured yet"
                 : in->link_remembered ? "seen by an earlier migration"
                 : in->link_samples    ? "measured while staging"
                                       : "set by link_rate_bytes";

    double known_clean = (double)in->zero + (double)in->valid;
    double missing = at_least((double)in->pages - known_clean, 0);
    out->missing_pages = (uint64_t)missing;
    out->missing_bytes = (uint64_t)(missing * page_bytes);
    out->reference_pages = in->valid;
    out->zero_pages = in->zero;

    double bytes = 0, total_ms = in->overhead_ms;
    double left = play_rounds(in, page_bytes, &bytes, &total_ms, out);
    double stop_ms =
        round_ms(in, out->link_bps, left * page_bytes, left) + in->fixed_ms;
    out->downtime_ms = (uint64_t)stop_ms;
    out->bytes = (uint64_t)(bytes + left * page_bytes);
    out->total_ms = (uint64_t)(total_ms + stop_ms);
    out->confidence = confidence_of(in);
}

static void blend(double *value, double seen, double weight)
{
    *value += weight * (seen - *value);
}

/* Did so many bytes wait for the link, or for a link nobody knows? */
static bool waited(const struct fc_migration *m, uint64_t bytes, double ms)
{
    return m->link_bps <= 0 ||
           (double)bytes / m->link_bps * 1000.0 >= LINK_BOUND * ms;
}

/* What waited for its link says only that the cost is no more than this. */
static void learn_cost(double *cost, double seen, bool bound)
{
    if (!bound && *cost <= 0)
        *cost = seen;
    else if (!bound || seen < *cost)
        blend(cost, seen, LEARN_WEIGHT);
}

/*
 * libxc asks for the type of each entry of the physical map once, and a guest
 * has many more of these than pages; later rounds do without. So these tell
 * what a page costs, and the first what the map does; where they waited for the
 * link, all of the first is put down to its pages.
 */
static void learn_pages(struct fc_calibration *c, const struct fc_migration *m)
{
    bool bound = waited(m, m->first_bytes, m->first_ms);
    double pages = (double)m->first_pages;
    if (m->later_pages >= LEAST_PAGES &&
        !waited(m, m->later_bytes, m->later_ms)) {
        if (c->scan_ms <= 0)
            c->page_us = 0; /* from first rounds alone */
        learn_cost(&c->page_us, m->later_ms * 1000.0 / (double)m->later_pages,
                   false);
        learn_cost(&c->scan_ms,
                   at_least(m->first_ms - pages * c->page_us / 1000.0, 0),
                   bound);
    } else {
        learn_cost(&c->page_us,
                   at_least(m->first_ms - c->scan_ms, 0) * 1000.0 / pages,
                   bound);
    }
}

void fc_calibration_learn(struct fc_calibration *c,
                          const struct fc_migration *m)
{
    double us_per_byte = m->link_bps > 0 ? 1e6 / m->link_bps : 0;
    if (m->first_pages < LEAST_PAGES || m->first_ms <= 0 || m->outage_ms <= 0)
        return;
    learn_pages(c, m);
    double weight = c->samples ? LEARN_WEIGHT : 1.0;
    double final_ms = (double)m->final_bytes * us_per_byte / 1000.0;
    double fixed_ms = at_least(m->outage_ms - final_ms, LEAST_FIXED_MS);
    if (m->with_disks && c->samples) {
        learn_cost(&c->disks_ms, at_least(fixed_ms - c->fixed_ms, 0), false);
        return;
    }
    blend(&c->fixed_ms, fixed_ms, weight);
    blend(&c->overhead_ms,
          at_least(m->elapsed_ms - m->precopy_ms - m->outage_ms, 0), weight);
    c->samples++;
}
