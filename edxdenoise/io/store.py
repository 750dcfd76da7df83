"""How a Dataset is stored: shapes of chunks, attributes for NetCDF, whole .zarr folders."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import google_crc32c
import numpy as np
import xarray as xr
import zarr
from zarr.abc.store import ByteRequest
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from edxdenoise.errors import FormatError

# Length that the header of a Blosc buffer states for the whole of it.
_BLOSC_HEADER, _BLOSC_LENGTH = 16, slice(12, 16)
_CRC_LENGTH = 4


class WholeStore(LocalStore):
    """A folder that holds all chunks which were there when it was opened.

    Zarr takes a missing chunk for one of fill values. On a worker that does not see the folder,
    all counts would be zeros.

    Parameters
    ----------
    root : str or Path
        The folder.
    sparse : frozenset of str
        Arrays that lack chunks on purpose, as other programs write them.
    checks : dict of str to str
        Last codec of arrays whose chunks are checked: ``crc32c``, their checksum, or ``blosc``,
        whose decoder reads past the end of a chunk that is cut short.
    stamp : int
        Time of the last change, so that Dask does not take another file for the same.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        read_only: bool = True,
        sparse: frozenset[str] = frozenset(),
        checks: Mapping[str, str] = MappingProxyType({}),
        stamp: int = 0,
    ) -> None:
        super().__init__(root, read_only=read_only)
        self.sparse, self.checks, self.stamp = sparse, dict(checks), stamp

    def with_read_only(self, read_only: bool = True) -> WholeStore:
        """Return the same store; it is never written to."""
        return self

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        """Return the bytes at `key`, None where there is no metadata of that name."""
        return self._checked(key, await super().get(key, prototype, byte_range), byte_range)

    def get_sync(self, key: str, **options: Any) -> Buffer | None:
        """Return the bytes at `key` as `get` does."""
        return self._checked(key, super().get_sync(key, **options), options.get("byte_range"))

    def _checked(self, key: str, value: Buffer | None, byte_range: Any) -> Buffer | None:
        array, separator, _ = key.partition("/c")
        if not separator:
            return value
        if value is None:
            if array in self.sparse:
                return None
            raise FormatError(
                f"cannot read '{self.root}': chunk '{key}' is missing for {platform.node()}; copy "
                "the folder again, or let every worker see it"
            )
        if byte_range is None and array in self.checks:
            content = value.as_numpy_array().tobytes()
            if not _is_whole(content, self.checks[array]):
                raise FormatError(
                    f"cannot read '{self.root}': chunk '{key}' is damaged; copy the folder again"
                )
        return value


def _is_whole(content: bytes, codec: str) -> bool:
    if codec == "blosc":
        stated = int.from_bytes(content[_BLOSC_LENGTH], "little")
        return len(content) >= _BLOSC_HEADER and stated == len(content)
    body, checksum = content[:-_CRC_LENGTH], content[-_CRC_LENGTH:]
    return google_crc32c.value(body) == int.from_bytes(checksum, "little")


def whole_store(path: Path) -> WholeStore:
    """The store of a .zarr folder.

    Raises
    ------
    FormatError
        If it is from edxdenoise, which writes all chunks, and lacks some.
    """
    path = path.absolute()
    group = zarr.open_group(path, mode="r")
    sparse, checks = set(), {}
    for name, array in _arrays(path):
        if array.nchunks_initialized != array.nchunks:
            sparse.add(name)
        compressors = getattr(array, "compressors", ())
        if compressors and isinstance(compressors[-1], Crc32cCodec):
            checks[name] = "crc32c"
        elif compressors and isinstance(compressors[-1], BloscCodec):
            checks[name] = "blosc"
    if sparse and "edxdenoise_version" in group.attrs:
        raise FormatError(
            f"{path} is damaged: chunks of '{min(sparse)}' are missing; copy it again"
        )
    return WholeStore(
        path,
        sparse=frozenset(sparse),
        checks=checks,
        stamp=os.stat(path).st_mtime_ns,
    )


