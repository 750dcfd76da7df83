"""Spectrum images that no classifier was trained on, with their truth.

The geometry and the spectra are this module's own: nothing comes from `edxdenoise.simulation`,
from whose phantoms the classifier learns, so that a test on these images shows what it does with
specimens of another kind. An image is a matrix or a few layers, in which three to nine patterns
lie. A pattern changes the spectrum: to another material altogether, or by so little that PCA just
finds it. How little is drawn around the limit of PCA, a signal of sqrt(channels / pixels) times
the noise in the weighted data (J. Baik, S. Peche, Ann. Probab. 33 (2005) 1643): weak components
are what selectors are tested on, and specimens made without regard to the dose hardly have any.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from scipy import ndimage

from edxdenoise import make_cube
from edxdenoise.schema import COORD_AREA, COUNTS, DIM_X, DIM_Y

DOSES = (20.0, 20_000.0)
_MOST_CELLS = 8_000_000  # pixels times channels, for the time it takes
_WEAKEST, _STRONGEST = 0.8, 4.0  # signal to noise of weak patterns over the limit of PCA

Truth = tuple[np.ndarray, np.ndarray]
Generator = np.random.Generator


def unseen(seed: int, *, dose: tuple[float, float] = DOSES) -> tuple[xr.Dataset, Truth]:
    """One image and its truth.

    Parameters
    ----------
    seed : int
    dose : tuple of float
        Range of the mean counts of a pixel, drawn log-uniformly.

    Returns
    -------
    ds : Dataset
        From `edxdenoise.make_cube`; some have the coordinate ``area`` along y.
    truth : tuple of array
        Amounts (phase, y, x) and spectra (phase, energy), float64: the expected counts are the sum
        over phases of their product.
    """
    rng = np.random.default_rng([seed, 20231])
    shape, energy = _axes(rng)
    spectrum = _spectra(rng, energy)
    areas = _areas(rng, shape[0])
    amounts, spectra = _specimen(rng, shape, spectrum, areas, _log_uniform(rng, *dose))
    if rng.random() < 0.15:
        amounts = amounts * (1 + 0.1 * rng.standard_normal((shape[0], 1))).clip(0.5)
    if rng.random() < 0.15:
        amounts = amounts * (rng.random(shape) > 0.005)
    counts = rng.poisson(np.tensordot(amounts, spectra, axes=(0, 0)))
    ds = make_cube(counts, energy=energy)
    if areas is not None and rng.random() < 0.5:
        ds = ds.assign_coords({COORD_AREA: (DIM_Y, areas.astype(np.int32) + 1)})
    return ds, (amounts, spectra)


def _axes(rng: Generator) -> tuple[tuple[int, int], np.ndarray]:
    low, high = ((48, 200), (32, 64), (200, 512))[rng.choice(3, p=(0.83, 0.1, 0.07))]
    shape = int(_log_uniform(rng, low, high)), int(_log_uniform(rng, low, high))
    pixels = shape[0] * shape[1]
    # Most maps have many more pixels than channels.
    fewest = 50 if rng.random() < 0.75 else 1
    most = min(2048, max(min(_MOST_CELLS // pixels, pixels // fewest), 101))
    channels = int(_log_uniform(rng, 100, most))
    start = rng.choice([0.0, 0.1, -0.2])
    return shape, np.linspace(start, rng.uniform(5, 20), channels)


# Spectra ----------------------------------------------------------------------------------------

# Lines of a family: energy relative to the strongest line, and weight.
_FAMILIES = (
    ((1.0, 1.0),),
    ((1.0, 1.0), (1.09, 0.13)),
    ((1.0, 1.0), (1.06, 0.55), (1.19, 0.11), (0.9, 0.04)),
    ((1.0, 1.0), (1.04, 0.6), (0.8, 0.03)),
)


def _spectra(rng: Generator, energy: np.ndarray) -> Callable[[], np.ndarray]:
    """Function that draws the spectrum of a material, of sum 1, from the image's elements."""
    width = rng.uniform(0.03, 0.08)
    top = energy[-1]
    elements = []
    for _ in range(rng.integers(4, 9)):
        main = _log_uniform(rng, 0.25, 0.85 * top)
        family = _FAMILIES[rng.integers(len(_FAMILIES))]
        elements.append(sum(w * _line(energy, main * e, width) for e, w in family))
    edge, decay = rng.uniform(0.15, 0.5), rng.uniform(1.5, 6)
    above = np.maximum(energy, 0.05)
    falling = np.exp(-above / decay) if rng.random() < 0.5 else (1.1 * top - above) / above
    # Windows and the specimen itself take the softest rays.
    continuum = falling * np.exp(-((edge / above) ** 2.5)) * (energy > 0)
    continuum /= continuum.sum()
    zero = _line(energy, 0.0, width) if energy[0] < 0 else None
    purity = rng.uniform(0.2, 0.6)

    def material() -> np.ndarray:
        share = rng.dirichlet(np.full(len(elements), purity))
        lines = sum(s * element for s, element in zip(share, elements))
        lines = lines / lines.sum()
        background = rng.uniform(0.05, 0.5)
        spectrum = (1 - background) * lines + background * continuum
        if zero is not None:
            spectrum = spectrum + 0.1 * zero
        # Some stray rays reach every channel.
        spectrum = spectrum + 0.01 / energy.size
        return spectrum / spectrum.sum()

    return material


