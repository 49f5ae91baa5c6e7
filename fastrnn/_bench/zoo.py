# mypy: disallow-subclassing-any=False
"""Architectures from the literature, of torch.nn's parts as people write them: what `fastrnn.torch.accelerate` is for.

Sizes are those of the papers, weights and inputs drawn at random. Tests compare outputs, bench/zoo.py speeds.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import rnn

__all__ = ["ZOO", "Specimen", "flat"]


class Specimen(NamedTuple):
    """A model and how it is called."""

    model: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Any, ...]]

    def make(self) -> tuple[nn.Module, tuple[Any, ...]]:
        """Return the model, for inference, and its inputs: the same ones each time."""
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            return self.model().eval(), self.inputs()


def flat(result: Any) -> list[Tensor]:
    """All tensors of what a model returned, in order."""
    return [result] if isinstance(result, Tensor) else [tensor for part in result for tensor in flat(part)]


class TextRecogniser(nn.Module):
    """CRNN: words in an image, by a convolutional stack whose columns a BiLSTM reads, for CTC.

    Shi, Bai, Yao: An End-to-End Trainable Neural Network for Image-based Sequence Recognition, 2015.
    """

    def __init__(self, classes: int = 37) -> None:
        super().__init__()

        def convolution(inputs: int, outputs: int, kernel: int = 3, norm: bool = False) -> list[nn.Module]:
            layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 3, bias=not norm)
            return [layer, *([nn.BatchNorm2d(outputs)] if norm else []), nn.ReLU()]

        def pool() -> nn.Module:
            return nn.MaxPool2d((2, 2), (2, 1), (0, 1))

        self.stack = nn.Sequential(
            *convolution(1, 64),
            nn.MaxPool2d(2),
            *convolution(64, 128),
            nn.MaxPool2d(2),
            *convolution(128, 256, norm=True),
            *convolution(256, 256),
            pool(),
            *convolution(256, 512, norm=True),
            *convolution(512, 512),
            pool(),
            *convolution(512, 512, 2, norm=True),
        )
        self.first = nn.LSTM(512, 256, bidirectional=True)
        self.between = nn.Linear(512, 256)
        self.second = nn.LSTM(256, 256, bidirectional=True)
        self.classes = nn.Linear(512, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 1, 32, W) -> log-probabilities (W / 4 + 1, B, classes)."""
        columns = self.stack(images).squeeze(2).permute(2, 0, 1)
        y, _ = self.first(columns)
        y, _ = self.second(self.between(y))
        return self.classes(y).log_softmax(2)


class Forecaster(nn.Module):
    """DeepAR: an LSTM reads a series, then many paths of its future are drawn step by step.

    Salinas, Flunkert, Gasthaus: DeepAR: Probabilistic Forecasting with Autoregressive Recurrent Networks, 2017.
    """

    def __init__(self, covariates: int = 4, hidden: int = 40) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1 + covariates, hidden, num_layers=3, batch_first=True, dropout=0.1)
        self.mean = nn.Linear(hidden, 1)
        self.deviation = nn.Sequential(nn.Linear(hidden, 1), nn.Softplus())

    def forward(self, series: Tensor, covariates: Tensor, noise: Tensor) -> Tensor:
        """Series (1, T, 1), covariates (1, T + horizon, C), noise (paths, horizon) -> paths (paths, horizon)."""
        steps, paths = series.shape[1], noise.shape[0]
        lagged = nn.functional.pad(series[:, :-1], (0, 0, 1, 0))
        _, (h, c) = self.lstm(torch.cat([lagged, covariates[:, :steps]], 2))
        states = h.repeat(1, paths, 1), c.repeat(1, paths, 1)
        z, drawn = series[:, -1:].expand(paths, 1, 1), []
        for t in range(noise.shape[1]):
            x = torch.cat([z, covariates[:, steps + t, None].expand(paths, 1, -1)], 2)
            y, states = self.lstm(x, states)
            z = self.mean(y) + self.deviation(y) * noise[:, t, None, None]
            drawn.append(z)
        return torch.cat(drawn, 1).squeeze(2)


