"""Write a Dataset to .zarr, .nc or .hspy, block by block.

Denoised counts are rounded well below their own error. A denoised count m has, through a model of K
components on E channels, a variance of about m K / E (the sum of p_k^2 over components is K / E on
average). So a value of one count needs few bits of its mantissa, and a value of .01 even fewer.
Each is rounded to nearest by a power of 2 that is at most 1/8 of that error, as BitRound of netCDF
and numcodecs does with one number of bits for all. The rounding error is independent from voxel to
voxel, 1.6 % of the error of a voxel (rms) and far less of that of any sum. What remains compresses
3 to 5 times better."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.local
import dask.threaded
import numpy as np
import xarray as xr

from edxdenoise import __version__
from edxdenoise import schema as v
from edxdenoise.blocks import compute, trim_memory
from edxdenoise.cluster import check_folder, check_total, client
from edxdenoise.errors import ClusterError, EdxdenoiseError, FormatError
from edxdenoise.io.atomic import (
    SCRATCH,
    atomic_output,
    check_output,
    uninterrupted,
    write_error,
)
from edxdenoise.io.hyperspy import hspy_variables, write_hspy
from edxdenoise.io.own import METADATA_CRC, metadata_crc, open_checked, open_stored
from edxdenoise.io.store import align, netcdf_attrs, storage_chunks
from edxdenoise.resources import default_workers

SUFFIXES = (".nc", ".zarr", ".hspy")

# HDF5 is written by one thread at a time, with zlib, the one filter every reader has: uint8 counts
# 135 MB/s, 4.1 (level 4: 77 MB/s, 4.6); float32 58 MB/s, 1.24 against 350 MB/s uncompressed. So
# whole numbers and the rounded cube are compressed; maps, noise in their last bits, are not.
_ZLIB_LEVEL = 1
# How much smaller cubes become, for the files of spectrum images that were tried.
_COMPRESSION: dict[str, float] = {v.COUNTS: 6.0, v.COUNTS_DENOISED: 4.0}
_CHUNK_CACHE = 1 << 20


def save_dataset(
    ds: xr.Dataset, path: str | Path, *, overwrite: bool = False, total: float | None = None
) -> None:
    """Write `ds`; what is lazy is computed block by block while it is written.

    Parameters
    ----------
    ds : xarray.Dataset
        Anything the stages return.
    path : str or Path
        Ends in ``.zarr`` (written in parallel, the choice for large maps), ``.nc``, or ``.hspy``
        (for HyperSpy: the denoised counts, else the counts, with images and the maps of at%, ratios
        and net counts as further signals).
    overwrite : bool
        Replace what stands at `path`.
    total : float, optional
        Sum of the counts, where it is known: what workers of a cluster wrote must agree.

    Raises
    ------
    FormatError
        If the suffix is another, `path` exists, its folder is missing or cannot be written, or the
        disk is full. Nothing is left behind.
    ClusterError
        If workers write elsewhere than this process reads, or counts get lost between them.
    """
    path = Path(path)
    suffix = check_suffix(path)
    # A file name need not be text, and then has no place in UTF-8.
    ds = ds.assign_attrs(
        {
            name: value.encode("utf-8", "replace").decode()
            for name, value in ds.attrs.items()
            if isinstance(value, str)
        }
    )
    if suffix == ".hspy":
        ds = ds[hspy_variables(ds)]
    with atomic_output(path, overwrite, folder=suffix == ".zarr") as partial:
        try:
            with _hdf5_in_one_process(ds, suffix, partial, total) as ds:
                with _own_threads():
                    _write(ds, suffix, partial)
            if suffix == ".zarr" and client() is not None:
                _written(partial, total)
            uninterrupted(lambda: _seal(suffix, partial))
        except EdxdenoiseError:
            raise
        except (RuntimeError, UnicodeError) as error:
            # So netCDF and h5py call what the system would call an OSError; netCDF takes no path
            # that is not UTF-8.
            raise write_error(path, error) from error


def check_save(path: str | Path, *, overwrite: bool = False) -> None:
    """Check that `save_dataset` will be able to write `path`, before hours of work.

    Raises
    ------
    FormatError
        As `save_dataset`.
    """
    path = Path(path)
    check_output(path, overwrite, folder=check_suffix(path) == ".zarr")
    check_folder(Path(os.path.realpath(path)).parent)


def _written(partial: Path, total: float | None) -> xr.Dataset:
    """Open what a cluster wrote, once all its chunks are here and hold all counts."""
    try:
        ds = open_checked(partial, ".zarr")
    except FormatError as error:
        raise ClusterError(
            f"workers wrote chunks where this process does not see them ({error}); nothing was "
            "written, choose an output folder that every worker sees at the same path"
        ) from error
    if total is not None and v.COUNTS in ds:
        counts = ds[v.COUNTS]
        wide = np.float64 if counts.dtype.kind == "f" else np.uint64
        (written,) = compute(counts.sum(dtype=wide))
        check_total("output", float(written), total)
    return ds


def _seal(suffix: str, partial: Path) -> None:
    """Leave checksums of the metadata, which those of the chunks do not cover, in the file."""
    if suffix == ".hspy":
        return
    with open_stored(partial, suffix) as ds:
        crc = metadata_crc(ds)
    if suffix == ".nc":
        import netCDF4

        with netCDF4.Dataset(partial, "a") as file:
            file.setncattr(METADATA_CRC, crc)
        return
    import zarr

    group = zarr.open_group(partial, mode="r+", use_consolidated=False)
    group.attrs[METADATA_CRC] = crc
    with _unsaid():
        zarr.consolidate_metadata(partial)


@contextmanager
def _unsaid() -> Iterator[None]:
    """Consolidated metadata, which xarray looks for first, is not in the specification yet."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
        yield


