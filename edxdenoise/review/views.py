"""Maps and spectra of any choice of components, fast enough to look at while choosing.

The counts that components k rebuild are linear in them,

    m_ij = g_i h_j (mean_j + sum over kept k of t_ki p_kj),

so that sums over the pixels of a cell need the sums of g t_k over the cell alone. These are formed
once; a map, a ratio or a spectrum of a choice is then a small product. Maps of more than 65536
pixels are shown by cells of several.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass

import dask.array as da
import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.blocks import compute
from edxdenoise.cube import detector_resolution, sum_spectrum
from edxdenoise.errors import ParameterError
from edxdenoise.io.regions import inside_polygon
from edxdenoise.quantification import LineSpec
from edxdenoise.quantification.composition import factor_arrays
from edxdenoise.quantification.estimators import line_weights, sums_counts
from edxdenoise.quantification.lines import quantified_lines
from edxdenoise.report.findings import most_distinct, on_law
from edxdenoise.report.text import percent_words, with_error
from edxdenoise.review.choice import keep_flags
from edxdenoise.validation.holdout import error_of_choice
from edxdenoise.xray import component_peaks, identified, line_label, name_peaks, with_local_elements
from edxdenoise.xray.families import element_of, main_line

TOTAL = "total"
# Cells that a map is shown by at most.
_MOST_CELLS = 1 << 16
_PEAKS = 5
# Ratios are shown where what they are divided by exceeds this share of its brightest cells.
_LEAST = 0.05


@dataclass(frozen=True)
class Box:
    """Pixels, rows y0 to y1 and columns x0 to x1 without the last."""

    y0: int
    y1: int
    x0: int
    x1: int


@dataclass(frozen=True)
class Lasso:
    """The pixels whose centres a polygon holds; its corners are (x, y) in pixels."""

    corners: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Views:
    """What maps and spectra follow from.

    Parameters
    ----------
    ds : Dataset
        The denoised file; its counts and maps are lazy.
    side : int
        Of a cell, in pixels.
    pixels : array, shape (cell y, cell x)
        Pixels of each cell.
    amounts : array of float32, shape (component + 1, cell y, cell x)
        Sums of g t over each cell, t smoothed where it was; last those of g, for the mean.
    scores : array of float32, shape (component, cell y, cell x)
        Means of t, not smoothed.
    spectra : array, shape (component + 1, energy)
        h p, and h times the mean.
    names : tuple of str
        ``total`` and lines, such as ``Pb_La``: first those that the file was quantified by.
    rows : array, shape (name, energy)
        What each channel counts for in them.
    atoms : array, shape (name,)
        What turns net counts into relative numbers of atoms; NaN where that is not known.
    """

    ds: xr.Dataset
    side: int
    pixels: np.ndarray
    amounts: np.ndarray
    scores: np.ndarray
    spectra: np.ndarray
    names: tuple[str, ...]
    rows: np.ndarray
    atoms: np.ndarray

    @classmethod
    def of(cls, ds: xr.Dataset, elements: tuple[str, ...] = ()) -> Views:
        """Read what is needed of a denoised file, in one pass over its score maps.

        Elements are there besides those that are found.
        """
        shape = ds.sizes[v.DIM_Y], ds.sizes[v.DIM_X]
        side = max(1, math.ceil(math.sqrt(shape[0] * shape[1] / _MOST_CELLS)))
        g = np.asarray(ds[v.WEIGHT_PIXEL].values, np.float32)
        maps = _lazy(ds, v.COMPONENT_MAP, side)
        smoothed = maps
        if v.COMPONENT_MAP_SHRUNK in ds:
            shrunk = _lazy(ds, v.COMPONENT_MAP_SHRUNK, side).rechunk(maps.chunks)
            smoothed = da.where(da.isnan(shrunk), maps, shrunk)
        amounts, scores = compute(_cells(smoothed * g, side), _cells(maps, side))
        pixels = cell_sums(np.ones((1, *shape), np.float32), side)[0]
        h = ds[v.WEIGHT_ENERGY].values.astype(float)
        spectra = np.vstack([ds[v.COMPONENT_SPECTRUM].values, ds[v.MEAN_SPECTRUM].values])
        names, rows, atoms = _lines(ds, elements)
        return cls(
            ds,
            side,
            pixels,
            np.concatenate([amounts, cell_sums(g[np.newaxis], side)]),
            scores / pixels,
            spectra * h,
            names,
            rows,
            atoms,
        )

    def with_element(self, symbol: str) -> Views:
        """Return the same with one more element; the fit is of all of them at once."""
        if symbol in map(element_of, self.names[1:]):
            raise ParameterError(f"there is a map of {symbol}")
        return self._of_lines(self.ds, symbol)

    def with_local(self) -> Views:
        """Return the same with elements of small parts of the map: reads all counts, twice."""
        return self._of_lines(with_local_elements(self.ds))

    def _of_lines(self, ds: xr.Dataset, *more: str) -> Views:
        """Return the same with the elements that `ds` notes, those that are here, and more."""
        asked = (*map(element_of, self.names[1:]), *more)
        names, rows, atoms = _lines(ds, asked)
        return dataclasses.replace(self, ds=ds, names=names, rows=rows, atoms=atoms)

    def score(self, keep: tuple[int, ...]) -> str:
        """Return the held-out error of a choice in words, ``""`` where it is not known."""
        judged = error_of_choice(self.ds, keep)
        return "" if judged is None else percent_words(*(100 * part for part in judged))

    def gain(self, number: int) -> str:
        """Return what a component does to the held-out error, in % of that of raw counts."""
        if v.COMPONENT_GAIN not in self.ds:
            return ""
        gain, stddev = (
            100 * float(self.ds[name].values[number - 1])
            for name in (v.COMPONENT_GAIN, v.COMPONENT_GAIN_STDDEV)
        )
        return f"{'−' if gain > 0 else '+'}{with_error(abs(gain), stddev)} %"

    def _used(self, keep: tuple[int, ...]) -> np.ndarray:
        return np.append(keep_flags(keep, len(self.scores)), True)

    def rebuilt_map(self, name: str, keep: tuple[int, ...]) -> np.ndarray:
        """Net counts per pixel that kept components rebuild, shape (cell y, cell x)."""
        used = self._used(keep)
        weights = self.spectra[used] @ self.rows[self.names.index(name)]
        return np.tensordot(weights, self.amounts[used], axes=1) / self.pixels

    def main_lines(self, keep: tuple[int, ...]) -> list[str]:
        """Return up to three lines to show in one map, as the report chooses them."""
        lines = self.names[1:]
        if len(lines) < 2:
            return list(lines)
        maps = np.stack([self.rebuilt_map(name, keep) for name in lines])
        noise = np.sqrt(self.rows[1:] ** 2 @ sum_spectrum(self.ds) / self.pixels.sum())
        known = {one.element: one.stray for one in identified(self.ds).elements}
        stray = np.array([known.get(element_of(name), "") != "" for name in lines])
        return [lines[number] for number in most_distinct(maps, noise / self.side, stray)]

    def raw_maps(self) -> np.ndarray:
        """Net counts per pixel as measured, shape (name, cell y, cell x): reads all counts."""
        sums = sums_counts(self.ds, self.rows).transpose("row", v.DIM_Y, v.DIM_X).data
        return cell_sums(compute(sums)[0], self.side) / self.pixels

    def ratio(self, above: np.ndarray, below: np.ndarray, names: tuple[str, str]) -> np.ndarray:
        """Ratio of two maps, of atoms where k-factors are known; NaN where the lower is weak."""
        factor = self.atoms_ratio(*names)
        least = _LEAST * np.percentile(below, 99.5)
        seen = below > max(least, 0)
        quotient = np.divide(above, below, out=np.full(below.shape, np.nan), where=seen)
        return quotient * (1.0 if math.isnan(factor) else factor)

    def atoms_ratio(self, above: str, below: str) -> float:
        """What turns a ratio of net counts into one of atoms, or NaN."""
        atoms = self.atoms[[self.names.index(above), self.names.index(below)]]
        return float(atoms[0] / atoms[1])

    def snapped(self, box: Box | None) -> Box:
        """Return a box grown to whole cells, the whole map for None."""
        ends = []
        low_high = (None, None) if box is None else ((box.y0, box.y1), (box.x0, box.x1))
        for given, size in zip(low_high, (self.ds.sizes[v.DIM_Y], self.ds.sizes[v.DIM_X])):
            first, end = (0, size) if given is None else (min(given), max(given))
            low = min(max(first, 0), size - 1) // self.side * self.side
            high = -(-max(end, low + 1) // self.side) * self.side
            ends += [low, min(high, size)]
        return Box(*ends)

    def cells(self, drawn: Box | Lasso) -> np.ndarray:
        """Return the cells of a box of whole ones, or those whose centres a lasso holds.

        Raises
        ------
        ParameterError
            If there are none.
        """
        shape = self.ds.sizes[v.DIM_Y], self.ds.sizes[v.DIM_X]
        # The last cell may be smaller.
        edges = [np.append(np.arange(0, size, self.side), size) for size in shape]
        if isinstance(drawn, Box):
            y, x = (edge[:-1] for edge in edges)
            rows, columns = (drawn.y0 <= y) & (y < drawn.y1), (drawn.x0 <= x) & (x < drawn.x1)
            return rows[:, np.newaxis] & columns
        y, x = ((edge[:-1] + edge[1:]) / 2 for edge in edges)
        inside = inside_polygon([np.array(drawn.corners)], y, x)
        if not inside.any():
            raise ParameterError("the lasso holds the centre of no pixel; draw a larger one")
        return inside

    def rebuilt_spectrum(self, drawn: Box | Lasso, keep: tuple[int, ...]) -> np.ndarray:
        """Counts of whole cells that kept components rebuild, shape (energy,)."""
        used = self._used(keep)
        amounts = self.amounts[used][:, self.cells(drawn)].sum(axis=1, dtype=float)
        return amounts @ self.spectra[used]

    def raw_spectrum(self, drawn: Box | Lasso) -> np.ndarray:
        """Counts of whole cells as measured, shape (energy,); those of the whole map are known."""
        if drawn == self.snapped(None):
            return sum_spectrum(self.ds)
        inside = self.cells(drawn).repeat(self.side, axis=0).repeat(self.side, axis=1)
        inside = inside[: self.ds.sizes[v.DIM_Y], : self.ds.sizes[v.DIM_X]]
        rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
        part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        counts = self.ds[v.COUNTS].transpose(v.DIM_Y, v.DIM_X, v.DIM_ENERGY).data[part]
        counts = counts * inside[part][..., np.newaxis]
        return np.asarray(compute(counts.sum(axis=(0, 1), dtype=np.float64))[0])

    @functools.cached_property
    def peaks(self) -> list[list[str]]:
        """Names of the largest peaks of each component's spectrum; dips have an arrow."""
        found = identified(self.ds)
        energy, h = self.ds[v.DIM_ENERGY].values, self.ds[v.WEIGHT_ENERGY].values
        resolution = detector_resolution(self.ds)
        named = []
        for loading in self.ds[v.COMPONENT_SPECTRUM].values:
            peaks = name_peaks(component_peaks(energy, loading, h, resolution), found)[:_PEAKS]
            named.append(
                [
                    f"{peak.name or f'{peak.energy:.2f} keV'}{' ↓' if peak.net_counts < 0 else ''}"
                    for peak in peaks
                ]
            )
        return named


