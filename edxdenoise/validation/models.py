"""Which models are compared: their short names on the command line, and how they are fitted.

`blurred` shows what a blur can do by itself: a Gaussian whose width is chosen by the risk. With X
the counts of a channel, a their average and K(0) the share of a pixel in its own, the risk of the
channel is mean (X - a)^2 + 2 K(0) mean X (C. M. Stein, Ann. Stat. 9 (1981) 1135; the noise of a
pixel is its count). One width has the least sum over channels, each in units of its noise."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import dask.array as da
import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

from edxdenoise import schema as v
from edxdenoise.blocks import compute
from edxdenoise.components.pca import DEFAULT_COMPONENTS
from edxdenoise.components.selection import parse_keep, select
from edxdenoise.config import DECOMPOSITIONS, SELECTORS, Decomposition, Denoise
from edxdenoise.cube import reconstruct
from edxdenoise.errors import ParameterError
from edxdenoise.pipeline import denoise

# What stands for the recipe itself, with all it says.
OWN = "denoise"
BLUR = "blur"
# What `denoise` does, then the article's five; its PCA M, picked by hand, is by our selector.
DEFAULT_MODELS: tuple[str, ...] = (OWN, "pca:4", "pca:16", f"pca:{SELECTORS[0]}", "nmf:4", "nmf:16")

_NUMBERS = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")


@dataclass(frozen=True)
class Model:
    """One way to denoise.

    Parameters
    ----------
    name : str
        For tables: ``"PCA 4"``.
    decomposition : str
        Empty for what the recipe says, ``blur`` for an average over pixels.
    components : int, optional
        How many are computed; None for as many as a selector is to choose from.
    select : str
        Selector, where there is no `keep`.
    keep : str, optional
        Components kept.
    """

    name: str
    decomposition: str
    components: int | None
    select: str = SELECTORS[0]
    keep: str | None = None


def parse_model(text: str) -> Model:
    """A model from its short name.

    ``pca:4`` keeps components 1 to 4; ``pca:1-4,8`` or ``pca:8,`` those listed; ``pca:elbow`` what
    a selector chooses, all of pixelwise components and without spatial shrinkage; ``nmf:4`` has
    four components; ``blur`` averages over a Gaussian whose width has the least estimated risk;
    ``denoise`` is what `edxdenoise.denoise` does, by default or as a recipe says.

    Raises
    ------
    ParameterError
        If the text is none of these.

    Examples
    --------
    >>> parse_model("pca:16").keep, parse_model("pca:1-4, 8").name, parse_model("pca:elbow").select
    ('1-16', 'PCA 1-4,8', 'elbow')
    >>> parse_model("ica:4")
    Traceback (most recent call last):
    ...
    edxdenoise.errors.ParameterError: model 'ica:4' is not known; write pca:4, pca:1-4,8, \
