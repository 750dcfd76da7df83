"""What is known of X-rays and detectors: line energies, how bright they are, how wide they look."""

from edxdenoise.xray.detector import Detector, channel_response, efficiency, fwhm
from edxdenoise.xray.element import DEFAULT_BEAM_ENERGY, element_spectrum
from edxdenoise.xray.lines import (
    SYMBOLS,
    Line,
    atomic_number,
    atomic_weight,
    element_lines,
    emission,
    line_energy,
)

__all__ = [
    "DEFAULT_BEAM_ENERGY",
    "Detector",
    "Line",
    "SYMBOLS",
    "atomic_number",
    "atomic_weight",
    "channel_response",
    "efficiency",
    "element_lines",
    "element_spectrum",
    "emission",
    "fwhm",
    "line_energy",
]
