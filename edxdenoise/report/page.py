"""The page of a report: one HTML file that opens from disk, without a network.

Everything on it is in `Findings`. Maps and spectra are drawn by Bokeh; those of components, which
may be a hundred, are small pictures. Maps are stored in 255 steps of their colours. The spectra of
all cells of the map are stored too, so that the page itself sums the spectrum of a box.
"""

from __future__ import annotations

import datetime
import platform
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from edxdenoise import schema as v
from edxdenoise._version import __version__
from edxdenoise.cube import (
    detector_resolution,
    measured_pixels,
    pixel_counts,
    result_name,
    sum_spectrum,
)
from edxdenoise.errors import texts_of
from edxdenoise.report.findings import Findings, missed_share
from edxdenoise.report.frame import (
    count_range,
    frame_of,
    grey_range,
    length_label,
    net_range,
    value_range,
    well_known,
)
from edxdenoise.report.overlay import COLOUR_NAMES, COLOURS
from edxdenoise.report.page_components import component_cards
from edxdenoise.report.page_maps import Maps
from edxdenoise.report.page_regions import drawn_region
from edxdenoise.report.page_spectra import scree_plot, sum_figure
from edxdenoise.report.text import (
    decision,
    facts,
    fitted_text,
    joined,
    number_words,
    region_words,
    remaining_error,
    with_error,
)
from edxdenoise.validation.residuals import Audit
from edxdenoise.xray import line_label
from edxdenoise.xray.identification import WHOLE_MAP

_SURE = 3.0


def write_page(found: Findings, path: Path) -> None:
    """Write the page of a report.

    Parameters
    ----------
    found : Findings
    path : Path
        Of the file.
    """
    path.write_text(page_text(found), encoding="utf-8")


def page_text(found: Findings) -> str:
    """Return the page of a report as HTML."""
    from bokeh.document import Document
    from bokeh.embed import components
    from bokeh.resources import Resources
    from jinja2 import Environment

    ds = found.ds
    maps = Maps.of(found)
    specimen, elements = _specimen(found, maps), _elements(found, maps)
    content = {
        "title": _title(ds),
        "version": __version__,
        "made": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "result": result_name(ds),
        "paragraph": _paragraph(found),
        "numbers": _five_numbers(found),
        "warnings": texts_of(ds.attrs, "warnings"),
        "notes": texts_of(ds.attrs, "notes"),
        "measurement": _measurement(ds),
        "specimen": specimen,
        "elements": elements,
        "overlay": _overlay(found, maps, elements, specimen["images"]),
        "quantities": _quantities(found, maps),
        "tables": _region_tables(found),
        "components": component_cards(found),
        "checks": _checks(found, maps),
        "binning": maps.words(),
        "box": drawn_region(found, maps),
        "recipe": str(ds.attrs.get("recipe", "")),
        "history": str(ds.attrs.get("history", "")),
        "source": str(ds.attrs.get("source", "data in memory")),
        "versions": _versions(),
        "script": (files("edxdenoise.report") / "page.js").read_text(encoding="utf-8"),
    }
    document = Document()
    # One walk through the models, instead of one for each that is added.
    with document.models.freeze():
        for root in maps.roots.values():
            document.add_root(root)
    plots, divs = components(maps.roots)
    resources = Resources(mode="inline", components=["bokeh"])
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = (files("edxdenoise.report") / "page.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        **content, bokeh=resources.render(), plots=plots, div=divs
    )


# Words


def _title(ds: xr.Dataset) -> str:
    return str(ds.attrs.get("title") or "") or _file(ds) or "Spectrum image"


def _file(ds: xr.Dataset) -> str:
    return str(ds.attrs.get("source", "")).split(" sha256:")[0]


def _total(ds: xr.Dataset) -> float:
    return float(sum_spectrum(ds).sum())


def _extent(ds: xr.Dataset) -> str:
    return f"{ds.sizes[v.DIM_Y]:,} × {ds.sizes[v.DIM_X]:,} pixels"


