# How a call is shared among threads: rows of the batch, directions, and unit blocks of every step.

cdef enum:
    # What a core does in a nanosecond, and what meeting costs: measured, on Zen 4 and 5.  Other processors differ by less than the model does.
    STREAM_BYTES = 110      # of weights that one row reads
    ROWS_FOR_FREE = 4       # rows whose multiplications take no longer than reading the weights
    ROWS_PROJECTED = 2      # rows whose inputs are projected in the time that one row reads as many weights
    GATES = 8               # columns that one row reads in the time that its gates take
    NEAR_BYTES = 1 << 20    # of weights that its own cache holds; where there are more, reading goes on beside the multiplications but in part
    FAR_SHARE = 4           # and this share of it does not
    LAUNCH_AWAKE = 150      # ns, while workers still look out for a call and meet in FASTRNN_MEETING
    LAUNCH_ASLEEP = 40000
    LAUNCH_CROWDED = 1000000 # where others have the processors too: a member waits for its turn, mostly less than this
    GAIN = 5                # a split must save at least a fifth of the time

cdef struct Split:          # how many parts of each; their product is the number of threads
    int rows
    int ways
    int blocks
    bint apart              # of these, one thread takes all blocks of the steps, and the others project their inputs

cdef struct Call:
    const Network *net
    Sequence x
    Sequence y
    const char *h0
    char *hn
    const char *c0
    char *cn
    Py_ssize_t rows
    Py_ssize_t steps
    Py_ssize_t chunk
    double mean_steps
    const int64_t *order
    const int64_t *lengths
    bint blank                  # whether y is zeros already
    Split split
    char *block                 # a line, and the workspace
    Py_ssize_t bytes            #   of so many bytes

cdef inline double column_time(int kind, const fastrnn_phase *phase, Py_ssize_t itemsize, int parts) noexcept nogil:
    """ns that one row takes to read a column of the largest of `parts` shares of a phase's blocks."""
    cdef Py_ssize_t blocks = (blocks_of(kind, phase.units, itemsize) + parts - 1) // parts
    return <double>min(groups_of(phase.units, itemsize), blocks * fastrnn_phase_block(kind)) * fastrnn_phase_gates(kind) * FASTRNN_GROUP_BYTES / STREAM_BYTES


cdef inline double columns_time(double column, Py_ssize_t columns, Py_ssize_t rows) noexcept nogil:
    """ns of so many columns that one row reads in `column`, times so many rows."""
    cdef double reading = column * columns
    return reading * max(1.0, <double>rows / ROWS_FOR_FREE) + (reading / FAR_SHARE if reading * STREAM_BYTES > NEAR_BYTES else 0)


cdef inline double step_time(const Network *net, int way, Py_ssize_t rows, int parts, double meeting, bint many_steps=False,
                             bint apart=False) noexcept nogil:
    """ns of one step through all layers of one direction, for the largest of `parts` shares of the blocks, or by a thread whose inputs the others project.

    meeting: ns for each member
    """
    cdef double total = 0, column, stepping, projecting
    cdef const Direction *direction
    cdef const fastrnn_phase *phase
    cdef Py_ssize_t layer
    cdef int i
    for layer in range(net.layers):
        direction = &net.directions[layer * net.ways + way]
        stepping = projecting = 0
        for i in range(direction.phases):
            phase = &direction.phase[i]
            column = column_time(direction.kind[i], phase, net.itemsize, 1 if apart else parts)
            stepping += columns_time(column, phase.depth if many_steps else phase.depth + phase.inputs, rows) + column * GATES * rows
            # Inputs of many steps are projected many rows at a time, on the way where one row leaves room for them.
            projecting += column * phase.inputs * rows / ROWS_PROJECTED if many_steps else 0
            stepping += meeting * parts if parts > 1 and not apart else 0
        total += max(stepping, projecting / (parts - 1)) + meeting * rows / APART_ROWS if apart else stepping + projecting
    return total


cdef inline double call_time(const Network *net, Py_ssize_t rows, double steps) noexcept nogil:
    """ns of a call on one thread."""
    return net.ways * steps * step_time(net, 0, rows, 1, 0, steps > 1)


cdef inline double launch(double meeting) noexcept nogil:
    """ns that it takes until all members are at work."""
    return LAUNCH_CROWDED if fastrnn_pool_crowded() else LAUNCH_AWAKE * meeting / FASTRNN_MEETING if fastrnn_pool_awake() else LAUNCH_ASLEEP


