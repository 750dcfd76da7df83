"""The figures of benchmarks/fidelity.py are what their names say."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

for folder in ("benchmarks", "studies"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))

import _fidelity  # noqa: E402
import fidelity  # noqa: E402
from invented import without_parabola  # noqa: E402


@pytest.fixture(scope="module")
def phantom():
    aim = _fidelity.AIMS["solar-cell"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(_fidelity.AIMS, "solar-cell", replace(aim, shape=(330, 100)))
        return _fidelity.Phantom("solar-cell", 1000.0, 0)


def test_the_truth_has_no_errors(phantom):
    cube, first, one, second, another, grains, wider, totals = phantom.errors(phantom.expected)
    assert [cube, first, second, wider, totals] == [0, 0, 0, 0, 0]
    assert [one, another, grains] == pytest.approx([1, 1, 1])


def test_raw_counts_have_errors_of_one_poisson_noise(phantom):
    found = phantom.errors(phantom.ds["counts"].values)
    assert found[0] == pytest.approx(1, abs=0.01)
    bright = phantom.total > 0.2 * phantom.total.mean()
    assert found[-1] == pytest.approx(100 * np.sqrt(np.mean(1 / phantom.total[bright])), rel=0.03)
    # Noise averages out of edges.
    assert abs(found[-2]) < 0.1


def test_blur_adds_to_the_width_of_edges(phantom):
    blurred = gaussian_filter(phantom.expected, (1, 1, 0))
    found = phantom.errors(blurred)
    width = np.hypot(phantom.true_width, 2.563)
    assert found[-2] == pytest.approx(width - phantom.true_width, rel=0.1)
    # Grains fade.
    assert 0.5 < found[-3] < 0.95


@pytest.mark.parametrize(("period", "fewest", "most"), [(200, 2.0, 8.0), (24, 0.7, 2.0), (2, 0, 0)])
def test_widths_by_risk_and_by_the_answer(period, fewest, most):
    """Wide where the specimen is flat, none where it is rough; both ways agree."""
    y, x = np.mgrid[:64, :72]
    expected = 40 * (1.1 + np.cos(2 * np.pi * y / period) * np.cos(2 * np.pi * x / period))
    expected = expected[..., np.newaxis] * np.ones(3)
    counts = np.random.default_rng(0).poisson(expected)
    ds = {"counts": SimpleNamespace(values=counts)}
    errors = SimpleNamespace(
        ds=ds, errors=lambda cube: [float(np.sqrt(np.mean((cube - expected) ** 2)))]
    )
    blurs = {w: gaussian_filter(counts.astype(float), (w, w, 0)) for w in fidelity.WIDTHS}
    found = {w: errors.errors(cube)[0] for w, cube in ({0: counts} | blurs).items()}
    best = min(found, key=found.get)
    assert fewest <= best <= most
    cubes = dict(fidelity.blurred(errors))
    answer, risk = (
        errors.errors(cubes[f"Gaussian, width by {how}"])[0] for how in ("the answer", "risk")
    )
    assert answer == pytest.approx(found[best], rel=1e-3) and answer <= risk < 1.15 * answer


def test_a_parabola_is_no_structure():
    share = np.linspace(0, 1, 30)[np.newaxis] * np.ones((20, 1))
    maps = np.stack([1 + share, share**2])
    assert np.abs(without_parabola(maps, share)).max() < 1e-12


def test_errors_less_the_noise_of_held_out_counts_are_unbiased():
    random = np.random.default_rng(0)
    held = random.poisson(50, (300, 300, 1)).astype(float)
    found = fidelity.errors_without_noise(np.full_like(held, 53.0), held, held)
    assert found == pytest.approx([9], abs=1)
