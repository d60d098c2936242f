"""Where all tiles of a section lie: one robust least-squares solve over the patches found in their overlaps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from connectome_db.kernels.robust import distance_scale, huber, tukey

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

Model = Literal["translation", "rigid", "affine"]

_SCALE_FLOOR_PX = 0.08
_NOMINAL_WEIGHT = 1e-7
_TRANSLATION_STEP = 64.0
_LINEAR_STEP = float(1 << 24)


@dataclass(frozen=True)
class TileLinks:
    """Points (N, 2) as (y, x) px seen in tile `a` at `a_px` and in tile `b` at `b_px`, and its weight (0: gated)."""

    a: I64
    b: I64
    a_px: F64
    b_px: F64
    weight: F64


@dataclass(frozen=True)
class Placement:
    """Per tile: plane = linear (T, 2, 2) @ tile px + shift (T, 2); per link: weight and distance left; components."""

    linear: F64
    shift_px: F64
    weight: F64
    residual_px: F64
    component: I64
    matches: I64

    def apply(self, tile: I64, points_px: F64) -> F64:
        """Points (N, 2) of the tiles `tile` (N,) in the section's plane."""
        return np.asarray(np.einsum("nij,nj->ni", self.linear[tile], points_px) + self.shift_px[tile])


def place_tiles(nominal_px: F64, size_px: F64, links: TileLinks, *, model: Model, shape_prior: float) -> Placement:
    """Solve for the tiles' maps by iteratively reweighted least squares (Huber first, then Tukey's biweight).

    `nominal_px` (T, 2) are the tiles' nominal corners, `size_px` (T, 2) their sizes. `shape_prior` is the weight of one
    px of rotation or shear at the tile's edge against one px at one patch. Groups of tiles that no accepted patch links
    are solved apart; the mean move of the tiles' centres is 0 in each, so each stays where the stage put it.
    Translations are rounded to 1/64 px and linear parts to 2^-24; weights, residuals and components are of the rounded
    result.
    """
    tiles = len(nominal_px)
    centre = (size_px - 1.0) / 2.0
    reach = np.maximum(centre.max(axis=1), 1.0)
    linear = np.tile(np.eye(2), (tiles, 1, 1))
    middle = nominal_px + centre
    usable = links.weight > 0
    weight = links.weight.copy()

    def residual() -> F64:
        pa = np.einsum("nij,nj->ni", linear[links.a], links.a_px - centre[links.a]) + middle[links.a]
        pb = np.einsum("nij,nj->ni", linear[links.b], links.b_px - centre[links.b]) + middle[links.b]
        return np.asarray(pa - pb)

    for step in range(16 if len(links.a) else 0):
        moves = _solve(
            residual(), weight, links, centre, reach, middle - nominal_px - centre, model, shape_prior, linear
        )
        middle = middle + moves[:, :2]
        linear = _bend(linear, moves, reach, model)
        length = np.hypot(*residual().T)
        scale = distance_scale(length[usable & (weight > 0)], _SCALE_FLOOR_PX)
        # Huber finds the basin from afar, Tukey then leaves the outliers out for good.
        weight = links.weight * (huber(length, scale) if step < 6 else tukey(length, scale))

    component = _components(tiles, links, weight > 0.05 * links.weight)
    for c in np.unique(component):
        own = component == c
        middle[own] -= (middle - nominal_px - centre)[own].mean(axis=0)
    linear = np.rint(linear * _LINEAR_STEP) / _LINEAR_STEP
    shift = np.rint((middle - np.einsum("tij,tj->ti", linear, centre)) * _TRANSLATION_STEP) / _TRANSLATION_STEP
    middle = shift + np.einsum("tij,tj->ti", linear, centre)
    used = weight > 0
    matches = np.bincount(links.a[used], minlength=tiles) + np.bincount(links.b[used], minlength=tiles)
    return Placement(linear, shift, weight, np.hypot(*residual().T), component, matches.astype(np.int64))


def _columns(model: Model) -> int:
    return {"translation": 2, "rigid": 3, "affine": 6}[model]


