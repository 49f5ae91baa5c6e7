/* The pointwise math of one register of units of one row, after its sums: arithmetic contract, version 2. */

INLINE vec FN(flush)(vec v) { return v_select(v_lt(v_abs(v), v_set1(STATE_TINY)), v_set1((T)0), v); }
INLINE vec FN(gate)(int linear, vec x) { return linear ? x : FN(sigma)(x); }
INLINE vec FN(candidate)(int linear, vec x) { return linear ? x : FN(tanh)(x); }

/* h' = z h + (1 - z) n, exact at z = 0 and z = 1 */
INLINE vec FN(blend)(vec z, vec h, vec n) { return FN(flush)(v_fma(z, h, v_fnma(z, n, n))); }

/* The sums of the gates of one register of units, `step` registers apart, become the gates; the GRU's n waits for r. */
INLINE void FN(gates_math)(const int phase, const int linear, vec *gates, int step)
{
    if (phase != FASTRNN_LSTM && phase != FASTRNN_GRU && phase != FASTRNN_GRU_RESET) return;
    gates[0] = FN(gate)(linear, gates[0]), gates[step] = FN(gate)(linear, gates[step]);
    if (phase != FASTRNN_LSTM) return;
    gates[2 * step] = FN(candidate)(linear, gates[2 * step]), gates[3 * step] = FN(gate)(linear, gates[3 * step]);
}

/* From the gates to the new state.  `n_x`: the GRU's n over x alone.  `cell`: this register of c or z.  `count` units are real; the others are
 * padding. */
INLINE void FN(state_math)(const int phase, const int linear, const fastrnn_phase *p, const vec *gates, int step, const T *n_x, const T *prev, T *out,
                           T *cell, int count)
{
    if (phase == FASTRNN_LSTM) {
        const vec c = FN(flush)(v_fma(gates[step], v_load(cell), v_mul(gates[0], gates[2 * step])));
        v_store(cell, c);
        const vec h = v_mul(gates[3 * step], FN(candidate)(linear, c));
        FN(store_some)(out, p->flush ? FN(flush)(h) : h, count);
    } else if (phase == FASTRNN_GRU) {
        const vec n = FN(candidate)(linear, v_fma(gates[0], gates[2 * step], v_load(n_x)));
        FN(store_some)(out, FN(blend)(gates[step], FN(load_some)(prev, count, 0), n), count);
    } else if (phase == FASTRNN_GRU_RESET) {
        v_store(cell, gates[step]);
        FN(store_some)(out, v_mul(gates[0], FN(load_some)(prev, count, 0)), count);
    } else if (phase == FASTRNN_GRU_NEW) {
        const vec n = FN(candidate)(linear, gates[0]);
        FN(store_some)(out, FN(blend)(v_load(cell), FN(load_some)(prev, count, 0), n), count);
    } else if (phase == FASTRNN_RNN) {
        FN(store_some)(out, FN(flush)(FN(activation)(p->activation, gates[0])), count);
    } else {
        FN(store_some)(out, FN(flush)(gates[0]), count);
    }
}
