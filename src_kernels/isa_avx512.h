/* AVX-512: one register is one 64-byte group. */
#if FASTRNN_BITS == 32
#define T float
#define vec __m512
#define I_(op) _mm512_##op##_ps
#define MASK __mmask16
#define v_lt(a, b) _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ)
/* Four numbers of four rows, `stride` elements apart, become four rows `to_stride` apart of four numbers. */
#define v_turn(from, stride, to, to_stride) do { \
        __m128 a_ = _mm_loadu_ps(from), b_ = _mm_loadu_ps((from) + (stride)), c_ = _mm_loadu_ps((from) + 2 * (stride)), d_ = _mm_loadu_ps((from) + 3 * (stride)); \
        _MM_TRANSPOSE4_PS(a_, b_, c_, d_); \
        _mm_storeu_ps(to, a_), _mm_storeu_ps((to) + (to_stride), b_), _mm_storeu_ps((to) + 2 * (to_stride), c_), _mm_storeu_ps((to) + 3 * (to_stride), d_); \
    } while (0)
#define v_copysign(magnitude, sign) _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_set1_epi32((int)0x80000000), \
        _mm512_castps_si512(sign), _mm512_castps_si512(magnitude), 0xCA))
#define v_abs(a) _mm512_castsi512_ps(_mm512_and_epi32(_mm512_castps_si512(a), _mm512_set1_epi32(0x7fffffff)))
#else
#define T double
#define vec __m512d
#define I_(op) _mm512_##op##_pd
#define MASK __mmask8
#define v_lt(a, b) _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ)
#define v_turn(from, stride, to, to_stride) do { \
        __m256d a_ = _mm256_loadu_pd(from), b_ = _mm256_loadu_pd((from) + (stride)), c_ = _mm256_loadu_pd((from) + 2 * (stride)), d_ = _mm256_loadu_pd((from) + 3 * (stride)); \
        __m256d ab_ = _mm256_unpacklo_pd(a_, b_), cd_ = _mm256_unpacklo_pd(c_, d_); \
        a_ = _mm256_unpackhi_pd(a_, b_), c_ = _mm256_unpackhi_pd(c_, d_); \
        _mm256_storeu_pd(to, _mm256_permute2f128_pd(ab_, cd_, 0x20)), _mm256_storeu_pd((to) + (to_stride), _mm256_permute2f128_pd(a_, c_, 0x20)); \
        _mm256_storeu_pd((to) + 2 * (to_stride), _mm256_permute2f128_pd(ab_, cd_, 0x31)), _mm256_storeu_pd((to) + 3 * (to_stride), _mm256_permute2f128_pd(a_, c_, 0x31)); \
    } while (0)
#define v_copysign(magnitude, sign) _mm512_castsi512_pd(_mm512_ternarylogic_epi64(_mm512_set1_epi64((long long)0x8000000000000000), \
        _mm512_castpd_si512(sign), _mm512_castpd_si512(magnitude), 0xCA))
#define v_abs(a) _mm512_castsi512_pd(_mm512_and_epi64(_mm512_castpd_si512(a), _mm512_set1_epi64(0x7fffffffffffffff)))
#endif

#define LANES ((int)(64 / sizeof(T)))
#define ALL_REGISTERS 32
#define MAX_ROWS 6            /* 6 rows x 4 vectors of sums, 4 of weights, 1 broadcast: 29 of 32 registers */
#define ONE_ROW_VECS 12       /* one row: the GRU takes two groups, 6 chains of fma, the LSTM of few units up to three blocks, 12 */
#define AHEAD 1                /* beside the 4 or 6 sums of one row there is room for 12 rows x 2 vectors of inputs */

#define v_load(p) I_(loadu)(p)
#define v_store(p, a) I_(storeu)(p, a)
#define v_load_first(p, n, rest) I_(mask_loadu)(rest, (MASK)((1u << (n)) - 1), p)
#define v_store_first(p, n, a) I_(mask_storeu)(p, (MASK)((1u << (n)) - 1), a)
#define v_hold(a) __asm__("" : "+v"(a)) /* in a register: gcc would load it again for every row */
#define v_set1(x) I_(set1)(x)
#define v_fma(a, b, c) I_(fmadd)(a, b, c)
#define v_fnma(a, b, c) I_(fnmadd)(a, b, c)
#define v_add(a, b) I_(add)(a, b)
#define v_sub(a, b) I_(sub)(a, b)
#define v_mul(a, b) I_(mul)(a, b)
#define v_div(a, b) I_(div)(a, b)
#define v_min(a, b) I_(min)(a, b)
#define v_max(a, b) I_(max)(a, b)
#define v_select(m, a, b) I_(mask_blend)(m, b, a)
#define v_rint(a) I_(roundscale)(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define v_pow2(n) I_(scalef)(v_set1((T)1), n)