def _line(energy: np.ndarray, position: float, width: float) -> np.ndarray:
    """Gaussian line of sum 1; `width` is its FWHM at 0 keV, to which ionization statistics add."""
    sigma = np.sqrt(width**2 + 0.00253 * max(position, 0)) / 2.355
    sigma = max(sigma, 0.4 * (energy[1] - energy[0]))
    shape = np.exp(-0.5 * ((energy - position) / sigma) ** 2)
    return shape / max(shape.sum(), 1e-300)


# Specimens --------------------------------------------------------------------------------------


def _specimen(
    rng: Generator,
    shape: tuple[int, int],
    material: Callable[[], np.ndarray],
    areas: np.ndarray | None,
    dose: float,
) -> Truth:
    base = [material()]
    shares = np.ones((1, *shape))
    thickness = np.ones(shape)
    if rng.random() < 0.6:
        shares = _layers(rng, shape)
        base += [material() for _ in shares[1:]]
        thickness = np.tensordot(_log_uniform(rng, 0.15, 2, len(shares)), shares, axes=1)
    if rng.random() < 0.5:
        y, x = _grid(shape)
        thickness = thickness * (1 + rng.uniform(-0.6, 0.6) * y + rng.uniform(-0.6, 0.6) * x)
    if rng.random() < 0.3:
        thickness = thickness * np.exp(0.15 * _field(rng, shape, rng.uniform(1, 3)))
    if rng.random() < 0.2:
        holes = _field(rng, shape, 3) > rng.uniform(1, 1.6)
        thickness = thickness * np.where(holes, rng.choice([0.0, 0.03, 0.2]), 1)
    thickness = np.maximum(thickness, 0)
    thickness *= dose / thickness.mean()
    amounts, spectra = list(shares * thickness), list(base)
    kinds = list(_PATTERNS) + ([None] if areas is not None else [])
    for _ in range(rng.integers(3, 10)):
        kind = kinds[rng.integers(len(kinds))]
        if kind is None:
            pattern = rng.uniform(0, 1, areas.max() + 1)[areas][:, None] * np.ones(shape)
        else:
            pattern = kind(rng, shape)
        host = rng.integers(len(base))
        other = material()
        mean = np.tensordot([a.mean() for a in amounts], spectra, axes=1) / dose
        amount = pattern.clip(0, 1) * amounts[host]
        if rng.random() < 0.8:
            amount = amount * _weakening(rng, amount, thickness, other - spectra[host], mean)
        amounts[host] = amounts[host] - amount
        amounts.append(amount)
        spectra.append(other)
    return np.stack(amounts), np.stack(spectra)


