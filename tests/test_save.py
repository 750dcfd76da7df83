"""Saving and opening our own files: round trips, chunks, one reading of what is shared."""

import json
import threading

import dask.array as da
import netCDF4
import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

from edxdenoise import __version__
from edxdenoise.cube import make_cube
from edxdenoise.errors import EdxdenoiseWarning, FormatError, SchemaError
from edxdenoise.io import open_dataset, save_dataset
from edxdenoise.io.store import align, storage_chunks
from edxdenoise.schema import SPECS

EVENTS = "event_number", "event_channel", "event_frame"
SIZES = {"y": 6, "x": 5, "energy": 16, "component": 3, "line": 2, "element": 2, "ratio": 1}
DTYPES = {"u": np.uint16, "i": np.int8, "f": np.float32}


@pytest.fixture
def full() -> xr.Dataset:
    """Every variable that `open_dataset` gives, every coordinate, attributes of every kind."""
    rng = np.random.default_rng(1)
    cube = make_cube(
        rng.poisson(300, (SIZES["y"], SIZES["x"], SIZES["energy"])),
        energy=np.arange(SIZES["energy"]) * 0.02 - 0.1,
        spatial_units="nm",
        attrs={
            "title": "Prøve 1/2",
            "beam_energy": 200.0,
            "live_time": 12.5,
            "elements": ["Pb"],
            "stage": {"tilt": None, "locked": True},
            "weighted": True,
            "nothing": None,
            "empty": [],
            "factors": [0.83, 1.0],
            "original_metadata": json.dumps({"Acquisition": {"µm": [1, 2.5, None], "on": False}}),
        },
    )
    data = {}
    for name, spec in SPECS.items():
        # Events are no part of an opened Dataset; `frame_events` reads them, see test_read.py.
        if name in ("counts", *EVENTS):
            continue
        shape = tuple(SIZES.get(dim, 2) for dim in spec.dims)
        values = rng.normal(0, 50, shape).astype(DTYPES[spec.kinds[0]])
        if "f" in spec.kinds and spec.dims == ("component",):
            values[0] = np.nan
        data[name] = spec.array(values)
    ds = cube.assign(data).assign_coords(
        component=np.arange(1, 4),
        line=["Pb_La", "I_La"],
        element=["Pb", "I"],
        ratio=["I/Pb"],
        area=("y", [1, 1, 1, 2, 2, 2], {"area_label": ["Control 1"]}),
    )
    ds["truth"] = ds["counts"].astype(float)
    ds["name"] = ("component", ["a", "µ", ""])
    ds["dose"] = ("y", np.arange(6.0), {"units": "seconds"})
    ds = ds.assign_coords(distance=(("y", "x"), rng.random((6, 5))))
    return ds


