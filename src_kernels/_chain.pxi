# Models, one step at a time: recurrent and dense layers, each fed by the one before, in one walk that streams and generation share.

from cpython.long cimport PyLong_AsLongLongAndOverflow

cdef object _int64 = np.int64

cdef struct Part:            # of a chain: the layers of one network, or a dense layer
    Steps *steps             # NULL for a dense layer
    DenseCall dense
    char *out                # [rows] what the next part reads; the last one writes where the step says
    Py_ssize_t out_bytes     # of one row

cdef struct Links:
    Part *parts
    Py_ssize_t count
    Step step                # what the first part reads, and where the last one writes
    fastrnn_barrier barrier  # of dense layers


cdef inline Step step_of(const Links *links, Py_ssize_t k) noexcept nogil:
    """What part k reads, and where it writes."""
    cdef Step step = links.step
    step.steps = links.parts[k].steps
    if k > 0:
        step.x, step.x_stride, step.ids = links.parts[k - 1].out, links.parts[k - 1].out_bytes, NULL
    if k < links.count - 1:
        step.out = links.parts[k].out
    return step


cdef void prepare_walk(const Links *links) noexcept nogil:
    """Prepare the steps of all networks."""
    cdef Py_ssize_t k
    cdef Step step
    for k in range(links.count):
        if links.parts[k].steps != NULL:
            step = step_of(links, k)
            prepare(&step)


cdef void walk(void *context, int member, int members) noexcept nogil:
    """One step through all parts, which is prepared: a member does its share of each network's blocks and of each dense layer's rows or blocks.

    They meet after each part but the last, whose h, if it is a network, is left for `end_walk`.
    """
    cdef Links *links = <Links *>context
    cdef DenseCall dense
    cdef Part *part
    cdef Step step
    cdef Py_ssize_t k
    for k in range(links.count):
        part = &links.parts[k]
        step = step_of(links, k)
        if k > 0 and links.parts[k - 1].steps == NULL:
            fastrnn_barrier_wait(&links.barrier, members)
        if part.steps == NULL:
            dense = part.dense
            dense.barrier = &links.barrier
            dense.x, dense.x_stride, dense.ids, dense.rows = step.x, step.x_stride, step.ids, step.n
            dense.out, dense.out_stride = step.out, part.out_bytes
            run_dense(&dense, member, members)
            continue
        advance(&step, member, members)
        if k < links.count - 1:
            fastrnn_barrier_wait(&part.steps.barrier, members)
            if member == 0:
                keep_last(&step)


cdef void end_walk(const Links *links) noexcept nogil:
    """After all members have walked."""
    cdef Step step
    if links.parts[links.count - 1].steps != NULL:
        step = step_of(links, links.count - 1)
        keep_last(&step)


cdef void take_walk(Links *links, int members) noexcept nogil:
    """One step through all parts, by so many members."""
    prepare_walk(links)
    if members == 1:
        walk(links, 0, 1)
    else:
        fastrnn_pool_run(members, walk, links)
    end_walk(links)


