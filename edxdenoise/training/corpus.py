"""A labelled corpus of simulated components, one file per phantom, for the classifier to learn.

Components of real files, labelled by a person or the split test, may join it.
"""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import dask
import numpy as np
import xarray as xr
from threadpoolctl import threadpool_limits

from edxdenoise import schema as v
from edxdenoise.components.network_inputs import KINDS, network_input
from edxdenoise.components.pca import pca
from edxdenoise.components.score_noise import ScoreNoise, score_noise
from edxdenoise.components.split import split_probability
from edxdenoise.errors import DataError, FormatError, ParameterError, recorded
from edxdenoise.io import atomic_output, open_denoised
from edxdenoise.io.atomic import make_folder
from edxdenoise.preprocess import weight
from edxdenoise.resources import default_workers
from edxdenoise.simulation import PRESETS
from edxdenoise.training.enrich import REAL, Components, enriched
from edxdenoise.training.labels import NOISE_BELOW, SIGNAL_ABOVE, read_labels, soft_label
from edxdenoise.training.phantoms import measure, random_specimen

_COMPONENTS = 36
# Kept of a phantom's principal components: signal, in between, noise.
_MOST = (14, 8, 8)

_SPECIMEN, _COUNTS, _MADE = range(3)  # streams of random numbers of a phantom


@dataclass(frozen=True)
class Corpus:
    """Components to learn from.

    Parameters
    ----------
    inputs : array, shape (component, ...)
        Of one kind of network.
    label : array, shape (component,)
        From 0, noise, to 1, signal.
    r : array, shape (component,)
        Correlation with the truth.
    group : array of str, shape (component,)
        The phantom it is from; ends in its preset.
    """

    inputs: np.ndarray
    label: np.ndarray
    r: np.ndarray
    group: np.ndarray


_FIELDS = ("label", "r", "group")


