/* sigma and tanh: fixed sequences of fma, add, mul, div, select and exact powers of two, the same in numba_kernels/activations.py.
 *
 * Both start from e^y = s (1 + p), y = -x or 2x: n = rint(y log2 e), s = 2^n, f = x less n ln 2 in units of x, p = f q(f).  A small x is f
 * itself, not rounded once more; that and the exact first coefficient of q keep tanh within 4 ulp there.  Clamps put the constant first, so
 * NaN passes, and keep every 2^n normal.  Coefficients: coefficients.py; errors: tests/c/check_activations.c.
 *
 * They are made of N registers x[v] at once, tanh where bit v of `tanhs` is set, operation by operation: one register after the other, the chain of the
 * first fills the processor's schedulers before they see the next one (README.md).
 */
#define EACH UNROLL for (int v = 0; v < N; v++)
#define IS_TANH(v) (tanhs >> (v) & 1)
#define EITHER(of_tanh, of_sigma) v_set1((T)(IS_TANH(v) ? (of_tanh) : (of_sigma)))

INLINE void FN(exp_parts)(const int N, const unsigned tanhs, vec *x, vec *p, vec *s)
{
    static const T q_tanh[] = Q_TANH, q_sigma[] = Q_SIGMA;
    vec n[MOST_VECS], f[MOST_VECS];
    EACH n[v] = v_mul(x[v], EITHER(TWO_LOG2E, MINUS_LOG2E));
    EACH n[v] = v_rint(n[v]);
    EACH f[v] = v_fma(n[v], EITHER(MINUS_HALF_LN2, LN2), x[v]);
    EACH s[v] = v_pow2(n[v]);
    EACH p[v] = EITHER(q_tanh[Q_DEGREE], q_sigma[Q_DEGREE]);
    UNROLL for (int j = Q_DEGREE - 1; j >= 0; j--) EACH p[v] = v_fma(p[v], f[v], EITHER(q_tanh[j], q_sigma[j]));
    EACH p[v] = v_mul(f[v], p[v]);
}

/* 1 / (1 + e^-x); or (e^2x - 1) / (e^2x + 1), from |x| so that it is odd to the bit: with m = e^2x - 1, m / (m + 2) while that is small; above,
 * 1 - 2 / (m + 2), since the rounding of a large m + 2 makes the quotient step back. */
INLINE void FN(squash)(const int N, const unsigned tanhs, vec *x)
{
    vec size[MOST_VECS], p[MOST_VECS], s[MOST_VECS], e[MOST_VECS], t[MOST_VECS];
    MASK large[MOST_VECS];
    EACH size[v] = IS_TANH(v) ? v_abs(x[v]) : x[v];
    EACH e[v] = v_min(EITHER(TANH_LIMIT, SIGMA_LIMIT), IS_TANH(v) ? size[v] : v_max(v_set1(-SIGMA_LIMIT), x[v]));
    FN(exp_parts)(N, tanhs, e, p, s);
    EACH e[v] = v_fma(s[v], p[v], IS_TANH(v) ? v_sub(s[v], v_set1((T)1)) : s[v]);
    EACH if (IS_TANH(v)) large[v] = v_lt(v_set1((T)2), s[v]);
    EACH t[v] = IS_TANH(v) ? v_select(large[v], v_set1((T)-2), e[v]) : v_set1((T)1);
    EACH e[v] = v_add(EITHER(2, 1), e[v]);
    EACH t[v] = v_div(t[v], e[v]);
    EACH if (IS_TANH(v)) t[v] = v_add(v_select(large[v], v_set1((T)1), v_set1((T)0)), t[v]);
    /* below these, t would be denormal */
    EACH t[v] = v_select(v_lt(size[v], EITHER(TANH_TINY, -SIGMA_LIMIT)), v_set1((T)0), t[v]);
    EACH x[v] = IS_TANH(v) ? v_copysign(t[v], x[v]) : t[v];
}
#undef IS_TANH
#undef EITHER

INLINE vec FN(sigma)(vec x) { FN(squash)(1, 0, &x); return x; }
INLINE vec FN(tanh)(vec x) { FN(squash)(1, 1, &x); return x; }

INLINE vec FN(activation)(int kind, vec x)
{
    switch (kind) {
    case FASTRNN_TANH: return FN(tanh)(x);
    case FASTRNN_RELU: return v_max(v_set1((T)0), x);
    case FASTRNN_SIGMOID: return FN(sigma)(x);
    default: return x;
    }
}
