"""Engines in processes of their own, for more than one thread: threads of one would spin while another is timed.

Between its blocks a worker is stopped by a signal, whatever its pool is doing, and continued for the next.
"""

import os
import pickle
import signal
import subprocess
import sys
from typing import IO, Any

from fastrnn._bench.engines import Setting, build, settings
from fastrnn._bench.problems import Array, Problem
from fastrnn._bench.ratios import Contender, Local, calls_per_block

__all__ = ["Crew", "Remote"]


class Worker:
    """A process that builds one engine at a time and runs blocks of its calls."""

    def __init__(self) -> None:
        env = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
        env["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        command = [sys.executable, "-P", "-c", "from fastrnn._bench.workers import serve; serve()"]
        # In a process group of its own Ctrl-C does not reach it, and though stopped it ends when this process dies
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, process_group=0
        )
        self.stopped = False

    def ask(self, order: Any) -> Any:
        """Send an order and return the answer, with the process stopped before and after."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if self.stopped:
            self.process.send_signal(signal.SIGCONT)
        try:
            pickle.dump(order, self.process.stdin)
            self.process.stdin.flush()
            answer = pickle.load(self.process.stdout)
        except (EOFError, BrokenPipeError):
            raise RuntimeError(f"a process of the benchmark died with code {self.process.wait()}") from None
        self.process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(self.process.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            raise RuntimeError(f"a process of the benchmark died: {os.waitstatus_to_exitcode(status)}")
        self.stopped = True
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """End the process, which may be stopped."""
        self.process.kill()
        self.process.communicate()


class Remote:
    """An engine in a worker, with the setting that suits this problem best; `brief`: with the one for all threads."""

    def __init__(self, worker: Worker, name: str, problem: Problem, brief: bool = False) -> None:
        self.worker, self.scale = worker, 1.0
        choices = [Setting(problem.row.threads)] if brief else settings(name, problem.row.threads)
        seconds = {}
        for choice in choices if len(choices) > 1 else ():
            self._build(name, problem, choice)
            count = calls_per_block(self)
            seconds[choice] = min(self.block(count) for _ in range(3)) / count
        self.setting = min(seconds, key=seconds.__getitem__, default=choices[0])
        self._build(name, problem, self.setting)

    def _build(self, *order: Any) -> None:
        self._output, self.scale = self.worker.ask(order)

    def output(self) -> Array:
        """Return what the first call put out."""
        output: Array = self._output
        return output

    def block(self, count: int) -> float:
        """Seconds that `count` calls take, after one that wakes the pool where calls are short."""
        seconds: float = self.worker.ask(count)
        return seconds


class Crew:
    """Contenders for rows of any number of threads; ends their processes on leaving the ``with`` statement."""

    def __init__(self) -> None:
        self.workers: dict[tuple[str, bool], Worker] = {}

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.close()
        self.workers.clear()

    def contender(self, name: str, problem: Problem, second: bool = False, brief: bool = False) -> Contender:
        """Prepare an engine here, or in its process for several threads; `second`: beside another of the same name."""
        if problem.row.threads == 1:
            return Local(build(name, problem))
        key = (name, second)
        if key not in self.workers:
            self.workers[key] = Worker()
        return Remote(self.workers[key], name, problem, brief)


def serve() -> None:
    """Take orders until the pipe closes: an engine to build, or a number of calls to time."""
    orders: IO[bytes] = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what an engine prints must not get between the answers
    local: Local | None = None
    while True:
        try:
            order = pickle.load(orders)
        except EOFError:
            return
        answer: Any
        try:
            if isinstance(order, int):
                assert local is not None
                if order > 1:
                    local.block(1)
                answer = local.block(order)
            else:
                local = None
                name, problem, setting = order
                local = Local(build(name, problem, Setting(*setting)))
                answer = local.output(), local.scale
        except Exception as error:
            kind = ImportError if isinstance(error, (ImportError, OSError)) else RuntimeError
            answer = kind(f"{type(error).__name__}: {error}")
        pickle.dump(answer, answers)
        answers.flush()
