/* The assertions of the leaves and the pool: a call that breaks their contract is aborted, in a process of its own, and the same call without the
 * mistake is not. For builds without NDEBUG. */
#define _XOPEN_SOURCE 700 /* fork, setrlimit */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../src_kernels/kernels.h"
#include "../../src_kernels/pool.h"

#ifdef FASTRNN_DOUBLE
typedef double real;
#define DTYPE FASTRNN_F64
#else
typedef float real;
#define DTYPE FASTRNN_F32
#endif

enum { UNITS = 70, INPUTS = 3, ROWS = 2, MOST_GATES = 4, PADDED = 128 };

/* A step of one phase, all of it as it should be until a mistake is made. */
typedef struct {
    const fastrnn_kernels *kernels;
    int kind;
    fastrnn_phase phase;
    fastrnn_step io;
    const void *x[ROWS], *h[ROWS];
    void *out[ROWS];
    ptrdiff_t block0, block1, row0, row1;
    double temperature;
} call;

static real weights[MOST_GATES * PADDED * UNITS], vectors[2 * ROWS][UNITS], results[ROWS][MOST_GATES * PADDED], cells[ROWS][PADDED];
static int failures;

static void make_call(call *c, const fastrnn_kernels *kernels, int kind) {
    const int group = FASTRNN_GROUP_BYTES / sizeof(real), groups = (UNITS + group - 1) / group, U = fastrnn_phase_block(kind);
    *c = (call){.kernels = kernels, .kind = kind, .block1 = (groups + U - 1) / U, .row1 = ROWS, .temperature = 2};
    c->phase = (fastrnn_phase){.w_x = weights, .w_h = weights, .b = weights, .b_h = weights, .inputs = INPUTS, .depth = UNITS, .units = UNITS};
    for (int row = 0; row < ROWS; row++) c->x[row] = vectors[row], c->h[row] = vectors[ROWS + row], c->out[row] = results[row];
    c->io = (fastrnn_step){.x = c->x, .start = weights, .h = c->h, .prev = c->h, .out = c->out, .cell = cells, .cell_stride = PADDED};
}

static void step(call *c) { c->kernels->step[c->kind](&c->phase, &c->io, c->block0, c->block1, c->row0, c->row1); }
static void inputs(call *c) {
    c->kernels->inputs(c->kind, &c->phase, c->x, results, MOST_GATES * PADDED, c->block0, c->block1, c->row0, c->row1);
}
static void dense(call *c) { c->kernels->dense(&c->phase, c->x, cells, c->out, c->row1); }
static void activate(call *c) { c->kernels->activate(c->phase.activation, c->h[1], c->out[1], c->phase.units); }
static void probabilities(call *c) { c->kernels->probabilities(c->temperature, c->h[1], c->out[1], c->phase.units); }
static void pool(call *c) {
    fastrnn_barrier barrier;
    fastrnn_barrier_init(&barrier);
    for (ptrdiff_t i = 0; i < c->row1; i++) fastrnn_pool_enter();
    for (int i = 0; i < ROWS; i++) fastrnn_pool_leave();
    fastrnn_barrier_wait(&barrier, 1 - (int)c->row0);
}

