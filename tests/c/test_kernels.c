/* The C leaves of every tier that runs here against the naive cells and dense layers of cells.h, bit for bit, over odd sizes.
 *
 * For the sanitizers every buffer has exactly the size the interface asks for. Packed arrays start on 64 bytes as promised to the
 * kernels; rows of x, h and out belong to users and start one element after that. Padding lanes of the weights hold NaN, which
 * must never reach a unit. Prints a checksum of all results: equal on every machine and compiler. */
#include <math.h>
#include <stdio.h>

#include "../../src_kernels/kernels.h"
#include "cells.h"

#ifdef FASTRNN_DOUBLE
#define DTYPE FASTRNN_F64
#else
#define DTYPE FASTRNN_F32
#endif

enum { GROUP = FASTRNN_GROUP_BYTES / sizeof(real), STEPS = 3 };

static int failures;
static uint64_t checksum = 0xcbf29ce484222325; /* FNV-1a */

static void add_to_checksum(real value) { checksum = (checksum ^ (value == value ? to_bits(value) : 1)) * 0x100000001b3; }

/* Buffers -------------------------------------------------------------------------------------------------------------- */

static real *packed(ptrdiff_t count) {
    real *memory = aligned_alloc(FASTRNN_GROUP_BYTES, (size_t)count * sizeof *memory);
    if (count && !memory) abort();
    for (ptrdiff_t i = 0; i < count; i++) memory[i] = NAN;
    return memory;
}

/* `rows` rows of `size` elements, each in a block of memory of its own, which ends where the row ends. */
static real **make_rows(int rows, int size) {
    real **row = allocate((size_t)rows, sizeof *row);
    for (int r = 0; r < rows; r++) row[r] = (real *)allocate((size_t)size + 1, sizeof **row) + 1;
    return row;
}

static void free_rows(real **row, int rows) {
    for (int r = 0; r < rows; r++) free(row[r] - 1);
    free(row);
}

static int groups_of(int units) { return (units + GROUP - 1) / GROUP; }

/* [blocks][K][U][G][lanes] from the rows [gate][unit] of w (.., K); fewer groups in the last block. */
static real *pack(int kind, const real *w, int first_gate, int units, int K) {
    const int U = fastrnn_phase_block(kind), G = fastrnn_phase_gates(kind), groups = groups_of(units);
    real *p = packed((ptrdiff_t)groups * G * GROUP * K);
    for (int gate = 0; gate < G; gate++)
        for (int u = 0; u < units; u++)
            for (int k = 0; k < K; k++) {
                const int q = u / GROUP, block = q / U, here = groups - block * U < U ? groups - block * U : U;
                p[block * U * K * G * GROUP + ((k * here + q % U) * G + gate) * GROUP + u % GROUP] =
                    w[((first_gate + gate) * units + u) * K + k];
            }
    return p;
}

/* [groups][G][lanes]: b_ih + b_hh, where `folded` says so for the gate. */
static real *pack_bias(int kind, const cell *w, int first_gate, int units) {
    const int G = fastrnn_phase_gates(kind);
    real *p = packed((ptrdiff_t)groups_of(units) * G * GROUP);
    for (int gate = 0; gate < G; gate++)
        for (int u = 0; u < units; u++) {
            const int row = (first_gate + gate) * units + u, folded = !(kind == FASTRNN_GRU && gate == 2);
            p[(u / GROUP * G + gate) * GROUP + u % GROUP] =
                kind == FASTRNN_PROJECT ? 0 : folded ? w->b_ih[row] + w->b_hh[row] : w->b_ih[row];
        }
    return p;
}

static int activation_number(const cell *w) {
    return does(w, "linear") ? FASTRNN_LINEAR : does(w, "relu") ? FASTRNN_RELU : does(w, "sigmoid") ? FASTRNN_SIGMOID : FASTRNN_STANDARD;
}

