"""A remedy on a small phantom: two tries in one block, the better one stays, all else is as it was, and back again."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from connectome_db import config, dvcfile, newproject
from connectome_db.cli.main import app
from connectome_db.config import Project
from connectome_db.diagnosis.remedies import remedy, report, runs
from connectome_db.diagnosis.remedies.region_metrics import Difference, score
from connectome_db.diagnosis.remedies.remedy import Remedy
from connectome_db.diagnosis.remedies.runs import Made
from connectome_db.errors import ConfigError, RunError
from connectome_db.phantom.acquire import AcquireConfig
from connectome_db.phantom.simulate import SimulateConfig, simulate
from connectome_db.phantom.tissue import TissueConfig
from connectome_db.revisions import open_revision
from connectome_db.stages.pipeline import STAGES
from tests.pipeline.conftest import small_blocks, tree
from tests.versioned import run_all

WITHOUT_FLAGS = tuple(s for s in STAGES if s.name != "flag")
"""Flags take permutations of every metric, and no remedy reads them."""
BOX_NM = [0, 512, 512, 240, 1024, 1024]
"""A block of (8, 64, 64) voxels, well inside the tissue."""
BLOCK = "64-128_64-128_0-8"


def load(root: Path) -> Project:
    return config.load(root, WITHOUT_FLAGS)


def run_here(root: Path) -> None:
    """What `dvc repro` does, in this process."""
    dvcfile.write_identity(load(root))
    run_all(load(root))


def diagnosis(**changes: Any) -> dict[str, Any]:
    where = {"name": "suspect", "box_nm": BOX_NM}
    found: dict[str, Any] = {
        "format": 1,
        "metric": "synapse_density",
        "region": where,
        "reference": {"name": "rest", "box_nm": None},
        "verdict": "artefact",
        "proposals": [
            {"id": "flag", "title": "Name it", "region": where, "overrides": []},
            {
                "id": "reprocess",
                "title": "Again",
                "region": where,
                "overrides": [
                    {"stage": "synapses", "params": {"high": 0.8, "low": 0.7}},
                    {"stage": "segment", "params": {"seed_window_nm": 60}},
                ],
            },
        ],
    }
    return found | changes


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has been run and committed. Not to be changed."""
    root = tmp_path_factory.mktemp("remedy") / "p"
    simulate(
        SimulateConfig(
            tissue=TissueConfig(seed=5, shape_vx=(10, 160, 160), synapses_per_um3=20, synapse_apart_nm=320),
            acquire=AcquireConfig(overlap=0.3, stage_error_px=2.0, shift_px=5.0, rotation_deg=0.4),
        ),
        root,
    )
    newproject.create(
        root,
        name="small",
        manifest="raw/manifest.csv",
        voxel_nm=(30, 8, 8),
        stages=WITHOUT_FLAGS,
        changes=small_blocks(),
    )
    run_here(root)
    newproject.dvc(root, "commit", "-f", "-q", *(s.name for s in WITHOUT_FLAGS))
    newproject.commit(root, "before")
    return root


@dataclass(frozen=True)
class Done:
    root: Path
    params: bytes
    data: dict[str, str]
    tries: list[Remedy]
    made: Made


