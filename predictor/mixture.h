/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_MIXTURE_H
#define FC_MIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Online mixture of scorers, one per guest memory or disk: weighs scorers by
 * what they got right, horizon by horizon, from labels that come as late as
 * the horizon is long. One thread at a time; nothing allocates after create.
 */
#define FC_MIXTURE_MAX_SCORERS 15
#define FC_MIXTURE_MAX_HORIZONS 8

struct fc_mixture;

struct fc_mixture_config {
    unsigned scorers;  /* 1 .. FC_MIXTURE_MAX_SCORERS */
    unsigned horizons; /* 1 .. FC_MIXTURE_MAX_HORIZONS */
    /* Bit i: scorer i has nothing trained in it, so that an unseen phase of
     * the guest cannot mislead it (LRU, EWMA, frequency, Markov, readahead).
     * 0 is allowed and switches the shift of trust off. */
    uint32_t simple;
    /* A scorer that has ordered the labels of late better than the mean has
     * most of the say: for items of which few are touched, where losses tell
     * scorers apart too late. Then what was said at one time is labelled by the
     * late[horizon]-th call of learn() from there on. Takes a KiB more for each
     * scorer and horizon. */
    bool by_order;
    unsigned late[FC_MIXTURE_MAX_HORIZONS];
    /* [scorers], for the explanations; must outlive the mixture. */
    const char *const *names;
};

/* 0, FC_EINVAL or FC_ENOMEM. */
int fc_mixture_create(const struct fc_mixture_config *config,
                      struct fc_mixture **m_r);
void fc_mixture_destroy(struct fc_mixture *m);

/*
 * out[n] = what the mixture believes, given p[scorer][n], chances 0 to 1 of
 * one horizon, best recalibrated (calibrate.h) beforehand. A scorer that has
 * no opinion now passes NULL: its weight is then spread over the others. An
 * opinion that is negative or not a number counts as certainty. `out` may be
 * one of the p.
 */
void fc_mixture_combine(const struct fc_mixture *m, unsigned horizon,
                        uint32_t n, const float *const *p, float *out);

/*
 * A horizon has passed: p_then[scorer][n] is what combine() was given then
 * for n items, touched[n] (0 or 1) what came of each. NULL for a scorer that
 * had no opinion then; its weight stays. A uniform sample of the items is
 * enough, some hundreds to a few thousand; the cost is linear in n.
 */
void fc_mixture_learn(struct fc_mixture *m, unsigned horizon, uint32_t n,
                      const float *const *p_then, const uint8_t *touched);

/*
 * Once a tick: the guest-wide rate of writes (disk: requests) of the tick, in
 * any unit as long as it is the same one, and the tick's length. Returns true
 * in the tick in which the rate has left the band it was in: trust has then
 * gone to the simple scorers, and comes back as the others prove themselves.
 */
bool fc_mixture_phase(struct fc_mixture *m, float dirty_rate,
                      uint32_t elapsed_ms);

/* [scorers], sum 1: the share of each scorer in what combine() says. Valid
 * until the next call of learn, phase or destroy. */
const float *fc_mixture_weights(const struct fc_mixture *m, unsigned horizon);

/* Shares from before, [scorers], each 0 to 1, in place of even ones; each keeps
 * a little at least. Nothing happens when their sum is 0. */
void fc_mixture_set_weights(struct fc_mixture *m, unsigned horizon,
                            const float *share);

enum fc_mixture_reason {
    FC_MIXTURE_START, /* nothing seen yet: equal shares */
    FC_MIXTURE_SEEN,  /* by what was seen */
    FC_MIXTURE_PHASE, /* a new phase began; the simple ones lead for now */
};

struct fc_mixture_view {
    unsigned best;                   /* scorer of the largest share */
    float share;                     /* its share */
    float loss_bits, best_loss_bits; /* recent mean log loss of the mixture,
                                      * and of the best single scorer */
    uint64_t labels;                 /* learned from so far */
    enum fc_mixture_reason reason;
};

void fc_mixture_look(const struct fc_mixture *m, unsigned horizon,
                     struct fc_mixture_view *view_r);

/*
 * One line for status and log: "ewma 0.62, lr 0.31: best of late, 0.112
 * against 0.118 bits". Cut to `size`; always terminated. Returns `buf`.
 */
const char *fc_mixture_explain(const struct fc_mixture *m, unsigned horizon,
                               char *buf, size_t size);

/* True once after the leading scorer of the horizon, or the reason, changed:
 * the moment to log fc_mixture_explain(). */
bool fc_mixture_changed(struct fc_mixture *m, unsigned horizon);

#endif
