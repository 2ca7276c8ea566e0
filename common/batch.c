/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Page batches, docs/formats/page-batch.md.
 *
 * Encoding merges neighbouring items into runs as it writes, so the tables'
 * sizes are known only at the end of a first pass over the items; the second
 * pass writes hashes and chunks straight into the output. Chunks gather up to
 * sixteen DATA pages that need not be neighbours in the guest, because what
 * LZ4 gains from a larger window it gains from any pages of one guest.
 *
 * Parsing trusts no count before it was checked against the buffer and the
 * format's own bounds; after fc_batch_parse() the tables can be walked without
 * further checks, but chunks are checked again while they are unpacked.
 */
#include "batch.h"

#include <lz4.h>
#include <string.h>

#include "err.h"
#include "wire.h"

#define HEADER_BYTES 24u
#define RUN_BYTES 16u
#define HASH_BYTES 16u
#define CHUNK_BYTES (FC_BATCH_CHUNK_PAGES * FC_PAGE_SIZE)
#define CHUNK_RAW 0x80000000u

static bool kind_fits(uint64_t entry, enum fc_batch_kind kind)
{
    if (entry & FC_PFN_RESERVED || (unsigned)kind > FC_BATCH_DATA)
        return false;
    return fc_pfn_has_data(entry) == (kind != FC_BATCH_NONE);
}

static bool has_hash(enum fc_batch_kind kind)
{
    return kind == FC_BATCH_REF || kind == FC_BATCH_DATA;
}

/* Number of items from `first` on that make one run. */
static unsigned run_length(const struct fc_batch_item *items, unsigned count,
                           unsigned first)
{
    unsigned n = 1;
    while (first + n < count && items[first + n].kind == items[first].kind &&
           items[first + n].entry == items[first].entry + n)
        n++;
    return n;
}

static void put_run(struct fc_writer *w, const struct fc_batch_item *item,
                    unsigned count)
{
    fc_put_u64(w, item->entry);
    fc_put_u32(w, count);
    fc_put_u32(w, (uint32_t)item->kind);
}

/* Compresses `pages` pages at `src` to the writer, raw when that is shorter. */
static void put_chunk(struct fc_writer *w, const uint8_t *src, unsigned pages)
{
    int raw = (int)(pages * FC_PAGE_SIZE);
    uint8_t *head = fc_put_room(w, 4);
    size_t room = (size_t)(w->end - w->p);
    int cap = room < (size_t)raw ? (int)room : raw - 1;
    int n = head ? LZ4_compress_default((const char *)src, (char *)w->p, raw,
                                        cap)
                 : 0;
    if (n > 0) {
        fc_le_store(head, (uint32_t)n, 4);
        w->p += n;
    } else if (head) {
        fc_le_store(head, (uint32_t)raw | CHUNK_RAW, 4);
        fc_put_bytes(w, src, (size_t)raw);
    }
}

static void put_chunks(struct fc_writer *w, const struct fc_batch_item *items,
                       unsigned count)
{
    uint8_t gathered[CHUNK_BYTES];
    unsigned held = 0;
    for (unsigned i = 0; i < count; i++) {
        if (items[i].kind != FC_BATCH_DATA)
            continue;
        memcpy(gathered + held * FC_PAGE_SIZE, items[i].page, FC_PAGE_SIZE);
        if (++held == FC_BATCH_CHUNK_PAGES) {
            put_chunk(w, gathered, held);
            held = 0;
        }
    }
    if (held)
        put_chunk(w, gathered, held);
}

