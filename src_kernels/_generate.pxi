# Generation: the whole loop from an id through embedding, layers and logits to the next id, without the GIL.

cdef struct Part:            # of the chain from an id to logits: the layers of one network, or a dense layer
    Steps *steps             # NULL for a dense layer
    const fastrnn_phase *dense
    char *out                # [R] results
    Py_ssize_t out_bytes     # of one

cdef struct Generation:
    const fastrnn_kernels *kernels
    Py_ssize_t itemsize
    Part *parts
    Py_ssize_t count         # of parts
    const char *embedding    # [vocab] inputs of the first part, where that has no tables
    Py_ssize_t row_bytes
    Py_ssize_t size          # V
    char *p                  # [V] probabilities of a row
    int64_t *heap            # [V]
    void **x                 # [R] rows of a dense layer: input
    void **out               # [R]   and result;
    char *sums               # [R][groups*LANES] what its functions take
    int64_t *rows            # [alive] those that go on, in order
    int64_t *ids             # [alive] what they are fed
    Py_ssize_t alive
    Sampling how
    const uint64_t *seeds    # [R]
    const int64_t *stops
    Py_ssize_t stop_count
    int64_t *last            # [R] what each row is fed next; -1: it has come to a stop
    int64_t *made            # [R] tokens that it has
    int64_t most             # tokens of a row
    int64_t *tokens          # [R][steps] results, -1 where there is none
    Py_ssize_t steps
    Py_ssize_t failed        # a row whose logits are not finite, or -1
    fastrnn_barrier barrier


cdef void begin(Generation *g) noexcept nogil:
    """Find the rows that go on."""
    cdef Py_ssize_t kept = 0, i
    cdef int64_t row
    for i in range(g.alive):
        row = g.rows[i]
        if g.last[row] >= 0 and g.made[row] < g.most:
            g.rows[kept], g.ids[kept] = row, g.last[row]
            kept += 1
    g.alive = kept


cdef void finish(Generation *g, Py_ssize_t step) noexcept nogil:
    """Draw a token for each row that goes on."""
    cdef const Part *logits = &g.parts[g.count - 1]
    cdef Py_ssize_t i, k
    cdef int64_t row, token
    cdef char *at
    for i in range(g.alive):
        row, at = g.rows[i], logits.out + i * logits.out_bytes
        if g.itemsize == sizeof(float):
            token = pick(g.kernels, <const float *>at, <float *>g.p, g.size, &g.how, g.seeds[row], g.made[row], g.heap)
        else:
            token = pick(g.kernels, <const double *>at, <double *>g.p, g.size, &g.how, g.seeds[row], g.made[row], g.heap)
        if token < 0:
            g.failed, g.alive = row, 0
            return
        g.last[row] = token
        for k in range(g.stop_count):
            if token == g.stops[k]:
                g.last[row] = -1
        if g.last[row] >= 0:
            g.tokens[row * g.steps + step] = token
            g.made[row] += 1


cdef void generate(void *context, int member, int members) noexcept nogil:
    """The tokens of a call, by all members together: each does its share of every network's blocks, the first one all else."""
    cdef Generation *g = <Generation *>context
    cdef Py_ssize_t step, k, i
    cdef const Part *part
    cdef Step one
    one.rows = g.rows
    for step in range(g.steps):
        if member == 0:
            begin(g)
        fastrnn_barrier_wait(&g.barrier, members)
        if g.alive == 0:
            break
        one.n = g.alive
        for k in range(g.count):
            part = &g.parts[k]
            if k:
                one.x, one.x_stride, one.ids = g.parts[k - 1].out, g.parts[k - 1].out_bytes, NULL
            else:
                one.x, one.x_stride, one.ids = g.embedding, g.row_bytes, g.ids
            if part.steps != NULL:
                one.steps, one.out = part.steps, part.out
                if member == 0:
                    part.steps.turn ^= 1
                advance(&one, member, members)
            elif member == 0:
                for i in range(one.n):
                    g.x[i] = <void *>(one.x + (one.ids[i] if one.ids != NULL else i) * one.x_stride)
                    g.out[i] = part.out + i * part.out_bytes
                g.kernels.dense(part.dense, <const void *const *>g.x, g.sums, <void *const *>g.out, one.n)
        if member == 0:
            finish(g, step)


