"""Spectrum images with known truth: X-ray spectra, phantoms, Poisson counts."""

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
    "simulate",
]
