"""From counts to net line intensities, compositions and ratios, with an error beside each."""

from edxdenoise.quantification.bias import bias_table, check_bias
from edxdenoise.quantification.calibration import check_calibration
from edxdenoise.quantification.composition import (
    check_composition,
    cliff_lorimer,
    fractions,
    mask_vacuum,
    parse_ratio,
    ratio,
)
from edxdenoise.quantification.frames import frame_change, frame_table
from edxdenoise.quantification.intensity import line_intensity
from edxdenoise.quantification.lines import (
    LineSpec,
    check_k_factors,
    check_lines,
    check_reach,
    quantified_lines,
)
from edxdenoise.quantification.region_table import compare_groups, misfit, region_table
from edxdenoise.quantification.regions import (
    area_regions,
    can_split,
    find_phases,
    sum_regions,
)
from edxdenoise.quantification.response import measure_response
from edxdenoise.quantification.windows import background_windows
from edxdenoise.xray.families import element_of

__all__ = [
    "LineSpec",
    "area_regions",
    "background_windows",
    "bias_table",
    "can_split",
    "check_bias",
    "check_calibration",
    "check_composition",
    "check_k_factors",
    "check_lines",
    "check_reach",
    "cliff_lorimer",
    "compare_groups",
    "element_of",
    "find_phases",
    "fractions",
    "frame_change",
    "frame_table",
    "line_intensity",
    "mask_vacuum",
    "misfit",
    "measure_response",
    "parse_ratio",
    "quantified_lines",
    "ratio",
    "region_table",
    "sum_regions",
]
