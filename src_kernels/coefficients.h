/* The activations' coefficients, written by src_kernels/coefficients.py, which says how; do not edit. */
#ifndef FASTRNN_COEFFICIENTS_H
#define FASTRNN_COEFFICIENTS_H

/* q(f) ~ (2^f - 1) / f, |f| <= 1/2, lowest coefficient first */
#define FASTRNN_Q_F32 \
    {0x1.62e430p-1f, \
     0x1.ebfbe0p-3f, \
     0x1.c6afa2p-5f, \
     0x1.3b2a30p-7f, \
     0x1.5ef26ap-10f, \
     0x1.443fb0p-13f}
#define FASTRNN_MINUS_LOG2E_F32 (-0x1.715476p+0f)
#define FASTRNN_TWO_LOG2E_F32 (0x1.715476p+1f)

/* q(f) ~ (2^f - 1) / f, |f| <= 1/2, lowest coefficient first */
#define FASTRNN_Q_F64 \
    {0x1.62e42fefa39efp-1, \
     0x1.ebfbdff82c595p-3, \
     0x1.c6b08d704a181p-5, \
     0x1.3b2ab6fba26d8p-7, \
     0x1.5d87fe788a671p-10, \
     0x1.43091307ac2b6p-13, \
     0x1.ffcbfccefaa39p-17, \
     0x1.62bfd8c1089cfp-20, \
     0x1.b52443381349ep-24, \
     0x1.e5ff1fa30e81fp-28, \
     0x1.eac66afc677acp-32}
#define FASTRNN_MINUS_LOG2E_F64 (-0x1.71547652b82fep+0)
#define FASTRNN_TWO_LOG2E_F64 (0x1.71547652b82fep+1)

#endif
