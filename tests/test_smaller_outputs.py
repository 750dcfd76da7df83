"""Denoised counts are stored rounded, far below their error, or not at all."""

import h5py
import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from helpers import cube, nothing_computed

from edxdenoise import LineSpec, Recipe, denoise, quantify, run_recipe, save_dataset, simulate
from edxdenoise.cli import main
from edxdenoise.config import Denoise, Input, Output, Prepare, Quantify
from edxdenoise.errors import RecipeError
from edxdenoise.io import open_dataset, read_cube
from edxdenoise.io.save import dropped_bits, round_mantissa, rounded_for_storage
from edxdenoise.pipeline import prepare

pytestmark = pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
LINES = {"Pb_La": LineSpec(4.374), "I_La": LineSpec(3.413)}


def run(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


def size_of(path):
    if path.is_dir():
        return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    return path.stat().st_size


@pytest.fixture(scope="module")
def result():
    phantom = simulate("solar-cell", shape=(66, 60), channels=200, energy_width=0.065)
    return denoise(phantom[["counts"]].load(), Denoise(keep="1-6"))


def test_rounded_to_nearest_without_bias():
    values = np.random.default_rng(0).lognormal(0, 4, 100_000).astype(np.float32)
    values[:3] = 0, -1.5, np.nan
    rounded = round_mantissa(values, dropped_bits(0.01))
    assert rounded[0] == 0 and rounded[1] == -1.5 and np.isnan(rounded[2])
    change = (rounded - values)[3:].astype(float)
    stddev = np.sqrt(0.01 * values[3:])
    # Half a step of 1/8 standard deviation at most, where more than the fewest bits are kept.
    large = values[3:] > 0.1
    assert np.abs(change[large] / stddev[large]).max() <= 1 / 16
    assert np.abs(change / values[3:]).max() <= 2.0**-5
    assert abs(np.mean(change / stddev)) < 5 * np.std(change / stddev) / np.sqrt(change.size)


@pytest.mark.parametrize("suffix", [".zarr", ".nc", ".hspy"])
def test_nothing_measurable_changes(result, tmp_path, suffix):
    save_dataset(rounded_for_storage(result), tmp_path / f"a{suffix}")
    if suffix == ".hspy":
        stored = read_cube(tmp_path / "a.hspy").counts.values
    else:
        stored = open_dataset(tmp_path / f"a{suffix}").counts_denoised.values
    exact = result.counts_denoised.values
    error = np.sqrt(np.maximum(exact, 0) * 6 / exact.shape[2])
    change = stored - exact
    assert 0 < np.sqrt(np.mean(change**2) / np.mean(error**2)) < 0.03
    # Spectra, maps and totals, against the Poisson errors of their counts.
    for axes in ((0, 1), 2, (0, 1, 2)):
        sums = exact.sum(axis=axes, dtype=float)
        moved = np.abs(change.sum(axis=axes, dtype=float)) / np.sqrt(np.maximum(sums, 1))
        assert moved.max() < 0.02


@pytest.mark.slow
def test_quantified_alike_from_the_file(result, tmp_path):
    save_dataset(rounded_for_storage(result), tmp_path / "a.zarr")
    recipe = Quantify(intensities="fit")
    before, after = (
        quantify(ds, LINES, recipe) for ds in (result, open_dataset(tmp_path / "a.zarr"))
    )
    moved = np.abs(after.atomic_percent - before.atomic_percent) / before.atomic_percent_stddev
    assert float(moved.max()) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fept_core_shell.hspy", "bruker_sem_dacite_22cpp.bcf"])
def test_three_times_smaller(shared_data, tmp_path, name):
    ds = prepare([read_cube(shared_data / name)], Prepare(energy=(0.2, 15.0)))
    ds = denoise(ds, Denoise(keep="1-4", shrink=False, subspace="pixel"))
    ds = ds[["counts_denoised", "component_keep"]].load()
    # Unrounded, .zarr was 1.2 times smaller than the array and .nc was not compressed.
    for suffix, least in ((".zarr", 1.2 * 3), (".nc", 3)):
        save_dataset(rounded_for_storage(ds), tmp_path / f"new{suffix}")
        assert size_of(tmp_path / f"new{suffix}") < ds.counts_denoised.nbytes / least


@pytest.fixture()
def recipe(result, tmp_path):
    save_dataset(result[["counts"]], tmp_path / "a.nc")
    return Recipe(Input((str(tmp_path / "a.nc"),)), denoise=Denoise(keep="1-6", components=10))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
def test_without_the_cube_it_is_rebuilt_when_opened(recipe, tmp_path, suffix):
    files = [tmp_path / f"{name}{suffix}" for name in ("with", "without")]
    for file, kept in zip(files, (True, False)):
        run_recipe(
            Recipe(recipe.input, denoise=recipe.denoise, output=Output(str(file), None, kept))
        )
    if suffix == ".zarr":
        assert "counts_denoised" not in xr.open_zarr(files[1])
    else:
        assert "counts_denoised" not in h5py.File(files[1])
    assert size_of(files[1]) < 0.6 * size_of(files[0])
    with nothing_computed():
        opened = open_dataset(files[1])
    full = open_dataset(files[0])
    assert set(opened.data_vars) == set(full.data_vars)
    assert opened.attrs["history"] == full.attrs["history"]
    np.testing.assert_allclose(opened.counts_denoised, full.counts_denoised, rtol=0.04, atol=0.01)


@pytest.mark.slow
def test_command_says_the_size_before_and_leaves_the_cube_out(recipe, tmp_path):
    made = run("denoise", recipe.input.files[0], "-o", tmp_path / "b.zarr", "--no-cube")
    assert made.exit_code == 0, made.output
    said = [line for line in made.stderr.splitlines() if line.startswith("writing ")]
    assert len(said) == 1 and "b.zarr, about" in said[0] and "B" in said[0]
    assert "counts_denoised" not in xr.open_zarr(tmp_path / "b.zarr")
    options = ["--k-factor", "Pb_La=4.4", "--k-factor", "I_La=3.4"]
    again = run("quantify", tmp_path / "b.zarr", "-o", tmp_path / "maps.nc", *options)
    assert again.exit_code == 0, again.output


def test_nothing_is_left_of_a_hspy_file_without_the_cube(recipe, tmp_path):
    output = Output(str(tmp_path / "a.hspy"), None, False)
    with pytest.raises(RecipeError, match="'output.cube' is false"):
        run_recipe(Recipe(recipe.input, denoise=recipe.denoise, output=output))


def test_datasets_that_were_never_rebuilt_are_opened_as_they_are(tmp_path):
    save_dataset(cube(np.ones((4, 5, 6), int)), tmp_path / "a.nc")
    assert "counts_denoised" not in open_dataset(tmp_path / "a.nc")
