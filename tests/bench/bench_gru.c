/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The GRU's step on one core: nanoseconds for a region, as a share of what the
 * core can do in fused multiply-adds (measured beside it), the share of a core
 * that 163,840 regions take at 1 Hz and at the pace of the weights that ship,
 * and PyTorch on the same shapes in one thread where python3-torch is
 * installed. In rounds, one after the other; the best round of each counts.
 * Prints a table and writes build/bench/gru.json.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "feature.h"
#include "gru.h"
#include "gru_train.h"
#include "model.h"

#define REGIONS 163840u
#define DENSE 4096u /* what stays in the second-level cache */
#define HIDDEN 32u
#define ROUNDS 5u
#define TORCH_TARGET (1.0 / 3)

static const struct fc_gru_shape shape = { FC_FEATURE_STRIDE, HIDDEN };
static bool first_row = true;

static double cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

/* ---- the core's peak ---------------------------------------------------- */

#if defined(__x86_64__)
/* Twelve chains of fused multiply-adds that wait for nothing but themselves;
 * returns how many of a float were done. */
#define CHAINS(INSN, REG)                                                      \
    __asm__ volatile(                                                          \
        INSN                                                                   \
        " %%" REG "12, %%" REG "13, %%" REG "0\n" INSN " %%" REG "12, %%" REG  \
        "13, %%" REG "1\n" INSN " %%" REG "12, %%" REG "13, %%" REG "2\n" INSN \
        " %%" REG "12, %%" REG "13, %%" REG "3\n" INSN " %%" REG "12, %%" REG  \
        "13, %%" REG "4\n" INSN " %%" REG "12, %%" REG "13, %%" REG "5\n" INSN \
        " %%" REG "12, %%" REG "13, %%" REG "6\n" INSN " %%" REG "12, %%" REG  \
        "13, %%" REG "7\n" INSN " %%" REG "12, %%" REG "13, %%" REG "8\n" INSN \
        " %%" REG "12, %%" REG "13, %%" REG "9\n" INSN " %%" REG "12, %%" REG  \
        "13, %%" REG "10\n" INSN " %%" REG "12, %%" REG "13, %%" REG "11\n" :: \
            : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",  \
              "xmm8", "xmm9", "xmm10", "xmm11")

__attribute__((target("avx512f"))) static double peak_avx512(unsigned n)
{
    __asm__ volatile("vxorps %%ymm12, %%ymm12, %%ymm12\n"
                     "vxorps %%ymm13, %%ymm13, %%ymm13\n" ::
                         : "xmm12", "xmm13");
    for (unsigned i = 0; i < n; i++)
        CHAINS("vfmadd231ps", "zmm");
    return 12.0 * 16 * n;
}

__attribute__((target("avx2"))) static double peak_avx2(unsigned n)
{
    __asm__ volatile("vxorps %%ymm12, %%ymm12, %%ymm12\n"
                     "vxorps %%ymm13, %%ymm13, %%ymm13\n" ::
                         : "xmm12", "xmm13");
    for (unsigned i = 0; i < n; i++)
        CHAINS("vfmadd231ps", "ymm");
    return 12.0 * 8 * n;
}
#endif

/* Fused multiply-adds of floats a nanosecond; 0: not known. */
static double peak_of(const char *kernel)
{
    double best = 0;
#if defined(__x86_64__)
    double (*run)(unsigned) = strcmp(kernel, "avx512") == 0 ? peak_avx512
                              : strcmp(kernel, "avx2") == 0 ? peak_avx2
                                                            : NULL;
    for (unsigned round = 0; run && round < ROUNDS; round++) {
        double from = cpu_ns(), done = run(2000000);
        double rate = done / (cpu_ns() - from);
        best = rate > best ? rate : best;
    }
#else
    (void)kernel;
#endif
    return best;
}

/* ---- the step ----------------------------------------------------------- */

struct arrays {
    float *x, *h, *logits;
};

static double step_ns(const struct fc_gru_kernel *kernel,
                      const struct fc_gru_model *model, uint32_t regions,
                      const struct arrays *a)
{
    unsigned times = 2 * REGIONS / regions;
    double best = 1e30;
    for (unsigned round = 0; round < ROUNDS; round++) {
        double from = cpu_ns();
        for (unsigned i = 0; i < times; i++)
            kernel->step(model, regions, a->x, a->h, a->logits);
        double ns = (cpu_ns() - from) / times / regions;
        best = ns < best ? ns : best;
    }
    return best;
}

/* PyTorch's, of the same shapes; 0 where there is none. */
static double torch_ns(void)
{
    char command[512];
    double ns = 0;
    snprintf(command, sizeof(command),
             "/usr/bin/python3 -c 'import time, torch\n"
             "torch.set_num_threads(1)\n"
             "cell = torch.nn.GRUCell(%u, %u)\n"
             "out = torch.nn.Linear(%u, 4)\n"
             "x, h, best = torch.randn(%u, %u), torch.zeros(%u, %u), 1e30\n"
             "with torch.no_grad():\n"
             "    for i in range(40):\n"
             "        t = time.thread_time_ns()\n"
             "        h = cell(x, h); y = out(h)\n"
             "        best = min(best, time.thread_time_ns() - t)\n"
             "print(best / %u)' 2>/dev/null",
             shape.inputs, HIDDEN, HIDDEN, DENSE, shape.inputs, DENSE, HIDDEN,
             DENSE);
    FILE *f = popen(command, "r");
    if (f) {
        if (fscanf(f, "%lf", &ns) != 1)
            ns = 0;
        pclose(f);
    }
    return ns;
}

/* ---- the report --------------------------------------------------------- */

/* `peer` 0: none; `target` of the ratio where there is a peer, else of ours;
 * `more` is better. */
static void row(FILE *json, const char *name, const char *metric,
                const char *unit, double ours, double peer,
                const char *peer_name, double target, bool more)
{
    double judged = peer > 0 ? ours / peer : ours;
    bool ok = more ? judged >= target : judged <= target;
    fprintf(json,
            "%s  {\"bench\": \"gru\", \"case\": \"%s\", \"metric\": \"%s\", "
            "\"unit\": \"%s\", \"ours\": %.6g, ",
            first_row ? "" : ",\n", name, metric, unit, ours);
    if (peer > 0)
        fprintf(json, "\"peer\": %.6g, \"peer_name\": \"%s\", \"ratio\": %.4g",
                peer, peer_name, ours / peer);
    else
        fprintf(json, "\"peer\": null, \"peer_name\": null, \"ratio\": null");
    if (target > 0)
        fprintf(json, ", \"target\": %.4g, \"ok\": %s}", target,
                ok ? "true" : "false");
    else
        fprintf(json, ", \"target\": null, \"ok\": null}");
    first_row = false;
}

static void bench(FILE *json, const struct fc_gru_model *model, double pace,
                  const struct arrays *a)
{
    double operations = 3.0 * HIDDEN * (shape.inputs + HIDDEN) +
                        FC_GRU_OUTPUTS * (double)(shape.inputs + HIDDEN);
    double torch = torch_ns();

    printf("%-8s %14s %14s %10s %10s %10s %8s\n", "kernel", "dense ns/region",
           "163840 ns/reg.", "% of peak", "core% 1Hz", "as shipped", "x torch");
    for (unsigned k = 0; fc_gru_kernel_at(k); k++) {
        const struct fc_gru_kernel *kernel = fc_gru_kernel_at(k);
        char name[32];
        double dense = step_ns(kernel, model, DENSE, a);
        double all = step_ns(kernel, model, REGIONS, a);
        double peak = peak_of(kernel->name);
        double fraction = peak > 0 ? operations / dense / peak : 0;
        double share = all * REGIONS / 1e9;

        printf("%-8s %14.1f %14.1f %10.1f %10.2f %10.2f %8.1f\n", kernel->name,
               dense, all, 100 * fraction, 100 * share, 100 * share * pace,
               torch / dense);
        snprintf(name, sizeof(name), "dense-%s", kernel->name);
        bool fast = k == 0 && peak > 0;
        row(json, fast ? "dense" : name, "ns_per_region", "ns", dense, torch,
            "torch", fast && torch > 0 ? TORCH_TARGET : 0, false);
        if (peak > 0)
            row(json, fast ? "dense" : name, "fma_fraction", "1", fraction, 0,
                NULL, 0.5, true);
        snprintf(name, sizeof(name), "tick-163840-%s", kernel->name);
        row(json, fast ? "tick-163840" : name, "core_share", "1", share, 0,
            NULL,
            strcmp(kernel->name, "avx512") == 0 ? 0.06
            : strcmp(kernel->name, "avx2") == 0 ? 0.09
                                                : 0,
            false);
        row(json, fast ? "tick-163840" : name, "core_share_as_shipped", "1",
            share * pace, 0, NULL, 0, false);
    }
    if (torch > 0)
        printf("torch    %14.1f ns/region, without the read-out of the "
               "inputs\n",
               torch);
    else
        printf("no python3-torch here to compare with\n");
}

int main(void)
{
    static const struct fc_gru_purpose purpose = { .step_ms = 1000 };
    size_t total = fc_gru_offsets(shape).total;
    float *params = calloc(total, sizeof(*params));
    struct arrays a = {
        malloc((size_t)REGIONS * shape.inputs * sizeof(float)),
        calloc((size_t)REGIONS * HIDDEN, sizeof(float)),
        malloc((size_t)REGIONS * FC_GRU_OUTPUTS * sizeof(float)),
    };
    struct fc_gru_model *model = NULL;
    struct fc_model_problem problem;
    struct fc_model shipped;

    if (fc_model_shipped(50, &shipped, &problem)) {
        fprintf(stderr, "bench_gru: shipped weights: %s\n", problem.text);
        return 1;
    }
    if (!params || !a.x || !a.h || !a.logits)
        return 1;
    fc_gru_random_params(shape, 1, params);
    for (size_t i = 0; i < (size_t)REGIONS * shape.inputs; i++)
        a.x[i] = (float)(i * 2654435761u % 2048) / 1024.0f - 1.0f;
    if (fc_gru_model_new(shape, &purpose, params, &model))
        return 1;
    mkdir("build", 0777);
    mkdir("build/bench", 0777);
    FILE *json = fopen("build/bench/gru.json", "w");
    if (!json) {
        perror("build/bench/gru.json");
        return 1;
    }
    fprintf(json, "[\n");
    bench(json, model, 1000.0 / shipped.gru->purpose.step_ms, &a);
    fprintf(json, "\n]\n");
    int failed = fclose(json);
    fc_model_dispose(&shipped);
    fc_gru_model_unref(model);
    free(params), free(a.x), free(a.h), free(a.logits);
    return failed ? 1 : 0;
}
