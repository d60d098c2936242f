from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
import tiny_project

from connectome_db.query.database import Database, open_database


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_project.write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def db(tiny: Path) -> Iterator[Database]:
    with open_database(tiny, timeout_s=60) as opened:
        yield opened
