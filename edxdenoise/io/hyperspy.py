"""Spectrum images from and to HyperSpy: in memory, and as .hspy files that it and eXSpy open."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr

from edxdenoise import __version__
from edxdenoise import schema as v
from edxdenoise.cube import energy_axis
from edxdenoise.errors import ParameterError
from edxdenoise.io.read import dataset_of
from edxdenoise.io.signals import SPECTRUM_IMAGE, describe
from edxdenoise.io.store import storage_chunks
from edxdenoise.io.vendor import VendorSignal

if TYPE_CHECKING:
    import h5py


def from_hyperspy(signal: Any) -> xr.Dataset:
    """Return the Dataset of a spectrum image that HyperSpy holds, eager or lazy.

    Parameters
    ----------
    signal : hyperspy.api.signals.BaseSignal
        Map of spectra with an energy axis; counts are not copied.

    Returns
    -------
    Dataset
        As `edxdenoise.open` gives it.

    Raises
    ------
    ParameterError
        If the signal is no map of spectra.

    Examples
    --------
    >>> import hyperspy.api as hs, numpy as np
    >>> signal = hs.signals.Signal1D(np.ones((4, 5, 100), np.uint8))
    >>> signal.axes_manager[-1].units = "keV"
    >>> dict(from_hyperspy(signal).sizes)
    {'y': 4, 'x': 5, 'energy': 100}
    """
    axes = list(signal.axes_manager.as_dictionary().values())
    foreign = VendorSignal(
        signal.data,
        axes,
        signal.metadata.as_dictionary(),
        signal.original_metadata.as_dictionary(),
    )
    if describe(1, foreign).kind != SPECTRUM_IMAGE:
        raise ParameterError(
            f"{signal} is no map of spectra; give a signal of two navigation axes and an energy "
            "axis"
        )
    title = str(signal.metadata.get_item("General.title", "")) or "signal"
    return dataset_of(Path(title), foreign)


def to_hyperspy(ds: xr.Dataset) -> Any:
    """Return the denoised counts, or else the counts, as a signal of HyperSpy.

    Parameters
    ----------
    ds : Dataset
        With ``counts_denoised`` or ``counts``; lazy stays lazy.

    Returns
    -------
    hyperspy.api.signals.Signal1D
        Of type ``EDS_TEM`` or ``EDS_SEM`` where eXSpy is installed.

    Raises
    ------
    ParameterError
        If HyperSpy is not installed.
    SchemaError
        If there are no counts.
    """
    try:
        import hyperspy.api as hs
    except ImportError as error:
        raise ParameterError(
            "HyperSpy is not installed; install it with: pip install hyperspy exspy"
        ) from error
    image_name(ds)
    array, parts = next(hyperspy_signals(ds))
    signal = hs.signals.Signal1D(
        array.data,
        axes=parts["axes"],
        metadata=parts["metadata"],
        original_metadata=parts["original_metadata"],
    )
    if isinstance(array.data, da.Array):
        signal = signal.as_lazy()
    return signal


# Dimension of the names, what follows them in the title, and quantity with its unit.
_STDDEV = ", standard deviation"
_QUANTITIES = {
    v.ATOMIC_PERCENT: (v.DIM_ELEMENT, " at%", "Atomic percent (at%)"),
    v.ATOMIC_PERCENT_STDDEV: (v.DIM_ELEMENT, f" at%{_STDDEV}", "Atomic percent (at%)"),
    v.RATIO: (v.DIM_RATIO, "", "Ratio of atoms"),
    v.RATIO_STDDEV: (v.DIM_RATIO, _STDDEV, "Ratio of atoms"),
    v.LINE_INTENSITY: (v.DIM_LINE, " net counts", "X-rays (Counts)"),
    v.LINE_INTENSITY_STDDEV: (v.DIM_LINE, f" net counts{_STDDEV}", "X-rays (Counts)"),
}
# Electrons of a scanning microscope for bulk samples are slower than this (keV).
_SEM_BEAM_ENERGY = 35.0


def image_name(ds: xr.Dataset) -> str:
    """The variable that goes into the file: ``counts_denoised``, else ``counts``.

    Raises
    ------
    SchemaError
        If there is neither.
    """
    spec = v.COUNTS_DENOISED if v.COUNTS_DENOISED in ds else v.COUNTS
    v.validate(ds, spec)
    return spec


def hspy_variables(ds: xr.Dataset) -> list[str]:
    """Return the variables of `ds` that a .hspy file holds."""
    maps = [name for name in _QUANTITIES if name in ds]
    # The output of `quantify` has no counts.
    cube = [] if maps and v.COUNTS not in ds and v.COUNTS_DENOISED not in ds else [image_name(ds)]
    return [*cube, *(name for name in (v.IMAGE, v.MEASURED) if name in ds), *maps]


def write_hspy(ds: xr.Dataset, path: Path, *, compression_level: int) -> None:
    """Write ``counts_denoised``, or ``counts`` where there is none, and maps for HyperSpy.

    Every image is a separate signal, as in vendors' files, under the name of its detector; so are
    ``measured`` and the maps of quantities, such as ``"Pb at%"``.

    Parameters
    ----------
    ds : xarray.Dataset
        Spectrum image, in blocks of one shape where it is lazy.
    path : Path
        File to write.
    compression_level : int
        Level of gzip for whole counts and rounded denoised ones.

    Raises
    ------
    SchemaError
        If there are no counts or the energy axis is not evenly spaced.
    """
    import h5py
    from rsciio.hspy._api import HyperspyWriter, version

    class Writer(HyperspyWriter):
        """Text has no checksums, which HDF5 refuses for it."""

        def parse_structure(self, *args: Any, fletcher32: bool = True, **options: Any) -> None:
            super().parse_structure(*args, **options)

    file = _ForgivingFile(path)
    with file, h5py.File(file, "w") as hdf5:
        hdf5.attrs.update({"file_format": "HyperSpy", "file_format_version": version})
        for array, signal in hyperspy_signals(ds):
            signal["data"] = file.stop_after_error(array.data)
            packing: dict[str, Any] = {"compression": None, "fletcher32": True}
            if array.dtype.kind in "iu" or array.name == v.COUNTS_DENOISED:
                packing |= {"compression": "gzip", "compression_opts": compression_level}
                packing["shuffle"] = True
            Writer(
                hdf5,
                signal,
                _new_group(hdf5, signal["metadata"]["General"]["title"]),
                chunks=storage_chunks(array),
                show_progressbar=False,
                **packing,
            ).write()


def hyperspy_signals(ds: xr.Dataset) -> Iterator[tuple[xr.DataArray, dict[str, Any]]]:
    """Spectrum image and images, with all that HyperSpy wants to know of each but its data."""
    axes = [_axis(ds, v.DIM_Y), _axis(ds, v.DIM_X)]
    whole = _metadata(ds.attrs)
    if (name := hspy_variables(ds)[0]) in (v.COUNTS, v.COUNTS_DENOISED):
        cube = whole
        if name == v.COUNTS_DENOISED:
            cube = whole | {"edxdenoise": whole["edxdenoise"] | {"variable": str(name)}}
        yield ds[name], _signal(ds[name], [*axes, _energy_axis(ds)], cube) | {
            "original_metadata": _original_metadata(ds.attrs)
        }
    axes = [axis | {"navigate": False} for axis in axes]
    images = {}
    if v.IMAGE in ds:
        images = {
            str(name): ds[v.IMAGE].sel({v.DIM_DETECTOR: name}) for name in ds[v.DIM_DETECTOR].values
        }
    if v.MEASURED in ds:
        images[v.MEASURED] = ds[v.MEASURED].astype(np.uint8)
    for name, image in images.items():
        metadata: dict[str, Any] = {
            "General": {"title": _text(name)},
            "Signal": {"signal_type": ""},
        }
        yield image, _signal(image, axes, metadata)
    for spec, (dim, ending, quantity) in _QUANTITIES.items():
        for name in map(str, ds[dim].values if spec in ds else ()):
            sample = {"elements": name.partition("_")[0].split("/")}
            if dim == v.DIM_LINE:
                sample["xray_lines"] = [name]
            metadata = whole | {
                "General": {"title": name + ending},
                "Signal": {"signal_type": "", "quantity": quantity},
                "Sample": sample,
                # By which a reader knows that it was computed.
                "edxdenoise": whole["edxdenoise"] | {"variable": str(spec)},
            }
            one = ds[spec].sel({dim: name}).transpose(v.DIM_Y, v.DIM_X)
            yield one, _signal(one, axes, metadata)


def _signal(
    array: xr.DataArray, axes: list[dict[str, Any]], metadata: dict[str, Any]
) -> dict[str, Any]:
    return {
        "axes": axes,
        "metadata": metadata,
        "original_metadata": {},
        "attributes": {"_lazy": isinstance(array.data, da.Array), "ragged": False},
        "learning_results": {},
        "models": {},
        # Empty, since HyperSpy asks for the package named here to be installed.
        "package_info": {"package": "", "package_version": ""},
        "tmp_parameters": {},
    }


def _new_group(hdf5: h5py.File, title: str) -> h5py.Group:
    """A group for one more signal, with a number where the title is taken."""
    name = title.replace("/", "-") or "__unnamed__"
    groups = hdf5.require_group("Experiments")
    taken = sum(other == name or other.startswith(f"{name} ") for other in groups)
    return groups.create_group(f"{name} {taken + 1}" if taken else name)


class _ForgivingFile:
    """A file for HDF5 that keeps its first error to itself until HDF5 has closed it.

    An HDF5 file that cannot be closed, as on a full disk, later crashes the interpreter. That is
    also why the file is not left to `rsciio.hspy.file_writer`, which takes a path only.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "r+b", buffering=0)
        self._error: OSError | None = None

    def __enter__(self) -> _ForgivingFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        self._file.close()
        if kind is None:
            self._raise_error()

    def stop_after_error(self, data: Any) -> Any:
        """Let no further block of a Dask array be computed once a write has failed."""
        if not isinstance(data, da.Array):
            return data

        def check(block: np.ndarray) -> np.ndarray:
            self._raise_error()
            return block

        return da.map_blocks(check, data, name=f"check-{uuid.uuid4()}", meta=data._meta)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def write(self, content: Any) -> int:
        view = memoryview(content).cast("B")
        written = 0
        try:
            while self._error is None and written < len(view):
                written += self._file.write(view[written:])
        except OSError as error:
            self._error = error
        return len(view)

    def truncate(self, size: int) -> int:
        try:
            return self._file.truncate(size)
        except OSError as error:
            self._error = self._error or error
            return size

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        # Nothing is kept back, since the file is not buffered.
        pass


