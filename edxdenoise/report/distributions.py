"""Distributions of values over the pixels of areas, and comparison of groups of areas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from edxdenoise.quantification.region_table import group_of
from edxdenoise.report.style import BLUE, GREEN, ORANGE, SMALL, VERMILION
from edxdenoise.report.text import region_words, with_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINES = (BLUE, VERMILION, GREEN, ORANGE, "#CC79A7", "#56B4E9")
# Distributions are drawn between these percentiles.
_TAILS = (0.1, 99.9)


def distribution(values: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Share in % of the finite values in each bin of `width`, bins starting at multiples of it.

    Returns
    -------
    edges : array, shape (bin + 1,)
    share : array, shape (bin,)

    Examples
    --------
    >>> distribution(np.array([0.01, 0.02, 0.07, np.nan]), 0.05)[1].round(1)
    array([66.7, 33.3])
    """
    finite = values[np.isfinite(values)].astype(float)
    if not finite.size:
        return np.array([0.0, width]), np.zeros(1)
    # In bins, with a little room for what rounding does to a value on an edge.
    place = np.floor(finite / width + 1e-6).astype(int)
    first = place.min()
    share = 100 * np.bincount(place - first) / finite.size
    return width * (first + np.arange(len(share) + 1)), share


def draw_distributions(
    axes: Axes,
    image: np.ndarray,
    regions: Mapping[str, np.ndarray],
    width: float,
    values: Mapping[str, str],
) -> None:
    """Distributions of a map, bold for each group of areas and thin for each area.

    Parameters
    ----------
    axes : Axes
    image : array, shape (y, x)
        NaN where a pixel does not count.
    regions : mapping of str to array of bool, shape (y, x)
        The whole as ``all``, and areas where there are any.
    width : float
        Of a bin.
    values : mapping of str to str
        What to say of each group.
    """
    groups: dict[str, list[str]] = {}
    for name in [name for name in regions if name != "all"] or ["all"]:
        groups.setdefault(group_of(name), []).append(name)
    for number, (group, names) in enumerate(groups.items()):
        colour = _LINES[number % len(_LINES)]
        together = image[np.any([regions[name] for name in names], axis=0)]
        label = f"{group}: {values[group]}"
        edges, share = distribution(together, width)
        axes.stairs(share, edges, color=colour, linewidth=1.0, label=label)
        for name in names if len(names) > 1 else []:
            edges, share = distribution(image[regions[name]], width)
            axes.stairs(share, edges, color=colour, linewidth=0.4, alpha=0.7)
    finite = image[np.isfinite(image)]
    low, high = np.percentile(finite, _TAILS) if finite.size else (0.0, 1.0)
    axes.set_xlim(low - width, max(high, low) + width)
    axes.set_ylim(0, 1.35 * max(axes.get_ylim()[1], 1e-9) / 1.05)
    axes.legend(loc="upper right", fontsize=SMALL, handlelength=1.2, borderaxespad=0.1)


def group_values(table: pd.DataFrame, quantity: str) -> dict[str, str]:
    """Mean over the areas of each group, with its counting error."""
    rows = table[(table["quantity"] == quantity) & table["kind"].isin(["map", "area"])].copy()
    rows["group"] = [group_of(name) for name in rows["region"]]
    words = {}
    for group, part in rows.groupby("group", sort=False):
        stddev = np.sqrt((part["stddev_counting"] ** 2).sum()) / len(part)
        value = part["value"].mean(skipna=False)
        words[str(group)] = region_words(
            {"value": value, "stddev": stddev, "limit": part["limit"].max()}
        )
    return words


def comparison(groups: pd.DataFrame, quantity: str) -> str:
    if groups.empty:
        return ""
    row = groups[groups["quantity"] == quantity].iloc[0]
    text = f"{row['groups'].replace(' - ', ' − ')}: "
    text += f"{with_error(row['difference'], row['stddev'])}, z {row['z']:.3g}"
    if np.isfinite(row["p_areas"]):
        text += f", p {row['p_areas']:.2g}"
    return text.replace("-", "−")