static fastrnn_phase make_phase(int kind, const cell *w, int first_gate) {
    const int project = kind == FASTRNN_PROJECT, units = project ? w->P : w->H, depth = project ? w->H : w->R;
    fastrnn_phase p = {.inputs = project ? 0 : w->I, .depth = depth, .units = units, .activation = activation_number(w)};
    p.flush = !(kind == FASTRNN_LSTM && w->P);
    p.w_x = project ? NULL : pack(kind, w->w_ih, first_gate, units, w->I);
    p.w_h = pack(kind, project ? w->w_hr : w->w_hh, first_gate, units, depth);
    p.b = pack_bias(kind, w, first_gate, units);
    if (kind == FASTRNN_GRU) {
        real *b_h = packed((ptrdiff_t)groups_of(units) * GROUP);
        memcpy(b_h, w->b_hh + 2 * units, (size_t)units * sizeof *b_h);
        p.b_h = b_h;
    }
    return p;
}

static void free_phase(fastrnn_phase p) { free((void *)p.w_x), free((void *)p.w_h), free((void *)p.b), free((void *)p.b_h); }

/* Steps ---------------------------------------------------------------------------------------------------------------- */

/* How one step is cut up: any of these must give the same bits. */
typedef struct {
    int inputs_first;   /* b + W_ih x by the `inputs` kernel, not inside the step; 2: each row of it in memory of its own */
    int by_block;       /* one call per block, last block first */
    int by_row;         /* rows in two calls, the later ones first */
} manner;

static void run_phase(const fastrnn_kernels *kernels, int kind, const fastrnn_phase *p, manner how, int rows, real **x, real **h, real **prev,
                      real **out, real *state, ptrdiff_t state_stride) {
    const int U = fastrnn_phase_block(kind), G = fastrnn_phase_gates(kind), groups = groups_of((int)p->units);
    const int blocks = (groups + U - 1) / U, cut = how.by_row ? rows / 2 : 0;
    const ptrdiff_t row_size = (ptrdiff_t)groups * G * GROUP;
    fastrnn_step io = {.start = p->b, .h = (const void *const *)h, .prev = (const void *const *)prev, .out = (void *const *)out};
    io.cell = state, io.cell_stride = state_stride;
    real *sums = NULL, **starts = NULL;
    if (kind != FASTRNN_PROJECT && how.inputs_first) {
        io.start = sums = packed(rows * row_size);
        io.start_stride = row_size;
        if (how.inputs_first == 2) {
            io.starts = (const void *const *)(starts = allocate((size_t)rows, sizeof *starts));
            for (int r = 0; r < rows; r++) starts[r] = packed(row_size);
            io.soon = io.starts;
        }
    } else if (kind != FASTRNN_PROJECT) {
        io.x = (const void *const *)x;
    }
    for (int part = how.by_row; part >= 0; part--) {
        const int row0 = part ? cut : 0, row1 = part || !how.by_row ? rows : cut;
        for (int block = how.by_block ? blocks - 1 : 0; block >= 0; block--) {
            const int block1 = how.by_block ? block + 1 : blocks;
            if (sums) kernels->inputs(kind, p, (const void *const *)x, sums, row_size, block, block1, row0, row1);
            for (int r = row0; starts && r < row1; r++) memcpy(starts[r], sums + r * row_size, (size_t)row_size * sizeof *sums);
            kernels->step[kind](p, &io, block, block1, row0, row1);
        }
    }
    for (int r = 0; starts && r < rows; r++) free(starts[r]);
    free(starts), free(sums);
}

/* The one or two phases of a cell, and their kinds. */
typedef struct {
    int count, kinds[2];
    fastrnn_phase phases[2];
} phases_of_cell;

static phases_of_cell make_phases(const cell *w) {
    const int before = is(w, "gru_before");
    phases_of_cell of = {.count = w->P || before ? 2 : 1};
    of.kinds[0] = strncmp(w->variant, "lstm", 4) == 0 ? FASTRNN_LSTM : before ? FASTRNN_GRU_RESET : is(w, "gru") ? FASTRNN_GRU : FASTRNN_RNN;
    of.kinds[1] = before ? FASTRNN_GRU_NEW : FASTRNN_PROJECT;
    for (int i = 0; i < of.count; i++) of.phases[i] = make_phase(of.kinds[i], w, i && before ? 2 : 0);
    return of;
}

