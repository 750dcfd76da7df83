"""The residual audit: finds what was dropped, where it is, and nothing where nothing is."""

import numpy as np
import pytest
from helpers import cube, solar_cell

from edxdenoise import denoise, make_cube
from edxdenoise.config import Denoise
from edxdenoise.errors import DataError, ParameterError, SchemaError
from edxdenoise.validation import residual_audit
from edxdenoise.validation.residuals import deviance_root, tail_probability


def model(expected, seed=0):
    """Poisson counts and the truth as their model."""
    ds = cube(np.random.default_rng(seed).poisson(expected))
    return ds.assign(counts_denoised=(ds.counts.dims, expected.astype(np.float32)))


def uneven(shape=(20, 24, 60)):
    y, x, e = np.indices(shape)
    return 0.02 + 2.0 * (x > 10) * np.exp(-((e - 20) ** 2) / 8) * (1 + y / 20)


@pytest.mark.slow
def test_false_alarms_are_no_more_than_stated():
    alarms = [
        not residual_audit(model(uneven((12, 18, 40)), seed), false_alarm_rate=0.1).table.empty
        for seed in range(100)
    ]
    # 17 of 100 at a rate of .1 happen once in 50 times; Bonferroni stays well below.
    assert sum(alarms) <= 16


@pytest.mark.parametrize(("side", "gain"), [(1, 60.0), (6, 3.0)])
def test_a_grain_is_found_where_it_is(side, gain):
    truth = uneven()
    ds = model(truth)
    extra = np.zeros(truth.shape)
    extra[5 : 5 + side, 14 : 14 + side, 40:43] = gain
    ds["counts"] = ds.counts + np.random.default_rng(1).poisson(extra)
    first = residual_audit(ds).table.iloc[0]
    assert first.y_start < 5 + side and first.y_stop > 5
    assert first.x_start < 14 + side and first.x_stop > 14
    assert first.energy_low < 4.15 < first.energy_high
    assert first.z > 0 and first.false_alarm < 0.01 and first.counts > first.expected


@pytest.mark.parametrize(("start", "found"), [(-0.2, False), (0.3, True)])
def test_the_zero_peak_is_not_scanned(start, found):
    truth = np.full((8, 8, 60), 0.5)
    seen = truth + 9.0 * (np.arange(60) < 9)
    ds = make_cube(np.random.default_rng(0).poisson(seen), energy=start + 0.01 * np.arange(60))
    ds["counts_denoised"] = (ds.counts.dims, truth.astype(np.float32))
    table = residual_audit(ds).table
    assert (table.energy_high - table.energy_low < 0.5).any() == found


@pytest.mark.slow
def test_dropped_components_are_found_where_they_are():
    """Nitrogen differs between areas, and lead between grains: in components after the fourth."""
    phantom = solar_cell(1000.0, (132, 200), 325)
    table = residual_audit(
        denoise(phantom[["counts"]], Denoise(keep="1-4", subspace="pixel", shrink=False))
    ).table
    first = table.iloc[0]
    assert first.energy_low < 0.39 < first.energy_high and first.y_start >= 60 and first.z > 0
    assert ((table.energy_low < 2.35) & (table.energy_high > 2.35)).any()
    # Each find is a bias that the truth has as well.
    width = float(phantom.energy[1] - phantom.energy[0])
    for find in table.itertuples():
        box = phantom.expected_counts.isel(
            y=slice(find.y_start, find.y_stop), x=slice(find.x_start, find.x_stop)
        ).sel(energy=slice(find.energy_low + width / 4, find.energy_high - width / 4))
        truth = float(box.sum())
        assert (truth - find.expected) * find.z > 0
        assert abs(truth - find.expected) > 2 * np.sqrt(truth)


@pytest.mark.parametrize("chunks", [{"y": 7, "x": 5}, {"y": 1}, {"energy": 9}], ids=str)
def test_dask_equals_numpy(chunks):
    ds = denoise(solar_cell(300.0), Denoise(keep="1-2", shrink=False))
    whole = residual_audit(ds).table
    lazy = residual_audit(ds.chunk(chunks)).table
    assert len(whole) == len(lazy)
    np.testing.assert_allclose(whole.z, lazy.z, rtol=1e-5)


def test_empty_pixels_and_channels():
    truth = uneven()
    truth[:4] = 0
    truth[..., 50:] = 0
    found = residual_audit(model(truth))
    assert found.table.empty and "counting noise in all" in found.summary()
    assert not found.peaks.any()


def test_wrong_input_is_named():
    ds = model(uneven())
    with pytest.raises(ParameterError, match="false_alarm_rate is 2"):
        residual_audit(ds, false_alarm_rate=2)
    with pytest.raises(SchemaError, match="counts_denoised"):
        residual_audit(ds.drop_vars("counts_denoised"))
    with pytest.raises(DataError, match="whole numbers"):
        residual_audit(ds.assign(counts=ds.counts * 1.2))


def test_no_tail_is_fatter_than_its_deviance_says():
    from scipy.stats import norm

    seen, mean = np.meshgrid(np.arange(60.0), [0.01, 0.5, 3.0, 20.0])
    p = tail_probability(seen, mean)
    assert (p >= 2 * norm.sf(np.abs(deviance_root(seen, mean))) * (1 - 1e-9)).all()
