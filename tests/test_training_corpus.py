"""The corpus: what a specimen expects is what is counted, labels are true, runs can be repeated."""

from dataclasses import replace

import dask
import numpy as np
import pytest

from edxdenoise.components.network_inputs import CHANNELS
from edxdenoise.components.pca import pca
from edxdenoise.errors import FormatError, ParameterError
from edxdenoise.preprocess import weight
from edxdenoise.simulation import PRESETS
from edxdenoise.training import corpus as module
from edxdenoise.training import phantoms
from edxdenoise.training.corpus import group_name, make_corpus, read_corpus, split_groups
from edxdenoise.training.enrich import HARD, REAL, WEAK, enriched
from edxdenoise.training.labels import soft_label, true_correlation
from edxdenoise.training.phantoms import measure, random_pattern, random_specimen

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning"),
]

PHANTOMS = 3


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(phantoms, "_SIDES", (32, 60))
    monkeypatch.setattr(phantoms, "_LARGE_SIDES", (60, 70))
    monkeypatch.setattr(phantoms, "_CHANNELS", (60, 120))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phantoms, "_MOST_COUNTS", 1e6)
        patch.setattr(phantoms, "_SIDES", (32, 60))
        patch.setattr(phantoms, "_LARGE_SIDES", (60, 70))
        calls = []
        paths = make_corpus(
            folder, phantoms=PHANTOMS, seed=5, progress=lambda *call: calls.append(call)
        )
    assert calls == [(1, 3), (2, 3), (3, 3)]
    return paths


