"""Windows of channels whose maps say most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.linalg import qr

from edxdenoise.cube import detector_resolution, energy_axis
from edxdenoise.report.sums import denoised_sums
from edxdenoise.schema import DIM_ENERGY
from edxdenoise.xray import Peak, fwhm

# Peaks that maps are made of and compared.
_CANDIDATES = 12
# Standard deviation over pixels, in units of counting noise, that makes a map worth showing.
_CONTRAST = 0.3


@dataclass(frozen=True)
class Window:
    """Channels that are summed to a map.

    Parameters
    ----------
    label : str
        What the map shows.
    channels : slice
    """

    label: str
    channels: slice


def choose_windows(
    ds: xr.Dataset, kept: xr.Dataset, peaks: Sequence[Peak], count: int
) -> list[Window]:
    """Return those strong peaks whose denoised maps together show most, and the weakest.

    A map's signal is its variance over pixels in units of its counting noise. The first window
    has the most; each next one the most of what those before leave unexplained (pivoted QR). The
    last is the one with the fewest counts that still has contrast: there denoising matters most.

    Parameters
    ----------
    ds : Dataset
        With the energy axis and ``detector_resolution``.
    kept : Dataset
        Components that rebuild the cube, as `denoised_sums` takes them.
    peaks : sequence of Peak
        Largest first.
    count : int
        How many at most.
    """
    offset, width = energy_axis(ds)
    windows = []
    for peak in [peak for peak in peaks if not peak.artefact][:_CANDIDATES]:
        reach = float(fwhm(peak.energy, detector_resolution(ds))) / 1000
        start = int(np.rint((peak.energy - reach - offset) / width + 0.5))
        stop = int(np.rint((peak.energy + reach - offset) / width + 0.5))
        channels = slice(max(start, 0), min(max(stop, start + 1), ds.sizes[DIM_ENERGY]))
        windows.append(Window(peak.label, channels))
    if not windows:
        return []
    maps = denoised_sums(kept, [window.channels for window in windows]).maps
    # Twice the root of a count has a noise of 1, however many there are.
    signal = 2 * np.sqrt(np.maximum(maps.reshape(len(windows), -1).T, 0))
    chosen = list(qr(signal - signal.mean(axis=0), mode="r", pivoting=True)[1][: count - 1])
    contrast = signal.std(axis=0) > _CONTRAST
    rest = [n for n in range(len(windows)) if n not in chosen and contrast[n]]
    if rest:
        chosen.append(min(rest, key=lambda n: signal[:, n].mean()))
    return [windows[number] for number in chosen]
