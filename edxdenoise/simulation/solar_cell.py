"""Four cross sections of perovskite solar cells, stacked, after Kosasih et al. (2023), Fig. 1."""

from __future__ import annotations

import numpy as np

from edxdenoise.simulation.geometry import (
    add_spheres,
    boundaries,
    grains,
    layer_shares,
    smooth_field,
    split_rows,
)

AREA_LABELS = ("control 1", "control 2", "treated 1", "treated 2")
ROWS = 330
PIXEL_SIZE = 10.0  # nm, at 330 rows

FOIL_THICKNESS = 100.0  # nm
_LAYERS = ("Cu", "PCBM", "MAPbI3", "ITO")
# Share of an area's height; the treated film has grown thicker.
_HEIGHTS = {
    "control": (0.16, 0.11, 0.53),
    "treated": (0.15, 0.10, 0.59),
}
# Pixels of the full-size map: roughness of the interfaces, its wavelength, size of the grains.
_ROUGHNESS, _WAVELENGTH = 1.3, 7.0
_GRAIN = {"control": 32.0, "treated": 60.0}
_PBI2_RADII = (1.8, 5.0)
_PBI2_PER_COLUMN = 0.05
# They reach along the boundary, into the foil, by this much farther than across it.
_PBI2_ELONGATION = 1.2
_STRIP_WIDTH = 5.0
_DAMAGE_RADIUS = 9.0


def solar_cell(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Thickness in nm of each phase.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : tuple of int
        Rows and columns; other than 330 rows sample the same specimen more coarsely or finely.

    Returns
    -------
    dict of str to array, shape (y, x)
    """
    scale = shape[0] / ROWS
    area = split_rows(shape[0], len(AREA_LABELS))
    last = len(AREA_LABELS)
    parts = []
    for number in range(1, last + 1):
        kind = AREA_LABELS[number - 1].split()[0]
        part = _cross_section(rng, (int((area == number).sum()), shape[1]), kind, scale)
        if number == last:
            _damage(rng, part, scale)
        parts.append(part)
    names = dict.fromkeys(name for part in parts for name in part)
    return {
        name: np.concatenate([part.get(name, np.zeros_like(part["Cu"])) for part in parts])
        for name in names
    }


def _cross_section(
    rng: np.random.Generator, shape: tuple[int, int], kind: str, scale: float
) -> dict[str, np.ndarray]:
    rows, columns = shape
    depths = np.cumsum(_HEIGHTS[kind]) * rows
    rough = [smooth_field(rng, (columns,), _WAVELENGTH * scale) for _ in depths]
    interfaces = depths[:, None] + _ROUGHNESS * scale * np.array(rough)
    shares = dict(zip(_LAYERS, layer_shares(interfaces, rows)))

    film = shares.pop("MAPbI3")
    labels, _ = grains(rng, shape, _GRAIN[kind] * scale)
    # A lamella is a wedge with long waves; grains mill a little differently; curtains run down it.
    wedge = np.exp(0.10 * smooth_field(rng, shape, 60 * scale))
    curtain = 1 + 0.02 * smooth_field(rng, (columns,), max(2.5 * scale, 0.5))
    thickness = FOIL_THICKNESS * wedge * curtain
    film_thickness = thickness * (1 + 0.05 * rng.standard_normal(labels.max() + 1))[labels]

    phases = {name: share * thickness for name, share in shares.items()}
    if kind == "treated":
        phases["MAPbI3 treated"] = film * film_thickness
        return phases

    pbi2 = _lead_iodide(rng, film, labels, scale)
    # Under the PCBM, a few pixels wide, of changing width and strength.
    top = interfaces[1] + np.maximum(
        1.0, _STRIP_WIDTH * scale * (1 + 0.3 * smooth_field(rng, (columns,), 12 * scale))
    )
    under = layer_shares(np.array([top]), rows)[0]
    strength = np.clip(0.8 + 0.2 * smooth_field(rng, (columns,), 15 * scale), 0.2, 1)
    poor = under * strength * (1 - pbi2)
    phases["MAPbI3 control"] = film * film_thickness * (1 - pbi2 - poor)
    phases["MAPbI3 N-poor"] = film * film_thickness * poor
    phases["PbI2"] = film * film_thickness * pbi2
    return phases


def _lead_iodide(
    rng: np.random.Generator, film: np.ndarray, labels: np.ndarray, scale: float
) -> np.ndarray:
    """Share of the foil's thickness in PbI2: spheres on the grain boundaries of the film."""
    inside = film > 0.99 if (film > 0.99).any() else film >= film.max()
    places = np.argwhere(inside & boundaries(labels))
    if not len(places):
        places = np.argwhere(inside)
    number = min(max(3, round(_PBI2_PER_COLUMN * film.shape[1] / scale)), len(places))
    centres = places[rng.choice(len(places), size=number, replace=False)]
    radii = np.maximum(rng.uniform(*_PBI2_RADII, size=number) * scale, 0.8)
    thickness = np.zeros(film.shape)
    add_spheres(thickness, centres, radii)
    foil = FOIL_THICKNESS / PIXEL_SIZE * scale
    return np.clip(_PBI2_ELONGATION * thickness / foil, 0, 1)


def _damage(rng: np.random.Generator, phases: dict[str, np.ndarray], scale: float) -> None:
    """A spot where the beam was parked: the film is replaced, carbon-rich."""
    film = phases["MAPbI3 treated"]
    rows, columns = film.shape
    depth = np.average(np.arange(rows), weights=film.sum(axis=1))
    y, x = np.ogrid[:rows, :columns]
    distance = np.hypot(y - depth, x - rng.uniform(0.3, 0.7) * columns)
    share = 0.9 * np.exp(-((distance / max(_DAMAGE_RADIUS * scale, 1.0)) ** 4))
    phases["MAPbI3 damaged"] = film * share
    phases["MAPbI3 treated"] = film * (1 - share)
