/* An output layer's functions of a row, and the layer: out = f(b + W x).  Arithmetic contract, docs/arithmetic.md. */

/* The lanes of a group in halves: 8 and 8, 4 and 4, .. */
INLINE T FN(halves)(T *lanes, int largest)
{
    for (int half = GROUP / 2; half; half /= 2)
        for (int j = 0; j < half; j++) {
            const T a = lanes[j], b = lanes[j + half];
            lanes[j] = !largest ? a + b : a > b ? a : b;
        }
    return lanes[0];
}

/* e^-d for d >= 0, 0 where that is below e^-SIGMA_LIMIT */
INLINE vec FN(exp_minus)(vec d)
{
    vec x = v_min(v_set1(SIGMA_LIMIT), d);
    vec p, s;
    FN(exp_parts)(1, 0, &x, &p, &s);
    return v_select(v_lt(v_set1(SIGMA_LIMIT), d), v_set1((T)0), v_fma(s, p, s));
}

/* ln x for x >= 1: x = 2^k f with f in (sqrt(1/2), sqrt(2)], u = (f - 1) / (f + 1), ln f = 2u + u^3 q(u^2). */
INLINE T FN(log)(T x)
{
    static const T q[] = Q_LOG;
    T k = 0;
    for (; x > LOG_SPLIT && k < 64; k += 1) x *= (T)0.5;
    const T u = (x - 1) / (x + 1), square = u * u;
    T acc = q[LOG_DEGREE];
    for (int j = LOG_DEGREE - 1; j >= 0; j--) acc = FMA(acc, square, q[j]);
    return FMA(k, LN2, FMA(u * square, acc, u + u));
}

/* softmax or log_softmax of a row; or, where the temperature is not 1, softmax of what its numbers lack to the largest, divided by it. */
INLINE void FN(softmax)(const int log, const int divides, T temperature, const T *in, T *out, ptrdiff_t n)
{
    enum { REGISTERS = GROUP / LANES };
    _Alignas(FASTRNN_GROUP_BYTES) T lanes[GROUP];
    vec largest[REGISTERS], sums[REGISTERS];
    for (int r = 0; r < REGISTERS; r++) largest[r] = v_set1(-(T)INFINITY), sums[r] = v_set1((T)0);
    for (ptrdiff_t i = 0; i < n; i += GROUP)
        for (int r = 0; r < REGISTERS && i + r * LANES < n; r++) {
            const ptrdiff_t at = i + r * LANES;
            const int count = n - at < LANES ? (int)(n - at) : LANES;
            largest[r] = v_max(largest[r], FN(load_some)(in + at, count, -(T)INFINITY));
        }
    for (int r = 0; r < REGISTERS; r++) v_store(lanes + r * LANES, largest[r]);
    const vec top = v_set1(FN(halves)(lanes, 1));
    for (ptrdiff_t i = 0; i < n; i += GROUP)
        for (int r = 0; r < REGISTERS && i + r * LANES < n; r++) {
            const ptrdiff_t at = i + r * LANES;
            const int count = n - at < LANES ? (int)(n - at) : LANES;
            const vec below = v_sub(top, FN(load_some)(in + at, count, -(T)INFINITY));
            const vec e = FN(exp_minus)(divides ? v_div(below, v_set1(temperature)) : below);
            sums[r] = v_add(sums[r], e);
            if (!log) FN(store_some)(out + at, e, count);
        }
    for (int r = 0; r < REGISTERS; r++) v_store(lanes + r * LANES, sums[r]);
    const T total = FN(halves)(lanes, 0);
    const vec by = v_set1(log ? FN(log)(total) : total);
    for (ptrdiff_t at = 0; at < n; at += LANES) {
        const int count = n - at < LANES ? (int)(n - at) : LANES;
        const vec given = FN(load_some)((log ? in : out) + at, count, 0), t = log ? v_sub(v_sub(given, top), by) : v_div(given, by);
        FN(store_some)(out + at, log ? t : v_select(v_lt(t, v_set1(LEAST_NORMAL)), v_set1((T)0), t), count);
    }
}

static void FN(activate)(int kind, const void *in, void *out, ptrdiff_t n)
{
    CHECK(FN(check_activate)(kind, in, out, n));
    switch (kind) {
    case FASTRNN_SOFTMAX: FN(softmax)(0, 0, 1, in, out, n); return;
    case FASTRNN_LOG_SOFTMAX: FN(softmax)(1, 0, 1, in, out, n); return;
    }
    for (ptrdiff_t i = 0; i < n; i += LANES) {
        const int count = n - i < LANES ? (int)(n - i) : LANES;
        FN(store_some)((T *)out + i, FN(activation)(kind, FN(load_some)((const T *)in + i, count, 0)), count);
    }
}

static void FN(probabilities)(double temperature, const void *in, void *out, ptrdiff_t n)
{
    CHECK(FN(check_probabilities)(temperature, in, out, n));
    if ((T)temperature == 1) FN(activate)(FASTRNN_SOFTMAX, in, out, n);
    else FN(softmax)(0, 1, (T)temperature, in, out, n);
}

static void FN(dense)(const fastrnn_phase *p, const void *const *x, void *sums, void *const *out, ptrdiff_t rows)
{
    CHECK(FN(check_dense)(sums, out, rows));
    const ptrdiff_t groups = (p->units + GROUP - 1) / GROUP, U = fastrnn_phase_block(FASTRNN_RNN);
    FN(inputs)(FASTRNN_RNN, p, x, sums, groups * GROUP, 0, (groups + U - 1) / U, 0, rows);
    for (ptrdiff_t row = 0; row < rows; row++) FN(activate)(p->activation, (const T *)sums + row * groups * GROUP, out[row], p->units);
}
