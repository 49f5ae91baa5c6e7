/* One row's sums over h, and on the way the projection of inputs that later steps will need.
 *
 * One row reads each weight for a single fma, so the multipliers wait for the cache half of the time.  A tile of inputs needs many fmas a
 * weight.  Side by side they take little longer than the sums over h alone.
 */

/* sums += weights of one column times the inputs of rows r0..r1-1; `x` points at every third row. */
INLINE void FN(ahead_rows)(const int r0, const int r1, const int V, vec sums[][2], const T *const *x, ptrdiff_t stride, const vec *weights)
{
    UNROLL for (int r = r0; r < r1; r++) {
        const vec value = v_set1(x[r / 3][r % 3 * stride]);
        UNROLL for (int v = 0; v < V; v++) sums[r][v] = v_fma(value, weights[v], sums[r][v]);
    }
}

/* `acc` as in accumulate(), for one row and NU groups of a block, one register each.  `b`, `w_x` and `w_h` point at the first of these
 * vectors, which is vector `at` of a row of sums. */
INLINE void FN(accumulate_ahead)(const int phase, const int NU, vec *acc, const T *h, const fastrnn_phase *p, const fastrnn_ahead *ahead,
                                 const T *b, ptrdiff_t at, const T *restrict w_x, const T *restrict w_h, ptrdiff_t w_stride)
{
    const int G = FN(gates)(phase), S = FN(slots)(phase), N = NU * G;
    const int R = FASTRNN_AHEAD, V = N % 2 ? 1 : 2; /* rows and vectors of inputs in registers at a time */
    const int K = R * V / N;                        /* columns of h beside one of x: as many fmas of either kind */
    const ptrdiff_t inputs = p->inputs, stride = ahead->x_stride, out_stride = ahead->out_stride;
    const ptrdiff_t total = inputs * (N / V), share = total / ahead->parts;
    ptrdiff_t left = p->depth, begin = ahead->part * share, end = ahead->part + 1 < ahead->parts ? begin + share : total;
    for (int vector = 0; vector < N; vector += V, begin -= inputs, end -= inputs) {
        const ptrdiff_t first = begin > 0 ? begin : 0, columns = (end < inputs ? end : inputs) - first;
        if (columns <= 0) continue;
        const ptrdiff_t both = left / K < columns ? left / K : columns;
        const T *w = w_x + first * w_stride + vector * GROUP;
        T *out = (T *)ahead->out + at + vector * GROUP;
        const T *from = first ? out : b + vector * GROUP;
        const ptrdiff_t from_stride = first ? out_stride : 0;
        const T *x[FASTRNN_AHEAD / 3];         /* every third row: the two after it are an index away */
        UNROLL for (int r = 0; r < R; r += 3) x[r / 3] = (const T *)ahead->x + r * stride + first;
        vec sums[FASTRNN_AHEAD][2];
        UNROLL for (int r = 0; r < R; r++, from += from_stride)
            UNROLL for (int v = 0; v < V; v++) sums[r][v] = v_load(from + v * GROUP);
        for (ptrdiff_t i = 0; i < columns; i++, w += w_stride) {
            vec weights[2];
            UNROLL for (int v = 0; v < V; v++) weights[v] = v_load(w + v * GROUP);
            if (i < both) {
                UNROLL for (int j = 0; j < K; j++, w_h += w_stride) {
                    const vec value = v_set1(*h++);
                    UNROLL for (int u = 0; u < NU; u++)
                        UNROLL for (int g = 0; g < G; g++) {
                            vec *sum = &acc[u * S + (phase == FASTRNN_GRU && g == 2 ? 3 : g)];
                            *sum = v_fma(value, v_load(w_h + (u * G + g) * GROUP), *sum);
                        }
                    FN(ahead_rows)(j * R / K, (j + 1) * R / K, V, sums, x, stride, weights);
                }
            } else {
                FN(ahead_rows)(0, R, V, sums, x, stride, weights);
            }
            UNROLL for (int r = 0; r < R; r += 3) x[r / 3]++;
        }
        UNROLL for (int r = 0; r < R; r++, out += out_stride)
            UNROLL for (int v = 0; v < V; v++) v_store(out + v * GROUP, sums[r][v]);
        left -= both * K;
    }
    vec rest[1][TILE_VECS];
    UNROLL for (int v = 0; v < NU * S; v++) rest[0][v] = acc[v];
    FN(accumulate)(phase, 1, 1, NU, 1, rest, &h, left, w_h, w_stride);
    UNROLL for (int v = 0; v < NU * S; v++) acc[v] = rest[0][v];
}
