"""What to do: four proposals with the exact commands, for a region whose cause is known or is not.

A proposal changes nothing by itself; `connectome remedy` applies one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from connectome_db.diagnosis.causes import Cause
from connectome_db.diagnosis.cells import BoxNm
from connectome_db.diagnosis.facts import Fact

EQUALISE_PX = 32.0
"""Size of the neighbourhood that is brought to the usual contrast: the best of those tried on stained phantoms."""


@dataclass(frozen=True)
class Proposal:
    """One thing to do."""

    id: str
    """flag, reprocess, proofread or report."""
    title: str
    why: str
    commands: tuple[str, ...]
    region: Mapping[str, Any]
    """name, box_nm."""
    overrides: tuple[Mapping[str, Any], ...] = ()
    """stage, params."""


def propose(
    name: str | None,
    box: BoxNm,
    cause: Cause | None,
    found: Sequence[Fact],
    params: Mapping[str, Mapping[str, Any]],
) -> list[Proposal]:
    """The proposals for a region; the reprocessing fits the cause. `params`: stage -> its parameters."""
    known = name is not None and "," not in name
    called = name if known and name else "suspect"
    region = {"name": called, "box_nm": [round(v, 3) for v in box]}
    six = ",".join(f"{v:g}" for v in region["box_nm"])
    note = f"{cause.name}: {cause.metric}" if cause else "difference without an artefact found"
    add = f'connectome regions add {called} --box-nm {six} --note "{note}"'
    use = "Queries and reports can then leave it out or tell of it."
    first = Proposal("flag", "Name the region", use, (add,), region)
    again = _reprocess(called, cause, found, params, region, add)
    z0, y0, x0, z1, y1, x1 = box
    look = (
        "SELECT b.a, b.b, b.score, b.area_nm2 FROM borderline b JOIN object o ON o.object = b.b, "
        "(SELECT * FROM stage_record WHERE stage = 'agglomerate') r "
        f"WHERE o.z0_vx * r.voxel_z_nm < {z1:g} AND o.z1_vx * r.voxel_z_nm > {z0:g} "
        f"AND o.y0_vx * r.voxel_y_nm < {y1:g} AND o.y1_vx * r.voxel_y_nm > {y0:g} "
        f"AND o.x0_vx * r.voxel_x_nm < {x1:g} AND o.x1_vx * r.voxel_x_nm > {x0:g} ORDER BY b.score DESC LIMIT 100"
    )
    read = Proposal(
        "proofread",
        "Proofread there first",
        "Pairs that were nearly merged are where a proofreader's minute counts most.",
        (f'connectome sql "{look}"',),
        region,
    )
    tell = Proposal(
        "report",
        "Report the gradient with any publication",
        "A reader can then judge what the counts of this region are worth.",
        ("connectome qa --release-note qa/release-note.md",),
        region,
    )
    return [first, *([again] if again else []), read, tell]


def _reprocess(
    called: str,
    cause: Cause | None,
    found: Sequence[Fact],
    params: Mapping[str, Mapping[str, Any]],
    region: Mapping[str, Any],
    add: str,
) -> Proposal | None:
    """Do the region again: with what the rest was made with, or with parameters that fit poorer images."""
    if cause is None or cause.name in ("missing tiles", "damage"):
        return None if cause is None else _restore(region)
    if cause.name in ("parameters", "model"):
        fact = next(f for f in found if f.fact in ("params", "model") and f.stage == cause.layer)
        names = " ".join(f"{fact.stage}.{n}" for n in sorted(fact.params or {}))
        return Proposal(
            "reprocess",
            "Take the override back",
            f"{fact.says}.",
            (f"connectome regions unset {fact.override} {names}", "connectome plan", "dvc repro"),
            {"name": fact.override, "box_nm": list(fact.box_nm or ())},
            ({"stage": fact.stage, "params": dict(fact.usual or {})},),
        )
    overrides = _adjusted(cause, params)
    if not overrides:
        return Proposal(
            "reprocess",
            "Do the region again with a network that knows such images",
            "No parameter answers to this cause; a network that was trained on such images may.",
            (
                add,
                "connectome train affinity --data projects=PROJECT --out models/such-affinity --initial models/usual",
                f"connectome regions set {called} segment.model=such-affinity",
                "dvc repro",
            ),
            region,
        )
    sets = [f"{o['stage']}.{k}={v}" for o in overrides for k, v in o["params"].items()]
    return Proposal(
        "reprocess",
        "Do the region again with adjusted parameters",
        "A start, not an optimum: `connectome remedy --try` compares several, and shows what each costs.",
        (add, f"connectome regions set {called} {' '.join(sets)}", "connectome plan", "dvc repro"),
        region,
        tuple(overrides),
    )


def _restore(region: Mapping[str, Any]) -> Proposal:
    """Nothing to compute: the images have to come first."""
    why = "No parameter brings back what was not imaged: put the tiles beside the manifest, and the region is redone."
    return Proposal("reprocess", "Find the images", why, ("connectome status", "dvc repro"), region)


def _adjusted(cause: Cause, params: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Stages and parameters that answer to weak images, or to sections that do not fit.

    Thresholds are not among them: on stained phantoms no lower threshold brought back what a weak stain had cost.
    """
    if cause.name in ("staining", "session"):
        return [
            {"stage": stage, "params": {"equalise_px": EQUALISE_PX}}
            for stage in ("segment", "synapses")
            if "equalise_px" in params.get(stage, {})
        ]
    match = params.get("match", {})
    if cause.name == "misalignment" and "search_px" in match:
        return [{"stage": "match", "params": {"search_px": 2 * match["search_px"]}}]
    return []
