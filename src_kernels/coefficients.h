/* The activations' coefficients, written by src_kernels/coefficients.py, which says how; do not edit. */
#ifndef FASTRNN_COEFFICIENTS_H
#define FASTRNN_COEFFICIENTS_H

/* (e^-f - 1) / f for |f| <= ln 2 / 2, lowest coefficient first */
#define FASTRNN_Q_SIGMA_F32 \
    {-0x1.000000p+0f, \
     0x1.000000p-1f, \
     -0x1.5554b2p-3f, \
     0x1.5554c8p-5f, \
     -0x1.122668p-7f, \
     0x1.6d7206p-10f}
/* (e^2f - 1) / f for |f| <= ln 2 / 4 */
#define FASTRNN_Q_TANH_F32 \
    {0x1.000000p+1f, \
     0x1.000000p+1f, \
     0x1.5554b2p+0f, \
     0x1.5554c8p-1f, \
     0x1.122668p-2f, \
     0x1.6d7206p-4f}
/* (ln((1 + u) / (1 - u)) - 2u) / u^3 by powers of u^2, |u| <= (sqrt 2 - 1) / (sqrt 2 + 1) */
#define FASTRNN_Q_LOG_F32 \
    {0x1.555556p-1f, \
     0x1.9999ecp-2f, \
     0x1.245c44p-2f, \
     0x1.ddced8p-3f}
#define FASTRNN_LN2_F32 (0x1.62e430p-1f)
#define FASTRNN_MINUS_HALF_LN2_F32 (-0x1.62e430p-2f)
#define FASTRNN_MINUS_LOG2E_F32 (-0x1.715476p+0f)
#define FASTRNN_TWO_LOG2E_F32 (0x1.715476p+1f)
/* sigma is 0 below minus this; there e^-x is the largest power of two whose inverse is normal */
#define FASTRNN_SIGMA_LIMIT_F32 (0x1.5d589ep+6f)

/* (e^-f - 1) / f for |f| <= ln 2 / 2, lowest coefficient first */
#define FASTRNN_Q_SIGMA_F64 \
    {-0x1.000000p+0, \
     0x1.0000000000005p-1, \
     -0x1.555555555555cp-3, \
     0x1.55555555520f8p-5, \
     -0x1.111111110e842p-7, \
     0x1.6c16c17f35677p-10, \
     -0x1.a01a01b55ac71p-13, \
     0x1.a019a68ddee08p-16, \
     -0x1.71ddeb16942ccp-19, \
     0x1.28a2a244f1375p-22, \
     -0x1.af750acbf2eedp-26}
/* (e^2f - 1) / f for |f| <= ln 2 / 4 */
#define FASTRNN_Q_TANH_F64 \
    {0x1.000000p+1, \
     0x1.0000000000005p+1, \
     0x1.555555555555cp+0, \
     0x1.55555555520f8p-1, \
     0x1.111111110e842p-2, \
     0x1.6c16c17f35677p-4, \
     0x1.a01a01b55ac71p-6, \
     0x1.a019a68ddee08p-8, \
     0x1.71ddeb16942ccp-10, \
     0x1.28a2a244f1375p-12, \
     0x1.af750acbf2eedp-15}
/* (ln((1 + u) / (1 - u)) - 2u) / u^3 by powers of u^2, |u| <= (sqrt 2 - 1) / (sqrt 2 + 1) */
#define FASTRNN_Q_LOG_F64 \
    {0x1.5555555555555p-1, \
     0x1.999999999999ap-2, \
     0x1.2492492492486p-2, \
     0x1.c71c71c71f255p-3, \
     0x1.745d17437e31ap-3, \
     0x1.3b13b261100c9p-3, \
     0x1.1110b8d10b6bbp-3, \
     0x1.e2029616bb132p-4, \
     0x1.ab83e04a47f78p-4, \
     0x1.bedb01af0c1fep-4}
#define FASTRNN_LN2_F64 (0x1.62e42fefa39efp-1)
#define FASTRNN_MINUS_HALF_LN2_F64 (-0x1.62e42fefa39efp-2)
#define FASTRNN_MINUS_LOG2E_F64 (-0x1.71547652b82fep+0)
#define FASTRNN_TWO_LOG2E_F64 (0x1.71547652b82fep+1)
/* sigma is 0 below minus this; there e^-x is the largest power of two whose inverse is normal */
#define FASTRNN_SIGMA_LIMIT_F64 (0x1.6232bdd7abcd2p+9)

#endif
