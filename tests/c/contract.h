/* The arithmetic contract, version 1, in plain scalar C: what every kernel must reproduce bit for bit.
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
#define SIGMA_LIMIT 1022
#define TANH_LIMIT 64
#define TANH_TINY 0x1p-1021
#define STATE_TINY 0x1p-510
#define MINUS_LOG2E FASTRNN_MINUS_LOG2E_F64
#define TWO_LOG2E FASTRNN_TWO_LOG2E_F64
static const real Q[] = FASTRNN_Q_F64;
#else
typedef float real;
typedef uint32_t bits;
#define SIGNIFICAND 23
#define BIAS 127
#define SIGMA_LIMIT 126
#define TANH_LIMIT 32
#define TANH_TINY 0x1p-125f
#define STATE_TINY 0x1p-62f
#define MINUS_LOG2E FASTRNN_MINUS_LOG2E_F32
#define TWO_LOG2E FASTRNN_TWO_LOG2E_F32
static const real Q[] = FASTRNN_Q_F32;
#endif

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

/* 2^v = s + s p. A NaN gives p = NaN and any s. */
static inline void exp2m1_parts(real v, real *s, real *p) {
    const real n = rint(v), f = v - n;
    real q = Q[sizeof Q / sizeof *Q - 1];
    for (int j = (int)(sizeof Q / sizeof *Q) - 2; j >= 0; j--) q = fma(q, f, Q[j]);
    *p = f * q;
    *s = from_bits((bits)((n == n ? (int)n : 0) + BIAS) << SIGNIFICAND);
}

static inline real sigma_of(real x) {
    const real u = x * MINUS_LOG2E, v = min_of(SIGMA_LIMIT, max_of(-SIGMA_LIMIT, u));
    real s, p;
    exp2m1_parts(v, &s, &p);
    const real t = 1 / (1 + fma(s, p, s));
    return u > SIGMA_LIMIT ? 0 : t;
}

static inline real tanh_of(real x) {
    const real a = fabs(x), v = min_of(TANH_LIMIT, a * TWO_LOG2E);
    real s, p;
    exp2m1_parts(v, &s, &p);
    const real m = fma(s, p, s - 1), t = (2 < s ? 1 : 0) + (2 < s ? -2 : m) / (m + 2);
    return copysign(a < TANH_TINY ? 0 : t, x);
}

static inline real relu_of(real x) { return 0 > x ? 0 : x; }

static inline real flush_of(real v) { return fabs(v) < STATE_TINY ? 0 : v; }

#endif
