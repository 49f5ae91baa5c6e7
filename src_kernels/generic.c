#include <math.h>

#include "tier.h"

static inline float generic_minf(float a, float b) { return a < b ? a : b; }
static inline float generic_maxf(float a, float b) { return a > b ? a : b; }
static inline double generic_min(double a, double b) { return a < b ? a : b; }
static inline double generic_max(double a, double b) { return a > b ? a : b; }

/* n + (1.5 * 2^23 + 127) leaves n + 127 in the low bits; shifted up they are the exponent of 2^n. */
static inline float generic_pow2f(float n)
{
    const float shifted = n + (12582912.0f + 127.0f);
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits <<= 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return power;
}

static inline double generic_pow2(double n)
{
    const double shifted = n + (6755399441055744.0 + 1023.0);
    uint64_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits <<= 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return power;
}

#define FASTRNN_BITS 32
#define FASTRNN_SUFFIX f32_generic
#include "isa_generic.h"
#include "body.h"
#include "isa_undef.h"

#define FASTRNN_BITS 64
#define FASTRNN_SUFFIX f64_generic
#include "isa_generic.h"
#include "body.h"
#include "isa_undef.h"

const fastrnn_kernels *const fastrnn_generic[FASTRNN_DTYPES] = {&kernels_f32_generic, &kernels_f64_generic};
