/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Long-term profiles: what is read can be written again and gives forecasts
 * that are numbers. The checksum is put right first, or little would be. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "profile.h"
#include "wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t bytes[FC_PROFILE_BYTES], again[FC_PROFILE_BYTES];
    static struct fc_profile p;
    struct fc_profile_forecast f;
    char why[80] = "";
    if (size > sizeof(bytes))
        return 0;
    memcpy(bytes, data, size);
    if (size == sizeof(bytes))
        fc_le_store(bytes + size - 8, XXH3_64bits(bytes, size - 8), 8);
    if (fc_profile_decode(bytes, size, &p, why, sizeof(why))) {
        if (!*why)
            abort();
        return 0;
    }
    if (fc_profile_encode(&p, again, sizeof(again)) != (ssize_t)size ||
        memcmp(bytes, again, size))
        abort();
    for (uint64_t hour = 0; hour < FC_PROFILE_WEEK; hour++) {
        fc_profile_expect(&p, p.last_s, NULL, hour * 3600, &f);
        if (!(f.confidence >= 0 && f.confidence <= 1) || !isfinite(f.load.rate))
            abort();
    }
    const struct fc_profile_load load = { .rate = 5 };
    fc_profile_add(&p, 12345678, 60, &load);
    return 0;
}
