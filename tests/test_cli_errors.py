"""Whatever is wrong: one line that says so, the right exit status, and nothing left behind."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edxdenoise.cli import main
from edxdenoise.cli.helpers import Verbosity
from edxdenoise.cube import make_cube
from edxdenoise.io import save_dataset

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
from faults import unprivileged  # noqa: E402

PROGRAM = [sys.executable, "-m", "edxdenoise"]


@pytest.fixture(autouse=True)
def usual_verbosity(monkeypatch):
    monkeypatch.setattr(Verbosity, "level", 0)


def poisson(*shape):
    return np.random.default_rng(0).poisson(9, shape)


def with_value(value, dtype):
    counts = poisson(6, 7, 20).astype(dtype)
    counts[2, 3, 4] = value
    return counts


CUBES = {
    "good": poisson(6, 7, 20),
    "zeros": np.zeros((6, 7, 20), np.uint8),
    "negative": with_value(-1, np.int16),
    "negative_float": with_value(-1, np.float32),
    "nan": with_value(np.nan, np.float32),
    "infinite": with_value(np.inf, np.float64),
    "fraction": with_value(0.5, np.float64),
    "one_channel": poisson(6, 7, 1),
    "one_pixel": poisson(1, 1, 20),
    "one_row": poisson(1, 7, 20),
    "one_column": poisson(6, 1, 20),
    "two_channels": poisson(6, 7, 2),
}


@pytest.fixture(scope="module")
def cubes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cubes")
    for name, counts in CUBES.items():
        ds = make_cube(counts, energy=np.arange(counts.shape[2]) * 0.1 + 0.2)
        # HyperSpy's axes need a step, and so two channels.
        for suffix in (".nc", ".zarr", ".hspy")[: 2 if name == "one_channel" else 3]:
            save_dataset(ds, folder / f"{name}{suffix}")
    return folder


def run(*args, status):
    result = CliRunner().invoke(main, list(map(str, args)))
    assert result.exit_code == status, result.output
    return result


def one_error(stderr, *words):
    """The one line of error, which holds all words; warnings and the log may stand before it."""
    log = "Warning: ", "writing "
    lines = [line for line in stderr.splitlines() if not line.startswith(log)]
    assert len(lines) == 1 and lines[0].startswith("Error: "), stderr
    assert "unexpected" not in lines[0] and "Traceback" not in stderr
    for word in words:
        assert str(word) in lines[0]
    return lines[0]


def assert_refused(command, *words, out, status=1):
    before = set(os.listdir(out.parent)) if out.parent.is_dir() else None
    result = run(*command, status=status)
    assert result.stdout == ""
    one_error(result.stderr, *words)
    if before is not None:
        assert set(os.listdir(out.parent)) == before, "something is left behind"


@pytest.mark.parametrize("suffix", [".nc", ".zarr", ".hspy"])
@pytest.mark.parametrize(
    ("name", "words", "converts"),
    [
        ("zeros", "no counts at all", False),
        ("negative", "negative", False),
        ("negative_float", "negative", False),
        ("nan", "NaN or infinite", False),
        ("infinite", "NaN or infinite", False),
        ("fraction", "not whole", True),
        ("one_channel", "at least 2", None),
        ("one_pixel", "one pixel", None),
    ],
)
def test_unfit_counts(cubes, tmp_path, name, suffix, words, converts):
    path, out = cubes / f"{name}{suffix}", tmp_path / "o.zarr"
    if not path.exists():
        pytest.skip("cannot be written in this format")
    # Of all selectors the split test alone needs whole counts.
    options = ["--select", "split"] if name == "fraction" else []
    assert_refused(["denoise", path, "-o", out, *options], name, words, out=out)
    if converts is False:
        assert_refused(["convert", path, out], name, words, out=out)
    elif converts:
        run("convert", path, out, status=0)


@pytest.mark.parametrize("name", ["one_row", "one_column", "two_channels"])
def test_small_but_sound(cubes, tmp_path, name):
    run("denoise", cubes / f"{name}.nc", "-o", tmp_path / "o.zarr", status=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--components", "5000"], ["components 5000", "1 to 20"]),
        (["--keep", "1-4,200"], ["'200'", "1-20"]),
        (["--keep", "0"], ["'0'", "1-20"]),
        (["--keep", "4-2"], ["'4-2'", "upwards"]),
        (["--energy", "50:60"], ["50.0:60.0 keV", "0.2 to 2.1 keV"]),
        (["--crop-y", "100:"], ["crop y", "6 along y"]),
        (["--rebin-xy", "100"], ["100", "1 to 6"]),
        (["--rebin-energy", "21"], ["21", "1 to 20"]),
        (["--exposure", "1,2"], ["2 given for 1 maps"]),
        (["--memory-limit", "1kB"], ["needs", "--memory-limit"]),
        (["--scheduler", "thread"], ["'thread'", "threads, processes"]),
    ],
)
def test_impossible_options(cubes, tmp_path, options, words):
    out = tmp_path / "o.zarr"
    assert_refused(["denoise", cubes / "good.nc", "-o", out, *options], *words, out=out)


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["nosuch"],
        ["--nosuch"],
        ["denoise"],
        ["denoise", "a.nc"],
        ["denoise", "a.nc", "-o", "b.nc", "--energy", "3:1"],
        ["denoise", "a.nc", "-o", "b.nc", "--select", "x"],
        ["denoise", "a.nc", "-o", "b.nc", "--keep", "abc"],
        ["denoise", "a.nc", "-o", "b.nc", "--components", "0"],
        ["convert", "a.nc"],
        ["info", "a.nc", "b.nc"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2(args):
    result = run(*args, status=2)
    assert "Usage: " in result.stderr and result.stdout == ""


def test_outputs_that_cannot_be(cubes, tmp_path):
    good = cubes / "good.nc"
    for command in (["denoise", good, "-o"], ["convert", good], ["simulate"]):
        gone = tmp_path / "gone" / "o.zarr"
        assert_refused([*command, gone], "gone", "does not exist; make it first", out=gone)
        text = tmp_path / "o.txt"
        assert_refused([*command, text], "'.txt'", ".nc, .zarr, .hspy", out=text)
    report = tmp_path / "gone" / "report"
    out = tmp_path / "o.nc"
    assert_refused(
        ["denoise", good, "-o", out, "--report", report], "gone", "does not exist", out=out
    )


def test_inputs_that_are_not(cubes, tmp_path):
    out = tmp_path / "o.nc"
    for command in ([], ["-o", out]):
        name = "denoise" if command else "info"
        assert_refused([name, tmp_path / "no.bcf", *command], "no.bcf", "does not exist", out=out)
        folder = tmp_path / "folder"
        folder.mkdir(exist_ok=True)
        assert_refused([name, folder, *command], str(folder), "is a folder", out=out)
    for name in ("components", "report"):
        command = ["-o", tmp_path / "r"] if name == "report" else []
        assert_refused([name, cubes / "good.nc", *command], "good.nc", "no components", out=out)
        assert_refused([name, tmp_path / "no.nc", *command], "no.nc", "not exist", out=out)


@pytest.mark.parametrize("command", ["info", "convert", "denoise"])
def test_bad_files(shared_data, tmp_path, command):
    out = tmp_path / "o.zarr"
    more = {"info": [], "convert": [out], "denoise": ["-o", out]}[command]
    for path in sorted((shared_data / "bad").iterdir()):
        result = run(command, path, *more, status=1)
        one_error(result.stderr, path.name, ";")
        assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["bruker_sem_dacite_22cpp.bcf", "fept_core_shell.hspy"])
def test_cut_files(shared_data, tmp_path, name):
    path, out = tmp_path / name, tmp_path / "out"
    out.mkdir()
    shutil.copyfile(shared_data / name, path)
    size = path.stat().st_size
    for length in (size * 9 // 10, size // 2, 5000, 10):
        os.truncate(path, length)
        for command in (["convert", path, out / "o.nc"], ["denoise", path, "-o", out / "o.nc"]):
            one_error(run(*command, status=1).stderr, name)
            assert os.listdir(out) == []


@pytest.mark.parametrize("suffix", [".nc", ".zarr", ".hspy"])
def test_our_own_files_cut(cubes, tmp_path, suffix):
    path = tmp_path / f"cut{suffix}"
    source = cubes / f"good{suffix}"
    (shutil.copytree if source.is_dir() else shutil.copyfile)(source, path)
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
    victim = max(files, key=lambda file: file.stat().st_size)
    os.truncate(victim, victim.stat().st_size // 2)
    out = tmp_path / "o.nc"
    assert_refused(["denoise", path, "-o", out], path.name, out=out)
    assert_refused(["convert", path, out], path.name, out=out)


def test_traceback_only_when_asked(tmp_path, monkeypatch):
    from edxdenoise import io

    def fail(path):
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr(io, "list_signals", fail)
    result = run("info", "a.nc", status=1)
    assert result.stderr == (
        "Error: unexpected ZeroDivisionError: two lines; run again with -vv for the traceback\n"
    )
    result = CliRunner().invoke(main, ["-vv", "info", "a.nc"])
    assert isinstance(result.exception, ZeroDivisionError)


def program(*args, **kwargs):
    return subprocess.Popen(
        [*PROGRAM, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def test_folders_and_files_without_rights(cubes, tmp_path):
    locked, good = tmp_path / "locked", cubes / "good.nc"
    locked.mkdir(mode=0o555)
    recipe = tmp_path / "recipe.toml"
    recipe.touch(mode=0)
    for command, out in (
        (["denoise", good, "-o"], "o.zarr"),
        (["denoise", good, "-o", tmp_path / "o.nc", "--report"], "report"),
        (["convert", good], "o.hspy"),
        (["quantify", good, "-o"], "o.nc"),
        (["compare", good, "--report"], "report"),
        (["simulate"], "o.zarr"),
        (["demo", "-o"], "demo"),
        (["train", "--simulated", "1", "-o"], "networks"),
    ):
        with unprivileged():
            words = (out, "Permission denied; change the access rights of", "locked")
            assert_refused([*command, locked / out], *words, out=locked / out)
    with unprivileged():
        one_error(run("run", recipe, status=1).stderr, "recipe.toml", "Permission denied")
    assert os.listdir(locked) == [] and os.listdir(tmp_path) == ["locked", "recipe.toml"]


# Neither selection nor smoothing: what matters is how the output is written.
QUICK = ("--keep", "1-3", "--components", 10, "--subspace", "pixel", "--no-shrink")


@pytest.fixture(scope="module")
def short_job(tmp_path_factory):
    """A map that was denoised once: what is compiled then is kept, and not written again."""
    folder = tmp_path_factory.mktemp("short")
    save_dataset(make_cube(poisson(40, 40, 100), energy=np.arange(1, 101) * 0.1), folder / "a.zarr")
    run("denoise", folder / "a.zarr", "-o", folder / "o.zarr", *QUICK, status=0)
    return folder / "a.zarr"


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".zarr", ".nc", ".hspy"])
def test_full_disk(short_job, tmp_path, suffix):
    """A limit on the size of files is what every user may set, and fails as a full disk does."""
    source, out = short_job, tmp_path / f"o{suffix}"

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    process = program("denoise", source, "-o", out, *QUICK, preexec_fn=limit)
    _, stderr = process.communicate()
    assert process.returncode == 1
    one_error(stderr, f"o{suffix}", "not written")
    assert os.listdir(out.parent) == []


@pytest.fixture(scope="module")
def long_job(tmp_path_factory):
    path = tmp_path_factory.mktemp("long") / "a.zarr"
    save_dataset(make_cube(poisson(100, 100, 400), energy=np.arange(1, 401) * 0.02), path)
    return path


def stopped(long_job, out, number):
    """Start denoising, send the signal once the output is being written."""
    process = program("denoise", long_job, "-o", out, *QUICK)
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if any("partial" in name for name in os.listdir(out.parent)):
            os.kill(process.pid, number)
            break
        time.sleep(0.005)
    _, stderr = process.communicate()
    return process.returncode, stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "words"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_stopped_while_writing(long_job, tmp_path, number, status, words):
    returned, stderr = stopped(long_job, tmp_path / "o.zarr", number)
    assert returned == status
    one_error(stderr, words, "no unfinished output is left")
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_killed_while_writing(long_job, tmp_path):
    out = tmp_path / "o.zarr"
    returned, _ = stopped(long_job, out, signal.SIGKILL)
    assert returned == -signal.SIGKILL and not out.exists()
    # The next run clears what could not clear itself.
    run("denoise", long_job, "-o", out, "--crop-y", ":20", *QUICK, status=0)
    assert os.listdir(tmp_path) == ["o.zarr"]


@pytest.mark.slow
@pytest.mark.parametrize("wait", [0.05, 0.3, 0.7, 1.2])
def test_stopped_at_any_time(long_job, tmp_path, wait):
    process = program("denoise", long_job, "-o", tmp_path / "o.zarr")
    time.sleep(wait)
    process.terminate()
    _, stderr = process.communicate()
    assert process.returncode in (143, -signal.SIGTERM) and "Traceback" not in stderr
    assert os.listdir(tmp_path) == []


def test_stopped_while_text_is_executed(tmp_path):
    """As dataclasses do when they are imported: CPython must not end the process by SIGINT."""
    code = (
        "import os, signal, click\n"
        "from edxdenoise.cli.helpers import plain_errors\n"
        "@click.command()\n"
        "def main():\n"
        "    with plain_errors():\n"
        "        exec(f'os.kill({os.getpid()}, signal.SIGTERM)\\nwhile True: pass')\n"
        "main()\n"
    )
    (tmp_path / "stopped.py").write_text(code)
    command = [sys.executable, "-m", "stopped"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 143
    one_error(process.stderr, "terminated", "no unfinished output is left")


@pytest.mark.slow
def test_scheduler_that_does_not_answer(cubes, tmp_path):
    start = time.monotonic()
    out = tmp_path / "o.zarr"
    command = ["denoise", cubes / "good.nc", "-o", out, "--scheduler"]
    assert_refused([*command, "tcp://127.0.0.1:1"], "no Dask scheduler answers", out=out)
    assert_refused([*command, tmp_path / "no.json"], "no.json' does not exist", out=out)
    assert time.monotonic() - start < 40


def test_faults_of_computing_are_not_called_damaged_data(tmp_path, monkeypatch, shared_data):
    from edxdenoise import run

    def fail(*args, **kwargs):
        raise np.linalg.LinAlgError("Singular matrix")

    monkeypatch.setattr(run, "quantify", fail)
    file = str(shared_data / "fept_core_shell.hspy")
    out = str(tmp_path / "maps.nc")
    arguments = ["quantify", file, "-o", out, "--source", "counts", "--k-factor", "Fe_Ka=1.45"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "unexpected LinAlgError: Singular matrix" in result.output
    assert "damaged" not in result.output
