"""Flood-filling one object after the other, written down as plainly as possible: what the fast engine must equal.

And small networks that are functions of what they see, so that the answer is known or at least the same every time.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from scipy import ndimage

from connectome_db.kernels.flood_types import FloodOptions


class Bright:
    """What is brighter than 128 and connected to the mask so far is the object. Exact: no training, no rounding."""

    def __init__(self, batch: int = 1, fov_vx=(9, 9, 9), deltas_vx=(3, 3, 3)) -> None:
        self.batch, self.fov_vx, self.deltas_vx = batch, fov_vx, deltas_vx
        self.rows = 0

    def predict(self, images, masks):
        assert images.shape == masks.shape == (self.batch, *self.fov_vx)
        self.rows += len(images)
        return np.stack([self.one(i, m) for i, m in zip(images, masks, strict=True)])

    def one(self, image, mask):
        flooded = ndimage.binary_propagation(mask > 0, mask=image > 128)
        return np.where(flooded, 4, -4).astype(np.float32)


class Moody(Bright):
    """An answer that depends on grey values and on every earlier answer, as a real network's does.

    It takes back, it forgets, and it hesitates: so every rule of the engine is met.
    """

    def one(self, image, mask):
        grey = image.astype(np.float32) / 64 - 1.5
        held = ndimage.binary_propagation(mask > 0, mask=image > 100)
        near = ndimage.uniform_filter(mask, size=3, mode="nearest")
        value = np.clip(grey * 2 + np.where(held, 2.0, -2.5) + near / 3 - 1.5 * (mask > 3.5), -6, 6)
        return (np.round(value * 64) / 64).astype(np.float32)


def logit(p: float) -> np.float32:
    return np.float32(np.log(p / (1 - p)))


def one_after_the_other(image, network, seeds, options: FloodOptions, tissue=None) -> dict[str, Any]:
    """Labels, one tuple per object, and counts of seeds not tried."""
    fov, deltas = np.array(network.fov_vx), np.array(network.deltas_vx)
    margin = fov // 2
    tissue = np.ones(image.shape, bool) if tissue is None else tissue
    labels = np.zeros(image.shape, np.int64)
    objects: list[tuple[Any, ...]] = []
    skipped = {"border": 0, "no_tissue": 0, "taken": 0, "close": 0}
    for seed in map(tuple, seeds.tolist()):
        near = tuple(slice(max(s - d, 0), s + d + 1) for s, d in zip(seed, options.min_boundary_dist_vx, strict=True))
        if (np.array(seed) - margin < 0).any() or (np.array(seed) + margin >= image.shape).any():
            skipped["border"] += 1
        elif not tissue[seed]:
            skipped["no_tissue"] += 1
        elif labels[seed] > 0:
            skipped["taken"] += 1
        elif (labels[near] > 0).any():
            skipped["close"] += 1
        else:
            canvas, moves, reason, refused = fill(image, network, seed, options, tissue, labels, fov, deltas)
            label, voxels, overlaps = 0, 0, ()
            if reason in ("complete", "limit"):
                claimed = np.nan_to_num(canvas, nan=-99) >= logit(options.segment_threshold)
                claimed &= tissue
                voxels = int((claimed & (labels == 0)).sum())
                overlaps = tuple(
                    (k, int((claimed & (labels == k)).sum())) for k in np.unique(labels[claimed]).tolist() if k > 0
                )
                if voxels >= max(options.min_segment_vx, 1):
                    label = int(labels.max()) + 1
                    labels[claimed & (labels == 0)] = label
                else:
                    reason = "small"
            objects.append((label, seed, moves, voxels, overlaps, reason, *refused))
    return {"labels": labels, "objects": objects, "skipped": skipped}


def fill(image, network, seed, options, tissue, labels, fov, deltas):
    """Fill from one seed: its canvas, the number of moves, why it ended, and how many moves were refused why."""
    margin = fov // 2
    move = logit(options.move_threshold)
    canvas = np.full(image.shape, np.nan, np.float32)
    canvas[seed] = logit(options.init_activation)
    done = set()
    queue = deque([seed])
    moves, low, border, no_tissue, taken = 0, 0, 0, 0, 0

    def cell(position):
        return tuple(((np.array(position) - seed + deltas // 2) // np.maximum(deltas, 1)).tolist())

    while queue:
        at = queue.popleft()
        if cell(at) in done:
            continue
        if canvas[at] < move:
            low += 1
            continue
        if (np.array(at) - margin < 0).any() or (np.array(at) + margin >= image.shape).any():
            border += 1
            continue
        if not tissue[at]:
            no_tissue += 1
            continue
        if labels[at] > 0:
            taken += 1
            continue
        window = tuple(slice(a - m, a + m + 1) for a, m in zip(at, margin, strict=True))
        old = canvas[window].copy()
        mask = np.where(np.isnan(old), logit(options.pad_value), old)
        new = network.one(image[window], mask).copy()
        if options.disco_seed_threshold >= 0 and (new >= move).mean() > options.disco_seed_threshold:
            with np.errstate(invalid="ignore"):
                frozen = (old < 0) & (new > old)
            new[frozen] = old[frozen]
        canvas[window] = new
        done.add(cell(at))
        moves += 1
        for _, step in sorted(set(faces(new, deltas, move)), reverse=True):
            queue.append(tuple((np.array(at) + step).tolist()))
        refused = (low, border, no_tissue, taken)
        if canvas[seed] < move:
            return canvas, moves, "weak", refused
        if moves == options.probe_moves:
            active = (np.nan_to_num(canvas, nan=-99) >= logit(options.segment_threshold)).sum()
            if active < options.probe_voxels:
                return canvas, moves, "hopeless", refused
        if moves == options.max_moves:
            return canvas, moves, "limit", refused
    return canvas, moves, "complete", (low, border, no_tissue, taken)


def faces(new, deltas, move):
    """(score, step) of the highest voxel of each face of the box of +-deltas around the middle."""
    centre = np.array(new.shape) // 2
    for axis in range(3):
        if deltas[axis] == 0:
            continue
        for side in (-deltas[axis], deltas[axis]):
            low, high = centre - deltas, centre + deltas + 1
            low[axis] = centre[axis] + side
            high[axis] = low[axis] + 1
            face = new[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
            place = np.array(np.unravel_index(face.argmax(), face.shape))
            if face.max() >= move:
                yield float(face.max()), tuple((place + low - centre).tolist())
