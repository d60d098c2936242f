"""The repository itself: generated files are current, the committed project loads, contracts hold."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from connectome_db import config, dvcfile, paramsfile
from connectome_db.networks import registry
from connectome_db.prepare import identity
from connectome_db.stages.pipeline import STAGES

ROOT = Path(__file__).parent.parent


def test_the_committed_dvc_yaml_is_what_the_pipeline_says():
    dvcfile.check(config.load(ROOT, STAGES))


def test_the_committed_params_have_every_parameter_and_its_meaning():
    from connectome_db.newproject import model_changes

    project = config.load(ROOT, STAGES)
    assert (ROOT / "params.yaml").read_text() == paramsfile.render(
        project.dataset, STAGES, model_changes(STAGES, "phantom")
    )


def test_every_parameter_is_documented():
    for stage in STAGES:
        for name, field in stage.params.model_fields.items():
            assert field.description, f"{stage.name}.{name} has no docstring"


@pytest.mark.parametrize("stage", STAGES, ids=lambda s: s.name)
def test_the_identity_of_a_stage_is_complete(stage):
    found = identity(config.load(ROOT, STAGES), stage)
    assert len(found["code_digest"]) == 64
    assert (found["model_id"] is None) == (stage.network is None)
    json.dumps(found)


def test_every_stage_makes_the_tables_the_schema_lists():
    from connectome_db.schema.all import OUTPUTS
    from connectome_db.spec import Rows

    made = {s.name: {o.name for o in s.outputs if isinstance(o, Rows)} for s in STAGES}
    assert made == {name: {t.name for t in tables} for name, tables in OUTPUTS.items()}


def test_stages_read_only_what_earlier_stages_make():
    made = {"raw.tiles"}
    for stage in STAGES:
        assert set(stage.inputs) <= made, stage.name
        made |= {f"{stage.name}.{o.name}" for o in stage.outputs}


def test_bundled_models_have_cards_and_fit_in_git():
    folders = [p for p in registry.BUNDLED.iterdir() if p.is_dir()]
    assert {p.name for p in folders} >= {"phantom-affinity", "phantom-cleft", "ac3-affinity", "ac3-cleft"}
    for folder in folders:
        card = registry.read_card(folder)
        assert (folder / registry.WEIGHTS).stat().st_size <= 5_000_000
        wanted = {"task", "training_data", "training", "seed", "steps", "source", "code", "scores_on_held_out_data"}
        assert wanted <= set(card), folder.name
        assert card["model_id"] == registry.model_id(folder)


def test_files_can_be_read_whole():
    long = {
        str(p.relative_to(ROOT)): n
        for p in ROOT.glob("connectome_db/**/*.py")
        if (n := len(p.read_text().splitlines())) > 400
    }
    assert long == {}


def test_the_package_speaks_of_the_project_alone():
    words = ("/work/", "claude", "openai", "copilot")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in listed:
        path = ROOT / name
        if (
            path.suffix in {".py", ".md", ".toml", ".yaml", ".yml", ".sql", ".txt", ""}
            and name != "tests/test_house.py"
        ):
            text = path.read_text(errors="replace").lower()
            assert not [w for w in words if w in text], name
