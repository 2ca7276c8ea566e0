/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Two hosts would both write a disk; or what is known of copies be lost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "diskmeta.h"
#include "err.h"
#include "golden.h"
#include "lease.h"

static char dir[64], path[80];
static struct fc_lease_db *db;
static const struct fc_disk_id ids[2] = { { { 1, 2 }, "xvda" },
                                          { { 1, 2 }, "xvdb" } };
static const uint8_t one[FC_MIGRATION_BYTES] = { 1 },
                     two[FC_MIGRATION_BYTES] = { 2 };

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/fc-lease-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/db", dir);
    return fc_lease_db_open(path, &db);
}

static int teardown(void **state)
{
    char command[128];
    (void)state;
    fc_lease_db_close(db);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command);
}

/* What the disk says after the process has begun anew. */
static struct fc_lease get(unsigned i)
{
    struct fc_lease l;
    fc_lease_db_close(db);
    db = NULL;
    assert_int_equal(fc_lease_db_open(path, &db), 0);
    assert_int_equal(fc_lease_get(db, &ids[i], &l), 0);
    return l;
}

static int offer(const char *host, const uint8_t *migration)
{
    uint64_t epochs[2] = { 0 };
    struct fc_lease refused;
    int rc = fc_lease_offer(db, ids, 2, host, migration, epochs, &refused);
    if (!rc)
        assert_int_equal(epochs[0], epochs[1]);
    else
        assert_string_equal(refused.host, "b");
    return rc;
}

static void one_owner(void **state)
{
    (void)state;
    assert_int_equal(get(0).state, FC_LEASE_HERE);
    assert_int_equal(get(0).epoch, 0);
    assert_int_equal(fc_lease_pass(db, ids, 2, one), FC_EPERM);
    assert_int_equal(offer("b", one), 0);
    assert_int_equal(get(1).state, FC_LEASE_OFFERED);
    assert_int_equal(get(1).epoch, 1);
    assert_int_equal(offer("b", one), 0); /* a retry */
    assert_int_equal(get(1).epoch, 1);
    assert_int_equal(offer("b", two), FC_EPERM);
    assert_int_equal(offer("c", one), FC_EPERM);
    assert_int_equal(fc_lease_pass(db, ids, 2, two), FC_EPERM);
    assert_int_equal(fc_lease_pass(db, ids, 2, one), 0);
    assert_int_equal(fc_lease_pass(db, ids, 2, one), 0);
    struct fc_lease l = get(0);
    assert_int_equal(l.state, FC_LEASE_PASSED);
    assert_string_equal(l.host, "b");
    assert_memory_equal(l.migration, one, sizeof(one));
    assert_int_equal(offer("b", one), 0);
    assert_int_equal(get(0).state, FC_LEASE_PASSED);
}

/* All disks or none. */
static void together(void **state)
{
    uint64_t epoch;
    struct fc_lease refused;
    (void)state;
    assert_int_equal(fc_lease_offer(db, &ids[1], 1, "b", two, &epoch, &refused),
                     0);
    assert_int_equal(offer("b", one), FC_EPERM);
    assert_int_equal(get(0).epoch, 0);
    assert_int_equal(fc_lease_pass(db, ids, 2, two), FC_EPERM);
    assert_int_equal(get(1).state, FC_LEASE_OFFERED);
}

static void handing_back(void **state)
{
    (void)state;
    assert_int_equal(fc_lease_return(db, &ids[0], one, false), 0);
    assert_int_equal(get(0).epoch, 0);
    assert_int_equal(offer("b", one), 0);
    assert_int_equal(fc_lease_return(db, &ids[0], two, true), FC_EPERM);
    assert_int_equal(fc_lease_return(db, &ids[0], one, false), 0);
    assert_int_equal(get(0).state, FC_LEASE_HERE);
    assert_int_equal(get(0).epoch, 2);
    assert_int_equal(fc_lease_return(db, &ids[0], one, false), 0);
    assert_int_equal(get(0).epoch, 2);
    assert_int_equal(fc_lease_return(db, &ids[1], one, false), 0);
    assert_int_equal(offer("b", two), 0);
    assert_int_equal(fc_lease_pass(db, ids, 2, two), 0);
    assert_int_equal(fc_lease_return(db, &ids[0], two, false), FC_EPERM);
    assert_int_equal(get(0).state, FC_LEASE_PASSED);
    assert_int_equal(fc_lease_return(db, &ids[0], two, true), 0);
    assert_int_equal(get(0).epoch, 4);
}

