"""Attack the program with damaged files, interruptions, full disks and hostile models.

    python studies/faults.py --seeds 30 --data DIR --csv

Every case runs in a separate process. "right" is the true result, "message" one clear line,
"warned" a changed result with a warning, "WRONG" a changed result without one, "UNEXPECTED" an
error that nobody foresaw, "CRASH" a process ended by a signal, "ENDLESS" one that had to be ended,
"LOST" that neither the old nor the new result is there, or that something was left behind.
"""

from __future__ import annotations

import argparse
import collections
import csv
import hashlib
import io
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import numpy as np

from edxdenoise import simulate
from edxdenoise.compute import load
from edxdenoise.errors import EdxdenoiseError, recorded
from edxdenoise.io import open_dataset, read_cube, save_dataset

RESULTS = Path(__file__).parent / "results" / "faults.csv"
OUTCOMES = ("right", "message", "warned", "WRONG", "UNEXPECTED", "CRASH", "ENDLESS", "LOST")
VENDORS = {
    "bruker_sem_dacite_22cpp.bcf": None,
    "small/bruker_over16bit.bcf": None,
    "jeol_tem_64x64.pts": None,
    "fept_core_shell.hspy": None,
    "small/phenom.elid": 4,
    "velox_v11.zip/Test SI 16x16 215 kx.emd": None,
    "edax_sem_256x231.zip/SEM_EDS_map.spd": None,
}
SUFFIXES = (".zarr", ".nc", ".hspy")
_ENDLESS = 180.0
_PATIENCE = 20.0
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    ["edxdenoise.jobs", "edxdenoise.cli", "edxdenoise.summary"]
    + ["distributed", "h5py", "netCDF4", "xraydb", "xarray.backends.zarr", "rsciio"]
)


def forked(work: Callable[[], Any], *, kill_after: float | None = None, number: int = 0) -> Any:
    """Result of `work` in a separate process, or how that ended; its messages are not shown.

    With `kill_after`, the process gets signal `number` so many seconds after its work began. It is
    forked from a server without other threads, since a fork beside threads may wait for locks that
    nobody holds any more.
    """
    receiver, sender = _PROCESSES.Pipe(duplex=False)
    child = _PROCESSES.Process(target=_be_child, args=(cloudpickle.dumps(work), sender))
    child.start()
    sender.close()
    content = b""
    with receiver, suppress(EOFError):
        assert receiver.poll(_ENDLESS), "no process could be started"
        receiver.recv_bytes()
        if not receiver.poll(_ENDLESS if kill_after is None else kill_after):
            if kill_after is not None:
                os.kill(child.pid, number)
            if not receiver.poll(_ENDLESS):
                content = pickle.dumps(("endless", "", []))
                child.kill()
        content = content or receiver.recv_bytes()
    child.join()
    child.close()
    return pickle.loads(content) if content else ("crash", "", [])


def _be_child(work: bytes, sender: Connection) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        function = pickle.loads(work)
        with dask.config.set({"scheduler": "sync", "edxdenoise.patience": _PATIENCE}):
            with recorded(show=False) as issued:
                try:
                    signal.signal(signal.SIGINT, signal.default_int_handler)
                    signal.signal(signal.SIGTERM, signal.default_int_handler)
                    sender.send_bytes(b"ready")
                    result = ("done", function())
                except EdxdenoiseError as error:
                    result = ("message" if "\n" not in str(error) else "unexpected", str(error))
                except KeyboardInterrupt:
                    result = ("stopped", "")
                except BaseException as error:
                    result = ("unexpected", f"{type(error).__name__}: {error}")
        sender.send_bytes(pickle.dumps((*result, list(map(str, issued)))))
    finally:
        os._exit(0)


def judge(answer: tuple[str, Any, list[str]], truth: Any) -> str:
    """Outcome of a case whose result should be `truth`."""
    kind, value, issued = answer
    if kind != "done":
        return {"message": "message", "unexpected": "UNEXPECTED", "endless": "ENDLESS"}.get(
            kind, "CRASH"
        )
    if value == truth:
        return "right"
    return "warned" if issued else "WRONG"


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
    """Vendors' files, those in archives unpacked."""
    for name, chosen in VENDORS.items():
        path = data / name
        if ".zip/" in name:
            archive, inner = name.split("/", 1)
            with zipfile.ZipFile(data / archive) as packed:
                path = Path(packed.extract(inner, folder))
        if path.exists():
            yield path, chosen


