/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include <cmocka.h>

#include "err.h"
#include "golden.h"
#include "learned.h"
#include "wire.h"

#define PAGES 4096u
#define MODEL_AT 64u

static const struct fc_engine_config config = {
    .kind = FC_ENGINE_MEMORY,
    .pages = PAGES,
    .tick_ms = 1000,
    .horizon_ms = { 1000, 1000, 10000, 60000 },
};

static struct fc_model shipped(void)
{
    struct fc_model_problem problem;
    struct fc_model m;
    if (fc_model_shipped(1000, &m, &problem))
        fail_msg("%s", problem.text);
    return m;
}

/* What a reader of the golden file can check by eye. */
static struct fc_gru_model *plain_gru(void)
{
    struct fc_gru_purpose purpose = { .kind = FC_ENGINE_MEMORY,
                                      .features_hash = fc_feature_hash(),
                                      .step_ms = 1000 };
    struct fc_gru_shape shape = { FC_FEATURE_STRIDE, 16 };
    struct fc_gru_model *gru;
    float *params = calloc(fc_gru_offsets(shape).total, sizeof(*params));
    assert_non_null(params);
    for (unsigned i = 0; i < 16; i++)
        params[i] = (float)i / 64;
    memcpy(purpose.horizon_ms, config.horizon_ms, sizeof(purpose.horizon_ms));
    assert_int_equal(fc_gru_model_new(shape, &purpose, params, &gru), 0);
    free(params);
    return gru;
}

/* `by`: each its own. */
static void fill_weights(struct fc_learned_weights *l, float by)
{
    for (unsigned k = 0; k < FC_LR_DIM; k++)
        l->w[k] = by + (float)k / 8;
    for (unsigned k = 0; k < 6; k++)
        l->h[k] = k == 1 ? -0.5f : by + (float)k;
    l->h[FC_LEARNED_TRIANGLE - 1] = 1e9f;
}

static struct fc_learned plain(void)
{
    struct fc_learned l = { .tick_ms = 1000, .written_s = 1700000000 };
    l.model = (struct fc_model){ .gru = plain_gru(), .seed = 7, .updates = 3 };
    memcpy(l.horizon_ms, config.horizon_ms, sizeof(l.horizon_ms));
    for (unsigned z = 0; z < FC_HORIZONS; z++) {
        for (unsigned id = 0; id < FC_SCORERS; id++)
            l.map[z][id] = (struct fc_learned_map){
                .slope = 1 + (float)id / 8,
                .shift = -(float)z / 4,
                .curve = { 1, -2, (float)z },
                .calls = (float)(100 * z + id),
                /* of memory there is no readahead */
                .share = id == FC_SCORER_READAHEAD ? 0 : 1.0f / 7,
            };
        fill_weights(&l.lr[z], 1 + (float)z);
        fill_weights(&l.tuned[z], 10 + (float)z);
    }
    return l;
}

/* Would break: what was kept before cannot be read, another version on the
 * other host cannot either, or the document is wrong. */
static void files_are_golden(void **state)
{
    (void)state;
    struct fc_learned l = plain(), back;
    struct fc_model_problem problem;
    struct fc_engine *e;
    uint8_t *bytes;
    size_t len;
    assert_int_equal(fc_engine_create(&config, &e), 0);
    assert_int_equal(fc_learned_apply(&l, e), 0);
    assert_int_equal(fc_learned_format(e, &l.model, l.written_s, &bytes, &len),
                     0);
    assert_golden("learned", bytes, len);
    if (fc_learned_parse(bytes, len, &back, &problem))
        fail_msg("%s", problem.text);
    assert_int_equal(back.written_s, l.written_s);
    assert_int_equal(back.model.updates, 3);
    assert_memory_equal(back.horizon_ms, l.horizon_ms, sizeof(l.horizon_ms));
    assert_memory_equal(back.map, l.map, sizeof(l.map));
    assert_memory_equal(back.lr, l.lr, sizeof(l.lr));
    assert_memory_equal(back.tuned, l.tuned, sizeof(l.tuned));
    fc_learned_dispose(&back);
    fc_learned_dispose(&l);
    fc_engine_destroy(e);
    free(bytes);
}

/* Some regions often, others now and then. */
static void play(struct fc_engine *e, unsigned from, unsigned to)
{
    for (unsigned t = from; t < to; t++) {
        for (unsigned i = 0; i < 40; i++)
            if (t % (1 + i % 7) == 0)
                assert_int_equal(fc_engine_write(e, 96ull * i, 3), 0);
        assert_int_equal(fc_engine_tick(e, 1000, NULL), 0);
    }
}

static struct fc_engine *taught(const struct fc_model *m)
{
    struct fc_engine *e;
    assert_int_equal(fc_engine_create(&config, &e), 0);
    if (m)
        assert_int_equal(fc_engine_set_gru(e, m->gru), 0);
    play(e, 0, 150);
    return e;
}

/* Would break: what was learned is lost, or another guest's, after it was kept:
 * two engines that see the same from then on must say the same. */
