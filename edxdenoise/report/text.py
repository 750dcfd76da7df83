"""Numbers and decisions in words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.components.nmf import is_nmf
from edxdenoise.components.selection import component_name, kept_numbers, uncertain_numbers
from edxdenoise.cube import channel_width, is_poisson_weighted, measured_pixels, pixel_counts
from edxdenoise.errors import texts_of
from edxdenoise.validation.holdout import FITTED, fitted_words

_LONGEST_LIST = 48
_SELECTORS = {
    "cnn": "selected by the neural network",
    "spatial": "selected by the spatial statistic",
    "split": "found again in held-out counts",
    "edge": "above the noise edge",
    "elbow": "before the elbow",
    "second-elbow": "before the second elbow",
    "all": "all, as asked for",
}

# Channels (keV) in which elements with lines below 2 keV are no longer found: of a dacite at 122
# counts per pixel all are in 40 eV, O is lost in 50 eV, Si, Al and Na too in 80 eV.
_WIDEST = 0.045


def keeps_totals(ds: xr.Dataset) -> bool:
    """Whether the kept components hold every pixel and channel total, whatever the counts are.

    The first principal component of Poisson-weighted counts does: it is the product of both
    totals.
    """
    smoothed = v.TOTAL_STDDEV in ds
    return is_poisson_weighted(ds) and not smoothed and not is_nmf(ds) and 1 in kept_numbers(ds)


def component_list(numbers: np.ndarray) -> str:
    """Numbers as people write them.

    Examples
    --------
    >>> component_list(np.array([1, 2, 3, 4, 8, 10]))
    '1-4, 8, 10'
    """
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1) if len(numbers) else []
    words = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    text = ", ".join(words) or "none"
    if len(text) > _LONGEST_LIST:
        text = text[:_LONGEST_LIST].rsplit(",", 1)[0] + f" … {words[-1]}"
    return text


def joined(words: list[str]) -> str:
    """Words in a row.

    Examples
    --------
    >>> joined(["a", "b", "c"]), joined(["a"])
    ('a, b and c', 'a')
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def decision(ds: xr.Dataset) -> str:
    """Return the sentences on which components were kept and why.

    Examples
    --------
    ``"7 of 100 components kept (found again in held-out counts): 1-4, 8, 10, 16"``
    """
    kept = kept_numbers(ds)
    lines = re.findall(r"^select (keep|selector)=(\S+)", str(ds.attrs.get("history", "")), re.M)
    how = ""
    if lines:
        kind, name = lines[-1]
        reason = "chosen by hand" if kind == "keep" else _SELECTORS.get(name, name)
        how = f" ({reason})"
    return (
        f"{len(kept)} of {ds.sizes[v.DIM_COMPONENT]} components kept{how}: {component_list(kept)}"
    )


def borderline_words(ds: xr.Dataset, most: int | None = None) -> str:
    """Return the components that need a person's eye, and whether they are kept, or ``""``.

    Examples
    --------
    ``"26, 56 (kept); 60-62 (dropped)"``
    """
    unsure = uncertain_numbers(ds)
    kept = np.isin(unsure, kept_numbers(ds))
    shown = unsure[: most or len(unsure)]
    words = [
        f"{component_list(part)} ({fate})"
        for fate, part in (
            ("kept", shown[kept[: len(shown)]]),
            ("dropped", shown[~kept[: len(shown)]]),
        )
        if len(part)
    ]
    left = len(unsure) - len(shown)
    return "; ".join(words) + (f" and {left} more" if left else "")


def verdict(ds: xr.Dataset, number: int) -> str:
    """One component's fate, probability and share of the variance."""
    component = ds.sel({v.DIM_COMPONENT: number})
    kept = bool(component[v.COMPONENT_KEEP] == 1)
    probability = float(component[v.COMPONENT_SIGNAL_PROBABILITY])
    words = ["kept" if kept else "dropped"]
    name = component_name(ds, number)
    if name is not None:
        words.insert(0, name)
    if number in uncertain_numbers(ds):
        words.append("UNCERTAIN")
    if kept and number == 1 and probability < 0.5:
        # A map without contrast; no selector drops it all the same.
        words = ["kept since it carries all totals"]
    if np.isfinite(probability):
        words.append(f"signal probability {probability:.2f}")
    if v.COMPONENT_EFFECT_SIZE in ds:
        statistic = float(component[v.COMPONENT_SPATIAL_STATISTIC])
        effect = float(component[v.COMPONENT_EFFECT_SIZE])
        words.append(f"spatial statistic {number_words(statistic)}, effect size {effect:.2f}")
    if v.COMPONENT_NEIGHBOUR in ds and bool(component[v.COMPONENT_NEIGHBOUR] == 1):
        words.append("found by neighbours")
    if v.COMPONENT_SIGNAL_KEPT in ds and kept and number > 1:
        share = float(component[v.COMPONENT_SIGNAL_KEPT])
        if np.isfinite(share):
            by = "smoothing" if v.TOTAL_STDDEV in ds else "its weight"
            words.append(f"{100 * share:.0f} % of its signal left by {by}")
    words.append(f"{100 * float(component[v.COMPONENT_VARIANCE_RATIO]):.2g} % of the variance")
    return ", ".join(words)


