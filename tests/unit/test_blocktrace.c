/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <event2/event.h>
#include <json-c/json.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "blockbatch.h"
#include "blocktrace.h"
#include "child.h"
#include "err.h"
#include "io.h"
#include "log.h"

/*
 * forecopy-block is played by a script that says what a file holds and waits
 * for the end of its input; sysfs is a directory.
 */
#define WAIT_MS 20000u
#define SECTORS (64u * 2048u)

static const uint8_t guest[FC_UUID_BYTES] = { 1 }, other[FC_UUID_BYTES] = { 2 };
static char dir[64], program[96], batches[96], called[96];
static struct event_base *base;
static struct fc_children *children;
static uint8_t frame[FC_BLOCKBATCH_FRAME];

static enum fc_blocktrace_answer ask(void *user, uint32_t domid,
                                     uint8_t uuid_r[FC_UUID_BYTES])
{
    (void)user;
    memcpy(uuid_r, domid == 1 ? guest : other, FC_UUID_BYTES);
    return domid == 1   ? FC_BLOCKTRACE_YES
           : domid == 2 ? FC_BLOCKTRACE_NO
                        : FC_BLOCKTRACE_GONE;
}

static void add_backend(const char *name, const char *device)
{
    char path[256];
    snprintf(path, sizeof(path), "mkdir -p %s/bus/xen-backend/devices/%s", dir,
             name);
    assert_int_equal(system(path), 0);
    snprintf(path, sizeof(path), "%s/bus/xen-backend/devices/%s/%s", dir, name,
             "physical_device");
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(device, f);
    fclose(f);
}

static void put(FILE *f, size_t len)
{
    assert_true(len > 0);
    assert_int_equal(fwrite(frame, 1, len, f), len);
}

/* Extent 5 is read in each round, 9 in the first, 3 is only written. */
static void make_batches(uint32_t devices, unsigned rounds)
{
    struct fc_blockbatch_start start = { .extent_bytes = FC_BLOCKTRACE_EXTENT,
                                         .interval_ms = FC_BLOCKTRACE_TICK_MS,
                                         .means = FC_BLOCKBATCH_TRACEFS,
                                         .devices = devices };
    static const struct fc_blockbatch_count first[] = { { 3, 0, 4, 0, 2048 },
                                                        { 5, 2, 0, 8192, 0 },
                                                        { 9, 1, 0, 4096, 0 } },
                                            later[] = { { 3, 0, 1, 0, 512 },
                                                        { 5, 1, 0, 4096, 0 } };
    FILE *f = fopen(batches, "w");
    assert_non_null(f);
    for (uint32_t i = 0; i < devices; i++)
        start.device[i] = (struct fc_blockbatch_device){ 254, i + 10, SECTORS };
    put(f, fc_blockbatch_put_start(frame, &start));
    for (unsigned k = 0; k < rounds; k++)
        put(f, fc_blockbatch_put_counts(
                   frame, 0, (k + 1) * 1000ull * FC_BLOCKTRACE_TICK_MS, 7,
                   false, k ? 2 : 3, k ? later : first));
    fclose(f);
}

static struct fc_blocktrace *begin(void)
{
    struct fc_blocktrace_args args = { .base = base,
                                       .children = children,
                                       .sys_root = dir,
                                       .program = program,
                                       .ask = ask };
    struct fc_blocktrace *b;
    assert_int_equal(fc_blocktrace_new(&args, &b), 0);
    return b;
}

static uint64_t figure(struct fc_blocktrace *b, const uint8_t *uuid,
                       const char *key)
{
    struct json_object *all = fc_blocktrace_json(b, uuid), *v;
    uint64_t value = 0;
    if (json_object_array_length(all) &&
        json_object_object_get_ex(json_object_array_get_idx(all, 0), key, &v))
        value = json_object_get_uint64(v);
    json_object_put(all);
    return value;
}

/* Runs the loop until the figure is there. */
static void until(struct fc_blocktrace *b, const char *key, uint64_t value)
{
    uint64_t limit = fc_now_ms() + WAIT_MS;
    const struct timeval some = { 0, 20000 };
    while (figure(b, guest, key) != value) {
        if (fc_now_ms() > limit)
            fail_msg("%s is %llu, not %llu, after %u ms", key,
                     (unsigned long long)figure(b, guest, key),
                     (unsigned long long)value, WAIT_MS);
        event_base_loopexit(base, &some);
        event_base_dispatch(base);
    }
}

static unsigned times_called(void)
{
    unsigned n = 0;
    char line[512];
    FILE *f = fopen(called, "r");
    while (f && fgets(line, sizeof(line), f))
        n++;
    if (f)
        fclose(f);
    return n;
}

/* Would break: a migration copies what nobody reads first, or a block past the
 * disk's end. */
