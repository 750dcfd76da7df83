"""Which elements a spectrum holds: all lines of all candidates are fitted together, and tested.

The spectrum is modelled as the lines of the elements found so far, a smooth background, escape and
sum peaks, and what is uncertain about the shape of strong peaks: their place, width, low-energy
tail and the ratios of their lines, each with a prior standard deviation. Every other element is a
candidate. Its significance is its net counts over their error in that model, so that neither a
neighbour nor the flank of a strong peak can be mistaken for it. The most significant candidates
enter the model, if

- the centroid of the main line agrees within .3 FWHM with its energy,
- the main line is there in proportion to the rest of its family,
- families at higher energy that it would have to show are there as well.

The background starts from what lies below all peaks, so that it cannot follow a strong peak that
no element explains yet.

A strong peak that no candidate explains enters the model without a name.

This is repeated until no candidate exceeds the level at which one false element is expected in a
hundred spectra (Bonferroni, over all candidate families). The scale of the axis and the width of
the peaks are corrected on the way by the strong peaks themselves.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache

import numpy as np
import pandas as pd
import xarray as xr
from scipy.linalg import cho_factor, cho_solve
from scipy.ndimage import uniform_filter1d
from scipy.special import erf
from scipy.stats import norm, poisson
from threadpoolctl import threadpool_limits

from edxdenoise import schema as v
from edxdenoise.blocks import compute, masked_sums
from edxdenoise.cube import Resolution, channel_width, detector_resolution, sum_spectrum
from edxdenoise.xray.detector import (
    FWHM_PER_SIGMA,
    SI_KA_ENERGY,
    Detector,
    binned_response,
    efficiency,
    escape_fraction,
    fwhm,
)
from edxdenoise.xray.families import DEFAULT_BEAM_ENERGY, family_lines, window_free_efficiency
from edxdenoise.xray.lines import SYMBOLS, Line, atomic_number, edge_energy, line_energy
from edxdenoise.xray.peaks import chess_board, local_peaks, square_side

# Attribute of a map for elements that its user named: they are present, seen or not.
GIVEN = "elements_given"
# And for elements of small parts of it alone, as JSON.
LOCAL = "elements_local"
# Share of an element's strongest line above which a line is worth listing.
_LISTED_LINE = 0.05
_NO_KEY = ("", "")
WHOLE_MAP = "whole map"
FALSE_DISCOVERY_RATE = 0.01
# keV: below, the zero peak and the edge of the discriminator are no lines.
LOWEST_LINE = 0.2
_LOWEST_FITTED = 0.16
# keV of lines that stand for what lies below, and the share of them that must reach the spectrum.
_BELOW, _LEAST_FLANK = (0.14, 0.17), 0.01
_FEWEST, _WIDEST_CHANNEL = 20, 0.2  # channels, and their width in keV
_BINS_PER_FWHM = 5
_REACH = 14  # bins, either side of a line, that it is computed for
_KNOT_SPACING = 2.0  # FWHM, between knots of the background
_BEND = 0.05  # standard deviation of the change of its slope from knot to knot
# Below this share of the counts of the strongest family an artefact of the detector cannot be
# distinguished from an element.
_TRACE = 1e-3
# The strongest peaks are explained first: a candidate must have this share of the significance of
# the largest peak left. One that is this many times beyond the level, and that nothing explains,
# enters the model without a name, so that it does not bend the background.
_STRONGEST_FIRST, _UNKNOWN = 0.3, 2.0
# A family with less than this share of its element's strongest is neither looked for nor fitted.
_LEAST_SHARE = 0.02
# Lines below this share of their family's strongest do not matter.
_LEAST_LINE = 0.003
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
# Relative prior error of the ratios of the groups of lines of a family, and of families.
_GROUP_ERROR = {"K": 0.1, "L": 0.2, "M": 0.4}
_SOFT_GROUP_ERROR, _SOFT = 0.5, 1.3  # L and M lines below this energy in keV
_FAMILY_ERROR = 0.7
# Prior height of the step of the background at an absorption edge, as a share: in a bulk
# specimen, and in a thin foil, which beam energies from this one (keV) mean.
_EDGE, _THIN_EDGE, _THIN_FROM = 0.3, 0.03, 40.0
_EDGES = ("K", "L3", "M5")
_SLOWING = tuple((np.arange(12) + 0.5) / 12)
# Prior errors of the shape of strong peaks: place in keV, width and shoulder as shares, and tail as
# a share of that of a depth in nm.
_PLACE, _WIDTH, _TAIL, _TAIL_DEPTH, _SHOULDER = 0.004, 0.04, 1.0, 50.0, 0.03
_FIRST_PLACE, _OTHER_PLACE = 0.012, 0.025
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
# Prior odds, as a difference of chi squared: an unusual element must fit better than a common one.
_UNUSUAL, _RARE = 25.0, 40.0
_COMMON = frozenset("C N O F Na Mg Al Si P S Cl K Ca Ti V Cr Mn Fe Co Ni Cu Zn".split())
_NOBLE = frozenset("Ar Kr Xe".split())
# Without a stable isotope and short-lived, or neon: no specimen holds them unless its owner
# says so.
_NEVER = frozenset("Ne Tc Pm Po At Rn Fr Ra Ac Pa".split())
_TURNS = 14
_CALIBRATION_TURNS = 2
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


@dataclass(frozen=True)
class _Group:
    """Lines of a family that keep their ratio, such as K beta."""

    name: str
    energies: np.ndarray
    weights: np.ndarray
    error: float


@dataclass(frozen=True)
class _Family:
    """Lines of one shell; the weights of all groups add up to 1, the main group is first.

    A family without its alpha line, such as Ca L l, is fitted but identifies no element.
    """

    element: str
    name: str
    energy: float
    share: float
    groups: tuple[_Group, ...]
    identifies: bool


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
    if LOCAL in ds.attrs or v.COUNTS not in ds:
        return ds
    found = _local_elements(ds, _of_sum(ds, given), given)
    return ds.assign_attrs({LOCAL: json.dumps([asdict(one) for one in found])})


def _noted(ds: xr.Dataset) -> list[FoundElement]:
    """Elements that `with_local_elements` noted."""
    return [
        FoundElement(
            **{
                **one,
                "lines": tuple(
                    FoundLine(**{**line, "parts": tuple(map(tuple, line["parts"]))})
                    for line in one["lines"]
                ),
                "confused_with": tuple(one["confused_with"]),
            }
        )
        for one in json.loads(ds.attrs.get(LOCAL, "[]"))
    ]


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
    model = _Model(energy, np.maximum(spectrum, 0), beam, start, hints)
    place = _PLACE
    if law is None:
        for turn in range(_CALIBRATION_TURNS):
            place = _FIRST_PLACE if turn == 0 else 2 * _PLACE
            strong, fit = model.search(place, tests, least=25.0, turns=3)
            model = model.calibrated(strong, fit)
        place = _PLACE
    accepted, fit = model.search(place, tests)
    return Identification(tuple(model.described(accepted, fit, place)), model.law)


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
def _families(element: str, beam: float, low: float, high: float) -> tuple[_Family, ...]:
    """Families of an element with a main line within the limits, highest energy first."""
    shells = []
    for shell, photons in _photons(element, beam).items():
        seen = [
            (line, number * window_free_efficiency(line.energy))
            for line, number in photons.items()
            if _LOWEST_FITTED < line.energy < high
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
            _Family(
                element,
                name,
                main.energy,
                total / strongest,
                tuple(_group(f"{element}_{shell}{kind}", groups[kind], error) for kind in ordered),
                first == "a",
            )
        )
    return tuple(sorted(found, key=lambda family: -family.energy))


def _group(name: str, lines: Sequence[tuple[float, float]], error: float) -> _Group:
    energies, weights = np.array(lines).T
    return _Group(name, energies, weights, error)


@dataclass
class _Fit:
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


class _Model:
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
        used = np.flatnonzero((energy >= _LOWEST_FITTED) & (energy <= beam))
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
            and (found := _families(element, beam, round(low, 4), round(high, 4)))
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
        self._grid = self.centres[(self.centres > low) & (self.centres < high)][::2]
        self._anywhere = np.array([self.lines(np.array([e]), np.ones(1)) for e in self._grid]).T

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
        kept = np.where(energy >= _LOWEST_FITTED, self.spectrum, 0.0)
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

    def shapes(self, family: _Family) -> list[np.ndarray]:
        """Family, main group, the rest of it, slope of the main group, then all groups but that."""
        key = (family.element, family.name)
        if key not in self._shapes:
            groups = [self.lines(group.energies, group.weights) for group in family.groups]
            main = family.groups[0]
            slope = self._slope(main.energies, main.weights)
            rest = sum(groups[1:], np.zeros(self.data.size))
            self._shapes[key] = [groups[0] + rest, groups[0], rest, slope, *groups[1:]]
        return self._shapes[key]

    def errors(self, family: _Family) -> list[np.ndarray]:
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
        self, accepted: Sequence[str], place: float, start: _Fit | None = None, turns: int = 3
    ) -> _Fit:
        """Fit the accepted elements, background and artefacts; amplitudes are 0 or more."""
        families = [family for element in accepted for family in self.families[element]]
        fit = start
        if start is None:
            smooth = uniform_filter1d(self.data, 2 * _BINS_PER_FWHM)
            variance = np.maximum(smooth, 0.05)
        else:
            variance = self._variance(start)
        barred: set[tuple[str, str]] = set()
        for _ in range(turns):
            columns, precision, means = self._columns(families, fit, place, barred)
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
            for number, (kind, key) in enumerate(self._names):
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
            peaks = np.maximum(fitted - background, 0)
            fit = _Fit(
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
            variance = np.maximum(fit.expected, 0.02) + (_DIAGONAL * peaks) ** 2
        assert fit is not None
        return fit

    def _variance(self, fit: _Fit) -> np.ndarray:
        peaks = np.maximum(fit.expected - fit.background, 0)
        return np.maximum(fit.expected, 0.02) + (_DIAGONAL * peaks) ** 2

    def _columns(
        self,
        families: Sequence[_Family],
        before: _Fit | None,
        place: float,
        barred: set[tuple[str, str]],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Columns of the model, the precision of their priors, and the means of these."""
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
        self._names = names
        return np.array(columns).T, np.array(precision), np.array(means)

    def _prior(self, family: _Family, before: _Fit | None) -> tuple[float, float]:
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

    def search(
        self,
        place: float,
        tests: int,
        *,
        least: float = 0.0,
        turns: int = _TURNS,
    ) -> tuple[list[str], _Fit]:
        """Elements that pass, and the fit with them all."""
        level = norm.isf(FALSE_DISCOVERY_RATE / (len(self.candidates) * tests))
        first_level = max(least, level)
        self.unknown = []
        accepted: list[str] = []
        fit = self.fit(accepted, place)
        # An element that others crowded out may come back once.
        dropped: Counter[str] = Counter()
        for _ in range(turns):
            where, largest = self._largest_peak(fit)
            refused = {element for element, times in dropped.items() if times > 1}
            least = max(first_level, _STRONGEST_FIRST * largest)
            added = self._next(accepted, fit, level, least, place, refused)
            if added:
                accepted += added
            elif largest > _UNKNOWN * first_level:
                self.unknown.append(where)
            else:
                break
            fit = self.fit(accepted, place, fit)
            kept = [e for e in accepted if self._adjusted(self._best(e, fit)[0], e) >= level]
            if len(kept) < len(accepted):
                dropped.update(set(accepted) - set(kept))
                accepted = kept
                fit = self.fit(accepted, place, fit)
        return self._confirmed(accepted, fit, place, level)

    def _best(self, element: str, fit: _Fit) -> tuple[float, _Family]:
        """Significance and family by which an element of the model is seen best."""
        return max(
            (
                (fit.amplitudes.get(key, 0.0) / fit.errors.get(key, np.inf), family)
                for family in self.families[element]
                if family.identifies and (key := (element, family.name))
            ),
            key=lambda pair: pair[0],
        )

    def _adjusted(self, significance: float, element: str) -> float:
        penalty = _RARE if element in _NOBLE else _UNUSUAL
        usual = element in _COMMON or element in self.hints
        return _adjusted(significance, 0.0 if usual else penalty)

    def _largest_peak(self, fit: _Fit) -> tuple[float, float]:
        """True energy in keV and significance of the largest peak that the model leaves."""
        information, scores = fit.project(self._anywhere)
        usable = information > 0.05 * (self._anywhere**2).T @ fit.weight
        z = np.where(usable, scores / np.sqrt(np.where(usable, information, 1)), 0)
        best = int(np.argmax(z))
        return float(self._grid[best]), float(z[best])

    def _next(
        self,
        accepted: Sequence[str],
        fit: _Fit,
        level: float,
        least: float,
        place: float,
        refused: set[str],
    ) -> list[str]:
        """The best candidates that do not overlap each other, best first."""
        others = [
            f for f in self.candidates if f.element not in accepted and f.element not in refused
        ]
        if not others:
            return []
        stacked = np.array([self.shapes(family)[0] for family in others]).T
        information, scores = fit.project(stacked)
        size = (stacked**2 * fit.weight[:, None]).sum(0)
        usable = information > 1e-3 * size
        counts = np.where(usable, scores / np.where(usable, information, 1), 0)
        z = counts * np.sqrt(np.maximum(information, 0))
        stats: dict[str, list[tuple[float, float, float, _Family]]] = {}
        for number, family in enumerate(others):
            error = 1 / np.sqrt(information[number]) if usable[number] else np.inf
            stats.setdefault(family.element, []).append((z[number], counts[number], error, family))
        ranked = sorted(
            (max(entries, key=lambda entry: entry[0]) for entries in stats.values()),
            key=lambda entry: -self._adjusted(entry[0], entry[3].element),
        )
        chosen: list[_Family] = []
        for significance, number_counts, _, family in ranked:
            if self._adjusted(significance, family.element) < least:
                continue
            shape = self.shapes(family)[0]
            if any(_overlap(shape, self.shapes(other)[0], fit.weight) > 0.05 for other in chosen):
                continue
            if self._passes(family, stats[family.element], fit, level, place):
                chosen.append(family)
        return [family.element for family in chosen]

    def _passes(
        self,
        family: _Family,
        entries: Sequence[tuple[float, float, float, _Family]],
        fit: _Fit,
        level: float,
        place: float,
    ) -> bool:
        """Whether a candidate is at its place, in proportion, and beyond chance."""
        whole, main, rest, slope, *_ = self.shapes(family)
        (counts,) = [entry[1] for entry in entries if entry[3] is family]
        width = float(fwhm(family.energy, self.law.resolution)) / 1000
        # Place and share of the main line, with the rest of the family free, and with another
        # straight background of its surroundings: a hump is no peak.
        distance = (self.centres - self.law.place(family.energy)) / width
        level_here = np.diff(self.edges) * (np.abs(distance) < _SURROUNDINGS)
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
        if abs(shift) - min(shift_error, 0.1 * width) > _FARTHEST * width + (place - _PLACE):
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

    def _unlikely(self, family: _Family, fit: _Fit, level: float) -> bool:
        """Whether so many counts around the main line are no chance where few are expected."""
        width = float(fwhm(family.energy, self.law.resolution)) / 1000
        near = np.abs(self.centres - self.law.place(family.energy)) < 0.6 * width
        expected = float(fit.expected[near].sum())
        seen = float(self.data[near].sum())
        return expected > 200 or norm.isf(min(poisson.sf(seen - 1, expected), 0.5)) > 0.8 * level

    def _confirmed(
        self, accepted: list[str], fit: _Fit, place: float, level: float
    ) -> tuple[list[str], _Fit]:
        """Accepted elements that still pass with all others in the model."""
        sure = False
        while not sure:
            sure = True
            for element in sorted(accepted, key=lambda one: self._best(one, fit)[0]):
                others = [one for one in accepted if one != element]
                if self._adjusted(self._best(element, fit)[0], element) >= level:
                    without = self.fit(others, place, fit, turns=1)
                    entries = self._entries(element, without)
                    best = max(entries, key=lambda entry: entry[0])
                    if self._passes(best[3], entries, without, level, place):
                        continue
                accepted, sure = others, False
                fit = self.fit(accepted, place, fit, turns=2)
                break
        return accepted, fit

    def _entries(self, element: str, fit: _Fit) -> list[tuple[float, float, float, _Family]]:
        """Significance, counts and error of each family of an element outside the model."""
        found = [family for family in self.families[element] if family.identifies]
        stacked = np.array([self.shapes(family)[0] for family in found]).T
        information, scores = fit.project(stacked)
        information = np.maximum(information, 1e-12)
        return [
            (s / np.sqrt(i), s / i, 1 / np.sqrt(i), family)
            for s, i, family in zip(scores, information, found)
        ]

    def described(self, accepted: Sequence[str], fit: _Fit, place: float) -> list[FoundElement]:
        """What is said of each element, most significant first."""
        found = []
        for element in accepted:
            z, family = self._best(element, fit)
            key = (element, family.name)
            without = self.fit([e for e in accepted if e != element], place, fit, turns=1)
            found.append(
                FoundElement(
                    element,
                    family.name,
                    fit.amplitudes.get(key, 0.0),
                    fit.errors.get(key, np.inf),
                    z,
                    lines=self._lines(element, fit),
                    confused_with=self._rivals(family, z, without, accepted, place),
                    stray=_STRAY.get(element, ""),
                )
            )
        return sorted(found, key=lambda one: -one.significance)

    def _lines(self, element: str, fit: _Fit) -> tuple[FoundLine, ...]:
        lines = []
        for family in self.families[element]:
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
        self, family: _Family, z: float, fit: _Fit, accepted: Sequence[str], place: float
    ) -> tuple[str, ...]:
        reach = _CONFUSED * float(fwhm(family.energy, self.law.resolution)) / 1000
        near = [
            other
            for other in self.candidates
            if other.element not in accepted and abs(other.energy - family.energy) < reach
        ]
        rivals = []
        for other in near:
            entries = self._entries(other.element, fit)
            (own,) = [entry for entry in entries if entry[3] is other]
            if own[0] > 0 and z**2 - own[0] ** 2 < _AS_WELL:
                if self._passes(other, entries, fit, 3.0, place):
                    rivals.append((-own[0], other.element))
        return tuple(element for _, element in sorted(rivals))

    def calibrated(self, accepted: Sequence[str], fit: _Fit) -> _Model:
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
        return _Model(self.energy, self.spectrum, self.beam, law, self.hints)


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
