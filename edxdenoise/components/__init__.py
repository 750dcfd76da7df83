"""From weighted counts to the components that are kept: PCA, NMF, selection, smoothing."""

from edxdenoise.components.neighbour import neighbours
from edxdenoise.components.nmf import is_nmf, nmf
from edxdenoise.components.pca import pca
from edxdenoise.components.selection import select
from edxdenoise.components.shrink import shrink, weight_by_signal

__all__ = ["is_nmf", "neighbours", "nmf", "pca", "select", "shrink", "weight_by_signal"]
