"""A whole diagnosis on tables that are known by construction, and the command around it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from connectome_db.cli.main import app
from connectome_db.diagnosis import compare, told
from connectome_db.diagnosis.candidates import candidates, named_box, overlap
from connectome_db.diagnosis.diagnose import diagnose
from connectome_db.errors import QueryError
from tests.diagnosis import quality_project
from tests.diagnosis.quality_project import CORNER_NM, SHAPE, VOXEL_NM

PARAMS = {"synapses": {"equalise_px": 0.0}, "segment": {"equalise_px": 0.0}}
DEGREES = {name: [1] for name in ("partners_out", "partners_in", "synapses_out", "synapses_in")}


@pytest.fixture(autouse=True)
def small_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    """The volume is two clusters wide; its cells are drawn one by one, so smaller ones are independent too."""
    monkeypatch.setattr(compare, "CLUSTER_NM", (240.0, 512.0, 512.0))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return project(tmp_path_factory.mktemp("diagnose"))


def project(root: Path) -> Path:
    """The project of `quality_project` with the few tables that a diagnosis reads besides quality."""
    quality_project.write(root)
    segment = root / "data" / "segment"
    segment.mkdir()
    span = {
        f"{axis}{end}_vx": [0 if end == 0 else size] for axis, size in zip("zyx", SHAPE, strict=True) for end in (0, 1)
    }
    centre = {f"{axis}_vx": [size / 2] for axis, size in zip("zyx", SHAPE, strict=True)}
    one = pa.array([7], pa.uint64())
    pq.write_table(pa.table({"supervoxel": one, "size_vx": [100], **span, **centre}), segment / "supervoxel.parquet")
    record = {"stage": "segment", "units": 1, "outputs": {}, "voxel_nm": list(VOXEL_NM), "params": {}, "overrides": []}
    (segment / "record.json").write_text(json.dumps(record))
    cores = {
        f"core_{axis}{end}": [0 if end == 0 else n] for axis, n in zip("zyx", SHAPE, strict=True) for end in (0, 1)
    }
    pq.write_table(pa.table({"unit": one, **cores}), segment / "units.parquet")
    for stage, name, columns in (
        ("agglomerate", "member", {"supervoxel": one, "object": one}),
        ("graph", "neuron", {"neuron": one, "touches_border": [True], **DEGREES}),
    ):
        (root / "data" / stage).mkdir(exist_ok=True)
        pq.write_table(pa.table(columns), root / "data" / stage / f"{name}.parquet")
    return root


def test_the_corner_is_found_and_its_cause_named(root):
    found = diagnose(root, params=PARAMS)
    assert found.verdict == "artefact"
    assert found.cause is not None
    assert (found.cause.name, found.cause.metric) == ("staining", "raw_membrane_contrast")
    assert overlap(found.region.box_nm, CORNER_NM) > 0.6
    assert found.difference is not None
    assert found.difference.relative == pytest.approx(-0.3, abs=0.04)
    assert found.real
    assert found.confidence > 0.9
    assert [s.level for s in found.walk] == sorted((s.level for s in found.walk), reverse=True)
    assert {p.id for p in found.proposals} == {"flag", "proofread", "report", "reprocess"}


def test_a_region_like_the_rest_has_no_difference(root):
    found = diagnose(root, region="top-left", reference="top-right")
    assert found.verdict == "no difference"
    assert found.cause is None
    assert found.proposals == ()


def test_a_difference_of_the_wiring_alone_is_consistent_with_biology(tmp_path):
    root = project(tmp_path / "p")
    for stage, name in (("measure_raw", "quality_raw"), ("measure_volume", "quality_volume")):
        path = root / "data" / stage / f"{name}.parquet"
        rows = pq.read_table(path).to_pylist()
        usual = {m: np.median([r["value"] for r in rows if r["metric"] == m]) for m in {r["metric"] for r in rows}}
        rng = np.random.default_rng(3)
        for r in rows:
            if r["metric"] != "synapse_density":
                r["value"] = usual[r["metric"]] * (1 + 0.03 * rng.standard_normal())
        pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(path)), path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)
    found = diagnose(root, region=",".join(str(v) for v in CORNER_NM))
    assert found.verdict == "biology"
    assert found.cause is None
    assert "consistent with biology" in told.in_words(found)


def test_json_holds_what_the_pages_and_the_remedy_read(root):
    plain = json.loads(json.dumps(told.to_json(diagnose(root, params=PARAMS), "corner", "ab12")))
    assert plain["verdict"] == "artefact"
    assert plain["cause"]["layer"] == "ingest"
    assert plain["difference"]["real"] is True
    assert plain["difference"]["ci95"][0] < plain["difference"]["relative"] < plain["difference"]["ci95"][1]
    assert len(plain["region"]["box_nm"]) == 6
    again = next(p for p in plain["proposals"] if p["id"] == "reprocess")
    assert again["region"]["box_nm"] == pytest.approx(plain["region"]["box_nm"], abs=0.01)


def test_flags_of_early_layers_come_first(root):
    assert [c.level for c in candidates(root, diagnose(root).bounds_nm)][:1] == ["L1"]


def test_names_of_boxes():
    bounds = (0.0, 0.0, 0.0, 100.0, 400.0, 800.0)
    assert named_box("centre", bounds, [])[1] == (0, 100, 200, 100, 300, 600)
    assert named_box("bottom-left", bounds, [])[1] == (0, 200, 0, 100, 400, 400)
    assert named_box("mine", bounds, [("mine", (0, 0, 0, 1, 1, 1))])[1] == (0, 0, 0, 1, 1, 1)
    assert named_box("0,0,0,10,20,30", bounds, [])[1] == (0, 0, 0, 10, 20, 30)
    for wrong in ("cornr", "1,2,3", "0,0,0,10,20,x", "0,0,0,0,20,30", "900,0,0,950,20,30"):
        with pytest.raises(QueryError, match="wanted"):
            named_box(wrong, bounds, [("corner", bounds)])


def test_unknown_names_are_refused_with_the_nearest(root):
    with pytest.raises(QueryError, match="out_degree"):
        diagnose(root, metric="out_degre")
    with pytest.raises(QueryError, match="measure_raw"):
        diagnose(root / "nowhere")


def test_the_command(root, tmp_path):
    out, page = tmp_path / "d.json", tmp_path / "d.html"
    run = CliRunner().invoke(app, ["diagnose", "--project", str(root), "--json", str(out), "--html", str(page)])
    assert run.exit_code == 0, run.output
    assert "Artefact: staining" in run.output
    assert "connectome regions add suspect --box-nm" in run.output
    assert json.loads(out.read_text())["cause"]["name"] == "staining"
    assert "staining" in page.read_text()
    listed = CliRunner().invoke(app, ["diagnose", "--list"])
    assert "synapse_density" in listed.output
