"""Commands as people run them: results on stdout, all else on stderr, exit status, files."""

import json
import os
import pty
import re
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from edxdenoise.cli import main
from edxdenoise.cli.helpers import Verbosity
from edxdenoise.config import Denoise, Output
from edxdenoise.cube import make_cube
from edxdenoise.io import open_dataset, save_dataset
from edxdenoise.quantification import region_table
from edxdenoise.recipe import Recipe
from edxdenoise.run import run_recipe

pytestmark = pytest.mark.slow

PROGRAM = [sys.executable, "-m", "edxdenoise"]
# Without the network, which a new process imports for seconds.
QUICK = ["--select", "elbow", "--no-shrink"]


@pytest.fixture(autouse=True)
def usual_verbosity(monkeypatch):
    monkeypatch.setattr(Verbosity, "level", 0)


def run(*args, status=0):
    result = CliRunner().invoke(main, list(map(str, args)))
    assert result.exit_code == status, result.output
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    args = ["--shape", "20x24", "--channels", "80", "--energy-width", "0.16"]
    run("simulate", folder / "phantom.zarr", *args)
    run("denoise", folder / "phantom.zarr", "-o", folder / "denoised.zarr", "--components", 30)
    return folder


def test_simulate(folder, tmp_path):
    args = ["--preset", "mineral", "--shape", "8x9", "--channels", "50", "--energy-width", "0.2"]
    result = run("simulate", tmp_path / "a.nc", *args)
    assert result.stdout == "" and "wrote" in result.stderr
    ds = open_dataset(tmp_path / "a.nc")
    assert ds.counts.shape == (8, 9, 50) and "expected_counts" in ds


def test_info(folder):
    result = run("info", folder / "phantom.zarr")
    assert "20 x 24 x 80" in result.stdout and "keV" in result.stdout
    assert "block by block" in result.stdout and result.stderr == ""
    lines = result.stdout.partition("\nmemory")[2].splitlines()[1:]
    assert lines and all(line[19] == " " != line[20] for line in lines), "columns do not line up"


@pytest.mark.parametrize("command", ["info", "components", "elements"])
def test_what_a_file_says_is_shown_on_one_line_and_does_nothing(folder, tmp_path, command):
    title = "[/red] [bold]a\x1b[31m\nb $\\x$ %s{0}"
    path = tmp_path / "odd [red]\x1b[31m\nname.nc"
    save_dataset(open_dataset(folder / "denoised.zarr").assign_attrs(title=title), path)
    result = run(command, path)
    assert "\x1b" not in result.stdout + result.stderr
    if command == "info":
        assert r"[/red] [bold]a\x1b[31m b $\x$ %s{0}" in result.stdout


def test_info_json(folder):
    result = run("info", folder / "phantom.zarr", "--json")
    found = json.loads(result.stdout)
    assert found["shape"] == [20, 24, 80] and found["measurement"]["beam_energy"] == 200
    assert found["memory"]["at_least"] < found["memory"]["at_best"]
    assert found["total_counts"] == float(open_dataset(folder / "phantom.zarr").counts.sum())


def test_info_by_frame(shared_data):
    path = shared_data / "jeol_tem_64x64.pts"
    part = json.loads(run("info", path, "--by-frame", "--json", "--frames", "-2:").stdout)
    assert [record["frame"] for record in part] == [48, 49]
    last = sum(record["counts"] for record in part)
    table = run("info", path, "--by-frame").stdout.splitlines()
    assert re.match(rf" *48-49 +{last:,} ± {last**0.5:,.0f} ", table[-3])
    # Carbon grows under the beam, oxygen next to not.
    change = dict(zip(re.split("  +", table[0].strip()), re.split("  +", table[-2].strip())))
    assert change["frame"] == "change" and change["C Ka"] == "+103.0 ± 0.6 %"


def test_info_json_is_json_for_nan(tmp_path):
    counts = np.full((3, 4, 5), np.nan, np.float32)
    save_dataset(make_cube(counts, energy=np.arange(1, 6)), tmp_path / "a.nc")
    result = run("info", tmp_path / "a.nc", "--json")
    found = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert found["total_counts"] is None and "NaN" in result.stderr


