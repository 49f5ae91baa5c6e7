"""Models that write, for the tests of generation."""

import numpy as np

import fastrnn

SAME = [name for name in fastrnn.available_backends() if name != "reference"]  # backends of equal bits
TEXT = "the cat sat on the mat. the dog sat on the log."


KINDS = {
    "rnn": (fastrnn.RNN, {}),
    "lstm": (fastrnn.LSTM, {}),
    "lstm_proj": (fastrnn.LSTM, {"proj_size": 6}),
    "gru": (fastrnn.GRU, {}),
    "gru_before": (fastrnn.GRU, {"reset_after": False}),
}


def make(
    kind="lstm",
    vocab=13,
    hidden=17,
    seed=0,
    embedding=None,
    layers=1,
    dtype=None,
    scale=2.0,
    head=None,
    num_threads=None,
    **given,
):
    """A model whose next token is uncertain and depends on the state."""
    rng = np.random.default_rng(seed)
    cell, options = KINDS[kind]
    matrix = rng.normal(size=(vocab, 5)) if embedding is None else embedding
    size = vocab if embedding is not None else 5
    chain = [cell(size, hidden, layers, dtype=dtype, num_threads=num_threads, **options).init(seed)]
    weight = rng.normal(size=(vocab, options.get("proj_size", hidden))) * scale
    head = (weight, rng.normal(size=vocab) / 2, "softmax") if head is None else head
    return fastrnn.SequenceModel(chain, embedding=matrix, head=head, **given)


def text_model(**given):
    vocabulary = fastrnn.Vocabulary.from_text(TEXT, **given)
    return make(vocab=len(vocabulary), vocabulary=vocabulary)
