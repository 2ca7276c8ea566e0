/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "err.h"
#include "io.h"
#include "model.h"
#include "wire.h"

#define MAGIC "FCMODEL1"
#define VERSION 1u
#define HEAD_BYTES 96u
#define TRACE_BYTES 64u
#define TAIL_BYTES 8u
#define MAX_STEP_MS 3600000u

static int refuse(struct fc_model_problem *problem, int rc, const char *fmt,
                  ...) __attribute__((format(printf, 3, 4)));

static int refuse(struct fc_model_problem *problem, int rc, const char *fmt,
                  ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(problem->text, sizeof(problem->text), fmt, ap);
    va_end(ap);
    return rc;
}

static size_t file_bytes(struct fc_gru_shape shape, uint32_t traces)
{
    return HEAD_BYTES + fc_gru_offsets(shape).total * 4 +
           (size_t)traces * TRACE_BYTES + TAIL_BYTES;
}

/* ---- reading ------------------------------------------------------------ */

static int parse_purpose(struct fc_reader *r, uint32_t kind,
                         struct fc_gru_shape *shape,
                         struct fc_gru_purpose *purpose,
                         struct fc_model_problem *problem)
{
    purpose->kind = fc_get_u32(r);
    if (purpose->kind != kind)
        return refuse(problem, FC_EFORMAT, "byte 16: kind %u, not %u",
                      purpose->kind, kind);
    shape->inputs = fc_get_u32(r);
    shape->hidden = fc_get_u32(r);
    uint32_t outputs = fc_get_u32(r);
    if (!fc_gru_shape_ok(*shape) || outputs != FC_GRU_OUTPUTS)
        return refuse(problem, FC_EFORMAT,
                      "byte 20: no model has %u inputs, %u hidden units and "
                      "%u outputs",
                      shape->inputs, shape->hidden, outputs);
    purpose->step_ms = fc_get_u32(r);
    if (purpose->step_ms == 0 || purpose->step_ms > MAX_STEP_MS)
        return refuse(problem, FC_EFORMAT, "byte 32: a step of %u ms",
                      purpose->step_ms);
    if (fc_get_u32(r) != 0)
        return refuse(problem, FC_EFORMAT, "byte 36: reserved, not zero");
    for (unsigned i = 0; i < FC_GRU_OUTPUTS; i++) {
        purpose->horizon_ms[i] = fc_get_u32(r);
        if (purpose->horizon_ms[i] < (i ? purpose->horizon_ms[i - 1] : 1))
            return refuse(problem, FC_EFORMAT,
                          "byte %u: horizons do not ascend", 40 + 4 * i);
    }
    purpose->features_hash = fc_get_u64(r);
    return 0;
}

static int parse_weights(struct fc_reader *r, struct fc_gru_shape shape,
                         const struct fc_gru_purpose *purpose,
                         struct fc_gru_model **gru_r,
                         struct fc_model_problem *problem)
{
    size_t total = fc_gru_offsets(shape).total;
    float *params = malloc(total * sizeof(*params));
    int rc = 0;

    if (!params)
        return refuse(problem, FC_ENOMEM, "out of memory");
    for (size_t i = 0; i < total && rc == 0; i++) {
        uint32_t bits = fc_get_u32(r);
        memcpy(&params[i], &bits, sizeof(bits));
        if (!(fabsf(params[i]) <= FC_GRU_MAX_WEIGHT))
            rc = refuse(problem, FC_EFORMAT, "byte %zu: weight %zu is %g",
                        HEAD_BYTES + 4 * i, i, (double)params[i]);
    }
    if (rc == 0)
        rc = fc_gru_model_new(shape, purpose, params, gru_r);
    if (rc == FC_ENOMEM)
        refuse(problem, rc, "out of memory");
    free(params);
    return rc;
}

