"""The folder of a .zarr, in which a chunk that is missing or cut short is an error."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import google_crc32c
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
    for name, array in group.arrays():
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
