/* One time step over a range of unit blocks and rows, and the projection of inputs: walks of the tile over a packed matrix. */

/* Full tiles, and the last two alike: eight rows are 4 + 4, not 6 + 2, for a tile of two rows loads twice as much for every fma. */
INLINE int FN(tile_height)(ptrdiff_t most, ptrdiff_t rows)
{
    if (rows <= most) return (int)rows;
    return rows < 2 * most ? (int)(rows + 1) / 2 : most;
}

/* Runs CALL(M) with the constant M that equals `height`. */
#if MAX_ROWS == 2
#define WITH_HEIGHT(height, CALL) switch (height) { case 1: CALL(1); break; case 2: CALL(2); break; }
#elif MAX_ROWS == 3
#define WITH_HEIGHT(height, CALL) switch (height) { case 1: CALL(1); break; case 2: CALL(2); break; case 3: CALL(3); break; }
#else
#define WITH_HEIGHT(height, CALL) switch (height) { case 1: CALL(1); break; case 2: CALL(2); break; case 3: CALL(3); break; \
                                                    case 4: CALL(4); break; case 5: CALL(5); break; case 6: CALL(6); break; }
#endif

/* The gates and states of NU groups from `group` on, for M rows, from their sums `gates`: rows of [NU][G][NS], `gates_row` registers apart.  Loops, not M
 * copies of the gate math: the code of six rows would not fit the instruction cache.  Two loops, since a row's gates and its state in one are a
 * chain too long for the processor to see the next row past it. */
INLINE void FN(finish_phase)(const int phase, const int M, const ptrdiff_t NU, const int NS, const fastrnn_phase *p, const fastrnn_step *io, ptrdiff_t row,
                             ptrdiff_t group, int lane, vec *gates, const int gates_row, const T *x_sums, ptrdiff_t x_stride)
{
    const int G = fastrnn_phase_gates(phase), linear = phase != FASTRNN_RNN && p->activation == FASTRNN_LINEAR;
    for (int m = 0; m < M && !linear; m++)
        for (int u = 0; u < NU; u++)
            for (int s = 0; s < NS; s++) FN(gates_math)(phase, gates + m * gates_row + u * G * NS + s, NS);
    const int down = M > 1;                                /* by threes: rows, or the groups of a single one */
    const ptrdiff_t all = down ? M : NU, next = down ? gates_row : G * NS, n_x_next = down ? x_stride : G * GROUP;
    for (ptrdiff_t u = 0; u < (down ? NU : 1); u++)
        for (int s = 0; s < NS; s++) {
            const vec *at = gates + u * G * NS + s;
            const T *n_x = x_sums + (u * G + G - 1) * GROUP + s * LANES;
            const ptrdiff_t unit = (group + u) * GROUP + lane + s * LANES;
            ptrdiff_t i = 0;
#define STATES(LINEAR, N) FN(state_math)(phase, LINEAR, N, down, p, io, row + (down ? i : 0), unit + (down ? 0 : i * GROUP), at + i * next, NS, next, \
                                         n_x + i * n_x_next, n_x_next)
            if (linear) for (; i < all; i++) STATES(1, 1);
            for (; i + 3 <= all; i += 3) STATES(0, 3);
            if (M == 2 && !linear) STATES(0, 2), i = 2;    /* but not the last two of five rows: the GRU is slower so */
            for (; i < all; i++) STATES(0, 1);
        }
#undef STATES
}

/* Phases of one gate sum alike, so their tiles are compiled for all of them at once, where `phase` is no constant. */
INLINE void FN(finish_of_one_gate)(const int phase, const int M, const ptrdiff_t NU, const int NS, const fastrnn_phase *p, const fastrnn_step *io, ptrdiff_t row,
                                   ptrdiff_t group, int lane, vec *gates, const int gates_row)
{
#define FINISH(PHASE) FN(finish_phase)(PHASE, M, NU, NS, p, io, row, group, lane, gates, gates_row, NULL, 0)
    switch (phase) {
    case FASTRNN_RNN: FINISH(FASTRNN_RNN); break;
    case FASTRNN_GRU_NEW: FINISH(FASTRNN_GRU_NEW); break;
    case FASTRNN_PROJECT: FINISH(FASTRNN_PROJECT); break;
    }
#undef FINISH
}

