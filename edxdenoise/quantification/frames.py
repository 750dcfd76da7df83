"""Counts of a map frame by frame: what the beam does to the specimen, and how steady it is."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from edxdenoise.quantification.lines import LineSpec
from edxdenoise.quantification.windows import integration_window


def frame_table(
    counts: np.ndarray, energy: np.ndarray, lines: Iterable[str], resolution: float
) -> pd.DataFrame:
    """Tabulate all counts of every frame, and those in the windows of lines.

    Parameters
    ----------
    counts : array, shape (frame, energy)
    energy : array, shape (energy,)
        In keV.
    lines : iterable of str
        Siegbahn names.
    resolution : float
        FWHM at Mn K alpha in eV.

    Returns
    -------
    pandas.DataFrame
        A row per frame; ``counts``, then one column per line: gross counts within one FWHM, the
        background included. Each is Poisson distributed, with its root as standard deviation.
    """
    columns = {"counts": counts.sum(axis=1)}
    for name in lines:
        low, high = integration_window(name, LineSpec(), resolution)
        columns[name] = counts[:, (energy >= low) & (energy <= high)].sum(axis=1)
    return pd.DataFrame(columns).rename_axis("frame")


def frame_change(counts: np.ndarray) -> tuple[float, float]:
    """Change from the first frame to the last by a straight line, over the mean, and its stddev.

    Parameters
    ----------
    counts : array, shape (frame,)
        Poisson counts.

    Examples
    --------
    >>> [round(float(each), 3) for each in frame_change(np.array([1100, 1000, 900]))]
    [-0.2, 0.045]
    """
    place = np.linspace(-0.5, 0.5, len(counts)) if len(counts) > 1 else np.zeros(1)
    square = (place**2).sum()
    if not square or not counts.any():
        return np.nan, np.nan
    mean = counts.mean()
    return place @ counts / square / mean, np.sqrt(place**2 @ counts) / square / mean
