/* The machine's limits by the kernels' own inner loop, accumulate() of tile.h.  limits.py compiles it per dtype, with ISA the tier's header. */
#include "tier.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif
#include <math.h>

#include ISA
#define FN(name) name
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
#define GROUP ((int)(FASTRNN_GROUP_BYTES / sizeof(T)))
#define TILE_VECS ONE_ROW_VECS
#include "tile.h"

enum { COLUMNS = 4, ROW_DEPTH = 64 };   /* 16 KB of weights */

/* Weights of `blocks` blocks of one row, read `passes` times, up and down in turn as the steps do; -> bytes read. */
double stream(const T *w, ptrdiff_t blocks, ptrdiff_t depth, const T *a, T *out, ptrdiff_t passes)
{
    const ptrdiff_t stride = TILE_VECS * LANES;
    for (ptrdiff_t pass = 0; pass < passes; pass++)
        for (ptrdiff_t i = 0; i < blocks; i++) {
            const ptrdiff_t block = pass % 2 ? blocks - 1 - i : i;
            vec acc[1][TILE_VECS];
            for (int s = 0; s < TILE_VECS; s++) acc[0][s] = v_set1((T)0);
            accumulate(FASTRNN_RNN, 0, 1, 1, TILE_VECS, acc, &a, depth, w + block * depth * stride, stride);
            for (int s = 0; s < TILE_VECS; s++) v_store(out + s * LANES, acc[0][s]);
        }
    return (double)passes * (double)blocks * (double)depth * (double)stride * sizeof(T);
}

/* The largest tile over weights that stay in the L1; -> operations. */
double multiply(const T *w, const T *a, T *out, ptrdiff_t passes)
{
    const T *rows[MAX_ROWS];
    for (int m = 0; m < MAX_ROWS; m++) rows[m] = a + m * ROW_DEPTH;
    vec acc[MAX_ROWS][TILE_VECS];
    UNROLL for (int m = 0; m < MAX_ROWS; m++)
        UNROLL for (int s = 0; s < COLUMNS; s++) acc[m][s] = v_set1((T)0);
    for (ptrdiff_t pass = 0; pass < passes; pass++)
        accumulate(FASTRNN_RNN, 0, MAX_ROWS, 1, COLUMNS, acc, rows, ROW_DEPTH, w, COLUMNS * LANES);
    for (int m = 0; m < MAX_ROWS; m++)
        for (int s = 0; s < COLUMNS; s++) v_store(out + (m * COLUMNS + s) * LANES, acc[m][s]);
    return 2.0 * (double)passes * ROW_DEPTH * MAX_ROWS * COLUMNS * LANES;
}

int block_bytes(void) { return TILE_VECS * LANES * (int)sizeof(T); }   /* of one step of depth */
