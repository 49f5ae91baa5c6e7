"""Train the model of caption.py: dense layers for the image, a GRU that reads it and then words. Needs torch; see
README.md.
"""

import caption
import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

import fastrnn

FEATURES, EMBEDDING, HIDDEN = 80, 24, 48
DRAWINGS, BATCH, EPOCHS, RATE, SEED = 150_000, 128, 10, 4e-3, 0
IGNORED = -100  # the target of padding
STOP = "<end>"


def main() -> None:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    images, texts = caption.drawings(caption.SHOWN, DRAWINGS, seed=0)
    vocabulary = fastrnn.Vocabulary.from_text(" ".join(texts), "word", stop=STOP)
    images = torch.from_numpy(images)
    ids = [torch.from_numpy(vocabulary.encode([*text.split(), STOP])) for text in texts]
    targets = pad_sequence(ids, padding_value=IGNORED)  # (T, B)

    size = caption.WIDTH**2
    encoder = nn.Sequential(nn.Linear(size, FEATURES), nn.ReLU(), nn.Linear(FEATURES, EMBEDDING))
    embedding = nn.Embedding(len(vocabulary), EMBEDDING)
    gru = nn.GRU(EMBEDDING, HIDDEN)
    output = nn.Linear(HIDDEN, len(vocabulary))
    network = nn.ModuleList([encoder, embedding, gru, output])
    updates = DRAWINGS // BATCH  # of one epoch
    optimizer = torch.optim.AdamW(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, EPOCHS * updates, pct_start=0.1)
    for _ in tqdm(range(EPOCHS), "epochs", disable=None):
        for chosen in torch.randperm(DRAWINGS)[: updates * BATCH].view(updates, BATCH):
            target = targets[:, chosen]
            words = embedding(target[:-1].clamp(min=0))
            # the image gives the first word, each word the one after it
            y, _ = gru(torch.cat([encoder(images[chosen])[None], words]))
            loss = nn.functional.cross_entropy(output(y).flatten(0, 1), target.flatten(), ignore_index=IGNORED)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()

    head = (output.weight.detach(), output.bias.detach(), "softmax")
    matrix = embedding.weight.detach()
    model = fastrnn.SequenceModel(fastrnn.from_torch(gru), embedding=matrix, head=head, vocabulary=vocabulary)
    path, encoder_path = caption.MODELS / "captions.safetensors", caption.MODELS / "captions_encoder.safetensors"
    model.save(path)
    save_file({name: tensor.numpy() for name, tensor in encoder.state_dict().items()}, encoder_path)
    encoder_path.chmod(0o644)
    print(f"{len(vocabulary)} words; {path.stat().st_size:,} and {encoder_path.stat().st_size:,} bytes")
    for name, scenes in (("shown", caption.SHOWN), ("new", caption.NEW)):
        images, texts = caption.drawings(scenes, 1000, seed=2)
        found = caption.captions(*caption.load(), images)
        right = np.mean([a == b for a, b in zip(found, texts, strict=True)])
        print(f"held-out drawings of {name} captions: {right:.1%} have theirs, word for word")


if __name__ == "__main__":
    main()
