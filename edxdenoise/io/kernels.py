"""Compiled loops over values in files. Import them inside functions: numba takes a second."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

_MANTISSA_BITS = 23


@numba.njit(nogil=True, cache=True)
def round_bits(bits: Any, dropped: Any, result: Any) -> None:
    """Round float32 values, given by their bits, to nearest.

    Parameters
    ----------
    bits : array of uint32, shape (n,)
    dropped : array of uint32, shape (256,)
        Bits of the mantissa that values of each stored exponent lose.
    result : array of uint32, shape (n,)
        Written. Memory that NumPy takes has large pages; with that of Numba this takes 3 times as
        long.
    """
    one = np.uint32(1)
    for n in range(bits.size):
        shift = dropped[(bits[n] >> np.uint32(_MANTISSA_BITS)) & np.uint32(255)]
        # A carry out of the mantissa goes to the exponent, which is the right answer.
        half = (one << shift) >> one
        result[n] = ((bits[n] + half) >> shift) << shift


@numba.njit(nogil=True, cache=True)
def jeol_events(events: Any, pixel: Any, channel: Any, image: Any) -> Any:
    """Sort the events of whole sweeps of a JEOL .pts; the number of X-ray counts within the map.

    Parameters
    ----------
    events : array of uint16, shape (n,)
    pixel, channel : array of int32, shape (count,)
        Written: where each X-ray count belongs.
    image : array of uint32, shape (y, x)
        The values of the image are added.
    """
    height, width = image.shape
    high, wide = 4096 // height, 4096 // width
    y, x, last, number = 0, 0, -1, 0
    for event in events:
        kind, value = event >> 12, int(event & 0xFFF)
        if kind == 8:
            x = value // wide
        elif kind == 9:
            if value < last:
                x = 0
            y, last = value // high, value
        elif y < height and x < width:
            if kind == 10:
                image[y, x] += value
            elif kind == 11:
                pixel[number], channel[number] = y * width + x, value
                number += 1
    return number
