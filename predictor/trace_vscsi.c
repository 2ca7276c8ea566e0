/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Imports VMware's vscsi traces, versions 1 and 2, in the layout in which
 * CloudPhysics's are published: records of fixed size without a header. The
 * version stands in each record, so the first two tell.
 */
#include <stdlib.h>

#include "err.h"
#include "trace_int.h"
#include "wire.h"

#define V1_BYTES 32u
#define V2_BYTES 40u

struct layout {
    unsigned bytes, cmd_at, version_at, len_at, lbn_at, time_at;
};

static const struct layout v1 = { V1_BYTES, 12, 14, 4, 16, 24 };
static const struct layout v2 = { V2_BYTES, 0, 2, 8, 16, 24 };

struct vscsi {
    const struct layout *layout;
    bool started;
    uint64_t start_us;
};

static bool two_of(const uint8_t *start, size_t len, const struct layout *l,
                   unsigned version)
{
    return len >= 2 * l->bytes && start[l->version_at + 1] == version &&
           start[l->bytes + l->version_at + 1] == version;
}

static bool v1_is(const uint8_t *start, size_t len)
{
    return two_of(start, len, &v1, 1);
}

static bool v2_is(const uint8_t *start, size_t len)
{
    return two_of(start, len, &v2, 2);
}

static int vscsi_open(struct fc_trace *trace, struct fc_trace_problem *problem)
{
    struct vscsi *own = trace->own = calloc(1, sizeof(*own));
    if (!own)
        return fc_trace_fail(trace, problem, FC_ENOMEM, "%s",
                             fc_strerror(FC_ENOMEM));
    own->layout = trace->ops == &fc_trace_vscsi1 ? &v1 : &v2;
    trace->head.kind = FC_TRACE_BLOCK;
    trace->head.unit_shift = 9;
    return 0;
}

static void vscsi_close(struct fc_trace *trace)
{
    free(trace->own);
}

/* A SCSI operation code; 0 for one that moves no data of the disk. */
static unsigned request_type(unsigned cmd)
{
    switch (cmd) {
    case 0x08: /* READ (6), (10), (12), (16) */
    case 0x28:
    case 0xa8:
    case 0x88:
        return FC_TRACE_READ;
    case 0x0a: /* WRITE (6), (10), (12), (16), and VERIFY of (10), (16) */
    case 0x2a:
    case 0xaa:
    case 0x8a:
    case 0x2e:
    case 0x8e:
        return FC_TRACE_WRITE;
    case 0x41: /* WRITE SAME (10), (16), UNMAP */
    case 0x93:
    case 0x42:
        return FC_TRACE_DISCARD;
    default:
        return 0;
    }
}

static int vscsi_next(struct fc_trace *trace, struct fc_trace_record *record,
                      struct fc_trace_problem *problem)
{
    struct vscsi *own = trace->own;
    const struct layout *l = own->layout;
    uint8_t raw[V2_BYTES];
    int rc;
    while ((rc = fc_trace_input_read(trace->in, raw, l->bytes)) == 1) {
        unsigned version = raw[l->version_at + 1];
        unsigned type = request_type(raw[l->cmd_at]);
        uint64_t at_us = fc_le_load(raw + l->time_at, 8);
        uint64_t lbn = fc_le_load(raw + l->lbn_at, 8);
        uint64_t len = fc_le_load(raw + l->len_at, 4);
        if (version != (l == &v1 ? 1 : 2))
            return fc_trace_fail(trace, problem, FC_EFORMAT,
                                 "a record of version %u among others",
                                 version);
        if (!type || !len)
            continue;
        if (!own->started)
            own->start_us = at_us;
        own->started = true;
        rc = fc_trace_set_time(
            trace, at_us > own->start_us ? at_us - own->start_us : 0, problem);
        if (rc)
            return rc;
        if (lbn >= FC_TRACE_MAX_UNITS)
            return fc_trace_fail(trace, problem, FC_EFORMAT,
                                 "a request at sector %llu",
                                 (unsigned long long)lbn);
        return fc_trace_request(trace, record, (enum fc_trace_type)type,
                                lbn * 512, len, problem);
    }
    if (rc)
        return fc_trace_fail_input(trace, problem, rc, "a record");
    trace->whole = true;
    return 0;
}

const struct fc_trace_ops fc_trace_vscsi1 = {
    .name = "vscsi1",
    .is = v1_is,
    .open = vscsi_open,
    .next = vscsi_next,
    .close = vscsi_close,
};

const struct fc_trace_ops fc_trace_vscsi2 = {
    .name = "vscsi2",
    .is = v2_is,
    .open = vscsi_open,
    .next = vscsi_next,
    .close = vscsi_close,
};
