# fastrnn/__init__.pxd and fastrnn/include/fastrnn.h: models from Cython and C, on the walk that streams take, in memory of the caller's.

cimport fastrnn
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid, PyCapsule_New
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport uintptr_t

cdef extern from "fastrnn.h" nogil:
    int FASTRNN_API_VERSION
    ctypedef struct fastrnn_api:
        size_t size
        int version
        const char *(*error_text)(int) noexcept nogil
        const fastrnn.model *(*get_model)(object, size_t) except NULL
        int (*get_sizes)(const fastrnn.model *, fastrnn.sizes *) noexcept nogil
        Py_ssize_t (*state_bytes)(const fastrnn.model *, Py_ssize_t) noexcept nogil
        int (*init_state)(const fastrnn.model *, void *, Py_ssize_t, Py_ssize_t) noexcept nogil
        int (*reset_state)(const fastrnn.model *, void *) noexcept nogil
        int (*copy_state)(const fastrnn.model *, const void *, void *, Py_ssize_t) noexcept nogil
        int (*step)(const fastrnn.model *, void *, const void *, void *) noexcept nogil
        int (*step_ids)(const fastrnn.model *, void *, const int64_t *, void *) noexcept nogil
        int (*forward)(const fastrnn.model *, void *, const void *, Py_ssize_t, void *) noexcept nogil
        int (*forward_ids)(const fastrnn.model *, void *, const int64_t *, Py_ssize_t, void *) noexcept nogil

cdef struct Model:
    uint64_t serial          # no other model's; 0 once the capsule is gone
    const Links *links       # of a chain for one row, whose states are the initial ones
    const char *embedding    # NULL: no ids
    Py_ssize_t row_bytes     # of the embedding
    fastrnn.sizes sizes
    PyObject *chain
    Model *next              # of those that are gone

cdef struct State:           # what follows it, in the same memory, are the parts of its own links, and all that they point to
    State *self              # here: one that was moved is none
    uint64_t serial          # its model's
    Py_ssize_t batch         # B
    Links links

cdef Model *_gone = NULL     # used again, but never freed: so whoever comes with such a model is told
cdef uint64_t _serial = 0x66617374726e6e00     # what uninitialised memory hardly holds


# Models ---------------------------------------------------------------------------------------------------------------

def capsule(list parts not None, cnp.ndarray embedding, Engine by_ids):
    """A PyCapsule of a Model, which holds what it needs; the arguments are Chain's, for one row."""
    global _gone, _serial
    cdef Chain chain = Chain(parts, embedding, by_ids, 1)
    cdef const Part *first = &chain.links.parts[0]
    cdef Model *model
    if embedding is not None:
        chain.read_ids(NULL)     # which may let other threads run, so before anything is taken from those that are gone
    model = _gone
    if model != NULL:
        _gone = model.next
    else:
        model = <Model *>calloc(1, sizeof(Model))
        if model == NULL:
            raise MemoryError()
    _serial += 1
    model.serial, model.links = _serial, &chain.links
    model.embedding, model.row_bytes = chain.embedding, chain.row_bytes
    model.sizes.size, model.sizes.itemsize = sizeof(model.sizes), chain.itemsize
    model.sizes.inputs = first.steps.net.directions[0].phase[0].inputs if first.steps != NULL else first.dense.phase.inputs
    model.sizes.outputs = chain.links.parts[chain.links.count - 1].out_bytes // chain.itemsize
    model.sizes.vocab = 0 if embedding is None else cnp.PyArray_DIM(embedding, 0)
    model.chain = <PyObject *>chain
    Py_INCREF(chain)
    return PyCapsule_New(model, "fastrnn.model", release)


cdef void release(object capsule) noexcept:
    global _gone
    cdef Model *model = <Model *>PyCapsule_GetPointer(capsule, "fastrnn.model")
    model.serial, model.next, _gone = 0, _gone, model
    Py_DECREF(<object>model.chain)


