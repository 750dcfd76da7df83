"""From weighted counts to components: spectra, maps and variances."""

from edxdenoise.decompose.neighbour import neighbours
from edxdenoise.decompose.nmf import is_nmf, nmf
from edxdenoise.decompose.pca import pca

__all__ = ["is_nmf", "neighbours", "nmf", "pca"]
