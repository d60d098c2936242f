"""Have Great Expectations judge: rules as a suite of its expectations, in memory and without any network call.

The library is imported only here and only when asked for: that takes seconds.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pandas as pd
import pyarrow as pa

from connectome_db.qa.direct import SLACK, flag
from connectome_db.qa.rules import Rule
from connectome_db.qa.settings import Severity

_CRITICALITY = {"error": "critical", "warning": "warning", "info": "info"}


@dataclass(frozen=True)
class Verdict:
    """What the library says of one rule."""

    success: bool
    unexpected: int


def judge(name: str, rows: pa.Table, rules: Sequence[tuple[Rule, Severity, str]]) -> list[Verdict]:
    """Validate `rows` against the suite `name` of (rule, severity, reason); verdicts in the order of `rules`."""
    gx, context = _library()
    frame = rows.to_pandas(types_mapper={pa.uint64(): pd.UInt64Dtype()}.get)
    source = context.data_sources.add_or_update_pandas("tables")
    batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
    suite = gx.ExpectationSuite(
        name=name,
        expectations=[_expectation(gx, rule, s, why, i) for i, (rule, s, why) in enumerate(rules)],
    )
    told = batch.get_batch({"dataframe": frame}).validate(
        suite, result_format={"result_format": "BASIC", "partial_unexpected_count": 0}
    )
    ranked = sorted(told.results, key=lambda r: int(r.expectation_config.meta["number"]))
    return [_verdict(name, rule, result) for (rule, _, _), result in zip(rules, ranked, strict=True)]


def _verdict(name: str, rule: Rule, result: Any) -> Verdict:
    failure = result.exception_info
    if isinstance(failure, dict) and failure.get("raised_exception"):
        raise RuntimeError(f"table {name}, {rule.says}: the check itself failed: {failure.get('exception_message')}")
    return Verdict(bool(result.success), int(result.result.get("unexpected_count") or 0))


@lru_cache(maxsize=1)
def _library() -> tuple[Any, Any]:
    """The library, and a context that keeps everything in memory."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the library is imported
    import great_expectations as gx  # noqa: PLC0415  # seconds: only when something is checked

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    return gx, context


def _expectation(gx: Any, rule: Rule, severity: Severity, reason: str, number: int) -> Any:
    e = gx.expectations
    told = {"meta": {"number": number}, "severity": _CRITICALITY[severity], "notes": reason}
    first = rule.columns[0]
    match rule.kind:
        case "unique" if len(rule.columns) > 1:
            made = e.ExpectCompoundColumnsToBeUnique(column_list=list(rule.columns), **told)
        case "unique":
            made = e.ExpectColumnValuesToBeUnique(column=first, **told)
        case "not_null":
            made = e.ExpectColumnValuesToNotBeNull(column=first, **told)
        case "between":
            low = None if rule.low is None else rule.low - SLACK
            high = None if rule.high is None else rule.high + SLACK
            made = e.ExpectColumnValuesToBeBetween(column=first, min_value=low, max_value=high, **told)
        case "ordered":
            made = e.ExpectColumnPairValuesAToBeGreaterThanB(
                column_A=rule.columns[1], column_B=first, or_equal=rule.or_equal,
                ignore_row_if="either_value_is_missing", **told,
            )  # fmt: skip
        case "same":
            made = e.ExpectColumnPairValuesToBeEqual(
                column_A=first, column_B=rule.columns[1], ignore_row_if="either_value_is_missing", **told
            )
        case "member":
            made = e.ExpectColumnValuesToBeInSet(column=first, value_set=list(rule.members), **told)
        case "foreign" | "sorted":
            made = e.ExpectColumnValuesToBeInSet(column=flag(rule), value_set=[True], **told)
    return made
