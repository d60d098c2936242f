"""align: one anchored solve for the place of every section, affine and then elastic. One unit for the whole dataset."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from connectome_db import plans
from connectome_db.errors import StageError
from connectome_db.kernels.mesh import Lattice, backward, forward_through, lattice_over, relax
from connectome_db.kernels.placed import tiles_of
from connectome_db.kernels.pose import PointMatches, Poses, solve_poses
from connectome_db.kernels.slant import without_slant
from connectome_db.kernels.warp import tile_hull
from connectome_db.schema.alignment import ALIGNMENT_RESIDUAL, SECTION_POSE, SECTION_TRANSFORM
from connectome_db.spec import Block, Found, Params, Plan, Result, Rows, Stage

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
TRANSFORM = "montage.tile_transform"
PAIR = "match.pair_affine"
MATCH = "match.section_match"


class AlignParams(Params):
    """Parameters of `align`."""

    anchor: int | None = None
    """The section that stays where it is; the volume takes its frame. None: the first one, so that sections appended
    later do not move the volume."""
    mesh_px: int = 32
    """Distance between mesh nodes. Smaller follows finer distortion, and follows the tissue's own changes too."""
    distant: float = 0.02
    """Weight of a match between sections two apart, against one between neighbours; three apart have its square. Such
    matches follow oblique tissue twice as far, so they should decide only where a section between them is lost."""
    rigidity: float = 0.2
    """How hard sections resist stretch and shear in the affine solve. Without it, sections shrink along the stack."""
    slant_px: float = 0.0
    """How far oblique tissue may pull neighbouring sections apart, per section. What such pulls add up to along the
    stack is taken out as far as the sections' stage positions speak against it; 0 believes the matches alone. 0.5 cut
    the lean of AC3's stack by a third; on tissue that does not lean it costs accuracy."""
    stiffness: float = 0.3
    """How hard neighbouring mesh nodes resist moving apart, against one px at one match."""
    tether: float = 0.1
    """How hard each node is held at its affine place. Raise it when the elastic part drifts along the stack."""
    trim_px: float = 16.0
    """Mesh cells that a section reaches into by less than this are left off, at most this much of its rim with them:
    otherwise a shift of a few px would add a row of nearly empty blocks all around the volume. 0 keeps everything."""
    min_matches: int = 8
    """A pair with fewer accepted matches is represented by its coarse map, if that is sure enough."""
    sure_inliers: int = 30
    """A coarse map is sure enough to stand alone when this many features agree with it."""


@dataclass(frozen=True)
class _Stack:
    """The sections in order of z: numbers (S,), corners of their hulls in the plane (S, 4, 2), the anchor's row."""

    numbers: I64
    corners_px: F64
    anchor: int

    def rows(self, numbers: npt.NDArray[np.int64]) -> I64:
        return np.searchsorted(self.numbers, numbers).astype(np.int64)


def plan(found: Found, params: AlignParams) -> Plan:  # noqa: ARG001 - every plan has this signature
    """One unit that reads everything."""
    return plans.reading(plans.once(found.inputs[TRANSFORM].bounds), (TRANSFORM, None), (PAIR, None), (MATCH, None))


