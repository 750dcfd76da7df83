"""``edxdenoise lines``: X-ray lines and what overlaps them."""

from __future__ import annotations

import json

import click

from edxdenoise.cli.helpers import print_table
from edxdenoise.cli.options import Configured, command, json_option
from edxdenoise.config import Denoise, Prepare


@command(short_help="List X-ray lines of elements, or near an energy.")
@click.option("--elements", type=Configured(Denoise, "elements"), help="Symbols, such as Pb,I,C,N.")
@click.option(
    "--near", type=click.FloatRange(min=0), metavar="KEV", help="Lines of any element near here."
)
@click.option(
    "--range",
    "energy_range",
    type=Configured(Prepare, "energy"),
    default="0:20",
    show_default=True,
    help="Energies in keV.",
)
@click.option(
    "--beam-energy", type=float, default=200.0, show_default=True, help="In keV: what is excited."
)
@click.option(
    "--resolution", type=float, default=130.0, show_default=True, help="FWHM at Mn Ka in eV."
)
@json_option
def lines(
    elements: tuple[str, ...] | None,
    near: float | None,
    energy_range: tuple[float, float],
    beam_energy: float,
    resolution: float,
    as_json: bool,
) -> None:
    """List the X-ray lines of elements, or the lines near an energy.

    \b
    edxdenoise lines --elements Pb,I --range 0:13
    edxdenoise lines --near 17.44
    """
    from edxdenoise.xray import fwhm
    from edxdenoise.xray.families import candidate_lines, list_lines

    if (elements is None) == (near is None):
        raise click.UsageError("give --elements, such as Pb,I, or --near, such as 17.44")
    if near is not None:
        reach = 0.5e-3 * float(fwhm(max(near, 0.1), resolution))
        low, high = energy_range
        limits = low, max(high, near + reach)
        candidates = candidate_lines(near, reach, limits, beam_energy=beam_energy)
        if as_json:
            click.echo(json.dumps(candidates, indent=1))
            return
        rows = [
            [
                line["line"].replace("_", " "),
                f"{line['energy']:.3f}",
                f"{line['distance']:+.0f}",
                f"{line['share']:.2f}",
            ]
            for line in candidates
        ]
        print_table("", ["line", "keV", "distance / eV", "share"], rows)
        return
    assert elements is not None
    found = list_lines(elements, energy_range, beam_energy=beam_energy, resolution=resolution)
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    rows = [
        [
            line["line"].replace("_", " "),
            f"{line['energy']:.3f}",
            f"{line['fwhm']:.0f}",
            f"{line['share']:.2f}",
            ", ".join(other.replace("_", " ") for other in line["overlaps"]),
            "above half the beam energy" if line["hardly_excited"] else "",
        ]
        for line in found
    ]
    print_table("", ["line", "keV", "FWHM / eV", "share", "overlaps", ""], rows)
