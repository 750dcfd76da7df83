"""Whether all workers of a cluster read and write the same files as this process.

The same path may be absent on another machine, or be another file. Zarr takes an absent chunk for
one of zeros, so that such a worker would lose counts without an error.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
import threading
from functools import lru_cache
from pathlib import Path

import numpy as np
import xarray as xr

from edxdenoise.cluster import ask, client
from edxdenoise.errors import ClusterError

# Files of a folder whose contents are compared, and bytes at each of three places of a file.
_SAMPLED_FILES, _SAMPLED_BYTES = 8, 1 << 16


def check_input(ds: xr.Dataset, path: Path) -> xr.Dataset:
    """Make sure that every worker reads the same file as this process.

    Workers there are now are asked at once; those that join later are asked by the first block that
    they read.

    Parameters
    ----------
    ds : Dataset
        Read lazily from `path`.
    path : Path
        The file or folder.

    Returns
    -------
    Dataset
        `ds` as it is where no cluster computes.

    Raises
    ------
    ClusterError
        If a worker sees no or another file; of a later worker, once a block is computed.
    """
    connected = client()
    if connected is None:
        return ds
    path = path.absolute()
    parts = _sampled_parts(path)
    expected = _fingerprint(path, parts)
    found = ask(connected, _fingerprint, path, parts)
    blind = {worker: seen for worker, seen in found.items() if seen != expected}
    if blind:
        worker, seen = next(iter(blind.items()))
        raise ClusterError(_unseen(worker, path, isinstance(seen, Exception), len(blind)))
    return ds.assign(
        {
            name: array.copy(
                data=array.data.map_blocks(
                    _same_block, path, parts, expected, dtype=array.dtype, meta=array.data._meta
                )
            )
            for name, array in ds.variables.items()
            if array.chunks
        }
    )


def _unseen(worker: str, path: Path, absent: bool, count: int = 1) -> str:
    others = f" and {count - 1} more" if count > 1 else ""
    what = "cannot read" if absent else "sees another file at"
    return (
        f"worker {worker}{others} {what} {path}; put the input where every worker sees it at the "
        "same path, or stop that worker"
    )


def _sampled_parts(path: Path) -> tuple[str, ...]:
    """Files of a folder to compare: all metadata and some chunks; '.' where it is a file."""
    if path.is_file():
        return (".",)
    files = sorted(part.relative_to(path).as_posix() for part in path.rglob("*") if part.is_file())
    metadata = [name for name in files if name.rsplit("/", 1)[-1].startswith((".z", "zarr.json"))]
    return tuple(dict.fromkeys(metadata + files[:: max(1, len(files) // _SAMPLED_FILES)]))


def _fingerprint(path: Path, parts: tuple[str, ...]) -> str:
    """SHA-256 over size, start, middle and end of files."""
    digest = hashlib.sha256()
    for part in parts:
        with open(path / part, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            digest.update(f"{part} {size}\0".encode())
            for start in sorted({0, size // 2, max(0, size - _SAMPLED_BYTES)}):
                file.seek(start)
                digest.update(file.read(_SAMPLED_BYTES))
    return digest.hexdigest()


def _same_block(block: np.ndarray, path: Path, parts: tuple[str, ...], expected: str) -> np.ndarray:
    _check_same(path, parts, expected)
    return block


@lru_cache(maxsize=64)
def _check_same(path: Path, parts: tuple[str, ...], expected: str) -> None:
    """Raise ClusterError where this worker does not see the file; asked once in a process."""
    try:
        found: str | None = _fingerprint(path, parts)
    except OSError:
        found = None
    if found != expected:
        raise ClusterError(_unseen(platform.node(), path, found is None))


def check_total(stage: str, found: float, expected: float, *, tolerance: float = 1e-9) -> None:
    """Check that a stage has read as many counts as the survey of the input did.

    Parameters
    ----------
    stage : str
        For the message.
    found, expected : float
        Sums, or what is proportional to them.
    tolerance : float
        Relative, for rounding.

    Raises
    ------
    ClusterError
        If they differ.

    Examples
    --------
    >>> check_total("weights", 99, 100)
    Traceback (most recent call last):
    ...
    edxdenoise.errors.ClusterError: the stage 'weights' found 99 counts where the input holds 100: \
a worker or disk has lost some; check that all workers see the same files, then repeat
    """
    if abs(found - expected) > tolerance * abs(expected):
        raise ClusterError(
            f"the stage '{stage}' found {found:.15g} counts where the input holds "
            f"{expected:.15g}: a worker or disk has lost some; check that all workers see the same "
            "files, then repeat"
        )


def check_folder(folder: Path) -> None:
    """Make sure that every worker writes into the same folder as this process reads.

    Raises
    ------
    ClusterError
        If a worker does not.
    """
    connected = client()
    if connected is None:
        return
    # A worker that is late finds no folder, and leaves nothing.
    proofs = Path(tempfile.mkdtemp(prefix=".edxdenoise-", dir=folder.absolute()))
    # Workers may be other users.
    proofs.chmod(0o777)
    try:
        found = ask(connected, _leave_proof, proofs)
        for worker, name in found.items():
            if isinstance(name, Exception) or not (proofs / name).is_file():
                raise ClusterError(
                    f"worker {worker} does not write into the folder {folder} that is seen here; "
                    "choose an output folder that every worker sees at the same path"
                )
    finally:
        shutil.rmtree(proofs, ignore_errors=True)


def _leave_proof(proofs: Path) -> str:
    name = f"{platform.node()}-{os.getpid()}-{threading.get_ident()}"
    (proofs / name).touch(exist_ok=False)
    return name
