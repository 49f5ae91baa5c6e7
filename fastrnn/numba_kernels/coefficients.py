"""The activations' coefficients, written by src_kernels/coefficients.py, which says how; do not edit."""

Q_F32 = (
    float.fromhex("0x1.62e430p-1"),
    float.fromhex("0x1.ebfbe0p-3"),
    float.fromhex("0x1.c6afa2p-5"),
    float.fromhex("0x1.3b2a30p-7"),
    float.fromhex("0x1.5ef26ap-10"),
    float.fromhex("0x1.443fb0p-13"),
)
MINUS_LOG2E_F32 = float.fromhex("-0x1.715476p+0")
TWO_LOG2E_F32 = float.fromhex("0x1.715476p+1")
Q_F64 = (
    float.fromhex("0x1.62e42fefa39efp-1"),
    float.fromhex("0x1.ebfbdff82c595p-3"),
    float.fromhex("0x1.c6b08d704a181p-5"),
    float.fromhex("0x1.3b2ab6fba26d8p-7"),
    float.fromhex("0x1.5d87fe788a671p-10"),
    float.fromhex("0x1.43091307ac2b6p-13"),
    float.fromhex("0x1.ffcbfccefaa39p-17"),
    float.fromhex("0x1.62bfd8c1089cfp-20"),
    float.fromhex("0x1.b52443381349ep-24"),
    float.fromhex("0x1.e5ff1fa30e81fp-28"),
    float.fromhex("0x1.eac66afc677acp-32"),
)
MINUS_LOG2E_F64 = float.fromhex("-0x1.71547652b82fep+0")
TWO_LOG2E_F64 = float.fromhex("0x1.71547652b82fep+1")
