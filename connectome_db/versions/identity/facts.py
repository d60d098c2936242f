"""What an id is at a revision, and, for one that is unknown there, the nearest facts about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectome_db import ids
from connectome_db.errors import RevisionError
from connectome_db.geometry import Vec3, box_of
from connectome_db.provenance import touching
from connectome_db.revisions import Revision
from connectome_db.versions.identity.overlaps import STAGE, VOLUME, blocks_of, read_table

U64 = npt.NDArray[np.uint64]
_SPREADSHEET_DIGITS = 15
"""Digits that a spreadsheet keeps of a number; it puts zeros for the others."""
_SHOWN = 3
OUTSIDE = "nothing, as it lies outside its volume"


@dataclass(frozen=True)
class Known:
    """The ids of one revision."""

    revision: Revision

    @property
    def voxels(self) -> bool:
        """Whether there are objects made of voxels: a connectome that was imported as a list has none."""
        return "agglomerate" in self.revision.stages

    @cached_property
    def supervoxels(self) -> U64:
        """Ids, ascending."""
        return _ascending(self.revision, "segment", "supervoxel", "supervoxel")

    @cached_property
    def objects(self) -> U64:
        """Ids, ascending; in a project without voxels those of its neurons."""
        return _ascending(self.revision, "agglomerate", "object", "object") if self.voxels else self.neurons

    @cached_property
    def neurons(self) -> U64:
        """Ids, ascending; none when `graph` has no data."""
        return _ascending(self.revision, "graph", "neuron", "neuron")

    @cached_property
    def synapses(self) -> U64:
        """Ids, ascending; none when `synapses` has no data."""
        return _ascending(self.revision, "synapses", "synapse", "synapse")

    @cached_property
    def _members(self) -> tuple[U64, U64]:
        if not self.voxels:
            return np.zeros(0, np.uint64), np.zeros(0, np.uint64)
        table = read_table(self.revision, "agglomerate", "member", ["supervoxel", "object"]).sort_by("supervoxel")
        return table["supervoxel"].to_numpy(), table["object"].to_numpy()

    def has(self, kind: str, wanted: U64) -> npt.NDArray[np.bool_]:
        """Which ids are of a kind: object, neuron, supervoxel or synapse."""
        return within({"object": self.objects, "neuron": self.neurons, "supervoxel": self.supervoxels,
                       "synapse": self.synapses}[kind], wanted)  # fmt: skip

    def object_of(self, supervoxels: U64) -> dict[int, int]:
        """The object of each supervoxel that has one."""
        names, bodies = self._members
        real = supervoxels[within(names, supervoxels)]
        found = bodies[np.searchsorted(names, real)]
        return dict(zip(real.tolist(), found.tolist(), strict=True))

    def at_voxels(self, voxels: Sequence[Vec3]) -> list[str]:
        """What lies at voxels (z, y, x), in words; reads the blocks that hold them."""
        found = self._supervoxels_at(voxels)
        bodies = self.object_of(np.asarray([s for s in found if s], np.uint64))
        words = {None: OUTSIDE, 0: "background"}
        return [words[s] if not s else f"object {bodies[s]}" if s in bodies else f"supervoxel {s}" for s in found]

    def _supervoxels_at(self, voxels: Sequence[Vec3]) -> list[int | None]:
        blocks = blocks_of(self.revision)
        lo = np.asarray(voxels, np.int64).reshape(-1, 3)
        indptr, which = touching(np.concatenate([lo, lo + 1], axis=1), blocks.boxes)
        out: list[int | None] = [None] * len(voxels)
        by_block: dict[int, list[int]] = {}
        for i in range(len(voxels)):
            for k in which[indptr[i] : indptr[i + 1]].tolist():
                by_block.setdefault(k, []).append(i)
        for k, members in sorted(by_block.items()):
            box = box_of(blocks.boxes[k])
            array = self.revision.read_unit(STAGE, VOLUME, box)
            for i in members:
                z, y, x = (v - low for v, low in zip(voxels[i], box.lo, strict=True))
                out[i] = int(array[z, y, x])
        return out


def within(known: U64, wanted: U64) -> npt.NDArray[np.bool_]:
    """Which of `wanted` are among the ascending `known`."""
    if len(known) == 0:
        return np.zeros(len(wanted), np.bool_)
    return np.asarray(known[np.minimum(np.searchsorted(known, wanted), len(known) - 1)] == wanted)


def nearest_facts(unknown: U64, kind: str, a: Known, b: Known) -> dict[int, str]:
    """For ids that are no `kind` at revision a: what else they are, there or at b, in words."""
    facts: dict[int, list[str]] = {int(i): [] for i in unknown.tolist()}
    for known in (a, b):
        _other_kinds(facts, unknown, kind, known, is_b=known is b)
    ids_of_kind = {"synapse": a.synapses, "supervoxel": a.supervoxels}.get(kind, a.objects)
    for i, said in facts.items():
        if not said and (near := rounded_from(i, ids_of_kind)):
            said.append(_rounded_words(near, kind))
    silent = [i for i, said in facts.items() if not said]
    _places(facts, silent, "synapses" if kind == "synapse" else STAGE, a, b)
    return {i: "; ".join(said) or "nothing is known of it" for i, said in facts.items()}


def _other_kinds(facts: Mapping[int, list[str]], unknown: U64, kind: str, known: Known, *, is_b: bool) -> None:
    at = known.revision.name
    bodies = known.object_of(unknown)
    for other in ("object", "supervoxel", "synapse"):
        if other == kind and not is_b:
            continue
        for i in unknown[known.has(other, unknown)].tolist():
            if other == "object":
                facts[i].append(f"is an object at {at}")
            elif other == "synapse":
                facts[i].append(f"is a synapse at {at}")
            elif bodies.get(i) != i or kind == "supervoxel":
                body = f", belongs to object {bodies[i]}" if i in bodies else ""
                facts[i].append(f"is a supervoxel at {at}{body}")


def rounded_from(rounded: int, known: U64) -> list[int]:
    """Which of the ascending `known` a float or a spreadsheet would turn into `rounded`, the nearest first."""
    digits = str(rounded)
    zeros = len(digits) - len(digits.rstrip("0"))
    step = 10**zeros if zeros and len(digits) - zeros <= _SPREADSHEET_DIGITS < len(digits) else 1
    binary = rounded > 1 << 53 and int(float(rounded)) == rounded
    reach = max(step, int(np.spacing(np.float64(rounded))) if binary else 1)
    ends = np.asarray([max(0, rounded - reach), min(rounded + reach, (1 << 64) - 1)], np.uint64)
    first, last = np.searchsorted(known, ends[0], "left"), np.searchsorted(known, ends[1], "right")
    near = [int(v) for v in known[first:last].tolist()]
    by_float = {v for v in near if binary and int(float(v)) == rounded}
    by_digits = {v for v in near if step > 1 and rounded in (v // step * step, (v + step // 2) // step * step)}
    return sorted((by_float | by_digits) - {rounded}, key=lambda v: (abs(v - rounded), v))


def _rounded_words(near: Sequence[int], kind: str) -> str:
    which = " or ".join(map(str, near)) if len(near) <= _SHOWN else f"any of {len(near)} {kind}s"
    return f"looks rounded, as a spreadsheet or a float does: {which} would become it"


def place_of(revision: Revision, stage: str, one: int) -> Vec3 | None:
    """The voxel (z, y, x) that an id of `stage` is named by, if it was made with that stage's blocks; else None."""
    try:
        block = revision.record(stage)["block_vx"]
    except RevisionError:
        return None
    local = (one & ((1 << ids.LOCAL_BITS) - 1)) - 1
    if not block or one >> 63 or not 0 <= local < int(np.prod(block)):
        return None
    z, y, x = ids.position_of(one >> ids.LOCAL_BITS)
    dz, dy, dx = np.unravel_index(local, block)
    return z * block[0] + int(dz), y * block[1] + int(dy), x * block[2] + int(dx)


def _places(facts: Mapping[int, list[str]], silent: Sequence[int], stage: str, a: Known, b: Known) -> None:
    """What lies where the ids would be named, when they are of some other version."""
    places = {i: p for i in silent if (p := place_of(a.revision, stage, i)) is not None}
    if not places:
        return
    revisions = (a,) if a.revision == b.revision else (a, b)
    words = [k.at_voxels(list(places.values())) for k in revisions]
    for i, *found in zip(places, *words, strict=True):
        z, y, x = places[i]
        said = " and ".join(f"{k.revision.name} has {w}" for k, w in zip(revisions, found, strict=True))
        if set(found) != {OUTSIDE}:
            facts[i].append(f"its number names voxel z {z}, y {y}, x {x}, where {said}")


def _ascending(revision: Revision, stage: str, table: str, column: str) -> U64:
    if stage not in revision.stages:
        return np.zeros(0, np.uint64)
    found: pa.Table = read_table(revision, stage, table, [column])
    return np.sort(found[column].to_numpy())