def _design(points: F64, model: Model) -> tuple[F64, F64]:
    """Rows (N, K) for y and x: how points (N, 2), relative to the centre and scaled by the reach, move with a tile."""
    n, one, zero = len(points), np.ones(len(points)), np.zeros(len(points))
    u, v = points[:, 0], points[:, 1]
    rows_y, rows_x = [one, zero], [zero, one]
    if model == "rigid":
        rows_y, rows_x = [*rows_y, v], [*rows_x, -u]
    elif model == "affine":
        rows_y, rows_x = [*rows_y, u, v, zero, zero], [*rows_x, zero, zero, u, v]
    return np.stack(rows_y, axis=1).reshape(n, -1), np.stack(rows_x, axis=1).reshape(n, -1)


def _solve(
    residual: F64,
    weight: F64,
    links: TileLinks,
    centre: F64,
    reach: F64,
    moved: F64,
    model: Model,
    shape_prior: float,
    linear: F64,
) -> F64:
    """One Gauss-Newton step: parameter changes (T, K), shape parameters in px at the tile's reach."""
    tiles, k = len(centre), _columns(model)
    ay, ax = _design((links.a_px - centre[links.a]) / reach[links.a, None], model)
    by, bx = _design((links.b_px - centre[links.b]) / reach[links.b, None], model)
    n = len(links.a)
    row = np.repeat(np.arange(2 * n), 2 * k)
    own_a, own_b = links.a[:, None] * k + np.arange(k), links.b[:, None] * k + np.arange(k)
    col = np.tile(np.concatenate([own_a, own_b], axis=1), (2, 1)).ravel()
    value = np.concatenate([np.concatenate([ay, -by], axis=1), np.concatenate([ax, -bx], axis=1)]).ravel()
    design = sparse.csr_matrix((value, (row, col)), shape=(2 * n, tiles * k))
    w = np.tile(weight, 2)
    scaled = sparse.diags(w) @ design
    # The priors pull the whole map, not the step, or repeated steps would wear them down.
    prior = np.full((tiles, k), float(shape_prior))
    prior[:, :2] = _NOMINAL_WEIGHT
    state = np.zeros((tiles, k))
    state[:, :2] = moved
    if model == "rigid":
        state[:, 2] = np.arctan2(linear[:, 0, 1], linear[:, 0, 0]) * reach
    elif model == "affine":
        state[:, 2:] = (linear - np.eye(2)).reshape(tiles, 4) * reach[:, None]
    normal = (design.T @ scaled + sparse.diags(prior.ravel())).tocsc()
    right = -(scaled.T @ residual.T.ravel()) - (prior * state).ravel()
    return np.asarray(splu(normal).solve(right), dtype=np.float64).reshape(tiles, k)


def _bend(linear: F64, moves: F64, reach: F64, model: Model) -> F64:
    """The linear parts after a step's shape parameters; a rigid one stays an exact rotation."""
    if model == "rigid":
        angle = np.arctan2(linear[:, 0, 1], linear[:, 0, 0]) + moves[:, 2] / reach
        c, s = np.cos(angle), np.sin(angle)
        return np.stack([np.stack([c, s], axis=1), np.stack([-s, c], axis=1)], axis=1)
    if model == "affine":
        return linear + (moves[:, 2:] / reach[:, None]).reshape(-1, 2, 2)
    return linear


def _components(tiles: int, links: TileLinks, linked: npt.NDArray[np.bool_]) -> I64:
    """Groups of tiles joined by accepted links, numbered by size and then by their first tile; 0 is the largest."""
    graph = sparse.csr_matrix((np.ones(int(linked.sum())), (links.a[linked], links.b[linked])), shape=(tiles, tiles))
    count, label = connected_components(graph, directed=False)
    size = np.bincount(label, minlength=count)
    first = np.full(count, tiles)
    np.minimum.at(first, label, np.arange(tiles))
    rank = np.empty(count, dtype=np.int64)
    rank[np.lexsort((first, -size))] = np.arange(count)
    return np.asarray(rank[label], dtype=np.int64)