@pytest.mark.parametrize("preset", PRESETS)
def test_specimen_is_that_of_its_seed(small, preset):
    first, again, other = (random_specimen(preset, np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.amounts, again.amounts)
    np.testing.assert_array_equal(first.spectra, again.spectra)
    assert first.amounts.shape != other.amounts.shape or (first.amounts != other.amounts).any()
    assert 4 < first.dose < 30_000
    assert first.areas.shape == first.amounts.shape[1:]
    assert (first.spectra >= 0).all() and (first.amounts >= 0).all()


@pytest.mark.parametrize("artefact", phantoms._ARTEFACTS)
def test_counts_are_what_is_expected(small, artefact):
    specimen = random_specimen("core-shell", np.random.default_rng(8))
    specimen, ds = measure(replace(specimen, artefact=artefact), np.random.default_rng(9))
    expected = np.tensordot(specimen.amounts, specimen.spectra, axes=(0, 0))
    counts = ds.counts.values.astype(float)
    assert counts.mean() == pytest.approx(expected.mean(), rel=0.02)
    # The truth follows what was done to the counts, so that its r is 1 where there is no noise.
    ds = pca(weight(ds.assign(counts=(("y", "x", "energy"), expected))), components=2)
    names = ("component_map", "component_spectrum", "weight_energy")
    r = true_correlation(*(ds[n].values for n in names), specimen.amounts, specimen.spectra)
    np.testing.assert_allclose(r, 1, atol=1e-3)
    if artefact == "scaled":
        assert (counts % 1 > 0).any()


def test_patterns_lie_between_0_and_1():
    rng = np.random.default_rng(0)
    areas = np.repeat([1, 2], 20)[:, None] * np.ones((1, 30), int)
    patterns = [random_pattern(areas, rng) for _ in range(80)]
    assert all(p.shape == areas.shape and p.min() >= 0 and p.max() <= 1 for p in patterns)
    # A difference between areas, and grains of a pixel or two, are among them.
    assert any(len(np.unique(p)) == 2 and (p == p[:, :1]).all() for p in patterns)
    assert any(0 < np.count_nonzero(p) < 12 for p in patterns)


@pytest.mark.parametrize("preset, seed", [("solar-cell", 0), ("nanoparticles", 1), ("mineral", 2)])
def test_made_components_are_what_they_are_called(small, preset, seed):
    rng = np.random.default_rng(seed)
    # Noise that is not correlated, whose variance can be seen between neighbours.
    specimen, ds = measure(replace(random_specimen(preset, rng), artefact="none"), rng)
    with dask.config.set(scheduler="synchronous"):
        ds = pca(weight(ds), components=30).compute()
    parts = enriched(ds, specimen, rng)
    assert (parts.r[parts.origin == HARD] < 0.05).all()
    weak = parts.r[parts.origin == WEAK]
    assert np.median(weak) > 0.08 and weak.max() < 0.6
    # The components themselves are unchanged, their noise too.
    real = np.flatnonzero(parts.origin == REAL)
    np.testing.assert_array_equal(parts.ds.component_map.values[real], ds.component_map.values)
    # The variance of the noise without signal is known: it was drawn.
    for index in np.flatnonzero(parts.origin == HARD)[::2]:
        variance = parts.noise.variance(int(index))
        z = parts.noise.maps[index][variance > 0] / np.sqrt(variance[variance > 0])
        assert z.std() == pytest.approx(1, abs=0.25)


def test_corpus_holds_inputs_and_true_labels(made):
    corpus = read_corpus(made)
    count = len(corpus.r)
    assert corpus.inputs.shape == (count, 64, 64, CHANNELS) and corpus.inputs.dtype == np.float16
    assert np.isfinite(corpus.inputs).all()
    pictures = read_corpus(made, "article").inputs
    assert pictures.shape == (count, 100, 100, 3) and pictures.dtype == np.uint8
    np.testing.assert_allclose(corpus.label, soft_label(corpus.r), atol=1e-6)
    assert (corpus.r > 0.3).any() and (corpus.r < 0.05).any()
    assert list(dict.fromkeys(corpus.group)) == [group_name(5, i) for i in range(PHANTOMS)]


def test_corpus_is_taken_up_where_it_stopped(made):
    before = [path.read_bytes() for path in made]
    written = [path.stat().st_mtime_ns for path in made]
    calls = []
    again = make_corpus(
        made[0].parent, phantoms=PHANTOMS, seed=5, progress=lambda *call: calls.append(call)
    )
    assert again == made and calls == []
    assert [path.stat().st_mtime_ns for path in made] == written
    assert [path.read_bytes() for path in made] == before


def test_interrupted_phantom_leaves_nothing(small, tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module.np, "savez", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_corpus(tmp_path, phantoms=1, seed=1)
    assert list(tmp_path.iterdir()) == []
    (path,) = make_corpus(tmp_path, phantoms=1, seed=1)
    assert read_corpus([path]).r.size > 10


def test_workers_change_nothing(tmp_path):
    (tmp_path / "b").mkdir()
    one = make_corpus(tmp_path / "a", phantoms=2, seed=3)
    two = make_corpus(tmp_path / "b", phantoms=2, seed=3, workers=2)
    for first, second in zip(one, two):
        with np.load(first) as a, np.load(second) as b:
            assert a.files == b.files
            for name in a.files:
                np.testing.assert_array_equal(a[name], b[name])


def test_split_never_shares_a_phantom():
    groups = np.repeat([group_name(0, i) for i in range(23)], 3)
    train, validation = split_groups(groups, seed=4)
    assert set(groups[train]).isdisjoint(groups[validation])
    assert sorted([*train, *validation]) == list(range(len(groups)))
    # Every preset on both sides.
    for part in (train, validation):
        assert {name.split("-", 2)[2] for name in groups[part]} == set(PRESETS)
    again = split_groups(groups, seed=4)
    np.testing.assert_array_equal(train, again[0])
    assert set(groups[validation]) != set(groups[split_groups(groups, seed=5)[1]])


@pytest.mark.parametrize("wrong", [{"phantoms": 0}, {"workers": 0}, {"seed": -1}])
def test_numbers_that_are_not_allowed(tmp_path, wrong):
    with pytest.raises(ParameterError, match=f"{next(iter(wrong))} is"):
        make_corpus(tmp_path, **{"phantoms": 1, **wrong})


def test_files_that_are_no_corpus(tmp_path, made):
    with pytest.raises(ParameterError, match="input kind 'small' must be"):
        read_corpus(made, "small")
    with pytest.raises(ParameterError, match="no file"):
        read_corpus([])
    other = tmp_path / "other.npz"
    np.savez(other, r=np.zeros(3))
    with pytest.raises(FormatError, match="other.npz cannot be read"):
        read_corpus([other])
    other.write_bytes(b"PK")
    with pytest.raises(FormatError, match="other.npz cannot be read"):
        read_corpus([other])
