"""Regions of a map and their sum spectra: the whole, areas, phases, a user's regions, profiles.

Phases are groups of pixels with similar spectra. Pixels that are grouped by all their counts are
grouped by their noise as well: sums over such a group are biased, far beyond their counting errors.
Here binomial thinning (`thin`) splits the counts into two independent halves. The first half finds
the groups; the second half, whose noise had no part in it, gives sums that are Poisson distributed
and unbiased.

Pixels are compared by their shares of the kept component spectra, so that thickness does not count.
Where counts are few the shares are averaged over neighbouring pixels first. Clusters that are no
further apart than the noise of one pixel are merged: noise alone never makes a group.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import dask.array as da
import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

from edxdenoise import schema as v
from edxdenoise.blocks import compute, masked_sums
from edxdenoise.components.nmf import is_nmf
from edxdenoise.cube import kept_maps
from edxdenoise.errors import ParameterError
from edxdenoise.quantification.estimators import sums_counts
from edxdenoise.thinning import thin


def area_regions(ds: xr.Dataset) -> dict[str, np.ndarray]:
    """Masks (y, x) of the whole map and, where several were stacked, of each area by its name."""
    shape = (ds.sizes[v.DIM_Y], ds.sizes[v.DIM_X])
    regions = {"all": np.ones(shape, bool)}
    if v.COORD_AREA in ds.coords:
        numbers = ds[v.COORD_AREA].values
        names = ds[v.COORD_AREA].attrs.get("area_label", [])
        several = np.unique(numbers)
        for number in several if several.size > 1 else ():
            name = names[number - 1] if number <= len(names) else f"area {number}"
            regions[name] = np.broadcast_to((numbers == number)[:, np.newaxis], shape)
    return regions


def sum_regions(
    ds: xr.Dataset,
    regions: Mapping[str, np.ndarray] | None = None,
    *,
    phases: Phases | None = None,
    profiles: Mapping[str, tuple[float, np.ndarray]] | None = None,
) -> xr.Dataset:
    """Sum the counts of the whole map, its areas, phases, other regions and profiles.

    Parameters
    ----------
    ds : Dataset
        With ``counts``, or with the components that stand for them.
    regions : mapping of str to array of bool, shape (y, x)
        A user's regions, by name. They may overlap.
    phases : Phases, optional
        Their spectra are of the half of the counts that did not find them.
    profiles : mapping of str to (float, array of bool), optional
        Distance along the profile, and mask, of each of its steps.

    Returns
    -------
    Dataset
        `ds` with ``region_mask`` and ``region_spectrum``. Coordinates of ``region`` are its kind
        (``map``, ``area``, ``region``, ``phase`` or ``profile``), the share of the counts that the
        spectrum holds, and the distance along a profile. The spectra are lazy where the counts are.

    Raises
    ------
    ParameterError
        If a region has the name of another one.
    """
    steps = profiles or {}
    parts = [
        ("area", area_regions(ds)),
        ("region", dict(regions or {})),
        ("phase", {} if phases is None else phases.masks),
        ("profile", {name: mask for name, (_, mask) in steps.items()}),
    ]
    kinds: dict[str, str] = {}
    masks: dict[str, np.ndarray] = {}
    for kind, part in parts:
        for name, mask in part.items():
            if name in masks:
                raise ParameterError(f"region '{name}' is there twice; give it another name")
            kinds[name], masks[name] = kind, mask
    kinds["all"] = "map"
    stacked = np.stack(list(masks.values()))
    of_phases = np.array([kind == "phase" for kind in kinds.values()])
    fixed = _spectra(ds, stacked[~of_phases])
    if phases is not None:
        array = da if isinstance(fixed, da.Array) else np
        held_out = _spectra(phases.held_out, stacked[of_phases])
        # Phases stand before profiles.
        before = int(np.argmax(of_phases))
        fixed = array.concatenate([fixed[:before], held_out, fixed[before:]])
    distances = [steps[name][0] if name in steps else np.nan for name in masks]
    result = ds.drop_dims(v.DIM_REGION, errors="ignore").assign_coords(
        {
            v.DIM_REGION: list(masks),
            v.COORD_REGION_KIND: (v.DIM_REGION, list(kinds.values())),
            v.COORD_REGION_SHARE: (v.DIM_REGION, np.where(of_phases, 0.5, 1.0)),
            v.COORD_REGION_DISTANCE: (v.DIM_REGION, distances, {"units": str(_spatial_units(ds))}),
        }
    )
    return result.assign(
        {
            v.REGION_MASK: v.REGION_MASK.array(stacked.astype(np.int8)),
            v.REGION_SPECTRUM: v.REGION_SPECTRUM.array(fixed),
        }
    )


def _spatial_units(ds: xr.Dataset) -> str:
    return str(ds[v.DIM_X].attrs.get("units", "pixel")) if v.DIM_X in ds.coords else "pixel"


def _spectra(ds: xr.Dataset, masks: np.ndarray) -> np.ndarray | da.Array:
    """Sum spectra, shape (region, energy), of raw counts or else of what the model expects."""
    if v.COUNTS not in ds:
        h = ds[v.WEIGHT_ENERGY].values
        kept = np.flatnonzero(ds[v.COMPONENT_KEEP].values)
        g, maps = ds[v.WEIGHT_PIXEL].values, kept_maps(ds).values
        inside = masks.astype(np.float64) * g
        amounts = np.einsum("ryx,kyx->rk", inside, maps, optimize=True)
        spectra = amounts @ ds[v.COMPONENT_SPECTRUM].values[kept]
        spectra += inside.sum(axis=(1, 2))[:, np.newaxis] * ds[v.MEAN_SPECTRUM].values
        return np.maximum(spectra * h, 0)
    return masked_sums(ds[v.COUNTS].data, masks)


# K-means looks at no more pixels than these: enough for centres, whatever the map.
_SAMPLE = 20_000
_MOST_PHASES = 8
# Steps of k-means: its centres need not have converged, since the groups only have to differ.
_STEPS = 30
# Counts that a pixel and its neighbours should hold together, and the widest Gaussian for it.
_COUNTS_WANTED = 200.0
_WIDEST = 4.0
# Standard deviations of a pixel's noise by which the centres of two groups differ at least.
_APART = 4.0


@dataclass(frozen=True)
class Phases:
    """Groups of similar pixels, and the counts that had no part in finding them.

    Parameters
    ----------
    masks : dict of str to array of bool, shape (y, x)
        By name.
    held_out : Dataset
        With the second half of the counts.
    """

    masks: dict[str, np.ndarray]
    held_out: xr.Dataset


def can_split(ds: xr.Dataset) -> bool:
    """Whether the counts are whole numbers, which binomial thinning needs."""
    return v.COUNTS in ds and ds[v.COUNTS].dtype.kind == "u"


def find_phases(ds: xr.Dataset, *, seed: int = 0) -> Phases:
    """Phases of a denoised map: k-means clusters, or what each NMF component dominates.

    Parameters
    ----------
    ds : Dataset
        Denoised, with its whole ``counts``.
    seed : int
        Of the thinning and of k-means.

    Returns
    -------
    Phases
        The clusters are as many as there are kept components, from 2 to 8, less those that noise
        does not tell apart, the largest first. One pass over the counts is computed.
    """
    first, second = thin(ds, seed=seed)
    (values,) = compute(pixel_features(ds, first).data)
    if is_nmf(ds):
        labels, names = _dominant(ds, values), _component_names(ds)
    else:
        kept = int((ds[v.COMPONENT_KEEP].values == 1).sum())
        labels = similar_pixels(values, min(max(kept, 2), _MOST_PHASES), seed=seed)
        names = [f"phase {i + 1}" for i in range(labels.max() + 1)]
    masks = {name: labels == i for i, name in enumerate(names)}
    return Phases({name: mask for name, mask in masks.items() if mask.any()}, second)


def pixel_features(model: xr.Dataset, ds: xr.Dataset) -> xr.DataArray:
    """Sums of counts that tell pixels apart, dims (y, x, row); lazy where the counts are.

    Parameters
    ----------
    model : Dataset
        With component spectra and weights.
    ds : Dataset
        With the ``counts`` to sum.

    Returns
    -------
    DataArray
        For each kept component its score times the pixel weight; then the sum of the variances of
        these, and the total.
    """
    kept = model[v.COMPONENT_KEEP].values == 1
    spectra, h = model[v.COMPONENT_SPECTRUM].values, model[v.WEIGHT_ENERGY].values
    # Least squares: principal components are orthonormal, the spectra of NMF are not.
    dual = np.linalg.pinv(spectra).T if is_nmf(model) else spectra
    rows = dual[kept] / h
    rows = np.vstack([rows, (rows**2).sum(axis=0), np.ones(h.size)])
    return sums_counts(ds, rows).transpose(v.DIM_Y, v.DIM_X, "row")


def similar_pixels(features: np.ndarray, count: int, *, seed: int) -> np.ndarray:
    """Number of the group of each pixel, from 0, the largest group first.

    Parameters
    ----------
    features : array, shape (y, x, row)
        From `pixel_features`.
    count : int
        Groups, before those that noise does not tell apart are merged.
    seed : int

    Returns
    -------
    array of int, shape (y, x)
    """
    from sklearn.cluster import AgglomerativeClustering, KMeans
    from sklearn.exceptions import ConvergenceWarning

    shape = features.shape[:2]
    width = _width(features[..., -1].mean())
    if width:
        features = gaussian_filter(features, (width, width, 0))
    *parts, variance, total = np.moveaxis(features, -1, 0).reshape(features.shape[-1], -1)
    known = np.maximum(total, np.finfo(np.float32).tiny)
    shares = np.stack(parts, axis=-1) / known[:, np.newaxis]
    sample = np.random.default_rng(seed).permutation(len(shares))[:_SAMPLE]
    # Noise has a variance inverse to the total: empty pixels must not make groups.
    weights = np.maximum(total, 0)
    means = KMeans(min(count, len(sample)), n_init=3, max_iter=_STEPS, random_state=seed)
    with warnings.catch_warnings():
        # Where the total alone is kept, pixels differ by rounding only.
        warnings.simplefilter("ignore", ConvergenceWarning)
        means.fit(shares[sample], sample_weight=weights[sample] + np.finfo(np.float32).tiny)
    labels = means.predict(shares)
    if means.n_clusters > 1:
        # The noise is the same in all directions of the weighted space.
        noise = np.sqrt(np.average(variance / known**2, weights=weights + 1e-9) / len(parts))
        # An average over neighbours has less of it.
        noise /= max(np.sqrt(4 * np.pi) * width, 1)
        merged = AgglomerativeClustering(
            n_clusters=None, distance_threshold=_APART * noise, linkage="average"
        )
        labels = merged.fit_predict(means.cluster_centers_)[labels]
    numbers, sizes = np.unique(labels, return_counts=True)
    order = np.empty(labels.max() + 1, int)
    order[numbers[np.argsort(-sizes, kind="stable")]] = np.arange(len(numbers))
    return order[labels].reshape(shape)


def _width(counts: float) -> float:
    """Standard deviation of the Gaussian over which pixels of so many counts are averaged.

    Examples
    --------
    >>> _width(500.0), round(_width(10.0), 2)
    (0.0, 1.26)
    """
    width = np.sqrt(_COUNTS_WANTED / (4 * np.pi * max(counts, 1e-9)))
    return float(min(width, _WIDEST)) if width > 0.5 else 0.0


def _dominant(ds: xr.Dataset, features: np.ndarray) -> np.ndarray:
    """The NMF component that has most of the counts of each pixel, shape (y, x)."""
    kept = ds[v.COMPONENT_KEEP].values == 1
    width = _width(features[..., -1].mean())
    amounts = gaussian_filter(features[..., :-2], (width, width, 0))
    counts = (ds[v.COMPONENT_SPECTRUM].values * ds[v.WEIGHT_ENERGY].values).sum(axis=1)
    return np.argmax(amounts * counts[kept], axis=-1)


def _component_names(ds: xr.Dataset) -> list[str]:
    kept = ds.isel({v.DIM_COMPONENT: np.flatnonzero(ds[v.COMPONENT_KEEP].values)})
    names = kept.coords.get(v.COORD_COMPONENT_NAME)
    numbers = [f"phase {number}" for number in kept[v.DIM_COMPONENT].values]
    if names is None:
        return numbers
    return [f"{number} ({name})" for number, name in zip(numbers, names.values)]
