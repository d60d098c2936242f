"""Run a chain of stages in memory, as the runner would: arrays cut by read boxes, rows of touched parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from connectome_db import plans
from connectome_db.geometry import Box, box_of
from connectome_db.spec import NM3, Block, Extent, Found, Network, Params, Rows, Stage


class Memory:
    """Outputs of all stages so far: whole volumes, and tables with their parts' geometry."""

    def __init__(self, voxel_nm: NM3, volumes: Mapping[str, np.ndarray], bounds: Box) -> None:
        self.voxel_nm = voxel_nm
        self.bounds = bounds
        self.volumes: dict[str, np.ndarray] = dict(volumes)
        self.tables: dict[str, pa.Table] = {}
        whole = Extent(np.zeros(1, np.uint64), np.asarray([bounds.flat()], np.int64))
        self.extents: dict[str, Extent] = dict.fromkeys(volumes, whole)
        self.units: dict[str, int] = {}

    def run(self, stage: Stage[Any], params: Params, network: Network | None = None, order: Sequence[int] = ()) -> None:
        found = Found(self.voxel_nm, {name: self.extents[name] for name in stage.inputs})
        plan = stage.plan(found, params)
        self.units[stage.name] = len(plan)
        tables: dict[str, list[pa.Table]] = {o.name: [] for o in stage.outputs if isinstance(o, Rows)}
        for o in stage.outputs:
            if not isinstance(o, Rows):
                self.volumes[f"{stage.name}.{o.name}"] = np.zeros(self.bounds.shape, o.dtype)
        for i in order or range(len(plan)):
            block = self._block(plans.unit(plan, i), params, network)
            result = stage.compute(block)
            assert set(result) == {o.name for o in stage.outputs}
            for o in stage.outputs:
                value = result[o.name]
                if isinstance(o, Rows):
                    assert value.schema == o.table.arrow(), (o.name, value.schema)
                    keys = value.select(list(o.table.key)).to_pylist()
                    assert len({tuple(k.values()) for k in keys}) == len(keys), f"{o.name}: key repeats"
                    unit = pa.array(np.full(len(value), block.unit.code, np.uint64))
                    rows = value.add_column(0, pa.field("unit", pa.uint64(), nullable=False), unit)
                    tables[o.name].append(rows.sort_by([(k, "ascending") for k in o.table.key]))
                else:
                    assert value.dtype == o.dtype
                    assert value.shape == block.unit.core.shape
                    self.volumes[f"{stage.name}.{o.name}"][block.unit.core.slices(self.bounds.lo)] = value
        extent = Extent(plan.codes, plan.cores)
        for o in stage.outputs:
            self.extents[f"{stage.name}.{o.name}"] = extent
            if isinstance(o, Rows):
                rows = pa.concat_tables(tables[o.name]) if tables[o.name] else o.table.stored().empty_table()
                self.tables[f"{stage.name}.{o.name}"] = rows.sort_by(
                    [("unit", "ascending"), *((k, "ascending") for k in o.table.key)]
                )

    def owners(self, table: str, column: str) -> np.ndarray:
        """The volume of supervoxels with each replaced by `column` of its row in `table`; 0 stays 0."""
        rows, volume = self.tables[table].sort_by("supervoxel"), self.volumes["segment.supervoxels"]
        out, inside = np.zeros(volume.shape, np.uint64), volume > 0
        out[inside] = rows[column].to_numpy()[np.searchsorted(rows["supervoxel"].to_numpy(), volume[inside])]
        return out

    def _block(self, unit: Any, params: Params, network: Network | None) -> Block[Any]:
        arrays, boxes, tables = {}, {}, {}
        for name, box in unit.reads:
            if name in self.volumes:
                cut = self.volumes[name][box.slices(self.bounds.lo)]
                cut.flags.writeable = False
                arrays[name], boxes[name] = cut, box
            else:
                tables[name] = self.tables[name] if box is None else self._touched(name, box)
                boxes[name] = self.bounds if box is None else box
        return Block(unit, params, self.voxel_nm, arrays, boxes, tables, {}, network, 0)

    def _touched(self, name: str, box: Box) -> pa.Table:
        extent = self.extents[name]
        codes = [c for c, b in zip(extent.codes.tolist(), extent.boxes, strict=True) if box_of(b).touches(box)]
        table = self.tables[name]
        return table.filter(pa.array(np.isin(table["unit"].to_numpy(), np.asarray(codes, np.uint64))))
