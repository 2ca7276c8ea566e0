/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "armed.h"

/* A record of an armed guest on disk; what is taken must be written alike. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fc_armed armed;
    uint8_t again[FC_ARMED_RECORD];
    if (fc_armed_decode(data, size, &armed))
        return 0;
    ssize_t n = fc_armed_encode(&armed, again, sizeof(again));
    if (n != (ssize_t)size || memcmp(again, data, size))
        abort();
    return 0;
}
