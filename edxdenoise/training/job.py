"""From phantoms and labelled files to trained networks: what ``edxdenoise train`` does."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edxdenoise.classifier import Classifier
from edxdenoise.classifier.model import sign_flipped
from edxdenoise.errors import ParameterError
from edxdenoise.training.corpus import make_corpus, read_corpus
from edxdenoise.training.evaluation import Scores, reliability, score
from edxdenoise.training.fit import Trained, train
from edxdenoise.training.labels import read_labels
from edxdenoise.training.real_files import add_file

CORPUS = "corpus"


def corpus_files(
    folder: str | Path,
    *,
    simulated: int = 0,
    labels: str | Path | None = None,
    files: Sequence[str | Path] = (),
    seed: int = 0,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Make a corpus of phantoms, of files that a person labelled and of files left to a test.

    Parameters
    ----------
    folder : str or Path
        Where it is kept; phantoms that are there already are not made again.
    simulated : int
        How many phantoms.
    labels : str or Path, optional
        CSV as `edxdenoise.training.labels.read_labels` takes it.
    files : sequence of path
        Denoised files that the split test labels.
    seed : int
    workers : int
        Processes for the phantoms.
    progress : callable, optional
        Called with the number of phantoms done and of all.

    Raises
    ------
    ParameterError
        If there is nothing to make it of.
    """
    if not (simulated or labels or files):
        raise ParameterError(
            "there is nothing to learn from; give --simulated N, --labels FILE.csv or denoised "
            "files"
        )
    paths = []
    # People's mistakes before minutes of phantoms.
    for path, given in (read_labels(labels) if labels else {}).items():
        paths.append(add_file(folder, path, given, seed=seed))
    paths += [add_file(folder, path, seed=seed) for path in files]
    if simulated:
        paths += make_corpus(
            folder, phantoms=simulated, seed=seed, workers=workers, progress=progress
        )
    return paths


def train_networks(
    out: str | Path,
    *,
    network: str = "default",
    simulated: int = 0,
    labels: str | Path | None = None,
    files: Sequence[str | Path] = (),
    from_model: str | Path | None = None,
    seeds: int = 2,
    seed: int = 0,
    workers: int = 1,
    on_phantom: Callable[[int, int], None] | None = None,
    on_pass: Callable[[int, int, float], None] | None = None,
) -> list[Trained]:
    """Train networks into the folder `out`, which keeps the corpus as well.

    Interrupted, the same call goes on where it stopped. Parameters are those of `corpus_files`
    and `edxdenoise.training.fit.train`.
    """
    paths = corpus_files(
        Path(out) / CORPUS,
        simulated=simulated,
        labels=labels,
        files=files,
        seed=seed,
        workers=workers,
        progress=on_phantom,
    )
    return train(
        paths,
        out,
        network=network,
        seed=seed,
        seeds=seeds,
        from_model=from_model,
        progress=on_pass,
    )


@dataclass(frozen=True)
class Evaluation:
    """Return what networks predict for components whose label is known.

    Parameters
    ----------
    scores : Scores
        Of those that are clearly signal or noise (label 1 or 0).
    said, seen : array, shape (bin,)
        Reliability diagram: mean probability, and mean label.
    number : array of int, shape (bin,)
        Components in each bin.
    """

    scores: Scores
    said: np.ndarray
    seen: np.ndarray
    number: np.ndarray


def evaluate_networks(
    models: Sequence[str] = (),
    *,
    simulated: int = 0,
    labels: str | Path | None = None,
    files: Sequence[str | Path] = (),
    seed: int = 0,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Ask networks for components whose labels are known; parameters as in `corpus_files`.

    Phantoms of a seed that a network was trained on tell nothing about it: take another.
    """
    classifier = Classifier.load(models)
    with tempfile.TemporaryDirectory() as folder:
        paths = corpus_files(
            folder,
            simulated=simulated,
            labels=labels,
            files=files,
            seed=seed,
            workers=workers,
            progress=progress,
        )
        data = read_corpus(paths, classifier.kind)
    start = time.perf_counter()
    if classifier.kind == "default":
        inputs = data.inputs.astype(np.float32)
        probability = (classifier.predict(inputs) + classifier.predict(sign_flipped(inputs))) / 2
    else:
        probability = classifier.predict(data.inputs)
    seconds = time.perf_counter() - start
    clear = (data.label == 0) | (data.label == 1)
    scores = score(data.label[clear] == 1, probability[clear], seconds=seconds)
    return Evaluation(scores, *reliability(data.label, probability))
