"""What a stage will find as its inputs when it is run: parts whose content is known already, and parts to be made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from connectome_db import ids
from connectome_db.parts import Parts
from connectome_db.provenance import Digests, from_hex, merkle, touching, upstream_digests
from connectome_db.spec import Plan
from connectome_db.versions.plan.present import I64, U64, Flags


@dataclass(frozen=True)
class Coming:
    """The parts of one input, P of them, ascending by code.

    `digests` uint8 (P, 32) are only meant where `known`. `moved`: the content is, or may be, another than that in
    data/; `fresh`: data/ has no such part. `gone` are boxes int64[K, 6] of parts that only data/ has.
    `guessed` names the stage that has to run before codes and boxes are certain.
    """

    codes: U64
    boxes: I64
    digests: Digests
    known: Flags
    moved: Flags
    fresh: Flags
    gone: I64
    guessed: str = ""

    @property
    def hull(self) -> I64:
        """The box int64[6] around all parts."""
        return np.concatenate([self.boxes[:, :3].min(axis=0), self.boxes[:, 3:].max(axis=0)])

    @property
    def by_section(self) -> bool:
        """Whether every part is one section, filed under its number."""
        position, axis = ids.unpack(self.codes)
        z = position[:, 0]
        flat = (position[:, 1:] == 0).all() and (axis == 0).all()
        return bool(flat and (self.boxes[:, 0] == z).all() and (self.boxes[:, 3] == z + 1).all())

    @property
    def merkle(self) -> str | None:
        """As records of stages name it; None while some part is unknown."""
        return merkle(self.codes, [d.tobytes().hex() for d in self.digests]) if self.known.all() else None


def of_parts(parts: Parts, *, moved: bool) -> Coming:
    """Known parts of a source. Which of them changed is not known one by one: all did, or none."""
    n = len(parts.codes)
    flags = np.full(n, moved)
    none = np.zeros((0, 6), dtype=np.int64)
    return Coming(parts.codes, parts.boxes, from_hex(parts.digests), np.ones(n, bool), flags, np.zeros(n, bool), none)


def guess_sections(stage: str, was: tuple[U64, I64], source: Coming | None) -> Coming:
    """Parts by section of an output that must be made first: as in data/ (`was`: codes, boxes), with the sections that
    `source` adds and without those that it has no more. A new section gets the box of the one nearest to it.

    Without data the boxes are those of `source`: sections lie about where the microscope's stage says.
    """
    codes, boxes = was
    if source is not None and len(codes) == 0:
        codes, boxes = source.codes, source.boxes
    elif source is not None:
        stays = np.isin(codes, source.codes)
        added = np.setdiff1d(source.codes[source.fresh], codes)
        like = boxes if not stays.any() else boxes[stays]
        z = ids.unpack(added)[0][:, 0]
        nearest = np.abs(like[:, 0][None, :] - z[:, None]).argmin(axis=1)
        new = like[nearest].copy()
        new[:, 0], new[:, 3] = z, z + 1
        codes, boxes = np.concatenate([codes[stays], added]), np.concatenate([boxes[stays], new])
    order = np.argsort(codes, kind="stable")
    codes, boxes = codes[order], boxes[order]
    n = len(codes)
    gone = was[1][~np.isin(was[0], codes)]
    fresh = ~np.isin(codes, was[0])
    return Coming(codes, boxes, np.zeros((n, 32), np.uint8), np.zeros(n, bool), np.ones(n, bool), fresh, gone, stage)


def touched(plan: Plan, name: str, boxes: I64, rows: I64) -> Flags:
    """Which units at `rows` of a plan read something of an input in one of `boxes` int64[K, 6]: bool[len(rows)]."""
    out = np.zeros(len(rows), dtype=bool)
    for r in plan.reads:
        if r.input != name or len(boxes) == 0:
            continue
        if r.boxes is None:
            return np.ones(len(rows), dtype=bool)
        out |= np.diff(touching(r.boxes[rows], boxes)[0]) > 0
    return out


def doubtful(plan: Plan, parts: Mapping[str, Coming]) -> Flags:
    """Which units read a part that is not known: bool[N]."""
    rows = np.arange(len(plan))
    out = np.zeros(len(plan), dtype=bool)
    for name, coming in parts.items():
        out |= touched(plan, name, coming.boxes[~coming.known], rows)
    return out


def upstream(plan: Plan, parts: Mapping[str, Coming], rows: I64) -> list[tuple[str, list[bytes]]]:
    """Per read of the plan, what `Inputs.upstream` gives, of the units at `rows`; those must not be doubtful."""
    out = []
    for r in plan.reads:
        p = parts[r.input]
        boxes = None if r.boxes is None else r.boxes[rows]
        out.append((r.input, upstream_digests(boxes, len(rows), p.codes, p.boxes, p.digests)))
    return out
