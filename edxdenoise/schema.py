"""The variables of a Dataset: one specification each, which documents and validates it.

Stages meet through these names only. A stage validates what it needs on entry and returns a new
Dataset with its own variables added.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from edxdenoise.errors import SchemaError

DIM_Y = "y"
DIM_X = "x"
DIM_ENERGY = "energy"
DIM_COMPONENT = "component"
DIM_LINE = "line"
DIM_ELEMENT = "element"
DIM_RATIO = "ratio"
DIM_PHASE = "phase"
DIM_DETECTOR = "detector"
DIM_REGION = "region"
DIM_GROUP = "group"
DIM_DIRECTION = "direction"
DIM_EDGE = "edge"
DIM_EVENT = "event"
# Elements of small parts of the map alone, their lines, and what lies under one peak of a line.
DIM_LOCAL_ELEMENT = "local_element"
DIM_LOCAL_LINE = "local_line"
DIM_LOCAL_PART = "local_part"
# The second line of a covariance: a dimension cannot occur twice in one array.
DIM_LINE_OTHER = "line_other"
DIM_COMPONENT_OTHER = "component_other"

COORD_AREA = "area"
COORD_COMPONENT_NAME = "component_name"
# Along components: what a person wrote on the decision about each; empty where nothing.
COORD_COMPONENT_NOTE = "component_note"
# Along lines: the k-factor by which each was quantified, its standard deviation, and whether it was
# given or estimated; NaN and "none" for lines of which only net counts are known.
COORD_K_FACTOR = "k_factor"
COORD_K_FACTOR_STDDEV = "k_factor_stddev"
COORD_K_FACTOR_ORIGIN = "k_factor_origin"
# Along local elements: the main line, and the part of the map in words; energies are in keV.
COORD_LOCAL_MAIN_LINE = "local_main_line"
COORD_LOCAL_PLACE = "local_place"
COORD_LOCAL_LINE_ENERGY = "local_line_energy"
COORD_LOCAL_PART_ENERGY = "local_part_energy"
COORD_REGION_KIND = "region_kind"
COORD_REGION_SHARE = "region_share"
COORD_REGION_DISTANCE = "region_distance"

_KINDS = {"u": "unsigned integer", "i": "signed integer", "f": "floating point"}


class Variable(str):
    """The name of a variable, which also knows its dims, kinds of number, unit and meaning.

    ``ds[v.COUNTS]`` reads the variable, ``v.COUNTS.dims`` says what shape it has.

    Parameters
    ----------
    name : str
        Name in the Dataset.
    dims : tuple of str
        Dimensions, in the order they are stored.
    kinds : str
        Allowed numpy dtype kinds, such as ``"ui"`` for whole numbers.
    units : str
        Unit as CF writes it; ``"1"`` for a pure number.
    long_name : str
        One sentence; becomes the ``long_name`` attribute.
    extra : mapping, optional
        Further attributes, such as CF's ``flag_values``.
    """

    dims: tuple[str, ...]
    kinds: str
    units: str
    long_name: str
    extra: Mapping[str, object]

    def __new__(
        cls,
        name: str,
        dims: tuple[str, ...],
        kinds: str,
        units: str,
        long_name: str,
        extra: Mapping[str, object] | None = None,
    ) -> Variable:
        self = super().__new__(cls, name)
        self.dims, self.kinds, self.units = dims, kinds, units
        self.long_name, self.extra = long_name, extra or {}
        return self

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        # Names of a Dataset that travels to another process are plain text there.
        return str, (str(self),)

    def array(self, data: object) -> xr.DataArray:
        """Put `data` (NumPy or Dask) under this name's specification, attributes included."""
        attrs = {"units": self.units, "long_name": self.long_name, **self.extra}
        return xr.DataArray(data, dims=self.dims, attrs=attrs)


_MAP = (DIM_Y, DIM_X)
_CUBE = (DIM_Y, DIM_X, DIM_ENERGY)
_COMPONENT_MAP = (DIM_COMPONENT, DIM_Y, DIM_X)

