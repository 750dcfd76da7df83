"""The one boundary to RosettaSciIO: its failures and its chatter end here.

So do damaged blocks of an HDF5 file, such as a .hspy.
"""

from __future__ import annotations

import logging
import struct
import warnings
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import Any, TypeVar

import dask.array as da
import numpy as np

from edxdenoise.errors import ClusterError, EdxdenoiseError, FormatError, issue, recorded

_logger = logging.getLogger(__name__)
_READER_LOGGER = "rsciio"

# What readers raise when bytes are missing: StopIteration and ParseError from the Bruker reader,
# struct.error from a header read past the end, zlib.error from a cut block.
_CUT_SHORT = (
    StopIteration,
    EOFError,
    struct.error,
    zlib.error,
    IndexError,
    ElementTree.ParseError,
)

T = TypeVar("T")


class _Forwarder(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _logger.debug("reader: %s", one_line(record.getMessage()))


@contextmanager
def _quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Keep what RosettaSciIO logs and warns of off the terminal; yield the list of warnings.

    Its own handler prints, in colours, to stdout, where results belong. The messages go to this
    module's debug log.
    """
    import rsciio  # noqa: F401  (its import installs the handler that is taken off here)

    logger = logging.getLogger(_READER_LOGGER)
    handlers, propagate = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [_Forwarder()], False
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield caught
    finally:
        logger.handlers, logger.propagate = handlers, propagate


def guarded(path: Path, work: Callable[[], T]) -> T:
    """Run `work`, which reads `path`; any failure becomes a FormatError of one line.

    Of the warnings given meanwhile only our own come through.

    Raises
    ------
    FormatError
        Naming the file, what is wrong and what to do.
    """
    try:
        with _quiet() as caught, recorded(show=False) as issued:
            result = work()
    except EdxdenoiseError:
        raise
    # The readers of 40 formats fail in every way there is on a file that is damaged or foreign.
    # This is the only place where all of them are met.
    except Exception as error:
        raise FormatError(f"cannot read '{path}': {_explain(error)}") from error
    for warning in caught:
        _logger.debug("reader: %s", one_line(str(warning.message)))
    issue(*issued)
    return result


def check_file(path: Path | str) -> Path:
    """Check that a file, or the folder of a .zarr, is there, can be read and is not empty.

    Raises
    ------
    FormatError
        If it does not.
    """
    path = Path(path)
    try:
        reason = _unreadable(path)
        if path.is_file():
            open(path, "rb").close()
    except OSError as error:
        reason = _explain(error)
    if reason is not None:
        raise FormatError(f"cannot read '{path}': {reason}")
    return path


def _unreadable(path: Path) -> str | None:
    is_zarr = path.suffix.lower() in (".zarr", ".zspy")
    if not path.exists():
        return "it does not exist; check its name"
    if path.is_dir() and not is_zarr:
        return "it is a folder; name a file in it"
    if not path.is_dir() and not path.is_file():
        # Opening a pipe would wait for somebody who writes to it.
        return "it is a pipe or a device; name a file"
    if path.is_file() and path.stat().st_size == 0:
        return "the file is empty; copy or export it again"
    if is_zarr and not any((path / name).is_file() for name in ("zarr.json", ".zgroup")):
        return "it is no folder with a file zarr.json; copy the whole folder"
    return None


def one_line(text: str) -> str:
    """Text without line breaks and repeated blanks."""
    return " ".join(text.split())


def _explain(error: Exception) -> str:
    text = one_line(str(error)).rstrip(".")
    if isinstance(error, PermissionError):
        return "no permission to read it; change its access rights"
    if isinstance(error, FileNotFoundError):
        return f"there is no {error.filename or text} any more; copy it again"
    if isinstance(error, ImportError):
        return f"its reader is not complete here ({text}); install what is missing or convert it"
    if "truncated file" in text:
        return "the file is cut short; copy or export it again"
    if isinstance(error, _CUT_SHORT):
        detail = f" ({text})" if text else ""
        return f"the file is cut short or damaged{detail}; copy or export it again"
    if "file signature not found" in text:
        return "it is no HDF5 file, as its extension says; check the file or its extension"
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is; use a larger machine, or copy it again"
    if isinstance(error, KeyError):
        return f"the entry {text} is missing; the file is damaged or of a kind that is not known"
    return f"{text or type(error).__name__}; check that the file is whole and what its name says"


class NamedArray:
    """An array in a file; what cannot be read of it is an error that names the file.

    Parameters
    ----------
    path : Path
        The file.
    source : h5py.Dataset or array-like
        In it; all but the former can be pickled.
    """

    def __init__(self, path: Path, source: Any) -> None:
        import h5py

        self.path = path.absolute()
        self.shape, self.dtype, self.ndim = source.shape, source.dtype, source.ndim
        self._name = source.name if isinstance(source, h5py.Dataset) else None
        self._source = source

    def __getitem__(self, key: Any) -> np.ndarray:
        import h5py

        try:
            if self._source is None:
                self._source = h5py.File(self.path, "r")[self._name]
            return np.asarray(self._source[key])
        except (OSError, RuntimeError) as error:
            raise FormatError(
                f"cannot read '{self.path}': a block of its counts is damaged "
                f"({one_line(str(error))}); copy or export it again"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        # Other processes open the file themselves.
        return self.__dict__ | ({} if self._name is None else {"_source": None})


def named(path: Path, data: Any) -> Any:
    """`data` whose blocks are read from one array in a file, with errors that name the file.

    Whatever else is returned as it is.
    """
    if not isinstance(data, da.Array):
        return data
    # So Dask calls what `from_array` was given. The other layers may have millions of entries.
    layers = [layer for name, layer in data.dask.layers.items() if name.startswith("original-")]
    sources = [value for layer in layers for value in layer.values() if hasattr(value, "shape")]
    if len(sources) != 1 or sources[0].shape != data.shape:
        return data
    # Dask would name the array after its path, and confuse it with a later file at that path.
    return da.from_array(NamedArray(path, sources[0]), chunks=data.chunks, name=False)


# Packages that decode files: a ValueError or RuntimeError that passes through none of them is ours.
_READERS = tuple(
    f"{name}."
    for name in ("edxdenoise.io", "h5py", "netCDF4", "numcodecs", "rsciio", "xarray.backends")
    + ("sparse", "tifffile", "zarr")
)


@contextmanager
def naming(files: Sequence[Path]) -> Iterator[None]:
    """Put the name of the file before an error that does not say which file it is about."""
    try:
        yield
    except ClusterError:
        # That of the scheduler or of a worker, not of a file.
        raise
    except EdxdenoiseError as error:
        if any(path.name in str(error) for path in files):
            raise
        raise type(error)(f"{_shown(files)}: {error}") from error


@contextmanager
def reading(files: Sequence[Path]) -> Iterator[None]:
    """Explain damage inside a file, which shows only when its counts are first computed.

    Errors of computing pass through: they are faults of this program and not of the file.
    """
    try:
        yield
    except EdxdenoiseError:
        raise
    # What h5py, zarr's codecs and readers raise on a block that they cannot decode.
    except (OSError, RuntimeError, ValueError, zlib.error) as error:
        if not isinstance(error, (OSError, zlib.error)) and not _raised_by_reader(error):
            raise
        text = one_line(str(error)) or type(error).__name__
        reason = f"its counts are damaged ({text}); copy or export it again"
        if isinstance(error, PermissionError):
            reason = _explain(error)
        raise FormatError(f"cannot read '{_shown(files)}': {reason}") from error


def _raised_by_reader(error: BaseException) -> bool:
    """Whether an error came up through a module that reads files."""
    frames = walk_tb(error.__traceback__)
    modules = {frame.f_globals.get("__name__", "") for frame, _ in frames} - {__name__}
    return any(f"{module}.".startswith(_READERS) for module in modules)


def _shown(files: Sequence[Path]) -> str:
    return f"{files[0]} and {len(files) - 1} more" if len(files) > 1 else str(files[0])
