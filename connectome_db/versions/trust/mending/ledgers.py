"""Mend seals: write them anew where the tree that they seal is there, else set them aside."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from connectome_db import ledger
from connectome_db.config import Project
from connectome_db.errors import RevisionError, StoreError
from connectome_db.revisions import cache_folder
from connectome_db.versions.trust.mending.units import Mended
from connectome_db.versions.trust.trees import read, relative, sha256


def set_aside(project: Project, path: Path, aside: Path) -> Mended:
    """Move a file or folder below `aside`, under the path that it had."""
    where = path.relative_to(project.root) if path.is_relative_to(project.root) else Path(path.name)
    target = aside / where
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(path, target)
    return Mended("", str(where), f"moved to {target.relative_to(project.root)}")


def mend_ledgers(project: Project, stage: str, wrong: Sequence[Path], aside: Path) -> list[Mended]:
    """Mend altered seals of trees and runs, and altered copies of units, given by their files."""
    out = []
    for path in wrong:
        try:
            how = _mend(project, stage, path, aside)
        except (OSError, ValueError, KeyError, TypeError, StoreError) as e:
            how = ""
            out.append(Mended(stage, relative(project, path), f"could not be sealed anew: {e}", failed=True))
        if how:
            out.append(Mended(stage, relative(project, path), how, failed=how == _ELSEWHERE))
    return out


_ELSEWHERE = "it seals another version: check that out, then repair there"


def _mend(project: Project, stage: str, path: Path, aside: Path) -> str:
    data, provenance = project.data(stage), project.provenance(stage)
    run = str(json.loads((provenance / "run.json").read_bytes())["run_id"])
    here = path.parent.name == ledger.name_of(data)
    if path.name == f"provenance-{run}.json" or path.name in ("seal.json", "units.parquet"):
        if here:
            for name in ("seal.json", path.name):
                if (path.parent / name).exists():
                    set_aside(project, path.parent / name, aside)
            ledger.write(project.store, stage, data, provenance, run)
            return "sealed anew"
        if path.name == "units.parquet" and (found := _in_cache(project, ledger.read_ledger(path.parent))):
            set_aside(project, path, aside)
            shutil.copyfile(found, path)
            return "taken from DVC's cache"
        if path.name != f"provenance-{run}.json":
            return _ELSEWHERE
    set_aside(project, path, aside)
    return f"moved to {relative(project, aside)}: that run of another version has no seal any more"


def _in_cache(project: Project, one: ledger.Ledger) -> Path | None:
    """The table of units of a sealed tree, wherever DVC's cache has it."""
    try:
        cache = cache_folder(project.root)
    except RevisionError:
        return None
    wanted = one.files.get("units.parquet")
    files = (p for p in sorted(cache.glob("??/*")) if not p.name.endswith(".dir"))
    return next((p for p in files if sha256(read(p) or b"") == wanted), None)
