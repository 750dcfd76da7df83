"""What a job takes: passes over the counts, memory, disk."""

import json

import pytest
from click.testing import CliRunner

from edxdenoise import save_dataset
from edxdenoise.cli import main
from edxdenoise.simulation import simulate


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "map.zarr"
    ds = simulate("nanoparticles", shape=(60, 60), channels=200, energy_width=0.05)
    save_dataset(ds[["counts"]], path)
    return path


def planned(path, *options):
    outcome = CliRunner().invoke(main, ["plan", str(path), "--json", *options])
    assert outcome.exit_code == 0, outcome.output
    return json.loads(outcome.stdout)


@pytest.mark.slow
def test_streamed_counts_are_read_as_often_as_stages_need(phantom):
    options = ("--select", "elbow", "--no-shrink", "--components", "10")
    memory = planned(phantom, *options)["memory"]
    between = (memory["streamed"] + memory["in_memory"]) // 2
    found = planned(phantom, *options, "--memory-limit", str(between))
    assert not found["held"]
    passes = {stage["name"]: stage["passes"] for stage in found["stages"]}
    # Components need sums over pixels, of neighbours too, and then scores; weights are of the first
    # look's totals.
    assert passes == {
        **dict.fromkeys(("weights", "selection"), 0),
        **{"reading": 1, "components": 2, "writing": 1},
    }
    assert found["seconds"] == pytest.approx(sum(each["seconds"] for each in found["stages"]))


@pytest.mark.slow
def test_size_of_the_output_is_near(phantom, tmp_path):
    output = tmp_path / "out.zarr"
    options = ["--select", "elbow", "--no-shrink"]
    found = planned(phantom, *options)
    assert found["held"] and found["shape"] == [60, 60, 200]
    assert sum(stage["passes"] for stage in found["stages"]) == 1
    assert "held-out counts" in {stage["name"] for stage in found["stages"]}
    outcome = CliRunner().invoke(main, ["denoise", str(phantom), "-o", str(output), *options])
    assert outcome.exit_code == 0, outcome.output
    written = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    assert 0.5 < found["disk"] / written < 2


@pytest.mark.slow
def test_table(phantom):
    outcome = CliRunner().invoke(main, ["plan", str(phantom), "--select", "elbow", "--no-shrink"])
    assert outcome.exit_code == 0, outcome.output
    for word in ("60 x 60 x 200", "held in memory", "passes", "components", "writing"):
        assert word in outcome.stdout
    assert not list(phantom.parent.glob("*.partial*"))