pca:SELECTOR (cnn, spatial, split, edge, elbow, second-elbow, all), nmf:4, blur or denoise
    """
    method, _, rest = re.sub(r"\s", "", text).partition(":")
    name = f"{method.upper()} {rest}"
    if (method, rest) == (OWN, ""):
        return Model(OWN, "", None)
    if (method, rest) == (BLUR, ""):
        return Model(BLUR, BLUR, None)
    # A comma at the end tells a list of one from a number of components.
    listed = rest.removesuffix(",")
    if method in DECOMPOSITIONS and listed.isdigit() and int(listed) > 0:
        if method != "pca":
            return Model(name, method, int(rest), select="all")
        return Model(name, method, int(listed), keep=listed if "," in rest else f"1-{listed}")
    if method == "pca" and _NUMBERS.fullmatch(rest):
        last = max(int(number) for number in re.findall(r"\d+", rest))
        parse_keep(rest, last)
        return Model(name, method, last, keep=rest)
    if method == "pca" and rest in SELECTORS:
        return Model(name, method, None, select=rest)
    raise ParameterError(
        f"model '{text}' is not known; write pca:4, pca:1-4,8, pca:SELECTOR "
        f"({', '.join(SELECTORS)}), nmf:4, {BLUR} or {OWN}"
    )


def parse_models(texts: Iterable[str]) -> list[Model]:
    """Models from their short names, two at least and each once.

    Raises
    ------
    ParameterError
    """
    models = [parse_model(text) for text in texts]
    names = [model.name for model in models]
    if len(models) < 2:
        raise ParameterError(f"{len(models)} model to compare; name at least two")
    for name in names:
        if names.count(name) > 1:
            raise ParameterError(f"model '{name}' is named twice; name every model once")
    return models


def computed_components(models: Sequence[Model], recipe: Denoise) -> int | None:
    """Return the number of principal components to compute for all models together.

    None, for the default, where a selector is to choose.
    """
    pca = [model for model in models if model.decomposition == "pca"]
    fixed = [model.components for model in pca if model.components is not None]
    if len(fixed) == len(pca):
        return max(fixed, default=1)
    asked = recipe.components if isinstance(recipe.components, int) else DEFAULT_COMPONENTS
    return max([asked, *fixed])


def fit_models(
    ds: xr.Dataset,
    models: Sequence[Model],
    recipe: Denoise,
) -> list[xr.Dataset]:
    """Every model fitted to the counts of `ds`; those by PCA share one decomposition.

    Parameters
    ----------
    ds : Dataset
        With ``counts``.
    models : sequence of Model
    recipe : Denoise
        What the models have in common: weighting, solver, seed.

    Returns
    -------
    list of Dataset
        As `denoise` gives them, with kept components alone and lazy ``counts_denoised``.
    """
    components = computed_components(models, recipe)
    if components is not None:
        sizes = ds["counts"].sizes
        components = min(components, sizes["y"] * sizes["x"], sizes["energy"])
    fitted, shared = [], None
    for model in models:
        if model.decomposition == BLUR:
            fitted.append(blurred(ds))
            continue
        own = _own_recipe(model, recipe)
        if model.decomposition != "pca":
            fitted.append(denoise(ds, own))
            continue
        if shared is None:
            own = replace(own, components=components)
            shared = denoise(ds, own)
            fitted.append(shared)
            continue
        chosen = select(
            shared,
            selector=model.select,
            keep=model.keep,
            models=_networks(model, recipe),
            seed=recipe.seed,
        )
        fitted.append(reconstruct(chosen))
    return [_kept(each) for each in fitted]


def _own_recipe(model: Model, recipe: Denoise) -> Denoise:
    """The recipe with what makes the model, and without what only the other decomposition takes."""
    if not model.decomposition:
        return recipe
    bare = Denoise(decomposition=cast(Decomposition, model.decomposition))
    own = {
        "decomposition": model.decomposition,
        "components": model.components,
        "select": model.select,
        "keep": model.keep,
        "model": _networks(model, recipe),
    }
    if model.decomposition == "pca":
        # As the article has them: what else we do to components is in the recipe itself.
        own |= {"subspace": "pixel", "shrink": False}
    return replace(recipe, **{key: getattr(bare, key) for key in bare.unused} | own)


def _networks(model: Model, recipe: Denoise) -> tuple[str, ...]:
    """Networks of the recipe, for a model that asks one."""
    return recipe.model if model.keep is None and model.select == "cnn" else ()


def _kept(ds: xr.Dataset) -> xr.Dataset:
    """Without the components that were dropped: a hundred maps that nobody needs any more."""
    if v.DIM_COMPONENT not in ds.dims:
        return ds
    return ds.isel({v.DIM_COMPONENT: ds[v.COMPONENT_KEEP].values == 1})


WIDTHS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0, 11.0, 16.0)  # pixels
_TRUNCATE = 4.0


def blurred(ds: xr.Dataset) -> xr.Dataset:
    """Return a map with its counts averaged as ``counts_denoised``, lazy where they are."""
    counts = ds[v.COUNTS].data
    # The widths that fit the map, and none.
    widths = [0.0, *(width for width in WIDTHS if width <= max(counts.shape[:2]) / 4)]
    mean = counts.mean(axis=(0, 1), dtype=float)
    squares = [((_average(counts, w) - counts) ** 2).mean(axis=(0, 1), dtype=float) for w in widths]
    mean, *squares = compute(mean, *squares)
    noise = np.maximum(mean, 1 / counts.shape[0] / counts.shape[1])
    risks = [
        float(((square + 2 * own_share(width) * mean) / noise).sum())
        for width, square in zip(widths, squares)
    ]
    best = _average(counts, widths[int(np.argmin(risks))])
    return ds.assign({v.COUNTS_DENOISED: v.COUNTS_DENOISED.array(best)})


def own_share(width: float) -> float:
    """Weight of a pixel in its own average, far from borders.

    Examples
    --------
    >>> round(own_share(0.0), 3), round(own_share(2.0), 4), round(1 / (4 * np.pi) / 2, 4)
    (1.0, 0.0398, 0.0398)
    """
    if width == 0:
        return 1.0
    reach = int(_TRUNCATE * width + 0.5)
    line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    return float(line[reach] / line.sum()) ** 2


def _average(counts: np.ndarray | da.Array, width: float) -> np.ndarray | da.Array:
    if width == 0:
        return counts.astype(np.float32)
    if not isinstance(counts, da.Array):
        return _filter(counts, width)
    depth = int(_TRUNCATE * width + 0.5)
    edges = {0: min(depth, counts.shape[0]), 1: min(depth, counts.shape[1])}
    return counts.map_overlap(
        _filter, depth=edges, boundary="reflect", width=width, dtype=np.float32
    )


def _filter(block: np.ndarray, width: float) -> np.ndarray:
    sigma = (width, width, 0)
    return gaussian_filter(block.astype(np.float32), sigma, truncate=_TRUNCATE)