/* A step of a cell by its phases; h and c of the rows become the next. */
static void run_cell(const fastrnn_kernels *kernels, const cell *w, const phases_of_cell *of, manner how, int rows, real **x, real **h, real **c) {
    const int lstm = of->kinds[0] == FASTRNN_LSTM, before = of->kinds[0] == FASTRNN_GRU_RESET;
    const ptrdiff_t stride = (ptrdiff_t)groups_of(w->H) * GROUP;
    real *state = lstm || before ? packed(rows * stride) : NULL, **out = make_rows(rows, w->H);
    for (int r = 0; lstm && r < rows; r++) memcpy(state + r * stride, c[r], (size_t)w->H * sizeof *state);
    run_phase(kernels, of->kinds[0], &of->phases[0], how, rows, x, h, h, out, state, stride);
    if (of->count == 2) {
        real **last = make_rows(rows, w->R);
        run_phase(kernels, of->kinds[1], &of->phases[1], how, rows, x, out, h, last, state, stride);
        free_rows(out, rows);
        out = last;
    }
    for (int r = 0; r < rows; r++) memcpy(h[r], out[r], (size_t)w->R * sizeof *h[r]);
    for (int r = 0; lstm && r < rows; r++) memcpy(c[r], state + r * stride, (size_t)w->H * sizeof *state);
    free_rows(out, rows);
    free(state);
}

/* Cases ---------------------------------------------------------------------------------------------------------------- */

typedef enum { PLAIN, TINY, NONFINITE, KINDS } kind_of_data; /* TINY: states that reach the flush */

static void compare(const char *tier, const cell *w, int rows, manner how, int size, real **expected, real **actual, const char *what) {
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < size; i++)
            if (!same(expected[r][i], actual[r][i]) && failures++ < 20)
                printf("FAILED  %s %s %s I=%d H=%d P=%d rows=%d manner=%d%d%d: %s[%d][%d] is %a, expected %a\n", tier, w->variant, w->activation,
                       w->I, w->H, w->P, rows, how.inputs_first, how.by_block, how.by_row, what, r, i, (double)actual[r][i],
                       (double)expected[r][i]);
}

static void draw_rows(uint32_t seed, uint32_t stream, int shift, int rows, int size, real **row) {
    for (int i = 0; i < rows * size; i++) row[i / size][i % size] = ldexp(uniform(seed, stream, (uint32_t)i), -shift);
}

static void check(const char *variant, const char *activation, int I, int H, int rows, kind_of_data kind, uint32_t seed) {
    const int P = strcmp(variant, "lstm_proj") ? 0 : (H * 4 + 6) / 7;
    const int state_shift = kind != TINY ? 0 : DTYPE == FASTRNN_F32 ? 60 : 508;
    cell w = make_cell(variant, activation, I, H, P, kind != TINY, seed, 16, 2);
    real **x = make_rows(rows * STEPS, I);
    if (kind != TINY) draw_rows(seed, 0, 0, rows * STEPS, I, x);
    if (kind == NONFINITE) x[0][I - 1] = INFINITY, x[rows * STEPS / 2][0] = -INFINITY, x[rows * STEPS - 1][0] = NAN;
    real **h = make_rows(rows, w.R), **c = make_rows(rows, H), **h_kernel = make_rows(rows, w.R), **c_kernel = make_rows(rows, H);
    draw_rows(seed, 1, state_shift, rows, w.R, h);
    draw_rows(seed, 2, state_shift, rows, H, c);
    for (int step = 0; step < STEPS; step++)
        for (int r = 0; r < rows; r++) cell_step(&w, x[step * rows + r], h[r], c[r]);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < w.R; i++) add_to_checksum(h[r][i]);
    const phases_of_cell of = make_phases(&w);
    for (int tier = 0; tier < FASTRNN_TIERS; tier++) {
        const fastrnn_kernels *kernels = fastrnn_get_kernels(tier, DTYPE);
        if (!kernels) continue;
        for (int cuts = 0; cuts < 12; cuts++) {
            const manner how = {cuts >> 2, cuts >> 1 & 1, cuts & 1};
            draw_rows(seed, 1, state_shift, rows, w.R, h_kernel);
            draw_rows(seed, 2, state_shift, rows, H, c_kernel);
            for (int step = 0; step < STEPS; step++) run_cell(kernels, &w, &of, how, rows, x + step * rows, h_kernel, c_kernel);
            compare(fastrnn_tier_name(tier), &w, rows, how, w.R, h, h_kernel, "h");
            if (strncmp(variant, "lstm", 4) == 0) compare(fastrnn_tier_name(tier), &w, rows, how, H, c, c_kernel, "c");
        }
    }
    free_rows(x, rows * STEPS), free_rows(h, rows), free_rows(c, rows), free_rows(h_kernel, rows), free_rows(c_kernel, rows);
    for (int i = 0; i < of.count; i++) free_phase(of.phases[i]);
    free_cell(w);
}

