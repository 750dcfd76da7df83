"""The README's Python runs as it stands, on a phantom in place of the reader's file."""

import re
from pathlib import Path

import pytest

from edxdenoise import save_dataset, simulate

README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_python_of_the_readme(tmp_path, monkeypatch):
    pytest.importorskip("exspy", reason="the last line makes a signal of HyperSpy")
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    phantom = simulate("solar-cell", shape=(14, 20), channels=650, energy_width=0.02)
    save_dataset(phantom[["counts"]], tmp_path / "map.zarr")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code.replace("map.bcf", "map.zarr"), names)
    assert {"I/Pb", "Pb at%"} <= set(names["maps"].edx.table().quantity)
    assert (tmp_path / "report" / "index.html").stat().st_size > 1e5
