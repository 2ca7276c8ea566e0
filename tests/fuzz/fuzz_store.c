/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Page store views: any file reads within its bounds, and what is read has the
 * hash that was asked for. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "store.h"
#include "store_format.h"
#include "wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t page[FC_PAGE_SIZE];
    struct fc_store_view view;
    int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
        abort();
    if (!fc_store_view_open(fd, &view)) {
        for (uint64_t i = 0; i <= view.mask && i < 512; i++) {
            const uint8_t *slot = view.index + i * FC_STORE_SLOT;
            struct fc_hash hash = { fc_le_load(slot, 8),
                                    fc_le_load(slot + 8, 8) };
            if (!fc_store_view_get(&view, hash, page) &&
                !fc_hash_equal(fc_page_hash(page), hash))
                abort();
        }
        fc_store_view_dispose(&view);
    }
    close(fd);
    return 0;
}
