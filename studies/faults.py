"""Attack the program with damaged files, interruptions, full disks and hostile models.

    python studies/faults.py --seeds 30 --data DIR --csv

Cases run in separate processes, many in one until that crashes or has to be ended. "right" is the
true result, "message" one clear line, "warned" a changed result with a warning, "WRONG" a changed
result without one, "UNEXPECTED" an error that nobody foresaw, "CRASH" a process ended by a signal,
"ENDLESS" one that had to be ended, "LOST" that neither the old nor the new result is there, or
that something was left behind. Cases are the same for the same seed, but for the moments of
interruptions "by the clock".
"""

from __future__ import annotations

import argparse
import collections
import ctypes
import functools
import hashlib
import io
import json
import linecache
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cloudpickle
import dask
import numpy as np
from _study import RESULTS, kept_rows, write_csv

from edxdenoise import quantify, simulate
from edxdenoise.blocks import load
from edxdenoise.config import Denoise, Input, Output
from edxdenoise.cube import make_cube
from edxdenoise.errors import EdxdenoiseError, recorded
from edxdenoise.io import (
    atomic,
    check_output,
    frame_events,
    open_dataset,
    read_cube,
    save,
    save_dataset,
)
from edxdenoise.io.events import Events
from edxdenoise.io.signals import open_file
from edxdenoise.recipe import Recipe
from edxdenoise.report import write_report
from edxdenoise.review import Review, state
from edxdenoise.run import run_recipe
from edxdenoise.training.labels import add_labels, read_labels

PATH = RESULTS / "faults.csv"
OUTCOMES = ("right", "message", "warned", "WRONG", "UNEXPECTED", "CRASH", "ENDLESS", "LOST")
VENDORS = {
    "bruker_sem_dacite_22cpp.bcf": None,
    "small/bruker_over16bit.bcf": None,
    "jeol_tem_64x64.pts": None,
    "fept_core_shell.hspy": None,
    "small/phenom.elid": 4,
    "velox_v11.zip/Test SI 16x16 215 kx.emd": None,
    "edax_sem_256x231.zip/SEM_EDS_map.spd": None,
    "small/ripple_uncalibrated.raw": None,
}
SUFFIXES = (".zarr", ".nc", ".hspy")
# Lines of EDAX's map that are kept: it has 237 MB.
_EDAX_LINES = 8
_ENDLESS = 180.0
_PATIENCE = 30.0
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    ["edxdenoise.run", "edxdenoise.cli"]
    + ["distributed", "h5py", "pint", "netCDF4", "xraydb", "xarray.backends.zarr", "rsciio"]
)

# How a case ended (done, message, stopped, unexpected, crash or endless), its result or what was
# said, and the warnings.
Answer = tuple[str, Any, list[str]]


def forked(work: Callable[[], Any], *, kill_after: float | None = None, number: int = 0) -> Answer:
    """Answer of `work` in a separate process; its messages are not shown.

    With `kill_after`, the process gets signal `number` so many seconds after its work began.
    """
    (answer,) = forked_each(lambda case: work(), 1, kill_after=kill_after, number=number)
    return answer


def forked_each(
    work: Callable[[int], Any], count: int, *, kill_after: float | None = None, number: int = 0
) -> Iterator[Answer]:
    """Answers of ``work(0)`` to ``work(count - 1)`` in one process, and a new one after a crash.

    It is forked from a server without other threads, since a fork beside threads may wait for locks
    that nobody holds any more.
    """
    case = 0
    while case < count:
        receiver, sender = _PROCESSES.Pipe(duplex=False)
        child = _PROCESSES.Process(
            target=_be_child, args=(cloudpickle.dumps(work), case, count, sender)
        )
        child.start()
        sender.close()
        with receiver:
            try:
                assert receiver.poll(_ENDLESS), "no process could be started"
                receiver.recv_bytes()
                while case < count:
                    if not receiver.poll(_ENDLESS if kill_after is None else kill_after):
                        if kill_after is not None:
                            os.kill(child.pid, number)
                        if not receiver.poll(_ENDLESS):
                            child.kill()
                            yield "endless", "", []
                            break
                    yield pickle.loads(receiver.recv_bytes())
                    case += 1
            except EOFError:
                yield "crash", "", []
        case += 1
        child.join()
        child.close()


def _be_child(work: bytes, first: int, count: int, sender: Connection) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        function = pickle.loads(work)
        with dask.config.set({"scheduler": "sync", "edxdenoise.patience": _PATIENCE}):
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.default_int_handler)
            sender.send_bytes(b"ready")
            for case in range(first, count):
                sender.send_bytes(pickle.dumps(_answer(functools.partial(function, case))))
    finally:
        os._exit(0)


