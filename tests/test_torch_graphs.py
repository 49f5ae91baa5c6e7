"""Tracing, scripting, compiling and export of fastrnn.torch's modules, and other processes."""

import io
import warnings

import pytest

torch = pytest.importorskip("torch")

from module_cases import (  # noqa: E402
    CELLS,
    QUIET,
    assert_close,
    assert_same,
    calls,
    inputs,
    pair,
    states,
)
from torch._C._dynamo.eval_frame import set_eval_frame  # noqa: E402
from torch._dynamo.utils import counters  # noqa: E402

import fastrnn.torch as fast  # noqa: E402

pytestmark = QUIET


# Graphs ---------------------------------------------------------------------------------------------------------------


class Tagger(torch.nn.Module):
    """A model around a layer and a cell."""

    def __init__(self, library, kind="GRU"):
        super().__init__()
        torch.manual_seed(0)
        self.inner = getattr(library, kind)(5, 7, num_layers=2, batch_first=True)
        self.cell = library.GRUCell(7, 6)
        self.out = torch.nn.Linear(6, 3)

    def forward(self, x):
        y, _ = self.inner(x)
        return self.out(self.cell(y[:, -1]))


def graph_of(model, x, how):
    with torch.no_grad():
        if how == "trace":
            return torch.jit.trace(model, (x,))
        if how == "script":
            return torch.jit.script(model)
        if how == "saved script":
            file = io.BytesIO()
            torch.jit.save(torch.jit.script(model), file)
            file.seek(0)
            return torch.jit.load(file)
        if how == "fx":
            return torch.fx.symbolic_trace(model)
        return torch.export.export(model, (x,), strict=how == "strict export").module()


@pytest.mark.parametrize("how", ["trace", "script", "saved script", "fx", "export", "strict export"])
@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_graphs(kind, how):
    theirs, ours = (Tagger(library, kind).eval() for library in (torch.nn, fast))
    x, later = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    with torch.no_grad():
        ours(x)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, which it gives for its own modules too
            graph = graph_of(ours, x, how)
        for given in (x, later):
            assert_close(graph(given), theirs(given))
        assert_close(ours(later), theirs(later))
        if how in ("trace", "script"):  # what follows the graph's weights, as torch's do
            ours.inner.weight_hh_l0.zero_()
            assert_close(graph(x), ours(x))


@pytest.mark.parametrize("kind", CELLS)
def test_scripts_of_cells(kind):
    theirs, ours = pair(kind)
    x, hx = inputs(ours), states(ours)
    with torch.no_grad():
        script = torch.jit.script(ours)
        assert_same(script(x, hx), theirs(x, hx))


def test_graphs_of_fx_hold_the_modules():
    ours = Tagger(fast).eval()
    graph = torch.fx.symbolic_trace(ours)
    with torch.no_grad():
        graph(torch.randn(3, 4, 5))
    assert [type(graph.get_submodule(name)) for name in ("inner", "cell")] == [fast.GRU, fast.GRUCell]
    assert [row[3] for row in fast.report(graph)] == [1, 1]


def test_compiled_models():
    x, later = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    frames, expected = [], []
    for library in (torch.nn, fast):
        model = Tagger(library).eval()
        torch._dynamo.reset()
        counters.clear()
        compiled = torch.compile(model, backend="eager")
        with torch.no_grad():
            results = tuple(compiled(given) for given in (x, later, *[x] * 9))  # 9: more than torch compiles anew
        frames.append(counters["frames"]["total"])
        expected.append(results)
    assert_close(*reversed(expected))
    assert frames[1] <= frames[0] + 1  # forward, and nothing that it calls
    assert fast.report(model)[0][3:] == (11, 0)


def test_what_torch_compile_does_is_put_back():
    _, ours = pair("GRU")
    set_eval_frame(False)
    try:
        with torch.no_grad():
            ours(inputs(ours))
        ours.train()(inputs(ours))
        found = set_eval_frame(None)
    finally:
        set_eval_frame(None)
    assert found is False
    assert calls(ours) == (1, 1)


# Processes ------------------------------------------------------------------------------------------------------------


class Encoded(torch.utils.data.Dataset):
    """Data that a module makes in a worker process."""

    def __init__(self, module):
        self.module = module

    def __len__(self):
        return 4

    def __getitem__(self, i):
        with torch.no_grad():
            y, _ = self.module(inputs(self.module, seed=i))
        assert calls(self.module)[1] == 0
        return y


def test_data_loader_workers():
    _, ours = pair("LSTM", 16, 32)
    with torch.no_grad():
        expected = torch.stack([ours(inputs(ours, seed=i))[0] for i in range(4)])
    loader = torch.utils.data.DataLoader(Encoded(ours), 2, num_workers=2, multiprocessing_context="fork")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork of a process with threads
        assert_same(torch.cat(list(loader)), expected)


def test_a_spawned_process_sees_a_shared_model():
    from module_cases import change_and_run

    _, ours = pair("GRU")
    x = inputs(ours)
    ours.share_memory()
    with torch.no_grad():
        before = ours(x)[0]
        context = torch.multiprocessing.get_context("spawn")
        queue = context.Queue()
        process = context.Process(target=change_and_run, args=(ours, x.numpy(), queue))
        process.start()
        there = queue.get(timeout=120)
        process.join()
        assert process.exitcode == 0
        after = ours(x)[0]
    assert not torch.equal(after, before)
    assert (after.numpy() == there).all()
    assert calls(ours) == (2, 0)
