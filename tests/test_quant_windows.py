"""Windows: what they weigh, where they are put, what is refused."""

import numpy as np
import pytest
from helpers import cube
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edxdenoise.cube import make_cube
from edxdenoise.errors import EdxdenoiseWarning, ParameterError
from edxdenoise.quantification import LineSpec, line_intensity
from edxdenoise.quantification.windows import (
    background_windows,
    integration_window,
    linear_weights,
    place_windows,
    rounded_weights,
)
from edxdenoise.xray import channel_response, fwhm, line_energy
from edxdenoise.xray.families import strong_lines

SPAN = (0.0, 13.0)
ENERGY = (np.arange(650) + 0.5) * 0.02
SYMBOLS = ("C", "N", "O", "Al", "Si", "S", "Ti", "Fe", "Cu", "Ag", "I", "Pb")
NAMES = {"C": "C_Ka", "N": "N_Ka", "O": "O_Ka", "Ag": "Ag_La", "I": "I_La", "Pb": "Pb_La"}
edges = st.floats(1.0, 12.0, allow_nan=False)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(SYMBOLS), min_size=1, max_size=6, unique=True))
def test_estimated_windows_touch_no_other_line(symbols):
    lines = {NAMES.get(symbol, f"{symbol}_Ka"): LineSpec() for symbol in symbols}
    try:
        windows = background_windows(lines, SPAN, beam_energy=200.0)
    except ParameterError as error:
        # Crowded: then no window is better than a wrong one.
        assert "is free of other lines" in str(error)
        return
    listed = strong_lines(symbols, SPAN, beam_energy=200.0)
    for name, pair in windows.items():
        energy = line_energy(name)
        assert 1 <= len(pair) <= 2
        for low, high in pair:
            assert 0.1 <= low < high <= SPAN[1]
            for other, position, _ in listed:
                width = float(fwhm(position)) / 1000
                if abs(position - energy) > float(fwhm(energy)) / 1000:
                    assert not low - 0.99 * width < position < high + 0.99 * width, other
                else:
                    assert position < low or position > high


@given(edges, edges, edges, edges, edges, edges, st.floats(-2, 2), st.floats(1, 100))
def test_linear_weights_are_blind_to_a_straight_background(a, b, c, d, e, f, slope, level):
    points = sorted([a, b, c, d, e, f])
    assume(np.diff(points).min() > 0.02)
    weights = linear_weights(ENERGY, (points[2], points[3]), (tuple(points[:2]), tuple(points[4:])))
    background = level + slope * ENERGY
    assert weights @ background == pytest.approx(0, abs=1e-8)
    one_sided = linear_weights(ENERGY, (points[2], points[3]), (tuple(points[:2]),))
    assert one_sided.sum() == pytest.approx(0, abs=1e-9)
    assert linear_weights(ENERGY, (points[2], points[3]), ((0.5, 0.9),)).max() <= 1


def test_linear_weights_cut_channels():
    weights = linear_weights(ENERGY, (2.005, 2.045), ((1.0, 1.1), (3.0, 3.1)))
    np.testing.assert_allclose(weights[100:103], [0.75, 1, 0.25], atol=1e-9)


def test_net_counts_of_a_line_on_a_slope():
    line = 1000 * channel_response(np.array([line_energy("Fe_Ka")]), ENERGY)[0]
    spectrum = line + 30 - 2 * ENERGY
    spec = LineSpec(background=((5.9, 6.0), (6.8, 6.9)))
    window = integration_window("Fe_Ka", spec, 130.0)
    # One FWHM either side holds 98.15 % of a Gaussian.
    assert linear_weights(ENERGY, window, spec.background) @ spectrum == pytest.approx(981.5, 1e-3)
    rounded = rounded_weights(ENERGY, window, spec.background) @ spectrum
    assert rounded == pytest.approx(981.5, rel=0.01)


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        (LineSpec(window=(3.5, 4.5)), "lines.I_La.window"),
        (LineSpec(background=((3.0, 3.2), (4.1, 4.4))), "lines.I_La.background"),
    ],
)
@pytest.mark.parametrize("intensities", ["windows", "windows-linear"])
def test_window_outside_the_axis_is_named(spec, key, intensities):
    ds = cube(np.ones((2, 2, 42), np.uint8))
    with pytest.raises(ParameterError, match=f"'{key}' .*outside the energy axis, 0 to 4.2 keV"):
        line_intensity(ds, {"I_La": spec}, intensities=intensities, source="counts")


def peaked(*peaks, counts=3e5):
    energy = (np.arange(1400) + 0.5) * 0.01
    spectrum = 300 * np.exp(-energy / 6)
    spectrum += counts * channel_response(np.array(peaks), energy).sum(axis=0)
    return make_cube(np.rint(spectrum)[None, None].repeat(2, axis=1), energy=energy)


def test_windows_keep_clear_of_peaks_that_nobody_listed():
    """Cu K alpha and beta beside Pt L alpha and Fe K alpha, as on a copper grid."""
    copper = line_energy("Cu_Ka1"), line_energy("Cu_Kb1")
    ds = peaked(line_energy("Pt_La1"), line_energy("Fe_Ka1"), *copper)
    lines = {"Pt_La": LineSpec(), "Fe_Ka": LineSpec()}
    for name, windows in place_windows(ds, lines).items():
        for low, high in windows:
            assert all(position < low or position > high for position in copper), name
    found = line_intensity(
        ds, lines, intensities="windows-linear", source="counts"
    ).line_intensity.mean(("y", "x"))
    np.testing.assert_allclose(found, 3e5, rtol=0.06)


def test_a_window_given_on_a_peak_is_named():
    ds = peaked(line_energy("Pt_La1"), line_energy("Cu_Kb1"))
    lines = {"Pt_La": LineSpec(background=((8.8, 9.0), (9.8, 10.0)))}
    with pytest.warns(EdxdenoiseWarning, match=r"holds the peak at 8\.9\d keV \(Cu Kb"):
        line_intensity(ds, lines, intensities="windows-linear", source="counts", elements=["Cu"])


def test_no_place_names_the_peaks_in_the_way():
    crowd = np.arange(1.0, 13.6, 0.18)
    with pytest.raises(ParameterError, match=r"the nearest peaks are at .* keV"):
        place_windows(peaked(line_energy("Fe_Ka1"), *crowd), {"Fe_Ka": LineSpec()})
