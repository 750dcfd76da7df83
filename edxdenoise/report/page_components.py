"""Cards of the components on the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.cube import detector_resolution
from edxdenoise.report.findings import Findings, shown_components
from edxdenoise.report.frame import colour_range
from edxdenoise.report.maps import last_energy
from edxdenoise.report.page_maps import binned, picture_data
from edxdenoise.report.sums import unweighted_spectra
from edxdenoise.report.text import borderline_words, decision, verdict
from edxdenoise.xray import component_peaks, identified, name_peaks

# Bytes of all pictures of components, before they are coded as text.
_PICTURE_BYTES = 2_000_000


def component_cards(found: Findings) -> dict[str, Any]:
    """Kept components, all of them; borderline ones; and the first of those dropped."""
    ds = found.ds
    if found.components is None:
        return {}
    shown = shown_components(ds)
    pixels = ds.sizes[v.DIM_Y] * ds.sizes[v.DIM_X]
    pictures = 2 * sum(map(len, shown.values()))
    factor = int(np.ceil(np.sqrt(max(pictures * pixels / _PICTURE_BYTES, 1))))
    total = ds.sizes[v.DIM_COMPONENT]
    return {
        **{
            key: [_component_card(found, int(n), factor) for n in own] for key, own in shown.items()
        },
        "decision": decision(ds),
        "unsure": borderline_words(ds),
        "more": total - pictures // 2,
        "factor": factor,
    }


def _component_card(found: Findings, number: int, factor: int) -> dict[str, Any]:
    ds = found.components
    assert ds is not None
    component = ds.sel({v.DIM_COMPONENT: [number]})
    image = component[v.COMPONENT_MAP].values[0]
    pictures = [_picture(image, factor, f"score map of component {number}", "score map")]
    if v.COMPONENT_MAP_SHRUNK in ds:
        smooth = component[v.COMPONENT_MAP_SHRUNK].values[0]
        if np.isfinite(smooth).any():
            # Of the first component smoothing moves totals, of others their share in the total.
            alt = f"score map of component {number} after smoothing"
            pictures.append(_picture(smooth, factor, alt, "after smoothing"))
    return {
        "number": number,
        "verdict": verdict(found.ds, number),
        "pictures": pictures,
        "spectrum": _component_spectrum(found, component, image),
    }


def _picture(image: np.ndarray, factor: int, alt: str, title: str) -> dict[str, str]:
    """A small map as a PNG inside the page, in the colours of its scores."""
    small = binned(image, factor)
    data = picture_data(small, colour_range(small[np.isfinite(small)]))
    return {"alt": alt, "title": title, "data": data}


def _component_spectrum(
    found: Findings, component: xr.Dataset, image: np.ndarray
) -> dict[str, Any]:
    """What a component adds to a pixel's counts, root mean square, as the path of a curve."""
    ds = found.ds
    energy = ds[v.DIM_ENERGY].values
    g = component[v.WEIGHT_PIXEL].values
    spectrum = unweighted_spectra(component)[0][0]
    spectrum = spectrum * np.sqrt(np.mean((g * image) ** 2, dtype=np.float64))
    last = last_energy(energy, found.peaks)
    shown = energy <= last
    low, high = min(float(spectrum[shown].min()), 0.0), max(float(spectrum[shown].max()), 0.0)
    high = high if high > low else low + 1.0
    width, top, bottom = 600.0, 92.0, 196.0
    across = (energy - energy[0]) / (last - energy[0]) * width
    down = bottom - (spectrum - low) / (high - low) * (bottom - top)
    zero = bottom + low / (high - low) * (bottom - top)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across[shown], down[shown]))
    peaks = component_peaks(
        energy,
        component[v.COMPONENT_SPECTRUM].values[0],
        component[v.WEIGHT_ENERGY].values,
        detector_resolution(ds),
    )
    peaks = [peak for peak in name_peaks(peaks, identified(ds)) if shown[peak.channel]][:8]
    labels: list[dict[str, Any]] = []
    for peak in peaks:
        x = float(across[peak.channel])
        if all(abs(x - other["x"]) > 20 for other in labels):
            text = peak.name or f"{peak.energy:.2f}"
            y = min(float(down[peak.channel]), zero)
            labels.append({"x": x, "y": y - 4, "text": text})
    spacing = _tick_spacing(last - energy[0])
    first = np.ceil(energy[0] / spacing) * spacing
    ticks = [
        {"x": (value - energy[0]) / (last - energy[0]) * width, "text": f"{value + 0.0:g}"}
        for value in np.arange(first, last, spacing)
    ]
    # Without names there is no room for them.
    start = 0 if labels else top - 10
    return {"points": points, "labels": labels, "ticks": ticks, "zero": zero, "start": start}


def _tick_spacing(span: float) -> float:
    return next(step for step in (0.2, 0.5, 1, 2, 5, 10, 20, 50) if span / step <= 8 or step == 50)
