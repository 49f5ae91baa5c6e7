# The draw of a token from logits.  fastrnn/sampling.py has the same in NumPy, for the other backends and as its description.

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


cdef inline Py_ssize_t digit(real x, int shift) noexcept nogil:
    """A byte of a number that is not negative; of a larger number it is smaller, if the bytes above are equal."""
    cdef uint32_t narrow
    cdef uint64_t wide
    if real is float:
        memcpy(&narrow, &x, sizeof(real))
        return 255 - (narrow >> shift & 255)
    else:
        memcpy(&wide, &x, sizeof(real))
        return 255 - <Py_ssize_t>(wide >> shift & 255)


cdef Py_ssize_t rank(const real *p, Py_ssize_t size, real least, int64_t *order) noexcept nogil:
    """Write the tokens that are as probable as `least`, or more, to order [2][size], the most probable first, of equals the first; how many.

    A radix sort: byte by byte, from the lowest one on.
    """
    cdef Py_ssize_t count = 0, i, k
    cdef Py_ssize_t places[257]
    cdef int64_t *spare = order + size
    cdef int shift
    for i in range(size):
        order[count] = i
        count += p[i] >= least
    for shift in range(0, 8 * sizeof(real), 8):
        memset(places, 0, sizeof(places))
        for i in range(count):
            places[1 + digit(p[order[i]], shift)] += 1
        for k in range(256):
            places[k + 1] += places[k]
        for i in range(count):
            k = digit(p[order[i]], shift)
            spare[places[k]] = order[i]
            places[k] += 1
        order, spare = spare, order
    return count


cdef real reached_by(const real *p, Py_ssize_t size, Py_ssize_t count) noexcept nogil:
    """A number that `count` tokens reach, and few others: of so many stretches each one has a largest, and this is the least of them."""
    cdef Py_ssize_t i, k
    cdef real least = 1, largest
    for k in range(count):
        largest = 0
        for i in range(size * k // count, size * (k + 1) // count):
            largest = max(largest, p[i])
        least = min(least, largest)
    return least


cdef int64_t draw(const real *p, Py_ssize_t size, const Sampling *how, double u, int64_t *order) noexcept nogil:
    """Where u times the sum of what may be drawn lies; ids in order, or in that of falling probability where not all may be drawn.

    Sums are of doubles, one term after the other.
    """
    cdef Py_ssize_t kept = min(how.top_k, size) if how.top_k else size, ranked = 0, i
    cdef bint few = kept < size, cut = few or how.top_p < 1
    cdef double total = 0, reached = 0, enough
    cdef int64_t token, chosen = 0
    if few:
        ranked = rank(p, size, reached_by(p, size, kept), order)
    for i in range(kept):
        total += p[order[i] if few else i]
    if how.top_p < 1:
        if not few:  # those below make up half of what may be left out
            ranked = rank(p, size, <real>((1 - how.top_p) * total / (2 * size)), order)
        enough = how.top_p * total
        for i in range(kept):
            if i == ranked:  # but for what sums are rounded by
                ranked = rank(p, size, 0, order)
            reached += p[order[i]]
            if reached >= enough:
                kept, total = i + 1, reached
                break
    reached = 0
    for i in range(kept):
        token = order[i] if cut else i
        reached += p[token]
        if p[token] > 0:
            chosen = token
        if reached > u * total:
            break
    return chosen


cdef int64_t pick(const fastrnn_kernels *kernels, const real *logits, real *p, Py_ssize_t size, const Sampling *how, uint64_t seed, int64_t count,
                  int64_t *order) noexcept nogil:
    """The token after `count` others, or -1 where a logit is NaN or the largest is infinite."""
    cdef Py_ssize_t i, best = 0
    if <real>how.temperature == 0:
        for i in range(size):
            if not logits[i] <= logits[best]:
                if logits[i] != logits[i]:
                    return -1
                best = i
        return best if logits[best] - logits[best] == 0 else -1
    kernels.probabilities(how.temperature, logits, p, size)
    return draw(p, size, how, uniform(seed, count), order) if p[0] == p[0] else -1
