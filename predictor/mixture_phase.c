/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <math.h>

#include "mixture_int.h"

/*
 * A phase is a stretch of time in which the guest-wide rate stays in a band.
 * The rate is taken in octaves (log2 of 1 + rate), smoothed over a second; the
 * band is its mean and mean deviation over half a minute. It is left when the
 * smoothed rate stands far outside for a while: then the band begins anew
 * where the rate is. Bursts shorter than that, and a rate that sways, such as
 * that of a guest with a cycle of seconds, widen the band and do not leave it.
 */
#define NOW_MS 500.0
#define BAND_MS 30000.0
#define SETTLE_MS 5000.0 /* a new band cannot be left so soon */
#define OUT_MS 300.0     /* it has to stay outside so long */
#define WIDTHS 4.0       /* mean deviations that are still inside */
#define LEAST_OCTAVES 1.0

void fc_mixture_band_init(struct fc_mixture_band *b)
{
    *b = (struct fc_mixture_band){ .begun = false };
}

static void begin(struct fc_mixture_band *b, double octaves)
{
    *b = (struct fc_mixture_band){ .now = octaves,
                                   .mean = octaves,
                                   .width = LEAST_OCTAVES / WIDTHS,
                                   .begun = true };
}

/* Mean over at least what was seen since the band began. */
static double weight(double elapsed_ms, double over_ms, double age_ms)
{
    double span = fmin(over_ms, age_ms + elapsed_ms);
    return 1 - exp(-elapsed_ms / span);
}

bool fc_mixture_band_left(struct fc_mixture_band *b, float rate,
                          uint32_t elapsed_ms)
{
    double octaves = log2(1 + (double)(rate > 0 ? rate : 0));
    if (!isfinite(octaves) || !elapsed_ms)
        return false;
    if (!b->begun) {
        begin(b, octaves);
        return false;
    }
    b->now += weight(elapsed_ms, NOW_MS, BAND_MS) * (octaves - b->now);
    double off = fabs(b->now - b->mean);
    double inside = fmax(LEAST_OCTAVES, WIDTHS * b->width);
    if (b->age_ms >= SETTLE_MS && off > inside) {
        b->out_ms += elapsed_ms;
        if (b->out_ms < OUT_MS)
            return false;
        begin(b, octaves);
        return true;
    }
    b->out_ms = 0;
    double w = weight(elapsed_ms, BAND_MS, b->age_ms);
    b->mean += w * (b->now - b->mean);
    b->width += w * (fabs(b->now - b->mean) - b->width);
    b->age_ms += elapsed_ms;
    return false;
}