def attack_vendors(data: Path, folder: Path, seeds: int, seed: int) -> Iterator[tuple[str, str]]:
    """Cut and flip every vendor's file `seeds` times."""
    rng = np.random.default_rng(seed)
    for source, chosen in vendor_files(data, folder):
        kind, truth, _ = forked(lambda: counts_of(source, chosen))
        assert kind == "done", truth
        content = source.read_bytes()
        path = folder / "damaged" / source.name
        path.parent.mkdir(exist_ok=True)
        for _ in range(seeds):
            path.write_bytes(content[: rng.integers(1, len(content))])
            yield f"cut {source.suffix}", judge(forked(lambda: counts_of(path, chosen)), truth)
            path.write_bytes(flipped(content, rng))
            yield f"flipped {source.suffix}", judge(forked(lambda: counts_of(path, chosen)), truth)


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
    from edxdenoise import Denoise, denoise

    phantom = simulate("solar-cell", shape=(33, 50), channels=80, energy_width=0.16, seed=seed)
    recipe = Denoise(components=5, keep="1-3", shrink=False, subspace="pixel")
    return denoise(phantom[["counts"]].compute(), recipe)


def attack_outputs(folder: Path, seeds: int, seed: int) -> Iterator[tuple[str, str]]:
    """Flip, cut or remove parts of our own outputs, then read all and print the components."""
    rng = np.random.default_rng(seed)
    with recorded(show=False):
        result = small_result()
    for suffix in SUFFIXES:
        source, path = folder / f"source{suffix}", folder / f"damaged{suffix}"
        save_dataset(result, source)
        kind, truth, _ = forked(lambda: result_of(source))
        assert kind == "done", truth
        for _ in range(seeds):
            _copy(source, path)
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
            yield f"damaged {suffix}", judge(forked(lambda: result_of(path)), truth)
            if suffix != ".hspy":
                yield f"damaged {suffix}", _command("components", path)


def _copy(source: Path, path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)
    (shutil.copytree if source.is_dir() else shutil.copyfile)(source, path)


def _command(*words: object) -> str:
    """Outcome of a command: exit 0, or one line."""

    def work() -> tuple[int, str]:
        from edxdenoise.cli import main

        err, out = io.StringIO(), io.StringIO()
        with redirect_stderr(err), redirect_stdout(out):
            try:
                main([str(word) for word in words], prog_name="edxdenoise")
            except SystemExit as error:
                return int(error.code or 0), err.getvalue() + out.getvalue()
        return 0, err.getvalue() + out.getvalue()

    kind, value, _ = forked(work)
    if kind != "done":
        return judge((kind, value, []), None)
    status, text = value
    if "unexpected" in text or "Traceback" in text or "\x1b" in text:
        print(words, text[-600:], file=sys.stderr)
        return "UNEXPECTED"
    return "message" if status else "right"


def attack_recipes(folder: Path, seeds: int, seed: int) -> Iterator[tuple[str, str]]:
    """Change, repeat, remove and nest parts of a recipe."""
    from edxdenoise.jobs import demo_recipe

    rng = np.random.default_rng(seed)
    text = demo_recipe().to_toml().replace("phantom.zarr", "absent.zarr")
    odd = ['"\\u0000"', "1e308", "-1", "nan", "[]", "{}", "true", '"x"', "[[" * 50 + "]]" * 50, "0"]
    for _ in range(seeds):
        lines = text.splitlines()
        place = int(rng.integers(len(lines)))
        key = lines[place].split("=")[0]
        match rng.integers(4):
            case 0:
                lines[place] = f"{key}= {odd[rng.integers(len(odd))]}"
            case 1:
                lines.insert(place, lines[place])
            case 2:
                del lines[place]
            case 3:
                lines[place] = flipped(lines[place].encode() or b"a", rng).decode("latin-1")
        (folder / "a.toml").write_text("\n".join(lines), encoding="utf-8")
        yield "recipes", _command("run", folder / "a.toml")


def attack_by_signals(folder: Path, seeds: int, seed: int) -> Iterator[tuple[str, str]]:
    """Stop or kill a process that replaces a result: the old or the new one stands there, whole."""
    rng = np.random.default_rng(seed)
    maps = [
        simulate("solar-cell", shape=(66, 50), channels=80, energy_width=0.16, seed=n)
        for n in (0, 1)
    ]
    old, new = (ds[["counts"]].compute().chunk({"y": 11}) for ds in maps)
    totals = [int(ds.counts.sum()) for ds in (old, new)]
    place = folder / "signals"
    place.mkdir()
    for suffix in SUFFIXES:
        path = place / f"out{suffix}"
        save_dataset(old, path)
        start = time.monotonic()
        forked(lambda: save_dataset(new, path, overwrite=True))
        usual = time.monotonic() - start
        for _ in range(seeds):
            number = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL][rng.integers(3)]
            write = lambda: save_dataset(old, path, overwrite=True)  # noqa: E731
            forked(write, kill_after=usual * rng.random(), number=number)
            if number == signal.SIGKILL:
                # What it left is removed by the next that writes there.
                forked(lambda: save_dataset(old, path))
            whole = forked(lambda: counts_of(path, None)[0])
            fine = whole[0] == "done" and whole[1] in totals
            alone = sorted(os.listdir(place)) == [path.name]
            yield "signals", "right" if fine and alone else "LOST"
            forked(lambda: save_dataset(new, path, overwrite=True))
        _remove(path)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)