/* Not inlined: blocks of four groups have tiles of four shapes for every height. */
static __attribute__((noinline)) void FN(finish_rows)(int phase, int height, int NU, const fastrnn_phase *p, const fastrnn_step *io, ptrdiff_t row,
                                                      ptrdiff_t group, int lane, vec *gates)
{
#define CALL(M) FN(finish_of_one_gate)(phase, M, NU, 1, p, io, row, group, lane, gates, TILE_VECS)
    WITH_HEIGHT(height, CALL)
#undef CALL
}

INLINE void FN(finish)(const int phase, const int G, const int M, const ptrdiff_t NU, const int NS, const fastrnn_phase *p, const fastrnn_step *io, ptrdiff_t row,
                       ptrdiff_t group, int lane, vec *gates, const int gates_row, const T *x_sums, ptrdiff_t x_stride)
{
    if (G > 1) FN(finish_phase)(phase, M, NU, NS, p, io, row, group, lane, gates, gates_row, x_sums, x_stride);
    else if (M > 1) FN(finish_rows)(phase, M, (int)NU, p, io, row, group, lane, gates);
    else FN(finish_of_one_gate)(phase, 1, NU, NS, p, io, row, group, lane, gates, gates_row);
}

/* What the sums of a tile start from, from anywhere to where rows have one stride.  Not inlined: the tiles of other calls are 1 % faster so. */
static __attribute__((noinline)) void FN(gather)(const fastrnn_step *io, ptrdiff_t row, int rows, ptrdiff_t place, int vectors, int width, T *out,
                                                 ptrdiff_t out_stride)
{
    for (int m = 0; m < rows; m++)
        for (int v = 0; v < vectors; v++)
            memcpy(out + m * out_stride + v * GROUP, (const T *)io->starts[row + m] + place + v * GROUP, (size_t)width * sizeof(T));
}

/* The rows of a large table of ids come from memory, so that each tile fetches what its next step will start from. */
INLINE void FN(fetch_starts)(const void *const *soon, int rows, ptrdiff_t place, ptrdiff_t elements)
{
    for (int m = 0; m < rows; m++)
        for (ptrdiff_t v = 0; v < elements; v += GROUP) __builtin_prefetch((const T *)soon[m] + place + v, 0, 2);
}

/* Sums of one tile from `start` over x and h, then its gates.  Groups of w_x and w_h are `x_group` and `h_group` elements apart. */
INLINE void FN(step_tile)(const int phase, const int G, const int M, const int NU, const int NS, const int far, const fastrnn_phase *p, const fastrnn_step *io,
                          ptrdiff_t row, ptrdiff_t group, int lane, const T *w_x, const T *w_h, ptrdiff_t w_stride, ptrdiff_t x_group, ptrdiff_t h_group)
{
    enum { ROW = MOST_VECS * GROUP };
    const int split = G == 3;                              /* the GRU's n_x and n_h stay apart */
    _Alignas(FASTRNN_GROUP_BYTES) T sums[MAX_ROWS * MOST_VECS * GROUP], over_x[MAX_ROWS * MOST_VECS * GROUP];
    const ptrdiff_t place = group * G * GROUP + lane;
    const T *x_sums = (const T *)io->start + row * io->start_stride + place;
    ptrdiff_t x_stride = io->start_stride;
    vec acc[MAX_ROWS][TILE_VECS];
    if (M == 1 && io->starts) {
        x_sums = (const T *)io->starts[row] + place;
    } else if (__builtin_expect(io->starts != NULL, 0)) {
        FN(gather)(io, row, M, place, NU * G, NS * LANES, over_x, ROW);
        x_sums = over_x, x_stride = ROW;
    } else if (io->x) {
        FN(accumulate)(M, NU, G, NS, 0, far, acc, over_x, ROW, x_sums, x_stride, NULL, (const T *const *)io->x + row, p->inputs, w_x, w_stride, x_group);
        x_sums = over_x, x_stride = ROW;
        UNROLL for (int m = 0; m < M; m++)
            UNROLL for (int v = 0; v < NU * G; v++)
                UNROLL for (int s = 0; s < NS; s++) v_store(over_x + m * ROW + v * GROUP + s * LANES, acc[m][v * NS + s]);
    }
    const T *apart = split ? (const T *)p->b_h + group * GROUP + lane : NULL;
    FN(accumulate)(M, NU, G, NS, split, far, acc, sums, ROW, x_sums, x_stride, apart, (const T *const *)io->h + row, p->depth, w_h, w_stride, h_group);
    vec stored[MAX_ROWS][TILE_VECS];
    UNROLL for (int m = 0; m < M; m++)
        UNROLL for (int v = 0; v < NU * G * NS; v++) stored[m][v] = acc[m][v];
    FN(finish)(phase, G, M, NU, NS, p, io, row, group, lane, stored[0], TILE_VECS, x_sums, x_stride);
}

