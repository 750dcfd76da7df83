"""X-ray counts of a map one by one, with their frames: what a file keeps beside the sums."""

from __future__ import annotations

from dataclasses import dataclass

import dask
import dask.array as da
import numpy as np
import xarray as xr
from scipy import sparse

from edxdenoise import schema as v
from edxdenoise.blocks import DENSITY, Block, Compact, SparseBlock, block_rows, counts_of


@dataclass(frozen=True)
class Events:
    """The events of a map, pixel by pixel, row by row.

    Parameters
    ----------
    ends : array of int, shape (1 + y * x,)
        0, then how many events there are up to each pixel, that one included.
    channel, frame : array or dask array of unsigned integers, shape (event,)
    shape : tuple of int
        Rows, columns and channels.
    frames : int
        How many frames there are.
    """

    ends: np.ndarray
    channel: np.ndarray | da.Array
    frame: np.ndarray | da.Array
    shape: tuple[int, int, int]
    frames: int

    @classmethod
    def of_places(
        cls,
        pixel: np.ndarray,
        channel: np.ndarray,
        frame: np.ndarray,
        shape: tuple[int, int, int],
        frames: int,
    ) -> Events:
        """Sort events, each given by pixel, channel and frame."""
        order = np.argsort(pixel, kind="stable")
        numbers = np.bincount(pixel, minlength=shape[0] * shape[1])
        return cls(
            np.concatenate([[0], np.cumsum(numbers)]),
            channel[order].astype(np.min_scalar_type(shape[2])),
            frame[order].astype(np.min_scalar_type(frames)),
            shape,
            frames,
        )

    @classmethod
    def of_dataset(cls, ds: xr.Dataset) -> Events:
        """Return what `to_dataset` was of."""
        ends = np.concatenate([[0], np.cumsum(ds[v.EVENT_NUMBER].values, dtype=np.int64)])
        return cls(
            ends,
            ds[v.EVENT_CHANNEL].data,
            ds[v.EVENT_FRAME].data,
            (ds.sizes[v.DIM_Y], ds.sizes[v.DIM_X], ds.sizes[v.DIM_ENERGY]),
            int(ds[v.EVENT_FRAME].attrs[v.FRAMES]),
        )

    def to_dataset(self) -> xr.Dataset:
        """Return all of it as variables."""
        number = np.diff(self.ends).reshape(self.shape[:2]).astype(np.uint32)
        frame = v.EVENT_FRAME.array(self.frame).assign_attrs({v.FRAMES: self.frames})
        return xr.Dataset(
            {
                v.EVENT_NUMBER: v.EVENT_NUMBER.array(number),
                v.EVENT_CHANNEL: v.EVENT_CHANNEL.array(self.channel),
                v.EVENT_FRAME: frame,
            }
        )

    def counts(self, chosen: np.ndarray, dtype: np.dtype) -> da.Array:
        """Lazy counts, shape (y, x, energy), of the frames that are chosen.

        Parameters
        ----------
        chosen : array of bool, shape (frame,)
        dtype : dtype
            One that holds them.
        """
        rows, columns, channels = self.shape
        height = block_rows(self.shape)
        blocks = []
        for top in range(0, rows, height):
            own = min(height, rows - top)
            ends = self.ends[top * columns : (top + own) * columns + 1]
            part = slice(int(ends[0]), int(ends[-1]))
            block = dask.delayed(_block_of)(
                self.channel[part],
                self.frame[part],
                ends - ends[0],
                chosen,
                (own, columns, channels),
                dtype,
            )
            meta = np.empty((0, 0), dtype)
            blocks.append(da.from_delayed(block, (own, columns), meta=meta))
        return counts_of(Compact(da.concatenate(blocks)), channels)

    def by_frame(self) -> np.ndarray:
        """Counts of every frame and channel, shape (frame, energy)."""
        channels = self.shape[2]
        frame, channel = dask.compute(self.frame, self.channel)
        places = frame.astype(np.int64) * channels + channel
        return np.bincount(places, minlength=self.frames * channels).reshape(-1, channels)


def _block_of(
    channel: np.ndarray,
    frame: np.ndarray,
    ends: np.ndarray,
    chosen: np.ndarray,
    shape: tuple[int, int, int],
    dtype: np.dtype,
) -> Block:
    inside = chosen[frame]
    before = np.concatenate([[0], np.cumsum(inside)])
    own = channel[inside].astype(np.int32)
    rows = sparse.csr_array(
        (np.ones(own.size, dtype), own, before[ends].astype(np.int32)),
        shape=(shape[0] * shape[1], shape[2]),
    )
    rows.sum_duplicates()
    block = SparseBlock(rows, shape[:2])
    few = rows.nnz < DENSITY * rows.shape[0] * rows.shape[1]
    return block if few else block.toarray()
