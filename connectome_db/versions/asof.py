"""A project as of one or several git revisions: what `--rev` means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from connectome_db.errors import QueryError
from connectome_db.query.database import Database, Other, open_database
from connectome_db.query.receipts.normal import MAIN
from connectome_db.revisions import Revision, open_revision, tags_of


def parse(asked: Sequence[str]) -> dict[str, str]:
    """Words of `--rev` -> revision by schema: `v2` is for the tables themselves, `old=v1` makes `old.connection`.

    Raises QueryError when a name is given twice. What may be a name is checked where it becomes one.
    """
    found: dict[str, str] = {}
    for word in asked:
        name, equals, revision = word.partition("=")
        schema, revision = (name, revision) if equals else (MAIN, word)
        if not revision or not schema:
            raise QueryError(f"--rev {word!r}: wanted a revision, or name=revision for tables beside the others")
        if schema in found:
            which = f"{schema}=" if equals else "a revision without a name"
            raise QueryError(f"--rev: {which} is given twice; give further ones a name, as in --rev old={revision}")
        found[schema] = revision
    return found


def open_revisions(project: Path, asked: Mapping[str, str]) -> dict[str, Revision]:
    """Revisions by schema; `main` comes first and is the working tree unless asked for otherwise.

    Raises RevisionError when one is unknown, has no data, or is not in DVC's cache.
    """
    found = {MAIN: open_revision(project, asked.get(MAIN))}
    return found | {name: open_revision(project, revision) for name, revision in asked.items() if name != MAIN}


def open_tables(revisions: Mapping[str, Revision], *, threads: int = 2) -> Database:
    """The tables of `main`, and those of the others under their names."""
    main = revisions[MAIN]
    also = {name: Other(r.root, r.name) for name, r in revisions.items() if name != MAIN}
    return open_database(main.root, at=main.name if main.commit else None, also=also, threads=threads)


def told(revision: Revision) -> str:
    """Which revision it is: "v1: commit 0123456789 (tag v1)"."""
    if revision.commit is None:
        return revision.name
    tags = tags_of(revision.project, revision.commit)
    shown = f" (tag {', '.join(tags)})" if tags else ""
    return f"{revision.name}: commit {revision.commit[:10]}{shown}"


def dataset_name(revision: Revision) -> str:
    """The dataset's name in params.yaml of the revision; empty when it says none."""
    try:
        found = YAML(typ="safe", pure=True).load(revision.text("params.yaml") or "")
    except YAMLError:
        return ""
    return str(((found or {}).get("dataset") or {}).get("name") or "") if isinstance(found, dict | None) else ""
