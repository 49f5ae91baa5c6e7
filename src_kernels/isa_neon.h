/* AArch64: four registers a group. */
#if FASTRNN_BITS == 32
#define T float
#define vec float32x4_t
#define MASK uint32x4_t
#define I_(op) op##_f32
#define SIGN_BIT vdupq_n_u32(0x80000000u)
#define v_pow2(n) vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(v_add(n, v_set1(12582912.0f + 127.0f))), 23))
#else
#define T double
#define vec float64x2_t
#define MASK uint64x2_t
#define I_(op) op##_f64
#define SIGN_BIT vdupq_n_u64(0x8000000000000000u)
#define v_pow2(n) vreinterpretq_f64_u64(vshlq_n_u64(vreinterpretq_u64_f64(v_add(n, v_set1(6755399441055744.0 + 1023.0))), 52))
#endif

#define LANES ((int)(16 / sizeof(T)))
#define MAX_ROWS 6            /* 6 rows x 4 vectors of sums, 4 of weights, 1 broadcast: 29 of 32 registers */
#define ONE_ROW_VECS 16       /* one row: a whole group of four gates */
#define AHEAD 0

#define v_load(p) I_(vld1q)(p)
#define v_store(p, a) I_(vst1q)(p, a)
#define v_set1(x) I_(vdupq_n)(x)
#define v_fma(a, b, c) I_(vfmaq)(c, a, b)
#define v_fnma(a, b, c) I_(vfmsq)(c, a, b)
#define v_add(a, b) I_(vaddq)(a, b)
#define v_sub(a, b) I_(vsubq)(a, b)
#define v_mul(a, b) I_(vmulq)(a, b)
#define v_div(a, b) I_(vdivq)(a, b)
#define v_lt(a, b) I_(vcltq)(a, b)
#define v_select(m, a, b) I_(vbslq)(m, a, b)
/* not vminq: it returns NaN where either operand is NaN, the contract returns the second */
#define v_min(a, b) v_select(v_lt(a, b), a, b)
#define v_max(a, b) v_select(v_lt(b, a), a, b)
#define v_abs(a) I_(vabsq)(a)
#define v_copysign(magnitude, sign) I_(vbslq)(SIGN_BIT, sign, magnitude)
#define v_rint(a) I_(vrndnq)(a)