/* out = b + W_ih x for V packed vectors of one block: gates do not matter here. */
INLINE void FN(inputs_tile)(const int M, const int V, const int NS, const fastrnn_phase *p, const T *const *x, T *out, ptrdiff_t out_stride,
                            const T *b, const T *w, ptrdiff_t w_stride)
{
    vec acc[MAX_ROWS][TILE_VECS];
    FN(accumulate)(M, V, 1, NS, 0, 0, acc, out, out_stride, b, 0, NULL, x, p->inputs, w, w_stride, GROUP);
    UNROLL for (int m = 0; m < M; m++)
        UNROLL for (int v = 0; v < V; v++)
            UNROLL for (int s = 0; s < NS; s++) v_store(out + m * out_stride + v * GROUP + s * LANES, acc[m][v * NS + s]);
}

/* Registers of a group that one tile takes: one row has too few chains to hide the latency of fma unless it takes several. */
INLINE int FN(tile_registers)(const int M, const int vecs)
{
    const int most = GROUP / LANES;
    return M > 1 ? 1 : ONE_ROW_VECS / vecs < most ? ONE_ROW_VECS / vecs : most;
}

/* Tiles of NU groups from group `u` of a block that has `here` groups; returns the first group that is left. */
INLINE ptrdiff_t FN(step_groups)(const int phase, const int G, const int M, const int NU, const int far, const fastrnn_phase *p, const fastrnn_step *io,
                                 ptrdiff_t row, ptrdiff_t first, ptrdiff_t here, ptrdiff_t u, const T *w_x, const T *w_h)
{
    const int NS = FN(tile_registers)(M, NU * G);
    for (; u + NU <= here; u += NU)
        for (int lane = 0; lane < GROUP && (first + u) * GROUP + lane < p->units; lane += NS * LANES) {
            const ptrdiff_t offset = u * G * GROUP + lane;
            const T *w_x_here = w_x ? w_x + offset : NULL;
#define TILE(FAR) FN(step_tile)(phase, G, M, NU, NS, FAR, p, io, row, first + u, lane, w_x_here, w_h + offset, here * G * GROUP, G * GROUP, G * GROUP)
            if (M == 1 && far) TILE(1); /* compiled twice: with a choice inside, small LSTMs are 5 % slower */
            else TILE(M > 1 && far);
#undef TILE
        }
    return u;
}

INLINE void FN(step_rows)(const int phase, const int G, const int M, const int U, const int far, const fastrnn_phase *p, const fastrnn_step *io, ptrdiff_t row,
                          ptrdiff_t first, ptrdiff_t here, const T *w_x, const T *w_h)
{
    ptrdiff_t u = 0;
    if (U == 4) u = FN(step_groups)(phase, G, M, 4, far, p, io, row, first, here, u, w_x, w_h);
    if (U == 4) u = FN(step_groups)(phase, G, M, 3, 0, p, io, row, first, here, u, w_x, w_h);
    if (U >= 2 && (G != 3 || M <= SIX_VECS_ROWS)) u = FN(step_groups)(phase, G, M, 2, U == 2 && far, p, io, row, first, here, u, w_x, w_h);
    FN(step_groups)(phase, G, M, 1, U == 1 && far, p, io, row, first, here, u, w_x, w_h);
}

