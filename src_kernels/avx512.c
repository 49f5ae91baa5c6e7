#include "tier.h"

#if defined(__x86_64__)
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,fma")
#endif

#define FASTRNN_BITS 32
#define FASTRNN_SUFFIX f32_avx512
#include "isa_avx512.h"
#include "body.h"
#include "isa_undef.h"

#define FASTRNN_BITS 64
#define FASTRNN_SUFFIX f64_avx512
#include "isa_avx512.h"
#include "body.h"
#include "isa_undef.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

const fastrnn_kernels *const fastrnn_avx512[FASTRNN_DTYPES] = {&kernels_f32_avx512, &kernels_f64_avx512};
#else
const fastrnn_kernels *const fastrnn_avx512[FASTRNN_DTYPES] = {NULL, NULL};
#endif
