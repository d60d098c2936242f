"""One imported connectome, made by the real pipeline, and the tiny native one."""

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

SYNAPSES = [
    # pre, post, synapses, z, y, x, roi
    ("A1", "B1", 4, 10, 10, 10, "EB"), ("A1", "B1", 2, 20, 10, 10, "FB"), ("A2", "B1", 3, 30, 10, 10, "EB"),
    ("A1", "B2", 1, 10, 50, 10, "EB"), ("A2", "B2", 5, 10, 60, 10, "FB"), ("B1", "C", 2, 10, 10, 90, "FB"),
    ("B2", "C", 7, 10, 20, 90, "FB"), ("C", "A1", 1, 90, 90, 90, "EB"), ("C", "C", 1, 90, 90, 80, "EB"),
    ("B1", "B2", 1, 50, 50, 50, "EB"),
]  # fmt: skip
TYPES = {"A1": ("PN", "left"), "A2": ("PN", "right"), "B1": ("KC-ab", "left"), "B2": ("KC-g", "left")}


@pytest.fixture(scope="session")
def listed_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    lines = [",".join(map(str, row)) for row in SYNAPSES]
    (folder / "s.csv").write_text("\n".join(["pre,post,synapses,z_nm,y_nm,x_nm,roi", *lines]) + "\n")
    said = [f"{name},{','.join(values)}" for name, values in TYPES.items()]
    (folder / "n.csv").write_text("\n".join(["neuron,type,side", *said]) + "\n")
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
