/* The C leaves: one time step of one cell, and the projection of inputs, over packed weights.  README.md shows how they fit together.
 *
 * T below is float or double; LANES is 64 / sizeof(T); a "group" is LANES hidden units; G the phase's gates; U the groups of a block.
 * Nothing here allocates, locks, throws or keeps state between calls.
 */
#ifndef FASTRNN_KERNELS_H
#define FASTRNN_KERNELS_H

#include <stddef.h>

enum fastrnn_phase_kind { FASTRNN_RNN, FASTRNN_LSTM, FASTRNN_GRU, FASTRNN_GRU_RESET, FASTRNN_GRU_NEW, FASTRNN_PROJECT, FASTRNN_PHASES };

/* What follows the sums.  The gated cells know STANDARD (sigma and tanh) and LINEAR (the identity: a test mode in which small integers stay exact). */
enum fastrnn_activation {
    FASTRNN_TANH, FASTRNN_RELU, FASTRNN_SIGMOID, FASTRNN_LINEAR,
    FASTRNN_SOFTMAX, FASTRNN_LOG_SOFTMAX, /* of a whole row: only output layers have these */
    FASTRNN_STANDARD = FASTRNN_TANH
};

enum fastrnn_tier { FASTRNN_GENERIC, FASTRNN_NEON, FASTRNN_AVX2, FASTRNN_AVX512, FASTRNN_TIERS };
enum fastrnn_dtype { FASTRNN_F32, FASTRNN_F64, FASTRNN_DTYPES };

/* A sum over columns goes in runs of so many: each is added up from +0 and then to the sum.  docs/arithmetic.md says why. */
enum { FASTRNN_RUN = 128 };

/* Bytes of a phase's weights above which steps of several rows read them from memory: caches do not keep so many. */
enum { FASTRNN_FROM_MEMORY = 20 << 20 };

/* One phase of a layer in one direction.  Immutable; shared by any number of threads. */
typedef struct {
    const void *w_x;     /* [blocks][inputs][U][G][LANES]   W_ih */
    const void *w_h;     /* [blocks][depth][U][G][LANES]    W_hh, or W_hr for FASTRNN_PROJECT */
    const void *b;       /* [groups][G][LANES]              b_ih (+ b_hh where foldable) */
    const void *b_h;     /* [groups][LANES]                 b_hh of the GRU's n; NULL otherwise */
    ptrdiff_t inputs;    /* I; 0 for FASTRNN_PROJECT */
    ptrdiff_t depth;     /* length of the vector that w_h multiplies */
    ptrdiff_t units;     /* H, or P for FASTRNN_PROJECT */
    int activation;      /* enum fastrnn_activation */
    int flush;           /* 0: `out` is an intermediate (m of a projected LSTM), whose tiny values stay */
} fastrnn_phase;

/* The inputs of the FASTRNN_AHEAD time steps after this tile of steps, which a step of one row projects while it waits for weights: for the blocks
 * that the step walks, and each step of a tile walks the same ones. */
enum { FASTRNN_AHEAD = 12, FASTRNN_AHEAD_BYTES = FASTRNN_AHEAD * 2 * 64 };
typedef struct {
    const void *x;             /* IN   [FASTRNN_AHEAD] rows (inputs,), `x_stride` elements apart */
    ptrdiff_t x_stride;
    void *out;                 /* OUT  [FASTRNN_AHEAD][groups][G][LANES]: b + W_ih x, complete after the last part */
    ptrdiff_t out_stride;      /*      elements from row to row */
    void *sums;                /* FASTRNN_AHEAD_BYTES that a thread keeps from part to part, as it does `packed` and the four numbers below */
    void *packed;              /* [inputs][FASTRNN_AHEAD]: x by columns */
    int part, parts;           /* this step is the `part`-th of `parts`; they go in order */
    ptrdiff_t block, end, vector, column; /* what is next, for the kernel alone */
} fastrnn_ahead;

