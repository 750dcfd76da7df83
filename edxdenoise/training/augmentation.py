"""Batches to train on: seeded tf.data pipelines that change every example a little at random.

`default`: half of every batch is signal and weak signal is drawn twice as often, because phantoms
make both rare; maps are flipped, transposed and change their sign.

`article`: pictures of the minority come up to 14 times, brighter or darker, grey, flipped and
turned by up to 45 degrees (of which the largest square within is kept), as the article has it; all
are cropped at random. The network cuts out the middle 80 x 80 pixels, so that a random crop is a
random shift.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edxdenoise.components.network_inputs import BLOCKS, PICTURE, SIGNED
from edxdenoise.components.networks import CROP, tensorflow

COPIES = 14
WEAK = (0.1, 0.3)  # correlations with the truth that are drawn more often
_MORE = 2.0

_BRIGHTNESS = 0.2
_GREY = 0.2  # share of the copies that lose their colours
_TURN = np.pi / 4


def balanced_order(
    labels: np.ndarray, correlation: np.ndarray, number: int, seed: int
) -> np.ndarray:
    """Indices of examples to draw: signal and noise in turn, weak signal twice as often.

    Parameters
    ----------
    labels : array, shape (example,)
        From 0 (noise) to 1 (signal); what lies between is drawn as the class it is nearer to.
    correlation : array, shape (example,)
        With the truth; tells what is weak.
    number : int
        How many.
    seed : int

    Returns
    -------
    array of int, shape (number,)
    """
    rng = np.random.default_rng(seed)
    order = np.empty(number, int)
    signal = labels >= 0.5
    more = np.where((correlation > WEAK[0]) & (correlation < WEAK[1]), _MORE, 1.0)
    for start, chosen in ((0, signal), (1, ~signal)):
        weight = np.where(chosen, more if start == 0 else 1.0, 0)
        places = order[start::2]
        order[start::2] = rng.choice(len(labels), len(places), p=weight / weight.sum())
    return order


def stack_batches(
    inputs: np.ndarray, labels: np.ndarray, order: np.ndarray, batch: int, seed: int
) -> Any:
    """Dataset of (inputs, probabilities of noise and signal) for the `default` network.

    Parameters
    ----------
    inputs : array, shape (example, 64, 64, 10)
    labels : array, shape (example,)
    order : array of int
        Which example comes when; see `balanced_order`.
    batch, seed : int

    Returns
    -------
    tf.data.Dataset
    """
    tf = tensorflow()
    sign = np.ones(inputs.shape[-1], np.float32)
    sign[list(SIGNED)] = -1

    def change(index: Any, position: Any) -> tuple[Any, Any]:
        x, y = example(index)
        x = tf.ensure_shape(x, inputs.shape[1:])
        coin = tf.random.stateless_uniform((4,), tf.stack([seed, position])) < 0.5
        x = tf.where(coin[0], x[::-1], x)
        x = tf.where(coin[1], x[:, ::-1], x)
        x = tf.where(coin[2], tf.transpose(x, (1, 0, 2)), x)
        return tf.where(coin[3], x * sign, x), y

    def example(index: Any) -> tuple[Any, Any]:
        # NumPy keeps the array; TensorFlow would copy it into its graph.
        x, y = tf.numpy_function(take, [index], (tf.float32, tf.float32))
        return x, tf.ensure_shape(y, (2,))

    def take(index: Any) -> tuple[np.ndarray, np.ndarray]:
        return inputs[index].astype(np.float32), both_classes(labels[index])

    assert inputs.shape[1:3] == (BLOCKS, BLOCKS)
    positions = np.arange(len(order), dtype=np.int32)
    plain = tf.autograph.experimental.do_not_convert
    data = tf.data.Dataset.from_tensor_slices((order, positions))
    return data.map(plain(change), num_parallel_calls=2).batch(batch).prefetch(2)


def copied_order(labels: np.ndarray, seed: int, copies: int = COPIES) -> np.ndarray:
    """Indices in random order, those of the rarer class `copies` times.

    Examples
    --------
    >>> np.bincount(copied_order(np.array([0, 0, 1]), seed=0)).tolist()
    [1, 1, 14]
    """
    times = np.where(minority(labels), copies, 1)
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(labels)), times))


def minority(labels: np.ndarray) -> np.ndarray:
    """Which examples are of the rarer class, array of bool."""
    signal = np.asarray(labels) >= 0.5
    return signal if signal.mean() <= 0.5 else ~signal


def picture_batches(
    pictures: np.ndarray,
    labels: np.ndarray,
    order: np.ndarray,
    batch: int,
    seed: int,
    changed: np.ndarray | None = None,
) -> Any:
    """Dataset of (pictures, probabilities of noise and signal) for the `article` network.

    Parameters
    ----------
    pictures : array of uint8, shape (example, 100, 100, 3)
    labels : array, shape (example,)
    order : array of int
        Which example comes when; see `copied_order`.
    batch, seed : int
    changed : array of bool, shape (example,), optional
        Which examples are changed and not only cropped; those of the rarer class by default.

    Returns
    -------
    tf.data.Dataset
    """
    tf = tensorflow()
    rarer = minority(labels) if changed is None else changed

    def change(picture: Any, label: Any, varied: Any, position: Any) -> tuple[Any, Any]:
        seeds = tf.stack([seed, position])
        x = tf.cast(picture, tf.float32)
        x = tf.where(varied, varied_picture(x, seeds), x)
        most = (PICTURE - CROP) // 2
        shift = tf.random.stateless_uniform((2,), seeds + 1, -most, most + 1, tf.int32)
        x = tf.roll(x, shift, axis=(0, 1))
        return tf.cast(tf.clip_by_value(tf.round(x), 0, 255), tf.uint8), label

    positions = 8 * np.arange(len(order), dtype=np.int32)
    plain = tf.autograph.experimental.do_not_convert
    data = tf.data.Dataset.from_tensor_slices(
        (pictures[order], both_classes(labels[order]), rarer[order], positions)
    )
    return data.map(plain(change), num_parallel_calls=2).batch(batch).prefetch(2)


def varied_picture(picture: Any, seeds: Any) -> Any:
    """A picture with another brightness, perhaps grey, flipped, and turned.

    Parameters
    ----------
    picture : tensor of float32, shape (100, 100, 3)
    seeds : tensor of int, shape (2,)
    """
    tf = tensorflow()
    number = tf.random.stateless_uniform((5,), seeds)
    x = picture + 255 * _BRIGHTNESS * (2 * number[0] - 1)
    grey = tf.repeat(tf.reduce_mean(x, axis=-1, keepdims=True), 3, axis=-1)
    x = tf.where(number[1] < _GREY, grey, x)
    x = tf.where(number[2] < 0.5, x[::-1], x)
    x = tf.where(number[3] < 0.5, x[:, ::-1], x)
    return turned(x, _TURN * (2 * number[4] - 1))


def turned(picture: Any, angle: Any) -> Any:
    """The largest upright square within a picture turned by `angle` (rad), at full size.

    Its side is 1 / (|cos| + |sin|) of the picture's.
    """
    tf = tensorflow()
    cos, sin = tf.cos(angle), tf.sin(angle)
    size = tf.cast(tf.shape(picture)[0], tf.float32)
    share = 1 / (tf.abs(cos) + tf.abs(sin))
    a, b = cos * share, sin * share
    middle = (size - 1) / 2
    x0, y0 = middle - a * middle + b * middle, middle - b * middle - a * middle
    transform = tf.stack([a, -b, x0, b, a, y0, 0.0, 0.0])
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=picture[tf.newaxis],
        transforms=transform[tf.newaxis],
        output_shape=tf.shape(picture)[:2],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )[0]


def both_classes(labels: np.ndarray) -> np.ndarray:
    """Probabilities of noise and signal, last axis, from that of signal; float32."""
    signal = np.asarray(labels, np.float32)
    return np.stack([1 - signal, signal], axis=-1)
