"""Elastic refinement: displacements on a regular mesh per section, all solved at once, then turned into a backward map.

The springs of TrakEM2's and SOFIMA's meshes (Saalfeld et al. 2012) in their linear form: matches pull nodes together,
differences between neighbouring nodes are stiff, and a weak spring ties every node to its place in the affine solution.
That last one is the high-pass that keeps the stack from drifting: tissue that runs obliquely pulls each section a
little along its neighbours, and without it those pulls add up from section to section.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import splu

from connectome_db.kernels.robust import distance_scale, tukey

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

_DIRECT_UNKNOWNS = 150_000
_ITERATIONS = 400
_FLOOR_PX = 0.25
_BROAD = 1.5
"""Tukey's cut-off is widened by this: residuals here are mostly the tissue's own motion, which is not Gaussian."""


@dataclass(frozen=True)
class Lattice:
    """Nodes at multiples of `step_px` from `low` (y, x), `shape` of them, in the aligned frame."""

    step_px: int
    low: tuple[int, int]
    shape: tuple[int, int]

    @property
    def size(self) -> int:
        """Number of nodes."""
        return self.shape[0] * self.shape[1]

    def nodes_px(self) -> F64:
        """Positions (rows, columns, 2) of the nodes."""
        y = (self.low[0] + np.arange(self.shape[0])) * self.step_px
        x = (self.low[1] + np.arange(self.shape[1])) * self.step_px
        return np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).astype(np.float64)

    def corners(self, points_px: F64) -> tuple[I64, F64]:
        """For points (N, 2): flat numbers (N, 4) of the nodes around each and their bilinear weights (N, 4).

        Outside the lattice the outermost cell goes on linearly.
        """
        at = points_px / self.step_px - np.asarray(self.low, dtype=np.float64)
        cell = np.clip(np.floor(at), 0, np.asarray(self.shape) - 2).astype(np.int64)
        v, u = (at - cell).T
        n = cell[:, 0] * self.shape[1] + cell[:, 1]
        number = np.stack([n, n + 1, n + self.shape[1], n + self.shape[1] + 1], axis=1)
        return number, np.stack([(1 - v) * (1 - u), (1 - v) * u, v * (1 - u), v * u], axis=1)

    def sample(self, values: F64, points_px: F64) -> F64:
        """Values (size, 2) at the nodes, bilinear at points (N, 2)."""
        number, weight = self.corners(points_px)
        return np.asarray(np.einsum("nk,nkc->nc", weight, values[number]), dtype=np.float64)

    def over_pixels(self, values: F64, low: tuple[int, int], shape: tuple[int, int]) -> tuple[F64, F64]:
        """Values (size, 2) at the nodes, bilinear at the pixels of a window from `low`: (y, x); NaN off the lattice."""
        out = np.full((2, *shape), np.nan)
        y = (low[0] + np.arange(shape[0])) / self.step_px - self.low[0]
        x = (low[1] + np.arange(shape[1])) / self.step_px - self.low[1]
        rows = np.flatnonzero((y >= 0) & (y <= self.shape[0] - 1))
        cols = np.flatnonzero((x >= 0) & (x <= self.shape[1] - 1))
        if rows.size and cols.size:
            y, x = y[rows], x[cols]
            i, j = np.minimum(y.astype(int), self.shape[0] - 2), np.minimum(x.astype(int), self.shape[1] - 2)
            v, u = (y - i)[:, None], (x - j)[None, :]
            for c in range(2):
                grid = values[:, c].reshape(self.shape)
                lines = grid[i] * (1 - v) + grid[i + 1] * v
                out[c][np.ix_(rows, cols)] = lines[:, j] * (1 - u) + lines[:, j + 1] * u
        return out[0], out[1]


def lattice_over(points_px: F64, step_px: int, pad: int = 0, trim_px: float = 0.0) -> Lattice:
    """The smallest lattice whose nodes enclose points (N, 2), and `pad` more cells on each side; at least one cell.

    A cell that less than `trim_px` of the points' hull reaches into is left off.
    """
    low = np.floor((points_px.min(axis=0) + trim_px) / step_px).astype(int) - pad
    high = np.maximum(np.ceil((points_px.max(axis=0) - trim_px) / step_px).astype(int) + pad, low + 1)
    return Lattice(step_px, (int(low[0]), int(low[1])), (int(high[0] - low[0]) + 1, int(high[1] - low[1]) + 1))


def relax(
    lattices: list[Lattice],
    a: I64,
    b: I64,
    a_px: F64,
    b_px: F64,
    trust: F64,
    weight: F64,
    anchor: int,
    *,
    stiffness: float,
    tether: float,
    rounds: int = 4,
) -> tuple[list[F64], F64]:
    """Displacements (size, 2) at the nodes of each section's lattice, and the weights (N,) of the last round.

    `a_px`, `b_px` (N, 2) are matched points in the aligned frame after the affine solve, of the sections `a`, `b` (N,);
    `trust` (N,) multiplies the robust weights, `weight` (N,) are those of the first round.
    Minimises sum w |(pa + ua) - (pb + ub)|^2 + stiffness * sum |u_i - u_j|^2 over edges + tether * sum |u|^2, with
    u = 0 in the anchor section; weights are Tukey's, renewed each round. Sparse direct factorisation up to 150,000
    nodes, then a fixed number of conjugate-gradient steps, which no thread count can change.
    """
    first = np.concatenate([[0], np.cumsum([grid.size for grid in lattices])]).astype(np.int64)
    total = int(first[-1])
    design = _difference(lattices, first, a, b, a_px, b_px)
    springs = stiffness * _laplacian(lattices) + tether * sparse.identity(total, format="csr")
    free = np.ones(total, dtype=np.bool_)
    free[first[anchor] : first[anchor + 1]] = False
    index = np.flatnonzero(free)
    design_free, springs_free = design[:, index], springs[index][:, index]
    gap = b_px - a_px
    moves = np.zeros((total, 2))
    for _ in range(rounds if len(a) else 0):
        scaled = sparse.diags(weight) @ design_free
        moves[index] = _solve((design_free.T @ scaled + springs_free).tocsc(), np.asarray(scaled.T @ gap))
        length = np.hypot(*(design @ moves - gap).T)
        weight = trust * tukey(length, _BROAD * distance_scale(length[weight > 0], _FLOOR_PX))
    return [moves[first[s] : first[s + 1]] for s in range(len(lattices))], weight


def _difference(lattices: list[Lattice], first: I64, a: I64, b: I64, a_px: F64, b_px: F64) -> sparse.csr_matrix:
    """The matrix (N, nodes) that takes displacements at nodes to ua - ub at the matches."""
    number, share = np.zeros((len(a), 8), dtype=np.int64), np.zeros((len(a), 8))
    for side, (section, points, sign) in enumerate(((a, a_px, 1.0), (b, b_px, -1.0))):
        part = slice(4 * side, 4 * side + 4)
        for s, grid in enumerate(lattices):
            own = section == s
            if own.any():
                n, w = grid.corners(points[own])
                number[own, part], share[own, part] = n + first[s], sign * w
    row = np.repeat(np.arange(len(a)), 8)
    return sparse.csr_matrix((share.ravel(), (row, number.ravel())), shape=(len(a), int(first[-1])))


def _laplacian(lattices: list[Lattice]) -> sparse.csr_matrix:
    """Graph Laplacian of all meshes: 4-neighbours, and diagonals at half weight, which resist shear."""
    blocks = []
    for grid in lattices:
        n = np.arange(grid.size).reshape(grid.shape)
        edges = [
            (n[:-1], n[1:], 1.0),
            (n[:, :-1], n[:, 1:], 1.0),
            (n[:-1, :-1], n[1:, 1:], 0.5),
            (n[:-1, 1:], n[1:, :-1], 0.5),
        ]
        i = np.concatenate([p.ravel() for p, _, _ in edges])
        j = np.concatenate([q.ravel() for _, q, _ in edges])
        w = np.concatenate([np.full(p.size, v) for p, _, v in edges])
        value = np.concatenate([w, w, -w, -w])
        where = (np.concatenate([i, j, i, j]), np.concatenate([i, j, j, i]))
        blocks.append(sparse.csr_matrix((value, where), shape=(grid.size, grid.size)))
    return sparse.csr_matrix(sparse.block_diag(blocks, format="csr"))


def _solve(matrix: sparse.csc_matrix, right: F64) -> F64:
    """Solve a positive definite system for two right-hand sides."""
    if matrix.shape[0] <= _DIRECT_UNKNOWNS:
        return np.asarray(splu(matrix, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}).solve(right))
    return np.stack([_conjugate_gradients(matrix, right[:, c]) for c in range(right.shape[1])], axis=1)


def _conjugate_gradients(matrix: sparse.csc_matrix, right: F64) -> F64:
    """Conjugate gradients with the diagonal as preconditioner; sums by NumPy alone, the same for any thread count."""
    inverse = 1.0 / matrix.diagonal()
    x = np.zeros_like(right)
    left = right.copy()
    step = direction = inverse * left
    power = float((left * step).sum())
    for _ in range(_ITERATIONS):
        if power <= 1e-24:
            break
        moved = matrix @ direction
        length = power / float((direction * moved).sum())
        x = x + length * direction
        left = left - length * moved
        step = inverse * left
        last, power = power, float((left * step).sum())
        direction = step + (power / last) * direction
    return x


def backward(grid: Lattice, moves: F64, points_px: F64) -> F64:
    """Points v (N, 2) with v + u(v) = `points_px`: where tissue now at these points was before it moved."""
    v = points_px.copy()
    for _ in range(12):
        v = points_px - grid.sample(moves, v)
    return v


def forward_through(grid: Lattice, source_px: F64, linear: F64, plane_px: F64, start_px: F64) -> F64:
    """Aligned points q (N, 2) whose mapped place is `plane_px`: the inverse of a backward map given at nodes.

    `source_px` (size, 2) is the map at the nodes, `linear` (2, 2) the plane-to-aligned linear part used for the steps.
    """
    q = start_px.copy()
    for _ in range(12):
        q = q + (plane_px - grid.sample(source_px, q)) @ linear.T
    return q
