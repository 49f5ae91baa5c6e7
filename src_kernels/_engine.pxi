# Layers and directions of one network, and the Python object that runs them.

cdef struct Network:
    const fastrnn_kernels *kernels
    Direction *directions      # [layer*D + direction]
    Py_ssize_t layers
    Py_ssize_t ways            # D
    Py_ssize_t hidden          # H
    Py_ssize_t padded          # bytes of whole groups of H units: of a row of c or z
    Py_ssize_t state           # R: P or H
    Py_ssize_t itemsize
    Py_ssize_t phases
    Py_ssize_t ahead           # the most inputs that steps of one row project on the way; 0 for none


cdef Py_ssize_t carve(char *block, Py_ssize_t used, Py_ssize_t size, void **part) noexcept nogil:
    """Reserve `size` bytes of whole lines, so that threads do not write to one; without a block only count them."""
    check(used >= 0)
    check(size >= 0)
    part[0] = block + used if block != NULL else NULL
    return used + (size + FASTRNN_LINE - 1) // FASTRNN_LINE * FASTRNN_LINE


cdef Py_ssize_t lay_out_member(const Network *net, Py_ssize_t rows, char *block, Workspace *work) noexcept nogil:
    """Point what belongs to one thread into `block`; returns the bytes it takes."""
    cdef Py_ssize_t pointers = rows * sizeof(void *), used = 0, i
    used = carve(block, used, pointers, <void **>&work.x)
    used = carve(block, used, pointers, <void **>&work.h)
    used = carve(block, used, pointers, <void **>&work.out)
    used = carve(block, used, pointers, <void **>&work.middle)
    used = carve(block, used, pointers, <void **>&work.numbered)
    used = carve(block, used, pointers, <void **>&work.soon)
    used = carve(block, used, FAR_TILE_ROWS * sizeof(void *), <void **>&work.tile_x)
    for i in range(net.phases):
        used = carve(block, used, FASTRNN_AHEAD_BYTES, <void **>&work.ahead[i])
        used = carve(block, used, net.ahead * FASTRNN_AHEAD * net.itemsize, <void **>&work.packed[i])
    used = carve(block, used, rows * sizeof(int64_t), <void **>&work.order)
    used = carve(block, used, rows * sizeof(int64_t), <void **>&work.lengths)
    return used


cdef Py_ssize_t lay_out_team(const Network *net, Py_ssize_t rows, char *block, Workspace *work) noexcept nogil:
    """The same for what a team shares; a member's own part is laid out before."""
    cdef Py_ssize_t used = 0, most, i, k
    cdef Direction *direction
    cdef void *unused
    used = carve(block, used, rows * net.padded, <void **>&work.cell)
    if net.phases > 1:
        for i in range(rows):
            if block != NULL:
                work.middle[i] = block + used + i * net.padded
        used = carve(block, used, rows * net.padded, <void **>&unused)
    for i in range(net.phases):
        most = 0
        for k in range(net.layers * net.ways):
            direction = &net.directions[k]
            if direction.phase[i].inputs:
                most = max(most, tile_rows(direction, net.itemsize) * direction.sums[i] * net.itemsize)
        used = carve(block, used, most, <void **>&work.start[i])
    return used


