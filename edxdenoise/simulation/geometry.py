"""Shapes of which phantoms are built. Lengths are in pixels; randomness comes from the caller."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def smooth_field(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> np.ndarray:
    """Random field of mean 0 and variance 1, smooth over `scale` pixels.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : tuple of int
        One or two dimensions.
    scale : float
        Standard deviation of the Gaussian that white noise is smoothed with.

    Returns
    -------
    array of float, of `shape`
    """
    noise = np.fft.fftn(rng.standard_normal(shape))
    field = np.fft.ifftn(ndimage.fourier_gaussian(noise, scale)).real
    field -= field.mean()
    spread = field.std()
    # A field shorter than its scale is constant: there is nothing to normalise.
    return field / spread if spread > 1e-9 else np.zeros(shape)


def split_rows(rows: int, parts: int) -> np.ndarray:
    """Number of the part, from 1, of each row when a map is cut as evenly as possible.

    Examples
    --------
    >>> split_rows(5, 2)
    array([1, 1, 1, 2, 2])
    """
    return np.repeat(np.arange(1, parts + 1), [len(p) for p in np.array_split(range(rows), parts)])


def layer_shares(interfaces: np.ndarray, rows: int) -> np.ndarray:
    """Share of each pixel that lies in each of the layers between rough interfaces.

    Parameters
    ----------
    interfaces : array, shape (layer - 1, x)
        Depth of the interfaces below the top edge of the map, in pixels, from the top one down;
        where one rises above the one before it, the layer between them is missing.
    rows : int
        Rows of the map.

    Returns
    -------
    array, shape (layer, y, x)
        Sums to one over the layers.

    Examples
    --------
    >>> layer_shares(np.array([[1.25]]), 3)[:, :, 0]
    array([[1.  , 0.25, 0.  ],
           [0.  , 0.75, 1.  ]])
    """
    ordered = np.maximum.accumulate(interfaces, axis=0)
    above = np.clip(ordered[:, None, :] - np.arange(rows)[None, :, None], 0, 1)
    ends = np.zeros((1, rows, interfaces.shape[1]))
    return np.diff(np.concatenate([ends, above, ends + 1]), axis=0)


def grains(
    rng: np.random.Generator, shape: tuple[int, int], size: float
) -> tuple[np.ndarray, np.ndarray]:
    """Labels of Voronoi grains and each pixel's distance from its grain's seed.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : tuple of int
    size : float
        Mean diameter.

    Returns
    -------
    labels : array of int, of `shape`
        0, 1, 2 ...; neighbouring grains differ.
    distance : array of float, of `shape`
    """
    number = max(2, round(shape[0] * shape[1] / size**2))
    pixels = rng.choice(shape[0] * shape[1], size=min(number, shape[0] * shape[1]), replace=False)
    seeds = np.ones(shape, bool)
    seeds.flat[pixels] = False
    distance, nearest = ndimage.distance_transform_edt(seeds, return_indices=True)
    flat = nearest[0] * shape[1] + nearest[1]
    return np.unique(flat, return_inverse=True)[1].reshape(shape), distance


def boundaries(labels: np.ndarray) -> np.ndarray:
    """Whether a pixel's right or lower neighbour belongs to another grain."""
    found = np.zeros(labels.shape, bool)
    found[:-1] |= labels[:-1] != labels[1:]
    found[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    return found


def add_spheres(target: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> None:
    """Add the thickness (in pixels) of spheres seen from above to `target`, in place.

    Parameters
    ----------
    target : array, shape (y, x)
    centres : array, shape (sphere, 2)
        y and x.
    radii : array, shape (sphere,)
    """
    for (cy, cx), radius in zip(centres, radii):
        reach = radius + 1
        top, left = int(max(cy - reach, 0)), int(max(cx - reach, 0))
        window = target[top : int(cy + reach) + 1, left : int(cx + reach) + 1]
        y, x = np.ogrid[: window.shape[0], : window.shape[1]]
        squared = (y + top - cy) ** 2 + (x + left - cx) ** 2
        window += 2 * np.sqrt(np.clip(radius**2 - squared, 0, None))


def scatter(rng: np.random.Generator, shape: tuple[int, int], radii: np.ndarray) -> np.ndarray:
    """Random centres for discs that keep a pixel apart as far as there is room.

    Returns
    -------
    array, shape (disc, 2)
        y and x.
    """
    centres = np.zeros((len(radii), 2))
    for i, radius in enumerate(radii):
        tries = rng.uniform(0, 1, (30, 2)) * np.array(shape)
        if i:
            apart = np.hypot(*np.moveaxis(tries[:, None] - centres[None, :i], -1, 0))
            room = (apart - radii[:i] - radius - 1.0).min(axis=1)
            tries = tries[np.argsort(-np.minimum(room, 0), kind="stable")]
        centres[i] = tries[0]
    return centres
