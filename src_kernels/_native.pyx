"""The compiled backend: the loop over time, layers and directions over the C leaves of kernels.h.

All of it runs without the GIL. A call takes one block of memory, which its Engine keeps for the next call; nothing is
allocated inside the loop over time. README.md beside this file shows the stages.
"""

cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from posix.stdlib cimport posix_memalign

cimport numpy as cnp
import numpy as np

cnp.import_array()

cdef extern from *:
    """
    #include <assert.h>
    /* As macros, so that the message of one that fails has its own line of C. */
    #define fastrnn_assert(holds) assert(holds)
    #define fastrnn_assert_index(i, count) assert(0 <= (i) && (i) < (count))
    """
    void check "fastrnn_assert" (bint) noexcept nogil
    void check_index "fastrnn_assert_index" (Py_ssize_t i, Py_ssize_t count) noexcept nogil

cdef extern from "Python.h":
    Py_ssize_t PY_SSIZE_T_MAX

cdef extern from *:
    void __builtin_prefetch(const void *, ...) noexcept nogil

cdef extern from "kernels.h" nogil:
    enum:
        FASTRNN_RNN, FASTRNN_LSTM, FASTRNN_GRU, FASTRNN_GRU_RESET, FASTRNN_GRU_NEW, FASTRNN_PROJECT
        FASTRNN_TANH, FASTRNN_RELU, FASTRNN_SIGMOID, FASTRNN_LINEAR, FASTRNN_STANDARD, FASTRNN_SOFTMAX, FASTRNN_LOG_SOFTMAX
        FASTRNN_TIERS, FASTRNN_F32, FASTRNN_F64, FASTRNN_GROUP_BYTES
    ctypedef struct fastrnn_phase:
        const void *w_x
        const void *w_h
        const void *b
        const void *b_h
        Py_ssize_t inputs
        Py_ssize_t depth
        Py_ssize_t units
        int activation
        int flush
    enum:
        FASTRNN_AHEAD
        FASTRNN_AHEAD_BYTES
        FASTRNN_FROM_MEMORY
    ctypedef struct fastrnn_ahead:
        const void *x
        Py_ssize_t x_stride
        void *out
        Py_ssize_t out_stride
        void *sums
        void *packed
        int part
        int parts
    ctypedef struct fastrnn_step:
        const void *const *x
        const void *start
        Py_ssize_t start_stride
        const void *const *starts
        const void *const *soon
        const void *const *h
        const void *const *prev
        void *const *out
        void *cell
        Py_ssize_t cell_stride
        fastrnn_ahead *ahead
        int descending
    ctypedef void (*fastrnn_step_fn)(const fastrnn_phase *, const fastrnn_step *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
    ctypedef void (*fastrnn_inputs_fn)(int, const fastrnn_phase *, const void *const *, void *, Py_ssize_t,
                                       Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
    ctypedef struct fastrnn_kernels:
        fastrnn_step_fn *step
        fastrnn_inputs_fn inputs
        void (*dense)(const fastrnn_phase *, const void *const *, void *, void *const *, Py_ssize_t) noexcept nogil
        void (*activate)(int, const void *, void *, Py_ssize_t) noexcept nogil
        void (*probabilities)(double, const void *, void *, Py_ssize_t) noexcept nogil
        int ahead
    int fastrnn_phase_gates(int)
    int fastrnn_phase_block(int)
    int fastrnn_tier_built(int)
    int fastrnn_tier_runs(int)
    const char *fastrnn_tier_name(int)
    const fastrnn_kernels *fastrnn_get_kernels(int, int)

cdef extern from "pool.h" nogil:
    enum:
        FASTRNN_MAX_MEMBERS, FASTRNN_LINE, FASTRNN_MEETING
    ctypedef struct fastrnn_barrier:
        pass
    ctypedef struct fastrnn_team:
        void *parallel
        void *number
        void *count
    int fastrnn_pool_run(int, void (*)(void *, int, int) noexcept nogil, void *)
    int fastrnn_pool_run_on(const fastrnn_team *, int, int, void (*)(void *, int, int) noexcept nogil, void *)
    int fastrnn_pool_awake()
    int fastrnn_pool_meeting()
    int fastrnn_pool_crowded()
    int fastrnn_pool_enter()
    void fastrnn_pool_leave()
    int fastrnn_processors()
    void fastrnn_barrier_init(fastrnn_barrier *)
    void fastrnn_barrier_wait(fastrnn_barrier *, int)

cdef enum:
    MAX_PHASES = 2
    TILE_ROWS = 48                # rows of a tile of projected inputs: enough for the GEMM, few enough for the L2
    FAR_TILE_ROWS = 256           # where weights come from memory: W_ih comes so much less often
    APART_ROWS = 6                # where threads project them for another one: as many as registers hold sums of, for that one waits for the first ones
    AHEAD_LEAST = 64 * 1024       # bytes of W_hh that the nearest cache serves about as fast as they are multiplied,
    AHEAD_MOST = 12 * 1024 * 1024 # and of both matrices, from which on memory is what a step waits for
    AHEAD_INPUTS = 48             # I, below which projecting on the way takes longer than before the steps
    KEEP_BYTES = 8 * 1024 * 1024  # the largest workspace that outlives its call
    CHUNK_ROWS = 480              # rows of the sequence that pass through all layers of a one-way network together

ctypedef fused real:
    float
    double

_PHASES = {"rnn": FASTRNN_RNN, "lstm": FASTRNN_LSTM, "gru": FASTRNN_GRU, "gru_reset": FASTRNN_GRU_RESET,
           "gru_new": FASTRNN_GRU_NEW, "project": FASTRNN_PROJECT}
_ACTIVATIONS = {"tanh": FASTRNN_TANH, "relu": FASTRNN_RELU, "sigmoid": FASTRNN_SIGMOID, "linear": FASTRNN_LINEAR,
                "standard": FASTRNN_STANDARD, "softmax": FASTRNN_SOFTMAX, "log_softmax": FASTRNN_LOG_SOFTMAX}

include "_tiers.pxi"
include "_loop.pxi"
include "_engine.pxi"
include "_exchange.pxi"
include "_stream.pxi"
include "_dense.pxi"
include "_chain.pxi"
include "_draw.pxi"
include "_generate.pxi"
include "_capi.pxi"
