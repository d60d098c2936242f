"""A diagnosis as a page: the verdict, the difference, the walk from the graph to the raw tiles, maps, what to do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from connectome_db.diagnosis.pages import charts, grids, heatmaps
from connectome_db.diagnosis.pages.dataset_page import provenance
from connectome_db.diagnosis.pages.html_tags import (  # fmt: skip
    Markup,
    box_um,
    command,
    document,
    join,
    number,
    percent,
    section,
    table,
    tag,
    text_of,
)
from connectome_db.diagnosis.pages.measured import LEVEL_NAMES, LEVELS_DOWN, Quality, read
from connectome_db.diagnosis.pages.trend import words
from connectome_db.regional.neuroglancer import SixNm
from connectome_db.revisions import Revision
from connectome_db.schema.quality import LEVELS, METRICS

Plain = Mapping[str, Any]
_LINKS = (
    ("difference", "Difference"), ("walk", "Walk"), ("maps", "Maps"), ("facts", "Records"), ("proposals", "Proposals"),
    ("metrics", "All metrics"), ("provenance", "Provenance"),
)  # fmt: skip


def diagnosis_page(diagnosis: Plain, root: Path, revision: Revision) -> str:
    """The page of a diagnosis, in the form that `connectome diagnose --json` writes, as HTML that needs nothing else.

    `root` holds the tables of `revision`, from which the maps are drawn; metrics without cells there have no map.
    Raises QueryError for tables that cannot be read.
    """
    quality = read(replace(revision, root=root))
    steps = decisive(diagnosis)
    title = f"Diagnosis of {diagnosis['project']}: {place(diagnosis)}"
    parts = [
        tag("h1", title),
        tag("p", verdict(diagnosis), class_=f"lead verdict {str(diagnosis['verdict']).split()[0]}", id="verdict"),
        _difference(diagnosis),
        _walk(diagnosis, steps),
        _maps(diagnosis, steps, quality),
        _facts(diagnosis),
        _proposals(diagnosis),
        _metrics(diagnosis),
    ]
    return document(title, join(parts), _LINKS, provenance(quality))


def place(diagnosis: Plain) -> str:
    """The region's name, or its box."""
    region = diagnosis["region"]
    return str(region.get("name") or box_um(region["box_nm"]))


def verdict(diagnosis: Plain) -> str:
    """The outcome in one sentence."""
    if said := diagnosis.get("says"):
        return str(said)
    cause = diagnosis.get("cause")
    where = place(diagnosis)
    match diagnosis["verdict"]:
        case "artefact" if cause:
            sure = f", confidence {percent(cause['confidence'])}" if cause.get("confidence") is not None else ""
            return f"Artefact in {where}: {cause['name']}{sure}. {cause.get('says', '')}".strip()
        case "artefact":
            return f"Artefact in {where}, of a cause that was not named."
        case "biology":
            return f"No artefact found: the difference in {where} is consistent with biology."
    return f"No difference in {where} beyond chance."


def cause_level(diagnosis: Plain) -> str | None:
    """The layer in which the gradient enters; None without a cause."""
    layer = (diagnosis.get("cause") or {}).get("layer")
    return None if layer is None else LEVELS.get(str(layer), str(layer))


def decisive(diagnosis: Plain) -> dict[str, Plain]:
    """Per layer, L5 first, the step that tells most: the cause, what was asked about, what differs, what is largest."""
    named = [(diagnosis.get("cause") or {}).get("metric"), diagnosis.get("metric")]

    def rank(step: Plain) -> tuple[bool, bool, bool, bool, float]:
        metric, effect = step["metric"], step.get("effect")
        size = abs(effect) if effect is not None and math.isfinite(effect) else 0.0
        return metric == named[0], metric == named[1], step["differs"] and step["worse"], step["differs"], size

    found = {}
    for level in LEVELS_DOWN:
        if mine := [s for s in diagnosis["walk"] if s["level"] == level]:
            found[level] = max(mine, key=rank)
    return found


