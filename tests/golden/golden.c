/* Where the golden bits come from: the naive cells of ../c/cells.h over time, layers, directions and ragged batches.
 *
 *     golden VARIANT ACTIVATION I H P L D T B BIAS RAGGED SEED WEIGHT_SHIFT STATE_SHIFT LOUD SPECIAL > bytes of y, h and, for LSTM, c
 *
 * Built once per dtype, see ../c/contract.h. Weights and biases are drawn and taken times 2^-WEIGHT_SHIFT, initial states times
 * 2^-STATE_SHIFT; x is 0 from step LOUD on. SPECIAL puts Inf, -Inf and NaN into x. Tests draw the same numbers in NumPy.
 *
 * VARIANT dense is a dense layer from I to H numbers over T rows; it heeds BIAS, SEED, WEIGHT_SHIFT and SPECIAL, which puts Inf and NaN
 * into x and -Inf into the first bias, and gives y alone. */
#include <math.h>
#include <stdio.h>

#include "../c/cells.h"

enum { STREAM_X, STREAM_H, STREAM_C, STREAM_LENGTHS, STREAM_WEIGHTS = 16 }; /* 16 + 5 index + field */

static int dense(const char *activation, int I, int H, int T, int bias, uint32_t seed, int weight_shift, int special) {
    real *x = tensor(seed, STREAM_X, T * I, 0), *w = tensor(seed, STREAM_WEIGHTS, H * I, weight_shift);
    real *b = tensor(seed, STREAM_WEIGHTS + 2, H, weight_shift), *y = allocate((size_t)(T * H), sizeof *y);
    for (int v = 0; !bias && v < H; v++) b[v] = 0;
    if (special) x[0 * I + 0] = INFINITY, x[1 * I + 0] = NAN, b[0] = -INFINITY;
    for (int t = 0; t < T; t++) dense_row(activation, w, b, x + t * I, y + t * H, I, H);
    fwrite(y, sizeof *y, (size_t)(T * H), stdout);
    free(x), free(w), free(b), free(y);
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 17) return fprintf(stderr, "usage: see the top of golden.c\n"), 2;
    int n[17];
    for (int i = 3; i < 17; i++) n[i] = atoi(argv[i]);
    const int I = n[3], H = n[4], P = n[5], R = P ? P : H, L = n[6], D = n[7], T = n[8], B = n[9];
    const int bias = n[10], ragged = n[11], weight_shift = n[13], state_shift = n[14], loud = n[15], special = n[16];
    const uint32_t seed = (uint32_t)n[12];
    if (strcmp(argv[1], "dense") == 0) return dense(argv[2], I, H, T, bias, seed, weight_shift, special);

    real *x = tensor(seed, STREAM_X, T * B * I, 0);
    for (int i = loud * B * I; i < T * B * I; i++) x[i] = 0;
    if (special) x[1 * B * I + 0 * I] = INFINITY, x[2 * B * I + 1 * I] = -INFINITY, x[1 * B * I + 2 * I] = NAN;
    real *h = tensor(seed, STREAM_H, L * D * B * R, state_shift), *c = tensor(seed, STREAM_C, L * D * B * H, state_shift);
    for (int layer = 0; layer < L; layer++) {
        const int inputs = layer ? D * R : I;
        real *y = allocate((size_t)(T * B * D * R), sizeof *y); /* zero beyond a length */
        for (int direction = 0; direction < D; direction++) {
            const int index = layer * D + direction;
            const cell w = make_cell(argv[1], argv[2], inputs, H, P, bias, seed, (uint32_t)(STREAM_WEIGHTS + 5 * index), weight_shift);
            for (int row = 0; row < B; row++) {
                const int length = ragged ? (int)(draw(seed, STREAM_LENGTHS, (uint32_t)row) % (uint32_t)(T + 1)) : T;
                for (int i = 0; i < length; i++) {
                    const int t = direction ? length - 1 - i : i;
                    real *now = h + (index * B + row) * R;
                    cell_step(&w, x + (t * B + row) * inputs, now, c + (index * B + row) * H);
                    memcpy(y + ((t * B + row) * D + direction) * R, now, (size_t)R * sizeof *y);
                }
            }
            free_cell(w);
        }
        free(x);
        x = y;
    }
    fwrite(x, sizeof *x, (size_t)(T * B * D * R), stdout);
    fwrite(h, sizeof *h, (size_t)(L * D * B * R), stdout);
    if (strncmp(argv[1], "lstm", 4) == 0) fwrite(c, sizeof *c, (size_t)(L * D * B * H), stdout);
    free(x), free(h), free(c);
    return 0;
}
