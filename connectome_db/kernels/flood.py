"""Flood-filling of one image by a network that looks through a small window (Januszewski et al. 2018,
10.1038/s41592-018-0049-4; the rules of moving and stopping are those of its published inference code).

    seeds in order ─> fill: ask the network at a position, write its answer into the object's own canvas,
                            move to the maxima on the faces of the box around the position, until none is left
                   ─> settle: voxels above the threshold that no earlier object has become a new object

The order of seeds decides: a later object neither moves into an earlier one nor takes its voxels. Still several objects
are filled at once, one for each row of the network's batch. Later ones are filled ahead of their turn and settled in
their turn; one that has been where an earlier object has come to lie is filled anew. So the result is that of one
object after the other, whatever the batch, provided that the network answers each row by itself. A later fill waits
where an earlier one is in its way: either it will be refused there, or both are one object and it was in vain.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from connectome_db.errors import StageError
from connectome_db.geometry import Vec3
from connectome_db.kernels import flood_slots as slots_of
from connectome_db.kernels.flood_slots import Rules, Slots, enters
from connectome_db.kernels.flood_types import Flooded, FloodObject, FloodOptions, Reason, Skip, Work
from connectome_db.spec import Window

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Boxed = tuple[slice, slice, slice]

_REASONS: dict[int, Reason] = {
    slots_of.COMPLETE: "complete",
    slots_of.LIMIT: "limit",
    slots_of.WEAK: "weak",
    slots_of.HOPELESS: "hopeless",
}
_AHEAD = 16
"""Filled objects that may wait for their turn, per row of the batch."""
_SPARE = 4
"""Fills that are begun, per row of the batch: those that wait for an earlier one leave their row to others."""


def flood(image: U8, network: Window, seeds: I64, options: FloodOptions, tissue: Mask | None = None) -> Flooded:
    """Fill `image` (uint8, (z, y, x)) from `seeds` ((n, 3) of z, y, x) in their order.

    `tissue` (bool (z, y, x)): the window's middle stays inside it, and so do the labels. Needs up to 8 bytes per voxel,
    and 4 more where a fill is in progress, of which there are at most 4 for each row of the batch (one if that is 1).
    Input of another shape or type is a StageError.
    """
    unit = Filling(image, network, seeds, options, tissue, network.batch)
    shape = (network.batch, *network.fov_vx)
    images, masks = np.zeros(shape, np.uint8), np.full(shape, unit.slots.rules.pad, np.float32)
    while unit.wants():
        unit.gather(images, masks)
        unit.take(checked(network.predict(images, masks), shape))
    return unit.result()


def checked(logits: F32, shape: tuple[int, ...]) -> F32:
    """The network's answer as compiled code takes it; one of another shape or type is a StageError."""
    if logits.shape != shape or logits.dtype != np.float32:
        raise StageError(f"network: wanted logits float32{shape}, got {logits.dtype}{logits.shape}")
    return np.ascontiguousarray(logits)


