"""The networks, built from a configuration; how they are saved and safely loaded.

`article` is the network of the article's text: picture -> standardised -> 80 x 80 crop -> conv 3x3
of 10, max-pool, ReLU -> conv 3x3 of 200, max-pool, ReLU -> dense -> dense 2 -> softmax. It leaves
the width of the first dense layer open; 64 here. `default` is a small one for the whitened stack
of `network_inputs`: convolutions with average pooling, so that weak structure adds up over the map,
and rectifiers before it, so that a single grain is not averaged away.

All are Keras Sequential models of well-known layers, constants of the standardisation included.

A `Classifier` is an ensemble of them: the probability that a component is signal. It evaluates its
networks by NumPy: they are small, and TensorFlow, which trains them, is large and slow to load.
"""

from __future__ import annotations

import io
import json
import os
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import softmax

from edxdenoise import schema as v
from edxdenoise.components.network_inputs import BLOCKS, CHANNELS, PICTURE, SIGNED, network_input
from edxdenoise.components.score_noise import ScoreNoise
from edxdenoise.errors import FormatError, ParameterError
from edxdenoise.resources import default_workers

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
    """All that is needed to build a network again.

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


def load_network(path: str | Path) -> Any:
    """A network from a .keras file, which may hold data but no code.

    Raises
    ------
    FormatError
        If the file is no .keras file, holds layers other than ours or takes another input.
    """
    path = Path(path)
    checked_config(path)
    try:
        model = keras().saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever the part that stumbles raises
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise FormatError(f"{path} cannot be read as a network: {reason}") from error
    check_ends(path, model.name, model.input_shape[1:], model.output_shape[1:])
    return model


def check_ends(path: Path, name: str, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> None:
    """Refuse a network that takes another input than those of its name, or answers otherwise.

    Raises
    ------
    FormatError
    """
    if _SHAPES.get(name) != tuple(inputs) or tuple(outputs) != (CLASSES,):
        raise FormatError(
            f"{path} holds network '{name}' with input {tuple(inputs)}, must be "
            + " or ".join(f"'{name}' with {shape}" for name, shape in _SHAPES.items())
            + "; train one with 'edxdenoise train'"
        )


def checked_config(path: Path) -> dict[str, Any]:
    """Configuration of a network, whose file names nothing but the parts of our networks.

    Raises
    ------
    FormatError
    """
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
    return config["config"]


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

Layer = Callable[[np.ndarray], np.ndarray]

# Components put through a network at once: more only takes memory.
_BATCH = 8
_ACTIVATIONS: dict[str, Layer] = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "softmax": lambda x: softmax(x, axis=-1),
}
# Options of layers that have one allowed value here.
_FIXED: dict[str, Any] = {
    "data_format": "channels_last",
    "dilation_rate": [1, 1],
    "groups": 1,
    "use_bias": True,
    "axis": [-1],
    "invert": False,
}


@dataclass(frozen=True)
class Network:
    """A trained network, of the layers and options that `build` gives it.

    Parameters
    ----------
    name : {"default", "article"}
        The kind of its input.
    layers : tuple of callable
        Applied one after the other.
    """

    name: str
    layers: tuple[Layer, ...]

    @classmethod
    def load(cls, path: str | Path) -> Network:
        """A network from a .keras file.

        Raises
        ------
        FormatError
            If the file is no .keras file, holds layers other than ours or takes another input.
        """
        path = Path(path)
        config = checked_config(path)
        try:
            layers = tuple(_layers(path, config["layers"]))
            blank = np.zeros((1, *config["layers"][0]["config"]["batch_shape"][1:]), np.float32)
            network = cls(config["name"], layers)
            check_ends(path, network.name, blank.shape[1:], network(blank).shape[1:])
        except FormatError:
            raise
        # What h5py, zipfile and NumPy raise of contents that do not fit one another.
        except (OSError, zipfile.BadZipFile, LookupError, TypeError, ValueError, RuntimeError) as e:
            raise FormatError(f"{path} cannot be read as a network: {e}") from e
        return network

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Probabilities of noise and signal, shape (n, 2), of a few inputs."""
        for layer in self.layers:
            inputs = layer(inputs)
        return inputs

    def signal(self, inputs: np.ndarray) -> np.ndarray:
        """Probability of signal, shape (n,)."""
        batches = [inputs[i : i + _BATCH] for i in range(0, len(inputs), _BATCH)]
        with ThreadPoolExecutor(default_workers()) as pool:
            parts = [found[:, 1] for found in pool.map(self, batches)]
        return np.concatenate([np.zeros(0), *parts])


