"""Labels: known correlations, the edges of soft labels, every mistake a CSV can have."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edxdenoise.components.pca import pca
from edxdenoise.errors import FormatError
from edxdenoise.preprocess import weight
from edxdenoise.simulation import simulate
from edxdenoise.training.labels import correlation, read_labels, soft_label, true_correlation


@pytest.fixture(scope="module")
def phantom():
    ds = simulate("core-shell", shape=(40, 48), channels=120, counts_per_pixel=400, seed=3)
    return ds[["counts", "expected_counts", "phase_map", "phase_spectrum"]].compute()


def correlations(phantom, counts, weighting="poisson"):
    ds = pca(weight(phantom[["counts"]].assign(counts=counts), weighting=weighting), components=15)
    return ds, true_correlation(
        ds.component_map.values,
        ds.component_spectrum.values,
        ds.weight_energy.values,
        phantom.phase_map.values,
        phantom.phase_spectrum.values,
    )


@pytest.mark.parametrize("weighting", ["poisson", "none"])
def test_scores_without_noise_correlate_fully(phantom, weighting):
    _, r = correlations(phantom, phantom.expected_counts, weighting)
    np.testing.assert_allclose(r[:3], 1, atol=1e-4)


def test_components_of_noise_do_not_correlate(phantom):
    # 1920 pixels: the correlation of noise with anything is .02 or so.
    _, r = correlations(phantom, phantom.counts)
    assert (r[:2] > 0.8).all()
    assert (r[6:] < 0.12).all() and np.median(r[6:]) < 0.05


def test_phases_give_what_the_cube_gives(phantom):
    ds, r = correlations(phantom, phantom.counts)
    expected = phantom.expected_counts.values.reshape(-1, 120).astype(float)
    scaled = expected / np.sqrt(expected.sum(axis=1, keepdims=True)) / ds.weight_energy.values
    truth = scaled @ ds.component_spectrum.values.T
    maps = ds.component_map.values.reshape(15, -1)
    by_cube = [abs(np.corrcoef(a, b)[0, 1]) for a, b in zip(maps, truth.T)]
    np.testing.assert_allclose(r, by_cube, atol=1e-4)


def test_pixels_without_counts_are_no_obstacle(phantom):
    amounts = phantom.phase_map.values.copy()
    amounts[:, :5] = 0
    loadings = np.eye(3, 120)
    maps = np.random.default_rng(0).normal(size=(3, 40, 48))
    r = true_correlation(maps, loadings, np.full(120, 2.0), amounts, phantom.phase_spectrum.values)
    assert np.isfinite(r).all()


@given(st.floats(-5, 5).filter(lambda a: abs(a) > 0.01), st.floats(-100, 100))
def test_correlation_ignores_sign_scale_and_offset(scale, offset):
    one, other = np.random.default_rng(1).normal(size=(2, 12, 9))
    other += one
    assert correlation(scale * one + offset, other) == pytest.approx(correlation(one, other))


def test_correlation_with_a_constant_is_nothing():
    assert correlation(np.full((9, 9), 0.1), np.random.default_rng(2).normal(size=(9, 9))) == 0


def test_soft_labels_at_their_edges():
    r = np.array([0, 0.049, 0.05, 0.075, 0.1, 0.15, 0.151, 1])
    np.testing.assert_allclose(soft_label(r), [0, 0, 0, 0.25, 0.5, 1, 1, 1], atol=1e-12)


def test_labels_of_a_person(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(
        "file,component,label,by\na.npz,1,signal,me\na.npz,2,Noise,me\n"
        "sub/b.bcf, 3 ,0,\nb.bcf,1,1,\n"
    )
    assert read_labels(path) == {
        tmp_path / "a.npz": {1: 1.0, 2: 0.0},
        tmp_path / "sub" / "b.bcf": {3: 0.0},
        tmp_path / "b.bcf": {1: 1.0},
    }


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "column 'file' is missing"),
        ("file,label\na,1\n", "column 'component' is missing"),
        ("file,component,label\n", "holds no label"),
        ("file,component,label\n,1,signal\n", "line 2: file is empty"),
        ("file,component,label\na,0,signal\n", "line 2: component '0' must be"),
        ("file,component,label\na,1.5,signal\n", "component '1.5' must be"),
        ("file,component,label\na,1,1\na,2,maybe\n", "line 3: label 'maybe' must be"),
        ("file,component,label\na,1\n", "label '' must be"),
        ("file,component,label\na,1,1\na,1,0\n", "line 3: component 1 of a has another label"),
    ],
)
def test_mistakes_in_labels(tmp_path, text, says):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(FormatError, match=says) as error:
        read_labels(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_labels_that_are_no_text(tmp_path):
    with pytest.raises(FormatError, match="cannot be read"):
        read_labels(tmp_path / "missing.csv")
    path = tmp_path / "labels.csv"
    path.write_bytes(b"file,component,label\n\xff\xfe,1,1\n")
    with pytest.raises(FormatError, match="cannot be read"):
        read_labels(path)