COUNTS = Variable("counts", _CUBE, "uif", "counts", "X-ray counts")
MEASURED = Variable(
    "measured",
    _MAP,
    "i",
    "1",
    "whether the pixel was measured; a pixel without counts may have been",
    {"flag_values": np.array([0, 1], np.int8), "flag_meanings": "missing measured"},
)
IMAGE = Variable(
    "image",
    (DIM_DETECTOR, DIM_Y, DIM_X),
    "uif",
    "1",
    "signals of other detectors recorded with the counts, such as HAADF or BSE",
)
EXPOSURE = Variable("exposure", _MAP, "f", "1", "relative exposure; counts are not scaled")
# Attribute of weight_pixel: "poisson" or "none".
WEIGHTING = "weighting"
WEIGHT_PIXEL = Variable(
    "weight_pixel", _MAP, "f", "1", "g: Poisson weight of a pixel, root of its total counts"
)
WEIGHT_ENERGY = Variable(
    "weight_energy",
    (DIM_ENERGY,),
    "f",
    "1",
    "h: Poisson weight of a channel, root of its total counts",
)
PIXEL_COUNTS = Variable(
    "pixel_counts", _MAP, "uif", "counts", "counts of the pixel as measured, all channels"
)
SUM_SPECTRUM = Variable(
    "sum_spectrum", (DIM_ENERGY,), "uif", "counts", "counts of the channel, all pixels"
)
MEAN_SPECTRUM = Variable(
    "mean_spectrum", (DIM_ENERGY,), "f", "1", "mean of the weighted data; 0 where uncentred"
)
COMPONENT_MAP = Variable("component_map", _COMPONENT_MAP, "f", "1", "scores in the weighted space")
COMPONENT_SPECTRUM = Variable(
    "component_spectrum",
    (DIM_COMPONENT, DIM_ENERGY),
    "f",
    "1",
    "loadings, orthonormal in the weighted space",
)
COMPONENT_VARIANCE = Variable(
    "component_variance",
    (DIM_COMPONENT,),
    "f",
    "1",
    "variance of the weighted data along the component: squared singular value per pixel",
)
COMPONENT_VARIANCE_RATIO = Variable(
    "component_variance_ratio",
    (DIM_COMPONENT,),
    "f",
    "1",
    "variance over the total variance of the weighted data",
)
COMPONENT_SIGNAL_PROBABILITY = Variable(
    "component_signal_probability",
    (DIM_COMPONENT,),
    "f",
    "1",
    "probability that the component is signal; NaN where the selector gives none",
)
COMPONENT_SPATIAL_STATISTIC = Variable(
    "component_spatial_statistic",
    (DIM_COMPONENT,),
    "f",
    "1",
    "likeness of neighbouring pixels of the score map, in standard deviations of its noise",
)
COMPONENT_EFFECT_SIZE = Variable(
    "component_effect_size",
    (DIM_COMPONENT,),
    "f",
    "1",
    "estimated correlation of the score map with the map free of noise",
)
COMPONENT_NEIGHBOUR = Variable(
    "component_neighbour",
    (DIM_COMPONENT,),
    "i",
    "1",
    "whether neighbouring pixels found the component, beyond what random signs give",
    {"flag_values": np.array([0, 1], np.int8), "flag_meanings": "pixelwise neighbours"},
)
COMPONENT_KEEP = Variable(
    "component_keep",
    (DIM_COMPONENT,),
    "i",
    "1",
    "whether the component rebuilds the cube",
    {"flag_values": np.array([0, 1], np.int8), "flag_meanings": "dropped kept"},
)
COMPONENT_MAP_SHRUNK = Variable(
    "component_map_shrunk",
    _COMPONENT_MAP,
    "f",
    "1",
    "scores after shrinkage, totals included where pixels are averaged; NaN for dropped components",
)
COMPONENT_SIGNAL_KEPT = Variable(
    "component_signal_kept",
    (DIM_COMPONENT,),
    "f",
    "1",
    "share of the signal's energy that shrinkage leaves in the component",
)
COMPONENT_MAP_SHRUNK_STDDEV = Variable(
    "component_map_shrunk_stddev",
    _COMPONENT_MAP,
    "f",
    "1",
    "standard deviation of component_map_shrunk: of the total for the first, of what it is to the "
    "total for others",
)
COMPONENT_ERROR_CORRELATION = Variable(
    "component_error_correlation",
    (DIM_COMPONENT, DIM_COMPONENT_OTHER),
    "f",
    "1",
    "correlation of the errors of component_map_shrunk, but for that of the total, in a pixel; NaN "
    "for dropped components",
)
TOTAL_STDDEV = Variable(
    "total_stddev", _MAP, "f", "counts", "standard deviation of a pixel's denoised total"
)
HELD_OUT_ERROR = Variable(
    "held_out_error",
    ("estimate",),
    "f",
    "1",
    "squared error of denoised counts over that of raw counts, and its standard deviation: fitted "
    "to three quarters of counts or frames, judged by the last one",
)
COMPONENT_GAIN = Variable(
    "component_gain",
    (DIM_COMPONENT,),
    "f",
    "1",
    "what the component takes off the squared error of held-out counts, over that of raw counts",
)
COMPONENT_GAIN_STDDEV = Variable(
    "component_gain_stddev", (DIM_COMPONENT,), "f", "1", "standard deviation of component_gain"
)
EVENT_NUMBER = Variable(
    "event_number", _MAP, "u", "counts", "X-ray events of the pixel, of all frames"
)
EVENT_CHANNEL = Variable(
    "event_channel", (DIM_EVENT,), "u", "1", "channel of each X-ray event, pixel by pixel"
)
EVENT_FRAME = Variable("event_frame", (DIM_EVENT,), "u", "1", "frame of each X-ray event")
# "denoised" where a .hspy of ours holds denoised counts, which may be negative.
COUNTS_KIND = "counts_kind"
# How many frames were summed, or are kept apart.
FRAMES = "frames"
# Attributes of a measurement that are numbers.
MEASUREMENT_NUMBERS = (
    "beam_energy",
    "live_time",
    "real_time",
    "take_off_angle",
    "azimuth_angle",
    "stage_tilt",
    "detector_resolution",
    FRAMES,
)
# What spatial shrinkage leaves of one choice of components, and an attribute that says what images
# gained, in words.
SHRUNK_SPECS = (
    COMPONENT_MAP_SHRUNK,
    COMPONENT_MAP_SHRUNK_STDDEV,
    COMPONENT_ERROR_CORRELATION,
    COMPONENT_SIGNAL_KEPT,
    TOTAL_STDDEV,
)
IMAGE_GAIN = "image_gain"
COUNTS_DENOISED = Variable(
    "counts_denoised", _CUBE, "f", "counts", "expected counts rebuilt from the kept components"
)
_LINE_MAP = (DIM_LINE, DIM_Y, DIM_X)
_ELEMENT_MAP = (DIM_ELEMENT, DIM_Y, DIM_X)
_RATIO_MAP = (DIM_RATIO, DIM_Y, DIM_X)
_STDDEV = "standard deviation of "

