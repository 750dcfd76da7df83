"""The stages in their order: what comes out is what the contract says, and can be made again."""

import hashlib
import json
import os
import shutil

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from edxdenoise import pipeline, run
from edxdenoise.config import Denoise, Input, Output, Prepare
from edxdenoise.cube import make_cube
from edxdenoise.errors import (
    DataError,
    EdxdenoiseWarning,
    FormatError,
    MemoryLimitError,
    ParameterError,
    RecipeError,
)
from edxdenoise.io import atomic, check_output, open_dataset, read_cube, save_dataset
from edxdenoise.io.stages import Stages
from edxdenoise.pipeline import denoise, prepare
from edxdenoise.recipe import Recipe
from edxdenoise.resources import memory_needed
from edxdenoise.run import _blocks, convert_file, job_memory, run_recipe
from edxdenoise.simulation import simulate


@pytest.fixture(scope="module")
def phantom():
    # With these counts the components that neighbours find are of use.
    ds = simulate(
        "solar-cell", shape=(24, 30), channels=100, energy_width=0.13, counts_per_pixel=2000, seed=1
    )
    return ds.compute()


@pytest.fixture(scope="module")
def maps(phantom, tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    metadata = json.dumps({"detector": "a"})
    for name, rows in (("a.nc", slice(0, 12)), ("b.zarr", slice(12, 24))):
        part = phantom[["counts"]].isel(y=rows).drop_vars("area")
        part.attrs |= {"title": name[0], "original_metadata": metadata}
        save_dataset(part, folder / name)
    return folder


def recipe_for(maps, out, *names, **denoise_options):
    return Recipe(
        Input(tuple(str(maps / name) for name in names), exposure=(0.8, 1.0)[: len(names)]),
        Prepare(energy=(0.2, float("inf")), crop_x=(0, -2), rebin_energy=2),
        Denoise(components=10, **denoise_options),
        output=Output(str(out)),
    )


CONTRACT = {
    "counts": (("y", "x", "energy"), "u"),
    "exposure": (("y", "x"), "f"),
    "weight_pixel": (("y", "x"), "f"),
    "weight_energy": (("energy",), "f"),
    "mean_spectrum": (("energy",), "f"),
    "component_map": (("component", "y", "x"), "f"),
    "component_spectrum": (("component", "energy"), "f"),
    "component_variance": (("component",), "f"),
    "component_variance_ratio": (("component",), "f"),
    "component_signal_probability": (("component",), "f"),
    "component_keep": (("component",), "i"),
    "component_map_shrunk": (("component", "y", "x"), "f"),
    "counts_denoised": (("y", "x", "energy"), "f"),
}


@pytest.fixture(scope="module", params=["zarr", "nc"])
def result(maps, tmp_path_factory, request):
    path = tmp_path_factory.mktemp("out") / f"ab.{request.param}"
    run_recipe(recipe_for(maps, path, "a.nc", "b.zarr"))
    return path


@pytest.mark.filterwarnings("default::edxdenoise.errors.EdxdenoiseWarning")
class TestContract:
    """Contract 1, on the file and with xarray alone."""

    @pytest.fixture()
    def ds(self, result):
        engine = "zarr" if result.suffix == ".zarr" else "netcdf4"
        with xr.open_dataset(result, engine=engine) as ds:
            yield ds.load()

    def test_variables(self, ds):
        for name, (dims, kind) in CONTRACT.items():
            assert ds[name].dims == dims, name
            assert ds[name].dtype.kind == kind, name
            assert {"units", "long_name"} <= set(ds[name].attrs), name
        assert ds.counts_denoised.dtype == np.float32
        assert ds.counts.dtype == (np.uint8 if ds.counts.max() < 256 else np.uint16)
        evidence = {"component_spatial_statistic", "component_effect_size", "component_neighbour"}
        smoothing = {"component_map_shrunk_stddev", "component_signal_kept", "total_stddev"}
        smoothing |= {"component_error_correlation"}
        sums = {"pixel_counts", "sum_spectrum", "held_out_error"}
        gains = {"component_gain", "component_gain_stddev"}
        assert set(ds.data_vars) == set(CONTRACT) | evidence | smoothing | sums | gains

    def test_flags(self, ds, result):
        assert ds.component_keep.dtype == np.int8
        assert list(ds.component_keep.attrs["flag_values"]) == [0, 1]
        # JSON, which Zarr keeps attributes in, has one kind of whole number.
        again = open_dataset(result).component_keep.attrs["flag_values"]
        assert again.dtype == np.int8
        assert ds.component_keep.attrs["flag_meanings"] == "dropped kept"
        assert set(np.unique(ds.component_keep)) == {0, 1}

    def test_coordinates(self, ds):
        assert list(ds.component.values) == list(range(1, 11))
        assert ds.energy.attrs["units"] == "keV" and ds.energy[0] > 0.2
        assert ds.y.attrs["units"] == ds.x.attrs["units"] == "nm"
        assert list(ds.area.values) == [1] * 12 + [2] * 12
        assert list(ds.area.attrs["area_label"]) == ["a", "b"]

    def test_exposure_kept_apart_from_counts(self, ds, phantom):
        np.testing.assert_allclose(
            ds.exposure.values, np.repeat([0.8, 1], 12)[:, None] * [[1] * 28]
        )
        # Channels 0 and 1 lie below 0.2 keV; pairs of the rest are summed.
        inside = phantom.counts.values[:, :-2, 2:]
        assert ds.counts.values.sum(dtype=int) == inside.sum(dtype=int)

    def test_denoised_is_what_the_contract_says(self, ds):
        kept = ds.component_keep == 1
        model = (ds.component_map_shrunk * ds.component_spectrum).where(kept, 0).sum("component")
        expected = ds.weight_pixel * ds.weight_energy * (ds.mean_spectrum + model)
        expected = expected.transpose("y", "x", "energy")
        # Stored rounded, by at most a sixteenth of its error.
        error = np.sqrt(np.maximum(expected, 0) * int(kept.sum()) / ds.sizes["energy"])
        limit = np.maximum(error / 16, np.abs(expected) / 32) + 1e-5
        assert (np.abs(ds.counts_denoised - expected) <= limit).all()
        assert np.isnan(ds.component_map_shrunk.where(~kept, drop=True)).all()
        totals, denoised = ds.counts.sum("energy", dtype=float), ds.counts_denoised.sum("energy")
        np.testing.assert_allclose(denoised.sum(), totals.sum(), rtol=0.01)

    def test_loadings_are_orthonormal(self, ds):
        product = ds.component_spectrum.values @ ds.component_spectrum.values.T
        np.testing.assert_allclose(product, np.eye(10), atol=1e-6)

    def test_attributes(self, ds, maps, result):
        attrs = ds.attrs
        stages = [line.split()[0] for line in attrs["history"].splitlines()]
        assert "stack" in stages and "weight" in stages
        assert stages[-5:] == ["pca", "neighbours", "select", "shrink", "reconstruct"]
        assert "crop" in stages and "rebin" in stages
        digest = hashlib.sha256((maps / "a.nc").read_bytes()).hexdigest()
        assert f"a.nc sha256:{digest}" in attrs["source"] and "b.zarr sha256:" in attrs["source"]
        assert json.loads(attrs["original_metadata"]) == [{"detector": "a"}] * 2
        assert Recipe.from_toml(attrs["recipe"]) == recipe_for(maps, result, "a.nc", "b.zarr")
        assert attrs["edxdenoise_version"]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"select": "elbow"}, {"keep": "1-4,6"}], ids=str)