def _paragraph(found: Findings) -> list[str]:
    ds = found.ds
    pixels = int(measured_pixels(ds).sum())
    total = _total(ds)
    sentences = [
        f"The map has {_extent(ds)} with {number_words(total / pixels)} counts each, "
        f"{number_words(total)} in all."
    ]
    names, local = _found_names(found)
    stray = [str(row.element) for row in found.elements.itertuples() if row.stray]
    if names:
        text = f"{_many(len(names), 'element')} found, most significant first: {', '.join(names)}"
        if local:
            text += f"; in small parts of the map alone: {', '.join(local)}"
        if stray:
            text += f"; {', '.join(stray)} may come from elsewhere than the specimen"
        sentences.append(text + ".")
    else:
        sentences.append("No element was found beyond doubt.")
    if v.COMPONENT_KEEP in ds:
        sentences.append(decision(ds) + ".")
    if found.quantified is not None:
        regions = found.quantified.regions
        whole = regions[regions["kind"] == "map"]
        at = [row for _, row in whole.iterrows() if row["quantity"].endswith("at%")]
        if at:
            parts = [f"{row['quantity'].split()[0]} {region_words(row)}" for row in at]
            sentences.append(f"Composition of the whole map: {', '.join(parts)} at%.")
    return sentences


def _found_names(found: Findings) -> tuple[list[str], list[str]]:
    """Elements of the sum spectrum, and those of small parts of the map alone."""
    whole = found.elements["where"] == WHOLE_MAP
    names = found.elements["element"].astype(str)
    return list(names[whole]), list(names[~whole])


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


_FIVE = "counts per pixel", "pixels", "elements found", "components kept", "remaining error"


def _five_numbers(found: Findings) -> list[tuple[str, str]]:
    shown = facts(found.ds, _found_names(found)[0])
    numbers = [(label, shown[label][0]) for label in _FIVE if label in shown]
    if "remaining error" not in shown and len(found.bias):
        numbers.append(("tests of bias beyond 3 σ", _beyond(found.bias)))
    return numbers


def _beyond(bias: pd.DataFrame) -> str:
    z = bias["z"].to_numpy(float)
    z = z[np.isfinite(z)]
    return f"{int((np.abs(z) > _SURE).sum())} of {z.size}"


def _measurement(ds: xr.Dataset) -> list[tuple[str, str]]:
    rows = [("file", _file(ds)), ("instrument", str(ds.attrs.get("instrument", "")))]
    for key, words, unit in (
        ("beam_energy", "beam energy", "keV"),
        ("live_time", "live time", "s"),
        ("real_time", "real time", "s"),
        ("take_off_angle", "take-off angle", "°"),
        ("stage_tilt", "stage tilt", "°"),
    ):
        if key in ds.attrs:
            rows.append((words, f"{float(ds.attrs[key]):.4g} {unit}"))
    pixels = int(measured_pixels(ds).sum())
    if "live_time" in ds.attrs:
        dwell = 1000 * float(ds.attrs["live_time"]) / pixels
        rows.append(("live time per pixel", f"{dwell:.3g} ms"))
    frame = frame_of(ds)
    rows.append(("pixel size", length_label(float(f"{frame.step:.4g}"), frame.units)))
    energy = ds[v.DIM_ENERGY].values
    rows.append(
        (
            "channels",
            f"{energy.size:,} of {1000 * (energy[1] - energy[0]):.4g} eV, "
            f"{energy[0]:.2f} to {energy[-1]:.2f} keV",
        )
    )
    rows.append(("detector resolution", f"{float(detector_resolution(ds)):.0f} eV at Mn Kα"))
    rows.append(("total counts", number_words(_total(ds))))
    if "date" in ds.attrs:
        rows.append(("recorded", str(ds.attrs["date"])))
    return [(name, value) for name, value in rows if value]


