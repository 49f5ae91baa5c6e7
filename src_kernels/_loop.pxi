# The loop over time of one layer in one direction: <cell>_forward for every cell, driven by its phases.

cdef enum:
    NEAR_TABLE = 1 << 20      # bytes of a table of ids; rows of a larger one come from the last cache or from memory


cdef struct Direction:
    int phases
    int kind[MAX_PHASES]
    fastrnn_phase phase[MAX_PHASES]
    Py_ssize_t blocks[MAX_PHASES]
    Py_ssize_t sums[MAX_PHASES]     # elements of a row of sums, [groups][G][LANES]
    # Where x is ids, the rows that they number. One of these, else both are NULL:
    const char *table[MAX_PHASES]   # [vocab][groups][G][LANES] b + W_ih x of each phase, which then has no inputs
    const char *embedding           # [vocab][inputs] x
    Py_ssize_t vocab

cdef struct Sequence:         # a (T, B, K) array, or int64 (T, B) ids; strides in bytes, the last of three axes contiguous
    char *data
    Py_ssize_t time
    Py_ssize_t batch

cdef struct Batch:            # rows in order of falling length, so that the rows alive at any step are the first ones
    Py_ssize_t rows
    Py_ssize_t steps
    const int64_t *order      # [row] -> index in the batch; NULL: the identity
    const int64_t *lengths    # [row] -> valid steps; NULL: all of them
    bint blank                # whether what follows a row's last step is zeros already, or of no account

cdef struct Workspace:        # carved out of the call's one block of memory; every part starts on a line
    # of one thread:
    void **x                  # [rows] rows of this step: its input,
    void **h                  # [rows]   the hidden state before it,
    void **out                # [rows]   the hidden state after it,
    void **middle             # [rows]   r*h or m between two phases
    void **numbered           # [rows]   what its id numbers
    void **soon               # [rows]   what the next id numbers
    void **tile_x             # [tile rows] rows of a tile of inputs
    char *ahead[MAX_PHASES]   # sums of inputs that are projected on the way,
    char *packed[MAX_PHASES]  # and these inputs
    int64_t *order            # [rows] their indices in the batch
    int64_t *lengths          # [rows] their lengths within a chunk of time
    # of a team:
    char *cell                # [rows][groups*LANES] c or z
    char *start[MAX_PHASES]   # [tile rows][groups][G][LANES] projected inputs, for each phase; for one row two tiles
    # of all:
    char *between[2]          # [steps][B][O] what one layer hands to the next

cdef struct Team:             # threads that share the blocks of every step: each does its own ones, then they meet
    int part
    int parts
    bint apart                # or the first takes all steps, and the others project the inputs of the tile after them
    fastrnn_barrier *barrier


cdef inline Py_ssize_t groups_of(Py_ssize_t units, Py_ssize_t itemsize) noexcept nogil:
    return (units * itemsize + FASTRNN_GROUP_BYTES - 1) // FASTRNN_GROUP_BYTES


cdef inline Py_ssize_t blocks_of(int kind, Py_ssize_t units, Py_ssize_t itemsize) noexcept nogil:
    cdef Py_ssize_t block = fastrnn_phase_block(kind)
    return (groups_of(units, itemsize) + block - 1) // block


cdef void measure(Direction *direction, Py_ssize_t itemsize) noexcept nogil:
    """Fill in what follows from the sizes of the phases, which a step would take longer to work out than to read."""
    cdef Py_ssize_t units
    cdef int i
    for i in range(direction.phases):
        units = direction.phase[i].units
        direction.blocks[i] = blocks_of(direction.kind[i], units, itemsize)
        direction.sums[i] = groups_of(units, itemsize) * fastrnn_phase_gates(direction.kind[i]) * FASTRNN_GROUP_BYTES // itemsize


