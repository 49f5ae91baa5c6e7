#include "tier.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#define FASTRNN_BITS 32
#define FASTRNN_SUFFIX f32_neon
#include "isa_neon.h"
#include "body.h"
#include "isa_undef.h"

#define FASTRNN_BITS 64
#define FASTRNN_SUFFIX f64_neon
#include "isa_neon.h"
#include "body.h"
#include "isa_undef.h"

const fastrnn_kernels *const fastrnn_neon[FASTRNN_DTYPES] = {&kernels_f32_neon, &kernels_f64_neon};
#else
const fastrnn_kernels *const fastrnn_neon[FASTRNN_DTYPES] = {NULL, NULL};
#endif