static void goes_on_where_it_was(void **state)
{
    (void)state;
    struct fc_model m = shipped();
    struct fc_engine *e = taught(&m), *a, *b;
    struct fc_model_problem problem;
    struct fc_learned l;
    uint8_t *bytes, *again;
    size_t len, again_len;

    assert_int_equal(fc_learned_format(e, &m, 77, &bytes, &len), 0);
    assert_true(len < FC_LEARNED_MAX_BYTES);
    if (fc_learned_parse(bytes, len, &l, &problem))
        fail_msg("%s", problem.text);
    assert_int_equal(l.written_s, 77);
    assert_int_equal(fc_engine_create(&config, &a), 0);
    assert_int_equal(fc_engine_create(&config, &b), 0);
    assert_int_equal(fc_learned_apply(&l, a), 0);
    assert_int_equal(fc_learned_format(a, &l.model, 77, &again, &again_len), 0);
    assert_int_equal(again_len, len);
    /* but for the shares, of which each scorer keeps a little */
    struct fc_learned second;
    assert_int_equal(fc_learned_parse(again, again_len, &second, &problem), 0);
    assert_memory_equal(second.lr, l.lr, sizeof(l.lr));
    assert_memory_equal(second.tuned, l.tuned, sizeof(l.tuned));
    for (unsigned z = 0; z < FC_HORIZONS; z++)
        for (unsigned id = 0; id < FC_SCORERS; id++) {
            assert_true(second.map[z][id].slope == l.map[z][id].slope);
            assert_true(second.map[z][id].calls == l.map[z][id].calls);
            assert_float_equal(second.map[z][id].share, l.map[z][id].share,
                               0.021);
        }
    /* what it says of memory that it sees for the first time is not what one
     * says that knows nothing */
    play(a, 0, 2);
    play(b, 0, 2);
    assert_true(fc_engine_p(a, 96, 2) != fc_engine_p(b, 96, 2));
    fc_learned_dispose(&second);
    fc_learned_dispose(&l);
    fc_engine_destroy(a);
    fc_engine_destroy(b);
    fc_engine_destroy(e);
    fc_model_dispose(&m);
    free(again);
    free(bytes);
}

static void set_check(uint8_t *bytes, size_t len)
{
    fc_le_store(bytes + len - 8, XXH3_64bits(bytes, len - 8), 8);
}

/* Would break: bytes from elsewhere are taken for what was learned; the reader
 * must say what is wrong and where. */
static void refuses_what_is_not_right(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint64_t value;
        unsigned bytes;
        int rc;
        const char *why;
    } wrong[] = {
        { 0, 'X', 1, FC_EFORMAT, "byte 0" },
        { 8, 2, 4, FC_EVERSION, "byte 8" },
        { 12, 5, 4, FC_EFORMAT, "byte 12" },
        { 16, 1, 4, FC_EFORMAT, "byte 16" },
        { 20, 0, 4, FC_EFORMAT, "byte 20" },
        { 24, 1, 8, FC_EFORMAT, "byte 24" },
        { 32, 7, 4, FC_EFORMAT, "byte 32" },
        { 36, 9, 4, FC_EFORMAT, "byte 36" },
        { 36, UINT32_MAX, 4, FC_EFORMAT, "byte 36" },
        { MODEL_AT, 0x7fc00000, 4, FC_EFORMAT, "after byte 64" },
        { MODEL_AT, 0x7f800000, 4, FC_EFORMAT, "after byte 64" },
        /* a share of 2 */
        { MODEL_AT + 24, 0x40000000, 4, FC_EFORMAT, "after byte 64" },
    };
    struct fc_engine *e = taught(NULL);
    struct fc_model_problem problem;
    struct fc_learned l;
    uint8_t *bytes;
    size_t len;
    assert_int_equal(fc_learned_format(e, NULL, 1, &bytes, &len), 0);
    assert_int_equal(fc_learned_parse(bytes, len, &l, &problem), 0);
    assert_null(l.model.gru);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        uint8_t *bad = malloc(len);
        memcpy(bad, bytes, len);
        fc_le_store(bad + wrong[i].at, wrong[i].value, wrong[i].bytes);
        set_check(bad, len);
        assert_int_equal(fc_learned_parse(bad, len, &l, &problem), wrong[i].rc);
        if (!strstr(problem.text, wrong[i].why))
            fail_msg("case %zu says \"%s\"", i, problem.text);
        free(bad);
    }
    bytes[len / 2] ^= 1;
    assert_int_equal(fc_learned_parse(bytes, len, &l, &problem), FC_ECHECK);
    assert_int_equal(fc_learned_parse(bytes, 40, &l, &problem), FC_EFORMAT);
    free(bytes);
    fc_engine_destroy(e);
}

/* Would break: an engine that looks at other times takes it over. */
static void is_for_one_kind_of_engine(void **state)
{
    (void)state;
    struct fc_engine_config other = config;
    struct fc_engine *e = taught(NULL), *f;
    struct fc_model_problem problem;
    struct fc_learned l;
    uint8_t *bytes;
    size_t len;
    assert_int_equal(fc_learned_format(e, NULL, 1, &bytes, &len), 0);
    assert_int_equal(fc_learned_parse(bytes, len, &l, &problem), 0);
    other.horizon_ms[2] = 20000;
    assert_int_equal(fc_engine_create(&other, &f), 0);
    assert_int_equal(fc_learned_apply(&l, f), FC_EINVAL);
    fc_engine_destroy(f);
    other = config;
    other.horizon_ms[3] = 90000; /* as long as the guest's migrations take */
    assert_int_equal(fc_engine_create(&other, &f), 0);
    assert_int_equal(fc_learned_apply(&l, f), 0);
    fc_engine_destroy(f);
    fc_learned_dispose(&l);
    fc_engine_destroy(e);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_golden),
        cmocka_unit_test(goes_on_where_it_was),
        cmocka_unit_test(refuses_what_is_not_right),
        cmocka_unit_test(is_for_one_kind_of_engine),
    };
    return cmocka_run_group_tests_name("learned", tests, NULL, NULL);
}
