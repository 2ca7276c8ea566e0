/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "feature.h"

#include <string.h>
#include <xxhash.h>

/* Raised when a number is made in another way under the same name. */
#define MADE 1u

#define ROW(id, text, ms) { text, ms },
const struct fc_feature fc_feature_table[FC_FEATURE_COUNT] = { FC_FEATURE_LIST(
    ROW) };
#undef ROW

uint64_t fc_feature_hash(void)
{
    uint64_t hash = MADE;
    for (unsigned i = 0; i < FC_FEATURE_COUNT; i++) {
        const struct fc_feature *f = &fc_feature_table[i];
        hash = XXH3_64bits_withSeed(f->name, strlen(f->name) + 1,
                                    hash + f->half_life_ms);
    }
    return hash;
}