def _axis(ds: xr.Dataset, dim: str) -> dict[str, Any]:
    # HyperSpy's maps need even axes. Stacked areas each have their own: they take the step of the
    # first and follow below each other.
    values = ds[dim].values if dim in ds.coords else np.arange(ds.sizes[dim], dtype=float)
    scale = float(values[1] - values[0]) if values.size > 1 else 1.0
    units = ds[dim].attrs.get("units", "pixel")
    return _uniform_axis(dim, values.size, float(values[0]), scale, units) | {"navigate": True}


def _energy_axis(ds: xr.Dataset) -> dict[str, Any]:
    offset, width = energy_axis(ds)
    axis = _uniform_axis("Energy", ds.sizes[v.DIM_ENERGY], offset, width, "keV")
    return axis | {"navigate": False, "is_binned": True}


def _uniform_axis(name: str, size: int, offset: float, scale: float, units: str) -> dict[str, Any]:
    return {
        "_type": "UniformDataAxis",
        "name": name,
        "size": size,
        "offset": offset,
        "scale": scale,
        "units": units,
        "is_binned": False,
    }


def _metadata(attrs: dict[Any, Any]) -> dict[str, Any]:
    instrument = attrs.get("instrument")
    if instrument not in ("SEM", "TEM"):
        instrument = "SEM" if attrs.get("beam_energy", np.inf) <= _SEM_BEAM_ENERGY else "TEM"
    detector = {
        "elevation_angle": attrs.get("take_off_angle"),
        "azimuth_angle": attrs.get("azimuth_angle"),
        "energy_resolution_MnKa": attrs.get("detector_resolution"),
        "live_time": attrs.get("live_time"),
        "real_time": attrs.get("real_time"),
    }
    microscope = {
        "beam_energy": attrs.get("beam_energy"),
        "Stage": _known({"tilt_alpha": attrs.get("stage_tilt")}),
        "Detector": {"EDS": _known(detector)},
    }
    ours = {name: attrs.get(name) for name in ("source", "history", "recipe")}
    metadata = {
        "General": {"title": _text(str(attrs.get("title", "")))},
        "Signal": {"signal_type": f"EDS_{instrument}", "quantity": "X-rays (Counts)"},
        "Acquisition_instrument": {instrument: _known(microscope)},
        "edxdenoise": {"version": __version__} | _tree(_known(ours)),
    }
    if attrs.get("elements"):
        metadata["Sample"] = {"elements": [str(element) for element in attrs["elements"]]}
    return metadata


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in values.items()
        if value is not None
    }


def _original_metadata(attrs: dict[Any, Any]) -> dict[str, Any]:
    text = attrs.get("original_metadata", "{}")
    try:
        tree = json.loads(text)
    except (TypeError, json.JSONDecodeError):
        tree = {"text": str(text)}
    return _tree(tree if isinstance(tree, dict) else {"values": tree})


def _tree(value: Any) -> Any:
    """Return what HDF5 can hold: no slash in names, no null in text, no integer over 64 bits."""
    if isinstance(value, dict):
        return {_text(key).replace("/", "-") or "_": _tree(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_tree(item) for item in value]
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)
    return value


def _text(text: str) -> str:
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
