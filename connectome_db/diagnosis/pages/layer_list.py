"""The parts of the page that sum up: status of the layers, maps and profiles of the metrics."""

from __future__ import annotations

from connectome_db.diagnosis.pages import charts, grids, heatmaps
from connectome_db.diagnosis.pages.html_tags import (
    Markup,
    join,
    number,
    percent,
    section,
    severity,
    table,
    tag,
    text_of,
)
from connectome_db.diagnosis.pages.measured import LEVEL_NAMES, MEASURES, Measured, Quality, worst
from connectome_db.diagnosis.pages.shares import Shares
from connectome_db.diagnosis.pages.trend import words
from connectome_db.regional.neuroglancer import SixNm
from connectome_db.schema.quality import LEVELS

MOST_OUTLINES = 4
"""Flags that are drawn on one map, the worst first."""
_DIRECTION = {"low": "lower is worse", "high": "higher is worse", "either": "neither direction is worse in itself"}


def status_of(quality: Quality, level: str) -> str:
    """The worst severity of a layer's flags that cost quality, or what there is to say without one."""
    if not quality.of_level(level):
        return "not measured"
    if quality.flags is None:
        return "not searched"
    return worst([f.severity for f in quality.flags_of(level) if f.worse]) or "no flags"


def units_of(quality: Quality, level: str) -> int:
    """Units of the stages of a layer that have data."""
    return sum(int(r.get("units", 0)) for stage, r in quality.records.items() if LEVELS.get(stage) == level)


def status_section(quality: Quality, counted: Shares) -> Markup:
    """One card per layer, and how much lies in flagged regions."""
    cards = [_card(quality, level) for level in LEVEL_NAMES]
    return section(
        "layers", "Layers", tag("ul", *cards, class_="layers"), tag("p", share_text(quality, counted)),
        tag("details", tag("summary", "All metrics in numbers"), _metrics_table(quality)),
    )  # fmt: skip


def share_text(quality: Quality, counted: Shares) -> str:
    """How much of the data lies in flagged regions, in a sentence."""
    if quality.flags is None:
        return "How much lies in flagged regions is not known: stage flag has no data."
    parts = []
    if counted.volume is not None:
        parts.append(f"{percent(counted.volume)} of the measured volume")
    if counted.synapses is not None:
        parts.append(f"{percent(counted.synapses)} of {counted.synapses_of:,} synapses")
    if counted.connections is not None:
        parts.append(f"{percent(counted.connections)} of {counted.connections_of:,} connections (by any synapse)")
    if not parts:
        return "Nothing was measured whose share could be told."
    told = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"In regions flagged as serious or warning: {told}."


def _card(quality: Quality, level: str) -> Markup:
    mine, flags = quality.of_level(level), [f for f in quality.flags_of(level) if f.worse]
    facts = [("Units", f"{units_of(quality, level):,}"), ("Metrics", f"{len(mine)}")]
    if quality.flags is not None and mine:
        facts.append(("Flags that cost quality", f"{len(flags)}"))
    for m in _telling(quality, mine):
        low, middle, high = m.quartiles
        facts.append(
            (words(m.metric.name), f"{text_of(middle, m.metric.measure)} ({number(low, 3)} to {number(high, 3)})")
        )
    told = join(join([tag("dt", k), tag("dd", v)]) for k, v in facts)
    word = status_of(quality, level)
    return tag(
        "li", tag("h3", f"{level} {LEVEL_NAMES[level]}"), tag("p", severity(word)), tag("dl", told),
        data_level=level, data_status=word,
    )  # fmt: skip


def _telling(quality: Quality, mine: list[Measured]) -> list[Measured]:
    """Up to three metrics for a card: those with flags first, then in the order of the schema."""
    flagged = [f.metric for f in quality.flags or () if f.worse]
    return sorted(mine, key=lambda m: flagged.index(m.metric.name) if m.metric.name in flagged else len(flagged))[:3]


def _metrics_table(quality: Quality) -> Markup:
    right = {"scope": "col", "class_": "number"}
    head = ["Layer", "Metric", tag("th", "Cells", **right), tag("th", "Median", **right),
            tag("th", "Middle half", **right), tag("th", "Spread", **right), "Worst flag"]  # fmt: skip
    rows = []
    for name, m in quality.metrics.items():
        low, middle, high = m.quartiles
        word = worst([f.severity for f in quality.flags or () if f.metric == name and f.worse])
        rows.append(
            tag("tr", tag("td", m.level), tag("td", words(name), tag("p", m.metric.doc, class_="muted small")),
                tag("td", f"{len(m.value):,}", class_="number"),
                tag("td", text_of(middle, m.metric.measure), class_="number"),
                tag("td", f"{number(low)} to {number(high)}", class_="number"),
                tag("td", number(m.spread, 3), class_="number"),
                tag("td", severity(word) if word else ""))
        )  # fmt: skip
    return table(head, rows, "Over cells. Spread: the robust standard deviation between them")


def maps_section(quality: Quality) -> Markup:
    """A map and a profile of every metric, by layer."""
    hull = quality.hull_nm
    if hull is None:
        missing = [s for s in MEASURES if s not in quality.records]
        said = f"Nothing was measured: {', '.join(missing)} have no data. " if missing else "Nothing was measured. "
        return section("maps", "Maps", tag("p", said, tag("code", "dvc repro"), " runs what is missing."))
    about = (
        "Maps are averages over all sections, weighted by what each cell rests on; plain grey: no data. Dark "
        "is the end that costs quality. Each map has its own colours, from the lowest to the highest of its values or "
        f"{heatmaps.CALM:g} normal spreads of its cells to either side of the median, whichever is wider: read the "
        "numbers beside it. Frames: flags on that metric."
    )
    parts = []
    for level, name in LEVEL_NAMES.items():
        if mine := quality.of_level(level):
            figures = [_figure(quality, m, hull) for m in mine]
            parts += [tag("h3", f"{level} {name}"), tag("div", *figures, class_="cards")]
    return section("maps", "Maps", tag("p", about), *parts)


def _figure(quality: Quality, m: Measured, hull: SixNm) -> Markup:
    name, metric = words(m.metric.name), m.metric
    low, middle, high = m.quartiles
    half = f"middle half {number(low)} to {number(high)}"
    numbers = f"Median {text_of(middle, metric.measure)}, {half}, {len(m.value):,} cells"
    parts: list[Markup] = [tag("h4", name), tag("p", metric.doc, class_="muted small")]
    plane, along = grids.plane(m, hull), grids.profile(m, hull)
    if plane is not None:
        mine = [f for f in quality.flags or () if f.metric == metric.name and f.severity != "info"][:MOST_OUTLINES]
        frames = [heatmaps.Outline(f.box_nm, f"{f.name}: {f.evidence}") for f in mine]
        parts.append(
            heatmaps.draw(
                plane, metric.worse, metric.measure, f"{name} in the plane. {numbers}", frames, heatmaps.usual_of(m)
            )
        )
    else:
        parts.append(tag("p", "Measured by whole sections: no map in the plane.", class_="muted small"))
    if along is not None:
        parts.append(charts.profile(along, f"{name} along z: mean, and the middle half of cells"))
    parts.append(tag("p", f"{numbers}; {_DIRECTION[metric.worse]}.", class_="small"))
    return tag("article", *parts, class_="card", data_metric=metric.name)
