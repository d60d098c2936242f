"""What differs in a unit's own record between two versions: code, model, parameters, regions, format, voxel size.

Units are taken by combination: few combinations of overrides and models occur, so each is compared once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from connectome_db.geometry import Box, box_of
from connectome_db.query.compare.causesets import Cause, CauseSets, shown
from connectome_db.query.compare.changes import ADDED, CHANGED, I64, REMOVED, StageData, UnitChanges, boxes_of
from connectome_db.query.views import flat_box


@dataclass(frozen=True)
class _Override:
    """One entry of a record's `overrides`."""

    region: str
    box: Box
    params: Mapping[str, Any]


def own_causes(change: UnitChanges, sets: CauseSets) -> I64:
    """Sets int64[n] of what differs for each unit of a stage, inputs left aside; empty where the key did not change."""
    own = np.zeros(len(change.codes), dtype=np.int64)
    a, b = change.a, change.b
    if a is None or b is None:
        own[:] = sets.of([Cause("stage", change.stage, note="not run in A" if a is None else "not run in B")])
        return own
    anew = (change.at_a >= 0) & (change.at_b >= 0) & ~change.same_key
    wide = np.full(len(own), sets.of(_stage_wide(a, b)))
    own[anew] = sets.union(wide, _by_combination(change, a, b, anew, sets))[anew]
    alone = (change.what == ADDED) | (change.what == REMOVED)
    if alone.any():
        # Nothing to compare with: what the whole stage has otherwise may be why the unit came or went.
        whole = sets.of(_differences(a, b, [], [], a.record["model_id"], b.record["model_id"]))
        own[alone] = sets.union(wide, np.full(len(own), whole))[alone]
    if (odd := change.same_key & (change.what == CHANGED)).any():
        own[odd] = sets.of([Cause("environment", change.stage)])
    return own


def _stage_wide(a: StageData, b: StageData) -> Iterator[Cause]:
    """What differs for every unit of a stage."""
    x, y = a.record, b.record
    if x["format"] != y["format"]:
        yield Cause("format", "", old=shown(x["format"]), new=shown(y["format"]))
    if x["voxel_nm"] != y["voxel_nm"]:
        yield Cause("voxel size", "", old=shown(x["voxel_nm"]), new=shown(y["voxel_nm"]), note="z, y, x in nm")
    if x["code_digest"] != y["code_digest"]:
        yield Cause("code", a.stage, old=x["code_digest"][:12], new=y["code_digest"][:12])


def _by_combination(
    change: UnitChanges, a: StageData, b: StageData, chosen: npt.NDArray[np.bool_], sets: CauseSets
) -> I64:
    """Sets of differing parameters and models, for the units that are `chosen`; all of them are in both versions."""
    out = np.zeros(len(change.codes), dtype=np.int64)
    rows = np.flatnonzero(chosen)
    if len(rows) == 0:
        return out
    ours, theirs = _overrides(a), _overrides(b)
    hits = [_hits(s, at[rows], o) for s, at, o in ((a, change.at_a, ours), (b, change.at_b, theirs))]
    models = [s.units["model_id"].take(pa.array(at[rows])) for s, at in ((a, change.at_a), (b, change.at_b))]
    names = pa.chunked_array([*models[0].chunks, *models[1].chunks], pa.string()).unique()
    numbers = [pc.index_in(m, names).to_numpy().astype(np.int64) for m in models]
    combos, index = np.unique(np.column_stack([*hits, *numbers]), axis=0, return_inverse=True)
    found = []
    for combo in combos.tolist():
        in_a = [o for o, hit in zip(ours, combo, strict=False) if hit]
        in_b = [o for o, hit in zip(theirs, combo[len(ours) :], strict=False) if hit]
        model_a, model_b = (names[k].as_py() for k in combo[-2:])
        found.append(sets.of(_differences(a, b, in_a, in_b, model_a, model_b)))
    out[rows] = np.asarray(found, dtype=np.int64)[index.ravel()]
    return out


def _overrides(side: StageData) -> list[_Override]:
    where = f"data/{side.stage}/record.json"
    return [_Override(o["region"], box_of(flat_box(o["box_vx"], where)), o["params"]) for o in side.record["overrides"]]


