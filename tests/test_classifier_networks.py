"""The networks: their layers, their files, and files that are refused."""

import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from edxdenoise.components.network_inputs import CHANNELS
from edxdenoise.components.networks import (
    Network,
    NetworkConfig,
    build,
    device_names,
    keras,
    load_network,
    network_config,
)
from edxdenoise.errors import FormatError, ParameterError


def config(network="default"):
    channels = {"default": CHANNELS, "article": 3}[network]
    return network_config(
        network, tuple(0.5 + np.arange(channels)), tuple(1.0 + np.arange(channels))
    )


def some_input(network, number=3):
    rng = np.random.default_rng(0)
    if network == "article":
        return rng.integers(0, 256, (number, 100, 100, 3), np.uint8)
    return rng.normal(size=(number, 64, 64, CHANNELS)).astype(np.float32)


def test_the_articles_network_to_the_letter():
    model = build(config("article"))
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == [
        "Normalization",
        "Cropping2D",
        "Conv2D",
        "MaxPooling2D",
        "Activation",
        "Conv2D",
        "MaxPooling2D",
        "Activation",
        "Flatten",
        "Dense",
        "Dense",
        "Activation",
    ]
    first, second = (layer for layer in model.layers if type(layer).__name__ == "Conv2D")
    assert first.kernel.shape == (3, 3, 3, 10) and second.kernel.shape == (3, 3, 10, 200)
    assert model.layers[1].output.shape[1:] == (80, 80, 3)
    assert model.layers[-2].units == 2
    assert [layer.activation.__name__ for layer in model.layers if hasattr(layer, "activation")][
        -1
    ] == "softmax"


@pytest.mark.parametrize("network", ["default", "article"])
def test_a_saved_network_predicts_the_same(network, tmp_path):
    model = build(config(network), seed=3)
    model.save(tmp_path / "a.keras")
    again = load_network(tmp_path / "a.keras")
    x = some_input(network)
    first, second = (np.asarray(m(x, training=False)) for m in (model, again))
    assert np.abs(first - second).max() < 1e-6
    assert first.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert [w.shape for w in again.get_weights()] == [w.shape for w in model.get_weights()]
    without_keras = Network.load(tmp_path / "a.keras")
    assert without_keras.name == network
    assert np.abs(without_keras(x) - first).max() < 1e-6


def test_the_default_network_is_small():
    model = build(config())
    assert 15_000 < model.count_params() < 25_000


def test_the_standardisation_is_part_of_the_network():
    shifted = network_config("default", (3.0,) * CHANNELS, (4.0,) * CHANNELS)
    plain = network_config("default", (0.0,) * CHANNELS, (1.0,) * CHANNELS)
    x = some_input("default")
    first = np.asarray(build(plain, 1)(x, training=False))
    second = np.asarray(build(shifted, 1)(2 * x + 3, training=False))
    assert np.abs(first - second).max() < 1e-5


def test_code_in_a_file_is_refused(tmp_path):
    k = keras()
    model = k.Sequential(
        [k.layers.Input((64, 64, CHANNELS)), k.layers.Lambda(lambda x: x), k.layers.Dense(2)],
        name="default",
    )
    model.save(tmp_path / "lambda.keras")
    with pytest.raises(FormatError, match="holds a layer 'Lambda', which may run code") as error:
        Network.load(tmp_path / "lambda.keras")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "options", "match"),
    [
        ({"class_name": "Mine"}, {}, "layer 'Mine'"),
        ({"module": "os"}, {}, "layer 'Conv2D'"),
        ({"registered_name": "mine>Conv2D"}, {}, "layer 'Conv2D'"),
        ({}, {"strides": [2, 2]}, "layer Conv2D has options that none of our networks has"),
        ({}, {"groups": 2}, "layer Conv2D has options that none of our networks has"),
        ({}, {"activation": "tanh"}, "cannot be read as a network: 'tanh'"),
    ],
)
def test_unknown_layers_are_refused(change, options, match, tmp_path):
    path = tmp_path / "a.keras"
    build(config()).save(path)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    values = json.loads(content["config.json"])
    layer = next(one for one in values["config"]["layers"] if one["class_name"] == "Conv2D")
    layer.update(change)
    layer["config"].update(options)
    content["config.json"] = json.dumps(values).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    with pytest.raises(FormatError, match=match):
        Network.load(path)


def test_other_files_and_models_are_refused(tmp_path):
    with pytest.raises(FormatError, match="does not exist"):
        Network.load(tmp_path / "none.keras")
    (tmp_path / "text.keras").write_text("not a network")
    with pytest.raises(FormatError, match="is not a .keras file"):
        Network.load(tmp_path / "text.keras")
    with zipfile.ZipFile(tmp_path / "zip.keras", "w") as archive:
        archive.writestr("config.json", "[]")
    with pytest.raises(FormatError, match="is not a .keras file"):
        Network.load(tmp_path / "zip.keras")
    with zipfile.ZipFile(tmp_path / "large.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("padding", bytes(310_000_000))
    with pytest.raises(FormatError, match="unpacks to 310000000 bytes, must be a network of"):
        Network.load(tmp_path / "large.keras")
    k = keras()
    ends = k.layers.Input((4,))
    k.Model(ends, k.layers.Dense(2)(ends)).save(tmp_path / "functional.keras")
    with pytest.raises(FormatError, match="must be Sequential"):
        Network.load(tmp_path / "functional.keras")
    k.Sequential([k.layers.Input((4,)), k.layers.Dense(2)], name="default").save(
        tmp_path / "small.keras"
    )
    with pytest.raises(FormatError, match="with input") as error:
        Network.load(tmp_path / "small.keras")
    assert "\n" not in str(error.value)


def test_impossible_configurations_are_refused():
    with pytest.raises(ParameterError, match="network 'other' must be one of article, default"):
        NetworkConfig("other", (3,), 4, 0.0, (0.0,), (1.0,))
    with pytest.raises(ParameterError, match=f"mean has 1 numbers, must have {CHANNELS}"):
        network_config("default", (0.0,), (1.0,) * CHANNELS)


@pytest.mark.slow
def test_nothing_is_written_to_the_terminal():
    code = (
        "from edxdenoise.components.networks import *;"
        f"m = build(network_config('default', (0.,) * {CHANNELS}, (1.,) * {CHANNELS}));"
        "print(len(device_names()) > 0)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout == "True\n" and done.stderr == ""
    assert "CPU:0" in device_names()