def _answer(work: Callable[[], Any]) -> Answer:
    with recorded(show=False) as issued:
        try:
            result = ("done", work())
        except EdxdenoiseError as error:
            result = ("message" if "\n" not in str(error) else "unexpected", str(error))
        except KeyboardInterrupt:
            result = ("stopped", "")
        except BaseException as error:
            result = ("unexpected", f"{type(error).__name__}: {error}")
    return *result, list(map(str, issued))


@contextmanager
def unprivileged() -> Iterator[None]:
    """Context in which access rights hold for this thread, also where it is root's."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    # From linux/capability.h: version 3 and this thread; CAP_DAC_OVERRIDE and _DAC_READ_SEARCH.
    header, capabilities = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, capabilities) == 0
    before = (ctypes.c_uint32 * 6)(*capabilities)
    capabilities[0] &= ~0b110
    assert libc.capset(header, capabilities) == 0
    try:
        yield
    finally:
        assert libc.capset(header, before) == 0


def judge(answer: Answer, truth: Answer) -> str:
    """Outcome of a case that should end as `truth` did."""
    kind, value, issued = answer
    if kind != "done":
        if kind == "unexpected":
            print(value[:600], file=sys.stderr)
        return {"message": "message", "unexpected": "UNEXPECTED", "endless": "ENDLESS"}.get(
            kind, "CRASH"
        )
    if value == truth[1]:
        return "right"
    return "warned" if set(issued) - set(truth[2]) else "WRONG"


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    """`content` with one bit changed."""
    changed = bytearray(content)
    changed[rng.integers(len(changed))] ^= 1 << rng.integers(8)
    return bytes(changed)


def counts_of(path: Path, chosen: int | None) -> tuple[int, int]:
    """Total of a file's counts, and a sum that moves with each of them."""
    counts = np.asarray(read_cube(path, signal=chosen).counts.data)
    marks = np.random.default_rng(0).integers(1, 1 << 20, counts.shape[2])
    rows = np.arange(1, counts.shape[0] * counts.shape[1] + 1) % 8191
    per_pixel = counts.reshape(-1, counts.shape[2]).astype(np.int64) @ marks
    return int(counts.sum(dtype=np.uint64)), int((per_pixel * rows).sum())


def vendor_files(data: Path, folder: Path) -> Iterator[tuple[Path, int | None]]:
    """Vendors' files with what lies beside them, in folders of their own."""
    for name, chosen in VENDORS.items():
        place = folder / name.rsplit("/", 1)[-1].rsplit(".", 1)[-1]
        place = Path(tempfile.mkdtemp(prefix=place.name, dir=folder))
        if ".zip/" in name:
            archive, inner = name.split("/", 1)
            with zipfile.ZipFile(data / archive) as packed:
                path = Path(packed.extract(inner, place))
                if path.suffix == ".spd":
                    packed.extract(inner.replace(".spd", ".spc"), place)
                    keep_lines(path, _EDAX_LINES)
        else:
            path = place / Path(name).name
            shutil.copyfile(data / name, path)
            if path.suffix == ".raw":
                shutil.copyfile((data / name).with_suffix(".rpl"), path.with_suffix(".rpl"))
        yield path, chosen


def keep_lines(path: Path, lines: int) -> None:
    """Cut a .spd after some lines, and put their sum spectrum into its .spc."""
    from rsciio.edax import file_reader
    from rsciio.edax._api import get_spd_dtype_list

    header = np.fromfile(path, dtype=get_spd_dtype_list(), count=1)
    line = [int(header[name][0]) for name in ("nPoints", "nChannels", "countBytes")]
    header["nLines"] = lines
    with open(path, "r+b") as file:
        file.write(header.tobytes())
        file.truncate(int(header["dataOffset"][0]) + lines * int(np.prod(line)))
    sums = np.asarray(file_reader(str(path))[0]["data"]).sum(axis=(0, 1))
    beside = path.with_suffix(".spc")
    spectrum = np.asarray(file_reader(str(beside))[0]["data"], "<i4")
    changed = np.zeros_like(spectrum)
    changed[: len(sums)] = sums
    content = beside.read_bytes()
    assert content.count(spectrum.tobytes()) == 1
    beside.write_bytes(content.replace(spectrum.tobytes(), changed.tobytes()))


def attack_vendors(data: Path, folder: Path, seeds: int, seed: int) -> Iterator[tuple[str, str]]:
    """Cut and flip every vendor's file `seeds` times."""
    for path, chosen in vendor_files(data, folder):
        content = path.read_bytes()
        read = path.with_suffix(".rpl") if path.suffix == ".raw" else path

        def work(case: int) -> tuple[int, int]:
            rng = np.random.default_rng([seed, case])
            damaged = [content, content[: rng.integers(1, len(content))], flipped(content, rng)]
            path.write_bytes(damaged[0 if case == 0 else 1 + case % 2])
            return counts_of(read, chosen)

        answers = forked_each(work, 1 + 2 * seeds)
        truth = next(answers)
        assert truth[0] == "done", truth
        for case, answer in enumerate(answers, 1):
            outcome = judge(answer, truth)
            if outcome not in ("right", "message", "warned"):
                print(path.name, case, outcome, answer, truth, file=sys.stderr)
            yield f"{'flipped' if case % 2 else 'cut'} {path.suffix}", outcome


