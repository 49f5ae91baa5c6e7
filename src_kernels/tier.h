/* What every tier's .c file includes before it opens its target: system headers must not be read under a target pragma. */
#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "coefficients.h"
#include "kernels.h"

/* One table per tier and dtype, NULL where the tier is not built for this machine's kind of processor. */
extern const fastrnn_kernels *const fastrnn_generic[FASTRNN_DTYPES], *const fastrnn_neon[FASTRNN_DTYPES];
extern const fastrnn_kernels *const fastrnn_avx2[FASTRNN_DTYPES], *const fastrnn_avx512[FASTRNN_DTYPES];