cdef Split best_split(const Network *net, Py_ssize_t rows, double steps, int threads) noexcept nogil:
    """What the cost model finds fastest on at most `threads` threads."""
    cdef Split best, tried
    cdef double least, time, begin, meeting
    cdef Py_ssize_t height
    cdef int ways, blocks, apart
    best.rows = best.ways = best.blocks = 1
    best.apart = False
    if threads < 2 or not rows:
        return best
    least = call_time(net, rows, steps)
    least -= least / GAIN
    meeting = fastrnn_pool_meeting()
    begin = launch(meeting)
    # Of splits that take as long, that by directions is the first: a thread then reads half of the weights, and its tiles are higher.
    for ways in range(min(net.ways, threads), 0, -1):
        for blocks in range(1, threads // ways + 1):
            tried.ways, tried.blocks = ways, blocks
            tried.rows = <int>min(rows, threads // (ways * blocks))
            if tried.rows * ways * blocks == 1:
                continue
            height = (rows + tried.rows - 1) // tried.rows
            for apart in range(1 + (blocks > 1 and steps > 1 and 2 * height <= APART_ROWS)):
                tried.apart = apart
                time = net.ways // ways * steps * step_time(net, 0, height, blocks, meeting, steps > 1, apart) + begin
                if time < least:
                    least, best = time, tried
    return best


cdef inline bint saves(double alone, double together) noexcept nogil:
    """Whether a time is so much less that threads are worth it."""
    return together < alone - alone / GAIN


cdef inline int most_threads(int threads) noexcept nogil:
    """Threads for a call while there is no other."""
    return min(threads, FASTRNN_MAX_MEMBERS, processors())


cdef inline int threads_now(int threads) noexcept nogil:
    """Threads for a call that has just entered: processors are shared with the calls that are at work."""
    return min(threads, FASTRNN_MAX_MEMBERS, processors() // fastrnn_pool_enter())


cdef int _processors = 0


cdef int processors() noexcept nogil:
    global _processors
    if _processors == 0:
        _processors = fastrnn_processors()
    return _processors


cdef inline Py_ssize_t rows_of_part(const Call *call) noexcept nogil:
    """Rows of the largest part."""
    return (call.rows + call.split.rows - 1) // call.split.rows


cdef inline Py_ssize_t between_bytes(const Call *call, int i) noexcept nogil:
    return call.chunk * call.rows * call.net.ways * call.net.state * call.net.itemsize if call.net.layers - 1 > i else 0


cdef inline Py_ssize_t barriers_bytes(const Call *call) noexcept nogil:
    """One barrier for each team, and one for the teams of each part of the rows."""
    return call.split.rows * (call.split.ways + 1) * sizeof(fastrnn_barrier)


cdef Py_ssize_t call_bytes(const Call *call) noexcept nogil:
    """Of the workspace: barriers, then what passes between layers, then teams, then members."""
    cdef Workspace unused
    cdef Py_ssize_t rows = rows_of_part(call), teams = call.split.rows * call.split.ways
    cdef Py_ssize_t used = carve(NULL, 0, barriers_bytes(call), <void **>&unused.x)
    used = carve(NULL, used, between_bytes(call, 0), <void **>&unused.x)
    used = carve(NULL, used, between_bytes(call, 1), <void **>&unused.x)
    return used + teams * (lay_out_team(call.net, rows, NULL, &unused) + call.split.blocks * lay_out_member(call.net, rows, NULL, &unused))


cdef void lay_out_barriers(const Call *call) noexcept nogil:
    cdef fastrnn_barrier *barriers = <fastrnn_barrier *>(call.block + FASTRNN_LINE)
    cdef int i
    for i in range(call.split.rows * (call.split.ways + 1)):
        fastrnn_barrier_init(&barriers[i])


cdef void run_member(void *context, int member, int members) noexcept nogil:
    """One thread's part of a call; where there are not the threads that were wanted, the first one does all of it."""
    cdef Call call = (<Call *>context)[0]
    cdef Workspace work
    cdef Member me
    cdef Batch batch
    cdef fastrnn_barrier *barriers = <fastrnn_barrier *>(call.block + FASTRNN_LINE)
    cdef Py_ssize_t used, rows, team_bytes, member_bytes, i, row
    cdef int team
    if members < call.split.rows * call.split.ways * call.split.blocks:
        if member:
            return
        call.split.rows = call.split.ways = call.split.blocks = 1
        call.split.apart = False
    used = carve(call.block + FASTRNN_LINE, 0, barriers_bytes(&call), <void **>&work.x)
    used = carve(call.block + FASTRNN_LINE, used, between_bytes(&call, 0), <void **>&work.between[0])
    used = carve(call.block + FASTRNN_LINE, used, between_bytes(&call, 1), <void **>&work.between[1])
    rows = rows_of_part(&call)
    team_bytes, member_bytes = lay_out_team(call.net, rows, NULL, &work), lay_out_member(call.net, rows, NULL, &work)
    team = member // call.split.blocks
    check(used + call.split.rows * call.split.ways * (team_bytes + call.split.blocks * member_bytes) <= call.bytes)
    lay_out_member(call.net, rows, call.block + FASTRNN_LINE + used + call.split.rows * call.split.ways * team_bytes + member * member_bytes, &work)
    lay_out_team(call.net, rows, call.block + FASTRNN_LINE + used + team * team_bytes, &work)

    me.team.part, me.team.parts = member % call.split.blocks, call.split.blocks
    me.team.apart = call.split.apart
    me.team.barrier = &barriers[call.split.rows + team]
    me.way = team % call.split.ways if call.split.ways > 1 else -1
    me.first, me.every = team // call.split.ways, call.split.rows
    me.batch = call.rows
    me.layer_barrier, me.layer_members = &barriers[me.first], call.split.ways * call.split.blocks

    batch.rows = (call.rows - me.first + me.every - 1) // me.every
    batch.steps = call.steps
    check(batch.rows <= rows)
    batch.lengths, batch.order, batch.blank = NULL, call.order, call.blank
    if me.every > 1:
        batch.order = work.order
        for i in range(batch.rows):
            row = me.first + i * me.every
            work.order[i] = call.order[row] if call.order != NULL else row
    run_network(call.net, &batch, call.lengths, &work, &me, call.chunk, call.x, call.y, call.h0, call.hn, call.c0, call.cn)