def test_recipe_in_the_output_makes_it_again(maps, tmp_path, options):
    run_recipe(recipe_for(maps, tmp_path / "1.zarr", "a.nc", **options))
    first = open_dataset(tmp_path / "1.zarr")
    again = Recipe.from_toml(first.attrs["recipe"])
    again = Recipe(again.input, again.prepare, again.denoise, output=Output(str(tmp_path / "2.nc")))
    run_recipe(again, workers=1)
    second = open_dataset(tmp_path / "2.nc")
    np.testing.assert_array_equal(first.component_keep, second.component_keep)
    np.testing.assert_array_equal(first.counts_denoised, second.counts_denoised)
    if "keep" in options:
        assert list(np.flatnonzero(first.component_keep) + 1) == [1, 2, 3, 4, 6]


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "full"},
        {"solver": "randomized"},
        {"select": "split"},
    ],
    ids=lambda options: "-".join(options.values()),
)
def test_a_lazy_map_is_denoised_after_its_axes_were_cut(phantom, options):
    """Slices of lazy counts are read twice by these."""
    held = phantom[["counts"]].isel(y=slice(0, 16), x=slice(0, 16))
    results = [
        denoise(prepare([ds], Prepare(energy=(0.2, 11.0))), Denoise(components=6, **options))
        for ds in (held, held.chunk({"y": 9}))
    ]
    np.testing.assert_array_equal(*[ds.component_keep for ds in results])
    np.testing.assert_allclose(*[ds.counts_denoised for ds in results], rtol=1e-3, atol=1e-3)