/* One row, and inputs on its way: the whole blocks of block0..block1-1.  Returns the first that is not: it takes no inputs. */
INLINE ptrdiff_t FN(step_ahead)(const int phase, const int G, const int U, const fastrnn_phase *p, const fastrnn_step *io, ptrdiff_t block0, ptrdiff_t block1, ptrdiff_t row)
{
    enum { AT_ONCE = 8 };                                  /* blocks whose gates follow together */
    const ptrdiff_t whole = (p->units + GROUP - 1) / GROUP / U, end = whole < block0 ? block0 : whole < block1 ? whole : block1;
    vec gates[AT_ONCE * MOST_VECS];
    if (io->ahead->part == 0) FN(begin_ahead)(io->ahead, p->inputs, block0, block1);
    for (ptrdiff_t done = 0, count; done < end - block0; done += count) {
        count = end - block0 - done < AT_ONCE ? end - block0 - done : AT_ONCE;
        const ptrdiff_t lowest = io->descending ? end - done - count : block0 + done;
        const T *x_sums = (const T *)io->start + row * io->start_stride + lowest * U * G * GROUP;
        FN(accumulate_ahead)(G, U, G == 3, p, io, row, io->descending ? lowest + count - 1 : lowest, io->descending ? -1 : 1, count, gates);
        FN(finish)(phase, G, 1, count * U, 1, p, io, row, lowest * U, 0, gates, 0, x_sums, 0);
    }
    if (io->ahead->part + 1 == io->ahead->parts) FN(finish_ahead)(G, U, p, io->ahead);
    return end;
}

/* One row of an LSTM of few units, two or three blocks at a time: one block's four chains of fma are half of what it takes to keep the multipliers at work
 * where the nearest cache has the weights.  Returns the first block that is left. */
INLINE ptrdiff_t FN(step_near)(const fastrnn_phase *p, const fastrnn_step *io, ptrdiff_t block, ptrdiff_t block1, ptrdiff_t row)
{
    enum { G = 4, NEAREST = 40 * 1024 };
    const ptrdiff_t units = (p->units + GROUP - 1) / GROUP * GROUP, depth = p->depth + (io->x ? p->inputs : 0);
    if (units * G * depth * (ptrdiff_t)sizeof(T) > NEAREST) return block;
#define BLOCKS(NU) FN(step_tile)(FASTRNN_LSTM, G, 1, NU, 1, 0, p, io, row, block, 0, p->inputs ? (const T *)p->w_x + block * G * GROUP * p->inputs : NULL, \
                                 (const T *)p->w_h + block * G * GROUP * p->depth, G * GROUP, G * GROUP * p->inputs, G * GROUP * p->depth)
    for (; block1 - block == 2 || block1 - block > 3; block += 2) BLOCKS(2);
    if (block1 - block == 3) { BLOCKS(3); block += 3; }
#undef BLOCKS
    return block;
}

