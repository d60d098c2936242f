"""Why a unit will be computed, found by comparing what would go into it today with what went into it in data/.

Whether its inputs changed is not guessed: the key it would have today with the old code, parameters and model is the
old key exactly when they did not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from connectome_db import plans
from connectome_db.geometry import Box, box_of
from connectome_db.prepare import Outline, effective_digest, overridden, params_digest
from connectome_db.provenance import FORMAT, from_hex, touching, unit_keys
from connectome_db.spec import Params, Plan
from connectome_db.versions.plan import coming, modules, stored
from connectome_db.versions.plan.coming import Coming
from connectome_db.versions.plan.present import I64, Flags, Present, reads_of_plan

WORDS = ("new", "input", "extent", "parameter", "model", "code", "environment", "missing")
NEW, INPUT, EXTENT, PARAMETER, MODEL, CODE, ENVIRONMENT, MISSING = (1 << k for k in range(len(WORDS)))
MEANING = {
    "new": "data/ has no such unit",
    "input": "what it reads changes, or may",
    "extent": "its own box, or one it reads, grows or shrinks with the volume",
    "parameter": "another value of a parameter",
    "model": "another network",
    "code": "the stage's code, or code that it imports",
    "environment": "made in another environment (`same_environment` is set)",
    "missing": "in data/, but lost from the store",
}


@dataclass(frozen=True)
class Change:
    """One parameter (or "model") that differs from what data/ was made with; `region` is None for the whole dataset."""

    name: str
    old: Any
    new: Any
    region: str | None


@dataclass(frozen=True)
class Reasons:
    """Why, for each of N units: `bits` uint16[N] of the reasons; `inputs` uint32[N], bit k for `names[k]`; `change`
    int32[N], which of `changes` it has, or -1. All 0 (-1) for units that are not computed.

    `code` names the modules that changed, where that can be said (see `modules.changed`); None where it cannot.
    """

    bits: npt.NDArray[np.uint16]
    inputs: npt.NDArray[np.uint32]
    names: tuple[str, ...]
    change: npt.NDArray[np.int32]
    changes: tuple[tuple[Change, ...], ...]
    code: tuple[str, ...] | None

    def only(self, rows: I64) -> Reasons:
        """Those of the units at `rows`."""
        return replace(self, bits=self.bits[rows], inputs=self.inputs[rows], change=self.change[rows])

    def words(self, i: int) -> list[str]:
        """Reasons of a unit by name."""
        return words(int(self.bits[i]))

    def inputs_of(self, i: int) -> list[str]:
        """Inputs of a unit that change, or may."""
        return [n for k, n in enumerate(self.names) if int(self.inputs[i]) >> k & 1]

    def counts(self) -> dict[str, int]:
        """Units per reason; a unit may have several."""
        return {w: n for k, w in enumerate(WORDS) if (n := int((self.bits >> k & 1).sum()))}

    def combinations(self) -> dict[str, int]:
        """Units per set of reasons, most first."""
        values, n = np.unique(self.bits[self.bits > 0], return_counts=True)
        pairs = sorted(zip(n.tolist(), values.tolist(), strict=True), key=lambda p: (-p[0], p[1]))
        return {"+".join(words(v)): c for c, v in pairs}

    def input_counts(self) -> dict[str, int]:
        """Units per input that changes, or may."""
        return {n: c for k, n in enumerate(self.names) if (c := int((self.inputs >> np.uint32(k) & 1).sum()))}

    def change_counts(self) -> dict[Change, int]:
        """Units per changed parameter or model, most first."""
        out: dict[Change, int] = {}
        of = np.bincount(self.change[self.change >= 0], minlength=len(self.changes)).tolist()
        for some, n in zip(self.changes, of, strict=True):
            for c in some:
                out[c] = out.get(c, 0) + n
        return dict(sorted(((c, n) for c, n in out.items() if n), key=lambda p: -p[1]))


def words(bits: int) -> list[str]:
    """Names of the reasons in a bit set."""
    return [w for k, w in enumerate(WORDS) if bits >> k & 1]


@dataclass(frozen=True)
class Question:
    """Which units of a stage (`stale`, ascending rows of the plan) are computed, and what is known about them."""

    o: Outline
    parts: Mapping[str, Coming]
    now: Present | None
    stale: I64
    doubtful: Flags
    where: I64
    lost: Flags
    elsewhere: Flags


def reasons(q: Question) -> Reasons:
    """Why each stale unit is computed."""
    n, names = len(q.o.plan), q.o.stage.inputs
    bits, inputs = np.zeros(n, np.uint16), np.zeros(n, np.uint32)
    out = Reasons(bits, inputs, names, np.full(n, -1, np.int32), (), None)
    bits[q.stale[q.where[q.stale] < 0]] = NEW
    rows = q.stale[q.where[q.stale] >= 0]
    if q.now is None or len(rows) == 0:
        return out
    kept = q.lost[rows] | q.elsewhere[rows]
    bits[rows] |= np.where(q.lost[rows], MISSING, 0).astype(np.uint16)
    bits[rows] |= np.where(q.elsewhere[rows], ENVIRONMENT, 0).astype(np.uint16)
    rows = rows[~kept]
    was = q.where[rows]
    if q.now.record["code_digest"] != q.o.code_digest or q.now.record["format"] != FORMAT:
        bits[rows] |= CODE
        out = replace(out, code=modules.changed(q.o.project, q.o.stage, q.now.record["format"]))
    change, changes = _changes(q, q.now, rows)
    out.change[rows] = change
    kinds = np.asarray([_kinds(c, q.o.stage.network) for c in changes] + [0], dtype=np.uint16)
    bits[rows] |= kinds[change]
    same_boxes = (q.now.cores[was] == q.o.plan.cores[rows]).all(axis=1)
    hulls = {name: c.hull for name, c in q.parts.items()}
    same_boxes &= q.now.reads_digest()[was] == reads_of_plan(q.o.plan, rows, hulls)
    bits[rows] |= np.where(same_boxes | (bits[rows] & PARAMETER > 0), 0, EXTENT).astype(np.uint16)
    inputs[rows] = _inputs(q, q.now, rows, same_boxes, bits[rows])
    bits[rows] |= np.where(inputs[rows] > 0, INPUT, 0).astype(np.uint16)
    return replace(out, changes=tuple(changes))


def _kinds(changes: tuple[Change, ...], network: str | None) -> int:
    names = {c.name for c in changes}
    models = names & {"model"} if network else set()
    return (MODEL if models else 0) | (PARAMETER if names - models else 0)


# Parameters and models ----------------------------------------------------------------------------------------------


def _changes(q: Question, now: Present, rows: I64) -> tuple[npt.NDArray[np.int32], list[tuple[Change, ...]]]:
    """Per unit at `rows`, which set of changes it has (or -1), and the sets."""
    o, was = q.o, q.where[rows]
    new_digest = np.asarray([params_digest(p) for p in o.variants], dtype=object)[o.variant[rows]]
    old_digest = np.asarray(now.params.values, dtype=object)[now.params.index[was]]
    new_model = np.asarray([stored.model_mark(model_id(o, p)) for p in o.variants])[o.variant[rows]]
    old_model = np.asarray([stored.model_mark(m) for m in now.models.values])[now.models.index[was]]
    voxel = list(o.project.voxel_nm) != list(now.record["voxel_nm"])
    differ = (new_digest != old_digest) | (new_model != old_model) | voxel
    index = np.full(len(rows), -1, dtype=np.int32)
    if not differ.any():
        return index, []
    old = _Layers.recorded(o, now)
    new = _Layers.today(o)
    some = np.flatnonzero(differ)
    hits = np.concatenate(
        [overridden(o.plan.cores[rows[some]], old.boxes), overridden(o.plan.cores[rows[some]], new.boxes),
         now.models.index[was[some], None]], axis=1,
    )  # fmt: skip
    combos, group = np.unique(hits, axis=0, return_inverse=True)
    sets = []
    for combo in combos:
        k = len(old.boxes)
        before, after = old.at(combo[:k]), new.at(combo[k:-1])
        both = _compare(before, after, now.models.values[int(combo[-1])], model_id(o, after.params))
        if voxel:
            both += (Change("dataset.voxel_nm", tuple(now.record["voxel_nm"]), tuple(o.project.voxel_nm), None),)
        sets.append(both)
    index[some] = group.reshape(-1)
    return index, sets


def model_id(o: Outline, params: Params | None) -> str | None:
    """Id of the network that parameters name, for a stage that uses one."""
    found = o.models.get(str(getattr(params, "model", ""))) if o.stage.network else None
    return found.id if found else None


@dataclass(frozen=True)
class _Values:
    """Effective parameters of some unit as JSON values, and which region gave each of them (None: none)."""

    values: Mapping[str, Any]
    region: Mapping[str, str | None]
    params: Params | None


@dataclass(frozen=True)
class _Layers:
    """Parameters of a whole dataset and, over them, those of regions; later ones win."""

    kind: type[Params]
    base: Mapping[str, Any]
    boxes: tuple[Box, ...]
    overrides: tuple[tuple[str, Mapping[str, Any]], ...]

    @classmethod
    def today(cls, o: Outline) -> _Layers:
        found = o.project.overrides.get(o.stage.name, ())
        base = o.project.params[o.stage.name]
        values = tuple((f.region, f.values) for f in found)
        return cls(type(base), base.model_dump(), tuple(f.box for f in found), values)

    @classmethod
    def recorded(cls, o: Outline, now: Present) -> _Layers:
        found = now.record["overrides"]
        boxes = tuple(box_of(f["box_vx"]) for f in found)
        return cls(o.stage.params, now.record["params"], boxes, tuple((f["region"], f["params"]) for f in found))

    def at(self, hits: npt.NDArray[np.int64]) -> _Values:
        """Where the overrides with a 1 in `hits` hold."""
        values, region = dict(self.base), dict.fromkeys(self.base)
        regions: dict[str, str | None] = dict(region)
        for (name, some), hit in zip(self.overrides, hits.tolist(), strict=True):
            if hit:
                values |= some
                regions |= dict.fromkeys(some, name)
        try:
            params = self.kind(**values)
        except ValidationError:  # parameters that this version of the stage does not have any more
            return _Values(values, regions, None)
        return _Values(params.model_dump(mode="json"), regions, params)


def _compare(old: _Values, new: _Values, old_model: str | None, new_model: str | None) -> tuple[Change, ...]:
    """What differs, the model by its id."""
    return tuple(_differences(old, new, old_model, new_model))


def _differences(old: _Values, new: _Values, old_model: str | None, new_model: str | None) -> Iterator[Change]:
    for name in sorted({*old.values, *new.values}):
        a, b = old.values.get(name), new.values.get(name)
        region = new.region.get(name) or old.region.get(name)
        if name == "model" and new_model is not None:
            if stored.model_mark(old_model) != stored.model_mark(new_model):
                yield Change("model", old_model, new_model, region)
        elif a != b:
            yield Change(name, _plain(a), _plain(b), region)


def _plain(value: Any) -> Any:
    """A value that can be told apart in a dict."""
    return tuple(_plain(v) for v in value) if isinstance(value, list) else value


# Inputs -------------------------------------------------------------------------------------------------------------


def _inputs(
    q: Question, now: Present, rows: I64, same_boxes: Flags, bits: npt.NDArray[np.uint16]
) -> npt.NDArray[np.uint32]:
    """Per unit at `rows`, the inputs that change or may, as bits."""
    plan = q.o.plan
    flagged = np.zeros(len(rows), dtype=np.uint32)
    for k, name in enumerate(q.o.stage.inputs):
        c = q.parts[name]
        boxes = np.concatenate([c.boxes[c.moved | ~c.known], c.gone])
        flagged |= coming.touched(plan, name, boxes, rows).astype(np.uint32) << np.uint32(k)
    # Where all that is read is known and the boxes are the old ones, keys tell whether it changed.
    sure = np.flatnonzero(same_boxes & ~q.doubtful[rows])
    changed = np.ones(len(sure), dtype=bool)
    own = np.flatnonzero(bits[sure] > 0)
    answer = _input_changed(q, now, rows[sure[own]])
    certain = np.ones(len(sure), dtype=bool)
    if answer is None:
        certain[own] = False
    else:
        changed[own] = answer
    flagged[sure[certain & ~changed]] = 0
    unnamed = sure[certain & changed]
    unnamed = unnamed[flagged[unnamed] == 0]
    if len(unnamed):  # an upstream stage was run since this one was: its present parts do not say what changed
        behind = 0
        for k, name in enumerate(q.o.stage.inputs):
            if q.parts[name].merkle != now.record["inputs"].get(name):
                behind |= 1 << k
        flagged[unnamed] = behind
    return flagged


def _input_changed(q: Question, now: Present, rows: I64) -> Flags | None:
    """Whether today's inputs give another key than that in data/ when all else is as it was; None: cannot be said."""
    if len(rows) == 0:
        return np.zeros(0, dtype=bool)
    if now.record["format"] != FORMAT:
        return None
    digests = {m.id: m.digest for m in q.o.models.values()}
    if now.record["model_id"]:
        digests[now.record["model_id"]] = now.record["model_digest"]
    was = q.where[rows]
    labels, models = now.params.index[was], now.models.index[was]
    if any(m is not None and m not in digests for m in np.asarray(now.models.values, object)[np.unique(models)]):
        return None
    effective = {}
    for p, m in {*zip(labels.tolist(), models.tolist(), strict=True)}:
        model = now.models.values[m]
        effective[p, m] = effective_digest(str(now.params.values[p]), digests[model] if model else None)
    keys = unit_keys(
        plans.only(q.o.plan, rows),
        stage=q.o.stage.name,
        voxel_nm=now.record["voxel_nm"],
        code_digest=now.record["code_digest"],
        model_digest=None,
        params_digests=[effective[p, m] for p, m in zip(labels.tolist(), models.tolist(), strict=True)],
        upstream=coming.upstream(q.o.plan, q.parts, rows),
    )
    changed: Flags = (from_hex(keys) != now.keys[was]).any(axis=1)
    return changed


def settle_raw(raw: Coming, plan: Plan, found: Reasons, kept: I64) -> Coming:
    """Which raw sections changed, as a stage tells that reads nothing else: `kept` are its units that data/ has."""
    changed = np.flatnonzero(found.bits & (NEW | INPUT | EXTENT) > 0)
    same = np.setdiff1d(kept, changed)
    boxes = [r.boxes for r in plan.reads if r.boxes is not None]
    if len(boxes) != len(plan.reads):
        return raw
    moved, still = (_any_touch(raw.boxes, np.concatenate([b[rows] for b in boxes])) for rows in (changed, same))
    new = np.flatnonzero(found.bits & NEW > 0)
    fresh = _any_touch(raw.boxes, np.concatenate([b[new] for b in boxes])) & ~still
    return replace(raw, moved=moved & ~still, fresh=fresh)


def _any_touch(parts: I64, boxes: I64) -> Flags:
    return np.diff(touching(parts, boxes)[0]) > 0
