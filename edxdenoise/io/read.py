"""Read the spectrum image of any vendor's file, or of our own, as a Dataset.

Also read single spectra that NMF holds or starts from.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from edxdenoise import schema as v
from edxdenoise.blocks import SparseBlock, in_rows
from edxdenoise.cluster import check_input
from edxdenoise.cube import make_cube, mark_missing, smallest_count_dtype
from edxdenoise.errors import FormatError, MemoryLimitError, Rank, warn
from edxdenoise.io.child import isolated
from edxdenoise.io.events import Events
from edxdenoise.io.guard import check_file, guarded
from edxdenoise.io.images import detector_images
from edxdenoise.io.metadata import (
    attributes,
    axis_values,
    energy_values,
    file_source,
    spatial_units,
    unit_ratio,
)
from edxdenoise.io.own import open_checked, open_counts, open_dataset
from edxdenoise.io.signals import (
    OWN_SUFFIXES,
    describe,
    energy_position,
    list_signals,
    open_file,
    pick_signal,
)
from edxdenoise.io.vendor import (
    Frames,
    VendorSignal,
    frame_limits,
    keeps_frames,
    no_frames,
    read_events,
)
from edxdenoise.resources import default_memory_limit, format_memory
from edxdenoise.simulation.truth import PHASE_SPECTRUM

# Blocks of these are read from the file where they are computed; all else is read here.
_READ_BY_WORKERS = {".hspy", ".hdf5", ".h5", ".zspy"}

# Bytes of counts that a byte of a compressed file can hold: 1032 with zlib, few more with others.
_MOST_COMPRESSED = 2000


def read_cube(
    path: Path | str,
    *,
    signal: int | str | None = None,
    frames: Frames | None = None,
    memory_limit: int | None = None,
) -> xr.Dataset:
    """Read a spectrum image.

    Parameters
    ----------
    path : path
        A file of any format RosettaSciIO reads, or our own .nc or .zarr.
    signal : int or str, optional
        Number (from 1, see `list_signals`) or title of the signal. By default the one X-ray map
        in the file.
    frames : (first, end), optional
        Sum these frames alone, from 0, `end` not included, of a Velox .emd, a JEOL .pts or a .zarr
        that keeps them.
    memory_limit : int, optional
        Bytes that the counts may take where the format can only be parsed as a whole (.bcf,
        .pts), and each block of them elsewhere; by default half of what is free.

    Returns
    -------
    xarray.Dataset
        With ``counts`` (y, x, energy) as a Dask array in the smallest integer type the reader can
        tell without an extra pass; ``energy`` in keV; ``y`` and ``x`` in the file's unit, from its
        offset, descending where the file says so (TIA), rows as stored. Images recorded with it
        are in ``image`` (`images.detector_images`). What the file says of its measurement is in
        the attributes (`metadata.attributes`), with ``source``.

    Raises
    ------
    FormatError
        If the file cannot be read, is cut short, or holds no or several spectrum images.
    MemoryLimitError
        If the counts would not fit.
    ParameterError
        If the file does not hold frames apart, or not those.

    Warns
    -----
    EdxdenoiseWarning
        If the file has no energy calibration, or its map lacks counts of its own sum spectrum.
    """
    path = check_file(path)
    if path.suffix.lower() in OWN_SUFFIXES:
        if signal is not None:
            pick_signal(path, list_signals(path), signal)
        ds = open_counts(path)
        if frames is not None:
            ds = _without_times(_with_frames(path, ds, frames))
        _check_blocks(path, ds[v.COUNTS].data, memory_limit)
        return mark_missing(ds)
    signals = open_file(path, frames=frames)
    infos = [describe(number, each) for number, each in enumerate(signals, 1)]
    chosen = signals.pop(pick_signal(path, infos, signal).index - 1)
    _check_memory(path, chosen, memory_limit)
    if chosen.load is not None:
        chosen = isolated(path, chosen.load, memory_limit=memory_limit)
    ds = guarded(path, lambda: mark_missing(dataset_of(path, chosen), chosen.missing))
    if frames is not None:
        ds = _without_times(ds)
    images = detector_images(path, ds, [*signals, *chosen.images])
    if images is not None and v.MEASURED in images[v.DIM_DETECTOR]:
        # A .hspy of ours has this variable as one more signal.
        ds = mark_missing(ds, images.sel({v.DIM_DETECTOR: v.MEASURED}).values == 0)
        images = images.drop_sel({v.DIM_DETECTOR: v.MEASURED})
    if images is not None and images.size:
        ds = ds.assign({v.IMAGE: images})
    return check_input(ds, path) if path.suffix.lower() in _READ_BY_WORKERS else ds


def _with_frames(path: Path, ds: xr.Dataset, frames: Frames) -> xr.Dataset:
    events = frame_events(path)
    chosen = chosen_frames(path, frames, events.frames)
    counts = events.counts(chosen, ds[v.COUNTS].dtype)
    ds = ds.assign({v.COUNTS: ds[v.COUNTS].copy(data=counts)})
    return ds.assign_attrs({v.FRAMES: int(chosen.sum())})


def _without_times(ds: xr.Dataset) -> xr.Dataset:
    """Drop the times of the whole measurement: JEOL states those of all frames, Velox of one."""
    ds = ds.copy()
    for name in ("live_time", "real_time"):
        ds.attrs.pop(name, None)
    return ds


def chosen_frames(path: Path, frames: Frames | None, number: int) -> np.ndarray:
    """Which of so many frames are chosen, shape (frame,); all of them by default."""
    chosen = np.zeros(number, bool)
    chosen[slice(*frame_limits(path, frames or (0, math.inf), number))] = True
    return chosen


def holds_frames(path: Path | str) -> bool:
    """Whether `frame_events` can read a file."""
    path = Path(path)
    if path.suffix.lower() in OWN_SUFFIXES:
        return (path / v.EVENT_FRAME).exists()
    return keeps_frames(path)


def frame_events(path: Path | str) -> Events:
    """Events, with their frames, of a Velox .emd, a JEOL .pts or a .zarr that keeps them.

    Raises
    ------
    ParameterError
        If the file does not hold frames apart.
    """
    path = check_file(path)
    if path.suffix.lower() not in OWN_SUFFIXES:
        return read_events(path)
    if not holds_frames(path):
        raise no_frames(path)
    return guarded(path, lambda: Events.of_dataset(open_checked(path, path.suffix.lower())))


def _check_memory(path: Path, signal: VendorSignal, memory_limit: int | None) -> None:
    """Refuse what a file declares before anything is allocated for it."""
    limit = default_memory_limit() if memory_limit is None else memory_limit
    declared = signal.needed or describe(1, signal).nbytes
    stored = path.stat().st_size
    if signal.load is None and isinstance(signal.data, da.Array):
        if path.is_file() and declared > _MOST_COMPRESSED * stored and declared > limit:
            raise FormatError(
                f"cannot read '{path}': it declares {format_memory(declared)} of counts, which its "
                f"{format_memory(stored)} cannot hold; it is damaged, copy or export it again"
            )
        _check_blocks(path, signal.data, memory_limit)
    elif declared > limit and not isinstance(signal.data, SparseBlock):
        raise _too_large(path, "can only be read as a whole and takes", declared, limit)


def _check_blocks(path: Path, data: da.Array, memory_limit: int | None) -> None:
    """Refuse blocks that do not fit; a smaller part of one cannot be read."""
    limit = default_memory_limit() if memory_limit is None else memory_limit
    needed = math.prod(data.chunksize) * data.dtype.itemsize
    if needed > limit:
        what = "has blocks that can only be read as a whole, each takes"
        raise _too_large(path, what, needed, limit)


def _too_large(path: Path, what: str, needed: int, limit: int) -> MemoryLimitError:
    return MemoryLimitError(
        f"'{path}' {what} {format_memory(needed)}, the limit is {format_memory(limit)}; raise "
        "--memory-limit"
    )


def dataset_of(path: Path, signal: VendorSignal) -> xr.Dataset:
    """Return the Dataset of a map of spectra; `path` may be the mere name of one in memory."""
    position = energy_position(signal)
    assert position is not None
    map_axes = [i for i in range(3) if i != position]
    y_axis, x_axis = (signal.axes[i] for i in map_axes)
    data = signal.data.transpose(*map_axes, position) if position != 2 else signal.data
    energy, calibrated = _energy(path, signal, position)
    units = spatial_units(x_axis)
    attrs = attributes(signal.metadata, signal.original_metadata)
    attrs["title"] = attrs["title"] or path.stem
    if path.exists():
        attrs["source"] = file_source(path)
    if signal.frames is not None:
        attrs[v.FRAMES] = signal.frames
    ds = make_cube(
        _lazy(data),
        energy=energy,
        y=axis_values(y_axis) * unit_ratio(spatial_units(y_axis), units),
        x=axis_values(x_axis),
        spatial_units=units,
        attrs=attrs,
    )
    if not calibrated:
        ds[v.DIM_ENERGY].attrs.update(units="channel", long_name="channel number")
    return ds


def _energy(path: Path, signal: VendorSignal, position: int) -> tuple[np.ndarray, bool]:
    axis = signal.axes[position]
    energy = energy_values(axis)
    if energy is None and not axis.get("units") and "ev-per-chan" in signal.original_metadata:
        # Ripple's one standard calibration has its unit in its name.
        energy = 1e-3 * axis_values(axis)
    if energy is not None:
        return energy, True
    warn(
        f"'{path}' has no energy calibration: its energy axis holds channel numbers",
        "X-ray lines cannot be assigned and nothing can be quantified",
        "write offset and scale into the file's header and read it again",
        rank=Rank.WRONG,
    )
    return axis_values(axis), False


def _lazy(data: Any) -> da.Array:
    """Counts as a Dask array; what lies in memory as one chunk in the smallest type."""
    if isinstance(data, da.Array):
        # The last pixel shows whether the file holds what its header says.
        data[-1, -1, -1].compute()
        native = data.dtype.newbyteorder("=")
        if data.dtype.byteorder in "<>":
            # Not astype() of Dask, which takes '<' and '=' for the same where they are.
            data = da.map_blocks(np.ndarray.astype, data, native, dtype=native)
        return data
    if isinstance(data, SparseBlock):
        return in_rows(data)
    data = np.asarray(data)
    if data.dtype.kind in "ui" and data.size and data.min() >= 0:
        data = data.astype(smallest_count_dtype(int(data.max())), copy=False)
    return da.from_array(data, chunks=-1, name=False)


def read_spectra(path: str | Path, energy: np.ndarray) -> np.ndarray:
    """Spectra of a file in the channels of a map.

    Parameters
    ----------
    path : path
        A spectrum in any format RosettaSciIO reads, such as .msa; or a .zarr or .nc of ours: the
        spectra of its components, else those of the phases of a phantom.
    energy : array, shape (energy,)
        Centres of the evenly spaced channels wanted, in keV.

    Returns
    -------
    array, shape (n, energy)
        In counts.

    Raises
    ------
    FormatError
        If the file holds no spectrum, one with negative counts, or one that ends before the map
        does.
    """
    path = check_file(path)
    if path.suffix.lower() in OWN_SUFFIXES:
        own, spectra = _of_dataset(path)
    else:
        own, spectra = guarded(path, lambda: _of_signal(path))
    if (spectra < 0).any():
        raise FormatError(
            f"'{path}' holds spectra that are negative in part, as principal components are; name "
            "a measured or simulated spectrum, or a result of nmf"
        )
    width, own_width = energy[1] - energy[0], own[1] - own[0]
    low, high = own[0] - own_width / 2, own[-1] + own_width / 2
    # Half a channel may be missing at either end.
    if low > energy[0] or high < energy[-1]:
        raise FormatError(
            f"'{path}' covers {low:.4g} to {high:.4g} keV, must cover {energy[0]:.4g} to "
            f"{energy[-1]:.4g} keV as the map does; crop the map with --energy"
        )
    edges = np.append(energy - width / 2, energy[-1] + width / 2)
    return resampled(np.append(own - own_width / 2, high), spectra, edges)


def resampled(edges: np.ndarray, spectra: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Counts between the edges wanted, spread evenly within each channel that is cut.

    Parameters
    ----------
    edges, wanted : array, shape (n + 1,) and (m + 1,)
        Rising.
    spectra : array, shape (..., n)

    Examples
    --------
    >>> resampled(np.array([0.0, 1, 2]), np.array([[4.0, 6]]), np.array([0.5, 1, 2]))
    array([[2., 6.]])
    """
    sums = np.pad(np.cumsum(spectra, axis=-1, dtype=float), ((0, 0), (1, 0)))
    return np.array([np.diff(np.interp(wanted, edges, row)) for row in sums])


def _of_dataset(path: Path) -> tuple[np.ndarray, np.ndarray]:
    ds = open_dataset(path)
    if v.COMPONENT_SPECTRUM in ds:
        spectra = ds[v.COMPONENT_SPECTRUM].values * ds[v.WEIGHT_ENERGY].values
    elif PHASE_SPECTRUM in ds:
        spectra = ds[PHASE_SPECTRUM].values
    else:
        raise FormatError(f"'{path}' holds neither components nor phases, whose spectra to take")
    return ds[v.DIM_ENERGY].values, np.asarray(spectra, float)


def _of_signal(path: Path) -> tuple[np.ndarray, np.ndarray]:
    found = []
    for signal in open_file(path):
        position = energy_position(signal)
        energy = None if position is None else energy_values(signal.axes[position])
        if energy is not None and signal.data.ndim == 1 and energy.size > 1:
            found.append((energy, np.asarray(signal.data, float)[np.newaxis]))
    if len(found) != 1:
        raise FormatError(
            f"'{path}' holds {len(found)} spectra with an energy axis, must hold one; save that as "
            ".msa"
        )
    return found[0]
