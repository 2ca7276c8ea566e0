/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "armed.h"
#include "err.h"
#include "luggage.h"
#include "predict.h"
#include "scorer.h"

#define PAGES 4096u
#define HEAD 4u

static const uint8_t uuid[FC_UUID_BYTES] = { 4, 5, 6 };
static char dir[] = "/tmp/fc-luggage-XXXXXX";
static struct fc_armed_db *db;

static int open_db(void **state)
{
    (void)state;
    return mkdtemp(dir) && !fc_armed_db_open(dir, &db) ? 0 : -1;
}

static int close_db(void **state)
{
    char path[64];
    (void)state;
    fc_armed_db_close(db);
    snprintf(path, sizeof(path), "%s/data.mdb", dir);
    unlink(path);
    snprintf(path, sizeof(path), "%s/lock.mdb", dir);
    unlink(path);
    return rmdir(dir);
}

static struct fc_scorer scorer_of(const char *name)
{
    struct fc_scorer s;
    uint64_t bits[PAGES / 64] = { 0 };
    assert_int_equal(fc_scorer_init(&s, name, PAGES), 0);
    for (unsigned t = 0; t < 60; t++) {
        bits[t % 8] = t % 3 ? 0xffff : 0;
        assert_int_equal(s.ops->update(s.state, bits, 1000), 0);
    }
    return s;
}

static void pack(struct fc_scorer *scorer, uint8_t **bytes, size_t *len)
{
    struct fc_predict p = { .args.scorer = scorer };
    struct fc_profile_load load = { .rate = 1234 };
    fc_profile_init(&p.profile);
    fc_profile_add(&p.profile, 1000000, 60, &load);
    assert_int_equal(fc_luggage_pack(&p, bytes, len), 0);
}

/* Would break: a guest that migrates is a stranger where it comes to. */
static void arrives_whole(void **state)
{
    (void)state;
    struct fc_scorer s = scorer_of("mixture"), t;
    struct fc_profile profile;
    uint8_t *bytes, *learned;
    bool came;
    size_t len, learned_len;
    char why[160] = "";
    pack(&s, &bytes, &len);
    if (fc_luggage_unpack(db, uuid, bytes, len, 50, why, sizeof(why)))
        fail_msg("%s", why);
    assert_int_equal(fc_armed_db_profile(db, uuid, &profile, why, sizeof(why)),
                     0);
    assert_int_equal(profile.last_s, 1000000);
    assert_int_equal(
        fc_armed_db_learned(db, uuid, &learned, &learned_len, &came), 0);
    assert_true(came);
    assert_int_equal(fc_scorer_init(&t, "mixture", PAGES), 0);
    assert_int_equal(
        fc_scorer_engine_recall(&t, learned, learned_len, why, sizeof(why)), 0);
    fc_scorer_dispose(&t);
    fc_scorer_dispose(&s);
    free(learned);
    free(bytes);
}

/* Would break: a scorer that learns nothing cannot send its guest's profile. */
static void profile_alone(void **state)
{
    (void)state;
    static const uint8_t other[FC_UUID_BYTES] = { 9 };
    struct fc_scorer s = scorer_of("ewma");
    uint8_t *bytes, *learned;
    bool came;
    size_t len, learned_len;
    char why[160] = "";
    pack(&s, &bytes, &len);
    assert_int_equal(len, HEAD + FC_PROFILE_BYTES);
    assert_int_equal(
        fc_luggage_unpack(db, other, bytes, len, 50, why, sizeof(why)), 0);
    assert_int_equal(
        fc_armed_db_learned(db, other, &learned, &learned_len, &came),
        FC_ENOENT);
    fc_scorer_dispose(&s);
    free(bytes);
}

/* Would break: bytes of another host that are not what they should be are kept,
 * or a part of them. */
static void damaged_is_refused(void **state)
{
    (void)state;
    static const uint8_t other[FC_UUID_BYTES] = { 7, 7 };
    struct fc_scorer s = scorer_of("mixture");
    struct fc_profile profile;
    uint8_t *bytes, *learned;
    bool came;
    size_t len, learned_len;
    pack(&s, &bytes, &len);
    for (size_t i = 0; i < 400; i++) {
        char why[160] = "";
        size_t at = i < 100 ? i : len * (i - 100) / 300, cut = len;
        bytes[at] ^= 0x10;
        assert_true(
            fc_luggage_unpack(db, other, bytes, cut, 50, why, sizeof(why)) < 0);
        assert_true(why[0]);
        bytes[at] ^= 0x10;
        if (at == HEAD + FC_PROFILE_BYTES)
            continue; /* nothing was learned: that is fine */
        assert_true(
            fc_luggage_unpack(db, other, bytes, at, 50, why, sizeof(why)) < 0);
    }
    char why[160];
    assert_int_equal(fc_armed_db_profile(db, other, &profile, why, sizeof(why)),
                     FC_ENOENT);
    assert_int_equal(
        fc_armed_db_learned(db, other, &learned, &learned_len, &came),
        FC_ENOENT);
    fc_scorer_dispose(&s);
    free(bytes);
}

/* Would break: guests that come and go fill the disk; or the one that was kept
 * last is the one that goes. */
static void places_are_bounded(void **state)
{
    (void)state;
    uint8_t who[FC_UUID_BYTES] = { 200 }, *bytes;
    bool came;
    size_t len;
    assert_true(fc_armed_db_learned_prune(db, UINT64_MAX) >= 0);
    for (unsigned i = 0; i < FC_ARMED_LEARNED + 5; i++) {
        who[1] = (uint8_t)i;
        assert_int_equal(
            fc_armed_db_learned_put(db, who, "x", 1, 100 + i, false), 0);
    }
    assert_int_equal(fc_armed_db_learned(db, who, &bytes, &len, &came), 0);
    assert_false(came);
    free(bytes);
    for (unsigned i = 0; i < 6; i++) {
        who[1] = (uint8_t)i;
        int rc = fc_armed_db_learned(db, who, &bytes, &len, &came);
        assert_int_equal(rc, i < 5 ? FC_ENOENT : 0);
        if (!rc)
            free(bytes);
    }
    assert_int_equal(fc_armed_db_learned_prune(db, 110), 5);
    assert_int_equal(fc_armed_db_learned_prune(db, UINT64_MAX),
                     FC_ARMED_LEARNED - 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arrives_whole),
        cmocka_unit_test(profile_alone),
        cmocka_unit_test(damaged_is_refused),
        cmocka_unit_test(places_are_bounded),
    };
    return cmocka_run_group_tests_name("luggage", tests, open_db, close_db);
}
