"""X-ray lines, detector and spectra against tabulated and published numbers."""

from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edxdenoise.errors import ParameterError
from edxdenoise.simulation.spectrum import (
    MATERIALS,
    Instrument,
    Material,
    line_spectrum,
    material_spectra,
)
from edxdenoise.xray import channel_response, element_lines, emission, fwhm, line_energy
from edxdenoise.xray.detector import Detector, discriminator, efficiency
from edxdenoise.xray.lines import ionisation_cross_section, velocity_squared

ENERGY = (np.arange(650) + 0.5) * 0.02
POLYMER = Detector(130.0, 18.0, polymer_window=True)
TEM = Instrument("TEM", 200.0, Detector(130.0, 18.0))
SEM = Instrument("SEM", 15.0, Detector(130.0, 35.0))


@pytest.mark.parametrize(
    ("name", "energy"),
    [
        ("C_Ka", 0.277),
        ("N_Ka", 0.392),
        ("O_Ka", 0.525),
        ("Si_Ka", 1.740),
        ("I_La", 3.938),
        ("Pb_La", 10.551),
        ("Pb_La1", 10.551),
        ("Pb_Lb1", 12.614),
        ("Pb_Ma", 2.342),
        ("Cu_Ka", 8.046),
        ("Cu_Kb", 8.904),
    ],
)
def test_line_energy(name, energy):
    assert line_energy(name) == pytest.approx(energy, abs=0.0006)


@pytest.mark.parametrize("name", ["Pb", "Pb_Lz9", "Xx_Ka", "", "C_La"])
def test_unknown_line_is_named_with_what_is_allowed(name):
    with pytest.raises(ParameterError, match="is not known; (the lines of|write its symbol)"):
        line_energy(name)


def family(element, initial, beam_energy=200.0):
    photons = {k: v for k, v in emission(element, beam_energy).items() if k.family == initial}
    total = sum(photons.values())
    return {line.name.split("_")[1]: value / total for line, value in photons.items()}


@pytest.mark.parametrize(
    ("element", "share"),
    # Measured K alpha shares (Scofield-type tables): not the .885 that XrayDB has for Mg to Cl.
    [("C", 1.0), ("Mg", 0.99), ("Si", 0.97), ("Cl", 0.92), ("Fe", 0.88), ("Cu", 0.88)],
)
def test_k_alpha_share(element, share):
    alpha = sum(v for name, v in family(element, "K").items() if name.startswith("Ka"))
    assert alpha == pytest.approx(share, abs=0.012)


def test_l_family_of_lead():
    weights = family("Pb", "L")
    assert sum(weights.values()) == pytest.approx(1)
    # alpha 1 leads, alpha 2 is a ninth of it, beta 1 about 0.4: electrons at 200 kV fill L3 more
    # than X-rays do, whose tables say 0.6.
    assert max(weights, key=weights.get) == "La1"
    assert weights["La2"] / weights["La1"] == pytest.approx(0.114, rel=0.05)
    assert 0.3 < weights["Lb1"] / weights["La1"] < 0.9


@pytest.mark.parametrize("element", ["C", "Si", "Cu", "Ag", "I", "Pt", "Pb"])
def test_rates_of_a_subshell_are_shares(element):
    totals = {}
    for line in element_lines(element):
        assert 0 < line.rate <= 1.001
        totals[line.subshell] = totals.get(line.subshell, 0) + line.rate
    assert all(total <= 1.02 for total in totals.values())
    assert totals["K"] > 0.6


def test_emission_stops_where_the_beam_cannot_ionise():
    families = {line.family for line in emission("Pb", 15.0)}
    assert families == {"L", "M"}
    assert {line.subshell for line in emission("Pb", 14.0)} >= {"L3", "M5"}
    assert "L2" not in {line.subshell for line in emission("Pb", 14.0)}


