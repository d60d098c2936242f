"""Mend what `verify` named, and nothing else.

What is whole somewhere is copied or linked from there; what is whole nowhere is computed again and taken only when it
has the recorded content. Nothing is deleted: foreign files are moved aside. Raw tiles are never touched.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from connectome_db import ledger
from connectome_db.config import Project
from connectome_db.runner import locked
from connectome_db.store import Store
from connectome_db.versions.trust.findings import Problem, Report
from connectome_db.versions.trust.mending.ledgers import set_aside
from connectome_db.versions.trust.mending.stage import StageMender, tree_md5
from connectome_db.versions.trust.mending.units import Mended
from connectome_db.versions.trust.trees import listing_path, locked_outs


@dataclass(frozen=True)
class Repaired:
    """What was mended, and per stage the digests that were recorded and are there again (or not)."""

    mended: tuple[Mended, ...]
    digests: tuple[Digests, ...]
    foreign: Path | None


@dataclass(frozen=True)
class Digests:
    """One stage after repair: is its tree the sealed one, and the one that dvc.lock names? None: there is none."""

    stage: str
    sealed: str
    as_sealed: bool | None
    locked: str
    as_locked: bool | None


def repair(project: Project, report: Report) -> Repaired:
    """Mend the problems of a report, stage by stage. Raises RunError when a stage is being run."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    aside = project.state / "foreign" / f"{stamp}-{uuid.uuid4().hex[:6]}"
    mended: list[Mended] = []
    touched: list[str] = []
    known = {s.name for s in project.stages}
    for checked in report.stages:
        problems = [p for p in checked.problems if p.place not in ("raw", "stale", "lock")]
        if not problems:
            continue
        if checked.stage not in known:
            mended += _mend_store(project, problems, aside)
            continue
        with locked(project, checked.stage), _folder(project) as tmp:
            mended += StageMender(project, checked.stage, problems, aside, tmp).mend()
        touched.append(checked.stage)
    outs = locked_outs(project.root)
    return Repaired(
        tuple(mended), tuple(_digests(project, n, outs) for n in touched), aside if aside.is_dir() else None
    )


@contextmanager
def _folder(project: Project) -> Iterator[Path]:
    tmp = project.state / "tmp" / f"repair-{uuid.uuid4().hex}"
    tmp.mkdir(parents=True)
    try:
        yield tmp
    finally:
        shutil.rmtree(tmp)


def _digests(project: Project, name: str, outs: Mapping[str, str]) -> Digests:
    """Compare a stage's tree with its seal and with dvc.lock, by hashing all of it again."""
    folder = project.data(name)
    if not folder.is_dir():
        return Digests(name, "", None, "", None)
    seal = next((p for p in ledger.folders(project.store, name) if p.name == ledger.name_of(folder)), None)
    listing = listing_path(project.root, outs, f"data/{name}")
    wanted = outs.get(f"data/{name}", "").removesuffix(".dir")
    sealed = seal.name if seal else ""
    return Digests(name, sealed, seal is not None, wanted, tree_md5(folder) == wanted if listing else None)


def _mend_store(project: Project, problems: Sequence[Problem], aside: Path) -> list[Mended]:
    """What lies in the store and in DVC's cache beyond what data/ holds.

    Units of other versions are dropped: the store makes again what a version needs.
    """
    store, out = Store(project.store), []
    for p in problems:
        path = project.root / p.path
        if p.place == "foreign":
            out.append(set_aside(project, path, aside))
        elif p.place == "spare":
            with locked(project, p.stage):
                store.forget(p.stage, [p.key])
                if path.is_dir():
                    store.discard(path.name)
            out.append(Mended(p.stage, p.path, "dropped: it is computed again when a version needs it"))
        elif p.place == "environment" and (text := _environment(project, path.stem)):
            path.unlink(missing_ok=True)
            store.put_environment(json.loads(text))
            out.append(Mended("store", p.path, "taken from provenance/"))
        else:
            why = "no other copy is here; `dvc fetch` brings it where there is a remote"
            out.append(Mended(p.stage, p.path, why, failed=True))
    return out


def _environment(project: Project, digest: str) -> str | None:
    """The text of an environment's facts, from any provenance/<stage>/environments.json that has it whole."""
    for path in sorted((project.root / "provenance").glob("*/environments.json")):
        facts = json.loads(path.read_text()).get(digest)
        text = json.dumps(facts, sort_keys=True, indent=1)
        if facts is not None and hashlib.sha256(text.encode()).hexdigest()[:16] == digest:
            return text
    return None
