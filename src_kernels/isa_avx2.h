/* AVX2 with FMA: two registers a group. */
#if FASTRNN_BITS == 32
#define T float
#define vec __m256
#define I_(op) _mm256_##op##_ps
#define SIGN_BIT _mm256_castsi256_ps(_mm256_set1_epi32((int)0x80000000))
/* n + (1.5 * 2^23 + 127) leaves n + 127 in the low bits; shifted up they are the exponent of 2^n. */
#define v_pow2(n) _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(v_add(n, v_set1(12582912.0f + 127.0f))), 23))
#else
#define T double
#define vec __m256d
#define I_(op) _mm256_##op##_pd
#define SIGN_BIT _mm256_castsi256_pd(_mm256_set1_epi64x((long long)0x8000000000000000))
#define v_pow2(n) _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(v_add(n, v_set1(6755399441055744.0 + 1023.0))), 52))
#endif

#define MASK vec
#define LANES ((int)(32 / sizeof(T)))
#define ALL_REGISTERS 16
#define MAX_ROWS 3            /* 3 rows x 4 vectors of sums, 1 of weights, 3 broadcasts: 16 registers */
#define ONE_ROW_VECS 8        /* one row: both halves of a group together, 8 chains of fma */
#define AHEAD 0

#define v_load(p) I_(loadu)(p)
#define v_store(p, a) I_(storeu)(p, a)
#define v_hold(a) __asm__("" : "+x"(a)) /* in a register: gcc would load it again for every row */
#define v_set1(x) I_(set1)(x)
#define v_fma(a, b, c) I_(fmadd)(a, b, c)
#define v_fnma(a, b, c) I_(fnmadd)(a, b, c)
#define v_add(a, b) I_(add)(a, b)
#define v_sub(a, b) I_(sub)(a, b)
#define v_mul(a, b) I_(mul)(a, b)
#define v_div(a, b) I_(div)(a, b)
#define v_min(a, b) I_(min)(a, b)
#define v_max(a, b) I_(max)(a, b)
#define v_lt(a, b) I_(cmp)(a, b, _CMP_LT_OQ)
#define v_select(m, a, b) I_(blendv)(b, a, m)
#define v_abs(a) I_(andnot)(SIGN_BIT, a)
#define v_copysign(magnitude, sign) I_(or)(I_(andnot)(SIGN_BIT, magnitude), I_(and)(SIGN_BIT, sign))
#define v_rint(a) I_(round)(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
