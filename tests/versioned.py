"""Versions of a project, made quickly: stages run in this process, then DVC and git are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ruamel.yaml import YAML

from connectome_db import config, dvcfile, newproject, runner
from connectome_db.config import Project
from connectome_db.finish import finish, is_current
from connectome_db.qa import report
from connectome_db.spec import AnyStage
from connectome_db.stages.pipeline import STAGES
from tests.network_answers import remembered


def commit_version(root: Path, tag: str, stages: tuple[AnyStage, ...] = STAGES) -> dict[str, runner.Outcome]:
    """Run what changed, `dvc commit`, `git commit`, `git tag`; outcomes by stage."""
    project = config.load(root, stages)
    dvcfile.write_identity(project)
    outcomes = run_all(project)
    report.write(root, project.dataset.name, project.qa)
    newproject.dvc(root, "commit", "-f", "-q")
    newproject.commit(root, f"Version {tag}")
    newproject.run(root, "git", "tag", tag)
    return outcomes


def run_all(project: Project) -> dict[str, runner.Outcome]:
    """Run all stages as `connectome run` does; outcomes by stage. What networks answered before is not asked again."""
    outcomes = {}
    with remembered():
        for stage in project.stages:
            prepared, outcomes[stage.name] = runner.run_units(project, stage.name)
            if not (outcomes[stage.name].computed == 0 and is_current(prepared)):
                finish(prepared, outcomes[stage.name])
    return outcomes


def edit_params(root: Path, change: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
    """Edit params.yaml as a person would, keeping its comments."""
    yaml = YAML()
    yaml.width = 110
    path = root / "params.yaml"
    document = yaml.load(path.read_text())
    change(document)
    new = path.with_suffix(".new")
    with new.open("w") as f:
        yaml.dump(document, f)
    new.replace(path)
