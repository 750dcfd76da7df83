"""What ``edxdenoise.NAME`` offers is what ``__init__.pyi`` says, documented and usable."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import edxdenoise

STUB = ast.parse(Path(edxdenoise.__file__).with_suffix(".pyi").read_text())
NAMES = sorted(set(edxdenoise.__all__) - {"__version__"})
FUNCTIONS = [name for name in NAMES if inspect.isfunction(getattr(edxdenoise, name))]


def test_all_is_the_stub():
    (listed,) = [
        [item.value for item in node.value.elts]
        for node in STUB.body
        if isinstance(node, ast.Assign)
    ]
    imported = [a.name for n in STUB.body if isinstance(n, ast.ImportFrom) for a in n.names]
    assert sorted(edxdenoise.__all__) == sorted(listed) == sorted(imported)
    assert len(set(listed)) == len(listed)
    assert set(edxdenoise.__all__) <= set(dir(edxdenoise))


@pytest.mark.parametrize("name", sorted(edxdenoise.__all__))
def test_every_name_is_there(name):
    thing = getattr(edxdenoise, name)
    assert not inspect.ismodule(thing), f"edxdenoise.{name} is a module: it hides the function"
    assert name == "__version__" or inspect.getdoc(thing)


@pytest.mark.slow
def test_no_module_hides_a_function():
    code = (
        "import inspect, edxdenoise.pipeline, edxdenoise.cli, edxdenoise\n"
        "print([n for n in edxdenoise.__all__ if inspect.ismodule(getattr(edxdenoise, n))])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
    package = Path(edxdenoise.__file__).parent
    modules = {path.stem for path in package.iterdir() if path.suffix != ".pyi"}
    assert not modules & set(edxdenoise.__all__)


def test_unknown_name():
    with pytest.raises(AttributeError, match="no_such_thing"):
        edxdenoise.no_such_thing


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstring(name):
    function = getattr(edxdenoise, name)
    doc = inspect.getdoc(function)
    summary = doc.splitlines()[0]
    assert summary.endswith((".", ":")), summary
    parameters = inspect.signature(function).parameters
    if len(doc.splitlines()) == 1 or "Parameters are those of" in doc:
        return
    if len(parameters) > 1:
        section = doc.partition("Parameters\n----------\n")[2]
        assert section, f"{name}: no Parameters section"
        for parameter in parameters:
            assert parameter in section, f"{name}: '{parameter}' is not described"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_options_are_named_never_counted(name):
    for parameter in inspect.signature(getattr(edxdenoise, name)).parameters.values():
        if isinstance(parameter.default, bool):
            assert parameter.kind is parameter.KEYWORD_ONLY, f"{name}: {parameter}"