def _difference(diagnosis: Plain) -> Markup:
    d = diagnosis.get("difference")
    if d is None:
        return section("difference", "The difference", tag("p", "No difference of the wiring could be measured."))
    parts: list[Markup] = []
    relative, ends = d.get("relative"), d.get("ci95")
    if relative is not None:
        known = [relative, *(ends or ())]
        title = f"{words(d['metric'])}: {percent(relative)}" + (
            f", 95 % interval {percent(ends[0])} to {percent(ends[1])}" if ends else ""
        )
        ticks = [(v, percent(v)) for v in known] + [(0.0, "0")]
        axis = charts.span(known)
        plot = charts.whisker(
            relative, ends, axis, title, bad=bool(d.get("real")), ticks=_apart(ticks, axis), width=460.0
        )
        parts.append(tag("figure", plot, tag("figcaption", f"{title}, against {_reference(diagnosis)}.")))
    parts.append(tag("p", d.get("says", "")))
    edge = "; places near the border are compared with such" if d.get("edge_corrected") else ""
    parts.append(
        tag("p", f"Region: {text_of(d['region'], d['measure'])} (n = {d['n_region']:,}). "
            f"Reference: {text_of(d['reference'], d['measure'])} (n = {d['n_reference']:,}). p = {d['p_value']:.2g}"
            f"{edge}.", class_="small")
    )  # fmt: skip
    explained = diagnosis.get("explained")
    if explained:
        parts.append(tag("p", explained.get("says", "")))
    return section("difference", "The difference", *parts)


def _apart(ticks: Sequence[tuple[float, str]], axis: tuple[float, float]) -> list[tuple[float, str]]:
    """Ticks without those that would be written over another; the first stays."""
    kept: list[tuple[float, str]] = []
    for place_, text in ticks:
        if all(abs(place_ - p) > 0.17 * (axis[1] - axis[0]) for p, _ in kept):
            kept.append((place_, text))
    return kept


def _reference(diagnosis: Plain) -> str:
    found = diagnosis["reference"]
    name = found.get("name")
    if name == "rest":
        return "the rest of the volume"
    return str(name or box_um(found["box_nm"]))


def _walk(diagnosis: Plain, steps: Mapping[str, Plain]) -> Markup:
    enters = cause_level(diagnosis)
    axis = _axis(list(steps.values()))
    cards = [_link(level, steps.get(level), enters, axis) for level in LEVELS_DOWN]
    if enters:
        cause = diagnosis["cause"]
        said = f"The gradient enters in {enters}, {LEVEL_NAMES.get(enters, enters).lower()}: {cause.get('says', '')}"
    else:
        said = "No layer is named as the cause."
    about = (
        "From the graph back to what it was made of. Per layer the metric that tells most; effects are in normal "
        "spreads between places."
    )
    return section("walk", "The walk from L5 to L1", tag("p", said), tag("p", about, class_="muted small"),
                   tag("ol", *cards, class_="chain"))  # fmt: skip


def _link(level: str, step: Plain | None, enters: str | None, axis: tuple[float, float]) -> Markup:
    """One layer of the chain."""
    mark = tag("span", "The gradient enters here", class_="enters") if level == enters else ""
    head = tag("h3", f"{level} {LEVEL_NAMES[level]}")
    if step is None:
        return tag("li", mark, head, tag("p", "not measured", class_="muted"), class_="cause" if mark else None,
                   data_level=level)  # fmt: skip
    kind = " ".join(c for c, on in (("cause", bool(mark)), ("differs", step["differs"])) if on)
    return tag(
        "li", mark, head, tag("p", words(step["metric"])),
        charts.whisker(_effect(step), step.get("ci95"), axis, told(step), bad=step["differs"] and step["worse"],
                            width=180.0),
        tag("p", told(step), class_="small"), tag("p", _state(step), class_="small muted"),
        class_=kind or None, data_level=level,
    )  # fmt: skip


def _axis(steps: Sequence[Plain]) -> tuple[float, float]:
    """An axis that holds the effects of all steps and their intervals."""
    every = (v for s in steps for v in (s.get("effect"), *(s.get("ci95") or ())))
    return charts.span([float(v) for v in every if v is not None])


def _effect(step: Plain) -> float:
    effect = step.get("effect")
    return math.nan if effect is None else float(effect)


def told(step: Plain) -> str:
    """A step's effect with its interval, and the relative difference where there is one."""
    if step.get("effect") is None:
        return "no effect could be estimated"
    ends = step.get("ci95")
    interval = f" ({number(ends[0], 2)} to {number(ends[1], 2)})" if ends else ""
    relative = f"; {percent(step['relative'])}" if step.get("relative") is not None else ""
    return f"{number(step['effect'], 2)} spreads{interval}{relative}"


def _state(step: Plain) -> str:
    if not step["differs"]:
        return "as elsewhere"
    if step["metric"] in METRICS and METRICS[step["metric"]].worse == "either":
        return "differs; neither direction is worse in itself"
    return "differs, in the direction that costs quality" if step["worse"] else "differs, but not for the worse"


