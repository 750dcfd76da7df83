"""A review under way: choices, a journal of those that are not saved yet, and saving.

Choices are kept beside the file, in ``FILE.review.json``, from the moment they are made: nothing is
lost with a browser, a tab or the server. The journal is removed once all is saved.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edxdenoise import schema as v
from edxdenoise.cube import result_name
from edxdenoise.errors import EdxdenoiseError, FormatError, ParameterError
from edxdenoise.io import atomic_output, check_save, open_dataset, save_dataset
from edxdenoise.review.choice import Choice, applied, check_regions, labels_of
from edxdenoise.review.views import Views, title
from edxdenoise.training.labels import add_labels
from edxdenoise.xray.families import element_of

LABELS = "labels.csv"
_LONGEST_NOTE = 2000


@dataclass(frozen=True)
class Unsaved:
    """What the journal holds beside the choice.

    Parameters
    ----------
    choice : Choice
    decided : frozenset of int
        Components that a person kept or dropped, whatever they were before.
    """

    choice: Choice
    decided: frozenset[int] = frozenset()

    def choosing(self, **changes: Any) -> Unsaved:
        """Return the same with another choice."""
        return dataclasses.replace(self, choice=dataclasses.replace(self.choice, **changes))


class Review:
    """The review of one denoised file. Methods may be called from several threads.

    Parameters
    ----------
    path : str or Path
        A .zarr or .nc that ``edxdenoise denoise`` wrote.

    Raises
    ------
    FormatError
        If it holds no components or no counts, or its journal belongs to another result.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.journal = self.path.with_name(f"{self.path.name}.review.json")
        self._lock = threading.RLock()
        self._saving = threading.Lock()
        ds = open_dataset(self.path)
        for spec in (v.COMPONENT_KEEP, v.COUNTS):
            if spec not in ds:
                raise FormatError(f"{path} holds no {spec}; make a file with edxdenoise denoise")
        check_save(self.path, overwrite=True)
        self._result = result_name(ds)
        self._written: str | None = None
        self._saved = Unsaved(Choice.of(ds))
        self._now = self._restored()
        self.views = Views.of(ds, self._now.choice.elements)
        # Named here, so that the page comes at once.
        self.views.peaks
        self.message = ""
        # Grows with every change, so that tabs know when to look again.
        self.version = 0

    # What is there

    @property
    def count(self) -> int:
        """How many components there are."""
        return int(self.views.ds.sizes[v.DIM_COMPONENT])

    @property
    def choice(self) -> Choice:
        """What is chosen now."""
        return self._now.choice

    @property
    def saving(self) -> bool:
        """Whether the file is being written."""
        return self._saving.locked()

    def status(self) -> dict[str, Any]:
        """What a page shows of the choice."""
        with self._lock:
            now = self._now
            return {
                "version": self.version,
                "keep": list(now.choice.keep),
                "decided": sorted(now.decided),
                "notes": {str(number): text for number, text in now.choice.notes.items()},
                "regions": list(now.choice.regions),
                "elements": list(now.choice.elements),
                "score": self.views.score(now.choice.keep),
                "maps": [[name, title(name)] for name in self.views.names],
                "unsaved": now != self._saved,
                "saving": self.saving,
                "message": self.message,
            }

    # Choices

    def set_keep(self, number: int, keep: bool) -> None:
        """Keep or drop a component.

        Raises
        ------
        ParameterError
            If there is no such component.
        """
        self._check_number(number)

        def change(now: Unsaved) -> Unsaved:
            others = {*now.choice.keep} - {number}
            kept = tuple(sorted(others | {number} if keep else others))
            return dataclasses.replace(now.choosing(keep=kept), decided=now.decided | {number})

        self._change(change)

    def set_note(self, number: int, text: str) -> None:
        """Write a note on a component; an empty one removes it."""
        self._check_number(number)
        text = text.strip()
        if len(text) > _LONGEST_NOTE:
            raise ParameterError(f"the note has {len(text)} letters; allowed are {_LONGEST_NOTE}")

        def change(now: Unsaved) -> Unsaved:
            notes = {key: value for key, value in now.choice.notes.items() if key != number}
            if text:
                notes[number] = text
            return now.choosing(notes=dict(sorted(notes.items())))

        self._change(change)

    def add_region(self, text: str) -> None:
        """Add a region, such as ``"core=10:40,20:60"``.

        Raises
        ------
        ParameterError
            If it is impossible or has the name of another.
        """

        def change(now: Unsaved) -> Unsaved:
            regions = (*now.choice.regions, text)
            check_regions(self.views.ds, regions)
            return now.choosing(regions=regions)

        self._change(change)

    def remove_region(self, text: str) -> None:
        """Remove a region; nothing happens if there is none."""
        self._change(
            lambda now: now.choosing(regions=tuple(r for r in now.choice.regions if r != text))
        )

    def find_local(self) -> Views:
        """Look for elements of small parts of the map, which takes a while; return the views."""
        while True:
            before = self.views
            found = before.with_local()
            with self._lock:
                if self.views.ds is not before.ds:
                    # The file was saved meanwhile.
                    continue
                # An element that was added meanwhile stays.
                for name in self.views.names[1:]:
                    if name not in found.names:
                        found = found.with_element(element_of(name))
                self.views = found
                return found

    def add_element(self, symbol: str) -> None:
        """Add an element to the maps and to the fit of all lines.

        Raises
        ------
        ParameterError
            If there is no such element, it has no line within the spectra, or a map of it is there.
        """
        with self._lock:
            self.views = self.views.with_element(symbol)
        self._change(lambda now: now.choosing(elements=(*now.choice.elements, symbol)))

    def _check_number(self, number: int) -> None:
        if not 1 <= number <= self.count:
            raise ParameterError(f"component {number} must be from 1 to {self.count}")

    def _change(self, change: Callable[[Unsaved], Unsaved]) -> None:
        with self._lock:
            after = change(self._now)
            if after == self._now:
                return
            self._write_journal(after)
            self._now = after
            self.version += 1

    # Journal

    def _write_journal(self, state: Unsaved, becomes: str | None = None) -> None:
        """Write what is not saved; without that, remove the journal.

        Raises
        ------
        FormatError
            If another review of the same file wrote to the journal meanwhile.
        """
        there = self.journal.read_text(encoding="utf-8") if self.journal.exists() else None
        if there != self._written:
            raise FormatError(
                f"{self.journal} was changed by another review of the same file; close one of them"
            )
        if state == self._saved:
            self.journal.unlink(missing_ok=True)
            self._written = None
            return
        text = json.dumps(
            {
                # Of the file that the choices are for, and of the file once they are saved.
                "results": [self._result] + ([becomes] if becomes else []),
                "keep": state.choice.keep,
                "notes": {str(number): note for number, note in state.choice.notes.items()},
                "regions": state.choice.regions,
                "elements": state.choice.elements,
                "decided": sorted(state.decided),
            },
            indent=1,
        )
        with atomic_output(self.journal, overwrite=True) as partial:
            partial.write_text(text, encoding="utf-8")
        self._written = text

    def _restored(self) -> Unsaved:
        """Return what the journal holds, or what the file does."""
        if not self.journal.exists():
            return self._saved
        try:
            text = self.journal.read_text(encoding="utf-8")
            found = json.loads(text)
            results = found["results"]
            choice = Choice(
                tuple(map(int, found["keep"])),
                {int(number): str(note) for number, note in found["notes"].items()},
                tuple(map(str, found["regions"])),
                tuple(map(str, found["elements"])),
            )
            restored = Unsaved(choice, frozenset(map(int, found["decided"])))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise FormatError(
                f"{self.journal} is no journal of a review; move it away or delete it"
            ) from error
        if self._result not in results:
            raise FormatError(
                f"{self.journal} holds choices that were not saved, for another result than that "
                f"in {self.path.name}; move it away or delete it"
            )
        self._written = text
        return restored

    # Saving

    def save(self) -> str:
        """Write the choice to the file and labels of what was decided to ``labels.csv``.

        Returns
        -------
        str
            What was written, in words.

        Raises
        ------
        EdxdenoiseError
            If the file was changed by somebody else, the choice is impossible, or nothing can be
            written. The file is then as it was, and the choice is still in the journal.
        """
        with self._saving:
            with self._lock:
                state = self._now
                self.version += 1
            ds = open_dataset(self.path)
            if (result_name(ds), Choice.of(ds)) != (self._result, self._saved.choice):
                raise FormatError(
                    f"{self.path} was changed since it was opened; start the review again"
                )
            ds = applied(ds, state.choice)
            becomes = result_name(ds)
            with self._lock:
                self._write_journal(self._now, becomes)
            words = f"saved {self.path.name}"
            labels = labels_of(state.choice.keep, state.decided)
            if labels:
                # First, since the file is then known to be as it was where this fails.
                add_labels(self.path.with_name(LABELS), self.path, labels)
                words += f" and {len(labels)} labels in {LABELS}"
            save_dataset(ds, self.path, overwrite=True)
            with self._lock:
                self._result, self._saved = becomes, state
                self._write_journal(self._now)
                self.version += 1
            self._reopen()
            return words

    def _reopen(self) -> None:
        """Look at the file as it is now: maps of components that are kept may be smoothed."""
        # Elements of few pixels are those that were found already.
        before = self.views.ds
        known = {name: before[name] for name in v.LOCAL_SPECS if name in before}
        views = Views.of(open_dataset(self.path).assign(known), self.choice.elements)
        # Peaks of the same spectra.
        vars(views)["peaks"] = self.views.peaks
        self.views = views
        with self._lock:
            self.version += 1

    def save_in_words(self) -> None:
        """Save, and say in `message` what came of it."""
        try:
            self.say(self.save())
        except (EdxdenoiseError, OSError) as error:
            self.say(f"not saved: {error}")

    def say(self, message: str) -> None:
        """Tell all pages something."""
        with self._lock:
            self.message = message
            self.version += 1
