from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from connectome_db.query.database import Database, open_database
from tests import tiny_project


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_project.write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def db(tiny: Path) -> Iterator[Database]:
    with open_database(tiny, timeout_s=60) as opened:
        yield opened
