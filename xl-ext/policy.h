/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_POLICY_H
#define FC_POLICY_H

#include <stdbool.h>
#include <stdint.h>

/*
 * When to stop the rounds. No clock, no I/O, no Xen: all that the decision
 * depends on is in the inputs and in what earlier decisions left behind.
 */
enum fc_policy_action {
    FC_POLICY_CONTINUE, /* another round */
    FC_POLICY_STOP,     /* suspend the guest and send the rest */
    FC_POLICY_ABORT,    /* give up; the guest goes on here */
    FC_POLICY_WAIT,     /* look at the dirty log again in wait_ms */
};

/* Limits that hold for the whole migration. */
struct fc_policy_limits {
    uint32_t max_downtime_ms, fixed_ms, max_rounds;
    uint64_t deadline_ms; /* since the start; 0: none */
    bool abort_at_deadline;
    /* Dirty pages that this guest is expected to have however many rounds are
     * made, from what was learnt before; 0: not known. */
    uint64_t floor_pages;
};

/* The state of things after a round, before the log is cleaned. */
struct fc_policy_input {
    uint64_t now_ms;      /* since the start */
    uint32_t rounds;      /* finished */
    uint64_t round_ms;    /* how long the last one took */
    uint64_t dirty_pages; /* now */
    uint32_t page_bytes;  /* what a dirty page costs on the wire, of late */
    uint64_t link_bps;    /* bytes per second; 0: the link is no limit */
    uint64_t pages_ps;    /* what the whole path takes; 0: not known */
    bool abort_wanted;
    bool decided_stop; /* asked again right before the stop, after a SYNC */
};

struct fc_policy_output {
    enum fc_policy_action action;
    uint32_t wait_ms;
    uint64_t estimate_ms; /* downtime of stopping now */
    const char *reason;   /* static text, for the log; never NULL */
};

/* History; zero it before the first decision. */
struct fc_policy {
    uint32_t decided_rounds; /* rounds at the last decision but WAIT */
    uint64_t last, least;    /* dirty pages then; fewest so far */
    bool no_gain;            /* that was not fewer than before */
    unsigned decisions;
    bool hunting, watching; /* for a lull; the log, just now */
    bool lulled, flushed;   /* a round was begun in one; the last was taken */
    uint64_t hunt_start_ms, watch_start_ms;
    uint64_t seen_ms, seen_dirty; /* the last look while watching */
    uint64_t first_dirty;
    unsigned looks;
};

void fc_policy_decide(struct fc_policy *p,
                      const struct fc_policy_limits *limits,
                      const struct fc_policy_input *in,
                      struct fc_policy_output *out_r);

/* Downtime in milliseconds of stopping with `dirty` pages left. */
uint64_t fc_policy_estimate_ms(const struct fc_policy_limits *limits,
                               const struct fc_policy_input *in,
                               uint64_t dirty);

/* What stock libxc decides; dirty_count is -1 when unknown. */
enum fc_policy_action fc_policy_stock(unsigned iteration, long dirty_count);

#endif
