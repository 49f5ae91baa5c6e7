# One step at a time: the state stays between calls, and a step of usual arguments runs no Python and allocates nothing but its result.

cdef enum:
    # Multiply-adds of a step, a microsecond of them, from which on it lets other Python threads run. Releasing the GIL and taking
    # it back takes 0.03 us: a fifth of a step at H = 8, a fortieth at H = 64, where two threads with a stream each then do
    # 1.4 to 1.6 times the work of one, and 1.0 times without.
    RELEASE_WORK = 1 << 15


cdef inline bint plain(object array, int dtype, int flags, int ndim) noexcept:
    """Whether this is an ndarray, no subclass, of the machine's own byte order, that C code may walk."""
    return (cnp.PyArray_CheckExact(array) and cnp.PyArray_TYPE(array) == dtype and cnp.PyArray_NDIM(array) == ndim
            and cnp.PyArray_CHKFLAGS(array, flags) and cnp.PyArray_ISNOTSWAPPED(array))


cdef inline bint apart(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two C-contiguous arrays share no byte."""
    cdef char *p = cnp.PyArray_BYTES(a)
    cdef char *q = cnp.PyArray_BYTES(b)
    return p + cnp.PyArray_NBYTES(a) <= q or q + cnp.PyArray_NBYTES(b) <= p


cdef inline bint fits(object array, int dtype, int flags, int ndim, Py_ssize_t n, Py_ssize_t size) noexcept:
    """Whether this is plain and (n, size), or (size,) where ndim is 1."""
    return (plain(array, dtype, flags, ndim) and cnp.PyArray_DIM(array, ndim - 1) == size
            and (ndim == 1 or cnp.PyArray_DIM(array, 0) == n))


cdef inline const Network *network(const Steps *steps, bint by_ids) noexcept nogil:
    return steps.by_ids if by_ids else steps.net


cdef struct Steps:           # what the steps of a stream work on
    const Network *net
    const Network *by_ids    # the same where the first layer takes ids; NULL until the first ones come
    char *h                  # [layer][N][R]
    char *c                  # [layer][N][H], or NULL
    Py_ssize_t streams       # N
    void **x                 # [layer][N] rows of this step: input,
    void **h_rows            # [layer][N]   h before it,
    void **out_rows          # [layer][N]   h after it,
    void **middle            # [N]   r*h or m between two phases
    char *cell               # [N][groups*LANES] c or z, padded
    void **starts[MAX_PHASES]  # [N] rows of the first layer's tables, where ids number them
    char *between[2]         # [N][R] what one layer hands to the next
    int turn                 # 1 in every other step
    fastrnn_barrier barrier

cdef struct Step:            # one of them
    Steps *steps
    const char *x            # [n] rows of the first layer's input, or
    Py_ssize_t x_stride
    const int64_t *ids       #   rows ids[0..n) of a matrix of them; NULL: in order
    const int64_t *rows      # streams rows[0..n), or 0..n where it is NULL
    Py_ssize_t n
    char *out


cdef Py_ssize_t lay_out_steps(Steps *steps, char *block, Py_ssize_t used) noexcept nogil:
    """Point all but the states into `block`, from `used` on; returns where it ends."""
    cdef const Network *net = steps.net
    cdef Py_ssize_t pointers = steps.streams * sizeof(void *), i
    cdef char *middle
    used = carve(block, used, net.layers * pointers, <void **>&steps.x)
    used = carve(block, used, net.layers * pointers, <void **>&steps.h_rows)
    used = carve(block, used, net.layers * pointers, <void **>&steps.out_rows)
    used = carve(block, used, pointers, <void **>&steps.middle)
    for i in range(MAX_PHASES):
        used = carve(block, used, pointers, <void **>&steps.starts[i])
    used = carve(block, used, steps.streams * net.padded, <void **>&steps.cell)
    used = carve(block, used, steps.streams * net.padded if net.phases > 1 else 0, <void **>&middle)
    for i in range(2):
        used = carve(block, used, steps.streams * net.state * net.itemsize if net.layers - 1 > i else 0, <void **>&steps.between[i])
    if block != NULL:
        for i in range(steps.streams):
            steps.middle[i] = middle + i * net.padded
    return used


cdef void look_up_starts(const Step *step) noexcept nogil:
    """Point at the rows of the first layer's tables."""
    cdef const Network *net = step.steps.by_ids
    cdef const Direction *direction = &net.directions[0]
    cdef Py_ssize_t row, size
    cdef int i
    for i in range(direction.phases):
        if direction.table[i] != NULL:
            size = direction.sums[i] * net.itemsize
            for row in range(step.n):
                step.steps.starts[i][row] = <void *>(direction.table[i] + step.ids[row] * size)


cdef void prepare(const Step *step) noexcept nogil:
    """Point at the rows of all layers' steps, and at those of the first one's tables: by one thread, so that the others need not wait for it."""
    cdef Steps *steps = step.steps
    cdef const Network *net = network(steps, step.ids != NULL)
    cdef Py_ssize_t h_bytes = net.state * net.itemsize, x_stride = step.x_stride, layer, row, at, first = 0
    cdef const int64_t *ids = step.ids
    cdef const char *x = step.x
    cdef char *target
    check(step.n <= steps.streams)
    steps.turn ^= 1
    for layer in range(net.layers):
        target = step.out if layer == net.layers - 1 else steps.between[layer % 2]
        for row in range(step.n):
            at = step.rows[row] if step.rows != NULL else row
            check_index(at, steps.streams)
            if ids != NULL:
                check_index(ids[row], net.directions[0].vocab)
            steps.x[first + row] = <void *>(x + (ids[row] if ids != NULL else row) * x_stride)
            steps.h_rows[first + row] = steps.h + (first + at) * h_bytes
            steps.out_rows[first + row] = target + row * h_bytes
        x, x_stride, ids = target, h_bytes, NULL
        first += steps.streams
    if step.ids != NULL:
        look_up_starts(step)


cdef inline char *cells(const Step *step, Py_ssize_t layer) noexcept nogil:
    """Where kernels find c: in the state, if its rows are padded as they want it and all take part, else where `copy_cells` gathers it."""
    cdef const Steps *steps = step.steps
    cdef Py_ssize_t c_bytes = steps.net.hidden * steps.net.itemsize
    if steps.c != NULL and step.rows == NULL and c_bytes == steps.net.padded:
        return steps.c + layer * steps.streams * c_bytes
    return steps.cell


cdef inline void copy_cells(const Step *step, Py_ssize_t layer, Py_ssize_t begin, Py_ssize_t end, bint back) noexcept nogil:
    """Copy bytes `begin` to `end` of each row's c to where kernels want it, padded and row below row, or back: whoever computes them."""
    cdef Steps *steps = step.steps
    cdef Py_ssize_t c_bytes = steps.net.hidden * steps.net.itemsize, first = layer * steps.streams, row
    cdef char *kept
    cdef char *cell
    end = min(end, c_bytes)
    for row in range(step.n):
        kept, cell = steps.c + (first + (step.rows[row] if step.rows != NULL else row)) * c_bytes, steps.cell + row * steps.net.padded
        if back:
            memcpy(kept + begin, cell + begin, end - begin)
        else:
            memcpy(cell + begin, kept + begin, end - begin)


cdef inline void keep_h(const Step *step, Py_ssize_t layer, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """Copy bytes `begin` to `end` of each row's new h to the state, once nobody reads the old one: it has one place so, for 5 ns a row."""
    cdef Steps *steps = step.steps
    cdef Py_ssize_t h_bytes = steps.net.state * steps.net.itemsize, row
    cdef void **h = steps.h_rows + layer * steps.streams
    cdef void **out = steps.out_rows + layer * steps.streams
    end = min(end, h_bytes)
    for row in range(step.n):
        memcpy(<char *>h[row] + begin, <char *>out[row] + begin, end - begin)


cdef void advance(void *context, int member, int members) noexcept nogil:
    """One step that is prepared, by all members together: each does its share of the blocks, and of c.

    After the last layer they do not meet, for the end of a job is a barrier too: its h is left for `keep_last`.
    """
    cdef const Step *step = <const Step *>context
    cdef Steps *steps = step.steps
    cdef const Network *net = network(steps, step.ids != NULL)
    cdef const Direction *direction
    cdef const fastrnn_phase *phase
    cdef Py_ssize_t layer, begin, end, block, first = 0
    cdef Team team
    cdef fastrnn_step io
    cdef bint gathered
    cdef int i
    team.part, team.parts, team.apart, team.barrier = member, members, False, &steps.barrier
    for layer in range(net.layers):
        direction = &net.directions[layer]
        io.cell, io.cell_stride = cells(step, layer), net.padded // net.itemsize
        if members > 1 and step.n == 1:      # of more rows, others come while one is waited for: 4 rows would take 1 % longer
            fetch_rows(<const void *const *>(steps.x + first), 1, 0, direction.phase[0].inputs * net.itemsize)
            fetch_rows(<const void *const *>(steps.h_rows + first), 1, 0, direction.phase[0].depth * net.itemsize)
        for i in range(direction.phases):
            phase = &direction.phase[i]
            begin, end = share(&team, direction.blocks[i], member), share(&team, direction.blocks[i], member + 1)
            block = fastrnn_phase_block(direction.kind[i]) * FASTRNN_GROUP_BYTES
            gathered = i == 0 and steps.c != NULL and io.cell == steps.cell
            if gathered:
                copy_cells(step, layer, begin * block, end * block, False)
            io.x = <const void *const *>(steps.x + first if phase.inputs else NULL)
            io.start, io.start_stride = phase.b, 0
            io.starts = <const void *const *>(steps.starts[i] if direction.table[i] != NULL else NULL)
            io.h = <const void *const *>(steps.h_rows + first if i == 0 else steps.middle)
            io.prev = <const void *const *>(steps.h_rows + first)
            io.out = <void *const *>(steps.out_rows + first if i == direction.phases - 1 else steps.middle)
            io.soon, io.ahead = NULL, NULL
            io.descending = steps.turn
            if is_far_table(direction, i, net.itemsize):
                fetch_rows(io.starts, step.n, share(&team, direction.sums[i] * net.itemsize, member), share(&team, direction.sums[i] * net.itemsize, member + 1))
            net.kernels.step[direction.kind[i]](phase, &io, begin, end, 0, step.n)
            if gathered:
                copy_cells(step, layer, begin * block, end * block, True)
            if i < direction.phases - 1:
                meet(&team)
            elif layer < net.layers - 1:
                meet(&team)
                keep_h(step, layer, begin * block, end * block)
        first += steps.streams


cdef inline void keep_last(const Step *step) noexcept nogil:
    """Keep all of the last layer's h, once all members are done."""
    keep_h(step, step.steps.net.layers - 1, 0, PY_SSIZE_T_MAX)


cdef void take(Step *step, int members) noexcept nogil:
    """One step, by so many members."""
    prepare(step)
    if members == 1:
        advance(step, 0, 1)
    else:
        fastrnn_barrier_init(&step.steps.barrier)
        fastrnn_pool_run(members, advance, step)
    keep_last(step)


cdef Py_ssize_t step_work(const Network *net) noexcept nogil:
    """Multiply-adds of a step of one row."""
    cdef const fastrnn_phase *phase
    cdef Py_ssize_t work = 0, layer, i
    for layer in range(net.layers):
        for i in range(net.phases):
            phase = &net.directions[layer].phase[i]
            work += fastrnn_phase_gates(net.directions[layer].kind[i]) * phase.units * (phase.inputs + phase.depth)
    return work


@cython.auto_pickle(False)
cdef class Alone:
    """One call at a time: the compiled part of `fastrnn.stream.Rows`."""

    cdef bint busy               # a call is inside; read and written with the GIL held

    def _alone(self, work, *arguments):
        """As `fastrnn.stream.Rows._alone`, for steps that do not pass through there."""
        if self.busy:
            from fastrnn import checks  # not at first: `import fastrnn` is quick
            raise checks.stream_in_use()
        self.busy = True
        try:
            return work(*arguments)
        finally:
            self.busy = False


@cython.auto_pickle(False)
cdef class Stepper(Alone):
    """The compiled part of a LayerStream, which inherits from it first and then from `stream.LayerStream`, and so does what that does.

    What a step with unusual arguments needs, conversions, checks and messages, is the other base's `step`.
    """

    cdef object engine           # owns the network and its weights,
    cdef object states           #   h and c, which the pointers below point into
    cdef Steps steps
    cdef int threads
    cdef bint forced             # for tests: always on all of them
    cdef Py_ssize_t inputs       # I
    cdef int ndim                # of x and of the result: 1 for a single stream without an axis for it
    cdef int dtype               # NumPy's number
    cdef Py_ssize_t work         # multiply-adds of a step of one row
    cdef Py_ssize_t judged       # rows of which the model was asked last whether threads may save time, and
    cdef bint may_share          #   what it said
    cdef int64_t choice          # calls of `choose` so far
    cdef char *block             # the memory that `steps` points into, but for the states, and of
    cdef int64_t *chosen         # [N] the choice that named this stream last

    def __cinit__(self):
        self.inputs = -1         # what no array has: until __init__ all steps are unusual

    def __init__(self, Engine engine not None, tuple states not None, bint batched, int threads=1, *, bint forced=False):
        cdef cnp.ndarray h = states[0], c
        cdef const Network *net = &engine.net
        cdef void *block
        if self.block != NULL:
            raise RuntimeError("a Stream is initialised once")
        self.steps.net, self.steps.streams = net, cnp.PyArray_DIM(h, 1)
        if posix_memalign(&block, FASTRNN_LINE, self.lay_out(NULL)):
            raise MemoryError(f"fastrnn could not get {self.lay_out(NULL)} bytes of workspace")
        memset(block, 0, self.lay_out(NULL))
        self.block = <char *>block
        self.lay_out(self.block)
        self.engine, self.states = engine, states
        self.threads, self.forced = threads, forced
        self.steps.h = cnp.PyArray_BYTES(h)
        if len(states) == 2:
            c = states[1]
            self.steps.c = cnp.PyArray_BYTES(c)
        self.dtype, self.ndim = cnp.PyArray_TYPE(h), 1 + batched
        self.work = step_work(net)
        self.inputs = net.directions[0].phase[0].inputs

    def __dealloc__(self):
        free(self.block)

    @cython.final
    cdef Py_ssize_t lay_out(self, char *block) noexcept:
        """Point everything into `block`; returns the bytes it takes."""
        cdef Py_ssize_t used = carve(block, 64, self.steps.streams * sizeof(int64_t), <void **>&self.chosen)
        return lay_out_steps(&self.steps, block, used)

    def step(self, x, *, rows=None, out=None):
        """Advance by one time step: see `stream.LayerStream.step`."""
        cdef Py_ssize_t n = self.steps.streams if rows is None else self.choose(rows)
        cdef const int64_t *chosen = NULL
        cdef cnp.npy_intp shape[2]
        if self.busy or n < 0 or not fits(x, self.dtype, cnp.NPY_ARRAY_CARRAY_RO, self.ndim, n, self.inputs):
            return super().step(x, rows=rows, out=out)
        if out is None:
            shape[0], shape[self.ndim - 1] = n, self.steps.net.state
            out = cnp.PyArray_EMPTY(self.ndim, shape, self.dtype, 0)
        elif not (fits(out, self.dtype, cnp.NPY_ARRAY_CARRAY, self.ndim, n, self.steps.net.state) and apart(out, x)
                  and (rows is None or apart(out, rows))):
            return super().step(x, rows=rows, out=out)
        if rows is not None:
            chosen = <const int64_t *>cnp.PyArray_DATA(rows)
        self.busy = True
        self.run(cnp.PyArray_BYTES(x), self.inputs * self.steps.net.itemsize, chosen, n, cnp.PyArray_BYTES(out))
        self.busy = False
        return out

    def _advance(self, cnp.ndarray x not None, cnp.ndarray rows, cnp.ndarray out not None):
        """As `stream.LayerStream._advance`."""
        cdef const int64_t *chosen = NULL
        if rows is not None:
            chosen = <const int64_t *>cnp.PyArray_DATA(rows)
        self.run(cnp.PyArray_BYTES(x), cnp.PyArray_STRIDE(x, 0), chosen, cnp.PyArray_DIM(x, 0), cnp.PyArray_BYTES(out))

    def _repeat(self, cnp.ndarray x not None, cnp.ndarray out not None, Py_ssize_t count):
        """`count` steps from C, for bench/stream_overhead.py: x (N, I) and out (N, R) as `step` makes them."""
        cdef Py_ssize_t i
        cdef Step step
        step.steps, step.ids, step.rows, step.n = &self.steps, NULL, NULL, self.steps.streams
        step.x, step.x_stride, step.out = cnp.PyArray_BYTES(x), self.inputs * self.steps.net.itemsize, cnp.PyArray_BYTES(out)
        with nogil:
            for i in range(count):
                take(&step, 1)

    @cython.final
    cdef Py_ssize_t choose(self, rows) noexcept:
        """Number of the streams that `rows` names, or -1 where it takes more to tell which they are."""
        cdef Py_ssize_t n, i
        cdef const int64_t *row
        if self.busy or self.ndim == 1 or not plain(rows, cnp.NPY_INT64, cnp.NPY_ARRAY_CARRAY_RO, 1):
            return -1
        n, row = cnp.PyArray_DIM(rows, 0), <const int64_t *>cnp.PyArray_DATA(rows)
        self.choice += 1
        for i in range(n):
            if row[i] < 0 or row[i] >= self.steps.streams or self.chosen[row[i]] == self.choice:
                return -1
            self.chosen[row[i]] = self.choice
        return n

    @cython.final
    cdef void run(self, const char *x, Py_ssize_t x_stride, const int64_t *rows, Py_ssize_t n, char *out) noexcept:
        cdef Step step
        cdef bint shared
        cdef int members
        step.steps, step.ids = &self.steps, NULL
        step.x, step.x_stride, step.rows, step.n, step.out = x, x_stride, rows, n, out
        if n * self.work < RELEASE_WORK and not self.forced:
            take(&step, 1)
            return
        shared = self.shared(n)
        members = self.members(n) if shared else 1
        with nogil:
            take(&step, members)
            if shared:
                fastrnn_pool_leave()

    @cython.final
    cdef bint pays(self, Py_ssize_t n, int threads, double launch, double meeting) noexcept:
        """Whether a step of n rows takes less time on so many threads, with a launch and meetings of so many ns."""
        return saves(step_time(self.steps.net, 0, n, 1, 0), step_time(self.steps.net, 0, n, threads, meeting) + launch)

    @cython.final
    cdef bint shared(self, Py_ssize_t n) noexcept:
        """Whether a step of n rows may go to several threads, and so enters the pool: 0.08 us, of which others are spared."""
        if self.forced or self.threads == 1:
            return self.forced
        if n != self.judged:
            self.judged, self.may_share = n, self.pays(n, most_threads(self.threads), LAUNCH_AWAKE, FASTRNN_MEETING)
        return self.may_share

    @cython.final
    cdef int members(self, Py_ssize_t n) noexcept:
        """Threads for a step of n rows that enters: all that may be used now, or one."""
        cdef int threads = threads_now(self.threads)
        cdef double begin, meeting
        if self.forced:
            return self.threads
        if threads < 2:
            return 1
        meeting = fastrnn_pool_meeting()
        begin = launch(meeting)
        if threads == most_threads(self.threads) and begin == LAUNCH_AWAKE:
            return threads           # `shared` has asked this
        return threads if self.pays(n, threads, begin, meeting) else 1