def _versions() -> str:
    names = ("numpy", "scipy", "scikit-learn", "xarray", "dask", "tensorflow", "bokeh")
    return ", ".join(
        [f"edxdenoise {__version__}", f"Python {platform.python_version()}"]
        + [f"{name} {version(name)}" for name in names]
    )


# Sections


def _specimen(found: Findings, maps: Maps) -> dict[str, Any]:
    ds = found.ds
    images = []
    if v.IMAGE in ds:
        for number, (label, image) in enumerate(
            zip(map(str, ds[v.DIM_DETECTOR].values), ds[v.IMAGE].values)
        ):
            alt = f"{label} image, recorded with the counts"
            one = maps.add(f"image-{number}", image, grey_range(image), "", alt)
            images.append({**one, "title": f"{label} image"})
    if v.WEIGHT_PIXEL in ds or found.cells is not None:
        totals = pixel_counts(ds)
        seen = np.where(measured_pixels(ds), totals, np.nan)
        alt = "map of the sum of all X-ray counts"
        one = maps.add("total", seen, count_range(seen[np.isfinite(seen)]), "counts", alt)
        maps.name_areas("total")
        images.append({**one, "title": "all X-rays"})
    maps.roots["sum-spectrum"] = sum_figure(found)
    return {"images": images}


def _elements(found: Findings, maps: Maps) -> list[dict[str, Any]]:
    cards = []
    for number, row in enumerate(found.elements.itertuples()):
        line = line_label(str(row.line))
        own = None if found.raw is None else found.raw[number]
        smooth = None if found.denoised is None else found.denoised[number]
        shown = own if smooth is None else smooth
        if shown is None:
            continue
        colours = net_range(shown, float(found.noise[number]))
        unit = "net counts / pixel"
        pictures = []
        if own is not None:
            seen = np.where(measured_pixels(found.ds), own, np.nan)
            alt = f"map of {line}, raw net counts"
            one = maps.add(f"raw-{number}", seen, colours, unit, alt)
            pictures.append({**one, "title": "raw"})
        if smooth is not None:
            over = None if own is None else f"raw-{number}"
            alt = f"map of {line}, denoised net counts"
            one = maps.add(f"denoised-{number}", smooth, colours, unit, alt, over=over)
            pictures.append({**one, "title": "denoised"})
        cards.append(
            {
                "element": str(row.element),
                "line": line,
                "energy": f"{row.energy:.3f}",
                "counts": _counts(shown if own is None else own, float(found.noise[number])),
                "significance": f"{row.significance:.0f}",
                "where": str(row.where),
                "stray": str(row.stray),
                "confused": str(row.confused_with),
                "noise": f"{found.noise[number]:.2g}",
                "confirmed": _confirmed(shown if own is None else own, float(found.noise[number])),
                "pictures": pictures,
            }
        )
    return cards


def _overlay(
    found: Findings, maps: Maps, elements: list[dict[str, Any]], images: list[dict[str, Any]]
) -> dict[str, Any] | None:
    """Two or three elements in one map, an image beside."""
    chosen = found.main_elements
    if len(chosen) < 2:
        return None
    names = [one["pictures"][-1]["name"] for one in elements]
    alt = f"overlay of {joined([elements[n]['element'] for n in chosen])}"
    beside = [{**maps.again("beside", images[0]), "title": images[0]["title"]}] if images else []
    return {
        "map": maps.overlay("overlay", [names[n] for n in chosen], alt),
        "beside": beside,
        "chosen": [names[n] for n in chosen],
        "choices": [(name, one["line"]) for name, one in zip(names, elements)],
        "colours": [(name, colour) for name, colour in zip(COLOUR_NAMES, COLOURS.tolist())],
    }


def _confirmed(image: np.ndarray, noise: float) -> bool:
    """Whether the net counts of the whole map are beyond their counting noise."""
    return bool(image.sum(dtype=float) > _SURE * noise * np.sqrt(image.size))


def _counts(image: np.ndarray, noise: float) -> str:
    """Net counts of the whole map, with their counting error."""
    net, stddev = image.sum(dtype=float), noise * np.sqrt(image.size)
    return f"{net:,.0f} ± {stddev:,.0f}".replace("-", "−")