def compute(block: Block[AlignParams]) -> Result:
    """Solve poses, relax meshes, and say what is left of every match in the rounded result."""
    p = block.params
    stack = _stack(block.tables[TRANSFORM], p.anchor)
    if stack is None:
        return {o.name: o.table.arrow().empty_table() for o in OUTPUTS}
    rows = block.tables[MATCH].filter(block.tables[MATCH]["accepted"])
    real = _matches(stack, rows, p.distant)
    matches = _with_coarse(stack, real, block.tables[PAIR], p)
    centre = stack.corners_px.mean(axis=1)
    reach = np.abs(stack.corners_px - centre[:, None]).max(axis=(1, 2))
    poses = solve_poses(matches, centre, reach, stack.anchor, rigidity=p.rigidity)
    poses = _upright(poses, centre, stack.anchor, p.slant_px)

    s = np.arange(len(stack.numbers))
    aligned = np.stack([poses.apply(s, stack.corners_px[:, c]) for c in range(4)], axis=1)
    meshes = [lattice_over(c, p.mesh_px, pad=1) for c in aligned]
    at_a, at_b = poses.apply(real.a, real.a_px), poses.apply(real.b, real.b_px)
    start = poses.weight[: len(real)]
    moves, weight = relax(
        meshes, real.a, real.b, at_a, at_b, real.trust, start, stack.anchor, stiffness=p.stiffness, tether=p.tether
    )
    maps = [_backward_map(n, poses, meshes[n], moves[n], aligned[n], p) for n in s.tolist()]
    qa, qb = _through(maps, poses, real.a, real.a_px, at_a), _through(maps, poses, real.b, real.b_px, at_b)
    return {
        "section_transform": _transform_rows(stack, maps),
        "alignment_residual": _residual_rows(stack, real, qa, qb, weight),
        "section_pose": _pose_rows(stack, poses, real, np.hypot(*(qb - qa).T), weight),
    }


def _upright(poses: Poses, centre_px: F64, anchor: int, slant_px: float) -> Poses:
    """The poses without the lean that oblique tissue gives a stack; the anchor stays where it is."""
    s = np.arange(len(centre_px))
    moves = poses.apply(s, centre_px) - centre_px
    change = without_slant(moves, slant_px) - moves
    return replace(poses, shift_px=poses.shift_px + change - change[anchor])


def _stack(transforms: pa.Table, anchor: int | None) -> _Stack | None:
    numbers = np.unique(transforms["section"].to_numpy()).astype(np.int64)
    if numbers.size == 0:
        return None
    corners = []
    for z in numbers.tolist():
        y0, x0, y1, x1 = tile_hull(tiles_of(transforms.filter(pc.equal(transforms["section"], z)).to_pydict()))
        corners.append([(y0, x0), (y0, x1 - 1), (y1 - 1, x0), (y1 - 1, x1 - 1)])
    if anchor is not None and anchor not in numbers:
        raise StageError(
            f"align: anchor section {anchor} has no tiles; wanted one of {numbers[0]}..{numbers[-1]} that has, or null"
        )
    row = 0 if anchor is None else int(np.searchsorted(numbers, anchor))
    return _Stack(numbers, np.asarray(corners, dtype=np.float64), row)


def _matches(stack: _Stack, rows: pa.Table, distant: float) -> PointMatches:
    column = {n: rows[n].to_numpy() for n in rows.column_names}
    a, b = column["section_a"].astype(np.int64), column["section_b"].astype(np.int64)
    return PointMatches(
        stack.rows(a),
        stack.rows(b),
        np.stack([column["a_y_px"], column["a_x_px"]], axis=1).astype(np.float64),
        np.stack([column["b_y_px"], column["b_x_px"]], axis=1).astype(np.float64),
        distant ** (np.maximum(b - a, 1) - 1.0),
    )


