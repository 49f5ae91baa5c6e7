# fastrnn from Cython: `cimport fastrnn`. docs/cython.md shows how; what each function does stands in include/fastrnn.h.

from libc.stdint cimport int64_t

cdef extern from "fastrnn.h" nogil:
    enum:
        OK "FASTRNN_OK"
        ERROR_NULL "FASTRNN_ERROR_NULL"
        ERROR_MODEL "FASTRNN_ERROR_MODEL"
        ERROR_STATE "FASTRNN_ERROR_STATE"
        ERROR_SIZE "FASTRNN_ERROR_SIZE"
        ERROR_ID "FASTRNN_ERROR_ID"
        ERROR_NO_IDS "FASTRNN_ERROR_NO_IDS"
        ERROR_OVERLAP "FASTRNN_ERROR_OVERLAP"
        ERROR_MEMORY "FASTRNN_ERROR_MEMORY"
        ERROR_VERSION "FASTRNN_ERROR_VERSION"

    ctypedef struct model "fastrnn_model":
        pass

    ctypedef struct sizes "fastrnn_sizes":
        size_t size
        size_t itemsize
        Py_ssize_t inputs
        Py_ssize_t outputs
        Py_ssize_t vocab

cdef const char *error_text(int error) noexcept nogil
cdef const model *get_model(object capsule, size_t itemsize) except NULL
cdef int get_sizes(const model *m, sizes *s) noexcept nogil
cdef Py_ssize_t state_bytes(const model *m, Py_ssize_t batch) noexcept nogil
cdef int init_state(const model *m, void *state, Py_ssize_t bytes, Py_ssize_t batch) noexcept nogil
cdef int reset_state(const model *m, void *state) noexcept nogil
cdef int copy_state(const model *m, const void *state, void *copy, Py_ssize_t bytes) noexcept nogil
cdef int step(const model *m, void *state, const void *x, void *y) noexcept nogil
cdef int step_ids(const model *m, void *state, const int64_t *ids, void *y) noexcept nogil
cdef int forward(const model *m, void *state, const void *x, Py_ssize_t steps, void *y) noexcept nogil
cdef int forward_ids(const model *m, void *state, const int64_t *ids, Py_ssize_t steps, void *y) noexcept nogil