def _maps(diagnosis: Plain, steps: Mapping[str, Plain], quality: Quality) -> Markup:
    hull = quality.hull_nm
    if hull is None:
        return section("maps", "Maps", tag("p", "Nothing was measured of which a map could be drawn."))
    frames = [heatmaps.Outline(_six(diagnosis["region"]["box_nm"]), f"region: {place(diagnosis)}")]
    if (box := diagnosis["reference"].get("box_nm")) is not None:
        frames.append(heatmaps.Outline(_six(box), f"reference: {_reference(diagnosis)}", other=True))
    cards = [_map(level, step, quality, hull, frames) for level, step in steps.items()]
    about = (
        "The same metrics over the volume, averaged over sections. Full frame: the region. "
        + ("Dashed: the reference. " if len(frames) > 1 else "")
        + "Dark is the end that costs quality; every map has its own colours."
    )
    return section("maps", "Maps", tag("p", about), tag("div", *cards, class_="cards"))


def _map(level: str, step: Plain, quality: Quality, hull: SixNm, frames: Sequence[heatmaps.Outline]) -> Markup:
    name = words(step["metric"])
    head: list[Markup] = [tag("h3", f"{level} {name}")]
    if step["metric"] in METRICS:
        head.append(tag("p", METRICS[step["metric"]].doc, class_="muted small"))
    m = quality.metrics.get(step["metric"])
    if m is None:
        return tag("article", *head, tag("p", "No cells of this metric.", class_="muted"), class_="card")
    region, reference = (text_of(step[k], step["measure"]) for k in ("region", "reference"))
    numbers = f"Region {region}, reference {reference}."
    title = f"{name} in the plane. {numbers}"
    plane, along = grids.plane(m, hull), grids.profile(m, hull)
    if plane is not None:
        head.append(heatmaps.draw(plane, m.metric.worse, m.metric.measure, title, frames, heatmaps.usual_of(m)))
    if along is not None:
        head.append(charts.profile(along, f"{name} along z"))
    return tag("article", *head, tag("p", numbers, class_="small"), class_="card", data_metric=step["metric"])


def _six(box: Sequence[float]) -> SixNm:
    z0, y0, x0, z1, y1, x1 = map(float, box)
    return z0, y0, x0, z1, y1, x1


def _facts(diagnosis: Plain) -> Markup:
    facts = diagnosis.get("facts") or ()
    if not facts:
        return section("facts", "What the records say", tag("p", "Made in the same way in the region as elsewhere."))
    rows = [
        tag("tr", tag("td", tag("code", f["stage"])), tag("td", f["fact"]), tag("td", f["region"], class_="wrap"),
            tag("td", f["reference"], class_="wrap"), tag("td", f["says"], class_="wrap"))
        for f in facts
    ]  # fmt: skip
    head = ["Stage", "What", "Region", "Elsewhere", "In words"]
    return section("facts", "What the records say", table(head, rows, "Provenance that is other in the region"))


def _proposals(diagnosis: Plain) -> Markup:
    cards = [
        tag("article", tag("h3", p["title"]), tag("p", p["why"]), *(command(c) for c in p["commands"]), class_="card",
            data_proposal=p["id"])
        for p in diagnosis.get("proposals") or ()
    ]  # fmt: skip
    others = diagnosis.get("others") or ()
    more: list[Markup] = []
    if others:
        lines = [tag("li", f"{o['region'].get('name') or box_um(o['region']['box_nm'])}: {o['says']}") for o in others]
        more = [tag("h3", "Other regions with an artefact"), tag("ul", *lines)]
    body = tag("div", *cards, class_="proposals") if cards else tag("p", "Nothing is proposed.")
    return section("proposals", "What to do", body, *more)


def _metrics(diagnosis: Plain) -> Markup:
    steps = diagnosis["walk"]
    if not steps:
        return section("metrics", "All metrics", tag("p", "No metric could be compared."))
    axis = _axis(steps)
    rows = [
        tag("tr", tag("td", s["level"]), tag("td", words(s["metric"])),
            tag("td", text_of(s["region"], s["measure"]), class_="number"),
            tag("td", text_of(s["reference"], s["measure"]), class_="number"),
            tag("td", charts.whisker(_effect(s), s.get("ci95"), axis, told(s),
                                          bad=s["differs"] and s["worse"], width=180.0)),
            tag("td", told(s)), tag("td", f"{s['q_value']:.2g}", class_="number"), tag("td", _state(s)))
        for s in steps
    ]  # fmt: skip
    right = {"scope": "col", "class_": "number"}
    head = ["Layer", "Metric", tag("th", "Region", **right), tag("th", "Reference", **right), "Effect", "",
            tag("th", "q", **right), ""]  # fmt: skip
    return section("metrics", "All metrics", table(head, rows, "Effects in normal spreads, with 95 % intervals"))
