"""How one record differs from another, in a few words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from connectome_db.versions.trust.trees import title

SHOWN = 3


def json_differences(wanted: Any, found: Any, where: str = "") -> Iterator[tuple[str, str, str]]:
    """Every value of two JSON documents that is not equal: its path, what was wanted, what was found."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in sorted(wanted.keys() | found.keys()):
            path = f"{where}.{key}" if where else str(key)
            if key not in wanted or key not in found:
                yield path, str(wanted.get(key, "nothing")), str(found.get(key, "nothing"))
            else:
                yield from json_differences(wanted[key], found[key], path)
    elif wanted != found or type(wanted) is not type(found):
        yield where, str(wanted), str(found)


def table_differences(wanted: pa.Table, found: pa.Table) -> Iterator[tuple[str, str, str]]:
    """Cells that differ between two tables of the same rows in the same order; else what tells the tables apart."""
    if wanted.column_names != found.column_names or wanted.num_rows != found.num_rows:
        yield "rows and columns", _shape(wanted), _shape(found)
        return
    for name in wanted.column_names:
        a, b = wanted[name].combine_chunks(), found[name].combine_chunks()
        if a.type != b.type:
            yield name, str(a.type), str(b.type)
            continue
        same = pc.or_(pc.fill_null(pc.equal(a, b), False), pc.and_(pc.is_null(a), pc.is_null(b)))
        for i in pc.indices_nonzero(pc.invert(same)).to_pylist():
            yield f"{_row(wanted, i)}: {name}", str(a[i].as_py()), str(b[i].as_py())


def _shape(table: pa.Table) -> str:
    return f"{table.num_rows} rows of {', '.join(table.column_names)}"


def _row(table: pa.Table, i: int) -> str:
    if "unit" not in table.column_names or table["unit"][i].as_py() is None:
        return f"row {i}"
    kind = table["kind"][i].as_py() if "kind" in table.column_names else "blocks"
    output = f"{table['output'][i].as_py()}, " if "output" in table.column_names else ""
    return output + title(str(kind), int(table["unit"][i].as_py()))


def told(differences: Iterator[tuple[str, str, str]]) -> tuple[str, str]:
    """The first few differences as (wanted, found)."""
    shown = [d for d, _ in zip(differences, range(SHOWN + 1), strict=False)]
    more = "; …" if len(shown) > SHOWN else ""
    shown = shown[:SHOWN]
    return "; ".join(f"{w} = {a}" for w, a, _ in shown) + more, "; ".join(b for _, _, b in shown) + more
