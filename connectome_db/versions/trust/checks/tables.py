"""Tables of data/: do the rows of every unit have the digest that parts.parquet has for them?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectome_db.companions import file_digest
from connectome_db.errors import StoreError
from connectome_db.finish import section_parts
from connectome_db.provenance import table_digest
from connectome_db.spec import Rows
from connectome_db.versions.trust.findings import Problem, first_few
from connectome_db.versions.trust.trees import Tree, Units, title


@dataclass(frozen=True)
class TableChecked:
    """What came of one table: problems, and the digest of each unit's rows in order ("" where they were not read)."""

    problems: list[Problem]
    digests: list[str]
    bytes_read: int


@dataclass(frozen=True)
class _Place:
    """The table that is being checked."""

    tree: Tree
    output: Rows

    @property
    def path(self) -> Path:
        return self.tree.folder / f"{self.output.name}.parquet"

    def say(self, what: str, wanted: str = "", found: str = "", unit: tuple[str, int] = ("", -1)) -> Problem:
        where, code = self.tree.relative(self.path), None if unit[1] < 0 else unit[1]
        return Problem(self.tree.name, what, where, "table", wanted, found, unit[0], code, self.output.name)

    def sealed_as(self) -> str:
        digest = self.tree.ledger.files.get(self.path.name) if self.tree.ledger else None
        return f"sha256 {digest}" if digest else "a Parquet table"


def parts_of(tree: Tree, output: str) -> pa.Table | None:
    """Rows of parts.parquet of one output; None when no sound copy is left."""
    return None if tree.parts is None else tree.parts.filter(pc.equal(tree.parts["output"], output))


def check_table(tree: Tree, units: Units, output: Rows, chosen: npt.NDArray[np.bool_]) -> TableChecked:
    """Check the rows of the chosen units, bool[N], of one table; of no unit, only its seal."""
    place = _Place(tree, output)
    path, name, digests = place.path, place.path.name, [""] * len(units)
    if not path.is_file():
        return TableChecked([place.say("missing table", place.sealed_as(), "nothing")], digests, 0)
    problems: list[Problem] = []
    size = path.stat().st_size
    if chosen.any():
        parts = parts_of(tree, output.name)
        try:
            if output.part == "section":
                problems = _check_sections(place, parts, digests)
            else:
                problems = _check_rows(place, units, parts, digests, chosen)
        except StoreError as e:
            found = f"{size} bytes that cannot be read: {e}"
            problems = [place.say("truncated table", place.sealed_as(), found)]
    if tree.vouched(name) is False and not problems:
        found = f"sha256 {tree.found.get(name) or file_digest(path)}"
        right = " (the rows are right)" if chosen.all() else ""
        problems = [place.say("edited table", place.sealed_as(), found + right)]
    return TableChecked(problems, digests, size if chosen.any() or name in tree.found else 0)


def _groups(path: Path, codes: npt.NDArray[np.uint64] | None = None) -> Iterator[pa.Table]:
    """Row groups of a table, each ending where a unit ends; with `codes` (ascending), only those that may hold them.

    Raises StoreError for a damaged file.
    """
    try:
        file = pq.ParquetFile(path)
        held: list[pa.Table] = []
        for k in range(file.num_row_groups):
            if codes is not None and not _may_hold(file, k, codes):
                if held:
                    yield pa.concat_tables(held).combine_chunks()
                held = []
                continue
            group = file.read_row_group(k)
            if held and group.num_rows and _of_unit(group, held[0]["unit"][0]):
                held.append(group)  # a unit of many row groups is put together once
                continue
            table = pa.concat_tables([*held, group]).combine_chunks()
            held = []
            unit = table["unit"].to_numpy()
            if (unit[1:] < unit[:-1]).any():
                raise StoreError("its rows are not in the order of their units")
            if k + 1 < file.num_row_groups and len(unit):
                last = int(np.searchsorted(unit, unit[-1]))
                held, table = [table.slice(last)], table.slice(0, last)
            yield table
        if held:
            yield pa.concat_tables(held).combine_chunks()
    except (pa.ArrowException, OSError, KeyError) as e:
        raise StoreError(str(e).strip() or type(e).__name__) from e


