"""Check the tables of a project with Great Expectations, in memory and without any network call.

A suite is made per table from its declaration (see `rules`) and run on the Parquet file as it lies in `data/`. The
library is imported only here and only when something is checked: that takes seconds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectome_db.errors import QueryError, nearest
from connectome_db.qa.rules import Rule, rules_of
from connectome_db.schema.all import outputs_of
from connectome_db.spec import Table

_SLACK = 1e-6
"""Means of numbers that lie in a range may leave it by rounding."""


@dataclass(frozen=True)
class TableCheck:
    """The result of one rule on one table."""

    table: str
    expectation: str
    columns: tuple[str, ...]
    says: str
    success: bool
    rows: int
    unexpected: int
    example: str
    """Up to three offending values; empty when there are none."""


def check_tables(project: Path, *, tables: Sequence[str] | None = None) -> list[TableCheck]:
    """Check the tables that are there (or those named), in the order of the pipeline.

    Raises QueryError for an unknown table, for a named one that is not there yet, and when nothing has been run.
    """
    declared = {t.name: t for made in outputs_of(_stages(project)).values() for t in made}
    wanted = list(declared) if tables is None else list(tables)
    for name in wanted:
        if name not in declared:
            raise QueryError(f"unknown table {name!r}{nearest(name, declared)}")
        if tables is not None and not _path(project, name).is_file():
            stage = _path(project, name).parent.name
            raise QueryError(
                f"table `{name}` is not there yet: stage {stage} has not been run; run `dvc repro {stage}`"
            )
    there = [name for name in declared if name in wanted and _path(project, name).is_file()]
    if not there:
        raise QueryError(f"{project}: no tables to check; run `dvc repro` first")
    return [result for name in there for result in _check(project, declared[name])]


def _stages(project: Path) -> set[str]:
    return {path.name for path in (project / "data").glob("*")}


def _path(project: Path, table: str) -> Path:
    made = {t.name: stage for stage, tables in outputs_of(_stages(project)).items() for t in tables}
    return project / "data" / made[table] / f"{table}.parquet"


def _check(project: Path, table: Table) -> list[TableCheck]:
    name = table.name
    rows = pq.read_table(_path(project, name))
    rules = [r for r in rules_of(table) if r.kind != "foreign" or _path(project, r.target.split(".")[0]).is_file()]
    missing = sorted({c for r in rules for c in r.columns} - set(rows.column_names))
    if missing:
        return [
            TableCheck(name, "columns", tuple(missing), "columns are as declared", False, rows.num_rows, len(missing),
                       ", ".join(missing))
        ]  # fmt: skip
    found = {r.columns: _found(project, rows[r.columns[0]], r.target) for r in rules if r.kind == "foreign"}
    frame = rows.to_pandas(types_mapper={pa.uint64(): pd.UInt64Dtype()}.get)
    for columns, ok in found.items():
        frame[_flag(columns)] = ok.to_numpy(zero_copy_only=False)
    results = _validate(name, frame, rules)
    return [_result(name, rule, result, rows, found) for rule, result in zip(rules, results, strict=True)]


def _flag(columns: Sequence[str]) -> str:
    return f"{columns[0]} is found"


def _found(project: Path, ids: pa.ChunkedArray, target: str) -> pa.Array:
    """Per row, whether the id points to a row of `target`; null and 0 point to nothing and are well."""
    table, column = target.split(".")
    known = pq.read_table(_path(project, table), columns=[column])[column]
    ok = pc.is_in(ids, value_set=known.combine_chunks())
    ok = pc.or_(ok, pc.is_null(ids))
    if pa.types.is_integer(ids.type):
        ok = pc.or_(ok, pc.equal(pc.fill_null(ids, 0), 0))
    return pc.fill_null(ok, False).combine_chunks()


def _validate(name: str, frame: pd.DataFrame, rules: Sequence[Rule]) -> list[Any]:
    """Run the suite; results in the order of `rules`."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the library is imported
    import great_expectations as gx  # noqa: PLC0415  # seconds: only when something is checked
    from great_expectations import expectations as gxe  # noqa: PLC0415

    def expectation(rule: Rule, number: int) -> Any:
        meta = {"number": number}
        match rule.kind:
            case "unique" if len(rule.columns) > 1:
                return gxe.ExpectCompoundColumnsToBeUnique(column_list=list(rule.columns), meta=meta)
            case "unique":
                return gxe.ExpectColumnValuesToBeUnique(column=rule.columns[0], meta=meta)
            case "not_null":
                return gxe.ExpectColumnValuesToNotBeNull(column=rule.columns[0], meta=meta)
            case "between":
                low = None if rule.low is None else rule.low - _SLACK
                high = None if rule.high is None else rule.high + _SLACK
                return gxe.ExpectColumnValuesToBeBetween(
                    column=rule.columns[0], min_value=low, max_value=high, meta=meta
                )
            case "ordered":
                return gxe.ExpectColumnPairValuesAToBeGreaterThanB(
                    column_A=rule.columns[1], column_B=rule.columns[0], meta=meta
                )
            case "foreign":
                return gxe.ExpectColumnValuesToBeInSet(column=_flag(rule.columns), value_set=[True], meta=meta)

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("tables").add_dataframe_asset(name)
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    suite = gx.ExpectationSuite(name=name, expectations=[expectation(r, i) for i, r in enumerate(rules)])
    told = batch.validate(suite, result_format={"result_format": "BASIC", "partial_unexpected_count": 3})
    return sorted(told.results, key=lambda r: int(r.expectation_config.meta["number"]))


def _result(
    name: str, rule: Rule, result: Any, rows: pa.Table, found: Mapping[tuple[str, ...], pa.Array]
) -> TableCheck:
    failure = result.exception_info
    if isinstance(failure, dict) and failure.get("raised_exception"):
        raise RuntimeError(f"table {name}, {rule.says}: the check itself failed: {failure.get('exception_message')}")
    told = result.result
    if rule.kind == "foreign":
        wrong = rows[rule.columns[0]].filter(pc.invert(found[rule.columns]))
        examples = pc.unique(wrong).slice(0, 3).to_pylist()
    else:
        examples = told.get("partial_unexpected_list") or []
    return TableCheck(
        table=name,
        expectation=result.expectation_config.type,
        columns=rule.columns,
        says=rule.says,
        success=bool(result.success),
        rows=rows.num_rows,
        unexpected=int(told.get("unexpected_count") or 0),
        example="; ".join(str(e) for e in examples),
    )
