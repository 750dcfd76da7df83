"""Every notebook runs to its end, and comes without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]
_SECONDS = 600  # for one cell, on a machine under load


def test_numbered_without_gaps():
    assert [int(name.split("_")[0]) for name in NAMES] == list(range(1, len(NAMES) + 1))
    assert len(NAMES) >= 7


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_outputs_are_stripped(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count is None and not cell.outputs for cell in code)
    assert not any(cell.metadata for cell in notebook.cells)
    assert any("assert" in cell.source for cell in code), "it shows nothing that could fail"


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_runs(path):
    notebook = nbformat.read(path, as_version=4)
    # Each in a kernel of its own, from its folder, as a reader would.
    NotebookClient(
        notebook, timeout=_SECONDS, resources={"metadata": {"path": str(FOLDER)}}
    ).execute()