def _quantities(found: Findings, maps: Maps) -> list[dict[str, Any]]:
    ds = found.ds
    cards = []
    if v.ATOMIC_PERCENT in ds:
        detected = ds[v.LINE_DETECTED].values == 1
        specimen = detected.any(axis=0)
        for number, element in enumerate(map(str, ds[v.DIM_ELEMENT].values)):
            value = ds[v.ATOMIC_PERCENT].values[number]
            stddev = ds[v.ATOMIC_PERCENT_STDDEV].values[number]
            known = well_known(value, stddev, specimen)
            cards.append(
                _quantity_card(maps, f"at-{number}", f"{element} at%", "at%", value, stddev, known)
            )
    if v.RATIO in ds:
        for number, text in enumerate(map(str, ds[v.DIM_RATIO].values)):
            value = ds[v.RATIO].values[number]
            stddev = ds[f"{v.RATIO}_stddev"].values[number]
            known = well_known(value, stddev, np.isfinite(value))
            cards.append(
                _quantity_card(
                    maps, f"ratio-{number}", f"{text}, ratio of atoms", "", value, stddev, known
                )
            )
    return cards


def _quantity_card(
    maps: Maps,
    name: str,
    title: str,
    unit: str,
    value: np.ndarray,
    stddev: np.ndarray,
    known: np.ndarray,
) -> dict[str, Any]:
    kind = unit or "ratio"
    colours = value_range(value, known, kind, stddev=stddev)
    spread = value_range(stddev, known, kind, error=True)
    return {
        "title": title,
        "pictures": [
            {
                **maps.add(name, value, colours, unit, f"map of {title}"),
                "title": "value",
            },
            {
                **maps.add(f"{name}-error", stddev, spread, unit, f"error map of {title}"),
                "title": "standard deviation of a pixel",
            },
        ],
    }


def _region_tables(found: Findings) -> list[dict[str, Any]]:
    if found.quantified is None:
        return []
    table, groups = found.quantified.regions, found.quantified.groups
    captions = {
        "map": "Whole map",
        "area": "Areas",
        "region": "Regions",
        "phase": "Phases",
        "profile": "Profiles",
    }
    shown = []
    for kind, caption in captions.items():
        own = table[table["kind"] == kind]
        if own.empty:
            continue
        heads = ["pixels", "counts", *dict.fromkeys(own["quantity"])]
        rows = []
        for region, part in own.groupby("region", sort=False):
            first = part.iloc[0]
            numbers = [f"{first['pixels']:,}", number_words(first["counts"])]
            rows.append((str(region), [*numbers, *(region_words(r) for _, r in part.iterrows())]))
        if kind == "map" and "true" in own:
            true = [f"{value:.3g}" for value in own["true"]]
            rows.append(("true, of the phantom", ["", "", *true]))
        shown.append({"caption": caption, "heads": heads, "rows": rows})
    if len(groups):
        heads = ["quantity", "difference", "z", "p, counting", "p, between areas"]
        rows = [
            (
                str(row["groups"]),
                [
                    str(row["quantity"]),
                    with_error(row["difference"], row["stddev"]),
                    f"{row['z']:.1f}",
                    f"{row['p_counting']:.2g}",
                    f"{row['p_areas']:.2g}" if np.isfinite(row["p_areas"]) else "–",
                ],
            )
            for _, row in groups.iterrows()
        ]
        shown.append(
            {"caption": "Differences between groups of areas", "heads": heads, "rows": rows}
        )
    return shown


