/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a sector of a guarded disk holds: a function of the guest, the sector's
 * place on its disks and the step that wrote it.  Steps are counted from 2; a
 * sector never written reads as zeros.
 */
#ifndef FC_LAB_SECTOR_H
#define FC_LAB_SECTOR_H

#include <stdbool.h>
#include <string.h>

#include "guard.h"

#define SECTOR 512u
#define WORDS (SECTOR / 8)
#define MAGIC 0x6472617567647366ull
#define STEP_NONE 0u /* never written */
#define STEP_FILL 1u /* before all steps */

static inline uint64_t sector_hash(const uint64_t *w)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < WORDS - 1; i++) {
        uint64_t x =
            (w[i] ^ (i + 1) * 0x9fb21c651e98df25ull) * 0xd6e8feb86659fd93ull;

        sum ^= x ^ (x >> 32);
    }
    return sum;
}

static inline void sector_make(uint64_t *w, uint64_t guest, uint64_t place,
                               uint64_t step)
{
    uint64_t x = mix(guest ^ mix(step) ^ place);

    if (step == STEP_NONE) {
        memset(w, 0, SECTOR);
        return;
    }
    w[0] = MAGIC;
    w[1] = guest;
    w[2] = place;
    w[3] = step;
    /* Half of it packs well, half not at all. */
    for (unsigned i = 4; i < WORDS / 2; i++)
        w[i] = place & ~(uint64_t)7;
    for (unsigned i = WORDS / 2; i < WORDS - 1; i++) {
        x ^= x << 13; /* xorshift64: cheap under emulation */
        x ^= x >> 7;
        x ^= x << 17;
        w[i] = x;
    }
    w[WORDS - 1] = sector_hash(w);
}

/* Why a sector that is not what sector_make() makes is not. */
static inline const char *sector_fault(const uint64_t *w, uint64_t guest,
                                       uint64_t place, uint64_t wanted)
{
    bool zero = true;

    for (unsigned i = 0; i < WORDS && zero; i++)
        zero = w[i] == 0;
    if (zero)
        return "lost: zeros";
    if (w[0] != MAGIC)
        return wanted == STEP_NONE ? "never written, but not zeros"
                                   : "not one of our sectors";
    if (w[1] != guest)
        return "another guest's";
    if (w[WORDS - 1] != sector_hash(w))
        return "torn: content differs from its hash";
    if (w[2] != place)
        return "another sector's content";
    if (w[3] < wanted)
        return "stale: an earlier write";
    if (w[3] > wanted)
        return "newer than what was acknowledged";
    return "right in itself, but not what was written";
}

#endif
