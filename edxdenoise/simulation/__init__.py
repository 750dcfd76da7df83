"""Spectrum images with known truth: X-ray spectra, phantoms, Poisson counts."""

from edxdenoise.simulation.detector import channel_response, fwhm
from edxdenoise.simulation.lines import Line, element_lines, emission, line_energy
from edxdenoise.simulation.phantom import simulate
from edxdenoise.simulation.presets import PRESETS
from edxdenoise.simulation.truth import (
    EXPECTED_COUNTS,
    PHASE_MAP,
    PHASE_SPECTRUM,
    STRAY_PHASE,
    TRUE_ATOMIC_PERCENT,
    TRUE_WEIGHT_PERCENT,
)

__all__ = [
    "EXPECTED_COUNTS",
    "PHASE_MAP",
    "PHASE_SPECTRUM",
    "PRESETS",
    "STRAY_PHASE",
    "TRUE_ATOMIC_PERCENT",
    "TRUE_WEIGHT_PERCENT",
    "Line",
    "channel_response",
    "element_lines",
    "emission",
    "fwhm",
    "line_energy",
    "simulate",
]
