"""Rebuilding the cube: the formula of the contract, NumPy and Dask, laziness."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from helpers import nothing_computed, phases

from edxdenoise.components.pca import pca
from edxdenoise.components.selection import select
from edxdenoise.cube import reconstruct
from edxdenoise.errors import EdxdenoiseWarning, SchemaError
from edxdenoise.preprocess import weight
from edxdenoise.schema import COUNTS_DENOISED, validate


@pytest.fixture(scope="module")
def components():
    """With a mean spectrum that is not 0, as a centred decomposition would give."""
    ds = select(pca(weight(phases()), components=8), keep="1-3,6")
    mean = np.random.default_rng(0).random(ds.sizes["energy"]) * 0.01
    return ds.assign(mean_spectrum=ds.mean_spectrum.copy(data=mean))


def by_formula(ds):
    """g h (mean + sum over kept of map * spectrum), in float64."""
    total = np.einsum(
        "k,kyx,ke->yxe",
        ds.component_keep.values.astype(float),
        ds.component_map.values.astype(float),
        ds.component_spectrum.values,
    )
    scale = np.einsum("yx,e->yxe", ds.weight_pixel.values, ds.weight_energy.values)
    return scale * (ds.mean_spectrum.values + total)


def test_formula_of_the_contract(components):
    before = components.copy(deep=True)
    result = reconstruct(components)
    validate(result, COUNTS_DENOISED)
    assert result.counts_denoised.dtype == np.float32
    expected = by_formula(components)
    np.testing.assert_allclose(result.counts_denoised, expected, atol=1e-6 * expected.max())
    assert result.history.splitlines()[-1].startswith("reconstruct")
    xr.testing.assert_identical(components, before)


@pytest.mark.parametrize("keep", ["1", "2", "8", "1-8", "2,4,6,8"])
@pytest.mark.parametrize("weighting", ["poisson", "none"])
def test_any_choice_of_components(keep, weighting):
    ds = pca(weight(phases(), weighting=weighting), components=8)
    if keep.startswith("1"):
        ds = select(ds, keep=keep)
    else:
        with pytest.warns(EdxdenoiseWarning):
            ds = select(ds, keep=keep)
    expected = by_formula(ds)
    result = reconstruct(ds).counts_denoised
    np.testing.assert_allclose(result, expected, atol=2e-6 * abs(expected).max())


@pytest.mark.parametrize("chunks", [{"y": 5}, {"x": 6}, {"y": 4, "x": 7, "energy": 9}], ids=str)
@pytest.mark.parametrize("all_lazy", [False, True])
def test_lazy_whatever_the_chunks(components, chunks, all_lazy):
    lazy = components.chunk(chunks) if all_lazy else components.copy()
    lazy = lazy.assign(
        counts=components.counts.chunk(chunks), component_keep=components.component_keep
    )
    with nothing_computed():
        result = reconstruct(lazy).counts_denoised
    assert isinstance(result.data, da.Array)
    # Blocks of the counts, with whole spectra.
    assert result.chunks == (*lazy.counts.chunks[:2], (components.sizes["energy"],))
    expected = reconstruct(components).counts_denoised
    np.testing.assert_allclose(result, expected, atol=1e-6 * float(expected.max()))


def test_maps_in_other_blocks_than_the_counts(components):
    """As a file may store them."""
    lazy = components.chunk({"y": 5})
    lazy["component_map"] = lazy.component_map.chunk({"component": 1, "y": 18, "x": 3})
    result = reconstruct(lazy).counts_denoised
    assert result.chunks[0] == lazy.counts.chunks[0]
    expected = reconstruct(components).counts_denoised
    np.testing.assert_allclose(result, expected, atol=1e-6 * float(expected.max()))


def test_lazy_maps_of_counts_in_memory(components):
    lazy = components.assign(component_map=components.component_map.chunk({"y": 6}))
    result = reconstruct(lazy).counts_denoised
    assert result.chunks[0] == (6, 6, 6)


@pytest.mark.parametrize(
    "missing", ["counts", "component_map", "component_keep", "mean_spectrum", "weight_energy"]
)
def test_what_is_missing_is_named(components, missing):
    with pytest.raises(SchemaError, match=f"no variable '{missing}'"):
        reconstruct(components.drop_vars(missing))