@pytest.mark.parametrize("chunks", [None, {"y": 4, "x": 3}, {"y": (1, 3, 2), "component": 1}])
@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
def test_round_trip_is_exact(full, tmp_path, suffix, chunks):
    before = full.copy(deep=True)
    full = full if chunks is None else full.chunk(chunks)
    save_dataset(full, tmp_path / f"out{suffix}")
    back = open_dataset(tmp_path / f"out{suffix}")
    assert back["counts"].chunks and back["counts_denoised"].chunks, "cubes must stay lazy"
    assert back["component_variance"].chunks is None and back["area"].chunks is None
    assert back.attrs.pop("edxdenoise_version") == __version__
    xr.testing.assert_identical(back.load(), before)
    xr.testing.assert_identical(full, before)
    assert list(back.attrs) == list(before.attrs)
    for name, array in before.variables.items():
        assert back[name].dtype == array.dtype, name
        assert {key: type(value) for key, value in back[name].attrs.items()} == {
            key: type(value) for key, value in array.attrs.items()
        }
    assert {key: type(value) for key, value in back.attrs.items()} == {
        key: type(value) for key, value in before.attrs.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
def test_saved_again_from_a_file(full, tmp_path, suffix):
    save_dataset(full, tmp_path / "first.nc")
    save_dataset(open_dataset(tmp_path / "first.nc"), tmp_path / f"second{suffix}")
    again = open_dataset(tmp_path / f"second{suffix}").chunk({"y": 1})
    save_dataset(again, tmp_path / f"second{suffix}", overwrite=True)
    back = open_dataset(tmp_path / f"second{suffix}")
    xr.testing.assert_identical(back.load(), full.assign_attrs(edxdenoise_version=__version__))


@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
def test_metadata_of_a_megabyte(full, tmp_path, suffix):
    text = json.dumps({"é": "x" * 1_500_000})
    save_dataset(full.assign_attrs(original_metadata=text), tmp_path / f"out{suffix}")
    assert open_dataset(tmp_path / f"out{suffix}").attrs["original_metadata"] == text


@pytest.mark.parametrize("suffix", [".zarr", ".nc"])
def test_plain_xarray_opens_it_without_a_warning(full, tmp_path, suffix, recwarn):
    save_dataset(full, tmp_path / f"out{suffix}")
    engine = {".zarr": "zarr", ".nc": "netcdf4"}[suffix]
    with xr.open_dataset(tmp_path / f"out{suffix}", engine=engine) as back:
        assert back["counts"].dtype == np.uint16
        assert (back["counts"] == full["counts"]).all()
        assert back["ratio"].values.tolist() == ["I/Pb"]
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("suffix", [".zarr", ".nc", ".hspy"])
def test_shared_blocks_are_computed_once(tmp_path, suffix):
    computed = []
    lock = threading.Lock()

    def load(block):
        with lock:
            computed.append(block.shape)
        return block

    empty = np.empty((0, 0, 0), np.uint8)
    counts = da.ones((40, 30, 64), chunks=(7, 11, 64), dtype=np.uint8).map_blocks(load, meta=empty)
    ds = make_cube(counts, energy=np.arange(64.0))
    ds["counts_denoised"] = SPECS["counts_denoised"].array(counts.astype(np.float32) * 2)
    save_dataset(ds, tmp_path / f"out{suffix}")
    assert len(computed) == counts.npartitions


def test_stored_chunks_are_the_blocks(tmp_path):
    counts = da.zeros((70, 500, 650), chunks=(8, 500, 650), dtype=np.uint8)
    save_dataset(make_cube(counts, energy=np.arange(650.0)), tmp_path / "out.zarr")
    stored = open_dataset(tmp_path / "out.zarr")["counts"].data
    assert stored.chunks == counts.chunks


@given(
    shape=st.tuples(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 5000)),
    seed=st.integers(0, 10**6),
)
def test_no_stored_chunk_lies_in_two_blocks(shape, seed):
    rng = np.random.default_rng(seed)
    sizes = []
    for length in shape:
        edges = np.unique(rng.integers(1, length + 1, min(4, length)))
        sizes.append(tuple(int(n) for n in np.diff([0, *edges, length]) if n))
    ds = xr.Dataset({"a": (("y", "x", "energy"), da.zeros(shape, chunks=tuple(sizes), dtype="u1"))})
    aligned = align(ds)["a"]
    stored = storage_chunks(aligned)
    for blocks, chunk in zip(aligned.chunks, stored):
        assert all(edge % chunk == 0 for edge in np.cumsum(blocks)[:-1])
    assert np.prod(stored) <= 1 << 24
    assert np.prod(stored) >= min(np.prod(shape), 1 << 12)


def test_suffix_not_known(full, tmp_path):
    with pytest.raises(FormatError, match=r"\.tif' is not known; allowed are \.nc, \.zarr, \.hspy"):
        save_dataset(full, tmp_path / "out.tif")
    assert list(tmp_path.iterdir()) == []


def test_hspy_needs_counts(full, tmp_path):
    with pytest.raises(SchemaError, match="no variable 'counts'"):
        save_dataset(full[["component_map"]], tmp_path / "out.hspy")
    assert list(tmp_path.iterdir()) == []