static void first_block(call *c) { c->block0 = -1; }
static void last_block(call *c) { c->block1++; }
static void order_of_blocks(call *c) { c->block0 = c->block1 + 1; }
static void first_row(call *c) { c->row0 = -1; }
static void order_of_rows(call *c) { c->row0 = c->row1 + 1; }
static void last_row(call *c) { c->row1 = -1; }
static void one_entered(call *c) { c->row1 = 1; }
static void one_too_many(call *c) { c->row0 = 1; }
static void kind(call *c) { c->kind = FASTRNN_PHASES; }
static void units(call *c) { c->phase.units = -1; }
static void activation(call *c) { c->phase.activation = FASTRNN_LOG_SOFTMAX + 1; }
static void softmax(call *c) { c->phase.activation = FASTRNN_SOFTMAX; }
static void w_x(call *c) { c->phase.w_x = NULL; }
static void w_h(call *c) { c->phase.w_h = NULL; }
static void b_h(call *c) { c->phase.b_h = NULL; }
static void start(call *c) { c->io.start = NULL; }
static void start_stride(call *c) { c->io.start_stride = 1; }
static void cell(call *c) { c->io.cell = NULL; }
static void cell_stride(call *c) { c->io.cell_stride = UNITS - 1; }
static void prev(call *c) { c->io.prev = NULL; }
static void row_of_x(call *c) { c->x[1] = NULL; }
static void row_of_out(call *c) { c->out[1] = NULL; }
static void out_over_h(call *c) { c->out[1] = (char *)c->h[1] + (UNITS - 1) * sizeof(real); }
static void out_over_x(call *c) { c->out[1] = (void *)c->x[1]; }
static void cold(call *c) { c->temperature = 0; }
static void hot(call *c) { c->temperature = INFINITY; }
static void soon(call *c) { c->io.soon = c->x; }
static void ahead(call *c) {
    static fastrnn_ahead parts_of_none;
    c->io.ahead = &parts_of_none;
}

static const struct {
    const char *name;
    void (*run)(call *);
    int kind;
    void (*mistakes[24])(call *);
} cases[] = {
    {"rnn", step, FASTRNN_RNN, {first_block, last_block, order_of_blocks, first_row, order_of_rows, units, activation, softmax, w_x, w_h, start,
                                start_stride, row_of_x, row_of_out, out_over_h, out_over_x, soon, ahead}},
    {"lstm", step, FASTRNN_LSTM, {last_block, softmax, cell, cell_stride, out_over_h}},
    {"gru", step, FASTRNN_GRU, {last_block, b_h, prev}},
    {"gru_reset", step, FASTRNN_GRU_RESET, {last_block, cell, prev}},
    {"gru_new", step, FASTRNN_GRU_NEW, {last_block, cell, prev}},
    {"inputs", inputs, FASTRNN_LSTM, {first_block, last_block, first_row, order_of_rows, kind, w_x, row_of_x}},
    {"dense", dense, FASTRNN_RNN, {last_row, activation, w_x, row_of_x, row_of_out}},
    {"activate", activate, FASTRNN_RNN, {activation, units, out_over_h}},
    {"probabilities", probabilities, FASTRNN_RNN, {units, out_over_h, cold, hot}},
    {"pool", pool, FASTRNN_RNN, {one_entered, one_too_many}},
};

/* How a call ends, with its `mistake` if there is one. */
static int status_of(void (*run)(call *), void (*mistake)(call *), call c) {
    fflush(stdout);
    const pid_t child = fork();
    if (child < 0) abort();
    if (child == 0) {
        const struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        if (mistake && !freopen("/dev/null", "w", stderr)) _exit(2); /* the message that is expected */
        c.io.x = c.x, c.io.h = c.io.prev = c.h, c.io.out = c.out;     /* its own */
        if (mistake) mistake(&c);
        run(&c);
        _exit(0);
    }
    int status;
    if (waitpid(child, &status, 0) != child) abort();
    return status;
}

int main(void) {
    int aborted = 0;
    for (int tier = 0; tier < FASTRNN_TIERS; tier++) {
        const fastrnn_kernels *kernels = fastrnn_get_kernels(tier, DTYPE);
        if (!kernels) continue;
        for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
            call c;
            make_call(&c, kernels, cases[i].kind);
            int status = status_of(cases[i].run, NULL, c);
            if (status && ++failures) printf("FAILED: %s %s without a mistake ends with status %#x\n", fastrnn_tier_name(tier), cases[i].name, status);
            for (int k = 0; cases[i].mistakes[k]; k++, aborted++) {
                status = status_of(cases[i].run, cases[i].mistakes[k], c);
                if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT) continue;
                failures++;
                printf("FAILED: %s %s is not aborted for mistake %d, but ends with status %#x\n", fastrnn_tier_name(tier), cases[i].name, k, status);
            }
        }
    }
    printf("%d mistakes, %d failures\n", aborted, failures);
    return failures > 0;
}
