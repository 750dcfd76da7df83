"""Every notebook runs to its end, and comes with the outputs of its cells, small and anonymous."""

import re
import sys
from pathlib import Path

import nbformat
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
from notebooks import FOLDER, executed  # noqa: E402

pytestmark = pytest.mark.slow

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]
TRAINING = {
    "phantoms=12": "phantoms=10",
    "epochs=2": "epochs=1",
    "Schedule(2, 10, 5e-4, 2)": "Schedule(1, 10, 5e-4, 1)",
    "Schedule(4, 16, 2e-3, 4)": "Schedule(1, 16, 2e-3, 1)",
}


def kinds(notebook):
    """What each cell shows; notes and warnings depend on the file."""
    return [
        [sorted(output.data) for output in cell.get("outputs", []) if "data" in output]
        for cell in notebook.cells
    ]


def test_numbered_without_gaps():
    assert [int(name.split("_")[0]) for name in NAMES] == list(range(1, len(NAMES) + 1))
    assert len(NAMES) >= 7


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_outputs_are_kept_and_small(path):
    """``python studies/notebooks.py`` refreshes them."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert sum(bool(cell.outputs) for cell in code) > len(code) / 2
    assert not any(cell.metadata for cell in notebook.cells)
    assert not any(re.search(r"\bassert", cell.source) for cell in code), "it is no test"
    outputs = [output for cell in code for output in cell.outputs]
    text = str([{**output.get("data", {}), "image/png": ""} for output in outputs])
    text += "".join(output.get("text", "") for output in outputs)
    assert not re.search(r"/tmp/|/home/|/root/|/work/|ipykernel|Traceback| at 0x", text)
    assert path.stat().st_size < 260_000


def smaller(source):
    """A cell with half as many pixels a side, fewer specimens to judge by, one epoch."""
    source = re.sub(
        r"shape=\((\d+), (\d+)\)",
        lambda shape: f"shape=({int(shape[1]) // 2}, {int(shape[2]) // 2})",
        source,
    )
    for full, less in TRAINING.items():
        source = source.replace(full, less)
    return source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_runs(path):
    """Every cell, and each shows what it does with the map that the notebook is about."""
    assert kinds(executed(path, smaller)) == kinds(nbformat.read(path, as_version=4))
