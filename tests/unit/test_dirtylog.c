/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "dirtylog.h"
#include "err.h"

#define PFNS 1000u
#define WORDS ((PFNS + 63) / 64)
#define DOMID 7u

/* A log as Xen keeps it, in which a save may begin at any operation. */
static struct {
    bool on, vram, passthrough;
    uint64_t bits[WORDS], absent;
    unsigned enables, disables, cleans, peeks, marks;
    const char *save_begins_at; /* name of the operation, after it */
} xen;

static char proc[64];

static void save_begins(void)
{
    static const char words[] = "helper\0--save-domain\0"
                                "3\0"
                                "4\0"
                                "7\0"
                                "1";
    char path[160];
    snprintf(path, sizeof(path), "%s/99", proc);
    mkdir(path, 0700);
    snprintf(path, sizeof(path), "%s/99/cmdline", proc);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(words, 1, sizeof(words), f), sizeof(words));
    fclose(f);
}

static void save_ends(void)
{
    char path[160];
    snprintf(path, sizeof(path), "%s/99/cmdline", proc);
    unlink(path);
    snprintf(path, sizeof(path), "%s/99", proc);
    rmdir(path);
}

static void done(const char *operation)
{
    if (xen.save_begins_at && !strcmp(xen.save_begins_at, operation)) {
        xen.save_begins_at = NULL;
        save_begins();
    }
}

static int size(void *user, uint32_t domid, uint64_t *pfns_r)
{
    (void)user;
    assert_int_equal(domid, DOMID);
    *pfns_r = PFNS;
    return 0;
}

static int enable(void *user, uint32_t domid)
{
    (void)user;
    (void)domid;
    xen.enables++;
    if (xen.on || xen.passthrough) {
        done("refuse");
        return FC_EBUSY;
    }
    xen.on = true;
    memset(xen.bits, 0, sizeof(xen.bits));
    done("enable");
    return 0;
}

static int disable(void *user, uint32_t domid)
{
    (void)user;
    (void)domid;
    xen.disables++;
    xen.on = false;
    memset(xen.bits, 0, sizeof(xen.bits));
    done("disable");
    return 0;
}

static int clean(void *user, uint32_t domid, uint64_t *bitmap, uint64_t pfns)
{
    (void)user;
    (void)domid;
    assert_int_equal(pfns, PFNS);
    xen.cleans++;
    memcpy(bitmap, xen.bits, sizeof(xen.bits));
    memset(xen.bits, 0, sizeof(xen.bits));
    done("clean");
    return 0;
}

static int peek(void *user, uint32_t domid, uint64_t *bitmap, uint64_t pfns)
{
    (void)user;
    (void)domid;
    assert_int_equal(pfns, PFNS);
    xen.peeks++;
    memcpy(bitmap, xen.bits, sizeof(xen.bits));
    return 0;
}

static int mark(void *user, uint32_t domid, const struct fc_pfn_run *runs,
                unsigned count)
{
    (void)user;
    (void)domid;
    xen.marks++;
    assert_true(count >= 1 && count <= FC_DIRTYLOG_RUNS);
    for (unsigned i = 0; i < count; i++)
        for (uint64_t p = runs[i].first; p < runs[i].first + runs[i].count;
             p++) {
            /* Xen refuses its highest page */
            assert_true(p < PFNS - 1);
            if (xen.on && p != xen.absent)
                xen.bits[p / 64] |= 1ull << p % 64;
        }
    return 0;
}

static const struct fc_dirtylog_ops ops = {
    .size = size,
    .enable = enable,
    .disable = disable,
    .clean = clean,
    .peek = peek,
    .mark = mark,
};

static struct fc_dirtylog log_;
static uint64_t bits[WORDS];

static int setup(void **state)
{
    (void)state;
    memset(&xen, 0, sizeof(xen));
    xen.absent = ~0ull;
    strcpy(proc, "/tmp/fc-proc-XXXXXX");
    if (!mkdtemp(proc))
        return -1;
    return fc_dirtylog_init(&log_, &ops, NULL, proc, DOMID);
}

