/* Any processor: a vector is one number, fma() comes from the C library (exact; slow where the hardware has none). */
#if FASTRNN_BITS == 32
#define T float
#define I_(op) op##f
#define v_pow2(n) generic_pow2f(n)
#else
#define T double
#define I_(op) op
#define v_pow2(n) generic_pow2(n)
#endif

#define vec T
#define MASK int
#define LANES 1
#define MAX_ROWS 2
#define ONE_ROW_VECS 8
#define AHEAD 0

#define v_load(p) (*(p))
#define v_store(p, a) ((void)(*(p) = (a)))
#define v_set1(x) (x)
#define v_fma(a, b, c) I_(fma)(a, b, c)
#define v_fnma(a, b, c) I_(fma)(-(a), b, c)
#define v_add(a, b) ((a) + (b))
#define v_sub(a, b) ((a) - (b))
#define v_mul(a, b) ((a) * (b))
#define v_div(a, b) ((a) / (b))
#define v_lt(a, b) ((a) < (b))
#define v_select(m, a, b) ((m) ? (a) : (b))
#define v_min(a, b) I_(generic_min)(a, b)
#define v_max(a, b) I_(generic_max)(a, b)
#define v_abs(a) I_(fabs)(a)
#define v_copysign(magnitude, sign) I_(copysign)(magnitude, sign)
#define v_rint(a) I_(rint)(a)
