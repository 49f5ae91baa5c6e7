/* sigma and tanh: fixed sequences of fma, add, mul, div, select and exact powers of two, the same in numba_kernels/activations.py.
 *
 * Both start from e^y = s (1 + p), y = -x or 2x: n = rint(y log2 e), s = 2^n, f = x less n ln 2 in units of x, p = f q(f).  A small x is f
 * itself, not rounded once more; that and the exact first coefficient of q keep tanh within 4 ulp there.  Clamps put the constant first, so
 * NaN passes, and keep every 2^n normal.  Coefficients: coefficients.py; errors: tests/c/check_activations.c.
 */
INLINE void FN(exp_parts)(vec x, T log2e, T ln2, const T *q, vec *p, vec *s)
{
    const vec n = v_rint(v_mul(x, v_set1(log2e))), f = v_fma(n, v_set1(ln2), x);
    vec acc = v_set1(q[Q_DEGREE]);
    UNROLL for (int j = Q_DEGREE - 1; j >= 0; j--) acc = v_fma(acc, f, v_set1(q[j]));
    *p = v_mul(f, acc);
    *s = v_pow2(n);
}

/* 1 / (1 + e^-x) */
INLINE vec FN(sigma)(vec x)
{
    static const T q[] = Q_SIGMA;
    vec p, s;
    FN(exp_parts)(v_min(v_set1(SIGMA_LIMIT), v_max(v_set1(-SIGMA_LIMIT), x)), MINUS_LOG2E, LN2, q, &p, &s);
    const vec e = v_fma(s, p, s);
    const vec t = v_div(v_set1((T)1), v_add(v_set1((T)1), e));
    return v_select(v_lt(x, v_set1(-SIGMA_LIMIT)), v_set1((T)0), t);   /* there t would be denormal */
}

/* (e^2x - 1) / (e^2x + 1), from |x| so that it is odd to the bit */
INLINE vec FN(tanh)(vec x)
{
    static const T q[] = Q_TANH;
    const vec a = v_abs(x);
    vec p, s;
    FN(exp_parts)(v_min(v_set1(TANH_LIMIT), a), TWO_LOG2E, MINUS_HALF_LN2, q, &p, &s);
    const vec m = v_fma(s, p, v_sub(s, v_set1((T)1)));
    /* m / (m + 2) while that is small; above, 1 - 2 / (m + 2), since the rounding of a large m + 2 makes the quotient step back */
    const MASK large = v_lt(v_set1((T)2), s);
    const vec quotient = v_div(v_select(large, v_set1((T)-2), m), v_add(m, v_set1((T)2)));
    const vec t = v_add(v_select(large, v_set1((T)1), v_set1((T)0)), quotient);
    return v_copysign(v_select(v_lt(a, v_set1(TANH_TINY)), v_set1((T)0), t), x);
}

INLINE vec FN(activation)(int kind, vec x)
{
    switch (kind) {
    case FASTRNN_TANH: return FN(tanh)(x);
    case FASTRNN_RELU: return v_max(v_set1((T)0), x);
    case FASTRNN_SIGMOID: return FN(sigma)(x);
    default: return x;
    }
}
