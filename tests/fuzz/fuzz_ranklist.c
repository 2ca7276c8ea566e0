/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Ranked lists: of a file that maps every entry of every list can be read. */
#include <stdint.h>
#include <unistd.h>

#include "io.h"
#include "ranklist.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t sum = 0;
    struct fc_rank_reader r;
    struct fc_rank_view v;
    int fd = fc_memfd_new("fuzz", size);
    if (fd < 0)
        return 0;
    if (pwrite(fd, data, size, 0) == (ssize_t)size &&
        fc_rank_reader_map(&r, fd) == 0) {
        for (unsigned l = 0; l < FC_RANK_LISTS; l++)
            if (!fc_rank_reader_look(&r, (enum fc_rank_list)l, &v)) {
                for (uint32_t i = 0; i < v.count; i++)
                    sum += v.entries[i].first + v.entries[i].zero;
                fc_rank_reader_whole(&r, &v);
            }
        fc_rank_reader_unmap(&r);
    }
    fc_close(&fd);
    /* the sum is of no use but to keep the reading */
    return sum == UINT64_MAX && size == 0;
}
