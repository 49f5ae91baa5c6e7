# The draw of a token from logits.  fastrnn/generate.py has the same in NumPy, for the other backends and as its description.

cdef struct Sampling:
    double temperature       # 0: the largest logit
    Py_ssize_t top_k         # tokens that may be drawn; 0: all
    double top_p             # share of their probability that is kept


cdef uint64_t mixed(uint64_t z) noexcept nogil:
    """SplitMix64's output function: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014)."""
    z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EB
    return z ^ (z >> 31)


cdef double uniform(uint64_t seed, int64_t count) noexcept nogil:
    """Number `count` of SplitMix64 from the state mixed(seed): a multiple of 2^-53 in [0, 1)."""
    return <double>(mixed(mixed(seed) + (<uint64_t>count + 1) * <uint64_t>0x9E3779B97F4A7C15) >> 11) * (1.0 / 9007199254740992.0)


cdef inline bint before(const real *p, int64_t a, int64_t b) noexcept nogil:
    """Whether token a is more probable than b; of equals the first is."""
    return p[a] > p[b] or p[a] == p[b] and a < b


cdef void sink(const real *p, int64_t *heap, Py_ssize_t size, Py_ssize_t at) noexcept nogil:
    """Move an entry down to where no child comes before it."""
    cdef Py_ssize_t child
    cdef int64_t moved = heap[at]
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and before(p, heap[child + 1], heap[child]):
            child += 1
        if not before(p, heap[child], moved):
            break
        heap[at] = heap[child]
        at = child
    heap[at] = moved


cdef int64_t ranked(const real *p, int64_t *heap, Py_ssize_t size, Py_ssize_t *ranks, Py_ssize_t rank) noexcept nogil:
    """The token of a rank; the first `ranks` ones have left the heap and stand behind it, the most probable last."""
    cdef Py_ssize_t last
    cdef int64_t token
    while ranks[0] <= rank:
        last = size - 1 - ranks[0]
        token = heap[0]
        heap[0] = heap[last]
        sink(p, heap, last, 0)
        heap[last] = token
        ranks[0] += 1
    return heap[size - 1 - rank]


cdef int64_t draw(const real *p, Py_ssize_t size, const Sampling *how, double u, int64_t *heap) noexcept nogil:
    """Where u times the sum of what may be drawn lies; ids in order, or in that of falling probability where not all may be drawn.

    Sums are of doubles, one term after the other.
    """
    cdef Py_ssize_t kept = min(how.top_k, size) if how.top_k else size, ranks = 0, i
    cdef bint few = kept < size, cut = few or how.top_p < 1
    cdef double total = 0, reached = 0, enough
    cdef int64_t token, chosen = 0
    if cut:
        for i in range(size):
            heap[i] = i
        for i in range(size // 2 - 1, -1, -1):
            sink(p, heap, size, i)
    for i in range(kept):
        total += p[ranked(p, heap, size, &ranks, i) if few else i]
    if how.top_p < 1:
        enough = how.top_p * total
        for i in range(kept):
            reached += p[ranked(p, heap, size, &ranks, i)]
            if reached >= enough:
                kept, total = i + 1, reached
                break
    reached = 0
    for i in range(kept):
        token = ranked(p, heap, size, &ranks, i) if cut else i
        reached += p[token]
        if p[token] > 0:
            chosen = token
        if reached > u * total:
            break
    return chosen


cdef int64_t pick(const fastrnn_kernels *kernels, const real *logits, real *p, Py_ssize_t size, const Sampling *how, uint64_t seed, int64_t count,
                  int64_t *heap) noexcept nogil:
    """The token after `count` others, or -1 where a logit is NaN or the largest is infinite."""
    cdef Py_ssize_t i, best = 0
    cdef real temperature = <real>how.temperature
    for i in range(size):
        if logits[i] != logits[i]:
            return -1
        if logits[i] > logits[best]:
            best = i
    if logits[best] - logits[best] != 0:
        return -1
    if temperature == 0:
        return best
    for i in range(size):
        p[i] = (logits[i] - logits[best]) / temperature
    kernels.activate(FASTRNN_SOFTMAX, p, p, size)
    return draw(p, size, how, uniform(seed, count), heap)
