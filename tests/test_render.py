"""Tables of the documentation are those that the studies wrote."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "studies"))
from render import render  # noqa: E402


def test_a_table_is_filled_from_its_results(tmp_path):
    (tmp_path / "doses.csv").write_text("dose,error\n10,0.3\n")
    page = "before\n<!-- table: doses -->\nold\n<!-- /table -->\nafter\n"
    filled = render(page, tmp_path)
    assert filled.startswith("before\n") and filled.endswith("after\n")
    assert "| 10   | 0.3   |" in filled and "old" not in filled
    assert render(filled, tmp_path) == filled


def test_missing_results_name_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.csv"):
        render("<!-- table: nothing -->\n<!-- /table -->", tmp_path)


def test_pages_show_the_results_of_the_studies():
    found = subprocess.run(
        [sys.executable, str(ROOT / "studies" / "render.py"), "--check"],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
