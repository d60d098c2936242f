"""The project as a database: one DuckDB view per table, opened read-only.

Science tables are the Parquet files of `data/<stage>/`; provenance views gather `data/*/{units,reads,parts}.parquet`,
`data/*/record.json` and `provenance/*/` over all stages. Nothing is copied and nothing can be written. Identifiers stay
uint64 from file to answer.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from connectome_db.errors import QueryError, nearest
from connectome_db.query import explain, guard, held, indexed, limits, quality, views
from connectome_db.schema.all import DECLARED, FUNCTIONS, IMPORTED_VIEWS, SCIENCE
from connectome_db.schema.companions import sorted_tables
from connectome_db.schema.imported import IMPORTED_LINK
from connectome_db.schema.provenance import EXECUTION, PART, PROVENANCE, UNIT, UNIT_EDGE, UNIT_READ
from connectome_db.schema.quality_views import VIEWS
from connectome_db.spec import NM3, Column, Table

T = TypeVar("T")
_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_TAKEN = """
SELECT schema_name FROM duckdb_schemas() UNION SELECT database_name FROM duckdb_databases()
UNION SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'
"""
_UNIT_COLUMN = Column(name="unit", dtype="uint64", doc="Unit (or section) that made the row.")


@dataclass(frozen=True)
class Other:
    """The tables of another revision, beside those of the database."""

    root: Path
    at: str
    """The revision's name, for messages."""
    tables: Mapping[str, Table] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Database:
    """An open project. Use as a context manager, or call `close`."""

    project: Path
    timeout_s: float
    tables: Mapping[str, Table]
    """Every view that can be queried, by name."""
    missing: Mapping[str, str]
    """Tables that are not there yet -> the stage that makes them."""
    at: str | None
    """The revision that the tables are of, for messages; None: the working tree."""
    also: Mapping[str, Other]
    """Other revisions, by the name under which their tables can be asked for: `old.connection`."""
    _con: duckdb.DuckDBPyConnection = field(repr=False)
    held_rows: int = 0  # tables of lineage with up to so many rows are in memory
    memo: dict[str, Any] = field(default_factory=dict, repr=False)  # what was read out of these, for who asks again
    _held: list[Database] = field(default_factory=list, repr=False)
    """The same with small tables in memory, once it was asked for twice (`in_memory`)."""
    _asked: list[None] = field(default_factory=list, repr=False)

    def sql(self, text: str, params: Mapping[str, Any] | None = None, *, timeout_s: float | None = None) -> pa.Table:
        """Rows of one SELECT (or DESCRIBE, SHOW, SUMMARIZE, EXPLAIN) with values bound to its `$name` parameters.

        Raises QueryError for anything that is not a read of the views, for unknown names (with the nearest valid one),
        and when the query takes longer than `timeout_s`.
        """
        return self._fetch(text, params, timeout_s or self.timeout_s, check=True, take=_arrow)

    def fetch(self, text: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Rows as dicts, for SQL written in this package (the syntax tree is not checked again)."""
        return self._fetch(text, params, self.timeout_s, check=False, take=_dicts)

    def in_memory(self) -> Database:
        """This database for one more of many questions about few rows: from the second on, one that holds small tables.

        The first is answered from the files: who asks once need not wait for tables to be read.
        """
        self._asked.append(None)
        if len(self._asked) > 1 and not self._held:
            held_rows = held.MOST_ROWS
            self._held.append(open_database(self.project, at=self.at, in_memory_rows=held_rows, threads=1))
        return self._held[0] if self._held else self

    def rows(
        self, text: str, params: Mapping[str, Any] | None = None, *, beside: Mapping[str, pa.Table] | None = None
    ) -> pa.Table:
        """Rows of SQL written in this package, which may name the tables of `beside` too: for many thousand values."""
        return self._fetch(text, params, self.timeout_s, check=False, beside=beside, take=_arrow)

    def hold(self, *names: str) -> None:
        """Keep these tables in memory from here on, for many small questions. Raises QueryError for an unknown one."""
        held.keep(self._con, self.tables, names)

    def has(self, *names: str) -> bool:
        """True when all these views are there."""
        return all(n in self.tables for n in names)

    def describe(self, table: str) -> pa.Table:
        """Columns of a view: column, type, unit (of measure) and meaning, in the view's order.

        Tables of stages that have not been run are described too.
        """
        declared = self.tables.get(table) or DECLARED.get(table)
        if declared is None:
            raise QueryError(f"unknown table {table!r}{nearest(table, [*self.tables, *self.missing, *FUNCTIONS])}")
        columns = columns_of(declared)
        return pa.table(
            {
                "column": [c.name for c in columns],
                "type": [c.dtype for c in columns],
                "unit": [c.unit for c in columns],
                "meaning": [c.doc for c in columns],
            }
        )

    @property
    def voxel_nm(self) -> NM3:
        """Voxel size (z, y, x) in nm, as recorded by the last stage that was run."""
        rows = self.fetch("SELECT DISTINCT voxel_z_nm z, voxel_y_nm y, voxel_x_nm x FROM stage_record")
        if len(rows) != 1:
            what = "no stage has been run" if not rows else "stages were run with different voxel sizes"
            raise QueryError(f"the voxel size is not known: {what}; run `dvc repro`")
        return float(rows[0]["z"]), float(rows[0]["y"]), float(rows[0]["x"])

    def close(self) -> None:
        """Close the connection."""
        for other in self._held:
            other.close()
        self._con.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _fetch(
        self,
        text: str,
        params: Mapping[str, Any] | None,
        timeout_s: float,
        *,
        check: bool,
        beside: Mapping[str, pa.Table] | None = None,
        take: Callable[[duckdb.DuckDBPyConnection, str, dict[str, Any] | None], T],
    ) -> T:
        with self._con.cursor() as con:
            if check:
                guard.check(con, text)
            watch: limits.Watch | None = None
            try:
                for name, table in (beside or {}).items():
                    con.register(name, table)
                with limits.watched(con, timeout_s) as watch:
                    con.execute("BEGIN TRANSACTION READ ONLY")
                    return take(con, text, dict(params) if params else None)
            except (duckdb.Error, OSError) as e:  # OSError: what Arrow makes of DuckDB's, after the first rows came
                shown = [*(other.tables for other in self.also.values()), self.tables]
                columns = {n: [c.name for c in columns_of(t)] for tables in shown for n, t in tables.items()}
                raise explain.explain(
                    e, text, columns, self.missing, timeout_s, stopped=watch.stopped if watch else None, at=self.at,
                    others={name: (other.at, other.missing) for name, other in self.also.items()},
                ) from None  # fmt: skip


def _arrow(con: duckdb.DuckDBPyConnection, text: str, params: dict[str, Any] | None) -> pa.Table:
    rows = limits.read(con.sql(text, params=params))
    names = _distinct(rows.column_names)
    return rows if names == rows.column_names else rows.rename_columns(names)


def _dicts(con: duckdb.DuckDBPyConnection, text: str, params: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Few rows as dicts: without Arrow between, a query is bound once and not twice."""
    found = con.execute(text, params)
    names = _distinct([d[0] for d in found.description or []])
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _distinct(given: Sequence[str]) -> list[str]:
    """Columns that share a name (SELECT a.name, b.name) become name, name_1: as dicts, one would hide the other."""
    names: list[str] = []
    for name in given:
        free = (n for n in (name, *(f"{name}_{k}" for k in range(1, len(given)))) if n not in names)
        names.append(next(free))
    return names


def columns_of(table: Table) -> tuple[Column, ...]:
    """All columns of a view: those of a stage's table have `unit` in front."""
    return (_UNIT_COLUMN, *table.columns) if table.name in SCIENCE else table.columns


def open_database(
    project: Path,
    *,
    at: str | None = None,
    also: Mapping[str, Other] | None = None,
    memory_limit: str = "4GB",
    temp_limit: str = "20GB",
    in_memory_rows: int = 0,
    threads: int = 2,
    timeout_s: float = 600.0,
) -> Database:
    """Open the project at `project` for queries.

    `also` adds the tables of other folders, each under a name of its own: {"old": Other(root, "v1")} makes
    `old.connection`. `at` is what messages call the revision that lies at `project`. Only the Parquet files found now
    are readable; open it again after a stage was run. Tables of lineage with up to `in_memory_rows` rows are held.
    Raises QueryError when there is no project, a file of it cannot be read, or a name of `also` cannot be one.
    """
    root = project.resolve()
    if not root.is_dir():
        raise QueryError(f"{project}: no such folder; give the folder of a project, as made by `connectome init`")
    for folder in (root, *(other.root for other in (also or {}).values())):
        if any(c in str(folder) for c in "*?["):
            raise QueryError(f"{folder}: folders with *, ? or [ in their names cannot be queried; rename or move it")
    con = duckdb.connect(
        ":memory:",
        config={
            "memory_limit": memory_limit,
            "threads": threads,
            "temp_directory": str(_spill(root)),
            # A join with few units skips the row groups that hold none of them; DuckDB does so for 50 by default.
            "dynamic_or_filter_threshold": 5000,
            "max_temp_directory_size": temp_limit,
            "allow_persistent_secrets": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "python_enable_replacements": False,
        },
    )
    others: dict[str, Other] = {}
    try:
        con.execute("SET parquet_metadata_cache = true")
        tables, files = _create_views(con, root, "main")
        for name, other in (also or {}).items():
            _create_schema(con, name)
            shown, found = _create_views(con, other.root, name)
            others[name] = Other(other.root, other.at, shown, _missing(other.root, shown))
            files += found
        con.execute("SET schema = 'main'")
        if in_memory_rows:
            held.hold(con, tables, most_rows=in_memory_rows)
        con.execute(f"SET allowed_paths = [{', '.join(views.quoted(str(f)) for f in files)}]")
        con.execute("SET enable_external_access = false")
        con.execute("SET lock_configuration = true")
    except duckdb.Error as e:
        con.close()
        raise QueryError(f"{root}: a table of the project cannot be read: {e}") from None
    missing = _missing(root, tables)
    return Database(root, timeout_s, tables, missing, at, others, _con=con, held_rows=in_memory_rows)


def _spill(root: Path) -> Path:
    """Where queries that need more than the memory put the rest: DuckDB makes the folder, but none above it."""
    kept = root / ".connectome"
    return kept / "tmp" if kept.is_dir() else Path(tempfile.gettempdir()) / f"connectome-{os.getpid()}"


def _missing(root: Path, tables: Mapping[str, Table]) -> dict[str, str]:
    made = views.outputs_in(root)
    return {t.name: stage for stage, made_by in made.items() for t in made_by if t.name not in tables}


def _create_schema(con: duckdb.DuckDBPyConnection, name: str) -> None:
    """Make a schema for another revision, and the one in which views are created from here on."""
    taken = {s for (s,) in con.execute(_TAKEN).fetchall()} | SCIENCE | {t.name for t in (*PROVENANCE, *VIEWS)}
    if not _NAME.fullmatch(name) or name in taken:
        raise QueryError(f"{name!r} cannot name a revision in SQL: wanted a plain word, such as old, new or v1")
    con.execute(f"CREATE SCHEMA {views.quote(name)}")
    con.execute(f"SET schema = {views.quoted(name)}")


def _create_views(con: duckdb.DuckDBPyConnection, root: Path, schema: str) -> tuple[dict[str, Table], list[Path]]:
    """Create all views in `schema`, the current one; returns them by name, and the files they read."""
    data, provenance = root / "data", root / "provenance"
    files: list[Path] = []
    tables: dict[str, Table] = {}
    outputs = views.outputs_in(root)
    for stage, declared in outputs.items():
        for table in declared:
            path = data / stage / f"{table.name}.parquet"
            if path.is_file():
                files.append(path)
                tables[table.name] = _science(con, table, path)
                files += _orders(con, tables, table, path)
    if "listed_synapse" in tables:
        _imported(con, tables, data)

    def gathered(table: Table, folder: Path, file: str, name: str, special: Mapping[str, str] | None = None) -> None:
        found = {stage: path for stage in outputs if (path := folder / stage / file).is_file()}
        files.extend(found.values())
        shown = Table(name=name, doc=table.doc, key=table.key, columns=table.columns)
        if select := views.union(shown, found, special):
            _view(con, shown, select)
        else:
            _table(con, shown, ())

    gathered(UNIT, data, "units.parquet", "unit")
    gathered(UNIT_READ, data, "reads.parquet", "unit_read")
    gathered(PART, data, "parts.parquet", "part", {"output": views.OUTPUT_NAME})
    _view(con, UNIT_EDGE, views.UNIT_EDGE)
    kinds = dict(con.sql("SELECT stage, any_value(kind) FROM unit GROUP BY stage").fetchall())
    json_views = views.facts(root, kinds.get)
    for table in PROVENANCE:
        if table.name in json_views:
            _table(con, table, json_views[table.name])
    original = tuple(c for c in EXECUTION.columns if c.name != "user")
    executed = Table(name="executed", doc=EXECUTION.doc, key=EXECUTION.key, columns=original)
    gathered(executed, provenance, "executions.parquet", "executed")
    _view(con, EXECUTION, views.EXECUTION)
    tables.update({t.name: t for t in PROVENANCE})
    _create_quality(con, tables, schema)
    indexed.create(con, tables, root, schema)
    return tables, files


def _create_quality(con: duckdb.DuckDBPyConnection, tables: dict[str, Table], schema: str) -> None:
    """Create the views and functions of quality, and add the views to `tables`; without their tables they are empty."""
    constant = quality.constant_rows()
    there = {n for n in tables if n not in {t.name for t in VIEWS}}
    selects = quality.selects(there, schema)
    for table in VIEWS:
        if table.name in selects:
            _view(con, table, selects[table.name])
        else:
            _table(con, table, constant.get(table.name, ()))
        tables[table.name] = table
    for statement in quality.macros(there, schema):
        con.execute(statement)


def _science(con: duckdb.DuckDBPyConnection, table: Table, path: Path) -> Table:
    """Create the view of a stage's table; returns the table as it is shown."""
    rows = f"read_parquet({views.quoted(str(path))})"
    shown = table
    try:
        _view(con, shown, f"SELECT {', '.join(views.quote(c.name) for c in columns_of(shown))} FROM {rows}")
    except duckdb.BinderException:
        # Made by another version of the package: a column that it did not have is left out, not filled in.
        found = {name for name, *_ in con.execute(f"DESCRIBE FROM {rows}").fetchall()}
        kept = tuple(c for c in table.columns if c.name in found)
        shown = Table(name=table.name, doc=table.doc, key=table.key, columns=kept, foreign=table.foreign)
        _view(con, shown, f"SELECT {', '.join(views.quote(c.name) for c in columns_of(shown))} FROM {rows}")
    return shown


def _orders(con: duckdb.DuckDBPyConnection, tables: dict[str, Table], table: Table, path: Path) -> list[Path]:
    """Create the views of a table in other orders; where a file of one is not there, the table itself is shown."""
    files = []
    for companion, shown in sorted_tables(table):
        file = path.with_name(f"{table.name}.{companion.name}.parquet")
        if file.is_file():
            files.append(file)
        tables[shown.name] = _science(con, shown, file if file.is_file() else path)
    return files


def _imported(con: duckdb.DuckDBPyConnection, tables: dict[str, Table], data: Path) -> None:
    """Create `synapse` and `link` of an imported connectome, and `link` in its two orders."""
    record = data / "graph" / "record.json"
    params = views.read_json(record)["params"] if record.is_file() else {}
    least = int(params.get("min_synapses", 1))
    named = {c.name for c in tables["listed_synapse"].columns}
    if (least > 1 and "connection" not in tables) or not {"pre", "post", "z_vx", "confidence"} <= named:
        return  # not there yet, or made by a version of the package whose lists had names alone
    selects = views.imported_views(least)
    for table in IMPORTED_VIEWS:
        _view(con, table, selects[table.name])
        tables[table.name] = table
    for companion, shown in sorted_tables(IMPORTED_LINK):
        _view(con, shown, selects["link"].replace("listed_synapse", f"listed_synapse_{companion.name}"))
        tables[shown.name] = shown


def _view(con: duckdb.DuckDBPyConnection, table: Table, select: str) -> None:
    told = views.comments(table, columns_of(table), "VIEW")
    con.execute(f"CREATE VIEW {views.quote(table.name)} AS {select}; {told}")


def _table(con: duckdb.DuckDBPyConnection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Not by way of Arrow: it imports pandas for what comes as Python values, which takes as long as all the rest."""
    con.execute(f"{views.create(table)}; {views.comments(table, columns_of(table), 'TABLE')}")
    if rows:
        places = ", ".join("?" for _ in table.columns)
        values = [[r.get(c.name) for c in table.columns] for r in rows]
        con.executemany(f"INSERT INTO {views.quote(table.name)} VALUES ({places})", values)