static void orders_what_is_read(void **state)
{
    (void)state;
    uint32_t *block, count;
    struct fc_blocktrace *b = begin();
    make_batches(1, 12);
    add_backend("vbd-1-51712", "fe:a\n");
    add_backend("vbd-2-51712", "fe:c\n");
    assert_int_equal(
        fc_blocktrace_order(b, guest, "xvda", 65536, 64 << 20, &block, &count),
        FC_ENOENT);
    fc_blocktrace_tick(b, "auto", 1000);
    until(b, "reads", 2 + 1 + 11);
    until(b, "writes", 4 + 11);
    assert_int_equal(figure(b, guest, "lost"), 7);
    assert_int_equal(figure(b, other, "reads"), 0);
    assert_int_equal(
        fc_blocktrace_order(b, guest, "xvda", 65536, 64 << 20, &block, &count),
        0);
    assert_true(count >= 3 * 16);
    for (uint32_t i = 0; i < 16; i++)
        assert_int_equal(block[i], 5 * 16 + i);
    for (uint32_t i = 0; i < count; i++)
        assert_true(block[i] < 1024);
    free(block);
    /* the parts that are asked for again and again are likelier than others */
    float chance[4] = { -1, -1, -1, -1 };
    assert_int_equal(
        fc_blocktrace_chances(b, guest, "xvdb", 4 << 20, 4, chance), FC_ENOENT);
    assert_true(chance[0] < 0);
    assert_int_equal(
        fc_blocktrace_chances(b, guest, "xvda", 4 << 20, 4, chance), 0);
    assert_true(chance[1] > 0.3f && chance[1] <= 1); /* extents 4 to 7 */
    assert_true(chance[2] < chance[1]);              /* 9: once, long ago */
    assert_true(chance[3] == 0);                     /* never */
    /* a disk that ends within extent 5 */
    assert_int_equal(fc_blocktrace_order(b, guest, "xvda", 65536,
                                         (5 << 20) + 65537, &block, &count),
                     0);
    assert_int_equal(block[0], 80);
    assert_int_equal(block[1], 81);
    assert_int_not_equal(block[2], 82);
    free(block);
    assert_int_equal(
        fc_blocktrace_order(b, guest, "xvdb", 65536, 1, &block, &count),
        FC_ENOENT);
    assert_int_equal(
        fc_blocktrace_order(b, guest, "xvda", 3000, 1, &block, &count),
        FC_EINVAL);
    fc_blocktrace_free(b);
}

/* Would break: disks that come are not traced, or those that nobody wants
 * are. */
static void follows_the_disks(void **state)
{
    (void)state;
    struct fc_blocktrace *b = begin();
    char path[160], line[512] = "";
    make_batches(1, 1);
    unlink(called);
    add_backend("vbd-7-51712", "fe:d\n");
    fc_blocktrace_tick(b, "off", 1000);
    assert_int_equal(times_called(), 0);
    fc_blocktrace_tick(b, "tracefs", 2000);
    until(b, "reads", 3);
    assert_int_equal(times_called(), 1);
    make_batches(2, 1);
    assert_int_equal(fc_blocktrace_want(b, other, true), 0);
    fc_blocktrace_tick(b, "tracefs", 3000);
    fc_blocktrace_tick(b, "tracefs", 4000);
    until(b, "lost", 14); /* both children have been heard */
    assert_int_equal(times_called(), 2);
    FILE *f = fopen(called, "r");
    while (fgets(line, sizeof(line), f))
        ;
    fclose(f);
    assert_non_null(strstr(line, "--method tracefs"));
    assert_non_null(strstr(line, " 254:10"));
    assert_non_null(strstr(line, " 254:12"));
    assert_null(strstr(line, " 254:13"));
    snprintf(path, sizeof(path), "rm -r %s/bus/xen-backend/devices/vbd-1-51712",
             dir);
    assert_int_equal(system(path), 0);
    fc_blocktrace_tick(b, "off", 5000);
    fc_blocktrace_tick(b, "tracefs", 6000);
    assert_int_equal(figure(b, guest, "extents"), 0);
    fc_blocktrace_free(b);
}

/* Would break: guests' disks are called something else than in their
 * configuration. */
static void knows_names(void **state)
{
    (void)state;
    static const struct {
        uint32_t number;
        const char *name;
    } known[] = {
        { 51712, "xvda" },
        { 51713, "xvda1" },
        { 51728, "xvdb" },
        { 51952, "xvdp" },
        { 1u << 28 | 16 << 8, "xvdq" },
        { 1u << 28 | 26 << 8 | 3, "xvdaa3" },
        { 2048, "sda" },
        { 2064, "sdb" },
        { 768, "hda" },
        { 832, "hdb" },
        { 5632, "hdc" },
        { 77, "d77" },
        { UINT32_MAX, "d4294967295" },
    };
    for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        char text[FC_BLOCKTRACE_VDEV];
        fc_blocktrace_vdev(known[i].number, text);
        assert_string_equal(text, known[i].name);
    }
}

static int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof(dir), "/tmp/forecopy-test-blocktrace.XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(program, sizeof(program), "%s/block", dir);
    snprintf(batches, sizeof(batches), "%s/batches", dir);
    snprintf(called, sizeof(called), "%s/called", dir);
    FILE *f = fopen(program, "w");
    assert_non_null(f);
    fprintf(f, "#!/bin/sh\necho \"$*\" >>%s\ncat %s\nexec cat >/dev/null\n",
            called, batches);
    fclose(f);
    assert_int_equal(chmod(program, 0700), 0);
    fc_log_init("test", FC_LOG_ERROR);
    base = event_base_new();
    assert_non_null(base);
    return fc_children_new(base, &children);
}

static int tear_down(void **state)
{
    char command[96];
    (void)state;
    fc_children_free(children);
    event_base_free(base);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(orders_what_is_read),
        cmocka_unit_test(follows_the_disks),
        cmocka_unit_test(knows_names),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