static void at_the_destination(void **state)
{
    (void)state;
    assert_int_equal(offer("b", one), 0); /* epoch 1, and away */
    assert_int_equal(fc_lease_pass(db, ids, 2, one), 0);
    assert_int_equal(fc_lease_take(db, &ids[0], two, 1), FC_EPERM);
    assert_int_equal(fc_lease_take(db, &ids[0], two, 0), FC_EPERM);
    assert_int_equal(fc_lease_take(db, &ids[0], two, 2), 0); /* back */
    assert_int_equal(fc_lease_take(db, &ids[0], two, 2), 0);
    assert_int_equal(get(0).state, FC_LEASE_HERE);
    assert_int_equal(get(0).epoch, 2);
    assert_int_equal(fc_lease_override(db, &ids[1], NULL), 0);
    assert_int_equal(get(1).state, FC_LEASE_HERE);
    assert_int_equal(get(1).epoch, 2);
    assert_int_equal(fc_lease_override(db, &ids[1], "d"), 0);
    assert_string_equal(get(1).host, "d");
    assert_int_equal(get(1).state, FC_LEASE_PASSED);
}

static void record(void **state)
{
    struct fc_lease l = { .state = FC_LEASE_PASSED,
                          .epoch = 7,
                          .migration = { 0xab, 0xcd },
                          .written_s = 1700000000,
                          .host = "host2.example" };
    uint8_t bytes[FC_LEASE_RECORD], bad[FC_LEASE_RECORD];
    struct fc_lease back;
    (void)state;
    size_t len = fc_lease_encode(&l, bytes);
    assert_golden("lease", bytes, len);
    assert_int_equal(fc_lease_decode(bytes, len, &back), 0);
    assert_memory_equal(&back, &l, sizeof(l));
    for (size_t cut = 0; cut < len; cut++)
        assert_int_equal(fc_lease_decode(bytes, cut, &back), FC_EFORMAT);
    static const struct {
        size_t at;
        uint8_t value;
    } wrong[] = { { 0, 2 },  { 4, 3 },  { 4, 0 }, { 8, 0 },
                  { 40, 0 }, { 42, 1 }, { 50, 0 } };
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        memcpy(bad, bytes, len);
        bad[wrong[i].at] = wrong[i].value;
        assert_int_equal(fc_lease_decode(bad, len, &back), FC_EFORMAT);
    }
}

struct seen {
    unsigned count;
    struct fc_disk_range last;
    char host[16];
};

static void on_range(void *user, const char *host,
                     const struct fc_disk_range *r)
{
    struct seen *s = user;
    s->count++;
    s->last = *r;
    snprintf(s->host, sizeof(s->host), "%s", host);
}

static void on_volume(void *user, const struct fc_disk_volume *v)
{
    unsigned *count = user;
    assert_string_equal(v->path, "/dev/vg/guest");
    *count += 1;
}

