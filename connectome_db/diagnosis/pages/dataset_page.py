"""The page of a dataset's quality: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from connectome_db import revisions
from connectome_db.config import Project
from connectome_db.diagnosis.pages.flag_list import expectations_section, flags_section, in_short
from connectome_db.diagnosis.pages.html_tags import Markup, box_um, document, join, section, table, tag
from connectome_db.diagnosis.pages.layer_list import maps_section, status_of, status_section
from connectome_db.diagnosis.pages.measured import LEVEL_NAMES, SEVERITIES, Quality
from connectome_db.diagnosis.pages.shares import Shares, shares
from connectome_db.diagnosis.pages.trend import trend_section
from connectome_db.diagnosis.pages.worst_places import worst_section
from connectome_db.errors import ConnectomeError
from connectome_db.viewing import viewer
from connectome_db.viewing.volumeserver import HOST

MOST_DIGESTS = 3
"""Digests of parameters that are listed per stage."""


def quality_page(project: Project, quality: Quality, counted: Shares | None = None) -> str:
    """The page of one revision's quality, as HTML. `counted` saves counting the shares twice.

    Raises QueryError for tables that cannot be read.
    """
    counted = counted or shares(quality)
    name = project.dataset.name
    parts = [
        tag("h1", f"Quality of {name}"),
        tag("p", headline(quality), class_="lead"),
        tag("p", _what(quality), class_="muted small"),
        status_section(quality, counted),
        flags_section(quality, _linker(project, quality)),
        maps_section(quality),
        worst_section(quality),
        expectations_section(quality),
        trend_section(project.root, quality),
    ]
    links = [("layers", "Layers"), ("flags", "Flags"), ("maps", "Maps"), ("worst", "Worst places"),
             ("tables", "Tables"), ("trend", "Versions"), ("provenance", "Provenance")]  # fmt: skip
    return document(f"Quality of {name}", join(parts), links, provenance(quality))


def headline(quality: Quality) -> str:
    """The state of the data in one or two sentences."""
    measured = [level for level in LEVEL_NAMES if quality.of_level(level)]
    if not measured:
        return "Nothing was measured, so nothing can be said about the quality of these data."
    missing = [level for level in LEVEL_NAMES if level not in measured]
    gap = f" Not measured: {', '.join(missing)}." if missing else ""
    if quality.flags is None:
        return f"Quality was measured, but not searched for regions that differ: stage flag has no data.{gap}"
    alarming = [f for f in quality.flags if f.alarming]
    if not alarming:
        return f"No region was found whose quality is worse than elsewhere beyond chance and normal variation.{gap}"
    counts = {w: sum(f.severity == w for f in alarming) for w in SEVERITIES[:2]}
    told = " and ".join(f"{n} flagged as {w}" for w, n in counts.items() if n)
    layers = ", ".join(level for level in LEVEL_NAMES if status_of(quality, level) in SEVERITIES[:2])
    plural = "Regions differ" if len(alarming) > 1 else "A region differs"
    return f"{plural} from the rest: {told}, in {layers}. The strongest: {in_short(alarming[0])}.{gap}"


def _what(quality: Quality) -> str:
    box = f"; measured: {box_um(quality.hull_nm)}" if quality.hull_nm else ""
    return f"Revision: {quality.revision.name}{box}"


def _linker(project: Project, quality: Quality) -> Callable[[tuple[int, int, int]], str] | None:
    """Addresses of views in Neuroglancer, which read the volumes from `connectome view` on this machine."""
    if "render" not in quality.records:
        return None
    rev = quality.revision.name if quality.revision.commit else None
    base = f"http://{HOST}:{viewer.PORT}"

    def link(at: tuple[int, int, int]) -> str:
        return viewer.open_view(project, rev, at=at).link(base, served=False)

    return link


def provenance(quality: Quality) -> Markup:
    """What made the data: commit, models, digests of parameters and code."""
    revision = quality.revision
    commit, changed = revisions.checked_out(revision.project)
    if revision.commit is not None:
        said = f"Commit {revision.commit}"
    else:
        state = ", with changes that are not committed" if changed else ""
        said = f"Working tree at commit {commit}{state}" if commit else "Working tree; no git commit"
    rows = [
        tag("tr", tag("td", tag("code", stage)), tag("td", f"{int(r.get('units', 0)):,}", class_="number"),
            tag("td", tag("code", r.get("model_id") or "")), tag("td", _digests(quality, stage)),
            tag("td", tag("code", str(r.get("code_digest", ""))[:12])))
        for stage, r in sorted(quality.records.items())
    ]  # fmt: skip
    head = ["Stage", tag("th", "Units", scope="col", class_="number"), "Model", "Parameters", "Code"]
    made = f"{said}. Page made by connectome_db {package_version()}."
    return section(
        "provenance", "Provenance", tag("p", made),
        table(head, rows, "Digests are shortened; `connectome sql` on the view unit has them in full"),
    )  # fmt: skip


def package_version() -> str:
    """The version of this package."""
    try:
        return version("connectome-db")
    except PackageNotFoundError:
        return "of unknown version"


def _digests(quality: Quality, stage: str) -> Markup:
    """The digests of the parameters of a stage's units, the commonest first: regions may have their own."""
    path = quality.revision.root / "data" / stage / "units.parquet"
    try:
        column = pq.read_table(path, columns=["params_digest"])["params_digest"]
    except (OSError, ConnectomeError, ValueError, KeyError):
        return tag("span", "not recorded", class_="muted")
    known, count = np.unique(np.asarray(column.to_pylist(), dtype=str), return_counts=True)
    order = np.argsort(-count, kind="stable")
    told = [tag("code", str(known[k])[:12]) for k in order[:MOST_DIGESTS]]
    more = f" and {len(known) - MOST_DIGESTS} more" if len(known) > MOST_DIGESTS else ""
    return join([*(join([t, " "]) for t in told), more])


def default_paths(root: Path) -> tuple[Path, Path]:
    """(page, release note) of a project."""
    return root / "qa" / "report.html", root / "qa" / "release-note.md"
