"""Labels of components, signal or noise: from truth, from held-out counts or from a person.

On a simulated cube the truth is known. A score t_ik = sum_j p_kj X_ij / (g_i h_j) free of noise
would be

    s_ik = sum_j p_kj lambda_ij / (g_i h_j)

with lambda the expected counts, and r_k = |correlation of t_k with s_k| over the pixels says how
much of the map is signal. g is taken from the true totals: those of the measured counts share
their noise with t, and component 1 below 100 counts per pixel would look like signal for that
reason alone. On a real file `edxdenoise.components.split.split_probability` estimates the same
label from counts that were held out.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edxdenoise.errors import FormatError
from edxdenoise.io import atomic_output

# Below, a map shows nothing; above, its signal can be seen.
NOISE_BELOW, SIGNAL_ABOVE = 0.05, 0.15

_COLUMNS = ("file", "component", "label")
_NAMES = {"signal": 1.0, "1": 1.0, "noise": 0.0, "0": 0.0}


def true_correlation(
    maps: np.ndarray,
    loadings: np.ndarray,
    weight_energy: np.ndarray,
    amounts: np.ndarray,
    phase_spectra: np.ndarray,
) -> np.ndarray:
    """Correlation r of score maps with what they would be without noise.

    Parameters
    ----------
    maps : array, shape (component, y, x)
        Scores t.
    loadings : array, shape (component, energy)
        p, of the weighted space.
    weight_energy : array, shape (energy,)
        h, as used for the scores; 1 everywhere says that counts were not weighted.
    amounts : array, shape (phase, y, x)
        Amount of every phase, of the same pixels.
    phase_spectra : array, shape (phase, energy)
        Expected counts of one unit of amount; lambda = amounts times spectra.

    Returns
    -------
    array, shape (component,)
        From 0 to 1; 0 where there is nothing to correlate.
    """
    truth = true_scores(loadings, weight_energy, amounts, phase_spectra)
    return np.array([correlation(t, s) for t, s in zip(maps, truth)])


def true_scores(
    loadings: np.ndarray,
    weight_energy: np.ndarray,
    amounts: np.ndarray,
    phase_spectra: np.ndarray,
) -> np.ndarray:
    """Scores free of noise, shape (component, y, x); parameters as in `true_correlation`."""
    # Through the phases: the cube of expected counts is never formed.
    projected = (loadings / weight_energy) @ phase_spectra.T.astype(float)
    scores = np.tensordot(projected, amounts, axes=1)
    if (weight_energy == 1).all():
        return scores
    total = np.tensordot(phase_spectra.sum(axis=1, dtype=float), amounts, axes=1)
    return scores / np.sqrt(np.where(total > 0, total, np.inf))


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Absolute correlation of two maps; 0 where one is constant.

    Examples
    --------
    >>> round(correlation(np.array([1.0, 2.0, 3.0]), np.array([-2.0, -4.0, -6.0])), 6)
    1.0
    """
    a = first.ravel() - first.mean(dtype=float)
    b = second.ravel() - second.mean(dtype=float)
    norm = np.sqrt((a @ a) * (b @ b))
    # What is left of a constant after rounding is no pattern.
    return float(min(abs(a @ b) / norm, 1.0)) if norm > 1e-12 * first.size else 0.0


def soft_label(r: np.ndarray) -> np.ndarray:
    """Label from 0 (noise) to 1 (signal) of a correlation with the truth.

    Examples
    --------
    >>> soft_label(np.array([0.0, 0.05, 0.1, 0.15, 1.0])).round(6)
    array([0. , 0. , 0.5, 1. , 1. ])
    """
    return np.clip((np.asarray(r) - NOISE_BELOW) / (SIGNAL_ABOVE - NOISE_BELOW), 0, 1)


def read_labels(path: str | Path) -> dict[Path, dict[int, float]]:
    """Labels that a person gave.

    Parameters
    ----------
    path : str or Path
        CSV with the columns ``file`` (relative to the CSV's folder), ``component`` (from 1) and
        ``label`` (signal or noise, 1 or 0). Others are ignored.

    Returns
    -------
    dict
        For every file the labels, 1 or 0, of its components.

    Raises
    ------
    FormatError
        Naming the line and what is wrong with it.
    """
    path = Path(path)
    labels: dict[Path, dict[int, float]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.DictReader(stream)
            missing = [name for name in _COLUMNS if name not in (rows.fieldnames or ())]
            if missing:
                raise FormatError(
                    f"{path}: column '{missing[0]}' is missing; the first line must name "
                    f"{', '.join(_COLUMNS)}"
                )
            for row in rows:
                file, component, label = _parse(row, f"{path} line {rows.line_num}")
                of_file = labels.setdefault(path.parent / file, {})
                if of_file.get(component, label) != label:
                    raise FormatError(
                        f"{path} line {rows.line_num}: component {component} of {file} has another "
                        "label above; keep one"
                    )
                of_file[component] = label
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        if isinstance(error, FormatError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise FormatError(f"{path} cannot be read as a CSV of labels: {reason}") from error
    if not labels:
        raise FormatError(f"{path} holds no label; write a line for each component")
    return labels


def _parse(row: dict[str, str | None], where: str) -> tuple[str, int, float]:
    file, component, label = ((row[name] or "").strip() for name in _COLUMNS)
    if not file:
        raise FormatError(f"{where}: file is empty; name the file the component is from")
    if not (component.isascii() and component.isdigit() and int(component) >= 1):
        raise FormatError(f"{where}: component '{component}' must be a whole number from 1 up")
    if label.lower() not in _NAMES:
        raise FormatError(f"{where}: label '{label}' must be signal or noise (or 1 or 0)")
    return file, int(component), _NAMES[label.lower()]


def add_labels(path: str | Path, file: str | Path, labels: Mapping[int, float]) -> None:
    """Write labels of one file into a CSV that `read_labels` reads.

    Parameters
    ----------
    path : str or Path
        The CSV. Lines of other files, and of other components, that are in it stay.
    file : str or Path
        The denoised file.
    labels : mapping of int to float
        1 for signal, 0 for noise, by the component's number.

    Raises
    ------
    FormatError
        If there is a CSV that `read_labels` does not take, or it cannot be written.
    """
    path, file = Path(path), Path(file)
    known = read_labels(path) if path.exists() else {}
    # The same file may have been called otherwise, such as ./map.zarr.
    known = {Path(os.path.relpath(name, path.parent)): given for name, given in known.items()}
    own = Path(os.path.relpath(file, path.parent))
    known[own] = {**known.get(own, {}), **labels}
    with atomic_output(path, overwrite=True) as partial:
        with partial.open("w", newline="", encoding="utf-8") as stream:
            rows = csv.writer(stream)
            rows.writerow(_COLUMNS)
            for name, given in known.items():
                for number, label in sorted(given.items()):
                    rows.writerow((name.as_posix(), number, "signal" if label else "noise"))
