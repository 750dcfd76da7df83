"""Texts of options, read as people write them."""

from math import inf

import click
import pytest

from edxdenoise.cli.options import Configured, Memory
from edxdenoise.cli.simulate import Shape
from edxdenoise.config import Input, Prepare

ENERGY = Configured(Prepare, "energy")
PIXELS = Configured(Prepare, "crop_y")
FACTORS = Configured(Input, "exposure")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (ENERGY, "0.1:13", (0.1, 13.0)),
        (ENERGY, "0.1:", (0.1, inf)),
        (ENERGY, ":13", (-inf, 13.0)),
        (ENERGY, ":", (-inf, inf)),
        (ENERGY, "-0.5:2", (-0.5, 2.0)),
        (PIXELS, "0:100", (0, 100)),
        (PIXELS, "10:", (10, inf)),
        (PIXELS, ":10", (0, 10)),
        (PIXELS, "1:-1", (1, -1)),
        (PIXELS, "-5:-1", (-5, -1)),
        (FACTORS, "0.83,1", (0.83, 1.0)),
        (Memory(), "4GB", 4 * 10**9),
        (Memory(), "500 MiB", 500 * 2**20),
        (Memory(), "1.5e9", 1_500_000_000),
        (Shape(), "330x500", (330, 500)),
    ],
)
def test_read(kind, text, value):
    assert kind.convert(text, None, None) == value


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (ENERGY, "13", "must be two numbers from low to high, such as 0.1:13"),
        (ENERGY, "0.1-13", "must be two numbers from low to high"),
        (ENERGY, "0.1,13", "must be two numbers from low to high"),
        (ENERGY, "1:2:3", "must be two numbers from low to high"),
        (ENERGY, "0.1keV:13keV", "must be two numbers from low to high"),
        (ENERGY, "13:0.1", "from low to high"),
        (ENERGY, "nan:1", "from low to high"),
        (PIXELS, "1.5:3", "must be whole numbers from low to high, such as 0:100"),
        (PIXELS, "5:5", "from low to high"),
        (PIXELS, "-1:-5", "from low to high"),
        (FACTORS, "1;2", "must be numbers above 0, such as 0.83,1"),
        (FACTORS, "1,0", "above 0"),
        (FACTORS, "1,nan", "above 0"),
        (FACTORS, "inf", "above 0"),
        (Memory(), "4XB", "write it as 4GB"),
        (Memory(), "1.2.3GB", "write it as 4GB"),
        (Memory(), ".GB", "write it as 4GB"),
        (Memory(), "-4GB", "write it as 4GB"),
        (Memory(), "0", "more than 0"),
        (Shape(), "330", "such as 330x500"),
    ],
)
def test_refused_with_the_text_and_what_is_allowed(kind, text, words):
    with pytest.raises(click.BadParameter, match=words) as caught:
        kind.convert(text, None, None)
    assert f"'{text}'" in caught.value.message
