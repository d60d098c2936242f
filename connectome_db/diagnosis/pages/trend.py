"""How quality went over the versions of a project: medians of every metric and flags of every layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from connectome_db.diagnosis.pages.charts import sparkline
from connectome_db.diagnosis.pages.html_tags import Markup, section, table, tag, text_of
from connectome_db.diagnosis.pages.measured import LEVEL_NAMES, MEASURES, SEVERITIES, Quality, read
from connectome_db.errors import RevisionError
from connectome_db.revisions import Revision, open_revision
from connectome_db.versions.identity import timeline

MOST = 8
"""Versions that are looked at, the latest."""


@dataclass(frozen=True)
class Version:
    """A version: its names (several where the measures are the same), medians by metric, flags by layer."""

    names: tuple[str, ...]
    medians: Mapping[str, float]
    flags: Mapping[str, Mapping[str, int]] | None


def versions(root: Path) -> tuple[list[Version], str]:
    """(The last versions that have measures, oldest first; why others were left out, or "").

    Neighbours whose measures and flags are the same, by the digests of their records, are told as one.
    """
    try:
        found, left_out = timeline.recent(root, MOST)
    except RevisionError as e:
        found, left_out = [], [str(e)]
    found = [r for r in found if r.commit is not None]
    now = open_revision(root)
    out: list[Version] = []
    last: dict[str, object] = {}
    for revision in [r for r in (*found, now) if set(MEASURES) & set(r.stages)]:
        made = {s: revision.record(s)["outputs"] for s in (*MEASURES, "flag") if s in revision.stages}
        if out and made == last:
            same = out.pop()
            out.append(Version((*same.names, _name(revision)), same.medians, same.flags))
        else:
            out.append(_version(read(revision), _name(revision)))
        last = made
    n = len(left_out)
    return out, f"{n} left out: {left_out[0]}" if n else ""


def _name(revision: Revision) -> str:
    return revision.name


def _version(quality: Quality, name: str) -> Version:
    medians = {k: m.quartiles[1] for k, m in quality.metrics.items()}
    if quality.flags is None:
        return Version((name,), medians, None)
    counts = {level: Counter(f.severity for f in quality.flags_of(level) if f.worse) for level in LEVEL_NAMES}
    return Version((name,), medians, counts)


def trend_section(root: Path, quality: Quality) -> Markup:
    """Tables over versions: flags by layer, then medians by metric."""
    found, note = versions(root)
    said = [tag("p", f"Versions are commits of this branch that changed data, the last {MOST}, and the working tree.",
                class_="muted small")]  # fmt: skip
    if note:
        said.append(tag("p", note, class_="muted small"))
    if len(found) < 2:
        one = "One version has" if found else "No version has"
        return section("trend", "Over versions", tag("p", f"{one} measures; a trend needs two."), *said)
    head = ["Layer", *(_column(v) for v in found)]
    flags = [
        tag("tr", tag("th", f"{level} {name}", scope="row"), *(tag("td", _counts(v, level)) for v in found))
        for level, name in LEVEL_NAMES.items()
    ]
    rows = []
    for name in quality.metrics:
        m = quality.metrics[name].metric
        values = [v.medians.get(name) for v in found]
        cells = (tag("td", "" if v is None else text_of(v, m.measure), class_="number") for v in values)
        rows.append(
            tag("tr", tag("th", f"{quality.metrics[name].level} {words(name)}", scope="row"),
                tag("td", sparkline(values, f"{words(name)} over versions")), *cells)
        )  # fmt: skip
    return section(
        "trend", "Over versions", *said, table(head, flags, "Flags in the direction that costs quality, by layer"),
        table(["Metric", "", *(_column(v) for v in found)], rows, "Medians over cells"),
    )  # fmt: skip


def _column(v: Version) -> Markup:
    names = ", ".join(v.names[:3]) + (" …" if len(v.names) > 3 else "")
    return tag("th", names, scope="col")


def _counts(v: Version, level: str) -> str:
    if v.flags is None:
        return "not searched"
    told = [f"{n} {word}" for word in SEVERITIES if (n := v.flags[level].get(word, 0))]
    return ", ".join(told) or "none"


def words(metric: str) -> str:
    """A metric's name as words."""
    return metric.replace("_", " ")
