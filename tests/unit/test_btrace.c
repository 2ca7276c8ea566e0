/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <linux/blktrace_api.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "btrace.h"
#include "err.h"
#include "io.h"
#include "tally.h"

/* Of a Linux 6.18; offsets differ between kernels, names do not. */
static const char event_format[] =
    "name: block_bio_queue\nID: 2097\nformat:\n"
    "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"
    "\tfield:dev_t dev;\toffset:8;\tsize:4;\tsigned:0;\n"
    "\tfield:sector_t sector;\toffset:16;\tsize:8;\tsigned:0;\n"
    "\tfield:unsigned int nr_sector;\toffset:24;\tsize:4;\tsigned:0;\n"
    "\tfield:char rwbs[10];\toffset:28;\tsize:10;\tsigned:0;\n"
    "\tfield:char comm[16];\toffset:38;\tsize:16;\tsigned:0;\n"
    "\nprint fmt: \"%d,%d %s %llu + %u [%s]\"\n";
static const char page_format[] =
    "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
    "\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n"
    "\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n"
    "\tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;\n";

static struct fc_btrace_target target[2] = {
    { .path = "/dev/loop0", .major = 7, .disk_major = 7, .sectors = 2097152 },
    /* its first 256 sectors are the disk's from 5000 on */
    { .path = "/dev/loop0p1",
      .major = 259,
      .disk_major = 7,
      .sectors = 256,
      .first = 5000 },
};

/* A means that has nothing to say by itself. */
static int still_open(struct fc_btrace *t, const struct fc_btrace_config *c,
                      void **state_r, char why[FC_BTRACE_WHY])
{
    (void)t;
    (void)c;
    (void)why;
    *state_r = NULL;
    return 0;
}

static int still_collect(void *state, bool counts)
{
    (void)state;
    (void)counts;
    return 0;
}

static uint64_t three_lost(void *state)
{
    (void)state;
    return 3;
}

static void still_close(void *state)
{
    (void)state;
}

static const struct fc_btrace_means_ops still = {
    .means = FC_BLOCKBATCH_TRACEFS,
    .open = still_open,
    .collect = still_collect,
    .lost = three_lost,
    .close = still_close,
};

static const struct fc_btrace_config config = { .extent_bytes = 1 << 20,
                                                .interval_ms = 1000,
                                                .requests = true,
                                                .targets = 2,
                                                .target = target,
                                                .own = &still };

static struct fc_btrace *open_still(void)
{
    struct fc_btrace *t;
    char why[FC_BTRACE_METHODS * FC_BTRACE_WHY];
    assert_int_equal(fc_btrace_open(&config, &t, why), 0);
    return t;
}

#define ENTRIES 64
struct out {
    struct fc_blockbatch_reader reader;
    struct fc_blockbatch_count count[2][ENTRIES];
    struct fc_blockbatch_request request[2][ENTRIES];
    uint32_t counts[2], requests[2];
};

/* What it writes, read back. */
static void written(struct fc_btrace *t, struct out *o)
{
    int fd = memfd_create("batches", 0);
    memset(o, 0, sizeof(*o));
    assert_true(fd >= 0);
    assert_int_equal(fc_btrace_write_start(t, fd), 0);
    assert_int_equal(fc_btrace_write(t, fd, 5000000000), 0);
    assert_int_equal(fc_btrace_write_end(t, fd), 0);
    off_t len = lseek(fd, 0, SEEK_CUR);
    uint8_t *buf = malloc((size_t)len);
    assert_int_equal(pread(fd, buf, (size_t)len, 0), len);
    for (size_t at = 0; at < (size_t)len;) {
        struct fc_blockbatch_frame f;
        long n = fc_blockbatch_next(&o->reader, buf + at, (size_t)len - at, &f);
        assert_true(n > 0);
        at += (size_t)n;
        for (uint32_t i = 0; f.type == FC_BLOCKBATCH_COUNT && i < f.n; i++)
            fc_blockbatch_count_at(&f, i,
                                   &o->count[f.device][o->counts[f.device]++]);
        for (uint32_t i = 0; f.type == FC_BLOCKBATCH_REQUEST && i < f.n; i++)
            fc_blockbatch_request_at(
                &f, i, &o->request[f.device][o->requests[f.device]++]);
    }
    assert_true(o->reader.ended);
    free(buf);
    close(fd);
}

static void layout_of(struct fc_btrace_layout *l)
{
    assert_int_equal(fc_btrace_layout_parse(event_format, page_format, l), 0);
    assert_int_equal(l->id, 2097);
    assert_int_equal(l->nr_sector, 24);
    assert_int_equal(l->commit_size, 8);
}

