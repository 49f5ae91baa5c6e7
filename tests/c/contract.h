/* The arithmetic contract, version 2, in plain scalar C: what every kernel must reproduce bit for bit.
 *
 * Written from the contract and not from the kernels, so that a slip in one shows against the other; only the coefficients are
 * shared. A program is built once per dtype: float32, or float64 with -DFASTRNN_DOUBLE. It needs -ffp-contract=off. */
#ifndef FASTRNN_CONTRACT_H
#define FASTRNN_CONTRACT_H

#include <stdint.h>
#include <string.h>
#include <tgmath.h> /* fma, rint, fabs, copysign in the type of their arguments */
#undef I            /* the input size, not tgmath's imaginary unit */

#include "../../src_kernels/coefficients.h"

#ifdef FASTRNN_DOUBLE
typedef double real;
typedef uint64_t bits;
#define SIGNIFICAND 52
#define BIAS 1023
#define TANH_LIMIT 22
#define TANH_TINY 0x1p-1021
#define STATE_TINY 0x1p-510
#define MINUS_LOG2E FASTRNN_MINUS_LOG2E_F64
#define TWO_LOG2E FASTRNN_TWO_LOG2E_F64
#define LN2 FASTRNN_LN2_F64
#define MINUS_HALF_LN2 FASTRNN_MINUS_HALF_LN2_F64
#define SIGMA_LIMIT FASTRNN_SIGMA_LIMIT_F64
#define LEAST_NORMAL 0x1p-1022
static const real Q_SIGMA[] = FASTRNN_Q_SIGMA_F64, Q_TANH[] = FASTRNN_Q_TANH_F64, Q_LOG[] = FASTRNN_Q_LOG_F64;
#else
typedef float real;
typedef uint32_t bits;
#define SIGNIFICAND 23
#define BIAS 127
#define TANH_LIMIT 11
#define TANH_TINY 0x1p-125f
#define STATE_TINY 0x1p-62f
#define MINUS_LOG2E FASTRNN_MINUS_LOG2E_F32
#define TWO_LOG2E FASTRNN_TWO_LOG2E_F32
#define LN2 FASTRNN_LN2_F32
#define MINUS_HALF_LN2 FASTRNN_MINUS_HALF_LN2_F32
#define SIGMA_LIMIT FASTRNN_SIGMA_LIMIT_F32
#define LEAST_NORMAL 0x1p-126f
static const real Q_SIGMA[] = FASTRNN_Q_SIGMA_F32, Q_TANH[] = FASTRNN_Q_TANH_F32, Q_LOG[] = FASTRNN_Q_LOG_F32;
#endif

enum {
    DEGREE = sizeof Q_TANH / sizeof *Q_TANH - 1,
    LOG_DEGREE = sizeof Q_LOG / sizeof *Q_LOG - 1,
    VIRTUAL = 64 / sizeof(real) /* lanes that a sum over a row goes through */
};

static inline bits to_bits(real x) {
    bits b;
    memcpy(&b, &x, sizeof b);
    return b;
}

static inline real from_bits(bits b) {
    real x;
    memcpy(&x, &b, sizeof x);
    return x;
}

/* Equal bits; any NaN equals any other, because its sign and payload are free. */
static inline int same(real a, real b) { return to_bits(a) == to_bits(b) || (a != a && b != b); }

/* The constant comes first, so that a NaN passes. */
static inline real min_of(real a, real b) { return a < b ? a : b; }
static inline real max_of(real a, real b) { return a > b ? a : b; }

/* e^y = s + s p for y = -x or 2x: n = y log2 e rounded, f = x less n ln 2 in units of x, s = 2^n. A NaN gives p = NaN and any s. */
static inline void exp_parts(real x, real log2e, real ln2, const real *q, real *s, real *p) {
    const real n = rint(x * log2e), f = fma(n, ln2, x);
    real acc = q[DEGREE];
    for (int j = DEGREE - 1; j >= 0; j--) acc = fma(acc, f, q[j]);
    *p = f * acc;
    *s = from_bits((bits)((n == n ? (int)n : 0) + BIAS) << SIGNIFICAND);
}

