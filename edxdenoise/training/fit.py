"""Training of the networks on a corpus: early stopping, resuming, calibration, saving."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edxdenoise.components.networks import (
    NetworkConfig,
    build,
    keras,
    load_network,
    network_config,
    tensorflow,
)
from edxdenoise.errors import DataError, ParameterError
from edxdenoise.io import atomic_output, check_output
from edxdenoise.io.atomic import make_folder, writing
from edxdenoise.training.augmentation import (
    COPIES,
    balanced_order,
    both_classes,
    copied_order,
    minority,
    picture_batches,
    stack_batches,
)
from edxdenoise.training.corpus import Corpus, read_corpus, split_groups

_STEPS = 60  # batches that count as one pass over the data


@dataclass(frozen=True)
class Schedule:
    """Settings of the training of a network.

    Parameters
    ----------
    epochs : int
        Most passes over the data.
    batch : int
    rate : float
        Of Adam.
    patience : int
        Passes without gain on the validation part after which training stops.
    """

    epochs: int
    batch: int
    rate: float
    patience: int


# The article's: Adam at 5e-4, batches of 10, 10 passes.
SCHEDULES = {"default": Schedule(40, 64, 2e-3, 8), "article": Schedule(10, 10, 5e-4, 10)}


@dataclass(frozen=True)
class Trained:
    """Result of the training of one network.

    Parameters
    ----------
    path : Path
        The network's file.
    loss, validation_loss : tuple of float
        Cross entropy after each pass.
    probability : array, shape (example,)
        Calibrated, of the validation part.
    label : array, shape (example,)
        Of the validation part, 0 to 1.
    """

    path: Path
    loss: tuple[float, ...]
    validation_loss: tuple[float, ...]
    probability: np.ndarray
    label: np.ndarray


def train(
    corpus: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    network: str = "default",
    seed: int = 0,
    seeds: int = 2,
    from_model: str | Path | None = None,
    schedule: Schedule | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int, float], None] | None = None,
) -> list[Trained]:
    """Train an ensemble of networks and write it to ``out/NETWORK-1.keras`` and so on.

    An interrupted training goes on, with the same call, at the last pass it finished.

    Parameters
    ----------
    corpus : path or sequence of paths
        A folder that `edxdenoise.training.corpus.make_corpus` filled, or files of it.
    out : str or Path
        Folder for the networks; made if there is none.
    network : {"default", "article"}
    seed : int
        Decides what is validated on, and the first weights and batches.
    seeds : int
        How many networks, which differ by their first weights and batches.
    from_model : str or Path, optional
        Network file to start from instead of random weights (transfer learning).
    schedule : Schedule, optional
        Other than that of `SCHEDULES`.
    overwrite : bool
        Replace networks of the same name.
    progress : callable, optional
        Called with the passes done, most passes and the validation loss.

    Returns
    -------
    list of Trained

    Raises
    ------
    ParameterError
        If the network is unknown, `seeds` below 1 or `from_model` another network.
    DataError
        If the corpus holds only one class, or too few phantoms to keep some for validation.
    FormatError
        If a network's file is there already and `overwrite` is not set, or cannot be written.
    """
    if network not in SCHEDULES:
        raise ParameterError(f"network '{network}' must be one of {', '.join(SCHEDULES)}")
    if seeds < 1:
        raise ParameterError(f"seeds is {seeds}, must be at least 1")
    schedule = schedule or SCHEDULES[network]
    files = sorted(Path(corpus).glob("*.npz")) if isinstance(corpus, (str, Path)) else corpus
    if not files:
        raise DataError(f"{corpus} holds no .npz files of a corpus; make them with make_corpus")
    data = read_corpus(list(files), network)
    parts = split_groups(data.group, seed)
    check_parts(data, parts)
    out = Path(out)
    make_folder(out)
    base = None if from_model is None else load_network(from_model)
    if base is not None and base.name != network:
        raise ParameterError(
            f"{from_model} holds network '{base.name}', must be '{network}'; choose that network"
        )
    paths = [out / f"{network}-{number}.keras" for number in range(1, seeds + 1)]
    for path in paths:
        check_output(path, overwrite)
    trained = []
    for number, path in enumerate(paths, start=1):
        own_seed = seeds * seed + number
        model = build(constants(network, data.inputs[parts[0]]), own_seed)
        if base is not None:
            model = keras().models.clone_model(base)
            model.set_weights(base.get_weights())
        resume = out / f".{network}-{number}.resume"
        with writing(resume):
            history = fit_network(model, data, parts, schedule, own_seed, resume, progress)
        calibrate(model, data.inputs[parts[1]], data.label[parts[1]])
        save_network(model, path, overwrite)
        probability = probabilities(model, data.inputs[parts[1]])
        label = data.label[parts[1]]
        trained.append(Trained(path, tuple(history[0]), tuple(history[1]), probability, label))
    return trained


def save_network(model: Any, path: Path, overwrite: bool = False) -> None:
    """Write a network to a .keras file, whole or not at all."""
    with TemporaryDirectory() as folder, atomic_output(path, overwrite) as partial:
        # Keras goes by the ending, which an unfinished file does not have.
        named = Path(folder) / "network.keras"
        model.save(named)
        shutil.copyfile(named, partial)


def check_parts(data: Corpus, parts: tuple[np.ndarray, np.ndarray]) -> None:
    """Check that there is signal and noise to train and to validate on."""
    for name, part in zip(("training", "validation"), parts):
        signal = data.label[part] >= 0.5
        if signal.all() or not signal.any():
            raise DataError(
                f"the {name} part of the corpus has {signal.sum()} signal and {(~signal).sum()} "
                "noise components, must have both; use more phantoms, or label components of "
                "more files"
            )


def constants(network: str, inputs: np.ndarray) -> NetworkConfig:
    """Configuration of a network whose inputs are standardised like these."""
    mean = [float(inputs[..., c].mean(dtype=float)) for c in range(inputs.shape[-1])]
    variance = [float(inputs[..., c].astype(np.float32).var(dtype=float)) for c in range(len(mean))]
    # A channel that never changes tells nothing and must not be divided by 0.
    return network_config(network, tuple(mean), tuple(v if v > 0 else 1.0 for v in variance))


def fit_network(
    model: Any,
    data: Corpus,
    parts: tuple[np.ndarray, np.ndarray],
    schedule: Schedule,
    seed: int,
    resume: Path,
    progress: Callable[[int, int, float], None] | None = None,
) -> tuple[list[float], list[float]]:
    """Fit a network in place and keep the weights of the least validation loss.

    Parameters
    ----------
    model : keras.Sequential
    data : Corpus
    parts : (array of int, array of int)
        Positions for training and for validation.
    schedule : Schedule
    seed : int
    resume : Path
        Folder for what an interrupted training needs to go on; gone at the end.
    progress : callable, optional

    Returns
    -------
    loss, validation_loss : list of float
    """
    k = keras()
    k.utils.set_random_seed(seed)
    tensorflow().config.experimental.enable_op_determinism()
    inputs, label, r = data.inputs[parts[0]], data.label[parts[0]], data.r[parts[0]]
    if model.name == "article":
        # As many copies as make both classes equal; 14 times was the article's answer to 7 %.
        share = minority(label).mean()
        copies = min(COPIES, max(round((1 - share) / share), 1))
        orders = [
            copied_order(label, seed * schedule.epochs + e, copies) for e in range(schedule.epochs)
        ]
        steps = -(-len(orders[0]) // schedule.batch)
        batches = [
            picture_batches(inputs, label, order, schedule.batch, seed * schedule.epochs + e)
            for e, order in enumerate(orders)
        ]
        stream = batches[0]
        for more in batches[1:]:
            stream = stream.concatenate(more)
    else:
        steps = _STEPS
        order = balanced_order(label, r, schedule.epochs * steps * schedule.batch, seed)
        stream = stack_batches(inputs, label, order, schedule.batch, seed)
    model.compile(k.optimizers.Adam(schedule.rate), "categorical_crossentropy")
    callbacks = [
        k.callbacks.EarlyStopping(patience=schedule.patience, restore_best_weights=True),
        k.callbacks.ReduceLROnPlateau(patience=max(schedule.patience // 3, 1), factor=0.4),
        k.callbacks.BackupAndRestore(resume),
    ]
    if progress is not None:
        report = progress
        callbacks.append(
            k.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: report(
                    epoch + 1, schedule.epochs, float(logs["val_loss"])
                )
            )
        )
    history = model.fit(
        stream,
        epochs=schedule.epochs,
        steps_per_epoch=steps,
        validation_data=(_floats(data.inputs[parts[1]]), both_classes(data.label[parts[1]])),
        validation_batch_size=64,
        callbacks=callbacks,
        shuffle=False,
        verbose=0,
    ).history
    return history.get("loss", []), history.get("val_loss", [])


def _floats(inputs: np.ndarray) -> np.ndarray:
    return inputs if inputs.dtype == np.uint8 else inputs.astype(np.float32)


def probabilities(model: Any, inputs: np.ndarray) -> np.ndarray:
    """Probability of signal of every example, shape (example,)."""
    return model.predict(_floats(inputs), batch_size=64, verbose=0)[:, 1].astype(float)


def calibrate(model: Any, inputs: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Make probabilities mean what they say, on examples that were not trained on.

    The difference of the logits d becomes a d + b with the least cross entropy (J. Platt, Advances
    in Large Margin Classifiers (1999) 61; with b = 0 that is temperature scaling). b is needed:
    half of every batch is signal, and it is rarer than that in a decomposition. Both go into the
    last dense layer.

    Returns
    -------
    a, b : float
    """
    from scipy.optimize import minimize

    probability = np.clip(probabilities(model, inputs), 1e-7, 1 - 1e-7)
    d = np.log(probability / (1 - probability))
    labels = np.asarray(labels, float)

    def entropy(x: np.ndarray) -> float:
        logit = np.exp(x[0]) * d + x[1]
        # A weak pull towards no change, for labels that can be told apart without fault.
        pull = 0.5 * float(x @ x) / len(labels)
        return float(np.mean(np.logaddexp(0, logit) - labels * logit)) + pull

    found = minimize(entropy, np.zeros(2), method="Nelder-Mead").x
    a, b = float(np.exp(found[0])), float(found[1])
    last = [layer for layer in model.layers if type(layer).__name__ == "Dense"][-1]
    kernel, bias = last.get_weights()
    last.set_weights([a * kernel, a * bias + np.array([0, b], bias.dtype)])
    return a, b
