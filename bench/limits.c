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
#define FASTRNN_RUN PTRDIFF_MAX /* one run: what joins runs is the kernels' own time */
#include "tile.h"

enum { VECTORS = 4, WIDE = 8, ROW_DEPTH = 512 };   /* vectors: of the largest tile and of a block of one row of an LSTM; of two such blocks */
/* Registers of a group, and groups, in n registers. */
#define REGISTERS(n) (GROUP / LANES < (n) ? GROUP / LANES : (n))
#define GROUPS(n) ((n) / REGISTERS(n))

static const T zeros[FASTRNN_GROUP_BYTES * TILE_VECS / sizeof(T)] = {0};

int block_bytes(int wide) { return (wide ? WIDE : VECTORS) * LANES * (int)sizeof(T); }   /* of one step of depth */

INLINE void pass(const int V, const int far, const T *w, ptrdiff_t blocks, ptrdiff_t depth, const T *a, T *out, int down)
{
    const ptrdiff_t stride = V * LANES;
    for (ptrdiff_t i = 0; i < blocks; i++) {
        const ptrdiff_t block = down ? blocks - 1 - i : i;
        vec acc[1][TILE_VECS];
        accumulate(1, GROUPS(V), 1, REGISTERS(V), 0, far, acc, NULL, 0, zeros, 0, NULL, &a, depth, w + block * depth * stride, stride, GROUP);
        for (int s = 0; s < V; s++) v_store(out + s * LANES, acc[0][s]);
    }
}

/* Weights of `blocks` blocks of one row, in the wider or the narrower of two widths, fetched early if `far`, read `passes` times, up and down in
 * turn as the steps do; -> bytes read.  Which of these is fastest depends on the processor and on the cache. */
double stream(int wide, int far, const T *w, ptrdiff_t blocks, ptrdiff_t depth, const T *a, T *out, ptrdiff_t passes)
{
    for (ptrdiff_t i = 0; i < passes; i++) {
        if (wide) pass(WIDE, far, w, blocks, depth, a, out, i % 2);
        else pass(VECTORS, far, w, blocks, depth, a, out, i % 2);
    }
    return (double)passes * (double)blocks * (double)depth * block_bytes(wide);
}

/* The largest tile over one column of weights and rows that stay in the L1; -> operations. */
double multiply(const T *w, const T *a, T *out, ptrdiff_t passes)
{
    static volatile ptrdiff_t none;                  /* unknown to the compiler, which would load the column once */
    const ptrdiff_t stride = none;
    const T *rows[MAX_ROWS];
    for (int m = 0; m < MAX_ROWS; m++) rows[m] = a + m * ROW_DEPTH;
    vec acc[MAX_ROWS][TILE_VECS];
    for (ptrdiff_t pass = 0; pass < passes; pass++) {
        accumulate(MAX_ROWS, GROUPS(VECTORS), 1, REGISTERS(VECTORS), 0, 0, acc, NULL, 0, zeros, 0, NULL, rows, ROW_DEPTH, w, stride, GROUP);
        for (int m = 0; m < MAX_ROWS; m++)
            for (int s = 0; s < VECTORS; s++) v_store(out + (m * VECTORS + s) * LANES, acc[m][s]);
    }
    return 2.0 * (double)passes * ROW_DEPTH * MAX_ROWS * VECTORS * LANES;
}
