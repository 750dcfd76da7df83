"""The spectrum image as a Dataset: making one, its energy axis, its pixels, counts rebuilt."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.blocks import as_blocks, channel_totals, compute, pixel_totals
from edxdenoise.errors import DataError, ParameterError, SchemaError

DEFAULT_RESOLUTION = 130.0  # eV, FWHM at Mn K alpha
# eV; files also hold the resolution at another line, such as 60 at C K alpha, or none.
_PLAUSIBLE_RESOLUTION = (100.0, 300.0)
# Attributes of the measured response: FWHM at Mn K alpha (eV), slope of its square (eV), depth of
# the tail (nm); and the covariance, row by row, of these, a shift (keV) and a gain of the axis.
DETECTOR_RESPONSE = "detector_response"
DETECTOR_RESPONSE_COVARIANCE = "detector_response_covariance"

# Whole counts need no wider type than these; 64 bits are for the strobe peaks of long maps.
_COUNT_TYPES = (np.uint8, np.uint16, np.uint32, np.uint64)


def smallest_count_dtype(largest: int) -> np.dtype:
    """Smallest unsigned integer type that holds `largest`.

    Examples
    --------
    >>> smallest_count_dtype(255), smallest_count_dtype(256)
    (dtype('uint8'), dtype('uint16'))
    """
    for dtype in _COUNT_TYPES:
        if largest <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    raise DataError(f"a count of {largest} does not fit into 64 bits")


def make_cube(
    counts: np.ndarray | da.Array,
    *,
    energy: np.ndarray,
    y: np.ndarray | None = None,
    x: np.ndarray | None = None,
    spatial_units: str = "pixel",
    attrs: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Make the Dataset that every stage takes from an array of counts.

    Parameters
    ----------
    counts : numpy or dask array, shape (y, x, energy)
        Counts. A NumPy array of whole numbers is stored in the smallest unsigned type that holds
        it; other arrays keep their type.
    energy : array, shape (energy,)
        Channel centres in keV.
    y, x : array, optional
        Pixel centres in `spatial_units`; 0, 1, 2 ... by default.
    spatial_units : str
        Unit of `y` and `x`.
    attrs : mapping, optional
        Attributes of the Dataset: ``beam_energy`` (keV), ``live_time`` (s), ``elements`` ...

    Returns
    -------
    xarray.Dataset
        With the variable ``counts`` and the coordinates ``y``, ``x`` and ``energy``; with
        ``measured`` where a NumPy array has pixels that are all NaN (`mark_missing`).

    Raises
    ------
    SchemaError
        If the array is not three-dimensional or a coordinate has another length.
    """
    if counts.ndim != 3:
        raise SchemaError(f"counts have shape {counts.shape}, must be (y, x, energy)")
    if isinstance(counts, np.ndarray):
        counts = _shrink_dtype(counts)
    coords = {}
    for dim, size, values, units, long_name in (
        (v.DIM_Y, counts.shape[0], y, spatial_units, "position along y"),
        (v.DIM_X, counts.shape[1], x, spatial_units, "position along x"),
        (v.DIM_ENERGY, counts.shape[2], energy, "keV", "X-ray energy, channel centre"),
    ):
        values = np.arange(size, dtype=float) if values is None else np.asarray(values, float)
        if values.shape != (size,):
            raise SchemaError(f"coordinate '{dim}' has shape {values.shape}, must be ({size},)")
        coords[dim] = (dim, values, {"units": units, "long_name": long_name})
    ds = xr.Dataset({v.COUNTS: v.COUNTS.array(counts)}, coords=coords, attrs=dict(attrs or {}))
    return mark_missing(ds) if isinstance(counts, np.ndarray) else ds


def _shrink_dtype(counts: np.ndarray) -> np.ndarray:
    if counts.size == 0 or counts.dtype == np.uint8:
        return counts
    if counts.dtype.kind == "f":
        whole = np.isfinite(counts).all() and (counts == np.trunc(counts)).all()
    else:
        whole = counts.dtype.kind in "ui"
    if not whole or counts.min() < 0:
        return counts
    return counts.astype(smallest_count_dtype(int(counts.max())), copy=False)


