"""Fail unless the compiled kernels on this processor's best tier are what runs; print all tiers and backends."""

import platform
import sys

import fastrnn

WANTED = {"avx512": {"avx512f", "avx512vl", "fma"}, "avx2": {"avx2", "fma"}}


def expected() -> str:
    """The tier that the system's own list of processor features asks for."""
    if platform.machine() in ("aarch64", "arm64"):
        return "neon"
    with open("/proc/cpuinfo") as file:
        flags = next((set(line.split()) for line in file if line.startswith("flags")), set())
    return next((tier for tier, wanted in WANTED.items() if wanted <= flags), "generic")


info = fastrnn.cpu_info()
print(f"{info['model']}: backends {info['backends']}, in use {info['backend']}")
print(f"tiers {info['tiers']}, in use {info['tier']}; Numba compiles for {info['numba_target']}")
print(f"fastrnn {fastrnn.__version__} from {fastrnn.__file__}")
if (info["backend"], info["tier"]) != ("cython", expected()):
    sys.exit(f"expected backend cython on tier {expected()}")
