"""Components of real files as a part of the corpus, labelled by a person or the split test."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edxdenoise.classifier.inputs import KINDS, network_input
from edxdenoise.cube import pixel_counts
from edxdenoise.errors import DataError, FormatError
from edxdenoise.io import atomic_output, open_dataset
from edxdenoise.schema import (
    COMPONENT_KEEP,
    DIM_COMPONENT,
)
from edxdenoise.score_noise import score_noise
from edxdenoise.selection.split import split_probability
from edxdenoise.training.enrich import REAL
from edxdenoise.training.labels import NOISE_BELOW, SIGNAL_ABOVE


def add_file(
    folder: str | Path,
    path: str | Path,
    labels: Mapping[int, float] | None = None,
    *,
    seed: int = 0,
) -> Path:
    """Write the labelled components of a denoised file into a corpus.

    Parameters
    ----------
    folder : str or Path
        Of the corpus.
    path : str or Path
        File that ``edxdenoise denoise`` wrote.
    labels : mapping of int to float, optional
        1 for signal, 0 for noise, by the component's number; others are left out. By default the
        split test labels all but the first component.
    seed : int
        Of the split test.

    Returns
    -------
    Path
        The part of the corpus; the file's name and contents decide how it is called.

    Raises
    ------
    FormatError
        If the file holds no components.
    DataError
        If a label is for a component that the file has not.
    """
    ds = open_dataset(path)
    if COMPONENT_KEEP.name not in ds:
        raise FormatError(f"{path} holds no components; make them with edxdenoise denoise")
    small = ds.drop_vars([name for name in ds if DIM_COMPONENT not in ds[name].dims])
    ds = ds.assign(small.compute().data_vars)
    count = ds.sizes[DIM_COMPONENT]
    if labels is None:
        probability = split_probability(ds, seed=seed)
        labels = {number: float(probability[number - 1]) for number in range(2, count + 1)}
    beyond = [number for number in labels if not 1 <= number <= count]
    if beyond:
        raise DataError(
            f"component {beyond[0]} is labelled, but {path} has components 1 to {count}; "
            "correct the label"
        )
    numbers = np.array(sorted(labels))
    label = np.array([labels[number] for number in numbers], np.float32)
    noise = score_noise(ds)
    cv = []
    for number in numbers:
        variance = noise.variance(number - 1)[noise.filled].astype(float)
        cv.append(variance.std() / variance.mean())
    record = {
        kind: network_input(ds, kind, noise, components=(numbers - 1).tolist()) for kind in KINDS
    }
    record["default"] = record["default"].astype(np.float16)
    dose = float(pixel_counts(ds).mean())
    digest = hashlib.sha256(f"{Path(path).name}{label.tobytes()!r}".encode()).hexdigest()[:8]
    group = f"file-{digest}-measured"
    record |= {
        "label": label,
        # The correlation with the truth is not known beyond what the label says.
        "r": NOISE_BELOW + (SIGNAL_ABOVE - NOISE_BELOW) * label,
        "cv": np.array(cv, np.float32),
        "dose": np.full(len(numbers), dose, np.float32),
        "rank": numbers.astype(np.int16),
        "origin": np.full(len(numbers), REAL, np.int8),
        "group": np.full(len(numbers), group),
    }
    target = Path(folder) / f"{group}.npz"
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_output(target, overwrite=True) as partial:
        with partial.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **record)
    return target
