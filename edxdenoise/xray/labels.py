"""Labels of peaks: lines of the elements that are there, escape peaks and sum peaks.

A peak is called by a line only if the line's element was identified, which takes its main line in
proportion; hence no label names Hf L beta where there is no Hf L alpha.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edxdenoise.xray.detector import SI_KA_ENERGY, escape_fraction, fwhm
from edxdenoise.xray.identification import FoundLine, Identification
from edxdenoise.xray.peaks import Peak

_GREEK = {"a": "α", "b": "β", "g": "γ", "z": "ζ", "n": "η"}
# A line within this share of the peak's FWHM names it, as far as the centroid is known.
_NEAR = 0.3
# Several lines in one peak are named if each has this share of the counts of the largest.
_PARTNER = 0.25
# A peak may have this many times the counts expected of what names it.
_MOST_COUNTS = 4.0
# Share of all counts that arrive while another is measured, at most.
_PILE_UP = 0.05


def line_label(name: str) -> str:
    """The name of a line as it is printed.

    Examples
    --------
    >>> line_label("Pb_La"), line_label("Pb_Lb1"), line_label("Fe_Ll")
    ('Pb Lα', 'Pb Lβ1', 'Fe Ll')
    """
    element, _, line = name.partition("_")
    return f"{element} {line[0]}{_GREEK.get(line[1:2], line[1:2])}{line[2:]}"


def name_peaks(peaks: Sequence[Peak], found: Identification) -> list[Peak]:
    """Name peaks by the lines, escape peaks and sum peaks that explain them.

    Parameters
    ----------
    peaks : sequence of Peak
        From `find_peaks` or `component_peaks`.
    found : Identification
        Elements of the same map, and the scale of its axis.

    Returns
    -------
    list of Peak
        The name is empty where nothing explains a peak. Escape and sum peaks are artefacts.
    """
    lines = [line for element in found.elements for line in element.lines if line.net_counts > 0]
    return [_labelled(peak, lines, found) for peak in peaks]


def _labelled(peak: Peak, lines: Sequence[FoundLine], found: Identification) -> Peak:
    law = found.law
    width = float(fwhm(max(peak.energy, 0.1), law.resolution)) / 1000
    reach = _NEAR * width + min(2 * peak.energy_stddev, 0.2 * width)
    # Counts of every group of lines, such as L beta, from those of its lines that lie in the peak.
    within = {
        line.name: sum(
            counts for place, counts in line.parts if abs(law.place(place) - peak.energy) < reach
        )
        for line in lines
    }
    most = max(within.values(), default=0.0)
    if most > max(peak.net_counts / _MOST_COUNTS, 0):
        # Strongest first, one line of each element.
        labels: dict[str, str] = {}
        for name in sorted(within, key=lambda name: -within[name]):
            if within[name] > _PARTNER * most:
                labels.setdefault(name.partition("_")[0], line_label(name))
        return replace(peak, name=" / ".join(list(labels.values())[:2]))
    for line in lines:
        place = law.place(line.energy - SI_KA_ENERGY)
        expected = line.net_counts * float(escape_fraction(np.array([line.energy]))[0])
        if abs(place - peak.energy) < reach and expected > peak.net_counts / _MOST_COUNTS:
            return replace(peak, name=f"{line_label(line.name)} escape", artefact=True)
    total = sum(line.net_counts for line in lines)
    for number, one in enumerate(lines):
        for other in lines[number:]:
            place = law.place(one.energy + other.energy)
            most = 2 * _PILE_UP * one.net_counts * other.net_counts / max(total, 1)
            if abs(place - peak.energy) < reach and most > peak.net_counts:
                name = f"{line_label(one.name)} + {line_label(other.name)} sum"
                return replace(peak, name=name, artefact=True)
    return peak
