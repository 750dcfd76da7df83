"""``python -m edxdenoise`` and the command ``edxdenoise``."""

import os
import signal
from typing import Any


def _stop(number: int, frame: Any) -> None:
    os.write(2, b"Error: interrupted; no unfinished output is left\n")
    os._exit(128 + number)


def main() -> None:
    """Run the command line; a signal ends it with one line, even before it is imported."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    from edxdenoise.cli import main as command

    try:
        command(prog_name="edxdenoise")
    finally:
        # All is done; while Python ends, a signal would end it without a word.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    main()