def attack_disks(folder: Path, seeds: int, seed: int) -> Iterator[tuple[str, str]]:
    """Write to disks that are too small or read-only."""
    del seed
    disk = folder / "disk"
    disk.mkdir()
    ds = simulate("solar-cell", shape=(132, 100), channels=160, energy_width=0.08)[["counts"]]
    for case in range(seeds):
        options = "ro" if case % 10 == 9 else f"size={4 * (1 + case // 3)}k"
        mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
        if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
            return
        try:
            answer = forked(lambda: save_dataset(ds, disk / f"out{SUFFIXES[case % 3]}"))
            outcome = "right" if answer[0] == "done" else judge(answer, None)
            left = os.listdir(disk) if answer[0] != "done" else []
            yield "disks", "LOST" if left else outcome
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)


def attack_names(folder: Path, seeds: int, seed: int) -> Iterator[tuple[str, str]]:
    """Odd names and titles, shown and in reports."""
    del seed
    parts = ["[/red]", "[bold]", "\x1b[31m", "new\nline", "$\\x$", "%s{0}", "ü\u202e", "'\"`$(id)`"]
    for case in range(seeds):
        text = parts[case % len(parts)] + parts[case // len(parts) % len(parts)]
        ds = simulate("solar-cell", shape=(33, 50), channels=80, energy_width=0.16)[["counts"]]
        ds.attrs["title"] = text
        path = folder / f"{text.replace('/', '_')}-{case}{SUFFIXES[case % 2]}"
        save_dataset(ds, path)
        yield "names", _command("info", path)


def attack_by_models(folder: Path, seeds: int, seed: int) -> Iterator[tuple[str, str]]:
    """Network files that name code, at any depth, or unpack to gigabytes."""
    from edxdenoise.classifier.model import MODELS
    from edxdenoise.classifier.networks import load_network

    rng = np.random.default_rng(seed)
    source = sorted(MODELS.glob("default-*.keras"))[0]
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for case in range(seeds):
        config = json.loads(members["config.json"])
        layers = config["config"]["layers"]
        layer = layers[rng.integers(len(layers))]
        evil = {"class_name": "__lambda__", "module": "builtins", "config": {"code": "x"}}
        touched = folder / "touched"
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
        path = folder / "evil.keras"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
            if case % 7 == 6:
                archive.writestr("padding", bytes(400_000_000))
            archive.writestr("config.json", json.dumps(config))
        answer = forked(lambda: load_network(path).name)
        yield "models", "WRONG" if touched.exists() or answer[0] == "done" else judge(answer, None)


def main() -> None:
    """Run the attacks and print how each class of them ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=30, help="cases per file or class")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="folder of vendors' files")
    parser.add_argument("--only", action="append", help="these attacks, such as outputs")
    parser.add_argument("--csv", action="store_true", help=f"write these rows of {RESULTS.name}")
    arguments = parser.parse_args()
    n, seed = arguments.seeds, arguments.seed
    attacks: dict[str, Callable[[Path], Iterator[tuple[str, str]]]] = {
        "outputs": lambda folder: attack_outputs(folder, 3 * n, seed),
        "recipes": lambda folder: attack_recipes(folder, 7 * n, seed),
        "signals": lambda folder: attack_by_signals(folder, 7 * n // 3, seed),
        "disks": lambda folder: attack_disks(folder, n, seed),
        "names": lambda folder: attack_names(folder, n, seed),
        "models": lambda folder: attack_by_models(folder, n, seed),
    }
    if arguments.data:
        attacks["vendors"] = lambda folder: attack_vendors(arguments.data, folder, n, seed)
    table: dict[str, collections.Counter[str]] = {}
    for name, attack in attacks.items():
        if arguments.only and name not in arguments.only:
            continue
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
            suppress(KeyboardInterrupt),
        ):
            for case, outcome in attack(Path(folder)):
                table.setdefault(case, collections.Counter())[outcome] += 1
    rows = {
        case: [str(sum(found.values())), *(str(found[outcome]) for outcome in OUTCOMES)]
        for case, found in table.items()
    }
    head = ["attack", "cases", *OUTCOMES]
    for row in [head, *([case, *numbers] for case, numbers in rows.items())]:
        print("".join(f"{cell:>{16 if not i else 11}}" for i, cell in enumerate(row)))
    if arguments.csv:
        if RESULTS.exists():
            # Attacks that were not run this time stay.
            with open(RESULTS, newline="", encoding="utf-8") as file:
                rows = {case: numbers for case, *numbers in list(csv.reader(file))[1:]} | rows
        RESULTS.parent.mkdir(exist_ok=True)
        with open(RESULTS, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([head, *([case, *rows[case]] for case in sorted(rows))])


if __name__ == "__main__":
    main()
