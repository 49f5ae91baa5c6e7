/* sigma, tanh and softmax's e^-d and ln against a wider type; the kernels' sigma and tanh on every tier that runs here against contract.h,
 * bit for bit (test_kernels.c does that for softmax).
 *
 *     check_activations [-k] N
 *
 * float32: every N-th of the 2^32 inputs in ascending order (1 takes them all). float64: N random inputs. Both: all inputs around
 * the edges. -k leaves the kernels out. Prints the worst errors; exit status 1 if a bound of the contract does not hold. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "../../src_kernels/kernels.h"
#include "contract.h"

#ifdef FASTRNN_DOUBLE
typedef long double wide;
#define DTYPE FASTRNN_F64
#define ABSOLUTE 4e-16
#define EXP_ULPS 216 /* ln 2 is one constant, whose error counts n times: 0.3 a unit of d, as in the tail of sigma */
#else
typedef double wide;
#define DTYPE FASTRNN_F32
#define ABSOLUTE 1.5e-7
#define EXP_ULPS 5
#endif
#define ULPS 4
#define LOG_ULPS 2
#define SIGN ((bits)1 << (8 * sizeof(bits) - 1))

#define LOG_MOST 0x1p24 /* a total of more numbers than any row has */

enum { BLOCK = 4096 };

static int failures;
static double sigma_absolute, tanh_absolute, tanh_ulps, sigma_steps_back, tanh_steps_back, exp_absolute, exp_ulps, log_ulps;
static real sigma_absolute_at, tanh_absolute_at, tanh_ulps_at, sigma_steps_back_at, tanh_steps_back_at, exp_absolute_at, exp_ulps_at, log_ulps_at;
static const fastrnn_kernels *tiers[FASTRNN_TIERS];

static void fail(const char *what, real x, real y) {
    if (failures++ < 20) printf("FAILED  %s: x = %a (%.9g), result %a\n", what, (double)x, (double)x, (double)y);
}

static void worst(double *most, real *at, double error, real x) {
    if (error > *most) *most = error, *at = x;
}

/* Ascending order of the reals as order of integers: -NaN, -Inf .. -0, +0 .. Inf, NaN. */
static real nth(bits i) { return from_bits(i & SIGN ? i ^ SIGN : ~i); }
static bits rank_of(real x) { return to_bits(x) & SIGN ? ~to_bits(x) : to_bits(x) ^ SIGN; }

/* Spacing of the reals at |t|, t the exact value. */
static double ulp(wide t) {
    int exponent;
    frexp(t, &exponent);
    return ldexp(1.0, exponent - 1 - SIGNIFICAND);
}

/* How far y lies below the largest result so far, in spacings at that result. A result that is no step back becomes the largest. */
static void check_rise(real *largest, real x, real y, double *most, real *at) {
    if (y < *largest) worst(most, at, (double)((wide)*largest - (wide)y) / ulp((wide)*largest), x);
    else *largest = y;
}

static void check_sigma(real x, real y) {
    if (x != x) {
        if (y == y) fail("sigma(NaN) is not NaN", x, y);
        return;
    }
    const wide exact = 1 / (1 + exp(-(wide)x));
    worst(&sigma_absolute, &sigma_absolute_at, (double)fabs(y - exact), x);
    if (!(y >= 0 && y <= 1) || signbit(y)) fail("sigma outside [0, 1]", x, y);
    if (y != 0 && fabs(y) < LEAST_NORMAL) fail("sigma is denormal", x, y);
    if (x == INFINITY && y != 1) fail("sigma(Inf) is not 1", x, y);
    if (x == -INFINITY && to_bits(y) != 0) fail("sigma(-Inf) is not +0", x, y);
}

/* x >= 0 or NaN; `mirrored` is tanh(-x). */
static void check_tanh(real x, real y, real mirrored) {
    if (x != x) {
        if (y == y || mirrored == mirrored) fail("tanh(NaN) is not NaN", x, y);
        return;
    }
    if (to_bits(mirrored) != (to_bits(y) ^ SIGN)) fail("tanh is not odd", x, mirrored);
    const wide exact = tanh((wide)x);
    const double error = (double)fabs(y - exact);
    worst(&tanh_absolute, &tanh_absolute_at, error, x);
    if (x >= TANH_TINY) worst(&tanh_ulps, &tanh_ulps_at, error / ulp(exact), x);
    else if (to_bits(y) != 0) fail("tanh of a tiny number is not 0", x, y);
    if (!(y >= 0 && y <= 1)) fail("tanh outside [-1, 1]", x, y);
    if (y != 0 && y < LEAST_NORMAL) fail("tanh is denormal", x, y);
    if (x == INFINITY && y != 1) fail("tanh(Inf) is not 1", x, y);
}