def _hits(side: StageData, at: I64, overrides: list[_Override]) -> I64:
    """Which overrides the core of each unit touches: int64 (units, overrides) of 0 and 1."""
    cores = boxes_of(side.units, "core_")[at]
    hits = np.zeros((len(at), len(overrides)), dtype=np.int64)
    for k, o in enumerate(overrides):
        hits[:, k] = ((cores[:, :3] < o.box.hi) & (np.asarray(o.box.lo) < cores[:, 3:])).all(axis=1)
    return hits


def _effective(side: StageData, overrides: list[_Override]) -> dict[str, tuple[Any, str]]:
    """Parameter -> (value, region that sets it); later overrides win."""
    found: dict[str, tuple[Any, str]] = {name: (value, "") for name, value in side.record["params"].items()}
    for o in overrides:
        found |= {name: (value, o.region) for name, value in o.params.items()}
    return found


def _differences(
    a: StageData, b: StageData, in_a: list[_Override], in_b: list[_Override], model_a: str | None, model_b: str | None
) -> Iterator[Cause]:
    """Parameters and model that differ for units with these overrides and models in the two versions."""
    x, y = _effective(a, in_a), _effective(b, in_b)
    new_code = a.record["code_digest"] != b.record["code_digest"]
    for name in sorted(x.keys() | y.keys()):
        if name not in x or name not in y:
            if not new_code:  # else the code brought or dropped the parameter, and is the cause
                yield Cause("parameter", a.stage, name, old=_one(x, name), new=_one(y, name))
        elif x[name][0] != y[name][0] and not (name == "model" and model_a):
            yield _parameter(a, b, name, x[name], y[name])
    # "name@digest": the name alone changes nothing that is computed.
    if (model_a or "").rpartition("@")[2] != (model_b or "").rpartition("@")[2]:
        base = Cause("model", a.stage, "model", old=model_a or "", new=model_b or "")
        same_name = x.get("model", ("", ""))[0] == y.get("model", ("", ""))[0]
        if same_name:  # other weights under one name: wherever it is named
            yield base
        else:
            region, note, boxes = _region(a, b, "model", x["model"][1], y["model"][1])
            yield Cause("model", a.stage, "model", region, base.old, base.new, note, boxes=boxes)


def _one(values: Mapping[str, tuple[Any, str]], name: str) -> str:
    return shown(values[name][0]) if name in values else ""


def _parameter(a: StageData, b: StageData, name: str, x: tuple[Any, str], y: tuple[Any, str]) -> Cause:
    region, note, boxes = _region(a, b, name, x[1], y[1])
    if note == "region moved":  # units came in and went out: one cause, with the value that holds inside
        value = y[0] if y[1] == region else x[0]
        return Cause("parameter", a.stage, name, region, note=f"{note}, {shown(value)} inside", boxes=boxes)
    return Cause("parameter", a.stage, name, region, shown(x[0]), shown(y[0]), note, boxes=boxes)


def _region(a: StageData, b: StageData, name: str, in_a: str, in_b: str) -> tuple[str, str, tuple[Box, ...]]:
    """Whose override made a parameter differ: (region, what happened to it, its boxes); "" for the whole dataset.

    `in_a` and `in_b` are the regions that set the parameter in either version, "" for none.
    """
    ours, theirs = ({o.region: o for o in _overrides(side)} for side in (a, b))
    for region in dict.fromkeys((in_b, in_a)):
        old, new = ours.get(region), theirs.get(region)
        if not region or (old is not None and old == new):
            continue
        boxes = tuple(dict.fromkeys(o.box for o in (old, new) if o is not None))
        if old is None or new is None:
            return region, "added" if old is None else "removed", boxes
        if old.box != new.box:
            same = old.params.get(name) == new.params.get(name)
            return region, "region moved" if same else "moved and changed", boxes
        return region, "", boxes
    region = in_b or in_a
    return region, "order of overrides" if region else "", tuple(o.box for o in (theirs.get(region),) if o is not None)