def _weakening(
    rng: Generator,
    amount: np.ndarray,
    total: np.ndarray,
    difference: np.ndarray,
    mean: np.ndarray,
) -> float:
    """Share of a pattern that gives the signal to noise drawn, at most 1."""
    # In units of its noise, the weighted signal of pixel i is amount_i / root total_i times the
    # root of sum_j difference_j^2 / mean_j.
    signal = amount / np.sqrt(np.maximum(total, 1e-9))
    power = signal.var() * (difference**2 / mean).sum()
    limit = np.sqrt(difference.size / amount.size)
    wanted = limit * _log_uniform(rng, _WEAKEST, _STRONGEST)
    return float(min(np.sqrt(wanted / power), 1)) if power > 0 else 1.0


def _areas(rng: Generator, rows: int) -> np.ndarray | None:
    """Number of the stacked area of every row, from 0, or None for a single map."""
    if rng.random() < 0.6:
        return None
    cuts = np.sort(rng.choice(np.arange(rows // 8, rows - rows // 8), rng.integers(1, 4), False))
    return np.searchsorted(cuts, np.arange(rows), side="right")


def _layers(rng: Generator, shape: tuple[int, int]) -> np.ndarray:
    """Shares of three to six layers of a cross section with rough interfaces, (layer, y, x)."""
    number = rng.integers(3, 7)
    depths = np.sort(rng.uniform(0.05, 0.95, number - 1)) * shape[0]
    rough = np.cumsum(rng.standard_normal((number - 1, shape[1])), axis=1)
    rough -= np.linspace(0, 1, shape[1]) * rough[:, -1:]
    interface = depths[:, None] + rng.uniform(0, 0.5) * rough
    rows = np.arange(shape[0])[:, None]
    below = [np.clip(rows - line + 0.5, 0, 1) for line in np.maximum.accumulate(interface)]
    edges = np.stack([np.ones(shape), *below, np.zeros(shape)])
    shares = edges[:-1] - edges[1:]
    return shares if rng.random() < 0.7 or shape[0] != shape[1] else shares.transpose(0, 2, 1)


# Patterns: shares from 0 to 1 --------------------------------------------------------------------


def _domains(rng: Generator, shape: tuple[int, int]) -> np.ndarray:
    field = _field(rng, shape, rng.uniform(1.2, 4))
    return (field > rng.uniform(-0.5, 1.8)).astype(float)


def _waves(rng: Generator, shape: tuple[int, int]) -> np.ndarray:
    return 0.5 + 0.25 * _field(rng, shape, rng.uniform(2, 4.5))


def _polygons(rng: Generator, shape: tuple[int, int]) -> np.ndarray:
    y, x = np.indices(shape)
    inside = np.zeros(shape, bool)
    for _ in range(rng.integers(1, 12)):
        cy, cx = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        one = np.ones(shape, bool)
        for angle in rng.uniform(0, 2 * np.pi) + np.arange(6) * 2 * np.pi / 6:
            reach = _log_uniform(rng, 1.5, 0.2 * max(shape))
            one &= (y - cy) * np.sin(angle) + (x - cx) * np.cos(angle) < reach
        inside |= one
    return inside.astype(float)


def _needles(rng: Generator, shape: tuple[int, int]) -> np.ndarray:
    found = np.zeros(shape)
    for _ in range(rng.integers(1, 25)):
        length = rng.uniform(0.1, 0.7) * max(shape)
        start, angle = rng.uniform(0, shape), rng.uniform(0, np.pi)
        steps = np.arange(0, length, 0.5)[:, None]
        points = start + steps * np.array([np.sin(angle), np.cos(angle)])
        _mark(found, points)
    return found


def _rings(rng: Generator, shape: tuple[int, int]) -> np.ndarray:
    y, x = np.indices(shape)
    found = np.zeros(shape)
    for _ in range(rng.integers(1, 10)):
        distance = np.hypot(y - rng.uniform(0, shape[0]), x - rng.uniform(0, shape[1]))
        radius = _log_uniform(rng, 3, 0.4 * max(shape))
        found = np.maximum(found, np.exp(-(((distance - radius) / rng.uniform(0.7, 2.5)) ** 2)))
    return found


def _dendrites(rng: Generator, shape: tuple[int, int]) -> np.ndarray:
    found = np.zeros(shape)
    for _ in range(rng.integers(1, 8)):
        steps = rng.normal(0, 0.7, (rng.integers(50, 600), 2)) + rng.normal(0, 0.15, 2)
        _mark(found, rng.uniform(0, shape) + np.cumsum(steps, axis=0))
    return found


def _diffusion(rng: Generator, shape: tuple[int, int]) -> np.ndarray:
    y, x = _grid(shape)
    angle = rng.uniform(0, 2 * np.pi)
    depth = y * np.sin(angle) + x * np.cos(angle) - rng.uniform(-0.4, 0.4)
    return np.where(depth > 0, np.exp(-depth.clip(0) / rng.uniform(0.03, 0.4)), 0)


def _gradient(rng: Generator, shape: tuple[int, int]) -> np.ndarray:
    y, x = _grid(shape)
    distance = np.hypot(y - rng.uniform(-0.7, 0.7), x - rng.uniform(-0.7, 0.7))
    if rng.random() < 0.5:
        return 1 / (1 + (distance / rng.uniform(0.05, 0.5)) ** 2)
    return 0.5 + 0.5 * np.sin(rng.uniform(1, 5) * distance + rng.uniform(0, 6))


def _specks(rng: Generator, shape: tuple[int, int]) -> np.ndarray:
    """Grains of one to five pixels."""
    found = np.zeros(shape)
    for _ in range(rng.integers(2, 40)):
        steps = rng.choice([-1, 0, 1], (rng.integers(0, 5), 2))
        start = rng.uniform(0, shape)
        _mark(found, start + np.concatenate([np.zeros((1, 2)), np.cumsum(steps, axis=0)]))
    return found


_PATTERNS = (
    *(_domains, _waves, _polygons, _needles, _rings),
    *(_dendrites, _diffusion, _gradient, _specks),
)


def _mark(found: np.ndarray, points: np.ndarray) -> None:
    """Set the pixels of `points` (y, x) that lie in the map to 1, in place."""
    rows, columns = np.floor(points).astype(int).T
    inside = (rows >= 0) & (rows < found.shape[0]) & (columns >= 0) & (columns < found.shape[1])
    found[rows[inside], columns[inside]] = 1


def _field(rng: Generator, shape: tuple[int, int], steepness: float) -> np.ndarray:
    """Random field of mean 0 and variance 1 whose power falls with frequency to -`steepness`."""
    padded = [2 * n for n in shape]
    frequency = np.hypot(np.fft.fftfreq(padded[0])[:, None], np.fft.rfftfreq(padded[1])[None])
    frequency[0, 0] = np.inf
    noise = np.fft.rfft2(rng.standard_normal(padded))
    field = np.fft.irfft2(noise * frequency ** (-steepness / 2), padded)[: shape[0], : shape[1]]
    return (field - field.mean()) / field.std()


def _grid(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """y and x from -0.5 to 0.5."""
    return np.linspace(-0.5, 0.5, shape[0])[:, None], np.linspace(-0.5, 0.5, shape[1])[None]


def _log_uniform(rng: Generator, low: float, high: float, size: int | None = None) -> np.ndarray:
    return np.exp(rng.uniform(np.log(low), np.log(high), size))


# What happens to images before they reach us -----------------------------------------------------


def smoothed(ds: xr.Dataset, truth: Truth, seed: int) -> tuple[xr.Dataset, Truth]:
    """Every channel smoothed with a Gaussian of 0.6 pixels."""

    def smooth(data: np.ndarray, axes: tuple[int, int]) -> np.ndarray:
        return ndimage.gaussian_filter(data, 0.6, axes=axes)

    return _with(ds, smooth(_counts(ds), (0, 1))), (smooth(truth[0], (1, 2)), truth[1])


def half_pixel(ds: xr.Dataset, truth: Truth, seed: int) -> tuple[xr.Dataset, Truth]:
    """Shifted by half a pixel along x and y, linearly interpolated; the map loses a row each."""

    def shift(data: np.ndarray, first: int) -> np.ndarray:
        for axis in (first, first + 1):
            size = data.shape[axis]
            near, far = (np.take(data, np.arange(i, size - 1 + i), axis) for i in (0, 1))
            data = (near + far) / 2
        return data

    part = ds.isel({DIM_Y: slice(1, None), DIM_X: slice(1, None)})
    return _with(part, shift(_counts(ds), 0)), (shift(truth[0], 1), truth[1])


def row_flicker(ds: xr.Dataset, truth: Truth, seed: int) -> tuple[xr.Dataset, Truth]:
    """Every row keeps a share of its counts, between 0.7 and 1, as where the beam flickers."""
    rng = np.random.default_rng([seed, 1])
    kept = rng.uniform(0.7, 1, (ds.sizes[DIM_Y], 1))
    counts = rng.binomial(ds[COUNTS].values, kept[:, :, None])
    return _with(ds, counts), (truth[0] * kept, truth[1])


def dead_pixels(ds: xr.Dataset, truth: Truth, seed: int) -> tuple[xr.Dataset, Truth]:
    """One pixel in a hundred is empty."""
    alive = np.random.default_rng([seed, 2]).random(truth[0].shape[1:]) > 0.01
    return _with(ds, ds[COUNTS].values * alive[:, :, None]), (truth[0] * alive, truth[1])


def scaled(ds: xr.Dataset, truth: Truth, seed: int) -> tuple[xr.Dataset, Truth]:
    """Counts times 1.7."""
    return _with(ds, 1.7 * _counts(ds)), (1.7 * truth[0], truth[1])


VARIANTS = {
    "smoothed 0.6 px": smoothed,
    "half-pixel shift": half_pixel,
    "row flicker": row_flicker,
    "dead pixels": dead_pixels,
    "scaled x 1.7": scaled,
}


def _counts(ds: xr.Dataset) -> np.ndarray:
    return ds[COUNTS].values.astype(np.float32)


def _with(ds: xr.Dataset, counts: np.ndarray) -> xr.Dataset:
    if counts.dtype.kind == "i":
        counts = counts.astype(ds[COUNTS].dtype)
    return ds.assign({COUNTS: (ds[COUNTS].dims, counts)})


# Truth of components -----------------------------------------------------------------------------


def true_scores(ds: xr.Dataset, truth: Truth) -> np.ndarray:
    """Score maps free of noise, (component, y, x): sum_j p_kj lambda_ij / (g_i h_j), true g."""
    amounts, spectra = truth
    loadings = ds["component_spectrum"].values / ds["weight_energy"].values
    scores = np.tensordot(loadings @ spectra.T, amounts, axes=1)
    return scores / np.sqrt(_true_total(truth))


def true_r(ds: xr.Dataset, truth: Truth) -> np.ndarray:
    """|Correlation| of every score map with its map free of noise, (component,)."""
    pairs = zip(ds["component_map"].values, true_scores(ds, truth))
    return np.array([abs(np.corrcoef(t.ravel(), s.ravel())[0, 1]) for t, s in pairs])


def variance_cv(ds: xr.Dataset, truth: Truth) -> np.ndarray:
    """Unevenness of the noise of every score map: variation of its true variance, (component,)."""
    amounts, spectra = truth
    loadings = (ds["component_spectrum"].values / ds["weight_energy"].values) ** 2
    variance = np.tensordot(loadings @ spectra.T, amounts, axes=1) / _true_total(truth)
    filled = amounts.sum(axis=0) > 0
    return variance[:, filled].std(axis=1) / variance[:, filled].mean(axis=1)


def _true_total(truth: Truth) -> np.ndarray:
    total = np.tensordot(truth[1].sum(axis=1), truth[0], axes=1)
    return np.where(total > 0, total, np.inf)
