"""What a person decides on a denoised file, and the file that follows from it."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.blocks import load
from edxdenoise.components.selection import select
from edxdenoise.errors import (
    EdxdenoiseWarning,
    ParameterError,
    recorded,
    texts_of,
    warning_attrs,
)
from edxdenoise.io import read_regions, rounded_for_storage
from edxdenoise.pipeline import quantify, rebuilt
from edxdenoise.quantification import area_regions, sum_regions
from edxdenoise.recipe import Recipe


@dataclass(frozen=True)
class Choice:
    """What a person decides.

    Parameters
    ----------
    keep : tuple of int
        Numbers, from 1, of the kept components.
    notes : mapping of int to str
        On components, by number.
    regions : tuple of str
        As recipes have them, such as ``"core=10:40,20:60"``.
    elements : tuple of str
        Symbols of elements in the specimen besides those that are found.

    Raises
    ------
    ParameterError
        If a text has characters that no file or terminal takes.
    """

    keep: tuple[int, ...]
    notes: Mapping[int, str] = field(default_factory=dict)
    regions: tuple[str, ...] = ()
    elements: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for text in (*self.notes.values(), *self.regions):
            if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
                raise ParameterError(f"{ascii(text)[:80]} has control characters; leave them out")

    @classmethod
    def of(cls, ds: xr.Dataset) -> Choice:
        """Return the choice that a file holds."""
        numbers = ds[v.DIM_COMPONENT].values
        notes = {}
        if v.COORD_COMPONENT_NOTE in ds.coords:
            notes = dict(zip(numbers.tolist(), map(str, ds[v.COORD_COMPONENT_NOTE].values)))
        return cls(
            tuple(numbers[ds[v.COMPONENT_KEEP].values == 1].tolist()),
            {number: text for number, text in notes.items() if text},
            recipe_of(ds).quantify.regions,
            recipe_of(ds).quantify.elements,
        )


def recipe_of(ds: xr.Dataset) -> Recipe:
    """Return the recipe that a result states, or that of defaults."""
    return Recipe.from_toml(str(ds.attrs.get("recipe", "")))


def check_regions(ds: xr.Dataset, regions: tuple[str, ...]) -> None:
    """Check that regions are within the map, and named otherwise than its areas and phases.

    Raises
    ------
    ParameterError
        If they are not.
    FormatError
        If a region is that of a file which cannot be read.
    """
    for name in read_regions(regions, ds):
        if name in area_regions(ds) or name.startswith("phase "):
            raise ParameterError(
                f"region '{name}' has the name of an area or a phase; give it another name"
            )


def applied(ds: xr.Dataset, choice: Choice) -> xr.Dataset:
    """Return the file that follows from a choice: all that depends on it is made again.

    Parameters
    ----------
    ds : Dataset
        A denoised file, as `open_dataset` gives it.
    choice : Choice

    Returns
    -------
    Dataset
        Components and probabilities are those of `ds`. Where other components are kept, maps are
        smoothed, counts rebuilt and quantities computed as the recipe says; ``held_out_error`` is
        left out. The recipe names the components, the regions and the elements.

    Raises
    ------
    ParameterError
        If no component is kept, or a region is impossible.
    """
    if not choice.keep:
        raise ParameterError("no component is kept; keep at least one")
    check_regions(ds, choice.regions)
    before, recipe = Choice.of(ds), recipe_of(ds)
    with recorded(show=False) as issued:
        if choice.keep != before.keep:
            keep = ",".join(map(str, choice.keep))
            recipe = dataclasses.replace(
                recipe, denoise=dataclasses.replace(recipe.denoise, keep=keep)
            )
            ds = _rebuilt(ds, recipe)
        quantifying = dataclasses.replace(
            recipe.quantify, regions=choice.regions, elements=choice.elements
        )
        recipe = dataclasses.replace(recipe, quantify=quantifying)
        if dataclasses.replace(choice, notes=before.notes) != before:
            ds = _quantified(ds, recipe)
    ds = ds.assign_attrs({**_warned(issued, ds), "recipe": recipe.to_toml()})
    ds = ds.drop_vars(v.COORD_COMPONENT_NOTE, errors="ignore")
    if choice.notes:
        notes = [choice.notes.get(int(number), "") for number in ds[v.DIM_COMPONENT].values]
        attrs = {"long_name": "what a person wrote on the decision"}
        ds = ds.assign_coords({v.COORD_COMPONENT_NOTE: (v.DIM_COMPONENT, notes, attrs)})
    if not recipe.output.cube:
        return ds.drop_vars(v.COUNTS_DENOISED, errors="ignore")
    return rounded_for_storage(ds)


def _warned(issued: list[EdxdenoiseWarning], ds: xr.Dataset) -> dict[str, list[str]]:
    """Attributes of the warnings; one that is issued again with other numbers replaces the old."""

    def words(text: str) -> str:
        return re.sub(r"[\d.,]+", "#", text)

    repeated = {words(str(warning)) for warning in issued}
    before = {
        name: [text for text in texts_of(ds.attrs, name) if words(text) not in repeated]
        for name in ("warnings", "notes")
    }
    return warning_attrs(issued, before)


def _rebuilt(ds: xr.Dataset, recipe: Recipe) -> xr.Dataset:
    """Smooth and rebuild as `edxdenoise.pipeline.denoise` does, from components that are there."""
    known = ds[v.COMPONENT_SIGNAL_PROBABILITY]
    stale = [v.COUNTS_DENOISED, v.HELD_OUT_ERROR]
    ds = select(ds.drop_vars(stale, errors="ignore"), keep=recipe.denoise.keep)
    # That of the selector, which was overruled.
    ds = ds.assign({v.COMPONENT_SIGNAL_PROBABILITY: known})
    small = load(ds.drop_vars(v.COUNTS))
    ds = small.assign({v.COUNTS: ds[v.COUNTS]}).assign_attrs(ds.attrs)
    return rebuilt(ds, recipe.denoise)


def _quantified(ds: xr.Dataset, recipe: Recipe) -> xr.Dataset:
    """With quantities of the lines and regions of the recipe; regions alone where it has none."""
    stale = (v.DIM_LINE, v.DIM_ELEMENT, v.DIM_RATIO, v.DIM_REGION, v.DIM_GROUP, v.DIM_DIRECTION)
    ds = ds.drop_dims(stale, errors="ignore")
    if recipe.quantifies:
        return quantify(ds, recipe.lines, recipe.quantify)
    regions = recipe.quantify.regions
    return load_regions(ds, regions) if regions else ds


def load_regions(ds: xr.Dataset, regions: tuple[str, ...]) -> xr.Dataset:
    """With masks and spectra of regions, computed."""
    found = sum_regions(ds, read_regions(regions, ds))
    return found.assign(load(found[[n for n in found if v.DIM_REGION in found[n].dims]]).data_vars)


def labels_of(keep: tuple[int, ...], decided: frozenset[int]) -> dict[int, float]:
    """Return labels of the components that a person decided on: kept ones are signal."""
    return {number: float(number in keep) for number in sorted(decided)}


def keep_flags(keep: tuple[int, ...], count: int) -> np.ndarray:
    """Return whether each component is kept, shape (component,)."""
    return np.isin(np.arange(1, count + 1), keep)
