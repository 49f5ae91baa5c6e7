"""Train the sentence classifier of `fastrnn demo`, or a twin: embedding of words, one recurrent layer, output layer.

    python examples/train_intent_model.py [gru | bilstm | rnn]

Needs torch; see README.md.
"""

import argparse
import random
import re
import tomllib
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence
from tqdm import tqdm

import fastrnn
from fastrnn.demo import UNKNOWN, requests, words

ROOT = Path(__file__).resolve().parent.parent
SENTENCES, RARE = 2000, 2  # sentences drawn per intent; words seen less often than RARE times become UNKNOWN
BATCH, EPOCHS, RATE, DROPOUT, WORD_DROPOUT, SEED = 64, 12, 3e-3, 0.3, 0.08, 0


class Network(NamedTuple):
    """What differs between the twins."""

    path: str
    layer: type[nn.RNNBase]
    embedding: int
    hidden: int
    bidirectional: bool = False


NETWORKS = {
    "gru": Network("fastrnn/data/intent_gru.safetensors", nn.GRU, 24, 64),
    "bilstm": Network("examples/models/intent_bilstm.safetensors", nn.LSTM, 16, 32, bidirectional=True),
    "rnn": Network("examples/models/intent_rnn.safetensors", nn.RNN, 16, 64),
}


def expand(template: str, slots: dict[str, str], rng: random.Random) -> str:
    """Draw one sentence: replace every {slot} by its text, then every innermost (a|b) by one of its choices."""
    while "{" in template:
        template = re.sub(r"\{(\w+)\}", lambda m: slots[m[1]], template)
    while "(" in template:
        template = re.sub(r"\(([^()]*)\)", lambda m: rng.choice(m[1].split("|")), template)
    return template


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("network", nargs="?", default="gru", choices=NETWORKS, help="default: gru")
    network = NETWORKS[parser.parse_args().network]
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    rng = random.Random(SEED)
    held_out, intents = requests()
    excluded = {tuple(words(sentence)) for sentence in held_out}
    source = tomllib.loads((ROOT / "examples/data/intents.toml").read_text(encoding="utf-8"))
    labels = sorted(source["intents"])
    drawn: dict[tuple[str, ...], int] = {}
    for number, label in enumerate(labels):
        found = 0
        while found < SENTENCES:
            sentence = tuple(words(expand(rng.choice(source["intents"][label]), source["slots"], rng)))
            if sentence and sentence not in drawn and sentence not in excluded:
                drawn[sentence] = number
                found += 1
    count: dict[str, int] = {}
    for sentence in drawn:
        for word in sentence:
            count[word] = count.get(word, 0) + 1
    kept = sorted(w for w, n in count.items() if n >= RARE)
    vocabulary = fastrnn.Vocabulary([UNKNOWN, *kept], unit="word", unknown=UNKNOWN)
    model = nn.ModuleDict(
        {
            "embedding": nn.Embedding(len(vocabulary), network.embedding),
            "layer": network.layer(network.embedding, network.hidden, bidirectional=network.bidirectional),
            "output": nn.Linear(network.hidden * (1 + network.bidirectional), len(labels)),
        }
    )
    nn.init.normal_(model["embedding"].weight, std=0.3)

    def forward(sentences, training):
        lengths = torch.tensor([len(s) for s in sentences])
        x = pad_sequence(sentences)
        if training:
            x = x.masked_fill(torch.rand(x.shape) < WORD_DROPOUT, 0)
        x = nn.functional.dropout(model["embedding"](x), DROPOUT, training)
        if network.bidirectional:  # packed, so that the backward direction starts at each sentence's own end
            _, (h, _) = model["layer"](pack_padded_sequence(x, lengths, enforce_sorted=False))
            final = torch.cat([h[0], h[1]], -1)
        else:
            y, _ = model["layer"](x)
            final = y[lengths - 1, torch.arange(len(sentences))]
        return model["output"](nn.functional.dropout(final, DROPOUT, training))

    data = [(torch.from_numpy(vocabulary.encode(sentence)), label) for sentence, label in drawn.items()]
    updates = len(data) // BATCH  # of one epoch
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, EPOCHS * updates, pct_start=0.1)
    for _ in tqdm(range(EPOCHS), "epochs", disable=None):
        rng.shuffle(data)
        for i in range(0, updates * BATCH, BATCH):
            sentences, target = zip(*data[i : i + BATCH], strict=True)
            loss = nn.functional.cross_entropy(forward(sentences, True), torch.tensor(target), label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()

    trained = fastrnn.SequenceModel(
        fastrnn.from_torch(model["layer"]),
        embedding=model["embedding"].weight.detach(),
        head=fastrnn.from_torch(model["output"])._replace(activation="softmax"),
        wiring="many_to_one",
        vocabulary=vocabulary,
        labels=labels,
    )
    path = ROOT / network.path
    trained.save(path)
    p = trained.predict_many([vocabulary.encode(words(sentence)) for sentence in held_out])
    right = sum(labels[i] == intent for i, intent in zip(p.argmax(1), intents, strict=True))
    unknown = {w for sentence in held_out for w in words(sentence)} - set(vocabulary.tokens)
    print(f"{len(drawn):,} sentences, {len(vocabulary):,} words; {path.stat().st_size:,} bytes")
    print(f"held-out sentences: {right} of {len(held_out)} right; {len(unknown)} unknown words")


if __name__ == "__main__":
    main()