def stored_size(ds: xr.Dataset) -> int:
    """Estimate the bytes that `ds` takes on disk, within a factor of 2."""
    return sum(
        int(array.nbytes / _COMPRESSION.get(str(name), 1.0)) for name, array in ds.variables.items()
    )


def check_suffix(path: Path) -> str:
    """The suffix of an output, in lower case.

    Raises
    ------
    FormatError
        If it is not one of those that can be written.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise FormatError(
            f"{path} cannot be written: suffix '{path.suffix}' is not known; allowed are "
            + ", ".join(SUFFIXES)
        )
    return suffix


def _write(ds: xr.Dataset, suffix: str, partial: Path) -> None:
    if suffix == ".hspy":
        write_hspy(align(ds), partial, compression_level=_ZLIB_LEVEL)
        return
    ds = ds.drop_encoding().assign_attrs({"edxdenoise_version": __version__} | ds.attrs)
    if suffix == ".zarr":
        _write_zarr(align(ds), partial)
    else:
        _write_netcdf(align(ds), partial)


def _write_zarr(ds: xr.Dataset, partial: Path) -> None:
    from zarr.codecs import BloscCodec, Crc32cCodec

    # The Zarr 3 specification has strings of any length only.
    ds = ds.assign(
        {
            n: array.compute().astype(object)
            for n, array in ds.variables.items()
            if array.dtype.kind == "U"
        }
    )
    # Measured on 8 Mi counts (1000 per pixel, 2048 channels) as uint8 / on the same rebuilt from 8
    # components as float32, one core, MB/s of writing and ratio:
    #   lz4 5, bitshuffle  1850, 4.7 / 1250, 1.2      zstd 1, bitshuffle  600, 6.0 / 520, 1.2
    #   lz4 5, shuffle      865, 2.5 / 1300, 1.2      zstd 3, bitshuffle  350, 6.1 / 420, 1.2
    # lz4 with bitshuffle costs next to nothing beside computing a block and saves most of the disk.
    blosc = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")
    # The rounded cube is nearly all of the file: zstd makes it a third smaller than lz4. Level 3
    # would make it 4 % smaller still and take twice as long.
    rounded = BloscCodec(cname="zstd", clevel=2, shuffle="bitshuffle")
    encoding: dict[Any, dict[str, Any]] = {
        name: (
            {
                "chunks": storage_chunks(array),
                "compressors": [rounded if name == v.COUNTS_DENOISED else blosc, Crc32cCodec()],
            }
            if array.ndim and array.dtype != object
            else {"compressors": [Crc32cCodec()]}
        )
        for name, array in ds.variables.items()
    }

    def begin() -> Any:
        return ds.to_zarr(
            partial,
            compute=False,
            mode="w",
            encoding=encoding,
            zarr_format=3,
            consolidated=False,
            # So that a chunk that is missing is a damaged copy, not one of zeros.
            write_empty_chunks=True,
        )

    # What is small is written here, what is lazy afterwards in other threads. A signal that ends a
    # wait for Zarr would leave Zarr's own threads writing into a folder that is removed by then.
    with _unsaid():
        delayed = uninterrupted(begin)
    trim_memory()
    delayed.compute()


def _write_netcdf(ds: xr.Dataset, partial: Path) -> None:
    import netCDF4

    ds = ds.copy()
    ds.attrs = netcdf_attrs(ds.attrs)
    for name in ds.variables:
        ds[name].attrs = netcdf_attrs(ds[name].attrs)
    encoding: dict[Any, dict[str, Any]] = {}
    for name, array in ds.variables.items():
        if array.dtype.kind in "iuf":
            # No fill value: these variables mark nothing as missing but with NaN itself.
            encoding[name] = {"_FillValue": None}
            if array.ndim:
                encoding[name] |= {"chunksizes": storage_chunks(array), "fletcher32": True}
            if array.ndim and (array.dtype.kind in "iu" or name == v.COUNTS_DENOISED):
                encoding[name] |= {"zlib": True, "complevel": _ZLIB_LEVEL, "shuffle": True}

    def begin() -> Any:
        return ds.to_netcdf(
            partial,
            mode="w",
            engine="netcdf4",
            format="NETCDF4",
            encoding=encoding,
            compute=False,
        )

    # Chunks are written whole and once: a cache of each variable's last 64 MB would only fill.
    cache = netCDF4.get_chunk_cache()
    netCDF4.set_chunk_cache(size=_CHUNK_CACHE)
    try:
        # Xarray's locks stay taken where a signal arrives while they are; closing the file would
        # then wait for ever. Later they are taken in other threads, which hear of no signals.
        uninterrupted(begin).compute()
    finally:
        netCDF4.set_chunk_cache(*cache)


@contextmanager
def _hdf5_in_one_process(
    ds: xr.Dataset, suffix: str, partial: Path, total: float | None
) -> Iterator[xr.Dataset]:
    """Where a cluster computes, bring its result through a Zarr scratch folder.

    An HDF5 file can be written by one process only.
    """
    lazy = [array.data for array in ds.variables.values() if array.chunks]
    if suffix == ".zarr" or not lazy or client() is None:
        yield ds
        return
    scratch = partial.with_name(partial.name + SCRATCH)
    scratch.mkdir()
    _write(ds, ".zarr", scratch)
    with dask.config.set(scheduler="threads", num_workers=default_workers()):
        stored = _written(scratch, total)
        yield ds.assign({name: stored[name] for name in ds.variables if ds[name].chunks})


@contextmanager
def _own_threads() -> Iterator[None]:
    """Compute in threads that all end before an error is passed on.

    Dask's own threads would go on writing into a file that is closed or a folder that is removed.
    """
    asked = dask.base.get_scheduler()
    if asked not in (None, dask.threaded.get, dask.local.get_sync):
        yield
        return
    workers = dask.config.get("num_workers", None) or default_workers()
    if asked is dask.local.get_sync:
        workers = 1

    def get(*args: Any, **kwargs: Any) -> Any:
        with ThreadPoolExecutor(workers) as pool:
            return dask.threaded.get(*args, **{**kwargs, "pool": pool})

    with dask.config.set(scheduler=get):
        yield


# Rounding steps per standard deviation, at least; bits of the mantissa kept, at least.
_STEPS = 8
_FEWEST_BITS = 4
_MANTISSA_BITS = 23


def rounded_for_storage(ds: xr.Dataset) -> xr.Dataset:
    """Round ``counts_denoised`` below its error; lazy in, lazy out.

    Parameters
    ----------
    ds : Dataset
        Any; one without denoised counts, or without the components they are from, is returned as
        it is.
    """
    name = v.COUNTS_DENOISED
    if name not in ds or v.COMPONENT_KEEP not in ds or ds[name].dtype != np.float32:
        return ds
    kept = max(int(ds[v.COMPONENT_KEEP].sum()), 1)
    dropped = dropped_bits(kept / ds.sizes[v.DIM_ENERGY])
    data = ds[name].data
    if isinstance(data, da.Array):
        data = da.map_blocks(round_mantissa, data, dropped=dropped, dtype=np.float32)
    else:
        data = round_mantissa(data, dropped)
    return ds.assign({name: ds[name].copy(data=data)})


def dropped_bits(leverage: float) -> np.ndarray:
    """Bits of the mantissa that values of each binary exponent can lose, shape (256,).

    Parameters
    ----------
    leverage : float
        Variance of a denoised count over its value: components kept per channel.

    Examples
    --------
    >>> [int(dropped_bits(0.01)[127 + exponent]) for exponent in (-20, 0, 10)]
    [19, 16, 11]
    """
    # The exponents that IEEE 754 stores; the largest value of each has the smallest relative error.
    exponent = np.arange(256) - 127.0
    bits = np.ceil((exponent + 1) / 2 + np.log2(_STEPS / np.sqrt(leverage)))
    bits = np.clip(bits, _FEWEST_BITS, _MANTISSA_BITS)
    # Infinity and NaN stay what they are.
    bits[-1] = _MANTISSA_BITS
    return (_MANTISSA_BITS - bits).astype(np.uint32)


def round_mantissa(values: np.ndarray, dropped: np.ndarray) -> np.ndarray:
    """Round float32 values to nearest, by the bits that their exponent can lose.

    Examples
    --------
    >>> round_mantissa(np.array([1.0, 1.26, -100.3], np.float32), np.full(256, 21, np.uint32))
    array([  1.  ,   1.25, -96.  ], dtype=float32)
    """
    from edxdenoise.io.kernels import round_bits

    bits = np.ascontiguousarray(values).view(np.uint32)
    result = np.empty_like(bits)
    round_bits(bits.reshape(-1), dropped, result.reshape(-1))
    return result.view(np.float32).reshape(values.shape)
