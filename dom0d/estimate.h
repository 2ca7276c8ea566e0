/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_ESTIMATE_H
#define FC_ESTIMATE_H

#include <stdbool.h>
#include <stdint.h>

#include "sampler.h"

/*
 * Forecast of a migration that would start now. A pure function: no state, any
 * thread.
 */
struct fc_estimate_in {
    uint64_t pages;        /* of the guest */
    uint64_t known;        /* of these: read at least once */
    uint64_t zero;         /* of these: all zero */
    uint64_t valid;        /* of these: staged and not written since */
    double page_bytes;     /* mean size of an encoded page; 0: not known */
    double link_bps;       /* bytes a second; 0: not known */
    uint32_t link_samples; /* that it was measured from; 0: it was told */
    bool link_remembered;  /* or an earlier migration to that host saw it */
    const struct fc_curve *curve;
    double page_us;       /* processing one page of any kind; 0: nothing */
    double scan_ms;       /* of the first round, whatever pages there are */
    bool page_us_learned; /* from migrations, not guessed */
    double fixed_ms;      /* cost of suspend and resume */
    double overhead_ms;   /* of xl, libxl and the transport before the rounds */
    uint32_t max_downtime_ms;
    uint32_t max_rounds;
};

struct fc_estimate {
    uint64_t bytes, total_ms, downtime_ms;
    uint64_t missing_pages, missing_bytes, reference_pages, zero_pages;
    double link_bps, confidence; /* 0-1 */
    uint64_t floor_pages; /* dirty however many rounds are made; 0: not known */
    unsigned rounds;
    bool link_known;   /* link_bps was told or measured for this guest */
    bool converges;    /* the downtime wanted is reached */
    const char *basis; /* where the rate comes from; static */
};

void fc_estimate_run(const struct fc_estimate_in *in, struct fc_estimate *out);

/*
 * What migrations from this host have taught: what a page costs besides its
 * bytes on the link, the walk through the physical map, and suspend and resume.
 */
struct fc_calibration {
    double page_us, scan_ms, fixed_ms, overhead_ms;
    double disks_ms; /* that a hand-over with disks takes besides */
    uint32_t samples;
};

/* The numbers of a migration's report that it learns from. */
struct fc_migration {
    bool with_disks;
    double elapsed_ms, precopy_ms, outage_ms;
    double first_ms; /* of the first round, and what it handled and encoded */
    uint64_t first_pages, first_bytes;
    double later_ms; /* the same of the rounds after it */
    uint64_t later_pages, later_bytes;
    uint64_t final_bytes; /* encoded while the guest stood still */
    double link_bps;      /* of the link; 0: not known */
};

void fc_calibration_learn(struct fc_calibration *c,
                          const struct fc_migration *m);

#endif