def _with_coarse(stack: _Stack, real: PointMatches, pairs: pa.Table, p: AlignParams) -> PointMatches:
    """The matches, and for pairs with hardly any the corners of the lower section through the coarse map."""
    parts = [(real.a, real.b, real.a_px, real.b_px, real.trust)]
    for row in pairs.to_pylist():
        a, b = (int(stack.rows(np.asarray([row[k]]))[0]) for k in ("section_a", "section_b"))
        sure = row["accepted"] and row["inliers"] >= p.sure_inliers
        if sure and int(((real.a == a) & (real.b == b)).sum()) < p.min_matches:
            linear = np.asarray([[row["yy"], row["yx"]], [row["xy"], row["xx"]]])
            here = stack.corners_px[a]
            there = here @ linear.T + np.asarray([row["ty"], row["tx"]])
            parts.append(
                (
                    np.full(4, a),
                    np.full(4, b),
                    here,
                    there,
                    np.full(4, p.distant ** (row["section_b"] - row["section_a"] - 1.0)),
                )
            )
    return PointMatches(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


@dataclass(frozen=True)
class _Map:
    """A section's backward map: plane positions (size, 2) at the nodes of a lattice of the aligned volume."""

    grid: Lattice
    source_px: F64


def _backward_map(n: int, poses: Poses, mesh: Lattice, moves: F64, aligned: F64, p: AlignParams) -> _Map:
    """The map at nodes that cover the section where it ends up, rounded to 1/16 px."""
    grid = lattice_over(aligned + mesh.sample(moves, aligned), p.mesh_px, trim_px=p.trim_px)
    before = backward(mesh, moves, grid.nodes_px().reshape(-1, 2))
    source = (before - poses.shift_px[n]) @ np.linalg.inv(poses.linear[n]).T
    return _Map(grid, np.rint(source * 16.0) / 16.0 + 0.0)


def _through(maps: list[_Map], poses: Poses, section: I64, plane_px: F64, start_px: F64) -> F64:
    out = np.zeros_like(plane_px)
    for n, m in enumerate(maps):
        own = section == n
        if own.any():
            out[own] = forward_through(m.grid, m.source_px, poses.linear[n], plane_px[own], start_px[own])
    return out


def _transform_rows(stack: _Stack, maps: list[_Map]) -> pa.Table:
    node = [m.grid.nodes_px().reshape(-1, 2).astype(np.int32) for m in maps]
    y_x, source = np.concatenate(node), np.concatenate([m.source_px for m in maps])
    return _table(
        SECTION_TRANSFORM.arrow(),
        section=np.repeat(stack.numbers, [m.grid.size for m in maps]),
        node_y_px=y_x[:, 0],
        node_x_px=y_x[:, 1],
        source_y_px=source[:, 0],
        source_x_px=source[:, 1],
    )


def _residual_rows(stack: _Stack, m: PointMatches, qa: F64, qb: F64, weight: F64) -> pa.Table:
    return _table(
        ALIGNMENT_RESIDUAL.arrow(),
        section_a=stack.numbers[m.a],
        section_b=stack.numbers[m.b],
        y_px=np.round(qa[:, 0], 4),
        x_px=np.round(qa[:, 1], 4),
        residual_y_px=np.round(qb[:, 0] - qa[:, 0], 4),
        residual_x_px=np.round(qb[:, 1] - qa[:, 1], 4),
        weight=np.round(weight, 6),
    )


def _pose_rows(stack: _Stack, poses: Poses, m: PointMatches, residual: F64, weight: F64) -> pa.Table:
    used = weight > 0
    matches, middle, placed = [], [], []
    for n in range(len(stack.numbers)):
        own = used & ((m.a == n) | (m.b == n))
        matches.append(int(own.sum()))
        middle.append(round(float(np.median(residual[own])), 4) if own.any() else 0.0)
        placed.append("anchor" if n == stack.anchor else "matches" if poses.reached[n] else "neighbours")
    return _table(
        SECTION_POSE.arrow(),
        section=stack.numbers,
        yy=np.round(poses.linear[:, 0, 0], 9),
        yx=np.round(poses.linear[:, 0, 1], 9),
        xy=np.round(poses.linear[:, 1, 0], 9),
        xx=np.round(poses.linear[:, 1, 1], 9),
        ty=np.round(poses.shift_px[:, 0], 6),
        tx=np.round(poses.shift_px[:, 1], 6),
        matches=matches,
        residual_px=middle,
        placed=placed,
    )


def _table(schema: pa.Schema, **columns: object) -> pa.Table:
    return pa.table({f.name: pa.array(columns[f.name]).cast(f.type) for f in schema}, schema=schema)


OUTPUTS = (
    Rows(SECTION_TRANSFORM, part="section", extent=("node_y_px", "node_x_px")),
    Rows(ALIGNMENT_RESIDUAL),
    Rows(SECTION_POSE),
)

STAGE = Stage(
    name="align",
    summary="Solve for the place of every section.",
    params=AlignParams,
    inputs=(TRANSFORM, PAIR, MATCH),
    outputs=OUTPUTS,
    plan=plan,
    compute=compute,
)
