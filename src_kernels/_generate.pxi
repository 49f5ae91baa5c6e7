# Generation: the whole loop from an id through embedding, layers and logits to the next id, without the GIL.

cdef struct Generation:
    const fastrnn_kernels *kernels
    Py_ssize_t itemsize
    Links *links             # from ids to logits
    char *logits             # [R][V]
    Py_ssize_t size          # V
    char *p                  # [members][V] probabilities of a row
    int64_t *order           # [members][2][V] for `pick`
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
    Py_ssize_t *failed       # [members] the first row whose logits are not finite, or -1
    fastrnn_barrier barrier


cdef void begin(Generation *g, int members) noexcept nogil:
    """Find the rows that go on, none after a failure, and prepare their step."""
    cdef Py_ssize_t kept = 0, i
    cdef int64_t row
    for i in range(g.alive if failure(g, members) < 0 else 0):
        row = g.rows[i]
        if g.last[row] >= 0 and g.made[row] < g.most:
            g.rows[kept], g.ids[kept] = row, g.last[row]
            kept += 1
    g.alive = g.links.step.n = kept
    prepare_walk(g.links)


cdef Py_ssize_t failure(const Generation *g, int members) noexcept nogil:
    """The first row whose logits are not finite, or -1: rows are in order, and members take them so."""
    cdef int member
    for member in range(members):
        if g.failed[member] >= 0:
            return g.failed[member]
    return -1


cdef void finish(Generation *g, Py_ssize_t step, int member, int members) noexcept nogil:
    """Draw a token for each of a member's rows."""
    cdef char *p = g.p + member * g.size * g.itemsize
    cdef int64_t *order = g.order + member * 2 * g.size
    cdef Py_ssize_t i, k
    cdef int64_t row, token
    cdef char *at
    for i in range(g.alive * member // members, g.alive * (member + 1) // members):
        row, at = g.rows[i], g.logits + i * g.size * g.itemsize
        if g.itemsize == sizeof(float):
            token = pick(g.kernels, <const float *>at, <float *>p, g.size, &g.how, g.seeds[row], g.made[row], order)
        else:
            token = pick(g.kernels, <const double *>at, <double *>p, g.size, &g.how, g.seeds[row], g.made[row], order)
        if token < 0:
            g.failed[member] = row
            return
        g.last[row] = token
        for k in range(g.stop_count):
            if token == g.stops[k]:
                g.last[row] = -1
        if g.last[row] >= 0:
            g.tokens[row * g.steps + step] = token
            g.made[row] += 1


cdef void generate(void *context, int member, int members) noexcept nogil:
    """The tokens of a call: all members walk through the chain together, then each draws those of the rows whose logits it has written."""
    cdef Generation *g = <Generation *>context
    cdef Py_ssize_t step
    for step in range(g.steps):
        if member == 0:
            begin(g, members)
        fastrnn_barrier_wait(&g.barrier, members)
        if g.alive == 0:
            break
        walk(g.links, member, members)
        finish(g, step, member, members)
        fastrnn_barrier_wait(&g.barrier, members)


@cython.final
cdef class Generator:
    """Rows that are being written: ``generator(tokens)`` goes on with all that have not come to their end.

    parts      Engine and states (h (L, R, ..), ..), which change, for the layers of a network, the first one of a plan with the
               embedding; or DenseEngine and None
    embedding  as for Chain
    how        temperature, top_k (0: all), top_p
    seeds      (R,) uint64        stops (n,) int64        last, made (R,) int64, as in `Generation`, which change
    """

    cdef Generation g
    cdef Chain chain
    cdef list kept               # what the pointers point into
    cdef char *block

    def __cinit__(self, list parts not None, cnp.ndarray embedding not None, how, cnp.ndarray seeds not None, cnp.ndarray stops not None,
                  cnp.ndarray last not None, cnp.ndarray made not None, int64_t most, int threads=1):
        cdef Py_ssize_t rows = cnp.PyArray_DIM(last, 0)
        cdef DenseEngine head
        cdef void *block
        cdef Generation *g = &self.g
        self.kept = [seeds, stops, last, made]
        chained = [engine if states is None else Stepper(engine, states, True) for engine, states in parts]
        self.chain = Chain(chained, embedding, None if parts[0][1] is None else parts[0][0], rows, threads)
        head = chained[len(chained) - 1]
        g.kernels, g.itemsize, g.size, g.links = head.kernels, head.itemsize, head.phase.units, &self.chain.links
        g.how.temperature, g.how.top_k, g.how.top_p = how
        g.seeds = <const uint64_t *>cnp.PyArray_DATA(seeds)
        g.stops, g.stop_count = <const int64_t *>cnp.PyArray_DATA(stops), cnp.PyArray_DIM(stops, 0)
        g.last, g.made, g.most = <int64_t *>cnp.PyArray_DATA(last), <int64_t *>cnp.PyArray_DATA(made), most
        if posix_memalign(&block, FASTRNN_LINE, self.lay_out(NULL, rows)):
            raise MemoryError(f"fastrnn could not get {self.lay_out(NULL, rows)} bytes of workspace")
        self.block = <char *>block
        self.lay_out(self.block, rows)
        self.chain.read_ids(g.ids)
        g.links.step.rows, g.links.step.out = g.rows, g.logits

    cdef Py_ssize_t lay_out(self, char *block, Py_ssize_t rows) noexcept:
        """Point everything into `block`; returns the bytes it takes."""
        cdef Generation *g = &self.g
        cdef Py_ssize_t members = min(self.chain.threads, FASTRNN_MAX_MEMBERS)
        cdef Py_ssize_t used = carve(block, FASTRNN_LINE, rows * g.size * g.itemsize, <void **>&g.logits)
        used = carve(block, used, members * g.size * g.itemsize, <void **>&g.p)
        used = carve(block, used, members * 2 * g.size * sizeof(int64_t), <void **>&g.order)
        used = carve(block, used, members * sizeof(Py_ssize_t), <void **>&g.failed)
        used = carve(block, used, rows * sizeof(int64_t), <void **>&g.rows)
        return carve(block, used, rows * sizeof(int64_t), <void **>&g.ids)

    def __dealloc__(self):
        free(self.block)

    def __call__(self, cnp.ndarray tokens not None):
        """Write up to `steps` tokens to each row of tokens (R, steps), -1 where there is none; the row whose logits are not finite, or -1."""
        cdef Generation *g = &self.g
        cdef Py_ssize_t i
        cdef bint entered = self.chain.threads > 1
        cdef int members
        g.tokens, g.steps = <int64_t *>cnp.PyArray_DATA(tokens), cnp.PyArray_DIM(tokens, 1)
        g.alive = cnp.PyArray_DIM(tokens, 0)
        for i in range(g.alive):
            g.rows[i] = i
        tokens.fill(-1)
        members = self.chain.members(g.alive, True) if entered else 1
        fastrnn_barrier_init(&g.barrier)
        for i in range(members):
            g.failed[i] = -1
        with nogil:
            if members == 1:
                generate(g, 0, 1)
            else:
                fastrnn_pool_run(members, generate, g)
            if entered:
                fastrnn_pool_leave()
        return failure(g, members)
