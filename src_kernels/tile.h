/* The register tile: sums of M rows by NU groups by G gates by NS registers, and the loads and stores around it.
 *
 * M, NU, NS and the phase are constants where these functions are inlined, so that `acc` is registers and every inner loop is gone.
 */

/* The first `count` elements, then `fill`. */
INLINE vec FN(load_some)(const T *p, int count, T fill)
{
    if (count == LANES) return v_load(p);
#ifdef v_load_first
    return v_load_first(p, count, v_set1(fill));
#else
    T lanes[LANES];
    for (int j = 0; j < LANES; j++) lanes[j] = fill;
    memcpy(lanes, p, (size_t)count * sizeof(T));
    return v_load(lanes);
#endif
}

INLINE void FN(store_some)(T *p, vec a, int count)
{
    if (count == LANES) { v_store(p, a); return; }
#ifdef v_store_first
    v_store_first(p, count, a);
#else
    T lanes[LANES];
    v_store(lanes, a);
    memcpy(p, lanes, (size_t)count * sizeof(T));
#endif
}

/* A block's column some lines on, for weights that come from the last cache, or from memory where several rows keep the processor from looking far
 * ahead.  Its own prefetcher does not always keep up with those: README.md has figures. */
INLINE void FN(fetch)(const int M, const int NU, const int G, const T *w, ptrdiff_t w_group)
{
    const int distance = M == 1 ? 1 << 10 : 1 << 14;
    UNROLL for (int v = 0; v < NU * G; v++) __builtin_prefetch((const char *)(w + v / G * w_group + v % G * GROUP) + distance);
}

/* acc += column k of W times a[k], for all rows. */
INLINE void FN(column)(const int M, const int NU, const int G, const int NS, vec acc[][TILE_VECS], const T *const *row, ptrdiff_t k, const T *w, ptrdiff_t w_group)
{
    vec weights[TILE_VECS];
    UNROLL for (int v = 0; v < NU * G; v++)
        UNROLL for (int s = 0; s < NS; s++) weights[v * NS + s] = v_load(w + v / G * w_group + v % G * GROUP + s * LANES);
#ifdef v_hold
    if (M > 1 && NU * G * NS * (M + 1) < ALL_REGISTERS) UNROLL for (int v = 0; v < NU * G * NS; v++) v_hold(weights[v]);
#endif
    UNROLL for (int m = 0; m < M; m++) {
        const vec value = v_set1(row[m][k]);
        UNROLL for (int v = 0; v < NU * G * NS; v++) acc[m][v] = v_fma(value, weights[v], acc[m][v]);
    }
}

/* acc = from + W a in runs of FASTRNN_RUN columns, the contract's order: each run is one chain of fma from +0, then added.  All but the last are
 * added to in `sums`.  `from`, `sums` and `w` point at a row's first unit group and register of the tile, and have the order of packed columns,
 * [NU][G][GROUP], but that the groups of w are `w_group` elements apart.  With `split` the last gate starts from `apart` instead: b_hn. */
INLINE void FN(accumulate)(const int M, const int NU, const int G, const int NS, const int split, const int far, vec acc[][TILE_VECS], T *sums, ptrdiff_t sums_stride,
                           const T *from, ptrdiff_t from_stride, const T *apart, const T *const *a, ptrdiff_t depth, const T *restrict w, ptrdiff_t w_stride, ptrdiff_t w_group)
{
    ptrdiff_t done = 0, apart_row = 0, apart_group = GROUP; /* elements of `apart` from row to row and from group to group */
#define JOINED(m, u, g, s) v_add(v_load((split && g == G - 1 ? apart + m * apart_row + u * apart_group : from + m * from_stride + (u * G + g) * GROUP) \
                                        + s * LANES), acc[m][(u * G + g) * NS + s])
    for (;;) {
        const ptrdiff_t columns = depth < FASTRNN_RUN ? depth : FASTRNN_RUN;
        depth -= columns;
        const T *row[MAX_ROWS];
        UNROLL for (int m = 0; m < M; m++) row[m] = a[m] + done;
        UNROLL for (int m = 0; m < M; m++)
            UNROLL for (int v = 0; v < NU * G * NS; v++) acc[m][v] = v_set1((T)0);
        /* What the loop does not need waits in memory: left to itself, gcc puts the rows there instead. */
        if (M > 1) __asm__ volatile("" : "+m"(a), "+m"(done), "+m"(depth), "+m"(sums), "+m"(from), "+m"(from_stride));
        if (M > 1 && split) __asm__ volatile("" : "+m"(apart), "+m"(apart_row), "+m"(apart_group));
        if (far)
            for (ptrdiff_t k = 0; k < columns; k++, w += w_stride) {
                FN(fetch)(M, NU, G, w, w_group);
                FN(column)(M, NU, G, NS, acc, row, k, w, w_group);
            }
        else
            for (ptrdiff_t k = 0; k < columns; k++, w += w_stride) FN(column)(M, NU, G, NS, acc, row, k, w, w_group);
        if (!depth) break;
        done += FASTRNN_RUN;
        UNROLL for (int m = 0; m < M; m++)
            UNROLL for (int u = 0; u < NU; u++)
                UNROLL for (int g = 0; g < G; g++)
                    UNROLL for (int s = 0; s < NS; s++) v_store(sums + m * sums_stride + (u * G + g) * GROUP + s * LANES, JOINED(m, u, g, s));
        from = sums, from_stride = sums_stride;
        if (split) apart = sums + (G - 1) * GROUP, apart_row = sums_stride, apart_group = G * GROUP;
    }
    UNROLL for (int m = 0; m < M; m++)
        UNROLL for (int u = 0; u < NU; u++)
            UNROLL for (int g = 0; g < G; g++)
                UNROLL for (int s = 0; s < NS; s++) acc[m][(u * G + g) * NS + s] = JOINED(m, u, g, s);
#undef JOINED
}
