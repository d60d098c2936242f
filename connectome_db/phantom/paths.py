"""Neurites as packed chains of balls: random paths with momentum, pushed apart until they hardly overlap.

A neurite is a chain of points (z, y, x in nm) with a radius each; a spine is a side chain that starts at a dendrite's
point. Chains repel each other and resist bending, the way growth-based tissue phantoms pack fibres (Ginsburger et al.
2019, MEDUSA). `partition.py` turns the balls into a space-filling partition.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

AXON, DENDRITE = 0, 1

_SPACING_NM = 75.0
_RELAX_STEPS = 50


@dataclass(frozen=True)
class Balls:
    """All balls of a tissue. Row order is: neurite after neurite, along each chain."""

    position_nm: F64
    """(n, 3) z, y, x."""
    radius_nm: F64
    """(n,)"""
    neurite: I64
    """(n,) index of the neurite, from 0."""
    before: I64
    """(n,) row of the ball before it in its chain; itself at the start. A spine's first: the dendrite's ball."""
    after: I64
    """(n,) row of the ball after it in its chain; itself at the end."""
    role: I64
    """(neurites,) AXON or DENDRITE."""

    def tangent(self) -> F64:
        """(n, 3) unit direction of the chain at each ball."""
        step = self.position_nm[self.after] - self.position_nm[self.before]
        return _unit(step + 1e-9)

    def keep(self, rows: npt.NDArray[np.bool_]) -> Balls:
        """The balls where `rows` (n,) is true; neurite numbers stay, chains close over removed balls."""
        new = np.cumsum(rows) - 1
        own = new[rows]
        before, after = self.before[rows], self.after[rows]
        return Balls(
            self.position_nm[rows],
            self.radius_nm[rows],
            self.neurite[rows],
            np.where(rows[before], new[before], own),
            np.where(rows[after], new[after], own),
            self.role,
        )


def _unit(vectors: F64) -> F64:
    length: F64 = np.linalg.norm(vectors, axis=-1, keepdims=True)
    out: F64 = vectors / np.maximum(length, 1e-12)
    return out


def _walk(rng: np.random.Generator, start_nm: F64, direction: F64, steps: int, bend: float) -> F64:
    """A path of `steps` points from `start_nm`; its direction drifts by `bend` radians per step."""
    wander = np.cumsum(rng.normal(0.0, bend, (steps, 3)), axis=0)
    along = _unit(direction + wander)
    path: F64 = start_nm + np.cumsum(along, axis=0) * _SPACING_NM
    return path


def _through(rng: np.random.Generator, extent_nm: F64, bend: float) -> F64:
    """A path that passes a random point and leaves the box (0 .. extent_nm) at both ends."""
    start = rng.uniform(0.0, 1.0, 3) * extent_nm
    direction = _unit(rng.normal(0.0, 1.0, 3))
    steps = int(2.5 * np.linalg.norm(extent_nm) / _SPACING_NM)
    halves: list[F64] = []
    for sign in (1.0, -1.0):
        path = _walk(rng, start, sign * direction, steps, bend)
        outside = np.any((path < 0) | (path > extent_nm), axis=1)
        halves.append(path[: int(np.argmax(outside)) if outside.any() else steps])
    return np.concatenate([halves[1][::-1], start[None], halves[0]])


def _calibre(rng: np.random.Generator, count: int, mean_nm: float, varicose: bool) -> F64:
    """(count,) radii along a chain: slow swelling, and boutons every micrometre or two where `varicose`."""
    s = np.arange(count) * _SPACING_NM
    phase = rng.uniform(0, 2 * np.pi, 2)
    radius = mean_nm * (1 + 0.12 * np.sin(s / 310 + phase[0]) + 0.08 * np.sin(s / 130 + phase[1]))
    if varicose:
        at = rng.uniform(0, 700) + np.cumsum(rng.uniform(900, 1900, count // 10 + 2))
        bump = rng.uniform(70, 150, at.size)
        radius = radius + (bump * np.exp(-(((s[:, None] - at) / 210) ** 2))).sum(axis=1)
    return np.asarray(radius, np.float64)


def _spines(rng: np.random.Generator, path: F64, radius: F64, per_um: float) -> list[tuple[int, F64, F64]]:
    """Side chains of a dendrite: (row of the parent ball, positions, radii): a thin neck and a head."""
    out: list[tuple[int, F64, F64]] = []
    for parent in np.flatnonzero(rng.random(len(path)) < per_um * _SPACING_NM / 1000):
        along = path[min(int(parent) + 1, len(path) - 1)] - path[max(int(parent) - 1, 0)]
        outward = _unit(np.cross(along, rng.normal(0, 1, 3)))
        step = 50.0
        count = int(rng.uniform(350, 750) / step)
        base = path[parent] + outward * (radius[parent] - 30)
        chain = base + outward * step * np.arange(1, count + 1)[:, None]
        s = np.arange(count)[::-1] * step
        out.append((int(parent), chain, 62 + rng.uniform(70, 130) * np.exp(-(((s - 110) / 120) ** 2))))
    return out


def grow(
    rng: np.random.Generator,
    extent_nm: F64,
    *,
    pad_nm: float,
    dendrite_radius_nm: tuple[float, float],
    axon_radius_nm: tuple[float, float],
    dendrite_fraction: float,
    spines_per_um: float,
) -> Balls:
    """Fill the box (0 .. extent_nm, z y x) and `pad_nm` around it with neurites, then pack them.

    Neurites are added until the sum of their volumes equals the box's, dendrites first up to `dendrite_fraction`.
    """
    padded = extent_nm + 2 * pad_nm
    room_nm3, used_nm3 = float(np.prod(padded)), 0.0
    rows: list[tuple[F64, F64, int, I64, I64]] = []
    roles: list[int] = []
    offset = 0
    while used_nm3 < 1.02 * room_nm3:
        dendrite = used_nm3 < dendrite_fraction * room_nm3
        low, high = dendrite_radius_nm if dendrite else axon_radius_nm
        path = _through(rng, padded, 0.05 if dendrite else 0.11)
        if len(path) < 5:
            continue
        radius = _calibre(rng, len(path), rng.uniform(low, high), not dendrite)
        count = len(path)
        index = np.arange(offset, offset + count)
        chains = [(path, radius, np.maximum(index - 1, offset), np.minimum(index + 1, offset + count - 1))]
        offset += count
        for parent, chain, chain_radius in _spines(rng, path, radius, spines_per_um) if dendrite else []:
            own = np.arange(offset, offset + len(chain))
            before = np.concatenate([[index[parent]], own[:-1]])
            chains.append((chain, chain_radius, before, np.minimum(own + 1, own[-1])))
            offset += len(chain)
        for position, r, before, after in chains:
            rows.append((position, r, len(roles), before, after))
        used_nm3 += float(np.pi * (radius**2).sum() * _SPACING_NM)
        roles.append(DENDRITE if dendrite else AXON)
    balls = Balls(
        np.concatenate([row[0] for row in rows]) - pad_nm,
        np.concatenate([row[1] for row in rows]),
        np.concatenate([np.full(len(row[0]), row[2], np.int64) for row in rows]),
        np.concatenate([row[3] for row in rows]),
        np.concatenate([row[4] for row in rows]),
        np.asarray(roles, np.int64),
    )
    return _relax(balls)


def _relax(balls: Balls) -> Balls:
    """Push overlapping balls of different neurites apart, the thinner one further, and keep chains smooth."""
    x = balls.position_nm.copy()
    r = balls.radius_nm
    n = len(x)
    for step in range(_RELAX_STEPS):
        push = np.zeros_like(x)
        pairs = _near_pairs(x, r)
        a, b = pairs[:, 0], pairs[:, 1]
        other = balls.neurite[a] != balls.neurite[b]
        a, b = a[other], b[other]
        apart = x[b] - x[a]
        distance = np.sqrt((apart**2).sum(axis=1)) + 1e-6
        overlap = np.maximum(0.88 * (r[a] + r[b]) - distance, 0.0)
        share = (r[b] ** 2 / (r[a] ** 2 + r[b] ** 2))[:, None]
        move = 0.35 * (overlap / distance)[:, None] * apart
        for axis in range(3):
            push[:, axis] -= np.bincount(a, (move * share)[:, axis], n)
            push[:, axis] += np.bincount(b, (move * (1 - share))[:, axis], n)
        length = np.sqrt((push**2).sum(axis=1, keepdims=True)) + 1e-9
        x += push * np.minimum(1.0, 35.0 / length)
        bend = 0.5 * (x[balls.before] + x[balls.after]) - x
        ends = (balls.before == np.arange(n)) | (balls.after == np.arange(n))
        x += np.where(ends[:, None], 0.0, 0.35 if step < _RELAX_STEPS - 2 else 0.6) * bend
    packed = Balls(x, r, balls.neurite, balls.before, balls.after, balls.role)
    # Where two chains could not get out of each other's way, the thinner one ends.
    a, b = _near_pairs(x, r).T
    deep = (balls.neurite[a] != balls.neurite[b]) & (np.linalg.norm(x[a] - x[b], axis=1) < 0.6 * np.maximum(r[a], r[b]))
    lost = np.zeros(n, np.bool_)
    lost[np.where(r[a] < r[b], a, b)[deep]] = True
    return packed.keep(~lost)


def _near_pairs(x: F64, r: F64) -> I64:
    """(m, 2) pairs that may overlap: thin with thin in a small radius, anything with thick in a large one."""
    cut = 190.0
    thin, thick = np.flatnonzero(r <= cut), np.flatnonzero(r > cut)
    parts = [thin[cKDTree(x[thin]).query_pairs(2 * 0.88 * cut, output_type="ndarray")]]
    if thick.size:
        tree = cKDTree(x[thick])
        reach = 0.88 * float(r.max())
        parts.append(thick[tree.query_pairs(2 * reach, output_type="ndarray")])
        found = cKDTree(x[thin]).sparse_distance_matrix(tree, reach + 0.88 * cut, output_type="ndarray")
        parts.append(np.stack([thin[found["i"]], thick[found["j"]]], axis=1))
    pairs = np.concatenate(parts).astype(np.int64)
    # The tree's order is its own; sums of floats must not depend on it.
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return np.asarray(pairs[order], np.int64)
