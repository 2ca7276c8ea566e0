/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include <cmocka.h>

#include "err.h"
#include "feature.h"
#include "golden.h"
#include "model.h"
#include "wire.h"

static const struct fc_gru_shape shape = { 2, 16 };

/* Weights that a reader of the golden file can check by eye: i / 64. */
static struct fc_model sample(void)
{
    static const struct fc_gru_purpose purpose = {
        .kind = 0,
        .features_hash = 0x1122334455667788ull,
        .step_ms = 1000,
        .horizon_ms = { 50, 1000, 10000, 60000 },
    };
    struct fc_model m = { .seed = 7, .updates = 1234 };
    size_t total = fc_gru_offsets(shape).total;
    float *params = malloc(total * sizeof(*params));

    assert_non_null(params);
    for (size_t i = 0; i < total; i++)
        params[i] = (float)i / 64;
    assert_int_equal(fc_gru_model_new(shape, &purpose, params, &m.gru), 0);
    free(params);
    assert_int_equal(fc_model_add_trace(&m, "some/where/database.trace", 99),
                     0);
    assert_int_equal(fc_model_add_trace(&m, "caf\xc3\xa9", 100), 0);
    return m;
}

static void assert_same(const struct fc_model *a, const struct fc_model *b)
{
    size_t total = fc_gru_offsets(a->gru->shape).total;
    assert_memory_equal(&a->gru->shape, &b->gru->shape, sizeof(a->gru->shape));
    assert_int_equal(a->gru->purpose.kind, b->gru->purpose.kind);
    assert_int_equal(a->gru->purpose.features_hash,
                     b->gru->purpose.features_hash);
    assert_int_equal(a->gru->purpose.step_ms, b->gru->purpose.step_ms);
    assert_memory_equal(a->gru->purpose.horizon_ms, b->gru->purpose.horizon_ms,
                        sizeof(a->gru->purpose.horizon_ms));
    assert_memory_equal(a->gru->params, b->gru->params, total * 4);
    assert_int_equal(a->seed, b->seed);
    assert_int_equal(a->updates, b->updates);
    assert_int_equal(a->trace_count, b->trace_count);
    for (uint32_t i = 0; i < a->trace_count; i++) {
        assert_int_equal(a->trace[i].hash, b->trace[i].hash);
        assert_string_equal(a->trace[i].name, b->trace[i].name);
    }
}

/* Would break: files of before cannot be read, or the document is wrong. */
static void files_are_golden(void **state)
{
    (void)state;
    struct fc_model m = sample(), back;
    struct fc_model_problem problem;
    uint8_t *bytes;
    size_t len;

    assert_int_equal(fc_model_format(&m, &bytes, &len), 0);
    assert_golden("model", bytes, len);
    assert_int_equal(fc_model_parse(bytes, len, 0, &back, &problem), 0);
    assert_same(&m, &back);
    assert_string_equal(back.trace[0].name, "database.trace");
    assert_string_equal(back.trace[1].name, "caf??");
    fc_model_dispose(&back);
    fc_model_dispose(&back);
    fc_model_dispose(&m);
    free(bytes);
}

/* Would break: damage, a lie or another's model spoils what is predicted. */
static void bad_files_are_refused(void **state)
{
    (void)state;
    static const struct {
        size_t at, len;
        uint64_t value;
        bool resign;
        int rc;
        const char *says;
    } damage[] = {
        { 0, 1, 'X', true, FC_EFORMAT, "byte 0: not a model file" },
        { 8, 4, 2, true, FC_EVERSION, "byte 8: version 2, not 1" },
        { 12, 4, 5, true, FC_EFORMAT, "byte 12: length 5" },
        { 16, 4, 1, true, FC_EFORMAT, "byte 16: kind 1, not 0" },
        { 20, 4, 0, true, FC_EFORMAT, "byte 20: no model has 0 inputs" },
        { 20, 4, ~0ull, true, FC_EFORMAT, "byte 20: " },
        { 20, 4, 3, true, FC_EFORMAT, "byte 80: 2 traces do not fit" },
        { 24, 4, 17, true, FC_EFORMAT, "17 hidden units" },
        { 28, 4, 5, true, FC_EFORMAT, "5 outputs" },
        { 32, 4, 0, true, FC_EFORMAT, "byte 32: a step of 0 ms" },
        { 36, 4, 1, true, FC_EFORMAT, "byte 36: reserved" },
        { 40, 4, 0, true, FC_EFORMAT, "byte 40: horizons" },
        { 48, 4, 999, true, FC_EFORMAT, "byte 48: horizons" },
        { 80, 4, 65, true, FC_EFORMAT, "byte 80: 65 traces" },
        { 80, 4, ~0ull, true, FC_EFORMAT, "byte 80: " },
        { 84, 1, 1, true, FC_EFORMAT, "byte 84: reserved" },
        { 95, 1, 1, true, FC_EFORMAT, "byte 84: reserved" },
        { 96 + 8, 4, 0x7fc00000, true, FC_EFORMAT, "byte 104: weight 2" },
        { 96 + 8, 4, 0xff800000, true, FC_EFORMAT, "byte 104: weight 2" },
        { 96 + 8, 4, 0x461c4000, true, FC_EFORMAT, "is 10000" },
        { 96 + 8, 1, 1, false, FC_ECHECK, "checksum does not match" },
    };
    struct fc_model m = sample(), back;
    struct fc_model_problem problem;
    uint8_t *good, *bad;
    size_t len;

    assert_int_equal(fc_model_format(&m, &good, &len), 0);
    for (unsigned i = 0; i < sizeof(damage) / sizeof(*damage); i++) {
        bad = malloc(len);
        memcpy(bad, good, len);
        fc_le_store(bad + damage[i].at, damage[i].value,
                    (unsigned)damage[i].len);
        if (damage[i].resign)
            fc_le_store(bad + len - 8, XXH3_64bits(bad, len - 8), 8);
        assert_int_equal(fc_model_parse(bad, len, 0, &back, &problem),
                         damage[i].rc);
        if (!strstr(problem.text, damage[i].says))
            fail_msg("\"%s\", not \"%s\"", problem.text, damage[i].says);
        assert_null(back.gru);
        free(bad);
    }
    free(good);
    fc_model_dispose(&m);
}

