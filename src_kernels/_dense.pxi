# Dense layers, the functions of rows that follow them, and sums over time.

cdef enum:
    DENSE_TILE_ROWS = 48
    DENSE_TILE_BYTES = 256 * 1024   # sums of a tile, down to DENSE_TILE_LEAST rows: what the functions then read is still in a cache
    DENSE_TILE_LEAST = 6
    DENSE_SPLIT_WORK = 1 << 22      # multiply-adds for each thread, a tenth of a millisecond, from which on rows are dealt out

cdef struct DenseCall:
    const fastrnn_kernels *kernels
    const fastrnn_phase *phase
    const char *x
    Py_ssize_t x_stride
    const int64_t *ids          # rows ids[0..rows) of x; NULL: in order
    char *out
    Py_ssize_t out_stride
    Py_ssize_t rows
    Py_ssize_t itemsize
    Py_ssize_t tile             # rows of a tile
    Py_ssize_t share            # bytes of workspace of one member: pointers to the rows of a tile, and their
    Py_ssize_t pointers         #   so many bytes, then sums
    char *work
    fastrnn_barrier *barrier


cdef Py_ssize_t dense_sums(const fastrnn_phase *phase, Py_ssize_t itemsize) noexcept nogil:
    """Bytes of the sums of one row."""
    return groups_of(phase.units, itemsize) * FASTRNN_GROUP_BYTES


