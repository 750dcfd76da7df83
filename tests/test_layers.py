"""Imports go one way; every import counts, those inside functions too."""

import ast
import re
from pathlib import Path

import pytest

import edxdenoise

PACKAGE = Path(edxdenoise.__file__).parent
# The one list of floors, lowest last; on a floor, each part may import those left of it.
FLOORS = re.findall(
    r"^\| (\d) \| (.+?) \|", (PACKAGE.parent / "CONTRIBUTING.md").read_text("utf-8"), re.M
)
ORDER = [
    name.removesuffix(".py")
    for _, names in reversed(FLOORS)
    for name in re.findall(r"`(\w+(?:\.py)?)/?`", names)
]
LEVEL = {name: level for level, name in enumerate(ORDER)}
# Nothing computes through the report: these alone show one or write one.
SHOW_REPORTS = {"report", "review", "cli", "accessor", "run"}
# Heavy or particular libraries, and the one place that may import each.
ONLY = {
    "dask_ml": "components/pca.py",
    "rsciio": "io/",
    "bokeh": "report/page",
    "tensorflow": "components/networks.py",
    "keras": "components/networks.py",
    "click": "cli/",
    "pydantic": "config.py",
}
HEAVY = {
    "bokeh",
    "jinja2",
    "PIL",
    "numba",
    "tensorflow",
    "keras",
    "dask_ml",
    "distributed",
    "rsciio",
    "matplotlib",
    "sklearn",
    "rich",
}
# Imported by others inside functions alone.
LATE = {"components/kernels.py", "io/kernels.py", "report/picture.py"}

MODULES = sorted(PACKAGE.rglob("*.py"))
NAMES = [path.relative_to(PACKAGE).as_posix() for path in MODULES]


def part_of(name):
    return name.split("/")[0].removesuffix(".py")


def imports(path):
    """(module, whether at module level) of every import in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        or isinstance(outer, ast.If)
        and "TYPE_CHECKING" in ast.unparse(outer.test)
        for node in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) not in inside
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            if module == "edxdenoise":
                for alias in node.names:
                    yield f"edxdenoise.{alias.name}", id(node) not in inside
            else:
                yield module, id(node) not in inside


def parts_imported(path):
    for module, _ in imports(path):
        package, _, rest = module.partition(".")
        if package == "edxdenoise" and rest:
            part = rest.partition(".")[0]
            yield "_version" if part == "__version__" else part


def test_every_part_has_its_floor():
    parts = {part_of(name) for name in NAMES} - {"__init__"}
    assert sorted(ORDER) == sorted(parts)
    assert [int(floor) for floor, _ in FLOORS] == list(range(len(FLOORS)))[::-1]


@pytest.mark.parametrize("name", [n for n in NAMES if n != "__init__.py"])
def test_imports_go_down_only(name):
    own = part_of(name)
    for part in set(parts_imported(PACKAGE / name)) - {own}:
        assert LEVEL[part] < LEVEL[own], f"{name} imports edxdenoise.{part}, which lies above it"
        assert part != "report" or own in SHOW_REPORTS, f"{name} imports the report"


@pytest.mark.parametrize("name", NAMES)
def test_particular_libraries_in_one_place(name):
    for module, at_top in imports(PACKAGE / name):
        library = module.partition(".")[0]
        if library in ONLY:
            place = ONLY[library]
            assert place is not None and name.startswith(place), f"{name} imports {library}"
        assert not (at_top and library in HEAVY) or name in LATE, f"{name} imports {library}"


def test_the_reader_of_imports_sees_them_all(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(
        "import os.path\nfrom edxdenoise import __version__, cube\n"
        "def f():\n    from edxdenoise.cli.helpers import say\n    import rsciio\n"
    )
    assert list(parts_imported(path)) == ["_version", "cube", "cli"]
    assert ("os.path", True) in imports(path) and ("rsciio", False) in imports(path)
