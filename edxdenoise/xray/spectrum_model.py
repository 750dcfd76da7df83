"""A linear model of a spectrum: the lines of its elements, and what lies between and beside them.

Each family of lines (K, L or M of an element) has an amplitude of 0 or more. Beside them are a
smooth background with steps at absorption edges, escape and sum peaks, peaks that no element
explains, and what is uncertain about the shape of strong peaks: their place, width, low-energy
tail and the ratios of their lines, each with a prior standard deviation. The background starts from
what lies below all peaks, so that it cannot follow a strong peak that no element explains yet.

`edxdenoise.xray.identification` decides which elements enter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.ndimage import uniform_filter1d
from scipy.special import erf

from edxdenoise.cube import Resolution, channel_width
from edxdenoise.xray.detector import (
    FWHM_PER_SIGMA,
    SI_KA_ENERGY,
    Detector,
    binned_response,
    efficiency,
    escape_fraction,
    fwhm,
)
from edxdenoise.xray.families import family_lines, window_free_efficiency
from edxdenoise.xray.lines import SYMBOLS, Line, atomic_number, edge_energy

_NO_KEY = ("", "")
# keV: below, the zero peak and the edge of the discriminator are no lines.
LOWEST_LINE = 0.2
LOWEST_FITTED = 0.16
# keV of lines that stand for what lies below, and the share of them that must reach the spectrum.
_BELOW, _LEAST_FLANK = (0.14, 0.17), 0.01
_BINS_PER_FWHM = 5
_REACH = 14  # bins, either side of a line, that it is computed for
_KNOT_SPACING = 2.0  # FWHM, between knots of the background
_BEND = 0.05  # standard deviation of the change of its slope from knot to knot
# A family with less than this share of its element's strongest is neither looked for nor fitted.
_LEAST_SHARE = 0.02
# Lines below this share of their family's strongest do not matter.
_LEAST_LINE = 0.003
# Relative prior error of the ratios of the groups of lines of a family, and of families.
_GROUP_ERROR = {"K": 0.1, "L": 0.2, "M": 0.4}
_SOFT_GROUP_ERROR, _SOFT = 0.5, 1.3  # L and M lines below this energy in keV
_FAMILY_ERROR = 0.7
# Prior height of the step of the background at an absorption edge, as a share: in a bulk
# specimen, and in a thin foil, which beam energies from this one (keV) mean.
_EDGE, _THIN_EDGE, _THIN_FROM = 0.3, 0.03, 40.0
_EDGES = ("K", "L3", "M5")
_SLOWING = tuple((np.arange(12) + 0.5) / 12)
# Prior errors of the shape of strong peaks: width and shoulder as shares, and tail as a share of
# that of a depth in nm.
_WIDTH, _TAIL, _TAIL_DEPTH, _SHOULDER = 0.04, 1.0, 50.0, 0.03
# keV: a peak further from its place than any axis is another element's.
_OTHER_PLACE = 0.025
# keV by which a peak's place may differ from that of its axis: K lines, and L lines, which overlap
# more. The gain of an axis is right within this share.
_OWN_PLACE, _OWN_PLACE_OUTER, _GAIN = 0.003, 0.01, 0.001
# Share by which a width may differ from the law of the axis: widths of soft lines hang on the
# electronic noise and on incomplete charge collection.
_OWN_WIDTH, _OWN_WIDTH_SOFT = 0.02, 0.1
_DIAGONAL = 0.01
# Relative, on the diagonal of the normal equations.
_RIDGE = 1e-10
_STRONG = 12.0  # standard deviations from which a family has such errors
_PILE_UP = 0.03
# Without a stable isotope and short-lived, or neon: no specimen holds them unless its owner
# says so.
_NEVER = frozenset("Ne Tc Pm Po At Rn Fr Ra Ac Pa".split())


@dataclass(frozen=True)
class ShapeLaw:
    """Where lines stand on an axis, and how wide they are.

    Parameters
    ----------
    shift, gain : float
        The axis reads ``energy + shift + gain * energy`` in keV for a line at `energy`.
    resolution : float
        FWHM at Mn K alpha in eV.
    """

    shift: float = 0.0
    gain: float = 0.0
    resolution: float = 130.0

    def place(self, energy: np.ndarray | float) -> np.ndarray:
        """Where the axis shows lines, in keV."""
        return np.asarray(energy) * (1 + self.gain) + self.shift


@dataclass(frozen=True)
class LineGroup:
    """Lines of a family that keep their ratio, such as K beta."""

    name: str
    energies: np.ndarray
    weights: np.ndarray
    error: float


@dataclass(frozen=True)
class Family:
    """Lines of one shell; the weights of all groups add up to 1, the main group is first.

    A family without its alpha line, such as Ca L l, is fitted but identifies no element.
    """

    element: str
    name: str
    energy: float
    share: float
    groups: tuple[LineGroup, ...]
    identifies: bool


def _photons(element: str, beam: float) -> dict[str, dict[Line, float]]:
    """Photons of every line by shell: of electrons that cross a foil, or that stop in bulk.

    In bulk they have all energies down from the beam's, and cross about as much mass at each as
    their energy.
    """
    slowing = (1.0,) if beam >= _THIN_FROM else _SLOWING
    shells: dict[str, dict[Line, float]] = {}
    for share in slowing:
        for shell, lines in family_lines(element, share * beam).items():
            made = shells.setdefault(shell, {})
            for line, photons in lines:
                made[line] = made.get(line, 0.0) + share * photons
    return shells


@lru_cache(maxsize=4096)
def families_of(element: str, beam: float, low: float, high: float) -> tuple[Family, ...]:
    """Families of an element with a main line within the limits, highest energy first."""
    shells = []
    for shell, photons in _photons(element, beam).items():
        seen = [
            (line, number * window_free_efficiency(line.energy))
            for line, number in photons.items()
            if LOWEST_FITTED < line.energy < high
        ]
        if seen:
            shells.append((shell, seen))
    strongest = max((p for _, seen in shells for _, p in seen), default=0.0)
    found = []
    for shell, seen in shells:
        main, largest = max(seen, key=lambda pair: pair[1])
        total = sum(p for _, p in seen)
        first = main.name.partition("_")[2][1]
        first = "a" if shell == "M" and first == "b" else first
        inside = low < main.energy < high
        if largest < _LEAST_SHARE * strongest or not inside:
            continue
        groups: dict[str, list[tuple[float, float]]] = {}
        for line, p in seen:
            if p > _LEAST_LINE * largest:
                kind = line.name.partition("_")[2][1]
                kind = "a" if shell == "M" and kind == "b" else kind
                groups.setdefault(kind, []).append((line.energy, p / total))
        soft = shell != "K" and main.energy < _SOFT
        error = _SOFT_GROUP_ERROR if soft else _GROUP_ERROR[shell]
        ordered = sorted(groups, key=lambda kind: kind != first)
        name = main.name.rstrip("0123456789,") if main.name[-1].isdigit() else main.name
        found.append(
            Family(
                element,
                name,
                main.energy,
                total / strongest,
                tuple(_group(f"{element}_{shell}{kind}", groups[kind], error) for kind in ordered),
                first == "a",
            )
        )
    return tuple(sorted(found, key=lambda family: -family.energy))


def _group(name: str, lines: Sequence[tuple[float, float]], error: float) -> LineGroup:
    energies, weights = np.array(lines).T
    return LineGroup(name, energies, weights, error)


@dataclass
class ModelFit:
    """A fitted model: residual, what candidates are projected by, amplitudes of families."""

    weight: np.ndarray
    columns: np.ndarray
    factor: tuple[np.ndarray, bool]
    residual: np.ndarray
    expected: np.ndarray
    background: np.ndarray
    amplitudes: dict[tuple[str, str], float]
    errors: dict[tuple[str, str], float]
    shapes: dict[tuple[str, str, str], tuple[float, float]] = field(default_factory=dict)

    @property
    def variance(self) -> np.ndarray:
        """Of the bins: Poisson, and what the shape of strong peaks leaves unknown."""
        peaks = np.maximum(self.expected - self.background, 0)
        return np.maximum(self.expected, 0.02) + (_DIAGONAL * peaks) ** 2

    def project(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Information of columns, (bin, n), and their scores once the model is fitted too."""
        weighted = columns * self.weight[:, None]
        cross = self.columns.T @ weighted
        scores = weighted.T @ self.residual
        return (columns * weighted).sum(0) - (cross * cho_solve(self.factor, cross)).sum(0), scores

    def gram(self, columns: np.ndarray) -> np.ndarray:
        """Information matrix of a few columns once the model is fitted too."""
        weighted = columns * self.weight[:, None]
        cross = self.columns.T @ weighted
        return columns.T @ weighted - cross.T @ cho_solve(self.factor, cross)


