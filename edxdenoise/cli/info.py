"""``edxdenoise info``: what a file holds and what a job on it needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edxdenoise.cli.helpers import Computing, print_table, printable
from edxdenoise.cli.options import (
    command,
    compute_options,
    file_argument,
    json_option,
    section_options,
)
from edxdenoise.config import Input

if TYPE_CHECKING:
    import pandas as pd

    from edxdenoise.io.vendor import Frames

# Rows of a table of frames: of more frames, sums are shown.
_FRAME_ROWS = 20


def _print_devices(context: click.Context, option: click.Parameter, asked: bool) -> None:
    if asked:
        from edxdenoise.components.networks import device_names

        names = device_names()
        click.echo("\n".join(names))
        click.echo(f"networks are trained on {([n for n in names if 'GPU' in n] or names)[0]}")
        context.exit()


@command(short_help="Show what FILE holds and what denoising it needs.")
@file_argument
@section_options(Input, "signal", "frames")
@click.option(
    "--by-frame",
    is_flag=True,
    help="Show the counts of every frame and of the main lines: damage, and drift of the beam.",
)
@json_option
@click.option(
    "--devices",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_devices,
    help="Show the processors that networks can be trained on, and exit.",
)
@compute_options
def info(
    file: Path,
    signal: str | None,
    frames: Frames | None,
    by_frame: bool,
    as_json: bool,
    computing: Computing,
) -> None:
    """Show what FILE holds: signals, axes, counts, measurement, memory a job needs.

    \b
    edxdenoise info map.bcf
    edxdenoise info map.pts --by-frame
    """
    from edxdenoise.io import list_signals, pick_signal
    from edxdenoise.run import describe_cube, describe_frames, describe_memory, describe_signals

    if by_frame:
        with computing.started() as progress, progress("reading"):
            table = describe_frames(
                file, signal=signal, frames=frames, memory_limit=computing.memory_limit
            )
        if as_json:
            click.echo(json.dumps(table.reset_index().to_dict("records"), indent=1))
        else:
            _print_frames(table)
        return
    found = list_signals(file)
    signals = describe_signals(found)
    if not as_json:
        _print_signals(signals)
    memory = describe_memory(pick_signal(file, found, signal), workers=computing.workers)
    if not as_json:
        _print_memory(memory)
    with computing.started() as progress, progress("reading"):
        cube = describe_cube(
            file, signal=signal, frames=frames, memory_limit=computing.memory_limit
        )
    if as_json:
        click.echo(json.dumps({"signals": signals, "memory": memory, **cube}, indent=1))
    else:
        _print_cube(cube)


def _print_frames(table: pd.DataFrame) -> None:
    from edxdenoise.quantification import frame_change

    size = -(-len(table) // _FRAME_ROWS)
    rows = []
    for start in range(0, len(table), size):
        part = table[start : start + size]
        first, last = part.index[[0, -1]]
        sums = part.sum()
        name = str(first) if first == last else f"{first}-{last}"
        rows.append([name, *(f"{count:,.0f} ± {count**0.5:,.0f}" for count in sums)])
    if len(table) > 1:
        changes = [frame_change(table[name].to_numpy()) for name in table]
        rows.append(["change", *(f"{100 * c:+.1f} ± {100 * error:.1f} %" for c, error in changes)])
    print_table("", ["frame", *(name.replace("_", " ") for name in table)], rows)
    if len(table) > 1:
        click.echo("change: of a straight line from the first frame to the last, in % of the mean")


def _print_signals(signals: list[dict[str, Any]]) -> None:
    rows = [
        [
            str(record["index"]),
            record["title"],
            f"{record['signal_type']} {record['kind']}".strip(),
            " x ".join(map(str, record["shape"])),
            record["dtype"],
        ]
        for record in signals
    ]
    print_table("", ["signal", "title", "kind", "shape", "type"], rows)


def _print_memory(memory: dict[str, int]) -> None:
    from edxdenoise.resources import format_memory

    click.echo(
        f"\n{'memory':19} cube {format_memory(memory['cube'])}; denoising takes "
        f"{format_memory(memory['at_best'])}, or {format_memory(memory['at_least'])} block by block"
    )


def _print_cube(cube: dict[str, Any]) -> None:
    def line(name: str, text: str) -> None:
        click.echo(f"{printable(name):19} {printable(str(text))}")

    line("shape", f"{' x '.join(map(str, cube['shape']))} (y, x, energy), {cube['dtype']}")
    for name, axis in cube["axes"].items():
        line(name, f"from {axis['offset']:.6g} by {axis['scale']:.6g} {axis['units']}")
    if cube["total_counts"] is None:
        line("counts", "not all are numbers")
    else:
        line(
            "counts",
            f"{cube['total_counts']:,.0f}; {cube['counts_per_pixel']:.4g} per pixel, largest "
            f"{cube['largest_count']:g}, {cube['empty_pixels']:.1%} of pixels empty",
        )
    if cube["missing_pixels"]:
        line("not measured", f"{cube['missing_pixels']:.1%} of pixels")
    if "result" in cube:
        line("result", cube["result"])
    for image in cube["images"]:
        line(
            f"image {image['name']}",
            f"{image['dtype']}, from {image['smallest']:.5g} to {image['largest']:.5g}, mean "
            f"{image['mean']:.5g}",
        )
    units = {
        "beam_energy": " keV",
        "live_time": " s",
        "real_time": " s",
        "take_off_angle": "°",
        "azimuth_angle": "°",
        "stage_tilt": "°",
        "detector_resolution": " eV at Mn Ka",
    }
    for name, value in cube["measurement"].items():
        if name == "elements":
            name = "elements listed"
        text = ", ".join(value) if isinstance(value, list) else value
        if isinstance(value, float):
            text = f"{value:.6g}"
        line(name.replace("_", " "), f"{text}{units.get(name, '')}")
    if found := ", ".join(entry["element"] for entry in cube["elements"]):
        line("elements found", found)
    for name, value in cube.get("k_factors", {}).items():
        line("vendor's k-factor", f"{name}: {value}")
    if "areas" in cube:
        line("areas", ", ".join(cube["areas"]))