cdef inline void meet(const Team *team) noexcept nogil:
    """The barrier of a phase, without a call where one thread does all."""
    if team.parts > 1:
        fastrnn_barrier_wait(team.barrier, team.parts)


cdef inline Py_ssize_t share(const Team *team, Py_ssize_t blocks, int part) noexcept nogil:
    """The first block of a part."""
    return blocks * part // team.parts if team.parts > 1 else blocks * part     # a division is 5 ns of a small step


cdef inline Py_ssize_t row_length(const Batch *batch, Py_ssize_t row) noexcept nogil:
    return batch.lengths[row] if batch.lengths != NULL else batch.steps


cdef inline Py_ssize_t row_index(const Batch *batch, Py_ssize_t row) noexcept nogil:
    return batch.order[row] if batch.order != NULL else row


cdef inline Py_ssize_t alive(const Batch *batch, Py_ssize_t step, Py_ssize_t rows) noexcept nogil:
    """Rows with more than `step` steps, given that only the first `rows` can have them."""
    if batch.lengths != NULL:
        while rows > 0 and batch.lengths[rows - 1] <= step:
            rows -= 1
    return rows


cdef inline bint is_far_table(const Direction *direction, int i, Py_ssize_t itemsize) noexcept nogil:
    """Whether phase i starts from rows of a table that are worth fetching."""
    return direction.table[i] != NULL and direction.vocab * direction.sums[i] * itemsize > NEAR_TABLE


cdef inline void look_up(void *const *ids, Py_ssize_t count, const char *numbered, Py_ssize_t vocab, Py_ssize_t size, void **found) noexcept nogil:
    """Point at the things of `size` bytes that ids number; `found` may be `ids`."""
    cdef Py_ssize_t i
    for i in range(count):
        check_index((<const int64_t *>ids[i])[0], vocab)
        found[i] = <void *>(numbered + (<const int64_t *>ids[i])[0] * size)


cdef inline void fetch_rows(const void *const *starts, Py_ssize_t rows, Py_ssize_t begin, Py_ssize_t end) noexcept nogil:
    """Fetch these bytes of each row at once: otherwise sums wait for one line after the other."""
    cdef Py_ssize_t row, at
    for row in range(rows):
        at = begin
        while at < end:
            __builtin_prefetch(<const char *>starts[row] + at)
            at += FASTRNN_GROUP_BYTES


cdef inline Py_ssize_t tile_rows(const Direction *direction, Py_ssize_t itemsize) noexcept nogil:
    """Rows of a tile of projected inputs."""
    cdef const fastrnn_phase *phase = &direction.phase[0]
    return FAR_TILE_ROWS if direction.sums[0] * (phase.inputs + phase.depth) * itemsize > FASTRNN_FROM_MEMORY else TILE_ROWS


cdef void project_tile(const Direction *direction, const fastrnn_kernels *kernels, const Batch *batch, Workspace *work, const Team *team,
                       Py_ssize_t first, Py_ssize_t steps, Py_ssize_t rows, Py_ssize_t at, Py_ssize_t x_step, Py_ssize_t itemsize) noexcept nogil:
    """b + W_ih x of `steps` steps from `first` on, in the order in which the steps will want them, as rows of the tile from `at` on."""
    cdef Py_ssize_t step, row, count = at
    cdef int i
    for step in range(steps):
        rows = alive(batch, first + step, rows)
        for row in range(rows):
            check_index(count, FAR_TILE_ROWS)
            work.tile_x[count] = <char *>work.x[row] + step * x_step
            count += 1
    if direction.embedding != NULL:
        look_up(work.tile_x + at, count - at, direction.embedding, direction.vocab, direction.phase[0].inputs * itemsize, work.tile_x + at)
    for i in range(direction.phases):
        if direction.phase[i].inputs:
            kernels.inputs(direction.kind[i], &direction.phase[i], <const void *const *>work.tile_x, work.start[i], direction.sums[i],
                           share(team, direction.blocks[i], team.part), share(team, direction.blocks[i], team.part + 1), at, count)