static int teardown(void **state)
{
    (void)state;
    save_ends();
    return rmdir(proc);
}

static void write_page(uint64_t pfn)
{
    if (xen.on)
        xen.bits[pfn / 64] |= 1ull << pfn % 64;
}

static bool is_set(const uint64_t *map, uint64_t pfn)
{
    return map[pfn / 64] >> pfn % 64 & 1;
}

/* The plain case: what is written is seen, once. */
static void test_plain(void **state)
{
    (void)state;
    assert_int_equal(fc_dirtylog_clean(&log_, bits), FC_EINVAL);
    assert_int_equal(fc_dirtylog_enable(&log_), 0);
    assert_true(log_.on);
    write_page(500);
    assert_int_equal(fc_dirtylog_peek(&log_, bits), 0);
    assert_true(is_set(bits, 500));
    assert_int_equal(fc_dirtylog_clean(&log_, bits), 0);
    assert_true(is_set(bits, 500));
    assert_int_equal(fc_dirtylog_clean(&log_, bits), 0);
    assert_false(is_set(bits, 500));
    assert_int_equal(fc_dirtylog_disable(&log_), 0);
    assert_false(xen.on);
}

/* A save under way must find its log as it left it. */
static void test_hands_off_during_a_save(void **state)
{
    (void)state;
    save_begins();
    assert_int_equal(fc_dirtylog_enable(&log_), FC_EBUSY);
    assert_int_equal(xen.enables, 0);
    save_ends();
    assert_int_equal(fc_dirtylog_enable(&log_), 0);
    write_page(3);
    save_begins();
    unsigned marks = xen.marks;
    assert_int_equal(fc_dirtylog_clean(&log_, bits), FC_EBUSY);
    assert_int_equal(fc_dirtylog_peek(&log_, bits), FC_EBUSY);
    assert_false(log_.on);
    assert_int_equal(fc_dirtylog_disable(&log_), 0); /* not ours any more */
    assert_int_equal(xen.cleans + xen.peeks + xen.disables, 0);
    assert_int_equal(xen.marks, marks);
    assert_true(is_set(xen.bits, 3));
}

/* Bits taken while a save began are lost to it, and its guest corrupted,
 * unless all of them are given back. */
