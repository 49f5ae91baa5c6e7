"""The rows of the benchmark: one shape each, named so that `-k` and the globs of targets.toml can pick them."""

from typing import NamedTuple

CELLS = ("lstm", "gru", "rnn")
GATES = {"lstm": 4, "gru": 3, "rnn": 1}


class Row(NamedTuple):
    """One shape to time. S: one step from a given state; Q: sequences; B: batches of sequences."""

    family: str
    cell: str
    input_size: int
    hidden_size: int
    batch: int = 1
    steps: int = 1
    layers: int = 1
    directions: int = 1
    dtype: str = "float32"
    core: bool = False  # in the default selection and in the README

    @property
    def name(self) -> str:
        """For example S-lstm-I64-H64-L1-uni-B1-T1-f32."""
        direction = ("uni", "bi")[self.directions - 1]
        sizes = f"I{self.input_size}-H{self.hidden_size}-L{self.layers}-{direction}-B{self.batch}-T{self.steps}"
        return f"{self.family}-{self.cell}-{sizes}-{self.dtype.replace('float', 'f')}"

    @property
    def weights(self) -> int:
        """Weights of all layers and directions, without biases."""
        deeper = (self.layers - 1) * (self.directions + 1) * self.hidden_size
        columns = self.input_size + self.hidden_size + deeper
        return self.directions * GATES[self.cell] * self.hidden_size * columns

    @property
    def flops(self) -> int:
        """Useful operations of one call: a multiplication and an addition per weight, row and step."""
        return 2 * self.weights * self.batch * self.steps


def steps() -> list[Row]:
    """Family S: one step from a given state."""
    rows = [
        Row(
            "S",
            cell,
            input_size,
            hidden,
            batch,
            core=batch == 1 and input_size == hidden and hidden in (16, 64, 128, 256, 512),
        )
        for cell in CELLS
        for hidden in (8, 16, 40, 64, 128, 256, 512, 1024)
        for input_size in (1, hidden)
        for batch in (1, 4, 16)
    ]
    return rows + [Row("S", cell, 3, 37, 5, core=cell == "lstm") for cell in CELLS]


def sequences() -> list[Row]:
    """Family Q: sequences, shallow and deep, one and both directions."""
    rows = []
    for cell in CELLS:
        rows += [
            Row(
                "Q",
                cell,
                hidden,
                hidden,
                1,
                100,
                core=hidden in (64, 128, 256) or (cell == "lstm" and hidden in (32, 512)),
            )
            for hidden in (32, 64, 128, 256, 512, 1024)
        ]
        lstm = cell == "lstm"
        rows += [
            Row("Q", cell, 40, 64, 1, 100, core=lstm),
            Row("Q", cell, 3, 37, 5, 100, core=lstm),
            Row("Q", cell, 128, 128, 1, 1000),
            Row("Q", cell, 60, 128, 1, 589, layers=4, directions=2, core=lstm),
            Row("Q", cell, 60, 128, 32, 589, layers=4, directions=2),
            Row("Q", cell, 256, 256, 16, 128, layers=2, directions=2),
            Row("Q", cell, 512, 256, 32, 64, layers=2, directions=2),
            Row("Q", cell, 256, 256, 1, 1000, layers=3),
            Row("Q", cell, 640, 640, 8, 1),
            Row("Q", cell, 128, 128, 1, 100, dtype="float64"),
        ]
    return rows


def batches() -> list[Row]:
    """Family B: batches of sequences."""
    lengths = {8: 100, 32: 50, 128: 20}
    rows = [
        Row("B", cell, hidden, hidden, batch, length, core=hidden <= 256 and batch <= 32)
        for cell in CELLS
        for hidden in (64, 128, 256, 512, 1024)
        for batch, length in lengths.items()
    ]
    return rows + [
        Row("B", cell, 128, 128, batch, lengths[batch], dtype="float64") for cell in CELLS for batch in (8, 32)
    ]
