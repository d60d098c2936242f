"""What tests of every part may use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data():
    """The data package beside the checkout; read in place, never copied."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    data = Path(os.environ.get("CONNECTOME_SHARED", beside)) / "data"
    if not (data / "ac3" / "ac3_z000-039.h5").is_file():
        pytest.skip("no shared data package: set CONNECTOME_SHARED to its folder")
    return data