static inline real sigma_of(real x) {
    real s, p;
    exp_parts(min_of(SIGMA_LIMIT, max_of(-SIGMA_LIMIT, x)), MINUS_LOG2E, LN2, Q_SIGMA, &s, &p);
    const real t = 1 / (1 + fma(s, p, s));
    return x < -SIGMA_LIMIT ? 0 : t;
}

static inline real tanh_of(real x) {
    const real a = fabs(x);
    real s, p;
    exp_parts(min_of(TANH_LIMIT, a), TWO_LOG2E, MINUS_HALF_LN2, Q_TANH, &s, &p);
    const real m = fma(s, p, s - 1), t = (2 < s ? 1 : 0) + (2 < s ? -2 : m) / (m + 2);
    return copysign(a < TANH_TINY ? 0 : t, x);
}

static inline real relu_of(real x) { return 0 > x ? 0 : x; }

static inline real flush_of(real v) { return fabs(v) < STATE_TINY ? 0 : v; }

/* e^-d for d >= 0; 0 beyond the limit, so it is never denormal. */
static inline real exp_minus_of(real d) {
    real s, p;
    exp_parts(min_of(SIGMA_LIMIT, d), MINUS_LOG2E, LN2, Q_SIGMA, &s, &p);
    return d > SIGMA_LIMIT ? 0 : fma(s, p, s);
}

/* ln x for x >= 1: x = 2^k f with f in (sqrt(1/2), sqrt(2)], u = (f - 1) / (f + 1), ln f = 2u + u^3 q(u^2). */
static inline real log_of(real x) {
    int k;
    real f = 2 * frexp(x, &k);
    if (f > (real)1.4142135623730951) f /= 2;
    else k -= 1;
    const real u = (f - 1) / (f + 1), square = u * u;
    real q = Q_LOG[LOG_DEGREE];
    for (int j = LOG_DEGREE - 1; j >= 0; j--) q = fma(q, square, Q_LOG[j]);
    return fma((real)(x == x ? k : 0), LN2, fma(u * square, q, u + u));
}

/* Of a row of n numbers: e^(x - largest) over its total, or the logarithm of that.  A NaN or +Inf anywhere, or nothing but -Inf, makes the total
 * NaN, and so every result. */
static inline void softmax_of(int log, const real *x, real *y, int n) {
    real top = -INFINITY, lane[VIRTUAL] = {0};
    for (int i = 0; i < n; i++) top = max_of(x[i], top);
    for (int i = 0; i < n; i++) lane[i % VIRTUAL] += exp_minus_of(top - x[i]);
    for (int half = VIRTUAL / 2; half; half /= 2)
        for (int j = 0; j < half; j++) lane[j] += lane[j + half];
    for (int i = 0; i < n; i++) {
        const real part = exp_minus_of(top - x[i]) / *lane;
        y[i] = log ? (x[i] - top) - log_of(*lane) : part < LEAST_NORMAL ? 0 : part;
    }
}

/* One number by name; the functions of a row are not among them. */
static inline real activation_of(const char *name, real x) {
    if (strcmp(name, "tanh") == 0) return tanh_of(x);
    if (strcmp(name, "sigmoid") == 0) return sigma_of(x);
    return strcmp(name, "relu") == 0 ? relu_of(x) : x;
}

/* Any function of an output layer, by name, of one row. */
static inline void activate_row(const char *name, const real *x, real *y, int n) {
    const int log = strcmp(name, "log_softmax") == 0;
    if (log || strcmp(name, "softmax") == 0) {
        softmax_of(log, x, y, n);
        return;
    }
    for (int i = 0; i < n; i++) y[i] = activation_of(name, x[i]);
}

#endif