ssize_t fc_batch_encode(const struct fc_batch_item *items, unsigned count,
                        void *out, size_t cap)
{
    if (count < 1 || count > FC_BATCH_PAGES)
        return FC_EINVAL;
    uint32_t hashes = 0, data = 0;
    for (unsigned i = 0; i < count; i++) {
        if (!kind_fits(items[i].entry, items[i].kind))
            return FC_EINVAL;
        hashes += has_hash(items[i].kind);
        data += items[i].kind == FC_BATCH_DATA;
    }

    struct fc_writer w = fc_writer_of(out, cap);
    uint8_t *head = fc_put_room(&w, HEADER_BYTES);
    if (!head)
        return FC_ETOOBIG;
    uint32_t runs = 0;
    for (unsigned i = 0; i < count; runs++) {
        unsigned n = run_length(items, count, i);
        put_run(&w, &items[i], n);
        i += n;
    }
    for (unsigned i = 0; i < count; i++) {
        if (!has_hash(items[i].kind))
            continue;
        fc_put_u64(&w, items[i].hash.lo);
        fc_put_u64(&w, items[i].hash.hi);
    }
    put_chunks(&w, items, count);

    struct fc_writer h = fc_writer_of(head, HEADER_BYTES);
    fc_put_u32(&h, runs);
    fc_put_u32(&h, count);
    fc_put_u32(&h, hashes);
    fc_put_u32(&h, data);
    fc_put_u32(&h, (data + FC_BATCH_CHUNK_PAGES - 1) / FC_BATCH_CHUNK_PAGES);
    fc_put_u32(&h, 0);
    return w.bad ? FC_ETOOBIG : (ssize_t)fc_writer_used(&w);
}

static const char *check_runs(const struct fc_batch *b)
{
    uint64_t pages = 0, contents = 0, hashes = 0, data = 0;
    struct fc_reader r =
        fc_reader_of(b->run_table, (size_t)b->runs * RUN_BYTES);
    for (uint32_t i = 0; i < b->runs; i++) {
        uint64_t entry = fc_get_u64(&r);
        uint32_t count = fc_get_u32(&r);
        uint32_t kind = fc_get_u32(&r);
        if (kind > FC_BATCH_DATA || !kind_fits(entry, kind))
            return "run's kind and page type do not go together";
        if (count < 1 || count > FC_BATCH_ENTRIES ||
            (entry & FC_PFN_MASK) + count > FC_PFN_MASK + 1)
            return "run's length is out of range";
        pages += count;
        contents += kind != FC_BATCH_NONE ? count : 0;
        hashes += has_hash(kind) ? count : 0;
        data += kind == FC_BATCH_DATA ? count : 0;
    }
    if (contents > FC_BATCH_PAGES)
        return "too many pages with contents";
    if (pages != b->pages || hashes != b->hashes || data != b->data_pages)
        return "runs do not add up to the header's counts";
    return NULL;
}

static uint32_t chunk_pages(const struct fc_batch *b, uint32_t chunk)
{
    uint32_t left = b->data_pages - chunk * FC_BATCH_CHUNK_PAGES;
    return left < FC_BATCH_CHUNK_PAGES ? left : FC_BATCH_CHUNK_PAGES;
}

static const char *check_chunks(const struct fc_batch *b)
{
    struct fc_reader r = fc_reader_of(b->chunk_data, b->chunk_bytes);
    for (uint32_t i = 0; i < b->chunks; i++) {
        uint32_t head = fc_get_u32(&r), stored = head & ~CHUNK_RAW;
        uint32_t full = chunk_pages(b, i) * FC_PAGE_SIZE;
        if (!fc_get_bytes(&r, stored))
            return "chunk is cut short";
        if (head & CHUNK_RAW ? stored != full : !stored || stored >= full)
            return "chunk's length does not go with its pages";
    }
    return fc_reader_left(&r) ? "bytes after the last chunk" : NULL;
}

