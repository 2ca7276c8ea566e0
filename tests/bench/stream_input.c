/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "stream_input.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../rng.h"
#include "io.h"
#include "page.h"
#include "record.h"
#include "wire.h"

#define SYNTHETIC_PAGES 65536u

/*
 * What `xl save` writes: its own header (magic, then u32 byte order, mandatory
 * flags, optional flags, length of what follows), the configuration, and
 * libxl's stream (u64 "LibxlFmt", u32 version, u32 options, big endian; then
 * records of u32 type, u32 length, body padded to 8). libxc's stream follows
 * straight after the empty record LIBXC_CONTEXT.
 */
#define XL_MAGIC "Xen saved domain, xl format\n \0 \r"
#define XL_MAGIC_BYTES 32u
#define XL_HEADER 48u
#define XL_DATA_LEN 44u
#define LIBXL_MAGIC "LibxlFmt"
#define LIBXL_HEADER 16u
#define LIBXL_CONTEXT 1u

void stream_die(const char *what)
{
    fprintf(stderr, "bench_stream: %s%s%s\n", what, errno ? ": " : "",
            errno ? strerror(errno) : "");
    exit(1);
}

static void __attribute__((noreturn, format(printf, 3, 4)))
bad_file(const struct stream_input *in, size_t at, const char *fmt, ...)
{
    va_list ap;
    fprintf(stderr, "bench_stream: %s: at byte %zu: ", in->name,
            in->start + at);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

uint8_t *stream_map(size_t len)
{
    uint8_t *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        stream_die("mmap");
    return p;
}

/* ---- its pages ---- */

/* Calls `each` for every page with contents. */
static void walk_pages(const struct stream_input *in,
                       void (*each)(void *user, uint64_t pfn,
                                    const uint8_t *page),
                       void *user)
{
    size_t at = FC_STREAM_HEADERS;
    while (at + FC_RECORD_HEADER <= in->len) {
        struct fc_record r = fc_record_head_parse(in->bytes + at);
        struct fc_page_data d;
        at += FC_RECORD_HEADER;
        if (r.type == FC_REC_END || fc_record_padded(r.length) > in->len - at)
            return;
        if (r.type == FC_REC_PAGE_DATA &&
            fc_page_data_parse(in->bytes + at, r.length, &d) == 0) {
            const uint8_t *page = d.pages;
            for (uint32_t i = 0; i < d.count; i++) {
                uint64_t entry = fc_le_load(d.entries + (size_t)i * 8, 8);
                if (!fc_pfn_has_data(entry))
                    continue;
                each(user, entry & FC_PFN_MASK, page);
                page += FC_PAGE_SIZE;
            }
        }
        at += (size_t)fc_record_padded(r.length);
    }
}

static void count_page(void *user, uint64_t pfn, const uint8_t *page)
{
    struct stream_input *in = user;
    (void)pfn;
    in->pages++;
    in->zero_pages += fc_page_is_zero(page);
}

/* ---- a guest made up ---- */

/* Words of a small vocabulary, as text and code have them. */
static void fill_words(uint8_t *page)
{
    static uint8_t words[512][16];
    static bool made;
    for (unsigned i = 0; !made && i < sizeof(words); i++)
        words[i / 16][i % 16] = (uint8_t)(test_rng() >> 40);
    made = true;
    for (unsigned at = 0; at < FC_PAGE_SIZE;) {
        unsigned n = 3 + (unsigned)(test_rng() % 12);
        n = n < FC_PAGE_SIZE - at ? n : FC_PAGE_SIZE - at;
        memcpy(page + at, words[test_rng() % 512], n);
        at += n;
    }
}

/* Records of pointers and counters, as heaps and kernels have them. */
static void fill_structs(uint8_t *page)
{
    uint64_t base = 0xffff888000000000ull | (test_rng() & 0xffffff000ull);
    for (unsigned at = 0; at < FC_PAGE_SIZE; at += 64) {
        uint64_t rec[8] = { base + at,
                            base + (test_rng() & 0xffff),
                            test_rng() & 0xff,
                            0,
                            test_rng() & 0xffff,
                            0,
                            base,
                            1 };
        memcpy(page + at, rec, sizeof(rec));
    }
}

static void fill_noise(uint8_t *page)
{
    for (unsigned at = 0; at < FC_PAGE_SIZE; at += 8) {
        uint64_t v = test_rng();
        memcpy(page + at, &v, 8);
    }
}

static void fill_page(uint8_t *page, uint64_t pfn)
{
    static unsigned kind;
    if (pfn % 8 == 0)
        kind = (unsigned)(test_rng() % 100);
    if (kind < 25)
        memset(page, 0, FC_PAGE_SIZE);
    else if (kind < 60)
        fill_words(page);
    else if (kind < 85)
        fill_structs(page);
    else
        fill_noise(page);
}

void stream_input_make(struct stream_input *in)
{
    uint32_t batch = FC_PAGE_DATA_ENTRIES;
    size_t record = FC_RECORD_HEADER + FC_PAGE_DATA_MAX;
    in->name = "a made-up guest";
    in->bytes = stream_map(FC_STREAM_HEADERS + FC_RECORD_HEADER +
                           SYNTHETIC_PAGES / batch * record);
    fc_stream_headers_make(in->bytes, FC_DOMAIN_HVM);
    uint8_t *p = in->bytes + FC_STREAM_HEADERS;
    for (uint64_t pfn = 0; pfn < SYNTHETIC_PAGES; pfn += batch) {
        fc_record_head_make(p, FC_REC_PAGE_DATA, FC_PAGE_DATA_MAX);
        p += FC_RECORD_HEADER;
        fc_le_store(p, batch, 8);
        p += FC_PAGE_DATA_HEADER;
        for (uint32_t i = 0; i < batch; i++, p += 8)
            fc_le_store(p, pfn + i, 8);
        for (uint32_t i = 0; i < batch; i++, p += FC_PAGE_SIZE)
            fill_page(p, pfn + i);
    }
    fc_record_head_make(p, FC_REC_END, 0);
    in->len = (size_t)(p + FC_RECORD_HEADER - in->bytes);
    walk_pages(in, count_page, in);
}

/* ---- a file ---- */

/* Where libxc's stream begins in a file. */
static size_t find_libxc(const struct stream_input *in)
{
    const uint8_t *p = in->bytes;
    size_t len = in->len;
    if (len < XL_HEADER || memcmp(p, XL_MAGIC, XL_MAGIC_BYTES))
        return 0;
    uint64_t at = XL_HEADER + fc_le_load(p + XL_DATA_LEN, 4);
    if (at + LIBXL_HEADER > len ||
        memcmp(p + at, LIBXL_MAGIC, sizeof(LIBXL_MAGIC) - 1))
        bad_file(in, at, "no libxl stream after xl's header");
    at += LIBXL_HEADER;
    while (at + FC_RECORD_HEADER <= len) {
        struct fc_record r = fc_record_head_parse(p + at);
        at += FC_RECORD_HEADER + fc_record_padded(r.length);
        if (r.type == LIBXL_CONTEXT)
            return at > len ? len : (size_t)at;
    }
    bad_file(in, len, "libxl's stream ends without libxc's");
}

/* Checks the record at `at`; returns where the next begins. */
static size_t check_record(const struct stream_input *in, size_t at)
{
    struct fc_page_data d;
    if (in->len - at < FC_RECORD_HEADER)
        bad_file(in, in->len, "the stream ends without an END record");
    const uint8_t *body = in->bytes + at + FC_RECORD_HEADER;
    struct fc_record r = fc_record_head_parse(in->bytes + at);
    if (r.length > FC_RECORD_MAX)
        bad_file(in, at, "a record of %u bytes: libxc allows %u", r.length,
                 FC_RECORD_MAX);
    if (fc_record_padded(r.length) > in->len - at - FC_RECORD_HEADER)
        bad_file(in, at, "a record of %u bytes goes past the file's end",
                 r.length);
    if (r.type == FC_REC_CHECKPOINT)
        bad_file(in, at, "a checkpointed stream");
    if (r.type == FC_REC_PAGE_DATA && fc_page_data_parse(body, r.length, &d))
        bad_file(in, at, "a PAGE_DATA record whose lengths do not add up");
    return at + FC_RECORD_HEADER + (size_t)fc_record_padded(r.length);
}

static void check_stream(struct stream_input *in)
{
    const char *why = "too short for libxc's headers";
    uint32_t type;
    size_t at = FC_STREAM_HEADERS, next;
    if (in->len < FC_STREAM_HEADERS ||
        fc_stream_headers_parse(in->bytes, &type, &why) < 0)
        bad_file(in, 0, "no libxc v2 stream and no file of `xl save`: %s", why);
    if (type != FC_DOMAIN_HVM)
        bad_file(in, FC_IMAGE_HEADER, "not of a PVH or HVM guest (type %u)",
                 type);
    for (;; at = next) {
        next = check_record(in, at);
        if (fc_record_head_parse(in->bytes + at).type == FC_REC_END)
            break;
    }
    in->len = next;
    walk_pages(in, count_page, in);
    if (in->pages == in->zero_pages)
        bad_file(in, at, "no page in it has contents");
}

void stream_input_load(struct stream_input *in, const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        stream_die(path);
    in->name = path;
    in->len = S_ISREG(st.st_mode) ? (size_t)st.st_size : 0;
    if (!in->len)
        bad_file(in, 0, "not a file with contents");
    in->bytes = stream_map(in->len);
    if (fc_read_exact(fd, in->bytes, in->len) < 0)
        stream_die(path);
    close(fd);
    in->start = find_libxc(in);
    in->bytes += in->start;
    in->len -= in->start;
    check_stream(in);
}

/* ---- what is staged ---- */

static void stage_page(void *user, uint64_t pfn, const uint8_t *page)
{
    struct stream_staged *s = user;
    if (fc_page_is_zero(page) || s->n++ % 100 >= STREAM_STAGED_PERCENT)
        return;
    struct fc_hash hash = fc_page_hash(page);
    if (fc_store_put(s->store, pfn, hash, page, NULL, NULL) < 0 ||
        fc_hashset_add(&s->set, hash) < 0)
        stream_die("staging");
}

void stream_stage(struct stream_staged *s, const struct stream_input *in)
{
    uint64_t budget = 2 * in->len + (64u << 20);
    s->store_fd = fc_store_file_new("bench", budget);
    if (s->store_fd < 0 || fc_store_open(s->store_fd, budget, &s->store) < 0 ||
        fc_hashset_new(&s->set, in->pages) < 0)
        stream_die("staging");
    walk_pages(in, stage_page, s);
}

int stream_staged_get(void *user, struct fc_hash hash, void *page)
{
    return fc_store_view_get(user, hash, page);
}