/* One row of weights that come from the last cache: fetching them ahead changes no bit. */
static void check_far(const char *variant, int kind, uint32_t seed) {
    const int I = 133, H = kind == FASTRNN_LSTM || kind == FASTRNN_GRU ? 530 : kind == FASTRNN_GRU_RESET ? 730 : 1030, fetches = fastrnn_fetches_far;
    const cell w = make_cell(variant, "standard", I, H, 0, 1, seed, 16, 2);
    const fastrnn_phase p = make_phase(kind, &w, kind == FASTRNN_GRU_NEW ? 2 : 0);
    const int U = fastrnn_phase_block(kind), groups = groups_of(H);
    real **x = make_rows(1, I), **h = make_rows(1, H), **out = make_rows(2, H), *cells[2];
    draw_rows(seed, 0, 0, 1, I, x), draw_rows(seed, 1, 0, 1, H, h);
    for (int tier = 0; tier < FASTRNN_TIERS; tier++) {
        const fastrnn_kernels *kernels = fastrnn_get_kernels(tier, DTYPE);
        if (!kernels) continue;
        for (int far = 0; far < 2; far++) {
            cells[far] = packed((ptrdiff_t)groups * GROUP);
            for (int u = 0; u < H; u++) cells[far][u] = uniform(seed, 2, (uint32_t)u);
            fastrnn_step io = {.x = (const void *const *)x, .start = p.b, .h = (const void *const *)h, .prev = (const void *const *)h};
            io.out = (void *const *)(out + far), io.cell = cells[far];
            fastrnn_fetches_far = far;
            kernels->step[kind](&p, &io, 0, (groups + U - 1) / U, 0, 1);
        }
        for (int u = 0; u < H; u++)
            if ((!same(out[0][u], out[1][u]) || !same(cells[0][u], cells[1][u])) && failures++ < 20)
                printf("FAILED  %s far, phase %d: unit %d\n", fastrnn_tier_name(tier), kind, u);
        free(cells[0]), free(cells[1]);
    }
    fastrnn_fetches_far = fetches;
    free_rows(x, 1), free_rows(h, 1), free_rows(out, 2);
    free_phase(p), free_cell(w);
}