cdef api const fastrnn.model *get_model(object capsule, size_t itemsize) except NULL:
    cdef Model *model
    if not PyCapsule_IsValid(capsule, "fastrnn.model"):
        raise TypeError(f"expected what fastrnn.capsule(layer_or_model) returns, got {type(capsule).__name__}")
    model = <Model *>PyCapsule_GetPointer(capsule, "fastrnn.model")
    if model.sizes.itemsize != itemsize:
        raise TypeError(f"the model computes in float{8 * model.sizes.itemsize}, and its caller in numbers of {8 * itemsize} bits: "
                        "build its layers with the dtype of the caller, who passes sizeof(float) or sizeof(double)")
    return <const fastrnn.model *>model


cdef api int get_sizes(const fastrnn.model *m, fastrnn.sizes *s) noexcept nogil:
    cdef const Model *model = <const Model *>m
    if model == NULL or s == NULL:
        return fastrnn.ERROR_NULL
    if model.serial == 0:
        return fastrnn.ERROR_MODEL
    if s.size != sizeof(fastrnn.sizes):
        return fastrnn.ERROR_VERSION
    s[0] = model.sizes
    return fastrnn.OK


cdef api const char *error_text(int error) noexcept nogil:
    if error == fastrnn.OK:
        return "no error"
    if error == fastrnn.ERROR_NULL:
        return "an argument is NULL"
    if error == fastrnn.ERROR_MODEL:
        return "the capsule of this model is gone: keep the object from fastrnn.capsule() for as long as the model is used"
    if error == fastrnn.ERROR_STATE:
        return "this is no state of this model: make it by init_state or copy_state, and copy it by copy_state, not by memcpy"
    if error == fastrnn.ERROR_SIZE:
        return "a count is negative or too large, or the memory for a state smaller than state_bytes()"
    if error == fastrnn.ERROR_ID:
        return "an id is negative, or not less than vocab"
    if error == fastrnn.ERROR_NO_IDS:
        return "the model has no embedding, and so takes vectors, not ids"
    if error == fastrnn.ERROR_OVERLAP:
        return "a result overlaps what it is made from: give it memory of its own"
    if error == fastrnn.ERROR_MEMORY:
        return "there is no memory for the workspace"
    if error == fastrnn.ERROR_VERSION:
        return "the caller was built for another version of fastrnn: build it with the one that is installed"
    return "unknown error"


# States ---------------------------------------------------------------------------------------------------------------