static size_t golden_page(uint8_t *page, size_t room)
{
    FILE *f = fopen("tests/unit/golden/trace-page.hex", "r");
    size_t n = 0;
    unsigned byte;
    assert_non_null(f);
    while (n < room && fscanf(f, "%2x", &byte) == 1)
        page[n++] = (uint8_t)byte;
    fclose(f);
    return n;
}

/* Would break: what tracefs holds is misread. The page was recorded: two reads
 * and a write by dd, two reads and a discard by blkdiscard. */
static void reads_a_page_of_tracefs(void **state)
{
    (void)state;
    static const struct fc_blockbatch_request want[] = {
        { 2067272447, 800, 8, FC_BLOCKBATCH_READ },
        { 2067288082, 808, 8, FC_BLOCKBATCH_READ },
        { 2067498743, 2097024, 8, FC_BLOCKBATCH_READ },
        { 2067498860, 2097136, 8, FC_BLOCKBATCH_READ },
        { 2067499131, 2048, 6144, FC_BLOCKBATCH_DISCARD },
    };
    struct fc_btrace *t = open_still();
    struct fc_btrace_layout l;
    uint8_t page[4096];
    static struct out o;
    size_t len = golden_page(page, sizeof(page));
    layout_of(&l);
    fc_btrace_page_parse(t, &config, &l, page, len);
    assert_int_equal(fc_btrace_seen(t), 6);
    written(t, &o);
    assert_int_equal(o.requests[0], 5);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(o.request[0][i].time_us, want[i].time_us);
        assert_int_equal(o.request[0][i].sector, want[i].sector);
        assert_int_equal(o.request[0][i].sectors, want[i].sectors);
        assert_int_equal(o.request[0][i].op, want[i].op);
    }
    /* the write is the partition's */
    assert_int_equal(o.requests[1], 1);
    assert_int_equal(o.request[1][0].sector, 120);
    assert_int_equal(o.request[1][0].op, FC_BLOCKBATCH_WRITE);
    assert_int_equal(o.counts[0], 2);
    assert_int_equal(o.count[0][0].reads, 2);
    assert_int_equal(o.count[0][0].read_bytes, 8192);
    assert_int_equal(o.count[0][1].extent, 1023);
    assert_int_equal(o.count[0][1].reads, 2);
    assert_int_equal(o.counts[1], 1);
    assert_int_equal(o.count[1][0].write_bytes, 65536);
    assert_int_equal(o.reader.lost, 3);
    fc_btrace_close(t);
}

/* Would break: a page that is cut or lies about its length crashes. */
static void bad_pages_do_no_harm(void **state)
{
    (void)state;
    struct fc_btrace *t = open_still();
    struct fc_btrace_layout l;
    uint8_t page[4096];
    size_t len = golden_page(page, sizeof(page));
    layout_of(&l);
    for (size_t cut = 0; cut < len; cut++) {
        uint8_t *exact = malloc(cut + 1);
        memcpy(exact, page, cut);
        fc_btrace_page_parse(t, &config, &l, exact, cut);
        free(exact);
    }
    for (size_t at = 8; at < len; at++) {
        page[at] ^= 0xff;
        fc_btrace_page_parse(t, &config, &l, page, len);
        page[at] ^= 0xff;
    }
    assert_true(fc_btrace_seen(t) > 0);
    fc_btrace_close(t);
    assert_int_equal(fc_btrace_layout_parse("ID: 3\n", page_format, &l),
                     FC_EFORMAT);
    assert_int_equal(fc_btrace_layout_parse(event_format, "", &l), FC_EFORMAT);
}

static size_t put_event(uint8_t *buf, uint64_t time_ns, uint32_t action,
                        uint64_t sector, uint32_t bytes, uint16_t more)
{
    struct blk_io_trace e = {
        .magic = BLK_IO_TRACE_MAGIC | BLK_IO_TRACE_VERSION,
        .time = time_ns,
        .sector = sector,
        .bytes = bytes,
        .action = action,
        .pdu_len = more,
    };
    memcpy(buf, &e, sizeof(e));
    memset(buf + sizeof(e), 0xee, more);
    return sizeof(e) + more;
}

/* Would break: blktrace's events are misread, or one that is not whole yet is
 * not waited for. */
