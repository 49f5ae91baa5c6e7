/* The register tile: sums of M rows by NU groups by G gates by NS registers, and the loads and stores around it.
 *
 * M, NU, NS and the phase are constants where these functions are inlined, so that `acc` is registers and every inner loop is gone.
 */

/* Gates of the packed weights and slots of sums a phase has: the GRU's n takes two slots, n_x over x and n_h over h. */
INLINE int FN(gates)(int phase) { return phase == FASTRNN_LSTM ? 4 : phase == FASTRNN_GRU ? 3 : phase == FASTRNN_GRU_RESET ? 2 : 1; }
INLINE int FN(slots)(int phase) { return phase == FASTRNN_GRU ? 4 : FN(gates)(phase); }

INLINE vec FN(load_some)(const T *p, int count)
{
    if (count == LANES) return v_load(p);
    T lanes[GROUP] = {0};
    memcpy(lanes, p, (size_t)count * sizeof(T));
    return v_load(lanes);
}

INLINE void FN(store_some)(T *p, vec a, int count)
{
    if (count == LANES) { v_store(p, a); return; }
    T lanes[GROUP];
    v_store(lanes, a);
    memcpy(p, lanes, (size_t)count * sizeof(T));
}

/* acc += W a over k, one fma a step and sum: the order of the contract.  `w` points at the first unit group and register of the tile. */
INLINE void FN(accumulate)(const int phase, const int over_h, const int M, const int NU, const int NS, vec acc[][TILE_VECS],
                           const T *const *a, ptrdiff_t depth, const T *restrict w, ptrdiff_t w_stride)
{
    const int G = FN(gates)(phase), S = FN(slots)(phase);
    const T *row[MAX_ROWS];
    UNROLL for (int m = 0; m < M; m++) row[m] = a[m];
    for (ptrdiff_t k = 0; k < depth; k++, w += w_stride) {
        vec weights[TILE_VECS];
        UNROLL for (int v = 0; v < NU * G; v++)
            UNROLL for (int s = 0; s < NS; s++) weights[v * NS + s] = v_load(w + v * GROUP + s * LANES);
        UNROLL for (int m = 0; m < M; m++) {
            const vec value = v_set1(row[m][k]);
            UNROLL for (int u = 0; u < NU; u++)
                UNROLL for (int g = 0; g < G; g++)
                    UNROLL for (int s = 0; s < NS; s++) {
                        const int slot = phase == FASTRNN_GRU && g == 2 && over_h ? 3 : g;
                        vec *sum = &acc[m][(u * S + slot) * NS + s];
                        *sum = v_fma(value, weights[(u * G + g) * NS + s], *sum);
                    }
        }
    }
}
