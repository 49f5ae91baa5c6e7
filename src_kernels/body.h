/* Every kernel of one tier and dtype.  Included with FASTRNN_BITS, FASTRNN_SUFFIX and the primitives of one isa_*.h defined. */
#define FN_(name, suffix) name##_##suffix
#define FN__(name, suffix) FN_(name, suffix)
#define FN(name) FN__(name, FASTRNN_SUFFIX)
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
#define LOG_SPLIT ((T)1.4142135623730951)                 /* sqrt(2): the larger half of the significands is halved once more */
#define GROUP ((int)(FASTRNN_GROUP_BYTES / sizeof(T)))   /* units of a group */
#define TILE_VECS ONE_ROW_VECS
#define SIDE_BY_SIDE 4                                    /* chains of fma of one row's single vector */
#define SIX_VECS_ROWS (MAX_ROWS * 2 / 3)                  /* rows of a tile over all six vectors of the GRU's blocks */
#define FAR_LEAST (2 << 20)                               /* bytes of weights that one row reads in a step, which come from the last cache from here */
#define FAR_MOST (12 << 20)                               /* to here */
#define MOST_VECS 12                                      /* vectors of a tile: three blocks of the LSTM */

#if FASTRNN_BITS == 32
#define Q_SIGMA FASTRNN_Q_SIGMA_F32
#define Q_TANH FASTRNN_Q_TANH_F32
#define Q_DEGREE 5
#define MINUS_LOG2E FASTRNN_MINUS_LOG2E_F32
#define TWO_LOG2E FASTRNN_TWO_LOG2E_F32
#define LN2 FASTRNN_LN2_F32
#define MINUS_HALF_LN2 FASTRNN_MINUS_HALF_LN2_F32
#define SIGMA_LIMIT FASTRNN_SIGMA_LIMIT_F32
#define TANH_LIMIT 11.0f
#define TANH_TINY 0x1p-125f
#define LEAST_NORMAL 0x1p-126f
#define Q_LOG FASTRNN_Q_LOG_F32
#define LOG_DEGREE 3
#define FMA __builtin_fmaf
#define STATE_TINY 0x1p-62f
#else
#define Q_SIGMA FASTRNN_Q_SIGMA_F64
#define Q_TANH FASTRNN_Q_TANH_F64
#define Q_DEGREE 10
#define MINUS_LOG2E FASTRNN_MINUS_LOG2E_F64
#define TWO_LOG2E FASTRNN_TWO_LOG2E_F64
#define LN2 FASTRNN_LN2_F64
#define MINUS_HALF_LN2 FASTRNN_MINUS_HALF_LN2_F64
#define SIGMA_LIMIT FASTRNN_SIGMA_LIMIT_F64
#define TANH_LIMIT 22.0
#define TANH_TINY 0x1p-1021
#define LEAST_NORMAL 0x1p-1022
#define Q_LOG FASTRNN_Q_LOG_F64
#define LOG_DEGREE 9
#define FMA __builtin_fma
#define STATE_TINY 0x1p-510
#endif

#include "tile.h"
#include "checks.h"
#include "activations.h"
#include "gates.h"
#include "ahead.h"
#include "step.h"
#include "dense.h"

static const fastrnn_kernels FN(kernels) = {
    .step = {
        [FASTRNN_RNN] = FN(rnn_step), [FASTRNN_LSTM] = FN(lstm_step), [FASTRNN_GRU] = FN(gru_step),
        [FASTRNN_GRU_RESET] = FN(gru_reset_step), [FASTRNN_GRU_NEW] = FN(gru_new_step), [FASTRNN_PROJECT] = FN(project_step),
    },
    .inputs = FN(inputs),
    .dense = FN(dense),
    .activate = FN(activate),
    .probabilities = FN(probabilities),
    .ahead = AHEAD,
};

#undef CHECK
#undef FN
#undef FN__
#undef FN_
#undef INLINE
#undef UNROLL
#undef EACH
#undef GROUP
#undef TILE_VECS
#undef SIX_VECS_ROWS
#undef FAR_LEAST
#undef FAR_MOST
#undef MOST_VECS
#undef SIDE_BY_SIDE
#undef Q_SIGMA
#undef Q_TANH
#undef Q_DEGREE
#undef MINUS_LOG2E
#undef TWO_LOG2E
#undef LN2
#undef MINUS_HALF_LN2
#undef SIGMA_LIMIT
#undef TANH_LIMIT
#undef TANH_TINY
#undef LEAST_NORMAL
#undef Q_LOG
#undef LOG_DEGREE
#undef LOG_SPLIT
#undef FMA
#undef STATE_TINY
