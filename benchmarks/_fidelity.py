"""How far denoised phantoms are from the truth: the errors that `fidelity` tabulates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.optimize import curve_fit
from scipy.special import erf

from edxdenoise import LineSpec, Recipe, simulate
from edxdenoise.quantification.estimators import line_weights

FILM = ("MAPbI3 control", "MAPbI3 N-poor", "MAPbI3 treated", "MAPbI3 damaged", "PbI2")
SOLAR = Recipe.from_file(Path(__file__).parents[1] / "data" / "solar-cell.toml").lines
_PURE = 0.9  # share of the counts that makes a pixel one of the film
_GRAIN, _AROUND = 0.3, 0.02  # share of the counts in a grain, and at most beside it
_LARGEST = 50.0  # pixels: a disc of radius 4
_RING = (3, 6)  # pixels from a grain
_EDGE_REACH = 8  # pixels
_10_TO_90 = 2.5631  # standard deviations of a Gaussian


@dataclass(frozen=True)
class Aim:
    """What is measured on a phantom.

    Parameters
    ----------
    shape, channels, energy_width
        Of the phantom.
    film : tuple of str
        Phases whose ratios are measured, in pixels that hold little else.
    lines : mapping of str to LineSpec
    ratios : tuple of (line, line)
    grains : str
        Phase whose grains are looked at in the last ratio; empty for none.
    edge : tuple of str
        Line whose map is looked at along y, and the phases of which the layer consists; empty for
        none.
    """

    shape: tuple[int, int]
    channels: int
    energy_width: float
    film: tuple[str, ...]
    ratios: tuple[tuple[str, str], ...]
    lines: dict[str, LineSpec] = field(default_factory=dict)
    grains: str = ""
    edge: tuple[str, ...] = ()


AIMS = {
    "solar-cell": Aim(
        (330, 250),
        *(325, 0.04),
        FILM,
        (("N_Ka", "Pb_La"), ("I_La", "Pb_La")),
        {name: SOLAR[name] for name in ("N_Ka", "I_La", "Pb_La")},
        "PbI2",
        ("Pb_La", *FILM),
    ),
    "layers-gradient": Aim(
        (256, 256),
        *(375, 0.04),
        ("Si", "SiGe", "Si doped with As"),
        (("As_Ka", "Si_Ka"), ("Ge_Ka", "Si_Ka")),
        {
            "As_Ka": LineSpec(1.0, background=((9.36, 9.5), (11.45, 11.65))),
            "Ge_Ka": LineSpec(1.0, background=((9.36, 9.5), (11.45, 11.65))),
            "Si_Ka": LineSpec(1.0),
            "W_La": LineSpec(1.0, background=((7.5, 7.7), (8.6, 8.7))),
        },
        edge=("W_La", "W"),
    ),
    "mineral": Aim(
        (256, 256),
        *(342, 0.03),
        ("albite", "anorthite"),
        (("Na_Ka", "Si_Ka"), ("Ca_Ka", "Si_Ka")),
        {name: LineSpec(1.0) for name in ("Na_Ka", "Ca_Ka", "Si_Ka")},
    ),
}


class Phantom:
    """A phantom with its truth and what is measured on it."""

    def __init__(self, preset: str, dose: float, seed: int, *, full: bool = False) -> None:
        aim = AIMS[preset]
        size: dict = {
            "shape": aim.shape,
            "channels": aim.channels,
            "energy_width": aim.energy_width,
        }
        ds = simulate(preset, counts_per_pixel=dose, seed=seed, **({} if full else size)).compute()
        self.aim = aim
        self.expected = ds["expected_counts"].values
        self.ds = ds.drop_vars("expected_counts")
        self.amounts = ds["phase_map"].values.astype(float)
        self.spectra = ds["phase_spectrum"].values.astype(float)
        self.names = [str(name) for name in ds["phase"].values]
        self.total = self.expected.sum(axis=2, dtype=float)
        weights = line_weights(ds[["counts"]], aim.lines, elements=ds.attrs.get("elements", ()))
        self.estimators = dict(zip(aim.lines, weights.estimators))
        self.true_net = self.net(self.expected)
        self.film = self.share(aim.film) > _PURE

    def share(self, phases: Sequence[str]) -> np.ndarray:
        """Share of each pixel's counts that these phases give."""
        those = [i for i, name in enumerate(self.names) if name in phases]
        found = np.tensordot(self.spectra[those].sum(axis=1), self.amounts[those], axes=1)
        return found / np.where(self.total > 0, self.total, 1)

    def net(self, cube: np.ndarray) -> dict[str, np.ndarray]:
        """Net counts of every line."""
        return {name: cube @ weights for name, weights in self.estimators.items()}

    def errors(self, cube: np.ndarray) -> list[float]:
        """Figures of one denoised cube in the order of `columns`."""
        floor = 1e-6 * self.expected.max()
        difference = (cube - self.expected) / np.sqrt(np.maximum(self.expected, floor))
        net = self.net(cube)
        found = [float(np.sqrt(np.mean(difference**2, dtype=float)))]
        ratios = [self.ratio(net, *pair) for pair in self.aim.ratios]
        right = [self.ratio(self.true_net, *pair) for pair in self.aim.ratios]
        for ratio, true in zip(ratios, right):
            inside = self.film & np.isfinite(ratio)
            error = np.sqrt(np.mean((ratio - true)[inside] ** 2)) / np.mean(np.abs(true[inside]))
            found += [float(error), float(np.corrcoef(ratio[inside], true[inside])[0, 1])]
        found.append(self.contrast(ratios[-1], right[-1]))
        found.append(self.edge_width(net) - self.true_width if self.aim.edge else np.nan)
        bright = self.total > 0.2 * self.total.mean()
        off = cube.sum(axis=2, dtype=float)[bright] / self.total[bright] - 1
        found.append(100 * float(np.sqrt(np.mean(off**2))))
        return found

    def ratio(self, net: dict[str, np.ndarray], over: str, under: str) -> np.ndarray:
        """Ratio of two lines; NaN where there is nothing to divide by."""
        return net[over] / np.where(net[under] > 0, net[under], np.nan)

    def contrast(self, ratio: np.ndarray, true: np.ndarray) -> float:
        """Slope of the contrast of small grains against the ring around, found over true."""
        pairs = [
            (true[grain].mean() - true[ring].mean(), ratio[grain].mean() - ratio[ring].mean())
            for grain, ring in self.small_grains
        ]
        if not pairs:
            return np.nan
        right, seen = np.array(pairs).T
        # Raw counts divide by next to nothing here and there.
        inside = np.isfinite(seen)
        return float((right * seen)[inside].sum() / (right**2)[inside].sum())

    @cached_property
    def small_grains(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Each grain of up to 4 pixels radius, and the ring around it."""
        if not self.aim.grains:
            return []
        share = self.share((self.aim.grains,))
        labels, number = ndimage.label(share > _GRAIN)
        plain = (share < _AROUND) & self.film
        found = []
        for label in range(1, number + 1):
            grain = labels == label
            if not 4 <= grain.sum() <= _LARGEST:
                continue
            near, far = (ndimage.binary_dilation(grain, iterations=n) for n in _RING)
            ring = far & ~near & plain
            if ring.sum() >= 10:
                found.append((grain, ring))
        return found

    @cached_property
    def true_width(self) -> float:
        """`edge_width` of the truth."""
        return self.edge_width(self.true_net)

    def edge_width(self, net: dict[str, np.ndarray]) -> float:
        """10-90 % width in pixels of the layer's edges, columns aligned at the true interface.

        An error function is fitted to the mean over columns of the net counts over their true
        mean in the column: noise averages out, and so does the roughness of the interface.
        """
        line, *phases = self.aim.edge
        share, image = self.share(phases), net[line]
        area = self.ds["area"].values if "area" in self.ds.coords else np.zeros(len(share))
        widths = []
        for number in np.unique(area):
            rows = np.flatnonzero(area == number)
            for side in (1, -1):
                depth, values = self._aligned(share[rows][::side], image[rows][::side], line, rows)
                if depth.size:
                    widths.append(_erf_width(depth, values))
        return float(np.mean(widths))

    def _aligned(
        self, share: np.ndarray, image: np.ndarray, line: str, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Distances from the first row that is half of the layer, and counts there, all columns."""
        inside = share > 0.5
        first = inside.argmax(axis=0)
        reach = np.arange(-_EDGE_REACH, _EDGE_REACH)
        room = (first >= _EDGE_REACH) & (first + _EDGE_REACH <= len(share))
        columns = np.flatnonzero(inside.any(axis=0) & room)
        if not columns.size:
            return np.empty(0), np.empty(0)
        first = first[columns]
        before, after = share[first - 1, columns], share[first, columns]
        crossing = first - (after - 0.5) / (after - before)
        places = first[:, None] + reach
        level = self.true_net[line][rows].max(axis=0)[columns]
        values = image[places, columns[:, None]] / level[:, None]
        return (places - crossing[:, None]).ravel(), values.ravel()


def _erf_width(depth: np.ndarray, values: np.ndarray) -> float:
    def step(x: np.ndarray, low: float, high: float, at: float, width: float) -> np.ndarray:
        return low + (high - low) * (1 + erf((x - at) / (np.sqrt(2) * abs(width)))) / 2

    start = (0.0, float(np.median(values[depth > 2])), 0.0, 0.5)
    found, _ = curve_fit(step, depth, values, p0=start)
    return _10_TO_90 * abs(found[3])


def columns(aim: Aim) -> list[str]:
    """Names of what `Phantom.errors` gives."""
    names = []
    for pair in aim.ratios:
        ratio = "/".join(name.split("_")[0] for name in pair)
        names += [f"{ratio} error", f"{ratio} corr."]
    return ["cube error", *names, "grains kept", "edge wider, px", "totals off, %"]
