"""The revisions of a project that have data, oldest first."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from connectome_db.errors import RevisionError
from connectome_db.revisions import Revision, open_revision, tags_of

NEEDED = ("segment", "agglomerate")


def chosen(project: Path, names: Sequence[str]) -> list[Revision]:
    """Revisions by name, in the order given. Raises RevisionError when one has no objects."""
    found = [open_revision(project, name) for name in names]
    for revision in found:
        for stage in NEEDED:
            revision.record(stage)
    return found


def tagged(project: Path) -> tuple[list[Revision], list[str]]:
    """(all tags that have objects, then the working tree if it differs from the last; why others were left out).

    Ancestors come before descendants, else older commits before younger ones. Of several tags of one commit the first
    by name is taken.
    """
    names = _git(project, "for-each-ref", "--format=%(refname:short) %(objectname) %(*objectname)", "refs/tags")
    by_commit: dict[str, str] = {}
    for line in names.splitlines():
        tag, *digests = line.split()
        by_commit.setdefault(digests[-1], tag)
    order = _git(project, "rev-list", "--topo-order", "--reverse", "--tags").split() if by_commit else []
    found, left_out = _openable(project, [by_commit[c] for c in order if c in by_commit])
    return _with_working_tree(project, found), left_out


def recent(project: Path, n: int) -> tuple[list[Revision], list[str]]:
    """As `tagged`, for the last `n` commits of this branch that changed data."""
    commits = _git(project, "log", "--first-parent", "--format=%h", f"--max-count={n}", "--", "dvc.lock").split()
    names = [next(iter(tags_of(project, c)), c) for c in commits]
    found, left_out = _openable(project, names[::-1])
    return _with_working_tree(project, found), left_out


def _openable(project: Path, names: Sequence[str]) -> tuple[list[Revision], list[str]]:
    found, left_out = [], []
    for name in names:
        try:
            found += chosen(project, [name])
        except RevisionError as e:
            left_out.append(f"{name}: {e}")
    return found, left_out


def _with_working_tree(project: Path, found: list[Revision]) -> list[Revision]:
    now = open_revision(project)
    if not set(NEEDED) <= set(now.stages):
        return found
    if found and all(now.record(s)["outputs"] == found[-1].record(s)["outputs"] for s in NEEDED):
        return found
    return [*found, now]


def _git(project: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(project), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RevisionError(f"git {arguments[0]} failed in {project}: {done.stderr.strip()}")
    return done.stdout
