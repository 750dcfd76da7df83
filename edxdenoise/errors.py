"""Everything edxdenoise raises or warns of on purpose.

Each error also is the built-in kind a caller would expect, so that ``except ValueError`` works for
those who do not know this package. The message is one line that says which file or key is meant,
the value received, what is allowed and how to mend it: the command line prints just that line.

Warnings are data. `warn` is the only function that issues one; it takes what was found, what this
means for the result (for at%, where there are any), what to type, and a rank::

    warn(
        "Line 'S_Ka' at 2.307 keV overlaps Pb Ma (+39 eV)",
        "integration windows cannot separate them, so that at% of S is wrong",
        "use --intensities fit",
        rank=Rank.WRONG,
    )

`recorded` collects them. Jobs write what they collected into the attributes ``warnings`` and
``notes`` of their result, and the command line shows the three of highest rank. A warning that is
issued inside a Dask task would be lost on another process: let the task return it (`recorded` with
``show=False`` collects it there) and hand it to `issue` in the caller.
"""

from __future__ import annotations

import enum
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager


class EdxdenoiseError(Exception):
    """Root of all errors raised on purpose."""


class FormatError(EdxdenoiseError, OSError):
    """A file cannot be read as a spectrum image, or cannot be written."""


class SchemaError(EdxdenoiseError, ValueError):
    """A Dataset lacks a variable, or has it with other dims or another kind of number."""


class ParameterError(EdxdenoiseError, ValueError):
    """A parameter is outside what is allowed."""


class DataError(EdxdenoiseError, ValueError):
    """The counts are not what the method needs: negative, not finite, all zero, not whole."""


class RecipeError(EdxdenoiseError, ValueError):
    """A recipe has an unknown key, a wrong type or an impossible value."""


class MemoryLimitError(EdxdenoiseError, MemoryError):
    """The job cannot be done within the memory limit."""


class ClusterError(EdxdenoiseError, RuntimeError):
    """A Dask scheduler or worker is missing, has failed, or does not see the files."""


class Rank(enum.IntEnum):
    """Importance of a warning; the smallest number is shown first."""

    WRONG = 1  # values are wrong, or may well be, until the user does something
    WORSE = 2  # values hold, but are worse than they could be, or their errors are too small
    NOTE = 3  # values hold; a note on how they came about, for the record


# How many warnings a terminal or a figure shows.
SHOWN = 3


class EdxdenoiseWarning(UserWarning):
    """Something that the user should know about the result; the result is still given.

    Parameters
    ----------
    finding : str
        What was found, with its numbers.
    effect : str
        What this means for the result.
    remedy : str
        What to do, or to type, about it; empty where nothing can be done.
    rank : Rank
        How much it matters.
    """

    def __init__(
        self, finding: str, effect: str = "", remedy: str = "", rank: Rank = Rank.WORSE
    ) -> None:
        # All of them are `args`, by which a warning travels from one process to another.
        super().__init__(finding, effect, remedy, rank)
        self.finding, self.effect, self.remedy, self.rank = finding, effect, remedy, rank

    def __str__(self) -> str:
        return "; ".join(part for part in (self.finding, self.effect, self.remedy) if part)


# Lists that collect warnings and whether these are shown as well, the innermost last. Not bound to
# a thread: the threads of a Dask scheduler warn for the one that waits for them.
_recorders: list[tuple[list[EdxdenoiseWarning], bool]] = []


def warn(finding: str, effect: str, remedy: str = "", *, rank: Rank) -> None:
    """Issue an `EdxdenoiseWarning`, whose parameters these are."""
    issue(EdxdenoiseWarning(finding, effect, remedy, rank))


def issue(*issued: EdxdenoiseWarning) -> None:
    """Issue warnings that exist already, such as those that a task returned."""
    for warning in issued:
        for collected, show in reversed(_recorders):
            if str(warning) not in map(str, collected):
                collected.append(warning)
            if not show:
                break
        else:
            warnings.warn(warning, stacklevel=_callers_level())


@contextmanager
def recorded(*, show: bool = True) -> Iterator[list[EdxdenoiseWarning]]:
    """Collect the warnings issued meanwhile, each once.

    Parameters
    ----------
    show : bool
        Whether they also reach whoever records outside, and in the end Python's own warnings.
    """
    collected: list[EdxdenoiseWarning] = []
    _recorders.append((collected, show))
    try:
        yield collected
    finally:
        _recorders.pop()


def ranked(issued: Iterable[EdxdenoiseWarning]) -> list[EdxdenoiseWarning]:
    """Sort warnings by rank; those of the same rank stay in the order in which they were issued."""
    return sorted(issued, key=lambda warning: warning.rank)


def warning_attrs(
    issued: Iterable[EdxdenoiseWarning], before: Mapping[str, object] | None = None
) -> dict[str, list[str]]:
    """Attributes of a result that state its warnings and notes, most important first.

    Parameters
    ----------
    issued : iterable of EdxdenoiseWarning
        Of the stage that ends.
    before : mapping, optional
        Attributes of its input, whose warnings concern the result as well; they come last.

    Returns
    -------
    dict of str to list of str
        ``warnings`` and ``notes``.

    Examples
    --------
    >>> note = EdxdenoiseWarning("2 of 9 pixels are empty", rank=Rank.NOTE)
    >>> warning_attrs([note, EdxdenoiseWarning("Not settled")])
    {'warnings': ['Not settled'], 'notes': ['2 of 9 pixels are empty']}
    """
    in_order = ranked(issued)
    texts = {
        "warnings": [str(each) for each in in_order if each.rank < Rank.NOTE],
        "notes": [str(each) for each in in_order if each.rank == Rank.NOTE],
    }
    for name, new in texts.items():
        new += [text for text in texts_of(before or {}, name) if text not in new]
    return texts


def texts_of(attrs: Mapping[str, object], name: str) -> list[str]:
    """Read an attribute that is a list of texts; of one text, NetCDF gives the text alone.

    Examples
    --------
    >>> texts_of({"warnings": "Not settled"}, "warnings"), texts_of({}, "warnings")
    (['Not settled'], [])
    """
    found = attrs.get(name, ())
    return [found] if isinstance(found, str) else [str(text) for text in found]  # type: ignore


def _callers_level() -> int:
    """Return the stack level, seen from `issue`, of the first caller outside this package."""
    package = __name__.partition(".")[0]
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and (
        frame.f_globals.get("__name__", "").partition(".")[0] == package
    ):
        level, frame = level + 1, frame.f_back
    return level