cdef void lay_out_dense(DenseCall *call, Py_ssize_t rows, Py_ssize_t itemsize) noexcept nogil:
    """Find the tile, and what a member needs, for up to so many rows."""
    cdef Py_ssize_t sums = dense_sums(call.phase, itemsize)
    call.itemsize = itemsize
    call.tile = min(rows, max(DENSE_TILE_LEAST, min(DENSE_TILE_ROWS, DENSE_TILE_BYTES // sums)))
    call.pointers = (2 * call.tile * <Py_ssize_t>sizeof(void *) + FASTRNN_LINE - 1) // FASTRNN_LINE * FASTRNN_LINE
    call.share = call.pointers + call.tile * sums


cdef inline double rows_time(const DenseCall *call, int members) noexcept nogil:
    """ns, by the model of `step_time`, where each member takes some rows."""
    return columns_time(column_time(FASTRNN_RNN, call.phase, call.itemsize, 1), call.phase.inputs, (call.rows + members - 1) // members)


cdef inline double blocks_time(const DenseCall *call, int members) noexcept nogil:
    """ns where each member takes some blocks of all rows."""
    return columns_time(column_time(FASTRNN_RNN, call.phase, call.itemsize, members), call.phase.inputs, call.rows) + FASTRNN_MEETING * members


cdef inline bint by_blocks(const DenseCall *call, int members) noexcept nogil:
    """Whether members share the blocks: then one tile holds the sums of all rows.  All members must find the same."""
    return members > 1 and call.rows <= call.tile and blocks_time(call, members) < rows_time(call, members)


cdef void run_dense(void *context, int member, int members) noexcept nogil:
    """One member's rows, or its blocks of the sums of all rows and then the functions of its rows."""
    cdef const DenseCall *call = <const DenseCall *>context
    cdef char *work = call.work + member * call.share
    cdef void **x = <void **>work
    cdef void **out = x + call.tile
    cdef char *sums = call.work + call.pointers
    cdef Py_ssize_t size = dense_sums(call.phase, call.itemsize), row = call.rows * member // members, end = call.rows * (member + 1) // members
    cdef Py_ssize_t blocks, here, i
    if by_blocks(call, members):
        blocks = blocks_of(FASTRNN_RNN, call.phase.units, call.itemsize)
        point(call, 0, call.rows, x, out)
        call.kernels.inputs(FASTRNN_RNN, call.phase, <const void *const *>x, sums, size // call.itemsize, blocks * member // members,
                            blocks * (member + 1) // members, 0, call.rows)
        fastrnn_barrier_wait(call.barrier, members)
        for i in range(row, end):
            call.kernels.activate(call.phase.activation, sums + i * size, out[i], call.phase.units)
        return
    while row < end:
        here = min(call.tile, end - row)
        point(call, row, here, x, out)
        call.kernels.dense(call.phase, <const void *const *>x, work + call.pointers, <void *const *>out, here)
        row += here


cdef inline void point(const DenseCall *call, Py_ssize_t row, Py_ssize_t count, void **x, void **out) noexcept nogil:
    """Let x and out be so many rows, from this one on."""
    cdef Py_ssize_t i
    for i in range(count):
        x[i] = <void *>(call.x + (call.ids[row + i] if call.ids != NULL else row + i) * call.x_stride)
        out[i] = call.out + (row + i) * call.out_stride


@cython.final
cdef class DenseEngine:
    """A dense plan made ready for one tier: ``engine(x, out, threads)``, as backends.py describes."""

    cdef const fastrnn_kernels *kernels
    cdef fastrnn_phase phase
    cdef object packed     # owns the weights
    cdef Py_ssize_t itemsize

    def __cinit__(self, plan, *, str tier=None):
        self.packed = plan.packed
        self.kernels = fastrnn_get_kernels(_tier if tier is None else _tier_number(tier), _dtype_number(plan.dtype))
        self.phase.w_x, self.phase.b = cnp.PyArray_DATA(plan.packed.w_x), cnp.PyArray_DATA(plan.packed.b)
        self.phase.inputs, self.phase.units = plan.input_size, plan.output_size
        self.phase.activation = _ACTIVATIONS[plan.activation]
        self.itemsize = plan.dtype.itemsize

    def __call__(self, cnp.ndarray x not None, cnp.ndarray out not None, int threads=1):
        cdef DenseCall call
        cdef fastrnn_barrier barrier
        cdef Py_ssize_t work
        cdef void *block
        cdef int members = 1
        cdef bint entered = False
        call.kernels, call.phase = self.kernels, &self.phase
        call.x, call.x_stride, call.ids = cnp.PyArray_BYTES(x), cnp.PyArray_STRIDE(x, 0), NULL
        call.out, call.out_stride = cnp.PyArray_BYTES(out), cnp.PyArray_STRIDE(out, 0)
        call.rows = cnp.PyArray_DIM(x, 0)
        if call.rows == 0:
            return
        lay_out_dense(&call, call.rows, self.itemsize)
        work = call.rows * self.phase.units * self.phase.inputs
        if threads > 1 and work >= 2 * DENSE_SPLIT_WORK:
            entered = True
            members = <int>max(1, min(<Py_ssize_t>threads_now(threads), work // DENSE_SPLIT_WORK)) # no processor may be left
            members = members if by_blocks(&call, members) else <int>min(<Py_ssize_t>members, call.rows)
            fastrnn_barrier_init(&barrier)
            call.barrier = &barrier
        if posix_memalign(&block, FASTRNN_LINE, members * call.share):
            if entered:
                fastrnn_pool_leave()
            raise MemoryError(f"fastrnn could not get {members * call.share} bytes of workspace")
        call.work = <char *>block
        with nogil:
            if members == 1:
                run_dense(&call, 0, 1)
            else:
                fastrnn_pool_run(members, run_dense, &call)
            if entered:
                fastrnn_pool_leave()
        free(block)


def activate_rows(str activation, cnp.ndarray x not None, cnp.ndarray out not None, *, str tier=None):
    """Write a function of the rows of x (N, V) to out, which may be x; both C-contiguous and of one dtype."""
    cdef const fastrnn_kernels *kernels = fastrnn_get_kernels(_tier if tier is None else _tier_number(tier), _dtype_number(x.dtype))
    cdef int kind = _ACTIVATIONS[activation]
    cdef Py_ssize_t rows = cnp.PyArray_DIM(x, 0), size = cnp.PyArray_DIM(x, 1), row, stride = size * cnp.PyArray_ITEMSIZE(x)
    cdef char *source = cnp.PyArray_BYTES(x)
    cdef char *target = cnp.PyArray_BYTES(out)
    with nogil:
        for row in range(rows):
            kernels.activate(kind, source + row * stride, target + row * stride, size)


cdef void add_steps(const real *x, real *out, Py_ssize_t batch, Py_ssize_t steps, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t b, t, k
    for b in range(batch):
        for t in range(steps):
            for k in range(size):
                out[b * size + k] += x[(b * steps + t) * size + k]


def sum_steps(cnp.ndarray x not None, cnp.ndarray out not None):
    """Add the steps of x (B, T, K) in order of time to out (B, K); both C-contiguous and of one dtype."""
    cdef Py_ssize_t batch = cnp.PyArray_DIM(x, 0), steps = cnp.PyArray_DIM(x, 1), size = cnp.PyArray_DIM(x, 2)
    cdef void *source = cnp.PyArray_DATA(x)
    cdef void *target = cnp.PyArray_DATA(out)
    cdef bint narrow = cnp.PyArray_ITEMSIZE(x) == sizeof(float)
    with nogil:
        if narrow:
            add_steps(<const float *>source, <float *>target, batch, steps, size)
        else:
            add_steps(<const double *>source, <double *>target, batch, steps, size)
