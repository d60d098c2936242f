"""Agglomeration tried with the parameters of one revision on the evidence of the other.

`agglomerate` is a pure function of tables, so what it would have given can be asked. That tells a change of its
parameters from a change of what it reads, where both happened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from connectome_db.geometry import box_of
from connectome_db.prepare import stage_code
from connectome_db.query.compare.causes import Attribution
from connectome_db.query.compare.changes import AXES, StageData
from connectome_db.revisions import Revision
from connectome_db.spec import Block, Unit
from connectome_db.stages.agglomerate import FLOODED, STAGE
from connectome_db.tables import read_units

U64 = npt.NDArray[np.uint64]
MOST_CONTACTS = 20_000_000
"""With more contacts than this nothing is tried: it would take minutes."""


@dataclass(frozen=True)
class Trial:
    """The object of every supervoxel, ascending by supervoxel, as tried and as it is.

    `old_evidence`: of revision a's supervoxels with b's parameters; `new_evidence`: of b's with a's.
    """

    old_evidence: U64
    new_evidence: U64
    is_a: U64
    is_b: U64

    def differs(self, side: int, objects: U64) -> npt.NDArray[np.bool_]:
        """Per supervoxel of a (0) or b (1), which lie in `objects`: the other's parameters give another object."""
        tried, real = ((self.old_evidence, self.is_a), (self.new_evidence, self.is_b))[side]
        moved = np.unique(np.concatenate([real[tried != real], tried[tried != real]]))
        found: npt.NDArray[np.bool_] = np.isin(objects, moved)
        return found


def try_parameters(a: Revision, b: Revision, why: Attribution) -> Trial | None:
    """Both trials; None when parameters are not all that the stages have otherwise, or its code is not at hand."""
    change = why.stages["agglomerate"].change
    x, y = change.a, change.b
    kinds = {why.sets.causes[i].kind for s in ("reconcile", "agglomerate") for i in _own(why, s)}
    if x is None or y is None or kinds != {"parameter"} or stage_code(STAGE) != y.record["code_digest"]:
        return None
    contacts = [s.parts.filter(pc.field("output") == "contact")["rows"] for s in _sides(why, "score")]
    if sum(pc.sum(c).as_py() or 0 for c in contacts) > MOST_CONTACTS:
        return None
    tried = [_run(r, s, p) for r, s, p in ((a, x, y.record["params"]), (b, y, x.record["params"]))]
    real = [_members(read_units(r.root / "data" / "agglomerate" / "member.parquet", None)) for r in (a, b)]
    return Trial(tried[0], tried[1], real[0], real[1])


def _own(why: Attribution, stage: str) -> set[int]:
    return {i for number in np.unique(why.stages[stage].own).tolist() for i in why.sets.ids(number)}


def _sides(why: Attribution, stage: str) -> list[StageData]:
    return [s for s in (why.stages[stage].change.a, why.stages[stage].change.b) if s is not None]


def _run(revision: Revision, data: StageData, params: Mapping[str, Any]) -> U64:
    tables = {}
    again = "resegment.resegmentation" in data.record["inputs"]
    for name in (FLOODED if again else STAGE).inputs:
        stage, _, table = name.partition(".")
        tables[name] = read_units(revision.root / "data" / stage / f"{table}.parquet", None)
    core = box_of(data.units[f"core_{c}"][0].as_py() for c in AXES)
    unit = Unit("once", data.units["unit"][0].as_py(), (0, 0, 0), 0, core, ())
    z, y, x = data.record["voxel_nm"]
    chosen = STAGE.params.model_validate(dict(params))
    block = Block(
        unit=unit, params=chosen, voxel_nm=(z, y, x), arrays={}, boxes={}, tables=tables, tiles={}, network=None, seed=0
    )
    member = STAGE.compute(block)["member"]
    return _members(member)


def _members(member: pa.Table) -> U64:
    """Objects by ascending supervoxel."""
    found: U64 = member.sort_by("supervoxel")["object"].to_numpy()
    return found