LINE_INTENSITY = Variable(
    "line_intensity", _LINE_MAP, "f", "counts", "net counts of the line, background taken off"
)
LINE_INTENSITY_UNBOUNDED = Variable(
    "line_intensity_unbounded",
    _LINE_MAP,
    "f",
    "counts",
    "line_intensity of a fit without the bound at 0: what compositions and sums are of",
)
LINE_INTENSITY_STDDEV = Variable(
    "line_intensity_stddev", _LINE_MAP, "f", "counts", _STDDEV + "line_intensity"
)
LINE_INTENSITY_COVARIANCE = Variable(
    "line_intensity_covariance",
    (DIM_LINE, DIM_LINE_OTHER, DIM_Y, DIM_X),
    "f",
    "counts2",
    "covariance of the net counts of two lines in a pixel, before shrinkage; not written to files",
)
LINE_INTENSITY_BIAS = Variable(
    "line_intensity_bias",
    _LINE_MAP,
    "f",
    "counts",
    "estimated bias: raw less denoised net counts of similar pixels, as far as beyond noise",
)
LINE_SYSTEMATIC = Variable(
    "line_systematic",
    (DIM_DIRECTION, DIM_LINE, DIM_ENERGY),
    "f",
    "1",
    "weight of each channel in the shift of a line's net counts by one standard deviation of the "
    "detector's response, in independent directions",
)
LINE_ESTIMATOR = Variable(
    "line_estimator",
    (DIM_LINE, DIM_ENERGY),
    "f",
    "1",
    "weight of each channel in the net counts of a line; sums of any spectra follow from it",
)
LINE_WINDOW = Variable(
    "line_window",
    (DIM_LINE, DIM_EDGE),
    "f",
    "keV",
    "ends of the integration window and of one or two background windows that were given",
)
_GROUP_LINE = (DIM_GROUP, DIM_LINE)
GROUP_RAW = Variable(
    "group_raw", _GROUP_LINE, "f", "counts", "raw net counts of a group of similar pixels"
)
GROUP_DENOISED = Variable(
    "group_denoised", _GROUP_LINE, "f", "counts", "denoised net counts of the group"
)
GROUP_STDDEV = Variable(
    "group_stddev", _GROUP_LINE, "f", "counts", _STDDEV + "group_raw - group_denoised"
)
GROUP_PIXEL_STDDEV = Variable(
    "group_pixel_stddev",
    _GROUP_LINE,
    "f",
    "counts",
    "root mean square over the group of line_intensity_stddev without the bias",
)
GROUP_PIXELS = Variable("group_pixels", (DIM_GROUP,), "i", "1", "pixels of the group")
REGION_MASK = Variable(
    "region_mask",
    (DIM_REGION, DIM_Y, DIM_X),
    "i",
    "1",
    "whether the pixel belongs to the region",
    {"flag_values": np.array([0, 1], np.int8), "flag_meanings": "outside inside"},
)
REGION_SPECTRUM = Variable(
    "region_spectrum",
    (DIM_REGION, DIM_ENERGY),
    "f",
    "counts",
    "counts of the region's pixels; of a phase, the half of them that did not find the phase",
)
REGION_MISFIT = Variable(
    "region_misfit",
    (DIM_REGION, DIM_ENERGY),
    "f",
    "counts",
    "standard deviation of the fit's model in a channel of the region's spectrum, as far as its "
    "residual exceeds what the counts explain",
)
REGION_BACKGROUND = Variable(
    "region_background",
    (DIM_REGION, DIM_LINE),
    "f",
    "counts",
    "by how much a background that bends at twice as many energies changes the net counts of the "
    "region's spectrum, as far as it exceeds what the counts explain",
)
LINE_DETECTED = Variable(
    "line_detected",
    _LINE_MAP,
    "i",
    "1",
    "whether the net counts exceed three standard deviations of the background alone",
    {"flag_values": np.array([0, 1], np.int8), "flag_meanings": "below_limit detected"},
)
WEIGHT_PERCENT = Variable("weight_percent", _ELEMENT_MAP, "f", "percent", "share of the mass")
WEIGHT_PERCENT_STDDEV = Variable(
    "weight_percent_stddev", _ELEMENT_MAP, "f", "percent", _STDDEV + "weight_percent"
)
ATOMIC_PERCENT = Variable("atomic_percent", _ELEMENT_MAP, "f", "percent", "share of the atoms")
ATOMIC_PERCENT_STDDEV = Variable(
    "atomic_percent_stddev", _ELEMENT_MAP, "f", "percent", _STDDEV + "atomic_percent"
)
RATIO = Variable("ratio_map", _RATIO_MAP, "f", "1", "ratio of atomic percents")
RATIO_STDDEV = Variable("ratio_map_stddev", _RATIO_MAP, "f", "1", _STDDEV + "ratio_map")

