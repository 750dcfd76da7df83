"""Lines to quantify by: names, families, overlaps, and errors of one line that name the key."""

import numpy as np
import pytest

from edxdenoise.errors import EdxdenoiseWarning, ParameterError
from edxdenoise.quantification.composition import parse_ratio
from edxdenoise.quantification.lines import (
    LineSpec,
    by_weight,
    check_k_factors,
    check_lines,
    check_positions,
)
from edxdenoise.xray import atomic_weight, line_energy
from edxdenoise.xray.families import element_of, families, list_lines, strong_lines

SPAN = (0.15, 13.0)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ({}, "no line to quantify"),
        ({"Pb_Lx": LineSpec()}, "'lines.Pb_Lx': line 'Pb_Lx' is not known; the lines of Pb are"),
        ({"Xx_Ka": LineSpec()}, "'lines.Xx_Ka': element 'Xx' is not known"),
        ({"Pb_La": LineSpec(), "Pb_Ma": LineSpec()}, "'Pb_La' and 'Pb_Ma' are both of Pb"),
        ({"Pb_La": LineSpec(1e308)}, r"'lines.Pb_La.k_factor' is 1e\+308, must be .* to 1e\+06"),
        ({"Pb_La": LineSpec(1e-320)}, r"'lines.Pb_La.k_factor' is 1e-320, must be a number from"),
        ({"Pb_La": LineSpec(0.0)}, r"'lines.Pb_La.k_factor' is 0.0, must be a number from 1e-06"),
        ({"Pb_La": LineSpec(-2.0)}, r"'lines.Pb_La.k_factor' is -2.0"),
        ({"Pb_La": LineSpec(np.nan)}, r"'lines.Pb_La.k_factor' is nan"),
        ({"Pb_La": LineSpec(1.0, -1.0)}, r"'lines.Pb_La.k_factor_stddev' is -1.0, must be 0 or"),
        (
            {"Pb_La": LineSpec(window=(11.0, 10.0))},
            r"'lines.Pb_La.window' is \[11.0, 10.0\], must run from low to high keV",
        ),
        (
            {"Pb_La": LineSpec(background=((10.2, 10.0), (10.8, 11.0)))},
            r"'lines.Pb_La.background' is \[10.2, 10.0\], must run from low",
        ),
        ({"Pb_La": LineSpec(background=((9.0, 9.1),) * 3)}, "has 3 windows, must have 1 or 2"),
        ({"Pb_La": LineSpec(window=(9.0, 9.5))}, "must hold the line at 10.55 keV"),
        (
            {"Pb_La": LineSpec(background=((10.0, 10.2), (10.5, 11.0)))},
            r"'lines.Pb_La.background' has \[10.5, 11.0\] keV, which holds the line itself",
        ),
    ],
)
def test_bad_lines_are_named(lines, message):
    with pytest.raises(ParameterError, match=message) as caught:
        check_lines(lines)
    assert "\n" not in str(caught.value)


def test_k_factors():
    lines = {"Pb_La": LineSpec(2.0, 0.1), "I_La": LineSpec()}
    assert by_weight(lines, "weight") == lines
    atomic, weight = by_weight(lines, "atomic"), atomic_weight("Pb")
    assert atomic["Pb_La"] == LineSpec(2.0 * weight, pytest.approx(0.1 * weight))
    assert atomic["I_La"] == LineSpec()
    with pytest.raises(ParameterError, match="no k-factor for I_La; give --k-factor I_La=VALUE"):
        check_k_factors(lines)
    with pytest.raises(ParameterError, match="k_factor_unit 'mass' must be weight or atomic"):
        by_weight(lines, "mass")


@pytest.mark.parametrize("text", ["I/Xe", "I", "I/I", "I/Pb/C", ""])
def test_bad_ratio_is_named(text):
    with pytest.raises(ParameterError, match=f"ratio '{text}' must be two of"):
        parse_ratio(text, ["Pb", "I"])


def test_overlaps_are_warned_of():
    with pytest.warns(EdxdenoiseWarning, match=r"Line 'S_Ka' .* overlaps .*Pb Ma"):
        check_positions({"S_Ka": LineSpec(), "Pb_La": LineSpec()}, SPAN)
    with pytest.warns(EdxdenoiseWarning, match="'N_Ka' .* overlaps .*Ti"):
        check_positions({"N_Ka": LineSpec()}, SPAN, elements=["Ti"])


def test_lonely_lines_are_not_warned_of(recwarn):
    check_positions({"Fe_Ka": LineSpec(), "O_Ka": LineSpec()}, SPAN, beam_energy=200.0)
    assert not recwarn


def test_lines_out_of_reach():
    with pytest.raises(ParameterError, match="'Pb_Ka' at .* outside the energy axis"):
        check_positions({"Pb_Ka": LineSpec()}, SPAN)
    with pytest.warns(EdxdenoiseWarning, match="above half the beam energy of 15 keV"):
        check_positions({"Pb_La": LineSpec()}, SPAN, beam_energy=15.0)


def test_families_carry_the_line_named_as_one():
    lead_l, iodine, *others = families(["I", "Pb"], SPAN, names=["Pb_La", "I_La"])
    assert (lead_l.name, iodine.name) == ("Pb_La", "I_La")
    assert {family.name for family in others} == {"Pb_Ma", "I_Mg"}
    for family in (lead_l, iodine):
        # La1 and La2, 0.1 keV apart in lead, are one line for k-factors.
        near = np.abs(np.array(family.energies) - line_energy(family.name)) < 0.11
        assert np.array(family.weights)[near].sum() == pytest.approx(1)
        assert len(family.energies) > 3
    # The thick end of the detector: without its efficiency Lb1 would be a tenth stronger.
    lb1 = lead_l.weights[int(np.argmin(np.abs(np.array(lead_l.energies) - 12.614)))]
    assert 0.25 < lb1 < 0.8


def test_families_too_weak_are_left_out_unless_named():
    # The one M line of cadmium that has a rate gives a fiftieth of L alpha.
    assert [family.name for family in families(["Cd"], SPAN)] == ["Cd_La"]
    named = families(["Cd"], SPAN, names=["Cd_Mg"])
    assert [family.name for family in named] == ["Cd_Mg", "Cd_La"]
    assert element_of(families(["Cu"], SPAN, names=["Cu_La"])[0].name) == "Cu"


@pytest.mark.parametrize(("name", "beam"), [("Pb_La", 5.0), ("Si_Lb3", 200.0)])
def test_line_that_cannot_be_fitted_is_named(name, beam):
    with pytest.raises(ParameterError, match=f"line '{name}' .* cannot be fitted"):
        families([element_of(name)], SPAN, beam_energy=beam, names=[name])


def test_strong_lines_are_sorted_and_scaled():
    listed = strong_lines(["Pb", "C"], SPAN)
    energies = [energy for _, energy, _ in listed]
    assert energies == sorted(energies)
    assert {share for name, _, share in listed if name.startswith("C_")} >= {1.0}
    assert all(0.02 <= share <= 1 for *_, share in listed)


def test_lines_listed_tell_what_the_beam_hardly_excites():
    listed = {line["line"]: line for line in list_lines(["Fe"], (0, 10), beam_energy=12.0)}
    assert listed["Fe_Ka1"]["hardly_excited"] and not listed["Fe_La1"]["hardly_excited"]
    assert not any(line["hardly_excited"] for line in list_lines(["Fe"], (0, 10)))
