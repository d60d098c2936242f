"""The pipeline with a flood-filling network: however it is run, `data/` is the same, byte for byte."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from connectome_db import config, newproject, prepare, runner
from connectome_db.cli.main import app
from connectome_db.config import Project
from connectome_db.errors import ConfigError, RunError
from connectome_db.finish import finish
from connectome_db.kernels import flood as flood_kernel
from connectome_db.networks.loading import load_model
from connectome_db.phantom.acquire import AcquireConfig
from connectome_db.phantom.simulate import SimulateConfig, simulate
from connectome_db.phantom.tissue import TissueConfig
from connectome_db.stages.flooded import STAGES
from tests.pipeline.bright_ffn import GAIN, THRESHOLD, write_bright
from tests.pipeline.conftest import differing, killed_midway
from tests.shared_build import made_once
from tests.versioned import commit_version, edit_params

BLOCKS = {"block_vx": (8, 64, 64), "halo_vx": (4, 16, 16), "apron_vx": (2, 8, 8)}
IMAGING = ("ingest", "montage", "match", "align", "render", "mask")
FROM_FLOOD = ("flood", "segment", "overlap", "reconcile", "score", "resegment", "agglomerate")


def make_imaged(root: Path) -> None:
    """A project whose image is made, and nothing after it."""
    simulate(
        SimulateConfig(
            tissue=TissueConfig(seed=5, shape_vx=(10, 150, 150)),
            acquire=AcquireConfig(overlap=0.3, stage_error_px=2.0, shift_px=5.0, rotation_deg=0.4),
        ),
        root,
    )
    write_bright(root / "models" / "bright-ffn")
    changes = newproject.model_changes(STAGES, "phantom", "ffn")
    for stage in STAGES:
        if "block_vx" in stage.params.model_fields:
            changes.setdefault(stage.name, {})["block_vx"] = BLOCKS["block_vx"]
    changes["flood"] = {"model": "bright-ffn", "min_body_vx": 200, **BLOCKS}
    changes["resegment"] |= {"model": "bright-ffn", "radius_vx": (4, 16, 16), "min_size_vx": 50, "from_affinity": 0.05}
    changes["segment"] |= BLOCKS
    changes["overlap"]["depth_vx"] = BLOCKS["apron_vx"]
    project = newproject.create(
        root, name="flooded", manifest="raw/manifest.csv", voxel_nm=(30, 8, 8), stages=STAGES, changes=changes
    )
    run(project, IMAGING)


def run(project: Project, stages: tuple[str, ...] = FROM_FLOOD, **how: object) -> dict[str, runner.Outcome]:
    outcomes = {}
    launched = project.launched(**how)
    for name in stages:
        prepared, outcomes[name] = runner.run_units(launched, name)
        finish(prepared, outcomes[name])
    return outcomes


@pytest.fixture(scope="session")
def imaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "imaged", make_imaged)


def fresh(imaged: Path, root: Path) -> Project:
    shutil.copytree(imaged, root)
    return config.load(root, STAGES)


@pytest.fixture(scope="session")
def reference(imaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    def make(root: Path) -> None:
        run(fresh(imaged, root))

    return config.load(made_once(tmp_path_factory, "flooded", make), STAGES)


def test_the_network_is_what_it_says(imaged: Path) -> None:
    network = load_model(imaged / "models" / "bright-ffn")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1, *network.fov_vx), dtype=np.uint8)
    masks = rng.normal(size=images.shape).astype(np.float32)
    wanted = GAIN * ((images.astype(np.float64) - 128) / 33 - THRESHOLD)
    assert np.abs(network.predict(images, masks) - wanted).max() < 1e-4


def test_bodies_come_out_and_have_an_origin(reference: Project) -> None:
    units = pq.read_table(reference.data("flood") / "units.parquet")
    assert len(units) >= 8
    assert set(units["model_id"].to_pylist()) == {prepare.prepare(reference, reference.stage("flood")).model(0).id}
    bodies = pq.read_table(reference.data("flood") / "flood_body.parquet")
    assert bodies.num_rows > 10
    moves = pq.read_table(reference.data("flood") / "flood_object.parquet")["moves"].to_numpy()
    assert moves.max() > 10
    origin = pq.read_table(reference.data("segment") / "supervoxel.parquet")["origin"].to_pylist()
    assert set(origin) == {"ffn", "fill"}
    joined = pq.read_table(reference.data("overlap") / "overlap.parquet")["accepted"].to_numpy()
    assert joined.any()


@pytest.mark.parametrize(
    "how",
    [
        {"ranks": 2},
        {"ranks": 4, "flood_batch": 3},
        {"flood_batch": 16},
        {"flood_batch": 3, "units_at_once": 5},
        {"ranks": 2, "flood_batch": 2, "units_at_once": 2},
    ],
    ids=["mpi-2", "mpi-4-batch-3", "batch-16", "together", "mpi-2-together"],
)
def test_ranks_and_batches(reference: Project, imaged: Path, tmp_path: Path, how: dict[str, int]) -> None:
    project = fresh(imaged, tmp_path / "p")
    run(project, ("flood",), **how)
    assert differing(project.data("flood"), reference.data("flood")) == []


def test_killed_in_the_middle_of_an_object_and_resumed(reference: Project, imaged: Path, tmp_path: Path) -> None:
    """`kill -9` while a unit is being filled: what was filled of it is made again, what was done is not."""
    project = fresh(imaged, tmp_path / "p")
    done_units = killed_midway(project, "flood")
    total = len(prepare.prepare(project, project.stage("flood")).plan)
    assert 0 < done_units < total
    outcomes = run(project)
    assert outcomes["flood"].computed == total - done_units
    assert differing(project.root / "data", reference.root / "data") == []


def test_stopped_after_any_move(reference: Project, imaged: Path, tmp_path: Path, monkeypatch) -> None:
    """A unit that fails at a move of an object leaves nothing behind."""
    project = fresh(imaged, tmp_path / "p")
    take, calls = flood_kernel.Filling.take, [0]

    def failing(self, logits):
        calls[0] += 1
        if calls[0] == 40:
            raise MemoryError("no more")
        take(self, logits)

    monkeypatch.setattr(flood_kernel.Filling, "take", failing)
    with pytest.raises(RunError, match="no more"):
        run(project, ("flood",))
    monkeypatch.undo()
    assert not project.data("flood").exists()
    run(project)
    assert differing(project.root / "data", reference.root / "data") == []


def another_fill(project: Project, fill: str) -> Project:
    params = project.root / "params.yaml"
    text = params.read_text()
    assert "  fill: affinity\n" in text
    params.write_text(text.replace("  fill: affinity\n", f"  fill: {fill}\n"))
    return config.load(project.root, STAGES)


@pytest.mark.parametrize(("fill", "origins"), [("none", {"ffn"}), ("mutex", {"mutex"})])
def test_another_fill_fills_nothing_again(reference: Project, tmp_path: Path, fill: str, origins: set[str]) -> None:
    project = another_fill(fresh(reference.root, tmp_path / "p"), fill)
    outcomes = run(project)
    assert outcomes["flood"].computed == 0
    assert outcomes["segment"].computed == outcomes["segment"].total
    origin = pq.read_table(project.data("segment") / "supervoxel.parquet")["origin"].to_pylist()
    assert set(origin) == origins
    if fill == "mutex":
        other = another_fill(fresh(reference.root, tmp_path / "q"), fill)
        run(other, ("segment",), ranks=2)
        assert differing(other.data("segment"), project.data("segment")) == []
        body = max(pq.read_table(project.data("flood") / "flood_body.parquet").to_pylist(), key=lambda r: r["size_vx"])
        seed = [str(body[f"seed_{axis}_vx"]) for axis in "zyx"]
        done = CliRunner().invoke(app, ["trace", "voxel", *seed, "-C", str(project.root)])
        assert done.exit_code == 0, done.output
        lineage = " ".join(done.output.split())
        assert "origin mutex" in lineage
        assert f"filled from a seed as body {body['body']}" in lineage
        assert "shared_vx" in lineage


def test_the_commands_know_the_pipeline(reference: Project, tmp_path: Path) -> None:
    project = fresh(reference.root, tmp_path / "p")
    at = ["-C", str(project.root)]

    def say(*words: str) -> str:
        done = CliRunner().invoke(app, [*words, *at])
        assert done.exit_code == 0, done.output
        return done.output

    assert "flood" in say("status")
    found = say("sql", "SELECT reason, count(*) AS n FROM flood_object GROUP BY ALL ORDER BY n DESC")
    assert "complete" in found
    bodies = pq.read_table(project.data("flood") / "flood_body.parquet").num_rows
    both = say("sql", "SELECT count(*) AS n FROM flood_body b JOIN supervoxel s ON s.supervoxel = b.body")
    assert f" {bodies} " in both
    assert "flood" in say("plan")
    assert "bright-ffn" in say("sql", "SELECT DISTINCT model_id FROM unit WHERE stage = 'flood'")
    body = max(pq.read_table(project.data("flood") / "flood_body.parquet").to_pylist(), key=lambda r: r["size_vx"])
    seed = [str(body[f"seed_{axis}_vx"]) for axis in "zyx"]
    lineage = " ".join(say("trace", "voxel", *seed).split())
    assert f"filled from a seed as body {body['body']}" in lineage
    assert f"seed_z_vx {seed[0]} · seed_y_vx {seed[1]}" in lineage
    assert "model bright-ffn@" in lineage.replace("│ ", "")


def test_init_makes_such_a_project(imaged: Path, tmp_path: Path) -> None:
    words = ["init", str(tmp_path / "p"), "--manifest", str(imaged / "raw" / "manifest.csv"), "--voxel-nm", "30,8,8"]
    words += ["--models", "phantom", "--method", "ffn"]
    alone = CliRunner().invoke(app, words)
    assert alone.exit_code != 0
    assert "wanted --ffn-model as well" in str(alone.exception)
    other = CliRunner().invoke(app, [*words, "--ffn-model", str(imaged / "raw")])
    assert isinstance(other.exception, ConfigError)
    assert not (tmp_path / "p").exists()
    cut = shutil.copytree(imaged / "models" / "bright-ffn", tmp_path / "cut-ffn") / "weights.npz"
    cut.write_bytes(cut.read_bytes()[:600])
    short = CliRunner().invoke(app, [*words, "--ffn-model", str(cut.parent)])
    assert isinstance(short.exception, ConfigError)
    assert not (tmp_path / "p").exists()
    made = CliRunner().invoke(app, [*words, "--ffn-model", str(imaged / "models" / "bright-ffn")])
    assert made.exit_code == 0, made.output
    project = config.load(tmp_path / "p", config.stages_of(tmp_path / "p"))
    assert [s.name for s in project.stages] == [s.name for s in STAGES]
    assert project.params["flood"].model == project.params["resegment"].model == "bright-ffn"
    assert project.params["resegment"].radius_vx == (4, 16, 16)  # its window is (5, 17, 17)
    assert project.params["resegment"].block_vx == project.params["score"].block_vx
    assert project.params["segment"].block_vx == project.params["flood"].block_vx
    assert project.params["overlap"].depth_vx == project.params["flood"].apron_vx
    assert project.params["flood"].disco_seed_threshold == project.params["resegment"].disco_seed_threshold == 0
    words[1], words[words.index("phantom")] = str(tmp_path / "q"), "fib25"
    bundled = CliRunner().invoke(app, words)
    assert bundled.exit_code == 0, bundled.output
    project = config.load(tmp_path / "q", config.stages_of(tmp_path / "q"))
    for stage in ("flood", "resegment"):
        assert project.params[stage].model == "fib25-ffn-lite"
        assert project.params[stage].disco_seed_threshold == -1


def test_a_model_of_another_kind_is_refused(reference: Project, tmp_path: Path) -> None:
    project = fresh(reference.root, tmp_path / "p")
    params = project.root / "params.yaml"
    params.write_text(params.read_text().replace("model: bright-ffn", "model: phantom-affinity"))
    with pytest.raises(ConfigError, match=r"flood.model 'phantom-affinity': wanted a flood-filling network"):
        run(config.load(project.root, STAGES), ("flood",))
    params.write_text(params.read_text().replace("model: phantom-affinity", "model: bright-ffn"))  # segment's too
    with pytest.raises(ConfigError, match=r"segment.model 'bright-ffn': wanted a network from image to probabilities"):
        run(config.load(project.root, STAGES), ("segment",))


def test_what_touches_is_filled_again(reference: Project, tmp_path: Path) -> None:
    """The same rows on one rank, on two, and in another batch; they are weighed, and lineage tells of them."""
    rows = pq.read_table(reference.data("resegment") / "resegmentation.parquet").to_pylist()
    assert len(rows) > 3
    assert max(r["a_moves"] for r in rows) > 3
    made = pq.read_table(reference.data("resegment") / "units.parquet")["model_id"].to_pylist()
    assert {m.partition("@")[0] for m in made} == {"bright-ffn"}
    digests = []
    for i, how in enumerate(({}, {"ranks": 2, "flood_batch": 3}, {"flood_batch": 2, "units_at_once": 4})):
        project = fresh(reference.root, tmp_path / str(i))
        params = project.root / "params.yaml"
        params.write_text(params.read_text().replace("  from_affinity: 0.05\n", "  from_affinity: 0.0\n"))
        project = config.load(project.root, STAGES)
        outcomes = run(project, ("resegment", "agglomerate"), **how)
        assert outcomes["resegment"].computed == outcomes["resegment"].total
        digests.append(project.data("resegment"))
    assert [differing(digests[0], other) for other in digests[1:]] == [[], []]
    more = pq.read_table(digests[0] / "resegmentation.parquet")
    assert len(more) > len(rows)
    alone = fresh(reference.root, tmp_path / "alone")
    params = alone.root / "params.yaml"
    params.write_text(params.read_text().replace("  resegmented: 0.7\n", "  resegmented: 0.0\n"))
    outcomes = run(config.load(alone.root, STAGES), ("resegment", "agglomerate"))
    assert (outcomes["resegment"].computed, outcomes["agglomerate"].computed) == (0, 1)
    merges = [pq.read_table(p.data("agglomerate") / "merge.parquet") for p in (alone, reference)]
    assert not merges[0].equals(merges[1])


def test_lineage_tells_of_what_was_filled_again(reference: Project) -> None:
    member = pq.read_table(reference.data("agglomerate") / "member.parquet")
    owner = dict(zip(member["supervoxel"].to_pylist(), member["object"].to_pylist(), strict=True))
    bodies = {r["body"]: r for r in pq.read_table(reference.data("flood") / "flood_body.parquet").to_pylist()}
    rows = pq.read_table(reference.data("resegment") / "resegmentation.parquet").to_pylist()
    joined = next(r for r in rows if owner[r["a"]] == owner[r["b"]] and r["a"] in bodies)
    seed = [str(bodies[joined["a"]][f"seed_{axis}_vx"]) for axis in "zyx"]
    done = CliRunner().invoke(app, ["trace", "voxel", *seed, "-C", str(reference.root)])
    assert done.exit_code == 0, done.output
    lineage = " ".join(done.output.replace("│", " ").split())
    assert f"filled again at the contact with {joined['b']}" in lineage
    assert f"a_other {joined['a_other']:.3g}" in lineage


def test_diff_says_that_filling_again_made_the_difference(reference: Project, tmp_path: Path) -> None:
    root = fresh(reference.root, tmp_path / "p").root
    edit_params(root, lambda p: p["agglomerate"].update(threshold=0.7, dust_vx=0))
    commit_version(root, "v1", STAGES)
    before = pq.read_table(root / "data" / "agglomerate" / "member.parquet")
    edit_params(root, lambda p: p["resegment"].update(from_affinity=0.99))
    outcomes = commit_version(root, "v2", STAGES)
    assert (outcomes["score"].computed, outcomes["agglomerate"].computed) == (0, 1)
    assert not pq.read_table(root / "data" / "agglomerate" / "member.parquet").equals(before)
    done = CliRunner().invoke(app, ["diff", "v1", "v2", "-C", str(root)])
    assert done.exit_code == 0, done.output
    told = " ".join(done.output.split())
    assert "0 resegment.from_affinity" in told
    assert re.search(r"merged 2 objects → \d+ [\d,]+ 0 ", told)  # cause 0
