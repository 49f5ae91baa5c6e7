"""Train the network of forecast.py: a GRU that reads monthly changes of carbon dioxide and gives the next change.

    python examples/train_forecast_model.py

Needs torch; see README.md.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

import fastrnn

HERE = Path(__file__).resolve().parent
HELD_OUT = 120  # months at the end of the series that training does not see
AHEAD, WARM_UP = 12, 36  # months that are forecast from each month, but for the first ones
HIDDEN, EPOCHS, RATE, NOISE, SEED = 32, 400, 5e-3, 0.3, 0  # noise on what is read, in ppm, against overfitting


def main() -> None:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    series = np.loadtxt(HERE / "data/co2.csv", np.float32, delimiter=",", skiprows=1, usecols=1)
    known = torch.from_numpy(series[:-HELD_OUT])
    gru, output = nn.GRU(1, HIDDEN), nn.Linear(HIDDEN, 1)
    parameters = [*gru.parameters(), *output.parameters()]

    def forecast(ppm):
        """(T,) -> (AHEAD, T - 1): row k holds the changes over k + 1 months from each month but the first on."""
        h, _ = gru(ppm.diff()[:, None])
        h = h[None]  # one time step of a batch: all months go on at once, each fed by what it gave
        changes = [output(h)]
        while len(changes) < AHEAD:
            _, h = gru(changes[-1], h)
            changes.append(output(h))
        return torch.cat(changes)[..., 0].cumsum(0)

    optimizer = torch.optim.AdamW(parameters, RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, EPOCHS, pct_start=0.1)
    for _ in tqdm(range(EPOCHS), "epochs", disable=None):
        ppm = known[int(torch.randint(12, ())) :]  # the first month differs, so that no state stands for a date
        noisy = ppm + NOISE * torch.randn_like(ppm)
        # the changes are added to what was measured, without the noise: measured to be a little better than with it
        found = forecast(noisy)[:, WARM_UP - 1 : -AHEAD] + ppm[WARM_UP:-AHEAD]
        loss = nn.functional.mse_loss(found, ppm[WARM_UP + 1 :].unfold(0, AHEAD, 1).T)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()

    path = HERE / "models/forecast_gru.safetensors"
    fastrnn.SequenceModel(fastrnn.from_torch(gru), head=output).save(path)
    print(f"{len(known)} months; error of the last epoch {loss.item() ** 0.5:.3f} ppm; {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