def test_numpy_and_dask_agree_and_lazy_stays_lazy(phantom):
    eager = denoise(phantom, Denoise(components=10))
    lazy_counts = phantom[["counts"]].chunk({"y": 5, "x": 7})
    lazy = denoise(lazy_counts, Denoise(components=10))
    assert isinstance(eager.counts_denoised.data, np.ndarray)
    assert isinstance(lazy.counts_denoised.data, da.Array)
    assert lazy.counts_denoised.chunks == lazy_counts.counts.chunks
    np.testing.assert_array_equal(eager.component_keep, lazy.component_keep)
    np.testing.assert_allclose(eager.counts_denoised, lazy.counts_denoised, rtol=1e-3, atol=1e-4)
    assert set(phantom.data_vars).isdisjoint({"component_map", "weight_pixel"})


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint64])
def test_whole_counts_of_any_type_become_small_integers(phantom, dtype):
    other = phantom[["counts"]].chunk({"y": 5})
    other["counts"] = other.counts.astype(dtype)
    result = denoise(other, Denoise(components=5))
    assert result.counts.dtype == np.uint16 and result.counts.attrs == phantom.counts.attrs
    np.testing.assert_array_equal(result.counts, phantom.counts)


@pytest.mark.parametrize("weighting", ["poisson", "none"])
@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize(
    ("value", "dtype", "words"),
    [
        (0, np.uint8, "no counts at all"),
        (-1, np.int16, "negative"),
        (np.nan, np.float32, "NaN"),
        (0.5, np.float32, "not whole .* elbow"),
    ],
)
def test_counts_that_cannot_be_denoised(weighting, lazy, value, dtype, words):
    counts = np.full((3, 4, 5), 20 if value else 0, dtype)
    counts[1, 2, 3] = value
    ds = make_cube(da.from_array(counts) if lazy else counts, energy=np.arange(1, 6))
    with pytest.raises(DataError, match=words):
        denoise(ds, Denoise(weighting=weighting, select="split"))


def test_keep_and_components_are_checked_before_any_work(phantom):
    stages = []

    def progress(label):
        stages.append(label)
        raise AssertionError

    for options in ({"keep": "1-200"}, {"components": 5000}):
        with pytest.raises(ParameterError):
            denoise(phantom, Denoise(**options), progress=progress)
    assert not stages


def test_zero_peak_is_told_of():
    counts = np.full((6, 6, 20), 30, np.uint8)
    with pytest.warns(EdxdenoiseWarning, match=r"10% of the counts are below 0.1 keV.* --energy 0"):
        denoise(
            make_cube(counts, energy=np.arange(20) * 0.05),
            Denoise(keep="1", subspace="pixel", shrink=False),
        )


def test_warnings_are_kept_in_the_file(tmp_path):
    counts = np.random.default_rng(0).poisson(20, (6, 6, 20)).astype(np.uint8)
    save_dataset(make_cube(counts, energy=np.arange(20) * 0.05), tmp_path / "a.nc")
    recipe = Recipe(
        Input((str(tmp_path / "a.nc"),)),
        denoise=Denoise(keep="1", shrink=False),
        output=Output(str(tmp_path / "b.nc")),
    )
    with pytest.warns(EdxdenoiseWarning, match="zero peak"):
        run_recipe(recipe)
    assert "zero peak" in str(open_dataset(tmp_path / "b.nc").attrs["warnings"])


