"""The connectome of the page on Python, imported by the real pipeline, and the tiny native one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import connectome_db
from connectome_db import importing
from connectome_db.api.connectome import Connectome
from connectome_db.finish import finish
from connectome_db.runner import run_units
from tests import tiny_project
from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "api.md"
SYNAPSES, NEURONS = blocks(PAGE, "csv")


@pytest.fixture(scope="session")
def listed_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    (folder / "s.csv").write_text(SYNAPSES)
    (folder / "n.csv").write_text(NEURONS)
    root = folder / "toy"
    chosen = importing.choose(folder / "s.csv", root, importing.Given(), annotated_by=[folder / "n.csv"])
    project = importing.take(root, chosen, name="toy")
    for stage in project.stages:
        finish(*run_units(project, stage.name))
    return root


@pytest.fixture(scope="session")
def toy(listed_project: Path) -> Iterator[Connectome]:
    with connectome_db.open(listed_project) as db:
        yield db


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connectome]:
    with connectome_db.open(tiny_project.write(tmp_path_factory.mktemp("native"))) as db:
        yield db
