"""Run stages in memory, from raw tiles to blocks, as the runner would: reads cut by boxes, only the tiles read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from connectome_db import ids, plans
from connectome_db.geometry import Box, box_of
from connectome_db.spec import NM3, RAW, Block, Extent, Found, Params, Plan, Rows, Stage

RAW_SCHEMA = pa.schema(
    [
        ("section", pa.int32()),
        ("tile", pa.string()),
        ("path", pa.string()),
        ("sha256", pa.string()),
        ("stage_y_px", pa.float64()),
        ("stage_x_px", pa.float64()),
        ("height_px", pa.int32()),
        ("width_px", pa.int32()),
        ("dtype", pa.string()),
        ("problem", pa.string()),
        ("detail", pa.string()),
    ]
)


@dataclass
class Stored:
    """One output, as later stages see it: rows with `unit` or a volume in `bounds`, and the geometry of its parts."""

    extent: Extent
    table: pa.Table | None = None
    volume: np.ndarray | None = None
    bounds: Box = field(default_factory=lambda: Box((0, 0, 0), (0, 0, 0)))


class OpenedTiles(Mapping[str, np.ndarray]):
    """Read-only pixels of some tiles; `opened` says which were looked at."""

    def __init__(self, pixels: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
        self._pixels, self._names, self.opened = pixels, list(names), set[str]()

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(f"tile {name} is not in what the unit reads")
        self.opened.add(name)
        view = self._pixels[name].view()
        view.flags.writeable = False
        return view

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass
class Inputs:
    """What exists so far: raw tiles, and the outputs of the stages run."""

    voxel_nm: NM3 = (30.0, 6.0, 6.0)
    outputs: dict[str, Stored] = field(default_factory=dict)
    pixels: dict[str, np.ndarray] = field(default_factory=dict)

    def table(self, name: str) -> pa.Table:
        table = self.outputs[name].table
        assert table is not None
        return table

    def volume(self, name: str) -> np.ndarray:
        volume = self.outputs[name].volume
        assert volume is not None
        return volume


def raw_tiles(tiles: Sequence[tuple[int, str, float, float, np.ndarray]], **voxel: NM3) -> Inputs:
    """Inputs from tiles (section, name, stage_y_px, stage_x_px, pixels); pixels of size 0 make a missing tile."""
    rows = [
        {
            "section": section,
            "tile": name,
            "path": name,
            "sha256": "0" * 64,
            "stage_y_px": float(y),
            "stage_x_px": float(x),
            "height_px": pixels.shape[0],
            "width_px": pixels.shape[1],
            "dtype": str(pixels.dtype),
            "problem": "" if pixels.size else "missing",
            "detail": "" if pixels.size else "no such file",
        }
        for section, name, y, x, pixels in tiles
    ]
    boxes = []
    numbers = sorted({t[0] for t in tiles})
    for z in numbers:
        own = [t for t in tiles if t[0] == z]
        lo = [int(np.floor(min(t[k] for t in own))) for k in (2, 3)]
        hi = [int(np.ceil(max(t[k] + t[4].shape[k - 2] for t in own))) for k in (2, 3)]
        boxes.append([z, *lo, z + 1, *hi])
    extent = Extent(ids.pack([(z, 0, 0) for z in numbers]), np.asarray(boxes, dtype=np.int64))
    table = pa.Table.from_pylist(rows, schema=RAW_SCHEMA)
    unit = ids.pack([(r["section"], 0, 0) for r in rows])
    table = table.add_column(0, "unit", pa.array(unit)).sort_by([("unit", "ascending"), ("tile", "ascending")])
    out = Inputs(**({"voxel_nm": voxel["voxel_nm"]} if voxel else {}))
    out.outputs[RAW] = Stored(extent, table)
    out.pixels = {name: pixels for _, name, _, _, pixels in tiles if pixels.size}
    return out


def plan_of(stage: Stage[Any], inputs: Inputs, params: Params) -> Plan:
    found = Found(inputs.voxel_nm, {name: inputs.outputs[name].extent for name in stage.inputs})
    return stage.plan(found, params)


def block_of(stage: Stage[Any], inputs: Inputs, plan: Plan, i: int, params: Params) -> Block[Any]:
    """The block of the `i`-th unit: what its read boxes touch, and nothing else."""
    unit = plans.unit(plan, i)
    arrays, boxes, tables = {}, {}, {}
    tiles = OpenedTiles(inputs.pixels, [])
    wanted: dict[str, set[int]] = {}
    for name, box in unit.reads:
        stored = inputs.outputs[name]
        if stored.volume is not None:
            boxes[name] = stored.bounds if box is None else box
            arrays[name] = stored.volume[boxes[name].slices(stored.bounds.lo)].view()
            arrays[name].flags.writeable = False
            continue
        touched = [
            c
            for c, b in zip(stored.extent.codes.tolist(), stored.extent.boxes, strict=True)
            if box is None or box_of(b).touches(box)
        ]
        wanted.setdefault(name, set()).update(touched)
        boxes[name] = stored.extent.bounds if box is None else box
    for name, codes in wanted.items():
        table = inputs.table(name)
        rows = table.filter(pa.array(np.isin(table["unit"].to_numpy(), np.asarray(sorted(codes), np.uint64))))
        tables[name] = rows
        if name == RAW:
            tiles = OpenedTiles(inputs.pixels, [r["tile"] for r in rows.to_pylist() if not r["problem"]])
    return Block(unit, params, inputs.voxel_nm, arrays, boxes, tables, tiles, None, 0)


def run_in_memory(
    stage: Stage[Any], inputs: Inputs, params: Params | None = None, order: Sequence[int] | None = None
) -> dict[str, Stored]:
    """Run all units of `stage`; its outputs are returned and added to `inputs`. Checks what the runner checks."""
    params = stage.params() if params is None else params
    plan = plan_of(stage, inputs, params)
    made: dict[str, list[pa.Table]] = {o.name: [] for o in stage.outputs}
    volumes = {o.name: np.zeros(plan.bounds.shape, o.dtype) for o in stage.outputs if not isinstance(o, Rows)}
    for i in range(len(plan)) if order is None else order:
        block = block_of(stage, inputs, plan, i, params)
        result = stage.compute(block)
        assert set(result) == {o.name for o in stage.outputs}, sorted(result)
        for o in stage.outputs:
            value = result[o.name]
            if isinstance(o, Rows):
                made[o.name].append(_with_unit(o, value, block.unit.code))
            else:
                assert (value.dtype, value.shape) == (np.dtype(o.dtype), block.unit.core.shape), o.name
                volumes[o.name][block.unit.core.slices(plan.bounds.lo)] = value
    out = {}
    for o in stage.outputs:
        extent = Extent(plan.codes, plan.cores)
        if isinstance(o, Rows):
            keys = [("unit", "ascending"), *((k, "ascending") for k in o.table.key)]
            table = pa.concat_tables([o.table.stored().empty_table(), *made[o.name]]).sort_by(keys)
            out[o.name] = Stored(_section_extent(o, table) if o.part == "section" else extent, table)
        else:
            out[o.name] = Stored(extent, volume=volumes[o.name], bounds=plan.bounds)
    inputs.outputs.update({f"{stage.name}.{name}": stored for name, stored in out.items()})
    return out


def _with_unit(output: Rows, rows: pa.Table, code: int) -> pa.Table:
    """The rows with `unit` in front, after the runner's checks: schema, no nulls, no key twice."""
    assert rows.schema.equals(output.table.arrow()), f"{output.name}: {rows.schema} is not {output.table.arrow()}"
    assert all(rows[c.name].null_count == 0 for c in output.table.columns if not c.nullable), output.name
    keys = list(zip(*(rows[k].to_pylist() for k in output.table.key), strict=True))
    assert len(set(keys)) == len(keys), f"{output.name}: a key repeats"
    if output.part == "section":
        unit = ids.pack([(z, 0, 0) for z in rows["section"].to_pylist()])
    else:
        unit = np.full(len(rows), code, np.uint64)
    return rows.add_column(0, pa.field("unit", pa.uint64(), nullable=False), pa.array(unit, pa.uint64()))


def _section_extent(output: Rows, table: pa.Table) -> Extent:
    codes = np.unique(table["unit"].to_numpy())
    boxes = []
    for code in codes:
        mine = table.filter(pa.array(table["unit"].to_numpy() == code))
        z = ids.position_of(int(code))[0]
        lo, hi = [-plans.FAR] * 2, [plans.FAR] * 2
        if output.extent:
            lo = [int(np.floor(mine[c].to_numpy().min())) for c in output.extent]
            hi = [int(np.ceil(mine[c].to_numpy().max())) for c in output.extent]
        boxes.append([z, *lo, z + 1, *hi])
    return Extent(codes, np.asarray(boxes, dtype=np.int64).reshape(-1, 6))