def _checks(found: Findings, maps: Maps) -> dict[str, Any]:
    ds = found.ds
    checks: dict[str, Any] = {}
    if v.COMPONENT_KEEP in ds:
        maps.roots["scree"] = scree_plot(ds)
        checks["scree"] = decision(ds)
    if v.HELD_OUT_ERROR in ds:
        error, stddev = 100 * ds[v.HELD_OUT_ERROR].values.astype(float)
        verdict_words = "Denoised counts are closer to the truth than raw ones"
        if error + 2 * stddev > 100:
            verdict_words = "Denoised counts are no closer to the truth than raw ones"
        checks["held_out"] = {
            "verdict": f"{verdict_words}: squared error {remaining_error(ds)} of raw.",
            "good": error + 2 * stddev <= 100,
            "by": fitted_text(ds),
        }
    if len(found.bias):
        beyond = found.bias[found.bias["z"].abs() > _SURE].sort_values("z", key=lambda z: -z.abs())
        heads = ["line", "raw", "denoised", "difference", "z"]
        rows = [
            (
                str(row.region),
                [
                    line_label(str(row.line)),
                    number_words(row.raw) if row.raw >= 0 else f"−{number_words(-row.raw)}",
                    (
                        number_words(row.denoised)
                        if row.denoised >= 0
                        else f"−{number_words(-row.denoised)}"
                    ),
                    with_error(row.difference, row.stddev),
                    f"{row.z:.1f}".replace("-", "−"),
                ],
            )
            for row in beyond.head(12).itertuples()
        ]
        words = (
            f"No sign of bias: none of {_tested(found.bias)} differences between raw and denoised "
            "net counts is beyond 3 σ."
        )
        if rows:
            worst = beyond.iloc[0]
            words = (
                f"Possible bias: {_beyond(found.bias)} differences between raw and denoised net "
                f"counts are beyond 3 σ; the clearest is {line_label(str(worst['line']))} of "
                f"{worst['region']}, {_moved(worst)}."
            )
        checks["bias"] = {"verdict": words, "good": not rows, "heads": heads, "rows": rows}
    if found.audit is not None:
        checks["residual"] = _residual(found, found.audit, maps)
    return checks


def _moved(row: pd.Series) -> str:
    """How much larger or smaller denoised net counts are than raw ones, in words."""
    more = "more" if row["difference"] < 0 else "fewer"
    if row["raw"] > _SURE * row["stddev"]:
        return f"with {abs(row['difference'] / row['raw']):.1%} {more} counts after denoising"
    return f"with {number_words(abs(row['difference']))} {more} counts after denoising"


def _tested(bias: pd.DataFrame) -> int:
    return int(np.isfinite(bias["z"].to_numpy(float)).sum())


def _residual(found: Findings, audit: Audit, maps: Maps) -> dict[str, Any]:
    if audit.table.empty:
        words = f"Nothing left in the residuals beyond counting noise ({audit.tests:,} tests)."
        return {"verdict": words, "good": True}
    words = (
        f"The residuals show {_many(len(audit.table), 'feature')} that the model does not "
        f"describe, {number_words(100 * missed_share(audit, found.ds))} % of the counts together."
    )
    rows, columns = found.ds.sizes[v.DIM_Y], found.ds.sizes[v.DIM_X]
    peaks = audit.peaks.repeat(4, axis=0)[:rows].repeat(4, axis=1)[:, :columns]
    limit = float(np.clip(np.abs(peaks).max(), 8, 30))
    one = maps.add("residual", peaks, ("RdBu_r", -limit, limit), "σ", "map of the residuals")
    heads = ["rows", "columns", "energy (keV)", "lines", "counts", "expected", "z"]
    table = [
        (
            f"{find.size} px",
            [
                f"{find.y_start}:{find.y_stop}",
                f"{find.x_start}:{find.x_stop}",
                f"{find.energy_low:.2f}–{find.energy_high:.2f}",
                ", ".join(line_label(name) for name in str(find.lines).split()[:2]) or "–",
                f"{find.counts:,.0f}",
                f"{find.expected:,.0f}".replace("-", "−"),
                f"{find.z:.1f}".replace("-", "−"),
            ],
        )
        for find in audit.table.head(12).itertuples()
    ]
    return {"verdict": words, "good": False, "map": one, "heads": heads, "rows": table}
