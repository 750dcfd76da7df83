"""Net intensities by a fit of all lines at once, which tells overlapping lines apart.

A spectrum is modelled as a sum of line families of known shape (Gaussians integrated over the
channels, weights fixed by nature) and a smooth background, all with amplitudes of 0 or more: linear
least squares, weighted by the inverse of the mean spectrum since counts are Poisson. The model is
the same for every pixel, so that blocks of pixels are solved together.

The background is that of the mean spectrum times a slowly varying factor: a chain of triangles over
the logarithm of the energy. That of the mean spectrum is bremsstrahlung as the detector sees it,
bent no more than the counts demand, and found together with the lines: clipping peaks (SNIP) leaves
the overlapping lines of neighbouring heavy elements in it, more than doubling it there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edxdenoise.cube import Resolution, channel_width
from edxdenoise.errors import ParameterError
from edxdenoise.xray import Detector, channel_response, efficiency, fwhm
from edxdenoise.xray.families import Family

# Where fits start, in keV: below lies the edge of the discriminator.
LOWEST_FITTED = 0.15
# Triangles per unit of ln E, far wider than any peak above 0.2 keV.
_KNOTS_PER_E_FOLD = 1.0
# Least share of a term's squared norm that no other term describes. Below it two lines are in the
# same channels, or there are more terms than channels, and no counts can separate them. Lines half
# an eV apart in narrow channels reach it.
_LEAST_DISTINCT = 1e-4
# The least a channel's mean counts as, in units of the mean over all channels: an empty channel
# must not weigh without end.
_LEAST_MEAN = 1e-3
# Families whose counts, as the other lines of their element foretell them, are less than this share
# of the peaks in the same channels are left out: a fit would take the errors of those for them.
_NEGLIGIBLE = 0.01
# By how much the slope of the factor between background and plain bremsstrahlung changes within a
# FWHM (standard deviation), and the relative error of the shapes of lines. With these the
# background of phantoms comes out within 3 % above 1.2 keV.
_BEND = 0.01
_SHAPE_ERROR = 0.03
# In keV: where absorption edges of detectors lie, and the step at which bremsstrahlung is blurred.
_EDGES_BELOW, _SOURCE_STEP = 2.5, 0.01


@dataclass(frozen=True)
class FitModel:
    """A linear model of the spectra of a map.

    Parameters
    ----------
    names : tuple of str
        Of the line families, in the order of the first rows of `shapes`.
    shapes : array, shape (term, energy)
        Counts per channel of one unit of each family, then of the background's parts.
    weights : array, shape (energy,)
        Weight of each channel.
    """

    names: tuple[str, ...]
    shapes: np.ndarray
    weights: np.ndarray

    @property
    def background(self) -> np.ndarray:
        """Return the background of the mean spectrum, shape (energy,)."""
        return self.shapes[len(self.names) :].sum(axis=0)

    @property
    def gram(self) -> np.ndarray:
        """Matrix of the normal equations, shape (term, term)."""
        return (self.shapes * self.weights) @ self.shapes.T

    @property
    def filters(self) -> np.ndarray:
        """Rows whose product with a spectrum is the right side of the normal equations."""
        return self.shapes * self.weights

    @property
    def estimators(self) -> np.ndarray:
        """Rows whose product with a spectrum is the solution where no amplitude is clipped."""
        return np.linalg.solve(self.gram, self.filters)


def fit_model(
    energy: np.ndarray,
    mean_spectrum: np.ndarray,
    families: Sequence[Family],
    *,
    pixels: int,
    resolution: float = 130.0,
    beam_energy: float = 200.0,
    needed: int = 0,
) -> FitModel:
    """Model for spectra with these channels, from the mean of them all.

    Parameters
    ----------
    energy : array, shape (energy,)
        Channel centres in keV.
    mean_spectrum : array, shape (energy,)
        Mean counts per channel over the map.
    families : sequence of Family
        All that may be in the specimen: a line left out is taken for others or for background.
    pixels : int
        Over how many the mean is.
    resolution : float
        FWHM at Mn K alpha in eV.
    beam_energy : float
        In keV.
    needed : int
        How many of the first families must be in the model. Of the others, one that has the shape
        of those before it is left out: they count for it.

    Raises
    ------
    ParameterError
        If a family that is needed has the shape of others, or there are too few channels.
    """
    used = energy >= LOWEST_FITTED
    mean = np.maximum(mean_spectrum, _LEAST_MEAN * mean_spectrum.mean())
    instrument = pixels, resolution, beam_energy
    families = noticeable_families(energy, mean, families, *instrument, needed=needed)
    lines = line_shapes(energy, families, resolution)
    families, lines = _separable(families, lines, used / mean, needed)
    smooth = smooth_background(
        energy, mean, lines, pixels=pixels, resolution=resolution, beam_energy=beam_energy
    )
    smooth = np.maximum(smooth, _LEAST_MEAN * mean_spectrum.mean())
    names = tuple(family.name for family in families)
    model = _with_background(energy, names, lines, smooth, used / mean, _KNOTS_PER_E_FOLD)
    if model is None:
        raise ParameterError(
            f"{used.sum()} channels cannot separate {len(families)} families of lines "
            f"({', '.join(names)}) from a background; use narrower channels or fewer elements"
        )
    return model


def noticeable_families(
    energy: np.ndarray,
    mean: np.ndarray,
    families: Sequence[Family],
    pixels: int,
    resolution: float,
    beam_energy: float,
    *,
    needed: int = 0,
) -> list[Family]:
    """Families without those that lie under far stronger peaks.

    V L alpha of some vanadium that stray X-rays excite lies under O K alpha. Its counts are those
    of V K alpha times the ratio of both shells, with three standard deviations of the former.

    Parameters
    ----------
    energy, mean : array, shape (energy,)
        Channel centres in keV; mean counts per channel, above 0.
    families : sequence of Family
    pixels : int
        Over how many the mean is.
    resolution : float
        FWHM at Mn K alpha in eV.
    beam_energy : float
        In keV.
    needed : int
        How many of the first families stay, whatever they count.
    """
    first = {family.element: i for i, family in reversed(list(enumerate(families)))}
    if len(first) == len(families):
        return list(families)
    lines = line_shapes(energy, families, resolution)
    used = energy >= LOWEST_FITTED
    kept = _distinct_rows(lines, used / mean)
    background = _fitted(energy, mean, lines[kept], pixels, resolution, beam_energy)[0]
    peaks = used * (mean - background)
    filters = lines[kept] * (used / mean)
    inverse = np.linalg.inv(filters @ lines[kept].T)
    most = dict(zip(kept, inverse @ filters @ peaks + 3 * np.sqrt(np.diag(inverse) / pixels)))
    # What of the peaks has the shape of each family, whatever it is of.
    covered = (lines @ peaks) / (lines**2).sum(axis=1)
    found = []
    for i, family in enumerate(families):
        mate = first[family.element]
        foretold = max(most.get(mate, np.inf), 0.0) * family.photons / families[mate].photons
        if i in (mate, *range(needed)) or foretold > _NEGLIGIBLE * covered[i]:
            found.append(family)
    return found


def freer_background(energy: np.ndarray, model: FitModel) -> FitModel:
    """Make the same model with a background that bends at twice as many energies.

    Parameters
    ----------
    energy : array, shape (energy,)
        Channel centres in keV.
    model : FitModel
        From `fit_model`.
    """
    lines, smooth = model.shapes[: len(model.names)], model.background
    freer = _with_background(
        energy, model.names, lines, smooth, model.weights, 2 * _KNOTS_PER_E_FOLD
    )
    return model if freer is None else freer


def _with_background(
    energy: np.ndarray,
    names: tuple[str, ...],
    lines: np.ndarray,
    smooth: np.ndarray,
    weights: np.ndarray,
    per_e_fold: float,
) -> FitModel | None:
    """Add a background of triangles, as many as the channels tell apart; None if none."""
    # Triangles begin where the counts do: one below the axis would be 0 in every channel.
    start = max(LOWEST_FITTED, energy[0])
    ends = np.log(start), np.log(energy[-1])
    most = max(3, int(per_e_fold * (ends[1] - ends[0])) + 1)
    position = np.log(np.maximum(energy, start))
    for number in range(most, 0, -1):
        background = _triangles(position, np.linspace(*ends, number)) * smooth
        shapes = np.vstack([lines, background])
        if _distinctness(shapes, weights).min() > _LEAST_DISTINCT:
            return FitModel(names, shapes, weights)
    return None


def line_shapes(energy: np.ndarray, families: Sequence[Family], resolution: float) -> np.ndarray:
    """Counts per channel of one unit of each family, shape (family, energy)."""
    return np.array(
        [
            np.array(family.weights)
            @ channel_response(np.array(family.energies), energy, resolution)
            for family in families
        ]
    ).reshape(len(families), energy.size)


def _distinctness(shapes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of each term's squared norm that the other terms cannot describe, shape (term,)."""
    rows = shapes * np.sqrt(weights)
    norms = np.linalg.norm(rows, axis=1)
    rows = rows / np.maximum(norms, np.finfo(float).tiny)[:, np.newaxis]
    values, axes = np.linalg.eigh(rows @ rows.T)
    # 1 / (1 - R^2) of each term on the others is the diagonal of the inverse Gram matrix.
    return 1 / (axes**2 @ (1 / np.maximum(values, np.finfo(float).eps)))


