/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Page batches: whatever parses unpacks and walks within its bounds. */
#include <stdint.h>
#include <stdlib.h>

#include "batch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t pages[FC_BATCH_PAGES * FC_PAGE_SIZE];
    static uint8_t good[FC_BATCH_PAGES];
    struct fc_batch batch;
    struct fc_batch_iter it;
    struct fc_batch_step step;
    uint64_t walked = 0;
    if (fc_batch_parse(data, size, &batch, NULL) < 0)
        return 0;
    if (fc_batch_unpack(&batch, pages, good) > batch.data_pages)
        abort();
    fc_batch_iter_init(&it, &batch);
    while (fc_batch_next(&it, &step)) {
        walked += step.count;
        if (step.kind == FC_BATCH_DATA && step.data_index >= batch.data_pages)
            abort();
    }
    if (walked != batch.pages)
        abort();
    return 0;
}