static void reads_events_of_blktrace(void **state)
{
    (void)state;
    const uint32_t read = BLK_TA_QUEUE | BLK_TC_ACT(BLK_TC_READ);
    const uint32_t write = BLK_TA_QUEUE | BLK_TC_ACT(BLK_TC_WRITE);
    uint8_t buf[1024];
    size_t n = 0;
    static struct out o;
    struct fc_btrace *t = open_still();
    n += put_event(buf + n, 1000, BLK_TN_PROCESS, 0, 0, 16);
    n += put_event(buf + n, 9000, write, 2040, 8192, 0);
    n += put_event(buf + n, 5000, read, 10, 4096, 7);
    n += put_event(buf + n, 9500, write | BLK_TC_ACT(BLK_TC_DISCARD), 0, 4096,
                   0);
    n += put_event(buf + n, 9900, BLK_TA_ISSUE | BLK_TC_ACT(BLK_TC_READ), 10,
                   4096, 0);
    n += put_event(buf + n, 9900, read, 2097151, 4096, 0); /* past the end */
    n += put_event(buf + n, 9900, write, 0, 0, 0);         /* a flush */
    size_t whole = n;
    n += put_event(buf + n, 9999, read, 0, 4096, 9);
    assert_int_equal(fc_btrace_events_parse(t, 0, 0, buf, n - 1), whole);
    assert_int_equal(fc_btrace_seen(t), 3);
    written(t, &o);
    assert_int_equal(o.requests[0], 3);
    assert_int_equal(o.request[0][0].op, FC_BLOCKBATCH_READ);
    assert_int_equal(o.request[0][0].time_us, 5);
    assert_int_equal(o.request[0][2].op, FC_BLOCKBATCH_DISCARD);
    /* the write reaches over the end of an extent */
    assert_int_equal(o.counts[0], 2);
    assert_int_equal(o.count[0][0].writes, 1);
    assert_int_equal(o.count[0][0].write_bytes, 4096);
    assert_int_equal(o.count[0][1].write_bytes, 4096);
    buf[0] ^= 1;
    assert_int_equal(fc_btrace_events_parse(t, 0, 0, buf, n), FC_EFORMAT);
    fc_btrace_close(t);
}

/* Would break: requests that find no room vanish without being counted. */
static void what_finds_no_room_is_lost(void **state)
{
    (void)state;
    struct fc_btrace *t = open_still();
    for (uint32_t i = 0; i < FC_BLOCKBATCH_REQUESTS + 5; i++)
        fc_btrace_seen_one(t, 0, i, FC_BLOCKBATCH_READ, 0, 8);
    assert_int_equal(fc_btrace_lost(t), 3 + 5);
    int fd = memfd_create("batches", 0);
    assert_int_equal(fc_btrace_write_full(t, fd), 0);
    fc_btrace_seen_one(t, 0, 0, FC_BLOCKBATCH_READ, 0, 8);
    assert_int_equal(fc_btrace_lost(t), 3 + 5);
    close(fd);
    fc_btrace_close(t);
}

/* Would break: an extent's counts are lost when the table grows, or come out of
 * order. */
static void tally_keeps_all(void **state)
{
    (void)state;
    struct fc_tally t;
    uint32_t n;
    assert_int_equal(fc_tally_init(&t), 0);
    for (unsigned round = 0; round < 2; round++) {
        for (uint64_t i = 0; i < 30000; i++) {
            struct fc_blockbatch_count c = { .extent = i * 7919 % 10000,
                                             .reads = 1,
                                             .read_bytes = 512 };
            assert_int_equal(fc_tally_add(&t, i % 2 ? 63 : 0, &c), 0);
        }
        assert_int_equal(fc_tally_sort(&t), 0);
        const struct fc_blockbatch_count *c = fc_tally_of(&t, 63, &n);
        assert_int_equal(n, 5000);
        for (uint32_t i = 0; i < n; i++) {
            assert_int_equal(c[i].reads, 3);
            assert_int_equal(c[i].read_bytes, 3 * 512);
            assert_true(i == 0 || c[i].extent > c[i - 1].extent);
        }
        fc_tally_of(&t, 5, &n);
        assert_int_equal(n, 0);
        fc_tally_clear(&t);
    }
    struct fc_blockbatch_count most = { .reads = UINT32_MAX };
    assert_int_equal(fc_tally_add(&t, 0, &most), 0);
    assert_int_equal(fc_tally_add(&t, 0, &most), 0);
    assert_int_equal(fc_tally_sort(&t), 0);
    assert_int_equal(fc_tally_of(&t, 0, &n)->reads, UINT32_MAX);
    fc_tally_dispose(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_page_of_tracefs),
        cmocka_unit_test(bad_pages_do_no_harm),
        cmocka_unit_test(reads_events_of_blktrace),
        cmocka_unit_test(what_finds_no_room_is_lost),
        cmocka_unit_test(tally_keeps_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