def result_of(path: Path) -> tuple[str, ...]:
    """Digest of all variables and attributes of an output."""
    if path.suffix == ".hspy":
        return tuple(map(str, counts_of(path, None)))
    ds = load(open_dataset(path))
    found = [np.asarray(ds[name]).tobytes() for name in sorted(ds.variables, key=str)]
    found.append(repr(sorted(ds.attrs.items())).encode())
    return tuple(hashlib.sha256(part).hexdigest() for part in found)


def small_result(seed: int = 0) -> Any:
    """A denoised phantom."""
    from edxdenoise import denoise

    phantom = simulate("solar-cell", shape=(33, 50), channels=80, energy_width=0.16, seed=seed)
    recipe = Denoise(components=5, keep="1-3", shrink=False, subspace="pixel")
    return denoise(phantom[["counts"]].compute(), recipe)


def attack_outputs(folder: Path, seeds: int, seed: int) -> Iterator[tuple[str, str]]:
    """Flip, cut or remove parts of our own outputs, then read all and print the components."""
    with recorded(show=False):
        result = small_result()
    for suffix in SUFFIXES:
        source, path = folder / f"source{suffix}", folder / f"damaged{suffix}"
        save_dataset(result, source)

        def work(case: int) -> tuple[Answer, str]:
            _copy(source, path)
            if case:
                _damage(path, np.random.default_rng([seed, case]))
            shown = "right" if suffix == ".hspy" else _command("components", path)
            return _answer(lambda: result_of(path)), shown

        answers = forked_each(work, 1 + seeds)
        _, (truth, _), _ = next(answers)
        assert truth[0] == "done", truth
        for answer in answers:
            if answer[0] != "done":
                yield f"damaged {suffix}", judge(answer, truth)
                continue
            read, shown = answer[1]
            outcome = judge(read, truth)
            if outcome == "WRONG":
                print(path.name, read, file=sys.stderr)
            yield f"damaged {suffix}", outcome
            if suffix != ".hspy":
                yield f"components {suffix}", shown


def _damage(path: Path, rng: np.random.Generator) -> None:
    parts = sorted(p for p in path.rglob("*") if p.is_file()) or [path]
    part = parts[rng.integers(len(parts))]
    content = part.read_bytes()
    match rng.integers(3 if path.is_dir() else 2):
        case 0:
            part.write_bytes(flipped(content, rng))
        case 1:
            part.write_bytes(content[: rng.integers(len(content))])
        case 2:
            part.unlink()


def _copy(source: Path, path: Path) -> None:
    _remove(path)
    (shutil.copytree if source.is_dir() else shutil.copyfile)(source, path)


def _command(*words: object) -> str:
    """Outcome of a command in this process: exit 0, or one line."""
    from edxdenoise.cli import main

    err, out, status = io.StringIO(), io.StringIO(), 0
    with redirect_stderr(err), redirect_stdout(out):
        try:
            main([str(word) for word in words], prog_name="edxdenoise")
        except SystemExit as error:
            status = int(error.code or 0)
    text = err.getvalue() + out.getvalue()
    if re.search("Error: unexpected|Traceback|\x1b", text):
        raise AssertionError(f"{words}: {text[-600:]}")
    return "message" if status else "right"


def _outcomes(work: Callable[[int], str], count: int) -> Iterator[str]:
    """Outcomes that `work` gives itself, or how its process ended."""
    for answer in forked_each(work, count):
        yield answer[1] if answer[0] == "done" else judge(answer, answer)


def frames_of(path: Path) -> tuple[str, ...]:
    """Digest of the counts of every frame, and of some frames together."""
    found = frame_events(path).by_frame(), np.asarray(read_cube(path, frames=(1, 3)).counts)
    return tuple(hashlib.sha256(part.tobytes()).hexdigest() for part in found)


def signals_of(path: Path) -> tuple[str, ...]:
    """Digest of all signals of a file."""
    parts = [np.asarray(signal.data).tobytes() for signal in open_file(path)]
    return tuple(hashlib.sha256(part).hexdigest() for part in parts)