def _check(image: U8, network: Window, seeds: I64, tissue: Mask | None) -> None:
    if image.ndim != 3 or image.dtype != np.uint8 or image.size == 0:
        raise StageError(f"image: wanted a non-empty uint8 (z, y, x) array, got {image.dtype}{image.shape}")
    if tissue is not None and (tissue.shape != image.shape or tissue.dtype != np.bool_):
        raise StageError(f"tissue: wanted bool{image.shape} like the image, got {tissue.dtype}{tissue.shape}")
    if seeds.ndim != 2 or seeds.shape[1] != 3 or not np.issubdtype(seeds.dtype, np.integer):
        raise StageError(f"seeds: wanted integers (n, 3) of z, y, x, got {seeds.dtype}{seeds.shape}")
    outside = (seeds < 0).any(axis=1) | (seeds >= image.shape).any(axis=1)
    if outside.any():
        raise StageError(f"seeds: wanted voxels of the image {image.shape}, got {tuple(seeds[outside][0].tolist())}")
    if any(extent % 2 == 0 for extent in network.fov_vx) or network.batch < 1:
        raise StageError(f"network: wanted an odd window and a batch, got {network.fov_vx} and {network.batch}")
    if any(not 0 <= step <= extent // 2 for step, extent in zip(network.deltas_vx, network.fov_vx, strict=True)):
        raise StageError(f"network: wanted steps within half its window {network.fov_vx}, got {network.deltas_vx}")


@dataclass(frozen=True)
class _Filled:
    """A fill that waits for its turn."""

    index: int
    reason: Reason
    visited: I32
    refused: tuple[int, int, int, int]
    box: Boxed
    mask: Mask | None
    """Voxels of `box` that it claims; None if the seed was given up."""


class Filling:
    """One image in the course of being filled. Seeds are known by their index, which is their turn.

    Ask `wants`; if it does, `gather` what the network is to see, and `take` its answer; again until it does not.
    """

    def __init__(
        self, image: U8, network: Window, seeds: I64, options: FloodOptions, tissue: Mask | None, rows: int
    ) -> None:
        """`rows`: windows that are asked at once. The other arguments: see `flood`."""
        _check(image, network, seeds, tissue)
        seeds = seeds.astype(np.int64)
        self.rows, self.seeds, self.options = rows, seeds, options
        self.labels: I32 = np.zeros(image.shape, np.int32)
        if tissue is not None:
            self.labels[~tissue] = -1
        image, rules = np.ascontiguousarray(image), _rules(options)
        self.count_slots = 1 if rows == 1 else _SPARE * rows
        self.slots = Slots(image, self.labels, self.count_slots, network.fov_vx, network.deltas_vx, rules)
        margin = np.asarray(network.fov_vx) // 2
        self.border = ((seeds < margin) | (seeds + margin >= image.shape)).any(axis=1)
        self.turn = 0
        self.fresh = 0
        """Seeds from here on were never looked at."""
        self.again: list[int] = []
        """A heap of seeds before `fresh` that may be filled now."""
        self.behind: dict[int, list[int]] = {}
        """Seeds that lie in the fill of an earlier one which is not settled: what they would find is known then."""
        self.running: dict[int, int] = {}
        """Slot -> index."""
        self.active: I64 = np.zeros(0, np.int64)
        """Slots that the network was asked for last."""
        self.filled: dict[int, _Filled] = {}
        self.claimed: I32 = np.zeros(image.shape if rows > 1 else (1, 1, 1), np.int32)
        """Index + 1 of a fill that waits for its turn."""
        self.objects: list[FloodObject] = []
        self.count = 0
        self.skipped: dict[Skip, int] = {"border": 0, "no_tissue": 0, "taken": 0, "close": 0}
        self.work = Work()

    def wants(self) -> bool:
        """Say whether the network is to be asked again; false when all seeds are settled."""
        return self.settle()

    def gather(self, images: U8, masks: F32) -> int:
        """Fill the first rows of `images` and `masks`, (n >= rows, z, y, x), and return how many."""
        self.active = self.start()
        self.slots.gather(self.active, images, masks)
        return len(self.active)

    def take(self, logits: F32) -> None:
        """Go on with the network's answer (n, z, y, x) to what was gathered last."""
        self.slots.advance(self.active, logits)
        self.work.calls += 1
        self.work.moves += len(self.active)
        for slot in self.active[self.slots.status[self.active] != slots_of.RUNNING].tolist():
            self.finish(slot)

    def result(self) -> Flooded:
        """What came of it; for when `wants` is false."""
        return Flooded(np.maximum(self.labels, 0).astype(np.uint32), tuple(self.objects), self.skipped, self.work)

    def settle(self) -> bool:
        """Settle all whose turn it is; false when no seed is left."""
        while self.turn < len(self.seeds):
            index = self.turn
            if index in self.running.values():
                return True
            why = self.unusable(index)
            if why:
                self.skipped[why] += 1
                self.drop(index)
            elif index in self.filled:
                self.keep(self.unclaim(index))
            else:
                return True
            self.turn += 1
            self.fresh = max(self.fresh, self.turn)
            for other in self.behind.pop(index, ()):
                heapq.heappush(self.again, other)
        return False

    def unusable(self, index: int) -> Skip | None:
        """Why nothing is started at a seed. Once given, a reason "taken" or "close" stays, as labels only grow."""
        if self.border[index]:
            return "border"
        seed = self.seeds[index]
        here = self.labels[tuple(seed)]
        if here:
            return "no_tissue" if here < 0 else "taken"
        near = self.options.min_boundary_dist_vx
        around = tuple(slice(max(s - n, 0), s + n + 1) for s, n in zip(seed.tolist(), near, strict=True))
        return "close" if (self.labels[around] > 0).any() else None

    def keep(self, fill: _Filled) -> None:
        """Make an object of a fill whose turn it is, and undo what later fills could not have done after it."""
        label, voxels, reason = 0, 0, fill.reason
        overlaps: tuple[tuple[int, int], ...] = ()
        if fill.mask is not None:
            there = self.labels[fill.box]
            free = fill.mask & (there == 0)
            voxels = int(np.count_nonzero(free))
            others, shared = np.unique(there[fill.mask & (there > 0)], return_counts=True)
            overlaps = tuple(zip(others.tolist(), shared.tolist(), strict=True))
            if voxels < max(self.options.min_segment_vx, 1):
                reason = "small"
            else:
                self.count += 1
                label = self.count
                there[free] = label
        z, y, x = self.seeds[fill.index].tolist()
        self.objects.append(FloodObject(label, (z, y, x), len(fill.visited), voxels, overlaps, reason, *fill.refused))
        if label:
            for slot, index in list(self.running.items()):
                self.undo(index, enters(self.slots.been(slot), self.labels))
                if slot in self.running and self.labels[tuple(self.slots.position[slot])] > 0:
                    self.slots.refuse(slot)
                    if self.slots.status[slot] != slots_of.RUNNING:
                        self.finish(slot)
            for index, other in list(self.filled.items()):
                self.undo(index, enters(other.visited, self.labels))

    def undo(self, index: int, entered: bool) -> None:
        """Throw a fill away if its seed is lost or it `entered` a settled object; start again in the second case."""
        lost = self.unusable(index) is not None
        if lost or entered:
            self.drop(index)
            if not lost:
                heapq.heappush(self.again, index)

    def drop(self, index: int) -> None:
        """Forget what was filled from a seed, if anything was."""
        if index in self.filled:
            self.work.redone += len(self.unclaim(index).visited)
        for slot in [s for s, i in self.running.items() if i == index]:
            self.work.redone += len(self.slots.been(slot))
            self.slots.clear(slot)
            del self.running[slot]

    def unclaim(self, index: int) -> _Filled:
        """Take a fill out of those that wait for their turn."""
        fill = self.filled.pop(index)
        if fill.mask is not None and self.rows > 1:
            there = self.claimed[fill.box]
            there[there == index + 1] = 0
        return fill

    def start(self) -> I64:
        """The slots to step, at most one for each row, the earliest first; free ones are given seeds for it.

        The seed whose turn it is has a slot and a row afterwards, whoever must make room.
        """
        ready = self.ready()
        free = [slot for slot in range(self.count_slots) if slot not in self.running]
        if not free and self.turn not in self.running.values():
            slot, last = max(self.running.items(), key=lambda item: item[1])
            self.drop(last)
            heapq.heappush(self.again, last)
            ready = [other for other in ready if other != slot]
            free = [slot]
        while free and (
            self.turn not in self.running.values() or (len(ready) < self.rows and len(self.filled) < _AHEAD * self.rows)
        ):
            index = self.choose()
            if index is None:
                break
            slot = free.pop(0)
            self.slots.begin(slot, self.seeds[index])
            self.running[slot] = index
            ready.append(slot)
        return np.array(sorted(ready, key=self.running.__getitem__)[: self.rows], np.int64)

    def ready(self) -> list[int]:
        """Running slots that no earlier fill is in the way of; one with an earlier fill at its seed is dropped."""
        if self.count_slots == 1 or not self.running:
            return list(self.running)
        slots, near = np.array(list(self.running)), self.options.min_boundary_dist_vx
        for index, before in zip(*self.before(slots, self.slots.seeds[slots], near), strict=True):
            if before >= 0:
                self.drop(index)
                self.behind.setdefault(before, []).append(index)
        slots = np.array(list(self.running))
        waits = [before >= 0 for before in self.before(slots, self.slots.position[slots], (0, 0, 0))[1]]
        return [slot for slot, wait in zip(slots.tolist(), waits, strict=True) if not wait]

    def before(self, slots: I64, points: I64, near: Vec3) -> tuple[list[int], list[int]]:
        """Of some running slots: their indices, and for each the first earlier fill near its point, or -1."""
        order = np.array([self.running[slot] for slot in slots.tolist()])
        return order.tolist(), self.slots.before(self.claimed, slots, order, order, points, near).tolist()

    def choose(self) -> int | None:
        """The first seed that may be filled and that no unsettled fill before it comes near; None if there is none."""
        while self.again or self.fresh < len(self.seeds):
            if self.again:  # all of them come before `fresh`
                index = heapq.heappop(self.again)
            else:
                index = self.fresh
                self.fresh += 1
            if index < self.turn or self.unusable(index):
                continue
            if self.count_slots == 1:
                return index
            before = self.slots.before(
                self.claimed,
                np.array(list(self.running), np.int64),
                np.array(list(self.running.values()), np.int64),
                np.array([index]),
                self.seeds[index][None],
                self.options.min_boundary_dist_vx,
            )[0]
            if before < 0:
                return index
            self.behind.setdefault(int(before), []).append(index)
        return None

    def finish(self, slot: int) -> None:
        """Take a fill that has stopped out of its slot."""
        status = int(self.slots.status[slot])
        index = self.running.pop(slot)
        if status == slots_of.NOT_FINITE:
            raise StageError(
                f"network: wanted finite logits, got others at {tuple(self.slots.position[slot].tolist())} (z, y, x), "
                f"from the seed {tuple(self.seeds[index].tolist())}; check the model and its precision"
            )
        box, tally = self.slots.box(slot), self.slots.tally[slot]
        reason = _REASONS[status]
        mask = None
        if reason in ("complete", "limit"):
            mask = self.slots.held(slot) & (self.labels[box] >= 0)
            if self.rows > 1:
                there = self.claimed[box]
                there[mask & ((there == 0) | (there > index + 1))] = index + 1
        low, border, no_tissue, taken = tally[slots_of.LOW : slots_of.TAKEN + 1].tolist()
        visited = self.slots.been(slot).copy()
        self.filled[index] = _Filled(index, reason, visited, (low, border, no_tissue, taken), box, mask)
        self.slots.clear(slot)


def _rules(options: FloodOptions) -> Rules:
    def logit(probability: float) -> np.float32:
        return np.float32(math.log(probability / (1 - probability)))

    return Rules(
        start=logit(options.init_activation),
        pad=logit(options.pad_value),
        move=logit(options.move_threshold),
        segment=logit(options.segment_threshold),
        disco=options.disco_seed_threshold,
        probe_moves=options.probe_moves,
        probe_voxels=options.probe_voxels,
        max_moves=options.max_moves,
    )
