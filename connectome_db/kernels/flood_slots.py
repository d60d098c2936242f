"""Objects in the course of being filled, each in a slot of its own: canvas, queue of moves, what was visited.

One step is two compiled calls around one call of the network, each row of which is about one slot:

    gather    image and canvas around the slots' positions -> the network's input
    advance   its answer -> canvas; maxima on the faces of a box of +-deltas -> queue; next position off the queue

A canvas of zeros is one where nothing was seen: a logit of 0 is written as -0.0, which differs in its bits alone. So
memory is used only where a fill has been, however many slots there are.

A slot reads `labels` (what is settled) only where it wants to move, and remembers everywhere it has been. So whether a
fill would have gone otherwise had more been settled at its start is decided by looking at its visited positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from connectome_db.geometry import Vec3

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

RUNNING, COMPLETE, WEAK, HOPELESS, LIMIT, NOT_FINITE = range(6)
"""What `advance` says of a slot."""
MOVES, ACTIVE, LOW, BORDER, NO_TISSUE, TAKEN, FIRST, LAST = range(8)
"""Columns of `tally`: moves made, voxels at or above the segment threshold, moves refused for four reasons (logit too
low by now, window beyond the image, no tissue, inside a settled object), and the ends of the queue."""


@dataclass(frozen=True)
class Rules:
    """Settings of a fill as compiled code takes them; thresholds are logits."""

    start: np.float32
    pad: np.float32
    move: np.float32
    segment: np.float32
    disco: float
    probe_moves: int
    probe_voxels: int
    max_moves: int


class Slots:
    """`count` slots over one image (z, y, x).

    Memory is 4 bytes per voxel and slot where a fill has been.
    """

    def __init__(self, image: U8, labels: I32, count: int, fov_vx: Vec3, deltas_vx: Vec3, rules: Rules) -> None:
        self.image, self.labels, self.rules = image, labels, rules
        self.fov = np.asarray(fov_vx, np.int64)
        self.deltas = np.asarray(deltas_vx, np.int64)
        steps = np.maximum(self.deltas, 1)
        cells = np.asarray(image.shape) // steps + 2
        most = int(cells.prod())  # a cell is visited once, and a visit queues at most six moves
        self.canvas = np.zeros((count, *image.shape), np.float32)
        self.bits = self.canvas.view(np.int32)
        self.seeds = np.zeros((count, 3), np.int64)
        self.position = np.zeros((count, 3), np.int64)
        self.done = np.zeros((count, *cells), np.bool_)
        self.queue = np.empty((count, 6 * most + 1, 3), np.int32)
        self.visited = np.empty((count, most, 3), np.int32)
        self.tally = np.zeros((count, 8), np.int64)
        self.status = np.zeros(count, np.int64)

    def begin(self, slot: int, seed: I64) -> None:
        """Start a fill at `seed` (z, y, x), which must have a whole field of view around it."""
        self.seeds[slot] = self.position[slot] = seed
        self.canvas[slot][tuple(seed)] = self.rules.start or np.float32(-0.0)
        self.tally[slot] = 0
        self.tally[slot, ACTIVE] = self.rules.start >= self.rules.segment
        self.status[slot] = RUNNING

    def gather(self, active: I64, images: U8, masks: F32) -> None:
        """Fill one row of `images` and `masks`, (n, z, y, x), for each of the slots `active`, in their order."""
        _gather(active, self.position, self.image, self.canvas, self.bits, self.rules.pad, images, masks)

    def advance(self, active: I64, logits: F32) -> None:
        """Take the network's answer (batch, z, y, x) for the slots `active`; their `status` says how they go on."""
        r = self.rules
        _advance(
            active, logits, self.canvas, self.bits, self.labels, self.seeds, self.position, self.deltas, self.fov,
            self.done, self.queue, self.visited, self.tally, self.status, r.move, r.segment, r.disco, r.probe_moves,
            r.probe_voxels, r.max_moves,
        )  # fmt: skip

    def refuse(self, slot: int) -> None:
        """Take the next position instead of one that has come to lie in a settled object since it was chosen."""
        self.tally[slot, TAKEN] += 1
        found = _pop(
            self.canvas[slot], self.labels, self.seeds[slot], self.position[slot], self.deltas, self.fov,
            self.done[slot], self.queue[slot], self.tally[slot], self.rules.move,
        )  # fmt: skip
        self.status[slot] = RUNNING if found else COMPLETE

    def been(self, slot: int) -> I32:
        """Positions (n, 3) at which the network was asked, in order."""
        return self.visited[slot, : self.tally[slot, MOVES]]

    def box(self, slot: int) -> tuple[slice, slice, slice]:
        """The part of the canvas that the fill has written."""
        been = self.been(slot) if self.tally[slot, MOVES] else self.seeds[slot][None]
        low, high = been.min(axis=0) - self.fov // 2, been.max(axis=0) + self.fov // 2 + 1
        return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])

    def clear(self, slot: int) -> None:
        """Make the slot as if it had never been used."""
        self.canvas[slot][self.box(slot)] = 0
        _forget(self.been(slot), self.seeds[slot], self.deltas, self.done[slot])

    def held(self, slot: int) -> Mask:
        """Voxels of `box` at or above the segment threshold: bool (z, y, x)."""
        box = self.box(slot)
        return np.asarray((self.canvas[slot][box] >= self.rules.segment) & (self.bits[slot][box] != 0))

    def before(self, claimed: I32, slots: I64, order: I64, index: I64, points: I64, near_vx: Vec3) -> I64:
        """For each of n fills `index`: the first fill before it that comes `near_vx` its point (n, 3); -1 if none does.

        Fills are those of `slots`, with their index in `order`, and those of `claimed` ((z, y, x), index + 1).
        """
        near = np.asarray(near_vx, np.int64)
        found = _before(self.canvas, self.bits, claimed, slots, order, index, points, near, self.rules.segment)
        return np.asarray(found, np.int64)


