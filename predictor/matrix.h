/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FC_MATRIX_H
#define FC_MATRIX_H

#include <stddef.h>
#include <stdint.h>

/*
 * The arithmetic of training. Each sum is taken in the order of its terms and
 * no product is fused with a sum, whatever the processor, so that the same
 * seed and the same traces give the same weights, bit for bit, on every x86.
 * Any thread.
 */

/* `at` + row * row_stride + k * k_stride: element (row, k). Strides let a
 * matrix be read transposed. */
struct fc_matrix_view {
    const float *at;
    size_t row_stride, k_stride;
};

/* c [rows][n] += a (rows x terms) times b [terms][n]; n is a multiple of 4. */
void fc_matrix_muladd(size_t rows, size_t terms, size_t n,
                      struct fc_matrix_view a, const float *b, float *c);

/* c [n] += the sum of the rows of d [rows][n]. */
void fc_matrix_add_rows(size_t rows, size_t n, const float *d, float *c);

/* v [n] becomes its logistic function, its hyperbolic tangent: within 1e-6.
 * n is a multiple of 4. */
void fc_matrix_sigmoid(size_t n, float *v);
void fc_matrix_tanh(size_t n, float *v);

#endif