cdef bint can_look_ahead(const Direction *direction, const fastrnn_kernels *kernels, Py_ssize_t itemsize) noexcept nogil:
    """Whether steps of one row project the inputs of later ones on the way: they wait for weights from the outer caches."""
    cdef const fastrnn_phase *phase = &direction.phase[0]
    cdef Py_ssize_t row = direction.sums[0] * itemsize
    return (kernels.ahead and phase.inputs >= AHEAD_INPUTS and row * phase.depth > AHEAD_LEAST and row * (phase.depth + phase.inputs) <= AHEAD_MOST
            and direction.embedding == NULL)


cdef void forward_layer(const Direction *direction, const fastrnn_kernels *kernels, const Batch *batch, Workspace *work, const Team *team,
                        Py_ssize_t itemsize, bint reverse, Sequence x, Sequence y, const char *h0, char *hn, const char *c0, char *cn) noexcept nogil:
    """One layer, one direction: y over all steps, and the last states.

    h0 (B, R) and hn, c0 (B, H) and cn may be the same arrays; c0 and cn are NULL for cells without c.
    """
    cdef const fastrnn_phase *last = &direction.phase[direction.phases - 1]
    cdef Py_ssize_t hidden = direction.phase[0].units * itemsize, state = last.units * itemsize
    cdef Py_ssize_t cell_bytes = groups_of(direction.phase[0].units, itemsize) * FASTRNN_GROUP_BYTES
    cdef Py_ssize_t x_step = -x.time if reverse else x.time, y_step = -y.time if reverse else y.time
    cdef Py_ssize_t rows = batch.rows, step = 0, half, tile, tile_end, first, done, row, at, length, t
    cdef Py_ssize_t cell_stride = cell_bytes // itemsize
    cdef Py_ssize_t begin[MAX_PHASES]
    cdef Py_ssize_t end[MAX_PHASES]
    cdef bint project, lookahead, coming
    cdef int i
    cdef void **x_rows
    cdef fastrnn_ahead ahead[MAX_PHASES]
    cdef fastrnn_step io
    cdef Team stepping = team[0], projecting = team[0]     # who takes the steps, and who projects the inputs of all tiles but the first

    if team.apart:
        stepping.part, stepping.parts = 0, 1
        projecting.part, projecting.parts = team.part - 1, team.parts - 1
    for i in range(direction.phases):
        begin[i], end[i] = share(&stepping, direction.blocks[i], stepping.part), share(&stepping, direction.blocks[i], stepping.part + 1)
    for row in range(rows):
        at = row_index(batch, row)
        length = row_length(batch, row)
        t = length - 1 if reverse and length else 0
        work.x[row] = x.data + at * x.batch + t * x.time
        work.out[row] = y.data + at * y.batch + t * y.time
        work.h[row] = <void *>(h0 + at * state)
        if team.part:
            continue
        if c0 != NULL:
            memcpy(work.cell + row * cell_bytes, c0 + at * hidden, hidden)
            memset(work.cell + row * cell_bytes + hidden, 0, cell_bytes - hidden)
        if not batch.blank:
            for t in range(length, batch.steps):
                memset(y.data + at * y.batch + t * y.time, 0, state)

    meet(team)
    length = row_length(batch, 0) if batch.rows else 0     # of the longest
    lookahead = not team.apart and batch.rows == 1 and length >= 2 * FASTRNN_AHEAD and can_look_ahead(direction, kernels, itemsize)
    half = FASTRNN_AHEAD if lookahead else APART_ROWS
    first = done = 0
    while step < length:
        rows = alive(batch, step, rows)
        tile = (half if team.apart else tile_rows(direction, itemsize)) // rows
        if lookahead:
            tile = (length - step - 1) % FASTRNN_AHEAD + 1     # short at first, then whole ones
        # A wide batch walks x and h in one go instead; there are no inputs where ids number rows of a table.
        project = lookahead or tile > 1 and step + 1 < length and direction.phase[0].inputs
        tile_end = min(step + max(tile, 1), length)
        coming = lookahead and tile_end < length
        if step and (lookahead or team.apart):
            first = half - first                           # one half is read while the other is written
        if project and (step == 0 or not lookahead and projecting.part >= 0):
            project_tile(direction, kernels, batch, work, &projecting if step else team, step, tile_end - step, rows, first, x_step, itemsize)
        if team.apart:
            meet(team)
            if team.part:
                for row in range(rows):
                    work.x[row] = <char *>work.x[row] + (tile_end - step) * x_step
                step = tile_end
                continue
        done = first
        if coming:
            for i in range(direction.phases):
                ahead[i].x, ahead[i].x_stride = <char *>work.x[0] + (tile_end - step) * x_step, x_step // itemsize
                ahead[i].sums, ahead[i].packed = work.ahead[i], work.packed[i]
                ahead[i].part, ahead[i].parts = 0, tile_end - step
        while step < tile_end:
            rows = alive(batch, step, rows)
            x_rows = work.x
            if direction.embedding != NULL and not project:
                x_rows = work.numbered
                look_up(work.x, rows, direction.embedding, direction.vocab, direction.phase[0].inputs * itemsize, x_rows)
            for i in range(direction.phases):
                io.x = NULL if project or not direction.phase[i].inputs else <const void *const *>x_rows
                io.starts = io.soon = NULL
                if direction.table[i] != NULL:
                    look_up(work.x, rows, direction.table[i], direction.vocab, direction.sums[i] * itemsize, work.numbered)
                    io.starts = <const void *const *>work.numbered
                    if step + 1 < length and is_far_table(direction, i, itemsize):
                        for row in range(rows):
                            work.soon[row] = <char *>work.x[row] + (x_step if step + 1 < row_length(batch, row) else 0)
                        look_up(work.soon, rows, direction.table[i], direction.vocab, direction.sums[i] * itemsize, work.soon)
                        io.soon = <const void *const *>work.soon
                if project and direction.phase[i].inputs:
                    check(done + rows <= FAR_TILE_ROWS)
                    io.start_stride = direction.sums[i]
                    io.start = work.start[i] + done * io.start_stride * itemsize
                else:
                    io.start_stride = 0
                    io.start = direction.phase[i].b
                io.h = <const void *const *>(work.h if i == 0 else work.middle)
                io.prev = <const void *const *>work.h
                io.out = <void *const *>(work.out if i == direction.phases - 1 else work.middle)
                io.cell = work.cell
                io.cell_stride = cell_stride
                io.descending = step & 1
                io.ahead = NULL
                if coming and direction.phase[i].inputs:
                    ahead[i].out_stride = io.start_stride
                    ahead[i].out = work.start[i] + (half - first) * io.start_stride * itemsize
                    io.ahead = &ahead[i]
                kernels.step[direction.kind[i]](&direction.phase[i], &io, begin[i], end[i], 0, rows)
                if io.ahead != NULL:
                    ahead[i].part += 1
                meet(&stepping)
                if stepping.parts > 1:                         # half of them lie in the other core's cache
                    fetch_rows(<const void *const *>io.out, rows, 0, direction.phase[i].units * itemsize)
            for row in range(rows):
                work.h[row] = work.out[row]
                work.out[row] = <char *>work.out[row] + y_step
                work.x[row] = <char *>work.x[row] + x_step
            done += rows
            step += 1

    if team.part:
        return
    for row in range(batch.rows):
        at = row_index(batch, row)
        if work.h[row] != hn + at * state:
            memcpy(hn + at * state, work.h[row], state)
        if c0 != NULL:
            memcpy(cn + at * hidden, work.cell + row * cell_bytes, hidden)
