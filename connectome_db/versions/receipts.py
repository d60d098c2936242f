"""Receipts and revisions: make one, and run it again now, at another revision, and at its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from connectome_db.errors import QueryError, RevisionError, nearest
from connectome_db.query import named
from connectome_db.query.receipts import receipt, verdict
from connectome_db.query.receipts.content import Content
from connectome_db.query.receipts.normal import MAIN, normal_form
from connectome_db.query.receipts.receipt import Question, Receipt, RevisionFacts
from connectome_db.query.receipts.verdict import Verdict
from connectome_db.revisions import Revision, checked_out, open_revision, tags_of
from connectome_db.versions import asof


def ask_sql(
    project: Path, sql: str, revisions: Mapping[str, Revision], values: Mapping[str, Any] | None = None
) -> tuple[pa.Table, Receipt]:
    """Rows of an SQL query with `values` bound to its `$name` parameters, and their receipt."""
    return _run(project, Question(sql, dict(values or {})), revisions)


def ask_named(
    project: Path, name: str, arguments: Mapping[str, str], revisions: Mapping[str, Revision]
) -> tuple[pa.Table, Receipt]:
    """Rows of a named query of `project`, and their receipt."""
    return _run(project, _named(project, name, arguments, revisions), revisions)


def _named(project: Path, name: str, arguments: Mapping[str, str], revisions: Mapping[str, Revision]) -> Question:
    with asof.open_tables(revisions) as db:
        return receipt.named_question(project, name, arguments, db)


def _run(project: Path, question: Question, revisions: Mapping[str, Revision]) -> tuple[pa.Table, Receipt]:
    with asof.open_tables(revisions, threads=1) as db:
        answer = receipt.ask(db, question)
    about = {
        schema: _facts(project, revision, [t for t in answer.tables if t.schema == schema])
        for schema, revision in revisions.items()
    }
    return answer.rows, receipt.make(answer, asof.dataset_name(revisions[MAIN]), about)


def _facts(project: Path, revision: Revision, tables: Iterable[Content]) -> RevisionFacts:
    if revision.commit is not None:
        tags = tags_of(project, revision.commit)
        return RevisionFacts(asked=revision.name, commit=revision.commit, tags=tags, in_commit=True)
    commit, dirty = checked_out(project)
    return RevisionFacts(
        asked=revision.name,
        commit=commit,
        tags=tags_of(project, commit) if commit else (),
        dirty=dirty,
        in_commit=_in_commit(revision, commit, {t.stage for t in tables if t.stage}) if commit else None,
    )


def _in_commit(tree: Revision, commit: str, stages: Iterable[str]) -> bool | None:
    """Whether what the stages made here is what they made at the commit; None when that cannot be read.

    Records say what went into a stage and what came, so equal records are equal data.
    """
    try:
        there = open_revision(tree.project, commit)
        return all(stage in there.stages and tree.record(stage) == there.record(stage) for stage in stages)
    except RevisionError:
        return None


def verify(project: Path, then: Receipt, asked: Mapping[str, str] | None = None) -> Verdict:
    """Ask again what a receipt asked, and say whether the answer is the same, and why not.

    `asked` gives revisions by schema as `asof.parse` does; without, `main` is the working tree, and further revisions
    are those of the receipt by name. A named query is taken from the project as it is now. When the answer differs and
    git and DVC still have the receipt's revision, the receipt's own query is run there too.
    """
    chosen = dict(asked or {})
    for name in chosen.keys() - then.revisions.keys():
        raise QueryError(f"the receipt reads no revision called {name!r}{nearest(name, then.revisions)}")
    for name, facts in then.revisions.items():
        if name != MAIN:
            chosen.setdefault(name, facts.asked)
    revisions = asof.open_revisions(project, chosen)
    question, edited = _question_now(project, then, revisions)
    found, now = _judge(project, then, question, revisions)
    if found.result == "same":
        return replace(found, notes=(*found.notes, *([edited] if edited else [])))
    if edited:
        again, now = _judge(project, then, receipt.asked_again(then.query), revisions)
        still = "still the same" if again.result == "same" else "not the same either"
        note = f"with the receipt's own SQL the answer is {still}"
        found = replace(found, reasons=(edited, *found.reasons), notes=(*found.notes, note))
    if now is not None and now.tables == then.tables:
        return found  # it would be the same again at the receipt's revision
    return replace(found, notes=(*found.notes, *_at_its_revision(project, then, revisions)))


def _judge(
    project: Path, then: Receipt, question: Question, revisions: Mapping[str, Revision]
) -> tuple[Verdict, Receipt | None]:
    """The verdict and the receipt of asking now; none when the query fails."""
    try:
        _, now = _run(project, question, revisions)
    except QueryError as e:
        return Verdict("different", (f"the query fails: {e}",)), None
    return verdict.compare(then, now), now


def _question_now(project: Path, then: Receipt, revisions: Mapping[str, Revision]) -> tuple[Question, str | None]:
    """What the receipt's words ask today, and what was changed of a named query since (None: nothing)."""
    own, asked = receipt.asked_again(then.query), then.query
    if asked.name is None:
        return own, None
    try:
        if asked.name not in named.list_queries(project):
            return own, f"the query {asked.name} is gone ({asked.file}); the receipt's own SQL was run"
        today = _named(project, asked.name, asked.arguments, revisions)
    except QueryError as e:
        return own, f"the query {asked.name} has changed: {e}; the receipt's own SQL was run"
    if today.file_sha256 == asked.file_sha256:
        return today, None
    same = normal_form(today.sql).tree == normal_form(own.sql).tree and today.values == own.values
    what = "comments and white space alone" if same else "it asks something else now"
    return today, f"the query {asked.name} ({today.file}) has changed: {what}"


def _at_its_revision(project: Path, then: Receipt, tried: Mapping[str, Revision]) -> Sequence[str]:
    """What the answer is at the commits of the receipt, as lines to tell."""
    read = {t.of for t in then.tables} | {MAIN}
    for name in read:
        if then.revisions[name].commit is None:
            return ["the receipt names no commit, so it cannot be asked again where it was made"]
        if then.revisions[name].in_commit is False:
            return ["the receipt was made of data that no commit held: what it read is known by digest alone"]
    commits = {name: str(facts.commit) for name, facts in then.revisions.items() if facts.commit}
    if all(tried[name].commit == commit for name, commit in commits.items()):
        return []
    where = _called(then.revisions[MAIN])
    try:
        revisions = asof.open_revisions(project, commits)
        found, _ = _judge(project, then, receipt.asked_again(then.query), revisions)
    except RevisionError as e:
        return [f"the receipt's revision ({where}) cannot be read: {e}"]
    if found.result == "same":
        return [f"at the receipt's revision ({where}) the answer is still the same"]
    return [f"at the receipt's revision ({where}) the answer is not the same either", *found.reasons]


def _called(facts: RevisionFacts) -> str:
    return ", ".join([f"commit {str(facts.commit)[:10]}", *(f"tag {t}" for t in facts.tags)])
