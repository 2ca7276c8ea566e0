/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_FUZZ_LEARNED_H
#define FC_FUZZ_LEARNED_H

/* What was learned of a guest: its length, the hash of the features and the
 * checksum are made to match, or nothing would get past them. */
#include <stddef.h>
#include <stdint.h>
#include <xxhash.h>

#include "feature.h"
#include "wire.h"

static inline void learned_mend(uint8_t *bytes, size_t size)
{
    if (size >= 16)
        fc_le_store(bytes + 12, size, 4);
    if (size >= 40)
        fc_le_store(bytes + 24, fc_feature_hash(), 8);
    if (size >= 24)
        fc_le_store(bytes + size - 8, XXH3_64bits(bytes, size - 8), 8);
}

#endif
