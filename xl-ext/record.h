/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_RECORD_H
#define FC_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io.h"
#include "session.h"

/*
 * The libxc v2 stream's framing and our own records,
 * docs/formats/stream.md. No function keeps state; any thread.
 */
#define FC_IMAGE_HEADER 24u
#define FC_DOMAIN_HEADER 16u
#define FC_STREAM_HEADERS (FC_IMAGE_HEADER + FC_DOMAIN_HEADER)
#define FC_RECORD_HEADER 8u
#define FC_RECORD_MAX (128u << 20) /* libxc's own limit on a body */

/* Guest types of the domain header. */
#define FC_DOMAIN_PV 1u
#define FC_DOMAIN_HVM 2u /* PVH too */

enum fc_record_type {
    FC_REC_END = 0x00000000,
    FC_REC_PAGE_DATA = 0x00000001,
    FC_REC_VERIFY = 0x0000000d,
    FC_REC_CHECKPOINT = 0x0000000e,
};

/* Ours. Bit 31 set: a receiver that does not know it may drop it. */
#define FC_REC_HELLO 0x80464301u
#define FC_REC_PAGES 0x00464302u
#define FC_REC_SYNC 0x80464303u
#define FC_REC_PING 0x80464304u

struct fc_record {
    uint32_t type;
    uint32_t length; /* of the body, without padding */
};

/* Body length with its padding to 8 bytes. */
static inline uint64_t fc_record_padded(uint32_t length)
{
    return ((uint64_t)length + 7) & ~(uint64_t)7;
}

void fc_record_head_make(uint8_t raw[FC_RECORD_HEADER], uint32_t type,
                         uint32_t length);
struct fc_record fc_record_head_parse(const uint8_t raw[FC_RECORD_HEADER]);

/*
 * Checks image and domain header and says which guest type follows. 0 or
 * FC_EFORMAT with a static string in *why_r.
 */
int fc_stream_headers_parse(const uint8_t raw[FC_STREAM_HEADERS],
                            uint32_t *guest_type_r, const char **why_r);
/* For tests and benches: headers as libxc 4.17 writes them. */
void fc_stream_headers_make(uint8_t raw[FC_STREAM_HEADERS],
                            uint32_t guest_type);

/* PAGE_DATA's body: count, reserved, entries, pages. */
#define FC_PAGE_DATA_HEADER 8u
#define FC_PAGE_DATA_ENTRIES 1024u /* libxc's batch; longer records pass */
#define FC_PAGE_DATA_MAX                                                       \
    (FC_PAGE_DATA_HEADER + FC_PAGE_DATA_ENTRIES * (8u + 4096u))

struct fc_page_data {
    uint32_t count;
    const uint8_t *entries; /* count x u64 */
    const uint8_t *pages;
    uint32_t with_data;
};

/* 0 or FC_EFORMAT: the lengths do not add up as libxc demands. */
int fc_page_data_parse(const void *body, size_t length,
                       struct fc_page_data *data_r);

#define FC_HELLO_BYTES 56u
#define FC_STREAM_VERSION 1u

struct fc_hello {
    uint16_t highest, lowest;
    uint8_t uuid[FC_UUID_BYTES];
    uint8_t token[FC_TOKEN_BYTES];
    uint64_t epoch;
};

void fc_hello_make(uint8_t body[FC_HELLO_BYTES], const struct fc_hello *hello);
/* 0 or FC_EFORMAT. A longer body is a later version's: the rest is ignored. */
int fc_hello_parse(const void *body, size_t length, struct fc_hello *hello_r);

#endif