/* A step of one row that projects the next inputs on the way: the step's own results, and the inputs', as each kernel alone gives them. */
static void check_ahead(const char *variant, int kind, int I, int H, int parts, uint32_t seed) {
    const cell w = make_cell(variant, "standard", I, H, 0, 1, seed, 16, 2);
    const fastrnn_phase p = make_phase(kind, &w, kind == FASTRNN_GRU_NEW ? 2 : 0);
    const int G = fastrnn_phase_gates(kind), U = fastrnn_phase_block(kind), groups = groups_of(H), blocks = (groups + U - 1) / U;
    const ptrdiff_t row_size = (ptrdiff_t)groups * G * GROUP, x_stride = I + 3;
    real *x = allocate((size_t)((FASTRNN_AHEAD - 1) * x_stride + I), sizeof *x), *alone = packed(FASTRNN_AHEAD * row_size), *ahead_out = packed(FASTRNN_AHEAD * row_size);
    const void *x_row[FASTRNN_AHEAD];
    for (int r = 0; r < FASTRNN_AHEAD; r++) {
        x_row[r] = x + r * x_stride;
        for (int i = 0; i < I; i++) x[r * x_stride + i] = uniform(seed, 0, (uint32_t)(r * I + i));
    }
    real *sums[2] = {packed(FASTRNN_AHEAD_BYTES / sizeof(real)), packed(FASTRNN_AHEAD_BYTES / sizeof(real))};
    real *by_columns[2] = {allocate((size_t)FASTRNN_AHEAD * I, sizeof(real)), allocate((size_t)FASTRNN_AHEAD * I, sizeof(real))};
    real **h = make_rows(1, H), **out = make_rows(2, H), *state = packed((ptrdiff_t)groups * GROUP), *other = packed((ptrdiff_t)groups * GROUP);
    draw_rows(seed, 1, 0, 1, H, h);
    for (int u = 0; u < H; u++) state[u] = other[u] = uniform(seed, 2, (uint32_t)u);
    for (int tier = 0; tier < FASTRNN_TIERS; tier++) {
        const fastrnn_kernels *kernels = fastrnn_get_kernels(tier, DTYPE);
        if (!kernels || !kernels->ahead) continue;
        kernels->inputs(kind, &p, x_row, alone, row_size, 0, blocks, 0, FASTRNN_AHEAD);
        fastrnn_ahead ahead[2];                                 /* of two shares of the blocks */
        for (int half = 0; half < 2; half++)
            ahead[half] = (fastrnn_ahead){.x = x, .x_stride = x_stride, .out = ahead_out, .out_stride = row_size, .sums = sums[half],
                                          .packed = by_columns[half], .parts = parts};
        for (int part = 0; part < parts; part++) {
            fastrnn_step io = {.start = alone + part % FASTRNN_AHEAD * row_size, .start_stride = row_size};
            io.h = io.prev = (const void *const *)h, io.descending = part & 1;
            io.out = (void *const *)out, io.cell = state;
            kernels->step[kind](&p, &io, 0, blocks, 0, 1);
            io.out = (void *const *)(out + 1), io.cell = other;
            for (int half = 0; half < 2; half++) {
                ahead[half].part = part, io.ahead = &ahead[half];
                kernels->step[kind](&p, &io, half ? blocks / 2 : 0, half ? blocks : blocks / 2, 0, 1);
            }
            for (int u = 0; u < H; u++)
                if (!same(out[0][u], out[1][u]) || !same(state[u], other[u])) {
                    if (failures++ < 20) printf("FAILED  %s ahead, phase %d I=%d H=%d: unit %d\n", fastrnn_tier_name(tier), kind, I, H, u);
                }
        }
        for (int r = 0; r < FASTRNN_AHEAD; r++)
            for (int v = 0; v < groups * G; v++)
                for (int u = v / G * GROUP; u < H && u < (v / G + 1) * GROUP; u++) {
                    const ptrdiff_t at = r * row_size + v * GROUP + u % GROUP;
                    if (!same(alone[at], ahead_out[at]) && failures++ < 20)
                        printf("FAILED  %s inputs ahead, phase %d I=%d H=%d: row %d unit %d\n", fastrnn_tier_name(tier), kind, I, H, r, u);
                }
    }
    free(x), free(alone), free(ahead_out), free(sums[0]), free(sums[1]), free(by_columns[0]), free(by_columns[1]), free(state), free(other);
    free_rows(h, 1), free_rows(out, 2);
    free_phase(p), free_cell(w);
}

static const struct { const char *name; int number; } functions[] = {
    {"linear", FASTRNN_LINEAR}, {"relu", FASTRNN_RELU}, {"sigmoid", FASTRNN_SIGMOID}, {"tanh", FASTRNN_TANH},
    {"softmax", FASTRNN_SOFTMAX}, {"log_softmax", FASTRNN_LOG_SOFTMAX}};

static void compare_row(const char *tier, const char *what, const char *function, int V, int K, int rows, int r, const real *expected,
                        const real *actual) {
    for (int v = 0; v < V; v++)
        if (!same(expected[v], actual[v]) && failures++ < 20)
            printf("FAILED  %s %s %s V=%d K=%d rows=%d: [%d][%d] is %a, expected %a\n", tier, what, function, V, K, rows, r, v, (double)actual[v],
                   (double)expected[v]);
}