def is_lazy(ds: xr.Dataset) -> bool:
    """Whether the counts are a Dask array."""
    return isinstance(ds[v.COUNTS].data, da.Array)


def measured_pixels(ds: xr.Dataset) -> np.ndarray:
    """Return which pixels were measured, as an array of bool of shape (y, x).

    A pixel with 0 counts was measured unless the variable ``measured`` says otherwise; without
    that variable every pixel was.

    Examples
    --------
    >>> ds = make_cube(np.zeros((1, 2, 3), np.uint8), energy=np.arange(3.0))
    >>> measured_pixels(ds)
    array([[ True,  True]])
    """
    if v.MEASURED not in ds:
        return np.ones((ds.sizes[v.DIM_Y], ds.sizes[v.DIM_X]), bool)
    v.validate(ds, v.MEASURED)
    return ds[v.MEASURED].values != 0


def named_images(images: np.ndarray, names: Sequence[str]) -> xr.DataArray:
    """Return images, shape (detector, y, x), as the variable ``image`` with their names."""
    coords = {v.DIM_DETECTOR: (v.DIM_DETECTOR, list(names), {"long_name": "detector"})}
    return v.IMAGE.array(images).assign_coords(coords)


def drop_needless(ds: xr.Dataset) -> xr.Dataset:
    """Drop ``measured`` where every pixel was, and images that were recorded nowhere in the map."""
    if v.MEASURED in ds and measured_pixels(ds).all():
        ds = ds.drop_vars(v.MEASURED)
    if v.IMAGE in ds:
        there = np.isfinite(ds[v.IMAGE].values).any(axis=(1, 2))
        if not there.any():
            return ds.drop_dims(v.DIM_DETECTOR)
        if not there.all():
            ds = ds.isel({v.DIM_DETECTOR: there})
    return ds


def mark_missing(ds: xr.Dataset, missing: np.ndarray | None = None) -> xr.Dataset:
    """Mark pixels that were not measured in the variable ``measured``, and set their counts to 0.

    Parameters
    ----------
    ds : Dataset
        With ``counts``. Pixels whose counts are all NaN were not measured; for lazy counts of
        floating-point type this takes a pass over them.
    missing : array of bool, shape (y, x), optional
        Further pixels that were not measured.

    Returns
    -------
    Dataset
        `ds` itself where every pixel was measured. Lazy counts stay lazy.

    Raises
    ------
    ParameterError
        If `missing` has another shape than the map, or no pixel is left.

    Examples
    --------
    >>> ds = make_cube(np.ones((1, 2, 3), np.uint8), energy=np.arange(3.0))
    >>> mark_missing(ds, np.array([[False, True]])).measured.values
    array([[1, 0]], dtype=int8)
    """
    v.validate(ds, v.COUNTS)
    counts = ds[v.COUNTS].data
    shape = counts.shape[:2]
    if missing is not None and missing.shape != shape:
        raise ParameterError(
            f"the mask of missing pixels has {missing.shape[0]} x {missing.shape[1]} pixels, the "
            f"map has {shape[0]} x {shape[1]} (y, x); use a mask of the map as it was recorded"
        )
    gone = np.zeros(shape, bool) if missing is None else np.asarray(missing, bool)
    if counts.dtype.kind == "f":
        empty = np.asarray(np.isnan(counts).all(axis=2))
        # A map of nothing but NaN is no map, which a check of its counts says best.
        gone = gone | (empty if not empty.all() else False)
    if not gone.any():
        return ds
    measured = measured_pixels(ds) & ~gone
    if not measured.any():
        raise ParameterError("all pixels of the map are marked as missing; at least 1 must be left")
    where = da.where if isinstance(counts, da.Array) else np.where
    zero = counts.dtype.type(0)
    counts = where(measured[:, :, np.newaxis], counts, zero)
    if isinstance(counts, np.ndarray):
        counts = _shrink_dtype(counts)
    ds = ds.assign(
        {
            v.COUNTS: v.COUNTS.array(counts),
            v.MEASURED: v.MEASURED.array(measured.astype(np.int8)),
        }
    )
    return add_history(ds, f"mark_missing pixels={np.count_nonzero(~measured)}")


