/* Which tiers are built and which of them run here. */
#include "tier.h"

int fastrnn_fetches_far;

#if defined(__x86_64__)
#include <cpuid.h>

/* Zen 5 (family 1Ah): its own prefetcher does not always keep up, but fetching is in the way of Zen 4's (README.md).  Asked once, for cpuid takes
 * microseconds in a virtual machine. */
static __attribute__((constructor)) void look_at_processor(void)
{
    unsigned a, b, c, d;
    const int is_amd = __get_cpuid(0, &a, &b, &c, &d) && b == signature_AMD_ebx;
    fastrnn_fetches_far = is_amd && __get_cpuid(1, &a, &b, &c, &d) && (a >> 8 & 15) + (a >> 20 & 255) == 0x1a;
}
#endif

int fastrnn_phase_block(int kind) { return FASTRNN_BLOCK(kind); }

static const fastrnn_kernels *const *tables(int tier)
{
    switch (tier) {
    case FASTRNN_GENERIC: return fastrnn_generic;
    case FASTRNN_NEON: return fastrnn_neon;
    case FASTRNN_AVX2: return fastrnn_avx2;
    default: return fastrnn_avx512;
    }
}

int fastrnn_tier_built(int tier) { return tables(tier)[FASTRNN_F32] != NULL; }

int fastrnn_tier_runs(int tier)
{
    if (!fastrnn_tier_built(tier)) return 0;
#if defined(__x86_64__)
    /* gcc's and clang's detection reads XCR0 too: an operating system that does not save the wide registers counts as a processor without them */
    if (tier == FASTRNN_AVX2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (tier == FASTRNN_AVX512) return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
#endif
    return 1;
}

const char *fastrnn_tier_name(int tier)
{
    static const char *const names[FASTRNN_TIERS] = {[FASTRNN_GENERIC] = "generic", [FASTRNN_NEON] = "neon", [FASTRNN_AVX2] = "avx2",
                                                     [FASTRNN_AVX512] = "avx512"};
    return names[tier];
}

const fastrnn_kernels *fastrnn_get_kernels(int tier, int dtype) { return fastrnn_tier_runs(tier) ? tables(tier)[dtype] : NULL; }
