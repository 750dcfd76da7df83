"""From a preset to a Dataset: expected counts, Poisson counts and the truth behind them, lazily.

Counts are the same however the map is cut into blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.blocks import block_shape
from edxdenoise.config import IMAGES
from edxdenoise.cube import make_cube, named_images, smallest_count_dtype
from edxdenoise.errors import ParameterError
from edxdenoise.simulation.geometry import grains, smooth_field, split_rows
from edxdenoise.simulation.presets import PRESETS, Preset
from edxdenoise.simulation.spectrum import MATERIALS, line_spectrum, material_spectra
from edxdenoise.simulation.truth import (
    EXPECTED_COUNTS,
    PHASE_MAP,
    PHASE_SPECTRUM,
    SIMULATED_PRESET,
    STRAY_PHASE,
    TRUE_ATOMIC_PERCENT,
    TRUE_WEIGHT_PERCENT,
    composition_tables,
    percent_maps,
)
from edxdenoise.xray.lines import atomic_number, atomic_weight

# Streams of random numbers that grow from one seed.
_GEOMETRY, _NOISE, _IMAGE = 0, 1, 2
_SMALLEST_MAP, _SMALLEST_CHANNELS = 8, 16
_SMALLEST_RANGE = 1.0  # keV; below it most specimens show no line
_NM_TO_UG_CM2 = 0.1  # times g/cm^3


def simulate(
    preset: str = "solar-cell",
    *,
    shape: tuple[int, int] | None = None,
    channels: int | None = None,
    energy_width: float | None = None,
    counts_per_pixel: float = 1000.0,
    seed: int = 0,
    images: Sequence[str] = (),
    blocks: tuple[int, int] | None = None,
) -> xr.Dataset:
    """Simulate a spectrum image whose truth is known.

    Nothing of the size of the cube is computed: counts and expected counts are Dask arrays. The
    counts of a seed do not depend on the blocks.

    Parameters
    ----------
    preset : str
        One of `PRESETS`: ``solar-cell``, ``nanoparticles``, ``core-shell``, ``layers-gradient``
        or ``mineral``.
    shape : tuple of int, optional
        Rows and columns. Another number of rows than the preset's samples the same field of view
        more coarsely or finely.
    channels : int, optional
        Number of channels; alone, it keeps the preset's energy range.
    energy_width : float, optional
        Width of a channel in keV; alone, it keeps the preset's energy range.
    counts_per_pixel : float
        Mean of the expected counts of a pixel.
    seed : int
        Seed of both geometry and noise.
    images : sequence of str
        Images to record with the counts: ``specimen``, a high-angle dark field (TEM) or
        backscattered electrons (SEM), named ``HAADF`` or ``BSE``; ``unrelated``, one of that name
        whose contrast has nothing to do with the chemistry. Counts do not depend on them.
    blocks : tuple of int, optional
        Rows and columns per Dask block; columns are rounded to multiples of 32. By default what
        `edxdenoise.blocks.block_shape` chooses.

    Returns
    -------
    xarray.Dataset
        ``counts``, and the truth: ``expected_counts`` = sum over phases of ``phase_map`` times
        ``phase_spectrum``, ``true_atomic_percent``, ``true_weight_percent``. Amounts of phases
        are mass thicknesses in a foil (TEM) and shares of the mass in bulk (SEM). The phase
        ``"stray"`` is no part of the specimen. A stack of several maps has the coordinate
        ``area`` along y; images are in ``image``. The attributes ``simulated_preset``,
        ``simulated_seed`` and so on are the keywords that make it again.

    Raises
    ------
    ParameterError
        If the preset is unknown or a number is not allowed.

    Examples
    --------
    >>> ds = simulate("core-shell", shape=(16, 16), channels=100, counts_per_pixel=50)
    >>> dict(ds.counts.sizes)
    {'y': 16, 'x': 16, 'energy': 100}
    """
    definition = check_preset(preset)
    shape = check_shape(definition.shape if shape is None else shape)
    channels, energy_width = _energy_axis(definition, channels, energy_width)
    if not (np.isfinite(counts_per_pixel) and counts_per_pixel > 0):
        raise ParameterError(f"counts_per_pixel is {counts_per_pixel}, must be more than 0")
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise ParameterError(f"seed is {seed!r}, must be a whole number of at least 0")
    seed = int(seed)
    for kind in images:
        if kind not in IMAGES:
            raise ParameterError(f"image '{kind}' is not known; allowed are {', '.join(IMAGES)}")

    energy = (np.arange(channels) + 0.5) * energy_width
    names, maps, spectra = _phases(definition, shape, energy, counts_per_pixel, seed)
    phase_map = da.from_array(maps, chunks=(-1, *_blocks(blocks, (*shape, channels))), name=False)
    expected = expected_counts(phase_map, spectra)
    counts = poisson_counts(expected, count_dtype(maps, spectra), seed=seed, stream=_NOISE)

    keywords = {
        SIMULATED_PRESET: preset,
        "simulated_shape": list(shape),
        "simulated_channels": channels,
        "simulated_energy_width": energy_width,
        "simulated_counts_per_pixel": float(counts_per_pixel),
        "simulated_seed": seed,
        "simulated_images": list(images),
    }
    pixel = definition.pixel_size * definition.shape[0] / shape[0]
    ds = make_cube(
        counts,
        energy=energy,
        y=np.arange(shape[0]) * pixel,
        x=np.arange(shape[1]) * pixel,
        spatial_units="nm",
        attrs=_attributes(definition, names, shape) | keywords,
    )
    elements, weight, atoms = composition_tables(names)
    bulk = definition.instrument.kind == "SEM"
    ds = ds.assign(
        {
            EXPECTED_COUNTS: EXPECTED_COUNTS.array(expected),
            PHASE_MAP: PHASE_MAP.array(maps).assign_attrs({"units": "1"} if bulk else {}),
            PHASE_SPECTRUM: PHASE_SPECTRUM.array(spectra),
            TRUE_ATOMIC_PERCENT: TRUE_ATOMIC_PERCENT.array(percent_maps(phase_map, atoms)),
            TRUE_WEIGHT_PERCENT: TRUE_WEIGHT_PERCENT.array(percent_maps(phase_map, weight)),
        }
    ).assign_coords(
        {
            v.DIM_PHASE: (v.DIM_PHASE, names, {"long_name": "phase"}),
            v.DIM_ELEMENT: (v.DIM_ELEMENT, elements, {"long_name": "chemical element"}),
        }
    )
    if images:
        ds[v.IMAGE] = _images(definition, names, maps, images, seed)
    if definition.area_labels:
        area = split_rows(shape[0], len(definition.area_labels))
        attrs = {"long_name": "stacked map", "area_label": list(definition.area_labels)}
        ds = ds.assign_coords({v.COORD_AREA: (v.DIM_Y, area, attrs)})
    return ds


def _images(
    definition: Preset, names: list[str], maps: np.ndarray, kinds: Sequence[str], seed: int
) -> xr.DataArray:
    """The images of these kinds; each has its own random numbers, whatever others there are."""
    found = {}
    for kind in dict.fromkeys(kinds):
        rng = np.random.default_rng(np.random.SeedSequence([seed, _IMAGE, IMAGES.index(kind)]))
        if kind == "specimen":
            name, signal = specimen_image(names, maps, definition.instrument.kind)
        else:
            name, signal = kind, unrelated_image(rng, maps.shape[1:])
        found[name] = recorded(signal, rng)
    return named_images(np.stack(list(found.values())), list(found))


def check_preset(name: str) -> Preset:
    """The preset of that name.

    Examples
    --------
    >>> check_preset("solar cell")
    Traceback (most recent call last):
    ...
    edxdenoise.errors.ParameterError: preset 'solar cell' is not known; allowed are solar-cell, \
