/* One row's sums over h, and on the way the projection of inputs that later steps will need.
 *
 * One row reads each weight for a single fma, so the multipliers wait for the cache half of the time.  A tile of inputs needs many fmas a
 * weight.  Side by side they take little longer than the sums over h alone.
 *
 * What is to be projected is a line of columns: those of W_ih for the first two vectors of the first block, for the next two, and so on.
 * A block takes as many of them on its way as fit beside its columns of h, the last block of the last step all that are left.  The sums of
 * the two vectors at work stay in `ahead->sums`, in the nearest cache, until their run of columns is complete.
 */

/* What is next on the line, within one run of the columns of two vectors. */
typedef struct {
    const T *w, *x, *b;
    T *out;
    ptrdiff_t columns, w_stride, second; /* `second` vector from the first: 0 where a block has but one, which is then done twice */
} FN(stretch);

INLINE FN(stretch) FN(next_stretch)(const int G, const int U, const fastrnn_phase *p, const fastrnn_ahead *ahead)
{
    const ptrdiff_t groups = (p->units + GROUP - 1) / GROUP, first = ahead->block * U, N = (groups - first < U ? groups - first : U) * G;
    const ptrdiff_t vector = N % 2 && ahead->vector + 1 == N && N > 1 ? N - 2 : ahead->vector, place = (first * G + vector) * GROUP;
    const ptrdiff_t run = FASTRNN_RUN - ahead->column % FASTRNN_RUN, left = p->inputs - ahead->column;
    return (FN(stretch)){
        .w = (const T *)p->w_x + (first * G * p->inputs + ahead->column * N + vector) * GROUP,
        .x = (const T *)ahead->x + ahead->column, .b = (const T *)p->b + place, .out = (T *)ahead->out + place,
        .columns = left < run ? left : run, .w_stride = N * GROUP, .second = N > 1 ? GROUP : 0,
    };
}

/* sums += weights of one column times the inputs of rows r0..r1-1; `x` points at every third row. */
INLINE void FN(stretch_rows)(const int r0, const int r1, vec sums[][2], const T *const *x, ptrdiff_t stride, const vec *weights)
{
    UNROLL for (int r = r0; r < r1; r++) {
        const vec value = v_set1(x[r / 3][r % 3 * stride]);
        UNROLL for (int v = 0; v < 2; v++) sums[r][v] = v_fma(value, weights[v], sums[r][v]);
    }
}

/* The first `columns` of a stretch, each beside K columns of h for N sums; K = 0 for inputs alone. */
INLINE void FN(stretch_columns)(const int K, const int N, const fastrnn_ahead *ahead, const FN(stretch) *part, ptrdiff_t columns, vec *acc,
                                const T *h, const T *restrict w_h, ptrdiff_t w_stride)
{
    const int R = FASTRNN_AHEAD, beside = K ? K : 1;
    const ptrdiff_t stride = ahead->x_stride;
    T *stored = (T *)ahead->sums;
    const T *x[FASTRNN_AHEAD / 3], *restrict w_x = part->w; /* every third row: the two after it are an index away */
    UNROLL for (int r = 0; r < R; r += 3) x[r / 3] = part->x + r * stride;
    vec sums[FASTRNN_AHEAD][2];
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int v = 0; v < 2; v++) sums[r][v] = v_load(stored + (2 * r + v) * LANES);
    for (ptrdiff_t i = 0; i < columns; i++, w_x += part->w_stride) {
        const vec weights[2] = {v_load(w_x), v_load(w_x + part->second)};
        UNROLL for (int j = 0; j < beside; j++) {
            if (K) {
                const vec value = v_set1(*h++);
                UNROLL for (int v = 0; v < N; v++) acc[v] = v_fma(value, v_load(w_h + v * GROUP), acc[v]);
                w_h += w_stride;
            }
            FN(stretch_rows)(j * R / beside, (j + 1) * R / beside, sums, x, stride, weights);
        }
        UNROLL for (int r = 0; r < R; r += 3) x[r / 3]++;
    }
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int v = 0; v < 2; v++) v_store(stored + (2 * r + v) * LANES, sums[r][v]);
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

/* As accumulate() over h, for one row and NU groups of a block, one register each; takes columns of inputs while K of h are left. */
INLINE void FN(accumulate_ahead)(const int NU, const int G, const int U, const int split, vec *acc, T *sums, const T *from, const T *apart, const T *h,
                                 const fastrnn_phase *p, fastrnn_ahead *ahead, const T *restrict w_h, ptrdiff_t w_stride)
{
    const int N = NU * G, K = FASTRNN_AHEAD * 2 / N;            /* columns of h beside one of x: as many fmas of either kind */
    ptrdiff_t apart_group = GROUP;
#define JOINED(v) v_add(v_load(split && v % G == G - 1 ? apart + v / G * apart_group : from + v * GROUP), acc[v])
    for (ptrdiff_t k = 0;; from = sums, apart = sums + (G - 1) * GROUP, apart_group = G * GROUP) {
        const ptrdiff_t end = p->depth - k < FASTRNN_RUN ? p->depth : k + FASTRNN_RUN;
        UNROLL for (int v = 0; v < N; v++) acc[v] = v_set1((T)0);
        while (ahead->block < ahead->end && end - k >= K) {
            const FN(stretch) part = FN(next_stretch)(G, U, p, ahead);
            const ptrdiff_t fitting = (end - k) / K, columns = part.columns < fitting ? part.columns : fitting;
            FN(stretch_columns)(K, N, ahead, &part, columns, acc, h + k, w_h + k * w_stride, w_stride);
            if (columns < part.columns) ahead->column += columns;
            else FN(join_run)(p, ahead, &part);
            k += columns * K;
        }
        for (; k < end; k++) {
            const vec value = v_set1(h[k]);
            UNROLL for (int v = 0; v < N; v++) acc[v] = v_fma(value, v_load(w_h + k * w_stride + v * GROUP), acc[v]);
        }
        if (end == p->depth) break;
        UNROLL for (int v = 0; v < N; v++) v_store(sums + v * GROUP, JOINED(v));
    }
    UNROLL for (int v = 0; v < N; v++) acc[v] = JOINED(v);
#undef JOINED
}

/* A tile of inputs begins: the line of the blocks from `block` to `end`. */
INLINE void FN(begin_ahead)(fastrnn_ahead *ahead, ptrdiff_t block, ptrdiff_t end)
{
    ahead->block = block, ahead->end = end, ahead->vector = ahead->column = 0;
    FN(zero_sums)(ahead);
}

/* What is left of the line. */
INLINE void FN(finish_ahead)(const int G, const int U, const fastrnn_phase *p, fastrnn_ahead *ahead)
{
    while (ahead->block < ahead->end) {
        const FN(stretch) part = FN(next_stretch)(G, U, p, ahead);
        FN(stretch_columns)(0, 0, ahead, &part, part.columns, NULL, NULL, NULL, 0);
        FN(join_run)(p, ahead, &part);
    }
}
