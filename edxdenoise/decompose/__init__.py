"""From weighted counts to components: spectra, maps and variances."""

from edxdenoise.decompose.neighbour import neighbours
from edxdenoise.decompose.pca import pca

__all__ = ["neighbours", "pca"]
