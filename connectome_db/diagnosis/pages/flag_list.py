"""Flags as a page and as other commands see them: qa/flags.json, the table of flags, what to type about each."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from connectome_db.diagnosis.pages.html_tags import (  # fmt: skip
    Markup,
    box_um,
    command,
    esc,
    join,
    percent,
    section,
    severity,
    table,
    tag,
    text_of,
)
from connectome_db.diagnosis.pages.measured import SEVERITIES, Flag, Quality
from connectome_db.diagnosis.pages.trend import words
from connectome_db.regional.regions import FLAGS
from connectome_db.viewing import viewer

MOST_ROWS = 200
"""Flags that the page lists; qa/flags.json has them all."""


def write_flags(root: Path, flags: Sequence[Flag]) -> Path:
    """Write qa/flags.json, from which `connectome regions add NAME --from-flag` takes its boxes. Returns its path."""
    rows = [{"flag": f.name, "box_nm": list(f.box_nm), "severity": f.severity, "evidence": f.evidence} for f in flags]
    return write_text(root / FLAGS, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> Path:
    """Replace a file as a whole; its folder is made when it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        tmp.write_text(text, encoding="utf-8")
        tmp.replace(path)
    finally:
        tmp.unlink(missing_ok=True)
    return path


def region_name(flag: str) -> str:
    """A flag's name as the name of a region: letters, digits and hyphens."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", flag).strip("-_") or "flagged"


def commands(flag: Flag, quality: Quality) -> list[str]:
    """What to type about a flag: look there, name the region, ask what the cause is."""
    name = region_name(flag.name)
    found = []
    if (at := voxel_at(flag.box_nm, quality)) is not None:
        found.append(view_command(at, quality))
    if quality.revision.commit is None:
        found.append(f"connectome regions add {name} --from-flag {shlex.quote(flag.name)}")
    else:  # qa/flags.json is about the working tree
        box = ",".join(f"{v:.10g}" for v in flag.box_nm)
        found.append(f"connectome regions add {name} --box-nm={box}")
    return [*found, f"connectome diagnose --region {name}"]


def view_command(at: tuple[int, int, int], quality: Quality) -> str:
    """What to type to look at a voxel (z, y, x) of the revision."""
    rev = "" if quality.revision.commit is None else f" --rev {shlex.quote(quality.revision.name)}"
    return f"connectome view{rev} --at {at[0]},{at[1]},{at[2]}"


def voxel_at(box_nm: Sequence[float], quality: Quality) -> tuple[int, int, int] | None:
    """The voxel in the middle of a box, inside the image; None without an image."""
    if quality.voxel_nm is None:
        return None
    bounds = quality.records["render"]["bounds"]
    z, y, x = (
        min(max(int((box_nm[k] + box_nm[k + 3]) / 2 / s), bounds[k]), bounds[k + 3] - 1)
        for k, s in enumerate(quality.voxel_nm)
    )
    return z, y, x


def flags_section(quality: Quality, link: Callable[[tuple[int, int, int]], str] | None = None) -> Markup:
    """The table of flags. `link` gives the address of a view of a voxel."""
    if quality.flags is None:
        text = tag("p", "Not searched for: stage flag has no data. ", tag("code", "dvc repro flag"), " makes it.")
        return section("flags", "Flags", text)
    if not quality.flags:
        none = "None. No region differs from the rest by more than chance and normal variation allow."
        return section("flags", "Flags", tag("p", none))
    shown = quality.flags[:MOST_ROWS]
    head = ["Severity", "Flag and evidence", tag("th", "Inside", scope="col", class_="number"),
            tag("th", "Elsewhere", scope="col", class_="number"),
            tag("th", "Difference", scope="col", class_="number"), "Region", "What to do"]  # fmt: skip
    caption = f"{len(quality.flags)} flags, the worst first"
    if len(shown) < len(quality.flags):
        caption += f"; the first {len(shown)} are listed, {FLAGS} has all"
    options = [tag("option", word, value=word) for word in ("all", *SEVERITIES)]
    choose = tag(
        "p", tag("label", "Show ", tag("select", *options, class_="filter"), class_="js"), " ",
        tag("span", class_="shown muted small", aria_live="polite"),
    )  # fmt: skip
    return section("flags", "Flags", choose, table(head, (_row(f, quality, link) for f in shown), caption))


def _row(flag: Flag, quality: Quality, link: Callable[[tuple[int, int, int]], str] | None) -> Markup:
    better = [] if flag.worse else [tag("p", "Not in the direction that costs quality.", class_="small")]
    told = [
        tag("code", flag.name),
        tag("p", flag.evidence),
        *better,
        tag("p", f"{flag.level}, {flag.layer}; {flag.kind}; {abs(flag.spread):.2g} normal spreads; "
            f"q = {flag.q_value:.2g}", class_="muted small"),
    ]  # fmt: skip
    lines: list[Markup] = [command(c) for c in commands(flag, quality)]
    at = voxel_at(flag.box_nm, quality)
    if link is not None and at is not None:
        lines.append(neuroglancer_link(link(at)))
    return tag(
        "tr",
        tag("td", severity(flag.severity)),
        tag("td", *told, class_="wrap"),
        tag("td", text_of(flag.inside, flag.measure), class_="number"),
        tag("td", text_of(flag.outside, flag.measure), class_="number"),
        tag("td", difference(flag), class_="number"),
        tag("td", box_um(flag.box_nm)),
        tag("td", tag("details", tag("summary", "Commands"), *lines), class_="wrap"),
        data_severity=flag.severity,
    )


def difference(flag: Flag) -> str:
    """How much a region differs: as a percentage, or in the metric's measure where a percentage means nothing."""
    if flag.relative is None or flag.measure.startswith("log"):
        return text_of(flag.effect, flag.measure)
    return percent(flag.relative)


