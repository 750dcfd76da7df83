"""The networks, built from a configuration; how they are saved and safely loaded.

`article` is the network of the article's text: picture -> standardised -> 80 x 80 crop -> conv 3x3
of 10, max-pool, ReLU -> conv 3x3 of 200, max-pool, ReLU -> dense -> dense 2 -> softmax. It leaves
the width of the first dense layer open; 64 here. `default` is a small one for the whitened stack
of `network_inputs`: convolutions with average pooling, so that weak structure adds up over the map,
and rectifiers before it, so that a single grain is not averaged away.

All are Keras Sequential models of well-known layers, constants of the standardisation included.

A `Classifier` is an ensemble of them: the probability that a component is signal.
"""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.components.network_inputs import BLOCKS, CHANNELS, PICTURE, SIGNED, network_input
from edxdenoise.components.score_noise import ScoreNoise
from edxdenoise.errors import FormatError, ParameterError

CROP = 80
CLASSES = 2  # noise, signal

# What a network may be made of, by the module that Keras would import.
_PARTS = {
    "keras": {"Sequential", "DTypePolicy"},
    "keras.initializers": {"GlorotUniform", "Zeros"},
    "keras.optimizers": {"Adam"},
    "keras.losses": {"CategoricalCrossentropy", "SparseCategoricalCrossentropy"},
    "keras.layers": {
        "InputLayer",
        "Normalization",
        "Cropping2D",
        "Conv2D",
        "MaxPooling2D",
        "AveragePooling2D",
        "Activation",
        "Flatten",
        "Dropout",
        "Dense",
    },
}
# Bytes of a network and its configuration; ours have 0.3 MB, the article's 30.
_LARGEST = 300_000_000


@dataclass(frozen=True)
class NetworkConfig:
    """All that is needed to build a network anew.

    Parameters
    ----------
    network : {"default", "article"}
        Which input and which order of layers.
    filters : tuple of int
        Of the convolutions, one after the other.
    dense : int
        Width of the dense layer before the last.
    dropout : float
        Share of the last features left out in training; `default` only.
    mean, variance : tuple of float
        Constants of the standardisation, one for each channel of the input.
    """

    network: str
    filters: tuple[int, ...]
    dense: int
    dropout: float
    mean: tuple[float, ...]
    variance: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.network not in _SHAPES:
            raise ParameterError(
                f"network '{self.network}' must be one of {', '.join(sorted(_SHAPES))}"
            )
        channels = _SHAPES[self.network][-1]
        for name in ("mean", "variance"):
            if len(getattr(self, name)) != channels:
                raise ParameterError(
                    f"{name} has {len(getattr(self, name))} numbers, must have {channels}, one for "
                    f"each channel of the input of network '{self.network}'"
                )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Rows, columns and channels of the input."""
        return _SHAPES[self.network]

    def to_dict(self) -> dict[str, Any]:
        """The configuration as numbers, text and lists, for JSON."""
        values = asdict(self)
        return {key: list(x) if isinstance(x, tuple) else x for key, x in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> NetworkConfig:
        """Inverse of `to_dict`."""
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            wrong = sorted(names ^ set(values))[0]
            raise ParameterError(
                f"network configuration: key '{wrong}' is missing or unknown; keys are "
                f"{', '.join(sorted(names))}"
            )
        given: dict[str, Any] = {
            key: tuple(x) if isinstance(x, list) else x for key, x in values.items()
        }
        return cls(**given)


_SHAPES = {"default": (BLOCKS, BLOCKS, CHANNELS), "article": (PICTURE, PICTURE, 3)}


def network_config(
    network: str, mean: tuple[float, ...], variance: tuple[float, ...]
) -> NetworkConfig:
    """Configuration of one of the two networks as the package trains them."""
    if network == "article":
        return NetworkConfig(network, (10, 200), 64, 0.0, mean, variance)
    return NetworkConfig(network, (16, 20, 24, 32), 32, 0.2, mean, variance)


@cache
def keras() -> Any:
    """Keras on TensorFlow, imported without a line on the terminal."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    with _quiet():
        import keras as library  # type: ignore[import-untyped]

        # The devices, too, announce themselves.
        tensorflow().config.list_physical_devices()
    return library