@pytest.mark.parametrize("suffix", [".zarr", ".nc", ".hspy"])
def test_convert(folder, tmp_path, suffix):
    result = run("convert", folder / "phantom.zarr", tmp_path / f"a{suffix}")
    assert result.stdout == "" and f"a{suffix}" in result.stderr
    run("convert", tmp_path / f"a{suffix}", tmp_path / "back.nc")
    back = open_dataset(tmp_path / "back.nc")
    original = open_dataset(folder / "phantom.zarr")
    np.testing.assert_array_equal(back.counts, original.counts)
    np.testing.assert_allclose(back.energy, original.energy)


def test_denoise_prints_what_it_kept(folder, tmp_path):
    out = tmp_path / "o.nc"
    result = run(
        "denoise", folder / "phantom.zarr", "-o", out, "--keep", "1-3,5", "--energy", "0.2:"
    )
    assert re.search(r"^Components kept +4 of \d+: 1-3, 5$", result.stdout, re.M)
    lines = result.stdout.splitlines()
    assert len(lines) <= 15 and max(map(len, lines)) <= 80
    (line,) = re.findall(r"^Remaining error +(\S+) ± (\S+) %: cross-validated", result.stdout, re.M)
    assert 0 < float(line[1]) < 10
    # Printed with as many digits as the standard deviation allows.
    error, stddev = 100 * open_dataset(out).held_out_error.values
    np.testing.assert_allclose(
        [float(part.replace("−", "-")) for part in line], [error, stddev], atol=stddev / 2
    )
    assert "wrote" in result.stderr and "wrote" not in result.stdout
    assert "\x1b" not in result.stdout + result.stderr


def test_components(folder):
    table = run("components", folder / "denoised.zarr").stdout.splitlines()
    heads = "component of total probability statistic effect left outcome keep"
    assert table[0].split() == heads.split()
    rows = json.loads(run("components", folder / "denoised.zarr", "--json").stdout)
    assert len(rows) == 30 <= len(table) - 2
    kept = [row["component"] for row in rows if row["keep"]]
    assert f"{len(kept)} of 30 components kept: {', '.join(map(str, kept))}" in table
    assert set(rows[0]) == {
        "component",
        "variance",
        "variance_ratio",
        "signal_probability",
        "spatial_statistic",
        "effect_size",
        "signal_kept",
        "outcome",
        "keep",
    }


