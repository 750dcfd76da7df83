"""Predictions: the ensemble, the shipped networks, what must not change them."""

import subprocess
import sys
from functools import lru_cache

import numpy as np
import pytest
from helpers import solar_cell

import edxdenoise
from edxdenoise.components.network_inputs import CHANNELS
from edxdenoise.components.networks import MODELS, Classifier, build, network_config
from edxdenoise.components.score_noise import score_noise
from edxdenoise.errors import FormatError
from edxdenoise.schema import COMPONENT_MAP, COMPONENT_SPECTRUM


@lru_cache
def cell(counts=1000.0):
    ds = solar_cell(counts)[["counts"]]
    return edxdenoise.pca(edxdenoise.weight(ds), components=20)


def untrained(path, network="default", seed=0):
    channels = {"default": CHANNELS, "article": 3}[network]
    config = network_config(network, (1.0,) * channels, (2.0,) * channels)
    build(config, seed).save(path)


@pytest.mark.parametrize("network", ["default", "article"])
def test_the_sign_of_a_map_does_not_matter(network, tmp_path):
    ds = cell()
    flipped = ds.assign({name: -ds[name] for name in (COMPONENT_MAP, COMPONENT_SPECTRUM)})
    untrained(tmp_path / "a.keras", network)
    classifier = Classifier.load([tmp_path / "a.keras"])
    first, second = classifier.probability(ds), classifier.probability(flipped)
    assert first.shape == (20,) and np.ptp(first) > 0
    assert np.abs(first - second).max() < 1e-5


def test_an_ensemble_gives_the_mean(tmp_path):
    paths = [tmp_path / f"{seed}.keras" for seed in (1, 2)]
    for seed, path in enumerate(paths, start=1):
        untrained(path, seed=seed)
    both = Classifier.load(paths).probability(cell(), score_noise(cell()))
    single = [Classifier.load([path]).probability(cell()) for path in paths]
    assert both == pytest.approx(np.mean(single, axis=0), abs=1e-6)
    assert np.abs(single[0] - single[1]).max() > 1e-3


def test_networks_of_two_kinds_are_refused(tmp_path):
    untrained(tmp_path / "a.keras")
    untrained(tmp_path / "b.keras", "article")
    with pytest.raises(FormatError, match="holds network 'article' but .* 'default'"):
        Classifier.load([tmp_path / "a.keras", tmp_path / "b.keras"])


def test_a_file_trained_again_is_read_again(tmp_path):
    path = tmp_path / "a.keras"
    untrained(path, seed=1)
    first = Classifier.load([path]).probability(cell())
    path.unlink()
    untrained(path, seed=2)
    assert np.abs(Classifier.load([path]).probability(cell()) - first).max() > 1e-3


def test_the_shipped_networks_tell_signal_from_noise():
    size = sum(path.stat().st_size for path in MODELS.glob("*.keras"))
    assert 0 < size < 3e6
    probability = Classifier.load().probability(cell())
    assert (probability[:3] > 0.9).all()
    assert (probability[12:] < 0.2).all()
    assert Classifier.load() is Classifier.load()


@pytest.mark.slow
def test_predictions_do_without_tensorflow():
    code = (
        "import sys; from edxdenoise.components.networks import Classifier;"
        "import numpy as np;"
        f"Classifier.load().predict(np.zeros((1, 64, 64, {CHANNELS}), np.float32));"
        "print({'keras', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_shipped_networks_do_not_look_at_the_scale_of_counts():
    ds = solar_cell(1000.0)[["counts"]]
    scaled = ds.assign(counts=ds.counts.astype(np.float32) * np.float32(0.37))
    both = [
        Classifier.load().probability(edxdenoise.pca(edxdenoise.weight(each), components=6))
        for each in (ds, scaled)
    ]
    assert both[1] == pytest.approx(both[0], abs=0.02)


def test_repeated_predictions_are_the_same():
    first, second = (Classifier.load().probability(cell()) for _ in range(2))
    assert np.abs(first - second).max() < 1e-5