static int parse_traces(struct fc_reader *r, struct fc_model *m,
                        struct fc_model_problem *problem)
{
    for (uint32_t i = 0; i < m->trace_count; i++) {
        struct fc_model_trace *t = &m->trace[i];
        t->hash = fc_get_u64(r);
        const uint8_t *name = fc_get_bytes(r, sizeof(t->name));
        size_t used = 0;
        bool good = name != NULL;
        while (good && used < sizeof(t->name) && name[used])
            used++;
        for (size_t j = 0; good && j < sizeof(t->name); j++)
            good = j < used ? name[j] >= 0x20 && name[j] < 0x7f : !name[j];
        if (!good || used == 0 || used == sizeof(t->name))
            return refuse(problem, FC_EFORMAT, "trace %u: bad name", i);
        memcpy(t->name, name, sizeof(t->name));
    }
    return 0;
}

/* Magic, version, length and checksum. */
static int parse_frame(const void *bytes, size_t len, struct fc_reader *r,
                       struct fc_model_problem *problem)
{
    if (len > FC_MODEL_MAX_BYTES)
        return refuse(problem, FC_ETOOBIG, "%zu bytes; at most %u", len,
                      FC_MODEL_MAX_BYTES);
    if (len < HEAD_BYTES + TAIL_BYTES || memcmp(bytes, MAGIC, 8) != 0)
        return refuse(problem, FC_EFORMAT, "byte 0: not a model file");
    *r = fc_reader_of(bytes, len - TAIL_BYTES);
    fc_get_bytes(r, 8);
    uint32_t version = fc_get_u32(r), length = fc_get_u32(r);
    if (version != VERSION)
        return refuse(problem, FC_EVERSION, "byte 8: version %u, not %u",
                      version, VERSION);
    if (length != len)
        return refuse(problem, FC_EFORMAT,
                      "byte 12: length %u, but there are %zu bytes", length,
                      len);
    if (XXH3_64bits(bytes, len - TAIL_BYTES) != fc_le_load(r->end, TAIL_BYTES))
        return refuse(problem, FC_ECHECK, "byte %zu: checksum does not match",
                      len - TAIL_BYTES);
    return 0;
}

int fc_model_parse(const void *bytes, size_t len, uint32_t kind,
                   struct fc_model *m, struct fc_model_problem *problem)
{
    struct fc_gru_shape shape;
    struct fc_gru_purpose purpose;
    struct fc_reader r = { 0 };

    memset(m, 0, sizeof(*m));
    int rc = parse_frame(bytes, len, &r, problem);
    if (rc == 0)
        rc = parse_purpose(&r, kind, &shape, &purpose, problem);
    if (rc)
        return rc;
    m->seed = fc_get_u64(&r);
    m->updates = fc_get_u64(&r);
    m->trace_count = fc_get_u32(&r);
    if (m->trace_count > FC_MODEL_MAX_TRACES ||
        len != file_bytes(shape, m->trace_count))
        return refuse(problem, FC_EFORMAT,
                      "byte 80: %u traces do not fit %zu bytes", m->trace_count,
                      len);
    if (fc_get_u32(&r) | fc_get_u64(&r))
        return refuse(problem, FC_EFORMAT, "byte 84: reserved, not zero");
    rc = parse_weights(&r, shape, &purpose, &m->gru, problem);
    if (rc == 0)
        rc = parse_traces(&r, m, problem);
    if (rc)
        fc_model_dispose(m);
    return rc;
}

int fc_model_load(const char *path, uint32_t kind, struct fc_model *m,
                  struct fc_model_problem *problem)
{
    struct stat st;
    uint8_t *bytes = NULL;
    int rc, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    memset(m, 0, sizeof(*m));
    if (fd < 0 || fstat(fd, &st) < 0) {
        rc = refuse(problem, FC_EIO, "%s", strerror(errno));
        goto out;
    }
    if (!S_ISREG(st.st_mode) || st.st_size > FC_MODEL_MAX_BYTES) {
        rc = refuse(problem, FC_ETOOBIG, "not a file of at most %u bytes",
                    FC_MODEL_MAX_BYTES);
        goto out;
    }
    bytes = malloc((size_t)st.st_size + 1);
    if (!bytes) {
        rc = refuse(problem, FC_ENOMEM, "out of memory");
        goto out;
    }
    rc = fc_read_exact(fd, bytes, (size_t)st.st_size);
    if (rc)
        rc = refuse(problem, rc, "could not be read to its end");
    else
        rc = fc_model_parse(bytes, (size_t)st.st_size, kind, m, problem);
out:
    free(bytes);
    fc_close(&fd);
    return rc;
}

