"""One affine map per section, solved for all sections at once from point matches, anchored at one of them.

A pose graph over the pairs (z, z + 1), (z, z + 2), ... Minimising distances in the aligned frame alone lets sections
shrink as they get away from the anchor, so the solve has two steps: rotations and translations first (similarities,
brought back to unit scale), then affine maps held near them. Points are weighted anew in each round (Tukey).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from connectome_db.kernels.robust import distance_scale, huber, tukey

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
C128 = npt.NDArray[np.complex128]

_BRIDGE = 1e-6
"""Weight of the ties between groups of sections that no match links: they only fill the gap."""
_FLOOR_PX = 0.25
_BROAD = 1.5
"""Tukey's cut-off is widened by this: residuals here are mostly the tissue's own motion, which is not Gaussian."""


@dataclass(frozen=True)
class PointMatches:
    """The same tissue at `a_px` (N, 2) of section number `a` (N,) and at `b_px` of `b`; numbers are rows, 0..S-1.

    `trust` (N,) multiplies the robust weight: less for sections further apart.
    """

    a: I64
    b: I64
    a_px: F64
    b_px: F64
    trust: F64

    def __len__(self) -> int:
        return len(self.a)


@dataclass(frozen=True)
class Poses:
    """Per section (S): aligned = linear (S, 2, 2) @ plane + shift (S, 2). Per match: weight (N,) in the last round."""

    linear: F64
    shift_px: F64
    weight: F64
    reached: npt.NDArray[np.bool_]

    def apply(self, section: I64, points_px: F64) -> F64:
        """Plane points (N, 2) of sections (N,) in the aligned frame."""
        return np.asarray(np.einsum("nij,nj->ni", self.linear[section], points_px) + self.shift_px[section])


def solve_poses(matches: PointMatches, centre_px: F64, reach_px: F64, anchor: int, *, rigidity: float) -> Poses:
    """Poses of S sections (in order of z), of which `anchor` is the identity.

    `centre_px` (S, 2) and `reach_px` (S,) are each section's middle and half size. `rigidity` is the weight with which
    one px of strain at a section's edge counts against one px at one of its matches; it is multiplied by the number of
    its matches. Sections that no chain of matches links to the anchor are tied to their neighbours in z (`reached` is
    False for them): they end up between them.
    """
    sections = len(centre_px)
    weight = matches.trust.copy()
    linear, shift = np.tile(np.eye(2), (sections, 1, 1)), np.zeros((sections, 2))
    for step in range(10):
        linear, shift = _rigid(matches, weight, centre_px, anchor)
        weight = _reweigh(matches, Poses(linear, shift, weight, np.zeros(0, np.bool_)), step < 4, weight)
    rigid = (linear, shift)
    for _ in range(6):
        linear, shift = _affine(matches, weight, centre_px, reach_px, anchor, rigid, rigidity)
        weight = _reweigh(matches, Poses(linear, shift, weight, np.zeros(0, np.bool_)), False, weight)
    group = _groups(matches, weight, sections)
    return Poses(linear, shift, weight, np.asarray(group == group[anchor]))


def _reweigh(m: PointMatches, poses: Poses, soft: bool, weight: F64) -> F64:
    """Weights from the residuals (Huber while `soft`, then Tukey), whose scale is that of all pairs together."""
    length = np.hypot(*(poses.apply(m.a, m.a_px) - poses.apply(m.b, m.b_px)).T)
    whole = distance_scale(length[weight > 0], _FLOOR_PX)
    return m.trust * (huber(length, whole) if soft else tukey(length, _BROAD * whole))


def _groups(m: PointMatches, weight: F64, sections: int) -> I64:
    used = weight > 0
    graph = sparse.csr_matrix((np.ones(int(used.sum())), (m.a[used], m.b[used])), shape=(sections, sections))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def _bridges(m: PointMatches, weight: F64, centre_px: F64) -> tuple[I64, I64]:
    """Neighbours in z that lie in different groups, to be tied loosely."""
    group = _groups(m, weight, len(centre_px))
    low = np.flatnonzero(group[1:] != group[:-1])
    return low.astype(np.int64), (low + 1).astype(np.int64)


def _rigid(m: PointMatches, weight: F64, centre_px: F64, anchor: int) -> tuple[F64, F64]:
    """Rotation and translation per section: similarities by complex least squares, scaled back to 1, then shifts."""
    sections = len(centre_px)
    unit = np.asarray([1.0, 1.0j])
    low, high = _bridges(m, weight, centre_px)
    # A bridge ties the sections' middles and a point beside each, as if their planes lay on each other.
    a = np.concatenate([m.a, low, low])
    b = np.concatenate([m.b, high, high])
    aside = np.asarray([1000.0, 0.0])
    pa = np.concatenate([m.a_px, centre_px[low], centre_px[low] + aside]) @ unit
    pb = np.concatenate([m.b_px, centre_px[low], centre_px[low] + aside]) @ unit
    w = np.concatenate([weight, np.full(2 * len(low), _BRIDGE)])
    za, zb = pa - (centre_px @ unit)[a], pb - (centre_px @ unit)[b]
    n, row = len(a), np.arange(len(a))
    one = np.ones(n)
    design = sparse.csr_matrix(
        (
            np.concatenate([za, one, -zb, -one]),
            (np.tile(row, 4), np.concatenate([2 * a, 2 * a + 1, 2 * b, 2 * b + 1])),
        ),
        shape=(n, 2 * sections),
    )
    turn = _anchored(
        design, w, np.zeros(n, np.complex128), {2 * anchor: 1.0 + 0j, 2 * anchor + 1: (centre_px @ unit)[anchor]}
    )
    size = np.abs(turn[0::2])
    phase = np.where(size > 1e-9, turn[0::2] / np.maximum(size, 1e-9), 1.0)
    moved = phase[b] * zb - phase[a] * za
    shifts = sparse.csr_matrix(
        (np.concatenate([one, -one]).astype(np.complex128), (np.tile(row, 2), np.concatenate([a, b]))),
        shape=(n, sections),
    )
    middle = _anchored(shifts, w, moved, {anchor: (centre_px @ unit)[anchor]})
    linear = np.stack([np.stack([phase.real, -phase.imag], axis=1), np.stack([phase.imag, phase.real], axis=1)], axis=1)
    shift = np.stack([middle.real, middle.imag], axis=1) - np.einsum("sij,sj->si", linear, centre_px)
    return linear, shift


def _anchored(design: sparse.csr_matrix, weight: F64, target: C128, fixed: dict[int, complex]) -> C128:
    """Weighted least squares with some unknowns fixed; a trace of damping keeps what nothing determines at 0."""
    columns = design.shape[1]
    known = np.zeros(columns, dtype=np.complex128)
    free = np.ones(columns, dtype=np.bool_)
    for c, v in fixed.items():
        known[c], free[c] = v, False
    right = target - design @ known
    part = design[:, np.flatnonzero(free)]
    scaled = sparse.diags(weight) @ part
    normal = (part.conj().T @ scaled).tocsc()
    normal = normal + sparse.identity(normal.shape[0], dtype=np.complex128, format="csc") * 1e-12
    known[free] = splu(normal.tocsc()).solve(np.asarray(scaled.conj().T @ right))
    return known


def _affine(
    m: PointMatches,
    weight: F64,
    centre_px: F64,
    reach_px: F64,
    anchor: int,
    rigid: tuple[F64, F64],
    rigidity: float,
) -> tuple[F64, F64]:
    """Affine maps near the rigid ones: linear least squares, the same matrix for y and x."""
    sections = len(centre_px)
    base = Poses(*rigid, weight, np.zeros(0, np.bool_))
    left = base.apply(m.b, m.b_px) - base.apply(m.a, m.a_px)
    ua, ub = (m.a_px - centre_px[m.a]) / reach_px[m.a, None], (m.b_px - centre_px[m.b]) / reach_px[m.b, None]
    low, high = _bridges(m, weight, centre_px)
    a, b = np.concatenate([m.a, low]), np.concatenate([m.b, high])
    # A bridge makes a group move as its neighbour does: only the translation part.
    ua, ub = np.concatenate([ua, np.zeros((len(low), 2))]), np.concatenate([ub, np.zeros((len(low), 2))])
    left = np.concatenate([left, np.zeros((len(low), 2))])
    w = np.concatenate([weight, np.full(len(low), _BRIDGE)])
    n, row, one = len(a), np.arange(len(a)), np.ones(len(a))
    value = np.concatenate([ua[:, 0], ua[:, 1], one, -ub[:, 0], -ub[:, 1], -one])
    column = np.concatenate([3 * a, 3 * a + 1, 3 * a + 2, 3 * b, 3 * b + 1, 3 * b + 2])
    design = sparse.csr_matrix((value, (np.tile(row, 6), column)), shape=(n, 3 * sections))
    share = np.bincount(a, w, minlength=sections) + np.bincount(b, w, minlength=sections)
    prior = np.stack([rigidity * share, rigidity * share, np.zeros(sections)], axis=1).ravel() + 1e-9
    free = np.ones(3 * sections, dtype=np.bool_)
    free[3 * anchor : 3 * anchor + 3] = False
    part = design[:, np.flatnonzero(free)]
    scaled = sparse.diags(w) @ part
    normal = (part.T @ scaled + sparse.diags(prior[free])).tocsc()
    moves = np.zeros((3 * sections, 2))
    moves[free] = splu(normal).solve(np.asarray(scaled.T @ left))
    change = moves.reshape(sections, 3, 2)
    # Changes are of the rows: aligned_c += change[s, 0, c] * u_y + change[s, 1, c] * u_x + change[s, 2, c].
    bend = np.swapaxes(change[:, :2, :], 1, 2) / reach_px[:, None, None]
    linear = rigid[0] + bend
    shift = rigid[1] + change[:, 2, :] - np.einsum("sij,sj->si", bend, centre_px)
    return linear, shift
