"""Fixtures shared by all tests."""

from pathlib import Path

import pytest
from browser import Browser
from hypothesis import settings

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"

# The same examples in every run: a test fails for a change of the code, not by chance.
settings.register_profile("seeded", derandomize=True)
settings.load_profile("seeded")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real vendor files; tests that need it are skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the real vendor files, not found at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A tab of Chromium; tests that use it are skipped where there is none."""
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()
