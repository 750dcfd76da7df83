"""The benchmarks run, at a size where their figures mean nothing."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edxdenoise.cli import main
from edxdenoise.cli.helpers import Verbosity

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch, capsys):
    """Run the `main` of a benchmark with options, and return the rows of its table."""
    monkeypatch.syspath_prepend(BENCHMARKS)

    def rows(name, *options):
        monkeypatch.setattr(sys, "argv", [name, *map(str, options)])
        importlib.import_module(name).main()
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]

    return rows


@pytest.fixture
def measure(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("_measure")


@pytest.fixture
def commands_here(monkeypatch, measure):
    """Let benchmarks run their commands in this process: each one alone imports for seconds."""

    def run(command):
        monkeypatch.setattr(Verbosity, "level", 0)
        done = CliRunner().invoke(main, [str(word) for word in command[1:]])
        return measure.Run(1.0, 1.0, 1_000_000, done.exit_code, done.stdout, done.stderr)

    for name in ("real_files", "stream"):
        monkeypatch.setattr(importlib.import_module(name), "run", run)


def test_run_measures_the_whole_tree(measure):
    hold = "import time; held = b'x' * 200_000_000; time.sleep(0.5)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    result = measure.run([sys.executable, "-c", child])
    assert result.status == 0
    assert result.seconds > 0.5
    assert 200e6 < result.peak < 400e6


def test_run_tells_failure(measure):
    result = measure.run([sys.executable, "-c", "raise SystemExit('no')"])
    assert (result.status, result.errors) == (1, "no\n")
    with pytest.raises(RuntimeError, match="exit status 1: no"):
        result.checked()


def test_markdown_is_aligned(measure):
    assert measure.markdown(["a", "b"], [["one", "1"], ["x", "22"]]).splitlines() == [
        "| a   |  b |",
        "| --- | -: |",
        "| one |  1 |",
        "| x   | 22 |",
    ]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_pca_table(benchmark):
    pytest.importorskip("hyperspy")
    only = ["edxdenoise randomized", "HyperSpy randomized"]
    rows = benchmark("pca", "--shape", 33, 50, 130, "--repeats", 1, "--only", *only)
    names = [row.split("|")[1].strip() for row in rows[2:]]
    assert names[0].startswith("floor") and names[1].startswith("edxdenoise covariance")
    assert names[2:] == only


def test_stream_table(benchmark, commands_here, tmp_path):
    size = ["--side", 16, 32, "--channels", 128, "--components", 10, "--repeats", 1]
    rows = benchmark("stream", *size, "--select", "edge", "--folder", tmp_path)
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["16 x 16 x 128", "32 x 32 x 128"]
    assert not any(tmp_path.iterdir())


def test_real_files_table(benchmark, commands_here, shared_data, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    for name in (
        "tia.emi",
        "tia_1.ser",
        "phenom.elid",
        "ripple_uncalibrated.rpl",
        "ripple_uncalibrated.raw",
    ):
        (small / name).write_bytes((shared_data / "small" / name).read_bytes())
    rows = benchmark("real_files", tmp_path)
    phenom, ripple, tia = rows[2:]
    assert "3, 4, 1024" in ripple and "no energy calibration" in ripple
    assert "--signal" in phenom and " of " in phenom
    assert "refused (status 1)" in tia


def test_classifier_speed_table(benchmark):
    rows = benchmark("classifier_speed", "--shape", 33, 50, "--components", 12, "--repeats", 1)
    names = [row.split("|")[1].strip() for row in rows[2:]]
    assert names == [
        *("noise of the scores", "spatial", "inputs of the network", "network", "select"),
    ]


def test_two_doses_table(benchmark, shared_data):
    rows = benchmark("two_doses", shared_data)
    head, _, *elements = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    assert [row[0] for row in elements] == "O Na Mg Al Si K Ca Ti Fe".split()
    column = {name.split(" (")[0]: i for i, name in enumerate(head)}
    for row in elements:
        # As the package denoises it, few counts are nearer to many than by elbow, and than raw.
        assert float(row[column["denoise over elbow"]]) > 2, row
        assert float(row[column["cnn over raw"]]) > 2, row


def test_the_article_split_by_component_leaks_nothing(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    article = importlib.import_module("article")
    component = np.tile(np.arange(40), 4)
    data = np.zeros((160, 1)), component < 6, component
    train = article.by_component(data, 0)
    assert not set(component[train]) & set(component[~train])
    for part in (train, ~train):
        assert 0 < data[1][part].sum() < part.sum()
    assert train.mean() == pytest.approx(0.7, abs=0.05)