def _separable(
    families: Sequence[Family], lines: np.ndarray, weights: np.ndarray, needed: int
) -> tuple[list[Family], np.ndarray]:
    """Families that differ from those before them, and their shapes.

    Raises
    ------
    ParameterError
        If one of the first `needed` is not among them.
    """
    kept = _distinct_rows(lines, weights)
    lost = [family for i, family in enumerate(families[:needed]) if i not in kept]
    if lost:
        others = ", ".join(families[k].name for k in kept) or "the end of the energy axis"
        raise ParameterError(
            f"line '{lost[0].name}' cannot be separated from {others} in these channels; use "
            f"narrower channels, another line of {lost[0].element}, or leave it out"
        )
    return [families[i] for i in kept], lines[kept]


def _distinct_rows(lines: np.ndarray, weights: np.ndarray) -> list[int]:
    """Numbers of the rows that differ from those before them."""
    kept: list[int] = []
    for i in range(len(lines)):
        if _distinctness(lines[[*kept, i]], weights)[-1] > _LEAST_DISTINCT:
            kept.append(i)
    return kept


def smooth_background(
    energy: np.ndarray,
    mean: np.ndarray,
    lines: np.ndarray,
    *,
    pixels: int,
    resolution: float = 130.0,
    beam_energy: float = 200.0,
) -> np.ndarray:
    """Background of a mean spectrum, fitted together with its lines.

    Bremsstrahlung after Kramers, (E0 - E) / E, times the efficiency of the detector and a factor
    with a knot per FWHM, whose bends are held down as in a smoothing spline. Strong lines weigh
    less than their counts say, since their shapes are not known as well as they are counted.

    Parameters
    ----------
    energy, mean : array, shape (energy,)
        Channel centres in keV; mean counts per channel, above 0.
    lines : array, shape (line, energy)
        Shapes of the line families.
    pixels : int
        Over how many the mean is.
    resolution : float
        FWHM at Mn K alpha in eV.
    beam_energy : float
        In keV.
    """
    return _fitted(energy, mean, lines, pixels, resolution, beam_energy)[0]