def pixel_counts(ds: xr.Dataset) -> np.ndarray:
    """Return the counts of every pixel, shape (y, x), read once where they are not known yet.

    Examples
    --------
    >>> pixel_counts(make_cube(np.ones((1, 2, 3), np.uint8), energy=np.arange(3.0)))
    array([[3., 3.]])
    """
    if v.PIXEL_COUNTS in ds:
        totals = ds[v.PIXEL_COUNTS].values
    else:
        (totals,) = compute(pixel_totals(ds[v.COUNTS].data, np.float64))
    return np.asarray(totals, np.float64)


def is_poisson_weighted(ds: xr.Dataset) -> bool:
    """Whether the weights are roots of counts."""
    weighting = ds[v.WEIGHT_PIXEL].attrs.get(v.WEIGHTING)
    if weighting is None:
        # Files of earlier versions do not say.
        return bool((ds[v.WEIGHT_ENERGY] != 1).any())
    return bool(weighting == "poisson")


def guide_images(ds: xr.Dataset, image: str = "auto") -> dict[str, np.ndarray]:
    """Return the images that may guide the smoothing of `ds`.

    Parameters
    ----------
    ds : Dataset
    image : str
        ``auto`` for all images without missing pixels, ``none``, or the name of one detector.

    Returns
    -------
    dict of str to array of float32, shape (y, x)
        By detector; empty where there is no image, or none is wanted.

    Raises
    ------
    ParameterError
        If there is no image of that name, or it was not recorded in every area of a stack.

    Examples
    --------
    >>> ds = make_cube(np.ones((1, 2, 3), np.uint8), energy=np.arange(3.0))
    >>> guide_images(ds)
    {}
    >>> guide_images(ds, "HAADF")
    Traceback (most recent call last):
    ...
    edxdenoise.errors.ParameterError: image 'HAADF' is not in the map, which has no image; use \
auto or none
    """
    names = [str(name) for name in ds[v.DIM_DETECTOR].values] if v.IMAGE in ds else []
    if image not in ("auto", "none", *names):
        there = f"which has {', '.join(names)}" if names else "which has no image"
        allowed = "auto, none or one of these" if names else "auto or none"
        raise ParameterError(f"image '{image}' is not in the map, {there}; use {allowed}")
    if image == "none" or not names:
        return {}
    v.validate(ds, v.IMAGE)
    found = {}
    for number, name in enumerate(names):
        if image in ("auto", name):
            values = ds[v.IMAGE].isel({v.DIM_DETECTOR: number}).values.astype(np.float32)
            if np.isfinite(values).all():
                found[name] = values
            elif image == name:
                raise ParameterError(
                    f"image '{image}' was not recorded in every area of the map; use auto, none "
                    "or another image"
                )
    return found


def channel_width(energy: np.ndarray) -> float:
    """Mean width in keV of evenly spaced channels, at least two, from their centres.

    Examples
    --------
    >>> channel_width(np.array([0.5, 1.0, 1.5]))
    0.5
    """
    return float((energy[-1] - energy[0]) / (energy.size - 1))


def energy_axis(ds: xr.Dataset) -> tuple[float, float]:
    """Offset and width of the channels in keV: centre of channel i is offset + i * width.

    Raises
    ------
    SchemaError
        If there are fewer than two channels or they are not evenly spaced.
    """
    energy = ds[v.DIM_ENERGY].values
    if energy.size < 2:
        raise SchemaError(f"the energy axis has {energy.size} channel(s), must have at least 2")
    width = channel_width(energy)
    if width <= 0 or not np.allclose(np.diff(energy), width, rtol=1e-3, atol=0):
        raise SchemaError("the energy axis is not evenly spaced and rising; resample it first")
    return float(energy[0]), width


def energy_range(ds: xr.Dataset) -> tuple[float, float]:
    """Lower edge of the first channel and upper edge of the last, in keV."""
    offset, width = energy_axis(ds)
    # To a microelectronvolt: windows may end where the axis does.
    return round(offset - width / 2, 9) + 0.0, round(
        offset + width * (ds.sizes[v.DIM_ENERGY] - 0.5), 9
    )