@pytest.mark.parametrize(
    ("z", "subshell", "energy", "expected"),
    # Values of the authors' own program xion.f, in eV and cm^2, with which NIST tests its version.
    [
        (12, "L3", 7.71792e1, 3.85315e-18),
        (12, "L3", 1.29569e4, 1.24124e-18),
        (12, "L3", 5.78762e6, 1.30393e-19),
        (23, "L1", 2.90068e8, 5.64142e-21),
        (23, "L1", 1.53993e4, 2.63509e-20),
        (45, "M3", 6.68344e8, 1.62343e-20),
        (45, "M3", 1.22321e3, 2.11571e-19),
        (67, "K", 1.63117e5, 1.36404e-23),
        (78, "M5", 2.98538e3, 2.02808e-20),
        (1, "K", 6.87860e2, 1.57729e-17),
    ],
)
def test_cross_section(z, subshell, energy, expected):
    assert 1e-24 * ionisation_cross_section(z, subshell, energy / 1000) == pytest.approx(
        expected, rel=0.01
    )


def test_cross_section_at_the_ends():
    assert ionisation_cross_section(26, "K", 7.0) == 0
    assert ionisation_cross_section(6, "M5", 200.0) == 0
    assert velocity_squared(200.0) == pytest.approx(0.4835, abs=1e-3)


def test_branches_of_the_cross_section_meet():
    """A mistyped coefficient would show as a step at 16 times the edge, where branches meet."""
    table = pd.read_csv(files("edxdenoise.xray") / "bote_salvat_2009.csv", comment="#")
    assert len(table) == 668
    for z, subshell, edge in zip(table["z"], table["subshell"], table["edge"] / 1000):
        below, above = (
            ionisation_cross_section(z, subshell, 16 * edge * factor) for factor in (1, 1 + 1e-9)
        )
        assert above == pytest.approx(below, rel=0.012)


@pytest.mark.parametrize(
    ("energy", "width"), [(0.2774, 53.4), (0.3924, 56.0), (3.9377, 109.5), (10.551, 168.9)]
)
def test_fwhm(energy, width):
    assert fwhm(energy, 130.0) == pytest.approx(width, abs=0.06)


@given(st.floats(15, 250), st.floats(0, 40))
def test_fwhm_is_real_and_right_at_manganese(resolution, energy):
    assert fwhm(energy, resolution) > 0
    assert fwhm(5.8987, resolution) == pytest.approx(resolution)


@pytest.mark.parametrize("resolution", [0.0, -130.0, np.nan])
def test_fwhm_refuses_impossible_resolution(resolution):
    with pytest.raises(ParameterError, match="silicon detector"):
        fwhm(1.0, resolution)


@given(
    st.lists(st.floats(0.3, 12.0), min_size=1, max_size=5),
    st.sampled_from([0.005, 0.01, 0.02]),
    st.floats(122, 160),
)
def test_line_keeps_its_counts_and_its_place(lines, width, resolution):
    energy = (np.arange(-0.5, 13.5, width)) + width / 2
    response = channel_response(np.array(lines), energy, resolution)
    np.testing.assert_allclose(response.sum(axis=1), 1, atol=1e-9)
    # Sampling a peak moves its mean by the first term of Poisson's sum formula: the derivative of
    # its characteristic function (Gaussian times channel) at one period per channel.
    sigma = fwhm(np.array(lines), resolution) / 1000 / np.sqrt(8 * np.log(2))
    moved = width / np.pi * np.exp(-2 * (np.pi * sigma / width) ** 2)
    assert (np.abs(response @ energy - lines) <= 1.01 * moved + 1e-9).all()


def test_channel_holds_the_integral_not_the_sample():
    # One channel as wide as the line's FWHM, centred: erf(sqrt(ln 2)) = 0.7610 of the line.
    width = float(fwhm(1.0)) / 1000
    response = channel_response(np.array([1.0]), 1.0 + width * np.arange(-3, 4), 130.0)
    assert response[0, 3] == pytest.approx(0.7610, abs=1e-4)


