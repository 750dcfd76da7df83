"""Progress bars, warnings and errors of all commands."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    import xarray as xr

    from edxdenoise.recipe import Recipe


class Verbosity:
    """Level of output that a user wants: -1 nothing unasked, 0 usual, 1 more, 2 tracebacks."""

    level = 0


def _show_foreign(message: Any, category: type, *args: Any, **kwargs: Any) -> None:
    """Print what a library warns of."""
    click.echo(f"{category.__name__}: {message}", err=True)


@contextmanager
def _warnings_at_the_end() -> Iterator[None]:
    """Print the most important warnings when all is done, or all of them and notes with -v."""
    from edxdenoise.errors import SHOWN, Rank, ranked, recorded

    if Verbosity.level >= 1:
        warnings.showwarning = _show_foreign
    else:
        warnings.simplefilter("ignore")
    with recorded(show=False) as issued:
        try:
            yield
        finally:
            in_order = ranked(issued)
            shown = in_order
            if Verbosity.level < 1:
                shown = [each for each in in_order if each.rank < Rank.NOTE]
                shown = shown[: SHOWN if Verbosity.level == 0 else 0]
            for each in shown:
                label = "Note" if each.rank == Rank.NOTE else "Warning"
                click.secho(f"{label}: {printable(str(each))}", fg="yellow", err=True)
            warned = sum(each.rank < Rank.NOTE for each in in_order)
            if Verbosity.level == 0 and warned > SHOWN:
                say(f"{warned - SHOWN} more warnings: repeat with -v to see them")


class _Stopped(click.ClickException):
    """Ended by a signal, with the exit status shells give it: 128 and its number."""

    words = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}

    def __init__(self, number: int) -> None:
        super().__init__(f"{self.words[signal.Signals(number)]}; no unfinished output is left")
        self.exit_code = 128 + number  # type: ignore[misc]
        self.stderr: int | None = None

    def show(self, file: Any = None) -> None:
        """Print the one line, also where nothing else is heard any more."""
        if self.stderr is None:
            super().show(file)
            return
        # A progress bar may have hidden the cursor.
        cursor = "\r\x1b[K\x1b[?25h" if os.isatty(self.stderr) else ""
        os.write(self.stderr, f"{cursor}Error: {self.format_message()}\n".encode())


class _Interrupt(KeyboardInterrupt):
    """As a KeyboardInterrupt, but not that very class.

    One raised while text runs by ``exec``, as dataclasses do on import, lets CPython end the
    process by SIGINT whatever exit status is asked for later.
    """


@contextmanager
def _stopping() -> Iterator[None]:
    """End by SIGTERM as by Ctrl-C: everything cleans up after itself, and one line says so."""
    numbers: list[int] = []
    stderr = None

    def stop(number: int, frame: Any) -> None:
        nonlocal stderr
        # A second signal must not stop the cleaning up after the first.
        if numbers:
            return
        numbers.append(number)
        if Verbosity.level < 2:
            stderr = _deaf_stderr()
        raise _Interrupt

    handlers = {number: signal.signal(number, stop) for number in _Stopped.words}
    try:
        yield
    except BaseException as error:
        # Where a library is being imported, an interrupt comes out as an ImportError.
        if numbers:
            stopped = _Stopped(numbers[0])
            stopped.stderr = stderr
            raise stopped from error
        raise
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _deaf_stderr() -> int:
    """Discard what is written to stderr from now on, by any thread; return a copy of it."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    return kept


