/* One row's sums over h, and on the way the projection of inputs that later steps will need.
 *
 * One row reads each weight for a single fma, so the multipliers wait for the cache half of the time.  A tile of inputs needs many fmas a
 * weight.  Side by side they take little longer than the sums over h alone.
 *
 * What is to be projected is a line of columns: those of W_ih for the first two vectors of the first block, for the next two, and so on.
 * A block takes as many of them on its way as fit beside its columns of h, the last block of the last step all that are left.  The sums of
 * the two vectors at work stay in registers over a row of blocks, and in `ahead->sums` in between, until their run of columns is complete.
 */

/* What is next on the line, within one run of the columns of two vectors. */
typedef struct {
    const T *w, *x, *b;
    T *out;
    ptrdiff_t columns, left, w_stride, second; /* `second` vector from the first: 0 where a block has but one, which is then done twice */
} FN(stretch);

INLINE FN(stretch) FN(next_stretch)(const int G, const int U, const fastrnn_phase *p, const fastrnn_ahead *ahead)
{
    const ptrdiff_t groups = (p->units + GROUP - 1) / GROUP, first = ahead->block * U, N = (groups - first < U ? groups - first : U) * G;
    const ptrdiff_t vector = N % 2 && ahead->vector + 1 == N && N > 1 ? N - 2 : ahead->vector, place = (first * G + vector) * GROUP;
    const ptrdiff_t run = FASTRNN_RUN - ahead->column % FASTRNN_RUN, left = p->inputs - ahead->column;
    return (FN(stretch)){
        .w = (const T *)p->w_x + (first * G * p->inputs + ahead->column * N + vector) * GROUP,
        .x = (const T *)ahead->packed + ahead->column * FASTRNN_AHEAD, .b = (const T *)p->b + place, .out = (T *)ahead->out + place,
        .columns = left < run ? left : run, .left = left < run ? left : run, .w_stride = N * GROUP, .second = N > 1 ? GROUP : 0,
    };
}

/* sums += weights of one column times the inputs of rows r0..r1-1. */
INLINE void FN(stretch_rows)(const int r0, const int r1, vec sums[][2], const T *x, const vec *weights)
{
    UNROLL for (int r = r0; r < r1; r++) {
        const vec value = v_set1(x[r]);
        UNROLL for (int v = 0; v < 2; v++) sums[r][v] = v_fma(value, weights[v], sums[r][v]);
    }
}

/* The next `columns` of a stretch, each beside K columns of h for N sums; K = 0 for inputs alone.  Moves on in `part`, and in h and w_h. */
INLINE void FN(stretch_columns)(const int K, const int N, FN(stretch) *part, ptrdiff_t columns, vec sums[][2], vec *acc, const T **h, const T **w_h)
{
    const int R = FASTRNN_AHEAD, beside = K ? K : 1;
    const T *x = part->x, *restrict w_x = part->w, *value_h = K ? *h : NULL, *restrict weights_h = K ? *w_h : NULL;
    part->w += columns * part->w_stride, part->x += columns * R, part->left -= columns;
    for (ptrdiff_t i = 0; i < columns; i++, x += R, w_x += part->w_stride) {
        const vec weights[2] = {v_load(w_x), v_load(w_x + part->second)};
        UNROLL for (int j = 0; j < beside; j++) {
            if (K) {
                const vec value = v_set1(*value_h++);
                UNROLL for (int v = 0; v < N; v++) acc[v] = v_fma(value, v_load(weights_h + v * GROUP), acc[v]);
                weights_h += N * GROUP;
            }
            FN(stretch_rows)(j * R / beside, (j + 1) * R / beside, sums, x, weights);
        }
    }
    if (K) *h = value_h, *w_h = weights_h;
}

INLINE void FN(load_sums)(const fastrnn_ahead *ahead, vec sums[][2])
{
    UNROLL for (int r = 0; r < FASTRNN_AHEAD; r++)
        UNROLL for (int v = 0; v < 2; v++) sums[r][v] = v_load((T *)ahead->sums + (2 * r + v) * LANES);
}

INLINE void FN(store_sums)(fastrnn_ahead *ahead, vec sums[][2])
{
    UNROLL for (int r = 0; r < FASTRNN_AHEAD; r++)
        UNROLL for (int v = 0; v < 2; v++) v_store((T *)ahead->sums + (2 * r + v) * LANES, sums[r][v]);
}

INLINE void FN(zero_sums)(const fastrnn_ahead *ahead)
{
    for (int i = 0; i < 2 * FASTRNN_AHEAD; i++) v_store((T *)ahead->sums + i * LANES, v_set1((T)0));
}

/* The run of a stretch is complete: it joins the projected inputs, and the line goes on with the next one. */
static void FN(join_run)(const fastrnn_phase *p, fastrnn_ahead *ahead, const FN(stretch) *part)
{
    const int is_first = ahead->column < FASTRNN_RUN;
    for (int r = 0; r < FASTRNN_AHEAD; r++)
        for (int v = 0; v < (part->second ? 2 : 1); v++) {
            T *out = part->out + r * ahead->out_stride + v * part->second;
            const vec sum = v_load((T *)ahead->sums + (2 * r + v) * LANES);
            v_store(out, v_add(v_load(is_first ? part->b + v * part->second : out), sum));
        }
    FN(zero_sums)(ahead);
    ahead->column += part->columns;
    if (ahead->column < p->inputs) return;
    ahead->column = 0, ahead->vector += 2;
    if (ahead->vector * GROUP >= part->w_stride) ahead->vector = 0, ahead->block++;
}

