"""A diagnosis as JSON and as text for a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from connectome_db.diagnosis.cells import KNOWN, BoxNm
from connectome_db.diagnosis.compare import Comparison
from connectome_db.diagnosis.diagnose import Diagnosis, Step

FORMAT = 1


def to_json(d: Diagnosis, project: str, commit: str | None) -> dict[str, Any]:
    """The diagnosis as plain values; boxes (z0, y0, x0, z1, y1, x1) in nm."""
    return {
        "format": FORMAT,
        "project": project,
        "commit": commit,
        "metric": d.difference.metric if d.difference else None,
        "region": {"name": d.region.name, "box_nm": _rounded(d.region.box_nm), "says": d.region.says},
        "reference": {
            "name": d.reference[0],
            "box_nm": _rounded(d.reference[1]) if d.reference[1] else None,
        },
        "bounds_nm": _rounded(d.bounds_nm),
        "difference": None if d.difference is None else _difference(d.difference, d.real),
        "walk": [_step(s) for s in d.walk],
        "facts": [
            {"stage": f.stage, "fact": f.fact, "region": f.region, "reference": f.reference, "says": f.says}
            for f in d.facts
        ],
        "explained": None
        if d.explained is None
        else {
            "fraction": d.explained.fraction,
            "ci95": list(d.explained.ci95),
            "cells": d.explained.cells,
            "says": explained_in_words(d),
        },
        "verdict": d.verdict,
        "says": in_words(d),
        "cause": None
        if d.cause is None
        else {
            "name": d.cause.name,
            "layer": d.cause.layer,
            "metric": d.cause.metric,
            "confidence": d.confidence,
            "says": d.cause.says,
            "sections": None if d.sections is None else list(d.sections),
        },
        "proposals": [
            {
                "id": p.id,
                "title": p.title,
                "why": p.why,
                "commands": list(p.commands),
                "region": dict(p.region),
                "overrides": [dict(o) for o in p.overrides],
            }
            for p in d.proposals
        ],
        "others": [
            {
                "region": {"name": o.region.name, "box_nm": _rounded(o.region.box_nm)},
                "cause": o.cause.name if o.cause else None,
                "says": in_words(o),
            }
            for o in d.others
        ],
    }


def _rounded(box: BoxNm) -> list[float]:
    return [round(v, 3) for v in box]


def _difference(c: Comparison, real: bool) -> dict[str, Any]:
    return {
        "metric": c.metric,
        "measure": c.measure,
        "region": c.region,
        "reference": c.reference,
        "relative": c.relative,
        "ci95": list(c.relative_ci95) if c.relative_ci95 else None,
        "p_value": c.p_value,
        "real": real,
        "n_region": c.n_region,
        "n_reference": c.n_reference,
        "edge_corrected": c.edge_corrected,
        "says": difference_in_words(c, real),
    }


def _step(s: Step) -> dict[str, Any]:
    c = s.comparison
    spread = c.spread if c.spread > 0 else 1.0
    return {
        "level": s.level,
        "layer": c.layer,
        "metric": c.metric,
        "measure": c.measure,
        "doc": KNOWN[c.metric].doc,
        "region": c.region,
        "reference": c.reference,
        "relative": c.relative,
        "effect": c.spreads,
        "ci95": [c.ci95[0] / spread, c.ci95[1] / spread],
        "p_value": c.p_value,
        "q_value": s.q_value,
        "differs": s.differs,
        "worse": c.worse,
    }


def difference_in_words(c: Comparison, real: bool) -> str:
    """One sentence on the difference asked about."""
    if c.relative is None or c.relative_ci95 is None:
        size = f"{c.effect:+.3g} {'' if c.measure == '1' else c.measure}".strip()
    else:
        low, high = c.relative_ci95
        size = f"{c.relative:+.0%} (95 % interval {low:+.0%} to {high:+.0%})"
    values = f"{c.region:.3g} against {c.reference:.3g}{'' if c.measure == '1' else ' ' + c.measure}"
    edge = ", like places near the border compared with such" if c.edge_corrected else ""
    chance = "not chance" if real else "within chance"
    if not real and (c.ci95[0] > 0 or c.ci95[1] < 0):  # the interval is that of this place and metric alone
        chance = "within chance, as several places and metrics were tried"
    return f"{c.metric} {size}: {values}, p {c.p_value:.2g}: {chance}{edge}"


def explained_in_words(d: Diagnosis) -> str:
    """How much of the difference goes with the cause."""
    if d.explained is None or d.cause is None:
        return ""
    low, high = (min(1.0, max(0.0, v)) for v in d.explained.ci95)
    share = d.explained.fraction
    much = "all" if share >= 1 else "nothing" if share <= 0 else f"{share:.0%}"
    return (
        f"{much} of the difference goes with {d.cause.metric} "
        f"(95 % interval {low:.0%} to {high:.0%}, {d.explained.cells} cells; "
        "an association, with a trend over place taken out)"
    )


def in_words(d: Diagnosis) -> str:
    """The verdict in a sentence."""
    if d.verdict == "artefact" and d.cause is not None:
        wiring = "" if d.real else " The wiring itself differs less than chance could make it; the layers before it do."
        return f"Artefact: {d.cause.name}. {d.cause.says}. It enters at {d.cause.layer}.{wiring}"
    if d.verdict == "biology":
        return "No artefact found: the difference is real and no layer before it is off: consistent with biology."
    return "No difference: that of the wiring is within chance, and no layer is off by enough to be a cause."


def report(d: Diagnosis) -> list[RenderableType]:
    """The diagnosis for a terminal; texts are to be printed without wrapping, so that commands can be copied."""
    colour = {"artefact": "red", "biology": "green", "no difference": "green"}[d.verdict]
    where = d.region.name if d.region.name and "," not in d.region.name else "region"
    parts: list[RenderableType] = [
        Text.from_markup(f"[bold]{escape(where)}[/] z, y, x {_um(d.region.box_nm)} against {escape(d.reference[0])}"),
        Text(d.region.says, style="dim"),
    ]
    if d.difference is not None:
        parts.append(Text(difference_in_words(d.difference, d.real)))
    parts += [_walk(d), *[Text("records: " + f.says) for f in d.facts], Text(in_words(d), style=f"bold {colour}")]
    if d.cause is not None:
        parts.append(Text(f"confidence {d.confidence:.0%}: resamples of the places in which the same cause is named"))
    if d.explained is not None:
        parts.append(Text(explained_in_words(d)))
    for n, p in enumerate(d.proposals, 1):
        parts.append(Text.from_markup(f"\n[bold]{n}. {escape(p.title)}[/] ({p.id}). {escape(p.why)}"))
        parts += [Text(f"   {command}") for command in p.commands]
    for o in d.others:
        parts.append(Text(f"\nalso at z, y, x {_um(o.region.box_nm)}: {in_words(o)}"))
    return parts


def _walk(d: Diagnosis) -> Table:
    table = Table(title="from the graph back to the raw images", title_justify="left", title_style="bold")
    table.box, table.padding, table.pad_edge = None, (0, 2, 0, 0), False
    for name in ("", "metric", "region", "rest", "", "effect", "q", ""):
        table.add_column(name, justify="right" if name in ("region", "rest", "effect", "q") else "left", no_wrap=True)
    last = ""
    for s in d.walk:
        c = s.comparison
        if not s.differs and (d.cause is None or c.metric != d.cause.metric):
            continue
        level = s.level if s.level != last else ""
        last = s.level
        root = d.cause is not None and c.metric == d.cause.metric
        poorer = c.worse and KNOWN[c.metric].worse != "either"
        mark = "[bold red]enters[/]" if root else "[red]worse[/]" if poorer else "differs"
        relative = "" if c.relative is None or abs(c.relative) > 9.99 else f"{c.relative:+.0%}"
        table.add_row(
            level, c.metric, f"{c.region:.3g}", f"{c.reference:.3g}", relative, f"{c.spreads:+.1f}", f"{s.q_value:.1g}",
            mark,
        )  # fmt: skip
    same = [s for s in d.walk if not s.differs]
    left_out = f"{len(same)} of {len(d.walk)} metrics do not differ and are left out"
    table.caption = f"effect: in normal spreads between places. {left_out}."
    table.caption_justify = "left"
    return table


def _um(box: BoxNm) -> str:
    return ", ".join(f"{box[k] / 1000:.2f}-{box[k + 3] / 1000:.2f}" for k in range(3)) + " um"


def metrics_table() -> Table:
    """Every metric with its layer, measure and meaning."""
    table = Table("metric", "layer", "measure", "worse", "meaning")
    for m in KNOWN.values():
        table.add_row(m.name, m.layer, m.measure, m.worse, m.doc)
    return table
