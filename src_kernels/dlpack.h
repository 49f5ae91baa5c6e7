/* DLPack's table of C functions, by which libraries read each other's arrays past their Python methods: version 1 of DLPackExchangeAPI
 * (https://dmlc.github.io/dlpack, dlpack.h), as much of it as is used here. */
#ifndef FASTRNN_DLPACK_H
#define FASTRNN_DLPACK_H

#include <stdint.h>

enum { DLPACK_MAJOR = 1, DLPACK_CPU = 1, DLPACK_FLOAT = 2 };

typedef struct {
    void *data;
    int32_t device_type, device_id;
    int32_t ndim;
    uint8_t code, bits; /* of a number */
    uint16_t lanes;
    int64_t *shape, *strides; /* strides in elements */
    uint64_t byte_offset;
} dlpack_tensor;

/* A tensor that somebody keeps alive until its deleter is called. */
typedef struct dlpack_managed {
    uint32_t major, minor;
    void *context;
    void (*deleter)(struct dlpack_managed *);
    uint64_t flags;
    dlpack_tensor tensor;
} dlpack_managed;

typedef struct {
    uint32_t major, minor;
    void *previous;
    void *allocate, *export_managed;
    int (*to_object)(dlpack_managed *, void **object); /* takes the tensor; -1 with an exception */
    int (*view)(void *object, dlpack_tensor *);        /* -1 with an exception; may be NULL */
    void *current_stream;
} dlpack_api;

#endif
