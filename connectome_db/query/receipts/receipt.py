"""Receipts: what was asked of which tables, and what came, so that anybody can ask again and compare.

A receipt holds the query in normal form, the content digest of every table it read, the revision, and two digests of
the answer. It is data about data: nothing in it is a path of a machine, and its ids are text.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from connectome_db.environment import code_facts
from connectome_db.errors import QueryError
from connectome_db.provenance import digest
from connectome_db.query import named
from connectome_db.query.database import Database
from connectome_db.query.receipts import content
from connectome_db.query.receipts.answers import answer_digests, columns
from connectome_db.query.receipts.normal import MAIN, Normal, normal_form
from connectome_db.query.views import outputs_in, read_json
from connectome_db.spec import NM3

FORMAT = 1
"""Format version of receipts."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class AskedQuery(_Part):
    """What was asked."""

    name: str | None
    """The named query; None for SQL as typed."""
    arguments: dict[str, str]
    """Its arguments as typed."""
    file: str | None
    """Its file, relative to the project, or "(package)"."""
    file_sha256: str | None
    sql: str
    """The SQL as typed, or as the file had it."""
    normalised: str
    """The same as DuckDB writes it."""
    values: dict[str, Any]
    """What was bound to each `$name`: {type: value}, whole numbers as text."""
    digest: str
    """SHA-256 of the syntax tree and the values."""


class RevisionFacts(_Part):
    """Which version of the data was read."""

    asked: str
    commit: str | None
    """Commit that was read; for a working tree, the one that is checked out."""
    tags: tuple[str, ...] = ()
    dirty: bool = False
    """True: files that git tracks had changes that no commit holds."""
    in_commit: bool | None = None
    """True: the tables read are those of the commit; None: that could not be found out."""


class TableFacts(_Part):
    """What one table held; of views that gather all stages, what one stage had put there."""

    of: str
    """`main`, or the name given to another revision."""
    table: str
    stage: str
    digest: str
    volatile: bool
    """True: it differs from run to run, as times and hosts do."""


class StageFacts(_Part):
    """What decides a stage's output beside its inputs, as short digests; `raw` names inputs that no stage made."""

    code: str
    model: str
    parameters: str
    overrides: str
    raw: str


class Answered(_Part):
    """What came."""

    rows: int
    columns: tuple[tuple[str, str], ...]
    """(name, Arrow type)."""
    digest: str
    """SHA-256 of the rows in their order."""
    digest_any_order: str
    """SHA-256 of the rows sorted by all columns."""


class Versions(_Part):
    """What computed the answer."""

    connectome_db: str
    commit: str | None
    """Commit of the package, when it runs from a checkout."""
    duckdb: str


class Receipt(_Part):
    """A receipt; `check` is the digest of all the rest."""

    receipt: int
    created: str
    dataset: str
    voxel_nm: tuple[float, float, float] | None
    query: AskedQuery
    revisions: dict[str, RevisionFacts]
    """By schema: `main`, and the names given to others."""
    tables: tuple[TableFacts, ...]
    stages: dict[str, dict[str, StageFacts]]
    """By schema, then by stage: those that made the tables, and all that they read."""
    answer: Answered
    volatile_functions: tuple[str, ...]
    """Functions of the query that answer otherwise each time; none for an answer that can be had again."""
    versions: Versions
    check: str = ""

    def sealed(self) -> Receipt:
        """The same with its own digest in `check`."""
        return self.model_copy(update={"check": seal_of(self.model_dump(mode="json"))})


@dataclass(frozen=True)
class Question:
    """A query to be run: SQL with values to bind, and where it came from."""

    sql: str
    values: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    file: str | None = None
    file_sha256: str | None = None


@dataclass(frozen=True)
class Answer:
    """A query that was run, with everything about it that a receipt needs from the database."""

    question: Question
    normal: Normal
    rows: pa.Table
    tables: tuple[content.Content, ...]
    stages: Mapping[str, Mapping[str, StageFacts]]
    voxel_nm: NM3 | None


def named_question(project: Path, name: str, arguments: Mapping[str, str], db: Database) -> Question:
    """A named query of `project`, its arguments bound. Raises QueryError as `named.run_query` does."""
    query = named.find_query(name, project)
    return Question(
        sql=query.sql.strip(),
        values=named.bind(query, arguments, voxel_nm=lambda: db.voxel_nm),
        name=name,
        arguments=dict(arguments),
        file=f"queries/{query.path.name}" if query.own else "(package)",
        file_sha256=hashlib.sha256(query.path.read_bytes()).hexdigest(),
    )


def asked_again(asked: AskedQuery) -> Question:
    """The question of a receipt, word for word, with the values that were bound."""
    values = {name: _unpacked(value) for name, value in asked.values.items()}
    return Question(asked.sql, values, asked.name, asked.arguments, asked.file, asked.file_sha256)


def ask(db: Database, question: Question) -> Answer:
    """Run a query and say what the tables held that it read.

    Open the database with one thread: sums of floats depend on the order in which they are added. Raises QueryError as
    `Database.sql` does, when a table's rows are not those of its stage's record, and when one is replaced meanwhile.
    """
    normal = normal_form(question.sql)
    roots = {MAIN: db.project, **{name: other.root for name, other in db.also.items()}}
    read = {schema: {t for s, t in normal.tables if s == schema} for schema in roots}
    before = {schema: content.files(root, read[schema]) for schema, root in roots.items()}
    rows = db.sql(question.sql, question.values)
    tables = [c for schema, root in roots.items() for c in content.contents(root, schema, read[schema])]
    if before != {schema: content.files(root, read[schema]) for schema, root in roots.items()}:
        raise QueryError("a table was made anew while the query ran: run it again")
    ours = {MAIN: db.tables, **{name: other.tables for name, other in db.also.items()}}
    # DuckDB's own tables, such as information_schema.columns: nobody vouches for what they hold
    tables += [content.Content(s, t, "", "", volatile=True) for s, t in normal.tables if t not in ours.get(s, ())]
    stages = {schema: _stages(root, {c.stage for c in tables if c.schema == schema}) for schema, root in roots.items()}
    try:
        voxel_nm: NM3 | None = db.voxel_nm
    except QueryError:
        voxel_nm = None
    return Answer(question, normal, rows, tuple(sorted(tables)), stages, voxel_nm)


