"""Warnings are data: collected, ranked, kept with the result, few in the terminal."""

import ast
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import edxdenoise
from edxdenoise import make_cube, save_dataset
from edxdenoise.cli import main
from edxdenoise.config import Denoise, Input, Output
from edxdenoise.errors import (
    EdxdenoiseWarning,
    Rank,
    issue,
    ranked,
    recorded,
    warn,
    warning_attrs,
)
from edxdenoise.recipe import Recipe
from edxdenoise.run import run_recipe


def test_warnings_say_what_it_means_and_what_to_do():
    with pytest.warns(EdxdenoiseWarning) as caught:
        warn("Lines overlap", "at% of S is wrong", "use --intensities fit", rank=Rank.WRONG)
    (warning,) = caught
    assert str(warning.message) == "Lines overlap; at% of S is wrong; use --intensities fit"
    assert warning.message.rank == Rank.WRONG and warning.message.effect == "at% of S is wrong"
    # Shown at the line of whoever called the package.
    assert warning.filename == __file__


def test_recorded_in_layers():
    with recorded(show=False) as outer, recorded() as inner:
        warn("second", "", rank=Rank.NOTE)
        warn("first", "", rank=Rank.WRONG)
        warn("first", "", rank=Rank.WRONG)
        with recorded(show=False) as silent:
            warn("not seen", "", rank=Rank.WRONG)
    assert [w.finding for w in inner] == [w.finding for w in outer] == ["second", "first"]
    assert [w.finding for w in ranked(inner)] == ["first", "second"]
    assert [w.finding for w in silent] == ["not seen"]


def test_recorded_whatever_python_is_told_to_show():
    with warnings.catch_warnings(), recorded() as collected:
        warnings.simplefilter("ignore")
        warn("kept with the result", "", rank=Rank.WORSE)
    assert len(collected) == 1


def test_warnings_of_a_task_survive_another_process():
    with recorded(show=False) as in_task:
        warn("Counts moved", "errors are too small", "try --no-shrink", rank=Rank.WORSE)
    returned = pickle.loads(pickle.dumps(in_task))
    with recorded(show=False) as collected:
        issue(*returned)
    assert collected[0].remedy == "try --no-shrink" and collected[0].rank == Rank.WORSE
    assert str(collected[0]) == str(in_task[0])


def test_attributes_hold_them_by_rank_with_those_of_the_input():
    issued = [
        EdxdenoiseWarning("b", rank=Rank.WORSE),
        EdxdenoiseWarning("c", rank=Rank.NOTE),
        EdxdenoiseWarning("a", rank=Rank.WRONG),
    ]
    attrs = warning_attrs(issued, {"warnings": "of the input", "notes": ["c", "d"]})
    assert attrs == {"warnings": ["a", "b", "of the input"], "notes": ["c", "d"]}


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A file that gives rise to three warnings and two notes."""
    path = tmp_path_factory.mktemp("many") / "a.nc"
    counts = np.random.default_rng(0).poisson(0.5, (13, 13, 41))
    save_dataset(make_cube(counts, energy=np.arange(41) * 0.05), path)
    return path


def run(*args):
    return CliRunner().invoke(main, list(map(str, args)), catch_exceptions=False)


BAD = ["--rebin-energy", 2, "--rebin-xy", 2, "--keep", "2-3", "--no-shrink", "--subspace", "pixel"]


def test_terminal_shows_the_most_important_first(many, tmp_path):
    result = run("denoise", many, "-o", tmp_path / "b.nc", *BAD)
    shown = [line for line in result.stderr.splitlines() if line.startswith("Warning: ")]
    assert 2 <= len(shown) <= 3 and "Component 1 is not kept" in shown[0]
    assert "Note:" not in result.output
    verbose = run("-v", "denoise", many, "-o", tmp_path / "c.nc", *BAD).stderr
    assert verbose.count("Note: Rebin by 2 along") == 3
    quiet = run("-q", "denoise", many, "-o", tmp_path / "d.nc", *BAD)
    assert quiet.output == ""


def test_no_more_than_three_in_the_terminal(monkeypatch):
    from edxdenoise.cli import lines as command

    def five(**kwargs):
        for number in range(5):
            warn(f"number {number}", "", rank=Rank.WRONG if number == 4 else Rank.WORSE)

    monkeypatch.setattr(command.lines, "callback", five)
    result = run("lines", "--elements", "Pb")
    expected = ["Warning: number 4", "Warning: number 0", "Warning: number 1"]
    assert result.stderr.splitlines()[:3] == expected
    assert result.stderr.splitlines()[3].startswith("2 more warnings")
    assert run("-v", "lines", "--elements", "Pb").stderr.count("Warning: ") == 5


@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_result_keeps_all_of_them(many, tmp_path):
    recipe = Recipe(
        Input((str(many),)),
        denoise=Denoise(keep="2-3", shrink=False, subspace="pixel"),
        output=Output(str(tmp_path / "b.zarr")),
    )
    run_recipe(recipe)
    attrs = edxdenoise.open(tmp_path / "b.zarr").attrs
    assert attrs["warnings"][0].startswith("Component 1 is not kept")
    assert any("zero peak" in text for text in attrs["warnings"][1:]) and attrs["notes"] == []


def test_every_warning_goes_through_one_function():
    package = Path(edxdenoise.__file__).parent
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "warnings.warn":
                assert path.name == "errors.py", f"{path}: use edxdenoise.errors.warn"
