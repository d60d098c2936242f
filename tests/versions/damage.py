"""Damage to a project, planted by hand, and what `verify` must call it: (what, path) of every row, and no other."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from connectome_db import ledger
from connectome_db.revisions import cache_folder, cached
from connectome_db.store import Store, checksum
from connectome_db.versions.trust.trees import committed, locked_outs

Rows = set[tuple[str, str]]


def overwrite(path: Path, data: bytes) -> None:
    """Write in place, as nothing of this project does: every hard link sees it."""
    path.chmod(0o644)
    with path.open("r+b") as f:
        f.write(data)
        f.truncate(len(data))
    path.chmod(0o444)


def flip(path: Path) -> None:
    """One bit, in place."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    overwrite(path, bytes(data))


def swap(a: Path, b: Path) -> None:
    """Exchange two files by name."""
    aside = a.with_name("aside")
    a.rename(aside)
    b.rename(a)
    aside.rename(b)


def alone(root: Path, path: Path) -> Path:
    """The same file as an inode of its own, so that damage hits no other."""
    shutil.copyfile(path, root / "copy")
    (root / "copy").replace(path)
    return path


def keys(root: Path, stage: str) -> list[str]:
    return pq.read_table(root / "data" / stage / "units.parquet")["unit_key"].to_pylist()


def record(root: Path, stage: str, i: int) -> tuple[Path, dict[str, Any]]:
    """The store's record of a unit: its file and value."""
    path = root / ".connectome" / "store" / "keys" / stage / f"{keys(root, stage)[i]}.json"
    return path, json.loads(path.read_text())


def blob(root: Path, stage: str, i: int, output: str) -> Path:
    name = record(root, stage, i)[1]["outputs"][output]["blob"]
    return Store(root / ".connectome" / "store").blob(name)


def chunks(folder: Path, scale: str) -> list[Path]:
    return sorted((folder / scale).iterdir())


def shown(root: Path, *paths: Path) -> list[str]:
    return [str(p.relative_to(root)) for p in paths]


def rows(what: str, root: Path, *paths: Path) -> Rows:
    """What `verify` must call these files."""
    return {(what, p) for p in shown(root, *paths)}


def in_cache(root: Path, path: Path) -> Path:
    """Where DVC's cache has a file of data/ or provenance/."""
    out = "/".join(path.relative_to(root).parts[:2])
    dvc = committed(root, locked_outs(root), out)
    assert dvc is not None
    found = dvc.path(str(path.relative_to(root / out)))
    assert found is not None
    return found


def link_everywhere(root: Path, stored: Path, data: Path) -> Path:
    """Make store, data/ and DVC's cache share one inode, as they do on file systems without copies."""
    cache = in_cache(root, data)
    for target in (data, cache):
        new = root / "link"
        if not target.samefile(stored):
            os.link(stored, new)
            new.replace(target)
    return cache


def edit_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.unlink()
    path.write_text(json.dumps(value, sort_keys=True, indent=1) + "\n")


def edit_table(path: Path, column: str, row: int, value: object) -> None:
    table = pq.read_table(path)
    values = table[column].to_pylist()
    values[row] = value
    at = table.column_names.index(column)
    table = table.set_column(at, table.schema.field(column), pa.array(values, type=table.schema.field(column).type))
    path.unlink()
    pq.write_table(table, path, compression="zstd")


def edit_record(root: Path, stage: str, i: int, change: Callable[[dict[str, Any]], None], *, seal: bool) -> Rows:
    path, value = record(root, stage, i)
    change(value)
    path.write_text(json.dumps(value | ({"check": checksum(value)} if seal else {}), sort_keys=True))
    return rows("edited record", root, path)


def reseal(root: Path, stage: str) -> None:
    """What someone does who knows about seals."""
    data, provenance = root / "data" / stage, root / "provenance" / stage
    run = json.loads((provenance / "run.json").read_text())["run_id"]
    ledger.write(root / ".connectome" / "store", stage, data, provenance, run)


def bit_in_data(root: Path) -> Rows:
    path = alone(root, chunks(root / "data/segment/supervoxels", "8_8_30")[3])
    flip(path)
    return rows("damaged chunk", root, path)


