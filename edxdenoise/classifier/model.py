"""Predictions: the probability that a component is signal, from an ensemble of networks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from edxdenoise.classifier.inputs import SIGNED, network_input
from edxdenoise.classifier.networks import keras, load_network
from edxdenoise.errors import FormatError
from edxdenoise.schema import COMPONENT_MAP
from edxdenoise.score_noise import ScoreNoise

MODELS = Path(__file__).parent / "models"

# Components put through a network at once; more only takes memory.
_BATCH = 32


class Classifier:
    """An ensemble of networks that see the same kind of input.

    Parameters
    ----------
    networks : sequence of keras.Sequential
        From `edxdenoise.classifier.networks`.

    Attributes
    ----------
    kind : {"default", "article"}
        What the networks see of a score map.
    """

    def __init__(self, networks: Sequence[Any]) -> None:
        self.networks = list(networks)
        self.kind: str = self.networks[0].name

    @classmethod
    def load(cls, paths: Sequence[str | Path] = ()) -> Classifier:
        """Networks from files; those that come with the package where none is named.

        Raises
        ------
        FormatError
            If a file is no network of ours or its input is not that of the others.
        """
        shipped = sorted(MODELS.glob("default-*.keras"))
        chosen = [Path(path) for path in paths] or shipped
        if not chosen:
            raise FormatError(
                f"{MODELS} holds no default-*.keras file; install edxdenoise anew, or name files"
            )
        return _loaded(tuple((path, _stamp(path)) for path in chosen))

    def probability(self, ds: xr.Dataset, noise: ScoreNoise | None = None) -> np.ndarray:
        """Probability that a component is signal, mean of all networks and of both signs.

        Parameters
        ----------
        ds : Dataset
            With computed components and weights.
        noise : ScoreNoise, optional
            What `score_noise` says of them, where it is known already.

        Returns
        -------
        array, shape (component,)
        """
        if self.kind == "default":
            inputs = network_input(ds, "default", noise)
            return (self.predict(inputs) + self.predict(sign_flipped(inputs))) / 2
        negative = ds.assign({COMPONENT_MAP.name: -ds[COMPONENT_MAP.name]})
        both = [self.predict(network_input(each, "article")) for each in (ds, negative)]
        return (both[0] + both[1]) / 2

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """Mean of all networks for inputs of `network_input`, shape (component,)."""
        return np.mean([_signal(network, inputs) for network in self.networks], axis=0)


def sign_flipped(inputs: np.ndarray) -> np.ndarray:
    """The `default` inputs of the same score maps times -1."""
    flipped = inputs.copy()
    flipped[..., list(SIGNED)] *= -1
    return flipped


def _signal(network: Any, inputs: np.ndarray) -> np.ndarray:
    parts = [
        keras().ops.convert_to_numpy(network(inputs[i : i + _BATCH], training=False))[:, 1]
        for i in range(0, len(inputs), _BATCH)
    ]
    return np.concatenate(parts).astype(float) if parts else np.zeros(0)


def _stamp(path: Path) -> float:
    """Time of the last change, so that a file trained anew is read anew."""
    return path.stat().st_mtime if path.exists() else 0.0


@lru_cache(maxsize=4)
def _loaded(chosen: tuple[tuple[Path, float], ...]) -> Classifier:
    networks = [load_network(path) for path, _ in chosen]
    first = networks[0].name
    for network, (path, _) in zip(networks, chosen):
        if network.name != first:
            raise FormatError(
                f"{path} holds network '{network.name}' but {chosen[0][0]} '{first}'; name files "
                "of one network"
            )
    return Classifier(networks)