static void check_probabilities(int tier, const real *logits, int V, real *expected, real *out) {
    static const double temperatures[] = {1, 0.7, 40, 0x1p-120};
    for (unsigned t = 0; t < sizeof temperatures / sizeof *temperatures; t++) {
        real top = -INFINITY;
        for (int v = 0; v < V; v++) top = max_of(logits[v], top);
        for (int v = 0; v < V; v++) expected[v] = (logits[v] - top) / (real)temperatures[t];
        softmax_of(0, expected, expected, V);
        fastrnn_get_kernels(tier, DTYPE)->probabilities(temperatures[t], logits, out, V);
        compare_row(fastrnn_tier_name(tier), "probabilities", t ? "tempered" : "plain", V, 0, 1, 0, expected, out);
    }
}

/* A dense layer, and its function alone: into another row and in place.  PLAIN weights are small; the others are large, so that shares of a
 * softmax come out tiny and 0. */
static void check_dense(unsigned function, int V, int K, int rows, kind_of_data kind, uint32_t seed) {
    const char *name = functions[function].name;
    const int shift = kind == PLAIN ? 2 : -6;
    const ptrdiff_t padded = (ptrdiff_t)groups_of(V) * GROUP;
    real *w = tensor(seed, 16, V * K, shift), *b = tensor(seed, 17, V, shift), *sums = packed(rows * padded), *packed_b = packed(padded);
    real **x = make_rows(rows, K), **given = make_rows(rows, V), **expected = make_rows(rows, V), **out = make_rows(rows, V);
    draw_rows(seed, 0, 0, rows, K, x);
    draw_rows(seed, 1, shift - 1, rows, V, given);
    for (int v = 0; kind == TINY && v < V; v++) given[0][v] = v ? 0 : -SIGMA_LIMIT; /* e^-d is just normal, its share would not be */
    if (kind == NONFINITE) {
        b[0] = -INFINITY;                                       /* in every row: a share of 0, whose logarithm is -Inf */
        x[0][K - 1] = INFINITY, x[rows - 1][0] = NAN;
        given[0][V / 2] = INFINITY, given[rows / 2][V - 1] = NAN;
        for (int v = 0; v < V; v++) given[rows - 1][v] = v % 3 ? given[rows - 1][v] : -INFINITY;
    }
    memcpy(packed_b, b, (size_t)V * sizeof *b);
    const fastrnn_phase p = {.w_x = pack(FASTRNN_RNN, w, 0, V, K), .b = packed_b, .inputs = K, .units = V, .activation = functions[function].number};
    for (int tier = 0; tier < FASTRNN_TIERS; tier++) {
        const fastrnn_kernels *kernels = fastrnn_get_kernels(tier, DTYPE);
        if (!kernels) continue;
        for (int r = 0; r < rows; r++) dense_row(name, w, b, x[r], expected[r], K, V);
        kernels->dense(&p, (const void *const *)x, sums, (void *const *)out, rows);
        for (int r = 0; r < rows; r++) compare_row(fastrnn_tier_name(tier), "dense", name, V, K, rows, r, expected[r], out[r]);
        for (int r = 0; r < rows; r++) {
            activate_row(name, given[r], expected[r], V);
            kernels->activate(p.activation, given[r], out[r], V);
            compare_row(fastrnn_tier_name(tier), "activate", name, V, K, rows, r, expected[r], out[r]);
            memcpy(out[r], given[r], (size_t)V * sizeof **out);
            kernels->activate(p.activation, out[r], out[r], V);
            compare_row(fastrnn_tier_name(tier), "activate in place", name, V, K, rows, r, expected[r], out[r]);
            if (p.activation == FASTRNN_SOFTMAX) check_probabilities(tier, given[r], V, expected[r], out[r]);
        }
    }
    for (int r = 0; r < rows; r++) {
        activate_row(name, given[r], expected[r], V);
        for (int v = 0; v < V; v++) add_to_checksum(expected[r][v]);
        dense_row(name, w, b, x[r], expected[r], K, V);
        for (int v = 0; v < V; v++) add_to_checksum(expected[r][v]);
    }
    free(w), free(b), free(sums);
    free_rows(x, rows), free_rows(given, rows), free_rows(expected, rows), free_rows(out, rows);
    free_phase(p);
}

