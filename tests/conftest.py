"""What all tests share: the folder of large files, and how hypothesis runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# OpenMP's threads spin while they wait, which costs a busy machine many times the tests' own work. Torch reads this
# when it is imported, which no plugin does.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

settings.register_profile("fewstep", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("fewstep")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse names that change from process to process: tests are shared out by them."""
    if changing := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        raise pytest.UsageError(f"an address stands in the name of a test, give ids=: {changing[0]}")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of files too large for the project: $FEWSTEP_SHARED, or `shared` beside the project's root."""
    named = os.environ.get("FEWSTEP_SHARED")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"no shared folder at {folder}; set FEWSTEP_SHARED to where it is")
    return folder
