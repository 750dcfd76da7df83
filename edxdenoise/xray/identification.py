"""Which elements a spectrum holds: all lines of all candidates are fitted together, and tested.

`edxdenoise.xray.spectrum_model` models the spectrum as the lines of the elements found so far, a
background, artefacts of the detector, and what is uncertain of them. Every other element is a
candidate. Its significance is its net counts over their error in that model, so that neither a
neighbour nor the flank of a strong peak can be mistaken for it. The most significant candidates
enter the model, if

- the centroid of the main line agrees within .3 FWHM with its energy,
- the main line is there in proportion to the rest of its family,
- families at higher energy that it would have to show are there as well.

A strong peak that no candidate explains enters the model without a name.

This is repeated until no candidate exceeds the level at which one false element is expected in a
hundred spectra (Bonferroni, over all candidate families). The scale of the axis and the width of
the peaks are corrected on the way by the strong peaks themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import norm, poisson
from threadpoolctl import threadpool_limits

from edxdenoise import schema as v
from edxdenoise.blocks import compute, masked_sums
from edxdenoise.cube import detector_resolution, sum_spectrum
from edxdenoise.xray.detector import fwhm
from edxdenoise.xray.families import DEFAULT_BEAM_ENERGY, element_of
from edxdenoise.xray.lines import line_energy
from edxdenoise.xray.peaks import chess_board, local_peaks, square_side
from edxdenoise.xray.spectrum_model import (
    LOWEST_LINE,
    Family,
    ModelFit,
    ShapeLaw,
    SpectrumModel,
)

# Attribute of a map for elements that its user named: they are present, seen or not.
GIVEN = "elements_given"
# Share of an element's strongest line above which a line is worth listing.
_LISTED_LINE = 0.05
WHOLE_MAP = "whole map"
FALSE_DISCOVERY_RATE = 0.01
_FEWEST, _WIDEST_CHANNEL = 20, 0.2  # channels, and their width in keV
# Below this share of the counts of the strongest family an artefact of the detector cannot be
# distinguished from an element.
_TRACE = 1e-3
# The strongest peaks are explained first: a candidate must have this share of the significance of
# the largest peak left. One that is this many times beyond the level, and that nothing explains,
# enters the model without a name, so that it does not bend the background.
_STRONGEST_FIRST, _UNKNOWN = 0.3, 2.0
# Farthest centroid from a line, in FWHM.
_FARTHEST = 0.3
# Share of the family that the main line alone must show, of what nature gives it.
_MAIN_LINE = 0.4
# The main line alone, above a straight background over this many FWHM either side, must reach this
# share of the level of significance.
_SURROUNDINGS, _LOCAL = 1.7, 0.8
# By how much weaker than predicted a family at higher, and at lower, energy may be.
_PROPORTION_ABOVE, _PROPORTION_BELOW = 2.0, 25.0
_COMPARABLE, _SEEN = 0.5, 2.0
# Prior odds, as a difference of chi squared: an unusual element must fit better than a common one.
_UNUSUAL, _RARE = 25.0, 40.0
_COMMON = frozenset("C N O F Na Mg Al Si P S Cl K Ca Ti V Cr Mn Fe Co Ni Cu Zn".split())
_NOBLE = frozenset("Ar Kr Xe".split())
# Prior errors of the place of strong peaks in keV, where the axis is known and where it is not.
_PLACE, _FIRST_PLACE = 0.004, 0.012
_TURNS = 14
# Alternatives of an element: main lines this near, in FWHM, that fit nearly as well.
_CONFUSED, _AS_WELL = 0.6, 12.0
_STRAY = {
    "Cu": "grid, holder or pole piece",
    "Mo": "grid or holder",
    "Ni": "grid",
    "Au": "grid or coating",
    "Al": "holder or detector",
    "Si": "detector or support film",
    "C": "support film or contamination",
    "Fe": "pole piece",
    "Co": "pole piece",
    "Ga": "focused ion beam",
    "Pt": "protective layer or coating",
}


@dataclass(frozen=True)
class FoundLine:
    """Lines of an element that make one peak, such as its K beta lines.

    Parameters
    ----------
    name : str
        Such as ``"Cu_Kb"``.
    energy : float
        Mean in keV.
    net_counts : float
        In the spectrum, by the ratios within its family.
    parts : tuple of (float, float)
        Energy in keV and net counts of each of the lines.
    """

    name: str
    energy: float
    net_counts: float
    parts: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class FoundElement:
    """An element of a spectrum.

    Parameters
    ----------
    element : str
        Symbol.
    line : str
        Its main line, such as ``"Pb_La"``.
    net_counts, net_stddev : float
        Of the family of this line, above the background and its neighbours.
    significance : float
        Net counts over their error with all alternatives in the model.
    where : str
        ``"whole map"``, or the part of the map in whose spectrum it was found.
    lines : tuple of FoundLine
        Its lines in the spectrum, strongest first.
    confused_with : tuple of str
        Elements that explain the peak nearly as well.
    stray : str
        Where it comes from if not from the specimen; empty if nowhere else is usual.
    """

    element: str
    line: str
    net_counts: float
    net_stddev: float
    significance: float
    where: str = WHOLE_MAP
    lines: tuple[FoundLine, ...] = ()
    confused_with: tuple[str, ...] = ()
    stray: str = ""


@dataclass(frozen=True)
class Identification:
    """What was found, and the scale on which it was found.

    Parameters
    ----------
    elements : tuple of FoundElement
        Most significant first.
    law : ShapeLaw
        Of the energy axis and the peak widths.
    """

    elements: tuple[FoundElement, ...]
    law: ShapeLaw


def find_elements(ds: xr.Dataset, *, elements: Iterable[str] = ()) -> pd.DataFrame:
    """Find the elements of a spectrum image in its sum spectrum and in small parts of the map.

    Parameters
    ----------
    ds : Dataset
        With ``counts``, in memory or lazy (they are read block by block, thrice, or once where
        `with_local_elements` looked), or ``weight_energy``, which holds their sum.
    elements : iterable of str
        Elements that are expected. They and those that the file names are hints: each is listed
        only if its lines are there.

    Returns
    -------
    pandas.DataFrame
        One row per element, most significant first, those of parts of the map last:
        ``element``; ``line``, its main line;
        ``energy`` of it in keV; ``net_counts`` and ``net_stddev`` of the family of this line;
        ``significance``, net counts over their error with all alternatives in the model (one false
        element is expected in a hundred maps); ``where``, the whole map or a part of it; ``lines``,
        its strongest lines with their net counts; ``confused_with``, elements that explain
        the line nearly as well; ``stray``, where the element usually comes from if not from the
        specimen.

    Examples
    --------
    >>> from edxdenoise import simulate
    >>> phantom = simulate("core-shell", shape=(32, 32), channels=1000)
    >>> sorted(find_elements(phantom).element)
    ['C', 'Co', 'Cu', 'Fe', 'O', 'Pt', 'Si']
    """
    rows = []
    for found in identified(with_local_elements(ds, elements), elements).elements:
        largest = max(line.net_counts for line in found.lines)
        lines = ", ".join(
            f"{line.name} {line.net_counts:.0f}"
            for line in found.lines
            if line.net_counts > _LISTED_LINE * largest
        )
        rows.append(
            {
                "element": found.element,
                "line": found.line,
                "energy": line_energy(found.line),
                "net_counts": found.net_counts,
                "net_stddev": found.net_stddev,
                "significance": found.significance,
                "where": found.where,
                "lines": lines,
                "confused_with": ", ".join(found.confused_with),
                "stray": found.stray,
            }
        )
    names = "element line energy net_counts net_stddev significance where lines confused_with stray"
    return pd.DataFrame(rows, columns=names.split())


def _local_elements(
    ds: xr.Dataset, whole: Identification, expected: Iterable[str]
) -> list[FoundElement]:
    """Elements of small parts of a map alone.

    The parts are found in one half of the pixels; the spectra of the other half are tested.
    Significances are those of this half, net counts those of the whole part.
    """
    energy = ds[v.DIM_ENERGY].values.astype(float)
    if not whole.elements:
        return []
    lines = [line for one in whole.elements for line in one.lines if line.net_counts > 0]
    strong = [line for line in lines if line.net_counts > _LISTED_LINE * lines[0].net_counts]
    parts = local_peaks(ds, [float(whole.law.place(line.energy)) for line in strong])
    if not parts:
        return []
    half = ~chess_board(parts[0].shape)
    masks = np.array([part & half for part in parts] + parts)
    (spectra,) = compute(masked_sums(ds[v.COUNTS].data, _of_pixels(masks, ds)))
    hints = frozenset(_hints(ds, expected))
    known = {one.element for one in whole.elements}
    found: dict[str, FoundElement] = {}
    for number, part in enumerate(parts):
        tested, entire = spectra[number], spectra[number + len(parts)]
        if not tested.sum() > 0:
            continue
        result = identify(
            energy,
            tested,
            beam_energy=ds.attrs.get("beam_energy"),
            resolution=whole.law.resolution,
            hints=hints | known,
            law=whole.law,
            tests=len(parts),
        )
        factor = entire.sum() / tested.sum()
        for one in result.elements:
            # What a few counts show is claimed only where nothing else explains it.
            if one.element not in known | set(found) and not one.confused_with:
                found[one.element] = replace(
                    one,
                    net_counts=factor * one.net_counts,
                    net_stddev=factor * one.net_stddev,
                    lines=tuple(
                        replace(line, net_counts=factor * line.net_counts) for line in one.lines
                    ),
                    where=_place_in_words(part, ds),
                )
    return sorted(found.values(), key=lambda one: -one.significance)


def _of_pixels(masks: np.ndarray, ds: xr.Dataset) -> np.ndarray:
    """Masks (mask, y, x) of the pixels of a map from those of squares of pixels."""
    rows, columns = ds.sizes[v.DIM_Y], ds.sizes[v.DIM_X]
    square = square_side((rows, columns))
    large = masks.repeat(square, axis=1).repeat(square, axis=2)
    edges = [(0, 0), (0, rows - large.shape[1]), (0, columns - large.shape[2])]
    return np.pad(large, edges)


def _place_in_words(part: np.ndarray, ds: xr.Dataset) -> str:
    """Share of the map and the box, in pixels, of a part of it."""
    words = [f"{100 * part.mean():.2g} % of the map"]
    square = square_side((ds.sizes[v.DIM_Y], ds.sizes[v.DIM_X]))
    for axis, dim in enumerate((v.DIM_Y, v.DIM_X)):
        seen = np.flatnonzero(part.any(axis=1 - axis))
        words.append(f"{dim} {seen[0] * square}:{(seen[-1] + 1) * square}")
    return ", ".join(words)


def _hints(ds: xr.Dataset, expected: Iterable[str]) -> list[str]:
    return [*expected, *map(str, [*ds.attrs.get("elements", ()), *ds.attrs.get(GIVEN, ())])]


def with_local_elements(ds: xr.Dataset, given: Iterable[str] = ()) -> xr.Dataset:
    """Note which elements small parts of a map alone hold, for `present_elements` and labels.

    Parameters
    ----------
    ds : Dataset
        With ``counts``, which are read twice; without them, or where it was done, nothing is noted.
    given : iterable of str
        Elements that are expected.
    """
    if v.LOCAL_COUNTS in ds or v.COUNTS not in ds:
        return ds
    found = _local_elements(ds, _of_sum(ds, given), given)
    lines = [line for one in found for line in one.lines]
    parts = [(line.name, *part) for line in lines for part in line.parts]
    return ds.assign(
        {
            v.LOCAL_COUNTS: v.LOCAL_COUNTS.array([one.net_counts for one in found]),
            v.LOCAL_STDDEV: v.LOCAL_STDDEV.array([one.net_stddev for one in found]),
            v.LOCAL_SIGNIFICANCE: v.LOCAL_SIGNIFICANCE.array([one.significance for one in found]),
            v.LOCAL_LINE_COUNTS: v.LOCAL_LINE_COUNTS.array([line.net_counts for line in lines]),
            v.LOCAL_PART_COUNTS: v.LOCAL_PART_COUNTS.array([counts for *_, counts in parts]),
        }
    ).assign_coords(
        {
            v.DIM_LOCAL_ELEMENT: [one.element for one in found],
            v.COORD_LOCAL_MAIN_LINE: (v.DIM_LOCAL_ELEMENT, [one.line for one in found]),
            v.COORD_LOCAL_PLACE: (v.DIM_LOCAL_ELEMENT, [one.where for one in found]),
            v.DIM_LOCAL_LINE: [line.name for line in lines],
            v.COORD_LOCAL_LINE_ENERGY: (v.DIM_LOCAL_LINE, [line.energy for line in lines]),
            v.DIM_LOCAL_PART: [name for name, *_ in parts],
            v.COORD_LOCAL_PART_ENERGY: (v.DIM_LOCAL_PART, [energy for _, energy, _ in parts]),
        }
    )


def _noted(ds: xr.Dataset) -> list[FoundElement]:
    """Elements that `with_local_elements` noted."""
    if not ds.sizes.get(v.DIM_LOCAL_ELEMENT):
        return []
    parts: dict[str, list[tuple[float, float]]] = {}
    for name, energy, counts in _rows(
        ds, v.DIM_LOCAL_PART, v.COORD_LOCAL_PART_ENERGY, v.LOCAL_PART_COUNTS
    ):
        parts.setdefault(name, []).append((energy, counts))
    lines: dict[str, list[FoundLine]] = {}
    for name, energy, counts in _rows(
        ds, v.DIM_LOCAL_LINE, v.COORD_LOCAL_LINE_ENERGY, v.LOCAL_LINE_COUNTS
    ):
        line = FoundLine(name, energy, counts, tuple(parts[name]))
        lines.setdefault(element_of(name), []).append(line)
    columns = (v.DIM_LOCAL_ELEMENT, v.COORD_LOCAL_MAIN_LINE, v.LOCAL_COUNTS, v.LOCAL_STDDEV)
    return [
        FoundElement(
            element,
            main,
            counts,
            stddev,
            significance,
            where=place,
            lines=tuple(lines[element]),
            stray=_STRAY.get(element, ""),
        )
        for element, main, counts, stddev, significance, place in _rows(
            ds, *columns, v.LOCAL_SIGNIFICANCE, v.COORD_LOCAL_PLACE
        )
    ]


def _rows(ds: xr.Dataset, *names: str) -> Iterator[tuple[Any, ...]]:
    """Rows of a table whose columns are variables along one dimension."""
    return zip(*(ds[name].values.tolist() for name in names))


def present_elements(ds: xr.Dataset, given: Iterable[str] = ()) -> tuple[str, ...]:
    """Elements to reckon with in a map: those given, and those found in it.

    They are found in its sum spectrum and, where `with_local_elements` looked, in small parts.
    Windows, fits, labels and maps all ask this function. A list in the file is a hint alone; where
    there is no spectrum to test it with, it is believed.
    """
    given = tuple(given) + tuple(ds.attrs.get(GIVEN, ()))
    stated = tuple(str(element) for element in ds.attrs.get("elements", ()))
    if v.COUNTS not in ds and v.WEIGHT_ENERGY not in ds:
        return tuple(dict.fromkeys(given + stated))
    found = identified(ds, given).elements
    return tuple(dict.fromkeys((*given, *(one.element for one in found))))


def identified(ds: xr.Dataset, expected: Iterable[str] = ()) -> Identification:
    """Elements of a map, of its sum spectrum first, and the scale on which they were found."""
    whole = _of_sum(ds, expected)
    known = {one.element for one in whole.elements}
    local = tuple(one for one in _noted(ds) if one.element not in known)
    return replace(whole, elements=whole.elements + local)


def _of_sum(ds: xr.Dataset, expected: Iterable[str]) -> Identification:
    """Elements of the sum spectrum of a map."""
    beam = ds.attrs.get("beam_energy")
    return _identified(
        ds[v.DIM_ENERGY].values.astype(float).tobytes(),
        np.asarray(sum_spectrum(ds), float).tobytes(),
        None if beam is None else float(beam),
        detector_resolution(ds),
        frozenset(_hints(ds, expected)),
    )


@lru_cache(maxsize=32)
def _identified(
    energy: bytes, spectrum: bytes, beam: float | None, resolution: float, hints: frozenset[str]
) -> Identification:
    """Identification of a spectrum, for which windows, fits, labels and maps of a run all ask."""
    return identify(
        np.frombuffer(energy),
        np.frombuffer(spectrum),
        beam_energy=beam,
        resolution=resolution,
        hints=hints,
    )


def identify(
    energy: np.ndarray,
    spectrum: np.ndarray,
    *,
    beam_energy: float | None = None,
    resolution: float = 130.0,
    hints: Iterable[str] = (),
    law: ShapeLaw | None = None,
    tests: int = 1,
) -> Identification:
    """Identify the elements of a spectrum.

    Parameters
    ----------
    energy : array, shape (energy,)
        Centres of evenly spaced channels in keV. The scale may be off by 20 eV.
    spectrum : array, shape (energy,)
        Whole counts.
    beam_energy : float, optional
        In keV; 200 by default. Lines that it does not excite are not looked for.
    resolution : float
        FWHM at Mn K alpha in eV, to start from.
    hints : iterable of str
        Elements that somebody expects: they are tested as the common ones are, however unusual.
    law : ShapeLaw, optional
        Of the axis and widths, where known; else they are found from strong peaks.
    tests : int
        Number of spectra tested together, which raises the level of significance.
    """
    beam = DEFAULT_BEAM_ENERGY if beam_energy is None else float(beam_energy)
    # Many small matrices: threads would only wait for each other.
    with threadpool_limits(1):
        return _search(energy, spectrum, beam, law, resolution, frozenset(hints), tests)


def _search(
    energy: np.ndarray,
    spectrum: np.ndarray,
    beam: float,
    law: ShapeLaw | None,
    resolution: float,
    hints: frozenset[str],
    tests: int,
) -> Identification:
    spectrum = np.asarray(spectrum, float)
    start = law or ShapeLaw(0, 0, resolution)
    coarse = energy.size < _FEWEST or energy[1] - energy[0] > _WIDEST_CHANNEL
    if coarse or energy[-1] < 2 * LOWEST_LINE or not spectrum.sum() > 0:
        return Identification((), start)
    model = SpectrumModel(energy, np.maximum(spectrum, 0), beam, start, hints)
    if law is None:
        for place in (_FIRST_PLACE, 2 * _PLACE):
            strong, fit = _Search(model, place, tests).elements(least=25.0, turns=3)
            model = model.calibrated(strong, fit)
    search = _Search(model, _PLACE, tests)
    return Identification(tuple(search.described(*search.elements())), model.law)


class _Search:
    """Elements enter a model one after the other, as far as they pass all tests.

    Parameters
    ----------
    model : SpectrumModel
    place : float
        By how much a peak may be off its place, a standard deviation in keV.
    tests : int
        Number of spectra tested together.
    """

    def __init__(self, model: SpectrumModel, place: float, tests: int) -> None:
        self.model, self.place = model, place
        self.level = norm.isf(FALSE_DISCOVERY_RATE / (len(model.candidates) * tests))

    def elements(self, *, least: float = 0.0, turns: int = _TURNS) -> tuple[list[str], ModelFit]:
        """Elements that pass, and the fit with them all."""
        first_level = max(least, self.level)
        self.model.unknown = []
        accepted: list[str] = []
        fit = self.model.fit(accepted, self.place)
        # An element that others crowded out may come back once.
        dropped: Counter[str] = Counter()
        for _ in range(turns):
            where, largest = self._largest_peak(fit)
            refused = {element for element, times in dropped.items() if times > 1}
            least = max(first_level, _STRONGEST_FIRST * largest)
            added = self._next(accepted, fit, least, refused)
            if added:
                accepted += added
            elif largest > _UNKNOWN * first_level:
                self.model.unknown.append(where)
            else:
                break
            fit = self.model.fit(accepted, self.place, fit)
            kept = [e for e in accepted if self._adjusted(self._best(e, fit)[0], e) >= self.level]
            if len(kept) < len(accepted):
                dropped.update(set(accepted) - set(kept))
                accepted = kept
                fit = self.model.fit(accepted, self.place, fit)
        return self._confirmed(accepted, fit)

    def _best(self, element: str, fit: ModelFit) -> tuple[float, Family]:
        """Significance and family by which an element of the model is seen best."""
        return max(
            (
                (fit.amplitudes.get(key, 0.0) / fit.errors.get(key, np.inf), family)
                for family in self.model.families[element]
                if family.identifies and (key := (element, family.name))
            ),
            key=lambda pair: pair[0],
        )

    def _adjusted(self, significance: float, element: str) -> float:
        penalty = _RARE if element in _NOBLE else _UNUSUAL
        usual = element in _COMMON or element in self.model.hints
        return _adjusted(significance, 0.0 if usual else penalty)

    def _largest_peak(self, fit: ModelFit) -> tuple[float, float]:
        """True energy in keV and significance of the largest peak that the model leaves."""
        information, scores = fit.project(self.model.anywhere)
        usable = information > 0.05 * (self.model.anywhere**2).T @ fit.weight
        z = np.where(usable, scores / np.sqrt(np.where(usable, information, 1)), 0)
        best = int(np.argmax(z))
        return float(self.model.grid[best]), float(z[best])

    def _next(
        self,
        accepted: Sequence[str],
        fit: ModelFit,
        least: float,
        refused: set[str],
    ) -> list[str]:
        """The best candidates that do not overlap each other, best first."""
        others = [
            f
            for f in self.model.candidates
            if f.element not in accepted and f.element not in refused
        ]
        if not others:
            return []
        stacked = np.array([self.model.shapes(family)[0] for family in others]).T
        information, scores = fit.project(stacked)
        size = (stacked**2 * fit.weight[:, None]).sum(0)
        usable = information > 1e-3 * size
        counts = np.where(usable, scores / np.where(usable, information, 1), 0)
        z = counts * np.sqrt(np.maximum(information, 0))
        stats: dict[str, list[tuple[float, float, float, Family]]] = {}
        for number, family in enumerate(others):
            error = 1 / np.sqrt(information[number]) if usable[number] else np.inf
            stats.setdefault(family.element, []).append((z[number], counts[number], error, family))
        ranked = sorted(
            (max(entries, key=lambda entry: entry[0]) for entries in stats.values()),
            key=lambda entry: -self._adjusted(entry[0], entry[3].element),
        )
        chosen: list[Family] = []
        for significance, number_counts, _, family in ranked:
            if self._adjusted(significance, family.element) < least:
                continue
            shape = self.model.shapes(family)[0]
            if any(
                _overlap(shape, self.model.shapes(other)[0], fit.weight) > 0.05 for other in chosen
            ):
                continue
            if self._passes(family, stats[family.element], fit, self.level):
                chosen.append(family)
        return [family.element for family in chosen]

    def _passes(
        self,
        family: Family,
        entries: Sequence[tuple[float, float, float, Family]],
        fit: ModelFit,
        level: float,
    ) -> bool:
        """Whether a candidate is at its place, in proportion, and beyond chance."""
        whole, main, rest, slope, *_ = self.model.shapes(family)
        (counts,) = [entry[1] for entry in entries if entry[3] is family]
        width = float(fwhm(family.energy, self.model.law.resolution)) / 1000
        # Place and share of the main line, with the rest of the family free, and with another
        # straight background of its surroundings: a hump is no peak.
        distance = (self.model.centres - self.model.law.place(family.energy)) / width
        level_here = np.diff(self.model.edges) * (np.abs(distance) < _SURROUNDINGS)
        columns = [main, slope, level_here, level_here * distance]
        columns += [rest] if rest.sum() > 1e-3 else []
        gram = fit.gram(np.array(columns).T)
        scores = (np.array(columns) * fit.weight) @ fit.residual
        try:
            covariance = np.linalg.inv(gram)
        except np.linalg.LinAlgError:
            return False
        solution = covariance @ scores
        if solution[0] <= 0:
            return False
        errors = np.sqrt(np.maximum(np.diag(covariance), 0))
        shift = solution[1] / solution[0]
        shift_error = errors[1] / solution[0]
        if abs(shift) - min(shift_error, 0.1 * width) > _FARTHEST * width + (self.place - _PLACE):
            return False
        if solution[0] + 2 * errors[0] < _MAIN_LINE * counts:
            return False
        if solution[0] < _LOCAL * level * errors[0]:
            return False
        for _, other_counts, error, other in entries:
            if other is family:
                continue
            above = other.energy > family.energy
            weaker = _PROPORTION_ABOVE if above else _PROPORTION_BELOW
            predicted = counts * other.share / family.share / weaker
            if (above or other.energy > 1.0) and predicted > other_counts + 3 * error:
                return False
            # A family as strong at higher energy, where less overlaps, must be seen itself.
            comparable = above and other.share > _COMPARABLE * family.share
            # So must one of which enough counts are expected.
            expected = above and counts * other.share / family.share > 2 * _SEEN * error
            if (comparable or expected) and other_counts < _SEEN * error:
                return False
        if counts < _TRACE * max(fit.amplitudes.values(), default=0.0):
            return False
        return self._unlikely(family, fit, level)

    def _unlikely(self, family: Family, fit: ModelFit, level: float) -> bool:
        """Whether so many counts around the main line are no chance where few are expected."""
        width = float(fwhm(family.energy, self.model.law.resolution)) / 1000
        near = np.abs(self.model.centres - self.model.law.place(family.energy)) < 0.6 * width
        expected = float(fit.expected[near].sum())
        seen = float(self.model.data[near].sum())
        return expected > 200 or norm.isf(min(poisson.sf(seen - 1, expected), 0.5)) > 0.8 * level

    def _confirmed(self, accepted: list[str], fit: ModelFit) -> tuple[list[str], ModelFit]:
        """Accepted elements that still pass with all others in the model."""
        sure = False
        while not sure:
            sure = True
            for element in sorted(accepted, key=lambda one: self._best(one, fit)[0]):
                others = [one for one in accepted if one != element]
                if self._adjusted(self._best(element, fit)[0], element) >= self.level:
                    without = self.model.fit(others, self.place, fit, turns=1)
                    entries = self._entries(element, without)
                    best = max(entries, key=lambda entry: entry[0])
                    if self._passes(best[3], entries, without, self.level):
                        continue
                accepted, sure = others, False
                fit = self.model.fit(accepted, self.place, fit, turns=2)
                break
        return accepted, fit

    def _entries(self, element: str, fit: ModelFit) -> list[tuple[float, float, float, Family]]:
        """Significance, counts and error of each family of an element outside the model."""
        found = [family for family in self.model.families[element] if family.identifies]
        stacked = np.array([self.model.shapes(family)[0] for family in found]).T
        information, scores = fit.project(stacked)
        information = np.maximum(information, 1e-12)
        return [
            (s / np.sqrt(i), s / i, 1 / np.sqrt(i), family)
            for s, i, family in zip(scores, information, found)
        ]

    def described(self, accepted: Sequence[str], fit: ModelFit) -> list[FoundElement]:
        """What is said of each element, most significant first."""
        found = []
        for element in accepted:
            z, family = self._best(element, fit)
            key = (element, family.name)
            without = self.model.fit(
                [e for e in accepted if e != element], self.place, fit, turns=1
            )
            found.append(
                FoundElement(
                    element,
                    family.name,
                    fit.amplitudes.get(key, 0.0),
                    fit.errors.get(key, np.inf),
                    z,
                    lines=self._lines(element, fit),
                    confused_with=self._rivals(family, z, without, accepted),
                    stray=_STRAY.get(element, ""),
                )
            )
        return sorted(found, key=lambda one: -one.significance)

    def _lines(self, element: str, fit: ModelFit) -> tuple[FoundLine, ...]:
        lines = []
        for family in self.model.families[element]:
            counts = fit.amplitudes.get((element, family.name))
            if counts is None:
                continue
            for group in family.groups:
                parts = [
                    (float(e), float(counts * w)) for e, w in zip(group.energies, group.weights)
                ]
                mean = float(np.average(group.energies, weights=group.weights))
                net = sum(part for _, part in parts)
                lines.append(FoundLine(group.name, mean, net, tuple(parts)))
        return tuple(sorted(lines, key=lambda line: -line.net_counts))

    def _rivals(
        self, family: Family, z: float, fit: ModelFit, accepted: Sequence[str]
    ) -> tuple[str, ...]:
        reach = _CONFUSED * float(fwhm(family.energy, self.model.law.resolution)) / 1000
        near = [
            other
            for other in self.model.candidates
            if other.element not in accepted and abs(other.energy - family.energy) < reach
        ]
        rivals = []
        for other in near:
            entries = self._entries(other.element, fit)
            (own,) = [entry for entry in entries if entry[3] is other]
            if own[0] > 0 and z**2 - own[0] ** 2 < _AS_WELL:
                if self._passes(other, entries, fit, 3.0):
                    rivals.append((-own[0], other.element))
        return tuple(element for _, element in sorted(rivals))


def _adjusted(significance: float, penalty: float) -> float:
    """Significance less what an element must explain more than a common one, in chi squared.

    Examples
    --------
    >>> _adjusted(5.0, 9.0)
    4.0
    """
    square = significance * abs(significance) - penalty
    return float(np.sign(square) * np.sqrt(abs(square)))


def _overlap(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> float:
    """Cosine between two shapes."""
    norms = np.sqrt((first**2 * weight).sum() * (second**2 * weight).sum())
    return float((first * second * weight).sum() / norms) if norms else 0.0