class LanguageModel(nn.Module):
    """A word-level LSTM whose output layer is its embedding.

    Zaremba, Sutskever, Vinyals: Recurrent Neural Network Regularization, 2014 (the medium network); weights tied as in
    Press, Wolf: Using the Output Embedding to Improve Language Models, 2016.
    """

    def __init__(self, words: int = 10_000, hidden: int = 650) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, hidden)
        nn.init.uniform_(self.embedding.weight, -0.05, 0.05)
        self.dropout = nn.Dropout(0.5)
        self.lstm = nn.LSTM(hidden, hidden, num_layers=2, dropout=0.5)
        self.decoder = nn.Linear(hidden, words)
        self.decoder.weight = self.embedding.weight

    def forward(self, ids: Tensor, states: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Any]:
        """Ids (T, B) -> scores of the next word (T, B, words), states."""
        y, states = self.lstm(self.dropout(self.embedding(ids)), states)
        return self.decoder(self.dropout(y)), states


class Translator(nn.Module):
    """A bidirectional GRU as encoder, a GRU with additive attention as decoder, which writes token by token.

    Bahdanau, Cho, Bengio: Neural Machine Translation by Jointly Learning to Align and Translate, 2014.
    """

    def __init__(self, words: int = 4000, width: int = 128, hidden: int = 256) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(words, width), nn.Embedding(words, width)
        self.encoder = nn.GRU(width, hidden, batch_first=True, bidirectional=True)
        self.bridge = nn.Linear(hidden, hidden)
        self.keys, self.query = nn.Linear(2 * hidden, hidden), nn.Linear(hidden, hidden)
        self.energy = nn.Linear(hidden, 1)
        self.decoder = nn.GRU(width + 2 * hidden, hidden, batch_first=True)
        self.words = nn.Linear(hidden, words)

    def forward(self, ids: Tensor, steps: int) -> Tensor:
        """Ids (B, S) -> scores (B, steps, words), each step's best word read by the next."""
        memory, h = self.encoder(self.source(ids))
        keys, h = self.keys(memory), torch.tanh(self.bridge(h[1:]))
        token, scores = torch.zeros(len(ids), 1, dtype=torch.int64), []
        for _ in range(steps):
            energy = self.energy(torch.tanh(keys + self.query(h[-1])[:, None]))
            context = (energy.softmax(1) * memory).sum(1, keepdim=True)
            y, h = self.decoder(torch.cat([self.target(token), context], 2), h)
            scores.append(self.words(y))
            token = scores[-1].argmax(2)
        return torch.cat(scores, 1)


class Actor(nn.Module):
    """A3C's actor and critic for continuous control from low-dimensional states, with an LSTM cell.

    Mnih et al.: Asynchronous Methods for Deep Reinforcement Learning, 2016, section 5.2.3.
    """

    def __init__(self, observations: int = 17, actions: int = 6, hidden: int = 128) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(observations, 200), nn.ReLU())
        self.cell = nn.LSTMCell(200, hidden)
        self.actor, self.critic = nn.Linear(hidden, actions), nn.Linear(hidden, 1)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Observations (T, B, I), one at a time -> mean actions (T, B, actions), values (T, B, 1)."""
        h = c = torch.zeros(observations.shape[1], self.cell.hidden_size)
        actions, values = [], []
        for x in observations:
            h, c = self.cell(self.trunk(x), (h, c))
            actions.append(self.actor(h))
            values.append(self.critic(h))
        return torch.stack(actions), torch.stack(values)


class SpeechTagger(nn.Module):
    """A deep BiLSTM that labels each frame with a phoneme, on utterances of any lengths.

    Graves, Mohamed, Hinton: Speech Recognition with Deep Recurrent Neural Networks, 2013 (CTC-3l-250h).
    """

    def __init__(self, features: int = 123, hidden: int = 250, labels: int = 62) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, num_layers=3, batch_first=True, bidirectional=True)
        self.labels = nn.Linear(2 * hidden, labels)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Frames (B, T, I) of utterances of these lengths -> scores (B, T, labels)."""
        packed = rnn.pack_padded_sequence(frames, lengths, batch_first=True, enforce_sorted=False)
        y, _ = self.lstm(packed)
        y, _ = rnn.pad_packed_sequence(y, batch_first=True)
        return self.labels(y)


