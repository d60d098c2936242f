"""Two receipts of one query, then and now: is the answer the same, and if not, why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from connectome_db.query.receipts.normal import MAIN
from connectome_db.query.receipts.receipt import Receipt, TableFacts, Versions

Result = Literal["same", "other order", "different"]
_SAYS = {
    "code": "code",
    "model": "model",
    "parameters": "parameters",
    "overrides": "overrides or regions",
    "raw": "raw tiles",
}
"""The facts of a stage, in words."""


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is still the same, and why not."""

    result: Result
    """`other order`: the same rows, which the query does not put into one order."""
    reasons: tuple[str, ...]
    """One line each: what differs, and what made it differ."""
    notes: tuple[str, ...] = ()
    """What else is worth knowing: what the answer is at the receipt's revision, warnings."""


def compare(then: Receipt, now: Receipt) -> Verdict:
    """Judge `now`, the receipt of the same query run again, by `then`."""
    result = _result(then, now)
    changed = list(tables_changed(then, now))
    if result == "same":
        notes = [f"although {line}" for line in changed]
        return Verdict(result, (), (*notes, *_volatile_functions(then)))
    if result == "other order":
        return Verdict(result, (_order(then), *changed), tuple(_volatile_functions(then)))
    others = [] if any(tables_changed(then, now, volatile=False)) else list(_other_causes(then, now))
    rows = [] if then.answer.rows == now.answer.rows else [f"rows {then.answer.rows} -> {now.answer.rows}"]
    return Verdict(result, (*rows, *_columns(then, now), *changed, *stages_changed(then, now), *others))


def _result(then: Receipt, now: Receipt) -> Result:
    if then.answer.digest == now.answer.digest:
        return "same"
    return "other order" if then.answer.digest_any_order == now.answer.digest_any_order else "different"


def _order(then: Receipt) -> str:
    return (
        f"the same {then.answer.rows} rows came in another order: the query does not say which comes first among "
        "equals; ORDER BY ALL, or a key at the end of ORDER BY, makes the order part of the answer"
    )


def _columns(then: Receipt, now: Receipt) -> Iterator[str]:
    if then.answer.columns != now.answer.columns:
        yield f"columns {_listed(then)} -> {_listed(now)}"


def _listed(receipt: Receipt) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in receipt.answer.columns)


def tables_changed(then: Receipt, now: Receipt, *, volatile: bool | None = None) -> Iterator[str]:
    """A line per table whose content differs: "table connection (stage graph): 0123 -> 4567"."""
    before, after = (
        {(t.of, t.table, t.stage): t for t in r.tables if volatile in (None, t.volatile)} for r in (then, now)
    )
    differing: dict[tuple[str, str], list[str]] = defaultdict(list)
    for key in sorted(before.keys() | after.keys()):
        a, b = before.get(key), after.get(key)
        if a is None or b is None or a.digest != b.digest:
            differing[key[:2]].append(key[2])
    for (of, table), stages in differing.items():
        ends = [_shown(r.get((of, table, stages[0]))) for r in (before, after)]
        name = table if of == MAIN else f"{of}.{table}"
        any_volatile = any(t.volatile for t in then.tables if (t.of, t.table) == (of, table))
        which = f"stage {stages[0]}" if len(stages) == 1 else f"stages {', '.join(stages)}"
        change = f": {ends[0]} -> {ends[1]}" if len(stages) == 1 else ""
        note = "; it holds times and hosts, which differ from run to run" if any_volatile else ""
        yield f"table {name} ({which}) has changed{change}{note}"


def _shown(table: TableFacts | None) -> str:
    return table.digest[:12] if table else "not there"


def stages_changed(then: Receipt, now: Receipt) -> Iterator[str]:
    """A line per stage that was made otherwise, in the order of the pipeline: the causes of changed tables."""
    for of, before in then.stages.items():
        after = now.stages.get(of, {})
        where = "" if of == MAIN else f" of {of}"
        for stage, facts in before.items():
            if stage not in after:
                yield f"stage {stage}{where} has no data"
            elif why := [says for name, says in _SAYS.items() if getattr(facts, name) != getattr(after[stage], name)]:
                yield f"stage {stage}{where} was made with other {', other '.join(why)}"


def _volatile_functions(receipt: Receipt) -> list[str]:
    names = ", ".join(receipt.volatile_functions)
    return [f"the query uses {names}, which may answer otherwise each time"] if names else []


def _other_causes(then: Receipt, now: Receipt) -> Sequence[str]:
    """Why an answer differs although the tables do not."""
    causes = _volatile_functions(then)
    if then.query.values != now.query.values:
        causes.append(f"other values were bound: {then.query.values} -> {now.query.values}")
    a, b = then.versions, now.versions
    if a.duckdb != b.duckdb:
        causes.append(f"DuckDB {a.duckdb} -> {b.duckdb}")
    if (a.connectome_db, a.commit) != (b.connectome_db, b.commit):
        causes.append(f"connectome_db {_version(a)} -> {_version(b)}")
    if causes or then.query.digest != now.query.digest or any(t.volatile for t in then.tables):
        return causes
    return [
        "the tables, the query and the programs are the same: it picks rows in an order that is not said (LIMIT, "
        "first, any_value, list or row_number without ORDER BY), or adds floats on another processor"
    ]


def _version(versions: Versions) -> str:
    return f"{versions.connectome_db} ({(versions.commit or 'no commit')[:10]})"