def test_memory_limit_names_what_is_enough(maps, tmp_path):
    recipe = recipe_for(maps, tmp_path / "o.zarr", "a.nc")
    with pytest.raises(MemoryLimitError, match=r"a.nc.* needs [0-9.]+ MB") as caught:
        run_recipe(recipe, memory_limit=10**8, workers=2)
    needed = str(caught.value).split("needs ")[1].split(",")[0]
    run_recipe(recipe, memory_limit=round(float(needed.split()[0]) * 1e6), workers=2)
    assert (tmp_path / "o.zarr").exists()


@pytest.mark.parametrize(
    ("limit", "advice"),
    [(1.3e9, "use --no-shrink"), (1e9, "use --no-shrink --components 68")],
)
def test_memory_limit_says_what_to_leave_out(limit, advice):
    """What it names fits, and no more; of a map of zeros that takes no memory."""
    counts = np.broadcast_to(np.uint8(0), (1000, 1000, 100))
    ds = xr.Dataset({"counts": (("y", "x", "energy"), counts)})
    with pytest.raises(MemoryLimitError, match=f"needs .* or {advice}$"):
        job_memory(ds, 100, Denoise(), int(limit), 2)
    components = int(advice.split()[-1]) if "components" in advice else 100
    plain = Denoise(shrink=False)
    assert job_memory(ds, components, plain, int(limit), 2)[0].streamed <= limit
    if components < 100:
        with pytest.raises(MemoryLimitError):
            job_memory(ds, components + 1, plain, int(limit), 2)
    with pytest.raises(MemoryLimitError, match="or crop or rebin$"):
        job_memory(ds, 100, Denoise(), 300_000_000, 2)
    few = Denoise(shrink=False)
    with pytest.raises(MemoryLimitError, match="use --components .* and leave out --report$"):
        job_memory(ds, 100, few, 1_000_000_000, 2, report=True)


def test_memory_limit_chooses_blocks(phantom):
    sizes = []
    program = memory_needed((1, 1, 2), 1, workers=1).held
    for limit in (program + 450_000, program + 600_000, program + 10**9):
        plain = Denoise(subspace="pixel", shrink=False)
        blocked, _, _ = _blocks(phantom[["counts"]], 10, plain, limit, 1)
        sizes.append(blocked.counts.data.npartitions)
        assert blocked.counts.chunks[2] == (100,)
    assert sizes[0] > sizes[1] > sizes[2] == 1


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (Recipe(output=Output("a.zarr")), "'input.files' names no file"),
        (Recipe(Input(("a.bcf",))), "'output.file' names no file"),
    ],
)
def test_recipe_without_files(recipe, words):
    with pytest.raises(RecipeError, match=words):
        run_recipe(recipe)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
