"""Forecast the carbon dioxide above Mauna Loa, one to twelve months ahead, by a GRU and by rules that learn nothing.

    python examples/forecast.py

prints the errors of both in the ten years that the training did not see, and draws forecast.svg beside this file.
"""

from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import fastrnn
from fastrnn.plot import COLOURS, GREY, STYLE, require

HERE = Path(__file__).resolve().parent
HELD_OUT, AHEAD = 120, 12  # months: at the end of the series, from January 1992, and that each forecast has
SHOWN = [1, 3, 6, 12]  # months ahead, of the table


def read() -> np.ndarray:
    """Monthly means in ppm, (T,)."""
    return np.loadtxt(HERE / "data/co2.csv", delimiter=",", skiprows=1, usecols=1)


def by_model(model: fastrnn.SequenceModel, ppm: np.ndarray) -> np.ndarray:
    """Forecasts (HELD_OUT, AHEAD): row t, of held-out months t, t + 1, .., knows all the months before t."""
    changes = np.diff(ppm)[:, None]
    stream = model.stream()
    stream.push(changes[: -HELD_OUT - 1])
    found = []
    for change in changes[-HELD_OUT - 1 : -1]:
        first = stream.step(change)
        rest = model.unroll(first, AHEAD - 1, feed="output", state=stream.get_state())  # the stream stays where it is
        found.append(np.concatenate([first[None], rest])[:, 0])
    return ppm[-HELD_OUT - 1 : -1, None] + np.cumsum(found, axis=1, dtype=np.float64)


def by_rules(ppm: np.ndarray) -> dict[str, np.ndarray]:
    """Such forecasts by rules that learn nothing."""
    start = len(ppm) - HELD_OUT
    last = ppm[start - 1 : -1, None]
    season = sliding_window_view(ppm[start - 12 :], AHEAD)[:HELD_OUT]
    a_year_before_last = ppm[start - 13 : -13, None]
    return {
        "last value": np.repeat(last, AHEAD, axis=1),
        "a year earlier": season,
        "a year earlier + last rise": season + (last - a_year_before_last),
    }


def errors(forecasts: np.ndarray, ppm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RMSE and MAE, each (AHEAD,), of the months that lie within the series."""
    beyond = np.full(AHEAD - 1, np.nan)
    difference = forecasts - sliding_window_view(np.append(ppm[-HELD_OUT:], beyond), AHEAD)
    return np.sqrt(np.nanmean(difference**2, axis=0)), np.nanmean(abs(difference), axis=0)


def draw(ppm: np.ndarray, forecasts: dict[str, np.ndarray], path: Path) -> None:
    """Above, the held-out years and each January's forecast; below, the errors."""
    require()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 5), layout="constrained")
        above, below = figure.subplots(2, height_ratios=(3, 2))
        months = 1992 + np.arange(HELD_OUT) / 12
        above.plot(months, ppm[-HELD_OUT:], ".", color=GREY, markersize=4, label="measured")
        for january in range(0, HELD_OUT, 12):
            label = "GRU, at each turn of the year for twelve months" if january == 0 else None
            above.plot(months[january : january + AHEAD], forecasts["GRU"][january], color=COLOURS[0], label=label)
        above.set_ylabel("carbon dioxide, ppm")
        for (name, found), colour in zip(forecasts.items(), (*COLOURS, GREY), strict=True):
            below.plot(range(1, AHEAD + 1), errors(found, ppm)[0], "o-", color=colour, markersize=3, label=name)
        below.set(xlabel="months ahead", ylabel="RMSE, ppm", xticks=range(1, AHEAD + 1), ylim=0)
        for axes in (above, below):
            axes.patch.set_visible(False)
            axes.grid(axis="y", color=GREY, alpha=0.25)
        above.legend(frameon=False)
        below.legend(frameon=False, ncols=len(forecasts), loc="lower center", bbox_to_anchor=(0.5, 1))
        figure.savefig(path, metadata={"Date": None})


def main(picture: Path = HERE / "forecast.svg") -> None:
    ppm = read()
    forecasts = {"GRU": by_model(fastrnn.load(HERE / "models/forecast_gru.safetensors"), ppm), **by_rules(ppm)}
    half = 7 * len(SHOWN)
    print(f"{'':26}{'RMSE, ppm':>{half}}{'MAE, ppm':>{half}}")
    print(f"{'months ahead':26}" + "".join(f"{month:7}" for month in 2 * SHOWN))
    for name, found in forecasts.items():
        values = [error[month - 1] for error in errors(found, ppm) for month in SHOWN]
        print(f"{name:26}" + "".join(f"{value:7.2f}" for value in values))
    draw(ppm, forecasts, picture)


if __name__ == "__main__":
    main()