static void test_bits_are_given_back(void **state)
{
    static const uint64_t pages[] = { 0,  1,   2,   63,  64,
                                      65, 127, 128, 640, PFNS - 2 };
    (void)state;
    assert_int_equal(fc_dirtylog_enable(&log_), 0);
    for (unsigned i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
        write_page(pages[i]);
    for (uint64_t p = 200; p < 600; p += 2) /* more runs than fit at once */
        write_page(p);
    uint64_t before[WORDS];
    memcpy(before, xen.bits, sizeof(before));
    xen.save_begins_at = "clean";
    assert_int_equal(fc_dirtylog_clean(&log_, bits), FC_EBUSY);
    for (unsigned w = 0; w < WORDS; w++)
        assert_int_equal(xen.bits[w] & before[w], before[w]);
    assert_false(is_set(xen.bits, 201));
    assert_false(log_.on);
    assert_int_equal(fc_dirtylog_clean(&log_, bits), FC_EBUSY);
    assert_int_equal(xen.cleans, 1);
}

/* A save whose log we switch off must get it back, with every page marked. */
static void test_switching_off_meets_a_save(void **state)
{
    (void)state;
    assert_int_equal(fc_dirtylog_enable(&log_), 0);
    xen.save_begins_at = "disable";
    assert_int_equal(fc_dirtylog_disable(&log_), FC_EBUSY);
    assert_true(xen.on);
    for (uint64_t p = 0; p < PFNS - 1; p++)
        assert_true(is_set(xen.bits, p));
    assert_false(log_.on);
}

/* A log that a short save switched off reads as "nothing written". */
static void test_log_switched_off_is_noticed(void **state)
{
    (void)state;
    assert_int_equal(fc_dirtylog_enable(&log_), 0);
    xen.on = false;
    assert_int_equal(fc_dirtylog_peek(&log_, bits), FC_EINVAL);
    assert_true(log_.on && xen.on);
    assert_int_equal(fc_dirtylog_clean(&log_, bits), 0);
    /* and when a save begins just then */
    xen.on = false;
    xen.save_begins_at = "enable";
    assert_int_equal(fc_dirtylog_clean(&log_, bits), FC_EBUSY);
    assert_false(log_.on);
}

/* The canary's page may be ballooned out: the log is not off because of it. */
static void test_canary_moves(void **state)
{
    (void)state;
    assert_int_equal(fc_dirtylog_enable(&log_), 0);
    xen.absent = log_.canary;
    write_page(321);
    assert_int_equal(fc_dirtylog_peek(&log_, bits), 0);
    assert_int_equal(log_.canary, 321);
    assert_int_equal(fc_dirtylog_clean(&log_, bits), 0);
    assert_int_equal(fc_dirtylog_clean(&log_, bits), 0);
    assert_int_equal(xen.disables, 0);
}

/* During a migration of ours nothing at all may be touched. */
static void test_held(void **state)
{
    (void)state;
    assert_int_equal(fc_dirtylog_enable(&log_), 0);
    memset(&xen.enables, 0, 5 * sizeof(unsigned));
    log_.held = true;
    assert_int_equal(fc_dirtylog_clean(&log_, bits), FC_EBUSY);
    assert_int_equal(fc_dirtylog_peek(&log_, bits), FC_EBUSY);
    assert_int_equal(fc_dirtylog_disable(&log_), FC_EBUSY);
    assert_int_equal(fc_dirtylog_enable(&log_), FC_EBUSY);
    assert_int_equal(
        xen.cleans + xen.peeks + xen.disables + xen.enables + xen.marks, 0);
}

/* On already and nobody saves: left over, or a watched screen; started anew. A
 * passed-through device can never be logged. */
static void test_left_over(void **state)
{
    (void)state;
    xen.on = true;
    assert_int_equal(fc_dirtylog_enable(&log_), 0);
    assert_int_equal(xen.disables, 1);
    assert_int_equal(fc_dirtylog_disable(&log_), 0);
    xen.passthrough = true;
    assert_int_equal(fc_dirtylog_enable(&log_), FC_ENOLOG);
    /* on because a save switched it on this moment: hands off */
    xen.passthrough = false;
    xen.on = true;
    xen.save_begins_at = "refuse";
    xen.disables = 0;
    assert_int_equal(fc_dirtylog_enable(&log_), FC_EBUSY);
    assert_int_equal(xen.disables, 0);
    /* or a moment later: it gets all of it back */
    save_ends();
    xen.save_begins_at = "disable";
    assert_int_equal(fc_dirtylog_enable(&log_), FC_EBUSY);
    assert_true(xen.on);
    for (uint64_t p = 0; p < PFNS - 1; p++)
        assert_true(is_set(xen.bits, p));
}

/* If we cannot see who saves, we must not touch anything. */
static void test_no_proc(void **state)
{
    struct fc_dirtylog blind;
    (void)state;
    assert_int_equal(
        fc_dirtylog_init(&blind, &ops, NULL, "/nonexistent", DOMID), 0);
    assert_int_equal(fc_dirtylog_enable(&blind), FC_EBUSY);
    assert_int_equal(xen.enables, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_plain),
        TEST(test_hands_off_during_a_save),
        TEST(test_bits_are_given_back),
        TEST(test_switching_off_meets_a_save),
        TEST(test_log_switched_off_is_noticed),
        TEST(test_canary_moves),
        TEST(test_held),
        TEST(test_left_over),
        TEST(test_no_proc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
