"""Every kind of damage that is planted in a copy of the small project."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.versions import damage
from tests.versions.damage import Rows


@dataclass(frozen=True)
class Plant:
    """A way to damage a project. `plant` returns the rows expected of `verify`."""

    name: str
    plant: Callable[[Path], Rows]
    stages: tuple[str, ...] = field(default=("segment",))


PLANTS = [
    Plant("a bit of a chunk in data/", damage.bit_in_data),
    Plant("a bit of a pyramid's chunk in data/", damage.bit_in_pyramid_of_data, ("render",)),
    Plant("a bit of a chunk in the store", damage.bit_in_store),
    Plant("a bit of a pyramid's chunk in the store", damage.bit_in_pyramid_of_store),
    Plant("a bit on the inode that all three share", damage.bit_everywhere),
    Plant("a bit of a pyramid on the inode that all three share", damage.bit_in_pyramid_everywhere, ("mask",)),
    Plant("a bit in DVC's cache", damage.bit_in_cache, ("overlap",)),
    Plant("a truncated part in the store", damage.cut_part, ("score",)),
    Plant("a truncated table in data/", damage.cut_table, ("score",)),
    Plant("a changed value in a table", damage.value_in_table, ("score",)),
    Plant("a changed value in a table by sections", damage.value_in_sections, ("align",)),
    Plant("a unit's record deleted", damage.no_record),
    Plant("a unit's blob deleted", damage.no_blob),
    Plant("a unit's blob of rows deleted", damage.no_rows_in_store, ("montage",)),
    Plant("a unit's rows deleted", damage.no_rows),
    Plant("a chunk deleted", damage.no_chunk, ("mask",)),
    Plant("record.json deleted", damage.no_record_json, ("reconcile",)),
    Plant("foreign files", damage.foreign, ("segment", "graph")),
    Plant("two chunks swapped in data/", damage.swapped_in_data),
    Plant("two chunks swapped in the store", damage.swapped_in_store),
    Plant("two parts swapped in the store", damage.swapped_tables_in_store, ("score",)),
    Plant("record.json edited", damage.edited_record_json, ("agglomerate",)),
    Plant("record.json edited and sealed again", damage.resealed_record_json, ("agglomerate",)),
    Plant("a code digest edited and sealed again", damage.resealed_code_digest),
    Plant("an input digest edited and sealed again", damage.resealed_input, ("score",)),
    Plant("units.parquet edited", damage.edited_units),
    Plant("units.parquet edited and sealed again", damage.resealed_units, ("overlap",)),
    Plant("parts.parquet edited", damage.edited_parts),
    Plant("parts.parquet edited and sealed again", damage.resealed_parts, ("synapses",)),
    Plant("reads.parquet edited", damage.edited_reads),
    Plant("a store record's digest edited", damage.edited_digest),
    Plant("a store record pointed elsewhere, checksum and all", damage.resealed_digest),
    Plant("a store record's execution edited", damage.edited_execution),
    Plant("a store record's execution edited, checksum and all", damage.resealed_execution),
    Plant("a store record cut short", damage.broken_record, ("mask",)),
    Plant("run.json edited", damage.edited_run),
    Plant("executions.parquet edited", damage.edited_executions),
    Plant("a seal edited", damage.edited_seal, ("graph",)),
    Plant("DVC's list of a folder edited", damage.edited_listing, ("mask",)),
]
