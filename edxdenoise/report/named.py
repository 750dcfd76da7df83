"""Maps of a Dataset by the names that people say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.blocks import load
from edxdenoise.cube import sum_spectrum
from edxdenoise.errors import ParameterError
from edxdenoise.quantification.estimators import sums_counts, sums_denoised
from edxdenoise.report.findings import element_weights
from edxdenoise.report.frame import Colours, grey_range, net_range, value_range, well_known
from edxdenoise.xray import find_elements, line_label, with_local_elements
from edxdenoise.xray.families import element_of

# Quantities, their standard deviations, the dimension of the names and the unit.
_QUANTITIES = (
    (v.ATOMIC_PERCENT, v.ATOMIC_PERCENT_STDDEV, v.DIM_ELEMENT, "at%"),
    (v.RATIO, v.RATIO_STDDEV, v.DIM_RATIO, ""),
    (v.LINE_INTENSITY, v.LINE_INTENSITY_STDDEV, v.DIM_LINE, "net counts"),
)


@dataclass(frozen=True)
class NamedMap:
    """A map with all that it is drawn with.

    Parameters
    ----------
    caption, unit : str
    image : array, shape (y, x)
    colours : Colours
    """

    caption: str
    unit: str
    image: np.ndarray
    colours: Colours


def named_map(ds: xr.Dataset, name: str, *, stddev: bool = False) -> NamedMap:
    """Return the map that has a name.

    Parameters
    ----------
    ds : Dataset
    name : str
        An element (at% where they are known, else net counts of its line), a ratio, a line or an
        image recorded with the counts.
    stddev : bool
        Of the quantity its standard deviation.

    Raises
    ------
    ParameterError
        If there is none; the message lists those that there are.
    """
    known: list[str] = []
    for value_spec, stddev_spec, dim, unit in _QUANTITIES:
        names = [str(each) for each in ds[dim].values] if value_spec in ds else []
        known += names
        # An element without a k-factor has its line alone.
        places = [n for n, each in enumerate(names) if name in (each, _element(dim, each))]
        if places:
            value, error = (
                ds[spec].isel({dim: places[0]}).values for spec in (value_spec, stddev_spec)
            )
            pixels = well_known(value, error, np.isfinite(value))
            caption = line_label(names[places[0]]) if dim == v.DIM_LINE else name
            if stddev:
                colours = value_range(error, pixels, unit or name, error=True)
                return NamedMap(f"{caption}, standard deviation", unit or name, error, colours)
            colours = value_range(value, pixels, unit or name, stddev=error)
            return NamedMap(caption, unit or name, value, colours)
    others: list[str] = []
    if v.IMAGE in ds:
        others = [str(each) for each in ds[v.DIM_DETECTOR].values]
        if name in others and not stddev:
            image = ds[v.IMAGE].isel({v.DIM_DETECTOR: others.index(name)}).values
            return NamedMap(name, "", image, grey_range(image))
    if v.COUNTS in ds or v.COMPONENT_KEEP in ds:
        ds = with_local_elements(ds)
        table = find_elements(ds)
        others += [str(element) for element in table["element"] if element not in known]
        if name in others and not stddev:
            row = [str(element) for element in table["element"]].index(name)
            image, noise = _net_counts(ds, element_weights(ds, table).estimators[row])
            caption = line_label(str(table["line"].iloc[row]))
            return NamedMap(caption, "net counts", image, net_range(image, noise))
    if stddev and name in others:
        raise ParameterError(f"map '{name}' has no standard deviation; quantify first")
    raise ParameterError(
        f"there is no map '{name}'; there are {', '.join(known + others) or 'none: quantify first'}"
    )


def _element(dim: str, name: str) -> str:
    return element_of(name) if dim == v.DIM_LINE else name


def kept_components(ds: xr.Dataset) -> xr.Dataset:
    """Return the kept components, computed, without counts."""
    keep = np.flatnonzero(ds[v.COMPONENT_KEEP].values == 1)
    cubes = [v.COUNTS, v.COUNTS_DENOISED]
    return load(ds.drop_vars(cubes, errors="ignore").isel({v.DIM_COMPONENT: keep}))


def _net_counts(ds: xr.Dataset, estimator: np.ndarray) -> tuple[np.ndarray, float]:
    """Net counts of a line, denoised where components are, and counting noise of a raw pixel."""
    rows = estimator[np.newaxis]
    if v.COMPONENT_KEEP in ds:
        sums = sums_denoised(kept_components(ds), rows)
    else:
        sums = load(sums_counts(ds, rows).to_dataset(name="sums"))["sums"]
    pixels = ds.sizes[v.DIM_Y] * ds.sizes[v.DIM_X]
    noise = float(np.sqrt(estimator**2 @ sum_spectrum(ds) / pixels))
    return sums.transpose("row", v.DIM_Y, v.DIM_X).values[0].astype(np.float32), noise
