"""Estimated k-factors: published numbers, identities, phantoms, and the commands as typed."""

import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import edxdenoise as ed
from edxdenoise.cli import main
from edxdenoise.config import Quantify
from edxdenoise.errors import EdxdenoiseWarning, FormatError, ParameterError
from edxdenoise.io import open_dataset, save_dataset
from edxdenoise.quantification.k_factors import (
    convert_k_factors,
    estimate_k_factors,
    k_factor_table,
    read_k_factors,
    resolve_k_factors,
)
from edxdenoise.quantification.lines import LineSpec, quantified_lines
from edxdenoise.simulation.truth import true_k_factors
from edxdenoise.xray import atomic_weight, emission

# Of a vendor, as Kosasih et al. (2023) used them.
ARTICLE = {"I_La": 3.413, "In_La": 2.620, "Sn_La": 2.653, "Pb_La": 4.374}


def run(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def values(*lines, **kwargs):
    return {name: k.value for name, k in estimate_k_factors(lines, **kwargs).items()}


def test_values_of_the_model():
    found = values("In_La", "Pb_La", "Si_Ka")
    assert found["In_La"] == pytest.approx(2.91, abs=0.01)
    assert found["Pb_La"] == pytest.approx(5.34, abs=0.01)
    assert found["Si_Ka"] == 1


def test_strontium_titanate():
    """Ti K over Sr K of SrTiO3, measured: 1.546 and 1.582."""
    photons = {
        element: sum(p for line, p in emission(element, 200.0).items() if line.family == "K")
        for element in ("Ti", "Sr")
    }
    assert photons["Ti"] / photons["Sr"] == pytest.approx(1.57, abs=0.03)


def test_the_article_s_k_factors_are_within_the_errors():
    for name, estimate in estimate_k_factors(ARTICLE).items():
        assert ARTICLE[name] == pytest.approx(estimate.value, abs=2 * estimate.stddev)


@pytest.mark.parametrize(
    ("pair", "stated"),
    [
        (("Fe_Ka", "Cu_Ka"), 0.06),
        (("Fe_Ka", "Si_Ka"), 0.15),
        (("Na_Ka", "Fe_Ka"), 0.20),
        (("In_La", "Pb_La"), 0.04),
        (("Pt_La", "Fe_Ka"), 0.10),
        (("Pb_La", "Si_Ka"), 0.15),
    ],
)
def test_errors_of_ratios(pair, stated):
    lines = resolve_k_factors({name: LineSpec() for name in pair}, estimate=True)
    relative = [spec.k_factor_stddev / spec.k_factor for spec in lines.values()]
    assert np.hypot(*relative) == pytest.approx(stated, rel=0.02)


def test_what_is_known_scales_its_group():
    lines = {"Pb_La": LineSpec(4.374), "I_La": LineSpec(), "Fe_Ka": LineSpec()}
    found = resolve_k_factors(lines, estimate=True)
    plain = values("Pb_La", "I_La", "Fe_Ka")
    assert found["Pb_La"] == lines["Pb_La"]
    assert found["I_La"].k_factor == pytest.approx(4.374 * plain["I_La"] / plain["Pb_La"])
    assert found["I_La"].k_factor_stddev / found["I_La"].k_factor == pytest.approx(0.04, rel=0.02)
    assert found["Fe_Ka"].k_factor == pytest.approx(plain["Fe_Ka"])


def test_dishonest_estimates_are_refused_unless_forced():
    lines = {"Fe_Ka": LineSpec(), "O_Ka": LineSpec(), "Pt_Ma": LineSpec(), "Cu_La": LineSpec()}
    with pytest.warns(
        EdxdenoiseWarning, match="No k-factor is estimated for O_Ka.*--k-factor O_Ka"
    ):
        found = resolve_k_factors(lines, estimate=True)
    assert [name for name, spec in found.items() if spec.k_factor is None] == list(lines)[1:]
    forced = resolve_k_factors({name: LineSpec("estimate") for name in lines})
    assert all(spec.k_factor_stddev > 0.5 * spec.k_factor for spec in list(forced.values())[1:])
    seen = resolve_k_factors(dict(list(lines.items())[:2]), estimate=True, window="none")
    relative = [spec.k_factor_stddev / spec.k_factor for spec in seen.values()]
    assert np.hypot(*relative) == pytest.approx(0.30, rel=0.02)


@pytest.mark.parametrize(
    ("k", "words"),
    [
        ({"Fe_Ka": 1.43, "Cu_Ka": 1.2}, "k-factor of Cu_Ka, 1.2, is 32% below"),
        ({"Fe_Ka": 1.43, "Pb_La": 2.7}, "Pb_La.*whole L family are half"),
    ],
)
def test_k_factors_far_from_their_estimates_are_named(k, words):
    with pytest.warns(EdxdenoiseWarning) as issued:
        resolve_k_factors({name: LineSpec(value) for name, value in k.items()})
    assert any(re.search(words, str(warning.message)) for warning in issued)
    # Another reference changes nothing.
    scaled = {name: LineSpec(3 * value) for name, value in values("Fe_Ka", "Pb_La").items()}
    assert resolve_k_factors(scaled) == scaled


def test_a_table_at_another_beam_energy():
    known = values("Si_Ka", "Fe_Ka", "Pb_La", beam_energy=200.0)
    other = values("Si_Ka", "Fe_Ka", "Pb_La", beam_energy=80.0)
    assert convert_k_factors(known, from_energy=200, to_energy=80) == pytest.approx(other)
    # The reference stays the line whose k-factor is 1.
    scaled = {name: value / known["Fe_Ka"] for name, value in known.items()}
    assert convert_k_factors(scaled, from_energy=200, to_energy=80)["Fe_Ka"] == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_atomic_k_factors_give_the_same_composition():
    ds = ed.simulate("core-shell", shape=(8, 8), channels=500).compute()
    known = values("Fe_Ka", "Pt_La")
    atomic = {name: k / atomic_weight(name.split("_")[0]) for name, k in known.items()}
    maps = [
        ed.quantify(ds, lines, source="counts", k_factor_unit=unit)
        for unit, lines in (("weight", known), ("atomic", atomic))
    ]
    assert quantified_lines(maps[0]) == {
        name: LineSpec(pytest.approx(k)) for name, k in known.items()
    }
    xr.testing.assert_allclose(maps[0].atomic_percent, maps[1].atomic_percent)


def test_impossible_input():
    with pytest.raises(ParameterError, match="window 'Be' must be one of none, polymer"):
        estimate_k_factors(["Fe_Ka"], window="Be")
    with pytest.raises(ParameterError, match="the beam does not excite it"):
        estimate_k_factors(["Pb_La"], beam_energy=10.0)
    with pytest.raises(
        ParameterError, match="'lines.Si_Ka' is \\(1, 2, 3\\), must be a k-factor, a"
    ):
        ed.quantify(ed.simulate(shape=(8, 8), channels=100), {"Si_Ka": (1, 2, 3)})


@pytest.fixture(scope="module")
def particles():
    """FePt particles; a phantom is made by the same cross sections, but another detector."""
    return ed.simulate("core-shell", shape=(32, 32), channels=500, counts_per_pixel=3000).compute()


@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_composition_of_fept(particles):
    recipe = Quantify(k_factor="estimate", source="counts", intensities="fit", ratios=("Pt/Fe",))
    found = ed.quantify(particles, {"Fe_Ka": None, "Pt_La": None, "Cu_Ka": None}, recipe)
    (k_fe, _), (k_pt, _) = true_k_factors(particles, ["Fe_Ka", "Pt_La"]).values()
    lines = quantified_lines(found)
    assert list(found["k_factor_origin"].values[:2]) == ["estimated", "estimated"]
    ratio = lines["Pt_La"].k_factor / lines["Fe_Ka"].k_factor
    assert ratio == pytest.approx(k_pt / k_fe, rel=0.1)
    assert float(found.atomic_percent_stddev.median()) > 0.5, "errors of k-factors are part"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_net_counts_need_no_k_factors(particles, tmp_path):
    save_dataset(particles[["counts"]], tmp_path / "p.zarr")
    out = tmp_path / "maps.nc"
    result = run("quantify", tmp_path / "p.zarr", "-o", out, "--source", "counts", "--elements",
                 "Fe,Pt,Cu,C,O", "--intensities", "fit", "--report", tmp_path / "r")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "Fe_Ka counts" in result.stdout and "±" in result.stdout and "at%" not in result.stdout
    maps = open_dataset(out)
    assert set(maps.line.values) == {"Fe_Ka", "Pt_La", "Cu_Ka", "C_Ka", "O_Ka"}
    assert "atomic_percent" not in maps and "line_intensity_stddev" in maps
    assert "Fe_Ka counts" in (tmp_path / "r" / "regions.csv").read_text()
    assert not (tmp_path / "r" / "at_percent.png").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_estimates_are_said_to_be_estimates(particles, tmp_path):
    save_dataset(particles[["counts"]], tmp_path / "p.zarr")
    command = ["quantify", tmp_path / "p.zarr", "-o", tmp_path / "maps.nc", "--source", "counts",
               "--elements", "Fe,Pt,O", "--intensities", "fit", "--k-factor", "estimate",
               "--k-factor", "Fe_Ka=1.4"]  # fmt: skip
    recipe = ed.Recipe.from_toml(run(*command, "--print-recipe").stdout)
    assert recipe.quantify.k_factor == "estimate" and recipe.lines["Fe_Ka"].k_factor == 1.4
    result = run(*command, "--report", tmp_path / "r")
    assert result.exit_code == 0, result.output
    assert re.search(r"^k-factors +estimated, .*: Pt La 4", result.stdout, re.M)
    assert "O_Ka counts" in result.stdout and "O at%" not in result.stdout
    assert "No k-factor is estimated for O_Ka" in result.stderr
    table = (tmp_path / "r" / "regions.csv").read_text()
    assert "Pt at%,at%,estimated" in table and "Fe at%,at%,given" in table
    maps = open_dataset(tmp_path / "maps.nc")
    assert list(maps["k_factor_origin"].values) == ["given", "estimated", "none"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_numbers_pairs_and_specs_are_the_same(particles):
    film = particles.isel(y=slice(0, 8))
    recipe = Quantify(source="counts", intensities="fit", elements=("Pt", "Cu", "C", "O"))
    maps = [
        ed.quantify(film, {"Fe_Ka": line}, recipe)
        for line in (1.4, (1.4, 0.1), ed.LineSpec(1.4, 0.1))
    ]
    for other in maps[1:]:
        np.testing.assert_array_equal(maps[0].atomic_percent, other.atomic_percent)


@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_a_sem_is_told_that_foils_are_meant():
    mineral = ed.simulate("mineral", shape=(16, 16), channels=512, counts_per_pixel=500).compute()
    recipe = Quantify(source="counts", intensities="fit", elements=("O", "Na", "Al", "K", "Ca"))
    with pytest.warns(EdxdenoiseWarning, match="20 keV, as in a SEM; Cliff-Lorimer holds for thin"):
        ed.quantify(mineral, {"Si_Ka": 1.0}, recipe)


def test_command(tmp_path):
    rows = json.loads(run("kfactors", "--elements", "Fe,Pt,O", "--json").stdout)
    lines = {row["line"]: row for row in rows}
    assert lines["Pt_La"]["origin"] == "estimated" and lines["O_Ka"]["note"]
    text = run("kfactors", "--elements", "Fe", "--detector-window", "polymer")
    assert "estimated" in text.stdout
    for said in ("200 keV", "0.45 mm Si", "polymer"):
        assert said in text.stderr
    scaled = run("kfactors", "--elements", "I", "--k-factor", "Pb_La=4.374", "--json")
    row = next(row for row in json.loads(scaled.stdout) if row["line"] == "I_La")
    assert row["origin"] == "estimated, scaled" and row["k_factor"] == pytest.approx(2.87, abs=0.01)
    everything = k_factor_table((), {})
    assert len(everything) > 80 and not any(row["note"] for row in everything)

    table = tmp_path / "known.csv"
    table.write_text("line,k,error\n# a vendor's\nSi_Ka,1\nFe_Ka,1.40,0.05\n")
    assert read_k_factors(table) == {"Si_Ka": (1.0, 0.0), "Fe_Ka": (1.4, 0.05)}
    command = ["kfactors", "--table", table, "--from-energy", 200, "--beam-energy", 80, "--json"]
    iron = json.loads(run(*command).stdout)[1]
    assert iron["origin"] == "converted" and 0.05 < iron["stddev"] < 0.1
    table.write_text("Fe_Ka\n")
    with pytest.raises(FormatError, match="line 1: 'Fe_Ka' must be a line and its k-factor"):
        read_k_factors(table)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_compositions_by_a_vendor_s_k_factors(monkeypatch):
    """FePt, GaAs and SrTiO3 whose counts follow from another source than the estimates."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "studies")
    rows = {
        row[0]: list(map(float, row[3:])) for row in importlib.import_module("k_factors").study(1)
    }
    assert abs(rows["SrTiO3, measured"][0] - 1) < 0.02
    phantoms = {name: row for name, row in rows.items() if name.startswith("phantom")}
    assert len(phantoms) == 3
    for value, error, _ in phantoms.values():
        assert abs(value - 50) < 2 * error
        assert 0.5 < error < 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_elements_found_are_quantified_and_not_those_listed(particles):
    # The file lists an element that is not there, and not those that are.
    ds = particles[["counts"]].assign_attrs(particles.attrs | {"elements": ["U"]})
    maps = ed.quantify(ds, recipe=Quantify(source="counts", k_factor="estimate"))
    assert {"Fe_Ka", "Pt_La", "Cu_Ka", "C_Ka", "O_Ka"} <= set(maps.line.values)
    assert not any(name.startswith("U_") for name in maps.line.values)
    assert {"Fe", "Pt"} <= set(maps.element.values)
