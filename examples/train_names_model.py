"""Train the model of names.py: a GRU on characters that starts from a kind's own state. Needs torch; see README.md."""

import math
import random
import tomllib
from pathlib import Path

import torch
from safetensors.numpy import save_file
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

import fastrnn

HERE = Path(__file__).resolve().parent
EMBEDDING, HIDDEN = 16, 64
BATCH, EPOCHS, RATE, DROPOUT, SEED = 32, 40, 5e-3, 0.3, 0
HELD_OUT = 10  # one name in so many is held out
IGNORED = -100  # the target of padding


def read_names() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return the names of each kind that are trained on, and those that are held out."""
    listed = tomllib.loads((HERE / "data/names.toml").read_text(encoding="utf-8"))
    names = {kind: text.split() for kind, text in listed.items()}
    train = {kind: [name for i, name in enumerate(own) if i % HELD_OUT] for kind, own in names.items()}
    return train, {kind: own[::HELD_OUT] for kind, own in names.items()}


def main() -> None:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    rng = random.Random(SEED)
    train, held_out = read_names()
    vocabulary = fastrnn.Vocabulary.from_text("".join(name for own in train.values() for name in own), stop="\n")
    data = [
        (torch.from_numpy(vocabulary.encode(name + "\n")), kind)
        for kind, own in enumerate(train.values())
        for name in own
    ]

    initial = nn.Embedding(len(train), HIDDEN)  # a row for each kind: the weights of a dense layer of one-hot kinds
    embedding = nn.Embedding(len(vocabulary), EMBEDDING)
    for layer in (initial, embedding):
        nn.init.normal_(layer.weight, std=0.3)
    gru = nn.GRU(EMBEDDING, HIDDEN)
    output = nn.Linear(HIDDEN, len(vocabulary))
    parameters = [p for layer in (initial, embedding, gru, output) for p in layer.parameters()]
    updates = len(data) // BATCH  # of one epoch
    optimizer = torch.optim.AdamW(parameters, RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, EPOCHS * updates, pct_start=0.1)
    for _ in tqdm(range(EPOCHS), "epochs", disable=None):
        rng.shuffle(data)
        for i in range(0, updates * BATCH, BATCH):
            names, kinds = zip(*data[i : i + BATCH], strict=True)
            target = pad_sequence(names, padding_value=IGNORED)
            h = initial(torch.tensor(kinds))[None]
            y, _ = gru(nn.functional.dropout(embedding(pad_sequence(names)[:-1]), DROPOUT), h)
            # the initial state alone gives the first letter, each further state the letter after the one just read
            guess = output(nn.functional.dropout(torch.cat([h, y]), DROPOUT))
            loss = nn.functional.cross_entropy(guess.flatten(0, 1), target.flatten(), ignore_index=IGNORED)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()

    model = fastrnn.SequenceModel(
        fastrnn.from_torch(gru),
        embedding=embedding.weight.detach(),
        head=(output.weight.detach(), output.bias.detach(), "softmax"),
        vocabulary=vocabulary,
    )
    path = HERE / "models/names.safetensors"
    model.save(path)
    states = dict(zip(train, initial.weight.detach().numpy()[:, None], strict=True))  # (L, H) each
    states_path = HERE / "models/names_states.safetensors"
    save_file(states, states_path)
    states_path.chmod(0o644)
    print(f"{len(data):,} names, {len(vocabulary)} characters; {path.stat().st_size:,} bytes")
    right, count = 0, 0
    for kind, names in held_out.items():
        bits = {of: [model.score(name + "\n", state=[h]) for name in names] for of, h in states.items()}
        means = ", ".join(f"{of} {math.fsum(found) / len(found):.2f}" for of, found in bits.items())
        print(f"bits per character after the first of {len(names)} held-out names, {kind}, from the state of: {means}")
        right += sum(min(row) == own for own, *row in zip(bits[kind], *bits.values(), strict=True))
        count += len(names)
    print(f"held-out: {right} of {count} names are the most probable from the state of their own kind")


if __name__ == "__main__":
    main()
