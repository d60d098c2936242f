"""A user's list of ids of one revision -> the ids of another, row by row.

A list holds ids of one kind: objects (neurons among them), supervoxels or synapses. Unless the kind is given, it is
told from the column's name, else from what most of the ids are. An id that is not of this kind at the revision it is
said to come from is `not found`, with the nearest facts about it; it is never passed off as something else.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from connectome_db.revisions import Revision
from connectome_db.versions.identity.facts import Known, nearest_facts
from connectome_db.versions.identity.history import COUNTS_VX, object_history, supervoxel_history
from connectome_db.versions.identity.lifetree import percent
from connectome_db.versions.identity.lists import IdList, IdRow
from connectome_db.versions.identity.overlaps import Progress, supervoxel_overlap
from connectome_db.versions.identity.synapse_match import TOLERANCE_NM, match_synapses

U64 = npt.NDArray[np.uint64]
Kind = Literal["object", "supervoxel", "synapse"]
KINDS: tuple[Kind, ...] = ("object", "supervoxel", "synapse")
STATUSES = ("same", "renamed", "changed", "split", "merged", "mixed", "ambiguous", "vanished", "not found", "not an id")
"""`ambiguous` stands for changed, split, merged or mixed where it is in doubt which object is the heir."""
SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("line", pa.int64()),
        pa.field("given", pa.string(), nullable=False),
        pa.field("id", pa.uint64()),
        pa.field("what", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("relation", pa.string()),
        pa.field("heir", pa.uint64()),
        pa.field("heir_fraction", pa.float64()),
        pa.field("new_ids", pa.list_(pa.uint64()), nullable=False),
        pa.field("fractions", pa.list_(pa.float64()), nullable=False),
        pa.field("note", pa.string(), nullable=False),
    ]
)
_WORTH_SAYING = 0.005
"""A part of an object that lies in nothing is noted from this fraction on."""


@dataclass(frozen=True)
class MappedIds:
    """A list resolved. `table` has one row per row of the list, in its order; see SCHEMA."""

    table: pa.Table
    kind: Kind
    why_kind: str

    @property
    def counts(self) -> dict[str, int]:
        """Rows by status, in the order of STATUSES."""
        found = Counter(self.table["status"].to_pylist())
        return {s: found[s] for s in STATUSES if found[s]}


@dataclass(frozen=True)
class _Fate:
    """What became of one id."""

    what: str | None
    status: str
    relation: str | None = None
    heir: int | None = None
    heir_fraction: float | None = None
    new: tuple[tuple[int, float | None], ...] = ()
    notes: tuple[str, ...] = field(default=())


def map_ids(
    a: Revision,
    b: Revision,
    ids: IdList,
    kind: Kind | None = None,
    *,
    tolerance_nm: float = TOLERANCE_NM,
    progress: Progress | None = None,
) -> MappedIds:
    """What every row of `ids`, as named at revision `a`, is at `b`.

    Columns: row, line and the text given; id; what it is at `a` (object, neuron, supervoxel, synapse); status (see
    STATUSES), and the relation that it stands for; heir, with the fraction of the id's voxels that it holds; new_ids
    and fractions, of all links that count, the largest first; a note. Fractions of synapses are null.
    """
    wanted = np.unique(np.asarray([r.id for r in ids.rows if r.id is not None], np.uint64))
    old, new = Known(a), Known(b)
    chosen, why = (kind, "as asked") if kind else _kind_of(ids, wanted, old)
    there = wanted[old.has(chosen, wanted)]
    match chosen:
        case "synapse":
            fates = _synapse_fates(a, b, there, tolerance_nm)
        case "object" | "supervoxel":
            fates = _body_fates(old, new, there, chosen, progress)
    unknown = np.setdiff1d(wanted, there)
    for i, facts in nearest_facts(unknown, chosen, old, new).items() if len(unknown) else ():
        fates[i] = _Fate(_what(i, old), "not found", notes=(f"no {chosen} at {a.name}: {facts}",))
    return MappedIds(_table(ids.rows, fates), chosen, why)


def _kind_of(ids: IdList, wanted: U64, known: Known) -> tuple[Kind, str]:
    """(the kind of a list, how that was told)."""
    name = re.sub(r"[\s_-]+", "", ids.column.lower())
    by_name: dict[str, Kind] = {"syn": "synapse", "supervoxel": "supervoxel", "object": "object", "neuron": "object"}
    for word, kind in by_name.items():
        if word in name:
            return kind, f"by the name of column {ids.column!r}"
    count = {k: int(known.has(k, wanted).sum()) for k in KINDS}
    if count["synapse"] > count["supervoxel"]:
        return "synapse", f"{count['synapse']} of {len(wanted)} are synapses"
    # Every object is named by a supervoxel, so a list of objects is one of supervoxels, too.
    if 2 * count["object"] >= count["supervoxel"]:
        return "object", f"{count['object']} of {len(wanted)} are objects"
    return "supervoxel", f"{count['supervoxel']} of {len(wanted)} are supervoxels, {count['object']} are objects"


def _what(one: int, known: Known) -> str | None:
    """The most telling thing that an id is."""
    single = np.asarray([one], np.uint64)
    return next((k for k in ("neuron", "object", "supervoxel", "synapse") if known.has(k, single)[0]), None)


def _body_fates(old: Known, new: Known, ids: U64, kind: Kind, progress: Progress | None) -> dict[int, _Fate]:
    """Fates of objects or supervoxels, from the history of all of them."""
    a, b = old.revision, new.revision
    if len(ids) == 0:
        return {}
    if kind == "object" and not (old.voxels or new.voxels):
        return _named_fates(ids, new)
    follow = object_history if kind == "object" else supervoxel_history
    history = follow(a, b, supervoxel_overlap(a, b, progress))
    mine = history.filter(pc.is_in(history["object_a"], pa.array(ids)))
    rows: dict[int, list[dict[str, Any]]] = {}
    for r in mine.to_pylist():
        rows.setdefault(r["object_a"], []).append(r)
    main = _main_sources(history, mine)
    neurons = set(ids[old.has("neuron", ids)].tolist()) if kind == "object" else set()
    fates = {i: _body_fate(i, r, kind, main, b.name) for i, r in rows.items()}
    heirs = np.asarray([f.heir for f in fates.values() if f.heir is not None], np.uint64)
    still = set(heirs[new.has("neuron", heirs)].tolist())
    reused = set(ids[new.has(kind, ids)].tolist())
    body_then, body_now = (old.object_of(ids), new.object_of(heirs)) if kind == "supervoxel" else ({}, {})
    for i, fate in fates.items():
        more = []
        if i in reused and fate.heir != i:
            more.append(f"{b.name} has another {kind} of this id")
        if i in neurons and fate.heir is not None and fate.heir not in still and "graph" in b.stages:
            more.append(f"its heir is no neuron at {b.name}")
        if i in body_then:
            now = f"{body_now[fate.heir]} at {b.name}" if fate.heir in body_now else f"none at {b.name}"
            more.append(f"of object {body_then[i]} at {a.name}, of {now}")
        what = "neuron" if i in neurons else fate.what
        fates[i] = replace(fate, what=what, notes=(*fate.notes, *more))
    return fates


def _named_fates(ids: U64, new: Known) -> dict[int, _Fate]:
    """Fates of neurons that are known by name alone."""
    notes = ("told by its id alone: the project has no voxels",)
    there = new.has("neuron", ids).tolist()
    return {
        i: _Fate("neuron", "same", "same", i, None, ((i, None),), notes) if found
        else _Fate("neuron", "vanished", "vanished", notes=notes)
        for i, found in zip(ids.tolist(), there, strict=True)
    }  # fmt: skip


def _main_sources(history: pa.Table, mine: pa.Table) -> dict[int, list[tuple[int, int]]]:
    """Per heir in `mine`: (voxels, object_a) of the links to it, the largest first."""
    heirs = pc.unique(mine.filter(mine["heir"])["object_b"])
    links = history.filter(pc.and_(pc.is_in(history["object_b"], heirs), pc.greater(history["overlap_vx"], 0)))
    found: dict[int, list[tuple[int, int]]] = {}
    columns = (links[c].to_pylist() for c in ("object_b", "overlap_vx", "object_a"))
    for heir, voxels, source in zip(*columns, strict=True):
        found.setdefault(heir, []).append((voxels, source))
    return {heir: sorted(links, key=lambda v: (-v[0], v[1])) for heir, links in found.items()}


def _body_fate(
    one: int, rows: list[dict[str, Any]], kind: str, main: Mapping[int, list[tuple[int, int]]], at: str
) -> _Fate:
    """The fate of one object or supervoxel from its rows, the largest overlap first."""
    # A giant that sheds dust is listed without the dust.
    new = [
        (r["object_b"], r["fraction_a"]) for r in rows if r["counts"] and (r["heir"] or r["overlap_vx"] >= COUNTS_VX)
    ]
    heir = next((r for r in rows if r["heir"]), None)
    relation, ambiguous = rows[0]["relation"], any(r["ambiguous"] for r in rows)
    notes = []
    if heir is not None and ambiguous:
        sources = [s for s in main[heir["object_b"]] if s[1] != one]
        if sources and sources[0][0] >= heir["overlap_vx"]:
            size = heir["size_b_vx"]
            notes.append(f"{percent(sources[0][0] / size)} of its heir was {kind} {sources[0][1]}")
        else:
            notes.append("another part is nearly as large as its heir")
    rest = 1 - sum(r["fraction_a"] for r in rows)
    if rest >= _WORTH_SAYING and relation != "vanished":
        notes.append(f"{percent(rest)} of it is in no {kind} at {at}")
    return _Fate(
        kind,
        "ambiguous" if ambiguous else relation,
        relation,
        None if heir is None else heir["object_b"],
        None if heir is None else heir["fraction_a"],
        tuple(new),
        tuple(notes),
    )


def _synapse_fates(a: Revision, b: Revision, ids: U64, tolerance_nm: float) -> dict[int, _Fate]:
    matches = match_synapses(a, b, tolerance_nm)
    fates = {}
    for r in matches.filter(pc.is_in(matches["synapse_a"], pa.array(ids))).to_pylist():
        heir = r["synapse_b"]
        notes = []
        if heir is None:
            notes.append(f"no synapse within {tolerance_nm:g} nm at {b.name}")
        elif r["distance_nm"] > 0:
            notes.append(f"{r['distance_nm']:.0f} nm away")
        if r["ambiguous"]:
            notes.append("another synapse is nearly as near")
        status = "ambiguous" if r["ambiguous"] else r["relation"]
        new = () if heir is None else ((heir, None),)
        fates[r["synapse_a"]] = _Fate("synapse", status, r["relation"], heir, None, new, tuple(notes))
    return fates


def _table(rows: tuple[IdRow, ...], fates: Mapping[int, _Fate]) -> pa.Table:
    """One row per row of the list."""
    out = []
    for r in rows:
        fate = _Fate(None, "not an id", notes=(r.problem or "",)) if r.id is None else fates[r.id]
        out.append(
            {
                "row": r.row, "line": r.line, "given": r.text, "id": r.id, "what": fate.what, "status": fate.status,
                "relation": fate.relation, "heir": fate.heir, "heir_fraction": fate.heir_fraction,
                "new_ids": [i for i, _ in fate.new], "fractions": [f for _, f in fate.new],
                "note": "; ".join(fate.notes),
            }
        )  # fmt: skip
    return pa.Table.from_pylist(out, schema=SCHEMA)
