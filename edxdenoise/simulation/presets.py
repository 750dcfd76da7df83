"""The phantoms: what lies where, and the microscope that looks at it.

The solar cell has four cross sections, stacked, after Kosasih et al. (2023), Fig. 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from edxdenoise.simulation.geometry import (
    add_spheres,
    boundaries,
    grains,
    layer_shares,
    scatter,
    smooth_field,
    split_rows,
)
from edxdenoise.simulation.spectrum import Instrument
from edxdenoise.xray.detector import Detector


@dataclass(frozen=True)
class Preset:
    """A phantom.

    Parameters
    ----------
    title : str
        One line for people.
    shape : tuple of int
        Default rows and columns.
    channels : int
        Default number of channels.
    energy_width : float
        Default width of a channel in keV.
    pixel_size : float
        In nm, at the default number of rows.
    instrument : Instrument
    geometry : callable
        From a random generator and a shape to the amount of each material: nm of thickness in a
        foil, share of the mass in bulk.
    stray : mapping of str to float
        Relative photons of each element that come from elsewhere than the specimen.
    stray_share : float
        Their share of all counts.
    dwell_time : float
        Live time per pixel in s.
    area_labels : tuple of str
        Names of the maps that are stacked along y; empty for a single map.
    """

    title: str
    shape: tuple[int, int]
    channels: int
    energy_width: float
    pixel_size: float
    instrument: Instrument
    geometry: Callable[[np.random.Generator, tuple[int, int]], dict[str, np.ndarray]]
    stray: Mapping[str, float] = field(default_factory=dict)
    stray_share: float = 0.0
    dwell_time: float = 0.04
    area_labels: tuple[str, ...] = ()


_NANOPARTICLE_ROWS, _CORE_SHELL_ROWS, _LAYER_ROWS, _MINERAL_ROWS = 256, 128, 256, 256


def _nanoparticles(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Metal particles of three sizes and ceria grains on a holey carbon film; 1 nm pixels."""
    scale = shape[0] / _NANOPARTICLE_ROWS
    columns = shape[1] / scale
    film = 15 * (1 + 0.15 * smooth_field(rng, shape, 30 * scale))
    hole = np.zeros(shape)
    # The rim of a hole in the film crosses a corner of the map.
    add_spheres(hole, np.array([[0.95 * shape[0], 0.98 * shape[1]]]), np.array([70 * scale]))
    phases = {"carbon film": np.clip(film, 0, None) * (hole == 0)}
    for name, per_map, low, high in (
        ("CeO2", 9, 14, 26),
        ("Au", 26, 4, 11),
        ("AuAg", 16, 3, 7),
        ("Ag", 14, 2, 5),
        ("Pd", 7, 1.5, 2.5),
    ):
        number = max(2, round(per_map * columns / _NANOPARTICLE_ROWS))
        radii = np.maximum(rng.uniform(low, high, number) * scale, 0.8)
        phases[name] = np.zeros(shape)
        add_spheres(phases[name], scatter(rng, shape, radii), radii)
        phases[name] /= scale
    return phases


