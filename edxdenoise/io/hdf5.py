"""Counts in an HDF5 file, such as a .hspy, read block by block: a damaged block is one line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from edxdenoise.errors import FormatError
from edxdenoise.io.guard import one_line

if TYPE_CHECKING:
    import h5py


class NamedDataset:
    """A dataset of an HDF5 file; what cannot be read of it is an error that names the file.

    Parameters
    ----------
    path : Path
        The file.
    dataset : h5py.Dataset
        In it.
    """

    def __init__(self, path: Path, dataset: h5py.Dataset) -> None:
        self.path, self.name = path.absolute(), dataset.name
        self.shape, self.dtype, self.ndim = dataset.shape, dataset.dtype, dataset.ndim
        self._dataset: h5py.Dataset | None = dataset

    def __getitem__(self, key: Any) -> np.ndarray:
        import h5py

        try:
            if self._dataset is None:
                self._dataset = h5py.File(self.path, "r")[self.name]
            return self._dataset[key]
        except OSError as error:
            raise FormatError(
                f"cannot read '{self.path}': a block of its counts is damaged "
                f"({one_line(str(error))}); copy or export it again"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        # Other processes open the file themselves.
        return self.__dict__ | {"_dataset": None}


def named(path: Path, data: Any) -> Any:
    """`data` whose blocks are read from a dataset of an HDF5 file, with errors that name it.

    Whatever else is returned as it is.
    """
    import h5py

    if not isinstance(data, da.Array):
        return data
    # So Dask calls what `from_array` was given. The other layers may have millions of entries.
    layers = [layer for name, layer in data.dask.layers.items() if name.startswith("original-")]
    sources = [
        value for layer in layers for value in layer.values() if isinstance(value, h5py.Dataset)
    ]
    if len(sources) != 1 or sources[0].shape != data.shape:
        return data
    # Dask would name the array after its path, and confuse it with a later file at that path.
    return da.from_array(NamedDataset(path, sources[0]), chunks=data.chunks, name=False)