def in_short(flag: Flag) -> str:
    """A flag as part of a sentence: metric, layer, difference, place."""
    return f"{words(flag.metric)} ({flag.level}) {difference(flag)} against elsewhere, in {box_um(flag.box_nm)}"


def neuroglancer_link(address: str) -> Markup:
    """A link to a view of the project's own volumes in Neuroglancer, and what has to run for it."""
    link = tag("a", "Open in Neuroglancer", href=address, rel="noreferrer")
    return tag("p", link, f" while connectome view --port {viewer.PORT} runs here", class_="small")


def expectations_section(quality: Quality) -> Markup:
    """The checks of the tables, failures first."""
    rows = quality.expectations
    if rows is None:
        return section("tables", "Checks of the tables", tag("p", "No results are on record for this revision."))
    failed = sorted((r for r in rows if not r.success), key=lambda r: (_place(r.severity), r.table))
    said = f"{len(rows) - len(failed)} of {len(rows)} checks hold, over {len({r.table for r in rows})} tables."
    if not failed:
        return section("tables", "Checks of the tables", tag("p", said))
    lines = [
        tag("tr", tag("td", severity(r.severity)), tag("td", tag("code", r.table)),
            tag("td", r.says, *([tag("p", r.reason, class_="muted small")] if r.reason else []), class_="wrap"),
            tag("td", f"{r.unexpected:,}", class_="number"),
            tag("td", r.example, tag("p", r.place, class_="muted small"), class_="wrap"))
        for r in failed[:MOST_ROWS]
    ]  # fmt: skip
    head = ["Severity", "Table", "Expectation", tag("th", "Rows", scope="col", class_="number"), "For example"]
    return section("tables", "Checks of the tables", tag("p", said), table(head, lines, "Checks that do not hold"))


def _place(word: str) -> int:
    order = ("error", *SEVERITIES)
    return order.index(word) if word in order else len(order)


def evidence_list(flags: Sequence[Flag]) -> Markup:
    """The evidence of some flags as a list."""
    return tag("ul", *(tag("li", severity(f.severity), " ", esc(f.evidence)) for f in flags)) if flags else join([])