/* Sums over h of one row for `count` blocks from `block` on, down where `turn` is -1, to `gates` [block][N]; takes columns of inputs while there
 * are columns of h beside them.  The sums of the inputs stay in registers from block to block: gate math between them would need these. */
INLINE void FN(accumulate_ahead)(const int G, const int U, const int split, const fastrnn_phase *p, const fastrnn_step *io, ptrdiff_t row, ptrdiff_t block,
                                 ptrdiff_t turn, ptrdiff_t count, vec *gates)
{
    /* Columns of h beside one of x.  Four divide a run, so that each load of W_hh goes on in one stride over the whole matrix.  With six, which make
     * as many fmas of either kind for four gates, the two columns left of every run put the processor's prefetcher out of step. */
    enum { BESIDE = 4 };
    const int N = U * G;
    fastrnn_ahead *ahead = io->ahead;
    const ptrdiff_t lowest = turn > 0 ? block : block - count + 1;
    _Alignas(FASTRNN_GROUP_BYTES) T run_sums[MOST_VECS * GROUP];
    FN(stretch) part = {.left = 0};
    vec sums[FASTRNN_AHEAD][2], acc[MOST_VECS];
    FN(load_sums)(ahead, sums);
    for (; count; count--, block += turn) {
        const T *h = io->h[row], *w_h = (const T *)p->w_h + block * N * GROUP * p->depth;
        const T *from = (const T *)io->start + row * io->start_stride + block * N * GROUP, *apart = split ? (const T *)p->b_h + block * U * GROUP : NULL;
        ptrdiff_t apart_group = GROUP, left = p->depth;
#define JOINED(v) v_add(v_load(split && v % G == G - 1 ? apart + v / G * apart_group : from + v * GROUP), acc[v])
        for (;; from = run_sums, apart = run_sums + (G - 1) * GROUP, apart_group = G * GROUP) {
            ptrdiff_t here = left < FASTRNN_RUN ? left : FASTRNN_RUN;
            left -= here;
            UNROLL for (int v = 0; v < N; v++) acc[v] = v_set1((T)0);
            while (here >= BESIDE) {
                if (!part.left) {
                    if (ahead->block >= ahead->end) break;
                    part = FN(next_stretch)(G, U, p, ahead);
                }
                const ptrdiff_t columns = part.left < here / BESIDE ? part.left : here / BESIDE;
                FN(stretch_columns)(BESIDE, N, &part, columns, sums, acc, &h, &w_h);
                here -= columns * BESIDE;
                if (part.left) continue;
                FN(store_sums)(ahead, sums);
                FN(join_run)(p, ahead, &part);
                FN(load_sums)(ahead, sums);
            }
            for (; here; here--, w_h += N * GROUP) {
                const vec value = v_set1(*h++);
                UNROLL for (int v = 0; v < N; v++) acc[v] = v_fma(value, v_load(w_h + v * GROUP), acc[v]);
            }
            if (!left) break;
            UNROLL for (int v = 0; v < N; v++) v_store(run_sums + v * GROUP, JOINED(v));
        }
        UNROLL for (int v = 0; v < N; v++) gates[(block - lowest) * N + v] = JOINED(v);
#undef JOINED
    }
    FN(store_sums)(ahead, sums);
    if (part.left) ahead->column += part.columns - part.left;
}

/* A tile of inputs begins: the line of the blocks from `block` to `end`.  The rows of x are packed by columns: rows that are a power of two apart
 * would share a few lines of the nearest cache, where W_hh passes through. */
INLINE void FN(begin_ahead)(fastrnn_ahead *ahead, ptrdiff_t inputs, ptrdiff_t block, ptrdiff_t end)
{
    enum { R = FASTRNN_AHEAD };
    const T *x = (const T *)ahead->x;
    T *packed = (T *)ahead->packed;
    ptrdiff_t k = 0;
#ifdef v_turn
    for (; k + 4 <= inputs; k += 4)
        UNROLL for (int r = 0; r < R; r += 4) v_turn(x + r * ahead->x_stride + k, ahead->x_stride, packed + k * R + r, R);
#endif
    for (; k < inputs; k++)
        for (int r = 0; r < R; r++) packed[k * R + r] = x[r * ahead->x_stride + k];
    ahead->block = block, ahead->end = end, ahead->vector = ahead->column = 0;
    FN(zero_sums)(ahead);
}

/* What is left of the line. */
INLINE void FN(finish_ahead)(const int G, const int U, const fastrnn_phase *p, fastrnn_ahead *ahead)
{
    while (ahead->block < ahead->end) {
        FN(stretch) part = FN(next_stretch)(G, U, p, ahead);
        vec sums[FASTRNN_AHEAD][2];
        FN(load_sums)(ahead, sums);
        FN(stretch_columns)(0, 0, &part, part.columns, sums, NULL, NULL, NULL);
        FN(store_sums)(ahead, sums);
        FN(join_run)(p, ahead, &part);
    }
}
