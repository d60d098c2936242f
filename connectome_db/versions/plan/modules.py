"""Which modules of a stage's code differ from those that made its data, as far as git can say."""

from __future__ import annotations

import json
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

from connectome_db.codedigest import closure, source_digest
from connectome_db.config import Project
from connectome_db.prepare import code_roots
from connectome_db.provenance import FORMAT
from connectome_db.spec import AnyStage


def changed(project: Project, stage: AnyStage, recorded_format: int = FORMAT) -> tuple[str, ...] | None:
    """Modules whose code is not that of the commit which the stage's last run recorded; None when git cannot say.

    A module of the package is looked up in the package's checkout, a user's own stage in the project's. A name ends in
    "?" when that checkout had changes that no commit holds: then the commit is not quite what ran.
    """
    if recorded_format != FORMAT:
        return (f"format {recorded_format} of keys, now {FORMAT}",)
    run = _run(project, stage.name)
    checkouts = [c for c in ((run.get("code") or {}).get("git"), run.get("git")) if c and c.get("commit")]
    roots, files = code_roots(stage)
    found = []
    for module in closure(*roots, files=files):
        then = next((c for c in checkouts if _knows(module.file.parent, c["commit"])), None)
        if then is None:
            return None
        if _digest_at(module.file, then["commit"]) != module.digest:
            found.append(module.name + ("?" if then.get("dirty") else ""))
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


@lru_cache(maxsize=1024)
def _knows(folder: Path, commit: str) -> bool:
    return _git(folder, "cat-file", "-e", f"{commit}^{{commit}}") is not None


@lru_cache(maxsize=1024)
def _digest_at(file: Path, commit: str) -> str | None:
    """Digest of a module's code at a commit; None when it was not there, or was no Python."""
    source = _git(file.parent, "show", f"{commit}:./{file.name}")
    try:
        return None if source is None else source_digest(source)
    except (SyntaxError, ValueError):
        return None