@cython.final
cdef class Generator:
    """Rows that are being written: ``generator(tokens)`` goes on with all that have not come to their end.

    parts      Engine and states (h (L, R, ..), ..), which change, for the layers of a network, the first one of a plan with the
               embedding; or DenseEngine and None
    embedding  (vocab, I), of the dtype of all parts: for a first part without tables
    how        temperature, top_k (0: all), top_p
    seeds      (R,) uint64        stops (n,) int64        last, made (R,) int64, as in `Generation`, which change
    """

    cdef Generation g
    cdef list kept               # what the pointers point into
    cdef char *block
    cdef int threads

    def __cinit__(self, list parts not None, cnp.ndarray embedding not None, how, cnp.ndarray seeds not None, cnp.ndarray stops not None,
                  cnp.ndarray last not None, cnp.ndarray made not None, int64_t most, int threads=1):
        cdef Py_ssize_t rows = cnp.PyArray_DIM(last, 0), sums = 0, k
        cdef Stepper stepper
        cdef DenseEngine dense
        cdef void *block
        cdef Generation *g = &self.g
        self.kept = [parts, embedding, seeds, stops, last, made]
        self.threads = threads
        g.count, g.itemsize = len(parts), cnp.PyArray_ITEMSIZE(embedding)
        g.parts = <Part *>calloc(g.count, sizeof(Part))
        if g.parts == NULL:
            raise MemoryError()
        for k, (engine, states) in enumerate(parts):
            if states is not None:
                stepper = Stepper(engine, states, True, by_ids=k == 0)
                self.kept.append(stepper)
                g.parts[k].steps = &stepper.steps
                g.parts[k].out_bytes = stepper.steps.net.state * g.itemsize
                g.kernels = stepper.steps.net.kernels
            else:
                dense = engine
                g.parts[k].dense = &dense.phase
                g.parts[k].out_bytes = dense.phase.units * g.itemsize
                g.kernels = dense.kernels
                sums = max(sums, dense_sums(&dense.phase, g.itemsize))
        g.size = g.parts[g.count - 1].out_bytes // g.itemsize
        g.embedding, g.row_bytes = cnp.PyArray_BYTES(embedding), cnp.PyArray_DIM(embedding, 1) * g.itemsize
        g.how.temperature, g.how.top_k, g.how.top_p = how
        g.seeds = <const uint64_t *>cnp.PyArray_DATA(seeds)
        g.stops, g.stop_count = <const int64_t *>cnp.PyArray_DATA(stops), cnp.PyArray_DIM(stops, 0)
        g.last, g.made, g.most = <int64_t *>cnp.PyArray_DATA(last), <int64_t *>cnp.PyArray_DATA(made), most
        if posix_memalign(&block, FASTRNN_LINE, self.lay_out(NULL, rows, sums)):
            raise MemoryError(f"fastrnn could not get {self.lay_out(NULL, rows, sums)} bytes of workspace")
        self.block = <char *>block
        self.lay_out(self.block, rows, sums)

    cdef Py_ssize_t lay_out(self, char *block, Py_ssize_t rows, Py_ssize_t sums) noexcept:
        """Point everything into `block`; returns the bytes it takes."""
        cdef Generation *g = &self.g
        cdef Py_ssize_t used = FASTRNN_LINE, k
        for k in range(g.count):
            used = carve(block, used, rows * g.parts[k].out_bytes, <void **>&g.parts[k].out)
        used = carve(block, used, g.size * g.itemsize, <void **>&g.p)
        used = carve(block, used, g.size * sizeof(int64_t), <void **>&g.heap)
        used = carve(block, used, rows * sizeof(void *), <void **>&g.x)
        used = carve(block, used, rows * sizeof(void *), <void **>&g.out)
        used = carve(block, used, rows * sums, <void **>&g.sums)
        used = carve(block, used, rows * sizeof(int64_t), <void **>&g.rows)
        return carve(block, used, rows * sizeof(int64_t), <void **>&g.ids)

    def __dealloc__(self):
        free(self.g.parts)
        free(self.block)

    def __call__(self, cnp.ndarray tokens not None):
        """Write up to `steps` tokens to each row of tokens (R, steps), -1 where there is none; the row whose logits are not finite, or -1."""
        cdef Generation *g = &self.g
        cdef Py_ssize_t i
        cdef int members
        g.tokens, g.steps = <int64_t *>cnp.PyArray_DATA(tokens), cnp.PyArray_DIM(tokens, 1)
        g.alive, g.failed = cnp.PyArray_DIM(tokens, 0), -1
        for i in range(g.alive):
            g.rows[i] = i
        tokens.fill(-1)
        members = self.members()
        fastrnn_barrier_init(&g.barrier)
        with nogil:
            if members == 1:
                generate(g, 0, 1)
            else:
                fastrnn_pool_run(members, generate, g)
            if self.threads > 1:
                fastrnn_pool_leave()
        return g.failed

    cdef int members(self) noexcept:
        """Threads of a call: all that may be used now, or one."""
        cdef Generation *g = &self.g
        cdef double alone = 0, together = 0
        cdef Py_ssize_t k
        cdef int threads
        if self.threads == 1:
            return 1
        threads = threads_now(self.threads)
        if threads < 2:
            return 1
        for k in range(g.count):
            if g.parts[k].steps != NULL:
                fastrnn_barrier_init(&g.parts[k].steps.barrier)
                alone += step_time(g.parts[k].steps.net, 0, g.alive, 1, False)
                together += step_time(g.parts[k].steps.net, 0, g.alive, threads, False)
        return threads if together < alone - alone / GAIN else 1