/* G and U are the phase's, and constants where `phase` is none; so G, not `phase`, tells the LSTM (4) and the GRU (3) from the others. */
INLINE void FN(step)(const int phase, const int G, const int U, const fastrnn_phase *p, const fastrnn_step *io,
                     ptrdiff_t block0, ptrdiff_t block1, ptrdiff_t row0, ptrdiff_t row1)
{
    const ptrdiff_t groups = (p->units + GROUP - 1) / GROUP, column = G * FASTRNN_GROUP_BYTES;
    const ptrdiff_t all = groups * column * (p->depth + p->inputs), read = (block1 - block0) * U * column * (p->depth + (io->x ? p->inputs : 0));
    const int far = row1 - row0 == 1 ? fastrnn_fetches_far && read > FAR_LEAST && read <= FAR_MOST : all > FASTRNN_FROM_MEMORY;
    /* Four rows over whole blocks of the GRU read weights from the outer caches as they lie there; six rows by halves read those of the L2 less often. */
    const ptrdiff_t most = G == 3 && SIX_VECS_ROWS >= 4 && all > FAR_LEAST ? SIX_VECS_ROWS : MAX_ROWS;
    CHECK(FN(check_step)(phase, p, io, block0, block1, row0, row1));
    if (AHEAD && io->ahead) block0 = FN(step_ahead)(phase, G, U, p, io, block0, block1, row0);
    else if (G == 4 && GROUP == LANES && row1 - row0 == 1) block0 = FN(step_near)(p, io, block0, block1, row0);
    for (ptrdiff_t i = block0; i < block1; i++) {
        const ptrdiff_t block = io->descending ? block0 + block1 - 1 - i : i;
        const ptrdiff_t first = block * U, here = groups - first < U ? groups - first : U;
        const T *w_x = p->inputs ? (const T *)p->w_x + first * G * GROUP * p->inputs : NULL;
        const T *w_h = (const T *)p->w_h + first * G * GROUP * p->depth;
        for (ptrdiff_t row = row0; row < row1;) {
            const int height = FN(tile_height)(most, row1 - row);
            if (io->soon) FN(fetch_starts)(io->soon + row, height, first * G * GROUP, here * G * GROUP);
#define CALL(M) FN(step_rows)(phase, G, M, U, far, p, io, row, first, here, w_x, w_h)
            WITH_HEIGHT(height, CALL)
#undef CALL
            row += height;
        }
    }
}

INLINE ptrdiff_t FN(inputs_vectors)(const int M, const int V, const fastrnn_phase *p, const T *const *x, T *out, ptrdiff_t out_stride,
                                    ptrdiff_t vectors, ptrdiff_t v, const T *b, const T *w)
{
    const int NS = FN(tile_registers)(M, V);
    for (; v + V <= vectors; v += V)
        for (int lane = 0; lane < GROUP; lane += NS * LANES) {
            const ptrdiff_t offset = v * GROUP + lane;
            FN(inputs_tile)(M, V, NS, p, x, out + offset, out_stride, b + offset, w + offset, vectors * GROUP);
        }
    return v;
}

/* Adds R complete runs of columns, or one of fewer columns, to the sums of one row's single vector. */
INLINE void FN(add_runs)(const int R, const int NS, const T *x, const T *w, ptrdiff_t w_stride, ptrdiff_t columns, vec *sums)
{
    vec acc[SIDE_BY_SIDE];
    UNROLL for (int i = 0; i < R * NS; i++) acc[i] = v_set1((T)0);
    for (ptrdiff_t k = 0; k < columns; k++)
        UNROLL for (int r = 0; r < R; r++) {
            const vec value = v_set1(x[r * FASTRNN_RUN + k]);
            UNROLL for (int s = 0; s < NS; s++)
                acc[r * NS + s] = v_fma(value, v_load(w + (r * FASTRNN_RUN + k) * w_stride + s * LANES), acc[r * NS + s]);
        }
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int s = 0; s < NS; s++) sums[s] = v_add(sums[s], acc[r * NS + s]);
}

/* out = b + W_ih x of one row's single vector.  Its runs go side by side, for one chain of fma would mostly wait for itself. */
INLINE void FN(inputs_vector)(const fastrnn_phase *p, const T *x, T *out, const T *b, const T *w, ptrdiff_t w_stride)
{
    enum { NS = GROUP / LANES < SIDE_BY_SIDE ? GROUP / LANES : SIDE_BY_SIDE };
    for (int lane = 0; lane < GROUP; lane += NS * LANES) {
        vec sums[NS];
        UNROLL for (int s = 0; s < NS; s++) sums[s] = v_load(b + lane + s * LANES);
        ptrdiff_t k = 0;
#define RUNS(R, COLUMNS) FN(add_runs)(R, NS, x + k, w + k * w_stride + lane, w_stride, COLUMNS, sums)
        if (NS == 1) for (; k + 4 * FASTRNN_RUN <= p->inputs; k += 4 * FASTRNN_RUN) RUNS(4, FASTRNN_RUN);
        if (NS <= 2) for (; k + 2 * FASTRNN_RUN <= p->inputs; k += 2 * FASTRNN_RUN) RUNS(2, FASTRNN_RUN);
        for (; k < p->inputs; k += FASTRNN_RUN) RUNS(1, p->inputs - k < FASTRNN_RUN ? p->inputs - k : FASTRNN_RUN);
#undef RUNS
        UNROLL for (int s = 0; s < NS; s++) v_store(out + lane + s * LANES, sums[s]);
    }
}