def printable(text: str) -> str:
    """Text on one line, with control characters as escape sequences that do nothing.

    Examples
    --------
    >>> printable("a\\x1b[31m\\nb")
    'a\\\\x1b[31m b'
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in " ".join(text.split())
    )


@contextmanager
def plain_errors() -> Iterator[None]:
    """One line and exit status 1 for whatever goes wrong; the traceback only with -vv."""
    from edxdenoise.errors import EdxdenoiseError

    try:
        with _stopping(), _warnings_at_the_end():
            yield
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except BrokenPipeError:
        # Whoever read our output, such as head, has seen enough.
        sys.stdout = open(os.devnull, "w")
        sys.exit(0)
    except EdxdenoiseError as error:
        if Verbosity.level >= 2:
            raise
        raise click.ClickException(printable(str(error))) from error
    except Exception as error:
        # The one place where any failure ends: a user must never meet a traceback unasked.
        if Verbosity.level >= 2:
            raise
        text = printable(str(error)) or "no message"
        raise click.ClickException(
            f"unexpected {type(error).__name__}: {text}; run again with -vv for the traceback"
        ) from error


class Progress:
    """A progress bar for each stage, on stderr and only in a terminal.

    Called with the name of a stage, it gives a context during which the tasks of local Dask
    schedulers move the bar; on a cluster the bar only shows that work goes on.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn
        from rich.progress import Progress as Bars
        from rich.progress import TaskProgressColumn, TextColumn, TimeElapsedColumn

        self._bars = Bars(
            TextColumn("{task.description:12}"),
            BarColumn(bar_width=30),
            TimeElapsedColumn(),
            TaskProgressColumn(),
            console=Console(stderr=True),
            disable=Verbosity.level < 0 or not sys.stderr.isatty(),
        )

    def count(self, label: str, done: int, total: int) -> None:
        """Move the last bar; a count that starts again starts a new bar."""
        tasks = self._bars.tasks
        if not tasks or tasks[-1].total != total or done <= tasks[-1].completed:
            self._bars.add_task(label, total=total)
        self._bars.update(self._bars.tasks[-1].id, description=label, completed=done)

    def say(self, text: str) -> None:
        """Say what is about to be done."""
        say(text)

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    @contextmanager
    def __call__(self, label: str) -> Iterator[None]:
        """Show the stage while the context lasts; with -v its time in the end."""
        from dask.callbacks import Callback

        bar = self._bars.add_task(label, total=None)
        task = self._bars.tasks[-1]
        done = 0

        def started(graph: Any, state: dict[str, Any]) -> None:
            total = done + len(state["ready"]) + len(state["waiting"])
            self._bars.update(bar, total=total)

        def advanced(*args: Any) -> None:
            nonlocal done
            done += 1
            self._bars.update(bar, completed=done)

        def finished(*args: Any) -> None:
            # How much is still to come is not known until the next graph starts.
            task.total = None

        start = time.perf_counter()
        with Callback(start_state=started, posttask=advanced, finish=finished):
            yield
        self._bars.update(bar, total=max(done, 1), completed=max(done, 1))
        if Verbosity.level >= 1:
            click.echo(f"{label}: {time.perf_counter() - start:.1f} s", err=True)


@contextmanager
def counting() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each label, which is told how far things are: called with label, done, all."""
    with Progress() as progress:
        yield progress.count


@dataclass(frozen=True)
class Computing:
    """What a command was told of where to compute, and with how much memory."""

    scheduler: str
    workers: int | None
    memory_limit: int | None
    wait_for_workers: tuple[int, float] | None

    @property
    def limits(self) -> dict[str, int | None]:
        """Keywords of the functions of `edxdenoise.run`."""
        return {"workers": self.workers, "memory_limit": self.memory_limit}

    @contextmanager
    def started(self) -> Iterator[Progress]:
        """Enter the scheduler, with progress bars for what is computed on it."""
        from edxdenoise.blocks import scheduler
        from edxdenoise.cluster import WAIT_FOR_WORKERS

        waiting = self.wait_for_workers or WAIT_FOR_WORKERS
        with scheduler(self.scheduler, **self.limits, wait_for_workers=waiting, say=say):
            with Progress() as progress:
                yield progress


@dataclass(frozen=True)
class Job(Computing):
    """A recipe's work: shown as its recipe, or done and summed up."""

    overwrite: bool
    print_recipe: bool

    def do(self, function: Callable[..., xr.Dataset], recipe: Recipe, **options: Any) -> None:
        """Print the recipe where that was asked for; else do it, and say what was found."""
        from edxdenoise.cli.summaries import print_result

        if self.print_recipe:
            click.echo(recipe.to_toml(), nl=False)
            return
        with self.started() as progress:
            result = function(
                recipe, overwrite=self.overwrite, progress=progress, **self.limits, **options
            )
        if Verbosity.level >= 0:
            print_result(result)
        outputs = (recipe.output.file, recipe.output.report)
        folder = options.get("folder", ".")
        say("wrote " + " and ".join(str(Path(folder, name)) for name in outputs if name))


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the options that were typed, whatever their values: these beat what a recipe says."""
    context = click.get_current_context()
    return {
        name: value
        for name, value in options.items()
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }


def say(text: str) -> None:
    """Say what was done, on stderr: results alone go to stdout."""
    if Verbosity.level >= 0:
        click.echo(printable(text), err=True)


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table on stdout, plain where stdout is no terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for name in columns:
        table.add_column(
            name, justify="left" if name in ("", "title", "name", "outcome", "keep") else "right"
        )
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    # Files and pipes have no width; rich would fold the rows at 80.
    width = None if sys.stdout.isatty() else 200
    Console(width=width).print(table)
