/* fastrnn from C and C++: models that are made in Python and run without it.  docs/c.md shows how; fastrnn.get_include() tells where this file lies.
 *
 * A model is what the Python object from fastrnn.capsule(layer_or_model) holds: immutable, shared by any number of threads, there for as long as that
 * object is.  A state is what a sequence has to remember: memory of the caller's, one thread's at a time.  All functions but get_model run without the
 * GIL, on the thread that calls them.  step, step_ids, reset_state and copy_state neither allocate, lock, throw nor call the system, whatever comes.
 *
 * B rows, I inputs, O outputs, T steps; x, ids and y are C-contiguous, y overlaps neither of the others nor the state, and numbers are float or double, as the model is.
 */
#ifndef FASTRNN_H
#define FASTRNN_H

#include <Python.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FASTRNN_API_VERSION 1 /* Newer versions of fastrnn only add functions at the end, or else have another number here. */

enum fastrnn_error {
    FASTRNN_OK = 0,
    FASTRNN_ERROR_NULL = -1,    /* an argument is NULL */
    FASTRNN_ERROR_MODEL = -2,   /* the model's capsule is gone, and no later one has taken its place */
    FASTRNN_ERROR_STATE = -3,   /* not from init_state or copy_state, moved since, or of another model */
    FASTRNN_ERROR_SIZE = -4,    /* a count is negative or too large, or a state's memory too small */
    FASTRNN_ERROR_ID = -5,      /* an id is not in 0..vocab-1 */
    FASTRNN_ERROR_NO_IDS = -6,  /* the model has no embedding, and takes vectors only */
    FASTRNN_ERROR_OVERLAP = -7, /* a result overlaps what it is made from */
    FASTRNN_ERROR_MEMORY = -8,  /* forward could not get its workspace */
    FASTRNN_ERROR_VERSION = -9  /* this header and the installed fastrnn do not fit */
};

typedef struct fastrnn_model fastrnn_model;

typedef struct {
    size_t size;       /* IN  sizeof(fastrnn_sizes) */
    size_t itemsize;   /* bytes of a number: sizeof(float) or sizeof(double) */
    ptrdiff_t inputs;  /* I */
    ptrdiff_t outputs; /* O: numbers that a step gives for each row */
    ptrdiff_t vocab;   /* ids are 0..vocab-1; 0 for a model that takes vectors only */
} fastrnn_sizes;

/* Functions return FASTRNN_OK or an error, and then have changed nothing. */
typedef struct {
    size_t size;
    int version;

    /* What an error means. */
    const char *(*error_text)(int error);

    /* With the GIL: the model of a capsule, whose numbers have `itemsize` bytes; else NULL and a TypeError. */
    const fastrnn_model *(*get_model)(PyObject *capsule, size_t itemsize);

    int (*get_sizes)(const fastrnn_model *model, fastrnn_sizes *sizes);

    /* Bytes of a state of B rows, or an error. */
    ptrdiff_t (*state_bytes)(const fastrnn_model *model, ptrdiff_t batch);

    /* Make a state of B rows, which begin with the initial states of the layers, in `bytes` bytes of any alignment. There is nothing to free but them. */
    int (*init_state)(const fastrnn_model *model, void *state, ptrdiff_t bytes, ptrdiff_t batch);

    /* Back to the beginning. */
    int (*reset_state)(const fastrnn_model *model, void *state);

    /* Clone a state into `bytes` bytes elsewhere, whatever is in them. A state has pointers into itself: memcpy does not do. */
    int (*copy_state)(const fastrnn_model *model, const void *state, void *copy, ptrdiff_t bytes);

    /* One time step: x (B, I) -> y (B, O), or ids (B,) -> y (B, O). */
    int (*step)(const fastrnn_model *model, void *state, const void *x, void *y);
    int (*step_ids)(const fastrnn_model *model, void *state, const int64_t *ids, void *y);

    /* T time steps, with the bits of T calls of step and in less time: x (T, B, I) or ids (T, B) -> y (T, B, O). It allocates its workspace. */
    int (*forward)(const fastrnn_model *model, void *state, const void *x, ptrdiff_t steps, void *y);
    int (*forward_ids)(const fastrnn_model *model, void *state, const int64_t *ids, ptrdiff_t steps, void *y);
} fastrnn_api;

/* Whether these functions are what this header describes. */
static inline int fastrnn_check(const fastrnn_api *api)
{
    if (api == NULL) return FASTRNN_ERROR_NULL;
    return api->version == FASTRNN_API_VERSION && api->size >= sizeof(fastrnn_api) ? FASTRNN_OK : FASTRNN_ERROR_VERSION;
}

/* The functions of the installed fastrnn; else NULL and an ImportError. To be called once, with the GIL, such as when a module is initialised. */
static inline const fastrnn_api *fastrnn_import(void)
{
    const fastrnn_api *api = (const fastrnn_api *)PyCapsule_Import("fastrnn._C_API", 0);
    if (api == NULL || fastrnn_check(api) == FASTRNN_OK) return api;
    PyErr_Format(PyExc_ImportError,
                 "the installed fastrnn has version %d of its C interface, %zu bytes, and this module was built for version %d, %zu bytes: "
                 "build it again with the fastrnn that is installed, or install the one that it was built with",
                 api->version, api->size, FASTRNN_API_VERSION, sizeof(fastrnn_api));
    return NULL;
}

#ifdef __cplusplus
}
#endif

#endif
