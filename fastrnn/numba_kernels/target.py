"""What Numba compiles for: the width and the number of the vector registers, asked of LLVM and not of the processor."""

from functools import cache
from typing import NamedTuple

import llvmlite.binding as llvm
from numba.core.registry import cpu_target

__all__ = ["Registers", "fetches_far", "processor", "registers"]

_PROBE = """
define void @probe(ptr %p) {
  %a = load <16 x float>, ptr %p
  %b = fadd <16 x float> %a, %a
  store <16 x float> %b, ptr %p
  ret void
}
"""


class Registers(NamedTuple):
    """Vector registers: one group of 64 bytes is walked in 1, 2 or 4 of them."""

    width: int  # bytes
    number: int


def processor() -> str:
    """Return LLVM's name of the processor that Numba compiles for."""
    name: str = cpu_target.target_context.codegen().magic_tuple()[1]
    return name


@cache
def fetches_far() -> bool:
    """Tell whether one row's weights from the last cache are fetched ahead, as src_kernels/dispatch.c says."""
    return processor() == "znver5"


@cache
def registers() -> Registers:
    """Look which registers LLVM uses to add 64 bytes; so NUMBA_CPU_NAME and NUMBA_CPU_FEATURES are taken into account.

    To compile for another processor set both (``NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=``): with the name alone
    Numba adds the features of this one.
    """
    triple, cpu, features = cpu_target.target_context.codegen().magic_tuple()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=2)
    assembly = machine.emit_assembly(llvm.parse_assembly(_PROBE))
    if "%zmm" in assembly:
        return Registers(64, 32)
    if "%ymm" in assembly:
        return Registers(32, 16)
    return Registers(16, 16 if "%xmm" in assembly else 32)
