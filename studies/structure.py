"""How large the library is, now and at an earlier commit, and whether files are where names say.

    python studies/structure.py [--before d99d1f7] [--csv]

Lines of code are those that are neither blank, comment nor docstring. A module that imports
``report/`` from below it would compute through pictures. The second table asks, for twenty
behaviours, in which file a reader would look by its name: guesses were written down before the code
was searched, by somebody who had moved the modules and read a part of them. What a Dataset passes
is counted while a small phantom is denoised and quantified: calls with a Dataset among their
arguments from one module of the package to another.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from _study import RESULTS, write_csv

ROOT = Path(__file__).resolve().parents[1]
# What presents results: these may import the report.
FACES = ("accessor", "cli", "jobs", "report", "review", "run")
# A behaviour, guesses at its file in their order, and a name that the right file defines.
BEHAVIOURS = (
    ("where is the type of the counts chosen?", "cube.py", "", "smallest_count_dtype"),
    ("what labels a peak?", "xray/labels.py", "xray/peaks.py", "name_peaks"),
    ("where is an at% error made?", "quantification/composition.py", "", "fractions"),
    (
        "what makes the error of a single pixel?",
        "quantification/estimators.py",
        "",
        "pixel_covariance",
    ),
    (
        "what is a k-factor at another beam energy?",
        "quantification/k_factors.py",
        "",
        "convert_k_factors",
    ),
    ("which lines cannot be told apart?", "xray/families.py", "xray/lines.py", "_separable"),
    ("how much memory does a job need?", "resources.py", "blocks.py", "memory_needed"),
    ("how does an output appear whole?", "io/atomic.py", "io/save.py", "atomic_output"),
    ("how are damaged Bruker files noticed?", "io/vendor/bruker.py", "", "open_bruker"),
    ("when does NMF stop?", "components/nmf.py", "", "Settled"),
    (
        "where is the noise edge?",
        "components/selection.py",
        "components/score_noise.py",
        "noise_edge",
    ),
    ("what does the network see of a map?", "components/network_inputs.py", "", "whitened_stack"),
    ("how far is a map smoothed?", "components/smoothing.py", "components/shrink.py", "smooth"),
    ("what is the cross-validated error?", "validation/holdout.py", "", "held_out_error"),
    ("what did the model miss?", "validation/residuals.py", "", "residual_audit"),
    (
        "what does the terminal print in the end?",
        "cli/summaries.py",
        "cli/helpers.py",
        "print_result",
    ),
    ("where is the scale bar drawn?", "report/frame.py", "report/maps.py", "_draw_scale_bar"),
    ("what is the default of --components?", "config.py", "cli/options.py", "Denoise"),
    ("how does a review survive a kill?", "review/state.py", "review/server.py", "Review"),
    ("what is in the simulated solar cell?", "simulation/presets.py", "", "solar_cell"),
)

# Run with the library that is looked at; a function that is called is seen before it works.
WALK = """
import json, sys
from pathlib import Path
import xarray as xr
import edxdenoise
from edxdenoise import denoise, quantify, simulate

ROOT = Path(edxdenoise.__file__).parent
visits = []

def module(frame):
    path = Path(frame.f_code.co_filename)
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else ""

def seen(frame, event, _):
    code = frame.f_code
    if event != "call" or code.co_name.startswith("<") or not (here := module(frame)):
        return
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    if any(isinstance(frame.f_locals.get(name), xr.Dataset) for name in names):
        caller = frame.f_back
        while caller is not None and not module(caller):
            caller = caller.f_back
        if caller is not None and module(caller) != here:
            visits.append(here)