@pytest.fixture(scope="module")
def done(committed: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Two doses of the proposal were tried, and the better one, or neither, is in place."""
    root = Path(shutil.copytree(committed, tmp_path_factory.mktemp("done") / "p", symlinks=True))
    params, data = (root / "params.yaml").read_bytes(), tree(root / "data")
    project = load(root)
    wish = remedy.wish_of(project, diagnosis(), "reprocess")
    tries = [remedy.plan(project, wish, v) for v in remedy.doses(project, wish.values, 2)]
    assert (root / "params.yaml").read_bytes() == params
    return Done(root, params, data, tries, runs.make(tries, run_here, truth=True))


def test_doses_go_the_proposed_way(committed: Path) -> None:
    project = load(committed)
    values = {"synapses.high": 0.8, "segment.seed_window_nm": 60, "segment.model": "phantom-affinity"}
    high = [round(d["synapses.high"], 3) for d in remedy.doses(project, values, 4)]
    assert high == [0.85, 0.8, 0.75, 0.7]  # from 0.9
    assert [d["segment.seed_window_nm"] for d in remedy.doses(project, values, 2)] == [60, 80]  # from 40
    with pytest.raises(ConfigError, match="name the values to try with --sweep"):
        remedy.doses(project, {"segment.model": "other"}, 2)


def test_the_try_that_is_most_like_the_reference_stays(done: Done) -> None:
    made = done.made
    scores = [t.score for t in made.tries]
    assert len(scores) == 2
    assert np.isfinite([*scores, made.before.score]).all()
    best = int(np.argmin(scores))
    text = (done.root / "params.yaml").read_text()
    if scores[best] < made.before.score:
        assert made.kept is made.tries[best]
        assert text == done.tries[best].change.new
    else:
        assert made.kept is None
        assert text.encode() == done.params


def test_all_outside_the_region_and_its_reach_is_byte_identical(done: Done) -> None:
    found = done.made.outside
    assert found.wrong == ()
    assert found.identical == found.elsewhere > 0
    stages = {s.stage: s for s in found.stages}
    segment = stages["segment"]
    assert (segment.region, segment.reach, segment.elsewhere) == (1, 0, segment.units - 1)
    assert segment.units > 8
    assert stages["render"].region_same == stages["render"].region  # before what changed
    assert all(s.region + s.reach + s.elsewhere == s.units for s in found.stages)
    # The files themselves, with none of the code that was just believed.
    after = tree(done.root / "data" / "segment" / "supervoxels")
    before = {n.removeprefix("segment/supervoxels/"): b for n, b in done.data.items() if "segment/supervoxels" in n}
    chunks = [n for n in after if not n.endswith("info")]
    assert {n.split("/")[1] for n in chunks if after[n] != before[n]} <= {BLOCK}
    for stage in ("ingest", "montage", "match", "align", "render", "mask"):
        assert {f"{stage}/{n}": b for n, b in tree(done.root / "data" / stage).items()} == {
            n: b for n, b in done.data.items() if n.startswith(f"{stage}/")
        }


def test_what_it_cost_is_what_was_computed(done: Done) -> None:
    first = {c.stage: c for c in done.made.tries[0].costs}
    assert first["segment"].computed == 1
    assert first["segment"].reused == len(pq.read_table(done.root / "data" / "segment" / "units.parquet")) - 1
    assert first["segment"].seconds > 0
    assert (first["render"].computed, first["render"].source) == (0, "not run")
    assert first["agglomerate"].computed == 1


def test_the_truth_is_parted_and_complete(done: Done) -> None:
    for side in (done.made.before, done.made.after):
        assert side.truth is not None
        region, outside = side.truth["region"], side.truth["outside"]
        link = pq.read_table(done.root / "data" / "graph" / "link.parquet")
        if side is done.made.after:
            assert region.found + outside.found == int(np.asarray(link["counted"]).sum())
        assert region.true + outside.true > 0
        assert outside.matched <= min(outside.true, outside.found)
    before, after = (t.truth for t in (done.made.before, done.made.after))
    assert before is not None
    assert after is not None
    assert before["region"].true == after["region"].true


def test_the_report_is_json_and_names_the_deficit(done: Done, tmp_path: Path) -> None:
    path = tmp_path / "remedy.json"
    report.write_json(done.tries[0], done.made, path)
    told = json.loads(path.read_text())
    assert told["metric"] == "synapse_density"
    assert told["region"]["box_vx"] == [0, 64, 64, 8, 128, 128]
    assert told["outside"]["units"] == told["outside"]["identical"]
    assert len(told["tries"]) == 2
    table = report.to_rich(done.tries[0], done.made)
    assert table is not None
    with pytest.raises(ConfigError, match="cannot be written"):
        report.write_json(done.tries[0], done.made, tmp_path / "no" / "remedy.json")


def test_there_and_back_again(committed: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(committed, tmp_path / "p", symlinks=True))
    params, data = (root / "params.yaml").read_bytes(), tree(root / "data")
    project = load(root)
    wish = remedy.wish_of(project, diagnosis(), "reprocess", "mine")
    plan = remedy.plan(project, wish, {"segment.seed_window_nm": 60})
    made = runs.make([plan], run_here)
    assert made.kept is not None  # a single remedy was asked for, and stays
    assert made.before.truth is None
    reach = {s.stage: s for s in made.outside.stages}
    assert made.outside.wrong == ()
    assert (reach["segment"].region, reach["segment"].region_same) == (1, 0)
    assert (reach["agglomerate"].reach, reach["agglomerate"].elsewhere) == (1, 0)  # it runs once and reads everything
    written = (root / "params.yaml").read_text()
    assert set(params.decode().splitlines()) - set(written.splitlines()) == {"regions: {}", "overrides: {}"}
    # A second one has nothing to be compared with.
    with pytest.raises(RunError, match="--keep` or `--undo"):
        runs.reference(load(root))
    # What a person adds afterwards is not lost by an undo.
    (root / "params.yaml").write_text(written + "# mine\n")
    with pytest.raises(ConfigError, match="edited after the remedy"):
        runs.undo(load(root), run_here)
    (root / "params.yaml").write_text(written)
    back = runs.undo(load(root), run_here)
    assert sum(c.computed for c in back.costs) == 0
    assert (back.differing, back.commit) == (0, open_revision(root, "HEAD").commit)
    assert (root / "params.yaml").read_bytes() == params
    assert tree(root / "data") == data
    with pytest.raises(ConfigError, match="no remedy to keep or to undo"):
        runs.keep(load(root))


def test_a_run_that_fails_says_how_to_go_on_and_back(committed: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(committed, tmp_path / "p", symlinks=True))
    params = (root / "params.yaml").read_bytes()
    plan = remedy.plan(load(root), remedy.wish_of(load(root), diagnosis(), "reprocess"), {"synapses.high": 0.8})

    def fails(root: Path) -> None:
        raise RunError("out of power")

    with pytest.raises(RunError, match=r"(?s)out of power.*--undo"):
        runs.make([plan], fails)
    assert (root / "params.yaml").read_bytes() != params
    assert runs.undo(load(root), run_here).differing == 0
    assert (root / "params.yaml").read_bytes() == params


def test_only_a_committed_state_is_a_reference(committed: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(committed, tmp_path / "p", symlinks=True))
    assert runs.reference(load(root)).commit is not None
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(text + "# edited\n")
    with pytest.raises(RunError, match=r"params\.yaml is not as committed .*git commit"):
        runs.reference(load(root))
    (root / "params.yaml").write_text(text)
    record = root / "data" / "graph" / "record.json"
    value = json.loads(record.read_text()) | {"units": "0" * 64}
    record.unlink()
    record.write_text(json.dumps(value))
    with pytest.raises(RunError, match="data/graph is not what HEAD has"):
        runs.reference(load(root))


def test_an_override_that_was_the_mistake_is_taken_back(committed: Path, tmp_path: Path) -> None:
    """As a diagnosis proposes it for a typo: the region gets the value of everywhere else."""
    root = Path(shutil.copytree(committed, tmp_path / "p", symlinks=True, ignore=shutil.ignore_patterns("data")))
    path = root / "params.yaml"
    text = path.read_text()
    typo = text.replace("regions: {}", "regions:\n  corner: {box_vx: [0, 64, 64, 8, 128, 128]}").replace(
        "overrides: {}", "overrides:\n  synapses:\n    corner: {high: 0.99, low: 0.7}"
    )
    path.write_text(typo)
    wish = remedy.wish_for(load(root), "corner")
    plan = remedy.plan(load(root), wish, {"synapses.high": 0.9})
    assert dict(plan.target.overrides["synapses"][0].values) == {"low": 0.7}
    assert "taken back" in plan.change.done[0]
    with pytest.raises(ConfigError, match=r"is what params\.yaml says already"):
        remedy.plan(load(root), wish, {"synapses.low": 0.7})


def difference(metric: str, region: float, reference: float, measure: str = "um-3") -> Difference:
    return Difference(metric, "graph", measure, region, reference, None, None, 1, 1, "low")


def test_the_score_is_nought_where_region_and_reference_are_alike() -> None:
    assert score({"synapse_density": difference("synapse_density", 3.0, 3.0)}) == 0
    half = difference("synapse_density", 1.5, 3.0)
    twice = difference("synapse_density", 6.0, 3.0)
    assert half.distance == pytest.approx(twice.distance) == pytest.approx(np.log(2))
    size = difference("object_size", -1.0, 0.0, "log10 um3")
    assert size.distance == pytest.approx(np.log(10))
    # Confidence falls with every threshold that is lowered, and is not held against a try.
    both = {"synapse_density": half, "synapse_confidence": difference("synapse_confidence", 0.1, 0.9, "1")}
    assert score(both) == pytest.approx(half.distance)
    assert np.isnan(score({}))


REFUSED = [
    ({}, ["no.json"], "no such file"),
    ({"format": 7}, ["d.json"], "wanted a diagnosis of format 1, got 7"),
    ({"proposals": None}, ["d.json"], "wanted a diagnosis with `proposals`"),
    ({}, ["d.json", "--proposal", "reproces"], "did you mean 'reprocess'?"),
    ({}, ["d.json", "--proposal", "flag"], "no parameter to change"),
    ({"verdict": "biology"}, ["d.json"], "its verdict is 'biology'"),
    ({}, ["d.json", "--metric", "synapse_densty"], "did you mean 'synapse_density'?"),
    ({}, ["d.json", "--set", "agglomerate.threshold=0.4"], "runs once for the whole dataset"),
    ({}, ["d.json", "--set", "segment.boundry=0.4"], "did you mean 'boundary'?"),
    ({}, ["d.json", "--set", "boundary"], "wanted stage.parameter=value"),
    ({}, ["d.json", "--model", "mask=x"], "stage mask uses no network"),
    ({}, ["d.json", "--model", "segment=phantm-affinity"], "did you mean 'phantom-affinity'?"),
    ({}, ["d.json", "--sweep", "segment.boundary"], "wanted stage.parameter=value,value"),
    ({}, ["d.json", "--sweep", "segment.boundary=0.4,much"], "boundary"),
    ({}, ["d.json", "--sweep", f"synapses.high={','.join(['0.8'] * 33)}"], "wanted at most 32"),
    ({}, ["d.json", "--sweep", "synapses.high=0.8", "--try", "2"], "wanted one of them"),
    ({}, ["--region", "nowhere", "--set", "synapses.high=0.8"], "no region 'nowhere'"),
    ({}, [], "wanted a diagnosis"),
    ({}, ["--undo"], "no remedy to keep or to undo"),
    ({}, ["--undo", "--keep"], "wanted one of them"),
]


@pytest.mark.parametrize(("changes", "arguments", "said"), REFUSED)
def test_mistakes_are_told(
    committed: Path, tmp_path: Path, changes: dict[str, Any], arguments: list[str], said: str
) -> None:
    params = (committed / "params.yaml").read_bytes()
    path = tmp_path / "d.json"
    path.write_text(json.dumps(diagnosis(**changes)))
    given = [str(tmp_path / a) if a.endswith(".json") else a for a in arguments]
    result = CliRunner().invoke(app, ["remedy", *given, "-C", str(committed)])
    assert result.exit_code == 1
    assert isinstance(result.exception, ConfigError)
    assert said in str(result.exception)
    assert (committed / "params.yaml").read_bytes() == params


def test_a_dry_run_changes_nothing(committed: Path, tmp_path: Path) -> None:
    before = {n: b for n, b in tree(committed).items() if not n.startswith((".git/", ".connectome/"))}
    path = tmp_path / "d.json"
    path.write_text(json.dumps(diagnosis()))
    result = CliRunner().invoke(app, ["remedy", str(path), "--dry-run", "-C", str(committed)])
    assert result.exit_code == 0, result.exception
    assert "segment.seed_window_nm = 60 in suspect; 40.0 elsewhere" in result.output
    assert "Nothing was changed." in result.output
    assert {n: b for n, b in tree(committed).items() if not n.startswith((".git/", ".connectome/"))} == before