def _layers(path: Path, configs: list[dict[str, Any]]) -> list[Layer]:
    import h5py

    with zipfile.ZipFile(path) as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    layers: list[Layer] = []
    seen: Counter[str] = Counter()
    with h5py.File(content, "r") as file:
        for each in configs:
            kind, config = each["class_name"], each["config"]
            # Keras numbers the layers of each kind in the file, whatever they are called.
            number = f"_{seen[kind]}" if seen[kind] else ""
            seen[kind] += 1
            weights = []
            if kind in ("Conv2D", "Dense"):
                stored = file[f"layers/{kind.lower()}{number}/vars"]
                weights = [np.asarray(stored[name], np.float32) for name in ("0", "1")]
            _check(kind, all(config.get(name, value) == value for name, value in _FIXED.items()))
            layers += _layer(kind, config, *weights)
    return layers


def _layer(kind: str, config: Mapping[str, Any], *weights: np.ndarray) -> list[Layer]:
    match kind:
        case "Normalization":
            mean, variance = (np.float32(config[name]) for name in ("mean", "variance"))
            # As Keras bounds it.
            deviation = np.maximum(np.sqrt(variance), np.float32(1e-7))
            return [lambda x: (np.float32(x) - mean) / deviation]
        case "Cropping2D":
            (top, bottom), (left, right) = config["cropping"]
            return [lambda x: x[:, top : x.shape[1] - bottom, left : x.shape[2] - right]]
        case "Conv2D":
            _check(kind, config["strides"] == [1, 1])
            kernel, bias = weights
            same = config["padding"] == "same"
            return [
                lambda x: _convolved(x, kernel, same) + bias,
                _ACTIVATIONS[config["activation"]],
            ]
        case "Dense":
            matrix, bias = weights
            return [lambda x: x @ matrix + bias, _ACTIVATIONS[config["activation"]]]
        case "Activation":
            return [_ACTIVATIONS[config["activation"]]]
        case "AveragePooling2D" | "MaxPooling2D":
            size = config["pool_size"]
            _check(kind, config["strides"] == size and config["padding"] == "valid")
            pool = np.mean if kind == "AveragePooling2D" else np.max
            return [lambda x: pool(_tiles(x, *size), axis=(2, 4))]
        case "Flatten":
            return [lambda x: x.reshape(len(x), -1)]
    # The input, and what only training does.
    return []


def _check(kind: str, known: bool) -> None:
    if not known:
        raise ValueError(f"layer {kind} has options that none of our networks has")


def _convolved(x: np.ndarray, kernel: np.ndarray, same: bool) -> np.ndarray:
    high, wide = kernel.shape[:2]
    if same:
        x = np.pad(x, [(0, 0), *(((n - 1) // 2, n // 2) for n in (high, wide)), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(x, (high, wide), axis=(1, 2))
    return np.tensordot(windows, kernel, axes=((4, 5, 3), (0, 1, 2)))


def _tiles(x: np.ndarray, high: int, wide: int) -> np.ndarray:
    """Whole tiles of pixels, shape (n, tile, high, tile, wide, channel)."""
    rows, columns = x.shape[1] // high, x.shape[2] // wide
    whole = x[:, : rows * high, : columns * wide]
    return whole.reshape(len(x), rows, high, columns, wide, x.shape[3])


class Classifier:
    """An ensemble of networks that see the same kind of input.

    Parameters
    ----------
    networks : sequence of Network

    Attributes
    ----------
    kind : {"default", "article"}
        What the networks see of a score map.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
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
                f"{MODELS} holds no default-*.keras file; reinstall edxdenoise, or name files"
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
        return np.mean([network.signal(inputs) for network in self.networks], axis=0)


def sign_flipped(inputs: np.ndarray) -> np.ndarray:
    """The `default` inputs of the same score maps times -1."""
    flipped = inputs.copy()
    flipped[..., list(SIGNED)] *= -1
    return flipped


def _stamp(path: Path) -> float:
    """Time of the last change, so that a file that was trained again is read again."""
    return path.stat().st_mtime if path.exists() else 0.0


@lru_cache(maxsize=4)
def _loaded(chosen: tuple[tuple[Path, float], ...]) -> Classifier:
    networks = [Network.load(path) for path, _ in chosen]
    first = networks[0].name
    for network, (path, _) in zip(networks, chosen):
        if network.name != first:
            raise FormatError(
                f"{path} holds network '{network.name}' but {chosen[0][0]} '{first}'; name files "
                "of one network"
            )
    return Classifier(networks)