def attack_frames(folder: Path, seeds: int, seed: int) -> Iterator[tuple[str, str]]:
    """Damage a .zarr that keeps frames, and a .hspy with maps, as `attack_outputs` does."""
    frames = np.random.default_rng(seed).poisson(0.1, (6, 20, 20, 50)).astype(np.uint8)
    places = np.argwhere(frames).repeat(frames[frames > 0], axis=0).T
    pixel = places[1] * 20 + places[2]
    events = Events.of_places(pixel, places[3], places[0], frames.shape[1:], len(frames))
    ds = make_cube(frames.sum(axis=0, dtype=np.uint8), energy=0.1 * np.arange(1, 51))
    with recorded(show=False):
        maps = quantify(small_result(), {"I_La": 3.4, "Pb_La": 4.4})
    for kind, content, read in (
        ("frames .zarr", ds.merge(events.to_dataset()), frames_of),
        ("maps .hspy", maps, signals_of),
    ):
        suffix = kind.split()[1]
        source, path = folder / f"source{suffix}", folder / f"damaged{suffix}"
        save_dataset(content, source)

        def work(case: int) -> Answer:
            _copy(source, path)
            if case:
                _damage(path, np.random.default_rng([seed, case]))
            return _answer(lambda: read(path))

        answers = forked_each(work, 1 + seeds)
        _, truth, _ = next(answers)
        assert truth[0] == "done", truth
        for answer in answers:
            yield kind, judge(answer[1] if answer[0] == "done" else answer, truth)


def attack_resumed(folder: Path, seeds: int, seed: int) -> Iterator[tuple[str, str]]:
    """Damage what an interrupted job has kept, and go on with --resume."""
    source, out, kept = folder / "map.zarr", folder / "out.zarr", folder / "kept"
    phantom = simulate("solar-cell", shape=(33, 50), channels=80, energy_width=0.16, seed=seed)
    save_dataset(phantom[["counts"]], source)
    recipe = Recipe(
        Input((str(source),)),
        denoise=Denoise(components=5, select="elbow"),
        output=Output(str(out)),
    )
    stages = out.with_name("out.zarr.stages")
    with recorded(show=False), patch("edxdenoise.run.save_dataset", side_effect=KeyboardInterrupt):
        with suppress(KeyboardInterrupt):
            run_recipe(recipe, resume=True)
    stages.rename(kept)

    def work(case: int) -> Answer:
        _remove(out)
        _copy(kept, stages)
        if case:
            _damage(stages, np.random.default_rng([seed, case]))

        def resumed() -> tuple[str, ...]:
            run_recipe(recipe, resume=True)
            assert not stages.exists()
            return result_of(out)

        answer = _answer(resumed)
        _remove(stages)
        return answer

    answers = forked_each(work, 1 + seeds)
    _, truth, _ = next(answers)
    assert truth[0] == "done", truth
    for answer in answers:
        yield "resumed", judge(answer[1] if answer[0] == "done" else answer, truth)


def attack_recipes(folder: Path, seeds: int, seed: int) -> Iterator[tuple[str, str]]:
    """Change, repeat, remove and nest parts of a recipe."""
    from edxdenoise.run import demo_recipe

    text = demo_recipe().to_toml().replace("phantom.zarr", "absent.zarr")
    odd = ['"\\u0000"', "1e308", "-1", "nan", "[]", "{}", "true", '"x"', "[[" * 50 + "]]" * 50, "0"]

    def work(case: int) -> str:
        rng = np.random.default_rng([seed, case])
        lines = text.splitlines()
        place = int(rng.integers(len(lines)))
        key = lines[place].split("=")[0]
        match int(rng.integers(4)):
            case 0:
                lines[place] = f"{key}= {odd[rng.integers(len(odd))]}"
            case 1:
                lines.insert(place, lines[place])
            case 2:
                del lines[place]
            case 3:
                lines[place] = flipped(lines[place].encode() or b"a", rng).decode("latin-1")
        (folder / "a.toml").write_text("\n".join(lines), encoding="utf-8")
        return _command("run", folder / "a.toml")

    yield from (("recipes", outcome) for outcome in _outcomes(work, seeds))


def attack_by_signals(folder: Path, seeds: int, seed: int) -> Iterator[tuple[str, str]]:
    """Stop or kill a process that replaces a result: the old or the new one stands there, whole.

    Half of the signals come at a line of the modules that write, half at a moment by the clock.
    """
    counts = np.random.default_rng(seed).integers(0, 9, (44, 50, 80), np.uint8)
    place = folder / "signals"
    place.mkdir()
    for suffix in SUFFIXES:
        path = place / f"out{suffix}"

        def write(value: int, number: int = 0, line: int = -1) -> int:
            ds = make_cube(counts.copy(), energy=np.arange(80.0)).chunk({"y": 11})
            ds["counts"][0, 0, 0] = value
            return _lines_run(lambda: save_dataset(ds, path, overwrite=True), number, line)

        write(0)
        start = time.monotonic()
        _, lines, _ = forked(lambda: write(0))
        usual = time.monotonic() - start
        before = 0
        for case in range(seeds):
            rng = np.random.default_rng([seed, case])
            number = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL][rng.integers(3)]
            new = (before + 1) % 200
            if case % 2:
                line = int(rng.integers(lines))
                answer = forked(lambda: write(new, number, line))
            else:
                moment = usual * rng.random()
                answer = forked(lambda: write(new), kill_after=moment, number=number)
            if number == signal.SIGKILL:
                # What it left is removed by the next that writes there.
                check_output(path, True, folder=suffix == ".zarr")
            found = read_cube(path).counts.values
            value = int(found[0, 0, 0])
            found[0, 0, 0] = counts[0, 0, 0]
            whole = value in (before, new) and np.array_equal(found, counts)
            alone = os.listdir(place) == [path.name]
            outcome = "right" if whole and alone else "LOST"
            if outcome != "right" or answer[0] in ("unexpected", "endless"):
                print(path.name, case, answer, value, before, os.listdir(place), file=sys.stderr)
            yield "signals", "right" if whole and alone else "LOST"
            if answer[0] in ("unexpected", "endless"):
                yield "signals", judge(answer, answer)
            before = value
            for name in os.listdir(place):
                if name != path.name:
                    _remove(place / name)
        _remove(path)


