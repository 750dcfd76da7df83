"""The documentation: its links lead somewhere, and what it tells the reader to type works."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

import edxdenoise
from edxdenoise import denoise, save_dataset, simulate
from edxdenoise.cli import main
from edxdenoise.errors import recorded
from edxdenoise.io import to_hyperspy

pytestmark = pytest.mark.slow

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


# Lines that are not run, by what they contain, and why.
EXCEPTIONS = {
    "git clone": "how to install",
    "make ": "what CI itself does",
    ".venv/bin": "what CI itself does",
    "--scheduler": "needs a cluster; tests/test_cluster.py has one",
    "edxdenoise review": "serves until it is ended; tests/test_review_browser.py",
    "mine": "trains for an hour; tests/test_training_fit.py has a small network",
    "jeol_tem_64x64.pts": "a file that is not in the repository",
    "--report compared": "takes a minute; tests/test_compare.py has such a report",
}
# What pages call files of the reader, and what the tests have for them.
NAMES = {"map.bcf": "map.zarr", "-o map.zarr": "-o out.zarr", "10:40,20:60": "4:12,2:16"}
NAMES |= {"run map.toml": "run map.toml --overwrite"}
# Reports are made by the sessions of README and tutorial.
NAMES |= {" --report report": "", " --report quantified": ""}
TOLD = ("README", "tutorial", "howto_figures")
WITH_BLOCKS = [
    path
    for path in PAGES
    if path.stem not in TOLD and re.search("```[cp]", path.read_text("utf-8"))
]


def run_blocks(text, **names):
    """Run commands and Python of a page; yield each command, what it should print and prints."""
    for kind, block in re.findall(r"```(console|python)\n(.*?)```", text, re.S):
        if kind == "python":
            exec(block, names)
            continue
        block = re.sub(r"\\\n\s*", "", block)
        for line, told in re.findall(r"^ *\$ (.*)\n((?: *[^$\s].*\n|  .*\n)*)", block, re.M):
            if any(part in line for part in EXCEPTIONS):
                continue
            line, _, file = line.partition(" > ")
            program, *words = shlex.split(line, comments=True)
            assert program == "edxdenoise"
            result = CliRunner().invoke(main, words)
            assert result.exit_code == 0, (line, result.output)
            if file:
                Path(file.strip()).write_text(result.stdout)
            yield line, told, result.stdout


@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_the_tutorial_word_by_word(tmp_path, monkeypatch):
    """As it stands, on half as many pixels a side; its files are those of the page on figures."""
    monkeypatch.chdir(tmp_path)
    pages = [(ROOT / "docs" / f"{name}.md").read_text() for name in ("tutorial", "howto_figures")]
    assert len(list(run_blocks("".join(pages).replace("32x32", "16x16")))) > 5
    assert (tmp_path / "report" / "index.html").stat().st_size > 1e5
    assert (tmp_path / "platinum.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "three.png").exists() and (tmp_path / "haadf.png").exists()


@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
def test_the_session_of_the_readme_prints_what_it_says(tmp_path, monkeypatch):
    """Words as they are; numbers to a fifth, since processors round otherwise."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for line, told, found in run_blocks(text):
        expected, printed = (part.split() for part in (told, found))
        assert len(expected) in (0, len(printed)), (line, found)
        for one, other in zip(expected, printed):
            numbers = [re.fullmatch(r"[\d,]+(\.\d+)?", word) for word in (one, other)]
            if all(numbers):
                values = [float(word.replace(",", "")) for word in (one, other)]
                assert values[1] == pytest.approx(values[0], rel=0.2), (line, found)
            else:
                assert one == other, (line, found)
    assert (tmp_path / "report" / "index.html").stat().st_size > 1e5
    assert (tmp_path / "both.pdf").exists() and (tmp_path / "maps.hspy").exists()


@pytest.fixture(scope="module")
def phantom():
    return simulate("solar-cell", shape=(16, 20), channels=325, energy_width=0.04).compute()


@pytest.fixture(scope="module")
def denoised(phantom):
    with recorded(show=False):
        return denoise(phantom, shrink=False)


@pytest.mark.filterwarnings("ignore::edxdenoise.errors.EdxdenoiseWarning")
@pytest.mark.parametrize("page", WITH_BLOCKS, ids=[path.stem for path in WITH_BLOCKS])
def test_every_block_runs(page, phantom, denoised, tmp_path, monkeypatch):
    """Those that need files of the reader, on small ones."""
    text = page.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    if not all(any(part in line for part in EXCEPTIONS) for line in re.findall(r"\$ (.*)", text)):
        save_dataset(denoised, "map.zarr")
    Path("known.csv").write_text("line,k_factor\nFe_Ka,1.0\nPt_La,4.0\n")
    for name, other in NAMES.items():
        text = text.replace(name, other)
    text = re.sub(r"^(\$ .* -o \S+)", r"\1 --overwrite", text, flags=re.M)
    signal = to_hyperspy(phantom) if "signal" in text else None
    list(run_blocks(text, ed=edxdenoise, ds=phantom, signal=signal))