class Denoiser(nn.Module):
    """RNNoise: three small GRUs that say how loud 22 bands of each 10 ms of speech shall be.

    Valin: A Hybrid DSP/Deep Learning Approach to Real-Time Full-Band Speech Enhancement, 2017.
    """

    def __init__(self, features: int = 42, bands: int = 22) -> None:
        super().__init__()
        self.dense = nn.Linear(features, 24)
        self.voice = nn.GRU(24, 24, batch_first=True)
        self.noise = nn.GRU(24 + 24 + features, 48, batch_first=True)
        self.denoise = nn.GRU(24 + 48 + features, 96, batch_first=True)
        self.detect, self.gains = nn.Linear(24, 1), nn.Linear(96, bands)

    def forward(self, x: Tensor, states: Any = (None, None, None)) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Features (B, T, I) -> gains (B, T, bands), probabilities of voice (B, T, 1), states."""
        dense = torch.tanh(self.dense(x))
        voice, h_voice = self.voice(dense, states[0])
        noise, h_noise = self.noise(torch.cat([dense, voice, x], 2), states[1])
        y, h = self.denoise(torch.cat([voice, noise, x], 2), states[2])
        return torch.sigmoid(self.gains(y)), torch.sigmoid(self.detect(voice)), (h_voice, h_noise, h)


class AcousticModel(nn.Module):
    """LSTMP: LSTMs whose states are projected to fewer numbers, over log-mel frames.

    Sak, Senior, Beaufays: Long Short-Term Memory Recurrent Neural Network Architectures for Large Scale Acoustic
    Modeling, 2014 (2 layers of 800 cells, projected to 512).
    """

    def __init__(self, features: int = 40, states: int = 2000) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, 800, num_layers=2, proj_size=512)
        self.states = nn.Linear(512, states)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (T, B, I) -> log-probabilities of states (T, B, states)."""
        y, _ = self.lstm(frames)
        return self.states(y).log_softmax(2)


def _utterances() -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([61, 150, 17, 88, 42, 104, 73, 35])
    return torch.randn(len(lengths), 150, 123), lengths


def _frame() -> tuple[Tensor, tuple[Tensor, ...]]:
    return torch.randn(1, 1, 42), tuple(torch.randn(1, 1, size).tanh() for size in (24, 48, 96))


ZOO = {
    "CRNN, an image of 32 x 100": Specimen(TextRecogniser, lambda: (torch.randn(1, 1, 32, 100),)),
    "DeepAR, 100 paths of 24 steps": Specimen(
        Forecaster, lambda: (torch.randn(1, 168, 1), torch.randn(1, 192, 4), torch.randn(100, 24))
    ),
    "language model, 10 rows of 35 words": Specimen(LanguageModel, lambda: (torch.randint(10_000, (35, 10)),)),
    "translator, 20 words to 20": Specimen(Translator, lambda: (torch.randint(4000, (1, 20)), 20)),
    "actor, 20 steps": Specimen(Actor, lambda: (torch.randn(20, 1, 17),)),
    "actor, 20 steps of 16 environments": Specimen(Actor, lambda: (torch.randn(20, 16, 17),)),
    "speech tagger, 8 packed utterances": Specimen(SpeechTagger, _utterances),
    "RNNoise, 1 s": Specimen(Denoiser, lambda: (torch.randn(1, 100, 42),)),
    "RNNoise, a frame": Specimen(Denoiser, _frame),
    "LSTMP, 50 frames": Specimen(AcousticModel, lambda: (torch.randn(50, 1, 40),)),
}