cdef Py_ssize_t chunk_steps(const Network *net, Py_ssize_t rows, Py_ssize_t steps) noexcept nogil:
    """Steps that go through all layers together. A backward direction needs all of them at once."""
    if net.ways == 2 or net.layers == 1:
        return steps
    return min(steps, max(1, CHUNK_ROWS // max(rows, 1)))


cdef struct Member:           # of the threads of a call
    Py_ssize_t batch          # B, rows of the whole batch
    Py_ssize_t first          # its rows, longest first: first, first + every, ..
    Py_ssize_t every
    int way                   # its direction; -1 for all
    Team team
    fastrnn_barrier *layer_barrier   # where directions that run at once meet after each layer
    int layer_members


cdef void run_network(const Network *net, const Batch *whole, const int64_t *lengths, Workspace *work, const Member *me, Py_ssize_t chunk,
                      Sequence x, Sequence y, const char *h0, char *hn, const char *c0, char *cn) noexcept nogil:
    """All layers for the rows of one member: `whole`, with their `lengths` if any, in chunks of time."""
    cdef Py_ssize_t per_h = me.batch * net.state * net.itemsize, per_c = me.batch * net.hidden * net.itemsize
    cdef Py_ssize_t start, layer, way, k, row, width = net.state * net.itemsize
    cdef Sequence source, target
    cdef Batch batch
    batch = whole[0]
    start = 0
    while True:
        batch.steps = min(chunk, whole.steps - start)
        if lengths != NULL:
            batch.lengths = work.lengths
            for row in range(whole.rows):
                work.lengths[row] = min(max(lengths[me.first + row * me.every] - start, 0), batch.steps)
        source = x
        source.data = x.data + start * x.time
        for layer in range(net.layers):
            batch.blank = whole.blank or layer < net.layers - 1     # what lies between layers is not read there
            if layer == net.layers - 1:
                target = y
                target.data = y.data + start * y.time
            else:
                target.data = work.between[layer % 2]
                target.batch = net.ways * width
                target.time = me.batch * target.batch
            for way in range(net.ways):
                if me.way < 0 or me.way == way:
                    k = layer * net.ways + way
                    forward_layer(&net.directions[k], net.kernels, &batch, work, &me.team, net.itemsize, way == 1, source, target,
                            (h0 if start == 0 else hn) + k * per_h, hn + k * per_h,
                            (c0 if start == 0 else cn) + k * per_c if c0 != NULL else NULL, cn + k * per_c if c0 != NULL else NULL)
                target.data += width
            target.data -= net.ways * width
            source = target
            if me.way >= 0:
                fastrnn_barrier_wait(me.layer_barrier, me.layer_members)
        start += chunk
        if start >= whole.steps:
            break


include "_split.pxi"


cdef Sequence sequence(cnp.ndarray array):
    cdef Sequence result
    result.data = <char *>cnp.PyArray_DATA(array)
    result.time = cnp.PyArray_STRIDE(array, 0)
    result.batch = cnp.PyArray_STRIDE(array, 1)
    return result


cdef double mean_length(const Call *call) noexcept nogil:
    cdef Py_ssize_t total = 0, row
    for row in range(call.rows):
        total += call.lengths[row]
    return <double>total / max(call.rows, 1)


cdef int longest_first(Call *call, int64_t *order) except -1:
    """Put rows in order of their lengths, rows of one length as they came: numbers and lengths go to order[0..2*rows)."""
    cdef int64_t *lengths = order + call.rows
    cdef cnp.npy_intp rows = call.rows
    cdef Py_ssize_t row
    for row in range(rows):
        order[row] = (call.steps - call.lengths[row]) * rows + row
    cnp.PyArray_SimpleNewFromData(1, &rows, cnp.NPY_INT64, order).sort()
    for row in range(rows):
        lengths[row] = call.steps - order[row] // rows
        order[row] %= rows
    call.order, call.lengths = order, lengths
    return 0


@cython.final
cdef class Engine:
    """A plan made ready for one tier: ``engine(x, state, lengths, y, state_out, threads)``, as backends.py describes."""

    cdef Network net
    cdef Network by_ids    # the same for ids, from the first call with them on; until then .directions is NULL
    cdef object plan       # owns the weights that the directions point into,
    cdef tuple tables      #   and what ids number
    cdef char *spare       # the workspace of an earlier call, for the next one; a call that finds none makes its own
    cdef Split forced      # for tests; .rows is 0 where the cost model decides
    cdef fastrnn_team team # whose threads it runs on; .parallel is NULL where these are the pool's

    def __cinit__(self, plan, *, str tier=None, tuple split=None):
        cdef Py_ssize_t i, k
        cdef fastrnn_phase *phase
        packed, self.plan, self.tables = plan.packed, plan, ()
        if split is not None:
            self.forced.rows, self.forced.ways, self.forced.blocks, self.forced.apart = split
        self.net.kernels = fastrnn_get_kernels(_tier if tier is None else _tier_number(tier), _dtype_number(plan.dtype))
        self.net.layers, self.net.ways = plan.num_layers, plan.num_directions
        self.net.hidden, self.net.state = plan.hidden_size, plan.proj_size or plan.hidden_size
        self.net.itemsize = plan.dtype.itemsize
        self.net.padded = groups_of(self.net.hidden, self.net.itemsize) * FASTRNN_GROUP_BYTES
        self.net.directions = <Direction *>calloc(len(packed), sizeof(Direction))
        if self.net.directions == NULL:
            raise MemoryError()
        self.net.phases = len(plan.phases)
        for k, parts in enumerate(packed):
            self.net.directions[k].phases = self.net.phases
            for i, part in enumerate(parts):
                name = plan.phases[i].name
                phase = &self.net.directions[k].phase[i]
                self.net.directions[k].kind[i] = _PHASES[name]
                phase.w_x, phase.w_h = cnp.PyArray_DATA(part.w_x), cnp.PyArray_DATA(part.w_h)
                phase.b, phase.b_h = cnp.PyArray_DATA(part.b), cnp.PyArray_DATA(part.b_h)
                phase.inputs = plan.input_size if k < self.net.ways else self.net.ways * self.net.state
                phase.depth, phase.units = self.net.state, self.net.hidden
                if name == "project":
                    phase.inputs, phase.depth, phase.units = 0, self.net.hidden, self.net.state
                phase.activation = _ACTIVATIONS[plan.activation]
                phase.flush = i == self.net.phases - 1
            measure(&self.net.directions[k], self.net.itemsize)
            if can_look_ahead(&self.net.directions[k], self.net.kernels, self.net.itemsize):
                self.net.ahead = max(self.net.ahead, self.net.directions[k].phase[0].inputs)

    def __dealloc__(self):
        free(self.net.directions)
        free(self.by_ids.directions)
        free(self.spare)

    @property
    def table_bytes(self):
        """What the tables that ids number take: 0 until the first call with ids, or where there are none."""
        return sum([table.nbytes for tables in self.tables for table in tables])

    def borrow(self, size_t parallel, size_t number, size_t count):
        """Run on the threads of an OpenMP library: addresses of GOMP_parallel, omp_get_thread_num and omp_get_num_threads."""
        self.team.number, self.team.count, self.team.parallel = <void *>number, <void *>count, <void *>parallel

    def __call__(self, cnp.ndarray x not None, tuple state not None, cnp.ndarray lengths, cnp.ndarray y not None, tuple state_out not None,
                 int threads=1, bint blank=False):
        cdef Call call
        call.net = &self.net if cnp.PyArray_NDIM(x) == 3 else self.network_by_ids()
        call.x, call.y = sequence(x), sequence(y)
        call.h0 = <const char *>cnp.PyArray_DATA(<cnp.ndarray?>state[0])
        call.hn = <char *>cnp.PyArray_DATA(<cnp.ndarray?>state_out[0])
        call.c0, call.cn = NULL, NULL
        call.steps, call.rows = cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1)
        call.order, call.lengths, call.blank = NULL, NULL, blank
        if lengths is not None:
            lengths = cnp.PyArray_FROMANY(lengths, cnp.NPY_INT64, 1, 1, cnp.NPY_ARRAY_CARRAY_RO)
            call.lengths = <const int64_t *>cnp.PyArray_DATA(lengths)
        if len(state) == 2:
            call.c0 = <const char *>cnp.PyArray_DATA(<cnp.ndarray?>state[1])
            call.cn = <char *>cnp.PyArray_DATA(<cnp.ndarray?>state_out[1])
        self.run(&call, threads)

    def apply(self, cnp.ndarray x not None, list state not None, bint batch_first, bint cell, int threads=1):
        """[y, h', ...] of a call as torch's modules have it, of a cell [h', ...]: new arrays. `state` may be empty; None if a shape does not fit.

        __call__ with the Python around it, for calls that are shorter than that.
        """
        cdef Call call
        cdef cnp.npy_intp shape[3]
        cdef int number = cnp.NPY_FLOAT if self.net.itemsize == sizeof(float) else cnp.NPY_DOUBLE
        cdef int axes = cnp.PyArray_NDIM(x), states = 2 if self.net.directions[0].kind[0] == FASTRNN_LSTM else 1, n = 0, i, time, batch
        cdef bint batched = axes == 3 - cell
        cdef cnp.ndarray start, y
        cdef list starts = [], results = []
        if (axes != 2 - cell + batched or cnp.PyArray_DIM(x, axes - 1) != self.net.directions[0].phase[0].inputs or cnp.PyArray_SIZE(x) == 0
                or state and len(state) != states or cnp.PyArray_TYPE(x) != number):
            return None
        if cnp.PyArray_STRIDE(x, axes - 1) != self.net.itemsize:
            x = cnp.PyArray_GETCONTIGUOUS(x)
        time, batch = batched and batch_first, batched and not (batch_first or cell)
        call.steps = 1 if cell else cnp.PyArray_DIM(x, time)
        call.rows = cnp.PyArray_DIM(x, batch) if batched else 1
        if not cell:
            shape[0] = self.net.layers * self.net.ways
            n = 1
        if batched:
            shape[n] = call.rows
            n += 1
        for i in range(states):
            shape[n] = self.net.hidden if i else self.net.state
            if state:
                start = <cnp.ndarray?>state[i]
                if cnp.PyArray_NDIM(start) != n + 1 or cnp.PyArray_TYPE(start) != number or memcmp(cnp.PyArray_DIMS(start), shape, (n + 1) * sizeof(shape[0])):
                    return None
                starts.append(cnp.PyArray_GETCONTIGUOUS(start))
            else:
                starts.append(cnp.PyArray_ZEROS(n + 1, shape, number, 0))
            results.append(cnp.PyArray_EMPTY(n + 1, shape, number, 0))
        if cell:
            y = results[0]
        else:
            memcpy(shape, cnp.PyArray_DIMS(x), axes * sizeof(shape[0]))
            shape[axes - 1] = self.net.ways * self.net.state
            y = cnp.PyArray_EMPTY(axes, shape, number, 0)
        call.net = &self.net
        call.x.data, call.y.data = <char *>cnp.PyArray_DATA(x), <char *>cnp.PyArray_DATA(y)
        call.x.time, call.y.time = cnp.PyArray_STRIDE(x, time), cnp.PyArray_STRIDE(y, time)     # of one step or one row any will do
        call.x.batch, call.y.batch = cnp.PyArray_STRIDE(x, batch), cnp.PyArray_STRIDE(y, batch)
        call.h0, call.hn = <const char *>cnp.PyArray_DATA(<cnp.ndarray>starts[0]), <char *>cnp.PyArray_DATA(<cnp.ndarray>results[0])
        call.c0, call.cn = NULL, NULL
        if states == 2:
            call.c0, call.cn = <const char *>cnp.PyArray_DATA(<cnp.ndarray>starts[1]), <char *>cnp.PyArray_DATA(<cnp.ndarray>results[1])
        call.order, call.lengths, call.blank = NULL, NULL, False
        self.run(&call, threads)
        return results if cell else [y, *results]

    cdef object run(self, Call *call, int threads):
        """What a call is to compute, on up to so many threads."""
        cdef bint entered
        cdef double alone
        cdef int members, most = threads
        cdef Py_ssize_t order_bytes = 0
        call.mean_steps = call.steps if call.lengths == NULL else mean_length(call)
        call.chunk = chunk_steps(call.net, call.rows, call.steps)
        alone = call_time(call.net, call.rows, call.mean_steps) if threads > 1 else 0
        entered = threads > 1 and saves(alone, alone / most_threads(threads) + LAUNCH_AWAKE) # else no split can
        threads = threads_now(threads) if entered else 1
        call.split = self.forced if self.forced.rows else best_split(call.net, call.rows, call.mean_steps, threads)
        members = call.split.rows * call.split.ways * call.split.blocks
        call.block, call.bytes = NULL, call_bytes(call)
        if call.lengths != NULL:
            order_bytes = 2 * call.rows * sizeof(int64_t)
        try:
            call.block = self.take(call.bytes + order_bytes)
            if call.lengths != NULL:
                longest_first(call, <int64_t *>(call.block + FASTRNN_LINE + call.bytes))
            with nogil:
                if members > 1:
                    lay_out_barriers(call)
                if members == 1:
                    run_member(call, 0, 1)
                elif self.team.parallel == NULL:
                    fastrnn_pool_run(members, run_member, call)
                else:
                    fastrnn_pool_run_on(&self.team, most, members, run_member, call)
        finally:
            if entered:
                fastrnn_pool_leave()
            if call.block != NULL:
                self.give_back(call.block)

    cdef const Network *network_by_ids(self) except NULL:
        """The network whose first layer takes ids, made at first use. Threads that meet here may all make tables; one stays."""
        cdef Direction *directions
        cdef Py_ssize_t way, vocab
        cdef int i
        if self.by_ids.directions != NULL:
            return &self.by_ids
        plan, embedding, vocab, tables = self.plan, self.plan.embedding, self.plan.vocab_size, ()
        if embedding is None:
            raise ValueError("x is ids, and the plan has no embedding")
        if plan.table_bytes:
            tables = plan.tables(self._project)
        # No Python code runs below, in which another thread could come in between.
        if self.by_ids.directions != NULL:
            return &self.by_ids
        directions = <Direction *>calloc(self.net.layers * self.net.ways, sizeof(Direction))
        if directions == NULL:
            raise MemoryError()
        memcpy(directions, self.net.directions, self.net.layers * self.net.ways * sizeof(Direction))
        for way in range(self.net.ways):
            directions[way].vocab = vocab
            if not tables:
                directions[way].embedding = <const char *>cnp.PyArray_DATA(<cnp.ndarray?>embedding)
                continue
            for i in range(self.net.phases):
                if directions[way].phase[i].inputs:
                    directions[way].table[i] = <const char *>cnp.PyArray_DATA(<cnp.ndarray?>tables[way][i])
                    directions[way].phase[i].inputs = 0
        self.by_ids = self.net
        self.by_ids.directions, self.tables = directions, tables
        return &self.by_ids

    def _project(self, int way, int i, cnp.ndarray table not None):
        """b + W_ih x of one phase for all rows x of the embedding, as `project_tile` has it."""
        cdef cnp.ndarray embedding = self.plan.embedding
        cdef const Direction *direction = &self.net.directions[way]
        cdef const fastrnn_phase *phase = &direction.phase[i]
        cdef Py_ssize_t vocab = cnp.PyArray_DIM(embedding, 0), first = 0, row, count
        cdef Py_ssize_t size = direction.sums[i] * self.net.itemsize
        cdef const char *x = cnp.PyArray_BYTES(embedding)
        cdef char *out = cnp.PyArray_BYTES(table)
        cdef const void *rows[TILE_ROWS]
        with nogil:
            while first < vocab:
                count = min(<Py_ssize_t>TILE_ROWS, vocab - first)
                for row in range(count):
                    rows[row] = x + (first + row) * phase.inputs * self.net.itemsize
                self.net.kernels.inputs(direction.kind[i], phase, rows, out + first * size, size // self.net.itemsize,
                                        0, direction.blocks[i], 0, count)
                first += count

    cdef char *take(self, Py_ssize_t size) except NULL:
        """A block of at least a line and `size` bytes, whose size stands in its first bytes."""
        cdef char *block = self.spare
        cdef void *fresh
        if block != NULL and (<Py_ssize_t *>block)[0] >= size:
            self.spare = NULL
            return block
        if posix_memalign(&fresh, FASTRNN_LINE, size + FASTRNN_LINE):
            raise MemoryError(f"fastrnn could not get {size} bytes of workspace")
        (<Py_ssize_t *>fresh)[0] = size
        return <char *>fresh

    cdef void give_back(self, char *block) noexcept:
        """Keep the larger of this block and the one that is kept, up to a size that may linger."""
        if (<Py_ssize_t *>block)[0] > KEEP_BYTES or self.spare != NULL and (<Py_ssize_t *>self.spare)[0] >= (<Py_ssize_t *>block)[0]:
            free(block)
        else:
            free(self.spare)
            self.spare = block