def sum_spectrum(ds: xr.Dataset) -> np.ndarray:
    """Counts of all pixels per channel, read once, block by block, where they are not known yet."""
    if v.SUM_SPECTRUM in ds:
        return np.asarray(ds[v.SUM_SPECTRUM].values, np.float64)
    v.validate(ds, v.COUNTS)
    (sums,) = compute(channel_totals(ds[v.COUNTS].data, np.float64))
    return np.asarray(sums)


class Resolution(float):
    """Width and shape of the peaks of a detector; as a number, the FWHM at Mn K alpha in eV.

    Whatever takes a resolution as a number takes one of these as well.

    Parameters
    ----------
    value : float
        FWHM at Mn K alpha in eV.
    slope : float, optional
        Of the squared FWHM, in eV^2 per eV; that of a common silicon detector where none is given.
    tail_depth : float
        Depth in nm below the surface of the detector from which charge is collected incompletely.
    """

    slope: float | None
    tail_depth: float

    def __new__(
        cls, value: float, slope: float | None = None, tail_depth: float = 0.0
    ) -> Resolution:
        made = super().__new__(cls, value)
        made.slope, made.tail_depth = slope, tail_depth
        return made

    def __reduce__(self) -> tuple[type, tuple[float, float | None, float]]:
        return Resolution, (float(self), self.slope, self.tail_depth)


def detector_resolution(ds: xr.Dataset) -> Resolution:
    """Resolution of the detector: what was measured (`measure_response`), or what the file states.

    A stated value below 1 is in keV. 130 eV where the file states none, or one that no detector
    has.

    Examples
    --------
    >>> float(detector_resolution(xr.Dataset(attrs={"detector_resolution": 0.133})))
    133.0
    >>> float(detector_resolution(xr.Dataset(attrs={"detector_resolution": 60.0})))
    130.0
    """
    if DETECTOR_RESPONSE in ds.attrs:
        return Resolution(*map(float, ds.attrs[DETECTOR_RESPONSE]))
    stated = float(ds.attrs.get("detector_resolution", DEFAULT_RESOLUTION))
    if 0 < stated < 1:
        stated = round(1000 * stated, 6)
    low, high = _PLAUSIBLE_RESOLUTION
    return Resolution(stated if low < stated < high else DEFAULT_RESOLUTION)


def add_history(ds: xr.Dataset, line: str) -> xr.Dataset:
    """Return the Dataset with one more line in its ``history`` attribute."""
    history = ds.attrs.get("history")
    return ds.assign_attrs(history=f"{history}\n{line}" if history else line)


def result_name(ds: xr.Dataset) -> str:
    """Name a result by its source, recipe, history, version and kept components.

    Files with the same name hold the same result; a report bears the name of the one it shows.

    Examples
    --------
    >>> result_name(xr.Dataset(attrs={"source": "a"})) == result_name(xr.Dataset())
    False
    """
    keys = "source", "recipe", "history", "edxdenoise_version"
    told = [str(ds.attrs.get(key, "")) for key in keys]
    if v.COMPONENT_KEEP in ds:
        told.append("".join(map(str, ds[v.COMPONENT_KEEP].values.tolist())))
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def stack_pixels(cube: np.ndarray | da.Array) -> np.ndarray | da.Array:
    """Rows of pixels from a cube: (y, x, energy) to (y * x, energy); lazy stays lazy."""
    if isinstance(cube, da.Array):
        # A row of the matrix must lie in one block, and reshape keeps blocks only along y.
        cube = cube.rechunk({1: -1, 2: -1})
    return cube.reshape(-1, cube.shape[-1])


def kept_maps(ds: xr.Dataset) -> xr.DataArray:
    """Score maps that rebuild the counts: those of kept components, shrunk ones where there are."""
    kept = np.flatnonzero(ds[v.COMPONENT_KEEP].values)
    name = v.COMPONENT_MAP_SHRUNK if v.COMPONENT_MAP_SHRUNK in ds else v.COMPONENT_MAP
    return ds[name].isel({v.DIM_COMPONENT: kept})