void fc_model_dispose(struct fc_model *m)
{
    fc_gru_model_unref(m->gru);
    memset(m, 0, sizeof(*m));
}

int fc_model_add_trace(struct fc_model *m, const char *path, uint64_t hash)
{
    if (m->trace_count >= FC_MODEL_MAX_TRACES)
        return FC_ELIMIT;
    struct fc_model_trace *t = &m->trace[m->trace_count];
    const char *slash = strrchr(path, '/');
    if (slash && slash[1])
        path = slash + 1;
    memset(t, 0, sizeof(*t));
    t->hash = hash;
    for (size_t i = 0; i + 1 < sizeof(t->name) && path[i]; i++)
        t->name[i] = path[i] >= 0x20 && path[i] < 0x7f ? path[i] : '?';
    if (!t->name[0])
        t->name[0] = '?';
    m->trace_count++;
    return 0;
}

/* ---- writing ------------------------------------------------------------ */

int fc_model_format(const struct fc_model *m, uint8_t **bytes_r, size_t *len_r)
{
    const struct fc_gru_model *gru = m->gru;
    if (!gru || m->trace_count > FC_MODEL_MAX_TRACES)
        return FC_EINVAL;
    size_t total = fc_gru_offsets(gru->shape).total;
    size_t len = file_bytes(gru->shape, m->trace_count);
    uint8_t *bytes = calloc(1, len);
    if (!bytes)
        return FC_ENOMEM;

    struct fc_writer w = fc_writer_of(bytes, len);
    fc_put_bytes(&w, MAGIC, 8);
    fc_put_u32(&w, VERSION);
    fc_put_u32(&w, (uint32_t)len);
    fc_put_u32(&w, gru->purpose.kind);
    fc_put_u32(&w, gru->shape.inputs);
    fc_put_u32(&w, gru->shape.hidden);
    fc_put_u32(&w, FC_GRU_OUTPUTS);
    fc_put_u32(&w, gru->purpose.step_ms);
    fc_put_u32(&w, 0);
    for (unsigned i = 0; i < FC_GRU_OUTPUTS; i++)
        fc_put_u32(&w, gru->purpose.horizon_ms[i]);
    fc_put_u64(&w, gru->purpose.features_hash);
    fc_put_u64(&w, m->seed);
    fc_put_u64(&w, m->updates);
    fc_put_u32(&w, m->trace_count);
    fc_put_u32(&w, 0);
    fc_put_u64(&w, 0);
    for (size_t i = 0; i < total; i++) {
        uint32_t bits;
        memcpy(&bits, &gru->params[i], sizeof(bits));
        fc_put_u32(&w, bits);
    }
    for (uint32_t i = 0; i < m->trace_count; i++) {
        fc_put_u64(&w, m->trace[i].hash);
        fc_put_bytes(&w, m->trace[i].name, sizeof(m->trace[i].name));
    }
    fc_put_u64(&w, XXH3_64bits(bytes, len - TAIL_BYTES));
    *bytes_r = bytes;
    *len_r = len;
    return 0;
}

int fc_model_save(const struct fc_model *m, const char *path)
{
    uint8_t *bytes = NULL;
    char *beside = NULL;
    size_t len;
    int fd = -1, rc = fc_model_format(m, &bytes, &len);

    if (rc)
        return rc;
    if (asprintf(&beside, "%s.new", path) < 0) {
        beside = NULL;
        rc = FC_ENOMEM;
        goto out;
    }
    fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    rc = fd < 0 ? FC_EIO : fc_write_all(fd, bytes, len);
    if (rc == 0 && (fsync(fd) < 0 || rename(beside, path) < 0))
        rc = FC_EIO;
    if (rc && fd >= 0) {
        int keep = errno;
        unlink(beside);
        errno = keep;
    }
out:
    fc_close(&fd);
    free(beside);
    free(bytes);
    return rc;
}