def smoothing_words(ds: xr.Dataset) -> str:
    """Return the sentences on smoothing; none where nothing was smoothed."""
    return "Smoothing applied to spectra and totals" if v.TOTAL_STDDEV in ds else ""


def remaining_error(ds: xr.Dataset) -> str:
    """Return the squared error that held-out counts show, in % of that of raw counts, or ``""``."""
    if v.HELD_OUT_ERROR not in ds:
        return ""
    return percent_words(*(100 * ds[v.HELD_OUT_ERROR].values.astype(float)))


def fitted_text(ds: xr.Dataset) -> str:
    """Return what was fitted for the held-out error; files of earlier versions do not say it."""
    return str(ds[v.HELD_OUT_ERROR].attrs.get(FITTED, fitted_words()))


def percent_words(error: float, stddev: float) -> str:
    """A squared error in %, or what it is below where it is no more than its own error.

    Examples
    --------
    >>> percent_words(0.9, 0.2), percent_words(-0.03, 0.09)
    ('0.9 ± 0.2 %', '< 0.18 %')
    """
    if error < stddev:
        return f"< {max(error, 0) + 2 * stddev:.2g} %"
    return f"{with_error(error, stddev)} %"


def facts(ds: xr.Dataset, elements: Sequence[str] = ()) -> dict[str, tuple[str, str]]:
    """What a result is, at a glance: a number by label, and what it stands for where there is more.

    Parameters
    ----------
    ds : Dataset
        Denoised, quantified or as opened; no pass over the counts is made.
    elements : sequence of str
        Those found, where they are known.
    """
    found = {"pixels": (" x ".join(str(ds.sizes.get(dim, 0)) for dim in (v.DIM_Y, v.DIM_X)), "")}
    if v.DIM_ENERGY in ds.dims:
        found["channels"] = (str(ds.sizes[v.DIM_ENERGY]), "")
    if v.WEIGHT_ENERGY in ds or v.PIXEL_COUNTS in ds:
        mean = pixel_counts(ds).sum() / measured_pixels(ds).sum()
        found["counts per pixel"] = (number_words(mean), "")
    if v.COMPONENT_KEEP in ds:
        kept = kept_numbers(ds)
        found["components kept"] = (
            f"{len(kept)} of {ds.sizes[v.DIM_COMPONENT]}",
            component_list(kept),
        )
    if error := remaining_error(ds):
        by = fitted_text(ds)
        with_frames = f" with {by}" if "frames" in by else ""
        found["remaining error"] = (
            error,
            f"cross-validated{with_frames}, in % of that of raw counts",
        )
    if elements:
        listed = " ".join(elements)
        width = channel_width(ds[v.DIM_ENERGY].values)
        if width > _WIDEST:
            listed += f"; soft lines are missed in channels of {1000 * width:.0f} eV"
        found["elements found"] = (str(len(elements)), listed)
    if v.ATOMIC_PERCENT in ds:
        names = ds[v.DIM_ELEMENT].values
        found["elements quantified"] = (str(len(names)), " ".join(map(str, names)))
    return found


def warning_lines(ds: xr.Dataset, *, most: int | None = None) -> list[str]:
    """Return the warnings of `ds` and its notes, or the first of the warnings alone, as printed."""
    lines = [f"Warning: {text}" for text in texts_of(ds.attrs, "warnings")]
    if most is not None:
        return lines[:most]
    notes = [*texts_of(ds.attrs, v.IMAGE_GAIN), *texts_of(ds.attrs, "notes")]
    return lines + [f"Note: {text}" for text in notes]


def number_words(value: float) -> str:
    """A number of counts for people.

    Examples
    --------
    >>> number_words(165006244.0), number_words(999.6), number_words(11.9), number_words(0.031)
    ('165 million', '1,000', '11.9', '0.031')
    """
    if value >= 1e6:
        return f"{value / 1e6:,.3g} million" if value < 1e9 else f"{value / 1e9:,.3g} billion"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def with_error(value: float, stddev: float) -> str:
    """A value with as many digits as its standard deviation of one or two digits allows.

    Examples
    --------
    >>> with_error(9.1234, 0.0345), with_error(61.7, 2.4), with_error(3.2, np.nan)
    ('9.12 ± 0.03', '62 ± 2', '3.2')
    """
    if not np.isfinite(stddev) or stddev <= 0:
        return f"{value:.3g}".replace("-", "−")
    digits = max(0, -int(np.floor(np.log10(stddev))))
    return f"{value:.{digits}f} ± {stddev:.{digits}f}".replace("-", "−")


def region_words(row: Mapping[str, Any]) -> str:
    """Value of a row of `region_table` with its error, or the limit of what was not detected.

    Examples
    --------
    >>> region_words({"value": np.nan, "stddev": np.nan, "limit": 0.0123})
    '< 0.012 (3 σ)'
    """
    if np.isfinite(row["value"]):
        return with_error(row["value"], row["stddev"])
    return f"< {row['limit']:.2g} (3 σ)" if np.isfinite(row["limit"]) else "–"