LOCAL_COUNTS = Variable(
    "local_net_counts",
    (DIM_LOCAL_ELEMENT,),
    "f",
    "counts",
    "net counts of the main line of an element in the part of the map where it was found",
)
LOCAL_STDDEV = Variable(
    "local_net_stddev", (DIM_LOCAL_ELEMENT,), "f", "counts", _STDDEV + "local_net_counts"
)
LOCAL_SIGNIFICANCE = Variable(
    "local_significance", (DIM_LOCAL_ELEMENT,), "f", "1", "net counts over their error in the fit"
)
LOCAL_LINE_COUNTS = Variable(
    "local_line_counts", (DIM_LOCAL_LINE,), "f", "counts", "net counts of a line of such an element"
)
LOCAL_PART_COUNTS = Variable(
    "local_part_counts",
    (DIM_LOCAL_PART,),
    "f",
    "counts",
    "net counts, in the spectrum tested, of one of the transitions that make a line",
)
LOCAL_SPECS = (
    LOCAL_COUNTS,
    LOCAL_STDDEV,
    LOCAL_SIGNIFICANCE,
    LOCAL_LINE_COUNTS,
    LOCAL_PART_COUNTS,
)

SPECS: dict[str, Variable] = {
    str(spec): spec for spec in list(globals().values()) if isinstance(spec, Variable)
}


def validate(ds: xr.Dataset, *specs: Variable) -> None:
    """Check that `ds` has the variables of `specs` with the right dims and kinds of number.

    Raises
    ------
    SchemaError
        Naming the variable, what it is and what it should be.

    Examples
    --------
    >>> validate(xr.Dataset(), COUNTS)
    Traceback (most recent call last):
    ...
    edxdenoise.errors.SchemaError: the Dataset has no variable 'counts' (X-ray counts)
    """
    for spec in specs:
        if spec not in ds:
            raise SchemaError(f"the Dataset has no variable '{spec}' ({spec.long_name})")
        array = ds[spec]
        if array.dims != spec.dims:
            raise SchemaError(
                f"variable '{spec}' has dims {array.dims}, must have {spec.dims}; "
                "use .transpose() or rename()"
            )
        if array.dtype.kind not in spec.kinds:
            allowed = " or ".join(_KINDS[kind] for kind in spec.kinds)
            raise SchemaError(f"variable '{spec}' is {array.dtype}, must be {allowed}")
