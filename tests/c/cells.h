/* The cells of the arithmetic contract, version 2, as naive loops over logical weights, and the numbers tests feed them. */
#ifndef FASTRNN_CELLS_H
#define FASTRNN_CELLS_H

#include <stdlib.h>

#include "contract.h"

static inline void *allocate(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    if (!memory) abort();
    return memory;
}

/* Numbers ------------------------------------------------------------------------------------------------------------- */

static inline uint32_t mix(uint32_t x) {
    x = (x ^ x >> 16) * 0x7feb352d;
    x = (x ^ x >> 15) * 0x846ca68b;
    return x ^ x >> 16;
}

static inline uint32_t draw(uint32_t seed, uint32_t stream, uint32_t i) { return mix(mix(seed * 256 + stream) + i); }

/* In [-1, 1): a multiple of 2^-23 for float32, of 2^-47 for float64: exact here and in NumPy, and their products are not. */
static inline real uniform(uint32_t seed, uint32_t stream, uint32_t i) {
    const int64_t high = draw(seed, stream, 2 * i) >> 8, low = draw(seed, stream, 2 * i + 1) >> 8;
#ifdef FASTRNN_DOUBLE
    return (double)(high * (1 << 24) + low - ((int64_t)1 << 47)) * 0x1p-47;
#else
    (void)low;
    return (float)(high - (1 << 23)) * 0x1p-23f;
#endif
}

static inline real *tensor(uint32_t seed, uint32_t stream, int count, int shift) {
    real *values = allocate((size_t)count, sizeof *values);
    for (int i = 0; i < count; i++) values[i] = ldexp(uniform(seed, stream, (uint32_t)i), -shift);
    return values;
}

/* Cells --------------------------------------------------------------------------------------------------------------- */

/* One layer and direction; torch's names and order of gates. I input, H hidden, P projection or 0, R = P or H, G gates. */
typedef struct {
    const char *variant, *activation;
    int I, H, P, R, G;
    real *w_ih, *w_hh, *b_ih, *b_hh, *w_hr; /* (G*H, I), (G*H, R), (G*H,), (G*H,), (P, H) */
} cell;

static inline int is(const cell *w, const char *variant) { return strcmp(w->variant, variant) == 0; }
static inline int does(const cell *w, const char *activation) { return strcmp(w->activation, activation) == 0; }

/* Draws the weights from five streams. */
static inline cell make_cell(const char *variant, const char *activation, int I, int H, int P, int bias, uint32_t seed, uint32_t stream,
                             int shift) {
    cell w = {.variant = variant, .activation = activation, .I = I, .H = H, .P = P, .R = P ? P : H};
    w.G = is(&w, "rnn") ? 1 : is(&w, "gru") || is(&w, "gru_before") ? 3 : 4;
    const int rows = w.G * H;
    w.w_ih = tensor(seed, stream, rows * I, shift);
    w.w_hh = tensor(seed, stream + 1, rows * w.R, shift);
    w.b_ih = bias ? tensor(seed, stream + 2, rows, shift) : allocate((size_t)rows, sizeof *w.b_ih);
    w.b_hh = bias ? tensor(seed, stream + 3, rows, shift) : allocate((size_t)rows, sizeof *w.b_hh);
    w.w_hr = tensor(seed, stream + 4, P * H, shift);
    return w;
}

static inline void free_cell(cell w) { free(w.w_ih), free(w.w_hh), free(w.b_ih), free(w.b_hh), free(w.w_hr); }

enum { RUN = 128 };

/* In runs of 128 terms: each is run = fma(a[k], w[k], run) from +0, then added to the sum. */
static inline real sum(real acc, const real *a, const real *w, int n) {
    for (int first = 0; first < n; first += RUN) {
        real run = 0;
        for (int k = first; k < n && k < first + RUN; k++) run = fma(a[k], w[k], run);
        acc += run;
    }
    return acc;
}

/* b + W_ih x + W_hh h for one row of the weights */
static inline real gate(const cell *w, int row, const real *x, const real *h) {
    return sum(sum(w->b_ih[row] + w->b_hh[row], x, w->w_ih + row * w->I, w->I), h, w->w_hh + row * w->R, w->R);
}

static inline real sigma_or_x(const cell *w, real x) { return does(w, "linear") ? x : sigma_of(x); }
static inline real tanh_or_x(const cell *w, real x) { return does(w, "linear") ? x : tanh_of(x); }

static inline real rnn_unit(const cell *w, int u, const real *x, const real *h) {
    return flush_of(activation_of(w->activation, gate(w, u, x, h)));
}

/* Not flushed: what a projection multiplies. */
static inline real lstm_unit(const cell *w, int u, const real *x, const real *h, real *c) {
    const real i = sigma_or_x(w, gate(w, u, x, h)), f = sigma_or_x(w, gate(w, w->H + u, x, h));
    const real g = tanh_or_x(w, gate(w, 2 * w->H + u, x, h)), o = sigma_or_x(w, gate(w, 3 * w->H + u, x, h));
    *c = flush_of(fma(f, *c, i * g));
    return o * tanh_or_x(w, *c);
}

/* `reset` is r*h of all units for the reset before the product, NULL for the reset after it. */
static inline real gru_unit(const cell *w, int u, const real *x, const real *h, const real *reset) {
    const real z = sigma_or_x(w, gate(w, w->H + u, x, h));
    const int row = 2 * w->H + u;
    real n;
    if (reset) {
        n = tanh_or_x(w, gate(w, row, x, reset));
    } else {
        const real n_x = sum(w->b_ih[row], x, w->w_ih + row * w->I, w->I), n_h = sum(w->b_hh[row], h, w->w_hh + row * w->R, w->R);
        n = tanh_or_x(w, fma(sigma_or_x(w, gate(w, u, x, h)), n_h, n_x));
    }
    return flush_of(fma(z, h[u], fma(-z, n, n)));
}

/* One row, one step: h (R,) and c (H,) become the next. */
static inline void cell_step(const cell *w, const real *x, real *h, real *c) {
    const int lstm = is(w, "lstm") || is(w, "lstm_proj");
    real *next = allocate((size_t)w->H, sizeof *next), *reset = NULL;
    if (is(w, "gru_before")) {
        reset = allocate((size_t)w->H, sizeof *reset);
        for (int u = 0; u < w->H; u++) reset[u] = sigma_or_x(w, gate(w, u, x, h)) * h[u];
    }
    for (int u = 0; u < w->H; u++)
        next[u] = is(w, "rnn") ? rnn_unit(w, u, x, h) : lstm ? lstm_unit(w, u, x, h, c + u) : gru_unit(w, u, x, h, reset);
    for (int r = 0; r < w->R; r++)
        h[r] = w->P ? flush_of(sum(0, next, w->w_hr + r * w->H, w->H)) : lstm ? flush_of(next[r]) : next[r];
    free(next), free(reset);
}

/* Dense layers -------------------------------------------------------------------------------------------------------- */

/* One row of y (V,) = f(b + W x), with W (V, K). */
static inline void dense_row(const char *activation, const real *w, const real *b, const real *x, real *y, int K, int V) {
    real *sums = allocate((size_t)V, sizeof *sums);
    for (int v = 0; v < V; v++) sums[v] = sum(b[v], x, w + v * K, K);
    activate_row(activation, sums, y, V);
    free(sums);
}

#endif
