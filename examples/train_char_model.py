"""Train the character model of `fastrnn demo`: embedding, one LSTM layer, output layer. Needs torch; see README.md."""

import lzma
import math
import time
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

import fastrnn

ROOT = Path(__file__).resolve().parent.parent
EMBEDDING, HIDDEN = 32, 256
BATCH, STEPS = 32, 64  # rows, each reading its own part of the text, and steps between two updates
EPOCHS, RATE, SEED = 20, 3e-3, 0


def main() -> None:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    text = lzma.decompress((ROOT / "examples/data/austen.txt.xz").read_bytes()).decode()
    held_out = (ROOT / "fastrnn/data/pride_and_prejudice.txt").read_text(encoding="utf-8")
    vocabulary = fastrnn.Vocabulary.from_text(text)
    ids = torch.from_numpy(vocabulary.encode(text))

    model = nn.ModuleDict(
        {
            "embedding": nn.Embedding(len(vocabulary), EMBEDDING),
            "lstm": nn.LSTM(EMBEDDING, HIDDEN),
            "output": nn.Linear(HIDDEN, len(vocabulary)),
        }
    )
    nn.init.normal_(model["embedding"].weight, std=0.3)
    updates = (len(ids) - 1) // (BATCH * STEPS)  # of one epoch
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, EPOCHS * updates, pct_start=0.05)

    start = time.perf_counter()
    for epoch in range(EPOCHS):
        # the rows start somewhere else in every epoch
        rolled = ids.roll(-int(torch.randint(len(ids), ())))
        rows = rolled[: BATCH * STEPS * updates + 1]
        x, target = rows[:-1].view(BATCH, -1).T, rows[1:].view(BATCH, -1).T
        state, total = None, 0.0
        for t in tqdm(range(0, updates * STEPS, STEPS), f"epoch {epoch + 1:2}", disable=None, leave=False):
            y, state = model["lstm"](model["embedding"](x[t : t + STEPS]), state)
            state = tuple(s.detach() for s in state)
            loss = nn.functional.cross_entropy(model["output"](y).flatten(0, 1), target[t : t + STEPS].flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        minutes = (time.perf_counter() - start) / 60
        bits = total / updates / math.log(2)
        print(f"epoch {epoch + 1:2}: {bits:.4f} bits per character in training, {minutes:.1f} min", flush=True)

    path = ROOT / "fastrnn/data/char_lstm.safetensors"
    trained = fastrnn.SequenceModel(
        fastrnn.from_torch(model["lstm"]),
        embedding=model["embedding"].weight.detach(),
        head=fastrnn.from_torch(model["output"])._replace(activation="softmax"),
        vocabulary=vocabulary,
    )
    trained.save(path)
    bits = trained.score(held_out)
    print(f"held-out text: {bits:.4f} bits per character over {len(held_out) - 1:,}; {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
