"""What tests of every part may use."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.network_answers import FOLDER as ANSWERS

SLOW_FIRST = (
    "pipeline/test_demo", "pipeline/test_identical", "pipeline/test_incremental", "pipeline/", "versions/test_diff.",
    "versions/", "diagnosis/test_remedy", "diagnosis/", "search/test_trials", "qa/",
    "docs/",
)  # fmt: skip
"""Files are shared out in this order, then all others: a slow one taken last would leave one worker without work."""


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder for the answers of networks; workers find it in their environment."""
    if ANSWERS not in os.environ:
        os.environ[ANSWERS] = tempfile.mkdtemp(prefix="network-answers-")
        config.add_cleanup(_forget_answers)


def _forget_answers() -> None:
    shutil.rmtree(os.environ.pop(ANSWERS), ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow files first; within a file the order stays."""

    def place(item: pytest.Item) -> int:
        return next((i for i, part in enumerate(SLOW_FIRST) if f"tests/{part}" in item.nodeid), len(SLOW_FIRST))

    items.sort(key=place)


@pytest.fixture(scope="session")
def shared_data():
    """The data package beside the checkout; read in place, never copied."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    data = Path(os.environ.get("CONNECTOME_SHARED", beside)) / "data"
    if not (data / "ac3" / "ac3_z000-039.h5").is_file():
        pytest.skip("no shared data package: set CONNECTOME_SHARED to its folder")
    return data
