"""What a rollback did, unit by unit: equal to the revision, equal to before, or a seam; and whether it is as promised.

A seam is equal to neither. Inside the region, it reads something outside that is not as it was at the revision;
outside, it reads something inside that has changed. Nothing else may be otherwise than promised: what is, is listed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from connectome_db.config import Project
from connectome_db.errors import ConnectomeError, RunError
from connectome_db.finish import is_current
from connectome_db.ids import position_of
from connectome_db.newproject import repro
from connectome_db.prepare import overridden, prepare
from connectome_db.provenance import touching
from connectome_db.query.compare.changes import SAME, StageData, UnitChanges, boxes_of, compare, load_ledgers, positions
from connectome_db.regional.effect import plan_of
from connectome_db.runner import now as time_now
from connectome_db.versions.keep.rollback import UNDO, Rollback, effective, of_project, write

Mask = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.uint64]
SHOWN = 20


@dataclass(frozen=True)
class Before:
    """The project before a rollback: its ledgers, the run that made each stage, the time; and per stage the codes of
    the units whose parameters the rollback changes."""

    ledgers: Mapping[str, StageData]
    runs: Mapping[str, str]
    time: str
    edited: Mapping[str, Codes]


@dataclass(frozen=True)
class StageProof:
    """One stage after a rollback; numbers of units.

    `inside` touch the region. Every unit is one of three: `as_then`, equal to the revision (inside; outside, if it is
    not as before); `as_before`; or one of the `seams`. `computed` were not in the store; `source` says who brought the
    stage: "not run", "run", or "DVC's run cache".
    """

    stage: str
    restored: bool
    units: int
    inside: int
    as_then: int
    as_before: int
    seams: int
    computed: int
    source: str


@dataclass(frozen=True)
class Proof:
    """All stages; `wrong` contradicts what a rollback promises, `explained` says why units inside are not as then."""

    stages: tuple[StageProof, ...]
    wrong: tuple[str, ...]
    explained: tuple[str, ...]


def make(rollback: Rollback, run: Callable[[Path], None] = repro) -> Proof:
    """Make a rollback, run what changed, and compare. Raises RunError when data/ was not current, or the run fails."""
    earlier = before(rollback.project, rollback.target)
    write(rollback)
    try:
        run(rollback.project.root)
    except ConnectomeError as e:
        raise RunError(
            f"{e}\nparams.yaml has the rollback in it: run `dvc repro` again when that is mended, or undo it with "
            f"`cp {UNDO} params.yaml`"
        ) from e
    return prove(rollback, earlier)


def before(project: Project, target: Project) -> Before:
    """Remember the project before its params.yaml becomes that of `target`.

    Raises RunError when data/ is not what today's parameters say: there would be no before.
    """
    for stage in project.stages:
        if not is_current(prepare(project, stage)):
            raise RunError(
                f"data/{stage.name} is not what params.yaml and the code say today, so what the command changes "
                "could not be told from what else changes. Run `dvc repro` first, or only edit: --no-run, --dry-run"
            )
    return Before(load_ledgers(project.root), run_ids(project), time_now(), edited_units(project, target))


def edited_units(project: Project, target: Project) -> dict[str, Codes]:
    """Per stage whose inputs are there, the codes of the units that have other parameters in `target`."""
    edited = {}
    for stage in project.stages:
        if (plan := plan_of(project, stage)) is not None:
            old, a = effective(*of_project(project, stage.name), plan.cores)
            new, b = effective(*of_project(target, stage.name), plan.cores)
            different = np.asarray([[x != y for y in new] for x in old], dtype=bool)
            edited[stage.name] = plan.codes[different[a, b]]
    return edited


def run_ids(project: Project) -> dict[str, str]:
    """The run that made what lies in data/, by stage."""
    return {s.name: str(_run(project, s.name)["run_id"]) for s in project.stages}


def prove(rollback: Rollback, earlier: Before) -> Proof:
    """Compare the project as it is now with the revision and with what it was before."""
    now, then = load_ledgers(rollback.project.root), load_ledgers(rollback.revision.root)
    order = [s.name for s in rollback.project.stages if s.name in now]
    since = {s: compare(s, earlier.ledgers.get(s), now[s]) for s in order}
    back = {s: compare(s, then.get(s), now[s]) for s in order}
    stages, wrong, explained = [], [], []
    for stage in order:
        data = now[stage]
        codes = data.units["unit"].to_numpy().astype(np.uint64)
        same_then, same_before = same_units(back[stage], codes), same_units(since[stage], codes)
        inside = overridden(boxes_of(data.units, "core_"), [rollback.box])[:, 0] & (data.kind != "once")
        reached = reads_what_differs(data, since) | np.isin(codes, earlier.edited.get(stage, codes[:0]))
        wrong += listed(stage, codes[~reached & ~same_before], "not equal to before, though they read nothing new")
        bad, why = _not_as_then(rollback, stage, inside & ~same_then, reads_what_differs(data, back))
        wrong += listed(
            stage, codes[bad], f"not equal to {rollback.revision.name}, though they read what was read then"
        )
        explained += why
        as_then = same_then & (inside | ~same_before)
        as_before = same_before & ~as_then
        computed, source = computed_in(rollback.project, stage, earlier)
        stages.append(
            StageProof(
                stage=stage,
                restored=any(p.stage == stage for p in rollback.stages),
                units=len(codes),
                inside=int(inside.sum()),
                as_then=int(as_then.sum()),
                as_before=int(as_before.sum()),
                seams=int((~as_then & ~as_before).sum()),
                computed=computed,
                source=source,
            )
        )
    return Proof(tuple(stages), tuple(wrong), tuple(explained))


def _not_as_then(rollback: Rollback, stage: str, strange: Mask, seam: Mask) -> tuple[Mask, list[str]]:
    """Of units inside that differ from the revision, those without a reason; and the reasons of the others."""
    made = next((p for p in rollback.stages if p.stage == stage), None)
    count = int(strange.sum())
    if made is None or not count:
        return np.zeros_like(strange), []
    if made.recoded:
        return np.zeros_like(strange), [f"{stage}: {count} units inside are not as then: the code is another"]
    if made.kept:
        return np.zeros_like(strange), [f"{stage}: {count} units inside are not as then: {', '.join(made.kept)} stayed"]
    if seams := int((strange & seam).sum()):
        return strange & ~seam, [f"{stage}: {seams} units inside are seams: they read what is not as it was then"]
    return strange, []


def same_units(changes: UnitChanges, codes: Codes) -> Mask:
    """Units with equal key and equal content in both versions: bool[N]."""
    return np.asarray(changes.what[positions(changes.codes, codes)] == SAME, dtype=np.bool_)


def reads_what_differs(data: StageData, changes: Mapping[str, UnitChanges]) -> Mask:
    """Units that read a part which the two versions do not have alike: bool[N], in the order of `data.units`."""
    codes = data.units["unit"].to_numpy().astype(np.uint64)
    found = np.zeros(len(codes), dtype=bool)
    for name in data.record["inputs"]:
        source, _, output = str(name).partition(".")
        reads = data.reads.filter(np.asarray(data.reads["input"]) == name)
        if source in changes:
            sides = (changes[source].parts_a.get(output), changes[source].parts_b.get(output))
            boxes = np.concatenate([np.zeros((0, 6), np.int64), *(side.boxes for side in sides if side is not None)])
            indptr, _ = touching(boxes_of(reads), boxes)
            hit = np.diff(indptr) > 0
        else:  # raw tiles: what they were is known as one digest only
            mine = changes[data.stage]
            hit = np.full(reads.num_rows, len({_input(side, name) for side in (mine.a, mine.b)}) > 1)
        found[positions(codes, reads["unit"].to_numpy().astype(np.uint64)[hit])] = True
    return found


def _input(side: StageData | None, name: str) -> str | None:
    return None if side is None else side.record["inputs"].get(name)


def listed(stage: str, codes: Codes, what: str) -> list[str]:
    """A sentence on units, with the places of the first; none when there is no unit."""
    if not len(codes):
        return []
    names = [" ".join(map(str, position_of(int(c)))) for c in codes[:SHOWN]]
    more = f", and {len(codes) - SHOWN} more" if len(codes) > SHOWN else ""
    return [f"{stage}: {len(codes)} units are {what}: (z y x) {', '.join(names)}{more}"]


def computed_in(project: Project, stage: str, earlier: Before) -> tuple[int, str]:
    """Units of a stage that were computed since `earlier`, and who brought the stage: see `StageProof`."""
    run = _run(project, stage)
    if run["run_id"] == earlier.runs.get(stage):
        return 0, "not run"
    if str(run["started"]) < earlier.time:
        return 0, "DVC's run cache"
    return int(run["units_computed"]), "run"


def _run(project: Project, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project.provenance(stage) / "run.json").read_text(encoding="utf-8"))
    return found
