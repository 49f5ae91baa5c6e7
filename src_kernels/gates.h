/* The pointwise math of registers of units, after their sums: arithmetic contract, version 2. */

INLINE vec FN(flush)(vec v) { return v_select(v_lt(v_abs(v), v_set1(STATE_TINY)), v_set1((T)0), v); }
INLINE void FN(candidates)(const int linear, const int N, vec *x) { if (!linear) FN(squash)(N, ~0u, x); }

/* h' = z h + (1 - z) n, exact at z = 0 and z = 1 */
INLINE vec FN(blend)(vec z, vec h, vec n) { return FN(flush)(v_fma(z, h, v_fnma(z, n, n))); }

/* How many of a register's units are real; the others are padding. */
INLINE int FN(units_from)(const fastrnn_phase *p, ptrdiff_t unit)
{
    const ptrdiff_t left = p->units - unit;
    return left < 0 ? 0 : left < LANES ? (int)left : LANES;
}

/* The sums of the gates of one register of units, `step` registers apart, become the gates; the GRU's n waits for r. */
INLINE void FN(gates_math)(const int phase, vec *gates, int step)
{
    const int N = phase == FASTRNN_LSTM ? 4 : phase == FASTRNN_GRU || phase == FASTRNN_GRU_RESET ? 2 : 0;
    vec x[MOST_VECS];
    if (!N) return;
    EACH x[v] = gates[v * step];
    FN(squash)(N, phase == FASTRNN_LSTM ? 1 << 2 : 0, x);
    EACH gates[v * step] = x[v];
}

/* From the gates of N registers of units, `next` registers apart, to their new states: of N rows from `row` on where `down`, else of one row's groups,
 * the first from `unit` on.  `n_x`: the GRU's n over x alone, `n_x_next` elements apart. */
INLINE void FN(state_math)(const int phase, const int linear, const int N, const int down, const fastrnn_phase *p, const fastrnn_step *io, ptrdiff_t row,
                           ptrdiff_t unit, const vec *gates, int step, ptrdiff_t next, const T *n_x, ptrdiff_t n_x_next)
{
    vec x[MOST_VECS];
#define GATE(v, g) gates[(v) * next + (g) * step]
#define ROW(v) (row + (down ? (v) : 0))
#define UNIT(v) (unit + (down ? 0 : (v) * GROUP))
#define COUNT(v) FN(units_from)(p, UNIT(v))
#define CELL(v) ((T *)io->cell + ROW(v) * io->cell_stride + UNIT(v))
#define PREV(v) FN(load_some)((const T *)io->prev[ROW(v)] + UNIT(v), COUNT(v), 0)
#define STORE(v, a) FN(store_some)((T *)io->out[ROW(v)] + UNIT(v), a, COUNT(v))
    if (phase == FASTRNN_LSTM) {
        EACH x[v] = FN(flush)(v_fma(GATE(v, 1), v_load(CELL(v)), v_mul(GATE(v, 0), GATE(v, 2))));
        EACH v_store(CELL(v), x[v]);
        FN(candidates)(linear, N, x);
        EACH x[v] = v_mul(GATE(v, 3), x[v]);
        EACH STORE(v, p->flush ? FN(flush)(x[v]) : x[v]);
    } else if (phase == FASTRNN_GRU) {
        EACH x[v] = v_fma(GATE(v, 0), GATE(v, 2), v_load(n_x + v * n_x_next));
        FN(candidates)(linear, N, x);
        EACH STORE(v, FN(blend)(GATE(v, 1), PREV(v), x[v]));
    } else if (phase == FASTRNN_GRU_RESET) {
        EACH v_store(CELL(v), GATE(v, 1));
        EACH STORE(v, v_mul(GATE(v, 0), PREV(v)));
    } else if (phase == FASTRNN_GRU_NEW) {
        EACH x[v] = GATE(v, 0);
        FN(candidates)(linear, N, x);
        EACH STORE(v, FN(blend)(v_load(CELL(v)), PREV(v), x[v]));
    } else if (phase == FASTRNN_RNN && p->activation == FASTRNN_TANH) {
        EACH x[v] = GATE(v, 0);
        FN(squash)(N, ~0u, x);
        EACH STORE(v, FN(flush)(x[v]));
    } else if (phase == FASTRNN_RNN) {
        EACH STORE(v, FN(flush)(FN(activation)(p->activation, GATE(v, 0))));
    } else {
        EACH STORE(v, FN(flush)(GATE(v, 0)));
    }
#undef GATE
#undef ROW
#undef UNIT
#undef COUNT
#undef CELL
#undef PREV
#undef STORE
}