nanoparticles, core-shell, layers-gradient, mineral
    """
    if name not in PRESETS:
        raise ParameterError(f"preset '{name}' is not known; allowed are {', '.join(PRESETS)}")
    return PRESETS[name]


def check_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """The shape as two integers.

    Examples
    --------
    >>> check_shape((4, 100))
    Traceback (most recent call last):
    ...
    edxdenoise.errors.ParameterError: shape is (4, 100), must be (rows, columns) of at least 8 each
    """
    sizes = tuple(shape)
    whole = all(isinstance(n, Integral) and n >= _SMALLEST_MAP for n in sizes)
    if len(sizes) != 2 or not whole:
        raise ParameterError(
            f"shape is {sizes}, must be (rows, columns) of at least {_SMALLEST_MAP} each"
        )
    return int(sizes[0]), int(sizes[1])


def _energy_axis(
    definition: Preset, channels: int | None, energy_width: float | None
) -> tuple[int, float]:
    span = definition.channels * definition.energy_width
    if energy_width is not None and not (np.isfinite(energy_width) and energy_width > 0):
        raise ParameterError(f"energy_width is {energy_width} keV, must be more than 0")
    if channels is None:
        if energy_width is None:
            return definition.channels, definition.energy_width
        channels = round(span / energy_width)
    if not isinstance(channels, Integral) or channels < _SMALLEST_CHANNELS:
        raise ParameterError(
            f"the number of channels is {channels}, must be a whole number of at least "
            f"{_SMALLEST_CHANNELS}"
        )
    width = span / channels if energy_width is None else float(energy_width)
    if channels * width < _SMALLEST_RANGE:
        raise ParameterError(
            f"{channels} channels of {width:g} keV end at {channels * width:g} keV, must reach "
            f"{_SMALLEST_RANGE:g} keV; raise channels or energy_width"
        )
    return int(channels), width


def _blocks(blocks: tuple[int, int] | None, shape: tuple[int, int, int]) -> tuple[int, int]:
    rows, columns = block_shape(shape) if blocks is None else blocks
    if rows < 1 or columns < 1:
        raise ParameterError(f"blocks are {blocks}, must be (rows, columns) of at least 1 each")
    if columns < shape[1]:
        columns = max(columns // SEGMENT, 1) * SEGMENT
    return min(rows, shape[0]), min(columns, shape[1])


def _phases(
    definition: Preset,
    shape: tuple[int, int],
    energy: np.ndarray,
    counts_per_pixel: float,
    seed: int,
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names, maps (phase, y, x) and spectra (phase, energy), scaled to the dose."""
    generator = np.random.default_rng(np.random.SeedSequence([seed, _GEOMETRY]))
    amounts = definition.geometry(generator, shape)
    instrument = definition.instrument
    names = list(amounts)
    maps = np.stack([amounts[name] for name in names]).astype(np.float32)
    spectra = material_spectra([MATERIALS[name] for name in names], instrument, energy)
    if instrument.kind == "TEM":
        density = np.array([MATERIALS[name].density for name in names], np.float32)
        maps *= _NM_TO_UG_CM2 * density[:, None, None]

    if definition.stray_share:
        # Electrons scattered by the specimen excite what is around it, a part comes regardless.
        strength = np.tensordot(spectra.sum(axis=1, dtype=np.float32), maps, axes=1)
        strength = 0.5 + 0.5 * strength / strength.mean()
        total = (spectra.sum(axis=1) * maps.mean(axis=(1, 2))).sum()
        share = definition.stray_share / (1 - definition.stray_share)
        stray = line_spectrum(definition.stray, instrument, energy) * total * share
        names.append(STRAY_PHASE)
        maps = np.concatenate([maps, strength[None].astype(np.float32)])
        spectra = np.concatenate([spectra, stray[None]])
    mean = (spectra.sum(axis=1) * maps.mean(axis=(1, 2), dtype=float)).sum()
    return names, maps, (spectra * (counts_per_pixel / mean)).astype(np.float32)