def _of_unit(group: pa.Table, unit: pa.Scalar) -> bool:
    """True when all rows are of one unit."""
    low, high = pc.min_max(group["unit"]).as_py().values()
    return bool(low == high == unit.as_py())


def _may_hold(file: pq.ParquetFile, group: int, codes: npt.NDArray[np.uint64]) -> bool:
    """False when a row group's statistics say that none of the units is in it."""
    known = file.metadata.row_group(group).column(file.schema_arrow.get_field_index("unit")).statistics
    if known is None or not known.has_min_max:
        return True
    at = int(np.searchsorted(codes, np.uint64(known.min)))
    return at < len(codes) and int(codes[at]) <= int(known.max)


def _slices(table: pa.Table) -> Iterator[tuple[int, int, int]]:
    """Code, first row and end of every unit in a table that is sorted by unit."""
    unit = table["unit"].to_numpy()
    codes, first = np.unique(unit, return_index=True)
    ends = np.append(first[1:], len(unit))[: len(codes)]  # of no rows there is no unit
    yield from zip(codes.tolist(), first.tolist(), ends.tolist(), strict=True)


def _check_rows(
    place: _Place, units: Units, parts: pa.Table | None, digests: list[str], chosen: npt.NDArray[np.bool_]
) -> list[Problem]:
    row_of = {code: i for i, code in enumerate(units.codes.tolist())}
    empty = table_digest(place.output.table.stored().empty_table())
    count, strange = [0] * len(units), []
    for i in np.flatnonzero(chosen).tolist():
        digests[i] = empty
    for table in _groups(place.path, None if chosen.all() else units.codes[chosen]):
        for code, a, b in _slices(table):
            if code not in row_of:
                strange.append(title(units.kind, code))
            elif chosen[i := row_of[code]]:
                count[i], digests[i] = b - a, table_digest(table.slice(a, b - a).combine_chunks())
    problems = []
    if strange:
        problems.append(place.say("foreign rows", found=f"rows of units that there are not: {first_few(strange)}"))
    if parts is None or len(parts) != len(units):
        return problems
    for i, (digest, n) in enumerate(zip(parts["digest"].to_pylist(), parts["rows"].to_pylist(), strict=True)):
        unit = (units.title(i), int(units.codes[i]))
        if chosen[i] and digests[i] != digest:
            found = "no rows" if digests[i] == empty else f"content {digests[i]}, {count[i]} rows"
            what = "missing rows" if digests[i] == empty else "damaged rows"
            problems.append(place.say(what, f"content {digest}, {n} rows", found, unit))
        elif chosen[i] and count[i] != n:
            row = place.say("edited record", f"rows = {count[i]}", f"rows = {n}", unit)
            file = place.tree.relative(place.tree.folder / "parts.parquet")
            problems.append(replace(row, path=file, place="small"))
    return problems


def _check_sections(place: _Place, parts: pa.Table | None, digests: list[str]) -> list[Problem]:
    """A table of one unit whose rows are filed by section; its digest counts only when every section is right."""
    pieces = list(_groups(place.path))
    table = pa.concat_tables(pieces).combine_chunks() if pieces else place.output.table.stored().empty_table()
    found, rows = section_parts(place.output, table)
    there = dict(zip(found.codes.tolist(), zip(found.digests, rows, strict=True), strict=True))
    wanted = there if parts is None else {
        c: (d, n) for c, d, n in zip(*(parts[k].to_pylist() for k in ("unit", "digest", "rows")), strict=True)
    }  # fmt: skip
    problems = []
    for code in sorted(there.keys() | wanted.keys()):
        if there.get(code) != wanted.get(code):
            what = "missing rows" if code not in there else "damaged rows" if code in wanted else "foreign rows"
            texts = [f"content {x[code][0]}, {x[code][1]} rows" if code in x else "no rows" for x in (wanted, there)]
            problems.append(place.say(what, texts[0], texts[1], (title("sections", code), int(code))))
    if not problems:
        digests[0] = table_digest(table)
    return problems