def make_corpus(
    folder: str | Path,
    *,
    phantoms: int,
    seed: int = 0,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Simulate phantoms and write their components, labelled from truth.

    What was written before is kept: an interrupted corpus is taken up where it stopped. A phantom
    depends on the seed and its number only.

    Parameters
    ----------
    folder : str or Path
        Made if there is none.
    phantoms : int
        How many; presets take turns.
    seed : int
    workers : int
        Processes. With more than one, a script must guard its start with
        ``if __name__ == "__main__"``.
    progress : callable, optional
        Called with the number of phantoms done and of all.

    Returns
    -------
    list of Path
        One file per phantom, in order.

    Raises
    ------
    ParameterError
        If a number is below 1, or the seed below 0.
    """
    for name, value, least in (
        ("phantoms", phantoms, 1),
        ("workers", workers, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise ParameterError(f"{name} is {value}, must be at least {least}")
    folder = Path(folder)
    make_folder(folder)
    paths = [folder / f"{group_name(seed, index)}.npz" for index in range(phantoms)]
    missing = [index for index, path in enumerate(paths) if not path.exists()]
    make = partial(_make, folder, seed)
    for done, _ in enumerate(_each(make, missing, workers), start=phantoms - len(missing) + 1):
        if progress is not None:
            progress(done, phantoms)
    return paths


def read_corpus(paths: Sequence[str | Path], kind: str = "default") -> Corpus:
    """Put the components of several phantoms together.

    Parameters
    ----------
    paths : sequence of str or Path
        From `make_corpus`.
    kind : {"default", "article"}
        Of the inputs wanted.

    Raises
    ------
    ParameterError
        If the kind is unknown or there is no path.
    FormatError
        If a file is no part of a corpus.
    """
    if kind not in KINDS:
        raise ParameterError(f"input kind '{kind}' must be one of {', '.join(KINDS)}")
    if not paths:
        raise ParameterError("no file of a corpus given; make one with make_corpus")
    parts: list[dict[str, np.ndarray]] = []
    for path in paths:
        try:
            with np.load(path, allow_pickle=False) as stored:
                parts.append({name: stored[name] for name in (kind, *_FIELDS)})
        except (OSError, ValueError, KeyError) as error:
            raise FormatError(
                f"{path} cannot be read as part of a corpus: {error}; delete it and make it again"
            ) from error
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Corpus(inputs=joined.pop(kind), **joined)


# Share of the phantoms of each preset that training does not see.
_VALIDATION = 0.2


def split_groups(groups: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Positions for training and validation that never share a phantom.

    Parameters
    ----------
    groups : array of str, shape (component,)
        Of a corpus; of every preset a share of the phantoms goes to validation.
    seed : int

    Returns
    -------
    train, validation : array of int

    Examples
    --------
    >>> groups = np.array(["0-00000-mineral"] * 3 + ["0-00005-mineral"] * 2)
    >>> [np.unique(groups[part]).tolist() for part in split_groups(groups, seed=1)]
    [['0-00005-mineral'], ['0-00000-mineral']]
    """
    rng = np.random.default_rng(seed)
    held_out: list[str] = []
    names = np.unique(groups)
    presets = np.array([name.split("-", 2)[2] for name in names])
    for preset in np.unique(presets):
        own = rng.permutation(names[presets == preset])
        held_out += own[: max(round(_VALIDATION * len(own)), min(len(own) - 1, 1))].tolist()
    validation = np.isin(groups, held_out)
    return np.flatnonzero(~validation), np.flatnonzero(validation)


def group_name(seed: int, index: int) -> str:
    """Name of phantom number `index`, from 0, of a corpus.

    Examples
    --------
    >>> group_name(7, 12)
    '7-00012-core-shell'
    """
    return f"{seed}-{index:05d}-{_preset(index)}"


def _preset(index: int) -> str:
    return list(PRESETS)[index % len(PRESETS)]


def _each(make: Callable[[int], None], numbers: list[int], workers: int) -> Iterator[None]:
    if workers == 1 or len(numbers) < 2:
        yield from map(make, numbers)
        return
    # Not forked: threads of NumPy and TensorFlow do not survive that.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(numbers)), mp_context=context)
    try:
        for future in as_completed([pool.submit(make, number) for number in numbers]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _make(folder: Path, seed: int, index: int) -> None:
    """Simulate, decompose and write one phantom."""
    specimen_rng, counts_rng, made_rng = (
        np.random.default_rng(np.random.SeedSequence([seed, index, stream]))
        for stream in (_SPECIMEN, _COUNTS, _MADE)
    )
    # One thread each, for speed with several processes and for sums that never change.
    with threadpool_limits(1), dask.config.set(scheduler="synchronous"), recorded(show=False):
        # Low doses, which are warned of, are intended.
        specimen, ds = measure(random_specimen(_preset(index), specimen_rng), counts_rng)
        ds = pca(weight(ds, weighting=specimen.weighting), components=_COMPONENTS).compute()
        components = enriched(ds, specimen, made_rng)
        kept = _kept(components, made_rng)
        r = components.r[kept]
        group = group_name(seed, index)
        _write(folder, group, components.ds, components.noise, kept, soft_label(r), r)


def _kept(components: Components, rng: np.random.Generator) -> np.ndarray:
    """Positions of the components that are stored: all made ones, and some of the others."""
    r, real = components.r, components.origin == REAL
    kept = list(np.flatnonzero(~real))
    bounds = ((SIGNAL_ABOVE, np.inf), (NOISE_BELOW, SIGNAL_ABOVE), (-np.inf, NOISE_BELOW))
    for (low, high), most in zip(bounds, _MOST):
        fits = np.flatnonzero(real & (r >= low) & (r < high))
        kept += sorted(rng.permutation(fits)[:most])
    return np.array(kept)


def _write(
    folder: Path,
    group: str,
    ds: xr.Dataset,
    noise: ScoreNoise,
    positions: np.ndarray,
    label: np.ndarray,
    r: np.ndarray,
    *,
    overwrite: bool = False,
) -> Path:
    """Write components at some positions of `ds` as one file of a corpus."""
    inputs = {kind: network_input(ds, kind, noise, components=positions.tolist()) for kind in KINDS}
    record = inputs | {
        "default": inputs["default"].astype(np.float16),
        "label": label.astype(np.float32),
        "r": r.astype(np.float32),
        "group": np.full(len(positions), group),
    }
    target = folder / f"{group}.npz"
    with atomic_output(target, overwrite) as partial_path:
        with partial_path.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **record)
    return target


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
    ds = open_denoised(path)
    small = ds.drop_vars([name for name in ds if v.DIM_COMPONENT not in ds[name].dims])
    ds = ds.assign(small.compute().data_vars)
    count = ds.sizes[v.DIM_COMPONENT]
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
    digest = hashlib.sha256(f"{Path(path).name}{label.tobytes()!r}".encode()).hexdigest()[:8]
    # The correlation with the truth is not known beyond what the label says.
    r = NOISE_BELOW + (SIGNAL_ABOVE - NOISE_BELOW) * label
    folder = Path(folder)
    make_folder(folder)
    group = f"file-{digest}-measured"
    return _write(folder, group, ds, score_noise(ds), numbers - 1, label, r, overwrite=True)


@dataclass(frozen=True)
class Sources:
    """What a corpus is made of: phantoms, files that a person labelled, files left to a test.

    Parameters
    ----------
    simulated : int
        How many phantoms.
    labels : str or Path, optional
        CSV as `edxdenoise.training.labels.read_labels` takes it.
    files : sequence of path
        Denoised files that the split test labels.
    seed : int
    workers : int, optional
        Processes for the phantoms; one per processor by default.

    Raises
    ------
    ParameterError
        If there is nothing to make it of.
    """

    simulated: int = 0
    labels: str | Path | None = None
    files: Sequence[str | Path] = ()
    seed: int = 0
    workers: int | None = None

    def __post_init__(self) -> None:
        if not (self.simulated or self.labels or self.files):
            raise ParameterError(
                "there is nothing to learn from; give --simulated N, --labels FILE.csv or denoised "
                "files"
            )

    def write(
        self, folder: str | Path, progress: Callable[[int, int], None] | None = None
    ) -> list[Path]:
        """Write the corpus into a folder; phantoms that are there already are not made again."""
        # People's mistakes before minutes of phantoms.
        labelled = read_labels(self.labels) if self.labels else {}
        paths = [add_file(folder, path, given, seed=self.seed) for path, given in labelled.items()]
        paths += [add_file(folder, path, seed=self.seed) for path in self.files]
        if self.simulated:
            paths += make_corpus(
                folder,
                phantoms=self.simulated,
                seed=self.seed,
                workers=self.workers or default_workers(),
                progress=progress,
            )
        return paths
