/* sigma and tanh: fixed sequences of fma, add, mul, div, select and exact powers of two, the same in numba_kernels/activations.py.
 *
 * Both start from 2^v = s (1 + p) with v = n + f, n = rint(v), s = 2^n, p = 2^f - 1 = f q(f).  Clamps put the constant first, so NaN passes,
 * and keep every 2^n normal.  Coefficients and their errors: coefficients.py.
 */
INLINE void FN(exp2m1)(vec v, vec *p, vec *s)
{
    static const T q[] = Q_COEFFICIENTS;
    const vec n = v_rint(v), f = v_sub(v, n);
    vec acc = v_set1(q[Q_DEGREE]);
    UNROLL for (int j = Q_DEGREE - 1; j >= 0; j--) acc = v_fma(acc, f, v_set1(q[j]));
    *p = v_mul(f, acc);
    *s = v_pow2(n);
}

/* 1 / (1 + e^-x) */
INLINE vec FN(sigma)(vec x)
{
    const vec limit = v_set1(EXPONENT_LIMIT), u = v_mul(x, v_set1(MINUS_LOG2E));
    vec p, s;
    FN(exp2m1)(v_min(limit, v_max(v_set1(-EXPONENT_LIMIT), u)), &p, &s);
    const vec e = v_fma(s, p, s);
    const vec t = v_div(v_set1((T)1), v_add(v_set1((T)1), e));
    return v_select(v_lt(limit, u), v_set1((T)0), t);   /* 2^-limit is the least normal number; below it the result would be denormal */
}

/* (e^2x - 1) / (e^2x + 1), from |x| so that it is odd to the bit */
INLINE vec FN(tanh)(vec x)
{
    const vec a = v_abs(x);
    vec p, s;
    FN(exp2m1)(v_min(v_set1(TANH_LIMIT), v_mul(a, v_set1(TWO_LOG2E))), &p, &s);
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

static void FN(activate)(int kind, const void *in, void *out, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i += LANES) {
        const int count = n - i < LANES ? (int)(n - i) : LANES;
        FN(store_some)((T *)out + i, FN(activation)(kind, FN(load_some)((const T *)in + i, count)), count);
    }
}
