"""quantify, run and lines as a user types them."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from click.testing import CliRunner

from edxdenoise import LineSpec, quantify
from edxdenoise.cli import main
from edxdenoise.config import Quantify
from edxdenoise.io import open_dataset, save_dataset
from edxdenoise.quantification import region_table
from edxdenoise.recipe import Recipe
from edxdenoise.simulation import simulate

pytestmark = pytest.mark.slow

FACTORS = ["--k-factor", "Cu_Ka=1.7", "--k-factor", "I_La=3.4", "--k-factor", "Pb_La=4.4+-0.2"]
PHANTOM = {"shape": (32, 40), "channels": 200, "energy_width": 0.065}


def run(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantify")
    phantom = simulate("solar-cell", **PHANTOM)
    save_dataset(phantom[["counts"]], folder / "phantom.zarr")
    denoised = run(
        "denoise", folder / "phantom.zarr", "-o", folder / "denoised.zarr", "--keep", "1-5"
    )
    assert denoised.exit_code == 0, denoised.output
    return folder


def test_quantify_writes_maps_with_errors(folder):
    out = folder / "maps.nc"
    result = run(
        "quantify", folder / "denoised.zarr", "-o", out, *FACTORS, "--ratio", "I/Pb",
        "--intensities", "fit", "--overwrite",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "I/Pb" in result.stdout and "±" in result.stdout
    maps = open_maps(out)
    assert list(maps.element.values) == ["Cu", "I", "Pb"]
    total = maps.atomic_percent.sum("element", skipna=False).values
    known = np.isfinite(total)
    np.testing.assert_allclose(total[known], 100, rtol=1e-5)
    # A pixel has a composition only where a line is detected, and one is where these elements are.
    assert not (known & (maps.line_detected == 0).all("line").values).any()
    truth = simulate("solar-cell", **PHANTOM).true_atomic_percent.sel(element=["Cu", "I", "Pb"])
    there = truth.sum("element").values > 5
    assert there.mean() > 0.85 and known[there].mean() > 0.98
    assert float(maps.atomic_percent_stddev.min()) > 0
    assert "counts" not in maps


def open_maps(path):
    return xr.open_dataset(path)


def test_run_does_what_the_commands_do(folder):
    """denoise and quantify, or one recipe: the same maps."""
    text = run(
        "quantify", folder / "denoised.zarr", "-o", "maps.zarr", *FACTORS, "--intensities", "fit",
        "--print-recipe",
    )  # fmt: skip
    assert text.exit_code == 0, text.output
    lines = Recipe.from_toml(text.stdout)
    recipe = folder / "all.toml"
    recipe.write_text(
        text.stdout.replace(str(folder / "denoised.zarr"), "phantom.zarr")
        .replace("maps.zarr", "all.zarr")
        .replace("[denoise]", '[denoise]\nkeep = "1-5"')
    )
    result = run("run", recipe, "--overwrite")
    assert result.exit_code == 0, result.output
    both = open_dataset(folder / "all.zarr")
    assert lines.lines["Pb_La"].k_factor_stddev == 0.2
    assert {"counts_denoised", "atomic_percent", "line_intensity_stddev"} <= set(both.data_vars)
    assert not (folder / "maps.zarr").exists(), "--print-recipe must do nothing"
    out = folder / "again.nc"
    assert run("quantify", folder / "denoised.zarr", "-o", out, "--recipe", recipe).exit_code == 0
    np.testing.assert_allclose(open_maps(out).atomic_percent, both.atomic_percent, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--elements", "Xx"], "Xx"),
        (["--ratio", "I/Pb"], "ratio 'I/Pb' needs k-factors"),
        (["--k-factor", "estimate", "--ratio", "I/Xe"], "ratio 'I/Xe' must be two of"),
        (["--k-factor", "Xx_Ka=1"], "Xx"),
        (["--k-factor", "Pb_La=0"], "lines.Pb_La.k_factor"),
        (["--k-factor", "Pb_La=1", "--k-factor", "Pb_Ma=1"], "both of Pb"),
        ([*FACTORS, "--ratio", "N/Pb"], "N/Pb"),
        (["--k-factor", "Sn_Ka=1"], "outside the energy axis"),
    ],
)
def test_impossible_input_is_one_line(folder, options, words):
    result = run("quantify", folder / "denoised.zarr", "-o", folder / "bad.zarr", *options)
    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 1 and words in result.stderr
    assert not (folder / "bad.zarr").exists()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("[lines.Pb_Lx]\nk_factor = 1", "'lines.Pb_Lx': line 'Pb_Lx' is not known"),
        (
            "[lines.Pb_La]\nk_factor = 1\n[lines.Pb_Ma]\nk_factor = 1",
            "'Pb_La' and 'Pb_Ma' are both",
        ),
        ("[lines.Pb_La]\nk_factor = 1\nwindow = [10, 26]", "window' has [10, 26] keV, outside the"),
        ("[lines.Pb_La]\nk_factor = 1\nwindow = [10.9, 10.2]", "window' is [10.9, 10.2], must run"),
        ("[lines.Pb_La]\nk_factor = 1\nbackground = [[9, 9.1], [26, 27]]", "has [26, 27] keV, out"),
        (
            "[lines.Pb_La]\nk_factor = 0",
            "'lines.Pb_La.k_factor' is 0.0, must be a number from 1e-06",
        ),
        ("[lines.Pb_La]\nk_factor = -4", "'lines.Pb_La.k_factor' is -4.0, must be a number from"),
        ("[lines.Pb_La]\nk_factor = '4.3'", "'lines.Pb_La.k_factor' is '4.3', must be a number"),
        (
            "[lines.I_La]\nk_factor = 3.4\n[lines.Pb_La]",
            "no k-factor for Pb_La; give --k-factor Pb_La=VALUE, --k-factor estimate, or k_factor",
        ),
        ("[quantify]\nk_factor = 'theory'", "'quantify.k_factor' is 'theory', must be 'estimate'"),
        ("[lines.Pb_Ka]\nk_factor = 1", "line 'Pb_Ka' at 74.97 keV lies outside the energy axis"),
        (
            "[lines.Pb_La]\nk_factor = 1\n[quantify]\nelements = ['Cuu']",
            "element 'Cuu' is not known",
        ),
    ],
)
def test_bad_recipe_is_one_line_before_any_work(folder, lines, words):
    recipe = folder / "bad.toml"
    files = "[input]\nfiles = ['phantom.zarr']\n[output]\nfile = 'bad.zarr'\n"
    recipe.write_text(files + lines + "\n")
    result = run("run", recipe)
    assert result.exit_code == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("Error: ") and words in line
    assert not (folder / "bad.zarr").exists()


def test_run_and_demo_print_their_recipes(folder):
    recipe = folder / "printed.toml"
    recipe.write_text("[input]\nfiles = ['a.bcf']\n[lines.Pb_La]\nk_factor = 4.4\n")
    printed = run("run", recipe, "--print-recipe")
    assert Recipe.from_toml(printed.stdout) == Recipe.from_file(recipe)
    assert Recipe.from_toml(run("demo", "--print-recipe").stdout).quantify.ratios == (
        "I/Pb",
        "N/Pb",
    )


def test_k_factor_that_no_line_uses_is_refused(folder):
    recipe = folder / "one.toml"
    recipe.write_text("[lines.Pb_La]\nk_factor = 4.4\n")
    result = run(
        "quantify", folder / "denoised.zarr", "-o", folder / "bad.zarr", "--recipe", recipe,
        "--k-factor", "I_La=3.4",
    )  # fmt: skip
    assert result.exit_code == 1 and "I_La" in result.stderr and "not used" in result.stderr


def test_counts_can_be_quantified_without_denoising(folder):
    out = folder / "raw.zarr"
    result = run("quantify", folder / "phantom.zarr", "-o", out, *FACTORS, "--source", "counts")
    assert result.exit_code == 0, result.output
    missing = run("quantify", folder / "phantom.zarr", "-o", folder / "bad.zarr", *FACTORS)
    assert missing.exit_code == 1 and "denoise it" in missing.stderr


def test_report_can_be_made_again(tmp_path):
    save_dataset(simulate("mineral", shape=(12, 14), channels=100)[["counts"]], tmp_path / "a.zarr")
    command = ["quantify", tmp_path / "a.zarr", "-o", tmp_path / "r.nc", "--source", "counts"]
    command += ["--k-factor", "Si_Ka=1", "--report", tmp_path / "pictures"]
    assert run(*command).exit_code == 0
    assert run(*command).exit_code == 1, "an existing output must not be replaced unasked"
    again = run(*command, "--overwrite")
    assert again.exit_code == 0, again.output
    assert (tmp_path / "pictures" / "regions.csv").exists()


def test_regions_phases_and_profiles_in_terminal_table_and_file(folder):
    command = ["quantify", folder / "denoised.zarr", *FACTORS, "--intensities", "fit", "--ratio"]
    command += ["I/Pb", "--region", "core=5:25,4:30", "--profile", "2,3:28,35,5"]
    result = run(*command, "-o", folder / "parts.nc", "--report", folder / "parts")
    assert result.exit_code == 0, result.output
    head, *lines = result.stdout.splitlines()
    assert re.split(r"\s{2,}", head.strip())[:4] == ["all", "core", "control 1", "control 2"]
    assert max(map(len, lines[: lines.index("")])) <= 80
    assert any(line.startswith("profile 0 ") for line in lines)
    table = pd.read_csv(folder / "parts" / "regions.csv")
    assert set(table["kind"]) == {"map", "area", "region", "phase", "profile"}
    first = table.drop_duplicates("region").set_index("region")
    counts = open_dataset(folder / "phantom.zarr").counts.values
    assert first.loc["core", ["pixels", "counts"]].tolist() == [520, counts[5:25, 4:30].sum()]
    # Phases hold every pixel once, and half of the counts.
    phases = first[first["kind"] == "phase"]
    assert phases["pixels"].sum() == 32 * 40
    assert phases["counts"].sum() == pytest.approx(counts.sum() / 2, rel=0.01)
    percents = table[table["quantity"].str.endswith("at%")]
    sums = percents.groupby("region")["value"].sum(min_count=1).dropna()
    np.testing.assert_allclose(sums, 100, rtol=1e-4)
    assert (percents["value"].isna() == percents["stddev"].isna()).all()
    # The file says the same, without maps of covariances.
    maps = open_maps(folder / "parts.nc")
    assert "line_intensity_covariance" not in maps and "line_other" not in maps.dims
    again = region_table(maps)
    np.testing.assert_allclose(again["value"], table["value"], rtol=1e-5)


def test_errors_of_sums_are_those_of_raw_counts(folder):
    """A denoised map holds no more counts than the raw one: its sums are no better known."""
    found = {}
    for source in ("counts", "denoised"):
        run(
            "quantify", folder / "denoised.zarr", "-o", folder / f"{source}.nc", *FACTORS,
            "--intensities", "fit", "--source", source,
        )  # fmt: skip
        found[source] = open_maps(folder / f"{source}.nc")
    tables = {source: region_table(maps) for source, maps in found.items()}
    xr.testing.assert_equal(found["counts"].region_spectrum, found["denoised"].region_spectrum)
    for column in ("value", "stddev"):
        np.testing.assert_allclose(tables["denoised"][column], tables["counts"][column], rtol=1e-6)
    counts = open_dataset(folder / "phantom.zarr").counts.values.sum(axis=(0, 1))
    variance = found["denoised"].line_estimator.values**2 @ counts
    whole = found["denoised"].line_intensity_unbounded.sum(("y", "x"))
    net = found["denoised"].line_estimator.values @ counts
    assert (np.abs(whole - net) < 2 * np.sqrt(variance)).all()


def test_region_of_no_file_is_one_line_before_any_work(folder):
    for option, words in (
        (["--region", "grains.tif"], "'grains.tif' does not exist"),
        (["--region", "core=5,9"], "must be written NAME=Y0:Y1,X0:X1"),
        (["--profile", "5,9"], "must be written Y0,X0:Y1,X1"),
    ):
        result = run(
            "quantify", folder / "denoised.zarr", "-o", folder / "bad.zarr", *FACTORS, *option
        )
        assert result.exit_code == 1 and words in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1


def test_lines_lists_energies_and_overlaps():
    result = run("lines", "--elements", "Pb,S", "--range", "2:3", "--json")
    lines = {line["line"]: line for line in json.loads(result.stdout)}
    assert lines["S_Ka1"]["energy"] == pytest.approx(2.308, abs=0.002)
    assert any(other.startswith("Pb_Ma") for other in lines["S_Ka1"]["overlaps"])
    assert "keV" in run("lines", "--elements", "Pb,S", "--range", "2:3").stdout


def test_denoise_prints_its_recipe(tmp_path):
    result = run("denoise", "a.bcf", "-o", "b.zarr", "--energy", "0.1:13", "--print-recipe")
    recipe = Recipe.from_toml(result.stdout)
    assert recipe.prepare.energy == (0.1, 13.0) and recipe.input.files == ("a.bcf",)


@pytest.mark.parametrize("command", ["info", "denoise", "quantify", "report"])
def test_maps_in_place_of_the_map_is_one_line(folder, tmp_path, command):
    """maps.zarr for map.zarr."""
    maps = tmp_path / "maps.zarr"
    made = run("quantify", folder / "phantom.zarr", "-o", maps, "--source", "counts", *FACTORS)
    assert made.exit_code == 0, made.output
    more = {"info": [], "quantify": ["-o", tmp_path / "q.nc", *FACTORS]}
    result = run(command, maps, *more.get(command, ["-o", tmp_path / "o.nc"]))
    assert result.exit_code == 1 and "Error: " in result.stderr
    assert "no counts" in result.stderr or "no components" in result.stderr, result.stderr
    assert "unexpected" not in result.stderr


RECIPE = """
[prepare]
rebin_energy = 2
[denoise]
seed = 7
[lines.Pb_La]
k_factor = 4.4
[quantify]
vacuum_counts = 5.0
correct_energy = true
"""


def test_what_is_typed_beats_the_recipe_whatever_its_value(folder, tmp_path):
    (tmp_path / "r.toml").write_text(RECIPE)
    command = ["quantify", folder / "denoised.zarr", "-o", tmp_path / "o.nc"]
    command += ["--recipe", tmp_path / "r.toml", "--print-recipe"]
    kept = Recipe.from_toml(run(*command).stdout).quantify
    assert (kept.vacuum_counts, kept.correct_energy) == (5.0, True)
    assert Recipe.from_toml(run(*command, "--vacuum-counts", 0).stdout).quantify.vacuum_counts == 0


def test_compare_takes_what_is_typed_and_the_rest_from_the_recipe(folder, tmp_path, monkeypatch):
    from edxdenoise import run as jobs

    taken = []

    def refuse(recipe, models, **options):
        taken.append(recipe)
        raise ValueError("enough")

    monkeypatch.setattr(jobs, "compare_file", refuse)
    (tmp_path / "r.toml").write_text(RECIPE)
    command = ["compare", folder / "phantom.zarr", "--recipe", tmp_path / "r.toml"]
    for typed in ([], ["--rebin-energy", 1, "--seed", 0]):
        assert run(*command, *typed).exit_code == 1
    assert [(each.prepare.rebin_energy, each.denoise.seed) for each in taken] == [(2, 7), (1, 0)]


@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_vacuum_of_no_counts_masks_empty_pixels_only(folder):
    ds = simulate("solar-cell", shape=(32, 40), channels=200, energy_width=0.065)[["counts"]].load()
    ds.counts[:2] = 0
    maps = quantify(ds, {"Cu_Ka": LineSpec(1.7)}, Quantify(source="counts", vacuum_counts=0.0))
    assert maps.atomic_percent[0, :2].isnull().all()
    assert maps.atomic_percent[0, 2:].notnull().any()
