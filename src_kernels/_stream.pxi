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


@cython.auto_pickle(False)
cdef class Stepper:
    """The compiled part of a Stream, which inherits from it first and then from `fastrnn.Stream`, and so does what that does.

    What a step with unusual arguments needs, conversions, checks and messages, is the other base's `step`.
    """

    cdef object engine           # owns the network and its weights,
    cdef object states           #   h and c, which the pointers below point into
    cdef const Network *net
    cdef char *h                 # [layer][N][R]
    cdef char *c                 # [layer][N][H], or NULL
    cdef Py_ssize_t rows         # N
    cdef Py_ssize_t inputs       # I
    cdef int ndim                # of x and of the result: 1 for a single stream without an axis for it
    cdef int dtype               # NumPy's number
    cdef Py_ssize_t work         # multiply-adds of a step of one row
    cdef int turn                # 1 in every other step
    cdef int64_t choice          # calls of `choose` so far
    cdef bint busy               # a call is inside; read and written with the GIL held
    cdef char *block             # the memory of everything below
    cdef void **x_rows           # [N] rows of this step: input,
    cdef void **h_rows           # [N]   h before it,
    cdef void **out_rows         # [N]   h after it,
    cdef void **middle_rows      # [N]   r*h or m between two phases
    cdef char *cell              # [N][groups*LANES] c or z, padded
    cdef char *between[2]        # [N][R] what one layer hands to the next
    cdef int64_t *chosen         # [N] the choice that named this stream last

    def __cinit__(self):
        self.inputs = -1         # what no array has: until __init__ all steps are unusual

    def __init__(self, Engine engine not None, tuple states not None, bint batched):
        cdef cnp.ndarray h = states[0], c
        cdef const Network *net = &engine.net
        cdef const fastrnn_phase *phase
        cdef void *block
        cdef Py_ssize_t layer, i
        if self.block != NULL:
            raise RuntimeError("a Stream is initialised once")
        self.net, self.rows = net, cnp.PyArray_DIM(h, 1)
        if posix_memalign(&block, 64, self.lay_out(NULL)):
            raise MemoryError(f"fastrnn could not get {self.lay_out(NULL)} bytes of workspace")
        memset(block, 0, self.lay_out(NULL))
        self.block = <char *>block
        self.lay_out(self.block)
        self.engine, self.states = engine, states
        self.h = cnp.PyArray_BYTES(h)
        if len(states) == 2:
            c = states[1]
            self.c = cnp.PyArray_BYTES(c)
        self.dtype, self.ndim = cnp.PyArray_TYPE(h), 1 + batched
        for layer in range(net.layers):
            for i in range(net.phases):
                phase = &net.directions[layer].phase[i]
                self.work += fastrnn_phase_gates(net.directions[layer].kind[i]) * phase.units * (phase.inputs + phase.depth)
        self.inputs = net.directions[0].phase[0].inputs

    def __dealloc__(self):
        free(self.block)

    @cython.final
    cdef Py_ssize_t lay_out(self, char *block) noexcept:
        """Point everything into `block`; returns the bytes it takes."""
        cdef Py_ssize_t pointers = self.rows * sizeof(void *), used = 64, i
        cdef Py_ssize_t padded = groups_of(self.net.hidden, self.net.itemsize) * FASTRNN_GROUP_BYTES
        cdef char *middle
        used = carve(block, used, pointers, <void **>&self.x_rows)
        used = carve(block, used, pointers, <void **>&self.h_rows)
        used = carve(block, used, pointers, <void **>&self.out_rows)
        used = carve(block, used, pointers, <void **>&self.middle_rows)
        used = carve(block, used, self.rows * sizeof(int64_t), <void **>&self.chosen)
        used = carve(block, used, self.rows * padded, <void **>&self.cell)
        used = carve(block, used, self.rows * padded if self.net.phases > 1 else 0, <void **>&middle)
        for i in range(2):
            used = carve(block, used, self.rows * self.net.state * self.net.itemsize if self.net.layers - 1 > i else 0, <void **>&self.between[i])
        if block != NULL:
            for i in range(self.rows):
                self.middle_rows[i] = middle + i * padded
        return used

    def step(self, x, *, rows=None, out=None):
        """Advance by one time step: see `fastrnn.Stream.step`."""
        cdef Py_ssize_t n = self.rows if rows is None else self.choose(rows)
        cdef const int64_t *chosen = NULL
        cdef cnp.npy_intp shape[2]
        if (self.busy or n < 0 or not plain(x, self.dtype, cnp.NPY_ARRAY_CARRAY_RO, self.ndim)
                or cnp.PyArray_DIM(x, self.ndim - 1) != self.inputs or self.ndim == 2 and cnp.PyArray_DIM(x, 0) != n):
            return super().step(x, rows=rows, out=out)
        if out is None:
            shape[0], shape[self.ndim - 1] = n, self.net.state
            out = cnp.PyArray_EMPTY(self.ndim, shape, self.dtype, 0)
        elif not (plain(out, self.dtype, cnp.NPY_ARRAY_CARRAY, self.ndim) and cnp.PyArray_DIM(out, self.ndim - 1) == self.net.state
                  and (self.ndim == 1 or cnp.PyArray_DIM(out, 0) == n) and apart(out, x) and (rows is None or apart(out, rows))):
            return super().step(x, rows=rows, out=out)
        if rows is not None:
            chosen = <const int64_t *>cnp.PyArray_DATA(rows)
        self.busy = True
        self.run(cnp.PyArray_BYTES(x), self.inputs * self.net.itemsize, chosen, n, cnp.PyArray_BYTES(out))
        self.busy = False
        return out

    def _advance(self, cnp.ndarray x not None, cnp.ndarray rows, cnp.ndarray out not None):
        """As `fastrnn.Stream._advance`."""
        cdef const int64_t *chosen = NULL
        if rows is not None:
            chosen = <const int64_t *>cnp.PyArray_DATA(rows)
        self.run(cnp.PyArray_BYTES(x), cnp.PyArray_STRIDE(x, 0), chosen, cnp.PyArray_DIM(x, 0), cnp.PyArray_BYTES(out))

    def _enter(self):
        """As `fastrnn.Stream._enter`."""
        if self.busy:
            return False
        self.busy = True
        return True

    def _leave(self):
        """As `fastrnn.Stream._leave`."""
        self.busy = False

    def _repeat(self, cnp.ndarray x not None, cnp.ndarray out not None, Py_ssize_t count):
        """`count` steps from C, for bench/stream_overhead.py: x (N, I) and out (N, R) as `step` makes them."""
        cdef Py_ssize_t i
        with nogil:
            for i in range(count):
                self.advance(cnp.PyArray_BYTES(x), self.inputs * self.net.itemsize, NULL, self.rows, cnp.PyArray_BYTES(out))

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
            if row[i] < 0 or row[i] >= self.rows or self.chosen[row[i]] == self.choice:
                return -1
            self.chosen[row[i]] = self.choice
        return n

    @cython.final
    cdef void run(self, const char *x, Py_ssize_t x_stride, const int64_t *rows, Py_ssize_t n, char *out) noexcept:
        if n * self.work < RELEASE_WORK:
            self.advance(x, x_stride, rows, n, out)
        else:
            with nogil:
                self.advance(x, x_stride, rows, n, out)

    @cython.final
    cdef void advance(self, const char *x, Py_ssize_t x_stride, const int64_t *rows, Py_ssize_t n, char *out) noexcept nogil:
        """One step of streams rows[0..n), or 0..n.

        The new h goes to `out` or to the next layer and from there to the state: that copy takes 5 ns a row, and the state has
        one place. c is gathered from it and scattered to it, for kernels want it padded and row below row.
        """
        cdef const Network *net = self.net
        cdef const Direction *direction
        cdef const fastrnn_phase *phase
        cdef Py_ssize_t h_bytes = net.state * net.itemsize, c_bytes = net.hidden * net.itemsize
        cdef Py_ssize_t padded = groups_of(net.hidden, net.itemsize) * FASTRNN_GROUP_BYTES, layer, row, at
        cdef char *h = self.h
        cdef char *c = self.c
        cdef char *target
        cdef fastrnn_step io
        cdef int i
        self.turn ^= 1
        for layer in range(net.layers):
            direction = &net.directions[layer]
            target = out if layer == net.layers - 1 else self.between[layer % 2]
            for row in range(n):
                at = rows[row] if rows != NULL else row
                self.x_rows[row] = <void *>(x + row * x_stride)
                self.h_rows[row] = h + at * h_bytes
                self.out_rows[row] = target + row * h_bytes
                if c != NULL:
                    memcpy(self.cell + row * padded, c + at * c_bytes, c_bytes)
            for i in range(direction.phases):
                phase = &direction.phase[i]
                io.x = <const void *const *>(self.x_rows if phase.inputs else NULL)
                io.start, io.start_stride = phase.b, 0
                io.h = <const void *const *>(self.h_rows if i == 0 else self.middle_rows)
                io.prev = <const void *const *>self.h_rows
                io.out = <void *const *>(self.out_rows if i == direction.phases - 1 else self.middle_rows)
                io.cell, io.cell_stride = self.cell, padded // net.itemsize
                io.descending = self.turn
                net.kernels.step[direction.kind[i]](phase, &io, 0, blocks_of(direction.kind[i], phase.units, net.itemsize), 0, n)
            for row in range(n):
                at = rows[row] if rows != NULL else row
                memcpy(h + at * h_bytes, self.out_rows[row], h_bytes)
                if c != NULL:
                    memcpy(c + at * c_bytes, self.cell + row * padded, c_bytes)
            h += self.rows * h_bytes
            if c != NULL:
                c += self.rows * c_bytes
            x, x_stride = target, h_bytes