def _lines_run(work: Callable[[], None], number: int, line: int) -> int:
    """Send this process a signal when line number `line` of the modules that write is run.

    Returns how many lines were run in all.
    """
    files, run, sent = {atomic.__file__, save.__file__, state.__file__}, 0, False

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal run, sent
        if frame.f_code.co_filename not in files:
            return None
        code = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        # Where blocks begin and end, a tracer is called at moments at which Python hears no signal.
        if 0 <= line <= run and not sent and not code.startswith(("with ", "try:")):
            sent = True
            signal.raise_signal(number)
        run += 1
        return trace

    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(None)
    return run


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink(missing_ok=True)


def attack_by_interrupts(folder: Path, seeds: int, seed: int) -> Iterator[tuple[str, str]]:
    """Stop the command line at a moment from the start of Python to its end: one line is printed.

    "right" is a command that had ended.
    """
    source, path = folder / "map.zarr", folder / "out" / "map.zarr"
    path.parent.mkdir()
    ds = simulate("solar-cell", shape=(33, 50), channels=80, energy_width=0.16, seed=seed)
    save_dataset(ds[["counts"]], source)
    words = ["denoise", source, "-o", path, "--components", "5", "--keep", "1-3", "--no-shrink"]
    command = [sys.executable, "-m", "edxdenoise", "-q", *map(str, words)]
    start = time.monotonic()
    subprocess.run(command, capture_output=True, check=True)
    usual = time.monotonic() - start
    for case in range(seeds):
        rng = np.random.default_rng([seed, case])
        _remove(path)
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        number = [signal.SIGINT, signal.SIGTERM][rng.integers(2)]
        # Before it is heard, none of ours runs.
        while process.poll() is None and not _is_heard(process.pid, signal.SIGTERM):
            time.sleep(0.01)
        time.sleep(usual * rng.random())
        process.send_signal(number)
        _, text = process.communicate()
        if process.returncode == 0:
            yield "interrupts", "right"
        elif os.listdir(path.parent) not in ([], [path.name]):
            yield "interrupts", "LOST"
        elif re.fullmatch("Error: .*\n", text) and process.returncode == 128 + number:
            yield "interrupts", "message"
        else:
            print(case, process.returncode, text[-600:], file=sys.stderr)
            yield "interrupts", "UNEXPECTED"


def attack_programs(folder: Path, seeds: int, seed: int) -> Iterator[tuple[str, str]]:
    """Run the command line on damaged outputs in a separate process: it must print one line.

    What libraries say while Python ends is seen here alone.
    """
    with recorded(show=False):
        save_dataset(small_result(), folder / "result.zarr")
    ds = simulate("solar-cell", shape=(132, 100), channels=320, energy_width=0.04, seed=seed)
    save_dataset(ds[["counts"]].chunk({"y": 33}), folder / "map.zarr")
    path, out = folder / "damaged.zarr", folder / "out.nc"
    for case in range(seeds):
        names = ["components", "info", "convert"][case % 3]
        _copy(folder / ("map.zarr" if case % 3 else "result.zarr"), path)
        _damage(path, np.random.default_rng([seed, case]))
        words = [names, path, *([out] if names == "convert" else [])]
        command = [sys.executable, "-m", "edxdenoise", "-q", *map(str, words)]
        ended = subprocess.run(command, capture_output=True, text=True)
        if out.exists() and ended.returncode:
            outcome = "LOST"
        elif ended.returncode == 0 and not ended.stderr:
            outcome = "right"
        elif ended.returncode == 1 and re.fullmatch("Error: (?!unexpected).*\n", ended.stderr):
            outcome = "message"
        else:
            outcome = "CRASH" if ended.returncode < 0 else "UNEXPECTED"
            print(case, ended.returncode, ended.stderr[:600], file=sys.stderr)
        _remove(out)
        yield "programs", outcome


