"""X-ray lines and detectors: energies, intensities and widths of lines."""

from edxdenoise.xray.detector import Detector, channel_response, efficiency, fwhm
from edxdenoise.xray.families import DEFAULT_BEAM_ENERGY, element_spectrum
from edxdenoise.xray.identification import (
    Identification,
    find_elements,
    identified,
    identify,
    present_elements,
    with_local_elements,
)
from edxdenoise.xray.labels import line_label, name_peaks
from edxdenoise.xray.lines import (
    SYMBOLS,
    atomic_number,
    atomic_weight,
    counted_lines,
    element_lines,
    emission,
    line_energy,
)
from edxdenoise.xray.peaks import Peak, component_peaks, find_peaks

__all__ = [
    "DEFAULT_BEAM_ENERGY",
    "Detector",
    "Identification",
    "Peak",
    "SYMBOLS",
    "atomic_number",
    "atomic_weight",
    "channel_response",
    "component_peaks",
    "counted_lines",
    "efficiency",
    "element_lines",
    "element_spectrum",
    "emission",
    "find_elements",
    "find_peaks",
    "fwhm",
    "identified",
    "identify",
    "name_peaks",
    "line_energy",
    "line_label",
    "present_elements",
    "with_local_elements",
]
