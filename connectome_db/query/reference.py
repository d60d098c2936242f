"""The reference page of the named queries, in Markdown: what each wants and gives. `docs/generate.py` writes it."""

from __future__ import annotations

from collections.abc import Iterable

from connectome_db.query.named import NamedQuery, list_queries, usage

_WORKS = {
    "all": "",
    "reconstructed": "In projects that were made from images.\n",
    "imported": "In projects that hold an imported connectome.\n",
}


def markdown() -> str:
    """All queries that come with the package, by name."""
    head = (
        "Run one with `connectome query NAME name=value ...`; `connectome query NAME --describe` prints what stands\n"
        "here. Values without a default must be given. How to add your own: [Named queries](../queries.md).\n"
    )
    return "\n".join([head, *(_query(q) for q in list_queries().values())])


def _query(q: NamedQuery) -> str:
    parts = [f"## {q.name}\n", f"{q.title}.\n"]
    if _WORKS[q.works]:
        parts.append(_WORKS[q.works])
    if q.needs:
        given = " ".join(f"--rev {name}=REVISION" for name in q.needs)
        parts.append(f"It compares revisions: give them with `{given}`.\n")
    if q.parameters:
        heads = ("parameter", "type", "unit", "default", "meaning")
        rows = [(f"`{p.name}`", p.type, p.unit, "" if p.default is None else f"`{p.default}`", p.doc)
                for p in q.parameters]  # fmt: skip
        parts.append(_table(heads, rows))
    parts.append(_table(("column", "meaning"), [(f"`{c}`", meaning) for c, meaning in q.columns.items()]))
    return "\n".join([*parts, f"Example: `{usage(q)}`\n"])


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    lines += [f"| {' | '.join(text.replace('|', chr(92) + '|') for text in row)} |" for row in rows]
    return "\n".join(lines) + "\n"