@cython.final
cdef class Chain:
    """What a step of a model goes through, for up to `rows` rows.

    parts      Stepper of as many streams, or DenseEngine, each fed by the one before
    embedding  (vocab, I), of the dtype of all parts and any stride of rows: what ids number, for a first part without tables; or None
    by_ids     Engine of the first part's plan with the embedding, or None where no network comes first
    """

    cdef Links links
    cdef list kept               # parts, and what else the pointers point into
    cdef Engine by_ids
    cdef const char *embedding
    cdef Py_ssize_t row_bytes    # of the embedding
    cdef Py_ssize_t itemsize
    cdef int threads
    cdef bint forced             # for tests: always on all of them
    cdef Py_ssize_t judged       # what the model was asked last: 2 n, + 1 for ids,
    cdef bint may_share          #   and what it said
    cdef char *block

    def __cinit__(self, list parts not None, cnp.ndarray embedding, Engine by_ids, Py_ssize_t rows, int threads=1, *, bint forced=False):
        cdef Part *part
        cdef Stepper stepper
        cdef DenseEngine dense
        cdef void *block
        self.kept, self.by_ids, self.threads, self.forced = [parts, embedding], by_ids, threads, forced
        self.links.parts = <Part *>calloc(len(parts), sizeof(Part))
        if self.links.parts == NULL:
            raise MemoryError()
        for given in parts:
            part = &self.links.parts[self.links.count]
            self.links.count += 1
            if isinstance(given, Stepper):
                stepper = given
                part.steps, self.itemsize = &stepper.steps, stepper.steps.net.itemsize
                part.out_bytes = stepper.steps.net.state * self.itemsize
            else:
                dense = given
                part.dense.kernels, part.dense.phase, self.itemsize = dense.kernels, &dense.phase, dense.itemsize
                part.out_bytes = dense.phase.units * self.itemsize
                lay_out_dense(&part.dense, rows, self.itemsize)
        if embedding is not None:
            self.embedding, self.row_bytes = cnp.PyArray_BYTES(embedding), cnp.PyArray_STRIDE(embedding, 0)
        if posix_memalign(&block, FASTRNN_LINE, self.lay_out(NULL, rows)):
            raise MemoryError(f"fastrnn could not get {self.lay_out(NULL, rows)} bytes of workspace")
        self.block = <char *>block
        self.lay_out(self.block, rows)

    def __dealloc__(self):
        free(self.links.parts)
        free(self.block)

    cdef Py_ssize_t lay_out(self, char *block, Py_ssize_t rows) noexcept:
        """Point everything into `block`; returns the bytes it takes."""
        cdef Py_ssize_t used = FASTRNN_LINE, share = 0, k
        cdef char *work
        for k in range(self.links.count):
            share = max(share, self.links.parts[k].dense.share)
            if k < self.links.count - 1:
                used = carve(block, used, rows * self.links.parts[k].out_bytes, <void **>&self.links.parts[k].out)
        used = carve(block, used, min(self.threads, FASTRNN_MAX_MEMBERS) * share, <void **>&work)
        for k in range(self.links.count):
            self.links.parts[k].dense.work = work
        return used

    cdef bint ready_for_ids(self) noexcept:
        """Whether ids are known and, where a network comes first, have their tables."""
        return self.embedding != NULL and (self.by_ids is None or self.links.parts[0].steps.by_ids != NULL)

    cdef int read_ids(self, const int64_t *ids) except -1:
        """Let these be what the first part reads."""
        if self.by_ids is not None:
            self.links.parts[0].steps.by_ids = self.by_ids.network_by_ids()
        self.links.step.x, self.links.step.x_stride, self.links.step.ids = self.embedding, self.row_bytes, ids
        return 0

    cdef const Network *network(self, Py_ssize_t k) noexcept:
        """What runs part k, a network."""
        return network(self.links.parts[k].steps, k == 0 and self.links.step.ids != NULL)

    cdef Py_ssize_t work(self) noexcept:
        """Multiply-adds of a step of one row."""
        cdef Py_ssize_t work = 0, k
        cdef Part *part
        for k in range(self.links.count):
            part = &self.links.parts[k]
            work += step_work(self.network(k)) if part.steps != NULL else part.dense.phase.units * part.dense.phase.inputs
        return work

    cdef bint pays(self, Py_ssize_t n, int threads, double launch, double meeting) noexcept:
        """As `Stepper.pays`."""
        cdef double alone = 0, together = launch
        cdef DenseCall dense
        cdef Py_ssize_t k
        for k in range(self.links.count):
            if self.links.parts[k].steps != NULL:
                alone += step_time(self.network(k), 0, n, 1, 0)
                together += step_time(self.network(k), 0, n, threads, meeting)
            else:
                dense = self.links.parts[k].dense
                dense.rows = n
                alone += rows_time(&dense, 1)
                together += blocks_time(&dense, threads) if by_blocks(&dense, threads) else rows_time(&dense, threads)
        return saves(alone, together)

    cdef bint shared(self, Py_ssize_t n) noexcept:
        """As `Stepper.shared`."""
        cdef Py_ssize_t question = 2 * n + (self.links.step.ids != NULL)
        if self.forced or self.threads == 1:
            return self.forced
        if question != self.judged:
            self.judged, self.may_share = question, self.pays(n, most_threads(self.threads), LAUNCH_AWAKE, FASTRNN_MEETING)
        return self.may_share

    cdef int members(self, Py_ssize_t n, bint many_steps) noexcept:
        """Threads for steps of n rows that enter: all that may be used now, or one."""
        cdef int threads = threads_now(self.threads)
        cdef double begin, meeting
        cdef Py_ssize_t k
        if self.forced:
            threads = self.threads
        elif threads < 2:
            return 1
        else:
            meeting = fastrnn_pool_meeting()
            begin = launch(meeting) if not many_steps or fastrnn_pool_crowded() else 0
            # One step that is launched at once on all threads is what `shared` has asked about.
            if (many_steps or threads < most_threads(self.threads) or begin > LAUNCH_AWAKE) and not self.pays(n, threads, begin, meeting):
                return 1
        fastrnn_barrier_init(&self.links.barrier)
        for k in range(self.links.count):
            if self.links.parts[k].steps != NULL:
                fastrnn_barrier_init(&self.links.parts[k].steps.barrier)
        return threads