cdef inline State *state_in(const void *memory) noexcept nogil:
    return <State *>((<uintptr_t>memory + FASTRNN_LINE - 1) // FASTRNN_LINE * FASTRNN_LINE)


cdef Py_ssize_t lay_out_state(const Model *model, Py_ssize_t batch, char *block) noexcept nogil:
    """Point a state of `batch` rows into `block`; returns the bytes it takes."""
    cdef const Network *net
    cdef Py_ssize_t used = 0, k
    cdef State *state
    cdef Part *parts
    cdef Steps *kept
    cdef Steps steps
    cdef Part part
    used = carve(block, used, sizeof(State), <void **>&state)
    used = carve(block, used, model.links.count * sizeof(Part), <void **>&parts)
    for k in range(model.links.count):
        part = model.links.parts[k]
        if part.steps != NULL:
            steps, net = part.steps[0], part.steps.net
            steps.streams = batch
            used = carve(block, used, sizeof(Steps), <void **>&kept)
            used = carve(block, used, net.layers * batch * net.state * net.itemsize, <void **>&steps.h)
            if steps.c != NULL:
                used = carve(block, used, net.layers * batch * net.hidden * net.itemsize, <void **>&steps.c)
            used = lay_out_steps(&steps, block, used)
            part.steps = kept
            if block != NULL:
                kept[0] = steps
        else:
            lay_out_dense(&part.dense, batch, model.sizes.itemsize)
            used = carve(block, used, part.dense.share, <void **>&part.dense.work)
        if k < model.links.count - 1:
            used = carve(block, used, batch * part.out_bytes, <void **>&part.out)
        if block != NULL:
            parts[k] = part
    if block != NULL:
        state.self, state.serial, state.batch = state, model.serial, batch
        state.links.parts, state.links.count = parts, model.links.count
        state.links.step.n = batch
    return used


cdef int check_state(const Model *model, const void *memory, State **state) noexcept nogil:
    if model == NULL or memory == NULL:
        return fastrnn.ERROR_NULL
    if model.serial == 0:
        return fastrnn.ERROR_MODEL
    state[0] = state_in(memory)
    return fastrnn.OK if state[0].self == state[0] and state[0].serial == model.serial else fastrnn.ERROR_STATE


cdef inline bint overlap(const void *a, Py_ssize_t a_bytes, const void *b, Py_ssize_t b_bytes) noexcept nogil:
    return <uintptr_t>a < <uintptr_t>b + b_bytes and <uintptr_t>b < <uintptr_t>a + a_bytes


cdef api Py_ssize_t state_bytes(const fastrnn.model *m, Py_ssize_t batch) noexcept nogil:
    cdef const Model *model = <const Model *>m
    if model == NULL:
        return fastrnn.ERROR_NULL
    if model.serial == 0:
        return fastrnn.ERROR_MODEL
    if batch < 0 or batch > PY_SSIZE_T_MAX // 2 // lay_out_state(model, 1, NULL):      # a row takes no more than a state of one
        return fastrnn.ERROR_SIZE
    return lay_out_state(model, batch, NULL) + FASTRNN_LINE - 1


cdef api int init_state(const fastrnn.model *m, void *memory, Py_ssize_t bytes, Py_ssize_t batch) noexcept nogil:
    cdef Py_ssize_t needed = state_bytes(m, batch)
    if needed < 0:
        return <int>needed
    if memory == NULL:
        return fastrnn.ERROR_NULL
    if bytes < needed:
        return fastrnn.ERROR_SIZE
    memset(memory, 0, needed)      # which also brings its pages in
    lay_out_state(<const Model *>m, batch, <char *>state_in(memory))
    return reset_state(m, memory)


cdef api int reset_state(const fastrnn.model *m, void *memory) noexcept nogil:
    cdef const Model *model = <const Model *>m
    cdef const Steps *start
    cdef Steps *steps
    cdef Py_ssize_t h_bytes, c_bytes, k, layer, row
    cdef State *state = NULL
    cdef int error = check_state(model, memory, &state)
    if error:
        return error
    for k in range(state.links.count):
        start, steps = model.links.parts[k].steps, state.links.parts[k].steps
        if start == NULL:
            continue
        h_bytes, c_bytes = start.net.state * start.net.itemsize, start.net.hidden * start.net.itemsize
        for layer in range(start.net.layers):
            for row in range(state.batch):
                memcpy(steps.h + (layer * state.batch + row) * h_bytes, start.h + layer * h_bytes, h_bytes)
                if start.c != NULL:
                    memcpy(steps.c + (layer * state.batch + row) * c_bytes, start.c + layer * c_bytes, c_bytes)
    return fastrnn.OK


cdef api int copy_state(const fastrnn.model *m, const void *memory, void *copy, Py_ssize_t bytes) noexcept nogil:
    cdef const Model *model = <const Model *>m
    cdef const Steps *steps
    cdef Steps *target
    cdef Py_ssize_t needed, k
    cdef State *state = NULL
    cdef int error = check_state(model, memory, &state)
    if error:
        return error
    needed = lay_out_state(model, state.batch, NULL) + FASTRNN_LINE - 1
    if copy == NULL:
        return fastrnn.ERROR_NULL
    if bytes < needed:
        return fastrnn.ERROR_SIZE
    if overlap(memory, needed, copy, needed):
        return fastrnn.ERROR_OVERLAP
    memset(copy, 0, needed)
    lay_out_state(model, state.batch, <char *>state_in(copy))
    for k in range(state.links.count):
        steps, target = state.links.parts[k].steps, state_in(copy).links.parts[k].steps
        if steps != NULL:
            memcpy(target.h, steps.h, steps.net.layers * state.batch * steps.net.state * steps.net.itemsize)
            if steps.c != NULL:
                memcpy(target.c, steps.c, steps.net.layers * state.batch * steps.net.hidden * steps.net.itemsize)
    return fastrnn.OK


# Steps ----------------------------------------------------------------------------------------------------------------

cdef int check_steps(const Model *model, const void *memory, const void *x, bint by_ids, Py_ssize_t steps, const void *y, State **state) noexcept nogil:
    """OK, with the state, for steps that may run; nothing has to be done where there are no steps or rows."""
    cdef Py_ssize_t x_bytes, y_bytes, row
    cdef const int64_t *ids = <const int64_t *>x
    cdef int error = check_state(model, memory, state)
    if error:
        return error
    if by_ids and model.embedding == NULL:
        return fastrnn.ERROR_NO_IDS
    if steps < 0:
        return fastrnn.ERROR_SIZE
    if steps == 0 or state[0].batch == 0:
        return fastrnn.OK
    if x == NULL or y == NULL:
        return fastrnn.ERROR_NULL
    x_bytes = state[0].batch * (sizeof(int64_t) if by_ids else model.sizes.inputs * model.sizes.itemsize)
    y_bytes = state[0].batch * model.sizes.outputs * model.sizes.itemsize
    if steps > PY_SSIZE_T_MAX // max(x_bytes, y_bytes):
        return fastrnn.ERROR_SIZE
    if overlap(x, steps * x_bytes, y, steps * y_bytes):
        return fastrnn.ERROR_OVERLAP
    if by_ids:
        for row in range(steps * state[0].batch):
            if ids[row] < 0 or ids[row] >= model.sizes.vocab:
                return fastrnn.ERROR_ID
    return fastrnn.OK


cdef inline int take_step(const Model *model, void *memory, const void *x, bint by_ids, void *y) noexcept nogil:
    cdef State *state = NULL
    cdef int error = check_steps(model, memory, x, by_ids, 1, y, &state)
    cdef Step *step
    if error or state.batch == 0:
        return error
    step = &state.links.step
    if by_ids:
        step.x, step.x_stride, step.ids = model.embedding, model.row_bytes, <const int64_t *>x
    else:
        step.x, step.x_stride, step.ids = <const char *>x, model.sizes.inputs * model.sizes.itemsize, NULL
    step.out = <char *>y
    take_walk(&state.links, 1)
    return fastrnn.OK


cdef Call network_call(const Steps *steps, bint by_ids, Py_ssize_t count) noexcept nogil:
    """What runs `count` steps from the state on, and leaves it in the same place."""
    cdef Call call
    call.net = network(steps, by_ids)
    call.rows, call.steps = steps.streams, count
    call.chunk = chunk_steps(call.net, call.rows, count)
    call.order, call.lengths, call.blank = NULL, NULL, False
    call.h0 = call.hn = steps.h
    call.c0 = call.cn = steps.c
    call.split.rows = call.split.ways = call.split.blocks = 1
    call.split.apart = False
    return call


cdef int take_steps(const Model *model, void *memory, const void *x, bint by_ids, Py_ssize_t steps, void *y) noexcept nogil:
    """All parts over a chunk of time, one after the other, then over the next chunk: as Engine and DenseEngine run them, on one thread."""
    cdef State *state = NULL
    cdef int error = check_steps(model, memory, x, by_ids, steps, y, &state)
    cdef Py_ssize_t itemsize = model.sizes.itemsize if not error else 0, start = 0, used = 0, work = 0, k, chunk, count
    cdef void *block
    cdef char *between[2]
    cdef char *own
    cdef const int64_t *ids
    cdef const char *source
    cdef Py_ssize_t stride
    cdef Part *part
    cdef DenseCall dense
    cdef Call call
    if error or steps == 0 or state.batch == 0:
        return error
    chunk = steps if state.links.count == 1 else min(steps, max(1, CHUNK_ROWS // state.batch))
    for k in range(state.links.count):
        part = &state.links.parts[k]
        if part.steps != NULL:
            call = network_call(part.steps, by_ids and k == 0, chunk)
            work = max(work, FASTRNN_LINE + call_bytes(&call))
        else:
            dense = part.dense
            lay_out_dense(&dense, chunk * state.batch, itemsize)
            work = max(work, dense.share)
        if k < state.links.count - 1:
            used = max(used, chunk * state.batch * part.out_bytes)
    used = (used + FASTRNN_LINE - 1) // FASTRNN_LINE * FASTRNN_LINE
    if posix_memalign(&block, FASTRNN_LINE, 2 * used + work):
        return fastrnn.ERROR_MEMORY
    between[0], between[1], own = <char *>block, <char *>block + used, <char *>block + 2 * used
    while start < steps:
        count = min(chunk, steps - start)
        ids = <const int64_t *>x + start * state.batch if by_ids else NULL
        stride = model.row_bytes if by_ids else model.sizes.inputs * itemsize
        source = model.embedding if by_ids else <const char *>x + start * state.batch * stride
        for k in range(state.links.count):
            part = &state.links.parts[k]
            target = <char *>y + start * state.batch * part.out_bytes if k == state.links.count - 1 else between[k % 2]
            if part.steps != NULL:
                call = network_call(part.steps, ids != NULL, count)
                call.x.data, call.x.batch = (<char *>ids, <Py_ssize_t>sizeof(int64_t)) if ids != NULL else (<char *>source, stride)
                call.y.data, call.y.batch = target, part.out_bytes
                call.x.time, call.y.time = state.batch * call.x.batch, state.batch * call.y.batch
                call.block, call.bytes = own, work - FASTRNN_LINE
                run_member(&call, 0, 1)
            else:
                dense = part.dense
                lay_out_dense(&dense, count * state.batch, itemsize)
                dense.x, dense.x_stride, dense.ids, dense.rows = source, stride, ids, count * state.batch
                dense.out, dense.out_stride, dense.work = target, part.out_bytes, own
                run_dense(&dense, 0, 1)
            source, stride, ids = target, part.out_bytes, NULL
        start += count
    free(block)
    return fastrnn.OK


cdef api int step(const fastrnn.model *m, void *state, const void *x, void *y) noexcept nogil:
    return take_step(<const Model *>m, state, x, False, y)


cdef api int step_ids(const fastrnn.model *m, void *state, const int64_t *ids, void *y) noexcept nogil:
    return take_step(<const Model *>m, state, ids, True, y)


cdef api int forward(const fastrnn.model *m, void *state, const void *x, Py_ssize_t steps, void *y) noexcept nogil:
    return take_steps(<const Model *>m, state, x, False, steps, y)


cdef api int forward_ids(const fastrnn.model *m, void *state, const int64_t *ids, Py_ssize_t steps, void *y) noexcept nogil:
    return take_steps(<const Model *>m, state, ids, True, steps, y)


# What C reads ---------------------------------------------------------------------------------------------------------

cdef fastrnn_api _functions
_functions.size, _functions.version = sizeof(fastrnn_api), FASTRNN_API_VERSION
_functions.error_text, _functions.get_model, _functions.get_sizes = error_text, get_model, get_sizes
_functions.state_bytes, _functions.init_state, _functions.reset_state, _functions.copy_state = state_bytes, init_state, reset_state, copy_state
_functions.step, _functions.step_ids, _functions.forward, _functions.forward_ids = step, step_ids, forward, forward_ids
_C_API = PyCapsule_New(&_functions, "fastrnn._C_API", NULL)
