"""One output of one unit as the files of a blob, and back: what a run stores and what checking it reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from connectome_db import ids, tables, volumes
from connectome_db.errors import StoreError
from connectome_db.geometry import Box
from connectome_db.provenance import array_digest, digest, table_digest
from connectome_db.spec import Array, Rows
from connectome_db.volumes import VolumeLayout

ROWS = "rows.parquet"
"""The one file of a table's blob."""


@dataclass(frozen=True)
class Packed:
    """An output ready for the store: content digest, number of rows (-1 for a volume), blob name, and files."""

    digest: str
    rows: int
    blob: str
    files: Mapping[str, bytes]


def pack_array(layout: VolumeLayout, core: Box, array: Array) -> Packed:
    """Voxels (z, y, x) of `core` as chunk files of all levels of the pyramid."""
    content = array_digest(array)
    return Packed(content, -1, blob_name(content, layout, core), volumes.encode(layout, core, array))


def pack_rows(output: Rows, rows: pa.Table, unit: int) -> Packed:
    """Rows of the unit with code `unit`, as `compute` gave them; they get the column `unit` and are sorted."""
    conform = tables.conform(output.table, rows)
    return pack_stamped(tables.with_unit(conform, part_codes(output, conform, unit)))


def pack_stamped(stamped: pa.Table) -> Packed:
    """Rows that have the column `unit` and their order."""
    content = table_digest(stamped)
    return Packed(content, stamped.num_rows, content, {ROWS: tables.to_bytes(stamped)})


def blob_name(content: str, layout: VolumeLayout, core: Box) -> str:
    """Chunk files depend on the content and on where the core lies in its block (units cut by the bounds)."""
    inside = [a % b for a, b in zip(core.lo, layout.block_vx, strict=True)]
    return digest("chunks", [content, layout.kind, list(layout.block_vx), list(layout.voxel_nm), inside])


def part_codes(output: Rows, rows: pa.Table, unit: int) -> npt.NDArray[np.uint64]:
    """The code each row is filed under: its unit's, or its section's."""
    if output.part == "unit":
        return np.asarray([unit], dtype=np.uint64)
    z = rows["section"].to_numpy().astype(np.int64)
    return ids.pack(np.stack([z, np.zeros_like(z), np.zeros_like(z)], axis=1))


def unpack_array(layout: VolumeLayout, core: Box, files: Mapping[str, bytes]) -> tuple[str, dict[str, bytes]]:
    """Content digest of level 0, and the files that this content has: all levels, level 0 encoded again.

    Raises StoreError when a chunk of level 0 is damaged.
    """
    array = volumes.decode(layout, core, files)
    return array_digest(array), volumes.encode(layout, core, array)


def unpack_rows(data: bytes) -> pa.Table:
    """The rows of a table's blob. Raises StoreError when the file is not readable Parquet."""
    try:
        return pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError, ValueError) as e:
        raise StoreError(f"not readable as Parquet: {e}") from e


def as_recorded(files: Mapping[str, bytes], content: str, layout: VolumeLayout | None, core: Box) -> bool:
    """True when the files of a blob decode to the recorded content, and the pyramid is the one of that content.

    `layout` is None for a table.
    """
    try:
        if layout is None:
            return table_digest(unpack_rows(files[ROWS])) == content
        found, again = unpack_array(layout, core, files)
    except (StoreError, KeyError):
        return False
    return found == content and again == files
