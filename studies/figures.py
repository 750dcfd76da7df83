"""Draw the figures of the pages that explain a method.

    python studies/figures.py [NAME ...]

Each is of a phantom with a seed, and goes to docs/figure_NAME.png.
"""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from PIL import Image

import edxdenoise as ed
from edxdenoise.components.score_noise import score_noise
from edxdenoise.report.checks import audit_figure
from edxdenoise.report.integration import integration_figure
from edxdenoise.report.style import new_figure, style
from edxdenoise.validation import residual_audit

FOLDER = Path(__file__).resolve().parents[1] / "docs"
DPI = 130


@cache
def phantom(counts: float = 1000) -> xr.Dataset:
    """Cross sections of a solar cell: control above, treated below."""
    return ed.simulate(
        "solar-cell",
        shape=(48, 72),
        channels=325,
        energy_width=0.04,
        counts_per_pixel=counts,
        seed=1,
    ).compute()


@cache
def particles() -> xr.Dataset:
    """FePt particles, with the image of a detector."""
    return ed.simulate(
        "core-shell", shape=(48, 48), counts_per_pixel=60, images=["specimen"], seed=1
    ).compute()


@cache
def quantified() -> xr.Dataset:
    return ed.quantify(
        ed.denoise(phantom()), {"Pb_La": 1.0, "I_La": (0.6803, 0.0028)}, ratios=["I/Pb"]
    )


def panels(count: int, height: float = 1.9) -> tuple[Figure, np.ndarray]:
    figure = new_figure(7.1, height)
    figure.set_layout_engine("constrained")
    return figure, figure.subplots(1, count)


def show(axes: object, image: np.ndarray, title: str, **colours: object) -> None:
    axes.imshow(image, **{"cmap": "inferno", **colours})
    axes.set_title(title)
    axes.axis("off")


def classifier() -> Figure:
    """Draw score maps in units of their noise, with the verdict on each."""
    ds = ed.select(ed.pca(ed.weight(phantom()), components=60))
    probability = ds.component_signal_probability.values
    effect = ds.component_effect_size.values
    order = np.argsort(-probability)
    wanted = [order[0], order[probability[order] > 0.5][-1], *order[[len(order) // 2, -1]]]
    figure, axes = panels(4, 1.6)
    noise = score_noise(ds)
    for one, number in zip(axes, wanted):
        title = f"{number + 1}: p = {probability[number]:.2f}, effect {effect[number]:.2f}"
        score = ds.component_map.values[number] / np.sqrt(noise.variance(number))
        show(one, score, title, cmap="RdBu_r", vmin=-5, vmax=5)
    return figure


def nmf() -> Figure:
    """Abundances and spectra of four components."""
    ds = ed.denoise(phantom(), decomposition="nmf", components=4)
    figure = new_figure(7.1, 2.6)
    figure.set_layout_engine("constrained")
    axes = figure.subplots(2, 4, height_ratios=(3, 2))
    for k in range(4):
        show(axes[0, k], ds.component_map.values[k], f"component {k + 1}")
        spectrum = ds.component_spectrum.values[k] * ds.weight_energy.values
        axes[1, k].plot(ds.energy, spectrum / spectrum.max(), linewidth=0.8)
        axes[1, k].set(xlim=(0, 12), yticks=[], xlabel="energy (keV)")
    return figure


def images() -> Figure:
    """What an image recorded with the counts adds."""
    ds = particles()
    lines = slice(6.2, 6.6)
    maps = {
        "raw": ds.counts,
        "without the image": ed.denoise(ds, image="none").counts_denoised,
        "with the image": ed.denoise(ds).counts_denoised,
        "truth": ds.expected_counts,
    }
    truth = ds.expected_counts.sel(energy=lines).sum("energy").values
    figure, axes = panels(5)
    show(axes[0], ds.image.values[0], "HAADF image", cmap="gray")
    for one, (name, counts) in zip(axes[1:], maps.items()):
        image = counts.sel(energy=lines).sum("energy").values.astype(float)
        error = np.mean((image - truth) ** 2) / truth.mean()
        title = name if name == "truth" else f"{name}: {error:.2g}"
        show(one, image, title, vmin=0, vmax=np.percentile(truth, 99.5))
    return figure


def elements() -> Figure:
    """The lines by which elements are found."""
    return particles().edx.plot_spectrum()


def quantification() -> Figure:
    """Where net counts come from."""
    return integration_figure(ed.quantify(ed.denoise(particles()), {"Fe_Ka": 1.4, "Pt_La": 4.9}))


def uncertainty() -> Figure:
    """Deviations of pixels from the truth, in units of the stated error."""
    maps = quantified()
    figure, axes = panels(2, 2.2)
    grid = np.linspace(-5, 5, 41)
    for one, element in zip(axes, ("Pb", "I")):
        # at% are of lead and iodine together.
        atoms = phantom().true_atomic_percent.sel(element=["Pb", "I"])
        truth = (100 * atoms / atoms.sum("element")).sel(element=element).values
        stddev = maps.atomic_percent_stddev.sel(element=element).values
        pulls = (maps.atomic_percent.sel(element=element).values - truth) / stddev
        pulls = pulls[np.isfinite(pulls)]
        one.hist(pulls, grid, density=True, color="0.7")
        one.plot(grid, np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi), color="#0072B2")
        inside = np.mean(np.abs(pulls) < 1.96)
        one.set(xlabel=f"({element} at% − truth) / stated error", yticks=[])
        one.set_title(
            f"{element}: median {np.median(pulls):.2f}, {100 * inside:.0f} % within ±1.96, "
            f"{100 * np.mean(np.abs(pulls) > 5):.1f} % beyond the axis"
        )
    return figure


def audit() -> Figure:
    """A model that lacks a component, and what its residuals show."""
    ds = ed.denoise(phantom(4000), keep="1-4")
    return audit_figure(ds, residual_audit(ds))


FIGURES: dict[str, Callable[[], Figure]] = {
    one.__name__: one
    for one in (classifier, nmf, images, elements, quantification, uncertainty, audit)
}


def main(names: list[str]) -> None:
    warnings.simplefilter("ignore", ed.EdxdenoiseWarning)
    for name in names or FIGURES:
        buffer = io.BytesIO()
        with style():
            FIGURES[name]().savefig(buffer, dpi=DPI)
        picture = Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        path = FOLDER / f"figure_{name}.png"
        picture.save(path, optimize=True)
        print(f"{path.name}: {picture.width} x {picture.height}, {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