def _core_shell(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """FePt particles in a shell of iron oxide on a thin carbon film; 0.5 nm pixels."""
    pixel = 0.5 * _CORE_SHELL_ROWS / shape[0]
    scale = shape[0] / _CORE_SHELL_ROWS
    number = max(2, round(16 * shape[1] / shape[0]))
    radii = np.maximum(rng.uniform(7, 13, number) * scale, 1.5)
    cores = radii * rng.uniform(0.55, 0.75, number)
    centres = scatter(rng, shape, radii)
    core, whole = np.zeros(shape), np.zeros(shape)
    add_spheres(core, centres, cores)
    add_spheres(whole, centres, radii)
    film = 6 * (1 + 0.15 * smooth_field(rng, shape, 20 * scale))
    return {
        "carbon film": np.clip(film, 0, None),
        "FePt": core * pixel,
        "Fe3O4": (whole - core) * pixel,
    }


def _layers_gradient(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """A gate stack on a graded SiGe buffer with a faint profile of arsenic; 1 nm pixels."""
    rows, columns = shape
    scale = rows / _LAYER_ROWS
    thickness = 80 * np.exp(0.06 * smooth_field(rng, shape, 50 * scale))
    names = ("W", "TiN", "HfO2", "SiO2", "cap", "buffer", "substrate")
    depths = np.array([24.0, 42.0, 46.0, 48.5, 70.0, 180.0]) * scale
    rough = np.array([smooth_field(rng, (columns,), 8 * scale) for _ in depths])
    interfaces = depths[:, None] + 0.8 * scale * rough
    shares = dict(zip(names, layer_shares(interfaces, rows)))

    depth = np.arange(rows)[:, None] + 0.5
    ramp = np.clip((interfaces[5] - depth) / (interfaces[5] - interfaces[4]), 0, 1)
    germanium = shares["buffer"] * ramp
    silicon = shares["cap"] + shares["buffer"] - germanium + shares["substrate"]
    arsenic = 0.25 * np.exp(-0.5 * ((depth - interfaces[3]) / (7 * scale)) ** 2) * silicon
    phases = {name: shares[name] for name in names[:4]}
    phases |= {"Si": silicon - arsenic, "SiGe": germanium, "Si doped with As": arsenic}
    return {name: share * thickness for name, share in phases.items()}


def _mineral(rng: np.random.Generator, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """A polished dacite: zoned feldspar and other crystals in glass; 2 um pixels."""
    from scipy import ndimage

    scale = shape[0] / _MINERAL_ROWS
    labels, distance = grains(rng, shape, 30 * scale)
    number = labels.max() + 1
    crystals = ("plagioclase", "quartz", "hornblende", "sanidine", "magnetite", "glass (dacite)")
    odds = (0.28, 0.12, 0.10, 0.07, 0.04, 0.39)
    # Every mineral is there, also in a map of few grains.
    kinds = np.concatenate([rng.permutation(6), rng.choice(6, p=odds, size=max(number - 6, 0))])
    kind = rng.permutation(kinds[:number])[labels]
    shares = {name: (kind == i).astype(float) for i, name in enumerate(crystals)}

    accessories = np.zeros(shape)
    for name, per_map, low, high in (
        ("apatite", 12, 1.5, 4.0),
        ("ilmenite", 10, 1.5, 5.0),
        ("zircon", 5, 1.2, 2.8),
    ):
        radii = np.maximum(rng.uniform(low, high, per_map) * scale, 0.8)
        spheres = np.zeros(shape)
        add_spheres(spheres, scatter(rng, shape, radii), radii)
        shares[name] = (spheres > 0) * (1 - accessories)
        accessories += shares[name]
    for name in crystals:
        shares[name] = shares[name] * (1 - accessories)

    # Calcium-rich hearts, sodium-rich rims, and the swings between.
    size = ndimage.maximum(distance, labels, np.arange(number))[labels] + 1
    radius = distance / size
    anorthite = np.clip(0.75 - 0.5 * radius + 0.10 * np.sin(14 * radius), 0.05, 0.9)
    plagioclase = shares.pop("plagioclase")
    shares = {
        "albite": plagioclase * (1 - anorthite),
        "anorthite": plagioclase * anorthite,
    } | shares
    # X-rays come from a volume, not from a point: grain edges are shared.
    relief = 1 + 0.03 * smooth_field(rng, shape, 25 * scale)
    edges = boundaries(kind) * rng.uniform(0, 1, shape) ** 4
    pits = 1 - 0.5 * ndimage.gaussian_filter(edges, 1)
    blur = 0.7 * scale
    return {n: ndimage.gaussian_filter(s, blur) * relief * pits for n, s in shares.items()}


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


PRESETS: dict[str, Preset] = {
    "solar-cell": Preset(
        title="two control and two treated perovskite solar cells in cross section",
        shape=(ROWS, 500),
        channels=650,
        energy_width=0.02,
        pixel_size=PIXEL_SIZE,
        # The k-factors published for C and N are those of a detector with a polymer window.
        instrument=Instrument("TEM", 200.0, Detector(130.0, 18.0, True), FOIL_THICKNESS),
        geometry=solar_cell,
        stray={"Cu": 1.0, "Fe": 0.05, "Co": 0.04, "Si": 0.10, "Ga": 0.06},
        stray_share=0.06,
        area_labels=AREA_LABELS,
    ),
    "nanoparticles": Preset(
        title="gold, silver and palladium particles with ceria on a carbon film",
        shape=(_NANOPARTICLE_ROWS, _NANOPARTICLE_ROWS),
        channels=1000,
        energy_width=0.02,
        pixel_size=1.0,
        instrument=Instrument("TEM", 200.0, Detector(130.0, 18.0), 15.0),
        geometry=_nanoparticles,
        stray={"Cu": 1.0, "Fe": 0.04, "Co": 0.03, "Si": 0.10},
        stray_share=0.08,
    ),
    "core-shell": Preset(
        title="FePt particles in shells of iron oxide",
        shape=(_CORE_SHELL_ROWS, _CORE_SHELL_ROWS),
        channels=1000,
        energy_width=0.02,
        pixel_size=0.5,
        instrument=Instrument("TEM", 200.0, Detector(130.0, 18.0), 10.0),
        geometry=_core_shell,
        stray={"Cu": 1.0, "Si": 0.10, "Co": 0.02},
        stray_share=0.12,
    ),
    "layers-gradient": Preset(
        title="gate stack on a graded SiGe buffer",
        shape=(_LAYER_ROWS, _LAYER_ROWS),
        channels=750,
        energy_width=0.02,
        pixel_size=1.0,
        instrument=Instrument("TEM", 200.0, Detector(130.0, 18.0), 80.0),
        geometry=_layers_gradient,
        stray={"Cu": 1.0, "Fe": 0.05, "Co": 0.04, "Ga": 0.10},
        stray_share=0.05,
    ),
    "mineral": Preset(
        title="polished section of a dacite",
        shape=(_MINERAL_ROWS, _MINERAL_ROWS),
        channels=1024,
        energy_width=0.01,
        pixel_size=2000.0,
        instrument=Instrument("SEM", 20.0, Detector(129.0, 35.0, True)),
        geometry=_mineral,
        dwell_time=0.002,
    ),
}