def _attributes(definition: Preset, names: list[str], shape: tuple[int, int]) -> dict[str, Any]:
    elements = set(definition.stray)
    for name in names:
        if name != STRAY_PHASE:
            elements |= set(MATERIALS[name].atoms)
    instrument = definition.instrument
    return {
        "title": f"simulated: {definition.title}",
        "instrument": instrument.kind,
        "beam_energy": instrument.beam_energy,
        "take_off_angle": instrument.detector.take_off_angle,
        "detector_resolution": instrument.detector.resolution,
        "elements": sorted(elements, key=atomic_number),
        "live_time": definition.dwell_time * shape[0] * shape[1],
    }


# Pixels along x that share one generator and one matrix product. Blocks are cut at its multiples
# only, so that neither the draws nor the rounding of the products depend on them.
SEGMENT = 32


def expected_counts(phase_map: da.Array, spectra: np.ndarray) -> da.Array:
    """Sum over phases of map times spectrum, lazily.

    Parameters
    ----------
    phase_map : dask array, shape (phase, y, x)
        In one chunk along phase; chunks along x start at multiples of `SEGMENT`.
    spectra : array, shape (phase, energy)

    Returns
    -------
    dask array of float32, shape (y, x, energy)
    """
    return da.map_blocks(
        _expected_block,
        phase_map,
        spectra=spectra,
        dtype=np.float32,
        drop_axis=0,
        new_axis=2,
        chunks=(*phase_map.chunks[1:], (spectra.shape[1],)),
        meta=np.empty((0, 0, 0), np.float32),
    )


def poisson_counts(expected: da.Array, dtype: np.dtype, *, seed: int, stream: int) -> da.Array:
    """Draw Poisson counts, lazily; each row has its own generators.

    Parameters
    ----------
    expected : dask array, shape (y, x, energy)
        Chunks along x start at multiples of `SEGMENT`.
    dtype : numpy.dtype
        Of the counts.
    seed, stream : int
        What the generators grow from.

    Returns
    -------
    dask array of `dtype`, shape (y, x, energy)
    """
    return da.map_blocks(
        _poisson_block,
        expected,
        seed=seed,
        stream=stream,
        out=dtype,
        dtype=dtype,
        meta=np.empty((0, 0, 0), dtype),
    )