def bit_in_pyramid_of_data(root: Path) -> Rows:
    path = alone(root, chunks(root / "data/render/image", "16_16_30")[2])
    flip(path)
    return rows("damaged chunk", root, path)


def bit_in_store(root: Path) -> Rows:
    path = chunks(blob(root, "segment", 5, "supervoxels"), "8_8_30")[0]
    flip(path)
    return rows("damaged chunk", root, path)


def bit_in_pyramid_of_store(root: Path) -> Rows:
    path = chunks(blob(root, "segment", 7, "affinity_x"), "16_16_30")[0]
    flip(path)
    return rows("damaged chunk", root, path)


def bit_everywhere(root: Path) -> Rows:
    """In place, on the inode that store, data/ and DVC's cache share: no copy is left, so the unit is computed."""
    stored = chunks(blob(root, "segment", 5, "supervoxels"), "8_8_30")[0]
    same = [p for p in chunks(root / "data/segment/supervoxels", "8_8_30") if p.read_bytes() == stored.read_bytes()]
    assert len(same) == 1
    cache = link_everywhere(root, stored, same[0])
    flip(same[0])
    return rows("damaged chunk", root, stored, same[0], cache)


def bit_in_pyramid_everywhere(root: Path) -> Rows:
    stored = chunks(blob(root, "mask", 4, "mask"), "16_16_30")[0]
    same = [p for p in chunks(root / "data/mask/mask", "16_16_30") if p.read_bytes() == stored.read_bytes()]
    cache = link_everywhere(root, stored, same[0])
    flip(stored)
    return rows("damaged chunk", root, stored, same[0], cache)


def bit_in_cache(root: Path) -> Rows:
    path = in_cache(root, root / "data/overlap/overlap.parquet")
    flip(path)
    return rows("damaged copy", root, path)


def cut_part(root: Path) -> Rows:
    path = blob(root, "score", 6, "contact") / "rows.parquet"
    overwrite(path, path.read_bytes()[:-40])
    return rows("truncated table", root, path)


def cut_table(root: Path) -> Rows:
    path = root / "data/score/contact.parquet"
    overwrite(path, path.read_bytes()[:-400])
    return rows("truncated table", root, path)


def value_in_table(root: Path) -> Rows:
    path = root / "data/score/contact.parquet"
    edit_table(path, "area_nm2", 11, 1.5)
    return rows("damaged rows", root, path)


def value_in_sections(root: Path) -> Rows:
    path = root / "data/align/section_transform.parquet"
    edit_table(path, "source_x_px", 40, 1.5)
    return rows("damaged rows", root, path)


def no_record(root: Path) -> Rows:
    path, _ = record(root, "segment", 9)
    path.unlink()
    return rows("missing unit", root, path)


def no_blob(root: Path) -> Rows:
    path = blob(root, "segment", 9, "affinity_y")
    shutil.rmtree(path)
    return rows("missing unit", root, path)


def no_rows_in_store(root: Path) -> Rows:
    path = blob(root, "montage", 4, "tile_match")
    shutil.rmtree(path)
    return rows("missing unit", root, path)


def no_rows(root: Path) -> Rows:
    path = root / "data/segment/supervoxel.parquet"
    table = pq.read_table(path)
    gone = table["unit"][0].as_py()
    path.unlink()
    pq.write_table(table.filter(pa.array([u != gone for u in table["unit"].to_pylist()])), path, compression="zstd")
    return rows("missing rows", root, path)


def no_chunk(root: Path) -> Rows:
    path = chunks(root / "data/mask/mask", "8_8_30")[2]
    path.unlink()
    return rows("missing chunk", root, path)


def no_record_json(root: Path) -> Rows:
    path = root / "data/reconcile/record.json"
    path.unlink()
    return rows("missing record", root, path)


def foreign(root: Path) -> Rows:
    volume = root / "data/segment/supervoxels/8_8_30/0-64_0-64_80-88"
    volume.write_bytes(b"not a chunk of this volume")
    note = root / "data/graph/notes.txt"
    note.write_text("mine")
    return rows("foreign file", root, volume, note)


def swapped_in_data(root: Path) -> Rows:
    a, b = chunks(root / "data/segment/supervoxels", "8_8_30")[4:6]
    swap(a, b)
    return rows("swapped files", root, a, b)


