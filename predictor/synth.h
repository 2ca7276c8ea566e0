/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_SYNTH_H
#define FC_SYNTH_H

#include <stdint.h>

/*
 * Made-up guests for the training: memory traces of a mix of habits that
 * programs have (a hot set by Zipf's law that moves at times, sweeps, batches
 * by the clock, logs, short-lived allocations, phases), all drawn from the
 * seed; the same seed gives the same bytes. 50 ms ticks.
 */
#define FC_SYNTH_TICK_MS 50u

/* Writes a trace of `seconds` to `fd` (kept open). 0, FC_ENOMEM, FC_EIO. */
int fc_synth_write(int fd, uint64_t seed, uint32_t seconds);

#endif