def test_polymer_window_takes_nitrogen():
    clear, covered = (
        efficiency(detector, np.array([0.277, 0.392, 0.525, 8.046]))
        for detector in (Detector(), POLYMER)
    )
    carbon, nitrogen, oxygen, copper = covered / clear
    assert 2.5 < 1 / nitrogen < 4.5
    assert nitrogen < oxygen < carbon < copper < 0.78
    assert (clear <= 1).all() and clear[3] > 0.95


def test_discriminator_hides_noise_and_spares_carbon():
    passed = discriminator(np.array([0.02, 0.12, 0.277]), 130.0)
    np.testing.assert_allclose(passed, [0, 0.5, 1], atol=1e-3)


def test_spectrum_of_a_foil():
    (copper,) = material_spectra([MATERIALS["Cu"]], TEM, ENERGY)
    assert ENERGY[copper.argmax()] in (pytest.approx(8.05, abs=0.02), pytest.approx(0.93, abs=0.02))
    alpha = copper[np.abs(ENERGY - 8.046) < 0.2].sum()
    beta = copper[np.abs(ENERGY - 8.904) < 0.2].sum()
    assert beta / alpha == pytest.approx(0.135, abs=0.02)
    # Peak to background of Cu K alpha per 10 eV: some thousands in a good microscope.
    background = copper[np.abs(ENERGY - 7.3) < 0.2].mean() / 2
    assert 2000 < alpha / background < 15000


def test_bremsstrahlung_of_a_thin_foil():
    thin = Instrument("TEM", 200.0, Detector(), foil_thickness=0.1)
    gold, copper = material_spectra([MATERIALS["Au"], MATERIALS["Cu"]], thin, ENERGY)
    free = (ENERGY > 4.5) & (ENERGY < 6.5)
    # Per mass it grows with Z^2 / A; along the energy it falls as 1 / E.
    expected = (79**2 / 196.97) / (29**2 / 63.55)
    np.testing.assert_allclose(gold[free] / copper[free], expected, rtol=0.01)
    np.testing.assert_allclose((copper * ENERGY)[free] / (copper * ENERGY)[free][0], 1, rtol=0.01)


def test_spectrum_of_a_bulk_specimen_ends_at_the_beam_energy():
    energy = (np.arange(1000) + 0.5) * 0.02
    (spectrum,) = material_spectra([MATERIALS["quartz"]], SEM, energy)
    assert spectrum[(energy > 2.5) & (energy < 14)].min() > 0
    assert spectrum[energy > 15.5].max() < 1e-9 * spectrum.max()
    assert energy[spectrum.argmax()] in (
        pytest.approx(1.74, abs=0.02),
        pytest.approx(0.525, abs=0.02),
    )
    continuum = spectrum[(energy > 3) & (energy < 14.5)]
    assert (np.diff(continuum) < 0).all()


def test_soft_lines_are_absorbed_in_a_dense_foil():
    pure, buried = (
        material_spectra([Material({"C": 1.0, "Pb": lead}, 8.0)], TEM, ENERGY)[0]
        for lead in (0.0, 1.0)
    )
    near = np.abs(ENERGY - 0.277) < 0.04
    carbon = Material({"C": 1.0, "Pb": 1.0}, 8.0).weight_fractions()["C"]
    assert buried[near].sum() < pure[near].sum() * carbon


def test_stray_lines_are_those_of_a_thick_grid():
    spectrum = line_spectrum({"Cu": 1.0}, TEM, ENERGY)
    assert spectrum.sum() == pytest.approx(1)
    soft, hard = spectrum[ENERGY < 2].sum(), spectrum[ENERGY > 7].sum()
    # A measured Cu grid at 200 kV gives L : K = 0.17; in a thin foil it is about 1.
    assert 0.05 < soft / hard < 0.3
    assert spectrum[(ENERGY > 2) & (ENERGY < 7)].sum() < 1e-3


def test_materials_are_shares():
    for material in MATERIALS.values():
        assert sum(material.weight_fractions().values()) == pytest.approx(1)
        assert sum(material.atomic_fractions().values()) == pytest.approx(1)
    assert MATERIALS["quartz"].weight_fractions()["Si"] == pytest.approx(0.4674, abs=1e-3)
