"""The attacks of the studies at a size where they only show that nothing is lost."""

import os
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
import faults  # noqa: E402


@pytest.mark.slow
@pytest.mark.parametrize(("attack", "seeds"), [("recipes", 10), ("by_signals", 1)])
def test_nothing_is_lost_or_wrong(tmp_path, attack, seeds):
    found = Counter(
        outcome for _, outcome in getattr(faults, f"attack_{attack}")(tmp_path, seeds, seed=1)
    )
    assert sum(found.values()) >= seeds
    assert found.keys() <= {"right", "message", "warned"}


def test_counts_that_change_are_noticed():
    truth = ("done", (1, 2), ["said of the sound file"])
    assert faults.judge(("done", (1, 2), []), truth) == "right"
    assert faults.judge(("done", (1, 3), truth[2]), truth) == "WRONG"
    assert faults.judge(("done", (1, 3), ["said"]), truth) == "warned"
    assert faults.judge(("crash", "", []), truth) == "CRASH"


def test_every_case_has_an_answer():
    """Of those that crash the process, too."""
    answers = faults.forked_each(lambda case: os._exit(1) if case in (1, 2) else case, 4)
    assert [(kind, value) for kind, value, _ in answers] == [
        ("done", 0),
        ("crash", ""),
        ("crash", ""),
        ("done", 3),
    ]


def test_every_test_that_the_documentation_names_is_there():
    folder = Path(__file__).parent
    named = re.findall(r"`(test_\w+)`", (folder.parent / "docs" / "faults.md").read_text("utf-8"))
    there = "".join(path.read_text("utf-8") for path in folder.glob("test_*.py"))
    assert len(named) > 40
    assert [name for name in named if f"def {name}(" not in there] == []