def _is_heard(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    (caught,) = re.findall(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)
    return bool(int(caught, 16) >> (number - 1) & 1)


# Examples that one process reads.
_BATCH = 50


def attack_by_fuzzing(data: Path, folder: Path, seeds: int, seed: int) -> Iterator[tuple[str, str]]:
    """Read files that Hypothesis has changed at one to four places, most of them in their headers.

    "right" is a file that was read, whatever its counts.
    """
    import tifffile

    from edxdenoise.io import write_msa
    from edxdenoise.io.read import read_spectra
    from edxdenoise.io.regions import read_regions
    from edxdenoise.quantification.k_factors import read_k_factors
    from edxdenoise.run import demo_recipe

    small = simulate("solar-cell", shape=(33, 50), channels=80, energy_width=0.16)[["counts"]]
    readers: dict[Path, Callable[[Path], Any]] = {}
    for suffix in (".nc", ".hspy"):
        save_dataset(small, folder / f"map{suffix}")
        readers[folder / f"map{suffix}"] = lambda path: counts_of(path, None)
    for path, chosen in vendor_files(data, folder):
        if path.suffix != ".raw":
            readers[path] = functools.partial(counts_of, chosen=chosen)
    polygon = {"type": "Polygon", "coordinates": [[[1, 1], [9, 1], [9, 9], [1, 1]]]}
    region = {"type": "Feature", "properties": {"name": "a"}, "geometry": polygon}
    energy = small["energy"].values
    texts = {
        "a.rpl": (data / "small" / "ripple_uncalibrated.rpl").read_text(),
        "a.toml": demo_recipe().to_toml(),
        "a.csv": "line,k_factor,stddev\nPb_La,4.374,0.2\nI_La,1.9,0.1\n",
        "a.json": json.dumps({"type": "FeatureCollection", "features": [region]}),
    }
    shutil.copyfile(data / "small" / "ripple_uncalibrated.raw", folder / "a.raw")
    for name, text in texts.items():
        (folder / name).write_text(text)
    write_msa(folder / "a.msa", small, np.arange(1.0, 81.0), title="a")
    tifffile.imwrite(folder / "a.tif", np.eye(33, 50, dtype=np.uint8))
    readers |= {
        folder / "a.rpl": lambda path: counts_of(path, None),
        folder / "a.toml": Recipe.from_file,
        folder / "a.csv": read_k_factors,
        folder / "a.json": lambda path: read_regions([str(path)], small),
        folder / "a.tif": lambda path: read_regions([str(path)], small),
        folder / "a.msa": lambda path: read_spectra(path, energy),
    }
    others = list(readers)
    with recorded(show=False):
        result = small_result()
    save_dataset(result, folder / "map.zarr")
    add_labels(folder / "labels.csv", folder / "map.zarr", {1: 1.0, 2: 0.0})
    Review(folder / "map.zarr").set_note(1, "a")
    readers |= {
        folder / "labels.csv": read_labels,
        folder / "map.zarr.review.json": lambda path: Review(folder / "map.zarr").choice,
        folder / "map.zarr" / "zarr.json": lambda path: result_of(path.parent),
        folder / "map.zarr" / "counts" / "zarr.json": lambda path: result_of(path.parents[1]),
    }
    contents = {path: path.read_bytes() for path in readers}

    def work(path: Path, batch: int) -> list[Answer]:
        path.write_bytes(contents[path])
        readers[path](path)
        return _fuzzed(path, contents[path], readers[path], seed + batch)

    # All files in turn, so that a run which is interrupted has tried each.
    for batch in range(-(-seeds // _BATCH)):
        for path in readers:
            answer = forked(functools.partial(work, path, batch))
            for each in answer[1] if answer[0] == "done" else [answer]:
                outcome = judge(each, each)
                if outcome not in ("right", "message"):
                    print(path.name, each, file=sys.stderr)
                yield f"fuzzed {path.suffix if path in others else path.name}", outcome
            path.write_bytes(contents[path])


def _fuzzed(path: Path, content: bytes, read: Callable[[Path], Any], seed: int) -> list[Answer]:
    import hypothesis
    from hypothesis import strategies as st

    places = st.one_of(st.integers(0, min(2000, len(content))), st.integers(0, len(content)))
    pieces = st.one_of(
        st.binary(max_size=8),
        st.sampled_from(
            [b"\0" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\x7f" * 8, b"-1", b"1e999"]
        ),
    )
    # Where, how many bytes are taken away, and what is put there.
    changes = st.lists(st.tuples(places, st.integers(0, 8), pieces), min_size=1, max_size=4)
    answers = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=_BATCH,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(changes)
    def attempt(changes: list[tuple[int, int, bytes]]) -> None:
        changed = content
        for place, taken, piece in changes:
            changed = changed[:place] + piece + changed[place + taken :]
        path.write_bytes(changed)
        kind, value, issued = _answer(lambda: read(path))
        answers.append((kind, value if kind != "done" else None, issued))

    attempt()
    return answers


def attack_disks(folder: Path, seeds: int, seed: int) -> Iterator[tuple[str, str]]:
    """Write to disks that are too small or read-only, and to folders without permission."""
    ds = simulate("solar-cell", shape=(132, 100), channels=160, energy_width=0.08, seed=seed)
    ds = ds[["counts"]]

    def work(case: int) -> str:
        size = f"size={4 * (1 + case // 3)}k"
        options = {8: "mode=555", 9: "ro"}.get(case % 10, size)
        with mounted(folder / "disk", options) as disk, unprivileged():
            answer = _answer(lambda: save_dataset(ds, disk / f"out{SUFFIXES[case % 3]}"))
            left = os.listdir(disk) if answer[0] != "done" else []
            return "LOST" if left else judge(answer, answer)

    yield from (("disks", outcome) for outcome in _outcomes(work, seeds))


@contextmanager
def mounted(disk: Path, options: str) -> Iterator[Path]:
    """Mount a small disk at the path given."""
    disk.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
    subprocess.run(mount, capture_output=True, check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def attack_pages(folder: Path, seeds: int, seed: int) -> Iterator[tuple[str, str]]:
    """Write reports, and save what was chosen in a review, where that is no longer possible.

    The disk becomes full, or, in every third case, may not be written to.
    """
    with recorded(show=False):
        result = small_result(seed)

    def work(case: int) -> str:
        room, denied = 1 << (2 + case // 2), case % 3 == 2
        with mounted(folder / "disk", "size=64m") as disk:
            path = disk / "map.zarr"
            if case % 2 == 0:
                save_dataset(result, path)
                review = Review(path)
            if denied:
                disk.chmod(0o555)
            elif case % 2 == 0:
                used = shutil.disk_usage(disk).used // 1024
                remount = ["mount", "-o", f"remount,size={used + room}k", str(disk)]
                subprocess.run(remount, capture_output=True, check=True)
            with unprivileged() if denied else nullcontext():
                if case % 2:
                    answer = _answer(lambda: write_report(result, disk / "report"))
                    left = answer[0] != "done" and os.listdir(disk)
                    return "LOST" if left else judge(answer, answer)
                answer = _answer(lambda: (review.set_keep(5, True), review.save()))
                # Saved, in the journal, or refused: then it is not shown as chosen either.
                again = Review(path).choice.keep
                kept = again == review.choice.keep and (answer[0] != "done" or 5 in again)
                load(open_dataset(path))
            known = {path.name, f"{path.name}.review.json", "labels.csv"}
            kept = kept and not set(os.listdir(disk)) - known
            return judge(answer, answer) if kept else "LOST"

    yield from (("pages", outcome) for outcome in _outcomes(work, seeds))


def attack_reviews(folder: Path, seeds: int, seed: int) -> Iterator[tuple[str, str]]:
    """Stop or kill a review that saves: what was chosen is in the file or in the journal."""
    with recorded(show=False):
        result = small_result(seed)
    for suffix in (".zarr", ".nc"):
        path = folder / f"map{suffix}"
        save_dataset(result, path)

        def choose(note: str, number: int = 0, line: int = -1) -> int:
            review = Review(path)
            # Nothing is computed again for a note.
            review.set_note(1, note)
            return _lines_run(review.save, number, line)

        _, lines, _ = forked(lambda: choose("first"))
        for case in range(seeds // 2):
            rng = np.random.default_rng([seed, case])
            number = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL][rng.integers(3)]
            line, note = int(rng.integers(lines)), f"note {case}"
            answer = forked(lambda: choose(note, number, line))
            try:
                load(open_dataset(path))
                whole = Review(path).choice.notes == {1: note}
            except EdxdenoiseError as error:
                answer, whole = ("unexpected", str(error), []), False
            outcome = "right" if whole else "LOST"
            if outcome == "LOST" or answer[0] in ("unexpected", "endless"):
                print(path.name, case, answer, os.listdir(folder), file=sys.stderr)
            yield "reviews", judge(answer, answer) if answer[0] == "endless" else outcome


def attack_names(folder: Path, seeds: int, seed: int) -> Iterator[tuple[str, str]]:
    """Odd names and titles, shown by `info`."""
    parts = ["[/red]", "[bold]", "\x1b[31m", "new\nline", "$\\x$", "%s{0}", "ü\u202e", "'\"`$(id)`"]
    ds = simulate("solar-cell", shape=(33, 50), channels=80, energy_width=0.16, seed=seed)
    ds = ds[["counts"]]

    def work(case: int) -> str:
        text = parts[case % len(parts)] + parts[case // len(parts) % len(parts)]
        path = folder / f"{text.replace('/', '_')}-{case}{SUFFIXES[case % 2]}"
        save_dataset(ds.assign_attrs(title=text), path)
        return _command("info", path)

    yield from (("names", outcome) for outcome in _outcomes(work, seeds))


def attack_by_models(folder: Path, seeds: int, seed: int) -> Iterator[tuple[str, str]]:
    """Network files that name code, at any depth, or unpack to gigabytes."""
    from edxdenoise.components.networks import MODELS, Classifier

    source = sorted(MODELS.glob("default-*.keras"))[0]
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    touched, path = folder / "touched", folder / "evil.keras"

    def work(case: int) -> str:
        rng = np.random.default_rng([seed, case])
        config = json.loads(members["config.json"])
        layers = config["config"]["layers"]
        layer = layers[rng.integers(len(layers))]
        evil = {"class_name": "__lambda__", "module": "builtins", "config": {"code": "x"}}
        match case % 6:
            case 0:
                layer["class_name"] = "Lambda"
            case 1:
                layer["module"] = "os"
            case 2:
                layer["config"]["kernel_initializer"] = evil
            case 3:
                layer["config"]["nested"] = [{"deep": {**evil, "registered_name": "a>b"}}]
            case 4:
                layer["registered_name"] = "mine>Layer"
            case 5:
                layer["config"]["fn"] = {
                    "class_name": "function",
                    "module": "os",
                    "config": f"system:touch {touched}",
                    "registered_name": "system",
                }
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                if name != "config.json":
                    archive.writestr(name, content)
            if case % 7 == 6:
                archive.writestr("padding", bytes(400_000_000))
            archive.writestr("config.json", json.dumps(config))
        answer = _answer(lambda: Classifier.load([path]).kind)
        done = touched.exists() or answer[0] == "done"
        return "WRONG" if done else judge(answer, answer)

    yield from (("models", outcome) for outcome in _outcomes(work, seeds))


def main() -> None:
    """Run the attacks and print how each class of them ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=30, help="cases per file or class")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="folder of vendors' files")
    parser.add_argument("--only", action="append", help="these attacks, such as outputs")
    parser.add_argument("--csv", action="store_true", help=f"write these rows of {PATH.name}")
    arguments = parser.parse_args()
    n, seed = arguments.seeds, arguments.seed
    attacks: dict[str, Callable[[Path], Iterator[tuple[str, str]]]] = {
        "outputs": lambda folder: attack_outputs(folder, 5 * n, seed),
        "frames": lambda folder: attack_frames(folder, 2 * n, seed),
        "resumed": lambda folder: attack_resumed(folder, 2 * n, seed),
        "recipes": lambda folder: attack_recipes(folder, 7 * n, seed),
        "signals": lambda folder: attack_by_signals(folder, 7 * n // 3, seed),
        "programs": lambda folder: attack_programs(folder, 2 * n, seed),
        "interrupts": lambda folder: attack_by_interrupts(folder, n, seed),
        "disks": lambda folder: attack_disks(folder, n, seed),
        "pages": lambda folder: attack_pages(folder, n, seed),
        "reviews": lambda folder: attack_reviews(folder, n, seed),
        "names": lambda folder: attack_names(folder, n, seed),
        "models": lambda folder: attack_by_models(folder, n, seed),
    }
    if arguments.data:
        attacks["fuzzing"] = lambda folder: attack_by_fuzzing(arguments.data, folder, 5 * n, seed)
        attacks["vendors"] = lambda folder: attack_vendors(arguments.data, folder, 4 * n // 3, seed)
    head = ["attack", "cases", *OUTCOMES, "time (s)"]
    for name, attack in attacks.items():
        if arguments.only and name not in arguments.only:
            continue
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            rows, whole = counted(attack(Path(folder)))
        for row in [head, *rows]:
            print("".join(f"{cell:>{18 if not i else 11}}" for i, cell in enumerate(row)))
        if arguments.csv:
            # Attacks that were not run this time stay.
            write_csv(PATH, [head, *sorted(kept_rows(PATH, rows))])
        if not whole:
            break


def counted(cases: Iterator[tuple[str, str]]) -> tuple[list[list[str]], bool]:
    """Count outcomes and seconds of each class, and whether nobody interrupted it."""
    table: dict[str, collections.Counter[str]] = {}
    seconds: collections.Counter[str] = collections.Counter()
    whole = True
    begin = time.monotonic()
    try:
        for case, outcome in cases:
            seconds[case] += time.monotonic() - begin
            begin = time.monotonic()
            table.setdefault(case, collections.Counter())[outcome] += 1
    except KeyboardInterrupt:
        # What was found so far is to be written.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        whole = False
    rows = [
        [
            case,
            str(found.total()),
            *(str(found[outcome]) for outcome in OUTCOMES),
            f"{seconds[case]:.0f}",
        ]
        for case, found in table.items()
    ]
    return rows, whole


if __name__ == "__main__":
    main()
