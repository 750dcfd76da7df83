"""Run the notebooks and keep their outputs, small and without paths of this machine.

    python studies/notebooks.py            # all
    python studies/notebooks.py 01 06      # some

Pictures get a palette of 256 colours. Warnings lose the name of the temporary file that the kernel
gave to their cell.
"""

from __future__ import annotations

import base64
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
_SECONDS = 600  # for one cell, on a machine under load
_PLACE = re.compile(r"^\S*ipykernel_\S+?: (.*)\n.*\n", re.M)


def executed(path: Path, change: Callable[[str], str] = str) -> nbformat.NotebookNode:
    """Run a notebook in a new kernel, in its own folder, and return it with its outputs.

    Parameters
    ----------
    path : Path
    change : callable, optional
        Gives the text of a cell as it is run, such as one for smaller maps.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell raises an error.
    """
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.source = change(cell.source)
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=_SECONDS, record_timing=False, resources=resources).execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.text = _PLACE.sub(r"\1\n", output.text)
            elif "image/png" in output.get("data", {}):
                output.data["image/png"] = _smaller(output.data["image/png"])
    # The version of Python that ran it is of no interest, and would change with each machine.
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def _smaller(coded: str) -> str:
    """Return a PNG, in base64, with a palette."""
    picture = Image.open(io.BytesIO(base64.b64decode(coded))).convert("RGB")
    buffer = io.BytesIO()
    picture.quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def main(wanted: list[str]) -> None:
    for path in sorted(FOLDER.glob("*.ipynb")):
        if not wanted or path.name[:2] in wanted:
            nbformat.write(executed(path), path)
            print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
