from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from connectome_db.catalog import Catalog, default_url
from connectome_db.errors import RunError
from tests import tiny_project
from tests import tiny_rows as t
from tests.tiny_project import KINDS


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return tiny_project.write(tmp_path / "tiny")


def test_rebuild_tells_what_the_records_say(project: Path) -> None:
    with Catalog(default_url(project)) as catalog:
        assert catalog.rebuild(project) == len(KINDS)
        assert {s.stage for s in catalog.stages(project)} == set(KINDS)
        assert [m.model_id for m in catalog.models()] == [t.MODEL]
        runs = {r.stage: r for r in catalog.runs(limit=100)}
        assert (runs["segment"].units_computed, runs["segment"].units_reused) == (1, 1)
        assert runs["segment"].compute_s == 1.5  # of the unit it computed, not of the one it reused
        assert runs["segment"].facts["packages"] == {"numpy": "2.0.0"}
        (dataset,) = catalog.datasets()
        assert (dataset.voxel_z_nm, dataset.voxel_y_nm, dataset.voxel_x_nm) == t.VOXEL_NM
    assert (project / ".connectome" / "catalog.sqlite").is_file()


def test_losing_it_loses_nothing(project: Path) -> None:
    def told(catalog: Catalog) -> list[tuple[object, ...]]:
        return sorted((r.stage, r.run_id, r.git_commit, r.units_total, json.dumps(r.facts)) for r in catalog.runs(99))

    with Catalog(default_url(project)) as catalog:
        catalog.rebuild(project)
        before = told(catalog)
    for file in (project / ".connectome").iterdir():
        file.unlink()
    with Catalog(default_url(project)) as catalog:
        assert told(catalog) == []
        catalog.rebuild(project)
        assert told(catalog) == before


def test_recording_twice_changes_nothing(project: Path) -> None:
    with Catalog(default_url(project)) as catalog:
        for _ in range(2):
            catalog.record_run(project, "segment")
        assert len(catalog.runs()) == 1
        assert len(catalog.stages(project)) == 1


def test_runs_are_remembered_newest_first(project: Path) -> None:
    path = project / "provenance/segment/run.json"
    with Catalog(default_url(project)) as catalog:
        catalog.record_run(project, "segment")
        run = json.loads(path.read_text())
        path.write_text(json.dumps({**run, "run_id": "run-3", "started": "2026-02-01T00:00:00Z"}))
        catalog.record_run(project, "segment")
        assert [r.run_id for r in catalog.runs()] == ["run-3", "run-2"]
        assert [r.run_id for r in catalog.runs(1)] == ["run-3"]
        assert catalog.runs(project=project / "other") == []
        catalog.rebuild(project)
        assert [r.run_id for r in catalog.runs(99) if r.stage == "segment"] == ["run-3"]


def test_two_projects_share_a_catalog(project: Path, tmp_path: Path) -> None:
    other = tiny_project.write(tmp_path / "other", ("ingest",))
    with Catalog(f"sqlite:///{tmp_path / 'shared.sqlite'}") as catalog:
        catalog.rebuild(project)
        catalog.rebuild(other)
        assert len(catalog.datasets()) == 2
        catalog.rebuild(project)
        assert [s.stage for s in catalog.stages(other)] == ["ingest"]


def test_many_writers_at_once(project: Path) -> None:
    url = default_url(project)

    def enter(stage: str) -> None:
        with Catalog(url) as catalog:
            catalog.record_run(project, stage)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, [*KINDS, *KINDS]))
    with Catalog(url) as catalog:
        assert len(catalog.runs(100)) == len(KINDS)
        assert len(catalog.datasets()) == 1


def test_writers_in_other_processes(project: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from connectome_db.catalog import Catalog, default_url\n"
        "p = Path(sys.argv[1])\nfor s in sys.argv[2:]: Catalog(default_url(p)).record_run(p, s)"
    )
    halves = [list(KINDS)[:7], list(KINDS)[5:]]
    running = [
        subprocess.Popen([sys.executable, "-c", program, str(project), *stages], cwd=Path(__file__).parents[1])
        for stages in halves
    ]
    assert [p.wait(timeout=60) for p in running] == [0, 0]
    with Catalog(default_url(project)) as catalog:
        assert len(catalog.runs(100)) == len(KINDS)


def test_errors(project: Path, tmp_path: Path) -> None:
    with Catalog(default_url(project)) as catalog, pytest.raises(RunError, match=r"no data/nothing/record\.json"):
        catalog.record_run(project, "nothing")
    with pytest.raises(RunError, match=r"catalog nosuch://ada:\*\*\*@host/x: cannot be opened"):
        Catalog("nosuch://ada:secret@host/x")
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"not a database" * 100)
    with pytest.raises(RunError, match="cannot be opened"):
        Catalog(f"sqlite:///{damaged}")
    (project / "data/segment/record.json").write_text("{")
    with Catalog(default_url(project)) as catalog, pytest.raises(RunError, match=r"record\.json: not readable"):
        catalog.rebuild(project)
