"""Judge a project: every table against its schema, and the data against what is expected of a connectome.

Two engines give the same rows. `direct` needs well under a second and is what `dvc repro` uses; `gx` has Great
Expectations validate the same suites, and is what `connectome check` uses by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectome_db.errors import QueryError, nearest
from connectome_db.qa import direct, large
from connectome_db.qa.domain import DOMAIN, Domain
from connectome_db.qa.frames import F64, Frame, Place, Tables
from connectome_db.qa.result import Result
from connectome_db.qa.rules import Rule, rules_of
from connectome_db.qa.settings import QaParams, Severity

Engine = Literal["direct", "gx"]
MISSING = "(missing)"


@dataclass(frozen=True)
class _Asked:
    """One rule to judge on a frame, and what to tell of it."""

    rule: Rule
    table: str
    name: str
    columns: tuple[str, ...]
    says: str
    severity: Severity
    reason: str
    measured: bool = False


def check_project(root: Path, params: QaParams, *, engine: Engine = "direct") -> list[Result]:
    """Judge everything that is there: the schema of every table, then what is expected beyond it.

    Raises QueryError when nothing has been run yet, or a table cannot be read.
    """
    tables = _open(root)
    return [*_schema(tables, tables.there, engine), *_domain(tables, params, engine)]


def check_tables(root: Path, *, tables: Sequence[str] | None = None, engine: Engine = "direct") -> list[Result]:
    """Judge the schema of the tables that are there (or those named), in the order of the pipeline.

    Raises QueryError for an unknown table, for a named one that is not there yet, and when nothing has been run.
    """
    found = _open(root, anything=tables is None)
    for name in tables or ():
        if name not in found.declared:
            raise QueryError(f"unknown table {name!r}{nearest(name, found.declared)}")
        if not found.has(name):
            stage = found.stage_of[name]
            raise QueryError(
                f"table `{name}` is not there yet: stage {stage} has not been run; run `dvc repro {stage}`"
            )
    return _schema(found, [n for n in found.there if tables is None or n in tables], engine)


def check_domain(root: Path, params: QaParams, *, engine: Engine = "direct") -> list[Result]:
    """Judge only what is expected beyond the schema, as far as the tables for it are there."""
    return _domain(_open(root), params, engine)


def _open(root: Path, *, anything: bool = True) -> Tables:
    tables = Tables(root)
    if anything and not tables.there:
        raise QueryError(f"{root}: no tables to check; run `dvc repro` first")
    return tables


def _schema(t: Tables, names: Sequence[str], engine: Engine) -> list[Result]:
    return [result for name in names for result in _table(t, name, engine)]


def _table(t: Tables, name: str, engine: Engine) -> list[Result]:
    """All rules of one table; those about columns that are missing or of another type are left to the first."""
    if large.is_large(t.path(name)):
        return _large_table(t, name, engine)
    declared = t.declared[name]
    rows, stage = t.rows(name), t.stage_of[name]
    wanted = {f.name: str(f.type) for f in declared.stored()}
    found = {f.name: str(f.type) for f in rows.schema}
    right = {n for n, dtype in wanted.items() if found.get(n) == dtype}
    shape = _columns(list(wanted.items()), list(found.items()))
    first, *rules = rules_of(declared)
    rules = [r for r in rules if right.issuperset(r.columns)]
    rules = [r for r in rules if r.kind != "foreign" or t.has(r.target.split(".")[0])]
    for rule in rules:
        if rule.kind in {"foreign", "sorted"}:
            rows = rows.append_column(direct.flag(rule), _flags(t, rows, rule))
    units = rows["unit"] if "unit" in right else None

    def place(i: int) -> Place:
        unit = None if units is None else units[i].as_py()
        return Place() if unit is None else t.in_unit(stage, unit)

    asked = [_asked(name, r) for r in rules]
    return [
        *_judge(f"{name} columns", shape, [_asked(name, first)], engine),
        *_judge(name, Frame(rows, place), asked, engine),
    ]


def _large_table(t: Tables, name: str, engine: Engine) -> list[Result]:
    """The same for a table that is not held in memory; its rows are judged by the direct engine, piece by piece."""
    path, declared = t.path(name), t.declared[name]
    wanted = {f.name: str(f.type) for f in declared.stored()}
    have = {f.name: str(f.type) for f in pq.read_schema(path)}
    first, *rules = rules_of(declared)
    right = {n for n, dtype in wanted.items() if have.get(n) == dtype}
    rules = [r for r in rules if right.issuperset(r.columns)]
    rules = [r for r in rules if r.kind != "foreign" or t.has(r.target.split(".")[0])]
    found, total, schema = large.judge(path, rules, lambda piece, rule: _flags(t, piece, rule))
    results = _judge(
        f"{name} columns", _columns(list(wanted.items()), list(have.items())), [_asked(name, first)], engine
    )
    for rule, f in zip(rules, found, strict=True):
        rows = schema.empty_table() if f.rows is None else f.rows
        mask = np.zeros(0, bool) if f.mask is None else f.mask
        units = rows["unit"] if "unit" in rows.column_names else None

        def place(i: int, units: pa.ChunkedArray | None = units) -> Place:
            return Place() if units is None else t.in_unit(t.stage_of[name], units[i].as_py())

        one = _result(Frame(rows, place), _asked(name, rule), mask, f.unexpected, f.unexpected == 0)
        results.append(replace(one, rows=total, unexpected_share=f.unexpected / max(total, 1)))
    return results


def _asked(table: str, rule: Rule) -> _Asked:
    columns = () if rule.kind == "same" else rule.columns
    return _Asked(rule, table, rule.kind, columns, rule.says, "error", rule.reason)


def _columns(wanted: list[tuple[str, str]], found: list[tuple[str, str]]) -> Frame:
    """Declared beside found columns, one row per place in the order of columns."""
    have = {n for n, _ in found}
    pairs: list[tuple[str, str]] = []
    rest = list(found)
    for name, dtype in wanted:
        if name not in have:
            pairs.append((f"{name} {dtype}", MISSING))
        else:
            got = rest.pop(0) if rest else (MISSING, "")
            pairs.append((f"{name} {dtype}", f"{got[0]} {got[1]}".strip()))
    pairs += [(MISSING, f"{n} {d}") for n, d in rest]
    schema = pa.schema([("declared", pa.string()), ("found", pa.string())])
    return Frame(pa.Table.from_pylist([{"declared": a, "found": b} for a, b in pairs], schema=schema))


def _flags(t: Tables, rows: pa.Table, rule: Rule) -> pa.Array:
    if rule.kind == "sorted":
        return direct.in_order([rows[c] for c in rule.columns])
    table, column = rule.target.split(".")
    ids = rows[rule.columns[0]]
    known = t.rows(table)
    if column not in known.column_names or known[column].type != ids.type:
        return pa.array(np.ones(len(ids), bool))  # told by the rules of that table
    ok = pc.is_in(ids, value_set=known[column].combine_chunks())
    ok = pc.or_(ok, pc.is_null(ids))
    if pa.types.is_integer(ids.type):
        ok = pc.or_(ok, pc.equal(pc.fill_null(ids, 0), 0))
    return pc.fill_null(ok, False).combine_chunks()


def _domain(t: Tables, params: QaParams, engine: Engine) -> list[Result]:
    return [result for d in DOMAIN for result in _expected(t, d, params, engine)]


def _expected(t: Tables, d: Domain, params: QaParams, engine: Engine) -> Iterator[Result]:
    severity = d.weight(params)
    if severity is None or not t.has(*d.tables) or not _usable(t, d):
        return
    asked = _Asked(
        d.judged_by(params), d.tables[0], d.name, d.columns, d.told(params), severity, d.reason, d.measure is not None
    )
    if d.measure is not None:
        frame = d.measure(t)
    else:
        sections = t.rows(d.tables[0])["section"]
        frame = Frame(t.rows(d.tables[0]), lambda i: t.in_section(int(sections[i].as_py())))
    yield from _judge(d.name, frame, [asked], engine)


def _usable(t: Tables, d: Domain) -> bool:
    """Whether all columns that it reads are there, of their types and without null: else the schema's rules tell."""
    for table, column in (n.split(".") for n in d.needs):
        if table not in t.declared:
            continue  # `link` of an imported list: see Tables.links
        rows, declared = t.rows(table), t.declared[table].stored()
        if column not in rows.column_names or rows[column].type != declared.field(column).type:
            return False
        if rows[column].null_count:
            return False
    return True


