"""Rows of the tables of a made-up connectome: few per unit, and such that every lineage can be followed to its end.

Blocks form a grid. Two bodies run through each row of blocks along x, one supervoxel per block: overlaps join ten
blocks to a fragment, merges join the fragments of a row. Each block has a synapse between its two bodies, or onto the
second body of the next row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectome_db import ids
from connectome_db.geometry import Box, Vec3
from connectome_db.plans import clip
from connectome_db.prepare import Prepared
from connectome_db.spec import Table

BLOCK_VX: Vec3 = (16, 128, 128)
RUN = 10
"""Blocks per fragment."""
GRID = 3
"""Tiles per section along y and x."""
LAP_PX = 64
"""Neighbouring tiles share twice this."""
MATCHES = 100
"""Matched points per pair of sections."""

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Columns = dict[str, Any]


@dataclass(frozen=True)
class World:
    """How large it is: blocks (z, y, x), and the tiles as scanned (`raw.tiles`)."""

    blocks: Vec3
    raw: pa.Table

    @property
    def sections(self) -> int:
        return self.blocks[0] * BLOCK_VX[0]

    @property
    def nodes_px(self) -> I64:
        """Mesh nodes (N, 2) of a section, as (y, x): one per corner of a block."""
        axes = [np.arange(n + 1) * s for n, s in zip(self.blocks[1:], BLOCK_VX[1:], strict=True)]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)

    @property
    def bounds_vx(self) -> Vec3:
        z, y, x = (n * s for n, s in zip(self.blocks, BLOCK_VX, strict=True))
        return z, y, x

    def tile_px(self, axis: int) -> I64:
        """Start and end (GRID, 2) of each row (axis 0) or column (axis 1) of tiles, laps included."""
        edges = np.linspace(0, self.bounds_vx[1 + axis], GRID + 1).astype(np.int64)
        ends = np.stack([edges[:-1] - LAP_PX, edges[1:] + LAP_PX], axis=1)
        return np.clip(ends, 0, self.bounds_vx[1 + axis])


def supervoxel(pos: I64, body: npt.ArrayLike) -> U64:
    """The supervoxel of a body (1 or 2) in blocks at (N, 3)."""
    return (ids.pack(pos) << np.uint64(ids.LOCAL_BITS)) | np.asarray(body, dtype=np.uint64)


def table(declared: Table, unit: U64, given: Mapping[str, Any]) -> pa.Table:
    """A table in its stored schema; columns that are not given get a constant."""
    plain = {"string": "", "bool": False, "float64": 0.5, "float32": 0.5}
    schema, n = declared.stored(), len(unit)
    columns = [pa.array(unit, type=pa.uint64())]
    for c in declared.columns:
        kind = schema.field(c.name).type
        if c.name in given:
            value = given[c.name]
            columns.append(value.cast(kind) if isinstance(value, pa.Array) else pa.array(value, type=kind))
        else:
            columns.append(pa.repeat(pa.scalar(None if c.nullable else plain.get(c.dtype, 0), kind), n))
    return pa.Table.from_arrays(columns, schema=schema)


def rows(world: World, prepared: Prepared, declared: Table) -> pa.Table:
    """The rows of one table, sorted by unit; a table that is not known here is empty."""
    make = _MAKERS.get(declared.name)
    if make is None:
        return declared.stored().empty_table()
    unit, given = make(world, prepared)
    return table(declared, unit, given)


def _code(z: npt.ArrayLike) -> U64:
    z = np.asarray(z, dtype=np.int64)
    return ids.pack(np.stack([z, np.zeros_like(z), np.zeros_like(z)], axis=1))


def _each(units: U64, n: int) -> tuple[U64, I64]:
    """Every unit n times, and 0..n-1 beside it."""
    return np.repeat(units, n), np.tile(np.arange(n), len(units))


def _once(n: int) -> U64:
    return np.repeat(ids.pack([(0, 0, 0)]), n)


# Before the volume --------------------------------------------------------------------------------------------------


def _tile(world: World, _: Prepared) -> tuple[U64, Columns]:
    names = ("section", "tile", "sha256", "stage_y_px", "stage_x_px", "height_px", "width_px", "dtype")
    return _code(world.raw["section"].to_numpy()), {n: world.raw[n].combine_chunks() for n in names}


def _tile_transform(world: World, _: Prepared) -> tuple[U64, Columns]:
    k = np.arange(world.raw.num_rows) % (GRID * GRID)
    y, x = world.tile_px(0)[k // GRID], world.tile_px(1)[k % GRID]
    one, none = np.ones(len(k)), np.zeros(len(k))
    return _code(world.raw["section"].to_numpy()), {
        **{n: world.raw[n].combine_chunks() for n in ("section", "tile")},
        **{"yy": one, "yx": none, "xy": none, "xx": one, "ty": y[:, 0].astype(float), "tx": x[:, 0].astype(float)},
        **{"height_px": y[:, 1] - y[:, 0], "width_px": x[:, 1] - x[:, 0], "gain": one, "matches": k + 12},
    }


def _pairs(prepared: Prepared) -> Columns:
    pos, _ = ids.unpack(prepared.plan.codes)
    return {"section_a": pos[:, 0], "section_b": pos[:, 0] + pos[:, 1]}


def _points(world: World, n: int) -> tuple[I64, I64]:
    """MATCHES places spread over the section, for each of n pairs."""
    side = int(MATCHES**0.5)
    k = np.tile(np.arange(MATCHES), n)
    _, height, width = world.bounds_vx
    return (k // side * height // side + 32), (k % side * width // side + 32)


def _section_match(world: World, prepared: Prepared) -> tuple[U64, Columns]:
    n = len(prepared.plan)
    y, x = _points(world, n)
    pair = {k: np.repeat(v, MATCHES) for k, v in _pairs(prepared).items()}
    places = {"a_y_px": y.astype(float), "a_x_px": x.astype(float), "b_y_px": y + 0.5, "b_x_px": x + 0.5}
    return np.repeat(prepared.plan.codes, MATCHES), pair | places | {"accepted": np.ones(len(y), bool)}


def _section_transform(world: World, _: Prepared) -> tuple[U64, Columns]:
    nodes = world.nodes_px
    z, k = _each(np.arange(world.sections).astype(np.uint64), len(nodes))
    node = nodes[k]
    source = {"source_y_px": node[:, 0] + 0.25, "source_x_px": node[:, 1] + 0.25}
    return _code(z), {"section": z.astype(np.int64), "node_y_px": node[:, 0], "node_x_px": node[:, 1]} | source


def _alignment_residual(world: World, _: Prepared) -> tuple[U64, Columns]:
    a = np.repeat(np.arange(world.sections - 1), MATCHES)
    y, x = _points(world, world.sections - 1)
    return _once(len(a)), {
        **{"section_a": a, "section_b": a + 1, "y_px": y.astype(float), "x_px": x.astype(float)},
        "weight": np.ones(len(a)),
    }


def _sections(world: World, _: Prepared) -> tuple[U64, Columns]:
    return _once(world.sections), {"section": np.arange(world.sections), "placed": ["matches"] * world.sections}


# Blocks -------------------------------------------------------------------------------------------------------------


def _image_plane(_: World, prepared: Prepared) -> tuple[U64, Columns]:
    unit, k = _each(prepared.plan.codes, BLOCK_VX[0])
    return unit, {"section": ids.unpack(unit)[0][:, 0] * BLOCK_VX[0] + k}


def _image_source(world: World, prepared: Prepared) -> tuple[U64, Columns]:
    """The tiles under each block: those of its sections whose rows and columns it touches."""
    pos, _ = ids.unpack(prepared.plan.codes)
    block = np.repeat(np.arange(len(pos)), GRID * GRID)
    k = np.tile(np.arange(GRID * GRID), len(pos))
    boxes = prepared.plan.cores[block]
    y, x = world.tile_px(0)[k // GRID], world.tile_px(1)[k % GRID]
    low = np.maximum(boxes[:, 1:3], np.stack([y[:, 0], x[:, 0]], axis=1))
    high = np.minimum(boxes[:, 4:6], np.stack([y[:, 1], x[:, 1]], axis=1))
    seen = (low < high).all(axis=1)
    block, k, low, high = block[seen], k[seen], low[seen], high[seen]
    depth = BLOCK_VX[0]
    # Sections before tiles, as the table's key has it.
    section = np.tile(np.arange(depth), len(block)) + np.repeat(pos[block, 0] * depth, depth)
    order = np.lexsort((np.repeat(k, depth), section, np.repeat(block, depth)))
    index = np.repeat(np.arange(len(block)), depth)[order]
    section = section[order]
    name = world.raw["tile"].combine_chunks().take(pa.array(section * GRID * GRID + k[index]))
    hull = {"y0_px": low[index, 0], "x0_px": low[index, 1], "y1_px": high[index, 0], "x1_px": high[index, 1]}
    pixels = (high - low).prod(axis=1)[index]
    return prepared.plan.codes[block[index]], {"section": section, "tile": name, "pixels": pixels} | hull


def _halves(prepared: Prepared) -> tuple[U64, I64, I64, I64]:
    """Unit, block position (2N, 3), body and box (2N, 6) of every supervoxel: body 1 above body 2 in its block."""
    unit, k = _each(prepared.plan.codes, 2)
    box = np.repeat(prepared.plan.cores, 2, axis=0)
    middle = (box[:, 1] + box[:, 4]) // 2
    box[:, 4] = np.where(k == 0, middle, box[:, 4])
    box[:, 1] = np.where(k == 1, middle, box[:, 1])
    return unit, ids.unpack(unit)[0], k + 1, box


def _boxes(box: I64) -> Columns:
    return {f"{axis}{end}_vx": box[:, 3 * end + k] for end in (0, 1) for k, axis in enumerate("zyx")}


def _supervoxel(_: World, prepared: Prepared) -> tuple[U64, Columns]:
    unit, pos, body, box = _halves(prepared)
    centre = (box[:, :3] + box[:, 3:]) / 2
    return unit, {
        "supervoxel": supervoxel(pos, body),
        "size_vx": (box[:, 3:] - box[:, :3]).prod(axis=1),
        **_boxes(box),
        **{f"{axis}_vx": centre[:, k] for k, axis in enumerate("zyx")},
        "origin": ["affinity"] * len(unit),
    }


def _overlap(_: World, prepared: Prepared) -> tuple[U64, Columns]:
    """Both bodies go through a face across x; across y and z the first ones touch and are refused."""
    pos, axis = ids.unpack(prepared.plan.codes)
    count = np.where(axis == 2, 2, 1)
    index = np.repeat(np.arange(len(pos)), count)
    first = np.cumsum(count) - count
    body = 1 + np.arange(len(index)) - first[index]
    step = np.eye(3, dtype=np.int64)[axis[index]]
    along = axis[index] == 2
    accepted = along & ((pos[index, 2] + 1) % RUN != 0)
    return prepared.plan.codes[index], {
        "a": supervoxel(pos[index], body),
        "b": supervoxel(pos[index] + step, body),
        "overlap_vx": np.where(along, 2048, 128),
        "accepted": accepted,
        "reason": pa.array(["little shared", "mutual best"]).take(pa.array(accepted.astype(np.int8))),
    }


def _contact(_: World, prepared: Prepared) -> tuple[U64, Columns]:
    pos, _axis = ids.unpack(prepared.plan.codes)
    return prepared.plan.codes, {"a": supervoxel(pos, 1), "b": supervoxel(pos, 2), "affinity": np.full(len(pos), 0.1)}


# Bodies -------------------------------------------------------------------------------------------------------------


def _bodies(world: World) -> tuple[I64, I64]:
    """Block position (2N, 3) and body of every supervoxel, ascending by id."""
    pos = np.stack(np.meshgrid(*(np.arange(n) for n in world.blocks), indexing="ij"), axis=-1).reshape(-1, 3)
    return np.repeat(pos, 2, axis=0), np.tile([1, 2], len(pos))


def _at(pos: I64, x: npt.ArrayLike) -> I64:
    return np.stack([pos[:, 0], pos[:, 1], np.broadcast_to(x, len(pos))], axis=1)


def _fragment(world: World, _: Prepared) -> tuple[U64, Columns]:
    pos, body = _bodies(world)
    named = supervoxel(_at(pos, pos[:, 2] // RUN * RUN), body)
    return _once(len(pos)), {"supervoxel": supervoxel(pos, body), "fragment": named}


def _member(world: World, prepared: Prepared) -> tuple[U64, Columns]:
    pos, body = _bodies(world)
    unit, columns = _fragment(world, prepared)
    return unit, columns | {"object": supervoxel(_at(pos, 0), body)}


def _starts(world: World, x: int) -> tuple[I64, I64]:
    """Position and body of every body where it passes column x of the blocks."""
    pos, body = _bodies(world)
    here = pos[:, 2] == x
    return pos[here], body[here]


def _merge(world: World, _: Prepared) -> tuple[U64, Columns]:
    """Each fragment joins the one before it, the last one first: the way to the object's name goes through all."""
    a, b = [], []
    for x in range((world.blocks[2] - 1) // RUN * RUN, 0, -RUN):
        pos, body = _starts(world, x)
        a.append(supervoxel(_at(pos, x - RUN), body))
        b.append(supervoxel(pos, body))
    if not a:
        return _once(0), {n: [] for n in ("a", "b", "score", "rank")}
    n = sum(len(v) for v in a)
    score = np.linspace(0.99, 0.5, n)
    found = {"a": np.concatenate(a), "b": np.concatenate(b), "score": score, "rank": np.arange(n)}
    order = np.lexsort((found["b"], found["a"]))
    return _once(n), {k: v[order] for k, v in found.items()}


def _object(world: World, _: Prepared) -> tuple[U64, Columns]:
    pos, body = _starts(world, 0)
    nx = world.blocks[2]
    lo = pos * BLOCK_VX
    lo[:, 1] += np.where(body == 2, BLOCK_VX[1] // 2, 0)
    size = np.asarray([BLOCK_VX[0], BLOCK_VX[1] // 2, nx * BLOCK_VX[2]])
    box = clip(np.concatenate([lo, lo + size], axis=1), Box((0, 0, 0), world.bounds_vx))
    n = len(pos)
    return _once(n), {
        "object": supervoxel(pos, body),
        "supervoxels": np.full(n, nx),
        "fragments": np.full(n, -(-nx // RUN)),
        "size_vx": (box[:, 3:] - box[:, :3]).prod(axis=1),
        **_boxes(box),
        "touches_border": np.ones(n, bool),
    }


# Synapses -----------------------------------------------------------------------------------------------------------


def _partners(world: World) -> tuple[I64, I64]:
    """Block positions of each synapse, and of the block that holds its postsynaptic supervoxel."""
    pos = _bodies(world)[0][::2]
    post = pos.copy()
    post[:, 1] = np.minimum(pos[:, 1] + pos[:, 2] % 2, world.blocks[1] - 1)
    return pos, post


def _synapse_ids(pos: I64) -> U64:
    return supervoxel(pos, int(np.prod(BLOCK_VX)) // 2)


def _synapse(world: World, _: Prepared) -> tuple[U64, Columns]:
    pos, post = _partners(world)
    centre = (pos + 0.5) * BLOCK_VX
    columns: Columns = {
        "synapse": _synapse_ids(pos),
        "size_vx": np.full(len(pos), 200),
        "confidence": 0.5 + (np.arange(len(pos)) % 100) / 200,
        "pre_supervoxel": supervoxel(pos, 1),
        "post_supervoxel": supervoxel(post, 2),
    }
    for k, axis in enumerate("zyx"):
        columns |= {f"{axis}_vx": centre[:, k], f"pre_{axis}_vx": centre[:, k], f"post_{axis}_vx": centre[:, k]}
    return ids.pack(pos), columns


def _ends(world: World) -> tuple[U64, U64]:
    pos, post = _partners(world)
    return supervoxel(_at(pos, 0), 1), supervoxel(_at(post, 0), 2)


def _link(world: World, _: Prepared) -> tuple[U64, Columns]:
    pre, post = _ends(world)
    n = len(pre)
    synapse = _synapse_ids(_partners(world)[0])
    return _once(n), {
        **{"synapse": synapse, "pre": pre, "post": post},
        **{"counted": np.ones(n, bool), "reason": ["counted"] * n},
    }


def _connection(world: World, _: Prepared) -> tuple[U64, Columns]:
    pairs, count = np.unique(np.stack(_ends(world), axis=1), axis=0, return_counts=True)
    return _once(len(pairs)), {"pre": pairs[:, 0], "post": pairs[:, 1], "synapses": count, "size_vx": count * 200}


def _neuron(world: World, _: Prepared) -> tuple[U64, Columns]:
    name = supervoxel(*_starts(world, 0))
    pre, post = _ends(world)
    out, into = (np.bincount(np.searchsorted(name, side), minlength=len(name)) for side in (pre, post))
    return _once(len(name)), {"neuron": name, "synapses_out": out, "synapses_in": into}


_MAKERS: Mapping[str, Callable[[World, Prepared], tuple[U64, Columns]]] = {
    "tile": _tile,
    "tile_transform": _tile_transform,
    "pair_affine": lambda _, prepared: (prepared.plan.codes, _pairs(prepared)),
    "section_match": _section_match,
    "section_transform": _section_transform,
    "alignment_residual": _alignment_residual,
    "section_pose": _sections,
    "image_plane": _image_plane,
    "image_source": _image_source,
    "mask_area": lambda _, prepared: (prepared.plan.codes, {}),
    "supervoxel": _supervoxel,
    "apron": lambda _, prepared: (prepared.plan.codes, {}),
    "overlap": _overlap,
    "fragment": _fragment,
    "contact": _contact,
    "merge": _merge,
    "member": _member,
    "object": _object,
    "synapse": _synapse,
    "link": _link,
    "connection": _connection,
    "neuron": _neuron,
}
"""Tables that a lineage or an impact goes through; the others are empty."""