class SpectrumModel:
    """A spectrum in bins of a fifth of a FWHM, with the shapes of all candidates."""

    def __init__(
        self,
        energy: np.ndarray,
        spectrum: np.ndarray,
        beam: float,
        law: ShapeLaw,
        hints: frozenset[str] = frozenset(),
    ) -> None:
        self.energy, self.spectrum, self.beam, self.law = energy, spectrum, beam, law
        self.hints = hints
        step = channel_width(energy)
        used = np.flatnonzero((energy >= LOWEST_FITTED) & (energy <= beam))
        self.used, self.step = used, step
        inside = energy[used]
        width = fwhm(inside, law.resolution) / 1000
        position = np.cumsum(step / width)
        self.starts = np.unique(np.floor(position * _BINS_PER_FWHM), return_index=True)[1]
        self.data = self._binned(spectrum)
        self.edges = np.append(inside[self.starts] - step / 2, inside[-1] + step / 2)
        self.centres = (self.edges[1:] + self.edges[:-1]) / 2
        low, high = LOWEST_LINE, float(inside[-1])
        # The whole main line must be seen.
        high -= 0.5 * float(fwhm(high, law.resolution)) / 1000
        low = max(low, float(inside[0]) + 0.4 * float(fwhm(low, law.resolution)) / 1000)
        self.families = {
            element: found
            for element in SYMBOLS
            if (element not in _NEVER or element in hints)
            and (found := families_of(element, beam, round(low, 4), round(high, 4)))
            and any(family.identifies for family in found)
        }
        self.candidates = [f for found in self.families.values() for f in found if f.identifies]
        self._shapes: dict[tuple[str, ...], list[np.ndarray]] = {}
        knots = np.arange(0, position[-1] / _KNOT_SPACING + 2)
        at = np.interp(self.centres, inside, position) / _KNOT_SPACING
        self._factors = np.array([np.interp(at, knots, row) for row in np.eye(len(knots))])
        held = np.minimum(self.centres, 0.98 * beam)
        kramers = efficiency(Detector(), held) * (beam / held - 1) * np.diff(self.edges)
        # Many spectra are nearly empty: the level is that of the quieter stretches.
        stretches = np.arange(0, self.data.size, 4 * _BINS_PER_FWHM)
        ratio = np.add.reduceat(self.data, stretches) / np.add.reduceat(kramers, stretches)
        level = max(float(np.percentile(ratio, 30)), 0.05 * float(ratio.mean()), 1e-12)
        self._least = level * kramers
        # The background bends little from bremsstrahlung, and from what lies below all peaks.
        self._plain = np.maximum(self._clipped(), 0.05 * self._least)
        window = efficiency(Detector(polymer_window=True), held) / efficiency(Detector(), held)
        # Its absorption edges alone: all that is smooth is left to the knots.
        edges = uniform_filter1d(window, _BINS_PER_FWHM) - uniform_filter1d(
            window, 8 * _BINS_PER_FWHM
        )
        self._window = self._plain * edges / max(float(np.ptp(window)), 1e-12)
        self._pile = self._binned(self._pile_up())
        # Peaks that no element explains, true energies in keV.
        self.unknown: list[float] = []
        self.grid = self.centres[(self.centres > low) & (self.centres < high)][::2]
        self.anywhere = np.array([self.lines(np.array([e]), np.ones(1)) for e in self.grid]).T

    def _binned(self, spectrum: np.ndarray) -> np.ndarray:
        return np.add.reduceat(np.asarray(spectrum, float)[self.used], self.starts)

    def _clipped(self) -> np.ndarray:
        """Counts below all peaks: bins are clipped at the mean of their neighbours, ever nearer.

        The SNIP algorithm of C. G. Ryan et al., Nucl. Instrum. Methods B 34 (1988) 396.
        """
        widths = np.diff(self.edges)
        smooth = uniform_filter1d(self.data / widths, _BINS_PER_FWHM)
        low = np.log(np.log(np.sqrt(smooth + 1) + 1) + 1)
        for reach in range(2 * _BINS_PER_FWHM, 0, -1):
            inner = np.pad(low, reach, mode="edge")
            mean = (inner[: low.size] + inner[2 * reach :]) / 2
            low = np.minimum(low, mean)
        clipped = (np.exp(np.exp(low) - 1) - 1) ** 2 - 1
        return np.maximum(uniform_filter1d(clipped, 2 * _BINS_PER_FWHM), 0) * widths

    def _pile_up(self) -> np.ndarray:
        """Spectrum of two photons at once, per count."""
        energy, step = self.energy, self.step
        kept = np.where(energy >= LOWEST_FITTED, self.spectrum, 0.0)
        total = kept.sum()
        if total <= 0:
            return kept
        size = 2 * energy.size
        both = np.fft.irfft(np.fft.rfft(kept, size) ** 2, size) / total
        pairs = 2 * energy[0] + step * np.arange(size)
        return np.maximum(np.interp(energy, pairs, both, left=0, right=0), 0)

    def lines(
        self, energies: np.ndarray, weights: np.ndarray, *, widen: float = 1.0, move: float = 0.0
    ) -> np.ndarray:
        """Counts per bin of lines of these weights, shape (bin,)."""
        places = self.law.place(energies) + move
        sigma = fwhm(np.maximum(energies, 0.05), self.law.resolution) / 1000 / FWHM_PER_SIGMA
        near = np.searchsorted(self.edges, places)[:, None] + np.arange(-_REACH, _REACH + 1)
        near = np.clip(near, 0, self.data.size)
        z = (self.edges[near] - places[:, None]) / (np.sqrt(2) * widen * sigma[:, None])
        shares = 0.5 * np.diff(erf(z), axis=1) * np.asarray(weights)[:, None]
        return np.bincount(near[:, :-1].ravel(), shares.ravel(), self.data.size + 1)[:-1]

    def shapes(self, family: Family) -> list[np.ndarray]:
        """Family, main group, the rest of it, slope of the main group, then all groups but that."""
        key = (family.element, family.name)
        if key not in self._shapes:
            groups = [self.lines(group.energies, group.weights) for group in family.groups]
            main = family.groups[0]
            slope = self._slope(main.energies, main.weights)
            rest = sum(groups[1:], np.zeros(self.data.size))
            self._shapes[key] = [groups[0] + rest, groups[0], rest, slope, *groups[1:]]
        return self._shapes[key]

    def errors(self, family: Family) -> list[np.ndarray]:
        """Change of a family with place (keV), width and tail; its escape peaks; a shoulder."""
        key = (family.element, family.name, "errors")
        if key not in self._shapes:
            whole = self.shapes(family)[0]
            energies = np.concatenate([group.energies for group in family.groups])
            weights = np.concatenate([group.weights for group in family.groups])
            above = energies > SI_KA_ENERGY + 0.1
            escape = np.zeros(self.data.size)
            if above.any():
                share = weights[above] * escape_fraction(energies[above])
                escape = self.lines(energies[above] - SI_KA_ENERGY, share)
            self._shapes[key] = [
                self._slope(energies, weights),
                (self.lines(energies, weights, widen=1.02) - whole) / 0.02,
                self._tail(energies, weights),
                escape,
            ]
            if not self._narrow(family.energy):
                # In channels as wide as peaks the shape of these is known less well.
                self._shapes[key].append(self._shoulder(energies, weights) - whole)
        return self._shapes[key]

    def _edge_steps(self, element: str) -> list[np.ndarray]:
        """Background above each absorption edge of an element within the spectrum.

        Edges whose lines lie below the spectrum are among them.
        """
        key = (element, "edges")
        if key not in self._shapes:
            edges = [edge_energy(atomic_number(element), shell) for shell in _EDGES]
            low, high = self.edges[0] + 0.05, self.edges[-1]
            self._shapes[key] = [self._step_at(edge) for edge in edges if low < edge < high]
        return self._shapes[key]

    def _step_at(self, edge: float) -> np.ndarray:
        sigma = float(fwhm(edge, self.law.resolution)) / 1000 / FWHM_PER_SIGMA
        above = erf((self.centres - self.law.place(edge)) / (np.sqrt(2) * sigma))
        # In the neighbourhood alone: the knots of the background follow what is smooth.
        near = np.exp(-np.maximum(self.centres - edge, 0) / (8 * sigma))
        return self._plain * 0.5 * (1 + above) * near

    def _slope(self, energies: np.ndarray, weights: np.ndarray) -> np.ndarray:
        by = 0.002
        ends = [self.lines(energies, weights, move=move) for move in (by, -by)]
        return (ends[0] - ends[1]) / (2 * by)

    def fit(
        self, accepted: Sequence[str], place: float, start: ModelFit | None = None, turns: int = 3
    ) -> ModelFit:
        """Fit the accepted elements, background and artefacts; amplitudes are 0 or more."""
        families = [family for element in accepted for family in self.families[element]]
        fit = start
        if start is None:
            smooth = uniform_filter1d(self.data, 2 * _BINS_PER_FWHM)
            variance = np.maximum(smooth, 0.05)
        else:
            variance = start.variance
        barred: set[tuple[str, str]] = set()
        for _ in range(turns):
            columns, names, precision, means = self._columns(families, fit, place, barred)
            weight = 1 / variance
            weighted = columns * weight[:, None]
            matrix = columns.T @ weighted
            knots = len(self._factors)
            bends = np.diff(np.eye(knots), 2, axis=0) / _BEND
            matrix[:knots, :knots] += bends.T @ bends + 1e-4 * np.eye(knots)
            matrix[range(len(matrix)), range(len(matrix))] += precision
            # Peaks without a name may be alike, so that only their sum is known.
            matrix[range(len(matrix)), range(len(matrix))] *= 1 + _RIDGE
            right = weighted.T @ self.data + precision * means
            right[:knots] += 1e-4
            factor = cho_factor(matrix)
            solution = cho_solve(factor, right)
            covariance = cho_solve(factor, np.eye(len(matrix)))
            fitted = columns @ solution
            background = columns[:, :knots] @ solution[:knots]
            amplitudes, errors, shapes = {}, {}, {}
            for number, (kind, key) in enumerate(names):
                value, error = solution[knots + number], covariance[knots + number][knots + number]
                if kind == "family":
                    amplitudes[key], errors[key] = float(value), float(np.sqrt(error))
                elif kind == "edge":
                    background = background + value * columns[:, knots + number]
                elif kind == "window":
                    background = background + value * self._window
                elif kind in ("place", "width"):
                    shapes[(*key, kind)] = float(value), float(np.sqrt(error))
            background = np.maximum(background, 0.02 * self._least)
            fit = ModelFit(
                weight,
                columns,
                factor,
                self.data - fitted,
                np.maximum(fitted, background * 0.5),
                background,
                amplitudes,
                errors,
                shapes,
            )
            barred |= {key for key, value in amplitudes.items() if value <= 0}
            variance = fit.variance
        assert fit is not None
        return fit

    def _columns(
        self,
        families: Sequence[Family],
        before: ModelFit | None,
        place: float,
        barred: set[tuple[str, str]],
    ) -> tuple[np.ndarray, list[tuple[str, tuple[str, str]]], np.ndarray, np.ndarray]:
        """Columns of the model, kind and key of those beside the knots, precision and mean."""
        columns = [factor * self._plain for factor in self._factors]
        precision, means = [0.0] * len(columns), [0.0] * len(columns)
        names: list[tuple[str, tuple[str, str]]] = []

        def add(
            kind: str,
            key: tuple[str, str],
            column: np.ndarray,
            error: float = np.inf,
            mean: float = 0.0,
        ) -> None:
            columns.append(column)
            names.append((kind, key))
            precision.append(0.0 if np.isinf(error) else 1 / error**2)
            means.append(mean)

        counts = {} if before is None else before.amplitudes
        escape = np.zeros(self.data.size)
        seen = set()
        for family in families:
            key = (family.element, family.name)
            shapes = self.shapes(family)
            if key in barred:
                add("barred", key, shapes[0], 1e-6)
                continue
            number = max(counts.get(key, 0.0), 0.0)
            mean, error = self._prior(family, before)
            add("family", key, shapes[0], error, mean)
            if not number:
                continue
            for group, shape in zip(family.groups[1:], shapes[4:]):
                if number * shape.sum() > 1:
                    add("group", key, shape, group.error * number)
            seen.add(family.element)
            place_shape, width_shape, tail_shape, escape_shape, *shoulders = self.errors(family)
            if before is not None and number > _STRONG * before.errors[key]:
                add("place", key, number * place_shape, place)
                add("width", key, number * width_shape, _WIDTH)
                add("tail", key, number * tail_shape, _TAIL)
                for shoulder in shoulders:
                    add("shoulder", key, number * shoulder, _SHOULDER)
            escape += number * escape_shape
        edge_error = _EDGE if self.beam < _THIN_FROM else _THIN_EDGE
        for element in sorted(seen):
            for step in self._edge_steps(element):
                add("edge", _NO_KEY, step, edge_error)
        if escape.any():
            add("escape", _NO_KEY, escape, 0.5, 1.0)
        for energy in self.unknown:
            add("unknown", _NO_KEY, self.lines(np.array([energy]), np.ones(1)))
            add("unknown", _NO_KEY, self._slope(np.array([energy]), np.ones(1)))
        # Soft lines and the zero peak, whose flank reaches into the spectrum: of any shape where
        # channels are narrow enough to tell.
        for energy in _BELOW[: 2 if self._narrow(_BELOW[0]) else 1]:
            flank = self.lines(np.array([energy]), np.ones(1))
            if flank.sum() > _LEAST_FLANK:
                add("below", _NO_KEY, flank)
        add("pile-up", _NO_KEY, self._pile, _PILE_UP)
        add("window", _NO_KEY, self._window, 0.3)
        return np.array(columns).T, names, np.array(precision), np.array(means)

    def _prior(self, family: Family, before: ModelFit | None) -> tuple[float, float]:
        """Mean and error of a family's counts, from the most certain one of its element."""
        if before is None:
            return 0.0, np.inf
        mates = [
            (before.amplitudes[key] / before.errors[key], mate)
            for mate in self.families[family.element]
            if (key := (mate.element, mate.name)) in before.amplitudes
        ]
        if not mates:
            return 0.0, np.inf
        best = max(mates, key=lambda pair: pair[0])[1]
        if best is family or best.name == family.name:
            return 0.0, np.inf
        predicted = before.amplitudes[best.element, best.name] * family.share / best.share
        return 0.7 * max(predicted, 0.0), _FAMILY_ERROR * max(predicted, 1.0)

    def _tail(self, energies: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Change of lines by incomplete charge collection in `_TAIL_DEPTH` of silicon."""
        edges = (self.edges - self.law.shift) / (1 + self.law.gain)
        with_tail, without = (
            binned_response(energies, edges, Resolution(self.law.resolution, None, depth))
            for depth in (_TAIL_DEPTH, 0.0)
        )
        return weights @ (with_tail - without)

    def _narrow(self, energy: float) -> bool:
        """Whether a peak at `energy` is as wide as two channels."""
        return 2000 * self.step < float(fwhm(energy, self.law.resolution))

    def _shoulder(self, energies: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Lines smeared towards lower energy, over about a FWHM."""
        steps = np.arange(1, 9)
        shares = np.exp(-steps / 2.0)
        widths = fwhm(energies, self.law.resolution) / 1000
        places = energies - 0.4 * steps[:, None] * widths
        amounts = weights * (shares / shares.sum())[:, None]
        kept = places > 0.05
        return self.lines(places[kept], amounts[kept])

    def calibrated(self, accepted: Sequence[str], fit: ModelFit) -> SpectrumModel:
        """The same with the scale and widths that the strong peaks of `accepted` show."""
        if not accepted:
            return self
        rows = [
            (
                family.energy,
                *fit.shapes[*key, "place"],
                *fit.shapes[*key, "width"],
                _OWN_PLACE if family.name.endswith("Ka") else _OWN_PLACE_OUTER,
            )
            for element in accepted
            for family in self.families[element]
            # The lines of soft L families and of M families are too uncertain for a calibration.
            if (family.name.endswith("Ka") or family.name.endswith("La") and family.energy > _SOFT)
            and (key := (element, family.name)) + ("place",) in fit.shapes
            # A line further from its place than any axis is another element's.
            and abs(fit.shapes[*key, "place"][0]) < _OTHER_PLACE
        ]
        if not rows:
            return self
        energy, move, move_error, width, width_error, own = np.array(rows).T
        weight = 1 / (move_error**2 + own**2)
        columns = np.column_stack([np.ones(energy.size), energy])
        prior = np.diag([1 / 0.02**2, 1 / _GAIN**2])
        matrix = columns.T @ (columns * weight[:, None]) + prior
        shift, gain = np.linalg.solve(matrix, columns.T @ (weight * move))
        # Relative widths to one resolution: FWHM^2 = slope (E - E_Mn) + R^2.
        now = fwhm(energy, self.law.resolution) / 1000
        by_resolution = (self.law.resolution / 1000) / now**2
        own_width = np.where(energy > _SOFT, _OWN_WIDTH, _OWN_WIDTH_SOFT)
        weight = 1 / (width_error**2 + own_width**2)
        change = (weight * by_resolution * width).sum() / (
            (weight * by_resolution**2).sum() + 1 / 0.015**2
        )
        resolution = float(np.clip(self.law.resolution + 1000 * change, 115, 200))
        law = replace(
            self.law,
            shift=self.law.shift + float(shift),
            gain=self.law.gain + float(gain),
            resolution=resolution,
        )
        return SpectrumModel(self.energy, self.spectrum, self.beam, law, self.hints)
