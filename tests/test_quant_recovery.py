"""Truth and stated errors on phantoms: the tables of benchmarks/recovery.py, at a smaller size."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import recovery  # noqa: E402

from edxdenoise import simulate  # noqa: E402

NAMES = recovery.LINES["solar-cell"]


@pytest.fixture(scope="module")
def phantom():
    # 6 counts of N K alpha per pixel.
    return recovery.phantom("solar-cell", 2000.0, (66, 100))


@pytest.fixture(scope="module")
def intensities(phantom):
    return recovery.intensity_rows(phantom, NAMES)


@pytest.mark.parametrize("method", recovery.METHODS)
def test_pulls_of_raw_counts(intensities, method):
    rows = [r for r in intensities if r["method"] == method and r["source"] == "counts"]
    assert len(rows) == len(NAMES)
    for row in rows:
        assert abs(row["mean"]) < 0.1, row
        assert 0.9 < row["std"] < 1.1, row
        assert 0.93 < row["coverage"] < 0.97, row


@pytest.mark.parametrize("method", recovery.METHODS)
def test_pulls_of_denoised_counts(intensities, method):
    rows = [r for r in intensities if r["method"] == method and r["source"] == "denoised"]
    for row in rows:
        assert abs(row["mean"]) < 0.2, row
        assert 0.85 < row["std"] < 1.4, row
        assert row["coverage"] > 0.85, row


def test_fit_finds_net_counts_where_windows_do_not(intensities):
    rows = {(r["method"], r["line"]): r for r in intensities if r["source"] == "counts"}
    for name in NAMES:
        row = rows["fit", name]
        assert abs(row["bias"]) < 0.5 + 0.01 * row["true"], row
    # Tin's L alpha is buried in indium's: windows count five times too much.
    assert rows["windows-linear", "Sn_La"]["bias"] > 20
    for name in ("In_La", "I_La", "Pb_La"):
        assert abs(rows["fit", name]["net_mean"]) < 0.15
        assert 0.9 < rows["fit", name]["net_std"] < 1.1


@pytest.fixture(scope="module")
def percents(phantom):
    return recovery.percent_rows(phantom, NAMES)


def test_pulls_of_atomic_percent(percents):
    for row in percents:
        raw = row["source"] == "counts"
        # Nitrogen by windows has 6 counts: the first-order error of its ratio follows its noise.
        if (row["method"], row["source"], row["element"]) != ("windows-linear", "counts", "N"):
            assert abs(row["mean"]) < (0.15 if raw else 0.2), row
        assert 0.85 < row["std"] < (1.1 if raw else 1.4), row
        assert row["coverage"] > (0.93 if raw else 0.85), row


def test_linear_pulls_of_atomic_percent(percents):
    for row in percents:
        if row["source"] == "counts":
            # The bounds of net counts.
            assert abs(row["linear_mean"]) < 0.1, row
            assert 0.9 < row["linear_std"] < 1.1, row


@pytest.mark.parametrize("seed", range(3))
def test_mean_pull_of_nitrogen_by_windows(seed):
    ds = simulate("solar-cell", shape=(33, 50), counts_per_pixel=8000.0, seed=seed).compute()
    rows = recovery.percent_rows(ds, NAMES, ["windows-linear"], ["counts"])
    (row,) = (row for row in rows if row["element"] == "N")
    assert abs(row["mean"]) < 0.15, row


def test_phases_have_their_composition(phantom):
    rows = [
        row
        for row in recovery.phase_rows(phantom, NAMES)
        if row["method"] == "fit" and row["region"].startswith("MAPbI3")
    ]
    assert {row["region"] for row in rows} >= {"MAPbI3 control", "MAPbI3 treated"}
    for row in rows:
        if row["true"] > 5 and row["pixels"] > 500:
            assert abs(row["value"] - row["true"]) < 3 * row["stddev"], row


@pytest.mark.parametrize(("pair", "counts"), recovery.OVERLAPS.items())
def test_overlapping_lines(pair, counts):
    rows = {(row["method"], row["line"]): row for row in recovery.overlap_rows(pair, counts)}
    for name in pair:
        row = rows["fit", name]
        assert abs(row["error"]) < 4 * row["error_stddev"], row
        assert 0.93 < row["coverage"] < 0.97
    assert (
        max(
            abs(rows["windows-linear", name]["error"])
            / rows["windows-linear", name]["error_stddev"]
            for name in pair
        )
        > 30
    )
    assert all(rows["windows-linear", name]["coverage"] < 0.75 for name in pair)


def test_spread_ignores_what_is_not_finite():
    assert recovery.spread(np.array([np.nan, 1.0, -1.0])) == (0.0, 1.0, 1.0)