@pytest.mark.parametrize("options", [{}, {"decomposition": "nmf", "max_iterations": 2}])
def test_resumed_job_gives_what_the_undisturbed_one_does(maps, tmp_path, monkeypatch, options):
    def full(*args, **kwargs):
        raise OSError("disk full")

    recipe = recipe_for(maps, tmp_path / "o.zarr", "b.zarr", **options)
    run_recipe(recipe)
    undisturbed = open_dataset(tmp_path / "o.zarr").load()
    shutil.rmtree(tmp_path / "o.zarr")
    with monkeypatch.context() as patched, pytest.raises(OSError, match="disk full"):
        patched.setattr(run, "save_dataset", full)
        run_recipe(recipe, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["o.zarr.stages"]
    changed = recipe_for(maps, tmp_path / "o.zarr", "b.zarr", seed=1, **options)
    with pytest.raises(ParameterError, match="'.*o.zarr.stages' holds .*another job.*--resume"):
        run_recipe(changed, resume=True)
    # What is kept is not made again.
    monkeypatch.setattr(run, "held_out_error", full)
    monkeypatch.setattr(pipeline, "decompose", full)
    monkeypatch.setattr(pipeline, "shrink", full)
    run_recipe(recipe, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["o.zarr"]
    assert open_dataset(tmp_path / "o.zarr").load().identical(undisturbed)
    assert bool(options) == ("has not converged" in str(undisturbed.attrs["warnings"]))


def test_nothing_is_resumed_of_another_input(phantom, tmp_path, monkeypatch):
    def stopped(*args, **kwargs):
        raise KeyboardInterrupt

    recipe = Recipe(Input((str(tmp_path / "a.nc"),)), output=Output(str(tmp_path / "o.zarr")))
    save_dataset(phantom[["counts"]], tmp_path / "a.nc")
    monkeypatch.setattr(run, "held_out_error", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, resume=True)
    save_dataset(phantom[["counts"]][{"y": slice(12)}], tmp_path / "a.nc", overwrite=True)
    with pytest.raises(ParameterError, match="the input, the recipe or the version"):
        run_recipe(recipe, resume=True)


def test_a_damaged_stage_is_named(tmp_path):
    stages = Stages(tmp_path / "a", "job")
    stages("one", lambda: xr.Dataset({"x": 1}))
    (stages.folder / "one.zarr" / "zarr.json").write_text("{")
    with pytest.raises(FormatError, match="one.zarr' is damaged; remove that folder and repeat"):
        stages("one", lambda: xr.Dataset({"x": 1}))


def test_stages_are_removed_whole_or_not_at_all(tmp_path, monkeypatch):
    def stopped(path):
        raise KeyboardInterrupt

    stages = Stages(tmp_path / "a", "job")
    stages("one", lambda: xr.Dataset({"x": 1}))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(atomic, "remove", stopped)
        stages.remove()
    assert not stages.folder.exists()
    check_output(tmp_path / "a", folder=True)
    assert not any(tmp_path.iterdir())


def damage(path):
    """Zero bytes in the middle of a file, or a chunk cut in two: Zarr has no check sums."""
    if path.is_file():
        content = bytearray(path.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 2000] = bytes(2000)
        path.write_bytes(content)
    else:
        chunk = next(p for p in (path / "counts" / "c").rglob("*") if p.is_file())
        os.truncate(chunk, chunk.stat().st_size // 2)


@pytest.mark.parametrize("suffix", [".zarr", ".nc", ".hspy"])
def test_damage_inside_a_lazy_file_is_one_line(phantom, tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    save_dataset(phantom[["counts"]], path)
    damage(path)
    recipe = Recipe(Input((str(path),)), output=Output(str(tmp_path / "o.zarr")))
    words = rf"(cannot read '.*a{suffix}'|a{suffix}: a part of a {suffix} file is damaged).*;"
    for work in (lambda: run_recipe(recipe), lambda: convert_file(path, tmp_path / "o.zarr")):
        with pytest.raises(FormatError, match=words) as caught:
            work()
        assert "\n" not in str(caught.value)
        assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_missing_chunk_of_ours_is_told(phantom, tmp_path):
    save_dataset(phantom[["counts"]], tmp_path / "a.zarr")
    chunks = (tmp_path / "a.zarr" / "counts" / "c").rglob("*")
    next(chunk for chunk in chunks if chunk.is_file()).unlink()
    with pytest.raises(FormatError, match="a.zarr.* chunks of 'counts' are missing"):
        convert_file(tmp_path / "a.zarr", tmp_path / "o.nc")


def test_prepare_of_several(phantom):
    stacked = prepare([phantom, phantom], Prepare(rebin_xy=2), exposure=[1, 2])
    assert stacked.sizes["y"] == 24 and set(np.unique(stacked.exposure)) == {1, 2}
    assert int(stacked.counts.sum()) == 2 * int(phantom.counts.sum())


@pytest.mark.slow
def test_schedulers_agree(maps, tmp_path):
    from distributed import LocalCluster

    from edxdenoise.blocks import scheduler

    results = []
    # Workers of "processes" are processes; those of an address may be anywhere.
    local = {"processes": False, "dashboard_address": None}
    with LocalCluster(n_workers=2, threads_per_worker=1, **local) as cluster:
        for name in ("threads", "processes", cluster.scheduler_address):
            path = tmp_path / f"{len(results)}.zarr"
            with scheduler(name, workers=2):
                run_recipe(recipe_for(maps, path, "a.nc", "b.zarr"))
            results.append(read_cube(path).compute())
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].component_keep, other.component_keep)
        np.testing.assert_allclose(
            results[0].counts_denoised, other.counts_denoised, rtol=1e-4, atol=1e-5
        )
