/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Hash sets: a file that maps can be searched, and the search ends. */
#include <stdint.h>
#include <unistd.h>

#include "hashset.h"
#include "io.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fc_hashset set;
    int fd = fc_memfd_new("fuzz", size);
    if (fd < 0)
        return 0;
    if (pwrite(fd, data, size, 0) == (ssize_t)size &&
        fc_hashset_map(&set, fd) == 0) {
        for (uint64_t i = 1; i < 64; i++)
            fc_hashset_has(&set, (struct fc_hash){ i, i });
        fc_hashset_dispose(&set);
    }
    fc_close(&fd);
    return 0;
}
