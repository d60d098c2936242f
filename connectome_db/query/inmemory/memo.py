"""What is read out of tables once, and kept with the database that holds small ones in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from connectome_db.query.database import Database

T = TypeVar("T")


def remembered(db: Database, tables: Sequence[str], make: Callable[[Database], T]) -> T | None:
    """`make(db)`, once for a database; None where it holds nothing, lacks one of `tables`, or one has too many rows."""
    if not db.held_rows:
        return None
    name = make.__qualname__
    if name not in db.memo:
        db.memo[name] = make(db) if all(_is_small(db, table) for table in tables) else None
    found: T | None = db.memo[name]
    return found


def _is_small(db: Database, table: str) -> bool:
    there = table == "executed" or db.has(table)  # `executed` is what the view `execution` is made of
    return there and bool(db.fetch(f"SELECT count(*) AS n FROM {table}")[0]["n"] <= db.held_rows)