/* Would break: a name made for the terminal, or without an end. */
static void bad_names_are_refused(void **state)
{
    (void)state;
    static const char *const names[] = { "", "a\033[2J", "a\177" };
    struct fc_model m = sample(), back;
    struct fc_model_problem problem;
    uint8_t *bytes;
    size_t len;

    for (unsigned i = 0; i < 5; i++) {
        memset(m.trace[1].name, i == 3 ? 'a' : 0, FC_MODEL_TRACE_NAME);
        if (i < 3)
            strcpy(m.trace[1].name, names[i]);
        if (i == 4)
            memcpy(m.trace[1].name, "a\0b", 4);
        assert_int_equal(fc_model_format(&m, &bytes, &len), 0);
        assert_int_equal(fc_model_parse(bytes, len, 0, &back, &problem),
                         FC_EFORMAT);
        assert_string_equal(problem.text, "trace 1: bad name");
        free(bytes);
    }
    fc_model_dispose(&m);
}

/* Would break: reading past a file that was cut off. */
static void cut_files_are_refused(void **state)
{
    (void)state;
    struct fc_model m = sample(), back;
    struct fc_model_problem problem;
    uint8_t *bytes;
    size_t len;

    assert_int_equal(fc_model_format(&m, &bytes, &len), 0);
    for (size_t cut = 0; cut < len; cut++) {
        uint8_t *part = malloc(cut + 1);
        memcpy(part, bytes, cut);
        if (cut >= 104) {
            fc_le_store(part + 12, cut, 4);
            fc_le_store(part + cut - 8, XXH3_64bits(part, cut - 8), 8);
        }
        assert_int_equal(fc_model_parse(part, cut, 0, &back, &problem),
                         FC_EFORMAT);
        free(part);
    }
    free(bytes);
    fc_model_dispose(&m);
}

/* Would break: a crash leaves half a model, or one that is not there. */
static void saves_and_loads(void **state)
{
    (void)state;
    struct fc_model m = sample(), back;
    struct fc_model_problem problem;
    char dir[] = "/tmp/fc-model-XXXXXX", path[64];

    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/guest.fcm", dir);
    assert_int_equal(fc_model_load(path, 0, &back, &problem), FC_EIO);
    assert_string_equal(problem.text, strerror(ENOENT));
    assert_int_equal(fc_model_save(&m, path), 0);
    m.updates = 1235;
    assert_int_equal(fc_model_save(&m, path), 0);
    assert_int_equal(fc_model_load(path, 0, &back, &problem), 0);
    assert_same(&m, &back);
    fc_model_dispose(&back);
    assert_int_equal(truncate(path, 0), 0);
    assert_int_equal(fc_model_load(path, 0, &back, &problem), FC_EFORMAT);
    assert_int_equal(truncate(path, FC_MODEL_MAX_BYTES + 1), 0);
    assert_int_equal(fc_model_load(path, 0, &back, &problem), FC_ETOOBIG);
    assert_int_equal(fc_model_load(dir, 0, &back, &problem), FC_ETOOBIG);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0); /* nothing else was left */
    fc_model_dispose(&m);
}

/* Would break: forecopy starts without a GRU, or with one that was trained
 * for features of before: then `make train` is due. */
static void shipped_weights_fit(void **state)
{
    (void)state;
    struct fc_model_problem problem = { "" };
    struct fc_model m;

    if (fc_model_shipped(50, &m, &problem))
        fail_msg("%s", problem.text);
    assert_int_equal(m.gru->shape.inputs, FC_FEATURE_STRIDE);
    assert_int_equal(m.gru->purpose.features_hash, fc_feature_hash());
    assert_true(m.trace_count > 0);
    fc_model_dispose(&m);
}

/* Would break: a list without an end. */
static void trace_list_is_bounded(void **state)
{
    (void)state;
    struct fc_model m = { 0 };
    for (unsigned i = 0; i < FC_MODEL_MAX_TRACES; i++)
        assert_int_equal(fc_model_add_trace(&m, "", i), 0);
    assert_string_equal(m.trace[0].name, "?");
    assert_int_equal(fc_model_add_trace(&m, "x", 1), FC_ELIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_golden),
        cmocka_unit_test(bad_files_are_refused),
        cmocka_unit_test(bad_names_are_refused),
        cmocka_unit_test(cut_files_are_refused),
        cmocka_unit_test(saves_and_loads),
        cmocka_unit_test(trace_list_is_bounded),
        cmocka_unit_test(shipped_weights_fit),
    };
    return cmocka_run_group_tests_name("model", tests, NULL, NULL);
}