class TestOpen:
    def test_absent(self, tmp_path):
        with pytest.raises(FormatError, match="nope.zarr': it does not exist"):
            open_dataset(tmp_path / "nope.zarr")

    def test_suffix(self, tmp_path):
        (tmp_path / "a.txt").touch()
        with pytest.raises(FormatError, match="allowed are .nc and .zarr"):
            open_dataset(tmp_path / "a.txt")

    @pytest.mark.parametrize("suffix", [".zarr", ".nc"])
    def test_foreign(self, tmp_path, suffix):
        other = xr.Dataset({"counts": (("x", "y"), np.zeros((2, 3)))})
        if suffix == ".nc":
            other.to_netcdf(tmp_path / "a.nc")
        else:
            other.to_zarr(tmp_path / "a.zarr", consolidated=False)
        with pytest.raises(FormatError, match="has no variable 'counts' with dims"):
            open_dataset(tmp_path / f"a{suffix}")

    @pytest.mark.parametrize("suffix", [".zarr", ".nc"])
    def test_others_counts_are_welcome(self, tmp_path, suffix):
        cube = make_cube(np.zeros((2, 3, 4), np.uint8), energy=np.arange(4.0))
        if suffix == ".nc":
            cube.to_netcdf(tmp_path / "a.nc")
        else:
            cube.to_zarr(tmp_path / "a.zarr", consolidated=False, zarr_format=2)
        xr.testing.assert_identical(open_dataset(tmp_path / f"a{suffix}").load(), cube)

    @pytest.mark.parametrize("kept", [0, 3, 100, 2000, 0.5, 0.9])
    def test_cut_netcdf(self, full, tmp_path, kept):
        save_dataset(full, tmp_path / "a.nc")
        whole = (tmp_path / "a.nc").read_bytes()
        size = int(kept * len(whole)) if isinstance(kept, float) else kept
        (tmp_path / "a.nc").write_bytes(whole[:size])
        with pytest.raises(FormatError, match="cannot read .*a.nc") as info:
            open_dataset(tmp_path / "a.nc")
        assert "\n" not in str(info.value)

    @pytest.mark.parametrize("content", [None, "", "{", "[]", '{"zarr_format": 9}'])
    def test_not_a_zarr(self, tmp_path, content):
        (tmp_path / "a.zarr").mkdir()
        if content is not None:
            (tmp_path / "a.zarr" / "zarr.json").write_text(content)
        with pytest.raises(FormatError, match="cannot read .*a.zarr") as info:
            open_dataset(tmp_path / "a.zarr")
        assert "\n" not in str(info.value)

    def test_a_file_called_zarr(self, tmp_path):
        (tmp_path / "a.zarr").write_text("x")
        with pytest.raises(FormatError, match="cannot read .*a.zarr"):
            open_dataset(tmp_path / "a.zarr")

    @pytest.mark.parametrize("suffix", [".zarr", ".nc"])
    def test_changed_attribute_is_warned_of(self, full, tmp_path, suffix):
        path = tmp_path / f"a{suffix}"
        save_dataset(full.assign_attrs(title="before"), path)
        open_dataset(path)
        if suffix == ".zarr":
            zarr.open_group(path, mode="r+").attrs["title"] = "after"
        else:
            with netCDF4.Dataset(path, "a") as file:
                file.setncattr("title", "after")
        with pytest.warns(EdxdenoiseWarning, match="attributes or labels in .* not those that"):
            assert open_dataset(path).attrs["title"] == "after"

    def test_missing_variable_is_named(self, full, tmp_path):
        save_dataset(full, tmp_path / "a.zarr")
        (tmp_path / "a.zarr" / "counts" / "zarr.json").unlink()
        with pytest.raises(FormatError, match="variable 'counts' is missing"):
            open_dataset(tmp_path / "a.zarr")

    @pytest.mark.parametrize(
        ("name", "value"), [("beam_energy", "x"), ("elements", 5), ("title", [1, 2])]
    )
    def test_attribute_of_a_wrong_type(self, full, tmp_path, name, value):
        save_dataset(full.assign_attrs({name: value}), tmp_path / "a.zarr")
        with pytest.raises(FormatError, match=f"its attribute '{name}' is .*, must be"):
            open_dataset(tmp_path / "a.zarr")

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
    @pytest.mark.parametrize("suffix", [".zarr", ".nc"])
    def test_bytes_overwritten(self, full, tmp_path, suffix):
        """Damage is not seen, warned of or one clear line, whatever byte it hits."""
        save_dataset(full, tmp_path / f"a{suffix}")
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        rng = np.random.default_rng(0)
        refused = 0
        for _ in range(60):
            path = files[rng.integers(len(files))]
            whole = path.read_bytes()
            start = int(rng.integers(len(whole)))
            path.write_bytes(whole[:start] + rng.bytes(8) + whole[start + 8 :])
            try:
                open_dataset(tmp_path / f"a{suffix}")
            except FormatError as error:
                refused += 1
                assert "\n" not in str(error) and f"a{suffix}" in str(error)
            path.write_bytes(whole)
        assert refused > 0

    def test_missing_chunk_is_not_read_as_zeros(self, tmp_path):
        counts = da.zeros((64, 64, 512), chunks=(16, 64, 512), dtype=np.uint8)
        save_dataset(make_cube(counts, energy=np.arange(512.0)), tmp_path / "a.zarr")
        assert open_dataset(tmp_path / "a.zarr")["counts"].sum().compute() == 0
        (tmp_path / "a.zarr" / "counts" / "c" / "2" / "0" / "0").unlink()
        with pytest.raises(FormatError, match="chunks of 'counts' are missing"):
            open_dataset(tmp_path / "a.zarr")