INLINE void FN(inputs_rows)(const int M, const fastrnn_phase *p, const T *const *x, T *out, ptrdiff_t out_stride,
                            ptrdiff_t vectors, const T *b, const T *w)
{
    ptrdiff_t v = 0;
    if (M > 1 && M <= SIX_VECS_ROWS && vectors == 6) v = FN(inputs_vectors)(M, 6, p, x, out, out_stride, vectors, v, b, w);
    if (vectors % 3) v = FN(inputs_vectors)(M, 4, p, x, out, out_stride, vectors, v, b, w);
    v = FN(inputs_vectors)(M, 3, p, x, out, out_stride, vectors, v, b, w);
    if (M > 1) v = FN(inputs_vectors)(M, 2, p, x, out, out_stride, vectors, v, b, w);
    if (M > 1) FN(inputs_vectors)(M, 1, p, x, out, out_stride, vectors, v, b, w);
    else for (; v < vectors; v++) FN(inputs_vector)(p, x[0], out + v * GROUP, b + v * GROUP, w + v * GROUP, vectors * GROUP);
}

static void FN(inputs)(int phase, const fastrnn_phase *p, const void *const *x, void *out, ptrdiff_t out_stride,
                       ptrdiff_t block0, ptrdiff_t block1, ptrdiff_t row0, ptrdiff_t row1)
{
    CHECK(FN(check_inputs)(phase, p, x, out, out_stride, block0, block1, row0, row1));
    const int G = fastrnn_phase_gates(phase), U = fastrnn_phase_block(phase);
    const ptrdiff_t groups = (p->units + GROUP - 1) / GROUP;
    for (ptrdiff_t block = block0; block < block1; block++) {
        const ptrdiff_t first = block * U, here = groups - first < U ? groups - first : U, at = first * G * GROUP;
        const T *w = (const T *)p->w_x + at * p->inputs, *b = (const T *)p->b + at;
        for (ptrdiff_t row = row0; row < row1;) {
            const int height = FN(tile_height)(MAX_ROWS, row1 - row);
#define CALL(M) FN(inputs_rows)(M, p, (const T *const *)x + row, (T *)out + row * out_stride + at, out_stride, here * G, b, w)
            WITH_HEIGHT(height, CALL)
#undef CALL
            row += height;
        }
    }
}
#undef WITH_HEIGHT

static void FN(step_of_one_gate)(int phase, const fastrnn_phase *p, const fastrnn_step *io, ptrdiff_t block0, ptrdiff_t block1, ptrdiff_t row0, ptrdiff_t row1)
{
    FN(step)(phase, 1, FASTRNN_BLOCK(FASTRNN_RNN), p, io, block0, block1, row0, row1);
}

#define SHAPED(kind) kind, fastrnn_phase_gates(kind), FASTRNN_BLOCK(kind)
#define STEP(name, step, ...) \
    static void FN(name)(const fastrnn_phase *p, const fastrnn_step *io, ptrdiff_t block0, ptrdiff_t block1, ptrdiff_t row0, ptrdiff_t row1) \
    { FN(step)(__VA_ARGS__, p, io, block0, block1, row0, row1); }
STEP(rnn_step, step_of_one_gate, FASTRNN_RNN)
STEP(lstm_step, step, SHAPED(FASTRNN_LSTM))
STEP(gru_step, step, SHAPED(FASTRNN_GRU))
STEP(gru_reset_step, step, SHAPED(FASTRNN_GRU_RESET))
STEP(gru_new_step, step_of_one_gate, FASTRNN_GRU_NEW)
STEP(project_step, step_of_one_gate, FASTRNN_PROJECT)
#undef STEP
#undef SHAPED