def _arrays(path: Path) -> Iterator[tuple[str, zarr.Array]]:
    """Open the arrays of a group one by one.

    Zarr opens all of a group at a time; where one fails the others go on, and say so on the
    terminal when Python ends.
    """
    for part in sorted(path.iterdir()):
        if (part / "zarr.json").is_file() or (part / ".zarray").is_file():
            node = zarr.open(part, mode="r")
            if isinstance(node, zarr.Array):
                yield part.name, node


# Names of the attributes that are JSON text in the file; itself only in the file.
_JSON_ATTRS = "edxdenoise_json_attrs"
# netCDF gives a list of one text back as the text alone.
_LIST_ATTRS = ("area_label", "elements", "elements_given")


def netcdf_attrs(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Turn what NetCDF has no type for into JSON text and note which attributes these are.

    NetCDF has no None, bool, dict, list of lists or empty list.

    Examples
    --------
    >>> netcdf_attrs({"title": "a", "stack": {"n": None}})
    {'title': 'a', 'stack': '{"n": null}', 'edxdenoise_json_attrs': 'stack'}
    """
    native: dict[str, Any] = {}
    as_json = []
    for name, value in attrs.items():
        if _is_native(name, value):
            native[name] = value
        else:
            native[name] = json.dumps(value, default=_plain)
            as_json.append(name)
    if as_json:
        native[_JSON_ATTRS] = " ".join(as_json)
    return native


def memory_attrs(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    """Inverse of `netcdf_attrs`; attributes read from Zarr come back as they are.

    Examples
    --------
    >>> memory_attrs(netcdf_attrs({"elements": ["Pb"], "stack": {"n": None}}))
    {'elements': ['Pb'], 'stack': {'n': None}}
    """
    attrs = dict(attrs)
    for name in attrs.pop(_JSON_ATTRS, "").split():
        attrs[name] = json.loads(attrs[name])
    for name in _LIST_ATTRS:
        if isinstance(attrs.get(name), str):
            attrs[name] = [attrs[name]]
    return {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in attrs.items()
    }


def _is_native(name: str, value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        fewest = 1 if name in _LIST_ATTRS else 2
        return len(value) >= fewest and all(isinstance(item, str) for item in value)
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and value.size > 1 and value.dtype.kind in "iuf"
    return isinstance(value, (str, int, float, np.integer, np.floating)) and not isinstance(
        value, bool
    )


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return str(value)


# Numbers per stored chunk. Fewer make many small files, more make a viewer that wants one spectrum
# wait; a float32 chunk has 1 MB to 67 MB.
_SMALLEST_CHUNK = 1 << 18
_LARGEST_CHUNK = 1 << 24
# Of what is in memory and not in blocks: several are packed at a time, beside the whole.
_LARGEST_PART = 1 << 22


def align(ds: xr.Dataset) -> xr.Dataset:
    """Give every lazy variable blocks of one shape, and join blocks too small to be files."""
    return ds.assign(
        {
            name: array.chunk(dict(zip(array.dims, _even_blocks(array))))
            for name, array in ds.variables.items()
            if array.chunks
        }
    )


def _even_blocks(array: xr.Variable) -> tuple[int, ...]:
    assert array.chunks is not None
    blocks = [max(1, *sizes) for sizes in array.chunks]
    for axis in reversed(range(array.ndim)):
        wanted = _SMALLEST_CHUNK // math.prod(blocks)
        if wanted > 1:
            blocks[axis] = min(array.shape[axis], blocks[axis] * wanted)
    return tuple(blocks)


def storage_chunks(array: xr.Variable | xr.DataArray) -> tuple[int, ...]:
    """Shape of the stored chunks: Dask blocks, cut into equal parts where they are too large.

    No stored chunk spans two Dask blocks, so blocks can be written at the same time.
    """
    blocks = [max(sizes) for sizes in array.chunks] if array.chunks else array.shape
    chunks = [max(1, block) for block in blocks]
    largest = _LARGEST_CHUNK if array.chunks else _LARGEST_PART
    for axis, (block, length) in enumerate(zip(blocks, array.shape)):
        parts = min(block, math.ceil(math.prod(chunks) / largest))
        if parts <= 1:
            continue
        if block < length:
            parts = next(n for n in range(parts, block + 1) if block % n == 0)
        chunks[axis] = math.ceil(block / parts)
    return tuple(chunks)
