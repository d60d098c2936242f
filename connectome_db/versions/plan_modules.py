"""Which modules of a stage's code differ from those that made its data, as far as git can say."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from connectome_db.codedigest import closure, source_digest
from connectome_db.config import Project
from connectome_db.prepare import code_roots
from connectome_db.provenance import FORMAT
from connectome_db.spec import AnyStage


def changed(project: Project, stage: AnyStage, recorded_format: int = FORMAT) -> tuple[str, ...] | None:
    """Modules whose code is not that of the commit which the stage's last run recorded; None when git cannot say.

    A module of the package is looked up in the package's checkout, a user's own stage in the project's.
    """
    if recorded_format != FORMAT:
        return (f"format {recorded_format} of keys, now {FORMAT}",)
    run = _run(project, stage.name)
    commits = [c for c in ((run.get("code") or {}).get("git") or {}, run.get("git") or {}) if c.get("commit")]
    roots, files = code_roots(stage)
    found = []
    for module in closure(*roots, files=files):
        olds = [text for c in commits if (text := _show(module.file, c["commit"])) is not None]
        if not olds:
            if not any(_knows(module.file.parent, c["commit"]) for c in commits):
                return None
            found.append(module.name)  # it did not exist then
        elif all(_digest(old) != module.digest for old in olds):
            found.append(module.name)
    return tuple(found) or None


def _run(project: Project, stage: str) -> dict[str, Any]:
    try:
        run: dict[str, Any] = json.loads((project.provenance(stage) / "run.json").read_text())
    except (OSError, ValueError):
        return {}
    return run


def _git(folder: Path, *words: str) -> bytes | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


def _knows(folder: Path, commit: str) -> bool:
    return _git(folder, "cat-file", "-e", f"{commit}^{{commit}}") is not None


def _show(file: Path, commit: str) -> bytes | None:
    return _git(file.parent, "show", f"{commit}:./{file.name}")


def _digest(source: bytes) -> str | None:
    try:
        return source_digest(source)
    except (SyntaxError, ValueError):
        return None