def _judge(name: str, frame: Frame, asked: Sequence[_Asked], engine: Engine) -> list[Result]:
    if not asked:
        return []
    masks = [direct.unexpected(a.rule, frame.rows) for a in asked]
    counts = [int(m.sum()) for m in masks]
    well = [c == 0 for c in counts]
    if engine == "gx":
        from connectome_db.qa.greatly import judge  # noqa: PLC0415  # its library takes seconds to import

        verdicts = judge(name, frame.rows, [(a.rule, a.severity, a.reason) for a in asked])
        counts, well = [v.unexpected for v in verdicts], [v.success for v in verdicts]
    return [_result(frame, a, m, c, w) for a, m, c, w in zip(asked, masks, counts, well, strict=True)]


def _result(frame: Frame, a: _Asked, mask: direct.Mask, count: int, success: bool) -> Result:
    wrong = np.flatnonzero(mask)
    observed = None
    if a.measured:
        values = frame.rows[a.rule.columns[0]].to_numpy()
        far = _distance(values, a.rule)
        wrong = wrong[np.argsort(-far[wrong], kind="stable")]
        observed = float(values[np.argmax(far)]) if len(values) else None
    place = frame.place(int(wrong[0])) if len(wrong) else Place()
    n = frame.rows.num_rows
    return Result(
        a.table, a.name, a.rule.type, ", ".join(a.columns), a.says, a.severity, a.reason, success, n, count,
        count / n if n else 0.0, observed, _examples(frame.rows, a.rule, wrong), place.says, place.unit,
        *(place.box_nm or (None,) * 6),
    )  # fmt: skip


def _distance(values: F64, rule: Rule) -> F64:
    """How far values lie beyond the limits; negative inside them."""
    low = -np.inf if rule.low is None else rule.low
    high = np.inf if rule.high is None else rule.high
    return np.maximum(low - values, values - high)


def _examples(rows: pa.Table, rule: Rule, wrong: npt.NDArray[np.int64]) -> str:
    """Up to three different offending values; pairs and keys as (a, b)."""
    seen: dict[str, None] = {}
    for i in wrong[:50].tolist():
        values = [_text(rows[c][i].as_py()) for c in rule.columns]
        if rule.kind == "same":
            text = f"{values[1]} instead of {values[0]}" if values[1] != MISSING else values[0].split()[0]
        else:
            text = values[0] if len(values) == 1 else f"({', '.join(values)})"
        seen[text] = None
        if len(seen) == 3:
            break
    return "; ".join(seen)


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
