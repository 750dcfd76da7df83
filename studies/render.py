"""Fill the tables of the documentation from the results of the studies.

Each study writes ``studies/results/NAME.csv``. A page of ``docs/`` shows it between the lines
``<!-- table: NAME -->`` and ``<!-- /table -->``. Between ``<!-- options: SECTION -->`` and
``<!-- /options -->`` stand the options of a section of the recipe, as `edxdenoise.config` has them.

    python studies/render.py            # write the tables into the pages
    python studies/render.py --check    # exit 1 where a page differs from its results
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "studies" / "results"
_OPTIONS = re.compile(r"(<!-- options: (?P<name>\w+) -->\n).*?(<!-- /options -->)", re.DOTALL)
_TABLE = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n).*?(<!-- /table -->)", re.DOTALL)


def markdown_table(rows: list[list[str]]) -> str:
    """Return rows, headings first, as a Markdown table; columns of numbers are right-aligned.

    Examples
    --------
    >>> print(markdown_table([["dose", "error"], ["10", "0.3"]]), end="")
    | dose | error |
    |-----:|------:|
    | 10   | 0.3   |
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]

    def line(row: list[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |"

    rule = []
    for i, width in enumerate(widths):
        numeric = all(_is_number(row[i]) for row in rows[1:])
        rule.append("-" * (width + 1) + (":" if numeric else "-"))
    return "\n".join([line(rows[0]), "|" + "|".join(rule) + "|", *map(line, rows[1:])]) + "\n"


def render(text: str, results: Path = RESULTS) -> str:
    """Return a page with every table filled from its results."""

    def fill(match: re.Match[str]) -> str:
        path = results / f"{match['name']}.csv"
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing; run the study that writes it")
        with path.open(newline="") as file:
            rows = [row for row in csv.reader(file) if row]
        return match[1] + "\n" + markdown_table(rows) + "\n" + match[3]

    return _OPTIONS.sub(_options, _TABLE.sub(fill, text))


def option_rows(section: str) -> list[list[str]]:
    """Return key, option of the command line, allowed values, default and meaning of options."""
    from dataclasses import fields

    from edxdenoise import config

    cls = getattr(config, section)
    rows = [["key", "option", "allowed", "default", "meaning"]]
    declared = config.options(cls)
    for field in fields(cls):
        if field.name not in declared:
            continue
        option = declared[field.name]
        default = option.default or ("" if field.default in (None, ()) else str(field.default))
        flag = f"--{(option.flag or field.name).replace('_', '-')}"
        if field.default is True:
            flag += f", --no-{field.name.replace('_', '-')}"
        allowed = config.kind_of(cls, field.name).allowed.replace("|", "\\|")
        rows.append([f"`{field.name}`", f"`{flag}`", allowed, default.lower(), option.help])
    return rows


def _options(match: re.Match[str]) -> str:
    return match[1] + "\n" + markdown_table(option_rows(match["name"])) + "\n" + match[3]


def main() -> int:
    """Write or check the tables of every page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say which pages differ")
    check = parser.parse_args().check
    stale = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]:
        text = page.read_text()
        filled = render(text)
        if filled != text:
            stale.append(page)
            if not check:
                page.write_text(filled)
    for page in stale:
        print(f"{page.relative_to(ROOT)}: {'differs from its results' if check else 'written'}")
    return int(check and bool(stale))


def _is_number(text: str) -> bool:
    try:
        float(text.replace("%", "").replace("<", "").split("±")[0] or 0)
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
