"""From weighted counts to the components that are kept: PCA, NMF, selection, smoothing."""

from edxdenoise.components.nmf import nmf
from edxdenoise.components.pca import pca
from edxdenoise.components.selection import select
from edxdenoise.components.shrink import shrink, weight_by_signal

__all__ = ["nmf", "pca", "select", "shrink", "weight_by_signal"]
