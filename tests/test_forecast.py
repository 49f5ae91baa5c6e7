"""The example of forecasting: errors as measured, smaller than those of naive rules; no forecast sees the future."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

import fastrnn

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLES / "forecast.py"))


@pytest.fixture(scope="module")
def ppm(example):
    return example["read"]()


@pytest.fixture(scope="module")
def model():
    path = EXAMPLES / "models/forecast_gru.safetensors"
    assert path.stat().st_size < 150_000
    return fastrnn.load(path)


def test_no_month_is_missing(ppm):
    lines = (EXAMPLES / "data/co2.csv").read_text(encoding="utf-8").splitlines()
    months = np.arange("1964-05", "2002-01", dtype="datetime64[M]")
    assert [line.split(",")[0] for line in lines] == ["month", *map(str, months)]
    assert len(ppm) == len(months)
    assert 315 < ppm.min() < ppm.max() < 375


def test_errors_are_those_measured(example, ppm, model, backend):
    rmse, mae = example["errors"](example["by_model"](model, ppm), ppm)
    np.testing.assert_allclose(rmse[[0, 2, 5, 11]], [0.30386, 0.43827, 0.57922, 0.75174], atol=1e-4)
    np.testing.assert_allclose(mae[[0, 2, 5, 11]], [0.24424, 0.35277, 0.47513, 0.58713], atol=1e-4)
    for name, naive in example["by_rules"](ppm).items():
        naive_rmse, naive_mae = example["errors"](naive, ppm)
        assert (rmse < naive_rmse).all(), name
        assert (mae < naive_mae).all(), name


def test_a_stream_forecasts_what_predict_does(example, ppm, model, backend):
    changes = model.predict(np.diff(ppm)[:-1, None])[-example["HELD_OUT"] :, 0]
    one_ahead = ppm[-example["HELD_OUT"] - 1 : -1] + changes
    np.testing.assert_array_equal(example["by_model"](model, ppm)[:, 0], one_ahead)


def test_forecasts_do_not_see_the_future(example, ppm, model):
    month = 50
    other = ppm.copy()
    other[month - example["HELD_OUT"] :] += 100
    forecasts = [{"GRU": example["by_model"](model, series), **example["by_rules"](series)} for series in (ppm, other)]
    for name in forecasts[0]:
        before, after = forecasts[0][name], forecasts[1][name]
        np.testing.assert_array_equal(before[: month + 1], after[: month + 1], name)
        assert (before[month + 1 :] != after[month + 1 :]).any(axis=1).all()


def test_rules_and_errors_by_hand(example):
    straight = np.arange(200.0)  # one more each month
    rules = example["by_rules"](straight)
    rows = np.arange(80.0, 200)[:, None] + np.arange(12)
    np.testing.assert_array_equal(rules["last value"], np.tile(rows[:, :1] - 1, 12))
    np.testing.assert_array_equal(rules["a year earlier"], rows - 12)
    np.testing.assert_array_equal(rules["a year earlier + last rise"], rows)
    for error in example["errors"](rules["last value"], straight):
        np.testing.assert_array_equal(error, np.arange(1, 13))


def test_the_page_shows_what_the_example_prints(example, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    example["main"](tmp_path / "forecast.svg")
    table = capsys.readouterr().out
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert "".join(f"    {line}\n" for line in table.splitlines()) in page
    drawn, kept = ((folder / "forecast.svg").read_text(encoding="utf-8") for folder in (tmp_path, EXAMPLES))
    for svg in (drawn, kept):
        assert set(re.findall(r"(?:fill|stroke): (#\w+)", svg)) >= {"#808080", "#4c8bd6"}
        assert not re.search(r"(?:fill|stroke): #(?:000000|ffffff)", svg)  # readable on light and dark pages
    assert re.findall(r"<text[^>]*>(.*?)</text>", drawn) == re.findall(r"<text[^>]*>(.*?)</text>", kept)