def _lazy(ds: xr.Dataset, name: str, side: int) -> da.Array:
    """Maps in blocks of whole cells."""
    maps = da.asarray(ds[name].transpose(v.DIM_COMPONENT, v.DIM_Y, v.DIM_X).data)
    whole = {}
    for axis in (1, 2):
        ends = np.cumsum(maps.chunks[axis])
        inner = np.unique(np.append(-(-ends[:-1] // side) * side, ends[-1]).clip(max=ends[-1]))
        whole[axis] = tuple(np.diff(inner, prepend=0).tolist())
    return maps.rechunk(whole)


def _cells(maps: da.Array, side: int) -> da.Array:
    cells = [tuple(-(-size // side) for size in sizes) for sizes in maps.chunks[1:]]
    return da.map_blocks(cell_sums, maps, side, chunks=(maps.chunks[0], *cells), dtype=np.float32)


def cell_sums(maps: np.ndarray, side: int) -> np.ndarray:
    """Sums over cells of `side` x `side` pixels, shape (k, cell y, cell x); smaller at the edges.

    Examples
    --------
    >>> cell_sums(np.ones((1, 2, 3), np.float32), 2)
    array([[[4., 2.]]], dtype=float32)
    """
    if side == 1:
        return np.asarray(maps)
    for axis in (1, 2):
        maps = np.add.reduceat(maps, np.arange(0, maps.shape[axis], side), axis=axis)
    return maps


def _lines(
    ds: xr.Dataset, elements: tuple[str, ...]
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Names, rows and atoms of `Views`: lines quantified, then main lines of all other elements."""
    lines: dict[str, LineSpec] = {}
    estimators = np.zeros((0, ds.sizes[v.DIM_ENERGY]))
    if v.LINE_ESTIMATOR in ds and v.COORD_K_FACTOR in ds.coords:
        lines = quantified_lines(ds)
        estimators = ds[v.LINE_ESTIMATOR].values.astype(float)
    main = {one.element: one.line for one in identified(ds).elements}
    main |= {symbol: _main_line(ds, symbol) for symbol in elements if symbol not in main}
    known = {element_of(name) for name in lines}
    others = [line for element, line in main.items() if element not in known]
    if others:
        fitted = line_weights(on_law(ds), {name: LineSpec() for name in [*lines, *others]})
        estimators = np.vstack([estimators, fitted.estimators[len(lines) :]])
    atoms = np.full(1 + len(estimators), np.nan)
    for number, (name, spec) in enumerate(lines.items(), 1):
        if spec.k_factor is not None:
            atoms[number] = factor_arrays({name: spec})[1][0][0]
    return (TOTAL, *lines, *others), np.vstack([np.ones(ds.sizes[v.DIM_ENERGY]), estimators]), atoms


def _main_line(ds: xr.Dataset, symbol: str) -> str:
    energy, beam = ds[v.DIM_ENERGY].values, ds.attrs.get("beam_energy")
    line = main_line(symbol, (float(energy[0]), float(energy[-1])), beam_energy=beam)
    if line is None:
        raise ParameterError(f"{symbol} has no line from {energy[0]:.2f} to {energy[-1]:.2f} keV")
    return line


def title(name: str) -> str:
    """Return what a map is called."""
    return "all X-rays" if name == TOTAL else line_label(name)
