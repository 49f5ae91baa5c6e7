/* What callers owe the kernels, as assertions.  With NDEBUG, as in all but FASTRNN_DEBUG=1, nothing of this is compiled. */
#ifdef NDEBUG
#define CHECK(call) ((void)0)
#else
#define CHECK(call) call

static int FN(apart)(const void *a, ptrdiff_t a_count, const void *b, ptrdiff_t b_count)
{
    const uintptr_t a0 = (uintptr_t)a, b0 = (uintptr_t)b;
    return a0 + (size_t)a_count * sizeof(T) <= b0 || b0 + (size_t)b_count * sizeof(T) <= a0;
}

/* Sizes, and a range of blocks and rows. */
static void FN(check_range)(int kind, const fastrnn_phase *p, ptrdiff_t block0, ptrdiff_t block1, ptrdiff_t row0, ptrdiff_t row1)
{
    assert(0 <= kind && kind < FASTRNN_PHASES);
    assert(p->units > 0 && p->inputs >= 0 && p->depth >= 0);
    const ptrdiff_t groups = (p->units + GROUP - 1) / GROUP, U = fastrnn_phase_block(kind);
    assert(0 <= block0 && block0 <= block1 && block1 <= (groups + U - 1) / U);
    assert(0 <= row0 && row0 <= row1);
}

static void FN(check_ahead)(const fastrnn_phase *p, const fastrnn_step *io, ptrdiff_t row_size, ptrdiff_t block0, ptrdiff_t block1, ptrdiff_t rows)
{
    const fastrnn_ahead *ahead = io->ahead;
    assert(AHEAD && rows == 1 && p->inputs > 0);
    assert(!io->x && !io->starts);                          /* the inputs of this step were projected before */
    assert(ahead->x && ahead->out && ahead->sums && ahead->packed && ahead->out_stride >= row_size);
    assert(0 <= ahead->part && ahead->part < ahead->parts);
    if (ahead->part) assert(block0 <= ahead->block && ahead->block <= ahead->end && ahead->end == block1);
}

static void FN(check_step)(int phase, const fastrnn_phase *p, const fastrnn_step *io, ptrdiff_t block0, ptrdiff_t block1, ptrdiff_t row0, ptrdiff_t row1)
{
    const ptrdiff_t groups = (p->units + GROUP - 1) / GROUP, row_size = groups * fastrnn_phase_gates(phase) * GROUP;
    const int blends = phase == FASTRNN_GRU || phase == FASTRNN_GRU_RESET || phase == FASTRNN_GRU_NEW;
    FN(check_range)(phase, p, block0, block1, row0, row1);
    if (phase == FASTRNN_RNN) assert(FASTRNN_TANH <= p->activation && p->activation <= FASTRNN_LINEAR);
    else assert(p->activation == FASTRNN_STANDARD || p->activation == FASTRNN_LINEAR);
    if (block0 == block1 || row0 == row1) return;
    assert(p->w_h || !p->depth);
    assert(p->w_x || !p->inputs);
    assert(p->b_h || phase != FASTRNN_GRU);
    assert(io->starts || io->start);
    assert(io->start_stride == 0 || io->start_stride >= row_size);
    assert(io->h && io->out);
    assert(io->prev || !blends);
    if (phase == FASTRNN_LSTM || phase == FASTRNN_GRU_RESET || phase == FASTRNN_GRU_NEW)
        assert(io->cell && (row1 == 1 || io->cell_stride >= groups * GROUP));
    for (ptrdiff_t row = row0; row < row1; row++) {
        const void *out = io->out[row];
        assert(out && io->h[row]);
        assert(FN(apart)(out, p->units, io->h[row], p->depth));
        if (blends) assert(io->prev[row] && FN(apart)(out, p->units, io->prev[row], p->units));
        if (io->x) assert(io->x[row] && FN(apart)(out, p->units, io->x[row], p->inputs));
        if (io->starts) assert(io->starts[row]);
        if (io->soon) assert(io->starts && io->soon[row]);
    }
    if (io->ahead) FN(check_ahead)(p, io, row_size, block0, block1, row1 - row0);
}

static void FN(check_inputs)(int phase, const fastrnn_phase *p, const void *const *x, const void *out, ptrdiff_t out_stride,
                             ptrdiff_t block0, ptrdiff_t block1, ptrdiff_t row0, ptrdiff_t row1)
{
    FN(check_range)(phase, p, block0, block1, row0, row1);
    if (block0 == block1 || row0 == row1) return;
    assert((p->w_x || !p->inputs) && p->b && x && out);
    assert(row1 == 1 || out_stride >= (p->units + GROUP - 1) / GROUP * fastrnn_phase_gates(phase) * GROUP);
    for (ptrdiff_t row = row0; row < row1; row++) assert(x[row]);
}

static void FN(check_activate)(int kind, const void *in, const void *out, ptrdiff_t n)
{
    assert(FASTRNN_TANH <= kind && kind <= FASTRNN_LOG_SOFTMAX);
    assert(n >= 0);
    assert(n == 0 || (in && out && (in == out || FN(apart)(in, n, out, n))));
}

static void FN(check_probabilities)(double temperature, const void *in, const void *out, ptrdiff_t n)
{
    assert(0 < (T)temperature && (T)temperature - (T)temperature == 0);
    FN(check_activate)(FASTRNN_SOFTMAX, in, out, n);
}

static void FN(check_dense)(const void *sums, void *const *out, ptrdiff_t rows)
{
    assert(rows >= 0);
    assert(rows == 0 || (sums && out));
}
#endif
