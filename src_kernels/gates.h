/* The pointwise math of one register of units of one row, after its sums: arithmetic contract, version 2. */

INLINE vec FN(flush)(vec v) { return v_select(v_lt(v_abs(v), v_set1(STATE_TINY)), v_set1((T)0), v); }
INLINE vec FN(gate)(int linear, vec x) { return linear ? x : FN(sigma)(x); }
INLINE vec FN(candidate)(int linear, vec x) { return linear ? x : FN(tanh)(x); }

/* h' = z h + (1 - z) n, exact at z = 0 and z = 1 */
INLINE vec FN(blend)(vec z, vec h, vec n) { return FN(flush)(v_fma(z, h, v_fnma(z, n, n))); }

/* `sums`: the phase's gates, `step` registers apart; `n_x`: the GRU's n over x alone.  `cell`: this register of c or z.  `count` units are real;
 * the others are padding. */
INLINE void FN(gate_math)(const int phase, const int linear, const fastrnn_phase *p, const vec *sums, int step, const T *n_x, const T *prev, T *out,
                          T *cell, int count)
{
    if (phase == FASTRNN_LSTM) {
        const vec i = FN(gate)(linear, sums[0]), f = FN(gate)(linear, sums[step]);
        const vec g = FN(candidate)(linear, sums[2 * step]), o = FN(gate)(linear, sums[3 * step]);
        const vec c = FN(flush)(v_fma(f, v_load(cell), v_mul(i, g)));
        v_store(cell, c);
        const vec h = v_mul(o, FN(candidate)(linear, c));
        FN(store_some)(out, p->flush ? FN(flush)(h) : h, count);
    } else if (phase == FASTRNN_GRU) {
        const vec r = FN(gate)(linear, sums[0]), z = FN(gate)(linear, sums[step]);
        const vec n = FN(candidate)(linear, v_fma(r, sums[2 * step], v_load(n_x)));
        FN(store_some)(out, FN(blend)(z, FN(load_some)(prev, count), n), count);
    } else if (phase == FASTRNN_GRU_RESET) {
        const vec r = FN(gate)(linear, sums[0]);
        v_store(cell, FN(gate)(linear, sums[step]));
        FN(store_some)(out, v_mul(r, FN(load_some)(prev, count)), count);
    } else if (phase == FASTRNN_GRU_NEW) {
        const vec n = FN(candidate)(linear, sums[0]);
        FN(store_some)(out, FN(blend)(v_load(cell), FN(load_some)(prev, count), n), count);
    } else if (phase == FASTRNN_RNN) {
        FN(store_some)(out, FN(flush)(FN(activation)(p->activation, sums[0])), count);
    } else {
        FN(store_some)(out, FN(flush)(sums[0]), count);
    }
}