@cython.auto_pickle(False)
cdef class ModelStepper(Alone):
    """The compiled part of a ModelStream, which inherits from it first, as Stepper is that of a LayerStream.

    parts, embedding, by_ids, threads  as for Chain
    """

    cdef Chain chain
    cdef Stepper first           # network: it tells which streams a call names
    cdef Py_ssize_t inputs       # I
    cdef Py_ssize_t outputs      # V
    cdef Py_ssize_t vocab
    cdef int64_t id              # of a single stream

    def __init__(self, list parts not None, cnp.ndarray embedding, Engine by_ids, int threads=1, *, bint forced=False):
        cdef Stepper first = [part for part in parts if isinstance(part, Stepper)][0]
        cdef DenseEngine dense
        if self.chain is not None:
            raise RuntimeError("a Stream is initialised once")
        self.chain = Chain(parts, embedding, by_ids, first.steps.streams, threads, forced=forced)
        self.inputs = first.inputs
        if parts[0] is not first:
            dense = parts[0]
            self.inputs = dense.phase.inputs
        self.outputs = self.chain.links.parts[self.chain.links.count - 1].out_bytes // self.chain.itemsize
        self.vocab = 0 if embedding is None else cnp.PyArray_DIM(embedding, 0)
        self.first = first

    def step(self, x, *, rows=None, out=None):
        """Advance by one time step: see `fastrnn.model_stream.ModelStream.step`."""
        cdef cnp.npy_intp shape[2]
        cdef Step *step
        if self.busy or self.first is None or not self.read(x, rows):
            return super().step(x, rows=rows, out=out)
        step = &self.chain.links.step
        if out is None:
            shape[0], shape[self.first.ndim - 1] = step.n, self.outputs
            out = cnp.PyArray_EMPTY(self.first.ndim, shape, self.first.dtype, 0)
        elif not (fits(out, self.first.dtype, cnp.NPY_ARRAY_CARRAY, self.first.ndim, step.n, self.outputs)
                  and (step.ids == &self.id or apart(out, x)) and (rows is None or apart(out, rows))):
            return super().step(x, rows=rows, out=out)
        self.busy = True
        self.run(out)
        self.busy = False
        return out

    def _advance(self, cnp.ndarray x not None, cnp.ndarray rows, cnp.ndarray out not None):
        """As `fastrnn.model_stream.ModelStream._advance`."""
        cdef Step *step = &self.chain.links.step
        step.n, step.rows = cnp.PyArray_DIM(x, 0), NULL
        if rows is not None:
            step.rows = <const int64_t *>cnp.PyArray_DATA(rows)
        if cnp.PyArray_NDIM(x) == 1:
            x = cnp.PyArray_FROMANY(x, cnp.NPY_INT64, 1, 1, cnp.NPY_ARRAY_CARRAY_RO)
            self.chain.read_ids(<const int64_t *>cnp.PyArray_DATA(x))
        else:
            step.x, step.x_stride, step.ids = cnp.PyArray_BYTES(x), cnp.PyArray_STRIDE(x, 0), NULL
        self.run(out)

    def _repeat(self, x, cnp.ndarray out not None, Py_ssize_t count):
        """`count` steps from C, for bench/stream_overhead.py: x and out as `step` has taken them."""
        cdef Py_ssize_t i
        if not self.read(x, None):
            raise ValueError("step(x) has to come first")
        self.chain.links.step.out = cnp.PyArray_BYTES(out)
        with nogil:
            for i in range(count):
                take_walk(&self.chain.links, 1)

    @cython.final
    cdef bint read(self, x, rows) noexcept:
        """Point the chain to the ids or the vectors in x; False where it takes more to tell what they are."""
        cdef Step *step = &self.chain.links.step
        cdef const int64_t *ids
        cdef Py_ssize_t n = self.first.steps.streams if rows is None else self.first.choose(rows), i
        if n < 0:
            return False
        step.n, step.rows = n, NULL
        if rows is not None:
            step.rows = <const int64_t *>cnp.PyArray_DATA(rows)
        if fits(x, self.first.dtype, cnp.NPY_ARRAY_CARRAY_RO, self.first.ndim, n, self.inputs):
            step.x, step.x_stride, step.ids = cnp.PyArray_BYTES(x), self.inputs * self.chain.itemsize, NULL
            return True
        ids = self.ids(x, n)
        if ids == NULL or not self.chain.ready_for_ids():
            return False
        for i in range(n):
            if ids[i] < 0 or ids[i] >= self.vocab:
                return False
        step.x, step.x_stride, step.ids = self.chain.embedding, self.chain.row_bytes, ids
        return True

    @cython.final
    cdef const int64_t *ids(self, x, Py_ssize_t n) noexcept:
        """The n ids in x, or NULL."""
        cdef int overflow = 0
        if self.first.ndim == 2:
            return <const int64_t *>cnp.PyArray_DATA(x) if fits(x, cnp.NPY_INT64, cnp.NPY_ARRAY_CARRAY_RO, 1, n, n) else NULL
        if type(x) is int:
            self.id = PyLong_AsLongLongAndOverflow(x, &overflow)
        elif type(x) is _int64:
            cnp.PyArray_ScalarAsCtype(x, &self.id)
        else:
            return NULL
        return NULL if overflow else &self.id

    @cython.final
    cdef void run(self, cnp.ndarray out) noexcept:
        cdef Links *links = &self.chain.links
        cdef bint shared
        cdef int members
        links.step.out = cnp.PyArray_BYTES(out)
        if links.step.n * self.chain.work() < RELEASE_WORK and not self.chain.forced:
            take_walk(links, 1)
            return
        shared = self.chain.shared(links.step.n)
        members = self.chain.members(links.step.n, False) if shared else 1
        with nogil:
            take_walk(links, members)
            if shared:
                fastrnn_pool_leave()
