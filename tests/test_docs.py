"""The documentation: its links lead somewhere, and what it tells the reader to type works."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from edxdenoise.cli import main

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + DOCS


def anchors(path):
    """Anchors of the headings of a page, as GitHub and MkDocs make them."""
    heads = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
    plain = [re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads]
    return {re.sub(r"-+", "-", one) for one in plain} | set(plain)


@pytest.mark.parametrize("path", PAGES, ids=[path.name for path in PAGES])
def test_links_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), f"{link} leads nowhere"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{link}: {target.name} has no such heading"


def test_every_page_and_picture_has_its_place():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    (named,) = [part for part in [re.findall(r"(\w+\.md)$", text, re.M)]]
    assert sorted(named) == [path.name for path in DOCS]
    words = "".join(path.read_text(encoding="utf-8") for path in PAGES)
    assert [p.name for p in (ROOT / "docs").glob("*.png") if p.name not in words] == []
    assert yaml.safe_load(text.partition("nav:")[2].join(["nav:", ""]))["nav"]


@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_the_tutorial_word_by_word(tmp_path, monkeypatch):
    """As it stands, on half as many pixels a side."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8").replace("32x32", "16x16")
    for block in re.findall(r"```(console|python)\n(.*?)```", text, re.S):
        if block[0] == "python":
            exec(block[1], {})
            continue
        for line in re.findall(r"^\$ edxdenoise (.*)$", block[1].replace("\\\n", ""), re.M):
            result = CliRunner().invoke(main, shlex.split(line))
            assert result.exit_code == 0, (line, result.output)
    assert (tmp_path / "report" / "index.html").stat().st_size > 1e5
    assert (tmp_path / "platinum.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "three.png").exists()