static void metadata(void **state)
{
    struct fc_diskmeta *m;
    char where[96];
    struct fc_disk_volume v = { .id = ids[0],
                                .path = "/dev/vg/guest",
                                .size = 1 << 30,
                                .block_bytes = 65536,
                                .made = true },
                          back;
    struct fc_disk_range r[3] = { { 0, 256, 10, 3, true, 500000, 9 },
                                  { 256, 256, 0, 3, false, 0, 0 },
                                  { 512, 8, 8, 3, true, 1000000, 0 } };
    struct seen seen = { 0 };
    unsigned volumes = 0;
    (void)state;
    snprintf(where, sizeof(where), "%s/meta", dir);
    assert_int_equal(fc_diskmeta_open(where, &m), 0);
    assert_int_equal(fc_diskmeta_volume(m, &ids[0], &back), FC_ENOENT);
    assert_int_equal(fc_diskmeta_volume_put(m, &v), 0);
    assert_int_equal(fc_diskmeta_ranges_put(m, &ids[0], "b", r, 3), 0);
    assert_int_equal(fc_diskmeta_ranges_put(m, &ids[1], "b", r, 1), 0);
    assert_int_equal(fc_diskmeta_ranges_put(m, &ids[0], "c", r, 1), 0);
    assert_int_equal(fc_diskmeta_ranges_put(m, &ids[0], "b", r, 257),
                     FC_EINVAL);
    fc_diskmeta_close(m);
    assert_int_equal(fc_diskmeta_open(where, &m), 0);
    assert_int_equal(fc_diskmeta_volume(m, &ids[0], &back), 0);
    assert_memory_equal(&back, &v, sizeof(v));
    assert_int_equal(fc_diskmeta_each(m, on_volume, &volumes), 0);
    assert_int_equal(volumes, 1);
    assert_int_equal(fc_diskmeta_ranges(m, &ids[0], on_range, &seen), 0);
    assert_int_equal(seen.count, 4);
    assert_string_equal(seen.host, "c");
    /* those of one host are replaced, all go with the disk */
    assert_int_equal(fc_diskmeta_ranges_put(m, &ids[0], "b", r + 2, 1), 0);
    seen.count = 0;
    assert_int_equal(fc_diskmeta_ranges(m, &ids[0], on_range, &seen), 0);
    assert_int_equal(seen.count, 2);
    assert_int_equal(fc_diskmeta_forget(m, &ids[0]), 0);
    seen.count = 0;
    assert_int_equal(fc_diskmeta_ranges(m, &ids[0], on_range, &seen), 0);
    assert_int_equal(seen.count, 0);
    assert_int_equal(fc_diskmeta_ranges(m, &ids[1], on_range, &seen), 0);
    assert_int_equal(seen.count, 1);
    uint8_t want[FC_DISKMETA_RANGE], got[FC_DISKMETA_RANGE];
    fc_disk_range_encode(&r[0], want);
    fc_disk_range_encode(&seen.last, got);
    assert_memory_equal(got, want, sizeof(want));
    fc_diskmeta_close(m);
    assert_int_equal(fc_range_blocks(16, 65536), 256);
    assert_int_equal(fc_range_count(16, 65536), 1);
    assert_int_equal(fc_range_blocks(1 << 20, 65536), 4096);
    assert_int_equal(fc_range_count(1 << 20, 65536), 256);
    assert_int_equal(fc_range_count(257, 65536), 2);
    assert_true(fc_range_count(1u << 28, 4096) <= FC_RANGES_MAX);
}

static void range(void **state)
{
    const struct fc_disk_range r = { 256, 128, 100, 7, true, 0, 1700000000 };
    uint8_t bytes[FC_DISKMETA_RANGE], bad[FC_DISKMETA_RANGE];
    struct fc_disk_range back;
    (void)state;
    fc_disk_range_encode(&r, bytes);
    assert_golden("disk-range", bytes, sizeof(bytes));
    assert_int_equal(fc_disk_range_decode(bytes, sizeof(bytes), &back), 0);
    assert_true(back.foretold);
    assert_int_equal(back.used_s, r.used_s);
    static const struct {
        size_t at;
        uint8_t value;
    } wrong[] = { { 0, 0 },    { 0, 3 },   { 4, 2 }, { 16, 0 },
                  { 20, 129 }, { 34, 16 }, { 36, 1 } };
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        memcpy(bad, bytes, sizeof(bad));
        bad[wrong[i].at] = wrong[i].value;
        assert_int_equal(fc_disk_range_decode(bad, sizeof(bad), &back),
                         FC_EFORMAT);
    }
    bytes[4] = 0; /* not known, yet not zero */
    bytes[32] = 1;
    assert_int_equal(fc_disk_range_decode(bytes, sizeof(bytes), &back),
                     FC_EFORMAT);
    /* version 1: a chance of zero is none */
    bytes[0] = 1;
    assert_int_equal(fc_disk_range_decode(bytes, sizeof(bytes), &back), 0);
    assert_true(back.foretold);
    bytes[32] = 0;
    assert_int_equal(fc_disk_range_decode(bytes, sizeof(bytes), &back), 0);
    assert_false(back.foretold);
    bytes[4] = 1;
    assert_int_equal(fc_disk_range_decode(bytes, sizeof(bytes), &back),
                     FC_EFORMAT);
}

