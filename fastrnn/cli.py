"""The command `fastrnn`."""

import argparse
import importlib.metadata
import os
import platform
import sys
from collections.abc import Sequence
from typing import Any

import fastrnn
from fastrnn import text_checks

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


def write(args: argparse.Namespace) -> int:
    """Print a prompt and what a model makes of it, as it comes."""
    from fastrnn.demo import character_model

    model: Any = character_model() if args.model is None else _loaded(args.model)
    options = {"temperature": args.temperature, "top_k": args.top_k, "top_p": args.top_p, "seed": args.seed}
    pieces = model.generate_iter(args.prompt, args.max_tokens, **options)
    between = " " if model.vocabulary.unit == "word" and args.prompt else ""
    print(args.prompt, end=between)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
    return 0


def label(sentence: str, path: str | None = None) -> list[str]:
    """Return the labels of a sentence, the most probable first, as `fastrnn classify` prints them."""
    from fastrnn.demo import intent_model, words

    model: Any = intent_model() if path is None else _loaded(path)
    text_checks.classifier(path, model.labels, model.wiring, model.head[-1].plan.activation if model.head else None)
    vocabulary = model.vocabulary
    own = {vocabulary.unknown, vocabulary.pad, vocabulary.start, vocabulary.stop}
    # Where no token is anything else than what `words` gives, as in the demo's networks, no text has another one.
    divided = vocabulary.unit == "word" and all(words(token) == [token] for token in {*vocabulary.tokens} - own)
    p = model.predict(vocabulary.encode(words(sentence) if divided else sentence))
    width = max(map(len, model.labels))
    return [f"{model.labels[i]:{width}}  {p[i]:.4f}" for i in (-p).argsort(kind="stable")]


def _loaded(path: str) -> Any:
    """Load a model that reads text."""
    model = fastrnn.load(path)
    if not isinstance(model, fastrnn.SequenceModel) or model.vocabulary is None:
        raise ValueError(f"{path} must be a SequenceModel with a vocabulary, got {model!r}: build it with vocabulary=")
    return model


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    from fastrnn._bench.command import size, threads

    def shape(text: str) -> tuple[int, ...]:
        try:
            return tuple(map(size, text.split(",")))
        except argparse.ArgumentTypeError:
            raise argparse.ArgumentTypeError(f"must be sizes such as 100,1,64, got {text!r}") from None

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1
        if not value >= 0:
            raise argparse.ArgumentTypeError(f"must be a number from 0, got {text!r}")
        return value

    parser.add_argument(
        "factory",
        metavar="MODULE:FACTORY",
        help="such as package.module:factory: a function that returns the model, or (model, inputs), inputs being a "
        "tensor, a tuple of positional arguments or a dict of keyword arguments",
    )
    parser.add_argument("--against", choices=("torch",), default="torch", help="default: torch")
    parser.add_argument(
        "--input", type=shape, metavar="SHAPE", help="such as 100,1,64: normal noise, for a model alone"
    )
    parser.add_argument("--input-ids", type=size, metavar="VOCAB", help="fill --input with ids below VOCAB instead")
    parser.add_argument("--threads", type=threads, default=1, help="to time with: a number, or all; default: 1")
    parser.add_argument(
        "--tolerance", type=number, default=1e-5, help="of the largest value of an output, default: 1e-5"
    )
    parser.add_argument("--seconds", type=number, default=8, help="to time for, unless a call is slow; default: 8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        Default: ``sys.argv[1:]``.

    Returns
    -------
    int
        The exit code: 0; 1 for an error, which is printed, and where the demo's or the check's checks fail; 130 after
        Ctrl-C.

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
    generate = commands.add_parser("generate", help="write on from a prompt, with a trained character model")
    generate.add_argument("--prompt", required=True, help="a text to go on from")
    generate.add_argument("--max-tokens", type=int, default=300, help="of the text (default: 300)")
    generate.add_argument("--temperature", type=float, default=0.6, help="0: always the most probable (default: 0.6)")
    generate.add_argument("--top-k", type=int, help="draw among so many only")
    generate.add_argument("--top-p", type=float, help="draw among those that make up this share only")
    generate.add_argument("--seed", type=int, help="default: another one each time")
    classify = commands.add_parser("classify", help="print what a sentence wants, with a trained intent classifier")
    classify.add_argument("sentence", help='such as "what time is it"')
    for command in (generate, classify):
        command.add_argument("--model", metavar="FILE", help="a saved SequenceModel (default: one of the demo)")
    bench = commands.add_parser("bench", help="time one shape, or one saved layer, beside other engines")
    check = commands.add_parser("check", help="run a torch model of yours on torch and on fastrnn, and compare")
    first = (sys.argv[1:] if argv is None else argv)[:1]  # the others need not import what these two do
    if first == ["bench"]:
        from fastrnn._bench.command import add_arguments

        add_arguments(bench)
    if first == ["check"]:
        _check_arguments(check)
    args = parser.parse_args(argv)
    try:
        if args.command == "info":
            print(*info(), sep="\n")
            return 0
        if args.command == "bench":
            from fastrnn._bench.command import run as compare

            return compare(args)
        if args.command == "check":
            from fastrnn.comparison import run as compare_models

            return compare_models(args)
        if args.command == "generate":
            return write(args)
        if args.command == "classify":
            print(*label(args.sentence, args.model), sep="\n")
            return 0
        from fastrnn.demo import run

        return run(args.backend)
    except BrokenPipeError:  # as `| head` leaves it: what is not flushed yet goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ImportError, NotImplementedError, OSError, RuntimeError, TypeError, ValueError) as error:
        print(f"fastrnn: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
