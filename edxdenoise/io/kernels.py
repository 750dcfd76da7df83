"""Compiled loop over values to be stored. Import it inside functions: numba takes a second."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

_MANTISSA_BITS = 23


@numba.njit(nogil=True, cache=True)
def rounded_bits(bits: Any, dropped: Any) -> Any:
    """Round float32 values, given by their bits, to nearest.

    Parameters
    ----------
    bits : array of uint32, shape (n,)
    dropped : array of uint32, shape (256,)
        Bits of the mantissa that values of each stored exponent lose.
    """
    result = np.empty_like(bits)
    one = np.uint32(1)
    for n in range(bits.size):
        shift = dropped[(bits[n] >> np.uint32(_MANTISSA_BITS)) & np.uint32(255)]
        # A carry out of the mantissa goes to the exponent, which is the right answer.
        half = (one << shift) >> one
        result[n] = ((bits[n] + half) >> shift) << shift
    return result