def _stages(root: Path, read: Collection[str]) -> dict[str, StageFacts]:
    """These stages and all that they read, directly or not, in the order of the pipeline."""
    paths = {stage: root / "data" / stage / "record.json" for stage in outputs_in(root)}
    records = {stage: read_json(path) for stage, path in paths.items() if path.is_file()}
    wanted = set(read)
    for stage in reversed(list(records)):
        if stage in wanted:
            wanted |= {name.partition(".")[0] for name in records[stage]["inputs"]}
    return {stage: _stage(record) for stage, record in records.items() if stage in wanted}


def _stage(record: Mapping[str, Any]) -> StageFacts:
    raw = {name: d for name, d in record["inputs"].items() if name.startswith("raw.")}
    return StageFacts(
        code=str(record["code_digest"])[:16],
        model=str(record.get("model_digest") or "")[:16],
        parameters=digest("parameters", record["params"])[:16],
        overrides=digest("overrides", record.get("overrides") or [])[:16],
        raw=digest("raw", raw)[:16] if raw else "",
    )


def make(answer: Answer, dataset: str, revisions: Mapping[str, RevisionFacts]) -> Receipt:
    """The receipt of an answer."""
    question, normal = answer.question, answer.normal
    values = {name: _packed(value) for name, value in sorted(question.values.items())}
    in_order, any_order = answer_digests(answer.rows)
    facts = code_facts()
    return Receipt(
        receipt=FORMAT,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        dataset=dataset,
        voxel_nm=answer.voxel_nm,
        query=AskedQuery(
            name=question.name,
            arguments=dict(question.arguments),
            file=question.file,
            file_sha256=question.file_sha256,
            sql=question.sql,
            normalised=normal.text,
            values=values,
            digest=digest("query", [normal.tree, values]),
        ),
        revisions=dict(revisions),
        tables=tuple(
            TableFacts(of=c.schema, table=c.table, stage=c.stage, digest=c.digest, volatile=c.volatile)
            for c in answer.tables
        ),
        stages={schema: dict(found) for schema, found in answer.stages.items() if found},
        answer=Answered(
            rows=answer.rows.num_rows,
            columns=tuple(columns(answer.rows)),
            digest=in_order,
            digest_any_order=any_order,
        ),
        volatile_functions=normal.volatile,
        versions=Versions(
            connectome_db=facts["version"],
            commit=facts["git"]["commit"] if facts["git"] else None,
            duckdb=duckdb.__version__,
        ),
    ).sealed()


def seal_of(document: Mapping[str, Any]) -> str:
    """The digest of a receipt without its `check`."""
    return digest("receipt", {k: v for k, v in document.items() if k != "check"})


def write(receipt: Receipt, path: Path, *, force: bool = False) -> None:
    """Write a receipt as JSON, whole or not at all. Raises QueryError when there is one and not `force`."""
    refuse_existing(path, force=force)
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new.open("w", encoding="utf-8") as f:
            f.write(json.dumps(receipt.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n")
            f.flush()
            os.fsync(f.fileno())
        new.replace(path)
    except OSError as e:
        new.unlink(missing_ok=True)
        raise QueryError(f"{path}: the receipt cannot be written: {e}") from e


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raise QueryError when `path` is there already."""
    if path.exists() and not force:
        raise QueryError(f"{path} is there already: choose another name, or give --force to write over it")


def read(path: Path) -> tuple[Receipt, bool]:
    """A receipt, and whether it is as it was written (False: it was edited).

    Raises QueryError for a file that is no receipt, or one of a later format.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise QueryError(f"{path}: cannot be read as a receipt: {e}") from e
    if not isinstance(document, dict) or "receipt" not in document:
        raise QueryError(f"{path} is no receipt; `connectome sql --receipt` writes them")
    if document["receipt"] != FORMAT:
        raise QueryError(f"{path}: a receipt of format {document['receipt']}; this program knows format {FORMAT}")
    try:
        found = Receipt.model_validate(document)
    except ValidationError as e:
        problem = e.errors()[0]
        where = ".".join(str(v) for v in problem["loc"])
        raise QueryError(f"{path}: {where}: {problem['msg']}: the receipt was edited or damaged") from None
    return found, found.check == seal_of(document)


def _packed(value: Any) -> dict[str, Any]:
    """A bound value as JSON that keeps every digit, and the type."""
    if isinstance(value, bool):
        return {"bool": value}
    if isinstance(value, int):
        return {"int": str(value)}
    if isinstance(value, float):
        return {"float": repr(value)}
    return {"list": [str(v) for v in value]} if isinstance(value, list) else {"text": str(value)}


def _unpacked(value: Mapping[str, Any]) -> Any:
    ((kind, told),) = value.items()
    if kind == "list":
        return [int(v) for v in told]
    known: dict[str, Callable[[Any], Any]] = {"bool": bool, "int": int, "float": float, "text": str}
    return known[kind](told)
