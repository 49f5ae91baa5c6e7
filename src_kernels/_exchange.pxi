# Tensors of another library as arrays, and arrays as its tensors, past the Python methods of both, which take longer than a small step.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport Py_DECREF, Py_INCREF

cdef extern from "dlpack.h" nogil:
    enum:
        DLPACK_MAJOR, DLPACK_CPU, DLPACK_FLOAT
    ctypedef struct dlpack_tensor:
        void *data
        int device_type
        int device_id
        int ndim
        int code
        int bits
        int lanes
        int64_t *shape
        int64_t *strides
        uint64_t byte_offset
    ctypedef struct dlpack_managed:
        int major
        int minor
        void *context
        void (*deleter)(dlpack_managed *) noexcept
        uint64_t flags
        dlpack_tensor tensor
    ctypedef struct dlpack_api:
        int major
        int (*to_object)(dlpack_managed *, void **) except -1
        int (*view)(PyObject *, dlpack_tensor *) except -1


cdef void give_up(dlpack_managed *managed) noexcept with gil:
    Py_DECREF(<object>managed.context)
    free(managed)


cdef Py_ssize_t size_in_a_row(const dlpack_tensor *t) noexcept:
    """How many numbers a tensor has; -1 where they do not follow each other in memory."""
    cdef Py_ssize_t size = 1, i
    for i in reversed(range(t.ndim)):
        if t.shape[i] != 1 and t.strides[i] != size:
            return -1
        size *= t.shape[i]
    return size


@cython.final
cdef class Exchange:
    """Reads and makes tensors of one class by the table of functions in its ``__dlpack_c_exchange_api__``; ValueError where that is of no use.

    `lazy` are functions that are true of a tensor whose memory does not hold its numbers.
    """

    cdef const dlpack_api *api
    cdef tuple lazy

    def __cinit__(self, capsule, *lazy):
        self.lazy = lazy
        self.api = <const dlpack_api *>PyCapsule_GetPointer(capsule, "dlpack_exchange_api")
        if self.api.major != DLPACK_MAJOR or self.api.view == NULL:
            raise ValueError(f"DLPack's functions are of version {self.api.major}, or cannot read; fastrnn knows version {DLPACK_MAJOR}")

    def arrays(self, tuple tensors, bint double):
        """Return arrays of the memory of tensors; None unless all are aligned tensors of this dtype in the CPU's memory."""
        cdef dlpack_tensor t
        cdef cnp.npy_intp strides[3]
        cdef char *data
        cdef int size = sizeof(double) if double else sizeof(float), i
        cdef list result = []
        for tensor in tensors:
            for is_lazy in self.lazy:
                if is_lazy(tensor):
                    return None
            try:
                self.api.view(<PyObject *>tensor, &t)
            except Exception:
                return None
            data = <char *>t.data + t.byte_offset
            if (t.device_type != DLPACK_CPU or t.code != DLPACK_FLOAT or t.bits != 8 * size or t.lanes != 1 or t.ndim > 3
                    or <size_t>data % size):
                return None
            for i in range(t.ndim):
                strides[i] = t.strides[i] * size
            array = cnp.PyArray_New(cnp.ndarray, t.ndim, <cnp.npy_intp *>t.shape, cnp.NPY_DOUBLE if double else cnp.NPY_FLOAT, strides, data, 0, 0, None)
            cnp.set_array_base(array, tensor)
            result.append(array)
        return result

    def seen(self, dict tensors not None, Py_ssize_t samples):
        """Return what tells these tensors, None or not, from later ones: where they are, their versions, up to so many numbers of each.

        None where that cannot be told. Numbers are read where a tensor has them now: memory that it had once may be gone.
        """
        cdef dlpack_tensor t
        cdef list given = list(tensors.values())     # what `_version` of a subclass runs may change the mapping
        cdef Py_ssize_t slot = 2 * sizeof(int64_t) + samples * sizeof(double), size, step, number, i
        cdef const char *data
        cdef char *out
        result = PyBytes_FromStringAndSize(NULL, len(given) * slot)
        out = PyBytes_AS_STRING(result)
        memset(out, 0, len(given) * slot)
        for tensor in given:
            if tensor is not None:
                try:
                    (<int64_t *>out)[0] = tensor._version
                    self.api.view(<PyObject *>tensor, &t)
                except Exception:
                    return None
                size, number = size_in_a_row(&t), t.bits // 8
                if size < 0 or t.device_type != DLPACK_CPU or number > <Py_ssize_t>sizeof(double):
                    return None
                data = <const char *>t.data + t.byte_offset
                (<int64_t *>out)[1] = <int64_t>data
                step = (size + samples - 1) // samples | 1     # odd: not always in one column
                for i in range((size + step - 1) // step):
                    memcpy(out + 2 * sizeof(int64_t) + i * number, data + i * step * number, number)
            out += slot
        return result

    def tensors(self, list arrays not None):
        """Return tensors that share the memory of arrays."""
        return [self.tensor(array) for array in arrays]

    cdef object tensor(self, cnp.ndarray array):
        cdef int axes = cnp.PyArray_NDIM(array), i
        cdef dlpack_managed *managed = <dlpack_managed *>calloc(1, sizeof(dlpack_managed) + 2 * axes * sizeof(int64_t))
        cdef void *made
        if managed == NULL:
            raise MemoryError()
        managed.tensor.shape = <int64_t *>(managed + 1)
        managed.tensor.strides = managed.tensor.shape + axes
        for i in range(axes):
            managed.tensor.shape[i] = cnp.PyArray_DIM(array, i)
            managed.tensor.strides[i] = cnp.PyArray_STRIDE(array, i) // cnp.PyArray_ITEMSIZE(array)
        managed.major, managed.deleter, managed.context = DLPACK_MAJOR, give_up, <void *>array
        managed.tensor.device_type, managed.tensor.code, managed.tensor.lanes = DLPACK_CPU, DLPACK_FLOAT, 1
        managed.tensor.data, managed.tensor.ndim, managed.tensor.bits = cnp.PyArray_DATA(array), axes, 8 * cnp.PyArray_ITEMSIZE(array)
        Py_INCREF(array)
        self.api.to_object(managed, &made)
        result = <object>made
        Py_DECREF(result)     # it came with a reference
        return result
