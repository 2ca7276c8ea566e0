/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "record.h"

#include <string.h>

#include "err.h"
#include "page.h"
#include "wire.h"

static const char hello_magic[8] = "FCSTREAM";

/* The image header's id and version are big endian, all else is little. */
static const uint8_t image_id[4] = { 'X', 'E', 'N', 'F' };
#define IMAGE_OLDEST 2u
#define IMAGE_NEWEST 3u
#define IMAGE_BIG_ENDIAN 0x0100u /* bit 0 of a big-endian u16, read little */

void fc_record_head_make(uint8_t raw[FC_RECORD_HEADER], uint32_t type,
                         uint32_t length)
{
    fc_le_store(raw, type, 4);
    fc_le_store(raw + 4, length, 4);
}

struct fc_record fc_record_head_parse(const uint8_t raw[FC_RECORD_HEADER])
{
    return (struct fc_record){ (uint32_t)fc_le_load(raw, 4),
                               (uint32_t)fc_le_load(raw + 4, 4) };
}

int fc_stream_headers_parse(const uint8_t raw[FC_STREAM_HEADERS],
                            uint32_t *guest_type_r, const char **why_r)
{
    struct fc_reader r = fc_reader_of(raw, FC_STREAM_HEADERS);
    uint64_t marker = fc_get_u64(&r);
    const uint8_t *id = fc_get_bytes(&r, sizeof(image_id));
    const uint8_t *version = fc_get_bytes(&r, 4);
    uint16_t options = fc_get_u16(&r);
    if (marker != UINT64_MAX || memcmp(id, image_id, sizeof(image_id))) {
        *why_r = "it does not begin with libxc's image header";
        return FC_EFORMAT;
    }
    if (version[0] || version[1] || version[2] || version[3] < IMAGE_OLDEST ||
        version[3] > IMAGE_NEWEST) {
        *why_r = "its version is not 2 or 3";
        return FC_EFORMAT;
    }
    if (options & IMAGE_BIG_ENDIAN) {
        *why_r = "it is big endian";
        return FC_EFORMAT;
    }
    fc_get_bytes(&r, 6);
    *guest_type_r = fc_get_u32(&r);
    return 0;
}

void fc_stream_headers_make(uint8_t raw[FC_STREAM_HEADERS], uint32_t guest_type)
{
    uint8_t *domain = raw + FC_IMAGE_HEADER;
    memset(raw, 0, FC_STREAM_HEADERS);
    memset(raw, 0xff, 8);
    memcpy(raw + 8, image_id, sizeof(image_id));
    raw[15] = IMAGE_NEWEST;
    fc_le_store(domain, guest_type, 4);
    fc_le_store(domain + 4, FC_PAGE_SHIFT, 2);
    fc_le_store(domain + 8, 4, 4);
    fc_le_store(domain + 12, 17, 4);
}

int fc_page_data_parse(const void *body, size_t length,
                       struct fc_page_data *data_r)
{
    struct fc_reader r = fc_reader_of(body, length);
    data_r->count = fc_get_u32(&r);
    uint32_t reserved = fc_get_u32(&r);
    data_r->entries = fc_get_bytes(&r, (size_t)data_r->count * 8);
    data_r->with_data = 0;
    if (r.bad || reserved || !data_r->count)
        return FC_EFORMAT;
    for (uint32_t i = 0; i < data_r->count; i++) {
        uint64_t entry = fc_le_load(data_r->entries + (size_t)i * 8, 8);
        if (entry & FC_PFN_RESERVED)
            return FC_EFORMAT;
        data_r->with_data += fc_pfn_has_data(entry);
    }
    data_r->pages = r.p;
    return fc_reader_left(&r) == (size_t)data_r->with_data * FC_PAGE_SIZE
               ? 0
               : FC_EFORMAT;
}

void fc_hello_make(uint8_t body[FC_HELLO_BYTES], const struct fc_hello *hello)
{
    struct fc_writer w = fc_writer_of(body, FC_HELLO_BYTES);
    fc_put_bytes(&w, hello_magic, sizeof(hello_magic));
    fc_put_u16(&w, hello->highest);
    fc_put_u16(&w, hello->lowest);
    fc_put_u32(&w, 0);
    fc_put_bytes(&w, hello->uuid, sizeof(hello->uuid));
    fc_put_bytes(&w, hello->token, sizeof(hello->token));
    fc_put_u64(&w, hello->epoch);
}

int fc_hello_parse(const void *body, size_t length, struct fc_hello *hello_r)
{
    struct fc_reader r = fc_reader_of(body, length);
    const uint8_t *m = fc_get_bytes(&r, sizeof(hello_magic));
    hello_r->highest = fc_get_u16(&r);
    hello_r->lowest = fc_get_u16(&r);
    uint32_t reserved = fc_get_u32(&r);
    const uint8_t *uuid = fc_get_bytes(&r, FC_UUID_BYTES);
    const uint8_t *token = fc_get_bytes(&r, FC_TOKEN_BYTES);
    hello_r->epoch = fc_get_u64(&r);
    if (r.bad || memcmp(m, hello_magic, sizeof(hello_magic)) || reserved ||
        hello_r->lowest > hello_r->highest)
        return FC_EFORMAT;
    memcpy(hello_r->uuid, uuid, FC_UUID_BYTES);
    memcpy(hello_r->token, token, FC_TOKEN_BYTES);
    return 0;
}
