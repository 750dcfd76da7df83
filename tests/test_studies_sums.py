"""The studies of sums and of the bias check, at toy size."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))

import bias_check  # noqa: E402
import sums  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning"),
]


def test_pulls_of_sums():
    rows = {tuple(row[:3]): row for row in sums.study(2, [1000.0])}
    assert {kind for _, _, kind in rows} == {"map", "area", "region", "phase", "profile"}
    for row in rows.values():
        number, mean, spread = int(row[3]), float(row[4]), float(row[5])
        # Fractions of one region add up to 1: their pulls are not independent.
        assert abs(mean) < 4 / (number / 3) ** 0.5
        assert 0.5 < spread < 1 + 4 / (number / 3) ** 0.5


def test_bias_is_found_where_a_component_was_dropped(monkeypatch):
    monkeypatch.setattr(bias_check, "CASES", (("core-shell", 300.0),))
    rows = {tuple(row[2:4]): float(row[6].rstrip("%")) for row in bias_check.study(1)}
    assert rows["kept", "raw - denoised"] <= 7 and rows["kept", "raw - truth"] <= 7
    assert rows["dropped", "raw - denoised"] > 50
    assert rows["dropped", "raw - truth"] == rows["kept", "raw - truth"]
