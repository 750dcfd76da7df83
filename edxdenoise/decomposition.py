"""Which decomposition a recipe asks for, with what, and what its components are called."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from edxdenoise.config import Denoise
from edxdenoise.cube import detector_resolution, energy_axis
from edxdenoise.decompose import nmf, pca
from edxdenoise.decompose.nmf import SPARE, check_number, unwatched
from edxdenoise.decompose.nmf_fit import Count
from edxdenoise.decompose.pca import check_components
from edxdenoise.io import read_spectra
from edxdenoise.schema import (
    COMPONENT_KEEP,
    COMPONENT_SPECTRUM,
    COORD_COMPONENT_NAME,
    COUNTS,
    DIM_COMPONENT,
    DIM_ENERGY,
    WEIGHT_ENERGY,
)
from edxdenoise.selection import select
from edxdenoise.xray import component_peaks, element_spectrum, identified, name_peaks

_NAMED_LINES = 3


def decompose(ds: xr.Dataset, recipe: Denoise, progress: Count = unwatched) -> xr.Dataset:
    """Components of weighted counts, as the recipe says; those of NMF have names.

    Parameters
    ----------
    ds : Dataset
        With ``counts`` and weights.
    recipe : Denoise
    progress : callable
        As `edxdenoise.nmf` takes it.
    """
    if recipe.decomposition == "pca":
        return pca(ds, components=_number(recipe), solver=recipe.solver, seed=recipe.seed)
    start, fixed = known_spectra(ds, recipe)
    components: int | None = _number(recipe)
    if recipe.components == "auto":
        components = max(_signal_components(ds, recipe), len(fixed))
    found = nmf(
        ds,
        components=components,
        loss=recipe.loss,
        init=recipe.init,
        start=start if len(start) else None,
        fixed=fixed if len(fixed) else None,
        closure=recipe.closure,
        tolerance=recipe.tolerance,
        max_iterations=recipe.max_iterations,
        seed=recipe.seed,
        progress=progress,
    )
    names = component_names(found)
    return found.assign_coords({COORD_COMPONENT_NAME: (DIM_COMPONENT, names)})


def check_decomposition(ds: xr.Dataset, recipe: Denoise) -> tuple[int | None, int]:
    """Check what can be checked without a pass over the counts.

    Returns
    -------
    components : int or None
        How many there will be; None where the data decide.
    maps : int
        How many maps are held at a time.
    """
    shape = ds[COUNTS.name].shape
    if recipe.decomposition == "pca":
        components = check_components(_number(recipe), shape)
        return components, components
    start, fixed = known_spectra(ds, recipe)
    if recipe.components == "auto":
        return None, check_components(None, shape)
    components = check_number(_number(recipe), len(start), len(fixed), shape)
    return components, components + SPARE


def known_spectra(ds: xr.Dataset, recipe: Denoise) -> tuple[np.ndarray, np.ndarray]:
    """Spectra to start from and spectra to hold, each (n, energy) in counts; none where not asked.

    Raises
    ------
    FormatError, ParameterError
        If a file holds none or an element has no line.
    """
    if recipe.start or recipe.fix_spectrum or recipe.fix_element:
        energy_axis(ds)
    energy = ds[DIM_ENERGY].values
    none = [np.empty((0, energy.size))]
    start = [read_spectra(path, energy) for path in recipe.start]
    fixed = [read_spectra(path, energy) for path in recipe.fix_spectrum]
    fixed += [
        element_spectrum(
            element,
            energy,
            beam_energy=ds.attrs.get("beam_energy"),
            resolution=detector_resolution(ds),
        )[np.newaxis]
        for element in recipe.fix_element
    ]
    return np.concatenate(none + start), np.concatenate(none + fixed)


def component_names(ds: xr.Dataset) -> list[str]:
    """What the spectra of NMF may be called: their strongest lines, one of each element.

    Parameters
    ----------
    ds : Dataset
        With ``component_spectrum``, ``weight_energy`` and the elements of the file.

    Returns
    -------
    list of str
        Energies where lines have no name; ``"no lines"`` where there are none.
    """
    found, resolution = identified(ds), detector_resolution(ds)
    energy, h = ds[DIM_ENERGY].values, ds[WEIGHT_ENERGY.name].values
    names = []
    for spectrum in np.asarray(ds[COMPONENT_SPECTRUM.name].values):
        peaks = name_peaks(component_peaks(energy, spectrum, h, resolution), found)
        names.append(_joined([peak.name or peak.label for peak in peaks]))
    return names


def _joined(labels: Sequence[str]) -> str:
    """The first labels that tell of different elements.

    Examples
    --------
    >>> _joined(["I Lα", "Pb Mα / S Kα", "I Lβ", "N Kα", "Cu Kα"])
    'I Lα, Pb Mα / S Kα, N Kα'
    """
    chosen: dict[str, str] = {}
    for label in labels:
        chosen.setdefault(label.split()[0], label)
    return ", ".join(list(chosen.values())[:_NAMED_LINES]) or "no lines"


def _number(recipe: Denoise) -> int | None:
    return recipe.components if isinstance(recipe.components, int) else None


def _signal_components(ds: xr.Dataset, recipe: Denoise) -> int:
    """Return the number of principal components that the recipe's selector calls signal."""
    chosen = select(pca(ds, seed=recipe.seed), selector=recipe.select, seed=recipe.seed)
    return int(chosen[COMPONENT_KEEP.name].sum())