def count_dtype(phase_map: np.ndarray, spectra: np.ndarray) -> np.dtype:
    """Smallest unsigned type that holds Poisson counts of any channel of any pixel.

    The largest expectation is bounded, not computed: the cube need not exist. Ten standard
    deviations and a margin for small expectations are never reached.
    """
    largest = float(np.tensordot(spectra.max(axis=1), phase_map, axes=1).max())
    return smallest_count_dtype(int(np.ceil(largest + 10 * np.sqrt(largest) + 25)))


def _segments(columns: int) -> list[slice]:
    return [slice(start, min(start + SEGMENT, columns)) for start in range(0, columns, SEGMENT)]


def _expected_block(phase_map: np.ndarray, *, spectra: np.ndarray) -> np.ndarray:
    _, rows, columns = phase_map.shape
    expected = np.empty((rows, columns, spectra.shape[1]), np.float32)
    pixels = np.ascontiguousarray(np.moveaxis(phase_map, 0, -1))
    for row in range(rows):
        for part in _segments(columns):
            np.matmul(pixels[row, part], spectra, out=expected[row, part])
    return expected


def _poisson_block(
    expected: np.ndarray, *, seed: int, stream: int, out: np.dtype, block_info: dict
) -> np.ndarray:
    (top, _), (left, _), _ = block_info[0]["array-location"]
    rows, columns, _ = expected.shape
    counts = np.empty(expected.shape, out)
    for row in range(rows):
        for part in _segments(columns):
            key = [seed, stream, top + row, left + part.start]
            generator = np.random.default_rng(np.random.SeedSequence(key))
            counts[row, part] = generator.poisson(expected[row, part])
    return counts


# Intensity of high-angle scattering goes with this power of the atomic number, between
# Rutherford's 2 and what screening leaves of it: S. J. Pennycook, Ultramicroscopy 30 (1989) 58.
_HAADF_POWER = 1.7
# Backscattered share of 20 keV electrons by atomic number, from the constant up: W. Reuter, Proc.
# 6th Int. Congr. X-ray Optics and Microanalysis (1972) 121.
_BACKSCATTERED = (-0.0254, 0.016, -1.86e-4, 8.3e-7)
# Noise over the standard deviation of the image, which has far more electrons than X-rays.
_IMAGE_NOISE = 0.03
# Where the darkest and the brightest pixel are in a detector's range of 16 bits.
_DARKEST, _BRIGHTEST = 6000.0, 60000.0


def specimen_image(names: list[str], maps: np.ndarray, kind: str) -> tuple[str, np.ndarray]:
    """Return name and signal of a detector that sees mass, thickness and atomic number.

    Parameters
    ----------
    names : list of str
        Of the phases.
    maps : array, shape (phase, y, x)
        Mass thickness of each phase in a foil, share of the mass in bulk.
    kind : str
        ``TEM`` for a high-angle dark field, ``SEM`` for backscattered electrons.

    Returns
    -------
    name : str
        ``HAADF`` or ``BSE``.
    signal : array, shape (y, x)
        In arbitrary units, free of noise.
    """
    elements, weight, _ = composition_tables(names)
    numbers = np.array([atomic_number(element) for element in elements], float)
    if kind == "TEM":
        masses = np.array([atomic_weight(element) for element in elements])
        name, strength = "HAADF", numbers**_HAADF_POWER / masses
    else:
        name, strength = "BSE", np.polynomial.polynomial.polyval(numbers, _BACKSCATTERED)
    return name, np.tensordot(weight @ strength, maps, axes=1)


def unrelated_image(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Return the signal of a detector whose contrast has nothing to do with the chemistry.

    It has grains with sharp edges and a slow change across the map, as the orientation of crystals
    and the bending of a foil give; shape (y, x).
    """
    size = max(min(shape) / 8, 3.0)
    labels, _ = grains(rng, shape, size)
    return rng.uniform(0, 1, labels.max() + 1)[labels] + 0.15 * smooth_field(rng, shape, size)


def recorded(signal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a signal, shape (y, x), with a little noise, as an array of uint16."""
    noisy = signal + _IMAGE_NOISE * signal.std() * rng.standard_normal(signal.shape)
    low, high = noisy.min(), noisy.max()
    scale = (_BRIGHTEST - _DARKEST) / (high - low if high > low else 1.0)
    return np.rint(_DARKEST + scale * (noisy - low)).astype(np.uint16)