def fit_spectrum(
    energy: np.ndarray,
    spectrum: np.ndarray,
    lines: np.ndarray,
    resolution: float,
    beam_energy: float,
) -> tuple[np.ndarray, float]:
    """Lines and background that describe a sum spectrum, and their misfit.

    Parameters
    ----------
    energy, spectrum : array, shape (energy,)
        Channel centres in keV; counts.
    lines : array, shape (line, energy)
        Shapes of the line families.
    resolution : float
        FWHM at Mn K alpha in eV.
    beam_energy : float
        In keV.

    Returns
    -------
    fitted : array, shape (energy,)
        Counts.
    misfit : float
        Squared residuals over their variances, summed over the channels.
    """
    used = energy >= LOWEST_FITTED
    counts = np.maximum(spectrum, _LEAST_MEAN * spectrum.mean())
    lines = lines[_distinct_rows(lines, used / counts)]
    background, peaks, misfit = _fitted(energy, counts, lines, 1, resolution, beam_energy)
    return background + peaks, misfit


def _fitted(
    energy: np.ndarray,
    mean: np.ndarray,
    lines: np.ndarray,
    pixels: int,
    resolution: float,
    beam_energy: float,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Background as `smooth_background` says, peaks, and the weighted squares that are left."""
    used = energy >= LOWEST_FITTED
    held = np.clip(energy, LOWEST_FITTED, 0.999 * beam_energy)
    width = channel_width(energy)
    position = np.cumsum(used * width * 1000 / fwhm(held, resolution))
    knots = np.arange(0, max(4, np.ceil(position[-1]) + 1))
    factors = _triangles(position, knots)
    bends = np.diff(np.eye(knots.size), 2, axis=0) / _BEND
    found = []
    # Few files say what window the detector has: the counts do.
    for plain in _bremsstrahlung(energy, resolution, beam_energy):
        plain *= np.median((mean / plain)[used])
        shapes = np.vstack([lines, factors * plain])
        peaks = np.zeros(energy.shape)
        # The weights need the peaks that they serve to find: a few rounds settle it.
        for _ in range(3):
            weights = used / (mean / pixels + (_SHAPE_ERROR * peaks) ** 2)
            weighted = shapes * weights
            gram = weighted @ shapes.T
            gram[len(lines) :, len(lines) :] += bends.T @ bends
            amplitudes = np.linalg.solve(gram, weighted @ mean)
            peaks = np.maximum(amplitudes[: len(lines)], 0) @ lines
        own = amplitudes[len(lines) :]
        # Both by the same weights but those of their peaks.
        penalty = ((bends @ own) ** 2).sum() + weights @ (mean - amplitudes @ shapes) ** 2
        found.append((float(penalty), np.maximum(own @ shapes[len(lines) :], 0), peaks))
    misfit, background, peaks = min(found, key=lambda entry: entry[0])
    return background, peaks, misfit


def _bremsstrahlung(energy: np.ndarray, resolution: float, beam_energy: float) -> list[np.ndarray]:
    """Kramers' law as a detector without and with a polymer window records it, up to a factor."""
    held = np.clip(energy, LOWEST_FITTED, 0.999 * beam_energy)
    low = (energy >= LOWEST_FITTED) & (energy < _EDGES_BELOW)
    sources = np.arange(LOWEST_FITTED / 2, _EDGES_BELOW + 0.5, _SOURCE_STEP)
    width = channel_width(energy)
    # The detector blurs the steps at absorption edges, C K of the window first of all.
    slope = resolution.slope if isinstance(resolution, Resolution) else None
    plain = Resolution(float(resolution), slope)
    blur = channel_response(sources, energy[low], plain) if low.sum() > 1 else None
    shapes = []
    for polymer in (False, True):
        detector = Detector(polymer_window=polymer)
        shape = efficiency(detector, held) * (beam_energy / held - 1)
        if blur is not None:
            emitted = efficiency(detector, sources) * np.maximum(beam_energy / sources - 1, 1e-3)
            shape[low] = emitted @ blur * _SOURCE_STEP / width
        shapes.append(shape)
    return shapes


def _triangles(position: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Triangles of height 1 on each knot that reach to the next ones, shape (knot, position)."""
    return np.array([np.interp(position, knots, row) for row in np.eye(len(knots))])


def solve_nonnegative(gram: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Least squares with amplitudes of 0 or more for many right sides at once; see `solve_both`."""
    return solve_both(gram, right)[1]


def solve_both(gram: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least squares for many right sides at once, without bound and with amplitudes of 0 or more.

    Block principal pivoting (J. Kim and H. Park, SIAM J. Sci. Comput. 33 (2011) 3261, algorithm 2):
    all variables on the wrong side change over together, or only the last of them where that did
    not help three times.

    Parameters
    ----------
    gram : array, shape (term, term)
        Positive definite matrix of the normal equations.
    right : array, shape (term, n)
        Right sides.

    Returns
    -------
    unbounded, bounded : array, shape (term, n)
    """
    # On one scale, so that one slack serves all variables.
    size = np.sqrt(np.diag(gram))[:, np.newaxis]
    inverse = np.linalg.inv(gram / (size * size.T))
    unbounded = inverse @ (right / size)
    bounded = unbounded.copy()
    # The first guess holds at 0 what is below without a bound: often there is nothing more to do.
    todo = np.flatnonzero((unbounded < 0).any(axis=0))
    bounded[:, todo] = _pivot(inverse, unbounded[:, todo])
    return unbounded / size, bounded / size


def _pivot(inverse: np.ndarray, unbounded: np.ndarray) -> np.ndarray:
    terms, count = unbounded.shape
    slack = 1e-10 * (np.abs(unbounded).max(axis=0) + np.finfo(float).tiny)
    solution = np.empty_like(unbounded)
    todo = np.arange(count)
    held = unbounded < 0
    tries, fewest = np.full(count, 3), np.full(count, terms + 1)
    while todo.size:
        gradient = _gradient(inverse, unbounded, held)
        part = unbounded + inverse @ gradient
        wrong = np.where(held, gradient, part) < -slack
        number = wrong.sum(axis=0)
        done, still = number == 0, number > 0
        solution[:, todo[done]] = np.where(held, 0, part)[:, done]
        todo, slack, number = todo[still], slack[still], number[still]
        tries, fewest = tries[still], fewest[still]
        unbounded, held, wrong = unbounded[:, still], held[:, still], wrong[:, still]
        better = number < fewest
        fewest = np.where(better, number, fewest)
        tries = np.where(better, 3, tries - 1)
        # Changing all at once may cycle; changing the last one alone cannot.
        single = np.flatnonzero(tries < 0)
        last = terms - 1 - wrong[::-1, single].argmax(axis=0)
        wrong[:, single] = False
        wrong[last, single] = True
        held = held != wrong
    return np.maximum(solution, 0)


def _gradient(inverse: np.ndarray, unbounded: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Gradient of the squares with some variables held at 0; 0 for the free ones.

    With H the inverse of the Gram matrix the solution is u + H m, u the unbounded one and m not 0
    for those held only, so that H_hh m_h = -u_h: a small system for each right side, and those of
    one size are solved together.
    """
    gradient = np.zeros_like(unbounded)
    numbers = held.sum(axis=0)
    for number in range(1, len(held) + 1):
        columns = np.flatnonzero(numbers == number)
        if columns.size:
            rows = np.nonzero(held[:, columns].T)[1].reshape(-1, number)
            matrices = inverse[rows[:, :, np.newaxis], rows[:, np.newaxis, :]]
            values = -unbounded[rows, columns[:, np.newaxis], np.newaxis]
            gradient[rows, columns[:, np.newaxis]] = np.linalg.solve(matrices, values)[..., 0]
    return gradient
