"""Which pixels hold specimen at all, by their totals."""

from __future__ import annotations

import xarray as xr
from scipy.stats import poisson

from edxdenoise.cube import add_history, pixel_counts
from edxdenoise.schema import (
    ATOMIC_PERCENT,
    ATOMIC_PERCENT_STDDEV,
    RATIO,
    RATIO_STDDEV,
    WEIGHT_PERCENT,
    WEIGHT_PERCENT_STDDEV,
)

# Chance that a pixel of vacuum passes for specimen.
_FALSE_ALARM = 1e-3
_MASKED = (
    WEIGHT_PERCENT,
    WEIGHT_PERCENT_STDDEV,
    ATOMIC_PERCENT,
    ATOMIC_PERCENT_STDDEV,
    RATIO,
    RATIO_STDDEV,
)


def mask_vacuum(ds: xr.Dataset, vacuum_counts: float) -> xr.Dataset:
    """Compositions without the pixels whose total is no more than vacuum may show.

    Parameters
    ----------
    ds : Dataset
        With what `cliff_lorimer` gives, and the weights or counts.
    vacuum_counts : float
        Mean total counts of a pixel of vacuum: read it off a corner without specimen. A pixel
        stays if Poisson counts of that mean reach its total less than once in a thousand times.

    Returns
    -------
    Dataset
        With NaN in the other pixels of percents and ratios; intensities stay.
    """
    specimen = pixel_counts(ds) > poisson.isf(_FALSE_ALARM, vacuum_counts)
    masked = {
        spec.name: ds[spec.name].where(specimen).assign_attrs(ds[spec.name].attrs)
        for spec in _MASKED
        if spec.name in ds
    }
    return add_history(ds.assign(masked), f"mask_vacuum vacuum_counts={vacuum_counts:g}")