def swapped_in_store(root: Path) -> Rows:
    a, b = (chunks(blob(root, "segment", i, "supervoxels"), "8_8_30")[0] for i in (2, 10))
    swap(a, b)
    return rows("swapped files", root, a, b)


def swapped_tables_in_store(root: Path) -> Rows:
    a, b = (blob(root, "score", i, "contact") / "rows.parquet" for i in (2, 10))
    swap(a, b)
    # their sizes differ too, which the records of both units tell
    return rows("swapped files", root, a, b)


def edited_record_json(root: Path) -> Rows:
    path = root / "data/agglomerate/record.json"
    edit_json(path, lambda v: v["params"].update(threshold=0.7))
    return rows("edited record", root, path)


def resealed_record_json(root: Path) -> Rows:
    found = edited_record_json(root)
    reseal(root, "agglomerate")
    return found


def resealed_code_digest(root: Path) -> Rows:
    path = root / "data/segment/record.json"
    edit_json(path, lambda v: v.update(code_digest="0" * 64))
    reseal(root, "segment")
    return rows("edited record", root, path)


def resealed_input(root: Path) -> Rows:
    path = root / "data/score/record.json"
    edit_json(path, lambda v: v["inputs"].update({"render.image": "1" * 64}))
    reseal(root, "score")
    return rows("edited record", root, path)


def edited_units(root: Path) -> Rows:
    path = root / "data/segment/units.parquet"
    edit_table(path, "unit_key", 3, "a" * 64)
    return rows("edited record", root, path)


def resealed_units(root: Path) -> Rows:
    path = root / "data/overlap/units.parquet"
    edit_table(path, "params_digest", 3, "a" * 64)
    reseal(root, "overlap")
    return rows("edited record", root, path)


def edited_parts(root: Path) -> Rows:
    path = root / "data/segment/parts.parquet"
    edit_table(path, "digest", 3, "a" * 64)
    return rows("edited record", root, path)


def resealed_parts(root: Path) -> Rows:
    path = root / "data/synapses/parts.parquet"
    edit_table(path, "digest", 3, "a" * 64)
    reseal(root, "synapses")
    return rows("edited record", root, path)


def edited_reads(root: Path) -> Rows:
    path = root / "data/segment/reads.parquet"
    edit_table(path, "x1", 3, 1)
    return rows("edited record", root, path)


def edited_digest(root: Path) -> Rows:
    def change(v: dict[str, Any]) -> None:
        v["outputs"]["supervoxel"]["digest"] = "b" * 64

    return edit_record(root, "segment", 4, change, seal=False)


def resealed_digest(root: Path) -> Rows:
    """A record that points at the content of another unit, with a checksum that fits."""
    other = record(root, "segment", 5)[1]["outputs"]["supervoxels"]
    return edit_record(root, "segment", 4, lambda v: v["outputs"].update(supervoxels=other), seal=True)


def edited_execution(root: Path) -> Rows:
    return edit_record(root, "segment", 4, lambda v: v["execution"].update(host="elsewhere"), seal=False)


def resealed_execution(root: Path) -> Rows:
    return edit_record(root, "segment", 4, lambda v: v["execution"].update(git_dirty=True), seal=True)


def broken_record(root: Path) -> Rows:
    path, _ = record(root, "mask", 4)
    path.write_text(path.read_text()[:200])
    return rows("edited record", root, path)


def edited_run(root: Path) -> Rows:
    path = root / "provenance/segment/run.json"
    edit_json(path, lambda v: v.update(user="someone"))
    return rows("edited record", root, path)


def edited_executions(root: Path) -> Rows:
    path = root / "provenance/segment/executions.parquet"
    edit_table(path, "host", 3, "elsewhere")
    return rows("edited record", root, path)


def edited_seal(root: Path) -> Rows:
    data = root / "data/graph"
    path = root / ".connectome/store/ledgers/graph" / ledger.name_of(data) / "seal.json"
    edit_json(path, lambda v: v.update({"neuron.parquet": "c" * 64}))
    return rows("edited record", root, path)


def edited_listing(root: Path) -> Rows:
    path = cached(cache_folder(root), locked_outs(root)["data/mask"])
    overwrite(path, path.read_bytes().replace(b"mask_area", b"mask_aera"))
    return rows("edited record", root, path)
