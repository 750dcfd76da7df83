"""From counts as measured to what is decomposed: crop, rebin, stack, weight, thin, hold out."""

from edxdenoise.preprocess.crop import crop
from edxdenoise.preprocess.folds import hold_out
from edxdenoise.preprocess.rebin import rebin
from edxdenoise.preprocess.stack import stack, unstack
from edxdenoise.preprocess.thin import thin
from edxdenoise.preprocess.weight import weight

__all__ = ["crop", "hold_out", "rebin", "stack", "thin", "unstack", "weight"]
