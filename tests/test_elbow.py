"""Elbow of the scree plot on curves drawn by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edxdenoise.components.selection import elbow_position, elbows


def curve(*logarithms):
    return np.exp(np.array(logarithms, float))


@pytest.mark.parametrize(
    ("ratio", "index"),
    [
        (curve(0, -10, -10.1, -10.2, -10.3), 1),  # a corner
        (curve(0, -3, -6, -9, -9.1, -9.2, -9.3, -9.4), 3),
        (curve(0, -1, -8, -8.5, -9), 2),
        (curve(0, -5, -5, -5, -5), 1),
        (curve(0, -1, -2, -3), 0),  # a straight line has none: the first point
        (curve(0, 0, 0, -9), 2),  # farthest from the chord on the other side
        (curve(0), 0),
        (curve(0, -1), 0),
    ],
)
def test_elbow_of_drawn_curves(ratio, index):
    assert elbow_position(ratio) == index


def test_distance_is_measured_to_the_chord():
    """Points (1, -4), (2, -7) to the chord from (0, 0) to (4, -8): y = -2 x."""
    # Vertical distances are 2 and 3, and the chord's slope is common to both.
    assert elbow_position(curve(0, -4, -7, -7.5, -8)) == 2
    assert elbow_position(curve(0, -5.5, -7, -7.5, -8)) == 1


def test_only_the_first_twenty_count():
    ratio = curve(*-np.minimum(np.arange(40), 5) * 2.0 - 0.01 * np.arange(40))
    assert elbow_position(ratio) == 5
    # A cliff beyond the twentieth point changes nothing.
    cliff = ratio.copy()
    cliff[25:] *= 1e-12
    assert elbow_position(cliff) == 5


def test_zeros_at_the_end_are_left_out():
    ratio = curve(0, -6, -6.1, -6.2, -6.3)
    assert elbow_position(np.append(ratio, [0, 0, 0])) == elbow_position(ratio) == 1
    assert elbow_position(np.zeros(5)) == 0


def test_second_elbow_is_that_of_the_rest():
    ratio = curve(0, -0.5, -6, -6.5, -7, -11, -11.1, -11.2, -11.3, -11.4)
    first, second = elbows(ratio)
    assert first == elbow_position(ratio) + 1
    assert second == first + elbow_position(ratio[first:]) + 1
    assert second > first


@given(st.lists(st.floats(-30, 0), min_size=1, max_size=60).map(sorted))
def test_elbows_lie_on_the_plot_and_ignore_its_scale(logarithms):
    ratio = curve(*logarithms[::-1])
    first, second = elbows(ratio)
    assert 1 <= first <= second <= len(ratio)
    assert elbow_position(ratio) < 20 or len(ratio) == 1
    # A power of two shifts the logarithms and rounds nothing.
    assert elbows(ratio * 0.5)[0] == first or has_ties(ratio)


def has_ties(ratio):
    """Whether the two farthest points are equally far, to rounding."""
    height = np.log(ratio)[:21]
    chord = np.linspace(height[0], height[-1], height.size)
    distance = np.sort(np.abs(height - chord))
    return distance.size < 2 or distance[-1] - distance[-2] < 1e-9
