/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_WINDOWS_H
#define FC_WINDOWS_H

#include <stdint.h>

/*
 * Windows of some regions for the adaptation of the GRU (adapt.h): what they
 * were like at each of its steps, what it said, and what came of it. Regions
 * that have a state are chosen by chance and followed until the long horizon
 * has passed after their last step. The engine's thread.
 */
struct fc_engine;
struct fc_adapt;
struct fc_windows;

/* 0 or FC_ENOMEM. */
int fc_windows_new(struct fc_windows **windows_r);
void fc_windows_free(struct fc_windows *windows);

/* After a tick of an engine with a GRU: notes a step when it is time, and
 * offers the windows that are whole. */
void fc_windows_tick(struct fc_windows *windows, struct fc_engine *engine,
                     struct fc_adapt *adapt);

uint64_t fc_windows_bytes(void);

#endif
