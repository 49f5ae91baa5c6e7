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
static const real Q_SIGMA[] = FASTRNN_Q_SIGMA_F64, Q_TANH[] = FASTRNN_Q_TANH_F64;
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
static const real Q_SIGMA[] = FASTRNN_Q_SIGMA_F32, Q_TANH[] = FASTRNN_Q_TANH_F32;
#endif

enum { DEGREE = sizeof Q_TANH / sizeof *Q_TANH - 1 };

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

#endif
