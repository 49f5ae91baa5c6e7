"""Train the tagger of tag.py: embedding of words, a bidirectional LSTM, output layer. Needs torch; see README.md."""

import random
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from tqdm import tqdm

import fastrnn
from fastrnn.demo import UNKNOWN

HERE = Path(__file__).resolve().parent
SENTENCES, EMBEDDING, HIDDEN = 20000, 16, 32
BATCH, EPOCHS, RATE, DROPOUT, WORD_DROPOUT, SEED = 64, 10, 3e-3, 0.3, 0.08, 0
IGNORED = -100  # the target of padding

Tagged = tuple[tuple[str, str], ...]  # words with their tags


def tagged(text: str) -> Tagged:
    """Read "the/DET light/NOUN"."""
    return tuple((word, tag) for word, _, tag in (part.rpartition("/") for part in text.split()))


def read_templates(source: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    """Return templates and the text of each slot; words get their tags."""
    words = {
        name: f"({'|'.join(f'{word}/{tag}' for word in listed.split())})"
        for tag, lists in source["words"].items()
        for name, listed in lists.items()
    }
    return source["templates"]["sentences"], words | source["slots"]


def draw(template: str, slots: dict[str, str], rng: random.Random) -> Tagged:
    """Draw one sentence; a slot is only filled in after the choice that it is part of."""
    while "(" in template or "{" in template:
        while "(" in template:
            template = re.sub(r"\(([^()]*)\)", lambda m: rng.choice(m[1].split("|")), template)
        template = re.sub(r"\{(\w+)\}", lambda m: slots[m[1]], template)
    return tagged(template)


def main() -> None:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    rng = random.Random(SEED)
    templates, slots = read_templates(tomllib.loads((HERE / "data/tags.toml").read_text(encoding="utf-8")))
    held_out = [tagged(line) for line in (HERE / "data/tags.txt").read_text(encoding="utf-8").splitlines()]
    drawn: dict[Tagged, None] = {}
    while len(drawn) < SENTENCES:
        drawn[draw(rng.choice(templates), slots, rng)] = None
    seen = Counter(pair for sentence in drawn for pair in sentence)
    vocabulary = fastrnn.Vocabulary([UNKNOWN, *sorted({word for word, _ in seen})], unit="word", unknown=UNKNOWN)
    labels = sorted({tag for _, tag in seen})
    data = [
        (
            torch.from_numpy(vocabulary.encode([word for word, _ in sentence])),
            torch.tensor([labels.index(tag) for _, tag in sentence]),
        )
        for sentence in drawn
    ]

    embedding = nn.Embedding(len(vocabulary), EMBEDDING)
    nn.init.normal_(embedding.weight, std=0.3)
    lstm = nn.LSTM(EMBEDDING, HIDDEN, bidirectional=True)
    output = nn.Linear(2 * HIDDEN, len(labels))
    parameters = [*embedding.parameters(), *lstm.parameters(), *output.parameters()]
    updates = len(data) // BATCH  # of one epoch
    optimizer = torch.optim.AdamW(parameters, RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, EPOCHS * updates, pct_start=0.1)
    for _ in tqdm(range(EPOCHS), "epochs", disable=None):
        rng.shuffle(data)
        for i in range(0, updates * BATCH, BATCH):
            sentences, tags = zip(*data[i : i + BATCH], strict=True)
            x = pad_sequence(sentences)
            x = x.masked_fill(torch.rand(x.shape) < WORD_DROPOUT, 0)
            lengths = torch.tensor([len(sentence) for sentence in sentences])
            # packed, so that the backward direction starts at each sentence's own end
            packed = pack_padded_sequence(nn.functional.dropout(embedding(x), DROPOUT), lengths, enforce_sorted=False)
            y, _ = pad_packed_sequence(lstm(packed)[0])
            guess = output(nn.functional.dropout(y, DROPOUT))
            target = pad_sequence(tags, padding_value=IGNORED)
            loss = nn.functional.cross_entropy(guess.flatten(0, 1), target.flatten(), ignore_index=IGNORED)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()

    model = fastrnn.SequenceModel(
        fastrnn.from_torch(lstm),
        embedding=embedding.weight.detach(),
        head=(output.weight.detach(), output.bias.detach(), "softmax"),
        vocabulary=vocabulary,
        labels=labels,
    )
    path = HERE / "models/tags.safetensors"
    model.save(path)
    usual = {word: tag for (word, tag), _ in reversed(seen.most_common())}  # the tag that a word has most often
    words, right, by_word, unknown = 0, 0, 0, 0
    for sentence in held_out:
        p = model.predict(vocabulary.encode([word for word, _ in sentence]))
        for (word, tag), label in zip(sentence, p.argmax(1), strict=True):
            words += 1
            right += labels[label] == tag
            by_word += usual.get(word, "NOUN") == tag
            unknown += word not in usual
    print(f"{len(drawn):,} sentences, {len(vocabulary):,} words; {path.stat().st_size:,} bytes")
    print(f"held-out: {right} of {words} words right; {unknown} are unknown; without neighbours {by_word} right")


if __name__ == "__main__":
    main()
