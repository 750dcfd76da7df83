"""Regions of pixels that are alike, found without the counts that judge.

Pixels sorted by all their counts would be sorted by the noise of the part held out as well, and
every model would seem to miss something there. Here only what the features mean is found from all
counts; each pixel is sorted anew for every part, by the rest of its counts.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from edxdenoise.compute import compute
from edxdenoise.quantification.estimators import sums_counts
from edxdenoise.schema import COMPONENT_SPECTRUM, WEIGHT_ENERGY

# K-means looks at no more pixels than these: enough for centres, whatever the map.
_SAMPLE = 20_000
MOST_CLUSTERS = 8


class Clusters:
    """K-means of pixels by their shares of the spectra of a model, thickness left out.

    Parameters
    ----------
    model : Dataset
        Fitted to all counts; there are as many clusters as it keeps components, 2 at least and 8
        at most.
    seed : int
    """

    def __init__(self, model: xr.Dataset, *, seed: int = 0) -> None:
        from sklearn.cluster import KMeans

        self._rows = model[COMPONENT_SPECTRUM.name].values / model[WEIGHT_ENERGY.name].values
        pixels = self._features(model)
        self._size = np.maximum(pixels.std(axis=(0, 1)), np.finfo(float).tiny)
        pixels = (pixels / self._size).reshape(-1, len(self._rows))
        sample = np.random.default_rng(seed).permutation(len(pixels))[:_SAMPLE]
        count = min(max(len(self._rows), 2), MOST_CLUSTERS, len(sample))
        self._found = KMeans(count, n_init=3, random_state=seed).fit(pixels[sample])

    @property
    def names(self) -> list[str]:
        return [f"cluster {i + 1}" for i in range(self._found.n_clusters)]

    def masks(self, ds: xr.Dataset) -> np.ndarray:
        """Which pixels belong to each, by the counts of `ds`: shape (cluster, y, x)."""
        pixels = self._features(ds) / self._size
        labels = self._found.predict(pixels.reshape(-1, pixels.shape[-1]))
        numbers = np.arange(self._found.n_clusters)[:, np.newaxis, np.newaxis]
        return labels.reshape(pixels.shape[:2]) == numbers

    def _features(self, ds: xr.Dataset) -> np.ndarray:
        sums = sums_counts(ds, np.vstack([self._rows, np.ones(self._rows.shape[1])]))
        (values,) = compute(sums.transpose("y", "x", "row").data)
        return values[..., :-1] / np.maximum(values[..., -1:], 1)