def enters(visited: I32, labels: I32) -> bool:
    """Say whether any of the positions (n, 3) lies in a settled object."""
    return bool((labels[visited[:, 0], visited[:, 1], visited[:, 2]] > 0).any())


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]  # numba ships no types
def _gather(
    active: I64, position: I64, image: U8, canvas: F32, bits: I32, pad: np.float32, images: U8, masks: F32
) -> None:
    nz, ny, nx = images.shape[1:]
    for row in range(len(active)):
        b = active[row]
        z0, y0, x0 = position[b, 0] - nz // 2, position[b, 1] - ny // 2, position[b, 2] - nx // 2
        for z in range(nz):
            for y in range(ny):  # lines are cut out first: the loops over them then take several voxels at a time
                grey, seen = image[z0 + z, y0 + y, x0 : x0 + nx], canvas[b, z0 + z, y0 + y, x0 : x0 + nx]
                any_seen = bits[b, z0 + z, y0 + y, x0 : x0 + nx]
                to_grey, to_seen = images[row, z, y], masks[row, z, y]
                for x in range(nx):
                    to_grey[x] = grey[x]
                for x in range(nx):
                    to_seen[x] = seen[x] if any_seen[x] != 0 else pad


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _advance(
    active: I64, logits: F32, canvas: F32, bits: I32, labels: I32, seeds: I64, position: I64, deltas: I64, fov: I64,
    done: Mask, queue: I32, visited: I32, tally: I64, status: I64, move: np.float32, segment: np.float32, disco: float,
    probe_moves: int, probe_voxels: int, max_moves: int,
) -> None:  # fmt: skip
    for row in range(len(active)):
        b = active[row]
        at, seed, here = position[b], seeds[b], tally[b]
        if not _update(logits[row], canvas[b], bits[b], at, here, move, segment, disco):
            status[b] = NOT_FINITE
            continue
        cz, cy, cx = _cell(at[0], at[1], at[2], seed, deltas)
        done[b, cz, cy, cx] = True
        for axis in range(3):
            visited[b, here[MOVES], axis] = at[axis]
        here[MOVES] += 1
        _push(canvas[b], at, deltas, queue[b], here, move)
        if canvas[b, seed[0], seed[1], seed[2]] < move:
            status[b] = WEAK
        elif here[MOVES] == probe_moves and here[ACTIVE] < probe_voxels:
            status[b] = HOPELESS
        elif here[MOVES] == max_moves:
            status[b] = LIMIT
        elif not _pop(canvas[b], labels, seed, at, deltas, fov, done[b], queue[b], here, move):
            status[b] = COMPLETE


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _update(
    logits: F32, canvas: F32, bits: I32, at: I64, tally: I64, move: np.float32, segment: np.float32, disco: float
) -> bool:
    """Write the answer at `at` into the canvas. Where enough is active, a voxel that was background stays it."""
    nz, ny, nx = logits.shape
    zero = np.float32(0)
    active, odd = np.int32(0), np.int32(0)
    answer = logits.reshape(-1)
    for k in range(answer.size):
        active += np.int32(answer[k] >= move)
        odd += np.int32(answer[k] - answer[k] != zero)  # NaN or infinite
    if odd:
        return False
    ceiling = zero if disco >= 0 and active > disco * answer.size else np.float32(-np.inf)
    z0, y0, x0 = at[0] - nz // 2, at[1] - ny // 2, at[2] - nx // 2
    change = np.int64(0)
    for z in range(nz):
        for y in range(ny):
            row, said = canvas[z0 + z, y0 + y, x0 : x0 + nx], logits[z, y]
            any_seen = bits[z0 + z, y0 + y, x0 : x0 + nx]
            more = np.int32(0)
            for x in range(nx):  # a loop of its own: it reads what the next one writes under another name
                more -= np.int32((row[x] >= segment) & (any_seen[x] != 0))
            for x in range(nx):
                old, new = row[x], said[x]
                new = old if (old < ceiling) & (new > old) else new  # never where nothing was seen: 0 is no less than 0
                more += np.int32(new >= segment)
                row[x] = new if new != zero else -zero
            change += more
    tally[ACTIVE] += change
    return True


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _push(canvas: F32, at: I64, deltas: I64, queue: I32, tally: I64, move: np.float32) -> None:
    """Queue the highest voxel of each face of the box of +-deltas around `at`, highest first, each once.

    Of equal ones the later in raster order goes first. An edge of the box belongs to two faces and may be found twice.
    """
    score = np.empty(6, np.float32)
    place = np.empty((6, 3), np.int64)
    found = 0
    for axis in range(3):
        if deltas[axis] == 0:
            continue
        for side in (-1, 1):
            best, z, y, x = _highest(canvas, at, deltas, axis, side)
            if best < move:
                continue
            k = found
            while k > 0 and (score[k - 1] < best or (score[k - 1] == best and _order(place[k - 1], z, y, x) < 0)):
                k -= 1
            if k > 0 and score[k - 1] == best and _order(place[k - 1], z, y, x) == 0:
                continue
            for m in range(found, k, -1):
                score[m] = score[m - 1]
                place[m] = place[m - 1]
            score[k] = best
            place[k, 0], place[k, 1], place[k, 2] = z, y, x
            found += 1
    for k in range(found):
        for axis in range(3):
            queue[tally[LAST], axis] = place[k, axis]
        tally[LAST] += 1


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _highest(canvas: F32, at: I64, deltas: I64, axis: int, side: int) -> tuple[np.float32, int, int, int]:
    """Highest value on one face of the box, and the first voxel (z, y, x) in raster order that has it."""
    low, high = at - deltas, at + deltas
    low[axis] = high[axis] = at[axis] + side * deltas[axis]
    best = canvas[low[0], low[1], low[2]]
    found = (low[0], low[1], low[2])
    for z in range(low[0], high[0] + 1):
        for y in range(low[1], high[1] + 1):
            for x in range(low[2], high[2] + 1):
                if canvas[z, y, x] > best:
                    best, found = canvas[z, y, x], (z, y, x)
    return best, found[0], found[1], found[2]


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _order(place: I64, z: int, y: int, x: int) -> int:
    """Negative if `place` comes before (z, y, x) in raster order, 0 if they are one, else positive."""
    if place[0] != z:
        return int(place[0] - z)
    if place[1] != y:
        return int(place[1] - y)
    return int(place[2] - x)


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _pop(
    canvas: F32, labels: I32, seed: I64, at: I64, deltas: I64, fov: I64,
    done: Mask, queue: I32, tally: I64, move: np.float32,
) -> bool:  # fmt: skip
    """Set `at` to the next position of the queue where a move is allowed; false when there is none.

    What depends on `labels` is asked last, so that the counts of the other reasons do not depend on what is settled.
    """
    while tally[FIRST] < tally[LAST]:
        z, y, x = queue[tally[FIRST], 0], queue[tally[FIRST], 1], queue[tally[FIRST], 2]
        tally[FIRST] += 1
        cz, cy, cx = _cell(z, y, x, seed, deltas)
        if done[cz, cy, cx]:
            continue
        if canvas[z, y, x] < move:
            tally[LOW] += 1
            continue
        mz, my, mx = fov[0] // 2, fov[1] // 2, fov[2] // 2
        nz, ny, nx = canvas.shape
        if z < mz or y < my or x < mx or z + mz >= nz or y + my >= ny or x + mx >= nx:
            tally[BORDER] += 1
            continue
        if labels[z, y, x] != 0:
            tally[NO_TISSUE if labels[z, y, x] < 0 else TAKEN] += 1
            continue
        at[0], at[1], at[2] = z, y, x
        return True
    return False


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _cell(z: int, y: int, x: int, seed: I64, deltas: I64) -> tuple[int, int, int]:
    """Cell of the lattice of `deltas` in whose middle the seed lies, counted from the image's first voxel."""
    dz, dy, dx = max(deltas[0], 1), max(deltas[1], 1), max(deltas[2], 1)
    hz, hy, hx = dz // 2 - seed[0], dy // 2 - seed[1], dx // 2 - seed[2]
    return (z + hz) // dz - hz // dz, (y + hy) // dy - hy // dy, (x + hx) // dx - hx // dx


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _forget(visited: I32, seed: I64, deltas: I64, done: Mask) -> None:
    for k in range(len(visited)):
        cz, cy, cx = _cell(visited[k, 0], visited[k, 1], visited[k, 2], seed, deltas)
        done[cz, cy, cx] = False


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _before(
    canvas: F32,
    bits: I32,
    claimed: I32,
    slots: I64,
    order: I64,
    index: I64,
    points: I64,
    near: I64,
    segment: np.float32,
) -> I64:
    found = np.full(len(index), -1, np.int64)
    for k in range(len(index)):
        low = np.maximum(points[k] - near, 0)
        high = points[k] + near + 1
        box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
        for waiting in claimed[box].flat:
            if 0 < waiting <= index[k] and (found[k] < 0 or waiting - 1 < found[k]):
                found[k] = waiting - 1
        for j in range(len(slots)):
            if order[j] < index[k] and (found[k] < 0 or order[j] < found[k]):
                held = (canvas[slots[j]][box] >= segment) & (bits[slots[j]][box] != 0)
                if held.any():
                    found[k] = order[j]
    return found
