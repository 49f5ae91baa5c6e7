"""The command `fastrnn`."""

import argparse
import importlib.metadata
import platform
import sys
from collections.abc import Sequence
from typing import Any

import fastrnn

__all__ = ["main"]

PEERS = ("numba", "torch", "onnxruntime", "openvino")


def info() -> list[str]:
    """Return what `fastrnn info` prints."""
    found: dict[str, Any] = fastrnn.cpu_info()
    tier = found["tier"]
    if tier is None:
        tier = "none: the compiled kernels are missing"
    elif tier == "generic":
        tier = "generic: slow and exact, for want of AVX2, AVX-512 or NEON here"
    rows = [("cpu", f"{found['model']} ({found['machine']}, {found['system']})"), ("tier", tier)]
    rows += [(f"  {name}", state) for name, state in found["tiers"].items()]
    rows += [("backend", found["backend"])]
    rows += [(f"  {name}", state) for name, state in found["backends"].items()]
    if found["numba_target"]:
        rows += [("numba target", found["numba_target"])]
    rows += [("threads", f"up to {found['num_threads']} a call; {found['cpus']} CPUs")]
    rows += [("fastrnn", f"{fastrnn.__version__}, arithmetic {fastrnn.ARITHMETIC}")]
    rows += [("python", platform.python_version())]
    for name in ("numpy", *PEERS):
        try:
            rows.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            rows.append((name, "not installed"))
    return [f"{name:14}{value}" for name, value in rows]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        Default: ``sys.argv[1:]``.

    Returns
    -------
    int
        The exit code: 0; 1 for an error, which is printed, and where the demo's checks fail; 130 after Ctrl-C.

    Raises
    ------
    SystemExit
        From argparse: 2 for wrong arguments, 0 for ``--help`` and ``--version``.
    """
    parser = argparse.ArgumentParser(prog="fastrnn", description="Trained RNN, LSTM and GRU networks on CPUs.")
    parser.add_argument("--version", action="version", version=f"fastrnn {fastrnn.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("info", help="print CPU, tier, backends, threads and versions")
    demo = commands.add_parser("demo", help="run two trained networks on real text and check them")
    demo.add_argument("--backend", choices=("cython", "numba", "reference"), help="default: the best that runs here")
    bench = commands.add_parser("bench", help="time one shape, or one saved layer, beside other engines")
    if (sys.argv[1:] if argv is None else argv)[:1] == ["bench"]:  # the others need not import what this one does
        from fastrnn._bench.command import add_arguments

        add_arguments(bench)
    args = parser.parse_args(argv)
    try:
        if args.command == "info":
            print(*info(), sep="\n")
            return 0
        if args.command == "bench":
            from fastrnn._bench.command import run as compare

            return compare(args)
        from fastrnn.demo import run

        return run(args.backend)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        print(f"fastrnn: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