/* d >= 0 or NaN */
static void check_exp_minus(real d, real y) {
    if (d != d) {
        if (y == y) fail("e^-NaN is not NaN", d, y);
        return;
    }
    if (d > SIGMA_LIMIT) {
        if (to_bits(y) != 0) fail("e^-d beyond the limit is not +0", d, y);
        return;
    }
    const wide exact = exp(-(wide)d);
    const double error = (double)fabs(y - exact);
    worst(&exp_absolute, &exp_absolute_at, error, d);
    worst(&exp_ulps, &exp_ulps_at, error / ulp(exact), d);
    if (!(y >= LEAST_NORMAL && y <= 1)) fail("e^-d outside the normal numbers up to 1", d, y);
    if (d == 0 && y != 1) fail("e^-0 is not 1", d, y);
}

/* x in [1, LOG_MOST] */
static void check_log(real x, real y) {
    const wide exact = log((wide)x);
    if (x == 1 && to_bits(y) != 0) fail("ln 1 is not +0", x, y);
    if (x > 1) worst(&log_ulps, &log_ulps_at, (double)fabs(y - exact) / ulp(exact), x);
}

static void check_kernels(int activation, const real *x, const real *expected, int n) {
    real y[BLOCK];
    for (int tier = 0; tier < FASTRNN_TIERS; tier++) {
        if (!tiers[tier]) continue;
        tiers[tier]->activate(activation, x, y, n);
        for (int i = 0; i < n; i++)
            if (!same(y[i], expected[i])) fail(fastrnn_tier_name(tier), x[i], y[i]);
    }
}

/* n inputs in ascending order. What was the largest result carries on from block to block while `sigma_top` and `tanh_top` do. */
static void check(const real *x, int n, real *sigma_top, real *tanh_top) {
    real s[BLOCK] = {0}, t[BLOCK] = {0}, minus_x[BLOCK], mirrored[BLOCK];
    for (int i = 0; i < n; i++) s[i] = sigma_of(x[i]);
    for (int i = 0; i < n; i++) t[i] = tanh_of(x[i]);
    check_kernels(FASTRNN_SIGMOID, x, s, n);
    check_kernels(FASTRNN_TANH, x, t, n);
    for (int i = 0; i < n; i++) {
        check_sigma(x[i], s[i]);
        check_rise(sigma_top, x[i], s[i], &sigma_steps_back, &sigma_steps_back_at);
        check_rise(tanh_top, x[i], t[i], &tanh_steps_back, &tanh_steps_back_at);
    }
    if (signbit(x[n - 1])) return; /* the negative half is the mirror of the other, which is checked to the bit */
    for (int i = 0; i < n; i++) minus_x[i] = -x[i];
    for (int i = 0; i < n; i++) mirrored[i] = tanh_of(minus_x[i]);
    for (int i = 0; i < n; i++)
        if (!signbit(x[i])) check_tanh(x[i], t[i], mirrored[i]);
    for (int i = 0; i < n; i++) s[i] = exp_minus_of(x[i]);
    for (int i = 0; i < n; i++)
        if (!signbit(x[i])) check_exp_minus(x[i], s[i]);
    for (int i = 0; i < n; i++)
        if (x[i] >= 1 && x[i] <= LOG_MOST) check_log(x[i], log_of(x[i]));
}

/* A block of neighbours on either side of every number at which a branch, a clamp or a range of exponents changes. */
static void check_edges(void) {
    const real log2e = -MINUS_LOG2E;
    real edges[] = {0, from_bits(1), LEAST_NORMAL, TANH_TINY, 1, sqrt(2), 2, SIGMA_LIMIT, TANH_LIMIT, INFINITY, 0.25f / log2e,
                    0.5f / log2e, 0.75f / log2e, SIGNIFICAND / log2e, SIGNIFICAND / TWO_LOG2E};
    real x[BLOCK];
    for (unsigned e = 0; e < 2 * sizeof edges / sizeof *edges; e++) {
        const bits middle = rank_of(e % 2 ? -edges[e / 2] : edges[e / 2]);
        real sigma_top = 0, tanh_top = -1;
        for (int i = 0; i < BLOCK; i++) x[i] = nth(middle - BLOCK / 2 + (bits)i);
        check(x, BLOCK, &sigma_top, &tanh_top);
    }
}

