"""Cubes of known structure, and a check that nothing is computed."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import dask
import numpy as np
import xarray as xr
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edxdenoise.cube import make_cube
from edxdenoise.simulation import simulate


def cube(counts: np.ndarray, **kwargs: object) -> xr.Dataset:
    """A Dataset with a plain energy axis from an array (y, x, energy)."""
    return make_cube(counts, energy=0.05 + 0.1 * np.arange(counts.shape[2]), **kwargs)


def phases(
    shape: tuple[int, int, int] = (18, 20, 40), *, counts: float = 200.0, seed: int = 0
) -> xr.Dataset:
    """Poisson counts of three phases with clearly different spectra, `counts` per pixel."""
    rows, columns, channels = shape
    y, x = np.mgrid[:rows, :columns]
    maps = np.stack([1 + x / columns, 0.7 + 0.6 * (y > rows / 2), 1.0 * ((x + y) % 7 < 2)])
    energy = np.arange(channels)
    spectra = 0.1 + np.stack(
        [np.exp(-0.5 * ((energy - channels * f) / (0.04 * channels)) ** 2) for f in (0.2, 0.5, 0.8)]
    )
    expected = np.einsum("pyx,pe->yxe", maps, spectra)
    expected *= counts * rows * columns / expected.sum()
    return cube(np.random.default_rng(seed).poisson(expected))


@lru_cache(maxsize=4)
def solar_cell(
    counts_per_pixel: float,
    shape: tuple[int, int] = (66, 100),
    channels: int = 160,
    seed: int = 0,
) -> xr.Dataset:
    """Counts and expected counts of a small solar cell, in memory."""
    ds = simulate(
        "solar-cell", shape=shape, channels=channels, counts_per_pixel=counts_per_pixel, seed=seed
    )
    return ds[["counts", "expected_counts"]].compute()


def cubes(
    dtypes: tuple[type, ...] = (np.uint8, np.uint16, np.uint32), most: int = 7
) -> st.SearchStrategy[np.ndarray]:
    """Strategy: counts of up to `most` rows, columns and channels, extreme values included."""
    return st.sampled_from(dtypes).flatmap(
        lambda dtype: hnp.arrays(
            dtype,
            hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=most),
            elements=st.integers(0, int(np.iinfo(dtype).max)),
        )
    )


def _refuse(*args: object, **kwargs: object) -> None:
    raise AssertionError("something was computed that should have stayed lazy")


@contextmanager
def nothing_computed() -> Iterator[None]:
    """Fail if a Dask graph is computed inside."""
    with dask.config.set(scheduler=_refuse):
        yield


def weighted(ds: xr.Dataset) -> np.ndarray:
    """The weighted data D = X / (g h), shape (y, x, energy)."""
    return (ds.counts / ds.weight_pixel / ds.weight_energy).data