/* One time step.  Rows are pointers, so that any layout, order of rows and direction in time costs the same. */
typedef struct {
    const void *const *x;      /* IN   [row] -> (inputs,); NULL: `start` already holds b + W_ih x */
    const void *start;         /* IN   [row][groups][G][LANES], what the sums start from: the bias with stride 0, or projected inputs */
    ptrdiff_t start_stride;    /*      elements from row to row */
    const void *const *starts; /* IN   [row] -> [groups][G][LANES], in place of `start`: projected inputs anywhere, such as in a table; or NULL */
    const void *const *soon;   /* IN   [row] -> what `starts` will be at the next step, to be fetched on the way; or NULL */
    const void *const *h;      /* IN   [row] -> (depth,): h, r*h (GRU_NEW) or m (PROJECT) */
    const void *const *prev;   /* IN   [row] -> (units,): h_{t-1}, which the GRU phases blend or reset; unused by the others */
    void *const *out;          /* OUT  [row] -> (units,): h', or r*h (GRU_RESET); never overlaps an input */
    void *cell;                /* INOUT [row][groups*LANES]: c of the LSTM; z, written by GRU_RESET and read by GRU_NEW */
    ptrdiff_t cell_stride;     /*      elements from row to row */
    fastrnn_ahead *ahead; /* with one row, what to project on the way; NULL on tiers that cannot, or for nothing */
    int descending;            /* walk the blocks from the last to the first: steps take turns, for the caches still hold what was read last */
} fastrnn_step;

/* One time step of unit blocks [block0, block1) for rows [row0, row1).  Any partition of blocks and rows gives the same bits. */
typedef void (*fastrnn_step_fn)(const fastrnn_phase *, const fastrnn_step *, ptrdiff_t block0, ptrdiff_t block1, ptrdiff_t row0, ptrdiff_t row1);

/* out[row] = b + W_ih x[row] in packed order, [row][groups][G][LANES], for rows [row0, row1) and the unit blocks of one phase. */
typedef void (*fastrnn_inputs_fn)(int kind, const fastrnn_phase *, const void *const *x, void *out, ptrdiff_t out_stride,
                                  ptrdiff_t block0, ptrdiff_t block1, ptrdiff_t row0, ptrdiff_t row1);

/* out[row] = f(b + W_ih x[row]), (units,) each: an output layer, a FASTRNN_RNN phase without W_hh.  `sums` is for [rows][groups*LANES]. */
typedef void (*fastrnn_dense_fn)(const fastrnn_phase *, const void *const *x, void *sums, void *const *out, ptrdiff_t rows);

/* out = f(in) for n numbers, which are one row where f is of a row; in and out are the same or do not overlap. */
typedef void (*fastrnn_activate_fn)(int activation, const void *in, void *out, ptrdiff_t n);

/* out = softmax((in - max(in)) / temperature) of a row, for a temperature that is finite and above 0 in T; NaN where a number is or the largest
 * is infinite. */
typedef void (*fastrnn_probabilities_fn)(double temperature, const void *in, void *out, ptrdiff_t n);

typedef struct {
    fastrnn_step_fn step[FASTRNN_PHASES];
    fastrnn_inputs_fn inputs;
    fastrnn_dense_fn dense;
    fastrnn_activate_fn activate;
    fastrnn_probabilities_fn probabilities;
    int ahead;                 /* whether a step of one row can project inputs on the way: the tier has registers for both */
} fastrnn_kernels;

/* Packed geometry, the same on every tier: fastrnn/cells.py's. */
enum { FASTRNN_GROUP_BYTES = 64 };
static inline __attribute__((always_inline)) int fastrnn_phase_gates(int kind) /* G */
{
    return kind == FASTRNN_LSTM ? 4 : kind == FASTRNN_GRU ? 3 : kind == FASTRNN_GRU_RESET ? 2 : 1;
}
#define FASTRNN_BLOCK(kind) ((kind) == FASTRNN_LSTM ? 1 : (kind) == FASTRNN_GRU || (kind) == FASTRNN_GRU_RESET ? 2 : 4) /* U */

/* dispatch.c */
int fastrnn_phase_block(int kind);        /* U, where `kind` is no constant: a call keeps the choice out of the kernels */
extern int fastrnn_fetches_far;           /* whether one row's weights from the last cache are fetched ahead by instructions, from before main() on */
int fastrnn_tier_built(int tier);
int fastrnn_tier_runs(int tier);                                  /* the processor and the operating system both support it */
const char *fastrnn_tier_name(int tier);
const fastrnn_kernels *fastrnn_get_kernels(int tier, int dtype);  /* NULL unless built and runnable */

#endif