/* test_kernels [N]: every N-th of all problems. */
int main(int count, char **arguments) {
    static const char *const cells[][2] = {
        {"rnn", "tanh"}, {"rnn", "relu"}, {"rnn", "sigmoid"}, {"rnn", "linear"}, {"lstm", "standard"}, {"lstm", "linear"},
        {"lstm_proj", "standard"}, {"lstm_proj", "linear"}, {"gru", "standard"}, {"gru", "linear"}, {"gru_before", "standard"},
        {"gru_before", "linear"}};
    /* One short of, at and one beyond groups and blocks of both dtypes; whole blocks and a shorter last one; sums of several runs. */
    static const int sizes[][2] = {{1, 1}, {3, 3}, {5, 8}, {16, 15}, {37, 16}, {1, 17}, {4, 33}, {3, 37}, {16, 64}, {2, 70}, {129, 16}, {7, 130},
                                   {257, 48}};
    static const int heights[] = {1, 2, 3, 4, 5, 6, 7, 13}; /* rows: every height of a tile */
    const uint32_t every = count > 1 ? (uint32_t)atoi(arguments[1]) : 1;
    uint32_t seed = 0;
    printf("%s, kernels:", DTYPE == FASTRNN_F32 ? "float32" : "float64");
    for (int tier = 0; tier < FASTRNN_TIERS; tier++)
        if (fastrnn_get_kernels(tier, DTYPE)) printf(" %s", fastrnn_tier_name(tier));
    printf("\n");
    for (unsigned i = 0; i < sizeof cells / sizeof *cells; i++)
        for (unsigned j = 0; j < sizeof sizes / sizeof *sizes; j++)
            for (int kind = 0; kind < KINDS; kind++) {
                const unsigned first = kind == PLAIN ? 0 : 2, end = kind == PLAIN ? sizeof heights / sizeof *heights : 3;
                for (unsigned k = first; k < end; k++) {
                    if (++seed % every) continue;
                    check(cells[i][0], cells[i][1], sizes[j][0], sizes[j][1], heights[k], (kind_of_data)kind, seed);
                }
            }
    static const struct { const char *variant; int kind; } phases[] = {
        {"rnn", FASTRNN_RNN}, {"lstm", FASTRNN_LSTM}, {"gru", FASTRNN_GRU}, {"gru_before", FASTRNN_GRU_RESET}, {"gru_before", FASTRNN_GRU_NEW}};
    for (unsigned i = 0; i < sizeof phases / sizeof *phases; i++) check_far(phases[i].variant, phases[i].kind, ++seed);
    static const int parts[] = {1, 5, FASTRNN_AHEAD};
    for (unsigned i = 0; i < sizeof phases / sizeof *phases; i++)
        for (unsigned j = 0; j < sizeof sizes / sizeof *sizes; j++)
            for (unsigned k = 0; k < sizeof parts / sizeof *parts; k++)
                if (++seed % every == 0) check_ahead(phases[i].variant, phases[i].kind, sizes[j][0], sizes[j][1], parts[k], seed);
    static const int units[] = {1, 3, 15, 16, 17, 37, 130}, inputs[] = {1, 5, 130}, rows[] = {1, 2, 7};
    for (unsigned f = 0; f < sizeof functions / sizeof *functions; f++)
        for (unsigned i = 0; i < sizeof units / sizeof *units; i++)
            for (unsigned j = 0; j < sizeof inputs / sizeof *inputs; j++)
                for (unsigned k = 0; k < sizeof rows / sizeof *rows; k++)
                    for (int kind = 0; kind < KINDS; kind++)
                        if (++seed % every == 0) check_dense(f, units[i], inputs[j], rows[k], (kind_of_data)kind, seed);
    printf("checksum %016llx\n%d failures\n", (unsigned long long)checksum, failures);
    return failures > 0;
}