def check_cube(ds: xr.Dataset) -> None:
    """Check that `ds` holds a spectrum image that can be decomposed at all.

    Raises
    ------
    DataError
        If there are fewer than two pixels or two channels.
    """
    v.validate(ds, v.COUNTS)
    sizes = ds[v.COUNTS].sizes
    if sizes[v.DIM_Y] * sizes[v.DIM_X] < 2:
        raise DataError("the map has one pixel; a decomposition needs at least 2")
    if sizes[v.DIM_ENERGY] < 2:
        raise DataError("the spectra have one channel; a decomposition needs at least 2")


# All that the denoised counts follow from.
REBUILT_FROM = (
    v.COUNTS,
    v.COMPONENT_MAP,
    v.COMPONENT_SPECTRUM,
    v.COMPONENT_KEEP,
    v.MEAN_SPECTRUM,
    v.WEIGHT_PIXEL,
    v.WEIGHT_ENERGY,
)


def rebuild_block(
    maps: np.ndarray, weight_pixel: np.ndarray, spectra: np.ndarray, mean: np.ndarray
) -> np.ndarray:
    """g (mean + sum of map * spectrum) of one block, shape (y, x, energy), float32.

    `spectra` and `mean` have the channel weight in them already.
    """
    scores = maps.reshape(len(maps), -1).T
    rows = scores @ spectra
    rows += mean
    rows *= weight_pixel.reshape(-1, 1)
    return rows.reshape(*maps.shape[1:], -1)


def kept_spectra(
    ds: xr.Dataset,
) -> tuple[np.ndarray | da.Array, np.ndarray | da.Array]:
    """Spectra of the components kept and the mean, with the channel weight in them."""
    kept = np.flatnonzero(ds[v.COMPONENT_KEEP].values)
    h = ds[v.WEIGHT_ENERGY].data
    return ds[v.COMPONENT_SPECTRUM].data[kept] * h, ds[v.MEAN_SPECTRUM].data * h


def reconstruct(ds: xr.Dataset) -> xr.Dataset:
    """Rebuild the cube from the components kept.

    ``counts_denoised`` = g h (mean + sum over kept k of map_k spectrum_k), shrunk maps where
    there are: expected counts in the units of the counts measured, so that any quantification
    that takes counts takes them.
    A model that contains component 1 keeps the total of every pixel and of every channel, unless
    totals were shrunk.

    Parameters
    ----------
    ds : Dataset
        With ``counts``, ``component_map``, ``component_spectrum``, ``component_keep``,
        ``mean_spectrum`` and the weights.

    Returns
    -------
    Dataset
        With ``counts_denoised``, float32; lazy where the counts or the maps are, in blocks of
        the counts.
    """
    v.validate(ds, *REBUILT_FROM)
    maps = kept_maps(ds).data
    spectra, mean = (each.astype(np.float32) for each in kept_spectra(ds))
    g = ds[v.WEIGHT_PIXEL].data.astype(np.float32)
    counts = ds[v.COUNTS].data
    if isinstance(counts, da.Array) or isinstance(maps, da.Array):
        blocks = counts.chunks[:2] if isinstance(counts, da.Array) else maps.chunks[1:]
        if isinstance(maps, da.Array):
            maps = maps.rechunk((-1, *blocks))
        else:
            maps = as_blocks(maps, (-1, *blocks))
        rebuilt = da.blockwise(
            rebuild_block,
            "yxe",
            maps.astype(np.float32),
            "kyx",
            da.asarray(g).rechunk(blocks),
            "yx",
            da.asarray(spectra).rechunk(-1),
            "ke",
            da.asarray(mean).rechunk(-1),
            "e",
            concatenate=True,
            dtype=np.float32,
        )
    else:
        rebuilt = rebuild_block(maps.astype(np.float32), g, spectra, mean)
    result = ds.assign({v.COUNTS_DENOISED: v.COUNTS_DENOISED.array(rebuilt)})
    return add_history(result, f"reconstruct components={len(spectra)}")
