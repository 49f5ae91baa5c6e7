"""Build fastrnn._native from Cython and C with plain setuptools; everything else stands in pyproject.toml.

FASTRNN_DEBUG=1 builds with C assertions and Cython's checks of divisions and of indices into tuples and lists,
FASTRNN_NO_NATIVE=1 without the compiled module.
"""

import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from glob import glob

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import PlatformError

DEBUG = os.environ.get("FASTRNN_DEBUG", "0") not in ("", "0")
NO_NATIVE = os.environ.get("FASTRNN_NO_NATIVE", "0") not in ("", "0")
CURE = "FASTRNN_NO_NATIVE=1 installs fastrnn without its compiled module, with the slower numba and reference backends"

# Every bit is part of the contract. setuptools puts these after CFLAGS, so that a -ffast-math there is undone; clang's
# -fno-fast-math brings contraction back, hence the order. At the link, -ffast-math would make denormals zero.
STRICT_MATH = ["-fno-fast-math", "-fno-unsafe-math-optimizations", "-ffp-contract=off"]
# Python's own -fwrapv makes gcc work out addresses again in the innermost loops: batches take up to 4 % longer.
NO_WRAP = "-fno-wrapv"
OPTIMIZE = ["-O1", "-g", "-UNDEBUG"] if DEBUG else ["-O3", "-DNDEBUG", "-g0"]  # -g0: half the time, a tenth of the file


class BuildNative(build_ext):
    """setuptools' own Cython support, with the generated C kept out of the source folders."""

    def finalize_options(self):
        super().finalize_options()
        self.force = True  # nothing else rebuilds when only the flags change
        self.cython_c_in_temp = True
        self.cython_include_dirs = ["."]  # fastrnn/__init__.pxd
        self.cython_directives = {
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": False,
            "cdivision": not DEBUG,
        }

    def run(self):
        if self.extensions and sys.platform == "win32":
            raise PlatformError(f"fastrnn is not ported to Windows; {CURE}")
        super().run()

    def build_extensions(self):
        compiler = self.compiler.compiler_so[0]
        if shutil.which(compiler) is None:
            raise PlatformError(f"fastrnn needs a C compiler and {compiler!r} is missing: install gcc or clang; {CURE}")
        compile_one = self.compiler.compile

        def compile_all(sources, **options):
            """All files side by side, for the larger ones take a minute each."""
            with ThreadPoolExecutor(os.cpu_count()) as threads:
                objects = threads.map(lambda source: compile_one([source], **options), sources)
                return [file for files in objects for file in files]

        self.compiler.compile = compile_all
        super().build_extensions()


class BuildPython(build_py):
    """Mark a build that is meant to have no compiled module."""

    def run(self):
        super().run()
        marker = os.path.join("." if self.editable_mode else self.build_lib, "fastrnn", "_no_native.py")
        if NO_NATIVE:
            with open(marker, "w") as file:
                file.write('"""Built with FASTRNN_NO_NATIVE=1: there is no compiled module, knowingly."""\n')
        elif os.path.exists(marker):
            os.remove(marker)


def native():
    """The one extension: Cython over C leaves."""
    import numpy

    return Extension(
        "fastrnn._native",
        sources=["src_kernels/_native.pyx", *sorted(glob("src_kernels/*.c"))],
        depends=[
            *glob("src_kernels/*.h"),
            *glob("src_kernels/*.pxi"),
            "fastrnn/__init__.pxd",
            "fastrnn/include/fastrnn.h",
        ],
        include_dirs=["src_kernels", "fastrnn/include", numpy.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
        libraries=["m"],
        extra_compile_args=[*OPTIMIZE, NO_WRAP, "-std=c11", "-pthread", "-fvisibility=hidden", *STRICT_MATH],
        extra_link_args=[OPTIMIZE[0], "-pthread", *STRICT_MATH],
    )


setup(ext_modules=[] if NO_NATIVE else [native()], cmdclass={"build_ext": BuildNative, "build_py": BuildPython})
