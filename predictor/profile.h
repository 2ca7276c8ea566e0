/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_PROFILE_H
#define FC_PROFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Long-term profile of a guest: dirty rate and working set by hour of the week
 * and of the day, and what they let expect of the hours to come. Plain data;
 * docs/formats/profile.md is its form on disk. One thread at a time.
 */
#define FC_PROFILE_AGES 7u /* of the working set: 250 ms, doubled, to 16 s */
#define FC_PROFILE_WEEK 168u
#define FC_PROFILE_DAY 24u
#define FC_PROFILE_CELLS (FC_PROFILE_WEEK + FC_PROFILE_DAY + 1u)
#define FC_PROFILE_BYTES (32u + 48u * FC_PROFILE_CELLS + 8u)

extern const uint32_t fc_profile_age_ms[FC_PROFILE_AGES];

/* Pages written, guest-wide. */
struct fc_profile_load {
    double rate;                   /* a second */
    double pages[FC_PROFILE_AGES]; /* distinct ones within each age */
};

struct fc_profile_cell {
    float seconds, visits; /* both fade */
    uint32_t hour;         /* of the last visit, since the epoch */
    float rate, square;
    float pages[FC_PROFILE_AGES];
};

struct fc_profile {
    struct fc_profile_cell cells[FC_PROFILE_CELLS];
    uint64_t last_s; /* of the last observation, 0: none */
};

void fc_profile_init(struct fc_profile *p);

/*
 * `load` was what the guest did in the last `seconds` before `wall_s` (since
 * the epoch); to be called every minute or so. What is not a number, negative
 * or absurd changes nothing.
 */
void fc_profile_add(struct fc_profile *p, uint64_t wall_s, double seconds,
                    const struct fc_profile_load *load);

enum fc_profile_basis {
    FC_PROFILE_NOTHING,
    FC_PROFILE_NOW,   /* mostly what is going on now */
    FC_PROFILE_ALL,   /* mostly the mean of all that was seen */
    FC_PROFILE_HOUR,  /* mostly the same hour of other days */
    FC_PROFILE_WEEKS, /* mostly the same hour of earlier weeks */
};
const char *fc_profile_basis_name(enum fc_profile_basis basis);

struct fc_profile_forecast {
    struct fc_profile_load load;
    double spread;    /* of the rate, as a share of its mean, in what the
                       * forecast mostly rests on */
    float confidence; /* 0 to 1; 0: nothing was seen that tells anything */
    enum fc_profile_basis basis;
};

/*
 * What to expect in the hour that holds `at_s`, at a time `now_s` when the
 * guest does `now` (NULL: not known).
 */
void fc_profile_expect(const struct fc_profile *p, uint64_t now_s,
                       const struct fc_profile_load *now, uint64_t at_s,
                       struct fc_profile_forecast *forecast_r);

/* A migration at some time, as forecast. */
struct fc_profile_window {
    uint64_t start_s;
    uint64_t bytes, total_ms, downtime_ms;
    bool converges; /* the downtime wanted is reached */
    float confidence;
    enum fc_profile_basis basis;
};

/*
 * The best of n windows in order of time, or -1 when n is 0: among those that
 * reach the downtime wanted the one that takes least, else the one of the
 * least downtime; a later one only when it is at least a tenth better, the
 * less sure the more.
 */
int fc_profile_best(const struct fc_profile_window *windows, unsigned n);

/* Form on disk. FC_PROFILE_BYTES or FC_ETOOBIG; 0, or FC_EFORMAT, FC_EVERSION,
 * FC_ECHECK with what is wrong in `why`; `p_r` is then empty. */
ssize_t fc_profile_encode(const struct fc_profile *p, void *out, size_t cap);
int fc_profile_decode(const void *buf, size_t len, struct fc_profile *p_r,
                      char *why, size_t why_len);

#endif
