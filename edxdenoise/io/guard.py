"""The one boundary to RosettaSciIO: its failures and its chatter end here."""

from __future__ import annotations

import logging
import struct
import warnings
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from edxdenoise.errors import EdxdenoiseError, FormatError, issue, recorded

_logger = logging.getLogger(__name__)
_READER_LOGGER = "rsciio"

# What readers raise when bytes are missing: StopIteration and ParseError from the Bruker reader,
# struct.error from a header read past the end, zlib.error from a cut block.
_CUT_SHORT = (
    StopIteration,
    EOFError,
    struct.error,
    zlib.error,
    IndexError,
    ElementTree.ParseError,
)

T = TypeVar("T")


class _Forwarder(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _logger.debug("reader: %s", one_line(record.getMessage()))


@contextmanager
def _quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Keep what RosettaSciIO logs and warns of off the terminal; yield the list of warnings.

    Its own handler prints, in colours, to stdout, where results belong. The messages go to this
    module's debug log.
    """
    import rsciio  # noqa: F401  (its import installs the handler that is taken off here)

    logger = logging.getLogger(_READER_LOGGER)
    handlers, propagate = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [_Forwarder()], False
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield caught
    finally:
        logger.handlers, logger.propagate = handlers, propagate


def guarded(path: Path, work: Callable[[], T]) -> T:
    """Run `work`, which reads `path`; any failure becomes a FormatError of one line.

    Of the warnings given meanwhile only our own come through.

    Raises
    ------
    FormatError
        Naming the file, what is wrong and what to do.
    """
    try:
        with _quiet() as caught, recorded(show=False) as issued:
            result = work()
    except EdxdenoiseError:
        raise
    # The readers of 40 formats fail in every way there is on a file that is damaged or foreign.
    # This is the only place where all of them are met.
    except Exception as error:
        raise FormatError(f"cannot read '{path}': {_explain(error)}") from error
    for warning in caught:
        _logger.debug("reader: %s", one_line(str(warning.message)))
    issue(*issued)
    return result


def one_line(text: str) -> str:
    """Text without line breaks and repeated blanks."""
    return " ".join(text.split())


def _explain(error: Exception) -> str:
    text = one_line(str(error)).rstrip(".")
    if isinstance(error, PermissionError):
        return "no permission to read it; change its access rights"
    if isinstance(error, ImportError):
        return f"its reader is not complete here ({text}); install what is missing or convert it"
    if "truncated file" in text:
        return "the file is cut short; copy or export it again"
    if isinstance(error, _CUT_SHORT):
        detail = f" ({text})" if text else ""
        return f"the file is cut short or damaged{detail}; copy or export it again"
    if "file signature not found" in text:
        return "it is no HDF5 file, as its extension says; check the file or its extension"
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is; use a larger machine, or copy it again"
    if isinstance(error, KeyError):
        return f"the entry {text} is missing; the file is damaged or of a kind that is not known"
    return f"{text or type(error).__name__}; check that the file is whole and what its name says"
