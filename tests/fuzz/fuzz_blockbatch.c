/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Batches of block requests: what is taken can be read, in bounds. */
#include <stdint.h>
#include <stdlib.h>

#include "blockbatch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fc_blockbatch_reader r = { .lost = 0 };
    struct fc_blockbatch_frame f;
    long n;
    for (size_t at = 0;
         (n = fc_blockbatch_next(&r, data + at, size - at, &f)) > 0;
         at += (size_t)n) {
        uint64_t sectors = r.start.device[f.device].sectors;
        for (uint32_t i = 0; f.type == FC_BLOCKBATCH_COUNT && i < f.n; i++) {
            struct fc_blockbatch_count c;
            fc_blockbatch_count_at(&f, i, &c);
            if (c.extent >=
                fc_blockbatch_extents(sectors, r.start.extent_bytes))
                abort();
        }
        for (uint32_t i = 0; f.type == FC_BLOCKBATCH_REQUEST && i < f.n; i++) {
            struct fc_blockbatch_request q;
            fc_blockbatch_request_at(&f, i, &q);
            if (q.sector + q.sectors > sectors)
                abort();
        }
    }
    if (n < 0 && !r.problem[0])
        abort();
    return 0;
}