#ifdef FASTRNN_DOUBLE
static uint64_t random_state = 1;

/* splitmix64 */
static uint64_t draw(void) {
    uint64_t z = random_state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* Runs of 64 inputs with equal steps from one bit to a few binades, so that order is checked at every scale. Half of the runs start
 * at any exponent, half where the functions are neither linear nor flat. */
static void check_all(uint64_t count) {
    for (uint64_t done = 0; done < count; done += BLOCK) {
        real x[BLOCK];
        for (int i = 0; i < BLOCK; i += 64) {
            const uint64_t r = draw();
            bits rank = r % 2 ? draw() : rank_of(ldexp((double)(int64_t)draw(), -63 + (int)(r >> 8) % 7));
            const bits step = (bits)1 << (r >> 16) % 50;
            for (int j = 0; j < 64; j++, rank += step) x[i + j] = nth(rank);
        }
        for (int i = 0; i < BLOCK; i += 64) {
            real sigma_top = 0, tanh_top = -1;
            check(x + i, 64, &sigma_top, &tanh_top);
        }
    }
}
#else
static void check_all(uint64_t stride) {
    real sigma_top = 0, tanh_top = -1, x[BLOCK];
    for (uint64_t i = 0; i < (uint64_t)1 << 32;) {
        int n = 0;
        for (; n < BLOCK && i < (uint64_t)1 << 32; i += stride) x[n++] = nth((bits)i);
        check(x, n, &sigma_top, &tanh_top);
    }
}
#endif

int main(int argc, char **argv) {
    const int with_kernels = !(argc > 2 && strcmp(argv[1], "-k") == 0);
    const long long count = argc > 1 ? atoll(argv[argc - 1]) : 0;
    if (count < 1) return fprintf(stderr, "usage: check_activations [-k] N\n"), 2;
    printf("%s, kernels:", DTYPE == FASTRNN_F32 ? "float32" : "float64");
    for (int tier = 0; with_kernels && tier < FASTRNN_TIERS; tier++) {
        tiers[tier] = fastrnn_get_kernels(tier, DTYPE);
        if (tiers[tier]) printf(" %s", fastrnn_tier_name(tier));
    }
    printf("\n");
    check_edges();
    check_all((uint64_t)count);
    printf("sigma  absolute error %.3g at %a\n", sigma_absolute, (double)sigma_absolute_at);
    printf("sigma  steps back     %.3g ulp at %a\n", sigma_steps_back, (double)sigma_steps_back_at);
    printf("tanh   absolute error %.3g at %a\n", tanh_absolute, (double)tanh_absolute_at);
    printf("tanh   ulps           %.3g at %a\n", tanh_ulps, (double)tanh_ulps_at);
    printf("tanh   steps back     %.3g ulp at %a\n", tanh_steps_back, (double)tanh_steps_back_at);
    printf("e^-d   absolute error %.3g at %a\n", exp_absolute, (double)exp_absolute_at);
    printf("e^-d   ulps           %.3g at %a\n", exp_ulps, (double)exp_ulps_at);
    printf("ln     ulps           %.3g at %a\n", log_ulps, (double)log_ulps_at);
    if (sigma_absolute > ABSOLUTE) fail("sigma's absolute error", sigma_absolute_at, sigma_of(sigma_absolute_at));
    if (tanh_absolute > ABSOLUTE) fail("tanh's absolute error", tanh_absolute_at, tanh_of(tanh_absolute_at));
    if (tanh_ulps > ULPS) fail("tanh's error in ulps", tanh_ulps_at, tanh_of(tanh_ulps_at));
    if (exp_absolute > ABSOLUTE) fail("the absolute error of e^-d", exp_absolute_at, exp_minus_of(exp_absolute_at));
    if (exp_ulps > EXP_ULPS) fail("the error of e^-d in ulps", exp_ulps_at, exp_minus_of(exp_ulps_at));
    if (log_ulps > LOG_ULPS) fail("the error of ln in ulps", log_ulps_at, log_of(log_ulps_at));
    if (sigma_steps_back > 1) fail("sigma is not monotone", sigma_steps_back_at, sigma_of(sigma_steps_back_at));
    if (tanh_steps_back > 1) fail("tanh is not monotone", tanh_steps_back_at, tanh_of(tanh_steps_back_at));
    printf("%d failures\n", failures);
    return failures > 0;
}