def tensorflow() -> Any:
    """TensorFlow, for the pipelines of training and the list of devices."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _quiet():
        import tensorflow as library  # type: ignore[import-untyped]
    return library


def device_names() -> list[str]:
    """Names of the devices Keras can use, such as ``GPU:0``; the first GPU is taken by itself."""
    keras()
    return [
        device.name.removeprefix("/physical_device:")
        for device in tensorflow().config.list_physical_devices()
    ]


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing that compiled code writes to standard error is shown."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def build(config: NetworkConfig, seed: int = 0) -> Any:
    """An untrained network.

    Parameters
    ----------
    config : NetworkConfig
    seed : int
        Of the first weights and the dropout.

    Returns
    -------
    keras.Sequential
        Gives the probabilities of noise and signal, shape (component, 2).
    """
    k = keras()
    k.utils.set_random_seed(seed)
    layers = k.layers
    article = config.network == "article"
    dtype = "uint8" if article else "float32"
    stack = [
        layers.Input(config.input_shape, dtype=dtype),
        layers.Normalization(mean=config.mean, variance=config.variance),
    ]
    if article:
        # Training shifts the pictures at random, which makes of this the random crop.
        stack.append(layers.Cropping2D((PICTURE - CROP) // 2))
        for filters in config.filters:
            stack += [layers.Conv2D(filters, 3), layers.MaxPooling2D(), layers.Activation("relu")]
    else:
        for filters in config.filters:
            stack += [
                layers.Conv2D(filters, 3, padding="same", activation="relu"),
                layers.AveragePooling2D(2),
            ]
        stack.append(layers.AveragePooling2D(2))
    stack.append(layers.Flatten())
    if config.dropout:
        stack.append(layers.Dropout(config.dropout, seed=seed))
    stack += [
        layers.Dense(config.dense, activation="relu"),
        layers.Dense(CLASSES),
        layers.Activation("softmax"),
    ]
    return k.Sequential(stack, name=config.network)


def config_of(model: Any) -> NetworkConfig:
    """Configuration that builds a network like `model` anew."""
    k = keras()
    kinds: dict[str, list[Any]] = {}
    for layer in model.layers:
        kinds.setdefault(type(layer).__name__, []).append(layer)
    constants = kinds["Normalization"][0].get_config()
    convert = k.ops.convert_to_numpy
    return NetworkConfig(
        model.name,
        tuple(layer.filters for layer in kinds["Conv2D"]),
        kinds["Dense"][0].units,
        kinds["Dropout"][0].rate if "Dropout" in kinds else 0.0,
        tuple(float(x) for x in convert(constants["mean"]).ravel()),
        tuple(float(x) for x in convert(constants["variance"]).ravel()),
    )


def load_network(path: str | Path) -> Any:
    """A network from a .keras file, which may hold data but no code.

    Raises
    ------
    FormatError
        If the file is no .keras file, holds layers other than ours or takes another input.
    """
    path = Path(path)
    _check_layers(path)
    try:
        model = keras().saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever the part that stumbles raises
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise FormatError(f"{path} cannot be read as a network: {reason}") from error
    shape = tuple(model.input_shape[1:])
    if _SHAPES.get(model.name) != shape or tuple(model.output_shape[1:]) != (CLASSES,):
        raise FormatError(
            f"{path} holds network '{model.name}' with input {shape}, must be "
            + " or ".join(f"'{name}' with {shape}" for name, shape in _SHAPES.items())
            + "; train one with 'edxdenoise train'"
        )
    return model


def _check_layers(path: Path) -> None:
    """Refuse a file that names anything but the parts of our networks, before Keras opens it."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > _LARGEST:
                raise FormatError(
                    f"{path} unpacks to {unpacked} bytes, must be a network of at most {_LARGEST}; "
                    "use a file that 'edxdenoise train' wrote"
                )
            config = json.loads(archive.read("config.json"))
        if config["class_name"] != "Sequential":
            raise FormatError(
                f"{path} holds a '{config['class_name']}' model, must be Sequential; use a file "
                "that 'edxdenoise train' wrote"
            )
        parts = list(_parts(config))
    except FileNotFoundError as error:
        raise FormatError(f"{path} does not exist; name a .keras file") from error
    except FormatError:
        raise
    except (OSError, zipfile.BadZipFile, LookupError, TypeError, ValueError, RecursionError) as e:
        raise FormatError(
            f"{path} is not a .keras file; use one that 'edxdenoise train' wrote"
        ) from e
    for part in parts:
        name, module = str(part["class_name"]), str(part.get("module"))
        if name not in _PARTS.get(module, ()) or part.get("registered_name") is not None:
            raise FormatError(
                f"{path} holds a layer '{name}', which may run code of its own; allowed are "
                f"{', '.join(sorted(_PARTS['keras.layers']))}"
            )


def _parts(config: Any) -> Iterator[dict[str, Any]]:
    """Everything at any depth of a model's configuration that Keras would make an object of."""
    if isinstance(config, dict):
        if "class_name" in config:
            yield config
        for value in config.values():
            yield from _parts(value)
    elif isinstance(config, list):
        for value in config:
            yield from _parts(value)


MODELS = Path(__file__).parent / "models"

# Components put through a network at once; more only takes memory.
_BATCH = 32


class Classifier:
    """An ensemble of networks that see the same kind of input.

    Parameters
    ----------
    networks : sequence of keras.Sequential
        From `edxdenoise.components.networks`.

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
        negative = ds.assign({v.COMPONENT_MAP: -ds[v.COMPONENT_MAP]})
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