static void reads(void **state)
{
    struct fc_diskmeta *m;
    char where[96];
    uint8_t bytes[FC_DISKMETA_READS];
    struct fc_readstats s = { .reads = 1,
                              .read_ns = 2,
                              .miss_ns = 3,
                              .hits = { 4, 5, 6, 7 },
                              .misses = 8,
                              .latency = { [1] = 9 } },
                        back;
    (void)state;
    fc_disk_reads_encode(&s, bytes);
    assert_golden("disk-reads", bytes, sizeof(bytes));
    assert_int_equal(fc_disk_reads_decode(bytes, sizeof(bytes), &back), 0);
    assert_memory_equal(&back, &s, sizeof(s));
    assert_int_equal(fc_disk_reads_decode(bytes, sizeof(bytes) - 1, &back),
                     FC_EFORMAT);
    for (size_t at = 0; at < 8; at += 4) {
        bytes[at] ^= 2;
        assert_int_equal(fc_disk_reads_decode(bytes, sizeof(bytes), &back),
                         FC_EFORMAT);
        bytes[at] ^= 2;
    }
    snprintf(where, sizeof(where), "%s/reads", dir);
    assert_int_equal(fc_diskmeta_open(where, &m), 0);
    assert_int_equal(fc_diskmeta_reads(m, &ids[0], &back), FC_ENOENT);
    assert_int_equal(fc_diskmeta_reads_put(m, &ids[0], &s), 0);
    assert_int_equal(fc_diskmeta_reads_put(m, &ids[1], &s), 0);
    fc_diskmeta_close(m);
    assert_int_equal(fc_diskmeta_open(where, &m), 0);
    assert_int_equal(fc_diskmeta_reads(m, &ids[0], &back), 0);
    assert_memory_equal(&back, &s, sizeof(s));
    assert_int_equal(fc_diskmeta_reads_sum(m, &back), 0);
    assert_int_equal(back.misses, 16);
    assert_int_equal(fc_diskmeta_forget(m, &ids[0]), 0);
    assert_int_equal(fc_diskmeta_reads(m, &ids[0], &back), FC_ENOENT);
    assert_int_equal(fc_diskmeta_reads_sum(m, &back), 0);
    assert_int_equal(back.misses, 8);
    fc_diskmeta_close(m);
}

static void names_and_paths(void **state)
{
    struct fc_disk_id id;
    char out[FC_DISK_PATH];
    (void)state;
    assert_int_equal(
        fc_disk_id_parse("00112233-4455-6677-8899-aabbccddeeff-xvda1", &id), 0);
    assert_string_equal(id.vdev, "xvda1");
    assert_int_not_equal(
        fc_disk_id_parse("00112233-4455-6677-8899-aabbccddeeff-", &id), 0);
    assert_int_not_equal(
        fc_disk_id_parse("00112233-4455-6677-8899-aabbccddeeff-../x", &id), 0);
    assert_int_not_equal(fc_disk_id_parse("x", &id), 0);
    assert_int_equal(
        fc_disk_template("/dev/vg/%n-%v%%", &ids[0], "web", "/p", out), 0);
    assert_string_equal(out, "/dev/vg/web-xvda%");
    assert_int_equal(fc_disk_template("%p", &ids[0], "web", "/p/q", out), 0);
    assert_string_equal(out, "/p/q");
    static const char *const bad[] = { "x",     "/x/%q", "/x/%", "%p/..",
                                       "/../x", "/x\n",  "",     "/" };
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_not_equal(
            fc_disk_template(bad[i], &ids[0], "web", "/p", out), 0);
    assert_int_not_equal(fc_disk_template("/x/%n", &ids[0], "../y", "/p", out),
                         0);
}

int main(void)
{
#define WITH_DB(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        WITH_DB(one_owner),
        WITH_DB(together),
        WITH_DB(handing_back),
        WITH_DB(at_the_destination),
        WITH_DB(metadata),
        cmocka_unit_test(record),
        cmocka_unit_test(range),
        WITH_DB(reads),
        cmocka_unit_test(names_and_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