phantom = simulate("solar-cell", shape=(33, 50), channels=160, energy_width=0.08).compute()
sys.setprofile(seen)
quantify(denoise(phantom), {"I_La": 3.413, "Pb_La": 4.374})
sys.setprofile(None)
print(json.dumps(visits))
"""


def walked(files: dict[str, bytes]) -> dict[str, int]:
    """Count what a Dataset passes from `denoise` to maps of at%, by the files of a library."""
    with tempfile.TemporaryDirectory() as folder:
        for path, content in files.items():
            target = Path(folder, "edxdenoise", path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        done = subprocess.run(
            [sys.executable, "-P", "-W", "ignore", "-c", WALK],
            env=os.environ | {"PYTHONPATH": folder},
            capture_output=True,
            check=True,
        )
    visits = json.loads(done.stdout)
    return {
        "modules that a Dataset passes, from denoise to at%": len(set(visits)),
        "top-level ones of them": len({path.split("/")[0] for path in visits}),
        "times that it is handed to another module": len(visits),
    }


def measures(package: dict[str, str]) -> dict[str, int]:
    """Count what a library has, from its files by path below the package."""
    modules = {path: text for path, text in package.items() if path.endswith(".py")}
    lines = {path: len(text.splitlines()) for path, text in modules.items()}
    public = ast.parse(package["__init__.pyi"]).body[-1]
    assert isinstance(public, ast.Assign) and isinstance(public.value, ast.List)
    return {
        "lines": sum(lines.values()),
        "lines of code": sum(len(code(text)) for text in modules.values()),
        "blocks of six lines of code found more than once": repeated_blocks(modules.values()),
        "modules": len(modules),
        "modules below 120 lines, commands and __init__ aside": sum(
            count < 120
            for path, count in lines.items()
            if not path.startswith("cli/") and "__" not in path and path != "_version.py"
        ),
        "top-level modules and packages": len({path.split("/")[0] for path in modules}),
        "public names": len(public.value.elts),
        "lines that import the schema": sum(map(schema_lines, modules.values())),
        "modules below the report that import it": sum(
            "edxdenoise.report" in imported(text)
            for path, text in modules.items()
            if path.split("/")[0].removesuffix(".py") not in FACES
        ),
    }


def code(text: str, *, imports: bool = True) -> list[str]:
    """Return the lines that hold code, without their indentation."""
    others = {
        number
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        or not imports
        and isinstance(node, (ast.Import, ast.ImportFrom))
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    return [
        line.strip()
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.strip().startswith("#") and number not in others
    ]


def repeated_blocks(modules: Iterable[str]) -> int:
    """Count blocks of six lines of code, imports aside, that are found more than once."""
    found: Counter[tuple[str, ...]] = Counter()
    for text in modules:
        lines = code(text, imports=False)
        found.update(zip(*(lines[start:] for start in range(6))))
    return sum(times > 1 for times in found.values())


def schema_lines(text: str) -> int:
    """Count lines of statements that import from the schema."""
    return sum(
        (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom)
        and (
            node.module == "edxdenoise.schema"
            or node.module == "edxdenoise"
            and any(alias.name == "schema" for alias in node.names)
        )
    )


def imported(text: str) -> set[str]:
    """Return packages of ours that a module imports, to the second level."""
    return {
        ".".join(node.module.split(".")[:2])
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.module
    }


def files_at(commit: str) -> dict[str, bytes]:
    """Return every file of the package at a commit, by its path."""
    packed = subprocess.run(
        ["git", "archive", commit, "edxdenoise"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        return {
            member.name.removeprefix("edxdenoise/"): archive.extractfile(member).read()
            for member in archive
            if member.isfile()
        }


def python(files: dict[str, bytes]) -> dict[str, str]:
    """Return the text of those that are Python."""
    return {
        path: content.decode() for path, content in files.items() if path.endswith((".py", ".pyi"))
    }


def defining(files: dict[str, str], name: str) -> list[str]:
    """Return the files that define a function, class or constant at their top level."""
    return [
        path
        for path, text in files.items()
        if path.endswith(".py")
        for node in ast.parse(text).body
        if getattr(node, "name", None) == name
    ]


def main() -> None:
    """Print both tables; write them for the documentation."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--before", default="d99d1f7", help="commit to compare with")
    parser.add_argument("--csv", action="store_true", help="write studies/results/structure*.csv")
    chosen = parser.parse_args()
    packages = [files_at(commit) for commit in (chosen.before, "HEAD")]
    before, now = map(python, packages)
    old, new = (measures(python(each)) | walked(each) for each in packages)
    sizes = [["", chosen.before, "now"], *([name, old[name], new[name]] for name in new)]
    guesses = [["behaviour", "first guess", "second guess", "it is in", "found by"]]
    for behaviour, first, second, name in BEHAVIOURS:
        (found,) = defining(now, name)
        tried = [guess for guess in (first, second) if guess]
        by = f"guess {tried.index(found) + 1}" if found in tried else "neither"
        guesses.append([behaviour, first, second, f"{found}, `{name}`", by])
    for table in (sizes, guesses):
        for row in table:
            print(" | ".join(map(str, row)))
        print()
    if chosen.csv:
        write_csv(RESULTS / "structure.csv", sizes)
        write_csv(RESULTS / "structure_guesses.csv", guesses)


if __name__ == "__main__":
    main()
