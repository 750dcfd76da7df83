"""Training: batches, fitting, calibration, resuming, and the figures that judge a classifier."""

import errno

import numpy as np
import pytest

from edxdenoise.components.network_inputs import BLOCKS, CHANNELS, SIGNED
from edxdenoise.components.networks import build, load_network, network_config, tensorflow
from edxdenoise.errors import DataError, FormatError, ParameterError
from edxdenoise.training.augmentation import (
    balanced_order,
    copied_order,
    picture_batches,
    stack_batches,
    turned,
    varied_picture,
)
from edxdenoise.training.evaluation import auc, reliability, score
from edxdenoise.training.fit import Schedule, calibrate, probabilities, train

pytestmark = pytest.mark.slow

PRESETS = ("solar-cell", "mineral")


def write_corpus(folder, phantoms=6, number=10, seed=0):
    """Files of a corpus whose signal maps hold structure in some channels."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for index in range(phantoms):
        signal = np.arange(number) % 2 == 0
        stack = rng.normal(size=(number, BLOCKS, BLOCKS, CHANNELS))
        stack[signal, 10:40, 10:40, 0:4] += 1.5
        pictures = rng.integers(0, 100, (number, 100, 100, 3))
        pictures[signal, 20:60, 20:60] += 120
        group = f"0-{index:05d}-{PRESETS[index % 2]}"
        np.savez(
            folder / f"{group}.npz",
            default=stack.astype(np.float16),
            article=pictures.astype(np.uint8),
            label=signal.astype(np.float32),
            r=np.where(signal, 0.5, 0).astype(np.float32),
            group=np.full(number, group),
        )
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "c")


def test_batches_are_half_signal_and_weak_signal_comes_twice_as_often():
    label = np.array([1.0] * 10 + [0.0] * 90)
    r = np.where(np.arange(100) < 5, 0.2, 0.6)
    order = balanced_order(label, r, 40_000, seed=1)
    times = np.bincount(order, minlength=100)
    assert times[:10].sum() == 20_000
    assert times[:5].mean() / times[5:10].mean() == pytest.approx(2, rel=0.1)
    assert (order == balanced_order(label, r, 40_000, seed=1)).all()


def test_maps_are_flipped_transposed_and_change_their_sign():
    x = np.random.default_rng(0).normal(size=(1, BLOCKS, BLOCKS, CHANNELS)).astype(np.float32)
    order = np.zeros(64, int)
    found, labels = next(iter(stack_batches(x, np.array([0.3]), order, 64, seed=2)))
    found = found.numpy()
    assert labels.numpy() == pytest.approx(np.tile([0.7, 0.3], (64, 1)))
    unsigned, signed = CHANNELS - 2, SIGNED[0]
    variants = {one.tobytes() for one in found}
    assert 12 <= len(variants) <= 16
    symmetric = [
        np.ascontiguousarray(t[::a, ::b]).tobytes()
        for t in (x[0, ..., unsigned], x[0, ..., unsigned].T)
        for a in (1, -1)
        for b in (1, -1)
    ]
    assert {one[..., unsigned].tobytes() for one in found} == set(symmetric)
    assert {round(float(one.sum()), 2) for one in np.abs(found[..., signed])} == {
        round(float(np.abs(x[0, ..., signed]).sum()), 2)
    }
    again, _ = next(iter(stack_batches(x, np.array([0.3]), order, 64, seed=2)))
    other, _ = next(iter(stack_batches(x, np.array([0.3]), order, 64, seed=3)))
    assert (again.numpy() == found).all() and (other.numpy() != found).any()


def test_the_rarer_class_comes_fourteen_times():
    labels = np.array([0.0] * 20 + [1.0] * 3)
    times = np.bincount(copied_order(labels, seed=0))
    assert (times[:20] == 1).all() and (times[20:] == 14).all()
    assert (np.bincount(copied_order(1 - labels, seed=0)) == times).all()


def test_the_common_class_is_only_cropped():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3, 100, 100, 3)).astype(np.uint8)
    labels = np.array([0.0, 0.0, 1.0])
    found, truth = next(iter(picture_batches(pictures, labels, np.arange(3), 3, seed=0)))
    found = found.numpy()
    assert found.dtype == np.uint8 and truth.numpy()[:, 1].tolist() == [0, 0, 1]
    middle = found[0, 10:90, 10:90]
    shifts = [
        (y, x)
        for y in range(21)
        for x in range(21)
        if (pictures[0, y : y + 80, x : x + 80] == middle).all()
    ]
    assert len(shifts) == 1
    assert not (np.sort(found[2].ravel()) == np.sort(pictures[2].ravel())).all()


@pytest.mark.parametrize("degrees", [0, 30, -45])
def test_a_turned_picture_holds_nothing_from_outside(degrees):
    y, x = np.mgrid[:100, :100].astype(np.float32)
    ramp = np.stack([x, y, np.ones_like(x)], axis=-1)
    found = turned(tensorflow().constant(ramp), np.float32(np.deg2rad(degrees))).numpy()
    angle = np.deg2rad(degrees)
    share = 1 / (abs(np.cos(angle)) + abs(np.sin(angle)))
    # A ramp along x becomes one along the direction the picture was turned to.
    assert found[50, 51, 0] - found[50, 50, 0] == pytest.approx(share * np.cos(angle), abs=1e-3)
    assert found[51, 50, 1] - found[50, 50, 1] == pytest.approx(share * np.cos(angle), abs=1e-3)
    assert found[..., 2] == pytest.approx(1, abs=1e-4)
    # The corners lie on the border of the picture, where nothing was repeated.
    steps = np.diff(found[..., 0], axis=1)
    assert np.ptp(steps) < 0.01


def test_variation_is_seeded():
    tf = tensorflow()
    picture = tf.constant(np.random.default_rng(0).uniform(0, 255, (100, 100, 3)), tf.float32)
    first, again, other = (varied_picture(picture, tf.constant([5, s])).numpy() for s in (1, 1, 2))
    assert (first == again).all() and np.abs(first - other).max() > 1


@pytest.mark.parametrize(
    ("network", "schedule"),
    [("default", Schedule(2, 16, 2e-3, 5)), ("article", Schedule(2, 10, 5e-4, 5))],
)
def test_training_learns(network, schedule, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("edxdenoise.training.fit._STEPS", 8)
    seen = []
    found = train(
        corpus,
        tmp_path,
        network=network,
        seeds=1,
        schedule=schedule,
        progress=lambda *state: seen.append(state[:2]),
    )
    assert seen == [(1, 2), (2, 2)]
    assert [one.path.name for one in found] == [f"{network}-1.keras"]
    assert found[0].loss[-1] < found[0].loss[0]
    assert score(found[0].label > 0.5, found[0].probability).auc > 0.9
    assert load_network(found[0].path).name == network
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{network}-1.keras"]
    with pytest.raises(FormatError, match="exists"):
        train(corpus, tmp_path, network=network, seeds=1, schedule=schedule)


def test_the_same_seed_gives_the_same_predictions(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("edxdenoise.training.fit._STEPS", 4)
    first, again, other = (
        train(corpus, tmp_path / name, seed=seed, seeds=1, schedule=Schedule(1, 16, 2e-3, 3))[0]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert np.abs(first.probability - again.probability).max() < 1e-5
    assert np.abs(np.sort(first.probability) - np.sort(other.probability)).max() > 1e-3


def test_training_goes_on_from_a_network_and_after_an_interruption(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("edxdenoise.training.fit._STEPS", 8)
    schedule = Schedule(3, 16, 2e-3, 5)

    def interrupt(done, most, loss):
        raise OSError(errno.ENOSPC, "full") if done == 1 else KeyboardInterrupt

    for error, words in ((FormatError, "no space left in"), (KeyboardInterrupt, None)):
        with pytest.raises(error, match=words):
            train(corpus, tmp_path / "a", seeds=1, schedule=schedule, progress=interrupt)
    (tmp_path / "file").touch()
    with pytest.raises(FormatError, match="file is a file, must be a folder"):
        train(corpus, tmp_path / "file")
    seen = []
    found = train(
        corpus,
        tmp_path / "a",
        seeds=1,
        schedule=schedule,
        progress=lambda *state: seen.append(state[0]),
    )[0]
    assert seen[0] >= 2 and seen[-1] == 3
    onwards = train(
        corpus,
        tmp_path / "b",
        seeds=1,
        from_model=found.path,
        schedule=Schedule(1, 16, 1e-6, 3),
    )[0]
    assert onwards.validation_loss[0] < 1.5 * min(found.validation_loss) + 0.05


def test_what_cannot_be_trained_is_refused(corpus, tmp_path):
    with pytest.raises(ParameterError, match="network 'other' must be one of default, article"):
        train(corpus, tmp_path, network="other")
    with pytest.raises(ParameterError, match="seeds is 0"):
        train(corpus, tmp_path, seeds=0)
    with pytest.raises(DataError, match="holds no .npz files"):
        train(tmp_path, tmp_path)
    with pytest.raises(DataError, match="use more phantoms"):
        train(sorted(corpus.glob("*.npz"))[:1], tmp_path)
    build(network_config("article", (0.0,) * 3, (1.0,) * 3)).save(tmp_path / "a.keras")
    with pytest.raises(ParameterError, match="holds network 'article', must be 'default'"):
        train(corpus, tmp_path, from_model=tmp_path / "a.keras")


def test_calibration_undoes_overconfidence_and_balance():
    rng = np.random.default_rng(0)
    model = build(network_config("default", (0.0,) * CHANNELS, (1.0,) * CHANNELS), seed=4)
    x = rng.normal(size=(300, BLOCKS, BLOCKS, CHANNELS)).astype(np.float32)
    x += rng.normal(size=(300, 1, 1, CHANNELS)).astype(np.float32)
    said = probabilities(model, x)
    logit = np.log(said / (1 - said))
    true = 1 / (1 + np.exp(-(3 * (logit - logit.mean()) / logit.std() - 1)))
    labels = (rng.random(300) < true).astype(float)

    def error(said):
        mean, seen, number = reliability(labels > 0.5, said)
        return np.nansum(number * np.abs(mean - seen)) / number.sum()

    a, b = calibrate(model, x, labels)
    after = probabilities(model, x)
    assert np.log(after / (1 - after)) == pytest.approx(a * logit + b, abs=1e-2)
    assert error(after) < min(error(said), 0.1)


def test_table_2_by_hand():
    truth = np.array([True, True, True, False, False, False, False, False])
    said = np.array([0.9, 0.8, 0.3, 0.7, 0.4, 0.2, 0.1, 0.0])
    found = score(truth, said, seconds=3.0)
    assert (found.signal, found.noise, found.fraction, found.seconds) == (3, 5, 3 / 8, 3.0)
    assert found.accuracy == 6 / 8
    assert found.sensitivity == 2 / 3 and found.specificity == 4 / 5
    assert found.ppv == 2 / 3 and found.npv == 4 / 5
    assert found.balanced == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found.auc == pytest.approx(13 / 15)
    nothing = score(truth, np.zeros(8))
    assert nothing.sensitivity == 0 and np.isnan(nothing.ppv)
    with pytest.raises(ParameterError, match="both must have one number"):
        score(truth, said[:3])


def test_reliability_agrees_with_scikit_learn():
    from sklearn.calibration import calibration_curve

    rng = np.random.default_rng(0)
    truth = rng.random(500) < 0.3
    said = np.clip(0.3 * truth + rng.uniform(0, 0.7, 500), 0, 1).round(2)
    said_mean, seen, number = reliability(truth, said, bins=8)
    filled = number > 0
    theirs = calibration_curve(truth, said, n_bins=8)
    assert seen[filled] == pytest.approx(theirs[0], abs=0.05)
    assert number.sum() == 500 and said_mean[filled] == pytest.approx(theirs[1], abs=0.02)
    assert np.isnan(auc(np.ones(3, bool), np.ones(3)))


def test_reliability_of_soft_labels_is_their_mean():
    label, said = np.array([0.0, 0.4, 1.0, 0.5]), np.array([0.1, 0.3, 0.9, 0.7])
    mean, seen, number = reliability(label, said, bins=2)
    assert mean == pytest.approx([0.2, 0.8]) and seen == pytest.approx([0.2, 0.75])
    assert number.tolist() == [2, 2]