int fc_batch_parse(const void *buf, size_t len, struct fc_batch *b,
                   const char **why_r)
{
    struct fc_reader r = fc_reader_of(buf, len);
    const char *why = NULL;
    b->runs = fc_get_u32(&r);
    b->pages = fc_get_u32(&r);
    b->hashes = fc_get_u32(&r);
    b->data_pages = fc_get_u32(&r);
    b->chunks = fc_get_u32(&r);
    uint32_t reserved = fc_get_u32(&r);
    if (r.bad || len > FC_BATCH_MAX_BYTES)
        why = r.bad ? "batch header is cut short" : "batch is too long";
    else if (reserved)
        why = "reserved field is not zero";
    else if (b->runs < 1 || b->runs > FC_BATCH_RUNS || b->pages < 1 ||
             b->pages > FC_BATCH_ENTRIES || b->hashes > FC_BATCH_PAGES ||
             b->data_pages > b->hashes)
        why = "count is out of range";
    else if (b->chunks != (b->data_pages + FC_BATCH_CHUNK_PAGES - 1) /
                              FC_BATCH_CHUNK_PAGES)
        why = "number of chunks does not go with the data pages";
    if (!why) {
        b->run_table = fc_get_bytes(&r, (size_t)b->runs * RUN_BYTES);
        b->hash_table = fc_get_bytes(&r, (size_t)b->hashes * HASH_BYTES);
        if (r.bad)
            why = "tables are cut short";
    }
    if (!why) {
        b->chunk_data = r.p;
        b->chunk_bytes = fc_reader_left(&r);
        why = check_runs(b);
    }
    if (!why)
        why = check_chunks(b);
    if (why_r)
        *why_r = why;
    return why ? FC_EFORMAT : 0;
}

/* 1 when the chunk's pages are in `out`. */
static int unpack_chunk(struct fc_reader *r, uint8_t *out, uint32_t pages)
{
    uint32_t head = fc_get_u32(r), stored = head & ~CHUNK_RAW;
    const uint8_t *src = fc_get_bytes(r, stored);
    int full = (int)(pages * FC_PAGE_SIZE);
    if (!src)
        return 0;
    if (head & CHUNK_RAW) {
        memcpy(out, src, (size_t)full);
        return 1;
    }
    return LZ4_decompress_safe((const char *)src, (char *)out, (int)stored,
                               full) == full;
}

static struct fc_hash hash_at(const struct fc_batch *b, uint32_t i)
{
    const uint8_t *p = b->hash_table + (size_t)i * HASH_BYTES;
    return (struct fc_hash){ fc_le_load(p, 8), fc_le_load(p + 8, 8) };
}

unsigned fc_batch_unpack(const struct fc_batch *b, uint8_t *pages,
                         uint8_t *good)
{
    struct fc_reader r = fc_reader_of(b->chunk_data, b->chunk_bytes);
    struct fc_batch_iter it;
    struct fc_batch_step step;
    unsigned n = 0;
    for (uint32_t c = 0; c < b->chunks; c++) {
        uint32_t first = c * FC_BATCH_CHUNK_PAGES, held = chunk_pages(b, c);
        uint8_t *out = pages + (size_t)first * FC_PAGE_SIZE;
        memset(good + first, unpack_chunk(&r, out, held), held);
    }
    fc_batch_iter_init(&it, b);
    while (fc_batch_next(&it, &step)) {
        if (step.kind != FC_BATCH_DATA || !good[step.data_index])
            continue;
        const uint8_t *page = pages + (size_t)step.data_index * FC_PAGE_SIZE;
        good[step.data_index] = fc_hash_equal(fc_page_hash(page), step.hash);
        n += good[step.data_index];
    }
    return n;
}

void fc_batch_iter_init(struct fc_batch_iter *it, const struct fc_batch *batch)
{
    *it = (struct fc_batch_iter){ .batch = batch };
}

int fc_batch_next(struct fc_batch_iter *it, struct fc_batch_step *step)
{
    const struct fc_batch *b = it->batch;
    if (it->run == b->runs)
        return 0;
    const uint8_t *p = b->run_table + (size_t)it->run * RUN_BYTES;
    uint32_t count = (uint32_t)fc_le_load(p + 8, 4);
    step->kind = (enum fc_batch_kind)fc_le_load(p + 12, 4);
    step->entry = fc_le_load(p, 8) + it->in_run;
    step->count = step->kind == FC_BATCH_NONE ? count : 1;
    if (has_hash(step->kind))
        step->hash = hash_at(b, it->hash++);
    if (step->kind == FC_BATCH_DATA)
        step->data_index = it->data++;
    it->in_run += step->count;
    if (it->in_run == count) {
        it->in_run = 0;
        it->run++;
    }
    return 1;
}