def test_report(folder, tmp_path):
    result = run("report", folder / "denoised.zarr", "-o", tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert result.stdout == ""
    told = json.loads(run("info", folder / "denoised.zarr", "--json").stdout)
    assert f"<code>{told['result']}</code>" in page


def test_nothing_is_replaced_unasked(folder, tmp_path):
    out = tmp_path / "o.nc"
    out.write_text("mine")
    for command in (
        ["simulate", out],
        ["convert", folder / "phantom.zarr", out],
        ["denoise", folder / "phantom.zarr", "-o", out],
    ):
        result = run(*command, status=1)
        assert "o.nc exists; add --overwrite" in result.stderr and result.stdout == ""
        assert out.read_text() == "mine"
    run("convert", folder / "phantom.zarr", out, "--overwrite")
    assert open_dataset(out).counts.shape == (20, 24, 80)


@pytest.mark.parametrize("command", ["report", "demo"])
def test_a_folder_of_other_things_is_never_replaced(folder, tmp_path, command):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    args = [folder / "denoised.zarr"] if command == "report" else []
    for more in ([], ["--overwrite"]):
        run(command, *args, "-o", tmp_path / "out", *more, status=1)
        assert os.listdir(tmp_path / "out") == ["thesis.tex"]


def test_quiet_is_silent(folder, tmp_path):
    counts = np.random.default_rng(0).poisson(0.1, (8, 9, 20))
    save_dataset(make_cube(counts, energy=np.arange(1, 21) * 0.1), tmp_path / "a.nc")
    for command in (
        ["simulate", tmp_path / "p.nc", "--shape", "8x9", "--channels", 60, "--energy-width", 0.2],
        ["convert", folder / "phantom.zarr", tmp_path / "c.nc"],
        # Too sparse, which is worth a warning otherwise.
        ["denoise", tmp_path / "a.nc", "-o", tmp_path / "d.nc"],
    ):
        result = run("-q", *command)
        assert result.output == ""
    assert "components kept" in run("-q", "components", folder / "denoised.zarr").stdout


def test_a_warning_is_one_line_on_stderr(tmp_path):
    counts = np.random.default_rng(0).poisson(0.1, (8, 9, 20))
    save_dataset(make_cube(counts, energy=np.arange(1, 21) * 0.1), tmp_path / "a.nc")
    result = run("denoise", tmp_path / "a.nc", "-o", tmp_path / "d.nc", "--keep", "2-3")
    warnings = [line for line in result.stderr.splitlines() if line.startswith("Warning: ")]
    assert len(warnings) == 1 and "omponent 1" in warnings[0]
    # Besides it what is written, and that it was.
    assert len(result.stderr.splitlines()) == 3 and "Warning" not in result.stdout


def test_verbose_gives_times(folder, tmp_path):
    result = run("-v", "convert", folder / "phantom.zarr", tmp_path / "c.nc")
    assert re.search(r"^reading: [0-9.]+ s$", result.stderr, re.MULTILINE)


def test_no_bars_where_stderr_is_no_terminal(folder, tmp_path):
    args = ["denoise", str(folder / "phantom.zarr"), "-o", str(tmp_path / "d.nc"), *QUICK]
    result = subprocess.run([*PROGRAM, *args], capture_output=True, text=True)
    assert result.returncode == 0
    # The phantom is sparse at its ends, which may be told; nothing else.
    lines = [line for line in result.stderr.splitlines() if not line.startswith("Warning: ")]
    size, done = lines
    assert re.fullmatch(r"writing d\.nc, about [\d.]+ [kM]B", size)
    assert done == f"wrote {tmp_path / 'd.nc'}"


def in_terminal(*args):
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execv(sys.executable, [*PROGRAM, *map(str, args)])
    output = b""
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:
            break
        if not data:
            break
        output += data
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output.decode()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_bars_in_a_terminal(folder, tmp_path):
    status, output = in_terminal(
        "denoise", folder / "phantom.zarr", "-o", tmp_path / "d.nc", *QUICK
    )
    assert status == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)
    for stage in ("reading", "weights", "components", "selection", "writing"):
        assert re.search(rf"{stage} +━+ 0:00:\d\d +100%", plain), stage
    assert plain.rstrip().splitlines()[-1] == f"wrote {tmp_path / 'd.nc'}"
    assert "\x1b[?25h" in output, "the cursor stays hidden"


def test_reader_of_stdout_that_goes_away(folder):
    command = f"{sys.executable} -m edxdenoise components {folder}/denoised.zarr | head -1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert result.stderr == "" and len(result.stdout.splitlines()) == 1


@pytest.mark.filterwarnings("ignore::edxdenoise.EdxdenoiseWarning")
def test_demo_is_right_warns_of_nothing_and_can_be_made_again_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("demo")
    assert "arning" not in result.stderr
    assert re.search(r"^Components kept +\d+ of \d+: 1-", result.stdout, re.M)
    assert os.listdir(tmp_path) == ["demo"]
    made = {"phantom.zarr", "denoised.zarr", "report"}
    assert set(os.listdir(tmp_path / "demo")) - {".edxdenoise"} == made
    (written,) = re.findall("^wrote (.+) and (.+)$", result.stderr, re.M)
    assert all((tmp_path / name).exists() for name in written)
    assert "--overwrite" in run("demo", status=1).stderr
    first = open_dataset(tmp_path / "demo" / "denoised.zarr")
    assert not first.attrs.get("warnings") and first.attrs["notes"]
    table = region_table(first)
    whole = table[table.kind == "map"].set_index("quantity")
    assert {"I/Pb", "N/Pb"} < set(whole.index)
    assert ((whole.value - whole.true).abs() < 3 * whole.stddev).all(), whole
    recipe = Recipe.from_toml(first.attrs["recipe"])
    assert recipe.input.files == ("phantom.zarr",)
    monkeypatch.chdir(tmp_path / "demo")
    second = run_recipe(
        Recipe(recipe.input, denoise=Denoise(shrink=False), output=Output("again.nc"))
    )
    np.testing.assert_array_equal(first.component_keep, second.component_keep)
