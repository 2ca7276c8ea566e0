/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Records of leases, volumes and ranges: what is taken in must come out as it
 * was. The first byte chooses the record. */
#include <stdlib.h>
#include <string.h>

#include "diskmeta.h"
#include "lease.h"

static void lease(const uint8_t *data, size_t len)
{
    struct fc_lease l;
    uint8_t out[FC_LEASE_RECORD];
    if (fc_lease_decode(data, len, &l))
        return;
    if (fc_lease_encode(&l, out) != len || memcmp(out, data, len))
        abort();
}

static void volume(const uint8_t *data, size_t len)
{
    struct fc_disk_volume v;
    uint8_t out[FC_DISKMETA_VOLUME];
    if (fc_disk_volume_decode(data, len, &v))
        return;
    if (fc_disk_volume_encode(&v, out) != len || memcmp(out, data, len))
        abort();
}

static void range(const uint8_t *data, size_t len)
{
    struct fc_disk_range r;
    uint8_t out[FC_DISKMETA_RANGE];
    if (fc_disk_range_decode(data, len, &r))
        return;
    fc_disk_range_encode(&r, out);
    if (data[0] == 1) { /* what is written is of the newest version */
        if (fc_disk_range_decode(out, sizeof(out), &r))
            abort();
        return;
    }
    if (len != sizeof(out) || memcmp(out, data, len))
        abort();
}

static void reads(const uint8_t *data, size_t len)
{
    struct fc_readstats s;
    uint8_t out[FC_DISKMETA_READS];
    if (fc_disk_reads_decode(data, len, &s))
        return;
    fc_disk_reads_encode(&s, out);
    if (len != sizeof(out) || memcmp(out, data, len))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct fc_disk_id id;
    if (!len)
        return 0;
    switch (data[0] % 8) {
    case 0:
        lease(data + 1, len - 1);
        break;
    case 1:
        volume(data + 1, len - 1);
        break;
    case 2:
        range(data + 1, len - 1);
        break;
    case 4:
        reads(data + 1, len - 1);
        break;
    default:
        (void)fc_disk_id_of_key(data + 1, len - 1, &id);
        break;
    }
    return 0;
}
